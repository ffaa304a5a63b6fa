"""Closes the gap since the broker was last heard: has it tell again what it told, where the account has that.

What cannot be told again is found by `reconciling`, which runs after this and trusts it in nothing. The rule that
surprises: ids of events are not in order within a millisecond, and clocks differ, so a replay begins some minutes
before the instant up to which everything is known; what is told twice is dropped by the fold (format.md, 4.2).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from compactor.broker.resend import ADDRESSES, Kind, NoResend, Resend, ResendResult, translate_resent
from compactor.core.instants import BadInstant, nanos, rfc3339
from compactor.ledger.files import Files
from compactor.ledger.paths import PRIVATE
from compactor.sync.stream_writer import StreamWriter, Written

MEMORY = "replay.json"
OVERLAP_SECONDS = 300
FIRST_SECONDS = 3600
"""How far the first replay of an account looks back; the reconcile looks back further."""
SINCE_SECONDS_MAX = 7 * 86_400
PROBE_SECONDS = 7 * 86_400
"""How long it is remembered that an account has no replay."""
TRIES = 2
BATCH = 2000


class _Remembered(msgspec.Struct):
    """What is known of one account: which kind of replay it has, if any, and up to when all is known."""

    kind: Kind | None = None
    probed_at: str | None = None
    through: str | None = None


class GapClosed(msgspec.Struct):
    """What a replay brought. `kind` is None where the account has none; `complete` says whether it was all."""

    kind: Kind | None = None
    messages: int = 0
    complete: bool = False
    reason: str = ""
    lost: int = 0


class Gaps:
    """The gaps of one account. `clock` is Unix seconds."""

    def __init__(
        self,
        data: Path,
        account: str,
        resend: Resend,
        writer: StreamWriter,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = data / PRIVATE / MEMORY
        self._account = account
        self._resend = resend
        self._writer = writer
        self._clock = clock
        self._files = Files()

    def close(self) -> GapClosed:
        """Have told again what the broker told since everything was known last; returns when it is durable."""
        found = self._memory().get(self._account, _Remembered())
        now = int(self._clock() * 1_000_000_000)
        done = GapClosed()
        for kind in self._kinds(found, now):
            try:
                done = self._read(kind, _since(found, now), rfc3339(now))
            except NoResend as error:
                done.reason = str(error)
                continue
            break
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
        is_recent = _nanos(found.probed_at) > now - PROBE_SECONDS * 1_000_000_000
        return [] if is_recent else list(ADDRESSES)

    def _read(self, kind: Kind, since: str, until: str) -> GapClosed:
        done = GapClosed(kind)
        for _ in range(TRIES):
            result = ResendResult()
            for batch in _batches(self._resend.read(kind, since, until, result)):
                # An activity does not tell whose leg, or whose successor, its order is.
                written: Written = self._writer.store(batch, translate_resent, adopt=kind != "activities")
                done.messages += len(batch)
                done.lost += written.lost
            done.complete, done.reason = result.complete and not done.lost, result.reason
            if done.complete:
                break
        return done

    def _memory(self) -> dict[str, _Remembered]:
        """A file that is gone or damaged costs one longer replay."""
        try:
            return msgspec.json.decode(self._files.read(self._path) or b"{}", type=dict[str, _Remembered])
        except msgspec.DecodeError:
            return {}

    def _remember(self, found: _Remembered) -> None:
        new = self._path.with_suffix(f".{self._account}.new")
        self._files.make_directory(self._path.parent)
        self._files.write_new(new, [msgspec.json.encode(self._memory() | {self._account: found})])
        self._files.rename(new, self._path)
        self._files.sync_directory(self._path.parent)


def _since(found: _Remembered, now: int) -> str:
    through = _nanos(found.through)
    known = min(through, now) if through else now - FIRST_SECONDS * 1_000_000_000
    return rfc3339(max(known - OVERLAP_SECONDS * 1_000_000_000, now - SINCE_SECONDS_MAX * 1_000_000_000))


def _nanos(text: str | None) -> int:
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
