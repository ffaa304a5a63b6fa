"""Work that would hold up the loop, done by a process of its own: long passes, and sealing.

An errand is the very command that a person would give (`compactor compact`, `compactor seal`), so there is nothing
here that cannot be done by hand. The rule that surprises: its result comes back as the lines of `--json`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import msgspec

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Errand:
    """A command that was started. `what` says for whom; it is for the caller alone."""

    def __init__(self, what: object, arguments: Sequence[str]) -> None:
        self.what = what
        self.started = time.monotonic()
        self._out: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        # A session of its own: Ctrl-C is for the daemon, which ends its errands in good order.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "compactor", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._errors,
            start_new_session=True,
        )

    @property
    def is_over(self) -> bool:
        """Whether the command has ended."""
        return self._process.poll() is not None

    def results(self) -> tuple[list[dict[str, Any]], str]:
        """The objects that it printed, and what it said on standard error; once it is over."""
        rows = []
        for line in _whole(self._out).splitlines():
            try:
                rows.append(_decode(line))
            except msgspec.DecodeError:
                continue
        said = _whole(self._errors).decode(errors="replace").strip()
        return rows, said or f"it ended with exit code {self._process.returncode} and said nothing"

    def stop(self, deadline: float) -> None:
        """End it: its ledgers then stand at their last commit. Returns by the monotonic `deadline`."""
        if self.is_over:
            return
        self._process.terminate()
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def compact_arguments(path: Path, retention_days: int | None) -> list[str]:
    """The command that compacts one ledger, however long that takes, and leaves a checkpoint."""
    days = "forever" if retention_days is None else str(retention_days)
    return ["compact", str(path), "--json", "--checkpoint", "--workers", "1", "--retention-days", days]


def _whole(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()
