"""One zstd frame of a segment: a piece of the log, compressed, that can be read by itself.

The seal (`segments`) says which pieces there are.

Invariant: a frame is decompressed with a bound, so that a damaged header cannot ask for more memory than the piece has
by its seal.
"""

import sys

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_OPTIONS: dict[int, int] = {
    zstd.CompressionParameter.compression_level: 1,
    zstd.CompressionParameter.checksum_flag: 1,
    zstd.CompressionParameter.content_size_flag: 1,
}


class BadFrame(Exception):
    """Bytes that are not the frame of a piece of the expected length; the message says what was found."""


def encode_frame(piece: bytes) -> bytes:
    """A piece of the log as one frame of level 1, with its length and checksum."""
    return zstd.compress(piece, options=_OPTIONS)


def decode_frame(data: bytes, length: int) -> bytes:
    """The piece of `length` bytes that a frame holds; its checksum is compared. Raises BadFrame."""
    decompressor = zstd.ZstdDecompressor()
    try:
        piece = decompressor.decompress(data, max_length=length + 1)
    except zstd.ZstdError as error:
        raise BadFrame(f"a frame that cannot be decompressed ({error})") from None
    # The checksum stands behind the last block and is compared only once the end of the frame is reached.
    if len(piece) != length or not decompressor.eof or decompressor.unused_data:
        raise BadFrame(f"a frame of {len(piece)} bytes of log, expected one whole frame of {length}")
    return piece
