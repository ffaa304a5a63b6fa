"""One ledger: a directory with a log, and what is derived from it. This is the face that programs use."""

import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from compactor.ledger.compaction import Compaction, Compactor, Progress
from compactor.ledger.errors import DerivedConflict, LockHeld, NoLedger, from_os
from compactor.ledger.files import Files
from compactor.ledger.places import FINDINGS, LOG, PENDING, STATE, TEAM_PATTERN, TRADES, check_team
from compactor.ledger.reading import LedgerStatus, read_status, team_in_checkpoint, whole_lines
from compactor.ledger.writing import Appended, Durability, append_lines, check_events

LOCK = "lock"

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Ledger:
    """The ledger in a directory. Opening it costs nothing and makes nothing; `append` makes the directory when it is
    new.

    `team_id` is the name of the directory for one below `team/`, else what its events say. `retention_days` None
    keeps the places of ended orders in memory for ever; no output depends on it. Not safe for several threads at
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
        self._named = team_id if team_id is not None else _name_of(self.path)
        if self._named is not None:
            check_team(self._named, self.path)
        self._durability: Durability = durability
        self._files = files or Files()
        retention = None if retention_days is None else timedelta(days=retention_days)
        self._compactor = Compactor(self.path, self._named, retention, self._files)

    @property
    def team_id(self) -> str:
        """The team; for a ledger outside `team/` as its files say it, else `default`."""
        return self._named or self.status().team_id

    def append(
        self, events: Iterable[Mapping[str, Any] | bytes | str], *, durability: Durability | None = None
    ) -> Appended:
        """Append events to the log, all of them or none; returns when they are durable (`durability="none"` does not
        wait).

        Each is a mapping or a JSON line; `recorded_at` is stamped here. Safe beside other writers of the same log.
        Raises RejectedEvents with the number of each bad one, before anything is written.
        """
        lines = check_events(self.path / LOG, events, self._named or team_in_checkpoint(self.path, self._files))
        if not lines:
            return Appended(self._log_size(), 0, 0)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise from_os(self.path, error, "making the ledger's directory") from error
        return append_lines(self.path / LOG, lines, durability or self._durability)

    def compact(self, *, progress: Progress | None = None, checkpoint: bool = False) -> Compaction:
        """Bring the derived files up to date with the log; returns when they are durable.

        Costs what is new in the log. `progress` is called with bytes done and bytes in all. Raises LedgerError; the
        derived files are then as they were.
        """
        descriptor = self._lock()
        try:
            return self._compactor.run(progress, checkpoint)
        finally:
            self._files.unlock(descriptor)

    def _lock(self) -> int:
        lock = self.path / STATE / LOCK
        if self._files.identity(self.path / LOG) is None:
            raise NoLedger(self.path, f"there is no {LOG}; expected a log of events, append some first")
        try:
            self._files.make_directory(lock.parent)
            descriptor = self._files.lock(lock)
        except OSError as error:
            raise from_os(lock, error, "taking the ledger's lock") from error
        if descriptor is None:
            holder = (self._files.read(lock) or b"").decode(errors="replace").strip() or "unknown"
            raise LockHeld(
                lock, f"process {holder} is compacting this ledger; wait for it, or stop it, and compact again"
            )
        return descriptor

    def pending_orders(self) -> list[dict[str, Any]]:
        """The open orders as of the last compaction, oldest first."""
        return list(self._lines(PENDING))

    def trades(self) -> Iterator[dict[str, Any]]:
        """The trades as of the last compaction, in the order in which the log told of them; read as they are asked
        for."""
        return self._lines(TRADES)

    def findings(self) -> Iterator[dict[str, Any]]:
        """What was unreadable or suspicious, in log order."""
        return self._lines(FINDINGS)

    def _lines(self, name: str) -> Iterator[dict[str, Any]]:
        offset = 0
        for line in whole_lines(self.path / name):
            try:
                yield _decode(line)
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


def _name_of(path: Path) -> str | None:
    """A ledger below `team/` is named by its directory (1.1); any other is named by its events (1.2)."""
    absolute = path.absolute()
    return absolute.name if absolute.parent.name == "team" and TEAM_PATTERN.fullmatch(absolute.name) else None
