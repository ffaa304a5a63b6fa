"""The order tracker for scripts and notebooks: the same object in an event loop of its own, in a thread."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack
from datetime import datetime
from decimal import Decimal
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from compactor.core.derived import Finding
from compactor.ledger.open_intents import Intent
from compactor.ledger.records import Instant, PendingOrder, Trade
from compactor.tracker.asked_orders import Origin, UnplacedOrder
from compactor.tracker.change import Change, EndedOrder
from compactor.tracker.change_stream import After
from compactor.tracker.order_tracker import OrderTracker
from compactor.tracker.subscription import TrackerClosed
from compactor.tracker.tracker_status import TrackerStatus

if TYPE_CHECKING:
    from compactor.sync.reconciled import Reconciled

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class BlockingTracker:
    """As `OrderTracker`, whose documentation holds here too; each method returns when the work is done.

    It has no `run`: start `compactor run` beside it.

    To be used within `with`, or with `open` and `close` in a notebook. Safe for several threads.
    """

    def __init__(self, data: str | os.PathLike[str] | None = None, **options: Any) -> None:
        self._tracker = OrderTracker(data, **options)
        self._portal: BlockingPortal | None = None
        self._open = ExitStack()

    def open(self) -> Self:
        """Begin to follow the logs; returns when everything is shown that they have by now."""
        with ExitStack() as opened:
            portal = opened.enter_context(start_blocking_portal("asyncio"))
            running: AbstractContextManager[Any] = portal.wrap_async_context_manager(self._tracker)
            opened.enter_context(running)
            self._portal, self._open = portal, opened.pop_all()
        return self

    def close(self) -> None:
        """End the loop and its thread."""
        self._portal = None
        self._open.close()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pending_orders(self) -> dict[str, PendingOrder]:
        """The open orders of all teams by their id, as of now: a copy."""
        return self._look(lambda: dict(self._tracker.pending_orders))

    def teams(self) -> list[str]:
        """The teams that have a ledger."""
        return self._look(self._tracker.teams)

    def pending(self, team: str) -> list[PendingOrder]:
        """The open orders of a team, oldest first."""
        return self._look(self._tracker.pending, team)

    def ended(self, team: str) -> list[EndedOrder]:
        """The orders of a team that ended lately."""
        return self._look(self._tracker.ended, team)

    def intents(self, team: str) -> list[Intent]:
        """The orders of a team that are asked for, and of which nobody knows the answer."""
        return self._look(self._tracker.intents, team)

    def order(self, order_id: str, team: str | None = None) -> PendingOrder | EndedOrder | None:
        """An order by its id, however long ago it ended; with `team` the beginning of an id is enough for one in
        memory."""
        return self._wait(self._tracker.find_order, order_id, team)

    find_order = order
    """Here the two are one."""

    def unplaced(self, team: str) -> list[UnplacedOrder]:
        """The last requests of a team that led to no order: refused, or never placed."""
        return self._look(self._tracker.unplaced, team)

    def origin(self, order_id: str, team: str | None = None) -> Origin | None:
        """Whether an order was asked for here, or adopted; None where no log has it."""
        return self._wait(self._tracker.read_origin, order_id, team)

    read_origin = origin
    """Here the two are one."""

    def encode_pending(self, team: str) -> bytes:
        """The open orders of a team as the bytes of `pending_orders.jsonl`."""
        return self._look(self._tracker.encode_pending, team)

    def trades(
        self,
        team: str,
        since: str | datetime | Instant | None = None,
        until: str | datetime | Instant | None = None,
        symbol: str | None = None,
        side: str | None = None,
    ) -> list[Trade]:
        """The trades of a team, newest last, from `since` on and before `until`."""
        return self._look(self._tracker.trades, team, since, until, symbol, side)

    def findings(self, team: str) -> list[Finding]:
        """What was unreadable or suspicious in a team's log, newest last."""
        return self._look(self._tracker.findings, team)

    def offset(self, team: str) -> int:
        """The offset of a team's log up to which everything is shown."""
        return self._look(self._tracker.offset, team)

    def status(self, team: str) -> TrackerStatus:
        """How current what is shown of a team is."""
        return self._look(self._tracker.status, team)

    def changes(self, team: str | None = None, after: After = None) -> Generator[Change, None, None]:
        """Every change behind an offset, and then those that happen, until the caller ends the loop."""
        stream = self._look(self._tracker.changes, team, after)
        try:
            while True:
                yield self._wait(anext, stream)
        finally:
            # The end of the tracker has ended the stream as well.
            if self._portal is not None:
                self._wait(stream.aclose)

    def submit(
        self, team: str, request: Any, *, tags: Sequence[str] = (), note: str | None = None, account: str | None = None
    ) -> PendingOrder | EndedOrder:
        """Place an order for a team; it is durable in the log, and shown, when this returns."""
        return self._wait(self._tracker.submit, team, request, tags=tags, note=note, account=account)

    def replace(
        self, order_id: str, *, tags: Sequence[str] = (), note: str | None = None, **changes: Any
    ) -> PendingOrder | EndedOrder:
        """Replace an open order by one with other terms; returns the new one."""
        return self._wait(self._tracker.replace, order_id, tags=tags, note=note, **changes)

    def cancel(self, order_id: str) -> PendingOrder | EndedOrder | None:
        """Ask the broker to cancel an order; returns how it stands then."""
        return self._wait(self._tracker.cancel, order_id)

    def update_order_status(
        self,
        order_id: str,
        status: str,
        *,
        filled_qty: str | Decimal | None = None,
        filled_avg_price: str | Decimal | None = None,
        reason: str | None = None,
        ts: str | None = None,
        team: str | None = None,
    ) -> PendingOrder | EndedOrder:
        """Write down how an order stands."""
        return self._wait(
            self._tracker.update_order_status, order_id, status, filled_qty=filled_qty,
            filled_avg_price=filled_avg_price, reason=reason, ts=ts, team=team,
        )  # fmt: skip

    def reconcile_with_broker(self) -> Reconciled:
        """Compare the ledgers with all accounts, and append what they lack."""
        return self._wait(self._tracker.reconcile_with_broker)

    def cleanup_old_orders(self, max_age_days: float = 7) -> int:
        """Drop from memory what ended longer ago."""
        return self._look(self._tracker.cleanup_old_orders, max_age_days)

    def _look(
        self, work: Callable[Parameters, Result], *arguments: Parameters.args, **named: Parameters.kwargs
    ) -> Result:
        """Call something in the thread of the loop."""
        return self._require().call(partial(work, *arguments, **named))

    def _wait(
        self, work: Callable[Parameters, Awaitable[Result]], *arguments: Parameters.args, **named: Parameters.kwargs
    ) -> Result:
        """Run something in the loop, and wait for it."""

        async def run() -> Result:
            return await work(*arguments, **named)

        future = self._require().start_task_soon(run)
        try:
            return future.result()
        except BaseException:
            # After Ctrl-C nobody waits for it any more.
            future.cancel()
            raise

    def _require(self) -> BlockingPortal:
        if self._portal is None:
            raise TrackerClosed("the tracker is not open; expected `with OrderTracker.blocking(...)` around it")
        return self._portal
