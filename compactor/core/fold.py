"""The fold of one ledger: blocks of whole lines in, trades, findings and pending rows out (format.md sections 3 to 6).

`Fold.feed` offers each block to the compiled short path (`core/fast`), which leaves every line that is not plain to
`Fold.feed_line`; there `rules.apply` changes the order that the event names. The short path is only an optimisation,
and the laws compare both ways.

Note: the fold reads old lines of the log through `recall`, when an event names an order that has left the state.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Protocol

import msgspec

from compactor.core.archive import Archive
from compactor.core.clock import LogClock
from compactor.core.decimals import exactly
from compactor.core.derived import Counts, Finding, Lines, encode_lines
from compactor.core.events import Event, is_intent
from compactor.core.fast import PlainOrders
from compactor.core.fast.interface import NoPlainOrders
from compactor.core.lines import Block, EventReader, Placed, report_too_long
from compactor.core.orders import Derived, Ended, Order, build_row, get_sort_key
from compactor.core.rules import Part, apply, begin, split_event

Recall = Callable[[str, int, int], Iterable[tuple[int, bytes]]]
"""Given an order id and a range of offsets, return the lines of that range that may name the order, with their offsets,
in order."""

DAY = timedelta(days=1)
KEPT_ENDED = 1 << 12
"""How many ended orders stay in the state as a whole before they shrink to spans."""


class OpenOrder(msgspec.Struct, array_like=True, gc=False):
    """An open order as a checkpoint keeps it, with its row, so that a pass need not encode the row again."""

    created_ns: int
    row: bytes
    order: msgspec.Raw


_NO_PLAIN_ORDERS = NoPlainOrders()
_encode = msgspec.msgpack.Encoder().encode
_decode_order = msgspec.msgpack.Decoder(Order).decode


class Observer(Protocol):
    """Who wants to see each order right before and after an event changes it."""

    def note_before(self, order: Order) -> None: ...
    def note_after(self, order: Order) -> None: ...


class Fold:
    """The state of one ledger, and the functions that change it.

    `team_id` is None for a ledger that its events name (rule 1.2). `retention` None keeps the spans of ended orders
    for ever. Invariant: no derived byte depends on `retention`, on `kept_ended`, or on how the log is cut into blocks.
    """

    def __init__(
        self, team_id: str | None, recall: Recall, retention: timedelta | None = 7 * DAY, kept_ended: int = KEPT_ENDED
    ) -> None:
        self._reader = EventReader(team_id)
        self.team_id = self._reader.team_id
        self.log_clock = LogClock()
        self.orders: dict[str, Order] = {}
        self.counts = Counts()
        self.archive = Archive()
        self.intents: dict[str, int] = {}
        """Where the log says that an order will be asked for and nothing says what became of it (rule 3.13)."""
        self.stored: dict[str, OpenOrder] = {}
        """Open orders of a checkpoint that no event has named since."""
        self._recall = recall
        self._retention = retention
        self._kept_ended = kept_ended
        self.leaving: OrderedDict[str, Order] = OrderedDict()
        """Orders in the state that ended, or have no status of their own, in the order in which they did."""
        self._rows: dict[str, tuple[tuple[int, str], bytes]] | None = None
        self.touched: set[str] | None = None
        """Orders whose rows may have changed since the last `pending_lines`; None before the first."""
        self.plain: NoPlainOrders = PlainOrders()
        self._is_short_path_left = False
        self._derived = Derived()
        self._trades: list[bytes] = []
        self._findings: list[bytes] = []
        self.before_event: Callable[[], None] | None = None
        """Called before each event that the rules read. It may raise, to stop a pass that takes too long."""
        self.observer: Observer | None = None
        """Told of each order that the rules change. Call `leave_short_path` first, so that it is told of all."""

    # Events in.

    def feed(self, block: bytes, offset: int, *, shrinks: bool = True) -> None:
        """Fold a block of whole lines at an offset of the log. Ended orders leave the state only if it `shrinks`."""
        with exactly():
            (_NO_PLAIN_ORDERS if self._is_short_path_left else self.plain).feed(self, block, offset)
        if shrinks:
            self._shrink(self._kept_ended)

    def feed_block(self, block: Block, *, shrinks: bool = True) -> None:
        """Fold a block of a log, or report a line that is too long."""
        if block.too_long:
            self._derived.findings.append(report_too_long(block))
            self._encode_derived()
        else:
            self.feed(block.data, block.offset, shrinks=shrinks)

    def take_lines(self) -> Lines:
        """Take the trades and findings derived since the last call."""
        lines = Lines(b"".join(self._trades), b"".join(self._findings))
        self._trades.clear()
        self._findings.clear()
        return lines

    def add_trades(self, lines: bytes, number: int) -> None:
        """Accept trade lines that the short path derived."""
        self._trades.append(lines)
        self.counts.trades += number

    def _encode_derived(self) -> None:
        derived = self._derived
        if derived.trades:
            self.add_trades(encode_lines(derived.trades), len(derived.trades))
            derived.trades.clear()
        if derived.findings:
            self._findings.append(encode_lines(derived.findings))
            self.counts.findings += len(derived.findings)
            derived.findings.clear()

    def feed_line(self, line: bytes, offset: int) -> None:
        """Fold one line by the rules; within `exactly`."""
        for found in self._reader.read_line(line, offset):
            if isinstance(found, Finding):
                self._derived.findings.append(found)
            else:
                if self.before_event is not None:
                    self.before_event()
                self._take_name()
                self._take(found)
        self._encode_derived()

    @property
    def names_team(self) -> bool:
        """Whether an event has still to name the ledger's team (rule 1.2)."""
        return self._reader.names_team

    @property
    def known_team(self) -> str | None:
        """The team that an event has to name, if it names one; None until an event has named the ledger's team."""
        return None if self.names_team else self.team_id

    def _take_name(self) -> None:
        """Give every open order a row with the team's name, once an event has named the team."""
        if self.team_id != self._reader.team_id:
            self.team_id, self._rows = self._reader.team_id, None
            for order_id in list(self.stored):
                self._bring_back(order_id, 0)

    def _take(self, placed: Placed) -> None:
        """Apply an event to the orders that it is about."""
        offset, length, event = placed
        self.counts.add({event.event: 1})
        wild = self.log_clock.take(event, offset, length)
        if wild is not None:
            self._derived.findings.append(wild)
        if is_intent(event):
            self._note_intent(event, offset)
        for part in split_event(event):
            self._apply_part(part, placed)

    def _note_intent(self, event: Event, offset: int) -> None:
        self.intents.pop(event.order_id, None)
        if event.event == "submitting":
            self.intents[event.order_id] = offset

    def _apply_part(self, part: Part, placed: Placed) -> None:
        order_id = part.order_id
        order = self.orders.get(order_id) or self._bring_back(order_id, placed.offset)
        if order is None:
            order = self.orders[order_id] = begin(order_id, placed.event, placed.offset)
        if self.observer is not None:
            self.observer.note_before(order)
        apply(order, part, placed, self.team_id, self._derived)
        if self.observer is not None:
            self.observer.note_after(order)
        if order.over or not order.status:
            self.leaving.setdefault(order_id, order)
        if self.touched is not None:
            self.touched.add(order_id)

    @property
    def clock(self) -> datetime | None:
        """The log's own clock (6.1)."""
        return self.log_clock.now

    @property
    def is_clock_waiting(self) -> bool:
        """Whether a time ahead of the clock waits to be confirmed, which only the rules can do."""
        return self.log_clock.ahead is not None

    def advance_clock(self, at: datetime) -> None:
        """Move the log's clock to an instant, unless that lies before it."""
        self.log_clock.advance(at)

    def find_order(self, order_id: str) -> Order | None:
        """Look up an order in the state. The caller must not change it."""
        order = self.orders.get(order_id)
        if order is None:
            plain = self.plain.get(order_id)
            order = plain.build_order() if plain is not None else None
        return order

    def recall_order(self, order_id: str, end: int) -> Order | None:
        """Look up an order of the log up to the offset `end`, if need be in its lines; not to be changed."""
        return self.find_order(order_id) or self._bring_back(order_id, end)

    def find_status(self, order_id: str) -> str | None:
        """Look up the status of an order in the state: the open ones and those that ended last; else None."""
        order = self.orders.get(order_id) or self.plain.get(order_id)
        return order.status if order is not None else None

    def leave_short_path(self) -> None:
        """Let the rules read every line from here on; what the short path has stays there until an event names it."""
        self._is_short_path_left = True

    def keep_rows(self, rows: dict[str, tuple[tuple[int, str], bytes]]) -> None:
        """Take these as the rows of the orders of a checkpoint, before the first event."""
        self._rows, self.touched = rows, set()

    # Orders that have left the state.

    def may_know(self, order_id: str) -> bool:
        """Whether the log may have an event of an order; False is certain."""
        is_here = order_id in self.orders or order_id in self.stored or self.plain.get(order_id) is not None
        return is_here or self.archive.may_know(order_id)

    def _bring_back(self, order_id: str, here: int) -> Order | None:
        """Restore an order that is not in `orders`: from the checkpoint, the short path, or its lines in the log; None
        if it has no event so far."""
        stored = self.stored.pop(order_id, None)
        if stored is not None:
            order = self.orders[order_id] = _decode_order(stored.order)
            return order
        plain = self.plain.pop(order_id)
        span = self.archive.find(order_id) if plain is None else (plain.first, plain.last, None)
        whole = plain.build_order() if plain is not None else None
        if whole is not None:
            self.orders[order_id] = whole
            return whole
        if span is None:
            return None
        first, last, _seen = span
        end = here if last is None else min(last + 1, here)
        found = self._refold(order_id, self._recall(order_id, first, end), here)
        if found is not None:
            self.orders[order_id] = found
            if not found.open:
                self.leaving.setdefault(order_id, found)
        return found

    def _refold(self, order_id: str, lines: Iterable[tuple[int, bytes]], here: int) -> Order | None:
        """Fold the events of one order before the offset `here`; what they derive was written long ago."""
        order: Order | None = None
        written, reader = Derived(), EventReader(self.known_team)
        for start, line in lines:
            for placed in reader.read_line(line, start):
                if isinstance(placed, Finding) or placed.offset >= here:
                    continue
                for part in split_event(placed.event):
                    if part.order_id == order_id:
                        order = order or begin(order_id, placed.event, placed.offset)
                        apply(order, part, placed, self.team_id, written)
        return order

    def _shrink(self, kept: int = 0) -> None:
        """Move ended orders from the state to the archive, except for those that ended last: a duplicate mostly comes
        soon after the fill."""
        leaving, orders = self.leaving, self.orders
        gone: list[Ended] = self.plain.shrink(kept)
        while len(leaving) > kept:
            order_id, order = leaving.popitem(last=False)
            # It may have opened since.
            if not order.open:
                del orders[order_id]
                gone.append((order_id, order.first, order.last))
        self.archive.keep(gone, self.clock)
        limit = self.oldest_kept()
        if limit is not None:
            self.archive.age(limit)

    def oldest_kept(self) -> datetime | None:
        """The instant before which the spans of ended orders shrink to marks; None to keep them for ever (6.1)."""
        if self._retention is None or self.clock is None:
            return None
        try:
            return self.clock - self._retention
        except OverflowError:
            return None

    def list_ended(self) -> list[Ended]:
        """List the ended orders that have not left the state."""
        whole = [(order.order_id, order.first, order.last) for order in self.orders.values() if not order.open]
        return whole + self.plain.list_ended()

    # Rows out.

    def pending_lines(self) -> bytes:
        """Encode `pending_orders.jsonl` as of now; empty when no order is open."""
        return b"".join(row for _key, row in sorted(self.renew_rows().values()))

    def renew_rows(self) -> Mapping[str, tuple[tuple[int, str], bytes]]:
        """Encode the rows of the open orders as of now: each with its sort key, by order id."""
        with exactly():
            if self._rows is None:
                self._rows = {order_id: ((one.created_ns, order_id), one.row) for order_id, one in self.stored.items()}
                self.touched = {*self.orders, *self.plain.list_open()}
            assert self.touched is not None
            for order_id in self.touched:
                order = self.find_order(order_id)
                if order is not None and order.open:
                    self._rows[order_id] = (get_sort_key(order), encode_lines([build_row(order, self.team_id)]))
                else:
                    self._rows.pop(order_id, None)
        self.touched = set()
        return self._rows

    @property
    def open_orders(self) -> int:
        """How many orders are open, as of the last `pending_lines`."""
        return len(self._rows or ())

    def store_open(self) -> dict[str, OpenOrder]:
        """Encode the open orders as a checkpoint keeps them."""
        self.pending_lines()
        assert self._rows is not None
        stored = dict(self.stored)
        for order_id in (*self.orders, *self.plain.list_open()):
            if order_id in self._rows:
                (created_ns, _id), row = self._rows[order_id]
                stored[order_id] = OpenOrder(created_ns, row, msgspec.Raw(_encode(self.find_order(order_id))))
        return stored

    def store_ended(self) -> list[bytes]:
        """Encode the spans of the ended orders as the pages of a table."""
        self._shrink()
        return self.archive.encode_spans(self.oldest_kept())

    def drop_rows(self) -> None:
        """Drop the rows, so that a long pass need not keep track of every order that it touches."""
        self._rows = self.touched = None
