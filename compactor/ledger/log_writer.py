"""Check and encode events, and append their lines to a log that others append to as well (format.md section 2).

Lines are appended by one `write` in append mode, which does not interleave with other writers, behind a newline of its
own where another writer was cut off in the middle of a line. The log is never truncated, because its bytes may be
another writer's: a write that fails half way leaves a fragment, which the fold reports.

`OpenLogs` keeps many logs open for a writer that runs all day: first all writes, then all syncs, because a file system
makes one commit of syncs that start at once. For 20 logs that took 4 ms instead of 116. Invariant: a descriptor is used
only while its path still leads to the same file, and never again after a failed sync, because the kernel then marks
pages as clean that never reached the disk.
"""

import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from decimal import Decimal
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from compactor.core.decoding import build_event, decode, is_too_deep, replace_half_characters
from compactor.core.events import LINE_BYTES_MAX, Event, Problem
from compactor.core.instants import rfc3339
from compactor.ledger.errors import LedgerError, RejectedEvents, from_os
from compactor.ledger.files import Files
from compactor.ledger.paths import LOG
from compactor.ledger.system_calls import write_all

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

Durability = Literal["sync", "none"]
"""`sync` returns when the events will survive a power loss; `none` when the kernel has them."""


class Appended(Struct, frozen=True):
    """Where the events lie now: the offset of the first, the bytes written, and how many there are."""

    offset: int
    length: int
    events: int


def append_lines(log: Path, lines: list[bytes], durability: Durability) -> Appended:
    """Append checked lines to a log, which is made if need be. Raises LedgerError; then nothing is acknowledged."""
    data = b"".join(lines)
    try:
        descriptor = Files().open_or_create(log, os.O_RDWR | os.O_APPEND)
        try:
            if is_empty(descriptor):
                # Whatever the durability: a later append cannot tell whether the name of this log is durable.
                sync_names(log.parent)
            offset = write_lines(descriptor, data, log)
            if durability == "sync":
                os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
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


def is_empty(descriptor: int) -> bool:
    """Whether a log has no byte yet: then its name may be new, and is made durable before anything is written."""
    return os.fstat(descriptor).st_size == 0


def sync_names(directory: Path) -> None:
    """Make a new log's name durable, and those of the directories that may have been made for it."""
    for one in (directory, directory.parent, directory.parent.parent):
        Files().sync_directory(one)


OPEN_MAX = 256
"""How many stay open between two batches."""
SYNCS_AT_ONCE = 8


class _Open(Struct):
    descriptor: int
    device: int
    inode: int


class OpenLogs:
    """The logs that are open. Not safe for several threads at once; other processes may append to the same logs."""

    def __init__(self) -> None:
        self._logs: dict[Path, _Open] = {}
        self._threads: ThreadPoolExecutor | None = None

    def append(self, batch: Mapping[Path, bytes]) -> dict[Path, LedgerError]:
        """Append whole lines to the logs of the ledgers at these paths, which are made if need be.

        Returns when all is durable, with the error of each ledger for which it is not; of such a one a part may have
        been written.
        """
        failed: dict[Path, LedgerError] = {}
        written: list[Path] = []
        for path, lines in batch.items():
            try:
                write_lines(self._log(path).descriptor, lines, path / LOG)
                written.append(path)
            except OSError as error:
                failed[path] = self._fail(path, error)
        for path, problem in zip(written, self._sync_all(written), strict=True):
            if problem is not None:
                failed[path] = self._fail(path, problem)
        while len(self._logs) > OPEN_MAX:
            self._forget(next(iter(self._logs)))
        return failed

    def _sync_all(self, paths: list[Path]) -> list[OSError | None]:
        if len(paths) < 2:
            return [self._sync(path) for path in paths]
        if self._threads is None:
            from concurrent.futures import ThreadPoolExecutor

            self._threads = ThreadPoolExecutor(SYNCS_AT_ONCE, thread_name_prefix="log-sync")
        return list(self._threads.map(self._sync, paths))

    def _sync(self, path: Path) -> OSError | None:
        try:
            os.fdatasync(self._logs[path].descriptor)
        except OSError as error:
            return error
        return None

    def close(self) -> None:
        """Close them all."""
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None
        for path in list(self._logs):
            self._forget(path)

    def _log(self, path: Path) -> _Open:
        log = self._logs.get(path)
        if log is not None and not _is_at(path / LOG, log):
            self._forget(path)
            log = None
        if log is None:
            log = self._logs[path] = _opened(path)
        return log

    def _fail(self, path: Path, error: OSError) -> LedgerError:
        self._forget(path)
        return from_os(path / LOG, error, "appending what the broker told", "it is written then")

    def _forget(self, path: Path) -> None:
        log = self._logs.pop(path, None)
        if log is not None:
            os.close(log.descriptor)


def _opened(path: Path) -> _Open:
    make_ledger(path)
    descriptor = Files().open_or_create(path / LOG, os.O_RDWR | os.O_APPEND)
    try:
        if is_empty(descriptor):
            sync_names(path)
        found = os.fstat(descriptor)
    except OSError:
        os.close(descriptor)
        raise
    return _Open(descriptor, found.st_dev, found.st_ino)


def _is_at(log: Path, opened: _Open) -> bool:
    try:
        found = os.lstat(log)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (opened.device, opened.inode)


_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


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
        text = replace_half_characters(event.encode() if isinstance(event, str) else event)
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
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        return Problem("bad_value", f"not to be written as JSON: {error}")
    if len(line) > LINE_BYTES_MAX:
        if drop_raw and "raw" in fields:
            return encode_event({name: value for name, value in fields.items() if name != "raw"}, stamp)
        return Problem("too_long", f"a line of {len(line)} bytes, expected at most {LINE_BYTES_MAX}")
    return line + b"\n"
