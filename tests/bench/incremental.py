"""What a pass costs when one event was appended to a long log and to a short one: `python -m
tests.bench.incremental`.

Both ledgers have the same number of open orders. Each pass is measured three ways: with a Ledger that stays open (as
a running service has it), with a new one that reads its state from the checkpoint, and as a whole process, start
included. Beside them, in the same rounds, the floor: what the files alone cost, done by hand with the same bytes.

Note: the appended event always is a `partial_fill` of one large order, so that every pass appends
a trade and replaces the pending orders. The orders it fills come and go outside of what is measured.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from compactor import Ledger
from tests.bench.logs import DEFAULT_WORK, logs_of, prepared
from tests.bench.process import ProgramFailed, measure
from tests.bench.progress import Bar, note
from tests.bench.report import machine, show

FILLS_PER_ORDER = 20
_COLUMNS = ("a pass", "long ms", "short ms", "long / short", "floor ms", "long / floor")


class Subject:
    """One ledger that grows by a fill at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ledger = Ledger(path)
        self._order, self._fills = 0, 0

    def fold(self, title: str) -> None:
        """Fold the whole log once, and leave a checkpoint."""
        with Bar(title, (self.path / "events.jsonl").stat().st_size) as bar:
            self.ledger.compact(progress=lambda done, _: bar.set(done), checkpoint=True)

    def append_fill(self) -> None:
        """Append one fill as any other program would, written and not synced; now and then change the order first."""
        if self._fills % FILLS_PER_ORDER == 0:
            self._change_order()
        self._fills += 1
        done = (self._fills - 1) % FILLS_PER_ORDER + 1
        execution = f"00000000-0000-4000-a000-{self._fills:012d}"
        self._append("partial_fill", execution_id=execution, price="101.25", qty="10", filled_qty=str(done * 10))

    def last_lines(self) -> tuple[bytes, bytes, bytes]:
        """The bytes that the last pass was about: event, trade, and all pending orders."""
        event, trade = (_last_line(self.path / name) for name in ("events.jsonl", "trades.jsonl"))
        return event, trade, (self.path / "pending_orders.jsonl").read_bytes()

    def _change_order(self) -> None:
        if self._order:
            self._append("canceled")
        self._order += 1
        terms = {"symbol": "AAPL", "side": "buy", "quantity": "1000", "order_type": "limit", "time_in_force": "day"}
        self._append("new", **terms, limit_price="101.25", client_order_id=f"inc-{self._order:07d}")
        self.ledger.compact()

    def _append(self, event: str, **fields: str) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        order_id = f"00000000-0000-4000-8000-{self._order:012d}"
        line = {"event": event, "order_id": order_id, "ts": now, "recorded_at": now, **fields}
        with (self.path / "events.jsonl").open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")


class Floor:
    """The file operations of one pass and nothing else: what no program with the same promises can go below."""

    def __init__(self, path: Path) -> None:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        self._path = path
        for name in ("events.jsonl", "trades.jsonl"):
            (path / name).touch()

    def append(self, event: bytes) -> None:
        with (self._path / "events.jsonl").open("ab") as file:
            file.write(event)

    def run(self, trade: bytes, pending: bytes) -> None:
        """Sync the log, append and sync a trade, replace and sync the pending orders."""
        self._sync(self._path / "events.jsonl", os.O_RDONLY, b"", os.fdatasync)
        self._sync(self._path / "trades.jsonl", os.O_WRONLY | os.O_APPEND, trade, os.fsync)
        new = self._path / "pending_orders.jsonl.new"
        self._sync(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, pending, os.fsync)
        new.rename(self._path / "pending_orders.jsonl")
        self._sync(self._path, os.O_RDONLY, b"", os.fsync)

    def _sync(self, path: Path, flags: int, data: bytes, sync: Callable[[int], None]) -> None:
        descriptor = os.open(path, flags, 0o666)
        try:
            while data:
                data = data[os.write(descriptor, data) :]
            sync(descriptor)
        finally:
            os.close(descriptor)


def pass_of_open_ledger(subject: Subject) -> float:
    """Milliseconds of a pass of a Ledger that stays open."""
    return _timed_ms(subject.ledger.compact)


def pass_of_new_ledger(subject: Subject) -> float:
    """Milliseconds of a pass of a Ledger that first reads its state from the checkpoint."""
    subject.ledger.close()

    def run() -> None:
        with Ledger(subject.path) as ledger:
            ledger.compact()

    return _timed_ms(run)


def pass_of_process(subject: Subject) -> float:
    """Milliseconds of a whole `compactor compact`, its start and imports included."""
    subject.ledger.close()
    return measure([sys.executable, "-m", "compactor", "compact", str(subject.path), "--json"]).wall_s * 1000


def start_of_daemon(subject: Subject) -> float:
    """Milliseconds until a daemon has caught up, after the one before it was killed; it is killed in turn."""
    subject.ledger.close()
    command = [sys.executable, "-m", "compactor", "watch", str(subject.path)]
    started = time.perf_counter()
    with subprocess.Popen(command, stderr=subprocess.PIPE) as daemon:
        assert daemon.stderr is not None
        try:
            if not any(b'"caught_up"' in line for line in daemon.stderr):
                raise ProgramFailed(f"{' '.join(command)} ended before it had caught up")
            return (time.perf_counter() - started) * 1000
        finally:
            daemon.kill()


def rounds(
    long: Subject, short: Subject, floor: Floor, passes: int, run: Callable[[Subject], float]
) -> Iterator[tuple[float, float, float]]:
    """Milliseconds of long, short and floor, round by round; who comes first changes."""
    run(long), run(short)  # One outside of the measure, which leaves both as every later round finds them.
    for number in range(passes):
        found = {}
        for subject in (long, short) if number % 2 else (short, long):
            subject.append_fill()
            found[subject] = run(subject)
        event, trade, pending = long.last_lines()
        floor.append(event)
        yield found[long], found[short], _timed_ms(partial(floor.run, trade, pending))


def medians(title: str, passes: int, measured: Iterator[tuple[float, float, float]]) -> tuple[float, float, float]:
    """The three medians of all rounds."""
    found = []
    with Bar(title, passes) as bar:
        for one in measured:
            found.append(one)
            bar.set(len(found))
    long, short, floor = (statistics.median(column) for column in zip(*found, strict=True))
    return long, short, floor


def compare(work: Path, events_long: int, events_short: int, passes: int) -> None:
    """Fold both ledgers, run the rounds, print the table."""
    long, short = (Subject(logs_of(prepared(work, events, 1))[0].parent) for events in (events_long, events_short))
    floor = Floor(work / "floor")
    note(f"folding {events_long:,} and {events_short:,} events")
    long.fold("fold of the long log")
    short.fold("fold of the short log")
    few = max(3, passes // 5)
    table = [
        _row(
            "Ledger kept open", *medians("kept open", passes, rounds(long, short, floor, passes, pass_of_open_ledger))
        ),
        _row(
            "Ledger opened anew",
            *medians("opened anew", passes, rounds(long, short, floor, passes, pass_of_new_ledger)),
        ),
    ]
    for name, run in (
        ("whole process, start included", pass_of_process),
        ("daemon killed and started until caught up", start_of_daemon),
    ):
        long_ms, short_ms, _floor_ms = medians(name, few, rounds(long, short, floor, few, run))
        table.append((name, f"{long_ms:.0f}", f"{short_ms:.0f}", f"{long_ms / short_ms:.2f}", "", ""))
    for subject in (long, short):
        subject.ledger.close()
    logs = f"a log of {events_long:,} (long) and of {events_short:,} (short)"
    title = f"One event into {logs}, medians of {passes}; {machine()}"
    show(title, _COLUMNS, table)


def _row(name: str, long: float, short: float, floor: float) -> tuple[str, ...]:
    return (name, f"{long:.2f}", f"{short:.2f}", f"{long / short:.2f}", f"{floor:.2f}", f"{long / floor:.2f}")


def _timed_ms(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


def _last_line(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
        return file.read().rstrip(b"\n").rpartition(b"\n")[2] + b"\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.incremental", description="What one more event costs.")
    parser.add_argument("--events-large", type=int, default=10_000_000)
    parser.add_argument("--events-small", type=int, default=10_000)
    parser.add_argument("--passes", type=int, default=200)
    parser.add_argument(
        "--work", type=Path, default=DEFAULT_WORK, help="where the logs are kept (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    compare(options.work, options.events_large, options.events_small, options.passes)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
