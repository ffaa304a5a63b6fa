"""The brokers that chaos knows, and what of their streams reaches us."""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from compactor.broker.credentials import Credentials
from tests.alpaca_server import AlpacaServer, Faults, Truth
from tests.alpaca_server.exchange import Exchange
from tests.alpaca_server.life import RARE, Life
from tests.alpaca_server.orders import Happening
from tests.alpaca_server.stream import told
from tests.small_broker.server import PAGE, SmallServer, describe

REVISIONS = ("trade_bust", "trade_correct")
ENTRY = Path(__file__).parent / "small_broker/entry"
"""What an installed package of the small broker would leave on the path: its entry point."""


class ChaosServer(Protocol):
    """A broker that chaos can let live."""

    key: str
    secret: str
    faults: Faults
    clock: Callable[[], float]
    life: Life

    @property
    def url(self) -> str: ...

    @property
    def exchange(self) -> Exchange: ...

    def __enter__(self) -> Any: ...

    def __exit__(self, *_: Any) -> None: ...

    def live(self, steps: int) -> None: ...

    def truth(self) -> Truth: ...

    def calm(self) -> None: ...


class Mouth:
    """What a broker says on the stream, as far as it reaches us; seeded."""

    def __init__(self, server: Any, rng: random.Random) -> None:
        self._server = server
        self._rng = rng
        self._waiting: list[tuple[bytes, set[str]]] = []
        self.is_connected = True
        self.is_refused = False
        """Whether the broker lets nobody listen."""
        self.unheard: set[str] = set()
        """The orders of which a bust or a correction was not heard as it was said."""
        self._listen()

    def take(self) -> list[bytes]:
        """The frames that have come, some of them in another order."""
        frames = [frame for frame, _ in self._waiting]
        self._waiting = []
        for number in range(len(frames) - 1):
            if self._server.faults.happens("reorder"):
                other = self._rng.randrange(len(frames))
                frames[number], frames[other] = frames[other], frames[number]
        return frames

    def lose(self) -> None:
        """What has come and was not written is gone: the process was killed."""
        for _, revised in self._waiting:
            self.unheard |= revised
        self._waiting = []

    def _listen(self) -> None:
        raise NotImplementedError

    def _hear(self, frames: list[bytes], revised: set[str], is_heard: bool) -> None:
        """Some frames arrive; `revised` are the orders of a bust or a correction, which one tells if `is_heard`."""
        if not is_heard or not self.is_connected:
            self.unheard |= revised
        self._waiting += [(frame, revised) for frame in frames] if self.is_connected else []


class AlpacaMouth(Mouth):
    """Alpaca tells each execution, in frames that get spoiled."""

    def _listen(self) -> None:
        self._server.account.hearers.append(self._hear_update)

    def _hear_update(self, update: dict[str, Any]) -> None:
        frames = told(update, self._server.account, self._server.faults) if self.is_connected else []
        legs = [leg["order_id"] for leg in update.get("legs") or []]
        revised = {update["order"]["id"], *legs} if update["event"] in REVISIONS else set()
        self._hear(frames, revised, any(_tells(frame, update) for frame in frames))


class SmallMouth(Mouth):
    """The small broker tells sums, so that it never says which execution was taken back."""

    def _listen(self) -> None:
        self._server.exchange.listeners.append(self._hear_happening)

    def _hear_happening(self, happening: Happening) -> None:
        faults, told_order = self._server.faults, describe(happening.order)
        frames = [json.dumps({"tell": told_order}).encode()]
        if faults.happens("drop"):
            frames = []
        if faults.happens("double"):
            frames *= 2
        if faults.happens("misspell"):
            frames = [frame.replace(b'"state"', b'"stat"') for frame in frames]
        frames += [b'{"tell": null}'] if faults.happens("null_data") else []
        frames += [PAGE.encode()] if faults.happens("html_frame") else []
        self._hear(frames, {happening.order.id} if happening.event in REVISIONS else set(), False)


def _tells(frame: bytes, update: dict[str, Any]) -> bool:
    """Whether a frame tells an update with all its keys as they are spelt."""
    try:
        data = msgspec.json.decode(frame)["data"] or {}
    except (msgspec.DecodeError, KeyError, TypeError):
        return False
    return data.keys() | {"event_id"} == update.keys() and data["event"] == update["event"]


@dataclass(frozen=True)
class ChaosBroker:
    """A broker: its server, its stream, an order in its own words, and the ledger's id of an order that it returned.

    `draws` are the names of all that can go wrong there.
    """

    make_server: Callable[[int, str, random.Random, Faults], ChaosServer]
    make_mouth: Callable[[Any, random.Random], Mouth]
    terms: dict[str, str]
    find_id: Callable[[Any], str]
    draws: frozenset[str]

    def count_habits(self, server: Any) -> Counter[str]:
        """How often an order was told in a way that only some accounts have."""
        if not isinstance(server, AlpacaServer) or not server.account.writer.carries_sums:
            return Counter()
        orders = server.exchange.orders
        carried = [one for one in orders.values() if one.replaces in orders and orders[one.replaces].filled]
        return Counter({"carried_sums": len(carried)})

    def find_credentials(self, server: ChaosServer, name: str) -> Credentials:
        return Credentials(server.key, server.secret, ("KEY", "SECRET"), True, server.url, name)


def _make_alpaca(seed: int, start: str, rng: random.Random, faults: Faults) -> ChaosServer:
    resend = rng.choice((False, "trades", "activities", True))
    server = AlpacaServer(seed, start=start, rate_limit=None, resend=resend, faults=faults)
    server.account.lists_held = random.Random(f"held {seed}").random() < 0.4
    server.account.writer.share_without_event_id = rng.choice((0.0, 0.0, 0.2, 1.0))
    server.account.writer.carries_sums = rng.random() < 0.4
    server.resend.knows_ids = rng.random() < 0.8
    return server


def _make_small(seed: int, start: str, rng: random.Random, faults: Faults) -> ChaosServer:
    if str(ENTRY) not in sys.path:
        sys.path.append(str(ENTRY))
    return SmallServer(seed, start=start, faults=faults)


_TERMS = {"symbol": "AAPL", "side": "buy", "limit_price": "181.5", "time_in_force": "gtc"}
_OF_BOTH = frozenset(
    {
        "drop", "double", "reorder", "null_data", "html_frame", "misspell", "server_error", "html_page", "cut_body",
        "hang", "crash_after_accept",
    }
)  # fmt: skip
_OF_ALPACA = frozenset(
    {"unknown_event", "rate_limited", "null_body", "gateway_page", "slow", "missing_event_id", "poison", "carried_sums"}
)
BROKERS = {
    "alpaca": ChaosBroker(
        _make_alpaca, AlpacaMouth, {**_TERMS, "qty": "3", "type": "limit"}, lambda order: str(order["id"]),
        _OF_BOTH | _OF_ALPACA | set(RARE),
    ),
    "small": ChaosBroker(
        _make_small, SmallMouth, {**_TERMS, "quantity": "3", "order_type": "limit"},
        lambda order: f"{order['sym']}-{order['no']}",
        _OF_BOTH | (set(RARE) - {"held_exit", "leg_fill"}),
    ),
}  # fmt: skip
