"""The writers of the soak: programs in C, shell and Python that append lines at full speed until somebody kills them.

`python -m tests.soak_writers raw|ledger LOG LINES MARKS` is the Python one. Each copies a file of lines to a log line
by line, and marks a line in a file of its own only after its write has finished: so what stands in the marks is what
the log must have. Making up the lines is left to `soak_stories`, so that a writer starts quickly. `hostile LOG ATTACK`
is the hostile team's: it appends a log that is made to cost time, memory or disk (`tests.hostile`), and marks nothing.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

HOSTILE_TEAM = "mallory"
HOSTILE_PIECE_BYTES = 50_001
ROOT = Path(__file__).resolve().parent.parent
SHELL = """while IFS= read -r line; do printf '%s\\n' "$line" >>"$1" && printf '%s\\n' "$line" >>"$3"; done <"$2" """


def commands(work: Path) -> dict[str, list[str]]:
    """The command of each kind of writer, to which LOG, LINES and MARKS are added; C is left out without a compiler."""
    python = [sys.executable, "-m", "tests.soak_writers"]
    found = {"shell": ["sh", "-c", SHELL, "writer"], "raw": [*python, "raw"], "ledger": [*python, "ledger"]}
    compiler = shutil.which("cc")
    if compiler is not None:
        program = work / "soak_writer"
        source = Path(__file__).with_name("soak_writer.c")
        subprocess.run([compiler, "-O1", "-Wall", "-o", program, source], check=True)
        found["c"] = [str(program)]
    return found


def write_raw(log: Path, lines: Path, marks: Path) -> None:
    """One `write` in append mode a line, and one more to mark it."""
    to_log, to_marks = (os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666) for path in (log, marks))
    with lines.open("rb") as source:
        for line in source:
            for descriptor in (to_log, to_marks):
                if os.write(descriptor, line) != len(line):
                    raise OSError(f"a short write of a line of {len(line)} bytes to {log} or its marks")


def write_ledger(log: Path, lines: Path, marks: Path) -> None:
    """`Ledger.append` line by line: most without waiting for the disk, every 16th until it is durable."""
    from compactor import Ledger

    to_marks = os.open(marks, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    with Ledger(log.parent) as ledger, lines.open("rb") as source:
        for number, line in enumerate(source):
            ledger.append([line], durability="none" if number % 16 else "sync")
            os.write(to_marks, line)


def write_hostile(log: Path, attack: Path) -> None:
    """A log made to cost time, memory or disk, in pieces that end anywhere."""
    from tests.hostile import HOSTILE

    data = memoryview(HOSTILE[attack.name]())
    to_log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for start in range(0, len(data), HOSTILE_PIECE_BYTES):
        os.write(to_log, data[start : start + HOSTILE_PIECE_BYTES])


if __name__ == "__main__":
    kind, *paths = sys.argv[1:]
    writers: dict[str, Callable[..., None]] = {"hostile": write_hostile, "raw": write_raw, "ledger": write_ledger}
    writers[kind](*map(Path, paths))
