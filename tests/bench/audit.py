"""Replay and history in a long log: `python -m tests.bench.audit [--events N] [--keep]`.

What is measured are whole processes, from their start to their end, in a log that is sealed in segments of 64 MiB: how
long it takes to tell one order's story, and to replay a moment in the last percent. `compactor --version` beside them
shows what of it is the start of a process.

Note: the log is sealed with `reclaim="never"`, because it belongs to all benchmarks and the others
read it as a file.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from compactor.ledger import Ledger
from tests.bench.logs import DEFAULT_WORK, logs_of, prepared, remove_derived
from tests.bench.process import Measured, measure
from tests.bench.progress import note
from tests.bench.report import machine, show

_COLUMNS = ("command", "runs", "median ms", "slowest ms", "median processor ms", "peak MB")
_PLACES = 7
"""At so many places of the log, evenly spread, an order is looked for."""
_SAMPLE_BYTES = 100_000
_LAST_PERCENT = (1, 100, 250, 400, 550, 700, 850, 1000)
"""How far before the end replays begin, in hundred thousandths of the log."""


def compare(work: Path, events: int, keep: bool) -> None:
    """Seal the log, measure, and print two tables; with `keep` what was derived and sealed stays for the next run."""
    data = prepared(work, events, 1) if not keep or not _is_sealed(work, events) else _data(work, events)
    path = logs_of(data)[0].parent
    with Ledger(path) as ledger:
        started = time.perf_counter()
        note(f"folding and sealing {events:,} events")
        ledger.compact()
        folded = time.perf_counter()
        sealed = ledger.seal(now=True, reclaim="never")
        times = f"folded in {folded - started:.0f} s, sealed in {time.perf_counter() - folded:.0f} s"
        size = ledger.status().log_bytes
        ids = [_ids_at(ledger, size * place // _PLACES) for place in range(_PLACES)]
    helpers = {kind: sum(one.stat().st_size for one in found) for kind, found in _helpers(path).items()}
    rows = [_row("compactor --version", [_run(["--version"]) for _ in range(5)])]
    for kind in ("order_id", "execution_id", "trade_id"):
        rows.append(_row(f"history {kind}", [_run(["history", one[kind], "--data", str(data)]) for one in ids]))
    offsets = [size - size * part // 100_000 for part in _LAST_PERCENT]
    rows.append(_row("replay --at, last percent", [_run(["replay", str(data), "--at", str(one)]) for one in offsets]))
    when = ids[-1]["ts"]
    for option in ("--known-at", "--as-of"):
        rows.append(_row(f"replay {option}, one {_PLACES}th back", [_run(["replay", str(data), option, when])]))
    title = f"Audit, {events:,} events in {size / 1e6:,.0f} MB, {sealed.total_segments} segments; {machine()}"
    show(title, _COLUMNS, rows)
    note(f"{times}; indexes {helpers['index'] / 1e6:,.1f} MB, points {helpers['points'] / 1e6:,.1f} MB")
    if not keep:
        remove_derived(data)


def _data(work: Path, events: int) -> Path:
    return next(iter(work.glob(f"events-{events}-ledgers-1-*")))


def _is_sealed(work: Path, events: int) -> bool:
    return any(work.glob(f"events-{events}-ledgers-1-*/team/*/segments/*.index"))


def _helpers(path: Path) -> dict[str, list[Path]]:
    points = [one for one in (path / ".state" / "points").glob("*") if one.stat().st_nlink == 1]
    return {"index": list((path / "segments").glob("*.index")), "points": points}


def _ids_at(ledger: Ledger, place: int) -> dict[str, str]:
    """The ids of the first fill behind an offset of the log."""
    data = b"".join(ledger.cat(place, place + _SAMPLE_BYTES))
    offset = place + data.find(b"\n") + 1
    for line in data.split(b"\n")[1:-1]:
        event = json.loads(line)
        if event["event"] == "partial_fill":
            return {**event, "trade_id": f"{offset}-0"}
        offset += len(line) + 1
    raise AssertionError("a log of the generator has a fill every few lines")


def _run(arguments: Sequence[str]) -> Measured:
    return measure([sys.executable, "-m", "compactor", *arguments])


def _row(name: str, runs: Sequence[Measured]) -> tuple[str, ...]:
    walls = [run.wall_s * 1000 for run in runs]
    processor = median(run.cpu_s for run in runs) * 1000
    peak = max(run.peak_bytes for run in runs) / 1e6
    return name, str(len(runs)), f"{median(walls):,.0f}", f"{max(walls):,.0f}", f"{processor:,.0f}", f"{peak:,.0f}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.audit", description="Measure replay and history.")
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument(
        "--work", type=Path, default=DEFAULT_WORK, help="where the logs are kept (default: %(default)s)"
    )
    parser.add_argument("--keep", action="store_true", help="leave the ledger folded and sealed, and use it if it is")
    options = parser.parse_args(arguments)
    compare(options.work, options.events, options.keep)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
