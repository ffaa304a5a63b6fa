"""Search for a log that breaks a command: `python -m tests.fuzz [--seconds N]`, or `make fuzz`.

The logs and the checks are those of `tests/wild.py`. With atheris installed the coverage of the code guides the search;
without it hypothesis makes one log after another. The log that breaks a command is shown.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings

SEEDS = 16
"""How many random inputs the guided search begins with."""
_SETTINGS = settings(
    deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck), max_examples=20
)


def make_target() -> Any:
    """The property to search for a counterexample of. Imports what is under test."""
    from tests.wild import check_commands, wild_logs

    return _SETTINGS(given(wild_logs())(_show(check_commands)))


def _show(check: Any) -> Any:
    def shown(log: bytes) -> None:
        try:
            check(log)
        except BaseException:
            print(f"this log breaks a command:\n{log!r}", flush=True)
            raise

    return shown


def search_guided(atheris: Any, seconds: int) -> None:
    """Search with atheris, from random inputs on that are long enough for a log."""
    with atheris.instrument_imports(include=["compactor"]):
        target = make_target()
    with tempfile.TemporaryDirectory(prefix="fuzz-corpus-") as corpus:
        chance = random.Random(time.time_ns())
        for number in range(SEEDS):
            (Path(corpus) / f"{number}").write_bytes(chance.randbytes(chance.randrange(200, 4000)))
        arguments = [
            sys.argv[0],
            f"-max_total_time={seconds}",
            "-timeout=120",
            "-max_len=8192",
            "-len_control=0",
            corpus,
        ]
        atheris.Setup(arguments, target.hypothesis.fuzz_one_input)
        atheris.Fuzz()


def search(seconds: int) -> None:
    """Search with hypothesis alone."""
    target = make_target()
    started, runs = time.monotonic(), 0
    while time.monotonic() - started < seconds:
        target()
        runs += 20
        print(f"{runs} logs, {time.monotonic() - started:.0f} s", flush=True)


def main() -> None:
    """Search for so many seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60)
    seconds = parser.parse_args().seconds
    try:
        import atheris  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        search(seconds)
    else:
        search_guided(atheris, seconds)


if __name__ == "__main__":
    main()
