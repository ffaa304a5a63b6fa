"""The daemon's metrics: what each ledger's row becomes in Prometheus' text."""

from __future__ import annotations

import re
import time
from pathlib import Path

import msgspec
import pytest
from prometheus_client import generate_latest

from compactor import __version__
from compactor.daemon.health import Health, LedgerHealth
from compactor.daemon.metrics import Metrics
from compactor.ledger import Ledger


@pytest.fixture
def health() -> Health:
    """Two ledgers that are current, after a pass each."""
    health = Health()
    health.caught_up = True
    for team in ("alice", "bob"):
        health.ledgers[team] = LedgerHealth(
            team, team, "current", events=7, kinds={"fill": 3, "new": 4}, trades=3, findings=1, open_orders=2,
            log_bytes=900, sealed_bytes=400,
            segments=1, last_event_at="2026-03-09T14:30:00+00:00", passes=5, last_pass_at=time.time(),
        )  # fmt: skip
    return health


def set_row(health: Health, team: str, **changes: object) -> None:
    health.ledgers[team] = msgspec.structs.replace(health.ledgers[team], **changes)


def value(health: Health, name: str, team: str | None = None) -> float | None:
    labels = {"team": team} if team is not None else {}
    return Metrics(health).registry.get_sample_value(name, labels)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("compactor_trades_total", 3), ("compactor_findings_total", 1),
        ("compactor_passes_total", 5), ("compactor_open_orders", 2), ("compactor_log_bytes", 900),
        ("compactor_lag_bytes", 0), ("compactor_lag_seconds", 0), ("compactor_unfinished_line_age_seconds", 0),
        ("compactor_last_event_timestamp_seconds", 1773066600), ("compactor_sealed_bytes", 400),
        ("compactor_segments", 1), ("compactor_ledger_degraded", 0),
    ],
)  # fmt: skip
def test_every_ledger_has_its_own_sample(health: Health, name: str, expected: float) -> None:
    """Events, trades, findings, lag, open orders, sealed bytes, last event: by team."""
    set_row(health, "bob", state="degraded", kind="disk_full", reason="no room")
    assert expected == value(health, name, "alice")
    assert 1 == value(health, "compactor_ledger_degraded", "bob")
    assert (2, 1, 1) == tuple(value(health, f"compactor_{one}") for one in ("ledgers", "degraded_ledgers", "caught_up"))


def test_events_are_counted_by_team_and_kind(health: Health) -> None:
    """Events by team and kind."""
    registry = Metrics(health).registry
    assert (4, 3) == tuple(
        registry.get_sample_value("compactor_events_total", {"team": "alice", "kind": kind}) for kind in ("new", "fill")
    )


def test_a_ledger_without_a_pass_has_no_counters(health: Health) -> None:
    """A restart is no reset to 0: that would read as so many new findings once the checkpoint is read."""
    health.ledgers["carol"] = LedgerHealth("carol", "carol", log_bytes=10, lag_bytes=10)
    assert value(health, "compactor_findings_total", "carol") is None
    assert value(health, "compactor_open_orders", "carol") is None
    assert 10 == value(health, "compactor_lag_bytes", "carol")
    assert 3 == value(health, "compactor_ledgers")


def test_a_log_without_events_has_no_last_event(health: Health) -> None:
    """Without an event there is no time of it; 0 would be an event of 1970."""
    set_row(health, "bob", last_event_at=None)
    assert value(health, "compactor_last_event_timestamp_seconds", "bob") is None


def test_what_waits_has_an_age(health: Health) -> None:
    """Lag in seconds and the age of an unfinished last line run on while nothing happens."""
    set_row(health, "bob", lag_since=time.time() - 50, tail_since=time.time() - 400)
    health.last_progress = time.monotonic() - 70
    for name, least in (("lag_seconds", 50), ("unfinished_line_age_seconds", 400)):
        found = value(health, f"compactor_{name}", "bob")
        assert found is not None
        assert found >= least
    age = value(health, "compactor_loop_age_seconds")
    assert age is not None
    assert age >= 70


def test_a_clock_that_was_set_back_makes_no_negative_age(health: Health) -> None:
    """Ages are never below 0."""
    set_row(health, "bob", lag_since=time.time() + 5000)
    assert 0 == value(health, "compactor_lag_seconds", "bob")


def test_labels_are_the_team_and_never_an_order(health: Health) -> None:
    """Never a label per order."""
    text = generate_latest(Metrics(health).registry).decode()
    assert {"team", "kind", "le", "version"} == set(re.findall(r'[{,](\w+)="', text))
    assert f'compactor_build_info{{version="{__version__}"}} 1.0' in text


def test_a_directory_that_is_no_utf8_spoils_no_other_metric(health: Health) -> None:
    """One ledger with a name of any bytes stops no other from being seen."""
    health.ledgers["x"] = LedgerHealth("x\udcff", "team/x\udcff", "degraded", "bad_place", "no team id")
    text = generate_latest(Metrics(health).registry).decode()
    assert 'compactor_ledger_degraded{team="x\\\\udcff"} 1.0' in text
    assert 'compactor_findings_total{team="alice"} 1.0' in text


def test_passes_are_counted_by_their_seconds(tmp_path: Path, health: Health) -> None:
    """Pass duration, as a histogram."""
    metrics = Metrics(health)
    (tmp_path / "events.jsonl").write_bytes(b"")
    with Ledger(tmp_path) as ledger:
        metrics.observe_pass(ledger.compact(), 0.003)
    assert 1 == metrics.registry.get_sample_value("compactor_pass_duration_seconds_bucket", {"le": "0.005"})
    assert 0 == metrics.registry.get_sample_value("compactor_pass_duration_seconds_bucket", {"le": "0.002"})
