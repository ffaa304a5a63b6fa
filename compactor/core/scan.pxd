"""What `plain` takes from `scan`."""

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
    cdef int find(self, Bytes at, Py_ssize_t length) noexcept nogil


cdef bint is_clean(Bytes at, Bytes end) noexcept nogil
cdef bint scan(Words fields, int flag, Bytes at, Bytes end, Line* line) noexcept nogil
cdef long long amount(Text text) noexcept nogil
cdef long long nanoseconds(Text text) noexcept nogil
