"""Gathers what all ledgers together know of the orders that a reconcile looks at, and whose each of them is.

What differs is for `broker.reconcile` to find. The rule that surprises: what an order was that has ended without a
trade stands in the log alone. The logs are read for it only where the broker has an order that nothing else here knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from compactor.books.ownership import holder_of, relations_of
from compactor.core.decimals import decimal_of, exactly
from compactor.core.derived import Finding
from compactor.core.lines import read_line
from compactor.imports.writer import known_events
from compactor.ledger import Ledger
from compactor.ledger.paths import LOG, TRADES
from compactor.ledger.reading import whole_lines
from compactor.sync.compare import Known, is_open
from compactor.sync.plan import Answers, View, orders_wanted

Away = Mapping[str, Mapping[str, str]]
"""For each team the orders that its ledger was told to be another's (rule 4.12), and whose."""

_ASSIGNED = b'"assigned"'


class AwayReader:
    """Keeps current which orders have been assigned away from which ledger; a call costs what the logs have grown."""

    def __init__(self) -> None:
        self._known: dict[Path, _AwayFrom] = {}

    def read(self, ledgers: Mapping[str, Ledger]) -> Away:
        """As of now, by team. Raises LedgerError."""
        return {team: self._read(team, ledger) for team, ledger in ledgers.items()}

    def _read(self, team: str, ledger: Ledger) -> Mapping[str, str]:
        inode = (ledger.path / LOG).stat().st_ino
        known = self._known.get(ledger.path)
        if known is None or known.inode != inode:
            known = self._known[ledger.path] = _AwayFrom(inode)
        rest = b""
        for piece in ledger.cat(known.offset):
            known.offset += len(piece)
            whole, newline, rest = (rest + piece).rpartition(b"\n")
            if _ASSIGNED in whole:
                known.take((whole + newline).split(b"\n"), team)
        return known.orders


class _AwayFrom(msgspec.Struct):
    """What is known of one log up to an offset, where a line ends."""

    inode: int
    offset: int = 0
    orders: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()

    def take(self, lines: list[bytes], team: str) -> None:
        for line in lines:
            for placed in read_line(line, 0) if _ASSIGNED in line else ():
                if isinstance(placed, Finding) or placed.event.event != "assigned":
                    continue
                move = placed.event
                if move.team_id not in (None, team) or (move.order_id, move.event_id) in self.seen:
                    continue
                if move.event_id is not None:
                    self.seen.add((move.order_id, move.event_id))
                if move.to_team:
                    self.orders[move.order_id] = move.to_team
                else:
                    self.orders.pop(move.order_id, None)


class _Trade(msgspec.Struct):
    """What of a trade line tells how much of an order is filled."""

    trade_id: str
    order_id: str
    quantity: str
    execution_price: str
    kind: str | None = None
    execution_id: str | None = None
    reverses: str | None = None


_decode = msgspec.json.Decoder(_Trade).decode


class Knowledge:
    """What the ledgers, by team, know of orders: every open order, and of the others those that were asked about.

    The ledgers have to be up to date, and stay as they are. Where two know an order, it is the first one's from which
    it was not assigned away.
    """

    def __init__(self, ledgers: Mapping[str, Ledger], away: Away) -> None:
        self._ledgers = ledgers
        self._away = away
        self._view: dict[str, Known] = {}
        for team, ledger in ledgers.items():
            for row in ledger.rows("pending_orders"):
                self._view.setdefault(row["order_id"], Known(team, row))
        self._looked_up: set[str] = set()
        self._searched: set[str] = set()

    def of(self, answers: Answers) -> View:
        """What is known of the orders that the broker's answers are about; costs what was not asked about before.

        Raises LedgerError.
        """
        view, away, wanted = self._view, self._away, orders_wanted(answers)
        # What an order has ended with may be gone at the broker by now, so that it says that nothing is filled.
        new = (wanted | view.keys() | answers.orders.keys()) - self._looked_up
        self._looked_up |= new
        for team, ledger in self._ledgers.items() if new else ():
            _add_trades(view, team, ledger, new - away[team].keys())
        self._search_logs(answers, wanted)
        for team in self._ledgers:
            # Where the ledger that an order went to has nothing of it yet, it is that team's all the same.
            for order_id in away[team].keys() & new:
                view.setdefault(order_id, Known(holder_of(order_id, team, away), has_events=False))
        return view

    def _search_logs(self, answers: Answers, wanted: set[str]) -> None:
        """Look in the logs for orders that the broker has open and no ledger has, for those that nobody knows, and for
        those that they came from; once for each."""
        view = self._view

        def is_doubtful(order_id: str) -> bool:
            known = view.get(order_id)
            if known is None:
                return True
            return known.row is None and order_id in answers.orders and is_open(answers.orders[order_id])

        doubtful = {order_id for order_id in wanted if is_doubtful(order_id)}
        doubtful |= _relations(doubtful - view.keys(), answers) - view.keys()
        doubtful -= self._searched
        self._searched |= doubtful
        for order_id in doubtful & view.keys():
            view[order_id].has_events = False
        for team, ledger in self._ledgers.items():
            here = {order_id for order_id in doubtful - self._away[team].keys() if ledger.may_know(order_id)}
            for event in known_events(ledger.path, team, here) if here else ():
                if event.event != "assigned":
                    view.setdefault(event.order_id, Known(team)).has_events = True


def _add_trades(view: dict[str, Known], team: str, ledger: Ledger, wanted: set[str]) -> None:
    inferred: set[str] = set()
    with exactly():
        for line in whole_lines(ledger.path / TRADES):
            trade = _decode(line)
            if trade.order_id not in wanted:
                continue
            known = view.setdefault(trade.order_id, Known(team))
            if known.team_id == team:
                _add(known, trade, inferred)


def _add(known: Known, trade: _Trade, inferred: set[str]) -> None:
    quantity, price = decimal_of(trade.quantity), decimal_of(trade.execution_price)
    known.filled += quantity
    known.value += quantity * price
    if trade.kind == "inferred":
        inferred.add(trade.trade_id)
    if trade.trade_id in inferred or trade.reverses in inferred:
        known.inferred += quantity
    elif trade.kind == "reversal":
        known.standing.pop(trade.reverses or "", None)
    else:
        known.standing[trade.trade_id] = (trade.execution_id, quantity, price)
        # An order that was away and has come back tells the same execution in a second line.
        if trade.kind == "correction" or trade.execution_id not in known.executions:
            known.numbers[quantity, price] += 1
        if trade.execution_id is not None:
            known.executions.add(trade.execution_id)


def _relations(unknown: set[str], answers: Answers) -> set[str]:
    """The orders that unknown ones came from, and those that these came from: their ledger is the unknown one's."""
    found: set[str] = set()
    waiting = list(unknown)
    while waiting:
        for other in relations_of(answers.orders.get(waiting.pop(), {})):
            if other not in found:
                found.add(other)
                waiting.append(other)
    return found
