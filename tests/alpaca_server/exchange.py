"""The truth: one account's orders and executions, and what may happen to them.

Every method does one thing that a broker does and tells the listeners of it; how that is worded is for `wire`, and who
hears it for `stream`. Note: some things happen without a word, because Alpaca is silent about them
too: legs of a bracket that start to work, or are canceled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from tests.alpaca_server.book import Number, OrderBook
from tests.alpaca_server.orders import Execution, Happening, Order, Refused, copy_of, team_of, terms_of
from tests.alpaca_server.sessions import EVENING, MORNING, SECOND, next_at

_ENDS = {"canceled": "canceled_at", "expired": "expired_at", "rejected": "failed_at"}


class Exchange(OrderBook):
    """One account at the broker. Safe to use from several threads; `listeners` are called with the lock held."""

    def __init__(self, seed: int = 0, start: str | None = None) -> None:
        super().__init__(seed, start)
        self.listeners: list[Callable[[Happening], None]] = []

    def place(
        self,
        symbol: str = "AAPL",
        side: str = "buy",
        qty: Number | None = None,
        *,
        notional: Number | None = None,
        team: str | None = None,
        client_order_id: str | None = None,
        at: int | None = None,
        quiet: bool = False,
        **terms: Any,
    ) -> Order:
        """Accept an order and tell of it (`pending_new` perhaps, then `new`). Returns it as it is then.

        `team` makes a client_order_id of the form team:uuid. `at` is the instant of submission, for ties. `quiet`
        leaves it `pending_new`. Terms are those of POST /v2/orders, legs and exits included. Raises Refused.
        """
        with self.lock:
            if qty is None and notional is None:
                qty = 10
            client_order_id = client_order_id or (f"{team}:{self._uuid()}" if team else self._uuid())
            if client_order_id in self.by_client_id:
                raise Refused(422, 40010001, "client_order_id must be unique")
            order = self._new_order(
                client_order_id, team or team_of(client_order_id), symbol, side, qty, notional, at, terms
            )
            for leg in self._new_legs(order, terms):
                order.legs.append(leg.id)
            self._tell("pending_new", order)
            if not quiet:
                self.accept(order.id)
            return order

    def accept(self, order_id: str, status: str = "new") -> None:
        """An order that was pending is now working; the legs of a multi-leg order with it."""
        with self.lock:
            order = self.orders[order_id]
            order.status = status
            self._touch(order, *(self._legs(order) if order.is_multi_leg else ()))
            for leg in self._legs(order) if order.is_multi_leg else ():
                leg.status = status
            self._tell(status, order)

    def fill(self, order_id: str, qty: Number | None = None, price: Number | None = None) -> Execution | None:
        """Fill so much of an order, all that is left by default. Returns the execution; None for a multi-leg order."""
        with self.lock:
            order = self.orders[order_id]
            if not order.is_open:
                raise Refused(422, 42210000, f"order is already {order.status}")
            price = Decimal(price) if price is not None else self._price(order)
            if order.is_multi_leg:
                self._fill_legs(order, Decimal(qty) if qty is not None else order.left or Decimal(1))
                return None
            if order.left is None:
                left = (order.notional or Decimal(100)) / price
                amount = Decimal(qty) if qty is not None else left.quantize(Decimal("1e-9"))
                is_last = qty is None
            else:
                amount = min(Decimal(qty), order.left) if qty is not None else order.left
                is_last = amount == order.left
            at = self.clock.tick()
            execution = self._execute(order, amount, price, at, is_last)
            self._filled(order, at, is_last)
            self._tell("fill" if is_last else "partial_fill", order, execution)
            if is_last:
                self._start_legs(order)
            return execution

    def cancel(self, order_id: str, *, wait: bool = False) -> None:
        """Ask for a cancel; with `wait` the order stays `pending_cancel` until `finish_cancel`. Raises Refused."""
        with self.lock:
            order = self._open(order_id, "cancelable")
            if order.status != "pending_cancel":
                order.status_before = order.status
                order.status = "pending_cancel"
                self._touch(order)
                self._tell("pending_cancel", order)
            if not wait:
                self.finish_cancel(order_id)

    def finish_cancel(self, order_id: str, *, rejected: bool = False) -> None:
        """What becomes of the request: canceled, legs and all, or `order_cancel_rejected`."""
        with self.lock:
            order = self.orders[order_id]
            if not order.is_open:
                return
            if rejected:
                order.status = order.status_before
                self._touch(order)
                self._tell("order_cancel_rejected", order)
            else:
                self._end(order, "canceled")

    def expire(self, order_id: str) -> None:
        """The order's time is over."""
        with self.lock:
            self._end(self._open(order_id, "open"), "expired")

    def reject(self, order_id: str) -> None:
        """The order is refused after it had been taken."""
        with self.lock:
            self._end(self._open(order_id, "open"), "rejected")

    def set_status(self, order_id: str, status: str, event: str | None = None) -> None:
        """Any other status, such as done_for_day, stopped, suspended, calculated or one that nobody knows."""
        with self.lock:
            order = self._open(order_id, "open")
            order.status = status
            self._touch(order)
            self._tell(event or status, order)

    def replace(
        self, order_id: str, *, loses: bool = False, rejected: bool = False, client_order_id: str | None = None,
        **terms: Any,
    ) -> Order:  # fmt: skip
        """Replace an order by a new one with other terms, which is returned.

        With `loses` a fill is faster: the old order is filled and the new one rejected. With `rejected` the new one is
        rejected, and the old one lives on. Raises Refused.
        """
        with self.lock:
            old = self._open(order_id, "replaceable")
            if client_order_id and client_order_id in self.by_client_id:
                raise Refused(422, 40010001, "client_order_id must be unique")
            old.status_before, old.status = old.status, "pending_replace"
            self._touch(old)
            self._tell("pending_replace", old)
            at = self.clock.tick()
            new = replace(
                old,
                id=self._uuid(), client_order_id=client_order_id or self._uuid(), created_at=at, submitted_at=at,
                updated_at=at, status="pending_new", replaces=old.id, replaced_by=None, executions=[], legs=[],
                filled_at=None, replaced_at=None, filled=Decimal(0), cost=Decimal(0), net_price=None,
                **terms_of({name: value for name, value in terms.items() if value is not None}),
            )  # fmt: skip
            self._add(new)
            if loses or rejected:
                self._lose(old, new, fills=loses)
                return new
            new.legs = old.legs
            for leg in self._legs(new):
                leg.parent = new.id
            old.replaced_by, old.replaced_at, old.status = new.id, self.clock.tick(), "replaced"
            self._touch(old)
            self._tell("replaced", old)
            self.accept(new.id)
            return new

    def bust(self, execution_id: str) -> None:
        """Take an execution back; the order keeps its status."""
        with self.lock:
            execution = self.executions[execution_id]
            order = self.orders[execution.order_id]
            assert not execution.busted
            execution.busted = True
            order.recount()
            self._revise("trade_bust", order, replace(execution, qty=-execution.qty, id=self._uuid()), execution_id)

    def correct(self, execution_id: str, qty: Number, price: Number) -> str:
        """Give an execution another quantity and price. Returns its new id."""
        with self.lock:
            execution = self.executions[execution_id]
            order = self.orders[execution.order_id]
            assert not execution.busted
            execution.qty, execution.price, execution.corrected = Decimal(qty), Decimal(price), True
            execution.id = self._uuid()
            self.executions[execution.id] = execution
            order.recount()
            self._revise("trade_correct", order, replace(execution), execution_id)
            return execution.id

    def adjust(self, order_id: str, **terms: Any) -> None:
        """Other terms that nobody is told of, as after a dividend, a split or with a trailing stop. Raises Refused."""
        with self.lock:
            order = self._open(order_id, "adjustable")
            for name, value in terms_of(terms).items():
                setattr(order, name, value)
            self._touch(order)

    def next_day(self) -> None:
        """The session ends: day orders expire, the others live on; and the clock goes to the next morning."""
        with self.lock:
            for order in list(self.orders.values()):
                if order.is_open and order.time_in_force == "day" and order.parent is None:
                    self._end(order, "expired")
                elif order.status == "new" and order.parent is None and self.rng.random() < 0.3:
                    self.set_status(order.id, "done_for_day")
            self._advance_to(next_at(self.clock.now(), MORNING))

    def next_evening(self) -> None:
        """The clock goes to the last second before 20:00 in New York, when a trading day ends and the next one begins;
        all orders live on."""
        with self.lock:
            self._advance_to(next_at(self.clock.now() + SECOND, EVENING) - SECOND)

    # What the above is made of.

    def _advance_to(self, at: int) -> None:
        self.clock.advance((at - self.clock.now()) / SECOND)

    def _fill_legs(self, order: Order, qty: Decimal) -> None:
        at = self.clock.tick()
        is_last = qty >= (order.left or qty)
        done = []
        for leg in self._legs(order):
            done.append(self._execute(leg, qty * leg.ratio, self._price(leg), at, is_last))
            self._filled(leg, at, is_last)
        signs = {leg.id: (1 if leg.side == order.side else -1) * leg.ratio for leg in self._legs(order)}
        price = sum((one.price * signs[one.order_id] for one in done), Decimal(0))
        total = order.filled + qty
        order.net_price = ((order.net_price or Decimal(0)) * order.filled + price * qty) / total
        order.net_price = order.net_price.quantize(Decimal("1e-9")).normalize()
        order.filled = total
        self._filled(order, at, is_last)
        summary = Execution("", order.id, "", at, qty, price, total, order.left, is_last)
        self._tell("fill" if is_last else "partial_fill", order, summary, tuple(replace(one) for one in done))

    def _filled(self, order: Order, at: int, is_last: bool) -> None:
        order.filled_at = at if is_last else None
        order.updated_at = at
        if is_last:
            order.status = "filled"
        elif order.status not in ("pending_cancel", "pending_replace"):
            order.status = "partially_filled"
        else:
            order.status_before = "partially_filled"

    def _start_legs(self, order: Order) -> None:
        """The entry is filled, so its exits work, and nobody is told; or an exit is, so the other one goes."""
        for leg in self._legs(order) if order.order_class in ("bracket", "oto") else ():
            if leg.status == "held" and (leg.type == "limit" or order.order_class == "oto"):
                leg.status = "new"
                self._touch(leg)
        for other in self._rivals(order):
            if other.is_open:
                self._end(other, "canceled")

    def _rivals(self, order: Order) -> list[Order]:
        """The exits that end when this one is filled."""
        if order.is_multi_leg or order.order_class not in ("bracket", "oco"):
            return []
        if order.parent is None:
            return self._legs(order) if order.order_class == "oco" else []
        parent = self.orders[order.parent]
        family = [parent, *self._legs(parent)] if order.order_class == "oco" else self._legs(parent)
        return [one for one in family if one.id != order.id]

    def _end(self, order: Order, status: str) -> None:
        at = self.clock.tick()
        order.status = status
        setattr(order, _ENDS[status], at)
        self._touch(order)
        # That a leg ended with the others is often told nowhere.
        if order.parent is None or order.order_class == "mleg" or self.rng.random() < 0.5:
            self._tell(status, order)
        if order.parent is None and (order.executions == [] or order.order_class in ("mleg", "oco")):
            for leg in self._legs(order):
                if leg.is_open:
                    self._end_silently(leg, status) if order.is_multi_leg else self._end(leg, "canceled")

    def _end_silently(self, leg: Order, status: str) -> None:
        """A multi-leg order ends as a whole: only the parent is told."""
        leg.status = status
        setattr(leg, _ENDS[status], self.clock.tick())
        self._touch(leg)

    def _lose(self, old: Order, new: Order, fills: bool) -> None:
        old.status = old.status_before
        self._touch(old)
        if fills:
            self.fill(old.id)
        self._tell("order_replace_rejected", old)
        self._end(new, "rejected")

    def _revise(self, event: str, order: Order, execution: Execution, previous: str) -> None:
        at = self.clock.tick()
        self._touch(order)
        if order.parent is not None and order.order_class == "mleg":
            parent = self.orders[order.parent]
            self._touch(parent)
            summary = replace(execution, id="", order_id=parent.id)
            self._tell(event, parent, summary, (execution,), {order.id: previous}, at)
        else:
            self._tell(event, order, execution, (), {order.id: previous}, at)

    def _tell(
        self, event: str, order: Order, execution: Execution | None = None, legs: tuple[Execution, ...] = (),
        previous: Mapping[str, str] | None = None, at: int | None = None,
    ) -> None:  # fmt: skip
        copies = tuple(copy_of(leg) for leg in self._legs(order))
        when = at or (execution.at if execution is not None else order.updated_at)
        happening = Happening(
            event, when, copy_of(order), copies, execution and replace(execution), legs, previous or {}
        )
        for listener in self.listeners:
            listener(happening)

    def _touch(self, *orders: Order) -> None:
        at = self.clock.tick()
        for order in orders:
            order.updated_at = at

    def _open(self, order_id: str, what: str) -> Order:
        if order_id not in self.orders:
            raise Refused(404, 40410000, f"order not found for {order_id}")
        order = self.orders[order_id]
        if not order.is_open:
            raise Refused(422, 42210000, f'order is already in "{order.status}" state, not {what}')
        if order.parent is not None and order.order_class == "mleg":
            raise Refused(422, 42210000, "the legs of a multi-leg order live and end with it")
        return order
