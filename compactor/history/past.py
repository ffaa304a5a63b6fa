"""The past of one ledger as a value, as lines, or as files: what `compactor replay` shows.

Pending orders and counts come from the newest state at hand; whoever wants all trades or findings gets them from a fold
of the whole log. What surprises: files are written beside each other under another name and renamed at the end, so
that a replay that was stopped leaves nothing that looks like a result.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Literal

from msgspec import Struct

from compactor.books.compact import collector_paused
from compactor.history.moment import Moment
from compactor.history.replay import Replay, open_replay
from compactor.ledger import LedgerEntry
from compactor.ledger.compaction import Progress
from compactor.ledger.errors import BadTeam, LedgerError, from_os
from compactor.ledger.paths import FINDINGS, PENDING, TRADES

What = Literal["pending", "trades", "findings"]


class Past(Struct):
    """A ledger as of a moment: counts, the bytes of its pending orders, and some of its last trades.

    `offset` is up to where the log was read, `folded_from` where folding it began.
    """

    team_id: str
    path: str
    moment: str
    offset: int
    folded_from: int
    events: int
    open_orders: int
    trades: int
    findings: int
    pending: bytes
    last_trades: list[bytes]


LAST_TRADES = 10
"""So many trades are shown at most; as many as are known without reading those before them."""


def past_of(place: LedgerEntry, moment: Moment, progress: Progress | None = None) -> Past:
    """A ledger as of a moment. Raises LedgerError."""
    with collector_paused(), open_replay(checked(place), place.team_id) as replay:
        replay.begin(moment)
        last = replay.last_trades().splitlines(keepends=True)
        for lines in replay.run(progress):
            last = [*last, *lines.trades.splitlines(keepends=True)[-LAST_TRADES:]][-LAST_TRADES:]
        return _past(replay, moment, last[-LAST_TRADES:])


def lines_of(place: LedgerEntry, moment: Moment, what: What, progress: Progress | None = None) -> Iterator[bytes]:
    """The lines of one derived file as of a moment, as they come out of the fold. Raises LedgerError."""
    with collector_paused(), open_replay(checked(place), place.team_id) as replay:
        replay.begin(moment, from_first=what != "pending")
        for lines in replay.run(progress):
            if what != "pending":
                yield from (lines.trades if what == "trades" else lines.findings).splitlines(keepends=True)
        if what == "pending":
            yield from replay.fold.pending_lines().splitlines(keepends=True)


def write_past(place: LedgerEntry, moment: Moment, directory: Path, progress: Progress | None = None) -> Past:
    """Write the three derived files as of a moment into a directory, which is made; an empty one is not written.

    Raises LedgerError.
    """
    paths = {name: directory / (name + ".tmp") for name in (PENDING, TRADES, FINDINGS)}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with paths[TRADES].open("wb") as trades, paths[FINDINGS].open("wb") as findings:
            past = _write(place, moment, directory, trades, findings, progress)
        paths[PENDING].write_bytes(past.pending)
        for name, path in paths.items():
            if path.stat().st_size:
                path.rename(directory / name)
            else:
                path.unlink()
        return past
    except OSError as error:
        raise _unwritten(directory, error) from error
    finally:
        with suppress(OSError):
            for path in paths.values():
                path.unlink(missing_ok=True)


def _write(
    place: LedgerEntry, moment: Moment, directory: Path, trades: BinaryIO, findings: BinaryIO, progress: Progress | None
) -> Past:
    with collector_paused(), open_replay(checked(place), place.team_id) as replay:
        replay.begin(moment, from_first=True)
        for lines in replay.run(progress):
            try:
                trades.write(lines.trades)
                findings.write(lines.findings)
            except OSError as error:
                raise _unwritten(directory, error) from error
        return _past(replay, moment, [])


def _unwritten(directory: Path, error: OSError) -> LedgerError:
    return from_os(directory, error, "writing what was replayed", "replay again into another directory")


def _past(replay: Replay, moment: Moment, last_trades: list[bytes]) -> Past:
    fold = replay.fold
    pending = fold.pending_lines()
    counts = fold.counts
    return Past(
        fold.team_id, str(replay.path), moment.text, replay.offset, replay.started_at, counts.events, fold.open_orders,
        counts.trades, counts.findings, pending, last_trades,
    )  # fmt: skip


def checked(place: LedgerEntry) -> Path:
    """The directory of a ledger that can be read. Raises BadTeam."""
    if place.problem is not None:
        raise BadTeam(place.path, place.problem)
    return place.path
