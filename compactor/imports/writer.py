"""Append imported events to their ledgers: drop duplicates, write the rest in batches, and compact.

Translation of a recording into events, and the team of each event, are left to `captures` and `legacy`.

Note: an event is identified by its order, its name and its `event_id`, which come from the recording alone. Importing
the same recording again, or once more after a crash half-way, therefore adds nothing.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from compactor.books.failures import Failure, describe_failure
from compactor.core.decoding import build_event
from compactor.core.events import LINE_BYTES_MAX, Event, Problem
from compactor.core.instants import rfc3339
from compactor.core.lifecycle import normalize_name
from compactor.core.lines import Block, EventReader, Glance, Placed
from compactor.core.printable import hide_credentials
from compactor.ledger import Compaction, Ledger, NoLedger
from compactor.ledger.compaction import Progress
from compactor.ledger.files import Files
from compactor.ledger.log import open_log
from compactor.ledger.log_writer import append_lines, encode_event
from compactor.ledger.paths import LOG

Fields = dict[str, Any]
_KEY_ID = re.compile(r"(key[-_]?id[\"'\\]{0,8}\s{0,8}[:=]\s{0,8}[\"'\\]{0,8})[^\s\"'\\,;})\]]+", re.IGNORECASE)

BATCH_LINES = 4000
BATCH_BYTES = 8 << 20


class ImportProblem(msgspec.Struct, frozen=True):
    """A line that could not be imported: its file, its number counted from 1, and the reason."""

    file: str
    line: int
    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.kind}: {self.detail}"


class TeamImport(msgspec.Struct):
    """What one ledger received. `error` says why appending or compacting failed; importing again continues there.

    `not_fills` counts the activities that are no fills of orders, by type. `vanished` are the open orders that are no
    longer in an old file that is rewritten, and have no trade.
    """

    team_id: str
    path: str
    lines_read: int = 0
    events_appended: int = 0
    duplicates: int = 0
    problems: list[ImportProblem] = []
    not_fills: dict[str, int] = {}
    vanished: list[str] = []
    compaction: Compaction | None = None
    error: Failure | None = None


class ImportResult(msgspec.Struct):
    """What became of a recording, one entry per team, ordered by team id."""

    teams: list[TeamImport]
    moved: dict[str, str] = {}
    """Orders that were unassigned, and the teams that they were moved to."""


def known_events(
    path: Path, team: str, orders: Collection[str], meter: Meter | None = None
) -> Iterator[tuple[Event, bytes]]:
    """Read the events of some orders that the ledger at a path has, each with its line; none where there is no log.

    Raises LedgerError.
    """
    for placed, line in read_known(path, team, lambda glance: glance.order_id in orders, meter):
        if placed.event.order_id in orders:
            yield placed.event, line


def read_known(
    path: Path, team: str, wants: Callable[[Glance], bool], meter: Meter | None = None
) -> Iterator[tuple[Placed, bytes]]:
    """Read the events that the ledger at a path has, each with its line, and skip most that are not wanted.

    Yields none where there is no log. Raises LedgerError.
    """
    reader = EventReader(team)
    with suppress(NoLedger), open_log(path, Files()) as log:
        size = log.identity().size
        end = log.end_of_whole_lines(size)
        # The last line becomes a whole one as soon as something is appended behind it.
        last = log.read(end, min(size - end, LINE_BYTES_MAX)) + b"\n"
        for block in itertools.chain(log.blocks(0, end), [Block(end, last, len(last))]):
            if meter is not None:
                meter.add(block.length)
            for found, line in reader.read_block(block, wants):
                if isinstance(found, Placed):
                    yield found, line


def check_event(event: Fields) -> Fields | Problem:
    """Return the event, or why a log would not take it. This is the only check on an event's way into a log."""
    found = build_event(event)
    return found if isinstance(found, Problem) else event


def _hide_keys(text: str) -> str:
    """Hide secrets, and the ids of keys of the API, which stand beside them in a header or a request."""
    return _KEY_ID.sub(r"\1(hidden)", hide_credentials(text))


def hash_identity(event: Fields) -> bytes:
    """Hash the identity of an event to 16 bytes, because a recording may have millions."""
    return _hash(event["order_id"], event["event"], event["event_id"])


def _hash(order_id: str, event: str, event_id: str | None) -> bytes:
    return blake2b(msgspec.json.encode((order_id, normalize_name(event), event_id)), digest_size=16).digest()


def _name_execution(execution_id: Any) -> str | None:
    """An execution by the last part of its id: an activity's has its time before that."""
    return str(execution_id).rpartition("::")[2] if execution_id is not None else None


class _Batch(msgspec.Struct):
    """The lines to append next to one ledger. `named` is None where the ledger's events name its team."""

    directory: Path
    named: str | None
    result: TeamImport
    lines: list[bytes] = []
    bytes_waiting: int = 0
    last_read: tuple[str, int] = ("", 0)

    def count_line(self, file: str, number: int) -> None:
        """Count a line once, however many events it gives."""
        if self.last_read != (file, number):
            self.last_read = (file, number)
            self.result.lines_read += 1


class ImportWriter:
    """Collects events for the ledgers of a data directory and appends them in batches.

    `own_team` is the team of the directory where it is itself a ledger (rule 1.2).
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        self.own_team = Ledger(data).team_id if (data / LOG).exists() else None
        self._batches: dict[str, _Batch] = {}
        self._in_logs: dict[bytes, set[str | None]] = {}
        self._added: set[tuple[str, bytes, str | None]] = set()
        self._stamp = rfc3339(time.time_ns())

    def find_directory(self, team: str) -> Path:
        """The directory of a team's ledger."""
        return self.data if team == self.own_team else self.data / "team" / team

    def recognize(self, known: Event, wanted: Collection[bytes]) -> None:
        """Remember that a log has an event, if it is one of those wanted. It is a duplicate in every ledger."""
        identity = _hash(known.order_id, known.event, known.event_id)
        if identity in wanted:
            self._in_logs.setdefault(identity, set()).add(_name_execution(known.execution_id))

    def add(self, team: str, found: Fields | Problem, file: str, number: int, *, is_known: bool = False) -> None:
        """Add what a line gave for a team: a checked event, which may be a duplicate, or a problem.

        What no line gave has the number 0. With `is_known` the caller knows that the log has the event.
        """
        batch = self._find_batch(team)
        result = batch.result
        if number:
            batch.count_line(file, number)
        if isinstance(found, Problem):
            result.problems.append(ImportProblem(file, number, found.kind, _hide_keys(found.detail)))
            return
        identity, execution = hash_identity(found), _name_execution(found.get("execution_id"))
        if is_known or self._is_in_logs(identity, execution) or (team, identity, execution) in self._added:
            result.duplicates += 1
            return
        line = self._encode(found, batch.named)
        if isinstance(line, Problem):
            result.problems.append(ImportProblem(file, number, line.kind, line.detail))
            return
        self._added.add((team, identity, execution))
        batch.lines.append(line)
        batch.bytes_waiting += len(line)
        if len(batch.lines) >= BATCH_LINES or batch.bytes_waiting >= BATCH_BYTES:
            self._append(batch)

    def _is_in_logs(self, identity: bytes, execution: str | None) -> bool:
        # Another execution is another event, whatever a source calls both.
        known = self._in_logs.get(identity, ())
        return bool(known) and (execution is None or None in known or execution in known)

    def skip(self, team: str, activity_type: str, file: str, number: int) -> None:
        """Count an activity that is no fill of an order."""
        batch = self._find_batch(team)
        batch.count_line(file, number)
        batch.result.not_fills[activity_type] = batch.result.not_fills.get(activity_type, 0) + 1

    def report_vanished(self, team: str, order_ids: list[str]) -> None:
        """Report open orders that are no longer in an old file that is rewritten."""
        self._find_batch(team).result.vanished = order_ids

    def fail(self, team: str, error: Exception) -> None:
        """Record why a team's recording could not be imported. The other teams continue."""
        batch = self._find_batch(team)
        batch.result.error = describe_failure(error, batch.directory)

    def flush(self, teams: Collection[str] = ()) -> bool:
        """Append all waiting lines; durable when it returns. Returns whether that succeeded for all of `teams`."""
        for batch in self._batches.values():
            self._append(batch)
        return all(self._find_batch(team).result.error is None for team in teams)

    def finish(self) -> ImportResult:
        """Append all waiting lines and compact every ledger that was named."""
        self.flush()
        for batch in self._batches.values():
            if batch.result.error is None and (batch.directory / LOG).exists():
                _compact(batch)
        return ImportResult([self._batches[team].result for team in sorted(self._batches)])

    def _find_batch(self, team: str) -> _Batch:
        if team not in self._batches:
            directory = self.find_directory(team)
            named = None if team == self.own_team else team
            self._batches[team] = _Batch(directory, named, TeamImport(team, str(directory)))
        return self._batches[team]

    def _encode(self, event: Fields, team: str | None) -> bytes | Problem:
        return encode_event(event if team is None else event | {"team_id": team}, self._stamp, drop_raw=True)

    def _append(self, batch: _Batch) -> None:
        lines, batch.lines, batch.bytes_waiting = batch.lines, [], 0
        if not lines or batch.result.error is not None:
            return
        try:
            Ledger(batch.directory, team_id=batch.named)  # Refuses a bad team id before anything is made.
            batch.directory.mkdir(parents=True, exist_ok=True)
            batch.result.events_appended += append_lines(batch.directory / LOG, lines, "sync").events
        except Exception as error:
            batch.result.error = describe_failure(error, batch.directory)
        self._stamp = rfc3339(time.time_ns())


def _compact(batch: _Batch) -> None:
    try:
        with Ledger(batch.directory, team_id=batch.named) as ledger:
            batch.result.compaction = ledger.compact()
    except Exception as error:
        batch.result.error = describe_failure(error, batch.directory)


class Meter:
    """Counts bytes read for the progress display."""

    def __init__(self, progress: Progress | None, bytes_total: int) -> None:
        self._progress = progress
        self._bytes_total = bytes_total
        self._bytes_done = 0
        self._bytes_shown = 0

    def add(self, length: int) -> None:
        self._bytes_done += length
        if self._progress is not None and self._bytes_done - self._bytes_shown >= 1 << 16:
            self._bytes_shown = self._bytes_done
            self._progress(min(self._bytes_done, self._bytes_total), self._bytes_total)
