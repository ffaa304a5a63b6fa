"""What the index of fills finds among those that are alike, and what it keeps of the sums that they told (4.3)."""

from decimal import Decimal
from typing import Any

import pytest

from compactor.core.fill_index import NAMELESS, Fill, IndexedFills
from compactor.core.instants import nanos

ONE, TWO = Decimal(1), ("1", "2")


def ts(minute: int) -> str:
    return f"2026-03-02T{10 + minute // 60}:{minute % 60:02}:00Z"


def index(*fills: tuple[Any, ...]) -> IndexedFills:
    """Fills of one share at 2, each told by its key, its minute, its source and further fields."""
    found = IndexedFills({})
    for key, minute, source, *more in fills:
        fields = {"qty": "1", "price": "2", "filled_qty": None, "execution_id": key, **(more[0] if more else {})}
        found.add(key, Fill(ts=ts(minute), source=source, trade_id="t", **fields))
    return found


def total(filled_qty: str) -> dict[str, str]:
    return {"filled_qty": filled_qty}


VERSION = {"remembered": False}
NO_NAME = {"execution_id": None}


def again(fills: IndexedFills) -> IndexedFills:
    """The index that is built of what a checkpoint stores."""
    return IndexedFills(dict(fills))


def test_of_fills_alike_one_of_the_same_instant_comes_first_and_one_that_was_taken_back_last() -> None:
    fills = index(("a", 1, "s"), ("b", 2, "s"))
    assert ["a", "b", "a"] == [fills.find_alike(*TWO, "r", ts(at), dead=False) for at in (1, 2, 3)]
    fills.retract("a")
    assert ["b", "b", "b"] == [fills.find_alike(*TWO, "r", ts(at), dead=False) for at in (1, 2, 3)]
    assert ["a", "b", "b"] == [fills.find_alike(*TWO, "r", ts(at), dead=True) for at in (1, 2, 3)]


def test_a_source_finds_no_fill_that_it_has_told_itself() -> None:
    fills = index(("a", 1, "s"), ("b", 1, "r"), ("c", 1, "s"), ("d", 1, "s", NO_NAME))
    assert ["b", "a"] == [fills.find_alike(*TWO, source, ts(9), dead=False) for source in ("s", "r")]
    fills["b"].told = ("s",)
    assert fills.find_alike(*TWO, "s", ts(9), dead=False) is None
    fills = index(("a", 1, "r", {**NO_NAME, "told": ("s",)}))
    assert [None, "a"] == [fills.find_alike(*TWO, source, ts(9), dead=False) for source in ("s", "q")]
    fills = index(("a", 1, "s", total("1")), ("b", 1, "r", total("1")))
    assert ["b", "a"] == [fills.find_untold("1", *TWO, source) for source in ("s", "r")]


def test_what_a_correction_brought_comes_after_what_a_source_told_as_a_fill() -> None:
    fills = index(("v", 1, "s", VERSION), ("a", 2, "s", total("4")))
    fills.forget_above(ONE)
    assert "a" == fills.find_alike(*TWO, "r", ts(1), dead=False)
    fills = index(("v", 1, "s", VERSION))
    assert [None, "v"] == [fills.find_alike(*TWO, source, ts(1), dead=False) for source in ("s", "r")]
    fills.retract("v")
    assert fills.find_alike(*TWO, "r", ts(1), dead=True) is None


def test_only_so_many_fills_alike_are_looked_at() -> None:
    for others, found in [(63, "z"), (64, "0")]:
        fills = index(*[(str(number), 1, "s") for number in range(others)], ("z", 2, "s"))
        assert found == fills.find_alike(*TWO, "r", ts(2), dead=False)


def test_a_fill_whose_quantity_is_ahead_is_that_of_the_same_instant() -> None:
    fills = index(("a", 1, "s"), ("b", 1, "s", total("4")), ("c", 2, "s", total("9")))

    def find(minute: int, filled_qty: int, executed: int) -> str | None:
        return fills.find_ahead(*TWO, "r", ts(minute), Decimal(filled_qty), Decimal(executed))

    assert ["b", None, "b", None] == [find(1, 3, 4), find(1, 4, 4), find(1, 5, 4), find(3, 3, 4)]
    fills.retract("b")
    assert find(1, 3, 4) is None


def test_a_quantity_is_behind_that_of_an_order_while_it_is_remembered() -> None:
    fills = index(("a", 1, "s"), ("b", 1, "s", total("3")), ("c", 1, "s", total("2")))
    assert ["b", "c", None] == [fills.find_behind(Decimal(qty), *TWO, "r") for qty in (4, 3, 2)]
    fills.forget_above(Decimal(2))
    assert "c" == fills.find_behind(Decimal(4), *TWO, "r")


def test_an_order_was_ahead_of_its_fill_by_more_than_what_another_source_counts() -> None:
    fills = index(("a", 1, "s"), ("b", 1, "s", {"told_ahead": "3"}))
    assert ["b", None, None] == [fills.find_told_ahead(Decimal(qty), *TWO, "r") for qty in (2, 3, 4)]


def test_what_reached_a_forgotten_quantity_is_found_among_the_forgotten_only() -> None:
    fills = index(("a", 1, "s", total("4")), ("b", 2, "s", {**total("4"), "price": "9"}), ("c", 3, "s", total("2")))
    fills.forget_above(Decimal(3))
    for one in (fills, again(fills)):
        assert [None, "a"] == [one.find_untold("4", *TWO, "r", forgotten=forgotten) for forgotten in (False, True)]
        assert ["c", None] == [one.find_untold("2", *TWO, "r", forgotten=forgotten) for forgotten in (False, True)]
        assert ["b", "a"] == [one.find_untold("4", "1", price, "r", forgotten=True) for price in ("9", "2")]
        assert [None, "a"] == [one.find_by_quantity("4", forgotten=forgotten) for forgotten in (False, True)]


def test_corrections_change_what_was_told_by_what_they_change() -> None:
    fills = index(("a", 1, "s", total("4")), ("b", 2, "s", {"qty": "3", "price": "2"}))
    for key, qty in (("a", "4"), ("b", "1")):
        fills.correct(key, f"{key}'", Fill(None, qty, "2", None, ts(3), "s", "t", remembered=False))
    assert [Decimal(1), Decimal(1)] == [fills.corrected, again(fills).corrected]


def test_two_fills_alike_of_two_sources_may_be_one() -> None:
    fills = index(("a", 1, "s"), ("b", 2, "r"), ("other", 3, "r", {"price": "9"}))
    assert [("a", "b"), None] == [fills.find_double(Decimal(qty), None) for qty in ("1", "0.5")]
    assert index(("a", 1, "s"), ("b", 2, "r", {"told": ("s",)})).find_double(ONE, None) is None
    assert ("b", "c") == index(("a", 1, "r"), ("b", 2, "s"), ("c", 3, "r")).find_double(ONE, None)
    # One of the same instant comes first.
    assert ("b", "c") == index(("a", 1, "s"), ("b", 2, "s"), ("c", 2, "r")).find_double(ONE, None)
    for more in (VERSION, {"merged": True, "live": False}):
        assert index(("a", 1, "s"), ("b", 2, "r", more)).find_double(ONE, ts(9)) is None
        assert index(("b", 1, "r", more), ("a", 2, "s")).find_double(ONE, ts(9)) is None


def test_one_that_was_taken_back_may_stay_for_a_fill_of_before() -> None:
    fills = index(("a", 1, "s", {"live": False}), ("b", 2, "r"))
    assert [None, None, ("a", "b")] == [fills.find_double(ONE, at) for at in (None, ts(2), ts(3))]
    assert index(("a", 1, "s"), ("b", 2, "r", {"live": False})).find_double(ONE, None) is None
    fills = index(("a", 1, "s", {"live": False}), ("b", 2, "s"), ("c", 3, "r"))
    assert ("b", "c") == fills.find_double(ONE, ts(9))


def test_only_the_last_fills_are_looked_at_for_doubles() -> None:
    pair = [("a", 1, "s"), ("b", 2, "r")]
    for others, found in [(31, ("a", "b")), (32, None)]:
        more = [(f"o{number}", 3, "s", {"price": str(number + 9)}) for number in range(others)]
        assert found == index(*pair[:1], *pair[1:], *more).find_double(ONE, None)
    for others, found in [(7, ("a", "6")), (8, ("0", "a"))]:
        assert found == index(pair[0], *[(str(number), 2, "r") for number in range(others)]).find_double(ONE, None)


def test_a_fill_that_another_source_names_may_be_the_double_of_one_of_the_first() -> None:
    fills = index(("a", 1, "s", NO_NAME), ("b", 2, "s"))
    assert fills.find_double(ONE, None) is None
    fills.name("a", "x", "r")
    assert ("a", "b") == fills.find_double(ONE, None) == again(fills).find_double(ONE, None)


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ("1:2 2:4", "2:4"), ("2:4 1:2", "2:4"), ("1:4 2:4", "2:4"), ("2:4 1:4", "2:4"), ("1:2 1:4", "1:4"),
        ("1:4 2:2", "1:4 2:2"), ("3:2 1:4", "1:4 3:2"), ("1:2 3:1 2:3", "2:3 3:1"), ("1:5 3:1 2:3", "1:5 2:3 3:1"),
        ("2:2 3:1 2:3", "2:3 3:1"), ("1:3 3:1 2:3", "2:3 3:1"), ("2:3 3:1 2:2", "2:3 3:1"), ("3:3 4:1 2:3", "3:3 4:1"),
    ],
)  # fmt: skip
def test_sums_are_kept_until_a_later_one_reaches_them(told: str, kept: str) -> None:
    fills = [one.split(":") for one in told.split()]
    steps = index(*[(str(at), int(minute), "s", total(qty)) for at, (minute, qty) in enumerate(fills)]).steps
    assert [(nanos(ts(int(minute))), Decimal(qty)) for minute, qty in (one.split(":") for one in kept.split())] == steps


def test_the_last_sums_and_the_last_fills_without_one_are_kept() -> None:
    falling = index(*[(f"{number}", number, "s", total(str(100 - number))) for number in range(65)])
    assert (64, nanos(ts(1))) == (len(falling.steps), falling.steps[0][0])
    fills = index(*[(f"{number}", number, "s") for number in range(10, 74)])
    assert (64, None) == (len(fills.silent), fills.silent_until)
    for minute, until in [(80, 10), (5, 10), (81, 11)]:
        fills.add(f"{minute}", Fill(f"{minute}", "1", "2", None, ts(minute), "s", "t"))
        assert (64, nanos(ts(until))) == (len(fills.silent), fills.silent_until)
    for minute in range(12, 74):
        fills.merge(f"{minute}")
    assert [62, 5] == [len(fills.merged), fills.untold]
    more = index(*[(f"{number}", number, "s") for number in range(65)])
    for minute in range(65):
        more.merge(f"{minute}")
    assert (64, nanos(ts(1))) == (len(more.merged), more.merged[0][0])


def test_a_fill_that_turned_out_to_be_another_counts_no_more() -> None:
    ahead = {"told_ahead": "5"}
    fills = index(("a", 1, "s"), ("b", 2, "s"), ("c", 3, "s", total("3")), ("d", 4, "s", ahead), ("v", 5, "s", VERSION))
    silent = [(nanos(ts(at)), ONE) for at in (1, 2)]
    assert (3, silent, []) == (fills.untold, fills.silent, fills.merged)
    for key in "bcd":
        fills.merge(key)
    for one in (fills, again(fills)):
        assert (1, silent, silent[1:], Decimal(4)) == (one.untold, one.silent, one.merged, one.value)
    assert all(fills[key].merged and not fills[key].live for key in "bcd")


def test_a_fill_that_came_without_a_name_is_known_so_after_it_was_named() -> None:
    fills = index((f"{NAMELESS}a", 1, "s", NO_NAME), (f"{NAMELESS}b", 1, "s", NO_NAME), ("c", 2, "s"))
    fills.add(f"{NAMELESS}v", Fill("v", "1", "2", None, ts(3), "s", "t", remembered=False))
    fills.add(f"{NAMELESS}w", Fill(None, "1", "2", None, ts(4), "s", "t", remembered=False))
    fills[f"{NAMELESS}a"].execution_id = "x"
    for one in (fills, again(fills)):
        found = [one.find_nameless(ts(at), *TWO) for at in (1, 2, 3, 4)]
        # What a correction brought is known so where nothing ever named it.
        assert [f"{NAMELESS}a", None, None, f"{NAMELESS}w"] == found
