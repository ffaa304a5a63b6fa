"""The executions among the `legs` of a fill (format.md, rule 4.10), and what all values of an event have in common.

On the wire `legs` is one name for two things: the executions of a multi-leg fill, and the orders that belong to an
order. `is_execution` tells them apart.
"""

from typing import Any

import msgspec
from msgspec import Struct

from compactor.core.decimals import BadDecimal, without_exponent

REQUIRED = ("event", "order_id", "ts")
"""The fields that every event has."""

SIDES = ("buy", "sell", "sell_short")


class Leg(Struct, gc=False):
    """One leg of a multi-leg fill (rule 4.10): an execution of the leg's own order, and its index in `legs`."""

    order_id: str
    symbol: str
    side: str
    qty: str
    price: str
    execution_id: str | None = None
    filled_qty: str | None = None
    index: int = 0


def read_leg_fills(legs: list[Any]) -> list[Leg]:
    """Read the executions among the entries of `legs`, in their order, decimals as texts."""
    read = []
    for index, leg in enumerate(legs):
        if not is_execution(leg):
            continue
        numbers = {n: str(leg[n]) for n in ("qty", "price", "filled_qty") if type(leg.get(n)) is int}
        found = msgspec.convert({**drop_absent(leg), **numbers, "index": index}, Leg)
        found.side = normalize_side(found.side)
        for name in ("qty", "price", "filled_qty"):
            text = getattr(found, name)
            setattr(found, name, without_exponent(text) if text is not None else None)
        read.append(found)
    return read


def is_execution(leg: Any) -> bool:
    """Whether an entry of `legs` has what only an execution has."""
    return isinstance(leg, dict) and any(leg.get(name) not in (None, "") for name in ("price", "execution_id"))


def normalize_side(text: str) -> str:
    """Read a side as `buy`, `sell` or `sell_short`: in any case, also as Python prints the member of an enum."""
    side = text.lower().removeprefix("orderside.")
    if side not in SIDES:
        raise BadDecimal(f"`side` is {text[:60]!r}, expected buy or sell")
    return side


def drop_absent(fields: dict[str, Any]) -> dict[str, Any]:
    """Drop what is absent: `null`, `""`, and `legs` that are empty. A required field that is empty is a bad value."""
    return {name: value for name, value in fields.items() if name in REQUIRED or not _is_absent(name, value)}


def _is_absent(name: str, value: Any) -> bool:
    return value is None or value == "" or (name == "legs" and value == [])
