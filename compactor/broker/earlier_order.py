"""Tell whether an order that has the `client_order_id` of a request already is the one that is asked for.

It is where it is still open and has the same terms, those of its exits and legs included. A term that the request does
not name may be anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from compactor.broker.port import Fields
from compactor.core.decimals import BadDecimal, parse_decimal
from compactor.core.lifecycle import TERMINAL, normalize_name

COMPARED = (
    "symbol", "side", "quantity", "notional", "order_type", "time_in_force", "limit_price", "stop_price", "trail_price",
    "trail_percent", "order_class", "extended_hours", "position_intent",
)  # fmt: skip
_EXITS = ("take_profit", "stop_loss")


def is_ended(order: Fields) -> bool:
    """Whether the broker says that an order has ended."""
    return normalize_name(str(order.get("order_status"))) in TERMINAL


def find_objection(terms: Fields, order: Fields, legs: Sequence[Fields] = ()) -> str | None:
    """Why an order that was placed before under the same id is not what was asked for now; None if it is.

    `legs` are the orders of its family as far as the broker tells them; without any they are not compared.
    """
    known = f"the broker has order {order['order_id']} under the client_order_id {terms['client_order_id']}"
    if is_ended(order):
        return f"{known}, which has ended as {order['order_status']}; place a new one under another id"
    for name in COMPARED:
        wanted, found = terms.get(name), order.get(name)
        if wanted is not None and _comparable(name, wanted) != _comparable(name, found):
            return f"{known}, whose {name} is {found}, and not {wanted}; place a new one under another id"
    for name in _EXITS:
        wanted = terms.get(name)
        if legs and isinstance(wanted, Mapping) and not any(_fits(wanted, leg) for leg in legs):
            asked = ", ".join(f"{key} {value}" for key, value in wanted.items())
            return f"{known}, which has no exit with the {name} of now ({asked}); place a new one under another id"
    wanted_legs = terms.get("legs")
    if legs and isinstance(wanted_legs, list) and sorted(map(_name_leg, wanted_legs)) != sorted(map(_name_leg, legs)):
        return f"{known}, which has other legs; place a new one under another id"
    return None


def _fits(wanted: Mapping[str, Any], leg: Fields) -> bool:
    """Whether a leg has the prices of an exit; a stop loss without a limit is no stop limit, and no take profit."""
    names = ("limit_price", "stop_price", "trail_price", "trail_percent")
    return all(_comparable(name, wanted.get(name)) == _comparable(name, leg.get(name)) for name in names)


def _name_leg(leg: Any) -> tuple[str, str]:
    found = leg if isinstance(leg, Mapping) else {}
    return str(found.get("symbol")), str(found.get("side"))


def _comparable(name: str, value: Any) -> Any:
    """A term as it compares: `"2"` is `"2.0"`, `BTCUSD` is `BTC/USD`, and a plain order has no class."""
    if name == "symbol" and isinstance(value, str):
        return value.replace("/", "")
    if name == "order_class":
        return value or "simple"
    try:
        return parse_decimal(value) if isinstance(value, str) else value
    except BadDecimal:
        return value
