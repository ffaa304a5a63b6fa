"""Add up the trades of one account, where several accounts share the ledgers: trades do not say where they were made.

The account of an order is known while the broker tells of it. So each trade is counted once, by the run that sees it
first, for the account that has its order; `CountedTrades` says how far each ledger was counted. A trade whose account
is not known yet waits, and its symbol is not compared meanwhile.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from decimal import Decimal
from pathlib import Path

import msgspec

from compactor.core import CompactorError
from compactor.core.decimals import exactly, parse_computed, plain
from compactor.core.instants import nanos
from compactor.ledger.paths import TRADES
from compactor.ledger.unlocked import whole_lines

FindHomes = Callable[[Collection[str]], Mapping[str, str]]
"""The account of each of some orders, as far as it is known; empty for an order that no account has."""


class TradesChanged(CompactorError):
    """The trades of a ledger are not those that were counted, for example after a restore."""


class TradedShares(msgspec.Struct):
    """What of a trade line moves a position."""

    trade_id: str = ""
    order_id: str = ""
    symbol: str | None = None
    side: str | None = None
    quantity: str = "0"
    timestamp: str | None = None

    @property
    def moved(self) -> Decimal:
        """Bought is above zero, sold below; a reversal is the other way round."""
        quantity = parse_computed(self.quantity)
        return quantity if self.side == "buy" else -quantity


class Ghosts(msgspec.Struct, frozen=True):
    """What becomes of trades of an order that no account has. They are too much in the ledgers, and the first account
    names them, unless they are older than the opening balance of any account: that of an account which was reset, and
    which nobody has any more, is recorded later than its trades. Until then, where `since` is None, they wait."""

    is_first: bool = False
    since: str | None = None

    @property
    def are_waiting(self) -> bool:
        return self.is_first and self.since is None

    def are_counted(self, trade: TradedShares) -> bool:
        """Whether a trade counts, if no account has its order."""
        if not self.is_first or self.since is None:
            return False
        return trade.timestamp is None or nanos(trade.timestamp) >= nanos(self.since)


class TradeMark(msgspec.Struct):
    """Up to where the trades of a ledger were counted: how many lines, and the id of the last one."""

    lines: int = 0
    last: str = ""


class CountedTrades(msgspec.Struct):
    """The trades that were counted for an account: the sum of each symbol, and those that wait, by order and symbol."""

    marks: dict[str, TradeMark] = {}
    sums: dict[str, str] = {}
    waiting: dict[str, dict[str, str]] = {}

    @property
    def waiting_symbols(self) -> set[str]:
        """The symbols of trades whose account is not known yet."""
        return {symbol for moved in self.waiting.values() for symbol in moved}

    def read_sums(self) -> dict[str, Decimal]:
        """What the trades of the account add up to, by symbol."""
        return {symbol: parse_computed(quantity) for symbol, quantity in self.sums.items()}

    def count(self, ledgers: Iterable[Path], account: str, find_homes: FindHomes, ghosts: Ghosts) -> None:
        """Count the trades that are new; those of orders which no account has as `ghosts` says.

        Raises TradesChanged and LedgerError.
        """
        with exactly():
            moved: dict[str, dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
            for order_id, waiting in self.waiting.items():
                for symbol, quantity in waiting.items():
                    moved[order_id][symbol] += parse_computed(quantity)
            paths, late = list(ledgers), set[str]()
            for name in self.marks.keys() - {path.name for path in paths}:
                raise _name_change(name, "the ledger is gone")
            for path in paths:
                for trade in self._read_new(path):
                    if trade.symbol is not None and trade.side is not None:
                        moved[trade.order_id][normalize_symbol(trade.symbol)] += trade.moved
                        late |= {trade.order_id} if ghosts.are_counted(trade) else set()
            homes = find_homes(moved) if moved else {}
            sums = defaultdict(Decimal, self.read_sums())
            for order_id, symbols in moved.items():
                if homes.get(order_id) == account or (homes.get(order_id) == "" and order_id in late):
                    for symbol, found in symbols.items():
                        sums[symbol] += found
            self.sums = {symbol: plain(found) for symbol, found in sums.items()}
            self.waiting = {
                order_id: {symbol: plain(found) for symbol, found in symbols.items()}
                for order_id, symbols in moved.items()
                if order_id not in homes or (homes[order_id] == "" and ghosts.are_waiting)
            }

    def _read_new(self, path: Path) -> Iterable[TradedShares]:
        mark = self.marks.get(path.name, TradeMark())
        number, last = 0, mark.last
        for number, line in enumerate(whole_lines(path / TRADES), 1):
            if number < mark.lines:
                continue
            trade = _decode(line)
            if number > mark.lines:
                last = trade.trade_id
                yield trade
            elif trade.trade_id != mark.last:
                raise _name_change(path.name, f"line {number} is trade {trade.trade_id}, expected {mark.last}")
        if number < mark.lines:
            raise _name_change(path.name, f"found {number} lines, expected at least {mark.lines}")
        self.marks = self.marks | {path.name: TradeMark(number, last)}


def normalize_symbol(symbol: str) -> str:
    """A pair with and without its slash is one symbol."""
    return symbol.replace("/", "")


def _name_change(ledger: str, found: str) -> TradesChanged:
    return TradesChanged(
        f"trades of {ledger}: {found}: these are not the trades that were counted for the positions, as after a "
        "restore. The next run that looks back a week records the opening balances anew; to do it now: "
        "compactor reconcile --once --record-positions"
    )


_decode = msgspec.json.Decoder(TradedShares).decode
