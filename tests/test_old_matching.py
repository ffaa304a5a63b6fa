"""Old trades and their orders, however each of them is spelled: no share is booked twice in silence."""

import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import pytest

from compactor.core.decoding import build_event
from compactor.core.events import Problem
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
