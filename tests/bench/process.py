"""Measures whole processes: wall clock, processor time, and the memory of a process together with its children.

Note: the kernel tells the peak of single processes only. So the resident sizes of the whole tree
are added up a hundred times a second; memory that forked processes share is counted once for each of them. The
`ru_maxrss` of wait4 is of no use here: a process inherits it from the one that started it.
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
    return Measured(wall_s, usage.ru_utime + usage.ru_stime, watch.peak_bytes)


class _Watch(threading.Thread):
    """Adds up the resident sizes of a process and all below it while it lives."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid, self._ended, self.peak_bytes = pid, threading.Event(), 0

    def run(self) -> None:
        while not self._ended.wait(_POLL_S):
            sizes = [_sizes_bytes(pid) for pid in _tree(self._pid)]
            # The highest that a single process ever had fills in what lay between two looks.
            together, highest = sum(now for now, _ in sizes), max(most for _, most in sizes)
            self.peak_bytes = max(self.peak_bytes, together, highest)

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


def _sizes_bytes(pid: int) -> tuple[int, int]:
    """The resident size of a process now, and the highest it had."""
    with suppress(OSError, KeyError):
        status = Path(f"/proc/{pid}/status").read_text()
        found = dict(line.split(":", 1) for line in status.splitlines() if line.startswith(("VmRSS", "VmHWM")))
        now, highest = (int(found[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
        return now, highest
    return 0, 0
