"""The changes behind an older offset, folded again from the log in a thread and handed over piece by piece."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

from compactor.core.fold import Fold
from compactor.ledger import LedgerEntry
from compactor.ledger.checkpoint import DamagedCheckpoint
from compactor.ledger.files import Files
from compactor.ledger.log import Log, open_log
from compactor.ledger.points import usable_points
from compactor.ledger.segments import Segments
from compactor.tracker.asked_orders import AskedOrders
from compactor.tracker.change import RawChange
from compactor.tracker.change_fold import SHRINK_BYTES, ChangeRecorder
from compactor.tracker.paced_restore import Pace, make_fold, restore_paced
from compactor.tracker.tracked_ledger import BATCH_CHANGES, cut_blocks

Hand = Callable[[list[RawChange], int], None]
"""Called with changes and the offset up to which these are all; it may wait."""


def fold_changes(entry: LedgerEntry, after: int, end: int, hand: Hand, stop: threading.Event) -> None:
    """Hand over every change behind `after` of the lines that end at `end` or before. Raises LedgerError.

    Begins at the newest checkpoint or point that is not behind `after`. Returns early once `stop` is set.
    """
    files, pace = Files(), Pace()
    segments = Segments(entry.path, files)
    with open_log(entry.path, files, segments) as log:
        fold, offset = _begin(entry, files, log, after, pace)
        fold.before_event = pace.keep
        for block in cut_blocks(log.blocks(offset, after)):
            fold.feed_block(block, shrinks=block.end // SHRINK_BYTES != offset // SHRINK_BYTES)
            fold.take_lines()
            offset = block.end
            pace.keep()
            if stop.is_set():
                return
        fold.before_event = None
        asked = AskedOrders(fold, segments, files, lambda: log)
        asked.load(offset, pace)
        recorder, found = ChangeRecorder(fold, asked), list[RawChange]()
        for block in log.blocks(offset, end):
            for line in block.split():
                found += [change for change in recorder.feed(line) if change.is_behind(after)]
                offset = line.end
                pace.keep()
                if stop.is_set():
                    return
                if len(found) >= BATCH_CHANGES:
                    hand(found, offset)
                    found = []
        hand(found, offset)


def _begin(entry: LedgerEntry, files: Files, log: Log, after: int, pace: Pace) -> tuple[Fold, int]:
    for slot in usable_points(entry.path, entry.team_id, files, log, after):
        with suppress(DamagedCheckpoint, OSError):
            try:
                return restore_paced(slot, log.lines_naming, pace), slot.header.log.length
            finally:
                slot.close()
    return make_fold(entry.team_id, log.lines_naming), 0
