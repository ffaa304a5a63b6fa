"""Append lines to the ledgers that they name: all of them, or none.

Every line is read and checked before the first byte is written; the write itself is `Ledger.append`, once for each
ledger.

Note: a line without a team, or with a team that cannot be a directory, refuses the whole call. Half of a program's
events in the log is worse than none, because nobody sees which half.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from compactor.books.failures import Failure, describe_failure
from compactor.core.decoding import decode
from compactor.core.events import Problem
from compactor.ledger import BadTeam, Ledger, RejectedEvents
from compactor.ledger.log_writer import check_events
from compactor.ledger.paths import LOG, check_team, locate_ledger


class BadLine(msgspec.Struct, frozen=True):
    """A line that was refused: its number in the input, counted from 1, and why."""

    line: int
    kind: str
    detail: str


class TeamAppended(msgspec.Struct, frozen=True):
    """What one ledger got: `events` events, `length` bytes from `offset` of its log on, on disk."""

    team_id: str
    path: str
    events: int
    offset: int
    length: int


class AppendResult(msgspec.Struct, frozen=True):
    """What became of the lines.

    Either `bad_lines` is empty, or nothing was written anywhere. `failure` is what the world refused (a full disk)
    while the ledger `failed_team` was written; `untouched` are the teams that were not reached.
    """

    appended: list[TeamAppended] = []
    bad_lines: list[BadLine] = []
    failed_team: str | None = None
    failure: Failure | None = None
    untouched: list[str] = []


class _Route(msgspec.Struct):
    """The lines of one ledger and where each stood in the input."""

    team_id: str | None
    path: Path
    lines: list[bytes] = []
    numbers: list[int] = []


def append_lines(data: Path, lines: Iterable[bytes], team: str | None = None) -> AppendResult:
    """Append `lines`, one event each, to the ledgers of `data`; return what was written and what was refused.

    A line goes to the team that it names, or to `team`; both, and different, is an error of that line. Where `data`
    is itself a ledger, lines go there unless `team` says otherwise. Blank lines are skipped. Returns after the bytes
    are on disk. Raises BadTeam for a `team` that is none.
    """
    if team is not None:
        check_team(team, data)
    routes, bad_lines = _plan_routes(data, lines, team)
    if not bad_lines and len(routes) > 1:
        bad_lines = [bad for route in routes for bad in _check(route)]
    if bad_lines:
        return AppendResult(bad_lines=sorted(bad_lines, key=lambda bad: bad.line))
    appended: list[TeamAppended] = []
    for index, route in enumerate(routes):
        try:
            appended.append(_append(route))
        except RejectedEvents as error:
            return AppendResult(appended, _bad_lines(route, error))
        except Exception as error:
            failure = describe_failure(error, route.path)
            return AppendResult(appended, [], _name(route), failure, _names(routes[index + 1 :]))
    return AppendResult(appended)


def _plan_routes(data: Path, lines: Iterable[bytes], team: str | None) -> tuple[list[_Route], list[BadLine]]:
    """Decide where each line goes, touching nothing; the lines that cannot go anywhere come back beside it."""
    own = _own_ledger(data, team)
    routes: dict[str, _Route | Problem] = {}
    bad_lines: list[BadLine] = []
    for number, line in _numbered(lines):
        found = decode(line)
        name = found if isinstance(found, Problem) else _choose_team(found.team_id, team, own)
        if isinstance(name, str) and name not in routes:
            routes[name] = _Route(None, data) if own else _route_to(data, name)
        route = routes[name] if isinstance(name, str) else name
        if isinstance(route, Problem):
            bad_lines.append(BadLine(number, route.kind, route.detail))
        else:
            route.lines.append(line)
            route.numbers.append(number)
    return [route for route in routes.values() if isinstance(route, _Route)], bad_lines


def _route_to(data: Path, team: str) -> _Route | Problem:
    try:
        entry = locate_ledger(data, team)
    except BadTeam as error:
        return Problem("bad_value", error.message)
    return _Route(team, entry.path) if entry.problem is None else Problem("bad_value", entry.problem)


def _numbered(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(lines, 1):
        stripped = line.strip(b" \t\r\n")
        if stripped:
            yield number, stripped


def _own_ledger(data: Path, team: str | None) -> str | None:
    """The team id of `data` where lines go to `data` itself (rule 1.2), else None."""
    if not (data / LOG).exists():
        return None
    own = Ledger(data).team_id
    return own if team in (None, own) else None


def _choose_team(found: str | None, asked: str | None, own: str | None) -> str | Problem:
    if own is not None:
        return own  # That ledger checks the line's own `team_id`.
    if found and asked and found != asked:
        return Problem("wrong_team", f"the line has `team_id` {found!r}, --team says {asked!r}")
    team = asked or found
    if not team:
        return Problem("missing_field", "the line has no `team_id`; add it, or say --team for all lines")
    return team


def _append(route: _Route) -> TeamAppended:
    with Ledger(route.path, team_id=route.team_id) as ledger:
        done = ledger.append(route.lines)
        return TeamAppended(ledger.team_id, str(route.path), done.events, done.offset, done.length)


def _check(route: _Route) -> list[BadLine]:
    """What `Ledger.append` would refuse: no ledger is written before the lines of all of them are checked."""
    try:
        check_events(route.path / LOG, route.lines, route.team_id)
    except RejectedEvents as error:
        return _bad_lines(route, error)
    return []


def _bad_lines(route: _Route, error: RejectedEvents) -> list[BadLine]:
    return [BadLine(route.numbers[number - 1], found.kind, found.detail) for number, found in error.problems]


def _name(route: _Route) -> str:
    return route.team_id or str(route.path)


def _names(routes: Iterable[_Route]) -> list[str]:
    return [_name(route) for route in routes]
