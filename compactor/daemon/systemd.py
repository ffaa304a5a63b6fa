"""Tells systemd how the daemon is: ready, its status in words, alive, stopping.

The protocol is one datagram a message (sd_notify(3)), which the packages for it wrap in more code than it takes. The
rule that surprises: outside systemd there is no socket, and every call does nothing. A message that cannot be sent is
dropped, because the work goes on whoever listens; only `READY=1`, which systemd waits for, is tried again.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping


class Systemd:
    """The service manager that started this process, if one did. `environ` has NOTIFY_SOCKET and WATCHDOG_USEC then."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        usec = environ.get("WATCHDOG_USEC", "")
        # A third of the time allowed, so that one message may be lost.
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
        """The loop has turned, or a pass was done; called often, sent as often as systemd wants it."""
        if self._owes_ready:
            self.notify_ready()
        now = time.monotonic()
        if self._every_seconds is not None and now - self._pinged_at >= self._every_seconds:
            self._pinged_at = now
            self._send("WATCHDOG=1")

    def notify_stopping(self) -> None:
        """The daemon is ending as it was told to."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> bool:
        """False where systemd has so much to read that it takes no more now."""
        if not self._address:
            return True
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto(message.encode("utf-8", "backslashreplace"), self._address)
        except BlockingIOError:
            return False
        except OSError:
            # A socket that is not there now will not be there later.
            return True
        return True
