"""The table of the life of an order: whole, explained, and the same as its page."""

import pytest

from compactor.core.lifecycle import LIFE, OPEN, STATUSES, TERMINAL, TRANSITIONS, Effect, normalize_name, to_markdown
from tests.cases import derive, parsed
from tests.conftest import ROOT

PAGE = ROOT / "compactor" / "docs" / "lifecycle.md"

# From format.md section 3 and Alpaca's list of statuses, written out again on purpose.
OPEN_STATUSES = {
    "pending_new", "new", "accepted", "accepted_for_bidding", "pending_review", "held", "stopped", "suspended",
    "calculated", "done_for_day", "partially_filled", "pending_cancel", "pending_replace",
}  # fmt: skip
TERMINAL_STATUSES = {"filled", "canceled", "expired", "rejected", "replaced"}
OTHER_EVENTS = {
    "fill", "partial_fill", "restated", "order_cancel_rejected", "order_replace_rejected", "trade_bust",
    "trade_correct", "snapshot", "assigned",
}  # fmt: skip


def test_the_page_is_generated_from_the_table() -> None:
    """3: `lifecycle.md` is the table, for people."""
    renew = "renew it: python -m compactor.core.lifecycle > compactor/docs/lifecycle.md"
    assert to_markdown() == PAGE.read_text(encoding="utf-8"), renew


def test_every_status_and_every_event_has_one_row() -> None:
    """3: every status as an event of that name, and the events that are no status."""
    assert sorted(OPEN_STATUSES | TERMINAL_STATUSES | OTHER_EVENTS) == sorted(row.event for row in TRANSITIONS)
    assert len(TRANSITIONS) == len(LIFE)
    assert 18 == len(STATUSES)


def test_the_statuses_are_open_or_terminal_as_the_contract_says() -> None:
    """3: the first line of the table keeps an order in the pending orders, the second ends it."""
    assert (OPEN_STATUSES, TERMINAL_STATUSES) == (set(OPEN), set(TERMINAL))


@pytest.mark.parametrize("row", TRANSITIONS, ids=lambda row: row.event)
def test_a_row_says_what_happened_in_the_world(row: object) -> None:
    """A transition without its reason is a rule that nobody can question."""
    transition = next(one for one in TRANSITIONS if one is row)
    assert transition.reason.endswith(".")
    assert len(transition.reason.split()) >= 4
    assert f"| `{transition.event}` |" in to_markdown()
    assert transition.reason in to_markdown()


def test_a_status_event_leads_to_the_status_of_its_name() -> None:
    """3: only the effect of the event decides whether the order goes on."""
    for status in STATUSES:
        assert status == LIFE[status].status
        assert (status in TERMINAL_STATUSES) == (LIFE[status].effect is Effect.ENDS)


def test_only_cancelled_is_spelled_in_two_ways() -> None:
    """3.1: `cancelled` reads as `canceled`; no other name is touched."""
    assert "canceled" == normalize_name("cancelled")
    names = [*LIFE, "Canceled", "cancelled ", "pending_cancelled", ""]
    assert names == [normalize_name(name) for name in names]


@pytest.mark.parametrize("event", ["order_paused", "Filled", "filled ", "канцелед"])
def test_an_unknown_name_keeps_the_order_open(event: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """3.7: a ghost row is better than a hidden live order, whatever the name looks like."""
    head = '"order_id":"o-1","ts":"2026-03-02T10:00:00Z","symbol":"SPY","side":"buy","quantity":"1"'
    for log in (f'{{"event":"new",{head}}}\n{{"event":"{event}",{head}}}\n', f'{{"event":"{event}",{head}}}\n'):
        derived = derive(log.encode(), tmp_path_factory.mktemp("ledger"))
        assert [("o-1", event)] == [(row["order_id"], row["status"]) for row in parsed(derived["pending_orders.jsonl"])]
        assert ["unknown_status"] == [finding["kind"] for finding in parsed(derived["findings.jsonl"])]
