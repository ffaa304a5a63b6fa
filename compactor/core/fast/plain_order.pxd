"""An order to which only plain things happened so far."""

from libc.stdint cimport uint64_t

from compactor.core.fast.plain_line cimport Kind
from compactor.core.fast.scan cimport Bytes, Line, Out, Text

cdef enum:
    TRADE_TERMS = 6


cdef struct Slice:
    unsigned short start, length


cdef class PlainOrder:
    cdef readonly str order_id
    cdef readonly long long first, last
    cdef readonly bint ended
    cdef long long _updated, _target, _filled
    cdef int _status, _before
    cdef bint _repeats_terms
    cdef uint64_t _repeated
    cdef long long _repeated_ns
    cdef bytes _repeated_at, _told_at_end
    cdef char _updated_at[32]
    cdef int _updated_length
    cdef bytes _line, _source
    cdef Slice _terms[TRADE_TERMS]
    cdef list _fills
    cdef set _delivered

    cdef bint knows_delivery(self, str delivery)
    cdef int note_delivery(self, str delivery) except -1
    cdef bint take(self, Line* line, Kind* kind, long long ts, long long offset, bytes team, Out out) except -1
    cdef bint _take_fill(self, Line* line, Kind* kind, long long ts, long long offset, bytes team, Out out) except -1
    cdef bint _take_status(self, Line* line, Kind* kind, long long ts, long long offset) except -1
    cdef bint _adds_nothing(self, Line* line, long long ts)
    cdef int _note_terms(self, Line* line, long long ts) except -1
    cdef bint _is_source(self, Line* line)
    cdef int _end(self, int status) except -1
    cdef int _note_time(self, Line* line, long long ts, long long offset) except -1
    cdef int _write_trade(self, Line* line, long long offset, bytes team, Out out) except -1
    cdef int _put_term(self, bytes name, int term, Out out) except -1


cdef PlainOrder place(Line* line, int name, str order_id, Text whole, long long ts, long long offset)
