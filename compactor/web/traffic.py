"""Count what the HTTP server does, for Prometheus: requests by the class of their status, connections and streams."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from compactor.web.connections import Connections


class Traffic(Collector):
    """Counts of one server. Note: no label names a team, a key or an order."""

    def __init__(self) -> None:
        self._requests = dict.fromkeys(("2xx", "3xx", "4xx", "5xx"), 0)
        self.streams = 0
        """Event streams that are open."""
        self.streams_dropped = 0
        """Event streams that the server ended: for a slow reader, a revoked key, another log, or its own end."""
        self.connections: Connections | None = None

    def count(self, status: int) -> None:
        """Count a request."""
        name = f"{status // 100}xx"
        if name in self._requests:
            self._requests[name] += 1

    def collect(self) -> Iterator[Metric]:
        """The metrics as of now."""
        requests = CounterMetricFamily("compactor_http_requests", "Requests by class of status.", labels=["status"])
        for name, number in self._requests.items():
            requests.add_metric([name], number)
        yield requests
        yield GaugeMetricFamily("compactor_http_streams", "Event streams that are open.", self.streams)
        yield CounterMetricFamily(
            "compactor_http_streams_dropped", "Event streams that the server ended.", self.streams_dropped
        )
        if self.connections is not None:
            yield GaugeMetricFamily("compactor_http_connections", "Open connections.", len(self.connections))
            yield CounterMetricFamily(
                "compactor_http_connections_cut", "Connections closed for a bound.", self.connections.cut_off
            )

    def render(self) -> bytes:
        """The metrics in the text format of Prometheus."""
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)
