"""Pages of a derived file, newest line first: from memory, and further back from the file.

A cursor is a position in the file in bytes: everything before it is older. Lines of these files never change, so a
cursor means the same for ever, whatever is appended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from compactor.ledger.files import Files

_PIECE_BYTES = 1 << 18
LOOKED_AT_MAX = 200_000
"""Lines that one request looks at, at most; a filter that fits few of them gets its page in several requests."""


class KeptTail(NamedTuple):
    """The lines in memory, and where in the file the first one of them begins."""

    path: Path
    position: int
    lines: list[bytes]

    @property
    def end(self) -> int:
        """Where in the file the next line will begin."""
        return self.position + sum(map(len, self.lines))


class LinePage(NamedTuple):
    """The lines of a page, newest first, and the cursor of the next one; None at the beginning of the file."""

    lines: list[bytes]
    cursor: int | None


def read_page(tail: KeptTail, cursor: int | None, limit: int, wants: Callable[[bytes], bool] | None) -> LinePage:
    """The newest lines before a cursor that are wanted; opens the file only where memory does not reach. Raises
    OSError."""
    found: list[bytes] = []
    at = 0
    for looked, (at, line) in enumerate(_walk_back(tail, cursor), 1):
        if wants is None or wants(line):
            found.append(line)
        if len(found) == limit or looked == LOOKED_AT_MAX:
            return LinePage(found, at or None)
    return LinePage(found, None)


def is_in_memory(tail: KeptTail, cursor: int | None, limit: int) -> bool:
    """Whether a page without a filter needs no file."""
    return tail.position == 0 or (cursor is None and len(tail.lines) >= limit)


def _walk_back(tail: KeptTail, cursor: int | None) -> Iterator[tuple[int, bytes]]:
    """Lines and where they begin, newest first."""
    at = tail.end
    for line in reversed(tail.lines):
        at -= len(line)
        if cursor is None or at < cursor:
            yield at, line
    yield from _walk_file_back(tail.path, min(tail.position, cursor if cursor is not None else tail.position))


def _walk_file_back(path: Path, end: int) -> Iterator[tuple[int, bytes]]:
    if end <= 0:
        return
    reader = Files().open(path)
    try:
        rest = b""
        while end > 0:
            start = max(0, end - _PIECE_BYTES)
            data = reader.read(start, end - start) + rest
            lines = data.splitlines(keepends=True)
            rest = lines.pop(0) if start and lines else b""
            at = start + len(data)
            for line in reversed(lines):
                at -= len(line)
                if line.endswith(b"\n"):
                    yield at, line
            end = start
    finally:
        reader.close()


def read_forward(tail: KeptTail, position: int) -> Iterator[bytes]:
    """The lines from a position on, oldest first; opens the file only for those that are not in memory. Raises
    OSError."""
    if position < tail.position:
        reader = Files().open(tail.path)
        try:
            rest = b""
            while position < tail.position:
                data = rest + reader.read(position, min(_PIECE_BYTES, tail.position - position))
                position += len(data) - len(rest)
                if len(data) == len(rest):
                    return
                lines = data.splitlines(keepends=True)
                rest = lines.pop() if not lines[-1].endswith(b"\n") else b""
                yield from lines
        finally:
            reader.close()
    at = tail.position
    for line in tail.lines:
        if at >= position:
            yield line
        at += len(line)
