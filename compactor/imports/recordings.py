"""Read the JSON values of a recording in whatever form people keep one.

Understood are one value per line, one array, values pretty-printed over many lines, several values on one line, and
captures of server-sent events (`data: {…}`), plain or compressed with gzip or zstd, with or without a byte order mark.
What the values mean is left to `messages` and `broker.alpaca.translate`.

Note: an array is read element by element, and its brackets and commas are skipped. So one bad element, or the torn end
of an array, does not cost the others.
"""

from __future__ import annotations

import gzip
import io
import re
import shlex
import sys
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from compactor.broker.port import parse
from compactor.core import CompactorError
from compactor.core.events import Problem
from compactor.imports.printed import PrintedObject, find_printed, read_behind

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

VALUE_BYTES_MAX = 2 << 20
"""The longest value over several lines; a log takes no line of more than 1 MiB."""
DEPTH_MAX = 64
OBJECTS_TRIED_MAX = 100
"""How many objects of a damaged line are looked at for one that reaches to its end."""

_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_FIELD = re.compile(rb"(?:event|id|retry):")
_COMPLAINT = re.compile(rb"dropped|too slowly|error", re.IGNORECASE)
_TOKEN = re.compile(
    rb'[ \t\r\n]*(?:(?P<text>"(?:[^"\\\x00-\x1f]|\\.)*")|(?P<mark>[{}\[\]:,])'
    rb"|(?P<plain>true|false|null|-?[0-9][0-9.eE+-]*)|(?P<end>\Z))"
)
_UNREADABLE = {
    b"PK\x03\x04": ("a zip archive", "unzip -p {} > captured.jsonl"),
    b"\xfd7zXZ": ("an xz file", "xz -dc {} > captured.jsonl"),
    b"BZh": ("a bzip2 file", "bzip2 -dc {} > captured.jsonl"),
}
_SCRIPT = re.compile(rb"[A-Za-z_$][\w$]*:")
_STARTS = (b"{", b"[", b"]", b"}", b",", b'"')
_CLOCK = re.compile(rb"\[[0-9]+[-:/]")
_HEADER = re.compile(rb'(?:"?[A-Za-z_ ./()-]*"?[,;\t]){2,}"?[A-Za-z_ ./()-]+"?[\r\n]*')
_COLUMN = re.compile(rb"(?:^|[^A-Za-z_])(?:(?:order[_ ]?)?id|symbol)(?:$|[^A-Za-z_])", re.IGNORECASE)
_READ_TABLE = "python3 -c 'import csv,json,sys;[print(json.dumps(row)) for row in csv.DictReader(sys.stdin)]'"


class BadRecording(CompactorError):
    """A file that is no recording of messages; the message says what it is and what to run."""


class Found(NamedTuple):
    """A value of a recording, or the problem in its place, and the line on which it begins, counted from 1."""

    line: int
    value: Any


def read_recording(path: Path, on_bytes: Callable[[int], None] = lambda _: None) -> Iterator[Found]:
    """Read the values of a file in order. `on_bytes` gets the number of bytes of the file that each step has read.

    Raises BadRecording for a file of another format, and OSError where it cannot be read.
    """
    with path.open("rb") as file:
        first = file.readline(VALUE_BYTES_MAX)
        file.seek(0)
        for magic, (what, command) in _UNREADABLE.items():
            if first.startswith(magic):
                raise BadRecording(f"{path}: found {what}, expected JSON messages. Run: {command.format(path)}")
        if _HEADER.fullmatch(first.removeprefix(_BOM)) and _COLUMN.search(first):
            command = f"{_READ_TABLE} < {shlex.quote(str(path))} > captured.jsonl"
            raise BadRecording(f"{path}: found a table, expected JSON messages. Run: {command}")
        yield from _Reader().read(read_lines(file, first, on_bytes))


def read_lines(file: IO[bytes], start: bytes, on_bytes: Callable[[int], None]) -> Iterator[bytes | Problem]:
    """Read the lines of a file, decompressed and in UTF-8. A damaged end is a problem after the lines before it."""
    read, offset = 0, 0
    with _open_decoded(file, start) as stream:
        is_plain = stream is file
        try:
            for line in stream:
                text = line.encode(errors="replace") if isinstance(line, str) else line
                yield text.removeprefix(_BOM)
                # Asking a plain file for its offset would cost more than reading it.
                read = read + len(text) if is_plain else file.tell()
                on_bytes(read - offset)
                offset = read
        except (EOFError, gzip.BadGzipFile, zstd.ZstdError, zlib.error) as error:
            yield Problem("not_json", f"the compressed data is damaged or cut off here ({error}); the rest is missing")


def _open_decoded(file: IO[bytes], start: bytes) -> Any:
    """Open the lines of a file by its first bytes; a context manager over lines as bytes, or as text."""
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    if start.startswith(b"\x28\xb5\x2f\xfd"):
        return zstd.open(file)
    if start.startswith(_UTF16):
        return io.TextIOWrapper(file, "utf-16", errors="replace", newline="\n")
    return nullcontext(file)


class _Malformed(Exception):
    """Text that is not JSON; the message says what was found and expected."""


class _Scanner:
    """Cuts lines into JSON values, whatever lies between them. A value may extend over several lines."""

    def __init__(self, arrays: list[int] | None = None) -> None:
        self.arrays = arrays or []
        """The lines in which arrays around values have begun and not ended."""
        self._parts: list[bytes] = []
        self._bytes = 0
        self._open: list[bytes] = []
        self._may_begin = True

    @property
    def is_inside(self) -> bool:
        """Whether a value has begun and not ended."""
        return bool(self._open)

    def feed(self, line: bytes, number: int) -> Iterator[bytes]:
        """Yield the values that end on this line. Raises _Malformed."""
        position, start = 0, 0
        while True:
            match = _TOKEN.match(line, position)
            if match is None:
                raise _Malformed(_describe(line[position:].strip()))
            if match["end"] is not None:
                break
            if not self._open:
                start = match.end() - len(match[0].lstrip())
            position = match.end()
            token = match["mark"]
            if not self._open and token in (b"[", b"]", b","):
                self._note_array(token, number)
                continue
            self._apply(token)
            if not self._open:
                yield b"".join(self._parts) + line[start:position]
                self._parts, self._bytes = [], 0
        if self._open:
            self._parts.append(line[start:])
            self._bytes += len(line) - start
            if self._bytes > VALUE_BYTES_MAX:
                raise _Malformed(f"the value has not ended after {self._bytes} bytes")

    def _note_array(self, token: bytes, number: int) -> None:
        if token == b"[":
            self.arrays.append(number)
        elif token == b"]" and self.arrays:
            self.arrays.pop()

    def _apply(self, token: bytes | None) -> None:
        """Follow the brackets. Where an object may not begin, one that was cut off lies before it.

        Whether the value is JSON is left to `parse`, once it has ended.
        """
        if not self._open and token in (b"}", b":"):
            raise _Malformed(f"found {token.decode()!r}, expected a value")
        if token in (b"{", b"["):
            if (self._open and not self._may_begin) or len(self._open) >= DEPTH_MAX:
                raise _Malformed(f"found {token.decode()!r} where no value may begin, or below {DEPTH_MAX} others")
            self._open.append(token)
            self._may_begin = token == b"["
        elif token in (b"}", b"]"):
            self._open.pop()
            self._may_begin = False
        else:
            self._may_begin = token == b":" or (token == b"," and self._open[-1] == b"[")


def _describe(rest: bytes) -> str:
    if rest.startswith((b"NaN", b"Infinity", b"-Infinity")):
        word = rest.split(b",")[0].split(b"}")[0].decode(errors="replace").strip()[:10]
        return f"found {word}, which is not JSON; expected a number or null"
    if _SCRIPT.match(rest):
        return (
            f"found {_shorten(rest)!r}: what JavaScript and Go print is not JSON; write JSON.stringify or json.Marshal"
        )
    return f"found {_shorten(rest)!r}" if rest else "the text ends within a value"


def _find_behind_torn(line: bytes) -> dict[str, Any] | None:
    """Find the whole object at the end of a line whose beginning was cut off; None for an object within another."""
    for match in islice(re.finditer(rb'\{\s*"', line), OBJECTS_TRIED_MAX):
        found = parse(line[match.start() :])
        if isinstance(found, dict):
            is_within = line[: match.start()].rstrip()[-1:] in (b":", b",", b"[")
            return found if not is_within or "stream" in found else None
    return None


def _shorten(text: bytes) -> str:
    return text[:40].decode(errors="replace")


def _measure_indent(line: bytes) -> int:
    return len(line) - len(line.lstrip())


class _Reader:
    """Turns lines into values, and text that is no value into problems."""

    def __init__(self) -> None:
        self._scanner = _Scanner()
        self._pending: list[tuple[int, bytes]] = []
        """The lines of the value that has begun."""
        self._skipped_indent: int | None = None
        """After a bad value over several lines: how far its first line was indented. Deeper lines belong to it."""
        self._printed: PrintedObject | None = None
        """The object that has begun, where it is one as Python prints it."""
        self._printed_indent = 0
        """How far the line on which it began is indented."""

    def read(self, lines: Iterator[bytes | Problem]) -> Iterator[Found]:
        waiting: deque[tuple[int, bytes]] = deque()
        for number, line in enumerate(lines, 1):
            if isinstance(line, Problem):
                yield Found(number, line)
            else:
                waiting.append((number, line))
            while waiting:
                yield from self._read_line(*waiting.popleft(), waiting)
        while self._pending:
            yield from self._give_up("the file ends within the value", waiting)
            while waiting:
                yield from self._read_line(*waiting.popleft(), waiting)
        if self._scanner.arrays:
            detail = "the array that begins here has no end: it was cut off, and what came behind is missing"
            yield Found(self._scanner.arrays[0], Problem("not_json", detail))

    def _read_line(self, number: int, line: bytes, waiting: deque[tuple[int, bytes]]) -> Iterator[Found]:
        text = line.strip()
        if self._printed is not None:
            yield from self._continue_printed(self._printed, number, line, waiting)
        elif self._pending:
            yield from self._scan(number, text[5:] if text.startswith(b"data:") else line, waiting)
        elif text.startswith(b":"):
            if _COMPLAINT.search(text):
                detail = f"the broker said {text[1:].strip()[:120].decode(errors='replace')!r}"
                yield Found(number, Problem("messages_dropped", f"{detail}: messages are missing here"))
        elif text.startswith(b"data:"):
            yield from self._begin(number, text[5:].strip(), waiting)
        elif text and not self._is_skipped(line, text) and not _FIELD.match(text):
            yield from self._begin(number, line, waiting)

    def _begin(self, number: int, line: bytes, waiting: deque[tuple[int, bytes]]) -> Iterator[Found]:
        """Read a line on which a value begins: whole, behind other text, or going on on the next line."""
        text = line.strip()
        found = parse(text)
        if isinstance(found, Problem):
            found = read_behind(text)
        if found is not None:
            yield Found(number, found)
        elif (printed := find_printed(line)) is not None:
            self._pending, self._printed_indent = [(number, line)], _measure_indent(line)
            yield from self._read_printed(printed, number, waiting)
        elif not text.startswith(_STARTS) or _CLOCK.match(text):
            yield Found(number, Problem("not_json", f"expected a JSON message, found {_shorten(text)!r}"))
        else:
            yield from self._scan(number, line, waiting)

    def _is_skipped(self, line: bytes, text: bytes) -> bool:
        if self._skipped_indent is None:
            return False
        if _measure_indent(line) > self._skipped_indent or text[:1] in (b"}", b"]"):
            return True
        self._skipped_indent = None
        return False

    def _continue_printed(
        self, printed: PrintedObject, number: int, line: bytes, waiting: deque[tuple[int, bytes]]
    ) -> Iterator[Found]:
        """Read on in an object as Python prints it, whose further lines are always indented further than its first."""
        self._pending.append((number, line))
        if _measure_indent(line) <= self._printed_indent or printed.length > VALUE_BYTES_MAX:
            yield from self._give_up("the object has no end", waiting)
            return
        printed.add(line)
        yield from self._read_printed(printed, number, waiting)

    def _read_printed(
        self, printed: PrintedObject | None, number: int, waiting: deque[tuple[int, bytes]]
    ) -> Iterator[Found]:
        """Yield the objects that end on the line that was read last, and keep the one that does not."""
        first, before = self._pending[0][0], None
        while printed is not None and printed.has_ended:
            found, is_last = printed.read(), printed.ends_line
            following = None if is_last else printed.find_next()
            if found is None or (following is None and not is_last):
                self._pending = [(number, before.rest)] if before is not None else self._pending
                yield from self._give_up("it is no object that Python prints either", waiting)
                return
            yield Found(first, found)
            first, before, printed = number, printed, following
        self._printed = printed
        if printed is None:
            self._pending = []
        elif before is not None:
            self._pending = [(number, before.rest)]

    def _scan(self, number: int, line: bytes, waiting: deque[tuple[int, bytes]]) -> Iterator[Found]:
        first = self._pending[0][0] if self._pending else number
        self._pending.append((number, line))
        try:
            for value in self._scanner.feed(line, number):
                yield Found(first, parse(value))
                first, self._pending = number, [(number, line)]
        except _Malformed as error:
            yield from self._give_up(str(error), waiting)
            return
        if not self._scanner.is_inside:
            self._pending = []

    def _give_up(self, reason: str, waiting: deque[tuple[int, bytes]]) -> Iterator[Found]:
        """Report the value that has begun as a problem, and read the lines after its first one again.

        A message that was written behind a torn one, on the same line, is read all the same.
        """
        (number, line), *rest = self._pending
        if not self._scanner.is_inside and self._scanner.arrays[-1:] == [number]:
            self._scanner.arrays.pop()  # What stands behind this bracket is text, so it is no array.
        waiting.extendleft(reversed(rest))
        self._scanner, self._pending, self._printed = _Scanner(self._scanner.arrays), [], None
        self._skipped_indent = _measure_indent(line) if rest else None
        where = f" in line {rest[-1][0]}" if rest else ""
        detail = f"expected a JSON message, found {_shorten(line.strip())!r} ({reason}{where})"
        yield Found(number, Problem("not_json", detail))
        if (found := _find_behind_torn(line.strip())) is not None:
            yield Found(number, found)
