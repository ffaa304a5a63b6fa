"""The health of the daemon, its ledgers and accounts, in memory; metrics, HTTP and status read it.

It also decides whether what we have from the broker may be stale: a stream that is down, a reconcile that is overdue.

Note: rows are replaced, never changed, so a reader in another thread needs no lock. A silent stream is not stale,
because a quiet market has nothing to report; the reconcile detects a mute stream and reconnects it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import msgspec

State = Literal["catching_up", "current", "degraded"]

DOWN_SECONDS_MAX = 60.0
OVERDUE_FACTOR = 3
"""A reconcile is overdue if none has succeeded for so many of its intervals."""


class LedgerHealth(msgspec.Struct, frozen=True):
    """The health of one ledger. Times are Unix seconds; `lag_since` and `tail_since` are None if nothing is waiting."""

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
    """The health of the link to one account at the broker. Times are Unix seconds.

    `stream_since` is when the stream last connected or disconnected. The reasons are None while there is no problem.
    `events` were appended for `messages`; `untold_orders` counts orders about which the stream missed something.
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
    """Lines that could not be written yet, for example on a full disk; they are kept and retried."""
    last_message_at: float | None = None
    mute: int = 0
    """How often the stream was found to be mute."""
    reconciles: int = 0
    reconcile_failures: int = 0
    reconcile_reason: str | None = None
    untold_orders: int = 0
    last_reconcile_at: float | None = None
    """The start of the last successful reconcile."""
    differences: int = 0
    """Differences that the last reconcile could not repair."""
    positions_differing: int = 0
    """Positions that are not what the trades add up to."""
    resend: str | None = None
    requests_used: int = 0
    requests_per_minute: int = 0
    keys_refused_since: float | None = None
    """Since when the broker refuses the keys; None while it accepts them."""
    keys_reason: str | None = None
    key_refusals: int = 0


class Health:
    """The health of a running daemon. `last_progress` is the monotonic second of the loop's last turn."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.started_at = time.time()
        self.last_progress = time.monotonic()
        self.caught_up = False
        self.ledgers: dict[str, LedgerHealth] = {}
        """By the path of the ledger."""
        self.accounts: dict[str, AccountHealth] = {}
        """By the name of the account."""
        self.unreconciled: dict[str, str] = {}
        """The teams whose ledgers the last reconcile could not read or write, and why."""
        self._accounts_lock = threading.Lock()

    def update_account(self, account: str, **changes: Any) -> AccountHealth:
        """Change the row of an account. Safe from several threads."""
        with self._accounts_lock:
            row = self.accounts.get(account, AccountHealth(account))
            row = self.accounts[account] = msgspec.structs.replace(row, **changes)
            return row

    def add_to_account(self, account: str, **more: int) -> AccountHealth:
        """Add to the counters of an account. Safe from several threads."""
        with self._accounts_lock:
            row = self.accounts.get(account, AccountHealth(account))
            sums = {name: getattr(row, name) + number for name, number in more.items()}
            row = self.accounts[account] = msgspec.structs.replace(row, **sums)
            return row

    def snapshot(self) -> list[LedgerHealth]:
        """The ledgers as of now, sorted by team id."""
        # Copied in one step, because the loop may add a ledger meanwhile.
        ledgers = list(self.ledgers.values())
        return sorted(ledgers, key=lambda one: (one.team_id, one.path))

    @property
    def degraded(self) -> list[LedgerHealth]:
        """The ledgers that cannot be kept current."""
        return [one for one in self.snapshot() if one.state == "degraded"]


class Freshness(NamedTuple):
    """One thing of an account that can be stale; `reason` is None while it is not."""

    name: str
    reason: str | None


def check_accounts(health: Health, now: float) -> Iterator[Freshness]:
    """Check the keys, the stream and the reconciliation of each account, as of `now` in Unix seconds."""
    for row in sorted(health.accounts.values(), key=lambda one: one.account):
        yield Freshness(f"keys {row.account}", find_key_problem(row))
        yield Freshness(f"stream {row.account}", find_stream_problem(row, now))
        yield Freshness(f"reconcile {row.account}", find_reconcile_problem(row, now))


def find_key_problem(row: AccountHealth) -> str | None:
    """Why an account's keys do not work; None if they do, or are not refused yet."""
    if row.keys_refused_since is None:
        return None
    return f"refused since {_format_utc(row.keys_refused_since)}, and retried: {row.keys_reason}"


def find_stream_problem(row: AccountHealth, now: float) -> str | None:
    """Why an account's stream is stale; None if it is not."""
    if row.waiting_lines:
        return f"{row.waiting_lines} lines could not be written yet: {row.stream_reason or 'see the log'}"
    if row.connected or now - row.stream_since <= DOWN_SECONDS_MAX:
        return None
    return f"not connected since {_format_utc(row.stream_since)}: {row.stream_reason or 'no answer yet'}"


def find_reconcile_problem(row: AccountHealth, now: float) -> str | None:
    """Why an account's reconciliation is stale; None if it is not."""
    last = row.last_reconcile_at
    if now - (last or row.started_at) <= OVERDUE_FACTOR * row.reconcile_seconds:
        return None
    since = f"none has gone well since {_format_utc(last)}" if last is not None else "none has gone well yet"
    return f"{since}: {row.reconcile_reason or 'it has not ended'}"


def _format_utc(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
