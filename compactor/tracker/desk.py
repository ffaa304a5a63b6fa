"""Place, replace, cancel and reconcile with the accounts of a data directory, in threads, for the tracker.

The accounts are those of `compactor.toml` and the environment. All that a desk asks of an account
shares one budget; other processes, such as the daemon, have their own. Note: a call that is cancelled goes on in its
thread: what was asked of the broker cannot be taken back by not waiting for it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from compactor.books.turns import ReconcileBusy
from compactor.broker.adapters import open_broker
from compactor.broker.budget import Budget
from compactor.broker.credentials import BadCredentials
from compactor.broker.placing import Trader
from compactor.broker.port import Fields, NotFound
from compactor.settings.accounts import Account, find_accounts
from compactor.settings.configuration import Configuration, load
from compactor.sync.answers import AskedAccount
from compactor.sync.reconcile import Reconciler
from compactor.sync.reconciled import Reconciled

BUSY_SECONDS = 60.0
_PAUSE_SECONDS = 0.1

Result = TypeVar("Result")


class TradingDesk:
    """The accounts of a data directory. Safe for several threads; nothing is opened before it is needed.

    Methods raise BadConfiguration, BadCredentials and BrokerError.
    """

    def __init__(self, data: Path, config: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> None:
        self._data = data
        self._config = Path(config) if config is not None else None
        self._environ = environ
        self._lock = threading.Lock()
        self._reconciling = threading.Lock()
        self._loaded: tuple[Configuration, list[Account], dict[str, Budget]] | None = None
        self._idle: dict[str, list[Trader]] = {}
        self._reconciler: Reconciler | None = None

    def submit(self, team: str, request: Any, account: str | None, tags: Sequence[str], note: str | None) -> Fields:
        """As `Trader.submit_order`, with the account that is named, else the team's own, else the first."""
        accounts = self._accounts()
        own = [one for one in accounts if account in (None, one.name)]
        if not own:
            names = ", ".join(one.name for one in accounts)
            raise BadCredentials(f"there is no account {account!r}; expected one of {names}, as the settings name them")
        chosen = next((one for one in own if account is None and one.team == team), own[0])
        with self._trader(chosen) as trader:
            return trader.submit_order(team, request, tags=tags, note=note)

    def replace(self, order_id: str, changes: Mapping[str, Any], tags: Sequence[str], note: str | None) -> Fields:
        """As `Trader.replace_order`, in the account that has the order."""
        return self._try_accounts(lambda trader: trader.replace_order(order_id, tags=tags, note=note, **changes))

    def cancel(self, order_id: str) -> None:
        """As `Trader.cancel`, in the account that has the order."""
        self._try_accounts(lambda trader: trader.cancel(order_id))

    def reconcile(self) -> Reconciled:
        """As `Reconciler.run`; waits while another process, such as a daemon, reconciles. Raises ReconcileBusy."""
        with self._reconciling:
            reconciler = self._reconciler = self._reconciler or self._make_reconciler()
            until = time.monotonic() + BUSY_SECONDS
            while True:
                try:
                    return reconciler.run()
                except ReconcileBusy:
                    if time.monotonic() >= until:
                        raise
                    time.sleep(_PAUSE_SECONDS)

    def close(self) -> None:
        """Forget what is in memory."""
        with self._lock:
            for trader in [one for idle in self._idle.values() for one in idle]:
                trader.close()
            self._idle.clear()
            if self._reconciler is not None:
                self._reconciler.close()
                self._reconciler = None

    def _load(self) -> tuple[Configuration, list[Account], dict[str, Budget]]:
        with self._lock:
            if self._loaded is None:
                found = load(self._data, config=self._config, environ=self._environ)
                accounts = find_accounts(found.settings.accounts, self._environ)
                budgets = {one.name: Budget(found.settings.requests_per_minute) for one in accounts}
                self._loaded = found, accounts, budgets
            return self._loaded

    def _accounts(self) -> list[Account]:
        return self._load()[1]

    @contextmanager
    def _trader(self, account: Account) -> Iterator[Trader]:
        """A trader that no other thread uses meanwhile."""
        budget = self._load()[2][account.name]
        with self._lock:
            idle = self._idle.setdefault(account.name, [])
            trader = idle.pop() if idle else None
        trader = trader or Trader(self._data, account.credentials, budget=budget)
        try:
            yield trader
        finally:
            with self._lock:
                idle.append(trader)

    def _try_accounts(self, do: Callable[[Trader], Result]) -> Result:
        missing: NotFound | None = None
        for account in self._accounts():
            try:
                with self._trader(account) as trader:
                    return do(trader)
            except NotFound as error:
                missing = error
        assert missing is not None, "there is one account at least"
        raise missing

    def _make_reconciler(self) -> Reconciler:
        found, accounts, budgets = self._load()
        asked = []
        for one in accounts:
            broker = open_broker(one.credentials, budget=budgets[one.name])
            asked.append(AskedAccount(one.name, broker, one.team, tuple(one.patterns)))
        return Reconciler(self._data, asked, teams=found.settings.teams)
