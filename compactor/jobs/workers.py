"""Runs independent pieces of work in forked processes, at most so many at once.

It leaves to others what the work is, and to the caller how results are used. The rule that surprises: this is
`os.fork` and a pipe instead of a process pool. A pool is one fate: when the system kills one worker for want of
memory, every result of the pool is lost. Here a child has one batch, tells each result as soon as it has it, and
takes nobody along; nor does it cost the 30 ms that importing a pool takes. The parent must not have started threads
before it forks.
"""

from __future__ import annotations

import gc
import os
import select
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import msgspec

# How often the parent looks up from waiting, so that a progress bar moves.
POLL_S = 0.1
_LENGTH_BYTES = 4


class Died(msgspec.Struct, frozen=True):
    """The result of a piece of work whose process ended before it could tell one."""

    reason: str


class _Child:
    """One forked process: the items it was given, and what it has told so far."""

    def __init__(self, pid: int, pipe: int, items: Sequence[int]) -> None:
        self.pid = pid
        self.pipe = pipe
        self.items = list(items)
        self.told = bytearray()

    def take_results(self) -> Iterator[tuple[int, bytes]]:
        """The whole results among the bytes read so far, in the order of the items."""
        while len(self.told) >= _LENGTH_BYTES:
            end = _LENGTH_BYTES + int.from_bytes(self.told[:_LENGTH_BYTES], "little")
            if len(self.told) < end:
                return
            result = bytes(self.told[_LENGTH_BYTES:end])
            del self.told[:end]
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
    try:
        while waiting or running:
            while waiting and len(running) < max(1, workers):
                child = _start(waiting.pop(), work, inherited=running)
                running[child.pipe] = child
            ready, _, _ = select.select(list(running), [], [], POLL_S if on_poll else None)
            for pipe in ready:
                child = running[pipe]
                chunk = os.read(pipe, 1 << 16)
                child.told += chunk
                yield from child.take_results()
                if not chunk:
                    del running[pipe]
                    reason = _end(child)
                    if child.items:
                        yield child.items.pop(0), Died(reason)
                    if child.items:
                        waiting.append(child.items)
            if on_poll:
                on_poll()
    finally:
        for child in running.values():
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGTERM)
        for child in running.values():
            _end(child)


def _start(items: Sequence[int], work: Callable[[int], bytes], *, inherited: dict[int, _Child]) -> _Child:
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write_end)
        return _Child(pid, read_end, items)
    # From here on this is the child. It leaves by os._exit on every path, because the buffers and exit handlers that it
    # got are the parent's.
    status = 1
    try:
        # Ctrl-C reaches the whole group of processes; the parent decides what it means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for pipe in (read_end, *inherited):
            os.close(pipe)
        # What the parent made stays out of the collector, so that its pages stay shared.
        gc.freeze()
        gc.disable()
        for item in items:
            result = work(item)
            _write_all(write_end, len(result).to_bytes(_LENGTH_BYTES, "little") + result)
        status = 0
    finally:
        os._exit(status)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _end(child: _Child) -> str:
    os.close(child.pipe)
    _, status = os.waitpid(child.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return f"its process was killed by signal {-code}" if code < 0 else f"its process ended with status {code}"
