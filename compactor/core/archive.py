"""The archive: what is remembered of orders that have left the state (format.md section 6).

An order that has ended shrinks to a span: the offsets of its first and last event. A span older than the retention
shrinks to a mark in a Bloom filter, six bytes that say "this order id may have been here". Memory is therefore bounded
by recent history, and a late event of an old order is never mistaken for the first event of a new one. A false positive
costs a search of the log, never a wrong answer.

Pages and bits are found by a fingerprint of the order id under a secret that each state has of its own. So nobody who
can only append to a log can make order ids that fall together and fill one page.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import groupby, starmap
from operator import attrgetter
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from compactor.core import fast
from compactor.core.orders import Ended

PAGE_BYTES = 1 << 16
_PAGE_MASK = PAGE_BYTES * 8 - 1
_PROBES = 8
_IDS_A_PAGE = PAGE_BYTES // 6
_SPANS_A_PAGE = 96
PRIME = (1 << 61) - 1
_CHUNK_BYTES = 7
# Any constants that look random will do. These are hexadecimal digits of pi.
_FACTOR = 0x243F6A8885A308D313198A2E03707345
NO_SECRET = 0x4A4093822299F31
"""The secret of a state that nobody keeps, and whose log nobody hostile wrote."""

# First page and number of pages of each generation of the filter. Twelve generations hold 10^11 order ids.
_LAYOUT = [((4 ** (one + 1) - 4) // 3, 4 ** (one + 1)) for one in range(12)]

Load = Callable[[int], bytearray]
"""Return a page of the filter by its number; the caller may change it in place."""

Fetch = Callable[[int], bytes]
"""Read a stored page by its number."""

Span = tuple[int, int | None, datetime | None]
"""The offsets of an order's first and last event, and the log's clock when the order left the state. The last two are
None where only a mark is left."""


def fingerprint(order_id: str, secret: int) -> int:
    """Hash an order id under a secret, equally in every process: a number below 2 ** 127.

    Its length and its bytes, seven at a time, are the coefficients of a polynomial modulo `PRIME`, whose value at the
    secret is spread over the bits by a constant. Two ids of n bytes have the same value at n / 7 + 1 of all secrets,
    of which there are 2 ** 61.
    """
    data = order_id.encode()
    value = len(data)
    for start in range(0, len(data), _CHUNK_BYTES):
        # Python's `hash` of an integer is the integer modulo 2 ** 61 - 1, and much faster than the `%` operator.
        value = hash(value * secret + int.from_bytes(data[start : start + _CHUNK_BYTES], "little"))
    return hash(value * secret) * _FACTOR >> 61


def find_bits(mark: int, generation: int) -> Iterator[tuple[int, int]]:
    """The bits of a fingerprint in a generation, each as the number of its page and its index in that page."""
    first, pages = _LAYOUT[generation]
    start, step = mark >> 32, mark >> 64 | 1
    for probe in range(_PROBES):
        yield first + (mark & 0xFFFFFFFF) % pages, start + probe * step & _PAGE_MASK


def is_marked(pages: dict[int, bytearray], load: Load, generations: int, mark: int) -> bool:
    """Whether all bits of a fingerprint are set in one generation. `load` returns pages that are not in `pages`."""

    def is_set(number: int, bit: int) -> bool:
        page = pages.get(number) or load(number)
        return bool(page[bit >> 3] >> (bit & 7) & 1)

    return any(all(starmap(is_set, find_bits(mark, generation))) for generation in range(generations))


def set_mark(pages: dict[int, bytearray], load: Load, generation: int, mark: int) -> bool:
    """Set the bits of a fingerprint in a generation; return whether one of them was not set before."""
    is_new = False
    for number, bit in find_bits(mark, generation):
        page = pages.get(number) or load(number)
        is_new = is_new or not page[bit >> 3] >> (bit & 7) & 1
        page[bit >> 3] |= 1 << (bit & 7)
    return is_new


if not TYPE_CHECKING and fast.IS_COMPILED:
    fingerprint, is_marked, set_mark = fast.marks.fingerprint, fast.marks.is_marked, fast.marks.set_mark


class BloomFilter:
    """A Bloom filter of order ids that grows by generations, each four times as large as the one before.

    Pages are fetched from storage when they are first needed. `secret` is that of the fingerprints.
    """

    def __init__(self, counts: Iterable[int] = (), fetch: Fetch | None = None, secret: int = NO_SECRET) -> None:
        self.secret = secret
        self.counts = list(counts)
        self._fetch = fetch
        self._pages: dict[int, bytearray] = {}

    def add(self, order_id: str) -> None:
        """Mark an order id. A mark cannot be removed; marking an id twice takes no more space."""
        self.mark(fingerprint(order_id, self.secret))

    def mark(self, mark: int) -> None:
        """Mark the order id with this fingerprint."""
        if not self.counts or self.counts[-1] >= _LAYOUT[len(self.counts) - 1][1] * _IDS_A_PAGE:
            self.counts.append(0)
        self.counts[-1] += set_mark(self._pages, self._page, len(self.counts) - 1, mark)

    def __contains__(self, order_id: str) -> bool:
        return self.has(fingerprint(order_id, self.secret))

    def has(self, mark: int) -> bool:
        """Whether an order id with this fingerprint may be marked."""
        return is_marked(self._pages, self._page, len(self.counts), mark)

    def _page(self, number: int) -> bytearray:
        page = self._pages[number] = bytearray(self._read_stored(number) or PAGE_BYTES)
        return page

    def _read_stored(self, number: int) -> bytes:
        return self._fetch(number) if self._fetch is not None else b""

    def pages(self) -> Iterator[bytes | bytearray]:
        """Every page in order, ready to be stored; empty bytes for a page without a mark."""
        for number in range(_LAYOUT[len(self.counts)][0]):
            yield self._pages.get(number) or self._read_stored(number)


class SpanRecord(Struct, array_like=True, gc=False):
    """A stored span."""

    order_id: str
    first: int
    last: int
    seen: datetime


_records = msgspec.msgpack.Decoder(list[SpanRecord]).decode


class Archive:
    """Spans of recently ended orders, the stored table of older spans, and the marks of orders older than that.

    The secret of the marks is that of the stored table too.
    """

    def __init__(self, spans: int = 0, fetch: Fetch | None = None, marks: BloomFilter | None = None) -> None:
        self.recent: dict[str, tuple[int, int, datetime]] = {}
        self._ages: deque[tuple[datetime, list[str]]] = deque()
        self.marks = marks or BloomFilter()
        self._stored_pages = spans
        self._fetch = fetch

    def may_know(self, order_id: str) -> bool:
        """Whether an order may have left the state; False is certain."""
        if order_id in self.recent:
            return True
        if self._stored_pages and self._find_stored(order_id) is not None:
            return True
        return bool(self.marks.counts) and order_id in self.marks

    def keep(self, orders: Sequence[Ended], clock: datetime | None) -> None:
        """Add ended orders that leave the state when the log's clock shows `clock`."""
        if not orders:
            return
        assert clock is not None
        for order_id, first, last in orders:
            self.recent[order_id] = (first, last, clock)
        self._ages.append((clock, [order_id for order_id, _first, _last in orders]))

    def keep_all(self, records: Iterable[SpanRecord]) -> None:
        """Add spans that were stored earlier."""
        seen = attrgetter("seen")
        for clock, together in groupby(sorted(records, key=seen), seen):
            self.keep([(one.order_id, one.first, one.last) for one in together], clock)

    def find(self, order_id: str) -> Span | None:
        """The range of the log that may hold events of an order; None where there is certainly none."""
        span = self.recent.get(order_id)
        if span is not None:
            return span
        stored = self._find_stored(order_id) if self._stored_pages else None
        if self.marks.counts and order_id in self.marks:
            # The order left again since its span was stored, and its newer span has shrunk to this mark: the stored
            # span has the first event; the last may lie anywhere behind it.
            return stored[0] if stored is not None else 0, None, None
        return stored

    def _find_stored(self, order_id: str) -> Span | None:
        assert self._fetch is not None
        for record in _records(self._fetch(fingerprint(order_id, self.marks.secret) % self._stored_pages)):
            if record.order_id == order_id:
                return record.first, record.last, record.seen
        return None

    def age(self, limit: datetime) -> None:
        """Shrink spans that are older than the limit to marks (6.1)."""
        while self._ages and self._ages[0][0] < limit:
            _clock, together = self._ages.popleft()
            for order_id in together:
                span = self.recent.get(order_id)
                # An order that came back may have left again since.
                if span is not None and span[2] < limit:
                    del self.recent[order_id]
                    self.marks.add(order_id)

    def encode_spans(self, limit: datetime | None) -> list[bytes]:
        """Encode all spans as pages of a table: recent ones, and stored ones that are not older than `limit`."""
        table = {order_id: SpanRecord(order_id, *span) for order_id, span in self.recent.items()}
        for record in self._stored_records():
            if record.order_id in table:
                continue
            if limit is not None and record.seen < limit:
                self.marks.add(record.order_id)
            else:
                table[record.order_id] = record
        return _split_into_pages(list(table.values()), self.marks.secret)

    def _stored_records(self) -> Iterator[SpanRecord]:
        for number in range(self._stored_pages):
            assert self._fetch is not None
            yield from _records(self._fetch(number))


def _split_into_pages(records: list[SpanRecord], secret: int) -> list[bytes]:
    pages: list[list[SpanRecord]] = [[] for _ in range(-(-len(records) // _SPANS_A_PAGE))]
    for record in records:
        pages[fingerprint(record.order_id, secret) % len(pages)].append(record)
    return [msgspec.msgpack.encode(page) for page in pages]
