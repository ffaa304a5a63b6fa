"""What the ledgers together know of the orders that a reconcile looks at, each as its own ledger has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compactor import Ledger
from compactor.books.order_index import OrderIndex
from compactor.broker.alpaca.translate import translate
from compactor.sync.ledger_view import LedgerView
from compactor.sync.plan import Answers

Write = Callable[..., Path]
Event = Callable[..., dict[str, Any]]


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
