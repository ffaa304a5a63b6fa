"""Cold: every program makes both outputs from the whole log, as a whole process: `python -m tests.bench.cold`.

Ours is `compactor compact` without any derived file or checkpoint; it also syncs what it writes, which no peer does.
The runs are interleaved, the log lies in the cache of the file system for all, and in the end what each peer wrote is
compared with ours, so that nobody is measured at another task.

Note: slow peers may run on a part of the events; their row says so, and its ratio is that of the
events per second.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.bench.agree import agree
from tests.bench.logs import DEFAULT_WORK, bytes_of, prepared, remove_derived
from tests.bench.process import Measured, measure
from tests.bench.progress import note
from tests.bench.report import machine, show

OURS = "compactor"
PEERS = ("naive", "duckdb", "duckdb-lazy", "polars", "polars-lazy", "sqlite", "jq")
"""`-lazy` reads the log by lazy scans, as a plain query does; without it the log is parsed once, which is faster."""
PART = {"jq": 10}  # Runs on one in so many of the events.
_EVENTS_MIN = 5_000
_COLUMNS = ("program", "events", "best s", "median s", "CPU s", "MB/s", "events/s", "peak MB", "times ours")


class Task(NamedTuple):
    """One program and the log that it runs on."""

    name: str
    data: Path
    out: Path
    events: int

    def command(self) -> list[str]:
        if self.name == OURS:
            return [sys.executable, "-m", "compactor", "compact", str(self.data), "--json"]
        program, _, variant = self.name.partition("-")
        script = Path(__file__).with_name("peers") / f"{program}_peer.py"
        return [sys.executable, str(script), str(self.data), str(self.out), *([f"--{variant}"] if variant else [])]

    def run(self) -> Measured:
        """Run it once, from nothing."""
        if self.name == OURS:
            remove_derived(self.data)
        shutil.rmtree(self.out, ignore_errors=True)
        return measure(self.command())


def available(names: Sequence[str]) -> list[str]:
    """The peers among `names` that can run here."""
    return [name for name in names if name in ("naive", "sqlite") or _is_here(name)]


def _is_here(name: str) -> bool:
    if name == "jq":
        return shutil.which("jq") is not None
    return importlib.util.find_spec(name.partition("-")[0]) is not None


def tasks(work: Path, events: int, ledgers: int, peers: Sequence[str]) -> list[Task]:
    """Ours and the peers, each with its log."""
    planned = []
    for name in (OURS, *peers):
        count = max(min(_EVENTS_MIN, events), events // PART.get(name, 1))
        planned.append(Task(name, prepared(work, count, ledgers), work / "out" / name, count))
    return planned


def run_all(planned: Sequence[Task], runs: int) -> dict[str, list[Measured]]:
    """Run every program once, then every program again, so that a slow moment of the machine hits them all."""
    measured: dict[str, list[Measured]] = {task.name: [] for task in planned}
    for number in range(1, runs + 1):
        for task in planned:
            found = task.run()
            measured[task.name].append(found)
            note(f"run {number} of {runs}: {task.name} took {found.wall_s:.2f} s for {task.events:,} events")
    return measured


def check_agreement(planned: Sequence[Task]) -> None:
    """Compare each peer with ours on the same log; ours runs again where a peer had a smaller one."""
    ours = planned[0]
    for task in planned[1:]:
        if task.data != ours.data:
            Task(OURS, task.data, ours.out, task.events).run()
        found = agree(task.data, task.out)
        note(f"{task.name} agrees: {found.trades:,} trades, {found.pending_orders:,} pending orders")


def rows(planned: Sequence[Task], measured: dict[str, list[Measured]]) -> list[tuple[str, ...]]:
    """The table: best of the runs, and how many times as long as ours."""
    ours = min(run.wall_s for run in measured[OURS]) / planned[0].events
    return [_row(task, measured[task.name], ours) for task in planned]


def _row(task: Task, runs: Sequence[Measured], ours_s_per_event: float) -> tuple[str, ...]:
    best = min(runs)
    return (
        task.name,
        f"{task.events:,}",
        f"{best.wall_s:.2f}",
        f"{statistics.median(run.wall_s for run in runs):.2f}",
        f"{best.cpu_s:.2f}",
        f"{bytes_of(task.data) / best.wall_s / 1e6:,.0f}",
        f"{task.events / best.wall_s:,.0f}",
        f"{max(run.peak_bytes for run in runs) / 1e6:,.0f}",
        f"{best.wall_s / task.events / ours_s_per_event:.2f}",
    )


def compare(work: Path, events: int, ledgers: int, peers: Sequence[str], runs: int) -> None:
    """Measure, compare the outputs, and print the table for one number of ledgers."""
    planned = tasks(work, events, ledgers, peers)
    measured = run_all(planned, runs)
    check_agreement(planned)
    where = "one ledger" if ledgers == 1 else f"{ledgers} ledgers"
    title = f"Cold, {where}, {bytes_of(planned[0].data) / 1e6:,.0f} MB, best of {runs}; {machine()}"
    show(title, _COLUMNS, rows(planned, measured))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.cold", description="Ours beside its peers.")
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--ledgers", type=int, default=8, help="spread over so many, and then in one (default: 8)")
    parser.add_argument("--peers", default=",".join(PEERS), help="default: %(default)s")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--work", type=Path, default=DEFAULT_WORK, help="where the logs are kept (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    wanted = [name for name in options.peers.split(",") if name]
    if unknown := sorted(set(wanted) - set(PEERS)):
        parser.error(f"no such peer: {', '.join(unknown)}; expected some of {', '.join(PEERS)}")
    peers = available(wanted)
    for name in sorted(set(wanted) - set(peers)):
        note(f"{name} is not installed and is left out")
    for ledgers in dict.fromkeys((options.ledgers, 1)):
        compare(options.work, options.events, ledgers, peers, options.runs)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
