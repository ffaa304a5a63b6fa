"""What the tests share: a data directory of one's own, and short ways to say events."""

from __future__ import annotations

import json
import signal
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

# Their daemons promise times. They run one after another, also where the suite runs on several processors.
ONE_AT_A_TIME = {
    "test_watch.py",
    "test_run.py",
    "test_soak.py",
    "test_live.py",
    "test_trading.py",
    "test_tracker_docs.py",
    "test_order_tracker.py",
    "test_bench_live.py",
    "test_systemd.py",
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of a file stay together (`make test` runs groups side by side): they share what is dear to make."""
    for item in items:
        name = item.path.name
        item.add_marker(pytest.mark.xdist_group("daemons" if name in ONE_AT_A_TIME else name))


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
