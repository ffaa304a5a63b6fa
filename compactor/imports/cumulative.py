"""Tell what was filled after each activity that says only what it leaves open, by the quantity of its order.

Note: without it the shares of the activity cannot be told from those that its order says are filled (rule 4.7), and
would count twice. Lists of activities that other programs kept often lack `cum_qty`.
"""

from __future__ import annotations

from decimal import Decimal

from compactor.books.carry_over import read_quantity
from compactor.core.decimals import exactly
from compactor.core.events import Event
from compactor.imports.messages import Translated


class CumulativeQuantities:
    """Learns the quantities of orders by `note` and `recall`, and then completes the activities of a recording.

    Not of a multi-leg order, which has no symbol: what an activity leaves open may be that of the leg.
    """

    def __init__(self) -> None:
        self._quantities: dict[str, Decimal | None] = {}
        """By order; None where messages tell different ones, so that nothing follows from them."""
        self._incomplete: set[str] = set()

    def note(self, found: Translated) -> None:
        """Learn what was ordered, or that an activity does not tell what was filled after it."""
        event = found.event
        if not isinstance(event, dict):
            return
        order_id = str(event["order_id"])
        if found.is_activity:
            if found.leaves is not None and "filled_qty" not in event:
                self._incomplete.add(order_id)
        elif event.get("symbol"):
            self._learn(order_id, event.get("quantity"))

    def recall(self, event: Event) -> None:
        """Learn what was ordered from an event of a log, which may have been imported before."""
        if event.symbol:
            self._learn(event.order_id, event.quantity)

    def _learn(self, order_id: str, told: object) -> None:
        quantity = read_quantity(told)
        if quantity is not None:
            is_known = self._quantities.setdefault(order_id, quantity) == quantity
            self._quantities[order_id] = quantity if is_known else None

    @property
    def lacking(self) -> set[str]:
        """The orders of which activities could be completed, if their quantity were known."""
        return self._incomplete - self._quantities.keys()

    @property
    def has_gaps(self) -> bool:
        """Whether an activity can be completed."""
        return any(self._quantities.get(order_id) is not None for order_id in self._incomplete)

    def complete(self, found: Translated) -> Translated:
        """Add `filled_qty` to an activity of an order whose quantity is known, if it tells what it leaves of that."""
        event, leaves = found.event, read_quantity(found.leaves)
        if not found.is_activity or not isinstance(event, dict) or leaves is None or "filled_qty" in event:
            return found
        quantity, own = self._quantities.get(str(event["order_id"])), read_quantity(event.get("qty"))
        if quantity is None or own is None:
            return found
        with exactly():
            filled = quantity - leaves
        return found._replace(event=event | {"filled_qty": f"{filled:f}"}) if own <= filled <= quantity else found
