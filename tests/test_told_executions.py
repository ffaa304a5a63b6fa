"""Which execution an activity is about, where its numbers do not tell: the half of its id behind `::`."""

from typing import Any

import pytest

from compactor.core.decoding import build_event
from compactor.core.events import Event, Problem
from compactor.imports.messages import NotAFill, Translated
from compactor.imports.told_executions import ToldExecutions


def activity(execution_id: str | None = "t::e-1", event: str = "fill", **more: Any) -> Translated:
    told = {"qty": "100", "price": "31.6", "filled_qty": "100", "execution_id": execution_id}
    fields = {"event": event, "order_id": "o", **told, **more}
    return Translated(1, {name: value for name, value in fields.items() if value is not None}, is_activity=True)


def message(execution_id: str | None = "e-1", event: str = "fill", **more: Any) -> Translated:
    return activity(execution_id, event, **more)._replace(is_activity=False)


def logged(event: str, **more: Any) -> Event:
    found = build_event({"event": event, "order_id": "o", "ts": "2026-03-02T15:00:00Z", **more})
    assert isinstance(found, Event)
    return found


def leg(**more: Any) -> dict[str, Any]:
    return {
        "order_id": "leg",
        "execution_id": "e-1",
        "qty": "100",
        "price": "31.6",
        "symbol": "S",
        "side": "buy",
    } | more


@pytest.mark.parametrize(
    ("told", "are_named"),
    [
        ([activity(), message(price="31.5999")], True),
        ([activity(), message(qty="99")], True),
        ([activity(), message(price="31.60")], False),
        ([activity(filled_qty=None), message()], True),
        ([activity(event="partial_fill"), message(event="partial_fill", price="3")], True),
        ([activity(), message("e-2", price="3")], False),
        # Of one id several executions are told: one of them has the same numbers.
        ([activity(), message(price="3"), message()], False),
        ([activity("t::e-2"), activity(), message("e-2", price="3"), message()], True),
        # Halves that are none, of what is no activity, and of what is no execution.
        ([activity("e-1"), message(price="3")], False),
        ([activity("t::"), message("", price="3")], False),
        ([activity(None), message(None, price="3")], False),
        ([message("t::e-1"), message(price="3")], False),
        ([activity(), message(event="new", price="3")], False),
        ([activity(event="trade_bust"), message(price="3")], False),
        ([Translated(1, Problem("bad_value", "x")), Translated(1, NotAFill("FEE"))], False),
        # Executions of legs are executions.
        ([activity(), message(None, legs=[leg(price="3")])], True),
        ([activity(), message(None, legs=[leg()])], False),
        ([activity(), message(None, legs=[7, leg(price="3", order_id=None)])], False),
        ([activity(), message(None, legs=[7, leg(execution_id=None), leg(price="3")])], True),
    ],
)
def test_a_recording_is_read_once_more_only_for_numbers_that_differ(told: list[Translated], are_named: bool) -> None:
    """Whichever comes first."""
    for order in (told, told[::-1]):
        executions = ToldExecutions()
        for found in order:
            executions.note(found)
        assert are_named is executions.are_named


@pytest.mark.parametrize(
    ("told", "found", "name"),
    [
        (message(price="31.5999"), activity(), "e-1"),
        (message(qty="99"), activity(), "e-1"),
        (message(event="partial_fill", price="3"), activity(event="partial_fill"), "e-1"),
        (message(), activity(filled_qty=None), "e-1"),
        # Where the numbers agree, they tell it.
        (message(price="31.60"), activity(), "t::e-1"),
        (message(order_id="p", price="3"), activity(), "t::e-1"),
        (message("e-2", price="3"), activity(), "t::e-1"),
        (message(event="new", price="3"), activity(), "t::e-1"),
        (activity(price="3"), activity(), "t::e-1"),
        (message(price="3"), activity(event="trade_bust"), "t::e-1"),
        (message(price="3"), message("t::e-1"), "t::e-1"),
        # An execution that was corrected has two versions, and two ids.
        (message("e-2", "trade_correct", previous_execution_id="e-1", price="3"), activity(), "e-1"),
        (message("e-1", "trade_bust", price="3"), activity(), "e-1"),
        (message("e-2", "trade_correct", previous_execution_id="e-1"), activity(), "t::e-1"),
        (message(None, order_id="p", legs=[leg(order_id="o", price="3")]), activity(), "e-1"),
        (message(None, order_id="p", legs=[leg(price="3")]), activity(), "t::e-1"),
        (message(None, order_id="p", legs=[7, leg(order_id=None)]), activity(), "t::e-1"),
        (Translated(1, Problem("bad_value", "x")), activity(), "t::e-1"),
    ],
)
def test_an_activity_gets_the_id_of_the_execution_that_it_is_about(
    told: Translated, found: Translated, name: str
) -> None:
    executions = ToldExecutions()
    for one in (activity(), found):
        executions.note(one)
    executions.learn(told)
    named = executions.name(found)
    assert isinstance(found.event, dict)
    assert found._replace(event=found.event | {"execution_id": name}) == named


@pytest.mark.parametrize(
    ("event", "name"),
    [
        (logged("fill", execution_id="e-1", qty="100", price="3"), "e-1"),
        (logged("fill", execution_id="e-1", qty="100", price="31.6"), "t::e-1"),
        (logged("trade_correct", execution_id="e-2", previous_execution_id="e-1", qty="100", price="3"), "e-1"),
        (logged("fill", execution_id="e-2", qty="100", price="3"), "t::e-1"),
        (logged("fill", order_id="p", execution_id="e-1", qty="100", price="3"), "t::e-1"),
        (logged("fill", order_id="p", legs=[leg(order_id="o", price="3")]), "e-1"),
        (logged("fill", order_id="p", legs=[leg(order_id="o")]), "t::e-1"),
        (logged("fill", order_id="p", legs=[leg(price="3")]), "t::e-1"),
        (logged("new"), "t::e-1"),
    ],
)
def test_an_activity_gets_the_id_of_an_execution_of_the_log(event: Event, name: str) -> None:
    executions = ToldExecutions()
    executions.note(activity())
    executions.recall(event)
    named = executions.name(activity())
    assert isinstance(named.event, dict)
    assert name == named.event["execution_id"]


def test_what_is_no_execution_is_not_named() -> None:
    executions = ToldExecutions()
    for found in (Translated(1, Problem("bad_value", "x")), Translated(1, NotAFill("FEE"), is_activity=True)):
        executions.learn(found)
        assert executions.name(found) is found


def test_an_activity_whose_id_has_no_half_tells_an_execution_itself() -> None:
    """By the id as it is; and one that cannot be read tells none."""
    executions = ToldExecutions()
    executions.note(activity())
    executions.learn(activity("e-1", price="31.5999"))
    assert activity("e-1") == executions.name(activity())
    unread = Translated(1, Problem("bad_value", "x"), is_activity=True)
    executions.learn(unread)
    assert unread is executions.name(unread)
