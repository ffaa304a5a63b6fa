"""The index over an order's fills answers as a scan in the order of arrival would (4.2 to 4.4)."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from compactor.core.fill_index import Fill, IndexedFills

NUMBERS = st.sampled_from(["1", "1.0", "2", "3"])
SOURCES = st.sampled_from([None, "stream", "rest"])
STEPS = st.one_of(
    st.tuples(st.just("add"), NUMBERS, NUMBERS, st.none() | NUMBERS, SOURCES, st.booleans()),
    st.tuples(st.just("tell"), st.integers(0, 20), SOURCES),
    st.tuples(st.just("name"), st.integers(0, 20)),
    st.tuples(st.just("forget"), NUMBERS),
    st.tuples(st.just("retract"), st.integers(0, 20)),
)


def _same(one: str | None, other: str | None) -> bool:
    return one is not None and other is not None and Decimal(one) == Decimal(other)


def _scan_untold(fills: IndexedFills, filled: str, qty: str, price: str, source: str | None) -> str | None:
    for key, fill in fills.items():
        same = _same(fill.filled_qty, filled) and _same(fill.qty, qty) and _same(fill.price, price)
        told = fill.execution_id is not None and (fill.source == source or source in fill.told)
        if fill.remembered and same and not told:
            return key
    return None


@given(st.lists(STEPS, max_size=30))
def test_the_index_answers_as_a_scan_does(steps: list[tuple[str, *tuple[object, ...]]]) -> None:
    """4.2 to 4.4: the first fill that matches, in the order of arrival, whatever was told or forgotten in between."""
    fills = IndexedFills({})
    for number, (step, *values) in enumerate(steps):
        keys = list(fills)
        if step == "add":
            qty, price, filled, source, named = values
            key, ts = f"k{number}" if named else f"\0k{number}", f"2026-03-02T14:30:0{number % 3}Z"
            fills.add(key, Fill(key if named else None, qty, price, filled, ts, source, "t"))  # type: ignore[arg-type]
        elif step == "forget":
            fills.forget_above(Decimal(str(values[0])))
        elif keys:
            fill = fills[keys[int(str(values[0])) % len(keys)]]
            if step == "tell":
                fill.told = (*fill.told, values[1])  # type: ignore[arg-type]
            elif step == "name":
                fill.execution_id = fill.execution_id or f"n{number}"
            elif fill.live:
                fills.retract(keys[int(str(values[0])) % len(keys)])
        for text in ("1", "2.0", "3"):
            expected = next((key for key, one in fills.items() if one.remembered and _same(one.filled_qty, text)), None)
            assert expected == fills.find_by_quantity(text)
            for source in (None, "stream", "rest"):
                assert _scan_untold(fills, text, "1", "2", source) == fills.find_untold(text, "1", "2", source)
        for second in range(3):
            ts = f"2026-03-02T14:30:0{second}Z"
            nameless = (
                key
                for key, one in fills.items()
                if key.startswith("\0") and one.filled_qty is None and one.ts == ts and _same(one.qty, "1")
                if _same(one.price, "2")
            )
            assert next(nameless, None) == fills.find_nameless(ts, "1", "2")
        assert sum(Decimal(one.qty) * Decimal(one.price) for one in fills.values() if one.live) == fills.value


def test_fills_that_were_indexed_are_indexed_again_from_what_is_stored() -> None:
    """7: a checkpoint stores the fills alone; the index is built anew."""
    fills = IndexedFills({})
    fills.add("a", Fill("a", "1", "2", "1", "2026-03-02T14:30:00Z", "stream", "t"))
    fills.add("b", Fill("b", "1", "2", "2", "2026-03-02T14:30:00Z", "stream", "t"))
    fills.forget_above(Decimal("1"))
    again = IndexedFills(dict(fills))
    assert (None, "a", Decimal(4)) == (again.find_by_quantity("2"), again.find_by_quantity("1"), again.value)
    for one in (fills, again):
        assert ("b", None) == tuple(one.find_by_quantity(text, forgotten=True) for text in ("2", "1"))
        assert ("b", None) == tuple(one.find_untold("2", "1", "2", name, forgotten=True) for name in ("rest", "stream"))


def test_what_corrections_changed_is_counted_again_from_what_is_stored() -> None:
    """3.3: the greatest quantity told moves with the fills that a correction replaces; a version tells none itself."""
    fills = IndexedFills({})
    fills.add("a", Fill("a", "5", "2", "5", "2026-03-02T14:30:00Z", "stream", "t"))
    fills.correct("a", "b", Fill("b", "4", "2", None, "2026-03-02T14:31:00Z", "stream", "u", remembered=False))
    fills.correct("b", "c", Fill("c", "7", "2", None, "2026-03-02T14:32:00Z", "stream", "v", remembered=False))
    for one in (fills, IndexedFills(dict(fills))):
        assert (Decimal(5), Decimal(2), 0) == (one.told, one.corrected, one.untold)


def test_a_fill_told_inside_an_order_that_is_ahead_is_found_by_its_numbers() -> None:
    """4.3: by another source, at a smaller quantity than that of the order; and the other way around."""
    fills = IndexedFills({})
    ahead = Fill("a", "1", "2", None, "2026-03-02T14:30:00Z", "stream", "t", told_ahead="3")
    fills.add("a", ahead)
    fills.add("b", Fill("b", "1", "5", "1", "2026-03-02T14:30:00Z", "rest", "t"))
    assert ("a", None, None) == tuple(fills.find_told_ahead(Decimal(n), "1", "2", "rest") for n in (2, 3, 4))
    assert fills.find_told_ahead(Decimal(2), "1", "2", "stream") is None
    assert ("b", None) == tuple(fills.find_behind(Decimal(n), "1", "5", "stream") for n in (2, 1))
    ahead.told = ("rest",)
    assert fills.find_told_ahead(Decimal(2), "1", "2", "rest") is None
    assert fills.untold == 1
