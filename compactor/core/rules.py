"""What one event does to the orders that it names: format.md sections 3 and 4, in the order in which an event is read.

`split_event` says which orders an event is about, and `apply` changes one of them. How fills become trades is in
`fills`, how the status changes in `transitions`.

Invariant: `apply` looks at one order only. This makes retention invisible (section 6), orders independent of each
other, and the history of an order a fold over the lines that name it.
"""

from decimal import Decimal
from operator import attrgetter
from typing import Any, NamedTuple

from compactor.core.corrections import bust_inferred, note_lines, take_revision
from compactor.core.decimals import DUST, plain
from compactor.core.events import EVENTS, FILLS, REVISIONS, TERMS, TOLD_ONCE, Event, Leg, is_intent
from compactor.core.fills import take_assignment, take_fill
from compactor.core.inference import infer_missing
from compactor.core.instants import is_older
from compactor.core.lines import Placed, identify_delivery
from compactor.core.orders import Derived, Entry, Order, ensure_rare, get_quantity, is_multi_leg
from compactor.core.settling import price_anew, settle_shortfall, settle_surplus
from compactor.core.told import note_told
from compactor.core.transitions import end_order, is_complete, take_status

_carried: Any = attrgetter(*TERMS)
_NO_TERMS = (None,) * len(TERMS)


class Part(NamedTuple):
    """What of an event is about one order: the event itself, a leg of it, or that it names the order's predecessor."""

    order_id: str
    leg: Leg | None = None
    is_successor: bool = False


def split_event(event: Event) -> list[Part]:
    """List the orders that an event changes: its own, those of its legs (4.10), and its successor (3.9); none for an
    intent (3.13)."""
    if is_intent(event):
        return []
    parts = [Part(event.order_id)]
    if event.leg_fills is not None:
        parts += [Part(leg.order_id, leg) for leg in event.leg_fills]
    is_replaced = "replaced" in (event.event, event.order_status)
    if is_replaced and event.replaced_by is not None and event.replaced_by != event.order_id:
        parts.append(Part(event.replaced_by, is_successor=True))
    return parts


def begin(order_id: str, event: Event, offset: int) -> Order:
    """Make an order at the first event that is about it, before that event has done anything."""
    return Order(order_id, offset, offset, "", False, event.ts, event.ts, event.ts, None)


def apply(order: Order, part: Part, placed: Placed, team_id: str, derived: Derived) -> None:
    """Do to an order what its part of an event says, and add what is derived from that; `order.last` is moved."""
    offset, length, event = placed
    entry = Entry(offset, length, event.ts, team_id, derived, None if part.leg is None else part.leg.index)
    entry.reason = event.reason
    order.last = offset
    if is_repeated(order, event, part):
        return
    _note_delivery(order, event, part)
    if part.leg is not None:
        _apply_leg(order, event, part.leg, entry)
    elif part.is_successor:
        _apply_predecessor(order, event, entry)
    else:
        _apply_own(order, event, entry)
    entry.close()


def _apply_own(order: Order, event: Event, entry: Entry) -> None:
    if event.event == "assigned":
        take_assignment(order, event, entry)
        return
    if order.rare is not None and order.rare.successor:
        # What its predecessor said of it was only that it exists.
        order.rare.successor = False
        order.created_at = order.updated_at = order.status_at = event.ts
    quantity_before, filled_before, was_ended = get_quantity(order), order.filled, order.ended
    _take_terms(order, event, entry)
    fresh = _take_fills(order, event, entry)
    _take_sums(order, event, entry, is_duplicate=event.event in FILLS and not fresh)
    take_status(order, event, entry, fresh, quantity_before)
    if order.ended and not was_ended and not is_multi_leg(order):
        settle_surplus(order, entry)  # The end counts the shares, and may be the only event that does.
    _report_overfill(order, entry, quantity_before, filled_before)
    _take_time(order, event)


def _apply_leg(order: Order, event: Event, leg: Leg, entry: Entry) -> None:
    """Do to a leg's own order what a multi-leg fill of its parent says (4.10)."""
    fill = EVENTS["fill"](leg.order_id, event.ts, symbol=leg.symbol, side=leg.side, source=event.source)
    fill.execution_id, fill.price, fill.qty, fill.filled_qty = leg.execution_id, leg.price, leg.qty, leg.filled_qty
    quantity, filled_before = get_quantity(order), order.filled
    _take_terms(order, fill, entry)
    fresh = take_fill(order, fill, entry)
    _take_sums(order, fill, entry, is_duplicate=not fresh)
    _report_overfill(order, entry, quantity, filled_before)
    if order.status and not order.ended and fresh and is_complete(order, fill):
        end_order(order, fill, "filled", is_guess=True)


def _apply_predecessor(order: Order, event: Event, entry: Entry) -> None:
    """Take it that the broker has replaced another order by this one: it is shown until its own events come (3.9)."""
    told = EVENTS["new"](order.order_id, event.ts, symbol=event.symbol, side=event.side, replaces=event.order_id)
    _take_terms(order, told, entry)
    if order.status == "" and not order.ended:
        ensure_rare(order).successor = True


def is_repeated(order: Order, event: Event, part: Part) -> bool:
    """Whether this part of the event was delivered before, so that it changes nothing (section 2)."""
    return order.delivered is not None and _identify(event, part) in order.delivered


def _identify(event: Event, part: Part) -> str | None:
    if part.leg is not None:
        return identify_delivery(event, str(part.leg.index))
    return identify_delivery(event, "successor" if part.is_successor else "")


def _note_delivery(order: Order, event: Event, part: Part) -> None:
    delivery = _identify(event, part)
    if delivery is not None:
        order.delivered = order.delivered or set()
        order.delivered.add(delivery)


# Terms (3.2).


def _take_terms(order: Order, event: Event, entry: Entry) -> None:
    """Take each term that is not older than the one that is known."""
    found = _carried(event)
    if found == _NO_TERMS:
        return
    if order.terms is None:
        order.terms = EVENTS["new"](order.order_id, event.ts)
    terms, told_at = order.terms, order.rare.told_at if order.rare is not None else {}
    changed = dict(told_at)
    for name, value in zip(TERMS, found, strict=True):
        if value is None or (getattr(terms, name) is not None and _keeps(name, event, told_at.get(name, terms.ts))):
            continue
        setattr(terms, name, value)
        if name not in TOLD_ONCE:
            changed[name] = event.ts
    _note_times(order, changed)
    entry.release_held(order)


def _keeps(name: str, event: Event, told_at: str) -> bool:
    """Whether a term that is known keeps its value."""
    return name in TOLD_ONCE or is_older(event.ts, told_at)


def _note_times(order: Order, told_at: dict[str, str]) -> None:
    """Note when each term was told. Invariant: the same events give the same form, which checkpoints compare."""
    terms: Any = order.terms
    known = [name for name in TERMS if name not in TOLD_ONCE and getattr(terms, name) is not None]
    times = {told_at.get(name, terms.ts) for name in known}
    if len(times) == 1:
        terms.ts = times.pop()
    differing = {name: told_at[name] for name in known if told_at.get(name, terms.ts) != terms.ts}
    if differing:
        ensure_rare(order).told_at = differing
    elif order.rare is not None:
        order.rare.told_at = {}


# Fills (section 4).


def _take_fills(order: Order, event: Event, entry: Entry) -> bool:
    """Take what the event says of executions; whether it told of a new one."""
    if event.event in FILLS:
        if event.leg_fills is not None:
            ensure_rare(order).multi_leg = True
            return True
        return take_fill(order, event, entry)
    if event.event in REVISIONS:
        take_revision(order, event, entry)
    return False


def _take_sums(order: Order, event: Event, entry: Entry, is_duplicate: bool) -> None:
    """Hold what is known against what the broker counts (4.7)."""
    if is_multi_leg(order):
        return
    note_told(order, event)
    settle_surplus(order, entry)
    infer_missing(order, event, entry, is_duplicate)
    bust_inferred(order, entry)
    if entry.revises:
        settle_shortfall(order, entry)
    price_anew(order, entry)
    if event.event in REVISIONS:
        note_lines(order, event, entry)


def _report_overfill(order: Order, entry: Entry, quantity_before: Decimal | None, filled_before: Decimal) -> None:
    """Say so when more is filled than was ordered (4.6)."""
    quantity = get_quantity(order)
    changed = order.filled > filled_before or quantity != quantity_before
    if quantity is not None and order.filled - quantity > DUST and changed:
        entry.find("overfill", f"{plain(order.filled)} is filled of {plain(quantity)} ordered; every trade is kept")


def _take_time(order: Order, event: Event) -> None:
    """Move the least and the greatest `ts` of the order."""
    if is_older(order.updated_at, event.ts):
        order.updated_at = event.ts
    if is_older(event.ts, order.created_at):
        order.created_at = event.ts
