"""Positions: what the account holds is what the trades add up to, or it is said why not."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from compactor.broker.alpaca.positions_held import read_adjustments, read_positions
from compactor.broker.port import BrokerError
from compactor.sync.reconciled import Reconciled
from compactor.sync.state import read_reconciled
from tests.alpaca_server import AlpacaServer
from tests.test_reconcile import START, healer, quiet_run

LIMIT: dict[str, Any] = {"type": "limit", "limit_price": "100", "team": "alpha"}


@pytest.fixture
def server() -> Iterator[AlpacaServer]:
    with AlpacaServer(seed=1, start=START, rate_limit=None, plain=True) as one:
        yield one


def kinds(done: Reconciled) -> dict[str, str]:
    return {one.symbol: one.kind for one in done.positions}


def trade(server: AlpacaServer, symbol: str = "AAPL", side: str = "buy", qty: str = "10") -> None:
    order = server.place(symbol, side, Decimal(qty), **LIMIT)
    server.fill(order.id, None, "100")


def move(server: AlpacaServer, kind: str, symbol: str, qty: str, **more: Any) -> None:
    """Something that is no fill moves a position."""
    day = "2026-03-03"
    told = {
        "id": f"20260303000000000::{len(server.account.moved)}",
        "activity_type": kind,
        "date": day,
        "symbol": symbol,
    }
    server.account.moved.append({**told, "qty": qty, "net_amount": "0", **more})


def test_positions_are_what_the_trades_add_up_to(data: Path, server: AlpacaServer) -> None:
    """Issue 16, 8: per symbol, bought less sold; a pair has no slash in the positions; a short one is negative."""
    reconciler = healer(data, server)
    quiet_run(reconciler, server)
    trade(server)
    trade(server, side="sell", qty="4")
    trade(server, "BTC/USD", qty="0.5")
    trade(server, "SPY", "sell", "3")
    done = quiet_run(reconciler, server)
    assert {"AAPL": "equal", "BTCUSD": "equal", "SPY": "equal"} == kinds(done)
    assert [("6", "6"), ("0.5", "0.5"), ("-3", "-3")] == [(one.at_broker, one.by_trades) for one in done.positions]
    assert 2 == sum("/v2/positions" in one for one in server.requests), "one request for each reconcile"


def test_the_first_run_records_an_opening_balance(data: Path, server: AlpacaServer) -> None:
    """Issue 16, 8: trades before the first event are explained by what the first run found."""
    server.account.opening = {"AAPL": Decimal(100), "SPY": Decimal(-7)}
    trade(server)
    reconciler = healer(data, server)
    assert {} == kinds(quiet_run(reconciler, server)), "it is recorded"
    trade(server, qty="5")
    done = quiet_run(reconciler, server)
    assert {"AAPL": "explained", "SPY": "explained"} == kinds(done)
    assert ("115", "15", "100") == (done.positions[0].at_broker, done.positions[0].by_trades, done.positions[0].opening)


@pytest.mark.parametrize(
    ("kind", "symbol", "qty"), [("SPLIT", "AAPL", "30"), ("OPASN", "AAPL", "-100"), ("CFEE", "BTCUSD", "-0.00125")]
)
def test_what_moved_without_a_trade_is_explained(
    data: Path, server: AlpacaServer, kind: str, symbol: str, qty: str
) -> None:
    """Issue 16, 8: a split, an exercise, a fee taken in the asset; once explained it is not asked for again."""
    reconciler = healer(data, server)
    quiet_run(reconciler, server)
    trade(server, "BTC/USD" if symbol == "BTCUSD" else symbol)
    move(server, kind, symbol, qty)
    move(server, "DIV", symbol, "10", moves=Decimal(0))
    done = quiet_run(reconciler, server)
    assert {symbol: "explained"} == kinds(done)
    assert kind == done.positions[0].detail
    asked = sum("/v2/account/activities?" in one for one in server.requests)
    assert {symbol: "explained"} == kinds(quiet_run(reconciler, server))
    assert asked == sum("/v2/account/activities?" in one for one in server.requests)
    move(server, kind, symbol, qty)
    assert {symbol: "explained"} == kinds(quiet_run(reconciler, server)), "and a second one is, too"


def test_a_position_that_nothing_explains_is_named(data: Path, server: AlpacaServer) -> None:
    """Issue 16, 8: it is a difference, stands in the state that status reads, and stays until it is put right."""
    reconciler = healer(data, server)
    quiet_run(reconciler, server)
    trade(server)
    server.account.opening = {"AAPL": Decimal(2)}
    done = quiet_run(reconciler, server)
    assert ["position_differs"] == [one.kind for one in done.problems]
    assert "account default, AAPL: found 12 at the broker, expected 10" in done.problems[0].detail
    assert ["AAPL"] == read_reconciled(data)["default"].positions_differing
    assert {"AAPL": "differs"} == kinds(quiet_run(healer(data, server), server))
    reconciler = healer(data, server)
    reconciler.record_positions()
    quiet_run(reconciler, server)
    assert {"AAPL": "explained"} == kinds(quiet_run(reconciler, server))
    assert [] == read_reconciled(data)["default"].positions_differing


def test_a_symbol_that_moved_just_now_is_compared_the_next_time(data: Path, server: AlpacaServer) -> None:
    """A fill in flight is no difference."""
    reconciler = healer(data, server)
    quiet_run(reconciler, server)
    trade(server)
    server.account.opening = {"SPY": Decimal(2)}
    assert {"SPY": "differs"} == kinds(quiet_run(reconciler, server, seconds=1))


def test_a_broker_that_does_not_tell_positions_stops_no_reconcile(data: Path, server: AlpacaServer) -> None:
    """Orders matter more: without positions they are compared all the same, and nothing is recorded."""
    server.fail_next("/v2/positions", "bad_request", 1)
    trade(server)
    reconciler = healer(data, server)
    done = quiet_run(reconciler, server)
    assert ([], 2) == (done.positions, done.events)
    assert [("positions_unread", "default")] == [(one.kind, one.account) for one in done.problems], "but it is named"
    assert "does not say what it holds: /positions: the broker answered HTTP 400" in done.problems[0].detail
    assert [] == quiet_run(reconciler, server).positions, "a run that looks back a few minutes records no opening"
    quiet_run(reconciler, server, seconds=86_400 + 60)
    assert {"AAPL": "equal"} == kinds(quiet_run(reconciler, server))


def test_a_dry_run_records_nothing(data: Path, server: AlpacaServer) -> None:
    server.account.opening = {"AAPL": Decimal(2)}
    reconciler = healer(data, server)
    server.exchange.clock.advance(30)
    reconciler.run(dry_run=True)
    assert not (data / ".compactor/positions.json").exists()


def test_what_the_broker_says_of_positions() -> None:
    """Short positions are told by a sign or by their side; what has no quantity moved nothing."""
    told = [{"symbol": "A", "qty": "3", "side": "long"}, {"symbol": "B", "qty": "2", "side": "short"}]
    told += [{"symbol": "C", "qty": "-1.5", "side": "short"}]
    assert {"A": Decimal(3), "B": Decimal(-2), "C": Decimal("-1.5")} == read_positions(told)
    with pytest.raises(BrokerError, match="expected a position with symbol and qty"):
        read_positions([{"symbol": "A"}])
    assert [] == read_adjustments([{"activity_type": "FEE", "date": "2026-03-03", "net_amount": "-1"}])
