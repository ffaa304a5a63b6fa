"""The naive fold itself, on examples that can be worked out by hand."""

from decimal import Decimal
from typing import Any

from tests.reference import comparable_rows, net_of, reference

D = Decimal


def event(name: str, minute: int, order_id: str = "o-1", **fields: Any) -> dict[str, Any]:
    return {"event": name, "order_id": order_id, "ts": f"2026-03-02T10:{minute:02}:00Z", **fields}


def new(minute: int = 0, order_id: str = "o-1", quantity: str = "10") -> dict[str, Any]:
    return event("new", minute, order_id, symbol="AAPL", side="buy", quantity=quantity)


def partial(minute: int, execution_id: str, qty: str, price: str, order_id: str = "o-1") -> dict[str, Any]:
    return event("partial_fill", minute, order_id, execution_id=execution_id, qty=qty, price=price)


def statuses(*events: dict[str, Any]) -> dict[str, str]:
    rows, _ = reference(events)
    return {row["order_id"]: row["status"] for row in rows}


def test_two_partial_fills_are_summed() -> None:
    """4.1, 5: the row has their sum and their average, and each execution stands."""
    rows, net = reference([new(), partial(1, "x-1", "4", "10"), partial(2, "x-2", "2", "11.5")])

    numbers = {"quantity": "10", "filled_qty": "6", "filled_avg_price": "10.5"}
    assert [{"order_id": "o-1", "symbol": "AAPL", "side": "buy", "status": "partially_filled", **numbers}] == rows
    assert {("o-1", "x-1"): (D(4), D(10)), ("o-1", "x-2"): (D(2), D("11.5"))} == net


def test_a_duplicate_counts_once_and_changes_no_status() -> None:
    """4.2: the same id again is dropped."""
    fill = partial(1, "x-1", "4", "10")
    _, net = reference([new(), fill, fill])

    assert {("o-1", "x-1"): (D(4), D(10))} == net
    assert {"o-1": "held"} == statuses(new(), fill, event("held", 1), fill)


def test_an_end_anywhere_in_the_log_ends_the_order() -> None:
    """3.4, 3.10, 3.11: terminal events and terminal statuses win, whatever follows them."""
    assert {} == statuses(new(), event("canceled", 1), event("accepted", 2))
    assert {} == statuses(event("expired", 1), new())
    assert {} == statuses(new(), event("pending_cancel", 1, order_status="canceled"))
    assert {} == statuses(new(), event("fill", 1, execution_id="x-1", qty="4", price="10"))


def test_fills_that_reach_the_quantity_end_the_order_for_good() -> None:
    """3.3, 4.9: and a bust afterwards does not open it again."""
    life = [new(), partial(1, "x-1", "4", "10"), partial(2, "x-2", "6", "10")]
    bust = event("trade_bust", 3, previous_execution_id="x-2")

    assert ([], {("o-1", "x-1"): (D(4), D(10))}) == reference([*life, bust])
    assert {"o-1": "partially_filled"} == statuses(life[0], life[1], life[2] | {"qty": "5"})


def test_an_older_status_does_not_count() -> None:
    """3.5: by the broker's clock; equal is not older."""
    assert {"o-1": "accepted"} == statuses(new(), event("accepted", 2), event("held", 1))
    assert {"o-1": "held"} == statuses(new(), event("accepted", 2), event("held", 2))


def test_a_pending_cancel_outlasts_partial_fills() -> None:
    """3.3: pending_cancel and pending_replace stay."""
    assert {"o-1": "pending_cancel"} == statuses(new(), event("pending_cancel", 1), partial(2, "x-1", "4", "10"))


def test_a_correction_stands_in_place_of_its_execution() -> None:
    """4.9: with the new numbers under the new id; a bust of either id takes it back."""
    fill = partial(1, "x-1", "4", "10")
    correct = event("trade_correct", 2, previous_execution_id="x-1", execution_id="x-2", qty="3", price="11")

    assert {("o-1", "x-2"): (D(3), D(11))} == reference([new(), fill, correct])[1]
    for name in ("x-1", "x-2"):
        bust = event("trade_bust", 3, previous_execution_id=name)
        assert {} == reference([new(), fill, correct, bust])[1]
        assert {} == reference([new(), bust, correct, fill])[1]


def test_orders_do_not_touch_each_other() -> None:
    """4.2: an execution id is one within its order."""
    rows, net = reference([new(), new(0, "o-2"), partial(1, "x-1", "4", "10"), partial(1, "x-1", "5", "11", "o-2")])

    assert ["4", "5"] == [row["filled_qty"] for row in rows]
    assert {("o-1", "x-1"): (D(4), D(10)), ("o-2", "x-1"): (D(5), D(11))} == net


def test_the_lines_of_the_product_are_netted_by_execution() -> None:
    """4.11: reversals are negative, what comes to nothing is left out, and rows are cut to what can be compared."""
    lines = [("x-1", "4", "10"), ("x-1", "-4", "10"), ("x-2", "3", "11")]
    trades = [{"order_id": "o-1", "execution_id": x, "quantity": q, "execution_price": p} for x, q, p in lines]

    assert {("o-1", "x-2"): (D(3), D(11))} == net_of(trades)
    assert [{"order_id": "o-1"}, {"order_id": "o-2"}] == comparable_rows(
        [{"order_id": "o-2", "team_id": "t"}, {"order_id": "o-1"}]
    )
