"""The fills of one order, indexed, so that a fill is recognized in constant time however many there are.

The index is derived: it is built when an order with fills is first touched, and never stored. It answers the questions
of rules 4.2 to 4.4 exactly as a scan in the order of arrival would. What counts as the same fill stays in `fills`.

Invariant: `filled_qty`, `qty` and `price` of a fill never change; a fill that one source has told stays told, and a
cumulative quantity that was forgotten stays forgotten. So every cursor below moves forward only.
"""

from decimal import Decimal
from heapq import heappop, heappush

from msgspec import Struct

from compactor.core.decimals import Decimals, parse_computed
from compactor.core.instants import nanos

_DECIMAL = Decimals(parse_computed)
_CANDIDATES_MAX = 64
_Numbers = tuple[Decimal, Decimal]


class Fill(Struct, array_like=True, gc=False):
    """One execution. Numbers are texts as they came; `source` and `told` are the sources that told of it (4.3)."""

    execution_id: str | None
    qty: str
    price: str
    filled_qty: str | None
    ts: str
    source: str | None
    trade_id: str
    told: tuple[str | None, ...] = ()
    live: bool = True
    remembered: bool = True
    version: str | None = None
    """The key of the fill by which a correction replaced this one."""


class _Quantity:
    """The fills that told one cumulative quantity: the first of them, and all of them by `qty` and `price`."""

    __slots__ = ("by_numbers", "cursors", "first")

    def __init__(self, first: str) -> None:
        self.first = first
        self.by_numbers: dict[_Numbers, list[str]] = {}
        self.cursors: dict[tuple[_Numbers, str | None], int] = {}


class IndexedFills(dict[str, Fill]):
    """The fills of one order by their key, in the order of arrival. Add a fill with `add` only."""

    def __init__(self, fills: dict[str, Fill]) -> None:
        super().__init__()
        self._quantities: dict[Decimal, _Quantity] = {}
        self._nameless: dict[tuple[int, _Numbers], str] = {}
        self._greatest: list[Decimal] = []
        self._by_numbers: dict[_Numbers, list[str]] = {}
        self._cursors: dict[tuple[_Numbers, str | None], int] = {}
        self.told = Decimal(0)
        """The greatest cumulative quantity that a fill has told."""
        self.value = Decimal(0)
        """The sum of price times quantity over the fills that stand, exactly."""
        for key, fill in fills.items():
            self.add(key, fill)

    def add(self, key: str, fill: Fill) -> None:
        """Add a fill that is new."""
        self[key] = fill
        numbers = (_DECIMAL[fill.qty], _DECIMAL[fill.price])
        if fill.live:
            self.value += numbers[0] * numbers[1]
        self._by_numbers.setdefault(numbers, []).append(key)
        if fill.filled_qty is not None:
            self.told = max(self.told, _DECIMAL[fill.filled_qty])
        if fill.filled_qty is None:
            if fill.execution_id is None and self.find_nameless(fill.ts, fill.qty, fill.price) is None:
                self._nameless[nanos(fill.ts), numbers] = key
        elif fill.remembered:
            reached = _DECIMAL[fill.filled_qty]
            group = self._quantities.get(reached)
            if group is None:
                group = self._quantities[reached] = _Quantity(key)
                heappush(self._greatest, -reached)
            group.by_numbers.setdefault(numbers, []).append(key)

    def retract(self, key: str) -> None:
        """Take back a fill that stands (4.9)."""
        fill = self[key]
        fill.live = False
        self.value -= _DECIMAL[fill.qty] * _DECIMAL[fill.price]

    def find_by_quantity(self, filled_qty: str) -> str | None:
        """Find the first remembered fill with a cumulative quantity."""
        group = self._quantities.get(_DECIMAL[filled_qty])
        return group.first if group is not None else None

    def find_untold(self, filled_qty: str, qty: str, price: str, source: str | None) -> str | None:
        """Find the first remembered fill with these numbers that has no execution id, or that this source has not told
        so far."""
        group = self._quantities.get(_DECIMAL[filled_qty])
        if group is None:
            return None
        numbers = (_DECIMAL[qty], _DECIMAL[price])
        keys = group.by_numbers.get(numbers, [])
        cursor = group.cursors.get((numbers, source), 0)
        while cursor < len(keys) and _is_told(self[keys[cursor]], source):
            cursor += 1
        group.cursors[numbers, source] = cursor
        return keys[cursor] if cursor < len(keys) else None

    def find_ahead(self, filled_qty: Decimal, qty: str, price: str, source: str | None) -> str | None:
        """Find the first fill that stands, has these numbers and told more than a cumulative quantity, and that this
        source has not told so far; among so many that cost little."""
        numbers = (_DECIMAL[qty], _DECIMAL[price])
        keys = self._by_numbers.get(numbers, [])
        cursor = self._cursors.get((numbers, source), 0)
        while cursor < len(keys) and source in (self[keys[cursor]].source, *self[keys[cursor]].told):
            cursor += 1
        self._cursors[numbers, source] = cursor
        for key in keys[cursor : cursor + _CANDIDATES_MAX]:
            fill = self[key]
            is_ahead = fill.filled_qty is not None and _DECIMAL[fill.filled_qty] > filled_qty
            if fill.live and fill.remembered and is_ahead and source != fill.source and source not in fill.told:
                return key
        return None

    def find_nameless(self, ts: str, qty: str, price: str) -> str | None:
        """Find the fill with neither an id nor a cumulative quantity that happened at an instant with these numbers."""
        key = self._nameless.get((nanos(ts), (_DECIMAL[qty], _DECIMAL[price])))
        return key if key is not None and self[key].execution_id is None else None

    def forget_above(self, remaining: Decimal) -> None:
        """Forget the cumulative quantities above what remains (4.3): other executions can reach them again."""
        while self._greatest and -self._greatest[0] > remaining:
            group = self._quantities.pop(-heappop(self._greatest))
            for keys in group.by_numbers.values():
                for key in keys:
                    self[key].remembered = False


def _is_told(fill: Fill, source: str | None) -> bool:
    return fill.execution_id is not None and (source == fill.source or source in fill.told)
