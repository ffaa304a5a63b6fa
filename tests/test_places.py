"""Where ledgers lie and what they are called: team ids, directories, symbolic links."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compactor import BadTeam, Ledger, discover
from compactor.ledger.paths import locate_ledger, team_in_path
from tests.cases import LOG
from tests.faults import orders

Event = Callable[..., dict[str, Any]]


@pytest.fixture
def alpha(data: Path) -> Path:
    """The ledger of team alpha, compacted."""
    path = data / "team" / "alpha"
    path.mkdir(parents=True)
    (path / LOG).write_bytes(orders(0, 9))
    Ledger(path).compact()
    return path


@pytest.mark.parametrize(
    "team_id", ["", ".", "..", "../x", "a/b", "-a", "_a", ".a", "a b", "ä", "a\n", "a" * 65, "a\0"], ids=repr
)
def test_a_bad_team_id_is_refused_before_a_path_is_built(team_id: str, data: Path) -> None:
    """1.1: letters, digits, dot, underscore, hyphen; the first a letter or digit; 64 at most."""
    with pytest.raises(BadTeam, match="is no team id"):
        Ledger(data, team_id=team_id)
    with pytest.raises(BadTeam, match="is no team id"):
        discover(data, team_id)


@pytest.mark.parametrize("team_id", ["a", "0", "A.b_c-d", "a" * 64])
def test_a_good_team_id_is_a_directory_below_team(team_id: str, data: Path) -> None:
    """1.1: and the ledger there has its name."""
    assert data / "team" / team_id == locate_ledger(data, team_id).path
    assert team_id == Ledger(data / "team" / team_id).team_id or (data / "team" / team_id).exists()


def test_a_ledger_below_team_is_named_by_its_directory(alpha: Path, placed: Event) -> None:
    """1.2: from the first line on; events of another team are set aside."""
    with Ledger(alpha) as ledger:
        assert {"alpha"} == {trade["team_id"] for trade in ledger.rows("trades")}
    with (alpha / LOG).open("a") as log:
        log.write(json.dumps(placed(team_id="bravo")) + "\n")
    assert "alpha" == Ledger(alpha).compact().team_id
    assert "wrong_team" == [finding["kind"] for finding in Ledger(alpha).rows("findings")][-1]


def test_a_directory_whose_name_is_no_team_id_names_no_ledger(data: Path) -> None:
    """1.2: it is named by its events, like any other that lies elsewhere."""
    assert ("alpha", None) == (team_in_path(data / "team/alpha"), team_in_path(data / "team/_odd"))


def test_any_other_ledger_is_named_by_its_events(data: Path, placed: Event) -> None:
    """1.2: `default` until one says it."""
    ledger = Ledger(data)
    ledger.append([placed()])
    assert ("default", "default") == (ledger.compact().team_id, ledger.team_id)
    ledger.append([placed("o2", team_id="bravo")])
    assert ("bravo", "bravo") == (ledger.compact().team_id, ledger.team_id)
    assert {"bravo"} == {row["team_id"] for row in ledger.rows("pending_orders")}
    ledger.close()
    assert "bravo" == Ledger(data).compact().team_id


def test_ledgers_are_found_by_their_logs(alpha: Path, data: Path) -> None:
    """1 and 1.2: every team with a log, by name, and the directory itself."""
    for name in ("charlie", "bravo"):
        (data / "team" / name).mkdir()
    (data / "team" / "charlie" / LOG).touch()
    (data / "team" / "_odd").mkdir()
    (data / "team" / "_odd" / LOG).touch()
    (data / LOG).touch()
    found = [(place.team_id, place.path, place.problem is None) for place in discover(data)]
    team = data / "team"
    assert [(None, data, True), ("_odd", team / "_odd", False), ("alpha", alpha, True)] == found[:3]
    assert [("charlie", team / "charlie", True)] == found[3:]


@pytest.mark.parametrize("what", ["team", "log", "within"])
def test_a_symbolic_link_below_team_is_refused(what: str, alpha: Path, data: Path) -> None:
    """1.1: no links, neither out of the data directory nor within it; the others go on."""
    outside = data.parent / "outside"
    outside.mkdir()
    (outside / LOG).write_bytes(b"")
    bravo, target = data / "team" / "bravo", outside
    if what == "team":
        bravo.symlink_to(outside)
    elif what == "within":
        target = alpha
        bravo.symlink_to(alpha)
    else:
        bravo.mkdir()
        (bravo / LOG).symlink_to(outside / LOG)
    one_by_one = [entry for team in ("alpha", "bravo") for entry in discover(data, team)]
    for entries in (discover(data), one_by_one):
        assert ["alpha", "bravo"] == [entry.team_id for entry in entries]
        assert [True, False] == [entry.problem is None for entry in entries]
        assert f"is a symbolic link to {target}" in str(entries[1].problem)


def test_a_data_directory_may_be_a_link(alpha: Path, data: Path) -> None:
    """1.1: only what lies below `team/` has to be without links."""
    (data.parent / "current").symlink_to(data)
    (entry,) = discover(data.parent / "current")
    assert entry.problem is None
    assert Ledger(entry.path).compact().team_id == alpha.name
