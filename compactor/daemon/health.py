"""How the daemon, its ledgers and accounts are, in memory: written by those who work, read by metrics, HTTP, status.

It decides nothing. The rule that surprises: rows are replaced, never changed, so a reader in another thread needs no
lock to see one of them whole.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any, Literal

import msgspec

State = Literal["catching_up", "current", "degraded"]


class LedgerHealth(msgspec.Struct, frozen=True):
    """How one ledger is. Times are Unix seconds; `lag_since` and `tail_since` are None where nothing waits."""

    team_id: str
    path: str
    state: State = "catching_up"
    kind: str | None = None
    reason: str | None = None
    since: float = 0.0
    offset: int = 0
    log_bytes: int = 0
    lag_bytes: int = 0
    lag_since: float | None = None
    tail_bytes: int = 0
    tail_since: float | None = None
    events: int = 0
    kinds: dict[str, int] = {}
    """`events` by name."""
    trades: int = 0
    findings: int = 0
    open_orders: int = 0
    sealed_bytes: int = 0
    segments: int = 0
    last_event_at: str | None = None
    passes: int = 0
    last_pass_at: float | None = None


class AccountHealth(msgspec.Struct, frozen=True):
    """How the link to one account at the broker is. Times are Unix seconds.

    `stream_since` is since when it is connected, or is not; `reason` are why something does not work, None where it
    does. `events` were appended for `messages`; `untold_orders` are those of which the stream kept something to itself.
    """

    account: str
    started_at: float = 0.0
    reconcile_seconds: int = 300
    connected: bool = False
    stream_since: float = 0.0
    stream_reason: str | None = None
    connections: int = 0
    messages: int = 0
    events: int = 0
    unreadable: int = 0
    waiting_lines: int = 0
    """Lines that could not be written yet, on a full disk; they are kept and tried again."""
    last_message_at: float | None = None
    mute: int = 0
    """How often the stream was found to have kept something to itself."""
    reconciles: int = 0
    reconcile_failures: int = 0
    reconcile_reason: str | None = None
    untold_orders: int = 0
    last_reconcile_at: float | None = None
    """When the last reconcile that went well began."""
    differences: int = 0
    """What the last reconcile found to differ and could not put right."""
    replay: str | None = None
    requests_used: int = 0
    requests_per_minute: int = 0


class Health:
    """The picture of a running daemon. `last_progress` is the monotonic second of the loop's last turn."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.started_at = time.time()
        self.last_progress = time.monotonic()
        self.caught_up = False
        self.ledgers: dict[str, LedgerHealth] = {}
        """By the path of the ledger."""
        self.accounts: dict[str, AccountHealth] = {}
        """By the name of the account."""
        self._accounts_lock = threading.Lock()

    def update_account(self, account: str, **changes: Any) -> AccountHealth:
        """Change the row of an account, which several threads work for."""
        with self._accounts_lock:
            row = self.accounts.get(account, AccountHealth(account))
            row = self.accounts[account] = msgspec.structs.replace(row, **changes)
            return row

    def add_to_account(self, account: str, **more: int) -> AccountHealth:
        """Add to the numbers of an account."""
        with self._accounts_lock:
            row = self.accounts.get(account, AccountHealth(account))
            sums = {name: getattr(row, name) + number for name, number in more.items()}
            row = self.accounts[account] = msgspec.structs.replace(row, **sums)
            return row

    def snapshot(self) -> list[LedgerHealth]:
        """The ledgers by team id, as of now."""
        # Copied in one step: the loop may add a ledger meanwhile.
        ledgers = list(self.ledgers.values())
        return sorted(ledgers, key=lambda one: (one.team_id, one.path))

    @property
    def degraded(self) -> list[LedgerHealth]:
        """The ledgers that cannot be kept current, and why."""
        return [one for one in self.snapshot() if one.state == "degraded"]


def printable(name: str) -> str:
    """A name as UTF-8 can carry it: names of directories may be any bytes, which come as lone surrogates."""
    return name.encode("utf-8", "backslashreplace").decode()
