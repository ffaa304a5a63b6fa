"""One zstd frame of a segment: a piece of the log, compressed, that can be read by itself.

The seal (`segments`) says which pieces there are.

Invariant: a frame is decompressed with a bound, so that a damaged header cannot ask for more memory than the piece has
by its seal; and a seal that states more than a frame may hold is refused before anything is read.
"""

import sys

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
