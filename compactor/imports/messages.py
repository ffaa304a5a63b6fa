"""Translate recorded messages into checked events, and sort the fills of each order.

Note: lists of activities come newest first, and fills of one millisecond come in any order. Their cumulative quantity
tells in which order they happened. So the activities of one order are sorted by it, as if they had been told one after
the other; otherwise fills would look missing, and others late.

What other programs put around messages, and did to them, is left to `envelopes` and `dialects`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import tzinfo
from decimal import Decimal
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from compactor.broker.alpaca.event_fields import TRADE_ACTIVITIES, shorten
from compactor.broker.alpaca.translate import translate
from compactor.core.decimals import parse_decimal
from compactor.core.events import Problem
from compactor.imports.dialects import BadTime, normalize
from compactor.imports.envelopes import unwrap
from compactor.imports.recordings import BadRecording, read_recording
from compactor.imports.writer import Fields, check_event

_OWN_EVENT = "an event of a log, not a message of Alpaca's; the command `compactor append` adds events to a ledger"


class NotAFill(NamedTuple):
    """An activity that is no fill of an order, such as a fee or an exercise."""

    activity_type: str


class Translated(NamedTuple):
    """What a message gave: its line, an event or what stands in its place, and whether it is an activity.

    `leaves` is what an activity says that its execution leaves open of the order.
    """

    line: int
    event: Fields | Problem | NotAFill
    is_activity: bool = False
    leaves: Any = None


def read_capture(
    path: Path, zone: tzinfo | None = None, on_bytes: Callable[[int], None] = lambda _: None
) -> Iterator[Translated]:
    """Read the messages of a recording as events, in the order of the file; each event is one that a log takes.

    Raises BadRecording for a file of another format, and OSError where it cannot be read.
    """
    if not path.is_file():
        raise BadRecording(f"{path}: found a pipe or device, expected a file, because it is read twice. Save it first")
    for line, value in read_recording(path, on_bytes):
        for message in unwrap(value):
            yield from _translate(line, message, zone)


def _translate(line: int, message: Any, zone: tzinfo | None) -> Iterator[Translated]:
    if isinstance(message, Problem):
        yield Translated(line, message)
        return
    originals: dict[int, Any] = {}
    try:
        normal = normalize(message, zone, originals)
    except BadTime as error:
        yield Translated(line, Problem("bad_value", str(error)))
        return
    except RecursionError:
        normal, originals = message, {}  # Nested too deeply; the translation says so.
    kind = normal.get("activity_type") if isinstance(normal, dict) else None
    if isinstance(kind, str) and kind not in TRADE_ACTIVITIES:
        yield Translated(line, NotAFill(kind))
        return
    if isinstance(normal, dict) and normal.keys() >= {"event", "order_id", "ts"} and "order" not in normal:
        yield Translated(line, Problem("bad_value", _OWN_EVENT))
        return
    told = translate(normal)
    leaves = _find_leaves(normal) if kind is not None else None
    for event in told.events:
        event["raw"] = originals.get(id(event["raw"]), event["raw"])
        yield Translated(line, check_event(event), kind is not None, leaves)
    for problem in told.problems:
        yield Translated(line, _quote_original(problem, normal, originals))


def _quote_original(problem: Problem, normal: Any, originals: dict[int, Any]) -> Problem:
    """The problem with what was recorded in it, in place of the outermost object that was read as another one."""
    waiting = deque([normal])
    while waiting:
        part = waiting.popleft()
        if (original := originals.get(id(part))) is not None and (quoted := shorten(part)) in problem.detail:
            return Problem(problem.kind, problem.detail.replace(quoted, shorten(original)))
        if isinstance(part, dict | list):
            waiting += part.values() if isinstance(part, dict) else part
    return problem


def _find_leaves(activity: Fields) -> Any:
    """What an activity leaves open of its order; an entry of the activity stream tells it in its details."""
    details = activity.get("details")
    return {**activity, **(details if isinstance(details, dict) else {})}.get("leaves_qty")


class _Fills(msgspec.Struct):
    """How the activities of one order stand in a recording."""

    count: int = 0
    last: Decimal = Decimal(0)
    is_sorted: bool = True


class FillOrder:
    """The order of the fills in a recording: learned from all of it by `note`, then restored by `sort`."""

    def __init__(self) -> None:
        self._orders: dict[str, _Fills] = {}

    def note(self, found: Translated) -> None:
        """Learn how the activities of an order stand."""
        if place := _find_place(found):
            order_id, filled = place
            fills = self._orders.setdefault(order_id, _Fills())
            fills.count += 1
            fills.is_sorted &= filled >= fills.last
            fills.last = filled

    def sort(self, recording: Iterable[Translated]) -> Iterator[Translated]:
        """Yield a recording again. Activities of an order that are not sorted come together, where its last one is.

        Keeps in memory the activities of an order between its first and its last one.
        """
        unsorted = {order_id: fills.count for order_id, fills in self._orders.items() if not fills.is_sorted}
        waiting: dict[str, list[tuple[Decimal, Translated]]] = {}
        for found in recording:
            place = _find_place(found) if unsorted else None
            if place is None or place[0] not in unsorted:
                yield found
                continue
            order_id, filled = place
            fills = waiting.setdefault(order_id, [])
            fills.append((filled, found))
            if len(fills) == unsorted[order_id]:
                yield from _sort_fills(waiting.pop(order_id))
        # More activities than were noted: the file has grown since.
        for fills in waiting.values():
            yield from _sort_fills(fills)


def _sort_fills(fills: list[tuple[Decimal, Translated]]) -> Iterator[Translated]:
    """The activities of one order by what was filled after each."""
    return (one for _, one in sorted(fills, key=itemgetter(0)))


def _find_place(found: Translated) -> tuple[str, Decimal] | None:
    """The order of an activity, and what was filled of it after the activity; None for anything else."""
    if not found.is_activity or not isinstance(found.event, dict) or "filled_qty" not in found.event:
        return None
    return found.event["order_id"], parse_decimal(found.event["filled_qty"])
