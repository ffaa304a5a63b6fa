"""How an event changes the status of its order: format.md section 3, from the table in `lifecycle`.

`take_status` runs after the event's terms and fills were taken.

Note: the sum of the fills ends an order too, but only as a guess, which the broker's own word overrules. A later
snapshot brings an ended order back.
"""

from decimal import Decimal

from compactor.core.decimals import plain
from compactor.core.events import FILLS, REVISIONS, Event, UnknownEvent
from compactor.core.instants import is_older
from compactor.core.lifecycle import LIFE, OPEN, REQUESTS, TERMINAL, Effect
from compactor.core.orders import DECIMAL, Entry, Order, ensure_rare, find_told_sum, get_quantity


def take_status(order: Order, event: Event, entry: Entry, fresh: bool, quantity_before: Decimal | None) -> None:
    """Decide the status. `fresh` says whether the event told of a new execution."""
    _report_unknown(event, entry)
    if order.ended:
        if not _reopen(order, event, entry, fresh, quantity_before):
            _take_after_end(order, event, entry)
        return
    ended_as = _find_end(order, event)
    if ended_as is not None:
        end_order(order, event, *ended_as)
        return
    _take_open_status(order, event, entry, _find_open_status(order, event, fresh))


def end_order(order: Order, event: Event, status: str, is_guess: bool) -> None:
    """End an order by an event; a guess is an end that only the sum of the fills tells of (3.3)."""
    order.status, order.ended, order.status_at = status, True, event.ts
    order.guessed, order.told_at_end = is_guess, event.filled_qty


def says_open(event: Event) -> bool:
    """Whether the broker reports an open status beside the event; a status that is unknown counts as open (3.7)."""
    return event.order_status is not None and event.order_status not in TERMINAL


# Open orders.


def _find_end(order: Order, event: Event) -> tuple[str, bool] | None:
    """The terminal status that this event gives the order, and whether it is a guess; None where the order stays open
    (3.3, 3.8, 3.10)."""
    row = LIFE.get(event.event)
    stays_open = _is_said_to_go_on(order, event)
    if row is not None and row.effect is Effect.ENDS and not (event.event == "fill" and stays_open):
        assert row.status is not None
        return row.status, False
    if event.order_status in TERMINAL:
        assert event.order_status is not None
        return event.order_status, False
    if not is_complete(order, event):
        return None
    if stays_open:
        ensure_rare(order).still_open_at = order.filled
        return None
    if order.rare is not None and order.rare.still_open_at is not None and order.filled <= order.rare.still_open_at:
        return None
    return (row.status if row is not None and row.status and row.effect is Effect.COMPLETES else "filled"), True


def is_complete(order: Order, event: Event) -> bool:
    """Whether the known fills reach the quantity, and nothing that was told says that they are too many (3.3)."""
    quantity = get_quantity(order)
    if quantity is None or order.filled < quantity:
        return False
    if event.event == "calculated":
        return True
    # A notional order ends by its own word; and where every fill told a sum, the greatest of them is what is filled.
    is_notional = order.terms is not None and order.terms.notional is not None
    told = find_told_sum(order)
    return not is_notional and (told is None or told >= quantity)


def _is_said_to_go_on(order: Order, event: Event) -> bool:
    """Whether the event itself says that the order is open and not filled (3.3): an open status beside a quantity above
    the known fills, or a newest answer about this order whose own numbers leave a part open."""
    if not says_open(event):
        return False
    if event.quantity is not None and DECIMAL[event.quantity] > order.filled:
        return True
    if event.event != "snapshot" or event.order_status == "calculated":
        return False
    quantity = get_quantity(order)
    is_told_whole = quantity is not None and event.filled_qty is not None and DECIMAL[event.filled_qty] >= quantity
    return not is_told_whole and (order.status == "" or not is_older(event.ts, order.updated_at))


def _take_open_status(order: Order, event: Event, entry: Entry, status: str | None) -> None:
    if order.status == "":
        order.status = status or "new"
    elif status is None or is_older(event.ts, order.status_at):
        return
    elif status != order.status:
        if status in REQUESTS and order.status not in REQUESTS:
            order.before = order.status  # A rejection returns to it (3.6).
        order.status = status
    order.status_at = event.ts
    if status == "calculated":
        detail = f"`calculated` with {plain(order.filled)} filled, which is not known to be all; the order stays open"
        entry.find("calculated_open", detail)


def _find_open_status(order: Order, event: Event, fresh: bool) -> str | None:
    """The open status that this event asks for; None where it asks for none."""
    row = LIFE["partial_fill"] if event.event == "fill" else LIFE.get(event.event)
    if row is None:
        return event.event
    if row.effect is Effect.FILLS:
        # A fill that is known already brings no status back.
        return row.status if fresh and order.status not in REQUESTS else order.status or row.status
    if row.effect is Effect.RETURNS:
        before = order.before if order.status in REQUESTS else None
        return event.order_status or before or order.status or None
    if row.effect is Effect.REPORTS:
        return event.order_status
    if row.effect is Effect.KEEPS:
        return event.order_status if order.status == "" else None
    return row.status


# Ended orders (3.4).


def _reopen(order: Order, event: Event, entry: Entry, fresh: bool, quantity_before: Decimal | None) -> bool:
    """Open an ended order again where the broker's newest answer says that it is open, or where its end was a guess
    that the event shows to be wrong; whether that happened."""
    is_answer = event.event == "snapshot" and says_open(event) and is_older(order.updated_at, event.ts)
    if is_answer:
        if event.order_status == "calculated" and _is_all_filled(order):
            return False
    elif not (order.guessed and _shows_wrong_guess(order, event, quantity_before)):
        return False
    was = order.status
    ensure_rare(order).told_later = None
    order.ended, order.guessed, order.told_at_end, order.before = False, False, None, None
    order.status = "partially_filled" if order.filled else "new"
    ensure_rare(order).still_open_at = order.filled
    status = _find_open_status(order, event, fresh) or order.status
    order.status_at = event.ts
    _take_open_status(order, event, entry, status)
    detail = f"the broker reports order {order.order_id} as {order.status} after it was {was}; it is pending again"
    entry.find("reopened", detail)
    return True


def _shows_wrong_guess(order: Order, event: Event, quantity_before: Decimal | None) -> bool:
    """Whether the event says that more was ordered than the fills that ended the order."""
    if event.order_status in TERMINAL or event.event in REVISIONS:
        return False
    row = LIFE.get(event.event)
    if row is not None and row.effect is Effect.ENDS and event.event != "fill":
        return False
    if says_open(event) and event.quantity is not None and DECIMAL[event.quantity] > order.filled:
        return True
    quantity = get_quantity(order)
    was_raised = quantity is not None and quantity_before is not None and quantity > quantity_before
    return was_raised and quantity is not None and quantity > order.filled and event.event != "fill"


def _take_after_end(order: Order, event: Event, entry: Entry) -> None:
    """An ended order stays ended; what the broker says of it later is noted, and reported where it sounds alive."""
    row = LIFE.get(event.event)
    ends = (row is not None and row.effect is Effect.ENDS) or event.order_status in TERMINAL
    if not is_older(event.ts, order.status_at):
        if order.guessed and ends:
            order.guessed, order.status_at = False, event.ts
        rare = order.rare
        told = (rare.told_later if rare is not None else None) or order.told_at_end
        if event.filled_qty is not None and (told is None or DECIMAL[event.filled_qty] > DECIMAL[told]):
            ensure_rare(order).told_later = event.filled_qty
    if event.event in (*FILLS, *REVISIONS) or ends or not is_older(order.updated_at, event.ts):
        return
    status = event.order_status or (row.status if row is not None else event.event)
    if status == "calculated" and _is_all_filled(order):
        return  # What is settled of it is computed (3.8).
    if status is not None and not isinstance(event, UnknownEvent):
        detail = f"the broker reports order {order.order_id} as {status} after it was {order.status}"
        entry.find("alive_after_end", f"{detail}; it stays ended until a snapshot says that it is open")


def _is_all_filled(order: Order) -> bool:
    quantity = get_quantity(order)
    return quantity is not None and order.filled >= quantity


def _report_unknown(event: Event, entry: Entry) -> None:
    """Report a name that nobody has heard of; it ends nothing (3.7)."""
    if isinstance(event, UnknownEvent):
        entry.find("unknown_status", f"nobody has heard of the event {event.event!r}; it ends nothing")
    elif event.order_status is not None and event.order_status not in OPEN and event.order_status not in TERMINAL:
        entry.find("unknown_status", f"nobody has heard of the status {event.order_status!r}; it ends nothing")
