"""Bound the connections of the HTTP server: their number, the bytes of a request, and the time for each step.

A request has ten seconds to arrive, whole, and its answer thirty to be read; an event stream has ten for each piece.
Beyond the number the oldest connection that waits for something is closed, so that slow clients use up no descriptors
and keep nobody out.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

REQUEST_SECONDS = 10.0
"""The time for a whole request, however slowly its bytes come."""
ANSWER_SECONDS = 30.0
"""The time for a whole answer, however slowly it is read; event streams have their own, for each piece."""
REQUEST_BYTES_MAX = 64 << 10
"""A request with its head and body; the longest that anybody needs has some hundred bytes."""
REFUSED_SECONDS = 2.0
REFUSED_BYTES_MAX = 1 << 20
"""How long, and how far, a request that was refused unread is read, so that its sender sees the answer."""
WAITING_MAX = 64
"""Connections that have not sent a whole request; beyond these the oldest is closed."""
SWEEP_SECONDS = 0.25
ONE_PIECE_BYTES = 64 << 10
"""A longer body is not copied behind its head."""
EXTENSION = "compactor.connection"
"""Where the application finds the connection of a request, in the extensions of its scope."""


class Sink(Protocol):
    """Whoever writes to a connection past its answer, in pieces of a body without an end."""

    def flush(self) -> None: ...
    def lose(self) -> None: ...


class Connections:
    """The open connections of one server, and their bounds."""

    def __init__(self, connections_max: int) -> None:
        self._connections_max = connections_max
        self._open: dict[BoundedConnection, None] = {}
        self._waiting: dict[BoundedConnection, None] = {}
        """Those that have not sent a whole request, and of those that had an answer the idle ones; oldest first."""
        self.cut_off = 0
        """How many were closed for one of the bounds."""

    def __len__(self) -> int:
        return len(self._open)

    def make_protocol(self) -> type[HttpToolsProtocol]:
        """The class of uvicorn's protocol whose connections are bounded by this object."""
        return type("_Connection", (BoundedConnection,), {"owner": self})

    def add(self, connection: BoundedConnection) -> None:
        """Count a new connection in; closes the oldest one that waits for something, if there are too many."""
        self._open[connection] = None
        self.note_waiting(connection)
        if len(self._waiting) > WAITING_MAX or len(self._open) > self._connections_max:
            self._abort(next(iter(self._waiting)))

    def note_waiting(self, connection: BoundedConnection) -> None:
        """The connection waits for a request from now on."""
        self._waiting.pop(connection, None)
        self._waiting[connection] = None

    def note_served(self, connection: BoundedConnection) -> None:
        """The connection has sent a request, whole."""
        self._waiting.pop(connection, None)

    def remove(self, connection: BoundedConnection) -> None:
        """Count a connection out."""
        self._open.pop(connection, None)
        self._waiting.pop(connection, None)

    async def sweep(self) -> None:
        """Close the connections whose time is over, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = time.monotonic()
            for connection in [one for one in self._open if one.deadline < now]:
                self._abort(connection)

    def _abort(self, connection: BoundedConnection) -> None:
        self.remove(connection)
        self.cut_off += 1
        connection.transport.abort()


class BoundedConnection(HttpToolsProtocol):
    """A connection with a deadline for what it is about, and a bound for the bytes of a request."""

    owner: Connections
    deadline = 0.0
    """The monotonic second at which the connection is closed."""
    sink: Sink | None = None
    """Told when the connection has room again after it was full, and when it is no more."""
    _received = 0
    _is_refused = False

    @property
    def is_full(self) -> bool:
        """Whether the client does not take what was written."""
        return self.flow.write_paused

    def write_chunk(self, chunk: bytes) -> None:
        """Write a chunk of the answer that is under way, and does not say how long it is."""
        self.transport.write(chunk)

    def write_default_headers(self) -> bytes:
        """The headers of every answer of the server, which is its date, as they are written."""
        return b"".join(b"%b: %b\r\n" % pair for pair in self.server_state.default_headers)

    def answer_at_once(self, scope: object, head: bytes, body: bytes) -> bool:
        """Write a whole answer, its head with the line of the status and an empty line at the end, as one piece.

        Returns False, with nothing written, for a request (told by its scope) whose turn it is not, on a connection
        that is full, or that ends with this answer: uvicorn sends those.
        """
        cycle = self.cycle
        if cycle is None or cycle.scope is not scope or cycle.response_started or not cycle.keep_alive:
            return False
        if cycle.disconnected or self.flow.write_paused or self.transport.is_closing():
            return False
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        if len(body) <= ONE_PIECE_BYTES:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.transport.write(body)
        cycle.on_response()
        return True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self.extend(REQUEST_SECONDS)
        self.owner.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.owner.remove(self)
        super().connection_lost(exc)
        if self.sink is not None:
            self.sink.lose()

    def resume_writing(self) -> None:
        """The client has taken most of what was written."""
        super().resume_writing()
        if self.sink is not None:
            self.sink.flush()

    def extend(self, seconds: float) -> None:
        """Give the connection another deadline, from now on."""
        self.deadline = time.monotonic() + seconds

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request; more than it may have are refused."""
        if not self._received and (self.cycle is None or self.cycle.response_complete):
            self.extend(REQUEST_SECONDS)
        self._received += len(data)
        if self._is_refused:
            # Read on for a moment: the answer would be lost if the connection were closed with bytes unread.
            if self._received > REFUSED_BYTES_MAX:
                self.transport.abort()
            return
        if self._received > REQUEST_BYTES_MAX:
            self._refuse(b"413 Content Too Large", b"the request is longer than %d bytes" % REQUEST_BYTES_MAX)
            return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Let the application find the connection of a request."""
        super().on_message_begin()
        self.scope["extensions"] = {EXTENSION: self}  # type: ignore[dict-item]

    def on_message_complete(self) -> None:
        """The request is there, whole: its answer has a time of its own."""
        super().on_message_complete()
        self._received = 0
        self.owner.note_served(self)
        self.extend(ANSWER_SECONDS)

    def on_response_complete(self) -> None:
        """The answer is written: it has to be read in time, and another request may come."""
        super().on_response_complete()
        self.extend(ANSWER_SECONDS)
        if not self.pipeline and not self.transport.is_closing():
            self.owner.note_waiting(self)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP request, in the form of all other errors."""
        self._refuse(b"400 Bad Request", msg.encode())

    def _refuse(self, status: bytes, detail: bytes) -> None:
        # An answer that is under way can only be broken off.
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            if self.cycle is not None and not self.cycle.response_complete:
                self.cycle.disconnected = True  # Whatever the application still answers goes nowhere.
                self.cycle.message_event.set()
            text = b'{"detail":"%b"}' % detail
            self.transport.write(
                b"HTTP/1.1 %b\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
                % (status, len(text), text)
            )
            self._is_refused = True
            self.extend(REFUSED_SECONDS)
            if self.transport.can_write_eof():
                self.transport.write_eof()
            return
        self.transport.close()
