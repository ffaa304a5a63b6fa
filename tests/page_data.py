"""Logs for the page: orders, brackets and fills of today, written as lines of `events.jsonl`."""

from __future__ import annotations

import json
import random
import time
import uuid
from pathlib import Path
from typing import Any

SYMBOLS = {
    "AAPL": 264.2, "AMD": 201.4, "BTC/USD": 91_230.5, "KO": 71.3, "MSFT": 512.7, "NVDA": 181.4, "SPY": 683.1,
    "TSLA": 431.9,
}  # fmt: skip
HOSTILE_ID = '<img src=x onerror="document.title=1"><script>document.title=2</script>\u202eevil'


class TeamLog:
    """Writes events of one team. Times are given in seconds before now."""

    def __init__(self, data: Path, team: str, seed: int = 0) -> None:
        self.path = data / "team" / team / "events.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.team = team
        self._random = random.Random(f"{team} {seed}")
        self._number = 0
        self.asks = False
        """Whether most orders are asked for here, before the broker has them."""

    def write(self, *events: dict[str, Any]) -> None:
        """Append whole lines."""
        with self.path.open("a") as log:
            log.write("".join(json.dumps(event) + "\n" for event in events))

    def place(self, seconds_ago: float = 0.0, status: str = "new", **terms: Any) -> dict[str, Any]:
        """A new order; the event that was written."""
        self._number += 1
        symbol = terms.pop("symbol", None) or self._random.choice(list(SYMBOLS))
        kind = self._random.choice(["limit", "limit", "market", "stop", "stop_limit"])
        price = SYMBOLS[symbol] * self._random.uniform(0.99, 1.01) if symbol in SYMBOLS else 100.0
        event = {
            "event": status, "order_id": str(uuid.UUID(int=self._random.getrandbits(128), version=4)),
            "ts": format_time(seconds_ago), "recorded_at": format_time(seconds_ago), "source": "stream",
            "symbol": symbol, "side": self._random.choice(["buy", "sell"]),
            "quantity": str(self._random.choice([5, 10, 25, 100, 250, 1200])), "order_type": kind,
            "time_in_force": self._random.choice(["day", "gtc"]), "requested_price": f"{price:.2f}",
            "client_order_id": f"{self.team}-{self._number:04d}", "created_at": format_time(seconds_ago),
        }  # fmt: skip
        if "limit" in kind:
            event["limit_price"] = f"{price:.2f}"
        if "stop" in kind:
            event["stop_price"] = f"{price * 0.98:.2f}"
        event.update(terms)
        is_asked = self.asks and self._number % 4 != 0 and "parent_order_id" not in event
        if is_asked:
            self.ask(event["client_order_id"], seconds_ago)
        self.write({name: value for name, value in event.items() if value is not None})
        if is_asked:
            self.conclude(event["client_order_id"], "submitted", seconds_ago, broker_order_id=event["order_id"])
        return event

    def ask(self, name: str, seconds_ago: float = 0.0, note: str | None = None, **terms: Any) -> None:
        """Say that an order will be asked for."""
        request = {"side": "buy", "quantity": "10", "order_type": "limit", "limit_price": "100.00", **terms}
        self._intend("submitting", name, seconds_ago, request=request, tags=["demo"], note=note)

    def conclude(self, name: str, outcome: str, seconds_ago: float = 0.0, **fields: Any) -> None:
        """Say what became of it."""
        self._intend(outcome, name, seconds_ago, **fields)

    def _intend(self, event: str, name: str, seconds_ago: float, **fields: Any) -> None:
        named = {"event": event, "order_id": name, "client_order_id": name, "ts": format_time(seconds_ago)}
        self.write({**named, **{field: value for field, value in fields.items() if value is not None}})

    def fill(self, order: dict[str, Any], quantity: int, filled: int, seconds_ago: float = 0.0) -> None:
        """A fill; `filled` is the sum with this one."""
        price = float(order["requested_price"]) * self._random.uniform(0.9995, 1.0006)
        self.write(
            {
                "event": "fill" if filled >= int(order["quantity"]) else "partial_fill", "order_id": order["order_id"],
                "ts": format_time(seconds_ago), "recorded_at": format_time(seconds_ago), "source": "stream",
                "execution_id": str(uuid.UUID(int=self._random.getrandbits(128), version=4)), "qty": str(quantity),
                "price": f"{price:.2f}", "filled_qty": str(filled),
                "raw": {"event": "fill", "price": f"{price:.2f}", "order": {"id": order["order_id"]}},
            }
        )  # fmt: skip

    def bracket(self, seconds_ago: float, symbol: str = "NVDA", quantity: str = "100") -> dict[str, Any]:
        """An entry that waits, with its target and its stop; the entry."""
        group = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
        terms: dict[str, Any] = {"symbol": symbol, "quantity": quantity, "order_class": "bracket", "group_id": group}
        entry = self.place(
            seconds_ago,
            side="buy",
            order_type="limit",
            limit_price="180.50",
            stop_price=None,
            group_role="entry",
            **terms,
        )
        for role, kind, prices in (
            ("take_profit", "limit", {"limit_price": "188.00", "stop_price": None}),
            ("stop_loss", "stop", {"stop_price": "176.00", "limit_price": None}),
        ):
            self.place(
                seconds_ago, status="held", side="sell", order_type=kind, group_role=role,
                parent_order_id=entry["order_id"], **prices, **terms,
            )  # fmt: skip
        return entry

    def day(self, filled: int = 40, open_orders: int = 10, hours: float = 5.0) -> None:
        """A day of trading: orders that filled, some brackets, and open orders of which some are filled in part."""
        span = hours * 3600
        for number in range(filled):
            ago = span * (1 - (number + 1) / filled) + 20
            order = self.place(ago)
            quantity = int(order["quantity"])
            first = quantity // 3
            if first:
                self.fill(order, first, first, ago - 5)
            self.fill(order, quantity - first, quantity, ago - 9)
        if open_orders >= 6:
            self.bracket(1900)
            open_orders -= 3
        for number in range(open_orders):
            order = self.place(span * self._random.random() ** 2 + 3)
            if number % 4 == 0:
                part = max(1, int(order["quantity"]) // 4)
                self.fill(order, part, part, 2)


def format_time(seconds_ago: float = 0.0) -> str:
    """RFC 3339, to the microsecond."""
    at = time.time() - seconds_ago
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1e6):06d}Z"
