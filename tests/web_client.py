"""A real `compactor serve` for the tests, and what they ask it: plain requests, and event streams read as they come."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import requests

from compactor.web.api_keys import KeyStore


class Served:
    """A running server; `url` is its address, `log` the objects of its log so far."""

    def __init__(self, data: Path, *arguments: str, environ: Mapping[str, str] = {}, command: str = "serve") -> None:
        self.data = data
        self.keys = KeyStore(data)
        self.log: list[dict[str, Any]] = []
        self.text = ""
        bare = {name: value for name, value in os.environ.items() if not name.startswith(("ALPACA_", "APCA_"))}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "compactor", command, str(data), "--http", "127.0.0.1:0", *arguments],
            env={**bare, **environ}, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        started: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, args=(started,), daemon=True)
        self._reader.start()
        found = started.get(timeout=60)
        assert found is not None, self.text
        self.url = found
        self.host, _, port = found.removeprefix("http://").rpartition(":")
        self.port = int(port)
        try:
            until(lambda: self._is_ready(), "the server answers")
        except BaseException:
            self.process.kill()
            raise

    def _is_ready(self) -> bool:
        try:
            return requests.get(f"{self.url}/livez", timeout=5).status_code == 200
        except (requests.ConnectionError, requests.Timeout):
            return False

    def _read(self, started: queue.Queue[str | None]) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.text += line
            try:
                row = json.loads(line)
            except ValueError:
                continue
            self.log.append(row)
            if row.get("event") == "http_started":
                started.put(row["address"])
        started.put(None)

    def key(self, team: str | None, *, read_only: bool = False) -> str:
        """A new key."""
        return self.keys.create(team, read_only=read_only).key

    def get(self, path: str, key: str | None = None, **options: Any) -> requests.Response:
        """Ask for a path below the address."""
        return self.ask("GET", path, key, **options)

    def ask(self, method: str, path: str, key: str | None = None, **options: Any) -> requests.Response:
        """Make a request, with a key where there is one."""
        headers = {**({"Authorization": f"Bearer {key}"} if key else {}), **options.pop("headers", {})}
        return requests.request(method, self.url + path, headers=headers, timeout=30, **options)

    def find_server(self) -> int:
        """The process that serves: this one, or the child of a daemon."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in map(int, children):
            if b"\0serve\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        return self.process.pid

    def descriptors(self, pid: int | None = None) -> int:
        """How many descriptors the server has open."""
        return len(os.listdir(f"/proc/{pid or self.process.pid}/fd"))

    def close(self) -> int:
        """End it as a service manager does; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(10)
        finally:
            self.process.kill()
            self._reader.join(5)
            assert self.process.stderr is not None
            self.process.stderr.close()


class SentEvent(NamedTuple):
    """A server-sent event."""

    kind: str
    id: int | None
    data: Any
    mark: str = ""


class EventReader:
    """Reads an event stream in a thread; `status` is that of its answer."""

    def __init__(
        self, served: Served, team: str, key: str, last: int | str | None = None, after: int | None = None
    ) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        if last is not None:
            headers["Last-Event-ID"] = str(last)
        query = f"?after={after}" if after is not None else ""
        self._connection = http.client.HTTPConnection(served.host, served.port, timeout=60)
        self._connection.request("GET", f"/api/v1/team/{team}/events{query}", headers=headers)
        self._socket = self._connection.sock
        self._answer = self._connection.getresponse()
        self.status = self._answer.status
        self.events: list[SentEvent] = []
        self.is_over = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for event in parse_events(line.decode().rstrip("\n") for line in iter(self._answer.readline, b"")):
                self.events.append(event)
        except (OSError, http.client.HTTPException, ValueError):
            pass
        self.is_over.set()

    def rows(self) -> list[SentEvent]:
        """The events that are rows."""
        return [one for one in self.events if one.kind in ("order", "trade", "finding")]

    def wait(self, number: int) -> list[SentEvent]:
        """The rows, once there are so many."""
        until(lambda: len(self.rows()) >= number or self.is_over.is_set(), f"{number} events")
        return self.rows()

    def close(self) -> None:
        """Break the connection off."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._answer.close()
        self._connection.close()
        self._socket.close()


def parse_events(lines: Iterable[str]) -> Iterator[SentEvent]:
    """The events among the lines of a stream."""
    kind, id_, data, mark = "message", None, "", ""
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "id":
            id_ = int(value)
        elif name == "mark":
            mark = value
        elif name == "data":
            data += value
        elif not line and data:
            yield SentEvent(kind, id_, json.loads(data), mark)
            kind, id_, data, mark = "message", None, "", ""


def until(condition: Any, what: str, seconds: float = 30.0) -> None:
    """Wait for something that has to come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.01)
