"""One order beside what a ledger knows of it: when it is asked for more, and what each answer then makes."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from compactor.books.carry_over import CARRIED, leave_out
from compactor.broker.alpaca.translate import translate
from compactor.core.instants import nanos
from compactor.sync.compare import Comparison
from compactor.sync.executions import ChosenExecutions, Known
from compactor.sync.plan import Plan
from tests.test_differences import NOW, PLACED, activity, known, order, plan, problems, told

LATER = "2026-03-02T15:10:00Z"


def sent(found: Plan) -> list[dict[str, Any]]:
    return [event for events in found.events.values() for event in events]


def filled(qty: str, price: str | None = "10", **fields: Any) -> dict[str, Any]:
    """The order at the broker with so many filled at that average."""
    status = "filled" if qty == "10" else "partially_filled"
    return order(**{"filled_qty": qty, "filled_avg_price": price, "status": status, "updated_at": LATER, **fields})


def infer(found: Known, qty: str, price: str = "10") -> Known:
    """The same with so many more that were inferred."""
    found.filled += Decimal(qty)
    found.value += Decimal(qty) * Decimal(price)
    found.inferred += Decimal(qty)
    return found


# What is asked for.


def test_executions_that_add_up_alike_are_left_alone() -> None:
    """Activities may join what the stream told apart: quantity and value are the same, and nothing is booked anew."""
    found = plan([filled("4", "11")], {"o1": known(("x", "2", "10"), ("y", "2", "12"))}, [activity(1, "4", "11", "4")])
    assert Plan() == found


def test_an_inferred_trade_gives_way_to_its_execution_without_a_question() -> None:
    view = {"o1": infer(known(row={}), "10")}
    found = plan([filled("10")], view, [activity(1, "10", "10", "10", type="fill")])
    assert (["fill"], []) == (told(found), found.to_ask_fills)


def test_where_what_was_inferred_is_told_in_part_the_rest_is_asked_for() -> None:
    """The oldest executions may be in no list; once all are there, what is left stays inferred."""
    view = {"o1": infer(known(row={}), "10")}
    part = [activity(1, "3", "10", "3")]
    assert ["o1"] == plan([filled("10")], view, part).to_ask_fills
    found = plan([filled("10")], view, part, fills_asked={"o1"})
    assert (["partial_fill"], []) == (told(found), found.to_ask_fills)


def test_an_execution_that_changed_nothing_is_told_once_more_under_a_name_of_its_own() -> None:
    """Chaos, 55301: the ledger took it for another one with its numbers. What that does not put right is left alone."""
    ours = infer(known(("x", "4", "10"), ("y", "4", "11"), row={}), "2")
    there, fills = filled("10", "10.4"), [activity(1, "4", "10", "4"), activity(2, "4", "11", "8")]
    last = activity(3, "2", "10", "10", type="fill")
    runs, tried = [], set[tuple[str, str]]()
    for _ in range(3):
        found = plan([there], {"o1": ours}, [*fills, last], agreed=tried)
        tried |= set(found.tried)
        runs.append([(one["execution_id"], one["event_id"]) for one in sent(found) if one["event"] == "fill"])
    [(name, event_id)], [(other, other_id)], nothing = runs
    assert ([], f"{name}/2@10", True) == (nothing, other, other_id.startswith("digest:") and other_id != event_id)
    ours.executions.add(other)
    first = {one for one in tried if not one[1].endswith("again")}
    [third] = plan([there], {"o1": ours}, [*fills, last], agreed=first).events["alpha"][:1]
    assert f"{name}/2@10/2" == third["execution_id"], "that name is another one's"


def test_an_average_that_is_rounded_to_cents_costs_no_question() -> None:
    """1 at 10.00 and 2 at 10.01 are 10.00667, which some brokers call 10.01; a cent beside it was corrected."""
    view = {"o1": known(("x", "1", "10"))}
    fills = [activity(1, "1", "10", "1"), activity(2, "2", "10.01", "3")]
    found = plan([filled("3", "10.01")], view, fills)
    assert (["partial_fill"], []) == (told(found)[:1], found.to_ask_fills)
    assert ["o1"] == plan([filled("3", "10.02")], view, fills).to_ask_fills


def test_a_broker_that_tells_more_of_another_average_rounds_none_to_cents() -> None:
    """Chaos, 53129: an execution was corrected by a cent beside one that is new, and the average was a short number."""
    view = {"o1": known(("x", "1", "10"))}
    fills = [activity(1, "1", "10", "1"), activity(2, "2", "10.01", "3")]
    other = order(id="o2", filled_qty="3", filled_avg_price="10.006666667", status="canceled")
    assert "o1" in plan([filled("3", "10.01"), other], view, fills).to_ask_fills
    assert "o1" not in plan([filled("3", "10.006666667"), other], view, fills).to_ask_fills
    padded = {**other, "filled_avg_price": "10.010"}
    assert "o1" not in plan([filled("3", "10.01"), padded], view, fills).to_ask_fills


def test_what_was_asked_for_in_vain_is_asked_again_once_a_number_has_changed() -> None:
    """Ours or the broker's: quantity or average."""
    there, view = filled("6"), {"o1": known(("x", "4", "10"))}
    assert ["o1"] == plan([there], view).to_ask_fills
    [tried] = plan([there], view, fills_asked={"o1"}).tried
    assert [] == plan([there], view, agreed={tried}).to_ask_fills
    for changed in (filled("7"), filled("6", "11")):
        assert ["o1"] == plan([changed], view, agreed={tried}).to_ask_fills
    for ours in (known(("x", "3", "10")), known(("x", "4", "11"))):
        assert ["o1"] == plan([there], {"o1": ours}, agreed={tried}).to_ask_fills


def test_less_at_the_broker_is_asked_about_also_where_the_value_is_the_same() -> None:
    """10 at 10 here, 8 at 12.50 there: something was taken back."""
    assert ["o1"] == plan([filled("8", "12.50")], {"o1": known(("x", "10", "10"))}).to_ask_fills


def test_an_order_of_which_nothing_is_filled_has_no_average() -> None:
    """Whatever the broker says of its price."""
    assert Plan() == plan([order(filled_avg_price="0")], {"o1": known()})


def test_a_correction_is_found_while_an_inferred_trade_gives_way() -> None:
    """The average tells it; the quantities alone agree."""
    view = {"o1": infer(known(("a-1", "6", "10")), "4")}
    fills = [activity(1, "6", "11", "6"), activity(2, "4", "10", "10", type="fill")]
    found = plan([filled("10", "10.6")], view, fills, fills_asked={"o1"})
    assert {"trade_correct", "fill"} == {event["event"] for event in sent(found)} - {"snapshot"}
    [corrected] = [event for event in sent(found) if event["event"] == "trade_correct"]
    assert ("a-1", "11") == (corrected["previous_execution_id"], corrected["price"])


# What is told.


@pytest.mark.parametrize(("order_class", "events"), [("", []), ("simple", []), ("mleg", ["snapshot"])])
def test_only_a_leg_is_ended_by_a_snapshot_after_its_late_fills(order_class: str, events: list[str]) -> None:
    """An order that has ended here needs none: the fills are booked. Of a leg the parent may have told all there is."""
    there = filled("4", status="canceled", order_class=order_class)
    found = plan([there], {"o1": known(row={})}, [activity(1, "4", "10", "4")])
    assert ["partial_fill", *events] == told(found)


def test_a_leg_whose_state_is_no_end_is_not_opened_by_its_fills() -> None:
    there = filled("4", status="calculated", order_class="mleg")
    assert ["partial_fill"] == told(plan([there], {"o1": known(row={})}, [activity(1, "4", "10", "4")]))


def test_a_leg_that_is_open_is_told_as_it_stands() -> None:
    """Its parent's fills are all that is known: an order like any unknown one, as of its own time."""
    there = filled("4", order_class="mleg")
    [event] = sent(plan([there], {"o1": known(("x", "4", "10"), row={}, has_events=False)}))
    assert ("snapshot", LATER) == (event["event"], event["ts"])


def test_a_last_fill_of_an_order_that_is_not_filled_does_not_end_it() -> None:
    """Something of it was taken back since: how the order stands has to be told."""
    fills = [activity(1, "4", "10", "4", type="fill")]
    assert ["fill", "snapshot"] == told(plan([filled("4")], {"o1": known()}, fills))


def test_a_last_fill_does_not_end_an_order_of_which_more_is_missing() -> None:
    """Also where the broker tells no price, so that nothing can be inferred."""
    fills = [activity(1, "4", "10", "10", type="fill")]
    there = filled("10", None)
    assert ["fill", "snapshot"] == told(plan([there], {"o1": known()}, fills, fills_asked={"o1"}))


def test_nothing_is_inferred_of_a_multi_leg_order() -> None:
    """Rule 4.10: its money is in its legs."""
    for order_class, events in (("bracket", ["snapshot"]), ("mleg", [])):
        row = {**(known().row or {}), "status": "partially_filled", "order_class": order_class}
        found = plan([filled("4", order_class=order_class)], {"o1": known(row=row)}, fills_asked={"o1"})
        assert events == told(found)


def test_terms_are_told_as_of_the_placing() -> None:
    """So that the fills are not before them; where it is not said when that was, they are as of the last change."""
    fills = [activity(1, "4", "10", "4")]
    [terms, *_] = sent(plan([filled("4")], {}, fills))
    assert (PLACED, "SPY") == (terms["ts"], terms["symbol"])
    [terms, *_] = sent(plan([filled("4", created_at=None, submitted_at=None)], {}, fills))
    assert LATER == terms["ts"]


def test_what_came_and_went_without_a_trade_is_nothing() -> None:
    [there] = translate(order(status="canceled")).events
    assert [] == Comparison(ChosenExecutions(there, None, [], nanos(NOW), False)).events()


# What the stream should have told.


def test_a_bust_that_the_stream_did_not_tell_is_no_silence() -> None:
    """It may have named the execution by another id; the status that follows from it proves nothing either."""
    found = plan([order()], {"o1": known(("x", "4", "10"))}, fills_asked={"o1"})
    assert "trade_bust" in told(found)
    assert [] == found.untold


@pytest.mark.parametrize(
    ("before", "now", "is_untold"),
    [
        (None, "accepted", False),
        (None, "held", False),
        (None, "partially_filled", True),
        ("pending_cancel", "accepted", True),
        ("new", "pending_cancel", True),
    ],
)
def test_a_change_of_status_is_what_a_stream_tells(before: str | None, now: str, is_untold: bool) -> None:
    """Except that an order was merely accepted, of which nobody knew."""
    view = {} if before is None else {"o1": known(row={**(known().row or {}), "status": before})}
    found = plan([order(status=now)], view)
    assert (["snapshot"], ["o1"] if is_untold else []) == (told(found), found.untold)


def test_fills_that_nobody_told_are_a_silence() -> None:
    """The status is the same, and no activity has them."""
    found = plan([filled("6")], {"o1": known(("x", "4", "10"))}, fills_asked={"o1"})
    assert (["snapshot"], ["o1"]) == (told(found), found.untold)


def test_two_corrections_that_leave_the_sums_as_they_were_are_found_where_all_executions_are_listed() -> None:
    """Only the executions themselves tell of them; they have to have the broker's average, or some may be late."""
    view = {"o1": known(("x", "2", "10.01"), ("y", "2", "10.03"))}
    fills = [activity(1, "2", "10.02", "2"), activity(2, "2", "10.02", "4")]
    assert ["o1"] == plan([filled("4", "10.02", status="filled")], view, fills).to_ask_fills
    found = plan([filled("4", "10.02", status="filled")], view, fills, fills_asked={"o1"})
    assert ["trade_correct", "trade_correct", "snapshot"] == told(found)
    assert ["snapshot"] == told(plan([filled("4", None, status="filled")], view, fills, fills_asked={"o1"}))
    assert ["snapshot"] == told(plan([filled("4", "10.02", status="filled")], view, fills[:1], fills_asked={"o1"}))


# What a replacement carries over.


def replacement(qty: str, **fields: Any) -> list[dict[str, Any]]:
    """An order of which 3 were filled, and the one that replaced it, of which the broker counts so many."""
    first = order("a", status="replaced", replaced_by="o1", filled_qty="3", filled_avg_price="10")
    return [first, filled(qty, replaces="a", **fields)]


def test_what_was_filled_before_is_no_difference() -> None:
    """Its own executions are all there; and not only while the broker's answer is fresh."""
    view = {"o1": known(("x", "2", "10"), row={**(known().row or {}), "status": "partially_filled", "replaces": "a"})}
    view["a"] = known(("w", "3", "10"), row={})
    fills = [activity(1, "2", "10", "2")]
    assert ["o1"] == plan(replacement("5"), view, fills).to_ask_fills
    found = plan(replacement("5"), view, fills, fills_asked={"o1"})
    assert ([], []) == (told(found), problems(found))
    assert found.agreed
    again = plan(replacement("5"), view, fills, agreed=set(found.agreed))
    assert ([], [], []) == (told(again), problems(again), again.to_ask_fills)


@pytest.mark.parametrize("cum", [("1", "2"), ("4", "5"), (None, "5"), ("4", None)])
def test_executions_of_a_replacement_are_told_by_its_own_sums(cum: tuple[str | None, str | None]) -> None:
    """Their cumulative quantities begin at nothing or at what was filled before; one that tells none is given none."""
    fills = [activity(1, "1", "10", cum[0]), activity(2, "1", "10", cum[1])]
    found = plan(replacement("5"), {"a": known(("w", "3", "10"), row={})}, fills, fills_asked={"o1"})
    own = {event["execution_id"]: event.get("filled_qty") for event in sent(found) if event["event"] == "partial_fill"}
    assert {"a-1": cum[0] and "1", "a-2": cum[1] and "2"} == own
    assert "2" == sent(found)[-1]["filled_qty"]


def test_the_last_fill_of_a_replacement_ends_it() -> None:
    """All of its own are there, so that no snapshot has to say how it stands."""
    view = {"a": known(("w", "3", "10"), row={}), "o1": known(row={**(known().row or {}), "replaces": "a"})}
    fills = [activity(1, "7", "10", "10", type="fill")]
    found = plan(replacement("10"), view, fills, fills_asked={"o1"})
    assert ["fill"] == told(found)
    assert ("7", "3") == (sent(found)[0]["filled_qty"], sent(found)[0][CARRIED])


def test_a_corrected_execution_of_a_replacement_that_keeps_its_id_is_found() -> None:
    """By its numbers, where all of its own are listed; the average of both orders moves by less than a cent."""
    view = {"a": known(("w", "3", "10"), row={}), "o1": known(("a-1", "2", "10"), row={})}
    listed = [activity(1, "2", "10.01", "2")]
    assert ["o1"] == plan(replacement("5", filled_avg_price="10.004"), view, listed).to_ask_fills
    found = plan(replacement("5", filled_avg_price="10.004"), view, listed, fills_asked={"o1"})
    [event] = [one for one in sent(found) if one["event"] != "snapshot"]
    assert ("trade_correct", "10.01", "a-1") == (event["event"], event["price"], event["previous_execution_id"])


def test_what_tells_no_sum_carries_none() -> None:
    event = {"order_id": "o", "qty": "1"}
    assert event == leave_out(event, Decimal(3))
    assert {"filled_qty": "2"} == leave_out({"filled_qty": "2"}, Decimal(0))
    assert {"filled_qty": "2", CARRIED: "3"} == leave_out({"filled_qty": "5", "filled_avg_price": "1"}, Decimal(3))
    assert {"filled_qty": "0", CARRIED: "3"} == leave_out({"filled_qty": "1"}, Decimal(3))


@pytest.mark.parametrize(
    ("average", "before", "events"),
    [
        ("10", "10", ["trade_correct"]),
        ("10.01", "10.01", ["trade_correct"]),
        ("10.02", "10.01", ["partial_fill"]),
        ("11", "10", ["partial_fill"]),
        ("10", None, ["partial_fill"]),
        (None, "10", ["partial_fill"]),
    ],
)
def test_executions_of_a_replacement_are_revised_where_the_money_says_that_they_are_all(
    average: str | None, before: str | None, events: list[str]
) -> None:
    """Its own and those of its predecessor make the broker's quantity and average, to a cent; else they may be late."""
    first, second = replacement("5", filled_avg_price=average)
    first["filled_avg_price"] = before
    view = {"a": known(("w", "3", "10"), row={}), "o1": known(("x", "4", "11"), row={})}
    found = plan([first, second], view, [activity(1, "2", "10", "2")], fills_asked={"o1"})
    own = [event for event in sent(found) if event["event"] != "snapshot"]
    assert events == [event["event"] for event in own]
    if "trade_correct" in events:
        assert ("x", "2", "10") == tuple(own[0][name] for name in ("previous_execution_id", "qty", "price"))


def test_what_is_revised_of_a_replacement_is_told_by_its_own_sums() -> None:
    """A further execution, whose cumulative quantity counts what was filled before."""
    view = {"a": known(("w", "3", "10"), row={}), "o1": known(("x", "4", "11"), row={})}
    fills = [activity(1, "1", "10", "4"), activity(2, "1", "10", "5")]
    correction, further = (
        one
        for one in sent(plan(replacement("5", filled_avg_price="10"), view, fills, fills_asked={"o1"}))
        if one["event"] != "snapshot"
    )
    assert ("trade_correct", "partial_fill") == (correction["event"], further["event"])
    assert further["filled_qty"] in ("1", "2") and further[CARRIED] == "3"


def test_of_a_predecessor_without_an_answer_the_ledger_tells_the_money_too() -> None:
    """What is filled of it, and for how much, is what its trades say."""
    second = replacement("5")[1]
    fills = [activity(1, "2", "10", "2")]
    for price, events in (("10", ["trade_correct"]), ("12", ["partial_fill"])):
        view = {"a": known(("w", "3", price), row={}), "o1": known(("x", "4", "11"), row={})}
        found = plan([second], view, fills, missing={"a"}, fills_asked={"o1"})
        assert events == [event["event"] for event in sent(found) if event["event"] != "snapshot"]


@pytest.mark.parametrize(
    ("qty", "average", "told_sum", "quantity", "expected"),
    [
        # Above its quantity: its own 6, of which 2 are listed, so that 4 are inferred.
        ("9", "10.1", "2", "7", ("6", "10.15")),
        # Its last execution tells what is its own.
        ("9", "10.1", "6", "20", ("6", "10.15")),
        # No average of its own without that of before: only the sum.
        ("9", None, "6", "20", ("6", None)),
        # It may as well be its own: 9 of 20.
        ("9", "10.1", "9", "20", ("9", "10.1")),
        ("9", "10.1", None, "20", ("9", "10.1")),
        # Or all of it: 9 of 9.
        ("9", "10.1", None, "9", ("9", "10.1")),
    ],
)
def test_what_was_filled_before_is_left_out_while_own_executions_are_late(
    qty: str, average: str | None, told_sum: str | None, quantity: str, expected: tuple[str, str | None]
) -> None:
    """Where quantity or executions tell that the broker counts on, no share of before is inferred anew."""
    view = {"a": known(("w", "3", "10"), row={}), "o1": known(row={**(known().row or {}), "replaces": "a"})}
    orders = replacement(qty, filled_avg_price=average, status="filled")
    orders[1]["qty"] = quantity
    fills = [activity(1, "2", "10", told_sum, type="fill")]
    snapshot = sent(plan(orders, view, fills, fills_asked={"o1"}))[-1]
    assert ("snapshot", *expected) == tuple(snapshot.get(name) for name in ("event", "filled_qty", "filled_avg_price"))


def test_what_is_taken_back_is_told_as_of_now_and_the_order_as_of_its_change() -> None:
    """The bust has to come after whatever counted the shares; when the order changed it does not say."""
    view = {"o1": infer(known(("x", "3", "10")), "2")}
    bust, snapshot = sent(plan([filled("3")], view, fills_asked={"o1"}))
    assert ("trade_bust", "2026-03-02T15:59:50Z") == (bust["event"], bust["ts"][:19] + "Z")
    assert ("snapshot", LATER) == (snapshot["event"], snapshot["ts"])


def test_of_a_predecessor_without_an_answer_the_log_tells_what_it_carried() -> None:
    """The broker counts on from order to order: through a replacement of which nothing is filled itself."""
    second = replacement("3")[1] | {"status": "rejected"}
    for carried, expected in (("3", []), ("0", ["snapshot"])):
        asked = list[str]()

        def read(order_id: str, carried: str = carried, asked: list[str] = asked) -> Decimal:
            asked.append(order_id)
            return Decimal(carried)

        found = plan([second], {"o1": known(row={})}, unasked={"a"}, fills_asked={"o1"}, read_carried=read)
        assert (expected, ["a"]) == (told(found), asked)


def test_of_what_a_predecessor_carried_the_money_is_unknown() -> None:
    """Its trades tell that of its own executions alone, so that an average which fits these proves nothing."""
    view = {"a": known(("w", "1", "10"), row={}), "o1": known(("x", "4", "11"), row={})}
    second, fills = replacement("5", filled_avg_price="6")[1], [activity(1, "2", "10", "2")]
    more: dict[str, Any] = {"unasked": {"a"}, "fills_asked": {"o1"}, "read_carried": lambda _: Decimal(2)}
    assert "trade_correct" not in told(plan([second], view, fills, **more))


def test_what_was_inferred_this_instant_is_taken_back_after_it() -> None:
    """At the same instant a quantity counts nothing of what is taken back (4.7), and a clock may be set back."""
    found = infer(known(("x", "3", "10")), "2")
    found.inferred_ns = nanos("2026-03-02T15:59:55Z")
    bust = sent(plan([filled("3")], {"o1": found}, fills_asked={"o1"}))[0]
    assert ("trade_bust", "2026-03-02T15:59:55.000000001Z") == (bust["event"], bust["ts"])
