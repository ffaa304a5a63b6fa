"""What the cumulative quantities of an order tell all together: how many shares the broker counts now (4.7).

Without a bust or a correction that is the greatest one. A bust lowers what comes after it, so that each quantity is
first brought to the present: the shares are taken off that were taken back after it was told.

Note: the fills keep the quantities that they told themselves. `note_told` notes only what else was told, and nothing of
a status event that tells no more than is known, which the compiled path takes.
"""

from bisect import insort
from decimal import Decimal
from itertools import chain, islice
from typing import NamedTuple

from compactor.core.events import REVISIONS, Event
from compactor.core.instants import nanos
from compactor.core.orders import (
    DECIMAL,
    ZERO,
    Order,
    Reduction,
    Revision,
    Statement,
    ensure_rare,
    get_quantity,
    index_fills,
)

BEGINNING = nanos("1900-01-01T00:00:00Z") - 1
REMEMBERED_MAX = 64
"""How many quantities that fell, and how many reductions, are remembered of one order."""


class Present(NamedTuple):
    """A quantity that was told, brought to the present, with its value at the broker's average if that was told."""

    qty: Decimal
    value: Decimal | None
    told: Decimal
    ts: str


def note_told(order: Order, event: Event) -> None:
    """Note a cumulative quantity that answers tell, or that is above the known fills."""
    if event.filled_qty is None or event.event in REVISIONS:
        return
    qty = DECIMAL[event.filled_qty]
    if not qty or (event.event != "snapshot" and qty <= order.filled):
        return
    statements = ensure_rare(order).statements
    at = nanos(event.ts)
    for one in statements:
        if nanos(one.ts) >= at and DECIMAL[one.qty] >= qty and (one.average is not None or not event.filled_avg_price):
            return
    kept = [one for one in statements if nanos(one.ts) > at or DECIMAL[one.qty] > qty]
    insort(kept, Statement(event.ts, event.filled_qty, event.filled_avg_price), key=_find_instant)
    ensure_rare(order).statements = kept[-REMEMBERED_MAX:]


def note_reduction(order: Order, ts: str, qty: Decimal, value: Decimal) -> None:
    """Note that trades of so many shares were taken back: a cumulative quantity of before counts them."""
    rare = ensure_rare(order)
    if rare.reduced_at is None or nanos(rare.reduced_at) < nanos(ts):
        rare.reduced_at = ts
    insort(rare.reductions, Reduction(ts, qty, value), key=_find_instant)
    if len(rare.reductions) > REMEMBERED_MAX:
        first, second = rare.reductions[:2]
        rare.reductions[:2] = [Reduction(first.ts, first.qty + second.qty, first.value + second.value)]


def _find_instant(one: Statement | Reduction) -> int:
    return nanos(one.ts)


def sum_reductions(order: Order, ts: str) -> tuple[Decimal, Decimal]:
    """The shares and the value that were taken back after an instant."""
    qty = value = ZERO
    at = nanos(ts)
    for one in order.rare.reductions if order.rare is not None else ():
        if nanos(one.ts) > at:
            qty, value = qty + one.qty, value + one.value
    return qty, value


def sum_busts(order: Order) -> Decimal:
    """The shares of busts that wait for their fills."""
    waiting = chain.from_iterable(order.rare.waiting.values()) if order.rare is not None else ()
    busts = (one for one in islice(waiting, REMEMBERED_MAX) if one.event == "trade_bust")
    return sum((abs(DECIMAL[one.qty]) for one in busts if one.qty is not None), ZERO)


def count_told(order: Order, event: Event | None = None) -> Decimal | None:
    """How many shares the broker counts now, by all that was told and by `event`; None where nothing tells."""
    return max((qty for _, qty in list_told(order, event)), default=None)


def count_executed(order: Order, event: Event | None = None) -> Decimal | None:
    """How many shares were executed at most: as many as the broker counts, and of what was told without a quantity no
    more than was ordered, even if it is stamped a little late."""
    return max((qty for _, qty in list_told(order, event, get_quantity(order))), default=None)


def count_without(told: list[tuple[int, Decimal]], bust: Revision) -> Decimal | None:
    """The same without the shares of a bust, from what `list_told` lists."""
    at, qty = nanos(bust.ts), abs(DECIMAL[bust.qty]) if bust.qty is not None else ZERO
    return max((reached - qty if one < at else reached for one, reached in told), default=None)


def list_told(order: Order, event: Event | None = None, quantity: Decimal | None = None) -> list[tuple[int, Decimal]]:
    """List the cumulative quantities that were told, each with its instant, brought to the present: with the executions
    that came later without a quantity, up to `quantity`, and without those that were taken back later."""
    fills, rare = index_fills(order), order.rare
    steps = list(fills.steps)
    if rare is not None:
        steps += [(nanos(one.ts), DECIMAL[one.qty]) for one in rare.statements]
    if order.told_at_end is not None:
        steps.append((nanos(order.status_at), DECIMAL[order.told_at_end]))
    reductions = [(nanos(one.ts), one.qty) for one in rare.reductions] if rare is not None else []
    silent = fills.silent + [(at, -qty) for at, qty in fills.merged]
    if event is not None and event.filled_qty is not None:
        steps.append((nanos(event.ts), DECIMAL[event.filled_qty]))
    elif event is not None and event.qty is not None:
        silent.append((nanos(event.ts), DECIMAL[event.qty]))
    if not reductions and not silent:
        return steps
    steps = sorted(steps, reverse=True)
    if not steps and quantity is not None:
        steps = [(BEGINNING, ZERO)]
    taken, added, present = _sum_after(steps, reductions), _sum_after(steps, silent), []
    for (at, qty), less, more in zip(steps, taken, added, strict=True):
        most = more if quantity is None else min(more, max(quantity - qty + less, ZERO))
        if fills.silent_until is None or fills.silent_until <= at:
            present.append((at, qty - less + most))
    return present


def _sum_after(steps: list[tuple[int, Decimal]], changes: list[tuple[int, Decimal]]) -> list[Decimal]:
    """What changed after each step; the steps come newest first."""
    changes.sort()
    sums, changed = [], ZERO
    for at, _qty in steps:
        while changes and changes[-1][0] > at:
            changed += changes.pop()[1]
        sums.append(changed)
    return sums


def find_newest_told(order: Order) -> Present | None:
    """The statement that counts most, the last of several, brought to the present."""
    best: Present | None = None
    for one in order.rare.statements if order.rare is not None else ():
        taken, value = sum_reductions(order, one.ts)
        told = DECIMAL[one.qty]
        is_equal = best is not None and told - taken == best.qty and one.average is not None
        if best is None or told - taken > best.qty or is_equal:
            worth = DECIMAL[one.average] * told - value if one.average is not None else None
            best = Present(told - taken, worth, told, one.ts)
    return best
