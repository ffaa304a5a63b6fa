"""The answer that is an event stream: it lasts until the client, the key, the server or a slow reader ends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from litestar.response import Response

from compactor.web.connections import EXTENSION, BoundedConnection
from compactor.web.event_streams import HEARTBEAT_SECONDS, StreamEnd, encode_end
from compactor.web.gate import Receive, Scope, Send
from compactor.web.traffic import Traffic

PIECE_SECONDS = 10.0
"""The time for the reader to take a piece, on top of the time until there is one."""
_HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    # nginx would keep events back until its buffer is full.
    (b"x-accel-buffering", b"no"),
]

Follow = Callable[[], AsyncIterator[bytes]]


class EventAnswer(Response[bytes]):
    """Sends what `follow` gives as it comes. `is_valid` says at every piece whether the key still counts."""

    def __init__(
        self, follow: Follow, traffic: Traffic, is_valid: Callable[[], bool], release: Callable[[], None]
    ) -> None:
        super().__init__(content=b"", media_type="text/event-stream")
        self._follow = follow
        self._traffic = traffic
        self._is_valid = is_valid
        self._release = release

    def to_asgi_response(self, *_arguments: Any, **_options: Any) -> Any:
        """The ASGI application that sends this answer."""
        return self._send_all

    async def _send_all(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._traffic.streams += 1
        sending = asyncio.create_task(self._send_events(scope, send))
        leaving = asyncio.create_task(_wait_for_disconnect(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._traffic.streams -= 1
            self._release()
            sending.cancel()
            leaving.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)

    async def _send_events(self, scope: Scope, send: Send) -> None:
        connection: BoundedConnection | None = scope.get("extensions", {}).get(EXTENSION)
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        try:
            async with aclosing(self._follow()) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    if not self._is_valid():
                        raise StreamEnd("this key was revoked")
                    if piece:
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                    if connection is not None:
                        connection.extend(HEARTBEAT_SECONDS + PIECE_SECONDS)
        except StreamEnd as end:
            self._traffic.streams_dropped += 1
            await send({"type": "http.response.body", "body": encode_end(end), "more_body": False})


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
