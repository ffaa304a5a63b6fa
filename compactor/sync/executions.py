"""Find the executions to append for one order: those that its ledger lacks, or what makes the ledger's the broker's.

`compare` decides which events follow. Note: an activity and our trade of the same execution have only their numbers in
common, because their ids differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from decimal import Decimal

import msgspec

from compactor.books.carry_over import leave_out
from compactor.broker.port import Fields
from compactor.core.decimals import parse_decimal, plain, quotient
from compactor.core.instants import nanos, rfc3339
from compactor.sync.revisions import plan_revisions, rename, take_inferred_back

ZERO = Decimal(0)
CENTS, EXACT = 2, 4
"""To how many decimals an average is compared."""


class Known(msgspec.Struct):
    """What a ledger knows of one order. `row` is its line of pending orders, while it is open; the rest is from its
    trades: net quantity and value, how much of that is inferred, and the executions by id and by (quantity, price).
    """

    team_id: str
    row: Fields | None = None
    has_events: bool = True
    """False for the leg of a multi-leg order of which only the parent's fills have told, and for an order that is this
    team's although its ledger has nothing of it yet."""
    filled: Decimal = ZERO
    value: Decimal = ZERO
    inferred: Decimal = ZERO
    inferred_ns: int = 0
    """When the last of what is inferred was told (Unix nanoseconds)."""
    standing: dict[str, tuple[str | None, Decimal, Decimal]] = msgspec.field(default_factory=dict)
    """What stands, by trade: the execution's id, its quantity and its price; what is inferred is not among it."""
    executions: set[str] = msgspec.field(default_factory=set)
    numbers: Counter[tuple[Decimal, Decimal]] = msgspec.field(default_factory=Counter)


def new_fills(fills: Iterable[Fields], known: Known | None) -> tuple[list[Fields], Decimal, Decimal]:
    """The executions among `fills` that the ledger may not have yet, in their order, and how much they really add, in
    quantity and in value.

    The ids of activities are not the stream's, so they are told apart by their numbers: of executions with the same
    quantity and price none is new unless there are more than the ledger has. Then all go, and the fold drops those it
    has by their cumulative quantity (rule 4.3).
    """
    groups: dict[tuple[Decimal, Decimal], list[Fields]] = {}
    for fill in fills:
        groups.setdefault((parse_decimal(fill["qty"]), parse_decimal(fill["price"])), []).append(fill)
    counts, executions = (known.numbers, known.executions) if known is not None else (Counter(), set())
    new: list[Fields] = []
    gain = value = ZERO
    for numbers, group in groups.items():
        found = [fill for fill in group if fill["execution_id"] not in executions]
        if found and len(group) > counts[numbers]:
            new += found
            gain += (len(group) - counts[numbers]) * numbers[0]
            value += (len(group) - counts[numbers]) * numbers[0] * numbers[1]
    return sorted(new, key=_place), gain, value


def _place(fill: Fields) -> tuple[Decimal, int, str]:
    """Where an execution stands in the life of its order."""
    return (read_number(fill, "filled_qty") or ZERO, nanos(fill["ts"]), fill["event_id"])


class ChosenExecutions:
    """The executions that are to be appended for one order, or what has to be asked before that is certain.

    `fills` are those of its activities that are there, all of them where `all_fills_there`. Orders whose numbers are
    among `agreed` were looked into before, and their activities are what the ledger has. `carried` is what is filled of
    the order that this one replaces, which the broker may count again, and `carried_value` its money; None where that
    order was not asked for. `needs_fills`: choose again with all activities, and `needs_predecessor`: with that order.
    `takes_back`: what was inferred is taken back. What happened up to `quiet` (Unix nanoseconds) is no news. Averages
    are told to so many `places`.
    """

    def __init__(
        self,
        order: Fields,
        known: Known | None,
        fills: list[Fields],
        quiet: int,
        all_fills_there: bool,
        agreed: Collection[tuple[str, str]] = (),
        carried: Decimal | None = ZERO,
        carried_value: Decimal | None = None,
        places: int = CENTS,
    ) -> None:
        self.order = order
        """The order as it is to be told: without what its predecessor had filled, where its sums begin there."""
        self.filled = read_number(order, "filled_qty")
        """How much of it is filled at the broker, likewise; None where that is not told."""
        self.to_append: list[Fields] = []
        self.are_incomplete = False
        """Whether less is filled, with these, than at the broker."""
        self.needs_fills = self.needs_predecessor = self.takes_back = False
        self._carried, self._carried_value, self._places = carried, carried_value, places
        self.known, self.quiet = known, quiet
        self._ours = known.filled if known is not None else ZERO
        self.agreement = (str(order["order_id"]), f"{self.filled} {order.get('filled_avg_price')} {self._sums()}")
        """The order and its numbers, on both sides."""
        if self.filled is not None:
            self._choose(fills, self.filled, all_fills_there, self.agreement in agreed)
            if known is not None and known.inferred > ZERO and not self.takes_back and self.agreement in agreed:
                self._tell_again(known, agreed)
            self.to_append = [_without_stale_sum(one, self.filled) for one in self.to_append]

    def find_newest(self) -> str:
        """When something last happened to the order; what is taken back is told as of now, and says nothing of that."""
        times = [self.order["ts"], *(fill["ts"] for fill in self.to_append if not self.takes_back)]
        row = self.known.row if self.known is not None else None
        times += [row["updated_at"]] if row and row.get("updated_at") else []
        newest: str = max(times, key=nanos)
        return newest

    def _sums(self) -> str:
        # What was inferred has the money of its executions, too, until only a part of it is left.
        known = self.known
        return f"{known.filled} {known.value} {known.inferred}" if known is not None else ""

    def _choose(self, fills: list[Fields], theirs: Decimal, all_there: bool, is_agreed: bool) -> None:
        """Find the executions to append: those that are new, or, where the sums say that something was taken back or
        changed, whatever makes ours the broker's."""
        known = self.known
        inferred = known.inferred if known is not None else ZERO
        new, gain, gained_value = new_fills(fills, known)
        told = self._ours - inferred + gain
        behind = theirs > self._ours
        ours, value, places = self._ours, known.value if known is not None else ZERO, EXACT
        if known is not None and (behind or inferred > ZERO):
            # With what is new, and without what gives way to it, the average has to be the broker's too, or something
            # was corrected besides. Where it may be rounded to cents, that must not cost a request for every order
            # after a gap.
            standing = sum((qty * price for _, qty, price in known.standing.values()), ZERO)
            ours, value, places = told, standing + gained_value, self._places
        revised = self._is_revised(ours, value, theirs, places)
        # What was inferred gives way to its executions, and the oldest of them may be in no list that was asked for.
        total = sum((parse_decimal(fill["qty"]) for fill in fills), ZERO)
        revised = revised or (total == theirs and self._are_others(fills) and self._have_average(fills, ZERO, theirs))
        suspicious = ((behind or inferred > ZERO) and told != theirs) or revised
        if suspicious and self._carried is None:
            self.needs_predecessor = True
            return
        is_all = all_there and bool(self._carried) and total + (self._carried or ZERO) == theirs
        is_explained = is_all and self._have_average(fills, self._carried_value, theirs)
        if suspicious and known is not None and is_explained and (told != total or self._are_others(fills)):
            # Its own executions and what was filled before are all that it counts, and ours are others.
            own = sorted(self._leave_out_carried(theirs - total, total, fills), key=_place)
            self.to_append = plan_revisions(self.order, own, known.standing, known.executions)
            return
        if self._carried and told + self._carried == theirs and (all_there or is_agreed):
            # Its own executions are all there, and the rest is what was filled before it was replaced.
            new = self._leave_out_carried(self._carried, told, new)
            suspicious, behind, theirs = False, told > self._ours, told
        elif suspicious and not all_there:
            self.needs_fills = not is_agreed
            return
        elif suspicious and self._counts_carried(fills, theirs):
            # The same, only that some of its own are not listed yet.
            new, theirs = self._leave_out_all_carried(new, theirs)
            behind = theirs > self._ours
        if suspicious and known is not None and total == theirs:
            self.to_append = plan_revisions(self.order, sorted(fills, key=_place), known.standing, known.executions)
            return
        self.to_append = new if behind or inferred > ZERO else []
        self.are_incomplete = behind and told < theirs
        if known is not None and inferred > ZERO and not new and told == self.filled and not is_agreed:
            # Its executions are all that the broker counts, so that what was inferred beside them is gone.
            value = known.value - sum((qty * price for _, qty, price in known.standing.values()), ZERO)
            # As of now, and after whatever counted these shares: at the same instant they would stay (4.7).
            at = rfc3339(max(nanos(self.find_newest()), known.inferred_ns + 1, self.quiet))
            self.to_append, self.takes_back = [take_inferred_back(self.order, at, inferred, value)], True

    def _tell_again(self, known: Known, agreed: Collection[tuple[str, str]]) -> None:
        """Tell executions that changed nothing under names of their own, once: the ledger took them for others, whose
        numbers they have, because one that was corrected counted too much (rule 4.3)."""
        order_id, numbers = self.agreement
        self.agreement = (order_id, f"{numbers} again")
        fills = [one for one in self.to_append if one["event"] in ("fill", "partial_fill")]
        self.to_append = [] if self.agreement in agreed else [rename(one, known.executions) for one in fills]

    def _are_others(self, fills: Iterable[Fields]) -> bool:
        """Whether its activities, which are all there, are as many as stand and others: corrections may leave the sums
        as they were, and an activity that was corrected may keep its id."""
        known = self.known
        if known is None or known.inferred:
            return False
        told = [(parse_decimal(fill["qty"]), parse_decimal(fill["price"])) for fill in fills]
        standing = Counter((qty, price) for _, qty, price in known.standing.values())
        # Activities may join what the stream told apart.
        return len(told) == standing.total() and Counter(told) != standing

    def _have_average(self, fills: Iterable[Fields], before: Decimal | None, theirs: Decimal) -> bool:
        """Whether the average too is that of these executions, which else may only be late, and of the money `before`
        them."""
        if before is None or read_number(self.order, "filled_avg_price") is None:
            return False
        own = sum((parse_decimal(fill["qty"]) * parse_decimal(fill["price"]) for fill in fills), ZERO)
        return not self._is_revised(theirs, own + before, theirs, CENTS)

    def _counts_carried(self, fills: Iterable[Fields], theirs: Decimal) -> bool:
        """Whether the sums of a replacement are certain to begin at what was filled before: else they would be above
        its quantity, or above what its last execution tells."""
        own = theirs - (self._carried or ZERO)
        quantity = read_number(self.order, "quantity")
        ends = [read_number(fill, "filled_qty") for fill in fills if fill["event"] == "fill"]
        return ZERO < own < theirs and ((quantity is not None and own <= quantity < theirs) or own in ends)

    def _leave_out_carried(self, carried: Decimal, own: Decimal, fills: list[Fields]) -> list[Fields]:
        """Tell of the order without what its predecessor had filled, or that would be traded twice.

        Returns its executions, whose cumulative quantities may begin there as well.
        """
        # An order of which nothing is filled needs no sum, and has no average.
        self.order = leave_out(self.order, carried)
        self.filled = own
        is_continued = any((read_number(fill, "filled_qty") or ZERO) > own for fill in fills)
        return [leave_out(fill, carried) for fill in fills] if is_continued else fills

    def _leave_out_all_carried(self, fills: list[Fields], theirs: Decimal) -> tuple[list[Fields], Decimal]:
        """The same where some of its own executions are not listed yet, which its own average prices meanwhile."""
        carried, average = self._carried or ZERO, read_number(self.order, "filled_avg_price")
        own = theirs - carried
        left = self._leave_out_carried(carried, own, fills)
        if average is not None and self._carried_value is not None:
            price = plain(quotient(average * theirs - self._carried_value, own))
            self.order = {**self.order, "filled_avg_price": price}
        return left, own

    def _is_revised(self, ours: Decimal, value: Decimal, theirs: Decimal, places: int) -> bool:
        """Whether an execution was taken back or corrected, by the sums alone: quantity, and quantity times price."""
        price = read_number(self.order, "filled_avg_price")
        if theirs != ours or price is None or not theirs:
            return theirs < ours
        return is_other_price(quotient(value, theirs), price, places)


def _without_stale_sum(fill: Fields, filled: Decimal) -> Fields:
    """An execution without a cumulative quantity above what is filled of its order: it counts shares that were taken
    back since, and who did not hear of that would take them for missing."""
    if (read_number(fill, "filled_qty") or ZERO) <= filled:
        return fill
    return {name: value for name, value in fill.items() if name != "filled_qty"}


def is_other_price(average: Decimal, price: Decimal, places: int) -> bool:
    """Whether an average cannot be the price that the broker tells, which is rounded or cut off: to its last digit, or
    to so many places where it tells fewer."""
    exponent = price.as_tuple().exponent
    assert isinstance(exponent, int)
    return abs(average - price) >= Decimal(1).scaleb(min(exponent, -places))


def read_number(event: Fields, name: str) -> Decimal | None:
    """A number of an event; None where the event has none of this name."""
    return parse_decimal(event[name]) if event.get(name) is not None else None
