"""The log as the compactor reads it: blocks of whole lines, and the lines of one order out of its past.

Sealed segments and what follows them in the file are one sequence of bytes; offsets are the same in both. Nothing here
writes. A last line without its newline is not there yet; a line longer than a mebibyte is passed over without being
held in memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compactor.core.events import LINE_BYTES_MAX
from compactor.core.lines import EXCERPT_BYTES, Block
from compactor.ledger.checkpoint import TAIL_BYTES, PrefixDigest, checksum
from compactor.ledger.errors import LogRewritten, NoLedger, from_os
from compactor.ledger.files import Files, Identity, Reader
from compactor.ledger.paths import LOG
from compactor.ledger.segments import Segments

BLOCK_BYTES = 1 << 16
"""Small enough that a block and what comes of it stay in the processor's cache."""
SEARCH_BYTES = 1 << 22
WHAT_TO_DO = (
    "Nothing was changed. If this was done on purpose, remove the .state directory beside the log and compact again;"
    " otherwise put the log back"
)


@contextmanager
def open_log(
    path: Path,
    files: Files,
    segments: Segments | None = None,
    *,
    head: bool = False,
    doing: str = "reading the log",
    again: str = "try again",
) -> Iterator["Log"]:
    """Open the log of the ledger in a directory, with the segments that are sealed by now, and close it in the end.

    Raises NoLedger and SegmentDamaged, and LedgerError in place of any OSError, also of one that is raised while the
    log is open; `doing` and `again` are for its message. With `head` it also refuses a log without seals that begins
    with the NULs of a hole.
    """
    segments = segments or Segments(path, files)
    try:
        reader = files.open(path / LOG)
    except FileNotFoundError:
        raise NoLedger(path, f"there is no {LOG}; expected a ledger. Append events to it first") from None
    except OSError as error:
        raise from_os(path / LOG, error, "opening the log", again) from error
    log = Log(path / LOG, reader, segments)
    try:
        segments.refresh()
        segments.check_log(log.path, reader, head=head)
        yield log
    except OSError as error:
        raise from_os(path / LOG, error, doing, again) from error
    finally:
        log.close()


class Log:
    """An open log: what is sealed of it is read from `segments`, where there are any."""

    def __init__(self, path: Path, reader: Reader, segments: Segments | None = None) -> None:
        self.path = path
        self._reader = reader
        self._segments = segments

    def identity(self) -> Identity:
        """Which file it is, and how long now."""
        return self._reader.identity()

    def sync(self) -> None:
        """Make everything that can be read durable, so that nothing derived is ever ahead of it."""
        self._reader.sync()

    def close(self) -> None:
        """Close the file and the segment that was read last."""
        self._reader.close()
        if self._segments is not None:
            self._segments.release()

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes, fewer only at the end of the log. Raises SegmentDamaged."""
        sealed = self._segments.sealed_end - offset if self._segments is not None else 0
        if self._segments is None or sealed <= 0:
            return self._read_file(offset, length)
        data = self._segments.read(offset, min(length, sealed))
        return data if length <= sealed else data + self._read_file(offset + sealed, length - sealed)

    def _read_file(self, offset: int, length: int) -> bytes:
        data = self._reader.read(offset, length)
        if self._segments is not None and b"\0" in data:
            # Another process may have sealed this range since the log was opened, and punched it out.
            self._segments.refresh()
            self._segments.check_log(self.path, self._reader, head=True)
            if offset < self._segments.sealed_end:
                return self.read(offset, length)
        return data

    def read_raw(self, offset: int, length: int) -> bytes:
        """Bytes of the file itself: NULs where sealing gave the space back."""
        return self._reader.read(offset, length)

    def data_from(self, offset: int) -> int:
        """Where in the file the first bytes at or behind an offset lie that take up space."""
        return self._reader.data_from(offset)

    def digest_prefix(self, offset: int) -> PrefixDigest:
        """The digest of the 4 KiB before an offset."""
        start = max(0, offset - TAIL_BYTES)
        # Sealing leaves these bytes in the file before the last seal's end, so that a pass with nothing to read from
        # the history opens no segment.
        in_file = self._segments is None or offset >= self._segments.sealed_end
        read = self._read_file if in_file else self.read
        return PrefixDigest(offset, checksum(read(start, offset - start)))

    def check(self, inode: int | None, known: PrefixDigest) -> None:
        """Raise LogRewritten unless it is the same file, no shorter, with the same bytes before the offset. Without
        `inode` it may be another file."""
        identity = self.identity()
        if inode is not None and identity.inode != inode:
            found = f"the log was replaced by another file: expected inode {inode}, found {identity.inode}"
            raise LogRewritten(self.path, f"{found}. {WHAT_TO_DO}")
        if identity.size < known.length:
            found = f"the log was truncated: expected at least {known.length} bytes, found {identity.size}"
            raise LogRewritten(self.path, f"{found}. {WHAT_TO_DO}")
        if self.digest_prefix(known.length) != known:
            start = max(0, known.length - TAIL_BYTES)
            found = f"the log was rewritten: the bytes from {start} to {known.length} are not those that were folded"
            raise LogRewritten(self.path, f"{found}. {WHAT_TO_DO}")

    def blocks(self, offset: int, end: int) -> Iterator[Block]:
        """Whole lines from an offset up to the last newline before `end`."""
        while offset < end:
            data = self.read(offset, min(BLOCK_BYTES, end - offset))
            cut = data.rfind(b"\n") + 1
            if not cut:
                block = self._long_line(offset, end, data)
                if block is None:
                    return
                yield block
                offset += block.length
                continue
            yield Block(offset, data[:cut], cut)
            offset += cut

    def _long_line(self, offset: int, end: int, data: bytes) -> Block | None:
        """A line that is longer than a block: whole if it may be an event, else its head; None if it has no end yet."""
        length = len(data)
        while length and offset + length < end:
            more = self.read(offset + length, min(SEARCH_BYTES, end - offset - length))
            if not more:
                return None
            found = more.find(b"\n")
            if length <= LINE_BYTES_MAX:
                data += more[: found + 1] if found >= 0 else more
            if found >= 0:
                length += found + 1
                return Block(offset, data if length - 1 <= LINE_BYTES_MAX else data[:EXCERPT_BYTES], length)
            length += len(more)
        return None

    def lines_naming(self, order_id: str, first: int, end: int) -> Iterator[tuple[int, bytes]]:
        """The lines that begin in a range and may name an order: those with its id in them, or with an escape that may
        stand for a part of it."""
        wanted, escapes = order_id.encode(), _list_escapes(order_id)
        for block in self.blocks(first, self._line_end(end)):
            if block.too_long:
                continue
            if any(escape in block.data for escape in escapes):
                yield from _lines_with_any(block, (wanted, *escapes))
                continue
            place = block.data.find(wanted)
            while place >= 0:
                start = block.data.rfind(b"\n", 0, place) + 1
                after = block.data.index(b"\n", place) + 1
                yield block.offset + start, block.data[start : after - 1]
                place = block.data.find(wanted, after)

    def end_of_whole_lines(self, size: int) -> int:
        """Where the unfinished last line begins, or the end if there is none."""
        # What is sealed ends with a line, so that nobody has to look there.
        end, least = size, self._segments.sealed_end if self._segments is not None else 0
        while end > least:
            start = max(least, end - BLOCK_BYTES)
            found = self.read(start, end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
        return least

    def _line_end(self, end: int) -> int:
        """The end of the line in which the byte before `end` lies."""
        offset, size = end - 1, self.identity().size
        while offset < size:
            data = self.read(offset, BLOCK_BYTES)
            found = data.find(b"\n")
            if found >= 0:
                return offset + found + 1
            offset += len(data)
        return size


def _list_escapes(text: str) -> tuple[bytes, ...]:
    """What a line has in it that writes a text in another way than as it is. Any character can be `\\u0061`; the quotes
    of a message in `raw` are no way to write an id that has none."""
    if any(one in '"\\' or one < " " for one in text):
        return (b"\\",)
    return (b"\\u", b"\\/") if "/" in text else (b"\\u",)


def _lines_with_any(block: Block, wanted: tuple[bytes, ...]) -> Iterator[tuple[int, bytes]]:
    return ((offset, line) for offset, line in block.lines() if any(one in line for one in wanted))
