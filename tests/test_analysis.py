"""The worked example is run: every block of analysis.md in its order, on the sample, prints what stands below it."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.test_readme import BLOCK, commands

DOC = ROOT / "compactor/docs/analysis.md"
BLOCKS = BLOCK.findall(DOC.read_text(encoding="utf-8"))
PICTURE = "analysis.svg"


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, str, str]]]:
    """Run all blocks in one directory; for each the text, what it is said to print, and what it prints."""
    here = tmp_path_factory.mktemp("analysis")
    (here / "fixtures").symlink_to(ROOT / "fixtures")
    program = here / "bin/compactor"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m compactor "$@"\n')
    program.chmod(0o755)
    before = os.getcwd()
    os.chdir(here)
    try:
        return here, _play(here)
    finally:
        os.chdir(before)


def _play(here: Path) -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = []
    names: dict[str, Any] = {}
    for (kind, body), (after, text) in zip(BLOCKS, [*BLOCKS[1:], ("", "")], strict=True):
        if kind == "sql":
            (here / "slippage.sql").write_text(body)
        elif kind == "console":
            found += [(command, "\n".join(expected), _shell(here, command)) for command, expected in commands(body)]
        elif kind == "python":
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile(body, DOC, "exec"), names)
            found.append((body, text if after == "text" else "", output.getvalue()))
    return found


def _shell(here: Path, command: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COMPACTOR")}
    environment |= {"PATH": f"{here}/bin:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    output: str = subprocess.run(["bash", "-c", command], cwd=here, env=environment, text=True, **streams).stdout
    return output


def test_every_block_prints_what_stands_below_it(played: tuple[Path, list[tuple[str, str, str]]]) -> None:
    """Fills per symbol and day, slippage against `requested_price`, time from placement to fill."""
    _, found = played
    assert {"console", "python", "sql", "text"} == {kind for kind, _ in BLOCKS}
    for body, expected, output in found:
        assert expected.strip() == output.strip(), body


def test_the_picture_is_drawn_and_stands_in_the_docs(played: tuple[Path, list[tuple[str, str, str]]]) -> None:
    """With a picture: the one in the docs shows the same titles, symbols and points as the one that was drawn now."""
    here, _ = played
    drawn, kept = (_shown((place / PICTURE).read_text()) for place in (here, DOC.parent))
    assert drawn == kept
    assert "Slippage of each fill of a market order" in drawn[0]
    assert f"({PICTURE})" in DOC.read_text()


def _shown(svg: str) -> tuple[list[str], int]:
    """The words of a picture, and how many points it has: what does not depend on the version of matplotlib."""
    words = [word for word in re.findall(r"<text[^>]*>([^<]*)</text>", svg) if re.search("[A-Za-z]{2}", word)]
    return words, len(re.findall(r"<use ", svg)) // 10
