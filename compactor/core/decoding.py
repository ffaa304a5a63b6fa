"""How a line of a log, or a mapping, becomes an event (format.md section 2).

`decode` reads JSON numbers exactly, checks every value, and returns a `Problem` for a line that is no event. What the
plain case takes where it lies in the log is none of its business; `rewritten` helps that over another writer's habits.

Note: on the wire `legs` is one name for two things: the executions of a multi-leg fill, and the orders that belong to
an order. `is_execution` tells them apart (rule 4.10).
"""

import re
from functools import partial
from typing import Any

import msgspec

from compactor.core.decimals import (
    BadDecimal,
    Decimals,
    JsonNumber,
    parse_decimal,
    without_exponent,
    write_numbers,
)
from compactor.core.events import (
    ANY_EVENT,
    DECIMALS,
    EVENTS,
    FILLS,
    LEGS_MAX,
    LINE_BYTES_MAX,
    NESTING_MAX,
    REQUIRED,
    REVISIONS,
    Event,
    Leg,
    Problem,
    UnknownEvent,
)
from compactor.core.instants import END_OF_TIME, FIRST_INSTANT, BadInstant, moment
from compactor.core.lifecycle import normalize_name

SIDES = ("buy", "sell", "sell_short")
_OPTIONAL_TIMES = ("recorded_at", "created_at")
_ZERO_TIME = re.compile(r"0001-01-01T00:00:00(?:\.0+)?(?:Z|\+00:00)?")
"""What Go and C# write for a time that nobody has set."""
_DECIMAL = Decimals()
_OPTIONAL = tuple(name for name in Event.__struct_fields__ if name not in REQUIRED)
_POSITIVE = ("quantity", "notional")
_decode_full = msgspec.json.Decoder(ANY_EVENT, float_hook=str).decode
_encode = msgspec.json.Encoder().encode
_Loose = msgspec.defstruct("_Loose", [(name, Any, None) for name in ("event", *Event.__struct_fields__)], gc=False)
_decode_loose = msgspec.json.Decoder(_Loose, float_hook=JsonNumber).decode
_decode_any = msgspec.json.Decoder(float_hook=str).decode
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_NESTING = re.compile(rb'"(?>[^"\\]++|\\.)*+"|[][{}]', re.DOTALL)


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
        whole = replace_half_characters(line)
        if whole != line:
            return decode(whole)
        found = _decode_by_hand(line)
        if isinstance(found, Problem):
            return found
        event = found
    if b'""' in line or b"[]" in line or b"0001-01-01T" in line:
        _drop_empty(event)
    return _check(event) or event


def build_event(fields: dict[str, Any]) -> Event | Problem:
    """Make a checked event of a mapping, as `decode` does of a line. Floats are refused: their digits are not exact."""
    found = _build_event(drop_absent(fields))
    return found if isinstance(found, Problem) else _check(found) or found


def rewritten(line: bytes) -> bytes | None:
    """A line as our own writer writes it, without what nobody reads; None where msgspec does not take it for an
    event."""
    if is_too_deep(line):
        return None
    try:
        return _encode(_decode_full(line))
    except (msgspec.DecodeError, UnicodeDecodeError, OverflowError):
        return None


def replace_half_characters(line: bytes) -> bytes:
    """The line with U+FFFD in place of each half of a character, as long as before: writers in Python and JavaScript
    escape the halves that they cut a text into, and no reader of JSON has to take them."""
    may_have_half = b"\\ud" in line or b"\\uD" in line
    return _ESCAPE.sub(_replace_half, line) if may_have_half else line


def _replace_half(found: re.Match[bytes]) -> bytes:
    return b"\\ufffd" if found["half"] else found[0]


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


def drop_absent(fields: dict[str, Any]) -> dict[str, Any]:
    """Drop what is absent: `null`, `""`, empty `legs`, and optional times that nobody set. A required field that is
    empty is a bad value."""
    return {name: value for name, value in fields.items() if name in REQUIRED or not _is_absent(name, value)}


def _is_absent(name: str, value: Any) -> bool:
    if name in _OPTIONAL_TIMES and isinstance(value, str) and _ZERO_TIME.fullmatch(value):
        return True
    return value is None or value == "" or (name == "legs" and value == [])


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


def is_execution(leg: Any) -> bool:
    """Whether an entry of `legs` has what only an execution has."""
    return isinstance(leg, dict) and any(leg.get(name) not in (None, "") for name in ("price", "execution_id"))


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


def normalize_side(text: str) -> str:
    """Read a side as `buy`, `sell` or `sell_short`: in any case, also as Python prints the member of an enum."""
    side = text.lower().removeprefix("orderside.")
    if side not in SIDES:
        raise BadDecimal(f"`side` is {text[:60]!r}, expected buy or sell")
    return side
