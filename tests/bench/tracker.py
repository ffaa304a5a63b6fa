"""Figures of the order tracker: `make bench-tracker`, or `python -m tests.bench.tracker --teams 20 --orders 1000`.

The broker is the local Alpaca in a process of its own, on the loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from compactor import Ledger, OrderTracker
from compactor.broker.adapters import find_credentials, open_broker
from tests.alpaca_server import AlpacaServer
from tests.conftest import ROOT

LIMIT = {"symbol": "SPY", "qty": "2", "side": "buy", "type": "limit", "limit_price": "529.98", "time_in_force": "day"}


def show(what: str, seconds: list[float]) -> None:
    """One row: median, 99th percentile and the most, in milliseconds."""
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    print(f"{what}: median {1000 * median(ordered):.2f} ms, p99 {1000 * p99:.2f} ms, most {1000 * ordered[-1]:.2f} ms")


def read_memory() -> float:
    """What this process has in memory, in MB."""
    text = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) / 1024


def write_orders(data: Path, teams: int, orders: int) -> None:
    """A data directory of open orders, compacted."""
    for team in range(teams):
        with Ledger(data / f"team/t{team:02}", durability="none") as ledger:
            ledger.append(place(f"t{team:02}-{number}", number) for number in range(orders))
            ledger.compact(checkpoint=True)


def place(order_id: str, number: int) -> dict[str, str]:
    """An event that places an order."""
    ts = f"2026-03-02T14:{number // 60 % 60:02}:{number % 60:02}.000001Z"
    terms = {"symbol": "SPY", "side": "buy", "quantity": "10", "order_type": "limit", "limit_price": "530.00"}
    return {"event": "new", "order_id": order_id, "ts": ts, "source": "stream", **terms}


async def measure_submit(data: Path, environ: dict[str, str], count: int) -> None:
    """Submit until it is on disk and pending, beside the request alone."""
    broker = open_broker(find_credentials(environ))
    bare = []
    for number in range(count):
        terms = broker.read_request({**LIMIT, "client_order_id": f"bare:{number}"})
        started = time.perf_counter()
        await asyncio.to_thread(broker.place, terms)
        bare.append(time.perf_counter() - started)
    show("the request alone", bare)
    whole = []
    async with OrderTracker(data, environ={**os.environ, **environ}) as tracker:
        await tracker.submit("alpha", LIMIT)
        for _ in range(count):
            started = time.perf_counter()
            order = await tracker.submit("alpha", LIMIT)
            whole.append(time.perf_counter() - started)
            assert order.order_id in tracker.pending_orders
    show("submit, on disk twice and among the pending orders", whole)


async def measure_changes(data: Path, count: int) -> None:
    """A line that another program appends until an `async for` has the change."""
    async with OrderTracker(data, compact=False) as tracker:
        log = os.open(data / "team/t00/events.jsonl", os.O_WRONLY | os.O_APPEND)
        changes = tracker.changes("t00")
        seen = []
        for number in range(count):
            line = json.dumps(place(f"late-{number}", number)).encode() + b"\n"
            coming = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0.01)
            started = time.perf_counter()
            os.write(log, line)
            await coming
            seen.append(time.perf_counter() - started)
        os.close(log)
        await changes.aclose()
    show("a line is in the log until the change is seen", seen)


async def measure_frames(data: Path, count: int) -> None:
    """A fill at the broker until an `async for` has its trade, by way of the stream, the daemon's process and the log.

    The broker runs in a thread of this process, so that both ends have one clock.
    """
    seen: list[float] = []
    trades: asyncio.Queue[float] = asyncio.Queue()

    async def listen(tracker: OrderTracker) -> None:
        async for change in tracker.changes("alpha"):
            if change.kind == "trade":
                trades.put_nowait(time.perf_counter())

    with AlpacaServer(seed=1, rate_limit=None) as server:
        async with OrderTracker(data, environ={**os.environ, **server.environment}, compact=False) as tracker:
            order = await tracker.submit("alpha", {**LIMIT, "qty": str(count + 100)})
            tasks = [asyncio.create_task(tracker.run()), asyncio.create_task(listen(tracker))]
            await asyncio.sleep(5)  # The stream connects, and the first reconcile ends.
            for _ in range(count):
                started = time.perf_counter()
                await asyncio.to_thread(server.fill, order.order_id, 1, "529.90")
                seen.append(await asyncio.wait_for(trades.get(), 60) - started)
                await asyncio.sleep(0.02)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
    show("a fill at the broker until its trade is seen", seen)


async def measure_load(data: Path, teams: int, seconds: float) -> None:
    """Memory, and by how much this process makes the loop late, at the beginning and with 200 events a second."""
    stop, delays = asyncio.Event(), list[float]()

    async def watch() -> None:
        while not stop.is_set():
            started, spent = time.perf_counter(), time.process_time()
            await asyncio.sleep(0.001)
            # What other programs take of a busy machine is not the tracker's.
            delays.append(min(time.perf_counter() - started - 0.001, time.process_time() - spent))

    before = read_memory()
    task = asyncio.ensure_future(watch())
    started = time.perf_counter()
    async with OrderTracker(data, compact=False) as tracker:
        opened = time.perf_counter() - started
        count = len(tracker.pending_orders)
        print(f"opened {count} orders of {teams} teams in {opened:.2f} s; {read_memory() - before:.0f} MB for them")
        show("the loop is late meanwhile", delays)
        delays.clear()
        logs = [os.open(data / f"team/t{team:02}/events.jsonl", os.O_WRONLY | os.O_APPEND) for team in range(teams)]
        for number in range(int(seconds * 200)):
            os.write(logs[number % teams], json.dumps(place(f"load-{number}", number)).encode() + b"\n")
            await asyncio.sleep(0.005)
        for log in logs:
            os.close(log)
        stop.set()
        await task
        show("the loop is late with 200 events a second", delays)


def main(arguments: list[str] | None = None) -> None:
    """Take all figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.tracker", description=__doc__)
    parser.add_argument("--teams", type=int, default=20)
    parser.add_argument("--orders", type=int, default=1000, help="open orders of each team")
    parser.add_argument("--count", type=int, default=200, help="how often each thing is timed")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long there is load")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "data"
        write_orders(data, chosen.teams, chosen.orders)
        asyncio.run(measure_load(data, chosen.teams, chosen.seconds))
        asyncio.run(measure_changes(data, chosen.count))
        broker = subprocess.Popen(
            [sys.executable, "-m", "tests.alpaca_server", "--port", "0", "--steps", "0"], cwd=ROOT,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert broker.stdout is not None
            environ = {}
            for line in broker.stdout:
                if line.startswith("#"):
                    break
                key, _, value = line.removeprefix("export ").strip().partition("=")
                environ[key] = value
            asyncio.run(measure_frames(Path(name) / "stream", chosen.count))
            asyncio.run(measure_submit(Path(name) / "own", environ, min(chosen.count, 90)))
        finally:
            broker.terminate()
            broker.wait()
            broker.stdout.close() if broker.stdout is not None else None


if __name__ == "__main__":
    main()
