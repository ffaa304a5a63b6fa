"""Positions: what the account holds is what the trades add up to, or it is said why not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from compactor.broker.alpaca.positions_held import read_adjustments, read_positions
from compactor.broker.port import BrokerError
from compactor.sync.reconciled import Reconciled
from compactor.sync.state import read_reconciled
from tests.alpaca_server import AlpacaServer
from tests.test_gaps import hear_all
from tests.test_reconcile import START, healer, quiet_run

Write = Callable[..., Path]
Event = Callable[..., dict[str, Any]]

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


def test_an_opening_balance_counts_no_order_twice_that_moves_to_its_team_in_the_same_run(
    data: Path, server: AlpacaServer, write_log: Write, placed: Event, filled: Event
) -> None:
    """Chaos, 70518: the stream told `unassigned` of an exit, and `submit` wrote how it stood into its team's ledger."""
    numbers = {"symbol": "AAPL", "side": "buy", "quantity": "10", "order_type": "limit"}
    write_log("unassigned", filled(parent_order_id="p", recorded_at="2026-01-05T15:00:00Z", **numbers))
    write_log("alpha", placed("p"), filled(recorded_at="2026-01-05T15:00:02Z", **numbers))
    server.account.opening = {"AAPL": Decimal(10)}
    reconciler = healer(data, server)
    assert {"o1": "alpha"} == quiet_run(reconciler, server).moved
    assert {"AAPL": "equal"} == kinds(quiet_run(reconciler, server))


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


DAY_SECONDS = 86_400


def placed_and_filled(server: AlpacaServer, *quantities: str, symbol: str = "AAPL") -> tuple[str, list[str]]:
    """An order and its executions, all of it before any opening balance: the account says once what it holds."""
    order = server.place(symbol, "buy", sum(map(Decimal, quantities)), **LIMIT)
    executions = [server.fill(order.id, Decimal(qty), "100") for qty in quantities]
    return order.id, [one.id for one in executions if one is not None]


def test_an_opening_balance_hides_no_shares_that_are_known_to_be_missing(
    data: Path, server: AlpacaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bust is known of by its sum, and nobody answers for the executions yet, when the balance is recorded. In so
    busy an account they are not asked for together."""
    monkeypatch.setattr("compactor.sync.answers.WEEK_FILLED_MAX", 0)
    order_id, [busted, _] = placed_and_filled(server, "5", "4")
    server.fail_next("/v2/positions", "bad_request", 2)
    reconciler = healer(data, server)
    quiet_run(reconciler, server)
    quiet_run(reconciler, server, seconds=1200)
    server.bust(busted)
    server.poison(order_id)
    done = quiet_run(reconciler, server, DAY_SECONDS + 60)
    assert ["order_unanswered", "filled_below"] == [one.kind for one in done.problems]
    server.calm()
    assert ["trade_bust"] == [event["event"] for team in quiet_run(reconciler, server).teams for event in team.events]
    done = quiet_run(reconciler, server)
    assert ("equal", "4", "0") == (done.positions[0].kind, done.positions[0].by_trades, done.positions[0].opening)


def test_a_bust_is_found_by_the_executions_of_the_week_though_its_order_is_not_answered_for(
    data: Path, server: AlpacaServer
) -> None:
    order_id, [busted, _] = placed_and_filled(server, "5", "4")
    reconciler = healer(data, server)
    quiet_run(reconciler, server)
    server.bust(busted)
    server.poison(order_id)
    done = quiet_run(reconciler, server, DAY_SECONDS + 60)
    assert ["trade_bust"] == [event["event"] for team in done.teams for event in team.events]


def test_an_opening_balance_waits_for_an_order_that_nobody_answers_for(data: Path, server: AlpacaServer) -> None:
    """The order is in no list, since it is old and has ended; an execution of yesterday tells of it."""
    server.account.opening = {"AAPL": Decimal(100), "SPY": Decimal(7)}
    order = server.place("AAPL", "buy", Decimal(9), **LIMIT)
    server.exchange.clock.advance(9 * DAY_SECONDS)
    server.fill(order.id, None, "100")
    server.poison(order.id)
    reconciler = healer(data, server)
    assert ["order_unanswered"] == [one.kind for one in quiet_run(reconciler, server).problems]
    for seconds in (30, 1200):
        assert {"SPY": "explained"} == kinds(quiet_run(reconciler, server, seconds)), "it was not looked back a week"
    done = quiet_run(reconciler, server, 3600)
    assert (["order_unanswered"], {"SPY": "explained"}) == ([one.kind for one in done.problems], kinds(done))
    server.calm()
    done = quiet_run(reconciler, server, 3600)
    assert {"AAPL": "explained", "SPY": "explained"} == kinds(done)
    assert ("9", "100") == (done.positions[0].by_trades, done.positions[0].opening)


def test_a_symbol_that_moves_while_balances_are_recorded_gets_its_own_within_an_hour(
    data: Path, server: AlpacaServer
) -> None:
    """In a busy account something has always just happened; what moved shares before is in the balance."""
    server.account.opening = {"AAPL": Decimal(100), "SPY": Decimal(7)}
    trade(server)
    move(server, "SPLIT", "AAPL", "100")
    reconciler = healer(data, server)
    assert {} == kinds(quiet_run(reconciler, server, seconds=1))
    trade(server)
    assert {"SPY": "explained"} == kinds(quiet_run(reconciler, server, seconds=1))
    assert {"SPY": "explained"} == kinds(quiet_run(reconciler, server)), "of a week nothing was looked at since"
    done = quiet_run(reconciler, server, seconds=3600)
    assert {"AAPL": "explained", "SPY": "explained"} == kinds(done)
    assert ("20", "200") == (done.positions[0].by_trades, done.positions[0].opening)
    server.account.opening["AAPL"] += 1
    done = quiet_run(reconciler, server)
    assert {"AAPL": "differs", "SPY": "explained"} == kinds(done)


def test_what_moved_just_now_is_told_by_the_broker_s_clock(data: Path, server: AlpacaServer) -> None:
    """A minute ago by our clock is the broker's future, where that is two minutes behind. The stream told of the trade,
    and the positions do not count it yet."""
    reconciler = healer(data, server)
    quiet_run(reconciler, server)
    trade(server)
    hear_all(data, server)
    server.account.opening = {"AAPL": Decimal(-10)}
    server.gate.skew_seconds = -120
    assert {} == kinds(quiet_run(reconciler, server, seconds=60))
    server.account.opening = {}
    assert {"AAPL": "equal"} == kinds(quiet_run(reconciler, server, seconds=140))


def test_where_a_position_has_come_to_differ_the_orders_of_a_week_are_looked_at(
    data: Path, server: AlpacaServer
) -> None:
    """A bust that nobody heard, of an order that ended long ago: no list of the last minutes has it."""
    _, [busted, _] = placed_and_filled(server, "5", "4")
    reconciler = healer(data, server)
    quiet_run(reconciler, server)
    quiet_run(reconciler, server, seconds=1200)
    server.bust(busted)
    done = quiet_run(reconciler, server)
    assert ["trade_bust"] == [event["event"] for team in done.teams for event in team.events]
    assert ({"AAPL": "equal"}, []) == (kinds(done), done.problems)
    assert "4" == done.positions[0].by_trades


def test_a_difference_that_stays_is_looked_into_once(data: Path, server: AlpacaServer) -> None:
    """Nor is one that changes all the time, as that of a fee that is told at night, for more than once an hour."""
    reconciler = healer(data, server)
    quiet_run(reconciler, server)
    trade(server)
    usual = quiet_run(reconciler, server).requests
    server.account.opening = {"AAPL": Decimal(2)}
    first = quiet_run(reconciler, server)
    assert {"AAPL": "differs"} == kinds(first)
    later = [quiet_run(reconciler, server).requests for _ in range(3)]
    server.account.opening = {"AAPL": Decimal(3)}
    later += [quiet_run(reconciler, server).requests for _ in range(3)]
    assert max(later) <= usual + 1 < first.requests, "what may explain it is asked for each time"
    assert quiet_run(reconciler, server, seconds=3600).requests > max(later)


def test_a_broker_that_fails_while_a_week_is_looked_at_takes_nothing_back(data: Path, server: AlpacaServer) -> None:
    """What the first look appended is told, and the next run looks again."""
    _, [busted, _] = placed_and_filled(server, "5", "4")
    reconciler = healer(data, server)
    quiet_run(reconciler, server)
    quiet_run(reconciler, server, seconds=1200)
    server.bust(busted)
    server.place(**LIMIT)
    server.fail_next("GET /v2/orders", "slow", 2)
    server.fail_next("GET /v2/orders", "server_error", 9)
    done = quiet_run(reconciler, server)
    assert (1, {"AAPL": "differs"}) == (done.events, kinds(done))
    server.gate.scripted.clear()
    done = quiet_run(reconciler, server)
    assert (1, {"AAPL": "equal"}) == (done.events, kinds(done))


def test_an_opening_balance_hides_no_bust_of_the_time_in_which_it_waited(data: Path, server: AlpacaServer) -> None:
    """The order that was busted ended long ago, so that only a run that looks back a week finds it."""
    _, [busted, _] = placed_and_filled(server, "5", "4")
    server.fail_next("/v2/positions", "bad_request", 1)
    reconciler = healer(data, server)
    quiet_run(reconciler, server)
    server.exchange.clock.advance(DAY_SECONDS)
    trade(server)
    quiet_run(reconciler, server, seconds=1)
    server.bust(busted)
    server.exchange.clock.advance(1200)
    assert [] == quiet_run(reconciler, server).positions
    done = quiet_run(reconciler, server, 3600)
    assert ("equal", "14", "0") == (done.positions[0].kind, done.positions[0].by_trades, done.positions[0].opening)
