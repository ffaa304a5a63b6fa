"""Heals the ledgers against the broker: asks, plans, appends what the plan says, and brings derived files up to date.

What to ask for and what to append is decided in `broker.reconcile`. The rule that surprises: everything is asked before
the first byte is written, so a broker that fails in the middle, or talks nonsense, leaves every ledger as it was.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import msgspec

from compactor.broker.alpaca import Fields
from compactor.broker.reconcile import Difference, Plan, plan_reconcile
from compactor.broker.rest import BrokerError
from compactor.core.events import LINE_BYTES_MAX, Problem, decode
from compactor.core.instants import nanos, rfc3339
from compactor.jobs.failures import Failure, bad_place, failure_of, name_of
from compactor.jobs.knowledge import AwayReader, read_view
from compactor.jobs.turns import DIRECTORY, compact_in_turn, turn
from compactor.ledger import Ledger, LedgerPlace, discover
from compactor.ledger.files import Files
from compactor.ledger.places import LOG, place_of

QUIET_SECONDS = 10
OVERLAP_SECONDS = 600
"""How far behind the last complete run the next one looks back, because a broker's answers lag and clocks differ."""
LOOK_BACK_SECONDS = 7 * 86_400
"""How far the first run of an account looks back."""
MEMORY = "reconciled.json"
_ROUNDS_MAX = 5
_SETTLE_TURNS_MAX = 3
# The ledger adds `recorded_at` to each line.
_LINE_BYTES = LINE_BYTES_MAX - 128


class Source(Protocol):
    """What is asked of a broker; `broker.rest.Broker` is one."""

    requests: int

    def account(self) -> str: ...

    def open_orders(self) -> list[Any]: ...

    def orders_since(self, after: str) -> list[Any]: ...

    def order(self, order_id: str) -> Any | None: ...

    def fills(self, after: str, order_id: str | None = None) -> list[Any]: ...


class TeamReconciled(msgspec.Struct):
    """What one ledger got, or would get: `events` in the order of the log. `error`: why it got none of them."""

    team_id: str
    path: str
    events: list[Fields] = []
    error: Failure | None = None


class Reconciled(msgspec.Struct):
    """What a run found. `waiting` orders differ, but something happened to them just now: the next run sees to them.

    `unreadable` are ledgers that could not be read, with why; meanwhile no order that is unknown is adopted.
    """

    dry_run: bool
    requests: int = 0
    orders: int = 0
    elapsed_ms: int = 0
    teams: list[TeamReconciled] = []
    waiting: list[str] = []
    problems: list[Difference] = []
    unreadable: list[TeamReconciled] = []

    @property
    def events(self) -> int:
        """How many events were appended, or would be."""
        return sum(len(team.events) for team in self.teams if team.error is None)

    @property
    def failed(self) -> list[TeamReconciled]:
        """The ledgers that could not be read or written."""
        return self.unreadable + [team for team in self.teams if team.error is not None]


class _Told(msgspec.Struct):
    """What the broker has said so far in one run."""

    orders: list[Any]
    activities: list[Any]
    by_id: dict[str, Any] = {}
    fills_asked: set[str] = set()


class Reconciler:
    """Reconciles one data directory with one account, as often as `run` is called.

    `account_team` gets the orders that no ledger knows and no name claims. `clock` is Unix seconds.
    """

    def __init__(
        self,
        data: Path,
        broker: Source,
        *,
        quiet_seconds: int = QUIET_SECONDS,
        patterns: Sequence[re.Pattern[str]] = (),
        account_team: str | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._data = data
        self._broker = broker
        self._quiet_seconds = quiet_seconds
        self._patterns = patterns
        self._account_team = account_team
        self._clock = clock
        self._sleep = sleep
        self._files = Files()
        self._ledgers: dict[Path, Ledger] = {}
        self._away = AwayReader()
        self._account: str | None = None

    def run(self, *, dry_run: bool = False, settle: bool = False) -> Reconciled:
        """Reconcile once; returns when what was appended is durable and in the derived files.

        With `settle`, orders that were not quiet yet are waited for and looked at again. With `dry_run` nothing is
        appended, and `teams` says what would be. Raises BadCredentials, BrokerError and ReconcileBusy; no log was
        then written.
        """
        with nullcontext() if dry_run else turn(self._data):
            done = self._turn(dry_run)
            for _ in range(_SETTLE_TURNS_MAX if settle else 0):
                if not done.waiting:
                    break
                self._sleep(self._quiet_seconds + 1)
                done = _joined(done, self._turn(dry_run))
            return done

    def close(self) -> None:
        """Forget what is in memory."""
        for ledger in self._ledgers.values():
            ledger.close()
        self._ledgers.clear()

    def _turn(self, dry_run: bool) -> Reconciled:
        started, requests = time.monotonic(), self._broker.requests
        # The clock is read first: whatever happens from here on is not quiet.
        now = rfc3339(int(self._clock() * 1_000_000_000))
        ledgers, unreadable = self._read_ledgers()
        if self._account is None:
            self._account = self._broker.account()
        since = self._since(self._account, now)
        told = _Told([*self._broker.open_orders(), *self._broker.orders_since(since)], self._broker.fills(since))
        plan = self._plan(told, ledgers, now, adopt=not unreadable)
        teams = self._teams(plan)
        if not dry_run:
            for team in teams:
                self._append(team)
            if not unreadable and not any(team.error for team in teams):
                self._remember(self._account, now)
        return Reconciled(
            dry_run=dry_run,
            requests=self._broker.requests - requests,
            orders=len({str(one.get("id")) for one in told.orders} | set(told.by_id)),
            elapsed_ms=int((time.monotonic() - started) * 1000),
            teams=teams,
            waiting=plan.waiting,
            problems=plan.problems,
            unreadable=unreadable,
        )

    def _read_ledgers(self) -> tuple[dict[str, Ledger], list[TeamReconciled]]:
        """Bring every ledger up to date; those that cannot be come back with why."""
        ledgers: dict[str, Ledger] = {}
        unreadable = []
        for place in discover(self._data):
            try:
                failure = bad_place(place) if place.problem is not None else None
                if failure is None:
                    ledger = self._ledger(place)
                    compact_in_turn(ledger)
                    ledgers[ledger.team_id] = ledger
            except Exception as error:
                failure = failure_of(error, place.path)
            if failure is not None:
                unreadable.append(TeamReconciled(name_of(place), str(place.path), error=failure))
        return ledgers, unreadable

    def _ledger(self, place: LedgerPlace) -> Ledger:
        if place.path not in self._ledgers:
            self._ledgers[place.path] = Ledger(place.path, team_id=place.team_id)
        return self._ledgers[place.path]

    def _plan(self, told: _Told, ledgers: dict[str, Ledger], now: str, *, adopt: bool) -> Plan:
        """Plan, ask for what the plan lacks, and plan again until it lacks nothing."""
        away = self._away.read(ledgers)
        for _ in range(_ROUNDS_MAX):
            orders = [*told.orders, *(one for one in told.by_id.values() if one is not None)]
            view = read_view(ledgers, orders, told.activities, away)
            plan = plan_reconcile(
                told.orders,
                told.by_id,
                told.activities,
                view,
                now,
                self._quiet_seconds,
                fills_asked=told.fills_asked,
                patterns=self._patterns,
                account_team=self._account_team,
                adopt=adopt,
            )
            if not plan.to_ask and not plan.to_ask_fills:
                return plan
            told.by_id |= {order_id: self._broker.order(order_id) for order_id in plan.to_ask}
            created = {str(one.get("id")): one.get("created_at") for one in orders}
            for order_id in plan.to_ask_fills:
                told.activities += self._broker.fills(_before(created.get(order_id), now), order_id)
                told.fills_asked.add(order_id)
        raise BrokerError(
            f"after {_ROUNDS_MAX} rounds the broker's answers still raise new questions, the next about order "
            f"{(plan.to_ask + plan.to_ask_fills)[0]}; expected answers that agree. Nothing was appended; try later."
        )

    def _teams(self, plan: Plan) -> list[TeamReconciled]:
        """The events of the plan as lines that can be appended; what cannot be a line is a problem of its order."""
        own = Ledger(self._data).team_id if (self._data / LOG).exists() else None
        found: dict[str, TeamReconciled] = {}
        for team, events in sorted(plan.events.items()):
            target = own or team  # A directory that is itself a ledger gets all of it (rule 1.2).
            path = self._data if own else place_of(self._data, team).path
            one = found.setdefault(target, TeamReconciled(target, str(path), []))
            lines = [event if own else {**event, "team_id": team} for event in events]
            bad = {str(line["order_id"]): reason for line in lines if isinstance(reason := _check(line), Problem)}
            plan.problems += [Difference(reason.kind, reason.detail, order_id) for order_id, reason in bad.items()]
            one.events = one.events + [_short(line) for line in lines if str(line["order_id"]) not in bad]
        return [one for one in found.values() if one.events]

    def _append(self, team: TeamReconciled) -> None:
        try:
            path = Path(team.path)
            place = LedgerPlace(None, path) if path == self._data else place_of(self._data, team.team_id)
            if place.problem is not None:
                team.error = bad_place(place)
                return
            ledger = self._ledger(place)
            ledger.append(team.events)
            compact_in_turn(ledger)
        except Exception as error:
            team.error = failure_of(error, team.path)

    def _since(self, account: str, now: str) -> str:
        """From when on to look, in the broker's time."""
        through = self._memory().get(account)
        if through is None:
            return rfc3339(nanos(now) - LOOK_BACK_SECONDS * 1_000_000_000)
        return rfc3339(min(nanos(through), nanos(now)) - OVERLAP_SECONDS * 1_000_000_000)

    def _remember(self, account: str, now: str) -> None:
        path = self._data / DIRECTORY / MEMORY
        new = path.with_suffix(".new")
        self._files.write_new(new, [msgspec.json.encode(self._memory() | {account: now})])
        self._files.rename(new, path)
        self._files.sync_directory(path.parent)

    def _memory(self) -> dict[str, str]:
        """Through when each account was reconciled; a file that is gone or damaged costs one longer look back."""
        try:
            found = msgspec.json.decode(self._files.read(self._data / DIRECTORY / MEMORY) or b"{}", type=dict[str, str])
            return {account: through for account, through in found.items() if nanos(through)}
        except (msgspec.DecodeError, ValueError):
            return {}


def _before(created: Any, now: str) -> str:
    """An instant before an order can have had a fill: an hour before it was made, or a year ago."""
    try:
        return rfc3339(nanos(created) - 3600 * 1_000_000_000)
    except (ValueError, TypeError):
        return rfc3339(nanos(now) - 365 * 86_400 * 1_000_000_000)


def _short(event: Fields) -> Fields:
    """The event, without the broker's message where that would make the line too long."""
    if len(msgspec.json.encode(event)) <= _LINE_BYTES:
        return event
    return {name: value for name, value in event.items() if name != "raw"}


def _check(event: Fields) -> object:
    return decode(msgspec.json.encode(_short(event)))


def _joined(first: Reconciled, second: Reconciled) -> Reconciled:
    """Two turns as one result: what both appended, and what the second one leaves."""
    teams = {team.team_id: team for team in ([] if first.dry_run else first.teams)}
    for team in second.teams:
        old = teams.get(team.team_id)
        teams[team.team_id] = team if old is None else msgspec.structs.replace(team, events=old.events + team.events)
    return msgspec.structs.replace(
        second,
        requests=first.requests + second.requests,
        elapsed_ms=first.elapsed_ms + second.elapsed_ms,
        teams=[teams[name] for name in sorted(teams)],
    )
