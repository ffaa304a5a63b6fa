# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""An order to which only plain things happened so far: it was placed with its terms, and then filled or reported on, in
order of time.

It is kept as the line that placed it and a few numbers, so that hundreds of orders fit into the processor's cache.

Note: an order that has ended drops the line, since nearly everything that comes later is an execution that is known. For
anything else the fold restores the order from its lines in the log.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcmp, memcpy

from compactor.core.fast.plain_line cimport (
    ALL_TERMS, BROKER_ORDER_ID, CLIENT_ORDER_ID, EXECUTION_ID, FILLED, FILLED_QTY, NEEDED_TO_PLACE,
    ORDER_ID, ORDER_TYPE, PARTIALLY_FILLED, PRICE, QTY, QUANTITY, REQUESTED_PRICE, SIDE, SOURCE, SYMBOL,
    TS, has, kind_at, read_plain, repeats_terms,
)
from compactor.core.fast.scan cimport amount, bytes_of, is_same, text_of

from decimal import Decimal

from compactor.core.decoding import decode
from compactor.core.events import EVENTS, TERMS, TOLD_ONCE, Event
from compactor.core.orders import Fill, Order, Rare
from compactor.core.fast.plain_line import NAMES

cdef enum:
    TOLD = 6

# The terms in a trade line, and the fields that identify a fill.
cdef int TERM[TRADE_TERMS]
TERM[:] = [SYMBOL, SIDE, REQUESTED_PRICE, ORDER_TYPE, BROKER_ORDER_ID, CLIENT_ORDER_ID]
cdef int TOLD_FIELD[TOLD]
TOLD_FIELD[:] = [EXECUTION_ID, QTY, PRICE, FILLED_QTY, TS, SOURCE]
cdef Out TELLING = Out()


cdef PlainOrder place(Line* line, int name, str order_id, Text whole, long long ts, long long offset):
    """Make the order that a plain line places; `whole` is the line. None where the placement is not plain."""
    cdef long long target
    cdef int term
    cdef Text value
    if line.seen & NEEDED_TO_PLACE != NEEDED_TO_PLACE:
        return None
    if has(line, FILLED_QTY) and amount(line.values[FILLED_QTY]) > 0:
        return None
    target = amount(line.values[QUANTITY])
    cdef PlainOrder order = PlainOrder.__new__(PlainOrder)
    for term in range(TRADE_TERMS):
        if has(line, TERM[term]):
            value = line.values[TERM[term]]
            if not value.length:
                return None
            order._terms[term] = Slice(value.at - whole.at, value.length)
    order.order_id, order.first, order._target = order_id, offset, target
    order._status, order._before = name, -1
    order._line = bytes_of(whole)
    order._source = bytes_of(line.values[SOURCE]) if has(line, SOURCE) else None
    order._note_time(line, ts, offset)
    return order


# An order with more fills goes to the rules, which find a fill among many in constant time.
cdef enum:
    FILLS_MAX = 256


cdef class PlainOrder:
    @property
    def status(self):
        return NAMES[self._status]

    def build_order(self):
        """Build the same as an `Order`; None for an ended one that has dropped its terms, which its lines have."""
        if self._line is None:
            return None
        placed = decode(self._line)
        terms = EVENTS["new"](self.order_id, placed.ts, **{name: getattr(placed, name) for name in TERMS})
        updated_at = self._updated_at[: self._updated_length].decode()
        order = Order(
            self.order_id, self.first, self.last, NAMES[self._status], self.ended, updated_at, updated_at,
            terms.ts, terms,
        )
        self._tell_times(order)
        if self.ended:
            order.told_at_end = self._find_told_at_end()
        order.before = NAMES[self._before] if self._before >= 0 else None
        order.delivered = self._delivered
        for known in self._fills or ():
            execution_id, qty, price, filled_qty, ts, source = map(_text, known[8:].split(b"\n"))
            offset = int.from_bytes(known[:8], "little")
            order.fills[execution_id] = Fill(execution_id, qty, price, filled_qty, ts, source, f"{offset}-0")
            order.filled += Decimal(qty)
        return order

    def _tell_times(self, order):
        """Note when the terms were told last, as `rules` does."""
        known = [name for name in TERMS if name not in TOLD_ONCE and getattr(order.terms, name) is not None]
        # The first field is the event itself.
        fields = [name for number, name in enumerate(Event.__struct_fields__, 1) if self._repeated >> number & 1]
        repeated = [name for name in known if name in fields]
        if repeated and repeated == known:
            order.terms.ts = self._repeated_at.decode()
        elif repeated:
            order.rare = Rare(told_at=dict.fromkeys(repeated, self._repeated_at.decode()))

    def _find_told_at_end(self):
        """The cumulative quantity that the event told which ended the order."""
        if NAMES[self._status] == "filled" and self._fills:
            return _text(self._fills[len(self._fills) - 1][8:].split(b"\n")[3])
        return _text(self._told_at_end)

    # Section 2: the same `event_id` again, for the same order and event, is the same delivery.

    cdef bint knows_delivery(self, str delivery):
        return self._delivered is not None and delivery in self._delivered

    cdef int note_delivery(self, str delivery) except -1:
        if self._delivered is None:
            self._delivered = set()
        self._delivered.add(delivery)
        return 0

    # What happens next.

    cdef bint take(self, Line* line, Kind* kind, long long ts, long long offset, bytes team, Out out) except -1:
        """Take an execution or a status from a plain line; return False and change nothing where that is not plain."""
        if not self._adds_nothing(line, ts):
            return False
        if not (self._take_fill(line, kind, ts, offset, team, out) if kind.is_fill else self._take_status(line, kind, ts, offset)):
            return False
        self._note_terms(line, ts)
        return True

    cdef bint _adds_nothing(self, Line* line, long long ts):
        """Whether each term of the line is known in the same words, and all were told before that were told last."""
        cdef Line placed
        cdef Text whole
        if not line.seen & ALL_TERMS:
            return True
        if self._line is None:
            return False
        self._repeats_terms = True
        if self._repeated & ~line.seen or (ts < self._repeated_ns and line.seen & ALL_TERMS & ~self._repeated):
            return False
        whole = text_of(self._line)
        return read_plain(whole.at, whole.at + whole.length, &placed) and repeats_terms(line, &placed)

    cdef int _note_terms(self, Line* line, long long ts) except -1:
        """Note which terms were told last, and when (3.2)."""
        if line.seen & ALL_TERMS and ts >= self._repeated_ns:
            self._repeated, self._repeated_ns = line.seen & ALL_TERMS, ts
            self._repeated_at = bytes_of(line.values[TS])
        return 0

    cdef bint _take_fill(self, Line* line, Kind* kind, long long ts, long long offset, bytes team, Out out) except -1:
        """Take a new execution, or a duplicate in the same words."""
        cdef Text* values = line.values
        cdef Text told
        cdef bytes known, words
        cdef long long qty, filled
        words = _told(line, offset)
        if self._fills is not None:
            for known in self._fills:
                if not _is_of(known, values[EXECUTION_ID]):
                    continue
                if kind.ends and not self.ended or known[8:] != words[8:]:
                    return False
                # A duplicate only moves the offset of the last event.
                self.last = offset
                return True
        if self.ended or ts <= self._updated or (self._fills is not None and not self._is_source(line)):
            return False
        if self._fills is not None and len(self._fills) >= FILLS_MAX:
            return False
        qty = amount(values[QTY])
        filled = self._filled + qty
        if amount(values[PRICE]) <= 0 or filled > self._target:
            return False
        if filled == self._target and not kind.ends:
            return False
        if has(line, FILLED_QTY) and not 0 < amount(values[FILLED_QTY]) <= filled:
            return False
        if self._fills is None:
            self._fills = []
            if not self._is_source(line):
                self._source = bytes_of(values[SOURCE]) if has(line, SOURCE) else None
        self._fills.append(words)
        self._write_trade(line, offset, team, out)
        self._filled = filled
        self._note_time(line, ts, offset)
        if kind.ends:
            self._end(FILLED)
        elif not kind_at(self._status).asks:
            self._status = PARTIALLY_FILLED
        return True

    cdef bint _take_status(self, Line* line, Kind* kind, long long ts, long long offset) except -1:
        """Take a status event."""
        if self.ended or ts <= self._updated:
            return False
        if has(line, FILLED_QTY) and amount(line.values[FILLED_QTY]) > self._filled:
            return False
        self._note_time(line, ts, offset)
        if kind.ends:
            self._told_at_end = bytes_of(line.values[FILLED_QTY]) if has(line, FILLED_QTY) else None
            self._end(kind.status)
            return True
        if kind.asks and not kind_at(self._status).asks:
            self._before = self._status
        self._status = kind.status
        return True

    cdef bint _is_source(self, Line* line):
        """Whether the line has the source of the order's fills."""
        if not has(line, SOURCE):
            return self._source is None
        return self._source is not None and is_same(line.values[SOURCE], text_of(self._source))

    cdef int _note_time(self, Line* line, long long ts, long long offset) except -1:
        self.last, self._updated, self._updated_length = offset, ts, line.values[TS].length
        memcpy(self._updated_at, line.values[TS].at, self._updated_length)
        return 0

    cdef int _end(self, int status) except -1:
        self._status, self.ended = status, True
        if not self._repeats_terms:
            self._line = None
        return 0

    cdef int _write_trade(self, Line* line, long long offset, bytes team, Out out) except -1:
        """Write the trade as `derived.Trade` is encoded."""
        cdef Text* values = line.values
        out.put_bytes(b'{"trade_id":"')
        out.put_number(offset)
        out.put_bytes(b'-0","team_id":')
        out.put_bytes(team)
        _put(b',"order_id":"', values[ORDER_ID], out)
        self._put_term(b'"symbol":"', 0, out)
        self._put_term(b'"side":"', 1, out)
        _put(b'"quantity":"', values[QTY], out)
        _put(b'"execution_price":"', values[PRICE], out)
        self._put_term(b'"requested_price":"', 2, out)
        self._put_term(b'"order_type":"', 3, out)
        _put(b'"timestamp":"', values[TS], out)
        self._put_term(b'"broker_order_id":"', 4, out)
        self._put_term(b'"client_order_id":"', 5, out)
        _put(b'"execution_id":"', values[EXECUTION_ID], out)
        out.put_bytes(b'"kind":"fill","offset":')
        out.put_number(offset)
        out.put_bytes(b"}\n")
        return 0

    cdef int _put_term(self, bytes name, int term, Out out) except -1:
        if self._terms[term].length:
            _put(name, Text(text_of(self._line).at + self._terms[term].start, self._terms[term].length), out)
        return 0


cdef int _put(bytes name, Text value, Out out) except -1:
    out.put_bytes(name)
    out.put(value)
    return out.put_bytes(b'",')


cdef bytes _told(Line* line, long long offset):
    """Encode a fill: its offset in eight bytes, then the fields that identify it."""
    cdef int index
    TELLING.put(Text(<Bytes> &offset, 8))
    for index in range(TOLD):
        if index:
            TELLING.put_bytes(b"\n")
        if has(line, TOLD_FIELD[index]):
            TELLING.put(line.values[TOLD_FIELD[index]])
        else:
            TELLING.put_bytes(b"\0")
    return TELLING.take()


cdef bint _is_of(bytes known, Text execution_id) noexcept:
    """Whether an encoded fill has an execution id."""
    cdef Text told = Text(text_of(known).at + 8, PyBytes_GET_SIZE(known) - 8)
    if told.length <= execution_id.length or told.at[execution_id.length] != c"\n":
        return False
    return not memcmp(told.at, execution_id.at, execution_id.length)


def _text(told):
    return None if told is None or told == b"\0" else told.decode()
