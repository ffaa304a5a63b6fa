"""The order ledger for traders on Alpaca: an events log becomes pending orders and trades, exactly once.

from compactor import Ledger

with Ledger("data/team/alpha") as ledger:
    event = {"event": "new", "order_id": "o-1", "ts": "2026-03-02T14:30:00Z"}
    ledger.append([{**event, "symbol": "AAPL", "side": "buy", "quantity": "10"}])
    ledger.compact()
    ledger.pending_orders()
"""

from compactor.ledger import *  # noqa: F403
from compactor.ledger import __all__ as __all__

__version__ = "0.1.0"
