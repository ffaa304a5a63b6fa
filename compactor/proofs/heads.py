"""Heads of a ledger as files: beside their seals, and as the lines of a witness. Publishing them is in `publish`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from compactor.core.printable import redact
from compactor.ledger.errors import LockHeld, from_os
from compactor.ledger.files import Files
from compactor.ledger.ledger import LOCK
from compactor.ledger.paths import STATE
from compactor.ledger.segments import Seal
from compactor.proofs.notes import (
    Head,
    format_origin,
)

LOCK_WAIT_SECONDS = 5.0
_POLL_SECONDS = 0.02


class Witnessed(Struct, frozen=True):
    """One line of a witness: the head of a team's log that ended at an offset, as a note."""

    team_id: str
    end: int
    note: str


_decode = msgspec.json.Decoder(Witnessed).decode


def head_name(seal: Seal) -> str:
    """The file that holds the signed head of a seal."""
    return seal.name.removesuffix(".jsonl.zst") + ".head"


def make_head(seal: Seal, team: str, name: str) -> Head | None:
    """The head of the tree at the end of a seal; None where it has no tree."""
    if seal.tree is None:
        return None
    return Head(format_origin(name, team), seal.tree.size, bytes.fromhex(seal.tree.root))


def read_witness(path: Path) -> list[tuple[int, Witnessed | str]]:
    """Read the heads in a witness, each with its line number; for a line that is no head, the text found there.

    There are none where there is no file yet. Raises OSError.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    found: list[tuple[int, Witnessed | str]] = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            found.append((number, _decode(line)))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            found.append((number, f"{redact(line.decode(errors='replace'))[:80]!r} ({error})"))
    return found


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
