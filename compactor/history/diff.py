"""Compare two moments of a ledger, or two ledgers: what came, went and changed in pending orders and trades.

Trades are compared as a stream, so the common part takes no memory; pending orders are compared at the end.

Note: within one ledger a trade never changes, because its lines are permanent. Between two ledgers the same `trade_id`
may have other values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from compactor.books.workers import collector_paused
from compactor.core.lines import DEFAULT_TEAM
from compactor.history.moment import END, Moment
from compactor.history.replay import Replay, open_replay, require_usable
from compactor.ledger import LedgerEntry
from compactor.ledger.compaction import Progress
from compactor.ledger.paths import LOG, PENDING, TRADES
from compactor.ledger.unlocked import whole_lines

Row = dict[str, Any]


class RowChange(Struct, omit_defaults=True):
    """One difference. `fields` has the old and new value of each field that changed; `ended_as` is the status of an
    order that is no longer open, where that is known."""

    team_id: str
    what: Literal["pending_order", "trade"]
    change: Literal["came", "went", "changed"]
    id: str
    before: Row | None = None
    after: Row | None = None
    fields: dict[str, tuple[Any, Any]] = {}
    ended_as: str | None = None


_decode = msgspec.json.Decoder(Row).decode


def diff_moments(entry: LedgerEntry, a: Moment, b: Moment, progress: Progress | None = None) -> Iterator[RowChange]:
    """What is different at the second moment of a ledger: first the trades, then the pending orders.

    Starts both from the same state at hand. Raises LedgerError.
    """
    with collector_paused(), ExitStack() as stack:
        sides = [stack.enter_context(open_replay(require_usable(entry), entry.team_id)) for _ in range(2)]
        limit: int | None = None
        while True:
            for side, moment in zip(sides, (a, b), strict=True):
                side.begin(moment, limit=limit)
            if sides[0].started_at == sides[1].started_at:
                break
            limit = min(side.started_at for side in sides)
        yield from _diff(entry.team_id, _Replayed(sides[0], None), _Replayed(sides[1], progress))


def diff_ledgers(name: str, a: Path | None, b: Path | None) -> Iterator[RowChange]:
    """What is different in the second directory of a team's ledger; None where there is none.

    A directory with a log is replayed from its first byte, one without it is read as it is. Raises LedgerError.
    """
    with collector_paused(), ExitStack() as stack:
        yield from _diff(name, _side(name, a, stack), _side(name, b, stack))


def find_ledgers_below(data: Path) -> dict[str, Path]:
    """The directories of a data directory that hold a log, or derived files without one, by team."""
    teams = data / "team"
    found = {path.name: path for path in (sorted(teams.iterdir()) if teams.is_dir() else ()) if _holds_any(path)}
    return {DEFAULT_TEAM: data, **found} if _holds_any(data) else found


def _holds_any(path: Path) -> bool:
    return any((path / name).is_file() for name in (LOG, PENDING, TRADES))


def _side(name: str, path: Path | None, stack: ExitStack) -> _Replayed | _Written:
    if path is None or not (path / LOG).exists():
        return _Written(path)
    # A ledger that is not below `team/` is named by its events (1.2).
    replay = stack.enter_context(open_replay(path, path.name if path.absolute().parent.name == "team" else None))
    replay.begin(END, from_first=True)
    return _Replayed(replay, None)


class _Replayed:
    """One side that is folded."""

    def __init__(self, replay: Replay, progress: Progress | None) -> None:
        self._replay = replay
        self._progress = progress

    def trades(self) -> Iterator[bytes]:
        for lines in self._replay.run(self._progress):
            yield from lines.trades.splitlines()

    def pending(self) -> dict[str, Row]:
        return _rows(self._replay.fold.pending_lines().splitlines())

    def find_status(self, order_id: str) -> str | None:
        return self._replay.fold.find_status(order_id)


class _Written:
    """One side that is read from derived files."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def trades(self) -> Iterator[bytes]:
        return (line[:-1] for line in whole_lines(self._path / TRADES)) if self._path is not None else iter(())

    def pending(self) -> dict[str, Row]:
        return _rows(whole_lines(self._path / PENDING)) if self._path is not None else {}

    def find_status(self, order_id: str) -> str | None:
        return None


def _rows(lines: Iterable[bytes]) -> dict[str, Row]:
    rows = map(_decode, lines)
    return {row["order_id"]: row for row in rows}


def _diff(team_id: str | None, a: _Replayed | _Written, b: _Replayed | _Written) -> Iterator[RowChange]:
    team = team_id or DEFAULT_TEAM
    yield from _diff_trades(team, a.trades(), b.trades())
    before, after = a.pending(), b.pending()
    for order_id, row in before.items():
        now = after.get(order_id)
        if now is None:
            yield RowChange(team, "pending_order", "went", order_id, row, ended_as=b.find_status(order_id))
        elif now != row:
            yield RowChange(team, "pending_order", "changed", order_id, row, now, _fields(row, now))
    for order_id, row in after.items():
        if order_id not in before:
            yield RowChange(team, "pending_order", "came", order_id, after=row)


def _diff_trades(team: str, a: Iterator[bytes], b: Iterator[bytes]) -> Iterator[RowChange]:
    ahead: list[bytes] = []
    for new in b:
        old = next(a, None)
        if old != new:
            ahead = [new]
            a = chain([old] if old is not None else [], a)
            break
    left = {_decode(line)["trade_id"]: line for line in a}
    for line in chain(ahead, b):
        row = _decode(line)
        trade_id = row["trade_id"]
        same = left.pop(trade_id, None)
        if same is None:
            yield RowChange(team, "trade", "came", trade_id, after=row)
        elif same != line:
            before = _decode(same)
            yield RowChange(team, "trade", "changed", trade_id, before, row, _fields(before, row))
    for trade_id, line in left.items():
        yield RowChange(team, "trade", "went", trade_id, _decode(line))


def _fields(before: Row, after: Row) -> dict[str, tuple[Any, Any]]:
    names = [*before, *(name for name in after if name not in before)]
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}
