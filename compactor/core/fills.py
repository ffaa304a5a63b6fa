"""Fills become trades, exactly once: format.md section 4.

Each function takes an order, an event and its entry, changes the order and writes trade lines. Which fill is which is
decided by `_known_as` alone. Note: one execution may carry several ids, because two channels name it
differently (4.3), and a fill that is taken back stays in the memory, so that it is not taken again when it is
delivered once more.
"""

from decimal import Decimal

from compactor.core.decimals import plain, quotient
from compactor.core.entry import Entry, ensure_rare, is_tradable
from compactor.core.events import Event
from compactor.core.fill_index import Fill
from compactor.core.instants import is_older
from compactor.core.orders import DECIMAL, ZERO, Inferred, Order, Revision, index_fills, sum_value


def take_fill(order: Order, event: Event, entry: Entry) -> bool:
    """Take a `fill` or `partial_fill` (or a leg of one); False when it was known already (4.2 to 4.4)."""
    known = _known_as(order, event)
    if known is not None:
        _take_again(order, known, event, entry)
        return False
    if order.ended:
        entry.find("late_fill", f"a fill after order {order.order_id} was {order.status}; it is a trade all the same")
    if not is_tradable(order):
        entry.find("fill_without_terms", f"order {order.order_id} has no symbol and side yet; its trade waits for them")
    _add_fill(order, event, entry)
    return True


def _add_fill(order: Order, event: Event, entry: Entry) -> None:
    """Write a fill that is new, put it in the place of what was inferred, and do to it what was waiting for it."""
    assert event.qty is not None and event.price is not None
    qty = DECIMAL[event.qty]
    displaced = _displaced(order, event, qty)
    for inferred in displaced:
        entry.write(order, "reversal", plain(-inferred.qty), inferred.price, reverses=inferred.trade_id)
        order.filled -= inferred.qty
    trade_id = entry.write(order, "fill", event.qty, event.price, event.execution_id)
    # A name with a NUL cannot be an execution id that an event brings by chance, since it counts as damage in a log.
    key = event.execution_id if event.execution_id is not None else f"\0{entry.stem}"
    fill = Fill(event.execution_id, event.qty, event.price, event.filled_qty, event.ts, event.source, trade_id)
    index_fills(order).add(key, fill)
    order.filled += qty
    if displaced:
        _infer_rest(order, displaced, qty, DECIMAL[event.price] * qty, entry)
    _apply_waiting(order, key, entry)


# Which fill is it?


def _known_as(order: Order, event: Event) -> str | None:
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
        return fills.find_untold(event.filled_qty, event.qty, event.price, event.source)
    if event.filled_qty is not None:
        return fills.find_by_quantity(event.filled_qty)
    return fills.find_nameless(event.ts, event.qty, event.price)


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
            ("filled_qty", fill.filled_qty, event.filled_qty),
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


# What only a snapshot tells of.


def take_snapshot(order: Order, event: Event, entry: Entry) -> None:
    """Infer a trade for what the broker has filled and nobody told of (4.7)."""
    if event.filled_qty is None or (order.rare is not None and order.rare.multi_leg):
        return
    reported, known = DECIMAL[event.filled_qty], order.filled
    if reported < known:
        entry.find(
            "snapshot_behind", f"the broker reports `filled_qty` {event.filled_qty}, the known fills are {plain(known)}"
        )
    if reported <= known:
        return
    if event.filled_avg_price is None:
        found = f"`filled_qty` {event.filled_qty} is above the known {plain(known)}"
        entry.find("missing_field", f"{found}, but without `filled_avg_price` the difference has no price")
        return
    if not is_tradable(order):
        entry.find("fill_without_terms", f"order {order.order_id} has no symbol and side yet; its trade waits for them")
    value = DECIMAL[event.filled_avg_price] * reported - sum_value(order)
    _infer(order, reported - known, value, reported, event.ts, entry)


def _infer(order: Order, qty: Decimal, value: Decimal, snapshot_qty: Decimal, ts: str, entry: Entry) -> None:
    price = plain(quotient(value, qty))
    trade_id = entry.write(order, "inferred", plain(qty), price)
    ensure_rare(order).inferred.append(Inferred(trade_id, qty, value, price, snapshot_qty, ts))
    order.filled += qty


def _displaced(order: Order, event: Event, qty: Decimal) -> list[Inferred]:
    """Take the inferred trades that this execution explains out of the order (4.8)."""
    if order.rare is None or not order.rare.inferred:
        return []
    taken: list[Inferred] = []
    for inferred in _in_order_of_fit(order.rare.inferred, event):
        if sum((one.qty for one in taken), ZERO) >= qty:
            break
        taken.append(inferred)
    order.rare.inferred = [one for one in order.rare.inferred if one not in taken]
    return taken


def _in_order_of_fit(inferred: list[Inferred], event: Event) -> list[Inferred]:
    """The first snapshot that had seen this execution, then those before it, then those after; none if none had."""
    if event.filled_qty is not None:
        reached = DECIMAL[event.filled_qty]
        seen = [one for one in inferred if one.snapshot_qty >= reached]
    else:
        seen = [one for one in inferred if not is_older(one.ts, event.ts)]
    if not seen:
        return []
    first = min(seen, key=lambda one: one.snapshot_qty)
    place = inferred.index(first)
    return [first, *reversed(inferred[:place]), *inferred[place + 1 :]]


def _infer_rest(order: Order, displaced: list[Inferred], qty: Decimal, value: Decimal, entry: Entry) -> None:
    """Infer again what an execution has left unexplained of the trades that it displaced."""
    rest = sum((one.qty for one in displaced), ZERO) - qty
    if rest > 0:
        last = displaced[-1]
        rest_value = sum((one.value for one in displaced), ZERO) - value
        _infer(order, rest, rest_value, last.snapshot_qty, last.ts, entry)


# Busts and corrections.


def take_revision(order: Order, event: Event, entry: Entry) -> None:
    """Take a `trade_bust` or `trade_correct` (4.9), or keep it until its fill comes."""
    key = _named(order, event)
    if key is None:
        name = event.previous_execution_id or event.execution_id
        assert name is not None
        waiting = ensure_rare(order).waiting.setdefault(name, [])
        if all(revision.event != event.event for revision in waiting):
            waiting.append(_revision(event, name, entry))
        return
    _revise(order, key, _revision(event, key, entry), entry)


def _named(order: Order, event: Event) -> str | None:
    """The key of the execution that a revision names, if it is known."""
    names = order.rare.names if order.rare is not None else {}
    for name in (event.previous_execution_id, event.execution_id):
        if name is not None and names.get(name, name) in order.fills:
            return names.get(name, name)
    return None


def _revision(event: Event, name: str, entry: Entry) -> Revision:
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
    elif rare.away is not None:
        rare.away = None
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
