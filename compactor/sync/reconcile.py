"""Reconcile the ledgers with the broker: ask, plan, append what the plan says, and compact.

`plan` decides what to ask for and what to append. Invariant: every question is answered before the first byte is
written, so a broker that fails in the middle, or answers nonsense, leaves every ledger as it was. With several accounts
that holds for each: one that fails is left out, and nothing is concluded that only it could know.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import msgspec

from compactor.books.order_index import OrderIndex
from compactor.books.ownership import UNASSIGNED
from compactor.books.turns import turn
from compactor.books.unassigned import UnassignedOrders
from compactor.broker.credentials import BadCredentials
from compactor.broker.intents import ResolvedIntent, resolve_intents
from compactor.broker.port import BrokerError
from compactor.core.instants import nanos, rfc3339
from compactor.ledger import Ledger, LedgerError, discover
from compactor.ledger.paths import LOG
from compactor.sync.account_trades import Ghosts, TradesChanged, normalize_symbol
from compactor.sync.answers import (
    DAY_SECONDS,
    HOUR_SECONDS,
    AccountFailed,
    Accounts,
    AskedAccount,
    BrokerAnswers,
    Errors,
    describe_unanswered,
    is_due,
)
from compactor.sync.compare import BrokerDifference
from compactor.sync.ledger_view import LedgerView
from compactor.sync.open_ledgers import OpenLedgers, TeamReconciled
from compactor.sync.plan import Plan, Rules, plan_reconcile
from compactor.sync.positions import (
    ComparedAccount,
    ComparedPosition,
    LookedIntoPositions,
    PositionBook,
    list_differing,
)
from compactor.sync.reconciled import Reconciled, join_turns
from compactor.sync.state import AccountReconciled, read_reconciled, remember
from compactor.sync.unbooked import Unbooked, measure_unbooked

QUIET_SECONDS = 10
_ROUNDS_MAX = 30
_LOOKS_MAX = 3
"""How often a run looks again at once, while positions come to differ or what was inferred gives way."""
_SETTLE_TURNS_MAX = 3
_AGREED_MAX = 10_000  # Orders whose activities were looked into, kept in mind also while no list has them.
_SECOND = 1_000_000_000


class Reconciler:
    """Reconciles one data directory with its accounts, as often as `run` is called. `clock` is Unix seconds.

    All accounts of a data directory belong into one of these: an order that is open here is then asked for only in the
    account that has it. `teams` are known besides those that have a ledger. Not safe for several threads.
    """

    def __init__(
        self,
        data: Path,
        accounts: Sequence[AskedAccount] = (),
        *,
        quiet_seconds: int = QUIET_SECONDS,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        index: OrderIndex | None = None,
        teams: Collection[str] = (),
    ) -> None:
        self._data = data
        self._accounts = Accounts()
        self._accounts.by_name |= {account.name: account for account in accounts}
        self._quiet_seconds = quiet_seconds
        self._clock = clock
        self._sleep = sleep
        self._open_ledgers = OpenLedgers(data)
        self._index = index or OrderIndex(data, teams)
        self._owns_index = index is None
        self._unassigned = UnassignedOrders(data)
        self._positions = PositionBook(data)
        self._is_recording = False
        self._agreed: set[tuple[str, str]] = set()
        self._differing = LookedIntoPositions()
        self.errors: Errors = {}
        """After `run` has raised: why each account failed."""

    def run(
        self, *, only: str | None = None, dry_run: bool = False, settle: bool = False, forget_missing: bool = False
    ) -> Reconciled:
        """Reconcile once, all accounts or one; returns when what was appended is durable and in the derived files.

        With `settle`, orders that were not quiet yet are waited for and looked at again. With `dry_run` nothing is
        appended, and `teams` says what would be. With `forget_missing`, open orders are ended that no account has.
        Where a position has come to differ, the orders of a week are looked at as well.
        Raises BadCredentials or BrokerError where no account could be asked, and ReconcileBusy; no log was then
        written.
        """
        self.errors = {}
        with nullcontext() if dry_run else turn(self._data):
            done = latest = self._turn(only, dry_run, forget_missing)
            for _ in range(_LOOKS_MAX):
                accounts = self._differing.find_new(done.positions, self._clock())
                # An order that was found by its intent may have been replaced, which shows another one.
                is_found = any(one.order_id is not None for one in latest.intents)
                if not accounts and (dry_run or not (done.inferred or is_found)):
                    break
                try:
                    latest = self._turn(only, dry_run, deep=accounts)
                except (BrokerError, BadCredentials):
                    break
                done = join_turns(done, latest)
                self._differing.note(done.positions, self._clock())
            for _ in range(_SETTLE_TURNS_MAX if settle else 0):
                if not done.waiting:
                    break
                self._sleep(self._quiet_seconds + 1)
                done = join_turns(done, self._turn(only, dry_run))
            return done

    def find_home(self, order_id: str) -> str | None:
        """The account that had an order in the last run; None where that is not known."""
        return self._accounts.homes.get(order_id)

    def close(self) -> None:
        """Forget what is in memory."""
        self._open_ledgers.close()
        if self._owns_index:
            self._index.close()

    def _turn(
        self, only: str | None, dry_run: bool, forget_missing: bool = False, deep: Collection[str] = ()
    ) -> Reconciled:
        started, requests = time.monotonic(), self._accounts.requests
        # The clock is read first: whatever happens from here on is not quiet.
        now = rfc3339(int(self._clock() * _SECOND))
        memory = read_reconciled(self._data)
        deep = {*deep, *self._positions.find_unsettled(now)}
        memory |= {name: msgspec.structs.replace(memory[name], week_at=None) for name in deep & memory.keys()}
        ledgers, unreadable = self._open_ledgers.read()
        asked = [name for name in self._accounts.by_name if only in (None, name)]
        failed: Errors = {}
        try:
            while True:
                told, errors = self._accounts.ask_all([name for name in asked if name not in failed], memory, now)
                errors |= failed
                if len(errors) == len(asked):
                    raise next(iter(errors.values()))
                try:
                    answering = [name for name in asked if name not in errors]
                    plan = self._plan(
                        told, ledgers, now, answering, is_whole=not unreadable, forget_missing=forget_missing
                    )
                    break
                except AccountFailed as failure:
                    # It is left out as if it had not answered at all.
                    failed[failure.name] = failure.error
        except (BrokerError, BadCredentials) as error:
            self.errors = dict.fromkeys(asked, error) | errors
            if not dry_run:
                self._remember(memory, now, asked, self.errors, None, False)
            raise
        teams, problems = self._open_ledgers.prepare(plan.events)
        plan.problems += [BrokerDifference(reason.kind, reason.detail, order_id) for order_id, reason in problems]
        if not dry_run:
            for team in teams:
                self._open_ledgers.append(team)
            is_whole = not unreadable and not any(team.error for team in teams)
            # What these events did not put right is named the next time, instead of being appended for ever.
            self._agreed |= {one for one in plan.tried if is_whole and one[0] not in told.fills_unanswered}
        # First, because an opening balance must not count what stands in `unassigned` and in a team's ledger.
        moved = self._move_unassigned(plan, dry_run)
        if moved and not dry_run:
            self._open_ledgers.read()
        positions = self._compare_positions(
            told, plan, ledgers, now, memory, answering, is_whole=not unreadable, is_dry=dry_run
        )
        plan.problems += list_differing(positions)
        if not dry_run:
            self._remember(memory, now, asked, errors, plan, is_whole, positions)
        resolved = [] if dry_run else self._resolve_intents(plan, unreadable, answering, only is None and not errors)
        return Reconciled(
            dry_run=dry_run,
            requests=self._accounts.requests - requests,
            orders=len(told.answers.orders),
            elapsed_ms=int((time.monotonic() - started) * 1000),
            teams=teams,
            waiting=plan.waiting,
            untold=plan.untold,
            inferred=plan.inferred,
            problems=plan.problems,
            unreadable=unreadable,
            errors=errors,
            intents=resolved,
            moved=moved,
            positions=positions,
        )

    def _compare_positions(
        self, told: BrokerAnswers, plan: Plan, ledgers: Mapping[str, Ledger], now: str,
        memory: Mapping[str, AccountReconciled], answering: Collection[str], *, is_whole: bool, is_dry: bool,
    ) -> list[ComparedPosition]:  # fmt: skip
        """Compare what each account holds with its trades, where all of both could be read."""
        # In the broker's time, whose clock may differ.
        quiet = nanos(now) - (self._quiet_seconds - self._accounts.find_skew(list(answering))) * _SECOND
        restless = {normalize_symbol(symbol) for symbol in told.answers.list_restless(quiet, plan.waiting)}
        paths = sorted({*(ledger.path for ledger in ledgers.values()), *self._open_ledgers.paths})
        positions: list[ComparedPosition] = []
        for name in [one for one in answering if one in self._accounts.unheld]:
            detail = f"the account does not say what it holds: {self._accounts.unheld[name]}"
            plan.problems.append(BrokerDifference("positions_unread", detail, account=name))
        names = sorted(self._accounts.by_name)
        settled = self._positions.find_settled(self._accounts.ids, names) if len(names) > 1 else None
        for name in [one for one in answering if is_whole and one in self._accounts.held]:
            # Only a run that looks back a week has found what was busted: an opening balance must not hide that.
            is_deep = is_due(memory.get(name, AccountReconciled()).week_at, now, DAY_SECONDS)
            account = ComparedAccount(name, self._accounts.ids[name], self._accounts.held[name])
            if len(names) > 1:
                find_homes = partial(self._accounts.find_homes, answering=answering)
                ghosts = Ghosts(name == names[0], settled)
                account = msgspec.structs.replace(account, find_homes=find_homes, ghosts=ghosts)
            orders = {one for one in told.answers.orders if self.find_home(one) == name} - set(plan.waiting)
            unanswered = (told.unasked | told.still_waiting.keys()) - told.answers.orders.keys() - told.missing
            try:
                positions += self._positions.compare(
                    account, paths, now,
                    restless=restless,
                    read_adjustments=partial(self._accounts.ask_adjustments, name),
                    may_record=(is_deep or self._is_recording) and not is_dry,
                    is_dry=is_dry,
                    # What somebody wants to be recorded is what the account holds.
                    measure_unbooked=Unbooked
                    if self._is_recording
                    else partial(measure_unbooked, told.answers, orders, unanswered, paths),
                )  # fmt: skip
            except (LedgerError, TradesChanged, OSError) as error:
                detail = f"positions were not compared: {error}"
                plan.problems.append(BrokerDifference("positions_unread", detail, account=name))
        return positions

    def record_positions(self) -> None:
        """Let the next complete run record the opening balances of positions anew."""
        self._is_recording = True
        self._positions.forget()

    def _is_team(self, team: str) -> bool:
        return self._index.knows_team(team) or team in self._accounts.fallback

    def _resolve_intents(
        self, plan: Plan, unreadable: list[TeamReconciled], answering: list[str], is_complete: bool
    ) -> list[ResolvedIntent]:
        """Ask for the orders of which nobody knows whether they were placed."""
        bad = {one.path for one in unreadable}
        brokers = [self._accounts.by_name[name].source for name in answering]
        try:
            entries = [
                one
                for one in discover(self._data)
                if str(one.path) not in bad and self._open_ledgers.may_have_intents(one.path)
            ]
            found = resolve_intents(entries, brokers, is_complete=is_complete, now=self._clock())
            if found:
                self._open_ledgers.read()
            return found
        except (BrokerError, BadCredentials, LedgerError, OSError) as error:
            plan.problems.append(BrokerDifference("intents_unresolved", f"the next run asks again: {error}"))
            return []

    def _move_unassigned(self, plan: Plan, dry_run: bool) -> dict[str, str]:
        """Move what was unassigned to the teams that are known by now (rule 4.12)."""
        if (self._data / LOG).exists():
            return {}
        try:
            patterns = [one for account in self._accounts.by_name.values() for one in account.patterns]
            return self._unassigned.move(self._data, self._index, patterns, dry_run=dry_run)
        except (LedgerError, OSError) as error:
            plan.problems.append(BrokerDifference("not_moved", f"orders stay in {UNASSIGNED} for now: {error}"))
            return {}

    def _plan(
        self, told: BrokerAnswers, ledgers: dict[str, Ledger], now: str, answering: list[str], *, is_whole: bool,
        forget_missing: bool,
    ) -> Plan:  # fmt: skip
        """Plan, ask for what the plan lacks, and plan again until it lacks nothing.

        While a ledger cannot be read (`is_whole` False), unknown orders may be that ledger's, unless their name says
        that they are the team's of one that can be read.
        """
        self._index.follow(look_for_new=True)
        view = LedgerView(ledgers, self._index, self._accounts.fallback)
        rules = Rules(is_team=self._is_team, find_related=lambda order_id: view.find_related(order_id, told.answers))
        for _ in range(_ROUNDS_MAX):
            plan = plan_reconcile(
                told.answers,
                told.missing,
                view.select(told.answers),
                now,
                # In the broker's time, whose clock may differ.
                self._quiet_seconds - self._accounts.find_skew(answering),
                fills_asked=told.fills_asked,
                rules_of=lambda order_id: self._accounts.find_rules(order_id, rules),
                read_carried=view.read_carried,
                may_adopt=lambda order: (
                    is_whole or self._index.find_named_team(order.get("client_order_id")) is not None
                ),
                agreed=self._agreed,
                unasked=told.unasked,
                forget_missing=forget_missing,
            )
            if not plan.to_ask and not plan.to_ask_fills:
                if view.settle(plan.order_ids, told.answers):
                    continue
                plan.problems += view.problems
                if len(self._agreed) > _AGREED_MAX:
                    self._agreed = {one for one in self._agreed if one[0] in self._accounts.homes}
                self._agreed |= {one for one in plan.agreed if one[0] not in told.fills_unanswered}
                named = told.answers.orders.keys() | told.unasked | told.missing
                silent = {one: error for one, error in told.still_waiting.items() if one not in named}
                plan.problems += [describe_unanswered(one, error) for one, error in sorted(silent.items())]
                plan.to_watch += sorted(told.orders_to_watch)
                return plan
            self._accounts.ask_orders({one: view.find_created_at(one) for one in plan.to_ask}, told, answering)
            self._accounts.ask_fills_together(set(plan.to_ask_fills), told)
            for order_id in dict.fromkeys(plan.to_ask_fills):
                if order_id not in told.fills_asked:
                    self._accounts.ask_fills(order_id, told, now)
        raise BrokerError(
            f"after {_ROUNDS_MAX} rounds the broker's answers still raise new questions, the next about order "
            f"{(plan.to_ask + plan.to_ask_fills)[0]}; expected answers that agree. Nothing was appended; try later."
        )

    # Remembering.

    def _remember(
        self,
        memory: dict[str, AccountReconciled],
        now: str,
        names: list[str],
        errors: Errors,
        plan: Plan | None,
        is_whole: bool,
        positions: Sequence[ComparedPosition] = (),
    ) -> None:
        changed = {}
        for name in names:
            one = msgspec.structs.replace(memory.get(name, AccountReconciled()), tried_at=now)
            if name in errors:
                one.error, one.failures = str(errors[name]), one.failures + 1
            elif plan is not None and is_whole:
                day_at = now if is_due(one.day_at, now, HOUR_SECONDS) else one.day_at
                week_at = now if is_due(one.week_at, now, DAY_SECONDS) else one.week_at
                waiting = sorted({one for one in plan.to_watch if self._accounts.homes.get(one) == name})
                differences = sum(
                    self._accounts.homes.get(found.order_id or "", found.account or name) == name
                    for found in plan.problems
                )
                differing = [one.symbol for one in positions if (one.account, one.kind) == (name, "differs")]
                one = AccountReconciled(
                    self._accounts.ids[name], now, day_at, week_at, waiting, differences, differing, now
                )
            else:
                # A ledger that could not be read or written is no failure of the account; the run names it. What that
                # ledger lacks is looked for again, because `through` stays.
                one.error, one.failures = None, 0
            changed[name] = one
        remember(self._data, changed)
