"""Pins what a deployment installs, with hashes: `python -m tests.constraints > constraints.txt` (`make constraints`).

pip resolves the dependencies and the extras of pyproject.toml anew; each becomes one line with its version and the
SHA-256 of the file that was found. Note: a hash is that of one file, so that the list is for this kind of machine and
this Python. `pip install --require-hashes -r constraints.txt` refuses any other file.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("proof", "tables")
HEADER = """\
# What order-compactor {version} was resolved to, for {machine} and Python {python}.
#   pip install --require-hashes -r constraints.txt
#   pip install --no-deps order_compactor-*.whl
"""


def requirements(project: dict[str, Any]) -> list[str]:
    """What pyproject.toml asks for, with the extras that people install."""
    return [*project["dependencies"], *(one for name in EXTRAS for one in project["optional-dependencies"][name])]


def resolve(wanted: Sequence[str], options: Sequence[str] = ()) -> dict[str, Any]:
    """What pip would install into an empty environment. Raises CalledProcessError; pip has said why."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.json"
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        plan = ["--dry-run", "--ignore-installed", "--only-binary", ":all:", "--report", str(report)]
        subprocess.run([*pip, *plan, *options, *wanted], stdout=sys.stderr, check=True)
        found: dict[str, Any] = json.loads(report.read_text())
    return found


def render(report: dict[str, Any], version: str) -> str:
    """The lines, sorted by name: names, versions and hashes, and nothing of where the files were found."""
    environment = report["environment"]
    machine = f"{environment['sys_platform']} {environment['platform_machine']}"
    lines = [HEADER.format(version=version, machine=machine, python=environment["python_version"])]
    rows = sorted((one["metadata"]["name"].lower().replace("_", "-"), one) for one in report["install"])
    for name, one in rows:
        digest = one["download_info"]["archive_info"]["hashes"]["sha256"]
        lines.append(f"{name}=={one['metadata']['version']} --hash=sha256:{digest}\n")
    return "".join(lines)


def main() -> None:
    from compactor import __version__

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    print(f"resolving for {platform.machine()}", file=sys.stderr)
    print(render(resolve(requirements(project)), __version__), end="")


if __name__ == "__main__":
    main()
