"""Which moment of a ledger is meant: an offset of its log, a time by our clock or by the broker's, or the end.

Moments select lines of the log, and this is all that they do: `replay` folds what they select. What surprises: two
times by the same clock need not select a beginning of the log, because lines may be appended out of order.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from compactor.core.exceptions import CompactorError
from compactor.core.instants import BadInstant, nanos, rfc3339

Clock = Literal["recorded", "happened"]


class BadMoment(CompactorError):
    """A text that names no moment; the message says what was found and what was expected."""


class Moment(Struct, frozen=True):
    """A moment of a ledger: the log up to `offset`, or the lines up to an instant by a clock; with neither, all of it.

    `text` is how people named it.
    """

    text: str
    offset: int | None = None
    until_ns: int | None = None
    clock: Clock = "recorded"

    @property
    def known(self) -> bool:
        """Whether a line is judged by when it was recorded."""
        return self.clock == "recorded"

    @property
    def until_second(self) -> str:
        """The whole second of the instant, as `second_of` writes it."""
        assert self.until_ns is not None
        return rfc3339(self.until_ns)[:19]


END = Moment("end")


def at_offset(offset: int) -> Moment:
    """What the derived files were when the log ended at an offset."""
    return Moment(f"offset {offset}", offset=offset)


def at_time(text: str, clock: Clock) -> Moment:
    """What was recorded, or had happened, by a time. Raises BadMoment."""
    try:
        ns = nanos(text)
    except BadInstant as error:
        raise BadMoment(str(error)) from None
    return Moment(f"{'known at' if clock == 'recorded' else 'as of'} {text}", until_ns=ns, clock=clock)


def moment_of(text: str, clock: Clock) -> Moment:
    """The moment in a text: digits are an offset, `end` is the end, anything else is a time. Raises BadMoment."""
    if text.isascii() and text.isdigit() and len(text) < 20:
        return at_offset(int(text))
    if text == "end":
        return END
    try:
        return at_time(text, clock)
    except BadMoment:
        expected = "expected an offset (4096), a time with an offset (2026-03-02T14:30:00Z), end, or a directory"
        raise BadMoment(f"{text[:80]!r} names no moment: {expected}") from None
