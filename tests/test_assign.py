"""Assigning an order to another team's ledger: all of it goes, nothing twice, and a stopped run is completed."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compactor import Ledger
from compactor.books import assign as assigning
from compactor.books.assign import CannotAssign, assign, move_orders
from compactor.books.order_index import OrderIndex
from compactor.books.turns import ReconcileBusy, turn
from compactor.core.events import RETURNS_MAX
from compactor.imports.captures import import_alpaca
from compactor.ledger import BadTeam
from compactor.ledger.paths import locate_ledger
from tests.stories import clean_lives

Write = Callable[..., Path]
Event = Callable[..., dict[str, Any]]
TEAMS = ("alpha", "bravo")


def log_of(data: Path, team: str) -> list[dict[str, Any]]:
    path = data / "team" / team / "events.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def rows(data: Path, team: str) -> list[dict[str, Any]]:
    path = data / "team" / team
    if not (path / "events.jsonl").exists():
        return []
    with Ledger(path) as ledger:
        ledger.compact()
        return [{k: v for k, v in row.items() if k != "team_id"} for row in ledger.rows("pending_orders")]


def net(data: Path, team: str) -> dict[tuple[str, str | None, Decimal], Decimal]:
    """What stands in the trades of a team, by order, execution and price."""
    sums: dict[tuple[str, str | None, Decimal], Decimal] = {}
    path = data / "team" / team
    for trade in Ledger(path).rows("trades") if path.exists() else ():
        key = trade["order_id"], trade.get("execution_id"), Decimal(trade["execution_price"])
        sums[key] = sums.get(key, Decimal(0)) + Decimal(trade["quantity"])
    return {key: quantity for key, quantity in sums.items() if quantity}


@pytest.fixture
def half_filled(write_log: Write, placed: Event, filled: Event) -> Path:
    """Team alpha's order o1 of 10, of which 4 are filled; returns the ledger."""
    fill = filled(event="partial_fill", qty="4", filled_qty="4", raw={"price": 529.98})
    return write_log("alpha", placed(event_id="e-1"), fill, placed("o2"))


def test_the_order_goes_with_its_trades_and_its_row(data: Path, half_filled: Path) -> None:
    """4.12: each execution stands in exactly one ledger, and the row is in that ledger."""
    before = rows(data, "alpha")
    done = assign(data, "o1", "bravo")

    assert (["o1"], ["alpha"], 2) == (done.orders, done.from_teams, done.events)
    assert (["o2"], ["o1"]) == ([row["order_id"] for row in rows(data, "alpha")], [before[0]["order_id"]])
    assert [before[0]] == rows(data, "bravo")
    assert {} == net(data, "alpha")
    assert {("o1", "x-o1", Decimal("529.98")): Decimal(4)} == net(data, "bravo")


def test_events_are_copied_verbatim_except_for_their_team(data: Path, half_filled: Path) -> None:
    """4.12: the same ids, the same digits, the broker's message included."""
    assign(data, "o1", "bravo")

    copied = [
        {k: v for k, v in event.items() if k not in ("team_id", "assigned_from", "recorded_at")}
        for event in log_of(data, "bravo")
    ]
    assert log_of(data, "alpha")[:2] == copied
    assert b'"raw":{"price":529.98}' in (data / "team/bravo/events.jsonl").read_bytes()
    assert {"bravo"} == {event["team_id"] for event in log_of(data, "bravo")}


def test_again_changes_nothing(data: Path, half_filled: Path) -> None:
    """Assigning is idempotent: to the team that has it already, no byte is written."""
    assign(data, "o1", "bravo")
    before = {path: path.read_bytes() for path in data.rglob("*.jsonl")}
    done = assign(data, "o1", "bravo")

    assert ([], 0) == (done.from_teams, done.events)
    assert before == {path: path.read_bytes() for path in data.rglob("*.jsonl")}


def test_back_again_each_execution_is_there_once(data: Path, half_filled: Path, filled: Event) -> None:
    """4.12: what happened to it in the other ledger comes back with it."""
    assign(data, "o1", "bravo")
    with Ledger(data / "team/bravo") as ledger:
        ledger.append([filled(execution_id="x-2", qty="6", filled_qty="10")])
    assign(data, "o1", "alpha")

    price = Decimal("529.98")
    assert {("o1", "x-o1", price): Decimal(4), ("o1", "x-2", price): Decimal(6)} == net(data, "alpha")
    assert {} == net(data, "bravo")
    assert (["o2"], []) == ([row["order_id"] for row in rows(data, "alpha")], rows(data, "bravo"))
    assign(data, "o1", "charlie")
    assert ({}, {}, 2) == (net(data, "alpha"), net(data, "bravo"), len(net(data, "charlie")))


def test_an_ended_order_can_be_assigned(data: Path, write_log: Write, placed: Event, filled: Event) -> None:
    """4.12: somebody may notice only afterwards whose an order was."""
    write_log("alpha", placed(), filled())
    assign(data, "o1", "bravo")
    assert ({}, [Decimal(10)]) == (net(data, "alpha"), list(net(data, "bravo").values()))


@pytest.mark.parametrize("stop_before", [1, 2])
def test_a_crash_between_the_appends_is_healed_by_running_it_again(
    data: Path, half_filled: Path, monkeypatch: pytest.MonkeyPatch, stop_before: int
) -> None:
    """4.12: the new ledger first, then the old one is told; in between both have the order, never neither."""
    appends = []

    def append(self: Ledger, events: Any, **options: Any) -> Any:
        appends.append(self.path)
        if len(appends) == stop_before:
            raise KeyboardInterrupt
        return real(self, events, **options)

    real = Ledger.append
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "append", append)
        with pytest.raises(KeyboardInterrupt):
            assign(data, "o1", "bravo")
    assert "o1" in {row["order_id"] for row in rows(data, "alpha") + rows(data, "bravo")}

    assign(data, "o1", "bravo")
    assert ({}, 1) == (net(data, "alpha"), len(net(data, "bravo")))
    assert ["new", "partial_fill"] == [event["event"] for event in log_of(data, "bravo")]
    assert 1 == [event["event"] for event in log_of(data, "alpha")].count("assigned")


def test_a_write_cut_off_anywhere_is_healed_by_running_it_again(data: Path, half_filled: Path) -> None:
    """4.12: of the copies any number of whole lines may have come through, and a torn one behind them."""
    assign(data, "o1", "bravo")
    copies = (data / "team/bravo/events.jsonl").read_bytes()
    alpha = (data / "team/alpha/events.jsonl").read_bytes()
    untold = alpha[: alpha.index(b'{"event":"assigned"')]
    for cut in range(0, len(copies), 7):
        place = data.parent / f"cut-{cut}"
        for team, log in (("alpha", untold), ("bravo", copies[:cut])):
            (place / "team" / team).mkdir(parents=True)
            (place / "team" / team / "events.jsonl").write_bytes(log)
        assign(place, "o1", "bravo")
        assert ({}, [Decimal(4)]) == (net(place, "alpha"), list(net(place, "bravo").values()))
        assert ["o1"] == [row["order_id"] for row in rows(place, "bravo")]


def test_a_fill_that_comes_while_it_moves_goes_along(
    data: Path, half_filled: Path, filled: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4.12: a stream may still append to the old log until that is told."""
    real = assigning._find_all
    turns: list[int] = []

    def find(*arguments: Any) -> Any:
        found = real(*arguments)
        if not turns:
            late = filled(event="partial_fill", execution_id="x-2", qty="1", filled_qty="5")
            with Ledger(half_filled) as ledger:
                ledger.append([late])
        turns.append(1)
        return found

    monkeypatch.setattr(assigning, "_find_all", find)
    assign(data, "o1", "bravo")
    assert ({}, {"x-o1", "x-2"}) == (net(data, "alpha"), {key[1] for key in net(data, "bravo")})


def test_legs_go_with_their_order(data: Path, write_log: Write) -> None:
    """4.10, 4.12: the trades of a spread belong to its legs, which are assigned with it."""
    leg = {"symbol": "AAPL260320C00190000", "side": "buy", "qty": "1", "price": "3.10"}
    legs = [{**leg, "order_id": "l-1", "execution_id": "x-1"}, {**leg, "order_id": "l-2", "execution_id": "x-2"}]
    at = {"ts": "2026-03-02T10:00:00Z", "order_id": "p-1"}
    write_log(
        "alpha", {"event": "new", "order_class": "mleg", "quantity": "1", **at}, {"event": "fill", "legs": legs, **at}
    )
    done = assign(data, "p-1", "bravo")

    assert ["p-1", "l-1", "l-2"] == done.orders
    assert ({}, {"l-1", "l-2"}) == (net(data, "alpha"), {key[0] for key in net(data, "bravo")})
    with pytest.raises(CannotAssign, match=r"l-1 is a leg of order p-1; assign that one"):
        assign(data, "l-1", "bravo")
    assign(data, "p-1", "alpha")
    assert ({"l-1", "l-2"}, {}) == ({key[0] for key in net(data, "alpha")}, net(data, "bravo"))


def test_legs_with_events_of_their_own_go_with_their_order(data: Path, write_log: Write, placed: Event) -> None:
    """4.12: a bracket's legs follow its entry."""
    write_log("alpha", placed(), placed("leg", event="held", parent_order_id="o1"), placed("other"))
    assert ["o1", "leg"] == assign(data, "o1", "bravo").orders
    assert ["other"] == [row["order_id"] for row in rows(data, "alpha")]
    with pytest.raises(CannotAssign, match="leg is a leg of order o1"):
        assign(data, "leg", "alpha")


def _replaced(placed: Event) -> list[dict[str, Any]]:
    """Order o1, which o2 replaced."""
    return [placed(), placed(event="replaced", replaced_by="o2", ts="2026-01-05T15:10:00Z")]


def ids(data: Path) -> dict[str, list[str]]:
    return {path.name: [row["order_id"] for row in rows(data, path.name)] for path in sorted((data / "team").iterdir())}


def test_a_successor_that_nothing_else_tells_of_goes_and_comes_back_with_its_order(
    data: Path, write_log: Write, placed: Event
) -> None:
    """3.9, 4.12: it is shown in the ledger that has the order which it replaced, and in no other."""
    write_log("alpha", *_replaced(placed))
    for team, other in (("bravo", "alpha"), ("alpha", "bravo"), ("bravo", "alpha")):
        for _ in range(2):
            assign(data, "o1", team)
            assert {team: ["o2"], other: []} == ids(data)


def test_a_successor_with_events_of_its_own_stays(data: Path, write_log: Write, placed: Event) -> None:
    """A replaced order and its successor are two orders; the other team's ledger does not show both."""
    write_log("alpha", *_replaced(placed), placed("o2", replaces="o1"))
    assign(data, "o1", "bravo")
    assert {"alpha": ["o2"], "bravo": []} == ids(data)
    assign(data, "o2", "bravo")
    assert {"alpha": [], "bravo": ["o2"]} == ids(data)
    assign(data, "o1", "alpha")
    assert {"alpha": [], "bravo": ["o2"]} == ids(data)


def test_a_successor_that_was_left_behind_is_assigned(data: Path, write_log: Write, placed: Event) -> None:
    """3.9: where earlier versions moved the order and not what replaced it, the row stayed for ever."""
    away = {"event": "assigned", "order_id": "o1", "ts": "2026-01-05T15:11:00Z", "to_team": "bravo"}
    write_log("alpha", *_replaced(placed), away)
    write_log("bravo", *_replaced(placed), placed("o2", replaces="o1"))
    assert {"alpha": ["o2"], "bravo": ["o2"]} == ids(data)
    assert (["alpha"], 0) == ((done := assign(data, "o2", "bravo")).from_teams, done.events)
    assert {"alpha": [], "bravo": ["o2"]} == ids(data)
    assert [] == assign(data, "o2", "bravo").from_teams


def test_an_order_that_only_its_predecessor_tells_of_goes_with_that(
    data: Path, write_log: Write, placed: Event
) -> None:
    """It has no events that could be copied; its row must not vanish from both ledgers."""
    write_log("alpha", *_replaced(placed))
    with pytest.raises(CannotAssign, match="o2 is known only because another order was replaced by it; assign"):
        assign(data, "o2", "bravo")
    assert {"alpha": ["o2"]} == ids(data)


def test_an_event_goes_with_whatever_stands_in_its_unread_fields(data: Path, write_log: Write, placed: Event) -> None:
    """4.12: bytes that are not UTF-8 and numbers that no computer holds keep no order from its team."""
    path = write_log("alpha", placed("o2"))
    raw = b'"raw":{"a":"\xff","b":1e400,"c":%b},"\xfe":[1]' % (b"9" * 40)
    with (path / "events.jsonl").open("ab") as log:
        log.write(json.dumps(placed(event_id="e-1")).encode()[:-1] + b"," + raw + b"}\n")
    for _ in range(2):
        assign(data, "o1", "bravo")
        assert ["o2"] == [row["order_id"] for row in rows(data, "alpha")]
        assert ["o1"] == [row["order_id"] for row in rows(data, "bravo")]
    copied = log_of(data, "bravo")
    assert ["new"] == [event["event"] for event in copied]
    assert [{"a": "\ufffd", "b": float("inf"), "c": int("9" * 40)}] == [event["raw"] for event in copied]


def test_what_cannot_be_assigned_is_refused_and_nothing_changes(data: Path, half_filled: Path) -> None:
    """An unknown order, a team that is none, a directory that is itself a ledger."""
    with pytest.raises(CannotAssign, match=r"no ledger in .* knows an order 'o9'; .* compactor reconcile takes in"):
        assign(data, "o9", "bravo")
    with pytest.raises(BadTeam):
        assign(data, "o1", "../bravo")
    with pytest.raises(CannotAssign, match="itself one team's ledger"):
        assign(half_filled, "o1", "bravo")
    assert not (data / "team" / "bravo").exists()


def test_another_team_s_line_in_a_log_is_not_taken_along(data: Path, write_log: Write, placed: Event) -> None:
    """Section 2: a line of another team was never applied here, so it is none of the order's events."""
    write_log("alpha", placed(), placed(team_id="zulu", event="canceled"))
    assert 1 == assign(data, "o1", "bravo").events
    assert ["o1"] == [row["order_id"] for row in rows(data, "bravo")]


@pytest.mark.parametrize("teams", [["bravo"], ["bravo", "zulu"], ["bravo", "alpha"], ["zulu", "aardvark"]])
def test_an_import_goes_where_the_order_was_assigned_to(
    data: Path, write_log: Write, placed: Event, tmp_path: Path, teams: list[str]
) -> None:
    """4.12: what a recording tells of an order goes to the ledger that has it now, whatever the order is called."""
    write_log("alpha", placed(client_order_id="alpha:1"))
    for team in teams:
        assign(data, "o1", team)
    order = {"id": "o1", "status": "canceled", "client_order_id": "alpha:1"}
    update = {"event": "canceled", "timestamp": "2026-01-05T15:10:00Z", "order": order}
    recording = tmp_path / "recording"
    recording.write_text(json.dumps(update) + "\n")
    import_alpaca(recording, data, team=None)
    assert "canceled" == log_of(data, teams[-1])[-1]["event"]
    assert [] == rows(data, teams[-1])


def test_two_at_once_do_no_more_than_one(data: Path, half_filled: Path) -> None:
    """Whoever moves orders holds the data directory's turn; the other one waits and finds it done."""
    threads = [threading.Thread(target=assign, args=(data, "o1", "bravo")) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 == [event["event"] for event in log_of(data, "alpha")].count("assigned")
    assert 2 == len(log_of(data, "bravo"))


def test_whoever_has_the_turn_is_named(data: Path) -> None:
    """A second reconcile of the same data directory is refused, and says by whom."""
    with turn(data), pytest.raises(ReconcileBusy, match=r"reconcile\.lock: process \d+ reconciles"), turn(data):
        pass


@settings(max_examples=25, deadline=None)
@given(clean_lives(orders_max=2), st.data())
def test_moving_an_order_about_changes_no_sum(events: list[dict[str, Any]], draw: st.DataObject) -> None:
    """4.12: over all ledgers together, rows and standing trades are those of an order that nobody moved."""
    import tempfile

    events = [event for event in events if event["event"] != "assigned"]
    with tempfile.TemporaryDirectory() as name:
        still, moved = Path(name, "still"), Path(name, "moved")
        home = dict.fromkeys({event["order_id"] for event in events}, "alpha")
        for event in events:
            append(still, "alpha", event)
            append(moved, home[event["order_id"]], event)
            if draw.draw(st.integers(0, 3)) == 0:
                team = draw.draw(st.sampled_from(["alpha", "bravo", "charlie"]))
                assign(moved, event["order_id"], team)
                home[event["order_id"]] = team
        teams = ("alpha", "bravo", "charlie")
        expected = {row["order_id"]: row for row in rows(still, "alpha")}
        assert expected == {row["order_id"]: row for team in teams for row in rows(moved, team)}
        assert net(still, "alpha") == {key: value for team in teams for key, value in net(moved, team).items()}
        for team in teams:
            assert {key[0] for key in net(moved, team)} <= {one for one, owner in home.items() if owner == team}


def append(data: Path, team: str, event: dict[str, Any]) -> None:
    data.mkdir(exist_ok=True)
    Ledger(locate_ledger(data, team).path).append([event], durability="none")


def test_an_order_comes_back_to_a_ledger_eight_times_and_no_more(data: Path, half_filled: Path) -> None:
    """4.12: what the fold, the order index and assigning say of it is the same, and it can still go elsewhere."""
    for _ in range(RETURNS_MAX):
        assign(data, "o1", "bravo")
        assert ["bravo"] == assign(data, "o1", "alpha").from_teams
    assign(data, "o1", "bravo")
    before = [log_of(data, team) for team in ("alpha", "bravo")]
    with pytest.raises(CannotAssign, match=r"order o1 has come back to alpha 8 times.*nothing was moved"):
        assign(data, "o1", "alpha")
    assert before == [log_of(data, team) for team in ("alpha", "bravo")]
    index = OrderIndex(data)
    index.follow()
    assert {} == move_orders(data, index, {"o1": "alpha"})
    # Whoever writes it all the same moves nothing.
    move = {"event": "assigned", "order_id": "o1", "ts": "2026-01-05T16:00:00Z", "from_team": "bravo"}
    append(data, "alpha", move)
    assert [[], ["o1"]] == [[row["order_id"] for row in rows(data, team) if row["order_id"] == "o1"] for team in TEAMS]
    assert ["assigned_too_often"] == [one["kind"] for one in Ledger(half_filled).rows("findings")]
    index.follow()
    owner = index.find_owner("o1")
    assert owner is not None and "bravo" == owner.team
    index.close()
    assert ["bravo"] == assign(data, "o1", "charlie").from_teams
    assert [Decimal(4)] == list(net(data, "charlie").values())
    assert {} == net(data, "alpha") == net(data, "bravo")


def test_a_team_that_is_not_known_has_to_be_created(data: Path, half_filled: Path) -> None:
    """Issue 12, 5: a typing error makes no ledger; a team of the settings, or one with a ledger, is known."""
    with pytest.raises(CannotAssign, match=r"there is no team 'brvo'.*--create"):
        assign(data, "o1", "brvo", teams=["bravo"])
    assert ["alpha"] == [path.name for path in (data / "team").iterdir()]
    assert ["alpha"] == assign(data, "o1", "bravo", teams=["bravo"]).from_teams
    assert ["bravo"] == assign(data, "o1", "alpha", teams=[]).from_teams
    assert ["alpha"] == assign(data, "o1", "brvo").from_teams


def test_an_order_that_two_ledgers_name_is_decided_by_assigning_it(
    data: Path, write_log: Write, placed: Event, filled: Event
) -> None:
    """4.12: the one that it is assigned to has it from there on, and the other one was told."""
    write_log("bravo", placed(recorded_at="2026-01-05T15:00:00Z"))
    write_log("alpha", placed(recorded_at="2026-01-05T15:00:01Z"))
    assign(data, "o1", "alpha")
    assert (["o1"], []) == ([row["order_id"] for row in rows(data, "alpha")], rows(data, "bravo"))
    index = OrderIndex(data)
    index.follow()
    owner = index.find_owner("o1")
    assert owner is not None
    assert ("alpha", None) == (owner.team, owner.problem)
