"""Undo what other programs did to Alpaca's messages before they were recorded.

`unwrap` takes messages out of lists and out of the answers to DELETE requests. `normalize` reads times as epoch
numbers, as pandas writes them, names as `OrderSide.BUY`, as Python prints an enum, and, with a time zone, times without
an offset. Anything else is left as it is, for `broker.alpaca.translate` to read or to refuse.

Note: a time without an offset is refused unless the user gives its time zone. A guess could be wrong by hours, and
times decide which fills are late.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import msgspec

from compactor.broker.alpaca.translate import ORDER_TIMES
from compactor.core.events import Problem

TIMES = frozenset((*ORDER_TIMES, "expires_at", "timestamp", "at", "transaction_time", "executed_at"))
NAMES = frozenset(
    ("event", "status", "order_status", "side", "type", "order_type", "time_in_force", "order_class", "position_intent")
)

_NAIVE = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})((?:\.[0-9]{1,9})?)")
_EPOCH = re.compile(r"([0-9]{10}|[0-9]{13}|[0-9]{16}|[0-9]{19})(?:\.0+)?")
_ENUM = re.compile(r"[A-Z][A-Za-z]*\.([A-Z][A-Z0-9_]*)")
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
    elif isinstance(found, str):
        detail = f"expected a JSON object, found the text {found[:60]!r}; write an object of alpaca-py by"
        yield Problem("bad_value", f"{detail} json.dumps(found.model_dump(), default=str)")
    else:
        yield found


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
    if name in TIMES and isinstance(value, str | int) and not isinstance(value, bool):
        return _normalize_time(name, value, zone)
    if isinstance(value, str) and (name in NAMES or name == "activity_type"):
        return _normalize_name(name, value)
    return value


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
