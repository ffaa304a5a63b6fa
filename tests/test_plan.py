"""The planning of a reconcile over several orders: what is asked for, what waits, and what is told of relations."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from compactor.sync.executions import Known
from compactor.sync.plan import Plan, Rules
from tests.test_differences import NOW, activity, known, order, plan, problems, told

JUST_NOW, QUIET = "2026-03-02T15:59:50.000000001Z", "2026-03-02T15:59:50Z"
"""The planning takes what is at least ten seconds old."""


def names(found: Plan) -> list[tuple[str, str]]:
    return [(event["event"], event["order_id"]) for events in found.events.values() for event in events]


def is_alpha(team: str) -> bool:
    return team == "alpha"


RULES = Rules(is_team=is_alpha)


def rules_of(_order_id: str) -> Rules:
    return RULES


# What waits, and what is named.


def test_an_order_that_agrees_waits_for_nothing() -> None:
    """However recently it changed."""
    assert Plan() == plan([order(updated_at=JUST_NOW)], {"o1": known()})


def test_what_happened_ten_seconds_ago_is_quiet() -> None:
    """To the nanosecond: what differs is appended, and what no event puts right is named."""
    assert ["o1"] == plan([order(updated_at=JUST_NOW)], {}).waiting
    assert ["snapshot"] == told(plan([order(updated_at=QUIET)], {}))
    there = {"filled_qty": "6", "status": "partially_filled"}
    row = {**(known().row or {}), "status": "partially_filled"}
    for at, kinds in ((JUST_NOW, []), (QUIET, ["fills_missing"])):
        found = plan([order(updated_at=at, **there)], {"o1": known(("x", "4", "10"), row=row)}, fills_asked={"o1"})
        assert (kinds, []) == (problems(found), told(found))


def test_what_changes_nothing_is_not_refused() -> None:
    """While a ledger cannot be read, only what would be adopted is named; what a ledger knows is appended."""
    refuse = {"may_adopt": lambda _order: False}
    assert Plan() == plan([order(status="canceled")], {}, **refuse)
    assert ["not_adopted"] == problems(plan([order()], {}, **refuse))
    changed = plan([order(status="pending_cancel")], {"o1": known()}, **refuse)
    assert (["snapshot"], []) == (told(changed), problems(changed))


def test_a_share_that_nobody_told_is_no_share_of_a_predecessor() -> None:
    """An order that replaces none carries nothing over: what is missing is inferred."""
    for missing in ("5", "6"):
        there = order(filled_qty=missing, filled_avg_price="10", status="partially_filled")
        found = plan([there], {"o1": known(("x", "4", "10"))}, fills_asked={"o1"})
        assert (["snapshot"], missing) == (told(found), found.events["alpha"][0]["filled_qty"])


# Predecessors.


def test_a_predecessor_is_asked_for_where_the_sums_may_have_its_shares() -> None:
    """Once: whether it was answered without a sum, is missing, or could not be asked for."""
    there = order(replaces="a", filled_qty="5", filled_avg_price="10", status="partially_filled")
    view = {"o1": known(("x", "2", "10"))}
    assert ["a"] == plan([there], view).to_ask
    silent = order("a", status="replaced", replaced_by="o1", filled_qty=None)
    for found in (plan([silent, there], view), plan([there], view, missing={"a"}), plan([there], view, unasked={"a"})):
        assert ([], ["o1"]) == (found.to_ask, found.to_ask_fills)


def test_of_a_predecessor_without_an_answer_the_ledger_tells_what_was_filled() -> None:
    there = order(replaces="a", filled_qty="5", filled_avg_price="10", status="partially_filled")
    row = {**(known().row or {}), "status": "partially_filled", "replaces": "a"}
    view = {"o1": known(("x", "2", "10"), row=row), "a": known(("w", "3", "10"), row={})}
    found = plan([there], view, [activity(1, "2", "10", "2")], missing={"a"}, fills_asked={"o1"})
    assert ([], []) == (told(found), problems(found))
    del view["a"]
    found = plan([there], view, [activity(1, "2", "10", "2")], missing={"a"}, fills_asked={"o1"})
    assert ["snapshot"] == told(found), "of which nobody knows anything, nothing was filled"


def test_an_order_of_nobody_waits_for_its_predecessor_s_answer() -> None:
    """It may say whose both are; one that the broker does not have says nothing any more."""
    there = order("b", client_order_id="random", replaces="a")
    found = plan([there], {}, rules_of=rules_of)
    assert (["a"], []) == (found.to_ask, told(found))
    for silent in ({"missing": {"a"}}, {"unasked": {"a"}}):
        found = plan([there], {}, rules_of=rules_of, **silent)
        assert ([], ["unassigned"]) == (found.to_ask, list(found.events))
    assert ["alpha"] == list(plan([order("b", replaces="a")], {}, rules_of=rules_of).events), "its name says it"
    both = plan([there, order("a", status="replaced", replaced_by="b")], {}, rules_of=rules_of)
    assert ([], {"alpha"}) == (both.to_ask, set(both.events))


def test_for_an_order_that_changes_nothing_no_predecessor_is_asked_for() -> None:
    """It came and went without a trade, whoever it was."""
    there = order("b", client_order_id="random", replaces="a", status="canceled")
    assert Plan() == plan([there], {}, rules_of=rules_of)


# Successors.


def replaced(**fields: Any) -> dict[str, Any]:
    return order(status="replaced", replaced_by="b", updated_at="2026-03-02T15:10:00Z", **fields)


def test_a_successor_that_came_and_went_is_told_with_what_names_it() -> None:
    """Rule 3.9: the event makes a row of it, which has to end; whatever is told before, and only once."""
    there = [order("other", client_order_id="alpha:2"), replaced(limit_price="9"), order("b", status="canceled")]
    row = {**(known().row or {}), "limit_price": "8"}
    found = plan(there, {"o1": known(row=row)})
    assert [("restated", "o1"), ("snapshot", "o1"), ("snapshot", "b")] == [
        one for one in names(found) if one[1] != "other"
    ]
    [ended] = [event for events in found.events.values() for event in events if event["order_id"] == "b"]
    assert "canceled" == ended["order_status"]
    assert not {"filled_qty", "filled_avg_price"} & ended.keys()


def test_a_successor_of_a_successor_is_told_too() -> None:
    there = [replaced(), order("b", status="replaced", replaced_by="c"), order("c", status="rejected")]
    assert [("snapshot", "o1"), ("snapshot", "b"), ("snapshot", "c")] == names(plan(there, {"o1": known()}))


def test_a_successor_that_is_known_or_told_by_itself_is_not_told_again() -> None:
    view = {"o1": known(), "b": known(row={})}
    assert [("snapshot", "o1")] == names(plan([replaced(), order("b", status="canceled")], view))
    assert [("snapshot", "o1"), ("snapshot", "b")] == names(plan([replaced(), order("b")], {"o1": known()}))


def test_a_successor_that_moves_is_told_the_next_time() -> None:
    """It is open, and waits: nothing of it is asked for."""
    found = plan([replaced(), order("b", updated_at=JUST_NOW)], {"o1": known()})
    assert ([("snapshot", "o1")], ["b"], []) == (names(found), found.waiting, found.to_ask)


def test_a_successor_that_no_list_has_is_asked_for_once() -> None:
    assert ["b"] == plan([replaced()], {"o1": known()}).to_ask
    for silent in ({"missing": {"b"}}, {"unasked": {"b"}}):
        found = plan([replaced()], {"o1": known()}, **silent)
        assert ([], [("snapshot", "o1")]) == (found.to_ask, names(found))


# What no list has.


def test_an_open_order_that_no_list_has_is_asked_for_and_then_named() -> None:
    """It stays open: only the broker's answer about it ends it, or somebody who says that it never comes back."""
    view = {"o1": known(), "ended": known(("x", "1", "1"), row={})}
    assert ["o1"] == plan([], view).to_ask
    assert Plan() == plan([], view, unasked={"o1"})
    found = plan([], view, missing={"o1"})
    assert ([], [], ["order_not_found"]) == (found.to_ask, told(found), problems(found))
    odd = plan([7], view, missing={"o1"}, forget_missing=True)
    assert (["canceled"], ["bad_value"]) == (told(odd), problems(odd)), "what else is a problem stays one"
    assert (NOW, "o1", "app") == tuple(odd.events["alpha"][0][name] for name in ("ts", "order_id", "source"))


def test_an_order_of_which_only_executions_tell_is_asked_for_unless_the_ledger_has_them() -> None:
    fills = [activity(1, "2", "10", "2")]
    assert ["o1"] == plan([], {}, fills).to_ask
    assert [] == plan([], {"o1": known(("x", "2", "10"), row={})}, fills).to_ask
    assert [] == plan([], {"o1": Known("alpha", executions={"a-1"}, filled=Decimal(2))}, fills).to_ask
    assert ["o1"] == plan([], {"o1": known(("x", "3", "10"), row={})}, fills).to_ask
    assert [[], []] == [plan([], {}, fills, **silent).to_ask for silent in ({"missing": {"o1"}}, {"unasked": {"o1"}})]
    assert ["o1"] == plan([], {"o1": known()}, fills).to_ask, "once, though it is open as well"


@pytest.mark.parametrize("order_class", ["bracket", "mleg"])
def test_the_parent_of_a_leg_that_waits_is_watched(order_class: str) -> None:
    """Nothing but its nested list tells whose leg it is."""
    leg = order("leg", updated_at=JUST_NOW)
    parent = order("p", order_class=order_class, legs=[leg], **({"symbol": ""} if order_class == "mleg" else {}))
    found = plan([parent], {"p": known(row={**(known().row or {}), "order_id": "p"})})
    assert (["leg"], ["p"]) == (found.waiting, found.to_watch)
