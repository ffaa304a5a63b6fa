"""Forked processes: every result arrives, and a child that dies takes nobody along."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compactor.books.workers import Died, run_forked

Event = Callable[..., dict[str, Any]]
WriteLog = Callable[..., Path]


def _ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


class TestWorkers:
    def test_results_larger_than_a_pipe_arrive_whole(self) -> None:
        """A result is not bound by what a pipe holds."""
        found = dict(run_forked([[0], [1]], lambda item: bytes([item]) * 1_000_000, workers=2))
        assert {0: b"\0" * 1_000_000, 1: b"\1" * 1_000_000} == found

    def test_a_death_costs_one_item(self) -> None:
        """The item that a process died at yields `Died`; what it had told stays, and the rest goes on."""

        def work(item: int) -> bytes:
            if item == 1:
                os._exit(7)
            return b"done"

        found = dict(run_forked([[0, 1, 2]], work, workers=1))
        assert {0: b"done", 1: Died("its process ended with status 7"), 2: b"done"} == found

    def test_an_exception_costs_one_item_and_runs_nothing_of_the_parents(self) -> None:
        """Work that raises ends its process without the parent's exit handlers; the rest of the batch goes on."""

        def work(item: int) -> bytes:
            if not item:
                raise RecursionError
            return b"done"

        found = dict(run_forked([[0, 1], [2]], work, workers=2))
        assert {0: Died("its process ended with status 1"), 1: b"done", 2: b"done"} == found
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)  # No zombie is left.

    def test_a_result_cut_short_is_no_result(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A process that dies while it tells has told nothing of that item."""
        real = os.write

        def write(descriptor: int, data: bytes) -> int:
            if len(data) > 100:
                real(descriptor, data[:50])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(descriptor, data)

        monkeypatch.setattr(os, "write", write)
        found = dict(run_forked([[0, 1, 2]], lambda item: b"x" * (200 if item == 1 else 10), workers=1))
        assert [b"x" * 10, True, b"x" * 10] == [found[0], isinstance(found[1], Died), found[2]]

    def test_no_more_processes_than_the_system_gives(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the system refuses a second process, one does all the work."""
        real, made = os.fork, list[int]()

        def fork() -> int:
            # As many as one may have: none of those that run may be a second one.
            if made and not _ended(made[-1]):
                raise BlockingIOError(11, "Resource temporarily unavailable")
            pid = real()
            made.append(pid)
            return pid

        monkeypatch.setattr(os, "fork", fork)
        found = dict(run_forked([[0], [1], [2]], lambda item: b"%d" % item, workers=3))
        assert {0: b"0", 1: b"1", 2: b"2"} == found

    def test_not_even_one_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the system refuses the first process, every item says so and nothing hangs."""

        def fork() -> int:
            raise BlockingIOError(11, "Resource temporarily unavailable")

        monkeypatch.setattr(os, "fork", fork)
        found = dict(run_forked([[0, 1], [2]], lambda _: b"", workers=2))
        refused = Died("no process could be started for it (Resource temporarily unavailable)")
        assert {0: refused, 1: refused, 2: refused} == found

    def test_leaving_early_leaves_no_process_behind(self) -> None:
        """Leaving the iteration, by Ctrl-C for example, ends the children."""

        def work(item: int) -> bytes:
            if item:
                signal.pause()
            return str(os.getpid()).encode()

        results = run_forked([[0, 1]], work, workers=1)
        _, pid = next(results)
        results.close()  # type: ignore[attr-defined]
        assert isinstance(pid, bytes)
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)

    def test_a_process_that_takes_no_signal_is_ended_too(self, tmp_path: Path) -> None:
        """A fork of a process with threads may hang before it takes signals; nobody waits for it for ever."""

        def work(item: int) -> bytes:
            if item:
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
                blocked.write_bytes(b"")
                signal.pause()
            return b"%d" % os.getpid()

        blocked = tmp_path / "blocked"
        results = run_forked([[0, 1]], work, workers=1)
        next(results)
        while not blocked.exists():
            time.sleep(0.01)
        results.close()  # type: ignore[attr-defined]
