"""Translate the lines of the old layout into events.

Each line of an old `pending_orders.jsonl` is an order as it then was, and becomes a `snapshot`. Each line of the old
`trades.jsonl` is a filled order, and becomes the `fill` of its order. Pure: takes lines, returns events. Reading files,
writing, and what a ledger already has are left to `legacy`.

Invariant: the lines of an order whose trade is known do not carry what is filled, or the same shares would count twice,
as the trade and as what the fold infers from the order (format.md, rule 4.7). An order without a known trade carries
it, so that its fill is not lost.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from compactor.broker.alpaca import content_digest, parse
from compactor.core.decimals import decimal_of, plain
from compactor.core.events import TERMS, Problem
from compactor.core.instants import nanos
from compactor.core.lifecycle import TERMINAL, normalize_name
from compactor.imports.writer import check_event

Fields = dict[str, Any]

ORDERS, TRADES = "orders", "trades"

ORDER_NAMES = {"status": "order_status", "filled_qty": "filled_qty", "filled_avg_price": "filled_avg_price"}
TRADE_NAMES = {"execution_price": "price", "quantity": "qty"}

_WITHOUT_OFFSET = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?")
_ZERO = Decimal(0)


class OldProblem(NamedTuple):
    """A line of the old files that could not be read: its file, its number counted from 1, and the reason."""

    file: str
    line: int
    problem: Problem


class OldEvent(NamedTuple):
    """The event that one old line became, its file and its number."""

    file: str
    line: int
    event: Fields


class OldLedger(NamedTuple):
    """The events of old files, in the order to append them, and the lines that could not be read."""

    events: list[OldEvent]
    problems: list[OldProblem]


class _Line(msgspec.Struct):
    """One readable old line as an event, before it is combined with others."""

    number: int
    event: Fields
    ns: int

    def decimal(self, name: str) -> Decimal | None:
        return decimal_of(self.event[name]) if name in self.event else None

    @property
    def is_terminal(self) -> bool:
        return normalize_name(self.event.get("order_status", "")) in TERMINAL


class _Order(msgspec.Struct, eq=False):
    """All lines of one order, by time, and its old trades."""

    lines: list[_Line] = []
    trades: list[_Line] = []

    def first(self, name: str) -> Any:
        """A term, from the first line that carries it (rule 3.2)."""
        return next((line.event[name] for line in self.lines if name in line.event), None)

    def decimal(self, name: str) -> Decimal | None:
        text = self.first(name)
        return None if text is None else decimal_of(text)

    @property
    def filled(self) -> Decimal:
        return max((line.decimal("filled_qty") or _ZERO for line in self.lines), default=_ZERO)

    @property
    def traded(self) -> Decimal:
        return sum((decimal_of(trade.event["qty"]) for trade in self.trades), _ZERO)


_Book = dict[tuple[str, str], _Order]


def translate_old_layout(
    orders: Iterable[bytes], trades: Iterable[bytes] = (), *, team: str | None = None
) -> OldLedger:
    """Translate the lines of an old `pending_orders.jsonl` and of the `trades.jsonl` beside it into events.

    Each event has the `team_id` of its line, else `team`; a line of another team than `team` is a problem. Events come
    by time, and an order's fill before the line that ends it. The whole files are needed at once, because the last
    lines of an order and its trade decide what its first lines carry.
    """
    problems: list[OldProblem] = []
    order_lines = list(_read_lines(ORDERS, orders, team, problems))
    trade_lines = list(_read_lines(TRADES, trades, team, problems))
    book = _group_lines(order_lines)
    strays = _match_by_id(book, trade_lines, problems)
    strays = _match_by_value(book, strays)
    _add_orders_for(book, strays, problems)
    placed = [item for order in book.values() for item in _build_events(order)]
    placed.sort(key=lambda item: item[0])
    return OldLedger([found for _, found in placed], problems)


def _read_lines(file: str, lines: Iterable[bytes], team: str | None, problems: list[OldProblem]) -> Iterator[_Line]:
    """Read the lines that are events; the others go to `problems`. Blank lines are skipped."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        event = _read_line(file, number, line.rstrip(b"\r\n"), team)
        problem = event if isinstance(event, Problem) else _find_problem(event)
        if isinstance(problem, Problem):
            problems.append(OldProblem(file, number, problem))
        elif isinstance(event, dict):
            yield _Line(number, event, nanos(event["ts"]))


def _read_line(file: str, number: int, line: bytes, team: str | None) -> Fields | Problem:
    found = parse(line)
    if isinstance(found, Problem):
        return found
    if not isinstance(found, dict):
        return Problem("bad_value", f"expected a JSON object, found {type(found).__name__}")
    told = {name: _normalize_value(value) for name, value in found.items() if value is not None and value != ""}
    if team is not None and told.setdefault("team_id", team) != team:
        return Problem("wrong_team", f"`team_id` is {told['team_id']!r} in the files of team {team!r}")
    text = line.decode()
    event = _build_snapshot(told) if file == ORDERS else _build_fill(told, number)
    event |= {"event_id": content_digest([file, number, text]), "source": "import", "raw": text}
    event |= _drop_missing(team_id=told.get("team_id"))
    if file == TRADES:
        event.setdefault("order_id", _name_order(event))
    return event


def _build_snapshot(told: Fields) -> Fields:
    event = {name: told[name] for name in TERMS if name in told} | _rename_fields(told, ORDER_NAMES)
    order_id, ts = told.get("order_id") or told.get("broker_order_id"), told.get("updated_at") or told.get("created_at")
    if (
        normalize_name(event.get("order_status", "")) == "filled"
        and "filled_avg_price" in event
        and "quantity" in event
    ):
        event.setdefault("filled_qty", event["quantity"])  # A filled order that does not say how much is filled whole.
    return {"event": "snapshot"} | _drop_missing(order_id=order_id, ts=ts) | event


def _build_fill(told: Fields, number: int) -> Fields:
    event = {name: told[name] for name in TERMS if name in told and name != "quantity"} | _rename_fields(
        told, TRADE_NAMES
    )
    order_id, ts = told.get("broker_order_id"), told.get("timestamp")
    return {"event": "fill", "execution_id": f"legacy:{number}"} | _drop_missing(order_id=order_id, ts=ts) | event


def _name_order(trade: Fields) -> str:
    """Make an id for an order that is known from an old trade only."""
    return f"legacy-trade:{trade['event_id'].removeprefix('digest:')}"


def _find_problem(event: Fields) -> Problem | None:
    """Return why an old line is no event, by the same check as for any line of a log; else None."""
    if "order_id" not in event:
        return Problem("missing_field", "neither `order_id` nor `broker_order_id`")
    if "ts" not in event:
        which = "no `timestamp`" if event["event"] == "fill" else "neither `updated_at` nor `created_at`"
        return Problem("missing_field", f"{which}, so its time is unknown")
    if "team_id" not in event:
        return Problem("missing_field", "`team_id` is missing, so its team is unknown")
    found = check_event(event)
    return found if isinstance(found, Problem) else None


def _group_lines(lines: list[_Line]) -> _Book:
    """Group lines into orders by team and id, each with its lines by time.

    A line that has only the broker's id joins the order for which another line has both ids.
    """
    own_ids = {
        (line.event["team_id"], line.event["broker_order_id"]): line.event["order_id"]
        for line in reversed(lines)
        if line.event.get("broker_order_id", line.event["order_id"]) != line.event["order_id"]
    }
    book: _Book = defaultdict(_Order)
    for line in lines:
        team, order_id = line.event["team_id"], line.event["order_id"]
        line.event["order_id"] = own_ids.get((team, order_id), order_id)
        book[team, line.event["order_id"]].lines.append(line)
    for order in book.values():
        order.lines.sort(key=lambda line: (line.ns, line.number))
    return book


def _match_by_id(book: _Book, trades: list[_Line], problems: list[OldProblem]) -> list[_Line]:
    """Match each old trade to the order with its broker's id. Returns the trades without a match."""
    by_broker_id = {
        (team, line.event["broker_order_id"]): order
        for (team, _), order in book.items()
        for line in order.lines
        if "broker_order_id" in line.event
    }
    strays = []
    for trade in trades:
        key = (trade.event["team_id"], trade.event.get("broker_order_id", ""))
        order = by_broker_id.get(key) or book.get(key)
        if order is None:
            strays.append(trade)
        elif not _agree(order, trade, "symbol", "side"):
            # One id cannot be two orders. The trade is kept under an id of its own.
            trade.event["order_id"] = _name_order(trade.event)
            strays.append(trade)
        elif not _is_copy(order, trade, problems):
            order.trades.append(trade)
    return strays


def _is_copy(order: _Order, trade: _Line, problems: list[OldProblem]) -> bool:
    """Whether a trade is a copy: equal to an earlier one, and beyond what was ordered. Two halves may be equal."""
    if all(other.event["raw"] != trade.event["raw"] for other in order.trades):
        return False
    ordered = max(order.decimal("quantity") or _ZERO, order.filled)
    if order.traded + decimal_of(trade.event["qty"]) <= ordered:
        return False
    detail = f"an equal line precedes it, and its order {trade.event['order_id']} is filled without it"
    problems.append(OldProblem(TRADES, trade.number, Problem("duplicate_trade", detail)))
    return True


def _match_by_value(book: _Book, trades: list[_Line]) -> list[_Line]:
    """Match trades without a known id to orders of the same team, symbol, side, quantity and requested price.

    Each order takes one. Filled orders come before open ones, then those with the same average price, then the nearest
    in time. Returns the trades without a match.
    """
    candidates: dict[tuple[Any, ...], list[_Order]] = defaultdict(list)
    for (team, _), order in book.items():
        quantity = order.filled or (_ZERO if order.lines[-1].is_terminal else order.decimal("quantity") or _ZERO)
        if quantity and not order.trades:
            candidates[team, order.first("symbol"), order.first("side"), plain(quantity)].append(order)
    strays = []
    for trade in trades:
        event = trade.event
        key = (event["team_id"], event.get("symbol"), event.get("side"), plain(decimal_of(event["qty"])))
        fitting = [order for order in candidates[key] if _fits(order, trade)]
        if not fitting:
            strays.append(trade)
            continue
        nearest = min(fitting, key=lambda order: _measure_distance(order, trade))
        nearest.trades.append(trade)
        candidates[key].remove(nearest)
    return strays


def _add_orders_for(book: _Book, trades: list[_Line], problems: list[OldProblem]) -> None:
    """Make an order for each id of the trades whose order no line tells of."""
    for trade in trades:
        order = book[trade.event["team_id"], trade.event["order_id"]]
        if not _is_copy(order, trade, problems):
            order.trades.append(trade)


def _fits(order: _Order, trade: _Line) -> bool:
    asked = order.decimal("requested_price") or order.decimal("limit_price")
    wanted = trade.decimal("requested_price")
    same_price = asked is None or wanted is None or asked == wanted
    in_time = bool(order.filled) or order.lines[0].ns <= trade.ns
    return same_price and in_time and _agree(order, trade, "broker_order_id", "order_type")


def _agree(order: _Order, trade: _Line, *names: str) -> bool:
    """Whether the order and the trade agree on these fields where both have them."""
    return all(order.first(name) in (None, trade.event.get(name)) or name not in trade.event for name in names)


def _measure_distance(order: _Order, trade: _Line) -> tuple[bool, bool, int, int]:
    last = order.lines[-1]
    return (
        not order.filled,
        last.decimal("filled_avg_price") != trade.decimal("price"),
        abs(last.ns - trade.ns),
        last.number,
    )


def _build_events(order: _Order) -> Iterator[tuple[tuple[int, int, int], OldEvent]]:
    """Build the events of one order, each with its sort key: time, line, and fills before the line they belong to."""
    ends = [index for index, line in enumerate(order.lines) if line.is_terminal]
    before = ends[0] if ends else len(order.lines) - 1
    anchor = order.lines[before] if order.lines else order.trades[0]
    yield from (((anchor.ns, anchor.number, 0), fill) for fill in _build_fills(order))
    traded = order.traded
    for index, line in enumerate(order.lines):
        filled = line.decimal("filled_qty") or _ZERO
        # What the trades tell is left out. What goes beyond them, or contradicts them at the end, is left to the fold.
        told_by_trades = bool(order.trades) and (filled <= traded if index < before else filled in (_ZERO, traded))
        hidden = ("filled_qty", "filled_avg_price") if told_by_trades else ()
        event = {name: value for name, value in line.event.items() if name not in hidden}
        yield (line.ns, line.number, 1), OldEvent(ORDERS, line.number, event)


def _build_fills(order: _Order) -> Iterator[OldEvent]:
    """Build the fills of an order from its old trades, with its terms and the cumulative quantity after each."""
    terms = {name: value for name in TERMS if (value := order.first(name)) is not None}
    own_id = {"order_id": order.first("order_id")} if order.lines else {}
    quantity = order.decimal("quantity")
    is_filled = any(normalize_name(line.event.get("order_status", "")) == "filled" for line in order.lines)
    known = _ZERO
    for trade in order.trades:
        known += decimal_of(trade.event["qty"])
        # Only the execution that completes an order ends it; a partly filled order may still be open.
        completes = quantity is None or known >= quantity or (is_filled and trade is order.trades[-1])
        name = "fill" if completes else "partial_fill"
        yield OldEvent(TRADES, trade.number, trade.event | terms | own_id | {"event": name, "filled_qty": plain(known)})


def _rename_fields(told: Fields, names: dict[str, str]) -> Fields:
    return {ours: told[theirs] for theirs, ours in names.items() if theirs in told}


def _drop_missing(**fields: Any) -> Fields:
    return {name: value for name, value in fields.items() if value is not None}


def _normalize_value(value: Any) -> Any:
    """Turn a number into its text, and read a time without an offset as UTC, which is what old programs wrote."""
    if type(value) is int:
        return str(value)
    if isinstance(value, str) and _WITHOUT_OFFSET.fullmatch(value):
        return value + "Z"
    return value
