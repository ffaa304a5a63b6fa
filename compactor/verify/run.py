"""Verify ledgers: compare everything on disk with the log, and the log with its seals.

The comparisons are in `seals`, `refold`, `derived_files` and `checkpoints`; this module goes through the
ledgers of a data directory, several at once.

Invariant: verification repairs nothing, sets nothing aside and takes no lock, so it may run beside a daemon and be
repeated.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import msgspec
from msgspec import Struct

from compactor.books.failures import Failure, describe_bad_entry, describe_failure
from compactor.books.workers import INLINE_BYTES_MAX, Board, Died, collector_paused, plan_batches, run_forked
from compactor.ledger import LedgerEntry, NoLedger, SegmentDamaged, discover
from compactor.ledger.checkpoint import Slot
from compactor.ledger.compaction import Progress
from compactor.ledger.files import Files
from compactor.ledger.log import Log, open_log
from compactor.ledger.paths import LOG, SEGMENTS, team_in_path
from compactor.ledger.segment_format import Seal
from compactor.ledger.segments import Segments
from compactor.proofs.heads import Witnessed, read_witness
from compactor.proofs.keys import VerifierKey
from compactor.verify.checkpoints import examine_slot, examine_tails, list_binding, open_slots
from compactor.verify.refold import Refold
from compactor.verify.report import Discrepancies, Discrepancy, Verdict
from compactor.verify.seals import (
    examine_alone,
    examine_chain,
    examine_heads,
    examine_indexes,
    examine_record,
    examine_witness,
    remake_indexes,
)

ALL, FOLD, SEALS = "all", "fold", "seals"
"""What one process does of a ledger: everything, or one of two halves that need nothing of each other."""


class Options(Struct, frozen=True):
    """How to verify. `told` are the lines of the witness, numbered, of all teams."""

    quick: bool = False
    deep: bool = False
    retention_days: int | None = 7
    keys: list[VerifierKey] = []
    witness: Path | None = None
    told: list[tuple[int, Witnessed]] = []


class VerifyResult(Struct, frozen=True):
    """One verdict for each ledger, by team id, and what is wrong with the witness as a whole."""

    verdicts: list[Verdict]
    witness: list[Discrepancy]


def verify_all(
    data: Path,
    *,
    team: str | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    quick: bool = False,
    deep: bool = False,
    retention_days: int | None = 7,
    keys: Sequence[VerifierKey] = (),
    witness: Path | None = None,
) -> VerifyResult:
    """Verify the ledgers of `data` (or only `team`'s), `workers` processes at most (default: one per processor).

    Changes nothing. Never raises for one ledger's sake. Raises OSError where the witness cannot be read.
    """
    entries = discover(data, team)
    told, unreadable = _told(witness, entries, team)
    options = Options(quick, deep, retention_days, list(keys), witness, told)
    sizes = [0 if quick else _log_bytes(entry) for entry in entries]
    workers = workers or os.cpu_count() or 1
    if workers == 1 or sum(sizes) < INLINE_BYTES_MAX:
        board = Board(sizes, progress)
        with collector_paused():
            found = [_verify_place(entry, options, ALL, board.reporter(at)) for at, entry in enumerate(entries)]
        return VerifyResult(found, unreadable)
    # One ledger cannot be folded by two processes, but its segments can be hashed by another one meanwhile.
    parts = (FOLD, SEALS) if len(entries) < workers else (ALL,)
    verdicts = _verify_forked(entries, parts, sizes, options, workers, progress)
    return VerifyResult(verdicts, unreadable)


def _verify_forked(
    entries: Sequence[LedgerEntry], parts: Sequence[str], sizes: Sequence[int], options: Options, workers: int,
    progress: Progress | None,
) -> list[Verdict]:  # fmt: skip
    """Verify ledgers in processes of their own; the parts of each, first to last, make one verdict."""
    items = [(entry, part) for entry in entries for part in parts]
    bytes_of = [size if part != SEALS else 0 for size in sizes for part in parts]
    board = Board(bytes_of, progress)
    found: dict[int, Verdict] = {}

    def work(index: int) -> bytes:
        entry, part = items[index]
        return msgspec.msgpack.encode(_verify_place(entry, options, part, board.reporter(index)))

    batches = plan_batches(bytes_of) if len(parts) == 1 else [[index] for index in range(len(items))]
    for index, result in run_forked(batches, work, workers=workers, on_poll=board.show if progress else None):
        found[index] = _verdict(items[index][0], result)
    return [_merged([found[at * len(parts) + part] for part in range(len(parts))]) for at in range(len(entries))]


def _merged(parts: Sequence[Verdict]) -> Verdict:
    """One verdict of those of the parts: the first one, the fold's, knows how long the log is."""
    one = parts[0]
    for other in parts[1:]:
        one.differences = other.differences + [more for more in one.differences if more not in other.differences]
        one.signed_bytes, one.witnessed_bytes = other.signed_bytes, other.witnessed_bytes
        one.elapsed_ms, one.error = max(one.elapsed_ms, other.elapsed_ms), one.error or other.error
    return one


def _told(
    witness: Path | None, entries: Sequence[LedgerEntry], team: str | None
) -> tuple[list[tuple[int, Witnessed]], list[Discrepancy]]:
    """The heads that a witness holds of these ledgers, and what in it belongs to none."""
    if witness is None:
        return [], []
    told: list[tuple[int, Witnessed]] = []
    wrong: list[Discrepancy] = []
    teams = {entry.name for entry in entries}
    if not witness.exists():
        wrong.append(
            _accuse_witness(witness, "a file with heads", "none", "the witness is missing, or is not reachable")
        )
    for number, one in read_witness(witness):
        if isinstance(one, str):
            wrong.append(_accuse_witness(witness, f"a head in line {number}", one, "this line was changed, or is torn"))
        elif one.team_id in teams:
            told.append((number, one))
        elif team is None:
            found = f"no ledger of team {one.team_id!r}"
            meaning = "a ledger that was witnessed is gone, or this line was changed"
            wrong.append(_accuse_witness(witness, f"the ledger of line {number}", found, meaning))
    return told, wrong


def _accuse_witness(witness: Path, expected: str, found: str, meaning: str) -> Discrepancy:
    return Discrepancy("witness_damaged", str(witness), None, expected, found, meaning)


def _log_bytes(entry: LedgerEntry) -> int:
    try:
        return os.stat(entry.path / LOG).st_size
    except OSError:
        return 0  # Verifying it will say what is wrong.


def _verdict(entry: LedgerEntry, result: bytes | Died) -> Verdict:
    if not isinstance(result, Died):
        return msgspec.msgpack.decode(result, type=Verdict)
    message = f"{entry.path}: {result.reason}. Nothing was changed. Run compactor verify again, with --workers 1"
    return Verdict(entry.name, str(entry.path), error=Failure("process_died", message))


def _verify_place(entry: LedgerEntry, options: Options, part: str, progress: Progress | None) -> Verdict:
    started = time.perf_counter()
    verdict = Verdict(entry.name, str(entry.path), quick=options.quick)
    if entry.problem is not None:
        verdict.error = describe_bad_entry(entry)
        return verdict
    report = Discrepancies(entry.path)
    try:
        _Pass(entry, options, part, report, verdict).run(progress)
    except Exception as error:
        verdict.error = describe_failure(error, entry.path)
    verdict.differences = report.all
    verdict.elapsed_ms = round((time.perf_counter() - started) * 1000)
    return verdict


class _Pass:
    """The verifying of one ledger."""

    def __init__(
        self, entry: LedgerEntry, options: Options, part: str, report: Discrepancies, verdict: Verdict
    ) -> None:  # fmt: skip
        self._path = entry.path
        self._team = entry.name
        self._team_id = entry.team_id or team_in_path(entry.path)
        self._options = options
        self._part = part
        self._report = report
        self._verdict = verdict
        self._files = Files()

    def run(self, progress: Progress | None) -> None:
        """Verify it. Raises LedgerError and OSError where that cannot be done."""
        if self._files.identity(self._path / LOG) is None:
            raise NoLedger(self._path, f"there is no {LOG}; expected a log of events")
        if self._part == SEALS:
            chain = examine_chain(self._path, self._files, self._report)
            self._examine_published(chain.seals)
            examine_alone(chain.seals, self._path / SEGMENTS, self._files, self._report)
            return
        slots = open_slots(self._path, self._files, self._report)
        try:
            self._run(slots, progress)
        finally:
            for slot in slots:
                slot.close()

    def _run(self, slots: list[Slot], progress: Progress | None) -> None:
        # Both halves tell what is wrong with the seals, since this one folds nothing then; one of them is left out.
        chain = examine_chain(self._path, self._files, self._report)
        if self._part == ALL:
            self._examine_published(chain.seals)
        segments = Segments(self._path, self._files)
        with ExitStack() as stack:
            log = self._open(segments, stack) if chain.is_whole else None
            if log is not None:
                self._read(log, segments, slots, progress)
            elif self._part == ALL and not self._options.quick:
                examine_alone(chain.seals, self._path / SEGMENTS, self._files, self._report)

    def _open(self, segments: Segments, stack: ExitStack) -> Log | None:
        """Open the log with its segments; None where it shows that more was sealed than there are seals for."""
        try:
            return stack.enter_context(open_log(self._path, self._files, segments, head=True))
        except SegmentDamaged as damage:
            what = damage.message.split(". ", 1)[0]
            meaning = "sealed history, or the log behind it, is gone; restore both from a backup"
            self._report.add(
                "seals_missing", damage.path, expected="seals and log that fit", found=what, meaning=meaning
            )
            return None

    def _read(self, log: Log, segments: Segments, slots: list[Slot], progress: Progress | None) -> None:
        verdict = self._verdict
        if self._options.quick:
            fitting = [slot for slot in slots if examine_slot(slot, log, self._report)]
            for slot in list_binding(fitting):
                examine_tails(slot, self._path, self._files, self._report)
        days = self._options.retention_days
        retention = None if days is None else timedelta(days=days)
        with_seals = self._part == ALL
        refold = Refold(self._path, self._team_id, retention, self._files, self._report, slots, with_seals)
        try:
            # Only now: whatever was opened so far is of an earlier moment.
            end = log.end_of_whole_lines(log.identity().size)
            verdict.log_bytes, verdict.sealed_bytes = end, segments.sealed_end
            verdict.segments = len(segments.seals)
            tree = segments.seals[-1].tree if segments.seals else None
            verdict.lines, verdict.root = (tree.size, tree.root) if tree is not None else (0, None)
            if not self._options.quick:
                refold.run(log, segments, end, progress)
                if self._options.deep:
                    remake_indexes(log, segments, self._files, self._report)
                verdict.lag_bytes = refold.lag_bytes
        finally:
            refold.close()

    def _examine_published(self, seals: Sequence[Seal]) -> None:
        """Check what was made of the seals against them: indexes, signed heads, and the heads that the witness has."""
        options, verdict = self._options, self._verdict
        examine_indexes(seals, self._path / SEGMENTS, self._files, self._report)
        verdict.signed_bytes = examine_heads(
            self._path, seals, self._team, options.keys, self._files, self._report
        )  # fmt: skip
        examine_record(self._path, self._team, seals, self._files, self._report)
        if options.witness is not None:
            told = [one for one in options.told if one[1].team_id == self._team]
            verdict.witnessed_bytes = examine_witness(options.witness, told, seals, options.keys, self._report)
