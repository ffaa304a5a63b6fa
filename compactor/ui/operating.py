"""The commands for operators: `config`, `doctor`, `systemd`, which change no ledger, and `backup` and `restore`."""

from __future__ import annotations

import getpass
import os
import re
import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import click

from compactor.ui.commands import exit_named
from compactor.ui.options import (
    VARIABLE,
    config_option,
    configuration,
    data_argument,
    data_directory,
    json_option,
    refuse_empty,
    team_option,
)

if TYPE_CHECKING:
    from compactor.books.backup import CopiedLedger
    from compactor.settings.accounts import AccountSettings
    from compactor.settings.configuration import Configuration


@click.command(short_help="Show the settings in force, and where each came from.")
@data_argument
@config_option
@json_option
def config(data: Path, config: Path | None, as_json: bool) -> None:
    """Show the settings in force and where each came from.

    Defaults, then compactor.toml in DIR (or --config FILE), then the environment (COMPACTOR_SEGMENT_BYTES=…), then the
    command line: later ones win. An unknown key or a wrong value is an error that names it.

    \b
    Example:
      compactor config data
    """
    from compactor.ui.output import columns, show_json, show_table

    found = configuration(data, config, {})
    rows = [
        {"setting": name, "value": getattr(found.settings, name), "origin": found.origins[name]}
        for name in found.settings.__struct_fields__
    ]
    if as_json:
        show_json(rows)
    else:
        accounts = [
            {"setting": f"accounts.{one.name}", "value": _format_account(one), "origin": found.origins["accounts"]}
            for one in found.settings.accounts
        ]
        rows = [row for row in rows if row["setting"] != "accounts" or not accounts] + accounts
        show_table(
            columns("setting", "value", "origin"), ({**row, "value": _format_value(row["value"])} for row in rows)
        )


def _format_account(one: AccountSettings) -> str:
    """Format an account as one line, with the names of the variables that hold its keys, never their values."""
    keys = f"keys in {one.key_variable} and {one.secret_variable}" if one.key_variable else "keys of the environment"
    more = [f"team {one.team}" if one.team else "", f"at {one.url}" if one.url else "", *one.patterns]
    return ", ".join([keys, "REAL MONEY" if one.live else "paper", *filter(None, more)])


def _format_value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None or value == () else str(value)


@click.command(short_help="Check whether this machine keeps what the ledger counts on.")
@data_argument
@json_option
@click.option("--broker", "with_broker", is_flag=True, help="Check how the accounts at the broker behave, instead.")
@click.option(
    "--record",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="With --broker: write the answers there, redacted.",
)
@config_option
def doctor(data: Path, as_json: bool, with_broker: bool, record: Path | None, config: Path | None) -> None:
    """Check this machine: file system, locks, rename, hole punching, inotify limits, space, rights, key file, clock.

    With --broker, check each account, read-only: which endpoints it has, whether held legs are listed, what ids look
    like, clock, rate limit, permissions. Each is as expected, or different and what follows, or could not be told.
    --record writes the answers to FILE, with every id, amount, time and key replaced, to be sent to somebody who helps.

    What matters is tried, on a small file in DIR/.compactor that is removed again; no ledger is changed. Exit code 1
    when a check failed, or the broker does not tell the account; 4 when it refuses the keys. Warnings are no failure.

    \b
    Example:
      compactor doctor data
      compactor doctor data --broker --record answers.json
    """
    found = configuration(data, config, {})
    if with_broker:
        _examine_broker(found, record, as_json)
        return
    if record is not None:
        raise click.UsageError("--record goes with --broker")
    from compactor.books.doctor import examine
    from compactor.ui.output import columns, show_json, show_table

    key = found.settings.signing_key
    done = examine(data, data / key if key is not None else None)
    rows = [{name: getattr(one, name) for name in one.__struct_fields__} for one in done]
    if as_json:
        show_json(rows)
    else:
        show_table(
            columns("check", "result", "found", "advice"), ({**row, "advice": row["advice"] or ""} for row in rows)
        )
    if any(one.result == "fail" for one in done):
        raise click.exceptions.Exit(1)


def _examine_broker(found: Configuration, record: Path | None, as_json: bool) -> None:
    from msgspec.json import encode, format

    from compactor.broker.adapters import open_broker
    from compactor.broker.credentials import BadCredentials
    from compactor.ui.options import say
    from compactor.ui.output import columns, show_json, show_table
    from compactor.ui.running import BAD_CREDENTIALS, resolve_accounts

    rows, answers, exit_code = [], [], 0
    for account in resolve_accounts(found):
        try:
            for one in open_broker(account.credentials).examine(found.settings.requests_per_minute):
                row = {"account": account.name, "check": one.check, "verdict": one.verdict, "found": one.found}
                rows.append({**row, "follows": account.credentials.hide(one.follows)})
                answers.append({"check": one.check, "verdict": one.verdict, "answers": one.evidence})
                if one.check == "permissions" and one.verdict == "could not tell":
                    exit_code = exit_code or 1
        except BadCredentials as error:
            say(f"account {account.name}: {error}", err=True)
            exit_code = BAD_CREDENTIALS
    if record is not None:
        record.write_bytes(format(encode(answers), indent=2) + b"\n")
    if as_json:
        show_json(rows)
    else:
        show_table(columns("account", "check", "verdict", "found", "follows"), rows)
    if exit_code:
        raise click.exceptions.Exit(exit_code)


_LOOPBACK_ONLY = "# It needs no other machine.\nIPAddressDeny=any\nIPAddressAllow=localhost"
_ANY_ADDRESS = "# The addresses of the broker change, so that none is denied."


def _check_memory(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    """Check a size as systemd takes it."""
    if re.fullmatch(r"infinity|[1-9]\d*[KMGT]?|[1-9]\d?%", value) is None:
        raise click.BadParameter(f"found {value!r}, expected a size such as 2G, a share such as 80%, or infinity")
    return value


@click.command(short_help="Print a systemd unit for the daemon.")
@data_argument
@click.option("--user", metavar="NAME", help="The user that it runs as; default: yours.")
@click.option("--run", "with_broker", is_flag=True, help="Run `compactor run`, with the link to the broker.")
@click.option(
    "--memory-max", metavar="SIZE", default="infinity", callback=_check_memory, help="Memory it may use, as 2G or 80%."
)
@config_option
def systemd(data: Path, user: str | None, with_broker: bool, memory_max: str, config: Path | None) -> None:
    """Print a systemd unit that runs `compactor watch` on DIR, confined to what it needs.

    It may write DIR and, where compactor.toml names a witness, the directory of that. Without --run it reaches no other
    machine. With --run it is `compactor run`, whose keys then stand in /etc/compactor.env, readable by root alone.

    The Grafana dashboard and the Prometheus alert rules lie beside the unit, in the package's folder `deploy`.

    \b
    Example:
      compactor systemd data --user trader | sudo tee /etc/systemd/system/compactor.service
      sudo systemctl enable --now compactor
    """
    from compactor.core.printable import printable_lines

    unit = (files("compactor") / "deploy" / "compactor.service").read_text()
    witness = configuration(data, config, {}).settings.witness
    # A directory that is not there, as a disk that is not mounted, stops no start: only witnessing fails then.
    writable = [str(data.absolute()), *([f"-{(data.absolute() / witness).parent}"] if witness is not None else [])]
    filled = {
        "@USER@": user or getpass.getuser(),
        "@DATA@": str(data.absolute()),
        "@PYTHON@": sys.executable,
        "@COMMAND@": "run" if with_broker else "watch",
        "@MEMORY_MAX@": memory_max,
        "@WRITABLE@": " ".join(f'"{path}"' for path in writable),
        "@NETWORK@": _ANY_ADDRESS if with_broker else _LOOPBACK_ONLY,
    }
    for name, value in filled.items():
        unit = unit.replace(name, value.replace("%", "%%") if name != "@MEMORY_MAX@" else value)
    if config is not None:
        unit = unit.replace(
            f' "{data.absolute()}" --http', f' "{data.absolute()}" --config "{config.absolute()}" --http'
        )
    click.echo(printable_lines(unit), nl=False)


@click.command(short_help="Copy logs and segments, beside writers and daemon.")
@click.argument("paths", metavar="[DIR] TO", nargs=-1, required=True)
@team_option("Back up this team's ledger only.")
@json_option
def backup(paths: tuple[str, ...], team: str | None, as_json: bool) -> None:
    """Bring the backup in TO up to date with the ledgers of DIR; TO is made if it is not there.

    DIR is the data directory; default: $COMPACTOR_DATA, else data.

    Copied is what cannot be derived: logs, segments and signed heads. Nobody has to stop for it, neither writers nor
    the daemon nor sealing. A further run copies what is new. TO is a data directory like any other.

    \b
    Example:
      compactor backup data /mnt/backup/data
    """
    from compactor.books.backup import back_up

    if len(paths) > 2:
        raise click.UsageError(f"expected [DIR] TO, found {len(paths)} paths")
    named = paths[0] if len(paths) == 2 else os.environ.get(VARIABLE) or "data"
    data, target = data_directory(click.get_current_context(), None, named), Path(paths[-1])
    target.mkdir(parents=True, exist_ok=True)
    _finish(back_up(data, target, team=team), data, team, as_json, "could not be backed up")


@click.command(short_help="Bring ledgers back out of a backup, and verify them.")
@click.argument("source", metavar="FROM", callback=data_directory)
@data_argument
@team_option("Restore this team's ledger only.")
@json_option
def restore(source: Path, data: Path, team: str | None, as_json: bool) -> None:
    """Copy the ledgers of the backup FROM into the data directory DIR, derive their files, and verify them.

    FROM may be any copy of a data directory. A ledger that DIR has already is refused, and stays as it is.

    \b
    Example:
      mkdir data; compactor restore /mnt/backup/data data
    """
    from compactor.books.backup import restore as restore_all

    done = restore_all(source, data, team=team)
    _finish([_prove(one, data) for one in done], source, team, as_json, "could not be restored")


def _prove(copied: CopiedLedger, data: Path) -> CopiedLedger:
    """Derive the files of a restored ledger, and compare all of them with the log."""
    import msgspec

    from compactor.books.compact import compact_all
    from compactor.books.failures import Failure
    from compactor.verify.run import verify_all

    if copied.error is not None:
        return copied
    team = None if Path(copied.path) == data else copied.team_id
    error = next((one.error for one in compact_all(data, team=team, workers=1, checkpoint=True) if one.error), None)
    if error is None:
        verdicts = verify_all(data, team=team, workers=1).verdicts
        found = [one for verdict in verdicts for one in verdict.differences]
        error = next((verdict.error for verdict in verdicts if verdict.error), None)
        if found:
            first = f"{found[0].kind} in {found[0].file}"
            message = f"{copied.path}: restored, and verify found {first}, {len(found)} differences in all"
            error = Failure("verify_failed", message)
    return msgspec.structs.replace(copied, error=error)


def _finish(done: list[CopiedLedger], data: Path, team: str | None, as_json: bool, what: str) -> None:
    from compactor.ui.output import ShownColumn, show_json, show_table

    refuse_empty(sum(one.error is None or one.error.kind != "no_ledger" for one in done), data, team)
    if as_json:
        show_json(done)
    else:
        numbers = ("log_bytes", "new_log_bytes", "segments", "new_segments")
        columns = [ShownColumn(name, name.replace("_", " "), number=True) for name in numbers]
        rows = ({name: getattr(one, name) for name in ("team_id", *numbers)} for one in done if one.error is None)
        show_table([ShownColumn("team_id", "team"), *columns], rows)
    failed = [(one.team_id, one.error) for one in done if one.error is not None]
    exit_named(failed, len(done), what)
