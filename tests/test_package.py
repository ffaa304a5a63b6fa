"""The distribution: what is in the wheel, that it builds from the source distribution, and that it runs elsewhere."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Callable, Sequence
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

from compactor import __version__
from compactor.core.fast import IS_SWITCHED_OFF
from tests.conftest import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMPILED = sorted(path.stem for path in (ROOT / "compactor/core/fast").glob("*.pyx"))
BUILT = os.environ.get("COMPACTOR_DIST")
"""Where `make wheel` has built the distributions. Their dependencies are then installed too, from the network."""
Run = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.skipif(IS_SWITCHED_OFF, reason="the wheel is the same; `make test` builds it")


def run_checked(command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program in a clean environment; its output is the message where it fails."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "PIP_CONFIG_FILE") if name in os.environ}
    environment |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, **options)
    assert 0 == done.returncode, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the source distribution of this checkout and the wheel that was built from it."""
    if BUILT:
        return ROOT / BUILT
    out, source = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("source") / "copy"
    # A build writes into its source, where other tests run.
    passed_over = shutil.ignore_patterns(
        ".*", "__pycache__", "build", "dist", "data", "fixtures", "*.egg-info", "*.so", "*.c"
    )
    shutil.copytree(ROOT, source, ignore=passed_over)
    # That the compiler optimises takes half the time of a build, and no test of these asks for speed.
    settings = source / "pyproject.toml"
    settings.write_text(settings.read_text().replace('"-O3"', '"-O0"'))
    run_checked([sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source])
    return out


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Path:
    (found,) = distributions.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run a program of an environment into which nothing but the wheel was installed."""
    path = tmp_path_factory.mktemp("installed")
    run_checked([sys.executable, "-m", "venv", path])
    python = path / "bin/python"
    if BUILT:
        run_checked([python, "-m", "pip", "install", "--quiet", wheel])
    else:
        run_checked([python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel])
        # A directory named in a .pth file is searched for modules, but its own .pth files are not read: the editable
        # installation of this checkout stays out.
        (target,) = (path / "lib").glob("python*/site-packages")
        (target / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return run_checked([path / "bin" / program, *arguments], cwd=path)

    return run


class TestDistributions:
    """What is in the two files that are published."""

    def test_the_source_distribution_has_what_a_build_needs(self, distributions: Path) -> None:
        """It builds (the wheel here is built from it)."""
        (found,) = distributions.glob("*.tar.gz")
        with tarfile.open(found) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
        wanted = {"compactor/core/fast/scan.pyx", "compactor/core/fast/scan.pxd", "compactor/LICENSE", "README.md"}
        assert set() == wanted - names
        assert [] == [name for name in names if name.endswith((".so", ".pyc", ".c")) and not name.startswith("tests/")]

    def test_the_wheel_has_every_module_and_nothing_that_only_people_read(self, wheel: Path) -> None:
        """Docs, tests and the benchmark are not in it; the unit that `compactor systemd` prints is."""
        names = set(zipfile.ZipFile(wheel).namelist())
        modules = {str(path.relative_to(ROOT)) for path in (ROOT / "compactor").rglob("*.py")}
        assert modules == {name for name in names if name.endswith(".py")}
        others = {
            name for name in names - modules if not name.endswith((".so", ".pyi", ".pxd")) and ".dist-info/" not in name
        }
        deployed = {f"compactor/deploy/{path.name}" for path in (ROOT / "compactor/deploy").iterdir()}
        page = {str(path.relative_to(ROOT)) for path in (ROOT / "compactor/web/page").rglob("*") if path.is_file()}
        assert {"compactor/py.typed", *deployed, *page} == others

    def test_the_wheel_has_every_compiled_module(self, wheel: Path) -> None:
        """Without a compiler they are left out in silence; a wheel that is published has them."""
        found = {
            Path(name).name.partition(".")[0] for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")
        }
        assert COMPILED == sorted(found)

    def test_the_wheel_is_named_and_licensed(self, wheel: Path) -> None:
        """`compactor` is another project on the package index; ours is `order-compactor`, under the MIT licence."""
        (entry,) = (name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".dist-info/METADATA"))
        metadata = zipfile.ZipFile(wheel).read(entry).decode()
        assert wheel.name.startswith(f"order_compactor-{__version__}-")
        for line in ("Name: order-compactor", f"Version: {__version__}", "License-Expression: MIT"):
            assert line in metadata.splitlines()
        assert entry.replace("METADATA", "licenses/compactor/LICENSE") in zipfile.ZipFile(wheel).namelist()


class TestInstalled:
    """The program in an empty environment."""

    def test_the_command_runs(self, installed: Run) -> None:
        """The command stays `compactor`."""
        assert f"compactor {__version__}\n" == installed("compactor", "--version").stdout

    def test_it_is_the_wheel_that_runs(self, installed: Run) -> None:
        """Neither this checkout nor its editable installation is seen."""
        code = "import compactor, importlib.metadata as m; print(compactor.__file__, m.version('order-compactor'))"
        path, version = installed("python", "-c", code).stdout.split()
        assert not Path(path).is_relative_to(ROOT)
        assert __version__ == version

    def test_it_compacts_the_sample(self, installed: Run, tmp_path: Path) -> None:
        """The same bytes as in this checkout."""
        from compactor import Ledger

        for place in ("theirs", "ours"):
            for log in (ROOT / "fixtures/sample").glob("team/*/events.jsonl"):
                copy = tmp_path / place / log.relative_to(ROOT / "fixtures/sample")
                copy.parent.mkdir(parents=True)
                copy.write_bytes(log.read_bytes())
        rows = [
            json.loads(line)
            for line in installed("compactor", "compact", "--json", tmp_path / "theirs").stdout.splitlines()
        ]
        assert ["alpha", "bravo", "charlie"] == [row["team_id"] for row in rows]
        for directory in (tmp_path / "ours/team").iterdir():
            with Ledger(directory) as ledger:
                ledger.compact()
            derived = {path.name: path.read_bytes() for path in directory.glob("*.jsonl")}
            assert len(derived) > 2
            theirs = (tmp_path / "theirs/team" / directory.name).glob("*.jsonl")
            assert derived == {path.name: path.read_bytes() for path in theirs}

    def test_the_compiled_modules_are_in_use(self, installed: Run) -> None:
        """They were built for this interpreter and can be loaded."""
        assert (
            "True\n"
            == installed("python", "-c", "from compactor.core.fast import IS_COMPILED; print(IS_COMPILED)").stdout
        )

    def test_the_unit_is_found(self, installed: Run, tmp_path: Path) -> None:
        """`compactor systemd` reads a file of the package."""
        assert "ExecStart=" in installed("compactor", "systemd", tmp_path).stdout


def declared(requirements: Sequence[str]) -> set[str]:
    """The normalised names of requirements, without versions, markers and our own name."""
    names = {re.split(r"[^A-Za-z0-9._-]", requirement)[0] for requirement in requirements}
    return {re.sub(r"[-_.]+", "-", name).lower() for name in names}


SHARED = ("backports", "backports.zstd", "compression")


def imported_distributions() -> dict[str, set[str]]:
    """The distributions that the package imports, inside functions too, each with the modules that import it."""
    owners = packages_distributions()
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "compactor").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for name in names:
                root = name.split(".")[0]
                if root in sys.stdlib_module_names or root == "compactor":
                    continue
                # `backports` and, from Python 3.14 on, `compression` are shared by several distributions.
                owner = "backports.zstd" if name in SHARED else owners.get(root, [root])[0]
                found.setdefault(re.sub(r"[-_.]+", "-", owner).lower(), set()).add(str(path.relative_to(ROOT)))
    return found


def test_every_import_is_declared() -> None:
    """What is imported is a dependency or in an extra, and no dependency is there for nothing."""
    extras = PROJECT["optional-dependencies"]
    required = declared(PROJECT["dependencies"])
    optional = declared(extras["proof"] + extras["tables"])
    found = imported_distributions()
    # pandas is offered and never required: whoever asks for it as a format has it.
    assert {} == {name: by for name, by in found.items() if name not in required | optional | {"pandas"}}
    # Programs hand request objects of alpaca-py to `submit`; the package reads their fields and imports nothing of it.
    # Uvicorn imports httptools for us, and zoneinfo reads tzdata where the system has no time zones.
    assert {"alpaca-py", "httptools", "tzdata"} == required - set(found)
    assert "pytest" not in required


def test_advice_names_the_packages_of_the_extras() -> None:
    """`pip install 'compactor[tables]'` was seen to replace this program with another: advice names the packages."""
    from compactor.proofs.notes import signatures_unavailable
    from compactor.tables.arrow import TABLE_PACKAGES

    extras = PROJECT["optional-dependencies"]
    assert " ".join(f"'{requirement}'" for requirement in extras["tables"]) == TABLE_PACKAGES
    assert " ".join(f"'{requirement}'" for requirement in extras["proof"]) in str(signatures_unavailable(ROOT))
    texts = [*(ROOT / "compactor").rglob("*.py"), *(ROOT / "compactor").rglob("*.md"), ROOT / "README.md"]
    assert [] == [str(path) for path in texts if re.search(r"pip install[^\n]*['\" ]compactor\b", path.read_text())]


def test_the_version_stands_in_one_place() -> None:
    """`compactor.__version__`; the build reads it from there."""
    assert "version" in PROJECT["dynamic"]
    assert "version" not in PROJECT
    code = f"import sys, compactor; assert compactor.__version__ == {__version__!r}; print(len(sys.modules))"
    assert 0 < int(run_checked([sys.executable, "-c", code], cwd=ROOT).stdout)
