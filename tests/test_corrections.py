"""Busts and corrections, before and after what they are about: section 4.9 of the format as a table of short lives."""

import itertools
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

from tests.short_lives import Told, bust, outcome, part, placed, told

TO = told("assigned", 2, to_team="bravo")


def answer(minute: int, filled_qty: str) -> Told:
    """The broker answers how much is filled, at 5 on average."""
    return told("snapshot", minute, filled_qty=filled_qty, filled_avg_price="5")


def correct(minute: int, name: str = "x-1", qty: str = "2", price: str = "6", **fields: Any) -> Told:
    """An execution gets another quantity, at 6."""
    return told("trade_correct", minute, previous_execution_id=name, price=price, qty=qty, **fields)


FOUR = {"qty": "4", "price": "6"}

LIVES: dict[str, tuple[list[Told], str, str, str]] = {
    # What waits for its fill.
    "a correction and a bust wait together": (
        [placed(), correct(2), bust(3), part(1, 2)], "2@5 -2@5 =2@6 -2@6", "", "partially_filled"),
    "the other way around nothing is left to correct": (
        [placed(), bust(2), correct(3), part(1, 2)], "2@5 -2@5", "correct_after_bust", "partially_filled"),
    "the same bust waits once": ([placed(), bust(2), bust(3), part(1, 2)], "2@5 -2@5", "", "partially_filled"),
    # The shares of a bust in inferred trades.
    "a correction that waits takes nothing out of them": (
        [placed(), answer(1, "4"), correct(2, "y")], "~4@5", "", "new"),
    "nor does a bust that tells no numbers": ([placed(), answer(1, "4"), bust(2, "y")], "~4@5", "", "new"),
    "one behind it does": (
        [placed(10), answer(1, "8"), bust(2, "y"), bust(3, "z", **FOUR)], "~8@5 -8@5 ~4@4", "", "new"),
    "it does so once": (
        [placed(10), answer(1, "8"), bust(3, **FOUR), told("accepted", 4)], "~8@5 -8@5 ~4@4", "", "accepted"),
    "all of them may be its shares": (
        [placed(10), answer(1, "8"), bust(3, qty="8", price="5")], "~8@5 -8@5", "", "new"),
    "what is more than they count is not": (
        [placed(10), answer(1, "8"), bust(3, qty="9", price="5")], "~8@5", "", "new"),
    "an answer from before the bust still counts them": (
        [placed(10), answer(1, "8"), bust(3, **FOUR), answer(2, "8")], "~8@5 -8@5 ~4@4", "", "new"),
    "where the order is away nothing is written": (
        [placed(10), answer(1, "8"), TO, bust(3, **FOUR)], "~8@5 -8@5", "assigned_away", "new"),
    # What was taken back.
    "the last bust decides which answers are from before": (
        [placed(10), part(1, 2, filled_qty="2"), part(3, 2, filled_qty="4"), bust(2), bust(5, "x-3"), answer(4, "2")],
        "2@5 2@5 -2@5 -2@5", "", "partially_filled"),
    "a correction under an id that another fill has leaves that alone": (
        [placed(10), part(1, 2), part(2, 2), correct(3, execution_id="x-2"), TO],
        "2@5 2@5 -2@5 =2@6 -2@5 -2@6", "", "partially_filled"),
    "a version that was told as an execution is not written again": (
        [placed(10), part(1, 2, price="6"), part(2, 2), correct(3, "x-2", execution_id="x-1")],
        "2@6 2@5 -2@5", "", "partially_filled"),
    "nor is it while the correction waits": (
        [placed(10), correct(3, "x-2", execution_id="x-1"), part(1, 2, price="6"), part(2, 2)],
        "2@6 2@5 -2@5", "", "partially_filled"),
    "a bust of either id takes it back": (
        [placed(10), part(1, 2, price="6"), part(2, 2), correct(3, "x-2", execution_id="x-1"), bust(4, "x-2")],
        "2@6 2@5 -2@5 -2@6", "", "partially_filled"),
    "and a correction of it is its next version": (
        [placed(10), part(1, 2, price="6"), part(2, 2), correct(3, "x-2", execution_id="x-1"),
         correct(4, "x-1", execution_id="x-3", price="7")],
        "2@6 2@5 -2@5 -2@6 =2@7", "", "partially_filled"),
    "which may have been told before": (
        [placed(10), part(1, 2, price="6"), part(2, 2), correct(4, "x-1", execution_id="x-3", price="7"),
         correct(3, "x-2", execution_id="x-1")],
        "2@6 2@5 -2@6 =2@7 -2@5", "", "partially_filled"),
    "what was busted stays so": (
        [placed(10), part(1, 2, price="6"), bust(4), part(2, 2), correct(3, "x-2", execution_id="x-1")],
        "2@6 -2@6 2@5 -2@5", "", "partially_filled"),
    "numbers that come back are a version of their own": (
        [placed(10), part(1, 2), correct(2, execution_id="x-2"), correct(3, "x-2", execution_id="x-1", price="5")],
        "2@5 -2@5 =2@6 -2@6 =2@5", "", "partially_filled"),
    "its shares are in the sums that its own execution told": (
        [placed(6), part(1, 2, filled_qty="2"), part(2, 4, price="6", filled_qty="4"),
         correct(3, qty="4", execution_id="x-2"), part(4, 2, filled_qty="4")],
        "2@5 4@6 -2@5 2@5", "", "partially_filled"),
    "a correction moves what was told, and tells nothing itself": (
        [placed(10), part(1, 6, filled_qty="6"), part(2, 6, filled_qty="6"), correct(3, qty="7")],
        "6@5 6@5 -6@5 =7@6", "overfill overfill", "partially_filled"),
}  # fmt: skip


@pytest.mark.parametrize(("events", "trades", "findings", "status"), LIVES.values(), ids=list(LIVES))
def test_a_life_takes_back_what_was_wrong(events: list[Told], trades: str, findings: str, status: str) -> None:
    """4.9: each execution once, in whatever order it, its bust and its correction are told."""
    assert (trades.split(), findings.split(), status) == outcome(events)


def test_a_chain_of_corrections_that_is_told_newest_first_waits_for_its_fill_however_long_it_is() -> None:
    """4.9: each waits for the version that it corrects, and all of them are done once the first fill has come."""
    count = 1500
    chain = [
        correct(2, f"x-{at}" if at > 1 else "x-1", execution_id=f"x-{at + 1}", price="6") for at in range(count, 0, -1)
    ]
    trades, findings, status = outcome([placed(10), *chain, part(1, 2)])
    assert (2 * count + 1, Decimal(2), {"6"}) == (len(trades), *sum_standing(trades))
    assert ([], "partially_filled") == (findings, status)


BEFORE = told("fill", 1, execution_id="e1", price="10", qty="10", filled_qty="10", source="stream")
AFTER = {"price": "9.5", "qty": "10", "filled_qty": "10"}
CORRECTION = told("trade_correct", 2, execution_id="b1", previous_execution_id="e1", source="stream", **AFTER)


@pytest.mark.parametrize("name", ["b1", "another", None])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_an_execution_whose_newest_version_another_source_tells_stands_once(
    order: tuple[int, ...], name: str | None
) -> None:
    """4.3, 4.9: under the id that the correction brings, under one of its own, or under none."""
    newest = told("fill", 1, execution_id=name, source="rest", **AFTER)
    trades, _, status = outcome([placed(10), *([BEFORE, CORRECTION, newest][number] for number in order)])
    assert (Decimal(10), {"9.5"}, "filled") == (*sum_standing(trades), status)


def sum_standing(trades: list[str]) -> tuple[Decimal, set[str]]:
    """The shares of trades, and the prices of those that stand."""
    standing: Counter[str] = Counter()
    for trade in trades:
        quantity, price = trade.lstrip("=~").split("@")
        standing[price] += int(quantity)
    return Decimal(standing.total()), {price for price, quantity in standing.items() if quantity}
