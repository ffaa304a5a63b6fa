"""What the derived files of a ledger say, as typed values: trades and open orders (format.md section 5).

Findings are `compactor.core.derived.Finding`, which the fold writes and programs read as it is. A decimal is a
`Decimal` with the digits of the file; a time is an `Instant`, which loses neither nanoseconds nor the text. The same
lines as plain mappings are `Ledger.rows`.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from functools import total_ordering
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from compactor.core.instants import EPOCH, BadInstant, nanos

Record = TypeVar("Record")


@total_ordering
class Instant:
    """A time as a file has it: its RFC 3339 `text`, and `ns`, the nanoseconds since 1970 in UTC.

    Instants are immutable. They are compared by `ns`, so that one moment in two time zones is equal. Raises ValueError
    for a text that is no RFC 3339 time.
    """

    __slots__ = ("ns", "text")
    ns: int
    text: str

    def __init__(self, text: str) -> None:
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "ns", nanos(text))

    @property
    def datetime(self) -> datetime:
        """The time in UTC, cut to whole microseconds."""
        return EPOCH + timedelta(microseconds=self.ns // 1000)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Instant is immutable: cannot set {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"Instant is immutable: cannot delete {name!r}")

    def __eq__(self, other: object) -> bool:
        return self.ns == other.ns if isinstance(other, Instant) else NotImplemented

    def __lt__(self, other: "Instant") -> bool:
        return self.ns < other.ns if isinstance(other, Instant) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.ns)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Instant({self.text!r})"

    def __reduce__(self) -> tuple[type["Instant"], tuple[str]]:
        return type(self), (self.text,)


class Trade(Struct, frozen=True, kw_only=True):
    """One line of `trades.jsonl`: an execution, or what takes one back.

    The sum of `quantity` is the truth: it is negative for a reversal, whatever the `side`. `kind` is `fill`,
    `inferred`, `reversal` or `correction`; `reverses` and `corrects` name a `trade_id`. `offset` is that of the event.
    """

    trade_id: str
    team_id: str
    order_id: str
    symbol: str
    side: str
    quantity: Decimal
    execution_price: Decimal
    requested_price: Decimal | None = None
    order_type: str | None = None
    timestamp: Instant
    broker_order_id: str | None = None
    client_order_id: str | None = None
    execution_id: str | None = None
    kind: str
    reverses: str | None = None
    corrects: str | None = None
    offset: int


class PendingOrder(Struct, frozen=True, kw_only=True):
    """One line of `pending_orders.jsonl`: an open order, with what is known of it; None is not known.

    `filled_qty` and `filled_avg_price` follow from the order's trades alone.
    """

    order_id: str
    team_id: str
    symbol: str | None = None
    side: str | None = None
    quantity: Decimal | None = None
    notional: Decimal | None = None
    order_type: str | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    trail_price: Decimal | None = None
    trail_percent: Decimal | None = None
    status: str
    filled_qty: Decimal
    filled_avg_price: Decimal | None = None
    time_in_force: str | None = None
    order_class: str | None = None
    position_intent: str | None = None
    extended_hours: bool | None = None
    created_at: Instant
    updated_at: Instant
    broker_order_id: str | None = None
    client_order_id: str | None = None
    requested_price: Decimal | None = None
    replaces: str | None = None
    replaced_by: str | None = None
    parent_order_id: str | None = None
    group_id: str | None = None
    group_role: str | None = None
    legs: list[Any] | None = None


def line_decoder(record: type[Record]) -> Callable[[bytes], Record]:
    """A function that decodes one line; it raises msgspec.DecodeError for a line that is none of these."""
    return msgspec.json.Decoder(record, dec_hook=_decode_instant, float_hook=Decimal).decode


def _decode_instant(_wanted: type, text: Any) -> Instant:
    if not isinstance(text, str):
        raise ValueError(f"expected a time as RFC 3339 text, found {text!r}")
    try:
        return Instant(text)
    except BadInstant as error:
        raise ValueError(f"expected a time as RFC 3339 text, found {text!r} ({error})") from None
