"""Replay a ledger up to a moment: as a value, as lines, or as files. Needs no lock and changes nothing.

A `Replay` starts at the newest checkpoint or point that cannot change the answer, and yields the lines that follow.
Which lines a moment selects is decided in `moment`. Files get their names only when all of them are written, so an
interrupted replay leaves nothing that looks like a result.

Note: a caller that wants every trade or finding (`from_first`) folds from the first byte. The trades before a
checkpoint lie in a file that anybody may have changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec
from msgspec import Struct

from compactor.books.workers import collector_paused
from compactor.core.archive import Archive, BloomFilter, SpanRecord
from compactor.core.derived import Lines
from compactor.core.fold import Fold
from compactor.history.moment import Moment, Selection
from compactor.ledger import LedgerEntry
from compactor.ledger.checkpoint import TAIL_BYTES, CheckpointHeader, DamagedCheckpoint, Slot, begin_fold, checksum
from compactor.ledger.compaction import Progress
from compactor.ledger.errors import BadTeam, LedgerError, from_os
from compactor.ledger.files import Files
from compactor.ledger.log import Log, open_log
from compactor.ledger.paths import FINDINGS, LOG, PENDING, TRADES
from compactor.ledger.points import newest_point, usable_points
from compactor.ledger.segments import Segments

RETENTION = timedelta(days=7)
"""Bounds memory, and no output depends on it (6.2)."""

_decode_spans = msgspec.msgpack.Decoder(list[SpanRecord]).decode


class BeyondLog(LedgerError):
    """An offset that lies behind the end of the log."""


class Replay:
    """The fold of one ledger up to a moment. Call `begin`, then exhaust `run`; `fold` is then as of the moment."""

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
        self.fold = begin_fold(self._team_id, self._selection.recall, RETENTION)
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
        """The last trades before the start, as far as the checkpoint's digest of their file confirms them."""
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
    pages = BloomFilter(header.marked, lambda number: marks[number] if number < len(marks) else b"", header.secret)
    fold.archive = Archive(marks=pages)
    fold.archive.keep_all(spans)
    return fold


@contextmanager
def open_replay(path: Path, team_id: str | None, files: Files | None = None) -> Iterator[Replay]:
    """Open a ledger to replay it. Changes nothing, and needs no lock. Raises LedgerError."""
    files = files or Files()
    segments = Segments(path, files)
    with open_log(path, files, segments, doing="reading the ledger") as log:
        yield Replay(path, team_id, log, segments, files)


What = Literal["pending", "trades", "findings"]


class Past(Struct):
    """A ledger as of a moment: counts, the bytes of its pending orders, and some of its last trades.

    `offset` is up to where the log was read, `folded_from` where folding it began.
    """

    team_id: str
    path: str
    moment: str
    offset: int
    folded_from: int
    events: int
    open_orders: int
    trades: int
    findings: int
    pending: bytes
    last_trades: list[bytes]


LAST_TRADES = 10
"""The most trades that are shown; fewer if more would mean reading those before the starting point."""


def replay_past(entry: LedgerEntry, moment: Moment, progress: Progress | None = None) -> Past:
    """A ledger as of a moment. Raises LedgerError."""
    with collector_paused(), open_replay(require_usable(entry), entry.team_id) as replay:
        replay.begin(moment)
        last = replay.last_trades().splitlines(keepends=True)
        for lines in replay.run(progress):
            last = [*last, *lines.trades.splitlines(keepends=True)[-LAST_TRADES:]][-LAST_TRADES:]
        return _past(replay, moment, last[-LAST_TRADES:])


def replay_lines(entry: LedgerEntry, moment: Moment, what: What, progress: Progress | None = None) -> Iterator[bytes]:
    """The lines of one derived file as of a moment, as they come out of the fold. Raises LedgerError."""
    with collector_paused(), open_replay(require_usable(entry), entry.team_id) as replay:
        replay.begin(moment, from_first=what != "pending")
        for lines in replay.run(progress):
            if what != "pending":
                yield from (lines.trades if what == "trades" else lines.findings).splitlines(keepends=True)
        if what == "pending":
            yield from replay.fold.pending_lines().splitlines(keepends=True)


def write_past(entry: LedgerEntry, moment: Moment, directory: Path, progress: Progress | None = None) -> Past:
    """Write the three derived files as of a moment into a directory, which is made; an empty one is not written.

    Raises LedgerError.
    """
    paths = {name: directory / (name + ".tmp") for name in (PENDING, TRADES, FINDINGS)}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with paths[TRADES].open("wb") as trades, paths[FINDINGS].open("wb") as findings:
            past = _write(entry, moment, directory, trades, findings, progress)
        paths[PENDING].write_bytes(past.pending)
        for name, path in paths.items():
            if path.stat().st_size:
                path.rename(directory / name)
            else:
                path.unlink()
        return past
    except OSError as error:
        raise _unwritten(directory, error) from error
    finally:
        with suppress(OSError):
            for path in paths.values():
                path.unlink(missing_ok=True)


def _write(
    entry: LedgerEntry, moment: Moment, directory: Path, trades: BinaryIO, findings: BinaryIO, progress: Progress | None
) -> Past:
    with collector_paused(), open_replay(require_usable(entry), entry.team_id) as replay:
        replay.begin(moment, from_first=True)
        for lines in replay.run(progress):
            try:
                trades.write(lines.trades)
                findings.write(lines.findings)
            except OSError as error:
                raise _unwritten(directory, error) from error
        return _past(replay, moment, [])


def _unwritten(directory: Path, error: OSError) -> LedgerError:
    return from_os(directory, error, "writing what was replayed", "replay again into another directory")


def _past(replay: Replay, moment: Moment, last_trades: list[bytes]) -> Past:
    fold = replay.fold
    pending = fold.pending_lines()
    counts = fold.counts
    return Past(
        fold.team_id, str(replay.path), moment.text, replay.offset, replay.started_at, counts.events, fold.open_orders,
        counts.trades, counts.findings, pending, last_trades,
    )  # fmt: skip


def require_usable(entry: LedgerEntry) -> Path:
    """The directory of a ledger that can be read. Raises BadTeam."""
    if entry.problem is not None:
        raise BadTeam(entry.path, entry.problem)
    return entry.path
