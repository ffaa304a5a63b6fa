"""The tracker and the broker: placed, shown, followed and reconciled, through a local Alpaca."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from compactor import (
    BadCredentials,
    BlockingTracker,
    EndedOrder,
    Ledger,
    NotFound,
    OrderTracker,
    PendingOrder,
    Refused,
    RejectedEvents,
)
from compactor.books.turns import compact_in_turn
from compactor.daemon.health import Health
from compactor.daemon.presence import acquire
from compactor.sync.reconcile import QUIET_SECONDS
from tests.alpaca_server import AlpacaServer
from tests.conftest import ROOT
from tests.test_order_tracker import until

LIMIT = {"symbol": "SPY", "qty": "2", "side": "buy", "type": "limit", "limit_price": "529.98", "time_in_force": "day"}


@pytest.fixture
def server() -> Iterator[AlpacaServer]:
    with AlpacaServer(seed=3, rate_limit=None) as one:
        yield one


def tracker_of(data: Path, server: AlpacaServer, **options: Any) -> OrderTracker:
    return OrderTracker(data, environ={**os.environ, **server.environment}, **options)


def test_an_order_is_pending_when_submit_returns(data: Path, server: AlpacaServer) -> None:
    """Issue 14: durable, and among the pending, before it returns; with the alpaca-py request that was asked for."""
    from alpaca.trading.enums import OrderSide, TimeInForce
    from alpaca.trading.requests import LimitOrderRequest

    async def run() -> None:
        async with tracker_of(data, server) as tracker:
            request = LimitOrderRequest(
                symbol="AAPL", qty=3, side=OrderSide.BUY, time_in_force=TimeInForce.GTC, limit_price=181.5
            )
            order = await tracker.submit("alpha", request, tags=["pairs"], note="spread above 2")
            assert isinstance(order, PendingOrder) and tracker.pending_orders[order.order_id] == order
            assert (Decimal(3), Decimal("181.5"), "alpha") == (order.quantity, order.limit_price, order.team_id)
            assert [] == tracker.intents("alpha")
            assert "submitted" == await tracker.read_origin(order.order_id)

            other = await tracker.replace(order.order_id, limit_price="182.00")
            assert Decimal("182.00") == other.limit_price
            assert [other.order_id] == [one.order_id for one in tracker.pending("alpha")]
            canceled = await tracker.cancel(other.order_id)
            assert isinstance(canceled, EndedOrder) and "canceled" == canceled.status
            assert {} == dict(tracker.pending_orders)

    asyncio.run(run())


def test_many_orders_at_once_are_each_placed_once(data: Path, server: AlpacaServer) -> None:
    """Issue 14: a task group places orders side by side."""

    async def run() -> None:
        async with tracker_of(data, server) as tracker:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(tracker.submit("alpha", LIMIT)) for _ in range(12)]
            assert {task.result().order_id for task in tasks} == set(tracker.pending_orders)
            assert set(server.truth().orders) == set(tracker.pending_orders)

    asyncio.run(run())


def test_a_refusal_says_why_and_is_in_the_history(data: Path, server: AlpacaServer) -> None:
    """Issue 14: errors have status, code and what to do; the audit has what was asked and what was refused."""

    async def run() -> None:
        async with tracker_of(data, server) as tracker:
            with pytest.raises(Refused, match="qty must be > 0") as caught:
                await tracker.submit("alpha", {**LIMIT, "qty": "0"})
            assert caught.value.status in (403, 422) and caught.value.what_to_do
            assert ([], {}) == (tracker.intents("alpha"), dict(tracker.pending_orders))
            with pytest.raises(NotFound):
                await tracker.cancel("00000000-0000-0000-0000-000000000000")
            server.account.secret = "changed"
            with pytest.raises(BadCredentials) as refused:
                await tracker.submit("alpha", LIMIT)
            assert 401 == refused.value.status or refused.value.status == 403

    asyncio.run(run())


def test_a_cancelled_submit_goes_on_and_shows_up(data: Path, server: AlpacaServer) -> None:
    """Issue 14: cancellation is safe: what was asked for cannot be taken back by not waiting."""

    async def run() -> None:
        async with tracker_of(data, server) as tracker:
            server.faults.slow, server.faults.slow_seconds = 1.0, 0.5
            task = asyncio.ensure_future(tracker.submit("alpha", LIMIT))
            await until(lambda: bool(tracker.intents("alpha")))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: len(tracker.pending_orders) == 1)
            assert list(server.truth().orders) == list(tracker.pending_orders)
            await until(lambda: not tracker.intents("alpha"))

    asyncio.run(run())


def test_a_status_that_a_program_knows_is_written_down(data: Path, server: AlpacaServer) -> None:
    """Issue 14: `update_order_status` of the original: the shares become an inferred trade, the order ends."""

    async def run() -> None:
        async with tracker_of(data, server) as tracker:
            order = await tracker.submit("alpha", LIMIT)
            done = await tracker.update_order_status(
                order.order_id, "filled", filled_qty="2", filled_avg_price=Decimal("529.90")
            )
            assert isinstance(done, EndedOrder) and "filled" == done.status
            assert [(Decimal(2), Decimal("529.9"))] == [
                (one.quantity, one.execution_price) for one in tracker.trades("alpha")
            ]
            with pytest.raises(NotFound, match="Reconcile first"):
                await tracker.update_order_status("nobody's", "filled")
            with pytest.raises(RejectedEvents):
                await tracker.update_order_status(order.order_id, "filled", filled_qty="many")

    asyncio.run(run())


def test_a_reconcile_adopts_what_nobody_here_submitted(data: Path, server: AlpacaServer) -> None:
    """Issue 14: `reconcile_with_broker` of the original; what it appended is shown when it returns."""

    async def run() -> None:
        async with tracker_of(data, server) as tracker:
            mine = await tracker.submit("alpha", LIMIT)
            server.fill(mine.order_id, 1, "529.90")
            theirs = server.place(team="bravo", type="limit", limit_price="10")
            await asyncio.sleep(QUIET_SECONDS + 1)
            done = await tracker.reconcile_with_broker()
            assert ["alpha", "bravo"] == sorted(one.team_id for one in done.teams if one.events)
            assert ({}, []) == (done.errors, done.waiting)
            assert {mine.order_id, theirs.id} == set(tracker.pending_orders)
            assert [Decimal(1)] == [one.quantity for one in tracker.trades("alpha")]
            assert "adopted" == await tracker.read_origin(theirs.id)
            server.account.secret = "changed"
            with pytest.raises(BadCredentials) as refused:
                await tracker.reconcile_with_broker()
            assert refused.value.status in (401, 403)

    asyncio.run(run())


def test_alone_it_keeps_the_derived_files_current(data: Path, server: AlpacaServer) -> None:
    """Issue 14: without a daemon the derived files follow, and the lock is free between two passes; beside a daemon it
    leaves them to that one."""

    async def run() -> None:
        ledger = data / "team/alpha"
        async with tracker_of(data, server) as tracker:
            order = await tracker.submit("alpha", LIMIT)
            await until(lambda: (ledger / "pending_orders.jsonl").exists())
            assert (ledger / "pending_orders.jsonl").read_bytes() == tracker.encode_pending("alpha")
            with Ledger(ledger) as one:
                await asyncio.to_thread(compact_in_turn, one)
            presence = await asyncio.to_thread(acquire, data)
            try:
                presence.publish(Health())
                await tracker.cancel(order.order_id)
                await asyncio.sleep(1.5)
                assert (ledger / "pending_orders.jsonl").exists()
            finally:
                presence.close()

    asyncio.run(run())


def test_run_keeps_the_ledgers_current_with_the_broker(data: Path, server: AlpacaServer) -> None:
    """Issue 14: stream, gaps, reconcile and watching as one task, in a child process that ends with it."""

    async def run() -> None:
        async with tracker_of(data, server) as tracker:
            running = asyncio.ensure_future(tracker.run(reconcile_every=10))
            order = await tracker.submit("alpha", LIMIT)
            await until(lambda: tracker.status("alpha").is_daemon_running)
            await until(lambda: any(one.connected for one in tracker.status("alpha").accounts))
            server.fill(order.order_id, 2, "529.90")
            await until(lambda: bool(tracker.trades("alpha")))
            assert isinstance(tracker.order(order.order_id), EndedOrder)
            running.cancel()
            await asyncio.wait([running])
            assert not tracker.status("alpha").is_daemon_running

    asyncio.run(run())


def test_run_says_that_there_are_no_keys(data: Path) -> None:
    """Issue 14: what a restart cannot mend is an error at once."""

    async def run() -> None:
        keys = ("APCA_", "ALPACA_")
        environ = {name: value for name, value in os.environ.items() if not name.startswith(keys)}
        async with OrderTracker(data, environ=environ) as tracker:
            with pytest.raises(BadCredentials, match="standard error"):
                await tracker.run()

    asyncio.run(run())


ORPHAN = """
import asyncio, sys
from compactor import OrderTracker
async def main():
    async with OrderTracker(sys.argv[1]) as tracker:
        running = asyncio.ensure_future(tracker.run())
        while not tracker.status("alpha").is_daemon_running:
            await asyncio.sleep(0.01)
        print("running", flush=True)
        await running
asyncio.run(main())
"""


def test_its_child_ends_with_it_even_if_it_is_killed(data: Path, server: AlpacaServer) -> None:
    """Issue 14: kill -9 leaves no daemon behind that nobody started."""
    environ = {**os.environ, **server.environment}
    program = subprocess.Popen(
        [sys.executable, "-c", ORPHAN, str(data)], cwd=ROOT, env=environ, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert program.stdout is not None
    assert b"running\n" == program.stdout.readline()
    program.send_signal(signal.SIGKILL)
    program.wait()
    program.stdout.close()
    until_ = time.monotonic() + 20
    while True:
        try:
            acquire(data).close()
            return
        except Exception:
            assert time.monotonic() < until_
            time.sleep(0.05)


def test_the_same_for_scripts(data: Path, server: AlpacaServer) -> None:
    """Issue 14: a synchronous face of the same class."""
    tracker = OrderTracker.blocking(data, environ={**os.environ, **server.environment}, compact=False)
    assert isinstance(tracker, BlockingTracker)
    with tracker:
        order = tracker.submit("alpha", LIMIT, note="by hand")
        assert [order] == tracker.pending("alpha") == list(tracker.pending_orders.values())
        changes = tracker.changes("alpha", after=0)
        assert order.order_id == next(changes).order_id
        changes.close()
        assert b'"order_id":"' + order.order_id.encode() in tracker.encode_pending("alpha")
        assert "submitted" == tracker.read_origin(order.order_id)
        assert (["alpha"], [], []) == (tracker.teams(), tracker.trades("alpha"), tracker.findings("alpha"))
        tracker.cancel(order.order_id)
        ended = tracker.order(order.order_id)
        assert isinstance(ended, EndedOrder)
        assert 0 == tracker.cleanup_old_orders()
        assert tracker.offset("alpha") == tracker.status("alpha").offset


def test_terms_that_are_none_are_refused_before_anybody_is_asked(data: Path, server: AlpacaServer) -> None:
    """A price that is no number, and one text where a list of tags is expected, leave no intent and no order."""
    with OrderTracker.blocking(data, environ={**os.environ, **server.environment}, compact=False) as tracker:
        with pytest.raises(Refused, match="found nan among the terms"):
            tracker.submit("alpha", {**LIMIT, "limit_price": float("nan")})
        with pytest.raises(TypeError, match=r"a single one is \['demo'\]"):
            tracker.submit("alpha", LIMIT, tags="demo")
        assert ([], {}) == (tracker.teams(), server.exchange.orders)
