"""Limit the requests that an account makes per minute; everything that talks to the account shares one budget.

The retry policy lives in `rest`. Note: a request is counted before it is sent, and a failed one is not given back,
because the broker counted it too.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

WINDOW_SECONDS = 60
PER_MINUTE = 150
"""The rest of what a broker allows per account is left to the programs that place orders."""


class Budget:
    """At most `per_minute` requests in any 60 seconds, for all threads together. `clock` is monotonic, in seconds."""

    def __init__(
        self,
        per_minute: int = PER_MINUTE,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        assert per_minute > 0
        self.per_minute = per_minute
        self._clock = clock
        self._sleep = sleep
        self._spent: deque[float] = deque()
        self._closed_until = 0.0
        self._lock = threading.Lock()

    def spend(self) -> None:
        """Count one request; returns when it may be sent."""
        while wait := self._try():
            self._sleep(wait)

    def pause(self, seconds: float) -> None:
        """Block all requests for so many seconds, because the broker asked for a pause."""
        with self._lock:
            self._closed_until = max(self._closed_until, self._clock() + seconds)

    @property
    def used(self) -> int:
        """The number of requests in the last 60 seconds."""
        with self._lock:
            since = self._clock() - WINDOW_SECONDS
            return sum(at > since for at in self._spent)

    def _try(self) -> float:
        """Count a request if the budget allows it; else the seconds to wait before trying again."""
        with self._lock:
            now = self._clock()
            while self._spent and self._spent[0] <= now - WINDOW_SECONDS:
                self._spent.popleft()
            wait = self._closed_until - now
            if len(self._spent) >= self.per_minute:
                wait = max(wait, self._spent[0] + WINDOW_SECONDS - now)
            if wait <= 0:
                self._spent.append(now)
            return max(wait, 0.0)
