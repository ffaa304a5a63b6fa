"""Compare an order as the broker has it with what a ledger knows of it, and return the events that make them agree.

`plan` chooses the orders to compare. Note: an activity and our trade of the same execution have only their numbers in
common, because their ids differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from decimal import Decimal
from typing import Any

import msgspec

from compactor.broker.port import Fields, content_digest
from compactor.core.decimals import parse_decimal, plain, quotient
from compactor.core.instants import nanos, rfc3339
from compactor.core.lifecycle import TERMINAL, normalize_name
from compactor.sync.carried import leave_out
from compactor.sync.revisions import plan_revisions, take_inferred_back

ZERO = Decimal(0)
NUMBERS = frozenset({"quantity", "notional", "limit_price", "stop_price", "trail_price", "trail_percent"})
TERMS = (
    "symbol", "side", "quantity", "notional", "order_type", "limit_price", "stop_price", "trail_price", "trail_percent",
    "time_in_force", "order_class", "position_intent", "extended_hours", "client_order_id", "replaces", "replaced_by",
    "parent_order_id",
)  # fmt: skip
_SUMS = ("filled_qty", "filled_avg_price")
_ACCEPTED = ("accepted", "pending_new", "held")


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
    standing: dict[str, tuple[str | None, Decimal, Decimal]] = msgspec.field(default_factory=dict)
    """What stands, by trade: the execution's id, its quantity and its price; what is inferred is not among it."""
    executions: set[str] = msgspec.field(default_factory=set)
    numbers: Counter[tuple[Decimal, Decimal]] = msgspec.field(default_factory=Counter)


class BrokerDifference(msgspec.Struct, frozen=True):
    """Something that differs and that no event can put right, or an answer that makes no sense."""

    kind: str
    detail: str
    order_id: str | None = None
    account: str | None = None
    """The account that it is about, where it is about no order."""


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
    return (_number(fill, "filled_qty") or ZERO, nanos(fill["ts"]), fill["event_id"])


class Comparison:
    """One order as the broker has it beside what a ledger knows of it.

    `fills` are those of its activities that are there, all of them where `all_fills_there`. Orders whose numbers are
    among `agreed` were looked into before, and their activities are what the ledger has. `carried` is what is filled of
    the order that this one replaces, which the broker may count again, and `carried_value` its money; None where that
    order was not asked for. `needs_fills`: compare again with all activities, and `needs_predecessor`: with that order.
    `newest` is the last time at which something happened to the order. `takes_back`: what was inferred is taken back.
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
    ) -> None:
        self._order = order
        self._carried, self._carried_value = carried, carried_value
        self._known = known
        self._quiet = quiet
        self._row = known.row if known is not None else None
        self._status = normalize_name(str(order.get("order_status", "")))
        self._theirs = _number(order, "filled_qty")
        self._ours = known.filled if known is not None else ZERO
        self._executions: list[Fields] = []
        self._is_missing_fills = self.needs_fills = self.needs_predecessor = self.takes_back = False
        self.agreement = (str(order["order_id"]), f"{self._theirs} {order.get('filled_avg_price')} {self._sums()}")
        if self._theirs is not None:
            self._take_fills(fills, self._theirs, all_fills_there, self.agreement in agreed)
            self._executions = [_without_stale_sum(one, self._theirs) for one in self._executions]
        self._at: str = self._find_newest()
        self.newest = nanos(self._at)

    def _find_newest(self) -> str:
        """When something last happened to the order; what is taken back is told as of now, and says nothing of that."""
        times = [self._order["ts"], *(fill["ts"] for fill in self._executions if not self.takes_back)]
        times += [self._row["updated_at"]] if self._row and self._row.get("updated_at") else []
        newest: str = max(times, key=nanos)
        return newest

    def _sums(self) -> str:
        # What was inferred has the money of its executions, too, until only a part of it is left.
        known = self._known
        return f"{known.filled} {known.value} {known.inferred}" if known is not None else ""

    def _take_fills(self, fills: list[Fields], theirs: Decimal, all_there: bool, is_agreed: bool) -> None:
        """Find the executions to append: those that are new, or, where the sums say that something was taken back or
        changed, whatever makes ours the broker's."""
        known = self._known
        inferred = known.inferred if known is not None else ZERO
        new, gain, gained_value = new_fills(fills, known)
        told = self._ours - inferred + gain
        behind = theirs > self._ours
        ours, value, places = self._ours, known.value if known is not None else ZERO, 4
        if known is not None and (behind or inferred > ZERO):
            # With what is new, and without what gives way to it, the average has to be the broker's too, or something
            # was corrected besides. It may be rounded to cents, and after a gap that must not cost a request for every
            # order.
            standing = sum((qty * price for _, qty, price in known.standing.values()), ZERO)
            ours, value, places = told, standing + gained_value, 2
        revised = self._is_revised(ours, value, theirs, places)
        # What was inferred gives way to its executions, and the oldest of them may be in no list that was asked for.
        total = sum((parse_decimal(fill["qty"]) for fill in fills), ZERO)
        revised = revised or (total == theirs and self._has_other_numbers(fills, theirs))
        suspicious = ((behind or inferred > ZERO) and told != theirs) or revised
        if suspicious and self._carried is None:
            self.needs_predecessor = True
            return
        is_all = all_there and bool(self._carried) and total + (self._carried or ZERO) == theirs
        if suspicious and known is not None and is_all and told != total and self._is_explained(fills, theirs):
            # Its own executions and what was filled before are all that it counts, and ours are others.
            own = sorted(self._leave_out_carried(theirs - total, total, fills), key=_place)
            self._executions = plan_revisions(self._order, own, known.standing, known.executions)
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
            self._executions = plan_revisions(self._order, sorted(fills, key=_place), known.standing, known.executions)
            return
        self._executions = new if behind or inferred > ZERO else []
        self._is_missing_fills = behind and told < theirs
        if known is not None and inferred > ZERO and not new and told == self._theirs and not is_agreed:
            # Its executions are all that the broker counts, so that what was inferred beside them is gone.
            value = known.value - sum((qty * price for _, qty, price in known.standing.values()), ZERO)
            # As of now: whatever counted these shares was told before.
            at: str = max((self._find_newest(), rfc3339(self._quiet)), key=nanos)
            self._executions, self.takes_back = [take_inferred_back(self._order, at, inferred, value)], True

    def _has_other_numbers(self, fills: Iterable[Fields], theirs: Decimal) -> bool:
        """Whether its activities, which are all there and have its average, are as many as stand and others: two
        corrections may leave the sums as they were."""
        known = self._known
        if known is None or known.inferred or _number(self._order, "filled_avg_price") is None:
            return False
        told = [(parse_decimal(fill["qty"]), parse_decimal(fill["price"])) for fill in fills]
        value = sum((qty * price for qty, price in told), ZERO)
        standing = Counter((qty, price) for _, qty, price in known.standing.values())
        # Activities may join what the stream told apart.
        is_other = len(told) == standing.total() and Counter(told) != standing
        return is_other and not self._is_revised(theirs, value, theirs, 2)

    def _is_explained(self, fills: Iterable[Fields], theirs: Decimal) -> bool:
        """Whether the average too is that of these executions and of what was filled before; they may only be late."""
        if self._carried_value is None or _number(self._order, "filled_avg_price") is None:
            return False
        own = sum((parse_decimal(fill["qty"]) * parse_decimal(fill["price"]) for fill in fills), ZERO)
        return not self._is_revised(theirs, own + self._carried_value, theirs, 2)

    def _counts_carried(self, fills: Iterable[Fields], theirs: Decimal) -> bool:
        """Whether the sums of a replacement are certain to begin at what was filled before: else they would be above
        its quantity, or above what its last execution tells."""
        own = theirs - (self._carried or ZERO)
        quantity = _number(self._order, "quantity")
        ends = [_number(fill, "filled_qty") for fill in fills if fill["event"] == "fill"]
        return ZERO < own < theirs and ((quantity is not None and own <= quantity < theirs) or own in ends)

    def _leave_out_carried(self, carried: Decimal, own: Decimal, fills: list[Fields]) -> list[Fields]:
        """Tell of the order without what its predecessor had filled, or that would be traded twice.

        Returns its executions, whose cumulative quantities may begin there as well.
        """
        # An order of which nothing is filled needs no sum, and has no average.
        self._order = leave_out(self._order, carried)
        self._theirs = own
        is_continued = any((_number(fill, "filled_qty") or ZERO) > own for fill in fills)
        return [leave_out(fill, carried) for fill in fills] if is_continued else fills

    def _leave_out_all_carried(self, fills: list[Fields], theirs: Decimal) -> tuple[list[Fields], Decimal]:
        """The same where some of its own executions are not listed yet, which its own average prices meanwhile."""
        carried, average = self._carried or ZERO, _number(self._order, "filled_avg_price")
        own = theirs - carried
        left = self._leave_out_carried(carried, own, fills)
        if average is not None and self._carried_value is not None:
            price = plain(quotient(average * theirs - self._carried_value, own))
            self._order = {**self._order, "filled_avg_price": price}
        return left, own

    def _is_revised(self, ours: Decimal, value: Decimal, theirs: Decimal, places: int) -> bool:
        """Whether an execution was taken back or corrected, by the sums alone: quantity, and quantity times price."""
        price = _number(self._order, "filled_avg_price")
        if theirs != ours or price is None or not theirs:
            return theirs < ours
        exponent = price.as_tuple().exponent
        assert isinstance(exponent, int)
        # An average that was rounded or cut off is less than one of its last digit away.
        return abs(quotient(value, theirs) - price) >= Decimal(1).scaleb(min(exponent, -places))

    def events(self) -> list[Fields]:
        """What to append for this order; nothing where it agrees."""
        known = self._known
        # A successor that only its predecessor tells of has a row without events of its own (rule 3.9).
        is_told = known is not None and (known.has_events or self._row is not None)
        if known is None or not (is_told or (self._status in TERMINAL and known.filled)):
            return self._compare_unknown()
        if self._row is None:
            # Of a leg the parent's fills may be all that is known; the first event of its own must not open it.
            is_leg = self._order.get("order_class") == "mleg" and self._status in TERMINAL
            opens = is_leg and bool(self._executions) and not self._is_end_told()
            # What the broker says is live comes back by its answer, which is later than all that is known (rule 3.4).
            opens = opens or self._is_open()
            return self._executions + ([self.snapshot(ended=True)] if opens or self._can_infer() else [])
        return self._compare_open(self._row)

    def _compare_unknown(self) -> list[Fields]:
        if self._status in TERMINAL and not self._theirs:
            return []  # It came and went without a trade.
        if not self._executions:
            return [self.snapshot()]
        # The terms come first, or the trades would wait for them; the status last, or the fills would be late ones.
        is_told = self._is_end_told()
        return [self._terms_alone(), *self._executions] + ([] if is_told else [self.snapshot()])

    def _compare_open(self, row: Fields) -> list[Fields]:
        missing = [name for name in TERMS if self._is_told(name) and row.get(name) is None]
        first = [self._terms_alone()] if {"symbol", "side"} & set(missing) and self._executions else []
        if any(_differs(name, row[name], self._order[name]) for name in self._shared_terms(row)):
            first.append(self._event("restated", self._at))
        is_told = self._is_end_told()
        changed = bool(self._status) and self._status != row.get("status") and not is_told
        # A partial fill need not lead to the status that the broker reports now.
        follows = bool(self._executions) and not is_told
        wanted = changed or follows or (bool(missing) and not first) or self._can_infer()
        return first + self._executions + ([self.snapshot()] if wanted else [])

    def _is_end_told(self) -> bool:
        """Whether the executions end the order by themselves; the last one may have been taken back."""
        ends = any(event["event"] == "fill" for event in self._executions)
        return self._status == "filled" and ends and not self._is_missing_fills

    def _is_told(self, name: str) -> bool:
        # The class of a plain order is "simple" or nothing, now one and now the other.
        return self._order.get(name) is not None and (name, self._order[name]) != ("order_class", "simple")

    def _shared_terms(self, row: Fields) -> list[str]:
        shared = [name for name in TERMS if self._is_told(name) and row.get(name) is not None]
        # The stop of a trailing order moves with the market: it is no term that somebody changed. Where an order with
        # legs was replaced, both it and its successor have them.
        trailing = self._order.get("order_type") == "trailing_stop"
        return [name for name in shared if name != "parent_order_id" and not (trailing and name == "stop_price")]

    def is_untold(self) -> bool:
        """Whether a working stream would have told what differs.

        It may be silent about an order that was merely accepted, about terms that change by themselves, about legs that
        end without a fill, and its busts may name an execution by another id.
        """
        if any(event["event"] in ("fill", "partial_fill") for event in self._executions):
            return True
        if self._order.get("parent_order_id") is not None or self._executions:
            return self._is_missing_fills
        before = self._row.get("status") if self._row is not None else None
        is_silent = self._status == before or (before is None and self._status in _ACCEPTED)
        return self._is_missing_fills or not is_silent

    def _can_infer(self) -> bool:
        """Whether a snapshot would make a trade of what no execution tells (rules 4.7 and 4.10)."""
        is_priced = self._order.get("filled_avg_price") is not None
        return self._is_missing_fills and is_priced and self._order.get("order_class") != "mleg"

    def _is_open(self) -> bool:
        return bool(self._status) and self._status not in TERMINAL and self._status != "calculated"

    def problems(self) -> list[BrokerDifference]:
        """What differs although there is nothing to append."""
        return [BrokerDifference(kind, detail, self._order["order_id"]) for kind, detail in self._found()]

    def _found(self) -> Iterable[tuple[str, str]]:
        known, theirs = self._known, self._theirs
        if known is None:
            return
        if theirs is None:
            return
        if theirs > self._ours:
            yield "fills_missing", f"{self._ours} filled in the ledger, {theirs} at the broker, which tells no price"
        elif theirs < self._ours:
            yield "filled_below", f"{self._ours} filled in the ledger, {theirs} at the broker; a bust may be missing"
        elif theirs and (price := _number(self._order, "filled_avg_price")) is not None:
            exponent = price.as_tuple().exponent
            assert isinstance(exponent, int)
            average = quotient(known.value, theirs)
            if abs(average - price) >= Decimal(1).scaleb(min(exponent, -2)):
                yield "price_differs", f"an average of {average} in the ledger, {price} at the broker"

    def snapshot(self, *, ended: bool = False) -> Fields:
        """The broker's answer as an event; with `ended` for an order that has ended in the ledger."""
        # The order has been quiet, so this is how it stands after all that the ledger has of it, whatever the broker's
        # own time of its last change says; an older snapshot would change nothing (rule 4.7).
        at: str = max((self._at, rfc3339(self._quiet)), key=nanos) if ended else self._at
        return self._event("snapshot", at)

    def _terms_alone(self) -> Fields:
        at: str = self._order.get("created_at") or self._order["ts"]
        event = self._event("snapshot", at, "terms")
        return {name: value for name, value in event.items() if name not in (*_SUMS, "order_status")}

    def _event(self, name: str, at: str, part: str = "") -> Fields:
        # Its own id: the same order told again at another time, or in part, is another event.
        changed = {"event": name, "ts": at, "event_id": content_digest([self._order["event_id"], name, at, part])}
        return {**self._order, **changed}


def _without_stale_sum(fill: Fields, filled: Decimal) -> Fields:
    """An execution without a cumulative quantity above what is filled of its order: it counts shares that were taken
    back since, and who did not hear of that would take them for missing."""
    if (_number(fill, "filled_qty") or ZERO) <= filled:
        return fill
    return {name: value for name, value in fill.items() if name != "filled_qty"}


def _number(event: Fields, name: str) -> Decimal | None:
    return parse_decimal(event[name]) if event.get(name) is not None else None


def _differs(name: str, ours: Any, theirs: Any) -> bool:
    if name == "symbol":
        # A pair is told with its slash, or without.
        return str(ours).replace("/", "") != str(theirs).replace("/", "")
    return parse_decimal(str(ours)) != parse_decimal(str(theirs)) if name in NUMBERS else bool(ours != theirs)


def is_open(order: Fields) -> bool:
    """Whether the broker has an order open."""
    return normalize_name(str(order.get("order_status", ""))) not in TERMINAL
