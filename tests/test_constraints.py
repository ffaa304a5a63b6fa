"""The list of pins for deployments: made by pip from a directory of wheels, and kept to by pip."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.constraints import render, requirements, resolve

OFFLINE = ("--no-index", "--no-build-isolation")


def make_wheel(directory: Path, name: str, version: str, needs: str = "", text: str = "") -> Path:
    """A wheel with one module."""
    path = directory / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + (
        f"Requires-Dist: {needs}\n" if needs else ""
    )
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", f"TEXT = {text!r}\n")
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A package that needs another, and an older version of that."""
    directory = tmp_path / "wheels"
    directory.mkdir()
    make_wheel(directory, "outer_one", "2.0", "inner>=1")
    make_wheel(directory, "inner", "1.0")
    make_wheel(directory, "inner", "1.1")
    return directory


@pytest.fixture
def pins(wheels: Path) -> str:
    return render(resolve(["outer-one"], [*OFFLINE, "--find-links", str(wheels)]), "0.0")


def install(wheels: Path, pins: str, target: Path) -> subprocess.CompletedProcess[str]:
    listed = wheels.parent / "constraints.txt"
    listed.write_text(pins)
    pip = [sys.executable, "-m", "pip", "install", "--no-index", "--find-links", str(wheels), "--target", str(target)]
    return subprocess.run([*pip, "--require-hashes", "-r", str(listed)], capture_output=True, text=True)


def test_every_package_is_pinned_with_the_digest_of_its_file(wheels: Path, pins: str) -> None:
    """What is needed indirectly too; the newest version that fits; nothing of where it was found."""
    lines = [line for line in pins.splitlines() if not line.startswith("#")]
    digests = [hashlib.sha256((wheels / f"{name}-py3-none-any.whl").read_bytes()).hexdigest()
               for name in ("inner-1.1", "outer_one-2.0")]  # fmt: skip
    assert [f"inner==1.1 --hash=sha256:{digests[0]}", f"outer-one==2.0 --hash=sha256:{digests[1]}"] == lines
    assert "/" not in pins


def test_pip_installs_these_files_and_no_others(wheels: Path, pins: str, tmp_path: Path) -> None:
    """A file that was exchanged under the same name is refused."""
    done = install(wheels, pins, tmp_path / "good")
    assert 0 == done.returncode, done.stderr
    assert (tmp_path / "good/inner.py").exists()
    make_wheel(wheels, "inner", "1.1", text="something else")
    done = install(wheels, pins, tmp_path / "bad")
    assert 0 != done.returncode
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert not (tmp_path / "bad/inner.py").exists()


def test_the_extras_that_people_install_are_in_it() -> None:
    """Dependencies, signatures and tables; nothing that only tests need."""
    wanted = requirements(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])
    assert {"msgspec", "click", "cryptography", "duckdb"} <= {one.partition(">")[0] for one in wanted}
    assert not [one for one in wanted if one.startswith(("pytest", "order-compactor", "ruff"))]
