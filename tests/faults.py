"""Faults in the system calls of the real program: it is killed before any of them, or any of them fails.

`tests.disk` models a disk and stops at its own calls; here the kernel, the interpreter and the command line take part.
`python -m tests.faults` (or `make faults`) tries every call of every scenario, which takes minutes; `tests.test_faults`
takes a sample. Note: only calls on the ledger's own paths are counted, so that a fault's number stays the
same whatever the interpreter reads while it starts.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

from compactor import Ledger
from tests.cases import DERIVED, LOG, read_derived

ROOT = Path(__file__).resolve().parent.parent
TEAM = "alpha"
CALLS = (
    "openat", "pread64", "write", "pwrite64", "fsync", "fdatasync", "rename", "renameat", "renameat2", "unlink",
    "unlinkat", "truncate", "ftruncate", "flock", "fallocate",
)  # fmt: skip
"""The calls that a pass makes on a ledger; some have other names on other processors, and are found when they come."""
CALLS_MAX = 40
KILL, EIO, ENOSPC = "signal=KILL", "error=EIO", "error=ENOSPC"
NO_WAY_BACK = ("unlinkat:{}", "ftruncate:{}:when=2+")
"""What takes appended bytes back; the first `ftruncate` is that of the lock."""
HINTS = ("openat", "unlinkat")
"""Calls that may fail without a word once all is committed: a pass then keeps a point, which nothing depends on."""
REASONS = {EIO: "Input/output error", ENOSPC: "No space left on device"}
_FILES = (
    "", LOG, *DERIVED, "pending_orders.jsonl.tmp", ".state", ".state/lock", ".state/checkpoint.0",
    ".state/checkpoint.0.tmp", ".state/checkpoint.1", ".state/checkpoint.1.tmp", "segments",
)  # fmt: skip


class Scenario(NamedTuple):
    """A ledger on whose next pass the fault falls: what of its log is folded already, and what is new."""

    name: str
    old: bytes
    new: bytes
    files_are_ahead: bool = False
    """Whether the derived files hold the new lines already, as after a crash before the checkpoint."""
    command: tuple[str, ...] = ("compact",)


class Fault(NamedTuple):
    """The call of a kind, counted from 1, at which something happens; `stuck` if what was appended cannot be taken
    back either."""

    scenario: Scenario
    call: str
    number: int
    what: str
    stuck: bool = False

    def __str__(self) -> str:
        stuck = ", and no way back" if self.stuck else ""
        return f"{self.scenario.name}: {self.call} {self.number} {self.what}{stuck}"


def orders(first: int, last: int, *, ended: bool = False) -> bytes:
    """Orders of two fills each; every third stays open, and every seventh line is torn."""
    lines = []
    for number in range(first, last):
        head = f'"order_id":"o-{number}","ts":"2026-03-02T10:00:{number % 60:02}Z"'
        lines.append(f'{{"event":"new",{head},"symbol":"SPY","side":"buy","quantity":"2"}}')
        for fill in range(1 if number % 3 == 0 and not ended else 2):
            lines.append(
                f'{{"event":"partial_fill",{head},"execution_id":"x-{number}-{fill}","price":"530.00","qty":"1"}}'
            )
        lines += ['{"event":"fil'] if number % 7 == 0 else []
    return "".join(line + "\n" for line in lines).encode()


def rest_of(first: int, last: int) -> bytes:
    """The last fills of the orders that `orders` left open."""
    numbers = [number for number in range(first, last) if number % 3 == 0]
    return b"".join(orders(number, number + 1, ended=True).splitlines(keepends=True)[2] for number in numbers)


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("first pass", b"", orders(0, 30)),
        # So much is new that the pass writes a checkpoint as well.
        Scenario("next pass", orders(0, 30), orders(30, 900)),
        Scenario("all orders end", orders(0, 30), rest_of(0, 30)),
        Scenario("files are ahead", orders(0, 30), orders(30, 60), True),
        Scenario("seal", orders(0, 300), orders(300, 330), command=("seal", "--now")),
    )
}


def why_not() -> str | None:
    """Why faults cannot be injected on this machine, or None."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(["strace", "-qq", "-o", os.devnull, "true"], capture_output=True, text=True)
    return None if tried.returncode == 0 else f"strace may not trace here: {tried.stderr.strip()}"


def prepare(scenario: Scenario, data: Path) -> Path:
    """Lay the scenario's ledger below a data directory; returns the ledger's directory."""
    path = data / "team" / TEAM
    path.mkdir(parents=True)
    if scenario.old:
        _grow(path, scenario.old)
        compact(path)
    _grow(path, scenario.new)
    if scenario.files_are_ahead:
        shutil.copytree(path / ".state", data / "state")
        compact(path, checkpoint=True)
        shutil.rmtree(path / ".state")
        (data / "state").rename(path / ".state")
    return path


def _grow(path: Path, more: bytes) -> None:
    with (path / LOG).open("ab") as log:
        log.write(more)


def compact(path: Path, checkpoint: bool = False) -> dict[str, bytes]:
    """An undisturbed pass; the derived files after it."""
    with Ledger(path) as ledger:
        ledger.compact(checkpoint=checkpoint)
    return read_derived(path)


@cache
def expected_of(scenario: Scenario) -> dict[str, bytes]:
    """What an undisturbed fold of the whole log derives."""
    with tempfile.TemporaryDirectory() as data:
        return compact(prepare(Scenario("all", b"", scenario.old + scenario.new), Path(data)))


def traced(
    scenario: Scenario, data: Path, trace: Path | str, calls: str, *injections: str
) -> subprocess.CompletedProcess[str]:
    """The real program under strace, which sees only calls on the ledger's files and writes them to `trace`."""
    ledger = data / "team" / TEAM
    paths = [option for name in _FILES for option in ("-P", str(ledger / name))]
    options = [option for one in injections for option in ("-e", f"inject={one}")]
    return subprocess.run(
        [
            "strace",
            "-f",
            "-qq",
            "-o",
            str(trace),
            *paths,
            "-e",
            f"trace={calls}",
            *options,
            *program(*scenario.command, data=data),
        ],
        env=environment(),
        capture_output=True,
        text=True,
    )


def program(command: str, *options: str, data: Path) -> list[str]:
    """A command of the real program on a data directory."""
    named = ["--data"] if command == "append" else []
    return [sys.executable, "-m", "compactor", command, *options, *named, str(data)]


def environment() -> dict[str, str]:
    """The environment of the real program: it runs from this tree and writes nothing beside its modules."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COMPACTOR")}
    return {**inherited, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C"}


def calls_of(scenario: Scenario) -> Counter[str]:
    """How many calls of each kind an undisturbed pass of the scenario makes on the ledger's files."""
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory, "data")
        prepare(scenario, data)
        trace = Path(directory, "trace")
        traced(scenario, data, trace, "%file,%desc")
        found = re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.MULTILINE)
    return Counter(call for call in found if call in CALLS)


def faults_of(scenario: Scenario) -> Iterator[Fault]:
    """Every fault that can fall on a pass of the scenario."""
    for call, count in sorted(calls_of(scenario).items()):
        # Reading page after page is the same call again: some of them stand for all.
        for number in range(1, count + 1, 1 + count // CALLS_MAX):
            # The second flock gives the lock back, when the pass is done: an error there is none of the pass.
            gives_back = call == "flock" and number > 1
            for what in (KILL,) if gives_back else (KILL, EIO, ENOSPC):
                yield Fault(scenario, call, number, what)
            if call in ("write", "fsync", "renameat"):
                yield Fault(scenario, call, number, EIO, stuck=True)


def complaints(fault: Fault) -> list[str]:
    """Let the fault happen and a clean pass follow; what was promised and did not come, for people."""
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory)
        path = prepare(fault.scenario, data)
        before, expected = read_derived(path), expected_of(fault.scenario)
        back = [call.format(EIO) for call in NO_WAY_BACK if fault.stuck]
        traced_calls = ",".join([fault.call, "?unlinkat", "?ftruncate"])
        injections = [f"{fault.call}:{fault.what}:when={fault.number}", *(f"?{one}" for one in back)]
        done = traced(fault.scenario, data, os.devnull, traced_calls, *injections)
        after = read_derived(path)
        wrong = [*_of_files(before, after, expected)]
        if fault.what != KILL and fault.call in HINTS and done.returncode == 0:
            wrong += [] if after == expected else ["the pass says that it went well, and did not"]
        elif fault.what != KILL:
            wrong += _of_error(fault, done, data)
            same = all(before[name] == after[name] for name in ("trades.jsonl", "findings.jsonl"))
            # Sealing begins with a pass, which has committed when the sealing itself fails.
            same |= fault.scenario.command != ("compact",) and after == expected
            wrong += [] if same or fault.stuck else ["trades or findings are not as before"]
        elif done.returncode not in (-9, 137):
            wrong.append(f"expected the program to be killed, found exit code {done.returncode}: {done.stderr}")
        wrong += [] if compact(path) == expected else ["the next pass gives other bytes than an undisturbed fold"]
        wrong += _of_log(path, fault.scenario)
    return [f"{fault}: {one}" for one in wrong]


def _of_files(before: dict[str, bytes], after: dict[str, bytes], expected: dict[str, bytes]) -> Iterator[str]:
    """What holds of the derived files at every instant: no line is lost or changed, pending orders are whole."""
    for name in ("trades.jsonl", "findings.jsonl"):
        if not (after[name].startswith(before[name]) and expected[name].startswith(after[name])):
            yield f"{name} holds what does not follow from the log"
    if after["pending_orders.jsonl"] not in (before["pending_orders.jsonl"], expected["pending_orders.jsonl"]):
        yield "pending_orders.jsonl is neither the old nor the new one"


def _of_log(path: Path, scenario: Scenario) -> Iterator[str]:
    """The log is read as it was, and can be sealed; nothing half made stays in the way."""
    if scenario.command == ("compact",):
        return
    for _ in range(2):
        with Ledger(path) as ledger:
            if b"".join(ledger.cat()) != scenario.old + scenario.new:
                yield "the log is read otherwise than before"
            ledger.seal(now=True)
    if left := [one.name for one in (path / "segments").iterdir() if ".tmp" in one.name]:
        yield f"left over: {left}"


def _of_error(fault: Fault, done: subprocess.CompletedProcess[str], data: Path) -> Iterator[str]:
    """A failing call is exit code 1 and one message with the reason and the place."""
    messages = messages_of(done)
    if done.returncode != 1:
        yield f"expected exit code 1, found {done.returncode}: {done.stderr}"
    elif len(messages) != 1 or not (str(data) in messages[0] and REASONS[fault.what] in messages[0]):
        yield f"expected one message with reason and place, found: {done.stderr}"


def messages_of(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What the program says about the ledger, without the summary around it; a traceback is no message."""
    assert "Traceback" not in done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith(f"{TEAM}: ")]


def try_all(faults: list[Fault], tell: Callable[[int, list[str]], None]) -> list[str]:
    """Try faults, as many at once as there are processors; `tell` gets how many are done and what was wrong."""
    wrong: list[str] = []
    # Not threads: a program that one thread starts would for a moment hold the lock of another thread's ledger.
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for count, found in enumerate(pool.map(complaints, faults), 1):
            wrong += found
            tell(count, wrong)
    return wrong


def main() -> None:
    """Try every fault of every scenario, and show how far it is."""
    if reason := why_not():
        raise SystemExit(f"no fault can be tried: {reason}")
    faults = [fault for scenario in SCENARIOS.values() for fault in faults_of(scenario)]
    print(f"{len(faults)} faults in {len(SCENARIOS)} scenarios")

    def tell(count: int, wrong: list[str]) -> None:
        if count % 25 == 0 or count == len(faults):
            print(f"{count:5} of {len(faults)} tried, {len(wrong)} promises broken", flush=True)

    wrong = try_all(faults, tell)
    print("\n".join(wrong) or "Every clean pass gave the bytes of an undisturbed fold.")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
