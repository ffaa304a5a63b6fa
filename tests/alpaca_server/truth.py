"""What is true at the broker, in the words of the ledger, for tests to hold our files against."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from decimal import Decimal

from tests.alpaca_server.exchange import Exchange
from tests.alpaca_server.orders import Order

Fill = tuple[Decimal, Decimal]


@dataclass(frozen=True)
class Truth:
    """All orders by id; those that are open; of each order the executions that stand, as (quantity, price); and the
    ids of those that a reset of the account took away."""

    orders: dict[str, Order]
    open: dict[str, Order]
    fills: dict[str, Counter[Fill]]
    gone: frozenset[str] = frozenset()

    def team(self, order_id: str) -> str:
        """Whose order it is."""
        return self.orders[order_id].team


def truth_of(exchange: Exchange) -> Truth:
    """The truth at this moment."""
    with exchange.lock:
        orders = dict(exchange.orders)
        return Truth(
            orders,
            {order_id: order for order_id, order in orders.items() if order.is_open},
            {
                order_id: Counter((one.qty, one.price) for one in order.standing)
                for order_id, order in orders.items()
                if order.standing
            },
            frozenset(exchange.gone),
        )


def joined(truths: list[Truth]) -> Truth:
    """What is true of several accounts together."""
    orders: dict[str, Order] = {}
    still_open: dict[str, Order] = {}
    fills: dict[str, Counter[Fill]] = {}
    gone: frozenset[str] = frozenset()
    for truth in truths:
        orders |= truth.orders
        still_open |= truth.open
        fills |= truth.fills
        gone |= truth.gone
    return Truth(orders, still_open, fills, gone)
