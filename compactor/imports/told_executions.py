"""Know the executions of activities by the half of their id that is probably the stream's execution id.

An activity's id is `<time>::<id>`. By rule 4.3 two channels' words of one execution are known by their numbers; where
these differ, because one of them rounds, or the activity tells no cumulative quantity, the half behind `::` decides if
it is an execution of the same order that was told. The fold names what differs (`conflicting_fill`).

Note: where the numbers agree, the id stays as it is: nothing relies on a half that the broker does not promise.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from compactor.books.carry_over import read_quantity
from compactor.core.events import FILLS, REVISIONS, Event
from compactor.imports.messages import Translated
from compactor.imports.writer import Fields

_Numbers = tuple[Decimal | None, Decimal | None]
_NAMES = ("event", "order_id", "execution_id", "previous_execution_id", "qty", "price")


class ToldExecutions:
    """The executions of a recording and of the logs that activities may be about. `note` learns what activities name,
    `recall` and `learn` the executions, and `name` gives an activity the id of its execution."""

    def __init__(self) -> None:
        self._halves: set[str] = set()
        self._has_others = False
        self._numbers: dict[tuple[str, str], set[_Numbers]] = {}
        """By order and execution id: the quantity and price of each of its versions."""

    def note(self, found: Translated) -> None:
        """Learn which executions activities may name."""
        if isinstance(found.event, dict) and found.event["event"] in FILLS:
            half = _split(found)
            self._has_others |= half is None
            if half is not None:
                self._halves.add(half)

    @property
    def are_named(self) -> bool:
        """Whether the recording has activities that may name one of its executions."""
        return bool(self._halves) and self._has_others

    def learn(self, found: Translated) -> None:
        """Learn the executions of a message."""
        if isinstance(found.event, dict) and _split(found) is None:
            self._learn(found.event)

    def recall(self, event: Event) -> None:
        """Learn the executions of an event of a log."""
        if self._halves and (event.execution_id or event.leg_fills):
            self._learn({name: getattr(event, name) for name in _NAMES})
            for leg in event.leg_fills or ():
                self._add(leg.order_id, leg.execution_id, leg.qty, leg.price)

    def _learn(self, event: Fields) -> None:
        if event["event"] not in FILLS and event["event"] not in REVISIONS:
            return
        for told in _list_told(event):
            for name in ("execution_id", "previous_execution_id"):
                self._add(str(told["order_id"]), told.get(name), told.get("qty"), told.get("price"))

    def _add(self, order_id: str, execution_id: Any, qty: Any, price: Any) -> None:
        if execution_id in self._halves:
            self._numbers.setdefault((order_id, str(execution_id)), set()).add(_read_numbers(qty, price))

    def name(self, found: Translated) -> Translated:
        """Give an activity the id of its execution, if its numbers do not tell which one it is."""
        half, event = _split(found), found.event
        if half is None or not isinstance(event, dict) or event["event"] not in FILLS:
            return found
        known = self._numbers.get((str(event["order_id"]), half))
        if known is None:
            return found
        is_known = _read_numbers(event.get("qty"), event.get("price")) in known and "filled_qty" in event
        return found if is_known else found._replace(event=event | {"execution_id": half})


def _split(found: Translated) -> str | None:
    """The half behind `::` of an activity's id; None for anything else."""
    if not found.is_activity or not isinstance(found.event, dict):
        return None
    return str(found.event.get("execution_id")).partition("::")[2] or None


def _list_told(event: Fields) -> Iterator[Fields]:
    """An event, and the executions of its legs."""
    yield event
    for leg in event.get("legs") or ():
        if isinstance(leg, dict) and leg.get("order_id"):
            yield leg


def _read_numbers(qty: Any, price: Any) -> _Numbers:
    return read_quantity(qty), read_quantity(price)
