"""The daily commands: compact, append, show, status.

Each parses its arguments, calls one function, shows the result and sets the exit code. Imports stand inside the
commands, so `--help` does not wait for what it does not need.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compactor.ui.options import (
    DAYS,
    data_argument,
    data_option,
    json_option,
    name_old_files,
    refuse_empty,
    say,
    team_option,
)

if TYPE_CHECKING:
    from compactor.books.append import AppendResult
    from compactor.books.compact import Outcome
    from compactor.daemon.presence import AccountReport, DaemonReport
    from compactor.proofs.heads import HeadAlarm
    from compactor.sync.state import AccountReconciled


@click.command(short_help="Fold what is new in every log.")
@data_argument
@team_option("Compact this team's ledger only.")
@click.option("--workers", metavar="N", type=click.IntRange(min=1), help="Processes at once; default: one a processor.")
@click.option("--checkpoint", is_flag=True, hidden=True, help="Leave a checkpoint, however little is new.")
@click.option("--retention-days", type=DAYS, hidden=True, default=7, help="As in compactor.toml.")
@json_option
def compact(
    data: Path, team: str | None, workers: int | None, checkpoint: bool, retention_days: int | None, as_json: bool
) -> None:
    """Fold what is new in every log into pending orders, trades and findings.

    DIR is the data directory; default: $COMPACTOR_DATA, else data. A pass costs what the new bytes cost, may be
    stopped and repeated at any time, and never makes a trade twice. A ledger that cannot be compacted is named on
    stderr and stops no other.

    \b
    Example:
      compactor compact data
      compactor compact data --team alice --json
    """
    from compactor.books.compact import compact_all
    from compactor.ui.output import progress_bar

    with progress_bar("Compacting") as progress:
        outcomes = compact_all(
            data, team=team, workers=workers, progress=progress, retention_days=retention_days, checkpoint=checkpoint
        )
    refuse_empty(_present(outcomes), data, team)
    _show_outcomes(outcomes, as_json)
    for outcome in outcomes:
        for name in outcome.compaction.set_aside if outcome.compaction else ():
            click.echo(f"{outcome.team_id}: derived anew by new rules; {name} is what the old ones gave", err=True)
    failed = [(outcome.team_id, outcome.error) for outcome in outcomes if outcome.error]
    for outcome in outcomes:
        if outcome.compaction is not None and outcome.compaction.moved:
            say(f"{outcome.team_id}: log_moved: the log is another file with the same bytes, all compared", err=True)
    if old := name_old_files(data):
        say(old, err=True)
    exit_named(failed, len(outcomes), "could not be compacted")


def _show_outcomes(outcomes: list[Outcome], as_json: bool) -> None:
    from compactor.ui.output import ShownColumn, show_json, show_table

    if as_json:
        show_json(_flat(outcome.team_id, outcome.path, outcome.compaction, outcome.error) for outcome in outcomes)
        return
    numbers = ("events", "open_orders", "trades", "findings", "bytes", "time")
    shown = [
        ShownColumn("team_id", "team"),
        *(ShownColumn(field, field.replace("_", " "), number=True) for field in numbers),
    ]
    rows = (
        _flat(outcome.team_id, outcome.path, outcome.compaction, None) for outcome in outcomes if outcome.compaction
    )
    show_table(shown, ({**row, "time": f"{row['elapsed_ms']} ms"} for row in rows))


@click.command(short_help="Append events from standard input.")
@team_option("The team of lines that name none.")
@data_option
@json_option
def append(team: str | None, data: Path, as_json: bool) -> None:
    """Append events, one JSON object per line on standard input, to the logs of their teams.

    A line goes to the team in its `team_id`, or to --team. All lines are checked before any is written: one bad line,
    and nothing is. Returns when the events are on disk; `compactor compact` then makes orders and trades of them.

    \b
    Example:
      echo '{"event":"new","order_id":"o1","ts":"2026-01-05T15:00:00Z","symbol":"SPY","side":"buy","quantity":"2"}' \\
        | compactor append --team alice
    """
    from compactor.books.append import append_lines

    stdin = sys.stdin.buffer
    if stdin.isatty():
        say("Reading events from the terminal, one JSON object per line; end with Ctrl-D.", err=True)
    result = append_lines(data, stdin, team)
    _show_appended(result, as_json)
    if result.bad_lines:
        _refuse_lines(result)
    if result.failure:
        say(f"{result.failed_team}: {result.failure.message}", err=True)
        if result.untouched:
            say(f"Nothing was written either for: {', '.join(result.untouched)}", err=True)
        raise click.exceptions.Exit(1)


def _show_appended(result: AppendResult, as_json: bool) -> None:
    from compactor.ui.output import ShownColumn, show_json, show_table

    if as_json:
        show_json(result.appended)
        show_json({"line": bad.line, "error": {"kind": bad.kind, "message": bad.detail}} for bad in result.bad_lines)
        if result.failure:
            show_json([_flat(result.failed_team or "", None, None, result.failure)])
    elif result.appended:
        numbers = [ShownColumn(field, field, number=True) for field in ("events", "offset", "length")]
        rows = [{name: getattr(done, name) for name in done.__struct_fields__} for done in result.appended]
        show_table([ShownColumn("team_id", "team"), *numbers], rows)
    elif not result.bad_lines and not result.failure:
        say("No events on standard input; nothing was written.", err=True)


def _refuse_lines(result: AppendResult) -> None:
    from compactor.ui.output import name_lines

    name_lines([f"line {bad.line}: {bad.kind}: {bad.detail}" for bad in result.bad_lines])
    say("Nothing was written. Mend these lines and append all of them again.", err=True)
    raise click.exceptions.Exit(1)


_PENDING = (
    "team_id",
    "order_id",
    "symbol",
    "side",
    "quantity",
    "filled_qty",
    "status",
    "limit_price",
)
# The most important first: a narrow terminal leaves out the last ones.
_SHOWN: dict[str, tuple[str, ...]] = {
    "pending": (*_PENDING, "order_type", "stop_price", "created_at"),
    "trades": ("team_id", "trade_id", "timestamp", "symbol", "side", "quantity", "execution_price", "kind", "order_id"),
    "findings": ("team_id", "offset", "length", "kind", "applied", "detail"),
    "intents": ("team_id", "client_order_id", "ts", "tags", "note", "request"),
}
_NAMES = {"pending": "open orders", "trades": "trades", "findings": "findings", "intents": "open intents"}
_NUMBERS = ("quantity", "filled_qty", "limit_price", "stop_price", "execution_price", "offset", "length")


@click.command(short_help="Show open orders, trades, findings or open intents.")
@click.argument("what", type=click.Choice(list(_SHOWN)))
@team_option("Show this team's only.")
@data_option
@json_option
def show(what: str, team: str | None, data: Path, as_json: bool) -> None:
    """Show open orders, trades or findings, as of the last compact; or intents.

    Intents are orders that a program was about to ask for, and of which nobody knows whether the broker has them. They
    are no open orders; the next reconcile finds out.

    The table holds the columns that matter most; --json gives every field, one line each, in the order of the files.

    \b
    Example:
      compactor show pending
      compactor show trades --team alice --json | jq -r .symbol
    """
    from compactor.books.compact import read_rows
    from compactor.ui.output import columns, show_json, show_table

    rows = read_rows(data, what, team=team)
    refuse_empty(rows.ledgers, data, team)
    if as_json:
        show_json(rows)
    elif not show_table(columns(*_SHOWN[what], numbers=_NUMBERS), map(_flatten, rows)) and not rows.failures:
        as_of = "the end of the logs" if what == "intents" else "the last compact"
        say(f"No {_NAMES[what]} in {data} as of {as_of}.", err=True)
    exit_named(rows.failures, rows.ledgers, "could not be read")


def _flatten(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose values are texts, also of the request and the tags of an intent."""
    if "request" not in row:
        return row
    request = " ".join(f"{name}={value}" for name, value in row["request"].items())
    return {**row, "request": request, "tags": ", ".join(row["tags"])}


@click.command(short_help="Say how every ledger stands.")
@data_argument
@team_option("This team's ledger only.")
@json_option
def status(data: Path, team: str | None, as_json: bool) -> None:
    """Say how every ledger stands: how much is folded, how many bytes wait for the next compact, how many are sealed.

    Also says, on stderr, whether a daemon runs and what it cannot keep current, and up to when each account was last
    reconciled with the broker. Changes nothing.
    DIR is the data directory; default: $COMPACTOR_DATA, else data.

    \b
    Example:
      compactor status
      compactor status data --json
    """
    from compactor.books.compact import status_all
    from compactor.daemon.presence import read_report
    from compactor.sync.state import read_reconciled
    from compactor.ui.output import ShownColumn, show_json, show_table

    reports = status_all(data, team=team)
    refuse_empty(_present(reports), data, team)
    flat = [_flat(report.team_id, report.path, report.status, report.error) for report in reports]
    alarms = _find_alarms(data, team)
    daemon, reconciled = read_report(data), read_reconciled(data)
    if as_json:
        states = {one.team_id: one for one in daemon.ledgers} if daemon is not None else {}
        for row in flat:
            one = states.get(row["team_id"])
            row["daemon_pid"] = daemon.pid if daemon is not None else None
            row["state"], row["reason"] = (one.state, one.reason) if one is not None else (None, None)
            row["alarm"] = alarms.get(row["path"])
            row["reconciled"] = {name: account.through for name, account in reconciled.items()}
        show_json(flat)
    else:
        titles = {"team_id": "team", "events": "events", "open_orders": "open orders", "trades": "trades"}
        titles |= {"findings": "findings", "lag_bytes": "to compact", "last_event_at": "last event"}
        titles |= {"checkpoint": "checkpoint", "log_bytes": "log bytes", "sealed_bytes": "sealed"}
        texts = ("team_id", "last_event_at", "checkpoint")
        shown = [ShownColumn(field, title, field not in texts) for field, title in titles.items()]
        show_table(shown, (row for row in flat if "error" not in row))
        sys.stdout.flush()
        _say_of_daemon(daemon)
        _say_of_reconciles(reconciled)
    for row in flat:
        if row["path"] in alarms:
            alarm = alarms[row["path"]]
            since = f" since {alarm.since}" if alarm.since else ""
            say(f"{row['team_id']}: ALARM{since}: {alarm.message}", err=True)
    failed = [(report.team_id, report.error) for report in reports if report.error]
    exit_named(failed, len(reports), "could not be read")
    if alarms:
        raise click.exceptions.Exit(1)


def _find_alarms(data: Path, team: str | None) -> dict[str, HeadAlarm]:
    """The alarms of ledgers that do not continue what was signed or witnessed of them, by their paths."""
    from compactor.ledger import LedgerError, discover
    from compactor.proofs.publish import check_record

    found = {}
    for entry in discover(data, team):
        try:
            alarm = check_record(entry.path, entry.name) if entry.problem is None else None
        except LedgerError:
            continue  # The report of the ledger says what is wrong with it.
        except OSError as error:
            say(f"{entry.name}: the record of signed heads cannot be read: {error}", err=True)
            continue
        if alarm is not None:
            found[str(entry.path)] = alarm
    return found


def _say_of_daemon(daemon: DaemonReport | None) -> None:
    """Whether a daemon keeps these ledgers current, and which of them it cannot."""
    if daemon is None:
        say("No daemon runs here; compactor watch starts one.", err=True)
        return
    degraded = [one for one in daemon.ledgers if one.state == "degraded"]
    since = f"{datetime.fromtimestamp(daemon.started_at, UTC):%Y-%m-%dT%H:%M:%SZ}"
    say(f"A daemon runs: process {daemon.pid}, since {since}; {len(degraded)} degraded.", err=True)
    for one in degraded:
        say(f"{one.team_id}: degraded: {one.reason}", err=True)
    for account in daemon.accounts:
        say(f"account {account.account}: {_describe_account(account)}", err=True)


def _say_of_reconciles(reconciled: Mapping[str, AccountReconciled]) -> None:
    """Up to when the ledgers are known to agree with the broker, and why not longer."""
    for name, account in sorted(reconciled.items()):
        through = account.through or "never"
        differences = f", {account.differences} differences that no event can put right" if account.differences else ""
        if account.positions_differing:
            differences += f"; POSITIONS DIFFER: {', '.join(account.positions_differing)}"
        stale = f"; STALE, {account.failures} tries failed: {account.error}" if account.error is not None else ""
        say(f"account {name}: reconciled through {through}{differences}{stale}", err=True)


def _describe_account(account: AccountReport) -> str:
    """How the link to an account is, in a line."""

    def at(seconds: float | None) -> str:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}" if seconds is not None else "never"

    stream = f"stream {'connected' if account.connected else 'not connected'} since {at(account.stream_since)}"
    told = f"last message {at(account.last_message_at)}, last reconcile {at(account.last_reconcile_at)}"
    return f"{stream}, {told}" + "".join(f"; STALE: {reason}" for reason in account.stale)


def _flat(team_id: str, path: str | None, result: Any, error: Any) -> dict[str, Any]:
    """One ledger's result as one flat object: its numbers, or its error."""
    row: dict[str, Any] = {"team_id": team_id} if path is None else {"team_id": team_id, "path": path}
    if error is not None:
        return {**row, "error": {"kind": error.kind, "message": error.message}}
    return {**row, **{name: getattr(result, name) for name in result.__struct_fields__}}


def _present(results: Sequence[Any]) -> int:
    """How many of the ledgers asked for are there at all."""
    return sum(result.error is None or result.error.kind != "no_ledger" for result in results)


def exit_named(failed: Sequence[tuple[str, Any]], of: int, what: str) -> None:
    """Name what failed on stderr, below the table of what went well, and leave with 1."""
    if not failed:
        return
    import os

    sys.stdout.flush()
    for team_id, error in failed:
        say(f"{team_id}: {error.message}", err=True)
        if os.environ.get("COMPACTOR_DEBUG") and error.trace:
            say(error.trace, err=True)
    if of > 1:
        others = "; the others are not affected" if len(failed) < of else ""
        say(f"{len(failed)} of {of} ledgers {what}{others}.", err=True)
    raise click.exceptions.Exit(1)
