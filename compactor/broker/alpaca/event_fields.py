"""Which of Alpaca's fields becomes which of an event's, and what every event has besides.

`translate` reads updates and orders by these tables, `activities` what REST and the activity stream list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from compactor.broker.port import Fields, content_digest
from compactor.core.decimals import BadDecimal, parse_decimal
from compactor.core.events import Problem

# Alpaca's name on the left, ours on the right. Of two names for one field the last that has a value wins.
ORDER: Mapping[str, str] = {
    "id": "order_id",
    "client_order_id": "client_order_id",
    "symbol": "symbol",
    "side": "side",
    "qty": "quantity",
    "notional": "notional",
    "order_type": "order_type",  # Deprecated in favor of `type`; both are sent.
    "type": "order_type",
    "time_in_force": "time_in_force",
    "limit_price": "limit_price",
    "stop_price": "stop_price",
    "trail_price": "trail_price",
    "trail_percent": "trail_percent",
    "order_class": "order_class",
    "position_intent": "position_intent",
    "extended_hours": "extended_hours",
    "created_at": "created_at",
    "replaces": "replaces",
    "replaced_by": "replaced_by",
    "group_id": "group_id",
    "group_role": "group_role",
    "status": "order_status",
    "filled_qty": "filled_qty",
    "filled_avg_price": "filled_avg_price",
}

# A trade update around its order. `at` is when the message was sent, `timestamp` when it happened.
UPDATE: Mapping[str, str] = {"event": "event", "at": "ts", "timestamp": "ts", "reason": "reason"}

# Only for executions. A `new` also has an execution id, and sometimes a previous one, but is no trade.
TRADE: Mapping[str, str] = {"execution_id": "execution_id", "price": "price", "qty": "qty"}
REVISION: Mapping[str, str] = {**TRADE, "previous_execution_id": "previous_execution_id"}

# One leg of a multi-leg fill. Symbol and side may be given in the order's own list of legs only.
LEG: Mapping[str, str] = {**REVISION, "order_id": "order_id", "symbol": "symbol", "side": "side"}
LEG_ORDER: Mapping[str, str] = {"id": "order_id", "symbol": "symbol", "side": "side", "filled_qty": "filled_qty"}

ACTIVITY: Mapping[str, str] = {
    "type": "event",
    "order_id": "order_id",
    "transaction_time": "ts",
    "id": "execution_id",  # Not known to be the stream's id: rule 4.3 finds the two by their cumulative quantity.
    "symbol": "symbol",
    "side": "side",
    "price": "price",
    "qty": "qty",
    "cum_qty": "filled_qty",
    "order_status": "order_status",
}

# An entry of the activity stream (schema ActivityEventV2) and its details of a trade.
STREAMED: Mapping[str, str] = {
    "executed_at": "ts",
    "ref_id": "execution_id",  # "For trades the execution_id is used", says the schema.
    "previous_id": "previous_execution_id",
    "price": "price",
    "qty": "qty",
}
STREAMED_DETAILS: Mapping[str, str] = {
    "execution_type": "event",
    "order_id": "order_id",
    "symbol": "symbol",
    "side": "side",
    "cum_qty": "filled_qty",
    "order_status": "order_status",
    "client_order_id": "client_order_id",
}

TRADE_ACTIVITIES = ("FILL", "TRD")
"""Activities about an order: so REST names them, and so the activity stream."""

# An activity marks a short sale by its side. For an order, and for a position, it is a sale.
SIDES: Mapping[str, str] = {"sell_short": "sell"}

# The times at which something happened to an order. `expires_at` lies in the future, so it is not one of them.
ORDER_TIMES = (
    "updated_at", "filled_at", "canceled_at", "expired_at", "failed_at", "replaced_at", "submitted_at", "created_at",
)  # fmt: skip


def finish_event(event: Fields, event_id: Any, content: Any, raw: Any, source: str) -> Fields | Problem:
    """Add the fields that every event has, or return a problem that names the missing one."""
    for name in ("event", "order_id", "ts"):
        if not event.get(name):
            return Problem("missing_field", f"the message has nothing that tells `{name}`: {shorten(raw)}")
    for name, value in event.items():
        if isinstance(value, float):
            detail = f"`{name}` is the float {value!r}, whose digits are not exact; read messages with parse()"
            return Problem("bad_value", detail)
    # The name comes first, so that a reader of the log knows the type of an event before it has read the rest.
    first = {name: event[name] for name in ("event", "order_id", "ts")}
    return first | event | {"event_id": str(event_id or content_digest(content)), "source": source, "raw": raw}


def rename_fields(found: Fields, table: Mapping[str, str]) -> Fields:
    """Rename fields by a table. Drops empty texts and nulls, and turns a JSON number into its text."""
    event: Fields = {}
    for theirs, ours in table.items():
        value = found.get(theirs)
        if value is None or value == "":
            continue
        if ours == "side" and isinstance(value, str):
            value = SIDES.get(value, value)
        event[ours] = str(value) if type(value) is int else value
    return event


def strip_names(message: Mapping[Any, Any]) -> Fields:
    """Strip the spaces that some payloads have around field names."""
    return {str(name).strip(): value for name, value in message.items()}


def is_above_zero(quantity: Any) -> bool:
    """Whether a quantity is told and not zero; what cannot be read may be."""
    try:
        return quantity not in (None, "") and parse_decimal(str(quantity)) > 0
    except BadDecimal:
        return True


def shorten(found: Any) -> str:
    """What of a value a problem shows."""
    text = msgspec.json.encode(found).decode()
    return text if len(text) <= 120 else text[:120] + "…"
