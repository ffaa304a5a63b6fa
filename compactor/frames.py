"""Trades, open orders, events and findings as data frames of polars, pandas or Arrow.

    from compactor.frames import trades

    trades("data", team="alpha").group_by("symbol").len()

Decimals are exact and times keep their nanoseconds; tables.md describes the columns. Needs the packages of the extra
`tables`.

Note: a data frame is held in memory whole. For more than that use `compactor export` or `compactor sql`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Literal

As = Literal["polars", "pandas", "arrow"]
Data = str | os.PathLike[str]

__all__ = ["events", "findings", "pending_orders", "trades"]


def trades(
    data: Data | None = None, team: str | None = None, as_: As = "polars", *,
    since: str | None = None, until: str | None = None, text: Iterable[str] = (),
) -> Any:  # fmt: skip
    """The trades of all teams, or of one, as of the last compact, in the order of their logs.

    `since` and `until` are times (RFC 3339) or days; `text` names columns to leave as texts. pandas gets columns of
    Arrow's types. Raises LedgerError, `compactor.tables.arrow.Unfit` for a value that no type holds, ImportError where
    the extra is missing, ValueError for a time that is none.
    """
    return _frame("trades", data, team, as_, since, until, text)


def pending_orders(
    data: Data | None = None, team: str | None = None, as_: As = "polars", *,
    since: str | None = None, until: str | None = None, text: Iterable[str] = (),
) -> Any:  # fmt: skip
    """The open orders as of the last compact, oldest first in each team; `since` and `until` are about `created_at`."""
    return _frame("pending_orders", data, team, as_, since, until, text)


def events(
    data: Data | None = None, team: str | None = None, as_: As = "polars", *,
    since: str | None = None, until: str | None = None, text: Iterable[str] = (),
) -> Any:  # fmt: skip
    """The events of the logs, sealed or not, in their order; `since` and `until` are about `ts`."""
    return _frame("events", data, team, as_, since, until, text)


def findings(
    data: Data | None = None, team: str | None = None, as_: As = "polars", *,
    since: str | None = None, until: str | None = None,
) -> Any:  # fmt: skip
    """What was unreadable or suspicious, as of the last compact."""
    return _frame("findings", data, team, as_, since, until, ())


def _frame(
    name: str, data: Data | None, team: str | None, as_: As, since: str | None, until: str | None, text: Iterable[str]
) -> Any:
    from compactor.ledger import NoLedger, discover
    from compactor.ledger.paths import LOG, resolve_data
    from compactor.tables.arrow import NARROW, WIDE, Shape, batches, require_package, with_fitting_types
    from compactor.tables.rows import TableSource, window
    from compactor.tables.schema import TABLES

    by = f"compactor.frames.{name}()"
    arrow = require_package("pyarrow", by)
    directory = resolve_data(data)
    entries = [entry for entry in discover(directory, team) if entry.problem is not None or (entry.path / LOG).exists()]
    if not entries:
        raise NoLedger(directory, "expected a data directory with team/<team_id>/events.jsonl in it, found no ledger")
    source = TableSource(TABLES[name], entries, window(since, until))
    # Polars has decimals of 38 digits.
    widths = NARROW if as_ == "polars" else WIDE
    table = with_fitting_types(
        Shape(source.table, frozenset(text), widths),
        lambda shape: arrow.Table.from_batches(batches(source, shape), schema=shape.schema()),
    )
    return _as(table, as_, by)


def _as(table: Any, as_: As, by: str) -> Any:
    from compactor.tables.arrow import require_package

    if as_ == "arrow":
        return table
    if as_ == "polars":
        return require_package("polars", by).from_arrow(table)
    if as_ == "pandas":
        pandas = require_package("pandas", f"{by} as pandas", "pandas")
        return table.to_pandas(types_mapper=pandas.ArrowDtype)
    raise ValueError(f"as_ is {as_!r}, expected 'polars', 'pandas' or 'arrow'")
