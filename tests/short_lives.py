"""A short way to tell the life of one order, event by event, and what the rules make of it."""

import json
from typing import Any

from compactor.core.fold import Fold

Told = tuple[Any, ...]
"""An event: its name, the minute at which it happened, and its fields."""


def told(event: str, minute: int, order_status: str | None = None, **fields: Any) -> Told:
    return event, minute, {"order_status": order_status, **fields}


def part(minute: int, qty: float | str, order_status: str | None = None, **fields: Any) -> Told:
    """A part is filled, in an execution named after the minute."""
    execution = {"execution_id": f"x-{minute}", "price": "5", "qty": str(qty)}
    return told("partial_fill", minute, order_status, **{**execution, **fields})


def whole(minute: int, qty: int, order_status: str | None = None, **fields: Any) -> Told:
    """The same, by the event that says that it is the last one."""
    return "fill", *part(minute, qty, order_status, **fields)[1:]


def placed(quantity: int | None = 5, minute: int = 0, **fields: Any) -> Told:
    terms = {"symbol": "SPY", "side": "buy", "quantity": None if quantity is None else str(quantity)}
    return told("new", minute, **{**terms, **fields})


def bust(minute: int, execution_id: str = "x-1", **fields: Any) -> Told:
    """An execution is taken back."""
    return told("trade_bust", minute, previous_execution_id=execution_id, **fields)


def leg_filled(minute: int, execution_id: str = "x-leg") -> Told:
    """The order is a leg, and a part of it is filled by its parent's fill."""
    leg = {"order_id": "o", "symbol": "SPY", "side": "buy", "qty": "1", "price": "5", "execution_id": execution_id}
    return told("partial_fill", minute, order_id="parent", legs=[leg])


def live(events: list[Told]) -> Fold:
    """What the rules make of the events of one order, without the short path."""
    fold = Fold("alpha", lambda *_: ())
    fold.leave_short_path()
    for number, (event, minute, fields) in enumerate(events):
        line = {"event": event, "order_id": "o", "ts": f"2026-03-02T10:{minute:02}:00Z", **fields}
        fold.feed(json.dumps(line).encode() + b"\n", 1000 * number)
    return fold


def list_findings(lines: bytes) -> list[str]:
    """The kinds of the findings, in their order."""
    return [json.loads(line)["kind"] for line in lines.splitlines()]


def list_trades(lines: bytes) -> list[str]:
    """Quantity and price of each trade, `~` before an inferred one and `=` before what a correction put there."""
    signs = {"inferred": "~", "correction": "="}
    trades = [json.loads(line) for line in lines.splitlines()]
    return [f"{signs.get(one['kind'], '')}{one['quantity']}@{one['execution_price']}" for one in trades]


def outcome(events: list[Told]) -> tuple[list[str], list[str], str | None]:
    """The trades, the findings and the status that a life comes to."""
    fold = live(events)
    lines = fold.take_lines()
    return list_trades(lines.trades), list_findings(lines.findings), fold.find_status("o")
