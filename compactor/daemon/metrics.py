"""The daemon's metrics for Prometheus: counted as passes finish, or read from `Health` when they are asked for.

The rules that surprise: no label ever names an order, so their number is bounded by the number of teams. What only a
pass can know has no sample before the first one: a 0 there would read as a reset, and every restart as new findings.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, Histogram, Info
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from compactor import __version__
from compactor.daemon.account_metrics import OfAccounts
from compactor.daemon.health import Health, LedgerHealth, printable
from compactor.ledger import Compaction

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


def _age(since: float | None) -> float:
    return max(0.0, time.time() - since) if since is not None else 0.0


def _instant(text: str | None) -> float | None:
    # A float is enough here: it is read by people, on a graph.
    return datetime.fromisoformat(text).timestamp() if text else None


_Table = dict[str, tuple[str, Callable[[LedgerHealth], float | None]]]
"""Name, help, and the value in a ledger's row; None where there is none."""

_COUNTERS: _Table = {
    "compactor_trades": ("Trade lines since the first byte of the log.", lambda one: one.trades),
    "compactor_findings": ("Lines that were unreadable or suspicious.", lambda one: one.findings),
    "compactor_passes": ("Passes since the daemon started.", lambda one: one.passes),
}
_GAUGES_OF_PASSES: _Table = {
    "compactor_open_orders": ("Open orders.", lambda one: one.open_orders),
    "compactor_last_event_timestamp_seconds": ("The log's own clock.", lambda one: _instant(one.last_event_at)),
    "compactor_sealed_bytes": ("Bytes of the log that are sealed.", lambda one: one.sealed_bytes),
    "compactor_segments": ("Sealed segments.", lambda one: one.segments),
}
_GAUGES: _Table = {
    "compactor_log_bytes": ("Bytes of the log.", lambda one: one.log_bytes),
    "compactor_lag_bytes": ("Bytes of the log that are not folded yet.", lambda one: one.lag_bytes),
    "compactor_lag_seconds": ("For how long bytes have been waiting.", lambda one: _age(one.lag_since)),
    "compactor_unfinished_line_age_seconds": (
        "Age of a last line that has no end yet.",
        lambda one: _age(one.tail_since),
    ),
    "compactor_ledger_degraded": ("1 where the ledger cannot be kept current.", lambda one: one.state == "degraded"),
}


class Metrics:
    """All metrics of one daemon, in a registry of their own."""

    def __init__(self, health: Health) -> None:
        # Described, so that /metrics?name[]=… finds what is read from health, too.
        self.registry = CollectorRegistry(auto_describe=True)
        self._pass_seconds = Histogram(
            "compactor_pass_duration_seconds",
            "Seconds from the start of a pass to committed files.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        Info("compactor_build", "The version that runs.", registry=self.registry).info({"version": __version__})
        self.registry.register(_OfHealth(health))
        self.registry.register(OfAccounts(health))

    def observe_pass(self, _compaction: Compaction, seconds: float) -> None:
        """Count a pass that is done."""
        self._pass_seconds.observe(seconds)


class _OfHealth(Collector):
    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterator[Metric]:
        ledgers = self._health.snapshot()
        folded = [one for one in ledgers if one.last_pass_at is not None]
        yield _events(folded)
        yield from _families(CounterMetricFamily, _COUNTERS, folded)
        yield from _families(GaugeMetricFamily, _GAUGES_OF_PASSES, folded)
        yield from _families(GaugeMetricFamily, _GAUGES, ledgers)
        yield GaugeMetricFamily("compactor_ledgers", "Ledgers that are looked after.", value=len(ledgers))
        degraded = len(self._health.degraded)
        yield GaugeMetricFamily("compactor_degraded_ledgers", "Ledgers that cannot be kept current.", value=degraded)
        yield GaugeMetricFamily("compactor_caught_up", "1 once every ledger was current.", value=self._health.caught_up)
        yield GaugeMetricFamily(
            "compactor_loop_age_seconds",
            "Seconds since the loop turned last.",
            value=time.monotonic() - self._health.last_progress,
        )


def _events(ledgers: list[LedgerHealth]) -> Metric:
    help_text = "Events applied since the first byte of the log, by name."
    family = CounterMetricFamily("compactor_events", help_text, labels=["team", "kind"])
    for one in ledgers:
        for kind, number in sorted(one.kinds.items()):
            family.add_metric([printable(one.team_id), kind], number)
    return family


def _families(
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily], table: _Table, ledgers: list[LedgerHealth]
) -> Iterator[Metric]:
    for name, (help_text, value) in table.items():
        family = kind(name, help_text, labels=["team"])
        for one in ledgers:
            found = value(one)
            if found is not None:
                family.add_metric([printable(one.team_id)], found)
        yield family
