"""What the fold and the compiled short path need of each other, and the fold's path without compiled modules.

`NoPlainOrders` has the interface of the compiled `PlainOrders` and leaves every line to the rules, which give the same
bytes some twenty times as slowly. It takes the place of `PlainOrders` where nothing was compiled, or where
COMPACTOR_PURE_PYTHON is set.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Protocol

from compactor.core.orders import Ended, Order


class PlainLife(Protocol):
    """An order to which only plain things happened, with the offsets of its first and last event."""

    @property
    def order_id(self) -> str: ...

    @property
    def first(self) -> int: ...

    @property
    def last(self) -> int: ...

    @property
    def status(self) -> str: ...

    def build_order(self) -> Order | None:
        """Build the same as an `Order`; None for an ended one that has dropped its terms, which its lines have."""


class Totals(Protocol):
    """Where events are counted."""

    def add(self, numbers: Mapping[str, int]) -> None: ...


class RuledFold(Protocol):
    """What the short path needs of the fold: where to leave other lines, and where to hand over what it derived."""

    team_id: str
    touched: set[str] | None

    @property
    def counts(self) -> Totals: ...

    @property
    def is_clock_waiting(self) -> bool: ...

    @property
    def known_team(self) -> str | None: ...

    @property
    def may_know(self) -> Callable[[str], bool]: ...

    def feed_line(self, line: bytes, offset: int) -> None: ...

    def add_trades(self, lines: bytes, number: int) -> None: ...

    def advance_clock(self, at: datetime) -> None: ...


class NoPlainOrders:
    """The plain orders of a ledger where nothing is compiled: there are none."""

    def feed(self, fold: RuledFold, block: bytes, offset: int) -> None:
        """Fold a block of whole lines that begins at an offset of the log."""
        lines = block.split(b"\n")
        lines.pop()
        for line in lines:
            fold.feed_line(line, offset)
            offset += len(line) + 1

    def get(self, order_id: str) -> PlainLife | None:
        """Look up a plain order."""
        return None

    def pop(self, order_id: str) -> PlainLife | None:
        """Look up a plain order and remove it, because something else than plain happens to it next."""
        return None

    def list_open(self) -> list[str]:
        """The ids of the open ones."""
        return []

    def list_ended(self) -> list[Ended]:
        """Those that ended and have not left the state."""
        return []

    def shrink(self, kept: int) -> list[Ended]:
        """Drop the ended orders, except for so many of those that ended last; return what was dropped."""
        return []
