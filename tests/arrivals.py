"""What a broker tells of a few orders, in any order of arrival: messages, and what must come of them.

`order`, `update` and `activity` write Alpaca's messages; `derive` translates and folds them. `Life` lets a simulated
broker work an order at random and remembers the truth, and what it told of it by each channel.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from compactor.broker.alpaca.translate import translate
from compactor.core.decimals import plain
from compactor.core.fold import Fold
from compactor.core.instants import rfc3339
from tests.stories import START

Message = dict[str, Any]
_DAY = "2026-03-02T"
_START_NS = round(START.timestamp()) * 10**9


def order(name: str = "o-1", at: str = "14:30:00Z", **fields: Any) -> Message:
    """An order object as REST returns it."""
    placed = f"{_DAY}14:30:00Z"
    told: Message = {
        "id": name,
        "client_order_id": f"c-{name}",
        "created_at": placed,
        "updated_at": _DAY + at,
        "symbol": "AAPL",
    }
    told |= {"submitted_at": placed, "side": "buy", "type": "limit", "time_in_force": "gtc", "qty": "10"}
    told |= {"limit_price": "10.00", "order_class": "", "legs": None, "status": "new", "filled_qty": "0"}
    return told | {"filled_avg_price": None} | fields


def filled(
    reached: str, price: str, at: str, status: str = "partially_filled", name: str = "o-1", **fields: Any
) -> Message:
    """An order object of which so much is filled."""
    return order(name, at, status=status, filled_qty=reached, filled_avg_price=price, **fields)


def update(event: str, at: str, told: Message, **fields: Any) -> Message:
    """A message of the stream."""
    return {"stream": "trade_updates", "data": {"event": event, "timestamp": _DAY + at, "order": told, **fields}}


def execution(at: str, told: Message, qty: str, price: str, name: str) -> Message:
    """A message of the stream about a fill."""
    event = "fill" if told["status"] == "filled" and told["filled_qty"] == told["qty"] else "partial_fill"
    return update(event, at, told, execution_id=name, qty=qty, price=price)


def revision(event: str, at: str, told: Message, qty: str, price: str, *, of: str, name: str) -> Message:
    """A message of the stream about a bust or a correction."""
    return update(event, at, told, execution_id=name, previous_execution_id=of, qty=qty, price=price)


def activity(at: str, qty: str, price: str, reached: str, kind: str = "partial_fill", **fields: Any) -> Message:
    """A FILL activity, whose id is not the stream's."""
    told = {"id": f"20260302::{reached}", "activity_type": "FILL", "type": kind, "order_id": "o-1", "symbol": "AAPL"}
    told |= {"side": "buy", "price": price, "qty": qty, "cum_qty": reached, "transaction_time": _DAY + at}
    return told | fields


@dataclass(frozen=True)
class Outcome:
    """What a fold made of messages."""

    trades: list[Message]
    findings: list[str]
    rows: dict[str, Message]

    def sum_orders(self) -> dict[str, tuple[Decimal, Decimal]]:
        """The quantity and the value of each order's trades, without those that came to nothing."""
        sums: dict[str, tuple[Decimal, Decimal]] = {}
        for trade in self.trades:
            qty, value = sums.get(trade["order_id"], (Decimal(0), Decimal(0)))
            more = Decimal(trade["quantity"])
            sums[trade["order_id"]] = qty + more, value + more * Decimal(trade["execution_price"])
        return {name: found for name, found in sums.items() if any(found)}


def derive(messages: Iterable[Message]) -> Outcome:
    """Translate messages and fold them in this order; each trade has an id of its own."""
    log = b""
    for number, message in enumerate(messages):
        told = translate(json.loads(json.dumps(message)))
        assert not told.problems, told.problems
        for event in told.events:
            stamp = {"recorded_at": rfc3339(_START_NS + 10**15 + number)}
            log += json.dumps({name: event[name] for name in event if name != "raw"} | stamp).encode() + b"\n"
    fold = Fold("alpha", lambda *_: (), None)
    fold.feed(log, 0, shrinks=False)
    lines = fold.take_lines()
    trades, findings = ([json.loads(line) for line in text.splitlines()] for text in lines)
    rows = {row["order_id"]: row for row in map(json.loads, fold.pending_lines().splitlines())}
    assert len(trades) == len({trade["trade_id"] for trade in trades})
    return Outcome(trades, sorted(finding["kind"] for finding in findings), rows)


@dataclass
class _Order:
    """An order at the broker: as it is, and what stands of its executions as (id, quantity, price)."""

    told: Message
    fills: list[tuple[str, Decimal, Decimal]] = field(default_factory=list)


class Life:
    """What happens to an order and those that replace it, and what is told of it, by a random generator."""

    def __init__(self, chance: random.Random, *, revises: bool = False) -> None:
        self.chance = chance
        self.orders: dict[str, _Order] = {}
        self.frames: list[Message] = []
        self.activities: list[Message] = []
        self.answers: list[tuple[int, Message]] = []
        """Order objects, each with the number of frames before it."""
        self._now = _START_NS
        self._count = 0
        whole = chance.random() < 0.7
        total = Decimal(chance.choice(["1", "2", "5", "10"] if whole else ["0.75", "3.3333"]))
        self._place(total)
        self._smallest = Decimal(1) if whole else Decimal(0)
        steps = ["fill", "fill", "ask_to_cancel", "cancel", "expire", "end_day", "replace", "refuse_replace", "answer"]
        steps += ["bust", "correct"] if revises else []
        for _ in range(chance.randrange(2, 9)):
            if self.is_live(self._name):
                self._now += chance.choice([1, 250, 10**6, 10**9, 60 * 10**9, 3600 * 10**9])
                getattr(self, f"_{chance.choice(steps)}")(self.orders[self._name])

    def is_live(self, name: str) -> bool:
        """Whether the broker still works this order."""
        ended = ("filled", "canceled", "expired", "replaced")
        return self.orders[name].told["status"] not in ended

    def count(self) -> dict[str, tuple[Decimal, Decimal]]:
        """The quantity and the value of each order's executions that stand."""
        sums = {
            name: (sum((qty for _, qty, _ in one.fills), Decimal(0)), sum((q * p for _, q, p in one.fills), Decimal(0)))
            for name, one in self.orders.items()
        }
        return {name: found for name, found in sums.items() if any(found)}

    def tell(self) -> list[Message]:
        """All frames and answers in the order in which they happened."""
        told: list[Message] = []
        for number, frame in enumerate([*self.frames, None]):
            told += [answer for place, answer in self.answers if place == number]
            told += [frame] if frame is not None else []
        return told

    def list_orders(self) -> list[Message]:
        """The answer to a list of all orders, as of now."""
        return [dict(one.told) for one in self.orders.values()]

    def list_told(self) -> list[Message]:
        """The order objects as they are, to be changed."""
        return [one.told for one in self.orders.values()]

    def tell_ahead(self) -> None:
        """Let some frames carry their order as it is one or two frames later: a stream sends what is newest."""
        frames = self.frames
        for index, frame in enumerate(frames):
            name = frame["data"]["order"]["id"]
            later = [one["data"]["order"] for one in frames[index + 1 :] if one["data"]["order"]["id"] == name][:2]
            if later and frame["data"]["event"] in ("fill", "partial_fill", "new") and self.chance.random() < 0.35:
                frames[index] = {**frame, "data": {**frame["data"], "order": dict(self.chance.choice(later))}}

    def _place(self, qty: Decimal, **fields: Any) -> None:
        self._count += 1
        self._name = f"o-{self._count}"
        told = order(self._name, qty=plain(qty), **fields)
        told |= dict.fromkeys(("created_at", "submitted_at", "updated_at"), rfc3339(self._now))
        self.orders[self._name] = _Order(told)
        self._tell("new", self.orders[self._name])

    def _tell(self, event: str, one: _Order, **fields: Any) -> None:
        self._count += 1
        message = update(event, "", dict(one.told), event_id=f"e-{self._count}", **fields)
        message["data"]["timestamp"] = rfc3339(self._now)
        self.frames.append(message)

    def _change(self, one: _Order, status: str, event: str | None = None, **fields: Any) -> None:
        one.told |= {"status": status, "updated_at": rfc3339(self._now)} | fields
        self._tell(event or status, one)

    def _sum(self, one: _Order) -> None:
        qty = sum((qty for _, qty, _ in one.fills), Decimal(0))
        value = sum((qty * price for _, qty, price in one.fills), Decimal(0))
        average = plain(round(value / qty, 6)) if qty else None
        one.told |= {"filled_qty": plain(qty), "filled_avg_price": average, "updated_at": rfc3339(self._now)}

    def _fill(self, one: _Order) -> None:
        left = Decimal(one.told["qty"]) - Decimal(one.told["filled_qty"])
        part = max(self._smallest, left // 2 if self._smallest else left / 2)
        qty = left if self.chance.random() < 0.3 else part
        price = Decimal(self.chance.choice(["10", "10.01", "9.995", "10.123456"]))
        self._count += 1
        name = f"x-{self._count}"
        one.fills.append((name, qty, price))
        self._sum(one)
        is_filled = qty == left
        if is_filled or not one.told["status"].startswith("pending_c"):
            one.told["status"] = "filled" if is_filled else "partially_filled"
        kind = "fill" if is_filled else "partial_fill"
        self._tell(kind, one, execution_id=name, qty=plain(qty), price=plain(price))
        told = activity("", plain(qty), plain(price), one.told["filled_qty"], kind, order_id=one.told["id"])
        self.activities.append(told | {"id": f"20260302::{name}", "transaction_time": rfc3339(self._now)})

    def _ask_to_cancel(self, one: _Order) -> None:
        self._change(one, "pending_cancel")
        if self.chance.random() < 0.5:
            self._now += 10**6
            self._change(one, "partially_filled" if one.fills else "new", "order_cancel_rejected")

    def _cancel(self, one: _Order) -> None:
        self._change(one, "canceled", canceled_at=rfc3339(self._now))

    def _expire(self, one: _Order) -> None:
        self._change(one, "expired", expired_at=rfc3339(self._now))

    def _end_day(self, one: _Order) -> None:
        self._change(one, "done_for_day")

    def _replace(self, one: _Order) -> None:
        left = Decimal(one.told["qty"]) - Decimal(one.told["filled_qty"])
        old = one.told["id"]
        self._place(left, replaces=old)
        self._now += 1
        self._change(one, "replaced", replaced_by=self._name, replaced_at=rfc3339(self._now))

    def _refuse_replace(self, one: _Order) -> None:
        self._change(one, "pending_replace")
        self._now += 10**6
        self._change(one, "partially_filled" if one.fills else "new", "order_replace_rejected")

    def _answer(self, one: _Order) -> None:
        self.answers.append((len(self.frames), dict(one.told)))

    def _bust(self, one: _Order) -> None:
        if one.fills:
            name, qty, price = one.fills.pop(self.chance.randrange(len(one.fills)))
            self._sum(one)
            told = {"previous_execution_id": name, "qty": plain(-qty), "price": plain(price)}
            self._tell("trade_bust", one, execution_id=f"b-{name}", **told)

    def _correct(self, one: _Order) -> None:
        if one.fills:
            index = self.chance.randrange(len(one.fills))
            name, qty, price = one.fills[index]
            one.fills[index] = f"k-{name}", qty, price + Decimal("0.01")
            self._sum(one)
            told = {"previous_execution_id": name, "qty": plain(qty), "price": plain(price + Decimal("0.01"))}
            self._tell("trade_correct", one, execution_id=f"k-{name}", **told)
