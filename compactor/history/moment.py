"""Moments of a ledger, and the lines of its log that a moment selects.

A moment is an offset of the log, a time by our clock or by the broker's, or the end. An offset selects a prefix of the
log. A time selects every line that is not later, each line by itself, in the order of the log: by `recorded_at` (`ts`
where there is none), or by `ts`. A line without a time goes with the line before it. The index beside each seal tells
which segments are selected whole or not at all. Folding what is selected is left to `replay`.

Note: a time need not select a prefix of the log, because lines may be appended out of order. Offsets stay those of the
whole log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from msgspec import Struct

from compactor.core import CompactorError
from compactor.core.instants import BadInstant, nanos, rfc3339
from compactor.core.lines import Block
from compactor.history.search import Finder
from compactor.ledger.files import Files
from compactor.ledger.indexing import UNREADABLE, decode_named, find_instant, truncate_to_second
from compactor.ledger.log import Log
from compactor.ledger.segments import Segments

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
        """The whole second of the instant, as `truncate_to_second` writes it."""
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


def parse_moment(text: str, clock: Clock) -> Moment:
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


Selected = Literal["all", "some", "none"]


class Selection:
    """The lines of one open log that a moment selects."""

    def __init__(self, moment: Moment, log: Log, segments: Segments, files: Files) -> None:
        self._moment = moment
        self._log = log
        self._segments = segments
        self._finder = Finder(log, segments, files)
        self._second = moment.until_second if moment.until_ns is not None else ""
        self._was_in = True
        """Whether the last line that told its time is selected."""

    def blocks(self, offset: int, end: int) -> Iterator[Block]:
        """What is selected from an offset on, as blocks of whole lines. Raises SegmentDamaged."""
        if self._moment.until_ns is None:
            yield from self._log.blocks(offset, end)
            return
        self._was_in = True
        for start, stop, selected in self._stretches(offset, end):
            if selected == "none":
                self._was_in = False
                continue
            for block in self._log.blocks(start, stop):
                if selected == "all" or (block.too_long and self._was_in):
                    yield block
                elif not block.too_long:
                    yield from self._runs(block)
            self._was_in = self._was_in or selected == "all"

    def whole_up_to(self, limit: int) -> int:
        """An offset up to which every line is selected, found by looking no further than `limit`."""
        if self._moment.until_ns is None:
            return limit
        self._was_in = True
        for start, stop, selected in self._stretches(0, limit):
            if selected == "none":
                return start
            for block in self._log.blocks(start, stop) if selected == "some" else ():
                if not block.too_long and not all(self._judge(block.data.split(b"\n")[:-1])):
                    return block.offset
        return limit

    def recall(self, order_id: str, first: int, end: int) -> Iterable[tuple[int, bytes]]:
        """Like `Log.lines_naming`, of what is selected."""
        found = self._finder.recall(order_id, first, end)
        return found if self._moment.until_ns is None else (one for one in found if self._admits(one[1]))

    def _admits(self, line: bytes) -> bool:
        instant = find_instant(line, self._moment.known)
        return instant is None or instant <= (self._moment.until_ns or 0)

    def _stretches(self, offset: int, end: int) -> Iterator[tuple[int, int, Selected]]:
        """Ranges that follow each other, and how many of their lines are selected, as far as the indexes tell."""
        position, until = offset, self._moment.until_ns or 0
        for seal in self._segments.seals_from(offset) if offset < self._segments.sealed_end else ():
            if seal.start >= end:
                break
            header = self._finder.indexes.header(seal)
            span = (header.recorded if self._moment.known else header.happened).span_ns()
            selected: Selected = "some"
            if header.told and span is not None:
                selected = "all" if span[1] <= until else "none" if span[0] > until else "some"
            yield position, min(seal.end, end), selected
            position = min(seal.end, end)
        if position < end:
            yield position, end, "some"

    def _runs(self, block: Block) -> Iterator[Block]:
        """The selected lines of a block, those that follow each other together."""
        lines = block.data.split(b"\n")
        lines.pop()
        position = start = block.offset
        run: list[bytes] = []
        for line, selected in zip(lines, self._judge(lines), strict=True):
            if selected:
                if not run:
                    start = position
                run += (line, b"\n")
            elif run:
                yield _block(start, run)
                run = []
            position += len(line) + 1
        if run:
            yield _block(start, run)

    def _judge(self, lines: list[bytes]) -> list[bool]:
        """Whether each line is selected."""
        try:
            batch = list(map(decode_named, lines))
        except UNREADABLE:
            return [self._judge_one(line, None) for line in lines]
        if self._moment.known:
            texts = [named.recorded_at or named.ts for named in batch]
        else:
            texts = [named.ts for named in batch]
        return [self._judge_one(line, text) for line, text in zip(lines, texts, strict=True)]

    def _judge_one(self, line: bytes, text: str | None) -> bool:
        second = truncate_to_second(text)
        if second is not None and second != self._second:
            self._was_in = second < self._second
        else:
            instant = find_instant(line, self._moment.known)
            if instant is not None:
                self._was_in = instant <= (self._moment.until_ns or 0)
        return self._was_in


def _block(start: int, run: list[bytes]) -> Block:
    data = b"".join(run)
    return Block(start, data, len(data))
