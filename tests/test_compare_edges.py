"""One order at the broker beside what a ledger knows of it: the branches that few orders take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from compactor import Ledger
from compactor.books.order_index import OrderIndex
from compactor.broker.alpaca.translate import translate
from compactor.broker.port import Translation
from compactor.sync.compare import BrokerDifference
from compactor.sync.executions import Known, new_fills
from compactor.sync.ledger_view import LedgerView
from compactor.sync.plan import Answers, orders_wanted, plan_reconcile
from compactor.sync.reconciled import Reconciled, join_turns
from tests.test_differences import NOW, PLACED, activity, known, order, plan, problems, told

Write = Callable[..., Path]


def sent(found: Any) -> list[dict[str, Any]]:
    return [event for events in found.events.values() for event in events]


def open_row(**fields: Any) -> dict[str, Any]:
    return {**(known().row or {}), **fields}


# Executions.


def fill(execution: str, qty: str, price: str, cum: str | None = None, at: int = 1) -> dict[str, Any]:
    return {
        "execution_id": execution, "event_id": f"e-{execution}", "qty": qty, "price": price, "filled_qty": cum,
        "ts": f"2026-03-02T15:0{at}:00Z",
    }  # fmt: skip


def test_an_execution_that_is_known_by_its_id_is_not_new() -> None:
    """Where the ids match, only the others of the same numbers go; what was corrected since adds nothing."""
    fills = [fill("u1", "2", "10", "2"), fill("u2", "2", "10", "4", at=2)]
    found, quantity, value = new_fills(fills, known(("u1", "2", "10")))
    assert (["u2"], Decimal(2), Decimal(20)) == ([one["execution_id"] for one in found], quantity, value)
    corrected = Known("alpha", executions={"u1", "u2"})
    assert ([], Decimal(0), Decimal(0)) == new_fills(fills, corrected)


def test_executions_of_the_same_numbers_are_counted() -> None:
    """Of ids that are not the stream's only the number of them counts: three here and two known make one more."""
    fills = [fill(f"a{number}", "2", "10", str(2 * number), at=number) for number in (3, 1, 2)]
    found, quantity, value = new_fills(fills, known(("x", "2", "10"), ("y", "2", "10")))
    assert ["a1", "a2", "a3"] == [one["execution_id"] for one in found], "in their order; the fold drops two of them"
    assert (Decimal(2), Decimal(20)) == (quantity, value)
    assert ([], Decimal(0), Decimal(0)) == new_fills(fills[:2], known(("x", "2", "10"), ("y", "2", "10")))
    assert (3, Decimal(6)) == (len(new_fills(fills, None)[0]), new_fills(fills, None)[1])


def test_fills_are_told_by_their_cumulative_quantity_then_by_time_then_by_id() -> None:
    fills = [
        fill("d", "1", "4"), fill("c", "1", "3", "3", at=1), fill("b", "1", "2", "2", at=3), fill("a", "1", "1", at=2),
        fill("e", "1", "5", at=2),
    ]  # fmt: skip
    found, _, _ = new_fills(fills, None)
    assert ["d", "a", "e", "b", "c"] == [one["execution_id"] for one in found]


# What is told of an order.


def test_a_leg_of_which_nothing_was_told_gets_its_terms_first() -> None:
    """It has no events of its own and no fills here: like any unknown order."""
    there = order(status="filled", filled_qty="5", filled_avg_price="10", qty="5")
    found = plan([there], {"o1": known(row={}, has_events=False)}, [activity(1, "5", "10", "5", type="fill")])
    assert ["snapshot", "fill"] == told(found)
    assert "order_status" not in sent(found)[0]


def test_a_leg_that_its_parent_s_fills_told_of_is_ended_by_its_own() -> None:
    """Nothing is opened by it: the fills were there, and the last one ends it."""
    there = order(status="filled", filled_qty="5", filled_avg_price="10", qty="5", order_class="mleg")
    legs = known(("x-1", "2", "10"), row={}, has_events=False)
    found = plan([there], {"o1": legs}, [activity(1, "2", "10", "2"), activity(2, "3", "10", "5", type="fill")])
    assert ["fill"] == told(found)
    part = plan([there], {"o1": legs}, [activity(1, "2", "10", "2"), activity(2, "3", "10", "5")])
    assert ["partial_fill", "snapshot"] == told(part), "a last one that is called partial does not"


def test_terms_that_a_row_lacks_come_before_its_fills() -> None:
    """A trade without symbol and side would be held back."""
    there = order(status="partially_filled", filled_qty="4", filled_avg_price="10")
    row = {name: value for name, value in open_row().items() if name not in ("symbol", "side")}
    found = plan([there], {"o1": known(row=row)}, [activity(1, "4", "10", "4")])
    assert ["snapshot", "partial_fill", "snapshot"] == told(found)
    terms = sent(found)[0]
    assert ("SPY", "buy", PLACED) == (terms["symbol"], terms["side"], terms["ts"])
    assert not {"order_status", "filled_qty", "filled_avg_price"} & terms.keys()
    assert ["snapshot"] == told(plan([order()], {"o1": known(row=row)})), "without fills one snapshot tells both"
    only_side = {**row, "symbol": "SPY"}
    assert ["snapshot", "partial_fill", "snapshot"] == told(
        plan([there], {"o1": known(row=only_side)}, [activity(1, "4", "10", "4")])
    )
    no_price = {name: value for name, value in open_row().items() if name != "time_in_force"}
    assert ["partial_fill", "snapshot"] == told(
        plan([there], {"o1": known(row=no_price)}, [activity(1, "4", "10", "4")])
    )


def test_the_last_fill_ends_an_order_by_itself() -> None:
    """No snapshot follows it, unless something is still missing."""
    there = order(status="filled", filled_qty="10", filled_avg_price="10")
    whole = plan([there], {"o1": known()}, [activity(1, "10", "10", "10", type="fill")])
    assert ["fill"] == told(whole)
    part = plan([there], {"o1": known()}, [activity(1, "4", "10", "10", type="fill")], fills_asked={"o1"})
    assert ["fill", "snapshot"] == told(part)


def test_what_comes_back_is_told_as_of_now() -> None:
    """3.4: an order that has ended here and is open there; its snapshot has to be later than all that is known."""
    [event] = sent(plan([order()], {"o1": known(row={})}))
    assert "2026-03-02T15:59:50Z" == event["ts"][:19] + "Z"
    late = order(updated_at="2026-03-02T15:59:50Z")
    assert "2026-03-02T15:59:50Z" == sent(plan([late], {"o1": known(row={})}))[0]["ts"]
    for status in ("calculated", "filled", "", None):
        assert [] == told(plan([order(status=status)], {"o1": known(row={})})), "an end, or nothing, opens no order"


def test_of_a_family_the_parent_is_no_term() -> None:
    """Where an order with legs was replaced, both it and its successor have them."""
    legs = [order("leg", status="held")]
    view = {"o1": known(row=open_row(order_id="o1")), "leg": known(row=open_row(status="held", parent_order_id="o0"))}
    assert [] == told(plan([order(legs=legs)], view))
    view["leg"] = known(row=open_row(status="held"))
    assert ["snapshot"] == told(plan([order(legs=legs)], view)), "but one that is missing is told"


def test_the_stop_of_an_order_that_does_not_trail_is_a_term() -> None:
    row = open_row(order_type="stop", stop_price="9.00")
    assert ["restated"] == told(plan([order(type="stop", stop_price="9.50")], {"o1": known(row=row)}))
    trail = open_row(order_type="trailing_stop", trail_percent="1")
    assert ["restated"] == told(plan([order(type="trailing_stop", trail_percent="2")], {"o1": known(row=trail)}))


@pytest.mark.parametrize(
    ("there", "view", "fills", "untold"),
    [
        (order(status="partially_filled", filled_qty="4"), known(), [activity(1, "4", "10", "4")], ["o1"]),
        (order(status="canceled", parent="p"), known(), [], ["o1"]),
        (order(status="held"), None, [], []),
        (order(status="pending_new"), None, [], []),
        (order(status="partially_filled"), known(row=open_row(status="new")), [], ["o1"]),
        (order(status="partially_filled", filled_qty="4", filled_avg_price="1"), known(), [], ["o1"]),
    ],
)  # fmt: skip
def test_what_a_working_stream_would_have_told(
    there: dict[str, Any], view: Known | None, fills: list[Any], untold: list[str]
) -> None:
    found = plan([there], {} if view is None else {"o1": view}, fills, fills_asked={"o1"})
    assert told(found)
    assert untold == found.untold


def test_legs_and_busts_are_none_of_what_a_stream_has_to_tell() -> None:
    """A leg may end unheard, and a bust names its execution by another id; a fill that is missing counts for both."""
    leg = order("leg", status="canceled")
    found = plan([order(legs=[leg])], {"o1": known(), "leg": known(row=open_row(parent_order_id="o1"))})
    assert (["snapshot"], []) == (told(found), found.untold)
    busted = order(status="partially_filled", filled_qty="4", filled_avg_price="10")
    view = {"o1": known(("x-1", "4", "10"), ("x-2", "3", "10"))}
    found = plan([busted], view, [activity(1, "4", "10", "4")], fills_asked={"o1"})
    assert (["trade_bust"], []) == (told(found)[:1], found.untold)
    leg = order("leg", status="partially_filled", filled_qty="4", filled_avg_price="1")
    row = open_row(parent_order_id="o1")
    found = plan([order(legs=[leg])], {"o1": known(), "leg": known(row=row)}, fills_asked={"leg"})
    assert ["leg"] == found.untold


def test_an_answer_without_a_status_changes_none() -> None:
    """Whatever else it tells."""
    assert [] == told(plan([order(status=None)], {"o1": known()}))


def test_what_was_changed_and_what_was_missing_are_told_at_once() -> None:
    """A `restated` has all terms."""
    found = plan([order(qty="12", limit_price="9")], {"o1": known()})
    assert ["restated"] == told(found)
    assert ("12", "9") == (sent(found)[0]["quantity"], sent(found)[0]["limit_price"])


# Planning.


def test_what_is_forgotten_leaves_other_problems_named() -> None:
    """`--forget-missing` ends what the broker does not have, and hides nothing else."""
    answers = Answers(problems=[BrokerDifference("bad_value", "odd", "o9"), BrokerDifference("missing_field", "odd")])
    found = plan_reconcile(answers, {"o1"}, {"o1": known(), "o2": known()}, NOW, 10, forget_missing=True)
    assert ["bad_value", "missing_field"] == problems(found)
    [event] = found.events["alpha"]
    assert ("canceled", "o1", NOW, "app") == (event["event"], event["order_id"], event["ts"], event["source"])
    assert ["o2"] == found.to_ask


def test_an_order_without_a_family_is_watched_itself() -> None:
    restless = order(status="pending_cancel", updated_at="2026-03-02T15:59:55Z")
    found = plan([restless], {"o1": known()})
    assert (["o1"], ["o1"]) == (found.waiting, found.to_watch)


def test_an_order_that_may_be_another_ledger_s_is_named_and_not_taken() -> None:
    """While a ledger cannot be read, what nobody knows may be its own."""
    found = plan([order()], {}, may_adopt=lambda one: False)
    assert ([], ["not_adopted"]) == (told(found), problems(found))
    assert [] == problems(plan([order()], {"o1": known()}, may_adopt=lambda one: False))


def test_an_order_is_asked_about_once_whoever_names_it() -> None:
    """Open here and in no list; or told of by an execution that is new. Nobody is asked twice."""
    view = {"o1": known(), "o2": known(row={}), "o3": known(("x", "4", "10"), row={})}
    fills = [activity(number, "4", "10", "4", order_id=f"o{number}") for number in (1, 2, 3, 4)]
    assert ["o1", "o2", "o4"] == plan([], view, fills).to_ask
    found = plan([], view, fills, missing={"o2"}, unasked={"o4", "o1"})
    assert [] == found.to_ask


def test_orders_that_changed_nothing_need_not_be_looked_up() -> None:
    answers = Answers()
    told_of = [
        order("open"), order("empty", status="canceled"), order("zero", status="expired", filled_qty="0.00"),
        order("some", status="canceled", filled_qty="0.50"), order("whole", status="filled", filled_qty="10"),
    ]  # fmt: skip
    answers.take(translate(told_of), translate([activity(1, "1", "1", order_id="executed")]))
    assert {"open", "some", "whole", "executed"} == orders_wanted(answers)


@pytest.mark.parametrize(
    ("filled", "quantities", "whole"),
    [("5", ["2", "3"], True), ("5.0", ["5"], True), ("5", ["2"], False), ("5", ["2", "4"], False), ("0", [], False),
     (None, ["2"], False)],
)  # fmt: skip
def test_executions_are_all_there_where_they_add_up(filled: str | None, quantities: list[str], whole: bool) -> None:
    answers = Answers()
    there = order(filled_qty=filled)
    answers.take(translate([there]), translate([activity(n, qty, "1") for n, qty in enumerate(quantities)]))
    assert whole == answers.has_all_fills(answers.orders["o1"])


def test_symbols_that_moved_just_now_are_restless() -> None:
    """By an order, by an execution, or because an order waits; at the very instant is quiet."""
    answers = Answers()
    at = "2026-03-02T15:59:50Z"
    late = "2026-03-02T15:59:50.000000001Z"
    answers.take(
        translate([
            order("a", symbol="A", updated_at=late), order("b", symbol="B", updated_at=at),
            order("c", symbol="C"), order("d", symbol="D"),
        ]),
        translate([activity(1, "1", "1", symbol="E", transaction_time=late), activity(2, "1", "1", symbol="F")]),
    )  # fmt: skip
    assert {"A", "E", "C"} == answers.list_restless(1_772_467_190 * 10**9, ["c", "nobody"])


def test_pages_that_overlap_tell_an_execution_once() -> None:
    answers = Answers()
    for _ in range(2):
        answers.take(Translation([], []), translate([activity(1, "1", "1"), activity(2, "1", "1")]))
    assert 2 == len(answers.fills["o1"])


# What the ledgers know.


def test_what_trades_say_of_an_order(data: Path, write_log: Write, placed: Any, filled: Any) -> None:
    """What stands, what is inferred, and which numbers there are; taken back is no more."""
    write_log(
        "alpha",
        placed("o-1", quantity="20"),
        filled("o-1", event="partial_fill", qty="4", price="10", execution_id="x-1", filled_qty="4"),
        filled("o-1", event="partial_fill", qty="3", price="11", execution_id="x-2", filled_qty="7"),
        {"event": "trade_bust", "order_id": "o-1", "ts": "2026-01-06T15:00:00Z", "previous_execution_id": "x-1"},
        {"event": "trade_correct", "order_id": "o-1", "ts": "2026-01-06T15:00:01Z", "previous_execution_id": "x-2",
         "execution_id": "x-3", "qty": "2", "price": "12"},
        {"event": "snapshot", "order_id": "o-1", "ts": "2026-01-06T15:00:02Z", "filled_qty": "5",
         "filled_avg_price": "12"},
    )  # fmt: skip
    with Ledger(data / "team/alpha") as ledger:
        ledger.compact()
        index = OrderIndex(data)
        index.follow()
        answers = Answers()
        answers.take(translate([order("o-1")]))
        found = LedgerView({"alpha": ledger}, index).select(answers)["o-1"]
    assert ("alpha", True) == (found.team_id, found.has_events)
    assert (Decimal(5), Decimal(60), Decimal(3)) == (found.filled, found.value, found.inferred)
    assert [("x-3", Decimal(2), Decimal(12))] == list(found.standing.values())
    assert {"x-1", "x-2", "x-3"} == found.executions
    assert Counter({(4, 10): 1, (3, 11): 1, (2, 12): 1}) == found.numbers


def test_what_has_ended_on_both_sides_costs_no_look_into_a_log(
    data: Path, write_log: Write, placed: Any, filled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its trades say what there is to know; only an order that is open at the broker is doubtful."""
    write_log("alpha", placed("o-1"), filled("o-1"), placed("o-2"), filled("o-2"))
    asked: list[str] = []
    real = LedgerView._ask

    def ask(self: LedgerView, order_id: str, answers: Answers) -> None:
        asked.append(order_id)
        real(self, order_id, answers)

    monkeypatch.setattr(LedgerView, "_ask", ask)
    with Ledger(data / "team/alpha") as ledger:
        ledger.compact()
        index = OrderIndex(data)
        index.follow()
        answers = Answers()
        answers.take(translate([order("o-1", status="filled", filled_qty="10"), order("o-2", filled_qty="10")]))
        LedgerView({"alpha": ledger}, index).select(answers)
    assert ["o-2"] == asked


# Turns.


def test_two_turns_are_one_result() -> None:
    """What both appended, and what the second leaves; of a dry turn nothing was appended."""
    from compactor.sync.open_ledgers import TeamReconciled

    first = Reconciled(
        False, requests=3, elapsed_ms=5, teams=[TeamReconciled("b", "b", [{"n": 1}]), TeamReconciled("a", "a", [{}])],
        waiting=["w"], untold=["u"], moved={"m": "a"}, problems=[BrokerDifference("x", "y")],
    )  # fmt: skip
    second = Reconciled(False, requests=4, elapsed_ms=7, teams=[TeamReconciled("b", "b", [{"n": 2}])], moved={"k": "b"})
    joined = join_turns(first, second)
    assert (7, 12, 3) == (joined.requests, joined.elapsed_ms, joined.events)
    assert [("a", [{}]), ("b", [{"n": 1}, {"n": 2}])] == [(one.team_id, one.events) for one in joined.teams]
    assert ([], ["u"], [], {"m": "a", "k": "b"}) == (joined.waiting, joined.untold, joined.problems, joined.moved)
    first.dry_run = True
    assert ["b"] == [one.team_id for one in join_turns(first, second).teams]
