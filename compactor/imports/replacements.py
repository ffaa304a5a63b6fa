"""Find out what the sums of replacements in a recording count of their predecessors, and leave it out.

By some reports the `filled_qty` of an order that replaces another one begins at what was filled before: see
`books.carry_over`. The stream, REST orders, REST activities and the activity stream may count differently, so each
channel is judged by all that it tells of the order, in the recording and in the log.

Note: sums that may be either are taken for the order's own, which is what the broker usually tells.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from compactor.books.carry_over import ACCEPTED, ZERO, leave_out, read_quantity
from compactor.core.decimals import exactly, plain, quotient
from compactor.core.events import FILLS, Event
from compactor.core.lifecycle import normalize_name
from compactor.imports.messages import Translated
from compactor.imports.writer import Fields

_Channel = tuple[Any, bool]
"""The source, and whether it is one of activities."""


class _Line(msgspec.Struct):
    carried_qty: str | None = None
    raw: msgspec.Raw = msgspec.Raw(b"")


_NAMES = (
    "event", "order_id", "order_status", "source", "quantity", "qty", "filled_qty", "filled_avg_price", "replaces",
    "replaced_by",
)  # fmt: skip
_decode = msgspec.json.Decoder(_Line).decode


class _Sums(msgspec.Struct):
    """What one channel tells is filled of an order, as the broker said it."""

    told: set[Decimal] = msgspec.field(default_factory=set)
    before: set[Decimal] = msgspec.field(default_factory=set)
    """What was filled before each of its executions."""
    unfilled: set[Decimal] = msgspec.field(default_factory=set)
    """What was told while the order had no executions of its own."""
    excess: set[Decimal] = msgspec.field(default_factory=set)
    """How much more was told than was ordered."""
    carried: Decimal = ZERO
    """What the log has left out of it."""


class _Told(msgspec.Struct):
    """What is told of an order that replaces another, or was replaced."""

    channels: dict[_Channel, _Sums] = {}
    filled: Decimal | None = None
    average: Decimal | None = None
    is_final: bool = False
    """Whether that was told when the order had been replaced."""


class Replacements:
    """The orders of a recording that replace others. `note` learns all of it and `recall` the logs; `weigh` reads the
    recording once more where `are_filled`; then `leave_out` gives each event with the sums that are its order's own."""

    def __init__(self) -> None:
        self._earlier: dict[str, str] = {}
        self.predecessors: set[str] = set()
        """The orders that were replaced, of which the logs may have what the recording lacks."""
        self.are_filled = False
        """Whether sums may count what was filled of another order."""
        self._orders: dict[str, _Told] = {}
        self._decided: dict[str, dict[_Channel, Decimal]] = {}

    def note(self, found: Translated) -> None:
        """Learn what replaces what."""
        if isinstance(found.event, dict):
            self._note(found.event)

    def _note(self, event: Fields) -> None:
        order_id, filled = str(event["order_id"]), event.get("filled_qty")
        if event.get("replaces"):
            self._tie(str(event["replaces"]), order_id)
            self.are_filled |= bool(read_quantity(filled)) and filled != event.get("qty")
        if event.get("replaced_by"):
            self._tie(order_id, str(event["replaced_by"]))
            self.are_filled |= bool(read_quantity(filled))

    def _tie(self, earlier: str, later: str) -> None:
        self._earlier[later] = earlier
        self.predecessors.add(earlier)

    def recall(self, event: Event, line: bytes) -> None:
        """Learn from an event of a log, given with its line."""
        told: Fields = {name: getattr(event, name) for name in _NAMES}
        self._note(told)
        if event.filled_qty is None or not self._is_related(told):
            return
        read = _decode(line)
        carried = read_quantity(read.carried_qty) or ZERO
        if carried:
            self.are_filled = True
            with exactly():
                told |= {"filled_qty": plain(carried + (read_quantity(event.filled_qty) or ZERO))}
        is_activity = b'"activity_type"' in bytes(read.raw) or (event.source == "rest" and event.event in FILLS)
        self._weigh(told, is_activity, carried)

    def _is_related(self, event: Fields) -> bool:
        order_id = str(event["order_id"])
        return order_id in self._earlier or order_id in self.predecessors

    def weigh(self, found: Translated) -> None:
        """Learn what is told of the orders that replace others, and of those."""
        if isinstance(found.event, dict):
            self._weigh(found.event, found.is_activity)

    def _weigh(self, event: Fields, is_activity: bool, carried: Decimal = ZERO) -> None:
        order_id, filled = str(event["order_id"]), read_quantity(event.get("filled_qty"))
        if filled is None or not self._is_related(event):
            return
        order = self._orders.setdefault(order_id, _Told())
        order.is_final |= bool(event.get("replaced_by"))
        if order.filled is None or filled >= order.filled:
            average = read_quantity(event.get("filled_avg_price"))
            order.average = average if average is not None or filled != order.filled else order.average
            order.filled = filled
        if order_id not in self._earlier:
            return
        sums = order.channels.setdefault((event.get("source"), is_activity), _Sums())
        sums.told.add(filled)
        sums.carried = max(sums.carried, carried)
        quantity = read_quantity(event.get("quantity"))
        with exactly():
            if quantity is not None and filled > quantity:
                sums.excess.add(filled - quantity)
            if event["event"] in FILLS:
                sums.before.add(filled - (read_quantity(event.get("qty")) or ZERO))
        if event["event"] not in FILLS:
            name = event["event"] if event["event"] != "snapshot" else str(event.get("order_status"))
            if normalize_name(str(name)) in ACCEPTED | {"rejected"}:
                sums.unfilled.add(filled)

    def leave_out(self, found: Translated) -> Translated:
        """The event with the sums that are its order's own; the same where nothing is carried."""
        event = found.event
        if not self.are_filled or not isinstance(event, dict) or event.get("filled_qty") is None:
            return found
        order_id = str(event["order_id"])
        if order_id not in self._orders or order_id not in self._earlier:
            return found
        if order_id not in self._decided:
            self._decided[order_id] = self._decide(self._orders[order_id], self._earlier[order_id])
        carried = self._decided[order_id].get((event.get("source"), found.is_activity), ZERO)
        if not carried:
            return found
        return found._replace(event=leave_out(event, carried) | self._price(event, carried, self._earlier[order_id]))

    def _decide(self, order: _Told, earlier: str) -> dict[_Channel, Decimal]:
        """What each channel counts of the predecessor."""
        channels = order.channels
        before = self._orders.get(earlier, _Told())
        known = [*(one.carried for one in channels.values()), *(q for one in channels.values() for q in one.unfilled)]
        carried = before.filled if before.filled or before.is_final else max(known, default=ZERO)
        if not carried:
            return {}
        decided: dict[_Channel, Decimal] = {}
        with exactly():
            for name, sums in channels.items():
                if sums.carried or carried in sums.unfilled:
                    decided[name] = carried
                elif min(sums.told | sums.before) < carried:
                    decided[name] = ZERO
                elif any(one <= carried for one in sums.excess):
                    decided[name] = carried
            # The stream and REST tell of the same order; activities are counted apart.
            are_continued = any(counted for (_, is_activity), counted in decided.items() if not is_activity)
            own = {ZERO} | {told - counted for name, counted in decided.items() for told in channels[name].told}
            for name in channels.keys() - decided.keys():
                told = channels[name].told
                rest = {one - carried for one in told}
                is_continued = carried in channels[name].before or (any(rest) and rest <= own)
                is_continued |= are_continued and not name[1]
                decided[name] = carried if is_continued and not told <= own else ZERO
        return decided

    def _price(self, event: Fields, carried: Decimal, earlier: str) -> Fields:
        """The average of the order's own executions, where the order itself tells the money of all."""
        before, average = self._orders.get(earlier), read_quantity(event.get("filled_avg_price"))
        filled = read_quantity(event["filled_qty"])
        if event["event"] != "snapshot" or before is None or before.average is None or average is None:
            return {}
        if filled is None or filled <= carried or before.filled != carried:
            return {}
        with exactly():
            return {"filled_avg_price": plain(quotient(average * filled - before.average * carried, filled - carried))}
