"""What is wrong for a while in a run of chaos: it begins at some step, and ends at a later one or with the last.

Faults strike one frame or one request; these last. Each run may have about a third of them. Note: what a broker does
not offer, it cannot do wrong, so that the small one has few of them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from compactor.books.compact import compact_all
from tests.chaos_brokers import ChaosServer, Mouth
from tests.chaos_law import Fills, read_fills
from tests.chaos_side import Side

POSSIBLE_SHARE = 0.35
BEGIN_SHARE = 0.06
END_SHARE = 0.15
SKEWS_SECONDS = (-290, -150, -40, 25, 130, 290)
"""How far our clock may be behind the broker's: resends overlap by five minutes."""
POISONS = ("bad_request", "server_error")


@dataclass
class World:
    """All that takes part in a run."""

    servers: list[Any]
    mouths: list[Mouth]
    side: Side
    rng: random.Random
    connect: Callable[[], None]
    """Close the gap and reconcile, as at every new connection."""

    def silence(self, server: ChaosServer) -> None:
        """What a broker says does not reach us any more."""
        mouth = self.mouths[self.servers.index(server)]
        mouth.is_connected, mouth.is_refused = False, True

    def hear(self, server: ChaosServer) -> None:
        """The stream is there again."""
        mouth = self.mouths[self.servers.index(server)]
        mouth.is_connected, mouth.is_refused = True, False
        self.connect()


class Hardship:
    """Something that is wrong for a while. A class of its own for each; `name` is how it is counted."""

    name = ""

    def begin(self, world: World, server: Any) -> None:
        raise NotImplementedError

    def end(self, world: World, server: Any) -> None:
        """Make it good again."""


class RefusedKeys(Hardship):
    """The broker refuses keys that are right, for seconds or for many minutes, and the stream with them."""

    name = "keys_refused"

    def begin(self, world: World, server: Any) -> None:
        server.refuse(world.rng.choice(("unauthorized", "forbidden")))
        world.silence(server)
        server.exchange.clock.advance(world.rng.choice((3, 90, 1200)))

    def end(self, world: World, server: Any) -> None:
        server.accept()
        world.hear(server)


class GatewayPages(RefusedKeys):
    """A gateway answers everything with a page of its own, which looks like a refusal."""

    name = "gateway_pages"

    def begin(self, world: World, server: Any) -> None:
        server.refuse("page")
        world.silence(server)
        server.exchange.clock.advance(world.rng.choice((3, 90, 1200)))


class LateActivities(Hardship):
    """Executions are in no list of activities, and come into it later with their old time."""

    name = "late_activities"

    def __init__(self) -> None:
        self.orders: set[str] = set()
        """Those of which executions came late."""

    def begin(self, world: World, server: Any) -> None:
        server.withhold()

    def end(self, world: World, server: Any) -> None:
        since = server.account.withheld_since
        if since is not None:
            orders = server.truth().orders.values()
            self.orders |= {one.id for one in orders if any(done.at >= since for done in one.executions)}
        server.backfill()


class PoisonedOrders(Hardship):
    """Some orders cannot be asked for by their id."""

    name = "poisoned_orders"

    def begin(self, world: World, server: Any) -> None:
        orders = sorted(server.truth().orders)
        for order_id in world.rng.sample(orders, min(len(orders), 2)):
            server.poison(order_id, world.rng.choice(POISONS))

    def end(self, world: World, server: Any) -> None:
        server.gate.poisoned.clear()


class EndlessResend(Hardship):
    """A resend goes on with heartbeats and never ends."""

    name = "endless_resend"

    def begin(self, world: World, server: Any) -> None:
        server.resend.is_endless = True

    def end(self, world: World, server: Any) -> None:
        server.resend.is_endless = False


class DroppedResend(Hardship):
    """A resend says in a comment that it dropped messages."""

    name = "dropped_resend"

    def begin(self, world: World, server: Any) -> None:
        server.resend.slow_comment = True


class OddActivities(Hardship):
    """A resend has entries that are no executions, and one of a kind that nobody knows."""

    name = "odd_activities"

    def begin(self, world: World, server: Any) -> None:
        at = "2026-03-02T15:00:00Z"
        server.resend.extra += [{"activity_type": kind, "at": at} for kind in ("DIV", "JNLC", "NOVATION")]

    def end(self, world: World, server: Any) -> None:
        server.resend.extra.clear()


class SkewedClock(Hardship):
    """Our clock is minutes away from the broker's. It stays so, because nobody corrects it."""

    name = "clock_skew"

    def begin(self, world: World, server: Any) -> None:
        world.side.skew_seconds = skew = world.rng.choice(SKEWS_SECONDS)
        for one in world.servers:
            one.gate.skew_seconds = skew


class PaperReset(Hardship):
    """The account becomes a new one with other keys; a human sees it, gives us the keys, and forgets the old orders."""

    name = "paper_reset"

    def __init__(self) -> None:
        self.fills_before: Fills = {}
        """Our trades of orders that are gone, as they were."""

    def begin(self, world: World, server: Any) -> None:
        world.mouths[world.servers.index(server)].lose()
        server.reset()
        world.silence(server)
        compact_all(world.side.data, workers=1)
        self.fills_before |= {
            order_id: fills
            for order_id, fills in read_fills(world.side.data).items()
            if order_id in server.truth().gone
        }

    def end(self, world: World, server: Any) -> None:
        world.side.take_credentials()
        world.side.restart()
        world.hear(server)
        world.side.reconcile(forget_missing=True)


ALPACA = (
    RefusedKeys, GatewayPages, LateActivities, PoisonedOrders, EndlessResend, DroppedResend, OddActivities, SkewedClock,
    PaperReset,
)  # fmt: skip
"""What can be wrong at Alpaca; a reset happens once in a run at most."""


class Hardships:
    """Those of one run."""

    def __init__(self, world: World, kinds: tuple[type[Hardship], ...]) -> None:
        self._world = world
        self._possible = [kind() for kind in kinds if world.rng.random() < POSSIBLE_SHARE]
        self._active: list[tuple[Hardship, Any]] = []
        self.drawn: Counter[str] = Counter()

    @property
    def late_orders(self) -> set[str]:
        """The orders of which executions came late: the sum of our trades is right at once, and each of them once such
        orders are looked at again."""
        return {order for one in self._possible if isinstance(one, LateActivities) for order in one.orders}

    @property
    def fills_before(self) -> Fills:
        """Our trades of orders that a reset took away, as they were then."""
        return {key: fills for one in self._possible if isinstance(one, PaperReset)
                for key, fills in one.fills_before.items()}  # fmt: skip

    def step(self) -> None:
        """Let something begin or end."""
        rng = self._world.rng
        for one in [one for one in self._active if rng.random() < END_SHARE]:
            self._end(one)
        for hardship in self._possible:
            if rng.random() < BEGIN_SHARE:
                self._begin(hardship, rng.choice(self._world.servers))

    def end(self) -> None:
        """All is over: the broker is calm."""
        for one in list(self._active):
            self._end(one)

    def _begin(self, hardship: Hardship, server: Any) -> None:
        is_new = all(active is not hardship for active, _ in self._active)
        is_due = not (isinstance(hardship, PaperReset) and self.drawn[hardship.name])
        # Two kinds of refusals at once would be one.
        refusals = (RefusedKeys, PaperReset)
        blocked = isinstance(hardship, refusals) and any(isinstance(one, refusals) for one, _ in self._active)
        if is_new and is_due and not blocked:
            hardship.begin(self._world, server)
            self._active.append((hardship, server))
            self.drawn[hardship.name] += 1

    def _end(self, one: tuple[Hardship, Any]) -> None:
        self._active.remove(one)
        hardship, server = one
        hardship.end(self._world, server)
