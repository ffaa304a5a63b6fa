"""The log's own clock (format.md, rule 6.1): how far the log has come in time, by what its events say and nothing else.

`recorded_at` moves it. The `ts` of an event without `recorded_at` moves it too, unless it lies more than a day ahead:
such a time waits until a later event shows whether time went on (a weekend without events) or the time was wild.
"""

from datetime import datetime, timedelta

from msgspec import Struct

from compactor.core.derived import Finding
from compactor.core.events import Event
from compactor.core.instants import moment

DAY = timedelta(days=1)


class Ahead(Struct, array_like=True, frozen=True):
    """An event without `recorded_at` whose `ts` lay more than a day ahead of the clock."""

    offset: int
    length: int
    ts: str


class LogClock(Struct):
    """The greatest time of the log that is confirmed, and the one that waits; a pure function of the log."""

    now: datetime | None = None
    ahead: Ahead | None = None

    def advance(self, at: datetime) -> None:
        """Move the clock to an instant, unless that lies before it. No time may be waiting."""
        self.now = at if self.now is None else max(self.now, at)

    def take(self, event: Event, offset: int, length: int) -> Finding | None:
        """Let an event move the clock; the finding about the time that waited, if that proves to be wild."""
        at = event.recorded_at or moment(event.ts)
        if event.recorded_at is None and self.now is not None and at - self.now > DAY:
            return self._take_ahead(at, Ahead(offset, length, event.ts))
        if self.now is not None and at <= self.now:
            return None
        self.now = at
        return self._judge_waiting(at)

    def _take_ahead(self, at: datetime, ahead: Ahead) -> Finding | None:
        """A second time ahead of the clock confirms the first one, unless it lies more than a day before it."""
        waited, self.ahead = self.ahead, ahead
        if waited is None:
            return None
        before = moment(waited.ts)
        if before - at > DAY:
            return _report(waited, at)
        self.now = before
        if at - before <= DAY:
            self.advance(at)
            self.ahead = None
        return None

    def _judge_waiting(self, at: datetime) -> Finding | None:
        """The clock went on without the time that waits: it is confirmed if it is near now, and wild if it is not."""
        waited, self.ahead = self.ahead, None
        if waited is None:
            return None
        before = moment(waited.ts)
        if before - at > DAY:
            return _report(waited, at)
        self.advance(before)
        return None


def _report(wild: Ahead, at: datetime) -> Finding:
    detail = f"`ts` {wild.ts} is more than a day ahead of the log's clock, which went on to {at.isoformat()} after it"
    return Finding(wild.offset, wild.length, "future_timestamp", True, detail)
