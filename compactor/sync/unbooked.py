"""What the trades of some ledgers have less than the broker says is filled of the orders that it told of, by symbol.

After a reconcile that is nothing, but where no event can put an order right: an inferred trade whose execution was
taken back before anybody heard of it, say. An opening balance must not hide such shares, or it is wrong for good once
they are booked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from decimal import Decimal
from pathlib import Path

import msgspec

from compactor.broker.port import Fields
from compactor.core.decimals import exactly, parse_computed, parse_decimal
from compactor.ledger.paths import TRADES
from compactor.ledger.unlocked import whole_lines
from compactor.sync.account_trades import TradedShares, normalize_symbol
from compactor.sync.plan import Answers

ZERO = Decimal(0)


class Unbooked(msgspec.Struct, frozen=True):
    """`shares` that are not booked, by symbol: bought above zero, sold below, and the other way round where too much is
    booked. `unknown` are the symbols of orders for which nobody answered; without `is_complete` these are not all."""

    shares: dict[str, Decimal] = {}
    unknown: frozenset[str] = frozenset()
    is_complete: bool = True


def measure_unbooked(
    answers: Answers, order_ids: Collection[str], unasked: Collection[str], ledgers: Iterable[Path]
) -> Unbooked:
    """Compare some orders of the answers with the trades as they are now; about those of `unasked` nobody could be
    asked. Raises LedgerError."""
    orders = {order_id: one for order_id, one in answers.orders.items() if order_id in order_ids}
    earlier = {str(one["replaces"]) for one in orders.values() if one.get("replaces")}
    booked, symbols = _sum_orders(ledgers, {*orders, *earlier, *unasked})
    symbols |= {order_id: str(fills[0]["symbol"]) for order_id, fills in answers.fills.items() if "symbol" in fills[0]}
    shares: dict[str, Decimal] = defaultdict(Decimal)
    with exactly():
        for order_id, order in orders.items():
            if order.get("symbol") and order.get("side") and order.get("filled_qty") is not None:
                rest = _find_missing(order, booked[order_id], answers, booked)
                shares[normalize_symbol(order["symbol"])] += rest if order["side"] == "buy" else -rest
    unknown = frozenset(normalize_symbol(symbols[one]) for one in unasked if one in symbols)
    missing = {symbol: quantity for symbol, quantity in shares.items() if quantity}
    return Unbooked(missing, unknown, symbols.keys() >= set(unasked))


def _find_missing(order: Fields, booked: Decimal, answers: Answers, all_booked: dict[str, Decimal]) -> Decimal:
    """How much of an order is filled and not booked; what it counts of the order that it replaces is not its own."""
    missing = parse_decimal(str(order["filled_qty"])) - booked
    earlier = str(order.get("replaces") or "")
    if not earlier or not missing:
        return missing
    told = answers.orders.get(earlier, {}).get("filled_qty")
    carried = parse_decimal(str(told)) if told is not None else all_booked[earlier]
    return ZERO if missing == carried else missing


def _sum_orders(ledgers: Iterable[Path], order_ids: Collection[str]) -> tuple[dict[str, Decimal], dict[str, str]]:
    """How much the trades have of each of some orders, and the symbol of each that has trades."""
    sums: dict[str, Decimal] = defaultdict(Decimal)
    symbols: dict[str, str] = {}
    with exactly():
        for path in ledgers:
            for line in whole_lines(path / TRADES):
                trade = _decode(line)
                if trade.order_id in order_ids:
                    sums[trade.order_id] += parse_computed(trade.quantity)
                    if trade.symbol is not None:
                        symbols[trade.order_id] = trade.symbol
    return sums, symbols


_decode = msgspec.json.Decoder(TradedShares).decode
