"""Server-sent events of one team: each is encoded once, and its bytes go to the connections of all streams at once.

The id of an event is the log offset to go on from; the field `mark` beside it, which browsers pass over, is the mark of
the log there. A stream that begins at an older id is first told what lies in between, from memory or by folding the log
again; one whose id or mark is not one of this log is told `reset`. Note: what a connection does not take waits for it;
once `QUEUE_MAX` events wait, the stream is ended with a reason, its client goes on from its last id, and nothing is
lost.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec

from compactor.core import CompactorError
from compactor.ledger.errors import LogRewritten
from compactor.tracker.change import RawChange
from compactor.tracker.ledger_rows import LedgerRows
from compactor.tracker.live_orders import LiveOrders
from compactor.tracker.tracked_ledger import LedgerBatch
from compactor.web.api_answers import encode
from compactor.web.api_keys import ApiKey, KeyStore
from compactor.web.connections import BoundedConnection
from compactor.web.row_formats import add_origin
from compactor.web.team_view import TeamView

QUEUE_MAX = 5_000
HEARTBEAT_SECONDS = 10.0
PIECE_SECONDS = 10.0
"""The time for the reader to take a piece, on top of the time until there is one."""
TICK_SECONDS = 1.0
RETRY_MS = 1000
_HEARTBEAT = b": nothing new\n\n"

Send = Callable[[bytes], Awaitable[None]]


class StreamEnd(CompactorError):
    """Why a stream ends; its client is told, and may come back."""


class StreamStart(NamedTuple):
    """Where a stream begins: behind an offset, and, if the client has it, the mark of the log there."""

    offset: int
    mark: str = ""


class EventStream:
    """The stream of one reader: its bytes go to the connection, and wait while that is full."""

    def __init__(self, connection: BoundedConnection, access: ApiKey) -> None:
        self._connection = connection
        self.access = access
        self.over: asyncio.Future[StreamEnd | None] = asyncio.get_running_loop().create_future()
        """Done when the stream is to end, with the reason; None where its reader has gone."""
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._events = 0
        self.beats_at = 0.0

    def write(self, chunk: bytes, events: int = 1) -> None:
        """Send a chunk (`frame_chunk`) with so many events; beyond the limit of what may wait the stream ends."""
        if self.over.done():
            return
        if not self._waiting and not self._connection.is_full:
            self._hand(chunk)
        elif self._events + events > QUEUE_MAX:
            self._waiting.clear()
            self.end(StreamEnd(f"this reader is more than {QUEUE_MAX} events behind; go on from the last id"))
        else:
            self._waiting.append((chunk, events))
            self._events += events

    def flush(self) -> None:
        """The connection has room again."""
        while self._waiting and not self._connection.is_full:
            chunk, events = self._waiting.popleft()
            self._events -= events
            self._hand(chunk)

    def beat(self, now: float, chunk: bytes) -> None:
        """Say that there is nothing new, if it is time."""
        if now >= self.beats_at and not self._waiting and not self._connection.is_full:
            self.write(chunk, 0)

    def _hand(self, chunk: bytes) -> None:
        self._connection.write_chunk(chunk)
        self.rest()

    def rest(self) -> None:
        """Something was sent: the next heartbeat is due later, and the reader has time to take it."""
        self.beats_at = time.monotonic() + HEARTBEAT_SECONDS
        if not self._connection.is_full:
            self._connection.extend(HEARTBEAT_SECONDS + PIECE_SECONDS)

    def end(self, end: StreamEnd | None) -> None:
        """End the stream; None: the reader has gone."""
        if not self.over.done():
            self.over.set_result(end)

    def lose(self) -> None:
        """The connection is no more."""
        self.end(None)


class TeamStreams:
    """The open streams of one team."""

    def __init__(self, tracker: LiveOrders, view: TeamView, trading: str | None, keys: KeyStore | None) -> None:
        self._tracker = tracker
        self._view = view
        self._trading = trading
        self._keys = keys
        self._keys_seen: object = None
        self._streams: set[EventStream] = set()
        self._ticking: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._streams)

    async def serve(self, stream: EventStream, start: StreamStart | None, send: Send) -> StreamEnd | None:
        """Serve a stream from its start, or from now on; returns why it ends, None where its reader has gone.

        `send` sends bytes and waits until the reader takes them.
        """
        try:
            after = await self._tell_start(stream, start, send)
            if after is not None:
                after = await self._tell_past(stream, after, send)
            # No await from here on: what is in memory, and what follows it, have no gap between them.
            if after is not None:
                self._tell_known(stream, after)
            self._join(stream)
            return await stream.over
        except StreamEnd as end:
            return end
        finally:
            self._leave(stream)

    def end(self, end: StreamEnd) -> None:
        """End all streams."""
        for stream in list(self._streams):
            stream.end(end)

    # The beginning.

    async def _tell_start(self, stream: EventStream, start: StreamStart | None, send: Send) -> int | None:
        """Say how current everything is; returns behind which offset the past begins, None if from now on."""
        is_ours = start is None or await self._is_ours(start)
        is_now = start is None or start.offset == self._view.offset
        # The id of a status is there for clients whose first one it is, or that have it without its mark.
        await send(b"retry: %d\n\n" % RETRY_MS + self._encode_status(with_id=is_ours and is_now))
        if not is_ours:
            await send(self._encode_reset("the last id is one of another log"))
        stream.rest()
        return start.offset if start is not None and is_ours else None

    async def _is_ours(self, start: StreamStart) -> bool:
        """Whether a start is one of this log, as far as anybody can say."""
        if start.offset > self._view.offset:
            return False
        try:
            known = await self._tracker.read_mark(self._view.team, start.offset)
        except CompactorError as error:
            raise StreamEnd(str(error)) from None
        return known is not None and start.mark in ("", known or start.mark)

    async def _tell_past(self, stream: EventStream, after: int, send: Send) -> int | None:
        """Tell the changes that are no longer in memory; returns up to where, None where another log began."""
        if self._is_in_memory(after):
            return after
        changes = self._tracker.raw_changes(self._view.team, after)
        coming: asyncio.Future[RawChange] | None = None
        try:
            while not stream.over.done():
                coming = asyncio.ensure_future(anext(changes))
                while not (await asyncio.wait({coming}, timeout=HEARTBEAT_SECONDS))[0]:
                    await send(b": reading the past\n\n")
                    stream.rest()
                change = await coming
                await send(encode_change(change))
                stream.rest()
                after = change.offset
                if self._is_in_memory(after):
                    break
            return after
        except LogRewritten as error:
            await send(self._encode_reset(str(error)))
            return None
        except CompactorError as error:
            raise StreamEnd(str(error)) from None
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.wait({coming})
            await changes.aclose()

    def _is_in_memory(self, after: int) -> bool:
        rows = self._view.rows
        return rows is None or rows.list_changes(after) is not None

    def _tell_known(self, stream: EventStream, after: int) -> None:
        rows = self._view.rows
        for change in (rows.list_changes(after) or []) if rows is not None else []:
            stream.write(frame_chunk(encode_change(change)))

    def _join(self, stream: EventStream) -> None:
        self._streams.add(stream)
        if self._ticking is None:
            self._tracker.listen(self._take)
            self._ticking = asyncio.create_task(self._tick())

    def _leave(self, stream: EventStream) -> None:
        self._streams.discard(stream)
        if not self._streams and self._ticking is not None:
            self._tracker.stop_listening(self._take)
            self._ticking.cancel()
            self._ticking = None

    # From then on.

    def _take(self, rows: LedgerRows, batch: LedgerBatch, is_anew: bool) -> None:
        """Tell all streams what a batch has changed."""
        if rows.team_id != self._view.team or batch.problem is not None:
            return
        self._end_revoked()
        if is_anew:
            self._write_to_all(self._encode_reset("the log was replaced by another one"))
        elif batch.loaded is not None and batch.offset:
            self._write_to_all(self._encode_reset("there was no log so far"))
        elif batch.changes:
            self._write_to_all(b"".join(map(encode_change, batch.changes)), len(batch.changes))
        if batch.intents is not None or batch.unplaced is not None:
            self._write_to_all(self._encode_status(with_id=False))

    def _write_to_all(self, data: bytes, events: int = 1) -> None:
        chunk = frame_chunk(data)
        for stream in self._streams:
            stream.write(chunk, events)

    async def _tick(self) -> None:
        """Once a second: what changed that is no event, keys that were revoked, and heartbeats."""
        before, heartbeat = None, frame_chunk(_HEARTBEAT)
        while True:
            status = msgspec.structs.replace(self._view.status, offset=0, log_bytes=0, as_of=None)
            self._end_revoked()
            if before is not None and status != before:
                self._write_to_all(self._encode_status(with_id=False))
            before, now = status, time.monotonic()
            for stream in self._streams:
                stream.beat(now, heartbeat)
            await asyncio.sleep(TICK_SECONDS)

    def _end_revoked(self) -> None:
        if self._keys is None or (seen := self._keys.version()) == self._keys_seen:
            return
        self._keys_seen = seen
        for stream in list(self._streams):
            if not self._keys.holds(stream.access):
                stream.end(StreamEnd("this key was revoked"))

    # What is sent.

    def _encode_status(self, *, with_id: bool) -> bytes:
        rows = self._view.rows
        head = b""
        if with_id:
            head = encode_id(rows.offset, rows.mark) if rows is not None else encode_id(0, "")
        return head + b"event: status\ndata: " + encode(self._view.describe(self._trading)) + b"\n\n"

    def _encode_reset(self, reason: str) -> bytes:
        rows = self._view.rows
        detail = {"detail": f"{reason}: read everything again", "offset": self._view.offset}
        head = encode_id(rows.offset, rows.mark) if rows is not None else encode_id(0, "")
        return head + b"event: reset\ndata: " + encode(detail) + b"\n\n"


def encode_id(offset: int, mark: str) -> bytes:
    """The lines with the id of an event, and the mark of the log there."""
    return b"id: %d\nmark: %b\n" % (offset, mark.encode()) if mark else b"id: %d\n" % offset


def encode_change(change: RawChange) -> bytes:
    """A change as a server-sent event: its row, an order's with `origin` and `open` as in the API."""
    data = change.line.rstrip()
    if change.kind == "order":
        more = b',"open":true}' if change.key is not None else b',"open":false}'
        if change.key is None and change.assigned_to is not None:
            more = b',"assigned_to":%b' % encode(change.assigned_to) + more
        data = add_origin(data, change.origin).rstrip()[:-1] + more
    return b"event: %b\n%bdata: %b\n\n" % (change.kind.encode(), encode_id(change.offset, change.mark), data)


def encode_end(end: StreamEnd) -> bytes:
    """The last event of a stream that the server ends."""
    return b"event: end\ndata: " + encode({"detail": str(end)}) + b"\n\n"


def frame_chunk(data: bytes) -> bytes:
    """Bytes as a chunk of an HTTP/1.1 body."""
    return b"%x\r\n%b\r\n" % (len(data), data)
