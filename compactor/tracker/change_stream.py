"""The changes behind an offset as one stream: first those of the past, then those that happen.

A consumer that begins far back is told of the past by folding it again, piece by piece, until what is missing is in
memory; in that moment, without an await in between, its queue begins.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from compactor.ledger import LedgerEntry
from compactor.tracker.change import Change, RawChange
from compactor.tracker.ledger_rows import LedgerRows
from compactor.tracker.past_changes import fold_changes
from compactor.tracker.subscription import Subscription

After = int | Mapping[str, int] | None
_PIECES_MAX = 4
_WAIT_SECONDS = 0.1


class ChangeStream:
    """The stream of one consumer."""

    def __init__(
        self,
        ledgers: Mapping[Path, LedgerRows],
        find_entry: Callable[[Path], LedgerEntry],
        subscriptions: set[Subscription],
        queue_max: int,
        team: str | None,
        after: After,
    ) -> None:
        self._ledgers = ledgers
        self._find_entry = find_entry
        self._subscriptions = subscriptions
        self._team = team
        self._after = after
        self._subscription = Subscription(queue_max, team)
        self._seen: dict[str, int] = {}

    async def follow(self) -> AsyncIterator[Change]:
        """The changes, until the consumer ends, or is too slow."""
        async for team_id, raw in self.follow_raw():
            yield raw.decode(team_id)

    async def follow_raw(self) -> AsyncIterator[tuple[str, RawChange]]:
        """The same, each with its team and not decoded yet."""
        begun: set[Path] = set()
        late: dict[Path, int] = {}
        # A ledger that is not there yet, or cannot be read, begins with the first change that the queue has of it.
        waiting = [path for path, rows in self._ledgers.items() if self._is_ready(rows)]
        self._subscription.left_out = set(waiting)
        self._subscriptions.add(self._subscription)
        try:
            starts = {path: self._choose_start(self._ledgers[path]) for path in waiting}
            for path, start in starts.items():
                async for change in self._begin(path, start):
                    yield change
                begun.add(path)
            while True:
                for path, raw in await self._subscription.take(dict(self._seen)):
                    if path not in begun:
                        begun.add(path)
                        late[path] = self._choose_start(self._ledgers[path]) if self._after is not None else 0
                        async for change in self._catch_up(path, late[path], raw):
                            yield change
                    if raw.is_behind(late.get(path, 0)):
                        yield self._note(path, raw)
        finally:
            self._subscriptions.discard(self._subscription)

    def _is_ready(self, rows: LedgerRows) -> bool:
        return self._team in (None, rows.team_id) and (rows.is_loaded or self._after is None)

    def _choose_start(self, rows: LedgerRows) -> int:
        if self._after is None:
            return rows.offset
        return self._after if isinstance(self._after, int) else self._after.get(rows.team_id, 0)

    async def _begin(self, path: Path, after: int) -> AsyncIterator[tuple[str, RawChange]]:
        """What is behind an offset by now; the queue has what follows."""
        rows = self._ledgers[path]
        self._seen[rows.team_id] = after
        while (known := rows.list_changes(after)) is None:
            end = rows.offset
            async for piece, offset in self._fold_past(path, after, end):
                for raw in piece:
                    yield self._note(path, raw)
                after = max(after, offset)
            after = max(after, end)
        self._subscription.left_out.discard(path)
        for raw in known:
            yield self._note(path, raw)

    async def _catch_up(self, path: Path, after: int, first: RawChange) -> AsyncIterator[tuple[str, RawChange]]:
        """What a ledger that has just appeared had before the first change that came through the queue."""
        async for piece, _offset in self._fold_past(path, after, first.offset):
            for raw in piece:
                if raw.offset < first.offset:
                    yield self._note(path, raw)

    async def _fold_past(self, path: Path, after: int, end: int) -> AsyncIterator[tuple[list[RawChange], int]]:
        """Changes that are no longer in memory, and the offset up to which these are all."""
        loop, stop = asyncio.get_running_loop(), threading.Event()
        pieces: asyncio.Queue[tuple[list[RawChange], int] | None] = asyncio.Queue(_PIECES_MAX)

        def hand(piece: list[RawChange], offset: int) -> None:
            future = asyncio.run_coroutine_threadsafe(pieces.put((piece, offset)), loop)
            while not stop.is_set():
                try:
                    future.result(_WAIT_SECONDS)
                    return
                except TimeoutError:
                    continue
            future.cancel()

        entry = self._find_entry(path)
        work = asyncio.ensure_future(asyncio.to_thread(fold_changes, entry, after, end, hand, stop))
        work.add_done_callback(lambda _: stop.is_set() or asyncio.ensure_future(pieces.put(None)))
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            await work
        finally:
            stop.set()
            # What it still raises is nobody's concern then.
            work.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _note(self, path: Path, raw: RawChange) -> tuple[str, RawChange]:
        team_id = self._ledgers[path].team_id
        self._seen[team_id] = raw.offset
        return team_id, raw
