"""Replay: the fold of a ledger up to a moment, beside the live files and without their lock.

A `Replay` begins with the newest checkpoint or point that cannot change the answer, and hands out the lines that come
after it as they come. Which lines a moment selects is said by `selecting`. What surprises: where every line from the
first byte on is wanted (`from_first`), nothing at hand is used, since the trades that a checkpoint stands for lie in a
file that anybody may have changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import msgspec

from compactor.core.archive import Archive, BloomFilter, SpanRecord
from compactor.core.derived import Lines
from compactor.core.fold import Fold
from compactor.history.moment import Moment
from compactor.history.selecting import Selection
from compactor.ledger.checkpoint import TAIL_BYTES, CheckpointHeader, DamagedCheckpoint, Slot, checksum
from compactor.ledger.compaction import Progress
from compactor.ledger.errors import LedgerError
from compactor.ledger.files import Files
from compactor.ledger.log import Log, open_log
from compactor.ledger.paths import LOG, TRADES
from compactor.ledger.points import newest_point, usable_points
from compactor.ledger.segments import Segments

RETENTION = timedelta(days=7)
"""Bounds memory, and no output depends on it (6.2)."""

_decode_spans = msgspec.msgpack.Decoder(list[SpanRecord]).decode


class BeyondLog(LedgerError):
    """An offset that lies behind the end of the log."""


class Replay:
    """The fold of one ledger up to a moment: `begin`, then `run` to its end. What stands here then is as of it."""

    def __init__(self, path: Path, team_id: str | None, log: Log, segments: Segments, files: Files) -> None:
        self.path = path
        self._team_id = team_id
        self._log = log
        self._files = files
        self._segments = segments
        self._header: CheckpointHeader | None = None
        self._selection: Selection | None = None
        self._end = 0
        self.fold = Fold(team_id, log.lines_naming, RETENTION)
        self.offset = 0
        """Up to where the log is read."""
        self.started_at = 0
        """The offset of the checkpoint or point that it started from."""

    def begin(self, moment: Moment, *, from_first: bool = False, limit: int | None = None) -> None:
        """Choose where to start: with the log's first byte if `from_first`, else with the newest usable checkpoint or
        point (at or before the offset `limit`, if one is given). Raises BeyondLog, SegmentDamaged."""
        self._header = None
        size = self._log.identity().size
        if moment.offset is not None and moment.offset > size:
            found = f"found a log of {size} bytes, which ends before offset {moment.offset}"
            raise BeyondLog(self.path / LOG, f"{found}; expected an offset up to {size}")
        self._end = size if moment.offset is None else moment.offset
        self._selection = Selection(moment, self._log, self._segments, self._files)
        self.fold = Fold(self._team_id, self._selection.recall, RETENTION)
        if not from_first:
            self._start_at_a_point(self._selection, self._end if limit is None else min(self._end, limit))
        self.offset = self.started_at = self._header.log.length if self._header is not None else 0

    def _start_at_a_point(self, selection: Selection, limit: int) -> None:
        known = (self.path, self._team_id, self._files, self._log)
        limit = selection.whole_up_to(newest_point(*known, limit))
        for slot in usable_points(*known, limit):
            try:
                self.fold = _restored(slot, selection)
            except DamagedCheckpoint:
                continue
            finally:
                slot.close()
            self._header = slot.header
            return

    def run(self, progress: Progress | None = None) -> Iterator[Lines]:
        """Fold up to the moment, yielding what comes of each stretch of the log. Raises SegmentDamaged."""
        assert self._selection is not None, "a replay runs after it has begun"
        fold, end = self.fold, self._end
        for block in self._selection.blocks(self.offset, end):
            fold.feed_block(block)
            self.offset = block.end
            lines = fold.take_lines()
            if lines.trades or lines.findings:
                yield lines
            if progress is not None:
                progress(self.offset, end)

    def last_trades(self) -> bytes:
        """The last trades before the start, as many as the checkpoint's digest of their file bears out."""
        if self._header is None or not self._header.trades.length:
            return b""
        length = self._header.trades.length
        start = max(0, length - TAIL_BYTES)
        try:
            reader = self._files.open(self.path / TRADES)
        except OSError:
            return b""
        try:
            data = reader.read(start, length - start)
        finally:
            reader.close()
        if checksum(data) != self._header.trades.tail:
            return b""
        return data[data.find(b"\n") + 1 :] if start else data


def _restored(slot: Slot, selection: Selection) -> Fold:
    """The fold of a checkpoint, all of it read at once. Raises DamagedCheckpoint.

    A page that turned out to be damaged in the middle of a fold would come too late, and looking up each new order in
    its page costs more than reading them all.
    """
    header = slot.header
    fold = slot.restore(selection.recall, RETENTION)
    marks = [slot.read(chunk) for chunk in header.marks]
    spans = [record for chunk in header.spans for record in _decode_spans(slot.read(chunk))]
    fold.archive = Archive(
        marks=BloomFilter(header.marked, lambda number: marks[number] if number < len(marks) else b"")
    )
    fold.archive.keep_all(spans)
    return fold


@contextmanager
def open_replay(path: Path, team_id: str | None, files: Files | None = None) -> Iterator[Replay]:
    """Open a ledger to replay it. Changes nothing, and needs no lock. Raises LedgerError."""
    files = files or Files()
    segments = Segments(path, files)
    with open_log(path, files, segments, doing="reading the ledger") as log:
        yield Replay(path, team_id, log, segments, files)
