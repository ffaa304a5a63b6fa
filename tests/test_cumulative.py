"""An activity that tells only what it leaves open is completed by the quantity of its order."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compactor.core.decoding import build_event
from compactor.core.events import Event, Problem
from compactor.imports.captures import import_alpaca
from compactor.imports.cumulative import CumulativeQuantities
from compactor.imports.messages import Translated, read_capture
from compactor.ledger import Ledger

T = "2026-03-02T14:30:00Z"
ORDER = {"id": "o", "symbol": "AAPL", "side": "buy", "qty": "10", "type": "limit", "time_in_force": "day"}
ORDER |= {"status": "partially_filled", "filled_qty": "4", "filled_avg_price": "100", "created_at": T, "updated_at": T}


def _activity(qty: str, leaves: Any, **more: Any) -> dict[str, Any]:
    fill = {"activity_type": "FILL", "id": f"t::{leaves}", "order_id": "o", "transaction_time": T, "price": "100"}
    told = {"type": "partial_fill", "symbol": "AAPL", "side": "buy", "qty": qty, "leaves_qty": leaves}
    return {**fill, **told, **more}


def _entry(qty: str, leaves: str) -> dict[str, Any]:
    details = {"execution_type": "partial_fill", "order_id": "o", "leaves_qty": leaves, "symbol": "AAPL", "side": "buy"}
    entry = {"activity_type": "TRD", "event_id": f"e-{leaves}", "executed_at": T, "ref_id": f"x-{leaves}"}
    return {**entry, "price": "100", "qty": qty, "details": details}


def _write(path: Path, messages: list[Any]) -> Path:
    path.write_text("".join(json.dumps(message) + "\n" for message in messages))
    return path


def _complete(path: Path, messages: list[Any]) -> list[Translated]:
    recording, sums = list(read_capture(_write(path, messages))), CumulativeQuantities()
    for found in recording:
        sums.note(found)
    return list(map(sums.complete, recording))


def _filled(found: Translated) -> Any:
    assert isinstance(found.event, dict)
    return found.event.get("filled_qty")


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("activity", [_activity("4", "6"), _activity("4", 6), _entry("4", "6")])
def test_what_an_activity_leaves_open_tells_what_was_filled(
    tmp_path: Path, activity: dict[str, Any], is_first: bool
) -> None:
    """The shares that the order says are filled are those of its activity, and count once."""
    file = _write(tmp_path / "f", [ORDER, activity] if is_first else [activity, ORDER])
    for _ in range(2):
        import_alpaca(file, tmp_path / "data", team="alpha")
        ledger = Ledger(tmp_path / "data/team/alpha")
        assert [4] == [Decimal(row["filled_qty"]) for row in ledger.rows("pending_orders")]
        assert 4 == sum(Decimal(row["quantity"]) for row in ledger.rows("trades"))
        assert [] == list(ledger.rows("findings"))


def test_the_quantity_of_an_order_that_was_imported_before_counts(tmp_path: Path) -> None:
    """Orders and activities are fetched by two requests, and often kept in two files."""
    activities = [_activity("2", "6"), _activity("2", "8")]
    for name, messages in (("orders", [ORDER]), ("activities", activities), ("again", activities)):
        import_alpaca(_write(tmp_path / name, messages), tmp_path / "data", team="alpha")
    ledger = Ledger(tmp_path / "data/team/alpha")
    assert 4 == sum(Decimal(row["quantity"]) for row in ledger.rows("trades"))
    assert [4] == [Decimal(row["filled_qty"]) for row in ledger.rows("pending_orders")]
    assert [] == list(ledger.rows("findings"))


def test_activities_without_a_sum_are_sorted_by_it_nonetheless(tmp_path: Path) -> None:
    """Lists come newest first: the executions of a filled order take the place of what was inferred, without a word."""
    order = {**ORDER, "status": "filled", "filled_qty": "10"}
    file = _write(tmp_path / "f", [order, _activity("6", "0", type="fill"), _activity("4", "6")])
    import_alpaca(file, tmp_path / "data", team="alpha")
    ledger = Ledger(tmp_path / "data/team/alpha")
    assert 10 == sum(Decimal(row["quantity"]) for row in ledger.rows("trades"))
    assert ["4", "6"] == [row["quantity"] for row in ledger.rows("trades") if row["kind"] == "fill"]
    assert ([], []) == (list(ledger.rows("pending_orders")), list(ledger.rows("findings")))


@pytest.mark.parametrize(
    "messages",
    [
        [_activity("4", "6")],
        [ORDER, {**ORDER, "qty": "12"}, _activity("4", "6")],
        [{**ORDER, "symbol": ""}, _activity("4", "6")],
        [ORDER, _activity("4", "7")],
        [ORDER, _activity("4", "-1")],
        [ORDER, _activity("4", "many")],
        [ORDER, _activity("4", None)],
        [{**ORDER, "qty": None, "notional": "400"}, _activity("4", "6")],
    ],
)
def test_nothing_is_concluded_from_numbers_that_do_not_fit(tmp_path: Path, messages: list[Any]) -> None:
    """An order that is unknown, of different quantities or of several legs, and what is no rest of it."""
    assert _filled(_complete(tmp_path / "f", messages)[-1]) is None


def test_a_sum_that_is_told_stands(tmp_path: Path) -> None:
    assert "5" == _filled(_complete(tmp_path / "f", [ORDER, _activity("4", "6", cum_qty="5")])[-1])


@given(st.decimals("0.000000001", 10**12, places=9), st.integers(1, 10**6))
def test_the_sum_is_exact(tmp_path_factory: pytest.TempPathFactory, leaves: Decimal, parts: int) -> None:
    """No float and no rounding lies between the two numbers and their difference."""
    path, own = tmp_path_factory.getbasetemp() / "exact", Decimal(parts).scaleb(-9)
    order = {**ORDER, "qty": f"{leaves + own:f}"}
    assert own == Decimal(_filled(_complete(path, [order, _activity(f"{own:f}", f"{leaves:f}")])[-1]))


@pytest.mark.parametrize(
    ("messages", "lacking", "has_gaps"),
    [
        ([_activity("4", "6")], {"o"}, False),
        ([_activity("4", "6"), ORDER], set(), True),
        ([_activity("4", "6"), ORDER, {**ORDER, "qty": "12"}], set(), False),
        ([_activity("4", "6", order_id="p"), ORDER], {"p"}, False),
        ([_activity("4", "6", order_id="p"), _activity("4", "6"), ORDER], {"p"}, True),
        ([_activity("4", "6", cum_qty="4")], set(), False),
        ([_activity("4", None)], set(), False),
        ([_activity("4", "6"), {**ORDER, "symbol": ""}], {"o"}, False),
        ([ORDER], set(), False),
    ],
)
def test_only_for_what_can_be_completed_more_is_read(
    tmp_path: Path, messages: list[Any], lacking: set[str], has_gaps: bool
) -> None:
    """Logs for the quantities that lack, and the recording once more where one is there."""
    sums = CumulativeQuantities()
    for found in read_capture(_write(tmp_path / "f", messages)):
        sums.note(found)
    assert (lacking, has_gaps) == (sums.lacking, sums.has_gaps)
    sums.note(Translated(1, Problem("bad_value", "x")))
    assert (lacking, has_gaps) == (sums.lacking, sums.has_gaps)


@pytest.mark.parametrize(
    ("known", "filled"),
    [
        ([{"symbol": "AAPL", "quantity": "10"}], "4"),
        ([{"symbol": "AAPL", "quantity": "10"}, {"symbol": "AAPL"}], "4"),
        ([{"symbol": "AAPL", "quantity": "10.0"}, {"symbol": "AAPL", "quantity": "10"}], "4"),
        ([{"symbol": "AAPL", "quantity": "10"}, {"symbol": "AAPL", "quantity": "12"}], None),
        ([{"symbol": "AAPL", "quantity": "12"}, {"symbol": "AAPL", "quantity": "10"}] * 2, None),
        ([{"quantity": "10"}], None),
        ([{"symbol": "AAPL", "quantity": "9"}], None),
        ([{"symbol": "AAPL", "quantity": "6"}], None),
    ],
)
def test_a_log_tells_the_quantity_of_an_order_that_has_a_symbol(
    tmp_path: Path, known: list[dict[str, Any]], filled: str | None
) -> None:
    [found] = read_capture(_write(tmp_path / "f", [_activity("4", "6")]))
    sums = CumulativeQuantities()
    for fields in known:
        event = build_event({"event": "snapshot", "order_id": "o", "ts": T, **fields})
        assert isinstance(event, Event)
        sums.recall(event)
    assert filled == _filled(sums.complete(found))


@pytest.mark.parametrize(
    ("activity", "filled"),
    [
        (_activity("10", "0"), "10"),
        (_activity("4", "0"), "10"),
        (_activity("4", "6"), "4"),
        (_activity("4", "6.5"), None),
        (_activity("4", "-0.5"), None),
    ],
)
def test_a_sum_is_between_the_execution_and_the_order(tmp_path: Path, activity: Any, filled: str | None) -> None:
    assert filled == _filled(_complete(tmp_path / "f", [ORDER, activity])[-1])


def test_only_activities_are_completed(tmp_path: Path) -> None:
    """An order's own message tells its sum, or none."""
    told = {name: value for name, value in ORDER.items() if name != "filled_qty"} | {"leaves_qty": "6"}
    order, activity = _complete(tmp_path / "f", [told, _activity("4", "6")])
    assert (None, "4") == (_filled(order), _filled(activity))
    sums, found = CumulativeQuantities(), Translated(1, {"order_id": "o", "event": "fill", "qty": "4"}, False, "6")
    sums.note(found._replace(event={"order_id": "o", "event": "new", "symbol": "AAPL", "quantity": "10"}))
    assert sums.complete(found) is found
    problem = Translated(1, Problem("bad_value", "x"), True, "6")
    assert sums.complete(problem) is problem
