"""One line of a log becomes events and findings: what a crash or another writer did to it is mended here, and nowhere
else.

A torn fragment and a whole event that was appended behind it stand in one line (durability is the reason: a writer
that dies in the middle leaves no newline). The event is recovered, the fragment becomes the finding (format.md
section 5).
"""

import base64
import re
from collections.abc import Iterator
from typing import NamedTuple

from compactor.core.derived import Finding
from compactor.core.events import Event, Problem, decode

EXCERPT_BYTES = 1024
"""How much of a line that is too long stands in its finding."""

_CANDIDATES_MAX = 64
_START = re.compile(rb'\{\s*"')


class Placed(NamedTuple):
    """An event and where it stands; `length` counts its newline."""

    offset: int
    length: int
    event: Event


def read_line(line: bytes, offset: int) -> Iterator[Placed | Finding]:
    """What one line (without its newline) holds, in the order of its bytes; nothing for a blank line."""
    if not line.strip():
        return
    found = decode(line)
    if not isinstance(found, Problem):
        yield Placed(offset, len(line) + 1, found)
        return
    fused = _split_fused(line) if found.kind in ("not_json", "nul_bytes", "not_utf8") else None
    if fused is None:
        yield unreadable(line, offset, len(line) + 1, found)
        return
    start, event = fused
    yield from _read_fragment(line[:start], offset)
    yield Placed(offset + start, len(line) - start + 1, event)


def _split_fused(line: bytes) -> tuple[int, Event] | None:
    """Where in a damaged line a whole event begins that reaches to its end."""
    starts = [match.start() for match in _START.finditer(line)]
    for start in reversed(starts[-_CANDIDATES_MAX:]):
        if start > 0 and not isinstance(event := decode(line[start:]), Problem):
            return start, event
    return None


def _read_fragment(fragment: bytes, offset: int) -> Iterator[Placed | Finding]:
    """What stands before a whole event: torn bytes, or other whole events that only lack their newline."""
    event = decode(fragment)
    if not isinstance(event, Problem):
        yield Placed(offset, len(fragment), event)
        detail = "a whole event without its newline stands before another one in the same line; both are applied"
        yield Finding(offset, len(fragment), "fused_line", True, detail)
        return
    fused = _split_fused(fragment)
    if fused is not None:
        start, _event = fused
        yield from _read_fragment(fragment[:start], offset)
        yield from _read_fragment(fragment[start:], offset + start)
        return
    kind = "nul_bytes" if b"\0" in fragment else "fused_line"
    detail = f"{len(fragment)} bytes before a whole event, left by a write that was cut off; the event is applied"
    yield unreadable(fragment, offset, len(fragment), Problem(kind, detail))


def unreadable(line: bytes, offset: int, length: int, problem: Problem) -> Finding:
    """The finding of bytes that were not applied, with the bytes."""
    finding = Finding(offset, length, problem.kind, False, problem.detail)
    kept = line[:EXCERPT_BYTES] if problem.kind == "too_long" else line
    try:
        finding.line = kept.decode()
    except UnicodeDecodeError:
        finding.line_base64 = base64.b64encode(kept).decode()
    return finding
