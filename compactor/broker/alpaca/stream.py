"""Listen to the trade updates of one Alpaca account and hand on each websocket message as it came.

It connects, signs in, subscribes, and connects again until it is stopped. `translate` interprets the messages.
alpaca-py's `TradingStream` is not used: it retries bad credentials for ever, drops a message whose handler failed,
never checks the subscription, and everything that is needed of it is private.

Note: only the two answers of the greeting are parsed here, so no message is lost because it is unreadable. A connection
is closed before the next one is opened, because Alpaca allows one per account. A redirect is never followed, because
the keys would be sent to another host.
"""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, Any

from compactor.broker.alpaca.access import LIVE_HOST, PAPER_HOST
from compactor.broker.alpaca.rest import describe_refusal, is_refusal
from compactor.broker.alpaca.wording import describe_answer, describe_failure
from compactor.broker.credentials import BadCredentials, Credentials
from compactor.broker.port import Message, StreamListener, parse
from compactor.core import CompactorError

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Executor

    from websockets.asyncio.client import ClientConnection

GREETING_SECONDS = 10.0
"""The limit for each of connecting, signing in and subscribing."""
PING_SECONDS = 10.0
"""The interval of pings, and the limit for each answer."""
BACKOFF_SECONDS = (1.0, 30.0)
STEADY_SECONDS = 30.0
"""After a connection of at least this length the backoff starts again from its minimum."""
CLOSE_SECONDS = 0.5
QUEUE_MESSAGES = 1 << 14
MESSAGE_BYTES_MAX = 16 << 20


class StreamBroken(CompactorError):
    """The connection failed or ended; a new one may work."""


class TradeStream:
    """The stream of one account: connects and reconnects until it is stopped."""

    def __init__(
        self,
        credentials: Credentials,
        listener: StreamListener,
        *,
        ping_seconds: float = PING_SECONDS,
        backoff_seconds: tuple[float, float] | None = None,
    ) -> None:
        self._credentials = credentials
        self._listener = listener
        self._url = stream_url(credentials.url) or f"wss://{PAPER_HOST if credentials.paper else LIVE_HOST}/stream"
        self._ping_seconds = ping_seconds
        self._backoff = backoff_seconds or BACKOFF_SECONDS
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._interrupt: asyncio.Event | None = None
        self._why = ""

    def run(self) -> None:
        """Listen until `stop` is called."""
        import asyncio

        asyncio.run(self._run())

    def stop(self) -> None:
        """Make `run` return soon, after handing on what was received. Safe from any thread, at any time."""
        self._stopping.set()
        self._wake("stopped")

    def reconnect(self, why: str) -> None:
        """Close the connection, if there is one, and open another. Safe from any thread."""
        self._wake(why)

    def _wake(self, why: str) -> None:
        with self._lock:
            self._why = why
            if self._loop is not None and self._interrupt is not None:
                self._loop.call_soon_threadsafe(self._interrupt.set)

    async def _run(self) -> None:
        import asyncio
        from concurrent.futures import ThreadPoolExecutor

        # Messages are written in a separate thread, so that a slow disk does not delay the answers to pings.
        writer = ThreadPoolExecutor(1, thread_name_prefix="stream-writer")
        with self._lock:
            self._loop, self._interrupt = asyncio.get_running_loop(), asyncio.Event()
        tries = 0
        try:
            while not self._stopping.is_set():
                started = time.monotonic()
                reason = await self._connect_once(writer)
                if self._stopping.is_set():
                    return
                tries = 1 if time.monotonic() - started >= STEADY_SECONDS else tries + 1
                pause = _draw_pause(tries, self._backoff)
                self._listener.disconnected(reason, pause)
                await self._sleep(pause)
        finally:
            with self._lock:
                self._loop = self._interrupt = None
            # What was received is handed on before the end.
            writer.shutdown(wait=True)

    async def _sleep(self, seconds: float) -> None:
        import asyncio
        from contextlib import suppress

        assert self._interrupt is not None
        with suppress(TimeoutError):
            await asyncio.wait_for(self._interrupt.wait(), seconds)
        if not self._stopping.is_set():
            self._interrupt.clear()

    async def _connect_once(self, writer: Executor) -> str:
        """Hold one connection from its beginning to its end; returns why it ended."""
        import asyncio

        assert self._interrupt is not None
        session = asyncio.create_task(self._hold_session(writer))
        interrupted = asyncio.create_task(self._interrupt.wait())
        try:
            await asyncio.wait({session, interrupted}, return_when=asyncio.FIRST_COMPLETED)
            if session.done():
                session.result()
            return self._why if interrupted.done() else "the connection has ended"
        except BadCredentials as error:
            self._listener.refused(error)
            return str(error)
        except TimeoutError:
            return f"the broker did not answer within {GREETING_SECONDS:.0f} s"
        except Exception as error:
            return self._credentials.hide(_describe_end(error, self._url))[:300]
        finally:
            if not self._stopping.is_set():
                self._interrupt.clear()
            for task in (session, interrupted):
                task.cancel()
            await asyncio.gather(session, interrupted, return_exceptions=True)

    async def _hold_session(self, writer: Executor) -> None:
        """Connect, sign in, subscribe and hand on messages until the connection ends; then it is closed."""
        import asyncio

        socket = await self._open()
        try:
            async with asyncio.timeout(GREETING_SECONDS):
                await self._sign_in(socket)
            async with asyncio.timeout(GREETING_SECONDS):
                early = await _subscribe(socket)
            self._listener.connected()
            await self._hand_on(socket, early, writer)
        finally:
            await socket.close()

    async def _open(self) -> ClientConnection:
        from websockets.asyncio.client import connect
        from websockets.exceptions import InvalidStatus

        class Connect(connect):
            def process_redirect(self, error: Exception) -> Exception:
                return error

        try:
            return await Connect(
                self._url,
                open_timeout=GREETING_SECONDS,
                close_timeout=CLOSE_SECONDS,
                ping_interval=self._ping_seconds,
                ping_timeout=self._ping_seconds,
                max_size=MESSAGE_BYTES_MAX,
                max_queue=QUEUE_MESSAGES,
            )
        except InvalidStatus as error:
            status, body = error.response.status_code, bytes(error.response.body or b"")
            said = self._credentials.hide(describe_answer(status, body))
            if is_refusal(status, body):
                raise BadCredentials(describe_refusal(self._credentials, said)) from None
            raise StreamBroken(f"the broker answered the request for a stream with {said}") from None

    async def _hand_on(self, socket: ClientConnection, early: list[Message], writer: Executor) -> None:
        """Hand on what arrives. Everything that arrives during a write is the next batch: one sync per ledger."""
        import asyncio

        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Message | None] = asyncio.Queue(QUEUE_MESSAGES)
        reader = asyncio.create_task(_read(socket, queue))
        batch: list[Message] = early
        try:
            while True:
                if batch:
                    # Not to be canceled: what waits for its turn in the other thread would be lost.
                    await asyncio.shield(loop.run_in_executor(writer, self._listener.received, batch))
                message = await queue.get()
                if message is None:
                    reader.result()
                    return
                batch = [message, *_take_ready(queue)]
        finally:
            # Interrupted or broken: close the connection, and hand on what had arrived before.
            closing = asyncio.create_task(socket.close())
            left: list[Message] = []
            while not reader.done():
                left += _take_ready(queue)
                await asyncio.wait({reader}, timeout=0.01)
            left += _take_ready(queue)
            await asyncio.gather(reader, closing, return_exceptions=True)
            if left:
                await loop.run_in_executor(writer, self._listener.received, left)

    async def _sign_in(self, socket: ClientConnection) -> None:
        import json

        data = {"key_id": self._credentials.key, "secret_key": self._credentials.secret}
        await socket.send(json.dumps({"action": "authenticate", "data": data}))
        answer = _read_answer(await socket.recv(decode=False), "authorization")
        if answer.get("status") == "unauthorized":
            said = self._credentials.hide(": ".join(["the stream says unauthorized", *_read_message(answer)]))
            raise BadCredentials(describe_refusal(self._credentials, said))
        if answer.get("status") != "authorized":
            raise StreamBroken(f"expected to be authorized by the broker's stream, found {str(answer)[:120]}")


async def _read(socket: ClientConnection, queue: asyncio.Queue[Message | None]) -> None:
    """Read messages until the connection has ended. Bytes are not decoded, so no message is lost as bad UTF-8."""
    try:
        while True:
            await queue.put(await socket.recv(decode=False))
    finally:
        await queue.put(None)


def _take_ready(queue: asyncio.Queue[Message | None]) -> list[Message]:
    """Take everything from a queue without waiting; the mark of the end is left in it."""
    ready: list[Message] = []
    while not queue.empty():
        message = queue.get_nowait()
        if message is None:
            queue.put_nowait(None)
            break
        ready.append(message)
    return ready


async def _subscribe(socket: ClientConnection) -> list[Message]:
    """Subscribe to trade updates; returns the messages that came before the confirmation."""
    import json

    await socket.send(json.dumps({"action": "listen", "data": {"streams": ["trade_updates"]}}))
    early: list[Message] = []
    while True:
        message = await socket.recv(decode=False)
        found = parse(message)
        if not isinstance(found, dict) or found.get("stream") != "listening":
            early.append(message)
            continue
        streams = _read_answer(message, "listening").get("streams")
        if not isinstance(streams, list) or "trade_updates" not in streams:
            raise StreamBroken(f"expected to be subscribed to trade_updates, found {str(found)[:120]}")
        return early


def _read_message(answer: dict[str, Any]) -> list[str]:
    """What an answer says besides its status."""
    said = answer.get("message")
    return [str(said)[:200]] if said else []


def _read_answer(message: bytes, stream: str) -> dict[str, Any]:
    """Read the data of one of the two answers of the greeting."""
    found = parse(message)
    data = found.get("data") if isinstance(found, dict) and found.get("stream") == stream else None
    if not isinstance(data, dict):
        raise StreamBroken(f"expected the broker's answer about {stream}, found {str(message[:120])!r}")
    return data


def _describe_end(error: Exception, url: str) -> str:
    """Why a connection ended or could not be made, as a sentence."""
    from websockets.exceptions import ConnectionClosed, InvalidHandshake

    if isinstance(error, ConnectionClosed):
        if error.rcvd is not None and (error.sent is None or error.rcvd_then_sent):
            why = f": {error.rcvd.reason}" if error.rcvd.reason else ""
            return f"the broker closed the connection with code {error.rcvd.code}{why}"
        if error.sent is not None:
            why = error.sent.reason or "no reason was given"
            return f"the connection was given up with code {error.sent.code}: {why}"
        return "the connection broke off"
    if isinstance(error, InvalidHandshake):
        return "what answered is no stream: its greeting is none of WebSocket"
    if isinstance(error, OSError):
        return describe_failure(error, url.partition("://")[2].partition("/")[0])
    return str(error) or type(error).__name__


def stream_url(url: str | None) -> str | None:
    """The address of the stream that belongs to a REST address; None for Alpaca's own."""
    return None if url is None else "ws" + url.removeprefix("http").rstrip("/") + "/stream"


def _draw_pause(tries: int, bounds: tuple[float, float]) -> float:
    """Draw the pause before the next try: it doubles each time, with jitter."""
    least, most = bounds
    return float(min(most, least * 2 ** min(tries - 1, 10)) * random.uniform(0.5, 1.0))
