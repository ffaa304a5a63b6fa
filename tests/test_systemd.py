"""What the daemon tells systemd, received on real datagram sockets."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from compactor.daemon.systemd import Systemd


def receive_at(address: str) -> socket.socket:
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(address)
    receiver.settimeout(10)
    return receiver


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told_over_its_socket(tmp_path: Path, abstract: bool) -> None:
    """Readiness, `STATUS=`, watchdog, stopping: one datagram each."""
    name = f"@compactor-{time.monotonic_ns()}" if abstract else str(tmp_path / "notify")
    with receive_at("\0" + name[1:] if abstract else name) as receiver:
        systemd = Systemd({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "60000000"})
        systemd.notify_ready()
        systemd.notify_status("3 ledgers, current")
        systemd.notify_watchdog()
        systemd.notify_watchdog()  # Too soon after the one before: not sent.
        systemd.notify_stopping()
        told = [receiver.recv(1000) for _ in range(4)]
    assert [b"READY=1", b"STATUS=3 ledgers, current", b"WATCHDOG=1", b"STOPPING=1"] == told


def test_without_a_watchdog_none_is_told(tmp_path: Path) -> None:
    """The watchdog is pinged only where systemd asks for it (WATCHDOG_USEC)."""
    with receive_at(str(tmp_path / "notify")) as receiver:
        systemd = Systemd({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        systemd.notify_watchdog()
        systemd.notify_stopping()
        assert b"STOPPING=1" == receiver.recv(1000)


def test_ready_is_told_again_until_systemd_takes_it(tmp_path: Path) -> None:
    """A service whose READY=1 is lost would be starting for ever; so it is sent again at the loop's next turn."""
    with receive_at(str(tmp_path / "notify")) as receiver:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
            filler.setblocking(False)
            with pytest.raises(BlockingIOError):
                while True:
                    filler.sendto(b"filler", str(tmp_path / "notify"))
        systemd = Systemd({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        systemd.notify_ready()
        receiver.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                assert b"filler" == receiver.recv(1000)
        for _ in range(3):
            systemd.notify_watchdog()
        assert b"READY=1" == receiver.recv(1000)
        with pytest.raises(BlockingIOError):
            receiver.recv(1000)


def test_a_status_may_name_anything(tmp_path: Path) -> None:
    """Names of directories are bytes, and may be no UTF-8."""
    with receive_at(str(tmp_path / "notify")) as receiver:
        Systemd({"NOTIFY_SOCKET": str(tmp_path / "notify")}).notify_status("1 degraded: x\udcff")
        assert b"STATUS=1 degraded: x\\udcff" == receiver.recv(1000)


def test_without_systemd_nothing_is_told_and_nothing_fails(tmp_path: Path) -> None:
    """Outside systemd there is no socket; one that is gone stops nothing either."""
    for environ in ({}, {"NOTIFY_SOCKET": str(tmp_path / "nobody")}):
        systemd = Systemd(environ)
        systemd.notify_ready()
        systemd.notify_watchdog()
        systemd.notify_stopping()
