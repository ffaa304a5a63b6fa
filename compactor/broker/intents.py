"""Write down what is asked of the broker before it is asked, and what became of it (format.md, rule 3.13).

A program that dies between the two leaves an intent, and nobody knows whether the broker has the order.
`resolve_intents` asks for it by its `client_order_id`. Note: an order is called never placed only if the process that
asked is known to be gone, or has given up, or has had ten minutes; and a minute after that, because a request that is
still on its way could be answered after the question.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec

from compactor.broker.credentials import BadCredentials
from compactor.broker.port import BrokerError, BrokerPort, Fields, Translation
from compactor.broker.readable import keep_readable
from compactor.core.instants import BadInstant, nanos, rfc3339
from compactor.ledger import Ledger, LedgerEntry, LedgerError
from compactor.ledger.open_intents import Intent, read_open_intents
from compactor.ledger.paths import LOG

SETTLED_SECONDS = 60
"""How old an intent is at least when it is called never placed: its request may still arrive at the broker."""
UNKNOWN_SECONDS = 600
"""How long it is left alone where nobody can say whether its process runs, for example on another machine."""
_SECOND = 1_000_000_000
_ASKED = "request"
_OVER = "over"
"""In place of the process: it has asked and does not ask any more."""


class IntentWriter:
    """Writes the events of one intent into the ledger at `path`; `team` None for a directory that is a ledger."""

    def __init__(self, path: Path, team: str | None, client_order_id: str) -> None:
        self._ledger = Ledger(path)
        self._head: Fields = {"order_id": client_order_id, "client_order_id": client_order_id, "source": "app"}
        if team is not None:
            self._head["team_id"] = team
        self._said: Fields = {}

    def announce(self, terms: Mapping[str, Any], tags: Sequence[str], note: str | None) -> None:
        """Say durably what will be asked for. Raises LedgerError: then nobody may be asked."""
        self._said = {"tags": list(tags)} if tags else {}
        if note is not None:
            self._said["note"] = note
        self._said[_ASKED] = dict(terms)
        self._append(self._make("submitting", writer=name_process(), **self._said))

    def give_up(self) -> None:
        """Say that nobody knows what became of it, and that it is not asked for any more."""
        with suppress(LedgerError):
            self._append(self._make("submitting", writer=_OVER, **self._said))

    def refuse(self, error: BrokerError | BadCredentials) -> None:
        """Say that the broker would not have it, and why. Where that cannot be written, the intent stays open and is
        resolved later."""
        told = {"status": error.status, "code": error.code, "reason": str(error)}
        event = self._make("refused", **{name: value for name, value in told.items() if value is not None})
        with suppress(LedgerError):
            self._append(event)

    def conclude(self, order: Translation, objection: str | None = None) -> Fields:
        """The event that says which order the broker has for it, or why that is another one."""
        if objection is not None:
            return self._make("refused", reason=objection)
        return self._make("submitted", broker_order_id=order.events[0]["order_id"])

    def miss(self) -> Fields:
        """The event that says that the broker never had it."""
        return self._make("never_placed", reason="the broker has no order with this client_order_id")

    def write(self, events: Sequence[Fields]) -> None:
        """Append an outcome, and what belongs to it. Raises LedgerError."""
        self._ledger.append(events, drop_raw=True)

    def _append(self, event: Fields) -> None:
        self._ledger.append([event])

    def _make(self, name: str, **fields: Any) -> Fields:
        return {"event": name, **self._head, "ts": rfc3339(time.time_ns()), **fields}


class ResolvedIntent(msgspec.Struct, frozen=True):
    """What became of an intent: the broker has it as `order_id`, or never had it."""

    team_id: str
    client_order_id: str
    outcome: Literal["adopted", "never_placed"]
    order_id: str | None = None


def resolve_intents(
    entries: Sequence[LedgerEntry],
    brokers: Sequence[BrokerPort],
    *,
    is_complete: bool = True,
    now: float | None = None,
    settled_seconds: float = SETTLED_SECONDS,
) -> list[ResolvedIntent]:
    """Ask for every intent without an outcome, and write down what became of it.

    `is_complete`: `brokers` are all accounts there are; else none is called never placed. `now` is Unix seconds. Raises
    BrokerError, BadCredentials and LedgerError.
    """
    now = time.time() if now is None else now
    resolved = []
    for entry in entries:
        if entry.problem is not None or not (entry.path / LOG).exists():
            continue
        for intent in read_open_intents(entry):
            found = _resolve(entry, intent, brokers, is_complete, now, settled_seconds)
            if found is not None:
                resolved.append(found)
    return resolved


def _resolve(
    entry: LedgerEntry, intent: Intent, brokers: Sequence[BrokerPort], is_complete: bool, now: float, settled: float
) -> ResolvedIntent | None:
    writer = IntentWriter(entry.path, entry.team_id, intent.client_order_id)
    may_be_under_way = _may_be_under_way(intent, now, settled)
    if may_be_under_way and is_running(intent.writer):
        return None
    for broker in brokers:
        order = broker.find_order(intent.client_order_id)
        if order is not None and not order.events:
            return None  # The broker has it and nobody can read it yet: it was placed.
        if order is not None:
            named = {"team_id": entry.team_id} if entry.team_id is not None else {}
            readable = [found for event in order.events if (found := keep_readable(event)[0]) is not None]
            events = [{**event, **named} for event in readable]
            writer.write([*events, writer.conclude(order)])
            order_id = order.events[0]["order_id"]
            return ResolvedIntent(intent.team_id, intent.client_order_id, "adopted", order_id)
    if may_be_under_way or not is_complete:
        return None
    writer.write([writer.miss()])
    return ResolvedIntent(intent.team_id, intent.client_order_id, "never_placed")


def _may_be_under_way(intent: Intent, now: float, settled: float) -> bool:
    """Whether the request of an intent may still arrive at the broker."""
    try:
        age = now - nanos(intent.ts) / _SECOND
    except BadInstant:
        return False
    running = is_running(intent.writer)
    if running is None:
        return age < max(settled, UNKNOWN_SECONDS)
    return running or age < settled


@cache
def _name_machine() -> str:
    """Where a process number means one process: the boot of the machine, and in it the container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}.{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def name_process() -> str:
    """This process by a name that no other process gets: the machine, its number there, and when it started."""
    return f"{_name_machine()}/{os.getpid()}/{_read_start(os.getpid())}"


def is_running(writer: str | None) -> bool | None:
    """Whether the process of that name runs and may ask; None where nobody can say, as of one of another machine."""
    if writer == _OVER:
        return False
    machine, _, rest = (writer or "").partition("/")
    pid, _, started = rest.partition("/")
    if not machine or machine != _name_machine() or not pid.isdigit():
        return None
    return _read_start(int(pid)) == started


def _read_start(pid: int) -> str:
    """When a process started, in ticks since the boot; "gone" for one that does not run."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "gone"
    # The name of the program, in parentheses, may have spaces in it.
    return text.rpartition(")")[2].split()[19]
