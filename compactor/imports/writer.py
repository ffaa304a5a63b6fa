"""Takes imported events to their ledgers: drops what a log has, appends the rest in batches, and compacts.

Where events come from, and which team they are for, is for `importing` to say. The rule that surprises: an event is
known by its order, its name and its `event_id`, which come from the recording alone. So the same recording imported
again, or once more after a crash half-way, adds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from compactor.books.failures import Failure, failure_of
from compactor.core.events import LINE_BYTES_MAX, Problem, decode
from compactor.core.lifecycle import normalize_name
from compactor.ledger import Compaction, Ledger
from compactor.ledger.paths import LOG

Progress = Callable[[int, int], None]
Fields = dict[str, Any]

BATCH_LINES = 4000
BATCH_BYTES = 8 << 20
# What the ledger adds to a line (`recorded_at`) has to fit into the longest line too.
_LINE_BYTES = LINE_BYTES_MAX - 128

ANY_TEAM = ""
"""In place of a team: the event is known whichever ledger it is for."""


class ImportProblem(msgspec.Struct, frozen=True):
    """A line that could not be imported: where it stands, counted from 1, and why."""

    file: str
    line: int
    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.kind}: {self.detail}"


class TeamImport(msgspec.Struct):
    """What one ledger got. `error`: why it could not be appended to or compacted; a new import goes on from there."""

    team_id: str
    path: str
    lines_read: int = 0
    events_appended: int = 0
    duplicates: int = 0
    problems: list[ImportProblem] = []
    compaction: Compaction | None = None
    error: Failure | None = None


class ImportResult(msgspec.Struct):
    """What became of a recording, one entry a team, ordered by team id."""

    teams: list[TeamImport]


class KnownEvent(msgspec.Struct):
    """What of a line in a log tells which event it is."""

    order_id: str
    event: str
    event_id: str | None = None
    to_team: str | None = None


_decode_known = msgspec.json.Decoder(KnownEvent).decode


def known_events(log: Path, meter: Meter | None = None) -> Iterator[KnownEvent]:
    """The events of a log that can be read at a glance; whatever else stands in it is for the fold."""
    if not log.exists():
        return
    for line in _lines_of(log):
        if meter is not None:
            meter.add(len(line) + 1)
        try:
            yield _decode_known(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue


def _lines_of(log: Path) -> Iterator[bytes]:
    """The lines of a log, sealed or not, and its unfinished last one."""
    rest = b""
    for piece in Ledger(log.parent).cat(0, log.stat().st_size):
        first, *lines = piece.split(b"\n")
        if not lines:
            rest += first
            continue
        yield rest + first
        rest = lines.pop()
        yield from lines
    if rest:
        yield rest


def key_of(event: Fields) -> bytes:
    """What an event is known by, in 16 bytes, because a recording may have millions."""
    return _key(event["order_id"], event["event"], event["event_id"])


def _key(order_id: str, event: str, event_id: str | None) -> bytes:
    return blake2b(msgspec.json.encode((order_id, normalize_name(event), event_id)), digest_size=16).digest()


class _Pile(msgspec.Struct):
    """The lines that wait to be appended to one ledger. `named` is None where the ledger's events name its team."""

    directory: Path
    named: str | None
    result: TeamImport
    lines: list[bytes] = []
    bytes_waiting: int = 0
    last_read: tuple[str, int] = ("", 0)


class Desk:
    """Takes events for the ledgers of a data directory.

    `own_team` is the team of the directory where it is itself a ledger (rule 1.2).
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        self.own_team = Ledger(data).team_id if (data / LOG).exists() else None
        self._piles: dict[str, _Pile] = {}
        self._have: set[tuple[str, bytes]] = set()

    def directory(self, team: str) -> Path:
        """Where the ledger of a team lies."""
        return self.data if team == self.own_team else self.data / "team" / team

    def recognize(self, known: KnownEvent, wanted: Collection[bytes], team: str = ANY_TEAM) -> bool:
        """Note that a log has an event, if it is one of those wanted."""
        key = _key(known.order_id, known.event, known.event_id)
        if key in wanted:
            self._have.add((team, key))
        return key in wanted

    def take(self, team: str, found: Fields | Problem, file: str, number: int) -> None:
        """Take what a line gave for a team: an event that is new, one that is not, or a problem."""
        pile = self._pile(team)
        result = pile.result
        if pile.last_read != (file, number):
            pile.last_read = (file, number)
            result.lines_read += 1
        if isinstance(found, dict):
            key = key_of(found)
            if (team, key) in self._have or (ANY_TEAM, key) in self._have:
                result.duplicates += 1
                return
        line = _line(found, pile.named) if isinstance(found, dict) else found
        if isinstance(line, Problem):
            result.problems.append(ImportProblem(file, number, line.kind, line.detail))
            return
        self._have.add((team, key))
        pile.lines.append(line)
        pile.bytes_waiting += len(line)
        if len(pile.lines) >= BATCH_LINES or pile.bytes_waiting >= BATCH_BYTES:
            _append(pile)

    def fail(self, team: str, error: Exception) -> None:
        """Note why a team's recording could not be imported; the others go on."""
        pile = self._pile(team)
        pile.result.error = failure_of(error, pile.directory)

    def flush(self, teams: Collection[str] = ()) -> bool:
        """Append what waits; durable when it returns. Whether that went well for all of `teams`."""
        for pile in self._piles.values():
            _append(pile)
        return all(self._pile(team).result.error is None for team in teams)

    def finish(self) -> ImportResult:
        """Append what waits and compact every ledger that anything was for."""
        self.flush()
        for pile in self._piles.values():
            if pile.result.error is None and (pile.directory / LOG).exists():
                _compact(pile)
        return ImportResult([self._piles[team].result for team in sorted(self._piles)])

    def _pile(self, team: str) -> _Pile:
        if team not in self._piles:
            directory = self.directory(team)
            self._piles[team] = _Pile(
                directory, None if team == self.own_team else team, TeamImport(team, str(directory))
            )
        return self._piles[team]


def _line(event: Fields, team: str | None) -> bytes | Problem:
    """The line to append, checked as the log's reader will; without the raw message where it would be too long."""
    if team is not None:
        event = event | {"team_id": team}
    line = msgspec.json.encode(event)
    if len(line) > _LINE_BYTES:
        line = msgspec.json.encode({name: value for name, value in event.items() if name != "raw"})
    found = decode(line)
    return found if isinstance(found, Problem) else line


def _append(pile: _Pile) -> None:
    lines, pile.lines, pile.bytes_waiting = pile.lines, [], 0
    if not lines or pile.result.error is not None:
        return
    try:
        with Ledger(pile.directory, team_id=pile.named) as ledger:
            pile.result.events_appended += ledger.append(lines).events
    except Exception as error:
        pile.result.error = failure_of(error, pile.directory)


def _compact(pile: _Pile) -> None:
    try:
        with Ledger(pile.directory, team_id=pile.named) as ledger:
            pile.result.compaction = ledger.compact()
    except Exception as error:
        pile.result.error = failure_of(error, pile.directory)


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
