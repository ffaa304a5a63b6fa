"""How the daemon is, over HTTP: `/livez`, `/readyz`, `/metrics`.

The server is the standard library's, in threads of its own, and only reads. The rule that surprises: `/livez` fails
when the loop has not turned for half a minute, so that whoever restarts what is not alive restarts only what hangs; a
degraded ledger is the business of `/readyz`.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import msgspec
from prometheus_client import make_wsgi_app

from compactor.daemon.health import Health, LedgerHealth, printable
from compactor.daemon.metrics import Metrics
from compactor.daemon.staleness import stale_accounts
from compactor.settings.configuration import split_address

ALIVE_SECONDS = 30.0


class Check(msgspec.Struct, frozen=True):
    """One thing that has to hold, and if not, why."""

    name: str
    ok: bool
    reason: str | None = None


class Answer(msgspec.Struct, frozen=True):
    """What `/livez` and `/readyz` say."""

    ok: bool
    checks: list[Check]


class Server:
    """A server that runs; `address` is HOST:PORT as it was bound."""

    def __init__(self, server: WSGIServer, host: str) -> None:
        self._server = server
        self.address = f"[{host}]:{server.server_port}" if ":" in host else f"{host}:{server.server_port}"

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


def live(health: Health) -> Answer:
    """Whether the loop turns."""
    age = time.monotonic() - health.last_progress
    reason = None if age < ALIVE_SECONDS else f"the loop has not turned for {age:.0f} s, expected every few seconds"
    return _answer([Check("loop", reason is None, reason)])


def ready(health: Health) -> Answer:
    """Whether every ledger is kept current, with its log and, where there is a link to the broker, with that."""
    behind = [printable(one.team_id) for one in health.snapshot() if one.state == "catching_up"]
    reason = f"catching up: {', '.join(behind)}" if behind else None if health.caught_up else "catching up"
    checks = [*live(health).checks, Check("caught_up", reason is None, reason)]
    checks += [_check(one) for one in health.snapshot()]
    checks += [Check(one.name, one.reason is None, one.reason) for one in stale_accounts(health, time.time())]
    return _answer(checks)


def _check(one: LedgerHealth) -> Check:
    reason = printable(one.reason) if one.reason is not None else None
    return Check(f"ledger {printable(one.team_id)}", one.state != "degraded", reason)


def _answer(checks: list[Check]) -> Answer:
    return Answer(all(check.ok for check in checks), checks)


def serve(address: str, health: Health, metrics: Metrics) -> Server:
    """Serve at HOST:PORT (port 0: any) from now on. Raises OSError where the address cannot be had."""
    host, port = split_address(address)
    kind = _Server6 if ":" in host else _Server
    server = make_server(host, port, _application(health, metrics), server_class=kind, handler_class=_Quiet)
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    return Server(server, host)


def _application(health: Health, metrics: Metrics) -> Callable[..., Iterable[bytes]]:
    of_metrics = make_wsgi_app(metrics.registry)
    answers = {"/livez": live, "/readyz": ready}

    def application(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            body: Iterable[bytes] = of_metrics(environ, start)
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

    def server_bind(self) -> None:
        """Bind, without asking DNS for a name of the host: nobody needs it, and without DNS the start would hang."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that reset its connection or was silent; the log is one JSON object a line."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Quiet(WSGIRequestHandler):
    # A client that says nothing must not hold a thread for ever.
    timeout = 10

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: what is scraped every few seconds is no news."""
