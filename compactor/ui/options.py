"""The arguments that commands share, the ledgers they name, and the exit codes of an interrupted command.

Note: a missing data directory is never made. A mistyped path would start a second, empty ledger beside the real one,
and nobody would notice until the money is counted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from compactor.ledger import LedgerEntry
    from compactor.settings.configuration import Configuration

Command = TypeVar("Command", bound=Callable[..., Any])
VARIABLE = "COMPACTOR_DATA"
INTERRUPTED = 130
TERMINATED = 143
STOPPED_MESSAGE = (
    "\nStopped. Nothing is lost: every ledger stands at its last commit, and the same command goes on from there."
)


class Terminated(BaseException):
    """SIGTERM came: what a service manager, a container or `kill` sends."""


def say(text: object, *, err: bool = False) -> None:
    """Print free text. What is not ours in it can neither steer a terminal nor show a private key."""
    from compactor.core.printable import printable_lines

    click.echo(printable_lines(str(text)), err=err)


def data_directory(_ctx: click.Context, _param: click.Parameter | None, value: str) -> Path:
    """A data directory, there and readable."""
    path = _present(
        value,
        "a data directory with team/<team_id>/events.jsonl in it",
        f"Name the right directory, or set {VARIABLE}, or start one: mkdir {value}",
    )
    if not path.is_dir():
        inside = f". Name the directory that holds it: {path.parent}" if path.name == "events.jsonl" else ""
        raise click.UsageError(f"{path}: found a file, expected a data directory{inside}")
    if not os.access(path, os.R_OK | os.X_OK):
        raise click.UsageError(f"{path}: this user may not read the directory. See ls -ld {path}")
    return path


def recording(_ctx: click.Context, _param: click.Parameter, value: str) -> Path:
    """What an import reads: a file or a directory, there and readable."""
    path = _present(value, "what was recorded elsewhere", "Check the path")
    if not os.access(path, os.R_OK):
        raise click.UsageError(f"{path}: this user may not read it. See ls -ld {path}")
    return path


def recording_file(ctx: click.Context, param: click.Parameter, value: str) -> Path:
    """What an import reads, where that has to be one file."""
    path = recording(ctx, param, value)
    if path.is_dir():
        raise click.UsageError(
            f"{path}: found a directory, expected a file of captured messages; import each file by itself"
        )
    return path


def _present(value: str, expected: str, advice: str) -> Path:
    """The path that was named. One that cannot be looked at, because a directory above it is closed, is not there."""
    if not value:
        raise click.UsageError(f"the path is empty, expected {expected}")
    path = Path(value)
    try:
        path.stat()
    except FileNotFoundError:
        message = f"{path}: no such file or directory (here: {Path.cwd()}), expected {expected}. {advice}"
        raise click.UsageError(message) from None
    except OSError as error:
        raise click.UsageError(f"{path}: {error.strerror}, expected {expected}") from None
    return path


class Days(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A number of days, or `forever`, which is None."""

    name = "days"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value == "forever":
            return None
        if str(value).isascii() and str(value).isdigit() and int(value) <= DAYS_MAX:
            return int(value)
        if value is None or isinstance(value, int):
            return value
        self.fail(f"expected a number of days up to {DAYS_MAX} or forever, found {value!r}", param, ctx)


DAYS = Days()

# What the daemon is told, with a link to the broker or without.
http_option = click.option(
    "--http", metavar="HOST:PORT", help="Serve the API, the page, /livez, /readyz and /metrics there."
)
retention_days_option = click.option(
    "--retention-days", metavar="DAYS", type=DAYS, help="Days that ended orders stay in memory, or forever."
)
poll_seconds_option = click.option(
    "--poll-seconds", metavar="N", type=click.IntRange(1, 10), help="Look at every log at least so often."
)
teams_option = click.option(
    "--teams", metavar="A,B,…", help="Teams that a client order id may name before they have a ledger."
)
log_level_option = click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="The least that is said."
)
DAYS_MAX = 36_500


def data_argument(command: Command) -> Command:
    """The data directory as `[DIR]`."""
    return click.argument("data", metavar="[DIR]", envvar=VARIABLE, default="data", callback=data_directory)(command)


def data_option(command: Command) -> Command:
    """The data directory as `--data DIR`."""
    return click.option(
        "--data",
        metavar="DIR",
        envvar=VARIABLE,
        default="data",
        callback=data_directory,
        help=f"The data directory; default: ${VARIABLE}, else data.",
    )(command)


def config_option(command: Command) -> Command:
    """`--config FILE`."""
    return click.option(
        "--config",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="The settings; default: $COMPACTOR_CONFIG, else compactor.toml in the data directory.",
    )(command)


def configuration(data: Path, config: Path | None, given: Mapping[str, object]) -> Configuration:
    """The configuration in force. What is wrong with it is wrong usage."""
    from compactor.settings.configuration import BadConfiguration, load

    try:
        return load(data, config=config, environ=os.environ, given=given)
    except BadConfiguration as error:
        raise click.UsageError("\n".join(error.problems)) from None


def from_here(file: str | None) -> str | None:
    """A file named on the command line, which is seen from where the command runs, and not from the data directory."""
    return os.path.abspath(file) if file else file


def team_option(help_text: str) -> Callable[[Command], Command]:
    """`--team T`."""
    return click.option("--team", metavar="TEAM", help=help_text)


def json_option(command: Command) -> Command:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")(command)


def find_ledgers(data: Path, team: str | None) -> list[LedgerEntry]:
    """The ledgers of a data directory that have a log or a problem; one at least."""
    from compactor.ledger import discover
    from compactor.ledger.paths import LOG

    entries = [entry for entry in discover(data, team) if entry.problem is not None or (entry.path / LOG).exists()]
    refuse_empty(len(entries), data, team)
    return entries


def find_one_ledger(data: Path, team: str | None) -> LedgerEntry:
    """The one ledger that is meant, in good order."""
    entries = find_ledgers(data, team)
    refuse_several(entries, data, "found")
    if entries[0].problem is not None:
        raise click.ClickException(f"{entries[0].path}: {entries[0].problem}")
    return entries[0]


def refuse_several(entries: list[LedgerEntry], data: Path, why: str) -> None:
    """Stop where one ledger is needed and there are several."""
    if len(entries) > 1:
        names = ", ".join(entry.name for entry in entries[:5])
        message = f"{why} {len(entries)} ledgers in {data} ({names}), expected one: name it with --team"
        raise click.UsageError(message)


def name_old_files(data: Path) -> str:
    """Say which directories have files of the old layout, and what to run; empty where none has."""
    from compactor.imports.legacy import find_old_directories

    found = [str(path) for path in find_old_directories(data)]
    if not found:
        return ""
    listed = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
    return f"Found files of the old layout in {listed}. Import them: compactor import legacy {data} --data {data}"


def refuse_empty(ledgers: int, data: Path, team: str | None) -> None:
    """Stop where a data directory has no ledger to work on: that is nearly always a wrong path or a mistyped team."""
    if ledgers:
        return
    if team is not None:
        raise click.UsageError(
            f"no ledger of team {team!r} in {data}: expected {data / 'team' / team / 'events.jsonl'}. "
            f"compactor status {data} lists the teams; compactor append --team {team} --data {data} starts one."
        )
    if old := name_old_files(data):
        raise click.UsageError(f"no ledger in {data}. {old}")
    above = data.absolute().parent
    if data.absolute().name == "team":
        raise click.UsageError(f"no ledger in {data}, which looks like the inside of a data directory: name {above}")
    raise click.UsageError(
        f"no ledger in {data}: expected {data}/team/<team_id>/events.jsonl or {data}/events.jsonl. "
        "Is it the right directory? "
        f"compactor append --team TEAM --data {data} starts a ledger."
    )
