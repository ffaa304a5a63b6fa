"""The broker's clock: the time of day, or a simulated one on which days pass at once.

Instants are nanoseconds since 1970. Note: an instant is cut to 0, 3, 6 or 9 digits when it is taken
and never when it is written, so that however an instant is spelled on the wire it is the same one.
"""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime

from compactor.core.instants import nanos
from tests.alpaca_server.sessions import SECOND, in_new_york


class Clock:
    """Tells the time; `start` (RFC 3339) makes it a simulated one that only `advance` and `tick` move."""

    def __init__(self, rng: random.Random, start: str | None = None) -> None:
        self._rng = rng
        self.simulated = start is not None
        self._offset = 0
        self._last = nanos(start) if start is not None else time.time_ns()

    def now(self) -> int:
        """This instant, without moving."""
        return self._last if self.simulated else max(self._last, time.time_ns() + self._offset)

    def unix(self) -> float:
        """This instant in Unix seconds, for what takes a `clock`."""
        return self.now() / SECOND

    def advance(self, seconds: float) -> None:
        """Let time pass at once; on a real clock it stays ahead by so much."""
        self._offset += int(seconds * SECOND)
        if self.simulated:
            self._last += int(seconds * SECOND)

    def tick(self) -> int:
        """An instant later than all before it, for the next thing that happens."""
        at = self.now() + (self._rng.randrange(1000, 20_000_000) if self.simulated else 1000)
        digits = self._rng.choice((0, 3, 3, 6, 6, 6, 9, 9, 9, 9))
        cut = at - at % 10 ** (9 - digits)
        self._last = cut if cut > self._last else max(at, self._last + 1)
        return self._last


def written(at: int, rng: random.Random) -> str:
    """An instant as one of the many spellings that Alpaca mixes; all of them are exact."""
    digits = f"{at % SECOND:09d}"
    short = digits.rstrip("0")
    fraction = digits[: rng.randint(len(short), 9)]
    if rng.random() < 0.85:
        return f"{datetime.fromtimestamp(at // SECOND, UTC):%Y-%m-%dT%H:%M:%S}{'.' + fraction if fraction else ''}Z"
    local = in_new_york(at).isoformat()
    return f"{local[:19]}{'.' + fraction if fraction else ''}{local[19:]}"
