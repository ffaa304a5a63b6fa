"""Twelve seconds of the soak, and that its check finds what it is there to find."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from compactor import Ledger
from tests.soak_check import check, events_of
from tests.soak_stories import burst
from tests.soak_writers import ROOT, commands
from tests.stories import GARBAGE, START

SAMPLE_MINUTES = "0.2"
NOW_NS = int(START.timestamp()) * 10**9


def test_a_sample_of_the_soak_holds() -> None:
    """8 of the daemon: writers and daemon killed, disk full, files damaged; every finished byte is kept and folded."""
    command = [sys.executable, "-m", "tests.soak", "--minutes", SAMPLE_MINUTES]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert 0 == done.returncode, done.stdout


def test_the_same_seed_tells_the_same_stories() -> None:
    """One seed replays what was written."""
    one, two, other = (list(burst(Random(seed), "w-1", 50, NOW_NS, [])) for seed in (1, 1, 2))
    assert one == two
    assert one != other


def test_every_writer_appends_and_marks_each_line(tmp_path: Path) -> None:
    """C, shell and both Python writers leave the same events in the log, and each line in their marks."""
    lines = list(burst(Random(1), "w-1", 30, NOW_NS, []))
    (tmp_path / "lines").write_bytes(b"".join(lines))
    for kind, command in commands(tmp_path).items():
        log, marks = tmp_path / kind / "events.jsonl", tmp_path / f"{kind}.marks"
        log.parent.mkdir()
        subprocess.run([*command, log, tmp_path / "lines", marks], cwd=ROOT, check=True)
        assert b"".join(lines) == marks.read_bytes(), kind
        found = [{**one.event, "recorded_at": None} for one in events_of(log.read_bytes())]
        assert [{**json.loads(line), "recorded_at": None} for line in lines] == found, kind


@pytest.fixture(scope="module")
def lines() -> list[bytes]:
    """The lines of one writer."""
    return list(burst(Random(7), "w-1", 300, NOW_NS, []))


@pytest.fixture
def work(tmp_path: Path, lines: list[bytes]) -> Path:
    """What a soak leaves: a ledger with a torn line in the middle, compacted, and the marks of its writer."""
    ledger, marks = tmp_path / "data" / "team" / "alpha", tmp_path / "marks" / "alpha"
    ledger.mkdir(parents=True)
    marks.mkdir(parents=True)
    middle = [*GARBAGE, lines[150][:40]]
    (ledger / "events.jsonl").write_bytes(b"".join([*lines[:150], *middle, *lines[150:], b"torn"]))
    (marks / "raw-1.jsonl").write_bytes(b"".join(lines))
    Ledger(ledger).compact()
    return tmp_path


def test_the_check_finds_nothing_where_all_is_well(work: Path, lines: list[bytes]) -> None:
    """The check itself is right: torn lines, garbage and an unfinished tail are not losses."""
    counts: Counter[str] = Counter()
    assert [] == check(work, counts)
    assert (len(lines), len(lines)) == (counts["finished_writes"], counts["events"])


def lose_a_line(work: Path) -> None:
    """A finished write that is not in the log, as when somebody renames a log under its writers."""
    log = work / "data" / "team" / "alpha" / "events.jsonl"
    log.write_bytes(log.read_bytes().replace((work / "marks/alpha/raw-1.jsonl").read_bytes().splitlines()[9], b"{}"))


def repeat_a_line(work: Path) -> None:
    """A write that is there twice."""
    log = work / "data" / "team" / "alpha" / "events.jsonl"
    log.write_bytes(log.read_bytes() + b"\n" + (work / "marks/alpha/raw-1.jsonl").read_bytes().splitlines()[9] + b"\n")


def forget_a_finding(work: Path) -> None:
    """Bytes that nobody accounts for."""
    findings = work / "data" / "team" / "alpha" / "findings.jsonl"
    findings.write_bytes(b"".join(line for line in findings.read_bytes().splitlines(True) if b'"applied":true' in line))


def trade_twice(work: Path) -> None:
    """A trade that is there twice."""
    trades = work / "data" / "team" / "alpha" / "trades.jsonl"
    trades.write_bytes(trades.read_bytes() + trades.read_bytes().splitlines(keepends=True)[0])


def lose_an_open_order(work: Path) -> None:
    """An open order that is hidden."""
    pending = work / "data" / "team" / "alpha" / "pending_orders.jsonl"
    pending.write_bytes(b"".join(pending.read_bytes().splitlines(keepends=True)[1:]))


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lose_a_line, "1 finished writes are not in segments and log"),
        (repeat_a_line, "was written once, found again"),
        (forget_a_finding, "are in no event and in no finding"),
        (trade_twice, "trade ids: expected each once"),
        (trade_twice, "executions differ"),
        (lose_an_open_order, "open orders: expected"),
        (lose_an_open_order, "pending_orders.jsonl: expected"),
    ],
)
def test_the_check_finds_each_violation(work: Path, spoil: Callable[[Path], None], complaint: str) -> None:
    """A soak that cannot fail would show nothing."""
    spoil(work)
    assert [wrong for wrong in check(work, Counter()) if complaint in wrong]
