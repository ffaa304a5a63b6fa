"""A progress bar on stderr, on a terminal only.

The rule that surprises: it draws when it is told to and has no thread of its own, because the jobs fork processes and a
process with threads cannot be forked safely.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

# Work that is over sooner than this shows no bar: a flash of it tells nobody anything.
QUIET_S = 0.3
_DRAW_S = 0.1


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None] | None]:
    """Give a `progress(bytes_done, bytes_total)` to hand to a job, or None where nobody would see it."""
    if not sys.stderr.isatty():
        yield None
        return
    bar = _Bar(title)
    try:
        yield bar.update
    finally:
        bar.close()


class _Bar:
    def __init__(self, title: str) -> None:
        self._title = title
        self._next_draw_at = monotonic() + QUIET_S
        self._rich: tuple[Callable[[int, int], None], Callable[[], None]] | None = None

    def update(self, done: int, total: int) -> None:
        now = monotonic()
        if now < self._next_draw_at:
            return
        self._next_draw_at = now + _DRAW_S
        if self._rich is None:
            self._rich = _open_rich(self._title)
        self._rich[0](done, total)

    def close(self) -> None:
        if self._rich is not None:
            self._rich[1]()


def _open_rich(title: str) -> tuple[Callable[[int, int], None], Callable[[], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
    )
    task = progress.add_task(title, total=None)
    progress.start()

    def draw(done: int, total: int) -> None:
        progress.update(task, completed=done, total=total)
        progress.refresh()

    return draw, progress.stop
