"""Serve the health of the daemon over HTTP: `/livez`, `/readyz`, `/metrics`.

The server is the standard library's, in its own threads, and only reads. Note: `/livez` fails only if the loop has not
turned for half a minute, so that a supervisor restarts only a daemon that hangs. `/readyz` reports degraded ledgers.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import msgspec
from prometheus_client import make_wsgi_app

from compactor.core.printable import printable
from compactor.daemon.health import Health, LedgerHealth, check_accounts
from compactor.daemon.metrics import Metrics
from compactor.settings.configuration import split_address

ALIVE_SECONDS = 30.0
CONNECTIONS_MAX = 32
"""Beyond these the oldest connection is closed, so slow clients use up no descriptors and keep nobody out."""
REQUEST_SECONDS = 10.0
"""The time for a whole request, however slowly its bytes come or its answer is read."""


class Check(msgspec.Struct, frozen=True):
    """One condition, and why it does not hold, if so."""

    name: str
    ok: bool
    reason: str | None = None


class HealthAnswer(msgspec.Struct, frozen=True):
    """The answer of `/livez` and `/readyz`."""

    ok: bool
    checks: list[Check]


class HttpServer:
    """A running server; `address` is HOST:PORT as bound."""

    def __init__(self, server: WSGIServer, host: str) -> None:
        self._server = server
        self.address = f"[{host}]:{server.server_port}" if ":" in host else f"{host}:{server.server_port}"

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


def check_live(health: Health) -> HealthAnswer:
    """Check that the loop turns."""
    age = time.monotonic() - health.last_progress
    reason = None if age < ALIVE_SECONDS else f"the loop has not turned for {age:.0f} s, expected every few seconds"
    return _combine([Check("loop", reason is None, reason)])


def check_ready(health: Health) -> HealthAnswer:
    """Check that every ledger is current with its log and, if the daemon is linked to a broker, with the broker."""
    behind = [printable(one.team_id) for one in health.snapshot() if one.state == "catching_up"]
    reason = f"catching up: {', '.join(behind)}" if behind else None if health.caught_up else "catching up"
    checks = [*check_live(health).checks, Check("caught_up", reason is None, reason)]
    checks += [_check_ledger(one) for one in health.snapshot()]
    checks += [Check(one.name, one.reason is None, one.reason) for one in check_accounts(health, time.time())]
    checks += [Check(f"reconcile ledger {team}", False, reason) for team, reason in sorted(health.unreconciled.items())]
    return _combine(checks)


def _check_ledger(one: LedgerHealth) -> Check:
    reason = printable(one.reason) if one.reason is not None else None
    return Check(f"ledger {printable(one.team_id)}", one.state != "degraded", reason)


def _combine(checks: list[Check]) -> HealthAnswer:
    return HealthAnswer(all(check.ok for check in checks), checks)


def serve(address: str, health: Health, metrics: Metrics) -> HttpServer:
    """Start to serve at HOST:PORT (port 0: any free port). Raises OSError if the address cannot be bound."""
    host, port = split_address(address)
    kind = _Server6 if ":" in host else _Server
    server = make_server(host, port, _make_application(health, metrics), server_class=kind, handler_class=_Quiet)
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    return HttpServer(server, host)


def _make_application(health: Health, metrics: Metrics) -> Callable[..., Iterable[bytes]]:
    serve_metrics = make_wsgi_app(metrics.registry)
    answers = {"/livez": check_live, "/readyz": check_ready}

    def application(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            body: Iterable[bytes] = serve_metrics(environ, start)
            return body
        if path in answers:
            answer = answers[path](health)
            status = "200 OK" if answer.ok else "503 Service Unavailable"
            return _send(start, status, "application/json", msgspec.json.encode(answer) + b"\n")
        known = b"/livez\n/readyz\n/metrics\n"
        return _send(start, "200 OK" if path in ("", "/") else "404 Not Found", "text/plain; charset=utf-8", known)

    return application


def _send(start: Callable[..., Any], status: str, kind: str, body: bytes) -> Iterable[bytes]:
    start(status, [("Content-Type", kind), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")])
    return [body]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    # A burst of connections waits in the kernel while the oldest ones are closed.
    request_queue_size = CONNECTIONS_MAX

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._accepted_at: dict[socket.socket, float] = {}
        """The open connections, oldest first."""
        self._accepted_lock = threading.Lock()
        super().__init__(*arguments, **options)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread; closes the oldest one if there are too many."""
        with self._accepted_lock:
            while len(self._accepted_at) >= CONNECTIONS_MAX:
                self._cut_off(next(iter(self._accepted_at)))
            self._accepted_at[request] = time.monotonic()
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Close connections whose time is over; called twice a second."""
        with self._accepted_lock:
            until = time.monotonic() - REQUEST_SECONDS
            for request in [one for one, at in self._accepted_at.items() if at < until]:
                self._cut_off(request)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        with self._accepted_lock:
            self._accepted_at.pop(request, None)
        super().shutdown_request(request)

    def _cut_off(self, request: socket.socket) -> None:
        """End a connection under its thread, which then closes it."""
        del self._accepted_at[request]
        with suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)

    def server_bind(self) -> None:
        """Bind without a DNS lookup of the host's name, which could hang and is not needed."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that reset the connection or time out; the log has one JSON object per line."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Quiet(WSGIRequestHandler):
    # A silent client must not hold a thread for ever.
    timeout = 10

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log nothing: a scrape every few seconds is not worth a line."""
