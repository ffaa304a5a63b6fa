"""One event on its way through the rules: its offset in the log, and the trades and findings derived from it so far.

The rules write trades and findings through an `Entry` only, which makes their offsets, trade ids and order.
"""

from msgspec import Struct

from compactor.core.derived import FINDING_ORDER, Finding, TradeLine
from compactor.core.orders import Order, ensure_rare, is_tradable


class Derived(Struct):
    """The lines derived from a range of the log, to be appended to `trades.jsonl` and `findings.jsonl` in order."""

    trades: list[TradeLine] = []
    findings: list[Finding] = []


class Entry:
    """An event at `offset` with `length` bytes; for a leg of a multi-leg fill also the index of the leg."""

    __slots__ = ("derived", "findings", "length", "made", "offset", "reason", "stem", "team_id", "ts")

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
        self.findings.clear()

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
        if order.rare is not None and order.rare.held and is_tradable(order):
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
