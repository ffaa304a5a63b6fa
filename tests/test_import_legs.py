"""Activities that name a multi-leg order: each is an execution of a leg, however the legs are told, and counts once."""

import json
from collections.abc import Iterable, Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from compactor.imports.captures import import_alpaca
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
