"""Brings other recordings into the ledgers: captured Alpaca messages, and files of the old layout.

What a message or an old line means is for `broker.alpaca` and `legacy`, which files are old for `old_files`, and how
events get into a ledger for `import_desk`. Here each event finds its team. The rule that surprises: a recording is read
twice, because the message that tells whose an order is may come after those that do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from compactor.books.ownership import UNASSIGNED, claim_of, holder_of, relations_of
from compactor.broker.alpaca import parse, translate
from compactor.core.events import Problem
from compactor.imports.legacy import ORDERS, TRADES, translate_legacy
from compactor.imports.old_files import OldFiles, find_old_files, looks_derived, put_away
from compactor.imports.writer import (
    Desk,
    Fields,
    ImportProblem,
    ImportResult,
    KnownEvent,
    Meter,
    Progress,
    TeamImport,
    key_of,
    known_events,
)
from compactor.ledger import discover
from compactor.ledger.paths import LOG, TEAM_PATTERN, check_team

__all__ = ["UNASSIGNED", "ImportProblem", "ImportResult", "TeamImport", "import_alpaca", "import_legacy"]


def import_alpaca(file: Path, data: Path, *, team: str | None, progress: Progress | None = None) -> ImportResult:
    """Import captured Alpaca messages, one JSON value a line, into the ledgers of `data`, and compact those.

    An event goes to `team`; without it to the team of its order: the one that it was assigned to, else the ledger that
    knows the order, its parent or the order it replaces, else the team that its client order id or theirs begins with
    (`team:anything`), else `unassigned`. Where `data` is itself a ledger, all goes there unless `team` says otherwise.
    Lines that are no messages come back as problems. Raises BadTeam for a `team` that is none, and OSError
    where `file` cannot be read.
    """
    desk = Desk(data)
    fixed = check_team(team, data) if team is not None else desk.own_team
    logs = _logs(desk, fixed)
    meter = Meter(progress, 2 * file.stat().st_size + sum(log.stat().st_size for log in logs.values()))
    routes = _Routes(fixed)
    wanted = set()
    for _, event in _messages(file, meter):
        if not isinstance(event, Problem):
            wanted.add(key_of(event))
            routes.note(event)
    for owner, log in logs.items():
        for known in known_events(log, meter):
            desk.recognize(known, wanted)
            routes.note_known(known, owner)
    for number, event in _messages(file, meter):
        target = (fixed or UNASSIGNED) if isinstance(event, Problem) else routes.team_of(event)
        desk.take(target, event, str(file), number)
    return desk.finish()


def import_legacy(path: Path, data: Path, *, progress: Progress | None = None) -> ImportResult:
    """Import the old layout into the ledgers below `data`, and compact those.

    `path` is an old `pending_orders.jsonl` (with the `trades.jsonl` beside it, if there is one), one team's directory,
    or a directory that holds `team/`; that may be `data` itself. Old files that lie where a ledger keeps its own are
    put away into `team/<id>/legacy/` once their events are durable in the log, and are read from there ever after.
    """
    desk = Desk(data)
    sources = find_old_files(path, data)
    meter = Meter(progress, sum(source.bytes_total for source in sources))
    for source in sources:
        try:
            _take_old_files(source, desk, meter)
        except Exception as error:
            desk.fail(source.team or UNASSIGNED, error)
    return desk.finish()


def _logs(desk: Desk, fixed: str | None) -> dict[str, Path]:
    """The logs that may have an event already: that of the one team, else of all."""
    if fixed is not None:
        log = desk.directory(fixed) / LOG
        return {fixed: log} if log.exists() else {}
    places = [place for place in discover(desk.data) if place.problem is None]
    return {place.team_id: place.path / LOG for place in places if place.team_id is not None}


def _messages(file: Path, meter: Meter) -> Iterator[tuple[int, Fields | Problem]]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            meter.add(len(line))
            if not line.strip():
                continue
            events, problems = translate(parse(line.rstrip(b"\r\n")))
            for event in events:
                yield number, event
            for problem in problems:
                yield number, problem


def _take_old_files(source: OldFiles, desk: Desk, meter: Meter) -> None:
    """Translate the old files of one directory, append what is new, and only then put them away."""
    names = {ORDERS: source.orders, TRADES: source.trades}
    orders, trades = (source.lines(path, meter.add) for path in names.values())
    old = translate_legacy(orders, trades, team=source.team)
    home = source.team or UNASSIGNED
    events = [found.event for found in old.events]
    teams = {team for event in events if (team := _team_or_none(event))}
    knows_order, has_event = _recognize_all(desk, teams, events)
    if source.may_be_derived and knows_order and not has_event and source.orders and looks_derived(source.orders):
        detail = "the log tells of these orders and of no old file, so these are the ledger's own pending orders"
        desk.take(
            home, Problem("not_old", f"{detail}; an old file is to be imported from elsewhere"), str(source.orders), 1
        )
        return
    for file, number, event in old.events:
        team = _team_or_none(event)
        found = event if team else Problem("bad_value", f"{event['team_id']!r} is no team id (rule 1.1)")
        desk.take(team or home, found, str(names[file]), number)
    for file, number, problem in old.problems:
        desk.take(home, problem, str(names[file]), number)
    if desk.flush(teams) and events:
        put_away(source)


def _recognize_all(desk: Desk, teams: set[str], events: list[Fields]) -> tuple[bool, bool]:
    """Note which events the teams' logs have; whether they know any of the orders, and have any of the events."""
    wanted = {key_of(event) for event in events}
    order_ids = {event["order_id"] for event in events}
    knows_order = has_event = False
    for team in sorted(teams):
        for known in known_events(desk.directory(team) / LOG):
            has_event |= desk.recognize(known, wanted, team)
            knows_order |= known.order_id in order_ids
    return knows_order, has_event


def _team_or_none(event: Fields) -> str | None:
    team = event["team_id"]
    return team if TEAM_PATTERN.fullmatch(team) else None


class _Routes:
    """Which team an order belongs to, learned from all of a recording before any of it is appended."""

    def __init__(self, fixed: str | None) -> None:
        self._fixed = fixed
        self._claimed: dict[str, str] = {}
        self._known: dict[str, str] = {}
        self._away: dict[str, dict[str, str]] = {}
        self._related: dict[str, str] = {}
        self._orders: set[str] = set()

    def note(self, event: Fields) -> None:
        """Learn from an event whose order it is, and which orders go together."""
        order_id = str(event["order_id"])
        claim = claim_of(event.get("client_order_id"))
        if claim:
            self._claimed.setdefault(order_id, claim)
        relations = [(order_id, other) for other in relations_of(event)]
        relations += [(str(leg.get("order_id")), order_id) for leg in event.get("legs", ())]
        if event.get("replaced_by"):
            relations.append((str(event["replaced_by"]), order_id))
        for child, parent in relations:
            self._related.setdefault(child, parent)
            self._orders |= {child, parent}
        self._orders.add(order_id)

    def note_known(self, known: KnownEvent, team: str) -> None:
        """Learn that a ledger has an order, or has had it (rule 4.12)."""
        order_id = known.order_id
        if order_id not in self._orders:
            return
        if known.event == "assigned" and known.to_team:
            self._away.setdefault(team, {})[order_id] = known.to_team
        elif known.event == "assigned":
            self._away.get(team, {}).pop(order_id, None)
        self._known.setdefault(order_id, team)

    def _holder(self, order_id: str) -> str | None:
        """The team that has an order by what its ledgers say, where it was ever assigned."""
        for team, orders in self._away.items():
            if order_id in orders:
                return holder_of(order_id, team, self._away)
        return None

    def team_of(self, event: Fields) -> str:
        """The ledger that has the order, or one it came from; else the team that its name, or theirs, carries."""
        if self._fixed is not None:
            return self._fixed
        family = list(self._family(str(event["order_id"])))
        known = (self._holder(order_id) or self._known.get(order_id) for order_id in family)
        return next(filter(None, (*known, *map(self._claimed.get, family))), UNASSIGNED)

    def _family(self, order_id: str) -> Iterator[str]:
        """The order and those it came from, nearest first; a circle, which no broker should make, ends it."""
        seen = set[str]()
        while order_id not in seen:
            seen.add(order_id)
            yield order_id
            order_id = self._related.get(order_id, order_id)
