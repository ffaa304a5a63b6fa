"""Run long work in a separate process: long passes, and sealing.

An errand is the same command that a person would run (`compactor compact`, `compactor seal`). Note: its result is the
output of `--json`.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import msgspec

NICENESS = 10
"""An errand yields the processor to the loop, which serves all other ledgers."""
MEMORY_BYTES_MAX = 2 << 30
"""What an errand may allocate. The fold of ten million events takes 84 MB."""
SECONDS_MAX = 3600.0
"""How long an errand may run. A pass commits on its way, so the next errand goes on where this one was stopped."""

LOCK_SECONDS_MAX = 60
"""How long a seal waits for the ledger's lock, which the passes of the loop hold now and then."""

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Errand:
    """A started command."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.started = time.monotonic()
        self._out: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        # Its own session: the daemon handles Ctrl-C and stops its errands itself.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "compactor", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._errors,
            start_new_session=True,
        )
        self._limit()

    def _limit(self) -> None:
        pid = self._process.pid
        try:
            os.setpriority(os.PRIO_PROCESS, pid, NICENESS)
            resource.prlimit(pid, resource.RLIMIT_DATA, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
        except (OSError, ValueError):
            # It has ended already, or the machine allows it less than this.
            return

    @property
    def is_over(self) -> bool:
        """Whether the command has ended; one that runs for too long is stopped."""
        if time.monotonic() - self.started > SECONDS_MAX:
            self._process.kill()
        return self._process.poll() is not None

    def read_results(self) -> tuple[list[dict[str, Any]], str]:
        """The objects that it printed and the text on standard error; call it once the command has ended."""
        rows = []
        for line in _read_all(self._out).splitlines():
            try:
                rows.append(_decode(line))
            except msgspec.DecodeError:
                continue
        said = _read_all(self._errors).decode(errors="replace").strip()
        return rows, said or f"it ended with exit code {self._process.returncode} and said nothing"

    def stop(self, deadline: float) -> None:
        """Stop it; its ledgers stay at their last commit. Returns by the monotonic `deadline`."""
        if self.is_over:
            return
        self._process.terminate()
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def make_compact_arguments(path: Path, retention_days: int | None) -> list[str]:
    """The command that compacts one ledger without a limit and writes a checkpoint."""
    days = "forever" if retention_days is None else str(retention_days)
    return ["compact", str(path), "--json", "--checkpoint", "--workers", "1", "--retention-days", days]


def make_seal_arguments(data: Path, team_id: str | None, config: Path | None) -> list[str]:
    """The command that seals one ledger; without a team, the data directory's own ledger and those of its teams."""
    team = ["--team", team_id] if team_id is not None else []
    return [
        "seal",
        str(data),
        "--json",
        "--wait-seconds",
        str(LOCK_SECONDS_MAX),
        *team,
        *(["--config", str(config)] if config is not None else []),
    ]


def _read_all(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()
