"""The daemon's metrics for Prometheus: counted as passes finish, or read from `Health` at each scrape.

Note: no label ever names an order, so the number of series is bounded by the number of teams and accounts. A metric
that only a pass can know has no sample before the first pass: a 0 would look like a counter reset after each restart.
There is no age of the last message, because a quiet market has none; its timestamp is exported instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from prometheus_client import CollectorRegistry, Histogram, Info
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from compactor import __version__
from compactor.core.printable import printable
from compactor.daemon.health import AccountHealth, Health, LedgerHealth
from compactor.ledger import Compaction
from compactor.proofs.heads import read_alarms

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


def _get_age(since: float | None) -> float:
    return max(0.0, time.time() - since) if since is not None else 0.0


def _parse_instant(text: str | None) -> float | None:
    # A float is precise enough for a graph.
    return datetime.fromisoformat(text).timestamp() if text else None


_Table = dict[str, tuple[str, Callable[[LedgerHealth], float | None]]]
_AccountTable = dict[str, tuple[str, Callable[[AccountHealth], float | None]]]
"""Name, help, and the value in a row; None if it has none."""

_COUNTERS: _Table = {
    "compactor_trades": ("Trade lines since the first byte of the log.", lambda one: one.trades),
    "compactor_findings": ("Lines that were unreadable or suspicious.", lambda one: one.findings),
    "compactor_passes": ("Passes since the daemon started.", lambda one: one.passes),
}
_GAUGES_OF_PASSES: _Table = {
    "compactor_open_orders": ("Open orders.", lambda one: one.open_orders),
    "compactor_last_event_timestamp_seconds": ("The log's own clock.", lambda one: _parse_instant(one.last_event_at)),
    "compactor_sealed_bytes": ("Bytes of the log that are sealed.", lambda one: one.sealed_bytes),
    "compactor_segments": ("Sealed segments.", lambda one: one.segments),
}
_GAUGES: _Table = {
    "compactor_log_bytes": ("Bytes of the log.", lambda one: one.log_bytes),
    "compactor_lag_bytes": ("Bytes of the log that are not folded yet.", lambda one: one.lag_bytes),
    "compactor_lag_seconds": ("For how long bytes have been waiting.", lambda one: _get_age(one.lag_since)),
    "compactor_unfinished_line_age_seconds": (
        "Age of a last line that has no end yet.",
        lambda one: _get_age(one.tail_since),
    ),
    "compactor_ledger_degraded": ("1 if the ledger cannot be kept current.", lambda one: one.state == "degraded"),
}

_ACCOUNT_COUNTERS: _AccountTable = {
    "compactor_stream_reconnects": ("Connections after the first one.", lambda one: max(0, one.connections - 1)),
    "compactor_stream_messages": ("Messages that the stream has sent.", lambda one: one.messages),
    "compactor_stream_unreadable_messages": ("Messages that were no updates; findings.", lambda one: one.unreadable),
    "compactor_stream_mute": ("Times that the stream was found to be mute.", lambda one: one.mute),
    "compactor_reconciles": ("Successful reconciles.", lambda one: one.reconciles),
    "compactor_reconcile_failures": ("Failed reconciles.", lambda one: one.reconcile_failures),
    "compactor_key_refusals": ("Times that the broker refused the keys.", lambda one: one.key_refusals),
    "compactor_untold_orders": ("Orders about which the stream missed something.", lambda one: one.untold_orders),
}
_ACCOUNT_GAUGES: _AccountTable = {
    "compactor_keys_refused": (
        "1 while the broker refuses the keys.",
        lambda one: one.keys_refused_since is not None,
    ),
    "compactor_stream_connected": ("1 while the stream is connected.", lambda one: one.connected),
    "compactor_stream_last_message_timestamp_seconds": ("Time of the last message.", lambda one: one.last_message_at),
    "compactor_stream_waiting_lines": ("Lines that could not be written yet.", lambda one: one.waiting_lines),
    "compactor_reconcile_last_success_timestamp_seconds": (
        "Start of the last successful reconcile.",
        lambda one: one.last_reconcile_at,
    ),
    "compactor_reconcile_interval_seconds": ("Interval of reconciles.", lambda one: one.reconcile_seconds),
    "compactor_reconcile_differences": ("Differences that no event can repair.", lambda one: one.differences),
    "compactor_reconcile_positions_differing": (
        "Positions that are not what the trades add up to.",
        lambda one: one.positions_differing,
    ),
    "compactor_requests_used": (
        "Requests in the last minute, as of the last reconcile.",
        lambda one: one.requests_used,
    ),
    "compactor_requests_per_minute": ("Requests that are allowed per minute.", lambda one: one.requests_per_minute),
}


class Metrics:
    """All metrics of one daemon, in their own registry."""

    def __init__(self, health: Health, data: Path | None = None) -> None:
        """With `data`, also the alarms of signed heads that are kept there."""
        # Described, so that /metrics?name[]=… also finds what is read from health.
        self.registry = CollectorRegistry(auto_describe=True)
        self._pass_seconds = Histogram(
            "compactor_pass_duration_seconds",
            "Seconds from the start of a pass to committed files.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        Info("compactor_build", "The version that runs.", registry=self.registry).info({"version": __version__})
        self.registry.register(_LedgerCollector(health))
        self.registry.register(_AccountCollector(health))
        if data is not None:
            self.registry.register(_HeadCollector(data))

    def observe_pass(self, _compaction: Compaction, seconds: float) -> None:
        """Count a finished pass."""
        self._pass_seconds.observe(seconds)


class _LedgerCollector(Collector):
    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterator[Metric]:
        ledgers = self._health.snapshot()
        folded = [one for one in ledgers if one.last_pass_at is not None]
        yield _make_events(folded)
        yield from _make_families(CounterMetricFamily, _COUNTERS, folded)
        yield from _make_families(GaugeMetricFamily, _GAUGES_OF_PASSES, folded)
        yield from _make_families(GaugeMetricFamily, _GAUGES, ledgers)
        yield GaugeMetricFamily("compactor_ledgers", "Ledgers that the daemon watches.", value=len(ledgers))
        degraded = len(self._health.degraded)
        yield GaugeMetricFamily("compactor_degraded_ledgers", "Ledgers that cannot be kept current.", value=degraded)
        yield GaugeMetricFamily("compactor_caught_up", "1 once every ledger was current.", value=self._health.caught_up)
        yield GaugeMetricFamily(
            "compactor_loop_age_seconds",
            "Seconds since the loop turned last.",
            value=time.monotonic() - self._health.last_progress,
        )


def _make_events(ledgers: list[LedgerHealth]) -> Metric:
    help_text = "Events applied since the first byte of the log, by name."
    family = CounterMetricFamily("compactor_events", help_text, labels=["team", "kind"])
    for one in ledgers:
        for kind, number in sorted(one.kinds.items()):
            family.add_metric([printable(one.team_id), kind], number)
    return family


def _make_families(
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily], table: _Table, ledgers: list[LedgerHealth]
) -> Iterator[Metric]:
    for name, (help_text, value) in table.items():
        family = kind(name, help_text, labels=["team"])
        for one in ledgers:
            found = value(one)
            if found is not None:
                family.add_metric([printable(one.team_id)], found)
        yield family


class _HeadCollector(Collector):
    """Logs that do not continue what was signed or witnessed of them (`proofs.heads`)."""

    def __init__(self, data: Path) -> None:
        self._data = data

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "compactor_head_alarm", "1 if a log does not continue its signed or witnessed heads.", labels=["team"]
        )
        alarms = read_alarms(self._data)
        for team in alarms:
            family.add_metric([printable(team)], 1)
        yield family
        help_text = "Logs that do not continue their signed or witnessed heads."
        yield GaugeMetricFamily("compactor_head_alarms", help_text, value=len(alarms))


class _AccountCollector(Collector):
    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterator[Metric]:
        rows = sorted(self._health.accounts.values(), key=lambda one: one.account)
        for kind, table in ((CounterMetricFamily, _ACCOUNT_COUNTERS), (GaugeMetricFamily, _ACCOUNT_GAUGES)):
            for name, (help_text, value) in table.items():
                family = kind(name, help_text, labels=["account"])
                for row in rows:
                    found = value(row)
                    if found is not None:
                        family.add_metric([row.account], found)
                yield family
