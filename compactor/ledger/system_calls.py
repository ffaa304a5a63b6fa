"""System calls that Python lacks or leaves half done: write all bytes, sync by name, punch a hole, open without links.

A team may be able to write its whole directory. A link there would lead a daemon with more rights to another team's
file, and a pipe would make it wait for ever. So a ledger's directory is opened without following a link, everything
below it relative to the directory that holds it, and an opened file is examined before it is read, cut or locked. Which
files that is done for is left to `files` and `log_writer`.

Note: a data directory itself may be reached through links; it belongs to the operator.
"""

import errno
import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from compactor.ledger.errors import IrregularFile
from compactor.ledger.paths import LOG, POINTS, PRIVATE, SEGMENTS, STATE


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


_INNER = frozenset({STATE, POINTS, SEGMENTS, PRIVATE})
_CAREFUL = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_KINDS = (
    (stat.S_ISLNK, "a symbolic link"), (stat.S_ISDIR, "a directory"), (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"), (stat.S_ISBLK, "a device"), (stat.S_ISCHR, "a device"),
)  # fmt: skip
# What opening says of a link, of a link or file in place of a directory, of a pipe or socket, and of a directory.
_TELLING = (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EISDIR)


def open_directory(path: Path, flags: int, anchors: Mapping[Path, int]) -> int:
    """Open a directory of a ledger, relative to one of `anchors` where it lies below one; the descriptor.

    No link is followed from the ledger's directory on: neither the directory in `team/` nor one below it is a link.
    """
    names: list[str] = []
    directory = path
    while directory not in anchors and directory.name in _INNER:
        names.append(directory.name)
        directory = directory.parent
    if directory in anchors:
        descriptor = _open_one(directory, ".", flags, anchors[directory])
    else:
        below_team = directory.absolute().parent.name == "team"
        descriptor = _open_one(directory, str(directory), flags | (os.O_NOFOLLOW if below_team else 0), None)
    while names:
        name = names.pop()
        directory /= name
        try:
            inner = _open_one(directory, name, flags | os.O_NOFOLLOW, descriptor)
        finally:
            os.close(descriptor)
        descriptor = inner
    return descriptor


def _open_one(path: Path, name: str, flags: int, dir_fd: int | None) -> int:
    try:
        return os.open(name, flags | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    except OSError as error:
        explain(error, path, name, dir_fd, "a directory")


def open_file(path: Path, flags: int, dir_fd: int, mode: int = 0o600) -> int:
    """Open a file that lies in an opened directory; the descriptor, once it is known to be regular and to have one name
    only.

    Raises IrregularFile, and OSError with the whole path. Checkpoints and points may have several names.
    """
    try:
        descriptor = os.open(path.name, flags | _CAREFUL, mode, dir_fd=dir_fd)
    except OSError as error:
        explain(error, path, path.name, dir_fd, "a regular file")
    try:
        check_regular(os.fstat(descriptor), path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def check_regular(found: os.stat_result, path: Path) -> None:
    """Raise IrregularFile unless it is a regular file with one name."""
    if not stat.S_ISREG(found.st_mode):
        raise IrregularFile(errno.EINVAL, f"expected a regular file, found {describe(found)}", str(path))
    if found.st_nlink > 1 and not _may_have_names(path):
        names = f"{found.st_nlink} names: the others may lie in another ledger"
        raise IrregularFile(errno.EMLINK, f"expected a file with one name, found one with {names}", str(path))


def _may_have_names(path: Path) -> bool:
    return path.parent.name == POINTS or (path.parent.name == STATE and path.name.startswith("checkpoint."))


def describe(found: os.stat_result) -> str:
    """What kind of file it is, for people."""
    return next((kind for is_kind, kind in _KINDS if is_kind(found.st_mode)), "a regular file")


def explain(error: OSError, path: Path, name: str, dir_fd: int | None, expected: str) -> NoReturn:
    """Raise the error again with the whole path; as IrregularFile where something else than `expected` lies there."""
    if error.errno in _TELLING:
        try:
            kind = describe(os.stat(name, dir_fd=dir_fd, follow_symlinks=False))
        except OSError:
            kind = expected
        if kind != expected:
            raise IrregularFile(error.errno, f"expected {expected}, found {kind}", str(path)) from None
    raise OSError(error.errno, error.strerror, str(path)) from None


def is_too_open(found: os.stat_result, path: Path) -> bool:
    """Whether others may do anything in a directory of ours that is for its owner alone."""
    is_private = path.name in (STATE, POINTS, PRIVATE) and found.st_uid == os.geteuid()
    return is_private and found.st_mode & (stat.S_IRWXG | stat.S_IRWXO) != 0


def give_rights(descriptor: int, path: Path, directory: int) -> None:
    """Let those read a new file who can read the log beside it, and nobody but us what is private; whatever the umask.

    Without a log, everybody: the directory decides. Its group is the log's where that can be given, else no group.
    """
    if path.parent.name in (STATE, POINTS, PRIVATE):
        return  # It was made for its owner alone.
    log = f"../{LOG}" if path.parent.name == SEGMENTS else LOG
    mode = 0o644
    if path.name != LOG:
        with suppress(FileNotFoundError):
            found = os.stat(log, dir_fd=directory, follow_symlinks=False)
            mode = 0o600 | found.st_mode & 0o044
            if mode & 0o040 and found.st_gid != os.fstat(descriptor).st_gid:
                try:
                    os.fchown(descriptor, -1, found.st_gid)
                except PermissionError:
                    mode &= ~0o040
    os.fchmod(descriptor, mode)


def write_and_close(descriptor: int, parts: Iterable[bytes | bytearray], path: Path) -> None:
    """Write parts to a file, make its bytes durable, and close it whatever happens."""
    try:
        for part in parts:
            write_all(descriptor, part, path)
    except BaseException:
        os.close(descriptor)
        raise
    sync_and_close(descriptor, path)


def read_at(descriptor: int, offset: int, length: int) -> bytes:
    """Up to `length` bytes of a file from an offset on; fewer only at its end."""
    data = os.pread(descriptor, length, offset)
    while data and len(data) < length:
        more = os.pread(descriptor, length - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def find_data(descriptor: int, offset: int, path: Path) -> int:
    """Where the first bytes of a file at or behind an offset lie that take up space; its size where none do."""
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return os.fstat(descriptor).st_size
        if error.errno == errno.EINVAL:
            return offset  # The file system cannot tell: all of it counts as data.
        raise OSError(error.errno, error.strerror, str(path)) from None
