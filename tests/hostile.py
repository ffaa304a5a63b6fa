"""Logs that a hostile team may write, each of at most 2 MB: made to cost time, memory or disk (`tests.fairness`).

Every function returns the bytes to append to a log. None of them needs more than the right to append.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

LOG_BYTES_MAX = 2_000_000
_TS = "2026-03-02T14:30:00.000000001Z"


def _line(event: str, order_id: str, **fields: Any) -> bytes:
    return (
        json.dumps({"event": event, "order_id": order_id, "ts": _TS, **fields}, separators=(",", ":")).encode() + b"\n"
    )


def _open(order_id: str, **fields: Any) -> bytes:
    return _line("new", order_id, symbol="SPY", side="buy", quantity="1000000", **fields)


def _cut(lines: list[bytes]) -> bytes:
    data = b"".join(lines)
    return data if len(data) <= LOG_BYTES_MAX else data[: data.rfind(b"\n", 0, LOG_BYTES_MAX) + 1]


def fills_without_ids() -> bytes:
    """Fills that neither an id nor a cumulative quantity tells apart: each may be any of those before it."""
    fills = [
        json.dumps(
            {
                "event": "partial_fill",
                "order_id": "h",
                "ts": f"2026-03-02T14:30:00.{number:09d}Z",
                "price": "1",
                "qty": "1",
            },
            separators=(",", ":"),
        ).encode()
        + b"\n"
        for number in range(1, 18_000)
    ]
    return _cut([_open("h"), *fills])


def fills_of_one_order() -> bytes:
    """As many fills of one order as a log of this size holds, each told by another source too."""
    fills = []
    for number in range(1, 9_000):
        told = {"price": "1", "qty": "1", "filled_qty": str(number)}
        fills.append(_line("partial_fill", "h", execution_id=f"x{number}", source="stream", **told))
        fills.append(_line("partial_fill", "h", execution_id=f"y{number}", source="rest", **told))
    return _cut([_open("h"), *fills])


def fills_above_what_remains() -> bytes:
    """Fills and busts in turn: after a bust, what is remembered of cumulative quantities has to be looked through."""
    lines = [_open("h")]
    for number in range(1, 7_000):
        lines.append(_line("partial_fill", "h", execution_id=f"x{number}", price="1", qty="1", filled_qty=str(number)))
        if number % 2:
            lines.append(_line("trade_bust", "h", previous_execution_id=f"x{number}"))
    return _cut(lines)


def ids_that_collide() -> bytes:
    """Order ids with one remainder modulo 2 ** 61 - 1, which is what Python's hash of a number is.

    A letter that becomes a small one adds 2 ** 61 to what its bytes stand for, and the letter seven further on takes 1
    away. Half of the orders end ten days before the others begin, so that only their marks are left.
    """
    ids = []
    for number in range(1 << 13):
        text = bytearray(b"AAAAAAABBBBBBBAAAAAAABBBBBBB")
        for bit in range(13):
            if number >> bit & 1:
                index = bit if bit < 7 else bit + 7
                text[index] += 0x20
                text[index + 7] -= 1
        ids.append(text.decode())
    assert len({hash(int.from_bytes(one.encode())) for one in ids}) == 1
    lines = []
    for number, order_id in enumerate(ids):
        day = "2026-03-02" if number < len(ids) // 2 else "2026-03-12"
        for event in ("new", "canceled"):
            event_line = {
                "event": event,
                "order_id": order_id,
                "ts": f"{day}T14:30:00Z",
                "symbol": "SPY",
                "side": "buy",
            }
            lines.append(json.dumps(event_line, separators=(",", ":")).encode() + b"\n")
    return _cut(lines)


def many_legs() -> bytes:
    """Fifty fills of a multi-leg order, each with three hundred legs: more than an event may have."""
    return _fill_legs(50, 300)


def as_many_legs_as_may_be() -> bytes:
    """Fills of a multi-leg order with a hundred legs each."""
    return _fill_legs(200, 100)


def _fill_legs(events: int, legs_each: int) -> bytes:
    lines = [_line("new", "h", order_class="mleg", quantity="1")]
    for event in range(events):
        legs = [
            {
                "order_id": f"l{leg}",
                "symbol": "SPY",
                "side": "buy",
                "qty": "1",
                "price": "1",
                "execution_id": f"{event}-{leg}",
            }
            for leg in range(legs_each)
        ]
        lines.append(_line("partial_fill", "h", legs=legs))
    return _cut(lines)


def assigned_to_and_fro() -> bytes:
    """An order with three thousand fills that goes to another team and comes back, again and again."""
    lines = [_open("h")]
    lines += [_line("partial_fill", "h", execution_id=f"x{number}", price="1", qty="1") for number in range(3_000)]
    for move in range(400):
        lines.append(_line("assigned", "h", **({"to_team": "bravo"} if move % 2 == 0 else {"from_team": "bravo"})))
    return _cut(lines)


def damaged_line() -> bytes:
    """One line of 980 kB: 480 events without line ends, then brackets that never close."""
    event = _open("h").rstrip(b"\n")
    return event * 480 + b'{"a":[' * 64 + b"[1]," * 200_000 + b"\n"


def one_line_of_events() -> bytes:
    """A line of 980 kB that is nothing but whole events."""
    event = _open("h").rstrip(b"\n")
    return event * (980_000 // len(event)) + b"\n"


def long_decimals() -> bytes:
    """Numbers with as many digits as may be, all different."""
    lines = [
        _line(
            "new",
            f"h{number}",
            symbol="SPY",
            side="buy",
            quantity=str(10**39 + number),
            limit_price=f"{10**38 + number}.5",
        )
        for number in range(6_000)
    ]
    return _cut(lines)


HOSTILE: dict[str, Callable[[], bytes]] = {
    make.__name__: make
    for make in (
        fills_without_ids,
        fills_of_one_order,
        fills_above_what_remains,
        ids_that_collide,
        many_legs,
        as_many_legs_as_may_be,
        assigned_to_and_fro,
        damaged_line,
        one_line_of_events,
        long_decimals,
    )
}
