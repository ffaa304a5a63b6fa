"""Rebuild what is derived: put files and checkpoints of a ledger aside and make them again from its log.

Making them is one compaction from nothing (`ledger.compaction`).

Invariant: nothing is deleted, neither the old files nor what a failed rebuild made, and the log and the segments are
never written.
"""

import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from msgspec import Struct

from compactor.books.failures import Failure, describe_bad_entry, describe_failure
from compactor.ledger import Compaction, LedgerEntry, NoLedger, discover
from compactor.ledger.checkpoint import SLOTS
from compactor.ledger.compaction import Compactor, Progress
from compactor.ledger.errors import from_os
from compactor.ledger.files import Files
from compactor.ledger.paths import FINDINGS, LOG, PENDING, POINTS, STATE, TRADES, team_in_path
from compactor.proofs.heads import LOCK_WAIT_SECONDS, locked

ASIDE = "aside"
"""The directory in `.state` below which the old files lie, by the time when they were put there."""


class Rebuilt(Struct, frozen=True):
    """What became of one ledger: `aside` is where its old files lie, None where there were none."""

    team_id: str
    path: str
    aside: str | None = None
    compaction: Compaction | None = None
    error: Failure | None = None


def rebuild_all(
    data: Path, *, team: str | None = None, retention_days: int | None = 7, progress: Progress | None = None
) -> list[Rebuilt]:
    """Rebuild the ledgers of `data` (or only `team`'s), one after the other. Never raises for one ledger's sake."""
    return [_rebuild_place(entry, retention_days, progress) for entry in discover(data, team)]


def _rebuild_place(entry: LedgerEntry, retention_days: int | None, progress: Progress | None) -> Rebuilt:
    name, path = entry.name, str(entry.path)
    if entry.problem is not None:
        return Rebuilt(name, path, error=describe_bad_entry(entry))
    try:
        aside, compaction = rebuild(entry.path, entry.team_id, retention_days, progress)
    except Exception as error:
        return Rebuilt(name, path, error=describe_failure(error, entry.path))
    return Rebuilt(compaction.team_id, path, str(aside) if aside is not None else None, compaction)


def rebuild(
    path: Path, team_id: str | None, retention_days: int | None = 7, progress: Progress | None = None
) -> tuple[Path | None, Compaction]:
    """Put what is derived of one ledger aside and derive it again; returns when it is durable.

    Takes the ledger's lock. Raises LedgerError, SegmentDamaged where the log cannot be read whole; the old files are
    then back in their entries.
    """
    files = Files()
    if files.identity(path / LOG) is None:
        raise NoLedger(path, f"there is no {LOG}, expected a log to rebuild from")
    retention = None if retention_days is None else timedelta(days=retention_days)
    compactor = Compactor(path, team_id or team_in_path(path), retention, files)
    with locked(path, files, LOCK_WAIT_SECONDS):
        aside = (
            path / STATE / ASIDE / f"{time.strftime('%Y-%m-%dT%H%M%SZ', time.gmtime())}-{time.time_ns() % 10**9:09d}"
        )
        try:
            moved = _put_aside(path, aside)
            try:
                compaction = compactor.run(progress, checkpoint=True)
            except BaseException:
                _put_back(path, aside, moved)
                raise
        except OSError as error:
            raise from_os(path, error, "rebuilding what is derived", "rebuild again") from error
        finally:
            compactor.close()
    return (aside if moved else None), compaction


def _put_aside(path: Path, aside: Path) -> list[tuple[Path, Path]]:
    """Move all that is derived; where from and where to. The renames are durable once the rebuilt files are."""
    names = [PENDING, TRADES, FINDINGS, *(f"{STATE}/{slot}" for slot in SLOTS), f"{STATE}/{POINTS}"]
    moved: list[tuple[Path, Path]] = []
    for source in (path / name for name in names):
        if source.exists():
            aside.mkdir(parents=True, exist_ok=True)
            target = aside / source.name
            source.rename(target)
            moved.append((source, target))
    return moved


def _put_back(path: Path, aside: Path, moved: list[tuple[Path, Path]]) -> None:
    """A rebuild failed: what it made is moved below `aside`, and what was there is put back."""
    with suppress(OSError):
        made = _put_aside(path, aside / "failed")
        for source, target in moved:
            target.rename(source)
        if not made:
            aside.rmdir()
