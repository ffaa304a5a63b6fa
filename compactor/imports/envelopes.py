"""Find the messages in the values of a recording: in lists, in what other programs put around them, and in tables.

An envelope is an object that is no message itself and holds some, in fields of whatever names: an answer of an HTTP
client or of a tool, a line of a program that stores messages beside a time, a page of a list, a dictionary by order id.
Its other fields are about the program. A table is a list without the names of its values, or a column for each of them,
as pandas writes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import Any

import msgspec

from compactor.core.events import Problem
from compactor.imports.printed import read_text

ENVELOPES_MAX = 8
"""How many envelopes may lie in each other."""

_MESSAGES = (
    ("stream", "data"),
    ("event", "order"),
    ("event", "orderid"),
    ("activitytype",),
    *product(("id", "orderid"), ("status", "orderstatus"), ("timeinforce", "clientorderid")),
)
"""The fields that a message has one of these sets of, without the marks between their words."""
_REQUESTS = frozenset(("auth", "authenticate", "listen", "subscribe", "unsubscribe"))
"""What a program sends to the stream; it is about the connection, and may hold a key."""


def unwrap(found: Any) -> list[Any]:
    """The messages in a value of a recording, and problems in place of what is none."""
    try:
        return list(_open(found))
    except RecursionError:
        return [Problem("bad_value", "the value is nested too deeply to hold messages of Alpaca's")]


def _open(found: Any) -> Iterator[Any]:
    if isinstance(found, list):
        yield from _open_list(found)
    elif isinstance(found, str):
        yield from _open_text(found)
    elif not isinstance(found, dict) or (_is_message(found) and not isinstance(found.get("id"), dict)):
        yield found
    elif "action" in found and found["action"] in _REQUESTS:
        return
    elif (rows := _read_table(found)) is not None:
        for row in rows:
            yield from _open(row)
    else:
        yield from _open_envelope(found)


def _open_list(found: list[Any]) -> Iterator[Any]:
    if found and not any(isinstance(one, dict | list) or _read_text(one) is not None for one in found):
        detail = f"expected JSON objects, found a list of {len(found)} values without names"
        yield Problem("bad_value", f"{detail}; pandas writes the names by to_json(orient='records', lines=True)")
        return
    for one in found:
        yield from _open(one)


def _open_text(text: str) -> Iterator[Any]:
    inner = _read_text(text)
    if inner is not None:
        yield from _open(inner)
        return
    detail = f"expected a JSON object, found the text {text[:60]!r}; write an object of alpaca-py by"
    yield Problem("bad_value", f"{detail} json.dumps(found.model_dump(), default=str)")


def _read_text(text: Any) -> Any:
    """Read a message that was written as a text; None where it is none."""
    return read_text(text) if isinstance(text, str) else None


def _is_message(found: dict[str, Any]) -> bool:
    return _tell_message(tuple(found))


@lru_cache(maxsize=256)
def _tell_message(names: tuple[str, ...]) -> bool:
    """Whether an object is a message by the names of its fields, in the spelling of any language."""
    known = {name.strip().replace("_", "").lower() for name in names}
    return any(known.issuperset(needed) for needed in _MESSAGES)


def _read_table(found: dict[str, Any]) -> list[Any] | None:
    """Read the rows of a table: `columns` and `data`, or an object of columns by name; None for anything else."""
    columns, data = found.get("columns"), found.get("data")
    if isinstance(columns, list) and isinstance(data, list):
        names = list(map(str, columns))
        return [dict(zip(names, row, strict=False)) if isinstance(row, list) else row for row in data]
    if _is_message(found) and all(isinstance(column, dict) for column in found.values()):
        rows: dict[str, dict[str, Any]] = {key: {} for key in found["id"]}
        for name, column in found.items():
            for key in column.keys() & rows.keys():
                rows[key][name] = column[key]
        return list(rows.values())
    return None


def _open_envelope(envelope: dict[Any, Any]) -> Iterator[Any]:
    """Yield the messages in an envelope, or what stands for it where it holds none."""
    status = envelope.get("status")
    if type(status) is int and status >= 300:
        yield _describe_answer(envelope, status)
        return
    is_empty = True
    for name, told in envelope.items():
        value = _decode_bytes(told) if name == "MESSAGE" else told
        if _holds_messages(value, ENVELOPES_MAX):
            is_empty = False
            yield from _open(value)
    if is_empty:
        yield envelope if type(status) is not int else _describe_answer(envelope, status)


def _decode_bytes(message: Any) -> Any:
    """The text of a message that journald exported as the numbers of its bytes; the very same for any other value."""
    is_bytes = isinstance(message, list) and all(type(one) is int and 0 <= one <= 255 for one in message)
    return bytes(message).decode(errors="replace") if is_bytes else message


def _holds_messages(value: Any, depth: int) -> bool:
    if isinstance(value, str):
        value = _read_text(value)
    if isinstance(value, dict):
        if _is_message(value):
            return True
        value = list(value.values())
    return isinstance(value, list) and depth > 0 and any(_holds_messages(one, depth - 1) for one in value)


def _describe_answer(answer: dict[str, Any], status: int) -> Problem:
    """Say that an answer of a request has no order in it, and what it has instead."""
    body = answer.get("body")
    which = answer.get("id") or answer.get("symbol")
    told = f": {msgspec.json.encode(body).decode()[:120]}" if body is not None else ""
    return Problem("bad_value", f"the answer of HTTP status {status} about {which} holds no order{told}")
