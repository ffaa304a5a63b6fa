"""What the state knows of one order: its terms, its status and its fills; and one event on its way through the rules.

Invariant: an order is a function of its own events, so that it can be built from them again at any time. What few
orders ever need is in `Rare`. The rules write trades and findings through an `Entry` only, which makes their offsets,
trade ids and order.
"""

from decimal import Decimal
from operator import attrgetter
from typing import Any

from msgspec import Struct

from compactor.core.decimals import Decimals, exactly, parse_computed, plain, quotient
from compactor.core.derived import FINDING_ORDER, Finding, PendingLine, TradeLine
from compactor.core.events import TERMS, AnyEvent
from compactor.core.fill_index import Fill, IndexedFills
from compactor.core.instants import nanos

DECIMAL = Decimals(parse_computed)
"""Decimals by their text, for texts that were checked when their event was decoded."""

ZERO = Decimal(0)

Ended = tuple[str, int, int]
"""An order that has ended: its id, and the offsets of its first and last event."""


class Inferred(Struct, array_like=True, gc=False):
    """A trade inferred from a cumulative quantity; `value` is exact, `price` is as written (rules 4.7 and 4.8)."""

    trade_id: str
    qty: Decimal
    value: Decimal
    price: str
    snapshot_qty: Decimal
    ts: str


class Revision(Struct, array_like=True, gc=False):
    """A bust or a correction, kept while it waits for its fill (rule 4.9)."""

    event: str
    names: str
    offset: int
    length: int
    ts: str
    execution_id: str | None = None
    source: str | None = None
    price: str | None = None
    qty: str | None = None
    is_inferred: bool = False
    """Whether a bust took its shares out of an inferred trade, so that its fill explains none."""
    made: int = 0
    """How many lines stand at its place so far."""


class Statement(Struct, array_like=True, gc=False):
    """A cumulative quantity that was told, and its average where that was told too (rule 4.7)."""

    ts: str
    qty: str
    average: str | None = None


class Reduction(Struct, array_like=True, gc=False):
    """By how much a bust or a correction lowered the known fills and their value; a correction may have raised them."""

    ts: str
    qty: Decimal
    value: Decimal


class Rare(Struct, array_like=True, gc=False):
    """What most orders never need."""

    told_at: dict[str, str] = {}
    """The `ts` of the event that a term came from, where it is not that of `terms` (rule 3.2)."""
    multi_leg: bool = False
    successor: bool = False
    """Whether only the order that it replaced has named this one so far (rule 3.9)."""
    told_qty: str | None = None
    """The greatest cumulative quantity told that the known fills did not reach (rule 4.7)."""
    reduced_at: str | None = None
    """The greatest `ts` of a bust or a correction that changed a trade (rule 4.7)."""
    told_later: str | None = None
    """The greatest cumulative quantity told by an event after the end of the order (rule 3.4)."""
    statements: list[Statement] = []
    """Cumulative quantities that answers told, and events that told more than was known, by `ts`: without those that a
    later one reaches (rule 4.7)."""
    reductions: list[Reduction] = []
    """The busts and corrections that changed a trade, by `ts` (rule 4.9)."""
    still_open_at: Decimal | None = None
    """The known fills when the broker said that the order is open although they reach the quantity (rule 3.3)."""
    names: dict[str, str] = {}
    """Further ids of a fill, each mapped to its key in `fills`."""
    inferred: list[Inferred] = []
    waiting: dict[str, list[Revision]] = {}
    held: list[TradeLine] = []
    away: str | None = None
    """The team whose ledger has the order now; its trades are written there (rule 4.12)."""
    returns: int = 0
    """How often it came back (rule 4.12)."""


class Order(Struct, array_like=True, gc=False):
    """One order. `first` and `last` are the offsets of its first and last event."""

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
    guessed: bool = False
    """Whether only the sum of its fills says that the order has ended (rule 3.3)."""
    told_at_end: str | None = None
    """The cumulative quantity told by the event that ended the order (rule 3.4)."""

    @property
    def open(self) -> bool:
        """Whether the order has a row in `pending_orders.jsonl`."""
        rare = self.rare
        if self.ended or (rare is not None and rare.away is not None):
            return False
        return self.status != "" or (rare is not None and rare.successor)

    @property
    def over(self) -> bool:
        """Whether the order may leave the state: it has ended, or is another ledger's."""
        return self.ended or (self.rare is not None and self.rare.away is not None)


def ensure_rare(order: Order) -> Rare:
    """The order's rare part, created when it is first needed."""
    if order.rare is None:
        order.rare = Rare()
    return order.rare


def is_tradable(order: Order) -> bool:
    """Whether the symbol and the side are known, so that a fill of this order can be written as a trade."""
    return order.terms is not None and order.terms.symbol is not None and order.terms.side is not None


def is_multi_leg(order: Order) -> bool:
    """Whether the order's fills are those of its legs (rule 4.10): they came with legs, or its terms say so."""
    if order.rare is not None and order.rare.multi_leg:
        return True
    terms = order.terms
    return terms is not None and (terms.order_class == "mleg" or terms.legs is not None) and not is_tradable(order)


def get_quantity(order: Order) -> Decimal | None:
    """The quantity ordered; None while it is not known."""
    return DECIMAL[order.terms.quantity] if order.terms is not None and order.terms.quantity is not None else None


def find_told_sum(order: Order) -> Decimal | None:
    """The greatest cumulative quantity told of the fills; None where one of them came without."""
    fills = index_fills(order)
    if fills.untold:
        return None
    inferred = order.rare.inferred if order.rare is not None else []
    return max([fills.told + fills.corrected, *(one.snapshot_qty for one in inferred)])


def index_fills(order: Order) -> IndexedFills:
    """The fills of an order with their index, which is built at the first call."""
    if not isinstance(order.fills, IndexedFills):
        order.fills = IndexedFills(order.fills)
        for inferred in order.rare.inferred if order.rare is not None else ():
            order.fills.note_inferred(inferred.qty, inferred.value)
    return order.fills


def count_inferred(order: Order) -> Decimal:
    """Count the shares of inferred trades."""
    return index_fills(order).inferred_qty


def sum_value(order: Order) -> Decimal:
    """Sum price times quantity over the known fills, exactly."""
    fills = index_fills(order)
    return fills.value + fills.inferred_value


def _sum_written_value(order: Order) -> Decimal:
    """The same sum with the prices of the trade lines, so that it can be computed from `trades.jsonl`."""
    inferred = order.rare.inferred if order.rare else []
    return index_fills(order).value + sum((DECIMAL[trade.price] * trade.qty for trade in inferred), ZERO)


def get_created_at(order: Order) -> str:
    """When the order was created: the term, else the least `ts`."""
    return (order.terms.created_at if order.terms is not None else None) or order.created_at


_carried: Any = attrgetter(*TERMS)


def build_row(order: Order, team_id: str) -> PendingLine:
    """Build the row of an open order (format.md section 5)."""
    terms = dict(zip(TERMS, _carried(order.terms), strict=True)) if order.terms is not None else {}
    row = PendingLine(**{**terms, "order_id": order.order_id, "team_id": team_id})
    row.status = order.status or ("new" if order.rare is not None and order.rare.successor else "")
    row.created_at, row.updated_at = get_created_at(order), order.updated_at
    held = order.rare is not None and bool(order.rare.held)
    row.filled_qty = "0"
    if order.filled and not held:
        with exactly():
            row.filled_qty = plain(order.filled)
            row.filled_avg_price = plain(quotient(_sum_written_value(order), order.filled))
    return row


def get_sort_key(order: Order) -> tuple[int, str]:
    """The sort key of an order in `pending_orders.jsonl`."""
    return nanos(get_created_at(order)), order.order_id


class Derived(Struct):
    """The lines derived from a range of the log, to be appended to `trades.jsonl` and `findings.jsonl` in order."""

    trades: list[TradeLine] = []
    findings: list[Finding] = []


class Entry:
    """An event at `offset` with `length` bytes; for a leg of a multi-leg fill also the index of the leg."""

    __slots__ = (
        "derived",
        "findings",
        "length",
        "made",
        "offset",
        "reason",
        "revises",
        "stem",
        "taken_back",
        "team_id",
        "ts",
    )

    def __init__(
        self, offset: int, length: int, ts: str, team_id: str, derived: Derived, leg: int | None = None
    ) -> None:
        self.offset = offset
        self.length = length
        self.ts = ts
        self.team_id = team_id
        self.derived = derived
        self.stem = f"{offset}" if leg is None else f"{offset}-{leg}"
        self.made = 0
        self.reason: str | None = None
        """The broker's reason for the event; it is added to each finding."""
        self.taken_back = ZERO
        """By how much busts and corrections that had waited for the event's fill lowered the known fills."""
        self.revises = False
        """Whether a bust or a correction changed a trade of the order at this event."""
        self.findings: list[Finding] = []

    def find(self, kind: str, detail: str) -> None:
        """Report something suspicious about an event that is applied."""
        if self.reason is not None:
            detail = f"{detail} (reason: {self.reason})"
        self.findings.append(Finding(self.offset, self.length, kind, True, detail))

    def has(self, kind: str) -> bool:
        """Whether the event has a finding of a kind already."""
        return any(finding.kind == kind for finding in self.findings)

    def close(self) -> None:
        """Hand the findings over, in the order of the rules that make them."""
        self.findings.sort(key=lambda finding: FINDING_ORDER[finding.kind])
        self.derived.findings.extend(self.findings)

    def write(
        self,
        order: Order,
        kind: str,
        quantity: str,
        price: str,
        execution_id: str | None = None,
        reverses: str | None = None,
        corrects: str | None = None,
        ts: str | None = None,
    ) -> str:
        """Write a trade line and return its id.

        The line is held back while the order's symbol or side is not known (rule 4.5), and dropped while the order
        belongs to another ledger (4.12). `ts` is when the trade happened, if not at the event's `ts`.
        """
        trade_id = f"{self.stem}-{self.made}"
        self.made += 1
        if order.rare is not None and order.rare.away is not None:
            self._find_away(order)
            return trade_id
        trade = TradeLine(trade_id, self.team_id, order.order_id, None, None, quantity, price, timestamp=ts or self.ts)
        trade.kind = kind
        trade.execution_id, trade.reverses, trade.corrects, trade.offset = execution_id, reverses, corrects, self.offset
        if is_tradable(order):
            self._release(order, trade)
        else:
            ensure_rare(order).held.append(trade)
        return trade_id

    def _find_away(self, order: Order) -> None:
        assert order.rare is not None
        if not self.has("assigned_away"):
            detail = f"order {order.order_id} was assigned to team {order.rare.away}, whose ledger writes its trades"
            self.find("assigned_away", f"{detail}; none is written here")

    def release_held(self, order: Order) -> None:
        """Write the lines that were held back, once the terms are known."""
        if order.rare is not None and is_tradable(order):
            for trade in order.rare.held:
                self._release(order, trade)
            order.rare.held = []

    def _release(self, order: Order, trade: TradeLine) -> None:
        terms = order.terms
        trade.team_id = self.team_id
        trade.symbol, trade.side, trade.order_type = terms.symbol, terms.side, terms.order_type
        trade.requested_price = terms.requested_price
        trade.broker_order_id, trade.client_order_id = terms.broker_order_id, terms.client_order_id
        self.derived.trades.append(trade)
