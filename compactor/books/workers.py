"""Run independent pieces of work in forked processes, at most so many at once, with a shared progress board.

What the work is, and how results are used, is left to the caller: compacting and verifying.

Note: this is `os.fork` and a pipe instead of a process pool. When the system kills one worker of a pool for want of
memory, every result of the pool is lost. Here a child has one batch and sends each result at once, so that its death
costs one piece of work; and importing a pool would take 30 ms. The parent must not have started threads before it
forks.
"""

from __future__ import annotations

import gc
import mmap
import os
import select
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import msgspec

from compactor.ledger.compaction import Progress

# Below this many bytes of logs in all, starting processes costs more than it saves.
INLINE_BYTES_MAX = 8 << 20
# Small ledgers share a process until they amount to this much; a thousand of them need no thousand processes.
BATCH_BYTES = 4 << 20
# How often the parent looks up from waiting, so that a progress bar moves.
POLL_MS = 100
_LENGTH_BYTES = 4


class Died(msgspec.Struct, frozen=True):
    """The result of a piece of work whose process ended before it could tell one."""

    reason: str


class _Child:
    """One forked process: the items it was given, and what it has received so far."""

    def __init__(self, pid: int, pipe: int, items: Sequence[int]) -> None:
        self.pid = pid
        self.pipe = pipe
        self.items = list(items)
        self.received = bytearray()

    def split_results(self) -> Iterator[tuple[int, bytes]]:
        """The whole results among the bytes read so far, in the order of the items."""
        while len(self.received) >= _LENGTH_BYTES:
            end = _LENGTH_BYTES + int.from_bytes(self.received[:_LENGTH_BYTES], "little")
            if len(self.received) < end:
                return
            result = bytes(self.received[_LENGTH_BYTES:end])
            del self.received[:end]
            yield self.items.pop(0), result


def run_forked(
    batches: Sequence[Sequence[int]],
    work: Callable[[int], bytes],
    *,
    workers: int,
    on_poll: Callable[[], None] | None = None,
) -> Iterator[tuple[int, bytes | Died]]:
    """Yield `(item, work(item))` for every item of `batches`, as results come.

    A batch runs in one process, in its order; batches start in their order, at most `workers` at once. When a process
    dies, the item it was at yields `Died` and the rest of its batch goes on in a new process. Leaving the iteration
    early, by Ctrl-C for example, ends the children.
    """
    waiting = [list(batch) for batch in reversed(batches) if batch]
    running: dict[int, _Child] = {}
    poll = select.poll()
    try:
        while waiting or running:
            while waiting and len(running) < max(1, workers):
                items = waiting.pop()
                try:
                    poll.register(_start(items, work, running), select.POLLIN)
                except OSError as error:
                    # Out of processes or descriptors: one less at once, unless it cannot be even one.
                    workers = len(running)
                    if not running:
                        yield items.pop(0), Died(f"no process could be started for it ({error.strerror})")
                    if items:
                        waiting.append(items)
                    break
            for pipe, _ in poll.poll(POLL_MS if on_poll else None) if running else ():
                child = running[pipe]
                chunk = os.read(pipe, 1 << 16)
                child.received += chunk
                yield from child.split_results()
                if not chunk:
                    poll.unregister(pipe)
                    del running[pipe]
                    reason = _end(child)
                    if child.items:
                        yield child.items.pop(0), Died(reason)
                    if child.items:
                        waiting.append(child.items)
            if on_poll:
                on_poll()
    finally:
        with _undisturbed():
            for child in running.values():
                # Nothing can keep it from ending. One that hangs before it takes signals would be waited for, for ever.
                os.kill(child.pid, signal.SIGKILL)
            for child in running.values():
                _end(child)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait: neither may come between making a child and knowing it, nor while all are ended."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(items: Sequence[int], work: Callable[[int], bytes], running: dict[int, _Child]) -> int:
    """Fork a child for `items`, enter it in `running`, and return its end of the pipe."""
    with _undisturbed():
        read_end, write_end = os.pipe()
        try:
            pid = os.fork()
        except OSError:
            os.close(read_end)
            os.close(write_end)
            raise
        if not pid:
            _run_child(items, work, write_end, close=(read_end, *running))
        os.close(write_end)
        running[read_end] = _Child(pid, read_end, items)
    return read_end


def _run_child(items: Sequence[int], work: Callable[[int], bytes], pipe: int, *, close: Sequence[int]) -> NoReturn:
    """Run a child. It ends by os._exit on every path: the buffers and exit handlers are its parent's."""
    status = 1
    try:
        # Ctrl-C reaches the whole group of processes; the parent decides what it means, and ends its children.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
        for inherited in close:
            os.close(inherited)
        # What the parent made stays out of the collector, so that its pages stay shared.
        gc.freeze()
        gc.disable()
        for item in items:
            result = work(item)
            _write_all(pipe, len(result).to_bytes(_LENGTH_BYTES, "little") + result)
        status = 0
    finally:
        os._exit(status)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _end(child: _Child) -> str:
    """Wait for a child, which is never signaled after that, and say how it ended."""
    os.close(child.pipe)
    _, status = os.waitpid(child.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGKILL:
        return "its process was killed (signal 9), most often by the system for want of memory"
    return f"its process was killed by signal {-code}" if code < 0 else f"its process ended with status {code}"


def plan_batches(sizes: Sequence[int]) -> list[list[int]]:
    """Indexes of `sizes`, largest first so that no long one starts last, small ones gathered into batches."""
    batches: list[list[int]] = []
    room = 0
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        if sizes[index] > room:
            batches.append([])
            room = BATCH_BYTES
        batches[-1].append(index)
        room -= sizes[index]
    return batches


@contextmanager
def collector_paused() -> Iterator[None]:
    """Without the garbage collector: a fold makes no cycles, so looking for them only costs time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class Board:
    """The progress of each piece of work, bytes done and bytes in all, in memory that forked processes share.

    No lock is needed: each number has one writer, and an aligned word is written whole.
    """

    def __init__(self, sizes: Sequence[int], progress: Progress | None) -> None:
        self._progress = progress
        self._words = memoryview(mmap.mmap(-1, max(1, len(sizes)) * 16)).cast("q")
        for index, size in enumerate(sizes):
            self._words[2 * index + 1] = size
        self._parent_pid = os.getpid()

    def reporter(self, index: int) -> Progress | None:
        """The progress function for a piece of work; None where nobody asked for progress."""
        if self._progress is None:
            return None

        def report(bytes_done: int, bytes_total: int) -> None:
            self._words[2 * index] = bytes_done
            self._words[2 * index + 1] = bytes_total
            if os.getpid() == self._parent_pid:
                self.show()

        return report

    def show(self) -> None:
        """Report the sums."""
        if self._progress is not None:
            self._progress(sum(self._words[0::2]), sum(self._words[1::2]))
