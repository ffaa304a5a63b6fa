# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The compiled short path of the fold: placements, executions and statuses, taken from the bytes of the log.

A line is taken only if every condition holds under which the rules give the plain result; any other line is left to
`Fold.feed_line`. README.md says more, and the laws compare both ways.

Note: an order stays here as long as only plain things happen to it; with the first other event it becomes an `Order`.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.string cimport memchr

from compactor.core.fast.plain_line cimport (
    EVENT, EVENT_ID, EXECUTION_ID, ORDER_ID, ORDER_STATUS, RECORDED_AT, TEAM_ID, TS, Kind, has, is_open, is_plain,
    is_terminal,
    kind_at, name_of, read_plain,
)
from compactor.core.fast.plain_order cimport PlainOrder, place
from compactor.core.fast.scan cimport Bytes, Line, Out, Text, bytes_of, is_same, nanoseconds, text_of

from collections import deque
from datetime import datetime

import msgspec

from compactor.core.decoding import rewritten
from compactor.core.fast.plain_line import COUNTED

_instant = msgspec.json.Decoder(datetime).decode


cdef class PlainOrders:
    """The plain orders of a ledger: those that are open, and those that ended last."""

    cdef dict _orders
    cdef object _ended, _may_know, _touched
    cdef bytes _team, _team_json, _recorded_at
    cdef Out _out
    cdef long long _trades, _clock
    cdef bint _waits
    cdef long long _fed[64]

    def __init__(self):
        self._orders, self._ended, self._out = {}, deque(), Out()
        self._clock = -1

    # Orders out.

    def get(self, order_id):
        return self._orders.get(order_id)

    def pop(self, order_id):
        return self._orders.pop(order_id, None)

    def list_open(self):
        cdef PlainOrder order
        return [order.order_id for order in self._orders.values() if not order.ended]

    def list_ended(self):
        cdef PlainOrder order
        return [(order.order_id, order.first, order.last) for order in self._orders.values() if order.ended]

    def shrink(self, Py_ssize_t kept):
        cdef PlainOrder order
        gone = []
        while len(self._ended) > kept:
            order = self._ended.popleft()
            # An order that the rules have taken over leaves the state through them.
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
            if stop == NULL:
                raise ValueError(f"found a line without its end at offset {offset}, expected whole lines")
            if not self._take_line(at, stop, offset):
                self._settle(fold)
                fold.feed_line(PyBytes_FromStringAndSize(<char*> at, stop - at), offset)
                self._begin(fold)
            offset += stop + 1 - at
            at = stop + 1
        self._settle(fold)

    cdef int _begin(self, fold) except -1:
        """Read what the rules may change too."""
        team, self._waits = fold.known_team, fold.is_clock_waiting
        self._may_know, self._touched = fold.may_know, fold.touched
        self._team = None if team is None else team.encode()
        self._team_json = msgspec.json.encode(fold.team_id)
        return 0

    cdef int _settle(self, fold) except -1:
        """Hand over what was derived since the last call."""
        cdef int name
        if self._clock < 0:
            return 0
        if self._trades:
            fold.add_trades(self._out.take(), self._trades)
        fold.advance_clock(_instant(b'"%b"' % self._recorded_at))
        fold.counts.add({COUNTED[name]: self._fed[name] for name in range(len(COUNTED)) if self._fed[name]})
        self._trades, self._clock = 0, -1
        for name in range(len(COUNTED)):
            self._fed[name] = 0
        return 0

    cdef bint _take_line(self, Bytes at, Bytes stop, long long offset) except -1:
        cdef Line line
        cdef Text whole
        if self._waits:
            return False  # The next event that moves the clock decides about a time that waits (6.1).
        if read_plain(at, stop, &line):
            return self._take(&line, Text(at, stop - at), offset)
        # A line with spaces, escapes or unknown fields may be plain once it is encoded again.
        cdef bytes written = rewritten(PyBytes_FromStringAndSize(<char*> at, stop - at))
        if written is None:
            return False
        whole = text_of(written)
        return read_plain(whole.at, whole.at + whole.length, &line) and self._take(&line, whole, offset)

    cdef bint _take(self, Line* line, Text whole, long long offset) except -1:
        """Check what all events have in common, then place the order or let it take the line."""
        cdef Text* values = line.values
        cdef int name = name_of(values[EVENT]) if has(line, EVENT) else -1, status
        cdef Kind* kind = kind_at(name)
        if name < 0 or not is_plain(line, kind):
            return False
        cdef long long ts = nanoseconds(values[TS]), recorded_at = nanoseconds(values[RECORDED_AT])
        if ts < 0 or recorded_at < 0:
            return False
        if has(line, ORDER_STATUS):
            # A status that says nothing that the event does not say itself (3.10).
            status = name_of(values[ORDER_STATUS])
            if status < 0 or not (is_open(status) or (kind.ends and is_terminal(status))):
                return False
            if kind.is_fill and kind.ends and is_open(status):
                return False
        if has(line, TEAM_ID) and (self._team is None or not is_same(values[TEAM_ID], text_of(self._team))):
            return False
        cdef str order_id = _str_of(values[ORDER_ID])
        cdef str delivery = _str_of(values[EVENT_ID]) + COUNTED[name] if has(line, EVENT_ID) else None
        if delivery is not None and has(line, EXECUTION_ID):
            delivery += _str_of(values[EXECUTION_ID])
        cdef PyObject* found = PyDict_GetItem(self._orders, order_id)
        cdef bint was_ended
        cdef Py_ssize_t written
        cdef PlainOrder order
        if found == NULL:
            order = place(line, name, order_id, whole, ts, offset) if kind.is_placement else None
            if order is None or self._may_know(order_id):
                return False
            self._orders[order_id] = order
        else:
            order = <PlainOrder> found
            if delivery is not None and order.knows_delivery(delivery):
                order.last = offset
            else:
                was_ended, written = order.ended, self._out.length()
                if not order.take(line, kind, ts, offset, self._team_json, self._out):
                    return False
                if order.ended and not was_ended:
                    self._ended.append(order)
                if self._out.length() != written:
                    self._trades += 1
        if delivery is not None:
            order.note_delivery(delivery)
        if recorded_at > self._clock:
            self._clock, self._recorded_at = recorded_at, bytes_of(values[RECORDED_AT])
        if self._touched is not None:
            self._touched.add(order_id)
        self._fed[name] += 1
        return True


cdef str _str_of(Text text):
    return PyUnicode_DecodeASCII(<char*> text.at, text.length, NULL)
