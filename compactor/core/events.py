"""The events of format.md section 2: their kinds, their fields, and what each of them is. `decoding` reads them."""

from collections.abc import Iterable
from datetime import datetime
from functools import reduce
from operator import or_
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta, Struct, field

from compactor.core.lifecycle import STATUSES, normalize_name

REQUIRED = ("event", "order_id", "ts")
"""The fields that every event has."""


class Leg(Struct, gc=False):
    """One leg of a multi-leg fill (rule 4.10): an execution of the leg's own order, and its index in `legs`."""

    order_id: str
    symbol: str
    side: str
    qty: str
    price: str
    index: int
    execution_id: str | None = None
    filled_qty: str | None = None


LINE_BYTES_MAX = 1 << 20
"""The longest line that is read as an event, without its newline."""

NESTING_MAX = 64
"""How many objects and arrays of a line may lie in each other. Without a bound, whether a line can be read would depend
on the depth of the caller's stack."""

LEGS_MAX = 100
"""The most entries of `legs`. Each is an order of its own, so that one short event would else change thousands."""

RETURNS_MAX = 8
"""How often an assigned order may come back to a ledger (4.12). Each time all its trades are written anew."""

FILLS = ("fill", "partial_fill")
REVISIONS = ("trade_bust", "trade_correct")
OTHERS = ("restated", "order_cancel_rejected", "order_replace_rejected", "snapshot", "assigned")

INTENTS = ("submitting", "submitted", "refused", "never_placed")
"""What our own programs say of an order that they ask for: that they will ask, and what became of it (rule 3.13)."""

Aware = Annotated[datetime, Meta(tz=True)]


class Event(Struct, gc=False, tag_field="event", omit_defaults=True):
    """An event with every field that format.md knows. Decimals and times are texts as they came; `null`, `""` and `[]`
    are absent.

    Note: on the wire `legs` is one name for two things. Here `legs` is the term, the orders that belong to this one,
    and `leg_fills` are the executions of a multi-leg fill (rule 4.10); at most one of them is set.
    """

    event: ClassVar[str]
    order_id: str
    ts: str
    recorded_at: Aware | None = None
    event_id: str | None = None
    team_id: str | None = None
    order_status: str | None = None
    source: str | None = None
    reason: str | None = None
    # Terms of the order.
    symbol: str | None = None
    side: str | None = None
    quantity: str | None = None
    notional: str | None = None
    order_type: str | None = None
    time_in_force: str | None = None
    limit_price: str | None = None
    stop_price: str | None = None
    trail_price: str | None = None
    trail_percent: str | None = None
    order_class: str | None = None
    position_intent: str | None = None
    extended_hours: bool | None = None
    client_order_id: str | None = None
    broker_order_id: str | None = None
    requested_price: str | None = None
    created_at: str | None = None
    replaces: str | None = None
    replaced_by: str | None = None
    parent_order_id: str | None = None
    group_id: str | None = None
    group_role: str | None = None
    legs: list[Any] | None = None
    # The fill.
    execution_id: str | None = None
    previous_execution_id: str | None = None
    price: str | None = None
    qty: str | None = None
    filled_qty: str | None = None
    filled_avg_price: str | None = None
    # The assignment: exactly one of them.
    to_team: str | None = None
    from_team: str | None = None
    # Read from `legs`. No line has a field of this name, and what it would bring is not read.
    leg_fills: Any = field(default=None, name="(leg_fills)")


TERMS = (
    "symbol", "side", "quantity", "notional", "order_type", "time_in_force", "limit_price", "stop_price", "trail_price",
    "trail_percent", "order_class", "position_intent", "extended_hours", "client_order_id", "broker_order_id",
    "requested_price", "created_at", "replaces", "replaced_by", "parent_order_id", "group_id", "group_role", "legs",
)  # fmt: skip
"""The fields that say what was ordered; rule 3.2 tells which event sets them."""

TOLD_ONCE = frozenset(("created_at", "client_order_id", "requested_price"))
"""Terms that keep their first value."""

DECIMALS = (
    "quantity", "notional", "limit_price", "stop_price", "trail_price", "trail_percent", "requested_price",
    "price", "qty", "filled_qty", "filled_avg_price",
)  # fmt: skip


class Problem(Struct, frozen=True):
    """Why a line is not an event: the finding's kind and a sentence for people."""

    kind: str
    detail: str


def _variants(names: Iterable[str]) -> dict[str, type[Any]]:
    """One tagged type a name: msgspec then knows the event before it has built anything."""
    types = {}
    for name in names:
        namespace = {"event": normalize_name(name), "__module__": __name__}
        types[name] = msgspec.defstruct(
            f"Event_{name}", [], bases=(Event,), namespace=namespace, tag=name, tag_field="event", gc=False
        )
    return types


EVENTS = _variants((*STATUSES, "cancelled", *FILLS, *REVISIONS, *OTHERS))
"""The type of every event that has a name of its own; any other name is an `UnknownEvent`."""

PLACEMENTS = frozenset(EVENTS[name] for name in ("new", "pending_new", "accepted", "held"))


class UnknownEvent(Event, gc=False, tag=False, tag_field=None, kw_only=True):
    """An event by a name nobody has heard of (rule 3.7)."""

    event: str  # type: ignore[misc]


def is_intent(event: Event) -> bool:
    """Whether an event is about an order that somebody asks for, and about none that the broker has (rule 3.13)."""
    return event.event in INTENTS and event.order_id == event.client_order_id


ANY_EVENT: Any = reduce(or_, EVENTS.values())
"""Every event that has a name of its own, as a type."""
AnyEvent = ANY_EVENT | None
