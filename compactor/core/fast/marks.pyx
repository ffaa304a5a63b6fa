# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The loops of `compactor.core.archive` over fingerprints and bits. Each function returns what its namesake there does."""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport uint32_t, uint64_t

cdef extern from *:
    """typedef unsigned __int128 uint128;"""
    ctypedef uint64_t uint128  # Cython need not know how wide it is; C does.

cdef enum:
    PROBES = 8
    GENERATIONS_MAX = 12
    PAGE_MASK = (1 << 19) - 1
    CHUNK_BYTES = 7

cdef uint64_t PRIME = (1 << 61) - 1
cdef uint64_t FACTOR_HIGH = 0x243F6A8885A308D3, FACTOR_LOW = 0x13198A2E03707345


cdef inline uint64_t multiply(uint64_t value, uint64_t factor, uint64_t more) noexcept:
    """`value * factor + more` modulo the prime, for numbers below it."""
    cdef uint128 product = <uint128> value * factor + more
    cdef uint64_t rest = <uint64_t> (product & PRIME) + <uint64_t> (product >> 61)
    return rest - PRIME if rest >= PRIME else rest


def fingerprint(str order_id, uint64_t secret):
    cdef Py_ssize_t length, start = 0
    cdef const unsigned char* data = <const unsigned char*> PyUnicode_AsUTF8AndSize(order_id, &length)
    cdef uint64_t chunk, value
    cdef int size, index
    if secret >= PRIME:
        raise ValueError("expected a secret below 2 ** 61 - 1, found a greater one")
    value = <uint64_t> length
    while start < length:
        size = CHUNK_BYTES if length - start > CHUNK_BYTES else <int> (length - start)
        chunk = 0
        for index in range(size):
            chunk |= <uint64_t> data[start + index] << 8 * index
        value = multiply(value, secret, chunk)
        start += size
    value = multiply(value, secret, 0)
    cdef uint128 mark = (<uint128> value * FACTOR_HIGH << 3) + (<uint128> value * FACTOR_LOW >> 61)
    return (<object> <uint64_t> (mark >> 64)) << 64 | <uint64_t> mark


cdef unsigned char* page_of(dict pages, load, uint32_t number) except NULL:
    cdef PyObject* found = PyDict_GetItem(pages, number)
    cdef bytearray page = <bytearray> found if found != NULL else load(number)
    if PyByteArray_GET_SIZE(page) << 3 != PAGE_MASK + 1:
        raise ValueError(f"found a page of {len(page)} bytes, expected {(PAGE_MASK + 1) >> 3}")
    return <unsigned char*> PyByteArray_AS_STRING(page)


cdef inline uint32_t first_page(int generation) noexcept:
    return ((1 << 2 * (generation + 1)) - 4) // 3


cdef inline uint32_t pages_in(int generation) noexcept:
    return 1 << 2 * (generation + 1)


cdef int check_generations(int number) except -1:
    if number > GENERATIONS_MAX:
        raise IndexError(f"found {number} generations of marks, expected at most {GENERATIONS_MAX}")
    return 0


def is_marked(dict pages, load, int generations, mark):
    cdef uint32_t low = mark & 0xFFFFFFFF, start = (mark >> 32) & PAGE_MASK, step = (mark >> 64 | 1) & PAGE_MASK, bit
    cdef int generation, probe
    cdef unsigned char* page
    check_generations(generations)
    for generation in range(generations):
        page = page_of(pages, load, first_page(generation) + low % pages_in(generation))
        bit = start
        for probe in range(PROBES):
            if not page[bit >> 3] >> (bit & 7) & 1:
                break
            bit = bit + step & PAGE_MASK
        else:
            return True
    return False


def set_mark(dict pages, load, int generation, mark):
    cdef uint32_t low = mark & 0xFFFFFFFF, bit = (mark >> 32) & PAGE_MASK, step = (mark >> 64 | 1) & PAGE_MASK
    cdef int probe
    cdef unsigned char one
    cdef bint is_new = False
    check_generations(generation + 1)
    cdef unsigned char* page = page_of(pages, load, first_page(generation) + low % pages_in(generation))
    for probe in range(PROBES):
        one = 1 << (bit & 7)
        if not page[bit >> 3] & one:
            page[bit >> 3] |= one
            is_new = True
        bit = bit + step & PAGE_MASK
    return is_new
