"""Back up the truth of every ledger, log and segments, beside running writers, daemon and sealing; and restore it.

A backup is a data directory like any other, without derived files: `TO/team/<id>/events.jsonl`, `segments/`, and
`backup.json`, which says how much of the log was copied. A further run copies only new segments and new lines.
Compacting and verifying what was restored is left to the caller.

Invariant: a backup only ever grows. A log that is no continuation of its backup is refused, and the backup stays.

Invariant: a run may stop at any of its steps. What the last finished run copied, or more, can be restored and read
then, and the next run goes on. So the segments are copied without their seals, the log is made longer, the manifest
says so, the seals are put, and only then is the space of what is sealed given back.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from compactor.books.failures import Failure, describe_bad_entry, describe_failure
from compactor.books.ledger_copy import (
    KEPT,
    Digest,
    SegmentsCopy,
    compare_log,
    extend_log,
    find_start,
    write_log,
)
from compactor.books.manifest import FORMAT, MANIFEST, Manifest, read_manifest, write_manifest
from compactor.ledger import LedgerEntry, NoLedger, discover
from compactor.ledger.errors import BackupConflict, from_os
from compactor.ledger.files import Files
from compactor.ledger.log import Log, open_log
from compactor.ledger.log_writer import make_ledger, sync_names
from compactor.ledger.paths import LOG, PENDING, SEGMENTS, STATE, TRADES
from compactor.ledger.segment_format import HOLE_BYTES_MIN
from compactor.ledger.segments import Segments


class CopiedLedger(msgspec.Struct, frozen=True):
    """What was copied of one ledger: `new_*` by this run, the rest in all; or the `error` that stopped it."""

    team_id: str
    path: str
    log_bytes: int = 0
    segments: int = 0
    new_log_bytes: int = 0
    new_segments: int = 0
    error: Failure | None = None


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
        end = log.end_of_whole_lines(log.identity().size)
        seals = [seal for seal in segments.seals if seal.end <= end]
        copy = SegmentsCopy(files, segments.path, path / SEGMENTS, seals)
        copy.check_seals()
        digest = Digest(find_start(seals))
        size = _compare(files, log, path, end, read_manifest(files, path, entry), find_start(copy.seals_there), digest)
        new_segments = copy.copy_segments()
        if size is None:
            # The ledger is there once its log has its name.
            copy.put_seals()
            _write_log(files, log, path, digest.start, end, digest)
        else:
            _cut(files, path / LOG, size)
            extend_log(files, log, path / LOG, size, end, digest)
        made_at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        write_manifest(files, path, Manifest(FORMAT, entry.name, made_at, end, digest.start, digest.hex()))
        copy.put_seals()
    if digest.start >= HOLE_BYTES_MIN:
        # The segments have it; a backup need not hold it twice.
        files.punch(path / LOG, 0, digest.start)
    copied = end - (size if size is not None else digest.start)
    return CopiedLedger(entry.name, str(path), end, len(seals), copied, new_segments)


def _compare(
    files: Files, log: Log, path: Path, end: int, manifest: Manifest | None, sealed_start: int, digest: Digest
) -> int | None:
    """Compare the log of a backup with that of its ledger; how much of it is kept, None where there is no log yet.

    `sealed_start` is where its bytes begin that its seals do not cover. Nothing is changed. Raises BackupConflict.
    """
    identity = files.identity(path / LOG)
    if identity is None:
        return None
    size, start = identity.size, sealed_start
    told = Digest(start)
    if manifest is not None:
        # Of a run that was stopped nobody vouches for what is beyond the manifest.
        size, start, told = min(size, manifest.log_bytes), manifest.start, Digest(manifest.start)
    least = max(size, manifest.log_bytes) if manifest is not None else size
    if least > end:
        what = f"expected a log of at least {least} bytes, as the backup has, found {end}"
        raise BackupConflict(path / LOG, f"{what}. {KEPT}")
    if start > digest.start:
        what = f"expected no more than {digest.start} bytes before the start, which the segments have, found {start}"
        raise BackupConflict(path / MANIFEST, f"{what}. {KEPT}")
    compare_log(files, log, path / LOG, start, size, [digest, told])
    if manifest is not None and size == manifest.log_bytes and told.hex() != manifest.sha256:
        what = f"expected the SHA-256 of the log from {start} to {size}, {told.hex()}, found {manifest.sha256}"
        raise BackupConflict(path / MANIFEST, f"{what}: damaged. {KEPT}")
    # Of a copy that was cut the segments have what is before the start.
    return max(size, start)


def _cut(files: Files, path: Path, size: int) -> None:
    """Let a copy of a log end where what is kept of it ends."""
    identity = files.identity(path)
    if identity is None or identity.size != size:
        files.truncate(path, size)


def _restore(entry: LedgerEntry, path: Path) -> CopiedLedger:
    files = Files()
    if os.path.lexists(path / LOG):
        what = "expected no ledger, found one"
        raise BackupConflict(path, f"{what}. Nothing was changed. Move it away, or restore to another data directory")
    segments = Segments(entry.path, files)
    with open_log(entry.path, files, segments, head=True, doing="copying the log") as log:
        manifest = read_manifest(files, entry.path, entry)
        end = log.end_of_whole_lines(log.identity().size)
        if manifest is not None:
            if end < manifest.log_bytes:
                raise BackupConflict(log.path, f"expected {manifest.log_bytes} bytes of log, found {end}: damaged")
            end = manifest.log_bytes
            if end < segments.sealed_end:
                what = f"expected log_bytes of at least {segments.sealed_end}, as so much is sealed, found {end}"
                raise BackupConflict(
                    entry.path / MANIFEST, f"{what}. Nothing was restored. Run the backup again, or name another one"
                )
        seals = [seal for seal in segments.seals if seal.end <= end]
        make_ledger(path)
        copy = SegmentsCopy(files, segments.path, path / SEGMENTS, seals)
        copy.check_seals()
        new_segments = copy.copy_segments()
        copy.put_seals()
        start = find_start(seals)
        digest = Digest(manifest.start if manifest is not None else start)
        start = min(start, digest.start)
        _write_log(files, log, path, start, end, digest, manifest)
    return CopiedLedger(entry.name, str(path), end, len(seals), end - start, new_segments)


def _write_log(
    files: Files, log: Log, path: Path, start: int, end: int, digest: Digest, manifest: Manifest | None = None
) -> None:
    """Write the copy of a log to where there is none, whole or not at all; returns when it is durable.

    It has to be what the manifest says. Raises BackupConflict.
    """
    temporary = path / (LOG + ".tmp")
    try:
        write_log(files, log, temporary, start, end, digest)
    except OSError:
        # What is half written must not keep a full disk full.
        with suppress(OSError):
            files.remove(temporary)
        raise
    if manifest is not None and digest.hex() != manifest.sha256:
        files.remove(temporary)
        what = f"expected bytes from {digest.start} to {end} with SHA-256 {manifest.sha256}, found {digest.hex()}"
        raise BackupConflict(log.path, f"{what}: damaged. Nothing was restored")
    files.rename(temporary, path / LOG)
    try:
        sync_names(path)
    except OSError:
        # Not acknowledged, so that it can be done again.
        files.rename(path / LOG, temporary)
        raise
