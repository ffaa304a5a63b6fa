"""The plain case of the common events: a placement, an execution, a status, taken where they stand.

It is an optimisation and nothing else. An event is taken here only if every condition under which the rules come to the
plain result holds; any other one is left to `Fold.feed_line`, and the laws compare the two ways. What surprises: every
type of event has functions of its own, copied from one source. The interpreter remembers at each place in a function
where a field of the last type lies, and with one type a function it is always right, which halves the time.
"""

from collections import Counter
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from operator import attrgetter
from types import FunctionType
from typing import TYPE_CHECKING, Any

from compactor.core.decimals import DIGITS_MAX, BadDecimal
from compactor.core.derived import Trade
from compactor.core.events import EVENTS, FILLS, LEAN, PLACEMENTS, TERMS
from compactor.core.instants import is_common, moment
from compactor.core.lifecycle import LIFE, OPEN, REQUESTS, TERMINAL, Effect
from compactor.core.orders import Fill, Order
from compactor.core.rules import note_delivery

if TYPE_CHECKING:
    from compactor.core.fold import Fold

Take = Callable[["Fold", Any, int, str | None], bool]
"""Takes an event that stands at an offset, of a ledger of a team; whether it did."""

_PLAIN = (Effect.OPENS, Effect.REQUESTS, Effect.ENDS)
_carried: Any = attrgetter(*TERMS)
_read = datetime.fromisoformat


_AMOUNTS_MAX = 1 << 15
_amounts: dict[str, Decimal] = {}
_known = _amounts.get


def _amount(text: str | None) -> Decimal:
    """Read a decimal above zero in plain notation; anything else is not for the short path.

    Prices and quantities repeat, so that `_known` mostly spares the call.
    """
    if text is None:
        raise BadDecimal("nothing")
    # Digits around at most one point: cheaper to see than the whole grammar of a decimal.
    digits = text.replace(".", "", 1)
    if not (digits.isdigit() and digits.isascii() and text[0] != "." and text[-1] != "." and len(text) <= DIGITS_MAX):
        raise BadDecimal(text)
    value = Decimal(text)
    if not value:
        raise BadDecimal(text)
    if len(_amounts) >= _AMOUNTS_MAX:
        _amounts.clear()
    _amounts[text] = value
    return value


def feed_short(fold: "Fold", lines: list[bytes], events: list[Any], offset: int) -> None:
    """Fold the lines of a batch, whose decoded events are given, from an offset of the log on."""
    team_id, left = fold.known_team, []
    for line, event in zip(lines, events, strict=True):
        kind: Any = type(event)
        if not _TAKE[kind](fold, event, offset, team_id):
            left.append(kind)
            fold.feed_line(line, offset)
            team_id = fold.known_team
        offset += len(line) + 1
    # The rules have counted what was left to them.
    kinds: Counter[Any] = Counter(map(type, events))
    kinds.subtract(left)
    fold.counts.add({kind.event: number for kind, number in kinds.items()})


def _take(
    fold: "Fold", event: Any, offset: int, team_id: str | None, *, name: str, ends: bool, place: Any, change: Any
) -> bool:
    """What is the same for all: the delivery, the team, the time; then `place` or `change` the order."""
    try:
        ts, recorded_at, status = event.ts, event.recorded_at, event.order_status
        # `is_common`, written out for the most common length.
        if recorded_at is None or ts[4:20:3] != "--T::." or ts[-1] != "Z":
            return False
        if not 22 <= len(ts) <= 27 and not is_common(ts):
            return False
        # A status that says nothing that the event does not say itself (3.10).
        if status is not None and status not in OPEN and not (ends and status in TERMINAL):
            return False
        if event.team_id is not None and event.team_id != team_id:
            return False
        order_id, event_id = event.order_id, event.event_id
        order = fold.orders.get(order_id)
        if order is None:
            if not place(fold, event, order_id, ts, _read(ts), offset):
                return False
        else:
            if event_id is not None and order.delivered is not None and event_id + name in order.delivered:
                return False
            if not change(fold, order, event, ts, _read(ts), offset):
                return False
    except (ValueError, TypeError):
        return False
    if event_id is not None:
        note_delivery(order or fold.orders[order_id], event)
    if fold.clock is None or recorded_at > fold.clock:
        fold.clock = recorded_at
    if fold.touched is not None:
        fold.touched.add(order_id)
    return True


def _refuse(*_: Any) -> bool:
    return False


def _place(fold: "Fold", event: Any, order_id: str, ts: str, at: datetime, offset: int, *, name: str) -> bool:
    """The first event of an order, with plain terms and nothing else."""
    if not order_id or event.symbol is None or event.side is None:
        return False
    if not (event.notional is None and event.legs is None and event.execution_id is None and event.qty is None):
        return False
    target = _known(event.quantity) or _amount(event.quantity)
    for text in (event.limit_price, event.stop_price, event.trail_price, event.trail_percent, event.requested_price):
        if text is not None and text not in _amounts:
            _amount(text)
    for text in (event.price, event.filled_qty, event.filled_avg_price):
        # An order of which nothing is filled says so: `0` is fine where no rule reads it.
        if text is not None and text != "0" and text not in _amounts:
            _amount(text)
    if event.created_at is not None and event.created_at != ts:
        moment(event.created_at)
    if fold.may_know(order_id):
        return False
    fold.orders[order_id] = Order(order_id, offset, offset, name, False, at, ts, ts, ts, event, event.source, target)
    return True


def _take_fill(
    fold: "Fold", order: Order, event: Any, ts: str, at: datetime, offset: int, *, is_final: bool, is_wide: bool
) -> bool:
    """An execution that is new, or one that is told again in the same words."""
    if is_wide and not _adds_nothing(order, event):
        return False
    execution_id, qty, price, source, fills = event.execution_id, event.qty, event.price, event.source, order.fills
    reached = event.filled_qty
    if event.filled_avg_price is not None:
        _amount(event.filled_avg_price)
    if execution_id in fills:
        fill = fills[execution_id]
        if not (order.ended or not is_final) or fill.ts != ts or fill.qty != qty or fill.price != price:
            return False
        if fill.filled_qty != reached or fill.source != source:
            return False
        # It changes nothing but where the order's last event lies.
        order.last = offset
        return True
    target = order.target
    if order.ended or target is None or at <= order.updated or execution_id is None or order.mixed:
        return False
    if fills and source != order.source:
        return False
    filled = order.filled + (_known(qty) or _amount(qty))
    if filled > target or (filled == target and not is_final):
        return False
    if reached is not None and (_known(reached) or _amount(reached)) > filled:
        return False
    if price not in _amounts:
        _amount(price)
    trade_id, terms = f"{offset}-0", order.terms
    fills[execution_id] = Fill(execution_id, qty, price, reached, ts, source, trade_id)
    fold.derived.trades.append(
        Trade(
            trade_id, fold.team_id, order.order_id, terms.symbol, terms.side, qty, price, terms.requested_price,
            terms.order_type, ts, terms.broker_order_id, terms.client_order_id, execution_id, "fill", offset=offset,
        )
    )  # fmt: skip
    order.filled, order.source = filled, source
    if is_final:
        order.status, order.ended = "filled", True
        fold.leaving.append(order)
    elif order.status not in REQUESTS:
        order.status = "partially_filled"
    order.last, order.updated = offset, at
    order.updated_at = order.status_at = ts
    return True


def _take_status(
    fold: "Fold", order: Order, event: Any, ts: str, at: datetime, offset: int,
    *, status: str, ends: bool, asks: bool, is_wide: bool,
) -> bool:  # fmt: skip
    """A status event that leads to the status of its own name."""
    if order.ended or order.target is None or at <= order.updated or (is_wide and not _adds_nothing(order, event)):
        return False
    if is_wide and not (event.execution_id is None and event.qty is None and _are_numbers(event)):
        return False
    if ends:
        order.ended = True
        fold.leaving.append(order)
    elif asks and order.status not in REQUESTS:
        order.before = order.status
    order.status = status
    order.last, order.updated = offset, at
    order.updated_at = order.status_at = ts
    return True


def _adds_nothing(order: Order, event: Any) -> bool:
    """Whether the terms that an event carries are known in the same words."""
    if order.target is None or event.legs is not None:
        return False
    found, known = _carried(event), _carried(order.terms)
    return bool(found == known) or all(
        ours is None or ours == theirs for ours, theirs in zip(found, known, strict=True)
    )


def _are_numbers(event: Any) -> bool:
    for text in (event.price, event.filled_qty, event.filled_avg_price):
        if text is not None and text != "0" and text not in _amounts:
            _amount(text)
    return True


# One function a type.


def _copied(function: Callable[..., bool], **bound: Any) -> Any:
    """A copy of a function with a memory of its own for the types that it meets, and with arguments that are bound."""
    assert isinstance(function, FunctionType)
    copy = FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
    copy.__kwdefaults__ = bound
    return copy


def _take_of(kind: Any, is_wide: bool) -> Take:
    name, row = kind.event, LIFE[kind.event]
    ends, place, change = row.effect is Effect.ENDS, _refuse, _refuse
    if name in FILLS:
        change = _copied(_take_fill, is_final=ends, is_wide=is_wide)
    elif row.effect in _PLAIN:
        asks = row.effect is Effect.REQUESTS
        change = _copied(_take_status, status=row.status, ends=ends, asks=asks, is_wide=is_wide)
    if kind in PLACEMENTS:
        place = _copied(_place, name=name)
    return _copied(_take, name=name, ends=ends, place=place, change=change) if change is not _refuse else _refuse


_TAKE: dict[type, Take] = {kind: _take_of(kind, is_wide=True) for kind in EVENTS.values()}
_TAKE |= {kind: _take_of(kind, is_wide=False) for kind in LEAN.values() if kind not in _TAKE}
