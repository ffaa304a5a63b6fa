"""How the broker words what it says: orders, trade updates, FILL activities and replayed events as JSON.

What happened is for `exchange`. Note: the oddities are as real as the rest. One message mixes time
zones and digits, has numbers instead of strings now and then, keys with a space behind them and empty order classes,
because that is what Alpaca has sent; `plain` writers leave them out.
"""

from __future__ import annotations

import random
import uuid
from decimal import Decimal
from typing import Any

import msgspec

from compactor.core.instants import nanos
from tests.alpaca_server.clock import written
from tests.alpaca_server.exchange import Exchange
from tests.alpaca_server.orders import Execution, Happening, Order
from tests.alpaca_server.sessions import settle_date

Json = dict[str, Any]
NOBODY = "00000000-0000-0000-0000-000000000000"
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_OPTION_LENGTH = 15
_REASONS = {
    "canceled": ("CORPORATE_ACTION", "canceled by the user, at 19:59:59"),
    "rejected": ("CORPORATE_ACTION", "insufficient buying power"),
    "order_cancel_rejected": ("TOO_LATE_TO_CANCEL",),
    "trade_bust": ("TRADE_BUST",),
}
"""Why something happened, on some events: a word, or a sentence."""


class Writer:
    """Words what one account's exchange knows; seeded, so that the same seed says the same."""

    def __init__(self, exchange: Exchange, seed: int = 0, plain: bool = False) -> None:
        self._exchange = exchange
        self._rng = random.Random(f"wire {seed}")
        self._plain = plain
        self.share_without_event_id = 0.0
        """How many of the stream's updates have no `event_id`, which is optional."""
        self.carries_sums = False
        """Whether a replacement counts what its predecessor had filled, as some users report."""
        self._positions: dict[str, Decimal] = {}
        self.activity_ids_match = not plain and random.Random(f"ids {seed}").random() < 0.5
        """Whether the second part of an activity's id is the execution id of the stream."""
        self.rest_names_parents = not plain and random.Random(f"spreads {seed}").random() < 0.5
        """Whether FILL activities of a multi-leg order name the parent: users report either."""

    def encode(self, message: Any) -> bytes:
        """The bytes of a message, whose decimals are strings mostly and numbers sometimes; exact in both cases."""
        return msgspec.json.encode(_spelled(message, as_number=self._chance(0.04)))

    def order(self, order: Order, nested: bool = False, told: bool = False) -> Json:
        """An order as REST tells it, or (`told`) the stream."""
        found: Json = {
            "id": order.id,
            "client_order_id": order.client_order_id,
            "created_at": self._time(order.created_at),
            "updated_at": self._time(order.updated_at),
            "submitted_at": self._time(order.submitted_at),
            "filled_at": self._time(order.filled_at),
            "expired_at": self._time(order.expired_at),
            "canceled_at": self._time(order.canceled_at),
            "failed_at": self._time(order.failed_at),
            "replaced_at": self._time(order.replaced_at),
            "replaced_by": order.replaced_by,
            "replaces": order.replaces,
            "asset_id": NOBODY if order.is_multi_leg else str(uuid.uuid5(uuid.NAMESPACE_DNS, order.symbol)),
            "symbol": "" if order.is_multi_leg else order.symbol,
            "asset_class": "" if order.is_multi_leg else _asset_class(order.symbol),
            "notional": order.notional,
            "qty": order.qty,
            **self._sums(order),
            "order_class": order.order_class or self._class_of_simple(order, told),
            "order_type": order.type,
            "type": order.type,
            "side": order.side,
            "time_in_force": order.time_in_force,
            "limit_price": order.limit_price,
            "stop_price": order.stop_price,
            "status": order.status,
            "extended_hours": order.extended_hours,
            "legs": None,
            "trail_percent": order.trail_percent,
            "trail_price": order.trail_price,
            "hwm": None,
            "subtag": None,
            "source": None,
        }
        if order.advanced_instructions is not None:
            found["advanced_instructions"] = dict(order.advanced_instructions)
        if order.position_intent:
            found["position_intent"] = order.position_intent
        if order.parent is not None and order.order_class == "mleg":
            found["ratio_qty"] = str(order.ratio)
        found |= self._group(order)
        if nested and order.legs:
            found["legs"] = [self.order(self._exchange.orders[leg]) for leg in order.legs]
        if self._chance(0.03):
            odd = self._rng.choice(("expired_at", "hwm", "subtag", "asset_class", "time_in_force", "limit_price"))
            found[odd + " "] = found.pop(odd)
        return found

    def _sums(self, order: Order) -> Json:
        """What is filled of an order, and its average price; where sums are carried, with what its predecessors had."""
        filled, cost = order.filled_qty, order.cost
        earlier = self._exchange.orders.get(order.replaces or "") if self.carries_sums else None
        while earlier is not None and not earlier.is_multi_leg:
            filled, cost = filled + earlier.filled, cost + earlier.cost
            earlier = self._exchange.orders.get(earlier.replaces or "")
        if filled == order.filled_qty:
            return {"filled_qty": filled, "filled_avg_price": order.filled_avg_price}
        return {"filled_qty": filled, "filled_avg_price": (cost / filled).quantize(Decimal("1e-9")).normalize()}

    def _group(self, order: Order) -> Json:
        """What ties the orders of a bracket, OTO or OCO, replacements included; other orders have none."""
        if order.order_class not in ("bracket", "oto", "oco"):
            return {}
        first = order
        while (earlier := first.parent or first.replaces) is not None and earlier in self._exchange.orders:
            first = self._exchange.orders[earlier]
        is_exit = order.parent is not None or order.order_class == "oco"
        role = ("take_profit" if order.type == "limit" else "stop_loss") if is_exit else "entry"
        return {"group_id": str(uuid.uuid5(uuid.NAMESPACE_OID, first.id)), "group_role": role}

    def update(self, happening: Happening) -> Json:
        """A trade update, without the frame around it."""
        order, execution = happening.order, happening.execution
        body = self.order(order, told=True) | {"legs": [self.order(leg, told=True) for leg in happening.legs] or None}
        found: Json = {
            "at": self._time(happening.at + self._rng.randrange(1, 3_000_000)),
            "event": happening.event,
            "event_id": self.ulid(happening.at),
            "timestamp": self._time(happening.at),
            "order": body,
        }
        if happening.event in _REASONS and not self._plain and order.id[0] in "01234567":
            reasons = _REASONS[happening.event]
            found["reason"] = reasons[int(order.id[1], 16) % len(reasons)]
        if execution is not None:
            found |= {"price": execution.price, "qty": execution.qty}
            found["position_qty"] = self._position(order, execution)
            if happening.leg_executions:
                found["legs"] = [self._leg_execution(one, happening) for one in happening.leg_executions]
            else:
                found["execution_id"] = execution.id
                if order.id in happening.previous:
                    found["previous_execution_id"] = happening.previous[order.id]
        elif happening.event == "pending_new":
            found |= {"execution_id": None, "price": None, "position_qty": None, "qty": None}
        elif happening.event in ("new", "canceled", "replaced") and self._chance(0.7):
            found["execution_id"] = str(uuid.UUID(int=self._rng.getrandbits(128), version=4))
        return found

    def activity(self, execution: Execution) -> Json:
        """A FILL activity as it stands now. Its id is not the stream's."""
        order = self._exchange.orders[execution.order_id]
        short = order.side == "sell" and self._chance(0.1)
        return {
            "id": self.name_activity(execution),
            "activity_type": "FILL",
            "transaction_time": self._time(execution.at),
            "type": "fill" if execution.is_last else "partial_fill",
            "price": execution.price,
            "qty": execution.qty,
            "side": "sell_short" if short else order.side,
            "symbol": order.symbol,
            "leaves_qty": execution.leaves_qty or Decimal(0),
            "order_id": self.activity_order_id(order),
            "cum_qty": execution.cum_qty,
            "order_status": "filled" if execution.is_last else "partially_filled",
        }

    def name_activity(self, execution: Execution) -> str:
        """The id of an activity; where ids match, its second part is the execution's id."""
        if not self.activity_ids_match:
            return execution.activity_id
        return f"{execution.activity_id.partition('::')[0]}::{execution.id}"

    def activity_order_id(self, order: Order) -> str:
        """The order that a FILL activity of an order names."""
        is_leg = order.parent is not None and order.order_class == "mleg"
        return str(order.parent) if is_leg and self.rest_names_parents else order.id

    def replayed_activities(self, update: Json, account_id: str) -> list[Json]:
        """The entries of GET /v2beta1/events/activities that an update is, without their ids: of a multi-leg order one
        for each leg, each with its own execution, and all with the order id of the parent."""
        orders = {leg["id"]: leg for leg in update["order"]["legs"] or []}
        if "execution_id" in update:
            return [self._activity_event(update, update, update["order"], account_id)]
        return [self._activity_event(update, leg, orders[leg["order_id"]], account_id) for leg in update["legs"]]

    def _activity_event(self, update: Json, execution: Json, order: Json, account_id: str) -> Json:
        details = {
            "order_id": update["order"]["id"],
            "client_order_id": update["order"]["client_order_id"],
            "side": order["side"],
            "symbol": order["symbol"],
            "asset_id": order["asset_id"],
            "leaves_qty": (order["qty"] or order["filled_qty"]) - order["filled_qty"],
            "cum_qty": order["filled_qty"],
            "order_status": order["status"],
            "execution_type": update["event"],
        }
        return {
            "at": update["at"],
            "account_id": account_id,
            "activity_type": "TRD",
            "ref_id": execution["execution_id"],
            "previous_id": execution.get("previous_execution_id"),
            "status": {"trade_bust": "canceled", "trade_correct": "correct"}.get(update["event"], "executed"),
            "executed_at": update["timestamp"],
            "settle_date": str(settle_date(nanos(str(update["timestamp"])))),
            "qty": execution["qty"],
            "price": execution["price"],
            "net_amount": "0",
            "currency": "USD",
            "details": details,
        }

    def has_stream_id(self, update: Json) -> bool:
        """Whether the stream tells the `event_id` of an update; each time the same."""
        return int.from_bytes(update["event_id"].encode()[-4:]) % 1000 >= self.share_without_event_id * 1000

    def reset(self) -> None:
        """Begin anew with an account that was reset."""
        self._positions.clear()

    def has_event_id(self, ref_id: str) -> bool:
        """Whether an entry has an id, which is optional."""
        return self._plain or uuid.UUID(ref_id).int % 8 != 0

    @staticmethod
    def move_id(own: str, at: int) -> str:
        """The ULID of a thing with an id of its own at an instant: always the same one."""
        random_part = int.from_bytes(own.encode()[-10:]) & ((1 << 80) - 1)
        number = (at // 1_000_000 << 80) | random_part
        return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))

    def ulid(self, at: int) -> str:
        """A ULID of this millisecond; within one they come in no order."""
        number = (at // 1_000_000 << 80) | self._rng.getrandbits(80)
        return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))

    def _class_of_simple(self, order: Order, told: bool) -> str:
        """REST says one of two words for one order, always the same; the stream either."""
        is_simple = self._chance(0.3) if told else not self._plain and order.id[0] in "0123"
        return "simple" if is_simple else ""

    def _leg_execution(self, execution: Execution, happening: Happening) -> Json:
        leg = self._exchange.orders[execution.order_id]
        found = {
            "execution_id": execution.id,
            "order_id": leg.id,
            "price": execution.price,
            "qty": execution.qty,
            "symbol": leg.symbol,
            "timestamp": self._time(execution.at),
        }
        if leg.id in happening.previous:
            found["previous_execution_id"] = happening.previous[leg.id]
        return found

    def _position(self, order: Order, execution: Execution) -> Decimal | None:
        if order.is_multi_leg:
            return None
        signed = execution.qty if order.side == "buy" else -execution.qty
        self._positions[order.symbol] = self._positions.get(order.symbol, Decimal(0)) + signed
        return self._positions[order.symbol]

    def _time(self, at: int | None) -> str | None:
        return None if at is None else written(at, self._rng)

    def _chance(self, share: float) -> bool:
        return not self._plain and self._rng.random() < share


def _spelled(found: Any, as_number: bool) -> Any:
    """A message with its decimals as strings or as numbers, neither with an exponent."""
    if isinstance(found, Decimal):
        return msgspec.Raw(f"{found:f}".encode()) if as_number else f"{found:f}"
    if isinstance(found, dict):
        return {name: _spelled(value, as_number) for name, value in found.items()}
    return [_spelled(one, as_number) for one in found] if isinstance(found, list) else found


def _asset_class(symbol: str) -> str:
    if "/" in symbol:
        return "crypto"
    return "us_option" if len(symbol) > _OPTION_LENGTH else "us_equity"
