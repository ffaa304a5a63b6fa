"""The lines that the writers of the soak append: clean order lives as `stories` tells them, drawn by a seeded random
generator instead of by hypothesis, because there are hundreds of thousands of them.

The reference covers such lives. Each line carries a field `n` of its own, which the format ignores and by which the
check finds it again in the log. Note: the lives lie up to twenty days back, so that most orders that end are
forgotten at once, and a second delivery of an old event has to read their history.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, cast

from hypothesis.strategies import DrawFn

from compactor.core.instants import rfc3339
from tests.stories import CALM_GAPS, CLEAN, DAY, MINUTE, Event, Life, place

DAYS_BACK_MAX = 20
ORDERS_AT_ONCE = 8
REPEATED_PER_MILLE = 40


@dataclass
class RandomLife(Life):
    """A life whose choices come from a random generator; `at` is nanoseconds since the epoch."""

    chance: Random = field(default_factory=Random)

    def pick(self, values: list[Any]) -> Any:
        return self.chance.choice(values)

    def tell(self, name: str, **fields: Any) -> None:
        self.at += self.pick(CALM_GAPS)
        self.events.append({"event": name, "order_id": self.order_id, "ts": rfc3339(self.at), **fields})


def life(chance: Random, order_id: str, begins_ns: int) -> list[Event]:
    """The events of one order in the order in which they are written."""
    # Whatever a clean life draws goes through `pick`.
    told = RandomLife(cast(DrawFn, None), order_id, False, at=begins_ns, chance=chance)
    place(told)
    for _ in range(chance.randrange(7)):
        chance.choice(CLEAN)(told)
    return told.events


def burst(chance: Random, name: str, count: int, now_ns: int, old: Sequence[Event]) -> Iterable[bytes]:
    """`count` lines of new orders whose ids begin with `name`, some delivered a second time, and some of `old` again.

    `old` must be in the log already: the reference does not cover an event that comes before its order.
    """
    begins = now_ns - chance.randrange(DAYS_BACK_MAX * DAY // MINUTE) * MINUTE
    told: list[Event] = []
    lives: list[list[Event]] = []
    for number in range(count):
        if len(lives) < ORDERS_AT_ONCE:
            lives.append(life(chance, f"{name}-{number}", begins)[::-1])
        dice = chance.randrange(1000)
        if told and dice < REPEATED_PER_MILLE:
            event = chance.choice(told)
        elif old and dice < 2 * REPEATED_PER_MILLE:
            event = chance.choice(old)
        else:
            turn = chance.randrange(len(lives))
            event = lives[turn].pop()
            told.append(event)
            if not lives[turn]:
                del lives[turn]
        yield json.dumps({**event, "n": f"{name}/{number}"}, separators=(",", ":")).encode() + b"\n"
