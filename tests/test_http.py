"""What the daemon shows over HTTP, asked for over a real socket; and what it leaves in its lock for `status`."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import struct
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog

from compactor.daemon.health import Health, LedgerHealth
from compactor.daemon.metrics import Metrics
from compactor.daemon.presence import TEXT_BYTES, AlreadyRunning, acquire, read_report
from compactor.web.web_process import WebProcess
from tests.web_client import until


def make_health() -> Health:
    """A daemon with two ledgers that are current."""
    health = Health()
    health.caught_up = True
    for team in ("alice", "bob"):
        health.ledgers[team] = LedgerHealth(
            team, team, "current", events=7, kinds={"new": 4, "fill": 3}, passes=1, last_pass_at=time.time()
        )
    return health


@pytest.fixture(scope="module")
def shared_health() -> Health:
    return make_health()


@pytest.fixture
def health(shared_health: Health) -> Health:
    """What the server of this module tells of; for each test as it was at the start."""
    vars(shared_health).update(vars(make_health()))
    return shared_health


def start(data: Path, health: Health, address: str = "127.0.0.1:0") -> WebProcess:
    log = structlog.wrap_logger(None, wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    return WebProcess(data, address, health, Metrics(health), log)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, shared_health: Health) -> Iterator[WebProcess]:
    server = start(tmp_path_factory.mktemp("http"), shared_health)
    yield server
    server.close()


@pytest.fixture
def url(server: WebProcess, health: Health) -> str:
    return f"http://{server.address}"


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
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
    """What is not there is 404."""
    status, text = get(f"{url}/secret")
    assert (404, ["detail"]) == (status, list(json.loads(text)))


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


def test_it_is_served_on_ipv6(tmp_path: Path, health: Health) -> None:
    """`[IPV6]:PORT` is an address like any other."""
    try:
        server = start(tmp_path, health, "[::1]:0")
    except OSError:
        pytest.skip("no IPv6 here")
    assert server.address.startswith("[::1]:")
    assert 200 == get(f"http://{server.address}/livez")[0]
    server.close()


def test_a_client_that_breaks_off_leaves_no_line_in_the_log(
    tmp_path: Path, health: Health, capfd: pytest.CaptureFixture[str]
) -> None:
    """The log is one JSON object a line; a reset connection is no news, and stops nothing."""
    # A server of its own: what it says goes where the output of this test goes.
    with closing(start(tmp_path, health)) as server:
        url = f"http://{server.address}"
        host, _, port = server.address.partition(":")
        assert 200 == get(f"{url}/livez")[0]
        capfd.readouterr()
        for _ in range(3):
            client = socket.create_connection((host, int(port)))
            # No lingering: closing sends a reset.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.send(b"GET /livez")
            client.close()
        for _ in range(3):
            assert 200 == get(f"{url}/livez")[0]
    assert ("", "") == capfd.readouterr()


def test_an_address_in_use_is_an_error(url: str, tmp_path: Path, health: Health) -> None:
    """A port in use is an error before any work starts."""
    with pytest.raises(OSError, match="in use"):
        start(tmp_path, health, url.removeprefix("http://"))


def test_a_server_that_dies_is_started_again_on_the_same_address(server: WebProcess, url: str) -> None:
    """What asks meanwhile waits in the kernel; the daemon goes on."""
    assert 200 == get(f"{url}/livez")[0]
    before = server.pid
    os.kill(before, signal.SIGKILL)
    assert 200 == get(f"{url}/livez")[0]
    assert before != server.pid


def test_the_server_ends_with_the_daemon_that_started_it(tmp_path: Path, health: Health) -> None:
    """However that ends: no process is left that serves the past."""
    server = start(tmp_path, health)
    assert 200 == get(f"http://{server.address}/livez")[0]
    server.link.shutdown(socket.SHUT_RDWR)
    until(lambda: server.poll() is not None, "the end of the server")
    server.close()


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
