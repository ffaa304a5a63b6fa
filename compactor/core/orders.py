"""What the state knows of one order: its terms, its status and its fills.

An order is what its own events made of it and nothing else, so that it can be built again from them at any time.
What few orders ever need is in `Rare`.
"""

from decimal import Decimal
from operator import attrgetter
from typing import Any

from msgspec import Struct

from compactor.core.decimals import Decimals, exactly, plain, quotient
from compactor.core.derived import PendingOrder, Trade
from compactor.core.events import TERMS, AnyEvent
from compactor.core.instants import nanos

DECIMAL = Decimals()
"""Decimals by their text, for texts that were checked when their event was read."""

ZERO = Decimal(0)


class Fill(Struct, array_like=True, gc=False):
    """One execution. Numbers are texts as they came; `source` and `told` are the channels that have told of it (rule
    4.3)."""

    execution_id: str | None
    qty: str
    price: str
    filled_qty: str | None
    ts: str
    source: str | None
    trade_id: str
    told: tuple[str | None, ...] = ()
    live: bool = True
    remembered: bool = True
    version: str | None = None
    """The key of the fill that a correction put in this one's place."""


class Inferred(Struct, array_like=True, gc=False):
    """A trade that only a snapshot tells of; `value` is exact, `price` is what was written (rules 4.7 and 4.8)."""

    trade_id: str
    qty: Decimal
    value: Decimal
    price: str
    snapshot_qty: Decimal
    ts: str


class Revision(Struct, array_like=True, gc=False):
    """A bust or a correction as it came, kept while it waits for its fill (rule 4.9)."""

    event: str
    names: str
    offset: int
    length: int
    ts: str
    execution_id: str | None = None
    source: str | None = None
    price: str | None = None
    qty: str | None = None


class Rare(Struct, array_like=True, gc=False):
    """What most orders never need."""

    restated_at: str | None = None
    multi_leg: bool = False
    names: dict[str, str] = {}
    """Further ids of a fill, to the key under which it stands in `fills`."""
    inferred: list[Inferred] = []
    waiting: dict[str, list[Revision]] = {}
    held: list[Trade] = []
    away: str | None = None
    """The team whose ledger has the order now; its trades are written there (rule 4.12)."""


class Order(Struct, array_like=True, gc=False):
    """One order. `first` and `last` are the offsets between which all its events lie."""

    order_id: str
    first: int
    last: int
    status: str
    """Empty for the leg of a multi-leg order that has had no event of its own."""
    ended: bool
    updated_at: str
    """The greatest `ts` so far."""
    status_at: str
    """The `ts` of the last status event applied (rule 3.5)."""
    created_at: str
    """The least `ts` so far."""
    terms: AnyEvent
    filled: Decimal = ZERO
    fills: dict[str, Fill] = {}
    before: str | None = None
    """The status before a cancel or replace was asked for (rule 3.6)."""
    delivered: set[str] | None = None
    rare: Rare | None = None

    @property
    def open(self) -> bool:
        """Whether the order has a row in `pending_orders.jsonl`."""
        return not self.ended and self.status != "" and (self.rare is None or self.rare.away is None)

    @property
    def over(self) -> bool:
        """Whether the order may leave the state: it has ended, or is another ledger's."""
        return self.ended or (self.rare is not None and self.rare.away is not None)


def quantity_of(order: Order) -> Decimal | None:
    """The quantity ordered, as far as it is known."""
    return DECIMAL[order.terms.quantity] if order.terms is not None and order.terms.quantity is not None else None


def known_value(order: Order) -> Decimal:
    """The exact sum of price times quantity over the known fills."""
    value = sum((DECIMAL[fill.price] * DECIMAL[fill.qty] for fill in order.fills.values() if fill.live), ZERO)
    return value + sum((inferred.value for inferred in order.rare.inferred), ZERO) if order.rare else value


def _written_value(order: Order) -> Decimal:
    """The same from the prices as the trade lines have them, so that anybody can compute it from `trades.jsonl`."""
    value = sum((DECIMAL[fill.price] * DECIMAL[fill.qty] for fill in order.fills.values() if fill.live), ZERO)
    inferred = order.rare.inferred if order.rare else []
    return value + sum((DECIMAL[trade.price] * trade.qty for trade in inferred), ZERO)


def created_at(order: Order) -> str:
    """When the order was made: the term, else the least `ts`."""
    return (order.terms.created_at if order.terms is not None else None) or order.created_at


_carried: Any = attrgetter(*TERMS)


def pending_row(order: Order, team_id: str) -> PendingOrder:
    """The row of an open order (format.md section 5)."""
    terms = dict(zip(TERMS, _carried(order.terms), strict=True)) if order.terms is not None else {}
    row = PendingOrder(**{**terms, "order_id": order.order_id, "team_id": team_id})
    row.status = order.status
    row.created_at, row.updated_at = created_at(order), order.updated_at
    held = order.rare is not None and bool(order.rare.held)
    row.filled_qty = "0"
    if order.filled and not held:
        with exactly():
            row.filled_qty = plain(order.filled)
            row.filled_avg_price = plain(quotient(_written_value(order), order.filled))
    return row


def sort_key(order: Order) -> tuple[int, str]:
    """The place of an order in `pending_orders.jsonl`."""
    return nanos(created_at(order)), order.order_id
