"""The port: a second broker with other habits, found by its entry point, ends up in the ledgers like the first."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from compactor import Ledger
from compactor.broker.adapters import GROUP, UnknownBroker, find_adapter, open_broker
from compactor.broker.budget import Budget
from compactor.broker.placing import PlacementUnknown, Trader
from compactor.broker.port import BrokerError, Refused
from tests import chaos
from tests.alpaca_server.orders import Order
from tests.chaos_brokers import BROKERS, ENTRY
from tests.conftest import ROOT
from tests.small_broker.server import SmallServer

TERMS = {**BROKERS["small"].terms, "client_order_id": "signal-7"}
MINUTE_NS = 60 * 10**9
SETTINGS = """
[accounts.small]
broker = "small"
key_variable = "SMALL_KEY"
secret_variable = "SMALL_SECRET"
"""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallServer]:
    monkeypatch.syspath_prepend(ENTRY)
    with SmallServer(7) as server:
        yield server


def trader_of(data: Path, server: SmallServer) -> Trader:
    keys = find_adapter("small").find_credentials(server.environment, names=None, live=False, url=None)
    return Trader(data, keys, budget=Budget(100_000), timeout_seconds=(1.0, 0.3), sleep=lambda seconds: None)


def order_times(order: Order) -> tuple[int, int, int]:
    return order.created_at, order.submitted_at, order.updated_at


def compactor(server: SmallServer, data: Path, *arguments: str) -> subprocess.Popen[str]:
    """The program, as a process of its own that has the adapter on its path."""
    config = data.parent / "small.toml"
    config.write_text(SETTINGS)
    environ = os.environ | server.environment | {"PYTHONPATH": f"{ENTRY}:{ROOT}", "COMPACTOR_TEAMS": "alpha"}
    command = [sys.executable, "-m", "compactor", *arguments, str(data), "--config", str(config)]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize("seed", range(8))
def test_the_law_of_chaos_holds_for_another_broker(seed: int) -> None:
    """No resend, sums instead of executions, numbers per symbol: orders and trades are the broker's all the same."""
    with tempfile.TemporaryDirectory(dir=chaos.fast_directory()) as directory:
        assert [] == chaos.run(seed, Path(directory), broker="small").broken


def test_alpaca_is_an_entry_point_as_well() -> None:
    """Adapters are found by the entry points of one group."""
    found = {one.name: one.value for one in entry_points(group=GROUP)}
    assert "compactor.broker.alpaca.adapter" == found["alpaca"]
    assert find_adapter("alpaca") is sys.modules["compactor.broker.alpaca.adapter"]


def test_a_broker_that_nobody_knows_is_named_with_those_there_are(small: SmallServer) -> None:
    """The message says what was found, what was expected, and what to do."""
    with pytest.raises(UnknownBroker, match=r"'etrade', expected one of alpaca, small\. .*brokers\.md"):
        find_adapter("etrade")


def test_a_process_reconciles_an_account_that_names_its_broker(small: SmallServer, data: Path) -> None:
    """The settings of an account name the broker, and nothing else differs."""
    order = small.exchange.place("AAPL", "buy", 10, team="alpha", type="limit", limit_price="181.50")
    small.exchange.fill(order.id, 4, "181.25")
    small.exchange.fill(order.id, 1, "181.30")
    # All of it is a minute old, so that nothing has to be waited for.
    order.created_at, order.submitted_at, order.updated_at = (one - MINUTE_NS for one in order_times(order))
    for execution in order.executions:
        execution.at -= MINUTE_NS
    process = compactor(small, data, "reconcile", "--once")
    said, _ = process.communicate(timeout=60)
    assert 0 == process.returncode, said
    with Ledger(data / "team/alpha") as ledger:
        assert [("4", "181.25"), ("1", "181.3")] == [
            (trade["quantity"], trade["execution_price"]) for trade in ledger.rows("trades")
        ]
        [row] = ledger.rows("pending_orders")
    assert (order.id, "partially_filled", "5") == (row["order_id"], row["status"], row["filled_qty"])


def test_run_writes_the_stream_of_another_broker(small: SmallServer, data: Path) -> None:
    """`compactor run` is the same program for every broker."""
    process = compactor(small, data, "run")
    try:
        deadline = time.monotonic() + 30
        while not small.feeds and time.monotonic() < deadline:
            time.sleep(0.02)
        order = small.exchange.place("AAPL", "buy", 10, team="alpha", type="limit", limit_price="181.50")
        pending = data / "team/alpha/pending_orders.jsonl"
        while time.monotonic() < deadline and not (pending.exists() and order.id in pending.read_text()):
            time.sleep(0.02)
        assert order.id in pending.read_text()
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_without_unique_ids_an_order_is_placed_once(small: SmallServer, data: Path) -> None:
    """An answer that was lost: the order is looked for, and the request is never repeated."""
    small.faults.crash_after_accept = 1.0
    trader = trader_of(data, small)
    order = trader.submit("alpha", TERMS)
    assert "alpha:signal-7" == order["ref"]
    assert order == trader.submit("alpha", TERMS)
    with pytest.raises(Refused, match="whose quantity is 3, and not 5"):
        trader.submit("alpha", {**TERMS, "quantity": "5"})
    assert 1 == len(small.exchange.orders)


def test_without_unique_ids_an_unknown_outcome_stays_unknown(small: SmallServer, data: Path) -> None:
    """The request may still be on its way, so that a second one could place the order twice."""
    trader = trader_of(data, small)
    small.faults.hang_seconds = 0.0
    real = small.faults.happens
    small.faults.happens = lambda name: (name == "hang" and "/new" in small.requests[-1]) or real(name)  # type: ignore[method-assign]
    with pytest.raises(PlacementUnknown):
        trader.submit("alpha", TERMS)
    assert 1 == len([one for one in small.requests if "/new" in one])


def test_an_answer_that_is_no_list_is_an_error(small: SmallServer, data: Path) -> None:
    """An answer of the wrong shape is an error, never an empty list."""
    keys = find_adapter("small").find_credentials(small.environment, names=None, live=False, url=None)
    account: Any = open_broker(keys, tries=1)
    with pytest.raises(BrokerError, match="expected a list"):
        account._ask("/who", list)
