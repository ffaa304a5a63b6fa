"""What a ledger has had so far, in numbers."""

from collections.abc import Mapping

from msgspec import Struct

from compactor.core.lifecycle import LIFE


class Counts(Struct):
    """Totals of a ledger since the first byte of its log."""

    events: int = 0
    trades: int = 0
    findings: int = 0
    kinds: dict[str, int] = {}
    """The events by name; those that the life cycle does not know count as `other`, so that a log cannot invent names
    without end."""

    def add(self, numbers: Mapping[str, int]) -> None:
        """Count events that were applied, so many of each name."""
        for name, number in numbers.items():
            kind = name if name in LIFE else "other"
            self.kinds[kind] = self.kinds.get(kind, 0) + number
            self.events += number
