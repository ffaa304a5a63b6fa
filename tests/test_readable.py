"""What is kept of a broker's answer that has odd fields: the order, its other fields, and the reason."""

from __future__ import annotations

from typing import Any

import pytest

from compactor.broker.readable import keep_readable

ORDER = {"event": "snapshot", "order_id": "o", "ts": "2026-03-02T15:00:00Z", "symbol": "AAPL", "quantity": "10"}
FILL = {**ORDER, "event": "fill", "qty": "1", "price": "2", "execution_id": "e"}


@pytest.mark.parametrize("event", [ORDER, FILL])
def test_an_answer_that_can_be_read_stays_as_it_is(event: dict[str, Any]) -> None:
    kept, problem = keep_readable(event)
    assert kept is event
    assert problem is None


@pytest.mark.parametrize(
    ("event", "missing"),
    [
        (ORDER | {"order_id": None}, "order_id"),
        ({"event": "snapshot", "order_id": "o"}, "ts"),
        (FILL | {"qty": None}, "qty"),
        ({name: value for name, value in FILL.items() if name != "price"}, "price"),
    ],
)
def test_an_answer_without_what_it_needs_is_left_out(event: dict[str, Any], missing: str) -> None:
    """Of an execution the money has to be there; an order needs none."""
    kept, problem = keep_readable(event)
    assert kept is None
    assert problem is not None
    assert ("missing_field", f"the broker's answer has no `{missing}`, and is left out") == (
        problem.kind,
        problem.detail,
    )


@pytest.mark.parametrize("odd", [{"price": "x"}, {"qty": "-1"}, {"ts": "soon"}])
def test_an_execution_whose_numbers_make_no_sense_is_left_out(odd: dict[str, Any]) -> None:
    kept, problem = keep_readable(FILL | odd)
    assert kept is None
    assert problem is not None
    assert problem.detail.startswith("the broker's answer cannot be read, and is left out: ")


@pytest.mark.parametrize("event", [ORDER, FILL])
def test_odd_fields_are_left_out_by_name_and_all_others_kept(event: dict[str, Any]) -> None:
    """In the order in which they came; the first reason is told."""
    odd = {"quantity": "many", "side": 7}
    kept, problem = keep_readable({**event, **odd, "limit_price": "5"})
    assert kept is not None
    assert [name for name in (*event, "limit_price") if name != "quantity"] == list(kept)
    assert "5" == kept["limit_price"]
    assert problem is not None
    assert "bad_value" == problem.kind
    assert "taken without what cannot be read of it, quantity, side: " in problem.detail
