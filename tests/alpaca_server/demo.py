"""The whole product offline: `make demo`. Three teams trade at random at the local Alpaca, `compactor run` follows.

It works in a temporary directory that is gone afterwards. Note: the broker is the only one that
writes orders; every row that is shown came over the stream or out of a reconcile.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compactor.web.api_keys import KeyStore
from tests.alpaca_server.life import Life
from tests.alpaca_server.server import AlpacaServer

OPEN_MAX = 14
PORT = 8470
COMPACTOR = [sys.executable, "-m", "compactor"]
CLEAR = "\x1b[H\x1b[J"


def main(arguments: list[str] | None = None) -> int:
    """Run until Ctrl-C, or for so many seconds; then hold our open orders against the broker's. Exit 1: they differ."""
    parser = argparse.ArgumentParser(prog="python -m tests.alpaca_server.demo", description=__doc__)
    parser.add_argument("--seconds", type=float, default=None, help="end by itself after so long")
    parser.add_argument("--seed", type=int, default=0, help="the same seed trades the same (default 0)")
    parser.add_argument("--pause", type=float, default=0.3, help="seconds between two things that happen (default 0.3)")
    chosen = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        return _demo(chosen.seed, chosen.pause, chosen.seconds)
    except KeyboardInterrupt:
        print("\nEnded before the comparison.")
        return 130


def _demo(seed: int, pause: float, seconds: float | None) -> int:
    with tempfile.TemporaryDirectory(prefix="compactor-demo-") as directory, AlpacaServer(seed) as server:
        data, log = Path(directory) / "data", Path(directory) / "run.log"
        data.mkdir()
        print(f"The broker is at {server.url}, the ledgers are in {data}; Ctrl-C ends all.", flush=True)
        key = KeyStore(data).create(None).key
        with _following(server, data, log) as follower, _trading(server, seed, pause):
            _wait_for_stream(server, follower, log)
            page = f"Look at http://{_find_address(log)}/#key={key} (the key of an administrator: {key})"
            print(page, flush=True)
            _watch(server, follower, data, seconds, page)
        return _settle(server, data)


@contextmanager
def _following(server: AlpacaServer, data: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`compactor run`, as anybody would start it, in a process of its own."""
    with log.open("wb") as said:
        # In a group of its own: Ctrl-C is for us, and we end it in order.
        follower = subprocess.Popen(
            [*COMPACTOR, "run", str(data), "--http", _choose_address()], env=os.environ | server.environment,
            stdout=said, stderr=said, start_new_session=True,
        )  # fmt: skip
        try:
            yield follower
        finally:
            follower.terminate()
            try:
                follower.wait(15)
            except subprocess.TimeoutExpired:
                follower.kill()
                follower.wait()


@contextmanager
def _trading(server: AlpacaServer, seed: int, pause: float) -> Iterator[None]:
    """Three teams, and somebody by hand, trade until this ends."""
    life = Life(server.exchange, seed, open_max=OPEN_MAX)
    over = threading.Event()

    def trade() -> None:
        while not over.wait(pause):
            life.step()

    thread = threading.Thread(target=trade, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _wait_for_stream(server: AlpacaServer, follower: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while not server.listeners:
        if follower.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"compactor run did not listen to the broker; it said:\n{log.read_text()}")
        time.sleep(0.05)


def _choose_address() -> str:
    """Always the same, so that a page that is open finds the next demo; another one where that is in use."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError:
            return "127.0.0.1:0"
    return f"127.0.0.1:{PORT}"


def _find_address(log: Path) -> str:
    """Where the page is, by the log of the daemon."""
    found = (json.loads(line) for line in log.read_text().splitlines() if '"http_started"' in line)
    return str(next(found)["address"]).removeprefix("http://")


def _watch(
    server: AlpacaServer, follower: subprocess.Popen[bytes], data: Path, seconds: float | None, page: str
) -> None:
    """Show the open orders once a second; on a terminal always in the same place."""
    started = time.monotonic()
    try:
        while follower.poll() is None and (seconds is None or time.monotonic() - started < seconds):
            rows = _compactor("show", "pending", "--data", str(data))
            told = f"{len(server.account.told)} messages so far, {len(server.truth().open)} orders open at the broker"
            print(f"{CLEAR + page + chr(10) if sys.stdout.isatty() else ''}{told}\n{rows}", flush=True)
            time.sleep(1)
    except KeyboardInterrupt:
        print()


def _settle(server: AlpacaServer, data: Path) -> int:
    """Reconcile once more, now that all is quiet, and compare."""
    print("Trading has ended; one more reconcile, once the last orders have been quiet for 10 s.", flush=True)
    environment = os.environ | server.environment
    time.sleep(11)
    done = subprocess.run([*COMPACTOR, "reconcile", str(data), "--once"], env=environment, check=False)
    ours = {line.split('"order_id":"')[1].split('"')[0] for line in _lines(data, "pending_orders.jsonl")}
    trades = len(_lines(data, "trades.jsonl"))
    theirs = set(server.truth().open)
    same = "the same" if ours == theirs else f"NOT the same: {sorted(ours ^ theirs)}"
    print(f"Open orders: {len(theirs)} at the broker, {len(ours)} here, {same}. Trade lines: {trades}.", flush=True)
    return 0 if ours == theirs and done.returncode in (0, 1) else 1


def _compactor(*arguments: str) -> str:
    """What a command prints, be it a complaint."""
    done = subprocess.run([*COMPACTOR, *arguments], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def _lines(data: Path, name: str) -> list[str]:
    return [line for path in data.glob(f"team/*/{name}") for line in path.read_text().splitlines()]


if __name__ == "__main__":
    sys.exit(main())
