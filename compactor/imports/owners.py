"""Find out where the orders of old files lie: in other ledgers, in `unassigned`, or where they were assigned to.

An order of old files belongs to the team that its directory or line names. What lies in `unassigned` moves there; what
was assigned away goes on where it is now (rule 4.12); what another team has is contested, and nothing of it is booked.

Note: an old program may number its orders by itself, so that two teams have the same number. Where both sides tell the
broker's id, that decides whether the two are one order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from compactor.books.assign import TURN_SECONDS, move_orders
from compactor.books.order_index import OrderIndex
from compactor.books.ownership import UNASSIGNED
from compactor.books.turns import ReconcileBusy, turn
from compactor.books.unassigned import move_in_turn
from compactor.core.events import Problem
from compactor.imports.earlier import Earlier
from compactor.imports.old_layout import OldLedger, OldLines
from compactor.imports.old_orders import UNKNOWN_ORDER, Fields, OldLine
from compactor.ledger.paths import LOG


class Whereabouts(msgspec.Struct):
    """Where the orders of one team's old files are, by their ids. Of an order that is nowhere else there is nothing."""

    team: str
    contested: dict[str, str] = {}
    """Why an order cannot be the team's."""
    named_too: dict[str, str] = {}
    """Which other ledgers name an order that is imported all the same."""
    away: dict[str, str] = {}
    """The team that an order was assigned to."""
    unassigned: set[str] = set()

    def list_elsewhere(self) -> dict[str, set[str]]:
        """The orders that other ledgers have and the old files go on with, by the team of the ledger."""
        found = {UNASSIGNED: set(self.unassigned)} if self.unassigned else {}
        for order_id, team in self.away.items():
            found.setdefault(team, set()).add(order_id)
        return found

    def decide(self, ids: Collection[str]) -> tuple[str, str | None]:
        """The team whose ledger goes on with an order that has these ids, and why it is contested, if it is."""
        found = [self.contested[one] for one in sorted(ids) if one in self.contested]
        team = next((self.away[one] for one in sorted(ids) if one in self.away), self.team)
        if found:
            self.unassigned.difference_update(ids)
        return team, found[0] if found else None


class OldOwners:
    """Looks up the orders of old files in all ledgers of a data directory, and moves those that lie in `unassigned`.

    A directory that is itself one team's ledger has no others.
    """

    def __init__(self, data: Path) -> None:
        self._data = data
        self._is_one_ledger = (data / LOG).exists()
        self._index = OrderIndex(data)
        self.moved: dict[str, str] = {}

    def close(self) -> None:
        self._index.close()

    @contextmanager
    def look_up(self, lines: OldLines, ledgers: Mapping[str, Earlier]) -> Iterator[dict[str, Whereabouts]]:
        """Where the orders of old files are, by team, while nobody else moves what lies in `unassigned`.

        `ledgers` is what the teams' own ledgers have of them. Where another process moves orders, those that lie in
        `unassigned` are contested.
        """
        found = self._look_up_all(lines, ledgers)
        with ExitStack() as stack:
            if any(where.unassigned for where in found.values()):
                try:
                    stack.enter_context(turn(self._data, TURN_SECONDS))
                    found = self._look_up_all(lines, ledgers)
                except ReconcileBusy as busy:
                    for where in found.values():
                        _postpone(where, busy)
            yield found

    def move(self, found: Iterable[Whereabouts]) -> None:
        """Move what lies in `unassigned` to the teams of the old files. Raises LedgerError."""
        for where in found:
            if where.unassigned:
                moves = dict.fromkeys(sorted(where.unassigned), where.team)
                self.moved |= move_orders(self._data, self._index, moves)

    def finish(self) -> dict[str, str]:
        """Move what is known to be a team's by now, such as legs; returns all that was moved, with its team."""
        return self.moved if self._is_one_ledger else self.moved | move_in_turn(self._data, self._index)

    def _look_up_all(self, lines: OldLines, ledgers: Mapping[str, Earlier]) -> dict[str, Whereabouts]:
        found = {team: Whereabouts(team) for team in ledgers}
        if self._is_one_ledger:
            return found
        self._index.follow(look_for_new=True)
        told: dict[tuple[str, str], dict[str, Any]] = {}
        for line in (*lines.orders, *lines.trades):
            for order_id in list_ids([line]):
                told.setdefault((line.event["team_id"], order_id), {}).update(line.event)
        for team, earlier in ledgers.items():
            for order_ids in earlier.lines.values():
                for order_id in order_ids:
                    told.setdefault((team, order_id), {})
        for (team, order_id), event in told.items():
            if team in found:
                self._look_up(order_id, found[team], event)
        return found

    def _look_up(self, order_id: str, where: Whereabouts, event: Mapping[str, Any]) -> None:
        team, name, claims = where.team, event.get("client_order_id"), self._index.find_claims(order_id)
        owner = self._index.find_owner(order_id, client_order_id=name) if claims else None
        if team in claims and claims[team].away_to is not None:
            where.away[order_id] = owner.team if owner is not None else team
            if owner is not None and owner.problem is not None:
                where.named_too[order_id] = owner.problem
            return
        if order_id.startswith(UNKNOWN_ORDER):
            return
        others = [one for one, claim in claims.items() if one != team and claim.away_to is None]
        rivals = {one for one in others if self._is_same(order_id, team, one, event)}
        if owner is not None and owner.team == team and owner.problem is not None and rivals - {UNASSIGNED}:
            where.named_too[order_id] = owner.problem
            return
        holder = min(rivals - {UNASSIGNED}, default=None)
        if holder is None:
            holder = self._find_named(order_id, name, is_unassigned=bool(rivals))
        elif owner is not None and owner.team in rivals - {UNASSIGNED}:
            holder = owner.team
        if holder not in (None, team):
            found = f"order {order_id} is {holder}'s, so it was not imported for {team}"
            where.contested[order_id] = f"{found}; compactor assign moves it"
        elif rivals:
            where.unassigned.add(order_id)

    def _is_same(self, order_id: str, team: str, other: str, event: Mapping[str, Any]) -> bool:
        """Whether the order that another ledger has under an id is the one of the old files."""
        ours = {event["broker_order_id"]} if "broker_order_id" in event else self._read_broker_ids(order_id, team)
        if not ours or order_id in ours:
            return True
        theirs = self._read_broker_ids(order_id, other)
        return not theirs or not ours.isdisjoint(theirs)

    def _read_broker_ids(self, order_id: str, team: str) -> set[str]:
        events = self._index.read_order(order_id, team)
        return {event.broker_order_id for event, _line in events if event.broker_order_id is not None}

    def _find_named(self, order_id: str, name: object, *, is_unassigned: bool) -> str | None:
        """The team that an order's name, or an order that it belongs to, says it is."""
        if is_unassigned and name is None:
            log = self._index.find_log(UNASSIGNED)
            name = log.names.get(order_id) if log is not None else None
        if is_unassigned and name is None:
            events = [event for event, _line in self._index.read_order(order_id, UNASSIGNED)]
            name = next((one.client_order_id for one in events if one.client_order_id is not None), None)
        named = self._index.find_named_team(name)
        return self._index.find_family_team(order_id) if named is None and is_unassigned else named


class Routes:
    """Where each event of old files goes."""

    def __init__(self, old: OldLedger, whereabouts: Mapping[str, Whereabouts]) -> None:
        self._whereabouts = whereabouts
        self._decided: dict[tuple[str, str], tuple[str, str | None]] = {}
        self.teams: set[str] = set()
        """The teams whose ledgers got events."""
        for (team, order_id), order in old.orders.items():
            if team in whereabouts:
                ids = {order_id, *list_ids(order.lines), *list_ids(order.trades)}
                self._decided[team, order_id] = whereabouts[team].decide(ids)

    def route(self, event: Fields) -> Iterator[tuple[str | None, Fields | Problem]]:
        """An event with the team whose ledger gets it, or the problem that keeps it out; before the first of an order
        the other ledgers that name it."""
        team, order_id = event["team_id"], event["order_id"]
        if team not in self._whereabouts:
            yield None, Problem("bad_value", f"{team!r} is no team id (rule 1.1)")
            return
        to_team, contested = self._decided.get((team, order_id), (team, None))
        if contested is not None:
            yield team, Problem("contested", contested)
            return
        named_too = self._whereabouts[team].named_too.pop(order_id, None)
        if named_too is not None:
            yield to_team, Problem("contested", named_too)
        self.teams.add(to_team)
        yield to_team, event


def list_ids(lines: Collection[OldLine]) -> set[str]:
    """The ids of an order by its old lines: that of the old program and the broker's."""
    found = {line.event.get(name) for line in lines for name in ("order_id", "broker_order_id")}
    return {str(one) for one in found | {line.own_id for line in lines} if one is not None}


def _postpone(where: Whereabouts, busy: ReconcileBusy) -> None:
    for order_id in where.unassigned:
        found = f"order {order_id} lies in {UNASSIGNED} and cannot be moved to {where.team} now"
        where.contested[order_id] = f"{found} ({busy}); import it again"
    where.unassigned = set()
