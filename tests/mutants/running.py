"""Runs the tests that see a mutant, in copies of the checkout, several at once.

A mutant is killed when a test fails, or when the tests take far longer than they do. Note: the tests of a mutant are
those that run its line, cheapest first, as many as a budget of seconds allows, and always those of its module. Most
mutants are killed by the first few files, so these run before the others are even collected.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from tests.mutants.mutators import Mutant

_COPIED = ("compactor", "tests", "pyproject.toml")
_LINKED = ("fixtures", "README.md", "Makefile", ".ci", ".github")
_INTERNAL_ERROR, _NONE_COLLECTED = 3, 5
"""Exit codes of pytest."""
_PROGRAMS = (
    "analysis bench bench_audit bench_live constraints deploy faults mutants names package readme run soak suite"
)
_FILES_FIRST, _SECONDS_FIRST = 3, 6.0
_LEFT_OUT = tuple(f"tests/test_{name}.py" for name in (*_PROGRAMS.split(), "watch"))
"""They start programs only, which are not seen, and take long."""


class Seen(NamedTuple):
    """Which tests run which line, and how long each takes."""

    lines: dict[str, dict[int, list[str]]]
    seconds: dict[str, float]

    def list_covering(self, mutant: Mutant) -> list[str]:
        """The tests that were seen to run its line."""
        return self.lines.get(mutant.path, {}).get(mutant.line, [])

    def choose(self, mutant: Mutant, budget: float) -> list[str]:
        """The tests for a mutant: those that run its line and those of its module, cheapest first.

        A line that no test was seen to run, because it runs at the import or in a process of its own, gets those that
        run any line of its module. Note: a test whose parameter names the module, such as one that looks at constants,
        runs none of its lines and belongs to it all the same.
        """
        own = f"tests/test_{Path(mutant.path).stem}.py::"
        covering = self.list_covering(mutant)
        covering = covering or [name for names in self.lines.get(mutant.path, {}).values() for name in names]
        names = {name for name in covering if name in self.seconds}
        named = {name for name in self.seconds if name.startswith(own) or _names_module(name, mutant)}
        chosen: list[str] = []
        for name in sorted(names | named, key=lambda name: (self.seconds[name], name)):
            budget -= self.seconds[name]
            if budget >= 0 or name in named:
                chosen.append(name)
        return chosen

    def split(self, mutant: Mutant, chosen: list[str]) -> tuple[list[str], list[str]]:
        """The tests of its module and of the files that have most of them, a few seconds of them, and all others."""
        own = f"tests/test_{Path(mutant.path).stem}.py"
        files = Counter(name.partition("::")[0] for name in chosen)
        first_files = sorted(files, key=lambda file: (file != own, -files[file], file))[:_FILES_FIRST]
        first, seconds = [], 0.0
        for name in chosen:
            if name.partition("::")[0] in first_files and seconds < _SECONDS_FIRST:
                first.append(name)
                seconds += self.seconds[name]
        return first, [name for name in chosen if name not in set(first)]


def _names_module(test: str, mutant: Mutant) -> bool:
    """Whether a parameter of a test is a dotted name in the module: `test_x[sync.gaps.OVERLAP_SECONDS-300]`."""
    module = mutant.path.removeprefix("compactor/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return f"[{module}." in test or f"[{module}-" in test or f"[{module}]" in test


class Verdict(NamedTuple):
    """What became of a mutant: `killed`, `slow` (killed too), `survived`, `unseen` (no test runs it)."""

    mutant: Mutant
    outcome: str
    tests: int
    killer: str = ""

    @property
    def is_killed(self) -> bool:
        return self.outcome in ("killed", "slow")


def copy_checkout(root: Path, copy: Path) -> None:
    """Copy what is run of a checkout; what is only read is linked."""
    copy.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", "*.c")
    for name in _COPIED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=ignored)
        elif source.exists():
            shutil.copy(source, copy / name)
    for name in _LINKED:
        if (root / name).exists():
            (copy / name).symlink_to((root / name).resolve())


class Runner:
    """Runs mutants of the checkout `root`, which nobody changes meanwhile.

    With `pure` what survives is tried again without the compiled modules.
    """

    def __init__(
        self,
        root: Path,
        jobs: int,
        budget: float,
        seconds_more: float = 60.0,
        pure: bool = False,
        tests: Sequence[str] = ("tests",),
    ) -> None:
        self._root = root
        self._jobs = jobs
        self._budget = budget
        self._seconds_more = seconds_more
        self._pure = pure
        self._tests = list(tests)

    def look(self, cache: Path, old: Path | None = None) -> Seen:
        """Run all tests once and see which lines they run; kept in `cache` until a file changes.

        With `old` it is taken as it is, whatever has changed since it was made.
        """
        path = old or cache / f"{self._digest()}.json"
        if not path.exists():
            cache.mkdir(parents=True, exist_ok=True)
            found = self._look()
            for old in cache.glob("*.json"):
                old.unlink()
            path.write_text(json.dumps(found))
        found = json.loads(path.read_text())
        names = found["names"]
        lines = {
            file: {int(line): [names[number] for number in numbers] for line, numbers in rows.items()}
            for file, rows in found["lines"].items()
        }
        return Seen(lines, dict(zip(names, found["seconds"], strict=True)))

    def run(self, mutants: Sequence[Mutant], seen: Seen) -> Iterator[Verdict]:
        """Verdicts in the order of the mutants, as they come."""
        copies: SimpleQueue[Path] = SimpleQueue()
        with tempfile.TemporaryDirectory(prefix="compactor-mutants-") as directory:
            for number in range(self._jobs):
                copy = Path(directory) / str(number)
                copy_checkout(self._root, copy)
                copies.put(copy)

            def judge(mutant: Mutant) -> Verdict:
                copy = copies.get()
                try:
                    return self._judge(mutant, seen, copy)
                finally:
                    copies.put(copy)

            self._check(seen, Path(directory) / "0")
            with ThreadPoolExecutor(self._jobs) as pool:
                yield from pool.map(judge, mutants)

    def _check(self, seen: Seen, copy: Path) -> None:
        """Tests pass in a copy without a mutant; otherwise every verdict would be wrong."""
        quick = sorted(seen.seconds, key=lambda name: seen.seconds[name])[:20]
        nothing = Mutant("", 0, 0, "", 0, 0, "", "")
        if (verdict := self._run_tests(nothing, quick, 60, copy, {})).outcome != "survived":
            raise SystemExit(f"without any mutant {verdict.killer} fails in a copy of the checkout")

    def _judge(self, mutant: Mutant, seen: Seen, copy: Path) -> Verdict:
        chosen = seen.choose(mutant, self._budget)
        if not chosen:
            return Verdict(mutant, "unseen", 0)
        with _mutated(copy / mutant.path, mutant):
            for names in filter(None, seen.split(mutant, chosen)):
                seconds = sum(seen.seconds[name] for name in names)
                verdict = self._run_tests(mutant, names, seconds, copy, {})
                if not verdict.is_killed and self._pure:
                    verdict = self._run_tests(mutant, names, seconds, copy, {"COMPACTOR_PURE_PYTHON": "1"})
                if verdict.is_killed:
                    break
        verdict = verdict._replace(tests=len(chosen))
        if verdict.outcome == "survived" and not seen.list_covering(mutant):
            return verdict._replace(outcome="unseen")
        return verdict

    def _run_tests(
        self, mutant: Mutant, chosen: list[str], seconds: float, copy: Path, environment: dict[str, str]
    ) -> Verdict:
        listed = copy / "chosen.json"
        listed.write_text(json.dumps(chosen))
        files = sorted({name.partition("::")[0] for name in chosen})
        options = ["-x", "-p", "no:cacheprovider", "--hypothesis-seed=0", "--tb=no", *files]
        environment = {"MUTANTS_TESTS": str(listed), **environment}
        # Thrice their time on a machine with other work, and the start.
        done = _pytest(options, copy, environment, 3 * seconds + self._seconds_more)
        if done is None:
            return Verdict(mutant, "slow", len(chosen))
        if done.returncode == _INTERNAL_ERROR:
            raise SystemExit(f"pytest could not run the tests of {mutant.id}:\n{done.stdout[-2000:]}")
        if done.returncode == _NONE_COLLECTED:
            return Verdict(mutant, "unseen", 0)
        failed = [line.split()[1] for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
        outcome, killer = (
            ("survived", "") if done.returncode == 0 else ("killed", failed[0] if failed else "the import")
        )
        # A mutant that cannot even be imported ends pytest before any test.
        return Verdict(mutant, outcome, len(chosen), killer)

    def _look(self) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="compactor-mutants-") as directory:
            copy = Path(directory) / "look"
            copy_checkout(self._root, copy)
            environment = {"MUTANTS_MAP": str(copy / "seen")}
            options = ["-p", "no:cacheprovider", "--hypothesis-seed=0", "-n", str(self._jobs), "--dist", "loadscope"]
            options += [f"--ignore={name}" for name in _LEFT_OUT if (copy / name).exists()] + self._tests
            done = _pytest(options, copy, environment, 3600)
            parts = [json.loads(path.read_text()) for path in copy.glob("seen.*")]
        if not parts:
            raise SystemExit(f"the tests could not be run:\n{done.stdout if done else 'an hour was not enough'}")
        return _merge(parts)

    def _digest(self) -> str:
        whole = hashlib.sha256(",".join(self._tests).encode())
        for folder in ("compactor", "tests"):
            for path in sorted((self._root / folder).rglob("*.py*")):
                if path.suffix in (".py", ".pyx"):
                    whole.update(f"{path.relative_to(self._root)}\n".encode() + path.read_bytes())
        return whole.hexdigest()[:32]


def _merge(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """What several processes saw, with numbers for the names of tests."""
    # A test that fails or is skipped without any mutant tells nothing of one.
    tests = {name: test for part in parts for name, test in part["tests"].items() if test["outcome"] == "passed"}
    numbers = {name: number for number, name in enumerate(tests)}
    lines: dict[str, dict[str, list[int]]] = {}
    for part in parts:
        for name, rows in part["lines"].items():
            for line, found in rows.items():
                known = lines.setdefault(name, {}).setdefault(line, [])
                known.extend(numbers[test] for test in found if test in numbers)
    return {"names": list(tests), "seconds": [test["seconds"] for test in tests.values()], "lines": lines}


@contextmanager
def _mutated(path: Path, mutant: Mutant) -> Iterator[None]:
    text = path.read_text()
    path.write_text(mutant.apply(text))
    try:
        yield
    finally:
        path.write_text(text)


def _pytest(
    options: list[str], copy: Path, environment: dict[str, str], seconds: float
) -> subprocess.CompletedProcess[str] | None:
    """Run pytest in a copy; None where it did not end in time. What it started is ended with it."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.mutants.plugin", *options]
    # Bytecode of one change would be taken for that of the next, where both have one size and come within a second.
    shared = {"MUTANTS_ROOT": str(copy), "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        command, cwd=copy, env={**os.environ, **shared, **environment}, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None
    return subprocess.CompletedProcess(command, process.returncode, output, "")
