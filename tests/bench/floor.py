"""The least that any daemon has to do: `python -m tests.bench.floor DIR`, for `latency` to compare with.

Waits on inotify itself, and for every log that changed writes its pending orders again, with sync and rename.
It reads no event and derives nothing.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from pathlib import Path

_IN_MODIFY = 0x2
_EVENT = struct.Struct("iIII")


def main(data: Path) -> None:
    """Serve until killed."""
    libc = ctypes.CDLL(None, use_errno=True)
    notify = libc.inotify_init1(os.O_CLOEXEC)
    paths = {}
    for path in sorted(data.glob("team/*")):
        watch = libc.inotify_add_watch(notify, os.fsencode(path / "events.jsonl"), _IN_MODIFY)
        if watch < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch", str(path))
        paths[watch] = path
    while True:
        found = os.read(notify, 1 << 16)
        place = 0
        changed = set()
        while place < len(found):
            watch, _mask, _cookie, length = _EVENT.unpack_from(found, place)
            place += _EVENT.size + length
            changed.add(paths[watch])
        for path in changed:
            _replace(path / "pending_orders.jsonl")


def _replace(path: Path) -> None:
    data = path.read_bytes()
    new = path.with_name("floor.tmp")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.write(descriptor, data)
    os.fsync(descriptor)
    os.close(descriptor)
    new.rename(path)
    directory = os.open(path.parent, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
