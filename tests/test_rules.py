"""What the rules keep of one order, beyond what its row shows."""

import json
from typing import Any

import pytest

from compactor.core.decoding import build_event
from compactor.core.fold import Fold
from compactor.core.orders import Order, build_row, ensure_rare
from compactor.core.rules import begin, split_event

NEW = {
    "event": "new", "order_id": "o-1", "ts": "2026-03-02T14:30:00Z", "symbol": "AAPL", "side": "buy",
    "client_order_id": "c-1",
}  # fmt: skip
TERMS = {"quantity": "10", "limit_price": "5.10", "time_in_force": "day"}
LEG = {"order_id": "leg-1", "symbol": "AAPL", "side": "buy", "qty": "1", "price": "5"}


def fold_after(*events: dict[str, Any]) -> Fold:
    """What the rules make of some events."""
    fold = Fold("alpha", lambda *_: ())
    fold.leave_short_path()
    fold.feed(b"".join(json.dumps(one).encode() + b"\n" for one in events), 0)
    return fold


def order_after(*events: dict[str, Any]) -> Order:
    """The order that some events make."""
    order = fold_after(*events).find_order("o-1")
    assert order is not None and order.terms is not None
    return order


def test_terms_that_are_all_told_anew_are_as_old_as_their_newest_event() -> None:
    """3.2: one time is kept for all terms as long as one event told them; a term told later has its own."""
    later = {**NEW, **TERMS, "event": "restated", "ts": "2026-03-02T15:00:00Z"}
    whole = order_after(NEW | TERMS, later)
    assert whole.terms is not None
    assert (later["ts"], {}) == (whole.terms.ts, whole.rare.told_at if whole.rare is not None else {})
    assert len(json.dumps(NEW | TERMS)) + 1 == whole.last
    moved = {"event": "restated", "order_id": "o-1", "ts": later["ts"], "limit_price": "5.20"}
    one = order_after(NEW | TERMS, moved)
    assert one.terms is not None and one.rare is not None
    assert (NEW["ts"], {"limit_price": later["ts"]}) == (one.terms.ts, one.rare.told_at)
    again = order_after(NEW | TERMS, moved, {**later, "ts": "2026-03-02T16:00:00Z"})
    assert again.terms is not None and again.rare is not None
    assert ("2026-03-02T16:00:00Z", {}) == (again.terms.ts, again.rare.told_at)


@pytest.mark.parametrize(
    ("fields", "orders"),
    [
        ({}, ["o-1"]),
        ({"replaced_by": "o-2"}, ["o-1"]),
        ({"event": "replaced"}, ["o-1"]),
        ({"event": "replaced", "replaced_by": "o-1"}, ["o-1"]),
        ({"event": "replaced", "replaced_by": "o-2"}, ["o-1", "o-2"]),
        ({"event": "snapshot", "order_status": "replaced", "replaced_by": "o-2"}, ["o-1", "o-2"]),
        ({"event": "fill", "legs": [LEG, {**LEG, "order_id": "leg-2"}]}, ["o-1", "leg-1", "leg-2"]),
        ({"event": "submitting", "client_order_id": "o-1"}, []),
    ],
)
def test_an_event_is_about_its_order_its_legs_and_its_successor(fields: dict[str, Any], orders: list[str]) -> None:
    """3.9, 3.13, 4.10: whatever it names, no order is told twice of one event, and an intent is about none."""
    event = build_event({**NEW, **fields})
    assert orders == [part.order_id for part in split_event(event)]  # type: ignore[arg-type]


def test_a_finding_ends_with_the_reason_of_the_broker() -> None:
    """5: a finding about the event ends with it, where there is one."""
    reason = {"event": "dozing", "reason": "market maker lunch"}
    findings = fold_after(NEW, {**NEW, **reason}, {**NEW, "event": "dozing"}).take_lines().findings
    first, second = (json.loads(line)["detail"] for line in findings.splitlines())
    assert first == f"{second} (reason: market maker lunch)"


def test_a_leg_that_was_canceled_stays_so_when_its_parent_is_filled() -> None:
    """3.4, 4.10: the fill is a trade of the leg, and ends what had not ended."""
    leg = {**NEW, "order_id": "leg-1", "quantity": "1"}
    told = {"event": "fill", "order_id": "o-1", "ts": "2026-03-02T15:00:00Z", "legs": [LEG]}
    assert "filled" == fold_after(leg, told).find_status("leg-1")
    canceled = fold_after(leg, {**leg, "event": "canceled", "ts": "2026-03-02T14:40:00Z"}, told)
    assert ("canceled", 1) == (canceled.find_status("leg-1"), canceled.counts.trades)


def test_a_leg_without_events_of_its_own_has_no_status() -> None:
    """4.10: nobody has said that it is open; a successor that nobody tells of is, with the status `new` (3.9)."""
    event = build_event(NEW)
    order = begin("leg-1", event, 0)  # type: ignore[arg-type]
    assert "" == build_row(order, "alpha").status
    rare = ensure_rare(order)
    assert "" == build_row(order, "alpha").status
    rare.successor = True
    assert "new" == build_row(order, "alpha").status
