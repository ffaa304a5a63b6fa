"""What the exchange deals with: orders, executions, and what happens to them.

What may happen, and when, is for `exchange`. Numbers are exact decimals, instants nanoseconds. Note:
a multi-leg order has no executions; what is filled of it, and at which price, follows from its legs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

TERMINAL = frozenset({"filled", "canceled", "expired", "rejected", "replaced"})
UNASSIGNED = "unassigned"


class Refused(Exception):
    """The broker will not do it: an HTTP status, Alpaca's own code, and a sentence."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass
class Execution:
    """One execution as it stands: a correction changes its numbers and its id, a bust takes it back."""

    id: str
    order_id: str
    activity_id: str
    at: int
    qty: Decimal
    price: Decimal
    cum_qty: Decimal
    leaves_qty: Decimal | None
    is_last: bool
    busted: bool = False
    corrected: bool = False


@dataclass
class Order:
    """One order, with all that Alpaca says of one and, in `team` and `parent`, what it keeps for itself."""

    id: str
    client_order_id: str
    team: str
    created_at: int
    submitted_at: int
    updated_at: int
    symbol: str
    side: str
    type: str = "market"
    time_in_force: str = "day"
    qty: Decimal | None = None
    notional: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    trail_price: Decimal | None = None
    trail_percent: Decimal | None = None
    order_class: str = ""
    position_intent: str = ""
    extended_hours: bool = False
    status: str = "pending_new"
    parent: str | None = None
    legs: list[str] = field(default_factory=list)
    ratio: int = 1
    replaces: str | None = None
    replaced_by: str | None = None
    filled_at: int | None = None
    canceled_at: int | None = None
    expired_at: int | None = None
    failed_at: int | None = None
    replaced_at: int | None = None
    executions: list[Execution] = field(default_factory=list)
    advanced_instructions: Mapping[str, Any] | None = None
    """How a large order is worked: by TWAP, for example, in many small executions."""
    filled: Decimal = Decimal(0)
    cost: Decimal = Decimal(0)
    """`filled` and `cost` are what the executions that stand add up to, for a multi-leg order what its legs do."""
    net_price: Decimal | None = None
    """The price of a multi-leg order."""
    status_before: str = "new"
    """Where a request to cancel or to replace returns to when it is rejected."""

    @property
    def is_open(self) -> bool:
        return self.status not in TERMINAL

    @property
    def is_multi_leg(self) -> bool:
        """Whether this is the parent of a multi-leg order, whose executions are its legs'."""
        return self.order_class == "mleg" and self.parent is None

    @property
    def standing(self) -> list[Execution]:
        """The executions that have not been taken back."""
        return [one for one in self.executions if not one.busted]

    def recount(self) -> None:
        """Add up the executions that stand, after one of them was revised."""
        self.filled = sum((one.qty for one in self.standing), Decimal(0))
        self.cost = sum((one.qty * one.price for one in self.standing), Decimal(0))

    @property
    def filled_qty(self) -> Decimal:
        return self.filled

    @property
    def filled_avg_price(self) -> Decimal | None:
        """As Alpaca writes it: rounded to nine decimals. What was busted whole keeps its price."""
        if self.is_multi_leg:
            return self.net_price
        if not self.filled:
            return self.executions[-1].price.normalize() if self.executions else None
        return (self.cost / self.filled).quantize(Decimal("1e-9")).normalize()

    @property
    def left(self) -> Decimal | None:
        """What can still be filled; None for an order over an amount of money."""
        return None if self.qty is None else self.qty - self.filled_qty


@dataclass(frozen=True)
class Happening:
    """Something to tell: the event's name, the order as it was then, and the execution if it is one."""

    event: str
    at: int
    order: Order
    legs: tuple[Order, ...] = ()
    execution: Execution | None = None
    leg_executions: tuple[Execution, ...] = ()
    previous: Mapping[str, str] = field(default_factory=dict)
    """For a bust or a correction: the id before it, by the id of the order."""


def team_of(client_order_id: str) -> str:
    """The team that a client_order_id of the form team:anything carries."""
    team, colon, rest = client_order_id.partition(":")
    return team if colon and rest and team else UNASSIGNED


def copy_of(order: Order) -> Order:
    """An order as it is now, with its sums and its last execution: a large one has thousands."""
    return replace(order, executions=[replace(one) for one in order.executions[-1:]], legs=list(order.legs))


_DECIMALS = ("qty", "limit_price", "stop_price", "trail_price", "trail_percent")
_TEXTS = ("type", "time_in_force", "order_class", "position_intent")


def terms_of(terms: Mapping[str, Any]) -> dict[str, Any]:
    """The terms of a request as those of an order; what is no term of an order is left out."""
    found: dict[str, Any] = {name: str(terms[name]) for name in _TEXTS if terms.get(name) is not None}
    found |= {name: Decimal(str(terms[name])) for name in _DECIMALS if terms.get(name) is not None}
    if terms.get("advanced_instructions") is not None:
        found["advanced_instructions"] = dict(terms["advanced_instructions"])
    if terms.get("extended_hours") is not None:
        found["extended_hours"] = bool(terms["extended_hours"])
    return found
