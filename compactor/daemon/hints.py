"""Wake the loop when a log may have changed. These are hints only; the loop also polls every log.

Note: watchfiles sleeps in steps. A short step costs idle CPU time (1 ms: 1.9 % of a core, 5 ms: 0.4 %), a long one adds
latency. The step is short while there is work and longer when it is quiet.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from watchfiles import Change
from watchfiles._rust_notify import (  # The documented backend of watchfiles, because `watch` fixes the step.
    RustNotify,
    WatchfilesRustInternalError,
)

from compactor.ledger.paths import LOG

BUSY_STEP_MS = 1
QUIET_STEP_MS = 5
QUIET_AFTER_SECONDS = 2.0
DEBOUNCE_MS = 5
"""The longest time for which continuing changes are collected before they are reported."""


class Hint(NamedTuple):
    """What may have changed: directories with a changed log, whether directories came or went, or anything at all."""

    logs: set[Path]
    directories: bool
    anything: bool = False


class Hints:
    """The changes below a data directory, which may be made later, or removed and made again. Without inotify `problem`
    says why, and every wait runs into its timeout."""

    def __init__(self, data: Path) -> None:
        self._data = data.resolve()
        self._busy_until = 0.0
        self._notify: RustNotify | None
        self._watched: tuple[int, int] | None
        """Which directory is watched; None where there is none."""
        self.problem: str | None
        self._open()

    def _open(self) -> None:
        self._notify, self._watched, self.problem = None, _identify(self._data), None
        if self._watched is None:
            # watchfiles would watch nothing, and not say so.
            self.problem = f"there is no directory {self._data}"
            return
        try:
            self._notify = RustNotify([str(self._data)], False, False, 0, True, True)
        except OSError as error:
            # No watches or instances left, or a file system without inotify.
            self.problem = str(error)

    def wait(self, seconds: float, stop: threading.Event) -> Hint:
        """Wait for a change, for at most so many seconds, or until `stop` is set."""
        milliseconds = max(1, round(seconds * 1000))
        if _identify(self._data) != self._watched:
            return self._reopen()
        if self._notify is None:
            stop.wait(min(seconds, 0.1))
            return Hint(set(), False)
        step = BUSY_STEP_MS if time.monotonic() < self._busy_until else QUIET_STEP_MS
        try:
            found = self._notify.watch(DEBOUNCE_MS, step, milliseconds, stop)
        except WatchfilesRustInternalError:
            # watchfiles fails for a name that is not UTF-8, and loses the other changes with it.
            return self._reopen()
        if not isinstance(found, set):
            # A timeout or a signal.
            return Hint(set(), False)
        if (Change.deleted, str(self._data)) in found:
            # Nothing more comes of this watch, and a directory that is made again may have the same inode.
            return self._reopen()
        hint = self._read(found)
        if hint.logs:
            self._busy_until = time.monotonic() + QUIET_AFTER_SECONDS
        return hint

    def _reopen(self) -> Hint:
        if self._notify is not None:
            self._notify.close()
        self._open()
        return Hint(set(), True, True)

    def _read(self, changes: set[tuple[int, str]]) -> Hint:
        logs: set[Path] = set()
        directories = False
        for kind, name in changes:
            directory, base = os.path.split(name)
            if base == LOG:
                logs.add(Path(directory))
            elif kind != Change.modified and "." not in base:
                # Derived files, temporary files and segments have dots in their names. A team may have one too; it is
                # found by the next poll.
                directories = True
        return Hint(logs, directories)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._notify is not None:
            self._notify.close()


def _identify(directory: Path) -> tuple[int, int] | None:
    try:
        found = directory.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISDIR(found.st_mode) else None
