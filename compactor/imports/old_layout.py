"""Translate the lines of the old layout into events.

Each line of an old `pending_orders.jsonl` is an order as it then was, and becomes a `snapshot`. Each line of the old
`trades.jsonl` is a filled order, and becomes the `fill` of its order. Pure: takes lines, returns events. Reading files,
writing, and what a ledger already has are left to `legacy`.

Invariant: the lines of an order whose trade is known do not carry what is filled, or the same shares would count twice,
as the trade and as what the fold infers from the order (format.md, rule 4.7). An order without a known trade carries
it, so that its fill is not lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from compactor.broker.port import content_digest, parse
from compactor.core.decimals import exactly, parse_decimal, plain
from compactor.core.events import TERMS, Problem
from compactor.core.instants import nanos
from compactor.core.lifecycle import normalize_name
from compactor.imports.dialects import is_zero
from compactor.imports.old_fields import read_fields
from compactor.imports.old_matching import combine_lines
from compactor.imports.old_orders import (
    ORDERS,
    TRADES,
    UNKNOWN_ORDER,
    Fields,
    KnownOrders,
    OldLine,
    OldOrder,
    OldOrders,
    OldProblem,
    name_order,
)
from compactor.imports.writer import check_event

ORDER_NAMES = {"status": "order_status", "filled_qty": "filled_qty", "filled_avg_price": "filled_avg_price"}
TRADE_NAMES = {"execution_price": "price", "quantity": "qty"}

_ZERO = Decimal(0)
_BOM = b"\xef\xbb\xbf"


class OldEvent(NamedTuple):
    """The event that one old line became, its file, its number, and whether the log has it."""

    file: str
    line: int
    event: Fields
    is_known: bool = False


class OldLedger(NamedTuple):
    """The events of old files, in the order to append them, the lines that could not be read, and the orders."""

    events: list[OldEvent]
    problems: list[OldProblem]
    orders: OldOrders

    def list_orders(self, team: str) -> dict[str, OldOrder]:
        """The orders of one team, by order id."""
        return {order_id: order for (of_team, order_id), order in self.orders.items() if of_team == team}


class OldLines(msgspec.Struct):
    """The readable lines of the old files of one directory, and the problems of the others."""

    orders: list[OldLine]
    trades: list[OldLine]
    problems: list[OldProblem]

    @property
    def teams(self) -> set[str]:
        return {line.event["team_id"] for line in (*self.orders, *self.trades)}


def translate_old_layout(
    orders: Iterable[bytes | Problem], trades: Iterable[bytes | Problem] = (), *, team: str | None = None
) -> OldLedger:
    """Translate the lines of an old `pending_orders.jsonl` and of the `trades.jsonl` beside it into events."""
    return translate_old_lines(read_old_lines(orders, trades, team=team), {})


def read_old_lines(
    orders: Iterable[bytes | Problem], trades: Iterable[bytes | Problem], *, team: str | None
) -> OldLines:
    """Read old lines. Each has the team of its `team_id`, else `team`; a line of another team than `team` is a problem.

    A line is identified by its content and its occurrence, so that it is the same wherever it stands in a file.
    """
    problems: list[OldProblem] = []
    return OldLines(
        list(_read_lines(ORDERS, orders, team, problems)), list(_read_lines(TRADES, trades, team, problems)), problems
    )


def translate_old_lines(old: OldLines, known: Mapping[str, KnownOrders]) -> OldLedger:
    """Translate lines into events: by time, and an order's fill before the line that ends it.

    The whole files are needed at once, because the last lines of an order and its trade decide what its first lines
    carry. `known` says by team which orders the ledgers have.
    """
    problems = list(old.problems)
    with exactly():
        orders = combine_lines(old.orders, old.trades, known, problems)
        placed = [item for order in orders.values() for item in _build_events(order)]
    placed.sort(key=lambda item: item[0])
    return OldLedger([found for _, found in placed], problems, orders)


def _read_lines(
    file: str, lines: Iterable[bytes | Problem], team: str | None, problems: list[OldProblem]
) -> Iterator[OldLine]:
    """Read the lines that are events; the others go to `problems`. Blank lines are skipped."""
    seen, unreadable, start = Counter[str](), list[OldProblem](), b""
    for number, line in enumerate(lines, 1):
        if isinstance(line, Problem):
            unreadable.append(OldProblem(file, number, line))
            continue
        text = line.removeprefix(_BOM).rstrip(b"\r\n")
        if not text.strip():
            continue
        start = start or text.strip()
        found = read_old_line(file, text, team)
        if isinstance(found, Problem):
            unreadable.append(OldProblem(file, number, found))
            continue
        seen[found.text] += 1
        found.number = number
        _identify_line(file, found, seen[found.text])
        yield found
    command = "jq -c '.[]'" if start.startswith(b"[") else "jq -c ." if start == b"{" else None
    if command is not None and unreadable:
        detail = (
            f"found a JSON array or objects over many lines, expected one object per line; run {command} on the file"
        )
        unreadable = [OldProblem(file, unreadable[0].line, Problem("not_lines", detail))]
    problems += unreadable


def read_old_line(file: str, line: bytes, team: str | None) -> OldLine | Problem:
    """Read one line of an old file, as its first occurrence."""
    found = parse(line)
    if isinstance(found, Problem):
        return found
    if not isinstance(found, dict):
        return Problem("bad_value", f"expected a JSON object, found {type(found).__name__}")
    told = read_fields(found)
    if team is not None and told.setdefault("team_id", team) != team:
        return Problem("wrong_team", f"`team_id` is {told['team_id']!r} in the files of team {team!r}")
    text = line.decode()
    event = _build_snapshot(told) if file == ORDERS else _build_fill(told)
    event |= {"source": "import", "raw": text} | _drop_missing(team_id=told.get("team_id"))
    own_id = told.get("order_id")
    read = OldLine(0, text, event, 0, own_id=None if own_id is None else str(own_id))
    _identify_line(file, read, 1)
    problem = _find_problem(event)
    if problem is None:
        read.ns = nanos(event["ts"])
    return problem or read


def _identify_line(file: str, line: OldLine, occurrence: int) -> None:
    """Give a line the identity of the nth line of its content."""
    line.event["event_id"] = content_digest([file, occurrence, line.text])
    if file == TRADES:
        line.event["execution_id"] = f"legacy:{blake2b(line.event['event_id'].encode(), digest_size=8).hexdigest()}"
        if line.event.get("order_id", UNKNOWN_ORDER).startswith(UNKNOWN_ORDER):
            line.event["order_id"] = name_order(line.event)


def _build_snapshot(told: Fields) -> Fields:
    event = {name: told[name] for name in TERMS if name in told} | _rename_fields(told, ORDER_NAMES)
    order_id, ts = told.get("order_id") or told.get("broker_order_id"), told.get("updated_at") or told.get("created_at")
    is_filled = normalize_name(str(event.get("order_status", ""))) == "filled"
    if is_filled and "quantity" in event and is_zero(event.get("filled_qty", "0")):
        event["filled_qty"] = event["quantity"]  # A filled order that does not say how much is filled whole.
    return {"event": "snapshot"} | _drop_missing(order_id=order_id, ts=ts) | event


def _build_fill(told: Fields) -> Fields:
    terms = {name: told[name] for name in TERMS if name in told and name != "quantity"}
    order_id, ts = told.get("broker_order_id") or told.get("order_id"), told.get("timestamp")
    return {"event": "fill"} | _drop_missing(order_id=order_id, ts=ts) | terms | _rename_fields(told, TRADE_NAMES)


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


def _build_events(order: OldOrder) -> Iterator[tuple[tuple[int, int], OldEvent]]:
    """Build the events of one order, each with its sort key, time and line; fills before the line they belong to."""
    ends = [index for index, line in enumerate(order.lines) if line.is_terminal]
    before = ends[0] if ends else len(order.lines) - 1
    anchor = order.lines[before] if order.lines else order.trades[0]
    yield from (((anchor.ns, anchor.number), fill) for fill in _build_fills(order))
    traded = order.traded
    for index, line in enumerate(order.lines):
        filled = line.decimal("filled_qty") or _ZERO
        # What the trades tell is left out. What goes beyond them, or contradicts them at the end, is left to the fold.
        told_by_trades = bool(order.trades) and (filled <= traded if index < before else filled in (_ZERO, traded))
        hidden = ("filled_qty", "filled_avg_price") if told_by_trades else ()
        event = {name: value for name, value in line.event.items() if name not in hidden}
        yield (line.ns, line.number), OldEvent(ORDERS, line.number, event, line.is_known)


def _build_fills(order: OldOrder) -> Iterator[OldEvent]:
    """Build the fills of an order from its old trades, with its terms and the cumulative quantity after each.

    An old trade may be an execution, or all of an order at its average price, rounded or not. So one of an order that
    other sources may tell of has no quantity of its own: the ledger takes what is new of the cumulative one, at the
    trade's price, and its executions take that place whenever they are told (format.md, rules 4.4 and 4.8).
    """
    own_id = {"order_id": order.lines[0].event["order_id"]} if order.lines else {}
    quantity = order.decimal("quantity")
    is_filled = any(normalize_name(line.event.get("order_status", "")) == "filled" for line in order.lines)
    known = _ZERO
    for trade in order.trades:
        known += parse_decimal(trade.event["qty"])
        # Only the execution that completes an order ends it; a partly filled order may still be open.
        is_last = trade is order.trades[-1]
        completes = (quantity is not None and known >= quantity) or (is_last and (is_filled or quantity is None))
        name = "fill" if completes else "partial_fill"
        event = trade.event | _list_terms(order, TERMS, trade.ns) | own_id
        if not event["order_id"].startswith(UNKNOWN_ORDER):
            del event["qty"]
        yield OldEvent(TRADES, trade.number, event | {"event": name, "filled_qty": plain(known)}, trade.is_known)


def _list_terms(order: OldOrder, names: Sequence[str], ns: int) -> Fields:
    return {name: value for name in names if (value := order.find(name, ns)) is not None}


def _rename_fields(told: Fields, names: dict[str, str]) -> Fields:
    return {ours: told[theirs] for theirs, ours in names.items() if theirs in told}


def _drop_missing(**fields: Any) -> Fields:
    return {name: value for name, value in fields.items() if value is not None}
