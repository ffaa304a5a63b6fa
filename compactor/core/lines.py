"""The events of one ledger, read from the bytes of its log: what every reader of a log agrees on.

`EventReader` takes blocks of whole lines in log order and yields the events that belong to the ledger's team, and a
finding for all other bytes. `Deliveries` skips what was delivered before, for readers other than the fold. Opening a
log and cutting it into blocks are left to `ledger.log`; what an event does to an order is left to `rules`.

Note: a line may hold torn bytes and whole events. Every whole event in it is recovered (`recovery`), and the bytes
between the events become findings.
"""

import base64
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec
from msgspec import Struct

from compactor.core.decoding import decode, replace_half_characters
from compactor.core.derived import Finding
from compactor.core.events import LINE_BYTES_MAX, RETURNS_MAX, REVISIONS, Event, Problem
from compactor.core.recovery import is_blank, recover_events

EXCERPT_BYTES = 1024
"""How much of a line that is too long stands in its finding."""

_DAMAGES = ("not_json", "nul_bytes", "not_utf8")


class Placed(NamedTuple):
    """An event and its offset in the log; `length` counts its newline."""

    offset: int
    length: int
    event: Event


def read_line(line: bytes, offset: int) -> Iterator[Placed | Finding]:
    """Read a line (without its newline) in the order of its bytes. A blank line gives nothing."""
    if not line.strip():
        return
    found = decode(line)
    if not isinstance(found, Problem):
        yield Placed(offset, len(line) + 1, found)
    elif found.kind in _DAMAGES:
        yield from _recover(line, offset, found)
    else:
        yield report_unreadable(line, offset, len(line) + 1, found)


def _recover(line: bytes, offset: int, problem: Problem) -> Iterator[Placed | Finding]:
    """Yield the events of a damaged line, and findings for the bytes between them."""
    events = recover_events(line)
    if not events:
        yield report_unreadable(line, offset, len(line) + 1, problem)
        return
    at = 0
    starts = [start for start, _stop, _event in events]
    for (start, stop, event), next_start in zip(events, [*starts[1:], len(line)], strict=True):
        if not is_blank(line, at, start):
            yield _report_fragment(line[at:start], offset + at, start - at)
            at = start
        # Blanks between two events, or around one, belong to an event.
        end = next_start if is_blank(line, stop, next_start) else stop
        is_last = end == len(line)
        yield Placed(offset + at, end - at + is_last, event)
        if not is_last:
            detail = "a whole event without its newline stands before other bytes in the same line; it is applied"
            yield Finding(offset + at, end - at, "fused_line", True, detail)
        at = end
    if at < len(line):
        yield _report_fragment(line[at:], offset + at, len(line) - at + 1)


def _report_fragment(part: bytes, offset: int, length: int) -> Finding:
    kind = "nul_bytes" if b"\0" in part else "fused_line"
    detail = f"{len(part)} bytes of a write that was cut off, in one line with a whole event, which is applied"
    return report_unreadable(part, offset, length, Problem(kind, detail))


def report_unreadable(line: bytes, offset: int, length: int, problem: Problem) -> Finding:
    """The finding of bytes that were not applied, with the bytes."""
    kept = line[:EXCERPT_BYTES] if problem.kind == "too_long" else line
    try:
        text, encoded = kept.decode(), None
    except UnicodeDecodeError:
        text, encoded = None, base64.b64encode(kept).decode()
    return Finding(offset, length, problem.kind, False, problem.detail, text, encoded)


DEFAULT_TEAM = "default"
"""The team of a ledger that its events have not named (rule 1.2)."""


class Block(NamedTuple):
    """Whole lines at an offset; or the first bytes of one line of `length` bytes that is too long to be read."""

    offset: int
    data: bytes
    length: int

    @property
    def too_long(self) -> bool:
        """Whether this is the beginning of a line that is too long."""
        return self.length > len(self.data)

    @property
    def end(self) -> int:
        """The offset behind the block."""
        return self.offset + self.length

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """The lines without their newlines, each with its offset; none where the line is too long. Halves of characters
        are replaced: what is read here, any reader of JSON takes."""
        offset = self.offset
        for line in () if self.too_long else replace_half_characters(self.data).split(b"\n")[:-1]:
            yield offset, line
            offset += len(line) + 1

    def split(self) -> "Iterator[Block]":
        """A block for each line."""
        if self.too_long:
            yield self
        yield from (Block(offset, line + b"\n", len(line) + 1) for offset, line in self.lines())


class Glance(Struct, gc=False):
    """What of a line says which event it may be. Whether it is one is decided by the whole line."""

    order_id: str
    event: str
    event_id: str | None = None


_decode_glance = msgspec.json.Decoder(Glance).decode
Wants = Callable[[Glance], bool]
"""Whether a caller wants the event of a line, going by a glance at it."""


class EventReader:
    """Reads the lines of one ledger, in log order.

    `team_id` is None for a ledger whose events name it: the first event with a `team_id` does (rule 1.2).
    """

    def __init__(self, team_id: str | None) -> None:
        self.names_team = team_id is None
        """Whether an event has still to name the team."""
        self.team_id = team_id or DEFAULT_TEAM

    def read_block(self, block: Block, wants: Wants | None = None) -> Iterator[tuple[Placed | Finding, bytes]]:
        """The events of a block, and findings for all other bytes, each with its bytes, in the order of the log.

        With `wants`, most lines that a caller does not want are left out, which is several times as fast. Give the team
        then, because the line that names it may be among them.
        """
        if block.too_long:
            yield report_too_long(block), block.data
        for offset, line in block.lines():
            if wants is not None and not _may_be_wanted(line, wants):
                continue
            for found in self.read_line(line, offset):
                start = found.offset - offset
                yield found, line[start : start + found.length]

    def read_line(self, line: bytes, offset: int) -> Iterator[Placed | Finding]:
        """The events of one line (without its newline), and findings for all other bytes."""
        for found in read_line(line, offset):
            if isinstance(found, Finding) or self.admit(found.event):
                yield found
            else:
                detail = f"expected team_id {self.team_id!r}, found {found.event.team_id!r}"
                start = found.offset - offset
                problem = Problem("wrong_team", detail)
                yield report_unreadable(line[start : start + found.length], found.offset, found.length, problem)

    def admit(self, event: Event) -> bool:
        """Whether an event belongs to this ledger; the first event that names a team names the ledger."""
        if event.team_id is not None and self.names_team:
            self.team_id, self.names_team = event.team_id, False
        return event.team_id is None or event.team_id == self.team_id


def _may_be_wanted(line: bytes, wants: Wants) -> bool:
    """Whether a line may hold a wanted event. One that cannot be read at a glance may be damaged, and may."""
    try:
        return wants(_decode_glance(line))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True


def report_too_long(block: Block) -> Finding:
    """The finding of a line that is too long to be read."""
    size = f"a line of {block.length - 1} bytes, expected at most {LINE_BYTES_MAX}"
    problem = Problem("too_long", f"{size}; only its beginning stands here")
    return report_unreadable(block.data, block.offset, block.length, problem)


def identify_delivery(event: Event, part: str = "") -> str | None:
    """What two deliveries of one order share when they are the same; None for an event without `event_id` (section 2).

    Another execution is another delivery, whatever a source calls both. `part` names what of the event goes to another
    order: the index of a leg in its parent's fill, or the successor.
    """
    if event.event_id is None:
        return None
    revised = event.previous_execution_id if event.event in REVISIONS else None
    return event.event_id + event.event + (event.execution_id or "") + (revised or "") + part


class Assignments:
    """Where an order goes by the `assigned` events of one ledger, as the fold takes them (4.12), for readers that keep
    no orders."""

    def __init__(self) -> None:
        self.away_to: str | None = None
        """The team that has the order; None while it is in this ledger."""
        self._returns = 0

    def take(self, event: Event) -> None:
        """Take an `assigned` event of the order that is no repeated delivery."""
        if event.to_team is not None:
            self.away_to = event.to_team
        elif self.away_to is not None and self.may_return:
            self.away_to = None
            self._returns += 1

    @property
    def may_return(self) -> bool:
        """Whether the order can come back once more."""
        return self._returns < RETURNS_MAX


class Deliveries:
    """Remembers the deliveries of some orders, for readers that keep no orders."""

    def __init__(self) -> None:
        self._seen: dict[str, set[str]] = {}

    def note(self, event: Event) -> bool:
        """Note an event of an order; whether it is a new delivery."""
        delivery = identify_delivery(event)
        if delivery is None:
            return True
        seen = self._seen.setdefault(event.order_id, set())
        is_new = delivery not in seen
        seen.add(delivery)
        return is_new
