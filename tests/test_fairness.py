"""A sample of the fairness law: no team's log delays the other teams. `make fairness` runs all of it."""

from pathlib import Path

import pytest

from compactor import Ledger
from tests.fairness import measure
from tests.hostile import HOSTILE, LOG_BYTES_MAX


@pytest.mark.parametrize("attack", ["fills_without_ids", "many_legs"])
def test_a_hostile_log_does_not_stall_the_other_teams(attack: str, tmp_path: Path) -> None:
    """The daemon answers /livez and ends on SIGTERM while it works on a hostile log. The loose bound fails only where
    the loop itself folds the log, which takes many seconds."""
    outcome = measure(attack, tmp_path, 40, teams=3, open_orders=20)
    assert (0, True, True) == (outcome.livez_failures, outcome.p99_ms < 5_000, outcome.stop_ms < 10_000)


@pytest.mark.parametrize("attack", HOSTILE)
def test_what_a_hostile_log_becomes_stays_in_proportion(attack: str, tmp_path: Path) -> None:
    """453 KB of `assigned` became 670 MB of trades: there is a bound for what a byte of a log may cost on the disk."""
    log = HOSTILE[attack]()
    assert len(log) <= LOG_BYTES_MAX
    path = tmp_path / "team" / "hostile"
    path.mkdir(parents=True)
    (path / "events.jsonl").write_bytes(log)
    with Ledger(path) as ledger:
        ledger.compact(checkpoint=True)
    derived = sum(one.stat().st_size for one in path.rglob("*") if one.is_file() and one.name != "events.jsonl")
    assert derived < 40 * len(log)
