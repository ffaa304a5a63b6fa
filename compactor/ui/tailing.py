"""The command `tail`: show the last events, trades or findings, and with -f those that follow.

`tables.follow` reads what is appended.

Note: -f ends with exit code 0 on Ctrl-C, the normal end of following, and by itself when the reader of its pipe goes
away.
"""

from __future__ import annotations

import re
import select
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compactor.ui.options import data_option, json_option, refuse_empty, say, team_option
from compactor.ui.watching import stop_on_signals

if TYPE_CHECKING:
    from compactor.ledger import LedgerEntry
    from compactor.tables.follow import Follower, Start, TimedRow
    from compactor.tables.schema import Row, Table

_LOOK_SECONDS = 1.0
_KNOWN_MAX = 100_000
_GOOD, _BAD, _CALM = "green", "red", "cyan"
_COLOURS = {
    "fill": _GOOD, "partial_fill": _GOOD, "inferred": "yellow", "correction": "yellow", "reversal": _BAD,
    "trade_bust": _BAD, "trade_correct": "yellow", "canceled": "yellow", "expired": "yellow", "replaced": "yellow",
    "rejected": _BAD, "order_cancel_rejected": _BAD, "order_replace_rejected": _BAD, "suspended": _BAD,
}  # fmt: skip
_TEAM_COLOURS = ("bright_blue", "bright_magenta", "bright_cyan", "bright_yellow", "bright_green", "bright_red")
Write = Callable[[Iterable["TimedRow"]], None]


@click.command(short_help="Show the last events, trades or findings, and follow them.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@team_option("Show this team's only.")
@click.option("--from", "start", metavar="OFFSET|TIME|-N", default="-10", help="Where to begin; default: -10.")
@click.option("--events", "what", flag_value="events", default=True, help="Events; the default.")
@click.option("--trades", "what", flag_value="trades", help="Trades, as the last compact derived them.")
@click.option("--findings", "what", flag_value="findings", help="Findings, as the last compact derived them.")
@json_option
@data_option
def tail(follow: bool, team: str | None, start: str, what: str, as_json: bool, data: Path) -> None:
    """Show the last events, trades or findings of all teams in the order of their recording.

    With -f it goes on with what comes, new teams included; sealing, and daemons that are stopped and started, do not
    matter to it. A line is shown when it is whole. In a pipe, and with --json, each is an object on a line of its own.
    An OFFSET is an address in the log of one team; a TIME is RFC 3339 or a day; -N is the last N.

    \b
    Example:
      compactor tail -f
      compactor tail --trades --team alice --from 2026-03-02T14:30:00Z | jq -r .symbol
      compactor tail --from -100
    """
    from compactor.ledger import discover
    from compactor.ledger.paths import LOG
    from compactor.tables.follow import Follower
    from compactor.tables.schema import TABLES

    def found() -> list[LedgerEntry]:
        return [entry for entry in discover(data, team) if entry.problem is not None or (entry.path / LOG).exists()]

    table, entries = TABLES[what], found()
    refuse_empty(len(entries), data, team)
    begin = _start(start, len(entries))
    tails = _Tails(lambda entry: Follower(entry, table))
    tails.add(entries)
    write = _writer(table, as_json, len(entries) > 1 or (follow and team is None), tails.all)
    stop = stop_on_signals() if follow else threading.Event()
    write(_first(tails, begin))
    if follow:
        _follow(data, tails, found, write, stop)
    if tails.failures:
        raise click.exceptions.Exit(1)


class _Tails:
    """The ledgers that are shown. One that cannot be read is named on stderr, once, and stops no other."""

    def __init__(self, make: Callable[[LedgerEntry], Follower]) -> None:
        self.all: list[Follower] = []
        self.failures = 0
        self._make = make
        self._seen: set[Path] = set()

    def add(self, entries: Iterable[LedgerEntry]) -> None:
        """Take in the ledgers that are new."""
        for entry in entries:
            if entry.path in self._seen:
                continue
            self._seen.add(entry.path)
            if entry.problem is None:
                self.all.append(self._make(entry))
            else:
                self._fail(f"{entry.path}: {entry.problem}")

    def timed(self, rows: Callable[[Follower], Iterable[TimedRow]]) -> Iterator[TimedRow]:
        """These rows of all ledgers in one order."""
        from compactor.tables.follow import in_order

        return in_order([self._guarded(one, rows) for one in list(self.all)])

    def _guarded(self, tail: Follower, rows: Callable[[Follower], Iterable[TimedRow]]) -> Iterator[TimedRow]:
        from compactor.ledger import LedgerError

        try:
            yield from rows(tail)
        except LedgerError as error:
            self.all.remove(tail)
            self._fail(str(error))

    def _fail(self, message: str) -> None:
        self.failures += 1
        say(message, err=True)


def _start(text: str, ledgers: int) -> Start:
    from compactor.core.instants import BadInstant
    from compactor.tables.follow import Start
    from compactor.tables.rows import instant

    if re.fullmatch(r"-[0-9]{1,9}", text):
        return Start(last=int(text[1:]))
    if re.fullmatch(r"[0-9]{1,18}", text):
        if ledgers > 1 and int(text):
            raise click.UsageError(f"--from {text} is an offset in the log of one team: name it with --team")
        return Start(offset=int(text))
    try:
        return Start(at=instant(text))
    except BadInstant:
        expected = "an offset, a time such as 2026-03-02T14:30:00Z, a day, or -N for the last N"
        raise click.UsageError(f"--from {text!r}: expected {expected}") from None


def _first(tails: _Tails, begin: Start) -> Iterable[TimedRow]:
    """What is there, of all ledgers in one order; of the last N of each the last N of all."""
    timed = tails.timed(lambda tail: tail.begin(begin))
    return timed if begin.last is None else list(timed)[-begin.last or None :][: begin.last]


def _follow(
    data: Path, tails: _Tails, found: Callable[[], list[LedgerEntry]], write: Write, stop: threading.Event
) -> None:
    from compactor.daemon.hints import Hints

    with Hints(data) as hints:
        while not stop.is_set() and not _is_reader_gone():
            hints.wait(_LOOK_SECONDS, stop)
            tails.add(found())
            write(tails.timed(lambda tail: tail.rows()))


def _is_reader_gone() -> bool:
    """Whether standard output is a pipe that nobody reads: with nothing to write it would not be noticed."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except (OSError, ValueError):
        return False


def _writer(table: Table, as_json: bool, several: bool, tails: Iterable[Follower]) -> Write:
    if as_json or not sys.stdout.isatty():
        return _json_writer(table)
    shown = _Shown(table, several)
    if table.name == "events":
        shown.learn_open_orders(tails)

    def write(timed: Iterable[TimedRow]) -> None:
        for one in timed:
            click.echo(shown.line(one.row))

    return write


def _json_writer(table: Table) -> Write:
    import msgspec

    from compactor.core.printable import escape_json
    from compactor.tables.export import as_object

    make = as_object(table.names, frozenset(column.name for column in table.columns if column.kind == "json"))
    encode = msgspec.json.Encoder().encode

    def write(timed: Iterable[TimedRow]) -> None:
        for one in timed:
            sys.stdout.write(escape_json(encode(make(one.row))).decode() + "\n")
        sys.stdout.flush()

    return write


class _Shown:
    """Rows as coloured lines. It remembers side and symbol of the orders it has seen, which a fill does not tell."""

    def __init__(self, table: Table, several: bool) -> None:
        self._names = table.names
        self._several = several
        self._line: Callable[[dict[str, Any]], Iterator[str]] = {
            "events": self._event, "trades": self._trade, "findings": self._finding,
        }[table.name]  # fmt: skip
        self._known: dict[str, tuple[str, str]] = {}
        self._teams: dict[str, str] = {}

    def learn_open_orders(self, tails: Iterable[Follower]) -> None:
        from compactor.ledger import Ledger

        for one in tails:
            for order in Ledger(one.entry.path, team_id=one.entry.team_id).rows("pending_orders"):
                self._known[order["order_id"]] = (order.get("side") or "", order.get("symbol") or "")

    def line(self, row: Row) -> str:
        values = dict(zip(self._names, row, strict=True))
        team = values.get("team_id") or ""
        colour = self._teams.setdefault(team, _TEAM_COLOURS[len(self._teams) % len(_TEAM_COLOURS)])
        parts = list(self._line(values))
        return "  ".join(part for part in [parts[0], _style(team, colour) if self._several else "", *parts[1:]] if part)

    def _event(self, values: dict[str, Any]) -> Iterator[str]:
        order_id, event = values["order_id"], values["event"]
        if values["symbol"] and len(self._known) < _KNOWN_MAX:
            self._known[order_id] = (values["side"] or "", values["symbol"])
        side, symbol = self._known.get(order_id, ("", ""))
        yield _style(f"{values['ts']:<27}", None, dim=True)
        yield _style(f"{event:<14}", _COLOURS.get(event, _CALM))
        if values["price"] is not None:
            yield _words(side, values["qty"], symbol, "@", values["price"])
        else:
            yield _words(side, values["quantity"] or values["notional"], symbol, *_terms(values))
        if values["filled_qty"] is not None:
            yield _style(f"filled {values['filled_qty']}", None, dim=True)
        yield _style(order_id, None, dim=True)

    def _trade(self, values: dict[str, Any]) -> Iterator[str]:
        yield _style(f"{values['timestamp'] or '':<27}", None, dim=True)
        yield _style(f"{values['kind'] or '':<10}", _COLOURS.get(values["kind"], _CALM))
        yield _words(values["side"], values["quantity"], values["symbol"], "@", values["execution_price"])
        yield _style(values["order_id"], None, dim=True)

    def _finding(self, values: dict[str, Any]) -> Iterator[str]:
        yield _style(f"at {values['offset']:<10}", None, dim=True)
        yield _style(f"{values['kind']:<16}", "yellow" if values["applied"] else _BAD)
        yield _words(values["detail"])


def _terms(values: dict[str, Any]) -> Iterator[str]:
    """The type of an order and its prices; a type of one price is named by it."""
    prices = {name: values[f"{name}_price"] for name in ("limit", "stop") if values[f"{name}_price"] is not None}
    if values["order_type"] not in prices:
        yield values["order_type"] or ""
    for name, price in prices.items():
        yield from (name, price)


def _words(*words: str | None) -> str:
    from compactor.core.printable import printable

    return " ".join(printable(word) for word in words if word)


def _style(text: str, colour: str | None, *, dim: bool = False) -> str:
    from compactor.core.printable import printable

    return click.style(printable(text), fg=colour, dim=dim or None)
