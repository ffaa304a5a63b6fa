"""Gathers what the ledgers together know of the orders that a reconcile looks at, each as its own ledger has it.

Which ledger that is, where several name an order, is answered by the order index; what differs from the broker is left
to `compare`.

Note: what stands in the pending orders and trades costs no look into a log. The order index is asked only about orders
that the broker has and nothing here knows, that two ledgers have, or for which something is about to be appended.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal

import msgspec

from compactor.books.carry_over import find_carried, read_sums
from compactor.books.order_index import FAMILY_MAX, OrderIndex
from compactor.books.ownership import CLAIM, UNASSIGNED, list_relations
from compactor.broker.port import Fields
from compactor.core.decimals import exactly, parse_computed
from compactor.core.instants import nanos
from compactor.ledger import Ledger
from compactor.ledger.paths import TRADES
from compactor.ledger.unlocked import whole_lines
from compactor.sync.compare import BrokerDifference, is_open
from compactor.sync.executions import ZERO, Known
from compactor.sync.plan import Answers, View, orders_wanted


class _Trade(msgspec.Struct):
    """What of a trade line tells how much of an order is filled."""

    trade_id: str
    order_id: str
    quantity: str
    execution_price: str
    timestamp: str
    kind: str | None = None
    execution_id: str | None = None
    reverses: str | None = None


_decode = msgspec.json.Decoder(_Trade).decode


class LedgerView:
    """What the ledgers, by team, know of orders: every open order, and of the others those that were asked about.

    The ledgers and the order index have to be up to date, and stay as they are. `fallback` are teams that get orders
    which no name claims.
    """

    def __init__(
        self, ledgers: Mapping[str, Ledger], index: OrderIndex, fallback: Collection[str] = (UNASSIGNED,)
    ) -> None:
        self._ledgers = ledgers
        self._index = index
        self._fallback = fallback
        self._view: dict[str, Known] = {}
        self._known: dict[str, dict[str, Known]] = {}
        """By order and team, what the derived files of each ledger say."""
        self.contested: dict[str, str] = {}
        """The orders that more than one ledger names, with what was decided."""
        for team, ledger in ledgers.items():
            for row in ledger.rows("pending_orders"):
                self._known.setdefault(row["order_id"], {})[team] = Known(team, row)
        self._looked_up: set[str] = set()
        self._ties: dict[str, list[str]] = {}
        self._ties_of = 0
        """How many orders there were answers about when the ties were collected."""
        self._asked: set[str] = set()

    @property
    def problems(self) -> list[BrokerDifference]:
        """The orders that more than one ledger names."""
        return [BrokerDifference("contested", detail, order_id) for order_id, detail in sorted(self.contested.items())]

    def select(self, answers: Answers) -> View:
        """What is known of the orders that the broker's answers are about; costs what was not asked about before.

        Raises LedgerError.
        """
        view, wanted = self._view, orders_wanted(answers)
        # An order that ended with a fill may be gone at the broker by now, so that it says that nothing is filled.
        earlier = {str(order["replaces"]) for order in answers.orders.values() if order.get("replaces")}
        new = (wanted | self._known.keys() | answers.orders.keys() | earlier) - self._looked_up
        self._looked_up |= new
        for team, ledger in self._ledgers.items() if new else ():
            self._add_trades(team, ledger, new)
        for order_id in new:
            self._choose(order_id, answers)
        doubtful = {order_id for order_id in wanted if _is_doubtful(view.get(order_id), answers.orders.get(order_id))}
        doubtful |= _find_relations(doubtful - view.keys(), answers) - view.keys()
        for order_id in doubtful - self._asked:
            self._ask(order_id, answers)
        return view

    def find_created_at(self, order_id: str) -> str | None:
        """When an order that is open here was placed, if its row says so."""
        known = self._view.get(order_id)
        return known.row.get("created_at") if known is not None and known.row is not None else None

    def read_carried(self, order_id: str) -> Decimal:
        """What its log left out of the sums of an order, because it was filled before that."""
        owner = self._index.find_owner(order_id, fallback=self._fallback)
        return find_carried(read_sums(self._index, order_id, owner.team)) if owner is not None else ZERO

    def find_related(self, order_id: str, answers: Answers) -> str | None:
        """The team of another order that this one belongs to, by the broker's answers and by the logs."""
        if self._ties_of != len(answers.orders):
            self._ties, self._ties_of = _collect_ties(answers), len(answers.orders)
        waiting, ties = [order_id], dict[str, None]()
        while waiting and len(ties) < FAMILY_MAX:
            for other in self._ties.get(waiting.pop(0), ()):
                if other not in ties:
                    ties[other] = None
                    waiting.append(other)
        return self._index.find_family_team(order_id, ties)

    def settle(self, order_ids: Iterable[str], answers: Answers) -> bool:
        """Ask the order index about orders for which something is to be appended; whether that changed the view."""
        changed = False
        for order_id in set(order_ids) - self._asked:
            before = _summarize(self._view.get(order_id))
            self._ask(order_id, answers)
            changed |= before != _summarize(self._view.get(order_id))
        return changed

    def _choose(self, order_id: str, answers: Answers) -> None:
        """Take what one ledger says of an order, if no other says anything and its name does not point elsewhere."""
        found = self._known.get(order_id, {})
        if not found:
            return
        [(team, known), *others] = found.items()
        was_taken_back = known.row is None and not known.standing and not known.inferred
        name = answers.orders.get(order_id, {}).get("client_order_id") or (known.row or {}).get("client_order_id")
        match = CLAIM.fullmatch(name) if isinstance(name, str) else None
        is_named_elsewhere = match is not None and match["team"] != team and self._index.knows_team(match["team"])
        if others or was_taken_back or is_named_elsewhere:
            self._ask(order_id, answers)
        else:
            self._view[order_id] = known

    def _ask(self, order_id: str, answers: Answers) -> None:
        """Let the order index say whose an order is, and whether an event of its own tells of it."""
        self._asked.add(order_id)
        order = answers.orders.get(order_id, {})
        owner = self._index.find_owner(
            order_id, created_at=order.get("created_at"), client_order_id=order.get("client_order_id"),
            fallback=self._fallback,
        )  # fmt: skip
        self._view.pop(order_id, None)
        if owner is None:
            # No ledger has an event of its own, but one may show it as the successor of another order (rule 3.9).
            for known in self._known.get(order_id, {}).values():
                if known.row is not None:
                    known.has_events = False
                    self._view[order_id] = known
            return
        if owner.problem is not None:
            self.contested[order_id] = owner.problem
        claim = self._index.find_claims(order_id, order.get("created_at")).get(owner.team)
        known = self._known.get(order_id, {}).get(owner.team) or Known(owner.team)
        known.has_events = claim is not None and claim.is_named
        self._view[order_id] = known

    def _add_trades(self, team: str, ledger: Ledger, wanted: set[str]) -> None:
        inferred: set[str] = set()
        with exactly():
            for line in whole_lines(ledger.path / TRADES):
                trade = _decode(line)
                if trade.order_id in wanted:
                    known = self._known.setdefault(trade.order_id, {})
                    _add(known.setdefault(team, Known(team)), trade, inferred)


def _summarize(known: Known | None) -> tuple[str, bool] | None:
    return (known.team_id, known.has_events) if known is not None else None


def _collect_ties(answers: Answers) -> dict[str, list[str]]:
    """The orders that belong together by the broker's answers, and their groups, each with the others."""
    ties: dict[str, list[str]] = {}
    for order_id, order in answers.orders.items():
        group = f"group:{order['group_id']}" if order.get("group_id") else None
        for other in filter(None, (*list_relations(order), order.get("replaced_by"), group)):
            ties.setdefault(order_id, []).append(str(other))
            ties.setdefault(str(other), []).append(order_id)
    return ties


def _is_doubtful(known: Known | None, order: Fields | None) -> bool:
    """Whether it takes a look into the logs to say what a ledger knows of an order."""
    return known is None or (known.row is None and order is not None and is_open(order))


def _add(known: Known, trade: _Trade, inferred: set[str]) -> None:
    quantity, price = parse_computed(trade.quantity), parse_computed(trade.execution_price)
    known.filled += quantity
    known.value += quantity * price
    if trade.kind == "inferred":
        inferred.add(trade.trade_id)
        known.inferred_ns = max(known.inferred_ns, nanos(trade.timestamp))
    if trade.trade_id in inferred or trade.reverses in inferred:
        known.inferred += quantity
    elif trade.kind == "reversal":
        known.standing.pop(trade.reverses or "", None)
    else:
        known.standing[trade.trade_id] = (trade.execution_id, quantity, price)
        # An order that was away and has come back tells the same execution in a second line.
        if trade.kind == "correction" or trade.execution_id not in known.executions:
            known.numbers[quantity, price] += 1
        if trade.execution_id is not None:
            known.executions.add(trade.execution_id)


def _find_relations(unknown: set[str], answers: Answers) -> set[str]:
    """The orders that unknown ones came from, and those that these came from: their ledger is the unknown one's."""
    found: set[str] = set()
    waiting = list(unknown)
    while waiting:
        for other in list_relations(answers.orders.get(waiting.pop(), {})):
            if other not in found:
                found.add(other)
                waiting.append(other)
    return found
