"""A sample of the fairness law: no team's log delays the other teams. `make fairness` runs all of it."""

from pathlib import Path

import pytest

from tests.fairness import measure


@pytest.mark.parametrize("attack", ["fills_without_ids", "many_legs"])
def test_a_hostile_log_does_not_stall_the_other_teams(attack: str, tmp_path: Path) -> None:
    """The daemon answers /livez and ends on SIGTERM while it works on a hostile log. The loose bound fails only where
    the loop itself folds the log, which takes many seconds."""
    outcome = measure(attack, tmp_path, 40, teams=3, open_orders=20)
    assert (0, True, True) == (outcome.livez_failures, outcome.p99_ms < 5_000, outcome.stop_ms < 10_000)
