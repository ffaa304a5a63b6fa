"""Keep the derived files current while no daemon does, and run the daemon: both in child processes.

A pass folds and syncs, and a daemon listens and reconciles; in the process of the event loop both would be in its way.
A ledger's lock is held for the time of a pass only, so that a daemon, a command or another tracker may come and go.
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from compactor.broker.credentials import BadCredentials
from compactor.core import CompactorError
from compactor.daemon.presence import read_report

LOOK_SECONDS = 1.0
STOP_SECONDS = 3.0
RESTART_SECONDS_MAX = 60.0
BAD_CREDENTIALS = 4
_MODULE = "compactor.tracker.child"


class DaemonFailed(CompactorError):
    """The daemon of `run` does not start; its message is on standard error."""


async def start_child(
    arguments: Sequence[str],
    environ: Mapping[str, str] | None = None,
    stdout: int | None = None,
    limit: int = 1 << 16,
) -> Process:
    """Start a child that ends when its standard input is closed, which the end of this process does too."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", _MODULE, *arguments, stdin=PIPE, stdout=stdout, env=environ, limit=limit
    )


async def stop_child(child: Process) -> None:
    """End a child, and wait for it."""
    if child.stdin is not None:
        child.stdin.close()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await child.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()


async def keep_compacted(data: Path, list_offsets: Callable[[], Mapping[Path, int]]) -> None:
    """Compact every ledger that has grown, as long as no daemon runs; until it is cancelled."""
    done: dict[Path, int] = {}
    child: Process | None = None
    try:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            offsets = list_offsets()
            due = [path for path, offset in offsets.items() if offset and done.get(path) != offset]
            if not due or await asyncio.to_thread(read_report, data) is not None:
                continue
            if child is None or child.returncode is not None:
                child = await start_child(["compact"], stdout=PIPE)
            assert child.stdin is not None and child.stdout is not None
            for path in due:
                with suppress(ConnectionError):
                    child.stdin.write(f"{path.absolute()}\n".encode(errors="surrogateescape"))
                    await child.stdin.drain()
                if await child.stdout.readline() == b"done\n":
                    done[path] = offsets[path]
    finally:
        if child is not None:
            await stop_child(child)


async def keep_daemon(data: Path, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
    """Run the daemon of a data directory, unless one runs already; start it again when it ends, until cancelled.

    Raises BadCredentials, and DaemonFailed where it does not start.
    """
    pause, has_run = 1.0, False
    while True:
        if await asyncio.to_thread(read_report, data) is not None:
            has_run = True
            await asyncio.sleep(LOOK_SECONDS)
            continue
        child = await start_child(["run", os.fspath(data.absolute()), *arguments], environ)
        try:
            while child.returncode is None:
                has_run = has_run or await asyncio.to_thread(read_report, data) is not None
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await child.wait()
        finally:
            await stop_child(child)
        if child.returncode == BAD_CREDENTIALS:
            raise BadCredentials(
                f"the daemon of {data} has ended: there are no keys, or the broker refuses them; standard error has "
                "its message. Set the variables that it names, and start again."
            )
        if not has_run and await asyncio.to_thread(read_report, data) is None:
            raise DaemonFailed(
                f"the daemon of {data} has ended with exit code {child.returncode}; expected it to run. Standard error "
                f"has its message; compactor run {data} shows it too."
            )
        await asyncio.sleep(pause)
        pause = min(RESTART_SECONDS_MAX, 2 * pause)
