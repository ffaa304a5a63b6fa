"""Keep one ledger current: check its log for changes, run passes, record the outcome.

`watcher` decides when and in which process a pass runs. Note: any failure of this ledger, also a bug, becomes its state
`degraded` with a time to retry; no other ledger is affected.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping
from datetime import UTC, timedelta
from typing import Any

import msgspec
from structlog.typing import FilteringBoundLogger as Logger

from compactor.books.failures import Failure, describe_failure
from compactor.core.printable import printable
from compactor.daemon.health import Health, LedgerHealth
from compactor.ledger import Compaction, Ledger, LedgerEntry, LedgerError, LockHeld, TooMuch
from compactor.ledger.paths import LOG

LIMIT_SECONDS = 0.1
"""How long a pass within the loop may fold. A longer one runs in a process of its own, so that no ledger takes the
others' time."""
APART_SECONDS = 10.0
"""How long every pass of a ledger runs in a process of its own, after one within the loop took too long."""
LIMIT_BYTES = 2 << 20
"""What a pass within the loop may read, which takes about 50 ms. A longer pass runs in its own process."""
RETRY_SECONDS_MIN = 1.0
RETRY_SECONDS_MAX = 60.0
HELD_RETRY_SECONDS = 0.2
HELD_SECONDS_MAX = 10.0
"""How long another process may hold the ledger's lock before that is a failure; a seal takes about a second."""
SEAL_SECONDS = 300.0
"""The interval at which a ledger is checked for events that are old enough to be sealed, and of retries."""
SEAL_HELD_SECONDS = 5.0
REMIND_SECONDS = 60.0
IDLE_SECONDS = 600.0
"""After so long without a change the state is dropped from memory; the next pass reads the checkpoint."""


class Keeper:
    """One ledger in the care of the daemon."""

    def __init__(self, entry: LedgerEntry, retention_days: int | None, health: Health, log: Logger) -> None:
        self.entry = entry
        # A name that is not UTF-8 is escaped everywhere.
        self.team_id = printable(entry.name)
        self.is_due = True
        self.has_errand = False
        """Whether another process compacts it; the loop leaves it alone meanwhile."""
        self.is_sealing = False
        """Whether another process seals it. Passes go on until that one has the ledger's lock, and then wait for it."""
        self.retry_at = 0.0
        # A directory that cannot be a ledger is reported with its problem and left alone.
        team_id = entry.team_id if entry.problem is None else None
        self._ledger = Ledger(entry.path, team_id=team_id, retention_days=retention_days)
        self._health = health
        self._log = log.bind(team_id=self.team_id)
        self._seal_at = 0.0
        self._seal_retry_at = 0.0
        self._has_sealed = False
        self._seen: tuple[int, int] | None = None
        self._apart_until = 0.0
        self._failures = 0
        self._held_since: float | None = None
        self._reminded_at = 0.0
        self._used_at = time.monotonic()
        self._is_open = False
        self._publish(LedgerHealth(self.team_id, printable(str(entry.path)), since=time.time()))

    @property
    def health(self) -> LedgerHealth:
        """The health of the ledger."""
        return self._health.ledgers[str(self.entry.path)]

    def _publish(self, health: LedgerHealth) -> None:
        self._health.ledgers[str(self.entry.path)] = health

    # Looking.

    def look(self) -> bool:
        """Check the log's inode and size; a change makes a pass due. False if the log is gone."""
        try:
            found = os.stat(self.entry.path / LOG)
        except FileNotFoundError:
            return False
        except OSError as error:
            # The pass will report the problem in full.
            self._log.debug("log_unseen", error=str(error))
            self.is_due = True
            return True
        seen = (found.st_ino, found.st_size)
        if seen != self._seen:
            self._seen = seen
            self.is_due = True
            health, now = self.health, time.time()
            self._publish(
                msgspec.structs.replace(
                    health, log_bytes=found.st_size, lag_bytes=max(0, found.st_size - health.offset),
                    lag_since=health.lag_since or (now if found.st_size > health.offset else None),
                )
            )  # fmt: skip
        if self.health.state == "degraded":
            # The obstacle may be gone without any change of the log.
            self.is_due = True
        self._close_when_idle()
        return True

    def may_run(self, now: float) -> bool:
        """Whether a pass is due and not delayed after a failure."""
        return self.is_due and not self.has_errand and now >= self.retry_at

    # Passes.

    def run(self, checkpoint: bool = False) -> Compaction | None:
        """Run one pass within the loop; None if it failed. Raises TooMuch if it has to run in its own process."""
        self.is_due = False
        self._used_at = time.monotonic()
        try:
            if self.entry.problem is not None:
                self.fail(Failure("bad_place", f"{self.entry.path}: {self.entry.problem}"))
                return None
            if self._used_at < self._apart_until and not checkpoint:
                raise TooMuch(self.entry.path, "its last pass within the loop took too long")
            self._is_open = True
            compaction = self._ledger.compact(
                checkpoint=checkpoint, limit_bytes=LIMIT_BYTES, limit_seconds=LIMIT_SECONDS
            )
        except TooMuch:
            if self._used_at >= self._apart_until:
                self._apart_until = time.monotonic() + APART_SECONDS
            raise
        except LockHeld as error:
            self._wait_for_holder(error)
            return None
        except Exception as error:
            self.fail(describe_failure(error, self.entry.path))
            return None
        self.succeed(compaction)
        return compaction

    def _wait_for_holder(self, error: LockHeld) -> None:
        # A reconcile in this process holds the lock while it compacts, and our own seal while it seals. Both are no
        # failure, however long they take.
        is_own = self.is_sealing or f"process {os.getpid()} " in str(error)
        self.wait_for_lock(describe_failure(error, self.entry.path), is_own=is_own)

    def wait_for_lock(self, failure: Failure, *, is_own: bool = False) -> None:
        """Another process holds the ledger's lock: try again soon; a failure if that lasts."""
        now = time.monotonic()
        self._held_since = self._held_since or now
        if now - self._held_since > HELD_SECONDS_MAX and not is_own:
            self.fail(failure)
        else:
            self.is_due, self.retry_at = True, now + HELD_RETRY_SECONDS

    # Sealing.

    def is_seal_due(self, segment_bytes: int, segment_age: timedelta) -> bool:
        """Whether to seal now: the log has grown enough, or its oldest event that is not sealed is old enough.

        The first time also if there are segments, because a process that was killed may have left something undone.
        """
        now, health = time.monotonic(), self.health
        if health.state != "current" or self.has_errand or self.is_sealing or now < self._seal_retry_at:
            return False
        if health.offset - health.sealed_bytes >= segment_bytes:
            return True
        if now < self._seal_at:
            return False
        self._seal_at = now + SEAL_SECONDS
        if not self._has_sealed and health.segments:
            return True
        try:
            return self._ledger.is_seal_due(segment_bytes=segment_bytes, segment_age=segment_age)
        except LedgerError:
            return True  # The command names what is wrong.

    def note_sealed(self, row: Mapping[str, Any] | None, *, is_held: bool = False) -> None:
        """Record the result of a seal; None if it failed, `is_held` if only because another process had the lock."""
        if row is None:
            self._seal_retry_at = time.monotonic() + (SEAL_HELD_SECONDS if is_held else SEAL_SECONDS)
            return
        self._has_sealed = True
        self._publish(
            msgspec.structs.replace(self.health, sealed_bytes=row["total_bytes"], segments=row["total_segments"])
        )

    def succeed(self, compaction: Compaction) -> None:
        """Record a successful pass, of this or another process."""
        self._failures, self._held_since, self.retry_at = 0, None, 0.0
        before, now = self.health, time.time()
        if before.state == "degraded":
            self._log.info("ledger_recovered", kind=before.kind, degraded_seconds=round(now - before.since, 1))
        if compaction.moved:
            self._log.info("log_moved", offset=compaction.offset)
        clock = self._ledger.clock
        log_bytes = max(before.log_bytes, compaction.offset + compaction.tail_bytes)
        tail_bytes = compaction.tail_bytes
        self._publish(
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
        """Record a failed pass: log it once per reason and then once a minute, and retry with backoff."""
        now = time.monotonic()
        delay = min(RETRY_SECONDS_MAX, RETRY_SECONDS_MIN * 2 ** min(self._failures, 10))
        # Ledgers that failed together, for example on a full disk, must not retry at the same moment.
        self.retry_at = now + delay * random.uniform(0.8, 1.2)
        self._failures += 1
        self.is_due = True
        before = self.health
        is_new = before.state != "degraded" or before.kind != failure.kind
        if is_new or now - self._reminded_at >= REMIND_SECONDS:
            self._reminded_at = now
            self._log.error("ledger_degraded", kind=failure.kind, reason=failure.message, tries=self._failures)
        self._publish(
            msgspec.structs.replace(
                before, state="degraded", kind=failure.kind, reason=printable(failure.message),
                since=time.time() if before.state != "degraded" else before.since,
            )
        )  # fmt: skip

    # Memory.

    @property
    def is_ahead_of_checkpoint(self) -> bool:
        """Whether the state in memory is ahead of the checkpoint."""
        return self._ledger.is_ahead_of_checkpoint

    def close(self) -> None:
        """Drop the state from memory; the next pass reads the checkpoint."""
        self._ledger.close()
        self._is_open = False

    def _close_when_idle(self) -> None:
        if self._is_open and not self.is_due and time.monotonic() - self._used_at > IDLE_SECONDS:
            if self.is_ahead_of_checkpoint:
                self.run(checkpoint=True)
            self.close()
