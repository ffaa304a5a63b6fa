"""Translate recorded messages into checked events, and sort the fills of each order.

Note: lists of activities come newest first, and fills of one millisecond come in any order. Their cumulative quantity
tells in which order they happened. So the activities of one order are sorted by it, as if they had been told one after
the other; otherwise fills would look missing, and others late.

`unwrap` and `normalize` undo what other programs did to messages before they were recorded. A time without an offset is
refused unless the user gives its time zone: a guess could be wrong by hours, and times decide which fills are late.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from compactor.broker.alpaca.leg_executions import OrderLeg, get_leg_key, move_to_leg
from compactor.broker.alpaca.translate import ORDER_TIMES, TRADE_ACTIVITIES, translate
from compactor.broker.port import parse
from compactor.core.decimals import parse_decimal
from compactor.core.events import Problem
from compactor.imports.recordings import BadRecording, read_recording
from compactor.imports.writer import Fields, check_event

TIMES = frozenset((*ORDER_TIMES, "expires_at", "timestamp", "at", "transaction_time", "executed_at"))
NAMES = frozenset(
    ("event", "status", "order_status", "side", "type", "order_type", "time_in_force", "order_class", "position_intent")
)

_NAIVE = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})((?:\.[0-9]{1,9})?)")
_EPOCH = re.compile(r"([0-9]{10}|[0-9]{13}|[0-9]{16}|[0-9]{19})(?:\.0+)?")
_ENUM = re.compile(r"[A-Z][A-Za-z]*\.([A-Z][A-Z0-9_]*)")
_ZERO = re.compile(r"-?0+(?:\.0*)?")
_ZERO_TIME = re.compile(r"0001-01-01[Tt ]00:00:00(?:\.0+)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})?")
NEVER_ZERO = frozenset(("qty", "notional", "stop_price", "trail_price", "trail_percent"))
"""Fields in which zero is what some languages write for no value."""
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class BadTime(Exception):
    """A time that cannot be placed; the message says why, and what to run."""


def unwrap(found: Any) -> Iterator[Any]:
    """Yield the messages in a value: the elements of lists, and the orders in answers with an HTTP status each."""
    if isinstance(found, list):
        for one in found:
            yield from unwrap(one)
    elif isinstance(found, dict) and type(status := found.get("status")) is int and "event" not in found:
        yield _find_body(found, status)
    elif isinstance(found, str) and (inner := _read_text(found)) is not None:
        yield from unwrap(inner)
    elif isinstance(found, str):
        detail = f"expected a JSON object, found the text {found[:60]!r}; write an object of alpaca-py by"
        yield Problem("bad_value", f"{detail} json.dumps(found.model_dump(), default=str)")
    else:
        yield found


def _read_text(text: str) -> Any:
    """Read a message that was written as a JSON text once more; None where it is none, or a text again."""
    found = parse(text.encode(errors="surrogatepass")) if text.lstrip()[:1] in ("{", "[") else None
    return found if isinstance(found, dict | list) else None


def _find_body(answer: dict[str, Any], status: int) -> Any:
    """Return the order in one answer of a DELETE request, or why there is none."""
    body = answer.get("body")
    if isinstance(body, dict) and status < 300:
        return body
    which = answer.get("id") or answer.get("symbol")
    told = f": {msgspec.json.encode(body).decode()[:120]}" if body is not None else ""
    return Problem("bad_value", f"the answer of HTTP status {status} about {which} holds no order{told}")


def normalize(message: Any, zone: tzinfo | None, originals: dict[int, Any]) -> Any:
    """Return the message in Alpaca's own spelling, the very same object where nothing had to be changed.

    `originals` gets what each changed object was before, by the id of the new one. Raises BadTime.
    """
    if isinstance(message, dict):
        fields = {name: _normalize_field(name, value, zone, originals) for name, value in message.items()}
        if _is_zero(message.get("qty")) and _is_zero(message.get("price")):
            fields["price"] = None  # There is no execution in this message.
        if all(fields[name] is value for name, value in message.items()):
            return message
        originals[id(fields)] = message
        return fields
    if isinstance(message, list):
        items = [normalize(one, zone, originals) for one in message]
        return message if all(map(_is_same, items, message)) else items
    return message


def _is_same(one: object, other: object) -> bool:
    return one is other


def _normalize_field(name: Any, value: Any, zone: tzinfo | None, originals: dict[int, Any]) -> Any:
    name = name.strip() if isinstance(name, str) else name
    if isinstance(value, dict | list):
        return normalize(value, zone, originals)
    if is_absent_zero(name, value) or (name in TIMES and _ZERO_TIME.fullmatch(str(value))):
        return None
    if name in TIMES and isinstance(value, str | int) and not isinstance(value, bool):
        return _normalize_time(name, value, zone)
    if isinstance(value, str) and (name in NAMES or name == "activity_type"):
        return _normalize_name(name, value)
    return value


def is_absent_zero(name: Any, value: Any) -> bool:
    """Whether a field has the zero that stands for no value."""
    return name in NEVER_ZERO and _is_zero(value)


def _is_zero(value: Any) -> bool:
    """Whether a quantity or a price is the zero value that writers in some languages send for none."""
    return isinstance(value, str | int) and _ZERO.fullmatch(str(value)) is not None


def _normalize_name(name: str, value: str) -> str:
    if match := _ENUM.fullmatch(value):
        return match[1] if name == "activity_type" else match[1].lower()
    return value.lower() if value.isupper() and name != "activity_type" else value


def _normalize_time(name: str, value: str | int, zone: tzinfo | None) -> str | int:
    text = str(value)
    if match := _EPOCH.fullmatch(text):
        return _format_epoch(match[1])
    if match := _NAIVE.fullmatch(text):
        return _add_offset(name, text, match, zone)
    return value


def _format_epoch(digits: str) -> str:
    """Format seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by their number of digits."""
    seconds, fraction = digits[:10], digits[10:]
    whole = _BEGINNING + timedelta(seconds=int(seconds))
    return f"{whole:%Y-%m-%dT%H:%M:%S}{'.' + fraction if fraction else ''}Z"


def _add_offset(name: str, text: str, match: re.Match[str], zone: tzinfo | None) -> str:
    date, time, fraction = match.groups()
    if zone is None:
        raise BadTime(f"`{name}` is {text!r}, a time without an offset; run again with --timezone UTC, or its zone")
    try:
        local = datetime.fromisoformat(f"{date}T{time}").replace(tzinfo=zone)
    except ValueError as error:
        raise BadTime(f"`{name}` is {text!r}, which is not a time that exists ({error})") from None
    offset, other = local.utcoffset(), local.replace(fold=1).utcoffset()
    if offset is None or offset != other or offset % timedelta(minutes=1):
        raise BadTime(f"`{name}` is {text!r}, which is not one instant in {zone}: clocks were changed")
    minutes = offset // timedelta(minutes=1)
    sign, minutes = ("-", -minutes) if minutes < 0 else ("+", minutes)
    return f"{date}T{time}{fraction}{sign}{minutes // 60:02}:{minutes % 60:02}"


class NotAFill(NamedTuple):
    """An activity that is no fill of an order, such as a fee or an exercise."""

    activity_type: str


class Translated(NamedTuple):
    """What a message gave: its line, an event or what stands in its place, and whether it is an activity."""

    line: int
    event: Fields | Problem | NotAFill
    is_activity: bool = False


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
        normal = message  # Nested too deeply; the translation says so.
    kind = normal.get("activity_type") if isinstance(normal, dict) else None
    if isinstance(kind, str) and kind not in TRADE_ACTIVITIES:
        yield Translated(line, NotAFill(kind))
        return
    told = translate(normal)
    for event in told.events:
        event["raw"] = originals.get(id(event["raw"]), event["raw"])
        yield Translated(line, check_event(event), kind is not None)
    for problem in told.problems:
        yield Translated(line, problem)


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
                yield from (one for _, one in sorted(waiting.pop(order_id), key=itemgetter(0)))
        # More activities than were noted: the file has grown since.
        for fills in waiting.values():
            yield from (one for _, one in sorted(fills, key=itemgetter(0)))


class LegFinder:
    """The legs of the multi-leg orders in a recording. Activities may name the parent; their shares are a leg's."""

    def __init__(self) -> None:
        self._legs: dict[str, dict[tuple[str, str], OrderLeg]] = {}
        self._named: set[str] = set()

    def note(self, found: Translated) -> None:
        """Learn a leg of an order, or that an activity names an order."""
        event = found.event
        if not isinstance(event, dict):
            return
        if found.is_activity:
            self._named.add(event["order_id"])
        elif event.get("order_class") == "mleg" and event.get("parent_order_id") and event.get("symbol"):
            key = get_leg_key(event["symbol"], event.get("side"))
            self._legs.setdefault(str(event["parent_order_id"]), {})[key] = OrderLeg(
                event["order_id"], event.get("quantity")
            )

    @property
    def has_moves(self) -> bool:
        """Whether an activity names a multi-leg order."""
        return not self._named.isdisjoint(self._legs)

    def move(self, found: Translated) -> Translated:
        """Put an activity that names a multi-leg order on its leg; a problem if no leg fits."""
        if not found.is_activity or not isinstance(found.event, dict):
            return found
        event = found.event
        moved = move_to_leg(event, self._legs.get(event["order_id"], {}))
        if moved is event:
            return found
        detail = f"no leg of order {event['order_id']} is {event.get('side')} {event.get('symbol')}"
        return found._replace(event=Problem("bad_value", detail) if moved is None else moved)


def _find_place(found: Translated) -> tuple[str, Decimal] | None:
    """The order of an activity, and what was filled of it after the activity; None for anything else."""
    if not found.is_activity or not isinstance(found.event, dict) or "filled_qty" not in found.event:
        return None
    return found.event["order_id"], parse_decimal(found.event["filled_qty"])
