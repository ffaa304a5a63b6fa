"""What DuckDB makes of a log: the rules of format.md once more, in another language, by other people's arithmetic.

The rules stand in `oracle.sql`; this module runs them. The log is split,
 read as JSON and folded in SQL; nothing of the product is used, not even its tables. It covers what
clean logs and the sample have: duplicates, terms, ends of orders, fills in any order, corrections and busts behind
their fills, replaced orders, multi-leg fills, a snapshot with the fills that explain it later, statuses nobody has
heard of, torn lines. It does not cover sections 4.3 to 4.5 in full, `restated`, requests that are rejected, findings,
and fused lines. Note: everything is a set of rows at once, so that "until then" is a comparison of offsets.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

SQL = Path(__file__).with_suffix(".sql")
Rows = list[dict[str, Any]]


def ask(data: Path) -> tuple[Rows, Rows]:
    """The trades and the open orders of all logs below `data`, in the order of the files; what is computed comes in
    billionths."""
    with duckdb.connect() as connection:
        connection.execute(f"set variable logs = '{data}/team/*/events.jsonl'")
        connection.execute(SQL.read_text())
        return _rows(connection, "trade"), _rows(connection, "pending")


def _rows(connection: Any, table: str) -> Rows:
    connection.execute(f"select * from {table}")
    names = [column[0] for column in connection.description]
    return [dict(zip(names, row, strict=True)) for row in connection.fetchall()]
