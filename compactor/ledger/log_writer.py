"""Appending events to a log that others write too (format.md section 2; what files really do decides how).

Everything is checked before anything is written. Then it is one `write` in append mode, which does not interleave
with other writers, after a newline of its own where another writer was cut off in the middle of a line. The log is
never truncated, since its bytes may be another writer's: a write that fails half way leaves a fragment, which the
fold reports.
"""

import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from decimal import Decimal
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from compactor.core.events import LINE_BYTES_MAX, Problem, event_of
from compactor.core.instants import rfc3339
from compactor.ledger.errors import RejectedEvents, from_os
from compactor.ledger.files import Files
from compactor.ledger.system_calls import write_all

Durability = Literal["sync", "none"]
"""`sync` returns when the events will survive a power loss; `none` when the kernel has them."""


class Appended(Struct, frozen=True):
    """Where the events lie now: the offset of the first, the bytes written, and how many there are."""

    offset: int
    length: int
    events: int


class _Number(str):
    """The text of a JSON number with a fraction, to be written again digit by digit."""


def _hook(value: Any) -> Any:
    if isinstance(value, _Number):
        return msgspec.Raw(value.encode())
    if isinstance(value, Decimal):
        return f"{value:f}"
    raise NotImplementedError


_decode = msgspec.json.Decoder(float_hook=_Number).decode
_encode = msgspec.json.Encoder(enc_hook=_hook, decimal_format="string").encode


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


def _encode_checked(
    event: Mapping[str, Any] | bytes | str, team_id: str | None, stamp: str, drop_raw: bool
) -> bytes | Problem:
    """Check one event and encode it as its line, stamped; nothing for a blank line."""
    if isinstance(event, bytes | str):
        if not event.strip():
            return b""
        try:
            fields = _decode(event)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            return Problem("not_json", str(error))
        if not isinstance(fields, dict):
            return Problem("bad_value", f"expected a JSON object, found {type(fields).__name__}")
    else:
        fields = {name: _as_text(value) for name, value in event.items()}
    plain = {name: str.__str__(value) if isinstance(value, _Number) else value for name, value in fields.items()}
    checked = event_of(plain | {"recorded_at": stamp})
    if isinstance(checked, Problem):
        return checked
    if team_id is not None and checked.team_id not in (None, team_id):
        return Problem("wrong_team", f"expected team_id {team_id!r}, found {checked.team_id!r}")
    return encode_event(fields, stamp, drop_raw=drop_raw)


def _as_text(value: Any) -> Any:
    """Decimals as their text, in the legs of a multi-leg fill too."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, list):
        return [_as_text(one) for one in value]
    return {name: _as_text(one) for name, one in value.items()} if isinstance(value, dict) else value


def encode_event(fields: Mapping[str, Any], stamp: str, *, drop_raw: bool = False) -> bytes | Problem:
    """Encode a checked event as a line of a log, stamped as recorded at `stamp`.

    With `drop_raw` it goes without the broker's message where the line would be too long.
    """
    head: dict[str, Any] = {name: fields[name] for name in ("event", "order_id", "ts") if name in fields}
    fields = {**head, "recorded_at": stamp, **{name: value for name, value in fields.items() if name != "recorded_at"}}
    try:
        line = _encode(fields)
    except (TypeError, ValueError, NotImplementedError, RecursionError) as error:
        return Problem("bad_value", f"not to be written as JSON: {error}")
    if len(line) > LINE_BYTES_MAX:
        if drop_raw and "raw" in fields:
            return encode_event({name: value for name, value in fields.items() if name != "raw"}, stamp)
        return Problem("too_long", f"a line of {len(line)} bytes, expected at most {LINE_BYTES_MAX}")
    return line + b"\n"


def append_lines(log: Path, lines: list[bytes], durability: Durability) -> Appended:
    """Append checked lines to a log, which is made if need be. Raises LedgerError; then nothing is acknowledged."""
    data = b"".join(lines)
    try:
        descriptor, is_new = Files().open_or_create(log, os.O_RDWR | os.O_APPEND)
        try:
            offset = write_lines(descriptor, data, log)
            if durability == "sync":
                os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        if is_new and durability == "sync":
            sync_names(log.parent)
    except OSError as error:
        what = "one event, which is" if len(lines) == 1 else f"{len(lines)} events, which are"
        raise from_os(log, error, f"appending {what} not acknowledged", "append again") from error
    return Appended(offset, len(data), len(lines))


def write_lines(descriptor: int, data: bytes, log: Path) -> int:
    """Append lines by one write, on a line of their own; not yet durable. Returns the offset of the first."""
    size = os.fstat(descriptor).st_size
    torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
    if data:
        write_all(descriptor, b"\n" + data if torn else data, log)
        # In append mode the position after a write is the end of what was written, whoever else writes.
        return os.lseek(descriptor, 0, os.SEEK_CUR) - len(data)
    return size


def make_ledger(path: Path) -> None:
    """Make the directory of a ledger, and those above it, if they are not there; whatever the umask."""
    missing = list(takewhile(lambda one: not one.exists(), (path, *path.parents)))
    for one in reversed(missing):
        with suppress(FileExistsError):
            one.mkdir(0o755)
            # Under a umask of 0 nobody else may write here; one of 077 does not keep the team out.
            one.chmod(0o755)


def sync_names(directory: Path) -> None:
    """Make a new log's name durable, and those of the directories that may have been made for it."""
    for one in (directory, directory.parent, directory.parent.parent):
        Files().sync_directory(one)
