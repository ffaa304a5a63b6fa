"""Listen to the trade updates of one Alpaca account and hand on each websocket message as it came.

alpaca-py's `TradingStream` knows the address and how to sign in and subscribe. Its own loop is not used: it retries bad
credentials for ever, drops a message whose handler failed, and never checks the subscription. `sync.stream_writer`
interprets the messages.

Note: only the two answers of the greeting are parsed here, so no message is lost because it is unreadable. A connection
is closed before the next one is opened, because Alpaca allows one per account.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from compactor.broker.alpaca import parse
from compactor.broker.credentials import BadCredentials, Credentials
from compactor.core.exceptions import CompactorError

if TYPE_CHECKING:
    import asyncio

Message = bytes | str

GREETING_SECONDS = 10.0
"""The limit for each of connecting, signing in and subscribing."""
PING_SECONDS = 10.0
"""The interval of pings, and the limit for each answer."""
BACKOFF_SECONDS = (1.0, 30.0)
STEADY_SECONDS = 30.0
"""After a connection of at least this length the backoff starts again from its minimum."""
CLOSE_SECONDS = 0.5
REFUSALS_MAX = 3
"""Consecutive refusals after which keys that worked before count as revoked."""
QUEUE_MESSAGES = 1 << 14
MESSAGE_BYTES_MAX = 16 << 20


class StreamBroken(CompactorError):
    """The connection failed or ended; a new one may work."""


class Listener(Protocol):
    """Receives what happens to a stream. Called in the stream's threads; must not raise."""

    def connected(self) -> None:
        """Called when signed in and subscribed."""

    def disconnected(self, reason: str, pause_seconds: float) -> None:
        """Called when a connection ended or could not be made; the next try follows after the pause."""

    def received(self, messages: Sequence[Message]) -> None:
        """Called with all messages that have arrived, in order; later ones wait until this returns."""


class Stream:
    """The stream of one account: connects and reconnects until it is stopped."""

    def __init__(
        self,
        credentials: Credentials,
        listener: Listener,
        *,
        ping_seconds: float = PING_SECONDS,
        backoff_seconds: tuple[float, float] | None = None,
    ) -> None:
        self._credentials = credentials
        self._listener = listener
        self._ping_seconds = ping_seconds
        self._backoff = backoff_seconds or BACKOFF_SECONDS
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._interrupt: asyncio.Event | None = None
        self._why = ""
        self._was_authorized = False
        self._refusals = 0

    def run(self) -> None:
        """Listen until `stop` is called. Raises BadCredentials if the broker refuses the keys."""
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

    async def _connect_once(self, writer: Any) -> str:
        """Hold one connection from its beginning to its end; returns why it ended."""
        import asyncio

        assert self._interrupt is not None
        client = _make_client(self._credentials, self._ping_seconds)
        session = asyncio.create_task(self._listen(client, writer))
        interrupted = asyncio.create_task(self._interrupt.wait())
        try:
            await asyncio.wait({session, interrupted}, return_when=asyncio.FIRST_COMPLETED)
            if session.done():
                session.result()
            return self._why if interrupted.done() else "the connection has ended"
        except BadCredentials:
            self._refusals += 1
            if not self._was_authorized or self._refusals >= REFUSALS_MAX:
                raise
            return "the broker refused the keys, which it took before"
        except TimeoutError:
            return f"the broker did not answer within {GREETING_SECONDS:.0f} s"
        except Exception as error:
            return self._credentials.hide(str(error) or type(error).__name__)[:300]
        finally:
            if not self._stopping.is_set():
                self._interrupt.clear()
            for task in (session, interrupted):
                task.cancel()
            await asyncio.gather(session, interrupted, return_exceptions=True)
            await self._close(client, writer)

    async def _listen(self, client: Any, writer: Any) -> None:
        import asyncio

        async with asyncio.timeout(GREETING_SECONDS):
            await client._connect()
        async with asyncio.timeout(GREETING_SECONDS):
            await self._sign_in(client)
        async with asyncio.timeout(GREETING_SECONDS):
            messages = await _subscribe(client)
        self._was_authorized, self._refusals = True, 0
        self._listener.connected()
        socket, loop = client._ws, asyncio.get_running_loop()
        while True:
            if not messages:
                messages.append(await socket.recv())
            # Everything that has arrived meanwhile is one batch: one write and one sync per ledger.
            while getattr(socket, "messages", ()):
                messages.append(await socket.recv())
            await loop.run_in_executor(writer, self._hand_on, messages)
            messages = []

    def _hand_on(self, messages: list[Message]) -> None:
        self._listener.received(messages)

    async def _sign_in(self, client: Any) -> None:
        import json

        data = {"key_id": self._credentials.key, "secret_key": self._credentials.secret}
        await client._ws.send(json.dumps({"action": "authenticate", "data": data}))
        answer = _read_answer(await client._ws.recv(), "authorization")
        if answer.get("status") == "unauthorized":
            names, kind = " and ".join(self._credentials.names), "paper" if self._credentials.paper else "live"
            raise BadCredentials(
                f"the broker's stream refused the keys in {names} for the {kind} account; expected valid ones. "
                "Check them (keys for paper do not work for real money, nor the other way round) and start again."
            )
        if answer.get("status") != "authorized":
            raise StreamBroken(f"expected to be authorized by the broker's stream, found {str(answer)[:120]}")

    async def _close(self, client: Any, writer: Any) -> None:
        """End the connection, hand on what was still in its queue, and then return."""
        import asyncio
        from contextlib import suppress

        socket = client._ws
        if socket is None:
            return
        with suppress(Exception):
            await asyncio.wait_for(client.close(), CLOSE_SECONDS)
        if getattr(socket, "transport", None) is not None:
            socket.transport.abort()
        messages = list(getattr(socket, "messages", ()))
        if messages:
            await asyncio.get_running_loop().run_in_executor(writer, self._hand_on, messages)


async def _subscribe(client: Any) -> list[Message]:
    """Subscribe to trade updates; returns the messages that came before the confirmation."""
    await client._subscribe_trade_updates()
    early: list[Message] = []
    while True:
        message = await client._ws.recv()
        found = parse(message.encode() if isinstance(message, str) else message)
        if not isinstance(found, dict) or found.get("stream") != "listening":
            early.append(message)
            continue
        streams = _read_answer(message, "listening").get("streams")
        if not isinstance(streams, list) or "trade_updates" not in streams:
            raise StreamBroken(f"expected to be subscribed to trade_updates, found {str(found)[:120]}")
        return early


def _read_answer(message: Message, stream: str) -> dict[str, Any]:
    """Read the data of one of the two answers of the greeting."""
    found = parse(message.encode() if isinstance(message, str) else message)
    data = found.get("data") if isinstance(found, dict) and found.get("stream") == stream else None
    if not isinstance(data, dict):
        raise StreamBroken(f"expected the broker's answer about {stream}, found {str(message[:120])!r}")
    return data


def stream_url(url: str | None) -> str | None:
    """The address of the stream that belongs to a REST address; None for Alpaca's own."""
    return None if url is None else "ws" + url.removeprefix("http").rstrip("/") + "/stream"


def _make_client(credentials: Credentials, ping_seconds: float) -> Any:
    """Make alpaca-py's client; it notices a dead connection within twice `ping_seconds`, not after three minutes."""
    import warnings

    with warnings.catch_warnings():
        # alpaca-py uses the deprecated API of `websockets`.
        warnings.simplefilter("ignore", DeprecationWarning)
        from alpaca.trading.stream import TradingStream

        url: Any = stream_url(credentials.url)
        client = TradingStream(
            credentials.key,
            credentials.secret,
            paper=credentials.paper,
            raw_data=True,
            url_override=url,
            websocket_params={
                "ping_interval": ping_seconds,
                "ping_timeout": ping_seconds,
                "open_timeout": GREETING_SECONDS,
                "close_timeout": CLOSE_SECONDS,
                "max_size": MESSAGE_BYTES_MAX,
                "max_queue": QUEUE_MESSAGES,
            },
        )
    # It subscribes only if it has a handler; messages are read from its socket instead.
    client.subscribe_trade_updates(_ignore)
    return client


async def _ignore(_message: Any) -> None:
    """The handler that alpaca-py requires."""


def _draw_pause(tries: int, bounds: tuple[float, float]) -> float:
    """Draw the pause before the next try: it doubles each time, with jitter."""
    least, most = bounds
    return float(min(most, least * 2 ** min(tries - 1, 10)) * random.uniform(0.5, 1.0))
