"""The index beside a seal: which stretches of a segment name an id, and between which instants its lines lie.

    segments/<start>-<end>.index

An index is a magic line, a header with its checksum, and pages of sorted numbers, each with its checksum in the header:
24 bits of an id's CRC-32 and the number of a stretch of whole lines (about a frame). A look-up reads the header and one
page. Making and keeping indexes is left to `indexing`.

Note: nothing depends on an index. It is bound to the bytes of its segment by their digest, and what is found through it
is compared with the line itself.
"""

import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection
from itertools import takewhile
from zlib import crc32

import msgspec
from msgspec import Struct, field

from compactor.core.instants import nanos
from compactor.ledger.checkpoint import checksum
from compactor.ledger.segment_format import Seal

FORMAT = 1
_MAGIC = b"compactor index\n"
_HEAD = struct.Struct("<I16s")
_CHECKSUM_BYTES = 16
STRETCHES_MAX = 256
_ENTRIES_A_PAGE = 1024
_READ_BYTES = 1 << 14
_TAG = 0xFFFFFF


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
    """What an index says before its pages. `starts` are where the stretches begin, counted from `start`; with `told`
    every line tells when it happened; `team` is what the first event with a `team_id` says, and its offset."""

    format: int
    start: int
    end: int
    content_sha256: str
    starts: list[int] = field(name="places")
    told: bool
    team: tuple[str, int] | None
    happened: Bounds
    recorded: Bounds
    counts: list[int]
    checksums: bytes


_decode_header = msgspec.msgpack.Decoder(Header).decode


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
        number, tag = _find_page(crc32(_bytes(name)), len(header.counts))
        page = read(self._base + 4 * sum(header.counts[:number]), 4 * header.counts[number])
        if checksum(page) != header.checksums[number * _CHECKSUM_BYTES :][:_CHECKSUM_BYTES]:
            raise BadIndex
        entries = _numbers(page)
        found = takewhile(lambda entry: entry >> 8 == tag, entries[bisect_left(entries, tag << 8) :])
        starts = [*header.starts, header.end - header.start]
        return [(header.start + starts[one & 0xFF], header.start + starts[(one & 0xFF) + 1]) for one in found]


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


def _find_page(code: int, pages: int) -> tuple[int, int]:
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


def encode_names(names: set[str], number: int) -> list[int]:
    """What an index keeps of the names in a stretch, in no order."""
    try:
        return [crc32(name.encode()) << 8 | number for name in names]
    except UnicodeEncodeError:
        return [crc32(_bytes(name)) << 8 | number for name in names]


def encode_index(
    seal: Seal, starts: list[int], told: bool, team: tuple[str, int] | None, happened: Bounds, recorded: Bounds,
    codes: Collection[int],
) -> bytes:  # fmt: skip
    """An index as the bytes of its file; `codes` are those of `encode_names`."""
    wanted = max(1, len(codes) // _ENTRIES_A_PAGE)
    pages = 1 << (wanted - 1).bit_length()
    bits, page = pages.bit_length() - 1, pages - 1
    # The page stands before the tag, so that sorting once puts every entry into its order.
    entries = sorted({(code >> 8 & page) << 32 | (code >> 8 + bits & _TAG) << 8 | code & 0xFF for code in codes})
    ends = [bisect_left(entries, number << 32) for number in range(1, pages + 1)]
    data = _stored(entries)
    stored = [data[4 * start : 4 * end] for start, end in zip([0, *ends], ends, strict=False)]
    header = Header(
        FORMAT, seal.start, seal.end, seal.content_sha256, starts, told, team, happened, recorded,
        [len(one) // 4 for one in stored], b"".join(map(checksum, stored)),
    )  # fmt: skip
    body = msgspec.msgpack.encode(header)
    return b"".join([_MAGIC, _HEAD.pack(len(body), checksum(body)), body, data])


def _stored(entries: list[int]) -> bytes:
    """The entries without their pages: the lower halves of 64-bit numbers."""
    halves = array("I", array("Q", entries).tobytes())
    assert halves.itemsize == 4
    if sys.byteorder == "big":
        lower = halves[1::2]
        lower.byteswap()
        return lower.tobytes()
    return halves[::2].tobytes()
