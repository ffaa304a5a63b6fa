"""Fills become trades, exactly once: format.md section 4.

Each function takes an order, an event and its entry, changes the order and writes trade lines. `_find_known` alone
decides whether a fill is new. What cumulative quantities tell is in `inference`, what busts take back in `corrections`.

Note: one execution may have several ids, because two sources name it differently (4.3). A fill that was taken back is
remembered, so that its duplicate is not taken again.
"""

from decimal import Decimal

from compactor.core.corrections import apply_waiting
from compactor.core.decimals import plain
from compactor.core.events import RETURNS_MAX, Event
from compactor.core.fill_index import NAMELESS, Fill
from compactor.core.inference import displace, find_displaced, infer, infer_rest, is_before_revision, is_order_ahead
from compactor.core.instants import is_older, nanos
from compactor.core.orders import (
    DECIMAL,
    Entry,
    Order,
    count_inferred,
    ensure_rare,
    get_quantity,
    index_fills,
    is_multi_leg,
    is_tradable,
)
from compactor.core.settling import merge_doubles
from compactor.core.told import count_executed, note_told, sum_busts, sum_reductions
from compactor.core.transitions import says_open


def take_fill(order: Order, event: Event, entry: Entry) -> bool:
    """Take a `fill` or `partial_fill` (or a leg of one); return False for one that is known (4.2 to 4.4)."""
    if event.qty is None:
        return _take_sum(order, event, entry)
    known = _find_known(order, event)
    if known is not None:
        _take_again(order, order.rare.names.get(known, known) if order.rare is not None else known, event, entry)
        return False
    assert event.price is not None
    qty = DECIMAL[event.qty]
    merge_doubles(order, entry, event, qty)
    displaced, explained = find_displaced(order, event, qty)
    filled_before = order.filled
    if not is_tradable(order):
        entry.find("fill_without_terms", f"order {order.order_id} has no symbol and side yet; its trade waits for them")
    displace(order, displaced, entry)
    if order.ended and order.filled + qty > filled_before:
        _report_late(order, event, entry, order.filled + qty)
    trade_id = entry.write(order, "fill", event.qty, event.price, event.execution_id)
    key = event.execution_id if event.execution_id is not None else f"{NAMELESS}{entry.stem}"
    fill = Fill(event.execution_id, event.qty, event.price, event.filled_qty, event.ts, event.source, trade_id)
    if is_order_ahead(event):
        fill.filled_qty, fill.told_ahead = None, event.filled_qty
    index_fills(order).add(key, fill)
    order.filled += qty
    if displaced:
        infer_rest(order, displaced, explained, DECIMAL[event.price] * explained, entry)
    counted = order.filled
    apply_waiting(order, key, entry)
    entry.taken_back = counted - order.filled
    return True


def _take_sum(order: Order, event: Event, entry: Entry) -> bool:
    """Take a fill that tells its price and only the cumulative quantity: what is new of that has this price (4.4)."""
    assert event.filled_qty is not None and event.price is not None
    names = order.rare.names if order.rare is not None else {}
    is_known = event.execution_id is not None and names.get(event.execution_id, event.execution_id) in order.fills
    if is_multi_leg(order):
        return False
    told = DECIMAL[event.filled_qty]
    qty = told - sum_reductions(order, event.ts)[0] - order.filled
    if is_known or qty <= 0:
        return False
    if order.ended:
        _report_late(order, event, entry, order.filled + qty)
    note_told(order, event)
    infer(order, qty, DECIMAL[event.price] * qty, told, event.ts, entry)
    return True


def _report_late(order: Order, event: Event, entry: Entry, filled: Decimal) -> None:
    """Report a fill after the end, or one that brings the fills above what was told; not one that was merely told later
    (3.4)."""
    if order.guessed and says_open(event) and event.quantity is not None and DECIMAL[event.quantity] >= filled:
        return  # The end was a wrong guess (3.3).
    quantity, rare = get_quantity(order), order.rare
    at_end = [DECIMAL[order.told_at_end]] if order.told_at_end is not None else []
    if order.status == "filled" and quantity is not None:
        at_end.append(quantity)
    later = [DECIMAL[rare.told_later]] if rare is not None and rare.told_later is not None else []
    told = max(at_end + later, default=None)
    expected = filled - sum_busts(order)
    is_beyond = (told is not None and expected > told) or (quantity is not None and expected > quantity)
    is_counted_by_end = bool(at_end) and filled <= max(at_end)
    is_after = is_older(order.status_at, event.ts)
    is_unexplained = told is None and not is_older(event.ts, order.status_at)
    if is_beyond or (not is_counted_by_end and (is_after or is_unexplained)):
        entry.find("late_fill", f"a fill after order {order.order_id} was {order.status}; it is a trade all the same")


# Which fill is it?


def _find_known(order: Order, event: Event) -> str | None:
    """The key of the fill that this event tells of again, or None where it is new."""
    assert event.qty is not None and event.price is not None
    fills = index_fills(order)
    if event.execution_id is not None:
        key = order.rare.names.get(event.execution_id, event.execution_id) if order.rare else event.execution_id
        if key in fills:
            return key
        found = _find_by_quantity(order, event) if event.filled_qty is not None else None
        return found or _find_unnamed(order, event) or _find_by_numbers(order, event)
    if event.filled_qty is not None and not is_order_ahead(event):
        known = fills.find_by_quantity(event.filled_qty)
        if known is None and is_before_revision(order, event):
            known = fills.find_by_quantity(event.filled_qty, forgotten=True)
        return known
    return fills.find_nameless(event.ts, event.qty, event.price) or _find_by_numbers(order, event)


def _find_by_quantity(order: Order, event: Event) -> str | None:
    """Find a fill that another source told with this cumulative quantity and these numbers (4.3), or one that has no id
    so far (4.4)."""
    assert event.filled_qty is not None and event.qty is not None and event.price is not None
    fills, told = index_fills(order), (event.qty, event.price, event.source)
    if is_order_ahead(event):
        return fills.find_behind(DECIMAL[event.filled_qty], *told)
    found = fills.find_untold(event.filled_qty, *told)
    if found is None and is_before_revision(order, event):
        found = fills.find_untold(event.filled_qty, *told, forgotten=True)
    if found is not None and nanos(fills[found].ts) != nanos(event.ts):
        # One of the same instant is nearer, whatever its order has told beside it.
        alike = fills.find_alike(*told, event.ts, dead=True)
        return alike if alike is not None and nanos(fills[alike].ts) == nanos(event.ts) else found
    return found or fills.find_told_ahead(DECIMAL[event.filled_qty], *told)


def _find_unnamed(order: Order, event: Event) -> str | None:
    """Find a fill of the same instant and numbers that came with neither an id nor a cumulative quantity (4.4)."""
    assert event.qty is not None and event.price is not None
    fills = index_fills(order)
    found = fills.find_nameless(event.ts, event.qty, event.price)
    return found if found is not None and fills[found].execution_id is None else None


def _find_by_numbers(order: Order, event: Event) -> str | None:
    """Find a fill of another source with these numbers where the broker counts fewer shares than there would be with
    one more; or one of the same instant where one more would take the place of an inferred trade (4.3)."""
    assert event.qty is not None and event.price is not None
    fills, numbers = index_fills(order), (event.qty, event.price, event.source)
    told, executed = count_executed(order, event), order.filled - count_inferred(order) + DECIMAL[event.qty]
    if told is not None and executed > told:
        return fills.find_alike(*numbers, event.ts, dead=is_before_revision(order, event))
    if order.filled >= executed and event.filled_qty is not None:
        return fills.find_ahead(*numbers, event.ts, DECIMAL[event.filled_qty], executed)
    return None


def _equal(one: str | None, other: str | None) -> bool:
    return one is not None and other is not None and DECIMAL[one] == DECIMAL[other]


def _take_again(order: Order, key: str, event: Event, entry: Entry) -> None:
    """A fill that is known: remember its further id and source; with other numbers the first ones stand (4.2)."""
    fill = order.fills[key]
    differs = [
        f"`{name}` {theirs} is known as {ours}"
        for name, ours, theirs in (
            ("qty", fill.qty, event.qty),
            ("price", fill.price, event.price),
            # Two sources may tell another quantity under their own names for one fill (4.3).
            ("filled_qty", fill.filled_qty, event.filled_qty if event.execution_id in (None, key) else None),
        )
        if ours is not None and theirs is not None and not _equal(ours, theirs)
    ]
    if differs:
        entry.find(
            "conflicting_fill",
            f"execution {event.execution_id or key!r} comes again: {', '.join(differs)}; the first stands",
        )
    if fill.execution_id is None and event.execution_id is not None:
        # A source tells of a fill when it names it; one that had no name may name it yet.
        index_fills(order).name(key, event.execution_id, event.source)
    if event.execution_id is not None and event.source != fill.source and event.source not in fill.told:
        fill.told = (*fill.told, event.source)
    if event.execution_id is not None and event.execution_id != key:
        ensure_rare(order).names[event.execution_id] = key
        apply_waiting(order, key, entry)


# Whose the order is.


def take_assignment(order: Order, event: Event, entry: Entry) -> None:
    """Take an `assigned` (4.12): the order's trades are taken back here, or written anew; nothing else about it
    changes."""
    rare = ensure_rare(order)
    if event.to_team is not None:
        if rare.away is None:
            _take_back(order, entry)
        rare.away = event.to_team
    elif rare.away is not None and rare.returns >= RETURNS_MAX:
        came = f"order {order.order_id} has come back {RETURNS_MAX} times, which is as often as an order may"
        entry.find("assigned_too_often", f"{came}; it stays with team {rare.away}")
    elif rare.away is not None:
        rare.away, rare.returns = None, rare.returns + 1
        _write_anew(order, entry)


def _take_back(order: Order, entry: Entry) -> None:
    rare = ensure_rare(order)
    if not is_tradable(order):
        rare.held = []  # What was held back never was a line.
        return
    for fill in order.fills.values():
        if fill.live:
            quantity = plain(-DECIMAL[fill.qty])
            entry.write(order, "reversal", quantity, fill.price, fill.execution_id, reverses=fill.trade_id)
    for inferred in rare.inferred:
        entry.write(order, "reversal", plain(-inferred.qty), inferred.price, reverses=inferred.trade_id)


def _write_anew(order: Order, entry: Entry) -> None:
    """What stands of the order as lines of their own, at the times at which it happened."""
    for fill in order.fills.values():
        if fill.live:
            fill.trade_id = entry.write(order, "fill", fill.qty, fill.price, fill.execution_id, ts=fill.ts)
    for inferred in ensure_rare(order).inferred:
        inferred.trade_id = entry.write(order, "inferred", plain(inferred.qty), inferred.price, ts=inferred.ts)
