"""The rows of an answer in the format that was asked for: lines of the derived files as JSON, JSON lines or CSV.

Note: a line is passed on as it is, byte for byte, except for `numbers=json` and CSV; that of an order has its origin
added.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from compactor.core.printable import escape_json
from compactor.tables.export import spreadsheet_safe
from compactor.tables.schema import Table
from compactor.tracker.asked_orders import Origin

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_any = msgspec.json.Decoder(dict[str, Any], float_hook=str).decode
_encode = msgspec.json.Encoder().encode


def add_origin(line: bytes, origin: Origin | None) -> bytes:
    """The row of an order with where it came from, which no derived file has."""
    return line[: line.rindex(b"}")] + (b',"origin":"%b"}\n' % origin.encode() if origin is not None else b"}\n")


def make_line_converter(table: Table, numbers: str) -> Callable[[bytes], bytes]:
    """A function that turns a line of a derived file into a JSON object."""
    return make_converter(frozenset(column.name for column in table.columns if column.kind == "decimal"), numbers)


def make_converter(decimals: frozenset[str], numbers: str) -> Callable[[bytes], bytes]:
    """The same for any rows with these decimals."""
    if numbers != "json":
        return bytes.rstrip

    def convert(line: bytes) -> bytes:
        row = _decode(line)
        for name in decimals & row.keys():
            text = msgspec.json.decode(row[name], type=str | None)
            row[name] = msgspec.Raw(write_number(text) if text is not None else b"null")
        return _encode(row)

    return convert


def write_number(text: str) -> bytes:
    """A decimal as a JSON number with the same digits."""
    return format(Decimal(text), "f").encode()


def write_json_lines(lines: Iterable[bytes], convert: Callable[[bytes], bytes]) -> bytes:
    """One JSON object a line, safe to show in a terminal."""
    return b"".join(escape_json(convert(line)) + b"\n" for line in lines)


def write_csv(lines: Iterable[bytes], names: Sequence[str]) -> bytes:
    """A header and one row a line, safe to open in a spreadsheet; absent values are empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow(names)
    for line in lines:
        row = _decode_any(line)
        writer.writerow([spreadsheet_safe(_write_cell(row.get(name))) for name in names])
    return buffer.getvalue().encode()


def _write_cell(value: Any) -> object:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return _encode(value).decode() if isinstance(value, (list, dict)) else value
