"""Decides what a ledger has to be told so that it agrees with the broker; it asks nobody and writes nothing.

Given the broker's orders, its FILL activities and what the ledgers know, `plan_reconcile` returns the events to append,
and what has to be asked first. Where answers come from is for `rest` and `jobs.reconciling`. The rule that surprises:
an order that is missing from a list has not ended. Only the broker's answer about that one order ends it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from compactor.broker.alpaca import Fields, digest, translate
from compactor.broker.ownership import owner_of
from compactor.core.decimals import BadDecimal, decimal_of, exactly, quotient
from compactor.core.instants import BadInstant, nanos, rfc3339
from compactor.core.lifecycle import TERMINAL, spelled

ZERO = Decimal(0)
NUMBERS = frozenset({"quantity", "notional", "limit_price", "stop_price", "trail_price", "trail_percent"})
TERMS = (
    "symbol", "side", "quantity", "notional", "order_type", "limit_price", "stop_price", "trail_price", "trail_percent",
    "time_in_force", "order_class", "position_intent", "extended_hours", "client_order_id", "replaces", "replaced_by",
    "parent_order_id",
)  # fmt: skip
_SUMS = ("filled_qty", "filled_avg_price")


class Known(msgspec.Struct):
    """What a ledger knows of one order. `row` is its line of pending orders, while it is open; the rest is from its
    trades: net quantity and value, how much of that is inferred, and the executions by id and by (quantity, price).
    """

    team_id: str
    row: Fields | None = None
    has_events: bool = True
    """False for the leg of a multi-leg order of which only the parent's fills have told."""
    filled: Decimal = ZERO
    value: Decimal = ZERO
    inferred: Decimal = ZERO
    executions: set[str] = msgspec.field(default_factory=set)
    numbers: Counter[tuple[Decimal, Decimal]] = msgspec.field(default_factory=Counter)


View = Mapping[str, Known]
"""What all ledgers together know, by order id."""


class Difference(msgspec.Struct, frozen=True):
    """Something that differs and that no event can put right, or an answer that makes no sense."""

    kind: str
    detail: str
    order_id: str | None = None


class Plan(msgspec.Struct):
    """`events` to append, by team. `waiting` orders differ, but have not been quiet yet.

    `to_ask` are orders to be asked for by id, and `to_ask_fills` orders whose activities are needed; while there are
    any, plan again with the answers.
    """

    events: dict[str, list[Fields]] = {}
    to_ask: list[str] = []
    to_ask_fills: list[str] = []
    waiting: list[str] = []
    problems: list[Difference] = []


class Answers(msgspec.Struct):
    """What the broker said, translated: the newest snapshot of each order, and the executions of each."""

    orders: dict[str, Fields]
    fills: dict[str, list[Fields]]
    problems: list[Difference] = []


def read_answers(orders: Iterable[Any], activities: Iterable[Any]) -> Answers:
    """Translate what the broker said of its orders and of its FILL activities; what cannot be read is a problem."""
    answers = Answers({}, {})
    for event in _translated(orders, answers.problems):
        old = answers.orders.get(event["order_id"], {})
        new, other = (event, old) if not old or nanos(event["ts"]) >= nanos(old["ts"]) else (old, event)
        # Only a nested list tells whose leg an order is.
        parent = {name: other[name] for name in ("parent_order_id",) if name in other}
        answers.orders[event["order_id"]] = parent | new
    seen = set()
    for event in _translated(activities, answers.problems):
        if event["event_id"] not in seen:  # Pages overlap.
            seen.add(event["event_id"])
            answers.fills.setdefault(event["order_id"], []).append(event)
    return answers


def orders_wanted(answers: Answers) -> set[str]:
    """The orders of which the planning has to know whether a ledger knows them; of those that none knows, the planning
    has to know the same of the orders that they came from.

    Orders that ended without a fill, of which a busy account has thousands, change nothing and are none of them.
    """
    wanted = set(answers.fills)
    for order_id, order in answers.orders.items():
        # A quantity is compared as text here, because one that cannot be read is for the planning to name.
        if is_open(order) or order.get("filled_qty", "0").strip("0.") != "":
            wanted.add(order_id)
    return wanted


def plan_reconcile(
    broker_orders: Iterable[Any],
    asked_by_id: Mapping[str, Any],
    activities: Iterable[Any],
    ledger_view: View,
    now: str,
    quiet_seconds: int,
    *,
    fills_asked: Collection[str] = (),
    patterns: Sequence[re.Pattern[str]] = (),
    account_team: str | None = None,
    adopt: bool = True,
) -> Plan:
    """Plan what to append so that open orders and trades become the broker's. Without differences the plan is empty.

    Messages are the broker's own, parsed by `alpaca.parse`; `asked_by_id` has None for an order that the broker says it
    does not have. `now` is RFC 3339, taken before the ledgers and the broker were asked. `fills_asked` are orders whose
    activities are all there. Without `adopt`, orders that no ledger knows are named and not taken.
    """
    answers = read_answers([*broker_orders, *(one for one in asked_by_id.values() if one is not None)], activities)
    plan = Plan(problems=answers.problems)
    quiet = nanos(now) - quiet_seconds * 1_000_000_000
    known_teams = {order_id: known.team_id for order_id, known in ledger_view.items()}
    _ask_for_missing(plan, answers, asked_by_id, ledger_view)
    for order_id, order in answers.orders.items():
        known, fills = ledger_view.get(order_id), answers.fills.get(order_id, [])
        try:
            with exactly():
                one = _Comparison(order, known, fills, quiet, order_id in fills_asked)
                events = one.events()
        except (BadDecimal, BadInstant) as error:
            plan.problems.append(Difference("bad_value", f"the broker's answer cannot be read: {error}", order_id))
            continue
        if one.needs_fills:
            plan.to_ask_fills.append(order_id)
        elif events and one.newest > quiet:
            plan.waiting.append(order_id)
        elif events and known is None and not adopt:
            detail = "no ledger that could be read knows this order; it may belong to one that could not"
            plan.problems.append(Difference("not_adopted", detail, order_id))
        elif events:
            team = owner_of(order_id, answers.orders, known_teams, patterns=patterns, account_team=account_team)
            plan.events.setdefault(team, []).extend(events)
        elif one.newest <= quiet:
            plan.problems += one.problems()
    return plan


def _ask_for_missing(plan: Plan, answers: Answers, asked: Mapping[str, Any], view: View) -> None:
    """Find the orders that no list has: open ones here, and those that an execution tells of."""
    for order_id, known in view.items():
        if known.row is not None and order_id not in answers.orders:
            if order_id not in asked:
                plan.to_ask.append(order_id)
            elif asked[order_id] is None:
                detail = "is open here, and the broker says that it has no such order; it stays open"
                plan.problems.append(Difference("order_not_found", detail, order_id))
    for order_id, fills in answers.fills.items():
        if order_id in answers.orders or order_id in asked or order_id in plan.to_ask:
            continue
        try:
            if new_fills(fills, view.get(order_id)):
                plan.to_ask.append(order_id)
        except BadDecimal as error:
            plan.problems.append(Difference("bad_value", f"an activity cannot be read: {error}", order_id))


def new_fills(fills: Iterable[Fields], known: Known | None) -> list[Fields]:
    """The executions among `fills` that the ledger may not have yet, in their order.

    The ids of activities are not the stream's, so they are told apart by their numbers: of executions with the same
    quantity and price none is new unless there are more than the ledger has. Then all go, and the fold drops those it
    has by their cumulative quantity (rule 4.3).
    """
    with exactly():
        groups: dict[tuple[Decimal, Decimal], list[Fields]] = {}
        for fill in fills:
            groups.setdefault((decimal_of(fill["qty"]), decimal_of(fill["price"])), []).append(fill)
        counts, executions = (known.numbers, known.executions) if known is not None else (Counter(), set())
        new = [
            fill
            for numbers, group in groups.items()
            if len(group) > counts[numbers]
            for fill in group
            if fill["execution_id"] not in executions
        ]
        return sorted(new, key=lambda fill: (_number(fill, "filled_qty") or ZERO, nanos(fill["ts"]), fill["event_id"]))


class _Comparison:
    """One order as the broker has it beside what a ledger knows of it."""

    def __init__(
        self, order: Fields, known: Known | None, fills: list[Fields], quiet: int, all_fills_there: bool
    ) -> None:
        self._order = order
        self._known = known
        self._quiet = quiet
        self._row = known.row if known is not None else None
        self._status = spelled(str(order.get("order_status", "")))
        self._theirs = _number(order, "filled_qty")
        self._ours = known.filled if known is not None else ZERO
        inferred = known.inferred if known is not None else ZERO
        new = new_fills(fills, known)
        behind = self._theirs is not None and self._theirs > self._ours
        self._executions = new if behind or inferred > ZERO else []
        told = self._ours - inferred + sum((decimal_of(fill["qty"]) for fill in self._executions), ZERO)
        self._is_missing_fills = behind and self._theirs is not None and told < self._theirs
        self.needs_fills = self._is_missing_fills and not all_fills_there
        times = [order["ts"], *(fill["ts"] for fill in self._executions)]
        times += [self._row["updated_at"]] if self._row and self._row.get("updated_at") else []
        self._at: str = max(times, key=nanos)
        self.newest = nanos(self._at)

    def events(self) -> list[Fields]:
        """What to append for this order; nothing where it agrees."""
        if self._known is None or (not self._known.has_events and self._status not in TERMINAL):
            return self._of_unknown()
        if self._row is None:
            return self._executions + ([self._snapshot(ended=True)] if self._can_infer() else [])
        return self._of_open(self._row)

    def _of_unknown(self) -> list[Fields]:
        if self._status in TERMINAL and not self._theirs:
            return []  # It came and went without a trade.
        if not self._executions:
            return [self._snapshot()]
        # The terms come first, or the trades would wait for them; the status last, or the fills would be late ones.
        is_told = self._status == "filled" and not self._is_missing_fills
        return [self._terms_alone(), *self._executions] + ([] if is_told else [self._snapshot()])

    def _of_open(self, row: Fields) -> list[Fields]:
        missing = [name for name in TERMS if self._order.get(name) is not None and row.get(name) is None]
        first = [self._terms_alone()] if {"symbol", "side"} & set(missing) and self._executions else []
        if any(_differs(name, row[name], self._order[name]) for name in self._shared_terms(row)):
            first.append(self._event("restated", self._at))
        is_told = self._status == "filled" and bool(self._executions) and not self._is_missing_fills
        changed = bool(self._status) and self._status != row.get("status") and not is_told
        # A partial fill need not lead to the status that the broker reports now.
        follows = bool(self._executions) and not is_told
        wanted = changed or follows or (bool(missing) and not first) or self._can_infer()
        return first + self._executions + ([self._snapshot()] if wanted else [])

    def _shared_terms(self, row: Fields) -> list[str]:
        shared = [name for name in TERMS if self._order.get(name) is not None and row.get(name) is not None]
        # The stop of a trailing order moves with the market: it is no term that somebody changed.
        trailing = self._order.get("order_type") == "trailing_stop"
        return [name for name in shared if not (trailing and name == "stop_price")]

    def _can_infer(self) -> bool:
        """Whether a snapshot would make a trade of what no execution tells (rules 4.7 and 4.10)."""
        is_priced = self._order.get("filled_avg_price") is not None
        return self._is_missing_fills and is_priced and self._order.get("order_class") != "mleg"

    def problems(self) -> list[Difference]:
        """What differs although there is nothing to append."""
        return [Difference(kind, detail, self._order["order_id"]) for kind, detail in self._found()]

    def _found(self) -> Iterable[tuple[str, str]]:
        known, theirs = self._known, self._theirs
        if known is None:
            return
        if self._row is None and self._status and self._status not in TERMINAL and self._status != "calculated":
            yield "ended_here", f"has ended in the ledger of {known.team_id}, and is {self._status} at the broker"
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
            if abs(average - price) > Decimal(1).scaleb(min(exponent, -2)):
                yield "price_differs", f"an average of {average} in the ledger, {price} at the broker"

    def _snapshot(self, *, ended: bool = False) -> Fields:
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
        changed = {"event": name, "ts": at, "event_id": digest([self._order["event_id"], name, at, part])}
        return {**self._order, **changed}


def _translated(messages: Iterable[Any], problems: list[Difference]) -> Iterable[Fields]:
    for message in messages:
        found = translate(message, source="rest")
        problems += [Difference(problem.kind, problem.detail) for problem in found.problems]
        for event in found.events:
            try:
                nanos(event["ts"])
            except (BadInstant, TypeError) as error:
                problems.append(Difference("bad_value", str(error), str(event["order_id"])))
            else:
                yield event


def is_open(order: Fields) -> bool:
    """Whether the broker has an order open."""
    return spelled(str(order.get("order_status", ""))) not in TERMINAL


def _number(event: Fields, name: str) -> Decimal | None:
    return decimal_of(event[name]) if event.get(name) is not None else None


def _differs(name: str, ours: Any, theirs: Any) -> bool:
    return decimal_of(str(ours)) != decimal_of(str(theirs)) if name in NUMBERS else bool(ours != theirs)
