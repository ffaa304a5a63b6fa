"""Find busts and corrections that the stream did not tell, from the activities of an order.

`executions` decides when to look. Note: a list of activities is believed only where its quantities add up to the filled
quantity of the order, because an activity that is merely late would otherwise look like a bust.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from decimal import Decimal
from itertools import chain, count
from operator import itemgetter
from typing import Any

from compactor.broker.port import Fields, content_digest
from compactor.core.decimals import parse_decimal, plain, quotient

Numbers = tuple[Decimal, Decimal]
"""Quantity and price."""
StandingTrade = tuple[str | None, Decimal, Decimal]
"""The id of its execution, its quantity and its price."""
Standing = dict[str, StandingTrade]


def plan_revisions(order: Fields, fills: Iterable[Fields], standing: Standing, known_ids: set[str]) -> list[Fields]:
    """The events that make the executions that stand in the ledger those among the activities, all of which are given.

    A trade that is not among them and an activity that is not among the trades are one execution that was corrected,
    as far as there are both; else a bust, or a fill. Nothing where a trade without an id would have to be busted.
    """
    gone, new = _differing(fills, standing)
    if any(execution_id is None for execution_id, _, _ in gone):
        return []
    events = []
    for fill, old in _pair(new, gone):
        execution_id = _new_name(fill, known_ids)
        if old is not None:
            gone.remove(old)
            corrected = {"previous_execution_id": old[0], "execution_id": execution_id}
            numbers_told = {name: fill[name] for name in ("qty", "price")}
            events.append(_revision("trade_correct", order, {**corrected, **numbers_told, "raw": fill.get("raw")}))
        else:
            events.append(fill if execution_id == fill["execution_id"] else _call(fill, execution_id))
    busts = [_revision("trade_bust", order, {"previous_execution_id": execution_id}) for execution_id, _, _ in gone]
    return busts + events


def rename(fill: Fields, known_ids: Collection[str]) -> Fields:
    """An execution under a name of its own, which no other source has told."""
    return _call(fill, next(one for one in _name_versions(fill) if one not in known_ids))


def _call(fill: Fields, execution_id: str) -> Fields:
    # An event of its own: under the activity's id it would be the earlier version, delivered once more.
    return {**fill, "execution_id": execution_id, "event_id": content_digest([fill["event_id"], execution_id])}


def take_inferred_back(order: Fields, at: str, qty: Decimal, value: Decimal) -> Fields:
    """The bust of shares that were inferred, and that the broker does not count any more: their execution was taken
    back before anybody told of it. So it has a name of its own here, and takes its shares by its numbers (4.9)."""
    numbers = {"qty": plain(-qty), "price": plain(quotient(value, qty))}
    name = content_digest([order["order_id"], "unheard", at, numbers["qty"]])
    return _revision("trade_bust", order, {"ts": at, "previous_execution_id": name, **numbers})


def _differing(fills: Iterable[Fields], standing: Standing) -> tuple[list[StandingTrade], list[Fields]]:
    """The trades that no activity has the numbers of, and the activities that no trade has, latest ones of a kind.

    A trade under the id of an activity is that execution, whatever else has its numbers. Where the ids are those of
    different channels, only the numbers tell.
    """
    by_id: dict[str, Fields] = {}
    there: dict[Numbers, list[Fields]] = defaultdict(list)
    for fill in fills:
        if by_id.setdefault(fill["execution_id"], fill) is not fill:
            there[_numbers(fill)].append(fill)
    gone, new, nameless = list[StandingTrade](), list[Fields](), list[StandingTrade]()
    for trade in standing.values():
        same = by_id.pop(_name_execution(trade), None)
        if same is None:
            nameless.append(trade)
        elif _numbers(same) != trade[1:]:
            gone.append(trade)
            new.append(same)
    for fill in by_id.values():
        there[_numbers(fill)].append(fill)
    for trade in nameless:
        if there[trade[1:]]:
            there[trade[1:]].pop(0)
        else:
            gone.append(trade)
    return gone, new + [fill for group in there.values() for fill in group]


def _pair(fills: list[Fields], gone: Iterable[StandingTrade]) -> list[tuple[Fields, StandingTrade | None]]:
    """Each activity with the trade that it corrects, if any: one known under the activity's id, else one of its
    quantity, else one of its price, else any. Whatever is most certain is paired first, so that an execution that is
    merely new does not take the place of a corrected one."""
    left, found = list(gone), dict[int, StandingTrade]()
    for likeness in (_name_execution, itemgetter(1), itemgetter(2), lambda _trade: None):
        alike: dict[Any, list[StandingTrade]] = defaultdict(list)
        for trade in reversed(left):
            alike[likeness(trade)].append(trade)
        for number, fill in enumerate(fills):
            same = alike[likeness((str(fill["execution_id"]), *_numbers(fill)))]
            if number not in found and same:
                found[number] = same.pop()
                left.remove(found[number])
    return [(fill, found.get(number)) for number, fill in enumerate(fills)]


def _name_execution(trade: StandingTrade) -> str:
    return (trade[0] or "").partition("/")[0]


def _new_name(fill: Fields, known_ids: Collection[str]) -> str:
    """How the ledger calls an execution: by its activity's id, with its numbers where an earlier version has that.

    Numbers that come back after they were taken back are a version of their own.
    """
    return next(one for one in chain([str(fill["execution_id"])], _name_versions(fill)) if one not in known_ids)


def _name_versions(fill: Fields) -> Iterator[str]:
    qty, price = _numbers(fill)
    version = f"{fill['execution_id']}/{plain(qty)}@{plain(price)}"
    yield version
    yield from (f"{version}/{number}" for number in count(2))


def _numbers(fill: Fields) -> Numbers:
    return parse_decimal(fill["qty"]), parse_decimal(fill["price"])


def _revision(name: str, order: Fields, fields: Fields) -> Fields:
    event = {"event": name, "order_id": order["order_id"], "ts": order["ts"], **fields, "source": "rest"}
    kept = {name: value for name, value in event.items() if value is not None}
    return {
        **kept,
        "event_id": content_digest(
            [
                name,
                order["order_id"],
                fields.get("previous_execution_id"),
                fields.get("qty"),
                fields.get("price"),
                fields.get("execution_id"),
            ]
        ),
    }
