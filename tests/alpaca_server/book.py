"""The orders and executions of one account, and how new ones are made: what a broker keeps, without what it does.

`exchange` lets things happen to them and tells of it.
"""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from tests.alpaca_server.clock import Clock
from tests.alpaca_server.orders import Execution, Order, terms_of
from tests.alpaca_server.sessions import in_new_york

Number = Decimal | str | int


class OrderBook:
    """All orders by id and by client_order_id, and all executions by every id that they have had."""

    def __init__(self, seed: int = 0, start: str | None = None) -> None:
        self.rng = random.Random(f"exchange {seed}")
        self.clock = Clock(self.rng, start)
        self.account_id = self._uuid()
        self.orders: dict[str, Order] = {}
        self.by_client_id: dict[str, str] = {}
        self.executions: dict[str, Execution] = {}
        self.gone: dict[str, Order] = {}
        """The orders of before a reset, of which the broker knows nothing any more."""
        self.lock = threading.RLock()

    def reset(self) -> None:
        """Begin anew, as a paper account does: another account id, and no order."""
        with self.lock:
            self.gone |= self.orders
            for found in (self.orders, self.by_client_id, self.executions):
                found.clear()
            self.account_id = self._uuid()

    def _new_order(
        self, client_order_id: str, team: str, symbol: str, side: str, qty: Number | None, notional: Number | None,
        at: int | None, terms: Mapping[str, Any],
    ) -> Order:  # fmt: skip
        now = self.clock.tick() if at is None else at
        order = Order(
            self._uuid(), client_order_id, team, now, now, now, symbol, side,
            qty=Decimal(str(qty)) if qty is not None and notional is None else None,
            notional=Decimal(str(notional)) if notional is not None else None,
            **terms_of(terms),
        )  # fmt: skip
        order.position_intent = order.position_intent or ("" if order.is_multi_leg else f"{side}_to_open")
        self._add(order)
        return order

    def _new_legs(self, order: Order, terms: Mapping[str, Any]) -> list[Order]:
        """The legs that come with an order: two exits, one, or those of a multi-leg order."""
        if order.order_class == "mleg":
            return [
                self._new_leg(
                    order, leg["symbol"], leg.get("side") or str(leg.get("position_intent", "buy")).split("_")[0],
                    type="", ratio=int(leg.get("ratio_qty") or 1), position_intent=leg.get("position_intent") or "",
                )
                for leg in terms.get("legs") or ()
            ]  # fmt: skip
        opposite = "sell" if order.side == "buy" else "buy"
        side = order.side if order.order_class == "oco" else opposite
        legs = []
        if terms.get("take_profit") and order.order_class != "oco":
            price = terms["take_profit"]["limit_price"]
            legs.append(self._new_leg(order, order.symbol, side, type="limit", limit_price=price, status="held"))
        if terms.get("stop_loss"):
            stop = terms["stop_loss"]
            kind = "stop_limit" if stop.get("limit_price") else "stop"
            prices = {"stop_price": stop["stop_price"], "limit_price": stop.get("limit_price")}
            legs.append(self._new_leg(order, order.symbol, side, type=kind, status="held", **prices))
        return legs

    def _new_leg(self, parent: Order, symbol: str, side: str, *, ratio: int = 1, **terms: Any) -> Order:
        status = terms.pop("status", "pending_new")
        leg = Order(
            self._uuid(), self._uuid(), parent.team, parent.created_at, parent.submitted_at, parent.updated_at,
            symbol, side, qty=(parent.qty or Decimal(1)) * ratio, parent=parent.id, status=status, ratio=ratio,
            order_class=parent.order_class,
            **terms_of({"time_in_force": parent.time_in_force, **terms}),
        )  # fmt: skip
        self._add(leg)
        return leg

    def _add(self, order: Order) -> None:
        self.orders[order.id] = order
        self.by_client_id[order.client_order_id] = order.id

    def _execute(self, order: Order, qty: Decimal, price: Decimal, at: int, is_last: bool) -> Execution:
        cum = order.filled_qty + qty
        leaves = None if order.qty is None else order.qty - cum
        execution = Execution(self._uuid(), order.id, self._activity_id(at), at, qty, price, cum, leaves, is_last)
        order.executions.append(execution)
        order.filled, order.cost = cum, order.cost + qty * price
        self.executions[execution.id] = execution
        return execution

    def _legs(self, order: Order) -> list[Order]:
        return [self.orders[leg] for leg in order.legs]

    def _price(self, order: Order) -> Decimal:
        base = order.limit_price or order.stop_price or Decimal("100.00")
        # Prices of options and crypto have more digits than shares have.
        step = Decimal(self.rng.choice(("0.01", "0.01", "0.0001", "0.00000001")))
        return max(base + step * self.rng.randrange(-40, 41), step)

    def _activity_id(self, at: int) -> str:
        return f"{in_new_york(at):%Y%m%d%H%M%S}{at // 1_000_000 % 1000:03d}::{self._uuid()}"

    def _uuid(self) -> str:
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))
