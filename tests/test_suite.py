"""The suite itself: what holds for all tests, whoever starts them."""

from __future__ import annotations

import signal
import subprocess
import sys

from tests.conftest import ROOT

CTRL_C = "tests/test_cli.py::TestRealProgram::test_ctrl_c_ends_in_order"


def test_a_parent_that_ignores_ctrl_c_stops_no_test() -> None:
    """`nohup make test &` and many machines that run tests start everything with SIGINT ignored."""
    code = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
        f"os.execv(sys.executable, [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', {CTRL_C!r}])"
    )
    # Two minutes are a failure of this test, and would be no end without the timeout.
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, start_new_session=True
    )
    assert 0 == done.returncode, done.stdout
    assert "1 passed" in done.stdout
    assert signal.getsignal(signal.SIGINT) != signal.SIG_IGN
