"""Gathers what all ledgers together know of the orders that a reconcile looks at.

What differs is for `broker.reconcile` to find. The rule that surprises: what an order was that has ended without a
trade stands in the log alone. The logs are read for it only where the broker has an order that nothing else here knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from compactor.broker.reconcile import Answers, Known, View, is_open, orders_wanted, read_answers
from compactor.core.decimals import decimal_of, exactly
from compactor.jobs.import_desk import known_events
from compactor.ledger import Ledger
from compactor.ledger.places import LOG, TRADES
from compactor.ledger.reading import whole_lines


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


def read_view(ledgers: Mapping[str, Ledger], orders: list[Any], activities: list[Any]) -> View:
    """What the ledgers, by team, know: every open order, and of the others those that the broker's answers are about.

    The ledgers have to be up to date. Where two know an order, it is the first one's. Raises LedgerError.
    """
    answers = read_answers(orders, activities)
    view: dict[str, Known] = {}
    for team, ledger in ledgers.items():
        for row in ledger.pending_orders():
            view.setdefault(row["order_id"], Known(team, row))
    wanted = orders_wanted(answers) | view.keys()
    for team, ledger in ledgers.items():
        _add_trades(view, team, ledger, wanted)
    _search_logs(view, ledgers, answers, orders_wanted(answers))
    return view


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
    elif trade.kind != "reversal":
        known.numbers[quantity, price] += 1
        if trade.execution_id is not None:
            known.executions.add(trade.execution_id)


def _search_logs(view: dict[str, Known], ledgers: Mapping[str, Ledger], answers: Answers, wanted: set[str]) -> None:
    """Look in the logs for orders that the broker has open and no ledger has, and for those that nobody knows."""

    def is_doubtful(order_id: str) -> bool:
        known = view.get(order_id)
        if known is None:
            return True
        return known.row is None and order_id in answers.orders and is_open(answers.orders[order_id])

    doubtful = {order_id for order_id in wanted if is_doubtful(order_id)}
    if not doubtful:
        return
    for order_id in doubtful & view.keys():
        view[order_id].has_events = False
    for team, ledger in ledgers.items():
        for event in known_events(ledger.path / LOG):
            if event.order_id in doubtful:
                view.setdefault(event.order_id, Known(team)).has_events = True
