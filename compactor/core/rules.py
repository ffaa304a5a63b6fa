"""What one event does to one order: format.md sections 3 and 4, in the order in which an event is read.

`apply` is the whole meaning of an event for the order that it names. It looks at that order only, which is what makes
retention invisible (section 6), orders independent of each other, and any order's story a fold over its own lines.
"""

from decimal import Decimal
from operator import attrgetter
from typing import Any

from compactor.core.decimals import plain
from compactor.core.entry import Entry, ensure_rare
from compactor.core.events import EVENTS, FILLS, REVISIONS, TERMS, Event, Leg, UnknownEvent, legs_of
from compactor.core.fills import take_assignment, take_fill, take_revision, take_snapshot
from compactor.core.instants import is_older
from compactor.core.lifecycle import LIFE, OPEN, REQUESTS, TERMINAL, Effect
from compactor.core.orders import DECIMAL, Order, get_quantity
from compactor.core.reading import identify_delivery

_carried: Any = attrgetter(*TERMS)
_NO_TERMS = (None,) * len(TERMS)


def begin(order_id: str, event: Event, offset: int) -> Order:
    """An order at its first event (its own, or its parent's for a leg), before that event has done anything."""
    return Order(order_id, offset, offset, "", False, event.ts, event.ts, event.ts, None)


def apply(order: Order, event: Event, entry: Entry) -> None:
    """Do to the order what the event says; `order.last` is moved to the event."""
    order.last = entry.offset
    if not note_delivery(order, event):
        return
    if event.event == "assigned":
        take_assignment(order, event, entry)
        entry.close()
        return
    stale = event.event == "snapshot" and order.status != "" and is_older(event.ts, order.updated_at)
    quantity_before, filled_before = get_quantity(order), order.filled
    _take_terms(order, event, entry)
    if stale:
        _end_late(order, event)
    else:
        fresh = _take_fills(order, event, entry)
        _take_status(order, event, entry, fresh)
        _report_quantities(order, event, entry, quantity_before, filled_before, fresh)
        _take_time(order, event)
    entry.close()


def apply_leg(order: Order, event: Event, leg: Leg, entry: Entry) -> None:
    """Do to a leg's own order what a multi-leg fill of its parent says (4.10)."""
    order.last = entry.offset
    if not note_delivery(order, event, entry.stem.rpartition("-")[2]):
        return
    fill = EVENTS["fill"](leg.order_id, event.ts, symbol=leg.symbol, side=leg.side, source=event.source)
    fill.execution_id, fill.price, fill.qty, fill.filled_qty = leg.execution_id, leg.price, leg.qty, leg.filled_qty
    quantity, filled_before = get_quantity(order), order.filled
    _take_terms(order, fill, entry)
    fresh = take_fill(order, fill, entry)
    _report_quantities(order, event, entry, quantity, filled_before, fresh=False)
    if order.status and not order.ended and fresh and quantity is not None and order.filled >= quantity:
        order.status, order.ended = "filled", True
    entry.close()


def read_legs(event: Event) -> list[Leg]:
    """The legs of a multi-leg fill; none for any other event."""
    return legs_of(event.legs) if event.event in FILLS and event.legs is not None else []


def note_delivery(order: Order, event: Event, leg: str = "") -> bool:
    """Note a delivery with its order; whether it is a new one, and not the same again (section 2)."""
    delivery = identify_delivery(event, leg)
    if delivery is None:
        return True
    if order.delivered is None:
        order.delivered = set()
    elif delivery in order.delivered:
        return False
    order.delivered.add(delivery)
    return True


# Terms (3.2).


def _take_terms(order: Order, event: Event, entry: Entry) -> None:
    found = _carried(event)
    replaces = event.event == "restated" and not _is_restated_late(order, event)
    if found == _NO_TERMS:
        return
    if event.event in FILLS and event.legs is not None:
        # The legs of a fill are executions, not a term.
        found = (*found[:-1], None)
    if order.terms is None:
        order.terms = EVENTS["new"](order.order_id, event.ts)
    for name, value in zip(TERMS, found, strict=True):
        if value is not None and (replaces or getattr(order.terms, name) is None):
            setattr(order.terms, name, value)
    entry.release_held(order)


def _is_restated_late(order: Order, event: Event) -> bool:
    rare = ensure_rare(order)
    if rare.restated_at is not None and is_older(event.ts, rare.restated_at):
        return True
    rare.restated_at = event.ts
    return False


# Fills (section 4).


def _take_fills(order: Order, event: Event, entry: Entry) -> bool:
    """Take what the event says of executions; whether it told of a new one."""
    if event.event in FILLS:
        if event.legs is not None:
            ensure_rare(order).multi_leg = True
            return False
        return take_fill(order, event, entry)
    if event.event in REVISIONS:
        take_revision(order, event, entry)
    elif event.event == "snapshot":
        if order.terms is not None and order.terms.order_class == "mleg":
            ensure_rare(order).multi_leg = True
        take_snapshot(order, event, entry)
    return False


def _report_quantities(
    order: Order, event: Event, entry: Entry, quantity_before: Decimal | None, filled_before: Decimal, fresh: bool
) -> None:
    """Say so when more is filled than was ordered, or when a final fill leaves a part unexplained (4.6)."""
    quantity = get_quantity(order)
    lowered = quantity != quantity_before
    if quantity is not None and order.filled > quantity and (order.filled > filled_before or lowered):
        entry.find("overfill", f"{plain(order.filled)} is filled of {plain(quantity)} ordered; every trade is kept")
    if fresh and event.event == "fill" and event.filled_qty is not None and DECIMAL[event.filled_qty] > order.filled:
        missing = plain(DECIMAL[event.filled_qty] - order.filled)
        found = f"the final fill says {event.filled_qty} in all, the known fills are {plain(order.filled)}"
        entry.find("fill_gap", f"{found}: {missing} is missing")


# The status (section 3).


def _take_status(order: Order, event: Event, entry: Entry, fresh: bool) -> None:
    """Decide the status; whatever happens, an order that has ended stays ended (3.4)."""
    _report_unknown(event, entry)
    first = order.status == ""
    if order.ended:
        return
    ended_as = _end_of(order, event)
    if ended_as is not None:
        order.status, order.ended, order.status_at = ended_as, True, event.ts
        return
    status = _open_status_of(order, event, fresh)
    if first:
        order.status = status or "new"
    elif status is None or is_older(event.ts, order.status_at):
        return
    elif status != order.status:
        _remember_request(order, status)
        order.status = status
    order.status_at = event.ts
    if status == "calculated":
        detail = f"`calculated` with {plain(order.filled)} filled, which is not known to be all; the order stays open"
        entry.find("calculated_open", detail)


def _end_late(order: Order, event: Event) -> None:
    """An older snapshot changes nothing (4.7), but an end stays an end whenever it is told (3.5, 3.10)."""
    if event.order_status in TERMINAL and not order.ended:
        assert event.order_status is not None
        order.status, order.ended, order.status_at = event.order_status, True, event.ts


def _end_of(order: Order, event: Event) -> str | None:
    """The terminal status that this event gives the order, if it ends it (3.3, 3.8, 3.10)."""
    row = LIFE.get(event.event)
    if row is not None and row.effect is Effect.ENDS:
        return row.status
    if event.order_status in TERMINAL:
        return event.order_status
    quantity = get_quantity(order)
    if quantity is None or order.filled < quantity:
        return None
    return row.status if row is not None and row.effect is Effect.COMPLETES else "filled"


def _open_status_of(order: Order, event: Event, fresh: bool) -> str | None:
    """The open status that this event asks for; None where it asks for none."""
    row = LIFE.get(event.event)
    if row is None:
        return event.event
    if row.effect is Effect.FILLS:
        # A fill that is known already brings no status back.
        return (
            row.status
            if (fresh or event.legs is not None) and order.status not in REQUESTS
            else order.status or row.status
        )
    if row.effect is Effect.RETURNS:
        before = order.before if order.status in REQUESTS else None
        return event.order_status or before or order.status or None
    if row.effect is Effect.REPORTS:
        return event.order_status
    if row.effect is Effect.KEEPS:
        return event.order_status if order.status == "" else None
    return row.status


def _remember_request(order: Order, status: str) -> None:
    """Keep the status before a request, so that a rejection can return to it (3.6)."""
    if status in REQUESTS and order.status not in REQUESTS:
        order.before = order.status


def _report_unknown(event: Event, entry: Entry) -> None:
    """Rule 3.7: a ghost row is better than a hidden live order."""
    if isinstance(event, UnknownEvent):
        entry.find("unknown_status", f"nobody has heard of the event {event.event!r}; it ends nothing")
    elif event.order_status is not None and event.order_status not in OPEN and event.order_status not in TERMINAL:
        entry.find("unknown_status", f"nobody has heard of the status {event.order_status!r}; it ends nothing")


def _take_time(order: Order, event: Event) -> None:
    """Move the least and the greatest `ts` of the order."""
    if is_older(order.updated_at, event.ts):
        order.updated_at = event.ts
    if is_older(event.ts, order.created_at):
        order.created_at = event.ts
