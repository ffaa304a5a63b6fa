"""SQL over the tables of all teams, by DuckDB: exact decimals, whole lines only, read only.

The tables that a query names are written to a database in a temporary directory, which is opened read-only and without
access to other files. Memory stays bounded, and a query that reads a table twice sees the same rows twice.

Note: only the tables that the query names are loaded, because reading the events of years takes time.
"""

from __future__ import annotations

import re
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from compactor.core import CompactorError
from compactor.core.instants import rfc3339
from compactor.ledger import LedgerEntry
from compactor.ledger.compaction import Progress
from compactor.tables.arrow import MissingPackage, require_package
from compactor.tables.rows import LeftOut, TableSource
from compactor.tables.schema import TABLES, Table

BATCH_ROWS = 8192
_DESCRIBES = re.compile(r"\b(show|information_schema|duckdb_\w+|pragma|sqlite_master|pg_catalog)\b", re.IGNORECASE)
_READS = ("SELECT", "EXPLAIN", "PRAGMA", "MULTI", "RELATION", "LOGICAL_PLAN")
_STOP_SECONDS = 1.0
_THREAD = "compactor-sql"
_VERSION = 2
_QUIET = "set enable_progress_bar = false"
"""DuckDB would draw one of its own on a terminal, among the lines of the command."""
_SETTINGS = (_QUIET, "set TimeZone = 'UTC'", "set enable_external_access = false", "set lock_configuration = true")


class BadQuery(CompactorError):
    """The query is wrong, or would change something; the message is for people."""


class QueryFailed(CompactorError):
    """The query is valid and could not be completed: out of memory or disk space."""


class QueryResult(NamedTuple):
    """The names of a result's columns, which of them are numbers, and its rows with values as JSON has them.

    `left_out` has the team and the reason of each ledger that could not be read whole, or not as these types.
    """

    names: tuple[str, ...]
    numbers: frozenset[str]
    rows: Iterator[tuple[Any, ...]]
    left_out: Sequence[tuple[str, str]] = ()


def named_tables(query: str) -> list[Table]:
    """The tables that a query may read: those whose names stand in it, as whole words."""
    if _DESCRIBES.search(query):
        return list(TABLES.values())
    return [table for name, table in TABLES.items() if re.search(rf"\b{name}\b", query, re.IGNORECASE)]


@contextmanager
def run_query(
    query: str, entries: Sequence[LedgerEntry], text: frozenset[str] = frozenset(), progress: Progress | None = None
) -> Iterator[QueryResult]:
    """Run one statement that reads, over the tables of these ledgers; `text` names columns that are left as texts.

    Raises BadQuery, QueryFailed, Unfit, LedgerError, MissingPackage.
    """
    duckdb = _duckdb()
    with tempfile.TemporaryDirectory(prefix="compactor-sql-") as directory:
        database = Path(directory) / "tables.db"
        _check(duckdb, query)
        left_out: dict[tuple[str, str], None] = {}
        for table in named_tables(query):
            source = TableSource(table, entries, progress=progress, left_out=LeftOut())
            _load(duckdb, database, source, text)
            assert source.left_out is not None
            left_out.update({(entry.name, reason): None for entry, reason in source.left_out.reasons.items()})
        if not database.exists():
            duckdb.connect(str(database)).close()
        connection = duckdb.connect(str(database), read_only=True)
        try:
            for setting in _SETTINGS:
                connection.execute(setting)
            yield _run(duckdb, connection, query)._replace(left_out=list(left_out))
        finally:
            # A connection that was interrupted within a large step cannot be closed yet.
            with suppress(duckdb.Error):
                connection.close()


def _duckdb() -> Any:
    require_package("pyarrow", "compactor sql")
    duckdb = require_package("duckdb", "compactor sql")
    if int(duckdb.__version__.partition(".")[0]) < _VERSION:
        found = f"found {duckdb.__version__}, which cuts times to microseconds"
        advice = f"Install it: pip install --upgrade 'duckdb>={_VERSION}.0'"
        raise MissingPackage(f"compactor sql needs duckdb {_VERSION}.0 or later, {found}. {advice}")
    return duckdb


def _check(duckdb: Any, query: str) -> None:
    """Refuse anything but a single reading statement, before reading tables for it."""
    with duckdb.connect() as connection:
        try:
            statements = connection.extract_statements(query)
        except duckdb.Error as error:
            raise BadQuery(_message(error)) from None
    if len(statements) != 1:
        raise BadQuery(f"found {len(statements)} statements, expected one")
    kind = str(statements[0].type).rpartition(".")[2]
    if kind not in _READS:
        raise BadQuery(f"found a statement of the kind {kind}, expected one that only reads, such as select")


def _load(duckdb: Any, database: Path, source: TableSource, text: frozenset[str]) -> None:
    from compactor.tables.arrow import NARROW, Shape, batches, with_fitting_types

    arrow = require_package("pyarrow", "compactor sql")

    def attempt(shape: Shape) -> None:
        failure: list[BaseException] = []
        stream = arrow.RecordBatchReader.from_batches(shape.schema(), _kept(batches(source, shape), failure))
        with duckdb.connect(str(database)) as connection:
            connection.execute(_QUIET)
            connection.register("stream", stream)
            try:
                connection.execute(f"create or replace table {source.table.name} as from stream")
            except duckdb.Error as error:
                # DuckDB does not pass our exception on, so it was kept here.
                raise failure[0] if failure else QueryFailed(_message(error)) from None

    with_fitting_types(Shape(source.table, text, NARROW), attempt, source)


def _kept(stream: Iterator[Any], failure: list[BaseException]) -> Iterator[Any]:
    """The stream, and what stopped it: also a Ctrl-C, which DuckDB would take for a bad stream."""
    try:
        yield from stream
    except BaseException as error:
        failure.append(error)
        raise


def _run(duckdb: Any, connection: Any, query: str) -> QueryResult:
    reader = _interruptible(connection, lambda: _executed(duckdb, connection, query))
    schema = reader.schema
    names = _distinct(schema.names)
    numbers = frozenset(name for name, field in zip(names, schema, strict=True) if _is_number(field.type))

    def rows() -> Iterator[tuple[Any, ...]]:
        while (batch := _interruptible(connection, lambda: _next(duckdb, reader))) is not None:
            yield from zip(*(_values(column) for column in batch.columns), strict=True)

    return QueryResult(names, numbers, rows())


def _executed(duckdb: Any, connection: Any, query: str) -> Any:
    try:
        result = connection.sql(query)
        if result is None:
            raise BadQuery("the statement gives no rows, expected one that reads, such as select")
        # Older versions of DuckDB only have the second name.
        return (getattr(result, "to_arrow_reader", None) or result.fetch_arrow_reader)(BATCH_ROWS)
    except duckdb.Error as error:
        raise _failure(duckdb, error) from None


def _next(duckdb: Any, reader: Any) -> Any:
    try:
        return reader.read_next_batch()
    except StopIteration:
        return None
    except (duckdb.Error, OSError, ValueError) as error:
        raise _failure(duckdb, error) from None


def _failure(duckdb: Any, error: Exception) -> Exception:
    ours = (duckdb.IOException, duckdb.OutOfMemoryException, duckdb.InternalException, duckdb.FatalException)
    return (QueryFailed if isinstance(error, ours) else BadQuery)(_message(error))


def _message(error: Exception) -> str:
    return str(error).partition("Detail: Python exception")[0].strip()


def _interruptible(connection: Any, work: Callable[[], Any]) -> Any:
    """Do the work in a thread of its own, because DuckDB looks for a Ctrl-C only between large steps."""
    outcome: list[Any] = []

    def target() -> None:
        try:
            outcome.extend((work(), None))
        except BaseException as error:
            outcome.extend((None, error))

    thread = threading.Thread(target=target, name=_THREAD, daemon=True)
    thread.start()
    try:
        thread.join()
    except BaseException:
        connection.interrupt()
        thread.join(_STOP_SECONDS)
        raise
    value, error = outcome
    if error is not None:
        raise error
    return value


def is_still_running() -> bool:
    """Whether an interrupted query is still in a large step: Python would abort when it ends beside such a thread."""
    return any(thread.name == _THREAD for thread in threading.enumerate())


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The names, the second of two that are the same with a number behind it."""
    found: list[str] = []
    for name in names:
        candidate, number = name, 1
        while candidate in found:
            number += 1
            candidate = f"{name}_{number}"
        found.append(candidate)
    return tuple(found)


def _is_number(type_: Any) -> bool:
    from pyarrow import types

    return bool(types.is_integer(type_) or types.is_floating(type_) or types.is_decimal(type_))


def _values(column: Any) -> list[Any]:
    """The values of a column as JSON has them: decimals and times as texts, neither rounded nor cut."""
    import pyarrow as arrow
    from pyarrow import types

    if types.is_decimal(column.type):
        whole = column.type.scale == 0
        values = column.to_pylist()
        return [value if value is None else int(value) if whole else plain_all(value) for value in values]
    if types.is_timestamp(column.type) and column.type.unit == "ns":
        zone = "Z" if column.type.tz else ""
        return [ns if ns is None else rfc3339(ns)[:-1] + zone for ns in column.cast(arrow.int64()).to_pylist()]
    return [_value(value) for value in column.to_pylist()]


def plain_all(value: Any) -> str:
    """A decimal in plain notation with all its digits, without zeros at the end."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _value(value: Any) -> Any:
    """A value that JSON has no type for as the text that Python makes of it."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_value(one) for one in value] if isinstance(value, list) else str(value)
    if isinstance(value, dict):
        return {str(name): _value(one) for name, one in value.items()}
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
