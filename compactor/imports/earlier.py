"""Find out what a ledger already has of old files: the lines that earlier imports appended, and the orders they name.

Note: an imported event keeps its line in `raw`. So the lines of earlier imports are known by their content, whatever
has become of the files since, and whichever version of the program imported them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path

import msgspec

from compactor.core.events import FILLS
from compactor.core.lines import Glance, Placed
from compactor.imports.old_layout import OldLines, read_old_line
from compactor.imports.old_orders import ORDERS, TRADES, KnownOrders, OldLine
from compactor.imports.writer import read_known
from compactor.ledger.paths import PENDING
from compactor.ledger.paths import TRADES as TRADES_FILE
from compactor.ledger.unlocked import whole_lines

VANISHED, RETURNED = "vanished:", "returned:"
"""What the `event_id` of an event begins with that says that an order is no longer in a rewritten file, or is again."""


class _Line(msgspec.Struct):
    raw: object = None


class _Row(msgspec.Struct):
    order_id: str
    broker_order_id: str | None = None


_decode = msgspec.json.Decoder(_Line).decode
_decode_row = msgspec.json.Decoder(_Row).decode


class Mark(msgspec.Struct):
    """How often an order vanished from a rewritten file and returned to it."""

    vanished: int = 0
    returned: int = 0

    @property
    def is_vanished(self) -> bool:
        return self.vanished > self.returned


class Earlier(msgspec.Struct):
    """What the ledger of one team has: the imported lines with their orders, in log order, and the orders it knows."""

    lines: dict[tuple[str, str], list[str]]
    order_ids: set[str]
    by_broker_id: dict[str, str]
    marks: dict[str, Mark]

    @property
    def known(self) -> KnownOrders:
        return KnownOrders(frozenset(self.order_ids), self.by_broker_id)


def read_earlier(path: Path, team: str, old: OldLines, is_compacted: bool) -> Earlier:
    """Read what the ledger at `path` has of the lines and orders of old files. Raises LedgerError."""
    events = [line.event for line in (*old.orders, *old.trades)]
    wanted: set[str] = {event["order_id"] for event in events}
    wanted |= {event["broker_order_id"] for event in events if "broker_order_id" in event}
    earlier = Earlier(defaultdict(list), set(), {}, defaultdict(Mark))

    def wants(glance: Glance) -> bool:
        return glance.order_id in wanted or (glance.event_id or "").startswith(("digest:", VANISHED, RETURNED))

    for placed, line in read_known(path, team, wants):
        _take_event(placed, line, earlier, wanted)
    if is_compacted:
        earlier.by_broker_id = dict(_read_broker_ids(path, wanted))
    return earlier


def recall_lines(old: OldLines, team: str, earlier: Earlier) -> None:
    """Mark the lines that the log has, with the order that each was imported for, and add those that are in no file."""
    for file, lines in ((ORDERS, old.orders), (TRADES, old.trades)):
        missing = {text: list(order_ids) for (of_file, text), order_ids in earlier.lines.items() if of_file == file}
        for line in lines:
            if line.event["team_id"] == team and (order_ids := missing.get(line.text)):
                line.is_known, line.event["order_id"] = True, order_ids.pop(0)
        for text, order_ids in missing.items():
            lines += _recall(file, text, order_ids, team)


def add_earlier(earlier: Earlier, other: Earlier, orders: Collection[str]) -> None:
    """Add what another ledger has of some orders. A line that both have is there once, because an order that was
    assigned has its events in both."""
    for key, order_ids in other.lines.items():
        for order_id in set(order_ids).intersection(orders):
            lacking = order_ids.count(order_id) - earlier.lines.get(key, []).count(order_id)
            earlier.lines.setdefault(key, []).extend([order_id] * lacking)
    earlier.order_ids |= other.order_ids.intersection(orders)
    known = {broker_id: order_id for broker_id, order_id in other.by_broker_id.items() if order_id in orders}
    earlier.by_broker_id = known | earlier.by_broker_id


def _recall(file: str, text: str, order_ids: list[str], team: str) -> Iterable[OldLine]:
    for order_id in order_ids:
        line = read_old_line(file, text.encode(), team)
        if isinstance(line, OldLine):
            line.is_known, line.event["order_id"] = True, order_id
            yield line


def _take_event(placed: Placed, line: bytes, earlier: Earlier, wanted: set[str]) -> None:
    event = placed.event
    if event.order_id in wanted:
        earlier.order_ids.add(event.order_id)
    if event.source != "import" or event.event_id is None:
        return
    if event.event_id.startswith((VANISHED, RETURNED)):
        mark = earlier.marks[event.order_id]
        if event.event_id.startswith(VANISHED):
            mark.vanished += 1
        else:
            mark.returned += 1
        return
    try:
        raw = _decode(line).raw
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    if isinstance(raw, str):
        earlier.lines[TRADES if event.event in FILLS else ORDERS, raw].append(event.order_id)


def _read_broker_ids(path: Path, wanted: set[str]) -> Iterable[tuple[str, str]]:
    """The broker's ids in the derived files for which the ledger uses an id of its own."""
    for name in (TRADES_FILE, PENDING):
        for line in whole_lines(path / name):
            row = _decode_row(line)
            if row.broker_order_id in wanted and row.broker_order_id not in (None, row.order_id):
                yield row.broker_order_id, row.order_id
