"""The interface of `plain.PlainOrders`, for a machine on which that could not be compiled: no order is plain.

Every line then goes through the rules, which give the same bytes some twenty times as slowly; the laws compare the two.
"""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from compactor.core.archive import Ended
    from compactor.core.fold import Fold
    from compactor.core.orders import Order


class PlainOrder(Protocol):
    """An order to which only plain things happened, with the offsets of its first and last event."""

    order_id: str
    first: int
    last: int
    status: str

    def order(self) -> "Order | None":
        """The same as an `Order`; None where it has ended and its terms are gone, so that only its lines have them."""


class ByTheRules:
    """The plain orders of a ledger, of which there are none here."""

    def feed(self, fold: "Fold", block: bytes, offset: int) -> None:
        """Fold a block of whole lines that stands at an offset of the log."""
        lines = block.split(b"\n")
        lines.pop()
        for line in lines:
            fold.feed_line(line, offset)
            offset += len(line) + 1

    def get(self, order_id: str) -> PlainOrder | None:
        """A plain order, which stays one."""
        return None

    def pop(self, order_id: str) -> PlainOrder | None:
        """A plain order, which is one no longer."""
        return None

    def open_orders(self) -> list[str]:
        """The ids of those that are open."""
        return []

    def ended_orders(self) -> "list[Ended]":
        """Those that ended last."""
        return []

    def shrink(self, kept: int) -> "list[Ended]":
        """Let the ended orders go, all but so many of those that ended last."""
        return []
