"""What the tests share: a data directory of one's own, and short ways to say events."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

# `nohup make test &`, and some machines that run tests, ignore SIGINT. Every program that a test starts inherits that,
# and a test of Ctrl-C would wait for ever.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No example is a failure because the machine is busy; pytest-timeout ends one that hangs.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

MEMORY = Path("/dev/shm")
MEMORY_BYTES_MIN = 4 << 30


def has_room(directory: Path) -> bool:
    """Whether files of tests fit into a file system in memory, and programs may be run from it."""
    if not os.access(directory, os.W_OK | os.X_OK):
        return False
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize >= MEMORY_BYTES_MIN and not found.f_flag & os.ST_NOEXEC


# A sync costs nothing in memory, and the suite makes some hundred thousand of them. What they are for, a loss of power,
# is tested on `tests.disk.Disk`. `TMPDIR=/var/tmp make test` runs the tests on a disk.
if "TMPDIR" not in os.environ and has_room(MEMORY):
    os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)

# Their daemons promise times. They run one after another, also where the suite runs on several processors.
ONE_AT_A_TIME = {
    "test_watch.py",
    "test_run.py",
    "test_soak.py",
    "test_trading.py",
    "test_tracker_docs.py",
    "test_order_tracker.py",
    "test_bench_live.py",
    "test_systemd.py",
}


# What takes longest begins first, so that all processors have work to the end.
LONG = (
    "page system_calls package verify sealing laws chaos faults web web_limits http fuzz plain web_openapi reconcile "
    "full_disk fairness tables mutants readme recordings replay"
)
FIRST = ("daemons", *(f"test_{name}.py" for name in LONG.split()))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the groups as `FIRST` says."""
    if hasattr(config, "workerinput"):
        ranks = {name: rank for rank, name in enumerate(FIRST)}
        items.sort(key=lambda item: ranks.get(group_of(item.nodeid), len(ranks)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """The tests of a file stay together (`make test` runs groups side by side): they share what is dear to make. Marks
    of groups would say so as well, but pytest 9.2 does not see what pytest-xdist makes of them."""
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return GroupScheduling(config, log)


def group_of(nodeid: str) -> str:
    """The group of a test: its file."""
    name = nodeid.partition("::")[0].rpartition("/")[2]
    return "daemons" if name in ONE_AT_A_TIME else name


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An empty data directory."""
    path = tmp_path / "data"
    path.mkdir()
    return path


@pytest.fixture
def write_log(data: Path) -> Callable[..., Path]:
    """Write events, as mappings or as lines, to the log of a team of `data`; returns the ledger's directory."""

    def write(team: str, *events: dict[str, Any] | str) -> Path:
        ledger = data / "team" / team
        ledger.mkdir(parents=True, exist_ok=True)
        with open(ledger / "events.jsonl", "a") as log:
            log.writelines((event if isinstance(event, str) else json.dumps(event)) + "\n" for event in events)
        return ledger

    return write


@pytest.fixture(scope="session")
def placed() -> Callable[..., dict[str, Any]]:
    """An event that places an order to buy 10 SPY."""

    def event(order_id: str = "o1", **fields: Any) -> dict[str, Any]:
        terms = {"symbol": "SPY", "side": "buy", "quantity": "10", "order_type": "limit", "limit_price": "530.00"}
        return {"event": "new", "order_id": order_id, "ts": "2026-01-05T15:00:00Z", **terms, **fields}

    return event


@pytest.fixture(scope="session")
def filled() -> Callable[..., dict[str, Any]]:
    """An event that fills such an order whole."""

    def event(order_id: str = "o1", **fields: Any) -> dict[str, Any]:
        numbers = {"execution_id": f"x-{order_id}", "price": "529.98", "qty": "10", "filled_qty": "10"}
        return {"event": "fill", "order_id": order_id, "ts": "2026-01-05T15:00:01Z", **numbers, **fields}

    return event
