"""Listens to the trade updates of one Alpaca account, through alpaca-py's own client, and hands on frames as they came.

alpaca-py's `TradingStream` knows the address, how to sign in and how to subscribe. Its loop around that is not used: it
tries bad credentials for ever, drops the message whose handler failed, and never looks whether it was subscribed. What
frames mean is for `jobs.streaming`. The rule that surprises: nothing is parsed here but the two answers of the
greeting, so no frame can be lost because it is odd; and one connection is closed before the next one is opened, because
Alpaca allows one an account.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from compactor.broker.alpaca import parse
from compactor.broker.credentials import BadCredentials, Credentials

if TYPE_CHECKING:
    import asyncio

Frame = bytes | str

GREETING_SECONDS = 10.0
"""How long connecting, signing in and subscribing may take, each."""
PING_SECONDS = 10.0
"""How often the other side is asked whether it is there, and how long it may take to answer."""
BACKOFF_SECONDS = (1.0, 30.0)
STEADY_SECONDS = 30.0
"""A connection that held so long begins the pauses anew when it breaks; a shorter one goes on with them."""
CLOSE_SECONDS = 0.5
REFUSALS_MAX = 3
"""How often keys that worked before may be refused, in a row, until they count as revoked."""
QUEUE_FRAMES = 1 << 14
FRAME_BYTES_MAX = 16 << 20


class StreamBroken(Exception):
    """The connection could not be made, or has ended; another one may help."""


class Listener(Protocol):
    """Whoever hears what happens to a stream. Called in the stream's threads; nothing may be raised."""

    def connected(self) -> None:
        """Signed in and subscribed: from now on frames come."""

    def disconnected(self, reason: str, pause_seconds: float) -> None:
        """Not connected any more, or still not; the next try comes after the pause."""

    def received(self, frames: Sequence[Frame]) -> None:
        """Frames in the order in which they came, all that were there; the next ones wait until this returns."""


class Stream:
    """The stream of one account: connects, and connects again, until it is stopped."""

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
        """Listen until `stop` is called. Raises BadCredentials where the broker refuses the keys."""
        import asyncio

        asyncio.run(self._run())

    def stop(self) -> None:
        """Make `run` return soon; safe from any thread, at any time. What was received is handed on before."""
        self._stopping.set()
        self._wake("stopped")

    def reconnect(self, why: str) -> None:
        """Close the connection, if there is one, and make another; safe from any thread."""
        self._wake(why)

    def _wake(self, why: str) -> None:
        with self._lock:
            self._why = why
            if self._loop is not None and self._interrupt is not None:
                self._loop.call_soon_threadsafe(self._interrupt.set)

    async def _run(self) -> None:
        import asyncio
        from concurrent.futures import ThreadPoolExecutor

        # Frames are written in a thread of its own: a disk that is slow must not keep pings from being answered.
        writer = ThreadPoolExecutor(1, thread_name_prefix="stream-writer")
        with self._lock:
            self._loop, self._interrupt = asyncio.get_running_loop(), asyncio.Event()
        tries = 0
        try:
            while not self._stopping.is_set():
                started = time.monotonic()
                reason = await self._connection(writer)
                if self._stopping.is_set():
                    return
                tries = 1 if time.monotonic() - started >= STEADY_SECONDS else tries + 1
                pause = _pause_seconds(tries, self._backoff)
                self._listener.disconnected(reason, pause)
                await self._sleep(pause)
        finally:
            with self._lock:
                self._loop = self._interrupt = None
            # Whatever was received is handed on before the end.
            writer.shutdown(wait=True)

    async def _sleep(self, seconds: float) -> None:
        import asyncio
        from contextlib import suppress

        assert self._interrupt is not None
        with suppress(TimeoutError):
            await asyncio.wait_for(self._interrupt.wait(), seconds)
        if not self._stopping.is_set():
            self._interrupt.clear()

    async def _connection(self, writer: Any) -> str:
        """One connection from its beginning to its end; why it ended."""
        import asyncio

        assert self._interrupt is not None
        client = _client(self._credentials, self._ping_seconds)
        session = asyncio.create_task(self._session(client, writer))
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

    async def _session(self, client: Any, writer: Any) -> None:
        import asyncio

        async with asyncio.timeout(GREETING_SECONDS):
            await client._connect()
        async with asyncio.timeout(GREETING_SECONDS):
            await self._sign_in(client)
        async with asyncio.timeout(GREETING_SECONDS):
            frames = await _subscribe(client)
        self._was_authorized, self._refusals = True, 0
        self._listener.connected()
        socket, loop = client._ws, asyncio.get_running_loop()
        while True:
            if not frames:
                frames.append(await socket.recv())
            # All that has come meanwhile is one batch: one write and one sync for each ledger.
            while getattr(socket, "messages", ()):
                frames.append(await socket.recv())
            await loop.run_in_executor(writer, self._hand_on, frames)
            frames = []

    def _hand_on(self, frames: list[Frame]) -> None:
        self._listener.received(frames)

    async def _sign_in(self, client: Any) -> None:
        import json

        data = {"key_id": self._credentials.key, "secret_key": self._credentials.secret}
        await client._ws.send(json.dumps({"action": "authenticate", "data": data}))
        answer = _data_of(await client._ws.recv(), "authorization")
        if answer.get("status") == "unauthorized":
            names, kind = " and ".join(self._credentials.names), "paper" if self._credentials.paper else "live"
            raise BadCredentials(
                f"the broker's stream refused the keys in {names} for the {kind} account; expected valid ones. "
                "Check them (keys for paper do not work for real money, nor the other way round) and start again."
            )
        if answer.get("status") != "authorized":
            raise StreamBroken(f"expected to be authorized by the broker's stream, found {str(answer)[:120]}")

    async def _close(self, client: Any, writer: Any) -> None:
        """End the connection for good, hand on what was still in its queue, and only then return."""
        import asyncio
        from contextlib import suppress

        socket = client._ws
        if socket is None:
            return
        with suppress(Exception):
            await asyncio.wait_for(client.close(), CLOSE_SECONDS)
        if getattr(socket, "transport", None) is not None:
            socket.transport.abort()
        frames = list(getattr(socket, "messages", ()))
        if frames:
            await asyncio.get_running_loop().run_in_executor(writer, self._hand_on, frames)


async def _subscribe(client: Any) -> list[Frame]:
    """Ask for trade updates, and return what came before the broker's yes."""
    await client._subscribe_trade_updates()
    early: list[Frame] = []
    while True:
        frame = await client._ws.recv()
        found = parse(frame.encode() if isinstance(frame, str) else frame)
        if not isinstance(found, dict) or found.get("stream") != "listening":
            early.append(frame)
            continue
        streams = _data_of(frame, "listening").get("streams")
        if not isinstance(streams, list) or "trade_updates" not in streams:
            raise StreamBroken(f"expected to be subscribed to trade_updates, found {str(found)[:120]}")
        return early


def _data_of(frame: Frame, stream: str) -> dict[str, Any]:
    """The data of one of the greeting's answers."""
    found = parse(frame.encode() if isinstance(frame, str) else frame)
    data = found.get("data") if isinstance(found, dict) and found.get("stream") == stream else None
    if not isinstance(data, dict):
        raise StreamBroken(f"expected the broker's answer about {stream}, found {str(frame[:120])!r}")
    return data


def stream_url(url: str | None) -> str | None:
    """The address of the stream beside the REST address that somebody set; None for Alpaca's own."""
    return None if url is None else "ws" + url.removeprefix("http").rstrip("/") + "/stream"


def _client(credentials: Credentials, ping_seconds: float) -> Any:
    """alpaca-py's client, told to notice a dead connection within `ping_seconds` twice instead of three minutes."""
    import warnings

    with warnings.catch_warnings():
        # It is built on the part of `websockets` that will be gone some day, which is for alpaca-py to change.
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
                "max_size": FRAME_BYTES_MAX,
                "max_queue": QUEUE_FRAMES,
            },
        )
    # It subscribes only if somebody is to be told; frames are read from its socket.
    client.subscribe_trade_updates(_nobody)
    return client


async def _nobody(_message: Any) -> None:
    """The handler that alpaca-py wants to have."""


def _pause_seconds(tries: int, bounds: tuple[float, float]) -> float:
    """How long to wait before the next try: twice as long each time, and never the same for two that began together."""
    least, most = bounds
    return float(min(most, least * 2 ** min(tries - 1, 10)) * random.uniform(0.5, 1.0))
