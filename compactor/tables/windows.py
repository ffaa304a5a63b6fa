"""Windows of time over rows, and the time of what has none of its own.

The rule that surprises: a finding about a line that is no event has the time of the nearest event before it, which is
looked for in the 64 KiB before the line; where there is none, it lies in every window.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from compactor.core.instants import nanos
from compactor.core.lines import Placed, read_line
from compactor.ledger.log import Log

_BEFORE_BYTES = 1 << 16
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


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
