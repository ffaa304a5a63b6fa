"""Do two programs tell the same? `python -m tests.bench.agree OURS THEIRS` compares them line by line.

Each side is a directory with `trades.jsonl` and `pending_orders.jsonl`, or with such a pair in a directory per team
below it or below its `team/`. Trades are compared in the order of the log, team after team.

Note: only what the made-up log can tell is compared. `trade_id` and `offset` are left out, a null
is an absent field, and numbers are compared as numbers (`"10.50"` is `"10.5"`), because each tool writes them its own
way.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

FILES = ("trades.jsonl", "pending_orders.jsonl")
_NUMBERS = {"quantity", "execution_price", "limit_price", "stop_price", "filled_qty", "filled_avg_price"}
_OWN = {"trade_id", "offset"}


class Disagreement(Exception):
    """Two programs made different things of the same log."""


class Agreement(NamedTuple):
    """How many lines were the same on both sides."""

    trades: int
    pending_orders: int


def agree(ours: Path, theirs: Path) -> Agreement:
    """Compare the outputs below two directories; raises Disagreement at the first line that differs."""
    return Agreement(*(_same_lines(name, ours, theirs) for name in FILES))


def _same_lines(name: str, ours: Path, theirs: Path) -> int:
    count = 0
    for count, (our, their) in enumerate(itertools.zip_longest(_rows(ours, name), _rows(theirs, name)), start=1):
        if our != their:
            raise Disagreement(f"{name} line {count}: {_difference(our, their)}; compared {ours} with {theirs}")
    return count


def _difference(our: dict[str, Any] | None, their: dict[str, Any] | None) -> str:
    if our is None or their is None:
        longer, found = ("the second", their) if our is None else ("the first", our)
        return f"only {longer} has it: {found}"
    fields = [field for field in sorted(our.keys() | their.keys()) if our.get(field) != their.get(field)]
    told = ", ".join(f"{field} {our.get(field)} and {their.get(field)}" for field in fields)
    return f"{told}, in the order {our.get('order_id')} and {their.get('order_id')}"


def _rows(root: Path, name: str) -> Iterator[dict[str, Any]]:
    paths = [root / name] if (root / name).exists() else _of_teams(root, name)
    if not paths:
        raise Disagreement(f"{name}: none found in {root}, nor in a directory of a team below it")
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    for path in paths:
        with path.open("rb") as file:
            yield from (_normal(decode(line)) for line in file)


def _of_teams(root: Path, name: str) -> list[Path]:
    below = root / "team" if (root / "team").is_dir() else root
    return sorted(below.glob(f"*/{name}"))


def _normal(row: dict[str, Any]) -> dict[str, Any]:
    return {
        field: Decimal(value) if field in _NUMBERS else value
        for field, value in row.items()
        if value is not None and field not in _OWN
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.agree", description="Compare two outputs.")
    parser.add_argument("ours", type=Path)
    parser.add_argument("theirs", type=Path)
    options = parser.parse_args(arguments)
    try:
        found = agree(options.ours, options.theirs)
    except Disagreement as difference:
        print(f"They differ. {difference}", file=sys.stderr)
        return 1
    print(f"They agree: {found.trades:,} trades, {found.pending_orders:,} pending orders.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
