"""Start the HTTP server beside the daemon, in a process of its own, and start it again if it dies.

What people ask for can never take the time of the loop that keeps the ledgers current. The socket is bound here, so an
address that is in use is an error before any work starts, and a connection that comes while the server is started anew
waits in the kernel. Note: `/livez` answers for the daemon, which is asked over a pair of sockets.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from structlog.typing import FilteringBoundLogger as Logger

from compactor.daemon.health import Health
from compactor.daemon.metrics import Metrics
from compactor.web.health_link import HealthResponder
from compactor.web.listening import bind, format_address

RESTART_SECONDS = 1.0
RESTART_SECONDS_MAX = 30.0
STEADY_SECONDS = 60.0
"""After so long without dying the next start is at once again."""
STOP_SECONDS = 0.7


class WebProcess:
    """The HTTP server of a daemon; `address` is HOST:PORT as bound."""

    def __init__(
        self, data: Path, address: str, health: Health, metrics: Metrics, log: Logger, *, config: Path | None = None
    ) -> None:
        """Bind the address and start the server. Raises OSError if the address cannot be bound."""
        self._listener = bind(address)
        self.address = format_address(self._listener)
        self._arguments = ["serve", str(data), *(["--config", str(config)] if config is not None else [])]
        self._health = health
        self._metrics = metrics
        self._log = log
        self._is_over = threading.Event()
        self._starting = threading.Lock()
        self._process = self._start()
        self._keeper = threading.Thread(target=self._keep, name="http", daemon=True)
        self._keeper.start()

    def poll(self) -> int | None:
        """The exit code of the process that served last, if it has ended."""
        return self._process.poll()

    @property
    def pid(self) -> int:
        """The process that serves now."""
        return self._process.pid

    def close(self) -> None:
        """Stop serving; returns within a second."""
        with self._starting:
            self._is_over.set()
            self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._keeper.join()
        self._listener.close()

    def _start(self) -> subprocess.Popen[bytes]:
        ours, theirs = socket.socketpair()
        self.link = ours
        try:
            HealthResponder(ours, self._health, self._metrics).start()
            descriptors = (self._listener.fileno(), theirs.fileno())
            return subprocess.Popen(
                [sys.executable, "-m", "compactor", *self._arguments, "--descriptors", "{},{}".format(*descriptors)],
                stdin=subprocess.DEVNULL, pass_fds=descriptors, start_new_session=True,
            )  # fmt: skip
        finally:
            theirs.close()

    def _keep(self) -> None:
        """Start the server again whenever it has died, at longer and longer intervals."""
        delay = RESTART_SECONDS
        while True:
            started = time.monotonic()
            code = self._process.wait()
            if self._is_over.is_set():
                return
            delay = RESTART_SECONDS if time.monotonic() - started > STEADY_SECONDS else delay
            self._log.error("http_died", exit_code=code, retry_seconds=delay)
            if self._is_over.wait(delay):
                return
            delay = min(RESTART_SECONDS_MAX, 2 * delay)
            with self._starting:
                if self._is_over.is_set():
                    return
                self._process = self._start()
