"""Read what each ledger has of an order that may move: its events, its legs', and the orders that replaced them.

What follows from that is left to `assign`.

Note: a ledger that knows an order only as the one that replaced another shows it all the same (rule 3.9). Such an order
has no events there that could be copied; it is shown where the order is that it replaced, or where its own events are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import msgspec

from compactor.books.followed_log import FollowedLog
from compactor.books.ownership import UNASSIGNED
from compactor.core.events import Event
from compactor.core.lines import Assignments, Deliveries
from compactor.core.rules import split_event

# What may differ between an event and its copy in another ledger.
_OWN = ("team_id", "recorded_at", "assigned_from", "raw")

Events = Iterable[tuple[Event, bytes]]
Read = Callable[[FollowedLog, str], Events]
"""The events of one log about an order, each with its bytes."""


class Holding(msgspec.Struct):
    """What one ledger has of an order and its legs: their events as lines, by what makes two of them the same."""

    lines: list[tuple[bytes, bytes]] = []
    orders: set[str] = set()
    successors: set[str] = set()
    """The orders that replaced them, as the ledger tells."""
    owned: set[str] = set()
    """The successors that have events of their own here."""
    shown: set[str] = set()
    """The orders that are known here only as the successors of others."""
    away: dict[str, str] = {}
    stuck: set[str] = set()
    """Those of `away` that cannot come back any more."""
    moves: dict[str, int] = {}
    """How many times each order was assigned, away or back, in this ledger."""

    @property
    def is_empty(self) -> bool:
        return not (self.orders or self.owned or self.shown or self.moves)


def read_holdings(logs: Iterable[FollowedLog], family: list[str], read: Read) -> dict[str, Holding]:
    """What the ledgers have of an order and its legs, by team. The first of a family is the order."""
    found = {}
    for log in logs:
        found[log.team] = holding = Holding()
        for order_id in family:
            _take_order(holding, order_id, family[0], read(log, order_id))
        holding.shown -= holding.orders
    return found


def add_successors(holdings: dict[str, Holding], logs: Iterable[FollowedLog], successors: Collection[str]) -> None:
    """Add what ledgers have of the orders that replaced those of the family."""
    for log in logs:
        holding = holdings.setdefault(log.team, Holding())
        for order_id in sorted(successors):
            own = [event for event, _line in log.read_order(order_id) if event.order_id == order_id]
            if any(event.event != "assigned" for event in own):
                holding.owned.add(order_id)
            elif order_id in holding.successors:
                holding.shown.add(order_id)
            _take_moves(holding, order_id, own)


def _take_order(holding: Holding, order_id: str, root: str, events: Events) -> None:
    own = []
    for event, line in events:
        if event.order_id == root and order_id != root and order_id in list_legs(event):
            holding.orders.add(order_id)
        successors = list_successors(event)
        if event.order_id != order_id:
            holding.shown |= {order_id}.intersection(successors)
            continue
        own.append(event)
        if event.event != "assigned":
            holding.orders.add(order_id)
            holding.lines.append((identify_line(line), line))
            holding.successors.update(successors)
    _take_moves(holding, order_id, own)


def _take_moves(holding: Holding, order_id: str, events: Iterable[Event]) -> None:
    deliveries, assignments, moves = Deliveries(), Assignments(), 0
    for event in events:
        if event.event == "assigned" and deliveries.note(event):
            moves += 1
            assignments.take(event)
    if moves:
        holding.moves[order_id] = moves
    if assignments.away_to is not None:
        holding.away[order_id] = assignments.away_to
        holding.stuck |= set() if assignments.may_return else {order_id}


def plan_successors(holdings: dict[str, Holding], team: str) -> Iterator[tuple[str, str, str]]:
    """The ledgers that show an order which is another's, where its predecessor goes to a team: the team of the ledger,
    the order, and the team that shows it from here on.

    That is the team whose ledger has events of the order itself, else the one that its predecessor goes to. What has
    events in `unassigned` follows its predecessor by itself, so that nothing is taken from its team.
    """
    for order_id in sorted(set().union(*(one.shown & one.successors for one in holdings.values()))):
        owners = [name for name, one in sorted(holdings.items()) if order_id in one.owned and order_id not in one.away]
        if len(owners) > 1:
            continue  # Which of them has it is for a person to decide.
        home = owners[0] if owners else team
        for name, holding in sorted(holdings.items()):
            follows = name == team and home == UNASSIGNED
            if order_id in holding.shown and name != home and order_id not in holding.away and not follows:
                yield name, order_id, home


def plan_returns(target: Holding, holdings: Iterable[Holding]) -> list[str]:
    """The orders that a ledger shows again: their predecessor comes back, and no ledger has events of their own."""
    owned = set().union(*(one.owned for one in holdings))
    return sorted((target.shown & target.successors & target.away.keys()) - owned - target.stuck)


def list_legs(event: Event) -> set[str]:
    """The legs that an event names."""
    named = {str(leg["order_id"]) for leg in event.legs or () if isinstance(leg, dict) and leg.get("order_id")}
    return named | {leg.order_id for leg in event.leg_fills or ()}


def list_successors(event: Event) -> set[str]:
    """The order that an event makes known because it replaced another one (rule 3.9)."""
    return {part.order_id for part in split_event(event) if part.is_successor}


_decode_any: Any = msgspec.json.Decoder(float_hook=str).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read_fields(line: bytes) -> dict[str, msgspec.Raw]:
    """The values of an event's fields, to the letter; but a byte that is not UTF-8, which only unread fields can have,
    is replaced."""
    try:
        return _decode_fields(line)
    except UnicodeDecodeError:
        return _decode_fields(line.decode(errors="replace"))


def identify_line(line: bytes) -> bytes:
    """What two lines have in common that are the same event in different ledgers."""
    fields = {name: _normalize(value) for name, value in read_fields(line).items() if name not in _OWN}
    return msgspec.json.encode(fields, order="sorted")


def _normalize(value: msgspec.Raw) -> bytes:
    """A JSON value in one notation, where msgspec can write it at all."""
    try:
        return msgspec.json.encode(_decode_any(value), order="sorted")
    except (UnicodeDecodeError, OverflowError):
        return bytes(value)
