"""What a tracker shows of one ledger: its rows in memory, changed batch by batch in the thread of the event loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import datetime
from itertools import takewhile
from pathlib import Path

from compactor.core.derived import Finding
from compactor.core.instants import nanos, rfc3339
from compactor.ledger.open_intents import Intent
from compactor.ledger.paths import FINDINGS, TRADES
from compactor.ledger.records import PendingOrder, Trade
from compactor.tracker.asked_orders import Origin, UnplacedOrder
from compactor.tracker.change import EndedOrder, RawChange, decode_finding, decode_trade
from compactor.tracker.kept_lines import KeptLines
from compactor.tracker.tracked_ledger import LedgerBatch, LoadedLedger, OpenRow

CHANGES_MAX = 4096
"""How many of the last changes stay in memory, for consumers that go on a little later."""


class LedgerRows:
    """The rows of one ledger as of `offset`."""

    def __init__(self, path: Path, team_id: str) -> None:
        self.path = path
        self.team_id = team_id
        self.offset = 0
        self.mark = ""
        """The mark of the log at `offset`; empty before the first byte was read."""
        self.log_bytes = 0
        self.clock: datetime | None = None
        self.problem: str | None = None
        self.is_loaded = False
        self.open: dict[str, OpenRow] = {}
        self.intents: list[Intent] = []
        self.unplaced: list[UnplacedOrder] = []
        self.ended: dict[str, RawChange] = {}
        """Orders that ended while the tracker ran, in the order in which they did."""
        self.trades: KeptLines[Trade] = KeptLines(path / TRADES, decode_trade, 0, [])
        self.findings: KeptLines[Finding] = KeptLines(path / FINDINGS, decode_finding, 0, [])
        self.changes: deque[RawChange] = deque()
        self.changes_from = 0
        """Every change behind this offset is among `changes`."""

    def apply(self, batch: LedgerBatch) -> list[RawChange]:
        """Take a batch; the changes in it."""
        self.problem = batch.problem
        if batch.problem is not None:
            return []
        if batch.loaded is not None:
            self._load(batch.loaded)
        for change in batch.changes:
            self._apply(change)
        if batch.rows is not None:
            self.open = batch.rows
        if batch.intents is not None:
            self.intents = batch.intents
        if batch.unplaced is not None:
            self.unplaced = batch.unplaced
        self.offset, self.mark, self.log_bytes, self.clock = batch.offset, batch.mark, batch.log_bytes, batch.clock
        self.team_id = batch.team_id or self.team_id
        return batch.changes

    def _load(self, loaded: LoadedLedger) -> None:
        self.open = loaded.rows
        self.ended.clear()
        self.trades = KeptLines(self.path / TRADES, decode_trade, *loaded.trades)
        self.findings = KeptLines(self.path / FINDINGS, decode_finding, *loaded.findings)
        self.changes.clear()
        self.changes_from = loaded.offset
        self.is_loaded = True

    def _apply(self, change: RawChange) -> None:
        if change.kind == "order":
            self.ended.pop(change.order_id, None)
            if change.key is not None:
                assert change.origin is not None
                self.open[change.order_id] = OpenRow(change.key, change.line, change.origin)
            else:
                self.open.pop(change.order_id, None)
                self.ended[change.order_id] = change
        else:
            (self.trades if change.kind == "trade" else self.findings).add(change.line)
        self.changes.append(change)
        if len(self.changes) > CHANGES_MAX:
            gone = self.changes.popleft()
            self.changes_from = gone.offset + gone.is_shared

    # Looking.

    def list_pending(self) -> list[PendingOrder]:
        """The open orders, oldest first, as `pending_orders.jsonl` sorts them."""
        return [row.decode() for row in self._sort()]

    def encode_pending(self) -> bytes:
        """The bytes of `pending_orders.jsonl`."""
        return b"".join(row.line for row in self._sort())

    def _sort(self) -> list[OpenRow]:
        return sorted(self.open.values(), key=lambda row: row.key)

    def list_rows(self) -> list[OpenRow]:
        """The rows of the open orders, oldest first."""
        return self._sort()

    def find_origin(self, order_id: str) -> Origin | None:
        """Where an order in memory came from."""
        row = self.open.get(order_id) or self.ended.get(order_id)
        return row.origin if row is not None else None

    def find(self, order_id: str) -> PendingOrder | EndedOrder | None:
        """An order in memory, open or ended."""
        row = self.open.get(order_id)
        if row is not None:
            return row.decode()
        ended = self.ended.get(order_id)
        return ended.decode_order() if ended is not None else None

    def find_ids(self, prefix: str) -> list[str]:
        """The ids in memory that begin so."""
        return [order_id for ids in (self.open, self.ended) for order_id in ids if order_id.startswith(prefix)]

    def list_changes(self, after: int) -> list[RawChange] | None:
        """The changes behind an offset; None where the memory does not reach back so far."""
        if after < self.changes_from:
            return None
        newest: Iterator[RawChange] = takewhile(lambda change: change.is_behind(after), reversed(self.changes))
        return list(newest)[::-1]

    def find_mark(self, offset: int) -> str | None:
        """The mark of the log at an offset, as far as memory has it."""
        if offset == self.offset:
            return self.mark
        for change in reversed(self.changes):
            if change.offset <= offset:
                return change.mark if change.offset == offset else None
        return None

    def drop_ended(self, before_ns: int) -> int:
        """Drop the ended orders whose last event is older; how many there were."""
        old = [order_id for order_id, change in self.ended.items() if change.decode_order().updated_at.ns < before_ns]
        for order_id in old:
            del self.ended[order_id]
        return len(old)

    @property
    def recorded_at(self) -> str | None:
        """The log's own clock (format.md, rule 6.1): when the last event was recorded."""
        return rfc3339(nanos(self.clock.isoformat())) if self.clock is not None else None
