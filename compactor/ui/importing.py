"""The commands that bring in what was recorded elsewhere: old files, and captured Alpaca messages."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compactor.ui.commands import exit_named
from compactor.ui.options import data_option, json_option, recording, recording_file, team_option

if TYPE_CHECKING:
    from compactor.imports.writer import ImportResult, TeamImport


@click.group("import", short_help="Bring in what was recorded elsewhere.")
def import_() -> None:
    """Translate other recordings into events and append them. Importing the same again adds nothing.

    \b
    Example:
      compactor import alpaca captured.jsonl --team alice
      compactor import legacy old-data
    """


@import_.command(short_help="Import files of the old layout.")
@click.argument("path", metavar="PATH", callback=recording)
@data_option
@json_option
def legacy(path: Path, data: Path, as_json: bool) -> None:
    """Import the old layout: team/*/pending_orders.jsonl with the orders as they then were, trades.jsonl beside it.

    PATH is one such file, one team's directory, or the directory that holds team/. Trades of an old trades.jsonl do not
    come out twice.

    \b
    Example:
      compactor import legacy old-data --data data
    """
    from compactor.imports.legacy import import_legacy
    from compactor.ui.output import progress_bar

    with progress_bar("Importing") as progress:
        result = import_legacy(path, data, progress=progress)
    _show_imported(result, as_json, f"expected {path}/team/<team_id>/pending_orders.jsonl, or such a file itself.")


@import_.command(short_help="Import captured Alpaca messages.")
@click.argument("file", metavar="FILE", callback=recording_file)
@data_option
@team_option("The team whose account the messages come from.")
@json_option
def alpaca(file: Path, data: Path, team: str | None, as_json: bool) -> None:
    """Import captured Alpaca messages, one JSON value per line.

    Trade-update frames as they come from the stream, bare trade updates, order objects as REST returns them, and FILL
    activities may be mixed in one file.

    \b
    Example:
      compactor import alpaca captured.jsonl --team alice
    """
    from compactor.imports.captures import import_alpaca
    from compactor.ui.output import progress_bar

    with progress_bar("Importing") as progress:
        result = import_alpaca(file, data, team=team, progress=progress)
    _show_imported(result, as_json, f"found no message about an order in {file}.")


def _show_imported(result: ImportResult, as_json: bool, nothing: str) -> None:
    """Show what each team got; lines that could not be translated are named and are no failure of the rest."""
    from compactor.ui.output import ShownColumn, name_lines, show_json, show_table

    if as_json:
        show_json(_plain(team) for team in result.teams)
    else:
        counted = ("lines_read", "events_appended", "duplicates", "problems", "open_orders", "trades")
        shown = [ShownColumn(name, name.replace("_", " "), number=True) for name in counted]
        if not show_table([ShownColumn("team_id", "team"), *shown], map(_row, result.teams)):
            click.echo(f"Nothing to import: {nothing}", err=True)
        sys.stdout.flush()
        name_lines([problem for team in result.teams for problem in team.problems])
    failed = [(team.team_id, team.error) for team in result.teams if team.error]
    exit_named(failed, len(result.teams), "could not be imported into")
    _refuse_foreign(result)


def _refuse_foreign(result: ImportResult) -> None:
    """A recording in which no line means anything is a wrong file, not a poor one."""
    useful = sum(team.events_appended + team.duplicates for team in result.teams)
    if not useful and any(team.problems for team in result.teams):
        raise click.ClickException("no line of it could be imported. Is it the right file, and the right import?")


def _row(team: TeamImport) -> dict[str, Any]:
    """One team's result as a row: what it got, and what its ledger now holds."""
    done = team.compaction
    held = {"open_orders": done.open_orders, "trades": done.trades} if done else {}
    return {**_plain(team), "problems": len(team.problems), **held}


def _plain(team: TeamImport) -> dict[str, Any]:
    """One team's result as an object: what is not there is left out, as is what only helps to find a bug."""
    from msgspec import to_builtins

    row = {name: value for name, value in to_builtins(team).items() if value is not None}
    if team.error:
        row["error"] = {"kind": team.error.kind, "message": team.error.message}
    return row
