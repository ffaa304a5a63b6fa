"""The order tracker: the ledgers live inside an application, for asyncio and for scripts."""

from compactor.tracker.change import Change, EndedOrder
from compactor.tracker.order_tracker import OrderTracker
from compactor.tracker.subscription import TooSlow, TrackerClosed
from compactor.tracker.tracker_status import TrackerStatus

__all__ = ["Change", "EndedOrder", "OrderTracker", "TooSlow", "TrackerClosed", "TrackerStatus"]
