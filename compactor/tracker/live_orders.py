"""Every ledger of a data directory live in memory, for programs that run an event loop: what the order tracker shows.

Note: everything is shown as of an offset of each log. It is what the derived files say at that offset, byte for byte,
and it is changed in the thread of the event loop only: between two awaits nothing moves.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from compactor.core.derived import Finding
from compactor.ledger.errors import LogRewritten, NoLedger
from compactor.ledger.open_intents import Intent
from compactor.ledger.paths import LOG, resolve_data
from compactor.ledger.records import Instant, PendingOrder, Trade
from compactor.tracker.asked_orders import Origin, UnplacedOrder
from compactor.tracker.change import Change, EndedOrder, RawChange
from compactor.tracker.change_stream import After, ChangeStream
from compactor.tracker.compacting import keep_compacted
from compactor.tracker.ledger_rows import LedgerRows
from compactor.tracker.log_follower import LogFollower
from compactor.tracker.selecting import make_trade_filter
from compactor.tracker.subscription import QUEUE_MAX, Subscription, TrackerClosed
from compactor.tracker.tracked_ledger import LedgerBatch
from compactor.tracker.tracker_status import TrackerStatus, read_status_of_team

Listener = Callable[[LedgerRows, LedgerBatch, bool], None]
"""Called with the rows of a ledger, the batch that they have just taken in, and whether another log began."""


class PendingOrders(Mapping[str, PendingOrder]):
    """The open orders of all teams by their id, as they are now."""

    def __init__(self, ledgers: Mapping[Path, LedgerRows]) -> None:
        self._ledgers = ledgers

    def __getitem__(self, order_id: str) -> PendingOrder:
        for rows in self._ledgers.values():
            row = rows.open.get(order_id)
            if row is not None:
                return row.decode()
        raise KeyError(order_id)

    def __contains__(self, order_id: object) -> bool:
        return any(order_id in rows.open for rows in self._ledgers.values())

    def __iter__(self) -> Iterator[str]:
        return (order_id for rows in list(self._ledgers.values()) for order_id in list(rows.open))

    def __len__(self) -> int:
        return sum(len(rows.open) for rows in self._ledgers.values())


def require_text(name: str, value: object) -> None:
    """Raise TypeError, and ValueError for an empty text, unless an argument is a text."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a text, found {value!r}")
    if not value:
        raise ValueError(f"{name}: expected a text, found an empty one")


def _check_after(after: After) -> None:
    offsets = list(after.values()) if isinstance(after, Mapping) else [] if after is None else [after]
    for one in offsets:
        if not isinstance(one, int) or isinstance(one, bool):
            raise TypeError(f"after: expected an offset as an int, or a mapping of them by team, found {one!r}")
        if one < 0:
            raise ValueError(f"after: expected an offset from 0 on, found {one}")


class LiveOrders:
    """Follows the log of every ledger of `data` (else of $COMPACTOR_DATA), whoever writes it. `OrderTracker` says more.

    With `compact` the derived files are kept current as well while no daemon does that.
    """

    def __init__(
        self, data: str | os.PathLike[str] | None = None, *, compact: bool = True, queue_max: int = QUEUE_MAX
    ) -> None:
        self.data = resolve_data(data)
        self._compact = compact
        self._queue_max = queue_max
        self._compacting: asyncio.Task[None] | None = None
        self._ledgers: dict[Path, LedgerRows] = {}
        self._removed: set[Path] = set()
        """Where ledgers were that are no more: one that is made there again is another one."""
        self._subscriptions: set[Subscription] = set()
        self._listeners: dict[Listener, None] = {}
        self._follower: LogFollower | None = None
        self.pending_orders: Mapping[str, PendingOrder] = PendingOrders(self._ledgers)
        """The open orders of all teams by their id, live."""

    async def __aenter__(self) -> Self:
        if self._follower is not None:
            raise TrackerClosed("this tracker is open already; expected one `async with` for each OrderTracker")
        if self.data.exists() and not self.data.is_dir():
            raise NoLedger(self.data, "this is a file; expected a data directory, or the path of a new one")
        follower = LogFollower(self.data, asyncio.get_running_loop(), self._apply)
        self._follower = follower
        try:
            await asyncio.to_thread(follower.read_now)
            follower.start()
            if self._compact:
                self._compacting = asyncio.create_task(keep_compacted(self.data, self._list_offsets))
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        follower, compacting = self._follower, self._compacting
        self._close()
        self._compacting = None
        # A task group cancels whoever waits here, because its consumers have just been told of the end.
        try:
            if compacting is not None:
                compacting.cancel()
                await asyncio.wait([compacting])
            if follower is not None:
                await asyncio.shield(asyncio.to_thread(follower.join))
        finally:
            # No thread stays behind, and its end is a matter of milliseconds.
            if follower is not None:
                follower.join()

    def _close(self) -> None:
        if self._follower is not None:
            self._follower.stop()
            self._follower = None
        for one in list(self._subscriptions):
            one.fail(TrackerClosed("the tracker was closed; open it again and go on with changes(..., after=...)"))

    # What is known.

    def teams(self) -> list[str]:
        """The teams that have a ledger."""
        return sorted({rows.team_id for rows in self._ledgers.values()})

    def pending(self, team: str) -> list[PendingOrder]:
        """The open orders of a team, oldest first; none where the team has no ledger."""
        rows = self._find_team(team)
        return rows.list_pending() if rows is not None else []

    def ended(self, team: str) -> list[EndedOrder]:
        """The orders of a team that ended lately, in the order in which they did; `cleanup_old_orders` drops them."""
        rows = self._find_team(team)
        found = [change.decode_order() for change in list(rows.ended.values())] if rows is not None else []
        return [one for one in found if isinstance(one, EndedOrder)]

    def order(self, order_id: str, team: str | None = None) -> PendingOrder | EndedOrder | None:
        """An order in memory: open, or one that ended lately; None where there is none. `find_order` knows them all.

        With `team` the beginning of an id is enough, if it is that of one order only.
        """
        for rows in self._ledgers.values():
            if team in (None, rows.team_id) and (found := rows.find(order_id)) is not None:
                return found
        rows_of_team = self._find_team(team) if team is not None else None
        if rows_of_team is None or not order_id:
            return None
        ids = rows_of_team.find_ids(order_id)
        return rows_of_team.find(ids[0]) if len(ids) == 1 else None

    async def find_order(self, order_id: str, team: str | None = None) -> PendingOrder | EndedOrder | None:
        """An order by its whole id, however long ago it ended: read from its lines in the log if need be."""
        require_text("order_id", order_id)
        found = self.order(order_id, team)
        if found is not None:
            return found
        follower = self._require()
        change = await asyncio.to_thread(follower.find_order, order_id, team)
        return change.decode_order() if change is not None else None

    def trades(
        self,
        team: str,
        since: str | datetime | Instant | None = None,
        until: str | datetime | Instant | None = None,
        symbol: str | None = None,
        side: str | None = None,
    ) -> list[Trade]:
        """The trades of a team, newest last, from the instant `since` on and before `until`.

        The last ten thousand are in memory; older ones are read from `trades.jsonl`.
        """
        rows = self._find_team(team)
        return rows.trades.select(make_trade_filter(since, until, symbol, side)) if rows is not None else []

    def findings(self, team: str) -> list[Finding]:
        """What was unreadable or suspicious in a team's log, newest last."""
        rows = self._find_team(team)
        return rows.findings.select() if rows is not None else []

    def intents(self, team: str) -> list[Intent]:
        """The orders of a team that somebody is about to ask for, or has asked for without knowing the answer, oldest
        first. They are no open orders; a reconcile finds out what became of those whose program has died."""
        rows = self._find_team(team)
        return list(rows.intents) if rows is not None else []

    def unplaced(self, team: str) -> list[UnplacedOrder]:
        """The last fifty requests of a team that led to no order, refused or never placed, oldest first; of those that
        were made before the tracker began, what is not sealed."""
        rows = self._find_team(team)
        return list(rows.unplaced) if rows is not None else []

    def origin(self, order_id: str, team: str | None = None) -> Origin | None:
        """Where an order in memory came from: `submitted` here (rule 3.13, also as a leg of such an order), or
        `adopted`, because the broker told of it; None where it is not in memory. `read_origin` knows them all."""
        found = (rows.find_origin(order_id) for rows in self._ledgers.values() if team in (None, rows.team_id))
        return next((one for one in found if one is not None), None)

    async def read_origin(self, order_id: str, team: str | None = None) -> Origin | None:
        """As `origin`, for every order by its whole id; None where no log has it. Raises LedgerError."""
        found = self.origin(order_id, team)
        if found is not None:
            return found
        follower = self._require()
        change = await asyncio.to_thread(follower.find_order, order_id, team)
        return change.origin if change is not None else None

    def offset(self, team: str) -> int:
        """The offset of a team's log up to which everything is shown; 0 where the team has no ledger."""
        rows = self._find_team(team)
        return rows.offset if rows is not None else 0

    def status(self, team: str) -> TrackerStatus:
        """How current what is shown of a team is; and why it may be old."""
        return read_status_of_team(self.data, team, self._find_team(team))

    def encode_pending(self, team: str) -> bytes:
        """The open orders of a team as the bytes of `pending_orders.jsonl`."""
        rows = self._find_team(team)
        return rows.encode_pending() if rows is not None else b""

    def rows(self, team: str) -> LedgerRows | None:
        """The rows of a team's ledger as they are kept: the lines of its derived files. For servers, which pass them
        on as they are."""
        return self._find_team(team)

    # Following.

    async def changes(self, team: str | None = None, after: After = None) -> AsyncGenerator[Change, None]:
        """Every change of a team, or of all teams, behind an offset; from now on where none is given.

        `after` is `change.offset` of the last change that was seen, or `offset(team)`, or 0 for all there is; for all
        teams a mapping of offsets by team, where a team that it does not name begins at 0. There is no gap and nothing
        twice, whatever happened between two calls. Raises TooSlow, which says where to go on; LogRewritten where the
        log is not the same any more; and LedgerError; TypeError and ValueError for what is no offset.
        """
        _check_after(after)
        async for change in self._make_stream(team, after).follow():
            yield change

    async def raw_changes(self, team: str, after: int) -> AsyncGenerator[RawChange, None]:
        """As `changes` of one team, with the lines as they are. For servers, which pass them on."""
        async for _, change in self._make_stream(team, after).follow_raw():
            yield change

    def _make_stream(self, team: str | None, after: After) -> ChangeStream:
        follower = self._require()
        return ChangeStream(self._ledgers, follower.find_entry, self._subscriptions, self._queue_max, team, after)

    def listen(self, listener: Listener) -> None:
        """Call a function right after each batch was taken in, in the thread of the event loop; for servers."""
        self._listeners[listener] = None

    def stop_listening(self, listener: Listener) -> None:
        """Call it no more."""
        self._listeners.pop(listener, None)

    async def read_mark(self, team: str, offset: int) -> str | None:
        """The mark of a team's log at an offset, empty where nobody can say; None for an offset that is none to go on
        from in this log. Raises LedgerError."""
        rows = self._find_team(team)
        if rows is None:
            return ""
        known = rows.find_mark(offset)
        if known is not None:
            return known
        found = await asyncio.to_thread(self._require().read_mark, rows.path, offset)
        if found.is_line_end:
            return found.text
        if offset >= rows.changes_from:
            return None  # In the middle of a line there are only the offsets of changes, and memory has all of these.
        async with aclosing(self.raw_changes(team, offset - 1)) as changes:
            return found.text if (await anext(changes)).offset == offset else None

    def _apply(self, batch: LedgerBatch) -> None:
        """Take what the thread has read."""
        path = batch.entry.path
        if batch.is_removed:
            self._ledgers.pop(path, None)
            self._removed.add(path)
            return
        rows = self._ledgers.get(path)
        if rows is None:
            rows = self._ledgers[path] = LedgerRows(path, batch.entry.name)
        is_anew = (rows.is_loaded or path in self._removed) and batch.loaded is not None
        if is_anew:
            self._removed.discard(path)
        changes = rows.apply(batch)
        for one in self._subscriptions if is_anew else ():
            if one.wants(path, rows.team_id):
                one.fail(LogRewritten(path / LOG, "the log was replaced by another one; begin with changes() anew"))
        for one in self._subscriptions if changes else ():
            if one.wants(path, rows.team_id):
                one.put(path, changes)
        for listener in list(self._listeners):
            listener(rows, batch, is_anew)

    def _list_offsets(self) -> dict[Path, int]:
        return {path: rows.offset for path, rows in self._ledgers.items() if rows.is_loaded and rows.problem is None}

    def _find_path(self, team: str) -> Path:
        return next(path for path, rows in self._ledgers.items() if rows.team_id == team)

    def _find_team(self, team: str) -> LedgerRows | None:
        for rows in self._ledgers.values():
            if rows.team_id == team:
                return rows
        return None

    def _require(self) -> LogFollower:
        if self._follower is None:
            raise TrackerClosed(
                "the tracker is not open; expected `async with OrderTracker(...) as tracker:` around it"
            )
        return self._follower
