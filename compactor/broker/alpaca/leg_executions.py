"""Translate activities: FILL of REST, and the entries of a resend, where a trade is called `TRD`.

Note: a multi-leg order gives one entry per leg, each with its own execution and all with the order id of the parent.
The money of such an order is in its legs (rule 4.10), so these entries are put on the leg that has the same symbol and
side. The legs are known from the orders that were read; else the broker is asked once per order.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from compactor.broker.alpaca.event_fields import SIDES, TRADE_ACTIVITIES
from compactor.broker.alpaca.translate import keep_verbatim, translate
from compactor.broker.port import BrokerError, Fields, Message, RateLimited, Translation, parse
from compactor.core.decimals import BadDecimal, parse_decimal, plain
from compactor.core.events import REVISIONS, Problem

_OTHER_KINDS = """
    ACATC ACATS CFEE CIL CSD CSR CSW DIV DIVCGL DIVCGS DIVFEE DIVFT DIVNRA DIVROC DIVTW DIVTXEX FEE FOPT INT INTNRA
    INTPNL INTTW JNL JNLC JNLS MA MEM MISC NC OCT OPASN OPCA OPCSH OPEXC OPEXP OPTRD OTH PTC PTR REORG SC SPIN SPLIT SSO
    SSP SWP TRANS VOF WH
"""
OTHER_KINDS = frozenset(_OTHER_KINDS.split())
"""Kinds of activities that belong to no order: money, positions and journals."""
EXECUTIONS = frozenset({"fill", "partial_fill", "trade_bust", "trade_correct"})
LEGS_KEPT_MAX = 10_000
UNANSWERED_MAX = 10
"""Orders whose legs may stay unknown, because the broker does not answer for them; with more it is an outage."""
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_OPTION = re.compile(r"[A-Z0-9.]{1,6}[0-9]{6}[CP][0-9]{8}")

_OF_PARENT = ("filled_qty", "order_status", "client_order_id")


class _Details(msgspec.Struct):
    execution_type: str | None = None
    order_id: str | None = None
    symbol: str | None = None
    side: str | None = None


class _Entry(msgspec.Struct):
    activity_type: str | None = None
    details: _Details | None = None


_decode = msgspec.json.Decoder(_Entry).decode


def find_unknown_kind(entry: bytes) -> str | None:
    """The kind of an entry that is not understood; None for a trade, a known kind, or an update of the stream."""
    try:
        found = _decode(entry)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if found.activity_type in OTHER_KINDS:
        return None
    if found.activity_type not in TRADE_ACTIVITIES:
        return found.activity_type
    execution = found.details.execution_type if found.details is not None else None
    return None if execution is None or execution in EXECUTIONS else f"{found.activity_type} {execution}"


class LegBook:
    """Knows the legs of multi-leg orders. `find_order` asks the broker for an order with its legs, None if unknown."""

    def __init__(self, find_order: Callable[[str], Any | None]) -> None:
        self._find_order = find_order
        self._legs: dict[str, Legs] = {}
        """By parent: the leg of each symbol and side; empty for an order that is no parent."""
        self._unanswered: dict[str, str] = {}

    def note(self, orders: Iterable[Any]) -> None:
        """Remember the legs of orders that were read, and which orders that look like it are no parents: legs are
        none."""
        for order in orders:
            if not isinstance(order, dict):
                continue
            if legs := find_legs(order):
                self._keep(str(order.get("id")), legs)
                for leg in legs.values():
                    self._keep(leg.order_id, {})
            elif is_option(order.get("symbol")):
                self._keep(str(order.get("id")), {})

    def prepare(self, executions: Iterable[tuple[Any, Any, Any]]) -> str:
        """Find the legs for some executions: order, symbol and side. Returns why that failed, if it did.

        Executions of an order for which it failed are not translated. Raises BadCredentials, RateLimited, and
        BrokerError once it failed for more than a few orders.
        """
        symbols: dict[str, set[tuple[str, str]]] = {}
        for order_id, symbol, side in executions:
            if order_id:
                symbols.setdefault(str(order_id), set()).add(get_leg_key(symbol, side))
        self._unanswered.clear()
        # Options are the usual legs; another leg of the order has an entry with another symbol.
        suspects = [
            order_id
            for order_id, found in symbols.items()
            if order_id not in self._legs and (len(found) > 1 or any(is_option(symbol) for symbol, _ in found))
        ]
        # Until its answer is there, nothing is translated of any of them.
        self._unanswered |= dict.fromkeys(suspects, "")
        for order_id in suspects:
            self._ask(order_id)
        return next(iter(self._unanswered.values()), "")

    def _ask(self, order_id: str) -> None:
        try:
            self._keep(order_id, find_legs(self._find_order(order_id)))
            del self._unanswered[order_id]
        except BrokerError as error:
            self._unanswered[order_id] = f"the legs of order {order_id} are unknown: {error}"
            if isinstance(error, RateLimited) or sum(map(bool, self._unanswered.values())) > UNANSWERED_MAX:
                raise

    def _keep(self, order_id: str, legs: Legs) -> None:
        if len(self._legs) > LEGS_KEPT_MAX:
            self._legs.clear()
        self._legs[order_id] = legs

    def move(self, translation: Translation) -> Translation:
        """Put the execution of an activity on its leg; it is left out while the legs are unknown."""
        if not translation.events:
            return translation
        [event] = translation.events
        order_id = str(event["order_id"])
        if order_id in self._unanswered:
            return Translation([], [])
        placed = move_to_leg(event, self._legs.get(order_id, {}))
        if placed is None:
            detail = f"no leg of order {order_id} is {event.get('side')} {event.get('symbol')}"
            return Translation([], [Problem("bad_value", detail)])
        return Translation([placed], [])


class EntryReader:
    """Translates the entries of a resend, in the format of either endpoint."""

    def __init__(self, legs: LegBook) -> None:
        self._legs = legs

    def prepare(self, entries: Iterable[bytes]) -> str:
        """Find the legs of the multi-leg orders among some entries; returns why that failed, if it did."""
        try:
            return self._legs.prepare(_list_executions(entries))
        except BrokerError as error:
            return str(error)

    def translate(self, text: Message) -> Translation:
        """Translate an entry, and put an execution of a multi-leg order on its leg."""
        content = text.encode(errors="surrogateescape") if isinstance(text, str) else text
        message = parse(content)
        return keep_verbatim(self.read(message), message, content)

    def read(self, message: Any) -> Translation:
        """The same of an entry that was parsed."""
        if isinstance(message, dict) and message.get("activity_type", "TRD") not in TRADE_ACTIVITIES:
            return Translation([], [])  # A dividend or a fee does not belong to an order.
        translation = translate(message, source="stream")
        if not isinstance(message, dict) or "activity_type" not in message:
            return translation
        return self._legs.move(translation)


def name_executions(fills: list[Fields]) -> list[Fields]:
    """Give fills of REST the stream's execution id, which is believed to be the part of their id behind `::`.

    Nothing relies on it: with another id an execution is known by its numbers (rule 4.3). A part that two of them have
    names neither, and one that is no UUID is something else.
    """
    parts = [str(fill["execution_id"]).partition("::")[2] for fill in fills]
    counts = Counter(parts)
    for fill, part in zip(fills, parts, strict=True):
        if counts[part] == 1 and _UUID.fullmatch(part):
            fill["execution_id"] = part
    return fills


def _list_executions(entries: Iterable[bytes]) -> Iterator[tuple[Any, Any, Any]]:
    for entry in entries:
        try:
            details = _decode(entry).details
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        if details is not None:
            yield details.order_id, details.symbol, details.side


class OrderLeg(NamedTuple):
    """A leg of a multi-leg order. The quantities are those of the whole orders, None if unknown."""

    order_id: str
    quantity: Any = None
    parent_quantity: Any = None


Legs = Mapping[tuple[str, str], OrderLeg]
"""By symbol and side."""


def find_legs(order: Any | None) -> Legs:
    """The legs of a multi-leg parent; empty for any other order."""
    if not isinstance(order, dict) or order.get("symbol"):
        return {}  # The class of a parent may be empty; its symbol is.
    legs = [leg for leg in order.get("legs") or () if isinstance(leg, dict) and leg.get("id")]
    return {
        get_leg_key(leg.get("symbol"), leg.get("side")): OrderLeg(str(leg["id"]), leg.get("qty"), order.get("qty"))
        for leg in legs
    }


def move_to_leg(execution: Fields, legs: Legs) -> Fields | None:
    """Put an execution that names the parent on its leg; unchanged if there are no legs, None if none of them fits.

    The status in it may be the parent's, so it is dropped; not that of a bust or a correction, which would open a leg
    that nothing else has told of: legs end together with their parent. Whether the cumulative quantity is the leg's or
    the parent's follows from the quantity that it leaves open, because the two together are the quantity of an order.
    """
    if not legs or any(execution["order_id"] == leg.order_id for leg in legs.values()):
        return execution
    leg = legs.get(get_leg_key(execution.get("symbol"), execution.get("side")))
    if leg is None:
        return None
    kept = {name: value for name, value in execution.items() if name not in _OF_PARENT}
    if execution.get("event") in REVISIONS and "order_status" in execution:
        kept["order_status"] = execution["order_status"]
    filled = _find_filled(execution, leg)
    told = {} if filled is None else {"filled_qty": filled}
    return kept | told | {"order_id": leg.order_id, "parent_order_id": execution["order_id"]}


def _find_filled(execution: Fields, leg: OrderLeg) -> str | None:
    """The cumulative quantity of a leg from one that may be the parent's; None if that cannot be told."""
    raw = execution.get("raw")
    told = {**raw, **(raw.get("details") or {})} if isinstance(raw, dict) else {}
    try:
        filled, own = parse_decimal(str(execution.get("filled_qty"))), parse_decimal(str(leg.quantity))
        if leg.parent_quantity is not None and own == parse_decimal(str(leg.parent_quantity)):
            return str(execution["filled_qty"])  # Both count the same.
        ordered = filled + parse_decimal(str(told.get("leaves_qty")))
        if ordered == own:
            return str(execution["filled_qty"])
        parent = parse_decimal(str(leg.parent_quantity))
    except BadDecimal:
        return None
    # A leg has a whole number of shares or contracts for each of the parent's.
    is_parents = ordered == parent and parent > 0 and own % parent == 0
    return plain(filled * (own // parent)) if is_parents else None


def is_option(symbol: Any) -> bool:
    """Whether a symbol is that of an option contract, such as `AAPL241213C00250000`."""
    return _OPTION.fullmatch(str(symbol)) is not None


def get_leg_key(symbol: Any, side: Any) -> tuple[str, str]:
    """What distinguishes the legs of one order: symbol and side."""
    return str(symbol or ""), SIDES.get(str(side or ""), str(side or ""))
