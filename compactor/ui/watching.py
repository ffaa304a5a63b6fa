"""The command `watch`: run the daemon, from the command line or under a service manager.

It assembles the parts of `compactor.daemon`. Note: SIGTERM and Ctrl-C are the normal end of a daemon, so the exit code
is 0.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compactor.ui.options import (
    config_option,
    configuration,
    data_argument,
    http_option,
    log_level_option,
    poll_seconds_option,
    retention_days_option,
)

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger as Logger

    from compactor.daemon.health import Health
    from compactor.daemon.links import Links
    from compactor.daemon.metrics import Metrics
    from compactor.settings.configuration import Configuration
    from compactor.web.web_process import WebProcess


@click.command(short_help="Keep every ledger current: the daemon.")
@data_argument
@config_option
@http_option
@retention_days_option
@poll_seconds_option
@log_level_option
def watch(
    data: Path,
    config: Path | None,
    http: str | None,
    retention_days: int | None,
    poll_seconds: int | None,
    log_level: str | None,
) -> None:
    """Keep every ledger below DIR current, whoever appends to the logs, and seal what is finished of them.

    Catches up, then follows: milliseconds after a line is in a log, what follows from it is in the derived files. New
    teams are found by themselves. A ledger that cannot be compacted is named, tried again, and stops no other. One
    JSON line a pass goes to standard error. Ends within a second of SIGTERM or Ctrl-C; being killed costs nothing
    either. One daemon per data directory.

    \b
    Example:
      compactor watch data
      compactor watch data --http 127.0.0.1:9464
      compactor systemd data          prints a unit to run it as a service
    """
    # First of all: stopping a daemon that is just starting is a normal end too.
    stop = stop_on_signals()
    given = {"http": http, "retention_days": retention_days, "poll_seconds": poll_seconds, "log_level": log_level}
    found = configuration(data, config, given)
    watch_until(data, found, stop)


def watch_until(
    data: Path,
    found: Configuration,
    stop: threading.Event,
    link: Callable[[Health, Logger], Links] | None = None,
) -> None:
    """Watch until `stop` is set; with `link`, run the links to the broker that it makes for as long."""
    from compactor.daemon.health import Health
    from compactor.daemon.metrics import Metrics
    from compactor.daemon.presence import AlreadyRunning, acquire
    from compactor.daemon.systemd import Systemd
    from compactor.daemon.watcher import Watcher

    settings = found.settings
    health = Health()
    try:
        presence = acquire(data)
    except AlreadyRunning as error:
        raise click.ClickException(str(error)) from None
    log = make_logger(settings.log_level)
    metrics = Metrics(health, data) if settings.http is not None else None
    web = _start_web(data, found, health, metrics, log) if metrics is not None else None
    watcher = Watcher(
        data, settings, health, log,
        presence=presence, on_pass=[metrics.observe_pass] if metrics is not None else [],
        supervisor=Systemd(os.environ), config=found.file,
    )  # fmt: skip
    links = link(health, log) if link is not None else None
    try:
        if links is not None:
            links.start()
        watcher.run(stop)
    finally:
        if web is not None:
            web.close()
        if links is not None:
            stop.set()
            links.finish()


def _start_web(data: Path, found: Configuration, health: Health, metrics: Metrics, log: Logger) -> WebProcess:
    """Serve HTTP in a process of its own. What is wrong with the address is a message."""
    from compactor.web.web_process import WebProcess

    assert found.settings.http is not None
    try:
        web = WebProcess(data, found.settings.http, health, metrics, log, config=found.file)
    except OSError as error:
        raise click.ClickException(
            f"--http {found.settings.http}: {error.strerror or error}. Nothing was started; name another address."
        ) from None
    log.info("http_started", address=f"http://{web.address}")
    return web


def make_logger(level: str = "info") -> Logger:
    """Make the daemon's logger: JSON lines on standard error, or coloured text on a terminal."""
    import structlog

    is_terminal = sys.stderr.isatty()
    # A traceback without local variables, which may contain a key.
    console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    renderer: Any = console if is_terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if is_terminal else [structlog.processors.format_exc_info]),
            _make_printable,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logger: Logger = structlog.get_logger()
    return logger


def _make_printable(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Write out control characters, and hide keys: names of directories and texts of the broker are data."""
    from compactor.core.printable import printable_lines

    return {name: printable_lines(value) if isinstance(value, str) else value for name, value in event.items()}


def stop_on_signals() -> threading.Event:
    """Make an event that SIGTERM or Ctrl-C sets; a second Ctrl-C interrupts at once."""
    stop = threading.Event()

    def handle(number: int, _frame: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    return stop
