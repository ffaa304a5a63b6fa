"""The commands of tables: `export` writes one to a file or a pipe, `sql` queries all of them.

`compactor.tables` defines the tables and keeps every value exact.

Note: a ledger that cannot be read, or holds a value that no type holds, is left out, named, and makes the exit code 1.
Where it is the only one, nothing is written.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from compactor.ui.options import (
    INTERRUPTED,
    STOPPED_MESSAGE,
    TERMINATED,
    Terminated,
    data_option,
    find_ledgers,
    json_option,
    say,
    team_option,
)

if TYPE_CHECKING:
    from compactor.tables.export import Output
    from compactor.tables.query import QueryResult
    from compactor.tables.rows import Window

_WHAT = {"trades": "trades", "pending": "pending_orders", "events": "events", "findings": "findings"}
_FORMATS = ("jsonl", "csv", "parquet")
_text_option = click.option(
    "--text", metavar="COLUMN", multiple=True, help="Leave this column as text; may be given several times, or be all."
)


_exact_option = click.option(
    "--exact", is_flag=True, help="CSV as it is, for programs; without it no cell can be a formula of a spreadsheet."
)


@click.command(short_help="Write trades, open orders, events or findings as a table.")
@click.argument("what", type=click.Choice(list(_WHAT)))
@click.option("--format", "format_", type=click.Choice(_FORMATS), help="Default: as the name of FILE ends, else jsonl.")
@team_option("Export this team's only.")
@click.option("--since", metavar="TIME", help="Only what happened at this time or later.")
@click.option("--until", metavar="TIME", help="Only what happened before this time.")
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), help="Default: standard output.")
@_text_option
@_exact_option
@json_option
@data_option
def export(
    what: str,
    format_: str | None,
    as_json: bool,
    team: str | None,
    since: str | None,
    until: str | None,
    out: Path | None,
    text: tuple[str, ...],
    exact: bool,
    data: Path,
) -> None:
    """Write trades, open orders, events or findings of all teams as JSON lines, CSV or Parquet.

    Events are those of the whole log, sealed or not; the others are as of the last compact. JSON lines and CSV have
    numbers and times as they came; Parquet has exact decimals and nanoseconds, and needs the extra `tables`. Rows are
    streamed. FILE is whole, or as it was before. A TIME is RFC 3339 or a day (2026-03-02, in UTC).

    \b
    Example:
      compactor export trades --out trades.parquet
      compactor export events --team alice --since 2026-03-02 --until 2026-03-03 --format csv
    """
    from compactor.tables.arrow import MissingPackage, Unfit
    from compactor.tables.export import BadTarget, write_table
    from compactor.tables.rows import LeftOut, TableSource
    from compactor.tables.schema import TABLES
    from compactor.ui.output import progress_bar

    if as_json and format_ not in (None, "jsonl"):
        raise click.UsageError(f"--json and --format {format_} exclude each other")
    table, format_ = TABLES[_WHAT[what]], "jsonl" if as_json else format_ or _choose_format(out)
    entries = find_ledgers(data, team)
    kept = _columns(text, table.names)
    window = _window(since, until)
    if format_ == "parquet" and out is None and sys.stdout.isatty():
        raise click.UsageError("Parquet is not for a terminal: name a file with --out, or use a pipe")
    try:
        # Rows and a bar on one terminal would write over each other.
        shown = nullcontext() if out is None and sys.stdout.isatty() else progress_bar("Exporting")
        with shown as progress, _opened(out, format_) as stream:
            source = TableSource(table, entries, window, progress, LeftOut())
            write_table(source, format_, stream, kept, exact=exact)
    except BadTarget as error:
        raise click.UsageError(str(error)) from None
    except (MissingPackage, Unfit) as error:
        raise click.ClickException(str(error)) from None
    assert source.left_out is not None
    _name_left_out([(entry.name, reason) for entry, reason in source.left_out.reasons.items()], len(entries))


def _name_left_out(left_out: Sequence[tuple[str, str]], of: int) -> None:
    """Name the ledgers whose rows are missing, and leave with 1."""
    if not left_out:
        return
    sys.stdout.flush()
    for team, reason in left_out:
        say(f"{team}: left out: {reason}", err=True)
    teams = len({team for team, _ in left_out})
    say(f"{teams} of {of} ledgers were left out; the others are not affected.", err=True)
    raise click.exceptions.Exit(1)


def _choose_format(out: Path | None) -> str:
    ending = out.suffix[1:].lower() if out is not None else "jsonl"
    if ending not in _FORMATS:
        raise click.UsageError(f"{out}: the name tells no format, expected --format {'|'.join(_FORMATS)}")
    return ending


@contextmanager
def _opened(out: Path | None, format_: str) -> Iterator[Output]:
    from compactor.tables.arrow import require_package
    from compactor.tables.export import whole_file
    from compactor.ui.output import open_output

    if format_ == "parquet":
        require_package("pyarrow", "--format parquet")
    if out is None:
        yield open_output()
        return
    with whole_file(out) as file:
        yield file


def _columns(text: tuple[str, ...], names: Iterable[str]) -> frozenset[str]:
    from compactor.tables.arrow import ALL_COLUMNS

    known = sorted({*names})
    for name in text:
        if name not in known and name != ALL_COLUMNS:
            raise click.UsageError(f"--text {name}: no such column, expected all or one of {', '.join(known)}")
    return frozenset(text)


def _window(since: str | None, until: str | None) -> Window:
    from compactor.core.instants import BadInstant
    from compactor.tables.rows import window

    try:
        found = window(since, until)
    except BadInstant as error:
        raise click.UsageError(str(error)) from None
    if found.since is not None and found.until is not None and found.until < found.since:
        raise click.UsageError(f"--until {until} lies before --since {since}, expected a time that does not")
    return found


@click.command(short_help="Ask trades, open orders, events and findings in SQL.")
@click.argument("query")
@team_option("This team's rows only.")
@json_option
@click.option("--format", "format_", type=click.Choice(["table", "jsonl", "csv"]), help="Default: table.")
@_text_option
@_exact_option
@data_option
def sql(
    query: str, team: str | None, as_json: bool, format_: str | None, text: tuple[str, ...], exact: bool, data: Path
) -> None:  # fmt: skip
    """Ask the tables trades, pending_orders, events and findings of all teams in the SQL of DuckDB.

    Prices and quantities are DECIMAL, times keep their nanoseconds and are in UTC, only whole lines are seen, and
    nothing can be changed: one statement that reads. Needs the extra `tables`. `show tables` and `describe trades` say
    what there is.

    \b
    Example:
      compactor sql "select symbol, sum(quantity * execution_price) from trades group by symbol"
      compactor sql "select * from pending_orders where symbol = 'SPY'" --json
    """
    from compactor.tables.arrow import MissingPackage, Unfit
    from compactor.tables.query import BadQuery, QueryFailed, run_query
    from compactor.tables.schema import TABLES
    from compactor.ui.output import progress_bar

    if as_json and format_ not in (None, "jsonl"):
        raise click.UsageError(f"--json and --format {format_} exclude each other")
    kept = _columns(text, (name for table in TABLES.values() for name in table.names))
    entries = find_ledgers(data, team)
    try:
        with (
            _ended_at_once(),
            progress_bar("Reading") as progress,
            run_query(query, entries, kept, progress) as result,
        ):
            _show(result, "jsonl" if as_json else format_ or "table", exact)
            left_out = result.left_out
    except BadQuery as error:
        raise click.UsageError(str(error)) from None
    except (MissingPackage, QueryFailed, Unfit) as error:
        raise click.ClickException(str(error)) from None
    _name_left_out(left_out, len(entries))


@contextmanager
def _ended_at_once() -> Iterator[None]:
    """Let a signal end the program although DuckDB is in the middle of a step, which it does not leave before its
    end."""
    from compactor.tables.query import is_still_running

    try:
        yield
    except (KeyboardInterrupt, Terminated) as stop:
        if not is_still_running():
            raise
        click.echo(STOPPED_MESSAGE, err=True)
        sys.stdout.flush()
        os._exit(TERMINATED if isinstance(stop, Terminated) else INTERRUPTED)


def _show(result: QueryResult, format_: str, exact: bool) -> None:
    import csv
    import io

    from compactor.core.printable import printable
    from compactor.tables.export import spreadsheet_safe
    from compactor.ui.output import ShownColumn, open_output, show_json, show_table

    if format_ == "csv":
        output, line = open_output(), io.StringIO()
        writer = csv.writer(line, lineterminator="\n")
        for row in chain([result.names], result.rows):
            writer.writerow(row if exact else map(spreadsheet_safe, row))
            output.write(line.getvalue().encode(errors="backslashreplace"))
            line.seek(0)
            line.truncate()
        return
    rows = (dict(zip(result.names, row, strict=True)) for row in result.rows)
    if format_ == "jsonl":
        show_json(rows)
    elif not show_table([ShownColumn(name, printable(name), name in result.numbers) for name in result.names], rows):
        say("No rows.", err=True)
