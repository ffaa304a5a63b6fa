"""Import captured Alpaca messages: translate them, find the team of each order, and append their events.

What a message means is left to `broker.alpaca.translate`, and appending to `writer`.

Note: a recording is read twice, because the message that tells whose an order is may come after those that do not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from datetime import tzinfo
from itertools import chain
from pathlib import Path

from compactor.books.order_index import FAMILY_MAX, OrderIndex
from compactor.books.ownership import UNASSIGNED, Owner, list_ties, parse_team
from compactor.books.unassigned import move_in_turn
from compactor.core.events import Problem
from compactor.imports.cumulative import CumulativeQuantities
from compactor.imports.leg_finder import LegFinder
from compactor.imports.messages import FillOrder, NotAFill, Translated, read_capture
from compactor.imports.recordings import BadRecording
from compactor.imports.replacements import Replacements
from compactor.imports.told_executions import ToldExecutions
from compactor.imports.writer import (
    Fields,
    ImportProblem,
    ImportResult,
    ImportWriter,
    Meter,
    TeamImport,
    hash_identity,
    known_events,
    read_known,
)
from compactor.ledger import discover
from compactor.ledger.compaction import Progress
from compactor.ledger.paths import LOG, check_team

__all__ = ["BadRecording", "ImportProblem", "ImportResult", "TeamImport", "import_alpaca"]


def import_alpaca(
    file: Path,
    data: Path,
    *,
    team: str | None,
    teams: Collection[str] = (),
    zone: tzinfo | None = None,
    progress: Progress | None = None,
) -> ImportResult:
    """Import captured Alpaca messages into the ledgers of `data`, and compact those.

    An event goes to `team`; without it to the team of its order: the one that it was assigned to, else the ledger that
    knows the order or one that it belongs to (its parent, its group, what it replaces or is replaced by), else the team
    that its client order id or theirs names (`team:anything`), if that is one of `teams` or has a ledger, else
    `unassigned`. Where `data` is itself a ledger, all goes there unless `team` says otherwise.
    Times without an offset are read as of `zone`, and refused without it. Lines that are not messages come back as
    problems. Raises BadTeam for an invalid `team`, BadRecording for a file of another format, and OSError where `file`
    cannot be read.
    """
    with closing(OrderIndex(data, {check_team(one, data) for one in teams})) as index:
        return _import_capture(file, data, index, team, zone, progress)


def _import_capture(
    file: Path, data: Path, index: OrderIndex, team: str | None, zone: tzinfo | None, progress: Progress | None
) -> ImportResult:
    writer = ImportWriter(data)
    fixed = check_team(team, data) if team is not None else writer.own_team
    ledgers = _find_ledgers(writer, fixed)
    log_bytes = sum((path / LOG).stat().st_size for path in ledgers.values())
    meter = Meter(progress, 2 * file.stat().st_size + log_bytes)
    index.follow(look_for_new=True)
    routes, order = _Routes(fixed, index, takes_all=team is None), FillOrder()
    wanted, legs, sums = set(), LegFinder(), CumulativeQuantities()
    replacements, executions = Replacements(), ToldExecutions()
    for found in read_capture(file, zone, meter.add):
        if isinstance(found.event, dict):
            wanted.add(hash_identity(found.event))
            routes.note(found.event)
            order.note(found)
            legs.note(found)
            sums.note(found)
            replacements.note(found)
            executions.note(found)
    for owner, path in ledgers.items() if sums.lacking else ():
        for known, _ in known_events(path, owner, sums.lacking):
            sums.recall(known)
    if sums.has_gaps:
        order = FillOrder()
        for found in map(sums.complete, read_capture(file, zone)):
            order.note(found)
    if legs.has_suspects:
        _recall_legs(ledgers, legs)
    if legs.has_moves:
        for found in map(legs.move, read_capture(file, zone)):
            if isinstance(found.event, dict):
                wanted.add(hash_identity(found.event))
                routes.note(found.event)
    put_right: list[Fields] = []
    parents = legs.list_stand_ins()
    for owner, path in ledgers.items():
        for known, line in known_events(path, owner, {*routes.orders, *replacements.predecessors, *parents}, meter):
            if known.order_id in parents:
                events = legs.put_right(parents[known.order_id], known, line)
                wanted.update(map(hash_identity, events))
                put_right += events
            writer.recognize(known, wanted)
            replacements.recall(known, line)
            executions.recall(known)
    if replacements.are_filled or executions.are_named:
        for found in map(sums.complete, read_capture(file, zone)):
            replacements.weigh(found)
            executions.learn(found)
    home = fixed or UNASSIGNED
    recording = map(legs.move, order.sort(map(sums.complete, read_capture(file, zone, meter.add))))
    found_before = (Translated(1, event) for event in put_right)
    for number, event, *_ in chain(found_before, map(executions.name, map(replacements.leave_out, recording))):
        if isinstance(event, NotAFill):
            writer.skip(home, event.activity_type, str(file), number)
        elif isinstance(event, Problem):
            writer.add(home, event, str(file), number)
        else:
            team, problem = routes.find_team(event), routes.find_problem(event)
            if problem is not None:
                writer.add(team, problem, str(file), number)
            if fixed is None or problem is None:
                writer.add(team, event, str(file), number)
    result = writer.finish()
    if writer.own_team is None:
        result.moved = move_in_turn(data, index)
    return result


def _recall_legs(ledgers: Mapping[str, Path], legs: LegFinder) -> None:
    """Learn from the logs the legs that the recording does not tell."""
    for owner, path in ledgers.items():
        for placed, _line in read_known(path, owner, lambda _: True):
            if legs.wants(placed.event):
                legs.recall(placed.event)


def _find_ledgers(writer: ImportWriter, fixed: str | None) -> dict[str, Path]:
    """The ledgers that may have an event already: that of the one team, else all."""
    if fixed is not None:
        path = writer.find_directory(fixed)
        return {fixed: path} if (path / LOG).exists() else {}
    ledgers = [place for place in discover(writer.data) if place.problem is None]
    return {ledger.team_id: ledger.path for ledger in ledgers if ledger.team_id is not None}


class _Routes:
    """The team of each order, learned from the whole recording before any of it is appended.

    With a `fixed` team all is for that one, except orders that another team's ledger has; without exception where the
    data directory is itself a ledger, which `takes_all`.
    """

    def __init__(self, fixed: str | None, index: OrderIndex, *, takes_all: bool) -> None:
        self._fixed = fixed
        self._takes_all = takes_all and fixed is not None
        self._index = index
        self._names: dict[str, str] = {}
        self._ties: dict[str, dict[str, None]] = {}
        self._teams: dict[str, str] = {}
        self.orders: set[str] = set()
        """The orders of the recording."""
        self._owners: dict[str, Owner | None] = {}
        self._reported: set[str] = set()

    def note(self, event: Fields) -> None:
        """Learn the name and the relations of an order from an event."""
        order_id = str(event["order_id"])
        if event.get("client_order_id"):
            self._names.setdefault(order_id, str(event["client_order_id"]))
        for other in list_ties(event.get):
            self._ties.setdefault(order_id, {})[other] = None
            self._ties.setdefault(other, {})[order_id] = None
        self.orders.add(order_id)

    def find_team(self, event: Fields) -> str:
        """The team whose ledger has the order, or one that it belongs to; else the team in their client order ids."""
        if self._fixed is not None:
            return self._fixed
        order_id = str(event["order_id"])
        if order_id not in self._teams:
            self._teams[order_id] = self._decide(order_id)
        return self._teams[order_id]

    def _decide(self, order_id: str) -> str:
        owner = self._find_owner(order_id)
        if owner is not None:
            return owner.team
        family = list(self._walk_family(order_id))
        names = (parse_team(self._names.get(one), (), self._index.knows_team) for one in family)
        return self._index.find_family_team(order_id, family) or next(filter(None, names), None) or UNASSIGNED

    def find_problem(self, event: Fields) -> Problem | None:
        """What keeps an order out of the team it is imported for, or once per order that several ledgers name it."""
        if self._takes_all:
            return None
        order_id = str(event["order_id"])
        owner = self._find_owner(order_id)
        team = owner.team if owner is not None else self._index.find_named_team(self._names.get(order_id))
        if self._fixed is not None and team not in (None, self._fixed):
            found = f"order {order_id} is {team}'s, so it was not imported for {self._fixed}"
            return Problem("contested", f"{found}; import it for {team}, and compactor assign moves it")
        if owner is None or owner.problem is None or order_id in self._reported:
            return None
        self._reported.add(order_id)
        return Problem("contested", owner.problem)

    def _find_owner(self, order_id: str) -> Owner | None:
        if order_id not in self._owners:
            self._owners[order_id] = self._index.find_owner(order_id, client_order_id=self._names.get(order_id))
        return self._owners[order_id]

    def _walk_family(self, order_id: str) -> Iterator[str]:
        """Walk the order, and the orders and groups that it belongs to by the recording, nearest first."""
        waiting, seen = [order_id], {order_id}
        while waiting:
            one = waiting.pop(0)
            yield one
            for other in self._ties.get(one, ()):
                if other not in seen and len(seen) < FAMILY_MAX:
                    seen.add(other)
                    waiting.append(other)
