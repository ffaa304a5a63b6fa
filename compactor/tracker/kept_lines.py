"""The last lines of a derived file in memory, and the older ones in the file.

The lines of `trades.jsonl` and `findings.jsonl` are never changed, so memory and file are one sequence. Lines leave the
memory only once they are in the file. Note: lines are kept as bytes and are decoded where somebody asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

from compactor.ledger.checkpoint import TAIL_BYTES, DamagedCheckpoint, PrefixDigest, checksum
from compactor.ledger.files import Files
from compactor.ledger.unlocked import whole_lines

LINES_MAX = 10_000
"""How many lines stay in memory at least, once there are so many."""
DROPPED_LINES = 1000
READ_BYTES = 4 << 20

Row = TypeVar("Row")


class KeptLines(Generic[Row]):
    """The lines of one derived file, `path`: in memory those from `position` of the file on."""

    def __init__(self, path: Path, decode: Callable[[bytes], Row], position: int, lines: list[bytes]) -> None:
        self._path = path
        self._decode = decode
        self.position = position
        """Where in the file the first line in memory begins."""
        self.lines = lines
        self._added = 0

    def add(self, line: bytes) -> None:
        """Add a line behind the last one."""
        self.lines.append(line)
        self._added += 1
        if self._added >= DROPPED_LINES // 2 and len(self.lines) > LINES_MAX + DROPPED_LINES:
            self._added = 0
            self._drop()

    def _drop(self) -> None:
        """Drop some of the oldest lines, unless the file does not have them yet."""
        end = self.position + sum(map(len, self.lines[:DROPPED_LINES]))
        identity = Files().identity(self._path)
        if identity is not None and identity.size >= end:
            self.position = end
            del self.lines[:DROPPED_LINES]

    def __iter__(self) -> Iterator[bytes]:
        """All lines, oldest first: those of the file, then those in memory."""
        kept, offset = list(self.lines), 0
        for line in whole_lines(self._path) if self.position else ():
            if offset >= self.position:
                break
            yield line
            offset += len(line)
        yield from kept

    def select(self, wants: Callable[[bytes], bool] | None = None) -> list[Row]:
        """The lines that are wanted, decoded, oldest first."""
        return [self._decode(line) for line in self if wants is None or wants(line)]


def read_tail(files: Files, path: Path, known: PrefixDigest) -> tuple[int, list[bytes]]:
    """The last lines of the beginning of a file that a checkpoint covers, and where the first of them begins.

    Raises DamagedCheckpoint where the file is not the one that the checkpoint knows, and OSError.
    """
    if not known.length:
        return 0, []
    start = max(0, known.length - READ_BYTES)
    reader = files.open(path)
    try:
        data = reader.read(start, known.length - start)
    finally:
        reader.close()
    if start + len(data) != known.length or checksum(data[-TAIL_BYTES:]) != known.tail:
        raise DamagedCheckpoint(path, "it is not the file that the checkpoint knows")
    if start:
        cut = data.find(b"\n") + 1
        start, data = start + cut, data[cut:]
    lines = data.splitlines(keepends=True)
    dropped = sum(map(len, lines[:-LINES_MAX]))
    return start + dropped, lines[-LINES_MAX:]
