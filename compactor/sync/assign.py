"""Moves an order to another team's ledger: its events are copied there, and then the old ledger is told (rule 4.12).

What `assigned` does to a ledger is for the core. The rule that surprises: nothing here remembers how far it came. What
is still to be done follows from the logs alone, so a run that was stopped anywhere is completed by running it again,
and two at once do no more than one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from compactor.books.ownership import holder_of
from compactor.books.turns import compact_in_turn, turn
from compactor.core.derived import Finding
from compactor.core.events import LINE_BYTES_MAX, Event
from compactor.core.exceptions import CompactorError
from compactor.core.instants import rfc3339
from compactor.core.lines import read_line
from compactor.ledger import Ledger, discover
from compactor.ledger.files import Files
from compactor.ledger.paths import LOG, locate_ledger
from compactor.ledger.reading import read_naming

TURN_SECONDS = 30
_PASSES_MAX = 5
_LINE_BYTES = LINE_BYTES_MAX - 128
# What may differ between an event and its copy in another ledger.
_OWN = ("team_id", "recorded_at", "assigned_from", "raw")


class CannotAssign(CompactorError):
    """The order cannot be moved; nothing was changed."""


class Assigned(msgspec.Struct):
    """What a move did. `orders` are the order and its legs, `from_teams` the ledgers that were told that it left,
    `events` how many were copied; with no ledger told and none copied it was there already."""

    order_id: str
    team_id: str
    orders: list[str]
    from_teams: list[str] = []
    events: int = 0


class _Holding(msgspec.Struct):
    """What one ledger has of an order and its legs: their events as lines, by what makes two of them the same."""

    lines: list[tuple[bytes, bytes]] = []
    orders: set[str] = set()
    away: dict[str, str] = {}
    moves: dict[str, int] = {}
    """How many times each order was assigned, away or back, in this ledger."""


def assign(data: Path, order_id: str, team: str) -> Assigned:
    """Move an order, and its legs, to a team's ledger; returns when that is durable in both and in the derived files.

    Raises CannotAssign where no ledger knows the order or it is the leg of one, BadTeam, ReconcileBusy and LedgerError.
    Whatever it raises, doing it again completes it.
    """
    if (data / LOG).exists():
        raise CannotAssign(
            f"{data}: this directory is itself one team's ledger (it has {LOG}); orders are assigned between the "
            "ledgers below team/ of a data directory"
        )
    place = locate_ledger(data, team)
    if place.problem is not None:
        raise CannotAssign(f"{place.path}: {place.problem}")
    with turn(data, TURN_SECONDS):
        done = Assigned(order_id, team, [])
        for _ in range(_PASSES_MAX):
            # Another writer may tell the old ledger of a fill until that knows that the order has left.
            if not _pass(data, place.path, done):
                break
        for name in sorted({team, *done.from_teams}):
            with Ledger(locate_ledger(data, name).path) as ledger:
                compact_in_turn(ledger)
        return done


def _pass(data: Path, target_path: Path, done: Assigned) -> bool:
    """Do what is still to be done as of now; whether that was anything."""
    team = done.team_id
    family, holdings = _find(data, done.order_id)
    done.orders = family
    target = holdings.pop(team, _Holding())
    away = {name: one.away for name, one in [*holdings.items(), (team, target)]}
    returning = [one for one in family if one in target.away]
    missing = _missing(holdings, target)
    stamp = rfc3339(time.time_ns())
    back = [_assigned(one, stamp, target, from_team=holder_of(one, team, away)) for one in returning]
    if back or missing:
        with Ledger(target_path) as ledger:
            ledger.append([*back, *(_copy(line, team, name) for name, line in missing)])
        done.events += len(missing)
    told = False
    for name, holding in sorted(holdings.items()):
        leaving = [one for one in family if one in holding.orders and one not in holding.away]
        if leaving:
            with Ledger(locate_ledger(data, name).path) as ledger:
                ledger.append([_assigned(one, stamp, holding, to_team=team) for one in leaving])
            done.from_teams.append(name)
            told = True
    return told or bool(back or missing)


def _find(data: Path, order_id: str) -> tuple[list[str], dict[str, _Holding]]:
    """The order and its legs, and what each ledger has of them."""
    places = [place for place in discover(data) if place.problem is None and place.team_id is not None]
    legs: set[str] = set()
    known = False
    for place in places:
        assert place.team_id is not None
        for event, _line in _events(place.path, place.team_id, order_id):
            known = known or event.order_id == order_id
            _refuse_leg(event, order_id)
            if event.order_id == order_id:
                legs |= _legs_of(event)
            elif event.parent_order_id == order_id:
                legs.add(event.order_id)
    if not known:
        raise CannotAssign(
            f"no ledger in {data} knows an order {order_id!r}; compactor show pending lists the open ones, and "
            "compactor reconcile takes in what the broker has"
        )
    family = [order_id, *sorted(legs - {order_id})]
    holdings = {
        place.team_id: _hold(place.path, place.team_id, family) for place in places if place.team_id is not None
    }
    return family, {team: one for team, one in holdings.items() if one.orders or one.moves}


def _refuse_leg(event: Event, order_id: str) -> None:
    """The events of a leg are partly its parent's, so that it cannot go without it."""
    is_leg_of = event.parent_order_id if event.order_id == order_id else None
    if is_leg_of is None and event.order_id != order_id and order_id in _legs_of(event):
        is_leg_of = event.order_id
    if is_leg_of is not None:
        raise CannotAssign(f"order {order_id} is a leg of order {is_leg_of}; assign that one, and its legs go with it")


def _legs_of(event: Event) -> set[str]:
    return {str(leg["order_id"]) for leg in event.legs or () if isinstance(leg, dict) and leg.get("order_id")}


def _hold(path: Path, team: str, family: list[str]) -> _Holding:
    found = _Holding()
    root = family[0]
    for order_id in family:
        moves: dict[str, str | None] = {}
        for event, line in _events(path, team, order_id):
            if event.order_id == root and order_id != root and order_id in _legs_of(event):
                found.orders.add(order_id)
            if event.order_id != order_id:
                continue
            if event.event == "assigned":
                moves.setdefault(event.event_id or f"\0{len(moves)}", event.to_team)
            else:
                found.orders.add(order_id)
                found.lines.append((_key(line), line))
        if moves:
            found.moves[order_id] = len(moves)
            to_team = list(moves.values())[-1]
            if to_team is not None:
                found.away[order_id] = to_team
    return found


def _events(path: Path, team: str, order_id: str) -> Iterator[tuple[Event, bytes]]:
    """The events in a ledger whose lines name an order, each with the bytes that it stands in."""
    for start, line in read_naming(path, order_id, Files()):
        for placed in read_line(line, start):
            if not isinstance(placed, Finding) and placed.event.team_id in (None, team):
                here = placed.offset - start
                yield placed.event, line[here : here + placed.length]


def _missing(holdings: dict[str, _Holding], target: _Holding) -> list[tuple[str, bytes]]:
    """The events that any other ledger has and the target has not, with the team that has them, in their order.

    An event that stands twice in a log is copied twice, because what it means may depend on what came between.
    """
    have = Counter(key for key, _ in target.lines)
    missing = []
    for name, holding in sorted(holdings.items()):
        seen: Counter[bytes] = Counter()
        for key, line in holding.lines:
            seen[key] += 1
            if seen[key] > have[key]:
                have[key] += 1
                missing.append((name, line))
    return missing


def _assigned(order_id: str, stamp: str, holding: _Holding, **direction: str) -> dict[str, str]:
    # The number makes the event the same one for everybody who has read the same log.
    event_id = f"assigned:{holding.moves.get(order_id, 0)}"
    return {"event": "assigned", "order_id": order_id, "ts": stamp, "event_id": event_id, "source": "app", **direction}


_decode: Any = msgspec.json.Decoder(float_hook=str).decode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def _key(line: bytes) -> bytes:
    """What two lines have in common that are the same event in different ledgers."""
    fields = {name: value for name, value in _decode(line).items() if name not in _OWN}
    return msgspec.json.encode(fields, order="sorted")


def _copy(line: bytes, team: str, came_from: str) -> bytes:
    """An event for another team's log: every other value stays as it is, digit by digit."""
    fields: dict[str, Any] = {**_fields(line), "team_id": team, "assigned_from": came_from}
    copy = msgspec.json.encode(fields)
    return copy if len(copy) <= _LINE_BYTES else msgspec.json.encode({n: v for n, v in fields.items() if n != "raw"})
