"""What must hold after a soak, checked from the directory that it left: `python -m tests.soak --check DIR`.

The log is read through `compactor cat`, and looked at by a reader of this module that shares no code with the product:
it knows only that a whole event ends where its line or the next event does. Note: a mark is made after the
write, so the log may have lines that nobody marked; every marked line must be there, exactly once.
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from compactor import Ledger
from tests.reference import FILLS, comparable_rows, net_of, reference
from tests.soak_writers import HOSTILE_TEAM, ROOT

LOG = "events.jsonl"
DERIVED = ("pending_orders.jsonl", "trades.jsonl", "findings.jsonl")
START = b'{"event":"'
REQUIRED = {"event", "order_id", "ts", "n"}
SHOWN = 3


class Found(NamedTuple):
    """An event of the log, and the bytes in which it stands."""

    start: int
    end: int
    event: dict[str, Any]


def check(work: Path, counts: Counter[str]) -> list[str]:
    """What is wrong with the ledgers of a soak, as sentences; adds to the counts."""
    ledgers = sorted((work / "data" / "team").iterdir())
    return [f"{ledger.name}: {wrong}" for ledger in ledgers for wrong in check_ledger(work, ledger, counts)]


def check_ledger(work: Path, ledger: Path, counts: Counter[str]) -> Iterator[str]:
    """What is wrong with one ledger."""
    log = work / "fresh" / "team" / ledger.name / LOG
    yield from _read_out(work / "data", ledger, log)
    if ledger.name == HOSTILE_TEAM:
        counts["hostile_bytes"] = log.stat().st_size
        yield from not_as_fresh(ledger, log.parent)
        return
    content = log.read_bytes()
    events = list(events_of(content))
    findings, trades, pending = (_rows(ledger / name) for name in ("findings.jsonl", "trades.jsonl", DERIVED[0]))
    counts.update(
        bytes=len(content), events=len(events), findings=len(findings), trades=len(trades), open_orders=len(pending),
        segments=len(list(ledger.glob("segments/*.zst"))),
        bytes_on_disk=sum(path.stat().st_blocks * 512 for path in (*ledger.glob("segments/*"), ledger / LOG)),
    )  # fmt: skip
    yield from finished_writes_missing(work / "marks" / ledger.name, content, events, counts)
    yield from unaccounted_bytes(content, events, findings)
    yield from wrong_trades(events, trades, pending)
    yield from not_as_fresh(ledger, log.parent)


def _read_out(data: Path, ledger: Path, log: Path) -> Iterator[str]:
    """Write the log's bytes, sealed or not, to a directory of their own."""
    log.parent.mkdir(parents=True, exist_ok=True)
    for path in log.parent.iterdir():
        if path.is_file():
            path.unlink()
    size = (ledger / LOG).stat().st_size
    command = [
        sys.executable,
        "-m",
        "compactor",
        "cat",
        str(data),
        "--team",
        ledger.name,
        "--from",
        "0",
        "--to",
        str(size),
    ]
    with log.open("wb") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.PIPE, cwd=ROOT)
    if done.returncode or log.stat().st_size != size:
        found = f"exit code {done.returncode}, {log.stat().st_size} of {size} bytes, {done.stderr.decode().strip()}"
        yield f"compactor cat: expected every byte of segments and log, found {found}"


def events_of(content: bytes) -> Iterator[Found]:
    """The whole events of a log: one a line, or several where a write was cut off before another."""
    start = 0
    while (end := content.find(b"\n", start) + 1) > 0:
        yield from _events_in(content, start, end)
        start = end


def _events_in(content: bytes, start: int, end: int) -> list[Found]:
    """The events of a line: the one that reaches to its end, and so on with what stands before it."""
    at = content.rfind(START, start, end)
    while at >= 0:
        event = _event(content[at:end])
        if event is not None:
            return [*_events_in(content, start, at), Found(at, end, event)]
        at = content.rfind(START, start, at)
    return []


def _event(text: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(text)
    except ValueError:
        return None
    return event if event.keys() >= REQUIRED else None


def finished_writes_missing(marks: Path, content: bytes, events: list[Found], counts: Counter[str]) -> Iterator[str]:
    """Each line whose write has finished is in the log, exactly once and as it was written."""
    found: dict[str, Found] = {}
    for one in events:
        if one.event["n"] in found:
            yield f"line {one.event['n']} was written once, found again at offset {one.start}"
        found[one.event["n"]] = one
    missing = []
    for path in sorted(marks.iterdir()):
        exact = not path.name.startswith("ledger")
        for mark in path.read_bytes().split(b"\n")[:-1]:
            counts["finished_writes"] += 1
            wanted = json.loads(mark)
            there = found.get(wanted["n"])
            if there is None or (exact and content[there.start : there.end] != mark + b"\n"):
                missing.append(f"{path.name}: {mark!r}")
            elif {**there.event, "recorded_at": None} != {**wanted, "recorded_at": None}:
                missing.append(f"{path.name}: expected {mark!r}, found {there.event}")
    if missing:
        yield f"{len(missing)} finished writes are not in segments and log: {missing[:SHOWN]}"


def unaccounted_bytes(content: bytes, events: list[Found], findings: list[dict[str, Any]]) -> Iterator[str]:
    """Each byte is in one event, in one finding that was not applied, in a blank line or in the pending tail."""
    set_aside = [(row["offset"], row["offset"] + row["length"]) for row in findings if not row["applied"]]
    whole = content.rfind(b"\n") + 1
    place = 0
    for start, end in [*sorted([(one.start, one.end) for one in events] + set_aside), (whole, whole)]:
        if start < place:
            yield f"the bytes from {start} to {place} are accounted for twice: {content[start : start + 80]!r}"
        if content[place:start].strip():
            yield f"the bytes from {place} to {start} are in no event and in no finding: {content[place:start][:80]!r}"
        place = max(place, end)
    if place > whole:
        yield f"the pending tail begins at {whole}, found something accounted for up to {place}"


def wrong_trades(events: list[Found], trades: list[dict[str, Any]], pending: list[dict[str, Any]]) -> Iterator[str]:
    """Open orders and net trades are those of the naive fold, and no trade line is there twice."""
    rows, net = reference(one.event for one in events)
    found_rows, found_net = comparable_rows(pending), net_of(trades)
    if rows != found_rows:
        wrong = sorted({str(one) for one in rows} ^ {str(one) for one in found_rows})
        yield f"open orders: expected {len(rows)} as the reference has them, found {len(found_rows)}: {wrong[:SHOWN]}"
    if net != found_net:
        wrong_keys = [key for key in net.keys() | found_net.keys() if net.get(key) != found_net.get(key)]
        shown = [(key, net.get(key), found_net.get(key)) for key in sorted(wrong_keys)[:SHOWN]]
        yield f"trades: {len(wrong_keys)} executions differ; (execution, expected, found): {shown}"
    # An order that was assigned away and came back tells its executions anew (4.12); the net above is about it too.
    moved = {one.event["order_id"] for one in events if one.event["event"] == "assigned"}
    stayed = [one.event for one in events if one.event["order_id"] not in moved]
    fills = {(event["order_id"], event["execution_id"]) for event in stayed if event["event"] in FILLS}
    rows = [row for row in trades if row["order_id"] not in moved]
    told = [(row["order_id"], row["execution_id"]) for row in rows if row["kind"] == "fill"]
    if sorted(fills) != sorted(told):
        yield f"fills: expected {len(fills)} executions with one trade each, found {len(told)} trades"
    if len({row["trade_id"] for row in trades}) != len(trades):
        yield "trade ids: expected each once, found one twice"


def not_as_fresh(ledger: Path, fresh: Path) -> Iterator[str]:
    """The derived files are byte for byte those of a fold of the same bytes that nothing ever disturbed."""
    with Ledger(fresh, retention_days=None) as undisturbed:
        undisturbed.compact()
    for name in DERIVED:
        expected, found = (path.read_bytes() if path.exists() else b"" for path in (fresh / name, ledger / name))
        if expected != found:
            at = next((i for i, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b), None)
            at = min(len(expected), len(found)) if at is None else at
            yield f"{name}: expected {len(expected)} bytes as in {fresh}, found {len(found)}, the first other at {at}"


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
