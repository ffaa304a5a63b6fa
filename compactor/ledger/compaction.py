"""One pass over a ledger: the commit protocol of format.md section 7, in its order.

The log is synced and folded from the checkpoint on; the derived lines are appended to trades and findings and synced;
the pending orders are replaced; and now and then a checkpoint is written. A pass that is stopped anywhere leaves files
from which the next one derives the same bytes. A pass that fails takes back what it appended and forgets its state.
"""

import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path

from msgspec import Struct

from compactor.core.fold import Fold
from compactor.ledger.checkpoint import (
    FOLD_VERSION,
    FORMAT,
    DamagedCheckpoint,
    PrefixDigest,
    Slot,
    Slots,
    begin_fold,
    encode_slot,
)
from compactor.ledger.errors import DerivedConflict, TooMuch, from_os
from compactor.ledger.files import Files, replace
from compactor.ledger.log import Log, open_log
from compactor.ledger.moved import prove_moved
from compactor.ledger.paths import FINDINGS, LOG, PENDING, STATE, TRADES
from compactor.ledger.points import keep_point, plan_commit
from compactor.ledger.segments import Segments
from compactor.ledger.tail import Tail, find_upgrade, set_aside

CHECKPOINT_BYTES_MIN = 1 << 18
"""Bytes of log after which a checkpoint is written, or as many as the last checkpoint has: so writing them never
costs more than the fold."""
CHECKPOINT_BYTES_MAX = 1 << 20
"""After so many bytes of log one is written however large it is, so that a process that was killed costs the next one a
few milliseconds."""
PROGRESS_BYTES = 1 << 20

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes there are."""


class Compaction(Struct, frozen=True):
    """What a pass did. `events`, `trades` and `findings` are totals of the ledger, `new_*` those of this pass;
    `bytes` of log were folded, `tail_bytes` of an unfinished last line were left."""

    team_id: str
    path: str
    events: int
    open_orders: int
    trades: int
    findings: int
    bytes: int
    offset: int
    tail_bytes: int
    new_events: int
    new_trades: int
    new_findings: int
    elapsed_ms: int
    kinds: dict[str, int]
    """`events` by name."""
    set_aside: list[str]
    """Derived files of an older fold version that were kept under another name (section 7)."""
    moved: bool
    """Whether the log was found under another inode, after a copy or a restore, and proven to be the same."""


class Compactor:
    """The state of one ledger in memory, and the passes that keep its files current. The caller holds the ledger's
    lock."""

    def __init__(self, path: Path, team_id: str | None, retention: timedelta | None, files: Files) -> None:
        self.path = path
        self.segments = Segments(path, files)
        """What is sealed of the log, as of the last pass."""
        self._team_id = team_id
        self._retention = retention
        self._files = files
        self._slots = Slots(path / STATE, files)
        self._slot: Slot | None = None
        self._log: Log | None = None
        self._fold: Fold | None = None
        # Where the state is in the log, known once there is one.
        self._inode: int
        self._offset: int
        self._log_digest: PrefixDigest
        self._generation = 0
        self._checkpoint_at: int | None = None
        self._checkpoint_bytes: int
        self._readable_bytes: int | None = None
        self._fold_until: float | None = None
        self._upgrades: int | None = None
        """The older fold version that derived the files which are compared in this pass."""
        self._set_aside: list[str]
        self._has_moved: bool
        self._trades = Tail(path / TRADES, files)
        self._findings = Tail(path / FINDINGS, files)

    def may_know(self, order_id: str) -> bool:
        """Whether the log may have an event of an order: False is certain, as of now. True where the log has grown
        since the last pass of this object, or nothing is in memory."""
        fold = self._fold
        return fold is None or not self._is_current() or fold.may_know(order_id)

    def may_have_intents(self) -> bool:
        """Whether the log may have an intent without an outcome; as `may_know`."""
        return self._fold is None or not self._is_current() or bool(self._fold.intents)

    def _is_current(self) -> bool:
        """Whether the log is what the last pass of this object has read."""
        identity = self._files.identity(self.path / LOG)
        return identity is not None and identity.size == self._offset and identity.inode == self._inode

    def close(self) -> None:
        """Forget the state; the files stay as they are."""
        self._fold = None
        if self._slot is not None:
            self._slot.close()
            self._slot = None

    def run(
        self,
        progress: Progress | None = None,
        *,
        checkpoint: bool,
        limit_bytes: int | None = None,
        limit_seconds: float | None = None,
    ) -> Compaction:
        """Fold what is new and commit it; with `checkpoint` write one however little is new.

        Raises LedgerError: TooMuch if the pass would read more than `limit_bytes`, new and old ones together, or folds
        for longer than `limit_seconds`.
        """
        started = time.perf_counter()
        self._has_moved = False
        self._readable_bytes = limit_bytes
        self._fold_until = started + limit_seconds if limit_seconds is not None else None
        with open_log(self.path, self._files, self.segments, again="compact again") as log:
            self._log = log
            try:
                return self._run(log, progress, checkpoint, started)
            except OSError as error:
                self._roll_back()
                raise from_os(self.path, error, "compacting") from error
            except BaseException:
                # Also on Ctrl-C: the files are as they were, and the next pass starts from the checkpoint.
                self._roll_back()
                raise
            finally:
                self._log = None

    def _roll_back(self) -> None:
        self.close()
        try:
            self._trades.roll_back()
            self._findings.roll_back()
        except OSError:
            # What stays behind is a beginning of what the next pass derives, which is what it expects to find.
            return

    def _run(self, log: Log, progress: Progress | None, checkpoint: bool, started: float) -> Compaction:
        size = log.identity().size
        self._set_aside = []
        while True:
            try:
                fold = self._load(log)
                before = (fold.counts.events, fold.counts.trades, fold.counts.findings, self._offset)
                self._spend(size - self._offset)
                log.sync()
                self._advance(fold, log, size, progress)
                self._commit(fold, log, final=True, checkpoint=checkpoint)
                break
            except DamagedCheckpoint as damage:
                # A page of the checkpoint that nobody had read so far: fall back to the other slot, or to the whole
                # log.
                self._roll_back()
                self._slots.set_aside(damage)
            except DerivedConflict as conflict:
                self._roll_back()
                kept = set_aside(conflict.path, self._upgrades, self._files)
                if kept is None:
                    raise
                self._set_aside.append(kept)
        counts = fold.counts
        return Compaction(
            fold.team_id, str(self.path), counts.events, fold.open_orders, counts.trades, counts.findings,
            self._offset - before[3], self._offset, size - self._offset, counts.events - before[0],
            counts.trades - before[1], counts.findings - before[2], round((time.perf_counter() - started) * 1000),
            dict(counts.kinds), self._set_aside, self._has_moved,
        )  # fmt: skip

    # From the checkpoint.

    @property
    def clock(self) -> datetime | None:
        """The log's own clock (6.1), as far as it is in memory."""
        return self._fold.clock if self._fold is not None else None

    @property
    def is_ahead_of_checkpoint(self) -> bool:
        """Whether a new process would have to fold again what this one has in memory."""
        return self._fold is not None and self._offset != self._checkpoint_at

    def _load(self, log: Log) -> Fold:
        """The state to start from: what is in memory, else the newest good checkpoint, else nothing at all."""
        if self._fold is not None:
            log.check(None, self._log_digest)
            if self._is_behind_files() or log.identity().inode != self._inode:
                self.close()
        if self._fold is None:
            self._fold = self._restore(log) or self._start_over(log)
        self._trades.begin()
        self._findings.begin()
        return self._fold

    def _is_behind_files(self) -> bool:
        """Whether somebody removed what was derived, so that it has to be derived again from the start."""
        sizes = (self._files.identity(tail.path) for tail in (self._trades, self._findings))
        lengths = (self._trades.length, self._findings.length)
        return any((size.size if size else 0) < length for size, length in zip(sizes, lengths, strict=True))

    def _restore(self, log: Log) -> Fold | None:
        slot = self._slots.open_newest()
        if slot is None:
            return None
        # From here on closed with the state, whatever stops this.
        self._slot, header = slot, slot.header
        log.check(None, header.log)
        self._generation = header.generation
        self._trades = Tail(self.path / TRADES, self._files, header.trades)
        self._findings = Tail(self.path / FINDINGS, self._files, header.findings)
        fits = self._trades.fits(header.trades) and self._findings.fits(header.findings)
        self._upgrades = find_upgrade(header, self._trades, self._findings, self._files)
        is_ours = (header.format, header.fold_version) == (FORMAT, FOLD_VERSION)
        if not (is_ours and fits and self._team_id in (None, header.team_id)):
            self.close()
            return None
        fold = slot.restore(self._recall, self._retention)
        self._inode = log.identity().inode
        if self._inode != header.inode:
            self._prove_moved(log, slot)
        self._offset, self._log_digest = header.log.length, header.log
        self._checkpoint_at, self._checkpoint_bytes = self._offset, CHECKPOINT_BYTES_MIN
        return fold

    def _prove_moved(self, log: Log, slot: Slot) -> None:
        """The log is another file than that of the checkpoint: fold it once and compare all of it."""
        self._spend(slot.header.log.length)
        fold = begin_fold(self._team_id, self._recall, self._retention)
        fold.before_event = self._check_time if self._fold_until is not None else None
        prove_moved(log, slot.header, fold, slot.restore(self._recall, self._retention), self._files)
        self._has_moved = True

    def _start_over(self, log: Log) -> Fold:
        self._trades = Tail(self.path / TRADES, self._files)
        self._findings = Tail(self.path / FINDINGS, self._files)
        self._inode, self._offset, self._log_digest = log.identity().inode, 0, log.digest_prefix(0)
        self._checkpoint_at = None
        return begin_fold(self._team_id, self._recall, self._retention)

    def _recall(self, order_id: str, first: int, end: int) -> Iterable[tuple[int, bytes]]:
        assert self._log is not None
        self._spend(end - first)
        return self._log.lines_naming(order_id, first, end)

    def _spend(self, read_bytes: int) -> None:
        """Count what is to be read against the limit of the pass."""
        if self._readable_bytes is not None:
            self._readable_bytes -= read_bytes
            if self._readable_bytes < 0:
                found = "this pass has to read more of the log than it may"
                raise TooMuch(self.path, f"{found}; nothing was changed. compactor compact has no such limit")

    def _check_time(self) -> None:
        """Stop a pass that folds for longer than it may."""
        assert self._fold_until is not None
        if time.perf_counter() > self._fold_until:
            found = "this pass folds for longer than it may"
            raise TooMuch(self.path, f"{found}; nothing was changed. compactor compact has no such limit")

    # Forward.

    def _advance(self, fold: Fold, log: Log, size: int, progress: Progress | None) -> None:
        """Fold the whole lines up to `size`, handing out what comes as it comes, so that memory stays bounded."""
        fold.before_event = self._check_time if self._fold_until is not None else None
        started = committed = told = self._offset
        for block in log.blocks(self._offset, size):
            fold.feed_block(block)
            self._offset = block.end
            self._put(fold)
            if progress is not None and self._offset - told >= PROGRESS_BYTES:
                progress(self._offset, size)
                told = self._offset
            if plan_commit(self._offset - committed, size - self._offset, first=committed == started):
                self._commit(fold, log, final=False, checkpoint=True)
                committed = self._offset
        if progress is not None:
            progress(self._offset, size)

    def _put(self, fold: Fold) -> None:
        lines = fold.take_lines()
        if lines.trades:
            self._trades.put(lines.trades)
        if lines.findings:
            self._findings.put(lines.findings)

    def _commit(self, fold: Fold, log: Log, final: bool, checkpoint: bool) -> None:
        """Make what was derived durable, in the order in which a crash may come: files, pending orders, checkpoint."""
        for tail in (self._trades, self._findings):
            tail.flush()
            if final:
                tail.finish()
            if tail.unsynced:
                tail.sync()
        self._write_pending(fold)
        is_upgraded = final and self._upgrades is not None
        if final:
            self._upgrades = None
        self._log_digest = log.digest_prefix(self._offset)
        since = self._offset - (self._checkpoint_at or 0)
        wanted = (checkpoint and since) or is_upgraded or self._has_moved
        if wanted or self._checkpoint_at is None or since >= self._checkpoint_bytes:
            self._write_checkpoint(fold)
        for tail in (self._trades, self._findings):
            if final:
                tail.end()
            else:
                tail.keep()
        if not final:
            fold.drop_rows()

    def _write_pending(self, fold: Fold) -> None:
        """Replace the pending orders, or remove them when none is open, only when they changed."""
        path, lines = self.path / PENDING, fold.pending_lines()
        found = self._files.identity(path)
        if self._files.holds(path, lines) if lines else found is None:
            return
        is_known = self._checkpoint_at is not None or self._upgrades is not None
        if found is not None and found.size and not is_known:
            # Before the first checkpoint this may be anybody's file, such as one of the old layout.
            self._files.rename(path, path.with_name(PENDING + ".before"))
        if lines:
            replace(self._files, path, [lines])
        else:
            self._files.remove(path)
            self._files.sync_directory(self.path)

    def _write_checkpoint(self, fold: Fold) -> None:
        self._generation += 1
        trades, findings = self._trades.digest(), self._findings.digest()
        parts = encode_slot(fold, self._generation, self._inode, self._log_digest, trades, findings, self._upgrades)
        keep_point(self._files, self._slots.write(parts), self._offset)
        wanted = max(CHECKPOINT_BYTES_MIN, sum(map(len, parts)))
        self._checkpoint_at, self._checkpoint_bytes = self._offset, min(wanted, CHECKPOINT_BYTES_MAX)
