"""The HTTP server under load: requests a second, events to many streams, memory, the page (`make bench-web`).

One client process asks over 16 connections that stay open. Beside it the same server answers a bare hello, and nginx,
where it is installed, serves the file of the same orders. All of it on this machine, over the loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.latency import resident_mb
from tests.bench.report import machine, show
from tests.browser import open_browser, why_not
from tests.page_data import TeamLog
from tests.web_client import Served, until

CONNECTIONS = 16


class Client(asyncio.Protocol):
    """A connection that asks the same again as soon as it has the answer, and times each."""

    def __init__(self, request: bytes, seconds: list[float], ends: float) -> None:
        self._request = request
        self._seconds = seconds
        self._ends = ends
        self._buffer = b""
        self._missing = -1
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.statuses: set[bytes] = set()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._started = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._missing < 0:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return
            self.statuses.add(head[9:12])
            length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            self._missing = int(length[1]) if length and head[9:12] != b"304" else 0
            self._buffer = rest
        if len(self._buffer) < self._missing:
            return
        self._buffer, self._missing = b"", -1
        now = time.perf_counter()
        self._seconds.append(now - self._started)
        if now < self._ends:
            self._ask()
        else:
            self._transport.close()
            if not self.done.done():
                self.done.set_result(None)


async def load(port: int, path: str, headers: dict[str, str], seconds: float) -> tuple[float, float]:
    """Requests a second, and the 99th percentile in milliseconds."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n".encode()
    loop, times = asyncio.get_running_loop(), list[float]()
    started = time.perf_counter()
    clients = [
        (await loop.create_connection(lambda: Client(request, times, started + seconds), "127.0.0.1", port))[1]
        for _ in range(CONNECTIONS)
    ]
    await asyncio.gather(*(one.done for one in clients))
    statuses = set[bytes]().union(*(one.statuses for one in clients))
    if not statuses <= {b"200", b"304"}:
        raise SystemExit(f"{path}: found answers {statuses}, expected 200 or 304")
    times.sort()
    return len(times) / (time.perf_counter() - started), times[int(len(times) * 0.99)] * 1000


async def hello(_scope: Any, _receive: Any, send: Any) -> None:
    """The least that a server can answer."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


@contextmanager
def bare(port: int) -> Iterator[None]:
    """The same server with the same bounds, and nothing behind it."""
    code = (
        "import uvicorn; from compactor.web.connections import Connections; from tests.bench.web import hello; "
        f"uvicorn.run(hello, port={port}, http=Connections(1000).make_protocol(), ws='none', lifespan='off', "
        "log_config=None, interface='asgi3')"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        until(lambda: _is_open(port), "the bare server")
        yield
    finally:
        process.terminate()
        process.wait()


@contextmanager
def nginx(port: int, root: Path) -> Iterator[bool]:
    """nginx with one worker; yields whether there is one."""
    if shutil.which("nginx") is None:
        yield False
        return
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory) / "nginx.conf"
        temporary = "".join(
            f"{name}_temp_path {directory}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config.write_text(
            f"worker_processes 1; daemon off; user root; pid {directory}/pid; error_log {directory}/error;"
            f"events {{ worker_connections 256; }} http {{ {temporary} access_log off; keepalive_requests 10000000;"
            f"server {{ listen 127.0.0.1:{port}; root {root}; }} }}"
        )
        process = subprocess.Popen(["nginx", "-c", str(config), "-e", f"{directory}/error"])
        try:
            until(lambda: _is_open(port), "nginx")
            yield True
        finally:
            process.terminate()
            process.wait()


def _find_port() -> int:
    """A port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        port: int = one.getsockname()[1]
        return port


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class StreamClient(asyncio.Protocol):
    """An event stream; the time at which each order's event came."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.came: dict[bytes, float] = {}
        self.is_open = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.is_open = self.is_open or b"event: status" in data
        now = time.perf_counter()
        for order_id in re.findall(rb'"order_id":"(s-\d+)"', data):
            self.came.setdefault(order_id, now)


async def open_streams(served: Served, team: str, key: str, number: int) -> list[StreamClient]:
    """So many streams of a team, opened one after another."""
    request = (
        f"GET /api/v1/team/{team}/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
    )
    loop, found = asyncio.get_running_loop(), list[StreamClient]()
    for _ in range(number):
        _, one = await loop.create_connection(lambda: StreamClient(request), served.host, served.port)
        found.append(one)
        while not one.is_open:
            await asyncio.sleep(0.001)
    return found


async def measure_streams(served: Served, log: TeamLog, number: int, events: int) -> list[float]:
    """Milliseconds from the append of an event until each stream has it."""
    clients = await open_streams(served, log.team, served.key(log.team), number)
    times: list[float] = []
    for at in range(events):
        name = f"s-{at}"
        started = time.perf_counter()
        log.place(order_id=name)
        while not all(name.encode() in one.came for one in clients):
            await asyncio.sleep(0.002)
        times += [(one.came[name.encode()] - started) * 1000 for one in clients]
        await asyncio.sleep(0.05)
    for one in clients:
        one.transport.close()
    return sorted(times)


async def measure_memory(served: Served, team: str, number: int) -> tuple[float, int]:
    """Kilobytes of an idle stream, and how many descriptors are left when all are closed."""
    before, descriptors = resident_mb(served.process.pid), served.descriptors()
    clients = await open_streams(served, team, served.key(team), number)
    after = resident_mb(served.process.pid)
    for one in clients:
        one.transport.close()
    deadline = time.monotonic() + 30
    while served.descriptors() > descriptors + 4 and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    return (after - before) * 1000 / number, max(0, served.descriptors() - descriptors)


async def measure_watcher(data: Path, idle: int, events: int) -> list[tuple[int, list[float]]]:
    """Milliseconds from the append of an event until the derived file has it, beside no stream and beside idle ones."""
    log, found = TeamLog(data, "watched"), list[tuple[int, list[float]]]()
    served = Served(data, command="watch")
    try:
        key = served.key("t20")
        for number in (0, idle):
            clients = await open_streams(served, "t20", key, number)
            found.append((number, sorted([await _time_pass(log) for _ in range(events)])))
            for one in clients:
                one.transport.close()
    finally:
        served.close()
    return found


async def _time_pass(log: TeamLog) -> float:
    pending, started = log.path.parent / "pending_orders.jsonl", time.perf_counter()
    order = log.place()["order_id"]
    while not pending.exists() or order not in pending.read_text():
        await asyncio.sleep(0.0005)
    taken = (time.perf_counter() - started) * 1000
    await asyncio.sleep(0.05)
    return taken


def measure_page(served: Served, key: str) -> list[float]:
    """Milliseconds from the call of the address until the first row of the table is there; five times, each anew."""
    found = []
    with open_browser() as browser:
        for _ in range(5):
            context = browser.new_context()
            page = context.new_page()
            started = time.perf_counter()
            page.goto(f"{served.url}/#key={key}", wait_until="commit")
            page.locator("#orders-table tbody tr").first.wait_for()
            found.append((time.perf_counter() - started) * 1000)
            context.close()
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and show; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.web", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load (default 5)")
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--idle", type=int, default=2000)
    parser.add_argument("--events", type=int, default=40)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory)
        (data / "compactor.toml").write_text(
            "http_requests_per_minute = 1000000\nhttp_streams_per_key = 5000\nhttp_connections = 5000\n"
        )
        for orders in (20, 200, 2000):
            TeamLog(data, f"t{orders}").day(0, orders)
        log = TeamLog(data, "streams")
        log.place()
        subprocess.run([sys.executable, "-m", "compactor", "compact", str(data)], check=True, capture_output=True)
        served = Served(data)
        try:
            _report(served, data, log, chosen)
        finally:
            served.close()
        for number, found in asyncio.run(measure_watcher(data, chosen.idle, chosen.events)):
            p99 = found[int(len(found) * 0.99)]
            median = statistics.median(found)
            print(f"watch, append -> derived file, {number:,} idle streams: median {median:.1f} ms, p99 {p99:.1f} ms")
    return 0


def _report(served: Served, data: Path, log: TeamLog, chosen: argparse.Namespace) -> None:
    print(machine())
    rows: list[tuple[str, ...]] = []

    def run(name: str, port: int, path: str, headers: dict[str, str]) -> None:
        rate, p99 = asyncio.run(load(port, path, headers, chosen.seconds))
        rows.append((name, f"{rate:,.0f}", f"{p99:.1f}"))

    port = _find_port()
    with bare(port):
        run("bare hello, the same server", port, "/", {})
    for orders in (20, 200, 2000):
        key, path = served.key(f"t{orders}"), f"/api/v1/team/t{orders}/orders/open"
        size = len(served.get(path, key).content)
        run(
            f"orders/open, {orders:,} orders ({size / 1000:,.0f} kB)",
            served.port,
            path,
            {"Authorization": f"Bearer {key}"},
        )
        etag = {"Authorization": f"Bearer {key}", "If-None-Match": served.get(path, key).headers["ETag"]}
        run(f"orders/open, {orders:,} orders, 304", served.port, path, etag)
    port = _find_port()
    with nginx(port, data / "team") as is_there:
        for orders in (20, 200, 2000) if is_there else ():
            run(f"nginx, the file of {orders:,} orders", port, f"/t{orders}/pending_orders.jsonl", {})
    show("Answers", ("", "requests a second", "p99 ms"), rows)
    times = asyncio.run(measure_streams(served, log, chosen.streams, chosen.events))
    p99 = times[int(len(times) * 0.99)]
    print(f"event appended -> on {chosen.streams} streams: median {statistics.median(times):.1f} ms, p99 {p99:.1f} ms")
    kilobytes, left = asyncio.run(measure_memory(served, "t20", chosen.idle))
    print(f"{chosen.idle:,} idle streams: {kilobytes:.1f} kB each; descriptors left afterwards: {left}")
    if why_not() is None:
        first = measure_page(served, served.key("t20"))
        print(f"time to first table: median {statistics.median(first):.0f} ms of {len(first)}")


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    sys.exit(main())
