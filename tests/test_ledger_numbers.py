"""The numbers that the documents promise of the ledger and of imports, written out here once more."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

KIB, MIB = 1024, 1024 * 1024
NUMBERS = {
    # README and operations.md: what a killed process folds again, and what of a log is compared with the checkpoint.
    "ledger.compaction.CHECKPOINT_BYTES_MIN": 256 * KIB,
    "ledger.compaction.CHECKPOINT_BYTES_MAX": MIB,
    "ledger.checkpoint.TAIL_BYTES": 4 * KIB,
    # What is held in memory at once, whatever the size of a log.
    "ledger.compaction.PROGRESS_BYTES": MIB,
    "ledger.log.BLOCK_BYTES": 64 * KIB,
    "ledger.log.SEARCH_BYTES": 4 * MIB,
    "ledger.files.SMALL_BYTES_MAX": 64 * MIB,
    "ledger.open_intents._MOST_BYTES": 16 * KIB,
    "ledger.unlocked.LOOK_AHEAD_BYTES": 8 * MIB,
    "ledger.unlocked.CAT_BYTES": MIB,
    # Decision 14: points for the last 32 MiB; a pass commits each 256 MiB, and more often within its last 64 MiB.
    "ledger.points.NEAR_BYTES": 32 * MIB,
    "ledger.points.COMMIT_BYTES": 256 * MIB,
    "ledger.points.RECENT_BYTES": 16 * MIB,
    # format.md, section 8: frames of 1 MiB, of 4 MiB at most; a hole of 64 KiB at least, which leaves 4 KiB.
    "ledger.seal.FRAME_BYTES": MIB,
    "ledger.seal._BLOCK_BYTES": 4 * KIB,
    "ledger.segment_format.FRAME_BYTES_MAX": 4 * MIB,
    "ledger.segment_format.FRAMES_KEPT": 16,
    "ledger.segment_format.HOLE_BYTES_MIN": 64 * KIB,
    "ledger.segment_format.KEPT_BYTES": 4 * KIB,
    # The layout of an index: stretches are counted in a byte, tags have three.
    "ledger.index.STRETCHES_MAX": 256,
    "ledger.index._TAG": 2**24 - 1,
    "ledger.index._CHECKSUM_BYTES": 16,
    # import.md: what of a recording is held, and how far a damaged value is followed.
    "imports.envelopes.ENVELOPES_MAX": 8,
    "imports.old_matching.NEAR_TRADES_MAX": 200,
    "imports.recordings.VALUE_BYTES_MAX": 2 * MIB,
    "imports.recordings.DEPTH_MAX": 64,
    "imports.recordings.OBJECTS_TRIED_MAX": 100,
    "imports.writer.BATCH_LINES": 4000,
    "imports.writer.BATCH_BYTES": 8 * MIB,
    # What nothing adds up to.
    "imports.old_layout._ZERO": 0,
    "imports.old_matching._ZERO": 0,
    "imports.old_orders._ZERO": 0,
    "imports.parallel_run._ZERO": 0,
}


@pytest.mark.parametrize(("name", "value"), NUMBERS.items())
def test_a_promised_number_is_the_one_in_force(name: str, value: Any) -> None:
    """Whoever changes one changes the sentence that promises it."""
    module, _, constant = name.rpartition(".")
    assert value == getattr(import_module(f"compactor.{module}"), constant)
