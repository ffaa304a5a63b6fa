"""Find the legs of multi-leg orders, and put the activities that name the parent on them.

The money of a multi-leg order is in its legs (rule 4.10). Its activities come one per leg, may all name the parent, and
tell the leg by symbol and side. The legs are learned from whatever tells of them: nested orders, the leg executions of
a fill, a bust or a correction of one; all of the recording, and the logs, because the order may have been imported
before.

Note: an execution of which nothing tells the leg is put on an order of its own for each symbol, a stand-in, because one
order has one symbol and side. Once the leg is told, what lies on a stand-in, or on the parent, is taken back there, and
told of the leg: each share counts once, whichever comes first.
"""

from __future__ import annotations

from math import gcd
from typing import Any

import msgspec

from compactor.broker.alpaca.leg_executions import OrderLeg, get_leg_key, is_option, move_to_leg
from compactor.broker.alpaca.translate import translate
from compactor.core.decimals import BadDecimal, parse_decimal, plain
from compactor.core.events import FILLS, REVISIONS, Event, Problem
from compactor.imports.messages import Translated
from compactor.imports.writer import Fields, check_event

_MOVED = "moved:"
"""How the id of an event begins that takes back what is told of the leg."""


class LegFinder:
    """The legs of the multi-leg orders in a recording and in the logs. Activities may name the parent."""

    def __init__(self) -> None:
        self._legs: dict[str, dict[tuple[str, str], OrderLeg]] = {}
        self._named: dict[str, set[tuple[str, str]]] = {}
        """The orders that activities name, with the symbols and sides of these."""
        self._parents: set[str] = set()
        """Multi-leg orders, whether or not their legs are known."""
        self._others: set[str] = set()
        """Orders that have a symbol of their own, so that they are no parents."""

    def note(self, found: Translated) -> None:
        """Learn a leg of an order, or that an activity names an order."""
        event = found.event
        if not isinstance(event, dict):
            return
        if found.is_activity:
            key = get_leg_key(event.get("symbol"), event.get("side"))
            self._named.setdefault(str(event["order_id"]), set()).add(key)
        else:
            self._learn(event)

    def recall(self, event: Event) -> None:
        """Learn a leg from an event of a log."""
        fills = event.leg_fills or ()
        legs = [{"order_id": leg.order_id, "symbol": leg.symbol, "side": leg.side, "qty": leg.qty} for leg in fills]
        names = ("order_id", "symbol", "side", "quantity", "order_type", "order_class", "parent_order_id")
        self._learn({name: getattr(event, name) for name in names} | {"event": event.event, "legs": legs})

    def _learn(self, event: Fields) -> None:
        order_id, symbol = str(event["order_id"]), event.get("symbol")
        if not symbol:
            legs = [leg for leg in event.get("legs") or () if isinstance(leg, dict) and _is_named(leg)]
            for leg, quantity in zip(legs, _find_quantities(event.get("quantity"), legs), strict=True):
                self._add(order_id, OrderLeg(str(leg["order_id"]), quantity, event.get("quantity")), leg)
            if legs or event.get("order_class") == "mleg":
                self._parents.add(order_id)
        elif event.get("parent_order_id") and order_id == _name_stand_in(str(event["parent_order_id"]), symbol):
            return
        elif event.get("parent_order_id") and (event.get("order_class") == "mleg" or event["event"] in REVISIONS):
            self._add(str(event["parent_order_id"]), OrderLeg(order_id, event.get("quantity")), event)
        elif event.get("order_type") or event.get("quantity"):
            self._others.add(order_id)

    def _add(self, parent: str, leg: OrderLeg, told: Fields) -> None:
        legs = self._legs.setdefault(parent, {})
        key = get_leg_key(told["symbol"], told.get("side"))
        known = legs.get(key)
        if known is not None and known.order_id == leg.order_id:
            # Each message tells some of it: a nested order its own quantity, an execution that of the parent.
            own, whole = leg.quantity or known.quantity, leg.parent_quantity or known.parent_quantity
            leg = OrderLeg(leg.order_id, own, whole)
        legs[key] = leg

    @property
    def has_suspects(self) -> bool:
        """Whether an activity may name a multi-leg order whose legs the recording does not tell."""
        return any(self._is_suspect(order_id) for order_id in self._named)

    def wants(self, event: Event) -> bool:
        """Whether an event of a log may tell of the legs of a suspect."""
        return any(one in self._named for one in (event.order_id, event.parent_order_id))

    def _is_suspect(self, order_id: str) -> bool:
        if order_id in self._legs or order_id in self._others:
            return False
        # Options are the usual legs, and one of the legs is always one.
        return order_id in self._parents or any(is_option(symbol) for symbol, _ in self._named[order_id])

    @property
    def has_moves(self) -> bool:
        """Whether an activity names a multi-leg order."""
        return any(order_id in self._legs or self._is_parent(order_id) for order_id in self._named)

    def move(self, found: Translated) -> Translated:
        """Put an activity that names a multi-leg order on its leg, or its stand-in; a problem if no leg fits."""
        if not found.is_activity or not isinstance(found.event, dict):
            return found
        event, order_id = found.event, str(found.event["order_id"])
        legs = self._legs.get(order_id, {})
        if not legs and self._is_parent(order_id) and event.get("symbol"):
            leg = OrderLeg(_name_stand_in(order_id, event["symbol"]))
            legs = {get_leg_key(event["symbol"], event.get("side")): leg}
        moved = move_to_leg(event, legs)
        if moved is event:
            return found
        detail = f"no leg of order {order_id} is {event.get('side')} {event.get('symbol')}"
        return found._replace(event=Problem("bad_value", detail) if moved is None else moved)

    def _is_parent(self, order_id: str) -> bool:
        """Whether an order is a multi-leg one: it is told as such, or its executions are of several legs."""
        return self._is_suspect(order_id) and (order_id in self._parents or len(self._named[order_id]) > 1)

    def list_stand_ins(self) -> dict[str, str]:
        """The parents of legs that are known, by the orders that may have their executions: stand-ins, and parents."""
        symbols = {parent: [symbol for symbol, _ in legs] for parent, legs in self._legs.items()}
        stand_ins = {_name_stand_in(parent, one): parent for parent, found in symbols.items() for one in found}
        return stand_ins | {parent: parent for parent in symbols}

    def put_right(self, parent: str, event: Event, line: bytes) -> list[Fields]:
        """What moves an execution of a log to its leg, from the parent or a stand-in: a bust there, and the same again.

        Empty for any other event.
        """
        is_ours = event.event_id is None or event.event_id.startswith(_MOVED)
        if event.event not in (*FILLS, *REVISIONS) or is_ours or not (event.symbol and event.execution_id):
            return []
        told: Fields = msgspec.json.decode(line)
        own = {name: value for name, value in told.items() if name not in ("recorded_at", "team_id", "parent_order_id")}
        # The message tells what was left out of the event, because it was not known of which order it is.
        messages = translate(told.get("raw")).events
        own = next((one for one in messages if one["event_id"] == event.event_id), own)
        moved = move_to_leg({**own, "order_id": parent, "event": told["event"]}, self._legs[parent])
        if moved is None or isinstance(check_event(moved), Problem):
            return []
        bust = {"event": "trade_bust", "order_id": event.order_id, "ts": event.ts, "source": "import"}
        bust |= {"previous_execution_id": event.execution_id, "event_id": f"{_MOVED}{event.event_id}"}
        bust |= {"reason": f"it is an execution of the leg {moved['order_id']}"}
        return [bust, moved] if event.event in FILLS else [moved]


def _name_stand_in(parent: str, symbol: str) -> str:
    return f"{parent}:{symbol}"


def _is_named(leg: Fields) -> bool:
    return bool(leg.get("order_id") and leg.get("symbol"))


def _find_quantities(parent: Any, legs: list[Fields]) -> list[str | None]:
    """The quantities of leg orders by those of their executions in one fill; None where they cannot be told.

    For each unit of the parent a leg has a whole number of contracts or shares, which have no common divisor.
    """
    try:
        ordered = parse_decimal(str(parent))
        filled = [parse_decimal(str(leg.get("qty"))) for leg in legs]
    except BadDecimal:
        return [None] * len(legs)
    if len(legs) < 2 or any(one != int(one) for one in filled):
        return [None] * len(legs)
    unit = gcd(*map(int, filled))
    return [plain(ordered * (int(one) // unit)) if unit else None for one in filled]
