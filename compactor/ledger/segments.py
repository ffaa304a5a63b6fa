"""Read sealed history: segments with their seals are one sequence of bytes from offset 0 on (format.md, section 8).

What a segment and a seal look like is in `segment_format`. Writing segments is left to `segment_writer`, and reading
segments and log as one sequence to `log`.

Invariant: a segment counts only once its seal is there, and sealed history is never skipped. A seal or segment that is
missing, leaves a gap or does not match stops the reading with SegmentDamaged.
"""

import time
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from compactor.ledger.errors import SegmentDamaged
from compactor.ledger.files import Files, Identity, Reader
from compactor.ledger.paths import SEGMENTS, team_in_path
from compactor.ledger.segment_format import (
    HOLE_BYTES_MIN,
    KEPT_BYTES,
    RESTORE,
    SEAL_SUFFIX,
    Piece,
    Seal,
    check_file,
    decode_seal,
    read_piece,
    seal_name,
)

_SETTLED_NS = 100_000_000


class Segments:
    """The sealed segments of the ledger in a directory, in the order of the log.

    There are none before the first `refresh`, which costs one look at the directory, and the reading of all seals where
    it changed. A segment's file is compared with its seal when it is first used, each frame whenever it is read. Not
    safe for several threads at once.
    """

    def __init__(self, path: Path, files: Files) -> None:
        self.path = path / SEGMENTS
        self.ledger_id: str | None = None
        """The id of the ledger, as the seals have it; None before the first seal with one."""
        self._team_id = team_in_path(path)
        self.seals: list[Seal] = []
        self.last_digest = ""
        """SHA-256 of the bytes of the last seal, `""` where there is none."""
        self._files = files
        self._starts: list[int] = []
        self._seen: int | None = None
        """When the directory changed last, as of the reading of the seals."""
        self._whole: dict[str, Identity] = {}
        self._open: tuple[Seal, Reader] | None = None
        self._piece = Piece(0, b"")
        self._compared: tuple[str, int, int] | None = None
        """The last seal, by its digest, and the file of the log whose end was compared with its segment."""

    @property
    def sealed_end(self) -> int:
        """The offset up to which the log is sealed; 0 where nothing is."""
        return self.seals[-1].end if self.seals else 0

    def refresh(self) -> bool:
        """Look whether seals came or went, and read them if so; whether `seals` is another than before."""
        changed = self._files.changed(self.path)
        if changed == self._seen:
            return False
        before = self.last_digest
        self._load()
        # A directory that changed a moment ago may change again without its time telling.
        settled = changed is None or time.time_ns() - changed > _SETTLED_NS
        self._seen = changed if settled else -1
        return before != self.last_digest

    def _load(self) -> None:
        """Read all seals; once more if they do not fit, since a list of names that changes meanwhile may lack some."""
        self.release()
        try:
            loaded = self._chain()
        except SegmentDamaged:
            loaded = self._chain()
        self.seals, self.last_digest, self.ledger_id = loaded
        self._starts = [seal.start for seal in self.seals]

    def _chain(self) -> tuple[list[Seal], str, str | None]:
        names = set(self._files.names(self.path))
        seals: list[Seal] = []
        digest, end, ledger_id = "", 0, None
        for name in sorted(name for name in names if name.endswith(SEAL_SUFFIX)):
            path = self.path / name
            data = self._files.read(path) or b""
            seal = decode_seal(data, path)
            if seal_name(seal.name) != name:
                what = f"expected the seal of this name, found that of {seal.start} to {seal.end}"
                raise SegmentDamaged(path, f"{what}. {RESTORE}")
            if seal.start != end or seal.previous != digest:
                what = f"expected the seal that follows offset {end}, found one from {seal.start} to {seal.end}"
                hint = "a seal before it is missing, or another one" if seal.start == end else "a segment is missing"
                raise SegmentDamaged(path, f"{what}: {hint}. {RESTORE}")
            self._check_owner(seal, ledger_id, path)
            ledger_id = seal.ledger_id or ledger_id
            segment = self.path / seal.name
            if seal.name not in names:
                raise SegmentDamaged(segment, f"expected the segment of its seal, found no such file. {RESTORE}")
            seals.append(seal)
            digest, end = sha256(data).hexdigest(), seal.end
        return seals, digest, ledger_id

    def _check_owner(self, seal: Seal, ledger_id: str | None, path: Path) -> None:
        """Refuse a seal that names another ledger."""
        for what, expected, found in (
            ("team", self._team_id, seal.team_id),
            ("the ledger with the id", ledger_id, seal.ledger_id),
        ):
            if None not in (expected, found) and expected != found:
                told = f"expected a segment of {what} {expected}, found one of {found}: it belongs to another ledger"
                raise SegmentDamaged(path, f"{told}. {RESTORE}")

    def append(self, seal: Seal, data: bytes) -> None:
        """Take in a seal that was just made durable as these bytes, without reading all the others again."""
        self.seals.append(seal)
        self._starts.append(seal.start)
        self.last_digest = sha256(data).hexdigest()
        self.ledger_id = seal.ledger_id or self.ledger_id
        self._seen = -1

    def seals_from(self, offset: int) -> list[Seal]:
        """The seals of what lies behind an offset."""
        return self.seals[bisect_right(self._starts, offset) - 1 :]

    def check_log(self, log: Path, reader: Reader, *, head: bool = False) -> None:
        """Raise SegmentDamaged where the log shows that more was sealed than there are seals for, or is shorter.

        With `head` also where there is no seal at all and the log begins with NULs, which costs reading 64 KiB.
        """
        while (problem := self._find_problem(reader, head)) is not None:
            # Another process may have sealed more since the seals were read, and punched that out of the log.
            if not self.refresh():
                raise SegmentDamaged(log, f"{problem}. {RESTORE}")

    def _find_problem(self, reader: Reader, head: bool) -> str | None:
        end = self.sealed_end
        if not end:
            if head and reader.read(0, HOLE_BYTES_MIN) == bytes(HOLE_BYTES_MIN):
                return "expected seals for the NUL bytes with which the log begins, as sealing leaves them, found none"
            return None
        size = reader.identity().size
        if size < end:
            return f"expected a log of at least {end} bytes, since so much of it is sealed, found {size}"
        start = max(self.seals[-1].start, end - KEPT_BYTES)
        tail = reader.read(start, end - start)
        if not tail.endswith(b"\n"):
            return f"expected a line of the log to end at {end}, where the last seal ends, or seals beyond: found none"
        if not self._ends_with(tail, reader):
            name = self.seals[-1].name
            return f"expected the bytes of segment {name} before {end}, found others: it belongs to another log"
        return None

    def _ends_with(self, tail: bytes, reader: Reader) -> bool:
        """Whether the last segment ends with these bytes of the log."""
        seal = self.seals[-1]
        if seal.tail_sha256 is not None:
            return sha256(tail).hexdigest() == seal.tail_sha256
        identity = reader.identity()
        known = (self.last_digest, identity.device, identity.inode)
        if self._compared != known:
            # Seals of earlier versions do not tell, so that the last frame has to be read once.
            segment = self._files.open(self.path / seal.name)
            try:
                last = read_piece(self.path, seal, segment, len(seal.frames) - 1).data
            finally:
                segment.close()
            if last[-len(tail) :] != tail[-len(last) :]:
                return False
            self._compared = known
        return True

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from an offset on, all of them below `sealed_end`. Raises SegmentDamaged."""
        parts = []
        while length > 0:
            piece = self._piece
            if not piece.start <= offset < piece.start + len(piece.data):
                piece = self._piece = self._piece_at(offset)
            parts.append(piece.data[offset - piece.start : offset - piece.start + length])
            offset += len(parts[-1])
            length -= len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _piece_at(self, offset: int) -> Piece:
        seal = self.seals[bisect_right(self._starts, offset) - 1]
        if self._open is None or self._open[0] is not seal:
            self.release()
            self._open = seal, self._checked(seal)
        number = bisect_right(seal.frames, (offset - seal.start, seal.file_bytes)) - 1
        return read_piece(self.path, seal, self._open[1], number)

    def _checked(self, seal: Seal) -> Reader:
        """A segment, opened; its whole file is compared with the seal the first time."""
        path = self.path / seal.name
        try:
            reader = self._files.open(path)
        except FileNotFoundError:
            raise SegmentDamaged(path, f"expected the segment of its seal, found no such file. {RESTORE}") from None
        try:
            if self._whole.get(seal.name) != reader.identity():
                check_file(path, seal, reader)
                self._whole[seal.name] = reader.identity()
        except BaseException:
            reader.close()
            raise
        return reader

    def pieces(self, seal: Seal) -> Iterator[Piece]:
        """All frames of a segment in their order, after its file was compared with the seal. Raises SegmentDamaged."""
        self._whole.pop(seal.name, None)
        reader = self._checked(seal)
        try:
            for number in range(len(seal.frames)):
                yield read_piece(self.path, seal, reader, number)
        finally:
            reader.close()

    def release(self) -> None:
        """Close what is open, and forget the frame that was read last."""
        self._piece = Piece(0, b"")
        if self._open is not None:
            with suppress(OSError):
                self._open[1].close()
            self._open = None
