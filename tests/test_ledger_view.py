"""What the ledgers together know of the orders that a reconcile looks at, each as its own ledger has it."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from compactor import Ledger
from compactor.books.order_index import OrderIndex
from compactor.broker.alpaca.translate import translate
from compactor.core.instants import nanos
from compactor.sync import ledger_view
from compactor.sync.executions import Known
from compactor.sync.ledger_view import LedgerView
from compactor.sync.plan import Answers

Write = Callable[..., Path]
Event = Callable[..., dict[str, Any]]
T = "2026-01-06T15:00:00Z"


def answers_about(*order_ids: str, **fields: Any) -> Answers:
    answers = Answers()
    order = {"status": "new", "client_order_id": "c", "created_at": "2026-01-05T15:00:00Z"}
    answers.take(translate([{"id": order_id, **order, **fields} for order_id in order_ids]))
    return answers


def view_of(data: Path, *teams: str) -> LedgerView:
    ledgers = {team: Ledger(data / "team" / team) for team in teams}
    for ledger in ledgers.values():
        ledger.compact()
    index = OrderIndex(data)
    index.follow()
    return LedgerView(ledgers, index)


def test_each_order_is_as_its_own_ledger_has_it(data: Path, write_log: Write, placed: Event, filled: Event) -> None:
    """Where two ledgers name an order, it is compared with what the one that has it says, and the other is named."""
    write_log("bravo", placed("o-1", recorded_at="2026-01-05T15:00:00Z"), filled("o-1", qty="4", event="partial_fill"))
    write_log("alpha", placed("o-1", recorded_at="2026-01-05T15:00:01Z"), placed("o-2"))
    view = view_of(data, "alpha", "bravo")
    found = view.select(answers_about("o-1", "o-2"))
    assert {"o-1": "bravo", "o-2": "alpha"} == {order_id: known.team_id for order_id, known in found.items()}
    assert "4" == str(found["o-1"].filled)
    assert [("contested", "o-1")] == [(one.kind, one.order_id) for one in view.problems]


def test_an_execution_that_is_told_in_two_lines_is_one() -> None:
    """An order that was away and has come back tells it again; what corrects one has numbers of its own."""
    known = Known("alpha")
    lines = [("t1", "fill", "x", "10"), ("t2", "fill", "x", "10"), ("t3", "correction", "x", "11")]
    for trade_id, kind, execution_id, price in lines:
        ledger_view._add(known, ledger_view._Trade(trade_id, "o-1", "2", price, T, kind, execution_id), set())
    assert {(Decimal(2), Decimal(10)): 1, (Decimal(2), Decimal(11)): 1} == known.numbers


def test_when_shares_were_inferred_is_known(data: Path, write_log: Write, placed: Event, filled: Event) -> None:
    """By the last of these trades; an execution says nothing of that."""
    told = [placed("o-1", ts=T, event="snapshot", filled_qty=qty, filled_avg_price="3") for qty in ("1", "2")]
    told[0]["ts"] = "2026-01-06T14:00:00Z"
    write_log("alpha", placed("o-1"), *told, placed("o-2"), filled("o-2"))
    found = view_of(data, "alpha").select(answers_about("o-1", "o-2"))
    assert (nanos(T), 0) == (found["o-1"].inferred_ns, found["o-2"].inferred_ns)


def test_what_was_left_out_of_the_sums_of_an_order_is_read_in_its_log(
    data: Path, write_log: Write, placed: Event
) -> None:
    """Also of an order that has ended, without a trade of its own."""
    write_log("alpha", placed("o-1", carried_qty="3"), placed("o-2"), placed("o-1", event="canceled", carried_qty="4"))
    view = view_of(data, "alpha")
    assert [4, 0, 0] == [view.read_carried(order_id) for order_id in ("o-1", "o-2", "nobody")]


def test_an_order_assigned_to_a_ledger_that_has_nothing_of_it_is_that_team_s(
    data: Path, write_log: Write, placed: Event
) -> None:
    """4.12: a run of assign that was stopped is completed, and meanwhile nobody else gets the order."""
    move = {"event": "assigned", "order_id": "o-1", "ts": "2026-01-05T16:00:00Z", "to_team": "bravo"}
    write_log("alpha", placed("o-1"), move)
    [known] = view_of(data, "alpha").select(answers_about("o-1")).values()
    assert ("bravo", None, False) == (known.team_id, known.row, known.has_events)


def test_a_row_that_agrees_costs_no_look_into_a_log(
    data: Path, write_log: Write, placed: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order index is asked about what nothing here knows, not about thousands of open orders that agree."""
    write_log("alpha", *(placed(f"o-{number}") for number in range(20)))
    view = view_of(data, "alpha")
    asked: list[str] = []
    real = OrderIndex.find_owner

    def find_owner(self: OrderIndex, order_id: str, **fields: Any) -> Any:
        asked.append(order_id)
        return real(self, order_id, **fields)

    monkeypatch.setattr(OrderIndex, "find_owner", find_owner)
    answers = answers_about(*(f"o-{number}" for number in range(20)), "nobody")
    assert 20 == len(view.select(answers))
    assert ["nobody"] == asked
    assert not view.settle({"o-3"}, answers)
    assert ["nobody", "o-3"] == asked


def test_what_is_about_to_be_appended_is_settled_first(data: Path, write_log: Write, placed: Event) -> None:
    """An order that is open in one ledger and ended without a trade in the one that had it first."""
    ended = placed("o-1", event="canceled", recorded_at="2026-01-05T15:00:00Z")
    write_log("bravo", ended)
    write_log("alpha", placed("o-1", recorded_at="2026-01-05T15:00:01Z"))
    view = view_of(data, "alpha", "bravo")
    answers = answers_about("o-1")
    assert "alpha" == view.select(answers)["o-1"].team_id
    assert view.settle({"o-1"}, answers)
    assert "bravo" == view.select(answers)["o-1"].team_id


def test_orders_of_another_ledger_s_name_are_looked_up(data: Path, write_log: Write, placed: Event) -> None:
    """Whoever names the order: the broker or the row. A name of the same team, of no team, or of none costs nothing."""
    names = {"o-1": "bravo:1", "o-2": "alpha:1", "o-3": "random", "o-4": "nobody:1", "o-5": None}
    write_log("bravo", placed("x"))
    rows = [placed(one) | ({"client_order_id": name} if name else {}) for one, name in names.items()]
    write_log("alpha", *rows, placed("o-6"))
    view = view_of(data, "alpha", "bravo")
    view.select(answers_about(*names, "o-6", client_order_id=None))
    assert {"o-1"} == view._asked
    view = view_of(data, "alpha", "bravo")
    view.select(answers_about("o-2", "o-6", client_order_id="bravo:2"))
    assert {"o-1", "o-2", "o-6"} == view._asked


def test_an_order_of_which_all_was_taken_back_is_looked_up(
    data: Path, write_log: Write, placed: Event, filled: Event
) -> None:
    """Its trades say nothing any more, so that another ledger's word may count."""
    bust = {"event": "trade_bust", "order_id": "o-1", "ts": T, "previous_execution_id": "x-1"}
    write_log("alpha", placed("o-1"), filled("o-1", execution_id="x-1"), bust, placed("o-2"), filled("o-2"))
    view = view_of(data, "alpha")
    answers = answers_about("o-1", "o-2", status="canceled", filled_qty="1")
    found = view.select(answers)
    assert {"o-1"} == view._asked
    assert ("alpha", "0", []) == (found["o-1"].team_id, str(found["o-1"].filled), list(found["o-1"].standing))


def test_a_successor_without_events_of_its_own_is_its_predecessor_s_ledger_s(
    data: Path, write_log: Write, placed: Event
) -> None:
    """Rule 3.9: a row that only the predecessor's event made. An order that nobody knows is in no view."""
    replaced = placed("o-1", event="replaced", replaced_by="o-2", order_status="replaced")
    write_log("alpha", placed("o-1"), replaced)
    view = view_of(data, "alpha")
    answers = answers_about("o-2", "nobody")
    found = view.select(answers)
    view.settle(["o-2", "nobody"], answers)
    assert ("alpha", False) == (found["o-2"].team_id, found["o-2"].has_events)
    assert found["o-2"].row is not None
    assert "nobody" not in found
    assert not view.settle(["o-2", "nobody"], answers), "once is enough"


def test_when_an_open_order_was_placed(data: Path, write_log: Write, placed: Event, filled: Event) -> None:
    write_log("alpha", placed("o-1", created_at=T), placed("o-2", created_at=T), filled("o-2"))
    view = view_of(data, "alpha")
    view.select(answers_about("o-1", "o-2"))
    assert [T, None, None] == [view.find_created_at(one) for one in ("o-1", "o-2", "nobody")]


def test_the_family_of_an_order_is_found_through_the_broker_s_answers(
    data: Path, write_log: Write, placed: Event
) -> None:
    """By what replaces what, by legs, and by groups, over several steps; and it grows with the answers."""
    write_log("alpha", placed("root"))
    write_log("bravo", placed("other"))
    view = view_of(data, "alpha", "bravo")
    answers = answers_about("b", replaces="root")
    assert "alpha" == view.find_related("b", answers)
    assert view.find_related("d", answers) is None
    answers.take(translate({"id": "c", "status": "new", "client_order_id": "c", "updated_at": T, "replaced_by": "d"}))
    answers.take(translate({"id": "e", "status": "new", "client_order_id": "e", "updated_at": T, "group_id": "g"}))
    told = {"id": "b", "status": "new", "client_order_id": "c", "updated_at": T, "replaces": "root", "group_id": "g"}
    answers.take(translate(told))
    legs = [{"id": "c", "status": "new", "client_order_id": "c", "updated_at": T, "replaced_by": "d"}]
    answers.take(
        translate({"id": "e", "status": "new", "client_order_id": "e", "updated_at": T, "group_id": "g", "legs": legs})
    )
    assert "alpha" == view.find_related("e", answers)
    assert "alpha" == view.find_related("d", answers), (
        "d replaces c, a leg of e, in the group of b, which replaces root"
    )
    assert view.find_related("nobody", answers) is None


def test_executions_that_are_told_twice_have_their_numbers_once(
    data: Path, write_log: Write, placed: Event, filled: Event
) -> None:
    """An order that was away and has come back tells the same one in a second line; those without an id are counted."""
    ledger = write_log("alpha", placed("o-1"))
    with Ledger(ledger) as one:
        one.compact()
    lines: list[dict[str, Any]] = [
        {"execution_id": "x", "quantity": "4"}, {"execution_id": "x", "quantity": "4"},
        {"execution_id": None, "quantity": "3"}, {"execution_id": None, "quantity": "3"},
        {"execution_id": "x", "quantity": "4", "kind": "correction"},
        {"quantity": "-4", "kind": "reversal", "reverses": "t-0"}, {"quantity": "-9", "kind": "reversal"},
        {"quantity": "5", "kind": "inferred"}, {"quantity": "-2", "kind": "reversal", "reverses": "t-7"},
        {"quantity": "7", "order_id": "o-9"},
    ]  # fmt: skip
    with open(ledger / "trades.jsonl", "w") as file:
        for number, line in enumerate(lines):
            head: dict[str, Any] = {
                "trade_id": f"t-{number}",
                "order_id": "o-1",
                "execution_price": "10",
                "timestamp": T,
            }
            file.write(json.dumps(head | line) + "\n")
    index = OrderIndex(data)
    index.follow()
    found = LedgerView({"alpha": Ledger(ledger)}, index).select(answers_about("o-1"))["o-1"]
    assert {(4, 10): 2, (3, 10): 2} == {tuple(map(int, key)): count for key, count in found.numbers.items()}
    assert ["t-1", "t-2", "t-3", "t-4"] == list(found.standing)
    assert {"x"} == found.executions
    assert ("8", "80", "3") == (str(found.filled), str(found.value), str(found.inferred))


def test_what_an_unknown_order_came_from_is_looked_up(data: Path, write_log: Write, placed: Event) -> None:
    """It ended without a trade, so that only the log has it; its ledger is the unknown order's."""
    write_log("alpha", placed("a"), placed("a", event="canceled"), placed("z"), placed("z", event="canceled"))
    view = view_of(data, "alpha")
    found = view.select(answers_about("c", replaces="b", filled_qty="1"))
    assert {} == found
    answers = answers_about("c", replaces="b", filled_qty="1")
    answers.take(translate({"id": "b", "status": "replaced", "client_order_id": "c", "updated_at": T, "replaces": "a"}))
    found = view_of(data, "alpha").select(answers)
    assert {"a": "alpha"} == {order_id: known.team_id for order_id, known in found.items()}


def test_a_family_without_an_end_is_followed_so_far(
    data: Path, write_log: Write, placed: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that ties everything to everything costs no more than a bounded walk."""
    write_log("alpha", placed("o-0"))
    answers = Answers()
    for number in range(1, 7):
        told = {"id": f"o-{number}", "status": "new", "client_order_id": "c", "updated_at": T}
        answers.take(translate({**told, "replaces": f"o-{number - 1}"}))
    view = view_of(data, "alpha")
    assert "alpha" == view.find_related("o-6", answers)
    monkeypatch.setattr("compactor.sync.ledger_view.FAMILY_MAX", 3)
    assert ["alpha", None] == [view.find_related(one, answers) for one in ("o-2", "o-6")]
