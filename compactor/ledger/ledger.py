"""One ledger: a directory with a log and the files derived from it. `Ledger` is the class that programs use."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import msgspec

from compactor.core.derived import Finding
from compactor.ledger.compaction import Compaction, Compactor, Progress
from compactor.ledger.errors import DerivedConflict, LockHeld, NoLedger, from_os
from compactor.ledger.files import Files
from compactor.ledger.log_writer import Appended, Durability, append_lines, check_events, make_ledger
from compactor.ledger.paths import FINDINGS, LOG, PENDING, STATE, TRADES, check_team, team_in_path
from compactor.ledger.records import PendingOrder, Trade, line_decoder
from compactor.ledger.unlocked import LedgerStatus, read_bytes, read_status, team_in_checkpoint, whole_lines

if TYPE_CHECKING:
    from compactor.ledger.seal import Sealed, Sealer

LOCK = "lock"
HOLDER_BYTES_MAX = 64

Line = TypeVar("Line")
_FILES = {"pending_orders": PENDING, "trades": TRADES, "findings": FINDINGS}
_decode_mapping = msgspec.json.Decoder(dict[str, Any]).decode
_decode_pending_order = line_decoder(PendingOrder)
_decode_trade = line_decoder(Trade)
_decode_finding = line_decoder(Finding)


class Ledger:
    """The ledger in a directory. Opening it costs nothing and creates nothing; `append` makes the directory when it is
    new.

    `team_id` is the name of the directory for one below `team/`, else what its events say. `retention_days` None
    keeps the offsets of ended orders in memory for ever; no output depends on it. Not safe for several threads at
    once; several processes are kept apart by the ledger's lock.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        team_id: str | None = None,
        retention_days: int | None = 7,
        durability: Durability = "sync",
        files: Files | None = None,
    ) -> None:
        self.path = Path(path)
        self._named = team_id if team_id is not None else team_in_path(self.path)
        if self._named is not None:
            check_team(self._named, self.path)
        self._durability: Durability = durability
        self._files = files or Files()
        retention = None if retention_days is None else timedelta(days=retention_days)
        self._compactor = Compactor(self.path, self._named, retention, self._files)
        self._sealer: Sealer | None = None

    @property
    def team_id(self) -> str:
        """The team; for a ledger outside `team/` as its files say it, else `default`."""
        return self._named or self.status().team_id

    def append(
        self,
        events: Iterable[Mapping[str, Any] | bytes | str],
        *,
        durability: Durability | None = None,
        drop_raw: bool = False,
    ) -> Appended:
        """Append events to the log, all of them or none; returns when they are durable (`durability="none"` does not
        wait, except for the names of a log that is new).

        Each is a mapping or a JSON line; `recorded_at` is stamped here. Safe beside other writers of the same log. With
        `drop_raw` an event whose line would be too long goes without `raw`.
        Raises RejectedEvents with the number of each bad one, before anything is written.
        """
        team_id = self._named or team_in_checkpoint(self.path, self._files)
        lines = check_events(self.path / LOG, events, team_id, drop_raw=drop_raw)
        if not lines:
            return Appended(self._log_size(), 0, 0)
        try:
            make_ledger(self.path)
        except OSError as error:
            raise from_os(self.path, error, "making the ledger's directory") from error
        return append_lines(self.path / LOG, lines, durability or self._durability)

    def compact(
        self,
        *,
        progress: Progress | None = None,
        checkpoint: bool = False,
        limit_bytes: int | None = None,
        limit_seconds: float | None = None,
    ) -> Compaction:
        """Bring the derived files up to date with the log; returns when they are durable.

        Costs what is new in the log. `progress` is called with bytes done and bytes in all. With `checkpoint` the next
        process need not fold anything again. Raises LedgerError; the derived files are then as they were. TooMuch is
        one, if the pass would read more than `limit_bytes` of the log, or folds for longer than `limit_seconds`.
        """
        with self._locked():
            return self._compactor.run(
                progress, checkpoint=checkpoint, limit_bytes=limit_bytes, limit_seconds=limit_seconds
            )

    @property
    def clock(self) -> datetime | None:
        """The log's own clock, of the last event in time; None where nothing is in memory."""
        return self._compactor.clock

    @property
    def sealed_bytes(self) -> int:
        """How many bytes of the log are sealed, as of the last pass."""
        return self._compactor.segments.sealed_end

    @property
    def segments(self) -> int:
        """How many segments there are, as of the last pass."""
        return len(self._compactor.segments.seals)

    def may_know(self, order_id: str) -> bool:
        """Whether the log may have an event of an order. False is certain; costs nothing right after `compact`."""
        return self._compactor.may_know(order_id)

    def may_have_intents(self) -> bool:
        """Whether the log may have an intent without an outcome (rule 3.13); as `may_know`."""
        return self._compactor.may_have_intents()

    @property
    def is_ahead_of_checkpoint(self) -> bool:
        """Whether `compact(checkpoint=True)` would spare the next process any work."""
        return self._compactor.is_ahead_of_checkpoint

    def seal(
        self,
        *,
        segment_bytes: int = 64 << 20,
        segment_age: timedelta = timedelta(hours=24),
        reclaim: Literal["punch", "never"] = "punch",
        now: bool = False,
        at: datetime | None = None,
    ) -> "Sealed":
        """Move what is finished of the log into compressed segments and give its space back; returns when durable.

        Due is what has grown to `segment_bytes`, or all that is folded once its oldest event is `segment_age` old as of
        `at` (default: this moment), or with `now` at once. Compacts first when something is due. With `reclaim="never"`
        the log is kept whole. Raises LedgerError; what can be read is then the same as before.
        """
        # Most programs never seal, and zstd takes a moment to import.
        from compactor.ledger.seal import Sealer

        with self._locked():
            self._sealer = self._sealer or Sealer(self._compactor, self._files)
            done = self._sealer.run(
                segment_bytes=segment_bytes, segment_age=segment_age, reclaim=reclaim, now=now, at=at
            )  # fmt: skip
        # This takes as long as sealing, and nobody has to wait for it.
        self._sealer.complete_indexes()
        return done

    def is_seal_due(self, *, segment_bytes: int, segment_age: timedelta, at: datetime | None = None) -> bool:
        """Whether `seal` would seal something, as of the last pass. Needs no lock. Raises LedgerError."""
        from compactor.ledger.seal import Sealer

        self._sealer = self._sealer or Sealer(self._compactor, self._files)
        return self._sealer.is_due(segment_bytes=segment_bytes, segment_age=segment_age, at=at)

    def cat(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes of the log from an offset up to another, segments and file as one sequence, in pieces.

        Without `end` up to the last whole line; beyond the end of the log there are none. Needs no lock. Raises
        LedgerError.
        """
        return read_bytes(self.path, start, end, self._files)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the ledger's lock, and its directory open. Raises NoLedger, LockHeld and LedgerError."""
        missing = f"there is no {LOG}; expected a log of events, append some first"
        try:
            with self._files.within(self.path):
                if self._files.identity(self.path / LOG) is None:
                    raise NoLedger(self.path, missing)
                descriptor = self._acquire()
                try:
                    yield
                finally:
                    self._files.release(descriptor)
        except FileNotFoundError:
            raise NoLedger(self.path, missing) from None
        except OSError as error:
            raise from_os(self.path, error, "opening the ledger") from error

    def _acquire(self) -> int:
        lock = self.path / STATE / LOCK
        try:
            self._files.make_directory(lock.parent)
            descriptor = self._files.acquire(lock)
        except OSError as error:
            raise from_os(lock, error, "acquiring the ledger's lock") from error
        if descriptor is None:
            holder = (self._files.read(lock, HOLDER_BYTES_MAX) or b"").decode(errors="replace").strip() or "unknown"
            raise LockHeld(
                lock, f"process {holder} is compacting this ledger; wait for it, or stop it, and compact again"
            )
        return descriptor

    def pending_orders(self) -> list[PendingOrder]:
        """The open orders as of the last compaction, oldest first. Raises DerivedConflict."""
        return list(self._read(PENDING, _decode_pending_order))

    def trades(self) -> Iterator[Trade]:
        """The trades as of the last compaction, in the order in which the log told of them; read while they are
        iterated. Raises DerivedConflict."""
        return self._read(TRADES, _decode_trade)

    def findings(self) -> Iterator[Finding]:
        """What was unreadable or suspicious, in log order; read while it is iterated. Raises DerivedConflict."""
        return self._read(FINDINGS, _decode_finding)

    def rows(self, kind: Literal["pending_orders", "trades", "findings"]) -> Iterator[dict[str, Any]]:
        """The same lines as plain mappings: only what is known, decimals and times as texts. Raises DerivedConflict."""
        return self._read(_FILES[kind], _decode_mapping)

    def _read(self, name: str, decode: Callable[[bytes], Line]) -> Iterator[Line]:
        offset = 0
        for line in whole_lines(self.path / name):
            try:
                yield decode(line)
            except msgspec.DecodeError as error:
                what = f"at offset {offset} expected a derived line, found {line[:60]!r} ({error})"
                hint = "somebody else wrote to this file. Move it away and compact again: it is rebuilt from the log"
                raise DerivedConflict(self.path / name, f"{what}; {hint}") from None
            offset += len(line)

    def status(self) -> LedgerStatus:
        """How the ledger is, from its files alone; needs no lock."""
        return read_status(self.path, self._named, self._files)

    def _log_size(self) -> int:
        identity = self._files.identity(self.path / LOG)
        return identity.size if identity is not None else 0

    def close(self) -> None:
        """Forget what is in memory. Nothing on disk depends on it."""
        self._compactor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
