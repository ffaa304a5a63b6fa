"""Decide what the sums of a replacement count of its predecessor, message by message: for the stream and for a resend.

What is left out of them, and why, says `books.carry_over`. `executions` decides for the answers of a reconcile.
"""

from __future__ import annotations

from decimal import Decimal

from compactor.books.carry_over import (
    ACCEPTED,
    ZERO,
    find_carried,
    leave_out,
    read_quantity,
    read_sums,
    without_sums,
)
from compactor.books.order_index import OrderIndex
from compactor.broker.port import Fields
from compactor.core.decimals import exactly
from compactor.core.events import FILLS

_KEPT_MAX = 100_000


class CarriedSums:
    """What replacements count of their predecessors, by order. For one thread at a time."""

    def __init__(self, index: OrderIndex) -> None:
        self._index = index
        self._of_orders: dict[str, Decimal] = {}
        self._replaced: dict[str, Decimal] = {}
        """What was filled of orders when they were replaced, which may not be in a log yet."""

    def leave_out(self, event: Fields, team: str) -> Fields:
        """The event with the sums that are the order's own, for the ledger of a team; the same where nothing is
        carried."""
        filled = read_quantity(event.get("filled_qty"))
        if filled is not None and event.get("replaced_by"):
            _keep(self._replaced, str(event["order_id"]), filled)
        if filled is None or not (event.get("replaces") or self._may_continue(event)):
            return event
        carried = self._find(event, filled, team)
        if carried is None:
            # Nobody can say which of it is its own: the reconcile does, by the executions.
            return without_sums(event)
        return leave_out(event, carried)

    def _may_continue(self, event: Fields) -> bool:
        """Whether an event that does not tell what its order replaces may be of a replacement."""
        order_id = str(event["order_id"])
        return order_id in self._of_orders or (
            event["event"] in FILLS and event.get("qty") != event["filled_qty"] and any(self._index.list_ties(order_id))
        )

    def _find(self, event: Fields, filled: Decimal, team: str) -> Decimal | None:
        """What of the sums of an order was filled before it; None where that cannot be told."""
        order_id = str(event["order_id"])
        found = self._of_orders.get(order_id)
        if found is None:
            found = self._decide(event, filled, team)
            if found is not None:
                _keep(self._of_orders, order_id, found)
        return found

    def _decide(self, event: Fields, filled: Decimal, team: str) -> Decimal | None:
        told = read_sums(self._index, str(event["order_id"]), team)
        carried = find_carried(told)
        if any(one.filled_qty is not None for one in told):
            return carried
        if event["event"] in ACCEPTED:
            return filled
        # The first that is heard of its sums is a later event: they are its own, unless they may be its predecessor's.
        # Of that one fills may be unheard, but not once it is known how it stood when it was replaced.
        with exactly():
            rest = filled - (read_quantity(event.get("qty")) or ZERO if event["event"] in FILLS else ZERO)
        name = str(event.get("replaces") or "")
        earlier = read_sums(self._index, name, team) if name and name not in self._replaced else []
        known = [read_quantity(one.filled_qty) for one in earlier if one.replaced_by is not None]
        before = self._replaced.get(name, max((one for one in known if one is not None), default=None))
        return ZERO if rest <= 0 or before == ZERO else None


def _keep(memory: dict[str, Decimal], order_id: str, quantity: Decimal) -> None:
    if len(memory) > _KEPT_MAX:
        memory.clear()
    memory[order_id] = quantity
