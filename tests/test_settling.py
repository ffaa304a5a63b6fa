"""What messages say only together: fills known twice, shares that nobody counts, revisions told by numbers."""

import json
from typing import Any

import pytest

from tests.short_lives import Told, bust, live, outcome, part, placed, told

TWO, FOUR = {"filled_qty": "2"}, {"filled_qty": "4"}
REST: dict[str, Any] = {"source": "rest"}
STREAM: dict[str, Any] = {"source": "stream"}
AHEAD = {"order_status": "filled", "quantity": "5", "filled_qty": "5"}
"""What a part tells whose order is filled already."""
FIRST = part(1, 2, **TWO, **STREAM)
DOUBLES = [placed(10), part(1, 2, **STREAM), part(2, 2, execution_id="y", **REST)]
"""Two executions alike, of two sources; nothing says yet that they are one."""


def answer(minute: int, filled_qty: str, average: str | None = "5") -> Told:
    """The broker answers how much is filled, and at what average."""
    return told("snapshot", minute, filled_qty=filled_qty, filled_avg_price=average)


def correct(minute: int, name: str = "x-1", qty: str = "2", price: str = "6", **fields: Any) -> Told:
    return told("trade_correct", minute, previous_execution_id=name, price=price, qty=qty, **fields)


def total(minute: int, filled_qty: str, price: str = "5") -> Told:
    """A part is filled, told by its price and by how much is filled in all (4.4)."""
    return told("partial_fill", minute, price=price, filled_qty=filled_qty)


def bust_numbers(minute: int, name: str = "y", qty: str = "2", price: str = "5", **fields: Any) -> Told:
    """A bust of REST, by its own name of the fill and with the fill's numbers."""
    return bust(minute, name, **{"qty": qty, "price": price, **REST, **fields})


LIVES: dict[str, tuple[list[Told], str, str]] = {
    # Fills that are known twice (4.3).
    "two fills turn out to be one": ([*DOUBLES, answer(3, "2")], "2@5 2@5 -2@5", ""),
    "so do two of one share": (
        [placed(10), part(1, 1, **STREAM), part(2, 1, execution_id="y", **REST), answer(3, "1")], "1@5 1@5 -1@5", ""),
    "but not where the broker counts both": (
        [placed(10), part(1, 1, **STREAM), part(2, 1, execution_id="y", **REST), answer(3, "2")], "1@5 1@5", ""),
    "shares that were inferred are no executions": (
        [*DOUBLES, answer(3, "6"), told("accepted", 4)], "2@5 2@5 ~2@5", ""),
    "a bust may name the fill by the id of its double": (
        [*DOUBLES, answer(3, "2"), bust(4, "y")], "2@5 2@5 -2@5 -2@5", ""),
    "or by a further id of that": (
        [*DOUBLES, part(2, 2, execution_id="z", source="other", **TWO), answer(3, "2"), bust(4, "z")],
        "2@5 2@5 -2@5 -2@5", ""),
    "also where that id comes once they are one": (
        [placed(20), DOUBLES[1], part(3, 2, execution_id="y", **FOUR, **REST), part(2, 2, price="9", **STREAM),
         part(3, 2, execution_id="z", source="other", **FOUR), bust(4, "z")], "2@5 2@5 -2@5 2@9 -2@5", ""),
    "what the end of the order counts is held against them too": (
        [*DOUBLES, told("canceled", 3, **TWO)], "2@5 2@5 -2@5", ""),
    "also where that is more than one of them": (
        [*DOUBLES, told("expired", 3, filled_qty="3")], "2@5 2@5", ""),
    "further ids of other fills are theirs": (
        [*DOUBLES, part(1, 3, execution_id="a", **STREAM), part(2, 3, execution_id="b", **REST), answer(3, "5"),
         bust(4, "b")], "2@5 2@5 3@5 3@5 -3@5 -2@5 -3@5", ""),
    "each of its sources has told the fill, so that a further id is a further fill": (
        [*DOUBLES, answer(3, "2"), part(4, 2, execution_id="z", **TWO, **REST)],
        "2@5 2@5 -2@5 2@5", ""),
    # Sums of floats.
    "what floats leave of a sum is no share": (
        [placed(10), part(1, "0.1"), part(2, "0.2"), told("accepted", 3, filled_qty="0.30000000000000004"),
         answer(4, "0.30000000000000004")], "0.1@5 0.2@5", ""),
    "nor is it more than was ordered": (
        [placed(), told("restated", 1, quantity="0.3"), part(2, "0.1"), part(3, "0.20000000000000004")],
        "0.1@5 0.20000000000000004@5", ""),
    "the ninth decimal is a share": (
        [placed(10), part(1, "0.1"), answer(4, "0.100000001")], "0.1@5 ~0.000000001@5", ""),
    # More is inferred than the broker counts, since a correction has raised a fill (4.7).
    "what is too much is taken back, and the rest has the value that the broker tells": (
        [placed(10), FIRST, answer(3, "6"), correct(2, qty="3")], "2@5 ~4@5 -2@5 =3@6 -4@5 ~3@4", ""),
    "or its own price where no average tells it": (
        [placed(10), FIRST, answer(3, "6"), answer(4, "6", None), correct(2, qty="3")],
        "2@5 ~4@5 -2@5 =3@6 -4@5 ~3@5", ""),
    "or where the average is that of fewer shares": (
        [placed(10), FIRST, answer(3, "6"), part(5, 1, filled_qty="7"), correct(2, qty="3")],
        "2@5 ~4@5 1@5 -2@5 =3@6 -4@5 ~3@5", ""),
    "no more is taken back than is too much": (
        [placed(10), FIRST, answer(3, "3"), answer(4, "6"), answer(5, "6", None), correct(2, qty="3")],
        "2@5 ~1@5 ~3@5 -2@5 =3@6 -1@5", ""),
    "the smallest quantity gives way first": (
        [placed(10), FIRST, answer(3, "3"), answer(4, "6"), answer(5, "6", None), correct(2, qty="4")],
        "2@5 ~1@5 ~3@5 -2@5 =4@6 -1@5 -3@5 ~2@5", ""),
    "what a sum with a price told stays, whatever other sums were told": (
        [placed(10), FIRST, total(3, "6"), told("accepted", 4)], "2@5 ~4@5", ""),
    "a sum of before a bust tells what the bust leaves": (
        [placed(10), part(1, 2), bust(3), total(2, "6")], "2@5 -2@5 ~4@5", ""),
    "one that is more than the end has counted is late": (
        [placed(10), told("canceled", 3, filled_qty="2"), total(2, "4")], "~4@5", "fill_gap late_fill"),
    "what the broker counts stays": ([placed(10), answer(1, "2"), answer(2, "4")], "~2@5 ~2@5", ""),
    # Busts that name a fill by an id which nobody has told (4.9).
    "a bust with the numbers of a fill of another source is its": (
        [placed(10), FIRST, bust_numbers(2)], "2@5 -2@5", ""),
    "not with another price": ([placed(10), FIRST, bust_numbers(2, price="6")], "2@5", ""),
    "nor with another quantity": ([placed(10), FIRST, bust_numbers(2, qty="1")], "2@5", ""),
    "nor without a price": ([placed(10), FIRST, bust_numbers(2, price=None)], "2@5", ""),  # type: ignore[arg-type]
    "nor without a quantity": ([placed(10), FIRST, bust_numbers(2, qty=None)], "2@5", ""),  # type: ignore[arg-type]
    "nor from the source that names the fill otherwise": ([placed(10), FIRST, bust_numbers(2, **STREAM)], "2@5", ""),
    "nor where the broker counts the shares later": ([placed(10), FIRST, answer(3, "2"), bust_numbers(2)], "2@5", ""),
    "nor where nothing tells what it counts": ([placed(10), part(1, 2, **STREAM), bust_numbers(2)], "2@5", ""),
    "nor of a fill that came after the bust": (
        [placed(10), part(2, 2, **STREAM), part(3, 2, **STREAM), bust_numbers(1), answer(4, "2")],
        "2@5 2@5", "snapshot_behind"),
    "nor of one that was taken back already": (
        [placed(10), FIRST, part(2, 2, **FOUR, **STREAM), bust(3, "x-2"), bust_numbers(4)], "2@5 2@5 -2@5 -2@5", ""),
    "nor of what a correction has put there": (
        [placed(10), FIRST, correct(2, execution_id="c", source="other"), bust_numbers(3, price="6")],
        "2@5 -2@5 =2@6", ""),
    "a bust may name what a correction by such an id has made of the fill": (
        [placed(10), FIRST, correct(2, "y", execution_id="z", **REST), bust_numbers(3, "z", price="6")],
        "2@5 -2@5 =2@6 -2@6", ""),
    "but not what another bust by such an id took back": (
        [placed(10), FIRST, told("trade_bust", 2, previous_execution_id="y", execution_id="z", **REST),
         bust_numbers(3, "z", price="6")], "2@5", ""),
    # Corrections that do (4.9).
    "a correction that explains the broker's average is that fill's": (
        [placed(10), FIRST, correct(2, "y", **REST), answer(3, "2", "6")], "2@5 -2@5 =2@6", ""),
    "as far as an average is exact": (
        [placed(10), FIRST, correct(2, "y", **REST), answer(3, "2", "6.000001")], "2@5 -2@5 =2@6", ""),
    "a correction by less than that explains nothing": (
        [placed(10), FIRST, correct(2, "y", price="5.000001", **REST), answer(3, "2", "5.000001")], "2@5", ""),
    "nor does one to another value": (
        [placed(10), FIRST, correct(2, "y", price="7", **REST), answer(3, "2", "6")], "2@5", ""),
    "nor one to this value and another quantity": (
        [placed(10), FIRST, correct(2, "y", qty="1", price="12", **REST), answer(3, "2", "6")], "2@5", ""),
    "nor is it looked at without an average": (
        [placed(10), FIRST, correct(2, "y", **REST), answer(3, "2", None)], "2@5", ""),
    "nor with one of before the correction": (
        [placed(10), FIRST, answer(1, "2", "6"), correct(2, "y", **REST)], "2@5", ""),
    "nor while shares are inferred": (
        [placed(10), FIRST, answer(2, "4"), correct(3, "y", **REST), answer(4, "4", "5.5")],
        "2@5 ~2@5 -2@5 ~2@6", ""),
    "what is inferred is not written anew for what an average is rounded by": (
        [placed(10), answer(1, "2"), answer(2, "2", "5.000001")], "~2@5", ""),
    "but for more": ([placed(10), answer(1, "2"), answer(2, "2", "5.000002")], "~2@5 -2@5 ~2@5.000002", ""),
    # What is missing after a bust (4.7).
    "what a correction that waited has added is not missing": (
        [placed(10), correct(2, qty="3"), part(1, 1, filled_qty="6", filled_avg_price="5")], "1@5 -1@5 =3@6 ~5@5", ""),
    "shares that become a trade are not missing": (
        [placed(10), bust(1), part(2, 2, execution_id="x-1", filled_avg_price="5", **FOUR)], "2@5 -2@5 ~4@5", ""),
    "those that no average prices are": (
        [placed(10), bust(1), part(2, 2, execution_id="x-1", **FOUR)], "2@5 -2@5", "fill_gap"),
    "so are those of a bust that tells of more than was priced": (
        [placed(10), FIRST, answer(2, "4"), bust(3, filled_qty="8")], "2@5 ~2@5 -2@5", "fill_gap"),
    "also where nothing else was told": ([placed(10), part(1, 2), bust(3, filled_qty="8")], "2@5 -2@5", "fill_gap"),
    "the average of an order that is ahead of a busted fill prices the rest": (
        [placed(), bust(5), part(1, 2, filled_avg_price="5", **AHEAD)], "2@5 -2@5 ~3@5", ""),
    "also where its correction came after the bust": (
        [placed(), bust(5), correct(6), part(1, 2, filled_avg_price="5", **AHEAD)],
        "2@5 -2@5 ~3@5", "correct_after_bust"),
    "an average that was told with a fill that is known prices nothing yet": (
        [placed(10), part(1, 2), part(1, 2, filled_qty="6", filled_avg_price="5"), answer(2, "4", None)],
        "2@5", "fill_gap"),
    "an answer of before a correction is worth what that has changed": (
        [placed(10), part(1, 4), correct(3, qty="3"), answer(2, "6")], "4@5 -4@5 =3@6 ~2@5", ""),
    # Which inferred trades give way, and what a bust takes out of them (4.8, 4.9).
    "a fill beyond what was inferred takes of it what the broker counts less": (
        [placed(10), answer(1, "4"), part(3, 2, filled_qty="5")], "~4@5 -4@5 2@5 ~3@5", ""),
    "and nothing of further ones": (
        [placed(10), answer(1, "4"), answer(2, "8"), part(3, 2, filled_qty="9")], "~4@5 ~4@5 -4@5 2@5 ~3@5", ""),
    "without a sum it is a trade first": (
        [placed(10), answer(1, "4"), answer(5, "4", None), part(3, 2)], "~4@5 2@5 -4@5 ~2@5", ""),
    "one whose bust waits explains nothing": (
        [placed(10), answer(1, "4"), bust(4, "x-3"), part(3, 2, filled_qty="5")], "~4@5 2@5 -2@5 -4@5 ~3@5", ""),
    "by its time it explains what was told after a bust, also where more is missing": (
        [placed(10), part(1, 4, **FOUR), bust(2), answer(4, "3"), part(5, 1, filled_qty="8"),
         part(1, 2, execution_id="y", filled_qty="6")],
        "4@5 -4@5 ~3@5 1@5 -3@5 2@5 ~1@5", "fill_gap"),
    "an end that tells the quantity alone tells of nothing missing": (
        [placed(), part(1, 2, "filled", quantity="5")], "2@5", ""),
    "a bust takes nothing out of what the broker counts later": (
        [placed(10), answer(4, "8"), bust_numbers(3, qty="4")], "~8@5", ""),
    "it takes no more than its shares": (
        [placed(10), answer(1, "4"), answer(2, "8"), bust_numbers(3, qty="4")], "~4@5 ~4@5 -4@5", ""),
    "nor once more when its fill is told": (
        [placed(10), bust_numbers(3), answer(1, "4"), part(1, 2, execution_id="y", **REST)],
        "~4@5 -4@5 ~2@5 2@5 -2@5", ""),
    "be it one": ([placed(10), answer(1, "8"), bust_numbers(3, qty="1")], "~8@5 -8@5 ~7@5", ""),
    "and those that are older than the bust first": (
        [placed(20), total(4, "4", "6"), answer(1, "8"), bust_numbers(3, qty="4"),
         part(2, 4, execution_id="y", filled_qty="8")],
        "~4@6 ~4@4 -4@4 -4@6 ~4@5 4@5 -4@5", ""),
}  # fmt: skip


@pytest.mark.parametrize(("events", "trades", "findings"), LIVES.values(), ids=list(LIVES))
def test_a_life_comes_to_what_the_broker_counts(events: list[Told], trades: str, findings: str) -> None:
    """4.3, 4.7, 4.9: trades and findings, in their order."""
    assert (trades.split(), findings.split()) == outcome(events)[:2]


@pytest.mark.parametrize("events", [events for events, *_ in LIVES.values()], ids=list(LIVES))
def test_each_trade_has_an_id_of_its_own(events: list[Told]) -> None:
    """5: also where the lines of a revision that waited come to the place of lines that are there already."""
    ids = [json.loads(line)["trade_id"] for line in live(events).take_lines().trades.splitlines()]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(("before", "trades"), [(63, "~8@5 -8@5 ~4@5"), (64, "~8@5")])
def test_only_the_first_revisions_that_wait_are_looked_at(before: int, trades: str) -> None:
    """4.9: however many wait, an event takes the same time."""
    others = [bust(2, f"w-{number}") for number in range(before)]
    assert trades.split() == outcome([placed(10), answer(1, "8"), *others, bust_numbers(3, qty="4")])[0]
    found = "2@5 -2@5" if before < 64 else "2@5"
    assert found.split() == outcome([placed(10), FIRST, *others, bust_numbers(3)])[0]


def test_a_bust_takes_nothing_out_of_what_nobody_remembers_the_count_of() -> None:
    """4.9: behind so many executions without a sum, no quantity of before says what the broker counts."""
    silent = [part(2, 1, execution_id=f"o-{number}", price="9", **STREAM) for number in range(65)]
    trades, findings, _ = outcome([placed(100), answer(1, "2"), *silent, bust_numbers(3, qty="1")])
    assert (["~2@5", *["1@9"] * 65], []) == (trades, findings)


@pytest.mark.parametrize(("behind", "last"), [(63, "-2@5"), (64, "1@9")])
def test_only_the_last_fills_are_looked_at_for_a_revision(behind: int, last: str) -> None:
    others = [part(2, 1, execution_id=f"o-{n}", price="9", filled_qty=str(n + 3), **STREAM) for n in range(behind)]
    assert last == outcome([placed(100), FIRST, *others, bust_numbers(3)])[0][-1]


@pytest.mark.parametrize(("name", "kept"), [("x-1", "x-1"), (None, "y")])
def test_a_fill_known_twice_keeps_its_id_and_takes_that_of_its_double_if_it_has_none(
    name: str | None, kept: str
) -> None:
    """4.3: what is taken back later says whose trade it was."""
    events = [placed(10), part(1, 2, execution_id=name, **STREAM), *DOUBLES[2:], answer(3, "2"), bust(4, "y")]
    lines = live(events).take_lines().trades.splitlines()
    assert [name, "y", "y", kept] == [json.loads(line).get("execution_id") for line in lines]


def test_an_order_without_fills_gets_no_index_of_them() -> None:
    """There are thousands of open orders, and an index of nothing is several times what such an order is."""
    order = live([placed(filled_qty="0"), answer(1, "0", None), told("pending_cancel", 2, filled_qty="0")]).find_order(
        "o"
    )
    assert order is not None and type(order.fills) is dict
