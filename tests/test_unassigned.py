"""What is unassigned moves by itself once its team is known: by its name, or by an order that it belongs to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compactor import Ledger
from compactor.books.assign import move_orders
from compactor.books.order_index import OrderIndex
from compactor.books.unassigned import UnassignedOrders

Write = Callable[..., Path]
Event = Callable[..., dict[str, Any]]


def compact(data: Path) -> None:
    for path in (data / "team").iterdir():
        with Ledger(path) as ledger:
            ledger.compact()


def plan(data: Path, *teams: str, unassigned: UnassignedOrders | None = None) -> dict[str, str]:
    compact(data)
    index = OrderIndex(data, teams)
    index.follow()
    return (unassigned or UnassignedOrders(data)).plan_moves(index)


def test_a_name_counts_once_its_team_is_known(data: Path, write_log: Write, placed: Event, filled: Event) -> None:
    """Issue 12, 5: open or ended, by the settings or because the team has a ledger by now."""
    ended = filled("o-2")
    write_log("unassigned", placed(client_order_id="bravo:1"), placed("o-2", client_order_id="bravo:2"), ended)
    write_log("unassigned", placed("o-3", client_order_id="20:57"), placed("o-4"))
    assert {} == plan(data)
    assert {"o1": "bravo", "o-2": "bravo"} == plan(data, "bravo")
    write_log("bravo", placed("o-5"))
    assert {"o1": "bravo", "o-2": "bravo"} == plan(data)


@pytest.mark.parametrize("tie", ["parent_order_id", "replaces"])
@pytest.mark.parametrize("is_open", [True, False])
def test_an_order_goes_with_the_one_it_belongs_to(
    data: Path, write_log: Write, placed: Event, filled: Event, tie: str, is_open: bool
) -> None:
    """Issue 12, 5: whichever of the two was told first."""
    write_log("unassigned", placed("child"), *([] if is_open else [filled("child")]), placed("other"))
    assert {} == plan(data, "alpha")
    write_log("alpha", placed("root"))
    assert {} == plan(data)
    write_log("unassigned", placed("child", event="snapshot", **{tie: "root"}))
    assert {"child": "alpha"} == plan(data)


def test_a_successor_goes_with_the_order_that_it_replaced(data: Path, write_log: Write, placed: Event) -> None:
    """Issue 12, 5: also where only the order that was replaced tells of it, and down a chain."""
    write_log("unassigned", placed("o-2", event="replaced", replaced_by="o-3"), placed("o-3"), placed("o-9"))
    write_log("alpha", placed("o-1", event="replaced", replaced_by="o-2"))
    assert {"o-2": "alpha", "o-3": "alpha"} == plan(data)


def _move(data: Path, *teams: str) -> dict[str, str]:
    compact(data)
    index = OrderIndex(data, teams)
    index.follow()
    return move_orders(data, index, UnassignedOrders(data).plan_moves(index))


def _open(data: Path) -> dict[str, list[str]]:
    """The open orders of each ledger."""
    compact(data)
    found = {path.name: list(Ledger(path).rows("pending_orders")) for path in sorted((data / "team").iterdir())}
    return {team: [row["order_id"] for row in rows] for team, rows in found.items()}


def test_a_successor_that_nothing_else_tells_of_goes_along(data: Path, write_log: Write, placed: Event) -> None:
    """3.9: it has a row because of the order that it replaced, and no events that could move it later."""
    write_log(
        "unassigned", placed("o-1", event="replaced", replaced_by="o-2", client_order_id="alpha:1"), placed("o-9")
    )
    assert {"o-1": "alpha"} == _move(data, "alpha")
    assert {"alpha": ["o-2"], "unassigned": ["o-9"]} == _open(data)
    write_log("alpha", placed("o-2", replaces="o-1"), placed("o-2", event="canceled", ts="2026-01-05T15:30:00Z"))
    assert {} == _move(data)
    assert {"alpha": [], "unassigned": ["o-9"]} == _open(data)


def test_the_successor_of_a_leg_goes_along(data: Path, write_log: Write, placed: Event) -> None:
    """3.9, 4.12: a leg moves with its order, and what replaced the leg with the leg."""
    write_log("unassigned", placed("p", client_order_id="alpha:1", legs=[{"order_id": "l-1"}]))
    write_log("unassigned", placed("l-1", event="replaced", replaced_by="l-2"))
    assert {"p": "alpha"} == _move(data, "alpha")
    assert {"alpha": ["l-2", "p"], "unassigned": []} == {team: sorted(rows) for team, rows in _open(data).items()}


@pytest.mark.parametrize("has_events", [True, False])
def test_a_successor_that_was_left_behind_follows(
    data: Path, write_log: Write, placed: Event, has_events: bool
) -> None:
    """Earlier versions moved the order and not what replaced it."""
    replaced = placed("o-1", event="replaced", replaced_by="o-2")
    write_log(
        "unassigned", replaced, {"event": "assigned", "order_id": "o-1", "ts": replaced["ts"], "to_team": "alpha"}
    )
    write_log("alpha", replaced, *([placed("o-2", replaces="o-1")] if has_events else []))
    assert {"alpha": ["o-2"], "unassigned": ["o-2"]} == _open(data)
    assert {"o-1": "alpha"} == _move(data)
    assert {"alpha": ["o-2"], "unassigned": []} == _open(data)
    assert {} == plan(data)


@pytest.mark.parametrize("dry_run", [True, False])
def test_what_belongs_to_an_order_moves_in_the_same_run(
    data: Path, write_log: Write, placed: Event, filled: Event, dry_run: bool
) -> None:
    """Legs without the team's name, open or filled, and what replaced them; one look is not enough for that."""
    write_log("unassigned", placed("p", client_order_id="alpha:1"), placed("l-1", parent_order_id="p"))
    write_log("unassigned", placed("l-2", parent_order_id="p", client_order_id="u"), filled("l-2"), placed("o-9"))
    write_log("unassigned", placed("l-1", event="replaced", replaced_by="l-3"), placed("l-3", replaces="l-1"))
    compact(data)
    index = OrderIndex(data, ["alpha"])
    moved = UnassignedOrders(data).move(data, index, dry_run=dry_run)
    assert ({"p"} if dry_run else {"p", "l-1", "l-2", "l-3"}) == moved.keys()
    if not dry_run:
        assert {"alpha": ["l-3", "p"], "unassigned": ["o-9"]} == {team: sorted(r) for team, r in _open(data).items()}
        assert {} == plan(data)


def test_an_order_follows_a_successor_that_is_a_team_s(
    data: Path, write_log: Write, placed: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3.9: also where it ended so long ago that only the row of its successor tells of it."""
    write_log("unassigned", placed("o-1", event="replaced", replaced_by="o-2"), placed("o-9"))
    compact(data)
    monkeypatch.setattr("compactor.books.followed_log.TAIL_BYTES", 1)
    write_log("alpha", placed("o-2", client_order_id="alpha:2"))
    assert {"o-1": "alpha"} == _move(data)
    assert {"alpha": ["o-2"], "unassigned": ["o-9"]} == _open(data)


def test_an_order_that_is_contested_stays(data: Path, write_log: Write, placed: Event) -> None:
    """Which of two ledgers has it is for a person to decide."""
    write_log("unassigned", placed(client_order_id="bravo:1", recorded_at="2026-01-05T15:00:00Z"))
    write_log("alpha", placed(recorded_at="2026-01-05T15:00:01Z"))
    assert {} == plan(data, "bravo")


def test_a_leg_waits_for_its_parent(data: Path, write_log: Write, placed: Event) -> None:
    """4.10: the fills of a parent may be the leg's, so that it does not go before."""
    write_log("unassigned", placed("p"), placed("leg", parent_order_id="p", client_order_id="bravo:2"))
    assert {} == plan(data, "bravo")


@pytest.mark.parametrize("is_first", [True, False])
def test_what_was_told_of_a_leg_goes_to_the_team_whose_parent_s_fills_are_the_leg_s(
    data: Path, write_log: Write, placed: Event, filled: Event, is_first: bool
) -> None:
    """Chaos, 60885: a bust of a leg was told before anything of its parent. Nobody but `unassigned` stands against the
    team, so that there is nothing to decide; it is another thing where the team's own ledger names the order."""
    leg = {"order_id": "leg", "symbol": "AAPL", "side": "buy", "qty": "10", "price": "2", "execution_id": "x-leg"}
    at = "2026-01-05T15:00:00Z" if is_first else "2026-01-05T15:00:02Z"
    write_log("unassigned", placed("leg", parent_order_id="p", recorded_at=at))
    legs = [leg, {**leg, "order_id": "leg-2", "execution_id": "x-2"}]
    write_log("alpha", placed("p"), filled("p", legs=legs, recorded_at="2026-01-05T15:00:01Z"))
    assert {"leg": "alpha"} == plan(data)
    index = OrderIndex(data)
    index.follow()
    move_orders(data, index, {"leg": "alpha"})
    assert [[], []] == [list(Ledger(data / "team" / team).rows("pending_orders")) for team in ("unassigned", "alpha")]
    assert {} == plan(data)
    write_log("unassigned", placed("leg-2", parent_order_id="p", recorded_at=at))
    write_log("bravo", placed("leg-2", recorded_at="2026-01-05T15:00:03Z"))
    assert {} == plan(data), "of two teams a person decides"


def test_what_is_left_in_unassigned_of_an_order_that_a_team_has_goes_to_that_team(
    data: Path, write_log: Write, placed: Event
) -> None:
    """It would stay open there, although the team's ledger has its end."""
    ended = placed(event="canceled", ts="2026-01-05T15:30:00Z")
    write_log("alpha", placed(recorded_at="2026-01-05T15:00:00Z"), ended)
    write_log("unassigned", placed(client_order_id="alpha:1", recorded_at="2026-01-05T15:00:01Z"))
    assert {"o1": "alpha"} == plan(data)


@pytest.mark.parametrize(("tie", "is_moved"), [({"parent_order_id": "p"}, True), ({}, False)])
def test_a_leg_that_both_have_goes_with_its_parent_by_what_lies_in_unassigned(
    data: Path, write_log: Write, placed: Event, tie: dict[str, str], is_moved: bool
) -> None:
    """Chaos, 71244: an order and its replacement both have the legs, and were told to different ledgers. A team gets no
    order by naming it: that the leg belongs to its order has to be told where the leg lies."""
    write_log("unassigned", placed("leg", recorded_at="2026-01-05T15:00:00Z", **tie))
    at = {"recorded_at": "2026-01-05T15:00:01Z"}
    write_log("alpha", placed("p", replaces="o"), placed("o", event="replaced", replaced_by="p", **at))
    write_log("alpha", placed("leg", parent_order_id="o", **at))
    assert ({"leg": "alpha"} if is_moved else {}) == plan(data)


def test_a_leg_that_ended_goes_with_its_parent_by_what_was_told_of_it_in_unassigned(
    data: Path, write_log: Write, placed: Event, filled: Event
) -> None:
    """Chaos, 56133: its bust came before the fill of its parent, which booked it with its team. Only a trade is left of
    it, which names no parent."""
    bust = {"event": "trade_bust", "execution_id": "x-0", "qty": "-10", "parent_order_id": "p"}
    at = "2026-01-05T15:00:00Z"
    write_log("unassigned", placed("leg", **bust, recorded_at=at), filled("leg", order_status="filled"))
    write_log("alpha", placed("p"), placed("leg", recorded_at="2026-01-05T15:00:01Z"), filled("leg", execution_id="y"))
    assert [] == list(Ledger(data / "team/unassigned").rows("pending_orders"))
    assert {"leg": "alpha"} == plan(data)


@pytest.mark.parametrize(
    ("told", "others", "is_moved"),
    [
        ({"group_id": "g"}, {"alpha": "entry"}, True),
        ({"group_id": "g"}, {"alpha": "entry", "bravo": "another"}, False),
        ({"group_id": "g"}, {"bravo": "entry"}, False),
        ({}, {"alpha": "entry"}, False),
    ],
)
def test_a_leg_that_both_have_goes_with_its_group_by_what_lies_in_unassigned(
    data: Path, write_log: Write, placed: Event, told: dict[str, str], others: dict[str, str], is_moved: bool
) -> None:
    """Chaos, 5352: the exit of a bracket was heard of, filled, before its entry; then its team asked to cancel it, and
    wrote down how it stood. Frames name no parent, but a group; where several teams are in that, a person decides."""
    end = {"event": "fill", "ts": "2026-01-05T15:30:00Z", "execution_id": "x", "price": "1", "qty": "10"}
    write_log("unassigned", placed("exit", recorded_at="2026-01-05T15:00:00Z", **told), placed("exit", **end))
    write_log("alpha", placed("exit", recorded_at="2026-01-05T15:00:01Z", group_id="g"))
    for team, order_id in others.items():
        write_log(team, placed(order_id, group_id="g"))
    assert ({"exit": "alpha"} if is_moved else {}) == plan(data)


def test_only_what_is_new_is_read(data: Path, write_log: Write, placed: Event, filled: Event) -> None:
    """The trades of years are read once; orders of a ledger that was rebuilt are read anew."""
    write_log("unassigned", placed(client_order_id="bravo:1"), filled())
    unassigned = UnassignedOrders(data)
    for _ in range(2):
        assert {"o1": "bravo"} == plan(data, "bravo", unassigned=unassigned)
    write_log("unassigned", placed("o-2", client_order_id="bravo:1"), filled("o-2"))
    assert {"o1": "bravo", "o-2": "bravo"} == plan(data, "bravo", unassigned=unassigned)
    trades = data / "team/unassigned/trades.jsonl"
    trades.with_name("new").write_bytes(trades.read_bytes().splitlines(keepends=True)[1])
    trades.with_name("new").rename(trades)
    index = OrderIndex(data, ["bravo"])
    index.follow()
    assert {"o1": "bravo", "o-2": "bravo"} == unassigned.plan_moves(index)


def test_a_move_takes_row_and_trades_along(data: Path, write_log: Write, placed: Event, filled: Event) -> None:
    """4.12: each execution stands in one ledger, and once more changes nothing."""
    fill = filled(event="partial_fill", qty="4", filled_qty="4")
    write_log("unassigned", placed(client_order_id="bravo:1"), fill, placed("o-2"))
    compact(data)
    index, unassigned = OrderIndex(data, ["bravo"]), UnassignedOrders(data)
    for expected in ({"o1": "bravo"}, {}):
        index.follow()
        assert expected == move_orders(data, index, unassigned.plan_moves(index))
    rows = {
        team: [row["order_id"] for row in Ledger(data / "team" / team).rows("pending_orders")]
        for team in ("bravo", "unassigned")
    }
    assert {"bravo": ["o1"], "unassigned": ["o-2"]} == rows
    sums = {team: sum(int(row["quantity"]) for row in Ledger(data / "team" / team).rows("trades")) for team in rows}
    assert {"bravo": 4, "unassigned": 0} == sums


def test_a_directory_without_unassigned_orders_has_nothing_to_move(data: Path) -> None:
    """Nothing is made that was not there."""
    assert {} == UnassignedOrders(data).plan_moves(OrderIndex(data))
    assert [] == list(data.iterdir())
