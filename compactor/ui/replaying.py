"""The commands that look at the past: `replay` shows a ledger at a moment, `diff` what differs at another.

`compactor.history` selects and folds.

Note: an offset belongs to one log, so it needs one ledger; a time applies to all of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compactor.ui.commands import exit_named
from compactor.ui.options import (
    VARIABLE,
    data_argument,
    data_directory,
    find_ledgers,
    json_option,
    refuse_empty,
    refuse_several,
    say,
    team_option,
)

if TYPE_CHECKING:
    from compactor.books.failures import Failure
    from compactor.history.diff import RowChange
    from compactor.history.moment import Clock, Moment
    from compactor.history.replay import Past
    from compactor.ledger import LedgerEntry

_PENDING = ("order_id", "symbol", "side", "quantity", "filled_qty", "status", "limit_price", "order_type", "created_at")
_TRADES = ("trade_id", "timestamp", "symbol", "side", "quantity", "execution_price", "kind", "order_id")
_FINDINGS = ("offset", "length", "kind", "applied", "detail")
_NUMBERS = ("quantity", "filled_qty", "limit_price", "execution_price", "offset", "length")
_COLUMNS = {"pending": _PENDING, "trades": _TRADES, "findings": _FINDINGS}
_SIGNS = {"came": ("+", "green"), "went": ("-", "red"), "changed": ("~", "yellow")}


@click.command(short_help="Show a ledger as of any past moment.")
@data_argument
@team_option("Replay this team's ledger only.")
@click.option("--at", metavar="OFFSET", type=click.IntRange(min=0), help="When the log ended at this offset.")
@click.option("--known-at", metavar="TIME", help="What had been recorded by this time.")
@click.option("--as-of", metavar="TIME", help="What had happened by this time, by the broker's clock, as known now.")
@click.option("--show", "what", type=click.Choice(list(_COLUMNS)), help="All lines of one derived file.")
@click.option("--out", metavar="NEW_DIR", type=click.Path(path_type=Path), help="Write the three derived files there.")
@json_option
def replay(
    data: Path, team: str | None, at: int | None, known_at: str | None, as_of: str | None, what: str | None,
    out: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Show pending orders and trades as of a past moment: an offset of the log, or a time; without one, the end.

    Changes nothing and needs no lock: the daemon may run and seal meanwhile. Starts from the newest checkpoint that
    cannot change the answer and shows the last trades; --show trades and --out fold the whole log.

    \b
    Example:
      compactor replay data --team alice --at 1048576
      compactor replay data --known-at 2026-03-02T10:31:00-05:00
      compactor replay data --as-of 2026-03-02T15:31:00Z --out /tmp/then
    """
    moment = _one_moment(at, known_at, as_of)
    entries = find_ledgers(data, team)
    if moment.offset is not None:
        refuse_several(entries, data, "an offset is one of one log: found")
    if out is not None and what is not None:
        raise click.UsageError("found --show and --out, expected one of them: --out writes all three files")
    if out is not None:
        _refuse_full(out)
    failed = [
        (name, failure)
        for name, failure in (_replay_one(entry, moment, what, out, len(entries), as_json) for entry in entries)
        if failure is not None
    ]
    exit_named(failed, len(entries), "could not be replayed")


def _one_moment(at: int | None, known_at: str | None, as_of: str | None) -> Moment:
    from compactor.history.moment import END, BadMoment, at_offset, at_time

    given = [value for value in (at, known_at, as_of) if value is not None]
    if len(given) > 1:
        raise click.UsageError("found more than one of --at, --known-at and --as-of, expected one moment")
    try:
        if known_at is not None or as_of is not None:
            return at_time(known_at or as_of or "", "recorded" if known_at is not None else "happened")
    except BadMoment as bad:
        raise click.UsageError(str(bad)) from None
    return END if at is None else at_offset(at)


def _refuse_full(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise click.UsageError(f"{out}: found something there, expected a new or empty directory")


def _replay_one(
    entry: LedgerEntry, moment: Moment, what: str | None, out: Path | None, of: int, as_json: bool
) -> tuple[str, Failure | None]:
    """Replay one ledger and show it; what failed, if so. No failure stops the others."""
    from compactor.books.failures import describe_failure
    from compactor.history.replay import replay_lines, replay_past, write_past
    from compactor.ui.output import progress_bar

    try:
        with progress_bar("Replaying") as progress:
            if what is not None:
                rows = replay_lines(entry, moment, what, progress)  # type: ignore[arg-type]
                _show_lines(rows, what, entry.name if of > 1 else None, as_json)
                return entry.name, None
            if out is not None:
                target = out if of == 1 else out / "team" / entry.name
                done = write_past(entry, moment, target, progress)
            else:
                done = replay_past(entry, moment, progress)
        _show_past(done, as_json, None if out is None else target)
    except BrokenPipeError:
        raise
    except Exception as error:
        return entry.name, describe_failure(error, entry.path)
    return entry.name, None


def _show_lines(lines: Iterator[bytes], what: str, team: str | None, as_json: bool) -> None:
    from compactor.core.printable import escape_json
    from compactor.ui.output import columns, show_table

    if as_json and (team is None or what != "findings"):
        for line in lines:
            sys.stdout.write(escape_json(line).decode())
        return
    rows = _decoded(lines)
    if team is not None:
        rows = ({"team_id": team, **row} for row in rows)
    if as_json:
        from compactor.ui.output import show_json

        show_json(rows)
        return
    names = _COLUMNS[what] if team is None else ("team_id", *_COLUMNS[what])
    show_table(columns(*names, numbers=_NUMBERS), rows)


def _decoded(lines: Iterable[bytes]) -> Iterable[dict[str, Any]]:
    import msgspec

    decode: Callable[[bytes], dict[str, Any]] = msgspec.json.Decoder(dict[str, Any]).decode
    return map(decode, lines)


def _show_past(done: Past, as_json: bool, written: Path | None) -> None:
    from compactor.core.printable import printable
    from compactor.ui.output import columns, show_json, show_table

    row = {name: getattr(done, name) for name in done.__struct_fields__}
    pending, trades = row.pop("pending"), row.pop("last_trades")
    if as_json:
        if written is None:
            row["pending_orders"] = list(_decoded(pending.splitlines()))
            row["last_trades"] = list(_decoded(trades))
        else:
            row["out"] = str(written)
        show_json([row])
        return
    counts = f"{done.events} events, {done.open_orders} open orders, {done.trades} trades, {done.findings} findings"
    say(f"{printable(done.team_id)}, {printable(done.moment)}: {counts}")
    if written is not None:
        say(f"Written to {written}")
        return
    show_table(columns(*_PENDING, numbers=_NUMBERS), _decoded(pending.splitlines()))
    if trades:
        say(f"The last {len(trades)} of {done.trades} trades; --show trades has all:")
        show_table(columns(*_TRADES, numbers=_NUMBERS), _decoded(trades))


@click.command(short_help="Show what came, went and changed.")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--data", metavar="DIR", envvar=VARIABLE, default="data", help=f"As everywhere; default: ${VARIABLE}.")
@team_option("Compare this team's ledger only.")
@click.option("--as-of", is_flag=True, help="Times are the broker's: what had happened by then, as it is known now.")
@json_option
@click.pass_context
def diff(ctx: click.Context, a: str, b: str, data: str, team: str | None, as_of: bool, as_json: bool) -> None:
    """Show what came, went and changed from A to B in pending orders and trades.

    A and B are two moments of DIR, each an offset of the log, a time or `end`; or two data directories. A time means
    what had been recorded by then. A directory that replay --out wrote is compared as it is.

    \b
    Example:
      compactor diff 1048576 end --data data --team alice
      compactor diff 2026-03-02T10:30:00-05:00 2026-03-02T10:31:00-05:00 --data data
      compactor diff data backup/data
    """
    if Path(a).is_dir() or Path(b).is_dir():
        for path in (a, b):
            if not Path(path).is_dir():
                raise click.UsageError(f"{path}: found no directory, expected one, as the other side is")
        works = _pairs(Path(a), Path(b), team)
    else:
        works = _moments(a, b, data_directory(ctx, None, data), team, "happened" if as_of else "recorded")
    failed = [(name, failure) for name, changes in works if (failure := _show_changes(name, changes, as_json))]
    exit_named(failed, len(works), "could not be compared")


Work = tuple[str, "Callable[[Any], Iterator[RowChange]]"]
"""A team, and a function that compares its two sides and takes the progress callback."""


def _moments(a: str, b: str, data: Path, team: str | None, clock: Clock) -> list[Work]:
    from compactor.history.diff import diff_moments
    from compactor.history.moment import BadMoment, parse_moment

    try:
        first, second = parse_moment(a, clock), parse_moment(b, clock)
    except BadMoment as bad:
        raise click.UsageError(str(bad)) from None
    entries = find_ledgers(data, team)
    if first.offset is not None or second.offset is not None:
        refuse_several(entries, data, "an offset is one of one log: found")

    def work(entry: LedgerEntry) -> Callable[[Any], Iterator[RowChange]]:
        return lambda progress: diff_moments(entry, first, second, progress)

    return [(entry.name, work(entry)) for entry in entries]


def _pairs(a: Path, b: Path, team: str | None) -> list[Work]:
    from compactor.core.lines import DEFAULT_TEAM
    from compactor.history.diff import diff_ledgers, find_ledgers_below

    sides = [find_ledgers_below(path) for path in (a, b)]
    if team is not None:
        sides = [{name: path for name, path in side.items() if name == team or len(side) == 1} for side in sides]
    if [1, 1] == [len(side) for side in sides]:
        # One ledger on each side: compare them, even if their directories have different names.
        name = min((*sides[0], *sides[1]), key=lambda name: name == DEFAULT_TEAM)
        sides = [dict.fromkeys([name], path) for side in sides for path in side.values()]
    names = sorted({name for side in sides for name in side})
    refuse_empty(len(names), b, team)

    def work(name: str) -> Callable[[Any], Iterator[RowChange]]:
        return lambda _progress: diff_ledgers(name, sides[0].get(name), sides[1].get(name))

    return [(name, work(name)) for name in names]


def _show_changes(name: str, compare: Callable[[Any], Iterator[RowChange]], as_json: bool) -> Failure | None:
    from compactor.books.failures import describe_failure
    from compactor.ui.output import progress_bar, show_json

    found = False
    try:
        with progress_bar("Comparing") as progress:
            for change in compare(progress):
                found = True
                if as_json:
                    show_json([change])
                else:
                    click.echo(_format_change(change))
        if not found and not as_json:
            say(f"{name}: no difference", err=True)
    except BrokenPipeError:
        raise
    except Exception as error:
        return describe_failure(error, name)
    return None


def _format_change(change: RowChange) -> str:
    """Format a change as one line for people, coloured on a terminal."""
    from compactor.core.printable import printable

    row = change.after or change.before or {}
    words: list[Any] = [change.team_id, change.what.replace("_", " "), change.id]
    if change.what == "trade":
        words += [row.get("order_id"), row.get("symbol"), row.get("side"), row.get("quantity"), "@"]
        words += [row.get("execution_price"), row.get("kind")]
    else:
        words += [row.get("symbol"), row.get("side"), row.get("quantity") or row.get("notional")]
        words += [row.get("status") if change.ended_as is None else f"ended as {change.ended_as}"]
    fields = [f"{name} {old} -> {new}" for name, (old, new) in change.fields.items() if name != "updated_at"]
    sign, colour = _SIGNS[change.change]
    text = " ".join(printable(word) for word in words if word is not None)
    if fields:
        text += ": " + printable(", ".join(fields))
    return click.style(f"{sign} {text}", fg=colour)
