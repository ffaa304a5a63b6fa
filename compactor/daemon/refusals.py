"""Decide when keys that the broker refuses count as revoked; until then they are retried, visibly.

The stream and the reconciles of an account report here. Note: refusals are counted over minutes, not tries, because
keys in use were seen to be refused for a while and to work again. An acceptance by either of them ends a refusal.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger as Logger

from compactor.broker.credentials import BadCredentials
from compactor.daemon.health import Health

START_SECONDS = 120.0
"""How long keys that have not worked yet are retried."""
WORKED_SECONDS = 900.0
"""How long keys that have worked are retried."""
REMIND_SECONDS = 60.0


class Refusals:
    """The refusals of one account's keys. Safe for several threads.

    `on_revoked` is called at every refusal beyond the limit, `on_accepted` once the keys work again.
    """

    def __init__(
        self,
        account: str,
        health: Health,
        log: Logger,
        *,
        on_revoked: Callable[[str, BadCredentials], None],
        on_accepted: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._account = account
        self._health = health
        self._log = log.bind(account=account)
        self._on_revoked = on_revoked
        self._on_accepted = on_accepted
        self._clock = clock
        self._since: float | None = None
        self._has_worked = False
        self._logged_at = 0.0
        self._lock = threading.Lock()

    def refuse(self, error: BadCredentials) -> None:
        """The broker refused the keys."""
        with self._lock:
            now = self._clock()
            is_first = self._since is None
            since = self._since = now if self._since is None else self._since
            left = (WORKED_SECONDS if self._has_worked else START_SECONDS) - (now - since)
            is_logged = is_first or left <= 0 or now - self._logged_at >= REMIND_SECONDS
            self._logged_at = now if is_logged else self._logged_at
        row = self._health.add_to_account(self._account, key_refusals=1)
        changes = {"keys_refused_since": time.time()} if row.keys_refused_since is None else {}
        self._health.update_account(self._account, keys_reason=str(error), **changes)
        if is_logged:
            again = max(0, round(left))
            self._log.error("credentials_refused", reason=str(error), retried_for_seconds=again)
        if left <= 0:
            self._on_revoked(self._account, error)

    def accept(self) -> None:
        """The broker accepted the keys."""
        with self._lock:
            since, self._since, self._has_worked = self._since, None, True
        if since is None:
            return
        self._health.update_account(self._account, keys_refused_since=None, keys_reason=None)
        self._log.info("credentials_accepted", refused_seconds=round(self._clock() - since, 1))
        self._on_accepted(self._account)
