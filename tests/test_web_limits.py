"""The limits of the HTTP server: requests by key and address, connections, slow clients, streams, proxies."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from compactor.web import connections
from compactor.web.connections import WAITING_MAX, Connections
from compactor.web.throttle import Throttle
from tests.page_data import TeamLog
from tests.web_client import EventReader, Served, until


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    data = tmp_path_factory.mktemp("limits") / "data"
    TeamLog(data, "alpha").day(3, 3)
    (data / "compactor.toml").write_text(
        "http_requests_per_minute = 20\nhttp_streams_per_key = 3\n"
        'http_proxies = ["127.0.0.2"]\nhttp_hosts = ["desk.example"]\n'
    )
    one = Served(data)
    yield one
    one.close()


def test_a_key_that_asks_too_often_is_told_when_to_come_back(limited: Served) -> None:
    """Limits per key with the usual headers; another key is not affected."""
    key, other = limited.key("alpha"), limited.key("alpha")
    answers = [limited.get("/api/v1/team/alpha/status", key) for _ in range(21)]
    assert [200] * 20 + [429] == [one.status_code for one in answers]
    assert ["20", "19"] == [answers[0].headers[name] for name in ("RateLimit-Limit", "RateLimit-Remaining")]
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 4
    assert ["detail"] == list(answers[-1].json())
    assert 200 == limited.get("/api/v1/team/alpha/status", other).status_code


def test_wrong_keys_are_slowed_down_by_address(limited: Served) -> None:
    """Guessing ends after thirty tries a minute, and right keys of other addresses still work."""
    headers = {"X-Forwarded-For": "203.0.113.9"}

    def ask(key: str, **more: str) -> int:
        return ask_from("127.0.0.2", limited, "/api/v1/team/alpha/status", key, headers | more)

    assert {401} == {ask(f"ck_wrong_{number}") for number in range(30)}
    assert 429 == ask("ck_wrong_30")
    right = limited.key("alpha")
    assert 429 == ask(right)
    assert 200 == ask(right, **{"X-Forwarded-For": "203.0.113.10"})


def ask_from(address: str, served: Served, path: str, key: str, headers: dict[str, str]) -> int:
    """Ask from another address of this machine; the status."""
    import http.client

    connection = http.client.HTTPConnection(served.host, served.port, timeout=10, source_address=(address, 0))
    connection.request("GET", path, headers={"Authorization": f"Bearer {key}", **headers})
    status = connection.getresponse().status
    connection.close()
    return status


def test_forwarded_addresses_are_believed_from_named_proxies_only(limited: Served) -> None:
    """127.0.0.2 is named; whoever else sends the header is taken for what they are."""
    key = limited.key("alpha")
    ask_from("127.0.0.2", limited, "/api/v1/team/alpha/nothing", key, {"X-Forwarded-For": "6.6.6.6, 203.0.113.77"})
    ask_from("127.0.0.1", limited, "/api/v1/team/alpha/nothing", key, {"X-Forwarded-For": "203.0.113.78"})
    until(lambda: len([row for row in limited.log if row.get("path", "").endswith("/nothing")]) >= 2, "the lines")
    rows = [row for row in limited.log if row.get("path", "").endswith("/nothing")]
    assert ["203.0.113.77", "127.0.0.1"] == [row["address"] for row in rows[-2:]]


def test_metrics_are_not_for_those_behind_the_proxy(limited: Served) -> None:
    """`/metrics` and `/readyz` name teams: from outside they need an administrator's key."""
    forwarded = {"X-Forwarded-For": "203.0.113.11"}
    for path in ("/metrics", "/readyz"):
        assert 403 == ask_from("127.0.0.2", limited, path, "", forwarded)
        assert 403 == ask_from("127.0.0.2", limited, path, limited.key("alpha"), forwarded)
        assert 200 == ask_from("127.0.0.2", limited, path, limited.key(None), forwarded)
    assert 200 == ask_from("127.0.0.2", limited, "/livez", "", forwarded)


def test_a_configured_name_is_a_host(limited: Served) -> None:
    """`http_hosts`."""
    assert 200 == limited.get("/livez", headers={"Host": "desk.example"}).status_code
    assert 421 == limited.get("/livez", headers={"Host": "desk.example.org"}).status_code


def test_a_key_has_so_many_streams_and_no_more(limited: Served) -> None:
    """A stream that ended makes room."""
    key = limited.key("alpha")
    readers = [EventReader(limited, "alpha", key) for _ in range(3)]
    for reader in readers:
        until(lambda reader=reader: reader.events, "the stream")
    assert 429 == limited.get("/api/v1/team/alpha/events", key, stream=True).status_code
    readers[0].close()
    deadline = time.monotonic() + 20
    while (reader := EventReader(limited, "alpha", key)).status == 429:
        assert time.monotonic() < deadline
        reader.close()
        time.sleep(1)
    assert 200 == reader.status
    for one in [*readers, reader]:
        one.close()


IDLE_STREAMS = 2_000


def test_idle_streams_leave_nothing_behind_and_the_watcher_its_work(tmp_path: Path) -> None:
    """Two thousand streams on a watcher: passes go on, everybody is told, and when they are gone, so are their
    descriptors."""
    log = TeamLog(tmp_path, "alpha")
    log.place()
    (tmp_path / "compactor.toml").write_text(
        f"http_requests_per_minute = 100000\nhttp_streams_per_key = {IDLE_STREAMS}\n"
        f"http_connections = {IDLE_STREAMS + 200}\n"
    )
    one = Served(tmp_path, command="watch")
    server = one.find_server()
    key, before = one.key("alpha"), one.descriptors(server)
    head = f"GET /api/v1/team/alpha/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\r\n"
    clients = []
    for _ in range(IDLE_STREAMS):
        client = socket.create_connection((one.host, one.port), timeout=20)
        client.sendall(head.encode())
        assert b"200 OK" in client.recv(4096)
        clients.append(client)
    assert 200 == one.get("/api/v1/team/alpha/orders/open", key).status_code
    assert f"compactor_http_streams {IDLE_STREAMS}.0" in one.get("/metrics").text
    pending = log.path.parent / "pending_orders.jsonl"
    for number in range(3):
        order = log.place()["order_id"]
        until(lambda order=order: pending.exists() and order in pending.read_text(), "the pass")
        for client in clients if number == 2 else ():
            found = b""
            while order.encode() not in found:
                found += client.recv(1 << 16)
    for client in clients:
        client.close()
    until(lambda: "compactor_http_streams 0.0" in one.get("/metrics").text, "the end of the streams")
    until(lambda: one.descriptors(server) <= before + 3, "their descriptors")
    assert 0 == one.close()


def test_a_reader_that_takes_nothing_is_dropped_with_a_reason(tmp_path: Path) -> None:
    """Never buffered without bound; others are told everything meanwhile, and it goes on from its last id."""
    log = TeamLog(tmp_path, "alpha")
    log.place()
    one = Served(tmp_path, "--insecure-no-auth")
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.connect((one.host, one.port))
    slow.settimeout(20)
    slow.sendall(b"GET /api/v1/team/alpha/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    until(lambda: "compactor_http_streams 1.0" in one.get("/metrics").text, "the stream")
    quick = EventReader(one, "alpha", "", after=log.path.stat().st_size)
    number = 0
    while "compactor_http_streams_dropped_total 0.0" in one.get("/metrics").text:
        for _ in range(1000):
            log.place(client_order_id=f"alpha:{number}", note="x" * 400)
            number += 1
        quick.wait(number)  # On a busy machine a server may be far behind, and nobody is slow then.
        assert number < 60_000, "it is still kept"
    found = b""
    with suppress(TimeoutError):
        while more := slow.recv(1 << 20):
            found += more
            if found.endswith(b"\r\n0\r\n\r\n"):
                break
    slow.close()
    assert b"events behind; go on from the last id" in found
    last = re.findall(rb"id: (\d+)\nmark: (\w+)\n", found)[-1]
    rest = EventReader(one, "alpha", "", b"-".join(last).decode())
    told = found.count(b"event: order\n")
    rest.wait(number - told)
    assert number - told == len(rest.rows())
    for reader in (quick, rest):
        reader.close()
    one.close()


def test_a_bucket_fills_again_and_their_number_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens come back with the time; what was not used for longest is forgotten."""
    now = [100.0]
    monkeypatch.setattr("compactor.web.throttle.time.monotonic", lambda: now[0])
    throttle = Throttle(60, buckets_max=2)
    assert [True] * 60 + [False] == [throttle.take("a").is_allowed for _ in range(61)]
    now[0] += 1.5
    assert [True, False] == [throttle.take("a").is_allowed for _ in range(2)]
    throttle.take("b")
    throttle.take("c")
    assert throttle.take("a").remaining == 59


def test_looking_into_a_bucket_makes_none_and_drops_none() -> None:
    """Whoever asks with a right key does not push out what is remembered of wrong ones."""
    throttle = Throttle(60, buckets_max=1)
    assert [True] * 60 == [throttle.take("wrong").is_allowed for _ in range(60)]
    assert throttle.take("right", 0).is_allowed
    assert not throttle.take("wrong", 0).is_allowed


# Connections.


async def hello(scope: Any, _receive: Any, send: Any) -> None:
    body = b"x" * (5_000_000 if scope["path"] == "/long" else 5)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


class Bounded:
    """A server with bounded connections in a thread of this process."""

    def __init__(self, connections_max: int) -> None:
        self.connections = Connections(connections_max)
        config = uvicorn.Config(
            hello, http=self.connections.make_protocol(), ws="none", lifespan="off", log_config=None, interface="asgi3"
        )
        self._server = uvicorn.Server(config)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        until(lambda: self._server.started, "the server")

    async def _run(self) -> None:
        sweeping = asyncio.create_task(self.connections.sweep())
        await self._server.serve(sockets=[self._listener])
        sweeping.cancel()

    def ask(self, request: bytes = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") -> bytes:
        """Send bytes; the answer."""
        with socket.create_connection(self.address, timeout=20) as client:
            client.sendall(request)
            found = b""
            while more := client.recv(1 << 16):
                found += more
        return found

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)


@pytest.fixture
def bounded() -> Iterator[Bounded]:
    one = Bounded(200)
    yield one
    one.close()


def test_slow_clients_use_up_no_descriptors_and_keep_nobody_out(bounded: Bounded) -> None:
    """Issue 13, 11: beyond a number the oldest connection that waits is closed, and others are served at once."""
    clients = [socket.create_connection(bounded.address) for _ in range(3 * WAITING_MAX)]
    try:
        for client in clients:
            client.send(b"GET / HTTP/1.1\r\nX: ")
        for _ in range(5):
            assert b"200 OK" in bounded.ask()
        assert len(bounded.connections) <= WAITING_MAX
    finally:
        for client in clients:
            client.close()


def test_a_request_that_drips_is_cut_off(bounded: Bounded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 13, 11: the time is for the whole request; a byte now and then does not begin it anew."""
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.5)
    started = time.monotonic()
    with socket.create_connection(bounded.address) as client:
        client.settimeout(0.1)
        client.send(b"GET /livez HTTP/1.1\r\n")
        while True:
            assert time.monotonic() - started < 20, "it is still served"
            try:
                client.send(b"X")
                if not client.recv(1):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
    assert 0.4 < time.monotonic() - started


def test_an_answer_that_nobody_reads_is_cut_off(bounded: Bounded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its memory and its descriptor come back."""
    monkeypatch.setattr(connections, "ANSWER_SECONDS", 0.5)
    with socket.create_connection(bounded.address) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: len(bounded.connections) == 1, "the connection")
        until(lambda: len(bounded.connections) == 0, "its end")
    assert 1 == bounded.connections.cut_off


def test_a_request_beyond_the_bound_is_refused_in_the_form_of_other_errors(bounded: Bounded) -> None:
    """Endless headers, and what is no HTTP."""
    found = bounded.ask(b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000)
    assert b"413 Content Too Large" in found
    assert b'{"detail":"the request is longer' in found
    assert b"400 Bad Request" in bounded.ask(b"\x16\x03\x01\x02\x00\x01\x00\x01")


def test_no_server_without_keys_for_other_machines(tmp_path: Path) -> None:
    """`--insecure-no-auth` on loopback only."""
    TeamLog(tmp_path, "alpha").place()
    command = [sys.executable, "-m", "compactor", "serve", str(tmp_path), "--insecure-no-auth", "--http", "0.0.0.0:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (2, True) == (done.returncode, "of this machine only" in done.stderr)


def test_without_authentication_everybody_on_this_machine_sees_everything(tmp_path: Path) -> None:
    """`--insecure-no-auth`."""
    TeamLog(tmp_path, "alpha").place()
    one = Served(tmp_path, "--insecure-no-auth")
    assert 1 == one.get("/api/v1/team/alpha/orders/open").json()["open_orders_count"]
    assert one.get("/api/v1/key").json()["admin"]
    assert 421 == one.get("/api/v1/teams", headers={"Host": "evil.example"}).status_code
    one.close()
