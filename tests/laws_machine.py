"""Long processes, one after another, over a growing ledger: the derived bytes are always those of one fold.

A life is a random sequence of steps: events are appended, a process compacts with or without a checkpoint, seals, dies
and starts again with another retention, with or without the compiled modules. Orders come back after they aged out:
their events are delivered again, and late fills, busts, corrections and snapshots name them. After every few passes the
derived files are compared with a fold of the whole log that forgets nothing.

`python -m tests.laws_machine --runs 100000 --seed 1` runs many lives; a failure prints the seed of its life, and
`--life SEED` replays it step by step. The ledger lives on `tests.disk.Disk`, in memory.
"""

import argparse
import json
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

from compactor import Ledger, LedgerError
from compactor.core import fold as fold_module
from compactor.core.fast import PlainOrders
from compactor.core.fast.interface import NoPlainOrders
from compactor.core.fold import Fold
from tests.disk import Disk
from tests.stories import START, Event

DIRECTORY = Path("/ledger")
LOG = DIRECTORY / "events.jsonl"
DERIVED = [DIRECTORY / name for name in ("pending_orders.jsonl", "trades.jsonl", "findings.jsonl")]
RETENTIONS = [0, 7, 30, None]
STEPS_MAX = 24
PADDING = b" " * 70_000 + b"\n"
"""A blank line of a size that lets the log before it be punched once it is sealed."""
FRAGMENTS = [b'{"event":"new","order_id":"o-', b"\0\0\0", b"garbage ", b'{"a":[{"b":1},{']

Content = tuple[bytes | None, ...]


class Impure(AssertionError):
    """A life whose derived files are not those of one fold."""


class World:
    """What the broker, the wire and the writers of the log do in one life."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.orders = [f"o-{number}" for number in range(1, chance.randint(2, 6))]
        self.told: list[Event] = []
        self.now = START
        self.deliveries = 0
        self.executions = 0
        self.stamps = chance.random() < 0.8
        """Whether this log's writer stamps `recorded_at`."""

    def write(self) -> bytes:
        """The next lines of the log: mostly one event, sometimes several, or damage."""
        chance = self.chance
        self.now += timedelta(seconds=chance.choice([1, 60, 3600]), days=chance.choice([0, 0, 0, 1, 3, 8, 10, 40]))
        lines = [self._line() for _ in range(chance.choice([1, 1, 2, 3, 5]))]
        if chance.random() < 0.02:
            lines.insert(0, PADDING)
        if chance.random() < 0.06:
            lines[-1] = chance.choice(FRAGMENTS) + lines[-1]
        if len(lines) > 1 and chance.random() < 0.06:
            lines[-2:] = [lines[-2].rstrip(b"\n") + lines[-1]]
        return b"".join(lines)

    def _line(self) -> bytes:
        chance = self.chance
        if self.told and chance.random() < 0.25:
            event = dict(chance.choice(self.told))  # It is delivered again.
            if chance.random() < 0.5:
                event.pop("event_id", None)
        else:
            event = self._new_event()
            self.told.append(event)
        if self.stamps and chance.random() < 0.95:
            event = {**event, "recorded_at": self.now.isoformat()}
        return json.dumps(event, separators=(",", ":")).encode() + b"\n"

    def _new_event(self) -> Event:
        chance = self.chance
        order_id = chance.choice(self.orders)
        name = chance.choice(list(MAKERS))
        ts = self.now - timedelta(seconds=chance.choice([0, 0, 0, 5, 86_400, 20 * 86_400]))
        self.deliveries += 1
        event: Event = {"event": name, "order_id": order_id, "ts": ts.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}
        if chance.random() < 0.5:
            event["event_id"] = f"e-{self.deliveries}"
        if chance.random() < 0.3:
            event["source"] = chance.choice(["stream", "rest"])
        event.update(MAKERS[name](self))
        return event

    # What the events say.

    def terms(self) -> Event:
        chance = self.chance
        known = {"symbol": "AAPL", "side": "buy", "quantity": chance.choice(["2", "3", "5"])}
        return known if chance.random() < 0.8 else {"limit_price": chance.choice(["9", "10"])}

    def execution(self, *, is_new: bool) -> str:
        if is_new:
            self.executions += 1
            return f"x-{self.executions}"
        return f"x-{self.chance.randint(1, max(self.executions, 1))}"

    def fill(self) -> Event:
        chance = self.chance
        fill: Event = {"price": chance.choice(["10", "10.5"]), "qty": chance.choice(["1", "2"])}
        if chance.random() < 0.85:
            fill["execution_id"] = self.execution(is_new=chance.random() < 0.9)
        if chance.random() < 0.5:
            fill["filled_qty"] = chance.choice(["1", "2", "3", "5"])
        if chance.random() < 0.2:
            fill["filled_avg_price"] = "10.25"
        if chance.random() < 0.2:
            fill |= self.terms()
        return fill

    def legs(self) -> Event:
        leg = {"symbol": "SPY", "side": "sell", "qty": "1", "price": "2", "execution_id": self.execution(is_new=True)}
        return {"legs": [{**leg, "order_id": self.chance.choice([*self.orders, "o-leg"])}]}

    def bust(self) -> Event:
        return {"previous_execution_id": self.execution(is_new=False)}

    def correction(self) -> Event:
        numbers = {"price": "9.75", "qty": self.chance.choice(["1", "3"])}
        return self.bust() | numbers | {"execution_id": self.execution(is_new=True)}

    def snapshot(self) -> Event:
        chance = self.chance
        answer: Event = {"filled_qty": chance.choice(["0", "1", "2", "4"])}
        if chance.random() < 0.8:
            answer["filled_avg_price"] = chance.choice(["10", "10.2"])
        if chance.random() < 0.7:
            answer["order_status"] = chance.choice(["new", "partially_filled", "filled", "canceled"])
        return answer | (self.terms() if chance.random() < 0.3 else {})

    def end(self) -> Event:
        chance = self.chance
        return {"filled_qty": chance.choice(["1", "2"]), "filled_avg_price": "10"} if chance.random() < 0.2 else {}

    def replacement(self) -> Event:
        return {"replaced_by": self.chance.choice([*self.orders, "o-next"])} if self.chance.random() < 0.6 else {}

    def assignment(self) -> Event:
        return {self.chance.choice(["to_team", "from_team"]): "bravo"}


MAKERS: dict[str, Any] = {
    "new": World.terms, "accepted": World.terms, "pending_cancel": World.end, "restated": World.terms,
    "partial_fill": lambda world: world.legs() if world.chance.random() < 0.15 else world.fill(),
    "fill": World.fill, "canceled": World.end, "expired": World.end, "replaced": World.replacement,
    "trade_bust": World.bust, "trade_correct": World.correction, "snapshot": World.snapshot,
    "assigned": World.assignment,
}  # fmt: skip


class Life:
    """One ledger from its first event to its last pass."""

    def __init__(self, seed: int, *, tells: bool = False) -> None:
        self.chance = random.Random(seed)
        self.world = World(self.chance)
        self.disk = Disk()
        self.log = b""
        self.passes = 0
        self.tells = tells
        self.ledger = self._start()

    def run(self) -> None:
        """Take all steps. Raises Impure, or whatever error a pass should not have raised."""
        for _ in range(self.chance.randint(6, STEPS_MAX)):
            self._write()
            for step in self.chance.choice(STEPS):
                step(self)
        self._compact(checkpoint=True)
        self._compare()

    def _say(self, what: str) -> None:
        if self.tells:
            print(what)

    def _write(self) -> None:
        lines = self.world.write()
        self._say("  log " + lines.replace(PADDING, b"(a long blank line)\n").decode(errors="replace").rstrip())
        self.log += lines
        if self.disk.take(LOG) is None:
            self.disk.put(LOG, lines)
        else:
            self.disk.append(LOG, lines)

    def _start(self) -> Ledger:
        retention, is_compiled = self.chance.choice(RETENTIONS), self.chance.random() < 0.6
        self._say(f"start with a retention of {retention} days, {'compiled' if is_compiled else 'by the rules'}")
        self.plain_orders = PlainOrders if is_compiled else NoPlainOrders
        self.disk.restart()
        return Ledger(DIRECTORY, files=self.disk, retention_days=retention)

    def _restart(self) -> None:
        self.ledger.close()
        self.ledger = self._start()

    def _compact(self, checkpoint: bool) -> None:
        self._say(f"compact, {'with' if checkpoint else 'without'} a checkpoint")
        with patch.object(fold_module, "PlainOrders", self.plain_orders):
            self.ledger.compact(checkpoint=checkpoint)
        self.passes += 1
        if self.passes % 4 == 0:
            self._compare()

    def _seal(self) -> None:
        self._say("seal")
        with patch.object(fold_module, "PlainOrders", self.plain_orders):
            self.ledger.seal(now=True)

    def _compare(self) -> None:
        found = tuple(self.disk.take(path) or None for path in DERIVED)
        for path, ours, expected in zip(DERIVED, found, fold_at_once(self.log), strict=True):
            if ours != expected:
                raise Impure(f"{path.name} after pass {self.passes}\nexpected:\n{_text(expected)}found:\n{_text(ours)}")


STEPS: list[list[Any]] = [
    [lambda life: life._compact(False)],
    [lambda life: life._compact(False)],
    [lambda life: life._compact(True)],
    [lambda life: life._compact(True)],
    [],
    [Life._restart],
    [Life._restart, lambda life: life._compact(False)],
    [lambda life: life._compact(True), Life._seal],
]


def fold_at_once(log: bytes) -> Content:
    """The derived files of a log by one fold that forgets nothing and follows the rules only."""
    fold = Fold(None, lambda *_: (), None, 1 << 30)
    fold.plain = NoPlainOrders()
    fold.feed(log, 0)
    lines = fold.take_lines()
    return fold.pending_lines() or None, lines.trades or None, lines.findings or None


def _text(content: bytes | None) -> str:
    return (content or b"(nothing)\n").decode(errors="replace")


def find_fault(seed: int) -> str | None:
    """Live one life; what was wrong with it, or None."""
    try:
        Life(seed).run()
    except (Impure, LedgerError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _find_faults(seeds: range) -> list[tuple[int, str]]:
    return [(seed, fault) for seed in seeds if (fault := find_fault(seed)) is not None]


def run_lives(runs: int, seed: int, jobs: int) -> list[tuple[int, str]]:
    """Live so many lives, with progress on stderr; the seeds of those that failed, and what was wrong."""
    started, done, faults = time.monotonic(), 0, []
    batches = [range(start, min(start + 100, seed + runs)) for start in range(seed, seed + runs, 100)]
    with ProcessPoolExecutor(jobs) as pool:
        for batch, found in zip(batches, pool.map(_find_faults, batches), strict=True):
            done += len(batch)
            faults += found
            rate = done / (time.monotonic() - started) * 60
            print(f"\r{done:,} of {runs:,} lives, {rate:,.0f} a minute, {len(faults)} impure", end="", file=sys.stderr)
    print(file=sys.stderr)
    return faults


def main() -> int:
    """Run many lives, or replay one."""
    parser = argparse.ArgumentParser(prog="python -m tests.laws_machine", description="Lives of one ledger each.")
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="the seed of the first life; the next ones follow")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--life", type=int, help="replay the life of this seed, and tell its steps")
    asked = parser.parse_args()
    if asked.life is not None:
        Life(asked.life, tells=True).run()
        print("this life is pure")
        return 0
    faults = run_lives(asked.runs, asked.seed, asked.jobs)
    for seed, fault in faults[:5]:
        print(f"\nlife {seed} (replay it: python -m tests.laws_machine --life {seed})\n{fault}")
    print(f"{asked.runs:,} lives from seed {asked.seed}: {len(faults)} impure")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
