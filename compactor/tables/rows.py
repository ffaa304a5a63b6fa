"""The rows of one table over several ledgers, read as they are asked for: segments and log as one, whole lines only.

A `Source` can be read again from the start, since a format may find out late that it needs wider types. The rule that
surprises: the events are what the fold reads as events, damage mended and duplicates included; a line that is none is
a row of the findings. Trades, open orders and findings are those of the last compact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec

from compactor.core.events import Event
from compactor.core.instants import EPOCH, BadInstant, is_common, nanos, rfc3339
from compactor.core.lines import Placed, read_line
from compactor.ledger import DerivedConflict, Ledger, LedgerPlace, LedgerUnreadable
from compactor.ledger.errors import from_os
from compactor.ledger.files import Files
from compactor.ledger.log import Block, Log, open_log
from compactor.ledger.places import FINDINGS as FINDINGS_FILE
from compactor.ledger.places import LOG
from compactor.ledger.places import PENDING as PENDING_FILE
from compactor.ledger.places import TRADES as TRADES_FILE
from compactor.ledger.reading import whole_lines
from compactor.ledger.segments import Segments
from compactor.tables.schema import EVENTS, FINDINGS, PENDING, TRADES, Row, Table, line_type
from compactor.tables.windows import ALL_TIME, Window, event_time

FILES = {TRADES.name: TRADES_FILE, PENDING.name: PENDING_FILE, FINDINGS.name: FINDINGS_FILE, EVENTS.name: LOG}
"""The file of a ledger that a table is read from."""
DEFAULT_TEAM = "default"
AGAIN = "run the command again"
_REPORT_EVERY = 256

Progress = Callable[[int, int], None]


class _Beside(msgspec.Struct, gc=False):
    """What an `Event` does not keep as it came: the nanoseconds of `recorded_at`, and what is never interpreted."""

    recorded_at: str | None = None
    legs: msgspec.Raw = msgspec.Raw()
    raw: msgspec.Raw = msgspec.Raw()


_decode_beside = msgspec.json.Decoder(_Beside).decode
_after_recorded = attrgetter(*EVENTS.names[EVENTS.place("event_id") : EVENTS.place("legs")])
_after_legs = attrgetter(*EVENTS.names[EVENTS.place("legs") + 1 : EVENTS.place("raw")])


@dataclass(frozen=True)
class Source:
    """The rows of a table over these ledgers, one ledger after the other, those of a window of time only.

    `progress` is called with bytes read and bytes in all. Iterating raises LedgerError.
    """

    table: Table
    places: Sequence[LedgerPlace]
    window: Window = ALL_TIME
    progress: Progress | None = None

    def __iter__(self) -> Iterator[Row]:
        done, total = 0, sum(self._size(place) for place in self.places) if self.progress else 0
        for place in self.places:
            if place.problem is not None:
                raise LedgerUnreadable(place.path, place.problem)
            for row, read in _rows(self.table, place, self.window):
                if self.progress is not None and read:
                    self.progress(done + read, total)
                yield row
            done += self._size(place) if self.progress else 0

    def _size(self, place: LedgerPlace) -> int:
        identity = Files().identity(place.path / FILES[self.table.name])
        return identity.size if identity is not None else 0

    def place_of(self, row: Row) -> str:
        """Where a row stands, for a message: team, file, and what names the row in it."""
        values = dict(zip(self.table.names, row, strict=True))
        named = f"offset {values['offset']}" if self.table is EVENTS else f"order {values.get('order_id')}"
        named = f"trade {values['trade_id']}" if self.table is TRADES else named
        return f"{values['team_id']}: {FILES[self.table.name]}, {named}"


def _rows(table: Table, place: LedgerPlace, window: Window) -> Iterator[tuple[Row, int]]:
    """The rows of one ledger, now and then with the bytes that were read until then (else 0)."""
    if table is EVENTS:
        return _event_rows(place, window)
    if table is FINDINGS:
        return _finding_rows(place, window)
    return _derived_rows(table, place, window)


def derived_lines(table: Table, path: Path, offset: int = 0) -> Iterator[tuple[Any, int]]:
    """The lines of a derived file with the fields of its table, each with the offset behind it."""
    decode = msgspec.json.Decoder(line_type(table)).decode
    file = path / FILES[table.name]
    for line in whole_lines(file):
        try:
            found = decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            what = f"at offset {offset} expected a derived line, found {line[:60]!r} ({error})"
            hint = "somebody else wrote to this file. Move it away and compact again: it is rebuilt from the log"
            raise DerivedConflict(file, f"{what}; {hint}") from None
        offset += len(line)
        yield found, offset


def _derived_rows(table: Table, place: LedgerPlace, window: Window) -> Iterator[tuple[Row, int]]:
    take = row_taker(table)
    assert table.time is not None
    when = table.place(table.time)
    for number, (line, end) in enumerate(derived_lines(table, place.path)):
        row = take(line)
        if window.holds(row[when]):
            yield row, 0 if number % _REPORT_EVERY else end


def row_taker(table: Table) -> Callable[[Any], Row]:
    """Gives a function that makes a row of a line as `line_type` reads it."""
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


def _finding_rows(place: LedgerPlace, window: Window) -> Iterator[tuple[Row, int]]:
    """A finding has no time of its own: it has that of its event, or of the last event before a line that is none."""
    team = place.team_id or Ledger(place.path).team_id
    take = attrgetter(*FINDINGS.names[1:])
    log = _open(place.path) if window.is_limited else None
    try:
        for number, (line, end) in enumerate(derived_lines(FINDINGS, place.path)):
            if log is None or window.holds(event_time(log, line.offset, line.length)):
                yield (team, *take(line)), 0 if number % _REPORT_EVERY else end
    except OSError as error:
        raise from_os(place.path / LOG, error, "reading the log", AGAIN) from error
    finally:
        if log is not None:
            log.close()


def _open(path: Path) -> Log:
    files = Files()
    try:
        return open_log(path, files, Segments(path, files))
    except OSError as error:
        raise from_os(path / LOG, error, "opening the log", AGAIN) from error


def _event_rows(place: LedgerPlace, window: Window) -> Iterator[tuple[Row, int]]:
    log = _open(place.path)
    reader = EventReader(place.team_id)
    try:
        for block in log.blocks(0, log.end_of_whole_lines(log.identity().size)):
            read = block.offset + block.length
            for row in reader.rows(block):
                if window.holds(row[_TS]):
                    yield row, read
                    read = 0
    except OSError as error:
        raise from_os(place.path / LOG, error, "reading it", AGAIN) from error
    finally:
        log.close()


_TS = EVENTS.place("ts")


class EventReader:
    """Makes rows of blocks of a log, in their order. `team_id` None stands for a ledger that its events name (1.2)."""

    def __init__(self, team_id: str | None) -> None:
        self.team_id = team_id

    def rows(self, block: Block) -> Iterator[Row]:
        """The events of a block of whole lines."""
        if block.too_long:
            return
        offset = block.offset
        for line in block.data.split(b"\n")[:-1]:
            for found in read_line(line, offset):
                if isinstance(found, Placed) and self._is_of_team(found.event):
                    start = found.offset - offset
                    yield self._row(found, line[start : start + found.length])
            offset += len(line) + 1

    def _is_of_team(self, event: Event) -> bool:
        self.team_id = self.team_id or event.team_id
        return event.team_id is None or event.team_id == self.team_id

    def _row(self, placed: Placed, line: bytes) -> Row:
        event = placed.event
        beside = _decode_beside(line)
        return (
            self.team_id or DEFAULT_TEAM, placed.offset, placed.length, event.event, event.order_id, event.ts,
            _recorded(beside.recorded_at, event), *_after_recorded(event), document(beside.legs),
            *_after_legs(event), document(beside.raw),
        )  # fmt: skip


def _recorded(text: str | None, event: Event) -> str | None:
    """`recorded_at` as it came; in the notation of the format where it came in another one that was understood."""
    if text is None or is_common(text) or event.recorded_at is None:
        return text
    try:
        nanos(text)
    except BadInstant:
        return rfc3339((event.recorded_at - EPOCH) // timedelta(microseconds=1) * 1000)
    return text
