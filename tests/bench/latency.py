"""Latency: from the `write()` of an event to the new `pending_orders.jsonl` in place (`make bench-latency`).

The daemon is a process of its own, as users run it; this one writes events into the logs of 20 teams and looks at the
derived file ten times a millisecond. Beside it stands the floor: a process that does nothing but wait on inotify, then
write, sync and rename a file of the same bytes. Then the daemon is left alone, to see what it costs while it idles.

Note: an event that waits for the pass of the one before it counts with its wait.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench.logs import DEFAULT_WORK
from tests.bench.process import ROOT
from tests.bench.progress import note
from tests.bench.report import machine, show

_LOOK_SECONDS = 0.0001
_WAIT_SECONDS_MAX = 30.0
_LINE = (
    '{{"event":"{event}","order_id":"{order_id}","ts":"{ts}","recorded_at":"{ts}","source":"stream",'
    '"symbol":"SPY","side":"buy","quantity":"10","order_type":"limit","limit_price":"530.25","time_in_force":"day"}}\n'
)


class Teams:
    """Ledgers with so many open orders each; every event opens an order or cancels one, in turn."""

    def __init__(self, data: Path, teams: int, open_orders: int) -> None:
        self._random = random.Random(7)
        self._clock_ns = time.time_ns()
        self._added: dict[Path, str | None] = {}
        self._number = 0
        shutil.rmtree(data, ignore_errors=True)
        for team in range(teams):
            path = data / "team" / f"team{team:02d}"
            path.mkdir(parents=True)
            lines = [self._line("new", self._new_id()) for _ in range(open_orders)]
            (path / "events.jsonl").write_bytes(b"".join(lines))
            self._added[path] = None

    def next(self) -> tuple[Path, bytes]:
        """A ledger and the line to append to it."""
        path = self._random.choice(list(self._added))
        order_id = self._added[path]
        if order_id is None:
            order_id = self._added[path] = self._new_id()
            return path, self._line("new", order_id)
        self._added[path] = None
        return path, self._line("canceled", order_id)

    def _new_id(self) -> str:
        self._number += 1
        return f"{self._random.getrandbits(64):016x}-{self._number:08d}"

    def _line(self, event: str, order_id: str) -> bytes:
        self._clock_ns += 1_000_000
        seconds, rest = divmod(self._clock_ns, 10**9)
        ts = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest // 1000:06d}Z"
        return _LINE.format(event=event, order_id=order_id, ts=ts).encode()


def latencies_ms(teams: Teams, events: int, every_seconds: float) -> list[float]:
    """Write one event at a time and wait until the derived file of its ledger is another one."""
    found = []
    due = time.perf_counter()
    for _ in range(events):
        due += every_seconds
        time.sleep(max(0.0, due - time.perf_counter()))
        path, line = teams.next()
        pending = path / "pending_orders.jsonl"
        before = os.stat(pending).st_ino
        log = os.open(path / "events.jsonl", os.O_WRONLY | os.O_APPEND)
        started = time.perf_counter()
        os.write(log, line)
        while os.stat(pending).st_ino == before:
            if time.perf_counter() - started > _WAIT_SECONDS_MAX:
                raise SystemExit(f"{pending} did not change within {_WAIT_SECONDS_MAX:.0f} s of an event")
            time.sleep(_LOOK_SECONDS)
        found.append((time.perf_counter() - started) * 1000)
        os.close(log)
    return found


def start(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a Python process of this package; its log is not looked at."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, *arguments], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that has to come."""
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within 60 s")
        time.sleep(0.05)


def cpu_seconds(pid: int) -> float:
    """Processor time of a process, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.latency", description=__doc__)
    parser.add_argument("--teams", type=int, default=20)
    parser.add_argument("--open-orders", type=int, default=1000)
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--every-ms", type=int, default=20)
    parser.add_argument("--idle-seconds", type=int, default=20)
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK)
    options = parser.parse_args(arguments)
    data = options.work / "latency"
    rows = []
    for name, command in (
        ("floor", ["-m", "tests.bench.floor", str(data)]),
        ("compactor", ["-m", "compactor", "watch", str(data)]),
    ):
        note(f"{name}: {options.events} events, one every {options.every_ms} ms")
        teams = Teams(data, options.teams, options.open_orders)
        _compact(data)
        process = start(command)
        try:
            time.sleep(2)  # Also lets the daemon catch up and take its first look at sealing.
            latencies_ms(teams, 50, 0.02)
            found = sorted(latencies_ms(teams, options.events, options.every_ms / 1000))
            rows.append((name, found))
            if name == "compactor":
                idle, resident = _idle(process.pid, options.idle_seconds)
        finally:
            process.terminate()
            process.wait()
    floor = statistics.median(rows[0][1])
    show(
        f"Latency, {options.teams} teams of {options.open_orders} open orders, {options.events} events, one every "
        f"{options.every_ms} ms; {machine()}",
        ("program", "median ms", "p99 ms", "max ms", "times floor"),
        [
            (
                name,
                f"{statistics.median(found):.2f}",
                f"{found[len(found) * 99 // 100]:.2f}",
                f"{found[-1]:.2f}",
                f"{statistics.median(found) / floor:.2f}",
            )
            for name, found in rows
        ],
    )
    print(f"\nIdle for {options.idle_seconds} s: {idle:.2f} % of a core, {resident:.0f} MB resident")
    shutil.rmtree(data, ignore_errors=True)
    return 0


def _compact(data: Path) -> None:
    """Both begin with derived files in place."""
    command = [sys.executable, "-m", "compactor", "compact", str(data), "--json", "--checkpoint"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)})


def _idle(pid: int, seconds: int) -> tuple[float, float]:
    time.sleep(3)
    before = cpu_seconds(pid)
    time.sleep(seconds)
    return (cpu_seconds(pid) - before) / seconds * 100, resident_mb(pid)


if __name__ == "__main__":
    raise SystemExit(main())
