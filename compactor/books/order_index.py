"""The order index: which ledger of a data directory has an order, and where it was assigned.

It follows all logs, whoever appends to them, and costs nothing for an order that nobody asks about: see `followed_log`.
Which claim counts where several ledgers have an order is decided by `ownership`; the team of an order that no ledger
has is left to the caller.

Invariant: a ledger has an order exactly when the fold of its log has it and it was not assigned away from there. One
ledger that cannot be read stops no other; `unreadable` names it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from pathlib import Path

from compactor.books.followed_log import FollowedLog
from compactor.books.ownership import CLAIM, UNASSIGNED, Claim, Owner, settle_claims
from compactor.core.events import Event
from compactor.core.instants import BadInstant, nanos
from compactor.ledger import LedgerEntry, LedgerError, discover
from compactor.ledger.files import Files
from compactor.ledger.paths import TEAM_PATTERN

DISCOVER_SECONDS = 1.0
"""How often new ledgers and newer checkpoints are looked for, where nobody needs to know of them at once."""
KNOWN_MAX = 1_000_000
"""How many orders are in memory, some 150 MB of them; beyond that the logs are read for the older ones."""
_CACHED_MAX = 100_000
FAMILY_MAX = 100
"""So many orders that belong together are looked at, at most."""


class OrderIndex:
    """The orders of a data directory and the ledgers that have them. Safe for several threads.

    `teams` are known besides those that have a ledger.
    """

    def __init__(self, data: Path, teams: Collection[str] = ()) -> None:
        self._data = data
        self._teams = frozenset(teams)
        self._files = Files()
        self._logs: dict[Path, FollowedLog] = {}
        self.unreadable: dict[Path, str] = {}
        """The ledgers that could not be read the last time, with the reason."""
        self._places: list[LedgerEntry] = []
        self._discovered_at = 0.0
        self._noted: dict[str, str] = {}
        """Whose orders are that are about to be written, or that a message named."""
        self._ties: dict[str, set[str]] = {}
        """The orders among them that belong together."""
        self._claims: dict[str, dict[str, Claim]] = {}
        """What was found by reading lines, until a line changes it."""
        self._lock = threading.RLock()

    # Following.

    def follow(self, *, look_for_new: bool = False) -> None:
        """Read what has been appended to the logs. New ledgers are found now and then, or now with `look_for_new`."""
        with self._lock:
            is_due = time.monotonic() - self._discovered_at > DISCOVER_SECONDS
            if look_for_new or is_due:
                self._discover()
            for path, log in self._logs.items():
                try:
                    if is_due and log.has_gap:
                        log.renew_archive()
                    self._forget_claims(log.follow())
                    self.unreadable.pop(path, None)
                except (LedgerError, OSError) as error:
                    self.unreadable[path] = str(error)
            self._keep_within_bounds()

    def expect_new(self) -> None:
        """Rescan for new ledgers on the next call."""
        self._discovered_at = 0.0

    def close(self) -> None:
        """Forget what is in memory and close the checkpoints; the next call reads them anew."""
        with self._lock:
            for log in self._logs.values():
                log.close()
            self._claims.clear()
            self._noted.clear()
            self._ties.clear()

    def _discover(self) -> None:
        found = discover(self._data)
        bad = {place.path: place.problem for place in found if place.problem is not None}
        # What cannot be a team's directory hides no order.
        self.unreadable = {path: why for path, why in bad.items() if TEAM_PATTERN.fullmatch(path.name)}
        self._places = [place for place in found if place.problem is None]
        for path in self._logs.keys() - {place.path for place in self._places}:
            self._logs.pop(path).close()
            self._claims.clear()
        for place in self._places:
            if place.path not in self._logs:
                self._logs[place.path] = FollowedLog(place, self._files, keeps_names=place.team_id == UNASSIGNED)
        self._discovered_at = time.monotonic()

    def _forget_claims(self, changed: set[str] | None) -> None:
        if changed is None:
            self._claims.clear()
        elif self._claims:
            for order_id in changed:
                self._claims.pop(order_id, None)

    def _keep_within_bounds(self) -> None:
        if sum(len(log.orders) for log in self._logs.values()) > KNOWN_MAX:
            for log in self._logs.values():
                log.forget(time.time_ns())
        if len(self._noted) > KNOWN_MAX:
            self._noted = dict(islice(self._noted.items(), KNOWN_MAX // 2, None))
        if len(self._ties) > _CACHED_MAX:
            self._ties.clear()

    # Asking.

    def is_family_split(self, order_id: str, team: str, ties: Iterable[str]) -> bool:
        """Whether an order, or one that it belongs to, is unassigned while the other is a team's."""
        if team == UNASSIGNED:
            return self.find_family_team(order_id, ties) is not None
        with self._lock:
            kin = {one for tie in ties for one in ((tie,) if tie[:6] != "group:" else self.list_ties(tie))}
            owners = map(self.find_owner, kin - {order_id})
            return any(owner is not None and owner.team == UNASSIGNED for owner in owners)

    def find_log(self, team: str) -> FollowedLog | None:
        """The log of a team; for one thread at a time."""
        return next((log for log in self._logs.values() if log.team == team), None)

    def has_delivery(self, team: str, event: Event) -> bool:
        """Whether the ledger of a team has recorded this delivery lately."""
        with self._lock:
            return any(log.has_delivery(event) for log in self._logs.values() if team == log.team)

    @property
    def logs(self) -> list[FollowedLog]:
        """The logs that are followed, by team; for one thread at a time."""
        return list(self._logs.values())

    def find_owner(
        self,
        order_id: str,
        *,
        created_at: object = None,
        client_order_id: object = None,
        fallback: Collection[str] = (UNASSIGNED,),
    ) -> Owner | None:
        """The team that has an order, as of the last `follow`; None where no ledger has it.

        `created_at` and `client_order_id` are the broker's; the first spares reading lines that are older than the
        order. `fallback` are teams that get orders which no name claims.
        """
        with self._lock:
            claims = self.find_claims(order_id, created_at)
            if not claims:
                noted = self._noted.get(order_id)
                return Owner(noted) if noted is not None else None
            if len(claims) > 1:
                claims = self._read_claims(order_id)
            named = self.find_named_team(client_order_id or _earliest_name(claims))
            return settle_claims(order_id, claims, named, (UNASSIGNED, *fallback))

    def find_claims(self, order_id: str, created_at: object = None) -> dict[str, Claim]:
        """What each ledger that ever had an order says of it, by team; its time and name only where lines were read."""
        with self._lock:
            found = self._claims.get(order_id)
            if found is not None:
                return found
            found, created_ns, was_read = {}, _get_ns(created_at), False
            for path, log in self._logs.items():
                try:
                    claim, is_slow = log.find_claim(order_id, created_ns)
                except (LedgerError, OSError) as error:
                    self.unreadable[path] = str(error)
                    continue
                was_read |= is_slow
                if claim is not None:
                    found[log.team] = claim
            if was_read:
                self._cache(order_id, found)
            return found

    def knows_team(self, team: str) -> bool:
        """Whether a team has a ledger, or was named as one."""
        return team in self._teams or any(place.team_id == team for place in self._places)

    def find_family_team(self, order_id: str, ties: Iterable[str] = ()) -> str | None:
        """The team of an order that this one belongs to: that it replaces or is replaced by, its parent, its leg, or
        one of its group; None where none of them is a team's.

        `ties` are those that a message tells, a group as `group:ID`; the logs tell of others.
        """
        with self._lock:
            waiting, seen = [*ties, *self.list_ties(order_id)], {order_id}
            while waiting and len(seen) < FAMILY_MAX:
                one = waiting.pop(0)
                if one in seen:
                    continue
                seen.add(one)
                owner = None if one.startswith("group:") else self.find_owner(one)
                if owner is not None and owner.team != UNASSIGNED:
                    return owner.team
                waiting += self.list_ties(one)
            return None

    def list_ties(self, order_id: str) -> Iterator[str]:
        """The orders and groups that an order belongs to, as far as the parts of the logs in memory tell."""
        for ties in (self._ties, *(log.ties for log in self._logs.values())):
            yield from sorted(ties.get(order_id, ()))

    def read_order(self, order_id: str, team: str) -> list[tuple[Event, bytes]]:
        """The events of an order in the ledger of a team, each with its line. Raises LedgerError and OSError."""
        with self._lock:
            # A directory that is itself a ledger has one log, whatever team an order is of.
            log = self.find_log(team) or (self.logs[0] if len(self._logs) == 1 else None)
            return [found for found in log.read_order(order_id) if found[0].order_id == order_id] if log else []

    def find_named_team(self, client_order_id: object) -> str | None:
        """The team that a `client_order_id` names, where that team is known and its ledger can be read."""
        match = CLAIM.fullmatch(client_order_id) if isinstance(client_order_id, str) else None
        if match is None or not self.knows_team(match["team"]):
            return None
        is_readable = all(path.name != match["team"] for path in self.unreadable)
        return match["team"] if is_readable else None

    def note(self, order_id: str, team: str, ties: Iterable[str] = ()) -> None:
        """Remember whose an order is that is about to be written, or that an event names, and what it belongs to; what
        a ledger has counts."""
        with self._lock:
            self._noted.setdefault(order_id, team)
            for other in ties:
                self._ties.setdefault(order_id, set()).add(other)
                self._ties.setdefault(other, set()).add(order_id)

    def _read_claims(self, order_id: str) -> dict[str, Claim]:
        """The claims of all ledgers with their times and names."""
        cached = self._claims.get(order_id)
        if cached is not None and all(claim.since_ns for claim in cached.values()):
            return cached
        found = {}
        for path, log in self._logs.items():
            try:
                claim = log.read_claim(order_id)
            except (LedgerError, OSError) as error:
                self.unreadable[path] = str(error)
                continue
            if claim is not None:
                found[log.team] = claim
        self._cache(order_id, found)
        return found

    def _cache(self, order_id: str, claims: dict[str, Claim]) -> None:
        if self.unreadable:
            return
        if len(self._claims) > _CACHED_MAX:
            self._claims.clear()
        self._claims[order_id] = claims


def _earliest_name(claims: dict[str, Claim]) -> str | None:
    named = [claim for claim in claims.values() if claim.client_order_id is not None]
    return min(named, key=lambda claim: claim.since_ns).client_order_id if named else None


def _get_ns(instant: object) -> int | None:
    try:
        return nanos(instant) if isinstance(instant, str) else None
    except BadInstant:
        return None
