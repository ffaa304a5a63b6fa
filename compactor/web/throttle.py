"""Limit requests: token buckets by key and by address, bounded in number, and the headers that tell of them."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import NamedTuple

BUCKETS_MAX = 10_000
"""Beyond these the bucket that was not used for longest is forgotten; it would be full again by then, or nearly."""


class Allowance(NamedTuple):
    """What a bucket said: whether the request may pass, how many more may, and in how many seconds it is full again,
    or, for a refused one, has room for one."""

    is_allowed: bool
    limit: int
    remaining: int
    reset_seconds: int

    def encode_headers(self) -> bytes:
        """The same headers of what was allowed, as they are written."""
        return b"ratelimit-limit: %d\r\nratelimit-remaining: %d\r\nratelimit-reset: %d\r\n" % self[1:]

    def make_headers(self) -> list[tuple[bytes, bytes]]:
        """RateLimit headers, and Retry-After for what was refused."""
        found = [
            (b"ratelimit-limit", b"%d" % self.limit),
            (b"ratelimit-remaining", b"%d" % self.remaining),
            (b"ratelimit-reset", b"%d" % self.reset_seconds),
        ]
        return found if self.is_allowed else [*found, (b"retry-after", b"%d" % self.reset_seconds)]


class Throttle:
    """Buckets of so many requests a minute, which all of them may come at once."""

    def __init__(self, per_minute: int, buckets_max: int = BUCKETS_MAX) -> None:
        self._limit = per_minute
        self._per_second = per_minute / 60
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """The tokens of each, and the monotonic second that they are of."""
        self._buckets_max = buckets_max

    def is_spent(self, name: str) -> bool:
        """Whether a bucket is empty; takes nothing."""
        return name in self._buckets and not self.take(name, 0).is_allowed

    def take(self, name: str, tokens: int = 1) -> Allowance:
        """Take a token from a bucket; with 0, only look whether there is one."""
        now = time.monotonic()
        before, at = self._buckets.get(name, (float(self._limit), now))
        level = min(float(self._limit), before + (now - at) * self._per_second)
        if level < 1:
            return Allowance(False, self._limit, 0, max(1, round((1 - level) / self._per_second + 0.5)))
        if tokens:
            level -= tokens
            self._buckets[name] = (level, now)
            self._buckets.move_to_end(name)
            if len(self._buckets) > self._buckets_max:
                self._buckets.popitem(last=False)
        return Allowance(True, self._limit, int(level), round((self._limit - level) / self._per_second + 0.5))
