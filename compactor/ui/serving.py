"""The commands `serve` and `key`: the API and the page by themselves, and the keys that open them.

Note: `serve` follows the logs and reads what the daemon says. It writes no ledger, but a cancel writes down what
the broker said of the order.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from compactor.ui.options import (
    config_option,
    configuration,
    data_argument,
    data_option,
    json_option,
    log_level_option,
    say,
)

if TYPE_CHECKING:
    import socket

    from compactor.settings.configuration import Configuration

DEFAULT_ADDRESS = "127.0.0.1:8470"
insecure_option = click.option(
    "--insecure-no-auth", is_flag=True, help="Let everybody see and cancel everything; on the loopback only."
)


@click.command(short_help="Serve the API and the page.")
@data_argument
@config_option
@click.option("--http", metavar="HOST:PORT", help=f"Where; default: the setting http, else {DEFAULT_ADDRESS}.")
@insecure_option
@log_level_option
@click.option("--descriptors", hidden=True, help="The socket and the link to the daemon, as watch --http passes them.")
def serve(
    data: Path,
    config: Path | None,
    http: str | None,
    insecure_no_auth: bool,
    log_level: str | None,
    descriptors: str | None,
) -> None:
    """Serve the open orders, trades and events of the ledgers below DIR: an API under /api/v1 and a live page under /.

    It follows the logs by itself, beside a daemon or without one; `run` and `watch` with --http contain it. Keys come
    from `compactor key create`. Cancels need the broker's keys in the environment, as `run` has them. The API is
    described under /api. Ends within a second of SIGTERM or Ctrl-C.

    \b
    Example:
      compactor key create alpha --data data
      compactor serve data
      compactor serve data --http 127.0.0.1:8470
    """
    from compactor.ui.watching import make_logger

    found = configuration(data, config, {"http": http, "log_level": log_level})
    log = make_logger(found.settings.log_level)
    if descriptors is not None:
        _serve_for_daemon(data, found, descriptors, has_keys=not insecure_no_auth)
        return
    listener = bind_or_refuse(found.settings.http or DEFAULT_ADDRESS, insecure_no_auth)
    from compactor.web.listening import format_address
    from compactor.web.server import run_server

    log.info("http_started", address=f"http://{format_address(listener)}")
    _say_without_keys(data, insecure_no_auth)
    run_server(data, found, listener, log, has_keys=not insecure_no_auth)


def bind_or_refuse(address: str, is_insecure: bool) -> socket.socket:
    """Bind the address; what is wrong with it is a message."""
    from compactor.web.listening import bind

    refuse_insecure(address, is_insecure)
    try:
        return bind(address)
    except OSError as error:
        raise click.ClickException(
            f"--http {address}: {error.strerror or error}. Nothing was started; name another address."
        ) from None


def refuse_insecure(address: str, is_insecure: bool) -> None:
    """Refuse to open everything to other machines."""
    from compactor.web.listening import is_loopback

    if is_insecure and not is_loopback(address):
        raise click.UsageError(
            f"--insecure-no-auth: found the address {address}, expected one of this machine only, as 127.0.0.1:8470. "
            "For other machines make keys: compactor key create --help"
        )


def _serve_for_daemon(data: Path, found: Configuration, descriptors: str, *, has_keys: bool) -> None:
    import socket

    from compactor.ui.watching import make_logger
    from compactor.web.server import run_server

    listening, link = (int(one) for one in descriptors.split(","))
    run_server(
        data, found, socket.socket(fileno=listening), make_logger(found.settings.log_level),
        link=socket.socket(fileno=link), has_keys=has_keys,
    )  # fmt: skip


def _say_without_keys(data: Path, is_insecure: bool) -> None:
    from compactor.web.api_keys import KeyStore

    if not is_insecure and not KeyStore(data).list():
        say(f"There are no keys yet, so nobody sees anything: compactor key create TEAM --data {data}", err=True)


@click.group(short_help="Make, list and revoke the keys of the API.")
def key() -> None:
    """Keys of the API and the page: one opens the orders and trades of one team, an administrator's those of all.

    A key is shown once, when it is made; what is kept is a keyed hash. Whatever is changed counts at once, also for a
    server that runs.

    \b
    Example:
      compactor key create alpha --data data
      compactor key list --data data
      compactor key revoke 5b1d0c9e7a33 --data data
    """


@key.command("create", short_help="Make a key, and show it once.")
@click.argument("team", required=False)
@click.option("--admin", is_flag=True, help="For all teams, instead of TEAM.")
@click.option("--read-only", is_flag=True, help="It may look, and cancel nothing.")
@data_option
@json_option
def create_key(team: str | None, admin: bool, read_only: bool, data: Path, as_json: bool) -> None:
    """Make a key for TEAM, or with --admin for all teams. It is shown now and never again.

    \b
    Example:
      compactor key create alpha --data data
      compactor key create --admin --read-only --json --data data
    """
    from compactor.web.api_keys import KeyStore

    if (team is None) != admin:
        raise click.UsageError("expected a TEAM, or --admin for all teams; found neither or both")
    made = KeyStore(data).create(team, read_only=read_only)
    if team is not None and not _has_ledger(data, team):
        say(f"{team} has no ledger in {data} yet; the key opens it as soon as there is one.", err=True)
    if as_json:
        import msgspec

        # This is the one place that shows a key; `show_json` hides them.
        click.echo(msgspec.json.encode(made))
        return
    click.echo(made.key)
    sys.stdout.flush()
    whose = f"team {team}" if team is not None else "an administrator, for all teams"
    say(
        f"A key for {whose}{', read only' if read_only else ''}; it is not shown again. Its id is {made.key_id}.",
        err=True,
    )


@key.command("list", short_help="List the keys, without their secrets.")
@data_option
@json_option
def list_keys(data: Path, as_json: bool) -> None:
    """List the keys: their ids, what they open, and since when.

    \b
    Example:
      compactor key list --data data --json
    """
    from compactor.ui.output import columns, show_json, show_table
    from compactor.web.api_keys import KeyStore

    rows = [
        {
            "key_id": one.key_id, "team_id": one.team_id, "admin": one.is_admin, "read_only": one.read_only,
            "created_at": one.created_at,
        }
        for one in KeyStore(data).list()
    ]  # fmt: skip
    if as_json:
        show_json(rows)
    elif not show_table(columns("key_id", "team_id", "admin", "read_only", "created_at"), rows):
        say(f"There are no keys; compactor key create TEAM --data {data} makes one.", err=True)


@key.command("revoke", short_help="Revoke a key at once.")
@click.argument("key_id")
@data_option
@json_option
def revoke_key(key_id: str, data: Path, as_json: bool) -> None:
    """Revoke the key with this id (or the key itself): from now on it opens nothing, and its event streams end.

    \b
    Example:
      compactor key revoke 5b1d0c9e7a33 --data data
    """
    from compactor.ui.output import show_json
    from compactor.web.api_keys import KeyStore

    gone = KeyStore(data).revoke(key_id)
    if as_json:
        show_json([{"key_id": gone.key_id, "team_id": gone.team_id, "revoked": True}])
    else:
        say(f"{gone.key_id}: revoked")


def _has_ledger(data: Path, team: str) -> bool:
    from compactor.ledger import discover

    return any(entry.name == team for entry in discover(data))
