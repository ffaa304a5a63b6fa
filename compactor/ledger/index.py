"""The index beside a seal: which stretches of a segment name an id, and between which instants its lines lie.

    segments/<start>-<end>.index

An index is a magic line, a header with its checksum, and pages of sorted numbers, each with its checksum in the header:
24 bits of an id's CRC-32 and the number of a stretch of whole lines (about a frame). A look-up reads the header and one
page. What surprises: nothing depends on an index. It is bound to the bytes of its segment by their digest, whatever is
found through it is compared with the line itself, and one that is missing or damaged is made again from the segment,
in memory where the directory may not be written.
"""

import os
import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import TypeVar
from zlib import crc32

import msgspec
from msgspec import Struct

from compactor.core.instants import nanos
from compactor.ledger.checkpoint import checksum
from compactor.ledger.files import Files
from compactor.ledger.log import Log
from compactor.ledger.names import UNREADABLE, Named, decode_named, first_team, ids_of, names_in, names_of, second_of
from compactor.ledger.segments import Seal, Segments

FORMAT = 1
_MAGIC = b"compactor index\n"
_HEAD = struct.Struct("<I16s")
_CHECKSUM_BYTES = 16
_PLACES_MAX = 256
_ENTRIES_A_PAGE = 1024
_READ_BYTES = 1 << 14
_TAG = 0xFFFFFF
_SECOND_NS = 10**9


class Bounds(Struct, array_like=True):
    """Seconds between which all instants of a segment lie, as their first 19 letters in UTC; empty where none do."""

    first: str = ""
    last: str = ""

    def add(self, seconds: set[str]) -> None:
        """Take in instants of lines."""
        if seconds:
            self.first = min(seconds | {self.first}) if self.first else min(seconds)
            self.last = max(self.last, max(seconds))

    def span_ns(self) -> tuple[int, int] | None:
        """From the first possible nanosecond since 1970 up to the last; None where no line tells."""
        return (nanos(self.first + "Z"), nanos(self.last + "Z") + 999_999_999) if self.first else None


class Header(Struct):
    """What an index says before its pages. `places` are where the stretches begin, counted from `start`; with `told`
    every line tells when it happened; `team` is what the first event with a `team_id` says, and its offset."""

    format: int
    start: int
    end: int
    content_sha256: str
    places: list[int]
    told: bool
    team: tuple[str, int] | None
    happened: Bounds
    recorded: Bounds
    counts: list[int]
    checksums: bytes


_decode_header = msgspec.msgpack.Decoder(Header).decode


Result = TypeVar("Result")


class BadIndex(Exception):
    """An index that is not what was written, or not of its segment."""


Read = Callable[[int, int], bytes]
"""Reads so many bytes from an offset of an index on."""


class Index:
    """An index whose header is good; its pages are checked as they are read. Both raise BadIndex."""

    def __init__(self, read: Read, size: int, seal: Seal) -> None:
        self.header, self._base = _read_header(read)
        header = self.header
        of = (header.format, header.start, header.end, header.content_sha256)
        if of != (FORMAT, seal.start, seal.end, seal.content_sha256) or size != self._base + 4 * sum(header.counts):
            raise BadIndex

    def stretches(self, name: str, read: Read) -> list[tuple[int, int]]:
        """The ranges of whole lines of the log in which a line may name an id, in order."""
        header = self.header
        number, tag = _place_of(crc32(_bytes(name)), len(header.counts))
        page = read(self._base + 4 * sum(header.counts[:number]), 4 * header.counts[number])
        if checksum(page) != header.checksums[number * _CHECKSUM_BYTES :][:_CHECKSUM_BYTES]:
            raise BadIndex
        entries = _numbers(page)
        found = takewhile(lambda entry: entry >> 8 == tag, entries[bisect_left(entries, tag << 8) :])
        places = [*header.places, header.end - header.start]
        return [(header.start + places[one & 0xFF], header.start + places[(one & 0xFF) + 1]) for one in found]


def _read_header(read: Read) -> tuple[Header, int]:
    """The header of an index, and where its pages begin."""
    length = len(_MAGIC) + _HEAD.size
    head = read(0, _READ_BYTES)
    if len(head) < length or not head.startswith(_MAGIC):
        raise BadIndex
    size, expected = _HEAD.unpack_from(head, len(_MAGIC))
    body = head[length : length + size] if length + size <= len(head) else read(length, size)
    if checksum(body) != expected:
        raise BadIndex
    try:
        return _decode_header(body), length + size
    except msgspec.DecodeError:
        raise BadIndex from None


def _bytes(name: str) -> bytes:
    return name.encode(errors="replace")


def _place_of(code: int, pages: int) -> tuple[int, int]:
    """The page of an id and its tag there; `pages` is a power of two."""
    return code & (pages - 1), code // pages & _TAG


def _numbers(data: bytes) -> "array[int]":
    """Stored numbers, which are little-endian on every machine."""
    numbers = array("I", data)
    assert numbers.itemsize == 4
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def index_name(seal: Seal) -> str:
    """The name of the index of a segment."""
    return f"{seal.start:020d}-{seal.end:020d}.index"


# Making one.


def make_index(log: Log, seal: Seal) -> bytes:
    """The bytes of the index of a segment, a pure function of the segment. Raises SegmentDamaged."""
    happened, recorded, told = Bounds(), Bounds(), True
    team: tuple[str, int] | None = None
    codes: set[int] = set()
    places: list[int] = []
    place = seal.start
    for end in _ends(seal):
        start, names = place, set[str]()
        for block in log.blocks(place, end):
            place = block.offset + block.length
            team = team or first_team(b"" if block.too_long else block.data, block.offset)
            told &= not block.too_long and _read_block(block.data, names, happened, recorded)
        if place > start:
            codes.update(crc32(_bytes(name)) << 8 | len(places) for name in names)
            places.append(start - seal.start)
    return _encode(seal, places, told, team, happened, recorded, codes)


def _ends(seal: Seal) -> list[int]:
    """Where stretches are to end: with every frame, or with every so many of them."""
    ends = [seal.start + start for start, _ in seal.frames[1:]] + [seal.end]
    step = -(-len(ends) // _PLACES_MAX)
    return ends[::-1][::step][::-1]


def _read_block(data: bytes, names: set[str], happened: Bounds, recorded: Bounds) -> bool:
    """Take in what the lines of a block name, and when they were; whether all of them tell that."""
    lines = data.split(b"\n")
    lines.pop()
    try:
        batch, told = list(map(decode_named, lines)), True
    except UNREADABLE:
        batch, told = _read_odd(lines, names), False
    found = set[str | None]()
    for named in batch:
        found.update(ids_of(named))
        if named.legs:
            found |= names_of(named)
    names.update(filter(None, found))
    seconds = {second_of(named.ts) for named in batch}
    known = {second_of(named.recorded_at or named.ts) for named in batch}
    happened.add(set(filter(None, seconds)))
    recorded.add(set(filter(None, known)))
    return told and None not in seconds | known


def _read_odd(lines: list[bytes], names: set[str]) -> list[Named]:
    """The lines of a block that can be decoded; the names in the others are taken in."""
    batch = []
    for line in lines:
        try:
            batch.append(decode_named(line))
        except UNREADABLE:
            names |= names_in(line)
    return batch


def _encode(
    seal: Seal,
    places: list[int],
    told: bool,
    team: tuple[str, int] | None,
    happened: Bounds,
    recorded: Bounds,
    codes: set[int],
) -> bytes:
    wanted = max(1, len(codes) // _ENTRIES_A_PAGE)
    pages: list[list[int]] = [[] for _ in range(1 << (wanted - 1).bit_length())]
    for code in codes:
        number, tag = _place_of(code >> 8, len(pages))
        pages[number].append(tag << 8 | code & 0xFF)
    stored = [_stored(sorted(set(page))) for page in pages]
    header = Header(
        FORMAT, seal.start, seal.end, seal.content_sha256, places, told, team, happened, recorded,
        [len(page) // 4 for page in stored], b"".join(map(checksum, stored)),
    )  # fmt: skip
    body = msgspec.msgpack.encode(header)
    return b"".join([_MAGIC, _HEAD.pack(len(body), checksum(body)), body, *stored])


def _stored(numbers: list[int]) -> bytes:
    stored = array("I", numbers)
    if sys.byteorder == "big":
        stored.byteswap()
    return stored.tobytes()


# All of a ledger's.


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
            _write(files, segments.path / index_name(seal), make_index(log, seal))


def _write(files: Files, path: Path, data: bytes) -> None:
    """Put an index in place, whole or not at all. Not synced with its directory: one that is lost is made again."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    files.write_new(temporary, [data])
    files.rename(temporary, path)
