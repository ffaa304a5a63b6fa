"""The law of the live ledger under chaos: `python -m tests.chaos --runs 1000 --seed 0`.

A run lets a seeded life happen at the local Alpaca while frames get lost, doubled, reordered and spoiled, requests
fail, and we are killed and started again. Then the broker is calm, and after one quiet reconcile our open orders and
trades have to be the broker's exactly: quantities, prices, executions, teams, statuses. A second one appends nothing.

Frames go straight from the broker's mouth into the writer of the stream, REST through the real client over loopback.
Note: what nobody can know yet is not asked for. A bust or a correction that no frame told is found at once where the
order is in a list, or where the position has come to differ by it; else, as a price that changes no position, by the
reconcile that looks back over days, so the trades of such orders are compared after that one only. Of an execution that
was told without its id, no bust can be told at all: the reconcile names the order. And whose an order is that names no
team, and came from an order that we never heard of, nobody knows: `unassigned` is right too.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from compactor.broker.credentials import BadCredentials
from compactor.broker.port import BrokerError
from compactor.sync.reconciled import Reconciled
from tests.alpaca_server import Faults
from tests.alpaca_server.life import TEAMS
from tests.alpaca_server.truth import Truth, joined
from tests.chaos_brokers import BROKERS, ChaosServer, Mouth
from tests.chaos_hardships import ALPACA, POISONS, Hardships, World
from tests.chaos_law import (
    changed_trades,
    differences,
    different_sums,
    find_doubled,
    find_family,
    nameless_orders,
    orphaned_orders,
    revised_orders,
)
from tests.chaos_side import (
    QUIET_SECONDS,
    RESEND_SECONDS,
    SHORT_RESEND_SECONDS,
    SHORT_TIMEOUT_SECONDS,
    TIMEOUT_SECONDS,
    Killed,
    Side,
)

START, EVENING, FRIDAY = "2026-03-02T14:30:00Z", "2026-03-03T00:59:00Z", "2026-03-07T00:40:00Z"
"""A Monday's morning in New York, its evening just before 20:00, and that of a Friday before the clocks change."""
STEPS = 60
DAY_NS = 86_400 * 10**9
DAY_SECONDS = 86_400 + 900
"""A day, and more than our clock is ever set back."""
POISON_SHARE = 0.25


@dataclass
class Run:
    """What a run came to. `broken` says where the law does not hold; without any, the run is good."""

    seed: int
    broken: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    drawn: Counter[str] = field(default_factory=Counter)
    """How often each fault struck, and each rare thing happened."""


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
        side.timeout_seconds, side.resend_seconds = SHORT_TIMEOUT_SECONDS, SHORT_RESEND_SECONDS
        side.restart()
        world = World(servers, mouths, side, rng, lambda: _connect(side, done))
        hardships = Hardships(world, ALPACA if broker == "alpaca" else ())
        for _ in range(steps):
            rng.choice(servers).live(1)
            hardships.step()
            _let_us_live(rng, servers, mouths, side, done)
        _hear(mouths, side)
        hardships.end()
        _end(world, done, hardships)
    for server in servers:
        done.drawn += server.faults.struck + server.life.drawn + BROKERS[broker].count_habits(server)
    done.drawn += hardships.drawn
    return done


def _seeds(seed: int, rng: random.Random, broker: str) -> list[int]:
    # Orders of two accounts at the small broker can have the same number.
    return [seed, seed + 1_000_000] if rng.random() < 0.2 and broker == "alpaca" else [seed]


def _start(seed: int, rng: random.Random, broker: str) -> ChaosServer:
    wild = Faults.wild(seed, share=rng.choice((0.02, 0.1, 0.3)))
    wild.hang, wild.hang_seconds, wild.slow_seconds = min(wild.hang, 0.02), 0.1, 0.001
    return BROKERS[broker].make_server(seed, rng.choice((START, START, EVENING, FRIDAY)), rng, wild)


def _hear(mouths: list[Mouth], side: Side) -> int:
    """Write what the streams have told; how many events that was."""
    return sum(writer.store(mouth.take()).events for mouth, writer in zip(mouths, side.writers, strict=True))


def _let_us_live(rng: random.Random, servers: list[ChaosServer], mouths: list[Mouth], side: Side, done: Run) -> None:
    """What happens on our side between two things that happen at the broker."""
    if rng.random() < 0.4:
        done.counts["stream events"] += _hear(mouths, side)
    if rng.random() < 0.04:
        mouth = rng.choice(mouths)
        mouth.is_connected = not (mouth.is_connected or mouth.is_refused)
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
        except (BrokerError, BadCredentials, Killed) as error:
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
    except (BrokerError, BadCredentials) as error:
        done.counts[f"canceling: {type(error).__name__}"] += 1


def _connect(side: Side, done: Run) -> None:
    """Every new connection closes the gap behind it, and reconciles."""
    _close_gaps(side, done)
    side.reconcile()


def _close_gaps(side: Side, done: Run) -> None:
    for gaps in side.all_gaps:
        try:
            closed = gaps.close()
        except BadCredentials:
            done.counts["resends refused"] += 1
        else:
            done.counts["messages resent"] += closed.messages
            done.counts["resends incomplete"] += bool(closed.kind) and not closed.complete


def _end(world: World, done: Run, hardships: Hardships) -> None:
    servers, mouths, side = world.servers, world.mouths, world.side
    for server in servers:
        server.calm()
    # Nothing hangs any more.
    side.timeout_seconds, side.resend_seconds = TIMEOUT_SECONDS, RESEND_SECONDS
    side.restart()
    clock = servers[0].exchange.clock
    # How far the clocks are apart is known to the second only.
    clock.advance(QUIET_SECONDS + (3 if side.skew_seconds else 1))
    if not all(mouth.is_connected for mouth in mouths):
        _close_gaps(side, done)
    if hardships.drawn["paper_reset"]:
        side.reconcile(forget_missing=True)
    truth = joined([server.truth() for server in servers])
    _reconcile_around_poison(world, truth, done, hardships.late_orders)
    first = side.reconcile()
    if first is None:
        done.broken.append("the reconcile failed although the broker was calm")
        return
    done.counts["events by reconcile"] += first.events
    done.broken += [f"a ledger failed: {team.error}" for team in first.failed]
    done.broken += list(find_doubled(truth))
    done.broken += [f"{order_id} still waits after the quiet period" for order_id in first.waiting]
    late = hardships.late_orders - revised_orders(truth)
    done.broken += differences(truth, side.data, revised_orders(truth) | late)
    done.broken += different_sums(truth, side.data, late)
    done.broken += changed_trades(side.data, hardships.fills_before)
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


def _reconcile_around_poison(world: World, truth: Truth, done: Run, late: set[str]) -> None:
    """In some runs, reconcile once while an order cannot be asked for: all others have to be the broker's."""
    if world.side.broker is not BROKERS["alpaca"] or world.rng.random() > POISON_SHARE or not truth.orders:
        return
    poisoned = world.rng.choice(sorted(truth.orders))
    for server in world.servers:
        server.poison(poisoned, world.rng.choice(POISONS))
    done.drawn["poison_at_the_end"] += 1
    if world.side.reconcile() is None:
        done.broken.append(f"the reconcile failed because {poisoned} could not be asked for")
    left_out = find_family(truth, poisoned)
    found = differences(truth, world.side.data, revised_orders(truth) | late, unasked=left_out)
    done.broken += [f"while {poisoned} could not be asked for: {one}" for one in found]
    for server in world.servers:
        server.gate.poisoned.clear()


def _expect_nothing(side: Side, done: Run, what: str) -> Reconciled | None:
    before = side.bytes_of_logs()
    again = side.reconcile()
    if again is None or again.events or before != side.bytes_of_logs():
        events = [] if again is None else [event for team in again.teams for event in team.events]
        done.broken.append(f"{what} appends {[(one['event'], one['order_id']) for one in events]}")
    return again


def main(arguments: list[str] | None = None) -> int:
    """Run many seeds; print of each that breaks the law what is broken, and the command that replays it. How far
    it has come stands on stderr. Ctrl-C ends early, with the same summary."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="how many runs (default 1000)")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the first run; each further one has the next (default 0)"
    )
    parser.add_argument("--steps", type=int, default=STEPS, help=f"how much happens in a run (default {STEPS})")
    parser.add_argument("--broker", choices=sorted(BROKERS), default="alpaca", help="which broker (default alpaca)")
    parser.add_argument("--jobs", type=int, default=1, help="how many processes share the runs (default 1)")
    parser.add_argument("--keep", type=Path, help="keep the data directory of each bad run below this one")
    chosen = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    started, runs, bad, counts, drawn = time.monotonic(), 0, 0, Counter[str](), Counter[str]()
    seeds = range(chosen.seed, chosen.seed + chosen.runs)
    one = partial(_run_one, steps=chosen.steps, broker=chosen.broker, keep=chosen.keep)
    with ProcessPoolExecutor(chosen.jobs) if chosen.jobs > 1 else nullcontext() as pool:
        try:
            for done in map(one, seeds) if pool is None else _run_in_any_order(pool, one, seeds):
                runs += 1
                counts += done.counts
                drawn += done.drawn
                if done.broken:
                    bad += 1
                    print(f"\nseed {done.seed} breaks the law:", *done.broken, sep="\n  ")
                    print(
                        f"  again: python -m tests.chaos --runs 1 --seed {done.seed} --steps {chosen.steps} "
                        f"--broker {chosen.broker} --keep kept",
                        flush=True,
                    )
                if sys.stderr.isatty() or not runs % 100:
                    rate = runs / (time.monotonic() - started) * 60
                    told = f"{runs:,} of {chosen.runs:,} runs, {rate:,.0f} a minute, {bad} bad"
                    print(f"\r{told}", end="", file=sys.stderr)
        except KeyboardInterrupt:
            if pool is not None:
                pool.shutdown(cancel_futures=True)
    print(file=sys.stderr)
    elapsed = time.monotonic() - started
    told_counts = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    print(f"{runs} runs from seed {chosen.seed} in {elapsed:.1f} s, {bad} bad: {told_counts}")
    print(f"drawn: {tell_drawn(drawn, chosen.broker)}")
    return 1 if bad else 0


def _run_in_any_order(pool: Executor, one: Callable[[int], Run], seeds: Iterable[int]) -> Iterator[Run]:
    for future in as_completed([pool.submit(one, seed) for seed in seeds]):
        yield future.result()


def _run_one(seed: int, *, steps: int, broker: str, keep: Path | None) -> Run:
    with tempfile.TemporaryDirectory(prefix="chaos-", dir=fast_directory()) as directory:
        try:
            done = run(seed, Path(directory), steps, broker)
        except Exception:
            done = Run(seed, [f"the run failed: {traceback.format_exc()}"])
        if done.broken and keep:
            shutil.copytree(directory, keep / str(seed), dirs_exist_ok=True)
        return done


def tell_drawn(drawn: Counter[str], broker: str) -> str:
    """How often each fault was drawn, and which were not."""
    never = sorted(list_draws(broker) - {name for name, count in drawn.items() if count})
    told = ", ".join(f"{count} {name}" for name, count in sorted(drawn.items()) if count)
    return told + (f"; NEVER DRAWN: {', '.join(never)}" if never else "; none was never drawn")


def list_draws(broker: str) -> frozenset[str]:
    """The names of all that has to be drawn sooner or later."""
    lasting = {"poison_at_the_end", *(kind.name for kind in ALPACA)}
    return BROKERS[broker].draws | (lasting if broker == "alpaca" else set())


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
