"""What was asked for here: where an order came from, and what became of requests that led to none (format.md, 3.13).

An order is `submitted` if the log has an intent under its `client_order_id`, or if it is a leg of such an order; any
other is `adopted`: the broker told of it, and it was placed elsewhere.

Invariant: an origin depends on the log alone. The intents that are not sealed are kept in memory; older ones are looked
for in the segments, through their indexes, when an order of that age changes.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

import msgspec
from msgspec import Struct

from compactor.core.derived import Finding
from compactor.core.events import is_intent
from compactor.core.fold import Fold
from compactor.core.lines import Block, EventReader
from compactor.history.search import Finder
from compactor.ledger.event_text import cut_event
from compactor.ledger.files import Files
from compactor.ledger.log import Log
from compactor.ledger.open_intents import Intent, read_intents
from compactor.ledger.segments import Segments
from compactor.tracker.paced_restore import Pace

Origin = Literal["submitted", "adopted"]
UNPLACED_MAX = 50
LOOKED_UP_MAX = 10_000
_INTENT = re.compile(rb'"(?:submitting|submitted|refused|never_placed)"')


class UnplacedOrder(Struct, frozen=True, kw_only=True):
    """A request that led to no order: `refused` by the broker, or `never_placed` because it did not reach it.

    `ts` is when that was known, `asked_at` when it was asked for. `status`, `code` and `reason` are the broker's, as
    far as it told; the rest says what was asked for, by whom and why.
    """

    client_order_id: str
    outcome: Literal["refused", "never_placed"]
    ts: str
    asked_at: str | None = None
    request: dict[str, Any] = {}
    tags: list[str] = []
    note: str | None = None
    status: int | None = None
    code: str | int | None = None
    reason: str | None = None


class _Outcome(Struct):
    status: int | None = None
    code: str | int | None = None
    reason: str | None = None


class _OrderNames(Struct):
    client_order_id: str | None = None
    parent_order_id: str | None = None


_decode_intent = msgspec.json.Decoder(Intent).decode
_decode_outcome = msgspec.json.Decoder(_Outcome).decode
_decode_names = msgspec.json.Decoder(_OrderNames).decode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError)


class AskedOrders:
    """The intents of one ledger, as far as they are needed. To be used by one thread at a time."""

    def __init__(self, fold: Fold, segments: Segments, files: Files, log: Callable[[], Log]) -> None:
        self._fold = fold
        self._segments = segments
        self._files = files
        self._log = log
        self._sealed_end = segments.sealed_end
        self._asked: dict[str, int] = {}
        """The client_order_ids of the intents that are not sealed, and where the last event of each begins."""
        self._under_way: dict[str, Intent] = {}
        self._looked_up: dict[str, bool] = {}
        self._unplaced: deque[UnplacedOrder] = deque(maxlen=UNPLACED_MAX)
        self.is_changed = True
        """Whether there are other unplaced orders than when they were last taken."""

    def load(self, end: int, pace: Pace) -> None:
        """Read the intents up to an offset, to which the fold has come."""
        if not self._may_have_intents():
            return
        log = self._log()
        for intent in read_intents(log, self._fold.intents, self._fold.team_id):
            self._under_way[intent.client_order_id] = intent
            self._asked[intent.client_order_id] = intent.offset
        for block in log.blocks(min(self._sealed_end, end), end):
            self.take(block)
            pace.keep()

    def _may_have_intents(self) -> bool:
        # The counts have no name of their own for intents.
        return "other" in self._fold.counts.kinds

    def take(self, block: Block) -> None:
        """Take in the intents among the lines of a block."""
        if block.too_long or _INTENT.search(block.data) is None:
            return
        reader = EventReader(self._fold.known_team)
        for offset, line in block.lines():
            if _INTENT.search(line) is not None:
                for placed in reader.read_line(line, offset):
                    if not isinstance(placed, Finding) and is_intent(placed.event):
                        start = placed.offset - offset
                        text = cut_event(line[start : start + placed.length])
                        self._note(placed.event.event, placed.event.order_id, placed.event.ts, placed.offset, text)

    def _note(self, event: str, client_order_id: str, ts: str, offset: int, line: bytes) -> None:
        self._asked[client_order_id] = offset
        if event == "submitting":
            try:
                intent = _decode_intent(line)
            except _UNREADABLE:
                intent = Intent(client_order_id=client_order_id, ts=ts)
            self._under_way[client_order_id] = intent
            return
        asked = self._under_way.pop(client_order_id, None)
        if event == "refused" or event == "never_placed":
            try:
                told = _decode_outcome(line)
            except _UNREADABLE:
                told = _Outcome()
            self._unplaced.append(
                UnplacedOrder(
                    client_order_id=client_order_id, outcome="refused" if event == "refused" else "never_placed", ts=ts,
                    asked_at=asked.ts if asked is not None else None,
                    request=asked.request if asked is not None else {}, tags=asked.tags if asked is not None else [],
                    note=asked.note if asked is not None else None,
                    status=told.status, code=told.code, reason=told.reason,
                )
            )  # fmt: skip
            self.is_changed = True

    def take_unplaced(self) -> list[UnplacedOrder]:
        """The last requests that led to no order, oldest first."""
        self.is_changed = False
        return list(self._unplaced)

    def forget_sealed(self) -> None:
        """Forget the intents that were sealed meanwhile: their segments have them."""
        if self._segments.sealed_end > self._sealed_end:
            self._sealed_end = self._segments.sealed_end
            self._asked = {name: offset for name, offset in self._asked.items() if offset >= self._sealed_end}
            self._looked_up.clear()

    # Origins.

    def find_origin(
        self, order_id: str, client_order_id: str | None, parent: str | None, first: int, here: int
    ) -> Origin:
        """The origin of an order whose first event is at `first`, and of which `parent` is the parent, as of the offset
        `here`."""
        if not self._asked and not self._may_have_intents():
            return "adopted"
        if self._is_asked(client_order_id, first):
            return "submitted"
        order = self._fold.recall_order(parent, here) if parent is not None and parent != order_id else None
        if order is not None and order.terms is not None and self._is_asked(order.terms.client_order_id, order.first):
            return "submitted"
        return "adopted"

    def find_origin_by_row(self, order_id: str, row: bytes, here: int) -> Origin:
        """The same for an order by its row, as of the offset `here`."""
        if not self._asked and not self._may_have_intents():
            return "adopted"
        named = _decode_names(row)
        return self.find_origin(order_id, named.client_order_id, named.parent_order_id, 0, here)

    def _is_asked(self, client_order_id: str | None, first: int) -> bool:
        """Whether there is an intent under a client_order_id, for an order whose first event is at `first`."""
        if client_order_id is None:
            return False
        if client_order_id in self._asked:
            return True
        # An intent is there before its order: what is not sealed has none for an older one either.
        if first >= self._sealed_end:
            return False
        found = self._looked_up.get(client_order_id)
        if found is None:
            if len(self._looked_up) >= LOOKED_UP_MAX:
                self._looked_up.clear()
            found = self._looked_up[client_order_id] = self._is_sealed(client_order_id)
        return found

    def _is_sealed(self, client_order_id: str) -> bool:
        reader = EventReader(self._fold.known_team)
        finder = Finder(self._log(), self._segments, self._files)
        return any(
            not isinstance(placed, Finding) and is_intent(placed.event) and placed.event.order_id == client_order_id
            for offset, line in finder.recall(client_order_id, 0, self._sealed_end)
            if _INTENT.search(line) is not None
            for placed in reader.read_line(line, offset)
        )
