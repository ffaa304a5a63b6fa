"""Fills become trades, exactly once: format.md section 4.

Each function takes an order, an event and its entry, changes the order and writes trade lines. `_find_known` alone
decides whether a fill is new. An inferred trade stands for shares that a cumulative quantity tells of and no execution
so far (4.7 and 4.8): `infer` makes it, and `displace` takes it back when a real execution explains it.

Note: one execution may have several ids, because two sources name it differently (4.3). A fill that was taken back is
remembered, so that its duplicate is not taken again.
"""

from decimal import Decimal

from compactor.core.decimals import plain, quotient
from compactor.core.events import RETURNS_MAX, REVISIONS, Event
from compactor.core.fill_index import Fill
from compactor.core.instants import is_older
from compactor.core.orders import (
    DECIMAL,
    ZERO,
    Entry,
    Inferred,
    Order,
    Revision,
    ensure_rare,
    get_quantity,
    index_fills,
    is_multi_leg,
    is_tradable,
    sum_value,
)
from compactor.core.transitions import says_open


def infer_missing(order: Order, event: Event, entry: Entry, is_duplicate: bool) -> None:
    """Infer a trade where the event tells a cumulative quantity above the known fills, else report the gap (4.7)."""
    if event.filled_qty is None or is_duplicate or is_multi_leg(order):
        return
    reported, known = DECIMAL[event.filled_qty], order.filled
    if reported <= known:
        _report_behind(order, event, entry)
        return
    rare = ensure_rare(order)
    if rare.reduced_at is not None and is_older(event.ts, rare.reduced_at):
        return  # It still counts what a bust or a correction has taken back since.
    is_told = rare.told_qty is not None and reported <= DECIMAL[rare.told_qty]
    if not is_told:
        rare.told_qty = event.filled_qty
    if event.filled_avg_price is not None and not _is_told_apart(event):
        value = DECIMAL[event.filled_avg_price] * reported - sum_value(order)
        infer(order, reported - known, value, reported, event.ts, entry)
    elif not is_told:
        missing = plain(reported - known)
        detail = f"`filled_qty` {event.filled_qty} is above the known fills, {plain(known)}: {missing} is missing"
        entry.find("fill_gap", f"{detail}, and its own event or an average has to tell its price")


def _is_told_apart(event: Event) -> bool:
    """Whether the quantity is not the one after the event: beside a bust it may be that of before, and
    a `partial_fill` whose order is filled is told ahead of the fill that completes it."""
    return event.event in REVISIONS or (event.event == "partial_fill" and event.order_status == "filled")


def _report_behind(order: Order, event: Event, entry: Entry) -> None:
    if event.event != "snapshot" or (order.status != "" and is_older(event.ts, order.updated_at)):
        return
    if event.filled_qty is not None and DECIMAL[event.filled_qty] < order.filled:
        known = plain(order.filled)
        entry.find(
            "snapshot_behind", f"the broker reports `filled_qty` {event.filled_qty}, the known fills are {known}"
        )


def infer(order: Order, qty: Decimal, value: Decimal, told_qty: Decimal, ts: str, entry: Entry) -> None:
    """Write an inferred trade; `told_qty` is the cumulative quantity that tells of it."""
    if not is_tradable(order) and not entry.has("fill_without_terms"):
        entry.find("fill_without_terms", f"order {order.order_id} has no symbol and side yet; its trade waits for them")
    price = plain(quotient(value, qty))
    trade_id = entry.write(order, "inferred", plain(qty), price)
    ensure_rare(order).inferred.append(Inferred(trade_id, qty, value, price, told_qty, ts))
    order.filled += qty


def find_displaced(order: Order, event: Event, qty: Decimal) -> list[Inferred]:
    """Find the inferred trades that an execution explains (4.8)."""
    if order.rare is None or not order.rare.inferred:
        return []
    found: list[Inferred] = []
    for inferred in _order_by_fit(order.rare.inferred, event):
        if sum((one.qty for one in found), ZERO) >= qty:
            break
        found.append(inferred)
    return found


def _order_by_fit(inferred: list[Inferred], event: Event) -> list[Inferred]:
    """The first one whose quantity counts this execution, then those before it, then those after it; none where no
    quantity counts it."""
    if event.filled_qty is not None:
        reached = DECIMAL[event.filled_qty]
        counting = [one for one in inferred if one.snapshot_qty >= reached]
    else:
        counting = [one for one in inferred if not is_older(one.ts, event.ts)]
    if not counting:
        return []
    first = min(counting, key=lambda one: one.snapshot_qty)
    index = inferred.index(first)
    return [first, *reversed(inferred[:index]), *inferred[index + 1 :]]


def displace(order: Order, displaced: list[Inferred], entry: Entry) -> None:
    """Take inferred trades back, because an execution explains them."""
    for inferred in displaced:
        entry.write(order, "reversal", plain(-inferred.qty), inferred.price, reverses=inferred.trade_id)
        order.filled -= inferred.qty
    if displaced:
        rare = ensure_rare(order)
        rare.inferred = [one for one in rare.inferred if one not in displaced]


def infer_rest(order: Order, displaced: list[Inferred], qty: Decimal, value: Decimal, entry: Entry) -> None:
    """Infer again what an execution leaves unexplained of the trades that it displaced."""
    rest = sum((one.qty for one in displaced), ZERO) - qty
    if rest > 0:
        last = displaced[-1]
        rest_value = sum((one.value for one in displaced), ZERO) - value
        infer(order, rest, rest_value, last.snapshot_qty, last.ts, entry)


def take_fill(order: Order, event: Event, entry: Entry) -> bool:
    """Take a `fill` or `partial_fill` (or a leg of one); return False for one that is known (4.2 to 4.4)."""
    if event.qty is None:
        return _take_sum(order, event, entry)
    known = _find_known(order, event)
    if known is not None:
        _take_again(order, known, event, entry)
        return False
    assert event.price is not None
    qty = DECIMAL[event.qty]
    displaced = find_displaced(order, event, qty)
    filled_before = order.filled
    if not is_tradable(order):
        entry.find("fill_without_terms", f"order {order.order_id} has no symbol and side yet; its trade waits for them")
    displace(order, displaced, entry)
    if order.ended and order.filled + qty > filled_before:
        _report_late(order, event, entry, order.filled + qty)
    trade_id = entry.write(order, "fill", event.qty, event.price, event.execution_id)
    # A name with a NUL cannot be an execution id that an event brings by chance, since it counts as damage in a log.
    key = event.execution_id if event.execution_id is not None else f"\0{entry.stem}"
    fill = Fill(event.execution_id, event.qty, event.price, event.filled_qty, event.ts, event.source, trade_id)
    index_fills(order).add(key, fill)
    order.filled += qty
    if displaced:
        infer_rest(order, displaced, qty, DECIMAL[event.price] * qty, entry)
    _apply_waiting(order, key, entry)
    return True


def _take_sum(order: Order, event: Event, entry: Entry) -> bool:
    """Take a fill that tells its price and only the cumulative quantity: what is new of that has this price (4.4)."""
    assert event.filled_qty is not None and event.price is not None
    names = order.rare.names if order.rare is not None else {}
    is_known = event.execution_id is not None and names.get(event.execution_id, event.execution_id) in order.fills
    if is_multi_leg(order):
        return False
    told = DECIMAL[event.filled_qty]
    qty = told - order.filled
    reduced_at = order.rare.reduced_at if order.rare is not None else None
    if is_known or qty <= 0 or (reduced_at is not None and is_older(event.ts, reduced_at)):
        return False
    if order.ended:
        _report_late(order, event, entry, told)
    infer(order, qty, DECIMAL[event.price] * qty, told, event.ts, entry)
    return True


def _report_late(order: Order, event: Event, entry: Entry, filled: Decimal) -> None:
    """Report a fill after the end, or one that brings the fills above what was told; not one that was merely told later
    (3.4)."""
    if order.guessed and says_open(event) and event.quantity is not None and DECIMAL[event.quantity] >= filled:
        return  # The end was a wrong guess (3.3).
    quantity = get_quantity(order)
    told = DECIMAL[order.told_at_end] if order.told_at_end is not None else None
    if order.status == "filled" and quantity is not None:
        told = max(told, quantity) if told is not None else quantity
    is_beyond = (told is not None and filled > told) or (quantity is not None and filled > quantity)
    is_explained = told is not None and not is_beyond
    is_after = is_older(order.status_at, event.ts)
    is_at_the_end = not is_after and not is_older(event.ts, order.status_at)
    if is_after or is_beyond or (is_at_the_end and not is_explained):
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
        if event.filled_qty is None:
            return None
        # Rule 4.3, and 4.4 for a fill that has had no id so far.
        found = fills.find_untold(event.filled_qty, event.qty, event.price, event.source)
        return found if found is not None else _find_counted(order, event)
    if event.filled_qty is not None:
        return fills.find_by_quantity(event.filled_qty)
    return fills.find_nameless(event.ts, event.qty, event.price)


def _find_counted(order: Order, event: Event) -> str | None:
    """Find a fill of another source that told a cumulative quantity ahead of it (4.3).

    The broker counts fewer shares than there would be with one more fill, so the event tells of a fill that is known.
    """
    assert event.filled_qty is not None and event.qty is not None and event.price is not None
    rare, fills = order.rare, index_fills(order)
    if rare is not None and rare.inferred:
        return None
    own = DECIMAL[event.filled_qty]
    told = [own, fills.told]
    told += [DECIMAL[text] for text in (order.told_at_end, rare.told_qty if rare is not None else None) if text]
    if own > order.filled or order.filled + DECIMAL[event.qty] <= max(told):
        return None
    return fills.find_ahead(own, event.qty, event.price, event.source)


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
    if event.source != fill.source and event.source not in fill.told:
        fill.told = (*fill.told, event.source)
    if event.execution_id is not None and event.execution_id != key:
        ensure_rare(order).names[event.execution_id] = key
        fill.execution_id = fill.execution_id or event.execution_id
        _apply_waiting(order, key, entry)


# Busts and corrections.


def take_revision(order: Order, event: Event, entry: Entry) -> None:
    """Take a `trade_bust` or `trade_correct` (4.9), or keep it until its fill comes."""
    key = _find_named(order, event)
    if key is None:
        name = event.previous_execution_id or event.execution_id
        assert name is not None
        waiting = ensure_rare(order).waiting.setdefault(name, [])
        if all(revision.event != event.event for revision in waiting):
            waiting.append(_make_revision(event, name, entry))
        return
    _revise(order, key, _make_revision(event, key, entry), entry)


def _find_named(order: Order, event: Event) -> str | None:
    """The key of the execution that a revision names, if it is known."""
    names = order.rare.names if order.rare is not None else {}
    for name in (event.previous_execution_id, event.execution_id):
        if name is not None and names.get(name, name) in order.fills:
            return names.get(name, name)
    return None


def _make_revision(event: Event, name: str, entry: Entry) -> Revision:
    new_id = event.execution_id if event.execution_id != event.previous_execution_id else None
    return Revision(
        event.event, name, entry.offset, entry.length, event.ts, new_id, event.source, event.price, event.qty
    )


def _apply_waiting(order: Order, key: str, entry: Entry) -> None:
    """A fill has come (or got a further id): do what was waiting for any of its ids, at the place of the events that
    said so."""
    if order.rare is None or not order.rare.waiting:
        return
    ids = [key, *(name for name, named in order.rare.names.items() if named == key)]
    revisions = [revision for name in ids for revision in order.rare.waiting.pop(name, [])]
    for revision in sorted(revisions, key=lambda one: one.offset):
        own = Entry(revision.offset, revision.length, revision.ts, entry.team_id, entry.derived)
        _revise(order, key, revision, own)
        own.close()


def _revise(order: Order, key: str, revision: Revision, entry: Entry) -> None:
    corrects = revision.event == "trade_correct"
    if corrects and order.fills[key].version is not None:
        return  # A second correction of the same execution is a duplicate.
    while (version := order.fills[key].version) is not None:
        key = version
    fill = order.fills[key]
    if not fill.live:
        if corrects:
            entry.find(
                "correct_after_bust", f"execution {key!r} was busted before this correction of it; it stays busted"
            )
        return
    entry.write(order, "reversal", plain(-DECIMAL[fill.qty]), fill.price, fill.execution_id, reverses=fill.trade_id)
    order.filled -= DECIMAL[fill.qty]
    index_fills(order).retract(key)
    rare = ensure_rare(order)
    if rare.reduced_at is None or is_older(rare.reduced_at, revision.ts):
        rare.reduced_at = revision.ts
    if corrects:
        fill.version = _write_correction(order, fill, revision, entry)
    # After a bust the same cumulative quantity can be reached again by another execution (4.3).
    index_fills(order).forget_above(order.filled)
    if fill.version is not None:
        _apply_waiting(order, fill.version, entry)


def _write_correction(order: Order, fill: Fill, revision: Revision, entry: Entry) -> str:
    """Write the new version of a fill and return its key."""
    assert revision.price is not None and revision.qty is not None
    execution_id = revision.execution_id or fill.execution_id
    trade_id = entry.write(order, "correction", revision.qty, revision.price, execution_id, corrects=fill.trade_id)
    key = (
        revision.execution_id
        if revision.execution_id and revision.execution_id not in order.fills
        else f"\0{entry.stem}"
    )
    version = Fill(
        execution_id, revision.qty, revision.price, None, revision.ts, revision.source, trade_id, remembered=False
    )
    index_fills(order).add(key, version)
    order.filled += DECIMAL[revision.qty]
    return key


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
