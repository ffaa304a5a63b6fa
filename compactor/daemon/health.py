"""How the daemon and each of its ledgers are, in memory: written by the loop, read by metrics, HTTP and status.

It decides nothing. The rule that surprises: rows are replaced, never changed, so a reader in another thread needs no
lock to see one of them whole.
"""

from __future__ import annotations

import os
import time
from typing import Literal

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


class Health:
    """The picture of a running daemon. `last_progress` is the monotonic second of the loop's last turn."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.started_at = time.time()
        self.last_progress = time.monotonic()
        self.caught_up = False
        self.ledgers: dict[str, LedgerHealth] = {}
        """By the path of the ledger."""

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
