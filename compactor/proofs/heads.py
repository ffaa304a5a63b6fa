"""Publish the heads of a ledger: sign them beside their seals, and append them to a witness on another disk.

    segments/<start>-<end>.head      the note (`notes`) of the tree at the end of this seal, once a key is set

Sealing, which records the trees, is in `ledger.seal`.

Invariant: no head is published that contradicts one that the witness holds. Rewriting history and then sealing is an
error, never a second truth.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from compactor.ledger.errors import LockHeld, from_os
from compactor.ledger.files import Files, replace, write_all
from compactor.ledger.ledger import LOCK
from compactor.ledger.paths import STATE
from compactor.ledger.segments import Seal, Segments
from compactor.proofs.keys import SigningKey
from compactor.proofs.notes import NAME, BadProof, Head, WitnessConflict, decode_note, encode_note, format_origin

LOCK_WAIT_SECONDS = 5.0
_POLL_SECONDS = 0.02


class Witnessed(Struct, frozen=True):
    """One line of a witness: the head of a team's log that ended at an offset, as a note."""

    team_id: str
    end: int
    note: str


class Published(Struct, frozen=True):
    """How many heads were signed, and how many appended to the witness."""

    signed: int = 0
    witnessed: int = 0


_decode = msgspec.json.Decoder(Witnessed).decode
_encode = msgspec.json.Encoder().encode


def head_name(seal: Seal) -> str:
    """The file that holds the signed head of a seal."""
    return seal.name.removesuffix(".jsonl.zst") + ".head"


def make_head(seal: Seal, team: str, name: str) -> Head | None:
    """The head of the tree at the end of a seal; None where it has no tree."""
    if seal.tree is None:
        return None
    return Head(format_origin(name, team), seal.tree.size, bytes.fromhex(seal.tree.root))


def publish(
    path: Path, team: str, *, key: SigningKey | None = None, witness: Path | None = None, files: Files | None = None
) -> Published:
    """Sign the heads that are unsigned and append the newest to the witness; returns when both are durable.

    Takes the ledger's lock. Raises LedgerError: WitnessConflict where the witness holds a head that is not of this log.
    """
    files = files or Files()
    if key is None and witness is None:
        return Published()
    with locked(path, files, LOCK_WAIT_SECONDS):
        segments = Segments(path, files)
        segments.refresh()
        try:
            signed = _sign(segments, team, key, files) if key is not None else 0
            told = _tell(segments.seals, team, key, witness) if witness is not None else 0
        except OSError as error:
            raise from_os(witness or path, error, "publishing the head of the log", "seal again") from error
    return Published(signed, told)


def _sign(segments: Segments, team: str, key: SigningKey, files: Files) -> int:
    names = set(files.names(segments.path))
    missing = [seal for seal in segments.seals if seal.tree is not None and head_name(seal) not in names]
    for seal in missing:
        head = make_head(seal, team, key.verifier.name)
        assert head is not None
        replace(files, segments.path / head_name(seal), [key.sign(head).encode()])
    return len(missing)


def _tell(seals: Sequence[Seal], team: str, key: SigningKey | None, witness: Path) -> int:
    head = make_head(seals[-1], team, key.verifier.name if key is not None else NAME) if seals else None
    known = [one for _line, one in read_witness(witness) if isinstance(one, Witnessed) and one.team_id == team]
    ours = {seal.end: seal.tree for seal in seals}
    for one in known:
        try:
            said = decode_note(one.note, witness).head
        except BadProof:
            continue  # `verify` reports it; a head that cannot be read contradicts nothing.
        tree = ours.get(one.end)
        if tree is None or (tree.size, tree.root) != (said.size, said.root.hex()):
            found = f"{tree.size} lines and {tree.root}" if tree is not None else "no seal that ends there"
            what = (
                f"of {team} up to offset {one.end} expected {said.size} lines and root {said.root.hex()}, found {found}"
            )
            hint = "the history of this log was changed after it was witnessed. compactor verify says where"
            raise WitnessConflict(witness, f"{what}: {hint}")
    if head is None or any(one.end == seals[-1].end for one in known):
        return 0
    note = key.sign(head) if key is not None else encode_note(head, [])
    _append(witness, _encode(Witnessed(team, seals[-1].end, note)) + b"\n")
    return 1


def _append(path: Path, line: bytes) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        write_all(descriptor, b"\n" + line if torn else line, path)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
            found.append((number, f"{line[:80]!r} ({error})"))
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
