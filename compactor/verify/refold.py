"""Read one ledger from its first byte: hash each line into the Merkle tree, fold it, and compare the outcome.

The comparisons are in `seals`, `derived_files` and `checkpoints`.

Note: this is one pass over a log that may be growing. Checkpoints are opened first, then the derived files, and the end
of the log is taken last. So none of them can be ahead of what is folded here, whatever a daemon does meanwhile.
"""

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

from compactor.core.fold import Fold
from compactor.core.lines import Block
from compactor.core.merkle import MerkleAccumulator
from compactor.ledger.checkpoint import Slot
from compactor.ledger.compaction import PROGRESS_BYTES, Progress
from compactor.ledger.errors import SegmentDamaged
from compactor.ledger.files import Files
from compactor.ledger.log import Log
from compactor.ledger.paths import FINDINGS, LOG, PENDING, TRADES
from compactor.ledger.segment_format import KEPT_BYTES, Seal
from compactor.ledger.segments import Segments
from compactor.verify.checkpoints import (
    MarksOfSlots,
    compare_state,
    examine_slot,
    examine_tails,
    find_other_rules,
    is_ours,
    list_binding,
)
from compactor.verify.derived_files import DerivedFileCheck, OpenRows, accuse, report_pending, sum_rows
from compactor.verify.report import Discrepancies
from compactor.verify.seals import SegmentCheck, examine_times, locate_damage

_BLOCK_BYTES = 4096
_PIECE_BYTES = 1 << 20


class Refold:
    """The pass over one ledger whose seals follow each other. `run` may be called once."""

    def __init__(
        self, path: Path, team_id: str | None, retention: timedelta | None, files: Files, report: Discrepancies,
        slots: list[Slot], with_seals: bool = True,
    ) -> None:  # fmt: skip
        self._path = path
        self._files = files
        self._report = report
        self._retention = retention
        self._slots = slots
        self._with_seals = with_seals
        """Whether segments are held against their seals here, and not by somebody else at the same time."""
        # In the order in which a pass writes them: what is opened later is at least as new.
        self._pending = files.read(path / PENDING)
        self._accusation = accuse(find_other_rules(slots))
        self._trades = DerivedFileCheck(path / TRADES, files, report, self._accusation)
        self._found = DerivedFileCheck(path / FINDINGS, files, report, self._accusation)
        self._raw = files.open(path / LOG)
        self._fold: Fold | None = None
        self._team_id = team_id
        self.lag_bytes = 0

    def close(self) -> None:
        """Close what was opened."""
        for one in (self._trades, self._found, self._raw):
            one.close()

    def run(self, log: Log, segments: Segments, end: int, progress: Progress | None) -> None:
        """Read, hash, fold and compare the log up to the end of a line. Raises OSError."""
        fold = self._fold = Fold(self._team_id, log.lines_naming, self._retention)
        self._slots = [slot for slot in self._slots if examine_slot(slot, log, self._report)]
        fold.archive.marks = MarksOfSlots({slot.header.secret for slot in self._slots if is_ours(slot)})
        slots: dict[int, list[Slot]] = {}
        for slot in self._slots:
            if is_ours(slot):
                slots.setdefault(slot.header.log.length, []).append(slot)
        position, tree = 0, MerkleAccumulator()
        for seal in segments.seals:
            tree = self._read_segment(log, segments, seal, tree, slots, end, progress)
            position = seal.end
        for stop in [*sorted(stop for stop in slots if position < stop < end), end]:
            for block in log.blocks(position, stop):
                self._feed(block)
                self._show_progress(block, end, progress)
            position = stop
            self._compare(slots.get(position, ()), is_end=position == end)
        if self._fold is not None:
            self._finish(log, end)

    def _read_segment(
        self, log: Log, segments: Segments, seal: Seal, tree: MerkleAccumulator, slots: dict[int, list[Slot]], end: int,
        progress: Progress | None,
    ) -> MerkleAccumulator:  # fmt: skip
        """One segment: hashed, held against its seal and what the log still holds of it, and folded. Its tree."""
        check = SegmentCheck(seal, tree, segments.path)
        position = seal.start
        try:
            for stop in [*sorted(stop for stop in slots if position < stop < seal.end), seal.end]:
                for block in log.blocks(position, stop):
                    for data in _read_pieces(block, log) if self._with_seals else ():
                        check.feed(data)
                    self._compare_file(block, log, segments)
                    self._feed(block)
                    self._show_progress(block, end, progress)
                position = stop
                self._compare(slots.get(position, ()), is_end=position == end)
            if self._with_seals:
                check.finish(self._report)
                examine_times(seal, segments.path, self._files, self._report)
        except SegmentDamaged:
            # Nothing is folded past a gap; the other segments are still held against their seals.
            self._fold = None
            locate_damage(seal, segments.path, self._files, self._report)
        return check.tree if seal.tree is None else MerkleAccumulator(seal.tree)

    def _compare_file(self, block: Block, log: Log, segments: Segments) -> None:
        """What the log's own file still holds of a sealed range has to be the same bytes, or given back."""
        if block.end <= self._raw.data_from(block.offset):
            return
        position = block.offset
        for data in _read_pieces(block, log):
            found = self._raw.read(position, len(data))
            at = None
            if found != data:
                at = _first_foreign(position, data, found, segments.sealed_end - KEPT_BYTES)
            if at is not None and segments.refresh():
                # Somebody has sealed more meanwhile, and given more back.
                at = _first_foreign(position, data, found, segments.sealed_end - KEPT_BYTES)
            if at is not None:
                self._report.add(
                    "log_differs", log.path, offset=position + at, expected=f"byte {data[at]:#04x} as sealed, or NULs",
                    found=f"{found[at]:#04x}" if at < len(found) else "the end of the file",
                    meaning="the file was changed where it is sealed; every reader takes the sealed bytes",
                )  # fmt: skip
                return
            position += len(data)

    def _feed(self, block: Block) -> None:
        fold = self._fold
        if fold is None:
            return
        fold.feed_block(block)
        lines = fold.take_lines()
        if lines.trades:
            self._trades.put(lines.trades)
        if lines.findings:
            self._found.put(lines.findings)

    def _show_progress(self, block: Block, end: int, progress: Progress | None) -> None:
        position = block.end
        if progress is not None and (position == end or position // PROGRESS_BYTES != block.offset // PROGRESS_BYTES):
            progress(position, end)

    def _compare(self, slots: Iterable[Slot], is_end: bool) -> None:
        """Check the checkpoints of this offset against the state."""
        if self._fold is None:
            return
        for slot in slots:
            lengths = (self._trades.length, self._found.length)
            compare_state(slot, self._fold, lengths, self._retention, self._report)
            if not is_end:
                # Keeping track of what changes until the next one would cost more than making all rows again.
                self._fold.drop_rows()

    def _finish(self, log: Log, end: int) -> None:
        """All is folded: the derived files are those of the end, or of an offset from the last checkpoint on."""
        fold = self._fold
        assert fold is not None
        expected = fold.pending_lines()
        newest = max(
            (slot for slot in self._slots if is_ours(slot)), key=lambda one: one.header.log.length, default=None
        )
        least = (0, 0) if newest is None else (newest.header.trades.length, newest.header.findings.length)
        if (self._pending or b"") == expected and self._is_all_there():
            least = (self._trades.length, self._found.length)
        elif newest is not None or self._pending is not None or self._trades.size or self._found.size:
            behind = self._offset_of_pending(log, end, newest)
            if behind is None:
                report_pending(self._path / PENDING, expected, self._pending, self._report, self._accusation)
            else:
                self.lag_bytes, least = end - behind[0], behind[1:]
        else:
            self.lag_bytes = end
        self._trades.finish(least[0])
        self._found.finish(least[1])
        if not self._trades.is_bad and not self._found.is_bad:
            # The files are right, so that a checkpoint that says otherwise is not.
            for slot in list_binding(self._slots):
                examine_tails(slot, self._path, self._files, self._report)

    def _is_all_there(self) -> bool:
        return self._trades.size >= self._trades.length and self._found.size >= self._found.length

    def _offset_of_pending(self, log: Log, end: int, newest: Slot | None) -> tuple[int, int, int] | None:
        """The last offset whose open orders the file has, and the lengths of trades and findings there.

        The state of the newest checkpoint was compared, so that folding again begins there.
        """
        position, trades, found = 0, 0, 0
        fold = Fold(self._team_id, log.lines_naming, self._retention)
        if newest is not None:
            header = newest.header
            fold = newest.restore(log.lines_naming, self._retention)
            position, trades, found = header.log.length, header.trades.length, header.findings.length
        wanted = self._pending or b""
        target, rows = sum_rows(wanted), OpenRows(fold)
        matched = (position, trades, found) if rows.sum() == target and rows.lines() == wanted else None
        for block in log.blocks(position, end):
            for line in block.split():
                fold.feed_block(line)
                position = line.end
                lines = fold.take_lines()
                trades += len(lines.trades)
                found += len(lines.findings)
                if trades > self._trades.size or found > self._found.size:
                    return matched
                if rows.sum() == target and rows.lines() == wanted:
                    matched = (position, trades, found)
        return matched


def _read_pieces(block: Block, log: Log) -> Iterable[bytes]:
    """The bytes of a block; of a line that is too long piece by piece."""
    if not block.too_long:
        yield block.data
        return
    for position in range(block.offset, block.end, _PIECE_BYTES):
        yield log.read(position, min(_PIECE_BYTES, block.end - position))


def _first_foreign(offset: int, data: bytes, found: bytes, given_back: int) -> int | None:
    """Where bytes of the log's file are neither the sealed ones nor a block of NULs that may have been given back."""
    position = offset
    while position < offset + len(data):
        stop = min(offset + len(data), (position // _BLOCK_BYTES + 1) * _BLOCK_BYTES)
        here, there = data[position - offset : stop - offset], found[position - offset : stop - offset]
        if here != there and not (there == bytes(len(here)) and stop <= given_back):
            pairs = list(zip(here, there, strict=False))
            unequal = [at for at, (sealed, present) in enumerate(pairs) if sealed != present]
            # Of a block that was given back the NULs are right.
            foreign = [at for at in unequal if there[at]] if stop <= given_back else unequal
            return position - offset + next(iter(foreign or unequal), len(there))
        position = stop
    return None
