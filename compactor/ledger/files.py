"""The only door to the disk: what the ledger does to files, each one system call or a loop of one.

`Files` is the real file system. Tests replace it by one that stops at any call and forgets what was not synced, so that
"stop at any system call, same bytes" is tested thousands of times. Descriptors are close-on-exec (Python's default),
because a child process would keep a lock alive.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol


class Identity(NamedTuple):
    """Which file it is, and how long it is."""

    device: int
    inode: int
    size: int


class Reader(Protocol):
    """An open file to read from."""

    def identity(self) -> Identity: ...

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes; fewer only at the end of the file."""

    def data_from(self, offset: int) -> int:
        """Where the first bytes at or behind an offset lie that take up space; the size of the file if none do."""

    def sync(self) -> None:
        """Make what can be read durable (`fdatasync`)."""

    def close(self) -> None: ...


class Files:
    """The real file system. Every method raises OSError with the file's name."""

    def identity(self, path: Path) -> Identity | None:
        """Which file lies there, or None."""
        try:
            found = os.stat(path)
        except FileNotFoundError:
            return None
        return Identity(found.st_dev, found.st_ino, found.st_size)

    def open(self, path: Path) -> Reader:
        """Open a file to read."""
        return _OpenFile(path)

    def read(self, path: Path) -> bytes | None:
        """A whole small file, or None if there is none."""
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None

    def append(self, path: Path, data: bytes) -> None:
        """Append bytes to a file, which is made if need be; not yet durable."""
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            write_all(descriptor, data, path)
        finally:
            os.close(descriptor)

    def truncate(self, path: Path, length: int) -> None:
        """Cut a derived file back. Never done to a log: its bytes may be another writer's."""
        os.truncate(path, length)

    def sync(self, path: Path) -> None:
        """Make a file's bytes and length durable."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
        finally:
            os.close(descriptor)

    def write_new(self, path: Path, parts: Iterable[bytes | bytearray]) -> None:
        """Write a file from the start and make its bytes durable; its name is not durable yet."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            for part in parts:
                write_all(descriptor, part, path)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name, in the place of what had it."""
        os.rename(source, target)

    def link(self, source: Path, target: Path) -> None:
        """Give a file one more name, which must be free."""
        os.link(source, target)

    def remove(self, path: Path) -> None:
        """Remove a file if it is there."""
        path.unlink(missing_ok=True)

    def make_directory(self, path: Path) -> None:
        """Make a directory if it is not there."""
        path.mkdir(exist_ok=True)

    def names(self, path: Path) -> list[str]:
        """The names in a directory; none where there is no directory."""
        try:
            return os.listdir(path)
        except FileNotFoundError:
            return []

    def changed(self, path: Path) -> int | None:
        """When names last came to a directory or went, in nanoseconds since 1970; None where there is none."""
        try:
            return os.stat(path).st_mtime_ns
        except FileNotFoundError:
            return None

    def punch(self, path: Path, start: int, length: int) -> bool:
        """Give the space of a range back; the bytes read as NULs then, and inode and size stay. False where the file
        system cannot, or the file may only be appended to."""
        return punch_hole(path, start, length)

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory durable."""
        self.sync(path)

    def acquire(self, path: Path) -> int | None:
        """Acquire the lock on a file that is never replaced; the descriptor, or None if another process has it."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return descriptor

    def release(self, descriptor: int) -> None:
        """Release the lock, also if a child that was forked meanwhile still has the descriptor."""
        # Closing gives it back too; the pass is done by now, and nothing that fails here can undo it.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


class _OpenFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        # Without O_NONBLOCK a pipe in the place of a file would wait for a writer for ever.
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            os.close(self._descriptor)
            raise OSError(errno.EINVAL, "expected a regular file, found a directory, pipe or device", str(path))

    def identity(self) -> Identity:
        found = os.fstat(self._descriptor)
        return Identity(found.st_dev, found.st_ino, found.st_size)

    def read(self, offset: int, length: int) -> bytes:
        data = os.pread(self._descriptor, length, offset)
        while data and len(data) < length:
            more = os.pread(self._descriptor, length - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def data_from(self, offset: int) -> int:
        try:
            return os.lseek(self._descriptor, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return os.fstat(self._descriptor).st_size
            if error.errno == errno.EINVAL:
                return offset  # The file system cannot tell: all of it counts as data.
            raise OSError(error.errno, error.strerror, str(self._path)) from None

    def sync(self) -> None:
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from None

    def close(self) -> None:
        os.close(self._descriptor)


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


def punch_hole(path: Path, start: int, length: int) -> bool:
    """`fallocate` with `FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE`, which Python does not offer: through libc."""
    # Only sealing needs it, and importing it takes a moment.
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    # The 64-bit variant, so that a 32-bit machine does not cut the offsets; musl has only one, which is 64-bit.
    call = getattr(libc, "fallocate64", None) or getattr(libc, "fallocate", None)
    if call is None:
        return False
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    try:
        descriptor = os.open(path, os.O_RDWR)
    except PermissionError as error:
        # A log that `chattr +a` protects cannot be opened so: it is kept whole.
        if error.errno == errno.EPERM:
            return False
        raise
    try:
        while call(descriptor, _KEEP_SIZE | _PUNCH_HOLE, start, length):
            number = ctypes.get_errno()
            if number in _CANNOT_PUNCH:
                return False
            if number != errno.EINTR:
                raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(descriptor)
    return True


def replace(files: Files, path: Path, parts: Iterable[bytes | bytearray]) -> None:
    """Put a new version of a file in place; returns when it will survive a power loss. Readers see the old or the new
    one, whole."""
    temporary = path.with_name(path.name + ".tmp")
    files.write_new(temporary, parts)
    files.rename(temporary, path)
    files.sync_directory(path.parent)
