"""What a reconcile plans, from the broker's words and what a ledger knows: pure, so that each case is a line or two."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

from compactor.broker.alpaca.translate import translate
from compactor.core.instants import nanos
from compactor.sync.executions import Known
from compactor.sync.plan import Answers, Plan, plan_reconcile

NOW = "2026-03-02T16:00:00Z"
PLACED = "2026-03-02T15:00:00Z"


def order(order_id: str = "o1", **fields: Any) -> dict[str, Any]:
    """An open order of 10 as REST returns it."""
    told = {"id": order_id, "client_order_id": "alpha:1", "symbol": "SPY", "side": "buy", "qty": "10", "status": "new"}
    times = {"created_at": PLACED, "submitted_at": PLACED, "updated_at": PLACED}
    return {**told, "filled_qty": "0", "filled_avg_price": None, "time_in_force": "day", **times, **fields}


def activity(number: int, qty: str, price: str, cum_qty: str | None = None, **fields: Any) -> dict[str, Any]:
    told = {"activity_type": "FILL", "type": "partial_fill", "id": f"a-{number}", "order_id": "o1", "symbol": "SPY"}
    at = {"transaction_time": f"2026-03-02T15:0{number}:00Z", "side": "buy", "qty": qty, "price": price}
    return {**told, **at, "cum_qty": cum_qty, **fields}


def known(*fills: tuple[str | None, str, str], row: dict[str, Any] | None = None, **fields: Any) -> Known:
    """What team alpha's ledger knows of an order: its executions by id, quantity and price; open unless `row` is {}."""
    found = Known("alpha", **fields)
    for number, (execution_id, qty, price) in enumerate(fills):
        numbers = Decimal(qty), Decimal(price)
        found.filled += numbers[0]
        found.value += numbers[0] * numbers[1]
        found.standing[f"t-{number}"] = (execution_id, *numbers)
        found.numbers += Counter([numbers])
        found.executions |= {execution_id} if execution_id is not None else set()
    status = "partially_filled" if fills else "new"
    terms = {"symbol": "SPY", "side": "buy", "quantity": "10", "time_in_force": "day", "client_order_id": "alpha:1"}
    found.row = {"order_id": "o1", "status": status, "updated_at": PLACED, **terms} if row is None else row or None
    return found


def plan(orders: list[Any], view: dict[str, Known], activities: Any = (), **more: Any) -> Plan:
    answers = Answers()
    answers.take(translate(orders), translate(list(activities)))
    return plan_reconcile(answers, more.pop("missing", ()), view, NOW, 10, **more)


def told(found: Plan) -> list[str]:
    return [event["event"] for events in found.events.values() for event in events]


def problems(found: Plan) -> list[str]:
    return [one.kind for one in found.problems]


def test_where_all_agrees_nothing_is_planned() -> None:
    """Issue 4, 4: it appends only what changes something."""
    assert Plan() == plan([order()], {"o1": known()})


def test_what_came_and_went_without_a_trade_is_not_adopted() -> None:
    """An order that nobody here knew and that ended without a fill changes nothing."""
    assert Plan() == plan([order(status="canceled")], {})


def test_an_order_is_watched_until_it_is_quiet() -> None:
    """Issue 4, 4: 10 seconds without an event, by the broker's clock; a leg is watched by its parent"""
    legs = [order("leg", status="held", updated_at="2026-03-02T15:59:55Z")]
    found = plan([order(legs=legs)], {"o1": known()})
    assert ([], ["leg"], ["o1"]) == (told(found), found.waiting, found.to_watch)


def test_an_event_of_ours_counts_as_unrest_too() -> None:
    """Issue 4, 4: the stream may have told us something that the list does not have yet."""
    row = {**(known().row or {}), "updated_at": "2026-03-02T15:59:51Z", "status": "accepted"}
    assert ["o1"] == plan([order()], {"o1": known(row=row)}).waiting


@pytest.mark.parametrize(
    ("fields", "events"),
    [
        ({"status": "pending_cancel"}, ["snapshot"]),
        ({"status": "expired"}, ["snapshot"]),
        ({"qty": "12"}, ["restated"]),
        ({"qty": "10.0"}, []),
        ({"time_in_force": "gtc"}, ["restated"]),
        ({"limit_price": "9"}, ["snapshot"]),
        ({"order_class": "simple"}, []),
        ({"order_class": "bracket"}, ["snapshot"]),
        ({"status": "cancelled"}, ["snapshot"]),
    ],
)
def test_status_and_terms_become_the_broker_s(fields: dict[str, Any], events: list[str]) -> None:
    """Issue 4, 4: what differs is told as `restated`, what is missing as a `snapshot`; numbers are numbers."""
    assert events == told(plan([order(**fields)], {"o1": known()}))


def test_the_stop_of_a_trailing_order_is_no_term() -> None:
    """It moves with the market, and telling it every five minutes would tell nothing."""
    row = {**(known().row or {}), "order_type": "trailing_stop", "stop_price": "9.00"}
    assert [] == told(plan([order(type="trailing_stop", stop_price="9.50")], {"o1": known(row=row)}))


def test_fills_that_we_lack_come_from_the_activities() -> None:
    """Issue 4, 4: FILL activities where the broker's filled quantity is above ours."""
    there = order(status="partially_filled", filled_qty="7", filled_avg_price="10")
    fills = [activity(1, "4", "10", "4"), activity(2, "3", "10", "7")]
    assert ["o1"] == plan([there], {"o1": known(("x-1", "4", "10"))}).to_ask_fills
    found = plan([there], {"o1": known(("x-1", "4", "10"))}, fills)
    assert ["partial_fill", "snapshot"] == told(found)


def test_what_no_activity_tells_is_inferred() -> None:
    """4.7: a snapshot, once all activities of the order were asked for; without a price it is named instead."""
    there = order(status="partially_filled", filled_qty="7", filled_avg_price="10")
    found = plan([there], {"o1": known(("x-1", "4", "10"))}, [activity(1, "4", "10", "4")], fills_asked={"o1"})
    assert ["snapshot"] == told(found)
    ended = {"o1": known(("x-1", "4", "10"), row={})}
    assert ["snapshot"] == told(plan([{**there, "status": "canceled"}], ended, fills_asked={"o1"}))
    priceless = {**there, "status": "canceled", "filled_avg_price": None}
    assert ["fills_missing"] == problems(plan([priceless], ended, fills_asked={"o1"}))


def test_a_multi_leg_order_infers_nothing() -> None:
    """4.10: the money of a multi-leg order is in its legs."""
    parent = order(order_class="mleg", symbol=None, status="filled", filled_qty="4", filled_avg_price="0.60")
    assert ([], []) == (told(plan([parent], {"o1": known(row={})})), plan([parent], {"o1": known(row={})}).to_ask_fills)


def test_a_bust_is_believed_where_the_activities_add_up() -> None:
    """Issue 4, 8: what is left at the broker is what its activities say; the one that is not among them was busted."""
    there = order(status="partially_filled", filled_qty="4", filled_avg_price="10")
    view = {"o1": known(("x-1", "4", "10"), ("x-2", "3", "11"))}
    assert ["o1"] == plan([there], view).to_ask_fills
    found = plan([there], view, [activity(1, "4", "10", "4")], fills_asked={"o1"})
    assert [("trade_bust", "x-2")] == [
        (event["event"], event["previous_execution_id"])
        for event in found.events["alpha"]
        if event["event"] != "snapshot"
    ]


def revisions(found: Plan) -> list[tuple[str, str | None, str | None]]:
    events = found.events.get("alpha", [])
    return [(one["event"], one.get("previous_execution_id"), one.get("price")) for one in events]


def test_an_execution_that_is_new_does_not_take_the_place_of_a_corrected_one() -> None:
    """Chaos, 50032: of two activities that no trade has, the one under a trade's id is its correction; else that of
    its quantity."""
    there = order(status="partially_filled", filled_qty="7", filled_avg_price="10.57")
    fills = [activity(1, "3", "10", "3"), activity(2, "4", "11", "7")]
    fills[0]["id"], fills[1]["id"] = "20260302::x-1", "20260302::x-2"
    corrected = [("partial_fill", None, "10"), ("trade_correct", "x-2", "11"), ("snapshot", None, None)]
    assert corrected == revisions(plan([there], {"o1": known(("x-2", "4", "12"))}, fills, fills_asked={"o1"}))
    other_names = {"o1": known(("y-9", "4", "12"))}
    assert corrected[0] == revisions(plan([there], other_names, fills, fills_asked={"o1"}))[0]
    assert ("trade_correct", "y-9", "11") == revisions(plan([there], other_names, fills, fills_asked={"o1"}))[1]


def test_a_correction_hides_in_no_inferred_trade() -> None:
    """Chaos, 50032: the price that a sum infers makes up for a correction that nobody told. Once its execution comes,
    the average is compared without it, and the correction is found by the same reconcile."""
    there = order(status="partially_filled", filled_qty="7", filled_avg_price="10.5714")
    inferred = known(("x-1", "4", "12"), inferred=Decimal(3), row=None)
    inferred.filled, inferred.value = Decimal(7), Decimal("74")
    fills = [activity(1, "4", "11", "4"), activity(2, "3", "10", "7")]
    assert ["o1"] == plan([there], {"o1": inferred}, fills[1:]).to_ask_fills
    assert ("trade_correct", "x-1", "11") in revisions(plan([there], {"o1": inferred}, fills, fills_asked={"o1"}))


def inferred_beside(*fills: tuple[str | None, str, str], qty: str, price: str) -> Known:
    """What a ledger knows of an open order with an inferred trade."""
    found = known(*fills, inferred=Decimal(qty))
    found.filled += Decimal(qty)
    found.value += Decimal(qty) * Decimal(price)
    return found


@pytest.mark.parametrize("fills", [[("x-1", "3", "9")], [("x-1", "1", "9"), ("x-2", "2", "9")], []])
def test_what_was_inferred_goes_where_the_executions_are_all_that_the_broker_counts(
    fills: list[tuple[str | None, str, str]],
) -> None:
    """Chaos, 51174: an execution that nobody heard of was inferred, and taken back before anybody told of it."""
    there = order(status="partially_filled", filled_qty="3", filled_avg_price="9") if fills else order()
    view = {"o1": inferred_beside(*fills, qty="1.5", price="13")}
    found = plan([there], view)
    bust = found.events["alpha"][0]
    assert ("trade_bust", "-1.5", "13") == (bust["event"], bust["qty"], bust["price"])
    assert nanos(bust["ts"]) == nanos("2026-03-02T15:59:50Z"), "later than whatever counted the shares"
    assert bust["previous_execution_id"].startswith("digest:")
    assert [("o1", found.tried[0][1])] == found.tried and [] == found.inferred
    again = plan([there], view, agreed=found.tried)
    assert ([], ["filled_below"]) == (told(again), problems(again)), "what changed nothing is named instead"


def test_what_was_inferred_goes_also_where_its_execution_has_left_it_the_same_money() -> None:
    """Chaos, 328: one of two inferred shares has got its execution, and the other was taken back unheard."""
    there = order(status="filled", filled_qty="1", filled_avg_price="9")
    fills = [activity(1, "1", "9", "1")]
    first = plan([there], {"o1": inferred_beside(qty="2", price="10")}, fills, fills_asked={"o1"})
    assert "partial_fill" in told(first) and first.tried
    view = {"o1": inferred_beside(("x-1", "1", "9"), qty="1", price="11")}
    assert "trade_bust" in told(plan([there], view, agreed=first.tried))


def test_an_execution_is_told_without_a_sum_that_counts_what_is_gone() -> None:
    """Chaos, 71753: the sum of an activity is that of before a bust or a correction, of which nobody here heard."""
    there = order(status="filled", filled_qty="8", filled_avg_price="9")
    fills = [activity(1, "2", "9", "2"), activity(2, "6", "9", "10", type="fill")]
    told_sums = [(one["event"], one.get("filled_qty")) for one in plan([there], {"o1": known()}, fills).events["alpha"]]
    assert [("partial_fill", "2"), ("fill", None)] == told_sums


def test_what_was_inferred_stays_where_the_broker_counts_it() -> None:
    """Or where something else explains the sum: an execution that is new, or an average that is another."""
    there = order(status="partially_filled", filled_qty="4", filled_avg_price="10")
    view = {"o1": inferred_beside(("x-1", "3", "9"), qty="1", price="13")}
    assert ["o1"] == plan([there], view).to_ask_fills, "it may be one of those that come"
    there = order(status="partially_filled", filled_qty="3", filled_avg_price="9.5")
    assert ["o1"] == plan([there], view).to_ask_fills
    there = order(status="partially_filled", filled_qty="5", filled_avg_price="9")
    found = plan([there], view, [activity(1, "2", "9", "5")])
    assert (["partial_fill", "snapshot"], ["o1"]) == (told(found), found.inferred), (
        "what that leaves is seen afterwards"
    )


def test_an_activity_that_is_late_is_no_bust() -> None:
    """Where they do not add up, one may only be missing: nothing is taken back, and the difference is named."""
    there = order(status="canceled", filled_qty="6", filled_avg_price="10")
    view = {"o1": known(("x-1", "4", "10"), ("x-2", "3", "11"), row={})}
    found = plan([there], view, [activity(1, "4", "10", "4")], fills_asked={"o1"})
    assert ([], ["filled_below"]) == (told(found), problems(found))


def test_a_trade_without_an_id_is_not_taken_back() -> None:
    """4.9: a bust names an execution; where ours has no name, the difference is told instead."""
    there = order(status="canceled", filled_qty="4", filled_avg_price="10")
    view = {"o1": known(("x-1", "4", "10"), (None, "3", "11"), row={})}
    found = plan([there], view, [activity(1, "4", "10", "4")], fills_asked={"o1"})
    assert ([], ["filled_below"]) == (told(found), problems(found))


def test_a_corrected_execution_gets_its_new_numbers() -> None:
    """4.9: one that is gone and one that is new are one that was corrected."""
    there = order(status="partially_filled", filled_qty="4", filled_avg_price="10.05")
    found = plan([there], {"o1": known(("x-1", "4", "10"))}, [activity(1, "4", "10.05", "4")], fills_asked={"o1"})
    (event,) = [event for event in found.events["alpha"] if event["event"] == "trade_correct"]
    assert ("x-1", "a-1", "4", "10.05") == tuple(
        event[name] for name in ("previous_execution_id", "execution_id", "qty", "price")
    )


def test_a_correction_is_found_beside_a_fill_that_is_new() -> None:
    """Issue 4, 8: the order may have ended by now, and be in no list when the next run would see it."""
    there = order(status="filled", filled_qty="10", filled_avg_price="10.6")
    view = {"o1": known(("x-1", "4", "10"))}
    assert ["fill"] == told(plan([there], view, [activity(2, "6", "11", "10", type="fill")]))
    corrected = {**there, "filled_avg_price": "10.64"}
    assert ["o1"] == plan([corrected], view, [activity(2, "6", "11", "10", type="fill")]).to_ask_fills
    fills = [activity(1, "4", "10.1", "4"), activity(2, "6", "11", "10", type="fill")]
    assert ["fill", "trade_correct"] == sorted(told(plan([corrected], view, fills, fills_asked={"o1"})))


def test_an_average_that_the_activities_do_not_explain_is_asked_for_once() -> None:
    """The broker's own rounding must not cost a request every five minutes for every order."""
    there = order(status="filled", filled_qty="10", filled_avg_price="10.5")
    view = {"o1": known(("x-1", "10", "10"), row={})}
    fills = [activity(1, "10", "10", "10", type="fill")]
    assert ["o1"] == plan([there], view).to_ask_fills
    found = plan([there], view, fills, fills_asked={"o1"})
    assert ([], ["price_differs"], 1) == (told(found), problems(found), len(found.agreed))
    again = plan([there], view, agreed=found.agreed)
    assert ([], ["price_differs"]) == (again.to_ask_fills, problems(again))
    changed = plan([{**there, "filled_avg_price": "10.6"}], view, agreed=found.agreed)
    assert ["o1"] == changed.to_ask_fills


def test_a_successor_that_ended_unheard_does_not_stay_open() -> None:
    """3.9: it has a row because its predecessor names it; the broker's answer ends it, though it never filled."""
    shown = {"order_id": "o1", "status": "new", "filled_qty": "0", "replaces": "o0"}
    found = plan([order(status="canceled")], {"o1": known(row=shown, has_events=False)})
    assert (["snapshot"], []) == (told(found), problems(found))


def test_what_a_replacement_names_is_told_of_in_the_same_run() -> None:
    """3.9: the event that names a successor makes a row of it, which a successor that has ended must not keep."""
    chain = [
        order("o0", status="replaced", replaced_by="o1"),
        order("o1", status="replaced", replaced_by="o2", replaces="o0"),
        order("o2", status="canceled", replaces="o1"),
    ]
    found = plan(chain, {"o0": known()})
    assert ["o0", "o1", "o2"] == [event["order_id"] for events in found.events.values() for event in events]
    assert ["o1"] == plan(chain[:1], {"o0": known()}).to_ask


def test_what_has_ended_here_and_is_open_there_comes_back() -> None:
    """3.4: the broker's answer, later than all that is known, opens the order again."""
    found = plan([order()], {"o1": known(row={})})
    assert (["snapshot"], []) == (told(found), problems(found))


def test_one_odd_answer_stops_no_other() -> None:
    """Domain: one odd order must not fail a whole list."""
    odd = [
        None,
        {"id": "x"},
        order("o2", filled_qty="many"),
        order("o3", updated_at=7, created_at=7, submitted_at=None),
    ]
    found = plan([*odd, order("o1", status="expired")], {"o1": known(), "o2": known()})
    assert ["snapshot"] == told(found)
    assert ["bad_value", "bad_value", "bad_value", "missing_field"] == sorted(problems(found))
    live = plan([order("o2", filled_qty="many", side="up", limit_price="9")], {})
    assert (["snapshot"], ["bad_value"]) == (told(live), problems(live)), "what is live is taken as far as it is read"
    [event] = live.events["unassigned"]
    assert (False, False, "9") == ("filled_qty" in event, "side" in event, event["limit_price"])
    assert "without what cannot be read of it, side, filled_qty: " in live.problems[0].detail


def test_absence_is_asked_about_and_is_no_end() -> None:
    """Issue 4, 4: an order that is open here and nowhere listed is asked for; that there is none such ends nothing."""
    assert ["o1"] == plan([], {"o1": known()}).to_ask
    found = plan([], {"o1": known()}, missing={"o1"})
    assert ([], [], ["order_not_found"]) == (found.to_ask, told(found), problems(found))
    assert Plan() == plan([], {"o1": known()}, unasked={"o1"})


# What no test held before: each term by its own name, times that are missing, and prices that nearly agree.


OTHER_TERMS = [
    ("symbol", "symbol", "SPY", "QQQ"),
    ("side", "side", "buy", "sell"),
    ("qty", "quantity", "10", "12"),
    ("notional", "notional", "50", "50.01"),
    ("type", "order_type", "limit", "stop_limit"),
    ("limit_price", "limit_price", "9.50", "9.51"),
    ("stop_price", "stop_price", "9.50", "9.51"),
    ("trail_price", "trail_price", "1", "1.5"),
    ("trail_percent", "trail_percent", "1", "1.5"),
    ("time_in_force", "time_in_force", "day", "gtc"),
    ("order_class", "order_class", "oto", "bracket"),
    ("position_intent", "position_intent", "buy_to_open", "buy_to_close"),
    ("extended_hours", "extended_hours", True, False),
    ("client_order_id", "client_order_id", "alpha:1", "alpha:2"),
    ("replaces", "replaces", "o0", "o00"),
    ("replaced_by", "replaced_by", "o2", "o3"),
]


@pytest.mark.parametrize(("theirs", "ours", "old", "new"), OTHER_TERMS, ids=[one[1] for one in OTHER_TERMS])
def test_every_term_is_compared(theirs: str, ours: str, old: Any, new: Any) -> None:
    """Issue 4, 4: a term that differs is told, one that the ledger lacks as well, and one that agrees is not."""
    row = {name: value for name, value in (known().row or {}).items() if name != ours}
    for value, events in ((old, []), (new, ["restated"])):
        assert events == told(plan([order(**{theirs: value})], {"o1": known(row={**row, ours: old})}))
    if ours != "client_order_id":
        assert ["snapshot"] == told(plan([order(**{theirs: new})], {"o1": known(row=row)}))


@pytest.mark.parametrize("is_newest_first", [True, False])
def test_of_two_answers_the_later_one_counts_however_they_come(is_newest_first: bool) -> None:
    """An answer of the broker that came later, but is older, does not win; what only the other tells is kept."""
    old = order(status="new", updated_at="2026-03-02T15:00:00Z")
    new = order(status="pending_cancel", updated_at="2026-03-02T15:00:01Z")
    parent = order("p", legs=[old])
    answers = Answers()
    for one in (new, parent) if is_newest_first else (parent, new):
        answers.take(translate([one]))
    assert ("pending_cancel", "p") == tuple(answers.orders["o1"][name] for name in ("order_status", "parent_order_id"))
    answers.take(translate([order(status="held", updated_at="2026-03-02T15:00:01Z")]))
    assert "held" == answers.orders["o1"]["order_status"], "of two of one instant the last one"


@pytest.mark.parametrize(("price", "differs"), [("10.01", True), ("10.0099", False), ("9.99", True), ("9.9901", False)])
def test_prices_that_nearly_agree(price: str, differs: bool) -> None:
    """The broker's average may be rounded to cents: less than a cent is no difference, and a whole one is."""
    there = order(status="filled", filled_qty="10", filled_avg_price="10")
    found = plan([there], {"o1": known(("x-1", "10", price), row={})}, fills_asked={"o1"})
    assert (["price_differs"] if differs else []) == problems(found)


@pytest.mark.parametrize(("price", "asks"), [("10.0001", True), ("10.00009", False), ("9.9999", True)])
def test_an_average_that_is_off_by_more_than_its_rounding_is_looked_into(price: str, asks: bool) -> None:
    """A correction changes the average alone; four places are compared, since an average of ours is exact."""
    there = order(status="filled", filled_qty="10", filled_avg_price="10")
    assert (["o1"] if asks else []) == plan([there], {"o1": known(("x-1", "10", price), row={})}).to_ask_fills


def test_an_order_without_a_time_of_its_making_is_taken_in() -> None:
    """`created_at` may be absent: then its terms are as of what the broker tells."""
    there = order(status="partially_filled", filled_qty="4", filled_avg_price="10", created_at=None)
    there["submitted_at"] = None
    fills = [activity(1, "4", "10", "4")]
    events = plan([there], {}, fills, fills_asked={"o1"}).events["unassigned"]
    assert ["snapshot", "partial_fill", "snapshot"] == [event["event"] for event in events]
    assert [PLACED, "created_at" in events[0]] == [events[0]["ts"], False]


def replacement(**fields: Any) -> dict[str, Any]:
    """An order of 7 that replaced o0, of which 3 were filled by then."""
    return order(replaces="o0", qty="7", **fields)


def earlier() -> dict[str, Any]:
    return order("o0", status="replaced", filled_qty="3", filled_avg_price="10", replaced_by="o1")


@pytest.mark.parametrize("is_known", [True, False])
def test_what_the_predecessor_had_filled_is_not_traded_twice(is_known: bool) -> None:
    """Issue 16, 5: a replacement whose `filled_qty` goes on from its predecessor's has fewer executions of its own."""
    there = replacement(status="partially_filled", filled_qty="5", filled_avg_price="10")
    view = {"o0": known(("x-0", "3", "10"), row={})} | ({"o1": known()} if is_known else {})
    own = [activity(1, "2", "10", "2")]
    assert ["o1"] == plan([there, earlier()], view, own).to_ask_fills
    found = plan([there, earlier()], view, own, fills_asked={"o1"})
    events = [event for events in found.events.values() for event in events]
    assert "partial_fill" in [event["event"] for event in events]
    assert {"2", None} >= {event.get("filled_qty") for event in events}
    assert all("filled_avg_price" not in event for event in events)


def test_a_replacement_without_executions_of_its_own_infers_nothing() -> None:
    """Nothing of it is filled yet, whatever its sum says."""
    view = {"o0": known(("x-0", "3", "10"), row={})}
    there = replacement(filled_qty="3", filled_avg_price="10")
    found = plan([there, earlier()], view, fills_asked={"o1"})
    [event] = [event for events in found.events.values() for event in events]
    assert ("snapshot", "new", "0") == (event["event"], event["order_status"], event.get("filled_qty"))
    row = {**(known().row or {}), "quantity": "7", "replaces": "o0"}
    assert [] == told(plan([there, earlier()], view | {"o1": known(row=row)}, fills_asked={"o1"}))


@pytest.mark.parametrize(
    ("own", "filled", "average", "expected"),
    [
        ([("2", "11")], "5", "10.4", [("trade_correct", "x-1", "11")]),
        ([("1", "12")], "4", "10.5", [("trade_correct", "x-1", "12")]),
        ([], "3", "10", [("trade_bust", "x-1", None)]),
    ],
)
def test_what_was_revised_of_a_replacement_is_found_beside_what_it_counts_of_its_predecessor(
    own: list[tuple[str, str]], filled: str, average: str, expected: list[tuple[str, str, str | None]]
) -> None:
    """Chaos, 63119: a corrected execution was booked beside the one that it corrects, and the rest inferred."""
    there = replacement(status="partially_filled", filled_qty=filled, filled_avg_price=average)
    view = {"o0": known(("x-0", "3", "10"), row={}), "o1": known(("x-1", "2", "10"))}
    fills = [activity(number, qty, price, qty) for number, (qty, price) in enumerate(own, 1)]
    found = plan([there, earlier()], view, fills, fills_asked={"o1"})
    assert expected == [one for one in revisions(found) if one[0] in ("trade_correct", "trade_bust")]
    assert not {"fill", "partial_fill"} & set(told(found))
    late = replacement(status="partially_filled", filled_qty=filled, filled_avg_price="9")
    found = plan([late, earlier()], view, fills, fills_asked={"o1"})
    assert not {"trade_correct", "trade_bust"} & set(told(found)), "an average that is another: some are only late"


def test_a_replacement_whose_sum_is_its_own_is_believed() -> None:
    """Only what its own executions and its predecessor's sum explain exactly is left out."""
    there = replacement(status="partially_filled", filled_qty="4", filled_avg_price="10")
    view = {"o0": known(("x-0", "3", "10"), row={}), "o1": known()}
    found = plan([there, earlier()], view, [activity(1, "2", "10", "2")], fills_asked={"o1"})
    assert "4" in [event.get("filled_qty") for events in found.events.values() for event in events]


@pytest.mark.parametrize(
    ("theirs", "ours", "is_untold"),
    [
        ({"status": "accepted"}, None, False),
        ({"status": "new"}, None, True),
        ({"limit_price": "9", "status": "new"}, {"limit_price": "8"}, False),
        ({"status": "canceled"}, {}, True),
        ({"symbol": "BTC/USD"}, {"symbol": "BTCUSD"}, False),
    ],
)
def test_what_a_stream_may_be_silent_about_makes_it_not_mute(
    theirs: dict[str, Any], ours: dict[str, Any] | None, is_untold: bool
) -> None:
    """Issue 16, 5: an accepted order without a frame, and terms that change by themselves, make no stream mute."""
    view = {} if ours is None else {"o1": known(row={**(known().row or {}), **ours})}
    assert (["o1"] if is_untold else []) == plan([order(**theirs)], view).untold


def test_a_pair_is_the_same_with_and_without_its_slash() -> None:
    """Issue 16, 5: `BTCUSD` of one answer and `BTC/USD` of another are no difference."""
    row = {**(known().row or {}), "symbol": "BTCUSD"}
    assert Plan() == plan([order(symbol="BTC/USD")], {"o1": known(row=row)})


def test_an_order_that_the_broker_does_not_have_is_ended_where_somebody_says_so() -> None:
    """Issue 16, 5: after a paper reset its orders never come back; without a word they stay open, and are named."""
    view = {"o1": known()}
    assert ["order_not_found"] == problems(plan([], view, missing={"o1"}))
    found = plan([], view, missing={"o1"}, forget_missing=True)
    assert ([], ["canceled"]) == (problems(found), told(found))
    assert "forget-missing" in found.events["alpha"][0]["reason"]
