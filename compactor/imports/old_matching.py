"""Match the old trades to the orders of the old layout: by an id, by what was traded, by what several add up to.

Note: a trade that was imported before keeps the order for which it was imported. Only new trades are matched, so a
later import never moves an earlier trade to another order.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from compactor.core.decimals import parse_decimal, plain
from compactor.core.events import Problem
from compactor.imports.old_fields import simplify_term
from compactor.imports.old_orders import (
    ORDERS,
    TRADES,
    KnownOrders,
    OldLine,
    OldOrder,
    OldOrders,
    OldProblem,
    OrderIds,
    group_lines,
    name_order,
)

NEAR_TRADES_MAX = 200
"""Of how many trades, nearest in time, a sum is looked for."""

CONTRADICTS = "contradicts_order"
"""The kind of problem of an old trade that tells other terms than its order."""

_ZERO = Decimal(0)
_Key = tuple[Any, ...]


def combine_lines(
    lines: Sequence[OldLine],
    trades: Sequence[OldLine],
    known: Mapping[str, KnownOrders],
    problems: list[OldProblem],
) -> OldOrders:
    """Combine lines into orders, each with its trades. `known` says by team which orders the ledgers have."""
    orders, ids = group_lines(lines, known, problems)
    new = []
    for trade in trades:
        if trade.is_known:
            orders[trade.event["team_id"], trade.event["order_id"]].trades.append(trade)
        else:
            new.append(trade)
    strays = _match_by_id(orders, new, ids, problems)
    strays = _match_by_value(orders, strays)
    strays = _match_by_sum(orders, strays)
    _report_doubtful(orders, strays, problems)
    _add_orders_for(orders, strays, problems)
    for order in orders.values():
        order.trades.sort(key=lambda trade: (not trade.is_known, trade.ns, trade.number))
    _report_unknown_fills(orders, problems)
    return orders


def _match_by_id(orders: OldOrders, trades: list[OldLine], ids: OrderIds, problems: list[OldProblem]) -> list[OldLine]:
    """Match each old trade to the order that has its broker's id, or its order id. Returns those without a match."""
    by_id = _index_orders(orders)
    strays = []
    for trade in trades:
        team = trade.event["team_id"]
        named = [one for one in (trade.broker_id, trade.own_id) if one is not None]
        found = next((found for one in named if (found := by_id.get((team, one)))), [])
        agreeing = [order for order in found if _agree(order, trade, "symbol", "side")]
        if named:
            trade.event["order_id"] = ids.find_in_ledger(team, named[0])
        if found and not agreeing:
            if not _is_contradiction(found[0], trade, problems):
                strays.append(trade)
        elif not found or len(agreeing) > 1:
            strays.append(trade)
        elif not _is_copy(agreeing[0], trade, problems):
            agreeing[0].trades.append(trade)
    return strays


def _index_orders(orders: OldOrders) -> dict[tuple[str, str], list[OldOrder]]:
    """The orders by team and every id that the ledger or a line has for them."""
    by_id: dict[tuple[str, str], list[OldOrder]] = defaultdict(list)
    for (team, order_id), order in orders.items():
        told = (one for line in order.lines for one in (line.own_id, line.broker_id))
        for one in dict.fromkeys((order_id, *told)):
            if one is not None:
                by_id[team, one].append(order)
    return by_id


def _is_contradiction(order: OldOrder, trade: OldLine, problems: list[OldProblem]) -> bool:
    """Report a trade whose order is of another symbol or side; return whether its shares would count twice with it.

    One id cannot be two orders. What the order tells as filled by itself would come out a second time, with the other
    side. Any other trade is kept under an id of its own.
    """
    which = trade.broker_id or trade.own_id
    name = next(name for name in ("symbol", "side") if not _agree(order, trade, name))
    found = f"the trade of order {which} has the {name} {trade.event.get(name)!r}, expected {order.find(name)!r}"
    is_double = name == "side" and bool(order.filled)
    trade.event["order_id"] = name_order(trade.event)
    done = "the order tells its fill itself, so the trade is left out" if is_double else "it is an order of its own"
    problems.append(OldProblem(TRADES, trade.number, Problem(CONTRADICTS, f"{found}; {done}")))
    return is_double


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
    candidates: dict[_Key, list[OldOrder]] = defaultdict(list)
    for (team, _), order in orders.items():
        if order.trades:
            continue
        quantity = order.filled or (_ZERO if order.lines[-1].is_terminal else order.decimal("quantity"))
        if quantity:
            candidates[(*_build_key(team, order.find), plain(quantity))].append(order)
    strays = []
    for trade in trades:
        event = trade.event
        key = (*_build_key(event["team_id"], event.get), plain(parse_decimal(event["qty"])))
        fitting = [order for order in candidates[key] if _fits(order, trade)]
        if not fitting:
            strays.append(trade)
            continue
        nearest = min(fitting, key=lambda order: _measure_distance(order, trade))
        nearest.trades.append(trade)
        candidates[key].remove(nearest)
    return strays


def _match_by_sum(orders: OldOrders, trades: list[OldLine]) -> list[OldLine]:
    """Match trades that follow each other and together are what an order without a trade has filled.

    Returns the trades without a match.
    """
    waiting: dict[_Key, list[OldLine]] = defaultdict(list)
    for trade in sorted(trades, key=lambda trade: (trade.ns, trade.number)):
        waiting[_build_key(trade.event["team_id"], trade.event.get)].append(trade)
    taken: set[int] = set()
    for team, order in _list_untraded(orders):
        key = _build_key(team, order.find)
        if parts := _find_sum(order, waiting.get(key, [])):
            order.trades += parts
            taken.update(map(id, parts))
            waiting[key] = [trade for trade in waiting[key] if id(trade) not in taken]
    return [trade for trade in trades if id(trade) not in taken]


def _list_untraded(orders: OldOrders) -> Iterator[tuple[str, OldOrder]]:
    """The orders that tell what is filled and have no trade, by the time of their end."""
    found = [(team, order) for (team, _), order in orders.items() if order.lines and not order.trades and order.filled]
    yield from sorted(found, key=lambda item: item[1].lines[-1].ns)


def _find_sum(order: OldOrder, trades: list[OldLine]) -> list[OldLine]:
    """The run of fitting trades that adds up to what an order has filled, and ends nearest to its last line."""
    ns = order.lines[-1].ns
    middle = bisect_left(trades, ns, key=lambda trade: trade.ns)
    near = trades[max(0, middle - NEAR_TRADES_MAX // 2) : middle + NEAR_TRADES_MAX // 2]
    fitting = [trade for trade in near if _fits(order, trade)]
    quantities = [parse_decimal(trade.event["qty"]) for trade in fitting]
    begin, total, runs = 0, _ZERO, []
    for end, told in enumerate(quantities, 1):
        total += told
        while total > order.filled:
            total -= quantities[begin]
            begin += 1
        if total == order.filled:
            runs.append(fitting[begin:end])
    return min(runs, key=lambda run: abs(run[-1].ns - ns), default=[])


def _report_doubtful(orders: OldOrders, trades: list[OldLine], problems: list[OldProblem]) -> None:
    """Report trades without a match that may be a part of an order which tells its fill itself."""
    untraded: dict[_Key, list[OldOrder]] = defaultdict(list)
    for team, order in _list_untraded(orders):
        for price in (_find_asked(order), "any"):
            untraded[(*_build_key(team, order.find), price)].append(order)
    for trade in trades:
        key, wanted = _build_key(trade.event["team_id"], trade.event.get), trade.decimal("requested_price")
        prices = ("any",) if wanted is None else (wanted, None)
        candidates = (order for price in prices for order in untraded.get((*key, price), ()))
        quantity = parse_decimal(trade.event["qty"])
        found = next((order for order in candidates if quantity < order.filled and _fits(order, trade)), None)
        if found is not None:
            which, filled = found.lines[0].event["order_id"], plain(found.filled)
            detail = f"it may be a part of order {which}, which has {filled} filled and no trade of that quantity"
            told = "it is an order of its own, so compare the position with the broker's"
            problems.append(OldProblem(TRADES, trade.number, Problem("doubtful_trade", f"{detail}; {told}")))


def _report_unknown_fills(orders: OldOrders, problems: list[OldProblem]) -> None:
    """Report orders that are filled where nothing tells how much: no trade, no quantity."""
    for order in orders.values():
        ends = [line for line in order.lines if line.event.get("order_status") == "filled" and not line.is_known]
        if ends and not order.trades and not order.filled:
            detail = "the order is `filled`, and neither a `filled_qty`, a `quantity` nor a trade tells how much"
            problems.append(OldProblem(ORDERS, ends[-1].number, Problem("unknown_fill", detail)))


def _add_orders_for(orders: OldOrders, trades: list[OldLine], problems: list[OldProblem]) -> None:
    """Make an order for each id of the trades whose order no line tells of."""
    for trade in trades:
        order = orders[trade.event["team_id"], trade.event["order_id"]]
        if not _is_copy(order, trade, problems):
            order.trades.append(trade)


def _build_key(team: str, find: Any) -> _Key:
    return team, simplify_term("symbol", find("symbol")), find("side")


def _fits(order: OldOrder, trade: OldLine) -> bool:
    asked = _find_asked(order)
    wanted = trade.decimal("requested_price")
    same_price = asked is None or wanted is None or asked == wanted
    in_time = bool(order.filled) or order.lines[0].ns <= trade.ns
    return same_price and in_time and _agree(order, trade, "broker_order_id", "order_type")


def _find_asked(order: OldOrder) -> Decimal | None:
    return order.decimal("requested_price") or order.decimal("limit_price")


def _agree(order: OldOrder, trade: OldLine, *names: str) -> bool:
    """Whether the order and the trade agree on these fields where both have them."""
    told = ((simplify_term(name, order.find(name)), simplify_term(name, trade.event.get(name))) for name in names)
    return all(ours == theirs or None in (ours, theirs) for ours, theirs in told)


def _measure_distance(order: OldOrder, trade: OldLine) -> tuple[bool, bool, int, int]:
    last = order.lines[-1]
    return (
        not order.filled,
        last.decimal("filled_avg_price") != trade.decimal("price"),
        abs(last.ns - trade.ns),
        last.number,
    )
