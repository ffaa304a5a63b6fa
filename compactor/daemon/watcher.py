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
from pathlib import Path
from typing import Protocol

import msgspec
from structlog.typing import FilteringBoundLogger as Logger

from compactor.books.failures import Failure
from compactor.daemon.errands import Errand, make_compact_arguments
from compactor.daemon.health import Health
from compactor.daemon.hints import Hints
from compactor.daemon.keeper import Keeper
from compactor.daemon.presence import Presence
from compactor.ledger import Compaction, TooMuch, discover
from compactor.settings.configuration import Settings

SEAL_SECONDS = 300.0
"""The interval at which ledgers are checked for events that are old enough to be sealed."""
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
        self._errands: list[Errand] = []
        self._errands_waiting: list[Keeper] = []
        self._sealing: Errand | None = None
        self._look_at = 0.0
        self._seal_at = time.monotonic()
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
        if self._errands or self._sealing:
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
            if not keeper.look() and not keeper.has_errand:
                self._drop(path, keeper)
        if self._settings.seal:
            self._start_sealing()
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
        )  # fmt: skip

    # Errands.

    def _queue_errand(self, keeper: Keeper) -> None:
        keeper.has_errand = True
        keeper.close()
        self._errands_waiting.append(keeper)

    def _start_errands(self) -> None:
        while self._errands_waiting and len(self._errands) < max(1, (os.cpu_count() or 1)):
            keeper = self._errands_waiting.pop(0)
            try:
                arguments = make_compact_arguments(keeper.entry.path, self._settings.retention_days)
                self._errands.append(Errand(keeper, arguments))
            except OSError as error:
                self._fail_errand(keeper, f"no process could be started for it ({error.strerror or error})")

    def _end_errands(self) -> None:
        for errand in [errand for errand in self._errands if errand.is_over]:
            self._errands.remove(errand)
            keeper = errand.what
            assert isinstance(keeper, Keeper)
            rows, said = errand.read_results()
            row = next((row for row in rows if Path(row.get("path", "")) == keeper.entry.path), None)
            if row is None:
                self._fail_errand(keeper, said)
            elif row.get("error"):
                self._fail_errand(keeper, row["error"]["message"], row["error"]["kind"])
            else:
                keeper.has_errand = False
                compaction = msgspec.convert(row, Compaction)
                keeper.succeed(compaction)
                keeper.is_due = True
                self._record_pass(keeper, compaction, time.monotonic() - errand.started, apart=True)
        if self._sealing is not None and self._sealing.is_over:
            self._end_sealing(self._sealing)
            self._sealing = None

    def _fail_errand(self, keeper: Keeper, message: str, kind: str = "process_died") -> None:
        keeper.has_errand = False
        keeper.fail(Failure(kind, f"{keeper.entry.path}: {message}" if kind == "process_died" else message))

    # Sealing.

    def _start_sealing(self) -> None:
        """Seal if a log has grown enough; from time to time also check for logs that are old enough."""
        if self._sealing is not None or not self._health.caught_up:
            return
        grown = any(
            keeper.health.state == "current"
            and keeper.health.offset - keeper.health.sealed_bytes >= self._settings.segment_bytes
            for keeper in self._keepers.values()
        )
        now = time.monotonic()
        if not grown and now < self._seal_at:
            return
        # Also if a log has grown: one that cannot be sealed must not be retried at every look.
        self._seal_at = now + SEAL_SECONDS
        try:
            config = ["--config", str(self._config)] if self._config is not None else []
            self._sealing = Errand(None, ["seal", str(self._data), "--json", *config])
        except OSError as error:
            self._log.error("sealing_failed", reason=str(error))

    def _end_sealing(self, errand: Errand) -> None:
        rows, said = errand.read_results()
        for row in rows:
            if "error" in row:
                self._log.error("sealing_failed", team_id=row["team_id"], **row["error"])
                continue
            keeper = self._keepers.get(Path(row["path"]).resolve())
            if keeper is not None:
                sealed = msgspec.structs.replace(
                    keeper.health, sealed_bytes=row["total_bytes"], segments=row["total_segments"]
                )
                self._health.ledgers[str(keeper.entry.path)] = sealed
            if row["segments"]:
                done = {
                    name: row[name] for name in ("segments", "sealed_bytes", "file_bytes", "punched_bytes", "reclaim")
                }
                self._log.info("segment_sealed", team_id=row["team_id"], **done)
        if not rows and self._keepers:
            self._log.error("sealing_failed", reason=said)

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
        text = f"{len(self._keepers)} ledgers" + (
            f", {len(degraded)} degraded: {', '.join(one.team_id for one in degraded)[:200]}"
            if degraded
            else ", current"
        )
        if self._supervisor is not None:
            self._supervisor.notify_status(text)
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
        for errand in [*self._errands, *([self._sealing] if self._sealing else [])]:
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
