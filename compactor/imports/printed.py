"""Read objects as Python prints them, in a log of a program or saved from a console, over one line or several.

Understood are dictionaries, within a class's name too (`Order({…})`, as alpaca-trade-api prints), objects printed by
their fields (`id=UUID('…') symbol='AAPL' …`, as alpaca-py prints), and in them the identifiers, decimals, times and
enums of Python.

Note: only literals are read. Nothing is imported or called, whatever the text holds.
"""

from __future__ import annotations

import ast
import json
import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from compactor.broker.port import parse
from compactor.core.events import LINE_BYTES_MAX

_BEGINNING = re.compile(rb"\{(?=\s*')|\b[A-Z]\w*\((?=[a-z_]+=)|\b(?:id|event)=(?=UUID\(|['<])")
_ENDS = re.compile(rb"[\s'\")>;,\]]*")
_LOGGED = re.compile(rb"(?P<before>[^{}\"]*?)(?P<list>\[\s*)?(?P<object>\{.*[}\]])[\s'\")>;,]*", re.DOTALL)
_TEXT = r"""'(?:[^'\\]++|\\.?)*+'?|"(?:[^"\\]++|\\.?)*+"?"""
"""A text in quotes. One without an end reaches to the end of what is searched, which is then searched only once."""
_TEXTS = re.compile(_TEXT)
_BRACKETS = re.compile(rf"{_TEXT}|(?P<opens>[{{(\[])|(?P<closes>[}})\]])".encode())
_BETWEEN_FIELDS = re.compile(rf"{_TEXT}|[{{(\[}})\]]|(?P<gap>\s(?=[a-z][a-z_]*=))")
_ENUM = re.compile(r"<\w+\.\w+: ('[^'\\]*')>")
_ZONE = re.compile(r"\bTzInfo\(([^()']*)\)")


class PrintedObject:
    """A printed object that is read line by line, from an offset in its first line."""

    length: int = 0
    """How many bytes of it have been read."""

    def __init__(self, line: bytes, start: int = 0) -> None:
        self._parts: list[bytes] = []
        self._depth = 0
        self._has_fields = line.startswith((b"id=", b"event="), start)
        self.add(line, start)

    def add(self, line: bytes, start: int = 0) -> None:
        """Read one more line."""
        self._line, self._end = line, len(line)
        for match in _BRACKETS.finditer(line, start):
            self._depth += (match["opens"] is not None) - (match["closes"] is not None)
            if self.has_ended and not self._has_fields:
                self._end = match.end()
                break
        self._parts.append(line[start : self._end])
        self.length += self._end - start

    @property
    def has_ended(self) -> bool:
        return self._depth == 0

    @property
    def ends_line(self) -> bool:
        """Whether only the ends of calls and lists stand behind the object."""
        return _ENDS.fullmatch(self._line, self._end) is not None

    @property
    def rest(self) -> bytes:
        """What stands behind the object on its last line."""
        return self._line[self._end :]

    def find_next(self) -> PrintedObject | None:
        """Find the next object that begins on the last line of this one."""
        return find_printed(self._line, self._end)

    def read(self) -> dict[str, Any] | None:
        """Read the whole object; None if it has not ended, or JSON cannot tell it."""
        return read_printed(b"".join(self._parts))


def find_printed(line: bytes, start: int = 0) -> PrintedObject | None:
    """Find the first printed object that begins in a line. Text in double quotes before it is of something else."""
    match = _BEGINNING.search(line, start)
    if match is None or line.find(b'"', start, match.start()) >= 0:
        return None
    return PrintedObject(line, match.start())


def read_whole(text: bytes) -> dict[str, Any] | None:
    """Read a text that ends with the first printed object in it; None for any other."""
    printed = find_printed(text)
    return printed.read() if printed is not None and printed.ends_line else None


def read_behind(text: bytes) -> Any:
    """Read what stands behind a time and a level, as loggers print it; None if that is no object or list of them.

    An object is JSON, or as Python prints it; a list is JSON.
    """
    match = _LOGGED.fullmatch(text)
    if match is None or not match["before"].strip(b"[], \t:"):
        return None  # Without text before it, it is an array, or within one.
    if match["list"] is not None:
        found = parse(text[match.start("list") : match.end("object")])
        return found if isinstance(found, list) else None
    found = parse(match["object"])
    return found if isinstance(found, dict) else read_printed(match["object"])


def read_printed(text: bytes) -> dict[str, Any] | None:
    """Read one object as Python prints it; None for what is none, or what JSON cannot tell."""
    found = _read_literal(text)
    return found if isinstance(found, dict) else None


def read_text(text: str) -> Any:
    """Read an object or a list that was written as a text: JSON once more, or as Python prints it; None for others."""
    content = text.encode(errors="surrogatepass")
    found = parse(content) if text.lstrip()[:1] in ("{", "[") else None
    if isinstance(found, dict | list):
        return found
    if text.lstrip().startswith("["):
        listed = _read_literal(content)
        if isinstance(listed, list):
            return listed
    return read_whole(content) or read_behind(content)


def _read_literal(text: bytes) -> Any:
    if len(text) > LINE_BYTES_MAX:
        return None
    try:
        source = _ZONE.sub(r"TzInfo('\1')", _ENUM.sub(r"\1", text.decode()))
        if _has_prefixed_text(source):
            return None
        if source.startswith(("id=", "event=")):
            source = f"Fields({_separate_fields(source)})"
        return parse(json.dumps(_evaluate(ast.parse(source.strip(), mode="eval").body)).encode())
    except (
        ValueError,
        TypeError,
        SyntaxError,
        OverflowError,
        MemoryError,
        RecursionError,
        OSError,
        ZoneInfoNotFoundError,
    ):
        return None


def _has_prefixed_text(source: str) -> bool:
    """Whether a text in quotes is formatted (`f'…'`) or raw: Python prints none, and can take minutes to parse one."""
    return any(source[one.start() - 1 : one.start()] in ("f", "F", "r", "R") for one in _TEXTS.finditer(source))


def _separate_fields(source: str) -> str:
    """Put commas between the fields of an object, which its printed form has not."""
    parts, depth, start = [], 0, 0
    for match in _BETWEEN_FIELDS.finditer(source):
        depth += (match[0] in "{([") - (match[0] in "})]")
        if match["gap"] is not None and depth == 0:
            parts.append(source[start : match.start()])
            start = match.end()
    return ", ".join([*parts, source[start:]])


def _evaluate(node: ast.expr) -> Any:
    """Evaluate a literal to what JSON can tell. Raises ValueError for anything else."""
    match node:
        case ast.Constant(value=str() | int() | float() | None as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.Dict(keys=keys, values=values):
            return {_evaluate_key(key): _evaluate(value) for key, value in zip(keys, values, strict=True)}
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_evaluate(item) for item in items]
        case ast.Attribute(value=ast.Name(id=owner), attr=name):
            return f"{owner}.{name}"  # A member of an enum.
        case ast.Call(args=args, keywords=keywords) if _get_name(node.func) == "datetime":
            options = {one.arg: one.value for one in keywords}
            zone = _evaluate_zone(options.pop("tzinfo")) if "tzinfo" in options else None
            others = {str(name): ast.literal_eval(value) for name, value in options.items()}
            return datetime(*map(ast.literal_eval, args), **others, tzinfo=zone).isoformat()  # type: ignore[misc]
        case ast.Call(args=[], keywords=[_, *_] as keywords):
            return {str(one.arg): _evaluate(one.value) for one in keywords}
        case ast.Call(args=[inner]):
            return _evaluate(inner)  # An identifier, a decimal, or an object around a dictionary.
    raise ValueError("no literal")


def _evaluate_key(key: ast.expr | None) -> str:
    if isinstance(key, ast.Constant) and isinstance(key.value, str):
        return key.value
    raise ValueError("no text as a key")


def _get_name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _evaluate_zone(node: ast.expr) -> tzinfo:
    if isinstance(node, ast.Attribute) and node.attr == "utc":
        return UTC
    if not isinstance(node, ast.Call):
        raise ValueError("no zone")
    arguments = [*node.args, *(one.value for one in node.keywords)]
    match _get_name(node.func), arguments:
        case "tzutc", []:
            return UTC
        case "TzInfo", [ast.Constant(value=str() as offset)]:
            return _read_offset(offset)
        case "ZoneInfo", [ast.Constant(value=str() as key)]:
            return ZoneInfo(key)
        case "timezone", [ast.Call(args=args, keywords=keywords)]:
            numbers = {str(one.arg): ast.literal_eval(one.value) for one in keywords}
            return timezone(timedelta(*map(ast.literal_eval, args), **numbers))
    raise ValueError("an unknown zone")


def _read_offset(offset: str) -> tzinfo:
    """Read an offset as pydantic prints it: `UTC`, a number of seconds, or `-04:00`."""
    if offset == "UTC":
        return UTC
    if re.fullmatch(r"-?[0-9]+", offset):
        return timezone(timedelta(seconds=int(offset)))
    found = datetime.fromisoformat(f"2000-01-01T00:00:00{offset}").tzinfo
    if found is None:
        raise ValueError("no offset")
    return found
