"""Follows the log of one ledger, and says which orders are in it.

In memory are the orders of the last part of the log. What is older is answered by the archive of the newest checkpoint,
which knows for certain which orders it never had. Only for the others are lines read, by the spans in the checkpoint
and the indexes of the segments. Whose an order is follows from the claims of all ledgers, and is left to `order_index`.

Note: where no checkpoint reaches up to the part in memory, every older order is searched for in the lines between.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import timedelta
from hashlib import blake2b

import msgspec

from compactor.books.ownership import Claim, list_ties
from compactor.core.derived import Finding
from compactor.core.events import Event, is_intent
from compactor.core.fold import Fold
from compactor.core.instants import EPOCH, nanos
from compactor.core.lines import Assignments, Deliveries, EventReader, identify_delivery
from compactor.core.orders import Order
from compactor.ledger import LedgerEntry, LedgerError
from compactor.ledger.checkpoint import DamagedCheckpoint, Slot, open_newest_slot
from compactor.ledger.event_text import cut_event
from compactor.ledger.files import Files
from compactor.ledger.indexing import Indexes
from compactor.ledger.log import Log, open_log
from compactor.ledger.paths import LOG, STATE
from compactor.ledger.segments import Segments

TAIL_BYTES = 4 << 20
"""How much of a log is in memory at the beginning."""
SKEW_NS = 3600 * 1_000_000_000
"""By how much the clock that stamps lines may be behind the broker's, which stamps orders."""
DELIVERIES_MAX = 20_000
"""How many of the last deliveries of a log are known, some 2 MB."""
_MARK_BYTES = 4096
_SEARCH_BYTES = 1 << 16
_decode_order = msgspec.msgpack.Decoder(Order).decode


class FollowedLog:
    """One ledger's log. Not safe for several threads. Methods raise LedgerError and OSError."""

    def __init__(self, place: LedgerEntry, files: Files, *, keeps_names: bool = False) -> None:
        self._keeps_names = keeps_names
        self.path = place.path
        self._named = place.team_id
        self._files = files
        self._segments = Segments(place.path, files)
        self._reader = EventReader(place.team_id)
        self.orders: dict[str, bool] = {}
        """The orders of the part in memory; False for those that only legs and assignments tell of."""
        self._moved: set[str] = set()
        """Those of them that were assigned."""
        self.ties: dict[str, set[str]] = {}
        """The orders that belong together, as far as the part in memory tells: each order with those that it replaces,
        that replace it, its parent, its legs and its group, and these with the order."""
        self.names: dict[str, str] = {}
        """The `client_order_id` of the orders in memory; only of a ledger that `keeps_names`."""
        self._deliveries: dict[bytes, None] = {}
        self._file: tuple[int, int] | None = None
        self._start = self._offset = 0
        self._mark = b""
        """The last bytes before `_offset`: a log that was rewritten has others there."""
        self._since_ns: int | None = None
        """No line before the part in memory is younger; None where that is not known."""
        self._slot: Slot | None = None
        self._archive: Fold | None = None

    @property
    def team(self) -> str:
        """The team; of a ledger that its events name (rule 1.2) as far as they were read."""
        return self._reader.team_id

    @property
    def has_gap(self) -> bool:
        """Whether there are lines that neither the checkpoint nor the part in memory covers."""
        return self._archived_to < self._start

    @property
    def _archived_to(self) -> int:
        return self._slot.header.log.length if self._slot is not None else 0

    def close(self) -> None:
        """Forget what is in memory."""
        self._file = None
        self._clear()
        self._drop_archive()

    def _clear(self) -> None:
        self.orders, self._moved, self.ties, self.names = {}, set(), {}, {}
        self._deliveries = {}

    # Following.

    def follow(self) -> set[str] | None:
        """Read what has been appended; the orders whose claims may be others now, None for any order."""
        found = self._files.identity(self.path / LOG)
        if found is None:
            anew = self._file is not None
            self.close()
            return None if anew else set()
        if self._file == (found.device, found.inode) and found.size == self._offset:
            return set()
        with open_log(self.path, self._files, self._segments) as log:
            identity = log.identity()
            anew = self._file != identity[:2] or identity.size < self._offset or not self._is_unchanged(log)
            if anew:
                self._begin(log)
            changed = self._read_new(log, identity.size)
        return None if anew else changed

    def _is_unchanged(self, log: Log) -> bool:
        return log.read(self._offset - len(self._mark), len(self._mark)) == self._mark

    def _begin(self, log: Log) -> None:
        identity = log.identity()
        self.close()
        self._load_archive(log)
        header = self._slot.header if self._slot is not None else None
        self._reader = EventReader(header.team_id if header is not None and not header.names_team else self._named)
        # Which team a ledger is named by may be told by its first line only.
        tail = 0 if self._reader.names_team else max(0, identity.size - TAIL_BYTES)
        # A last line that is still being written belongs to what is read later.
        self._start = _find_line(log, tail, log.end_of_whole_lines(identity.size))
        self._since_ns = self._find_recorded_ns(log, identity.size)
        self._offset, self._mark = self._start, b""
        self._file = identity[:2]

    def _find_recorded_ns(self, log: Log, size: int) -> int | None:
        """When the first event of the part in memory was recorded, which is after all that stands before it."""
        for block in log.blocks(self._start, size) if self._start else ():
            for found, _line in self._reader.read_block(block):
                if not isinstance(found, Finding):
                    return _get_recorded_ns(found.event) if found.event.recorded_at is not None else None
        return None

    def _read_new(self, log: Log, size: int) -> set[str]:
        changed: set[str] = set()
        for block in log.blocks(self._offset, size):
            for found, _line in self._reader.read_block(block):
                if not isinstance(found, Finding):
                    self._take(found.event, changed)
            self._offset = block.end
            short = len(block.data) < _MARK_BYTES
            self._mark = b"" if block.too_long else (self._mark + block.data if short else block.data)[-_MARK_BYTES:]
        return changed

    def _take(self, event: Event, changed: set[str]) -> None:
        if is_intent(event):
            return
        self._note_delivery(event)
        order_id, is_move = event.order_id, event.event == "assigned"
        if is_move:
            self._moved.add(order_id)
        if is_move or not self.orders.get(order_id):
            self.orders[order_id] = self.orders.get(order_id, False) or not is_move
            changed.add(order_id)
        for other in list_ties(lambda name: getattr(event, name, None)):
            self.ties.setdefault(order_id, set()).add(other)
            self.ties.setdefault(other, set()).add(order_id)
        if self._keeps_names and event.client_order_id is not None:
            self.names.setdefault(order_id, event.client_order_id)
        # That an order is named as a successor claims nothing: its own events may be elsewhere, and the ties move them.
        for leg in event.leg_fills or ():
            if leg.order_id not in self.orders:
                self.orders[leg.order_id] = False
                changed.add(leg.order_id)

    def _note_delivery(self, event: Event) -> None:
        delivery = _hash_delivery(event)
        if delivery is not None:
            self._deliveries[delivery] = None
            if len(self._deliveries) > DELIVERIES_MAX:
                del self._deliveries[next(iter(self._deliveries))]

    def has_delivery(self, event: Event) -> bool:
        """Whether this delivery is among the last ones of the log: the fold would drop it if it came again (4.2)."""
        return _hash_delivery(event) in self._deliveries

    def forget(self, now_ns: int) -> None:
        """Drop the orders in memory: from now on their lines are read where they are asked for."""
        self._clear()
        self._start, self._since_ns = self._offset, now_ns
        self.renew_archive()

    # The older part.

    def renew_archive(self) -> None:
        """Look for a newer checkpoint."""
        with suppress(LedgerError), open_log(self.path, self._files, self._segments) as log:
            self._load_archive(log)

    def _load_archive(self, log: Log) -> None:
        slot = open_newest_slot(self.path / STATE, self._files, lambda _: None)
        if slot is None:
            return
        try:
            log.check(slot.header.inode, slot.header.log)
            fold = slot.restore(log.lines_naming, None)
        except (LedgerError, DamagedCheckpoint):
            slot.close()
            return
        self._drop_archive()
        self._slot, self._archive = slot, fold

    def _drop_archive(self) -> None:
        if self._slot is not None:
            self._slot.close()
        self._slot = self._archive = None

    def _may_be_older(self, order_id: str, created_ns: int | None) -> bool:
        """Whether a line before the part in memory may be about an order."""
        if self._start == 0:
            return False
        if created_ns is not None and self._since_ns is not None and self._since_ns < created_ns - SKEW_NS:
            return False
        if self.has_gap or self._archive is None:
            return True
        try:
            return self._archive.may_know(order_id)
        except DamagedCheckpoint:
            self._drop_archive()
            return True

    def _find_open(self, order_id: str) -> Order | None:
        """An order that was open at the checkpoint."""
        stored = self._archive.stored.get(order_id) if self._archive is not None else None
        return _decode_order(stored.order) if stored is not None else None

    # Claims.

    def find_claim(self, order_id: str, created_ns: int | None = None) -> tuple[Claim | None, bool]:
        """What this ledger says of an order, None where it has none; and whether its lines were read for it.

        Where no line was read, the claim has neither time nor name.
        """
        is_named = self.orders.get(order_id)
        if order_id not in self._moved:
            if not self._may_be_older(order_id, created_ns):
                return (None if is_named is None else Claim(is_named=is_named)), False
            order = None if self.has_gap else self._find_open(order_id)
            if order is not None:
                away_to = order.rare.away if order.rare is not None else None
                if away_to is None and is_named is None and order.status == "" and _is_successor(order):
                    return None, False
                return Claim(away_to=away_to), False
        return self.read_claim(order_id), True

    def read_claim(self, order_id: str) -> Claim | None:
        """What the lines of this ledger say of an order, as the fold reads them."""
        since_ns: int | None = None
        client_order_id: str | None = None
        is_named, deliveries, assignments = False, Deliveries(), Assignments()
        for event, _line in self.read_order(order_id):
            if since_ns is None:
                since_ns = _get_recorded_ns(event)
            if event.order_id != order_id or not deliveries.note(event):
                continue
            if event.event == "assigned":
                assignments.take(event)
            else:
                is_named = True
                client_order_id = client_order_id or event.client_order_id
        return None if since_ns is None else Claim(since_ns, client_order_id, assignments.away_to, is_named)

    def read_order(self, order_id: str) -> Iterator[tuple[Event, bytes]]:
        """The events of an order, and those of a parent whose fills tell of it, in the order of the log."""
        for event, line in self._read(self._find_ranges(order_id), order_id):
            if event.order_id == order_id or any(leg.order_id == order_id for leg in event.leg_fills or ()):
                yield event, line

    def read_naming(self, order_id: str) -> Iterator[tuple[Event, bytes]]:
        """The events in all lines that name an order, each with its bytes, in the order of the log."""
        return self._read([(0, self._offset)], order_id)

    def _read(self, ranges: Iterable[tuple[int, int]], order_id: str) -> Iterator[tuple[Event, bytes]]:
        reader = EventReader(None if self._reader.names_team else self._reader.team_id)
        with open_log(self.path, self._files, self._segments) as log:
            for start, end in ranges:
                for first, last in self._narrow(log, order_id, start, end):
                    for offset, line in log.lines_naming(order_id, first, last):
                        for found in reader.read_line(line, offset):
                            if not isinstance(found, Finding):
                                at = found.offset - offset
                                yield found.event, cut_event(line[at : at + found.length])

    def _narrow(self, log: Log, order_id: str, start: int, end: int) -> Iterator[tuple[int, int]]:
        """A range without the sealed stretches whose index says that no line there names an order."""
        sealed = min(self._segments.sealed_end, end)
        if start < sealed:
            for first, last in Indexes(log, self._segments, self._files).stretches(order_id):
                if start < last and first < end:
                    yield max(first, start), min(last, end)
        if max(start, sealed) < end:
            yield max(start, sealed), end

    def _find_ranges(self, order_id: str) -> Iterator[tuple[int, int]]:
        """Where lines about an order may be: each range begins with an event and ends within or behind one."""
        archived_to = self._archived_to
        span = self._find_span(order_id)
        if span is not None:
            first, last = span
            yield first, archived_to if last is None else last + 1
        # Lines in memory need no search where none of them is about the order.
        end = self._offset if order_id in self.orders else self._start
        if archived_to < end:
            yield archived_to, end

    def _find_span(self, order_id: str) -> tuple[int, int | None] | None:
        """Between which offsets the lines of an order lie that the checkpoint covers; None where there are none."""
        if self._archive is None:
            return None
        order = self._find_open(order_id)
        if order is not None:
            return order.first, order.last
        try:
            span = self._archive.archive.find(order_id)
        except DamagedCheckpoint:
            self._drop_archive()
            return 0, None
        return span[:2] if span is not None else None


def _is_successor(order: Order) -> bool:
    """Whether only the order that it replaced tells of an order, which claims nothing."""
    return order.rare is not None and order.rare.successor


def _get_recorded_ns(event: Event) -> int:
    if event.recorded_at is None:
        return nanos(event.ts)
    return (event.recorded_at - EPOCH) // timedelta(microseconds=1) * 1000


def _find_line(log: Log, offset: int, size: int) -> int:
    """Where the first line begins that begins at an offset or behind it."""
    while 0 < offset < size:
        data = log.read(offset - 1, _SEARCH_BYTES)
        newline = data.find(b"\n")
        if newline >= 0:
            return offset + newline
        offset += len(data)
    return min(offset, size)


def _hash_delivery(event: Event) -> bytes | None:
    delivery = identify_delivery(event)
    if delivery is None:
        return None
    return blake2b(f"{event.order_id}\0{delivery}".encode(errors="surrogatepass"), digest_size=16).digest()
