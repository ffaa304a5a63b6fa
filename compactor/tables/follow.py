"""The last rows of a table and those that are appended to it, of one ledger or several: what `compactor tail` shows.

A `Follower` is an offset in a log or in a derived file, and survives what happens to these: sealing, since it reads
through segments and log; a daemon that is stopped and a rebuild, since a derived file comes back with the same bytes.

Invariant: a row is reported once, when the newline of its line is there, and never before.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple

from compactor.core.instants import nanos
from compactor.core.lines import DEFAULT_TEAM, Block, Placed, read_line
from compactor.ledger import Ledger, LedgerEntry, LogRewritten
from compactor.ledger.errors import from_os
from compactor.ledger.files import Files
from compactor.ledger.log import BLOCK_BYTES, Log, open_log
from compactor.ledger.segments import Segments
from compactor.tables.rows import AGAIN, FILES, DerivedReader, EventRows, event_time, whole_blocks
from compactor.tables.schema import EVENTS, FINDINGS, Row, Table


class TimedRow(NamedTuple):
    """A row, and the instant by which rows of several ledgers are put in order; in one ledger it never falls."""

    at: int
    row: Row


class Start(NamedTuple):
    """Where to begin: exactly one of the last N rows, an offset of the log, and an instant."""

    last: int | None = None
    offset: int | None = None
    at: int | None = None


class Follower:
    """One ledger's table from an offset on. Not for several threads at once."""

    def __init__(self, entry: LedgerEntry, table: Table) -> None:
        self.entry = entry
        self.position = 0
        """How far its file was read: always the end of a line."""
        self._table = table
        self._path = entry.path / FILES[table.name]
        self._at = 0
        self._files = Files()
        self._segments = Segments(entry.path, self._files)
        self._reader: EventRows | DerivedReader | None = None

    def rows(self) -> Iterator[TimedRow]:
        """The rows of the whole lines behind `position`, which moves on with them. Raises LedgerError."""
        try:
            identity = self._files.identity(self._path)
            if identity is None or identity.size == self.position:
                return
            if identity.size < self.position:
                self._check_shorter(identity.size)
                return
            with self._open() as log:
                for block in self._blocks(log):
                    yield from self._read_block(block)
                    self.position = block.end
        except OSError as error:
            raise from_os(self._path, error, "reading it", AGAIN) from error

    def _check_shorter(self, size: int) -> None:
        """A derived file may be made again, with the same bytes; a log never gets shorter."""
        if self._table is EVENTS:
            found = f"expected at least {self.position} bytes, which were read before, found {size}"
            raise LogRewritten(self._path, f"the log was truncated or replaced: {found}. Look at it, then start again")

    @contextmanager
    def _open(self) -> Iterator[Log]:
        """Open what is read: the log with its segments, or a derived file, which is a file of lines as well."""
        if self._table is EVENTS:
            with open_log(self.entry.path, self._files, self._segments, again=AGAIN) as log:
                yield log
        else:
            with closing(Log(self._path, self._files.open(self._path))) as file:
                yield file

    def _blocks(self, log: Log) -> Iterator[Block]:
        if self._table is not EVENTS:
            return whole_blocks(log, self.position)
        return log.blocks(self.position, log.end_of_whole_lines(log.identity().size))

    def _read_block(self, block: Block) -> Iterator[TimedRow]:
        if self._reader is None:
            is_log = self._table is EVENTS
            self._reader = EventRows(_find_team(self.entry)) if is_log else DerivedReader(self.entry, self._table)
        for row in self._reader.rows(block):
            at = self._time(row)
            self._at = max(self._at, nanos(at) if at is not None else 0)
            yield TimedRow(self._at, row)

    def _time(self, row: Row) -> str | None:
        """When a row was recorded, else when it happened; a finding has the time of its event."""
        time: str | None
        if self._table is EVENTS:
            time = row[_RECORDED] or row[_TS]
        elif self._table is FINDINGS:
            with open_log(self.entry.path, self._files, self._segments, again=AGAIN) as log:
                time = event_time(log, row[1], row[2])
        else:
            assert self._table.time is not None
            time = row[self._table.find(self._table.time)]
        return time

    def begin(self, start: Start) -> Iterator[TimedRow]:
        """The rows from a start on, as far as they are there; `rows` goes on behind them. Raises LedgerError."""
        if self._files.identity(self._path) is None:
            return
        if start.last is not None:
            yield from self._last(start.last)
        elif self._table is EVENTS:
            with self._open() as log:
                at, offset = start.at, start.offset
                self.position = recorded_at(log, at) if at is not None else line_start(log, offset or 0)
            yield from self.rows()
        else:
            yield from (timed for timed in self.rows() if self._is_behind(start, timed.row))

    def _is_behind(self, start: Start, row: Row) -> bool:
        if start.at is None:
            return bool(row[self._table.find("offset")] >= (start.offset or 0))
        at = self._time(row)
        return at is None or nanos(at) >= start.at

    def _last(self, count: int) -> list[TimedRow]:
        """The last `count` rows, found by reading growing pieces from the end."""
        identity = self._files.identity(self._path)
        size, back = identity.size if identity is not None else 0, BLOCK_BYTES
        while True:
            with self._open() as log:
                self.position, self._at = line_start(log, max(0, size - back)), 0
            found = list(self.rows())
            if len(found) >= count or back >= size:
                return found[max(0, len(found) - count) :]
            back *= 4


_TS, _RECORDED = EVENTS.find("ts"), EVENTS.find("recorded_at")


def in_order(streams: Iterable[Iterable[TimedRow]]) -> Iterator[TimedRow]:
    """The rows of several ledgers by their instants; in each ledger they keep their order."""
    return heapq.merge(*streams, key=lambda timed: timed.at)


def _find_team(entry: LedgerEntry) -> str | None:
    """The team of a ledger that its events name, as far as it is known (1.2)."""
    team = entry.team_id or Ledger(entry.path).team_id
    return None if entry.team_id is None and team == DEFAULT_TEAM else team


def line_start(log: Log, offset: int) -> int:
    """The first line that begins at an offset or behind it; the end of the whole lines if there is none."""
    end = log.end_of_whole_lines(log.identity().size)
    while 0 < offset < end:
        data = log.read(offset - 1, BLOCK_BYTES)
        found = data.find(b"\n")
        if found >= 0:
            return offset + found
        offset += len(data)
    return min(offset, end)


def recorded_at(log: Log, at: int) -> int:
    """Where the lines begin that were recorded at an instant or later: by `recorded_at`, else `ts`."""
    low, end = 0, log.end_of_whole_lines(log.identity().size)
    high = end
    while high - low > BLOCK_BYTES:
        middle = (low + high) // 2
        found = next((time for _, time in _times(log, line_start(log, middle), high)), None)
        if found is None or found >= at:
            high = middle
        else:
            low = middle
    return next((offset for offset, time in _times(log, line_start(log, low), end) if time >= at), end)


def _times(log: Log, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The lines that hold events, each with its offset and when it was recorded."""
    for block in log.blocks(start, end):
        for offset, line in block.lines():
            for found in read_line(line, offset):
                if isinstance(found, Placed):
                    recorded = found.event.recorded_at
                    yield offset, nanos(recorded.isoformat() if recorded is not None else found.event.ts)
