"""A naive fold that is obviously right: it reads everything into memory, asks each question anew and remembers nothing.

Laws compare the product with it on the events of `stories.clean_lives()`. It answers two questions only: which orders
are open and with what numbers, and what stands of each execution in the end. Note: corrections and busts
are followed without regard to their order in the log, because rule 4.9 makes the outcome the same in any order.

It does not cover: fills without `execution_id` or told by two sources with two ids (4.3, 4.4), snapshots and inferred
trades (4.7, 4.8), fills before their symbol and side (4.5), legs (4.10), rejections of requests (3.6), `calculated`
(3.8), `restated`, `event_id`, `team_id`, a correction or a bust before its fill where the fill would reach the
quantity, corrections of a busted execution under a new id that is busted again, findings, the single lines of
`trades.jsonl` and their offsets, damaged lines. A clean log has none of these.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from compactor.core.decimals import exactly, plain, quotient
from compactor.core.instants import nanos

Event = Mapping[str, Any]
Row = dict[str, str]
Net = dict[tuple[str, str], tuple[Decimal, Decimal]]

TERMINAL = {"filled", "canceled", "cancelled", "expired", "rejected", "replaced"}
FILLS = {"fill", "partial_fill"}
WITHOUT_STATUS = {"trade_bust", "trade_correct", "assigned"}


def reference(events: Iterable[Event]) -> tuple[list[Row], Net]:
    """The rows of the open orders, sorted by `order_id`, and (quantity, price) of each execution that stands."""
    lives: dict[str, list[Event]] = {}
    events = list(events)
    told = {event["order_id"] for event in events}
    for event in events:
        lives.setdefault(event["order_id"], []).append(event)
    lives = {order_id: life for order_id, life in sorted(lives.items()) if not is_away(life)}
    open_lives = {order_id: life for order_id, life in lives.items() if not has_ended(life)}
    rows = [row(order_id, life) for order_id, life in open_lives.items()]
    rows += [{"order_id": name, "status": "new", "filled_qty": "0"} for name in successors(events) - told]
    rows.sort(key=lambda one: str(one["order_id"]))
    return rows, {(order_id, x): stand for order_id, life in lives.items() for x, stand in standing(life).items()}


def successors(events: list[Event]) -> set[str]:
    """3.9: the orders of which only the order that they replaced tells."""
    return {event["replaced_by"] for event in events if event["event"] == "replaced" and "replaced_by" in event}


def is_away(life: list[Event]) -> bool:
    """4.12: the last assignment says whose the order is; one that is delivered again says nothing."""
    moves = first_by("event_id", [event for event in life if event["event"] == "assigned"]).values()
    away, returns = False, 0
    for move in sorted(moves, key=life.index):
        returns += away and "to_team" not in move
        away = "to_team" in move or returns > 8
    return away


def has_ended(life: list[Event]) -> bool:
    """3.3, 3.4, 3.10: an order has ended as soon as anything in its life ended it, at whatever line."""
    return any(ends(life[: length + 1]) for length in range(len(life)))


def ends(life: list[Event]) -> bool:
    """Whether the last of these events says that the order is over, or the fills up to it reach the quantity."""
    quantity = newest(life, "quantity")
    filled = sum((qty for qty, _ in standing(life).values()), Decimal(0))
    names = {life[-1]["event"], life[-1].get("order_status")}
    return bool(names & TERMINAL) or "fill" in names or (quantity is not None and filled >= Decimal(quantity))


def standing(life: list[Event]) -> dict[str, tuple[Decimal, Decimal]]:
    """4.2, 4.9: each execution once, in its last corrected version, unless a bust names any of its versions."""
    fills = first_by("execution_id", [event for event in life if event["event"] in FILLS])
    corrections = first_by("previous_execution_id", [event for event in life if event["event"] == "trade_correct"])
    busts = {event["previous_execution_id"] for event in life if event["event"] == "trade_bust"}
    result = {}
    for execution_id, version in fills.items():
        names = [execution_id]
        while names[-1] in corrections:
            version = corrections[names[-1]]
            names.append(version["execution_id"])
        if not busts & set(names):
            result[names[-1]] = (Decimal(version["qty"]), Decimal(version["price"]))
    return result


def row(order_id: str, life: list[Event]) -> Row:
    """Section 5: terms from the newest event that has them, sums from the executions that stand."""
    with exactly():
        filled = sum((qty for qty, _ in standing(life).values()), Decimal(0))
        value = sum((qty * price for qty, price in standing(life).values()), Decimal(0))
    known = {"symbol": newest(life, "symbol"), "side": newest(life, "side"), "quantity": newest(life, "quantity")}
    average = {"filled_avg_price": plain(quotient(value, filled))} if filled else {}
    present = {name: value for name, value in known.items() if value is not None}
    return {"order_id": order_id, **present, "status": status(life), "filled_qty": plain(filled), **average}


def status(life: list[Event]) -> str:
    """3.3, 3.5: the newest status by its time; a request that is on its way outlasts partial fills."""
    result, newest, seen = "new", -1, set()
    for event in life:
        duplicate = event["event"] in FILLS and event["execution_id"] in seen
        seen.add(event.get("execution_id"))
        if event["event"] in WITHOUT_STATUS or duplicate or nanos(event["ts"]) < newest:
            continue
        newest = nanos(event["ts"])
        if event["event"] != "partial_fill":
            result = event["event"]
        elif result not in {"pending_cancel", "pending_replace"}:
            result = "partially_filled"
    return result


def newest(life: list[Event], term: str) -> Any:
    """3.2: the term of the newest event that carries it; of two of one instant, of the later one."""
    told = [event for event in life if event.get(term) is not None]
    return max(enumerate(told), key=lambda one: (nanos(one[1]["ts"]), one[0]))[1][term] if told else None


def first_by(name: str, events: list[Event]) -> dict[str, Event]:
    """The first event for each value of that field."""
    return {event[name]: event for event in reversed(events)}


def comparable_rows(rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    """The product's rows, cut to the fields that the reference knows and sorted as it sorts them."""
    names = ("order_id", "symbol", "side", "quantity", "status", "filled_qty", "filled_avg_price")
    return sorted(({name: row[name] for name in names if name in row} for row in rows), key=lambda row: row["order_id"])


def net_of(trades: Iterable[Mapping[str, Any]]) -> Net:
    """4.11: what the product's trade lines sum up to for each execution; what came to nothing is left out."""
    sums: Net = {}
    for trade in trades:
        key = (trade["order_id"], trade["execution_id"])
        quantity = sums[key][0] if key in sums else Decimal(0)
        sums[key] = (quantity + Decimal(trade["quantity"]), Decimal(trade["execution_price"]))
    return {key: stand for key, stand in sums.items() if stand[0] != 0}
