"""Bring the trades of an order in line with what the broker counts, once messages together say more than one alone.

Two sources may name one execution differently, and a sum may be ahead of its fill. What looked like two executions
turns out to be one when there are more shares than the broker counts (4.3), and what a bust took away may be known
under another id (4.9).
"""

from collections.abc import Iterator
from decimal import Decimal
from itertools import chain, islice

from compactor.core.corrections import apply_waiting
from compactor.core.decimals import plain
from compactor.core.events import Event
from compactor.core.fill_index import Fill
from compactor.core.inference import WAITING_MAX, displace, infer, is_before_revision, report_gap
from compactor.core.instants import is_older
from compactor.core.orders import (
    DECIMAL,
    Entry,
    Order,
    Revision,
    count_inferred,
    ensure_rare,
    index_fills,
    sum_value,
)
from compactor.core.told import count_executed, count_told, count_without, find_newest_told, list_told

AVERAGE_STEP = Decimal("0.000001")
"""What is left of an average by rounding: brokers tell six places."""


def merge_doubles(order: Order, entry: Entry, event: Event | None = None, qty: Decimal | None = None) -> None:
    """Take fills back that are known twice, as far as there are more executions than the broker counts; with those of
    `event`, which brings a new one of so many shares."""
    if len(order.fills) < 2:
        return
    told = count_executed(order, event)
    if told is None:
        return
    while (surplus := order.filled - count_inferred(order) + (qty or 0) - told) > 0:
        found = index_fills(order).find_double(surplus, order.rare.reduced_at if order.rare is not None else None)
        if found is None:
            return
        _merge(order, *found, entry)


def _merge(order: Order, key: str, double: str, entry: Entry) -> None:
    """Take the double of a fill back; its ids are further names of the fill."""
    fill, other, names = order.fills[key], order.fills[double], ensure_rare(order).names
    entry.write(order, "reversal", plain(-DECIMAL[other.qty]), other.price, other.execution_id, reverses=other.trade_id)
    order.filled -= DECIMAL[other.qty]
    index_fills(order).merge(double)
    fill.told = (*fill.told, other.source, *other.told)
    fill.execution_id = fill.execution_id or other.execution_id
    names |= {name: key for name, named in names.items() if named == double} | {double: key}


def settle_surplus(order: Order, entry: Entry) -> None:
    """Take back what is more than the broker counts: fills that are known twice, fills that a bust names by another id,
    and inferred trades."""
    if order.rare is not None:
        _revise_by_numbers(order, entry)
    merge_doubles(order, entry)
    if order.rare is None or not order.rare.inferred:
        return
    told = count_told(order)
    if told is None or order.filled <= told:
        return
    found, left = [], order.filled - told
    for inferred in sorted(order.rare.inferred, key=lambda one: one.snapshot_qty):
        if left > 0:
            found.append(inferred)
            left -= inferred.qty
    displace(order, found, entry)
    if found and left < 0:
        last, newest = found[-1], find_newest_told(order)
        value = DECIMAL[last.price] * -left
        if newest is not None and newest.value is not None and newest.qty == order.filled - left:
            value = newest.value - sum_value(order)
        infer(order, -left, value, last.snapshot_qty, last.ts, entry)


def _revise_by_numbers(order: Order, entry: Entry) -> None:
    """Apply revisions that wait to fills which another source told, where the broker counts so many shares less since,
    or so much less or more money."""
    assert order.rare is not None
    waiting = list(chain.from_iterable(islice(order.rare.waiting.values(), WAITING_MAX)))
    if not waiting:
        return
    told = list_told(order)
    corrections = {one.execution_id: one for one in waiting if one.event == "trade_correct"}
    for revision in waiting:
        if revision.event == "trade_bust":
            # A bust may name what a correction has made of the fill, and that may wait too.
            first = corrections.get(revision.names, revision)
            in_all = count_told(order) if revision.is_inferred else count_without(told, revision)
            key = _find_busted(order, first, revision, in_all)
        else:
            first, key = revision, _find_corrected(order, revision)
        if key is not None:
            ensure_rare(order).names[first.names] = key
            apply_waiting(order, key, entry)
            told = list_told(order)


def _find_busted(order: Order, first: Revision, bust: Revision, told: Decimal | None) -> str | None:
    """The fill that a bust with its own numbers takes back, if the broker, who counts `told`, counts so many less than
    is known; `first` is the first revision of that fill."""
    if bust.qty is None or bust.price is None:
        return None
    qty = abs(DECIMAL[bust.qty])
    if told is None or order.filled - told < qty:
        return None
    for key, fill in _list_named_by_others(order, first):
        if DECIMAL[fill.qty] == qty and (first is not bust or DECIMAL[fill.price] == DECIMAL[bust.price]):
            return key
    return None


def _list_named_by_others(order: Order, revision: Revision) -> Iterator[tuple[str, Fill]]:
    """The fills of before a revision that its source has not named, of the last ones."""
    for key in islice(reversed(order.fills), WAITING_MAX):
        fill = order.fills[key]
        is_named = revision.source in (fill.source, *fill.told)
        if fill.live and not fill.is_version and not is_named and not is_older(revision.ts, fill.ts):
            yield key, fill


def _find_corrected(order: Order, revision: Revision) -> str | None:
    """The fill whose correction explains what the broker's average was since."""
    newest = find_newest_told(order)
    if newest is None or newest.value is None or is_older(newest.ts, revision.ts) or count_inferred(order):
        return None
    assert revision.price is not None and revision.qty is not None
    qty, value = newest.qty - order.filled, newest.value - sum_value(order)
    rounding = newest.told * AVERAGE_STEP
    if abs(value) <= rounding:
        return None
    new_qty, new_value = DECIMAL[revision.qty], DECIMAL[revision.qty] * DECIMAL[revision.price]
    for key, fill in _list_named_by_others(order, revision):
        change = new_value - DECIMAL[fill.qty] * DECIMAL[fill.price]
        if new_qty - DECIMAL[fill.qty] == qty and abs(change - value) <= rounding:
            return key
    return None


def settle_shortfall(order: Order, entry: Entry) -> None:
    """Infer what the broker counts and nothing tells of, once a bust or a correction has lowered what is known."""
    newest = find_newest_told(order)
    if newest is None or newest.qty <= order.filled:
        return
    if newest.value is not None:
        infer(order, newest.qty - order.filled, newest.value - sum_value(order), newest.told, newest.ts, entry)
    elif not is_before_revision(order, newest):
        report_gap(plain(newest.told), newest.qty, order.filled, entry)


def price_anew(order: Order, entry: Entry) -> None:
    """Infer trades anew where the newest average of the broker gives them another value."""
    rare = order.rare
    if rare is None or not rare.inferred:
        return
    newest, qty = find_newest_told(order), count_inferred(order)
    if newest is None or newest.value is None or newest.qty != order.filled:
        return
    if abs(newest.value - sum_value(order)) > newest.told * AVERAGE_STEP:
        displace(order, list(rare.inferred), entry)
        infer(order, qty, newest.value - sum_value(order), newest.told, newest.ts, entry)
