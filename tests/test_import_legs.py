"""Activities that name a multi-leg order: each is an execution of a leg, however the legs are told, and counts once."""

import json
from collections.abc import Iterable, Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from compactor.core.decoding import build_event
from compactor.core.events import Event, Problem
from compactor.imports.captures import import_alpaca
from compactor.imports.leg_finder import LegFinder
from compactor.imports.messages import NotAFill, Translated
from compactor.imports.writer import ImportResult
from compactor.ledger import Ledger
from tests.imported import by_team, sum_positions

PUT_395, PUT_380 = "SPY260731P00395000", "SPY260731P00380000"
TIMES = ("2026-03-02T14:31:00Z", "2026-03-02T14:31:10Z")
PARENT: dict[str, Any] = {
    "id": "parent", "client_order_id": "c", "symbol": "", "side": "", "qty": "5", "type": "limit", "status": "new",
    "order_class": "mleg", "time_in_force": "day", "created_at": "2026-03-02T14:30:00Z", "filled_qty": "0",
    "legs": None,
}  # fmt: skip
EXECUTIONS = [
    [("x1", "leg-1", PUT_395, "sell", "2", "1.05", "2"), ("x2", "leg-2", PUT_380, "buy", "4", "0.5", "4")],
    [("x3", "leg-1", PUT_395, "sell", "3", "1.06", "5"), ("x4", "leg-2", PUT_380, "buy", "6", "0.51", "10")],
]
"""Of two fills: each execution with its leg, symbol, side, quantity, price, and what is filled of the leg then."""
TRADES = [("leg-1", "2"), ("leg-1", "3"), ("leg-2", "4"), ("leg-2", "6")]
NET = {PUT_395: -5, PUT_380: 10}


def tell_frames() -> Iterator[dict[str, Any]]:
    """The order's updates; its legs are named by their executions alone."""
    yield frame("new", "2026-03-02T14:30:00.1Z", PARENT)
    for name, at, executions in zip(("partial_fill", "fill"), TIMES, EXECUTIONS, strict=True):
        legs = [
            {"order_id": leg, "execution_id": execution, "symbol": symbol, "side": side, "price": price, "qty": qty}
            for execution, leg, symbol, side, qty, price, _ in executions
        ]
        status = "filled" if name == "fill" else "partially_filled"
        yield frame(name, at, {**PARENT, "status": status}, price="-0.03", qty=legs[0]["qty"], legs=legs)


def frame(event: str, at: str, order: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"stream": "trade_updates", "data": {"event": event, "timestamp": at, "order": order, **more}}


def tell_activities() -> Iterator[dict[str, Any]]:
    """FILL activities, with ids of their own."""
    for at, executions in zip(TIMES, EXECUTIONS, strict=True):
        for execution, leg, symbol, side, qty, price, filled in executions:
            leaves = int({"leg-1": 5, "leg-2": 10}[leg]) - int(filled)
            yield {
                "activity_type": "FILL", "id": f"a::{execution}-a", "order_id": "parent", "transaction_time": at,
                "symbol": symbol, "side": "sell_short" if side == "sell" else side, "qty": qty, "price": price,
                "cum_qty": filled, "leaves_qty": str(leaves), "type": "partial_fill" if leaves else "fill",
                "order_status": "partially_filled" if leaves else "filled",
            }  # fmt: skip


def tell_entries() -> Iterator[dict[str, Any]]:
    """The same as entries of the activity stream, whose ids are the executions'."""
    for told in tell_activities():
        names = ("order_id", "symbol", "cum_qty", "leaves_qty", "order_status")
        details = {name: told[name] for name in names} | {"execution_type": told["type"]}
        yield {
            "activity_type": "TRD", "event_id": told["id"], "ref_id": told["id"][3:-2], "qty": told["qty"],
            "price": told["price"], "executed_at": told["transaction_time"],
            "details": details | {"side": told["side"].removesuffix("_short")},
        }  # fmt: skip


def tell_order() -> dict[str, Any]:
    """The order as REST returns it once it is filled, with its legs."""
    legs = [
        {**PARENT, "id": leg, "symbol": symbol, "side": side, "qty": filled, "filled_qty": filled, "status": "filled"}
        | {"filled_avg_price": average, "type": "", "client_order_id": leg, "filled_at": TIMES[1]}
        for (_, leg, symbol, side, _, _, filled), average in zip(EXECUTIONS[1], ("1.056", "0.506"), strict=True)
    ]
    return {**PARENT, "status": "filled", "filled_qty": "5", "legs": legs, "filled_at": TIMES[1]}


def run_import(directory: Path, messages: Iterable[Any]) -> ImportResult:
    (directory / "f").write_text("".join(json.dumps(message) + "\n" for message in messages))
    return import_alpaca(directory / "f", directory / "data", team="alpha")


def read_result(directory: Path) -> tuple[list[tuple[str, str]], dict[str, Any], list[Any]]:
    """The trades that stand, by order and quantity; the net positions; and the findings."""
    ledger = Ledger(directory / "data/team/alpha")
    rows = list(ledger.rows("trades"))
    gone = {row.get("reverses") for row in rows}
    stand = [row for row in rows if row["kind"] != "reversal" and row["trade_id"] not in gone]
    trades = sorted((row["order_id"], row["quantity"]) for row in stand)
    return trades, sum_positions(ledger.path), list(ledger.rows("findings"))


@pytest.mark.parametrize("tell", [tell_activities, tell_entries])
@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_activities_of_a_spread_are_known_from_the_leg_executions_of_its_fills(
    tmp_path: Path, tell: Any, order: tuple[int, ...]
) -> None:
    """No message but the fills tells the legs; whichever comes first, each execution is one trade of its leg."""
    new, *fills = tell_frames()
    parts = [[new], fills, list(tell())]
    for _ in range(2):
        done = by_team(run_import(tmp_path, (message for part in order for message in parts[part])))["alpha"]
        assert [] == done.problems
        assert (TRADES, NET, []) == read_result(tmp_path)
    assert 0 == done.events_appended
    assert [] == list(Ledger(tmp_path / "data/team/alpha").rows("pending_orders"))


@pytest.mark.parametrize("tell", [tell_activities, tell_entries])
def test_activities_of_a_spread_are_put_on_the_legs_that_a_ledger_knows(tmp_path: Path, tell: Any) -> None:
    """The fills were imported before; each activity comes in a run of its own."""
    run_import(tmp_path, tell_frames())
    for entry in tell():
        assert [] == by_team(run_import(tmp_path, [entry]))["alpha"].problems
    assert (TRADES, NET, []) == read_result(tmp_path)


def test_activities_of_a_spread_that_was_imported_as_an_order_take_the_place_of_what_was_inferred(
    tmp_path: Path,
) -> None:
    """The log has the legs as orders of their own."""
    run_import(tmp_path, [tell_order()])
    assert [("leg-1", "5"), ("leg-2", "10")] == read_result(tmp_path)[0]
    for _ in range(2):
        assert [] == by_team(run_import(tmp_path, tell_activities()))["alpha"].problems
        assert (TRADES, NET, []) == read_result(tmp_path)


STAND_INS = [
    (f"parent:{PUT_380}", "4"),
    (f"parent:{PUT_380}", "6"),
    (f"parent:{PUT_395}", "2"),
    (f"parent:{PUT_395}", "3"),
]


@pytest.mark.parametrize("tell", [tell_activities, tell_entries])
@pytest.mark.parametrize("later", ["fills", "order"])
def test_activities_of_a_spread_whose_legs_nobody_tells_are_moved_to_them_once_they_are_told(
    tmp_path: Path, tell: Any, later: str
) -> None:
    """Each leg has a stand-in, since an order has one symbol; each share counts once, whatever tells the legs."""
    for _ in range(2):
        assert [] == by_team(run_import(tmp_path, tell()))["alpha"].problems
        assert (STAND_INS, NET, []) == read_result(tmp_path)
    assert [] == list(Ledger(tmp_path / "data/team/alpha").rows("pending_orders"))
    for messages in (list(tell_frames()) if later == "fills" else [tell_order()], list(tell()), [tell_order()]):
        assert [] == by_team(run_import(tmp_path, messages))["alpha"].problems
        assert (TRADES, NET, []) == read_result(tmp_path)
    assert 0 == by_team(run_import(tmp_path, [*tell(), tell_order()]))["alpha"].events_appended
    assert [] == list(Ledger(tmp_path / "data/team/alpha").rows("pending_orders"))


def test_an_activity_that_was_booked_on_the_parent_is_moved_to_its_leg(tmp_path: Path) -> None:
    """Alone in a recording it looked like that of a single option."""
    first, *others = tell_activities()
    run_import(tmp_path, [first])
    assert [("parent", "2")] == read_result(tmp_path)[0]
    for messages in (list(tell_frames()), [first, *others], [tell_order()]):
        run_import(tmp_path, messages)
        assert (TRADES, NET, []) == read_result(tmp_path)


def test_an_execution_that_was_taken_back_stays_so_on_its_leg(tmp_path: Path) -> None:
    """Its bust goes with it."""
    entries = list(tell_entries())
    bust = {**entries[3], "event_id": "bust", "ref_id": "b", "previous_id": "x4"}
    bust["details"] = {**entries[3]["details"], "execution_type": "trade_bust"}
    run_import(tmp_path, [*entries, bust])
    run_import(tmp_path, tell_frames())
    assert TRADES[:3] == read_result(tmp_path)[0]


def test_a_single_option_order_is_no_spread(tmp_path: Path) -> None:
    """Its activities are its own, alone in a recording; so are those of a stock that was renamed."""
    [option, *_] = tell_activities()
    stocks = [
        {**option, "id": f"b::{symbol}", "symbol": symbol, "order_id": "gtc", "type": "partial_fill", "side": "buy"}
        | {"qty": "1", "cum_qty": total, "leaves_qty": "8"}
        for symbol, total in (("FB", "1"), ("META", "2"))
    ]
    assert [] == by_team(run_import(tmp_path, [option, *stocks]))["alpha"].problems
    assert [("gtc", "1"), ("gtc", "1"), ("parent", "2")] == read_result(tmp_path)[0]


# What is learned of legs, one message at a time.


def told(order_id: str, event: str = "snapshot", **more: Any) -> Translated:
    return Translated(1, {"event": event, "order_id": order_id, **more})


def named(order_id: str = "parent", symbol: str | None = PUT_395, side: str = "sell", **more: Any) -> Translated:
    fields = {"event": "fill", "order_id": order_id, "symbol": symbol, "side": side, "execution_id": "a", **more}
    return Translated(1, fields, is_activity=True)


def spread(*quantities: str | None, qty: str | None = "5", **more: Any) -> Translated:
    """A fill of the parent, with an execution of each leg."""
    sides = ((PUT_395, "sell"), (PUT_380, "buy"))
    legs = [
        {"order_id": f"leg-{number}", "symbol": symbol, "side": side, "qty": quantity}
        for number, (quantity, (symbol, side)) in enumerate(zip(quantities, sides, strict=False), 1)
    ]
    return told("parent", "fill", quantity=qty, legs=legs, **more)


def leg_order(order_id: str = "leg-1", **more: Any) -> Translated:
    own = {"symbol": PUT_395, "side": "sell", "quantity": "5", "parent_order_id": "parent", "order_class": "mleg"}
    return told(order_id, **{**own, **more})


def find(*messages: Translated) -> LegFinder:
    finder = LegFinder()
    for found in messages:
        finder.note(found)
    return finder


def placed(finder: LegFinder, found: Translated) -> str | None:
    """The order that an activity is put on; None where it is a problem."""
    event = finder.move(found).event
    return event["order_id"] if isinstance(event, dict) else None


def logged(event: str = "fill", order_id: str = "parent", **more: Any) -> Event:
    found = build_event({"event": event, "order_id": order_id, "ts": TIMES[0], "qty": "1", "price": "1", **more})
    assert isinstance(found, Event)
    return found


STOCK = {"symbol": "SPY", "side": "buy"}


@pytest.mark.parametrize(
    ("messages", "order_id"),
    [
        ([leg_order()], "leg-1"),
        ([leg_order(order_class="", event="trade_bust")], "leg-1"),
        ([leg_order(order_class=None, event="trade_correct")], "leg-1"),
        # The legs of a bracket are orders of their own, and so is what has terms and names no parent.
        ([leg_order(order_class="bracket")], "parent"),
        ([leg_order(parent_order_id=None)], "parent"),
        # A stand-in is no leg, whatever is said of it.
        ([leg_order(f"parent:{PUT_395}")], "parent"),
        ([leg_order(f"parent:{PUT_395}", event="trade_bust"), leg_order()], "leg-1"),
        # What was told last of the same leg counts.
        ([leg_order("old"), leg_order()], "leg-1"),
        ([spread("2", "4")], "leg-1"),
        ([spread("2", "4"), leg_order("new")], "new"),
        ([spread("2", "4", symbol=PUT_395)], "parent"),
        ([spread("2"), leg_order("leg-2", symbol=PUT_380, side="buy")], "leg-1"),
        ([told("parent", legs=[7, {"order_id": "leg-1"}, {"symbol": PUT_395, "side": "sell"}])], "parent"),
        ([told("parent", legs=[7, {"order_id": 1, "symbol": PUT_395, "side": "sell"}])], "1"),
        # Nothing names the leg, though there are some.
        ([told("parent", order_class="mleg")], f"parent:{PUT_395}"),
        ([told("parent", order_class="mleg", symbol="")], f"parent:{PUT_395}"),
        ([told("parent", order_class="bracket")], "parent"),
        ([leg_order(side="buy")], None),
        ([leg_order(symbol=PUT_380)], None),
        ([Translated(1, Problem("bad_value", "x")), Translated(1, NotAFill("FEE"))], "parent"),
    ],
)
def test_an_execution_is_put_on_the_leg_that_is_told(messages: list[Translated], order_id: str | None) -> None:
    """Of its symbol and side; on a stand-in where only the parent is known."""
    finder = find(named(), *messages)
    assert order_id == placed(finder, named())
    if order_id is None:
        assert Problem("bad_value", f"no leg of order parent is sell {PUT_395}") == finder.move(named()).event


@pytest.mark.parametrize(
    ("messages", "has_suspects", "has_moves", "order_id"),
    [
        ([named()], True, False, "parent"),
        ([named(), named(symbol=PUT_380, side="buy")], True, True, f"parent:{PUT_395}"),
        ([named(), named(**STOCK)], True, True, f"parent:{PUT_395}"),
        ([named(), named(side="buy")], True, True, f"parent:{PUT_395}"),
        ([named(), named("p", symbol=PUT_380)], True, False, "parent"),
        ([named(**STOCK), named("p", symbol="META")], False, False, "parent"),
        ([named(**STOCK), named(symbol="META")], False, False, "parent"),
        ([named(**STOCK), told("parent", order_class="mleg")], True, True, f"parent:{PUT_395}"),
        ([named(**STOCK), told("p", order_class="mleg")], False, False, "parent"),
        ([named(**STOCK), named("p")], True, False, "parent"),
        # An order with terms of its own is one.
        ([named(), told("parent", symbol=PUT_395, order_type="limit")], False, False, "parent"),
        ([named(), told("parent", symbol=PUT_395, quantity="5")], False, False, "parent"),
        ([named(), named(side="buy"), told("parent", symbol=PUT_395, quantity="5")], False, False, "parent"),
        ([named(), told("parent", symbol=PUT_395)], True, False, "parent"),
        ([named(), leg_order()], False, True, "leg-1"),
        ([leg_order()], False, False, "leg-1"),
        ([named("p"), leg_order()], True, False, "leg-1"),
        ([], False, False, "parent"),
    ],
)
def test_an_order_is_taken_for_a_spread_by_what_its_activities_name(
    messages: list[Translated], has_suspects: bool, has_moves: bool, order_id: str
) -> None:
    """An option may be a leg; several symbols or sides have to be, if one of them is an option."""
    finder = find(*messages)
    assert (has_suspects, has_moves) == (finder.has_suspects, finder.has_moves)
    if messages:
        assert order_id == placed(finder, named())


def test_only_activities_are_moved() -> None:
    """And only those that tell their symbol, where no leg is known."""
    finder = find(named(), named(side="buy"), named("p"))
    for found in (named()._replace(is_activity=False), named(symbol=None), named("p")):
        assert finder.move(found) is found
    for found in (Translated(1, Problem("bad_value", "x"), True), Translated(1, NotAFill("FEE"), True)):
        assert finder.move(found) is found


@pytest.mark.parametrize(
    ("messages", "first", "second"),
    [
        # Each tells what is filled of the parent, of which so much is left; 5 of it are 5 and 10 of the legs.
        ([spread("2", "4")], "2", "4"),
        ([spread("1", "2")], "2", "4"),
        ([spread("6", "4")], "6", "4"),
        ([spread("4")], None, "none"),
        ([spread("2.5", "5")], None, None),
        ([spread("0", "0")], None, None),
        ([spread("2", None)], None, None),
        ([spread("2", "4", qty=None)], None, None),
        # Nested orders tell their own quantity, executions the parent's; whichever comes first.
        ([spread("0", "0"), leg_order(quantity="15")], "6", None),
        ([leg_order(quantity="15"), spread("0", "0")], "6", None),
        ([leg_order(quantity="15")], None, "none"),
        ([spread("2", "4"), leg_order("new", quantity="15")], None, "4"),
    ],
)
def test_the_quantity_of_a_leg_follows_from_its_share_of_a_fill(
    messages: list[Translated], first: str | None, second: str | None
) -> None:
    """Without it what was filled is not known, and left out."""
    finder = find(*messages)
    for symbol, side, filled in ((PUT_395, "sell", first), (PUT_380, "buy", second)):
        if filled != "none":
            event = finder.move(named(symbol=symbol, side=side, filled_qty="2", raw={"leaves_qty": "3"})).event
            assert isinstance(event, dict)
            assert filled == event.get("filled_qty")


def test_a_log_tells_legs_as_a_recording_does() -> None:
    finder = find(named())
    related = [logged(), logged(order_id="x", parent_order_id="parent"), logged(order_id="x"), logged(order_id="leg-1")]
    assert [True, True, False, False] == [finder.wants(event) for event in related]
    assert "parent" == placed(finder, named())
    finder.recall(logged(quantity="5", order_class="mleg"))
    assert f"parent:{PUT_395}" == placed(finder, named())
    legs = [
        {"order_id": "leg-1", "symbol": PUT_395, "side": "sell", "qty": "2", "price": "1"},
        {"order_id": "leg-2", "symbol": PUT_380, "side": "buy", "qty": "4", "price": "1"},
    ]
    finder.recall(logged(quantity="5", legs=legs))
    event = finder.move(named(symbol=PUT_380, side="buy", filled_qty="2", raw={"leaves_qty": "3"})).event
    assert isinstance(event, dict)
    assert ("leg-2", "4") == (event["order_id"], event["filled_qty"])
    finder = find(named())
    finder.recall(
        logged("snapshot", "leg-1", symbol=PUT_395, side="sell", order_class="mleg", parent_order_id="parent")
    )
    assert "leg-1" == placed(finder, named())
    finder = find(named(), named(side="buy"))
    finder.recall(logged("snapshot", symbol=PUT_395, order_type="limit"))
    assert "parent" == placed(finder, named())


def test_the_executions_of_legs_may_be_on_the_parent_or_on_stand_ins() -> None:
    assert {} == find(named(), told("parent", order_class="mleg")).list_stand_ins()
    expected = dict.fromkeys((f"parent:{PUT_395}", f"parent:{PUT_380}", "parent"), "parent")
    assert expected == find(spread("2", "4")).list_stand_ins()


ON_STAND_IN = {
    "event": "fill", "order_id": f"parent:{PUT_395}", "ts": TIMES[0], "event_id": "e", "symbol": PUT_395,
    "side": "sell", "execution_id": "x", "qty": "2", "price": "1", "parent_order_id": "parent", "source": "rest",
}  # fmt: skip


def put_right(**more: Any) -> list[dict[str, Any]]:
    """What moves an execution of a log, which also holds what only a log has."""
    fields = {name: value for name, value in {**ON_STAND_IN, **more}.items() if value is not None}
    event = build_event(fields)
    assert isinstance(event, Event)
    line = json.dumps(fields | {"recorded_at": TIMES[1], "team_id": "alpha"}).encode()
    return find(spread("2", "4")).put_right("parent", event, line)


@pytest.mark.parametrize("event", ["fill", "partial_fill"])
def test_an_execution_that_was_put_on_a_stand_in_is_taken_back_and_told_of_its_leg(event: str) -> None:
    bust, moved = put_right(event=event)
    assert {
        "event": "trade_bust", "order_id": f"parent:{PUT_395}", "ts": TIMES[0], "source": "import",
        "previous_execution_id": "x", "event_id": "moved:e", "reason": "it is an execution of the leg leg-1",
    } == bust  # fmt: skip
    assert {**ON_STAND_IN, "event": event, "order_id": "leg-1"} == moved


@pytest.mark.parametrize("event", ["trade_bust", "trade_correct"])
def test_a_revision_that_was_put_on_a_stand_in_is_told_of_its_leg(event: str) -> None:
    """What it revises is moved by itself."""
    [moved] = put_right(event=event, previous_execution_id="w")
    assert (event, "leg-1", "w") == (moved["event"], moved["order_id"], moved["previous_execution_id"])


@pytest.mark.parametrize(
    "more",
    [
        {"event": "new"},
        {"event": "snapshot"},
        {"event_id": None},
        {"event_id": "moved:e"},
        {"symbol": None},
        {"execution_id": None},
        {"symbol": "SPY"},
        {"side": "buy"},
    ],
)
def test_what_is_no_execution_of_a_leg_stays_where_it_is(more: dict[str, Any]) -> None:
    assert [] == put_right(**more)


def test_what_the_message_told_is_told_of_the_leg() -> None:
    """The sum and the times that were left out, because it was not known of which order they are; else the event."""
    [activity, *_] = tell_activities()
    moved = put_right(raw=activity, event_id="a::x1-a")[1]
    assert ("leg-1", "2", "a::x1-a", TIMES[0]) == (
        moved["order_id"], moved["filled_qty"], moved["event_id"], moved["ts"]
    )  # fmt: skip
    moved = put_right(raw=activity, event_id="other")[1]
    assert ("leg-1", "other", "x") == (moved["order_id"], moved["event_id"], moved["execution_id"])
    assert "filled_qty" not in moved
