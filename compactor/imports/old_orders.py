"""Orders of the old layout: their lines, and the id that the ledger gives each of them.

An order that the ledger does not have yet gets the broker's id wherever a line tells it, because every other source
tells of it under that id. One that the ledger has keeps its id there.

Note: a broker's id beside several ids of the old program's own is a word that stands for no id. Then the own ids count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from compactor.core.decimals import parse_decimal
from compactor.core.events import Problem
from compactor.core.lifecycle import TERMINAL, normalize_name

Fields = dict[str, Any]

ORDERS, TRADES = "orders", "trades"
UNKNOWN_ORDER = "legacy-trade:"
"""What the id of an order begins with that is known from an old trade only."""

_ZERO = Decimal(0)


class OldProblem(NamedTuple):
    """A line of the old files that could not be read: its file, its number counted from 1, and the reason."""

    file: str
    line: int
    problem: Problem


class OldLine(msgspec.Struct):
    """One readable old line as an event, before it is combined with others.

    `number` counts from 1; it is 0 for a line that is in the log and no longer in the file. `is_known` is set for a
    line that is in the log. `own_id` is the `order_id` that the line itself tells.
    """

    number: int
    text: str
    event: Fields
    ns: int
    is_known: bool = False
    own_id: str | None = None

    def decimal(self, name: str) -> Decimal | None:
        return parse_decimal(self.event[name]) if name in self.event else None

    @property
    def broker_id(self) -> str | None:
        return str(self.event["broker_order_id"]) if "broker_order_id" in self.event else None

    @property
    def is_terminal(self) -> bool:
        return normalize_name(self.event.get("order_status", "")) in TERMINAL


class OldOrder(msgspec.Struct, eq=False):
    """All lines of one order, by time, and its old trades."""

    lines: list[OldLine] = []
    trades: list[OldLine] = []

    def find(self, name: str, ns: int | None = None) -> Any:
        """A term as of an instant, else as of the end: the last line that carries it, or the first one after that."""
        carrying = [line for line in self.lines if name in line.event]
        before = [line for line in carrying if ns is None or line.ns <= ns]
        return (before or carrying[:1])[-1].event[name] if carrying else None

    def decimal(self, name: str) -> Decimal | None:
        text = self.find(name)
        return None if text is None else parse_decimal(text)

    @property
    def filled(self) -> Decimal:
        return max((line.decimal("filled_qty") or _ZERO for line in self.lines), default=_ZERO)

    @property
    def traded(self) -> Decimal:
        return sum((parse_decimal(trade.event["qty"]) for trade in self.trades), _ZERO)

    @property
    def is_in_file(self) -> bool:
        return any(line.number for line in self.lines)


class KnownOrders(NamedTuple):
    """What a ledger knows of orders: their ids, and for an id of the broker the id that the ledger uses."""

    order_ids: frozenset[str] = frozenset()
    by_broker_id: Mapping[str, str] = {}


OldOrders = dict[tuple[str, str], OldOrder]
"""By team and order id."""


def group_lines(
    lines: Sequence[OldLine], known: Mapping[str, KnownOrders], problems: list[OldProblem]
) -> tuple[OldOrders, OrderIds]:
    """Group lines into orders by team and id, each with its lines by time."""
    ids = OrderIds(lines, known)
    orders: OldOrders = defaultdict(OldOrder)
    for line in lines:
        if not line.is_known:
            line.event["order_id"] = ids.choose(line, problems)
        orders[line.event["team_id"], line.event["order_id"]].lines.append(line)
    for order in orders.values():
        order.lines.sort(key=lambda line: (line.ns, line.number))
    return orders, ids


def name_order(trade: Fields) -> str:
    """Make an id for an order that is known from an old trade only."""
    return f"{UNKNOWN_ORDER}{trade['event_id'].removeprefix('digest:')}"


class OrderIds:
    """The ids of the orders of old files: the program's own, the broker's, and the ledger's."""

    def __init__(self, lines: Sequence[OldLine], known: Mapping[str, KnownOrders]) -> None:
        self._known = known
        self._brokers: dict[tuple[str, str], str] = {}
        self._owns: dict[tuple[str, str], list[str]] = defaultdict(list)
        self._imported: dict[tuple[str, str | None, str | None], str] = {}
        self._reported: set[tuple[str, str]] = set()
        for line in sorted(lines, key=lambda line: line.ns):
            team, own, broker = line.event["team_id"], line.own_id, line.broker_id
            if line.is_known:
                self._imported.setdefault((team, own, broker), line.event["order_id"])
            if own is not None and broker is not None:
                self._brokers[team, own] = broker
                if own not in self._owns[team, broker]:
                    self._owns[team, broker].append(own)

    def choose(self, line: OldLine, problems: list[OldProblem]) -> str:
        """Choose the order id of a line: the ledger's where it has the order, else the broker's, else its own."""
        team, own, broker = line.event["team_id"], line.own_id, line.broker_id
        if (imported := self._imported.get((team, own, broker))) is not None:
            return imported
        if broker is None:
            assert own is not None
            broker = self._brokers.get((team, own))
        owns = self._owns.get((team, broker), []) if broker is not None else []
        if len(owns) > 1 and own is not None:
            self._report_shared(line, str(broker), owns, problems)
            return own
        own = own if own is not None or len(owns) != 1 else owns[0]
        return self._find_known(team, own, broker) or broker or str(own)

    def find_in_ledger(self, team: str, order_id: str) -> str:
        """The ledger's own id of an order, for one of the broker's."""
        return self._known.get(team, KnownOrders()).by_broker_id.get(order_id, order_id)

    def _find_known(self, team: str, own: str | None, broker: str | None) -> str | None:
        ledger = self._known.get(team, KnownOrders())
        if broker is not None and broker in ledger.by_broker_id:
            return ledger.by_broker_id[broker]
        return next((one for one in (own, broker) if one is not None and one in ledger.order_ids), None)

    def _report_shared(self, line: OldLine, broker: str, owns: list[str], problems: list[OldProblem]) -> None:
        if (line.event["team_id"], broker) in self._reported:
            return
        self._reported.add((line.event["team_id"], broker))
        detail = f"`broker_order_id` {broker!r} stands beside the order ids {', '.join(owns[:5])}, expected one of them"
        problems.append(
            OldProblem(ORDERS, line.number, Problem("shared_id", f"{detail}; each is kept as an order of its own"))
        )
