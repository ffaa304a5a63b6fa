"""The events of format.md section 2, and how a line becomes one.

`decode` reads JSON numbers exactly, checks every value, and returns a `Problem` for a line that is no event. What the
plain case takes where it lies in the log is none of its business; `rewritten` helps that over another writer's habits.

Note: on the wire `legs` is one name for two things: the executions of a multi-leg fill, and the orders that belong to
an order. `is_execution` tells them apart (rule 4.10).
"""

import re
from collections.abc import Iterable
from datetime import datetime
from functools import partial, reduce
from operator import or_
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta, Struct, field

from compactor.core.decimals import (
    BadDecimal,
    Decimals,
    JsonNumber,
    parse_decimal,
    without_exponent,
    write_numbers,
)
from compactor.core.instants import END_OF_TIME, FIRST_INSTANT, BadInstant, moment
from compactor.core.lifecycle import STATUSES, normalize_name

REQUIRED = ("event", "order_id", "ts")
"""The fields that every event has."""

SIDES = ("buy", "sell", "sell_short")


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


def read_leg_fills(legs: list[Any]) -> list[Leg]:
    """Read the executions among the entries of `legs`, in their order, decimals as texts."""
    read = []
    for index, leg in enumerate(legs):
        if not is_execution(leg):
            continue
        numbers = {n: str(leg[n]) for n in ("qty", "price", "filled_qty") if type(leg.get(n)) is int}
        found = msgspec.convert({**drop_absent(leg), **numbers, "index": index}, Leg)
        found.side = normalize_side(found.side)
        for name in ("qty", "price", "filled_qty"):
            text = getattr(found, name)
            setattr(found, name, without_exponent(text) if text is not None else None)
        read.append(found)
    return read


def is_execution(leg: Any) -> bool:
    """Whether an entry of `legs` has what only an execution has."""
    return isinstance(leg, dict) and any(leg.get(name) not in (None, "") for name in ("price", "execution_id"))


def normalize_side(text: str) -> str:
    """Read a side as `buy`, `sell` or `sell_short`: in any case, also as Python prints the member of an enum."""
    side = text.lower().removeprefix("orderside.")
    if side not in SIDES:
        raise BadDecimal(f"`side` is {text[:60]!r}, expected buy or sell")
    return side


def drop_absent(fields: dict[str, Any]) -> dict[str, Any]:
    """Drop what is absent: `null`, `""`, empty `legs`, and optional times that nobody set. A required field that is
    empty is a bad value."""
    return {name: value for name, value in fields.items() if name in REQUIRED or not _is_absent(name, value)}


def _is_absent(name: str, value: Any) -> bool:
    if name in OPTIONAL_TIMES and isinstance(value, str) and ZERO_TIME.fullmatch(value):
        return True
    return value is None or value == "" or (name == "legs" and value == [])


OPTIONAL_TIMES = ("recorded_at", "created_at")
ZERO_TIME = re.compile(r"0001-01-01T00:00:00(?:\.0+)?(?:Z|\+00:00)?")
"""What Go and C# write for a time that nobody has set."""

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
_DECIMAL = Decimals()
_OPTIONAL = tuple(name for name in Event.__struct_fields__ if name not in REQUIRED)
_POSITIVE = ("quantity", "notional")


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


_ANY_EVENT: Any = reduce(or_, EVENTS.values())
AnyEvent = _ANY_EVENT | None
_decode_full = msgspec.json.Decoder(_ANY_EVENT, float_hook=str).decode
_encode = msgspec.json.Encoder().encode
_Loose = msgspec.defstruct("_Loose", [(name, Any, None) for name in ("event", *Event.__struct_fields__)], gc=False)
_decode_loose = msgspec.json.Decoder(_Loose, float_hook=JsonNumber).decode
_decode_any = msgspec.json.Decoder(float_hook=str).decode
_NESTING = re.compile(rb'"(?>[^"\\]++|\\.)*+"|[][{}]', re.DOTALL)


def rewritten(line: bytes) -> bytes | None:
    """A line as our own writer writes it, without what nobody reads; None where msgspec does not take it for an
    event."""
    if is_too_deep(line):
        return None
    try:
        return _encode(_decode_full(line))
    except (msgspec.DecodeError, UnicodeDecodeError, OverflowError):
        return None


def is_too_deep(line: bytes) -> bool:
    """Whether more than `NESTING_MAX` objects and arrays of a line lie in each other."""
    if line.count(b"{") + line.count(b"[") <= NESTING_MAX:
        return False
    depth = 0
    for found in _NESTING.finditer(line):
        if (bracket := found[0]) in (b"{", b"["):
            depth += 1
            if depth > NESTING_MAX:
                return True
        elif bracket in (b"}", b"]"):
            depth -= 1
    return False


def decode(line: bytes) -> Event | Problem:
    """Read one line (without its newline) thoroughly: every value is checked and exact, `cancelled` reads as
    `canceled`."""
    if len(line) > LINE_BYTES_MAX:
        return Problem("too_long", f"a line of {len(line)} bytes, expected at most {LINE_BYTES_MAX}")
    if is_too_deep(line):
        return _describe_damage(line, f"more than {NESTING_MAX} objects and arrays lie in each other")
    try:
        event = _decode_full(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = _decode_by_hand(line)
        if isinstance(found, Problem):
            return found
        event = found
    if b'""' in line or b"[]" in line or b"0001-01-01T" in line:
        _drop_empty(event)
    return _check(event) or event


def _drop_empty(event: Event) -> None:
    """Writers in some languages send `""`, `[]` and the first second of year 1 for what is absent."""
    for name in _OPTIONAL:
        if _is_absent(name, getattr(event, name)):
            setattr(event, name, None)
    if event.recorded_at is not None and _is_absent("recorded_at", event.recorded_at.isoformat()):
        event.recorded_at = None


def _decode_by_hand(line: bytes) -> Event | Problem:
    """Read a line that msgspec refused: numbers in place of strings, an unknown event, or the reason why it is no
    event."""
    try:
        loose = _decode_loose(line)
        fields = {name: getattr(loose, name) for name in _Loose.__struct_fields__}
        return _build_event(drop_absent(fields))
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:
        found = _decode_any(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return _describe_damage(line, str(error))
    return Problem("bad_value", f"expected a JSON object, found {type(found).__name__}")


def _describe_damage(line: bytes, reason: str) -> Problem:
    """Why a line that is no JSON is none."""
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return Problem("not_utf8", f"byte {error.start} of the line is not UTF-8: {error.reason}")
    if b"\0" in line:
        return Problem("nul_bytes", f"{line.count(0)} NUL bytes, as a crash leaves them at the end of a file")
    return Problem("not_json", f"not JSON: {reason}")


def build_event(fields: dict[str, Any]) -> Event | Problem:
    """Make a checked event of a mapping, as `decode` does of a line. Floats are refused: their digits are not exact."""
    found = _build_event(drop_absent(fields))
    return found if isinstance(found, Problem) else _check(found) or found


def _build_event(fields: dict[str, Any]) -> Event | Problem:
    for name in REQUIRED:
        if fields.get(name) is None:
            return Problem("missing_field", f"`{name}` is missing")
    for name in DECIMALS:
        if type(fields.get(name)) in (int, JsonNumber):
            fields[name] = str(fields[name])
    # A number where a text belongs: a float makes msgspec name the field and the types.
    fields = {name: float("nan") if type(value) is JsonNumber else value for name, value in fields.items()}
    kind = EVENTS.get(fields["event"]) if isinstance(fields["event"], str) else UnknownEvent
    try:
        return msgspec.convert(fields, kind or UnknownEvent)
    except msgspec.ValidationError as error:
        return Problem("bad_value", str(error))


def _check(event: Event) -> Problem | None:
    """Check the values of an event and write exponents out; the problem, or None where all is well."""
    try:
        _check_values(event)
    except (BadDecimal, BadInstant) as error:
        return Problem("bad_value", str(error))
    return _check_fill(event)


def _check_values(event: Event) -> None:
    if not event.order_id or not event.event:
        raise BadDecimal(f"`{'event' if event.order_id else 'order_id'}` is empty")
    moment(event.ts)
    if event.recorded_at is not None and not FIRST_INSTANT <= event.recorded_at < END_OF_TIME:
        raise BadInstant(f"`recorded_at` {event.recorded_at.isoformat()} is not in the years 1900 to 2261")
    if event.created_at is not None:
        moment(event.created_at)
    if event.legs is not None:
        if len(event.legs) > LEGS_MAX:
            raise BadDecimal(f"`legs` has {len(event.legs)} entries, expected at most {LEGS_MAX}")
        event.legs = write_numbers(event.legs)
    for name in DECIMALS:
        text = getattr(event, name)
        if text is None:
            continue
        try:
            value = _DECIMAL[text]
        except BadDecimal as error:
            raise BadDecimal(f"`{name}`: {error}") from None
        if value <= 0 and (name in _POSITIVE or (name == "qty" and event.event != "trade_bust")):
            raise BadDecimal(f"`{name}` is {text}, expected more than zero")
        if value < 0 and name == "filled_qty":
            raise BadDecimal(f"`{name}` is {text}, expected zero or more")
        setattr(event, name, without_exponent(text))
    if event.order_status is not None:
        event.order_status = normalize_name(event.order_status)
    if event.side is not None:
        event.side = normalize_side(event.side)


def _check_fill(event: Event) -> Problem | None:
    """Fills need their numbers, busts and corrections the execution that they are about, assignments a team (section
    2)."""
    name = event.event
    missing = partial(Problem, "missing_field")
    if name == "assigned" and bool(event.to_team) == bool(event.from_team):
        both = "found both" if event.to_team else "found neither"
        return missing(f"`assigned` needs the other team, as `to_team` or as `from_team`; {both}")
    if name in REVISIONS and event.previous_execution_id is None and event.execution_id is None:
        return missing(f"`{name}` needs `previous_execution_id` or `execution_id`")
    event.leg_fills = None
    if name in FILLS and event.legs is not None and any(map(is_execution, event.legs)):
        return _separate_legs(event)
    if name in FILLS or name == "trade_correct":
        if event.price is None:
            return missing(f"`{name}` needs `price`")
        # A fill may tell only how much is filled in all (rule 4.4).
        if event.qty is None and (event.filled_qty is None or name == "trade_correct"):
            return missing(f"`{name}` needs `qty`")
    return None


def _separate_legs(event: Event) -> Problem | None:
    """Move the executions of a multi-leg fill from `legs` to `leg_fills`."""
    assert event.legs is not None
    try:
        event.leg_fills = read_leg_fills(event.legs)
        event.legs = None
        for leg in event.leg_fills:
            for text in (leg.qty, leg.price, leg.filled_qty or "0"):
                parse_decimal(text)
            if parse_decimal(leg.qty) <= 0 or not leg.order_id:
                return Problem("bad_value", f"a leg has `qty` {leg.qty} and `order_id` {leg.order_id!r}")
    except msgspec.ValidationError as error:
        kind = "missing_field" if "missing required field" in str(error) else "bad_value"
        return Problem(kind, f"`legs`: {error}")
    except BadDecimal as error:
        return Problem("bad_value", f"`legs`: {error}")
    return None
