"""The lock of a data directory, for work that moves orders between ledgers: reconciling, assigning, importing.

Whoever changes which ledger has an order holds this lock, so that no two processes plan from a view that the other one
is changing. `compact_in_turn` waits for the lock of one ledger instead.

Note: appending needs no lock, so streams and applications never wait.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compactor.core import CompactorError
from compactor.ledger import Compaction, Ledger, LockHeld
from compactor.ledger.files import Files
from compactor.ledger.paths import PRIVATE

if TYPE_CHECKING:
    from compactor.ledger.seal import Sealed

LOCK = "reconcile.lock"
_TRIES = 100
_PAUSE_SECONDS = 0.05
_SEAL_PAUSE_SECONDS = 0.005


class ReconcileBusy(CompactorError):
    """Another process is reconciling this data directory, or assigning orders in it."""


@contextmanager
def turn(data: Path, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold the data directory's lock; waits for at most so long. Raises ReconcileBusy, which names the holder."""
    files, path = Files(), data / PRIVATE / LOCK
    files.make_directory(path.parent)
    until = time.monotonic() + wait_seconds
    while (descriptor := files.acquire(path)) is None:
        if time.monotonic() >= until:
            holder = (files.read(path) or b"").decode(errors="replace").strip() or "unknown"
            raise ReconcileBusy(
                f"{path}: process {holder} reconciles {data} or assigns orders in it; wait for it, or end it"
            )
        time.sleep(_PAUSE_SECONDS)
    try:
        yield
    finally:
        files.release(descriptor)


def compact_in_turn(ledger: Ledger) -> Compaction | None:
    """Compact; returns None where another process, usually the daemon, has compacted meanwhile. Raises LedgerError."""
    for attempt in range(_TRIES):
        try:
            return ledger.compact()
        except LockHeld:
            if attempt == _TRIES - 1:
                raise
            if ledger.status().lag_bytes == 0:
                return None
            time.sleep(_PAUSE_SECONDS)
    raise AssertionError("the last attempt returns or raises")


def seal_in_turn(ledger: Ledger, wait_seconds: float, **options: Any) -> Sealed:
    """Seal; waits for so long while another process has the ledger's lock. Raises LedgerError."""
    until = time.monotonic() + wait_seconds
    while True:
        try:
            return ledger.seal(**options)
        except LockHeld:
            if time.monotonic() >= until:
                raise
            # Shorter than between two passes of a daemon, which holds the lock for milliseconds.
            time.sleep(_SEAL_PAUSE_SECONDS)
