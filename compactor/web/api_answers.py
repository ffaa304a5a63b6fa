"""The answers of the API as types: what its OpenAPI document says, and what every answer has in common.

Rows have the fields of the derived files (format.md section 5), without those that are absent. Decimals are strings
there; with `numbers=json` they are JSON numbers, with the same digits.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from litestar.openapi.datastructures import ResponseSpec
from msgspec import Struct

from compactor.core.derived import Finding, PendingLine, TradeLine
from compactor.history.lookup import RelatedOrder
from compactor.history.story import StoryEvent, StoryIntent
from compactor.tracker.asked_orders import Origin, UnplacedOrder

Numbers = Literal["text", "json"]


class ErrorAnswer(Struct, frozen=True):
    """What went wrong, and what to do."""

    detail: str


class OpenOrderAnswer(PendingLine, gc=False, omit_defaults=True):
    """An open order: its row in `pending_orders.jsonl`, and its `origin`: `submitted` where it was asked for here, or
    is a leg of such an order; `adopted` where it was placed elsewhere and the broker told of it."""

    origin: Origin = "adopted"


class OrderAnswer(OpenOrderAnswer, gc=False, omit_defaults=True):
    """An order. `open` is false once it has ended, or went to another team's ledger (`assigned_to`)."""

    open: bool = False
    assigned_to: str | None = None


class OpenOrders(Struct, frozen=True):
    """The open orders of a team, oldest first.

    `as_of` is the time of the last event, by the log's own clock; `reconciled_through` up to when ledger and broker are
    known to agree; `stale` whether the data may be old, for the reasons in `status`.
    """

    team_id: str
    open_orders_count: int
    orders: list[OpenOrderAnswer]
    as_of: str | None
    reconciled_through: str | None
    stale: bool


class TradesPage(Struct, frozen=True):
    """Trades, newest first; `next_cursor` asks for the older ones, None where there are none."""

    team_id: str
    trades: list[TradeLine]
    next_cursor: str | None
    as_of: str | None
    reconciled_through: str | None
    stale: bool


class FindingsPage(Struct, frozen=True):
    """Findings, newest first; `next_cursor` asks for the older ones, None where there are none."""

    team_id: str
    findings: list[Finding]
    next_cursor: str | None
    as_of: str | None
    reconciled_through: str | None
    stale: bool


class StreamState(Struct, frozen=True):
    """The stream of an account, as the daemon reports it. Times are RFC 3339."""

    account: str
    connected: bool
    since: str | None
    last_message_at: str | None
    last_reconcile_at: str | None


class IntentState(Struct, frozen=True):
    """An order on its way: it was about to be asked for at `ts`, and nobody knows yet whether the broker has it.

    `request` is what is asked for by the names of the terms, as far as it was written down; `tags` and `note` say by
    whom and why.
    """

    client_order_id: str
    ts: str
    request: dict[str, Any]
    tags: list[str]
    note: str | None


class TeamStatus(Struct, frozen=True):
    """How current the answers about a team are.

    `reasons` say why the data may be old, empty while `stale` is false. `intents` are no open orders: the next
    reconcile finds out what became of each. `unplaced` are the last requests that led to no order, `refused` or
    `never_placed`, oldest first, fifty at most. `trading` is what an order is canceled at:
    `paper`, `real money`, or null where this server has no keys of the broker, and then nothing can be canceled here.
    """

    team_id: str
    has_ledger: bool
    offset: int
    log_bytes: int
    open_orders_count: int
    intents: list[IntentState]
    unplaced: list[UnplacedOrder]
    as_of: str | None
    reconciled_through: str | None
    stale: bool
    reasons: list[str]
    daemon_running: bool
    streams: list[StreamState]
    trading: str | None
    server_time: str


class TeamRow(Struct, frozen=True):
    """A team in the list of all teams."""

    team_id: str
    open_orders_count: int
    offset: int
    as_of: str | None
    reconciled_through: str | None
    stale: bool
    reasons: list[str]


class TeamList(Struct, frozen=True):
    """All teams that have a ledger, by name."""

    teams: list[TeamRow]


class KeyAnswer(Struct, frozen=True):
    """What the key of the request opens: one team, or for an administrator all of them."""

    key_id: str
    team_id: str | None
    admin: bool
    read_only: bool


class SummaryRow(Struct, frozen=True):
    """The trades of a symbol on a trading day, which begins at 20:00 New York the evening before.

    `fills` are executions that were not taken back. `bought` and `sold` are quantities, `bought_value` and `sold_value`
    quantity × price. `slippage` is what was paid above, or got below, `requested_price`, in money (negative: better
    than requested), over the `slippage_fills` fills that have one; `slippage_bps` the same in basis points of their
    requested value.
    """

    day: str
    symbol: str
    fills: int
    bought: str
    sold: str
    net: str
    bought_value: str
    sold_value: str
    slippage: str
    slippage_bps: str | None
    slippage_fills: int


class Summary(Struct, frozen=True):
    """Trades by day, newest first, and symbol."""

    team_id: str
    rows: list[SummaryRow]
    as_of: str | None
    reconciled_through: str | None
    stale: bool


class HistoryAnswer(Struct, frozen=True):
    """The story of an order: its events in log order, what each changed, and the orders around it. `intents` are what
    was asked for here, by whom and why, and what the broker said; `origin` is as that of an `OpenOrderAnswer`."""

    team_id: str
    order_id: str
    open: bool
    origin: Origin | None
    intents: list[StoryIntent]
    order: dict[str, Any]
    events: list[StoryEvent]
    unread: list[Finding]
    chain: list[RelatedOrder]


_DESCRIPTIONS = {
    400: "A parameter is not what it has to be.",
    401: "No key, or one that is not known.",
    403: "The key does not open this, or may only read.",
    404: "There is no such order.",
    409: "The order has ended; there is nothing to cancel.",
    413: "The request is too long.",
    429: "Too many requests; Retry-After says when to ask again.",
    503: "The broker, or the ledger, cannot be reached now.",
}


def refusals(*statuses: int) -> dict[int, ResponseSpec]:
    """The documentation of errors, beside those that every request may meet."""
    return {
        status: ResponseSpec(ErrorAnswer, description=_DESCRIPTIONS[status], generate_examples=False)
        for status in sorted({400, 401, 403, 413, 429, *statuses})
    }


encode = msgspec.json.Encoder().encode
