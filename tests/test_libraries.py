"""The libraries that talk to the broker: what is used of them, and the versions that work."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from compactor.broker.alpaca.access import KNOWN, check_libraries
from compactor.broker.port import UnsupportedLibrary
from tests.conftest import ROOT

OLDEST = ["alpaca-py==0.40.0", "websockets==14.0", "requests==2.31.0", "urllib3==2.0.7"]
NEWEST = ["alpaca-py", "websockets", "requests", "urllib3"]


def test_the_libraries_that_are_installed_work() -> None:
    """What is used of them is there."""
    check_libraries()


def test_a_library_that_lacks_something_is_named_with_the_versions_that_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 16, 6: a clear error at the start, which names the versions known to work."""
    monkeypatch.delattr(connect, "process_redirect")
    with pytest.raises(UnsupportedLibrary) as caught:
        check_libraries()
    assert "websockets" in str(caught.value)
    assert KNOWN["websockets"] in str(caught.value)


def test_no_private_name_of_alpaca_py_is_used() -> None:
    """Issue 16, 6: a name of alpaca-py that is renamed stops no reconcile; the package imports nothing of it."""
    users = [
        str(path)
        for path in (ROOT / "compactor").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "alpaca")
        or (isinstance(node, ast.Import) and any(one.name.split(".")[0] == "alpaca" for one in node.names))
    ]
    assert [] == users


@pytest.mark.skipif("COMPACTOR_LIBRARIES" not in os.environ, reason="needs the network: make libraries")
@pytest.mark.parametrize("versions", [OLDEST, NEWEST], ids=["oldest", "newest"])
def test_the_oldest_and_the_newest_versions_work(tmp_path: Path, versions: list[str]) -> None:
    """Issue 16, 6: stream, requests, resends and alpaca-py's request objects, with the versions that are supported."""
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(tmp_path), *versions]
    subprocess.run(install, check=True, timeout=300)
    tests = [f"tests/test_{name}.py" for name in ("stream", "rest", "transport", "gaps", "placing", "libraries")]
    environ = {name: value for name, value in os.environ.items() if name != "COMPACTOR_LIBRARIES"}
    environ["PYTHONPATH"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
        cwd=ROOT, env=environ, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert 0 == done.returncode, done.stdout[-3000:]
