"""The real program under faults of the system: a sample of the matrix of `make faults`, and files that may not grow."""

import json
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cases import LOG, read_derived
from tests.faults import (
    EIO,
    ENOSPC,
    KILL,
    SCENARIOS,
    TEAM,
    Fault,
    compact,
    complaints,
    environment,
    expected_of,
    messages_of,
    prepare,
    program,
    why_not,
)

FIRST, NEXT, END, AHEAD, SEAL, SIGN, RECONCILED, PRESENCE, KEY = SCENARIOS.values()
SAMPLE = [
    Fault(FIRST, "write", 1, KILL),
    Fault(FIRST, "fsync", 4, ENOSPC),
    Fault(FIRST, "openat", 2, EIO),
    Fault(NEXT, "fdatasync", 1, EIO),
    Fault(NEXT, "write", 1, ENOSPC),
    Fault(NEXT, "write", 2, KILL),
    Fault(NEXT, "fsync", 2, EIO),
    Fault(NEXT, "fsync", 1, EIO, stuck=True),
    Fault(NEXT, "fsync", 5, KILL),
    Fault(END, "unlinkat", 1, KILL),
    Fault(END, "fsync", 2, EIO),
    Fault(AHEAD, "fsync", 1, KILL),
    Fault(AHEAD, "pwrite64", 1, ENOSPC),
    Fault(NEXT, "openat", 45, EIO),
    Fault(SEAL, "openat", 60, EIO),
    Fault(SEAL, "fallocate", 1, KILL),
    Fault(SEAL, "fsync", 8, ENOSPC),
    Fault(SEAL, "renameat", 3, KILL),
    Fault(SIGN, "write", 13, ENOSPC),
    Fault(SIGN, "write", 15, ENOSPC),
    Fault(SIGN, "fsync", 17, KILL),
    Fault(SIGN, "renameat", 7, EIO),
    Fault(RECONCILED, "write", 1, ENOSPC),
    Fault(PRESENCE, "pwrite64", 1, ENOSPC),
    Fault(KEY, "fsync", 1, ENOSPC),
]
Event = dict[str, str]


@pytest.fixture(scope="module")
def strace() -> None:
    """Injecting faults needs strace and the permission to trace."""
    if reason := why_not():
        pytest.skip(reason)


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("fault", SAMPLE, ids=str)
def test_a_fault_at_a_call_loses_nothing_and_trades_nothing_twice(fault: Fault) -> None:
    """7: killed or failed at a system call, the next pass gives the bytes of an undisturbed fold."""
    assert [] == complaints(fault)


def test_the_scenarios_have_every_execution_once() -> None:
    """The bytes that the faults are measured by: one trade for each execution of the log, findings, open orders."""
    for scenario in SCENARIOS.values():
        told = [json.loads(line) for line in (scenario.old + scenario.new).splitlines() if line.endswith(b"}")]
        executions = [event["execution_id"] for event in told if "execution_id" in event]
        derived = expected_of(scenario)
        trades = [json.loads(line)["execution_id"] for line in derived["trades.jsonl"].splitlines()]
        assert executions == trades
        assert derived["findings.jsonl"]
        assert (scenario is END) == (derived["pending_orders.jsonl"] == b"")


def files_up_to(length: int) -> Callable[[], None]:
    """Let no file of a child grow beyond a length: writes are cut short at that byte, and the next one fails."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (length, length))


@pytest.mark.parametrize("scenario", [FIRST, NEXT], ids=lambda scenario: scenario.name)
@pytest.mark.parametrize("part", [0.001, 0.5, 0.999])
def test_a_pass_without_room_leaves_the_derived_files_as_they_were(scenario: object, part: float, data: Path) -> None:
    """A write that is cut short at any byte: exit code 1, one message, derived files as before, and on it goes."""
    chosen = FIRST if scenario is FIRST else NEXT
    path = prepare(chosen, data)
    before, expected = read_derived(path), expected_of(chosen)
    old, new = len(before["trades.jsonl"]), len(expected["trades.jsonl"])

    limit = files_up_to(old + int((new - old) * part))
    done = subprocess.run(
        program("compact", data=data), env=environment(), capture_output=True, text=True, preexec_fn=limit
    )

    assert 1 == done.returncode
    (message,) = messages_of(done)
    assert f"{path / 'trades.jsonl'}: File too large while compacting; the derived files are as they were" in message
    assert before == read_derived(path)
    assert expected == compact(path)


def append(data: Path, events: list[Event], room: int | None = None) -> "subprocess.CompletedProcess[str]":
    """Append with the real program; with `room` the log may grow by so many bytes only."""
    log = data / "team" / TEAM / LOG
    limit = None if room is None else files_up_to(log.stat().st_size + room)
    return subprocess.run(
        [*program("append", data=data), "--team", TEAM, "--json"],
        input="".join(json.dumps(event) + "\n" for event in events),
        env=environment(),
        capture_output=True,
        text=True,
        preexec_fn=limit,
    )


def fills(first: int, last: int) -> list[Event]:
    head = {"event": "partial_fill", "order_id": "o-1", "ts": "2026-03-02T10:00:00Z", "price": "1", "qty": "1"}
    return [{**head, "symbol": "SPY", "side": "buy", "execution_id": f"x-{number}"} for number in range(first, last)]


@pytest.mark.parametrize("room", [0, 1, 250, 800])
def test_an_append_without_room_acknowledges_nothing_and_spoils_nothing(room: int, data: Path) -> None:
    """A log that cannot grow: exit code 1, what was acknowledged stays, and the same append can be done again."""
    (data / "team" / TEAM).mkdir(parents=True)
    (data / "team" / TEAM / LOG).touch()
    assert 0 == append(data, fills(0, 3)).returncode
    acknowledged = (data / "team" / TEAM / LOG).read_bytes()

    done = append(data, fills(3, 8), room)

    assert (1, "lock" in done.stderr) == (done.returncode, False)
    assert "5 events, which are not acknowledged" in done.stderr
    assert "appended" not in done.stdout and '"events"' not in done.stdout
    log = (data / "team" / TEAM / LOG).read_bytes()
    assert acknowledged == log[: len(acknowledged)]
    assert len(acknowledged) + room == len(log)
    assert 0 == append(data, fills(3, 8)).returncode
    trades = compact(data / "team" / TEAM)["trades.jsonl"].splitlines()
    assert [f"x-{number}" for number in range(8)] == [json.loads(line)["execution_id"] for line in trades]
