"""Knows which ledger has which order, fast enough to be asked for every message of a stream.

Who owns an order that no ledger has is for `broker.ownership` to say. The index is made of the open orders and of the
last part of each log, and follows the logs, whoever appends to them. The rule that surprises: an order that is older
than that part, and not in the index, is looked for in the whole logs, once; a younger one cannot be in them.
"""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec

from compactor.core.instants import BadInstant, nanos
from compactor.ledger import Ledger, LedgerError, LedgerPlace, discover
from compactor.ledger.files import Files
from compactor.ledger.places import LOG
from compactor.ledger.reading import read_naming

TAIL_BYTES = 4 << 20
SKEW_NS = 3600 * 1_000_000_000
"""By how much our clock, which stamps lines, may be behind the broker's, which stamps orders."""
_READ_BYTES = 8 << 20


class _Line(msgspec.Struct):
    """What of a line tells whose an order is."""

    order_id: str
    event: str
    ts: str | None = None
    recorded_at: str | None = None
    to_team: str | None = None
    from_team: str | None = None


_decode = msgspec.json.Decoder(_Line).decode


class Owners:
    """The orders of a data directory and their teams. Safe for several threads."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._teams: dict[str, str] = {}
        self._assigned: dict[str, int] = {}
        """When an order was last given to a team: of several such lines, in several logs, the last one counts."""
        self._read_to: dict[Path, int] = {}
        self._covered_since: int | None = None
        """The index knows every order made after this instant, in nanoseconds; None where it knows all."""
        self._absent: set[str] = set()
        self._lock = threading.RLock()

    def known(self, order_id: str) -> str | None:
        """The team of an order that the index has; costs nothing."""
        return self._teams.get(order_id)

    def note(self, order_id: str, team: str) -> None:
        """Remember whose an order is that is about to be written, or that an event names."""
        self._teams.setdefault(order_id, team)

    def refresh(self) -> None:
        """Read what has been appended to the logs, by anybody. A ledger that cannot be read is left for later."""
        with self._lock:
            for place in discover(self._data):
                if place.problem is None:
                    try:
                        self._follow(place)
                    except (LedgerError, OSError):
                        continue

    def find(self, order_id: str, created_at: object = None) -> str | None:
        """The team whose ledger has an order; the logs are searched where the index, once refreshed, cannot tell."""
        team = self._teams.get(order_id)
        if team is not None or order_id in self._absent or self._is_covered(created_at):
            return team
        with self._lock:
            for place in discover(self._data):
                if place.problem is None and self._names(place, order_id):
                    self._teams.setdefault(order_id, _team_of(place))
            if order_id not in self._teams:
                if len(self._absent) > 100_000:
                    self._absent.clear()
                self._absent.add(order_id)
        return self._teams.get(order_id)

    def _is_covered(self, created_at: object) -> bool:
        if self._covered_since is None:
            return True
        try:
            return nanos(created_at) - SKEW_NS > self._covered_since
        except (BadInstant, TypeError):
            return False

    def _names(self, place: LedgerPlace, order_id: str) -> bool:
        found = False
        try:
            for _offset, text in read_naming(place.path, order_id, Files()):
                found |= self._take(text, _team_of(place), order_id)
        except (LedgerError, OSError):
            return found
        return found

    def _follow(self, place: LedgerPlace) -> None:
        path, team = place.path, _team_of(place)
        size = (path / LOG).stat().st_size
        start = self._read_to.get(path)
        if start is None or start > size:
            start = self._begin(place, size)
        while start < size:
            text = _read(path, start, min(size, start + _READ_BYTES))
            end = text.rfind(b"\n") + 1
            if end == 0:
                break
            for line in text[:end].splitlines():
                self._take(line, team)
            start += end
        self._read_to[path] = start

    def _begin(self, place: LedgerPlace, size: int) -> int:
        """Where to begin in a log that is new here: its open orders are known from their file."""
        for row in Ledger(place.path, team_id=place.team_id).pending_orders():
            self.note(row["order_id"], _team_of(place))
        start = max(0, size - TAIL_BYTES)
        if start == 0:
            return 0
        # The first whole line of the part that is read, and from when on it tells everything.
        text = _read(place.path, start, min(size, start + (2 << 20)))
        begin = text.find(b"\n") + 1
        line = text[begin:].partition(b"\n")[0]
        self._covered_since = max(self._covered_since or 0, _instant(line, default=2**63))
        return start + begin

    def _take(self, text: bytes, team: str, only: str | None = None) -> bool:
        try:
            line = _decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        if only is not None and line.order_id != only:
            return False
        if line.event == "assigned":
            self._assign(line, team)
        else:
            self._teams.setdefault(line.order_id, team)
        return True

    def _assign(self, line: _Line, team: str) -> None:
        at = _instant(b"", line=line)
        if at >= self._assigned.get(line.order_id, 0):
            self._assigned[line.order_id] = at
            self._teams[line.order_id] = line.to_team or team


def _team_of(place: LedgerPlace) -> str:
    """A directory that is itself a ledger gets everything, so how its team is called does not matter here."""
    return place.team_id or ""


def _instant(text: bytes, *, line: _Line | None = None, default: int = 0) -> int:
    try:
        line = line or _decode(text)
        return nanos(line.recorded_at or line.ts)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, BadInstant, TypeError):
        return default


def _read(path: Path, start: int, end: int) -> bytes:
    """The bytes of a log, out of its segments where it has given them back."""
    with (path / LOG).open("rb") as log:
        log.seek(start)
        found = log.read(end - start)
    return b"".join(Ledger(path).cat(start, end)) if b"\0" in found else found
