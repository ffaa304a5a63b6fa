"""Keep older checkpoints as points, so that a past state need not be folded from the first byte of the log.

A point is a second name of a checkpoint's file (a hard link), so keeping it writes nothing. `keep_point` also removes
points that are too dense: going back some bytes from the newest point costs folding at most about twice as many.
Note: nothing depends on a point. All of them may be deleted, any byte of one may be wrong, and a file system without
links has none; then there is only more to fold.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from compactor.ledger.checkpoint import FOLD_VERSION, FORMAT, SLOTS, DamagedCheckpoint, Slot, open_slot
from compactor.ledger.errors import LogRewritten
from compactor.ledger.files import Files
from compactor.ledger.log import Log
from compactor.ledger.paths import POINTS, STATE

NEAR_BYTES = 1 << 25
"""How far back from the newest point all points are kept."""

COMMIT_BYTES = 1 << 28
"""Bytes of log after which a long pass commits, so that being stopped costs only what came since."""
RECENT_BYTES = 1 << 24
"""Near its end a pass commits more often, so that points of the recent past are dense: `plan_commit`."""

_NAME = re.compile(r"[0-9]{20}")


def plan_commit(since: int, rest: int, *, first: bool) -> bool:
    """Whether a pass commits, so many bytes of log after its last commit (or its start) and before its end.

    A long one does so more often within its last 64 MiB, where a third of the rest is enough; one that has not
    committed so far begins with that 16 MiB before its end.
    """
    if since >= COMMIT_BYTES:
        return True
    if first:
        return rest <= RECENT_BYTES and since >= 3 * RECENT_BYTES
    return rest <= 4 * RECENT_BYTES and since >= max(RECENT_BYTES // 2, rest // 2)


def keep_point(files: Files, slot: Path, offset: int) -> None:
    """Keep the checkpoint that a slot holds, as of this offset. Not durable, and never a failure."""
    directory = slot.parent / POINTS
    try:
        files.make_directory(directory)
        path = directory / _name(offset)
        files.remove(path)
        files.link(slot, path)
        for one in plan_thinning(_offsets(files, directory)):
            files.remove(directory / _name(one))
    except OSError:
        # Full, read-only, without links: the next replay only has more to fold.
        return


def plan_thinning(offsets: Sequence[int], near: int = NEAR_BYTES) -> list[int]:
    """Which points to remove: those without which no gap is longer than twice its distance from the newest point.

    The last `near` bytes are not counted, so that all points stay there.
    """
    newest_first = sorted(offsets, reverse=True)
    removed: list[int] = []
    kept = newest_first[:1]
    for offset, older in pairwise(newest_first[1:]):
        if kept[-1] - older <= 2 * (newest_first[0] - kept[-1] - near):
            removed.append(offset)
        else:
            kept.append(offset)
    return removed


def usable_points(path: Path, team_id: str | None, files: Files, log: Log, limit: int) -> Iterator[Slot]:
    """The checkpoints and points of a ledger at or before an offset that this log still bears out, newest first.

    Whoever takes one closes it. Its pages are checked as they are read (`DamagedCheckpoint`).
    """
    state = path / STATE
    points = [state / POINTS / _name(one) for one in _offsets(files, state / POINTS) if one <= limit]
    opened = (_opened(one, files) for one in (*(state / name for name in SLOTS), *points))
    slots = [slot for slot in opened if slot is not None]
    slots.sort(key=lambda slot: slot.header.log.length)
    try:
        while slots:
            slot = slots.pop()
            if slot.header.log.length <= limit and _belongs_to(slot, team_id, log):
                yield slot
            else:
                slot.close()
    finally:
        for slot in slots:
            slot.close()


def newest_point(path: Path, team_id: str | None, files: Files, log: Log, limit: int) -> int:
    """The offset of the newest of them; 0 where there is none."""
    for slot in usable_points(path, team_id, files, log, limit):
        slot.close()
        return slot.header.log.length
    return 0


def _opened(path: Path, files: Files) -> Slot | None:
    """A slot that was opened, or None where it is missing or its header is damaged."""
    try:
        return open_slot(path, files)
    except (DamagedCheckpoint, OSError):
        return None


def _belongs_to(slot: Slot, team_id: str | None, log: Log) -> bool:
    """Whether a slot is of this log, and of this program's fold."""
    header = slot.header
    if (header.format, header.fold_version) != (FORMAT, FOLD_VERSION) or team_id not in (None, header.team_id):
        return False
    try:
        log.check(header.inode, header.log)
    except LogRewritten:
        return False
    return True


def _name(offset: int) -> str:
    return f"{offset:020d}"


def _offsets(files: Files, directory: Path) -> list[int]:
    with suppress(OSError):
        return [int(name) for name in files.names(directory) if _NAME.fullmatch(name) is not None]
    return []
