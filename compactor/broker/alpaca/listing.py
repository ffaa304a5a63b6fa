"""Read many orders, or the executions of many, by lists of the time around them instead of one request for each.

Note: the list of open orders lacks legs that are held (reports of users, 2026). They are nested in the lists of all
orders, which are read only around the times of orders that have a family.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from compactor.broker.alpaca.rest import ACTIVITIES_PAGE, AlpacaRest
from compactor.broker.port import BrokerError, RateLimited
from compactor.core.instants import BadInstant, nanos, rfc3339

REPLACED_MAX = 5
"""So many replacements of an exit are followed back to the time of its family."""
MARGIN_NS = 60 * 10**9


def list_families(rest: AlpacaRest, orders: Iterable[Any]) -> list[Any]:
    """The families of some open orders, nested: only a nested list has legs that are held, and whose legs they are.

    An exit that replaces another one was submitted later than its family, so the first one of them is looked for.
    """
    times: dict[str, str] = {}
    for order in orders:
        if order.get("order_class") in ("", "simple", None):
            continue
        first = order
        for _ in range(REPLACED_MAX):
            if not first.get("replaces") or (earlier := _read_earlier(rest, str(first["replaces"]))) is None:
                break
            first = earlier
        at = first.get("submitted_at") or first.get("created_at")
        if isinstance(at, str):
            times[str(order.get("id"))] = at
    return list_around(rest, times)


def _read_earlier(rest: AlpacaRest, order_id: str) -> Any | None:
    """An order that was replaced; None where it cannot be read: one order that is not answered fails no list."""
    try:
        return rest.order(order_id)
    except RateLimited:
        raise
    except BrokerError:
        return None


def list_around(rest: AlpacaRest, wanted: Mapping[str, str]) -> list[Any]:
    """The orders of `wanted` (by id, with the time of each) and their families, by as few pages as there can be.

    Each page begins at the earliest order that none had yet. Of other orders nothing is kept.
    """
    missing = sorted(wanted.items(), key=lambda one: _read_instant(one[1]))
    found: dict[str, Any] = {}
    while missing:
        (order_id, at), *missing = missing
        seen = {order_id}
        for order in rest.orders_page(at):
            members = {str(one.get("id")) for one in (order, *(order.get("legs") or ())) if isinstance(one, dict)}
            seen |= members
            if members & wanted.keys() or any(_is_held(leg) for leg in order.get("legs") or ()):
                found[str(order.get("id"))] = order
        missing = [one for one in missing if one[0] not in seen]
    return list(found.values())


def _is_held(leg: Any) -> bool:
    return isinstance(leg, dict) and leg.get("status") == "held"


def list_fills_around(rest: AlpacaRest, orders: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The activities from when some orders (as events) were placed until they changed last; no more than pay off."""
    pages, found = max(1, len(orders) // 2), list[Any]()
    for since, until in merge_spans([(order.get("created_at"), order["ts"]) for order in orders]):
        if pages <= 0:
            break
        part = rest.fills(since, until=until, pages_max=pages)
        pages -= 1 + len(part) // ACTIVITIES_PAGE
        found += part
    return found


def merge_spans(spans: Iterable[tuple[Any, Any]]) -> list[tuple[str, str]]:
    """Spans of time as few as possible, a minute wider on both sides; one that cannot be read is left out."""
    merged: list[list[int]] = []
    for since, until in sorted((_read_instant(since), _read_instant(until)) for since, until in spans):
        first, last = since - MARGIN_NS, until + MARGIN_NS
        if first <= 0:
            continue
        if merged and first <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], last)
        else:
            merged.append([first, last])
    return [(rfc3339(first), rfc3339(last)) for first, last in merged]


def _read_instant(text: Any) -> int:
    try:
        return nanos(text)
    except (BadInstant, TypeError):
        return 0
