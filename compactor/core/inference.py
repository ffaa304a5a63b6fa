"""Trades inferred from cumulative quantities (4.7), and the executions that take their place (4.8).

An inferred trade stands for shares that a cumulative quantity tells of and no execution so far: `infer` makes it, and
`displace` takes it back when a real execution explains it.
"""

from decimal import Decimal
from itertools import islice
from operator import attrgetter

from compactor.core.decimals import DUST, plain, quotient
from compactor.core.events import REVISIONS, Event
from compactor.core.instants import is_older
from compactor.core.orders import (
    DECIMAL,
    ZERO,
    Entry,
    Inferred,
    Order,
    Rare,
    ensure_rare,
    index_fills,
    is_tradable,
    sum_value,
)
from compactor.core.told import Present, count_told, find_newest_told, sum_reductions

WAITING_MAX = 64
"""How many executions whose revisions wait for them are looked at when a trade is inferred or explained."""


def infer_missing(order: Order, event: Event, entry: Entry, is_duplicate: bool) -> None:
    """Infer a trade where the event tells a cumulative quantity above the known fills, else report the gap (4.7)."""
    if event.filled_qty is None or is_duplicate:
        return
    told, known = DECIMAL[event.filled_qty], order.filled
    # The quantity still counts what was taken back after it.
    taken_back, value_taken_back = sum_reductions(order, event.ts)
    reported = told - max(taken_back, entry.taken_back)
    if reported <= known:
        _report_behind(order, event, entry)
        return
    rare = ensure_rare(order)
    is_told = rare.told_qty is not None and told <= DECIMAL[rare.told_qty]
    if not is_told:
        rare.told_qty = event.filled_qty
    average = event.filled_avg_price
    if average is not None and not is_told_apart(event) and taken_back >= entry.taken_back:
        value = DECIMAL[average] * told - value_taken_back - sum_value(order)
        infer(order, reported - known, value, told, event.ts, entry)
    elif not is_told and not (entry.revises and _is_settled(order, reported)):
        report_gap(event.filled_qty, reported, known, entry)


def _is_settled(order: Order, qty: Decimal) -> bool:
    """Whether so many shares were told in such a way that they are inferred or reported after the revisions of an
    event."""
    newest = find_newest_told(order)
    if newest is None or newest.qty < qty:
        return False
    return newest.value is not None or not is_before_revision(order, newest)


def report_gap(told: str, reported: Decimal, known: Decimal, entry: Entry) -> None:
    """Report shares that only a sum without a price tells of; what floats leave over is none."""
    if reported - known <= DUST:
        return
    detail = f"`filled_qty` {told} is above the known fills, {plain(known)}: {plain(reported - known)} is missing"
    entry.find("fill_gap", f"{detail}, and its own event or an average has to tell its price")


def is_told_apart(event: Event) -> bool:
    """Whether the quantity is not the one after the event: beside a bust it may be that of before, and beside
    a `partial_fill` it is that of an order which is ahead of it."""
    return event.event in REVISIONS or is_order_ahead(event)


def is_order_ahead(event: Event) -> bool:
    """Whether a `partial_fill` tells the sums of its order, and that is filled already. An activity tells a quantity of
    its own, which is less than the whole."""
    if event.event != "partial_fill" or event.order_status != "filled" or event.filled_qty is None:
        return False
    is_whole = event.quantity is not None and DECIMAL[event.filled_qty] >= DECIMAL[event.quantity]
    return is_whole or event.filled_avg_price is not None


def _report_behind(order: Order, event: Event, entry: Entry) -> None:
    if event.event != "snapshot" or (order.status != "" and is_older(event.ts, order.updated_at)):
        return
    if event.filled_qty is not None and DECIMAL[event.filled_qty] < order.filled:
        known = plain(order.filled)
        entry.find(
            "snapshot_behind", f"the broker reports `filled_qty` {event.filled_qty}, the known fills are {known}"
        )


def infer(order: Order, qty: Decimal, value: Decimal, told_qty: Decimal, ts: str, entry: Entry) -> None:
    """Write an inferred trade; `told_qty` is the cumulative quantity that tells of it. What floats leave over of a sum
    is none."""
    if qty <= DUST:
        return
    if not is_tradable(order) and not entry.has("fill_without_terms"):
        entry.find("fill_without_terms", f"order {order.order_id} has no symbol and side yet; its trade waits for them")
    price = plain(quotient(value, qty))
    trade_id = entry.write(order, "inferred", plain(qty), price)
    index_fills(order).note_inferred(qty, value)
    ensure_rare(order).inferred.append(Inferred(trade_id, qty, value, price, told_qty, ts))
    order.filled += qty


def find_displaced(order: Order, event: Event, qty: Decimal) -> tuple[list[Inferred], Decimal]:
    """Find the inferred trades that an execution explains (4.8), and how many of its shares they are."""
    if order.rare is None or not order.rare.inferred:
        return [], ZERO
    found: list[Inferred] = []
    left = qty
    explained = _list_explained(order, event)
    for inferred in _order_by_fit(explained, event, order.rare):
        if left <= 0:
            break
        found.append(inferred)
        left -= inferred.qty
    left = max(left, ZERO)
    if event.filled_qty is not None and event.execution_id not in order.rare.waiting:
        # Whatever its quantity fits, there are no more shares than the broker counts.
        told = count_told(order, event)
        surplus = min(left, order.filled + left - told) if told is not None else ZERO
        for inferred in sorted(explained, key=attrgetter("snapshot_qty")):
            if surplus > 0 and inferred not in found:
                found.append(inferred)
                taken = min(surplus, inferred.qty)
                surplus, left = surplus - taken, left - taken
    return found, qty - left


def _list_explained(order: Order, event: Event) -> list[Inferred]:
    """The inferred trades that may count an execution: not what was told after a bust of it, nor what its bust has
    been taken out of."""
    assert order.rare is not None
    inferred = order.rare.inferred
    for revision in order.rare.waiting.get(event.execution_id, ()) if event.execution_id is not None else ():
        if revision.event == "trade_bust":
            inferred = [one for one in inferred if not revision.is_inferred and is_older(one.ts, revision.ts)]
    return inferred


def _order_by_fit(inferred: list[Inferred], event: Event, rare: Rare) -> list[Inferred]:
    """The first one whose quantity counts this execution, then those before it, then those after it; none where no
    quantity counts it. Two quantities are not comparable where a bust or a correction lies between them."""
    if event.filled_qty is not None:
        reached = DECIMAL[event.filled_qty]
        told = (revision.ts for waiting in islice(rare.waiting.values(), WAITING_MAX) for revision in waiting)
        reductions = [ts for ts in (rare.reduced_at, *told) if ts is not None and is_older(event.ts, ts)]
        counting = [
            one for one in inferred if one.snapshot_qty >= reached or any(not is_older(one.ts, ts) for ts in reductions)
        ]
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
        index_fills(order).note_inferred(-inferred.qty, -inferred.value)
    if displaced:
        rare = ensure_rare(order)
        rare.inferred = [one for one in rare.inferred if one not in displaced]


def infer_rest(order: Order, displaced: list[Inferred], qty: Decimal, value: Decimal, entry: Entry) -> None:
    """Infer again what an execution leaves unexplained of the trades that it displaced: all but so many shares of such
    a value."""
    rest = sum((one.qty for one in displaced), ZERO) - qty
    if rest > 0:
        last = displaced[-1]
        rest_value = sum((one.value for one in displaced), ZERO) - value
        infer(order, rest, rest_value, last.snapshot_qty, last.ts, entry)


def is_before_revision(order: Order, event: Event | Present) -> bool:
    """Whether an event, or what was told, is older than a bust or a correction that changed a trade, so that it does
    not count it yet."""
    return order.rare is not None and order.rare.reduced_at is not None and is_older(event.ts, order.rare.reduced_at)
