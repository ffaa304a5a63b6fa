"""Executions that were corrected or taken back: which trade each activity is, and what the correction is called."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from compactor.broker.alpaca.translate import translate
from compactor.sync.revisions import plan_revisions
from tests.test_differences import activity, known

ORDER = {"order_id": "o1", "ts": "2026-03-02T15:30:00Z"}


def revise(fills: list[dict[str, Any]], *standing: tuple[str | None, str, str], ids: set[str] | None = None) -> Any:
    """What is appended where these executions stand."""
    there = known(*standing)
    return plan_revisions(ORDER, translate(fills).events, there.standing, there.executions if ids is None else ids)


def describe(events: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    names = ("event", "execution_id", "previous_execution_id", "qty", "price")
    return [tuple(event.get(name) for name in names) for event in events]


def test_what_stands_as_it_is_told_needs_nothing() -> None:
    assert [] == revise([activity(1, "2", "10"), activity(2, "3", "11")], ("x", "2", "10"), (None, "3", "11"))


def test_a_trade_without_an_id_cannot_be_taken_back() -> None:
    """Then nothing is revised at all, or the others would be what is left over."""
    assert [] == revise([activity(1, "9", "9")], (None, "2", "10"), ("x", "3", "11"))
    assert [] == revise([], (None, "2", "10"))
    found = revise([activity(1, "2", "10")], (None, "2", "10"), ("x", "3", "11"))
    assert [("trade_bust", None, "x", None, None)] == describe(found)


def test_a_new_execution_is_told_as_it_came() -> None:
    [fill] = translate([activity(1, "2", "10")]).events
    assert [fill] == revise([activity(1, "2", "10")])


def test_an_execution_that_comes_back_is_a_version_of_its_own() -> None:
    """Its numbers are in its name, and a count where those are taken too; under the old id it would be a duplicate."""
    [fill] = translate([activity(1, "2", "10")]).events
    seen = {fill["event_id"]}
    for ids, name in (
        ({"a-1"}, "a-1/2@10"),
        ({"a-1", "a-1/2@10"}, "a-1/2@10/2"),
        ({"a-1", "a-1/2@10", "a-1/2@10/2"}, "a-1/2@10/3"),
    ):
        [found] = revise([activity(1, "2", "10")], ids=ids)
        assert ("fill", name) == (found["event"].removeprefix("partial_"), found["execution_id"])
        assert found["event_id"] not in seen
        seen.add(found["event_id"])
        assert {**fill, "execution_id": name, "event_id": found["event_id"]} == found


def test_a_correction_is_of_the_trade_under_the_activity_s_id() -> None:
    """Another one of the same quantity is gone; it was taken back."""
    found = revise([activity(1, "2", "11")], ("a-1", "2", "10"), ("z", "2", "9"))
    assert [("trade_bust", None, "z", None, None), ("trade_correct", "a-1/2@11", "a-1", "2", "11")] == describe(found)


def test_without_an_id_in_common_the_quantity_tells_then_the_price() -> None:
    """What is most certain is paired first; what is left over is new, or gone."""
    fills = [activity(1, "5", "9"), activity(2, "3", "12"), activity(3, "2", "11")]
    found = revise(fills, ("x", "2", "10"), ("y", "4", "12"))
    assert {
        ("partial_fill", "a-1", None, "5", "9"), ("trade_correct", "a-2", "y", "3", "12"),
        ("trade_correct", "a-3", "x", "2", "11"),
    } == set(describe(found))  # fmt: skip


def test_an_activity_without_its_message_makes_a_correction_without_one() -> None:
    [fill] = translate([activity(1, "2", "11")]).events
    del fill["raw"]
    standing: dict[str, Any] = {"t": ("x", Decimal(2), Decimal(10))}
    [found] = plan_revisions(ORDER, [fill], standing, {"x"})
    assert "raw" not in found
    assert ("o1", ORDER["ts"], "rest") == (found["order_id"], found["ts"], found["source"])
