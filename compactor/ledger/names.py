"""Find the ids that a line of the log names, and the instant of the line, for searches by id and filters by time.

`find_names` is the only definition of "this line names that id". The index of a segment is made with it, and a search
compares what it finds with it, so the two never differ. Note: a line that cannot be read as JSON of the right types
names everything between two quotes in it, so that damage hides no event.
"""

import re
from collections.abc import Iterable
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import Struct

from compactor.core.derived import Finding
from compactor.core.events import Event, is_too_deep
from compactor.core.instants import EPOCH, BadInstant, moment, nanos, rfc3339
from compactor.core.lines import read_line


class Named(Struct, gc=False):
    """What of a line names something, or says when: every field may be missing."""

    ts: str | None = None
    recorded_at: str | None = None
    order_id: str | None = None
    client_order_id: str | None = None
    broker_order_id: str | None = None
    execution_id: str | None = None
    previous_execution_id: str | None = None
    replaces: str | None = None
    replaced_by: str | None = None
    parent_order_id: str | None = None
    legs: Any = None
    team_id: str | None = None


_decode = msgspec.json.Decoder(Named, float_hook=str).decode
IDS = (
    "order_id", "client_order_id", "broker_order_id", "execution_id", "previous_execution_id",
    "replaces", "replaced_by", "parent_order_id",
)  # fmt: skip
get_ids: Any = attrgetter(*IDS)
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError)
"""What `decode_named` raises."""
_LEG_IDS = ("order_id", "id", "client_order_id", "execution_id")
# A leap second is the first instant of the next minute, and is left to `nanos`, as are days that may not exist.
_COMMON = re.compile(
    r"(?:(?:19|20|21)[0-9]{2}|22[0-5][0-9]|226[01])-(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?Z"
)
_QUOTED = re.compile(rb'"([^"\n]+)(?=")')


def decode_named(line: bytes) -> Named:
    """Read what a line (without its newline) names, if it is JSON of the right types. Raises what is `UNREADABLE`."""
    if is_too_deep(line):
        raise msgspec.DecodeError("too many objects and arrays lie in each other")
    return _decode(line)


def find_names(line: bytes) -> set[str]:
    """The ids that a line (without its newline) names."""
    try:
        return collect_names(decode_named(line))
    except UNREADABLE:
        return _names_by_hand(line)


def collect_names(named: Named) -> set[str]:
    """The ids in what was decoded of a line."""
    names = set(filter(None, get_ids(named)))
    if named.legs:
        names.update(_ids_in_legs(named.legs))
    return names


def _ids_in_legs(legs: object) -> Iterable[str]:
    for leg in legs if isinstance(legs, list) else ():
        found = [leg.get(name) for name in _LEG_IDS] if isinstance(leg, dict) else [leg]
        yield from (one for one in found if isinstance(one, str) and one)


def _names_by_hand(line: bytes) -> set[str]:
    """The ids in a line that needs the thorough reading: of its events, and whatever is quoted in it."""
    names = {one.decode(errors="replace") for one in _QUOTED.findall(line)}
    for found in read_line(line, 0):
        if not isinstance(found, Finding):
            names.update(filter(None, get_ids(found.event)))
            names.update(_ids_in_legs(found.event.legs))
            names.update(
                filter(None, (one for leg in found.event.leg_fills or () for one in (leg.order_id, leg.execution_id)))
            )
    return names


def first_team(data: bytes, offset: int) -> tuple[str, int] | None:
    """The team that the first event with a `team_id` names, and where that event stands, among whole lines at an
    offset; None where none does (rule 1.2)."""
    if b"team_id" not in data and b"\\u" not in data:
        return None
    for line in data.split(b"\n")[:-1]:
        for piece in read_line(line, offset):
            if not isinstance(piece, Finding) and piece.event.team_id is not None:
                return piece.event.team_id, piece.offset
        offset += len(line) + 1
    return None


def find_instant(line: bytes, known: bool) -> int | None:
    """When a line happened by its `ts`, or, with `known`, when it was recorded (its `ts` where it does not say), in
    nanoseconds since 1970; None for a line that does not tell.

    Of several events that were fused into one line the latest counts.
    """
    try:
        named = decode_named(line)
        text = (named.recorded_at if known else None) or named.ts
        return nanos(text) if text is not None else None
    except (*UNREADABLE, BadInstant):
        instants = [_get_instant(found.event, known) for found in read_line(line, 0) if not isinstance(found, Finding)]
        return max(instants, default=None)


def truncate_to_second(text: str | None) -> str | None:
    """The whole second of an instant as its first 19 letters in UTC, which can be compared; None for what is none."""
    if text is None:
        return None
    if _COMMON.fullmatch(text) is not None:
        return text[:19]
    try:
        return rfc3339(nanos(text))[:19]
    except BadInstant:
        return None


def _get_instant(event: Event, known: bool) -> int:
    if not known or event.recorded_at is None:
        return nanos(event.ts)
    return (event.recorded_at - EPOCH) // (moment("1970-01-01T00:00:00.000001Z") - EPOCH) * 1000
