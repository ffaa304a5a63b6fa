"""Undo what other programs did to messages before they were recorded: their names, times, enums and zero values.

Note: a time without an offset is refused unless the user gives its time zone. A guess could be wrong by hours, and
times decide which fills are late.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from operator import is_
from typing import Any

from compactor.broker.alpaca.event_fields import ORDER_TIMES
from compactor.core.events import REVISIONS
from compactor.imports.printed import read_text

TIMES = frozenset((*ORDER_TIMES, "expires_at", "timestamp", "at", "transaction_time", "executed_at"))
NAMES = frozenset(
    ("event", "status", "order_status", "side", "type", "order_type", "time_in_force", "order_class", "position_intent")
)
NEVER_ZERO = frozenset(("qty", "notional", "stop_price", "trail_price", "trail_percent"))
"""Fields in which zero is what some languages write for no value."""
TEXTS = frozenset(("client_order_id", "symbol", "reason"))
"""Fields whose text may be anything."""
NESTED = frozenset(("data", "order", "legs", "details"))
"""Fields that hold a part of a message, which some programs write as a text, in a cell of a table as well."""
QUANTITIES = ("qty", "filled_qty", "cum_qty", "leaves_qty")
SALES = ("sell", "sell_short")
NOTHING = frozenset(("None", "null", "nan", "NaN", "NaT"))
"""Texts that stand for no value where a table was written and read."""

SPELLINGS = {
    "quantity": "qty",
    "trade_quantity": "qty",
    "filled_quantity": "filled_qty",
    "average_fill_price": "filled_avg_price",
    "order_side": "side",
    "cancelled_at": "canceled_at",
    "replaced_by_order_id": "replaced_by",
    "replaces_order_id": "replaces",
    "trail_offset_in_dollars": "trail_price",
    "trail_offset_in_percent": "trail_percent",
    "high_water_mark": "hwm",
    "activity_id": "id",
    "cumulative_quantity": "cum_qty",
    "leaves_quantity": "leaves_qty",
}
"""Names of the SDK for C# that are not only another spelling of Alpaca's."""
ORDER_SPELLINGS = {"order_id": "id", "order_status": "status"}
"""The same for an order only; an activity has these fields under these names."""
_ORDER_NAMES = frozenset(("order_id", "client_order_id", "order_status"))
_KINDS = frozenset(("event", "activity_type", "execution_type", "status"))
_OTHER_NAMES = frozenset(("id", "activity_type", "execution_type", "event"))
CLASSES = {"one_cancels_other": "oco", "one_triggers_other": "oto", "multi_leg_options": "mleg"}

_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])| ")
_NAIVE = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})((?:\.[0-9]{1,9})?)")
_OFFSET = re.compile(_NAIVE.pattern + r" ?(?:([+-][0-9]{2}):?([0-9]{2})(?: UTC)?| UTC| GMT)")
_EPOCH = re.compile(r"([0-9]{10}|[0-9]{13}|[0-9]{16}|[0-9]{19})(?:\.0+)?|([0-9]{10})\.([0-9]{1,9})")
_ENUM = re.compile(r"[A-Z][A-Za-z]*\.([A-Z][A-Z0-9_]*)")
_ZERO = re.compile(r"-?0+(?:\.0*)?")
_ZERO_TIME = re.compile(r"0001-01-01[Tt ]00:00:00(?:\.0+)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})?")
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class BadTime(Exception):
    """A time that cannot be placed; the message says why, and what to run."""


def normalize(message: Any, zone: tzinfo | None, originals: dict[int, Any]) -> Any:
    """Return the message in Alpaca's own spelling, the very same object where nothing had to be changed.

    `originals` gets what each changed object was before, by the id of the new one. Raises BadTime.
    """
    if isinstance(message, dict):
        named = _respell(message)
        fields = {name: _normalize_field(name, value, zone, originals) for name, value in named.items()}
        if is_zero(named.get("qty")) and is_zero(named.get("price")):
            fields["price"] = None  # There is no execution in this message.
        fields |= _find_unsigned(fields)
        if named is message and all(fields[name] is value for name, value in message.items()):
            return message
        originals[id(fields)] = message
        return fields
    if isinstance(message, list):
        items = [normalize(one, zone, originals) for one in message]
        return message if all(map(is_, items, message)) else items
    return message


def _respell(message: dict[str, Any]) -> dict[str, Any]:
    """Return the fields under Alpaca's names (`clientOrderId`, `ClientOrderID`); the very same object if they are."""
    names = _find_names(tuple(message))
    if names is None:
        return message
    fields: dict[str, Any] = {}
    for name, value in zip(names, message.values(), strict=True):
        fields[name] = value if fields.get(name) is None else fields[name]
    return fields


@lru_cache(maxsize=256)
def _find_names(told: tuple[str, ...]) -> list[str] | None:
    """Alpaca's names of the fields of an object; None if it has them."""
    names = [_respell_name(name) for name in told]
    if _ORDER_NAMES.issubset(names) and _OTHER_NAMES.isdisjoint(names):
        names = [ORDER_SPELLINGS.get(name, name) for name in names]
    return None if names == list(told) else names


def _respell_name(name: str) -> str:
    words = _WORDS.sub("_", name.strip()).lower().removesuffix("_utc")
    return SPELLINGS.get(words, words)


def _normalize_field(name: str, value: Any, zone: tzinfo | None, originals: dict[int, Any]) -> Any:
    if name in NESTED:
        value = _unfold(value)
        if name == "legs":
            value = _list_legs(value)
    if isinstance(value, dict | list):
        return normalize(value, zone, originals)
    if is_absent_zero(name, value) or (value in NOTHING and name not in TEXTS):
        return None
    if name in TIMES:
        return None if _ZERO_TIME.fullmatch(str(value)) else _normalize_time(name, value, zone)
    if name == "extended_hours" and isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower(), value)
    if isinstance(value, str) and (name in NAMES or name == "activity_type"):
        return respell_value(name, value)
    return value


def _find_unsigned(fields: dict[str, Any]) -> dict[str, Any]:
    """The quantities of a sale without the sign that some programs give them by the side.

    Note: the quantity of a bust is negative as Alpaca sends it.
    """
    inner = fields.get("order") or fields.get("details")
    told = {**inner, **fields} if isinstance(inner, dict) else fields
    if told.get("side") not in SALES or _KINDS.isdisjoint(fields) or any(told.get(one) in REVISIONS for one in _KINDS):
        return {}
    return {name: str(fields[name])[1:] for name in QUANTITIES if str(fields.get(name)).startswith("-")}


def _unfold(part: Any) -> Any:
    """Read a part of a message that was written as a text; the very same object for any other value."""
    found = read_text(part) if isinstance(part, str) else None
    return part if found is None else found


def _list_legs(legs: Any) -> Any:
    """The legs of an order, where they are one object, an object of them by whatever names, or texts."""
    if isinstance(legs, dict) and legs:
        return list(legs.values()) if all(isinstance(leg, dict) for leg in legs.values()) else [legs]
    return list(map(_unfold, legs)) if isinstance(legs, list) and any(isinstance(leg, str) for leg in legs) else legs


def is_absent_zero(name: Any, value: Any) -> bool:
    """Whether a field has the zero that stands for no value."""
    return name in NEVER_ZERO and is_zero(value)


def is_zero(value: Any) -> bool:
    """Whether a quantity or a price is the zero value that writers in some languages send for none."""
    return _ZERO.fullmatch(str(value)) is not None


def respell_value(name: str, value: str) -> str:
    """A status, side or other name in Alpaca's own spelling: `OrderSide.BUY`, `BUY` and `PartiallyFilled` too."""
    match = _ENUM.fullmatch(value)
    text = match[1] if match else value
    if name == "activity_type":
        return text if text.isupper() else text.upper()
    if text.islower():
        return value
    words = _WORDS.sub("_", text).lower()
    return CLASSES.get(words, words)


def _normalize_time(name: str, value: Any, zone: tzinfo | None) -> Any:
    text = str(value)
    if match := _EPOCH.fullmatch(text):
        return _format_epoch(match[1] or match[2] + match[3])
    if match := _NAIVE.fullmatch(text):
        return _add_offset(name, text, match, zone)
    if match := _OFFSET.fullmatch(text):
        date, time, fraction, hours, minutes = match.groups()
        return f"{date}T{time}{fraction}" + (f"{hours}:{minutes}" if hours else "Z")
    return value


def _format_epoch(digits: str) -> str:
    """Format seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by their number of digits."""
    seconds, fraction = digits[:10], digits[10:]
    whole = _BEGINNING + timedelta(seconds=int(seconds))
    return f"{whole:%Y-%m-%dT%H:%M:%S}{'.' + fraction if fraction else ''}Z"


def _add_offset(name: str, text: str, match: re.Match[str], zone: tzinfo | None) -> str:
    date, time, fraction = match.groups()
    if zone is None:
        raise BadTime(f"`{name}` is {text!r}, a time without an offset; run again with --timezone UTC, or its zone")
    try:
        local = datetime.fromisoformat(f"{date}T{time}").replace(tzinfo=zone)
    except ValueError as error:
        raise BadTime(f"`{name}` is {text!r}, which is not a time that exists ({error})") from None
    offset, other = local.utcoffset(), local.replace(fold=1).utcoffset()
    assert offset is not None
    if offset != other or offset % timedelta(minutes=1):
        raise BadTime(f"`{name}` is {text!r}, which is not one instant in {zone}: clocks were changed")
    minutes = offset // timedelta(minutes=1)
    sign, minutes = ("-", -minutes) if minutes < 0 else ("+", minutes)
    return f"{date}T{time}{fraction}{sign}{minutes // 60:02}:{minutes % 60:02}"
