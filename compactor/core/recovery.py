"""Find the whole events in a line that was damaged: torn bytes and whole events without a newline between them.

A crash or another writer can leave such a line: a writer that dies in the middle of a line leaves no newline, and the
next one appends behind its fragment (format.md section 5). The search is a loop with a budget of work. Once that is
spent, what was found so far is all there is.

Note: an object inside of another whole object is a value of it, and never an event.
"""

import re
from typing import NamedTuple

from compactor.core.decoding import decode
from compactor.core.events import Event, Problem

WORK_PER_BYTE = 8
"""The budget for a damaged line, in bytes looked at for each of its bytes, in addition to `WORK_MIN`."""
WORK_MIN = 1 << 16
_STEP_WORK = 8
_START_WORK = 64
_DECODE_WORK = 64

_REQUIRED = (b'"event"', b'"order_id"', b'"ts"')
_SPACE = rb"[ \t\r\n]*+"
_STRING = rb'"(?>[^"\\\x00-\x1f]++|\\.)*+"'
_NUMBER = rb"-?+[0-9]++(?>\.[0-9]++)?+(?>[eE][+-]?+[0-9]++)?+"
_SCALAR = _SPACE + rb"(?>" + _STRING + rb"|" + _NUMBER + rb"|true|false|null)" + _SPACE
_NAME = _SPACE + _STRING + _SPACE + rb":"
_BLANKS = re.compile(rb"(?:\xef\xbb\xbf)?" + _SPACE)
_START = re.compile(rb'\{[ \t\r\n]*+"')


class _Grammar(NamedTuple):
    """What may stand in an object or an array. Only `values` and `next` look past more than one value."""

    empty: re.Pattern[bytes]
    values: re.Pattern[bytes]
    """Values that are no objects or arrays, each with its comma: as many as there are."""
    next: re.Pattern[bytes]
    """The last value and the bracket that closes, or the bracket that opens a value."""
    after: re.Pattern[bytes]
    """The comma or the closing bracket behind an object or an array in it."""


_OBJECT = _Grammar(
    re.compile(_SPACE + rb"\}"),
    re.compile(rb"(?>" + _NAME + _SCALAR + rb",)*+"),
    re.compile(_NAME + rb"(?:" + _SCALAR + rb"(\})|" + _SPACE + rb"([{[]))"),
    re.compile(_SPACE + rb"([,}])"),
)
_ARRAY = _Grammar(
    re.compile(_SPACE + rb"\]"),
    re.compile(rb"(?>" + _SCALAR + rb",)*+"),
    re.compile(rb"(?:" + _SCALAR + rb"(\])|" + _SPACE + rb"([{[]))"),
    re.compile(_SPACE + rb"([,\]])"),
)


class _Span(NamedTuple):
    start: int
    stop: int


def recover_events(line: bytes) -> list[tuple[int, int, Event]]:
    """The whole events in a damaged line (without its newline): where each begins and ends, in the order of the bytes;
    those that were found when the budget was spent."""
    return _Recovery(line).find_events()


def is_blank(line: bytes, start: int, stop: int) -> bool:
    """Whether a part of a line has only white space, or the mark that some editors put before a text."""
    return _BLANKS.fullmatch(line, start, stop) is not None


class _Recovery:
    """The search for whole events in a damaged line.

    An object that begins in torn bytes is followed until it ends or until its bytes cannot be JSON. In the second case
    the whole objects inside of it are candidates, and so are the braces that it took for parts of a text: a fragment
    that was torn inside of a text turns the quotes of what follows inside out.
    """

    def __init__(self, line: bytes) -> None:
        self._line = line
        self._work = WORK_MIN + WORK_PER_BYTE * len(line)
        self._followed: set[int] = set()
        """Where objects begin that were met inside of others, so that their end, or the lack of one, is known."""

    def find_events(self) -> list[tuple[int, int, Event]]:
        """The whole events in the line, in the order of its bytes; those that were found when the budget was spent."""
        events = []
        parts = [_Span(0, len(self._line))]
        while parts and self._work > 0:
            part = parts.pop()
            start = self._find_start(part)
            if start is None:
                continue
            objects = self._follow(start, part.stop)
            for span in objects:
                event = self._decode(span)
                if event is not None:
                    events.append((*span, event))
            # The leftmost part is the next one, so that the budget is spent from left to right.
            edges = [start + 1, *(edge for span in objects for edge in span), part.stop]
            between = map(_Span, edges[::2], edges[1::2])
            parts += reversed([one for one in between if one.start < one.stop])
        return sorted(events, key=lambda found: found[0])

    def _find_start(self, part: _Span) -> int | None:
        """Where the first object of a part begins that has not been followed."""
        self._work -= _START_WORK
        for match in _START.finditer(self._line, part.start, part.stop):
            self._work -= _STEP_WORK
            if match.start() not in self._followed:
                return match.start()
        return None

    def _decode(self, span: _Span) -> Event | None:
        data = self._line[span.start : span.stop]
        if b"\\" not in data and not all(name in data for name in _REQUIRED):
            return None
        self._work -= _DECODE_WORK + len(data)
        found = decode(data)
        return None if isinstance(found, Problem) else found

    def _follow(self, start: int, stop: int) -> list[_Span]:
        """The object that begins at `start`; if it has no end before `stop`, the whole objects inside of it."""
        line = self._line
        whole: list[_Span] = []
        opened = [(start, _OBJECT)]
        at, is_new = start + 1, True
        while self._work > 0:
            grammar = opened[-1][1]
            closing = grammar.empty.match(line, at, stop) if is_new else None
            if closing is None:
                values = grammar.values.match(line, at, stop)
                assert values is not None
                self._work -= values.end() - at + _STEP_WORK
                found = grammar.next.match(line, values.end(), stop)
                if found is None:
                    break
                at = found.end()
                if found[2] is not None:
                    is_object = found[2] == b"{"
                    opened.append((at - 1, _OBJECT if is_object else _ARRAY))
                    if is_object:
                        self._followed.add(at - 1)
                    is_new = True
                    continue
            else:
                at = closing.end()
            while True:
                begin, grammar = opened.pop()
                if grammar is _OBJECT:
                    while whole and whole[-1].start > begin:
                        whole.pop()
                    whole.append(_Span(begin, at))
                if not opened:
                    return whole
                after = opened[-1][1].after.match(line, at, stop)
                self._work -= _STEP_WORK
                if after is None:
                    return whole
                at = after.end()
                if after[1] == b",":
                    is_new = False
                    break
        return whole if self._work > 0 else []
