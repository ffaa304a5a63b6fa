"""Run the HTTP server in this process: uvicorn, on a socket that is bound already, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import socket
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from structlog.typing import FilteringBoundLogger as Logger

from compactor.settings.configuration import Configuration
from compactor.web.application import make_application
from compactor.web.connections import Connections
from compactor.web.gate import Application
from compactor.web.health_link import open_link
from compactor.web.listening import BACKLOG

_DESCRIPTORS_SPARE = 200
"""Descriptors that are no connections: logs, segments, libraries."""


def run_server(
    data: Path, found: Configuration, listener: socket.socket, log: Logger, *,
    link: socket.socket | None = None, has_keys: bool = True,
) -> None:  # fmt: skip
    """Serve until SIGTERM, Ctrl-C or, with a `link` to the daemon, its end. Returns within a second of it."""
    limit = _raise_descriptor_limit(found.settings.http_connections)
    logging.getLogger("uvicorn.error").addHandler(_Forward(log))
    logging.getLogger("uvicorn.error").propagate = False
    asyncio.run(_serve(data, found, listener, log, link, has_keys, limit))


async def _serve(
    data: Path, found: Configuration, listener: socket.socket, log: Logger,
    link: socket.socket | None, has_keys: bool, connections_max: int,
) -> None:  # fmt: skip
    health = await open_link(link) if link is not None else None
    connections = Connections(connections_max)
    async with make_application(data, found, log, health=health, has_keys=has_keys) as application:
        application.traffic.connections = connections
        server = _Server(_configure(application, connections))
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        async with _background(connections.sweep()):
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            ends: list[asyncio.Task[Any]] = [asyncio.create_task(stop.wait())]
            if health is not None:
                ends.append(asyncio.create_task(health.wait_closed()))
            await asyncio.wait([serving, *ends], return_when=asyncio.FIRST_COMPLETED)
            application.close_streams()
            server.should_exit = True
            await serving
            for end in ends:
                end.cancel()


def _configure(application: Application, connections: Connections) -> uvicorn.Config:
    return uvicorn.Config(
        application, http=connections.make_protocol(), ws="none", lifespan="off", log_config=None, access_log=False,
        proxy_headers=False, server_header=False, timeout_keep_alive=15, timeout_graceful_shutdown=1, backlog=BACKLOG,
        interface="asgi3",
    )  # fmt: skip


class _Server(uvicorn.Server):
    """Uvicorn's server, which leaves signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class _Forward(logging.Handler):
    """Uvicorn's warnings and errors go into our log."""

    def __init__(self, log: Logger) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Log a message; a request that is no HTTP is not worth a line."""
        if record.exc_info is not None:
            self._log.error("http_failed", reason=record.getMessage().strip(), exc_info=record.exc_info)
        elif record.levelno >= logging.ERROR:
            self._log.error("http_failed", reason=record.getMessage().strip())


@asynccontextmanager
async def _background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _raise_descriptor_limit(wanted: int) -> int:
    """Allow descriptors for so many connections, as far as this process may; returns how many it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = wanted + _DESCRIPTORS_SPARE
    if soft < need:
        soft = need if hard == resource.RLIM_INFINITY else min(need, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(wanted, soft - _DESCRIPTORS_SPARE))
