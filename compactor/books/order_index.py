"""Knows which ledger has which order, fast enough to be asked for every message of a stream.

Who owns an order that no ledger has is for `broker.ownership` to say. The index is made of the open orders and of the
last part of each log, and follows the logs, whoever appends to them. The rule that surprises: an order that is older
than that part, and not in the index, is looked for in the whole logs, once; a younger one cannot be in them.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

import msgspec

from compactor.books.ownership import holder_of
from compactor.core.instants import BadInstant, nanos
from compactor.ledger import Ledger, LedgerEntry, LedgerError, discover
from compactor.ledger.files import Files
from compactor.ledger.paths import LOG
from compactor.ledger.reading import read_naming

TAIL_BYTES = 4 << 20
SKEW_NS = 3600 * 1_000_000_000
"""By how much our clock, which stamps lines, may be behind the broker's, which stamps orders."""
DISCOVER_SECONDS = 1.0
"""How often it is looked for ledgers that are new, where nobody needs to know it now."""
_READ_BYTES = 8 << 20
_ABSENT_MAX = 100_000
KNOWN_MAX = 1_000_000
"""How many orders are kept in memory, some 150 MB of them; beyond that the older half is looked for in the logs."""


class _Line(msgspec.Struct):
    """What of a line tells whose an order is."""

    order_id: str
    event: str
    ts: str | None = None
    recorded_at: str | None = None
    to_team: str | None = None


_decode = msgspec.json.Decoder(_Line).decode


class Owners:
    """The orders of a data directory and their teams. Safe for several threads."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._teams: dict[str, str] = {}
        self._away: dict[str, dict[str, str]] = {}
        """For each team the orders that its log says to be another's now, and whose (rule 4.12)."""
        self._places: list[LedgerEntry] = []
        self._discovered_at = 0.0
        self._read_to: dict[Path, int] = {}
        self._covered_since: int | None = None
        """The index knows every order made after this instant, in nanoseconds; None where it knows all."""
        self._absent: set[str] = set()
        self._lock = threading.RLock()

    def known(self, order_id: str) -> str | None:
        """The team of an order that the index has; costs nothing."""
        team = self._teams.get(order_id)
        return team if team is None or not self._away else holder_of(order_id, team, self._away)

    def note(self, order_id: str, team: str) -> None:
        """Remember whose an order is that is about to be written, or that an event names."""
        self._teams.setdefault(order_id, team)

    def expect_new(self) -> None:
        """A ledger is about to be made: look for it the next time."""
        self._discovered_at = 0.0

    def follow(self, *, look_for_new: bool = False) -> None:
        """Read what has been appended to the logs, by anybody: above all, whether orders were assigned.

        Ledgers that are new are found now and then, or now. One that cannot be read is left for later.
        """
        with self._lock:
            if look_for_new or time.monotonic() - self._discovered_at > DISCOVER_SECONDS:
                self._places = [place for place in discover(self._data) if place.problem is None]
                self._discovered_at = time.monotonic()
            self._forget_old()
            for place in self._places:
                try:
                    self._follow(place)
                except (LedgerError, OSError):
                    continue

    def _forget_old(self) -> None:
        if len(self._teams) <= KNOWN_MAX:
            return
        self._teams = dict(list(self._teams.items())[KNOWN_MAX // 2 :])
        self._covered_since = time.time_ns()

    def find(self, order_id: str, created_at: object = None) -> str | None:
        """The team whose ledger has an order; the logs are searched where the index, once refreshed, cannot tell."""
        team = self.known(order_id)
        if team is not None or order_id in self._absent or self._is_covered(created_at):
            return team
        with self._lock:
            for place in self._places:
                self._search(place, order_id)
            if order_id not in self._teams:
                if len(self._absent) > _ABSENT_MAX:
                    self._absent.clear()
                self._absent.add(order_id)
        return self.known(order_id)

    def _is_covered(self, created_at: object) -> bool:
        if self._covered_since is None:
            return True
        try:
            return nanos(str(created_at)) - SKEW_NS > self._covered_since
        except BadInstant:
            return False

    def _search(self, place: LedgerEntry, order_id: str) -> None:
        try:
            for _offset, text in read_naming(place.path, order_id, Files()):
                self._take(text, _team_of(place), order_id)
        except (LedgerError, OSError):
            # The daemon names a ledger that cannot be read, and the reconcile adopts nothing meanwhile.
            return

    def _follow(self, place: LedgerEntry) -> None:
        path, team = place.path, _team_of(place)
        size = (path / LOG).stat().st_size
        start = self._read_to.get(path)
        if start is None or start > size:
            start = self._begin(place, size)
        while start < size:
            text = _read(path, start, min(size, start + _READ_BYTES))
            end = text.rfind(b"\n") + 1
            if end == 0 and len(text) < _READ_BYTES:
                break
            for line in text[:end].split(b"\n"):
                self._take(line, team)
            # A line that is longer than what is read at once is no event.
            start += end or len(text)
        self._read_to[path] = start

    def _begin(self, place: LedgerEntry, size: int) -> int:
        """Where to begin in a log that is new here: its open orders are known from their file."""
        try:
            for row in Ledger(place.path, team_id=place.team_id).rows("pending_orders"):
                self.note(row["order_id"], _team_of(place))
        except LedgerError:
            self._covered_since = time.time_ns()  # Its log has them; they are searched for when they are asked for.
        start = max(0, size - TAIL_BYTES)
        if start == 0:
            return 0
        # The first whole line of the part that is read, and from when on it tells everything.
        text = _read(place.path, start, min(size, start + (2 << 20)))
        begin = text.find(b"\n") + 1
        line = text[begin:].partition(b"\n")[0]
        self._covered_since = max(self._covered_since or 0, _instant(line))
        return start + begin

    def _take(self, text: bytes, team: str, only: str | None = None) -> None:
        try:
            line = _decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        if only is not None and line.order_id != only:
            return
        self._teams.setdefault(line.order_id, team)
        if line.event == "assigned":
            if line.to_team is not None:
                self._away.setdefault(team, {})[line.order_id] = line.to_team
            else:
                self._away.get(team, {}).pop(line.order_id, None)


def _team_of(place: LedgerEntry) -> str:
    """A directory that is itself a ledger gets everything, so how its team is called does not matter here."""
    return place.team_id or ""


def _instant(text: bytes) -> int:
    """When a line was appended, in nanoseconds; the end of time where it cannot be read."""
    try:
        line = _decode(text)
        return nanos(line.recorded_at or line.ts or "")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, BadInstant):
        return 1 << 63


def _read(path: Path, start: int, end: int) -> bytes:
    """The bytes of a log, out of its segments where it has given them back."""
    with (path / LOG).open("rb") as log:
        log.seek(start)
        found = log.read(end - start)
    return b"".join(Ledger(path).cat(start, end)) if b"\0" in found else found
