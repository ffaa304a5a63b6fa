"""The README is run: every console block in its order in a clone, every Python block, every link."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What takes time says how long it took, and the suite grows: these numbers are not part of the promise.
MASKS = [(r"\d+ ms", "N ms"), (r"\d+ passed.* in .*", "N passed"), (r" +", " ")]
# What only a machine without .venv says; the test brings the environment in which it runs itself.
ONLY_ON_FIRST_INSTALL = "Installing "
ANY_LINES = "..."
LINES_MAX = 200


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone has, with the program in .venv/bin as `make compact` leaves it there."""
    path = tmp_path_factory.mktemp("clone")
    for name in ("compactor", "fixtures", "tests", "Makefile", "pyproject.toml", "README.md"):
        (path / name).symlink_to(ROOT / name)
    program = path / ".venv/bin/compactor"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m compactor "$@"\n')
    program.chmod(0o755)
    return path


def environment(clone: Path) -> dict[str, str]:
    """No stamps, so that make installs nothing; `make test` runs a few quick tests instead of itself."""
    path = f"{clone}/.venv/bin:{os.environ['PATH']}"
    make = {"PY": sys.executable, "BASE": "", "TEST": "", "TESTS": "tests/test_cli.py::TestOutput"}
    # A `make test` that runs this test has told its own options and depth to the environment.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "DATA"))}
    return {**inherited, **make, "PATH": path, "PYTHONPATH": str(ROOT), "COMPACTOR_DATA": "data", "COLUMNS": "80"}


def blocks(language: str) -> list[str]:
    return [body for found, body in BLOCK.findall(README) if found == language]


def commands(block: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of a console block with the lines that it is said to print."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, *output = part.splitlines()
        yield command, [line for line in output if not line.startswith(ONLY_ON_FIRST_INSTALL)]


def masked(line: str) -> str:
    for pattern, mask in MASKS:
        line = re.sub(pattern, mask, line)
    return line.strip()


def first_difference(expected: list[str], found: list[str]) -> str:
    """What differs, or nothing; a line `...` stands for any lines, up to the last ones."""
    if ANY_LINES in expected:
        at = expected.index(ANY_LINES)
        after = len(expected) - at - 1
        found = [*found[:at], ANY_LINES, *found[len(found) - after :]]
    wanted, got = [masked(line) for line in expected], [masked(line) for line in found]
    return "" if wanted == got else "expected:\n{}\nfound:\n{}".format("\n".join(expected), "\n".join(found))


def test_the_console_blocks_print_what_they_say(clone: Path) -> None:
    """The first screen of the README has real output, numbers of time masked."""
    wrong = []
    for command, expected in (pair for block in blocks("console") for pair in commands(block)):
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=clone,
            env=environment(clone),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if difference := first_difference(expected, done.stdout.splitlines()):
            wrong.append(f"$ {command}\n{difference}")
    assert [] == wrong, "\n\n".join(wrong)


def test_the_python_blocks_print_what_they_say(clone: Path) -> None:
    """Use from Python: each block, run in a clone, prints the text block that follows it."""
    found = [
        (body, output)
        for (kind, body), (then, output) in pairwise(BLOCK.findall(README))
        if (kind, then) == ("python", "text")
    ]
    assert len(found) == len(blocks("python")) > 0
    for body, output in found:
        done = subprocess.run(
            [sys.executable, "-c", body], cwd=clone, env=environment(clone), capture_output=True, text=True
        )
        assert (output, "") == (done.stdout, done.stderr)


def test_the_links_lead_somewhere() -> None:
    """Where the docs are."""
    targets = re.findall(r"\]\(([^)#:]+)\)", README)
    assert targets
    assert [] == [target for target in targets if not (ROOT / target).exists()]


def test_the_readme_can_be_read_in_one_sitting() -> None:
    """Under 200 lines: details are in the docs."""
    assert len(README.splitlines()) < LINES_MAX


def test_a_difference_is_seen() -> None:
    """The comparison of this module can fail."""
    assert "" == first_difference(
        ["a 5 ms", "...", "7 passed in 2s"], ["a  12 ms", "x", "y", "900 passed, 1 skipped in 50.1s"]
    )
    assert "" != first_difference(["a", "...", "z"], ["a", "x", "y"])
    assert "" != first_difference(["a 1"], ["a 2"])
