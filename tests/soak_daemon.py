"""The daemon of the soak, as an operator has it: started, killed, ended, and given less room than it needs.

Its messages go to a file through a pipe, as they go to a journal, so that a limit of its files does not silence it.
Note: the limit (`RLIMIT_FSIZE`) is put on the running process and taken off again, so that its disk is full
for a while and then is not, and the daemon has to go on by itself.
"""

import os
import resource
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random

from tests.soak_writers import ROOT

SEGMENT_BYTES = 200_000
PATIENCE_S = 60
"""Not a promise about time: only how long to wait before saying that something never ended."""


def environment(retention: str) -> dict[str, str]:
    """The environment of the product's commands: small segments, and a retention on which nothing may depend."""
    settings = {"COMPACTOR_SEGMENT_BYTES": str(SEGMENT_BYTES), "COMPACTOR_RETENTION_DAYS": retention}
    return {**os.environ, **settings}


class Daemon:
    """`compactor watch` on a data directory; `wrong` collects what it must never do."""

    def __init__(self, data: Path, messages: Path, chance: Random, counts: Counter[str]) -> None:
        self._data, self._messages, self._chance, self._counts = data, messages, chance, counts
        self._process: subprocess.Popen[bytes] | None = None
        self._limited = False
        self.wrong: list[str] = []
        with messages.open("ab") as file:
            self._journal = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file, start_new_session=True)

    def start(self) -> None:
        """Start it with a random retention."""
        command = [sys.executable, "-m", "compactor", "watch", str(self._data)]
        env = environment(self._chance.choice(["0", "7", "forever"]))
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._journal.stdin
        )
        self._limited = False
        self._counts["daemon_starts"] += 1

    def look(self) -> None:
        """Start it again if it has ended; that it ended by itself is wrong unless its files were limited."""
        if self._process is None or self._process.poll() is None:
            return
        self._counts["daemon_ended_by_itself"] += 1
        if not self._limited:
            self.wrong.append(f"the daemon ended by itself with {self._process.returncode}: see {self._messages}")
        self.start()

    def kill(self) -> None:
        """`kill -9`, and start again."""
        self._end(signal.SIGKILL)
        self._counts["daemon_kills"] += 1
        self.start()

    def terminate(self) -> None:
        """SIGTERM, and start again."""
        self.stop()
        self.start()

    def stop(self) -> None:
        """SIGTERM, which is an expected end: exit code 0, also when its disk is full."""
        code = self._end(signal.SIGTERM)
        self._counts["daemon_terms"] += 1
        # Before it has begun, the signal ends Python itself.
        if code not in (0, -signal.SIGTERM):
            self.wrong.append(f"the daemon ended on SIGTERM with {code}, expected 0: see {self._messages}")

    def limit(self, file_bytes: int | None) -> None:
        """Let no file of it grow beyond so many bytes; None takes the limit off."""
        if self._process is None:
            return
        soft = resource.RLIM_INFINITY if file_bytes is None else file_bytes
        # It may have ended meanwhile, which `look` judges.
        with suppress(ProcessLookupError):
            resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))
        self._limited = self._limited or file_bytes is not None
        self._counts["daemon_limits"] += file_bytes is not None

    def _end(self, how: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(how)
        try:
            return self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.wrong.append(f"the daemon did not end within {PATIENCE_S} s of {how.name}: see {self._messages}")
            self._process.kill()
            return self._process.wait()

    def close(self) -> None:
        """End what is still running."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        assert self._journal.stdin is not None
        self._journal.stdin.close()
        # A pass that the daemon had given to a child may still hold the other end.
        with suppress(subprocess.TimeoutExpired):
            self._journal.wait(PATIENCE_S)
        if self._journal.poll() is None:
            self._journal.kill()
            self._journal.wait()
