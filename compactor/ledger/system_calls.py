"""System calls that Python lacks or leaves half done: writing all bytes, syncing by name, punching a hole.

Which files they are called for is left to `files` and `log_writer`.
"""

import errno
import os
from pathlib import Path


def write_all(descriptor: int, data: bytes | bytearray, path: Path) -> None:
    """Write all of it, going on after a short write; the error that stops it carries the file's name."""
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02
_CANNOT_PUNCH = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM)


def punch_hole(descriptor: int, path: Path, start: int, length: int) -> bool:
    """`fallocate` with `FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE`, which Python does not offer: through libc."""
    # Only sealing needs it, and importing it takes a moment.
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    # The 64-bit variant, so that a 32-bit machine does not cut the offsets; musl has only one, which is 64-bit.
    call = getattr(libc, "fallocate64", None) or getattr(libc, "fallocate", None)
    if call is None:
        return False
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    while call(descriptor, _KEEP_SIZE | _PUNCH_HOLE, start, length):
        number = ctypes.get_errno()
        if number in _CANNOT_PUNCH:
            return False
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number), str(path))
    return True


def sync_and_close(descriptor: int, path: Path) -> None:
    """Make what was opened durable, and close it."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(descriptor)
