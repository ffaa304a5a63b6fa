"""Chaos against the real thing: `python -m tests.chaos_live --minutes 60 --seed 0`.

`compactor run` as a process of its own listens to the local Alpaca over its socket while frames get lost and spoiled,
connections break, hang and fall silent, requests fail, keys are refused, a gateway answers, activities come late,
orders cannot be asked for, resends never end, and the process is killed again and again. Then the broker is calm, and
after `compactor reconcile --once` the same law holds as in `chaos`, which runs thousands of such lives without sockets
and processes. Note: the clock is the real one, so a run takes as long as it says, and 15 s more.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import msgspec

from tests.alpaca_server import AlpacaServer, Faults
from tests.alpaca_server.demo import COMPACTOR
from tests.alpaca_server.life import Life
from tests.chaos import Run, fast_directory
from tests.chaos_hardships import POISONS
from tests.chaos_law import differences
from tests.chaos_side import QUIET_SECONDS

STEP_SECONDS = 0.15
RECONCILE_SECONDS_MAX = 3600
"""Some lives have orders of thousands of executions, 100,000 in an hour: 1,000 pages, at 150 requests a minute."""
OPEN_MAX = 60
TROUBLE_SECONDS, CALM_SECONDS = (4, 45), (5, 40)
"""How long something is wrong, and how long it is not after that; keys that worked are tried for 15 minutes."""


class Troubles:
    """One thing at a time that is wrong for a while at the broker."""

    KINDS = (
        "unauthorized",
        "forbidden",
        "page",
        "late_activities",
        "poisoned_orders",
        "endless_resend",
        "dropped_resend",
    )

    def __init__(self, server: AlpacaServer, rng: random.Random) -> None:
        self._server = server
        self._rng = rng
        self._now: str | None = None
        self._until = time.monotonic() + rng.uniform(*CALM_SECONDS)
        self.drawn: Counter[str] = Counter()

    def step(self) -> None:
        """Let something begin or end, if it is time."""
        if time.monotonic() < self._until:
            return
        if self._now is not None:
            self.end()
            self._until = time.monotonic() + self._rng.uniform(*CALM_SECONDS)
            return
        self._now = self._rng.choice(self.KINDS)
        self._until = time.monotonic() + self._rng.uniform(*TROUBLE_SECONDS)
        self.drawn[self._now] += 1
        self._begin(self._now)

    def _begin(self, kind: str) -> None:
        server, rng = self._server, self._rng
        if kind in ("unauthorized", "forbidden", "page"):
            server.refuse(kind)
        elif kind == "late_activities":
            server.withhold()
        elif kind == "poisoned_orders":
            orders = sorted(server.truth().open)
            for order_id in rng.sample(orders, min(len(orders), 5)):
                server.poison(order_id, rng.choice(POISONS))
        elif kind == "endless_resend":
            server.resend.is_endless = True
        else:
            server.resend.slow_comment = True

    def end(self) -> None:
        """Make it good again."""
        server, self._now = self._server, None
        server.accept()
        server.gate.poisoned.clear()
        server.resend.is_endless = False
        if server.account.withheld_since is not None:
            server.backfill()


class Follower:
    """`compactor run`, which is killed and started again."""

    def __init__(self, server: AlpacaServer, data: Path, log: Path) -> None:
        self._environment = os.environ | server.environment
        self._command = [*COMPACTOR, "run", str(data), "--reconcile-seconds", "10"]
        self._log = log.open("ab")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process, which may take its time."""
        self._process = subprocess.Popen(self._command, env=self._environment, stdout=self._log, stderr=self._log)

    @property
    def ended(self) -> int | None:
        """The exit code, if it ended by itself."""
        assert self._process is not None
        return self._process.poll()

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it, and wait until it has ended."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(30)


def run(seed: int, seconds: float, data: Path, step_seconds: float = STEP_SECONDS) -> Run:
    """One run, and whether the law holds after it."""
    done, rng = Run(seed), random.Random(f"live chaos {seed}")
    with AlpacaServer(seed, faults=_faults(seed), rate_limit=None, resend=rng.random() < 0.5, dead_seconds=3) as server:
        follower = Follower(server, data, data.parent / "run.log")
        follower.start()
        # Revisions are for `chaos`: a reconcile that looks for them looks back over a day, which takes one here.
        life = Life(server.exchange, seed, revisions=False, open_max=OPEN_MAX)
        troubles = Troubles(server, rng)
        server.account.writer.share_without_event_id = rng.choice((0.0, 0.2, 1.0))
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            life.step()
            troubles.step()
            time.sleep(step_seconds)
            if follower.ended is not None:
                done.broken.append(f"compactor run ended by itself with exit code {follower.ended}")
                break
            if rng.random() < step_seconds / 8:
                follower.kill()
                follower.start()
                done.counts["kills"] += 1
        done.counts["connections"] += server.stream.opened
        troubles.end()
        _end(server, follower, data, done)
        done.drawn += troubles.drawn + life.drawn + server.faults.struck
    return done


def _faults(seed: int) -> Faults:
    faults = Faults.wild(seed, share=0.1)
    faults.disconnect, faults.half_open, faults.mute = 0.02, 0.004, 0.01
    faults.hang_seconds = 2.0
    faults.rate_limited = 0.0  # It is answered by a pause of up to a minute.
    return faults


def _end(server: AlpacaServer, follower: Follower, data: Path, done: Run) -> None:
    server.calm()
    time.sleep(QUIET_SECONDS + 2)
    if follower.ended is None:
        follower.kill(signal.SIGTERM)
    said = _reconcile(server, data, done)
    found = list(differences(server.truth(), data, set()))
    done.broken += [*found, f"what the reconcile said: {said[:2000]}"] if found else []
    before = _sizes(data)
    _reconcile(server, data, done)
    if before != _sizes(data):
        done.broken.append("a second reconcile appends")
    done.counts["messages told"] += len(server.account.told)
    done.counts["orders"] += len(server.truth().orders)
    done.counts["executions"] += sum(map(len, server.truth().fills.values()))


def _reconcile(server: AlpacaServer, data: Path, done: Run) -> str:
    command = [*COMPACTOR, "reconcile", str(data), "--once", "--json"]
    said = subprocess.run(
        command,
        env=os.environ | server.environment,
        capture_output=True,
        text=True,
        timeout=RECONCILE_SECONDS_MAX,
        check=False,
    )
    with suppress(msgspec.DecodeError):
        told = msgspec.json.decode(said.stdout)
        done.counts["requests of the reconciles at the end"] += told["requests"]
        done.counts["milliseconds of these"] += told["elapsed_ms"]
    if said.returncode != 0:
        done.broken.append(f"compactor reconcile --once: exit code {said.returncode}: {said.stderr.strip()[:300]}")
    return said.stdout


def _sizes(data: Path) -> dict[str, int]:
    return {str(path): path.stat().st_size for path in data.glob("team/*/events.jsonl")}


def main(arguments: list[str] | None = None) -> int:
    """Run one seed after the other; exit code 1 where one breaks the law."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos_live", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long each run trades (default 60)")
    parser.add_argument("--minutes", type=float, help="the same in minutes")
    parser.add_argument(
        "--step-seconds", type=float, default=STEP_SECONDS,
        help=f"between two things that happen (default {STEP_SECONDS}, about what Alpaca's limit lets one account do)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the first run (default 0)")
    parser.add_argument("--keep", type=Path, help="keep the data directory of each bad run below this one")
    parser.add_argument("--runs", type=int, default=1, help="how many (default 1)")
    chosen = parser.parse_args(arguments)
    seconds, bad = chosen.minutes * 60 if chosen.minutes else chosen.seconds, 0
    for seed in range(chosen.seed, chosen.seed + chosen.runs):
        with tempfile.TemporaryDirectory(prefix="chaos-live-", dir=fast_directory()) as directory:
            data = Path(directory) / "data"
            data.mkdir()
            done = run(seed, seconds, data, chosen.step_seconds)
            bad += bool(done.broken)
            print(f"seed {seed}: {'bad' if done.broken else 'good'}, {dict(done.counts)}", *done.broken, sep="\n  ")
            print(f"  drawn: {', '.join(f'{count} {name}' for name, count in sorted(done.drawn.items()) if count)}")
            if done.broken:
                if chosen.keep:
                    shutil.copytree(directory, chosen.keep / str(seed), dirs_exist_ok=True)
                print("  " + (data.parent / "run.log").read_text()[-3000:].replace("\n", "\n  "))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
