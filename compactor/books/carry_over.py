"""Leave out of a replacement's sums what its predecessor had filled, which some brokers count on.

By some reports the `filled_qty` of an order that replaces another one begins at what was filled before. Taken as its
own, those shares would be traded twice. What is carried over is decided by `sync.carried` for the stream and a resend,
by `sync.executions` for the answers of a reconcile, and by `imports.replacements` for recordings.

Note: what was left out stands in the event as `carried_qty`, so that it is known after a restart: from the log.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec

from compactor.books.order_index import OrderIndex
from compactor.core.decimals import BadDecimal, exactly, parse_decimal, plain
from compactor.ledger import LedgerError

CARRIED = "carried_qty"
ACCEPTED = frozenset({"new", "accepted", "pending_new"})
"""Events of an order that has no executions of its own yet."""
_SUMS = ("filled_qty", "filled_avg_price")
ZERO = Decimal(0)


class ToldSums(msgspec.Struct):
    """What a line of an order says of its sums."""

    filled_qty: str | int | None = None
    carried_qty: str | None = None
    replaced_by: str | None = None


_decode = msgspec.json.Decoder(ToldSums).decode


def read_sums(index: OrderIndex, order_id: str, team: str) -> list[ToldSums]:
    """What the lines of an order say of its sums, in the ledger of a team; nothing where they cannot be read."""
    try:
        return [_decode(line) for _event, line in index.read_order(order_id, team)]
    except (LedgerError, OSError, msgspec.DecodeError):
        return []


def find_carried(told: Iterable[ToldSums]) -> Decimal:
    """What was left out of the sums of an order, by its lines."""
    return max((read_quantity(one.carried_qty) or ZERO for one in told), default=ZERO)


def without_sums(event: dict[str, Any]) -> dict[str, Any]:
    """An event without what it says is filled."""
    return {name: value for name, value in event.items() if name not in _SUMS}


def leave_out(event: dict[str, Any], carried: Decimal) -> dict[str, Any]:
    """An event without what of its sums was filled before the order was there."""
    filled = read_quantity(event.get("filled_qty"))
    if not carried or filled is None:
        return event
    with exactly():
        own = max(filled - carried, ZERO)
    return without_sums(event) | {"filled_qty": plain(own), CARRIED: plain(carried)}


def read_quantity(value: object) -> Decimal | None:
    """A quantity of an event; None where there is none, or none that can be read."""
    try:
        return parse_decimal(str(value)) if value is not None else None
    except BadDecimal:
        return None
