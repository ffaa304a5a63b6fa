"""Mutants are found, run and counted as they should be: on sources in a text, and on a package of a few lines."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.mutants.__main__ import EQUIVALENT, ROOMS, describe, find_candidates, load_equivalents, sample
from tests.mutants.mutators import SYNC, Mutant, find_mutants
from tests.mutants.running import Runner, Seen


def mutants_in(tmp_path: Path, text: str) -> dict[str, str]:
    """The mutants of a text: the id without its path, and the text with the change."""
    path = tmp_path / "it.py"
    path.write_text(text)
    return {mutant.id.partition(":")[2]: mutant.apply(text) for mutant in find_mutants(path, tmp_path)}


class TestMutators:
    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ("a = b < c", ["a = b <= c"]),
            ("a = b is not None", ["a = b is None"]),
            ("a = (b) + (c)", ["a = (b) - (c)"]),
            ("a = 1 << 16", ["a = 1 >> 16", "a = 1 << 17"]),
            ("a = 1", ["a = 2"]),
            ("a = True", ["a = False"]),
            ("a = b and c or d", ["a = (d)", "a = (b and c)", "a = (c) or d", "a = (b) or d"]),
            ("a = not b", ["a = (b)"]),
            ("a = b if c else d", ["a = b if (not (c)) else d"]),
            ("a = [b for b in c if d]", ["a = [b for b in c if True]"]),
            ("a = min(b, c)", ["a = max(b, c)"]),
            ("a.b = c", ["pass"]),
            ("a += b", ["pass"]),
            ("a.clear()", ["pass"]),
            ("if a:\n    raise B", ["if (not (a)):\n    raise B", "if a:\n    pass"]),
            ("for a in b:\n    continue", ["for a in b:\n    break"]),
            ("def f():\n    return a", ["def f():\n    return None"]),
            ("ä = 'ö' < b", ["ä = 'ö' <= b"]),
        ],
    )
    def test_each_kind_of_change(self, tmp_path: Path, before: str, after: list[str]) -> None:
        """One change at a time, and every one is Python."""
        assert sorted(after) == sorted(mutants_in(tmp_path, before).values())

    @pytest.mark.parametrize(
        "text",
        ['"""Words."""', "a = f'{b + 1} words'", "assert a > 1", "a = 'words'", "if TYPE_CHECKING:\n    a = 1",
         "def f(a: int = b) -> 'c':\n    '''Words.'''", "logger.info('words', count=1)", "raise_ = 'a' + 'b'",
         "a = zip(b, c, strict=True)",
         "FOLD_VERSION = 5", "if sys.byteorder == 'big':\n    a = 1", "A = defstruct('A', [], gc=False)"],
    )  # fmt: skip
    def test_what_stays(self, tmp_path: Path, text: str) -> None:
        """Words, annotations, assertions, notices and garbage collection are nothing that a test should look at."""
        assert {} == mutants_in(tmp_path, text)

    def test_a_removed_sync_is_a_kind_of_its_own(self, tmp_path: Path) -> None:
        """What is not made durable is lost only when the power fails."""
        assert {"1:0:sync": "pass", "2:0:sync": "pass"} == {
            at: text.splitlines()[int(at[0]) - 1]
            for at, text in mutants_in(tmp_path, "log.sync()\nfiles.sync_directory(path)\n").items()
        }


class TestSample:
    def test_the_same_seed_draws_the_same_mutants(self) -> None:
        """A score can be taken again; another seed draws others."""
        candidates = find_candidates(ROOT, ROOMS, set())
        drawn = sample(candidates, 100, 7, ROOT)
        assert drawn == sample(candidates, 100, 7, ROOT) != sample(candidates, 100, 8, ROOT)
        assert [20] * 5 == [sum(one.path.startswith(f"compactor/{room}/") for one in drawn) for room in ROOMS]
        assert sum(one.kind == SYNC for one in drawn) >= 4

    def test_each_equivalent_is_one_mutant_of_today(self) -> None:
        """A line of `equivalent.txt` that no mutant is like is removed, and one that would hide several names its code.

        Changes on one line of code have one reason.
        """
        found: dict[tuple[str, ...], set[int]] = {row: set() for row in load_equivalents(EQUIVALENT)}
        for mutants in find_candidates(ROOT, ROOMS, set()).values():
            for one in mutants:
                for row in describe(one, (ROOT / one.path).read_text().splitlines()) & found.keys():
                    found[row].add(one.line)
        assert {} == {row: lines for row, lines in found.items() if len(lines) != 1}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout with one module, of which a test runs the first function."""
    files = {
        "compactor/__init__.py": "",
        "compactor/core/__init__.py": "",
        "compactor/core/limits.py": "def double(number):\n    return number * 2\n\n\ndef ten():\n    return 10\n",
        "tests/__init__.py": "",
        "tests/test_numbers.py": "from compactor.core.limits import double\n\n\n"
        "def test_next():\n    assert double(1) is not None\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    shutil.copytree(ROOT / "tests/mutants", tmp_path / "tests/mutants")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_score_of_a_small_package(project: Path) -> None:
    """Killed is what a test sees; what no test looks at survives, and what no test runs is unseen."""
    arguments = ["--root", str(project), "--rooms", "core", "--count", "100", "--seed", "1"]
    done = subprocess.run([sys.executable, "-m", "tests.mutants", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert 1 == done.returncode, done.stderr
    outcomes = dict(line.split()[2:0:-1] for line in done.stderr.splitlines() if line[:1].isdigit())
    module = "compactor/core/limits.py"
    assert {
        f"{module}:2:4:return": "killed:",
        f"{module}:2:11:arithmetic": "survived:",
        f"{module}:2:20:constant": "survived:",
        f"{module}:6:4:return": "unseen:",
        f"{module}:6:11:constant": "unseen:",
    } == outcomes
    assert ["core", "5", "1", "20.0%"] in [line.split() for line in done.stdout.splitlines()]
    assert "    * -> //" in done.stdout.splitlines()


def test_what_never_ends_is_killed(project: Path) -> None:
    """A loop that a mutant made endless is ended from outside."""
    module = project / "compactor/core/limits.py"
    module.write_text("def double(number):\n    while number < 9:\n        number += 1\n    return number\n")
    runner = Runner(project, jobs=1, budget=10, seconds_more=5)
    (endless,) = (one for one in find_mutants(module, project) if one.kind == "statement")
    seen = Seen({endless.path: {3: ["tests/test_numbers.py::test_next"]}}, {"tests/test_numbers.py::test_next": 0.01})
    assert ["slow"] == [verdict.outcome for verdict in runner.run([endless], seen)]


def test_a_mutant_is_one_change() -> None:
    """Offsets count bytes, so that a letter of two bytes shifts nothing."""
    assert "'ää' <= b" == Mutant("a.py", 1, 0, "compare", 7, 8, "<", "<=").apply("'ää' < b")
