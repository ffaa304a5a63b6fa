"""Check events and encode them as the lines to append to a log (format.md section 2).

An event is a mapping or a JSON line. `check_events` refuses all of a batch where one of it is no event, so that nothing
is written then. Writing the lines is left to `log_writer`.

Note: what is checked in the end is the line itself, by the same code that reads the log.
"""

import time
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from compactor.core.events import LINE_BYTES_MAX, Event, Problem, build_event, decode, is_too_deep
from compactor.core.instants import rfc3339
from compactor.ledger.errors import RejectedEvents


def _encode_value(value: Any) -> Any:
    if isinstance(value, Decimal):
        return f"{value:f}"
    raise NotImplementedError


_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder(enc_hook=_encode_value, decimal_format="string").encode


def check_events(
    path: Path, events: Iterable[Mapping[str, Any] | bytes | str], team_id: str | None, *, drop_raw: bool = False
) -> list[bytes]:
    """Check events and encode them as the lines to append, stamped as recorded now. Raises RejectedEvents.

    With `drop_raw` an event whose line would be too long goes without the broker's message.
    """
    stamp = rfc3339(time.time_ns())
    lines: list[bytes] = []
    problems: list[tuple[int, Problem]] = []
    for number, event in enumerate(events, 1):
        line = _encode_checked(event, team_id, stamp, drop_raw)
        if isinstance(line, Problem):
            problems.append((number, line))
        elif line:
            lines.append(line)
    if problems:
        raise RejectedEvents(path, problems)
    return lines


def find_problem(event: Mapping[str, Any]) -> Problem | None:
    """Why an event cannot be appended, not even without the broker's message; None where it can."""
    line = _encode_checked(event, None, rfc3339(0), drop_raw=True)
    return line if isinstance(line, Problem) else None


def _encode_checked(
    event: Mapping[str, Any] | bytes | str, team_id: str | None, stamp: str, drop_raw: bool
) -> bytes | Problem:
    """Check one event and encode it as its line, stamped; nothing for a blank line."""
    if isinstance(event, bytes | str):
        if not event.strip():
            return b""
        fields = _read_fields(event)
    else:
        fields = {name: _write_decimals(value) for name, value in event.items()}
        refused = build_event(fields | {"recorded_at": stamp})
        fields = refused if isinstance(refused, Problem) else fields
    line = fields if isinstance(fields, Problem) else encode_event(fields, stamp, drop_raw=drop_raw)
    if isinstance(line, Problem):
        return line
    checked = decode(line[:-1])
    if isinstance(checked, Event) and team_id is not None and checked.team_id not in (None, team_id):
        return Problem("wrong_team", f"expected team_id {team_id!r}, found {checked.team_id!r}")
    return checked if isinstance(checked, Problem) else line


def _read_fields(event: bytes | str) -> dict[str, Any] | Problem:
    """The fields of a JSON line, digit by digit as they came."""
    try:
        text = event.encode() if isinstance(event, str) else event
        text.decode()
        if is_too_deep(text):
            raise msgspec.DecodeError("too many objects and arrays lie in each other")
        return _decode_fields(msgspec.json.format(text, indent=-1))
    except UnicodeError as error:
        return Problem("not_utf8", f"not UTF-8: {error}")
    except msgspec.DecodeError as error:
        found = decode(text)
        return found if isinstance(found, Problem) else Problem("not_json", f"not JSON: {error}")


def _write_decimals(value: Any) -> Any:
    """Decimals as their text, in the legs of a multi-leg fill too."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, list):
        return [_write_decimals(one) for one in value]
    return {name: _write_decimals(one) for name, one in value.items()} if isinstance(value, dict) else value


def encode_event(fields: Mapping[str, Any], stamp: str, *, drop_raw: bool = False) -> bytes | Problem:
    """Encode a checked event as a line of a log, stamped as recorded at `stamp`.

    With `drop_raw` it goes without the broker's message where the line would be too long.
    """
    head: dict[str, Any] = {name: fields[name] for name in ("event", "order_id", "ts") if name in fields}
    fields = {**head, "recorded_at": stamp, **{name: value for name, value in fields.items() if name != "recorded_at"}}
    try:
        line = _encode(fields)
    except (TypeError, ValueError, OverflowError, NotImplementedError, RecursionError) as error:
        return Problem("bad_value", f"not to be written as JSON: {error}")
    if len(line) > LINE_BYTES_MAX:
        if drop_raw and "raw" in fields:
            return encode_event({name: value for name, value in fields.items() if name != "raw"}, stamp)
        return Problem("too_long", f"a line of {len(line)} bytes, expected at most {LINE_BYTES_MAX}")
    return line + b"\n"
