"""What of an event's sums is the order's own, told event by event, with and without what the logs say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compactor.books.carry_over import CARRIED
from compactor.books.order_index import OrderIndex
from compactor.sync.carried import CarriedSums

T = "2026-03-02T15:00:00Z"


def make_event(event: str, filled: str | None = None, order_id: str = "b", **more: Any) -> dict[str, Any]:
    told = {"event": event, "order_id": order_id, "ts": T, **more}
    return told | ({"filled_qty": filled, "filled_avg_price": "10"} if filled is not None else {})


def make_sums(data: Path, *lines: dict[str, Any]) -> CarriedSums:
    """Of a team whose log has these events."""
    ledger = data / "team/alpha"
    ledger.mkdir(parents=True)
    with open(ledger / "events.jsonl", "w") as log:
        log.writelines(json.dumps(line) + "\n" for line in lines)
    index = OrderIndex(data, ["alpha"])
    index.follow()
    return CarriedSums(index)


def own(sums: CarriedSums, event: dict[str, Any]) -> tuple[str | None, str | None]:
    """What is filled of the order itself, and what was filled before."""
    found = sums.leave_out(event, "alpha")
    return found.get("filled_qty"), found.get(CARRIED)


def test_an_order_that_replaces_none_keeps_its_sums(data: Path) -> None:
    """Whatever it tells: a later fill, an end, or how it stands."""
    sums = make_sums(data)
    for event in (
        make_event("partial_fill", "5", qty="2"), make_event("canceled", "5"), make_event("snapshot", "5"),
        make_event("new"), make_event("replaced", "5", replaced_by="c"), make_event("replaced", replaced_by="c"),
    ):  # fmt: skip
        assert event is sums.leave_out(event, "alpha")


def test_what_was_filled_as_it_was_accepted_is_not_its_own(data: Path) -> None:
    """Once that is known, it holds for messages too that do not tell what the order replaces."""
    sums = make_sums(data)
    assert ("0", "3") == own(sums, make_event("new", "3", replaces="a"))
    assert ("2", "3") == own(sums, make_event("partial_fill", "5", qty="2"))
    assert ("4", "3") == own(sums, make_event("canceled", "7"))
    found = sums.leave_out(make_event("canceled", "7"), "alpha")
    assert "filled_avg_price" not in found


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (make_event("partial_fill", "2", qty="2", replaces="a"), ("2", None)),
        (make_event("partial_fill", "3", qty="2", replaces="a"), (None, None)),
        (make_event("partial_fill", "2", replaces="a"), (None, None)),
        (make_event("fill", "5", qty="2", replaces="a"), (None, None)),
        (make_event("canceled", "5", qty="5", replaces="a"), (None, None)),
        (make_event("canceled", "0", replaces="a"), ("0", None)),
    ],
)
def test_a_later_event_is_believed_where_nothing_can_be_left_over(
    data: Path, event: dict[str, Any], told: tuple[str | None, str | None]
) -> None:
    """A first fill of all that is filled is its own; of anything else nobody can say whose it is."""
    assert told == own(make_sums(data), event)


@pytest.mark.parametrize(
    ("before", "told"),
    [
        ([make_event("replaced", "0", "a", replaced_by="b")], "5"),
        ([make_event("replaced", "3", "a", replaced_by="b")], None),
        ([make_event("replaced", None, "a", replaced_by="b")], None),
        ([make_event("new", "0", "a")], None),
        ([make_event("replaced", "0", "a", replaced_by="b"), make_event("replaced", "3", "a", replaced_by="b")], None),
        ([make_event("replaced", None, "a", replaced_by="b"), make_event("replaced", "0", "a", replaced_by="b")], "5"),
        ([], None),
    ],
)
@pytest.mark.parametrize("is_heard", [True, False])
def test_a_predecessor_without_a_fill_left_nothing(
    data: Path, before: list[dict[str, Any]], told: str | None, is_heard: bool
) -> None:
    """As it was heard just now, or as the log says; how it stood before it was replaced says nothing."""
    sums = make_sums(data, *([] if is_heard else before))
    for event in before if is_heard else ():
        sums.leave_out(event, "alpha")
    assert told == own(sums, make_event("partial_fill", "5", qty="2", replaces="a"))[0]


def test_what_was_carried_stands_in_the_log(data: Path) -> None:
    """After a restart; the most that any line says, since lines without it are of executions."""
    lines = [make_event("new", "0", carried_qty="3"), make_event("partial_fill", "2", qty="2")]
    assert ("4", "3") == own(make_sums(data, *lines), make_event("canceled", "7", replaces="a"))


def test_an_order_whose_own_sums_are_in_the_log_carried_nothing(data: Path) -> None:
    sums = make_sums(data, make_event("new", "0"))
    assert ("5", None) == own(sums, make_event("partial_fill", "5", qty="2", replaces="a"))


def test_a_fill_of_an_order_with_relations_may_go_on_from_another_one(data: Path) -> None:
    """An entry of a resend does not say what its order replaces; one without relations is its own."""
    sums = make_sums(data, make_event("replaced", "3", "a", replaced_by="b"))
    assert (None, None) == own(sums, make_event("partial_fill", "5", qty="2"))
    assert ("2", None) == own(sums, make_event("partial_fill", "2", qty="2"))
    assert ("5", None) == own(make_sums(data / "other"), make_event("partial_fill", "5", qty="2"))
