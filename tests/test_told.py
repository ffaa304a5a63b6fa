"""What the cumulative quantities of an order tell all together (4.7)."""

from decimal import Decimal

import pytest

from compactor.core.decoding import build_event
from compactor.core.instants import nanos
from compactor.core.orders import ZERO, Order, Revision, ensure_rare, index_fills
from compactor.core.rules import begin
from compactor.core.told import (
    Present,
    count_told,
    count_without,
    find_newest_told,
    list_told,
    note_reduction,
    note_told,
    sum_busts,
    sum_reductions,
)

Statement = tuple[int, str] | tuple[int, str, str]


def ts(minute: int) -> str:
    return f"2026-03-02T10:{minute:02}:00Z"


def new_order(*statements: Statement, filled: str = "0") -> Order:
    """An order of which the broker's answers told so much at these minutes, with these averages."""
    order = begin("o", build_event({"event": "new", "order_id": "o", "ts": ts(0)}), 0)  # type: ignore[arg-type]
    order.filled = Decimal(filled)
    for statement in statements:
        tell(order, *statement)
    return order


def tell(order: Order, minute: int, qty: str | None, average: str | None = None, event: str = "snapshot") -> None:
    fields = {"filled_qty": qty, "filled_avg_price": average, "execution_id": "x", "price": "5", "qty": "1"}
    note_told(order, build_event({"event": event, "order_id": "o", "ts": ts(minute), **fields}))  # type: ignore[arg-type]


def kept(order: Order) -> list[tuple[str, str, str | None]]:
    return [(one.ts[14:16], one.qty, one.average) for one in order.rare.statements] if order.rare is not None else []


@pytest.mark.parametrize(
    ("told", "remembered"),
    [
        ([(1, "2"), (2, "4")], [("02", "4", None)]),
        ([(2, "4"), (1, "2")], [("02", "4", None)]),
        ([(2, "4"), (1, "4")], [("02", "4", None)]),
        ([(1, "4"), (2, "4")], [("02", "4", None)]),
        ([(1, "2"), (1, "4")], [("01", "4", None)]),
        ([(1, "4"), (1, "2")], [("01", "4", None)]),
        # What fell may have been taken back in between.
        ([(1, "4"), (2, "2")], [("01", "4", None), ("02", "2", None)]),
        ([(2, "2"), (1, "4")], [("01", "4", None), ("02", "2", None)]),
        # An average prices what was told, and stays.
        ([(1, "2"), (1, "2", "5")], [("01", "2", "5")]),
        ([(1, "2", "5"), (1, "2")], [("01", "2", "5")]),
        ([(1, "2", "5"), (1, "2", "6")], [("01", "2", "5")]),
        ([(2, "4"), (1, "2", "5")], [("01", "2", "5"), ("02", "4", None)]),
        ([(1, "0")], []),
    ],
)
def test_a_quantity_is_remembered_until_a_later_one_is_as_great(
    told: list[Statement], remembered: list[tuple[str, str, str | None]]
) -> None:
    """4.7: a cumulative quantity only grows, except by busts and corrections."""
    assert remembered == kept(new_order(*told))


@pytest.mark.parametrize(
    ("event", "qty", "is_noted"),
    [
        ("snapshot", "2", True),
        ("snapshot", None, False),
        ("accepted", "3", False),
        ("accepted", "4", True),
        ("partial_fill", "4", True),
        ("trade_bust", "4", False),
    ],
)
def test_other_events_tell_only_of_more_than_is_known(event: str, qty: str | None, is_noted: bool) -> None:
    """4.7: beside a bust a quantity may be that of before."""
    order = new_order(filled="3")
    tell(order, 1, qty, event=event)
    assert is_noted is bool(kept(order))


def test_the_last_quantities_and_all_reductions_are_remembered() -> None:
    """What lies further back is summed, so that memory has a bound."""
    order = new_order(*[(minute % 60, str(100 - minute)) for minute in range(59)])
    for step in range(6):
        note_told(order, build_event({"event": "snapshot", "order_id": "o", "ts": f"2026-03-02T11:{step:02}:00Z",
                                      "filled_qty": str(40 - step)}))  # type: ignore[arg-type]  # fmt: skip
    assert (64, ("01", "99", None)) == (len(kept(order)), kept(order)[0])
    for minute in (*range(30, 66), *range(30)):
        note_reduction(order, f"2026-03-02T{9 + minute // 60:02}:{minute % 60:02}:00Z", Decimal(1), Decimal(minute))
    rare = ensure_rare(order)
    assert ("2026-03-02T10:05:00Z", 64) == (rare.reduced_at, len(rare.reductions))
    assert (Decimal(66), Decimal(sum(range(66)))) == sum_reductions(order, "2026-03-02T08:00:00Z")
    assert (Decimal(5), Decimal(61 + 62 + 63 + 64 + 65)) == sum_reductions(order, "2026-03-02T10:00:00Z")
    assert (ZERO, ZERO) == sum_reductions(new_order(), ts(0))


def test_busts_that_wait_are_counted_by_their_shares() -> None:
    """4.9: corrections are not, nor busts that tell no quantity."""
    order = new_order()
    assert 0 == sum_busts(order)
    told = [("trade_bust", "-2"), ("trade_bust", "3"), ("trade_correct", "9"), ("trade_bust", None)]
    waiting = [Revision(event, "x", 0, 1, ts(1), qty=qty) for event, qty in told]
    ensure_rare(order).waiting = {"x": waiting[:1], "y": waiting[1:]}
    assert 5 == sum_busts(order)


def test_what_was_told_is_brought_to_the_present() -> None:
    """4.7: without what was taken back later, and with what an event adds."""
    order = new_order((1, "9"), (3, "6"))
    assert (Decimal(9), None) == (count_told(order), count_told(new_order()))
    note_reduction(order, ts(2), Decimal(4), Decimal(20))
    assert [5, 6] == sorted(qty for _, qty in list_told(order))
    assert 6 == count_told(order)
    note_reduction(order, ts(3), Decimal(1), Decimal(5))
    assert [4, 6] == sorted(qty for _, qty in list_told(order))
    fields = {"order_id": "o", "event": "fill", "execution_id": "x", "price": "5"}
    for minute, more, counted in [(4, {"filled_qty": "8"}, 8), (0, {"filled_qty": "8"}, 6), (4, {"qty": "2"}, 8),
                                  (2, {"qty": "2"}, 6)]:  # fmt: skip
        event = build_event({**fields, "ts": ts(minute), "qty": "1", **more})
        assert counted == count_told(order, event)  # type: ignore[arg-type]
    accepted = build_event({"event": "accepted", "order_id": "o", "ts": ts(4)})
    assert 6 == count_told(order, accepted)  # type: ignore[arg-type]
    order = new_order((3, "6"))
    note_reduction(order, ts(5), Decimal(4), Decimal(20))
    assert 2 == count_told(order, build_event({**fields, "ts": ts(2), "qty": "2"}))  # type: ignore[arg-type]


def test_fills_that_turned_out_to_be_others_are_not_added() -> None:
    """4.3, 4.7: of the executions that told no quantity, those that came later count, each once."""
    order = new_order((2, "5"))
    fills = index_fills(order)
    fills.silent = [(nanos(ts(1)), Decimal(2)), (nanos(ts(4)), Decimal(3))]
    fills.merged = [(nanos(ts(1)), Decimal(2))]
    assert 8 == count_told(order)
    fills.merged = [(nanos(ts(4)), Decimal(3))]
    assert 5 == count_told(order)


def test_an_execution_of_the_first_instant_that_there_is_counts() -> None:
    """4.3: where nothing told a quantity, all that was executed is counted, up to what was ordered."""
    index_fills(order := new_order()).silent = [(nanos("1900-01-01T00:00:00Z"), Decimal(2))]
    assert [2, 1] == [max(qty for _, qty in list_told(order, None, Decimal(most))) for most in (5, 1)]


def test_what_is_older_than_what_is_remembered_counts_for_nothing() -> None:
    """4.7: of many executions that told no quantity the first ones are not remembered one by one."""
    order = new_order((1, "9"), (3, "6"), (4, "5"))
    note_reduction(order, ts(9), Decimal(1), Decimal(5))
    index_fills(order).silent_until = nanos(ts(3))
    assert [4, 5] == sorted(qty for _, qty in list_told(order))


def test_the_quantities_of_before_a_bust_lose_its_shares() -> None:
    """4.9: what was told at the same time or later counts without it already."""
    order = new_order((1, "9"), (3, "6"), (4, "5"))
    bust = Revision("trade_bust", "x", 0, 1, ts(3), qty="-4")
    assert 6 == count_without(list_told(order), bust)
    assert 9 == count_without(list_told(order), Revision("trade_bust", "x", 0, 1, ts(3)))
    assert count_without([], bust) is None


def test_the_greatest_statement_counts_and_the_last_of_several() -> None:
    """4.7: with its value at the broker's average, without what was taken back since."""
    assert find_newest_told(new_order()) is None
    order = new_order((1, "9", "5"), (3, "5", "6"))
    assert Present(Decimal(9), Decimal(45), Decimal(9), ts(1)) == find_newest_told(order)
    note_reduction(order, ts(2), Decimal(4), Decimal(16))
    assert Present(Decimal(5), Decimal(30), Decimal(5), ts(3)) == find_newest_told(order)
    order = new_order((1, "9", "5"), (3, "5"))
    note_reduction(order, ts(2), Decimal(4), Decimal(16))
    assert Present(Decimal(5), Decimal(29), Decimal(9), ts(1)) == find_newest_told(order)
    assert Present(Decimal(5), None, Decimal(5), ts(1)) == find_newest_told(new_order((1, "5")))


@pytest.mark.parametrize(("later", "first_bust", "newest"), [("6", 4, 3), ("5", 4, 3), ("5", 3, 1), ("4", 4, 1)])
def test_statements_are_compared_as_they_count_now(later: str, first_bust: int, newest: int) -> None:
    """4.7: one bust between two statements, and one after both."""
    order = new_order((1, "9", "5"), (3, later, "6"))
    note_reduction(order, ts(2), Decimal(first_bust), Decimal(20))
    note_reduction(order, ts(4), Decimal(1), Decimal(5))
    found = find_newest_told(order)
    assert found is not None and ts(newest) == found.ts
