"""Back up the truth of every ledger, log and segments, beside running writers, daemon and sealing; and restore it.

A backup is a data directory like any other, without derived files: `TO/team/<id>/events.jsonl`, `segments/`, and
`backup.json`, which says how much of the log was copied. A further run copies only new segments and new lines.
Compacting and verifying what was restored is left to the caller.

Invariant: a backup only ever grows. A log that is no continuation of its backup is refused, and the backup stays.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from compactor.books.failures import Failure, describe_bad_entry, describe_failure
from compactor.ledger import LedgerEntry, NoLedger, SegmentDamaged, discover
from compactor.ledger.errors import BackupConflict, from_os
from compactor.ledger.files import Files, replace
from compactor.ledger.log import Log, open_log
from compactor.ledger.log_writer import make_ledger, sync_names
from compactor.ledger.paths import LOG, PENDING, SEGMENTS, STATE, TRADES
from compactor.ledger.segment_format import HOLE_BYTES_MIN, KEPT_BYTES, Seal, head_name, seal_name
from compactor.ledger.segments import Segments

MANIFEST = "backup.json"
FORMAT = 1
_KEPT = "The log is no continuation of its backup, which is kept as it is. Name another directory"
_PIECE_BYTES = 1 << 20
_BLOCK_BYTES = 4096


class Manifest(msgspec.Struct, frozen=True):
    """What `backup.json` says: the log was copied up to `log_bytes`; `sha256` is that of its bytes from `start` on.

    Those before it are in segments."""

    format: int
    team_id: str
    made_at: str
    log_bytes: int
    start: int
    sha256: str


class CopiedLedger(msgspec.Struct, frozen=True):
    """What was copied of one ledger: `new_*` by this run, the rest in all; or the `error` that stopped it."""

    team_id: str
    path: str
    log_bytes: int = 0
    segments: int = 0
    new_log_bytes: int = 0
    new_segments: int = 0
    error: Failure | None = None


_decode = msgspec.json.Decoder(Manifest).decode


def back_up(data: Path, target: Path, *, team: str | None = None) -> list[CopiedLedger]:
    """Bring the backup in `target` up to date with the ledgers of `data`; one entry for each, when it is durable.

    Needs no lock and stops nobody. Each copy ends with a whole line of its log.
    """
    return [_attempt(entry, target, _back_up) for entry in discover(data, team)]


def restore(backup: Path, data: Path, *, team: str | None = None) -> list[CopiedLedger]:
    """Copy the ledgers of a backup, or of any copy of a data directory, to where there is none; one entry for each.

    Every byte is compared with its seal, or with `backup.json` where there is one. A ledger that is there already is
    refused.
    """
    return [_attempt(entry, data, _restore) for entry in discover(backup, team)]


def _attempt(entry: LedgerEntry, target: Path, copy: Callable[[LedgerEntry, Path], CopiedLedger]) -> CopiedLedger:
    path = target if entry.team_id is None else target / "team" / entry.team_id
    if entry.problem is not None:
        return CopiedLedger(entry.name, str(path), error=describe_bad_entry(entry))
    try:
        if not os.path.lexists(entry.path / LOG):
            raise NoLedger(entry.path, f"there is no {LOG}, expected a ledger")
        try:
            return copy(entry, path)
        except OSError as error:
            raise from_os(path, error, "copying a ledger", "run it again") from error
    except Exception as error:
        return CopiedLedger(entry.name, str(path), error=describe_failure(error, path))


def _back_up(entry: LedgerEntry, path: Path) -> CopiedLedger:
    files = Files()
    for name in (STATE, TRADES, PENDING):
        if os.path.lexists(path / name):
            what = f"expected a backup, or nothing, found a ledger in use: it has {name}"
            raise BackupConflict(path, f"{what}. Nothing was changed. Name another directory")
    make_ledger(path)
    segments = Segments(entry.path, files)
    with open_log(entry.path, files, segments, head=True, doing="copying the log") as log:
        # More may be sealed meanwhile: then the log is read out of its segments.
        end, seals = log.end_of_whole_lines(log.identity().size), list(segments.seals)
        new_segments = _copy_segments(files, segments.path, path / SEGMENTS, seals)
        start = _find_start(seals)
        copied, digest = _extend(files, log, path / LOG, start, end, _read_manifest(files, path))
        made_at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        manifest = Manifest(FORMAT, entry.name, made_at, end, start, digest)
        replace(files, path / MANIFEST, [msgspec.json.encode(manifest) + b"\n"])
    if start >= HOLE_BYTES_MIN:
        # The segments have it; a backup need not hold it twice.
        files.punch(path / LOG, 0, start)
    return CopiedLedger(entry.name, str(path), end, len(seals), copied, new_segments)


def _restore(entry: LedgerEntry, path: Path) -> CopiedLedger:
    files = Files()
    if os.path.lexists(path / LOG):
        what = "expected no ledger, found one"
        raise BackupConflict(path, f"{what}. Nothing was changed. Move it away, or restore to another data directory")
    make_ledger(path)
    segments = Segments(entry.path, files)
    with open_log(entry.path, files, segments, head=True, doing="copying the log") as log:
        manifest = _read_manifest(files, entry.path)
        end = log.end_of_whole_lines(log.identity().size)
        if manifest is not None:
            if end < manifest.log_bytes:
                raise BackupConflict(log.path, f"expected {manifest.log_bytes} bytes of log, found {end}: damaged")
            end = manifest.log_bytes
        new_segments = _copy_segments(files, segments.path, path / SEGMENTS, segments.seals)
        start = manifest.start if manifest is not None else _find_start(segments.seals)
        # The ledger is there once its log has its name.
        temporary = path / (LOG + ".tmp")
        files.remove(temporary)
        copied, digest = _extend(files, log, temporary, start, end, None)
        if manifest is not None and digest != manifest.sha256:
            files.remove(temporary)
            raise BackupConflict(log.path, f"expected bytes from {start} to {end} with SHA-256 {manifest.sha256}")
        files.rename(temporary, path / LOG)
        try:
            sync_names(path)
        except OSError:
            # Not acknowledged, so that it can be done again.
            files.rename(path / LOG, temporary)
            raise
    return CopiedLedger(entry.name, str(path), end, len(segments.seals), copied, new_segments)


def _find_start(seals: Sequence[Seal]) -> int:
    """Where the bytes begin that a copy of the log needs: a whole block, as sealing leaves it."""
    return max(0, (seals[-1].end if seals else 0) - KEPT_BYTES) // _BLOCK_BYTES * _BLOCK_BYTES


def _read_manifest(files: Files, path: Path) -> Manifest | None:
    data = files.read(path / MANIFEST)
    if data is None:
        return None
    try:
        return _decode(data)
    except msgspec.DecodeError as error:
        raise BackupConflict(path / MANIFEST, f"expected a backup's manifest, found another file ({error})") from None


def _copy_segments(files: Files, source: Path, target: Path, seals: Sequence[Seal]) -> int:
    """Copy the segments that are not there yet, each before its seal; how many. Raises SegmentDamaged."""
    if not seals:
        return 0
    files.make_directory(target)
    names, copied = set(files.names(target)), 0
    for seal in seals:
        name = seal_name(seal.name)
        data = files.read(source / name)
        if data is None:
            raise SegmentDamaged(source / name, "expected a seal, found no such file")
        if name in names:
            if not files.holds(target / name, data):
                what = "expected the seal that the backup has, found another: it is the backup of another ledger"
                raise BackupConflict(target / name, f"{what}. Nothing was changed. Name another directory")
            # A head is signed after its seal, so that an earlier run may have come in between.
            _copy_head(files, source, target, seal, names)
            continue
        digest = sha256()
        reader = files.open(source / seal.name)
        try:
            replace(files, target / seal.name, _read_pieces(reader.read, 0, reader.identity().size, digest))
        finally:
            reader.close()
        if digest.hexdigest() != seal.file_sha256:
            files.remove(target / seal.name)
            what = f"expected a segment with SHA-256 {seal.file_sha256}, found {digest.hexdigest()}"
            raise SegmentDamaged(source / seal.name, f"{what}. It was not copied; restore it, and run it again")
        _copy_head(files, source, target, seal, names)
        replace(files, target / name, [data])
        copied += 1
    files.sync_directory(target.parent)
    return copied


def _copy_head(files: Files, source: Path, target: Path, seal: Seal, names: Collection[str]) -> None:
    """Copy the signed head of a seal, where there is one and the target has none."""
    name = head_name(seal)
    if name not in names and (note := files.read(source / name)) is not None:
        replace(files, target / name, [note])


def _read_pieces(read: Callable[[int, int], bytes], start: int, end: int, digest: Any) -> Iterator[bytes]:
    """The bytes of a range, a mebibyte at a time; `digest` takes them too."""
    for offset in range(start, end, _PIECE_BYTES):
        piece = read(offset, min(_PIECE_BYTES, end - offset))
        digest.update(piece)
        yield piece


def _extend(files: Files, log: Log, path: Path, start: int, end: int, before: Manifest | None) -> tuple[int, str]:
    """Let a copy of a log end where the log does, from `start` on; how many bytes are new, and the SHA-256 from there.

    What the copy has from `start` on is compared; a hole is left before it where the copy is shorter.
    """
    identity = files.identity(path)
    size = identity.size if identity is not None else 0
    if before is not None and size > before.log_bytes:
        # A run that was stopped: nobody vouches for what is beyond the manifest.
        files.truncate(path, before.log_bytes)
        size = before.log_bytes
    if size > end:
        raise BackupConflict(path, f"expected a log of at least {size} bytes, as the backup has, found {end}. {_KEPT}")
    if size < start or identity is None:
        files.append(path, b"")
        files.truncate(path, start)
        size = start
    digest = sha256()
    reader = files.open(path)
    try:
        for offset in range(start, size, _PIECE_BYTES):
            piece = log.read(offset, min(_PIECE_BYTES, size - offset))
            digest.update(piece)
            if reader.read(offset, len(piece)) != piece:
                what = f"expected the bytes that the backup has from {offset} on, found others in {log.path}"
                raise BackupConflict(path, f"{what}. {_KEPT}")
    finally:
        reader.close()
    for piece in _read_pieces(log.read, size, end, digest):
        files.append(path, piece)
    files.sync(path)
    return end - size, digest.hexdigest()
