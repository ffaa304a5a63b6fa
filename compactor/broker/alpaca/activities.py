"""Read the activities of trades: `FILL` as REST lists them, and `TRD` as the activity stream tells them.

Note: an activity tells the status that its order has by now, and some programs call every execution a `fill`. What it
leaves open says more: a fill ends its order, and must not hide what is live at the broker.
"""

from __future__ import annotations

from typing import Any

from compactor.broker.alpaca.event_fields import (
    ACTIVITY,
    STREAMED,
    STREAMED_DETAILS,
    TRADE_ACTIVITIES,
    finish_event,
    is_above_zero,
    rename_fields,
    shorten,
    strip_names,
)
from compactor.broker.port import Fields
from compactor.core.events import REVISIONS, Problem
from compactor.core.lifecycle import normalize_name


def read_activity(activity: Fields, raw: Fields, source: str) -> Fields | Problem:
    """Read an activity as REST lists it. Without a type it ends its order only if it says that nothing is left."""
    if activity["activity_type"] not in TRADE_ACTIVITIES:
        return _refuse_activity(activity)
    event = rename_fields(activity, ACTIVITY)
    leaves = activity.get("leaves_qty")
    if "event" not in event:
        is_last = event.get("order_status") == "filled" or (leaves not in (None, "") and not is_above_zero(leaves))
        event["event"] = "fill" if is_last else "partial_fill"
    elif _is_partial(event, leaves):
        event["event"] = "partial_fill"
    _drop_status_ahead(event, leaves)
    return finish_event(event, activity.get("id"), activity, raw, source)


def read_streamed_activity(activity: Fields, raw: Fields, source: str) -> Fields | Problem:
    """Read an entry of the activity stream, whose trade is in its details."""
    if activity["activity_type"] not in TRADE_ACTIVITIES:
        return _refuse_activity(activity)
    details = activity["details"]
    if not isinstance(details, dict):
        return Problem("missing_field", f"a trade activity whose `details` are {shorten(details)}, expected an object")
    details = strip_names(details)
    event = rename_fields(activity, STREAMED) | rename_fields(details, STREAMED_DETAILS)
    if "event" in event and _is_partial(event, details.get("leaves_qty")):
        event["event"] = "partial_fill"
    if event.get("event") not in REVISIONS:
        event.pop("previous_execution_id", None)
        _drop_status_ahead(event, details.get("leaves_qty"))
    return finish_event(event, activity.get("event_id"), activity, raw, source)


def _refuse_activity(activity: Fields) -> Problem:
    found = shorten(activity["activity_type"])
    return Problem("bad_value", f"an activity {found}, which is no fill of an order; expected FILL or TRD")


def _is_partial(event: Fields, leaves: Any) -> bool:
    """Whether a `fill` leaves a part of the order open: an end would hide that."""
    is_fill = normalize_name(str(event["event"])) == "fill"
    return is_fill and (event.get("order_status") == "partially_filled" or is_above_zero(leaves))


def _drop_status_ahead(event: Fields, leaves: Any) -> None:
    """An activity that leaves a part open tells the status that the order has by now: the rest comes by its own."""
    if event.get("order_status") == "filled" and is_above_zero(leaves):
        del event["order_status"]
