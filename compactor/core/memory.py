"""Where the lines of orders that have left the state lie, so that a late event can bring one back (format.md section
6).

An ended order shrinks to the two offsets between which its events stand. When those are older than the retention,
only a mark in a filter remains: four bytes that say "this order id may have been here". So the memory is bounded by
recent history, and an event of a forgotten order is never mistaken for the first event of a new one. A false mark
costs a search, never a wrong answer.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from hashlib import blake2b
from typing import NamedTuple

import msgspec
from msgspec import Struct

from compactor.core.orders import Order

PAGE_BYTES = 1 << 16
_PAGE_MASK = PAGE_BYTES * 8 - 1
_PROBES = 8
_IDS_A_PAGE = PAGE_BYTES // 4
_SPANS_A_PAGE = 96

Fetch = Callable[[int], bytes]
"""Reads one page of a stored memory by its number."""


class Span(NamedTuple):
    """The offsets of an order's first and last event, and its greatest `ts`; `last` is None where only a mark is
    left."""

    first: int
    last: int | None
    updated: datetime | None


def fingerprint(order_id: str) -> int:
    """128 bits that stand for an order id, the same on every machine."""
    return int.from_bytes(blake2b(order_id.encode(), digest_size=16).digest(), "little")


class Forgotten:
    """A Bloom filter of order ids in generations, each four times the size of the one before; its pages may lie in a
    file."""

    def __init__(self, counts: Iterable[int] = (), fetch: Fetch | None = None) -> None:
        self.counts = list(counts)
        self._fetch = fetch
        self._pages: dict[int, bytearray] = {}

    @staticmethod
    def _pages_in(generation: int) -> int:
        return int(4 ** (generation + 1))

    def _first_page(self, generation: int) -> int:
        return sum(self._pages_in(one) for one in range(generation))

    def add(self, order_id: str) -> None:
        """Mark an order id; it can never be unmarked."""
        if not self.counts or self.counts[-1] >= self._pages_in(len(self.counts) - 1) * _IDS_A_PAGE:
            self.counts.append(0)
        generation = len(self.counts) - 1
        self.counts[generation] += 1
        page, bits = self._place(fingerprint(order_id), generation)
        for bit in bits:
            page[bit >> 3] |= 1 << (bit & 7)

    def __contains__(self, order_id: str) -> bool:
        mark = fingerprint(order_id)
        for generation in range(len(self.counts)):
            page, bits = self._place(mark, generation)
            if all(page[bit >> 3] >> (bit & 7) & 1 for bit in bits):
                return True
        return False

    def _place(self, mark: int, generation: int) -> tuple[bytearray, Iterator[int]]:
        """The page of a mark, and its bits in it."""
        number = self._first_page(generation) + (mark & 0xFFFFFFFF) % self._pages_in(generation)
        start, step = mark >> 32 & 0xFFFFFFFF, mark >> 64 | 1
        return self._page(number), ((start + probe * step) & _PAGE_MASK for probe in range(_PROBES))

    def _page(self, number: int) -> bytearray:
        page = self._pages.get(number)
        if page is None:
            stored = self._fetch(number) if self._fetch is not None else b""
            page = self._pages[number] = bytearray(stored or PAGE_BYTES)
        return page

    def pages(self) -> Iterator[bytes]:
        """Every page in order, as it is to be stored; an empty one where nothing is marked in it."""
        for number in range(self._first_page(len(self.counts))):
            page = self._pages.get(number)
            if page is not None:
                yield bytes(page)
            else:
                yield self._fetch(number) if self._fetch is not None else b""


class SpanRecord(Struct, array_like=True, gc=False):
    """A stored span."""

    order_id: str
    first: int
    last: int
    updated: datetime


_records = msgspec.msgpack.Decoder(list[SpanRecord]).decode


class Memory:
    """Spans of recently ended orders, those of a stored table behind them, and the marks of the forgotten ones."""

    def __init__(self, spans: int = 0, fetch: Fetch | None = None, forgotten: Forgotten | None = None) -> None:
        self.recent: dict[str, Span] = {}
        self.forgotten = forgotten or Forgotten()
        self._stored_pages = spans
        self._fetch = fetch
        self._age_at = 1 << 13

    @property
    def empty(self) -> bool:
        """Whether no order has ever left the state."""
        return not (self.recent or self._stored_pages or self.forgotten.counts)

    def keep(self, order: Order) -> None:
        """Remember where the events of an ended order lie."""
        self.recent[order.order_id] = Span(order.first, order.last, order.updated)

    def find(self, order_id: str) -> Span | None:
        """Where the events of an order may lie; None where there are none for certain."""
        span = self.recent.get(order_id) or self._stored(order_id)
        if span is None and order_id in self.forgotten:
            return Span(0, None, None)
        return span

    def _stored(self, order_id: str) -> Span | None:
        if self._fetch is None or not self._stored_pages:
            return None
        for record in _records(self._fetch(fingerprint(order_id) % self._stored_pages)):
            if record.order_id == order_id:
                return Span(record.first, record.last, record.updated)
        return None

    def is_due(self) -> bool:
        """Whether enough has come together for `age` to be worth its time."""
        return len(self.recent) >= self._age_at

    def age(self, limit: datetime) -> None:
        """Let spans older than the limit shrink to their marks (6.1)."""
        old = [order_id for order_id, span in self.recent.items() if span.updated is not None and span.updated < limit]
        for order_id in old:
            del self.recent[order_id]
            self._forget(order_id)
        self._age_at = max(1 << 13, len(self.recent) * 5 // 4)

    def _forget(self, order_id: str) -> None:
        if order_id not in self.forgotten:
            self.forgotten.add(order_id)

    def spans(self, ended: Iterable[Order], limit: datetime | None) -> list[bytes]:
        """All spans as the pages of a table to store: these orders, the recent ones, then the stored ones that are
        not too old."""
        table = {order.order_id: SpanRecord(order.order_id, order.first, order.last, order.updated) for order in ended}
        for order_id, span in self.recent.items():
            assert span.last is not None and span.updated is not None
            table.setdefault(order_id, SpanRecord(order_id, span.first, span.last, span.updated))
        for record in self._stored_records():
            if record.order_id in table:
                continue
            if limit is not None and record.updated < limit:
                self._forget(record.order_id)
            else:
                table[record.order_id] = record
        return _paged(list(table.values()))

    def _stored_records(self) -> Iterator[SpanRecord]:
        for number in range(self._stored_pages):
            assert self._fetch is not None
            yield from _records(self._fetch(number))


def _paged(records: list[SpanRecord]) -> list[bytes]:
    pages: list[list[SpanRecord]] = [[] for _ in range(-(-len(records) // _SPANS_A_PAGE))]
    for record in records:
        pages[fingerprint(record.order_id) % len(pages)].append(record)
    return [msgspec.msgpack.encode(page) for page in pages]
