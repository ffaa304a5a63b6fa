"""What the daemon shows over HTTP, asked for over a real socket; and what it leaves in its lock for `status`."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from compactor.daemon import http
from compactor.daemon.health import Health, LedgerHealth
from compactor.daemon.http import CONNECTIONS_MAX, serve
from compactor.daemon.metrics import Metrics
from compactor.daemon.presence import TEXT_BYTES, AlreadyRunning, acquire, read_report


@pytest.fixture
def health() -> Health:
    health = Health()
    health.caught_up = True
    for team in ("alice", "bob"):
        health.ledgers[team] = LedgerHealth(
            team, team, "current", events=7, kinds={"new": 4, "fill": 3}, passes=1, last_pass_at=time.time()
        )
    return health


@pytest.fixture
def url(health: Health) -> Iterator[str]:
    server = serve("127.0.0.1:0", health, Metrics(health))
    yield f"http://{server.address}"
    server.close()


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def degrade(health: Health, team: str) -> None:
    row = msgspec.structs.replace(health.ledgers[team], state="degraded", kind="disk_full", reason="no room")
    health.ledgers[team] = row


def checks(text: str) -> dict[str, Any]:
    return {check["name"]: check for check in json.loads(text)["checks"]}


def test_a_current_daemon_is_alive_and_ready(url: str) -> None:
    """`/livez` and `/readyz` are 200 when the loop turns and every ledger is current."""
    assert 200 == get(f"{url}/livez")[0]
    status, text = get(f"{url}/readyz")
    assert (200, True) == (status, json.loads(text)["ok"])


def test_a_degraded_ledger_is_not_ready_and_says_why_but_alive(url: str, health: Health) -> None:
    """Each check with its reason as JSON."""
    degrade(health, "bob")
    status, text = get(f"{url}/readyz")
    assert 503 == status
    assert (False, "no room") == (checks(text)["ledger bob"]["ok"], checks(text)["ledger bob"]["reason"])
    assert checks(text)["ledger alice"]["ok"]
    assert 200 == get(f"{url}/livez")[0]


def test_a_ledger_that_is_still_read_is_not_ready(url: str, health: Health) -> None:
    """`/readyz`: caught up."""
    health.ledgers["alice"] = LedgerHealth("alice", "alice")
    status, text = get(f"{url}/readyz")
    assert (503, "catching up: alice") == (status, checks(text)["caught_up"]["reason"])


def test_a_loop_that_hangs_is_not_alive(url: str, health: Health) -> None:
    """`/livez` fails when the loop has not turned."""
    health.last_progress = time.monotonic() - 100
    assert 503 == get(f"{url}/livez")[0]
    assert 503 == get(f"{url}/readyz")[0]


def test_other_paths_are_not_found(url: str) -> None:
    """What is not there is 404, and says what is."""
    assert (404, "/livez\n/readyz\n/metrics\n") == get(f"{url}/secret")


def test_metrics_are_served_for_prometheus(url: str) -> None:
    """`/metrics`, whole or only what was asked for by name."""
    assert 'compactor_events_total{kind="new",team="alice"} 4.0' in get(f"{url}/metrics")[1]
    one = get(f"{url}/metrics?name[]=compactor_ledgers")[1]
    assert ["compactor_ledgers 2.0"] == [line for line in one.splitlines() if not line.startswith("#")]


def test_a_name_that_is_no_utf8_is_told_like_any_other(url: str, health: Health) -> None:
    """One ledger with a name of any bytes does not hide the others."""
    health.ledgers["x"] = LedgerHealth("x\udcff", "x\udcff", "degraded", "bad_place", "x\udcff is no team id")
    status, text = get(f"{url}/readyz")
    assert (503, "x\\udcff is no team id") == (status, checks(text)["ledger x\\udcff"]["reason"])
    assert checks(text)["ledger alice"]["ok"]


def test_it_is_served_on_ipv6(health: Health) -> None:
    """`[IPV6]:PORT` is an address like any other."""
    try:
        server = serve("[::1]:0", health, Metrics(health))
    except OSError:
        pytest.skip("no IPv6 here")
    assert server.address.startswith("[::1]:")
    assert 200 == get(f"http://{server.address}/livez")[0]
    server.close()


def test_a_client_that_breaks_off_leaves_no_line_in_the_log(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    """The log is one JSON object a line; a reset connection is no news, and stops nothing."""
    host, _, port = url.removeprefix("http://").partition(":")
    for _ in range(3):
        client = socket.create_connection((host, int(port)))
        # No lingering: closing sends a reset.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.send(b"GET /livez")
        client.close()
    # Answered after the others were accepted; each of those has a thread, which ends when it has seen the reset.
    assert 200 == get(f"{url}/livez")[0]
    while any("process_request_thread" in thread.name for thread in threading.enumerate()):
        time.sleep(0.01)
    assert ("", "") == capfd.readouterr()


def test_slow_clients_use_up_no_descriptors_and_keep_nobody_out(url: str) -> None:
    """Issue 13, 11: a cap on connections; beyond it the oldest one is closed, and others are served at once."""
    host, _, port = url.removeprefix("http://").partition(":")
    before = len(os.listdir("/proc/self/fd"))
    clients = [socket.create_connection((host, int(port))) for _ in range(3 * CONNECTIONS_MAX)]
    try:
        for client in clients:
            with contextlib.suppress(OSError):
                client.send(b"GET /livez HTTP/1.1\r\nX: ")
        for _ in range(10):
            assert 200 == get(f"{url}/livez")[0]
        deadline = time.monotonic() + 10
        while len(os.listdir("/proc/self/fd")) > before + len(clients) + CONNECTIONS_MAX + 1:
            assert time.monotonic() < deadline, "the server holds more connections than it may"
            time.sleep(0.01)
    finally:
        for client in clients:
            client.close()


def test_a_request_that_drips_is_cut_off(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 13, 11: the time is for the whole request; a byte now and then does not begin it anew."""
    monkeypatch.setattr(http, "REQUEST_SECONDS", 0.5)
    host, _, port = url.removeprefix("http://").partition(":")
    started = time.monotonic()
    with socket.create_connection((host, int(port))) as client:
        client.settimeout(0.1)
        client.send(b"GET /livez HTTP/1.1\r\n")
        found: bytes | None = None
        while found is None:
            assert time.monotonic() - started < 10, "it is still served"
            try:
                client.send(b"X")
                found = client.recv(1)
            except TimeoutError:
                continue
            except OSError:
                break
    assert not found
    assert 0.4 < time.monotonic() - started


def test_an_address_in_use_is_an_error(url: str, health: Health) -> None:
    """A port in use is an error before any work starts."""
    with pytest.raises(OSError, match="in use"):
        serve(url.removeprefix("http://"), health, Metrics(health))


# Presence.


def test_the_report_of_many_ledgers_keeps_those_that_are_degraded(tmp_path: Path, health: Health) -> None:
    """The text never grows beyond its place, and what is degraded comes first."""
    for number in range(3000):
        health.ledgers[f"t{number}"] = LedgerHealth(f"t{number}", f"t{number}", "current")
    degrade(health, "t2999")
    presence = acquire(tmp_path)
    presence.publish(health)
    found = read_report(tmp_path)
    assert found is not None
    assert ("t2999", "degraded", "no room") == (
        found.ledgers[0].team_id,
        found.ledgers[0].state,
        found.ledgers[0].reason,
    )
    assert TEXT_BYTES == (tmp_path / ".compactor" / "daemon.lock").stat().st_size
    with pytest.raises(AlreadyRunning, match=f"process {health.pid}"):
        acquire(tmp_path)
    presence.close()
    assert read_report(tmp_path) is None
    acquire(tmp_path).close()
