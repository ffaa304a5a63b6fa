"""Heads of a ledger as files: beside their seals, as the lines of a witness, and the last one outside the ledgers.

    .compactor/signed/<team>.head     the note of the head that was signed last
    .compactor/signed/<team>.alarm    why the log does not continue that head, or one of the witness

A team may be able to write its whole ledger; it must not be able to write there. `publish` decides what is signed.

Note: without its record the first head of a ledger is signed as the log stands. So that directory has to be backed up
beside the ledgers (`compactor backup` copies ledgers only), and removing a file in it is a decision to trust the log as
it is now.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from compactor.books.failures import classify
from compactor.core.merkle import Tree
from compactor.core.printable import redact
from compactor.ledger.errors import LedgerError, LockHeld, from_os
from compactor.ledger.files import Files, replace
from compactor.ledger.ledger import LOCK
from compactor.ledger.paths import PRIVATE, SIGNED, STATE, check_team
from compactor.ledger.segment_format import Seal
from compactor.proofs.notes import (
    BadProof,
    Head,
    HeadConflict,
    decode_note,
    format_origin,
)

LOCK_WAIT_SECONDS = 5.0
_POLL_SECONDS = 0.02
_BEGIN = b'{"team_id":'


class Witnessed(Struct, frozen=True):
    """One line of a witness: the head of a team's log that ended at an offset, as a note."""

    team_id: str
    end: int
    note: str


_decode_witnessed = msgspec.json.Decoder(Witnessed).decode


def make_head(seal: Seal, team: str, name: str) -> Head | None:
    """The head of the tree at the end of a seal; None where it has no tree."""
    if seal.tree is None:
        return None
    return Head(format_origin(name, team), seal.tree.size, bytes.fromhex(seal.tree.root))


def is_over(head: Head, tree: Tree) -> bool:
    """Whether a head is that of a tree."""
    return (head.size, head.root.hex()) == (tree.size, tree.root)


def read_witness(path: Path, files: Files | None = None) -> list[tuple[int, Witnessed | str]]:
    """Read the heads in a witness, each with its line number; for a line that is no head, the text found there.

    There are none where there is no file yet. Raises OSError.
    """
    # The file may be a link: the operator keeps it on another disk.
    lines = ((files or Files()).read(path.resolve()) or b"").split(b"\n")
    found: list[tuple[int, Witnessed | str]] = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            found.append((number, _decode_witnessed(line)))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            found.append((number, f"{redact(line.decode(errors='replace'))[:80]!r} ({error})"))
    return found


def begins_as_witness(path: Path, files: Files) -> bool:
    """Whether a file begins as a line of a witness does, or ends before that can be told. Raises OSError."""
    begin = (files.read(path.resolve()) or b"")[: len(_BEGIN)]
    return _BEGIN.startswith(begin)


@contextmanager
def locked(path: Path, files: Files, wait_seconds: float) -> Iterator[None]:
    """Hold the ledger's lock, waiting up to `wait_seconds` for it. Raises LockHeld."""
    lock = path / STATE / LOCK
    until = time.monotonic() + wait_seconds
    try:
        files.make_directory(lock.parent)
        while (descriptor := files.acquire(lock)) is None and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)
    except OSError as error:
        raise from_os(lock, error, "taking the ledger's lock", "try again") from error
    if descriptor is None:
        holder = (files.read(lock) or b"").decode(errors="replace").strip() or "unknown"
        raise LockHeld(lock, f"process {holder} holds this ledger; wait for it, or stop it, and try again")
    try:
        yield
    finally:
        files.release(descriptor)


_HEAD, _ALARM = ".head", ".alarm"


class HeadAlarm(Struct, frozen=True):
    """Why nothing is signed for a ledger any more; `since` is RFC 3339."""

    kind: str
    message: str
    since: str


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(HeadAlarm).decode


def find_data_directory(ledger: Path) -> Path:
    """The data directory of a ledger: two levels up, or the ledger itself (rule 1.2)."""
    path = ledger.absolute()
    return path.parent.parent if path.parent.name == "team" else path


class HeadRecord:
    """The record of one ledger."""

    def __init__(self, data: Path, team: str, files: Files | None = None) -> None:
        self._directory = data / PRIVATE / SIGNED
        name = check_team(team, data)
        self.path = self._directory / (name + _HEAD)
        self._alarm = self._directory / (name + _ALARM)
        self._files = files or Files()

    def read(self) -> tuple[str, Head] | None:
        """The note that was signed last, and its head; None where none ever was. Raises HeadConflict, OSError."""
        data = self._files.read(self.path)
        if data is None:
            return None
        text = data.decode(errors="replace")
        try:
            return text, decode_note(text, self.path).head
        except BadProof as bad:
            hint = "put the file back from a backup; compactor verify says how far the log agrees with the witness"
            raise HeadConflict(
                self.path, f"{bad.message}. This is the record of what was signed last: {hint}"
            ) from None

    def write(self, note: str) -> None:
        """Replace the record; returns when it is durable."""
        self._make_directory()
        replace(self._files, self.path, [note.encode()])

    def raise_alarm(self, error: LedgerError) -> None:
        """Keep an alarm until `clear_alarm`; one that is there for the same reason stays."""
        kind, before = classify(error), self.read_alarm()
        if before is None or (before.kind, before.message) != (kind, str(error)):
            self._make_directory()
            since = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
            replace(self._files, self._alarm, [_encode(HeadAlarm(kind, str(error), since))])

    def clear_alarm(self) -> None:
        """Remove the alarm, if there is one."""
        if self._files.identity(self._alarm) is not None:
            self._files.remove(self._alarm)

    def read_alarm(self) -> HeadAlarm | None:
        """The alarm of this ledger. Raises OSError."""
        data = self._files.read(self._alarm)
        try:
            return _decode(data) if data is not None else None
        except (msgspec.DecodeError, UnicodeDecodeError):
            return HeadAlarm("head_conflict", f"{self._alarm}: expected an alarm, found another text", "")

    def _make_directory(self) -> None:
        for path in (self._directory.parent, self._directory):
            # Nobody else may write here: who may can have a forged head signed.
            if self._files.make_directory(path):
                self._files.sync_directory(path.parent)


def read_alarms(data: Path) -> dict[str, HeadAlarm]:
    """The alarms of all ledgers of a data directory, by team. Cheap enough for every scrape of the metrics."""
    names = sorted(Files().names(data / PRIVATE / SIGNED))
    teams = [name.removesuffix(_ALARM) for name in names if name.endswith(_ALARM)]
    found = ((team, HeadRecord(data, team).read_alarm()) for team in teams)
    return {team: alarm for team, alarm in found if alarm is not None}
