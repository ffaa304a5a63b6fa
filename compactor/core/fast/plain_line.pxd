"""Fields and names of events by number, and questions about a line."""

from compactor.core.fast.scan cimport Bytes, Line, Text
from libc.stdint cimport uint64_t

cdef int EVENT, ORDER_ID, TS, RECORDED_AT, EVENT_ID, TEAM_ID, ORDER_STATUS, SOURCE
cdef int SYMBOL, SIDE, QUANTITY, ORDER_TYPE, REQUESTED_PRICE, BROKER_ORDER_ID, CLIENT_ORDER_ID
cdef int EXECUTION_ID, PRICE, QTY, FILLED_QTY
cdef uint64_t ALL_TERMS, NEEDED_TO_PLACE, NEEDED_TO_FILL
cdef int FILLED, PARTIALLY_FILLED


cdef struct Kind:
    bint is_plain, is_fill, is_placement, asks, ends
    int status


cdef Kind* kind_at(int name) noexcept
cdef int name_of(Text text) noexcept
cdef bint is_open(int status) noexcept
cdef bint is_terminal(int status) noexcept
cdef bint has(Line* line, int field) noexcept
cdef bint read_plain(Bytes at, Bytes end, Line* line) noexcept
cdef bint is_plain(Line* line, Kind* kind) noexcept
cdef bint repeats_terms(Line* line, Line* placed) noexcept
