"""Place and cancel orders for applications: each order once, and in its team's log before the application goes on.

The `client_order_id` names the team and is made before the first try; a try with an unknown outcome is followed by a
question for that id. It is repeated only where the broker refuses a second order with the same id. Note: an unknown
outcome is no refusal. The next reconcile finds the order and adopts it.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from compactor.books.order_index import OrderIndex
from compactor.books.ownership import parse_team
from compactor.broker.adapters import find_credentials, open_broker
from compactor.broker.budget import Budget
from compactor.broker.credentials import BadCredentials, Credentials
from compactor.broker.earlier_order import find_objection, is_ended
from compactor.broker.intents import IntentWriter
from compactor.broker.port import BrokerError, BrokerUnavailable, Fields, NotFound, Refused, Translation
from compactor.broker.readable import keep_readable
from compactor.core.lifecycle import TERMINAL
from compactor.ledger import Ledger, LedgerError
from compactor.ledger.errors import BadTeam
from compactor.ledger.paths import LOG, locate_ledger, resolve_data

TRIES = 4
PAUSE_SECONDS = 1.0


class PlacementUnknown(BrokerError):
    """Nobody knows whether the broker has the order; it is placed under `client_order_id` or not at all."""

    what_to_do = "submit it again under the same `client_order_id`, or let the next reconcile find out"

    def __init__(self, message: str, client_order_id: str, *, status: int | None = None) -> None:
        super().__init__(message, status=status)
        self.client_order_id = client_order_id


class NotWrittenDown(BrokerError):
    """The broker has done it, and the log could not be written; `order` is what the broker says of it."""

    what_to_do = "mend the disk; the next reconcile takes the order in. Do not submit it again under another id"

    def __init__(self, message: str, order: Any) -> None:
        super().__init__(message)
        self.order = order


class Trader:
    """Places and cancels orders of one account, and writes them into the ledgers of a data directory.

    All requests are paid for from `budget`. Methods raise BadCredentials and BrokerError. Safe for several threads as
    far as `requests` sessions are; make one for each thread where that matters. Close it, or use it in a `with`: it
    keeps checkpoints of the ledgers open.
    """

    def __init__(
        self,
        data: str | os.PathLike[str],
        credentials: Credentials,
        *,
        budget: Budget | None = None,
        timeout_seconds: tuple[float, float] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._data = Path(data)
        self._index = OrderIndex(self._data)
        self._broker = open_broker(credentials, budget=budget, timeout_seconds=timeout_seconds, sleep=sleep)
        self._sleep = sleep

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget what is in memory and close the checkpoints; the next call reads them anew."""
        self._index.close()

    def submit(self, team: str, request: Any, *, tags: Sequence[str] = (), note: str | None = None) -> Any:
        """As `submit_order`; returns the order in the broker's own words."""
        return self.submit_order(team, request, tags=tags, note=note)["raw"]

    def submit_order(self, team: str, request: Any, *, tags: Sequence[str] = (), note: str | None = None) -> Fields:
        """Place an order for a team; returns the broker's snapshot of it, once it is durable in the team's log.

        `request` is one of the broker's client library, or a mapping of its fields. Its `client_order_id`, if it has
        one, is the part after `team:`. Submitting the same terms again under it returns the order that is there, if
        that is still open. What is asked, with `tags` and `note`, is durable in the log before the broker is asked, and
        what became of it after that (rule 3.13).

        Raises Refused where the broker will not have it or the id belongs to another order, PlacementUnknown where
        nobody knows, NotWrittenDown, BadTeam, and LedgerError where the intent could not be written: then nobody was
        asked.
        """
        if isinstance(tags, str):
            raise TypeError(f"expected a list of tags, found the text {tags!r}; a single one is [{tags!r}]")
        path = self._find_ledger(team)
        terms = self._broker.read_request(request)
        terms["client_order_id"] = self._make_client_order_id(team, terms.get("client_order_id"))
        intent = IntentWriter(path, None if path == self._data else team, terms["client_order_id"])
        intent.announce(terms, tags, note)
        try:
            order, objection = self._place(terms)
        except (Refused, BadCredentials) as refusal:
            intent.refuse(refusal)
            raise
        except BrokerError:
            intent.give_up()
            raise
        self._write(path, team, order, [intent.conclude(order, objection)])
        if objection is not None:
            raise Refused(objection)
        return order.events[0]

    def replace(self, order_id: str, *, tags: Sequence[str] = (), note: str | None = None, **changes: Any) -> Any:
        """As `replace_order`; returns the new order in the broker's own words."""
        return self.replace_order(order_id, tags=tags, note=note, **changes)["raw"]

    def replace_order(
        self, order_id: str, *, tags: Sequence[str] = (), note: str | None = None, **changes: Any
    ) -> Fields:
        """Replace an open order by one with other terms; returns the broker's snapshot of the new order, once it is
        durable in the team's log.

        `changes` are terms by the broker's names. What is asked is an intent as of `submit_order`, for the new order,
        under a `client_order_id` of its own. Raises NotFound, Refused, and BrokerUnavailable where nobody knows whether
        it was replaced: the next reconcile finds out. Raises LedgerError where the intent could not be written.
        """
        terms = self._broker.read_request(changes)
        before = self._broker.read_order(order_id)
        if before is None or not before.events:
            raise NotFound(f"the broker has no order {order_id}; expected one that is open")
        # The new order is the team's that had the old one, whatever it is called.
        team = self._find_team(before.events[0])
        if team is None:
            order = self._broker.replace(order_id, terms)
            self._write_state(order)
            return order.events[0]
        path = self._find_ledger(team)
        terms["client_order_id"] = self._make_client_order_id(team, terms.get("client_order_id"))
        intent = IntentWriter(path, None if path == self._data else team, terms["client_order_id"])
        intent.announce({**terms, "replaces": order_id}, tags, note)
        try:
            order = self._broker.replace(order_id, terms)
        except (Refused, NotFound, BadCredentials) as refusal:
            intent.refuse(refusal)
            raise
        except BrokerUnavailable:
            intent.give_up()
            raise
        old = self._broker.read_order(order_id)
        if old is not None and old.events:
            self._write(path, team, old)
        self._write(path, team, order, [intent.conclude(order)])
        return order.events[0]

    def cancel(self, order_id: str) -> None:
        """Ask the broker to cancel an order, and write down how it then stands. The order is open until that is done.

        Raises NotFound, and Refused where the order cannot be canceled; of one that has ended it says how, and that is
        in the log then.
        """
        for attempt in range(TRIES):
            try:
                self._broker.cancel(order_id)
                break
            except (Refused, NotFound) as refusal:
                self._explain(order_id, refusal)
                raise
            except BrokerUnavailable:
                # To ask twice does no harm.
                if attempt == TRIES - 1:
                    raise
                self._sleep(PAUSE_SECONDS * 2**attempt)
        self._write_state(self._broker.read_order(order_id))

    def _explain(self, order_id: str, refusal: Refused | NotFound) -> None:
        """Write down an order that has ended, and raise Refused with how it did."""
        try:
            found = self._broker.read_order(order_id)
        except BrokerError:
            raise refusal from None
        if found is None or not found.events or not is_ended(found.events[0]):
            return
        self._write_state(found)
        order = found.events[0]
        filled = f", {order['filled_qty']} of {order.get('quantity')} filled" if order.get("filled_qty") else ""
        status = order["order_status"]
        status += f" by {order['replaced_by']}" if order.get("replaced_by") else ""
        raise Refused(f"order {order_id} has ended as {status}{filled}; there is nothing to cancel") from None

    def _write_state(self, order: Translation | None, team: str | None = None) -> None:
        """Write down how an order stands, in the ledger of a team, else in the one that has it; nowhere if nobody knows
        whose it is."""
        if team is None and order is not None and order.events:
            team = self._find_team(order.events[0])
        if order is not None and team is not None:
            self._write(self._find_ledger(team), team, order)

    def _place(self, terms: Fields) -> tuple[Translation, str | None]:
        """Place an order; returns it, with an objection where the id belongs to one that this is not."""
        client_order_id, error = terms["client_order_id"], None
        is_unique = self._broker.capabilities.unique_client_ids
        if not is_unique and (found := self._look_for(client_order_id)) is not None:
            return found, self._object(terms, found)
        for attempt in range(TRIES):
            try:
                # An order that may be there already is placed again only where the broker would refuse that.
                if error is None or is_unique:
                    return self._broker.place(terms), None
            except Refused as refusal:
                # The broker refuses an id that it has had: an earlier try, whose answer was lost, or the caller's.
                found = self._look_for(client_order_id)
                if found is None:
                    raise refusal from None
                return found, None if error is not None else self._object(terms, found)
            except BrokerUnavailable as failure:
                error = failure
            # It may have the order and the answer was lost, or it may still be at it.
            self._sleep(PAUSE_SECONDS * 2**attempt)
            found = self._look_for(client_order_id, error)
            if found is not None:
                return found, None
        assert error is not None
        raise self._unknown(client_order_id, error)

    def _object(self, terms: Fields, found: Translation) -> str | None:
        """Why the order that is there is not the one that is asked for; its legs are told by its id only."""
        order = found.events[0]
        if not is_ended(order) and {"take_profit", "stop_loss", "legs"} & terms.keys():
            found = self._broker.read_order(str(order["order_id"])) or found
        return find_objection(terms, order, found.events[1:])

    def _look_for(self, client_order_id: str, because: BrokerError | None = None) -> Translation | None:
        try:
            found = self._broker.find_order(client_order_id)
        except BrokerError as error:
            raise self._unknown(client_order_id, because or error) from None
        return found if found is not None and found.events else None

    def _unknown(self, client_order_id: str, error: BrokerError) -> PlacementUnknown:
        again = "which cannot place it twice" if self._broker.capabilities.unique_client_ids else "which asks first"
        return PlacementUnknown(
            f"nobody knows whether the broker has the order {client_order_id}: {error}. Submit it again under the same "
            f"client_order_id, {again}, or let compactor reconcile find out.",
            client_order_id,
            status=error.status,
        )

    def _make_client_order_id(self, team: str, wanted: object) -> str:
        own = str(wanted) if wanted else str(uuid.uuid4())
        whole = own if own.startswith(f"{team}:") else f"{team}:{own}"
        length_max = self._broker.capabilities.client_id_length_max
        if len(whole) > length_max:
            raise Refused(f"client_order_id {whole[:60]!r}… has {len(whole)} characters, expected {length_max} at most")
        return whole

    # Writing down.

    def _find_ledger(self, team: str) -> Path:
        if (self._data / LOG).exists():
            return self._data
        place = locate_ledger(self._data, team)
        if place.problem is not None:
            raise BadTeam(place.path, place.problem)
        return place.path

    def _write(self, path: Path, team: str, order: Translation, outcome: Sequence[Fields] = ()) -> None:
        named = {} if path == self._data else {"team_id": team}
        readable = [found for event in order.events if (found := keep_readable(_placed(event))[0]) is not None]
        events = [{**event, "source": "app", **named} for event in readable]
        try:
            Ledger(path).append([*events, *outcome], drop_raw=True)
        except LedgerError as error:
            raise NotWrittenDown(
                f"the broker has order {order.events[0]['order_id']}, and the log has not: {error}. Mend that; the "
                "next compactor reconcile then takes the order in.",
                order.events[0]["raw"],
            ) from None

    def _find_team(self, order: Fields) -> str | None:
        """The team whose ledger has the order, else the one that its name carries; None where nobody knows."""
        self._index.follow(look_for_new=True)
        name = order.get("client_order_id")
        owner = self._index.find_owner(order["order_id"], created_at=order.get("created_at"), client_order_id=name)
        return owner.team if owner is not None else parse_team(name, (), self._index.knows_team)


def _placed(event: Fields) -> Fields:
    """The event without what was filled by then, unless it is over: the executions themselves tell that better.

    Of an order that replaces another one the sums may be those of both, whatever has become of it.
    """
    if event.get("order_status") in TERMINAL and not event.get("replaces"):
        return event
    return {name: value for name, value in event.items() if name not in ("filled_qty", "filled_avg_price")}


_traders: dict[Path, Trader] = {}


def _trader(data: str | os.PathLike[str] | None) -> Trader:
    path = resolve_data(data).absolute()
    if path not in _traders:
        _traders[path] = Trader(path, find_credentials(os.environ))
    return _traders[path]


def submit(
    team: str,
    request: Any,
    *,
    tags: Sequence[str] = (),
    note: str | None = None,
    data: str | os.PathLike[str] | None = None,
) -> Any:
    """`Trader.submit` with the keys of the environment, for the ledgers of `data` (else $COMPACTOR_DATA)."""
    return _trader(data).submit(team, request, tags=tags, note=note)


def cancel(order_id: str, *, data: str | os.PathLike[str] | None = None) -> None:
    """`Trader.cancel` with the keys of the environment, for the ledgers of `data`."""
    _trader(data).cancel(order_id)


__all__ = ["NotFound", "NotWrittenDown", "PlacementUnknown", "Refused", "Trader", "cancel", "submit"]
