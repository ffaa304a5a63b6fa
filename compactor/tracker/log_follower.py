"""The thread of a tracker: finds the ledgers of a data directory, reads what is new, and hands it to the event loop.

Note: hints of the file system only save time. Every log is looked at every second, so a lost hint costs a second.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

from compactor.books.failures import describe_bad_entry, describe_failure
from compactor.daemon.hints import Hints
from compactor.ledger import LedgerEntry, discover
from compactor.ledger.errors import NoLedger
from compactor.ledger.files import Files
from compactor.tracker.change import RawChange
from compactor.tracker.log_mark import LogMark
from compactor.tracker.paced_restore import Pace
from compactor.tracker.tracked_ledger import LedgerBatch, TrackedLedger

POLL_SECONDS = 1.0
REMOVED_SECONDS = 600.0
"""After so long without its directory a ledger is dropped; until then it may have been moved away, and be put back."""
BATCHES_MAX = 8
"""How many batches may wait for the event loop before the thread waits for it."""

Apply = Callable[[LedgerBatch], None]


class LogFollower:
    """Follows every ledger of a data directory; `apply` is called in the loop's thread with each batch."""

    def __init__(self, data: Path, loop: asyncio.AbstractEventLoop, apply: Apply) -> None:
        self._data = data
        self._loop = loop
        self._apply = apply
        self._ledgers: dict[Path, TrackedLedger] = {}
        self._missing: dict[Path, float] = {}
        """Ledgers whose directories are gone, and the monotonic second at which that was seen."""
        self._problems: dict[Path, str] = {}
        """Why a ledger cannot be read now; the loop is told once."""
        self._lock = threading.Lock()
        self._room = threading.Semaphore(BATCHES_MAX)
        self._files = Files()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="order-tracker", daemon=True)
        self._poll_at = 0.0

    def start(self) -> None:
        """Start to follow; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Request the end; returns at once."""
        self._stop.set()

    def join(self) -> None:
        """Wait for the end, which takes milliseconds."""
        self._thread.join()

    def read_now(self, path: Path | None = None) -> None:
        """Read what is new of one ledger, or of all, in the caller's thread; not in that of the event loop."""
        with self._lock:
            self._find()
            ledgers = [one for one in self._ledgers.values() if path in (None, one.entry.path)]
        pace = Pace()
        for ledger in ledgers:
            self._read(ledger, pace)

    def _run(self) -> None:
        with Hints(self._data) as hints:
            while not self._stop.is_set():
                if time.monotonic() >= self._poll_at:
                    self._poll_at = time.monotonic() + POLL_SECONDS
                    with self._lock:
                        self._find()
                    due = list(self._ledgers.values())
                pace = Pace()
                for ledger in due:
                    if self._stop.is_set():
                        return
                    self._read(ledger, pace)
                hint = hints.wait(max(0.0, self._poll_at - time.monotonic()), self._stop)
                if hint.anything or hint.directories:
                    self._poll_at = 0.0
                due = [one for path in hint.logs if (one := self._ledgers.get(path)) is not None]
                if len(due) < len(hint.logs):
                    self._poll_at = 0.0

    def _find(self) -> None:
        try:
            entries = discover(self._data)
        except OSError:
            return
        for entry in entries:
            path = entry.path.resolve()
            if path in self._ledgers:
                continue
            if entry.problem is not None:
                self._hand_problem(entry, describe_bad_entry(entry).message)
            else:
                self._ledgers[path] = TrackedLedger(entry, self._files)
        self._drop_removed({entry.path.resolve() for entry in entries})

    def _drop_removed(self, found: set[Path]) -> None:
        """Drop the ledgers whose directories have been gone for long. Note: what only lost its log is not dropped."""
        now = time.monotonic()
        for path in list(self._ledgers):
            if path in found or path.exists():
                self._missing.pop(path, None)
            elif now - self._missing.setdefault(path, now) >= REMOVED_SECONDS:
                ledger = self._ledgers.pop(path)
                self._problems.pop(ledger.entry.path, None)
                del self._missing[path]
                self._hand(LedgerBatch(ledger.entry, is_removed=True))

    def _read(self, ledger: TrackedLedger, pace: Pace) -> None:
        with ledger.lock:
            try:
                # A log that was moved away and back is what it was, and has to be said to be well again.
                if ledger.is_changed() or ledger.entry.path in self._problems:
                    for batch in ledger.read(pace):
                        self._hand(batch)
                    self._problems.pop(ledger.entry.path, None)
            except Exception as error:
                self._hand_problem(ledger.entry, describe_failure(error, ledger.entry.path).message)

    def _hand_problem(self, entry: LedgerEntry, problem: str) -> None:
        if self._problems.get(entry.path) != problem:
            self._problems[entry.path] = problem
            self._hand(LedgerBatch(entry, problem=problem))

    def _hand(self, batch: LedgerBatch) -> None:
        """Hand a batch over; waits while the loop is behind."""
        while not self._room.acquire(timeout=0.01):
            if self._stop.is_set():
                return
        try:
            self._loop.call_soon_threadsafe(self._take, batch)
        except RuntimeError:
            # The loop is closed: nobody is there any more.
            self._stop.set()

    def _take(self, batch: LedgerBatch) -> None:
        self._room.release()
        self._apply(batch)

    def find_entry(self, path: Path) -> LedgerEntry:
        """The ledger at a path, as it was found. Raises NoLedger."""
        return self._find_ledger(path).entry

    def read_mark(self, path: Path, offset: int) -> LogMark:
        """The mark of the log of a ledger at an offset. Raises LedgerError. Not in the thread of the event loop."""
        return self._find_ledger(path).read_mark(offset)

    def _find_ledger(self, path: Path) -> TrackedLedger:
        for ledger in list(self._ledgers.values()):
            if ledger.entry.path == path:
                return ledger
        raise NoLedger(path, "this ledger is no more, and was dropped")

    def find_order(self, order_id: str, team: str | None) -> RawChange | None:
        """An order of any ledger, or of a team's, read from its log if need be. Raises LedgerError.

        Not in the thread of the event loop. Where an order was assigned from one team to another, the latter's counts.
        """
        found = None
        for ledger in list(self._ledgers.values()):
            if team in (None, ledger.team_id):
                change = ledger.find_order(order_id)
                if change is not None and (found is None or found.assigned_to is not None):
                    found = change
        return found
