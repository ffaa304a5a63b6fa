"""What a backup says of itself: `backup.json`, which tells how much of the log a finished run has copied.

Writing the log and the segments of a backup is left to `ledger_copy`.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from compactor.ledger import LedgerEntry
from compactor.ledger.errors import BackupConflict
from compactor.ledger.files import Files, replace

MANIFEST = "backup.json"
FORMAT = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")
_WHAT_TO_DO = "Nothing was changed. Put the file back, or name another directory"


class Manifest(msgspec.Struct, frozen=True):
    """What `backup.json` says: the log was copied up to `log_bytes`; `sha256` is that of its bytes from `start` on.

    Those before it are in segments."""

    format: int
    team_id: str
    made_at: str
    log_bytes: int
    start: int
    sha256: str


_decode = msgspec.json.Decoder(Manifest).decode


def read_manifest(files: Files, path: Path, entry: LedgerEntry) -> Manifest | None:
    """The manifest in a directory, None where there is none. Raises BackupConflict for one that is not this ledger's.

    `entry` is the ledger as it is named by where it lies.
    """
    data = files.read(path / MANIFEST)
    if data is None:
        return None
    try:
        manifest = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        what = f"expected a backup's manifest, found another file ({error})"
        raise BackupConflict(path / MANIFEST, f"{what}. {_WHAT_TO_DO}") from None
    problem = _find_problem(manifest, entry)
    if problem is not None:
        raise BackupConflict(path / MANIFEST, problem)
    return manifest


def _find_problem(manifest: Manifest, entry: LedgerEntry) -> str | None:
    if manifest.format != FORMAT:
        newer = "a newer version wrote it. Use that version" if manifest.format > FORMAT else _WHAT_TO_DO
        return f"expected a manifest of format {FORMAT}, found format {manifest.format}: {newer}"
    # A directory that is itself a ledger may have any name (1.2).
    if entry.team_id is not None and manifest.team_id != entry.team_id:
        return f"expected the backup of team {entry.team_id!r}, found that of {manifest.team_id[:80]!r}. {_WHAT_TO_DO}"
    if not 0 <= manifest.start <= manifest.log_bytes:
        found = f"found start {manifest.start} and log_bytes {manifest.log_bytes}"
        return f"expected a start from 0 up to log_bytes, {found}. {_WHAT_TO_DO}"
    if _SHA256.fullmatch(manifest.sha256) is None:
        return f"expected 64 hexadecimal digits in sha256, found {manifest.sha256[:80]!r}. {_WHAT_TO_DO}"
    return None


def write_manifest(files: Files, path: Path, manifest: Manifest) -> None:
    """Put a manifest in place; returns when it is durable."""
    replace(files, path / MANIFEST, [msgspec.json.encode(manifest) + b"\n"])
