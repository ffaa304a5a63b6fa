"""Reconcile all accounts in a thread: at the start, after every new connection, and every few minutes.

`sync.reconcile` does the work. Note: a mute stream is not detected by a timeout. If a reconcile has something to append
although the previous one ran on the same connection, the stream has missed it and is reconnected.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping
from typing import Protocol

from structlog.typing import FilteringBoundLogger as Logger

from compactor.books.turns import ReconcileBusy
from compactor.broker.budget import Budget
from compactor.broker.credentials import BadCredentials
from compactor.broker.port import BrokerError
from compactor.daemon.account_link import AccountLink, Refusals
from compactor.daemon.health import Health
from compactor.sync.answers import Errors
from compactor.sync.compare import BrokerDifference
from compactor.sync.reconcile import QUIET_SECONDS
from compactor.sync.reconciled import Reconciled

START_SECONDS = 5.0
"""How long the first reconcile waits for the streams, so that one reconcile is enough for both."""
STEP_SECONDS = 1.0
APART_SECONDS = 1.0
BUSY_SECONDS = 2.0
RETRY_SECONDS_MIN = 15.0
SETTLING_TURNS_MAX = 3
"""How many reconciles follow in a row at short intervals, for orders that were not quiet yet."""


class ReconcileRunner(Protocol):
    """Runs reconciles; `sync.reconcile.Reconciler` is one."""

    errors: Errors
    """After `run` has raised: why each account failed."""

    def run(self) -> Reconciled: ...

    def find_home(self, order_id: str) -> str | None: ...


class ReconcileLoop:
    """Reconciles all accounts. `refusals` decide about keys that the broker refuses."""

    def __init__(
        self,
        links: Mapping[str, AccountLink],
        reconciler: ReconcileRunner,
        budgets: Mapping[str, Budget],
        health: Health,
        log: Logger,
        *,
        refusals: Mapping[str, Refusals],
        reconcile_seconds: int,
        quiet_seconds: int = QUIET_SECONDS,
    ) -> None:
        self._links = links
        self._reconciler = reconciler
        self._budgets = budgets
        self._health = health
        self._log = log
        self._refusals = refusals
        self._reconcile_seconds = reconcile_seconds
        self._quiet_seconds = quiet_seconds
        self._stopping = threading.Event()
        self._requested = threading.Event()
        self._reconciled_on: dict[str, int] = {}
        """The connection on which each account was last reconciled."""
        self._excused: dict[str, set[str]] = {}
        """Orders that were not quiet when a new connection was reconciled: the stream could not report them."""
        self._differences: list[BrokerDifference] = []
        """What the last reconcile could not repair; each is logged once, not every five minutes."""
        self._settling = 0
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name="reconcile", daemon=True)

    def start(self) -> None:
        """Start to reconcile."""
        self._thread.start()

    def request(self) -> None:
        """Request a reconcile soon, because something may be missing."""
        self._requested.set()

    def stop(self) -> None:
        """Request the stop; returns at once."""
        self._stopping.set()
        self._requested.set()

    def join(self, deadline: float) -> bool:
        """Wait for the end until the monotonic `deadline`; returns whether the thread has ended.

        A reconcile that still waits for the broker has written nothing and may be abandoned.
        """
        self._thread.join(max(0.0, deadline - time.monotonic()))
        return not self._thread.is_alive()

    def _run(self) -> None:
        due = time.monotonic() + START_SECONDS
        not_before = 0.0
        while True:
            is_requested = self._requested.wait(min(STEP_SECONDS, max(0.0, due - time.monotonic())))
            # A connection that breaks repeatedly must not cause as many reconciles.
            self._stopping.wait(max(0.0, not_before - time.monotonic()) if is_requested else 0.0)
            if self._stopping.is_set():
                return
            self._step()
            if is_requested or time.monotonic() >= due:
                self._requested.clear()
                due = time.monotonic() + self._reconcile_safely()
                not_before = time.monotonic() + APART_SECONDS

    def _step(self) -> None:
        for name, link in self._links.items():
            self._health.update_account(name, requests_used=self._budgets[name].used)
            try:
                link.retry()
            except Exception as error:
                self._log.exception("append_failed", account=name, reason=str(error))

    def _reconcile_safely(self) -> float:
        """Reconcile; a bug or a full disk must not end the loop."""
        try:
            return self._reconcile()
        except Exception as error:
            self._log.exception("reconcile_failed", reason=str(error))
            return self._fail(dict.fromkeys(self._links, error))

    def _reconcile(self) -> float:
        """Close gaps and reconcile; returns the seconds until the next reconcile."""
        connections = {name: link.connection for name, link in self._links.items()}
        started = time.time()
        try:
            for name, link in self._links.items():
                if connections[name] != self._reconciled_on.get(name):
                    link.close_gap()
            done = self._reconciler.run()
        except ReconcileBusy as error:
            for name in self._links:
                self._health.update_account(name, reconcile_reason=str(error))
            return BUSY_SECONDS
        except (BrokerError, BadCredentials) as error:
            return self._fail(self._reconciler.errors or dict.fromkeys(self._links, error))
        self._log_result(done)
        self._note_ledgers(done)
        self._succeed(done, connections, started)
        if done.errors or done.failed:
            return self._fail(done.errors)
        self._failures = 0
        if done.waiting and self._settling < SETTLING_TURNS_MAX:
            self._settling += 1
            return float(min(self._quiet_seconds + 1, self._reconcile_seconds))
        self._settling = 0
        return float(self._reconcile_seconds)

    def _fail(self, failed: Mapping[str, Exception]) -> float:
        self._failures += 1
        for name, error in failed.items():
            self._health.update_account(name, reconcile_reason=str(error) or type(error).__name__)
            self._health.add_to_account(name, reconcile_failures=1)
            if isinstance(error, BadCredentials):
                self._refusals[name].refuse(error)
        seconds = min(self._reconcile_seconds, RETRY_SECONDS_MIN * 2 ** min(self._failures - 1, 8))
        if failed:
            reasons = {name: str(error) for name, error in failed.items()}
            self._log.warning("reconcile_failed", reasons=reasons, again_in_seconds=round(seconds))
        return float(seconds * random.uniform(0.8, 1.0))

    def _note_ledgers(self, done: Reconciled) -> None:
        """Name the ledgers that could not be reconciled. They are no failure of an account, nor of other ledgers."""
        failed = {one.team_id: one.error.message for one in done.failed if one.error is not None}
        for team_id in failed.keys() - self._health.unreconciled.keys():
            self._log.error("ledger_not_reconciled", team_id=team_id, reason=failed[team_id])
        self._health.unreconciled = failed

    def _succeed(self, done: Reconciled, connections: Mapping[str, int], started: float) -> None:
        untold = set(done.untold)
        for name in self._links.keys() - done.errors.keys():
            self._refusals[name].accept()
            self._health.update_account(
                name,
                last_reconcile_at=started,
                reconcile_reason=None,
                differences=sum(one.account in (None, name) for one in done.problems),
                positions_differing=sum((one.account, one.kind) == (name, "differs") for one in done.positions),
            )
            self._health.add_to_account(name, reconciles=1)
            is_mute = False
            if self._reconciled_on.get(name) == connections[name]:
                is_mute = self._find_mute(name, untold, connections[name])
                self._excused[name].intersection_update(done.waiting)
            else:
                self._excused[name] = set(done.waiting)
            self._reconciled_on[name] = connections[name]
            if not done.waiting and not done.failed and not is_mute:
                self._links[name].note_known(started)

    def _find_mute(self, name: str, untold: set[str], connection: int) -> bool:
        """Reconnect a stream that has missed something since it was last reconciled."""
        link = self._links[name]
        own = {one for one in untold if len(self._links) == 1 or self._reconciler.find_home(one) == name}
        own -= self._excused[name]
        self._health.add_to_account(name, untold_orders=len(own))
        is_mute = bool(own) and connection == link.connection and connection > 0
        if is_mute:
            self._health.add_to_account(name, mute=1)
            self._log.warning("stream_mute", account=name, orders=len(own), example=min(own))
            link.reconnect("it missed what a reconcile has found")
        return is_mute

    def _log_result(self, done: Reconciled) -> None:
        self._log.info(
            "reconcile_finished", orders=done.orders, events=done.events, waiting=len(done.waiting),
            differences=len(done.problems), requests=done.requests, elapsed_ms=done.elapsed_ms,
        )  # fmt: skip
        for one in done.problems:
            if one not in self._differences:
                self._log.warning("difference_found", order_id=one.order_id, kind=one.kind, detail=one.detail)
        self._differences = done.problems
