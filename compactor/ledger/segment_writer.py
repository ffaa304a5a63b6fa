"""Write one segment from a range of the log, frame by frame, and gather what its seal says.

Where a range ends, and the files, are left to `seal`.

Note: a frame ends with a line wherever it can. A line that is longer than a frame is cut into several, so that memory
stays bounded.
"""

from collections.abc import Iterator
from datetime import datetime
from hashlib import sha256
from itertools import islice

import msgspec
from msgspec import Struct

from compactor.core.decoding import is_too_deep
from compactor.core.instants import BadInstant, moment
from compactor.core.merkle import MerkleAccumulator
from compactor.ledger.log import Log
from compactor.ledger.segment_format import KEPT_BYTES, Seal, encode_frame
from compactor.ledger.segments import Segments

_SEARCH_BYTES = 1 << 16
_LINES_TRIED = 1000
_BLOCKS_TRIED = 16


class SegmentWriter:
    """Writes a range of the log as a segment, a frame at a time, and gathers what its seal says.

    `tree` is the tree over all lines before the range; the lines of the segment are appended to it.
    """

    def __init__(
        self, log: Log, start: int, end: int, frame_bytes: int, tree: MerkleAccumulator, team_id: str, ledger_id: str
    ) -> None:
        self._log = log
        self._tree = tree
        self._frame_bytes = frame_bytes
        self._content, self._file = sha256(), sha256()
        self._seal = Seal(
            start=start, end=end, lines=0, first_ts=None, last_ts=None, content_sha256="", file_sha256="", file_bytes=0,
            previous="", frames=[], team_id=team_id, ledger_id=ledger_id,
        )  # fmt: skip
        self.name = self._seal.name

    def frames(self) -> Iterator[bytes]:
        """The frames, of whole lines but for lines that are longer than a frame."""
        empty, end = self._seal, self._seal.end
        offset, file_bytes, lines = empty.start, 0, 0
        tail = b""
        first: str | None = None
        last: str | None = None
        table: list[tuple[int, int]] = []
        while offset < end:
            piece = self._log.read(offset, min(self._frame_bytes, end - offset))
            if offset + len(piece) < end:
                piece = piece[: piece.rfind(b"\n") + 1] or piece
            frame = encode_frame(piece)
            table.append((offset - empty.start, file_bytes))
            self._content.update(piece)
            self._file.update(frame)
            self._tree.feed(piece)
            tail = (tail + piece)[-KEPT_BYTES:]
            all_lines = piece.split(b"\n")
            first = first if first is not None else find_first_ts(all_lines)
            last = find_first_ts(all_lines[::-1]) or last
            offset, file_bytes, lines = offset + len(piece), file_bytes + len(frame), lines + len(all_lines) - 1
            yield frame
        self._seal = msgspec.structs.replace(
            empty, lines=lines, first_ts=first, last_ts=last, file_bytes=file_bytes, frames=table,
            content_sha256=self._content.hexdigest(), file_sha256=self._file.hexdigest(),
            tree=self._tree.tree(), tail_sha256=sha256(tail).hexdigest(),
        )  # fmt: skip

    def seal(self, previous: str) -> Seal:
        """The seal of the segment, once all frames were taken."""
        return msgspec.structs.replace(self._seal, previous=previous)


def find_first_ts(lines: list[bytes]) -> str | None:
    """The `ts` of the first line that can be read; None where none of the first ones can."""
    for line in lines[:_LINES_TRIED]:
        if (stamps := _read_stamps(line)) is not None:
            return stamps.ts
    return None


def build_tree(segments: Segments, seals: list[Seal]) -> MerkleAccumulator:
    """The tree over the first segments; of those that an earlier version sealed without one, from their lines."""
    at = next((number for number in range(len(seals), 0, -1) if seals[number - 1].tree is not None), 0)
    tree = MerkleAccumulator(seals[at - 1].tree if at else None)
    for seal in seals[at:]:
        for piece in segments.pieces(seal):
            tree.feed(piece.data)
    return tree


def find_line_end(log: Log, start: int, stop: int, end: int) -> int:
    """The last end of a line in a range, or where it has none, the next one; `end` is the end of a line."""
    offset = stop
    while offset > start:
        begin = max(start, offset - _SEARCH_BYTES)
        found = log.read(begin, offset - begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        offset = begin
    while (found := log.read(stop, min(_SEARCH_BYTES, end - stop)).find(b"\n")) < 0:
        stop += _SEARCH_BYTES
    return stop + found + 1


def find_recorded_at(log: Log, start: int, end: int) -> datetime | None:
    """When the first line that can be read was recorded; None where none of the first lines can be."""
    for block in islice(log.blocks(start, end), _BLOCKS_TRIED):
        for line in block.data.split(b"\n", _LINES_TRIED)[:_LINES_TRIED]:
            stamps = _read_stamps(line)
            if stamps is not None:
                return moment(stamps.recorded_at or stamps.ts)
    return None


class _Stamps(Struct):
    """What of a line tells when it happened."""

    ts: str
    recorded_at: str | None = None


_decode_stamps = msgspec.json.Decoder(_Stamps).decode


def _read_stamps(line: bytes) -> _Stamps | None:
    try:
        stamps = None if is_too_deep(line) else _decode_stamps(line)
        moment(stamps.recorded_at or stamps.ts if stamps is not None else "")
    except (msgspec.DecodeError, UnicodeDecodeError, BadInstant):
        return None
    return stamps
