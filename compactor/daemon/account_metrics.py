"""The metrics of the links to the broker, one sample an account, read from `Health` when they are asked for.

The rule that surprises: there is no age of the last message, since a quiet market has none; the time of it is there for
those who know when their market is open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from compactor.daemon.health import AccountHealth, Health

_Table = dict[str, tuple[str, Callable[[AccountHealth], float | None]]]
"""Name, help, and the value in an account's row; None where there is none."""

_COUNTERS: _Table = {
    "compactor_stream_reconnects": ("Connections after the first one.", lambda one: max(0, one.connections - 1)),
    "compactor_stream_messages": ("Frames that the stream has sent.", lambda one: one.messages),
    "compactor_stream_unreadable_messages": ("Frames that were no updates; findings.", lambda one: one.unreadable),
    "compactor_stream_mute": ("Times that the stream was found to keep something to itself.", lambda one: one.mute),
    "compactor_reconciles": ("Reconciles that went well.", lambda one: one.reconciles),
    "compactor_reconcile_failures": ("Reconciles that did not.", lambda one: one.reconcile_failures),
    "compactor_untold_orders": ("Orders of which the stream kept something to itself.", lambda one: one.untold_orders),
}
_GAUGES: _Table = {
    "compactor_stream_connected": ("1 while trade updates are listened to.", lambda one: one.connected),
    "compactor_stream_last_message_timestamp_seconds": ("When the last frame came.", lambda one: one.last_message_at),
    "compactor_stream_waiting_lines": ("Lines that could not be written yet.", lambda one: one.waiting_lines),
    "compactor_reconcile_last_success_timestamp_seconds": (
        "When the last reconcile began that went well.",
        lambda one: one.last_reconcile_at,
    ),
    "compactor_reconcile_interval_seconds": ("How often it is reconciled.", lambda one: one.reconcile_seconds),
    "compactor_reconcile_differences": ("What no event can put right.", lambda one: one.differences),
    "compactor_requests_used": (
        "Requests of the last minute, as of the last reconcile.",
        lambda one: one.requests_used,
    ),
    "compactor_requests_per_minute": ("Requests that a minute may have.", lambda one: one.requests_per_minute),
}


class OfAccounts(Collector):
    """Samples with the label `account`; none where there is no link to a broker."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterator[Metric]:
        rows = sorted(self._health.accounts.values(), key=lambda one: one.account)
        for kind, table in ((CounterMetricFamily, _COUNTERS), (GaugeMetricFamily, _GAUGES)):
            for name, (help_text, value) in table.items():
                family = kind(name, help_text, labels=["account"])
                for row in rows:
                    found = value(row)
                    if found is not None:
                        family.add_metric([row.account], found)
                yield family
