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

cdef uint64_t PRIME = (1 << 61) - 1
cdef uint64_t FACTOR_HIGH = 0x243F6A8885A308D3, FACTOR_LOW = 0x13198A2E03707345


def fingerprint(str order_id):
    cdef Py_ssize_t length, index
    cdef const unsigned char* at = <const unsigned char*> PyUnicode_AsUTF8AndSize(order_id, &length)
    cdef uint128 rest = 0
    for index in range(length):
        rest = (rest << 8 | at[index])
        rest = (rest & PRIME) + (rest >> 61)
    cdef uint64_t number = <uint64_t> rest
    if number >= PRIME:
        number -= PRIME
    cdef uint128 mark = (<uint128> number * FACTOR_HIGH << 3) + (<uint128> number * FACTOR_LOW >> 61)
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
