"""Server-sent events of one team: each change is encoded once and handed to every stream that is open.

The id of an event is the log offset to go on from. A stream that begins at an older one is first told what lies in
between, from memory or by folding the log again. Note: a stream whose reader does not keep up is ended with a reason
once `QUEUE_MAX` events wait for it; its client goes on from its last id, and nothing is lost.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

import msgspec

from compactor.core import CompactorError
from compactor.ledger.errors import LogRewritten
from compactor.tracker import Change, EndedOrder
from compactor.tracker.live_orders import LiveOrders
from compactor.web.api_answers import encode
from compactor.web.row_formats import add_origin
from compactor.web.team_view import TeamView

QUEUE_MAX = 5_000
HEARTBEAT_SECONDS = 10.0
FRESHNESS_SECONDS = 1.0
RETRY_MS = 1000


class StreamEnd(CompactorError):
    """Why a stream ends; its client is told, and may come back. `anew`: not after its last id, because the log is
    another one."""

    def __init__(self, reason: str, *, anew: bool = False) -> None:
        super().__init__(reason)
        self.anew = anew


class EventStream:
    """The events that wait for one reader."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._ready = asyncio.Event()
        self._end: StreamEnd | None = None

    def put(self, offset: int, data: bytes) -> None:
        """Add an event; beyond the limit the stream ends."""
        if self._end is not None:
            return
        if len(self._waiting) >= QUEUE_MAX:
            self.end(StreamEnd(f"this reader is more than {QUEUE_MAX} events behind; go on from the last id"))
            self._waiting.clear()
        else:
            self._waiting.append((offset, data))
            self._ready.set()

    def end(self, end: StreamEnd) -> None:
        """End the stream once what waits is taken."""
        self._end = self._end or end
        self._ready.set()

    async def take(self) -> list[tuple[int, bytes]]:
        """What waits, once there is something; nothing after a heartbeat's time. Raises StreamEnd."""
        if not self._waiting and self._end is None:
            self._ready.clear()
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await self._ready.wait()
            except TimeoutError:
                return []
        if not self._waiting and self._end is not None:
            raise self._end
        taken = list(self._waiting)
        self._waiting.clear()
        return taken


class TeamStreams:
    """The open streams of one team."""

    def __init__(self, tracker: LiveOrders, view: TeamView, trading: str | None) -> None:
        self._tracker = tracker
        self._view = view
        self._trading = trading
        self._streams: set[EventStream] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def __len__(self) -> int:
        return len(self._streams)

    async def follow(self, after: int | None) -> AsyncIterator[bytes]:
        """The events behind an offset, from now on without one, as bytes to send. Raises StreamEnd."""
        stream = EventStream()
        yield b"retry: %d\n\n" % RETRY_MS + self._encode_status(after is None)
        if after is not None:
            async for piece, reached in self._fold_past(after):
                after = reached
                yield piece
        # No await from here to the first piece: what is in memory, and what follows it, have no gap between them.
        known = self._list_known(after)
        self._streams.add(stream)
        try:
            seen = self._view.offset
            self._start(seen)
            if known:
                yield b"".join(data for _, data in known)
            while True:
                taken = await stream.take()
                fresh = [data for offset, data in taken if offset > seen or offset < 0]
                yield b"".join(fresh) if taken else b": nothing new\n\n"
        finally:
            self._streams.discard(stream)
            if not self._streams:
                self._stop()

    def end(self, end: StreamEnd) -> None:
        """End all streams."""
        for stream in self._streams:
            stream.end(end)

    def _list_known(self, after: int | None) -> list[tuple[int, bytes]]:
        rows = self._view.rows
        if rows is None or after is None:
            return []
        changes = rows.list_changes(after) or []
        return [(one.offset, encode_change(one.decode(rows.team_id))) for one in changes]

    async def _fold_past(self, after: int) -> AsyncIterator[tuple[bytes, int]]:
        """The changes that are no longer in memory, and with each piece the offset up to which these are all."""
        rows = self._view.rows
        if rows is None or rows.list_changes(after) is not None:
            return
        changes = self._tracker.changes(self._view.team, after=after)
        coming: asyncio.Future[Change] | None = None
        try:
            while True:
                coming = asyncio.ensure_future(anext(changes))
                while not (await asyncio.wait({coming}, timeout=HEARTBEAT_SECONDS))[0]:
                    yield b": reading the past\n\n", after
                change = await coming
                after = change.offset
                yield encode_change(change), after
                if (rows := self._view.rows) is None or rows.list_changes(after) is not None:
                    return
        except CompactorError as error:
            raise StreamEnd(str(error), anew=isinstance(error, LogRewritten)) from None
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.wait({coming})
            await changes.aclose()

    # One reader of the tracker for all streams.

    def _start(self, after: int) -> None:
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._pump(after)), asyncio.create_task(self._watch_freshness())]

    def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks = []

    async def _pump(self, after: int) -> None:
        try:
            async for change in self._tracker.changes(self._view.team, after=after):
                data = encode_change(change)
                for stream in self._streams:
                    stream.put(change.offset, data)
        except CompactorError as error:
            self.end(StreamEnd(str(error), anew=isinstance(error, LogRewritten)))
        finally:
            if self._tasks and self._tasks[0] is asyncio.current_task():
                self._stop()

    async def _watch_freshness(self) -> None:
        """Tell whenever something changes that is no event: reconciles, streams, reasons."""
        before = None
        while True:
            status = msgspec.structs.replace(self._view.status, offset=0, log_bytes=0, as_of=None)
            rows = self._view.rows
            now = (status, rows.intents if rows else None, rows.unplaced if rows else None)
            if before is not None and now != before:
                for stream in self._streams:
                    stream.put(-1, self._encode_status(False))
            before = now
            await asyncio.sleep(FRESHNESS_SECONDS)

    def _encode_status(self, with_id: bool) -> bytes:
        head = b"id: %d\n" % self._view.offset if with_id else b""
        return head + b"event: status\ndata: " + encode(self._view.describe(self._trading)) + b"\n\n"


def encode_change(change: Change) -> bytes:
    """A change as a server-sent event: its row, an order's with `open` as in the API."""
    data = add_origin(change.line, change.origin).rstrip()
    if change.kind == "order":
        row = change.row
        more = b',"open":false}' if isinstance(row, EndedOrder) else b',"open":true}'
        if isinstance(row, EndedOrder) and row.assigned_to is not None:
            more = b',"assigned_to":%b' % encode(row.assigned_to) + more
        data = data[:-1] + more
    return b"event: %b\nid: %d\ndata: %b\n\n" % (change.kind.encode(), change.offset, data)


def encode_end(end: StreamEnd) -> bytes:
    """The last event of a stream that the server ends."""
    return b"event: end\ndata: " + encode({"detail": str(end), "anew": end.anew}) + b"\n\n"
