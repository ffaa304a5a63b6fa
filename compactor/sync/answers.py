"""Ask the accounts at the broker what a reconcile needs, and remember which account has an order.

`plan` draws the conclusions. Note: with several accounts, an order that one of them does not have may be another's. An
order is called missing only after every account was asked.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any

import msgspec

from compactor.broker.credentials import BadCredentials
from compactor.broker.port import Adjustment, BrokerError, BrokerPort, RateLimited, Translation
from compactor.core.instants import BadInstant, nanos, rfc3339
from compactor.sync.compare import BrokerDifference, is_filled
from compactor.sync.plan import Answers, Rules
from compactor.sync.state import AccountReconciled

OVERLAP_SECONDS = 600
"""How far behind the last complete run the next one looks back, because a broker's answers lag and clocks differ."""
HOUR_SECONDS, DAY_SECONDS, WEEK_SECONDS = 3600, 86_400, 7 * 86_400
"""The first run of an account looks back a week. Then every hour the orders of a day, and every day those of a week,
are compared once more: executions are taken back and corrected long after the end of an order."""
TOGETHER_MIN = 3
"""So many orders are worth to be asked for together."""
WEEK_FILLED_MAX = 2_000
"""So many orders of a week may have been filled for their executions to be compared once more, a hundred a request."""
HOMES_ASKED_MAX = 10
"""Orders with trades that are asked for in a turn, because no list says which account has them."""
UNANSWERED_MAX = 10
"""Orders that may be left out in a turn, because the broker does not answer for them; with more it is an outage."""
_SECOND = 1_000_000_000

Errors = dict[str, BrokerError | BadCredentials]


class AskedAccount(msgspec.Struct):
    """One account at the broker. `team` gets the orders that no ledger knows and no name claims; `patterns` find the
    team in a `client_order_id`."""

    name: str
    source: BrokerPort
    team: str | None = None
    patterns: tuple[re.Pattern[str], ...] = ()


class BrokerAnswers(msgspec.Struct):
    """What the accounts have said so far in one turn. `missing` are orders that none of them has, `unasked` those of
    which one that fails might know, or whose answer could not be read."""

    answers: Answers = msgspec.field(default_factory=Answers)
    missing: set[str] = set()
    fills_asked: set[str] = set()
    fills_unanswered: set[str] = set()
    """Those of `fills_asked` that were not answered: nothing is known of them but that they are asked for again."""
    unasked: set[str] = set()
    unanswered: dict[str, int] = {}
    """How many orders each account did not answer for."""
    still_waiting: dict[str, BrokerError] = {}
    """Orders of which an earlier turn wanted to know more and that were not answered for this time either, with why."""

    @property
    def orders_to_watch(self) -> set[str]:
        """The orders to be asked for by the next turn, since no list may have them."""
        return (self.fills_unanswered | self.unasked | self.still_waiting.keys()) - self.missing


class AccountFailed(Exception):
    """An account failed while the answers of the others were being used."""

    def __init__(self, name: str, error: BrokerError | BadCredentials) -> None:
        super().__init__(str(error))
        self.name = name
        self.error = error


class Accounts:
    """The accounts, by name, and which of them the orders are in that they told of last."""

    def __init__(self) -> None:
        self.by_name: dict[str, AskedAccount] = {}
        self.ids: dict[str, str] = {}
        self.homes: dict[str, str] = {}
        self.held: dict[str, dict[str, Decimal]] = {}
        """What each account holds, by symbol, as of the last time that it was asked."""
        self.unheld: dict[str, str] = {}
        """Why an account did not say what it holds."""
        self.homeless: set[str] = set()
        """Orders with trades that no account has."""

    @property
    def fallback(self) -> set[str]:
        """The teams that get orders which no ledger knows and no name claims."""
        return {account.team for account in self.by_name.values() if account.team is not None}

    @property
    def requests(self) -> int:
        """How many requests were sent, to all of them."""
        return sum(account.source.requests for account in self.by_name.values())

    def find_skew(self, names: list[str]) -> int:
        """How many seconds the clock of a broker is ahead of ours; of several the one that is ahead least."""
        return min((round(self.by_name[name].source.skew_seconds) for name in names), default=0)

    def ask_all(self, names: list[str], memory: dict[str, AccountReconciled], now: str) -> tuple[BrokerAnswers, Errors]:
        """The lists of every account; of one that fails nothing, so that no list is there in part."""
        told, errors = BrokerAnswers(), Errors()
        for name in names:
            try:
                known = memory.get(name, AccountReconciled())
                waiting: dict[str, BrokerError] = {}
                orders, fills = self._ask(self.by_name[name], known, now, waiting)
            except (BrokerError, BadCredentials) as error:
                errors[name] = error
                continue
            told.answers.take(orders, fills)
            self.homes = {order_id: home for order_id, home in self.homes.items() if home != name}
            self.homes |= {str(event["order_id"]): name for event in [*orders.events, *fills.events]}
            self.homes |= dict.fromkeys(waiting, name)
            told.still_waiting |= waiting
        return told, errors

    def _ask(
        self, account: AskedAccount, known: AccountReconciled, now: str, waiting: dict[str, BrokerError]
    ) -> tuple[Translation, Translation]:
        """The lists of an account, and the orders that it waits for; those without an answer are put into `waiting`."""
        source = account.source
        if account.name not in self.ids:
            self.ids[account.name] = source.read_account_id()
        if known.account_id != self.ids[account.name]:
            known = AccountReconciled()  # Other keys: what is known is of another account.
        # Before the orders: whatever moved since is an order to which something happened just now.
        self._ask_positions(account)
        found, placed = source.read_open_orders(), source.read_orders_since(_placed_since(known, now))
        orders = Translation(found.events + placed.events, found.problems + placed.problems)
        # The list of open orders may not tell which of them are whose legs.
        there = {str(event["order_id"]) for event in placed.events}
        for order_id in known.waiting:
            if order_id not in there:
                try:
                    one = source.read_order(order_id) or Translation([], [])
                except RateLimited:
                    raise
                except BrokerError as error:
                    waiting[order_id] = error
                else:
                    orders.events.extend(one.events)
                    orders.problems.extend(one.problems)
        return orders, source.read_fills_since(_filled_since(known, now, placed))

    def _ask_positions(self, account: AskedAccount) -> None:
        """What the account holds, by symbol; where it cannot say, nothing, since orders matter more."""
        self.held.pop(account.name, None)
        self.unheld.pop(account.name, None)
        if account.source.capabilities.tells_positions:
            try:
                self.held[account.name] = account.source.read_positions()
            except RateLimited:
                raise
            except BrokerError as error:
                self.unheld[account.name] = str(error)

    def ask_adjustments(self, name: str, since: str) -> Sequence[Adjustment] | None:
        """What moved positions of an account without an order since an instant; None where it cannot say."""
        try:
            return self.by_name[name].source.read_adjustments(since)
        except (BrokerError, BadCredentials):
            return None

    def find_homes(self, order_ids: Collection[str], answering: Collection[str]) -> dict[str, str]:
        """The account of each of some orders; empty for one that no account has. A few that no list has are asked for;
        of the others, and where one that does not answer may have it, there is nothing."""
        found = {one: self.homes[one] for one in order_ids if one in self.homes}
        unknown = [one for one in order_ids if one not in found and one not in self.homeless]
        for order_id in unknown[:HOMES_ASKED_MAX]:
            self._ask_home(order_id, answering)
        found |= {one: self.homes[one] for one in unknown if one in self.homes}
        return found | {one: "" for one in order_ids if one in self.homeless}

    def _ask_home(self, order_id: str, answering: Collection[str]) -> None:
        for name in answering:
            try:
                told = self.by_name[name].source.read_order(order_id)
            except (BrokerError, BadCredentials):
                return
            if told is not None:
                self.homes[order_id] = name
                return
        if len(answering) == len(self.by_name):
            self.homeless.add(order_id)

    def ask_orders(self, wanted: Mapping[str, str | None], told: BrokerAnswers, answering: list[str]) -> None:
        """Ask for several orders, by id with their `created_at`: together where that is possible, or one by one."""
        for name in answering:
            is_only = len(self.by_name) == 1
            own = {one: at for one, at in wanted.items() if is_only or self.homes.get(one) == name}
            if len(own) >= TOGETHER_MIN:
                # Whoever fails here is asked for each of them, and named.
                with suppress(BrokerError, BadCredentials):
                    found = self.by_name[name].source.list_orders(own)
                    # A list by time has others as well. What was asked for must not depend on how many were wanted, or
                    # a second run would find what the first one did not.
                    events = [event for event in found.events if event["order_id"] in own]
                    self.homes |= {str(event["order_id"]): name for event in events}
                    told.answers.take(found._replace(events=events))
        for order_id in wanted:
            if order_id not in told.answers.orders:
                self.ask_order(order_id, told, answering)

    def ask_fills_together(self, order_ids: Collection[str], told: BrokerAnswers) -> None:
        """Ask for the executions of several orders together; what is complete then needs no request of its own."""
        for name, account in self.by_name.items():
            own = [told.answers.orders[one] for one in order_ids if self.homes.get(one) == name]
            if len(own) < TOGETHER_MIN or not account.source.capabilities.tells_fills_of_orders:
                continue
            with suppress(BrokerError, BadCredentials):
                told.answers.take(Translation([], []), account.source.list_fills(own))
                told.fills_asked |= {str(one["order_id"]) for one in own if told.answers.has_all_fills(one)}

    def ask_order(self, order_id: str, told: BrokerAnswers, answering: list[str]) -> None:
        """Ask for one order where it is, or everywhere; what an account that is not asked might know stays open."""
        home = self.homes.get(order_id)
        for name in answering:
            if home not in (None, name):
                continue
            try:
                found = self.by_name[name].source.read_order(order_id)
            except (BrokerError, BadCredentials) as error:
                _name_unanswered(order_id, name, told, error)
                told.unasked.add(order_id)
                return
            if found is not None:
                self.homes |= {str(event["order_id"]): name for event in found.events}
                told.answers.take(found)
                if order_id not in told.answers.orders:
                    told.unasked.add(order_id)
                return
        if home in (None, *answering) and len(answering) == len(self.by_name):
            told.missing.add(order_id)
        else:
            told.unasked.add(order_id)

    def ask_fills(self, order_id: str, told: BrokerAnswers, now: str) -> None:
        """Ask for all executions of an order."""
        name = self.homes[order_id]
        told.fills_asked.add(order_id)
        if not self.by_name[name].source.capabilities.tells_fills_of_orders:
            return
        source, order = self.by_name[name].source, told.answers.orders[order_id]
        since = _before(order.get("created_at"), now)
        try:
            told.answers.take(Translation([], []), source.read_order_fills(order, since))
        except (BrokerError, BadCredentials) as error:
            # The order itself is known, so it is reconciled without them: a live order must never be missing.
            _name_unanswered(order_id, name, told, error)
            told.fills_unanswered.add(order_id)

    def find_rules(self, order_id: str, rules: Rules) -> Rules:
        """The rules with what the account of an order says of orders that no ledger knows."""
        account = self.by_name.get(self.homes.get(order_id, ""))
        if account is None:
            return rules
        return msgspec.structs.replace(rules, patterns=account.patterns, account_team=account.team)


def _name_unanswered(order_id: str, name: str, told: BrokerAnswers, error: BrokerError | BadCredentials) -> None:
    """Name an order for which the broker does not answer. Raises AccountFailed if it fails for more than the order."""
    told.unanswered[name] = told.unanswered.get(name, 0) + 1
    if isinstance(error, (BadCredentials, RateLimited)) or told.unanswered[name] > UNANSWERED_MAX:
        raise AccountFailed(name, error) from None
    told.answers.problems.append(describe_unanswered(order_id, error))


def describe_unanswered(order_id: str, error: BrokerError | BadCredentials) -> BrokerDifference:
    """An order for which the broker does not answer, as a difference."""
    detail = f"the broker does not answer for this order, which is left out; all others are reconciled: {error}"
    return BrokerDifference("order_unanswered", detail, order_id)


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


def _filled_since(known: AccountReconciled, now: str, placed: Translation) -> str:
    """From when on to compare executions: also those of the orders of a week, where these are not too many. Only they
    tell of two corrections that leave the sums of an order as they were."""
    filled = sum(map(is_filled, placed.events))
    if is_due(known.week_at, now, DAY_SECONDS) and filled <= WEEK_FILLED_MAX:
        return min(_since(known, now), _back(now, WEEK_SECONDS), key=nanos)
    return _since(known, now)


def _back(now: str, seconds: int) -> str:
    return rfc3339(nanos(now) - seconds * _SECOND)


def _before(created: Any, now: str) -> str:
    """An instant before an order can have had a fill: an hour before it was made, or a year ago."""
    try:
        return _back(created, HOUR_SECONDS)
    except (BadInstant, TypeError):
        return _back(now, 365 * DAY_SECONDS)
