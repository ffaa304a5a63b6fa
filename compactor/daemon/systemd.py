"""Notify systemd: ready, a status text, alive, stopping.

The protocol is one datagram per message (sd_notify(3)). Note: outside systemd there is no socket and every call does
nothing. A message that cannot be sent is dropped; only `READY=1`, which systemd waits for, is retried.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping


class Systemd:
    """The service manager that started this process, if any. `environ` has NOTIFY_SOCKET and WATCHDOG_USEC then."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        usec = environ.get("WATCHDOG_USEC", "")
        # A third of the timeout, so that one message may be lost.
        self._every_seconds = int(usec) / 3e6 if usec.isdigit() else None
        self._pinged_at = 0.0
        self._owes_ready = False

    def notify_ready(self) -> None:
        """The daemon has caught up."""
        self._owes_ready = not self._send("READY=1")

    def notify_status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={text}")

    def notify_watchdog(self) -> None:
        """The loop has turned; call it often, it is sent only as often as systemd requires."""
        if self._owes_ready:
            self.notify_ready()
        now = time.monotonic()
        if self._every_seconds is not None and now - self._pinged_at >= self._every_seconds:
            self._pinged_at = now
            self._send("WATCHDOG=1")

    def notify_stopping(self) -> None:
        """The daemon is stopping as requested."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> bool:
        """Send a message; False if the socket's queue is full."""
        if not self._address:
            return True
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto(message.encode("utf-8", "backslashreplace"), self._address)
        except BlockingIOError:
            return False
        except OSError:
            # A socket that does not exist now will not exist later.
            return True
        return True
