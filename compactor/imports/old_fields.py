"""Read the fields of an old line in the ledger's own spelling: names, enums, sides, numbers, times.

Old programs wrote what their language printed: `BUY`, `OrderSide.BUY`, `CANCELED`, `PartiallyFilled`, `qty`.
"""

from __future__ import annotations

import re
from typing import Any

from compactor.broker.alpaca.event_fields import SIDES
from compactor.imports.dialects import NAMES, NOTHING, TEXTS, is_absent_zero, respell_value

SPELLINGS = {"qty": "quantity", "type": "order_type", "order_status": "status"}
"""Alpaca's names of fields that the old layout calls otherwise."""

_WITHOUT_OFFSET = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?")


def read_fields(found: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of an old line that have a value, under the old layout's names and in the ledger's spelling."""
    told = {name: value for name, value in found.items() if not _is_absent(name, value)}
    for theirs, ours in SPELLINGS.items():
        if theirs in told:
            told.setdefault(ours, told.pop(theirs))
    return {name: _read_value(name, value) for name, value in told.items() if not is_absent_zero(name, value)}


def simplify_term(name: str, value: Any) -> Any:
    """A term by which lines of one order can be compared, however each spells it: `BTC/USD` is `BTCUSD`."""
    return str(value).replace("/", "").upper() if name == "symbol" and value is not None else value


def _is_absent(name: str, value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, str) and value in NOTHING and name not in TEXTS)


def _read_value(name: str, value: Any) -> Any:
    """Turn a number into its text, a time without an offset into UTC, which old programs wrote, a name into ours."""
    if type(value) is int:
        return str(value)
    if not isinstance(value, str):
        return value
    if name in NAMES:
        text = respell_value(name, value.strip()).replace(" ", "_").replace("-", "_")
        return SIDES.get(text, text) if name == "side" else text
    if name == "symbol" and value.islower():
        return value.upper()
    return value + "Z" if _WITHOUT_OFFSET.fullmatch(value) else value
