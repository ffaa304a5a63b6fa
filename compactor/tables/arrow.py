"""Turn rows into record batches of Arrow: exact decimals, instants to the nanosecond, a few thousand rows at once.

A decimal column is `decimal128(38, 9)`, and wider only where a value needs it. A time is `timestamp[ns, UTC]`, with a
column `<name>_zone` beside it that keeps the offset as it was written.

Invariant: no value is rounded, cut or dropped without a word. One that no type holds raises `Unfit`, which names the
line; the column can be left as text instead. Arrow parses decimals of short texts only, because it overflows silently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from importlib import import_module
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from compactor.core import CompactorError
from compactor.core.decimals import BadDecimal, parse_computed
from compactor.core.instants import BadInstant, nanos
from compactor.ledger import LedgerEntry
from compactor.tables.rows import TableSource
from compactor.tables.schema import Column, Row, Table

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

NARROW = ((38, 9), (38, 18))
"""Precision and scale of the decimals that every program reads, in the order in which they are tried. Nine places are
the finest that is known; a product of two such columns still fits into 38 digits."""
WIDE = (*NARROW, (76, 38))
ALL_COLUMNS = "all"
"""The name that stands for every column in `Shape.text`."""
BATCH_ROWS = 8192
BATCH_BYTES = 1 << 24
"""About how much text a batch may hold, since a broker's raw message has up to a mebibyte."""
_SHORT = r"^-?[0-9]{1,20}(\.[0-9]{1,9})?$"
_NS_MAX = 2**63 - 1


class Unfit(CompactorError):
    """A value that no type of its column holds. The message names the line, what was found and what to do."""

    def __init__(self, message: str, entry: LedgerEntry) -> None:
        super().__init__(message)
        self.entry = entry


class _Wider(Exception):
    """A value needs the next wider type of its column."""

    def __init__(self, column: str) -> None:
        self.column = column


class Shape(NamedTuple):
    """The types of the columns of a table: which are left as texts, and how wide the decimals are so far."""

    table: Table
    text: frozenset[str] = frozenset()
    widths: tuple[tuple[int, int], ...] = WIDE
    steps: tuple[tuple[str, int], ...] = ()

    def width(self, column: str) -> tuple[int, int]:
        """Precision and scale of a decimal column."""
        return self.widths[dict(self.steps).get(column, 0)]

    def widened(self, column: str) -> Shape:
        """The same with the next wider type for one column."""
        steps = dict(self.steps)
        return self._replace(steps=tuple({**steps, column: steps.get(column, 0) + 1}.items()))

    def is_widest(self, column: str) -> bool:
        """Whether a column has no wider type."""
        return dict(self.steps).get(column, 0) + 1 == len(self.widths)

    def kind(self, column: Column) -> str:
        """The kind of a column, with numbers and times that are left as texts."""
        is_left = column.name in self.text or ALL_COLUMNS in self.text
        return "text" if is_left and column.kind in ("decimal", "time") else column.kind

    def schema(self) -> pa.Schema:
        """The schema of Arrow."""
        return _pyarrow().schema(list(chain.from_iterable(map(self.fields, self.table.columns))))

    def fields(self, column: Column) -> Iterator[tuple[str, Any]]:
        """The fields of Arrow for a column, with their types: a time has two."""
        arrow = _pyarrow()
        kind = self.kind(column)
        if kind == "decimal":
            precision, scale = self.width(column.name)
            yield column.name, (arrow.decimal128 if precision <= 38 else arrow.decimal256)(precision, scale)
        elif kind == "time":
            yield column.name, arrow.timestamp("ns", "UTC")
            yield f"{column.name}_zone", arrow.string()
        else:
            yield column.name, {"int": arrow.int64(), "bool": arrow.bool_()}.get(kind, arrow.string())


def with_fitting_types(shape: Shape, attempt: Callable[[Shape], T], source: TableSource | None = None) -> T:
    """Call `attempt` with a shape, and again with a wider one for each column that turns out to be too narrow.

    With a source that may leave ledgers out, also again without each ledger that holds an unfit value or could not be
    read to its end, so that no row of it is in the result.
    """
    left_out = source.left_out if source is not None else None
    while True:
        before = len(left_out.reasons) if left_out is not None else 0
        try:
            result = attempt(shape)
        except _Wider as wider:
            shape = shape.widened(wider.column)
            continue
        except Unfit as unfit:
            if source is None or left_out is None:
                raise
            left_out.add(unfit.entry, unfit, source.entries)
            continue
        if left_out is None or len(left_out.reasons) == before:
            return result


def batches(source: TableSource, shape: Shape) -> Iterator[pa.RecordBatch]:
    """The rows of a source in batches. Raises Unfit; within `with_fitting_types` only."""
    arrow = _pyarrow()
    schema = shape.schema()
    for rows in _pieces(source, shape.table):
        arrays: list[Any] = []
        for column, values in zip(shape.table.columns, zip(*rows, strict=True), strict=True):
            try:
                arrays += _arrays(shape, column, values)
            except _Odd as odd:
                row = rows[odd.index]
                raise Unfit(_unfit(source, shape, column, row), source.find_entry(row)) from None
        yield arrow.RecordBatch.from_arrays(arrays, schema=schema)


def _pieces(rows: Iterable[Row], table: Table) -> Iterator[Sequence[Row]]:
    """Group rows into batches of bounded memory, by the length of their lines where a row has it."""
    if "length" not in table.names:
        rest = iter(rows)
        while rows_at_once := list(islice(rest, BATCH_ROWS)):
            yield rows_at_once
        return
    length = table.find("length")
    piece: list[Row] = []
    size = 0
    for row in rows:
        piece.append(row)
        size += row[length]
        if len(piece) == BATCH_ROWS or size > BATCH_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


class _Odd(Exception):
    """The value at this index fits no type."""

    def __init__(self, index: int) -> None:
        self.index = index


def _arrays(shape: Shape, column: Column, values: tuple[Any, ...]) -> list[pa.Array]:
    arrow = _pyarrow()
    kind = shape.kind(column)
    if values.count(None) == len(values):
        # Most columns of most events.
        return [arrow.nulls(len(values), type_) for _, type_ in shape.fields(column)]
    if kind == "decimal":
        return [_decimals(shape, column, values)]
    if kind == "time":
        zones = [text if text is None else text[-1] if text[-1] in "Zz" else text[-6:] for text in values]
        return [_instants(values), arrow.array(zones, arrow.string())]
    return [arrow.array(values, {"int": arrow.int64(), "bool": arrow.bool_()}.get(kind, arrow.string()))]


def _decimals(shape: Shape, column: Column, values: tuple[str | None, ...]) -> pa.Array:
    import pyarrow.compute as compute

    arrow = _pyarrow()
    type_ = next(type_ for _, type_ in shape.fields(column))
    texts = arrow.array(values, arrow.string())
    if compute.all(compute.match_substring_regex(texts, _SHORT)).as_py() is not False:
        return texts.cast(type_)
    precision, scale = shape.width(column.name)
    found = []
    for index, text in enumerate(values):
        try:
            value = None if text is None else parse_computed(text)
        except BadDecimal:
            raise _Odd(index) from None
        if value is not None and not _fits(value, precision, scale):
            raise _Odd(index) if shape.is_widest(column.name) else _Wider(column.name)
        found.append(value)
    return arrow.array(found, type_)


def _fits(value: Decimal, precision: int, scale: int) -> bool:
    """Whether the digits before and behind the point have room; zeros at the end need none."""
    _sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    last = len(digits)
    while exponent < 0 and last and digits[last - 1] == 0:
        last, exponent = last - 1, exponent + 1
    return -exponent <= scale and last + exponent <= precision - scale


def _instants(values: tuple[str | None, ...]) -> pa.Array:
    arrow = _pyarrow()
    type_ = arrow.timestamp("ns", "UTC")
    try:
        return arrow.array(values, arrow.string()).cast(type_)
    except arrow.ArrowInvalid:
        # A leap second, a small `z`, or a year that 64 bits of nanoseconds do not reach.
        found = [_nanos(index, text) for index, text in enumerate(values)]
    return arrow.array(found, arrow.int64()).cast(type_)


def _nanos(index: int, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        ns = nanos(text)
    except BadInstant:
        raise _Odd(index) from None
    if not -_NS_MAX <= ns <= _NS_MAX:
        raise _Odd(index)
    return ns


def _unfit(source: TableSource, shape: Shape, column: Column, row: Row) -> str:
    if column.kind == "time":
        expected = "a time between the years 1678 and 2262, as timestamp[ns] has them"
    else:
        precision, scale = shape.width(column.name)
        expected = f"at most {precision - scale} digits before the point and {scale} behind it"
    found = row[shape.table.find(column.name)]
    what = f"{source.describe_row(row)}: `{column.name}` is {found}, expected {expected}"
    return f"{what}. Nothing is ever rounded: leave that column as text with --text {column.name}"


def _pyarrow() -> Any:
    import pyarrow

    return pyarrow


class MissingPackage(CompactorError, ImportError):
    """A command or function needs a package that is not installed; the message says how to install it."""


TABLE_PACKAGES = "'duckdb>=2.0' 'polars>=1.20' 'pyarrow>=16'"
"""The arguments of `pip install`. Note: advice names packages, because `compactor` is another project there."""


def require_package(name: str, by: str, install: str = TABLE_PACKAGES) -> Any:
    """Import an optional package. Raises MissingPackage."""
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingPackage(
            f"{by} needs {name}, which is not installed ({error}). Install it: pip install {install}"
        ) from None
