"""The order tracker: every order of a data directory live in memory, placed, followed and reconciled from asyncio.

    async with OrderTracker("data") as tracker:
        order = await tracker.submit("alpha", {"symbol": "SPY", "qty": 2, "side": "buy", "type": "market"})
        async for change in tracker.changes("alpha"):
            ...

What it shows is in `live_orders`. What asks the broker or writes runs in threads and child processes, because the
event loop is the application's.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from compactor.broker.port import NotFound
from compactor.core.instants import rfc3339
from compactor.ledger import Ledger
from compactor.ledger.paths import LOG
from compactor.ledger.records import PendingOrder
from compactor.tracker.change import EndedOrder
from compactor.tracker.compacting import keep_daemon
from compactor.tracker.desk import TradingDesk
from compactor.tracker.live_orders import LiveOrders, require_text
from compactor.tracker.reconciling import ReconcilingChild
from compactor.tracker.subscription import QUEUE_MAX, TrackerClosed

if TYPE_CHECKING:
    from compactor.sync.reconciled import Reconciled
    from compactor.tracker.blocking_tracker import BlockingTracker

Result = TypeVar("Result")
DAY_NS = 86_400_000_000_000


class OrderTracker(LiveOrders):
    """Follows the log of every ledger of `data` (else of $COMPACTOR_DATA), whoever writes it, and places orders.

    To be used within `async with`, in one event loop; what only looks (`pending_orders`, `trades`, …) needs no await.
    The accounts at the broker are those of the settings (`config`, else `compactor.toml` of the data directory) and of
    `environ` (else the environment). `queue_max` bounds the changes that wait for one consumer of `changes`. With
    `compact` the derived files are kept current as well while no daemon does that. Everything that it raises on purpose
    is a CompactorError, but for wrong arguments (TypeError, ValueError); errors of the broker have `status`, `code` and
    `what_to_do`.

    A call that is cancelled while it waits for the broker goes on: what was asked for cannot be taken back by not
    waiting. Its outcome is in the log, and among what is shown, when it comes.
    """

    def __init__(
        self,
        data: str | os.PathLike[str] | None = None,
        *,
        config: str | os.PathLike[str] | None = None,
        environ: Mapping[str, str] | None = None,
        compact: bool = True,
        queue_max: int = QUEUE_MAX,
    ) -> None:
        super().__init__(data, compact=compact, queue_max=queue_max)
        self._config = config
        self._environ = os.environ if environ is None else environ
        self._desk = TradingDesk(self.data, config, self._environ)
        self._reconciling = ReconcilingChild(self.data, config, self._environ)

    @classmethod
    def blocking(cls, data: str | os.PathLike[str] | None = None, **options: Any) -> BlockingTracker:
        """The same for scripts and notebooks, without an event loop of their own; `options` are those of the class."""
        from compactor.tracker.blocking_tracker import BlockingTracker

        return BlockingTracker(data, **options)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._reconciling.close()
        finally:
            await super().__aexit__(kind, error, trace)
            self._desk.close()

    # The broker.

    async def submit(
        self,
        team: str,
        request: Any,
        *,
        tags: Sequence[str] = (),
        note: str | None = None,
        account: str | None = None,
    ) -> PendingOrder | EndedOrder:
        """Place an order for a team; it is durable in the log and among the pending orders when this returns.

        `request` is one of the broker's client library, or a mapping of the fields of its API. `tags` and `note` say
        who asks and why; they are in the log, with the request, before the broker is asked (format.md, rule 3.13). A
        market order may have ended by then: that is an EndedOrder. Raises Refused, PlacementUnknown, NotWrittenDown,
        BrokerUnavailable, BadCredentials, BadTeam, and LedgerError where nothing was asked because it could not be
        written down.
        """
        require_text("team", team)
        is_one = (self.data / LOG).exists()
        path = self.data if is_one else self.data / "team" / team
        placed = await self._call(self._desk.submit, team, request, account, tags, note, path=path)
        return await self._get(str(placed["order_id"]))

    async def replace(
        self, order_id: str, *, tags: Sequence[str] = (), note: str | None = None, **changes: Any
    ) -> PendingOrder | EndedOrder:
        """Replace an open order by one with other terms, named as the broker names them; returns the new order.

        `tags` and `note` are as those of `submit`: the new order is asked for by an intent, too. Raises NotFound,
        Refused, and BrokerUnavailable where nobody knows whether it was replaced: then the intent is open until the
        next reconcile.
        """
        require_text("order_id", order_id)
        placed = await self._call(self._desk.replace, order_id, changes, tags, note)
        return await self._get(str(placed["order_id"]))

    async def cancel(self, order_id: str) -> PendingOrder | EndedOrder | None:
        """Ask the broker to cancel an order; returns how it stands then, None where no ledger has it.

        It is open until the broker says that it is canceled, and a fill can still win. Raises NotFound and Refused.
        """
        require_text("order_id", order_id)
        await self._call(self._desk.cancel, order_id)
        return await self.find_order(order_id)

    async def reconcile_with_broker(self) -> Reconciled:
        """Compare the ledgers with all accounts, append what they lack, and find out what became of open intents.

        Returns when what was appended is durable and shown; the events are told without the broker's messages. It runs
        in a child process. Raises BrokerError, BadCredentials and ReconcileBusy.
        """
        self._require()
        try:
            return await self._reconciling.reconcile()
        finally:
            await self._call(lambda: None)

    async def run(self, reconcile_every: int = 300) -> None:
        """Keep the ledgers current with the broker until cancelled: stream, gaps, reconcile, watching; one task.

        It is the daemon (`compactor run`), in a child process that ends with this one. Where a daemon runs already for
        the data directory, that one does the work, and this waits beside it. `reconcile_every` is in seconds, at least
        10. Raises BadCredentials, and DaemonFailed where it does not start.
        """
        self._require()
        arguments = ["--reconcile-seconds", str(reconcile_every)]
        if self._config is not None:
            arguments += ["--config", os.fspath(Path(self._config).absolute())]
        await keep_daemon(self.data, arguments, self._environ)

    # What a program knows by itself.

    async def update_order_status(
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
        """Write down how an order stands, for programs that are told by other means than the broker's stream.

        It becomes a `snapshot` in the log, as of `ts` (RFC 3339; else now), by the rules of format.md: shares that
        `filled_qty` tells of beyond the known fills become an inferred trade at the price that `filled_avg_price`
        implies. Raises NotFound where no ledger has the order, and RejectedEvents for a value that is none.
        """
        require_text("status", status)
        known = await self.find_order(order_id, team)
        if known is None:
            where = f"the ledger of {team}" if team is not None else f"the ledgers of {self.data}"
            raise NotFound(f"no order {order_id} in {where}; expected one that was placed or adopted. Reconcile first")
        numbers = {"filled_qty": filled_qty, "filled_avg_price": filled_avg_price, "reason": reason}
        event = {
            "event": "snapshot", "order_id": known.order_id, "ts": ts or rfc3339(time.time_ns()),
            "event_id": str(uuid.uuid4()), "order_status": status, "source": "app",
            **{name: str(value) for name, value in numbers.items() if value is not None},
        }  # fmt: skip
        path = self._find_path(known.team_id)
        await self._call(lambda: Ledger(path).append([event]), path=path)
        return await self._get(known.order_id)

    def cleanup_old_orders(self, max_age_days: float = 7) -> int:
        """Drop from memory what ended longer ago; returns how many orders. No file changes, and nothing is forgotten:
        `find_order` still has them."""
        before = time.time_ns() - int(max_age_days * DAY_NS)
        return sum(rows.drop_ended(before) for rows in self._ledgers.values())

    async def _call(self, work: Callable[..., Result], *arguments: Any, path: Path | None = None) -> Result:
        """Do something in a thread, and then read what it has written, whether it went well or not."""
        follower = self._require()

        def do() -> Result:
            try:
                return work(*arguments)
            finally:
                follower.read_now(path)

        return await asyncio.to_thread(do)

    async def _get(self, order_id: str) -> PendingOrder | EndedOrder:
        found = await self.find_order(order_id)
        if found is None:
            raise TrackerClosed(f"order {order_id} is in the log, and this tracker does not show it: it was closed")
        return found
