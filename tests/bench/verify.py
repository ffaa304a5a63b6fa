"""Verify beside the cold fold of the same log, unsealed and sealed: `python -m tests.bench.verify`.

Both are whole processes on a copy of the log that lies in the cache of the file system; the runs take turns. Verify
reads what the fold reads, folds it, and then compares; of what is sealed it also hashes every line and makes the tree.

Note: a log is copied first, because sealing gives the space of the original back.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench.logs import DEFAULT_WORK, bytes_of, logs_of, prepared
from tests.bench.process import Measured, measure
from tests.bench.progress import note
from tests.bench.report import machine, show

_COLUMNS = ("program", "best s", "median s", "CPU s", "MB/s", "peak MB", "times the fold", "CPU, times the fold")


def compactor(command: str, data: Path, *more: str) -> Measured:
    """Run one of our commands."""
    return measure([sys.executable, "-m", "compactor", command, str(data), "--json", *more])


def forget(data: Path) -> None:
    """Remove what is derived of every ledger, and leave log and segments."""
    for log in logs_of(data):
        for path in log.parent.iterdir():
            if path.name == ".state":
                shutil.rmtree(path)
            elif path.is_file() and path != log:
                path.unlink()


def measured(data: Path, runs: int) -> dict[str, list[Measured]]:
    """A cold fold, a verify and a quick one, in turns."""
    found: dict[str, list[Measured]] = {"compact, cold": [], "verify": [], "verify --quick": []}
    for number in range(1, runs + 1):
        forget(data)
        found["compact, cold"].append(compactor("compact", data))
        found["verify"].append(compactor("verify", data))
        found["verify --quick"].append(compactor("verify", data, "--quick"))
        seconds = ", ".join(f"{name} {many[-1].wall_s:.2f} s" for name, many in found.items())
        note(f"run {number} of {runs}: {seconds}")
    return found


def rows(data: Path, found: dict[str, list[Measured]]) -> list[tuple[str, ...]]:
    """The table; ratios are of the best runs."""
    fold = found["compact, cold"]
    wall, cpu = min(run.wall_s for run in fold), min(run.cpu_s for run in fold)
    table: list[tuple[str, ...]] = []
    for name, many in found.items():
        best, best_cpu = min(run.wall_s for run in many), min(run.cpu_s for run in many)
        table.append(
            (
                name,
                f"{best:.2f}",
                f"{statistics.median(run.wall_s for run in many):.2f}",
                f"{best_cpu:.2f}",
                f"{bytes_of(data) / best / 1e6:,.0f}",
                f"{max(run.peak_bytes for run in many) / 1e6:,.0f}",
                f"{best / wall:.2f}",
                f"{best_cpu / cpu:.2f}",
            )
        )
    return table


def compare(work: Path, events: int, ledgers: int, runs: int) -> None:
    """Measure one number of ledgers, first as they are, then sealed, and print both tables."""
    data = work / f"verify-{events}-{ledgers}"
    shutil.rmtree(data, ignore_errors=True)
    shutil.copytree(prepared(work, events, ledgers), data)
    where = "one ledger" if ledgers == 1 else f"{ledgers} ledgers"
    try:
        for state in ("not sealed", "sealed"):
            if state == "sealed":
                compactor("seal", data, "--now")
            title = f"Verify, {where}, {state}, {events:,} events, {bytes_of(data) / 1e6:,.0f} MB, best of {runs}"
            show(f"{title}; {machine()}", _COLUMNS, rows(data, measured(data, runs)))
    finally:
        shutil.rmtree(data, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.verify", description="Verify beside the fold.")
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--ledgers", type=int, default=8, help="spread over so many, and then in one (default: 8)")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="where the logs are (default: %(default)s)")
    options = parser.parse_args(arguments)
    for ledgers in dict.fromkeys((options.ledgers, 1)):
        compare(options.work, options.events, ledgers, options.runs)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
