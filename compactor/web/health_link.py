"""Ask the daemon how it is, from the process that serves HTTP: the two ends of a pair of sockets.

A question is a line of JSON, an answer its status, its length and its body. The daemon answers in a thread that does
nothing else. Note: the end of the link means that the daemon has ended, and then the server ends too.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from typing import Any, Protocol

import msgspec
from prometheus_client import generate_latest

from compactor.daemon.health import Health
from compactor.daemon.metrics import Metrics
from compactor.daemon.readiness import Check, HealthAnswer, check_live, check_ready

ANSWER_SECONDS = 5.0
_HEAD = struct.Struct("!HI")
_encode = msgspec.json.Encoder().encode


class Question(msgspec.Struct, frozen=True):
    """What is asked: `livez`, `readyz` or `metrics`, of which only those that are named, if any are."""

    about: str
    names: list[str] = []


class HealthSource(Protocol):
    """Who answers `/livez`, `/readyz` and `/metrics`: a status of HTTP, and a body."""

    async def ask(self, question: Question) -> tuple[int, bytes]: ...


class HealthResponder(threading.Thread):
    """The daemon's end: answers questions until the other end is closed."""

    def __init__(self, link: socket.socket, health: Health, metrics: Metrics) -> None:
        super().__init__(name="health", daemon=True)
        self._link = link
        self._health = health
        self._metrics = metrics

    def run(self) -> None:
        """Answer one question after the other."""
        decode = msgspec.json.Decoder(Question).decode
        try:
            with self._link, self._link.makefile("rb") as questions:
                for line in questions:
                    status, body = self._answer(decode(line))
                    self._link.sendall(_HEAD.pack(status, len(body)) + body)
        except OSError:
            return  # The server has ended; whoever started it sees that too.

    def _answer(self, question: Question) -> tuple[int, bytes]:
        if question.about == "metrics":
            registry: Any = self._metrics.registry
            return 200, generate_latest(registry.restricted_registry(question.names) if question.names else registry)
        answer = (check_live if question.about == "livez" else check_ready)(self._health)
        return (200 if answer.ok else 503), _encode(answer) + b"\n"


class LinkedHealth:
    """The server's end. Questions follow each other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._turn = asyncio.Lock()
        self.closed = asyncio.Event()
        """Set when the daemon has ended."""

    async def ask(self, question: Question) -> tuple[int, bytes]:
        """The daemon's answer; 503 if there is none in time."""
        async with self._turn:
            if self.closed.is_set():
                return _say_silent()
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    self._writer.write(_encode(question) + b"\n")
                    status, length = _HEAD.unpack(await self._reader.readexactly(_HEAD.size))
                    return status, await self._reader.readexactly(length)
            except (OSError, EOFError, TimeoutError):
                # The answer may still come, and would be taken for that to the next question.
                self._writer.close()
                self.closed.set()
                return _say_silent()

    async def wait_closed(self) -> None:
        """Wait until the daemon has ended."""
        while not self.closed.is_set():
            if not self._turn.locked() and self._reader.at_eof():
                self.closed.set()
                return
            await asyncio.sleep(0.1)


async def open_link(link: socket.socket) -> LinkedHealth:
    """Begin to ask over one end of the pair."""
    reader, writer = await asyncio.open_connection(sock=link)
    return LinkedHealth(reader, writer)


def _say_silent() -> tuple[int, bytes]:
    reason = f"the daemon has not answered within {ANSWER_SECONDS:.0f} s"
    return 503, _encode(HealthAnswer(False, [Check("loop", False, reason)])) + b"\n"
