"""The broker's stream: one WebSocket per account that tells trade updates to whoever listens, in binary on paper.

What is told is for `wire`. Note: nothing is told twice for somebody who was away; what happened
while nobody listened is never heard of here.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from aiohttp import WSMsgType, web

from tests.alpaca_server.account import Account
from tests.alpaca_server.faults import Faults
from tests.alpaca_server.rest import PAGE, refuse

_UNKNOWN = ("order_hibernated", "trade_novated", "locate_returned")


class Stream:
    """Serves GET /stream for all accounts."""

    def __init__(self, accounts: dict[str, Account], faults: Faults, *, binary: bool, dead_seconds: float) -> None:
        self.accounts = accounts
        self.faults = faults
        self.binary = binary
        self.dead_seconds = dead_seconds
        """How long a half-open connection holds the account's place."""
        self.refusal: str | None = None
        """Refuse all: `unauthorized` in the greeting, or `forbidden` or `page` instead of a connection."""
        self.redirect: str | None = None
        """Where whoever connects is sent instead."""
        self.sessions: list[Session] = []
        self.opened = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one connection until it ends. The account is known only after it has said who it is."""
        socket = web.WebSocketResponse(autoping=True)
        if self.redirect is not None:
            raise web.HTTPTemporaryRedirect(self.redirect)
        if self.refusal in ("forbidden", "page"):
            return refuse(self.refusal)
        if sum(session.account.connections for session in self.sessions if session.account) >= len(self.accounts):
            return web.json_response({"code": 42910000, "message": "connection limit exceeded"}, status=429)
        await socket.prepare(request)
        session = Session(self, socket, request.transport)
        self.sessions.append(session)
        self.opened += 1
        try:
            await session.serve()
        finally:
            session.leave()
            self.sessions.remove(session)
        return socket


class Session:
    """One connection: first who it is, then what it listens to, then updates."""

    def __init__(self, stream: Stream, socket: web.WebSocketResponse, transport: asyncio.Transport | None) -> None:
        self.transport = transport
        self._stream = stream
        self._socket = socket
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.account: Account | None = None
        self.listening = False
        self.mute = False
        self.half_open = False
        self._held: bytes | None = None
        self._sender: asyncio.Task[None] | None = None

    async def serve(self) -> None:
        """Answer what the client says, until it goes."""
        async for message in self._socket:
            if self.half_open:
                # Nobody is there: neither an answer nor a pong comes any more.
                await asyncio.sleep(self._stream.dead_seconds)
                return
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                continue
            try:
                asked = msgspec.json.decode(message.data)
                action, data = asked.get("action"), asked.get("data") or asked
            except (msgspec.DecodeError, AttributeError):
                await self._send({"stream": "error", "data": {"error": "expected JSON"}})
                continue
            if action in ("authenticate", "auth"):
                await self._authenticate(data)
            elif action == "listen":
                await self._listen(data)

    def leave(self) -> None:
        """Give the account's place back."""
        if self._sender is not None:
            self._sender.cancel()
        if self.account is not None:
            if self._hear in self.account.hearers:
                self.account.hearers.remove(self._hear)
            self.account.connections -= 1
            self.account = None

    async def _authenticate(self, data: dict[str, Any]) -> None:
        key, secret = data.get("key_id") or data.get("key"), data.get("secret_key") or data.get("secret")
        account = self._stream.accounts.get(str(key))
        if account is None or account.secret != secret or self._stream.refusal is not None:
            answer = {"action": "authenticate", "status": "unauthorized"}
            await self._send({"stream": "authorization", "data": answer})
            return
        if account.connections and self.account is None:
            await self._send({"stream": "error", "data": {"code": 406, "error": "connection limit exceeded"}})
            await self._socket.close(code=1008, message=b"connection limit exceeded")
            return
        if self.account is None:
            self.account = account
            account.connections += 1
        await self._send({"stream": "authorization", "data": {"action": "authenticate", "status": "authorized"}})

    async def _listen(self, data: dict[str, Any]) -> None:
        if self.account is None:
            await self._send({"stream": "listening", "data": {"error": "required authentication"}})
            return
        streams = [one for one in data.get("streams") or [] if one == "trade_updates"]
        await self._send({"stream": "listening", "data": {"streams": streams}})
        if streams and not self.listening:
            self.listening = True
            self.account.hearers.append(self._hear)
            self._sender = self._loop.create_task(self._tell())

    def _hear(self, update: dict[str, Any]) -> None:
        """Called by whichever thread made it happen."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._queue.put_nowait, update)

    async def _tell(self) -> None:
        while True:
            update = await self._queue.get()
            try:
                for frame in self._frames(update):
                    await self._send_bytes(frame)
                await self._connection_faults()
            except ConnectionError:
                return
            finally:
                self._queue.task_done()

    def _frames(self, update: dict[str, Any]) -> list[bytes]:
        """What is sent for an update, in this order; a frame that is reordered waits for the next one."""
        assert self.account is not None
        faults = self._stream.faults
        frames = told(update, self.account, faults)
        if self._held is not None:
            frames, self._held = [*frames, self._held], None
        elif frames and faults.happens("reorder"):
            self._held = frames.pop(0)
            # It comes late even if nothing else happens.
            self._loop.call_later(faults.delay_seconds, lambda: self._loop.create_task(self._send_held()))
        return frames

    async def _send_held(self) -> None:
        if self._held is not None:
            frame, self._held = self._held, None
            await self._send_bytes(frame)

    async def _connection_faults(self) -> None:
        faults = self._stream.faults
        if faults.happens("mute"):
            self.mute = True
        if faults.happens("half_open"):
            await self.go_half_open()
        if faults.happens("disconnect"):
            await self._socket.close(code=1011, message=b"internal server error")

    async def go_half_open(self) -> None:
        """From now on nothing is sent and nothing answered, while the connection stays."""
        self.half_open = True
        self._socket._autoping = False  # There is no public way to leave a ping unanswered.

    async def settle(self) -> None:
        """Wait until all that happened so far has been told, or lost."""
        await self._queue.join()

    async def close(self) -> None:
        """End the connection from the broker's side."""
        await self._socket.close(code=1001, message=b"going away")

    def abort(self) -> None:
        """Cut the connection without a word."""
        if self.transport is not None:
            self.transport.abort()

    async def _send(self, message: dict[str, Any]) -> None:
        await self._send_bytes(msgspec.json.encode(message))

    async def _send_bytes(self, frame: bytes) -> None:
        if self.mute or self.half_open or self._socket.closed:
            return
        delay = self._stream.faults.happens("delay")
        if delay:
            await asyncio.sleep(self._stream.faults.delay_seconds)
        if self._stream.binary:
            await self._socket.send_bytes(frame)
        else:
            await self._socket.send_str(frame.decode())


def told(update: dict[str, Any], account: Account, faults: Faults) -> list[bytes]:
    """The frames for one update: none, one or several, with whatever the faults make of them."""
    frames = []
    if faults.happens("null_data"):
        frames.append(b'{"stream":"trade_updates","data":null}')
    if faults.happens("html_frame"):
        frames.append(PAGE.encode())
    if faults.happens("unknown_event"):
        odd = {**update, "event": faults.rng.choice(_UNKNOWN), "event_id": account.writer.ulid(0)}
        frames.append(account.writer.encode({"stream": "trade_updates", "data": odd}))
    if not faults.happens("drop"):
        data = misspelt(update, faults) if faults.happens("misspell") else update
        if not account.writer.has_stream_id(update):
            data = {name: value for name, value in data.items() if name != "event_id"}
            faults.struck["missing_event_id"] += 1
        frame = account.writer.encode({"stream": "trade_updates", "data": data})
        frames += [frame, frame] if faults.happens("double") else [frame]
    return frames


def misspelt(update: dict[str, Any], faults: Faults) -> dict[str, Any]:
    """The update with one of its keys misspelt, so that what stood there is lost."""
    key = faults.rng.choice(sorted(update.keys() - {"event_id"}))
    return {(name[:-1] + "_" if name == key else name): value for name, value in update.items()}
