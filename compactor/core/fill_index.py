"""The fills of one order, indexed, so that a fill is recognized in constant time however many there are.

The index is derived: it is built when an order with fills is first touched, and never stored. It answers the questions
of rules 4.2 to 4.4 exactly as a scan in the order of arrival would. What counts as the same fill stays in `fills`.

Invariant: `filled_qty`, `qty` and `price` of a fill never change; a fill that one source has told under an id stays
told, and a cumulative quantity that was forgotten stays forgotten. So every cursor below moves forward only.
"""

from bisect import insort
from collections.abc import Iterator
from decimal import Decimal
from heapq import heappop, heappush
from itertools import islice
from operator import itemgetter

from msgspec import Struct

from compactor.core.decimals import Decimals, parse_computed
from compactor.core.instants import nanos

_DECIMAL = Decimals(parse_computed)
_CANDIDATES_MAX = 64
_STEPS_MAX = 64
_DOUBLES_MAX, _ALIKE_MAX = 32, 8
NAMELESS = "\0"
"""How the key of a fill begins that came without an execution id. No id that an event brings begins so by chance, since
a NUL counts as damage in a log."""
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
    told_ahead: str | None = None
    """The cumulative quantity of an order that was ahead of this fill, which `filled_qty` does not tell then (4.3)."""
    merged: bool = False
    """Whether it has turned out to be another one of these fills."""

    @property
    def is_version(self) -> bool:
        """Whether a correction brought the fill, and no source told of it as an execution."""
        return not self.remembered and self.filled_qty is None


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
        self._forgotten: dict[Decimal, _Quantity] = {}
        self._by_numbers: dict[_Numbers, list[str]] = {}
        self._cursors: dict[tuple[_Numbers, str | None], int] = {}
        self._sources: dict[_Numbers, set[str | None]] = {}
        self.told = Decimal(0)
        """The greatest cumulative quantity that a fill has told."""
        self.steps: list[tuple[int, Decimal]] = []
        """The cumulative quantities told, by when they were: without those that a later one reaches."""
        self.silent: list[tuple[int, Decimal]] = []
        """The last executions that came without any cumulative quantity: when they were, and their shares."""
        self.silent_until: int | None = None
        """When the last of those was that are not in `silent` any more."""
        self.merged: list[tuple[int, Decimal]] = []
        """Those among the last silent ones that have turned out to be other fills."""
        self.untold = 0
        """How many executions came without a cumulative quantity."""
        self.corrected = Decimal(0)
        """By how much corrections changed the quantities of the fills that they replaced."""
        self.value = Decimal(0)
        """The sum of price times quantity over the fills that stand, exactly."""
        self.inferred_qty = Decimal(0)
        """The shares of the order's inferred trades, which are kept beside the fills."""
        self.inferred_value = Decimal(0)
        """What these were worth, exactly."""
        for key, fill in fills.items():
            self.add(key, fill)
        for fill in fills.values():
            if fill.version is not None:
                self._count_correction(fill, fills[fill.version])

    def add(self, key: str, fill: Fill) -> None:
        """Add a fill that is new."""
        self[key] = fill
        numbers = (_DECIMAL[fill.qty], _DECIMAL[fill.price])
        if fill.live:
            self.value += numbers[0] * numbers[1]
        self._by_numbers.setdefault(numbers, []).append(key)
        self._sources.setdefault(numbers, set()).add(fill.source)
        self._note_told(fill)
        if fill.filled_qty is not None:
            self.told = max(self.told, _DECIMAL[fill.filled_qty])
        if fill.filled_qty is None:
            self.untold += fill.remembered and not fill.merged
            came_nameless = fill.execution_id is None or (key.startswith(NAMELESS) and fill.remembered)
            if came_nameless and self.find_nameless(fill.ts, fill.qty, fill.price) is None:
                self._nameless[nanos(fill.ts), numbers] = key
        else:
            reached = _DECIMAL[fill.filled_qty]
            groups = self._quantities if fill.remembered else self._forgotten
            group = groups.get(reached)
            if group is None:
                group = groups[reached] = _Quantity(key)
                if fill.remembered:
                    heappush(self._greatest, -reached)
            group.by_numbers.setdefault(numbers, []).append(key)

    def _note_told(self, fill: Fill) -> None:
        text = fill.filled_qty if fill.filled_qty is not None else fill.told_ahead
        at = nanos(fill.ts)
        if text is None:
            if not fill.is_version:
                insort(self.silent, (at, _DECIMAL[fill.qty]))
            if fill.merged:
                self._note_merged(fill)
            if len(self.silent) > _STEPS_MAX:
                dropped = self.silent.pop(0)[0]
                self.silent_until = dropped if self.silent_until is None else max(dropped, self.silent_until)
            return
        step = (at, _DECIMAL[text])
        steps = self.steps
        if steps and steps[-1][0] <= at:
            while steps and steps[-1][1] <= step[1]:
                steps.pop()
        elif any(one[0] >= at and one[1] >= step[1] for one in steps):
            return
        else:
            steps[:] = [one for one in steps if one[0] > at or one[1] > step[1]]
        insort(steps, step)
        del steps[:-_STEPS_MAX]

    def note_inferred(self, qty: Decimal, value: Decimal) -> None:
        """Count an inferred trade, or with a sign one that is taken back."""
        self.inferred_qty += qty
        self.inferred_value += value

    def correct(self, key: str, version_key: str, version: Fill) -> None:
        """Add the version by which a correction replaces a fill."""
        self.add(version_key, version)
        self.replace(key, version_key)

    def replace(self, key: str, version_key: str) -> None:
        """Note that a fill is the version by which a correction replaces another one."""
        self[key].version = version_key
        self._count_correction(self[key], self[version_key])

    def _count_correction(self, fill: Fill, version: Fill) -> None:
        change = _DECIMAL[version.qty] - _DECIMAL[fill.qty]
        # An execution that a source told of has told its own cumulative quantity, with what the correction added.
        self.corrected += change if version.is_version else min(change, Decimal(0))

    def name(self, key: str, execution_id: str, source: str | None) -> None:
        """Note the id by which a source names a fill that had none. It is that source's from then on."""
        fill = self[key]
        fill.execution_id, fill.source = execution_id, source
        self._sources[_DECIMAL[fill.qty], _DECIMAL[fill.price]].add(source)

    def retract(self, key: str) -> None:
        """Take back a fill that stands (4.9)."""
        fill = self[key]
        fill.live = False
        self.value -= _DECIMAL[fill.qty] * _DECIMAL[fill.price]

    def merge(self, key: str) -> None:
        """Take back a fill that has turned out to be another one."""
        self.retract(key)
        fill = self[key]
        fill.merged = True
        if fill.filled_qty is None:
            self.untold -= 1
            if fill.told_ahead is None:
                self._note_merged(fill)

    def _note_merged(self, fill: Fill) -> None:
        insort(self.merged, (nanos(fill.ts), _DECIMAL[fill.qty]))
        del self.merged[:-_STEPS_MAX]

    def find_by_quantity(self, filled_qty: str, *, forgotten: bool = False) -> str | None:
        """Find the first fill with a cumulative quantity, among those that are remembered or those that are not."""
        group = (self._forgotten if forgotten else self._quantities).get(_DECIMAL[filled_qty])
        return group.first if group is not None else None

    def find_untold(
        self, filled_qty: str, qty: str, price: str, source: str | None, *, forgotten: bool = False
    ) -> str | None:
        """Find the first fill with these numbers that has no execution id, or that this source has not told so far,
        among those that are remembered or those that are not."""
        group = (self._forgotten if forgotten else self._quantities).get(_DECIMAL[filled_qty])
        if group is None:
            return None
        numbers = (_DECIMAL[qty], _DECIMAL[price])
        keys = group.by_numbers.get(numbers, [])
        cursor = group.cursors.get((numbers, source), 0)
        while cursor < len(keys) and _is_told(self[keys[cursor]], source):
            cursor += 1
        group.cursors[numbers, source] = cursor
        return keys[cursor] if cursor < len(keys) else None

    def find_alike(self, qty: str, price: str, source: str | None, ts: str, *, dead: bool) -> str | None:
        """Find a fill of another source that has these numbers, the first one of an instant if there is one; among so
        many that cost little. What a correction brought comes after those, for a source may know only that; and what
        was taken back, found only if `dead`, comes last."""
        found: list[tuple[bool, bool, bool, str]] = []
        for fill, key in self._list_candidates(qty, price, source, dead=dead):
            if fill.live or not fill.is_version:
                found.append((fill.is_version, nanos(fill.ts) != nanos(ts), not fill.live, key))
        return min(found, key=itemgetter(0, 1, 2))[3] if found else None

    def find_ahead(
        self, qty: str, price: str, source: str | None, ts: str, filled_qty: Decimal, executed: Decimal
    ) -> str | None:
        """Find the first fill of another source that stands, has these numbers and was at this instant, where one of
        the two tells a quantity that was ahead of it: the fill's is above `filled_qty`, or that is above what would be
        executed with one more."""
        for fill, key in self._list_candidates(qty, price, source):
            if fill.filled_qty is None or nanos(fill.ts) != nanos(ts):
                continue
            if _DECIMAL[fill.filled_qty] > filled_qty or filled_qty > executed:
                return key
        return None

    def find_told_ahead(self, filled_qty: Decimal, qty: str, price: str, source: str | None) -> str | None:
        """Find the first fill of another source that stands, has these numbers and was told with an order that was
        ahead of it, at more than a cumulative quantity; among so many that cost little."""
        for fill, key in self._list_candidates(qty, price, source):
            if fill.told_ahead is not None and _DECIMAL[fill.told_ahead] > filled_qty:
                return key
        return None

    def find_behind(self, filled_qty: Decimal, qty: str, price: str, source: str | None) -> str | None:
        """Find the first fill of another source that stands, has these numbers and told less than the cumulative
        quantity of an order that is ahead of its fill; among so many that cost little."""
        for fill, key in self._list_candidates(qty, price, source):
            if fill.remembered and fill.filled_qty is not None and _DECIMAL[fill.filled_qty] < filled_qty:
                return key
        return None

    def find_double(self, qty_max: Decimal, reduced_at: str | None) -> tuple[str, str] | None:
        """Find two fills that are one execution, told under two ids by two sources: the key that stays, and the other;
        among so many that cost little. One that was taken back at `reduced_at` or before may be the one that stays."""
        found: list[tuple[bool, bool, str, str]] = []
        for key in islice(reversed(self), _DOUBLES_MAX):
            fill = self[key]
            numbers = (_DECIMAL[fill.qty], _DECIMAL[fill.price])
            if not fill.live or fill.is_version or numbers[0] > qty_max or len(self._sources[numbers]) < 2:
                continue
            for other_key in self._by_numbers[numbers][-_ALIKE_MAX:]:
                other = self[other_key]
                if other.merged or other.is_version or _has_common_source(fill, other):
                    continue
                if other.live or (reduced_at is not None and nanos(fill.ts) < nanos(reduced_at)):
                    found.append((nanos(fill.ts) != nanos(other.ts), not other.live, other_key, key))
        return min(found, key=itemgetter(0, 1))[2:] if found else None

    def _list_candidates(
        self, qty: str, price: str, source: str | None, *, dead: bool = False
    ) -> Iterator[tuple[Fill, str]]:
        """Fills that stand, or also others if `dead`, have these numbers, and that this source has not told so far."""
        numbers = (_DECIMAL[qty], _DECIMAL[price])
        keys = self._by_numbers.get(numbers, [])
        cursor = self._cursors.get((numbers, source), 0)
        while cursor < len(keys) and _is_told(self[keys[cursor]], source):
            cursor += 1
        self._cursors[numbers, source] = cursor
        for key in keys[cursor : cursor + _CANDIDATES_MAX]:
            fill = self[key]
            if (fill.live or dead) and source != fill.source and source not in fill.told:
                yield fill, key

    def find_nameless(self, ts: str, qty: str, price: str) -> str | None:
        """Find the fill that came with neither an id nor a cumulative quantity, at an instant with these numbers."""
        return self._nameless.get((nanos(ts), (_DECIMAL[qty], _DECIMAL[price])))

    def forget_above(self, remaining: Decimal) -> None:
        """Forget the cumulative quantities above what remains (4.3): other executions can reach them again."""
        while self._greatest and -self._greatest[0] > remaining:
            reached = -heappop(self._greatest)
            group = self._quantities.pop(reached)
            forgotten = self._forgotten.setdefault(reached, _Quantity(group.first))
            for numbers, keys in group.by_numbers.items():
                forgotten.by_numbers.setdefault(numbers, []).extend(keys)
                for key in keys:
                    self[key].remembered = False


def _has_common_source(fill: Fill, other: Fill) -> bool:
    return not {fill.source, *fill.told}.isdisjoint((other.source, *other.told))


def _is_told(fill: Fill, source: str | None) -> bool:
    return fill.execution_id is not None and (source == fill.source or source in fill.told)
