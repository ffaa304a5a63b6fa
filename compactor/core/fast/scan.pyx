# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Scan a plain line in place: a JSON object of texts without escapes, in printable ASCII, with no field twice.

This module decides nothing about the meaning of a line. A line that is not plain is left to msgspec and the rules.

Note: amounts are whole billionths and times whole nanoseconds, both exact. -1 means "not plainly an amount or a time";
it may still be a valid one.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcmp, memcpy, memset

cdef enum:
    _NONE = 255


cdef inline unsigned char _slot(Text text) noexcept nogil:
    return <unsigned char> (
        text.length + 3 * text.at[0] + 7 * text.at[text.length - 1] + 31 * text.at[text.length >> 1]
    )


cdef class Words:
    """A hash table of up to 64 words; `find` returns the number of a word."""

    def __init__(self, words):
        self._joined = "".join(words).encode()
        cdef Bytes at = self._joined
        cdef unsigned char slot
        memset(self._slots, _NONE, sizeof(self._slots))
        if len(words) > 64:
            raise ValueError(f"found {len(words)} words, expected at most 64")
        for number, word in enumerate(words):
            self._texts[number] = Text(at, len(word))
            slot = _slot(self._texts[number])
            while self._slots[slot] != _NONE:
                slot += 1
            self._slots[slot] = number
            at += len(word)

    cdef int find(self, Text text) noexcept nogil:
        """The number of a word, or -1."""
        cdef unsigned char slot, number
        if text.length < 1:
            return -1
        slot = _slot(text)
        while True:
            number = self._slots[slot]
            if number == _NONE:
                return -1
            if is_same(self._texts[number], text):
                return number
            slot += 1


cdef class Out:
    """A growing buffer of bytes."""

    def __dealloc__(self):
        free(self._data)

    cdef int _make_room(self, Py_ssize_t length) except -1:
        cdef Py_ssize_t room = 2 * self._room + length
        cdef char* grown = <char*> realloc(self._data, room)
        if grown == NULL:
            raise MemoryError
        self._data, self._room = grown, room
        return 0

    cdef int put(self, Text text) except -1:
        if self._room - self._used < text.length:
            self._make_room(text.length)
        memcpy(self._data + self._used, text.at, text.length)
        self._used += text.length
        return 0

    cdef int put_bytes(self, bytes text) except -1:
        return self.put(text_of(text))

    cdef int put_number(self, long long number) except -1:
        """Write a number that is not negative."""
        cdef unsigned char digits[20]
        cdef int index = 20
        while True:
            index -= 1
            digits[index] = c"0" + number % 10
            number //= 10
            if not number:
                return self.put(Text(&digits[index], 20 - index))

    cdef Py_ssize_t length(self):
        return self._used

    cdef bytes take(self):
        """Return what was written since the last call."""
        cdef bytes taken = PyBytes_FromStringAndSize(self._data, self._used)
        self._used = 0
        return taken


cdef inline Text text_of(bytes data) noexcept:
    return Text(<Bytes> PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


cdef inline bytes bytes_of(Text text):
    return PyBytes_FromStringAndSize(<char*> text.at, text.length)


cdef inline bint is_same(Text one, Text other) noexcept nogil:
    return one.length == other.length and not memcmp(one.at, other.at, one.length)


cdef bint is_clean(Bytes at, Bytes end) noexcept nogil:
    """Whether all bytes are printable ASCII without a backslash, so that a text in quotes needs no decoding."""
    cdef unsigned char odd = 0
    while at < end:
        odd |= (at[0] < 0x20) | (at[0] > 0x7E) | (at[0] == c"\\")
        at += 1
    return not odd


cdef bint scan(Words fields, int flag, Bytes at, Bytes end, Line* line) noexcept nogil:
    """Find the values of a clean line. The byte at `end` must be readable and is no part of the line. `flag` is the one
    field that is true or false. A null value counts as absent."""
    cdef uint64_t named = 0, bit
    cdef Bytes start, stop
    cdef int field
    line.seen = 0
    if at[0] != c"{":
        return False
    while True:
        at += 1
        if at[0] == c" ":
            at += 1
        if at[0] != c'"':
            return False
        start = at + 1
        stop = <Bytes> memchr(start, c'"', end - start)
        if stop == NULL or stop[1] != c":":
            return False
        field = fields.find(Text(start, stop - start))
        if field < 0:
            return False
        bit = <uint64_t> 1 << field
        if named & bit:
            return False
        named |= bit
        at = stop + 2
        if at[0] == c" ":
            at += 1
        if at[0] == c'"' and field != flag:
            start = at + 1
            stop = <Bytes> memchr(start, c'"', end - start)
            if stop == NULL:
                return False
            if stop == start:
                return False  # An empty text is absent.
            at = stop + 1
            line.seen |= bit
        elif end - at > 4 and not memcmp(at, b"null", 4):
            start, stop, at = at, at, at + 4
        elif field == flag and end - at > 5 and (not memcmp(at, b"true", 4) or not memcmp(at, b"false", 5)):
            start = at
            stop = at = at + (4 if at[0] == c"t" else 5)
            line.seen |= bit
        else:
            return False
        line.values[field].at = start
        line.values[field].length = stop - start
        if at[0] == c",":
            continue
        return at[0] == c"}" and at + 1 == end


cdef long long amount(Text text) noexcept nogil:
    """Read a decimal in billionths, if it has no sign, no exponent and at most nine digits on either side of its point;
    else return -1."""
    cdef long long value = 0
    cdef Py_ssize_t index, point = -1
    cdef unsigned char digit
    if text.length > 19:
        return -1
    for index in range(text.length):
        digit = text.at[index] - c"0"
        if digit <= 9:
            value = value * 10 + digit
        elif text.at[index] == c"." and point < 0:
            point = index
        else:
            return -1
    cdef Py_ssize_t whole = text.length if point < 0 else point
    cdef Py_ssize_t places = 0 if point < 0 else text.length - point - 1
    if not 1 <= whole <= 9 or places > 9 or (point >= 0 and not places):
        return -1
    for index in range(9 - places):
        value *= 10
    return value


cdef inline int _pair(Bytes at) noexcept nogil:
    """Read two digits; 1000, which no field of a time can have, where they are none."""
    cdef unsigned char tens = at[0] - c"0", ones = at[1] - c"0"
    return tens * 10 + ones if tens <= 9 and ones <= 9 else 1000


cdef long long nanoseconds(Text text) noexcept nogil:
    """Read a time in UTC as brokers write it, with up to nine fractional digits, in nanoseconds since 1970; else return
    -1."""
    cdef Bytes at = text.at
    cdef Py_ssize_t index
    cdef unsigned char digit
    cdef long long fraction = 0
    if not (22 <= text.length <= 30 or text.length == 20) or at[text.length - 1] != c"Z":
        return -1
    if at[4] != c"-" or at[7] != c"-" or at[10] != c"T" or at[13] != c":" or at[16] != c":":
        return -1
    if text.length > 20 and at[19] != c".":
        return -1
    cdef int century = _pair(at), year = _pair(at + 2), month = _pair(at + 5), day = _pair(at + 8)
    cdef int hour = _pair(at + 11), minute = _pair(at + 14), second = _pair(at + 17)
    if not 20 <= century <= 21 or year > 99 or not 1 <= month <= 12 or not 1 <= day <= 31:
        return -1
    if hour > 23 or minute > 59 or second > 59:
        return -1
    year += century * 100
    if day > 28 and day > _count_days(year, month):
        return -1
    for index in range(20, text.length - 1):
        digit = at[index] - c"0"
        if digit > 9:
            return -1
        fraction = fraction * 10 + digit
    for index in range(text.length - 1, 29):
        fraction *= 10
    # Years that begin in March have their leap day at the end.
    if month <= 2:
        year, month = year - 1, month + 12
    cdef long long days = 365 * year + year // 4 - year // 100 + year // 400 + (153 * month - 457) // 5 + day - 719469
    return (((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000_000 + fraction


cdef int _count_days(int year, int month) noexcept nogil:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


# For the tests, which compare them with `decimals` and `instants`.


def parse_amount(text):
    """Read an amount in billionths, or return -1."""
    cdef bytes encoded = text.encode()
    return amount(text_of(encoded))


def parse_nanoseconds(text):
    """Read a time in nanoseconds, or return -1."""
    cdef bytes encoded = text.encode()
    return nanoseconds(text_of(encoded))
