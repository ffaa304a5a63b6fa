"""Old files and the other ledgers: each execution stands in one of them, whatever had heard of the order before."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from compactor import Ledger
from compactor.books.assign import assign
from compactor.books.turns import turn
from compactor.imports import owners
from compactor.imports.legacy import import_legacy
from tests.imported import by_team, read_files, sum_positions

Write = Callable[..., Path]
Event = Callable[..., dict[str, Any]]

T = "2026-01-05T15:00:00Z"


def _order(number: int, **fields: Any) -> dict[str, Any]:
    told = {"order_id": f"b{number}", "symbol": "SPY", "side": "buy", "quantity": "10", "filled_qty": "0"}
    return {**told, "status": "new", "created_at": T, "updated_at": T} | fields


def _filled(number: int, **fields: Any) -> dict[str, Any]:
    end = {"status": "filled", "filled_qty": "10", "filled_avg_price": "529.98", "updated_at": "2026-01-05T15:00:01Z"}
    return _order(number, **end) | fields


def _trade(number: int) -> dict[str, Any]:
    told = {"broker_order_id": f"b{number}", "symbol": "SPY", "side": "buy", "quantity": "10"}
    return {**told, "execution_price": "529.98", "timestamp": "2026-01-05T15:00:01Z"}


def _write_old(home: Path, orders: list[dict[str, Any]], trades: list[dict[str, Any]] | None = None) -> None:
    """The old files of a team, in its directory."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "pending_orders.jsonl").write_text("".join(json.dumps(one) + "\n" for one in orders))
    (home / "trades.jsonl").write_text("".join(json.dumps(one) + "\n" for one in trades or []))


def _compact(data: Path) -> None:
    for path in (data / "team").iterdir():
        with Ledger(path) as ledger:
            ledger.compact()


def _open(data: Path) -> dict[str, list[str]]:
    """The open orders of each ledger that has some."""
    found = {}
    for path in sorted((data / "team").iterdir()):
        if rows := [row["order_id"] for row in Ledger(path).rows("pending_orders")]:
            found[path.name] = rows
    return found


def _sums(data: Path) -> dict[str, int]:
    """The position of each ledger that has one."""
    sums = {path.name: sum_positions(path).get("SPY", Decimal(0)) for path in (data / "team").iterdir()}
    return {team: int(quantity) for team, quantity in sorted(sums.items()) if quantity}


@pytest.mark.parametrize("fields", [{}, {"order_id": "a", "broker_order_id": "b"}])
def test_what_lies_in_unassigned_moves_to_the_team_of_the_old_files(
    data: Path, write_log: Write, placed: Event, filled: Event, tmp_path: Path, fields: dict[str, str]
) -> None:
    """4.12: the stream told of them before anybody knew whose they are; whichever id the old lines name."""
    ids = [{name: f"{text}{number}" for name, text in fields.items()} for number in (1, 2)]
    write_log("unassigned", placed("b1"), filled("b1"), placed("b2"))
    _compact(data)
    old = [_order(1, **ids[0]), _filled(1, **ids[0]), _order(2, **ids[1])]
    _write_old(tmp_path / "old/team/alpha", old, [_trade(1)])
    assert {"b1": "alpha", "b2": "alpha"} == import_legacy(tmp_path / "old", data).moved
    assert ({"alpha": ["b2"]}, {"alpha": 10}) == (_open(data), _sums(data))
    before = read_files(data)
    assert {} == import_legacy(tmp_path / "old", data).moved
    assert before == read_files(data), "again adds nothing"


def test_legs_that_the_old_files_do_not_name_move_with_their_order(
    data: Path, write_log: Write, placed: Event, tmp_path: Path
) -> None:
    """4.12: in the same run, as after an import of a recording."""
    write_log("unassigned", placed("b1"), placed("l1", parent_order_id="b1"))
    _compact(data)
    _write_old(tmp_path / "old/team/alpha", [_order(1)])
    assert {"b1": "alpha", "l1": "alpha"} == import_legacy(tmp_path / "old", data).moved
    assert {"alpha": ["b1", "l1"]} == _open(data)


def test_what_an_earlier_import_left_in_unassigned_moves(
    data: Path, write_log: Write, placed: Event, filled: Event, tmp_path: Path
) -> None:
    """The orders stood in both ledgers; importing again puts that right."""
    _write_old(tmp_path / "old/team/alpha", [_filled(1), _order(2)], [_trade(1)])
    import_legacy(tmp_path / "old", data)
    write_log("unassigned", placed("b1"), filled("b1"), placed("b2"))
    _compact(data)
    assert {"alpha": 10, "unassigned": 10} == _sums(data)
    import_legacy(tmp_path / "old", data)
    assert ({"alpha": ["b2"]}, {"alpha": 10}) == (_open(data), _sums(data))


def test_old_files_in_place_are_put_away_before_anything_moves(
    data: Path, write_log: Write, placed: Event, tmp_path: Path
) -> None:
    """A move compacts the team's ledger, which would overwrite them."""
    write_log("unassigned", placed("b1"))
    _compact(data)
    _write_old(data / "team/alpha", [_order(1), _order(2)])
    assert {"b1": "alpha"} == import_legacy(data, data).moved
    assert {"alpha": ["b1", "b2"]} == _open(data)
    assert 2 == len((data / "team/alpha/legacy/pending_orders.jsonl").read_text().splitlines())


def test_nothing_moves_to_a_ledger_whose_old_files_are_still_in_place(
    data: Path, write_log: Write, placed: Event, tmp_path: Path
) -> None:
    """Nothing in them could be read; a compaction would overwrite them."""
    write_log("unassigned", placed("b1", client_order_id="alpha:1"))
    _compact(data)
    home = data / "team/alpha"
    home.mkdir()
    (home / "pending_orders.jsonl").write_text("unreadable\n")
    _write_old(tmp_path / "old/team/bravo", [_order(2)])
    for path in (data, tmp_path / "old"):
        assert {} == import_legacy(path, data).moved
    assert "unreadable\n" == (home / "pending_orders.jsonl").read_text()


@pytest.mark.parametrize("team", ["bravo", "unassigned"])
def test_another_team_s_order_is_contested(
    data: Path, write_log: Write, placed: Event, filled: Event, tmp_path: Path, team: str
) -> None:
    """Decision 18: its ledger has the order, or its name says so. Nothing of it is booked here, all else is."""
    write_log("bravo", placed("b9"))
    write_log(team, placed("b1", client_order_id="bravo:1"), filled("b1"))
    _compact(data)
    _write_old(tmp_path / "old/team/alpha", [_order(1), _filled(1), _order(2)], [_trade(1)])
    for _ in range(2):
        found = by_team(import_legacy(tmp_path / "old", data))["alpha"]
        assert [(1, "contested"), (1, "contested"), (2, "contested")] == sorted(
            (one.line, one.kind) for one in found.problems
        )
        assert "order b1 is bravo's, so it was not imported for alpha" in found.problems[0].detail
        assert ["b2"] == _open(data)["alpha"]
        assert {"bravo": 10} == _sums(data)


@pytest.mark.parametrize(("teams", "owner"), [(["bravo", "charlie"], "charlie"), (["bravo"], "bravo")])
def test_the_owner_that_is_named_has_the_order(
    data: Path, write_log: Write, placed: Event, tmp_path: Path, teams: list[str], owner: str
) -> None:
    """Of several ledgers the one that the order's name means; a ledger that does not have it does not."""
    write_log("charlie", placed("b9"))
    for team in teams:
        write_log(team, placed("b1", client_order_id="charlie:1"))
    _compact(data)
    _write_old(tmp_path / "old/team/alpha", [_order(1, client_order_id="charlie:1")])
    [problem] = by_team(import_legacy(tmp_path / "old", data))["alpha"].problems
    assert f"order b1 is {owner}'s, so it was not imported for alpha" in problem.detail


def test_an_order_is_contested_by_either_of_its_ids(
    data: Path, write_log: Write, placed: Event, filled: Event, tmp_path: Path
) -> None:
    """An old program's own id beside the broker's; also on lines that have the one only."""
    write_log("bravo", placed("b1"), filled("b1"))
    _compact(data)
    old = [_order(1, order_id="a1"), _filled(1, order_id="a1", broker_order_id="b1")]
    _write_old(tmp_path / "old/team/alpha", old, [_trade(1)])
    found = by_team(import_legacy(tmp_path / "old", data))["alpha"]
    assert (0, 3) == (found.events_appended, len(found.problems))
    assert ({}, {"bravo": 10}) == (_open(data), _sums(data))


def test_another_ledger_that_names_the_team_s_order_is_named_once(
    data: Path, write_log: Write, placed: Event, tmp_path: Path
) -> None:
    """Decision 18: the ledger that had it first goes on with it."""
    write_log("alpha", placed("b1", recorded_at=T))
    write_log("bravo", placed("b1", recorded_at="2026-01-05T15:00:01Z"))
    _compact(data)
    _write_old(tmp_path / "old/team/alpha", [_order(1), _filled(1)], [_trade(1)])
    found = by_team(import_legacy(tmp_path / "old", data))["alpha"]
    [problem] = found.problems
    assert "order b1 is alpha's (that ledger had it first" in problem.detail
    assert {"alpha": 10} == _sums(data)


def test_an_order_that_another_team_has_under_the_old_id_is_contested(
    data: Path, write_log: Write, placed: Event, tmp_path: Path
) -> None:
    """Nothing of it is booked under the broker's id either, nor moved: a person decides."""
    write_log("bravo", placed("a1"))
    write_log("unassigned", placed("b1"))
    _compact(data)
    told = {"order_id": "a1", "broker_order_id": "b1"}
    _write_old(tmp_path / "old/team/alpha", [_order(1, **told), _filled(1, **told)], [_trade(1)])
    found = import_legacy(tmp_path / "old", data)
    assert {"contested"} == {problem.kind for problem in by_team(found)["alpha"].problems}
    assert ({"bravo": ["a1"], "unassigned": ["b1"]}, {}) == (_open(data), found.moved)


def test_orders_that_two_old_programs_number_alike_are_two(tmp_path: Path, data: Path) -> None:
    """The broker's ids tell."""
    for team in ("alpha", "bravo"):
        _write_old(tmp_path / "old/team" / team, [_order(1, order_id="1", broker_order_id=f"{team}-1")])
    for _ in range(2):
        found = by_team(import_legacy(tmp_path / "old", data))
        assert [[], []] == [one.problems for one in found.values()]
    assert {"alpha": ["alpha-1"], "bravo": ["bravo-1"]} == _open(data)


def test_an_order_of_two_old_directories_is_the_first_one_s(tmp_path: Path, data: Path) -> None:
    """One order cannot be two teams'; the other directory's lines are named."""
    for team in ("alpha", "bravo"):
        _write_old(tmp_path / "old/team" / team, [_filled(1)], [_trade(1)])
    for _ in range(2):
        found = by_team(import_legacy(tmp_path / "old", data))
        assert {"alpha": [], "bravo": ["contested"] * 2} == {
            team: [problem.kind for problem in one.problems] for team, one in found.items()
        }
        assert {"alpha": 10} == _sums(data)


@pytest.mark.parametrize("to_team", ["zed", "unassigned"])
@pytest.mark.parametrize("keeps_lines", [True, False])
def test_an_order_that_was_assigned_away_goes_on_where_it_is(
    tmp_path: Path, data: Path, to_team: str, keeps_lines: bool
) -> None:
    """4.12: what the old files tell of it since is the owner's, also where only its trade is left in them."""
    order = _order(1, order_id="a1", broker_order_id="b1")
    _write_old(tmp_path / "old/team/alpha", [order, _order(2)])
    import_legacy(tmp_path / "old", data)
    assign(data, "b1", to_team)
    end = _filled(1, order_id="a1", broker_order_id="b1")
    _write_old(tmp_path / "old/team/alpha", [*([order, end] if keeps_lines else []), _order(2)], [_trade(1)])
    import_legacy(tmp_path / "old", data)
    assert ({"alpha": ["b2"]}, {to_team: 10}) == (_open(data), _sums(data))
    before = read_files(data)
    import_legacy(tmp_path / "old", data)
    assert before == read_files(data), "again adds nothing"


@pytest.mark.parametrize("keeps_line", [True, False])
def test_an_order_that_was_assigned_away_under_the_program_s_own_id_is_found_by_the_broker_s(
    tmp_path: Path, data: Path, write_log: Write, placed: Event, keeps_line: bool
) -> None:
    """4.12: an earlier version imported it under that; a trade that names the broker's id is of it."""
    write_log("alpha", placed("a1", broker_order_id="b1"))
    _compact(data)
    assign(data, "a1", "zed")
    lines = [_order(1, order_id="a1", broker_order_id="b1")] if keeps_line else []
    _write_old(tmp_path / "old/team/alpha", [*lines, _order(2, quantity="7")], [_trade(1) | {"order_id": "a1"}])
    import_legacy(tmp_path / "old", data)
    assert ({"alpha": ["b2"]}, {"zed": 10}) == (_open(data), _sums(data))
    assert ["a1"] == [trade["order_id"] for trade in Ledger(data / "team/zed").rows("trades")]


@pytest.mark.parametrize(("name", "is_old"), [(None, False), ("bravo:1", False), ("bravo:1", True)])
def test_an_order_in_unassigned_is_its_parent_s_unless_its_name_says_otherwise(
    data: Path, write_log: Write, placed: Event, tmp_path: Path, name: str | None, is_old: bool
) -> None:
    """4.12: what another team's order brought along is not the old files' either."""
    write_log("bravo", placed("b8"))
    write_log("charlie", placed("b9"))
    named = {"client_order_id": name} if name else {}
    write_log("unassigned", placed("b1", parent_order_id="b9", **({} if is_old else named)))
    _compact(data)
    _write_old(tmp_path / "old/team/alpha", [_order(1, **(named if is_old else {}))])
    [problem] = by_team(import_legacy(tmp_path / "old", data))["alpha"].problems
    assert f"order b1 is {'bravo' if name else 'charlie'}'s" in problem.detail


def test_a_directory_that_is_a_ledger_has_one_owner(tmp_path: Path, data: Path, placed: Event) -> None:
    """1.2: nothing is looked up in other ledgers, and nothing moves."""
    with Ledger(data) as ledger:
        ledger.append([placed("b1", team_id="alpha")])
        ledger.compact()
    _write_old(tmp_path / "old", [_order(1, team_id="alpha"), _order(2, team_id="alpha")])
    found = import_legacy(tmp_path / "old", data)
    assert ({}, []) == (found.moved, [problem for team in found.teams for problem in team.problems])
    assert ["b1", "b2"] == [row["order_id"] for row in Ledger(data).rows("pending_orders")]


def test_a_third_ledger_that_names_an_order_assigned_away_is_named(
    tmp_path: Path, data: Path, write_log: Write, placed: Event
) -> None:
    """4.12: the old files' fill is booked where the order went, and the other ledger is told of."""
    write_log("alpha", placed("b1"))
    write_log("bravo", placed("b1", recorded_at="2026-12-01T00:00:00Z"))
    _compact(data)
    assign(data, "b1", "zed")
    write_log("charlie", placed("b1", recorded_at="2026-12-02T00:00:00Z"))
    _compact(data)
    _write_old(tmp_path / "old/team/alpha", [_order(1)], [_trade(1)])
    problems = [one for team in import_legacy(tmp_path / "old", data).teams for one in team.problems]
    assert ["charlie"] == [name for one in problems for name in ("charlie", "bravo") if f"log of {name}" in one.detail]
    assert {"zed": 10} == _sums(data)


def test_nothing_is_booked_twice_while_another_process_moves_orders(
    data: Path, write_log: Write, placed: Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot leave `unassigned` now is named, and imported the next time."""
    write_log("unassigned", placed("b1"))
    _compact(data)
    _write_old(tmp_path / "old/team/alpha", [_order(1), _order(2)])
    monkeypatch.setattr(owners, "TURN_SECONDS", 0)
    with turn(data):
        [problem] = by_team(import_legacy(tmp_path / "old", data))["alpha"].problems
    assert "order b1 lies in unassigned and cannot be moved to alpha now" in problem.detail
    assert {"alpha": ["b2"], "unassigned": ["b1"]} == _open(data)
    import_legacy(tmp_path / "old", data)
    assert {"alpha": ["b1", "b2"]} == _open(data)
