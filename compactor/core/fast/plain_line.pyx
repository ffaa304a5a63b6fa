# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A plain line as an event: its fields, whether their values are plainly valid, and the meaning of its name.

Fields come from `events` and the meaning of names from the table in `lifecycle`; here they become numbers and bits.
"""

from compactor.core.fast.scan cimport Words, amount, is_clean, is_same, nanoseconds, scan

from libc.string cimport memcmp

from compactor.core.events import DECIMALS, EVENTS, FILLS, PLACEMENTS, TERMS, Event
from compactor.core.lifecycle import LIFE, OPEN, REQUESTS, TERMINAL, Effect

cdef enum:
    LINE_MAX = 8192  # A longer line is not plain.
    DECIMALS_MAX = 16

_FIELDS = ("event", *Event.__struct_fields__)
_number = _FIELDS.index


def _bits(*names):
    return sum(1 << _number(name) for name in names)


EVENT, ORDER_ID, TS, RECORDED_AT = map(_number, ("event", "order_id", "ts", "recorded_at"))
EVENT_ID, TEAM_ID, ORDER_STATUS, SOURCE = map(_number, ("event_id", "team_id", "order_status", "source"))
SYMBOL, SIDE, QUANTITY, ORDER_TYPE = map(_number, ("symbol", "side", "quantity", "order_type"))
REQUESTED_PRICE, BROKER_ORDER_ID = map(_number, ("requested_price", "broker_order_id"))
CLIENT_ORDER_ID, EXECUTION_ID = map(_number, ("client_order_id", "execution_id"))
PRICE, QTY, FILLED_QTY = map(_number, ("price", "qty", "filled_qty"))
cdef int CREATED_AT = _number("created_at"), EXTENDED_HOURS = _number("extended_hours")

cdef Words FIELDS = Words(_FIELDS)
cdef int FIELDS_COUNT = len(_FIELDS)
cdef uint64_t NEEDED = _bits("event", "order_id", "ts", "recorded_at")
cdef uint64_t NEVER = _bits("notional", "replaced_by", "legs", "leg_fills", "previous_execution_id", "to_team", "from_team", "reason")
cdef uint64_t AMOUNTS = _bits(*DECIMALS)
cdef int AMOUNT[DECIMALS_MAX]
for _index, _name in enumerate(DECIMALS):
    AMOUNT[_index] = _number(_name)
cdef int AMOUNTS_COUNT = len(DECIMALS)
ALL_TERMS = _bits(*TERMS)
NEEDED_TO_PLACE = _bits("symbol", "side", "quantity")
NEEDED_TO_FILL = _bits("execution_id", "price", "qty")

# The names of events and statuses by number.

NAMES = tuple(sorted({*EVENTS, *OPEN, *TERMINAL}))
COUNTED = tuple(EVENTS[name].event if name in EVENTS else name for name in NAMES)
"""The event as which each name is counted: `cancelled` counts as `canceled`."""

cdef Words WORDS = Words(NAMES)
cdef Kind KINDS[64]
cdef bint IS_OPEN[64]
cdef bint IS_TERMINAL[64]
FILLED, PARTIALLY_FILLED = map(NAMES.index, ("filled", "partially_filled"))


def _lay_out():
    for number, name in enumerate(NAMES):
        IS_OPEN[number], IS_TERMINAL[number] = name in OPEN, name in TERMINAL
        kind = EVENTS.get(name)
        row = LIFE.get(kind.event) if kind is not None else None
        is_fill = name in FILLS
        if row is not None and (is_fill or row.effect in (Effect.OPENS, Effect.REQUESTS, Effect.ENDS)):
            KINDS[number] = Kind(
                True, is_fill, kind in PLACEMENTS, row.effect is Effect.REQUESTS, row.effect is Effect.ENDS,
                NAMES.index(row.status),
            )
        else:
            KINDS[number] = Kind(False, False, False, name in REQUESTS, False, 0)


_lay_out()


cdef Kind* kind_at(int name) noexcept:
    """The meaning of a name. `asks` is set for requests, as events and as statuses."""
    return &KINDS[name]


cdef int name_of(Text text) noexcept:
    """The number of a name, or -1."""
    return WORDS.find(text)


cdef bint is_open(int status) noexcept:
    return IS_OPEN[status]


cdef bint is_terminal(int status) noexcept:
    return IS_TERMINAL[status]


cdef bint has(Line* line, int field) noexcept:
    """Whether the line has a field, and not as null."""
    return line.seen >> field & 1


cdef bint read_plain(Bytes at, Bytes end, Line* line) noexcept:
    """Read a line that is plain in all its bytes."""
    return end - at <= LINE_MAX and is_clean(at, end) and scan(FIELDS, EXTENDED_HOURS, at, end, line)


cdef bint is_plain(Line* line, Kind* kind) noexcept:
    """Whether the line has the required fields, none that only the rules understand, and values that are plainly valid.

    Invariant: the rules make no finding of a line that is plain.
    """
    cdef int index, field
    if line.seen & NEEDED != NEEDED or line.seen & NEVER or not line.values[ORDER_ID].length:
        return False
    if not kind.is_plain or (kind.is_fill and line.seen & NEEDED_TO_FILL != NEEDED_TO_FILL):
        return False
    if line.seen & AMOUNTS:
        for index in range(AMOUNTS_COUNT):
            field = AMOUNT[index]
            # The rules accept no zero in these two.
            if has(line, field) and amount(line.values[field]) < (field == QUANTITY or field == QTY):
                return False
    if has(line, SIDE) and not (is_word(line.values[SIDE], b"buy", 3) or is_word(line.values[SIDE], b"sell", 4)):
        return False
    return not has(line, CREATED_AT) or nanoseconds(line.values[CREATED_AT]) >= 0


cdef inline bint is_word(Text text, const char* word, Py_ssize_t length) noexcept:
    return text.length == length and not memcmp(text.at, word, length)


cdef bint repeats_terms(Line* line, Line* placed) noexcept:
    """Whether each term of a line stands in the line of the placement in the same words."""
    cdef int field
    if line.seen & ALL_TERMS & ~placed.seen:
        return False
    for field in range(FIELDS_COUNT):
        if line.seen & ALL_TERMS & <uint64_t> 1 << field and not is_same(line.values[field], placed.values[field]):
            return False
    return True
