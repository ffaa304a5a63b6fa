"""Faults in the system calls of the real program: it is killed before any of them, or any of them fails.

`tests.disk` models a disk and stops at its own calls; here the kernel, the interpreter and the command line take part.
`python -m tests.faults [SCENARIO]` (or `make faults`) tries every call of every scenario, which takes minutes;
`tests.test_faults` takes a sample. Note: only calls on the data directory's own paths are counted, so that a
fault's number stays the same whatever the interpreter reads while it starts.
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

from compactor import CompactorError, Ledger
from compactor.daemon.health import Health
from compactor.daemon.presence import acquire
from compactor.ledger.files import Files
from compactor.ledger.paths import PRIVATE
from compactor.proofs.heads import Witnessed, read_witness
from compactor.proofs.keys import make_key, read_key
from compactor.sync.state import AccountReconciled, remember
from tests.cases import LOG, read_derived

ROOT = Path(__file__).resolve().parent.parent
TEAM, KEY, WITNESS = "alpha", "signing.key", "heads"
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
SEAL_HINTS = (*HINTS, "write", "fsync", "renameat")
"""After a segment is sealed its index is written, which nothing depends on either."""
REASONS = {EIO: "Input/output error", ENOSPC: "No space left on device"}


class Scenario(NamedTuple):
    """A ledger on whose next pass the fault falls: what of its log is folded already, and what is new."""

    name: str
    old: bytes
    new: bytes
    files_are_ahead: bool = False
    """Whether the derived files hold the new lines already, as after a crash before the checkpoint."""
    command: tuple[str, ...] = ("compact",)
    is_signed: bool = False
    """Whether the settings name a key and a witness, so that sealing signs heads and tells them."""


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
        Scenario("sign", orders(0, 300), orders(300, 330), command=("seal", "--now"), is_signed=True),
        Scenario("reconciled", orders(0, 30), b"", command=("reconciled",)),
        Scenario("presence", orders(0, 30), b"", command=("presence",)),
        Scenario("key", orders(0, 30), b"", command=("key",)),
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
    if scenario.is_signed:
        make_key(data / KEY, "example.org/desk")
        (data / "compactor.toml").write_text(f'signing_key = "{KEY}"\nwitness = "{WITNESS}"\n')
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
def files_of(scenario: Scenario) -> list[str]:
    """Every directory and file that an undisturbed run of the scenario leaves, and what it writes them to first."""
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory)
        prepare(scenario, data)
        before = set(data.rglob("*"))
        subprocess.run(program(*scenario.command, data=data), env=environment(), capture_output=True, check=True)
        found = sorted(str(path.relative_to(data)) for path in before | set(data.rglob("*")))
        is_file = {name: (data / name).is_file() or name.endswith(LOG) for name in found}
    # A file that the run removes was there before; one that it replaces has a temporary name for a while. What is
    # about all ledgers, the list of them and the settings, is read before any of them is opened.
    found = [name for name in found if name not in ("team", "compactor.toml")]
    return [one for name in found for one in ((name, name + ".tmp") if is_file[name] else (name,))]


@cache
def expected_of(scenario: Scenario) -> dict[str, bytes]:
    """What an undisturbed fold of the whole log derives."""
    with tempfile.TemporaryDirectory() as data:
        return compact(prepare(Scenario("all", b"", scenario.old + scenario.new), Path(data)))


def traced(
    scenario: Scenario, data: Path, trace: Path | str, calls: str, *injections: str
) -> subprocess.CompletedProcess[str]:
    """The real program under strace, which sees only calls on the ledger's files and writes them to `trace`."""
    paths = [option for name in files_of(scenario) for option in ("-P", str(data / name))]
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
    """A command of the real program on a data directory, or one of its writers that no short command runs."""
    if command in WRITERS:
        return [sys.executable, "-m", "tests.faults", command, str(data)]
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
            # Every second flock gives the lock back, when the work is done: an error there is none of it.
            gives_back = call == "flock" and number % 2 == 0
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
        hints = SEAL_HINTS if fault.scenario.command[0] == "seal" else HINTS
        if fault.what != KILL and fault.call in hints and done.returncode == 0:
            wrong += [] if after == expected else ["the pass says that it went well, and did not"]
        elif fault.what != KILL:
            wrong += _of_error(fault, done, data)
            same = all(before[name] == after[name] for name in ("trades.jsonl", "findings.jsonl"))
            # Sealing begins with a pass, which has committed when the sealing itself fails.
            same |= fault.scenario.command[0] == "seal" and after == expected
            wrong += [] if same or fault.stuck else ["trades or findings are not as before"]
        elif done.returncode not in (-9, 137):
            wrong.append(f"expected the program to be killed, found exit code {done.returncode}: {done.stderr}")
        wrong += _of_rest(fault.scenario, data)
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


def _of_rest(scenario: Scenario, data: Path) -> Iterator[str]:
    """Done again it succeeds, and gives what an undisturbed run does: every head signed and told, a whole key."""
    if scenario.command == ("compact",):
        return
    again = subprocess.run(program(*scenario.command, data=data), env=environment(), capture_output=True, text=True)
    is_there = scenario.command == ("key",) and "there is a file already" in again.stderr
    if again.returncode and not is_there:
        yield f"done again it ends with exit code {again.returncode}: {again.stderr}"
    if left := [path.name for path in data.rglob("*.tmp")]:
        yield f"left over: {left}"
    if scenario.command == ("key",):
        read_key(data / KEY)
    if scenario.is_signed:
        segments = data / "team" / TEAM / "segments"
        told = [one for _line, one in read_witness(data / WITNESS) if isinstance(one, Witnessed)]
        ends = {int(path.name[21:41]) for path in segments.glob("*.seal.json")}
        if ends != {int(path.name[21:41]) for path in segments.glob("*.head")}:
            yield "a seal has no signed head"
        if max(ends) not in [one.end for one in told]:
            yield "the witness was not told of the last head"


def _of_log(path: Path, scenario: Scenario) -> Iterator[str]:
    """The log is read as it was, and can be sealed; nothing half made stays in the way."""
    if scenario.command[0] != "seal":
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


def _write_reconciled(data: Path) -> None:
    Files().make_directory(data / PRIVATE)
    remember(data, {"default": AccountReconciled(through="2026-03-02T14:30:00Z")})


def _write_presence(data: Path) -> None:
    presence = acquire(data)
    presence.publish(Health())
    presence.close()


WRITERS: dict[str, Callable[[Path], object]] = {
    "reconciled": _write_reconciled,
    "presence": _write_presence,
    "key": lambda data: make_key(data / KEY, "example.org/desk"),
}
"""What else of the program writes, as `python -m tests.faults NAME DATA`; it fails as a command does."""


def write(name: str, data: Path) -> None:
    """Let one of the writers write, and say what went wrong."""
    try:
        WRITERS[name](data)
    except (CompactorError, OSError) as error:
        raise SystemExit(f"{TEAM}: {error}") from None


def main() -> None:
    """Try every fault of every scenario, and show how far it is."""
    if sys.argv[1:2] and sys.argv[1] in WRITERS:
        write(sys.argv[1], Path(sys.argv[2]))
        return
    if reason := why_not():
        raise SystemExit(f"no fault can be tried: {reason}")
    names = sys.argv[1:] or list(SCENARIOS)
    faults = [fault for name in names for fault in faults_of(SCENARIOS[name])]
    print(f"{len(faults)} faults in {len(names)} scenarios")

    shown = 0

    def tell(count: int, wrong: list[str]) -> None:
        nonlocal shown
        for one in wrong[shown:]:
            print(one, flush=True)
        shown = len(wrong)
        if count % 25 == 0 or count == len(faults):
            print(f"{count:5} of {len(faults)} tried, {len(wrong)} promises broken", flush=True)

    wrong = try_all(faults, tell)
    print("" if wrong else "Every clean pass gave the bytes of an undisturbed fold.")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
