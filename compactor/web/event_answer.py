"""The answer that is an event stream: it lasts until the client, the key, the server or a slow reader ends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from litestar.response import Response

from compactor.web.api_keys import ApiKey
from compactor.web.connections import EXTENSION, BoundedConnection
from compactor.web.event_streams import EventStream, StreamStart, TeamStreams, encode_end
from compactor.web.gate import Receive, Scope, Send
from compactor.web.traffic import Traffic

_HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    # nginx would keep events back until its buffer is full.
    (b"x-accel-buffering", b"no"),
]


class EventAnswer(Response[bytes]):
    """Sends the events of a team's streams, from a start or from now on; `release` is called in the end."""

    def __init__(
        self, streams: TeamStreams, start: StreamStart | None, access: ApiKey, traffic: Traffic,
        release: Callable[[], None],
    ) -> None:  # fmt: skip
        super().__init__(content=b"", media_type="text/event-stream")
        self._streams = streams
        self._start = start
        self._access = access
        self._traffic = traffic
        self._release = release

    def to_asgi_response(self, *_arguments: Any, **_options: Any) -> Any:
        """The ASGI application that sends this answer."""
        return self._send_all

    async def _send_all(self, scope: Scope, _receive: Receive, send: Send) -> None:
        connection: BoundedConnection = scope["extensions"][EXTENSION]

        async def send_piece(piece: bytes, *, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": piece, "more_body": more})

        stream = EventStream(connection, self._access)
        self._traffic.streams += 1
        try:
            connection.sink = stream
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            if scope["state"]["is_head"]:
                await send_piece(b"", more=False)
                return
            end = await self._streams.serve(stream, self._start, send_piece)
            if end is not None:
                self._traffic.streams_dropped += 1
                await send_piece(encode_end(end), more=False)
        finally:
            connection.sink = None
            self._traffic.streams -= 1
            self._release()
