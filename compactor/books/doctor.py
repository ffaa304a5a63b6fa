"""Check the machine: does everything that the ledger relies on hold here, and if not, what to do.

Each check is a function that yields what it found; none changes a ledger.

Note: locks, renames and holes are tried, on a small file in `DATA/.compactor/` that is removed again, rather than
guessed from the name of the file system.
"""

from __future__ import annotations

import fcntl
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec

from compactor.core.fast import IS_COMPILED, IS_SWITCHED_OFF
from compactor.ledger import Ledger, discover
from compactor.ledger.files import Files
from compactor.ledger.paths import FINDINGS, LOG, PENDING, PRIVATE, SIGNED, STATE, TRADES

Result = Literal["ok", "warn", "fail"]

_Check = Callable[[Path], Iterator["Checked"]]
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p", "afs", "ceph", "glusterfs"})
_FREE_BYTES_MIN = 1 << 30
_TRIAL_BYTES = 1 << 20
_AHEAD_SECONDS_MAX = 5.0


class Checked(msgspec.Struct, frozen=True):
    """One thing that was looked at: what was found, and what to do where it is not `ok`."""

    check: str
    result: Result
    found: str
    advice: str | None = None


def examine(data: Path, signing_key: Path | None = None) -> list[Checked]:
    """Every check for a data directory, and for the file with the key that signs heads, if there is one.

    Never raises for one of them: what cannot be looked at is a warning.
    """
    done: list[Checked] = []
    checks = {check.__name__.strip("_"): check for check in _CHECKS}
    if signing_key is not None:
        checks["signing_key"] = partial(_signing_key, signing_key)
    for name, check in checks.items():
        try:
            done += check(data)
        except OSError as error:
            done.append(Checked(name, "warn", f"could not be looked at: {error}", "see whether this user may do that"))
    return done


def _python(_data: Path) -> Iterator[Checked]:
    yield Checked("python", "ok", f"{sys.version.split()[0]} at {sys.executable}")


def _compiled(_data: Path) -> Iterator[Checked]:
    if IS_COMPILED:
        yield Checked("compiled", "ok", "the plain case of the fold is compiled")
        return
    if IS_SWITCHED_OFF:
        yield Checked("compiled", "ok", "the compiled modules are switched off by COMPACTOR_PURE_PYTHON")
        return
    advice = (
        "install a C compiler and Python's headers, then compactor again: nothing else changes, but a fold is faster"
    )
    yield Checked("compiled", "warn", "every event goes through the rules, some twenty times as slowly", advice)


def _file_system(data: Path) -> Iterator[Checked]:
    kind = _find_file_system(data)
    advice = "keep ledgers on a local disk (ext4, XFS): a network file system may confirm a sync that did not happen"
    yield Checked("file_system", "warn" if kind in _NETWORK else "ok", kind, advice if kind in _NETWORK else None)


def _find_file_system(data: Path) -> str:
    """The type of the file system, by the longest mount point above the directory."""
    directory, best, kind = data.resolve(), -1, "unknown"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _device, point, found, *_rest = line.split()
        if directory.is_relative_to(point.replace("\\040", " ")) and len(point) >= best:
            best, kind = len(point), found
    return kind


def _inotify(data: Path) -> Iterator[Checked]:
    limits = Path("/proc/sys/fs/inotify")
    watches = int((limits / "max_user_watches").read_text())
    instances = int((limits / "max_user_instances").read_text())
    needed = sum(len(names) + 1 for _path, names, _files in os.walk(data))
    advice = f"sysctl fs.inotify.max_user_watches={max(needed * 4, 65536)}; until then logs are looked at every 2 s"
    found = f"{needed} directories to watch, {watches} watches and {instances} instances allowed"
    yield Checked("inotify", "warn" if needed * 2 > watches else "ok", found, advice if needed * 2 > watches else None)


def _trial(data: Path) -> Iterator[Checked]:
    """Lock, replace and punch, on a file of our own."""
    private = data / PRIVATE
    private.mkdir(0o700, exist_ok=True)
    path = private / f"doctor-{os.getpid()}"
    try:
        path.write_bytes(b"x" * _TRIAL_BYTES)
        yield _tried("lock", lambda: _lock(path), "the ledger is kept from two writers by flock; use a local disk")
        yield _tried("replace", lambda: _replace(path), "derived files are replaced by rename; use a local disk")
        can = Files().punch(path, 0, _TRIAL_BYTES // 2)
        advice = 'sealed history keeps its space in the log too; set reclaim = "never" to stop trying'
        found = "space of sealed history can be given back" if can else "this file system cannot punch holes"
        yield Checked("punch", "ok" if can else "warn", found, None if can else advice)
    finally:
        for left in (path, path.with_name(path.name + ".new")):
            left.unlink(missing_ok=True)


def _tried(name: str, trial: Callable[[], None], advice: str) -> Checked:
    try:
        trial()
    except OSError as error:
        return Checked(name, "fail", str(error), advice)
    return Checked(name, "ok", "works")


def _lock(path: Path) -> None:
    first, second = os.open(path, os.O_RDWR), os.open(path, os.O_RDWR)
    try:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        raise OSError("two locks on the same file were both granted")
    finally:
        os.close(first)
        os.close(second)


def _replace(path: Path) -> None:
    files, new = Files(), path.with_name(path.name + ".new")
    files.write_new(new, [path.read_bytes()])
    files.rename(new, path)
    files.sync_directory(path.parent)


def _space(data: Path) -> Iterator[Checked]:
    found = os.statvfs(data)
    free, inodes = found.f_bavail * found.f_frsize, found.f_favail
    is_low = free < _FREE_BYTES_MIN
    text = f"{free / 1e9:.1f} GB free"
    yield Checked("space", "warn" if is_low else "ok", text, "make room; nothing is lost meanwhile" if is_low else None)
    if found.f_files:
        few = inodes < 10_000
        yield Checked("inodes", "warn" if few else "ok", f"{inodes} free", "remove small files" if few else None)


def _permissions(data: Path) -> Iterator[Checked]:
    looked, bad = 0, 0
    for entry in discover(data):
        if entry.problem is not None:
            yield Checked("ledger", "fail", f"{entry.path}: {entry.problem}", "put that right; others are not affected")
            continue
        needed = [entry.path / LOG, entry.path / TRADES, entry.path / PENDING, entry.path / STATE]
        closed = [path for path in (entry.path, *needed) if path.exists() and not os.access(path, os.R_OK | os.W_OK)]
        for path in closed:
            yield Checked("permissions", "fail", f"{path}: not readable and writable", f"ls -ld {path}; chown or chmod")
        looked, bad = looked + 1, bad + len(closed)
    if not bad:
        yield Checked("permissions", "ok", f"this user may read and write {looked} ledgers")


def _modes(data: Path) -> Iterator[Checked]:
    """Nobody but the owner writes what others trust in, and what is derived is no more open than its log."""
    found = False
    for path, mask in (
        (data, 0o002),
        (data / "team", 0o002),
        (data / PRIVATE, 0o022),
        (data / PRIVATE / SIGNED, 0o022),
    ):
        if path.exists() and path.stat().st_mode & mask:
            found = True
            advice = f"chmod {'go' if mask == 0o022 else 'o'}-w {path}; whoever may write there can stand in for others"
            yield Checked("modes", "fail", f"{path}: others may write there", advice)
    for entry in discover(data):
        log = entry.path / LOG
        if entry.problem is not None or not log.exists():
            continue
        state, allowed = entry.path / STATE, log.stat().st_mode
        if state.exists() and state.stat().st_mode & 0o022:
            found = True
            yield Checked("modes", "warn", f"{state}: others may write there", f"chmod go-w {state}")
        for path in (entry.path / name for name in (TRADES, PENDING, FINDINGS)):
            if path.exists() and path.stat().st_mode & ~allowed & 0o044:
                found = True
                yield Checked("modes", "warn", f"{path}: open to more than {LOG}", f"chmod --reference={log} {path}")
    if not found:
        yield Checked("modes", "ok", "others may write nothing, and read no more than the logs")


def _signing_key(key: Path, _data: Path) -> Iterator[Checked]:
    """Nobody but its owner reads the key that signs heads; root may give it to a group."""
    status = key.stat()
    mask = 0o077 if status.st_uid == os.geteuid() else 0o007
    if status.st_mode & mask:
        found = f"{key}: mode {stat.S_IMODE(status.st_mode):04o}, so that others may use this key"
        yield Checked("signing_key", "fail", found, f"chmod 600 {key}, and make a new one with compactor keygen")
    else:
        yield Checked("signing_key", "ok", f"{key}: only its owner may read it")


def _hard_links(_data: Path) -> Iterator[Checked]:
    """Without this setting, a team can give another's file one more name and so stop that ledger."""
    setting = "fs.protected_hardlinks"
    found = Path("/proc/sys", *setting.split(".")).read_text().strip()
    advice = None if found == "1" else f"sysctl {setting}=1: then users may link only files that they may write"
    yield Checked("hard_links", "warn" if advice else "ok", f"{setting} = {found}", advice)


def _leftovers(data: Path) -> Iterator[Checked]:
    for entry in discover(data):
        for path in sorted((entry.path / STATE).glob("*.damaged")):
            advice = "the other checkpoint or the log served instead; look why the disk changed it, then remove it"
            yield Checked("leftover", "warn", str(path), advice)


def _clock(data: Path) -> Iterator[Checked]:
    now, wrong = time.time(), 0
    for entry in discover(data):
        if entry.problem is not None:
            continue
        with Ledger(entry.path, team_id=entry.team_id) as ledger:
            last = ledger.status().last_event_at
        if last and (ahead := datetime.fromisoformat(last).timestamp() - now) > _AHEAD_SECONDS_MAX:
            wrong += 1
            found = f"{entry.path}: its last event is {ahead:.0f} s in the future"
            yield Checked(
                "clock", "warn", found, "set this machine's clock (timedatectl set-ntp true), or that writer's"
            )
    if not wrong:
        yield Checked("clock", "ok", "no event lies in its future")


def _ledgers(data: Path) -> Iterator[Checked]:
    try:
        yield from _clock(data)
    except Exception as error:
        # A ledger that cannot be read says so in its own words.
        yield Checked("ledger", "fail", str(error), "see compactor status")


_CHECKS: tuple[_Check, ...] = (
    _python, _compiled, _file_system, _inotify, _trial, _space, _permissions, _modes, _hard_links, _leftovers, _ledgers,
)  # fmt: skip
