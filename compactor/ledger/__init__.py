"""The ledger on disk: reading the log, committing what follows from it, appending to it."""

from compactor.ledger.compaction import Compaction
from compactor.ledger.errors import (
    BackupConflict,
    BadTeam,
    DerivedConflict,
    DiskFull,
    LedgerError,
    LedgerUnreadable,
    LockHeld,
    LogRewritten,
    NoLedger,
    RejectedEvents,
    SegmentDamaged,
    TooMuch,
    UnsafeFile,
)
from compactor.ledger.ledger import Ledger
from compactor.ledger.log_writer import Appended
from compactor.ledger.paths import LedgerEntry, discover
from compactor.ledger.records import Instant, PendingOrder, Trade
from compactor.ledger.unlocked import LedgerStatus

__all__ = [
    "Appended",
    "BackupConflict",
    "BadTeam",
    "Compaction",
    "DerivedConflict",
    "DiskFull",
    "Instant",
    "Ledger",
    "LedgerEntry",
    "LedgerError",
    "LedgerStatus",
    "LedgerUnreadable",
    "LockHeld",
    "LogRewritten",
    "NoLedger",
    "PendingOrder",
    "RejectedEvents",
    "SegmentDamaged",
    "TooMuch",
    "Trade",
    "UnsafeFile",
    "discover",
]
