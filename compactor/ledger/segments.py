"""Read sealed history: segments with their seals are one sequence of bytes from offset 0 on (format.md, section 8).

Writing segments is left to `segment_writer`, and reading segments and log as one sequence to `log`.

Invariant: a segment counts only once its seal is there, and sealed history is never skipped. A seal or segment that is
missing, leaves a gap or does not match stops the reading with SegmentDamaged. A frame is
decompressed with a bound, so that a damaged header cannot ask for more memory than the piece has by its seal.
"""

import re
import sys
import time
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct

from compactor.core.merkle import Tree, is_whole
from compactor.ledger.errors import SegmentDamaged
from compactor.ledger.files import Files, Identity, Reader
from compactor.ledger.paths import SEGMENTS, team_in_path

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FRAME_BYTES_MAX = 1 << 22
"""The most bytes of log in one frame; those that are written here have a quarter of it."""
_STORED_BYTES_MAX = FRAME_BYTES_MAX + (FRAME_BYTES_MAX >> 6)
_OPTIONS: dict[int, int] = {
    zstd.CompressionParameter.compression_level: 1,
    zstd.CompressionParameter.checksum_flag: 1,
    zstd.CompressionParameter.content_size_flag: 1,
}


# No frame of this size needs a larger window, for which memory would be set aside.
_BOUNDS: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 22}


class BadFrame(Exception):
    """Bytes that are not the frame of a piece of the expected length; the message says what was found."""


def encode_frame(piece: bytes) -> bytes:
    """A piece of the log as one frame of level 1, with its length and checksum."""
    return zstd.compress(piece, options=_OPTIONS)


def find_bad_frame(frames: list[tuple[int, int]], content_bytes: int, file_bytes: int) -> str | None:
    """The first frame of a segment that cannot be one, for people; None where all can.

    `frames` are where each begins in the content and in the file, which have so many bytes.
    """
    if frames[:1] != [(0, 0)]:
        return f"expected frames from byte 0 on, found {frames[:1]}"
    ends = [*frames[1:], (content_bytes, file_bytes)]
    for number, ((start, begin), (end, stop)) in enumerate(zip(frames, ends, strict=True)):
        if not (0 < end - start <= FRAME_BYTES_MAX and 0 < stop - begin <= _STORED_BYTES_MAX):
            found = f"found {end - start} of them in {stop - begin} bytes of the file"
            return f"expected frame {number} to hold from 1 up to {FRAME_BYTES_MAX} bytes of the log, {found}"
    return None


def decode_frame(data: bytes, length: int) -> bytes:
    """The piece of `length` bytes that a frame holds; its checksum is compared. Raises BadFrame."""
    decompressor = zstd.ZstdDecompressor(options=_BOUNDS)
    try:
        piece = decompressor.decompress(data, max_length=length + 1)
    except zstd.ZstdError as error:
        raise BadFrame(f"a frame that cannot be decompressed ({error})") from None
    # The checksum stands behind the last block and is compared only once the end of the frame is reached.
    if len(piece) != length or not decompressor.eof or decompressor.unused_data:
        raise BadFrame(f"a frame of {len(piece)} bytes of log, expected one whole frame of {length}")
    return piece


FORMAT = 1
"""The layout of a seal and of the frames it names."""
HOLE_BYTES_MIN = 1 << 16
"""No smaller hole is made at the beginning of a log, so that a log whose seals are gone can be told by its NULs."""
KEPT_BYTES = 4096
"""What stays in the log before the end of the last seal: the digest of a checkpoint is made of it."""
_PIECE_BYTES = 1 << 20
_SETTLED_NS = 100_000_000
_NAME = re.compile(r"([0-9]{20})-([0-9]{20})\.jsonl\.zst")
_SEAL_SUFFIX = ".seal.json"
_CHECKSUM = b',"seal_sha256":"'
_CHECKSUM_BYTES = len(_CHECKSUM) + 64 + len(b'"}\n')
_RESTORE = "Nothing was changed, and nothing that was read is used. Restore the segments directory from a backup"


class Seal(Struct, frozen=True, kw_only=True):
    """What a segment holds. Offsets are those of the log, `end` is the one behind the last byte.

    `first_ts` and `last_ts` are those of the first and last line that can be read; `previous` is the SHA-256 of the
    bytes of the seal before it.
    """

    format: int = FORMAT
    start: int
    end: int
    lines: int
    first_ts: str | None
    last_ts: str | None
    content_sha256: str
    file_sha256: str
    file_bytes: int
    previous: str
    frames: list[tuple[int, int]]
    """For each frame where its bytes begin: in the content, counted from `start`, and in the file."""
    tree: Tree | None = None
    """The tree over all lines of the log up to `end`; None in the seals of versions that made none."""
    team_id: str | None = None
    ledger_id: str | None = None
    """Random, made with the first seal of a ledger, and the same in every later one."""
    tail_sha256: str | None = None
    """Of the segment's last `KEPT_BYTES`, which stay in the log. Seals of earlier versions lack these three."""

    @property
    def name(self) -> str:
        """The name of the segment's file."""
        return segment_name(self.start, self.end)


class Piece(NamedTuple):
    """One frame: its bytes of log, and where they begin, counted in offsets of the log."""

    start: int
    data: bytes


def segment_name(start: int, end: int) -> str:
    """The name of the segment of a range of the log."""
    return f"{start:020d}-{end:020d}.jsonl.zst"


def seal_name(segment: str) -> str:
    """The name of the seal of a segment."""
    return segment.removesuffix(".jsonl.zst") + _SEAL_SUFFIX


def parse_segment_name(name: str) -> tuple[int, int] | None:
    """The range that the name of a segment tells, or None if it is no such name."""
    match = _NAME.fullmatch(name)
    return (int(match[1]), int(match[2])) if match else None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Seal).decode


def encode_seal(seal: Seal) -> bytes:
    """A seal as the bytes of its file; the last field is the SHA-256 of all that stands before it."""
    body = _encode(seal)[:-1]
    return body + _CHECKSUM + sha256(body).hexdigest().encode() + b'"}\n'


def decode_seal(data: bytes, path: Path) -> Seal:
    """The seal in the bytes of a file. Raises SegmentDamaged for every byte that is not as it was written."""
    body, tail = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if tail != _CHECKSUM + sha256(body).hexdigest().encode() + b'"}\n':
        raise SegmentDamaged(path, f"expected a seal that ends with its own SHA-256, found other bytes. {_RESTORE}")
    try:
        seal = _decode(body + b"}")
    except msgspec.DecodeError as error:
        raise SegmentDamaged(path, f"expected a seal of format {FORMAT}, found another ({error}). {_RESTORE}") from None
    if seal.format != FORMAT:
        what = f"expected a seal of format {FORMAT}, found format {seal.format}"
        raise SegmentDamaged(path, f"{what}: a newer version wrote it. Use that version")
    if seal.tree is not None and not is_whole(seal.tree):
        raise SegmentDamaged(path, f"expected a tree whose root follows from its peaks, found another. {_RESTORE}")
    if (problem := find_bad_frame(seal.frames, seal.end - seal.start, seal.file_bytes)) is not None:
        raise SegmentDamaged(path, f"{problem}. {_RESTORE}")
    return seal


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
        for name in sorted(name for name in names if name.endswith(_SEAL_SUFFIX)):
            path = self.path / name
            data = self._files.read(path) or b""
            seal = decode_seal(data, path)
            if seal_name(seal.name) != name:
                what = f"expected the seal of this name, found that of {seal.start} to {seal.end}"
                raise SegmentDamaged(path, f"{what}. {_RESTORE}")
            if seal.start != end or seal.previous != digest:
                what = f"expected the seal that follows offset {end}, found one from {seal.start} to {seal.end}"
                hint = "a seal before it is missing, or another one" if seal.start == end else "a segment is missing"
                raise SegmentDamaged(path, f"{what}: {hint}. {_RESTORE}")
            self._check_owner(seal, ledger_id, path)
            ledger_id = seal.ledger_id or ledger_id
            segment = self.path / seal.name
            if seal.name not in names and self._files.identity(segment) is None:
                raise SegmentDamaged(segment, f"expected the segment of its seal, found no such file. {_RESTORE}")
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
                raise SegmentDamaged(path, f"{told}. {_RESTORE}")

    def append(self, seal: Seal, data: bytes) -> None:
        """Take in a seal that was just made durable as these bytes, without reading all the others again."""
        self.seals.append(seal)
        self._starts.append(seal.start)
        self.last_digest = sha256(data).hexdigest()
        self.ledger_id = seal.ledger_id or self.ledger_id
        self._seen = -1

    def seals_from(self, offset: int) -> list[Seal]:
        """The seals of what lies behind an offset."""
        return self.seals[max(0, bisect_right(self._starts, offset) - 1) :]

    def check_log(self, log: Path, reader: Reader, *, head: bool = False) -> None:
        """Raise SegmentDamaged where the log shows that more was sealed than there are seals for, or is shorter.

        With `head` also where there is no seal at all and the log begins with NULs, which costs reading 64 KiB.
        """
        while (problem := self._find_problem(reader, head)) is not None:
            # Another process may have sealed more since the seals were read, and punched that out of the log.
            if not self.refresh():
                raise SegmentDamaged(log, f"{problem}. {_RESTORE}")

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
            raise SegmentDamaged(path, f"expected the segment of its seal, found no such file. {_RESTORE}") from None
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


def check_file(path: Path, seal: Seal, reader: Reader) -> None:
    """Compare the bytes of a segment's file with its seal, a mebibyte at a time. Raises SegmentDamaged."""
    size = reader.identity().size
    if size != seal.file_bytes:
        raise SegmentDamaged(path, f"expected a segment of {seal.file_bytes} bytes, found {size}. {_RESTORE}")
    digest = sha256()
    for offset in range(0, size, _PIECE_BYTES):
        digest.update(reader.read(offset, _PIECE_BYTES))
    if digest.hexdigest() != seal.file_sha256:
        what = f"expected a segment with SHA-256 {seal.file_sha256}, found {digest.hexdigest()}"
        raise SegmentDamaged(path, f"{what}. {_RESTORE}")


def read_piece(directory: Path, seal: Seal, reader: Reader, number: int) -> Piece:
    """The frame of this number, decompressed. Raises SegmentDamaged."""
    start, begin = seal.frames[number]
    last = number + 1 == len(seal.frames)
    end, stop = (seal.end - seal.start, seal.file_bytes) if last else seal.frames[number + 1]
    try:
        return Piece(seal.start + start, decode_frame(reader.read(begin, stop - begin), end - start))
    except BadFrame as bad:
        path = directory / seal.name
        raise SegmentDamaged(path, f"at byte {begin} found {bad}. {_RESTORE}") from None
