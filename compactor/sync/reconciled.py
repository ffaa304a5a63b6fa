"""What a reconcile found, what it appended, and what it left."""

from __future__ import annotations

import msgspec

from compactor.broker.intents import ResolvedIntent
from compactor.sync.answers import Errors
from compactor.sync.compare import BrokerDifference
from compactor.sync.open_ledgers import TeamReconciled
from compactor.sync.positions import ComparedPosition


class Reconciled(msgspec.Struct):
    """What a run found. `waiting` orders differ, but something happened to them just now: the next run sees to them.

    `errors` are accounts that could not be asked, with why. `unreadable` are ledgers that could not be read; meanwhile
    an order that is unknown is adopted only where its name says whose it is.
    """

    dry_run: bool
    requests: int = 0
    orders: int = 0
    elapsed_ms: int = 0
    teams: list[TeamReconciled] = []
    waiting: list[str] = []
    untold: list[str] = []
    """The orders of which a working stream would have told what was appended."""
    inferred: list[str] = []
    """The orders with inferred trades for which something was appended, so that they have to be compared once more."""
    problems: list[BrokerDifference] = []
    unreadable: list[TeamReconciled] = []
    errors: Errors = {}
    intents: list[ResolvedIntent] = []
    """Intents without an outcome, and what became of them (rule 3.13)."""
    moved: dict[str, str] = {}
    """Orders that were unassigned, and the teams that they were moved to, or would be."""
    positions: list[ComparedPosition] = []
    """Every position that was compared with the trades; those that differ are among `problems` too."""

    @property
    def events(self) -> int:
        """How many events were appended, or would be."""
        return sum(len(team.events) for team in self.teams if team.error is None)

    @property
    def failed(self) -> list[TeamReconciled]:
        """The ledgers that could not be read or written."""
        return self.unreadable + [team for team in self.teams if team.error is not None]


def join_turns(first: Reconciled, second: Reconciled) -> Reconciled:
    """Two turns as one result: what both appended, and what the second one leaves."""
    teams = {team.team_id: team for team in ([] if first.dry_run else first.teams)}
    for team in second.teams:
        old = teams.get(team.team_id)
        teams[team.team_id] = team if old is None else msgspec.structs.replace(team, events=old.events + team.events)
    return msgspec.structs.replace(
        second,
        intents=first.intents + second.intents,
        untold=first.untold + second.untold,
        requests=first.requests + second.requests,
        elapsed_ms=first.elapsed_ms + second.elapsed_ms,
        moved=first.moved | second.moved,
        teams=[teams[name] for name in sorted(teams)],
    )
