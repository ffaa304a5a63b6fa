# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The plain case of the common events, compiled: a placement, an execution, a status, taken from the bytes of the log.

It is an optimisation and nothing else. An event is taken here only if every condition under which the rules come to the
plain result holds; any other line is left to `Fold.feed_line`, and the laws compare the two ways. What surprises: an
order to which only plain things happened lives here, in a form that fits into the processor's cache, and becomes an
`Order` for good with the first event that is not plain.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcmp, memcpy

from compactor.core.scan cimport Bytes, Line, Text, Words, amount, is_clean, nanoseconds, scan

from collections import deque
from datetime import datetime
from decimal import Decimal

import msgspec

from compactor.core.events import DECIMALS, EVENTS, FILLS, PLACEMENTS, TERMS, Event, decode, rewritten
from compactor.core.instants import moment
from compactor.core.lifecycle import LIFE, OPEN, REQUESTS, TERMINAL, Effect
from compactor.core.orders import Fill, Order

cdef enum:
    LINE_MAX = 8192  # A longer line is not plain.
    OUT_MAX = 4 * LINE_MAX  # No trade line is longer: it has nothing that its two lines do not have.

# The fields by number.

_FIELDS = ("event", *Event.__struct_fields__)
cdef Words FIELDS = Words(_FIELDS)


def _bits(*names):
    return sum(1 << _FIELDS.index(name) for name in names)


cdef int EVENT = _FIELDS.index("event"), ORDER_ID = _FIELDS.index("order_id"), TS = _FIELDS.index("ts")
cdef int RECORDED_AT = _FIELDS.index("recorded_at"), EVENT_ID = _FIELDS.index("event_id")
cdef int TEAM_ID = _FIELDS.index("team_id"), ORDER_STATUS = _FIELDS.index("order_status")
cdef int SOURCE = _FIELDS.index("source"), SYMBOL = _FIELDS.index("symbol"), SIDE = _FIELDS.index("side")
cdef int QUANTITY = _FIELDS.index("quantity"), ORDER_TYPE = _FIELDS.index("order_type")
cdef int REQUESTED_PRICE = _FIELDS.index("requested_price"), CREATED_AT = _FIELDS.index("created_at")
cdef int BROKER_ORDER_ID = _FIELDS.index("broker_order_id"), CLIENT_ORDER_ID = _FIELDS.index("client_order_id")
cdef int EXECUTION_ID = _FIELDS.index("execution_id"), PRICE = _FIELDS.index("price"), QTY = _FIELDS.index("qty")
cdef int FILLED_QTY = _FIELDS.index("filled_qty"), EXTENDED_HOURS = _FIELDS.index("extended_hours")

cdef uint64_t NEEDED = _bits("event", "order_id", "ts", "recorded_at")
cdef uint64_t NEEDED_TO_PLACE = _bits("symbol", "side", "quantity")
cdef uint64_t NEEDED_TO_FILL = _bits("execution_id", "price", "qty")
cdef uint64_t NEVER = _bits("notional", "legs", "previous_execution_id", "to_team", "from_team")
cdef uint64_t NO_FILL = _bits("execution_id", "qty")
cdef uint64_t ALL_TERMS = _bits(*TERMS)
cdef uint64_t NUMBERS = _bits(*DECIMALS)

cdef enum:
    DECIMALS_COUNT = 11

cdef int DECIMAL[DECIMALS_COUNT]
DECIMAL[:] = [_FIELDS.index(name) for name in DECIMALS]

cdef enum:
    TOLD_FIELDS = 6
    TRADE_TERMS = 6

# What is told of a fill, and the terms that a trade line has.
cdef int TOLD[TOLD_FIELDS]
TOLD[:] = [EXECUTION_ID, QTY, PRICE, FILLED_QTY, TS, SOURCE]
cdef int TERM[TRADE_TERMS]
TERM[:] = [SYMBOL, SIDE, REQUESTED_PRICE, ORDER_TYPE, BROKER_ORDER_ID, CLIENT_ORDER_ID]

# The events and statuses by number.

cdef struct Kind:
    bint is_known, is_fill, ends, asks, places
    int status

_NAMES = tuple(sorted({*EVENTS, *OPEN, *TERMINAL}))
cdef Words NAMES = Words(_NAMES)
cdef Kind KINDS[64]
cdef bint IS_OPEN[64]
cdef bint IS_TERMINAL[64]
cdef bint IS_REQUEST[64]
_COUNTED = tuple(EVENTS[name].event if name in EVENTS else name for name in _NAMES)
_instant = msgspec.json.Decoder(datetime).decode
cdef int FILLED = _NAMES.index("filled"), PARTIALLY_FILLED = _NAMES.index("partially_filled")


def _lay_out():
    for number, name in enumerate(_NAMES):
        kind = EVENTS.get(name)
        row = LIFE.get(kind.event) if kind is not None else None
        IS_OPEN[number], IS_TERMINAL[number] = name in OPEN, name in TERMINAL
        IS_REQUEST[number] = name in REQUESTS
        KINDS[number].is_known = False
        if row is None or not (name in FILLS or row.effect in (Effect.OPENS, Effect.REQUESTS, Effect.ENDS)):
            continue
        KINDS[number] = Kind(
            True, name in FILLS, row.effect is Effect.ENDS, row.effect is Effect.REQUESTS, kind in PLACEMENTS,
            _NAMES.index(row.status),
        )


_lay_out()


cdef struct Slice:
    unsigned short start, length


cdef class Plain:
    """An order to which only plain things happened so far."""

    cdef readonly str order_id
    cdef readonly long long first, last
    cdef readonly bint ended
    cdef long long updated, target, filled
    cdef int status, before
    cdef bint is_told_twice
    cdef char updated_at[32]
    cdef int updated_length
    cdef bytes line, source
    cdef Slice terms[TRADE_TERMS]
    cdef list fills
    cdef set delivered

    def order(self):
        """The same as an `Order`; None where the order has ended and its terms are gone."""
        if self.line is None:
            return None
        placed = decode(self.line)
        terms = EVENTS["new"](self.order_id, placed.ts, **{name: getattr(placed, name) for name in TERMS})
        updated_at = self.updated_at[: self.updated_length].decode()
        order = Order(
            self.order_id, self.first, self.last, _NAMES[self.status], self.ended, moment(updated_at), updated_at,
            updated_at, terms.ts, terms, _text(self.source), Decimal(terms.quantity),
        )
        order.before = _NAMES[self.before] if self.before >= 0 else None
        order.delivered = self.delivered
        for known in self.fills or ():
            execution_id, qty, price, filled_qty, ts, source = map(_text, known[8:].split(b"\n"))
            offset = int.from_bytes(known[:8], "little")
            order.fills[execution_id] = Fill(execution_id, qty, price, filled_qty, ts, source, f"{offset}-0")
            order.filled += Decimal(qty)
        return order


def _text(told):
    return None if told is None or told == b"\0" else told.decode()


cdef class PlainOrders:
    """The plain orders of a ledger: those that are open, and those that ended last."""

    cdef dict _orders
    cdef object _ended, _fold, _may_know, _touched
    cdef bytes _team, _team_json
    cdef char* _out
    cdef Py_ssize_t _used, _room
    cdef long long _clock, _trades
    cdef char _recorded_at[32]
    cdef int _recorded_length
    cdef long long _fed[64]

    def __init__(self):
        self._orders, self._ended = {}, deque()
        self._clock = -1

    def __dealloc__(self):
        free(self._out)

    # Orders out.

    def get(self, order_id):
        return self._orders.get(order_id)

    def pop(self, order_id):
        return self._orders.pop(order_id, None)

    def open_orders(self):
        cdef Plain order
        return [order.order_id for order in self._orders.values() if not order.ended]

    def ended_orders(self):
        cdef Plain order
        return [(order.order_id, order.first, order.last) for order in self._orders.values() if order.ended]

    def shrink(self, Py_ssize_t kept):
        cdef Plain order
        gone = []
        while len(self._ended) > kept:
            order = self._ended.popleft()
            if self._orders.get(order.order_id) is order:
                del self._orders[order.order_id]
                gone.append((order.order_id, order.first, order.last))
        return gone

    # Lines in.

    def feed(self, fold, bytes block not None, long long offset):
        cdef Bytes at = <Bytes> PyBytes_AS_STRING(block), end = at + PyBytes_GET_SIZE(block), stop
        self._begin(fold)
        while at < end:
            stop = <Bytes> memchr(at, c"\n", end - at)
            if not self._take_line(at, stop, offset):
                self._settle(fold)
                fold.feed_line(PyBytes_FromStringAndSize(<char*> at, stop - at), offset)
                self._begin(fold)
            offset += stop + 1 - at
            at = stop + 1
        self._settle(fold)

    cdef _begin(self, fold):
        """Take over what the rules may change as well."""
        team = fold.known_team
        self._fold, self._may_know, self._touched = fold, fold.may_know, fold.touched
        self._team = None if team is None else team.encode()
        self._team_json = msgspec.json.encode(fold.team_id)

    cdef _settle(self, fold):
        """Hand over what has come out."""
        cdef int number
        if self._used:
            fold.add_trades(PyBytes_FromStringAndSize(self._out, self._used), self._trades)
            self._used = self._trades = 0
        if self._clock < 0:
            return
        fold.advance_clock(_instant(b'"%b"' % self._recorded_at[: self._recorded_length]))
        self._clock = -1
        fold.counts.add({_COUNTED[number]: self._fed[number] for number in range(len(_NAMES)) if self._fed[number]})
        for number in range(len(_NAMES)):
            self._fed[number] = 0

    cdef bint _take_line(self, Bytes at, Bytes stop, long long offset) except -1:
        cdef Line line
        if stop - at > LINE_MAX:
            return False
        if is_clean(at, stop) and scan(FIELDS, EXTENDED_HOURS, at, stop, &line):
            return self._take(&line, at, stop - at, offset)
        # Another writer's line, with spaces, escapes or fields that nobody reads, may be plain once it is written anew.
        cdef bytes written = rewritten(PyBytes_FromStringAndSize(<char*> at, stop - at))
        if written is None:
            return False
        at = <Bytes> PyBytes_AS_STRING(written)
        stop = at + PyBytes_GET_SIZE(written)
        if stop - at > LINE_MAX or not is_clean(at, stop) or not scan(FIELDS, EXTENDED_HOURS, at, stop, &line):
            return False
        return self._take(&line, at, stop - at, offset)

    cdef bint _take(self, Line* line, Bytes at, Py_ssize_t length, long long offset) except -1:
        """What is the same for all: the values, the team, the delivery; then the order is placed, filled or told."""
        if line.seen & NEEDED != NEEDED or line.seen & NEVER:
            return False
        cdef Text* values = line.values
        cdef int name = NAMES.find(values[EVENT].at, values[EVENT].length), status
        if name < 0 or not KINDS[name].is_known or not values[ORDER_ID].length:
            return False
        cdef long long ts = nanoseconds(values[TS]), recorded_at = nanoseconds(values[RECORDED_AT])
        if ts < 0 or recorded_at < 0 or not _are_valid(line):
            return False
        if has(line, ORDER_STATUS):
            # A status that says nothing that the event does not say itself (3.10).
            status = NAMES.find(values[ORDER_STATUS].at, values[ORDER_STATUS].length)
            if status < 0 or not (IS_OPEN[status] or (KINDS[name].ends and IS_TERMINAL[status])):
                return False
        if has(line, TEAM_ID) and (self._team is None or not equals(&values[TEAM_ID], self._team)):
            return False
        cdef str order_id = PyUnicode_DecodeASCII(<char*> values[ORDER_ID].at, values[ORDER_ID].length, NULL)
        cdef str delivery = None
        if has(line, EVENT_ID):
            delivery = PyUnicode_DecodeASCII(<char*> values[EVENT_ID].at, values[EVENT_ID].length, NULL) + _COUNTED[name]
        cdef PyObject* found = PyDict_GetItem(self._orders, order_id)
        cdef Plain order
        if found == NULL:
            if not KINDS[name].places:
                return False
            order = self._place(line, at, length, name, order_id, ts, offset)
            if order is None:
                return False
        else:
            order = <Plain> found
            if delivery is not None and order.delivered is not None and delivery in order.delivered:
                order.last = offset
            elif KINDS[name].is_fill:
                if not self._fill(line, name, order, ts, offset):
                    return False
            elif not self._tell(line, name, order, ts, offset):
                return False
        if delivery is not None:
            if order.delivered is None:
                order.delivered = set()
            order.delivered.add(delivery)
        if recorded_at > self._clock:
            self._clock = recorded_at
            self._recorded_length = values[RECORDED_AT].length
            memcpy(self._recorded_at, values[RECORDED_AT].at, self._recorded_length)
        if self._touched is not None:
            self._touched.add(order_id)
        self._fed[name] += 1
        return True

    cdef Plain _place(
        self, Line* line, Bytes at, Py_ssize_t length, int name, str order_id, long long ts, long long offset
    ):
        """The first event of an order, with plain terms; None where it is not that."""
        cdef Text* values = line.values
        cdef int term
        if line.seen & NEEDED_TO_PLACE != NEEDED_TO_PLACE or line.seen & NO_FILL:
            return None
        cdef long long target = amount(values[QUANTITY])
        if target <= 0 or self._may_know(order_id):
            return None
        cdef Plain order = Plain.__new__(Plain)
        for term in range(TRADE_TERMS):
            if has(line, TERM[term]):
                if not values[TERM[term]].length:
                    return None
                order.terms[term].start = values[TERM[term]].at - at
                order.terms[term].length = values[TERM[term]].length
        order.order_id, order.first, order.last, order.target = order_id, offset, offset, target
        order.status, order.before = name, -1
        order.line = PyBytes_FromStringAndSize(<char*> at, length)
        order.source = PyBytes_FromStringAndSize(<char*> values[SOURCE].at, values[SOURCE].length) if has(line, SOURCE) else None
        _note_time(order, line, ts)
        self._orders[order_id] = order
        return order

    cdef bint _fill(self, Line* line, int name, Plain order, long long ts, long long offset) except -1:
        """An execution that is new, or one that is told again in the same words."""
        cdef Text* values = line.values
        cdef char told[LINE_MAX]
        cdef Py_ssize_t length
        cdef bytes known
        if line.seen & NEEDED_TO_FILL != NEEDED_TO_FILL or not _adds_nothing(order, line):
            return False
        length = _write_told(line, told + 8)
        if order.fills is not None:
            for known in order.fills:
                if not is_of_execution(known, &values[EXECUTION_ID]):
                    continue
                if not (order.ended or not KINDS[name].ends) or PyBytes_GET_SIZE(known) != length + 8:
                    return False
                if memcmp(PyBytes_AS_STRING(known) + 8, told + 8, length):
                    return False
                # It changes nothing but where the order's last event lies.
                order.last = offset
                return True
        if order.ended or ts <= order.updated:
            return False
        cdef bint is_first = order.fills is None
        if not is_first and not _is_of_source(order, line):
            return False
        cdef long long qty = amount(values[QTY]), filled = order.filled + qty
        if qty <= 0 or amount(values[PRICE]) <= 0 or filled > order.target:
            return False
        if filled == order.target and not KINDS[name].ends:
            return False
        if has(line, FILLED_QTY) and not 0 < amount(values[FILLED_QTY]) <= filled:
            return False
        if is_first:
            order.fills = []
            if not _is_of_source(order, line):
                order.source = PyBytes_FromStringAndSize(<char*> values[SOURCE].at, values[SOURCE].length) if has(line, SOURCE) else None
        memcpy(told, &offset, 8)
        order.fills.append(PyBytes_FromStringAndSize(told, length + 8))
        self._write_trade(line, order, offset)
        order.filled, order.last = filled, offset
        if KINDS[name].ends:
            self._end(order, FILLED)
        elif not IS_REQUEST[order.status]:
            order.status = PARTIALLY_FILLED
        _note_time(order, line, ts)
        return True

    cdef bint _tell(self, Line* line, int name, Plain order, long long ts, long long offset) except -1:
        """A status event that leads to the status of its own name."""
        if order.ended or ts <= order.updated or line.seen & NO_FILL or not _adds_nothing(order, line):
            return False
        if KINDS[name].ends:
            self._end(order, KINDS[name].status)
        else:
            if KINDS[name].asks and not IS_REQUEST[order.status]:
                order.before = order.status
            order.status = KINDS[name].status
        order.last = offset
        _note_time(order, line, ts)
        return True

    cdef _end(self, Plain order, int status):
        order.status, order.ended = status, True
        if not order.is_told_twice:
            order.line = None
        self._ended.append(order)

    # Lines out.

    cdef _write_trade(self, Line* line, Plain order, long long offset):
        cdef Text* values = line.values
        if self._room - self._used < OUT_MAX:
            self._make_room()
        self._put(b'{"trade_id":"')
        self._put_number(offset)
        self._put(b'-0","team_id":')
        self._put(self._team_json)
        self._put_value(b',"order_id":"', values[ORDER_ID].at, values[ORDER_ID].length)
        self._put_term(b'"symbol":"', order, 0)
        self._put_term(b'"side":"', order, 1)
        self._put_value(b'"quantity":"', values[QTY].at, values[QTY].length)
        self._put_value(b'"execution_price":"', values[PRICE].at, values[PRICE].length)
        self._put_term(b'"requested_price":"', order, 2)
        self._put_term(b'"order_type":"', order, 3)
        self._put_value(b'"timestamp":"', values[TS].at, values[TS].length)
        self._put_term(b'"broker_order_id":"', order, 4)
        self._put_term(b'"client_order_id":"', order, 5)
        self._put_value(b'"execution_id":"', values[EXECUTION_ID].at, values[EXECUTION_ID].length)
        self._put(b'"kind":"fill","offset":')
        self._put_number(offset)
        self._put(b"}\n")
        self._trades += 1

    cdef _make_room(self):
        cdef Py_ssize_t room = 2 * self._room + OUT_MAX
        cdef char* grown = <char*> realloc(self._out, room)
        if grown == NULL:
            raise MemoryError
        self._out, self._room = grown, room

    cdef inline void _put(self, bytes text):
        memcpy(self._out + self._used, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
        self._used += PyBytes_GET_SIZE(text)

    cdef inline void _put_value(self, bytes name, Bytes at, Py_ssize_t length):
        self._put(name)
        memcpy(self._out + self._used, at, length)
        self._used += length
        self._put(b'",')

    cdef inline void _put_term(self, bytes name, Plain order, int term):
        if order.terms[term].length:
            self._put_value(name, <Bytes> PyBytes_AS_STRING(order.line) + order.terms[term].start, order.terms[term].length)

    cdef inline void _put_number(self, long long number):
        cdef char digits[24]
        cdef int place = 24
        while True:
            place -= 1
            digits[place] = c"0" + number % 10
            number //= 10
            if not number:
                break
        memcpy(self._out + self._used, digits + place, 24 - place)
        self._used += 24 - place


cdef inline bint has(Line* line, int field) noexcept:
    return line.seen >> field & 1


cdef inline bint equals(Text* text, bytes other) noexcept:
    return text.length == PyBytes_GET_SIZE(other) and not memcmp(text.at, PyBytes_AS_STRING(other), text.length)


cdef bint _are_valid(Line* line) noexcept:
    """Whether the decimals and times that the rules would check are plainly right."""
    cdef int number, field
    if line.seen & NUMBERS:
        for number in range(DECIMALS_COUNT):
            field = DECIMAL[number]
            if has(line, field) and amount(line.values[field]) < 0:
                return False
    return not has(line, CREATED_AT) or nanoseconds(line.values[CREATED_AT]) >= 0


cdef bint _adds_nothing(Plain order, Line* line):
    """Whether the terms that an event carries are known in the same words."""
    cdef Line placed
    cdef Bytes at
    cdef uint64_t terms = line.seen & ALL_TERMS
    cdef int field
    if not terms:
        return True
    if order.line is None:
        return False
    order.is_told_twice = True
    at = <Bytes> PyBytes_AS_STRING(order.line)
    scan(FIELDS, EXTENDED_HOURS, at, at + PyBytes_GET_SIZE(order.line), &placed)
    if terms & ~placed.seen:
        return False
    for field in range(len(_FIELDS)):
        if terms >> field & 1:
            if line.values[field].length != placed.values[field].length:
                return False
            if memcmp(line.values[field].at, placed.values[field].at, placed.values[field].length):
                return False
    return True


cdef bint _is_of_source(Plain order, Line* line):
    if not has(line, SOURCE):
        return order.source is None
    return order.source is not None and equals(&line.values[SOURCE], order.source)


cdef void _note_time(Plain order, Line* line, long long ts) noexcept:
    order.updated = ts
    order.updated_length = line.values[TS].length
    memcpy(order.updated_at, line.values[TS].at, order.updated_length)


cdef Py_ssize_t _write_told(Line* line, char* out) noexcept:
    """What is told of a fill, as bytes that are the same for the same words."""
    cdef Py_ssize_t used = 0
    cdef int number, field
    for number in range(TOLD_FIELDS):
        field = TOLD[number]
        if number:
            out[used] = c"\n"
            used += 1
        if has(line, field):
            memcpy(out + used, line.values[field].at, line.values[field].length)
            used += line.values[field].length
        else:
            out[used] = 0
            used += 1
    return used


cdef inline bint is_of_execution(bytes known, Text* execution_id) noexcept:
    cdef const char* at = PyBytes_AS_STRING(known) + 8
    if PyBytes_GET_SIZE(known) <= 8 + execution_id.length:
        return False
    return at[execution_id.length] == c"\n" and not memcmp(at, execution_id.at, execution_id.length)
