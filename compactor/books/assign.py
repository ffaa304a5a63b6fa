"""Moves orders to another team's ledger: the events are copied there, and then the old ledger is told (rule 4.12).

What `assigned` does to a ledger is left to the core, what the ledgers have to `holdings`, and which orders of
`unassigned` have found their team to `unassigned`.

Note: nothing here remembers how far it came. What is still to be done follows from the logs alone, so a run that was
stopped anywhere is completed by running it again, and two at once do no more than one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from compactor.books.followed_log import FollowedLog
from compactor.books.holdings import (
    Events,
    Holding,
    Read,
    add_successors,
    list_legs,
    list_successors,
    plan_returns,
    plan_successors,
    read_fields,
    read_holdings,
)
from compactor.books.order_index import OrderIndex
from compactor.books.ownership import trace_assignments
from compactor.books.turns import compact_in_turn, turn
from compactor.core import CompactorError
from compactor.core.events import RETURNS_MAX, Event
from compactor.core.instants import rfc3339
from compactor.ledger import Ledger
from compactor.ledger.paths import LOG, locate_ledger

TURN_SECONDS = 30
_PASSES_MAX = 5


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


Find = Callable[[OrderIndex, Path, str], tuple[list[str], dict[str, Holding]]]


def assign(data: Path, order_id: str, team: str, *, teams: Collection[str] | None = None) -> Assigned:
    """Move an order, and its legs, to a team's ledger; returns when that is durable in both and in the derived files.

    With `teams` the team has to have a ledger, or to be one of them. Raises CannotAssign where it is not, no ledger
    knows the order or it is the leg of one; BadTeam, ReconcileBusy and LedgerError. Whatever it raises, doing it again
    completes it.
    """
    if (data / LOG).exists():
        raise CannotAssign(
            f"{data}: this directory is itself one team's ledger (it has {LOG}); orders are assigned between the "
            "ledgers below team/ of a data directory"
        )
    place = locate_ledger(data, team)
    if place.problem is not None:
        raise CannotAssign(f"{place.path}: {place.problem}")
    with closing(OrderIndex(data, teams or ())) as index, turn(data, TURN_SECONDS):
        index.follow(look_for_new=True)
        if teams is not None and not index.knows_team(team):
            raise CannotAssign(
                f"there is no team {team!r}: expected one that has a ledger in {data} or stands in the settings "
                f"(teams); check the spelling, or create it with --create"
            )
        done = _move(index, data, order_id, team, _find_all)
        _compact_all(data, {team, *done.from_teams})
        return done


def move_orders(data: Path, index: OrderIndex, orders: Mapping[str, str]) -> dict[str, str]:
    """Move orders to the teams given, each with the legs that its own events name; returns those that were moved.

    The caller holds the data directory's turn. Raises BadTeam and LedgerError; doing it again completes it.
    """
    changed: set[str] = set()
    moved = {}
    for order_id, team in orders.items():
        try:
            done = _move(index, data, order_id, team, _find_known)
        except CannotAssign:
            continue  # It cannot come back to that ledger, whose own finding says so; the others move.
        if done.from_teams or done.events:
            moved[order_id] = team
            changed |= {team, *done.from_teams}
    _compact_all(data, changed)
    return moved


def _move(index: OrderIndex, data: Path, order_id: str, team: str, find: Find) -> Assigned:
    done = Assigned(order_id, team, [])
    for _ in range(_PASSES_MAX):
        # Another writer may tell the old ledger of a fill until that knows that the order has left.
        index.follow(look_for_new=True)
        if not _pass(find(index, data, order_id), data, done):
            break
    return done


def _compact_all(data: Path, teams: Iterable[str]) -> None:
    for team in sorted(teams):
        with Ledger(locate_ledger(data, team).path) as ledger:
            compact_in_turn(ledger)


def _pass(found: tuple[list[str], dict[str, Holding]], data: Path, done: Assigned) -> bool:
    """Do what is still to be done as of now; whether that was anything."""
    team = done.team_id
    family, everyone = found
    done.orders = family
    target = everyone.setdefault(team, Holding())
    holdings = {name: holding for name, holding in everyone.items() if name != team}
    returning = [one for one in family if one in target.away]
    if stuck := target.stuck.intersection(returning):
        came = f"order {min(stuck)} has come back to {team} {RETURNS_MAX} times, which is as often as an order may"
        raise CannotAssign(f"{came} (format.md, 4.12); nothing was moved. It can go to any other team")
    _refuse_shown(family[0], team, everyone)
    missing = _missing(holdings, target)
    stamp = rfc3339(time.time_ns())
    returning += plan_returns(target, everyone.values())
    back = [_assigned(one, stamp, target, from_team=_find_holder(one, team, everyone)) for one in returning]
    if back or missing:
        with Ledger(locate_ledger(data, team).path) as ledger:
            ledger.append([*back, *(_copy(line, team, name) for name, line in missing)], drop_raw=True)
        done.events += len(missing)
    leaving = [
        (name, one, team)
        for name, holding in sorted(holdings.items())
        for one in family
        if one in holding.orders | holding.shown and one not in holding.away
    ]
    told = _tell(data, [*leaving, *plan_successors(everyone, team)], everyone, stamp)
    done.from_teams += [name for name in told if name != team and name not in done.from_teams]
    return bool(told or back or missing)


def _tell(data: Path, leaving: Iterable[tuple[str, str, str]], holdings: dict[str, Holding], stamp: str) -> list[str]:
    """Tell ledgers which orders are another team's from here on; returns the ledgers."""
    events: dict[str, dict[str, dict[str, str]]] = {}
    for name, order_id, to_team in leaving:
        told = _assigned(order_id, stamp, holdings[name], to_team=to_team)
        events.setdefault(name, {}).setdefault(order_id, told)
    for name, told_there in events.items():
        with Ledger(locate_ledger(data, name).path) as ledger:
            ledger.append(list(told_there.values()))
    return list(events)


def _refuse_shown(order_id: str, team: str, holdings: dict[str, Holding]) -> None:
    """An order without events of its own has none that could be copied, so that it goes with its predecessor only."""
    is_shown = any(order_id in one.shown for one in holdings.values())
    has_events = any(order_id in one.orders for one in holdings.values())
    if is_shown and not has_events and order_id not in holdings[team].shown:
        raise CannotAssign(
            f"order {order_id} is known only because another order was replaced by it; assign that one, and it goes "
            "with it"
        )


def _find_all(index: OrderIndex, data: Path, order_id: str) -> tuple[list[str], dict[str, Holding]]:
    """The order and its legs, and what each ledger has of them, whichever line of any log names it."""
    if index.unreadable:
        path, reason = next(iter(index.unreadable.items()))
        raise CannotAssign(f"{path}: {reason} Without this ledger nobody can say who has the order; nothing was moved")
    legs: set[str] = set()
    known = False
    for log in index.logs:
        for event, _line in log.read_naming(order_id):
            known = known or event.order_id == order_id or order_id in list_successors(event)
            _refuse_leg(event, order_id)
            if event.order_id == order_id:
                legs |= list_legs(event)
            elif event.parent_order_id == order_id:
                legs.add(event.order_id)
    if not known:
        raise CannotAssign(
            f"no ledger in {data} knows an order {order_id!r}; compactor show pending lists the open ones, and "
            "compactor reconcile takes in what the broker has"
        )
    return _hold(index, index.logs, order_id, legs, FollowedLog.read_naming)


def _find_known(index: OrderIndex, data: Path, order_id: str) -> tuple[list[str], dict[str, Holding]]:
    """The order and the legs of its own events, and what the ledgers have of them that are known to have it."""
    claims = index.find_claims(order_id)
    logs = [log for log in index.logs if log.team in claims]
    events = {log.team: list(log.read_order(order_id)) for log in logs}
    legs = {leg for found in events.values() for event, _line in found for leg in list_legs(event)}

    def read(log: FollowedLog, one: str) -> Events:
        return events[log.team] if one == order_id else log.read_order(one)

    return _hold(index, logs, order_id, legs, read)


def _hold(
    index: OrderIndex, logs: list[FollowedLog], order_id: str, legs: set[str], read: Read
) -> tuple[list[str], dict[str, Holding]]:
    family = [order_id, *sorted(legs - {order_id})]
    holdings = read_holdings(logs, family, read)
    successors = set[str]().union(*(one.successors for one in holdings.values())).difference(family)
    if successors:
        teams = holdings.keys() | {team for one in successors for team in index.find_claims(one)}
        add_successors(holdings, [log for log in index.logs if log.team in teams], successors)
    return family, {team: one for team, one in holdings.items() if not one.is_empty}


def _refuse_leg(event: Event, order_id: str) -> None:
    """The events of a leg are partly its parent's, so that it cannot go without it."""
    is_leg_of = event.parent_order_id if event.order_id == order_id else None
    if is_leg_of is None and event.order_id != order_id and order_id in list_legs(event):
        is_leg_of = event.order_id
    if is_leg_of is not None:
        raise CannotAssign(f"order {order_id} is a leg of order {is_leg_of}; assign that one, and its legs go with it")


def _find_holder(order_id: str, team: str, holdings: dict[str, Holding]) -> str:
    return trace_assignments(team, {name: holding.away.get(order_id) for name, holding in holdings.items()})


def _missing(holdings: dict[str, Holding], target: Holding) -> list[tuple[str, bytes]]:
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


def _assigned(order_id: str, stamp: str, holding: Holding, **direction: str) -> dict[str, str]:
    # The number makes the event the same one for everybody who has read the same log.
    event_id = f"assigned:{holding.moves.get(order_id, 0)}"
    return {"event": "assigned", "order_id": order_id, "ts": stamp, "event_id": event_id, "source": "app", **direction}


def _copy(line: bytes, team: str, came_from: str) -> bytes:
    """An event for another team's log: every other value stays as it is, digit by digit."""
    fields: dict[str, Any] = {**read_fields(line), "team_id": team, "assigned_from": came_from}
    return msgspec.json.encode(fields).decode(errors="replace").encode()
