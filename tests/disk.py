"""A file system in memory that stops at any call, fails at any call, and forgets at a power loss what was not synced.

It stands in for `compactor.ledger.files.Files`, call for call, so that the commit protocol can be stopped at each of
its steps thousands of times. What it models is what files were measured to do: appended bytes survive as any prefix
until the file is synced, and a new name survives only once its directory is synced, a new directory once the one above
it is.
"""

import copy
import errno
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from compactor.ledger.files import SMALL_BYTES_MAX, Files, Identity


class Stopped(BaseException):
    """The process died here; nothing that it does after this has any effect."""


class Inode:
    """A file without its name: what it holds, and what of that would survive a power loss."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.data = b""
        self.durable = b""
        self.holes: list[tuple[int, int]] = []
        self.durable_holes: list[tuple[int, int]] = []

    def sync(self) -> None:
        """What it holds now will survive."""
        self.durable, self.durable_holes = self.data, list(self.holes)

    def copy(self) -> "Inode":
        twin = copy.copy(self)
        twin.holes, twin.durable_holes = list(self.holes), list(self.durable_holes)
        return twin

    @property
    def state(self) -> tuple[object, ...]:
        """All there is to it."""
        return self.number, self.data, self.durable, self.holes, self.durable_holes

    def punched(self, data: bytes) -> bytes:
        """Some bytes of this file with NULs where holes are."""
        for start, end in self.holes:
            data = data[:start] + bytes(end - start) + data[end:]
        return data


class Disk(Files):
    """Files in memory. `stop_at` kills the process at that call, `fail_at` makes it fail with `error`; calls count
    from 1."""

    def __init__(self) -> None:
        self._names: dict[Path, Inode] = {}
        self._durable_names: dict[Path, Inode] = {}
        self._directories: dict[Path, bool] = {}
        self._changes: dict[Path, int] = {}
        self._made = 0
        self._locked = False
        self._dead = False
        self.calls = 0
        self.stop_at = 0
        self.fail_at = 0
        self.error = errno.ENOSPC
        self.can_punch = True
        self._left: list[tuple[int, Disk]] | None = None

    # The world around the process.

    def put(self, path: Path, data: bytes) -> None:
        """Another process makes a file what it is; durable at once, the same file if it was there."""
        inode = self._names.get(path) or self._new(path)
        inode.data = inode.durable = data
        self._durable_names[path] = inode

    def grow(self, path: Path, data: bytes) -> None:
        """Another process appends to a file until it is this, and syncs nothing."""
        inode = self._names[path]
        assert data.startswith(inode.data)
        inode.data = data

    def take(self, path: Path) -> bytes | None:
        """What a file holds, without this counting as a call."""
        inode = self._names.get(path)
        return inode.data if inode is not None else None

    def drop(self, path: Path) -> None:
        """Another process removes a file."""
        self._names.pop(path, None)
        self._durable_names.pop(path, None)
        self._touch(path.parent)

    def all_files(self) -> dict[Path, bytes]:
        """Every file and what it holds, without this counting as a call."""
        return {path: inode.data for path, inode in self._names.items()}

    def restart(self) -> None:
        """A new process starts on the same machine."""
        self.calls = self.stop_at = self.fail_at = 0
        self._dead = self._locked = False

    def lose_power(self, keep: float) -> None:
        """The machine restarts: of what was not synced only the given part of each file is left."""
        lost = {path for path, durable in self._directories.items() if not durable}
        self._directories = {path: True for path in self._directories if path not in lost}
        self._changes = {path: changes for path, changes in self._changes.items() if path not in lost}
        self._durable_names = {path: one for path, one in self._durable_names.items() if path.parent not in lost}
        self._names = dict(self._durable_names)
        for inode in self._names.values():
            grew = inode.data.startswith(inode.punched(inode.durable))
            rest = inode.data[len(inode.durable) :] if grew else b""
            # That a hole was punched may be forgotten too: then its bytes are back.
            inode.holes = inode.durable_holes = inode.holes if keep >= 0.5 else inode.durable_holes
            inode.data = inode.durable = inode.punched(inode.durable + rest[: int(len(rest) * keep)])
        self.restart()

    def copy(self) -> "Disk":
        """Another disk with the same on it."""
        twin = copy.copy(self)
        twins = {one.number: one.copy() for one in (*self._names.values(), *self._durable_names.values())}
        twin._names = {path: twins[one.number] for path, one in self._names.items()}
        twin._durable_names = {path: twins[one.number] for path, one in self._durable_names.items()}
        twin._directories, twin._changes = dict(self._directories), dict(self._changes)
        return twin

    def list_stops(self, act: Callable[["Disk"], object]) -> list[tuple[int, "Disk"]]:
        """What a process that acts on this disk would leave if it were stopped at a call: the number of the call and
        the disk, for each call. Stopped at a call that follows one that only reads it leaves the same, and that stands
        here once. The process runs once, on a copy of this disk, to its end.
        """
        twin = self.copy()
        twin.restart()
        twin._left = []
        act(twin)
        return [
            one
            for number, one in enumerate(twin._left)
            if not number or one[1]._state != twin._left[number - 1][1]._state
        ]

    @property
    def _state(self) -> tuple[object, ...]:
        names, durable = (
            {path: one.state for path, one in names.items()} for names in (self._names, self._durable_names)
        )
        return names, durable, self._directories, self._changes, self._made

    def _new(self, path: Path) -> Inode:
        self._made += 1
        inode = self._names[path] = Inode(self._made)
        self._touch(path.parent)
        return inode

    def _touch(self, directory: Path) -> None:
        self._changes[directory] = self._changes.get(directory, 0) + 1

    def call(self, path: Path, half: Callable[["Disk"], None] | None = None) -> None:
        """Count a call; the one that stops or fails does half of what it was to do to a disk."""
        if self._dead:
            raise Stopped
        self.calls += 1
        if self._left is not None:
            left = self.copy()
            left._left = None
            if half is not None:
                half(left)
            left.restart()
            self._left.append((self.calls, left))
        if self.calls not in (self.stop_at, self.fail_at):
            return
        if half is not None:
            half(self)
        if self.calls == self.stop_at:
            self._dead = True
            raise Stopped
        raise OSError(self.error, "no luck", str(path))

    def _add(self, path: Path, data: bytes) -> None:
        inode = self._names.get(path) or self._new(path)
        inode.data += data

    # What the ledger calls.

    @contextmanager
    def within(self, directory: Path) -> Iterator[None]:
        """There are no directories to keep open."""
        yield

    def identity(self, path: Path) -> Identity | None:
        if self._dead:
            raise Stopped
        inode = self._names.get(path)
        return Identity(1, inode.number, len(inode.data)) if inode is not None else None

    def open(self, path: Path) -> "DiskReader":
        self.call(path)
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return DiskReader(self, path, self._names[path])

    def read(self, path: Path, limit: int = SMALL_BYTES_MAX) -> bytes | None:
        self.call(path)
        return self.take(path)

    def append(self, path: Path, data: bytes) -> None:
        self.call(path, _half_of(path, data))
        self._add(path, data)

    def create_private(self, path: Path, data: bytes) -> None:
        self.call(path)
        if self._names.get(path, Inode(0)).data:
            raise FileExistsError(errno.EEXIST, "File exists", str(path))
        inode = self._new(path)
        try:
            self.call(path, _half_of(path, data))
            inode.data = data
            self.call(path)
            inode.sync()
            self.sync_directory(path.parent)
        except OSError:
            self._names.pop(path, None)
            raise

    def truncate(self, path: Path, length: int) -> None:
        self.call(path)
        inode = self._names[path]
        inode.data, inode.durable = inode.data[:length], inode.durable[:length]

    def sync(self, path: Path) -> None:
        self.call(path)
        self._names[path].sync()

    def write_new(self, path: Path, parts: Iterable[bytes | bytearray]) -> None:
        data = b"".join(parts)
        self.call(path)
        inode = self._new(path)
        self.call(path, _half_of(path, data))
        inode.data = data
        self.call(path)
        inode.durable = data

    def rename(self, source: Path, target: Path) -> None:
        self.call(source)
        self._names[target] = self._names.pop(source)
        self._touch(target.parent)

    def link(self, source: Path, target: Path) -> None:
        self.call(source)
        self._names[target] = self._names[source]
        self._touch(target.parent)

    def remove(self, path: Path) -> None:
        self.call(path)
        self._names.pop(path, None)
        self._touch(path.parent)

    def make_directory(self, path: Path) -> bool:
        self.call(path)
        is_new = path not in self._directories
        self._directories.setdefault(path, False)
        return is_new

    def names(self, path: Path) -> list[str]:
        self.call(path)
        return [name.name for name in self._names if name.parent == path]

    def changed(self, path: Path) -> int | None:
        self.call(path)
        return self._changes.get(path)

    def punch(self, path: Path, start: int, length: int) -> bool:
        # Stopped in the middle, some whole blocks of the range are given back.
        middle = start + length // 2 // 4096 * 4096
        self.call(path, (lambda disk: disk._punch(path, start, middle)) if self.can_punch else None)
        if self.can_punch:
            self._punch(path, start, start + length)
        return self.can_punch

    def _punch(self, path: Path, start: int, end: int) -> None:
        inode = self._names[path]
        inode.holes.append((start, end))
        inode.data = inode.punched(inode.data)

    def sync_directory(self, path: Path) -> None:
        self.call(path)
        self._directories.update({one: True for one in self._directories if one.parent == path})
        below = {name: inode for name, inode in self._names.items() if name.parent == path}
        kept = {name: inode for name, inode in self._durable_names.items() if name.parent != path}
        self._durable_names = {**kept, **below}

    def acquire(self, path: Path) -> int | None:
        self.call(path)
        if self._locked:
            return None
        self._locked = True
        return 3

    def release(self, descriptor: int) -> None:
        if self._dead:
            raise Stopped
        self._locked = False


def _half_of(path: Path, data: bytes) -> Callable[[Disk], None]:
    """What is left of an append that is stopped or fails."""
    return lambda disk: disk._add(path, data[: len(data) // 2])


class DiskReader:
    """An open file of a Disk; it stays the same file when its name goes to another."""

    def __init__(self, disk: Disk, path: Path, inode: Inode) -> None:
        self._disk = disk
        self._path = path
        self._inode = inode

    def identity(self) -> Identity:
        return Identity(1, self._inode.number, len(self._inode.data))

    def read(self, offset: int, length: int) -> bytes:
        self._disk.call(self._path)
        return self._inode.data[offset : offset + length]

    def data_from(self, offset: int) -> int:
        self._disk.call(self._path)
        for start, end in sorted(self._inode.holes):
            if start <= offset < end:
                offset = end
        return offset

    def sync(self) -> None:
        self._disk.call(self._path)
        self._inode.sync()

    def close(self) -> None:
        pass
