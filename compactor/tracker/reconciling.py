"""Reconcile in a child process, which keeps what it knows between two runs: a reconcile plans for longer than an event
loop may wait, also in a thread.

The child answers in lines of JSON. Note: events come in pieces and without the broker's messages, so that reading
the answer to a thousand events is not a burst of work either; the log has the messages.
"""

from __future__ import annotations

import asyncio
import os
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

import compactor
from compactor.broker.credentials import BadCredentials
from compactor.broker.port import BrokerError
from compactor.core import CompactorError
from compactor.sync.reconciled import Reconciled
from compactor.tracker.compacting import DaemonFailed, start_child, stop_child

PIECE_EVENTS = 50
LINE_BYTES_MAX = 1 << 28


class _Error(msgspec.Struct):
    kind: str
    message: str
    fields: dict[str, Any] = {}


_REST = [(one.name, one.type) for one in msgspec.structs.fields(Reconciled) if one.name != "errors"]
_Rest: Any = msgspec.defstruct("_Rest", _REST)
"""What a run found, without the errors, which are no JSON."""


class _Answer(msgspec.Struct):
    """One line: some events of a team, or at the end what a run found beside its events; or why it failed."""

    team: int = 0
    events: list[dict[str, Any]] = []
    done: _Rest | None = None
    errors: dict[str, _Error] = {}
    failure: _Error | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Answer).decode


class ReconcilingChild:
    """Reconciles one data directory, one run at a time, in a child that is started when it is first needed."""

    def __init__(self, data: Path, config: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> None:
        self._arguments = ["reconcile", os.fspath(data.absolute()), os.fspath(config) if config is not None else ""]
        self._environ = environ
        self._lock = asyncio.Lock()
        self._child: Process | None = None

    async def reconcile(self) -> Reconciled:
        """Reconcile once. Raises what `Reconciler.run` raises, and DaemonFailed where the child has died."""
        async with self._lock:
            if self._child is None or self._child.returncode is not None:
                self._child = await start_child(self._arguments, self._environ, stdout=PIPE, limit=LINE_BYTES_MAX)
            try:
                return await self._ask(self._child)
            except BaseException as error:
                if not isinstance(error, BrokerError | BadCredentials):
                    # What it still says would be taken for the answer to the next question.
                    await self.close()
                raise

    async def _ask(self, child: Process) -> Reconciled:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(b"reconcile\n")
        await child.stdin.drain()
        events: dict[int, list[dict[str, Any]]] = {}
        while line := await child.stdout.readline():
            answer = _decode(line)
            if answer.failure is not None:
                raise _restore(answer.failure)
            if answer.done is not None:
                for number, found in events.items():
                    answer.done.teams[number].events = found
                errors: Any = {name: _restore(error) for name, error in answer.errors.items()}
                return Reconciled(**msgspec.structs.asdict(answer.done), errors=errors)
            events.setdefault(answer.team, []).extend(answer.events)
        raise DaemonFailed("the process that reconciles has ended; expected its answer. Standard error has its message")

    async def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is not None:
            await stop_child(child)


def encode_answer(found: Reconciled) -> Iterator[bytes]:
    """What a run found as the lines that the child says."""
    for number, team in enumerate(found.teams):
        told = [{name: value for name, value in event.items() if name != "raw"} for event in team.events]
        for start in range(0, len(told), PIECE_EVENTS):
            yield _encode(_Answer(team=number, events=told[start : start + PIECE_EVENTS])) + b"\n"
    teams = [msgspec.structs.replace(team, events=[]) for team in found.teams]
    done = _Rest(**{name: teams if name == "teams" else getattr(found, name) for name, _ in _REST})
    yield _encode(_Answer(done=done, errors={name: _keep(error) for name, error in found.errors.items()})) + b"\n"


def encode_failure(error: CompactorError) -> bytes:
    """Why a run failed as the line that the child says."""
    return _encode(_Answer(failure=_keep(error))) + b"\n"


def _keep(error: Exception) -> _Error:
    fields = {name: value for name, value in vars(error).items() if isinstance(value, str | int | float | list | None)}
    return _Error(type(error).__name__, str(error), fields)


def _restore(kept: _Error) -> CompactorError:
    """The error as it was: of its own class where that is public, else of the nearest one."""
    kind = getattr(compactor, kept.kind, None) if kept.kind in compactor.__all__ else BrokerError
    if not (isinstance(kind, type) and issubclass(kind, CompactorError)):
        kind = BrokerError
    error = kind.__new__(kind)
    error.args = (kept.message,)
    vars(error).update({"status": None, "code": None, **kept.fields})
    return error
