"""Lives of orders at random, told by many mixes of channels in any order: the trades are the broker's executions.

`python -m tests.lives --runs 5000` lives so many lives by each mix; a failure prints the mix and the seed, and
`--mix WORDS --life SEED` replays it message by message. `Life` in `tests/arrivals.py` is the broker, who knows it all.
"""

from __future__ import annotations

import argparse
import random
import sys
from decimal import Decimal
from typing import Any

from tests.arrivals import Life, Message, Outcome, derive

# What each mix says: which messages arrive (`frames`, `some frames`, `some fills`, `answers`, `activities`,
# `some activities`, `list`), how they are (`ahead`, `skewed`, `whole seconds`, `no ids`, `no averages`, `no sums`,
# `no cumulative`, `only sums`), whether executions are revised (`revises`), whether some come twice (`doubles`),
# whether they come in order (`ordered`), and whether the list of all orders comes last (`list last`).
MIXES = (
    "frames, activities, answers, doubles",
    "frames, activities, answers, doubles, skewed",
    "frames, activities, answers, doubles, whole seconds",
    "frames, ahead, doubles",
    "frames, ahead, activities, answers, doubles",
    "frames, ahead, activities, answers, doubles, whole seconds",
    "frames, ahead, activities, answers, ordered",
    "frames, ahead, activities, doubles, no averages",
    "some frames, list last",
    "some frames, ahead, list last",
    "some frames, activities, list last, skewed",
    "some frames, ahead, some activities, list last, skewed",
    "some frames, ahead, activities, list",
    "frames, revises, doubles",
    "frames, revises, activities, answers, doubles",
    "frames, revises, activities, doubles",
    "frames, revises, ahead, activities, answers, doubles",
    "some fills, revises, list last",
    "some fills, revises, activities, list last",
    "some fills, revises, ahead, activities, answers, list last",
    "answers, doubles, list last",
    "activities, doubles",
    "activities, no cumulative, doubles",
    "frames, no ids, activities, answers, doubles",
    "frames, no sums, doubles",
    "frames, no sums, activities, doubles",
    "frames, no sums, activities, answers, list last",
    "frames, activities, no cumulative, answers, doubles",
    "frames, only sums, ordered",
    "frames, only sums, activities, doubles",
)
ROUNDED = ("list last",)
"""Mixes of which some prices are only known as the broker's averages."""


def live(mix: str, seed: int) -> tuple[Life, list[Message]]:
    """Live a life, and list what arrives of it."""
    chance, words = random.Random(seed), mix.split(", ")
    life = Life(chance, revises="revises" in words)
    if "ahead" in words:
        life.tell_ahead()
    _change(life, words, chance)
    told: list[Message] = list(life.frames) if "frames" in words else []
    if "some frames" in words:
        told += [frame for frame in life.frames if chance.random() < 0.6]
    if "some fills" in words:
        told += [one for one in life.frames if "fill" not in one["data"]["event"] or chance.random() < 0.6]
    told += [answer for _, answer in life.answers] if "answers" in words else []
    told += life.activities if "activities" in words else []
    told += [one for one in life.activities if chance.random() < 0.5] if "some activities" in words else []
    told += life.list_orders() if "list" in words else []
    told += chance.sample(told, len(told) // 3) if "doubles" in words else []
    if "ordered" not in words:
        chance.shuffle(told)
    return life, told + (life.list_orders() if "list last" in words else [])


def _change(life: Life, words: list[str], chance: random.Random) -> None:
    """Take away what this mix does not tell, and blur its times."""
    for frame in life.frames:
        update, order = frame["data"], frame["data"]["order"]
        is_fill = update["event"] in ("fill", "partial_fill")
        for name in ("execution_id",) if "no ids" in words or ("only sums" in words and is_fill) else ():
            update.pop(name, None)
        if "only sums" in words and is_fill:
            update.pop("qty")
        if "no sums" in words:
            order["filled_qty"] = None
        if "no sums" in words or "no averages" in words:
            order["filled_avg_price"] = None
    for activity in life.activities:
        if "no cumulative" in words:
            activity.pop("cum_qty")
        if "skewed" in words:
            activity["transaction_time"] = _skew(activity["transaction_time"], chance)
    if "whole seconds" in words:
        for one in [*life.frames, *life.activities, *(told for _, told in life.answers), *life.list_told()]:
            _cut_times(one)


def _skew(time: str, chance: random.Random) -> str:
    """A time in whole seconds, or some milliseconds later, or as it is."""
    whole, fraction = time[:19], int((time[20:-1] or "0").ljust(9, "0"))
    return chance.choice([time, f"{whole}Z", f"{whole}.{min(fraction + 1_500_000, 999_999_999):09}Z"])


def _cut_times(fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        if isinstance(value, dict):
            _cut_times(value)
        elif name.endswith(("_at", "timestamp", "_time")) and isinstance(value, str):
            fields[name] = f"{value[:19]}Z"


def find_faults(mix: str, life: Life, found: Outcome) -> list[str]:
    """What differs from the truth: quantities, values, live orders, and findings of what has not happened."""
    faults = []
    sums, expected = found.sum_orders(), life.count()
    if {name: qty for name, (qty, _) in sums.items()} != {name: qty for name, (qty, _) in expected.items()}:
        faults.append(f"expected the sums {expected}, found {sums}")
    for name, (qty, value) in expected.items():
        step = Decimal("0.00001") if any(word in mix for word in ROUNDED) else Decimal(0)
        if name in sums and abs(sums[name][1] - value) > qty * step:
            faults.append(f"expected {value} for {name}, found {sums[name][1]}")
    expected_rows = {name for name in life.orders if life.is_live(name)}
    if mix.startswith("activities"):
        return faults  # They do not tell of the end.
    if expected_rows != set(found.rows):
        faults.append(f"expected the open orders {expected_rows}, found {set(found.rows)}")
    if "revises" not in mix and "no cumulative" not in mix and "no sums" not in mix:
        faults += {"late_fill", "overfill", "conflicting_fill"}.intersection(found.findings)
    return faults


def main() -> int:
    """Live many lives by each mix, or replay one."""
    parser = argparse.ArgumentParser(prog="python -m tests.lives", description="Lives of orders, told in any order.")
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mix", choices=MIXES)
    parser.add_argument("--life", type=int, help="replay the life of this seed by a mix")
    asked = parser.parse_args()
    if asked.life is not None and asked.mix:
        life, told = live(asked.mix, asked.life)
        found = derive(told)
        print(*told, "", *found.trades, found.findings, *found.rows, find_faults(asked.mix, life, found), sep="\n")
        return 0
    failed = 0
    for mix in [asked.mix] if asked.mix else MIXES:
        faults = []
        for seed in range(asked.seed, asked.seed + asked.runs):
            life, told = live(mix, seed)
            faults += [(len(told), seed, fault) for fault in find_faults(mix, life, derive(told))[:1]]
        failed += len(faults)
        print(f"{asked.runs:,} lives by {mix}: {len(faults)} wrong", flush=True)
        for _length, seed, fault in sorted(faults)[:3]:
            print(f'  python -m tests.lives --mix "{mix}" --life {seed}: {fault}')
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
