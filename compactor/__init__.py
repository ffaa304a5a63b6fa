"""The order ledger for traders on Alpaca: an events log becomes pending orders and trades, exactly once.

    from compactor import Ledger

    with Ledger("data/team/alpha") as ledger:
        event = {"event": "new", "order_id": "o-1", "ts": "2026-03-02T14:30:00Z"}
        ledger.append([{**event, "symbol": "AAPL", "side": "buy", "quantity": "10"}])
        ledger.compact()
        ledger.pending_orders()

What surprises: names are imported when they are first used, so that a command starts without what it does not need.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compactor.ledger import (
        Appended,
        BadTeam,
        Compaction,
        DerivedConflict,
        DiskFull,
        Ledger,
        LedgerEntry,
        LedgerError,
        LedgerStatus,
        LedgerUnreadable,
        LockHeld,
        LogRewritten,
        NoLedger,
        RejectedEvents,
        SegmentDamaged,
        TooMuch,
        discover,
    )

__all__ = [
    "Appended",
    "BadTeam",
    "Compaction",
    "DerivedConflict",
    "DiskFull",
    "Ledger",
    "LedgerEntry",
    "LedgerError",
    "LedgerStatus",
    "LedgerUnreadable",
    "LockHeld",
    "LogRewritten",
    "NoLedger",
    "RejectedEvents",
    "SegmentDamaged",
    "TooMuch",
    "__version__",
    "discover",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("compactor.ledger"), name)
