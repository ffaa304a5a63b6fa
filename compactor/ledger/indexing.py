"""Find the ids that a line names; make the indexes of segments from them, and keep them beside their seals.

`find_names` is the only definition of "this line names that id". The index of a segment is made with it, and a search
compares what it finds with it, so the two never differ. The format of an index is in `index`. Note: a line that
cannot be read as JSON of the right types names everything between two quotes in it, so that damage hides no event.

Invariant: an index is a pure function of its segment. It does not matter who makes it, and where the directory may
not be written it is made in memory.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from compactor.core.decoding import is_too_deep
from compactor.core.derived import Finding
from compactor.core.events import Event
from compactor.core.instants import EPOCH, BadInstant, moment, nanos, rfc3339
from compactor.core.lines import read_line
from compactor.ledger.files import Files
from compactor.ledger.index import (
    STRETCHES_MAX,
    BadIndex,
    Bounds,
    Header,
    Index,
    Read,
    encode_index,
    encode_names,
    index_name,
)
from compactor.ledger.log import Log
from compactor.ledger.segment_format import Seal
from compactor.ledger.segments import Segments


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


_decode_named = msgspec.json.Decoder(Named, float_hook=str).decode
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
    return _decode_named(line)


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


Result = TypeVar("Result")
_get_team = attrgetter("team_id")


def make_index(log: Log, seal: Seal) -> bytes:
    """The bytes of the index of a segment, a pure function of the segment. Raises SegmentDamaged."""
    happened, recorded, told = Bounds(), Bounds(), True
    team: tuple[str, int] | None = None
    codes: list[int] = []
    starts: list[int] = []
    offset = seal.start
    for end in _plan_ends(seal):
        start, names = offset, set[str]()
        for block in log.blocks(offset, end):
            offset = block.end
            if block.too_long:
                told = False
                continue
            batch, odd = _decode(block.data, names)
            _take_names(batch, names)
            told &= _take_instants(batch, happened, recorded) and not odd
            if team is None and (odd or set(map(_get_team, batch)) != {None}):
                team = first_team(block.data, block.offset)
        if offset > start:
            codes += encode_names(names, len(starts))
            starts.append(start - seal.start)
    return encode_index(seal, starts, told, team, happened, recorded, codes)


def _plan_ends(seal: Seal) -> list[int]:
    """Where stretches are to end: with every frame, or with every so many of them."""
    ends = [seal.start + start for start, _ in seal.frames[1:]] + [seal.end]
    step = -(-len(ends) // STRETCHES_MAX)
    return ends[::-1][::step][::-1]


def _decode(data: bytes, names: set[str]) -> tuple[list[Named], bool]:
    """The lines of a block that can be decoded, and whether there are others, whose names are taken in."""
    lines = data.split(b"\n")
    lines.pop()
    try:
        return list(map(decode_named, lines)), False
    except UNREADABLE:
        batch = []
    for line in lines:
        try:
            batch.append(decode_named(line))
        except UNREADABLE:
            names |= find_names(line)
    return batch, True


def _take_names(batch: list[Named], names: set[str]) -> None:
    found = set[str | None]().union(*zip(*map(get_ids, batch), strict=True))
    names.update(filter(None, found))
    for named in batch:
        if named.legs:
            names |= collect_names(named)


def _take_instants(batch: list[Named], happened: Bounds, recorded: Bounds) -> bool:
    """Take in when lines happened and were recorded; whether all of them tell that."""
    seconds = {truncate_to_second(named.ts) for named in batch}
    known = {truncate_to_second(named.recorded_at or named.ts) for named in batch}
    happened.add(set(filter(None, seconds)))
    recorded.add(set(filter(None, known)))
    return None not in seconds | known


class Indexes:
    """The indexes of the sealed segments of an open log; what is missing or damaged is made again when it is needed."""

    def __init__(self, log: Log, segments: Segments, files: Files) -> None:
        self._log = log
        self._segments = segments
        self._files = files
        self._known: dict[int, Header] = {}
        self._made: dict[int, bytes] = {}
        """Those that had to be made again, by where their segments begin."""

    def stretches(self, name: str) -> Iterator[tuple[int, int]]:
        """The ranges of whole lines among what is sealed in which a line may name an id, in order.

        Raises SegmentDamaged where an index has to be made and its segment is not whole.
        """
        for seal in list(self._segments.seals):
            yield from self._use(seal, lambda index, read: index.stretches(name, read))

    def header(self, seal: Seal) -> Header:
        """What the index of a segment says of the whole of it. Raises SegmentDamaged likewise."""
        if seal.start not in self._known:
            self._known[seal.start] = self._use(seal, lambda index, read: index.header)
        return self._known[seal.start]

    def _use(self, seal: Seal, use: Callable[[Index, Read], Result]) -> Result:
        if seal.start not in self._made:
            try:
                reader = self._files.open(self._segments.path / index_name(seal))
                try:
                    return use(Index(reader.read, reader.identity().size, seal), reader.read)
                finally:
                    reader.close()
            except (BadIndex, OSError):
                self._made[seal.start] = self._make(seal)
        data = self._made[seal.start]
        read: Read = lambda offset, length: data[offset : offset + length]  # noqa: E731
        return use(Index(read, len(data), seal), read)

    def _make(self, seal: Seal) -> bytes:
        data = make_index(self._log, seal)
        # Whoever may not write here has it in memory.
        with suppress(OSError):
            _write(self._files, self._segments.path / index_name(seal), data)
        return data


def complete_indexes(files: Files, segments: Segments, log: Log) -> None:
    """Make every index that is not there. Raises OSError and SegmentDamaged; what is sealed stays as it is."""
    names = set(files.names(segments.path))
    for seal in segments.seals:
        if index_name(seal) not in names:
            # A run that begins meanwhile removes what looks left over: then the next one makes it.
            with suppress(FileNotFoundError):
                _write(files, segments.path / index_name(seal), make_index(log, seal))


def _write(files: Files, path: Path, data: bytes) -> None:
    """Put an index in place, whole or not at all. Not synced with its directory: one that is lost is made again."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        files.write_new(temporary, [data])
        files.rename(temporary, path)
    except OSError:
        # What is half written must not keep a full disk full.
        with suppress(OSError):
            files.remove(temporary)
        raise
