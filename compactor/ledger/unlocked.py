"""Read a ledger without its lock: the lines of a derived file, and the status of the ledger.

A reader sees whole lines only, because somebody may still be writing the last one.
"""

from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
from msgspec import Struct

from compactor.core.fold import Fold
from compactor.core.instants import EPOCH, rfc3339
from compactor.core.lines import DEFAULT_TEAM
from compactor.ledger.checkpoint import DamagedCheckpoint, Slot, open_newest_slot
from compactor.ledger.errors import NoLedger, from_os
from compactor.ledger.files import Files
from compactor.ledger.log import Log, open_log
from compactor.ledger.paths import FINDINGS, PENDING, STATE, TRADES
from compactor.ledger.segments import Segments

LOOK_AHEAD_BYTES = 1 << 23
"""How much of a log `read_status` folds to say whether the derived files are current."""


class LedgerStatus(Struct):
    """How a ledger is. Counts are as of `offset`; `lag_bytes` of whole lines are not in the derived files yet,
    `tail_bytes` belong to an unfinished last line, `sealed_bytes` lie in sealed `segments`. `checkpoint` is good,
    missing, damaged, or moved."""

    team_id: str
    path: str
    log_bytes: int
    offset: int
    lag_bytes: int
    tail_bytes: int
    events: int
    open_orders: int
    trades: int
    findings: int
    last_event_at: str | None
    checkpoint: str
    sealed_bytes: int
    segments: int


def whole_lines(path: Path) -> Iterator[bytes]:
    """The whole lines of a file, as they are asked for; none where there is no file. Raises LedgerError."""
    try:
        reader = Files().open(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise from_os(path, error, "reading it") from error
    try:
        offset, rest = 0, b""
        while data := reader.read(offset, CAT_BYTES):
            offset += len(data)
            *whole, rest = (rest + data).split(b"\n")
            yield from (line + b"\n" for line in whole)
    except OSError as error:
        raise from_os(path, error, "reading it") from error
    finally:
        reader.close()


def read_status(path: Path, team_id: str | None, files: Files) -> LedgerStatus:
    """How the ledger in a directory is. Raises LedgerError where there is no log, or it cannot be read."""
    segments = Segments(path, files)
    with open_log(path, files, segments, doing="reading the ledger") as log:
        size = log.identity().size
        whole = log.end_of_whole_lines(size)
        status = LedgerStatus(
            team_id or DEFAULT_TEAM, str(path), size, 0, whole, size - whole, 0, 0, 0, 0, None, "missing",
            segments.sealed_end, len(segments.seals),
        )  # fmt: skip
        try:
            return _read_checkpoint(path, files, log, whole, status)
        except DamagedCheckpoint:
            return msgspec.structs.replace(status, checkpoint="damaged")


def _read_checkpoint(path: Path, files: Files, log: Log, whole: int, status: LedgerStatus) -> LedgerStatus:
    """The status with what the newest good checkpoint knows. Raises DamagedCheckpoint where there are only others."""
    damaged: list[DamagedCheckpoint] = []
    slot = open_newest_slot(path / STATE, files, damaged.append)
    if slot is None:
        if damaged:
            raise damaged[0]
        return status
    try:
        log.check(None, slot.header.log)
        # After a copy or a restore the next pass proves that it is the same log.
        is_moved = log.identity().inode != slot.header.inode
        fold, offset = slot.restore(log.lines_naming, None), slot.header.log.length
        if whole - offset <= LOOK_AHEAD_BYTES:
            ahead = slot.restore(log.lines_naming, None)
            if _is_current(path, files, log, slot, ahead, whole):
                fold, offset = ahead, whole
        fold.pending_lines()
        counts, clock = fold.counts, fold.clock
        return msgspec.structs.replace(
            status, team_id=fold.team_id, offset=offset, lag_bytes=whole - offset, events=counts.events,
            open_orders=fold.open_orders, trades=counts.trades, findings=counts.findings,
            last_event_at=_format_clock(clock) if clock is not None else None,
            checkpoint="moved" if is_moved else "good",
        )  # fmt: skip
    finally:
        slot.close()


def _format_clock(clock: datetime) -> str:
    return rfc3339((clock - EPOCH) // timedelta(microseconds=1) * 1000)


CAT_BYTES = 1 << 20
"""How much of a log `read_bytes` hands out at once."""


def read_bytes(path: Path, start: int, end: int | None, files: Files) -> Iterator[bytes]:
    """The bytes of a log from an offset up to another, out of its segments and the log itself, as they are asked for.

    Without `end` up to the last whole line; beyond the end of the log there are none. Raises LedgerError.
    """
    with open_log(path, files) as log:
        size = log.identity().size
        end = log.end_of_whole_lines(size) if end is None else min(end, size)
        for offset in range(start, end, CAT_BYTES):
            yield log.read(offset, min(CAT_BYTES, end - offset))


def read_naming(path: Path, order_id: str, files: Files) -> Iterator[tuple[int, bytes]]:
    """The whole lines of a log that may name an order, with their offsets, in order, segments included; none where
    there is no log. Raises LedgerError."""
    with suppress(NoLedger), open_log(path, files) as log:
        end = log.end_of_whole_lines(log.identity().size)
        if end:
            yield from log.lines_naming(order_id, 0, end)


def team_in_checkpoint(path: Path, files: Files) -> str | None:
    """The team of a ledger that its events name, as far as the last checkpoint knows it."""
    try:
        slot = open_newest_slot(path / STATE, files, lambda _: None)
    except PermissionError:
        return None  # Who may only append need not be able to read the state.
    if slot is None:
        return None
    with closing(slot):
        return None if slot.header.names_team else slot.header.team_id


def _is_current(path: Path, files: Files, log: Log, slot: Slot, fold: Fold, whole: int) -> bool:
    """Fold what came after the checkpoint, without writing, and see whether the derived files have it already."""
    for block in log.blocks(slot.header.log.length, whole):
        fold.feed_block(block)
    lines = fold.take_lines()
    trades = slot.header.trades.length + len(lines.trades)
    findings = slot.header.findings.length + len(lines.findings)
    return (
        trades == _size(files, path / TRADES)
        and findings == _size(files, path / FINDINGS)
        and _holds(files, path / PENDING, fold.pending_lines())
    )


def _holds(files: Files, path: Path, data: bytes) -> bool:
    return files.holds(path, data) if data else not _size(files, path)


def _size(files: Files, path: Path) -> int:
    identity = files.identity(path)
    return identity.size if identity is not None else 0
