"""Plan a reconcile: the events that make the ledgers agree with the broker. Asks nobody and writes nothing.

Given the broker's orders, its executions and what the ledgers know, `plan_reconcile` returns the events to append,
and what has to be asked first. `answers` asks, and `reconcile` appends. Note: an order that is missing from a list has
not ended. Only the broker's answer about that one order ends it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from decimal import Decimal

import msgspec

from compactor.books.carry_over import without_sums
from compactor.books.ownership import UNASSIGNED, decide_team, walk_family
from compactor.broker.port import Fields, Translation, content_digest
from compactor.broker.readable import keep_readable
from compactor.core.decimals import exactly, parse_decimal
from compactor.core.instants import nanos
from compactor.sync.compare import BrokerDifference, Comparison, is_filled, is_open
from compactor.sync.executions import CENTS, EXACT, ZERO, ChosenExecutions, Known, new_fills

View = Mapping[str, Known]
"""What all ledgers together know, by order id."""


class Rules(msgspec.Struct, frozen=True):
    """What decides the team of an order that no ledger knows: patterns of its account that find the team in a
    `client_order_id`, the account's team for the rest, which teams there are, and the team of the orders that it
    belongs to."""

    patterns: tuple[re.Pattern[str], ...] = ()
    account_team: str | None = None
    is_team: Callable[[str], bool] = lambda _team: False
    find_related: Callable[[str], str | None] = lambda _order_id: None

    def decide(self, order_id: str, orders: Mapping[str, Fields], known_teams: Mapping[str, str]) -> str:
        """The team of an order; `known_teams` are those of the orders that a ledger has."""
        return decide_team(
            order_id, orders, known_teams, is_team=self.is_team, related=self.find_related(order_id),
            patterns=self.patterns, account_team=self.account_team,
        )  # fmt: skip


class Plan(msgspec.Struct):
    """`events` to append, by team. `waiting` orders differ, but have not been quiet yet; `to_watch` are
    these, or the orders whose legs they are, since nothing but those tells that.

    `to_ask` are orders to be asked for by id, and `to_ask_fills` orders whose activities are needed; while there are
    any, plan again with the answers. `agreed` are those whose activities were asked for in vain: so they need not be
    the next time, as long as their numbers stay.
    """

    events: dict[str, list[Fields]] = {}
    to_ask: list[str] = []
    to_ask_fills: list[str] = []
    waiting: list[str] = []
    to_watch: list[str] = []
    agreed: list[tuple[str, str]] = []
    tried: list[tuple[str, str]] = []
    """The same of those for which there are events, in case that these change nothing."""
    inferred: list[str] = []
    """The orders with inferred trades: only once the events are there can be seen what these leave of them."""
    untold: list[str] = []
    """The orders of which a working stream would have told what is appended."""
    problems: list[BrokerDifference] = []

    @property
    def order_ids(self) -> set[str]:
        """The orders for which there are events."""
        return {str(event["order_id"]) for events in self.events.values() for event in events}


class Answers(msgspec.Struct):
    """What the broker has said so far, translated: the newest snapshot of each order, and the executions of each."""

    orders: dict[str, Fields] = {}
    fills: dict[str, list[Fields]] = {}
    problems: list[BrokerDifference] = []
    seen: set[str] = set()
    """The activities, by id: pages overlap."""

    def list_restless(self, since_ns: int, waiting: Iterable[str]) -> set[str]:
        """The symbols of orders to which something happened after an instant, or that wait."""
        events = [*self.orders.values(), *(fill for fills in self.fills.values() for fill in fills)]
        late = {str(one.get("symbol")) for one in events if nanos(one["ts"]) > since_ns}
        return late | {str(self.orders[one].get("symbol")) for one in waiting if one in self.orders}

    def has_all_fills(self, order: Fields) -> bool:
        """Whether the executions of an order add up to what is filled of it."""
        fills, filled = self.fills.get(str(order["order_id"]), ()), order.get("filled_qty")
        with exactly():
            told = sum((parse_decimal(fill["qty"]) for fill in fills), Decimal(0))
            return bool(fills) and filled is not None and told == parse_decimal(str(filled))

    def count_places(self) -> int:
        """To how many decimals averages are told: a broker that tells more than two of one does not round to cents.
        Noughts behind them say nothing."""
        decimals = (str(order.get("filled_avg_price") or "").partition(".")[2] for order in self.orders.values())
        return EXACT if any(len(one.rstrip("0")) > CENTS for one in decimals) else CENTS

    def take(self, orders: Translation, fills: Translation | None = None) -> None:
        """Take in more of its orders and executions; what cannot be understood is a problem."""
        for event in _checked(orders, self.problems):
            old = self.orders.get(event["order_id"], {})
            new, other = (event, old) if not old or nanos(event["ts"]) >= nanos(old["ts"]) else (old, event)
            # Only a nested list tells whose leg an order is.
            parent = {name: other[name] for name in ("parent_order_id",) if name in other}
            self.orders[event["order_id"]] = parent | new
        for event in _checked(fills, self.problems) if fills is not None else ():
            if event["event_id"] not in self.seen:
                self.seen.add(event["event_id"])
                self.fills.setdefault(event["order_id"], []).append(event)


def orders_wanted(answers: Answers) -> set[str]:
    """The orders of which the planning has to know whether a ledger knows them; of those that none knows, the planning
    has to know the same of the orders that they came from.

    Orders that ended without a fill, of which a busy account has thousands, change nothing and are none of them.
    """
    wanted = set(answers.fills)
    for order_id, order in answers.orders.items():
        if is_open(order) or is_filled(order):
            wanted.add(order_id)
    return wanted


def plan_reconcile(
    answers: Answers,
    missing: Collection[str],
    ledger_view: View,
    now: str,
    quiet_seconds: int,
    *,
    fills_asked: Collection[str] = (),
    rules_of: Callable[[str], Rules] = lambda _order_id: Rules(),
    read_carried: Callable[[str], Decimal] = lambda _order_id: ZERO,
    may_adopt: Callable[[Fields], bool] = lambda _order: True,
    agreed: Collection[tuple[str, str]] = (),
    unasked: Collection[str] = (),
    forget_missing: bool = False,
) -> Plan:
    """Plan what to append so that open orders and trades become the broker's. Without differences the plan is empty.

    `missing` are orders that the broker says it does not have, and `unasked` those that nobody could be asked about.
    `now` is RFC 3339, taken before the ledgers and the broker were asked. `fills_asked` are orders whose activities are
    all there. `read_carried` tells what the logs left out of the sums of an order. Of the orders that no ledger knows,
    those that `may_adopt` refuses are named and not taken. With `forget_missing`, open orders that the broker does not
    have are ended.
    """
    plan = Plan(problems=list(answers.problems))
    quiet = nanos(now) - quiet_seconds * 1_000_000_000
    known_teams = {order_id: known.team_id for order_id, known in ledger_view.items()}
    _ask_for_missing(plan, answers, missing, ledger_view, unasked)
    if forget_missing:
        _forget_missing(plan, ledger_view, now)
    places = answers.count_places()
    for order_id, order in answers.orders.items():
        known, fills = ledger_view.get(order_id), answers.fills.get(order_id, [])
        with exactly():
            carried, value = _find_carried(order, answers, ledger_view, {*missing, *unasked}, read_carried)
            all_there = order_id in fills_asked
            chosen = ChosenExecutions(order, known, fills, quiet, all_there, agreed, carried, value, places)
            one = Comparison(chosen)
            events = one.events()
        if chosen.needs_predecessor:
            plan.to_ask.append(str(order["replaces"]))
        elif chosen.needs_fills:
            plan.to_ask_fills.append(order_id)
        elif events and one.newest > quiet:
            plan.waiting.append(order_id)
            plan.to_watch.append(str(order.get("parent_order_id") or order_id))
        elif events and known is None and not may_adopt(order):
            detail = "no ledger that could be read knows this order; it may belong to one that could not"
            plan.problems.append(BrokerDifference("not_adopted", detail, order_id))
        elif events and (unheard := _unheard(order_id, answers, known_teams, {*missing, *unasked}, rules_of(order_id))):
            plan.to_ask += unheard
        elif events:
            team = rules_of(order_id).decide(order_id, answers.orders, known_teams)
            plan.events.setdefault(team, []).extend(events)
            gives_way = known is not None and known.inferred != ZERO
            plan.tried += [chosen.agreement] if all_there or gives_way else []
            plan.inferred += [order_id] if gives_way and not chosen.takes_back else []
            plan.untold += [order_id] if one.is_untold() else []
        elif one.newest <= quiet:
            plan.problems += one.problems()
            plan.agreed += [chosen.agreement] if order_id in fills_asked else []
    _tell_successors(plan, answers, ledger_view, {*missing, *unasked}, quiet)
    _leave_out_foreign_successors(plan, known_teams)
    return plan


def _find_carried(
    order: Fields, answers: Answers, view: View, asked: Collection[str], read_carried: Callable[[str], Decimal]
) -> tuple[Decimal | None, Decimal | None]:
    """What is filled of the order that this one replaces, and for how much money where that is known; None where that
    order is still to be asked for."""
    earlier = str(order.get("replaces") or "")
    if not earlier:
        return Decimal(0), Decimal(0)
    there = answers.orders.get(earlier, {})
    told, average = there.get("filled_qty"), there.get("filled_avg_price")
    if told is not None:
        quantity = parse_decimal(str(told))
        return quantity, quantity * parse_decimal(str(average)) if average is not None else None
    if earlier not in answers.orders and earlier not in asked:
        return None, None
    known, before = view.get(earlier), read_carried(earlier)
    filled, value = (known.filled, known.value) if known is not None else (ZERO, ZERO)
    # The broker counts on from order to order.
    return filled + before, value if not before else None


def _tell_successors(plan: Plan, answers: Answers, view: View, silent: Collection[str], quiet: int) -> None:
    """Tell of successors too that ended without a fill: the event that names one makes a row of it (rule 3.9)."""
    for events in plan.events.values():
        planned = plan.order_ids
        for event in events:
            name = event.get("replaced_by") if event.get("order_status") == "replaced" else None
            if name is None or name in view or name in planned:
                continue
            planned.add(name)
            order = answers.orders.get(name)
            if order is not None and not is_open(order):
                # The loop goes on to what is appended here: a successor may have one of its own.
                # What its sums are may be its predecessor's, and its own executions are told by themselves.
                alone = ChosenExecutions(without_sums(order), None, [], quiet, False)
                events.append(Comparison(alone).snapshot())
            elif order is None and name not in silent:
                plan.to_ask.append(name)


def _leave_out_foreign_successors(plan: Plan, known_teams: Mapping[str, str]) -> None:
    """Do not name the successor of an order that is another team's: the ledger would make a row of it (rule 3.9).

    That happens while an order lies in `unassigned` and its successor is known to be a team's; it moves there next.
    """
    teams = {str(event["order_id"]): team for team, events in plan.events.items() for event in events} | dict(
        known_teams
    )
    for team, events in plan.events.items():
        for number, event in enumerate(events):
            if teams.get(str(event.get("replaced_by")), team) != team:
                events[number] = {name: value for name, value in event.items() if name != "replaced_by"}


def _unheard(
    order_id: str, answers: Answers, known_teams: Mapping[str, str], asked: Collection[str], rules: Rules
) -> list[str]:
    """The orders that an order came from and of which nothing was heard yet, where one of them may say whose it is."""
    nobodys = msgspec.structs.replace(rules, account_team=None)
    if nobodys.decide(order_id, answers.orders, known_teams) != UNASSIGNED:
        return []
    return [one for one in walk_family(order_id, answers.orders) if one not in answers.orders and one not in asked]


def _forget_missing(plan: Plan, view: View, now: str) -> None:
    """End the orders that the broker does not have: somebody said that they never come back, as after a paper reset."""
    kept: list[BrokerDifference] = []
    for problem in plan.problems:
        order_id = problem.order_id
        if problem.kind != "order_not_found" or order_id is None:
            kept.append(problem)
            continue
        reason = "the broker has no such order (reconcile --forget-missing)"
        event: Fields = {"event": "canceled", "order_id": order_id, "ts": now, "reason": reason, "source": "app"}
        plan.events.setdefault(view[order_id].team_id, []).append(
            event | {"event_id": content_digest([order_id, "forgotten", now])}
        )
    plan.problems = kept


def _ask_for_missing(
    plan: Plan, answers: Answers, missing: Collection[str], view: View, unasked: Collection[str]
) -> None:
    """Find the orders that no list has: open ones here, and those that an execution tells of."""
    for order_id, known in view.items():
        if known.row is not None and order_id not in answers.orders and order_id not in unasked:
            if order_id not in missing:
                plan.to_ask.append(order_id)
            else:
                detail = "is open here, and the broker says that it has no such order; it stays open"
                plan.problems.append(BrokerDifference("order_not_found", detail, order_id))
    for order_id, fills in answers.fills.items():
        if any(order_id in known for known in (answers.orders, missing, unasked, plan.to_ask)):
            continue
        with exactly():
            if new_fills(fills, view.get(order_id))[0]:
                plan.to_ask.append(order_id)


def _checked(found: Translation, problems: list[BrokerDifference]) -> Iterable[Fields]:
    problems += [BrokerDifference(problem.kind, problem.detail) for problem in found.problems]
    for event in found.events:
        kept, problem = keep_readable(event)
        if problem is not None:
            difference = BrokerDifference(problem.kind, problem.detail, str(event["order_id"]))
            problems += [difference] if difference not in problems else []
        if kept is not None:
            yield kept
