"""Keeps one ledger current: looks whether its log changed, runs passes, and remembers how that went.

When and in which process a pass runs is the loop's business (`watch`). The rule that surprises: whatever goes wrong
with this ledger, also a bug, ends here as its state `degraded`, with a time to try again; no other ledger notices.
"""

from __future__ import annotations

import os
import random
import time
from datetime import UTC

import msgspec

from compactor.books.failures import Failure, describe_failure
from compactor.daemon.health import Health, LedgerHealth, printable
from compactor.daemon.notices import Log
from compactor.ledger import Compaction, Ledger, LedgerEntry, LockHeld, TooMuch
from compactor.ledger.paths import LOG

LIMIT_BYTES = 2 << 20
"""What a pass within the loop may read; it takes some 50 ms. Anything longer is done by a process of its own."""
RETRY_SECONDS_MIN = 1.0
RETRY_SECONDS_MAX = 60.0
HELD_RETRY_SECONDS = 0.2
HELD_SECONDS_MAX = 10.0
"""How long another process may hold the ledger's lock before that is a failure: a seal takes a second or so."""
REMIND_SECONDS = 60.0
IDLE_SECONDS = 600.0
"""After so long without a change the state leaves the memory; the next pass reads it from the checkpoint."""


class Keeper:
    """One ledger in the care of the daemon."""

    def __init__(self, place: LedgerEntry, retention_days: int | None, health: Health, log: Log) -> None:
        self.place = place
        # A name that is not UTF-8 is shown with escapes everywhere.
        self.team_id = printable(place.name)
        self.is_due = True
        self.has_errand = False
        """Whether a process of its own works on it; the loop keeps away meanwhile."""
        self.retry_at = 0.0
        # A directory that cannot be a ledger is shown with its problem, and nothing is done in it.
        team_id = place.team_id if place.problem is None else None
        self._ledger = Ledger(place.path, team_id=team_id, retention_days=retention_days)
        self._health = health
        self._log = log.bind(team_id=self.team_id)
        self._seen: tuple[int, int] | None = None
        self._failures = 0
        self._held_since: float | None = None
        self._reminded_at = 0.0
        self._used_at = time.monotonic()
        self._is_open = False
        self._show(LedgerHealth(self.team_id, printable(str(place.path)), since=time.time()))

    @property
    def health(self) -> LedgerHealth:
        """How the ledger is."""
        return self._health.ledgers[str(self.place.path)]

    def _show(self, health: LedgerHealth) -> None:
        self._health.ledgers[str(self.place.path)] = health

    # Looking.

    def look(self) -> bool:
        """Look at the log's inode and size; a change makes a pass due. False when the log is gone."""
        try:
            found = os.stat(self.place.path / LOG)
        except FileNotFoundError:
            return False
        except OSError as error:
            # The pass will say what is wrong, in full.
            self._log.debug("log_unseen", error=str(error))
            self.is_due = True
            return True
        seen = (found.st_ino, found.st_size)
        if seen != self._seen:
            self._seen = seen
            self.is_due = True
            health, now = self.health, time.time()
            self._show(
                msgspec.structs.replace(
                    health, log_bytes=found.st_size, lag_bytes=max(0, found.st_size - health.offset),
                    lag_since=health.lag_since or (now if found.st_size > health.offset else None),
                )
            )  # fmt: skip
        if self.health.state == "degraded":
            # What is in the way may be gone without any change of the log.
            self.is_due = True
        self._close_when_idle()
        return True

    def may_run(self, now: float) -> bool:
        """Whether a pass is due, and not to be put off because the last one failed."""
        return self.is_due and not self.has_errand and now >= self.retry_at

    # Passes.

    def run(self, checkpoint: bool = False) -> Compaction | None:
        """One pass within the loop; None where it failed. Raises TooMuch where it has to be done elsewhere."""
        self.is_due = False
        self._used_at = time.monotonic()
        try:
            if self.place.problem is not None:
                self.fail(Failure("bad_place", f"{self.place.path}: {self.place.problem}"))
                return None
            self._is_open = True
            compaction = self._ledger.compact(checkpoint=checkpoint, limit_bytes=LIMIT_BYTES)
        except TooMuch:
            raise
        except LockHeld as error:
            self._wait_for_holder(error)
            return None
        except Exception as error:
            self.fail(describe_failure(error, self.place.path))
            return None
        self.succeed(compaction)
        return compaction

    def _wait_for_holder(self, error: LockHeld) -> None:
        now = time.monotonic()
        self._held_since = self._held_since or now
        if now - self._held_since > HELD_SECONDS_MAX:
            self.fail(describe_failure(error, self.place.path))
        else:
            self.is_due, self.retry_at = True, now + HELD_RETRY_SECONDS

    def succeed(self, compaction: Compaction) -> None:
        """A pass was done, here or in a process of its own."""
        self._failures, self._held_since, self.retry_at = 0, None, 0.0
        before, now = self.health, time.time()
        if before.state == "degraded":
            self._log.info("ledger_recovered", kind=before.kind, degraded_seconds=round(now - before.since, 1))
        clock = self._ledger.clock
        log_bytes = max(before.log_bytes, compaction.offset + compaction.tail_bytes)
        tail_bytes = compaction.tail_bytes
        self._show(
            msgspec.structs.replace(
                before, state="current", kind=None, reason=None,
                since=before.since if before.state == "current" else now,
                offset=compaction.offset, log_bytes=log_bytes, lag_bytes=0, lag_since=None, tail_bytes=tail_bytes,
                tail_since=(before.tail_since or now) if tail_bytes else None,
                events=compaction.events, kinds=compaction.kinds, trades=compaction.trades,
                findings=compaction.findings, open_orders=compaction.open_orders,
                sealed_bytes=self._ledger.sealed_bytes or before.sealed_bytes,
                segments=self._ledger.segments or before.segments,
                last_event_at=clock.astimezone(UTC).isoformat() if clock is not None else before.last_event_at,
                passes=before.passes + 1, last_pass_at=now,
            )
        )  # fmt: skip

    def fail(self, failure: Failure) -> None:
        """A pass failed: say so once for each reason and now and then again, and try again later."""
        now = time.monotonic()
        delay = min(RETRY_SECONDS_MAX, RETRY_SECONDS_MIN * 2 ** min(self._failures, 10))
        # Ledgers that failed together, on a full disk, do not all try again at the same moment.
        self.retry_at = now + delay * random.uniform(0.8, 1.2)
        self._failures += 1
        self.is_due = True
        before = self.health
        is_new = before.state != "degraded" or before.kind != failure.kind
        if is_new or now - self._reminded_at >= REMIND_SECONDS:
            self._reminded_at = now
            self._log.error("ledger_degraded", kind=failure.kind, reason=failure.message, tries=self._failures)
        self._show(
            msgspec.structs.replace(
                before, state="degraded", kind=failure.kind, reason=printable(failure.message),
                since=time.time() if before.state != "degraded" else before.since,
            )
        )  # fmt: skip

    # Memory.

    @property
    def is_ahead_of_checkpoint(self) -> bool:
        """Whether the next process would have to fold again what this one has in memory."""
        return self._ledger.is_ahead_of_checkpoint

    def close(self) -> None:
        """Forget what is in memory; the next pass reads it from the checkpoint."""
        self._ledger.close()
        self._is_open = False

    def _close_when_idle(self) -> None:
        if self._is_open and not self.is_due and time.monotonic() - self._used_at > IDLE_SECONDS:
            if self.is_ahead_of_checkpoint:
                self.run(checkpoint=True)
            self.close()
