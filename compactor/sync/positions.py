"""Compare the positions at the broker with the sum of all trades: the one check that sees what no order list tells.

The first complete run records an opening balance per symbol: what the account held before the trades of the ledgers.
What these lack of orders that the broker told of is no part of it. From then on a position is `equal`, or `explained`
by something that moved shares and is no trade of an order (a split, an exercise, a fee taken in the asset), or it
`differs`.

Each account is compared by itself. Where there is only one, all trades are its own; with several, `account_trades` says
which are. A symbol to which something happened just now is compared the next time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Literal

import msgspec

from compactor.broker.port import Adjustment
from compactor.core.decimals import exactly, parse_computed, plain
from compactor.core.instants import nanos
from compactor.ledger.files import Files, replace
from compactor.ledger.paths import PRIVATE, TRADES
from compactor.ledger.unlocked import whole_lines
from compactor.sync.account_trades import (
    CountedTrades,
    FindHomes,
    Ghosts,
    TradedShares,
    TradesChanged,
    normalize_symbol,
)
from compactor.sync.compare import BrokerDifference
from compactor.sync.unbooked import Unbooked

FILE = "positions.json"
HOUR_SECONDS = 3600
ZERO = Decimal(0)
Quantities = Mapping[str, Decimal]
"""By symbol, without the slash of a pair; short positions are negative."""


class ComparedPosition(msgspec.Struct, frozen=True):
    """A position beside the trades. `by_trades` is what the trades add up to, `opening` what was there before them,
    `explained` what moved besides; the three together are `at_broker`, unless it `differs`."""

    account: str
    symbol: str
    kind: Literal["equal", "explained", "differs"]
    at_broker: str
    by_trades: str
    opening: str
    explained: str
    detail: str = ""


class _Recorded(msgspec.Struct):
    """What is remembered of an account. `counted` are its trades, where there are other accounts."""

    account_ids: list[str] = []
    recorded_at: str = ""
    opening: dict[str, str] = {}
    explained: dict[str, str] = {}
    kinds: dict[str, list[str]] = {}
    counted: CountedTrades | None = None
    unsettled: list[str] = []
    """The symbols without an opening balance yet, because they moved just then, or an order was not answered for;
    `tried_at` is when that was last tried."""
    tried_at: str = ""
    settled: dict[str, str] = {}
    """When those were recorded that were not recorded with all others."""

    def read_since(self, symbol: str) -> str:
        """When the opening balance of a symbol was recorded."""
        return self.settled.get(symbol, self.recorded_at)


class ComparedAccount(msgspec.Struct, frozen=True):
    """An account whose positions are compared: its name and id, and what it holds. With several accounts `find_homes`
    says which of them has an order, and `ghosts` what becomes of trades of an order that none has."""

    name: str
    account_id: str
    held: Quantities
    find_homes: FindHomes | None = None
    ghosts: Ghosts = Ghosts()


_decode_trade = msgspec.json.Decoder(TradedShares).decode
_decode = msgspec.json.Decoder(dict[str, _Recorded]).decode


def sum_trades(ledgers: Iterable[Path]) -> dict[str, Decimal]:
    """What the trades of some ledgers add up to, by symbol: bought is above zero, sold below. Raises LedgerError."""
    sums: dict[str, Decimal] = defaultdict(Decimal)
    with exactly():
        for path in ledgers:
            for line in whole_lines(path / TRADES):
                trade = _decode_trade(line)
                if trade.symbol is not None and trade.side is not None:
                    sums[normalize_symbol(trade.symbol)] += trade.moved
    return sums


class PositionBook:
    """The opening balances of a data directory, and comparing with them."""

    def __init__(self, data: Path) -> None:
        self._path = data / PRIVATE / FILE

    def compare(
        self,
        account: ComparedAccount,
        ledgers: Collection[Path],
        now: str,
        *,
        restless: Collection[str],
        read_adjustments: Callable[[str], Sequence[Adjustment] | None],
        may_record: bool,
        is_dry: bool = False,
        measure_unbooked: Callable[[], Unbooked] = Unbooked,
    ) -> list[ComparedPosition]:
        """Compare an account with the trades of all ledgers; to `restless` symbols something happened just now.

        Without an opening balance of the account nothing is compared, and one is recorded if `may_record`: of each
        symbol once it is quiet, and without what `measure_unbooked` says the trades lack. `is_dry` writes nothing.
        `read_adjustments` is asked, with the time of the opening balance, only where something differs.
        Raises LedgerError and TradesChanged.
        """
        recorded = self._read().get(account.name, _Recorded())
        at_broker = {normalize_symbol(symbol): quantity for symbol, quantity in account.held.items()}
        is_known = recorded.account_ids == [account.account_id]
        try:
            is_known = is_known and self._count(account, recorded, ledgers)
        except TradesChanged:
            if not may_record:
                raise
            is_known = False
        if not is_known:
            if may_record and not is_dry:
                self._record(account, ledgers, at_broker, now, restless, measure_unbooked())
            return []
        counted = recorded.counted
        by_trades = counted.read_sums() if counted is not None else sum_trades(ledgers)
        silent = {*restless, *(counted.waiting_symbols if counted is not None else ())}
        is_tried = bool(recorded.unsettled) and may_record and not is_dry
        if is_tried:
            self._settle(set(recorded.unsettled) - silent, recorded, at_broker, by_trades, now, measure_unbooked())
        silent.update(recorded.unsettled)
        symbols = sorted({*at_broker, *by_trades, *recorded.opening, *recorded.explained} - silent)
        with exactly():
            off = [one for one in symbols if self._find_gap(one, recorded, at_broker, by_trades)]
            moved = read_adjustments(recorded.recorded_at) if off else ()
            is_explained = bool(off and moved) and self._explain(off, moved or (), recorded, at_broker, by_trades)
            if (is_explained or is_tried or counted is not None) and not is_dry:
                self._write(account.name, recorded)
            if moved is None:
                return []  # Nobody can say whether it is explained.
            return [self._describe(account.name, one, recorded, at_broker, by_trades) for one in symbols]

    def _count(self, account: ComparedAccount, recorded: _Recorded, ledgers: Iterable[Path]) -> bool:
        """Count what is new for one of several accounts; whether what was recorded is of the same kind."""
        if account.find_homes is None:
            return recorded.counted is None
        if recorded.counted is None:
            return False
        recorded.counted.count(ledgers, account.name, account.find_homes, account.ghosts)
        return True

    def find_settled(self, account_ids: Mapping[str, str], names: Iterable[str]) -> str | None:
        """When the last of the opening balances of these accounts was recorded; None while one is missing, or is that
        of another account, which was there under this name before a reset."""
        known = self._read()
        found = [known.get(name, _Recorded()) for name in names]
        if any(one.account_ids != [account_ids.get(name)] for one, name in zip(found, names, strict=True)):
            return None
        return max((one.recorded_at for one in found), key=nanos)

    def find_unsettled(self, now: str) -> set[str]:
        """The accounts in which a symbol has no opening balance yet, and which were not tried for an hour. Only a run
        that looks back a week can record one: what was busted meanwhile must not be in it."""
        return {
            name for name, one in self._read().items()
            if one.unsettled and nanos(now) - nanos(one.tried_at) >= HOUR_SECONDS * 1_000_000_000
        }  # fmt: skip

    def forget(self) -> None:
        """Let the next complete run record the opening balances anew."""
        files = Files()
        if files.read(self._path) is not None:
            replace(files, self._path, [b"{}"])

    def _find_gap(self, symbol: str, recorded: _Recorded, at_broker: Quantities, by_trades: Quantities) -> Decimal:
        """What the broker has above everything that is known."""
        known = by_trades.get(symbol, ZERO) + _get(recorded.opening, symbol) + _get(recorded.explained, symbol)
        return at_broker.get(symbol, ZERO) - known

    def _explain(
        self, off: Sequence[str], moved: Sequence[Adjustment], recorded: _Recorded, at_broker: Quantities,
        by_trades: Quantities,
    ) -> bool:  # fmt: skip
        """Take in what moved shares besides trades, where that is the whole gap; whether anything was explained."""
        sums: dict[str, Decimal] = defaultdict(Decimal)
        kinds: dict[str, set[str]] = defaultdict(set)
        for one in moved:
            symbol = normalize_symbol(one.symbol)
            if nanos(one.at) >= nanos(recorded.read_since(symbol)):
                sums[symbol] += one.quantity
                kinds[symbol].add(one.kind)
        is_changed = False
        for symbol in off:
            recorded.kinds[symbol] = sorted(kinds[symbol])
            rest = at_broker.get(symbol, ZERO) - by_trades.get(symbol, ZERO) - _get(recorded.opening, symbol)
            if sums[symbol] and sums[symbol] == rest:
                recorded.explained[symbol] = plain(sums[symbol])
                is_changed = True
        return is_changed

    def _describe(
        self, name: str, symbol: str, recorded: _Recorded, at_broker: Quantities, by_trades: Quantities
    ) -> ComparedPosition:
        theirs, ours = at_broker.get(symbol, ZERO), by_trades.get(symbol, ZERO)
        opening, explained = _get(recorded.opening, symbol), _get(recorded.explained, symbol)
        gap = self._find_gap(symbol, recorded, at_broker, by_trades)
        kinds, detail, day = recorded.kinds.get(symbol, []), "", recorded.read_since(symbol)[:10]
        if gap:
            kind: Literal["equal", "explained", "differs"] = "differs"
            seen = f"; since then {', '.join(kinds)} moved shares as well" if kinds else ""
            detail = (
                f"account {name}, {symbol}: found {plain(theirs)} at the broker, expected {plain(theirs - gap)}: "
                f"trades of {plain(ours)}, an opening balance of {plain(opening)} on {day}, and "
                f"{plain(explained)} explained{seen}. An execution may be missing or be there twice; if older trades "
                "were imported since, record the opening balance anew: compactor reconcile --once --record-positions"
            )
        else:
            kind = "explained" if opening or explained else "equal"
            detail = ", ".join((["opening balance"] if opening else []) + (kinds if explained else []))
        return ComparedPosition(
            name, symbol, kind, plain(theirs), plain(ours), plain(opening), plain(explained), detail
        )

    def _record(
        self, account: ComparedAccount, ledgers: Collection[Path], at_broker: Quantities, now: str,
        restless: Collection[str], unbooked: Unbooked,
    ) -> None:  # fmt: skip
        """Record what was there before the trades; those whose account nobody knows any more are in it."""
        counted = None
        if account.find_homes is not None:
            counted = CountedTrades()
            counted.count(ledgers, account.name, account.find_homes, account.ghosts)
            counted.waiting = {}
            by_trades = counted.read_sums()
        else:
            by_trades = sum_trades(ledgers)
        unsettled = {*restless, *unbooked.unknown}
        recorded = _Recorded([account.account_id], now, counted=counted, unsettled=sorted(unsettled), tried_at=now)
        self._add_opening({*at_broker, *by_trades} - unsettled, recorded, at_broker, by_trades, unbooked)
        self._write(account.name, recorded)

    def _settle(
        self, symbols: Collection[str], recorded: _Recorded, at_broker: Quantities, by_trades: Quantities, now: str,
        unbooked: Unbooked,
    ) -> None:  # fmt: skip
        """Record the opening balances of symbols that could not be recorded before, and note that it was tried."""
        known = set(symbols) - unbooked.unknown if unbooked.is_complete else set()
        recorded.unsettled = sorted(set(recorded.unsettled) - known)
        recorded.settled |= dict.fromkeys(known, now)
        recorded.tried_at = now
        self._add_opening(known, recorded, at_broker, by_trades, unbooked)

    def _add_opening(
        self, symbols: Iterable[str], recorded: _Recorded, at_broker: Quantities, by_trades: Quantities,
        unbooked: Unbooked,
    ) -> None:  # fmt: skip
        with exactly():
            for symbol in sorted(symbols):
                booked = by_trades.get(symbol, ZERO) + unbooked.shares.get(symbol, ZERO)
                if gap := at_broker.get(symbol, ZERO) - booked:
                    recorded.opening[symbol] = plain(gap)

    def _read(self) -> dict[str, _Recorded]:
        """A file that is gone or damaged: the opening balances are recorded anew."""
        try:
            return _decode(Files().read(self._path) or b"{}")
        except (OSError, msgspec.DecodeError):
            return {}

    def _write(self, name: str, recorded: _Recorded) -> None:
        files = Files()
        files.make_directory(self._path.parent)
        replace(files, self._path, [msgspec.json.encode(self._read() | {name: recorded})])


class LookedIntoPositions:
    """The differences for which the orders of a week were looked at; a symbol is worth that once an hour at most, and
    not again while its difference stays."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[Decimal, float]] = {}

    def find_new(self, positions: Iterable[ComparedPosition], now: float) -> set[str]:
        """The accounts with a position whose difference is new; `now` is Unix seconds."""
        found = set()
        for one, gap in _list_gaps(positions):
            old, at = self._known.get((one.account, one.symbol), (ZERO, now - HOUR_SECONDS))
            if gap != old and now - at >= HOUR_SECONDS:
                found.add(one.account)
        return found

    def note(self, positions: Iterable[ComparedPosition], now: float) -> None:
        """The orders of a week were looked at, and this is what still differs."""
        self._known |= {(one.account, one.symbol): (gap, now) for one, gap in _list_gaps(positions)}


def _list_gaps(positions: Iterable[ComparedPosition]) -> list[tuple[ComparedPosition, Decimal]]:
    with exactly():
        return [
            (one, parse_computed(one.at_broker) - sum(map(parse_computed, (one.by_trades, one.opening, one.explained))))
            for one in positions
            if one.kind == "differs"
        ]


def list_differing(positions: Iterable[ComparedPosition]) -> list[BrokerDifference]:
    """The positions that differ, as differences that no event can put right."""
    found = [one for one in positions if one.kind == "differs"]
    return [BrokerDifference("position_differs", one.detail, account=one.account) for one in found]


def _get(found: Mapping[str, str], symbol: str) -> Decimal:
    return parse_computed(found[symbol]) if symbol in found else ZERO
