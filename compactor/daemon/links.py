"""Link a data directory with the broker: one `AccountLink` per account, and one reconcile loop.

Invariant: one process has the stream of an account, by a lock in the data directory, because a broker may refuse a
second connection, and a refused process would retry for ever.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from structlog.typing import FilteringBoundLogger as Logger

from compactor.books.order_index import OrderIndex
from compactor.broker.adapters import open_broker
from compactor.broker.budget import BURST, LEFT_PERCENT, PER_MINUTE, Budget
from compactor.broker.credentials import BadCredentials
from compactor.broker.port import BrokerPort
from compactor.core import CompactorError
from compactor.daemon.account_link import AccountLink, Refusals
from compactor.daemon.health import Health
from compactor.daemon.reconcile_loop import ReconcileLoop
from compactor.ledger.files import Files
from compactor.ledger.paths import PRIVATE
from compactor.settings.accounts import Account
from compactor.sync.answers import AskedAccount
from compactor.sync.gaps import Gaps
from compactor.sync.reconcile import QUIET_SECONDS, Reconciler
from compactor.sync.stream_writer import StreamWriter

STOP_SECONDS = 0.8


class StreamInUse(CompactorError):
    """Another process holds the lock of an account's stream."""


class Links:
    """The links to all accounts. `stop` is set once the keys of all are revoked; `failure` then says why."""

    def __init__(
        self,
        data: Path,
        accounts: Sequence[Account],
        health: Health,
        log: Logger,
        stop: threading.Event,
        *,
        reconcile_seconds: int,
        requests_per_minute: int = PER_MINUTE,
        requests_left_percent: int = LEFT_PERCENT,
        quiet_seconds: int = QUIET_SECONDS,
        teams: Collection[str] = (),
    ) -> None:
        self.failure: BadCredentials | None = None
        self._data = data
        self._stop = stop
        self._health = health
        self._log = log
        self._reconcile_seconds = reconcile_seconds
        self._requests_per_minute = requests_per_minute
        self._requests_left_percent = requests_left_percent
        self._quiet_seconds = quiet_seconds
        self._files = Files()
        self._locks: list[int] = []
        self._index = OrderIndex(data, {*teams, *(one.team for one in accounts if one.team is not None)})
        self._accounts = accounts
        self._links: dict[str, AccountLink] = {}
        self._refusals: dict[str, Refusals] = {}
        self._revoked: set[str] = set()
        self._loop: ReconcileLoop | None = None

    def start(self) -> None:
        """Start to listen and reconcile, in threads. Raises StreamInUse; nothing was started then."""
        for account in self._accounts:
            self._acquire(account.name)
        budgets = {account.name: self._make_budget() for account in self._accounts}
        brokers = {one.name: open_broker(one.credentials, budget=budgets[one.name]) for one in self._accounts}
        now = time.time()
        for account in self._accounts:
            self._health.update_account(
                account.name, started_at=now, stream_since=now, reconcile_seconds=self._reconcile_seconds,
                requests_per_minute=self._requests_per_minute,
            )  # fmt: skip
            self._refusals[account.name] = Refusals(
                account.name, self._health, self._log, on_revoked=self._note_revoked, on_accepted=self._revoked.discard
            )
            self._links[account.name] = self._make_link(account, brokers[account.name])
        self._loop = self._make_loop(brokers, budgets)
        for link in self._links.values():
            link.start()
        self._loop.start()
        # Read the end of every log now, not when the first message arrives.
        threading.Thread(target=self._index.follow, name="order-index", daemon=True).start()
        threading.Thread(target=self._wait, name="links-stop", daemon=True).start()

    def finish(self) -> None:
        """Wait for the end of all threads, for a second at most; `stop` has to be set."""
        deadline = time.monotonic() + STOP_SECONDS
        ended = [link.join(deadline) for link in self._links.values()]
        ended += [self._loop.join(deadline)] if self._loop is not None else []
        while self._locks:
            self._files.release(self._locks.pop())
        self._log.info("links_stopped", accounts=len(self._links), left_behind=ended.count(False))

    def _make_budget(self) -> Budget:
        return Budget(self._requests_per_minute, left_percent=self._requests_left_percent, burst=BURST)

    def _make_link(self, account: Account, broker: BrokerPort) -> AccountLink:
        writer = StreamWriter(
            self._data, broker.translate, index=self._index, patterns=account.patterns, account_team=account.team
        )
        return AccountLink(
            account.name,
            broker.open_stream,
            writer,
            Gaps(self._data, account.name, broker, writer),
            self._health,
            self._log,
            refusals=self._refusals[account.name],
            on_gap=self._request_reconcile,
        )

    def _make_loop(self, brokers: dict[str, BrokerPort], budgets: dict[str, Budget]) -> ReconcileLoop:
        sources = [AskedAccount(one.name, brokers[one.name], one.team, tuple(one.patterns)) for one in self._accounts]
        return ReconcileLoop(
            self._links,
            Reconciler(self._data, sources, quiet_seconds=self._quiet_seconds, index=self._index),
            budgets,
            self._health,
            self._log,
            refusals=self._refusals,
            reconcile_seconds=self._reconcile_seconds,
            quiet_seconds=self._quiet_seconds,
        )

    def _request_reconcile(self) -> None:
        if self._loop is not None:
            self._loop.request()

    def _acquire(self, account: str) -> None:
        path = self._data / PRIVATE / f"stream-{account}.lock"
        self._files.make_directory(path.parent)
        lock = self._files.acquire(path)
        if lock is None:
            holder = (self._files.read(path) or b"").decode(errors="replace").strip() or "unknown"
            raise StreamInUse(
                f"{path}: process {holder} has the stream of account {account} already; expected to be the only one, "
                f"because a broker may allow one connection. Nothing was started. Leave it to that one, or end it."
            )
        self._locks.append(lock)

    def _wait(self) -> None:
        self._stop.wait()
        for link in self._links.values():
            link.stop()
        if self._loop is not None:
            self._loop.stop()

    def _note_revoked(self, account: str, error: BadCredentials) -> None:
        """End the program once no account is left whose keys may work; until then each is retried."""
        self._revoked.add(account)
        if self._revoked >= self._links.keys():
            self.failure = self.failure or error
            self._stop.set()
