"""Activities of multi-leg orders: which leg an execution is put on, and what is asked of the broker for that."""

from __future__ import annotations

from typing import Any

import pytest

from compactor.broker.alpaca import leg_executions
from compactor.broker.alpaca.leg_executions import (
    EntryReader,
    LegBook,
    OrderLeg,
    find_legs,
    get_leg_key,
    move_to_leg,
    name_executions,
)
from compactor.broker.alpaca.translate import translate
from compactor.broker.port import BrokerError, BrokerUnavailable, RateLimited, Translation
from tests.scripted_alpaca import make_order

CALL, PUT = "SPY261218C00500000", "SPY261218P00500000"
UUID = "61e69015-8549-4bfd-b9c3-01e75843f47d"


def make_parent(order_id: str = "p", *, qty: str = "10", legs: str = "12") -> dict[str, Any]:
    """A spread: a call bought and a put sold, so many of each."""
    sides = ((CALL, "buy"), (PUT, "sell"))
    return {
        "id": order_id, "symbol": "", "qty": qty,
        "legs": [{"id": f"{order_id}-{side}", "symbol": symbol, "side": side, "qty": legs} for symbol, side in sides],
    }  # fmt: skip


def make_activity(order_id: str, symbol: str = CALL, side: str = "buy", **more: Any) -> dict[str, Any]:
    return {
        "activity_type": "FILL", "id": "t::e", "order_id": order_id, "symbol": symbol, "side": side, "qty": "1",
        "price": "1", "transaction_time": "2026-03-02T15:00:00Z", "type": "fill", **more,
    }  # fmt: skip


class Broker:
    """Answers for parents; `fails` says how a question for an order ends instead."""

    def __init__(self, *parents: str, fails: dict[str, BrokerError] | None = None) -> None:
        self.asked: list[str] = []
        self.fails = fails or {}
        self._parents = parents

    def find(self, order_id: str) -> Any:
        self.asked.append(order_id)
        if order_id in self.fails:
            raise self.fails[order_id]
        return make_parent(order_id) if order_id in self._parents else None


# What is asked.


def test_only_of_what_may_be_a_spread_the_legs_are_asked_for() -> None:
    """An option, or several symbols under one order: what else there is has no legs, and asking costs."""
    broker = Broker()
    book = LegBook(broker.find)
    entries = [("stock", "AAPL", "buy"), ("stock", "AAPL", "sell_short"), (None, CALL, "buy"), ("", CALL, "buy")]
    assert "" == book.prepare([*entries[:1], *entries[2:]])
    assert [] == broker.asked
    book.prepare([("option", CALL, "buy"), ("two", "AAPL", "buy"), ("two", "MSFT", "buy"), *entries])
    assert ["option", "two", "stock"] == broker.asked
    book.prepare([("option", CALL, "buy"), ("two", "MSFT", "buy")])
    assert 3 == len(broker.asked), "once is enough"


def test_an_order_that_was_read_is_not_asked_for() -> None:
    """Neither a parent nor an option that is an order of its own; odd things among the orders hide none behind them."""
    broker = Broker()
    book = LegBook(broker.find)
    book.note([7, None, "x", make_parent("p"), {"id": "own", "symbol": CALL}, {"id": "stock", "symbol": "AAPL"}])
    book.prepare([("p", CALL, "buy"), ("p", PUT, "sell"), ("own", CALL, "buy"), ("stock", "AAPL", "buy")])
    assert [] == broker.asked
    assert ["p-buy"] == [one["order_id"] for one in book.move(translate(make_activity("p"))).events]
    assert ["own"] == [one["order_id"] for one in book.move(translate(make_activity("own"))).events]
    book.prepare([("stock", "AAPL", "buy"), ("stock", CALL, "buy")])
    assert ["stock"] == broker.asked, "of a share nothing is kept: it may be one that is bought with an option"


def test_what_is_remembered_is_forgotten_beyond_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leg_executions, "LEGS_KEPT_MAX", 2)
    broker = Broker()
    book = LegBook(broker.find)
    for name in ("a", "b", "c", "a", "c", "d", "a"):
        book.prepare([(name, CALL, "buy")])
    assert ["a", "b", "c", "d", "a"] == broker.asked


def test_executions_are_left_out_while_their_legs_are_unknown() -> None:
    """On the parent they would be traded once more (rule 4.10); the next time they are asked for again."""
    broker = Broker("p", "q", fails={"p": BrokerUnavailable("HTTP 502")})
    book = LegBook(broker.find)
    entries = [("p", CALL, "buy"), ("q", CALL, "buy")]
    assert "the legs of order p are unknown: HTTP 502" == book.prepare(entries)
    assert Translation([], []) == book.move(translate(make_activity("p")))
    assert ["q-buy"] == [one["order_id"] for one in book.move(translate(make_activity("q"))).events]
    broker.fails.clear()
    assert "" == book.prepare(entries)
    assert ["p", "q", "p"] == broker.asked
    assert ["p-buy"] == [one["order_id"] for one in book.move(translate(make_activity("p"))).events]


def test_a_failure_says_nothing_of_what_comes_later() -> None:
    """Who is not among the entries is not waited for any more."""
    broker = Broker(fails={"p": BrokerUnavailable("HTTP 502")})
    book = LegBook(broker.find)
    assert book.prepare([("p", CALL, "buy")])
    assert "" == book.prepare([])
    assert ["p"] == [one["order_id"] for one in book.move(translate(make_activity("p"))).events]


def test_more_orders_without_legs_than_a_few_are_an_outage() -> None:
    """Ten may stay unknown; none of those that were not asked any more is translated either."""
    names = [f"o{number}" for number in range(13)]
    broker = Broker(fails={name: BrokerUnavailable("HTTP 502") for name in names})
    assert LegBook(broker.find).prepare([(name, CALL, "buy") for name in names[:10]]).startswith("the legs of order o0")
    broker.asked.clear()
    book = LegBook(broker.find)
    with pytest.raises(BrokerUnavailable):
        book.prepare([(name, CALL, "buy") for name in names])
    assert names[:11] == broker.asked
    assert Translation([], []) == book.move(translate(make_activity("o12")))


def test_a_rate_limit_ends_the_questions() -> None:
    broker = Broker(fails={"a": RateLimited("slow down", 5.0)})
    with pytest.raises(RateLimited):
        LegBook(broker.find).prepare([("a", CALL, "buy"), ("b", CALL, "buy")])
    assert ["a"] == broker.asked
    assert "slow down" == EntryReader(LegBook(broker.find)).prepare(
        [b'{"details":{"order_id":"a","symbol":"%s"}}' % CALL.encode()]
    )


# Where an execution goes.


def test_an_execution_that_names_a_leg_stays_there() -> None:
    """Any of the legs: what it tells of itself is kept."""
    legs = find_legs(make_parent())
    for side, symbol in (("buy", CALL), ("sell", PUT)):
        told = {"order_id": f"p-{side}", "symbol": symbol, "side": side, "filled_qty": "3", "order_status": "filled"}
        assert told == move_to_leg(told, legs)
    assert {"order_id": "x"} == move_to_leg({"order_id": "x"}, {})


def test_what_is_the_parent_s_is_not_told_of_a_leg() -> None:
    """Its status and its name; a short sale is a sale."""
    told = {
        "order_id": "p", "symbol": PUT, "side": "sell_short", "qty": "1", "price": "2", "order_status": "filled",
        "client_order_id": "alpha:1",
    }  # fmt: skip
    moved = move_to_leg(told, find_legs(make_parent()))
    kept = {"symbol": PUT, "side": "sell_short", "qty": "1", "price": "2"}
    assert {**kept, "order_id": "p-sell", "parent_order_id": "p"} == moved
    assert move_to_leg({**told, "side": "buy"}, find_legs(make_parent())) is None


@pytest.mark.parametrize("event", ["trade_bust", "trade_correct"])
def test_a_revision_tells_a_leg_how_its_parent_stands(event: str) -> None:
    """Legs end together with their parent, and a bust must not open one that nothing else has told of."""
    told = {"event": event, "order_id": "p", "symbol": CALL, "side": "buy", "order_status": "filled"}
    moved = move_to_leg(told, find_legs(make_parent()))
    assert {**told, "order_id": "p-buy", "parent_order_id": "p"} == moved


@pytest.mark.parametrize(
    ("filled", "leaves", "own", "parent", "told"),
    [
        ("3", "2", "5", "10", "3"),
        ("3", "7", "20", "10", "6"),
        ("1", "0", "2", "1", "2"),
        ("1", "0", "2", "1.0", "2"),
        ("3", "7", "15", "10", None),
        ("0", "0", "5", "0", None),
        ("3", "2", "20", "10", None),
        ("3", None, "5", "10", None),
        ("3", "x", "5", "10", None),
        ("3", "7", "20", None, None),
        (None, "2", "5", "10", None),
    ],
)
@pytest.mark.parametrize("is_entry", [True, False])
def test_a_cumulative_quantity_is_the_leg_s_or_its_share_of_the_parent_s(
    filled: Any, leaves: Any, own: Any, parent: Any, told: str | None, is_entry: bool
) -> None:
    """What is filled and what is left are an order's quantity together; where neither fits, it is not told."""
    numbers = {} if leaves is None else {"leaves_qty": leaves}
    raw = {"details": numbers} if is_entry else {**numbers, "details": None}
    execution = {"order_id": "p", "symbol": CALL, "side": "buy", "raw": raw, "filled_qty": filled}
    moved = move_to_leg(execution, {(CALL, "buy"): OrderLeg("l", own, parent)})
    assert moved is not None
    assert told == moved.get("filled_qty")


@pytest.mark.parametrize(("quantity", "told"), [("10", None), ("5", "5")])
def test_an_execution_without_its_message_tells_a_sum_only_where_parent_and_leg_count_the_same(
    quantity: str, told: str | None
) -> None:
    execution = {"order_id": "p", "symbol": CALL, "side": "buy", "filled_qty": "5", "raw": b"{}"}
    moved = move_to_leg(execution, {(CALL, "buy"): OrderLeg("l", quantity, "5")})
    assert moved is not None
    assert told == moved.get("filled_qty")


@pytest.mark.parametrize(
    ("symbol", "side", "key"),
    [("A", "buy", ("A", "buy")), ("A", "sell_short", ("A", "sell")), (None, None, ("", "")), ("A", "", ("A", ""))],
)
def test_symbol_and_side_tell_the_legs_of_an_order(symbol: Any, side: Any, key: tuple[str, str]) -> None:
    assert key == get_leg_key(symbol, side)


# Entries and ids.


def test_an_entry_in_the_format_of_the_stream_is_read_whole() -> None:
    """An update of a bracket tells of its legs as well; it is no activity, and is not put elsewhere."""
    legs = [make_order("tp", side="sell"), make_order("sl", side="sell", status="held")]
    update = {"event": "new", "timestamp": "2026-03-02T15:00:00Z", "order": make_order("b", legs=legs)}
    found = EntryReader(LegBook(Broker().find)).read(update)
    assert ["b", "tp", "sl"] == [event["order_id"] for event in found.events]


@pytest.mark.parametrize("message", [7, None, "activity_type", [], [7], {}])
def test_an_entry_that_is_none_is_no_event(message: Any) -> None:
    found = EntryReader(LegBook(Broker().find)).read(message)
    assert ([], 0 if message == [] else 1) == (found.events, len(found.problems))


def test_an_entry_about_money_tells_nothing() -> None:
    reader = EntryReader(LegBook(Broker().find))
    assert Translation([], []) == reader.read({"activity_type": "DIV", "details": {}})
    assert Translation([], []) == reader.translate(b'{"activity_type":"DIV"}')


def test_an_execution_is_called_as_the_stream_calls_it_where_that_is_sure() -> None:
    """The part behind `::` of a REST id, if it is a UUID and no other one has it."""
    other = UUID.replace("6", "7")
    ids = [f"20260302::{UUID}", f"1::{other}", f"2::{other}", "3::not-a-uuid", UUID, f"4::{UUID[:-1]}A", f"5::x{UUID}"]
    fills = [{"execution_id": one} for one in ids]
    assert [UUID, *ids[1:]] == [fill["execution_id"] for fill in name_executions(fills)]
