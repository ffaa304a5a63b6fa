"""What the rules keep of one order, beyond what its row shows."""

import json

from compactor.core.fold import Fold
from compactor.core.orders import Order

NEW = {"event": "new", "order_id": "o-1", "ts": "2026-03-02T14:30:00Z", "symbol": "AAPL", "side": "buy"}
TERMS = {"quantity": "10", "limit_price": "5.10", "time_in_force": "day"}


def order_after(*events: dict[str, str]) -> Order:
    """The order that some events make."""
    fold = Fold("alpha", lambda *_: ())
    fold.leave_short_path()
    fold.feed(b"".join(json.dumps(one).encode() + b"\n" for one in events), 0)
    order = fold.find_order("o-1")
    assert order is not None and order.terms is not None
    return order


def test_terms_that_are_all_told_anew_are_as_old_as_their_newest_event() -> None:
    """3.2: one time is kept for all terms as long as one event told them; a term told later has its own."""
    later = {**NEW, **TERMS, "event": "restated", "ts": "2026-03-02T15:00:00Z"}
    whole = order_after(NEW | TERMS, later)
    assert whole.terms is not None
    assert (later["ts"], {}) == (whole.terms.ts, whole.rare.told_at if whole.rare is not None else {})
    moved = {"event": "restated", "order_id": "o-1", "ts": later["ts"], "limit_price": "5.20"}
    one = order_after(NEW | TERMS, moved)
    assert one.terms is not None and one.rare is not None
    assert (NEW["ts"], {"limit_price": later["ts"]}) == (one.terms.ts, one.rare.told_at)
