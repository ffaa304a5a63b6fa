"""Write the broker's stream into the ledgers: each message becomes durable lines of the right log before anything else.

The broker's adapter translates messages into events; the order index and `books.ownership` name the team of an order.
Invariant: no message is dropped. One that is no update is appended as it came, so that the fold makes a finding of it.
Lines that a full disk refuses are kept and tried again, while other ledgers go on.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from compactor.books.order_index import OrderIndex
from compactor.books.ownership import UNASSIGNED, decide_team, list_relations, list_ties, parse_team
from compactor.broker.port import Fields, Message, Translator
from compactor.core.decoding import build_event, decode
from compactor.core.events import Problem
from compactor.ledger import BadTeam, RejectedEvents
from compactor.ledger.log_writer import OpenLogs, check_events
from compactor.ledger.paths import LOG, locate_ledger
from compactor.sync.carried import CarriedSums

BACKLOG_BYTES_MAX = 64 << 20
"""How much is kept in memory for ledgers that cannot be written; beyond that the reconcile has to tell it again."""


class Written(msgspec.Struct):
    """What became of some messages: how many events were appended, how many lines as they came, and for which teams
    nothing could be written, with the reasons. `waiting` lines are kept to be tried again; `lost` ones are not, because
    there are too many, nor `refused` ones, because the team's directory is none that may be written.
    """

    events: int = 0
    unread: int = 0
    failed: dict[str, str] = {}
    waiting: int = 0
    lost: int = 0
    refused: int = 0
    contested: dict[str, str] = {}
    """The orders that more than one ledger names, with what was decided."""
    kin_left: bool = False
    """Whether an order in `unassigned` belongs to one of these, so that the next reconcile moves it."""


class StreamWriter:
    """Writes messages of one account into the ledgers of a data directory. Safe for several threads.

    `account_team` gets the orders that no ledger has and no name claims.
    """

    def __init__(
        self,
        data: Path,
        translate: Translator,
        *,
        index: OrderIndex | None = None,
        patterns: Sequence[re.Pattern[str]] = (),
        account_team: str | None = None,
    ) -> None:
        self._data = data
        self._translate = translate
        self._index = index or OrderIndex(data)
        self._carried = CarriedSums(self._index)
        self._patterns = patterns
        self._account_team = account_team
        self._logs = OpenLogs()
        self._backlog: dict[Path, list[bytes]] = {}
        self._paths: dict[str, Path] = {}
        self._is_own = (data / LOG).exists()
        self._is_fresh = False
        self._contested: dict[str, str] = {}
        self._is_kin_left = False
        self._lock = threading.Lock()

    def store(
        self,
        messages: Iterable[Message],
        translate: Translator | None = None,
        *,
        adopt: bool = True,
        resent: bool = False,
    ) -> Written:
        """Append what messages tell; returns when it is durable, one write and one sync for each ledger.

        Messages about the connection tell nothing. `translate` replaces that of the stream. Without `adopt`, what is
        told of orders whose team nobody knows yet is left to the reconcile, because these messages do not say what an
        order came from. Of `resent` messages those are left out that a ledger has recorded lately.
        """
        with self._lock:
            self._is_fresh = False
            self._contested, self._is_kin_left = {}, False
            self._index.follow()
            found: dict[str, list[Fields | bytes]] = {}
            for message in messages:
                for team, line in self._told_by(message, translate or self._translate, adopt):
                    # What a ledger has already is not written again, but made durable with the rest.
                    lines = found.setdefault(team, [])
                    if not (resent and isinstance(line, dict) and self._is_recorded(team, line)):
                        lines.append(line)
            done = self._append(found)
            done.contested, done.kin_left = self._contested, self._is_kin_left
            return done

    def retry(self) -> Written:
        """Try again to append what could not be appended."""
        with self._lock:
            return self._append({})

    @property
    def is_behind(self) -> bool:
        """Whether there are lines that could not be appended yet."""
        return bool(self._backlog)

    def close(self) -> None:
        """Close the logs."""
        with self._lock:
            self._logs.close()

    # What a message tells, and whom.

    def _told_by(self, message: Message, translate: Translator, adopt: bool) -> list[tuple[str, Fields | bytes]]:
        content = message.encode(errors="surrogateescape") if isinstance(message, str) else message
        try:
            return list(self._make_lines(content, translate, adopt))
        except OSError:
            raise
        except Exception:
            # A bug in reading one message must not cost the others, nor this one.
            return [(self._account_team or UNASSIGNED, _as_it_came(content))]

    def _make_lines(self, content: bytes, translate: Translator, adopt: bool) -> Iterator[tuple[str, Fields | bytes]]:
        told = translate(content)
        if told.problems:
            self._note_unread(told.order)
        for event in told.events:
            if adopt or self._is_owned(event):
                team = self._find_team(event)
                yield team, self._carried.leave_out(event, team)
        if told.problems:
            yield self._find_team_unread(told.order, told.events), _as_it_came(content)

    def _find_team(self, event: Fields) -> str:
        order_id = str(event["order_id"])
        team = self._find_owner(event) or self._decide(event, self._account_team)
        ties = list(list_ties(event.get))
        self._index.note(order_id, team, ties)
        if ties and not self._is_kin_left:
            self._is_kin_left = self._index.is_family_split(order_id, team, ties)
        # Whatever belongs to the order is its team's, too, though its own messages may not say so.
        if event.get("replaced_by"):
            self._index.note(str(event["replaced_by"]), team)
        for leg in event.get("legs") or ():
            if leg.get("order_id"):
                self._index.note(str(leg["order_id"]), team)
        return team

    def _is_recorded(self, team: str, event: Fields) -> bool:
        found = build_event(event)
        return not isinstance(found, Problem) and self._index.has_delivery(team, found)

    def _is_owned(self, event: Fields) -> bool:
        """Whether a ledger has the order, or its name says whose it is."""
        return self._find_owner(event) is not None or self._decide(event, None) != UNASSIGNED

    def _find_owner(self, event: Fields) -> str | None:
        """The team whose ledger has the order of an event; claims of other ledgers are reported."""
        order_id = str(event["order_id"])
        owner = self._index.find_owner(
            order_id,
            created_at=event.get("created_at"),
            client_order_id=event.get("client_order_id"),
            fallback=[self._account_team] if self._account_team is not None else [],
        )
        if owner is None:
            return None
        if owner.problem is not None:
            self._contested[order_id] = owner.problem
        return owner.team

    def _decide(self, event: Fields, account_team: str | None) -> str:
        """The team of an order that the index does not have, once it has seen all logs as they are now."""
        order_id = str(event["order_id"])
        if not self._is_fresh:
            self._index.follow(look_for_new=True)
            self._is_fresh = True
            if (team := self._find_owner(event)) is not None:
                return team
        known: dict[str, str] = {}
        for member in list_relations(event):
            owner = self._index.find_owner(member)
            if owner is not None:
                known[member] = owner.team
        return decide_team(
            order_id, {order_id: event}, known, is_team=self._is_team,
            related=self._index.find_family_team(order_id, list_ties(event.get)),
            patterns=self._patterns, account_team=account_team,
        )  # fmt: skip

    def _is_team(self, team: str) -> bool:
        return self._index.knows_team(team) or team == self._account_team

    def _note_unread(self, order: Mapping[str, Any]) -> None:
        """Remember whose the order of a message is of which only its legs can be read: they are that team's as well."""
        claim = parse_team(order.get("client_order_id"), self._patterns, self._is_team)
        if claim is not None and order.get("order_id"):
            self._index.note(str(order["order_id"]), claim)

    def _find_team_unread(self, order: Mapping[str, Any], events: Sequence[Fields]) -> str:
        if events:
            return self._find_team(events[0])
        owner = self._index.find_owner(str(order.get("order_id")))
        claim = parse_team(order.get("client_order_id"), self._patterns, self._is_team)
        return (owner.team if owner is not None else claim) or self._account_team or UNASSIGNED

    # Into the logs.

    def _append(self, found: dict[str, list[Fields | bytes]]) -> Written:
        done = Written()
        batch: dict[Path, list[bytes]] = dict(self._backlog)
        for team, lines in found.items():
            try:
                path = self._find_path(team)
            except BadTeam as error:
                done.failed[team], done.refused = str(error), done.refused + len(lines)
                continue
            events = [line for line in lines if isinstance(line, dict)]
            encoded = _encode(path, None if self._is_own else team, lines)
            batch[path] = [*batch.get(path, ()), *encoded]
            done.events += len(events)
            done.unread += len(lines) - len(events)
        failed = self._logs.append({path: b"".join(lines) for path, lines in batch.items()})
        self._backlog = {path: batch[path] for path in failed}
        for path, reason in failed.items():
            done.failed[path.name] = str(reason)
        self._keep_within_bounds(done)
        done.waiting = sum(map(len, self._backlog.values()))
        return done

    def _find_path(self, team: str) -> Path:
        if self._is_own:
            return self._data  # A directory that is itself a ledger gets all of it (rule 1.2).
        path = self._paths.get(team)
        if path is None:
            place = locate_ledger(self._data, team)
            if place.problem is not None:
                raise BadTeam(place.path, place.problem)
            path = self._paths[team] = place.path
            self._index.expect_new()
        return path

    def _keep_within_bounds(self, done: Written) -> None:
        for path in list(self._backlog):
            if sum(map(len, self._backlog[path])) > BACKLOG_BYTES_MAX // len(self._backlog):
                done.lost += len(self._backlog.pop(path))


def _encode(path: Path, team: str | None, lines: list[Fields | bytes]) -> list[bytes]:
    """The lines to write, stamped; an event with a bad value is written all the same, for the fold to name."""
    named = [line | {"team_id": team} if isinstance(line, dict) and team is not None else line for line in lines]
    try:
        if all(isinstance(line, dict) for line in named):
            return check_events(path / LOG, named, team, drop_raw=True)
    except RejectedEvents:
        pass
    encoded: list[bytes] = []
    for line in named:
        if isinstance(line, bytes):
            encoded.append(line + b"\n")
            continue
        try:
            encoded += check_events(path / LOG, [line], team, drop_raw=True)
        except RejectedEvents:
            encoded.append(msgspec.json.encode(line) + b"\n")
    return encoded


def _as_it_came(text: bytes) -> bytes:
    """A message as one line of a log that is surely no event."""
    line = b" ".join(text.splitlines())
    return line if isinstance(decode(line), Problem) else b'{"stream":"unknown","data":' + line + b"}"
