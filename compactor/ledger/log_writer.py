"""Append lines to a log that others append to as well (format.md section 2).

Lines are appended by one `write` in append mode, which does not interleave with other writers, behind a newline of its
own where another writer was cut off in the middle of a line. The log is never truncated, because its bytes may be
another writer's: a write that fails half way leaves a fragment, which the fold reports. Checking and encoding events is
left to `encoding`.
"""

import os
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Literal

from msgspec import Struct

from compactor.ledger.errors import from_os
from compactor.ledger.files import Files
from compactor.ledger.system_calls import write_all

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
