"""The columns of the four tables, defined once for all formats: names, order and kinds of the fields.

`rows` reads rows; `arrow` gives them types.

Note: every value that is no `int` or `bool` is text here, as it came. Only formats with exact decimals and instants
convert it.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec

from compactor.core.events import DECIMALS

Kind = Literal["text", "decimal", "time", "int", "bool", "json"]
Row = tuple[Any, ...]
"""The values of one row in the order of its table's columns."""


class Column(NamedTuple):
    """A column by the name that its field has in format.md."""

    name: str
    kind: Kind


class Table(NamedTuple):
    """A table: the name that it has in SQL, its columns, and which of them says when a row happened."""

    name: str
    columns: tuple[Column, ...]
    time: str | None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(column.name for column in self.columns)

    def find(self, name: str) -> int:
        """The index of a column in a row."""
        return self.names.index(name)


_DECIMALS = frozenset((*DECIMALS, "execution_price"))
_TIMES = frozenset(("timestamp", "ts", "recorded_at", "created_at", "updated_at"))
_OTHERS: dict[str, Kind] = {
    "offset": "int", "length": "int", "applied": "bool", "extended_hours": "bool", "legs": "json", "raw": "json",
}  # fmt: skip


def _kind(name: str) -> Kind:
    if name in _DECIMALS:
        return "decimal"
    return "time" if name in _TIMES else _OTHERS.get(name, "text")


def _table(name: str, time: str | None, fields: str) -> Table:
    return Table(name, tuple(Column(field, _kind(field)) for field in fields.split()), time)


TRADES = _table(
    "trades",
    "timestamp",
    "trade_id team_id order_id symbol side quantity execution_price requested_price order_type timestamp"
    " broker_order_id client_order_id execution_id kind reverses corrects offset",
)
PENDING = _table(
    "pending_orders",
    "created_at",
    "order_id team_id symbol side quantity notional order_type limit_price stop_price trail_price trail_percent status"
    " filled_qty filled_avg_price time_in_force order_class position_intent extended_hours created_at updated_at"
    " broker_order_id client_order_id requested_price replaces replaced_by parent_order_id group_id group_role legs",
)
EVENTS = _table(
    "events",
    "ts",
    "team_id offset length event order_id ts recorded_at event_id order_status source reason symbol side quantity"
    " notional order_type time_in_force limit_price stop_price trail_price trail_percent order_class position_intent"
    " extended_hours client_order_id broker_order_id requested_price created_at replaces replaced_by parent_order_id"
    " group_id group_role legs execution_id previous_execution_id price qty filled_qty filled_avg_price to_team"
    " from_team raw",
)
FINDINGS = _table("findings", None, "team_id offset length kind applied detail line line_base64")

TABLES = {table.name: table for table in (TRADES, PENDING, EVENTS, FINDINGS)}
"""The tables by their names."""

_TYPES: dict[Kind, Any] = {"int": int | None, "bool": bool | None, "json": msgspec.Raw}


def line_type(table: Table) -> type[Any]:
    """The type that reads a line of JSON with the fields of a table; what a line does not have is None."""
    fields = [
        (column.name, msgspec.Raw, msgspec.Raw()) if column.kind == "json" else _optional(column)
        for column in table.columns
    ]
    return msgspec.defstruct(f"{table.name}_line", fields, gc=False)


def _optional(column: Column) -> tuple[str, Any, None]:
    return column.name, _TYPES.get(column.kind, str | None), None
