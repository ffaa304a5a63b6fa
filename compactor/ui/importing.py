"""The import commands, for old files and captured Alpaca messages, and the comparison with an old program's files."""

from __future__ import annotations

import sys
from collections import Counter
from datetime import UTC, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compactor.ui.commands import exit_named
from compactor.ui.options import (
    configuration,
    data_option,
    json_option,
    recording,
    recording_file,
    say,
    team_option,
    teams_option,
)

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
@click.option("--rewritten", is_flag=True, help="The old program keeps only open orders in pending_orders.jsonl.")
@json_option
def legacy(path: Path, data: Path, rewritten: bool, as_json: bool) -> None:
    """Import the old layout: team/*/pending_orders.jsonl with the orders as they then were, trades.jsonl beside it.

    PATH is one such file, one team's directory, or the directory that holds team/. Trades of an old trades.jsonl do not
    come out twice. With --rewritten, orders that are no longer in the file and have no trade get the status `vanished`.

    \b
    Example:
      compactor import legacy old-data --data data
    """
    from compactor.imports.legacy import describe_expected, find_old_files, import_legacy
    from compactor.ui.output import progress_bar

    if not find_old_files(path, data):
        raise click.ClickException(f"Nothing to import: expected {describe_expected(path)}.")
    with progress_bar("Importing") as progress:
        result = import_legacy(path, data, rewritten=rewritten, progress=progress)
    _show_imported(result, as_json, "found no line in the old files.")


class Zone(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A time zone by its name, such as UTC or America/New_York."""

    name = "zone"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tzinfo:
        from zoneinfo import ZoneInfo

        try:
            return UTC if value == "UTC" else ZoneInfo(str(value))
        except (ValueError, OSError, LookupError):
            self.fail(f"found {value!r}, expected a time zone such as UTC or America/New_York", param, ctx)


@import_.command(short_help="Import captured Alpaca messages.")
@click.argument("file", metavar="FILE", callback=recording_file)
@data_option
@team_option("The team whose account the messages come from.")
@teams_option
@click.option("--timezone", "zone", metavar="ZONE", type=Zone(), help="The zone of times without an offset.")
@json_option
def alpaca(file: Path, data: Path, team: str | None, teams: str | None, zone: tzinfo | None, as_json: bool) -> None:
    """Import captured Alpaca messages.

    Trade-update frames as they come from the stream, bare trade updates, order objects as REST returns them, answers to
    DELETE requests, FILL activities, and captures of server-sent events may be mixed in one file, one value per line or
    pretty-printed, plain or compressed with gzip or zstd.

    \b
    Example:
      compactor import alpaca captured.jsonl --team alice
      compactor import alpaca orders.json.gz --timezone America/New_York
    """
    from compactor.imports.captures import BadRecording, import_alpaca
    from compactor.ui.output import progress_bar

    known = configuration(data, None, {"teams": teams}).settings.teams
    try:
        with progress_bar("Importing") as progress:
            result = import_alpaca(file, data, team=team, teams=known, zone=zone, progress=progress)
    except BadRecording as error:
        raise click.ClickException(str(error)) from None
    _show_imported(result, as_json, f"found no message about an order in {file}.")


@click.command(short_help="Compare an old program's files with the ledgers.")
@click.argument("path", metavar="OLD_DIR", callback=recording)
@data_option
@json_option
def compare(path: Path, data: Path, as_json: bool) -> None:
    """Compare the files of an old program with the ledgers that are kept beside it, in a parallel run.

    Compared are the open orders with their terms, and what is filled of every order. OLD_DIR is as for import legacy;
    the ledgers are as of their last compaction, and nothing is changed. Exit code 1 where anything differs, also where
    an old line cannot be read; 2 where OLD_DIR holds no old files.

    \b
    Example:
      compactor compare old-data --data data
    """
    from compactor.imports.parallel_run import NoOldFiles, compare_old_files
    from compactor.ui.output import columns, show_json, show_table

    try:
        differences = [one._asdict() for one in compare_old_files(path, data)]
    except NoOldFiles as error:
        raise click.UsageError(str(error)) from None
    if as_json:
        show_json(differences)
    else:
        show_table(columns("team_id", "order_id", "field", "old", "ledger"), differences)
        click.echo(f"{len(differences)} differences" if differences else "no difference", err=True)
    if differences:
        raise click.exceptions.Exit(1)


def _show_imported(result: ImportResult, as_json: bool, nothing: str) -> None:
    """Show what each team received. Lines that could not be translated are named, and are no failure."""
    from compactor.ui.output import ShownColumn, name_lines, show_json, show_table

    if as_json:
        show_json(_plain(team) for team in result.teams)
    else:
        counted = ("lines_read", "events_appended", "duplicates", "problems", "open_orders", "trades")
        shown = [ShownColumn(name, name.replace("_", " "), number=True) for name in counted]
        if not show_table([ShownColumn("team_id", "team"), *shown], map(_row, result.teams)):
            say(f"Nothing to import: {nothing}", err=True)
        sys.stdout.flush()
        name_lines([problem for team in result.teams for problem in team.problems])
    _name_not_fills(result)
    _name_vanished(result)
    if result.moved:
        found = ", ".join(sorted(set(result.moved.values())))
        say(f"{len(result.moved)} orders moved from unassigned to {found}.", err=True)
    failed = [(team.team_id, team.error) for team in result.teams if team.error]
    exit_named(failed, len(result.teams), "could not be imported into")
    _refuse_foreign(result)


def _name_not_fills(result: ImportResult) -> None:
    """Say once which activities are not in the trades, and what that means for positions."""
    counts = Counter[str]()
    for team in result.teams:
        counts.update(team.not_fills)
    if counts:
        listed = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
        say(
            f"Not imported, because they are not fills of orders: {listed}. Fees, dividends, exercises, assignments, "
            "expirations and splits change cash and positions, but are not in trades.jsonl; see tables.md.",
            err=True,
        )


def _name_vanished(result: ImportResult) -> None:
    """Name the orders whose end nobody has recorded, and say how to learn it."""
    for team in result.teams:
        if team.vanished:
            listed = ", ".join(team.vanished[:20]) + (", ..." if len(team.vanished) > 20 else "")
            say(
                f"{team.team_id}: {len(team.vanished)} open orders are no longer in the old file and have no trade: "
                f"{listed}. They stay open with the status `vanished`. Ask the broker: compactor reconcile",
                err=True,
            )


def _refuse_foreign(result: ImportResult) -> None:
    """Refuse a recording of which nothing was imported: it is the wrong file, or another team's."""
    useful = sum(team.events_appended + team.duplicates + sum(team.not_fills.values()) for team in result.teams)
    kinds = {one.kind for team in result.teams for one in team.problems}
    if useful or not kinds:
        return
    if kinds == {"contested"}:
        raise click.ClickException("no line of it was imported: its orders are other teams'. See the problems above.")
    raise click.ClickException("no line of it could be imported. Is it the right file, and the right import?")


def _row(team: TeamImport) -> dict[str, Any]:
    """Make a row of one team's result: what it received, and what its ledger now holds."""
    done = team.compaction
    held = {"open_orders": done.open_orders, "trades": done.trades} if done else {}
    return {**_plain(team), "problems": len(team.problems), **held}


def _plain(team: TeamImport) -> dict[str, Any]:
    """Make an object of one team's result, without absent fields and without the trace of a bug."""
    from msgspec import to_builtins

    row = {name: value for name, value in to_builtins(team).items() if value is not None}
    for name in ("not_fills", "vanished"):
        if not row[name]:
            del row[name]
    if team.error:
        row["error"] = {"kind": team.error.kind, "message": team.error.message}
    return row
