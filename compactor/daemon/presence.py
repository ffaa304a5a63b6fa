"""The lock that allows one daemon per data directory, and the report that the daemon publishes in the lock file.

The lock says whether a daemon runs; the text in the file is its last report. Note: the text is overwritten in place and
never grows, so that the daemon can report even if the disk is full.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import msgspec

from compactor.core import CompactorError
from compactor.daemon.health import (
    AccountHealth,
    Health,
    State,
    find_key_problem,
    find_reconcile_problem,
    find_stream_problem,
)
from compactor.ledger.files import Files
from compactor.ledger.paths import PRIVATE

LOCK = "daemon.lock"
TEXT_BYTES = 1 << 16
_TRIES = 20
_PAUSE_SECONDS = 0.05


class AlreadyRunning(CompactorError):
    """Another daemon holds the lock of the data directory."""


class LedgerReport(msgspec.Struct, frozen=True):
    """The daemon's report about one ledger; `since` is Unix seconds."""

    team_id: str
    state: State
    kind: str | None = None
    reason: str | None = None
    since: float = 0.0


class AccountReport(msgspec.Struct, frozen=True):
    """The daemon's report about the link to an account; `stale` lists the reasons why its data may be old."""

    account: str
    connected: bool = False
    stream_since: float = 0.0
    last_message_at: float | None = None
    last_reconcile_at: float | None = None
    reconnects: int = 0
    reconcile_failures: int = 0
    stale: list[str] = []


class DaemonReport(msgspec.Struct, frozen=True):
    """The last report of a running daemon; times are Unix seconds. Degraded ledgers come first."""

    pid: int
    started_at: float
    updated_at: float
    data: str
    ledgers: list[LedgerReport] = []
    accounts: list[AccountReport] = []


_decode = msgspec.json.Decoder(DaemonReport).decode


class Presence:
    """The acquired lock of a data directory, held until `close` or the end of the process."""

    def __init__(self, data: Path, descriptor: int) -> None:
        self._data = data
        self._descriptor = descriptor

    def publish(self, health: Health) -> None:
        """Overwrite the report in place. Raises OSError."""
        rows = sorted(health.snapshot(), key=lambda one: one.state != "degraded")
        ledgers = [LedgerReport(one.team_id, one.state, one.kind, one.reason, one.since) for one in rows]
        now = time.time()
        accounts = [_report_account(one, now) for one in health.accounts.values()]
        report = DaemonReport(health.pid, health.started_at, now, str(self._data), ledgers, accounts)
        try:
            os.pwrite(self._descriptor, _encode_padded(report), 0)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._data / PRIVATE / LOCK)) from None

    def close(self) -> None:
        """Release the lock."""
        os.close(self._descriptor)


def _report_account(row: AccountHealth, now: float) -> AccountReport:
    reasons = (
        ("keys", find_key_problem(row)),
        ("stream", find_stream_problem(row, now)),
        ("reconcile", find_reconcile_problem(row, now)),
    )
    return AccountReport(
        row.account, row.connected, row.stream_since, row.last_message_at, row.last_reconcile_at,
        max(0, row.connections - 1), row.reconcile_failures,
        [f"{name}: {reason[:500]}" for name, reason in reasons if reason is not None],
    )  # fmt: skip


def _encode_padded(report: DaemonReport) -> bytes:
    """Encode a report at a fixed length; if it is too long, the last ledgers are dropped."""
    text = msgspec.json.encode(report)
    while len(text) >= TEXT_BYTES:
        report = msgspec.structs.replace(report, ledgers=report.ledgers[: len(report.ledgers) * 3 // 4])
        text = msgspec.json.encode(report)
    return text.ljust(TEXT_BYTES - 1) + b"\n"


def acquire(data: Path) -> Presence:
    """Acquire the lock of a data directory. Raises AlreadyRunning, which names the holder, and OSError."""
    path = data / PRIVATE / LOCK
    files = Files()
    files.make_directory(path.parent)
    descriptor = files.open_or_create(path, os.O_RDWR)
    # `compactor status` holds the lock for a moment while it tests whether a daemon has it.
    for _ in range(_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_PAUSE_SECONDS)
        except OSError as error:
            os.close(descriptor)
            raise OSError(error.errno, error.strerror, str(path)) from None
        else:
            return Presence(data, descriptor)
    report = _read_text(descriptor)
    os.close(descriptor)
    who = f"process {report.pid}, which started at {_format_utc(report.started_at)}" if report else "another process"
    raise AlreadyRunning(
        f"{path}: {who}, watches {data} already; expected to be the only one. Nothing was changed. Leave it to that "
        f"one, or end it ({f'kill {report.pid}' if report else 'see fuser ' + str(path)}) and start again."
    )


def read_report(data: Path) -> DaemonReport | None:
    """The last report of the daemon of a data directory; None if no daemon runs."""
    try:
        descriptor = os.open(data / PRIVATE / LOCK, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_text(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _read_text(descriptor: int) -> DaemonReport | None:
    """Decode the report; retries if it was just being written."""
    for _ in range(5):
        try:
            return _decode(os.pread(descriptor, TEXT_BYTES, 0))
        except msgspec.DecodeError:
            time.sleep(0.01)
    return None


def _format_utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
