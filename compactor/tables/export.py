"""Write a table as JSON lines, CSV or Parquet, streamed, to a file that is complete or absent.

JSON lines and CSV keep every number and time as it came and need the standard library only.

Invariant: a file of a ledger is never a target: `--out data/team/alice/events.jsonl` would replace the log.
"""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import msgspec

from compactor.core import CompactorError
from compactor.core.printable import escape_json
from compactor.ledger.paths import FINDINGS, LOG, PENDING, SEGMENTS, STATE, TRADES
from compactor.tables.rows import TableSource
from compactor.tables.schema import Row

FORMATS = ("jsonl", "csv", "parquet")
_OF_A_LEDGER = (LOG, PENDING, TRADES, FINDINGS, SEGMENTS, STATE)
_LINES_AT_ONCE = 512
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_FORMULA = re.compile(r"((?:^|[;\t\r\n])\s*)([=+\-@\uff1d\uff0b\uff0d\uff20])")


class Output(Protocol):
    """What a table is written to."""

    def write(self, data: bytes, /) -> object:
        """Write all of it."""


class BadTarget(CompactorError):
    """A path that an export must not write."""


def write_table(
    source: TableSource, format_: str, out: Output, text: frozenset[str] = frozenset(), *, exact: bool = False
) -> None:
    """Write all rows in a format; `text` names columns that Parquet is to have as texts.

    CSV is safe to open in a spreadsheet unless it is to be `exact`. Raises LedgerError, Unfit.
    """
    if format_ == "parquet":
        _write_parquet(source, cast(BinaryIO, out), text)
        return
    lines: list[bytes] = []
    for line in json_lines(source) if format_ == "jsonl" else _csv_lines(source, exact):
        lines.append(line)
        if len(lines) == _LINES_AT_ONCE:
            out.write(b"".join(lines))
            lines.clear()
    out.write(b"".join(lines))


def as_object(names: tuple[str, ...], documents: frozenset[str]) -> Callable[[Row], dict[str, object]]:
    """Return a function that turns a row into a JSON object: absent values are left out, documents are embedded."""

    def make(row: Row) -> dict[str, object]:
        return {
            name: msgspec.Raw(value.encode()) if name in documents else value
            for name, value in zip(names, row, strict=True)
            if value is not None
        }

    return make


def json_lines(source: TableSource) -> Iterator[bytes]:
    """Each row as a line of JSON."""
    table = source.table
    make = as_object(table.names, frozenset(column.name for column in table.columns if column.kind == "json"))
    encode = msgspec.json.Encoder().encode
    return (escape_json(encode(make(row))) + b"\n" for row in source)


def spreadsheet_safe(value: object) -> object:
    """A value that no spreadsheet takes for a formula: an apostrophe stands before what could begin one.

    Numbers stay as they are. A semicolon or a tab begins a cell in the spreadsheets of many countries.
    """
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        return value
    return _FORMULA.sub(r"\1'\2", value)


def _csv_lines(source: TableSource, exact: bool) -> Iterator[bytes]:
    """A header line, then each row as it came; absent values are empty, booleans are `true` or `false`."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    truths = {True: "true", False: "false"}
    is_truth = [index for index, column in enumerate(source.table.columns) if column.kind == "bool"]
    writer.writerow(source.table.names)
    for row in source:
        yield buffer.getvalue().encode()
        buffer.seek(0)
        buffer.truncate()
        values = list(row)
        for index in is_truth:
            values[index] = truths.get(values[index])
        writer.writerow(values if exact else map(spreadsheet_safe, values))
    yield buffer.getvalue().encode()


def _write_parquet(source: TableSource, out: BinaryIO, text: frozenset[str]) -> None:
    """Write Parquet. Only the last row tells whether the types fit: a file is written again, a pipe waits."""
    from compactor.tables.arrow import Shape, with_fitting_types

    is_file = os.path.isabs(str(getattr(out, "name", "")))
    with nullcontext(out) if is_file else tempfile.TemporaryFile() as file:

        def attempt(shape: Shape) -> None:
            import pyarrow.parquet as parquet

            from compactor.tables.arrow import batches

            file.seek(0)
            file.truncate()
            with parquet.ParquetWriter(file, shape.schema(), compression="zstd") as writer:
                for batch in batches(source, shape):
                    writer.write_batch(batch)

        with_fitting_types(Shape(source.table, text), attempt, source)
        file.seek(0)
        if file is not out:
            shutil.copyfileobj(file, out)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to that takes its name when all is written and durable, replacing what had it.

    Raises BadTarget. Whatever stops the writing leaves what was there before.
    """
    path = path.resolve()
    check_target(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _holds_key(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(12) == b"PRIVATE+KEY+"


def check_target(path: Path) -> None:
    """Refuse what is no regular file, and every file that belongs to a ledger. Raises BadTarget."""
    if path.exists() and not path.is_file():
        raise BadTarget(f"{path}: expected a file that may be written, found something else; name another file")
    if path.exists() and _holds_key(path):
        raise BadTarget(f"{path}: found a private signing key, which is never written over; name another file")
    if not path.parent.is_dir():
        raise BadTarget(f"{path.parent}: no such directory, expected one that the file can be made in")
    for directory in path.parents:
        name = path.relative_to(directory).parts[0]
        if name in _OF_A_LEDGER and ((directory / LOG).exists() or directory.parent.name == "team"):
            raise BadTarget(f"{path} belongs to the ledger in {directory}, and is never written by an export")
