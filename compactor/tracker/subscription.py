"""A bounded queue of changes for one consumer: a slow one is told so, and nobody else waits for it."""

from __future__ import annotations

import asyncio
from collections import deque
from pathlib import Path

from compactor.core import CompactorError
from compactor.tracker.change import RawChange

QUEUE_MAX = 10_000


class TooSlow(CompactorError):
    """A consumer of changes was further behind than its queue is long.

    Nothing is lost: go on with `changes(team, after=...)` from the offset of the last change that was seen; `after` has
    it for each team of which one was.
    """

    def __init__(self, message: str, after: dict[str, int]) -> None:
        super().__init__(message)
        self.after = after


class TrackerClosed(CompactorError):
    """The tracker was closed, or has not been opened: use it within `async with`."""


class Subscription:
    """The changes that one consumer has not taken yet. To be used in the thread of the event loop."""

    def __init__(self, limit: int, team: str | None) -> None:
        self._limit = limit
        self._team = team
        self.left_out: set[Path] = set()
        """The ledgers whose changes the consumer is still told from the past."""
        self._waiting: deque[tuple[Path, RawChange]] = deque()
        self._ready = asyncio.Event()
        self._is_over = False
        self.error: CompactorError | None = None

    def wants(self, path: Path, team_id: str) -> bool:
        """Whether the changes of a ledger belong into this queue now."""
        return self._team in (None, team_id) and path not in self.left_out

    def put(self, path: Path, changes: list[RawChange]) -> None:
        """Add changes; beyond the limit nothing more is taken in."""
        if self._is_over or self.error is not None:
            return
        if len(self._waiting) + len(changes) > self._limit:
            self._is_over = True
        else:
            self._waiting.extend((path, change) for change in changes)
        self._ready.set()

    def fail(self, error: CompactorError) -> None:
        """Let the consumer fail once it has taken what is waiting."""
        self.error = self.error or error
        self._ready.set()

    async def take(self, seen: dict[str, int]) -> list[tuple[Path, RawChange]]:
        """What is waiting, once there is something. Raises TooSlow with `seen`, or the error of `fail`."""
        while not self._waiting:
            if self._is_over:
                raise TooSlow(
                    f"this consumer of changes is more than {self._limit} changes behind; expected one that takes them "
                    f"as fast as they come, or a larger queue. Nothing is lost: go on with after={seen}",
                    seen,
                )
            if self.error is not None:
                raise self.error
            self._ready.clear()
            await self._ready.wait()
        taken = list(self._waiting)
        self._waiting.clear()
        return taken
