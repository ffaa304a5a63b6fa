"""Compare the files of an old program with the ledgers that are kept beside it, in a parallel run.

Compared are the open orders with their terms, and what is filled of every order, by quantity and average price. Both
sides are only read. The ledgers are as of their last compaction.

Note: an old program writes one trade for a filled order. What was filled of an order that was then canceled stands in
its lines alone, so the greater of the two counts as filled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from compactor.core import CompactorError
from compactor.core.decimals import BadDecimal, exactly, parse_computed, parse_decimal, plain, quotient
from compactor.core.lifecycle import TERMINAL, normalize_name
from compactor.imports.earlier import read_earlier, recall_lines
from compactor.imports.legacy import OldFiles, describe_expected, find_old_files
from compactor.imports.old_fields import simplify_term
from compactor.imports.old_layout import OldLines, read_old_lines, translate_old_lines
from compactor.imports.old_matching import CONTRADICTS
from compactor.imports.old_orders import ORDERS, OldLine, OldOrder
from compactor.ledger import Ledger, discover
from compactor.ledger.paths import LOG, TEAM_PATTERN

TERMS = (
    "symbol", "side", "quantity", "notional", "order_type", "limit_price", "stop_price", "trail_price", "trail_percent",
    "time_in_force",
)  # fmt: skip
_ZERO = Decimal(0)

UNREADABLE = "unreadable"
"""The field of a difference that is an old line or a ledger which nobody can read; where it is stands for the order."""


class NoOldFiles(CompactorError):
    """There is nothing to compare with; the message says what was expected where."""


class OldDifference(NamedTuple):
    """A field of one order that the old files and the ledger do not tell alike; None where one of them has none."""

    team_id: str
    order_id: str
    field: str
    old: str | None
    ledger: str | None


class _Filled(NamedTuple):
    quantity: Decimal = _ZERO
    value: Decimal = _ZERO


def compare_old_files(path: Path, data: Path) -> Iterator[OldDifference]:
    """Yield the differences between the old files at `path` and the ledgers of `data`, by team and order id.

    A line that cannot be read is a difference, and so is a ledger that lost its log. Where `path` holds `team/`, the
    ledgers of teams without old files are compared as well. Raises NoOldFiles where nothing can be compared,
    LedgerError where a ledger cannot be read, and OSError where an old file cannot.
    """
    compared: set[str] = set()
    for source in find_old_files(path, data):
        orders, trades = (source.read_lines(one, lambda _: None) for one in (source.orders, source.trades))
        lines = read_old_lines(orders, trades, team=source.team)
        yield from _list_unreadable(source, lines)
        teams = {source.team} if source.team is not None else lines.teams
        for team in sorted(team for team in teams if TEAM_PATTERN.fullmatch(team)):
            compared.add(team)
            own = data if (data / LOG).exists() and Ledger(data).team_id == team else data / "team" / team
            yield from _compare_team(team, lines, own, source.trades)
    if not compared:
        raise NoOldFiles(f"{path}: found no old files with a line of a team, expected {describe_expected(path)}")
    for place in discover(data):
        if place.problem is not None:
            yield OldDifference(place.name, str(place.path), UNREADABLE, None, place.problem)
        elif (path / "team").is_dir() and (named := place.team_id or Ledger(place.path).team_id) not in compared:
            yield from _compare_team(named, OldLines([], [], []), place.path, None)


def _list_unreadable(source: OldFiles, lines: OldLines) -> Iterator[OldDifference]:
    """The lines that were not compared: those that are no order or trade, and those of a name that is no team's."""
    for file, number, problem in lines.problems:
        name = source.orders if file == ORDERS else source.trades
        yield OldDifference(
            source.team or "", f"{name}:{number}", UNREADABLE, f"{problem.kind}: {problem.detail}", None
        )
    yield from _list_foreign(source.orders, lines.orders)
    yield from _list_foreign(source.trades, lines.trades)


def _list_foreign(file: Path | None, lines: Iterable[OldLine]) -> Iterator[OldDifference]:
    for line in lines:
        team = line.event["team_id"]
        if not TEAM_PATTERN.fullmatch(team):
            yield OldDifference("", f"{file}:{line.number}", UNREADABLE, f"{team!r} is no team id (rule 1.1)", None)


def _compare_team(team: str, lines: OldLines, path: Path, trades: Path | None) -> Iterator[OldDifference]:
    ledger = Ledger(path, team_id=team)
    earlier = read_earlier(path, team, lines, is_compacted=True)
    recall_lines(lines, team, earlier)
    # What is in no file any more is not what the old program says now.
    in_files = OldLines([one for one in lines.orders if one.number], [one for one in lines.trades if one.number], [])
    translated = translate_old_lines(in_files, {team: earlier.known})
    old = translated.list_orders(team)
    for _file, number, problem in translated.problems:
        if problem.kind == CONTRADICTS:
            yield OldDifference(team, f"{trades}:{number}", CONTRADICTS, problem.detail, None)
    rows = {row["order_id"]: row for row in ledger.rows("pending_orders")}
    with exactly():
        filled = _sum_trades(ledger)
    for order_id in sorted({*old, *rows, *filled}):
        order = old.get(order_id, OldOrder())
        with exactly():
            found = list(_compare_order(order, rows.get(order_id), filled.get(order_id, _Filled())))
        yield from (OldDifference(team, order_id, *one) for one in found)


def _compare_order(
    order: OldOrder, row: dict[str, Any] | None, filled: _Filled
) -> Iterator[tuple[str, str | None, str | None]]:
    status = _find_open_status(order)
    known = None if row is None else str(row["status"])
    if status != known:
        yield "status", status, known
    if status is not None and row is not None:
        for name in TERMS:
            told = order.find(name)
            if told is not None and not _are_equal(name, str(told), row.get(name)):
                yield name, str(told), row.get(name)
    quantity = max(order.filled, order.traded)
    if quantity != filled.quantity:
        yield "filled_qty", plain(quantity), plain(filled.quantity)
    elif quantity and (average := _find_average(order)) is not None:
        known = plain(quotient(filled.value, filled.quantity))
        if not _is_rounded(known, average):
            yield "filled_avg_price", average, known


def _find_open_status(order: OldOrder) -> str | None:
    """The status of an order that the old program has open; None for any other."""
    quantity = order.decimal("quantity")
    if not order.lines or (quantity is not None and order.traded >= quantity):
        return None
    status = normalize_name(str(order.lines[-1].event.get("order_status", "new")))
    return None if status in TERMINAL else status  # What nobody has heard of is open (format.md, rule 3.7).


def _find_average(order: OldOrder) -> str | None:
    """The average price by the old trades, else by the order's lines."""
    if order.trades:
        value = sum((_value(trade.event["price"], trade.event["qty"]) for trade in order.trades), _ZERO)
        return plain(quotient(value, order.traded))
    found = order.find("filled_avg_price")
    return None if found is None else str(found)


def _sum_trades(ledger: Ledger) -> dict[str, _Filled]:
    sums: dict[str, _Filled] = {}
    for row in ledger.rows("trades"):
        known = sums.get(row["order_id"], _Filled())
        value = _value(row["execution_price"], row["quantity"])
        sums[row["order_id"]] = _Filled(known.quantity + parse_decimal(row["quantity"]), known.value + value)
    return sums


def _value(price: str, quantity: str) -> Decimal:
    return parse_computed(price) * parse_decimal(quantity)


def _are_equal(name: str, told: str, known: Any) -> bool:
    try:
        return parse_decimal(told) == parse_decimal(str(known))
    except BadDecimal:
        return bool(simplify_term(name, told) == simplify_term(name, known))


def _is_rounded(known: str, told: str) -> bool:
    """Whether the average that the old program tells is the known one, rounded to as many places, at least to cents."""
    exponent = parse_computed(told).as_tuple().exponent
    assert isinstance(exponent, int)
    return abs(parse_computed(known) - parse_computed(told)) * 2 <= Decimal(1).scaleb(min(exponent, -2))
