"""What can go wrong between a broker and us, seeded and on demand.

The shares are chances between 0 and 1, for each frame or each request. Note: faults never change
what is true at the broker, save one: `crash_after_accept` takes an order and then does not answer.
Each kind has its own source of chance, so that one more request does not change what becomes of the frames.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, fields


@dataclass
class Faults:
    """A plan of faults; all zero is a calm broker. `hang_seconds` is how long a request hangs before it is cut off."""

    seed: int = 0
    # Frames of the stream.
    drop: float = 0.0
    double: float = 0.0
    reorder: float = 0.0
    delay: float = 0.0
    delay_seconds: float = 0.05
    null_data: float = 0.0
    html_frame: float = 0.0
    unknown_event: float = 0.0
    misspell: float = 0.0
    # Connections of the stream, decided at each frame.
    disconnect: float = 0.0
    half_open: float = 0.0
    mute: float = 0.0
    # Requests.
    rate_limited: float = 0.0
    server_error: float = 0.0
    html_page: float = 0.0
    null_body: float = 0.0
    cut_body: float = 0.0
    hang: float = 0.0
    hang_seconds: float = 30.0
    gateway_page: float = 0.0
    slow: float = 0.0
    slow_seconds: float = 0.05
    crash_after_accept: float = 0.0
    rng: random.Random = field(init=False, repr=False)
    struck: Counter[str] = field(default_factory=Counter, init=False, repr=False)
    """How often each fault has struck."""
    _sources: dict[str, random.Random] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(f"faults {self.seed}")

    def happens(self, name: str) -> bool:
        """Whether this fault strikes now."""
        share: float = getattr(self, name)
        if share <= 0:
            return False
        if name not in self._sources:
            self._sources[name] = random.Random(f"{name} {self.seed}")
        strikes = self._sources[name].random() < share
        self.struck[name] += strikes
        return strikes

    @classmethod
    def wild(cls, seed: int, *, share: float = 0.08) -> Faults:
        """A plan in which about half of all faults are possible, each with a random share."""
        rng = random.Random(f"wild {seed}")
        chances = {name: rng.random() * share for name in SHARES if rng.random() < 0.5}
        return cls(seed=seed, **chances)


SHARES = [one.name for one in fields(Faults) if one.type == "float" and not one.name.endswith("_seconds")]
"""The names of all faults."""
