"""The loop of the daemon: wake up, look for changes, run what is due. Long work runs in separate processes.

`keeper` keeps one ledger current, `hints` wakes the loop. Note: hints are never trusted. Every few seconds the size and
inode of every log are checked, so a lost hint costs only seconds.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
from structlog.typing import FilteringBoundLogger as Logger

from compactor.books.failures import Failure
from compactor.daemon.errands import Errand, make_compact_arguments, make_seal_arguments
from compactor.daemon.health import Health
from compactor.daemon.hints import Hints
from compactor.daemon.keeper import Keeper
from compactor.daemon.presence import Presence
from compactor.ledger import Compaction, TooMuch, discover
from compactor.settings.configuration import Settings

ERRAND_LOOK_SECONDS = 0.05
COLLECT_SECONDS = 60.0
STOP_SECONDS = 0.8
"""What remains of the second within which the daemon ends, after its current pass."""

OnPass = Callable[[Compaction, float], None]
"""Called after every pass with its result and the seconds it took."""


class Supervisor(Protocol):
    """The service manager that started the daemon (systemd)."""

    def notify_ready(self) -> None: ...
    def notify_status(self, text: str) -> None: ...
    def notify_watchdog(self) -> None: ...
    def notify_stopping(self) -> None: ...


class Job(NamedTuple):
    """Work on one ledger that needs a process of its own: a long pass, or a seal."""

    keeper: Keeper
    is_seal: bool


class Watcher:
    """Keeps the ledgers of a data directory current until it is stopped."""

    def __init__(
        self,
        data: Path,
        settings: Settings,
        health: Health,
        log: Logger,
        *,
        presence: Presence | None = None,
        on_pass: Sequence[OnPass] = (),
        supervisor: Supervisor | None = None,
        config: Path | None = None,
    ) -> None:
        self._data = data
        self._settings = settings
        self._health = health
        self._log = log
        self._presence = presence
        self._on_pass = on_pass
        self._supervisor = supervisor
        self._config = config
        self._keepers: dict[Path, Keeper] = {}
        """By the resolved path of the ledger, because hints use it."""
        self._errands: list[tuple[Errand, Job]] = []
        self._jobs: list[Job] = []
        """What waits for a process. Passes, errands and seals of one ledger follow each other."""
        self._look_at = 0.0
        self._collect_at = time.monotonic() + COLLECT_SECONDS
        self._published: list[tuple[str, str, str | None]] = []

    def run(self, stop: threading.Event) -> None:
        """Catch up and follow the logs until `stop` is set; returns about a second later."""
        was_collecting = gc.isenabled()
        # A pass makes no reference cycles; the collector runs while the loop is idle.
        gc.disable()
        try:
            with Hints(self._data) as hints:
                if hints.problem is not None:
                    self._log.warning(
                        "inotify_unavailable", reason=hints.problem, looking_every_seconds=self._settings.poll_seconds
                    )
                self._look()
                self._log.info("watcher_started", data=str(self._data), pid=os.getpid(), ledgers=len(self._keepers))
                while not stop.is_set():
                    self._turn(stop)
                    if not stop.is_set():
                        self._wait(hints, stop)
        finally:
            self._finish()
            if was_collecting:
                gc.enable()

    # One turn.

    def _turn(self, stop: threading.Event) -> None:
        now = time.monotonic()
        if now >= self._look_at:
            self._look()
        self._end_errands()
        # Every ledger gets one pass per turn, a busy one too.
        for keeper in [keeper for keeper in self._keepers.values() if keeper.may_run(now)]:
            if stop.is_set():
                return
            self._pass(keeper)
            self._signal_alive()
        self._start_errands()
        self._note_caught_up()
        if self._states() != self._published:
            self._publish()
        self._signal_alive()
        self._collect(now)

    def _wait(self, hints: Hints, stop: threading.Event) -> None:
        now = time.monotonic()
        until = [self._look_at]
        until += [keeper.retry_at for keeper in self._keepers.values() if keeper.is_due and not keeper.has_errand]
        if self._errands:
            until.append(now + ERRAND_LOOK_SECONDS)
        hint = hints.wait(max(0.0, min(until) - now), stop)
        if hint.anything:
            self._look_at = 0.0
        if hint.directories:
            self._find_teams()
        for path in hint.logs:
            keeper = self._keepers.get(path)
            if keeper is None:
                self._find_teams()
            else:
                keeper.look()

    def _look(self) -> None:
        """Check all ledgers, independent of hints."""
        self._look_at = time.monotonic() + self._settings.poll_seconds
        self._find_teams()
        for path, keeper in list(self._keepers.items()):
            if not keeper.look() and not keeper.has_errand and not keeper.is_sealing:
                self._drop(path, keeper)
        if self._settings.seal:
            self._queue_seals()
        self._publish()

    def _find_teams(self) -> None:
        try:
            entries = discover(self._data)
        except OSError as error:
            self._log.error("data_directory_unreadable", data=str(self._data), reason=str(error))
            return
        for entry in entries:
            path = entry.path.resolve()
            if path not in self._keepers:
                keeper = Keeper(entry, self._settings.retention_days, self._health, self._log)
                self._keepers[path] = keeper
                keeper.look()
                self._log.info("team_appeared", team_id=keeper.team_id, path=str(entry.path))

    def _drop(self, path: Path, keeper: Keeper) -> None:
        """Drop a ledger whose log is gone, for example moved away. It is found again if it comes back."""
        keeper.close()
        del self._keepers[path]
        self._health.ledgers.pop(str(keeper.entry.path), None)
        self._log.warning("team_disappeared", team_id=keeper.team_id, path=str(keeper.entry.path))

    # Passes.

    def _pass(self, keeper: Keeper) -> None:
        started = time.perf_counter()
        try:
            compaction = keeper.run()
        except TooMuch:
            self._queue_errand(keeper)
            return
        if compaction is not None:
            self._record_pass(keeper, compaction, time.perf_counter() - started, apart=False)

    def _record_pass(self, keeper: Keeper, compaction: Compaction, seconds: float, apart: bool) -> None:
        for notify in self._on_pass:
            notify(compaction, seconds)
        self._log.info(
            "compaction_finished", team_id=keeper.team_id, events=compaction.new_events, bytes=compaction.bytes,
            trades=compaction.new_trades, findings=compaction.new_findings, open_orders=compaction.open_orders,
            offset=compaction.offset, elapsed_ms=round(seconds * 1000, 2), **({"apart": True} if apart else {}),
            **({"set_aside": compaction.set_aside} if compaction.set_aside else {}),
        )  # fmt: skip

    # Errands.

    def _queue_errand(self, keeper: Keeper) -> None:
        keeper.has_errand = True
        keeper.close()
        # Before the seals: until it is done, nothing of this ledger is current.
        seals = next((number for number, job in enumerate(self._jobs) if job.is_seal), len(self._jobs))
        self._jobs.insert(seals, Job(keeper, is_seal=False))

    def _queue_seals(self) -> None:
        """Queue the ledgers of which something is due to be sealed."""
        age = timedelta(hours=self._settings.segment_age_hours)
        waiting = {job.keeper for job in self._jobs if job.is_seal}
        for keeper in self._keepers.values():
            if keeper not in waiting and keeper.is_seal_due(self._settings.segment_bytes, age):
                self._jobs.append(Job(keeper, is_seal=True))

    def _start_errands(self) -> None:
        for job in list(self._jobs):
            if len(self._errands) >= max(1, (os.cpu_count() or 1)):
                return
            if not self._may_start(job):
                continue
            self._jobs.remove(job)
            try:
                self._errands.append((Errand(self._make_arguments(job)), job))
                job.keeper.is_sealing = job.is_seal
            except OSError as error:
                self._fail_errand(job, f"no process could be started for it ({error.strerror or error})")

    def _may_start(self, job: Job) -> bool:
        """Whether no other process works on the ledger. A seal of the data directory's own ledger seals all of them."""
        running = [other.keeper for _, other in self._errands]
        if job.is_seal and job.keeper.entry.team_id is None:
            return not running
        return job.keeper not in running and not any(
            other.is_seal and other.keeper.entry.team_id is None for _, other in self._errands
        )

    def _make_arguments(self, job: Job) -> list[str]:
        entry = job.keeper.entry
        if not job.is_seal:
            return make_compact_arguments(entry.path, self._settings.retention_days)
        return make_seal_arguments(self._data, entry.team_id, self._config)

    def _end_errands(self) -> None:
        for errand, job in [one for one in self._errands if one[0].is_over]:
            self._errands.remove((errand, job))
            job.keeper.has_errand = job.keeper.has_errand and job.is_seal
            job.keeper.is_sealing = False
            # What was written during a pass was seen by `look`; another one at once would find nothing, and again.
            job.keeper.is_due |= job.is_seal
            rows, said = errand.read_results()
            if job.is_seal:
                self._end_seal(job, rows, said)
                continue
            row = next((row for row in rows if Path(row.get("path", "")) == job.keeper.entry.path), None)
            if row is None:
                self._fail_errand(job, said)
            elif row.get("error"):
                self._fail_errand(job, row["error"]["message"], row["error"]["kind"])
            else:
                compaction = msgspec.convert(row, Compaction)
                job.keeper.succeed(compaction)
                self._record_pass(job.keeper, compaction, time.monotonic() - errand.started, apart=True)

    def _fail_errand(self, job: Job, message: str, kind: str = "process_died") -> None:
        if job.is_seal:
            job.keeper.note_sealed(None)
            self._log.error("sealing_failed", team_id=job.keeper.team_id, reason=message)
            return
        job.keeper.has_errand = False
        failure = Failure(kind, f"{job.keeper.entry.path}: {message}" if kind == "process_died" else message)
        if kind == "lock_held":
            job.keeper.wait_for_lock(failure)
        else:
            job.keeper.fail(failure)

    def _end_seal(self, job: Job, rows: list[dict[str, Any]], said: str) -> None:
        if not rows:
            self._fail_errand(job, said)
        for row in rows:
            keeper = self._keepers.get(Path(row["path"]).resolve())
            is_held = row.get("error", {}).get("kind") == "lock_held"
            if "error" in row and not is_held:
                self._log.error("sealing_failed", team_id=row["team_id"], **row["error"])
            if keeper is not None:
                keeper.note_sealed(None if "error" in row else row, is_held=is_held)
            if row.get("segments"):
                names = ("segments", "sealed_bytes", "file_bytes", "punched_bytes", "reclaim")
                self._log.info("segment_sealed", team_id=row["team_id"], **{name: row[name] for name in names})

    # Reporting.

    def _note_caught_up(self) -> None:
        if self._health.caught_up:
            return
        if any(one.state == "catching_up" for one in self._health.snapshot()):
            return
        self._health.caught_up = True
        gc.collect()
        gc.freeze()
        self._log.info("caught_up", ledgers=len(self._keepers), degraded=len(self._health.degraded))
        if self._supervisor is not None:
            self._supervisor.notify_ready()

    def _signal_alive(self) -> None:
        self._health.last_progress = time.monotonic()
        if self._supervisor is not None:
            self._supervisor.notify_watchdog()

    def _states(self) -> list[tuple[str, str, str | None]]:
        return [(one.path, one.state, one.kind) for one in self._health.ledgers.values()]

    def _publish(self) -> None:
        degraded = self._health.degraded
        names = ", ".join(one.team_id for one in degraded)[:200]
        how = f"{len(degraded)} degraded: {names}" if degraded else "current"
        if self._supervisor is not None:
            self._supervisor.notify_status(f"{len(self._keepers)} ledgers, {how}")
        self._published = self._states()
        if self._presence is not None:
            try:
                self._presence.publish(self._health)
            except OSError as error:
                self._log.debug("state_unpublished", reason=str(error))

    def _collect(self, now: float) -> None:
        if now >= self._collect_at:
            self._collect_at = now + COLLECT_SECONDS
            gc.collect()

    # The end.

    def _finish(self) -> None:
        """Stop the errands and write checkpoints while there is time, so that the next start folds nothing again."""
        deadline = time.monotonic() + STOP_SECONDS
        if self._supervisor is not None:
            self._supervisor.notify_stopping()
        for errand, _ in self._errands:
            errand.stop(deadline)
        written = 0
        for keeper in self._keepers.values():
            if keeper.is_ahead_of_checkpoint and time.monotonic() < deadline:
                try:
                    written += keeper.run(checkpoint=True) is not None
                except TooMuch:
                    # Too many new bytes for a pass; the next start folds them from the previous checkpoint.
                    continue
        self._log.info("watcher_stopped", checkpoints=written)
