"""The local Alpaca as hard as the real one: the trading day, large orders, late activities, resets, ids left out."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from alpaca.common.exceptions import APIError
from alpaca.trading.client import TradingClient

from compactor.core.instants import nanos, rfc3339
from tests.alpaca_server import AlpacaServer
from tests.alpaca_server.sessions import in_new_york, settle_date, trading_day
from tests.alpaca_server.stream import told

EVENING = "2026-03-03T00:59:00Z"
"""19:59 in New York on Monday, 2 March."""
TWAP = {"algorithm": "TWAP", "start_time": "2026-03-02T09:30:00-05:00", "end_time": "2026-03-02T16:00:00-05:00"}


@pytest.fixture
def server() -> Iterator[AlpacaServer]:
    with AlpacaServer(seed=11, start=EVENING, rate_limit=None, resend=True, plain=True) as server:
        yield server


def make_client(server: AlpacaServer) -> TradingClient:
    return TradingClient(server.key, server.secret, paper=True, raw_data=True, url_override=server.url)


def ask(client: TradingClient, method: str, path: str, data: dict[str, Any] | None = None) -> Any:
    """An answer without alpaca-py's types, which are wrong for raw data."""
    return getattr(client, method)(path, data)


def read_fills(server: AlpacaServer) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ask(make_client(server), "get", "/account/activities/FILL", {"page_size": 100})
    return found


@pytest.mark.parametrize(
    ("at", "day", "settled"),
    [
        ("2026-03-03T00:59:59.999999999Z", date(2026, 3, 2), date(2026, 3, 3)),  # 19:59:59 on Monday
        ("2026-03-03T01:00:00Z", date(2026, 3, 3), date(2026, 3, 4)),  # 20:00
        ("2026-03-07T01:00:00Z", date(2026, 3, 9), date(2026, 3, 10)),  # Friday night is Monday's
        ("2026-03-06T20:59:00Z", date(2026, 3, 6), date(2026, 3, 9)),
        ("2026-03-09T00:00:00Z", date(2026, 3, 9), date(2026, 3, 10)),  # 20:00 on Sunday, after the clocks changed
        ("2026-03-08T23:59:59Z", date(2026, 3, 9), date(2026, 3, 10)),
    ],
)
def test_from_eight_in_the_evening_on_it_is_the_next_trading_day(at: str, day: date, settled: date) -> None:
    """In New York's time, whether summer or not; weekends are no trading days."""
    assert (day, settled) == (trading_day(nanos(at)), settle_date(nanos(at)))


def test_an_evening_in_which_trading_goes_on_has_executions_of_two_days(server: AlpacaServer) -> None:
    """Ids of activities begin with New York's time, and the day on which they settle is the next trading day's."""
    order = server.place("AAPL", "buy", 10, team="alpha", type="limit", limit_price="181.50", extended_hours=True)
    server.exchange.next_evening()
    server.fill(order.id, 4)
    server.exchange.clock.advance(1)
    server.fill(order.id)
    late, early = read_fills(server)
    assert ("20260302195959", "20260302200000") == (early["id"][:14], late["id"][:14])
    _, account = next(iter(server.accounts.items()))
    entries = [
        entry
        for _, update in account.told
        if "fill" in update["event"]
        for entry in account.writer.replayed_activities(update, account.exchange.account_id)
    ]
    assert ["2026-03-03", "2026-03-04"] == [entry["settle_date"] for entry in entries]


def test_the_next_morning_is_half_past_nine_in_new_york(server: AlpacaServer) -> None:
    """Also over the night in which the clocks change."""
    server.exchange.next_day()
    assert "2026-03-03T09:30:00-05:00" == in_new_york(server.exchange.clock.now()).isoformat()
    server.exchange.clock.advance(5 * 86_400)
    server.exchange.next_day()
    assert "2026-03-09T09:30:00-04:00" == in_new_york(server.exchange.clock.now()).isoformat()


def test_an_order_of_an_algorithm_has_a_thousand_executions_on_ten_pages(server: AlpacaServer) -> None:
    """`advanced_instructions` are told as they were asked for."""
    asked = {"symbol": "SPY", "qty": "1000", "side": "buy", "type": "market", "time_in_force": "day"}
    placed = ask(make_client(server), "post", "/orders", {**asked, "advanced_instructions": TWAP})
    assert TWAP == placed["advanced_instructions"]
    for _ in range(1000):
        server.fill(placed["id"], 1)
    found: list[dict[str, Any]] = []
    while not found or found[-1]["cum_qty"] != "1":
        token = {"page_token": found[-1]["id"]} if found else {}
        page = ask(make_client(server), "get", "/account/activities/FILL", {"page_size": 100, **token})
        assert 100 == len(page)
        found += page
    assert 1000 == len({one["id"] for one in found})
    assert "filled" == ask(make_client(server), "get", f"/orders/{placed['id']}")["status"]


def test_withheld_activities_are_in_no_list_until_they_are_backfilled(server: AlpacaServer) -> None:
    """They then have their old time."""
    order = server.place("AAPL", "buy", 10, team="alpha")
    first = server.fill(order.id, 4)
    server.withhold()
    second = server.fill(order.id)
    assert first is not None and second is not None
    assert ["4"] == [one["qty"] for one in read_fills(server)]
    server.exchange.clock.advance(3600)
    server.backfill()
    late, _ = read_fills(server)
    assert ("6", rfc3339(second.at)) == (late["qty"], rfc3339(nanos(late["transaction_time"])))


def test_a_reset_account_has_other_keys_another_id_and_no_orders(server: AlpacaServer) -> None:
    """The old keys are refused, the old orders answer 404."""
    order = server.place("AAPL", "buy", 10, team="alpha")
    old_client = make_client(server)
    old_id = ask(old_client, "get", "/account")["id"]
    server.reset()
    with pytest.raises(APIError, match="not authorized"):
        ask(old_client, "get", "/account")
    client = make_client(server)
    assert old_id != ask(client, "get", "/account")["id"]
    assert [] == ask(client, "get", "/orders", {"status": "all"})
    with pytest.raises(APIError, match="order not found"):
        ask(client, "get", f"/orders/{order.id}")
    assert {order.id} == server.truth().gone and not server.truth().orders


def test_the_stream_may_leave_out_the_id_of_an_update_each_time_of_the_same_ones(server: AlpacaServer) -> None:
    """`event_id` is optional there; the resend needs it."""
    account = server.account
    account.writer.share_without_event_id = 0.5
    for _ in range(20):
        server.place("AAPL", "buy", 10, team="alpha")
    updates = [update for _, update in account.told]
    found = [[b"event_id" in frame for frame in told(update, account, server.faults)] for update in updates]
    assert {True, False} == {has for [has] in found}
    assert found == [[b"event_id" in frame for frame in told(update, account, server.faults)] for update in updates]


def test_terms_can_change_without_a_word(server: AlpacaServer) -> None:
    """After a dividend, say: the next answer has them, and no update told."""
    order = server.place("AAPL", "buy", 10, team="alpha", type="limit", limit_price="181.50", time_in_force="gtc")
    told_before = len(server.account.told)
    server.exchange.adjust(order.id, limit_price="181.23")
    assert told_before == len(server.account.told)
    assert "181.23" == ask(make_client(server), "get", f"/orders/{order.id}")["limit_price"]


def test_a_replacement_can_be_rejected_while_the_old_order_lives_on(server: AlpacaServer) -> None:
    """Without a fill in between."""
    order = server.place("AAPL", "buy", 10, team="alpha", type="limit", limit_price="181.50")
    new = server.replace(order.id, limit_price="182", rejected=True)
    assert ("new", "rejected") == (order.status, new.status)
    assert ["order_replace_rejected", "rejected"] == [update["event"] for _, update in server.account.told[-2:]]
    assert Decimal("181.50") == order.limit_price
