"""Everything that links a data directory with the broker: one link an account, started and stopped together.

What an account is stands in the configuration; what a link does, in `link`. The rule that surprises: one process holds
an account's stream, by a lock in the data directory, because Alpaca refuses the second connection of an account and a
process that was refused would try for ever.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

from compactor.books.order_index import Owners
from compactor.broker.budget import PER_MINUTE, Budget
from compactor.broker.credentials import BadCredentials
from compactor.broker.resend import Replay
from compactor.broker.rest import Broker
from compactor.broker.stream import Stream
from compactor.daemon.healing import Healing
from compactor.daemon.health import Health
from compactor.daemon.link import Link
from compactor.daemon.notices import Log
from compactor.ledger.files import Files
from compactor.ledger.paths import PRIVATE
from compactor.settings.accounts import Account
from compactor.sync.answers import Asked
from compactor.sync.gaps import Gaps
from compactor.sync.reconcile import QUIET_SECONDS, Reconciler
from compactor.sync.stream_writer import StreamWriter

STOP_SECONDS = 0.8


class StreamTaken(Exception):
    """Another process has the stream of an account."""


class Live:
    """The links to all accounts. `stop` is set when one of them ends for good; `failure` then says why."""

    def __init__(
        self,
        data: Path,
        accounts: Sequence[Account],
        health: Health,
        log: Log,
        stop: threading.Event,
        *,
        reconcile_seconds: int,
        requests_per_minute: int = PER_MINUTE,
        quiet_seconds: int = QUIET_SECONDS,
    ) -> None:
        self.failure: BadCredentials | None = None
        self._data = data
        self._stop = stop
        self._health = health
        self._log = log
        self._reconcile_seconds = reconcile_seconds
        self._requests_per_minute = requests_per_minute
        self._quiet_seconds = quiet_seconds
        self._files = Files()
        self._locks: list[int] = []
        self._owners = Owners(data)
        self._accounts = accounts
        self._links: dict[str, Link] = {}
        self._healing: Healing | None = None

    def start(self) -> None:
        """Listen and reconcile from now on, in threads. Raises StreamTaken; nothing was then started."""
        for account in self._accounts:
            self._take(account.name)
        budgets = {account.name: Budget(self._requests_per_minute) for account in self._accounts}
        now = time.time()
        for account in self._accounts:
            self._health.update_account(
                account.name, started_at=now, stream_since=now, reconcile_seconds=self._reconcile_seconds,
                requests_per_minute=self._requests_per_minute,
            )  # fmt: skip
            self._links[account.name] = self._link(account, budgets[account.name])
        self._healing = self._heal(budgets)
        for link in self._links.values():
            link.start()
        self._healing.start()
        # The last part of every log is read now and not when the first message has come.
        threading.Thread(target=self._owners.follow, name="owners", daemon=True).start()
        threading.Thread(target=self._wait, name="live-stop", daemon=True).start()

    def finish(self) -> None:
        """Wait until all has ended, for a second at most; `stop` has to be set."""
        deadline = time.monotonic() + STOP_SECONDS
        ended = [link.join(deadline) for link in self._links.values()]
        ended += [self._healing.join(deadline)] if self._healing is not None else []
        while self._locks:
            self._files.unlock(self._locks.pop())
        self._log.info("links_stopped", accounts=len(self._links), left_behind=ended.count(False))

    def _link(self, account: Account, budget: Budget) -> Link:
        writer = StreamWriter(self._data, owners=self._owners, patterns=account.patterns, account_team=account.team)
        replay = Replay(account.credentials, budget=budget)
        return Link(
            account.name,
            lambda link: Stream(account.credentials, link),
            writer,
            Gaps(self._data, account.name, replay, writer),
            self._health,
            self._log,
            on_gap=self._want,
            on_end=self._end,
        )

    def _heal(self, budgets: dict[str, Budget]) -> Healing:
        sources = [
            Asked(one.name, Broker(one.credentials, budget=budgets[one.name]), one.team, tuple(one.patterns))
            for one in self._accounts
        ]
        return Healing(
            self._links,
            Reconciler(self._data, sources, quiet_seconds=self._quiet_seconds),
            budgets,
            self._health,
            self._log,
            on_end=self._end,
            reconcile_seconds=self._reconcile_seconds,
            quiet_seconds=self._quiet_seconds,
        )

    def _want(self) -> None:
        if self._healing is not None:
            self._healing.want()

    def _take(self, account: str) -> None:
        path = self._data / PRIVATE / f"stream-{account}.lock"
        self._files.make_directory(path.parent)
        lock = self._files.lock(path)
        if lock is None:
            holder = (self._files.read(path) or b"").decode(errors="replace").strip() or "unknown"
            raise StreamTaken(
                f"{path}: process {holder} has the stream of account {account} already; expected to be the only one, "
                f"because Alpaca allows one connection. Nothing was started. Leave it to that one, or end it."
            )
        self._locks.append(lock)

    def _wait(self) -> None:
        self._stop.wait()
        for link in self._links.values():
            link.stop()
        if self._healing is not None:
            self._healing.stop()

    def _end(self, error: BadCredentials) -> None:
        self.failure = self.failure or error
        self._stop.set()
