"""A fold without any rule: `python naive_peer.py DATA OUT_DIR` writes OUT_DIR/<name>/{trades,pending_orders}.jsonl.

What a loop in Python costs that decodes each event with the same library as ours, keeps orders in a dictionary, drops
an execution that is told again, and writes the same two outputs: one process per ledger, on all cores. It stands beside
ours to show what the rules of format.md cost.

Note: it is right for the made-up log and for no other. It believes every event, reads no time,
checks no quantity, and loses what comes late, torn, corrected or by two channels.
"""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from decimal import ROUND_HALF_EVEN, Context, Decimal
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

BATCH_BYTES = 1 << 16
ENDS = ("canceled", "expired", "rejected")


class Status(Struct, gc=False, tag_field="event"):
    """An event that only tells a status."""

    order_id: str
    ts: str


class New(Struct, gc=False, tag_field="event", tag="new"):
    """A placement."""

    order_id: str
    ts: str
    symbol: str
    side: str
    quantity: str
    order_type: str
    time_in_force: str | None = None
    limit_price: str | None = None
    stop_price: str | None = None
    client_order_id: str | None = None


class PartialFill(Struct, gc=False, tag_field="event", tag="partial_fill"):
    """An execution of a part."""

    order_id: str
    ts: str
    execution_id: str
    price: str
    qty: str


class Fill(PartialFill, gc=False, tag_field="event", tag="fill"):
    """The execution that completes an order."""


class Trade(Struct, gc=False, omit_defaults=True):
    """A line of trades."""

    team_id: str
    order_id: str
    symbol: str
    side: str
    quantity: str
    execution_price: str
    order_type: str
    timestamp: str
    client_order_id: str | None
    execution_id: str
    kind: str


class Order:
    """What is known of an order."""

    __slots__ = ("filled", "fills", "money", "status", "terms", "updated_at")

    def __init__(self, terms: New) -> None:
        self.terms = terms
        self.status, self.updated_at = "new", terms.ts
        self.filled = self.money = Decimal(0)
        self.fills: set[str] = set()


def statuses() -> list[Any]:
    names = ["accepted", "pending_new", "pending_cancel", "pending_replace", "done_for_day", "held", "suspended", *ENDS]
    return [msgspec.defstruct(name, [], bases=(Status,), tag_field="event", tag=name, gc=False) for name in names]


def batches(path: Path) -> Iterator[list[Any]]:
    kinds: Any = New | PartialFill | Fill
    for status in statuses():
        kinds |= status
    decode = msgspec.json.Decoder(kinds).decode_lines
    with path.open("rb", buffering=0) as file:
        rest = b""
        while data := file.read(BATCH_BYTES):
            whole, _, tail = (rest + data).rpartition(b"\n")
            yield decode(whole)
            rest = tail


def fold(path: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    team, orders = path.parent.name, dict[str, Order]()
    encode = msgspec.json.Encoder().encode_lines
    with (out / "trades.jsonl").open("wb", buffering=1 << 20) as file:
        for events in batches(path):
            trades = []
            for event in events:
                kind, order_id = type(event), event.order_id
                if kind is New:
                    orders[order_id] = Order(event)
                    continue
                order = orders.get(order_id)
                if order is None:
                    continue
                if kind is PartialFill or kind is Fill:
                    execution_id = event.execution_id
                    if execution_id in order.fills:
                        continue
                    order.fills.add(execution_id)
                    qty = Decimal(event.qty)
                    order.filled += qty
                    order.money += qty * Decimal(event.price)
                    terms = order.terms
                    trades.append(
                        Trade(
                            team, order_id, terms.symbol, terms.side, event.qty, event.price, terms.order_type,
                            event.ts, terms.client_order_id, execution_id, "fill",
                        )
                    )  # fmt: skip
                    if kind is Fill:
                        del orders[order_id]
                        continue
                    if order.status != "pending_cancel":
                        order.status = "partially_filled"
                elif (status := kind.__struct_config__.tag) in ENDS:
                    del orders[order_id]
                    continue
                else:
                    order.status = status
                order.updated_at = event.ts
            file.write(encode(trades))
    with (out / "pending_orders.jsonl").open("wb") as rows:
        rows.write(encode([row(order, team) for order in sorted(orders.values(), key=placed_at)]))


def placed_at(order: Order) -> tuple[str, str]:
    return order.terms.ts, order.terms.order_id


def row(order: Order, team: str) -> dict[str, str | None]:
    found = msgspec.structs.asdict(order.terms)
    found |= {"team_id": team, "created_at": found.pop("ts"), "filled_qty": f"{order.filled:f}"}
    found |= {"status": order.status, "updated_at": order.updated_at}
    if order.filled:
        exact = Context(prec=60, rounding=ROUND_HALF_EVEN)
        average = exact.divide(order.money, order.filled).quantize(Decimal("1e-9"), context=exact)
        found["filled_avg_price"] = f"{average:f}"
    return found


def main(data: Path, out: Path) -> None:
    logs = sorted(data.glob("team/*/events.jsonl"))
    with ProcessPoolExecutor(min(len(logs), os.cpu_count() or 1)) as pool:
        for job in [pool.submit(fold, log, out / log.parent.name) for log in logs]:
            job.result()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
