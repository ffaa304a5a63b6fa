"""Show rows: a rich table on a terminal, aligned text in a pipe, JSON lines for programs; and a progress bar.

Invariant: text from a log is data and never reaches a terminal raw. A symbol may hold an escape sequence that repaints
the terminal, so everything shown passes `printable` first.

Note: the progress bar has no thread of its own, because a process with threads cannot be forked safely.
"""

from __future__ import annotations

import codecs
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from time import monotonic
from typing import Any, BinaryIO, Literal

import msgspec

from compactor.core.printable import escape_json, printable, printable_text, redact
from compactor.ui.options import say

# A longer table is searched rather than read, so aligned text is streamed instead.
RICH_ROWS_MAX = 500
# The least width of a text column on a narrow terminal: a side, or the day of a time, still fits.
TEXT_WIDTH_MIN = 11
_GAP = 2
# How many refused lines are named; the rest is counted.
LINES_NAMED = 20
_CHUNK_ROWS = 500


class ShownColumn(msgspec.Struct, frozen=True):
    """One column: the field of a row that it shows, its title (printable), and whether it is aligned like a number."""

    field: str
    title: str
    number: bool = False


def columns(*fields: str, numbers: Iterable[str] = ()) -> list[ShownColumn]:
    """Columns titled by their fields, in words."""
    wanted = set(numbers)
    return [ShownColumn(field, field.removesuffix("_id").replace("_", " "), field in wanted) for field in fields]


def show_table(shown: Sequence[ShownColumn], rows: Iterable[Mapping[str, Any]]) -> bool:
    """Print `rows` as they come; whether there were any. Without rows there is no head either: a pipe stays clean."""
    rest = iter(rows)
    first = list(islice(rest, RICH_ROWS_MAX + 1))
    if not first:
        return False
    if sys.stdout.isatty() and len(first) <= RICH_ROWS_MAX:
        _show_rich(shown, first)
    else:
        write = sys.stdout.write
        for line in aligned(shown, chain(first, rest)):
            write(line + "\n")
    return True


def show_json(rows: Iterable[Any]) -> None:
    """Print each row as one line of JSON, its fields in their order."""
    write = sys.stdout.write
    encode = msgspec.json.Encoder().encode
    for row in rows:
        write(redact(escape_json(encode(row)).decode()) + "\n")


def open_output() -> BinaryIO | Terminal:
    """Standard output for bytes: exact in a pipe or a file, printable on a terminal."""
    return Terminal() if sys.stdout.isatty() else sys.stdout.buffer


class Terminal:
    """A terminal that gets text only: what is not UTF-8, or would steer it, is written out."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode

    def write(self, data: bytes, /) -> object:
        return sys.stdout.write(printable_text(self._decode(data)))


def name_lines(refused: Sequence[object]) -> None:
    """Name refused lines on stderr, as many as help; the rest is counted."""
    for line in refused[:LINES_NAMED]:
        say(line, err=True)
    if len(refused) > LINES_NAMED:
        say(f"... and {len(refused) - LINES_NAMED} more; --json names all of them", err=True)


def aligned(shown: Sequence[ShownColumn], rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Lines of text in columns. Widths come from the first rows and only grow, so that rows can be streamed."""
    rest = iter(rows)
    widths = [len(column.title) for column in shown]
    pending = [[column.title for column in shown]]
    while chunk := list(islice(rest, _CHUNK_ROWS)):
        pending += [_cells(shown, row) for row in chunk]
        widths = [max(width, *map(len, cells)) for width, cells in zip(widths, zip(*pending, strict=True), strict=True)]
        yield from (_line(shown, widths, cells) for cells in pending)
        pending = []
    yield from (_line(shown, widths, cells) for cells in pending)


def _cells(shown: Sequence[ShownColumn], row: Mapping[str, Any]) -> list[str]:
    return [printable(row.get(column.field)) for column in shown]


def _line(shown: Sequence[ShownColumn], widths: Sequence[int], cells: Sequence[str]) -> str:
    padded = (
        cell.rjust(width) if column.number else cell.ljust(width)
        for column, width, cell in zip(shown, widths, cells, strict=True)
    )
    return "  ".join(padded).rstrip()


def _show_rich(shown: Sequence[ShownColumn], rows: Sequence[Mapping[str, Any]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [_cells(shown, row) for row in rows]
    filled = [index for index in range(len(shown)) if any(row[index] for row in cells)]
    longest = [max(len(row[index]) for row in cells) for index in filled]
    console = Console(highlight=False)
    widths = fitted([shown[index] for index in filled], longest, console.width)
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for index, width in zip(filled, widths, strict=False):
        justify: Literal["left", "right"] = "right" if shown[index].number else "left"
        table.add_column(Text(shown[index].title), justify=justify, width=width, overflow="ellipsis")
    for row in cells:
        table.add_row(*(Text(row[index]) for index in filled[: len(widths)]))
    console.print(table)
    if hidden := [shown[index].title for index in filled[len(widths) :]]:
        say(f"The terminal is too narrow for: {', '.join(hidden)}. --json has every field.", err=True)


def fitted(shown: Sequence[ShownColumn], longest: Sequence[int], room: int) -> list[int]:
    """The widths of the first columns, as many as `room` holds.

    A number is never cut, because what is left of it is another number: texts give way first, then whole columns from
    the end. `longest` is the length of each column's longest cell.
    """
    words = [max(map(len, column.title.split())) for column in shown]
    least = [
        max(word, cell if column.number else min(cell, TEXT_WIDTH_MIN))
        for column, cell, word in zip(shown, longest, words, strict=True)
    ]
    while len(least) > 1 and sum(least) + _GAP * (len(least) - 1) > room:
        least.pop()
    spare = room - sum(least) - _GAP * (len(least) - 1)
    missing = [max(len(shown[at].title), longest[at]) - width for at, width in enumerate(least)]
    # The smallest needs are met first, so one long text cannot starve many short ones.
    for index in sorted(range(len(least)), key=missing.__getitem__):
        more = max(0, min(missing[index], spare))
        least[index] += more
        spare -= more
    return least


# Work that ends sooner shows no bar.
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
