"""Alpaca behind the port: `rest`, `resend` and `stream` speak to it; `translate` and `leg_executions` make events.

This module is what the entry point `alpaca` of the group "compactor.brokers" names.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from enum import Enum
from typing import Any

from compactor.broker.alpaca.access import check_libraries, find_credentials
from compactor.broker.alpaca.leg_executions import EntryReader, LegBook, name_executions
from compactor.broker.alpaca.listing import list_around, list_families, list_fills_around
from compactor.broker.alpaca.positions_held import MOVING_KINDS, read_adjustments, read_positions
from compactor.broker.alpaca.resend import ADDRESSES, EventStreams, Kind, NoResend, WindowResult, step_back_ulid
from compactor.broker.alpaca.rest import TRIES, AlpacaRest
from compactor.broker.alpaca.stream import TradeStream
from compactor.broker.alpaca.translate import translate, translate_message
from compactor.broker.alpaca.transport import TIMEOUT_SECONDS
from compactor.broker.budget import Budget
from compactor.broker.credentials import BadCredentials, Credentials
from compactor.broker.port import (
    Adjustment,
    BrokerCheck,
    BrokerStream,
    BrokerUnavailable,
    Capabilities,
    Fields,
    Message,
    Refused,
    ResendPoint,
    ResendResult,
    ResentBatch,
    StreamListener,
    Translation,
)
from compactor.core.events import Problem
from compactor.core.instants import nanos, rfc3339

RESEND_TRIES = 2
RESEND_OVERLAP_SECONDS = 300
BATCH = 500
DAY_NS = 86_400 * 10**9
_REQUEST = {"quantity": "qty", "order_type": "type"}
"""Terms of an order whose name in a request differs from the ledger's."""
_TERMS = {theirs: ours for ours, theirs in _REQUEST.items()}


class AlpacaAccount:
    """One account at Alpaca; implements `BrokerPort`."""

    capabilities = Capabilities()

    def __init__(
        self,
        credentials: Credentials,
        *,
        budget: Budget | None = None,
        timeout_seconds: tuple[float, float] | None = None,
        tries: int | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        timeout_seconds, budget = timeout_seconds or TIMEOUT_SECONDS, budget or Budget()
        self._credentials = credentials
        self.rest = AlpacaRest(
            credentials, budget=budget, timeout_seconds=timeout_seconds, tries=tries or TRIES, sleep=sleep
        )
        self.event_streams = EventStreams(credentials, budget=budget, timeout_seconds=timeout_seconds)
        self._legs = LegBook(self.rest.order)
        self._entries = EntryReader(self._legs)

    @property
    def requests(self) -> int:
        """The number of requests sent, failed ones included."""
        return self.rest.requests

    @property
    def skew_seconds(self) -> float:
        """As the port says."""
        return self.rest.skew_seconds

    def read_account_id(self) -> str:
        """As the port says."""
        return self.rest.account()

    def read_open_orders(self) -> Translation:
        """As the port says. Alpaca's list lacks legs that are held, so those of every family are read with it."""
        found = self.rest.open_orders()
        return self._translate_orders(found + list_families(self.rest, found))

    def read_orders_since(self, instant: str) -> Translation:
        """As the port says."""
        return self._translate_orders(self.rest.orders_since(instant))

    def read_order(self, order_id: str) -> Translation | None:
        """As the port says."""
        found = self.rest.order(order_id)
        return None if found is None else self._translate_orders([found])

    def list_orders(self, wanted: Mapping[str, str | None]) -> Translation:
        """As the port says: a list from the time of one of them on has its neighbors as well."""
        times = {order_id: at for order_id, at in wanted.items() if at is not None}
        return self._translate_orders(list_around(self.rest, times))

    def find_order(self, client_order_id: str) -> Translation | None:
        """As the port says."""
        found = self.rest.order_by_client_id(client_order_id)
        return None if found is None else self._translate_orders([found])

    def read_fills_since(self, instant: str) -> Translation:
        """As the port says."""
        return self._translate_fills(self.rest.fills(instant))

    def read_order_fills(self, order: Mapping[str, Any], since: str) -> Translation:
        """As the port says. The activities of a leg may name its parent."""
        ids = [str(order["order_id"])]
        if order.get("order_class") == "mleg" and order.get("parent_order_id"):
            ids.append(str(order["parent_order_id"]))
        return self._translate_fills([fill for order_id in ids for fill in self.rest.fills(since, order_id)])

    def list_fills(self, orders: Sequence[Mapping[str, Any]]) -> Translation:
        """As the port says: the activities from when these orders were placed until they changed last."""
        return self._translate_fills(list_fills_around(self.rest, orders))

    def read_positions(self) -> dict[str, Decimal]:
        """As the port says."""
        return read_positions(self.rest.positions())

    def read_adjustments(self, since: str) -> list[Adjustment]:
        """As the port says. Of other kinds of activities `qty` is no movement, but what a dividend is paid for."""
        # Most of them have a day and no time.
        return read_adjustments(self.rest.other_activities(MOVING_KINDS, rfc3339(nanos(since) - DAY_NS)))

    def read_request(self, request: Any) -> Fields:
        """As the port says: one of alpaca-py's order requests, or a mapping of the fields of POST /v2/orders."""
        fields = request.to_request_fields() if hasattr(request, "to_request_fields") else request
        if not isinstance(fields, Mapping):
            raise TypeError(f"expected one of alpaca-py's order requests or a mapping, found {type(request).__name__}")
        return {_TERMS.get(str(name), str(name)): _plain(value) for name, value in fields.items() if value is not None}

    def place(self, terms: Mapping[str, Any]) -> Translation:
        """As the port says."""
        return self._translate_order(self.rest.place(_name_as_requested(terms)))

    def replace(self, order_id: str, changes: Mapping[str, Any]) -> Translation:
        """As the port says."""
        return self._translate_order(self.rest.replace(order_id, _name_as_requested(changes)))

    def cancel(self, order_id: str) -> None:
        """As the port says."""
        self.rest.cancel(order_id)

    def examine(self, per_minute: int) -> Iterator[BrokerCheck]:
        """As the port says."""
        from compactor.broker.alpaca.examine import AccountExaminer

        return AccountExaminer(self._credentials, self.rest, self.event_streams, per_minute=per_minute).run()

    def translate(self, message: Message) -> Translation:
        """As the port says."""
        return translate_message(message)

    def open_stream(self, listener: StreamListener) -> BrokerStream:
        """As the port says."""
        return TradeStream(self._credentials, listener)

    def resend(self, since: str, until: str, point: ResendPoint, result: ResendResult) -> Iterator[ResentBatch]:
        """As the port says. Which endpoint an account has is not documented, so both are tried."""
        refusal: BadCredentials | None = None
        for kind in sorted(ADDRESSES, key=lambda kind: kind != point.kind):
            try:
                yield from self._resend(kind, since, until, point.cursor if kind == point.kind else "", result)
            except NoResend as error:
                result.reason = str(error)
                continue
            except BadCredentials as error:
                # One endpoint may be closed to this account; that says nothing about the other one.
                refusal = error
                continue
            return
        result.point = ResendPoint()
        if refusal is not None:
            raise refusal

    def _resend(
        self, kind: Kind, since: str, until: str, cursor: str, result: ResendResult
    ) -> Generator[ResentBatch, None, None]:
        """Read the window of time, and what was added since the last resend with an older time."""
        found = yield from self._read_window(kind, since, until)
        windows = [found]
        newest = found.newest_id
        if cursor and not found.is_endless:
            try:
                late = yield from self._read_window(kind, "", until, step_back_ulid(cursor, RESEND_OVERLAP_SECONDS))
                windows.append(late)
                newest = max(cursor, newest, late.newest_id)
            except NoResend:
                # An endpoint without cursors; the window of time has been read.
                newest = ""
        result.is_delivered = all(one.is_delivered for one in windows)
        result.complete = all(one.complete for one in windows)
        result.reason = next((one.reason for one in windows if one.reason), "")
        result.point = ResendPoint(kind, newest if result.is_delivered else cursor)

    def _read_window(
        self, kind: Kind, since: str, until: str, since_id: str | None = None
    ) -> Generator[ResentBatch, None, WindowResult]:
        for attempt in range(RESEND_TRIES):
            found, problem = WindowResult(), ""
            for batch in _batches(self.event_streams.read(kind, since, until, found, since_id=since_id)):
                problem = self._entries.prepare(batch) or problem
                is_whole = not (problem or found.reason or found.unknown)
                # Of one window the events come in the order of their times, of the other in that of their ids.
                through = rfc3339(found.newest_at) if is_whole and since_id is None and found.newest_at else ""
                cursor = found.newest_id if is_whole and since_id is not None else ""
                # An activity does not tell which order its order replaces.
                yield ResentBatch(batch, self._entries.translate, kind != "activities", through, cursor)
            found.reason = found.reason or problem
            found.complete = found.complete and not problem
            if found.is_delivered or found.is_endless or attempt == RESEND_TRIES - 1:
                break
        return found

    def _translate_orders(self, orders: list[Any]) -> Translation:
        self._legs.note(orders)
        return translate(orders, source="rest")

    def _translate_order(self, order: Any) -> Translation:
        """The answer to a request that changed something: without an event nobody knows what that was."""
        found = self._translate_orders([order])
        if not found.events:
            raise BrokerUnavailable(f"the broker's answer cannot be read: {found.problems[0].detail}")
        return found

    def _translate_fills(self, activities: list[Any]) -> Translation:
        unknown = self._legs.prepare((one.get("order_id"), one.get("symbol"), one.get("side")) for one in activities)
        found = [self._legs.move(translate(one, source="rest")) for one in activities]
        problems = [problem for one in found for problem in one.problems]
        problems += [Problem("order_unanswered", f"its executions are left out: {unknown}")] if unknown else []
        return Translation(name_executions([event for one in found for event in one.events]), problems)


def open_account(
    credentials: Credentials,
    *,
    budget: Budget | None = None,
    timeout_seconds: tuple[float, float] | None = None,
    tries: int | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> AlpacaAccount:
    """As `BrokerAdapter` says."""
    return AlpacaAccount(credentials, budget=budget, timeout_seconds=timeout_seconds, tries=tries, sleep=sleep)


def _name_as_requested(terms: Mapping[str, Any]) -> Fields:
    return {_REQUEST.get(name, name): value for name, value in terms.items()}


def _plain(value: Any) -> Any:
    """Numbers as text with the digits that the caller sees, because the broker takes both and a text is exact."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float | Decimal):
        number = Decimal(repr(value) if isinstance(value, float) else value)
        if not number.is_finite():
            raise Refused(f"found {value} among the terms of an order, expected numbers; the broker was not asked")
        return f"{number:f}"
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items() if one is not None}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _batches(events: Iterable[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for event in events:
        batch.append(event)
        if len(batch) >= BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


__all__ = ["AlpacaAccount", "check_libraries", "find_credentials", "open_account"]
