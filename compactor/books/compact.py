"""Compacts every ledger of a data directory, several at once.

Folding one ledger is `Ledger.compact`; this module decides which process does it and gathers what came out. The rule
that surprises: the result has one entry for every ledger found, in the order of team ids, whatever happened to any of
them.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from compactor.books.failures import Failure, describe_bad_entry, describe_failure
from compactor.books.workers import INLINE_BYTES_MAX, Board, Died, collector_paused, plan_batches, run_forked
from compactor.ledger import Compaction, Ledger, LedgerEntry, discover
from compactor.ledger.compaction import Progress


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
        return _compact_one(places[index], board.reporter(index), retention_days, checkpoint)

    places = discover(data, team)
    sizes = [_log_bytes(place) for place in places]
    workers = workers or os.cpu_count() or 1
    board = Board(sizes, progress)
    if len(places) < 2 or workers == 1 or sum(sizes) < INLINE_BYTES_MAX:
        with collector_paused():
            return [compact_one(index) for index in range(len(places))]
    outcomes: dict[int, Outcome] = {}

    def work(index: int) -> bytes:
        return msgspec.msgpack.encode(compact_one(index))

    batches = plan_batches(sizes)
    for index, result in run_forked(batches, work, workers=workers, on_poll=board.show if progress else None):
        outcomes[index] = _outcome(places[index], result)
    return [outcomes[index] for index in range(len(places))]


def _compact_one(
    place: LedgerEntry, progress: Progress | None, retention_days: int | None, checkpoint: bool
) -> Outcome:
    path = str(place.path)
    if place.problem is not None:
        return Outcome(place.name, path, error=describe_bad_entry(place))
    try:
        with Ledger(place.path, team_id=place.team_id, retention_days=retention_days) as ledger:
            compaction = ledger.compact(progress=progress, checkpoint=checkpoint)
        return Outcome(compaction.team_id, path, compaction=compaction)
    except Exception as error:
        return Outcome(place.name, path, error=describe_failure(error, path))


def _outcome(place: LedgerEntry, result: bytes | Died) -> Outcome:
    if not isinstance(result, Died):
        return msgspec.msgpack.decode(result, type=Outcome)
    message = (
        f"{place.path}: {result.reason}. Nothing was lost: the ledger stands at its last commit. Run compactor compact "
        "again, with --workers 1 if memory was short"
    )
    return Outcome(place.name, str(place.path), error=Failure("process_died", message))


def _log_bytes(place: LedgerEntry) -> int:
    try:
        return os.stat(Path(place.path) / "events.jsonl").st_size
    except OSError:
        return 0  # Compacting it will say what is wrong.
