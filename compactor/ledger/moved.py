"""Prove that a log under another inode is the one that was folded: after a copy, a restore, or a move to another disk.

The log is folded once from its first byte up to the checkpoint and held against everything derived from it: the trades,
the findings, and the checkpoint's own totals and open orders. The pass itself is left to `compaction`.

Note: nothing is written. A log that says anything else is refused with the first difference.
"""

from pathlib import Path
from typing import NoReturn

from compactor.core.fold import Fold
from compactor.ledger.checkpoint import CheckpointHeader
from compactor.ledger.errors import LogRewritten
from compactor.ledger.files import Files
from compactor.ledger.log import WHAT_TO_DO, Log
from compactor.ledger.paths import FINDINGS, TRADES
from compactor.ledger.tail import find_difference


def prove_moved(log: Log, header: CheckpointHeader, fold: Fold, known: Fold, files: Files) -> None:
    """Fold a log from its first byte up to a checkpoint, and compare what comes out with what was derived before.

    `fold` is a new one, `known` the state of the checkpoint. Raises LogRewritten.
    """
    path = log.path.parent
    trades, findings = _Comparison(path / TRADES, files), _Comparison(path / FINDINGS, files)
    for block in log.blocks(0, header.log.length):
        fold.feed_block(block)
        lines = fold.take_lines()
        difference = trades.compare(lines.trades) or findings.compare(lines.findings)
        if difference is not None:
            _refuse(log, header, difference)
        fold.drop_rows()
    for comparison, expected in ((trades, header.trades), (findings, header.findings)):
        if comparison.offset != expected.length:
            found = f"{comparison.path.name} has {expected.length} bytes from it, expected {comparison.offset}"
            _refuse(log, header, found)
    if (fold.counts, fold.clock, fold.team_id) != (known.counts, known.clock, known.team_id):
        _refuse(log, header, f"the checkpoint has {known.counts.events} events of it, expected {fold.counts.events}")
    if fold.pending_lines() != known.pending_lines():
        _refuse(log, header, "the checkpoint has other open orders than follow from it")


class _Comparison:
    """A derived file, compared with the lines that come out of a fold as they come."""

    def __init__(self, path: Path, files: Files) -> None:
        self.path = path
        self.offset = 0
        self._files = files

    def compare(self, data: bytes) -> str | None:
        """The first difference, for people; None where the file goes on with these bytes."""
        if not data:
            return None
        reader = self._files.open(self.path)
        try:
            found = reader.read(self.offset, len(data))
        finally:
            reader.close()
        if found != data:
            at = find_difference(data, found)
            wanted, got = data[at : at + 60], found[at : at + 60]
            return f"at offset {self.offset + at} of {self.path.name} expected {wanted!r}, found {got!r}"
        self.offset += len(data)
        return None


def _refuse(log: Log, header: CheckpointHeader, difference: str) -> NoReturn:
    inode = log.identity().inode
    found = f"the log was replaced by another file: expected inode {header.inode}, found {inode}, and {difference}"
    raise LogRewritten(log.path, f"{found}. {WHAT_TO_DO}")
