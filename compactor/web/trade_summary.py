"""Sum up trades by symbol and trading day: fills, quantities, values, and the slippage against the requested price.

Sums grow with the file: a line that was counted is not read again. Note: a reversal has a negative quantity and takes
back what it reverses, on the day of its own time.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from decimal import Decimal

import msgspec
from msgspec import Struct

from compactor.core.decimals import exactly, plain, quotient
from compactor.core.instants import BadInstant, nanos
from compactor.web.api_answers import SummaryRow
from compactor.web.trading_day import find_trading_day


class _TradeTerms(Struct, gc=False):
    quantity: str
    execution_price: str
    timestamp: str | None = None
    symbol: str | None = None
    side: str | None = None
    kind: str | None = None
    requested_price: str | None = None


_decode = msgspec.json.Decoder(_TradeTerms).decode


class _Sums(Struct):
    fills: int = 0
    bought: Decimal = Decimal(0)
    sold: Decimal = Decimal(0)
    bought_value: Decimal = Decimal(0)
    sold_value: Decimal = Decimal(0)
    slippage: Decimal = Decimal(0)
    requested_value: Decimal = Decimal(0)
    slippage_fills: int = 0


class TradeSummary:
    """The sums of one ledger, up to `position` in its file of trades."""

    def __init__(self) -> None:
        self.position = 0
        self._sums: dict[tuple[date, str], _Sums] = {}

    def add(self, lines: Iterable[bytes]) -> None:
        """Count the next lines in."""
        with exactly():
            for line in lines:
                self._add(line)
                self.position += len(line)

    def _add(self, line: bytes) -> None:
        trade = _decode(line)
        try:
            day = find_trading_day(nanos(trade.timestamp or ""))
        except (BadInstant, OverflowError):
            return
        quantity, price = Decimal(trade.quantity), Decimal(trade.execution_price)
        sums = self._sums.setdefault((day, trade.symbol or ""), _Sums())
        one = -1 if trade.kind == "reversal" else 1
        sums.fills += one
        is_buy = trade.side == "buy"
        if is_buy:
            sums.bought += quantity
            sums.bought_value += quantity * price
        else:
            sums.sold += quantity
            sums.sold_value += quantity * price
        if trade.requested_price is not None:
            requested = Decimal(trade.requested_price)
            worse = price - requested if is_buy else requested - price
            sums.slippage += worse * quantity
            sums.requested_value += requested * quantity
            sums.slippage_fills += one

    def list_rows(self, since: date | None, until: date | None, symbol: str | None) -> list[SummaryRow]:
        """The sums of the days from `since` to `until`, both included: newest day first, then by symbol."""
        wanted = [
            (day, name, sums)
            for (day, name), sums in self._sums.items()
            if (since is None or day >= since) and (until is None or day <= until) and symbol in (None, name)
        ]
        wanted.sort(key=lambda one: (-one[0].toordinal(), one[1]))
        with exactly():
            return [_make_row(*one) for one in wanted]


def _make_row(day: date, symbol: str, sums: _Sums) -> SummaryRow:
    requested, bps = abs(sums.requested_value), None
    if requested:
        bps = f"{quotient(sums.slippage * 10_000, requested):.2f}"
    return SummaryRow(
        day.isoformat(), symbol, sums.fills, plain(sums.bought), plain(sums.sold), plain(sums.bought - sums.sold),
        plain(sums.bought_value), plain(sums.sold_value), plain(sums.slippage), bps, sums.slippage_fills,
    )  # fmt: skip
