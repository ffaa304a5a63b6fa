"""Close the gap since everything was known last: request a resend, if the account has that.

`sync.reconcile` runs after this and does not rely on it. A resend asks twice: for the time since everything was known,
and for the ids since the last resend, because entries that the broker adds later have their old time.

Note: ids are not in order within a millisecond, and clocks differ. So both begin some minutes earlier, and the fold
drops what is sent twice (format.md, 4.2).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from compactor.broker.activities import EntryReader
from compactor.broker.credentials import BadCredentials
from compactor.broker.resend import ADDRESSES, Kind, NoResend, Resend, ResendResult, step_back_ulid
from compactor.core.instants import BadInstant, nanos, rfc3339
from compactor.ledger.files import Files, replace
from compactor.ledger.paths import PRIVATE
from compactor.sync.stream_writer import StreamWriter

FILE = "resend.json"
OVERLAP_SECONDS = 300
FIRST_SECONDS = 3600
"""How far the first resend of an account looks back; the reconcile looks back further."""
SINCE_SECONDS_MAX = 7 * 86_400
PROBE_SECONDS = 7 * 86_400
"""How long it is remembered that an account has no resend."""
TRIES = 2
BATCH = 2000


class _Remembered(msgspec.Struct):
    """What is known of one account: its kind of resend, up to when all is known, and the newest id that was sent."""

    kind: Kind | None = None
    probed_at: str | None = None
    through: str | None = None
    cursor: str = ""


class GapClosed(msgspec.Struct):
    """The result of a resend. `kind` is None if the account has none; `complete` says whether nothing is missing."""

    kind: Kind | None = None
    messages: int = 0
    complete: bool = False
    reason: str = ""
    lost: int = 0


class Gaps:
    """The gaps of one account. `find_order` asks the broker for an order with its legs; `clock` is Unix seconds."""

    def __init__(
        self,
        data: Path,
        account: str,
        resend: Resend,
        writer: StreamWriter,
        *,
        find_order: Callable[[str], Any | None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = data / PRIVATE / FILE
        self._account = account
        self._resend = resend
        self._writer = writer
        self._entries = EntryReader(find_order)
        self._clock = clock
        self._files = Files()

    def close(self) -> GapClosed:
        """Request what the broker sent since everything was known last; returns when it is durable.

        Raises BadCredentials if every endpoint refuses the keys.
        """
        found = self._memory().get(self._account, _Remembered())
        now = int(self._clock() * 1_000_000_000)
        done, refusal = GapClosed(), None
        for kind in self._kinds(found, now):
            try:
                done = self._close(kind, found, now)
            except NoResend as error:
                done.reason = str(error)
                continue
            except BadCredentials as error:
                # One endpoint may be closed to this account; that says nothing about the other one.
                refusal = error
                continue
            break
        if done.kind is None and refusal is not None:
            raise refusal
        found.kind, found.probed_at = done.kind, rfc3339(now)
        if done.complete:
            found.through = rfc3339(now)
        self._remember(found)
        return done

    def note_known(self, at: float) -> None:
        """Remember that all is known up to an instant, in Unix seconds, because a reconcile found that it agrees."""
        found = self._memory().get(self._account, _Remembered())
        found.through = rfc3339(int(at * 1_000_000_000))
        self._remember(found)

    def _kinds(self, found: _Remembered, now: int) -> list[Kind]:
        if found.kind is not None:
            return [found.kind, *(kind for kind in ADDRESSES if kind != found.kind)]
        is_recent = _parse_instant(found.probed_at) > now - PROBE_SECONDS * 1_000_000_000
        return [] if is_recent else list(ADDRESSES)

    def _close(self, kind: Kind, found: _Remembered, now: int) -> GapClosed:
        done, is_delivered, newest = self._read(kind, _choose_since(found, now), rfc3339(now))
        if kind != found.kind or not found.cursor:
            found.cursor = newest if is_delivered else ""
            return done
        since_id = step_back_ulid(found.cursor, OVERLAP_SECONDS)
        try:
            late, is_late_delivered, newest_late = self._read(kind, "", rfc3339(now), since_id=since_id)
        except NoResend:
            # An endpoint without cursors; the window of time has been read.
            found.cursor = ""
            return done
        done.messages, done.lost = done.messages + late.messages, done.lost + late.lost
        done.complete, done.reason = done.complete and late.complete, done.reason or late.reason
        if is_delivered and is_late_delivered:
            found.cursor = max(found.cursor, newest, newest_late)
        return done

    def _read(self, kind: Kind, since: str, until: str, *, since_id: str | None = None) -> tuple[GapClosed, bool, str]:
        """Read one window; also returns whether all of it was sent, and the newest id."""
        done = GapClosed(kind)
        for _ in range(TRIES):
            result, problem = ResendResult(), ""
            for batch in _batches(self._resend.read(kind, since, until, result, since_id=since_id)):
                problem = self._entries.prepare(batch) or problem
                # An activity does not tell which order its order replaces.
                written = self._writer.store(batch, self._entries.read, adopt=kind != "activities")
                done.messages += len(batch)
                done.lost += written.lost
                problem = problem or (f"{written.unread} entries could not be read" if written.unread else "")
            done.reason = result.reason or problem
            done.complete = result.complete and not done.lost and not problem
            if result.is_delivered:
                break
        return done, result.is_delivered and not done.lost, result.newest_id

    def _memory(self) -> dict[str, _Remembered]:
        """A file that is gone or damaged costs one longer resend."""
        try:
            return msgspec.json.decode(self._files.read(self._path) or b"{}", type=dict[str, _Remembered])
        except msgspec.DecodeError:
            return {}

    def _remember(self, found: _Remembered) -> None:
        self._files.make_directory(self._path.parent)
        replace(self._files, self._path, [msgspec.json.encode(self._memory() | {self._account: found})])


def _choose_since(found: _Remembered, now: int) -> str:
    through = _parse_instant(found.through)
    known = min(through, now) if through else now - FIRST_SECONDS * 1_000_000_000
    return rfc3339(max(known - OVERLAP_SECONDS * 1_000_000_000, now - SINCE_SECONDS_MAX * 1_000_000_000))


def _parse_instant(text: str | None) -> int:
    try:
        return nanos(text) if text else 0
    except BadInstant:
        return 0


def _batches(events: Iterator[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for event in events:
        batch.append(event)
        if len(batch) >= BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
