"""The plain case of the common events: a placement, an execution, a status, taken where they stand.

It is an optimisation and nothing else. An event is taken here only if every condition under which the rules come to the
plain result holds; any other one is left to `Fold.feed_line`, and the laws compare the two ways. What surprises: the
loop is one function on purpose, since a call costs as much as the rest of a branch, and every condition has to be
cheap.
"""

from datetime import datetime
from decimal import Decimal
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from compactor.core.decimals import DIGITS_MAX, BadDecimal
from compactor.core.derived import Trade
from compactor.core.events import LEAN_STATUSES, PLACEMENTS, TERMS, LeanFill, LeanPartialFill, PartialFill
from compactor.core.events import Fill as WideFill
from compactor.core.instants import is_common, moment
from compactor.core.lifecycle import LIFE, OPEN, REQUESTS, TERMINAL, Effect
from compactor.core.orders import Fill, Order
from compactor.core.rules import note_delivery

if TYPE_CHECKING:
    from compactor.core.fold import Fold

_PLAIN = (Effect.OPENS, Effect.REQUESTS, Effect.ENDS)
_carried: Any = attrgetter(*TERMS)
_numbers: Any = attrgetter("price", "filled_qty", "filled_avg_price")
_texts: Any = attrgetter(
    "limit_price", "stop_price", "trail_price", "trail_percent", "requested_price",
    "price", "filled_qty", "filled_avg_price",
)  # fmt: skip
_NO_TEXTS = (None,) * 8
_unusual: Any = attrgetter("notional", "legs", "execution_id", "qty")
_NOTHING_UNUSUAL = (None,) * 4


class Amounts(dict[str, Decimal]):
    """Decimals above zero in plain notation by their text; anything else is not for the short path.

    Prices and quantities repeat, so that reading one exactly mostly costs a look-up.
    """

    SIZE_MAX = 1 << 15

    def __missing__(self, text: str) -> Decimal:
        # Digits around at most one point: cheaper to see than the whole grammar of a decimal.
        if text is None:
            raise BadDecimal("nothing")
        digits = text.replace(".", "", 1)
        if not (
            digits.isdigit() and digits.isascii() and text[0] != "." and text[-1] != "." and len(text) <= DIGITS_MAX
        ):
            raise BadDecimal(text)
        value = Decimal(text)
        if not value:
            raise BadDecimal(text)
        if len(self) >= self.SIZE_MAX:
            self.clear()
        self[text] = value
        return value


_AMOUNT = Amounts()


def feed_short(fold: "Fold", lines: list[bytes], events: list[Any], offset: int) -> None:
    """Fold the lines of a batch, whose decoded events are given, from an offset of the log on."""
    orders, trades, touched = fold.orders, fold.derived.trades, fold.touched
    team_id, clock, left = fold.known_team, fold.clock, set[int]()
    written_team, amount, read = fold.team_id, _AMOUNT, datetime.fromisoformat
    for line, event in zip(lines, events, strict=True):
        order: Order | None = orders.get(event.order_id)
        ts = event.ts
        try:
            at = read(ts)
            recorded_at = event.recorded_at
            if (
                recorded_at is None
                or (event.order_status is not None and not _is_plain_status(event))
                or (event.team_id is not None and event.team_id != team_id)
                or (event.event_id is not None and order is not None and not _is_new_delivery(order, event))
                # `is_common`, written out for the most common length.
                or ts[4:20:3] != "--T::."
                or ts[-1] != "Z"
                or (not 22 <= len(ts) <= 27 and not is_common(ts))
            ):
                taken = False
            elif order is None:
                taken = type(event) in PLACEMENTS and _place(fold, event, at, offset)
            elif (
                (kind := type(event)) is not LeanFill
                and kind is not LeanPartialFill
                and kind not in LEAN_STATUSES
                and not _adds_nothing(order, event)
            ):
                taken = False
            elif (is_final := kind is LeanFill or kind is WideFill) or kind is LeanPartialFill or kind is PartialFill:
                execution_id, qty, price, fills = event.execution_id, event.qty, event.price, order.fills
                source = event.source
                if execution_id in fills:
                    # Told again in the same words: it changes nothing but where the order's last event lies.
                    taken = _is_told_again(order, fills[execution_id], event, is_final)
                    if taken:
                        order.last, order = offset, None
                elif (
                    order.ended
                    or at <= order.updated
                    or (target := order.target) is None
                    or execution_id is None
                    or order.mixed
                    or (source != order.source and fills)
                ):
                    taken = False
                else:
                    filled = order.filled + amount[qty]
                    taken = (
                        (filled <= target if is_final else filled < target)
                        and (event.filled_qty is None or amount[event.filled_qty] <= filled)
                        and amount[price] is not None
                        and (event.filled_avg_price is None or amount[event.filled_avg_price] is not None)
                    )
                if taken and order is not None:
                    trade_id = f"{offset}-0"
                    terms = order.terms
                    fills[execution_id] = Fill(execution_id, qty, price, event.filled_qty, ts, source, trade_id)
                    trades.append(
                        Trade(
                            trade_id, written_team, event.order_id, terms.symbol, terms.side, qty, price,
                            terms.requested_price, terms.order_type, ts, terms.broker_order_id, terms.client_order_id,
                            execution_id, "fill", None, None, offset,
                        )
                    )  # fmt: skip
                    order.filled, order.source = filled, source
                    if is_final:
                        order.status, order.ended = "filled", True
                        fold.leaving.append(order)
                    elif order.status not in REQUESTS:
                        order.status = "partially_filled"
            elif order.ended or at <= order.updated or order.target is None:
                taken = False
            else:
                taken = _set_status(fold, order, event)
        except (ValueError, TypeError):
            taken = False
        if taken:
            if order is not None:
                order.last, order.updated = offset, at
                order.updated_at = order.status_at = ts
            if event.event_id is not None:
                note_delivery(order or orders[event.order_id], event)
            if clock is None or recorded_at > clock:
                clock = recorded_at
            if touched is not None:
                touched.add(event.order_id)
        else:
            left.add(id(event))
            # The rules read and change what this loop holds in variables.
            fold.clock = clock
            fold.feed_line(line, offset)
            clock, team_id, written_team = fold.clock, fold.known_team, fold.team_id
        offset += len(line) + 1
    fold.clock = clock
    # The rules have counted what was left to them.
    fold.counts.add([event.event for event in events if id(event) not in left] if left else [e.event for e in events])


def _is_new_delivery(order: Order, event: Any) -> bool:
    return order.delivered is None or event.event_id + event.event not in order.delivered


def _is_plain_status(event: Any) -> bool:
    """Whether the `order_status` says nothing that the event does not say itself (3.10)."""
    if event.order_status in OPEN:
        return True
    row = LIFE.get(event.event)
    return row is not None and row.effect is Effect.ENDS and event.order_status in TERMINAL


def _is_told_again(order: Order, fill: Fill, event: Any, is_final: bool) -> bool:
    return (
        (order.ended or not is_final)
        and fill.ts == event.ts
        and fill.qty == event.qty
        and fill.price == event.price
        and fill.filled_qty == event.filled_qty
        and fill.source == event.source
        and (event.filled_avg_price is None or _AMOUNT[event.filled_avg_price] is not None)
    )


def _adds_nothing(order: Order, event: Any) -> bool:
    """Whether the terms that an event carries are known in the same words, and its numbers matter to no rule."""
    if order.target is None or event.legs is not None:
        return False
    found, known = _carried(event), _carried(order.terms)
    if found != known and not all(ours is None or ours == theirs for ours, theirs in zip(found, known, strict=True)):
        return False
    return type(event) in (WideFill, PartialFill) or (
        event.execution_id is None and event.qty is None and _are_numbers(_numbers(event))
    )


def _are_numbers(texts: tuple[str | None, ...]) -> bool:
    for text in texts:
        # An order of which nothing is filled says so: `0` is fine where no rule reads it.
        if text is not None and text != "0":
            _AMOUNT[text]
    return True


def _place(fold: "Fold", event: Any, at: datetime, offset: int) -> bool:
    """The first event of an order, with plain terms and nothing else."""
    order_id, ts = event.order_id, event.ts
    if not order_id or event.symbol is None or event.side is None or _unusual(event) != _NOTHING_UNUSUAL:
        return False
    target = _AMOUNT[event.quantity]
    texts = _texts(event)
    if texts != _NO_TEXTS:
        _are_numbers(texts)
    if event.created_at is not None and event.created_at != ts:
        moment(event.created_at)
    if fold.may_know(order_id):
        return False
    fold.orders[order_id] = Order(
        order_id, offset, offset, event.event, False, at, ts, ts, ts, event, event.source, target
    )  # fmt: skip
    return True


def _set_status(fold: "Fold", order: Order, event: Any) -> bool:
    """A status event that leads to the status of its own name."""
    row = LIFE.get(event.event)
    if row is None or row.status is None or row.effect not in _PLAIN:
        return False
    if row.effect is Effect.ENDS:
        order.ended = True
        fold.leaving.append(order)
    elif row.effect is Effect.REQUESTS and order.status not in REQUESTS:
        order.before = order.status
    order.status = row.status
    return True
