"""The law that chaos holds us to: our open orders and trades beside what is true at the broker.

Who lets all of that happen is `chaos`. Note: whose an order is that names no team, and came from an
order that was never heard of, nobody knows; `unassigned` is right for it too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from tests.alpaca_server import Truth
from tests.alpaca_server.orders import UNASSIGNED, team_of

Fills = dict[str, Counter[tuple[str, Decimal, Decimal]]]
"""Our trades by order: team, quantity and price of each, and how often."""
_TERMS = {
    "symbol": "symbol", "side": "side", "quantity": "qty", "notional": "notional", "order_type": "type",
    "limit_price": "limit_price", "stop_price": "stop_price", "trail_price": "trail_price",
    "trail_percent": "trail_percent", "replaces": "replaces", "time_in_force": "time_in_force",
    "client_order_id": "client_order_id",
}  # fmt: skip


def differences(truth: Truth, data: Path, revised: Collection[str], *, unasked: Collection[str] = ()) -> Iterator[str]:
    """Where our files are not what is true at the broker; the fills of `revised` orders are left out, and of those that
    nobody could ask for everything. Of orders that a reset took away, `changed_trades` says more."""
    rows, fills = read_rows(data), read_fills(data)
    for order_id in (truth.open.keys() | rows.keys()) - set(unasked):
        if order_id not in rows:
            yield f"{order_id} is open at the broker ({truth.open[order_id].status}), and nowhere here"
        elif order_id not in truth.open:
            is_known = order_id in truth.orders
            status = truth.orders[order_id].status if is_known else "gone" if order_id in truth.gone else "unknown"
            yield f"{order_id} is open here, and {status} at the broker"
        else:
            yield from _row_differences(truth, order_id, rows[order_id], order_id in revised)
    for order_id in (truth.fills.keys() | fills.keys()) - set(unasked) - truth.gone:
        theirs, found = truth.fills.get(order_id, Counter()), fills.get(order_id, Counter())
        allowed = [Counter({(team, *fill): n for fill, n in theirs.items()}) for team in _teams(truth, order_id)]
        if found not in allowed and order_id not in revised:
            yield f"{order_id}: trades are {_shown(found)}, at the broker {_shown(allowed[0])}"


def different_sums(truth: Truth, data: Path, late: Collection[str]) -> Iterator[str]:
    """Where the trades of orders do not add up to the broker's, whatever executions they are made of."""
    fills = read_fills(data)
    for order_id in late:
        ours = sum((quantity * n for (_, quantity, _), n in fills.get(order_id, Counter()).items()), Decimal(0))
        theirs = sum((quantity * n for (quantity, _), n in truth.fills.get(order_id, Counter()).items()), Decimal(0))
        if ours != theirs and order_id not in truth.gone:
            yield f"{order_id}: trades add up to {ours}, at the broker to {theirs}"


def changed_trades(data: Path, before: Fills) -> Iterator[str]:
    """What became of the trades of orders that a reset took away: nothing may, but that nobody's become a team's. What
    was told to nobody and, for a moment, to a team as well, is the team's, as either of the two has it."""
    fills = read_fills(data)
    for order_id, expected in before.items():
        found = fills.get(order_id, Counter())
        teams, told_to = {team for team, *_ in found}, {team for team, *_ in expected}
        allowed = [expected]
        if len(teams) == 1 and UNASSIGNED in told_to and told_to <= teams | {UNASSIGNED}:
            [team] = teams
            for one in told_to:
                fills_of = [(quantity, price, n) for (of, quantity, price), n in expected.items() if of == one]
                allowed.append(Counter({(team, quantity, price): n for quantity, price, n in fills_of}))
        if found not in allowed:
            yield f"{order_id} is gone: trades were {_shown(expected)}, and are {_shown(found)}"


def find_family(truth: Truth, order_id: str) -> set[str]:
    """An order and all that it came from, its legs, and what they were replaced by."""
    found: set[str] = set()
    left = {order_id} & truth.orders.keys()
    while left:
        order = truth.orders[left.pop()]
        found.add(order.id)
        near = {order.parent, order.replaces, order.replaced_by, *order.legs}
        left |= {one for one in near if one in truth.orders} - found
    return found


def _row_differences(truth: Truth, order_id: str, rows: list[dict[str, Any]], revised: bool) -> Iterator[str]:
    order, row = truth.open[order_id], rows[0]
    if len(rows) != 1 or row["team_id"] not in _teams(truth, order_id):
        yield f"{order.id} is open in the ledgers of {[one['team_id'] for one in rows]}, and is {order.team}'s"
        return
    expected: dict[str, Any] = {"status": order.status}
    expected |= {ours: getattr(order, theirs) for ours, theirs in _TERMS.items() if getattr(order, theirs) is not None}
    if not (order.is_multi_leg or revised):
        expected["filled_qty"] = order.filled_qty
    if order.is_multi_leg:
        del expected["symbol"]
    for name, value in expected.items():
        found = row.get(name)
        same = found is not None and Decimal(found) == value if isinstance(value, Decimal) else (found or "") == value
        if not same:
            yield f"{order.id}: {name} is {found!r}, at the broker {str(value)!r}"


def _teams(truth: Truth, order_id: str) -> list[str]:
    """In whose ledger an order may be: its team's, or nobody's where only the order that it came from names a team."""
    if order_id not in truth.orders:
        return ["of no order of the broker"]
    is_named = team_of(truth.orders[order_id].client_order_id) != UNASSIGNED
    return [truth.team(order_id)] if is_named else [truth.team(order_id), UNASSIGNED]


def _shown(fills: Counter[tuple[str, Decimal, Decimal]]) -> str:
    return ", ".join(f"{n} x {quantity} at {price} ({team})" for (team, quantity, price), n in fills.items()) or "none"


def read_rows(data: Path) -> dict[str, list[dict[str, Any]]]:
    """Our open orders, by id."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for path in data.glob("team/*/pending_orders.jsonl"):
        for line in path.read_bytes().splitlines():
            row = msgspec.json.decode(line)
            rows.setdefault(row["order_id"], []).append(row)
    return rows


def read_fills(data: Path) -> Fills:
    """Our trades that stand."""
    fills: Fills = {}
    for path in data.glob("team/*/trades.jsonl"):
        for trade in _standing(path):
            numbers = Decimal(trade["quantity"]), Decimal(trade["execution_price"])
            fills.setdefault(trade["order_id"], Counter())[(path.parent.name, *numbers)] += 1
    return fills


def _standing(path: Path) -> list[dict[str, Any]]:
    """The trades of a ledger that no reversal takes back."""
    trades: list[dict[str, Any]] = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
    gone = {trade["reverses"] for trade in trades if trade["kind"] == "reversal"}
    return [trade for trade in trades if trade["kind"] != "reversal" and trade["trade_id"] not in gone]


def revised_orders(truth: Truth) -> set[str]:
    """The orders of which an execution was busted or corrected."""
    orders = truth.orders.items()
    return {order_id for order_id, order in orders if any(one.busted or one.corrected for one in order.executions)}


def find_doubled(truth: Truth) -> Iterator[str]:
    """The orders that an application placed twice; each has a name of its own."""
    names = Counter(order.client_order_id for order in truth.orders.values() if ":app-" in order.client_order_id)
    yield from (f"{name} was placed {count} times" for name, count in names.items() if count > 1)


def nameless_orders(data: Path) -> set[str]:
    """The orders of which an execution stands that was told without an id. An inferred trade is none: it gives way."""
    return {
        trade["order_id"]
        for path in data.glob("team/*/trades.jsonl")
        for trade in _standing(path)
        if "execution_id" not in trade and trade["kind"] != "inferred"
    }


def orphaned_orders(truth: Truth, data: Path) -> set[str]:
    """The orders of a team that ours left to nobody."""
    of_rows = {order_id for order_id, rows in read_rows(data).items() if rows[0]["team_id"] == UNASSIGNED}
    of_fills = {order_id for order_id, fills in read_fills(data).items() if any(one[0] == UNASSIGNED for one in fills)}
    return {one for one in of_rows | of_fills if one in truth.orders and truth.team(one) != UNASSIGNED}
