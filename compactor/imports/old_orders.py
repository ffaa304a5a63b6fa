"""Orders of the old layout: group their lines, and match the old trades to them.

Note: a line that was imported before keeps the order for which it was imported. Only new trades are matched, so a later
import never moves an earlier trade to another order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from compactor.core.decimals import parse_decimal, plain
from compactor.core.events import Problem
from compactor.core.lifecycle import TERMINAL, normalize_name

Fields = dict[str, Any]

ORDERS, TRADES = "orders", "trades"

_ZERO = Decimal(0)


class OldProblem(NamedTuple):
    """A line of the old files that could not be read: its file, its number counted from 1, and the reason."""

    file: str
    line: int
    problem: Problem


class OldLine(msgspec.Struct):
    """One readable old line as an event, before it is combined with others.

    `number` counts from 1; it is 0 for a line that is in the log and no longer in the file. `is_known` is set for a
    line that is in the log.
    """

    number: int
    text: str
    event: Fields
    ns: int
    is_known: bool = False

    def decimal(self, name: str) -> Decimal | None:
        return parse_decimal(self.event[name]) if name in self.event else None

    @property
    def is_terminal(self) -> bool:
        return normalize_name(self.event.get("order_status", "")) in TERMINAL


class OldOrder(msgspec.Struct, eq=False):
    """All lines of one order, by time, and its old trades."""

    lines: list[OldLine] = []
    trades: list[OldLine] = []

    def find(self, name: str, ns: int | None = None) -> Any:
        """A term as of an instant, else as of the end: the last line that carries it, or the first one after that."""
        carrying = [line for line in self.lines if name in line.event]
        before = [line for line in carrying if ns is None or line.ns <= ns]
        return (before or carrying[:1])[-1].event[name] if carrying else None

    def decimal(self, name: str) -> Decimal | None:
        text = self.find(name)
        return None if text is None else parse_decimal(text)

    @property
    def filled(self) -> Decimal:
        return max((line.decimal("filled_qty") or _ZERO for line in self.lines), default=_ZERO)

    @property
    def traded(self) -> Decimal:
        return sum((parse_decimal(trade.event["qty"]) for trade in self.trades), _ZERO)

    @property
    def is_in_file(self) -> bool:
        return any(line.number for line in self.lines)


class KnownOrders(NamedTuple):
    """What a ledger knows of orders: their ids, and for an id of the broker the id that the ledger uses."""

    order_ids: frozenset[str] = frozenset()
    by_broker_id: Mapping[str, str] = {}


OldOrders = dict[tuple[str, str], OldOrder]
"""By team and order id."""


def combine_lines(
    lines: Sequence[OldLine],
    trades: Sequence[OldLine],
    known: Mapping[str, KnownOrders],
    problems: list[OldProblem],
) -> OldOrders:
    """Combine lines into orders, each with its trades. `known` says by team which orders the ledgers have."""
    orders = _group_lines(lines, known)
    new = []
    for trade in trades:
        if trade.is_known:
            orders[trade.event["team_id"], trade.event["order_id"]].trades.append(trade)
        else:
            new.append(trade)
    strays = _match_by_id(orders, new, known, problems)
    strays = _match_by_value(orders, strays)
    _add_orders_for(orders, strays, problems)
    return orders


def name_order(trade: Fields) -> str:
    """Make an id for an order that is known from an old trade only."""
    return f"legacy-trade:{trade['event_id'].removeprefix('digest:')}"


def _group_lines(lines: Sequence[OldLine], known: Mapping[str, KnownOrders]) -> OldOrders:
    """Group lines into orders by team and id, each with its lines by time.

    A line that has only the broker's id joins the order for which another line, or the ledger, has both ids. An order
    that the ledger has under the broker's id alone keeps that id.
    """
    own_ids = {
        (line.event["team_id"], line.event["broker_order_id"]): line.event["order_id"]
        for line in reversed(lines)
        if line.event.get("broker_order_id", line.event["order_id"]) != line.event["order_id"]
    }
    orders: OldOrders = defaultdict(OldOrder)
    for line in lines:
        if not line.is_known:
            line.event["order_id"] = _find_order_id(line.event, own_ids, known)
        orders[line.event["team_id"], line.event["order_id"]].lines.append(line)
    for order in orders.values():
        order.lines.sort(key=lambda line: (line.ns, line.number))
    return orders


def _find_order_id(event: Fields, own_ids: Mapping[tuple[str, str], str], known: Mapping[str, KnownOrders]) -> str:
    team, order_id = event["team_id"], event["order_id"]
    broker_id, ledger = str(event.get("broker_order_id", order_id)), known.get(team, KnownOrders())
    if broker_id in ledger.by_broker_id:
        return ledger.by_broker_id[broker_id]
    known_ids = (one for one in (str(order_id), broker_id) if one in ledger.order_ids)
    return next(known_ids, own_ids.get((team, order_id), order_id))


def _match_by_id(
    orders: OldOrders, trades: list[OldLine], known: Mapping[str, KnownOrders], problems: list[OldProblem]
) -> list[OldLine]:
    """Match each old trade to the order with its broker's id. Returns the trades without a match."""
    by_broker_id = {
        (team, line.event["broker_order_id"]): order
        for (team, _), order in orders.items()
        for line in order.lines
        if "broker_order_id" in line.event
    }
    strays = []
    for trade in trades:
        team = trade.event["team_id"]
        if broker_id := trade.event.get("broker_order_id"):
            trade.event["order_id"] = known.get(team, KnownOrders()).by_broker_id.get(broker_id, broker_id)
        order = by_broker_id.get((team, broker_id)) or orders.get((team, trade.event["order_id"]))
        if order is None:
            strays.append(trade)
        elif not _agree(order, trade, "symbol", "side"):
            # One id cannot be two orders. The trade is kept under an id of its own.
            trade.event["order_id"] = name_order(trade.event)
            strays.append(trade)
        elif not _is_copy(order, trade, problems):
            order.trades.append(trade)
    return strays


def _is_copy(order: OldOrder, trade: OldLine, problems: list[OldProblem]) -> bool:
    """Whether a trade is a copy: equal to an earlier one, and beyond what was ordered. Two halves may be equal."""
    if all(other.text != trade.text for other in order.trades):
        return False
    ordered = max(order.decimal("quantity") or _ZERO, order.filled)
    if order.traded + parse_decimal(trade.event["qty"]) <= ordered:
        return False
    detail = f"an equal line precedes it, and its order {trade.event['order_id']} is filled without it"
    problems.append(OldProblem(TRADES, trade.number, Problem("duplicate_trade", detail)))
    return True


def _match_by_value(orders: OldOrders, trades: list[OldLine]) -> list[OldLine]:
    """Match trades without a known id to orders of the same team, symbol, side, quantity and requested price.

    Each order takes one. Filled orders come before open ones, then those with the same average price, then the nearest
    in time. Returns the trades without a match.
    """
    candidates: dict[tuple[Any, ...], list[OldOrder]] = defaultdict(list)
    for (team, _), order in orders.items():
        if order.trades:
            continue
        quantity = order.filled or (_ZERO if order.lines[-1].is_terminal else order.decimal("quantity"))
        if quantity:
            candidates[team, order.find("symbol"), order.find("side"), plain(quantity)].append(order)
    strays = []
    for trade in trades:
        event = trade.event
        key = (event["team_id"], event.get("symbol"), event.get("side"), plain(parse_decimal(event["qty"])))
        fitting = [order for order in candidates[key] if _fits(order, trade)]
        if not fitting:
            strays.append(trade)
            continue
        nearest = min(fitting, key=lambda order: _measure_distance(order, trade))
        nearest.trades.append(trade)
        candidates[key].remove(nearest)
    return strays


def _add_orders_for(orders: OldOrders, trades: list[OldLine], problems: list[OldProblem]) -> None:
    """Make an order for each id of the trades whose order no line tells of."""
    for trade in trades:
        order = orders[trade.event["team_id"], trade.event["order_id"]]
        if not _is_copy(order, trade, problems):
            order.trades.append(trade)


def _fits(order: OldOrder, trade: OldLine) -> bool:
    asked = order.decimal("requested_price") or order.decimal("limit_price")
    wanted = trade.decimal("requested_price")
    same_price = asked is None or wanted is None or asked == wanted
    in_time = bool(order.filled) or order.lines[0].ns <= trade.ns
    return same_price and in_time and _agree(order, trade, "broker_order_id", "order_type")


def _agree(order: OldOrder, trade: OldLine, *names: str) -> bool:
    """Whether the order and the trade agree on these fields where both have them."""
    return all(order.find(name) in (None, trade.event.get(name)) or name not in trade.event for name in names)


def _measure_distance(order: OldOrder, trade: OldLine) -> tuple[bool, bool, int, int]:
    last = order.lines[-1]
    return (
        not order.filled,
        last.decimal("filled_avg_price") != trade.decimal("price"),
        abs(last.ns - trade.ns),
        last.number,
    )
