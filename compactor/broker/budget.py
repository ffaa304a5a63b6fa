"""Limit the requests that an account makes per minute; everything that talks to the account shares one budget.

Requests about money (placing, replacing, canceling) are urgent. All others leave a share of the budget to them, and are
spread over the minute, so that a reconcile of many requests never holds up an order. The retry policy lives in the
adapter. Note: a request is counted before it is sent, and a failed one is not given back, because the broker counted it
too.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

WINDOW_SECONDS = 60
PER_MINUTE = 150
"""The rest of what a broker allows per account is left to other programs."""
LEFT_PERCENT = 20
"""The share of it that is left to urgent requests."""
BURST = 30
"""So many requests may be sent at once; more are spread evenly."""


class Budget:
    """At most `per_minute` requests in any 60 seconds, for all threads together. `clock` is monotonic, in seconds.

    Of these `left_percent` are left to urgent requests. `burst` requests that are not urgent may be sent at once, and
    further ones only as fast as the rest of the budget lasts; None for no such limit.
    """

    def __init__(
        self,
        per_minute: int = PER_MINUTE,
        *,
        left_percent: int = 0,
        burst: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        assert per_minute > 0 and 0 <= left_percent < 100
        self.per_minute = per_minute
        self._patient_max = max(1, per_minute * (100 - left_percent) // 100)
        self._burst = burst if burst is not None else self._patient_max
        self._clock = clock
        self._sleep = sleep
        self._spent: deque[float] = deque()
        self._patient: deque[float] = deque()
        """Those that were not urgent."""
        self._closed_until = 0.0
        self._lock = threading.Lock()

    def spend(self, *, is_urgent: bool = False) -> None:
        """Count one request; returns when it may be sent."""
        while wait := self._try(is_urgent):
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

    def _try(self, is_urgent: bool) -> float:
        """Count a request if the budget allows it; else the seconds to wait before trying again."""
        with self._lock:
            now = self._clock()
            wait = max(self._closed_until - now, _find_wait(self._spent, self.per_minute, WINDOW_SECONDS, now))
            if not is_urgent:
                wait = max(wait, _find_wait(self._patient, self._patient_max, WINDOW_SECONDS, now))
                # As many seconds as the burst would take at an even pace.
                burst_seconds = WINDOW_SECONDS * self._burst / self._patient_max
                wait = max(wait, _find_wait(self._patient, self._burst, burst_seconds, now))
            if wait <= 0:
                self._spent.append(now)
                if not is_urgent:
                    self._patient.append(now)
            return max(wait, 0.0)


def _find_wait(spent: deque[float], limit: int, seconds: float, now: float) -> float:
    """The seconds until one more request is at most the `limit`-th within `seconds`; forgets what is a minute old."""
    while spent and spent[0] <= now - WINDOW_SECONDS:
        spent.popleft()
    return spent[-limit] + seconds - now if len(spent) >= limit else 0.0
