"""Compare an order as the broker has it with what a ledger knows of it, and return the events that make them agree.

`plan` chooses the orders to compare, and `executions` finds those of them that are to be appended.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from compactor.broker.port import Fields, content_digest
from compactor.core.decimals import parse_decimal, quotient
from compactor.core.instants import nanos, rfc3339
from compactor.core.lifecycle import TERMINAL, normalize_name
from compactor.sync.executions import CENTS, ZERO, ChosenExecutions, is_other_price, read_number

NUMBERS = frozenset({"quantity", "notional", "limit_price", "stop_price", "trail_price", "trail_percent"})
TERMS = (
    "symbol", "side", "quantity", "notional", "order_type", "limit_price", "stop_price", "trail_price", "trail_percent",
    "time_in_force", "order_class", "position_intent", "extended_hours", "client_order_id", "replaces", "replaced_by",
    "parent_order_id",
)  # fmt: skip
_SUMS = ("filled_qty", "filled_avg_price")
_ACCEPTED = ("accepted", "pending_new", "held")


class BrokerDifference(msgspec.Struct, frozen=True):
    """Something that differs and that no event can put right, or an answer that makes no sense."""

    kind: str
    detail: str
    order_id: str | None = None
    account: str | None = None
    """The account that it is about, where it is about no order."""


class Comparison:
    """One order as the broker has it beside what a ledger knows of it, with the executions that were chosen for it.

    `newest` is the last time at which something happened to the order.
    """

    def __init__(self, chosen: ChosenExecutions) -> None:
        self._order, self._theirs = chosen.order, chosen.filled
        self._executions, self._is_missing_fills = chosen.to_append, chosen.are_incomplete
        self._known, self._quiet = chosen.known, chosen.quiet
        self._row = self._known.row if self._known is not None else None
        self._status = normalize_name(str(self._order.get("order_status", "")))
        self._ours = self._known.filled if self._known is not None else ZERO
        self._at: str = chosen.find_newest()
        self.newest = nanos(self._at)

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
        elif theirs and (price := read_number(self._order, "filled_avg_price")) is not None:
            average = quotient(known.value, theirs)
            if is_other_price(average, price, CENTS):
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


def _differs(name: str, ours: Any, theirs: Any) -> bool:
    if name == "symbol":
        # A pair is told with its slash, or without.
        return str(ours).replace("/", "") != str(theirs).replace("/", "")
    return parse_decimal(str(ours)) != parse_decimal(str(theirs)) if name in NUMBERS else bool(ours != theirs)


def is_open(order: Fields) -> bool:
    """Whether the broker has an order open."""
    return normalize_name(str(order.get("order_status", ""))) not in TERMINAL


def is_filled(order: Fields) -> bool:
    """Whether the broker tells that something of an order is filled."""
    return str(order.get("filled_qty", "0")).strip("0.") != ""
