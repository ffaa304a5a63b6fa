"""The fairness law: whatever one team appends to its log, the daemon keeps the other teams current (`make fairness`).

One daemon serves ten teams and one hostile team. For each log of `tests.hostile` the program appends it to the hostile
team's log, measures how long the events of the others take until their pending orders are new, asks `/livez` meanwhile,
and ends the daemon with SIGTERM. The law: median below 20 ms, 99th percentile below 250 ms, `/livez` always 200, and
the end within a second.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import socket
import statistics
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.bench.latency import Teams, latencies_ms, start, until
from tests.bench.logs import DEFAULT_WORK
from tests.bench.report import machine, show
from tests.hostile import HOSTILE

MEDIAN_MS_MAX = 20.0
P99_MS_MAX = 250.0
STOP_SECONDS_MAX = 1.0


class Outcome(msgspec.Struct, frozen=True):
    """What the other teams saw while the daemon worked on a hostile log. Times in milliseconds, `stop_ms` too."""

    attack: str
    bytes: int
    median_ms: float
    p99_ms: float
    livez_failures: int
    stop_ms: float
    ledger_bytes: int
    """What the hostile team's directory then takes on the disk, its log left out."""

    @property
    def is_fair(self) -> bool:
        """Whether the law held."""
        is_prompt = self.median_ms < MEDIAN_MS_MAX and self.p99_ms < P99_MS_MAX
        return is_prompt and self.livez_failures == 0 and self.stop_ms < STOP_SECONDS_MAX * 1000


class _Livez(threading.Thread):
    """Asks `/livez` ten times a second, as a service manager would more seldom."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.failures = 0
        self._url = f"http://127.0.0.1:{port}/livez"
        self._is_over = threading.Event()

    def run(self) -> None:
        while not self._is_over.wait(0.1):
            try:
                with urllib.request.urlopen(self._url, timeout=5) as answer:
                    self.failures += answer.status != 200
            except OSError:
                self.failures += 1

    def finish(self) -> int:
        self._is_over.set()
        self.join()
        return self.failures


def measure(attack: str, work: Path, events: int, *, teams: int = 10, open_orders: int = 200) -> Outcome:
    """Run one attack against a daemon of its own."""
    data = work / "fairness"
    others = Teams(data, teams, open_orders)
    hostile = data / "team" / "hostile"
    hostile.mkdir()
    log = HOSTILE[attack]()
    port = _find_port()
    daemon = start(["-m", "compactor", "watch", str(data), "--http", f"127.0.0.1:{port}"])
    try:
        until(lambda: _answers(port), "the daemon is ready")
        latencies_ms(others, 20, 0.02)
        livez = _Livez(port)
        livez.start()
        (hostile / "events.jsonl").write_bytes(log)
        found = sorted(latencies_ms(others, events, 0.02))
        failures = livez.finish()
        started = time.perf_counter()
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(30)
        stop_ms = (time.perf_counter() - started) * 1000
    finally:
        daemon.kill()
        daemon.wait()
    taken = sum(path.stat().st_size for path in hostile.rglob("*") if path.is_file() and path.name != "events.jsonl")
    shutil.rmtree(data, ignore_errors=True)
    median, p99 = statistics.median(found), found[len(found) * 99 // 100]
    return Outcome(attack, len(log), median, p99, failures, stop_ms, taken)


def _find_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fairness", description=__doc__)
    parser.add_argument("--events", type=int, default=500, help="events of the other teams per attack")
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="where the data directory is made")
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=f"default: all of {', '.join(HOSTILE)}")
    options = parser.parse_args(arguments)
    outcomes = []
    for attack in options.attacks or HOSTILE:
        print(f"{attack}: {options.events} events of the other teams", file=sys.stderr)
        outcomes.append(measure(attack, options.work, options.events))
    show(
        f"Fairness: ten other teams, one event every 20 ms, while the daemon works on a hostile log; {machine()}",
        ("attack", "log MB", "median ms", "p99 ms", "livez failures", "SIGTERM ms", "derived MB", "fair"),
        [
            (
                one.attack,
                f"{one.bytes / 1e6:.1f}",
                f"{one.median_ms:.2f}",
                f"{one.p99_ms:.1f}",
                str(one.livez_failures),
                f"{one.stop_ms:.0f}",
                f"{one.ledger_bytes / 1e6:.1f}",
                "yes" if one.is_fair else "NO",
            )
            for one in outcomes
        ],
    )
    return 0 if all(one.is_fair for one in outcomes) else 1


if __name__ == "__main__":
    raise SystemExit(main())
