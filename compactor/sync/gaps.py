"""Close the gap since everything was known last: request a resend, if the account has that.

`sync.reconcile` runs after this and does not rely on it. A resend is for the time since everything was known, and since
the point where the last resend ended, because a broker may add entries later with their old time.

Note: clocks differ, so it begins some minutes earlier, and the fold drops what is sent twice (format.md, 4.2).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from compactor.broker.port import BrokerPort, ResendPoint, ResendResult, ResentBatch
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


class _Remembered(msgspec.Struct):
    """What is known of one account: its kind of resend, up to when all is known, and the newest id that was sent."""

    kind: str | None = None
    probed_at: str | None = None
    through: str | None = None
    cursor: str = ""


class GapClosed(msgspec.Struct):
    """The result of a resend. `kind` is None if the account has none; `complete` says whether nothing is missing."""

    kind: str | None = None
    messages: int = 0
    complete: bool = False
    reason: str = ""
    lost: int = 0


class Gaps:
    """The gaps of one account; `clock` is Unix seconds."""

    def __init__(
        self,
        data: Path,
        account: str,
        broker: BrokerPort,
        writer: StreamWriter,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = data / PRIVATE / FILE
        self._account = account
        self._broker = broker
        self._writer = writer
        self._clock = clock
        self._files = Files()

    def close(self) -> GapClosed:
        """Request what the broker sent since everything was known last; returns when it is durable.

        Raises BadCredentials if every source of it refuses the keys.
        """
        if not self._broker.capabilities.resends:
            return GapClosed()
        found = self._memory().get(self._account, _Remembered())
        now = int(self._clock() * 1_000_000_000)
        is_probed = _parse_instant(found.probed_at) > now - PROBE_SECONDS * 1_000_000_000
        if found.kind is None and is_probed:
            return GapClosed()
        done = self._resend(found, now)
        found.kind, found.probed_at = done.kind, rfc3339(now)
        if done.complete:
            found.through = rfc3339(now)
        self._remember(found)
        return done

    def _resend(self, found: _Remembered, now: int) -> GapClosed:
        """Write what the broker sends again; moves the cursor if all of that is durable."""
        done, result, unread = GapClosed(), ResendResult(), 0
        point, through = ResendPoint(found.kind, found.cursor), found.through
        for batch in self._broker.resend(_choose_since(found, now), rfc3339(now), point, result):
            # Without its origin, nobody can say whose an order is.
            written = self._writer.store(batch.messages, batch.translate, adopt=batch.tells_origin, resent=True)
            done.messages += len(batch.messages)
            done.lost += written.lost
            unread += written.unread
            if not done.lost and not unread:
                self._note_reached(found, batch, now)
        done.kind = result.point.kind
        done.reason = result.reason or (f"{unread} entries could not be read" if unread else "")
        done.complete = result.complete and not done.lost and not unread
        found.cursor = point.cursor if done.lost else result.point.cursor
        if not done.complete:
            found.through = through
        return done

    def _note_reached(self, found: _Remembered, batch: ResentBatch, now: int) -> None:
        """Remember how far a resend has come, so that one that is stopped on its way goes on from there."""
        through = min(_parse_instant(batch.through), now)
        if through > _parse_instant(found.through):
            found.through = rfc3339(through)
        found.cursor = max(found.cursor, batch.cursor)
        self._remember(found)

    def note_known(self, at: float) -> None:
        """Remember that all is known up to an instant, in Unix seconds, because a reconcile found that it agrees."""
        found = self._memory().get(self._account, _Remembered())
        found.through = rfc3339(int(at * 1_000_000_000))
        self._remember(found)

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
