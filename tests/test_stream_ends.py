"""How a connection of the stream ends, and what it is called: greetings that are none, pings, closing codes, pages."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from compactor.broker.adapters import find_credentials
from compactor.broker.alpaca import stream as stream_module
from compactor.broker.alpaca.stream import TradeStream, _describe_end, _draw_pause
from compactor.broker.credentials import BadCredentials
from compactor.broker.port import Message

AUTHORIZED = json.dumps({"stream": "authorization", "data": {"status": "authorized"}})
LISTENING = json.dumps({"stream": "listening", "data": {"streams": ["trade_updates"]}})
Talk = Callable[[ServerConnection], Any]


class Ends:
    """What a listener hears; the stream is stopped after the first end."""

    def __init__(self) -> None:
        self.connections = 0
        self.reasons: list[str] = []
        self.refusals: list[BadCredentials] = []
        self.heard: list[Message] = []
        self.stream: TradeStream | None = None

    def connected(self) -> None:
        self.connections += 1

    def disconnected(self, reason: str, pause_seconds: float) -> None:
        self.reasons.append(reason)
        assert self.stream is not None
        self.stream.stop()

    def refused(self, error: BadCredentials) -> None:
        self.refusals.append(error)

    def received(self, messages: Sequence[Message]) -> None:
        self.heard += messages


class Talker:
    """A server that says what a test says, one connection at a time."""

    def __init__(self) -> None:
        self.talk: Talk = greet
        self.answer: Callable[[ServerConnection, Request], Response | None] = lambda connection, request: None
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._run()), daemon=True)
        self._over: asyncio.Event | None = None

    async def _run(self) -> None:
        self._over = asyncio.Event()

        async def talk(socket: ServerConnection) -> None:
            await self.talk(socket)

        async with serve(
            talk, "127.0.0.1", 0, ping_interval=None, process_request=lambda one, found: self.answer(one, found)
        ) as server:
            self.port = next(iter(server.sockets)).getsockname()[1]
            self._ready.set()
            await self._over.wait()

    def __enter__(self) -> Talker:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._over is not None
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)
        self._loop.close()

    def listen(self, **options: Any) -> Ends:
        """Listen until the first end."""
        environ = {
            "ALPACA_API_KEY": "PK1", "ALPACA_SECRET_KEY": "hush-hush",
            "APCA_API_BASE_URL": f"http://127.0.0.1:{self.port}",
        }  # fmt: skip
        ends = Ends()
        ends.stream = TradeStream(find_credentials(environ), ends, backoff_seconds=(0.01, 0.02), **options)
        thread = threading.Thread(target=ends.stream.run)
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
        return ends


async def greet(socket: ServerConnection, authorized: Any = AUTHORIZED, listening: Any = LISTENING) -> None:
    await socket.recv()
    await socket.send(authorized)
    await socket.recv()
    await socket.send(listening)


@pytest.fixture
def talker() -> Iterator[Talker]:
    with Talker() as one:
        yield one


def test_an_update_before_the_confirmation_is_handed_on(talker: Talker) -> None:
    """Whatever it is: another connection's words, an update, a list. Only the confirmation itself is not."""
    early = [b'{"stream":"trade_updates","data":{}}', b'{"stream":null}', b"{}", b"[]", b"7"]

    async def talk(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(AUTHORIZED)
        await socket.recv()
        for message in early:
            await socket.send(message)
        await socket.send(LISTENING)
        await socket.send(b"last")

    talker.talk = talk
    ends = talker.listen()
    assert (1, [*early, b"last"]) == (ends.connections, ends.heard)


def test_what_has_arrived_is_handed_on_whenever_the_end_comes(talker: Talker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what waits for a place in the queue, or for its turn in the thread that writes."""
    monkeypatch.setattr("compactor.broker.alpaca.stream.QUEUE_MESSAGES", 2)
    messages = [str(number).encode() for number in range(7)]

    class Slow(Ends):
        def received(self, found: Sequence[Message]) -> None:
            super().received(found)
            assert self.stream is not None
            if len(self.heard) == len(found):
                all_sent.wait(10)
                time.sleep(0.1)
                self.stream.stop()

    async def talk(socket: ServerConnection) -> None:
        await greet(socket)
        for message in messages:
            await socket.send(message)
        all_sent.set()
        await socket.wait_closed()

    talker.talk = talk
    environ = {"ALPACA_API_KEY": "K", "ALPACA_SECRET_KEY": "S", "APCA_API_BASE_URL": f"http://127.0.0.1:{talker.port}"}
    for _ in range(8):
        all_sent, ends = threading.Event(), Slow()
        ends.stream = TradeStream(find_credentials(environ), ends)
        thread = threading.Thread(target=ends.stream.run, daemon=True)
        thread.start()
        thread.join(20)
        assert not thread.is_alive()
        assert messages == ends.heard


def test_an_end_without_words_is_called_by_its_kind() -> None:
    assert "RuntimeError" == _describe_end(RuntimeError(), "ws://host/stream")
    assert "it broke" == _describe_end(RuntimeError("it broke"), "ws://host/stream")


def test_pauses_double_up_to_their_maximum(monkeypatch: pytest.MonkeyPatch) -> None:
    """1, 2, 4, 8, 16 and 30 seconds at most, and half of that at least, also after a thousand tries."""
    for share in (1.0, 0.5):
        monkeypatch.setattr("random.uniform", lambda least, most, share=share: {0.5: least, 1.0: most}[share])
        pauses = [_draw_pause(tries, (1.0, 30.0)) / share for tries in (1, 2, 3, 4, 5, 6, 7, 1000)]
        assert [1, 2, 4, 8, 16, 30, 30, 30] == pauses
    assert 1024 == _draw_pause(12, (2.0, 1e9)) == _draw_pause(10**6, (2.0, 1e9)), "ten times is often enough"


@pytest.mark.parametrize("is_text", [True, False])
def test_bytes_that_are_no_text_are_handed_on(talker: Talker, is_text: bool) -> None:
    """A frame that calls itself text and is none is kept, before the confirmation and after it."""

    async def talk(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(AUTHORIZED)
        await socket.recv()
        await socket.send(b"\xff early", text=is_text)
        await socket.send(LISTENING)
        await socket.send(b"\xff late", text=is_text)
        await socket.close(1000)

    talker.talk = talk
    ends = talker.listen()
    assert [b"\xff early", b"\xff late"] == ends.heard
    assert (1, ["the broker closed the connection with code 1000"]) == (ends.connections, ends.reasons)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({"status": "unauthorized"}, "(the stream says unauthorized)"),
        ({"status": "unauthorized", "message": "no hush-hush"}, "(the stream says unauthorized: no …)"),
    ],
)
def test_keys_that_are_refused_are_told_in_the_stream_s_words(talker: Talker, status: Any, said: str) -> None:
    talker.talk = lambda socket: greet(socket, json.dumps({"stream": "authorization", "data": status}))
    ends = talker.listen()
    assert (0, 1) == (ends.connections, len(ends.refusals))
    assert said in str(ends.refusals[0])
    assert said in ends.reasons[0]


@pytest.mark.parametrize(
    ("authorized", "listening", "said"),
    [
        (
            '{"stream":"authorization","data":{"status":"maybe"}}',
            LISTENING,
            "expected to be authorized by the broker's",
        ),
        ('{"stream":"authorization","data":7}', LISTENING, "expected the broker's answer about authorization"),
        ('{"stream":"x"}', LISTENING, "expected the broker's answer about authorization"),
        ("<html>", LISTENING, "expected the broker's answer about authorization"),
        (AUTHORIZED, '{"stream":"listening","data":{"streams":[]}}', "expected to be subscribed to trade_updates"),
        (AUTHORIZED, '{"stream":"listening","data":{"streams":"all"}}', "expected to be subscribed to trade_updates"),
        (AUTHORIZED, '{"stream":"listening","data":null}', "expected the broker's answer about listening"),
    ],
)
def test_a_greeting_that_is_none_is_said(talker: Talker, authorized: str, listening: str, said: str) -> None:
    """Nothing counts as connected before both answers were there."""

    async def talk(socket: ServerConnection) -> None:
        await greet(socket, authorized, listening)
        await socket.wait_closed()

    talker.talk = talk
    ends = talker.listen()
    assert (0, 0) == (ends.connections, len(ends.refusals))
    assert ends.reasons[0].startswith(said)


@pytest.mark.parametrize("answers", [0, 1])
def test_a_broker_that_does_not_greet_is_left(talker: Talker, monkeypatch: pytest.MonkeyPatch, answers: int) -> None:
    """Each of signing in and subscribing has its limit."""

    async def talk(socket: ServerConnection) -> None:
        await socket.recv()
        if answers:
            await socket.send(AUTHORIZED)
        await socket.wait_closed()

    monkeypatch.setattr(stream_module, "GREETING_SECONDS", 0.3)
    talker.talk = talk
    started = time.monotonic()
    ends = talker.listen()
    assert ["the broker did not answer within 0 s"] == ends.reasons
    assert time.monotonic() - started < 8


@pytest.mark.parametrize(
    ("code", "reason", "said"),
    [
        (1001, "", "the broker closed the connection with code 1001"),
        (1008, "too slow", "the broker closed the connection with code 1008: too slow"),
    ],
)
def test_what_the_broker_says_as_it_closes_is_told(talker: Talker, code: int, reason: str, said: str) -> None:
    async def talk(socket: ServerConnection) -> None:
        await greet(socket)
        await socket.close(code, reason)

    talker.talk = talk
    assert [said] == talker.listen().reasons


def test_a_connection_that_breaks_off_is_said(talker: Talker) -> None:
    async def talk(socket: ServerConnection) -> None:
        await greet(socket)
        await asyncio.sleep(0.1)
        socket.transport.abort()

    talker.talk = talk
    assert ["the connection broke off"] == talker.listen().reasons


def test_a_message_that_is_too_large_ends_the_connection(talker: Talker, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ours that gives up, and says so; what came before is handed on."""

    async def talk(socket: ServerConnection) -> None:
        await greet(socket)
        await socket.send("first")
        await socket.send("x" * 2000)

    monkeypatch.setattr(stream_module, "MESSAGE_BYTES_MAX", 1000)
    talker.talk = talk
    ends = talker.listen()
    assert [b"first"] == ends.heard
    assert ends.reasons[0].startswith("the connection was given up with code 1009")


def test_pages_in_place_of_a_stream(talker: Talker) -> None:
    """Issue 16, 5: the status and the beginning of the page, and no text of a library."""
    talker.answer = lambda connection, request: connection.respond(502, "<html>Bad Gateway</html>")
    [reason] = talker.listen().reasons
    start = "the broker answered the request for a stream with HTTP 502 with a page that is no JSON: '<html>Bad"
    assert reason.startswith(start)


def test_a_server_that_speaks_no_http_is_said() -> None:
    """The line that it says first is no answer to a request for a stream."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def chat() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"220 mail ready\r\n\r\n")
                time.sleep(0.2)

        thread = threading.Thread(target=chat)
        thread.start()
        talker = Talker()
        talker.port = listener.getsockname()[1]
        ends = talker.listen()
        thread.join()
        talker._loop.close()
    assert ["what answered is no stream: its greeting is none of WebSocket"] == ends.reasons


def test_nobody_there_is_said() -> None:
    talker = Talker()
    talker.port = 9
    ends = talker.listen()
    talker._loop.close()
    assert ["nothing listens at 127.0.0.1:9: the connection was refused"] == ends.reasons


def test_reconnecting_says_why(talker: Talker) -> None:
    """The reason is that of whoever asked for it."""

    async def talk(socket: ServerConnection) -> None:
        await greet(socket)
        ends.stream.reconnect("it missed something")  # type: ignore[union-attr]
        await socket.wait_closed()

    talker.talk = talk
    ends = Ends()
    environ = {
        "ALPACA_API_KEY": "PK1", "ALPACA_SECRET_KEY": "s", "APCA_API_BASE_URL": f"http://127.0.0.1:{talker.port}",
    }  # fmt: skip
    ends.stream = TradeStream(find_credentials(environ), ends, backoff_seconds=(0.01, 0.02))
    ends.stream.run()
    assert ["it missed something"] == ends.reasons


def test_a_connection_that_is_asked_for_comes_after_a_pause(talker: Talker) -> None:
    """Like any other: who asks again and again must not be in a hurry either."""
    began: list[float] = []

    class Stopped(Ends):
        def disconnected(self, reason: str, pause_seconds: float) -> None:
            self.reasons.append(reason)
            assert self.stream is not None
            if len(self.reasons) == 2:
                self.stream.stop()

    async def talk(socket: ServerConnection) -> None:
        began.append(time.monotonic())
        await greet(socket)
        ends.stream.reconnect("asked for")  # type: ignore[union-attr]
        await socket.wait_closed()

    talker.talk = talk
    environ = {"ALPACA_API_KEY": "K", "ALPACA_SECRET_KEY": "S", "APCA_API_BASE_URL": f"http://127.0.0.1:{talker.port}"}
    ends = Stopped()
    ends.stream = TradeStream(find_credentials(environ), ends, backoff_seconds=(0.8, 0.8))
    ends.stream.run()
    assert 2 == len(began)
    assert began[1] - began[0] > 0.4, "half of the pause at least"


def test_a_connection_that_is_asked_for_in_a_pause_ends_the_pause_and_stays(talker: Talker) -> None:
    """The wish is fulfilled by the next connection, which is not closed for it."""

    class Impatient(Ends):
        def disconnected(self, reason: str, pause_seconds: float) -> None:
            self.reasons.append(reason)
            assert self.stream is not None
            if len(self.reasons) == 1:
                self.stream.reconnect("asked for")
            else:
                self.stream.stop()

    async def talk(socket: ServerConnection) -> None:
        await greet(socket)
        await socket.send(b"m")
        await socket.close(1000)

    talker.talk = talk
    environ = {"ALPACA_API_KEY": "K", "ALPACA_SECRET_KEY": "S", "APCA_API_BASE_URL": f"http://127.0.0.1:{talker.port}"}
    ends = Impatient()
    ends.stream = TradeStream(find_credentials(environ), ends, backoff_seconds=(60.0, 60.0))
    ends.stream.run()
    assert ["the broker closed the connection with code 1000"] * 2 == ends.reasons
    assert (2, [b"m", b"m"]) == (ends.connections, ends.heard)
