"""Texts as ranges of bytes: found in a line, read, and written."""

from libc.stdint cimport uint64_t

ctypedef const unsigned char* Bytes


cdef struct Text:
    Bytes at
    Py_ssize_t length


cdef struct Line:
    uint64_t seen
    Text values[64]


cdef class Words:
    cdef bytes _joined
    cdef Text _texts[64]
    cdef unsigned char _slots[256]
    cdef int find(self, Text text) noexcept nogil


cdef class Out:
    cdef char* _data
    cdef Py_ssize_t _used, _room
    cdef int _make_room(self, Py_ssize_t length) except -1
    cdef int put(self, Text text) except -1
    cdef int put_bytes(self, bytes text) except -1
    cdef int put_number(self, long long number) except -1
    cdef Py_ssize_t length(self)
    cdef bytes take(self)


cdef Text text_of(bytes data) noexcept
cdef bytes bytes_of(Text text)
cdef bint is_same(Text one, Text other) noexcept nogil
cdef bint is_clean(Bytes at, Bytes end) noexcept nogil
cdef bint scan(Words fields, int flag, Bytes at, Bytes end, Line* line) noexcept nogil
cdef long long amount(Text text) noexcept nogil
cdef long long nanoseconds(Text text) noexcept nogil
