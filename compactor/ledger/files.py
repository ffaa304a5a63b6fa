"""The only door to the disk: what the ledger does to files, each one system call or a loop of one.

`Files` is the real file system. Tests replace it by one that stops at any call and forgets what was not synced, so that
"stop at any system call, same bytes" is tested thousands of times. Descriptors are close-on-exec (Python's default),
because a child process would keep a lock alive.
"""

import errno
import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol

from compactor.ledger.errors import IrregularFile
from compactor.ledger.paths import SEGMENTS
from compactor.ledger.system_calls import (
    check_regular,
    find_data,
    give_rights,
    is_too_open,
    open_directory,
    open_file,
    punch_hole,
    read_at,
    sync_and_close,
    write_all,
    write_and_close,
)

SMALL_BYTES_MAX = 1 << 26
"""What `Files.read` reads at most: seals, heads, locks and what the daemon last said are far smaller."""
_PIECE_BYTES = 1 << 20


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
    """The real file system. Every method raises OSError with the file's name; IrregularFile where a link, a pipe or
    the like lies in place of a file. Not safe for several threads at once."""

    _anchors: Mapping[Path, int] = MappingProxyType({})
    """The descriptors of the directories that are kept open."""

    @contextmanager
    def within(self, directory: Path) -> Iterator[None]:
        """Keep a ledger's directory open: all paths below it are opened relative to it, even if it is moved away."""
        if directory in self._anchors:
            yield
            return
        before, descriptor = self._anchors, open_directory(directory, os.O_PATH, {})
        self._anchors = {**before, directory: descriptor}
        try:
            yield
        finally:
            self._anchors = before
            os.close(descriptor)

    @contextmanager
    def _directory(self, path: Path, flags: int = os.O_PATH) -> Iterator[int]:
        """The descriptor of a directory."""
        if path in self._anchors and flags == os.O_PATH:
            yield self._anchors[path]
            return
        descriptor = open_directory(path, flags, self._anchors)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def _parent(self, path: Path) -> Iterator[int]:
        """The descriptor of the directory that holds a file; errors raised meanwhile get the file's whole path."""
        with self._directory(path.parent) as directory:
            try:
                yield directory
            except IrregularFile:
                raise
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(path)) from None

    def _open(self, path: Path, flags: int) -> int:
        with self._parent(path) as directory:
            return open_file(path, flags, directory)

    def identity(self, path: Path) -> Identity | None:
        """Which file lies there, or None."""
        try:
            with self._parent(path) as directory:
                found = os.stat(path.name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return None
        check_regular(found, path)
        return Identity(found.st_dev, found.st_ino, found.st_size)

    def open(self, path: Path) -> Reader:
        """Open a file to read."""
        return _OpenFile(path, self._open(path, os.O_RDONLY))

    def read(self, path: Path, limit: int = SMALL_BYTES_MAX) -> bytes | None:
        """A whole small file, or None if there is none. One above the limit is refused before anything is read."""
        try:
            reader = self.open(path)
        except FileNotFoundError:
            return None
        try:
            size = reader.identity().size
            if size > limit:
                raise OSError(errno.EOVERFLOW, f"expected a file of at most {limit} bytes, found {size}", str(path))
            return reader.read(0, limit)
        finally:
            reader.close()

    def read_private(self, path: Path, limit: int) -> tuple[bytes, os.stat_result]:
        """The first bytes of a file that may be a secret, up to a limit, and whose it is and who may read it."""
        descriptor = self._open(path, os.O_RDONLY)
        try:
            return read_at(descriptor, 0, limit), os.fstat(descriptor)
        finally:
            os.close(descriptor)

    def holds(self, path: Path, data: bytes) -> bool:
        """Whether a file is there and holds exactly these bytes."""
        try:
            reader = self.open(path)
        except FileNotFoundError:
            return False
        try:
            # Compared in pieces, and only where the length fits: whatever lies there costs no memory.
            return reader.identity().size == len(data) and all(
                reader.read(start, _PIECE_BYTES) == data[start : start + _PIECE_BYTES]
                for start in range(0, len(data), _PIECE_BYTES)
            )
        finally:
            reader.close()

    def append(self, path: Path, data: bytes) -> None:
        """Append bytes to a file, which is made if need be; not yet durable."""
        descriptor = self.open_or_create(path, os.O_WRONLY | os.O_APPEND)
        try:
            write_all(descriptor, data, path)
        finally:
            os.close(descriptor)

    def open_or_create(self, path: Path, flags: int) -> int:
        """Open a file, or make it with the rights that are due to it; the descriptor."""
        with self._parent(path) as directory:
            while True:
                try:
                    return open_file(path, flags, directory)
                except FileNotFoundError:
                    with suppress(FileExistsError):
                        return self._create(path, flags, directory)

    def _create(self, path: Path, flags: int, directory: int) -> int:
        """Make a file that is not there, whose rights do not depend on the umask."""
        descriptor = open_file(path, flags | os.O_CREAT | os.O_EXCL, directory)
        try:
            give_rights(descriptor, path, directory)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def create_private(self, path: Path, data: bytes) -> None:
        """Make a file that is not there, for its owner alone; returns when it and its name are durable.

        An empty file, which a run that was killed leaves, is replaced. Raises FileExistsError; whatever else it raises,
        no half of a file stays.
        """
        if (found := self.identity(path)) is not None and found.size == 0:
            self.remove(path)
        with self._parent(path) as directory:
            descriptor = open_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, directory)
        try:
            write_and_close(descriptor, [data], path)
            self.sync_directory(path.parent)
        except OSError:
            with suppress(OSError):
                self.remove(path)
            raise

    def truncate(self, path: Path, length: int) -> None:
        """Cut a derived file back. Never done to a log: its bytes may be another writer's."""
        with self._parent(path) as directory:
            descriptor = open_file(path, os.O_WRONLY, directory)
            try:
                os.ftruncate(descriptor, length)
            finally:
                os.close(descriptor)

    def sync(self, path: Path) -> None:
        """Make a file's bytes and length durable."""
        sync_and_close(self._open(path, os.O_RDONLY), path)

    def write_new(self, path: Path, parts: Iterable[bytes | bytearray]) -> None:
        """Write a file from the start and make its bytes durable; its name is not durable yet.

        What has the name is removed first, and never written to: it may be a link, or another name of a file.
        """
        with self._parent(path) as directory:
            with suppress(FileNotFoundError):
                os.unlink(path.name, dir_fd=directory)
            descriptor = self._create(path, os.O_WRONLY, directory)
        write_and_close(descriptor, parts, path)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name, in the place of what had it."""
        with self._parent(source) as old, self._directory(target.parent) as new:
            os.rename(source.name, target.name, src_dir_fd=old, dst_dir_fd=new)

    def link(self, source: Path, target: Path) -> None:
        """Give a file one more name, which must be free."""
        with self._parent(source) as old, self._directory(target.parent) as new:
            os.link(source.name, target.name, src_dir_fd=old, dst_dir_fd=new, follow_symlinks=False)

    def remove(self, path: Path) -> None:
        """Remove a file if it is there."""
        with suppress(FileNotFoundError), self._parent(path) as directory:
            os.unlink(path.name, dir_fd=directory)

    def make_directory(self, path: Path) -> bool:
        """Make a directory if it is not there; whether it is new. It is for its owner alone, segments are for all.

        One that an earlier version made more open is closed to others.
        """
        with self._parent(path) as directory:
            try:
                os.mkdir(path.name, 0o700, dir_fd=directory)
            except FileExistsError:
                with self._directory(path) as found:
                    if is_too_open(os.fstat(found), path):
                        with self._directory(path, os.O_RDONLY) as owned:
                            os.fchmod(owned, 0o700)
                return False
        if path.name == SEGMENTS:
            with self._directory(path, os.O_RDONLY) as made:
                os.fchmod(made, 0o755)
        return True

    def names(self, path: Path) -> list[str]:
        """The names in a directory; none where there is no directory."""
        try:
            with self._directory(path, os.O_RDONLY) as directory:
                return os.listdir(directory)
        except FileNotFoundError:
            return []

    def changed(self, path: Path) -> int | None:
        """When names last came to a directory or went, in nanoseconds since 1970; None where there is none."""
        try:
            with self._directory(path) as directory:
                return os.fstat(directory).st_mtime_ns
        except FileNotFoundError:
            return None

    def punch(self, path: Path, start: int, length: int) -> bool:
        """Give the space of a range back; the bytes read as NULs then, and inode and size stay. False where the file
        system cannot, or the file may only be appended to."""
        try:
            descriptor = self._open(path, os.O_RDWR)
        except PermissionError as error:
            # A log that `chattr +a` protects cannot be opened so: it is kept whole.
            if error.errno == errno.EPERM:
                return False
            raise
        try:
            return punch_hole(descriptor, path, start, length)
        finally:
            os.close(descriptor)

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory durable."""
        sync_and_close(open_directory(path, os.O_RDONLY, self._anchors), path)

    def acquire(self, path: Path) -> int | None:
        """Acquire the lock on a file that is never replaced; the descriptor, or None if another process has it."""
        descriptor = self.open_or_create(path, os.O_RDWR)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            # Closing releases the lock too, which would else be held by a process that does not know it.
            os.close(descriptor)
            raise OSError(error.errno, error.strerror, str(path)) from None
        return descriptor

    def release(self, descriptor: int) -> None:
        """Release the lock, also if a child that was forked meanwhile still has the descriptor."""
        # Closing releases it too; the pass is done by now, and nothing that fails here can undo it.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


class _OpenFile:
    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def identity(self) -> Identity:
        found = os.fstat(self._descriptor)
        return Identity(found.st_dev, found.st_ino, found.st_size)

    def read(self, offset: int, length: int) -> bytes:
        return read_at(self._descriptor, offset, length)

    def data_from(self, offset: int) -> int:
        return find_data(self._descriptor, offset, self._path)

    def sync(self) -> None:
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from None

    def close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def __del__(self) -> None:
        # Who forgets a reader must not cost a process that lives long its descriptors.
        self.close()


def replace(files: Files, path: Path, parts: Iterable[bytes | bytearray], *, durable: bool = True) -> None:
    """Put a new version of a file in place; returns when it will survive a power loss. Readers see the old or the new
    one, whole. A version that fails half way leaves nothing behind. Without `durable` its name may be lost."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        files.write_new(temporary, parts)
        files.rename(temporary, path)
    except OSError:
        # What is half written must not keep a full disk full.
        with suppress(OSError):
            files.remove(temporary)
        raise
    if durable:
        files.sync_directory(path.parent)
