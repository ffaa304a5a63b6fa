"""The derived lines of format.md section 5 (their fields and their encoding) and the totals of a ledger.

The order of the fields here is their order in the files. Fields that are None are not written.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from compactor.core.lifecycle import LIFE


class TradeLine(Struct, gc=False, omit_defaults=True):
    """One line of `trades.jsonl`. `quantity` is negative for a reversal; decimals and times are texts as they came."""

    trade_id: str
    team_id: str
    order_id: str
    symbol: str | None
    side: str | None
    quantity: str
    execution_price: str
    requested_price: str | None = None
    order_type: str | None = None
    timestamp: str | None = None
    broker_order_id: str | None = None
    client_order_id: str | None = None
    execution_id: str | None = None
    kind: str | None = None
    reverses: str | None = None
    corrects: str | None = None
    offset: int | None = None


class Finding(Struct, frozen=True, gc=False, omit_defaults=True):
    """One line of `findings.jsonl`: what was unreadable (`applied` false, with the line) or suspicious (`applied`
    true)."""

    offset: int
    length: int
    kind: str
    applied: bool
    detail: str
    line: str | None = None
    line_base64: str | None = None


class PendingLine(Struct, gc=False, omit_defaults=True):
    """One line of `pending_orders.jsonl`: an open order, with what is known of it."""

    order_id: str
    team_id: str
    symbol: str | None = None
    side: str | None = None
    quantity: str | None = None
    notional: str | None = None
    order_type: str | None = None
    limit_price: str | None = None
    stop_price: str | None = None
    trail_price: str | None = None
    trail_percent: str | None = None
    status: str | None = None
    filled_qty: str | None = None
    filled_avg_price: str | None = None
    time_in_force: str | None = None
    order_class: str | None = None
    position_intent: str | None = None
    extended_hours: bool | None = None
    created_at: str | None = None
    updated_at: str | None = None
    broker_order_id: str | None = None
    client_order_id: str | None = None
    requested_price: str | None = None
    replaces: str | None = None
    replaced_by: str | None = None
    parent_order_id: str | None = None
    group_id: str | None = None
    group_role: str | None = None
    legs: list[Any] | None = None


FINDING_ORDER = {
    kind: rank
    for rank, kind in enumerate(
        (
            "late_fill",
            "reopened",
            "alive_after_end",
            "unknown_status",
            "calculated_open",
            "conflicting_fill",
            "fill_without_terms",
            "overfill",
            "fill_gap",
            "missing_field",
            "snapshot_behind",
            "correct_after_bust",
            "assigned_away",
            "assigned_too_often",
            "future_timestamp",
        )
    )
}
"""Sort key of the findings of one event: the order of the rules that make them."""


class Lines(NamedTuple):
    """Whole lines of trades and findings, ready to be appended to their files."""

    trades: bytes
    findings: bytes


encode_lines = msgspec.json.Encoder().encode_lines
"""Encode derived lines, each terminated by a newline."""


class Counts(Struct):
    """Totals of a ledger since the first byte of its log."""

    events: int = 0
    trades: int = 0
    findings: int = 0
    kinds: dict[str, int] = {}
    """Events by name. Names outside the life cycle are counted as `other`, which bounds the number of keys."""

    def add(self, numbers: Mapping[str, int]) -> None:
        """Count applied events, given as a number for each name."""
        for name, number in numbers.items():
            kind = name if name in LIFE else "other"
            self.kinds[kind] = self.kinds.get(kind, 0) + number
            self.events += number
