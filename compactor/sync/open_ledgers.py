"""Keeps the ledgers of a data directory open: brings them up to date, and appends to them.

What to append is left to `plan`, and whose an order is to the order index.

Note: a ledger that cannot be read is reported and stops no other; but as long as there is one, nobody can say that an
order is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from compactor.books.failures import Failure, describe_bad_entry, describe_failure
from compactor.books.turns import compact_in_turn
from compactor.broker.port import Fields
from compactor.core.events import Problem
from compactor.ledger import Ledger, LedgerEntry, discover
from compactor.ledger.log_writer import find_problem
from compactor.ledger.paths import LOG, locate_ledger


class TeamReconciled(msgspec.Struct):
    """What one ledger got, or would get: `events` in the order of the log. `error`: why it got none of them."""

    team_id: str
    path: str
    events: list[Fields] = []
    error: Failure | None = None


class OpenLedgers:
    """The ledgers below a data directory, or the one that it is itself (rule 1.2). Not safe for several threads."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self._ledgers: dict[Path, Ledger] = {}

    def read(self) -> tuple[dict[str, Ledger], list[TeamReconciled]]:
        """Every ledger, by team, its derived files up to date; and those that cannot be brought there, with why."""
        ledgers: dict[str, Ledger] = {}
        unreadable = []
        for place in discover(self.data):
            try:
                failure = describe_bad_entry(place) if place.problem is not None else None
                if failure is None:
                    ledger = self._ledger(place)
                    compact_in_turn(ledger)
                    ledgers[ledger.team_id] = ledger
            except Exception as error:
                failure = describe_failure(error, place.path)
            if failure is not None:
                unreadable.append(TeamReconciled(place.name, str(place.path), error=failure))
        return ledgers, unreadable

    def prepare(self, events: Mapping[str, list[Fields]]) -> tuple[list[TeamReconciled], list[tuple[str, Problem]]]:
        """Make lines of events by team, each for the ledger that gets it; and by order those that cannot be a line."""
        own = Ledger(self.data).team_id if (self.data / LOG).exists() else None
        found: dict[str, TeamReconciled] = {}
        problems = []
        for team, of_team in sorted(events.items()):
            target = own or team  # A directory that is itself a ledger gets all of it.
            path = self.data if own else locate_ledger(self.data, team).path
            one = found.setdefault(target, TeamReconciled(target, str(path), []))
            lines = [event if own else {**event, "team_id": team} for event in of_team]
            bad = {str(line["order_id"]): reason for line in lines if (reason := find_problem(line)) is not None}
            problems += list(bad.items())
            # An order gets all of its events or none, because they lean on each other.
            one.events = one.events + [line for line in lines if str(line["order_id"]) not in bad]
        return [one for one in found.values() if one.events], problems

    def append(self, team: TeamReconciled) -> None:
        """Append a ledger's events and bring its derived files up to date; what fails is the team's `error`."""
        try:
            path = Path(team.path)
            place = LedgerEntry(None, path) if path == self.data else locate_ledger(self.data, team.team_id)
            if place.problem is not None:
                team.error = describe_bad_entry(place)
                return
            ledger = self._ledger(place)
            ledger.append(team.events, drop_raw=True)
            compact_in_turn(ledger)
        except Exception as error:
            team.error = describe_failure(error, team.path)

    def may_have_intents(self, path: Path) -> bool:
        """Whether a ledger may have an intent without an outcome: what is in memory says so at no cost."""
        return path not in self._ledgers or self._ledgers[path].may_have_intents()

    @property
    def paths(self) -> list[Path]:
        """Where the ledgers are that were read or written."""
        return list(self._ledgers)

    def close(self) -> None:
        """Forget what is in memory."""
        for ledger in self._ledgers.values():
            ledger.close()
        self._ledgers.clear()

    def _ledger(self, place: LedgerEntry) -> Ledger:
        if place.path not in self._ledgers:
            self._ledgers[place.path] = Ledger(place.path, team_id=place.team_id)
        return self._ledgers[place.path]
