"""Place and cancel orders for applications: each order once, and in its team's log before the application goes on.

The broker refuses a second order with the same `client_order_id`. That id names the team and is made before the first
try; a try with an unknown outcome is followed by a question for that id. Note: an unknown outcome is no refusal. The
next reconcile finds the order and adopts it.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

from compactor.books.order_index import OrderIndex
from compactor.books.ownership import parse_team
from compactor.broker.alpaca import Fields, translate
from compactor.broker.budget import Budget
from compactor.broker.credentials import Credentials, find_credentials
from compactor.broker.rest import Broker, BrokerError, BrokerUnavailable, NotFound, Refused
from compactor.broker.transport import TIMEOUT_SECONDS
from compactor.core.decimals import BadDecimal, parse_decimal
from compactor.core.lifecycle import TERMINAL, normalize_name
from compactor.ledger import Ledger, LedgerError
from compactor.ledger.errors import BadTeam
from compactor.ledger.log_writer import sync_names
from compactor.ledger.paths import LOG, locate_ledger, resolve_data

CLIENT_ID_LENGTH_MAX = 128
TRIES = 4
PAUSE_SECONDS = 1.0


class PlacementUnknown(BrokerError):
    """Nobody knows whether the broker has the order; it is placed under `client_order_id` or not at all."""

    def __init__(self, message: str, client_order_id: str) -> None:
        super().__init__(message)
        self.client_order_id = client_order_id


class NotWrittenDown(BrokerError):
    """The broker has done it, and the log could not be written; `order` is what the broker says of it."""

    def __init__(self, message: str, order: Fields) -> None:
        super().__init__(message)
        self.order = order


class Trader:
    """Places and cancels orders of one account, and writes them into the ledgers of a data directory.

    All requests are paid for from `budget`. Methods raise BadCredentials and BrokerError. Safe for several threads as
    far as `requests` sessions are; make one for each thread where that matters.
    """

    def __init__(
        self,
        data: str | os.PathLike[str],
        credentials: Credentials,
        *,
        budget: Budget | None = None,
        timeout_seconds: tuple[float, float] = TIMEOUT_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._data = Path(data)
        self._index = OrderIndex(self._data)
        self._broker = Broker(credentials, budget=budget, timeout_seconds=timeout_seconds, sleep=sleep)
        self._sleep = sleep

    def submit(self, team: str, request: Any) -> Fields:
        """Place an order for a team; returns the order as the broker has it, once it is durable in the team's log.

        `request` is one of alpaca-py's, or a mapping with the fields of POST /v2/orders. Its `client_order_id`, if it
        has one, is the part after `team:`. Submitting the same terms again under it returns the order that is there, if
        that is still open. Raises Refused where the broker will not have it or the id belongs to another order,
        PlacementUnknown where nobody knows, NotWrittenDown, and BadTeam.
        """
        path = self._find_ledger(team)
        body = _make_body(request)
        client_order_id = _client_order_id(team, body.get("client_order_id"))
        # The team has its ledger before the broker has the order: so its name counts, whatever becomes of this program.
        self._make_ledger(path)
        order, objection = self._place({**body, "client_order_id": client_order_id})
        self._write(path, team, order)
        if objection is not None:
            raise Refused(objection)
        return order

    def cancel(self, order_id: str) -> None:
        """Ask the broker to cancel an order, and write down how it then stands. The order is open until that is done.

        Raises NotFound, and Refused where the order cannot be canceled; of one that has ended it says how, and that is
        in the log then.
        """
        for attempt in range(TRIES):
            try:
                self._broker.cancel(order_id)
                break
            except Refused as refusal:
                self._explain(order_id, refusal)
                raise
            except BrokerUnavailable:
                # To ask twice does no harm.
                if attempt == TRIES - 1:
                    raise
                self._sleep(PAUSE_SECONDS * 2**attempt)
        self._write_state(self._broker.order(order_id))

    def _explain(self, order_id: str, refusal: Refused) -> None:
        """Write down an order that has ended, and raise Refused with how it did."""
        try:
            order = self._broker.order(order_id)
        except BrokerError:
            raise refusal from None
        if order is None or normalize_name(str(order.get("status"))) not in TERMINAL:
            return
        self._write_state(order)
        filled = f", {order['filled_qty']} of {order['qty']} filled" if order.get("filled_qty") else ""
        raise Refused(f"order {order_id} has ended as {order['status']}{filled}; there is nothing to cancel") from None

    def _write_state(self, order: Fields | None) -> None:
        """Write down how an order stands, in the ledger that has it; nowhere if nobody knows whose it is."""
        team = self._find_team(str(order.get("id")), order) if order is not None else None
        if order is not None and team is not None:
            self._write(self._find_ledger(team), team, order)

    def _place(self, body: Fields) -> tuple[Fields, str | None]:
        """Place an order; returns it, with an objection where the id belongs to one that this is not."""
        client_order_id, error = body["client_order_id"], None
        for attempt in range(TRIES):
            try:
                return self._broker.place(body), None
            except Refused as refusal:
                # The broker refuses an id that it has had: an earlier try, whose answer was lost, or the caller's.
                found = self._look_for(client_order_id)
                if found is None:
                    raise refusal from None
                return found, None if error is not None else _find_objection(body, found)
            except BrokerUnavailable as failure:
                error = failure
            # It may have the order and the answer was lost, or it may still be at it.
            self._sleep(PAUSE_SECONDS * 2**attempt)
            found = self._look_for(client_order_id, error)
            if found is not None:
                return found, None
        assert error is not None
        raise self._unknown(client_order_id, error)

    def _look_for(self, client_order_id: str, because: BrokerError | None = None) -> Fields | None:
        try:
            return self._broker.order_by_client_id(client_order_id)
        except BrokerError as error:
            raise self._unknown(client_order_id, because or error) from None

    @staticmethod
    def _unknown(client_order_id: str, error: BrokerError) -> PlacementUnknown:
        return PlacementUnknown(
            f"nobody knows whether the broker has the order {client_order_id}: {error}. Submit it again under the same "
            "client_order_id, which cannot place it twice, or let compactor reconcile find out.",
            client_order_id,
        )

    # Writing down.

    def _find_ledger(self, team: str) -> Path:
        if (self._data / LOG).exists():
            return self._data
        place = locate_ledger(self._data, team)
        if place.problem is not None:
            raise BadTeam(place.path, place.problem)
        return place.path

    def _make_ledger(self, path: Path) -> None:
        if (path / LOG).exists():
            return
        # Where it cannot be made, the order is placed all the same; it is unassigned until the team is known.
        with suppress(OSError):
            path.mkdir(parents=True, exist_ok=True)
            (path / LOG).touch()
            sync_names(path)

    def _write(self, path: Path, team: str, order: Fields) -> None:
        named = {} if path == self._data else {"team_id": team}
        events = [{**_placed(event), **named} for event in translate(order, source="app").events]
        try:
            Ledger(path).append(events)
        except LedgerError as error:
            raise NotWrittenDown(
                f"the broker has order {order.get('id')}, and the log has not: {error}. Mend that; the next compactor "
                "reconcile then takes the order in.",
                order,
            ) from None

    def _find_team(self, order_id: str, order: Fields) -> str | None:
        """The team whose ledger has the order, else the one that its name carries; None where nobody knows."""
        self._index.follow(look_for_new=True)
        name = order.get("client_order_id")
        owner = self._index.find_owner(order_id, created_at=order.get("created_at"), client_order_id=name)
        return owner.team if owner is not None else parse_team(name, (), self._index.knows_team)


_COMPARED = (
    "symbol", "side", "qty", "notional", "type", "time_in_force", "limit_price", "stop_price", "trail_price",
    "trail_percent", "order_class", "extended_hours", "position_intent",
)  # fmt: skip
"""The terms of an order by which a second request for it is told from another one."""


def _find_objection(body: Fields, order: Fields) -> str | None:
    """Why an order that was placed before under the same id is not what was asked for now."""
    known = f"the broker has order {order.get('id')} under the client_order_id {body['client_order_id']}"
    if normalize_name(str(order.get("status"))) in TERMINAL:
        return f"{known}, which has ended as {order['status']}; place a new one under another id"
    for name in _COMPARED:
        wanted, found = body.get(name), order.get(name)
        if wanted is not None and _comparable(name, wanted) != _comparable(name, found):
            return f"{known}, whose {name} is {found}, and not {wanted}; place a new one under another id"
    return None


def _comparable(name: str, value: Any) -> Any:
    """A term as it compares: `"2"` is `"2.0"`, `BTCUSD` is `BTC/USD`, and a plain order has no class."""
    if name == "symbol" and isinstance(value, str):
        return value.replace("/", "")
    if name == "order_class":
        return value or "simple"
    try:
        return parse_decimal(value) if isinstance(value, str) else value
    except BadDecimal:
        return value


def _placed(event: Fields) -> Fields:
    """The event without what was filled by then, unless it is over: the executions themselves tell that better."""
    if event.get("order_status") in TERMINAL:
        return event
    return {name: value for name, value in event.items() if name not in ("filled_qty", "filled_avg_price")}


def _client_order_id(team: str, wanted: object) -> str:
    own = str(wanted) if wanted else str(uuid.uuid4())
    whole = own if own.startswith(f"{team}:") else f"{team}:{own}"
    if len(whole) > CLIENT_ID_LENGTH_MAX:
        raise Refused(
            f"client_order_id {whole[:60]!r}… has {len(whole)} characters, expected {CLIENT_ID_LENGTH_MAX} at most"
        )
    return whole


def _make_body(request: Any) -> Fields:
    fields = request.to_request_fields() if hasattr(request, "to_request_fields") else request
    if not isinstance(fields, Mapping):
        raise TypeError(f"expected one of alpaca-py's order requests or a mapping, found {type(request).__name__}")
    return {str(name): _plain(value) for name, value in fields.items() if value is not None}


def _plain(value: Any) -> Any:
    """Numbers as text with the digits that the caller sees, because the broker takes both and a text is exact."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float | Decimal):
        return f"{Decimal(repr(value) if isinstance(value, float) else value):f}"
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items() if one is not None}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


_traders: dict[Path, Trader] = {}


def _trader(data: str | os.PathLike[str] | None) -> Trader:
    path = resolve_data(data).absolute()
    if path not in _traders:
        _traders[path] = Trader(path, find_credentials(os.environ))
    return _traders[path]


def submit(team: str, request: Any, *, data: str | os.PathLike[str] | None = None) -> Fields:
    """`Trader.submit` with the keys of the environment, for the ledgers of `data` (else $COMPACTOR_DATA)."""
    return _trader(data).submit(team, request)


def cancel(order_id: str, *, data: str | os.PathLike[str] | None = None) -> None:
    """`Trader.cancel` with the keys of the environment, for the ledgers of `data`."""
    _trader(data).cancel(order_id)


__all__ = ["NotFound", "NotWrittenDown", "PlacementUnknown", "Refused", "Trader", "cancel", "submit"]
