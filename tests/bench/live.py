"""The link to the broker, measured (`make bench-live`): messages a second made durable, their latency, and a gap.

The broker is a process of its own (`live_broker`), on the loopback, so what the network adds is not in the figures; the
number of requests is. Note: on one core means that this program may use one, to which it is pinned;
the broker gets the other ones.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compactor.books.order_index import OrderIndex
from tests.bench.live_broker import KEY, PARTS, SECRET, TEAMS
from tests.bench.logs import DEFAULT_WORK
from tests.bench.process import ROOT
from tests.bench.progress import note
from tests.bench.report import machine, show

_ENVIRON = {
    "COMPACTOR_TEAMS": ",".join(f"team{number:02d}" for number in range(TEAMS)),
    "ALPACA_API_KEY": KEY,
    "ALPACA_SECRET_KEY": SECRET,
}


class Broker:
    """The broker's process."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.live_broker", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(self._process.pid, set(cores[1:]) or set(cores))
        self.environ = {**_ENVIRON, "APCA_API_BASE_URL": f"http://127.0.0.1:{int(self.said())}"}

    def said(self) -> bytes:
        """Its next line."""
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def begin(self) -> None:
        """Let it say what it has to say on the stream."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    def end(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


class Counter:
    """Writes what a stream tells, and counts it."""

    def __init__(self, writer: Any, expected: int) -> None:
        self._writer = writer
        self._expected = expected
        self.frames = self.batches = 0
        self.done = threading.Event()

    def connected(self) -> None:
        pass

    def disconnected(self, reason: str, pause_seconds: float) -> None:
        print(reason, file=sys.stderr)

    def refused(self, error: Exception) -> None:
        print(error, file=sys.stderr)

    def received(self, frames: Sequence[bytes | str]) -> None:
        self._writer.store(frames)
        self.frames += len(frames)
        self.batches += 1
        if self.frames >= self._expected:
            self.done.set()


def throughput(data: Path, orders: int) -> tuple[int, int, float, float]:
    """Messages, batches, seconds and processor seconds to make all messages of so many orders durable."""
    from compactor.broker.adapters import find_credentials
    from compactor.broker.alpaca.stream import TradeStream
    from compactor.broker.alpaca.translate import translate_message
    from compactor.sync.stream_writer import StreamWriter

    _empty(data)
    broker = Broker("--orders", str(orders))
    messages = orders * (PARTS + 1)
    counter = Counter(StreamWriter(data, translate_message, index=_make_index(data)), messages)
    stream = TradeStream(find_credentials(broker.environ), counter)
    thread = threading.Thread(target=stream.run)
    thread.start()
    try:
        assert broker.said() == b"listening\n"
        started, cpu = time.perf_counter(), time.process_time()
        broker.begin()
        assert counter.done.wait(300)
        return messages, counter.batches, time.perf_counter() - started, time.process_time() - cpu
    finally:
        stream.stop()
        thread.join()
        broker.end()


def latencies_ms(data: Path, orders: int, every_ms: int) -> list[float]:
    """For each message: from when it was handed to the broker's socket to the new `pending_orders.jsonl` in place."""
    _empty(data)
    broker = Broker("--orders", str(orders), "--every-ms", str(every_ms))
    program = subprocess.Popen(
        [sys.executable, "-m", "compactor", "run", str(data), "--log-level", "error"],
        env={**os.environ, **broker.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert broker.said() == b"listening\n"
        time.sleep(3)  # The first reconcile is over then.
        broker.begin()
        return [_latency(data, number, int(broker.said())) for number in range(orders * (PARTS + 1))]
    finally:
        program.terminate()
        program.wait()
        broker.end()


def _latency(data: Path, number: int, sent_ns: int) -> float:
    """Wait until the derived files of its team have a message, or more than that: passes may take several at once."""
    order, part = divmod(number, PARTS + 1)
    team = data / "team" / f"team{order % TEAMS:02d}"
    ended = (order // TEAMS) * PARTS
    while not _has(team, ended, part):
        if time.perf_counter_ns() - sent_ns > 10e9:
            raise SystemExit(f"{team}: message {number} was not there after 10 s")
        time.sleep(0.0001)
    return (time.perf_counter_ns() - sent_ns) / 1e6


def _make_index(data: Path) -> OrderIndex:
    """An order index that knows the teams before they have a ledger."""
    return OrderIndex(data, [f"team{number:02d}" for number in range(TEAMS)])


def _has(team: Path, ended: int, part: int) -> bool:
    """Whether the order that is open has so many parts filled, or, when it has ended, all of its trades are there."""
    pending = _read(team / "pending_orders.jsonl")
    if pending:
        return part < PARTS and int(pending.partition(b'"filled_qty":"')[2].partition(b'"')[0]) >= part * 5
    return _read(team / "trades.jsonl").count(b"\n") >= ended + (part or 1)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def gap(data: Path, orders: int, *, replay: bool) -> tuple[float, float, int, int]:
    """Close a gap of an hour: seconds of the replay and of the reconcile, requests, and trades that came of it."""
    from compactor import Ledger, discover
    from compactor.broker.adapters import find_credentials, open_broker
    from compactor.broker.budget import Budget
    from compactor.sync.answers import AskedAccount
    from compactor.sync.gaps import Gaps
    from compactor.sync.reconcile import Reconciler
    from compactor.sync.stream_writer import StreamWriter

    _empty(data)
    broker = Broker("--orders", str(orders), *(["--replay"] if replay else []))
    try:
        keys, budget = find_credentials(broker.environ), Budget()
        index = _make_index(data)
        port = open_broker(keys, budget=budget)
        gaps = Gaps(data, "default", port, StreamWriter(data, port.translate, index=index))
        reconciler = Reconciler(data, [AskedAccount("default", port)], index=index)
        import alpaca.trading.client  # noqa: F401  The import is paid for at the start, not by a gap.

        started = time.perf_counter()
        gaps.close()
        replayed = time.perf_counter()
        reconciler.run()
        ended = time.perf_counter()
        trades = 0
        for place in discover(data):
            with Ledger(place.path) as ledger:
                trades += sum(1 for _ in ledger.rows("trades"))
        return replayed - started, ended - replayed, budget.used, trades
    finally:
        broker.end()


def _gap_row(data: Path, fills: int, replay: bool) -> tuple[str, ...]:
    told, healed, requests, trades = gap(data, fills // PARTS, replay=replay)
    name = "with replay" if replay else "without"
    return (name, f"{told:.2f}", f"{healed:.2f}", str(requests), str(trades))


def _empty(data: Path) -> None:
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.live", description=__doc__)
    parser.add_argument("--orders", type=int, default=10_000, help="orders of the throughput, five messages each")
    parser.add_argument("--latency-orders", type=int, default=200)
    parser.add_argument("--every-ms", type=int, default=20)
    parser.add_argument("--fills", type=int, default=10_000, help="fills of the gap")
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK)
    options = parser.parse_args(arguments)
    data = options.work / "live"
    note("latency")
    found = sorted(latencies_ms(data, options.latency_orders, options.every_ms))
    show(
        f"From the broker's socket to pending_orders.jsonl: {len(found)} messages, one every {options.every_ms} ms, "
        f"{TEAMS} teams; {machine()}",
        ("", "median ms", "p99 ms", "max ms"),
        [("run", f"{statistics.median(found):.2f}", f"{found[len(found) * 99 // 100]:.2f}", f"{found[-1]:.2f}")],
    )
    note("gaps")
    rows = [_gap_row(data, options.fills, replay) for replay in (True, False)]
    show(
        f"A gap of an hour with {options.fills} fills",
        ("account", "replay s", "reconcile s", "requests", "trades"),
        rows,
    )
    note("throughput")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    messages, batches, seconds, cpu = throughput(data, options.orders)
    show(
        f"{messages} messages streamed and made durable, {TEAMS} teams, one core",
        ("", "batches", "messages/s", "CPU µs a message"),
        [("stream", str(batches), f"{messages / seconds:,.0f}", f"{cpu / messages * 1e6:.0f}")],
    )
    shutil.rmtree(data, ignore_errors=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
