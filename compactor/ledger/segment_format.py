"""The format of sealed history (format.md, section 8): a segment with its frames, its seal, and the names of its files.

Whatever is read here is checked against what was written; reading the segments of a ledger is left to `segments`.

Invariant: a frame is decompressed with a bound, so that a damaged header cannot ask for more memory than the piece has
by its seal.
"""

import re
import sys
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct

from compactor.core.merkle import Tree, is_whole
from compactor.ledger.errors import SegmentDamaged
from compactor.ledger.files import Reader

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FRAME_BYTES_MAX = 1 << 22
"""The most bytes of log in one frame; those that are written here have a quarter of it."""
FRAMES_KEPT = 16
"""How many decoded frames a process keeps, of all ledgers together: 16 MiB, as sealing cuts them."""
_STORED_BYTES_MAX = FRAME_BYTES_MAX + (FRAME_BYTES_MAX >> 6)
_OPTIONS: dict[int, int] = {
    zstd.CompressionParameter.compression_level: 1,
    zstd.CompressionParameter.checksum_flag: 1,
    zstd.CompressionParameter.content_size_flag: 1,
}
# No frame of this size needs a larger window, for which memory would be set aside.
_BOUNDS: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 22}
FORMAT = 1
"""The layout of a seal and of the frames it names."""
HOLE_BYTES_MIN = 1 << 16
"""No smaller hole is made at the beginning of a log, so that a log whose seals are gone can be told by its NULs."""
KEPT_BYTES = 4096
"""What stays in the log before the end of the last seal: the digest of a checkpoint is made of it."""
_PIECE_BYTES = 1 << 20
_NAME = re.compile(r"([0-9]{20})-([0-9]{20})\.jsonl\.zst")
_SEGMENT_SUFFIX = ".jsonl.zst"
SEAL_SUFFIX = ".seal.json"
_HEAD_SUFFIX = ".head"
_CHECKSUM = b',"seal_sha256":"'
_CHECKSUM_BYTES = len(_CHECKSUM) + 64 + len(b'"}\n')
RESTORE = "Nothing was changed, and nothing that was read is used. Restore the segments directory from a backup"


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


@lru_cache(maxsize=FRAMES_KEPT)
def decode_frame(data: bytes, length: int) -> bytes:
    """The piece of `length` bytes that a frame holds; its checksum is compared. Raises BadFrame.

    The last ones are kept, since orders that are asked for one by one lie beside each other.
    """
    decompressor = zstd.ZstdDecompressor(options=_BOUNDS)
    try:
        piece = decompressor.decompress(data, max_length=length + 1)
    except zstd.ZstdError as error:
        raise BadFrame(f"a frame that cannot be decompressed ({error})") from None
    # The checksum stands behind the last block and is compared only once the end of the frame is reached.
    if len(piece) != length or not decompressor.eof or decompressor.unused_data:
        raise BadFrame(f"a frame of {len(piece)} bytes of log, expected one whole frame of {length}")
    return piece


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
    return f"{start:020d}-{end:020d}{_SEGMENT_SUFFIX}"


def seal_name(segment: str) -> str:
    """The name of the seal of a segment."""
    return segment.removesuffix(_SEGMENT_SUFFIX) + SEAL_SUFFIX


def head_name(seal: Seal) -> str:
    """The name of the signed head of a seal."""
    return seal.name.removesuffix(_SEGMENT_SUFFIX) + _HEAD_SUFFIX


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
        raise SegmentDamaged(path, f"expected a seal that ends with its own SHA-256, found other bytes. {RESTORE}")
    try:
        seal = _decode(body + b"}")
    except msgspec.DecodeError as error:
        raise SegmentDamaged(path, f"expected a seal of format {FORMAT}, found another ({error}). {RESTORE}") from None
    if seal.format != FORMAT:
        what = f"expected a seal of format {FORMAT}, found format {seal.format}"
        raise SegmentDamaged(path, f"{what}: a newer version wrote it. Use that version")
    if seal.tree is not None and not is_whole(seal.tree):
        raise SegmentDamaged(path, f"expected a tree whose root follows from its peaks, found another. {RESTORE}")
    if (problem := find_bad_frame(seal.frames, seal.end - seal.start, seal.file_bytes)) is not None:
        raise SegmentDamaged(path, f"{problem}. {RESTORE}")
    return seal


def check_file(path: Path, seal: Seal, reader: Reader) -> None:
    """Compare the bytes of a segment's file with its seal, a mebibyte at a time. Raises SegmentDamaged."""
    size = reader.identity().size
    if size != seal.file_bytes:
        raise SegmentDamaged(path, f"expected a segment of {seal.file_bytes} bytes, found {size}. {RESTORE}")
    digest = sha256()
    for offset in range(0, size, _PIECE_BYTES):
        digest.update(reader.read(offset, _PIECE_BYTES))
    if digest.hexdigest() != seal.file_sha256:
        what = f"expected a segment with SHA-256 {seal.file_sha256}, found {digest.hexdigest()}"
        raise SegmentDamaged(path, f"{what}. {RESTORE}")


def read_piece(directory: Path, seal: Seal, reader: Reader, number: int) -> Piece:
    """The frame of this number, decompressed. Raises SegmentDamaged."""
    start, begin = seal.frames[number]
    last = number + 1 == len(seal.frames)
    end, stop = (seal.end - seal.start, seal.file_bytes) if last else seal.frames[number + 1]
    try:
        return Piece(seal.start + start, decode_frame(reader.read(begin, stop - begin), end - start))
    except BadFrame as bad:
        path = directory / seal.name
        raise SegmentDamaged(path, f"at byte {begin} found {bad}. {RESTORE}") from None
