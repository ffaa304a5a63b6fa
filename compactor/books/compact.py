"""Compact every ledger of a data directory, several at once; say how each of them stands, without changing any.

Folding one ledger is `Ledger.compact`; this module decides which process does it and gathers the results. The result
has one entry for every ledger found, in the order of team ids; a ledger that fails is an entry with its error.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from compactor.books.failures import Failure, describe_bad_entry, describe_failure
from compactor.books.workers import INLINE_BYTES_MAX, Board, Died, collector_paused, plan_batches, run_forked
from compactor.ledger import Compaction, Ledger, LedgerEntry, LedgerStatus, NoLedger, discover
from compactor.ledger.compaction import Progress
from compactor.ledger.open_intents import read_open_intents
from compactor.ledger.paths import LOG


class Outcome(msgspec.Struct, frozen=True):
    """What happened to one ledger: exactly one of `compaction` and `error` is there."""

    team_id: str
    path: str
    compaction: Compaction | None = None
    error: Failure | None = None


def compact_all(
    data: Path,
    *,
    team: str | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    retention_days: int | None = 7,
    checkpoint: bool = False,
) -> list[Outcome]:
    """Compact the ledgers of `data` (or only `team`'s) and return one outcome for each, ordered by team id.

    Returns after every ledger's files are on disk. `workers` processes at most (default: one per processor).
    `progress(bytes_done, bytes_total)` is called now and then from this process. Never raises for one ledger's sake;
    KeyboardInterrupt ends the workers and leaves each ledger as after its last commit. With `checkpoint` every ledger
    gets one, however little was new.
    """

    def compact_one(index: int) -> Outcome:
        return _compact_one(entries[index], board.reporter(index), retention_days, checkpoint)

    entries = discover(data, team)
    sizes = [_measure_log(entry) for entry in entries]
    workers = workers or os.cpu_count() or 1
    board = Board(sizes, progress)
    if len(entries) < 2 or workers == 1 or sum(sizes) < INLINE_BYTES_MAX:
        with collector_paused():
            return [compact_one(index) for index in range(len(entries))]
    outcomes: dict[int, Outcome] = {}

    def work(index: int) -> bytes:
        return msgspec.msgpack.encode(compact_one(index))

    batches = plan_batches(sizes)
    for index, result in run_forked(batches, work, workers=workers, on_poll=board.show if progress else None):
        outcomes[index] = _decode_outcome(entries[index], result)
    return [outcomes[index] for index in range(len(entries))]


def _compact_one(
    entry: LedgerEntry, progress: Progress | None, retention_days: int | None, checkpoint: bool
) -> Outcome:
    path = str(entry.path)
    if entry.problem is not None:
        return Outcome(entry.name, path, error=describe_bad_entry(entry))
    try:
        with Ledger(entry.path, team_id=entry.team_id, retention_days=retention_days) as ledger:
            compaction = ledger.compact(progress=progress, checkpoint=checkpoint)
        return Outcome(compaction.team_id, path, compaction=compaction)
    except Exception as error:
        return Outcome(entry.name, path, error=describe_failure(error, path))


def _decode_outcome(entry: LedgerEntry, result: bytes | Died) -> Outcome:
    if not isinstance(result, Died):
        return msgspec.msgpack.decode(result, type=Outcome)
    message = (
        f"{entry.path}: {result.reason}. Nothing was lost: the ledger stands at its last commit. Run compactor compact "
        "again, with --workers 1 if memory was short"
    )
    return Outcome(entry.name, str(entry.path), error=Failure("process_died", message))


def _measure_log(entry: LedgerEntry) -> int:
    try:
        return os.stat(entry.path / LOG).st_size
    except OSError:
        return 0  # Compacting it will say what is wrong.


class Report(msgspec.Struct, frozen=True):
    """How one ledger stands: exactly one of `status` and `error` is there."""

    team_id: str
    path: str
    status: LedgerStatus | None = None
    error: Failure | None = None


def status_all(data: Path, *, team: str | None = None) -> list[Report]:
    """The status of the ledgers of `data` (or only `team`'s), one report for each, ordered by team id."""
    return [_report(entry) for entry in discover(data, team)]


def _report(entry: LedgerEntry) -> Report:
    path = str(entry.path)
    if entry.problem is not None:
        return Report(entry.name, path, error=describe_bad_entry(entry))
    try:
        if not (entry.path / LOG).exists():
            raise NoLedger(entry.path, f"there is no {LOG}; append events to it first")
        with Ledger(entry.path, team_id=entry.team_id) as ledger:
            status = ledger.status()
        return Report(status.team_id, path, status=status)
    except Exception as error:
        return Report(entry.name, path, error=describe_failure(error, path))


class Rows:
    """The derived rows of several ledgers, one after the other, read while they are iterated.

    `failures` has an entry for each ledger that could not be read; it is complete once the iteration is over.
    """

    def __init__(self, entries: Sequence[LedgerEntry], what: str) -> None:
        self.ledgers = len(entries)
        self.failures: list[tuple[str, Failure]] = []
        self._entries = entries
        self._what = what

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for entry in self._entries:
            if entry.problem is not None:
                self.failures.append((entry.name, describe_bad_entry(entry)))
                continue
            try:
                if self._what == "intents":
                    yield from map(msgspec.structs.asdict, read_open_intents(entry))
                    continue
                with Ledger(entry.path, team_id=entry.team_id) as ledger:
                    yield from _rows(ledger, self._what)
            except Exception as error:
                self.failures.append((entry.name, describe_failure(error, entry.path)))


def read_rows(data: Path, what: str, *, team: str | None = None) -> Rows:
    """The `pending` orders, `trades` or `findings` of the ledgers of `data`, as of their last commit; or their open
    `intents` (rule 3.13), as of the end of the logs."""
    return Rows([entry for entry in discover(data, team) if (entry.path / LOG).exists()], what)


def _rows(ledger: Ledger, what: str) -> Iterator[dict[str, Any]]:
    if what == "pending":
        yield from ledger.rows("pending_orders")
    elif what == "trades":
        yield from ledger.rows("trades")
    else:
        # A finding does not name its team, because it stands in its team's file; among several it has to.
        yield from ({"team_id": ledger.team_id, **finding} for finding in ledger.rows("findings"))
