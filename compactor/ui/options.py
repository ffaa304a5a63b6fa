"""The arguments that commands share, and the check that a data directory is one.

The rule that surprises: a missing data directory is never made. A mistyped path would otherwise start a second, empty
book beside the real one, and nobody would notice before the money is counted.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])
VARIABLE = "COMPACTOR_DATA"


def _data_directory(_ctx: click.Context, _param: click.Parameter, value: str) -> Path:
    path = Path(value)
    if not path.exists():
        raise click.UsageError(
            f"{path}: no such directory (here: {Path.cwd()}). Expected a data directory with "
            f"team/<team_id>/events.jsonl in it. Name it as an argument or in {VARIABLE}, "
            f"or make an empty one: mkdir {path}"
        )
    if not path.is_dir():
        raise click.UsageError(
            f"{path}: found a file, expected a data directory with team/<team_id>/events.jsonl in it. "
            f"Name the directory that holds it: {path.parent}"
        )
    if not os.access(path, os.R_OK | os.X_OK):
        raise click.UsageError(f"{path}: this user may not read the directory. Try ls -ld {path}")
    return path


def data_argument(command: Command) -> Command:
    """The data directory as `[DIR]`."""
    return click.argument("data", metavar="[DIR]", envvar=VARIABLE, default="data", callback=_data_directory)(command)


def data_option(command: Command) -> Command:
    """The data directory as `--data DIR`."""
    return click.option(
        "--data",
        metavar="DIR",
        envvar=VARIABLE,
        default="data",
        callback=_data_directory,
        help=f"The data directory; default: ${VARIABLE}, else data.",
    )(command)


def team_option(help_text: str) -> Callable[[Command], Command]:
    """`--team T`."""
    return click.option("--team", metavar="TEAM", help=help_text)


def json_option(command: Command) -> Command:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")(command)


def refuse_empty(ledgers: int, data: Path, team: str | None) -> None:
    """Stop where a data directory has no ledger to work on: that is nearly always a wrong path or a mistyped team."""
    if ledgers:
        return
    if team is not None:
        raise click.UsageError(
            f"no ledger of team {team!r} in {data}: expected {data / 'team' / team / 'events.jsonl'}. "
            f"compactor status {data} lists the teams; compactor append --team {team} --data {data} starts one."
        )
    raise click.UsageError(
        f"no ledger in {data}: expected {data}/team/<team_id>/events.jsonl or {data}/events.jsonl. "
        f"Is it the right directory? compactor append --team TEAM --data {data} starts a ledger."
    )
