"""Compacts every ledger of a data directory, several at once.

Folding one ledger is `Ledger.compact`; this module decides which process does it and gathers what came out. The rule
that surprises: the result has one entry for every ledger found, in the order of team ids, whatever happened to any of
them.
"""

from __future__ import annotations

import gc
import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from compactor.books.failures import Failure, describe_bad_entry, describe_failure
from compactor.books.workers import Died, run_forked
from compactor.ledger import Compaction, Ledger, LedgerEntry, discover
from compactor.ledger.compaction import Progress

# Below this many bytes of logs in all, starting processes costs more than it saves.
INLINE_BYTES_MAX = 8 << 20
# Small ledgers share a process until they amount to this much; a thousand of them need no thousand processes.
BATCH_BYTES = 4 << 20


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


def plan_batches(sizes: Sequence[int]) -> list[list[int]]:
    """Indexes of `sizes`, largest first so that no long one starts last, small ones gathered into batches."""
    batches: list[list[int]] = []
    room = 0
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        if sizes[index] > room:
            batches.append([])
            room = BATCH_BYTES
        batches[-1].append(index)
        room -= sizes[index]
    return batches


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


@contextmanager
def collector_paused() -> Iterator[None]:
    """A fold makes no cycles, so looking for them only costs time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class Board:
    """Two numbers per ledger, bytes done and bytes in all, in memory that forked processes share.

    Each number has one writer, and an aligned word is written whole, so nobody needs a lock; a reader that is a moment
    behind only draws an older bar.
    """

    def __init__(self, sizes: Sequence[int], progress: Progress | None) -> None:
        self._progress = progress
        self._words = memoryview(mmap.mmap(-1, max(1, len(sizes)) * 16)).cast("q")
        for index, size in enumerate(sizes):
            self._words[2 * index + 1] = size
        self._home_pid = os.getpid()

    def reporter(self, index: int) -> Progress | None:
        if self._progress is None:
            return None

        def report(bytes_done: int, bytes_total: int) -> None:
            self._words[2 * index] = bytes_done
            self._words[2 * index + 1] = bytes_total
            if os.getpid() == self._home_pid:
                self.show()

        return report

    def show(self) -> None:
        if self._progress is not None:
            self._progress(sum(self._words[0::2]), sum(self._words[1::2]))
