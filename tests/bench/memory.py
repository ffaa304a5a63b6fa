"""Memory: the peak of a whole process that folds a year of trading, and of one that folds one more event.

Note: it is the resident size of the process with all its children, the interpreter (about 30 MB
with what a pass imports) included, because that is what a machine has to have.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench.incremental import Subject
from tests.bench.logs import DEFAULT_WORK, logs_of, prepared
from tests.bench.process import Measured, measure
from tests.bench.progress import note
from tests.bench.report import machine, show

_COLUMNS = ("program", "wall s", "peak MB")


def compare(work: Path, events: int) -> None:
    """Measure a cold fold, one more event, and a process that only imports; print the table."""
    path = logs_of(prepared(work, events, 1))[0].parent
    command = [sys.executable, "-m", "compactor", "compact", str(path), "--json"]
    note(f"folding {events:,} events")
    cold = measure(command)
    subject = Subject(path)
    subject.append_fill()
    subject.ledger.close()
    one_more = measure(command)
    nothing = measure([sys.executable, "-c", "import compactor.ui.cli, compactor.books.compact"])
    size = (path / "events.jsonl").stat().st_size
    rows = [_row("cold fold", cold), _row("one event more", one_more), _row("imports alone", nothing)]
    show(f"Memory, {events:,} events in one ledger, {size / 1e6:,.0f} MB; {machine()}", _COLUMNS, rows)


def _row(name: str, measured: Measured) -> tuple[str, ...]:
    return name, f"{measured.wall_s:.2f}", f"{measured.peak_bytes / 1e6:,.0f}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.memory", description="What a fold needs of memory.")
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument(
        "--work", type=Path, default=DEFAULT_WORK, help="where the logs are kept (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    compare(options.work, options.events)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
