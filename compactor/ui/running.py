"""The commands `run` and `stream`: fill the ledgers from the broker's stream and reconcile them.

They assemble the parts of `compactor.daemon.links`. Note: refused keys end the program with exit code 4, on which a
service manager does not restart it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    teams_option,
)
from compactor.ui.watching import make_logger, stop_on_signals, watch_until

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger as Logger

    from compactor.daemon.health import Health
    from compactor.daemon.links import Links
    from compactor.settings.accounts import Account
    from compactor.settings.configuration import Configuration

BAD_CREDENTIALS = 4

reconcile_seconds_option = click.option(
    "--reconcile-seconds", metavar="N", type=click.IntRange(10, 86_400), help="Reconcile so often; default: 300."
)


class CredentialsRefused(click.ClickException):
    """No keys were found, or the broker refused them."""

    exit_code = BAD_CREDENTIALS


@click.command(short_help="Watch, stream and reconcile in one process: the daemon with a link to the broker.")
@data_argument
@config_option
@http_option
@retention_days_option
@poll_seconds_option
@reconcile_seconds_option
@teams_option
@log_level_option
def run(
    data: Path,
    config: Path | None,
    http: str | None,
    retention_days: int | None,
    poll_seconds: int | None,
    reconcile_seconds: int | None,
    teams: str | None,
    log_level: str | None,
) -> None:
    """Keep every ledger below DIR current with its log, and its log with the broker.

    All that `watch` does; beside it the broker's stream is written into the logs as it comes, and every 5 minutes, at
    the start and after every new connection the ledgers are reconciled with the broker. Keys come from the environment:
    ALPACA_API_KEY and ALPACA_SECRET_KEY, or APCA_API_KEY_ID and APCA_API_SECRET_KEY; paper trading, unless real money
    is asked for in words. Exit code 4 when there are no keys, or the broker has refused those of every account for 15
    minutes (for 2 at the start).

    \b
    Example:
      compactor run data --http 127.0.0.1:9464
    """
    stop = stop_on_signals()
    given = {"http": http, "retention_days": retention_days, "poll_seconds": poll_seconds, "log_level": log_level}
    found = configuration(data, config, given | {"reconcile_seconds": reconcile_seconds, "teams": teams})
    accounts = _resolve_distinct_accounts(found)
    made: list[Links] = []

    def link(health: Health, log: Logger) -> Links:
        made.append(_make_links(data, accounts, found, health, log, stop))
        return made[0]

    with _show_stream_in_use():
        watch_until(data, found, stop, link)
    _raise_failure(made[0])


@click.command(short_help="Write the broker's stream into the logs, and reconcile; without the watcher.")
@data_argument
@config_option
@reconcile_seconds_option
@teams_option
@log_level_option
def stream(
    data: Path, config: Path | None, reconcile_seconds: int | None, teams: str | None, log_level: str | None
) -> None:
    """Write what the broker tells into the logs below DIR, and reconcile them with the broker.

    It is `run` without the watcher, for a machine where `compactor watch` runs by itself. Without any watcher the
    derived files are brought up to date by each reconcile, every 5 minutes, and by `compactor compact`.

    \b
    Example:
      compactor stream data
    """
    stop = stop_on_signals()
    given = {"log_level": log_level, "reconcile_seconds": reconcile_seconds, "teams": teams}
    found = configuration(data, config, given)
    accounts = _resolve_distinct_accounts(found)
    from compactor.daemon.health import Health

    links = _make_links(data, accounts, found, Health(), make_logger(found.settings.log_level), stop)
    with _show_stream_in_use():
        links.start()
    try:
        while not stop.wait(1.0):
            pass
    finally:
        stop.set()
        links.finish()
    _raise_failure(links)


def _make_links(
    data: Path,
    accounts: Sequence[Account],
    found: Configuration,
    health: Health,
    log: Logger,
    stop: threading.Event,
) -> Links:
    from compactor.daemon.links import Links

    return Links(
        data, accounts, health, log, stop,
        reconcile_seconds=found.settings.reconcile_seconds, requests_per_minute=found.settings.requests_per_minute,
        requests_left_percent=found.settings.requests_left_percent,
        teams=found.settings.teams,
    )  # fmt: skip


def resolve_accounts(found: Configuration, wanted: str | None = None) -> list[Account]:
    """Find the keys of the configured accounts, or of the one that is wanted."""
    from compactor.broker.credentials import BadCredentials
    from compactor.settings.accounts import DEFAULT_ACCOUNT, find_accounts

    settings = found.settings.accounts
    names = [one.name for one in settings] or [DEFAULT_ACCOUNT]
    if wanted is not None and wanted not in names:
        raise click.UsageError(f"no account {wanted!r}: expected one of {', '.join(names)}, as the settings name them")
    try:
        return find_accounts([one for one in settings if wanted in (None, one.name)], os.environ)
    except BadCredentials as error:
        raise CredentialsRefused(str(error)) from None


def _resolve_distinct_accounts(found: Configuration) -> list[Account]:
    from compactor.broker.adapters import find_adapter
    from compactor.broker.port import UnsupportedLibrary

    accounts = resolve_accounts(found)
    try:
        for broker in sorted({one.credentials.broker for one in accounts}):
            find_adapter(broker).check_libraries()
    except UnsupportedLibrary as error:
        raise click.ClickException(str(error)) from None
    if len({one.credentials.key for one in accounts}) < len(accounts):
        names = ", ".join(one.name for one in accounts)
        raise click.UsageError(
            f"two of the accounts {names} have the same key; expected one each, because a broker may allow one stream "
            "an account"
        )
    return accounts


@contextmanager
def _show_stream_in_use() -> Iterator[None]:
    """Show StreamInUse as a message."""
    from compactor.daemon.links import StreamInUse

    try:
        yield
    except StreamInUse as error:
        raise click.ClickException(str(error)) from None


def _raise_failure(links: Links) -> None:
    if links.failure is not None:
        raise CredentialsRefused(str(links.failure))
