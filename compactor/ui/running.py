"""The commands `run` and `stream`: the ledgers fill themselves from the broker, and heal themselves against it.

They put the parts together and leave the work to `compactor.daemon.live`. The rule that surprises: keys that the broker
refuses end the program with exit code 4, which a service manager is told not to answer with a new start.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
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
from compactor.ui.watching import stop_on_signals, watch_until

if TYPE_CHECKING:
    from compactor.daemon.health import Health
    from compactor.daemon.live import Live
    from compactor.daemon.notices import Log
    from compactor.settings.accounts import Account
    from compactor.settings.configuration import Configuration

BAD_CREDENTIALS = 4

reconcile_seconds_option = click.option(
    "--reconcile-seconds", metavar="N", type=click.IntRange(10, 86_400), help="Reconcile so often; default: 300."
)


class CredentialsRefused(click.ClickException):
    """There are no keys, or the broker does not take them."""

    exit_code = BAD_CREDENTIALS


@click.command(short_help="Watch, stream and reconcile in one process: the daemon with a link to the broker.")
@data_argument
@config_option
@http_option
@retention_days_option
@poll_seconds_option
@reconcile_seconds_option
@log_level_option
def run(
    data: Path,
    config: Path | None,
    http: str | None,
    retention_days: int | None,
    poll_seconds: int | None,
    reconcile_seconds: int | None,
    log_level: str | None,
) -> None:
    """Keep every ledger below DIR current with its log, and its log with the broker.

    All that `watch` does; beside it the broker's stream is written into the logs as it comes, and every 5 minutes, at
    the start and after every new connection the ledgers are reconciled with the broker. Keys come from the environment:
    ALPACA_API_KEY and ALPACA_SECRET_KEY, or APCA_API_KEY_ID and APCA_API_SECRET_KEY; paper trading, unless real money
    is asked for in words. Exit code 4 when there are no keys or the broker refuses them.

    \b
    Example:
      compactor run data --http 127.0.0.1:9464
    """
    stop = stop_on_signals()
    given = {"http": http, "retention_days": retention_days, "poll_seconds": poll_seconds, "log_level": log_level}
    found = configuration(data, config, given | {"reconcile_seconds": reconcile_seconds})
    accounts = _accounts(found)
    made: list[Live] = []

    def link(health: Health, log: Log) -> Live:
        made.append(_live(data, accounts, found, health, log, stop))
        return made[0]

    with _no_tracebacks():
        watch_until(data, found, stop, link)
    _refuse(made[0])


@click.command(short_help="Write the broker's stream into the logs, and reconcile; without the watcher.")
@data_argument
@config_option
@reconcile_seconds_option
@log_level_option
def stream(data: Path, config: Path | None, reconcile_seconds: int | None, log_level: str | None) -> None:
    """Write what the broker tells into the logs below DIR, and reconcile them with the broker.

    It is `run` without the watcher, for a machine where `compactor watch` runs by itself. Without any watcher the
    derived files are brought up to date by each reconcile, every 5 minutes, and by `compactor compact`.

    \b
    Example:
      compactor stream data
    """
    stop = stop_on_signals()
    found = configuration(data, config, {"log_level": log_level, "reconcile_seconds": reconcile_seconds})
    accounts = _accounts(found)
    from compactor.daemon.health import Health
    from compactor.daemon.notices import logger

    live = _live(data, accounts, found, Health(), logger(found.settings.log_level), stop)
    with _no_tracebacks():
        live.start()
    try:
        while not stop.wait(1.0):
            pass
    finally:
        stop.set()
        live.finish()
    _refuse(live)


def _live(
    data: Path,
    accounts: Sequence[Account],
    found: Configuration,
    health: Health,
    log: Log,
    stop: threading.Event,
) -> Live:
    from compactor.daemon.live import Live

    return Live(
        data, accounts, health, log, stop,
        reconcile_seconds=found.settings.reconcile_seconds, requests_per_minute=found.settings.requests_per_minute,
    )  # fmt: skip


def _accounts(found: Configuration) -> list[Account]:
    from compactor.broker.credentials import BadCredentials
    from compactor.settings.accounts import find_accounts

    try:
        accounts = find_accounts(found.settings.accounts, os.environ)
    except BadCredentials as error:
        raise CredentialsRefused(str(error)) from None
    if len({one.credentials.key for one in accounts}) < len(accounts):
        names = ", ".join(one.name for one in accounts)
        raise click.UsageError(
            f"two of the accounts {names} have the same key; expected one each: Alpaca allows one stream an account"
        )
    return accounts


class _no_tracebacks:
    """What another process has already is a message."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from compactor.daemon.live import StreamTaken

        if isinstance(error, StreamTaken):
            raise click.ClickException(str(error)) from None


def _refuse(live: Live) -> None:
    if live.failure is not None:
        raise CredentialsRefused(str(live.failure))
