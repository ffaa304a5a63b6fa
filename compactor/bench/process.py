"""Measures whole processes: wall clock, processor time, and the memory of a process together with its children.

The rule that surprises: the kernel tells the peak of single processes only. So the resident sizes of the whole tree
are added up a hundred times a second; memory that forked processes share is counted once for each of them.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import compactor

ROOT = Path(compactor.__file__).resolve().parents[1]
_POLL_S = 0.01
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Measured(NamedTuple):
    """One run of one program."""

    wall_s: float
    cpu_s: float
    peak_bytes: int


class ProgramFailed(Exception):
    """A program that was to be measured ended with an error."""


def measure(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Measured:
    """Run `command` to its end and measure it. Raises ProgramFailed with what it said on stderr."""
    env = {**os.environ, **(environment or {}), "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, env=env)
        watch = _Watch(process.pid)
        watch.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        watch.stop()
        if process.returncode:
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip()
            raise ProgramFailed(f"{' '.join(command)} ended with {process.returncode}: {said}")
    return Measured(wall_s, usage.ru_utime + usage.ru_stime, max(watch.peak_bytes, usage.ru_maxrss * 1024))


class _Watch(threading.Thread):
    """Adds up the resident sizes of a process and all below it while it lives."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid, self._ended, self.peak_bytes = pid, threading.Event(), 0

    def run(self) -> None:
        while not self._ended.wait(_POLL_S):
            self.peak_bytes = max(self.peak_bytes, sum(_resident_bytes(pid) for pid in _tree(self._pid)))

    def stop(self) -> None:
        self._ended.set()
        self.join()


def _tree(pid: int) -> list[int]:
    """The process and all below it. Children stand with the thread that forked them."""
    found = [pid]
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            children = Path(f"/proc/{pid}/task/{thread}/children").read_text()
            for child in children.split():
                found += _tree(int(child))
    return found


def _resident_bytes(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    return 0
