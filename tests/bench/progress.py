"""Progress of long work: a bar on a terminal, one line now and then in a pipe, always on stderr.

Note: nothing here is shown for work that ends within two seconds.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import Future, wait
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

_QUIET_S = 2.0
_LINE_EVERY_S = 15.0


class Bar:
    """How far one long piece of work is; `set` takes the amount done so far."""

    def __init__(self, title: str, total: int) -> None:
        self._title, self._total, self._started, self._said = title, max(1, total), time.monotonic(), 0.0
        self._progress: Progress | None = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._progress:
            self._progress.stop()

    def set(self, done: int) -> None:
        """Show that `done` of the total is done."""
        elapsed = time.monotonic() - self._started
        if elapsed < _QUIET_S:
            return
        if sys.stderr.isatty():
            self._draw(done)
        elif elapsed - self._said >= _LINE_EVERY_S:
            self._said = elapsed
            print(f"{self._title}: {min(99, 100 * done // self._total)} % after {elapsed:.0f} s", file=sys.stderr)

    def wait(self, job: Future[Any]) -> bool:
        """Wait a moment for `job`; true when it has ended."""
        return bool(wait([job], timeout=0.2).done)

    def _draw(self, done: int) -> None:
        if self._progress is None:
            columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self._progress.start()
            self._progress.add_task(self._title, total=self._total)
        self._progress.update(self._progress.task_ids[0], completed=min(done, self._total))


def note(text: str) -> None:
    """Say what is being done now."""
    print(text, file=sys.stderr, flush=True)
