"""A random but seeded life on the exchange: orders of several teams are placed, filled, canceled, replaced, revised.

One call of `step` is one decision of somebody: a trader, the market or the clock. Note: on a
simulated clock a step may be the end of a day, so that orders good till canceled grow old within a run.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

from tests.alpaca_server.exchange import Exchange
from tests.alpaca_server.orders import Order, Refused
from tests.alpaca_server.sessions import in_new_york

TEAMS = ("alpha", "bravo", "charlie")
PRICES = {"AAPL": "181.50", "SPY": "529.98", "LTC/USD": "84.25", "BTC/USD": "85100.25", "F": "10"}
SHARE_WITH_ALGORITHMS = 0.3
"""Of lives, in which large orders are worked by an algorithm."""
THOUSAND = 1000
RARE = (
    "twap", "thousand_fills", "silent_terms", "replace_rejected", "bust", "bust_of_open_order", "correction",
    "overnight", "held_exit", "leg_fill",
)  # fmt: skip
"""What happens in few lives, and has to happen in some."""
OPTIONS = ("AAPL260320P00200000", "AAPL260320C00250000", "AAPL260320C00190000")


class Life:
    """Makes things happen on an exchange; the same seed on a fresh exchange makes the same things happen.

    Without `revisions` nothing is busted or corrected.
    `share_by_hand` of the orders belong to no team. With `open_max` no more are placed while so many are open.
    Without `families` no order has legs.
    """

    def __init__(
        self, exchange: Exchange, seed: int = 0, teams: Sequence[str] = TEAMS, *, revisions: bool = True,
        share_by_hand: float = 0.1,
        open_max: int | None = None,
        families: bool = True,
    ) -> None:  # fmt: skip
        self._exchange = exchange
        self._rng = random.Random(f"life {seed}")
        self._teams = teams
        self._share_by_hand = share_by_hand
        self._open_max = open_max
        self.drawn: Counter[str] = Counter()
        """How often each rare thing happened, by its name in RARE."""
        self._actions: list[tuple[int, Callable[[], object]]] = [
            (14, self._place),
            (5, self._place_family),
            (2, self._place_burst),
            (22, self._fill),
            (6, self._cancel),
            (4, self._finish_cancel),
            (5, self._replace),
            (3, self._odd_status),
            (2, self._expire),
            (1, self._reject),
            (2, self._adjust),
        ]
        if self._rng.random() < SHARE_WITH_ALGORITHMS:
            self._actions += [(3, self._place_twap), (6, self._work_twap)]
        if not families:
            self._actions.remove((5, self._place_family))
        if revisions:
            self._actions += [(2, self._bust), (2, self._correct)]
        if exchange.clock.simulated:
            self._actions += [(10, self._wait), (1, exchange.next_day), (2, self._stay_up)]

    def live(self, steps: int) -> None:
        """Take so many steps."""
        for _ in range(steps):
            self.step()

    def step(self) -> None:
        """Let one thing happen, if there is an order that it can happen to."""
        is_full = self._open_max is not None and self._count_open() >= self._open_max
        placing = (self._place, self._place_family, self._place_burst, self._place_twap)
        choices = [(weight, action) for weight, action in self._actions if not (is_full and action in placing)]
        action = self._rng.choices([action for _, action in choices], [weight for weight, _ in choices])[0]
        # Somebody may ask for what cannot be; that happens as well.
        with self._exchange.lock, contextlib.suppress(Refused):
            action()

    def _place(self, **terms: Any) -> Order:
        symbol = terms.pop("symbol", None) or self._rng.choice(list(PRICES))
        found: dict[str, Any] = {
            "side": self._rng.choice(("buy", "sell")),
            "time_in_force": self._rng.choice(("day", "gtc", "gtc")),
            "quiet": self._rng.random() < 0.05,
        }
        if self._rng.random() < 0.1 and not terms:
            found |= {"notional": self._rng.choice(("10", "250.50", "1000")), "type": "market"}
        else:
            found |= {"qty": self._quantity(symbol)} | ({} if "type" in terms else self._prices(symbol))
        if self._rng.random() >= self._share_by_hand:
            found["team"] = self._rng.choice(self._teams)
        return self._exchange.place(symbol, **(found | terms))

    def _prices(self, symbol: str) -> dict[str, str]:
        kind = self._rng.choice(("limit", "limit", "limit", "market", "stop", "stop_limit", "trailing_stop"))
        price = Decimal(PRICES[symbol]) + self._rng.randrange(-5, 6) * Decimal("0.25")
        found = {"type": kind}
        if kind in ("limit", "stop_limit"):
            found["limit_price"] = str(price)
        if kind in ("stop", "stop_limit"):
            found["stop_price"] = str(price - 1)
        if kind == "trailing_stop":
            found |= self._rng.choice(({"trail_price": "1.5"}, {"trail_percent": "2"}))
        return found

    def _quantity(self, symbol: str) -> str:
        if "/" in symbol:
            return self._rng.choice(("0.05", "1.5", "271", "0.000000003", "12.345678901"))
        return str(self._rng.choice((1, 2, 5, 10, 100)))

    def _place_family(self) -> None:
        """An order with exits, or one with several legs."""
        kind = self._rng.choice(("bracket", "bracket", "oto", "oco", "mleg", "mleg"))
        base = Decimal(PRICES["AAPL"])
        exits: dict[str, Any] = {"stop_loss": {"stop_price": str(base - 10)}}
        if kind in ("bracket", "oco"):
            exits["take_profit"] = {"limit_price": str(base + 10)}
        if kind == "mleg":
            legs = [
                {"symbol": symbol, "side": side, "ratio_qty": str(self._rng.choice((1, 1, 2)))}
                for symbol, side in zip(self._rng.sample(OPTIONS, 2), ("buy", "sell"), strict=True)
            ]
            self._place(symbol="-", qty="4", type="limit", limit_price="0.6", order_class=kind, legs=legs, side="buy")
        else:
            price = base + 10 if kind == "oco" else base
            self._place(symbol="AAPL", qty="10", type="limit", limit_price=str(price), order_class=kind, **exits)
            self.drawn["held_exit"] += 1

    def _place_burst(self) -> None:
        """Several orders of one instant."""
        at = self._exchange.clock.tick()
        for _ in range(self._rng.randint(2, 6)):
            self._place(at=at)

    def _place_twap(self) -> None:
        """A large order that an algorithm works."""
        start = in_new_york(self._exchange.clock.now())
        instructions = {
            "algorithm": self._rng.choice(("TWAP", "TWAP", "VWAP")), "max_percentage": "0.314",
            "start_time": start.isoformat(), "end_time": (start + timedelta(hours=2)).isoformat(),
        }  # fmt: skip
        qty = str(self._rng.choice((300, 3000, 5000)))
        self._place(symbol="SPY", qty=qty, type="market", order_class="", advanced_instructions=instructions)

    def _work_twap(self) -> None:
        """The algorithm goes on: many small executions, several in a second; now and then a thousand at once."""
        order = self._pick(lambda order: order.advanced_instructions is not None and self._fills(order))
        if order is None:
            return
        slices = self._rng.choice((10, 20, 30, 40, 50)) if self._rng.random() < 0.8 else THOUSAND
        for _ in range(slices):
            if (order.left or 0) <= 1:
                break
            if self._exchange.clock.simulated:
                self._exchange.clock.advance(self._rng.choice((0, 0, 0.25, 2)))
            self._exchange.fill(order.id, min(order.left or 1, self._rng.choice((1, 1, 2, 3))))
        self.drawn["twap"] += 1
        self.drawn["thousand_fills"] += len(order.executions) >= THOUSAND

    def _adjust(self) -> None:
        """Terms change and nobody is told: a dividend lowers a limit, a trailing stop moves."""
        order = self._pick(
            lambda order: order.status in ("new", "held", "done_for_day") and order.limit_price is not None
        )
        if order is not None and order.limit_price is not None and order.limit_price > 1:
            self._exchange.adjust(order.id, limit_price=order.limit_price - Decimal("0.27"))
            self.drawn["silent_terms"] += 1

    def _fill(self) -> None:
        order = self._pick(self._fills)
        if order is None:
            return
        self.drawn["leg_fill"] += order.is_multi_leg
        left = order.left
        if self._rng.random() < 0.45 and (left is None or left > Decimal("0.00000001")):
            share = Decimal(self._rng.randint(1, 9)) / 10
            part = (left * share).quantize(Decimal("1e-9")) if left is not None else Decimal("0.01")
            if order.is_multi_leg or (left is not None and left == left.to_integral() and left > 1):
                part = max(Decimal(1), part.to_integral())
            if part > 0 and (left is None or part < left):
                self._exchange.fill(order.id, part)
                return
        self._exchange.fill(order.id)

    def _fills(self, order: Order) -> bool:
        """Whether the market fills this order: the legs of a multi-leg order are filled with it."""
        is_leg = order.parent is not None and order.order_class == "mleg"
        works = order.is_open and order.status not in ("held", "pending_new")
        return works and not is_leg and (order.left is None or order.left > 0)

    def _cancel(self) -> None:
        order = self._pick(lambda order: order.is_open and order.parent is None)
        if order is not None:
            self._exchange.cancel(order.id, wait=self._rng.random() < 0.5)

    def _finish_cancel(self) -> None:
        order = self._pick(lambda order: order.status == "pending_cancel")
        if order is not None:
            self._exchange.finish_cancel(order.id, rejected=self._rng.random() < 0.3)

    def _replace(self) -> None:
        order = self._pick(
            lambda order: order.is_open and order.status in ("new", "accepted", "partially_filled")
            and order.parent is None and order.type in ("limit", "stop_limit") and order.order_class in ("", "bracket")
        )  # fmt: skip
        if order is None or order.limit_price is None:
            return
        terms: dict[str, Any] = {"limit_price": order.limit_price + self._rng.choice((-1, 1)) * Decimal("0.25")}
        if order.qty is not None and order.order_class == "" and self._rng.random() < 0.5:
            terms["qty"] = order.qty + 1
        chance = self._rng.random()
        self._exchange.replace(order.id, loses=chance < 0.2, rejected=0.2 <= chance < 0.3, **terms)
        self.drawn["replace_rejected"] += chance < 0.3

    def _odd_status(self) -> None:
        order = self._pick(lambda order: order.status in ("new", "accepted") and order.parent is None)
        if order is None:
            return
        status = self._rng.choice(("accepted", "stopped", "suspended", "pending_review", "calculated", "order_asleep"))
        self._exchange.set_status(order.id, status)

    def _expire(self) -> None:
        order = self._pick(lambda order: order.is_open and order.parent is None)
        if order is not None:
            self._exchange.expire(order.id)

    def _reject(self) -> None:
        order = self._pick(lambda order: order.is_open and order.parent is None and not order.executions)
        if order is not None and not order.filled:
            self._exchange.reject(order.id)

    def _bust(self) -> None:
        only_open = self._rng.random() < 0.4
        order = self._pick(lambda order: bool(order.standing) and (order.is_open or not only_open))
        if order is not None:
            self.drawn["bust"] += 1
            self.drawn["bust_of_open_order"] += order.is_open
            self._exchange.bust(self._rng.choice(order.standing).id)

    def _correct(self) -> None:
        order = self._pick(lambda order: bool(order.standing) and order.order_class != "mleg")
        if order is None:
            return
        execution = self._rng.choice(order.standing)
        price = execution.price + self._rng.choice((-1, 1)) * Decimal("0.01")
        self.drawn["correction"] += 1
        qty = execution.qty if self._rng.random() < 0.5 or execution.qty <= 1 else execution.qty - 1
        self._exchange.correct(execution.id, qty, price if price > 0 else execution.price)

    def _wait(self) -> None:
        self._exchange.clock.advance(self._rng.choice((0.001, 0.5, 5, 60, 3600)))

    def _stay_up(self) -> None:
        """Trading goes on at 20:00 in New York, when the next trading day begins."""
        self._exchange.next_evening()
        order = self._pick(self._fills)
        if order is None:
            return
        self._exchange.fill(order.id, 1 if (order.left or 0) > 1 else None)
        self._exchange.clock.advance(1)
        if self._fills(order):
            self._exchange.fill(order.id)
            self.drawn["overnight"] += 1

    def _count_open(self) -> int:
        return sum(order.is_open for order in self._exchange.orders.values())

    def _pick(self, suits: Callable[[Order], bool]) -> Order | None:
        found = [order for order in self._exchange.orders.values() if suits(order)]
        return self._rng.choice(found) if found else None
