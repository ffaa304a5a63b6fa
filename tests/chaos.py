"""The law of the live ledger under chaos: `python -m tests.chaos --runs 1000 --seed 0`.

A run lets a seeded life happen at the local Alpaca while frames get lost, doubled, reordered and spoiled, requests
fail, and we are killed and started again. Then the broker is calm, and after one quiet reconcile our open orders and
trades have to be the broker's exactly: quantities, prices, executions, teams, statuses. A second one appends nothing.

Frames go straight from the broker's mouth into the writer of the stream, REST through the real client over loopback.
Note: what nobody can know yet is not asked for. A bust or a correction that no frame told is found
by the reconcile that looks back over days, so the trades of such orders are compared after that one only. And whose an
order is that names no team, and came from an order that we never heard of, nobody knows: `unassigned` is right too.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compactor.books.order_index import OrderIndex
from compactor.broker.adapters import open_broker
from compactor.broker.budget import Budget
from compactor.broker.placing import Trader
from compactor.broker.port import BrokerError, Translation
from compactor.sync.answers import AskedAccount
from compactor.sync.gaps import Gaps
from compactor.sync.reconcile import Reconciler
from compactor.sync.reconciled import Reconciled
from compactor.sync.stream_writer import StreamWriter
from tests.alpaca_server import Faults
from tests.alpaca_server.life import TEAMS
from tests.alpaca_server.truth import joined
from tests.chaos_brokers import BROKERS, ChaosBroker, ChaosServer, Mouth
from tests.chaos_law import differences, find_doubled, nameless_orders, orphaned_orders, revised_orders

START = "2026-03-02T14:30:00Z"
STEPS = 60
QUIET_SECONDS = 10
DAY_NS = 86_400 * 10**9
DAY_SECONDS = 86_400 + 60
TIMEOUT_SECONDS = (1.0, 0.04)


@dataclass
class Run:
    """What a run came to. `broken` says where the law does not hold; without any, the run is good."""

    seed: int
    broken: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


class Patient(Budget):
    """A budget that does not wait when the broker asks for a pause: here nobody has real seconds."""

    def pause(self, seconds: float) -> None:
        """Go on at once."""


class Killed(Exception):
    """An application was killed between the broker's yes and its own write."""


class MortalTrader(Trader):
    """An application that places orders, and is killed at the worst moment where `dies` says so."""

    dies = False

    def _write(self, path: Path, team: str, order: Translation, outcome: Sequence[Any] = ()) -> None:
        if self.dies:
            raise Killed
        super()._write(path, team, order, outcome)


class Side:
    """Our side: for each account the writer of its stream and its resends, one reconciler, and an application that
    trades on the first account. They can be killed and started again."""

    def __init__(self, data: Path, *servers: ChaosServer, broker: str = "alpaca") -> None:
        self.data = data
        self._servers = servers
        self.broker: ChaosBroker = BROKERS[broker]
        self._credentials = [self.broker.find_credentials(one, broker) for one in servers]
        self._budget = Patient(10**9)
        self._clock = servers[0].clock
        self.timeout_seconds = TIMEOUT_SECONDS
        self.start()

    def start(self) -> None:
        """Start as after a crash: nothing is remembered but what is on disk."""
        timeout, budget, clock = self.timeout_seconds, self._budget, self._clock
        index, accounts = OrderIndex(self.data, TEAMS), []
        self.writers: list[StreamWriter] = []
        self.all_gaps: list[Gaps] = []
        for number, credentials in enumerate(self._credentials):
            name = f"paper-{number}"
            broker = open_broker(credentials, budget=budget, timeout_seconds=timeout, tries=2, sleep=lambda _: None)
            self.writers.append(StreamWriter(self.data, broker.translate, index=index))
            self.all_gaps.append(Gaps(self.data, name, broker, self.writers[-1], clock=clock))
            accounts.append(AskedAccount(name, broker))
        self.writer, self.gaps = self.writers[0], self.all_gaps[0]
        self.reconciler = Reconciler(
            self.data, accounts, quiet_seconds=QUIET_SECONDS, clock=clock, sleep=lambda _: None, index=index
        )
        self.trader = MortalTrader(
            self.data, self._credentials[0], budget=budget, timeout_seconds=timeout, sleep=lambda _: None
        )

    def restart(self) -> None:
        """Be killed, and start again."""
        self.close()
        self.start()

    def close(self) -> None:
        """Give back what a process that has ended does not have open any more."""
        for writer in self.writers:
            writer.close()
        self.reconciler.close()

    def reconcile(self) -> Reconciled | None:
        """Reconcile; None where the broker could not be asked."""
        started = self._clock()
        try:
            done = self.reconciler.run()
        except BrokerError:
            return None
        if done.errors:
            return None
        if not done.waiting and not done.failed:
            for gaps in self.all_gaps:
                gaps.note_known(started)
        return done

    def holds(self, team: str, order_id: str) -> bool:
        """Whether a team's log names an order."""
        log = self.data / "team" / team / "events.jsonl"
        return log.exists() and order_id.encode() in log.read_bytes()

    def tear(self, rng: random.Random) -> None:
        """Leave a torn line at the end of a log, as a writer does that is killed."""
        logs = sorted(self.data.glob("team/*/events.jsonl"))
        if logs:
            with rng.choice(logs).open("ab") as log:
                log.write(b'{"event":"fill","order_id":"'[: rng.randint(1, 28)])

    def bytes_of_logs(self) -> dict[str, int]:
        return {str(path): path.stat().st_size for path in sorted(self.data.glob("team/*/events.jsonl"))}


def run(seed: int, data: Path, steps: int = STEPS, broker: str = "alpaca") -> Run:
    """One run of chaos, and whether the law holds after it; some runs have two accounts."""
    rng = random.Random(f"chaos {seed}")
    done = Run(seed)
    with ExitStack() as stack:
        servers = [stack.enter_context(_start(one, rng, broker)) for one in _seeds(seed, rng, broker)]
        for server in servers:
            server.exchange.clock = servers[0].exchange.clock
        mouths = [BROKERS[broker].make_mouth(server, rng) for server in servers]
        side = Side(data, *servers, broker=broker)
        stack.callback(side.close)
        for _ in range(steps):
            rng.choice(servers).live(1)
            _let_us_live(rng, servers, mouths, side, done)
        _hear(mouths, side)
        _end(servers, mouths, side, done)
    return done


def _seeds(seed: int, rng: random.Random, broker: str) -> list[int]:
    # Orders of two accounts at the small broker can have the same number.
    return [seed, seed + 1_000_000] if rng.random() < 0.2 and broker == "alpaca" else [seed]


def _start(seed: int, rng: random.Random, broker: str) -> ChaosServer:
    wild = Faults.wild(seed, share=rng.choice((0.02, 0.1, 0.3)))
    wild.hang, wild.hang_seconds, wild.slow_seconds = min(wild.hang, 0.02), 0.1, 0.001
    return BROKERS[broker].make_server(seed, START, rng, wild)


def _hear(mouths: list[Mouth], side: Side) -> int:
    """Write what the streams have told; how many events that was."""
    return sum(writer.store(mouth.take()).events for mouth, writer in zip(mouths, side.writers, strict=True))


def _let_us_live(rng: random.Random, servers: list[ChaosServer], mouths: list[Mouth], side: Side, done: Run) -> None:
    """What happens on our side between two things that happen at the broker."""
    if rng.random() < 0.4:
        done.counts["stream events"] += _hear(mouths, side)
    if rng.random() < 0.04:
        mouth = rng.choice(mouths)
        mouth.is_connected = not mouth.is_connected
        if mouth.is_connected:
            _connect(side, done)
    if rng.random() < 0.04:
        done.counts["reconciles under faults"] += 1
        done.counts["of which failed"] += side.reconcile() is None
    if rng.random() < 0.06:
        _place(rng, side, done)
    if rng.random() < 0.03:
        _cancel(rng, servers[0], side, done)
    if rng.random() < 0.03:
        done.counts["kills"] += 1
        for mouth in mouths:
            mouth.lose()
        side.tear(rng)
        side.restart()
        _connect(side, done)


def _place(rng: random.Random, side: Side, done: Run) -> None:
    """An application places an order, and does it again where nobody knows what became of it."""
    team, name = rng.choice(TEAMS), f"app-{rng.getrandbits(64):x}"
    terms = side.broker.terms
    side.trader.dies = rng.random() < 0.2
    for _ in range(rng.randint(1, 2)):
        try:
            order = side.trader.submit(team, terms | {"client_order_id": name})
        except (BrokerError, Killed) as error:
            done.counts[f"placing: {type(error).__name__}"] += 1
            continue
        done.counts["placing: done"] += 1
        if not side.holds(team, side.broker.find_id(order)):
            done.broken.append(f"{side.broker.find_id(order)} was placed, and stands in no log when submit returns")
    side.trader.dies = False


def _cancel(rng: random.Random, server: ChaosServer, side: Side, done: Run) -> None:
    """An application cancels an order that may have ended meanwhile."""
    orders = sorted(server.truth().orders)
    try:
        if orders:
            side.trader.cancel(rng.choice(orders))
    except BrokerError as error:
        done.counts[f"canceling: {type(error).__name__}"] += 1


def _connect(side: Side, done: Run) -> None:
    """Every new connection closes the gap behind it, and reconciles."""
    _close_gaps(side, done)
    side.reconcile()


def _close_gaps(side: Side, done: Run) -> None:
    for gaps in side.all_gaps:
        done.counts["messages resent"] += gaps.close().messages


def _end(servers: list[ChaosServer], mouths: list[Mouth], side: Side, done: Run) -> None:
    for server in servers:
        server.calm()
    # Nothing hangs any more: from now on a slow answer means a busy machine.
    side.timeout_seconds = (5.0, 30.0)
    side.restart()
    if not all(mouth.is_connected for mouth in mouths):
        _close_gaps(side, done)
    clock = servers[0].exchange.clock
    clock.advance(QUIET_SECONDS + 1)
    first = side.reconcile()
    if first is None:
        done.broken.append("the reconcile failed although the broker was calm")
        return
    truth = joined([server.truth() for server in servers])
    done.counts["events by reconcile"] += first.events
    done.broken += [f"a ledger failed: {team.error}" for team in first.failed]
    done.broken += list(find_doubled(truth))
    done.broken += [f"{order_id} still waits after the quiet period" for order_id in first.waiting]
    done.broken += differences(truth, side.data, revised_orders(truth))
    _expect_nothing(side, done, "a second reconcile")
    clock.advance(DAY_SECONDS)
    deep = side.reconcile()
    _expect_nothing(side, done, "a reconcile after the deep one")
    # Nobody looks again at an order that was placed more than a week ago.
    week_ago = clock.now() - 7 * DAY_NS
    clock.advance(DAY_SECONDS)
    last = _expect_nothing(side, done, "another deep one")
    # Where the frame of an execution was spoiled our trade has no id, and no bust can name it; where that of a revision
    # was, the next one cannot be told from it. The reconcile says so.
    nameless = revised_orders(truth) & nameless_orders(side.data)
    unheard = {one for mouth in mouths for one in mouth.unheard}
    named = {problem.order_id for problem in last.problems if problem.order_id} if last is not None else set()
    nameless |= revised_orders(truth) & unheard & named
    old = {one for one in revised_orders(truth) if truth.orders[one].submitted_at < week_ago}
    done.broken += [f"after a day: {one}" for one in differences(truth, side.data, nameless | old)]
    if last is not None:
        unsure = {truth.orders[one].symbol.replace("/", "") for one in nameless | old if one in truth.orders}
        compared = [one for one in last.positions if one.symbol not in unsure]
        done.broken += [one.detail for one in compared if one.kind == "differs"]
        done.counts["positions compared"] += len(compared)
    done.counts["events by a deep reconcile"] += deep.events if deep is not None else 0
    done.counts["orders with a revision that nobody can name"] += len(nameless)
    done.counts["orders with a revision and older than a week"] += len(old)
    done.counts["orders with a revision unheard"] += len(unheard)
    done.counts["orders left unassigned"] += len(orphaned_orders(truth, side.data))
    done.counts["orders"] += len(truth.orders)
    done.counts["executions"] += sum(map(len, truth.fills.values()))
    done.counts["runs with two accounts"] += len(servers) - 1


def _expect_nothing(side: Side, done: Run, what: str) -> Reconciled | None:
    before = side.bytes_of_logs()
    again = side.reconcile()
    if again is None or again.events or before != side.bytes_of_logs():
        events = [] if again is None else [event for team in again.teams for event in team.events]
        done.broken.append(f"{what} appends {[(one['event'], one['order_id']) for one in events]}")
    return again


def main(arguments: list[str] | None = None) -> int:
    """Run many seeds; print of each that breaks the law what is broken, and the command that replays it."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="how many runs (default 1000)")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the first run; each further one has the next (default 0)"
    )
    parser.add_argument("--steps", type=int, default=STEPS, help=f"how much happens in a run (default {STEPS})")
    parser.add_argument("--broker", choices=sorted(BROKERS), default="alpaca", help="which broker (default alpaca)")
    parser.add_argument("--keep", type=Path, help="keep the data directory of each bad run below this one")
    chosen = parser.parse_args(arguments)
    started, bad, counts = time.monotonic(), 0, Counter[str]()
    for seed in range(chosen.seed, chosen.seed + chosen.runs):
        with tempfile.TemporaryDirectory(prefix="chaos-", dir=fast_directory()) as directory:
            done = run(seed, Path(directory), chosen.steps, chosen.broker)
            counts += done.counts
            if done.broken:
                bad += 1
                print(f"seed {seed} breaks the law:", *done.broken, sep="\n  ")
                print(
                    f"  again: python -m tests.chaos --runs 1 --seed {seed} --steps {chosen.steps} "
                    f"--broker {chosen.broker} --keep kept",
                    flush=True,
                )
                if chosen.keep:
                    shutil.copytree(directory, chosen.keep / str(seed), dirs_exist_ok=True)
    elapsed = time.monotonic() - started
    told_counts = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    print(f"{chosen.runs} runs from seed {chosen.seed} in {elapsed:.1f} s, {bad} bad: {told_counts}")
    return 1 if bad else 0


def fast_directory() -> str | None:
    """In memory where there is such a place: this is about what is written, not about the disk."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of sets decides in which order we ask, and so which request meets which fault.
        os.execve(
            sys.executable, [sys.executable, "-m", "tests.chaos", *sys.argv[1:]], os.environ | {"PYTHONHASHSEED": "0"}
        )
    sys.exit(main())
