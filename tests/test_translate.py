"""The translation of single messages, field by field: what is kept of each, and what of it is not taken for a trade."""

from __future__ import annotations

import json
from typing import Any

import pytest

from compactor.broker.alpaca.translate import translate, translate_message
from tests.scripted_alpaca import make_order

T = "2026-03-02T15:00:00Z"
CALL = "SPY261218C00500000"


def make_update(event: str = "new", order: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"event": event, "timestamp": T, "order": order or {"id": "o"}, **more}


def make_entry(execution: str = "fill", **details: Any) -> dict[str, Any]:
    return {
        "activity_type": "TRD", "executed_at": T, "ref_id": "x-1", "previous_id": "x-0", "price": "1", "qty": "1",
        "details": {"execution_type": execution, "order_id": "o", **details},
    }  # fmt: skip


ACTIVITY = {"activity_type": "FILL", "id": "t::e", "order_id": "o", "transaction_time": T, "type": "fill"}


@pytest.mark.parametrize(
    ("message", "source"),
    [
        ({"stream": "trade_updates", "data": make_update()}, "stream"),
        (make_update(), "stream"),
        (make_entry(), "stream"),
        (ACTIVITY, "rest"),
        (make_order("o"), "rest"),
    ],
)
def test_where_a_message_came_from_stands_on_its_event(message: dict[str, Any], source: str) -> None:
    """As it is said, else by what kind of message it is."""
    assert [source] == [event["source"] for event in translate(message).events]
    for said in ("stream", "rest", "import"):
        assert [said] == [event["source"] for event in translate([message], source=said).events]


@pytest.mark.parametrize(
    "message",
    [
        {"details": {"order_id": "o"}},
        {"id": "o"},
        {"id": "o", "status": "new"},
        {"id": "o", "time_in_force": "day", "updated_at": T},
        {"status": "new", "client_order_id": "a:1", "updated_at": T},
        {"order": {"id": "o"}},
        {},
        "text",
        7,
        None,
    ],
)
def test_what_is_neither_an_update_nor_an_order_nor_an_activity_is_named(message: Any) -> None:
    found = translate(message)
    assert ([], ["bad_value"]) == (found.events, [problem.kind for problem in found.problems])


@pytest.mark.parametrize("name", ["time_in_force", "client_order_id"])
def test_an_order_is_known_by_few_fields(name: str) -> None:
    """Id and status, and one that no other message has beside them."""
    [event] = translate({"id": "o", "status": "new", name: "x", "updated_at": T}).events
    assert ("snapshot", "o", "new", "x") == (event["event"], event["order_id"], event["order_status"], event[name])


@pytest.mark.parametrize(
    ("numbers", "event"),
    [
        ({"price": "1", "qty": "2"}, "fill"),
        ({"price": "1"}, "snapshot"),
        ({"qty": "2"}, "snapshot"),
        ({}, "snapshot"),
    ],
)
def test_a_fill_without_its_numbers_tells_only_how_the_order_stands(numbers: dict[str, Any], event: str) -> None:
    assert [event] == [one["event"] for one in translate(make_update("fill", execution_id="x", **numbers)).events]


def test_a_fill_with_its_price_and_the_order_s_sum_is_a_trade() -> None:
    """The sum tells its quantity."""
    update = make_update("partial_fill", {"id": "o", "filled_qty": "3"}, price="1")
    assert ["partial_fill"] == [one["event"] for one in translate(update).events]
    assert ["new"] == [one["event"] for one in translate(make_update("new", {"id": "o"})).events]


@pytest.mark.parametrize("event", ["trade_bust", "trade_correct"])
def test_a_revision_tells_what_it_revises(event: str) -> None:
    update = make_update(event, execution_id="x-2", previous_execution_id="x-1", price="1", qty="2")
    [found] = translate(update).events
    names = ("event", "execution_id", "previous_execution_id", "price", "qty")
    assert (event, "x-2", "x-1", "1", "2") == tuple(found[name] for name in names)


def test_what_is_no_execution_has_no_numbers_of_one() -> None:
    """A `new` has an execution id as well; a fill has nothing that went before."""
    more: dict[str, Any] = {"execution_id": "x-2", "previous_execution_id": "x-1", "price": "1", "qty": "2"}
    [new] = translate(make_update("new", **more)).events
    assert not more.keys() & new.keys()
    [fill] = translate(make_update("fill", **more)).events
    assert {"execution_id", "price", "qty"} == more.keys() & fill.keys()


def test_an_entry_of_the_activity_stream_is_partial_only_if_it_is_a_fill() -> None:
    for execution, event in (
        ("fill", "partial_fill"),
        ("trade_bust", "trade_bust"),
        ("trade_correct", "trade_correct"),
    ):
        [found] = translate(make_entry(execution, leaves_qty="3")).events
        assert event == found["event"]
        assert ("previous_execution_id" in found) == (execution != "fill")


@pytest.mark.parametrize("kind", ["fill", None])
@pytest.mark.parametrize("told", [{"leaves_qty": "6"}, {"leaves_qty": 6}, {"order_status": "partially_filled"}])
def test_an_activity_that_leaves_shares_open_is_a_partial_fill(kind: str | None, told: dict[str, Any]) -> None:
    """Whatever it is called: a fill would end the order, and hide what is live at the broker."""
    [event] = translate({**ACTIVITY, "type": kind, **told}).events
    assert "partial_fill" == event["event"]
    [event] = translate({**ACTIVITY, "type": kind, "leaves_qty": "0"}).events
    assert "fill" == event["event"]
    [event] = translate({**ACTIVITY, "leaves_qty": ""}).events
    assert "fill" == event["event"], "what is empty is not told"
    if kind is not None:
        [event] = translate(make_entry(kind, **told)).events
        assert "partial_fill" == event["event"]


@pytest.mark.parametrize(
    ("status", "leaves", "told"),
    [("filled", "6", None), ("filled", "0", "filled"), ("filled", None, "filled"), ("canceled", "6", "canceled")],
)
def test_an_activity_that_leaves_shares_open_does_not_tell_that_all_is_filled(
    status: str, leaves: str | None, told: str | None
) -> None:
    """That is the status that its order has by now; the rest has activities of its own, which would be late ones."""
    [event] = translate({**ACTIVITY, "type": "partial_fill", "leaves_qty": leaves, "order_status": status}).events
    assert told == event.get("order_status")
    [event] = translate(make_entry("partial_fill", leaves_qty=leaves, order_status=status)).events
    assert told == event.get("order_status")
    [event] = translate(make_entry("trade_bust", leaves_qty=leaves, order_status=status)).events
    assert status == event.get("order_status")


@pytest.mark.parametrize(
    ("told", "event"),
    [
        ({}, "partial_fill"),
        ({"leaves_qty": None}, "partial_fill"),
        ({"leaves_qty": ""}, "partial_fill"),
        ({"leaves_qty": "0"}, "fill"),
        ({"order_status": "filled"}, "fill"),
        ({"order_status": "canceled"}, "partial_fill"),
    ],
)
def test_an_activity_without_a_type_ends_its_order_only_if_it_says_so(told: dict[str, Any], event: str) -> None:
    """The order ends by the sum of its fills; a program that kept few fields does not hide what is live."""
    [found] = translate({name: value for name, value in ACTIVITY.items() if name != "type"} | told).events
    assert event == found["event"]


def test_legs_of_a_bracket_are_told_while_they_are_open() -> None:
    """In an update of the bracket: their ends and fills have updates of their own, which this one may be ahead of."""
    ended = make_order("a", status="filled", filled_qty="10", filled_avg_price="5")
    held = make_order("b", status="held", filled_qty="4", filled_avg_price="5")
    update = make_update("new", make_order("o", order_class="bracket", legs=[ended, held, 7]))
    found = translate(update)
    assert ["o", "b"] == [event["order_id"] for event in found.events]
    assert "o" == found.events[1]["parent_order_id"]
    assert not {"filled_qty", "filled_avg_price"} & found.events[1].keys()
    assert ["missing_field"] == [problem.kind for problem in found.problems]
    assert ["o", "a", "b"] == [event["order_id"] for event in translate(update["order"]).events]


def test_a_leg_without_times_is_as_of_its_order() -> None:
    """It is live, whatever a program that shortened it has left out."""
    order = make_order("o", updated_at=T, legs=[{"id": "l", "status": "held"}])
    parent, leg = translate(order).events
    assert (parent["ts"], "l", "held", "o") == (
        leg["ts"], leg["order_id"], leg["order_status"], leg["parent_order_id"]
    )  # fmt: skip


@pytest.mark.parametrize("status", ["canceled", "expired", "rejected", "replaced"])
def test_a_leg_of_a_bracket_that_ended_unfilled_is_told_in_an_update(status: str) -> None:
    """Nothing may be ahead of its own updates, which may never come: it would stay held for ever."""
    unfilled, unsaid = make_order("a", status=status, filled_qty="0"), make_order("b", status=status, filled_qty=None)
    part, odd = make_order("c", status=status, filled_qty="0.5"), make_order("d", status="filled", filled_qty="0")
    update = make_update("canceled", make_order("o", order_class="bracket", legs=[unfilled, unsaid, part, odd]))
    assert [("o", "new"), ("a", status)] == [
        (event["order_id"], event["order_status"]) for event in translate(update).events
    ]


@pytest.mark.parametrize("more", [{"order_class": "mleg"}, {"order_class": "", "legs": [make_order("leg")]}])
def test_the_money_of_a_multi_leg_order_is_in_its_legs(more: dict[str, Any]) -> None:
    """Rule 4.10: its class may be empty, its symbol is; an order with a symbol keeps its sums."""
    sums: dict[str, Any] = {"filled_qty": "10", "filled_avg_price": "5"}
    parent = make_order("o", symbol="", **sums, **more)
    for told in (translate(parent), translate(make_update("canceled", parent))):
        assert not sums.keys() & told.events[0].keys()
    for told in (translate({**parent, "symbol": "SPY"}), translate({**parent, "order_class": "", "legs": None})):
        assert sums == {name: told.events[0][name] for name in sums}


def test_a_fill_of_a_multi_leg_order_is_one_of_each_leg() -> None:
    """What stands in the order's own list of legs completes them; odd ones are left out."""
    order = {"id": "o", "symbol": "", "legs": [{"id": "l", "symbol": CALL, "side": "sell_short"}, 7], "filled_qty": "1"}
    update = make_update(
        "fill", order, legs=[{"order_id": "l", "qty": "1", "price": "2", "execution_id": "x"}, 7, None]
    )
    [found] = translate(update).events
    told = {"order_id": "l", "symbol": CALL, "side": "sell", "qty": "1", "price": "2", "execution_id": "x"}
    assert ("fill", [told]) == (found["event"], found["legs"])
    assert "filled_qty" not in found
    [bust] = translate({**update, "event": "trade_bust"}).events
    assert ("trade_bust", "l", "o", "x") == (
        bust["event"], bust["order_id"], bust["parent_order_id"], bust["execution_id"]
    )  # fmt: skip


def test_a_short_sale_is_a_sale_and_only_of_a_side() -> None:
    [event] = translate(make_order("o", name="sell_short", side="sell_short")).events
    assert ("sell", "sell_short") == (event["side"], event["client_order_id"])
    [event] = translate(make_order("o", side=["buy"])).events
    assert ["buy"] == event["side"], "what is odd is kept, for the fold to name"


def test_numbers_are_texts_and_what_is_empty_is_not_told() -> None:
    [event] = translate(make_order("o", qty=10, extended_hours=True, limit_price="", symbol=None)).events
    assert ("10", True) == (event["quantity"], event["extended_hours"])
    assert not {"limit_price", "symbol"} & event.keys()


@pytest.mark.parametrize(
    ("message", "order"),
    [
        ({"data": {"order": {"id": "o", "client_order_id": "a:1"}}}, {"order_id": "o", "client_order_id": "a:1"}),
        ({"order": {"id": 7, "client_order_id": None}}, {}),
        ({"order_id": "o", "activity_type": "X"}, {"order_id": "o"}),
        ({"id": "o", "order_id": "p"}, {"order_id": "o"}),
        ([{"id": "o"}], {}),
        (7, {}),
    ],
)
def test_of_what_cannot_be_read_the_order_is_told(message: Any, order: dict[str, str]) -> None:
    """As far as it can be seen, so that the line gets to the right team."""
    found = translate_message(json.dumps(message))
    assert ([], order) == (found.events, found.order)


def test_a_problem_shows_120_characters_of_what_was_found() -> None:
    for length, shown in ((118, "x" * 118 + '"'), (119, "x" * 119 + "…")):
        [problem] = translate("x" * length).problems
        assert f'expected a JSON object or a list of them, found "{shown}' == problem.detail


@pytest.mark.parametrize(
    ("legs", "is_named"),
    [("[{}]", True), ({"id": "l"}, True), (7, True), ("", False), (None, False), ([], False), ({}, False)],
)
def test_legs_that_are_no_list_are_named(legs: Any, is_named: bool) -> None:
    """In an order, in that of an update, and as executions: a take-profit would be missing without a word."""
    order = make_order("o", legs=legs)
    for message in (order, make_update("new", order), make_update("new", make_order("o"), legs=legs)):
        found = translate(message)
        assert ["o"] == [event["order_id"] for event in found.events]
        said = f"`legs` is {json.dumps(legs, separators=(',', ':'))}, expected a list of objects"
        problems = [(problem.kind, problem.detail.partition(", so")[0]) for problem in found.problems]
        assert ([("bad_value", said)] if is_named else []) == problems


@pytest.mark.parametrize(
    ("order", "leg", "status"),
    [
        ("filled", {"status": "canceled"}, "canceled"),
        ("filled", {}, "filled"),
        (None, {"status": "canceled"}, "canceled"),
        (None, {}, None),
    ],
)
def test_a_revision_of_a_leg_says_how_the_leg_stands(
    order: str | None, leg: dict[str, Any], status: str | None
) -> None:
    """As the order tells it, else as that stands; what its execution tells wins. A leg without id is none."""
    nested = {"id": "l", "symbol": CALL, "side": "buy", "filled_qty": "3", "qty": "9", "created_at": T, **leg}
    parent = {"id": "o", "symbol": "", "status": order, "filled_qty": "7", "legs": [{"symbol": "X"}, nested]}
    executions = [
        {"order_id": "l", "execution_id": "x-2", "previous_execution_id": "x-1", "side": "sell"},
        {"qty": "1"},
    ]
    found = translate(make_update("trade_bust", parent, legs=executions))
    [bust] = found.events
    told = {"event": "trade_bust", "order_id": "l", "parent_order_id": "o", "ts": T, "symbol": CALL, "side": "sell"}
    told |= {"execution_id": "x-2", "previous_execution_id": "x-1", "filled_qty": "3", "quantity": "9"}
    assert told == {name: bust[name] for name in told}
    assert status == bust.get("order_status")
    assert ["missing_field"] == [problem.kind for problem in found.problems]


def test_a_leg_that_tells_neither_status_nor_time_is_named() -> None:
    """It is not known to be live at any time."""
    legs = [{"id": "l"}, {"id": "m", "created_at": "2026-03-02T14:00:00Z"}]
    found = translate({"id": "o", "status": "new", "client_order_id": "c", "updated_at": T, "legs": legs})
    assert [("o", T), ("m", "2026-03-02T14:00:00Z")] == [(event["order_id"], event["ts"]) for event in found.events]
    assert ["missing_field"] == [problem.kind for problem in found.problems]


def test_legs_of_a_multi_leg_order_are_told_whole_in_an_update() -> None:
    """Their money is told nowhere else, and what was told in an update is another word than that of an answer."""
    legs = [make_order("a", status="filled", filled_qty="10", filled_avg_price="5")]
    parent = make_order("o", symbol="", order_class="mleg", legs=legs)
    by_update, by_answer = translate(make_update("canceled", parent)).events[1], translate(parent).events[1]
    for leg in (by_update, by_answer):
        assert ("a", "o", "filled", "10", "5") == tuple(
            leg[name] for name in ("order_id", "parent_order_id", "order_status", "filled_qty", "filled_avg_price")
        )
    assert by_update["event_id"] != by_answer["event_id"]
    frame = {"stream": "trade_updates", "data": make_update("canceled", parent)}
    assert by_update["event_id"] == translate(frame).events[1]["event_id"]


@pytest.mark.parametrize(
    ("numbers", "is_told"),
    [
        ({"status": "cancelled", "filled_qty": "0"}, True),
        ({"status": "canceled", "filled_qty": "0.000"}, True),
        ({"status": "canceled", "filled_qty": "much"}, False),
        ({"status": "canceled", "filled_qty": ""}, False),
        ({"status": "held", "filled_qty": "3"}, True),
        ({"status": None, "filled_qty": "3", "updated_at": T}, True),
    ],
)
def test_only_what_is_said_to_be_unfilled_is_an_end_of_a_leg(numbers: dict[str, Any], is_told: bool) -> None:
    leg = make_order("l", **numbers)
    found = translate(make_update("canceled", make_order("o", order_class="bracket", legs=[leg])))
    assert (["o", "l"] if is_told else ["o"]) == [event["order_id"] for event in found.events]
    assert not any("filled_qty" in event for event in found.events[1:])
