"""The order ledger for traders on Alpaca: an events log becomes pending orders and trades, exactly once.

    from compactor import Ledger

    with Ledger("data/team/alpha") as ledger:
        event = {"event": "new", "order_id": "o-1", "ts": "2026-03-02T14:30:00Z"}
        ledger.append([{**event, "symbol": "AAPL", "side": "buy", "quantity": "10"}])
        ledger.compact()
        ledger.pending_orders()

Every name below can be imported from `compactor`; all errors are subclasses of `CompactorError`.

Note: a name is imported when it is first used, so that a command starts without what it does not need.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compactor.books.assign import CannotAssign as CannotAssign
    from compactor.books.turns import ReconcileBusy as ReconcileBusy
    from compactor.broker.credentials import BadCredentials as BadCredentials
    from compactor.broker.placing import NotWrittenDown as NotWrittenDown
    from compactor.broker.placing import PlacementUnknown as PlacementUnknown
    from compactor.broker.port import BrokerError as BrokerError
    from compactor.broker.port import BrokerUnavailable as BrokerUnavailable
    from compactor.broker.port import NotFound as NotFound
    from compactor.broker.port import Refused as Refused
    from compactor.core import CompactorError as CompactorError
    from compactor.core.derived import Finding as Finding
    from compactor.daemon.presence import AlreadyRunning as AlreadyRunning
    from compactor.history.moment import BadMoment as BadMoment
    from compactor.ledger import Appended as Appended
    from compactor.ledger import BackupConflict as BackupConflict
    from compactor.ledger import BadTeam as BadTeam
    from compactor.ledger import Compaction as Compaction
    from compactor.ledger import DerivedConflict as DerivedConflict
    from compactor.ledger import DiskFull as DiskFull
    from compactor.ledger import Instant as Instant
    from compactor.ledger import Ledger as Ledger
    from compactor.ledger import LedgerEntry as LedgerEntry
    from compactor.ledger import LedgerError as LedgerError
    from compactor.ledger import LedgerStatus as LedgerStatus
    from compactor.ledger import LedgerUnreadable as LedgerUnreadable
    from compactor.ledger import LockHeld as LockHeld
    from compactor.ledger import LogRewritten as LogRewritten
    from compactor.ledger import NoLedger as NoLedger
    from compactor.ledger import PendingOrder as PendingOrder
    from compactor.ledger import RejectedEvents as RejectedEvents
    from compactor.ledger import SegmentDamaged as SegmentDamaged
    from compactor.ledger import TooMuch as TooMuch
    from compactor.ledger import Trade as Trade
    from compactor.ledger import UnsafeFile as UnsafeFile
    from compactor.ledger import discover as discover
    from compactor.ledger.open_intents import Intent as Intent
    from compactor.ledger.seal import Sealed as Sealed
    from compactor.proofs.notes import BadKey as BadKey
    from compactor.proofs.notes import BadProof as BadProof
    from compactor.proofs.notes import NotProvable as NotProvable
    from compactor.proofs.notes import WitnessConflict as WitnessConflict
    from compactor.settings.configuration import BadConfiguration as BadConfiguration
    from compactor.tables.arrow import Unfit as Unfit
    from compactor.tables.export import BadTarget as BadTarget
    from compactor.tables.query import BadQuery as BadQuery
    from compactor.tables.query import QueryFailed as QueryFailed
    from compactor.tracker.asked_orders import UnplacedOrder as UnplacedOrder
    from compactor.tracker.blocking_tracker import BlockingTracker as BlockingTracker
    from compactor.tracker.change import Change as Change
    from compactor.tracker.change import EndedOrder as EndedOrder
    from compactor.tracker.compacting import DaemonFailed as DaemonFailed
    from compactor.tracker.order_tracker import OrderTracker as OrderTracker
    from compactor.tracker.subscription import TooSlow as TooSlow
    from compactor.tracker.subscription import TrackerClosed as TrackerClosed
    from compactor.tracker.tracker_status import TrackerStatus as TrackerStatus

__version__ = "0.1.0"

_MODULES = {
    "compactor.books.turns": ("ReconcileBusy",),
    "compactor.broker.credentials": ("BadCredentials",),
    "compactor.broker.placing": ("NotWrittenDown", "PlacementUnknown"),
    "compactor.broker.port": ("BrokerError", "BrokerUnavailable", "NotFound", "Refused"),
    "compactor.core.derived": ("Finding",),
    "compactor.core": ("CompactorError",),
    "compactor.daemon.presence": ("AlreadyRunning",),
    "compactor.history.moment": ("BadMoment",),
    "compactor.ledger": (
        "Appended", "BackupConflict", "BadTeam",
        "Compaction", "DerivedConflict", "DiskFull", "Instant", "Ledger", "LedgerEntry",
        "LedgerError", "LedgerStatus", "LedgerUnreadable", "LockHeld", "LogRewritten", "NoLedger", "PendingOrder",
        "RejectedEvents", "SegmentDamaged", "TooMuch", "Trade", "UnsafeFile",
        "discover",
    ),
    "compactor.ledger.open_intents": ("Intent",),
    "compactor.ledger.seal": ("Sealed",),
    "compactor.proofs.notes": ("BadKey", "BadProof", "NotProvable", "WitnessConflict"),
    "compactor.settings.configuration": ("BadConfiguration",),
    "compactor.books.assign": ("CannotAssign",),
    "compactor.tables.arrow": ("Unfit",),
    "compactor.tables.export": ("BadTarget",),
    "compactor.tables.query": ("BadQuery", "QueryFailed"),
    "compactor.tracker.asked_orders": ("UnplacedOrder",),
    "compactor.tracker.blocking_tracker": ("BlockingTracker",),
    "compactor.tracker.change": ("Change", "EndedOrder"),
    "compactor.tracker.compacting": ("DaemonFailed",),
    "compactor.tracker.order_tracker": ("OrderTracker",),
    "compactor.tracker.subscription": ("TooSlow", "TrackerClosed"),
    "compactor.tracker.tracker_status": ("TrackerStatus",),
}  # fmt: skip
"""Where each public name is defined."""
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
