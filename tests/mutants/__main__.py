"""How many mutants do the tests kill? `python -m tests.mutants --count 200 --seed 7` (`make mutants N=200 SEED=7`).

Every room gets an equal share of the sample, a tenth of which leaves out a sync. Mutants that are known to change
nothing are in `equivalent.txt` and are not drawn. Prints the score of each room, and each mutant that survived.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from tests.mutants.mutators import SYNC, Mutant, find_mutants, is_python
from tests.mutants.running import Runner, Verdict, copy_checkout

ROOMS = ("core", "ledger", "imports", "broker", "sync")
EQUIVALENT = Path(__file__).parent / "equivalent.txt"


def load_equivalents(path: Path) -> set[tuple[str, ...]]:
    """Path, kind and change of the mutants that change nothing, each with its reason above it; where a file has several
    alike, also the line of code."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {tuple(line.split(" | ", 3)) for line in lines}


def describe(mutant: Mutant, lines: Sequence[str]) -> set[tuple[str, ...]]:
    """The lines of `equivalent.txt` that mean a mutant of a module with these lines."""
    found = (mutant.path, mutant.kind, mutant.change)
    return {found, (*found, lines[mutant.line - 1].strip())}


def find_candidates(root: Path, rooms: Sequence[str], equivalents: set[tuple[str, ...]]) -> dict[str, list[Mutant]]:
    """All mutants of each room that mean something."""
    candidates: dict[str, list[Mutant]] = {}
    for room in rooms:
        candidates[room] = []
        for path in sorted((root / "compactor" / room).rglob("*.py")):
            lines = path.read_text().splitlines()
            candidates[room] += [one for one in find_mutants(path, root) if not describe(one, lines) & equivalents]
    return candidates


def sample(candidates: dict[str, list[Mutant]], count: int, seed: int, root: Path) -> list[Mutant]:
    """An equal share of each room, a tenth of it removed syncs where there are so many; a function of the seed."""
    chosen: list[Mutant] = []
    for room, mutants in candidates.items():
        shuffled = random.Random(f"{seed} {room}").sample(mutants, len(mutants))
        share = -(-count // len(candidates))
        syncs = _first(-(-share // 10), (one for one in shuffled if one.kind == SYNC), root)
        chosen += sorted(syncs + _first(share - len(syncs), (one for one in shuffled if one.kind != SYNC), root))
    return chosen


def _first(count: int, mutants: Iterator[Mutant], root: Path) -> list[Mutant]:
    return list(islice((mutant for mutant in mutants if is_python(mutant, root)), count))


def report(verdicts: Sequence[Verdict], rooms: Sequence[str], seconds: float) -> str:
    """The score of each room and the survivors, as text."""
    rows = ["room      mutants  killed  score"]
    for room in [*rooms, "syncs"]:
        own = [one for one in verdicts if (one.mutant.kind == SYNC if room == "syncs" else in_room(one.mutant, room))]
        if own:
            killed = sum(one.is_killed for one in own)
            rows.append(f"{room:<8}  {len(own):7}  {killed:6}  {100 * killed / len(own):4.1f}%")
    rows.append(f"{len(verdicts)} mutants in {seconds:.0f} s")
    for one in verdicts:
        if not one.is_killed:
            rows.append(f"{one.outcome} ({one.tests} tests): {one.mutant.id}\n    {one.mutant.change}")
    return "\n".join(rows)


def in_room(mutant: Mutant, room: str) -> bool:
    return mutant.path.startswith(f"compactor/{room}/")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="how many mutants")
    parser.add_argument("--seed", type=int, default=0, help="which ones; 0: by the clock")
    parser.add_argument("--rooms", default=",".join(ROOMS), help="folders of the package, with commas")
    parser.add_argument("--jobs", type=int, default=2, help="how many at once")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of tests for a mutant")
    parser.add_argument(
        "--seconds-more", type=float, default=60.0, help="beyond thrice their time, till tests are slow"
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="ID",
        help="this mutant, whatever the sample; or a file, to draw from",
    )
    parser.add_argument("--tests", nargs="*", default=["tests"], metavar="PATH", help="look at these tests only")
    parser.add_argument("--map", type=Path, help="a file of .mutants/ to take, though files changed since")
    parser.add_argument("--pure", action="store_true", help="try survivors again without the compiled modules")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[2], help="the checkout")
    parser.add_argument("--list", action="store_true", help="print the sample and run nothing")
    options = parser.parse_args()

    options.seed = options.seed or int(time.time())
    # A snapshot, so that work in the checkout goes on meanwhile.
    with tempfile.TemporaryDirectory(prefix="compactor-mutants-") as directory:
        copy_checkout(options.root, Path(directory) / "snapshot")
        sys.exit(run(options, Path(directory) / "snapshot"))


def run(options: argparse.Namespace, root: Path) -> int:
    """Draw mutants and run them; 1 where one survived."""
    rooms = options.rooms.split(",")
    equivalents = load_equivalents(EQUIVALENT)
    candidates = find_candidates(root, rooms, equivalents)
    counts = ", ".join(f"{room} {len(mutants)}" for room, mutants in candidates.items())
    print(f"seed {options.seed}; mutants there are: {counts}", file=sys.stderr)
    if options.only:
        candidates = {
            room: [one for one in mutants if one.id in options.only or one.path in options.only]
            for room, mutants in candidates.items()
        }
    chosen = sample(candidates, options.count, options.seed, root)
    if options.list:
        print("\n".join(f"{mutant.id}\n    {mutant.change}" for mutant in chosen))
        return 0

    started = time.monotonic()
    runner = Runner(root, options.jobs, options.budget, options.seconds_more, options.pure, options.tests)
    print("running all tests once, to see which lines each of them runs", file=sys.stderr)
    seen = runner.look(options.root / ".mutants", options.map)
    verdicts: list[Verdict] = []
    for verdict in runner.run(chosen, seen):
        verdicts.append(verdict)
        told = f"{len(verdicts)}/{len(chosen)} {verdict.outcome}: {verdict.mutant.id} {verdict.killer}"
        print(told, file=sys.stderr, flush=True)
    print(report(verdicts, rooms, time.monotonic() - started))
    print(f"again: make mutants N={options.count} SEED={options.seed}; one of them: ARGS='--only ID'")
    return int(not all(verdict.is_killed for verdict in verdicts))


if __name__ == "__main__":
    main()
