"""One account: its keys, its exchange, what it has told so far, and who listens to its stream.

Note: an update is worded once, when it happens. The stream, a second delivery and the replay all
tell the same words.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from tests.alpaca_server.exchange import Exchange
from tests.alpaca_server.orders import Happening
from tests.alpaca_server.wire import Writer


class Account:
    """An account at the broker. `told` are all updates since the beginning, with the instant of each."""

    def __init__(self, key: str, secret: str, *, seed: int, start: str | None, plain: bool) -> None:
        self.key, self.secret = key, secret
        self.exchange = Exchange(seed, start)
        self.writer = Writer(self.exchange, seed, plain)
        self.told: list[tuple[int, dict[str, Any]]] = []
        self.hearers: list[Callable[[dict[str, Any]], None]] = []
        self.exchange.listeners.append(self._tell)
        self.lists_held = True
        """Whether the list of open orders has legs that are held; by reports of users it has not."""
        self.opening: dict[str, Decimal] = {}
        """What the account held before its first order."""
        self.moved: list[dict[str, Any]] = []
        """Activities that are no fills, as they are told: splits, exercises, fees."""
        self.withheld_since: int | None = None
        """From when on executions are in no list of activities, until they are backfilled."""
        self.requests: list[float] = []
        """When requests were counted, for the limit."""
        self.connections = 0
        """How many streams this account has open, half-open ones included."""

    def reset(self, key: str, secret: str) -> None:
        """Become a new account with new keys: paper accounts can be reset."""
        with self.exchange.lock:
            self.key, self.secret = key, secret
            self.exchange.reset()
            self.writer.reset()
            for kept in (self.told, self.opening, self.moved):
                kept.clear()

    def _tell(self, happening: Happening) -> None:
        update = self.writer.update(happening)
        self.told.append((happening.at, update))
        for hear in list(self.hearers):
            hear(update)
