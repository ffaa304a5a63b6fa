"""The command `watch`: the daemon, from the command line or under a service manager.

It puts the parts together and leaves the work to `compactor.daemon`. The rule that surprises: being told to stop is
the normal end of a daemon, so SIGTERM and Ctrl-C end it with exit code 0.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

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
    from compactor.daemon.health import Health
    from compactor.daemon.live import Live
    from compactor.daemon.notices import Log
    from compactor.settings.configuration import Configuration


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
    # Before anything that takes time: whoever stops a daemon that is just starting means a normal end too.
    stop = stop_on_signals()
    given = {"http": http, "retention_days": retention_days, "poll_seconds": poll_seconds, "log_level": log_level}
    found = configuration(data, config, given)
    watch_until(data, found, stop)


def watch_until(
    data: Path,
    found: Configuration,
    stop: threading.Event,
    link: Callable[[Health, Log], Live] | None = None,
) -> None:
    """Watch until `stop` is set; with `link` also what it makes, which is linked to the broker, for as long."""
    from compactor.daemon.health import Health
    from compactor.daemon.http import serve
    from compactor.daemon.metrics import Metrics
    from compactor.daemon.notices import logger
    from compactor.daemon.presence import AlreadyRunning, take
    from compactor.daemon.systemd import Systemd
    from compactor.daemon.watch import Watcher

    settings = found.settings
    health = Health()
    try:
        presence = take(data)
    except AlreadyRunning as error:
        raise click.ClickException(str(error)) from None
    log = logger(settings.log_level)
    metrics = Metrics(health) if settings.http is not None else None
    if settings.http is not None and metrics is not None:
        try:
            server = serve(settings.http, health, metrics)
        except OSError as error:
            raise click.ClickException(
                f"--http {settings.http}: {error.strerror or error}. Nothing was started; name another address."
            ) from None
        log.info("http_started", address=f"http://{server.address}")
    watcher = Watcher(
        data, settings, health, log,
        presence=presence, on_pass=[metrics.observe_pass] if metrics is not None else [],
        supervisor=Systemd(os.environ), config=found.file,
    )  # fmt: skip
    live = link(health, log) if link is not None else None
    try:
        if live is not None:
            live.start()
        watcher.run(stop)
    finally:
        if live is not None:
            stop.set()
            live.finish()


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM or Ctrl-C sets; a second Ctrl-C interrupts at once."""
    stop = threading.Event()

    def handle(number: int, _frame: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    return stop
