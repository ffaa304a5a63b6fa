"""All benchmarks, or one of them: `python -m tests.bench [cold|incremental|memory|audit|verify|all] [--quick]`.

`make bench` runs them all.

Note: BENCH_SCALE (a number, default 1) multiplies the events of every log but the short one, and
--quick is a scale of one in twenty. Figures for the documentation are taken at scale 1.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from tests.bench import audit, cold, incremental, memory, verify
from tests.bench.logs import DEFAULT_WORK
from tests.bench.process import ProgramFailed
from tests.bench.progress import note

WHAT = ("cold", "incremental", "memory", "audit", "verify", "all")
_COLD_EVENTS = 2_000_000
_LONG_EVENTS = 10_000_000
_SHORT_EVENTS = 10_000
_QUICK = Fraction(1, 20)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    note(f"logs are kept in {options.work}; remove it when you are done")
    try:
        _run(options.what, options.work, _scale(options.quick))
    except ProgramFailed as failure:
        print(f"A measured program failed: {failure}", file=sys.stderr)
        return 1
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure ours and its peers.")
    parser.add_argument("what", nargs="?", choices=WHAT, default="all")
    parser.add_argument("--quick", action="store_true", help="one event in twenty, to see that it runs")
    parser.add_argument(
        "--work", type=Path, default=DEFAULT_WORK, help="where the logs are kept (default: %(default)s)"
    )
    return parser.parse_args(arguments)


def _scale(quick: bool) -> Fraction:
    return _QUICK if quick else Fraction(os.environ.get("BENCH_SCALE", "1"))


def _run(what: str, work: Path, scale: Fraction) -> None:
    long = max(_SHORT_EVENTS, int(_LONG_EVENTS * scale))
    if what in ("cold", "all"):
        cold_events = max(_SHORT_EVENTS, int(_COLD_EVENTS * scale))
        cold.main(["--events", str(cold_events), "--work", str(work)])
    if what in ("incremental", "all"):
        incremental.main(["--events-large", str(long), "--events-small", str(_SHORT_EVENTS), "--work", str(work)])
    if what in ("memory", "all"):
        memory.main(["--events", str(long), "--work", str(work)])
    if what in ("verify", "all"):
        verify.main(["--events", str(max(_SHORT_EVENTS, int(_COLD_EVENTS * scale))), "--work", str(work)])
    if what in ("audit", "all"):
        audit.main(["--events", str(long), "--work", str(work)])


if __name__ == "__main__":
    raise SystemExit(main())
