"""What changes in a ledger, as typed values: an order, a trade or a finding, each with the offset to go on from.

Note: a change is made from the bytes of the log alone. So the changes behind an offset are the same for everybody who
asks, whether they are told as they happen or are folded again years later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec
from msgspec import Struct

from compactor.core.derived import Finding
from compactor.ledger.records import PendingOrder, Trade, line_decoder
from compactor.tracker.asked_orders import Origin

Kind = Literal["order", "trade", "finding"]


class EndedOrder(PendingOrder, frozen=True, kw_only=True):
    """An order that is not pending any more, with the fields that its row had, as of its last event.

    `status` says how it ended. An order that was assigned to another team's ledger (rule 4.12) has `assigned_to`, and
    may be open there.
    """

    assigned_to: str | None = None


class Change(Struct, frozen=True, kw_only=True):
    """One change of a ledger.

    `row` is a `PendingOrder` while the order is open and an `EndedOrder` after that, a `Trade`, or a `Finding`. `line`
    is the row as the derived files write it, with its newline.

    `offset` is where to go on: `changes(team, after=change.offset)` tells everything behind this change and nothing
    else. It grows from change to change, and lies in the line of the log or right behind it. `event_offset` is the
    address of the event (format.md, rule 1.5); a trade that was held back has that of its own event. `origin` says
    where an order came from: `submitted` here, or `adopted`; None for trades and findings.
    """

    team_id: str
    offset: int
    event_offset: int
    kind: Kind
    row: PendingOrder | EndedOrder | Trade | Finding
    line: bytes
    origin: Origin | None = None

    @property
    def order_id(self) -> str | None:
        """The order that it is about; None for a finding."""
        return None if isinstance(self.row, Finding) else self.row.order_id


class RawChange(Struct, frozen=True, gc=False):
    """A change as the fold tells it: the line is decoded where somebody looks at it.

    `key` sorts the rows of pending orders; it is None for an order that has none, and for trades and findings.
    """

    offset: int
    event_offset: int
    kind: Kind
    line: bytes
    order_id: str = ""
    key: tuple[int, str] | None = None
    assigned_to: str | None = None
    first: int = 0
    origin: Origin | None = None
    mark: str = ""
    """The mark of the log at `offset`; empty behind a line that is too long to be read."""
    is_shared: bool = False
    """Whether a further change of the same line has this offset; who goes on from there is told of both again."""

    def is_behind(self, after: int) -> bool:
        """Whether it is to be told to somebody who has seen everything up to an offset."""
        return self.offset > after or (self.is_shared and self.offset == after)

    def decode(self, team_id: str) -> Change:
        """The change as a typed value."""
        row = self.decode_order() if self.kind == "order" else _DECODERS[self.kind](self.line)
        return Change(
            team_id=team_id, offset=self.offset, event_offset=self.event_offset, kind=self.kind, row=row,
            line=self.line, origin=self.origin,
        )  # fmt: skip

    def decode_order(self) -> PendingOrder | EndedOrder:
        """The order of an order's change."""
        if self.key is not None:
            return decode_pending(self.line)
        ended = decode_ended(self.line)
        return msgspec.structs.replace(ended, assigned_to=self.assigned_to) if self.assigned_to is not None else ended


decode_pending = line_decoder(PendingOrder)
decode_ended = line_decoder(EndedOrder)
decode_trade = line_decoder(Trade)
decode_finding = line_decoder(Finding)
_DECODERS: dict[str, Callable[[bytes], Any]] = {"trade": decode_trade, "finding": decode_finding}
