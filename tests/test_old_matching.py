"""Old trades and their orders, however each of them is spelled: no share is booked twice in silence."""

import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import pytest

from compactor.core.decoding import build_event
from compactor.core.events import Problem
from compactor.imports import old_matching
from compactor.imports.old_layout import OldLedger, translate_old_layout

ORDER: dict[str, Any] = {"order_id": "a-1", "team_id": "alpha", "symbol": "AAPL", "side": "buy", "quantity": "10"}
ORDER |= {"order_type": "limit", "limit_price": "181.50", "requested_price": "181.50", "time_in_force": "day"}
ORDER |= {"status": "new", "filled_qty": "0", "broker_order_id": "b-1"}
ORDER |= {"created_at": "2026-02-02T14:30:00Z", "updated_at": "2026-02-02T14:30:00Z"}
FILLED = {**ORDER, "status": "filled", "filled_qty": "10", "filled_avg_price": "181.45"}
FILLED["updated_at"] = "2026-02-02T14:34:00Z"
TRADE: dict[str, Any] = {"team_id": "alpha", "symbol": "AAPL", "side": "buy", "quantity": "10", "order_type": "limit"}
TRADE |= {"requested_price": "181.50", "execution_price": "181.45", "broker_order_id": "b-1"}
TRADE |= {"timestamp": "2026-02-02T14:34:00Z"}


def _translate(orders: Iterable[dict[str, Any]], trades: Iterable[dict[str, Any]] = ()) -> OldLedger:
    lines = ([json.dumps(one).encode() for one in told] for told in (orders, trades))
    old = translate_old_layout(*lines)
    assert not [found for found in old.events if isinstance(build_event(found.event), Problem)]
    return old


def _list_traded(old: OldLedger) -> dict[str, Decimal]:
    """What each order has filled by its events: the greatest quantity that one of them tells."""
    filled: dict[str, Decimal] = {}
    for _, _, event, _ in old.events:
        told = Decimal(event.get("filled_qty", "0"))
        filled[event["order_id"]] = max(told, filled.get(event["order_id"], told))
    return filled


def _list_kinds(old: OldLedger) -> list[str]:
    return [found.problem.kind for found in old.problems]


@pytest.mark.parametrize("has_id", [True, False], ids=["with the broker's id", "without an id"])
@pytest.mark.parametrize(
    ("order", "trade"),
    [
        ({}, {"side": "BUY"}),
        ({}, {"side": "OrderSide.BUY"}),
        ({"side": "Buy"}, {}),
        ({"side": "sell_short"}, {"side": "sell"}),
        ({"side": "sell"}, {"side": "SELL_SHORT"}),
        ({"symbol": "BTC/USD"}, {"symbol": "BTCUSD"}),
        ({}, {"symbol": "aapl"}),
        ({}, {"order_type": "LIMIT"}),
        ({"order_type": "StopLimit"}, {"order_type": "OrderType.STOP_LIMIT"}),
        ({"requested_price": 181.5}, {"requested_price": "181.500"}),
    ],
)
def test_a_trade_spelled_otherwise_than_its_order_is_its_fill(
    order: dict[str, Any], trade: dict[str, Any], has_id: bool
) -> None:
    """Sides, symbols and order types are compared by what they mean; the shares come out once."""
    ids = {} if has_id else {"broker_order_id": None}
    old = _translate([{**ORDER, **order, **ids}, {**FILLED, **order, **ids}], [{**TRADE, **trade, **ids}])
    assert {"b-1" if has_id else "a-1": Decimal(10)} == _list_traded(old)
    assert ["snapshot", "fill", "snapshot"] == [found.event["event"] for found in old.events]
    assert [] == old.problems


def test_a_trade_of_the_other_side_is_left_out_and_named_where_its_order_tells_the_fill() -> None:
    """One of the two lines is wrong; booked twice, the shares would cancel each other out."""
    old = _translate([ORDER, FILLED], [{**TRADE, "side": "sell"}])
    assert {"b-1": Decimal(10)} == _list_traded(old)
    [problem] = old.problems
    assert ("trades", 1, "contradicts_order") == (problem.file, problem.line, problem.problem.kind)
    assert "the side 'sell', expected 'buy'" in problem.problem.detail


@pytest.mark.parametrize(
    ("orders", "trade"),
    [([ORDER], {"side": "sell"}), ([ORDER], {"symbol": "MSFT"}), ([ORDER, FILLED], {"symbol": "MSFT"})],
)
def test_a_trade_that_contradicts_its_order_is_kept_apart_and_named(orders: list[Any], trade: dict[str, Any]) -> None:
    """Nothing else tells these shares, so they are not lost; nor are they booked without a word."""
    old = _translate(orders, [{**TRADE, **trade}])
    [own] = [event["order_id"] for _, _, event, _ in old.events if event["event"] == "fill"]
    assert own.startswith("legacy-trade:")
    assert ["contradicts_order"] == _list_kinds(old)


PARTS = [{**TRADE, "quantity": "4"}, {**TRADE, "quantity": "6", "timestamp": "2026-02-02T14:35:00Z"}]


@pytest.mark.parametrize(
    "ids", [{"order_id": "a-1"}, {"order_id": "b-1"}, {"order_id": "a-1", "broker_order_id": "b-1"}]
)
@pytest.mark.parametrize("broker_id", ["b-1", None])
def test_a_trade_is_matched_by_the_order_id_that_it_names(ids: dict[str, str], broker_id: str | None) -> None:
    """Parts of one order have other quantities than it; their id tells which one they belong to."""
    if broker_id is None and "b-1" in ids.values():
        ids = {"order_id": "a-1"}
    orders = [one | {"broker_order_id": broker_id} for one in (ORDER, FILLED)]
    old = _translate(orders, [one | {"broker_order_id": None} | ids for one in PARTS])
    assert {broker_id or "a-1": Decimal(10)} == _list_traded(old)
    assert [] == old.problems


def test_a_trade_of_an_order_id_that_no_line_tells_is_an_order_of_that_id() -> None:
    """Nothing is lost, and its own id is worth more than one that is made up."""
    old = _translate([], [{**TRADE, "broker_order_id": None, "order_id": "a-9"}])
    assert {"a-9": Decimal(10)} == _list_traded(old)


def _list_fills(old: OldLedger) -> dict[str, list[str]]:
    fills: dict[str, list[str]] = {}
    for _, _, event, _ in old.events:
        if event["event"] != "snapshot":
            fills.setdefault(event["order_id"], []).append(event["filled_qty"])
    return fills


def test_trades_without_an_id_that_add_up_to_an_order_are_its_fills() -> None:
    """Those of the same symbol, side and requested price that follow each other, nearest to the end of the order."""
    far = [{**one, "timestamp": one["timestamp"].replace("T14", "T20")} for one in PARTS]
    stray = {**TRADE, "quantity": "3", "timestamp": "2026-02-02T14:33:00Z"}
    other = {**stray, "requested_price": "200", "timestamp": "2026-02-02T14:34:30Z"}
    nameless = [one | {"broker_order_id": None} for one in (*far, stray, other, *PARTS)]
    old = _translate([one | {"broker_order_id": None} for one in (ORDER, FILLED)], nameless)
    assert ["4", "10"] == _list_fills(old)["a-1"]
    assert 4 == sum(one.startswith("legacy-trade:") for one in _list_fills(old))
    assert [] == old.problems
    taken = [event["ts"] for _, _, event, _ in old.events if event["order_id"] == "a-1" and "execution_id" in event]
    assert ["2026-02-02T14:34:00Z", "2026-02-02T14:35:00Z"] == taken


def _list_taken(old: OldLedger) -> list[str]:
    """When the trades of order a-1 happened, without the date."""
    fills = [event for _, _, event, _ in old.events if event["order_id"] == "a-1" and "execution_id" in event]
    return sorted(event["ts"][11:19] for event in fills)


@pytest.mark.parametrize(("times", "taken"), [((54, 58, 66), (54, 58)), ((60, 70, 80), (60, 70)), ((70, 80), (70, 80))])
def test_of_trades_that_add_up_those_that_end_nearest_are_taken(
    times: tuple[int, ...], taken: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the last of each run, before or after the end of the order, minute 60; at most four are tried."""
    monkeypatch.setattr(old_matching, "NEAR_TRADES_MAX", 4)
    stamps = {minute: f"2026-02-02T{14 + minute // 60}:{minute % 60:02}:00Z" for minute in (*times, 60)}
    orders = [{**FILLED, "broker_order_id": None, "updated_at": stamps[60]}]
    trades = [{**TRADE, "broker_order_id": None, "quantity": "5", "timestamp": stamps[minute]} for minute in times]
    assert [stamps[minute][11:19] for minute in taken] == _list_taken(_translate(orders, trades))


def test_of_runs_of_trades_the_last_trade_of_each_counts() -> None:
    """An order of many parts ends with the last of them; a run that begins nearer to the end may be another one's."""
    minutes = {10: "2", 20: "2", 59: "6", 70: "6", 71: "4"}
    stamps = {minute: f"2026-02-02T{14 + minute // 60}:{minute % 60:02}:00Z" for minute in (*minutes, 60)}
    orders = [{**FILLED, "broker_order_id": None, "updated_at": stamps[60]}]
    trades = [
        {**TRADE, "broker_order_id": None, "quantity": quantity, "timestamp": stamps[minute]}
        for minute, quantity in minutes.items()
    ]
    assert ["14:10:00", "14:20:00", "14:59:00"] == _list_taken(_translate(orders, trades))


def test_trades_of_an_id_that_two_orders_have_are_not_taken_for_the_first_one_s() -> None:
    """An old program began to number anew each day: the trade finds its order by what was traded."""
    other = {"broker_order_id": "b-2", "symbol": "AAPL", "quantity": "3", "filled_qty": "3"}
    orders = [FILLED | {"filled_qty": "0", "status": "new"}, FILLED | other]
    old = _translate(orders, [{**TRADE, "broker_order_id": None, "order_id": "a-1", "quantity": "3"}])
    assert ["3"] == _list_fills(old)["b-2"]
    assert "b-1" not in _list_fills(old)


def test_a_line_that_has_the_broker_s_id_only_is_of_the_order_of_that_id() -> None:
    """Also where two ids of the program's have it; which are named."""
    lines = [ORDER, ORDER | {"order_id": "a-2"}, {**FILLED, "order_id": None}]
    old = _translate(lines)
    assert Decimal(10) == _list_traded(old)["b-1"]
    assert {"shared_id"} == set(_list_kinds(old))


def test_each_of_several_orders_takes_the_trades_that_add_up_to_it() -> None:
    """A trade belongs to one order only."""
    orders, trades = [], []
    for number, hour in enumerate(("15", "16", "17")):
        at = {"updated_at": f"2026-02-02T{hour}:00:00Z", "broker_order_id": None, "order_id": f"a-{number}"}
        orders.append(FILLED | at)
        trades += [
            one | {"broker_order_id": None, "timestamp": f"2026-02-02T{hour}:00:0{n}Z"} for n, one in enumerate(PARTS)
        ]
    old = _translate(orders, trades)
    assert {f"a-{number}": ["4", "10"] for number in range(3)} == _list_fills(old)


@pytest.mark.parametrize("quantity", ["4", "9.5"])
def test_a_trade_that_may_be_a_part_of_an_order_is_named(quantity: str) -> None:
    """The order tells its fill itself, and nothing says whether the trade is one more: both stand, not in silence."""
    orders = [one | {"broker_order_id": None} for one in (ORDER, FILLED)]
    trade = {**TRADE, "broker_order_id": None, "quantity": quantity}
    assert ["doubtful_trade"] == _list_kinds(_translate(orders, [trade]))
    assert [] == _list_kinds(_translate(orders, [trade | {"side": "sell"}]))
    assert [] == _list_kinds(_translate(orders, [trade | {"requested_price": "100"}]))
    assert ["doubtful_trade"] == _list_kinds(_translate(orders, [trade | {"requested_price": None}]))
    assert [] == _list_kinds(_translate(orders, [trade | {"quantity": "11"}]))


@pytest.mark.parametrize(
    "status", ["CANCELED", "Cancelled", "OrderStatus.CANCELED", "canceled", "cancelled", " canceled "]
)
def test_an_end_is_an_end_however_it_is_spelled(status: str) -> None:
    """Capitals and printed enums are read as `import alpaca` reads them; the order is no ghost."""
    old = _translate([ORDER, {**ORDER, "status": status, "updated_at": "2026-02-02T15:00:00Z"}])
    assert old.events[-1].event["order_status"] in ("canceled", "cancelled")


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"status": "OrderStatus.PARTIALLY_FILLED"}, {"order_status": "partially_filled"}),
        ({"status": "PartiallyFilled"}, {"order_status": "partially_filled"}),
        ({"status": "Partially Filled"}, {"order_status": "partially_filled"}),
        ({"status": "working"}, {"order_status": "working"}),
        ({"side": "OrderSide.SELL"}, {"side": "sell"}),
        ({"side": "SELL_SHORT"}, {"side": "sell"}),
        ({"order_type": "OrderType.STOP_LIMIT"}, {"order_type": "stop_limit"}),
        ({"time_in_force": "GTC"}, {"time_in_force": "gtc"}),
        ({"time_in_force": "TimeInForce.DAY"}, {"time_in_force": "day"}),
        ({"symbol": "aapl"}, {"symbol": "AAPL"}),
        ({"symbol": "NaN"}, {"symbol": "NaN"}),
        ({"limit_price": "None"}, {"limit_price": None}),
    ],
)
def test_fields_are_read_in_the_ledgers_spelling(told: dict[str, Any], expected: dict[str, Any]) -> None:
    """What a program printed is read as what it means."""
    [found] = _translate([{**ORDER, **told}]).events
    assert expected == {name: found.event.get(name) for name in expected}


def test_an_order_with_the_broker_s_names_is_read() -> None:
    """`qty` is its quantity, `type` its type; where both are told, the old layout's name counts."""
    order = {name: value for name, value in ORDER.items() if name not in ("quantity", "order_type")}
    [found] = _translate([order | {"qty": "7", "type": "market"}]).events
    assert ("7", "market") == (found.event["quantity"], found.event["order_type"])
    [both] = _translate([ORDER | {"qty": "7"}]).events
    assert "10" == both.event["quantity"]
    trade = {name: value for name, value in TRADE.items() if name != "quantity"}
    assert {"b-1": Decimal(7)} == _list_traded(_translate([], [trade | {"qty": 7}]))
