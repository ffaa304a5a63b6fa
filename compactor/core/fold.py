"""The fold: blocks of whole lines in, state changed, trades and findings out (format.md sections 3, 4 and 6).

`Fold.feed` hands blocks to `plain.PlainOrders`, which takes the common event where it lies, and gives every other line
back to `Fold.feed_line`, where it goes through `rules.apply`. The first is an optimisation and nothing else, and the
laws compare the two. What surprises: the fold asks for old lines through `recall`, when an event names
an order that has left the state.
"""

from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

import msgspec

from compactor.core.archive import Ended, Memory
from compactor.core.counts import Counts
from compactor.core.decimals import exactly
from compactor.core.derived import Finding, Lines, encode_lines
from compactor.core.entry import Derived, Entry
from compactor.core.events import Event, Leg, Problem
from compactor.core.fast import PlainOrders
from compactor.core.fast.by_the_rules import ByTheRules
from compactor.core.instants import moment
from compactor.core.lines import Placed, read_line, unreadable
from compactor.core.orders import Order, pending_row, sort_key
from compactor.core.rules import apply, apply_leg, begin, legs_in

Recall = Callable[[str, int, int], Iterable[tuple[int, bytes]]]
"""Given an order id and a range of offsets: the lines of the log in it that may name that order, with their offsets,
in order."""

DAY = timedelta(days=1)
DEFAULT_TEAM = "default"
KEPT_ENDED = 1 << 12
"""How many ended orders stay whole in the state before they shrink to their spans."""


class OpenOrder(msgspec.Struct, array_like=True, gc=False):
    """An open order with its row as it was written last: what a checkpoint keeps, so that a pass need not write it
    again."""

    created_ns: int
    row: bytes
    order: msgspec.Raw


_encode = msgspec.msgpack.Encoder().encode
_decode_order = msgspec.msgpack.Decoder(Order).decode


class Fold:
    """The state of one ledger, and the functions that change it.

    `team_id` is None for a ledger that its events name (rule 1.2). `retention` None keeps the spans of ended orders
    for ever. Not one byte that comes out depends on `retention`, on `kept_ended`, or on how the log is cut into
    blocks.
    """

    def __init__(
        self, team_id: str | None, recall: Recall, retention: timedelta | None = 7 * DAY, kept_ended: int = KEPT_ENDED
    ) -> None:
        self.names_team = team_id is None
        self.team_id = team_id or DEFAULT_TEAM
        self.clock: datetime | None = None
        self.orders: dict[str, Order] = {}
        self.counts = Counts()
        self.memory = Memory()
        self.stored: dict[str, OpenOrder] = {}
        """Open orders of a checkpoint that no event has named since."""
        self._recall = recall
        self._retention = retention
        self._kept_ended = kept_ended
        self.leaving: deque[Order] = deque()
        """Orders that ended, or have no status of their own, and are whole in the state: those that did first in front.
        """
        self._rows: dict[str, tuple[tuple[int, str], bytes]] | None = None
        self.touched: set[str] | None = None
        """The orders whose rows may have changed; None until the rows have been written once."""
        self.plain: ByTheRules = PlainOrders()
        self._derived = Derived()
        self._trades: list[bytes] = []
        self._findings: list[bytes] = []

    # Events in.

    def feed(self, block: bytes, offset: int) -> None:
        """Fold a block of whole lines that stands at an offset of the log."""
        with exactly():
            self.plain.feed(self, block, offset)
        self._shrink(self._kept_ended)

    def feed_too_long(self, head: bytes, offset: int, length: int) -> None:
        """Report a line that nobody can hold in memory by its first bytes and its length."""
        problem = Problem(
            "too_long", f"a line of {length - 1} bytes, expected at most 1048576; only its beginning stands here"
        )
        self._derived.findings.append(unreadable(head, offset, length, problem))
        self._encode_derived()

    def take_lines(self) -> Lines:
        """What has come out since the last call, to append to what was taken before."""
        lines = Lines(b"".join(self._trades), b"".join(self._findings))
        self._trades.clear()
        self._findings.clear()
        return lines

    def add_trades(self, lines: bytes, number: int) -> None:
        """So many lines of trades have come out."""
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
        for found in read_line(line, offset):
            if isinstance(found, Finding):
                self._derived.findings.append(found)
            elif not self._is_of_team(found.event):
                detail = f"expected team_id {self.team_id!r}, found {found.event.team_id!r}"
                part = line[found.offset - offset :]
                problem = Problem("wrong_team", detail)
                self._derived.findings.append(unreadable(part[: found.length], found.offset, found.length, problem))
            else:
                self._take(found)
        self._encode_derived()

    @property
    def known_team(self) -> str | None:
        """The team that events have to name, if they name one; None while the first that does is still to come."""
        return None if self.names_team else self.team_id

    def _is_of_team(self, event: Event) -> bool:
        if event.team_id is not None and self.names_team:
            self.team_id, self.names_team, self._rows = event.team_id, False, None
            self._unstore()
        return event.team_id is None or event.team_id == self.team_id

    def _take(self, placed: Placed) -> None:
        """Apply an event to the order that it names, and to the orders of its legs."""
        offset, length, event = placed
        self.counts.add({event.event: 1})
        entry = Entry(offset, length, event.ts, self.team_id, self._derived)
        self._take_clock(event, entry)
        self._apply_to(event.order_id, event, entry, None)
        for place, leg in enumerate(legs_in(event)):
            entry = Entry(offset, length, event.ts, self.team_id, self._derived, leg=place)
            self._apply_to(leg.order_id, event, entry, leg)

    def _apply_to(self, order_id: str, event: Event, entry: Entry, leg: Leg | None) -> None:
        order = self.orders.get(order_id) or self._bring_back(order_id, entry.offset)
        if order is None:
            order = self.orders[order_id] = begin(order_id, event, entry.offset)
        was_over = order.over
        if leg is None:
            apply(order, event, entry)
        else:
            apply_leg(order, event, leg, entry)
        if (order.over and not was_over) or not order.status:
            self.leaving.append(order)
        if self.touched is not None:
            self.touched.add(order_id)

    def _take_clock(self, event: Event, entry: Entry) -> None:
        """The log's clock is the greatest `recorded_at`, else `ts`; a `ts` from far ahead does not move it (6.1)."""
        at = event.recorded_at or moment(event.ts)
        if event.recorded_at is None and self.clock is not None and at > self.clock + DAY:
            entry.find("future_timestamp", f"`ts` {event.ts} is more than a day ahead of the log's clock")
        else:
            self.advance_clock(at)

    def advance_clock(self, at: datetime) -> None:
        """An event was recorded at an instant; the clock never goes back."""
        if self.clock is None or at > self.clock:
            self.clock = at

    def order(self, order_id: str) -> Order | None:
        """An order that is whole in the state; it is not to be changed."""
        order = self.orders.get(order_id)
        if order is None:
            plain = self.plain.get(order_id)
            order = plain.order() if plain is not None else None
        return order

    def status_of(self, order_id: str) -> str | None:
        """The status of an order that is in the state, or ended not long ago; else None."""
        order = self.orders.get(order_id) or self.plain.get(order_id)
        return order.status if order is not None else None

    # Orders that have left the state.

    def may_know(self, order_id: str) -> bool:
        """Whether the log may have an event of an order so far; False is certain."""
        is_here = order_id in self.orders or order_id in self.stored or self.plain.get(order_id) is not None
        return is_here or self.memory.may_know(order_id)

    def _bring_back(self, order_id: str, here: int) -> Order | None:
        """Build an order again that is not in the state, from the checkpoint or from its lines; None if there are
        none."""
        stored = self.stored.pop(order_id, None)
        if stored is not None:
            order = self.orders[order_id] = _decode_order(stored.order)
            return order
        plain = self.plain.pop(order_id)
        span = self.memory.find(order_id) if plain is None else (plain.first, plain.last, None)
        whole = plain.order() if plain is not None else None
        if whole is not None:
            self.orders[order_id] = whole
            if whole.ended:
                self.leaving.append(whole)
            return whole
        if span is None:
            return None
        first, last, _seen = span
        end = here if last is None else min(last + 1, here)
        found = self._refold(order_id, self._recall(order_id, first, end), here)
        if found is not None:
            self.orders[order_id] = found
            if not found.open:
                self.leaving.append(found)
        return found

    def _refold(self, order_id: str, lines: Iterable[tuple[int, bytes]], here: int) -> Order | None:
        """Fold the events of one order that stand before `here`; what they gave rise to has been written long ago."""
        order: Order | None = None
        written = Derived()
        for start, line in lines:
            for placed in read_line(line, start):
                if isinstance(placed, Finding) or placed.offset >= here:
                    continue
                offset, length, event = placed
                if event.team_id not in (None, self.team_id):
                    continue
                if event.order_id == order_id:
                    order = order or begin(order_id, event, offset)
                    apply(order, event, Entry(offset, length, event.ts, self.team_id, written))
                for place, leg in enumerate(legs_in(event)):
                    if leg.order_id == order_id:
                        order = order or begin(order_id, event, offset)
                        apply_leg(order, event, leg, Entry(offset, length, event.ts, self.team_id, written, leg=place))
        return order

    def _shrink(self, kept: int = 0) -> None:
        """Let ended orders leave the state, all but those that ended last; what is remembered of them is where their
        lines are.

        The last ones stay, because a fill that is delivered again mostly comes soon.
        """
        leaving, orders = self.leaving, self.orders
        gone: list[Ended] = self.plain.shrink(kept)
        while len(leaving) > kept:
            order = leaving.popleft()
            # An order that had no status may have opened since, and may have left and been built again as another one.
            if not order.open and orders.get(order.order_id) is order:
                del orders[order.order_id]
                gone.append((order.order_id, order.first, order.last))
        self.memory.keep(gone, self.clock)
        limit = self.oldest_kept()
        if limit is not None:
            self.memory.age(limit)

    def oldest_kept(self) -> datetime | None:
        """The instant before which ended orders are forgotten; None to keep them for ever (6.1)."""
        if self._retention is None or self.clock is None:
            return None
        try:
            return self.clock - self._retention
        except OverflowError:
            return None

    def ended_last(self) -> list[Ended]:
        """The ended orders that have not left the state."""
        whole = [(order.order_id, order.first, order.last) for order in self.orders.values() if not order.open]
        return whole + self.plain.ended_orders()

    # Rows out.

    def pending_lines(self) -> bytes:
        """The bytes of `pending_orders.jsonl` as of now; empty when no order is open."""
        with exactly():
            if self._rows is None:
                self._rows = {order_id: ((one.created_ns, order_id), one.row) for order_id, one in self.stored.items()}
                self.touched = {*self.orders, *self.plain.open_orders()}
            for order_id in self.touched or ():
                order = self.order(order_id)
                if order is not None and order.open:
                    self._rows[order_id] = (sort_key(order), encode_lines([pending_row(order, self.team_id)]))
                else:
                    self._rows.pop(order_id, None)
        self.touched = set()
        return b"".join(row for _key, row in sorted(self._rows.values()))

    @property
    def open_orders(self) -> int:
        """How many orders are open; right after `pending_lines`."""
        return len(self._rows or ())

    def store_open(self) -> dict[str, OpenOrder]:
        """The open orders as a checkpoint keeps them."""
        self.pending_lines()
        assert self._rows is not None
        stored = dict(self.stored)
        for order_id in (*self.orders, *self.plain.open_orders()):
            order = self.order(order_id)
            if order is not None and order.open:
                (created_ns, _id), row = self._rows[order_id]
                stored[order_id] = OpenOrder(created_ns, row, msgspec.Raw(_encode(order)))
        return stored

    def store_ended(self) -> list[bytes]:
        """The spans of the ended orders as the pages of a table."""
        self._shrink()
        return self.memory.spans(self.oldest_kept())

    def drop_rows(self) -> None:
        """Forget the rows, so that a long pass need not keep track of every order that it touches."""
        self._rows = self.touched = None

    def _unstore(self) -> None:
        for order_id in list(self.stored):
            self._bring_back(order_id, 0)
