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
        self._halves: dict[str, int] = {}
        """The executions that activities may name, with the hash of what they tell."""
        self._ids: set[int] = set()
        self._told: set[int] = set()
        """Hashes of the executions of the recording: many, and seldom needed."""
        self._numbers: dict[tuple[str, str], set[_Numbers]] = {}
        """By order and execution id: the quantity and price of each of its versions."""

    def note(self, found: Translated) -> None:
        """Learn which executions activities may name, and which there are."""
        if not isinstance(found.event, dict) or found.event["event"] not in FILLS:
            return
        half = _split(found)
        if half is not None:
            self._halves[half] = _hash(half, found.event) if "filled_qty" in found.event else 0
            return
        for told in _list_told(found.event):
            if told.get("execution_id"):
                self._ids.add(hash(told["execution_id"]))
                self._told.add(_hash(told["execution_id"], told))

    @property
    def are_named(self) -> bool:
        """Whether an activity may name an execution of the recording that has other numbers."""
        return any(hash(half) in self._ids and told not in self._told for half, told in self._halves.items())

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


def _hash(execution_id: str, told: Fields) -> int:
    return hash((execution_id, _read_numbers(told.get("qty"), told.get("price"))))


def _list_told(event: Fields) -> Iterator[Fields]:
    """An event, and the executions of its legs."""
    yield event
    for leg in event.get("legs") or ():
        if isinstance(leg, dict) and leg.get("order_id"):
            yield leg


def _read_numbers(qty: Any, price: Any) -> _Numbers:
    return read_quantity(qty), read_quantity(price)
