"""Copy segments and log of a ledger to another directory, and compare what is there already.

What is copied in which order, so that a copy can be read whenever a run stops, is decided in `backup`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from compactor.ledger import SegmentDamaged
from compactor.ledger.errors import BackupConflict
from compactor.ledger.files import Files, replace
from compactor.ledger.log import Log
from compactor.ledger.segment_format import (
    KEPT_BYTES,
    SEAL_SUFFIX,
    Seal,
    check_file,
    head_name,
    seal_name,
)

KEPT = "The log is no continuation of its backup, which is kept as it is. Name another directory"
_PIECE_BYTES = 1 << 20
_BLOCK_BYTES = 4096


def find_start(seals: Sequence[Seal]) -> int:
    """Where the bytes begin that a copy of the log needs: a whole block, as sealing leaves it."""
    return max(0, (seals[-1].end if seals else 0) - KEPT_BYTES) // _BLOCK_BYTES * _BLOCK_BYTES


class SegmentsCopy:
    """The copy of a ledger's segments. A segment counts once its seal is there, so that the seals are put last."""

    def __init__(self, files: Files, source: Path, target: Path, seals: Sequence[Seal]) -> None:
        self._files = files
        self._source = source
        self._target = target
        self._seals = seals
        self._names = set(files.names(target))

    @property
    def seals_there(self) -> list[Seal]:
        """The seals that the copy had before."""
        return [seal for seal in self._seals if seal_name(seal.name) in self._names]

    def check_seals(self) -> None:
        """Compare the seals that the copy has with those of the ledger. Raises BackupConflict and SegmentDamaged."""
        hint = "it is the backup of another ledger. Nothing was changed. Name another directory"
        known = {seal_name(seal.name) for seal in self._seals}
        for name in sorted(name for name in self._names - known if name.endswith(SEAL_SUFFIX)):
            what = "expected only seals that the ledger has, found one more"
            raise BackupConflict(self._target / name, f"{what}: {hint}")
        for seal in self.seals_there:
            path = self._target / seal_name(seal.name)
            if not self._files.holds(path, self._read_seal(seal)):
                raise BackupConflict(path, f"expected the seal that the ledger has, found another: {hint}")

    def copy_segments(self) -> int:
        """Copy the segments that are not there whole, without their seals; how many. Raises SegmentDamaged."""
        if not self._seals:
            return 0
        self._files.make_directory(self._target)
        copied = 0
        for seal in self._seals:
            if not self._is_whole(seal):
                self._copy_segment(seal)
                copied += 1
        self._files.sync_directory(self._target.parent)
        return copied

    def put_seals(self) -> None:
        """Put the seals that are not there yet, each after its signed head; the segments are there by now.

        A head is signed after its seal, so that an earlier run may have come in between.
        """
        names = set(self._files.names(self._target))
        for seal in self._seals:
            head, name = head_name(seal), seal_name(seal.name)
            if head not in names and (note := self._files.read(self._source / head)) is not None:
                replace(self._files, self._target / head, [note])
            if name not in names:
                replace(self._files, self._target / name, [self._read_seal(seal)])

    def _read_seal(self, seal: Seal) -> bytes:
        path = self._source / seal_name(seal.name)
        data = self._files.read(path)
        if data is None:
            raise SegmentDamaged(path, "expected a seal, found no such file")
        return data

    def _is_whole(self, seal: Seal) -> bool:
        """Whether a segment need not be copied: of one with its seal the size is compared, else every byte."""
        path = self._target / seal.name
        identity = self._files.identity(path)
        if identity is None or identity.size != seal.file_bytes:
            return False
        if seal_name(seal.name) in self._names:
            return True
        reader = self._files.open(path)
        try:
            check_file(path, seal, reader)
        except SegmentDamaged:
            return False
        finally:
            reader.close()
        return True

    def _copy_segment(self, seal: Seal) -> None:
        source, target, digest = self._source / seal.name, self._target / seal.name, Digest(0)
        reader = self._files.open(source)
        try:
            replace(self._files, target, _read_pieces(reader.read, 0, reader.identity().size, [digest]))
        finally:
            reader.close()
        if digest.hex() != seal.file_sha256:
            self._files.remove(target)
            what = f"expected a segment with SHA-256 {seal.file_sha256}, found {digest.hex()}"
            raise SegmentDamaged(source, f"{what}. It was not copied; restore it, and run it again")


class Digest:
    """The SHA-256 of the bytes of a log from an offset on."""

    def __init__(self, start: int) -> None:
        self.start = start
        self._digest = sha256()

    def take(self, offset: int, piece: bytes) -> None:
        """Take in bytes that begin at an offset; those before the start are left out."""
        self._digest.update(memoryview(piece)[max(0, self.start - offset) :])

    def hex(self) -> str:
        """The digest of what was taken in."""
        return self._digest.hexdigest()


def _read_pieces(read: Callable[[int, int], bytes], start: int, end: int, digests: Sequence[Digest]) -> Iterator[bytes]:
    """The bytes of a range, a mebibyte at a time; the digests take them too."""
    for offset in range(start, end, _PIECE_BYTES):
        piece = read(offset, min(_PIECE_BYTES, end - offset))
        for digest in digests:
            digest.take(offset, piece)
        yield piece


def write_log(files: Files, log: Log, path: Path, start: int, end: int, digest: Digest) -> None:
    """Write a range of a log to a new file, behind a hole; returns when its bytes are durable."""
    files.remove(path)
    files.append(path, b"")
    files.truncate(path, start)
    extend_log(files, log, path, start, end, digest)


def extend_log(files: Files, log: Log, path: Path, size: int, end: int, digest: Digest) -> None:
    """Append the bytes of a log from `size`, where its copy ends, up to `end`; returns when they are durable.

    Raises BackupConflict where another run appends to the same copy.
    """
    for piece in _read_pieces(log.read, size, end, [digest]):
        files.append(path, piece)
    files.sync(path)
    identity = files.identity(path)
    found = identity.size if identity is not None else 0
    if found != end:
        what = f"expected {end} bytes after appending, found {found}: another run writes to it at the same time"
        raise BackupConflict(path, f"{what}. The next run puts it right; let one run end before the next one starts")


def compare_log(files: Files, log: Log, path: Path, start: int, stop: int, digests: Sequence[Digest]) -> None:
    """Compare what a copy of a log holds from `start` up to `stop`. Raises BackupConflict."""
    reader = files.open(path)
    try:
        offset = start
        for piece in _read_pieces(log.read, start, stop, digests):
            if reader.read(offset, len(piece)) != piece:
                what = f"expected the bytes that the backup has from {offset} on, found others in {log.path}"
                raise BackupConflict(path, f"{what}. {KEPT}")
            offset += len(piece)
    finally:
        reader.close()
