"""Tell one log from another at an offset: by a mark of the bytes before it.

Bytes of a log never change. So whoever goes on at an offset that another log has given, one that was there before it or
that this one was restored from, holds another mark unless both logs have the same bytes right before it.
"""

from __future__ import annotations

from typing import NamedTuple
from zlib import crc32

from compactor.ledger.log import Log

MARK_BYTES = 64


def make_mark(before: bytes) -> str:
    """The mark at an offset, from the bytes of its line that lie before it."""
    return f"{crc32(before[-MARK_BYTES:]):08x}"


class LogMark(NamedTuple):
    """The mark at an offset of a log, and whether a line ends there."""

    text: str
    is_line_end: bool


def read_mark(log: Log, offset: int) -> LogMark:
    """The mark at an offset of a log."""
    start = max(0, offset - MARK_BYTES)
    data = log.read(start, offset - start)
    text = make_mark(data[data.rfind(b"\n", 0, max(0, len(data) - 1)) + 1 :])
    return LogMark(text, offset == 0 or data.endswith(b"\n"))
