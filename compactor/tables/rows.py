"""The rows of one table over several ledgers, read as they are asked for: segments and log as one, whole lines only.

A `TableSource` can be read again from the start, since a format may find out late that it needs wider types. Trades,
open orders and findings are those of the last compact.

Note: the events are what the fold reads as events, recovered and repeated ones included; a line that is no event is a
row of the findings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from compactor.core.events import Event
from compactor.core.instants import EPOCH, BadInstant, is_common, nanos, rfc3339
from compactor.core.lines import Block, EventReader, Placed, read_line
from compactor.ledger import DerivedConflict, Ledger, LedgerEntry, LedgerError, LedgerUnreadable
from compactor.ledger.compaction import Progress
from compactor.ledger.errors import from_os
from compactor.ledger.event_text import cut_event
from compactor.ledger.files import Files
from compactor.ledger.log import Log, open_log
from compactor.ledger.paths import FINDINGS as FINDINGS_FILE
from compactor.ledger.paths import LOG
from compactor.ledger.paths import PENDING as PENDING_FILE
from compactor.ledger.paths import TRADES as TRADES_FILE
from compactor.tables.schema import EVENTS, FINDINGS, PENDING, TRADES, Row, Table, line_type

FILES = {TRADES.name: TRADES_FILE, PENDING.name: PENDING_FILE, FINDINGS.name: FINDINGS_FILE, EVENTS.name: LOG}
"""The file of a ledger that a table is read from."""
AGAIN = "run the command again"


class _Beside(msgspec.Struct, gc=False):
    """Fields that an `Event` does not keep verbatim: `recorded_at` with its nanoseconds, and uninterpreted JSON."""

    recorded_at: msgspec.Raw = msgspec.Raw()
    """Note: of a field that stands twice the last one counts, and the first may be of any kind."""
    legs: msgspec.Raw = msgspec.Raw()
    raw: msgspec.Raw = msgspec.Raw()


_decode_beside = msgspec.json.Decoder(_Beside).decode
_decode_text = msgspec.json.Decoder(str | None).decode
_after_recorded = attrgetter(*EVENTS.names[EVENTS.find("event_id") : EVENTS.find("legs")])
_after_legs = attrgetter(*EVENTS.names[EVENTS.find("legs") + 1 : EVENTS.find("raw")])


class Window(NamedTuple):
    """From `since` on, and before `until`, in nanoseconds since 1970; None is no limit."""

    since: int | None = None
    until: int | None = None

    @property
    def is_limited(self) -> bool:
        """Whether anything can lie outside."""
        return self.since is not None or self.until is not None

    def holds(self, text: str | None) -> bool:
        """Whether an instant lies in it; what has no time lies in every window."""
        if not self.is_limited or text is None:
            return True
        at = nanos(text)
        return (self.since is None or at >= self.since) and (self.until is None or at < self.until)


ALL_TIME = Window()


class LeftOut:
    """The ledgers of a table that could not be read or hold a value that no type holds, each with the reason.

    One ledger cannot keep the rows of the others from anybody. The last one is never left out: it fails.
    """

    def __init__(self) -> None:
        self.reasons: dict[LedgerEntry, str] = {}

    def __contains__(self, entry: LedgerEntry) -> bool:
        return entry in self.reasons

    def add(self, entry: LedgerEntry, error: Exception, entries: Sequence[LedgerEntry]) -> None:
        """Leave a ledger out. Raises the error where no other one of the entries is left."""
        if all(other == entry or other in self for other in entries):
            raise error
        self.reasons[entry] = str(error)


@dataclass(frozen=True)
class TableSource:
    """The rows of a table over these ledgers, one ledger after the other, those of a window of time only.

    `progress` is called with bytes read and bytes in all. Iterating raises LedgerError, unless `left_out` may take the
    ledger in; its rows before the failure have come by then.
    """

    table: Table
    entries: Sequence[LedgerEntry]
    window: Window = ALL_TIME
    progress: Progress | None = None
    left_out: LeftOut | None = None

    def __iter__(self) -> Iterator[Row]:
        done, total = 0, sum(self._size(entry) for entry in self.entries) if self.progress else 0
        for entry in self.entries:
            if self.left_out is not None and entry in self.left_out:
                continue
            try:
                if entry.problem is not None:
                    raise LedgerUnreadable(entry.path, entry.problem)
                for row, read in _rows(self.table, entry, self.window):
                    if self.progress is not None and read:
                        self.progress(done + read, total)
                    yield row
            except LedgerError as error:
                if self.left_out is None:
                    raise
                self.left_out.add(entry, error, self.entries)
            done += self._size(entry) if self.progress else 0

    def find_entry(self, row: Row) -> LedgerEntry:
        """The ledger of a row."""
        team = row[self.table.find("team_id")]
        own = (entry for entry in self.entries if entry.team_id == team)
        named_by_events = (entry for entry in self.entries if entry.team_id is None)
        return next(chain(own, named_by_events))

    def _size(self, entry: LedgerEntry) -> int:
        identity = Files().identity(entry.path / FILES[self.table.name])
        return identity.size if identity is not None else 0

    def describe_row(self, row: Row) -> str:
        """Describe a row for a message: team, file, and its identity there."""
        values = dict(zip(self.table.names, row, strict=True))
        named = f"offset {values['offset']}" if self.table is EVENTS else f"order {values.get('order_id')}"
        named = f"trade {values['trade_id']}" if self.table is TRADES else named
        return f"{values['team_id']}: {FILES[self.table.name]}, {named}"


def _rows(table: Table, entry: LedgerEntry, window: Window) -> Iterator[tuple[Row, int]]:
    """The rows of one ledger, now and then with the bytes that were read until then (else 0)."""
    if table is EVENTS:
        return _event_rows(entry, window)
    if table is FINDINGS:
        return _finding_rows(entry, window)
    return _derived_rows(table, entry, window)


def _derived_rows(table: Table, entry: LedgerEntry, window: Window) -> Iterator[tuple[Row, int]]:
    assert table.time is not None
    when = table.find(table.time)
    for row, read in _read_rows(table, entry):
        if window.holds(row[when]):
            yield row, read


def whole_blocks(file: Log, offset: int) -> Iterator[Block]:
    """The blocks of a derived file: a finding that holds a long line is longer than an event may be."""
    for block in file.blocks(offset, file.end_of_whole_lines(file.identity().size)):
        yield block._replace(data=file.read(block.offset, block.length)) if block.too_long else block


def _read_rows(table: Table, entry: LedgerEntry) -> Iterator[tuple[Row, int]]:
    """All rows of a derived file, the last of each block with the offset behind it."""
    path = entry.path / FILES[table.name]
    reader = DerivedReader(entry, table)
    try:
        with closing(Log(path, Files().open(path))) as file:
            for block in whole_blocks(file, 0):
                read = block.end
                for row in reader.rows(block):
                    yield row, read
                    read = 0
    except FileNotFoundError:
        return
    except OSError as error:
        raise from_os(path, error, "reading it", AGAIN) from error


class DerivedReader:
    """Makes rows of blocks of a derived file."""

    def __init__(self, entry: LedgerEntry, table: Table) -> None:
        self._path = entry.path / FILES[table.name]
        self._decode = msgspec.json.Decoder(line_type(table)).decode
        self._take = _row_taker(table)
        # A finding does not name its team, because it stands in its team's file.
        self._team = Ledger(entry.path, team_id=entry.team_id).team_id if table is FINDINGS else None

    def rows(self, block: Block) -> Iterator[Row]:
        """The rows of a block of whole lines."""
        offset = block.offset
        for line in block.data.split(b"\n")[:-1]:
            row = self._take(self._read(line, offset))
            yield row if self._team is None else (self._team, *row[1:])
            offset += len(line) + 1

    def _read(self, line: bytes, offset: int) -> Any:
        try:
            return self._decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            what = f"at offset {offset} expected a derived line, found {line[:60]!r} ({error})"
            hint = "somebody else wrote to this file. Move it away and compact again: it is rebuilt from the log"
            raise DerivedConflict(self._path, f"{what}; {hint}") from None


def _row_taker(table: Table) -> Callable[[Any], Row]:
    """Return a function that turns a line, as `line_type` decodes it, into a row."""
    take = attrgetter(*table.names)
    documents = [index for index, column in enumerate(table.columns) if column.kind == "json"]
    if not documents:
        return take

    def take_with_documents(line: Any) -> Row:
        values = list(take(line))
        for index in documents:
            values[index] = document(values[index])
        return tuple(values)

    return take_with_documents


def document(raw: msgspec.Raw) -> str | None:
    """The text of a JSON value; None where there is none. What is not UTF-8 in it is replaced, as nobody checks it."""
    text = bytes(raw)
    return text.decode(errors="replace") if text and text != b"null" else None


def _finding_rows(entry: LedgerEntry, window: Window) -> Iterator[tuple[Row, int]]:
    """A finding has no time of its own: it has that of its event, or of the last event before a line that is none."""
    if not window.is_limited:
        yield from _read_rows(FINDINGS, entry)
        return
    offset, length = FINDINGS.find("offset"), FINDINGS.find("length")
    with open_log(entry.path, Files(), again=AGAIN) as log:
        for row, read in _read_rows(FINDINGS, entry):
            if window.holds(event_time(log, row[offset], row[length])):
                yield row, read


def _event_rows(entry: LedgerEntry, window: Window) -> Iterator[tuple[Row, int]]:
    reader = EventRows(entry.team_id)
    with open_log(entry.path, Files(), again=AGAIN) as log:
        for block in log.blocks(0, log.end_of_whole_lines(log.identity().size)):
            read = block.end
            for row in reader.rows(block):
                if window.holds(row[_TS]):
                    yield row, read
                    read = 0


_TS = EVENTS.find("ts")


class EventRows:
    """Makes rows of blocks of a log, in their order. `team_id` None stands for a ledger that its events name (1.2)."""

    def __init__(self, team_id: str | None) -> None:
        self._reader = EventReader(team_id)

    def rows(self, block: Block) -> Iterator[Row]:
        """The events of a block of whole lines."""
        for found, data in self._reader.read_block(block):
            if isinstance(found, Placed):
                yield self._row(found, data)

    def _row(self, placed: Placed, line: bytes) -> Row:
        event = placed.event
        beside = _decode_beside(cut_event(line))
        return (
            self._reader.team_id, placed.offset, placed.length, event.event, event.order_id, event.ts,
            _recorded(beside.recorded_at, event), *_after_recorded(event), document(beside.legs),
            *_after_legs(event), document(beside.raw),
        )  # fmt: skip


def _recorded(value: msgspec.Raw, event: Event) -> str | None:
    """`recorded_at` as it came; in the notation of the format where it came in another one that was understood."""
    if event.recorded_at is None:
        return None
    text: str | None = _decode_text(value)
    if text is None or is_common(text):
        return text
    try:
        nanos(text)
    except BadInstant:
        return rfc3339((event.recorded_at - EPOCH) // timedelta(microseconds=1) * 1000)
    return text


_BEFORE_BYTES = 1 << 16
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def window(since: str | None, until: str | None) -> Window:
    """The window between two texts, each a time or a day. Raises BadInstant."""
    return Window(*(instant(text) if text is not None else None for text in (since, until)))


def instant(text: str) -> int:
    """Nanoseconds since 1970 of a time, or of the beginning of a day in UTC. Raises BadInstant."""
    return nanos(f"{text}T00:00:00Z" if _DAY.fullmatch(text) else text)


def event_time(log: Log, offset: int, length: int) -> str | None:
    """The `ts` of the event at an offset, else of the last one that can be read before it."""
    found = _times(log.read(offset, length), 0)
    if found:
        return found[0]
    start = max(0, offset - _BEFORE_BYTES)
    before = _times(log.read(start, offset - start), start)
    return before[-1] if before else None


def _times(data: bytes, start: int) -> list[str]:
    """The times of the events in some lines, the first of which may lack its beginning."""
    lines = data.split(b"\n")
    placed = (found for line in lines for found in read_line(line, start))
    return [found.event.ts for found in placed if isinstance(found, Placed)]
