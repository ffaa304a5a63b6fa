"""The suite itself: what holds for all tests, whoever starts them."""

from __future__ import annotations

import signal
import subprocess
import sys

from tests.conftest import ROOT

DAEMONS = "test_a_ledger_is_asked_for_its_age or test_a_lock_that_a_reconcile or test_it_follows_every_ledger"
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


def test_daemons_run_one_after_another_on_several_processors() -> None:
    """They promise times, in whichever file. With pytest 9.2 each test went to the next process."""
    options = ["-v", "-p", "no:cacheprovider", "-n", "2", "--dist", "loadscope", "--no-loadscope-reorder"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "tests/test_watch.py", "tests/test_order_tracker.py", "-k", DAEMONS],
        cwd=ROOT, capture_output=True, text=True, timeout=120, start_new_session=True,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if "PASSED tests/test_" in line]
    assert 3 == len(lines), done.stdout + done.stderr
    assert 1 == len({line.split()[0] for line in lines}), done.stdout
