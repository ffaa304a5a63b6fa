"""One line of a log becomes events and findings: what a crash or another writer did to it is mended here, and nowhere
else.

A torn fragment and a whole event that was appended behind it stand in one line (durability is the reason: a writer
that dies in the middle leaves no newline). The event is recovered, the fragment becomes the finding (format.md
section 5).
"""

import base64
import json
import re
from collections.abc import Iterator
from typing import NamedTuple

from compactor.core.derived import Finding
from compactor.core.events import Event, Problem, decode

EXCERPT_BYTES = 1024
"""How much of a line that is too long stands in its finding."""

_CANDIDATES_MAX = 64
_raw_decode = json.JSONDecoder().raw_decode
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
    elif found.kind in ("not_json", "nul_bytes", "not_utf8"):
        yield from _read_damaged(line, offset, 1, found)
    else:
        yield unreadable(line, offset, len(line) + 1, found)


def _read_damaged(part: bytes, offset: int, newline: int, problem: Problem) -> Iterator[Placed | Finding]:
    """Recover the whole events at the end and at the beginning of damaged bytes; what is left is a finding.

    `newline` is 1 for the part that ends its line, whose newline counts.
    """
    start, end = _start_of_last_event(part), 0
    if not start:
        end = _end_of_first_event(part)
    if start or end:
        yield from _read_part(part[: start or end], offset, 0)
        yield from _read_part(part[start or end :], offset + (start or end), newline)
    else:
        yield unreadable(part, offset, len(part) + newline, problem)


def _read_part(part: bytes, offset: int, newline: int) -> Iterator[Placed | Finding]:
    """A part of a damaged line: a whole event, perhaps one that only lacks its newline, or torn bytes."""
    event = decode(part)
    if not isinstance(event, Problem):
        yield Placed(offset, len(part) + newline, event)
        if not newline:
            detail = "a whole event without its newline stands before other bytes in the same line; it is applied"
            yield Finding(offset, len(part), "fused_line", True, detail)
        return
    kind = "nul_bytes" if b"\0" in part else "fused_line"
    detail = f"{len(part)} bytes of a write that was cut off, in one line with a whole event, which is applied"
    yield from _read_damaged(part, offset, newline, Problem(kind, detail))


def _start_of_last_event(part: bytes) -> int:
    """Where a whole event begins that reaches to the end; 0 if there is none behind the first byte."""
    starts = [match.start() for match in _START.finditer(part)]
    for start in reversed(starts[-_CANDIDATES_MAX:]):
        if start > 0 and not isinstance(decode(part[start:]), Problem):
            return start
    return 0


def _end_of_first_event(part: bytes) -> int:
    """Where a whole event ends that begins with the first byte; 0 if there is none."""
    text = part.decode(errors="surrogateescape")
    try:
        _value, end = _raw_decode(text)
    except (ValueError, RecursionError):
        return 0
    length = len(text[:end].encode(errors="surrogateescape"))
    return length if length < len(part) and not isinstance(decode(part[:length]), Problem) else 0


def unreadable(line: bytes, offset: int, length: int, problem: Problem) -> Finding:
    """The finding of bytes that were not applied, with the bytes."""
    kept = line[:EXCERPT_BYTES] if problem.kind == "too_long" else line
    try:
        text, encoded = kept.decode(), None
    except UnicodeDecodeError:
        text, encoded = None, base64.b64encode(kept).decode()
    return Finding(offset, length, problem.kind, False, problem.detail, text, encoded)
