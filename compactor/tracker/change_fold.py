"""Fold a log one line at a time and record what each line changes.

Before and after each event the row of its order is built by the rules of the fold, and what differs is a change. So a
change depends neither on where the fold began nor on what it has in memory.
"""

from __future__ import annotations

import msgspec

from compactor.core.decimals import exactly
from compactor.core.derived import encode_lines
from compactor.core.fold import Fold
from compactor.core.lines import Block
from compactor.core.orders import Order, build_row, get_sort_key
from compactor.tracker.asked_orders import AskedOrders
from compactor.tracker.change import RawChange
from compactor.tracker.log_mark import make_mark

SHRINK_BYTES = 1 << 16
"""After how many bytes ended orders leave the state."""


class _Address(msgspec.Struct):
    offset: int


_decode_address = msgspec.json.Decoder(_Address).decode


class ChangeRecorder:
    """Records what each line changes that is fed to a fold from here on."""

    def __init__(self, fold: Fold, asked: AskedOrders) -> None:
        self.fold = fold
        self.asked = asked
        self._before = b""
        self._was_open = False
        self._fed = 0
        self._rows: list[RawChange] = []
        fold.leave_short_path()
        fold.observer = self

    def feed(self, block: Block) -> list[RawChange]:
        """Fold one whole line, and tell what it changes: its orders first, then trades, then findings."""
        self._fed += block.length
        shrinks = self._fed >= SHRINK_BYTES
        self.asked.take(block)
        self.fold.feed_block(block, shrinks=shrinks)
        self._fed = 0 if shrinks else self._fed
        lines = self.fold.take_lines()
        if not (self._rows or lines.trades or lines.findings):
            return []
        found, self._rows = self._rows, []
        for kind, data in (("trade", lines.trades), ("finding", lines.findings)):
            for line in data.splitlines(keepends=True) if data else ():
                found.append(RawChange(0, _decode_address(line).offset, kind, line))  # type: ignore[arg-type]
        return _number(found, block)

    def note_before(self, order: Order) -> None:
        """An event is about to change this order."""
        self._before, self._was_open = self._encode(order), order.open

    def note_after(self, order: Order) -> None:
        """The event has changed it."""
        line, is_open = self._encode(order), order.open
        if (line == self._before and is_open == self._was_open) or not (is_open or self._was_open or order.status):
            return
        self._rows.append(self._make_change(order, line, order.last))

    def find_order(self, order_id: str, end: int) -> RawChange | None:
        """An order of the log up to an offset, as its last event left it; None where there is none."""
        with exactly():
            order = self.fold.recall_order(order_id, end)
            return self._make_change(order, self._encode(order), end) if order is not None and order.status else None

    def _make_change(self, order: Order, line: bytes, here: int) -> RawChange:
        names = order.terms
        origin = self.asked.find_origin(
            order.order_id, names.client_order_id if names else None, names.parent_order_id if names else None,
            order.first, here,
        )  # fmt: skip
        return RawChange(
            0, order.last, "order", line, order.order_id, get_sort_key(order) if order.open else None,
            order.rare.away if order.rare is not None else None, order.first, origin,
        )  # fmt: skip

    def _encode(self, order: Order) -> bytes:
        return encode_lines([build_row(order, self.fold.team_id)]) if order.terms is not None or order.status else b""


def _number(changes: list[RawChange], block: Block) -> list[RawChange]:
    """Give each change of a line an offset of its own, the last one the line's end.

    Where a line has more changes than bytes, because it released trades that were held back, the first ones share one.
    """
    first = block.end - len(changes) + 1
    return [
        msgspec.structs.replace(
            change,
            offset=max(block.offset + 1, offset),
            mark="" if block.too_long else make_mark(block.data[: max(1, offset - block.offset)]),
            is_shared=offset < block.offset + 1,
        )
        for offset, change in enumerate(changes, first)
    ]
