"""One ledger of a tracker: begins at its newest checkpoint, catches up, and then reads each new line of the log.

What the tracker shows is not taken from the derived files but folded from the same log, from the same checkpoint, by
the same rules; so it is what these files say as soon as a pass has run. Nothing is locked and nothing is written.

Note: this runs in the tracker's thread, in short bursts with pauses between them, because Python code in a thread keeps
an event loop from running as much as code in the loop does.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from datetime import datetime

from msgspec import Struct

from compactor.core.fold import Fold
from compactor.core.lines import Block
from compactor.ledger import LedgerEntry
from compactor.ledger.checkpoint import DamagedCheckpoint, PrefixDigest, open_newest_slot
from compactor.ledger.errors import LogRewritten
from compactor.ledger.files import Files
from compactor.ledger.log import Log, open_log
from compactor.ledger.open_intents import Intent, read_intents
from compactor.ledger.paths import FINDINGS, LOG, STATE, TRADES
from compactor.ledger.points import newest_point, usable_points
from compactor.ledger.records import PendingOrder
from compactor.ledger.segments import Segments
from compactor.tracker.asked_orders import AskedOrders, Origin, UnplacedOrder
from compactor.tracker.change import RawChange, decode_pending
from compactor.tracker.change_fold import SHRINK_BYTES, ChangeRecorder
from compactor.tracker.kept_lines import read_tail
from compactor.tracker.log_mark import LogMark, make_mark, read_mark
from compactor.tracker.paced_restore import Pace, make_fold, restore_paced

BATCH_CHANGES = 100
RECENT_BYTES = 1 << 17
"""How much of the end of a log is read change by change when a tracker begins."""
FOLDED_BYTES_MAX = 1 << 22
"""How much may be folded for that."""
_PIECE_BYTES = 1 << 12


class OpenRow(Struct, gc=False):
    """The row of an open order, decoded when it is first looked at."""

    key: tuple[int, str]
    line: bytes
    origin: Origin
    order: PendingOrder | None = None

    def decode(self) -> PendingOrder:
        """The row as a typed value."""
        if self.order is None:
            self.order = decode_pending(self.line)
        return self.order


class LoadedLedger(Struct):
    """A ledger as of an offset: its rows, and the last lines of trades and findings with where they begin."""

    team_id: str
    offset: int
    clock: datetime | None
    rows: dict[str, OpenRow]
    trades: tuple[int, list[bytes]]
    findings: tuple[int, list[bytes]]


class LedgerBatch(Struct):
    """What was read of a ledger: everything anew (`loaded`), or what changed up to an offset; or why it cannot be
    read."""

    entry: LedgerEntry
    offset: int = 0
    mark: str = ""
    """The mark of the log at `offset`."""
    log_bytes: int = 0
    clock: datetime | None = None
    team_id: str | None = None
    loaded: LoadedLedger | None = None
    changes: list[RawChange] = []
    rows: dict[str, OpenRow] | None = None
    """All rows, after an event has named the team (rule 1.2)."""
    intents: list[Intent] | None = None
    """The intents without an outcome, where these are others than before."""
    unplaced: list[UnplacedOrder] | None = None
    """The last requests that led to no order, where these are others than before."""
    problem: str | None = None
    is_removed: bool = False
    """Whether the ledger is no more, and has not been for a while."""


class TrackedLedger:
    """Reads one ledger. Methods raise LedgerError; safe for several threads, one at a time."""

    def __init__(self, entry: LedgerEntry, files: Files) -> None:
        self.entry = entry
        self.lock = threading.RLock()
        self._files = files
        self._segments = Segments(entry.path, files)
        self._log: Log | None = None
        self._recorder: ChangeRecorder | None = None
        self._digest = PrefixDigest()
        self._file: tuple[int, int] | None = None
        self._intents: dict[str, int] | None = None
        self._mark = ""
        self.offset = 0

    @property
    def team_id(self) -> str:
        """The team, which in a directory that is a ledger itself an event may name (rule 1.2)."""
        return self._recorder.fold.team_id if self._recorder is not None else self.entry.name

    def is_changed(self) -> bool:
        """Whether the log may have more than was read, or is another file."""
        found = self._files.identity(self.entry.path / LOG)
        return found is None or self._recorder is None or self._file != (found.inode, found.size)

    def read(self, pace: Pace) -> Iterator[LedgerBatch]:
        """What is new, in batches; the first time everything. Only whole lines are read."""
        with self.lock, open_log(self.entry.path, self._files, self._segments, doing="following the log") as log:
            self._log = log
            try:
                identity = log.identity()
                end = log.end_of_whole_lines(identity.size)
                if self._recorder is not None:
                    log.check(None, self._digest)
                else:
                    yield self._load(log, end, pace)
                assert self._recorder is not None
                yield from self._follow(self._recorder, log, end, pace)
                self._digest = log.digest_prefix(self.offset)
                self._file = (identity.inode, identity.size)
            except LogRewritten:
                # Where somebody has removed the state on purpose, the next try begins anew.
                self.forget()
                raise
            finally:
                self._log = None

    def forget(self) -> None:
        """Forget everything: the next read begins anew."""
        self._recorder, self._file, self._intents, self.offset = None, None, None, 0

    def recall(self, order_id: str, first: int, end: int) -> Iterable[tuple[int, bytes]]:
        """The lines of a range that may name an order, for the fold."""
        return self._require_log().lines_naming(order_id, first, end)

    def _require_log(self) -> Log:
        assert self._log is not None, "a log is open while one of the methods of this class runs"
        return self._log

    def find_order(self, order_id: str) -> RawChange | None:
        """An order as of the last event read, from its lines in the log if need be; None where there is none."""
        with self.lock, open_log(self.entry.path, self._files, self._segments) as log:
            if self._recorder is None:
                return None
            self._log = log
            try:
                return self._recorder.find_order(order_id, self.offset)
            finally:
                self._log = None

    def read_mark(self, offset: int) -> LogMark:
        """The mark of the log at an offset up to which it was read. Raises LedgerError."""
        with self.lock, open_log(self.entry.path, self._files, self._segments) as log:
            return read_mark(log, min(offset, self.offset))

    # At the beginning.

    def _load(self, log: Log, end: int, pace: Pace) -> LedgerBatch:
        """Everything up to shortly before the end; what follows is read change by change, also what ended there."""
        fold, start, trades, findings = self._begin(log, self._choose_start(log, end), pace)
        fold.renew_rows()
        fold.before_event = pace.keep  # What the rules read takes longer than a burst for a block.
        for block in cut_blocks(log.blocks(start, max(start, end - RECENT_BYTES))):
            fold.feed_block(block, shrinks=block.end // SHRINK_BYTES != start // SHRINK_BYTES)
            start = block.end
            lines = fold.take_lines()
            trades[1].extend(lines.trades.splitlines(keepends=True))
            findings[1].extend(lines.findings.splitlines(keepends=True))
            pace.keep()
            # Only the rows that this block changed: all of them at the end would be one long burst.
            fold.renew_rows()
            pace.keep()
        fold.before_event = None
        asked = AskedOrders(fold, self._segments, self._files, self._require_log)
        asked.load(start, pace)
        rows = _make_rows(fold, asked, start, pace)
        fold.drop_rows()
        self._recorder, self.offset = ChangeRecorder(fold, asked), start
        loaded = LoadedLedger(fold.team_id, start, fold.clock, rows, trades, findings)
        self._mark = read_mark(log, start).text
        return LedgerBatch(self.entry, start, self._mark, end, fold.clock, fold.team_id, loaded)

    def _choose_start(self, log: Log, end: int) -> int:
        """Before which offset to begin: the newest point, unless one that is a little older is nearly as good."""
        recent = max(0, end - RECENT_BYTES)
        older = newest_point(self.entry.path, self.entry.team_id, self._files, log, recent)
        return recent if recent - older <= FOLDED_BYTES_MAX else end

    def _begin(
        self, log: Log, end: int, pace: Pace
    ) -> tuple[Fold, int, tuple[int, list[bytes]], tuple[int, list[bytes]]]:
        """The state to begin from, its offset, and the trades and findings up to there.

        Raises LogRewritten where the newest checkpoint is of another log, as a pass would.
        """
        newest = open_newest_slot(self.entry.path / STATE, self._files, lambda _: None)
        if newest is not None:
            newest.close()
            log.check(None, newest.header.log)
        for slot in usable_points(self.entry.path, self.entry.team_id, self._files, log, end):
            header = slot.header
            try:
                trades = read_tail(self._files, self.entry.path / TRADES, header.trades)
                findings = read_tail(self._files, self.entry.path / FINDINGS, header.findings)
                return restore_paced(slot, self.recall, pace), header.log.length, trades, findings
            except (DamagedCheckpoint, OSError):
                continue
            finally:
                slot.close()
        return make_fold(self.entry.team_id, self.recall), 0, (0, []), (0, [])

    # From then on.

    def _follow(self, recorder: ChangeRecorder, log: Log, end: int, pace: Pace) -> Iterator[LedgerBatch]:
        batch = self._make_batch(recorder, end)
        recorder.asked.forget_sealed()
        for block in log.blocks(self.offset, end):
            for line in block.split():
                team_id = recorder.fold.team_id
                batch.changes.extend(recorder.feed(line))
                self.offset, self._mark = line.end, "" if line.too_long else make_mark(line.data)
                if recorder.fold.team_id != team_id:
                    batch.rows = _make_rows(recorder.fold, recorder.asked, self.offset, pace)
                    recorder.fold.drop_rows()
                pace.keep()
                if len(batch.changes) >= BATCH_CHANGES or batch.rows is not None:
                    yield self._finish(batch, recorder)
                    batch = self._make_batch(recorder, end)
        if recorder.fold.intents != self._intents:
            self._intents = dict(recorder.fold.intents)
            batch.intents = read_intents(log, self._intents, recorder.fold.team_id)
        if recorder.asked.is_changed:
            batch.unplaced = recorder.asked.take_unplaced()
        yield self._finish(batch, recorder)

    def _make_batch(self, recorder: ChangeRecorder, end: int) -> LedgerBatch:
        return LedgerBatch(self.entry, self.offset, log_bytes=end, changes=[])

    def _finish(self, batch: LedgerBatch, recorder: ChangeRecorder) -> LedgerBatch:
        batch.offset, batch.mark = self.offset, self._mark
        batch.clock, batch.team_id = recorder.fold.clock, recorder.fold.team_id
        return batch


def _make_rows(fold: Fold, asked: AskedOrders, here: int, pace: Pace) -> dict[str, OpenRow]:
    """The rows of all open orders."""
    rows = {}
    for order_id, (key, line) in list(fold.renew_rows().items()):
        rows[order_id] = OpenRow(key, line, asked.find_origin_by_row(order_id, line, here))
        pace.keep()
    return rows


def cut_blocks(blocks: Iterable[Block]) -> Iterator[Block]:
    """Blocks of whole lines, each small enough for one burst of work."""
    for block in blocks:
        if block.too_long or block.length <= _PIECE_BYTES:
            yield block
            continue
        offset, data = block.offset, block.data
        while data:
            cut = data.rfind(b"\n", 0, _PIECE_BYTES) + 1 or data.find(b"\n", _PIECE_BYTES) + 1
            yield Block(offset, data[:cut], cut)
            offset, data = offset + cut, data[cut:]
