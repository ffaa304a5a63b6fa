"""How events change the status of an order, one after the other: section 3 of the format as a table of short lives."""

import pytest

from compactor.core.lifecycle import TERMINAL
from tests.short_lives import Told, leg_filled, list_findings, live, part, placed, told, whole

NEW, OPEN = "new", {"order_status": "new", "quantity": "50"}

LIVES: dict[str, tuple[list[Told], str, str]] = {
    # What ends an order (3.3, 3.5, 3.8, 3.10).
    "a fill ends it whatever quantity it tells": ([placed(), whole(1, 1, quantity="50")], "filled", ""),
    "an end is one whatever status stands beside it": ([placed(), told("canceled", 1, **OPEN)], "canceled", ""),
    "an open status beside the whole quantity is no objection": (
        [placed(), part(1, 5, "partially_filled", quantity="5")], "filled", ""),
    "a quantity that comes later shows that all is filled": (
        [placed(None), part(1, 5), told("accepted", 2, quantity="5")], "filled", ""),
    "so it does with a status of the broker": (
        [placed(None), part(1, 5), told("accepted", 2, "accepted", quantity="5", filled_qty="3")], "filled", ""),
    "so it does with a name that nobody has heard of": (
        [placed(None), part(1, 5), told("dozing", 2, quantity="5")], "filled", "unknown_status"),
    "what is calculated with all fills is over": (
        [placed(None), part(1, 5), told("calculated", 2, quantity="5")], "calculated", ""),
    "an answer that says so is": (
        [placed(None), part(1, 5), told("snapshot", 2, "calculated", quantity="5", filled_qty="3")],
        "filled", "snapshot_behind"),
    "fractions that tell less than was ordered end nothing": (
        [placed(1), *[part(at, "0.6", filled_qty="0.6") for at in (1, 2)]],
        "partially_filled", "overfill"),
    "a notional order ends by its own word": ([placed(notional="25"), part(1, 5)], "partially_filled", ""),
    "an answer with an open status and a part open keeps it open": (
        [placed(None), part(1, 5), told("snapshot", 2, "partially_filled", quantity="5", filled_qty="3")],
        "partially_filled", "snapshot_behind"),
    "one that tells all of it does not": (
        [placed(None), part(1, 5), told("snapshot", 2, "partially_filled", quantity="5", filled_qty="5")],
        "filled", ""),
    "one that is older than the fill does not": (
        [placed(None), part(3, 5), told("snapshot", 2, "partially_filled", quantity="5", filled_qty="3")],
        "filled", ""),
    "the first word about a leg may be such an answer": (
        [leg_filled(3), told("snapshot", 2, NEW, quantity="1")], "new", ""),
    "it stays open as long as no more is filled": (
        [placed(None), part(1, 5), told("snapshot", 2, NEW, quantity="5", filled_qty="3"), told("accepted", 3)],
        "accepted", "snapshot_behind"),
    "and ends with the next fill": (
        [placed(None), part(1, 5), told("snapshot", 2, NEW, quantity="5", filled_qty="3"), part(4, 1)],
        "filled", "snapshot_behind overfill"),
    # Open statuses (3.5, 3.6, 3.7).
    "a rejected replacement goes back to before the cancel": (
        [placed(), told("pending_cancel", 1), told("pending_replace", 2), told("order_replace_rejected", 3)],
        "new", ""),
    "a rejection counts as the last word about the status": (
        [placed(), told("order_cancel_rejected", 5), told("accepted", 3)], "new", ""),
    "a known execution of a leg opens it by its own event": (
        [leg_filled(1), part(1, 1, execution_id="x-leg")], "partially_filled", ""),
    "a status that nobody has heard of is open": (
        [placed(), told("snapshot", 1, "dozing")], "dozing", "unknown_status"),
    # An end that was a guess (3.3).
    "a larger quantity shows that the end was a guess": ([placed(), part(1, 5), told("restated", 2, quantity="50")],
        "partially_filled", "reopened"),
    "so it does in an event that nobody has heard of": ([placed(), part(1, 5), told("dozing", 2, **OPEN)],
        "dozing", "reopened unknown_status"),
    "so it does in a fill that says that it goes on": ([placed(), part(1, 5), whole(2, 1, **OPEN)],
        "partially_filled", "reopened"),
    "an older answer opens it again by the quantity": ([placed(), part(5, 5), told("restated", 3, **OPEN)],
        "new", "reopened"),
    "a fill that raises the quantity ends it": (
        [placed(), part(1, 5), whole(2, 1, quantity="50")], "filled", ""),
    "a cancel that raises it does not": ([placed(), part(1, 5), told("canceled", 2, quantity="50")], "filled", ""),
    "a status that ends it does not": ([placed(), part(1, 5), told("restated", 2, "canceled", quantity="50")],
        "filled", ""),
    "a correction does not": (
        [placed(), part(1, 5), told("trade_correct", 2, execution_id="x-1", price="5", qty="4", **OPEN)], "filled", ""),
    "a quantity that is older than the known one does not": (
        [placed(minute=1), part(2, 5), told("restated", 0, quantity="50")], "filled", ""),
    "a quantity that is filled as well does not": (
        [placed(), part(1, 8), told("restated", 2, quantity="7")], "filled", "overfill overfill"),
    "nor does one that is filled exactly": (
        [placed(), part(1, 8), told("restated", 2, quantity="8")], "filled", "overfill"),
    "an open status alone does not": ([placed(), part(1, 5), told("accepted", 2, NEW)], "filled", "alive_after_end"),
    "an open status and the same quantity do not": (
        [placed(), part(1, 5), told("accepted", 2, NEW, quantity="5")], "filled", "alive_after_end"),
    "a bust does not, nor what comes after it": (
        [placed(), part(1, 5), told("trade_bust", 2, execution_id="x-1"), told("accepted", 3)],
        "filled", "alive_after_end"),
    "the broker's own end is no guess": (
        [placed(), told("restated", 1, "canceled"), told("restated", 2, **OPEN)], "canceled", "alive_after_end"),
    "an end that confirms the guess makes it none": (
        [placed(), part(1, 5), told("canceled", 2), told("restated", 3, **OPEN)], "filled", "alive_after_end"),
    "what merely sounds alive does not confirm it": (
        [placed(), part(1, 5), told("accepted", 2), told("restated", 3, **OPEN)], "new", "alive_after_end reopened"),
    "an end that is told again is no later one": (
        [placed(), told("canceled", 1), told("canceled", 3), part(2, 1)], "canceled", "late_fill"),
    "an older one does not confirm it": (
        [placed(), part(1, 5), told("canceled", 0), told("restated", 3, **OPEN)], "new", "reopened"),
    # Ended orders (3.4).
    "a later answer opens an ended order": (
        [placed(), told("canceled", 1), told("snapshot", 2, NEW)], "new", "reopened"),
    "another event does not": (
        [placed(), told("canceled", 1), told("accepted", 2, NEW)], "canceled", "alive_after_end"),
    "an answer at the same time does not": ([placed(), told("canceled", 1), told("snapshot", 1, NEW)], "canceled", ""),
    "what is open again ends with more fills only": (
        [placed(), part(1, 5), told("snapshot", 2, NEW), told("accepted", 3)], "accepted", "reopened"),
    "and does end then": ([placed(), part(1, 5), told("snapshot", 2, NEW), part(3, 1)], "filled", "reopened overfill"),
    "what is calculated is alive while a part is open": (
        [placed(), part(1, 4), told("canceled", 2), told("snapshot", 3, "calculated")],
        "calculated", "reopened calculated_open"),
    "or while the quantity is not known": (
        [placed(None), told("canceled", 1), told("snapshot", 2, "calculated")],
        "calculated", "reopened calculated_open"),
    "but not when all is filled": ([placed(), part(1, 5), told("snapshot", 2, "calculated")], "filled", ""),
    "nor is it by the event of that name": ([placed(), part(1, 5), told("calculated", 2)], "filled", ""),
    "any other open status after all is filled is reported": (
        [placed(), part(1, 5), told("accepted", 2)], "filled", "alive_after_end"),
    "an end after the end is nothing to report": ([placed(), told("canceled", 1), told("expired", 2)], "canceled", ""),
    "nor is a status that ends it": ([placed(), told("canceled", 1), told("restated", 2, "expired")], "canceled", ""),
    "nor an event without a status": ([placed(), told("canceled", 1), told("restated", 2)], "canceled", ""),
    "nor one that happened before": ([placed(), told("canceled", 2), told("accepted", 1)], "canceled", ""),
    "nor a bust": (
        [placed(), part(1, 1), told("canceled", 2), told("trade_bust", 3, NEW, execution_id="x-1")], "canceled", ""),
    "a fill after the end is late and not alive": (
        [placed(), told("canceled", 1), part(2, 1, "partially_filled")], "canceled", "late_fill"),
    "a name that nobody has heard of is reported as such": (
        [placed(), told("canceled", 1), told("dozing", 2, NEW)], "canceled", "unknown_status"),
    "an event that names an open status is alive": (
        [placed(), told("canceled", 1), told("restated", 2, NEW)], "canceled", "alive_after_end"),
    # What the end told explains the fills that come later (3.4).
    "a fill within what the end told is not late": (
        [placed(), told("canceled", 2, filled_qty="2"), part(1, 2)], "canceled", "fill_gap"),
    "nor within what was told after it": (
        [placed(), told("canceled", 2, filled_qty="0"), told("snapshot", 3, "canceled", filled_qty="2"), part(1, 2)],
        "canceled", "fill_gap"),
    "the greatest quantity told counts": (
        [placed(), told("canceled", 2, filled_qty="2"), told("snapshot", 3, "canceled", filled_qty="1"), part(1, 2)],
        "canceled", "fill_gap"),
    "what was told before the end does not": (
        [placed(), told("canceled", 2, filled_qty="0"), told("snapshot", 1, "canceled", filled_qty="2"), part(1, 2)],
        "canceled", "fill_gap late_fill"),
}  # fmt: skip


@pytest.mark.parametrize(("events", "status", "findings"), LIVES.values(), ids=list(LIVES))
def test_a_life_comes_to_its_status(events: list[Told], status: str, findings: str) -> None:
    """3.3 to 3.10: the status after the last event, and what was to be reported on the way."""
    fold = live(events)
    lines = fold.take_lines()
    assert (status, findings.split()) == (fold.find_status("o"), list_findings(lines.findings))
    is_over = status in TERMINAL or (status == "calculated" and not findings)
    assert is_over is (b'"order_id":"o"' not in fold.pending_lines())
