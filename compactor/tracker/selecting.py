"""Which trades a caller asks for, decided from a few fields of their lines."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from compactor.core.instants import nanos
from compactor.ledger.records import Instant


class _TradeGlance(msgspec.Struct, gc=False):
    timestamp: str
    symbol: str | None = None
    side: str | None = None


_decode = msgspec.json.Decoder(_TradeGlance).decode


def make_trade_filter(
    since: str | datetime | Instant | None,
    until: str | datetime | Instant | None,
    symbol: str | None,
    side: str | None,
) -> Callable[[bytes], bool] | None:
    """A function that says whether a line is wanted; None where all are. Raises ValueError for what is no time."""
    first, end = _read_instant(since), _read_instant(until)
    if first is None and end is None and symbol is None and side is None:
        return None

    def wants(line: bytes) -> bool:
        trade = _decode(line)
        if (symbol is not None and trade.symbol != symbol) or (side is not None and trade.side != side):
            return False
        if first is None and end is None:
            return True
        at = nanos(trade.timestamp)
        return (first is None or at >= first) and (end is None or at < end)

    return wants


def _read_instant(value: str | datetime | Instant | None) -> int | None:
    if value is None:
        return None
    if isinstance(value, Instant):
        return value.ns
    if isinstance(value, datetime) and value.tzinfo is None:
        raise ValueError(f"found a time without its zone, {value.isoformat()}; expected one with tzinfo")
    return nanos(value.isoformat() if isinstance(value, datetime) else value)
