"""Asks the accounts at the broker what a reconcile needs, and knows which account an order is in.

What follows from the answers is for `reconciling`. The rule that surprises: with several accounts, an order that one of
them does not have may be another's. So nobody says that an order is missing while an account is not asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import msgspec

from compactor.broker.credentials import BadCredentials
from compactor.broker.rest import BrokerError
from compactor.core.instants import BadInstant, nanos, rfc3339
from compactor.sync.plan import Answers, Rules
from compactor.sync.state import AccountReconciled

OVERLAP_SECONDS = 600
"""How far behind the last complete run the next one looks back, because a broker's answers lag and clocks differ."""
HOUR_SECONDS, DAY_SECONDS, WEEK_SECONDS = 3600, 86_400, 7 * 86_400
"""The first run of an account looks back a week. Then every hour the orders of a day, and every day those of a week,
are compared once more: executions are taken back and corrected long after the end of an order."""
_SECOND = 1_000_000_000

Errors = dict[str, BrokerError | BadCredentials]


class OrderSource(Protocol):
    """What is asked of a broker; `broker.rest.Broker` is one."""

    requests: int

    def account(self) -> str: ...

    def open_orders(self) -> list[Any]: ...

    def orders_since(self, after: str) -> list[Any]: ...

    def order(self, order_id: str) -> Any | None: ...

    def fills(self, after: str, order_id: str | None = None) -> list[Any]: ...


class AskedAccount(msgspec.Struct):
    """One account at the broker. `team` gets the orders that no ledger knows and no name claims; `patterns` find the
    team in a `client_order_id`."""

    name: str
    source: OrderSource
    team: str | None = None
    patterns: tuple[re.Pattern[str], ...] = ()


class BrokerAnswers(msgspec.Struct):
    """What the accounts have said so far in one turn. `missing` are orders that none of them has, `unasked` those of
    which one that fails might know, or whose answer could not be read."""

    answers: Answers = msgspec.field(default_factory=Answers)
    missing: set[str] = set()
    fills_asked: set[str] = set()
    unasked: set[str] = set()


class Accounts:
    """The accounts, by name, and which of them the orders are in that they told of last."""

    def __init__(self) -> None:
        self.by_name: dict[str, AskedAccount] = {}
        self.ids: dict[str, str] = {}
        self.homes: dict[str, str] = {}

    @property
    def fallback(self) -> set[str]:
        """The teams that get orders which no ledger knows and no name claims."""
        return {account.team for account in self.by_name.values() if account.team is not None}

    @property
    def requests(self) -> int:
        """How many requests were sent, to all of them."""
        return sum(account.source.requests for account in self.by_name.values())

    def ask_all(self, names: list[str], memory: dict[str, AccountReconciled], now: str) -> tuple[BrokerAnswers, Errors]:
        """The lists of every account; of one that fails nothing, so that no list is there in part."""
        told, errors = BrokerAnswers(), Errors()
        for name in names:
            try:
                orders, activities = self._ask(self.by_name[name], memory.get(name, AccountReconciled()), now)
            except (BrokerError, BadCredentials) as error:
                errors[name] = error
                continue
            told.answers.take(orders, activities)
            self.homes = {order_id: home for order_id, home in self.homes.items() if home != name}
            self.homes |= dict.fromkeys(_ids_of(orders), name)
            self.homes |= {str(one.get("order_id")): name for one in activities}
        return told, errors

    def _ask(self, account: AskedAccount, known: AccountReconciled, now: str) -> tuple[list[Any], list[Any]]:
        source = account.source
        if account.name not in self.ids:
            self.ids[account.name] = source.account()
        if known.account_id != self.ids[account.name]:
            known = AccountReconciled()  # Other keys: what is known is of another account.
        orders, placed = source.open_orders(), source.orders_since(_placed_since(known, now))
        # The list of open orders does not tell which of them are whose legs.
        there = {str(one.get("id")) for one in placed}
        missed = [source.order(order_id) for order_id in known.waiting if order_id not in there]
        return orders + placed + [one for one in missed if one is not None], source.fills(_since(known, now))

    def ask_order(self, order_id: str, told: BrokerAnswers, answering: list[str]) -> None:
        """Ask for one order where it is, or everywhere; what an account that is not asked might know stays open."""
        home = self.homes.get(order_id)
        for name in answering:
            if home in (None, name) and (found := self.by_name[name].source.order(order_id)) is not None:
                self.homes |= dict.fromkeys(_ids_of([found]), name)
                told.answers.take([found])
                if order_id not in told.answers.orders:
                    told.unasked.add(order_id)
                return
        if home in (None, *answering) and len(answering) == len(self.by_name):
            told.missing.add(order_id)
        else:
            told.unasked.add(order_id)

    def ask_fills(self, order_id: str, told: BrokerAnswers, now: str) -> None:
        """Ask for all activities of an order."""
        source = self.by_name[self.homes[order_id]].source
        created = told.answers.orders[order_id].get("created_at")
        told.answers.take([], source.fills(_before(created, now), order_id))
        told.fills_asked.add(order_id)

    def rules_of(self, order_id: str) -> Rules:
        """What the account of an order says of orders that no ledger knows."""
        account = self.by_name.get(self.homes.get(order_id, ""))
        return Rules(account.patterns, account.team) if account is not None else Rules()


def _ids_of(orders: Iterable[Any]) -> Iterator[str]:
    """The ids of orders and of the legs that are nested in them."""
    for order in orders:
        if isinstance(order, dict):
            yield str(order.get("id"))
            yield from _ids_of(order.get("legs") or ())


def is_due(last: str | None, now: str, every_seconds: int) -> bool:
    """Whether something that was last done then is to be done again."""
    return last is None or nanos(now) - nanos(last) >= every_seconds * _SECOND


def _since(known: AccountReconciled, now: str) -> str:
    """From when on something may have happened that is not known, in the broker's time."""
    if known.through is None:
        return _back(now, WEEK_SECONDS)
    return rfc3339(min(nanos(known.through), nanos(now)) - OVERLAP_SECONDS * _SECOND)


def _placed_since(known: AccountReconciled, now: str) -> str:
    """From when on to compare what was placed."""
    since = [_since(known, now)]
    since += [_back(now, DAY_SECONDS)] if is_due(known.day_at, now, HOUR_SECONDS) else []
    since += [_back(now, WEEK_SECONDS)] if is_due(known.week_at, now, DAY_SECONDS) else []
    return min(since, key=nanos)


def _back(now: str, seconds: int) -> str:
    return rfc3339(nanos(now) - seconds * _SECOND)


def _before(created: Any, now: str) -> str:
    """An instant before an order can have had a fill: an hour before it was made, or a year ago."""
    try:
        return _back(created, HOUR_SECONDS)
    except (BadInstant, TypeError):
        return _back(now, 365 * DAY_SECONDS)
