"""Append to many logs that stay open, for a writer that runs all day: first all writes, then all syncs.

The caller checks the lines. Each log gets one `write`, by the rules of `log_writer`. All syncs start at once, because a
file system makes one commit of them: for 20 logs that took 4 ms instead of 116. Invariant: a descriptor is used only
while its path still leads to the same file, and never again after a failed sync, because the kernel then marks pages as
clean that never reached the disk.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from compactor.ledger.errors import LedgerError, from_os
from compactor.ledger.files import Files
from compactor.ledger.log_writer import make_ledger, sync_names, write_lines
from compactor.ledger.paths import LOG

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

OPEN_MAX = 256
"""How many stay open between two batches."""
SYNCS_AT_ONCE = 8


class _Open(Struct):
    descriptor: int
    device: int
    inode: int
    is_new: bool


class OpenLogs:
    """The logs that are open. Not safe for several threads at once; other processes may append to the same logs."""

    def __init__(self) -> None:
        self._logs: dict[Path, _Open] = {}
        self._threads: ThreadPoolExecutor | None = None

    def append(self, batch: Mapping[Path, bytes]) -> dict[Path, LedgerError]:
        """Append whole lines to the logs of the ledgers at these paths, which are made if need be.

        Returns when all is durable, with the error of each ledger for which it is not; of such a one a part may have
        been written.
        """
        failed: dict[Path, LedgerError] = {}
        written: list[Path] = []
        for path, lines in batch.items():
            try:
                write_lines(self._log(path).descriptor, lines, path / LOG)
                written.append(path)
            except OSError as error:
                failed[path] = self._fail(path, error)
        for path, problem in zip(written, self._sync_all(written), strict=True):
            if problem is not None:
                failed[path] = self._fail(path, problem)
        while len(self._logs) > OPEN_MAX:
            self._forget(next(iter(self._logs)))
        return failed

    def _sync_all(self, paths: list[Path]) -> list[OSError | None]:
        if len(paths) < 2:
            return [self._sync(path) for path in paths]
        if self._threads is None:
            from concurrent.futures import ThreadPoolExecutor

            self._threads = ThreadPoolExecutor(SYNCS_AT_ONCE, thread_name_prefix="log-sync")
        return list(self._threads.map(self._sync, paths))

    def _sync(self, path: Path) -> OSError | None:
        log = self._logs[path]
        try:
            os.fdatasync(log.descriptor)
            if log.is_new:
                sync_names(path)
                log.is_new = False
        except OSError as error:
            return error
        return None

    def close(self) -> None:
        """Close them all."""
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None
        for path in list(self._logs):
            self._forget(path)

    def _log(self, path: Path) -> _Open:
        log = self._logs.get(path)
        if log is not None and not _is_at(path / LOG, log):
            self._forget(path)
            log = None
        if log is None:
            log = self._logs[path] = _opened(path)
        return log

    def _fail(self, path: Path, error: OSError) -> LedgerError:
        self._forget(path)
        return from_os(path / LOG, error, "appending what the broker told", "it is written then")

    def _forget(self, path: Path) -> None:
        log = self._logs.pop(path, None)
        if log is not None:
            os.close(log.descriptor)


def _opened(path: Path) -> _Open:
    make_ledger(path)
    descriptor, is_new = Files().open_or_create(path / LOG, os.O_RDWR | os.O_APPEND)
    found = os.fstat(descriptor)
    return _Open(descriptor, found.st_dev, found.st_ino, is_new)


def _is_at(log: Path, opened: _Open) -> bool:
    try:
        found = os.lstat(log)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (opened.device, opened.inode)
