"""Which daemon has a data directory, and what it says of its ledgers: a lock on a file in `DATA/.compactor/`.

The lock is the truth about whether a daemon runs; the text in the file is what it last said. The rule that surprises:
the text is written over in place and never grows, so that a full disk does not keep the daemon from saying so.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import msgspec

from compactor.daemon.health import AccountHealth, Health, State
from compactor.daemon.staleness import reconcile_reason, stream_reason
from compactor.ledger.paths import PRIVATE

LOCK = "daemon.lock"
TEXT_BYTES = 1 << 16
_TAKE_TRIES = 20
_TAKE_PAUSE_SECONDS = 0.05


class AlreadyRunning(Exception):
    """Another daemon has the data directory."""


class LedgerReport(msgspec.Struct, frozen=True):
    """What the daemon says of one ledger; `since` is Unix seconds."""

    team_id: str
    state: State
    kind: str | None = None
    reason: str | None = None
    since: float = 0.0


class AccountReport(msgspec.Struct, frozen=True):
    """What the daemon says of the link to an account; `stale` is why what we have from it may be old."""

    account: str
    connected: bool = False
    stream_since: float = 0.0
    last_message_at: float | None = None
    last_reconcile_at: float | None = None
    reconnects: int = 0
    reconcile_failures: int = 0
    stale: list[str] = []


class DaemonReport(msgspec.Struct, frozen=True):
    """What a running daemon last said; times are Unix seconds. Of many ledgers, those that are degraded come first."""

    pid: int
    started_at: float
    updated_at: float
    data: str
    ledgers: list[LedgerReport] = []
    accounts: list[AccountReport] = []


_decode = msgspec.json.Decoder(DaemonReport).decode


class Presence:
    """The lock of a data directory, held until `close` or the end of the process."""

    def __init__(self, data: Path, descriptor: int) -> None:
        self._data = data
        self._descriptor = descriptor

    def publish(self, health: Health) -> None:
        """Say how the ledgers are, in place. Raises OSError."""
        rows = sorted(health.snapshot(), key=lambda one: one.state != "degraded")
        ledgers = [LedgerReport(one.team_id, one.state, one.kind, one.reason, one.since) for one in rows]
        now = time.time()
        accounts = [_account(one, now) for one in health.accounts.values()]
        report = DaemonReport(health.pid, health.started_at, now, str(self._data), ledgers, accounts)
        os.pwrite(self._descriptor, _padded(report), 0)

    def close(self) -> None:
        """Give the data directory back."""
        os.close(self._descriptor)


def _account(row: AccountHealth, now: float) -> AccountReport:
    reasons = (("stream", stream_reason(row, now)), ("reconcile", reconcile_reason(row, now)))
    return AccountReport(
        row.account, row.connected, row.stream_since, row.last_message_at, row.last_reconcile_at,
        max(0, row.connections - 1), row.reconcile_failures,
        [f"{name}: {reason[:500]}" for name, reason in reasons if reason is not None],
    )  # fmt: skip


def _padded(report: DaemonReport) -> bytes:
    """A text of always the same length; what does not fit loses its last ledgers."""
    text = msgspec.json.encode(report)
    while len(text) >= TEXT_BYTES:
        report = msgspec.structs.replace(report, ledgers=report.ledgers[: len(report.ledgers) * 3 // 4])
        text = msgspec.json.encode(report)
    return text.ljust(TEXT_BYTES - 1) + b"\n"


def take(data: Path) -> Presence:
    """Take a data directory for this process. Raises AlreadyRunning, which names the other one; OSError."""
    path = data / PRIVATE / LOCK
    path.parent.mkdir(exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    # `compactor status` holds the lock for a moment when it asks whether a daemon has it.
    for _ in range(_TAKE_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_TAKE_PAUSE_SECONDS)
        else:
            return Presence(data, descriptor)
    report = _said(descriptor)
    os.close(descriptor)
    who = f"process {report.pid}, which started at {_utc(report.started_at)}" if report else "another process"
    raise AlreadyRunning(
        f"{path}: {who}, watches {data} already; expected to be the only one. Nothing was changed. Leave it to that "
        f"one, or end it ({f'kill {report.pid}' if report else 'see fuser ' + str(path)}) and start again."
    )


def read(data: Path) -> DaemonReport | None:
    """What the daemon of a data directory last said, or None when none runs."""
    try:
        descriptor = os.open(data / PRIVATE / LOCK, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _said(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _said(descriptor: int) -> DaemonReport | None:
    """The text as it was last written; read again where it was just being written."""
    for _ in range(5):
        try:
            return _decode(os.pread(descriptor, TEXT_BYTES, 0))
        except msgspec.DecodeError:
            time.sleep(0.01)
    return None


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
