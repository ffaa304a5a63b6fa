"""The truth comes out in whatever order the broker's messages arrive, by whatever channel, and however often."""

from __future__ import annotations

import itertools
import random
from decimal import Decimal
from typing import Any

import pytest

from tests.arrivals import Life, Message, Outcome, activity, derive, execution, filled, order, revision, update
from tests.lives import MIXES, find_faults, live

BRACKET: dict[str, Any] = {"order_class": "bracket"}
SPREAD: dict[str, Any] = {"symbol": "", "side": "", "order_class": "mleg", "qty": "4"}
NEW = update("new", "14:30:01Z", order())
FOUR = execution("14:31:00Z", filled("4", "10", "14:31:00Z"), "4", "10", "x-1")
TEN = execution("14:31:00Z", filled("10", "10", "14:31:00Z", "filled"), "10", "10", "x-1")


def leg(name: str, at: str = "14:30:00Z", **fields: Any) -> Message:
    return order(name, at, **{**BRACKET, "side": "sell", **fields})


def leg_of_spread(name: str, symbol: str, **fields: Any) -> Message:
    return order(name, **{"symbol": symbol, "order_class": "mleg", "qty": "4", "type": "", **fields})


def ahead_of_its_fill(second_price: str, average: str) -> list[Message]:
    """Two fills of five, whose order is filled already beside the first, and their activities."""
    whole = filled("10", average, "14:31:00Z", "filled")
    return [
        update("partial_fill", "14:31:00Z", whole, execution_id="x-1", qty="5", price="10"),
        execution("14:31:00Z", whole, "5", second_price, "x-2"),
        activity("14:31:00Z", "5", "10", "5"),
        activity("14:31:00Z", "5", second_price, "10", "fill"),
    ]


# The name of each case, its messages in their natural order, what is filled by order, and which orders are live.
CASES: dict[str, tuple[list[Message], dict[str, str], set[str]]] = {
    "a reverse split makes an order smaller, then it fills": (
        [
            NEW,
            order(qty="1", limit_price="100.00", at="15:00:00Z"),
            execution("15:10:00Z", filled("1", "99", "15:10:00Z", "filled", qty="1"), "1", "99", "x-1"),
        ],
        {"o-1": "1"},
        set(),
    ),
    "a split in the middle of an order": (
        [
            NEW,
            FOUR,
            filled("4", "10", "15:00:00Z", qty="100", limit_price="1.00"),
            execution("15:10:00Z", filled("50", "1.72", "15:10:00Z", qty="100"), "46", "1", "x-2"),
        ],
        {"o-1": "50"},
        {"o-1"},
    ),
    "a notional order whose quantity is what is filled so far": (
        [
            update("new", "14:30:01Z", order(qty=None, notional="100")),
            execution("14:31:00Z", filled("3.5", "10", "14:31:00Z", qty="3.5", notional="100"), "3.5", "10", "x-1"),
        ],
        {"o-1": "3.5"},
        {"o-1"},
    ),
    "a notional order fills": (
        [
            execution("14:31:00Z", filled("3.5", "10", "14:31:00Z", qty=None, notional="100"), "3.5", "10", "x-1"),
            update(
                "fill",
                "14:32:00Z",
                filled("9.9", "10.1", "14:32:00Z", "filled", qty=None, notional="100"),
                execution_id="x-2",
                price="10.1",
                qty="6.4",
            ),
        ],
        {"o-1": "9.9"},
        set(),
    ),
    "a fill wins over a cancel": (
        [
            FOUR,
            update("pending_cancel", "14:32:00Z", filled("4", "10", "14:32:00Z", "pending_cancel")),
            execution("14:32:00Z", filled("10", "10", "14:32:00Z", "filled"), "6", "10", "x-2"),
            update("order_cancel_rejected", "14:32:01Z", filled("10", "10", "14:32:01Z", "filled")),
        ],
        {"o-1": "10"},
        set(),
    ),
    "a fill and a cancel of one instant": (
        [
            NEW,
            update("canceled", "14:31:00Z", filled("4", "10", "14:31:00Z", "canceled")),
            execution("14:31:00Z", filled("4", "10", "14:31:00Z", "canceled"), "4", "10", "x-1"),
        ],
        {"o-1": "4"},
        set(),
    ),
    "done for the day, filled the next morning": (
        [
            NEW,
            update("done_for_day", "21:00:00Z", order(status="done_for_day", at="21:00:00Z")),
            execution("22:00:00Z", filled("4", "10", "22:00:00Z"), "4", "10", "x-1"),
        ],
        {"o-1": "4"},
        {"o-1"},
    ),
    "a part is filled, then the order expires": (
        [FOUR, update("expired", "21:15:00Z", filled("4", "10", "21:15:00Z", "expired"))],
        {"o-1": "4"},
        set(),
    ),
    "a replacement loses to a fill": (
        [
            update("pending_replace", "14:30:02Z", order(status="pending_replace", at="14:30:02Z")),
            update("pending_new", "14:30:02Z", order("o-2", status="pending_new", replaces="o-1", at="14:30:02Z")),
            TEN,
            update("order_replace_rejected", "14:31:01Z", filled("10", "10", "14:31:00Z", "filled")),
            update("rejected", "14:31:01Z", order("o-2", status="rejected", replaces="o-1", at="14:31:01Z")),
        ],
        {"o-1": "10"},
        set(),
    ),
    "a replacement is rejected and the order stays": (
        [
            update("pending_replace", "14:30:02Z", order(status="pending_replace", at="14:30:02Z")),
            update("order_replace_rejected", "14:30:03Z", order(at="14:30:03Z")),
            update("rejected", "14:30:03Z", order("o-2", status="rejected", replaces="o-1", at="14:30:03Z")),
        ],
        {},
        {"o-1"},
    ),
    "a part is filled, the rest is replaced": (
        [
            FOUR,
            update("replaced", "14:32:00Z", filled("4", "10", "14:32:00Z", "replaced", replaced_by="o-2")),
            update("new", "14:32:00Z", order("o-2", qty="6", replaces="o-1", at="14:32:00Z")),
            execution("14:33:00Z", filled("6", "10", "14:33:00Z", "filled", "o-2", qty="6"), "6", "10", "x-2"),
        ],
        {"o-1": "4", "o-2": "6"},
        set(),
    ),
    "a chain of replacements in a list, newest first": (
        [
            order("o-3", replaces="o-2", at="14:33:00Z"),
            order("o-2", replaces="o-1", replaced_by="o-3", status="replaced", at="14:33:00Z"),
            order("o-1", replaced_by="o-2", status="replaced", at="14:32:00Z"),
        ],
        {},
        {"o-3"},
    ),
    "a stop is triggered by becoming another order": (
        [
            update("new", "14:30:01Z", order(type="stop", stop_price="9", limit_price=None)),
            update("replaced", "14:31:00Z", order(type="stop", status="replaced", replaced_by="o-2", at="14:31:00Z")),
            execution("14:31:01Z", filled("10", "9", "14:31:01Z", "filled", "o-2", replaces="o-1"), "10", "9", "x-1"),
        ],
        {"o-2": "10"},
        set(),
    ),
    "a bracket told nested only": (
        [
            filled(
                "10", "10", "14:31:00Z", "filled",
                legs=[leg("l-1", "14:31:00Z"), leg("l-2", status="held")], **BRACKET,
            )
        ],
        {"o-1": "10"},
        {"l-1", "l-2"},
    ),
    "a bracket whose stop's cancel only the nested order tells": (
        [
            update("new", "14:30:00Z", order(**BRACKET)),
            execution("14:31:00Z", filled("10", "10", "14:31:00Z", "filled", **BRACKET), "10", "10", "x-1"),
            execution(
                "14:41:00Z",
                leg("l-1", "14:41:00Z", status="filled", filled_qty="10", filled_avg_price="11"), "10", "11", "x-2",
            ),
            filled(
                "10", "10", "14:31:00Z", "filled", **BRACKET,
                legs=[
                    leg("l-1", "14:41:00Z", status="filled", filled_qty="10", filled_avg_price="11"),
                    leg("l-2", "14:41:00Z", status="canceled"),
                ],
            ),
        ],
        {"o-1": "10", "l-1": "10"},
        set(),
    ),
    "the other side of a pair is lowered to what remains": (
        [
            order(order_class="oco", side="sell", legs=[leg("l-1", status="held")]),
            execution("14:35:00Z", filled("4", "11", "14:35:00Z", order_class="oco", side="sell"), "4", "11", "x-1"),
            leg("l-1", "14:35:01Z", qty="6", status="held"),
        ],
        {"o-1": "4"},
        {"o-1", "l-1"},
    ),
    "crypto has two spellings and trailing zeros": (
        [
            execution(
                "14:31:00Z", filled("0.040000000", "100.000", "14:31:00Z", symbol="BTC/USD", qty="0.100000000"),
                "0.040000000", "100.000", "x-1",
            ),
            activity("14:31:00Z", "0.04", "100", "0.04", symbol="BTCUSD"),
            filled("0.04", "100", "14:31:00Z", symbol="BTC/USD", qty="0.1"),
        ],
        {"o-1": "0.04"},
        {"o-1"},
    ),
    "a bust of a fill that only a sum has told": (
        [
            filled("10", "10", "14:31:00Z", "filled"),
            revision(
                "trade_bust", "14:40:00Z", filled("6", "10", "14:40:00Z", "filled"), "-4", "10", of="x-1", name="b-1"
            ),
            filled("6", "10", "14:45:00Z", "filled"),
        ],
        {"o-1": "6"},
        set(),
    ),
    "a bust of a fill that is told after it and after the sums": (
        [
            filled("10", "10", "14:32:00Z", "filled"),
            revision(
                "trade_bust", "14:40:00Z", filled("6", "10", "14:40:00Z", "filled"), "-4", "10", of="x-1", name="b-1"
            ),
            FOUR,
            execution("14:32:00Z", filled("10", "10", "14:32:00Z", "filled"), "6", "10", "x-2"),
        ],
        {"o-1": "6"},
        set(),
    ),
    "two corrections of one fill": (
        [
            TEN,
            revision(
                "trade_correct", "14:40:00Z", filled("9", "10", "14:40:00Z", "filled"), "9", "10", of="x-1", name="x-2"
            ),
            revision(
                "trade_correct", "14:50:00Z", filled("8", "10", "14:50:00Z", "filled"), "8", "10", of="x-2", name="x-3"
            ),
        ],
        {"o-1": "8"},
        set(),
    ),
    "zeros and empty texts where nothing is": (
        [
            update("new", "14:30:01Z", order(replaced_by="", legs=[]), price="0", qty="0", execution_id=""),
            update(
                "canceled", "14:31:00Z", order(status="canceled", at="14:31:00Z"), price="0", qty="0", event_id=""
            ),
        ],
        {},
        set(),
    ),
    "a spread is filled in part by its legs, then told by its sums": (
        [
            update(
                "partial_fill", "14:31:00Z",
                filled(
                    "1", "0.5", "14:31:00Z", name="m-1", **SPREAD,
                    legs=[leg_of_spread("l-1", "S1"), leg_of_spread("l-2", "S2", side="sell")],
                ),
                price="0.5", qty="1",
                legs=[
                    {"order_id": "l-1", "symbol": "S1", "side": "buy", "qty": "1", "price": "1", "execution_id": "a"},
                    {"order_id": "l-2", "symbol": "S2", "side": "sell", "qty": "1", "price": "2", "execution_id": "b"},
                ],
            ),
            filled(
                "4", "0.5", "14:35:00Z", "filled", "m-1", **SPREAD,
                legs=[
                    leg_of_spread("l-1", "S1", at="14:35:00Z", status="filled", filled_qty="4", filled_avg_price="1"),
                    leg_of_spread(
                        "l-2", "S2", at="14:35:00Z", side="sell", status="filled", filled_qty="4", filled_avg_price="2"
                    ),
                ],
            ),
        ],
        {"l-1": "4", "l-2": "4"},
        set(),
    ),
    "a spread is rejected with its legs": (
        [
            update(
                "rejected", "14:31:00Z",
                order(
                    "m-1", "14:31:00Z", status="rejected", **SPREAD,
                    legs=[leg_of_spread("l-1", "S1", status="rejected"), leg_of_spread("l-2", "S2", status="rejected")],
                ),
                reason="insufficient options buying power",
            )
        ],
        {},
        set(),
    ),
    "times with offsets and in small letters": (
        [
            update("new", "14:30:01z", order(created_at="2026-03-02t09:30:00-05:00")),
            update(
                "fill", "14:31:00z", order(status="filled", filled_qty="10", updated_at="2026-03-02T09:31:00-05:00"),
                execution_id="x-1", price="10", qty="10",
            ),
        ],
        {"o-1": "10"},
        set(),
    ),
    "JSON numbers and exponents": (
        [
            update("new", "14:30:01Z", order(qty=10, limit_price=10, filled_qty=0)),
            update(
                "fill", "14:31:00Z", order(qty="1E+1", status="filled", filled_qty="1e1", at="14:31:00Z"),
                execution_id="x-1", price="1.0E1", qty="1e1",
            ),
        ],
        {"o-1": "10"},
        set(),
    ),
    "a status that waits, then a calculated one": (
        [
            update("accepted_for_bidding", "14:30:01Z", order(status="accepted_for_bidding", at="14:30:01Z")),
            update("stopped", "14:30:02Z", order(status="stopped", at="14:30:02Z")),
            update("calculated", "14:31:00Z", filled("10", "10", "14:31:00Z", "calculated")),
        ],
        {"o-1": "10"},
        set(),
    ),
    "suspended and live again": (
        [NEW, update("suspended", "14:30:02Z", order(status="suspended", at="14:30:02Z")), order(at="14:33:00Z")],
        {},
        {"o-1"},
    ),
    "one execution by three channels, with and without ids": (
        [
            update(
                "fill", "14:31:00Z", filled("10", "10", "14:31:00Z", "filled"),
                execution_id="x-1", event_id="e-1", price="10", qty="10",
            ),
            update("fill", "14:31:00Z", filled("10", "10", "14:31:00Z", "filled"), price="10", qty="10"),
            activity("14:31:00Z", "10", "10", "10", "fill"),
            filled("10", "10", "14:31:00.1Z", "filled"),
        ],
        {"o-1": "10"},
        set(),
    ),
    "two executions alike by three channels": (
        [
            execution("14:31:00Z", filled("5", "10", "14:31:00Z"), "5", "10", "x-1"),
            execution("14:31:00Z", filled("10", "10", "14:31:00Z", "filled"), "5", "10", "x-2"),
            activity("14:31:00Z", "5", "10", "5"),
            activity("14:31:00Z", "5", "10", "10", "fill"),
            filled("10", "10", "14:31:00.1Z", "filled"),
        ],
        {"o-1": "10"},
        set(),
    ),
    "an order that is ahead of its fill, and the activities": (ahead_of_its_fill("11", "10.5"), {"o-1": "10"}, set()),
    "an order that is ahead of its fill, and the activities, all alike": (
        ahead_of_its_fill("10", "10"), {"o-1": "10"}, set(),
    ),
    "activities that tell the status of today, and the stream": (
        [
            activity("14:31:00Z", "5", "10", "5", order_status="filled"),
            activity("14:31:00Z", "5", "10", "10", "fill", order_status="filled"),
            execution("14:31:00Z", filled("5", "10", "14:31:00Z"), "5", "10", "x-1"),
            execution("14:31:00Z", filled("10", "10", "14:31:00Z", "filled"), "5", "10", "x-2"),
        ],
        {"o-1": "10"},
        set(),
    ),
    "a partial fill that is the whole, by three channels": (
        [
            update(
                "partial_fill", "14:31:00Z", filled("10", "10", "14:31:00Z", "filled"),
                execution_id="x-1", qty="10", price="10",
            ),
            activity("14:31:00Z", "10", "10", "10", "fill"),
            filled("10", "10", "14:31:00Z", "filled"),
        ],
        {"o-1": "10"},
        set(),
    ),
    "two answers of one instant": (
        [filled("5", "10", "14:31:00Z"), filled("10", "10", "14:31:00Z", "filled")],
        {"o-1": "10"},
        set(),
    ),
    "on paper a fill does not move the time of the order": (
        [order(), filled("10", "10", "14:30:00Z", "filled", filled_at="2026-03-02T14:31:00Z")],
        {"o-1": "10"},
        set(),
    ),
    "a credit has a negative price": (
        [execution("14:31:00Z", filled("10", "-0.5", "14:31:00Z", "filled", symbol="S"), "10", "-0.5", "x-1")],
        {"o-1": "10"},
        set(),
    ),
    "an entry expires with its held leg": (
        [
            order(order_class="oto", legs=[leg("l-1", status="held")]),
            update("expired", "21:00:00Z", order(order_class="oto", status="expired", at="21:00:00Z")),
            leg("l-1", "21:00:00Z", status="expired"),
        ],
        {},
        set(),
    ),
}  # fmt: skip


def _arrange(messages: list[Message]) -> list[list[Message]]:
    """All orders of arrival of a few messages, and each order with one message told twice."""
    arrangements = [list(one) for one in itertools.permutations(messages)]
    return arrangements + [[*one, one[number % len(one)]] for number, one in enumerate(arrangements)]


def test_a_sum_that_was_told_after_a_bust_is_not_the_busted_fill() -> None:
    """4.8: what a fill that is told late may explain was told before its bust."""
    bust = revision("trade_bust", "14:32:00Z", order(), "5", "10", of="x-1", name="b-1")
    late = execution("14:31:00Z", filled("5", "10", "14:31:00Z"), "5", "10", "x-1")
    sums = derive([bust, filled("5", "11", "14:33:00Z"), late]).sum_orders()
    assert Decimal(5) == sums["o-1"][0]


@pytest.mark.parametrize("name", CASES)
def test_any_order_of_arrival_gives_the_truth(name: str) -> None:
    """What is filled and what is live."""
    messages, sums, live = CASES[name]
    for arrangement in _arrange(messages):
        found = derive(arrangement)
        assert {order_id: Decimal(qty) for order_id, qty in sums.items()} == {
            order_id: qty for order_id, (qty, _) in found.sum_orders().items()
        }, arrangement
        assert live == set(found.rows), arrangement


# What is filled, what it was worth, and which orders are live, where two or three statements are needed to tell.


def partly_filled(second_price: str, average: str) -> list[Message]:
    """Two fills of five, each told with the order as it is after both, ten of twenty; and their activities."""
    told = filled("10", average, "14:31:00Z", qty="20")
    return [
        *(
            update("partial_fill", "14:31:00Z", told, execution_id=name, qty="5", price=price)
            for name, price in (("x-1", "10"), ("x-2", second_price))
        ),
        activity("14:31:00Z", "5", "10", "5"),
        activity("14:31:00Z", "5", second_price, "10"),
    ]


def bust(qty: str, remains: str, status: str = "partially_filled") -> Message:
    return revision(
        "trade_bust", "14:40:00Z", filled(remains, "10", "14:40:00Z", status), f"-{qty}", "10", of="x-1", name="b-1"
    )


def correction(qty: str, price: str, remains: str, average: str) -> Message:
    told = filled(remains, average, "14:40:00Z")
    return revision("trade_correct", "14:40:00Z", told, qty, price, of="x-1", name="k-1")


FIVE = execution("14:32:00Z", filled("9", "10", "14:32:00Z"), "5", "10", "x-2")
SIX = execution("14:32:00Z", filled("10", "10", "14:32:00Z", "filled"), "6", "10", "x-2")
BEFORE, AFTER = filled("9", "10", "14:33:00Z"), filled("5", "10", "14:45:00Z")
STATED: dict[str, tuple[list[Message], str, str, set[str]]] = {
    "an order that is ahead of its fill and still open, and the activities": (
        partly_filled("11", "10.5"), "10", "105", {"o-1"},
    ),
    "an order that is ahead of its fill and still open, all alike": (
        [*partly_filled("10", "10"), filled("10", "10", "14:31:01Z", qty="20")], "10", "100", {"o-1"},
    ),
    "a bust, and answers of before and after it": (
        [
            FOUR, SIX, filled("10", "10", "14:33:00Z", "filled"), bust("4", "6", "filled"),
            filled("6", "10", "14:45:00Z", "filled"),
        ],
        "6", "60", set(),
    ),
    "a bust of an open order, and answers of before and after it": (
        [FOUR, FIVE, BEFORE, bust("4", "5"), AFTER], "5", "50", {"o-1"},
    ),
    "a bust, and a fill after it that only an answer tells": (
        [execution("14:31:00Z", filled("5", "10", "14:31:00Z"), "5", "10", "x-1"), bust("5", "0"), AFTER],
        "5", "50", {"o-1"},
    ),
    "a bust of a fill that only answers tell": ([FIVE, BEFORE, bust("4", "5"), AFTER], "5", "50", {"o-1"}),
    "a bust, and answers that go on": (
        [FOUR, FIVE, bust("4", "5"), AFTER, filled("8", "10", "14:46:00Z")], "8", "80", {"o-1"},
    ),
    "a bust of a fill that is known by another name": (
        [bust("4", "5"), activity("14:31:00Z", "4", "10", "4"), activity("14:32:00Z", "5", "10", "9"), AFTER],
        "5", "50", {"o-1"},
    ),
    "a correction of a quantity, and answers of before and after it": (
        [FOUR, FIVE, correction("3", "10", "8", "10"), BEFORE, filled("8", "10", "14:45:00Z")], "8", "80", {"o-1"},
    ),
    "a correction of a fill that only answers tell": (
        [FIVE, correction("4", "11", "9", "10.444444"), BEFORE, filled("9", "10.444444", "14:45:00Z")],
        "9", "94", {"o-1"},
    ),
    "a correction of a fill that is known by another name": (
        [correction("4", "11", "4", "11"), activity("14:31:00Z", "4", "10", "4"), filled("4", "11", "14:45:00Z")],
        "4", "44", {"o-1"},
    ),
    "a stream without sums, and the activities": (
        [
            *(
                update("partial_fill", at, order(filled_qty=None), execution_id=name, qty="4", price="10")
                for at, name in (("14:31:00Z", "x-1"), ("14:32:00Z", "x-2"))
            ),
            activity("14:31:00Z", "4", "10", "4"), activity("14:32:00Z", "4", "10", "8"),
        ],
        "8", "80", {"o-1"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STATED)
def test_several_statements_together_give_the_truth_in_any_order(name: str) -> None:
    """4.3, 4.7, 4.9: there are as many shares as the broker counts, and they are worth what it says."""
    messages, qty, value, live_orders = STATED[name]
    for arrangement in itertools.permutations(messages):
        found = derive(arrangement)
        reached, worth = found.sum_orders()["o-1"]
        assert (Decimal(qty), live_orders) == (reached, set(found.rows)), arrangement
        assert abs(worth - Decimal(value)) < Decimal("0.0001"), arrangement


@pytest.mark.parametrize("mix", MIXES)
def test_lives_told_by_any_mix_of_channels_give_the_truth(mix: str) -> None:
    """The sums of the trades are the broker's executions, the open orders are its own, and no finding tells of what has
    not happened. `python -m tests.lives` lives more of them."""
    for seed in range(80):
        life, told = live(mix, seed)
        assert [] == find_faults(mix, life, derive(told)), f'python -m tests.lives --mix "{mix}" --life {seed}'


def test_a_fill_that_the_end_has_counted_is_not_late() -> None:
    """3.4: the whole shares of a fractional order may be stamped before its fraction, and complete it all the same."""
    fill = activity("14:31:00.000Z", "3", "10", "3.5", "fill")
    part = activity("14:31:00.002Z", "0.5", "10", "0.5")
    for arrangement in itertools.permutations([order(qty="3.5"), fill, part]):
        assert [] == [kind for kind in derive(arrangement).findings if kind != "fill_gap"]
    canceled = update("canceled", "14:32:00Z", filled("4", "10", "14:32:00Z", "canceled"))
    late = execution("14:33:00Z", filled("4", "10", "14:33:00Z", "canceled"), "4", "10", "x-1")
    assert [] == derive([canceled, late]).findings
    further = execution("14:33:00Z", filled("6", "10", "14:33:00Z", "canceled"), "2", "10", "x-2")
    assert ["late_fill"] == derive([canceled, late, further]).findings


# A revision, then an activity of before it. The activities are REST's, so that they have ids of their own.


@pytest.mark.parametrize(
    ("event", "qty", "remains"), [("trade_bust", "-10", "0"), ("trade_correct", "9", "9")], ids=["bust", "correction"]
)
def test_the_activity_of_a_fill_that_was_taken_back_is_no_further_fill(event: str, qty: str, remains: str) -> None:
    """4.3: it is older than the bust, so its cumulative quantity is that of before."""
    told = filled(remains, "10", "14:40:00Z", "filled")
    messages = [TEN, revision(event, "14:40:00Z", told, qty, "10", of="x-1", name="x-2")]
    found = derive([*messages, activity("14:31:00Z", "10", "10", "10", "fill")])
    assert Decimal(remains) == found.sum_orders().get("o-1", (Decimal(0),))[0]
    assert [] == found.findings
    # An execution of after the bust reaches the same quantity again.
    again = activity("14:50:00Z", "10", "10", "10", "fill", id="20260302::again")
    assert Decimal(remains) + 10 == derive([*messages, again]).sum_orders()["o-1"][0]


def test_an_answer_of_after_a_bust_does_not_count_the_fill_that_was_taken_back() -> None:
    """4.8: the fills are told late, and their quantities are those of before the bust."""
    told = filled("6", "10", "14:40:00Z", "filled")
    bust = revision("trade_bust", "14:40:00Z", told, "-4", "10", of="x-1", name="b-1")
    rest = execution("14:32:00Z", filled("10", "10", "14:32:00Z", "filled"), "6", "10", "x-2")
    for fills in itertools.permutations([filled("6", "10", "14:45:00Z", "filled"), FOUR, rest]):
        assert Decimal(6) == derive([bust, *fills]).sum_orders()["o-1"][0]


# Lives of orders at random, and the channels by which they are told.


def _check(life: Life, found: Outcome, told: list[Message], *, rounds: bool = False) -> None:
    """The sums and the live orders are those at the broker; values too, up to the rounding of its averages."""
    sums, expected = found.sum_orders(), life.count()
    assert {name: qty for name, (qty, _) in expected.items()} == {name: qty for name, (qty, _) in sums.items()}, told
    for name, (qty, value) in expected.items():
        assert abs(sums[name][1] - value) <= (qty * Decimal("0.00001") if rounds else 0), told
    assert {name for name in life.orders if life.is_live(name)} == set(found.rows), told


def test_a_stream_and_answers_give_the_truth_and_no_finding() -> None:
    """What is told in order; a row has the status and the terms that the broker has."""
    for seed in range(300):
        life = Life(random.Random(seed), revises=seed % 2 == 0)
        found = derive(life.tell())
        _check(life, found, life.tell())
        assert [] == found.findings
        rows = {name: (row["status"], row["quantity"]) for name, row in found.rows.items()}
        live = [name for name in life.orders if life.is_live(name)]
        assert {name: (life.orders[name].told["status"], life.orders[name].told["qty"]) for name in live} == rows


def test_frames_answers_and_activities_in_any_order_give_the_truth() -> None:
    """One execution comes by three channels, now and then twice; nothing is counted twice, and no price is inferred."""
    for seed in range(400):
        chance = random.Random(seed)
        life = Life(chance)
        told = life.tell() + life.activities
        told += chance.sample(told, len(told) // 3)
        chance.shuffle(told)
        _check(life, derive(told), told)


def test_lost_frames_are_made_up_by_a_list_of_orders_and_by_activities() -> None:
    """The list alone tells every share, at the broker's averages; the activities then tell the prices, in any order."""
    for seed in range(400):
        chance = random.Random(seed)
        life = Life(chance)
        told = [frame for frame in life.frames if chance.random() < 0.6] + life.list_orders()
        _check(life, derive(told), told, rounds=True)
        told += chance.sample(life.activities, len(life.activities))
        _check(life, derive(told), told)


def test_busts_and_corrections_in_any_order_give_the_truth() -> None:
    """They come before their fills, after them, and twice."""
    for seed in range(600):
        chance = random.Random(seed)
        life = Life(chance, revises=True)
        told = life.frames + chance.sample(life.frames, len(life.frames) // 3)
        chance.shuffle(told)
        _check(life, derive(told), told)


def test_a_fill_told_again_under_another_id_does_not_end_a_live_order() -> None:
    """3.3: two fills that both tell 1 of 2 are two trades, but the broker has never said that 2 are filled."""
    found = derive([execution("14:31:00Z", filled("1", "10", "14:31:00Z", qty="2"), "1", "10", name) for name in "ab"])
    assert (Decimal(2), {"o-1"}) == (found.sum_orders()["o-1"][0], set(found.rows))
