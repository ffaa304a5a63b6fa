"""Translate Alpaca's messages into events: stream frames, order objects as REST returns them, and FILL activities.

`event_fields` says which field becomes which. Where messages come from and what an event means is left to others. The
module does no I/O, reads no clock, and does not need alpaca-py. Unknown names pass through unchanged, because the fold
knows what to do with them (format.md, rule 3.7).

Note: the money of a multi-leg order is in its legs. The sums that Alpaca gives for the parent (`filled_qty`, a net
price) are left out, or they would be counted again (rule 4.10).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from compactor.broker.alpaca.activities import read_activity, read_streamed_activity
from compactor.broker.alpaca.event_fields import (
    LEG,
    LEG_ORDER,
    ORDER,
    ORDER_TIMES,
    REVISION,
    TRADE,
    UPDATE,
    finish_event,
    is_above_zero,
    rename_fields,
    shorten,
    strip_names,
)
from compactor.broker.port import Fields, Message, Translation, parse
from compactor.core.events import FILLS, REVISIONS, Problem
from compactor.core.instants import BadInstant, nanos
from compactor.core.lifecycle import TERMINAL, normalize_name


def translate_message(text: Message) -> Translation:
    """Translate a message of the stream as it came; `order` is what may be its order where it cannot be read."""
    content = text.encode(errors="surrogateescape") if isinstance(text, str) else text
    message = parse(content)
    return keep_verbatim(translate(message, source="stream"), message, content)


def keep_verbatim(told: Translation, message: Any, content: bytes) -> Translation:
    """The same, with the very bytes that came as `raw`, which also costs less than to encode them anew."""
    if b"\n" not in content:
        for event in told.events:
            if event.get("raw") is message:
                event["raw"] = msgspec.Raw(content)
    return told._replace(order=_find_order(message)) if told.problems else told


def _find_order(message: Any) -> Fields:
    """What of a message that could not be read may be its order."""
    for name in ("data", "order"):
        inner = message.get(name) if isinstance(message, dict) else None
        message = inner if isinstance(inner, dict) else message
    if not isinstance(message, dict):
        return {}
    found = {
        "order_id": message.get("id") or message.get("order_id"),
        "client_order_id": message.get("client_order_id"),
    }
    return {name: value for name, value in found.items() if isinstance(value, str)}


def translate(message: Any, *, source: str | None = None) -> Translation:
    """Translate one parsed message, or a list of them, into events. Never raises, whatever the JSON holds.

    Understood are `{"stream": "trade_updates", "data": ...}`, the bare data of it, orders with nested legs, and FILL
    activities. `source` defaults to `stream` for updates and `rest` for orders and activities. Frames about the
    connection itself give no event. Each event has its message as `raw` and an `event_id`: Alpaca's own, or a digest of
    the content, which is the same for a frame and for its bare data.
    """
    events: list[Fields] = []
    problems: list[Problem] = []
    try:
        for found in _read_message(message, source):
            if isinstance(found, Problem):
                problems.append(found)
            else:
                events.append(found)
    except RecursionError:
        problems.append(Problem("bad_value", "the message is nested too deeply to be one of Alpaca's"))
    return Translation(events, problems)


def _read_message(message: Any, source: str | None) -> Iterator[Fields | Problem]:
    """Recognize a message by its fields. One odd order in a list does not stop the others."""
    if isinstance(message, Problem):
        yield message
    elif isinstance(message, list):
        for item in message:
            yield from _read_message(item, source)
    elif not isinstance(message, dict):
        yield Problem("bad_value", f"expected a JSON object or a list of them, found {shorten(message)}")
    elif "stream" in (known := strip_names(message)):
        yield from _read_frame(known, message, source or "stream")
    elif "event" in known:
        yield from _read_update(known, message, source or "stream")
    elif "activity_type" in known and "details" in known:
        yield read_streamed_activity(known, message, source or "stream")
    elif "activity_type" in known:
        yield read_activity(known, message, source or "rest")
    elif "id" in known and "status" in known and ("time_in_force" in known or "client_order_id" in known):
        yield from _read_order(known, message, source or "rest")
    else:
        yield Problem("bad_value", f"neither a trade update, nor an order, nor an activity: {shorten(message)}")


def _read_frame(frame: Fields, raw: Fields, source: str) -> Iterator[Fields | Problem]:
    if frame["stream"] != "trade_updates":
        return  # `authorization` and `listening` are about the connection.
    data = frame.get("data")
    if isinstance(data, dict):
        yield from _read_update(strip_names(data), raw, source)
    else:
        yield Problem("missing_field", f"a trade_updates frame whose `data` is {shorten(data)}, expected an object")


def _read_update(update: Fields, raw: Fields, source: str) -> Iterator[Fields | Problem]:
    order = update.get("order")
    if not isinstance(order, dict):
        yield Problem("missing_field", f"a trade update whose `order` is {shorten(order)}, expected an object")
        return
    order = strip_names(order)
    name = update.get("event")
    event = rename_fields(order, ORDER) | rename_fields(update, UPDATE)
    if "ts" not in event:
        event["ts"] = _find_newest_time(order)
    # Where a legacy number and a ULID are both sent, newer interfaces send the ULID alone as `event_id`.
    event_id = update.get("event_ulid") or update.get("event_id")
    legs = _read_leg_executions(update, order)
    if legs and name in REVISIONS:
        # A bust or a correction of a multi-leg order is one of each leg's execution. It does not open the leg again, so
        # it says how the leg stands; that is how the parent stands where the leg is not told of.
        first = {"event": name, "ts": event["ts"], "parent_order_id": event.get("order_id")}
        first |= {"order_status": event["order_status"]} if "order_status" in event else {}
        orders = {str(leg["order_id"]): leg for leg in _read_leg_orders(order, ORDER)}
        for leg in legs:
            own = orders.get(str(leg.get("order_id")), {})
            yield finish_event({**first, **own, **leg}, event_id, update, raw, source)
        return
    if legs and name in FILLS:
        event = _drop_sums(event) | {"legs": legs}
    elif _is_multi_leg(order):
        event = _drop_sums(event)
    elif name in FILLS or name in REVISIONS:
        event |= rename_fields(update, TRADE if name in FILLS else REVISION)
    if name in FILLS and not legs and not ("price" in event and {"qty", "filled_qty"} & event.keys()):
        # A fill without its numbers, or without its legs, tells no execution, only how the order now stands.
        event["event"] = "snapshot"
    yield finish_event(event, event_id, update, raw, source)
    yield from _refuse_legs(update)
    if not legs:
        yield from _read_legs(order, source, in_update=True)


def _read_order(order: Fields, raw: Fields, source: str) -> Iterator[Fields | Problem]:
    event = {"event": "snapshot", "ts": _find_newest_time(order)} | rename_fields(order, ORDER)
    yield finish_event(_drop_sums(event) if _is_multi_leg(order) else event, None, order, raw, source)
    yield from _read_legs(order, source)


def _read_legs(order: Fields, source: str, in_update: bool = False) -> Iterator[Fields | Problem]:
    """Read the nested legs of an order. Each leg is an order; only the nesting tells whose leg it is.

    One that some program left without its times is as of the order's.
    """
    yield from _refuse_legs(order)
    ts = _find_newest_time(order)
    for raw in _as_list(order.get("legs")):
        leg = strip_names(raw) if isinstance(raw, dict) else {}
        own_ts = _find_newest_time(leg) or (ts if "status" in leg else None)
        event = {"event": "snapshot", "ts": own_ts} | rename_fields(leg, ORDER)
        event["parent_order_id"] = order.get("id")
        if in_update and not _is_multi_leg(order):
            # The legs of a bracket have their own updates for fills and ends, and this one may be ahead of them. That a
            # leg is held, however, is often told nowhere else, nor that it ended unfilled together with its entry.
            if normalize_name(str(event.get("order_status"))) in TERMINAL and not _is_unfilled(event):
                continue
            event = _drop_sums(event)
        yield finish_event(event, None, [leg, order.get("id"), in_update], raw, source)


def _refuse_legs(holder: Fields) -> Iterator[Problem]:
    """Name legs that are no list; a take-profit or a stop would be missing without a word."""
    legs = holder.get("legs")
    if legs and not isinstance(legs, list):
        detail = f"`legs` is {shorten(legs)}, expected a list of objects, so none of them is read; write them as JSON"
        yield Problem("bad_value", detail)


def _read_leg_executions(update: Fields, order: Fields) -> list[Fields]:
    """Read the leg executions of a multi-leg update, each completed from the order's own list of legs."""
    known = {str(leg["order_id"]): leg for leg in _read_leg_orders(order, LEG_ORDER)}
    executions = [rename_fields(strip_names(leg), LEG) for leg in _as_list(update.get("legs")) if isinstance(leg, dict)]
    return [known.get(str(leg.get("order_id")), {}) | leg for leg in executions]


def _read_leg_orders(order: Fields, table: Mapping[str, str]) -> list[Fields]:
    """Read the orders in an order's own list of legs."""
    legs = [rename_fields(strip_names(leg), table) for leg in _as_list(order.get("legs")) if isinstance(leg, dict)]
    return [leg for leg in legs if "order_id" in leg]


def _is_multi_leg(order: Fields) -> bool:
    """Whether an order is a multi-leg parent, whose class REST may leave empty. Its legs have a symbol each."""
    return not order.get("symbol") and (order.get("order_class") == "mleg" or bool(_as_list(order.get("legs"))))


def _is_unfilled(event: Fields) -> bool:
    """Whether an order is said to have filled nothing; what is not said is not known."""
    is_filled = normalize_name(str(event.get("order_status"))) == "filled"
    return not is_filled and "filled_qty" in event and not is_above_zero(event["filled_qty"])


def _drop_sums(event: Fields) -> Fields:
    return {name: value for name, value in event.items() if name not in ("filled_qty", "filled_avg_price")}


def _as_list(found: Any) -> list[Any]:
    return found if isinstance(found, list) else []


def _find_newest_time(order: Fields) -> str | None:
    times: list[tuple[int, str]] = []
    for name in ORDER_TIMES:
        try:
            times.append((nanos(order[name]), order[name]))
        except (KeyError, TypeError, BadInstant):
            continue
    return max(times)[1] if times else None
