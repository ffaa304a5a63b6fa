"""Generated order lives: what a broker and an unreliable wire may write into a log, for the laws.

`clean_lives` makes logs that the naive reference covers, `order_lives` everything else as well, `to_lines` turns
events into a log and `damaged` spoils its bytes. Note: the events of an order are first told in a sensible
order and then disturbed (shuffled, repeated, told by a second source), so that shrinking leads back to a life that a
person can follow. Ids and numbers are short for the same reason.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

Event = dict[str, Any]

START = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)
NEW_YORK = timezone(timedelta(hours=-5))
DAY = 86_400 * 10**9
MINUTE = 60 * 10**9

QUANTITIES = ["1", "2", "3", "0.5", "2.00", "0.000000001"]
PRICES = ["10", "11", "10.50", "0.25", "0", "-1.25", "0.000000003"]
SYMBOLS = ["AAPL", "BTC/USD", "AAPL260320C00190000"]
SOURCES = [None, "stream", "rest"]
CALM_GAPS = [MINUTE, 0, 1, 1_000_000]
WILD_GAPS = [MINUTE, 0, 1, 1_000_000, 999, -MINUTE, -DAY, 3 * DAY, 8 * DAY]


@dataclass
class Life:
    """An order while its story is being made up: what the broker knows, and the events told so far."""

    draw: DrawFn
    order_id: str
    wild: bool
    at: int = 0
    filled: Decimal = Decimal(0)
    executions: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def pick(self, values: list[Any]) -> Any:
        return self.draw(st.sampled_from(values))

    def maybe(self, **fields: Any) -> Event:
        """Those of the fields that the wire carries this time; all of them in a clean life."""
        return {name: value for name, value in fields.items() if not self.wild or self.pick([True, True, False])}

    def tell(self, name: str, **fields: Any) -> None:
        """Add an event at the next instant of this order."""
        self.at += self.pick(WILD_GAPS if self.wild else CALM_GAPS)
        self.events.append({"event": name, "order_id": self.order_id, "ts": written(self.draw, self.at), **fields})

    def next_execution(self) -> str:
        self.executions.append(f"x-{len(self.executions) + 1}")
        return self.executions[-1]


def written(draw: DrawFn, ns: int) -> str:
    """The instant so many nanoseconds after the start, in one of the notations of RFC 3339."""
    second, fraction = divmod(ns, 10**9)
    zone = draw(st.sampled_from([UTC, NEW_YORK]))
    digits = f"{fraction:09}".rstrip("0")
    if digits or draw(st.booleans()):
        digits = "." + (digits or "0")
    text = (START + timedelta(seconds=second)).astimezone(zone).isoformat()
    return text[:19] + digits + ("Z" if zone is UTC else text[19:])


def place(life: Life) -> None:
    """The order is sent; in a wild life some of its terms are not told yet."""
    quantity = life.pick(["3", "10", "2.5", "0.000000004"])
    terms = life.maybe(symbol=life.pick(SYMBOLS), side=life.pick(["buy", "sell"]), quantity=quantity)
    if life.wild:
        terms |= life.pick([{}, {"limit_price": "10.00"}, {"client_order_id": "c-1"}, {"order_status": "accepted"}])
        terms |= life.pick([{}, {}, {"created_at": written(life.draw, life.at)}, {"quantity": None, "notional": "50"}])
    life.tell(life.pick(["new", "pending_new", "accepted"]), **terms)


def partial_fill(life: Life, name: str = "partial_fill") -> None:
    """Some of the order is filled; in a wild life the id, the cumulative quantity or both may be missing."""
    qty, price = life.pick(QUANTITIES), life.pick(PRICES)
    life.filled += Decimal(qty)
    extra = life.maybe(execution_id=life.next_execution(), filled_qty=f"{life.filled:f}")
    if life.wild:
        extra |= life.pick([{}, {"order_status": "partially_filled"}, {"order_status": "filled"}])
        extra |= {"source": source} if (source := life.pick(SOURCES)) else {}
        price = life.pick([price, price, 12])
    life.tell(name, price=price, qty=qty, **extra)


def last_fill(life: Life) -> None:
    partial_fill(life, "fill")


def cancel(life: Life) -> None:
    """A cancel is requested, part of the order may fill while it is on its way, and it is done."""
    life.tell("pending_cancel")
    if life.pick([False, True]):
        partial_fill(life)
    if life.pick([True, False]):
        life.tell("canceled")


def end(life: Life) -> None:
    life.tell(life.pick(["canceled", "expired", "rejected", "cancelled", "filled"]))


def replace(life: Life) -> None:
    """The order is replaced by another, whose own events may come or not."""
    life.tell("pending_replace")
    life.tell("replaced", replaced_by=f"{life.order_id}r")


def other_status(life: Life) -> None:
    life.tell(life.pick(["accepted", "held", "done_for_day", "stopped", "suspended", "new"]))


def bust(life: Life) -> None:
    """An execution is busted: one that was told, or one that is told later or never."""
    names = life.executions or (["x-1"] if life.wild else [])
    if names:
        life.tell("trade_bust", previous_execution_id=life.pick(names))


def correct(life: Life) -> None:
    """An execution gets new numbers under a new id; each at most once in a clean life, where it has been told."""
    corrected = {event.get("previous_execution_id") for event in life.events}
    names = life.executions if life.wild else [name for name in life.executions if name not in corrected]
    if names:
        previous = life.pick(names)
        fields = {"price": life.pick(PRICES), "qty": life.pick(QUANTITIES)}
        life.tell("trade_correct", previous_execution_id=previous, execution_id=life.next_execution(), **fields)


def assign(life: Life) -> None:
    """The order goes to another team's ledger, or comes back; a moved order may be moved on."""
    number = sum(event["event"] == "assigned" for event in life.events)
    life.tell("assigned", event_id=f"a-{number}", **life.pick([{"to_team": "bravo"}, {"from_team": "bravo"}]))


def snapshot(life: Life) -> None:
    """The broker's answer: right, behind, or ahead of what the log tells."""
    known = life.filled + Decimal(life.pick(["0", "1", "0.5", "-1"]))
    fields: Event = {"filled_qty": f"{max(known, Decimal(0)):f}"}
    if known > 0:
        fields |= life.maybe(filled_avg_price=life.pick(["10.5", "10", "0.333333333"]))
    life.tell("snapshot", **fields, **life.pick([{}, {"order_status": "partially_filled"}, {"order_status": "new"}]))


def restate(life: Life) -> None:
    life.tell(
        "restated", **life.pick([{"limit_price": "9"}, {"quantity": "1"}, {"quantity": "20"}, {"order_status": "held"}])
    )


def reject_request(life: Life) -> None:
    request, answer = life.pick(
        [("pending_cancel", "order_cancel_rejected"), ("pending_replace", "order_replace_rejected")]
    )
    if life.pick([True, False]):
        life.tell(request)
    life.tell(answer, **life.pick([{}, {"order_status": "accepted"}, {"order_status": "filled"}]))


def surprise(life: Life) -> None:
    """Something that nobody has heard of, an end of the day's books, a status that contradicts its event."""
    beside: Event = life.pick([{}, {"order_status": "frozen"}, {"order_status": "expired"}])
    life.tell(life.pick(["order_paused", "calculated", "held"]), **beside)


def late_terms(life: Life) -> None:
    life.tell("accepted", symbol="AAPL", side="buy", **life.pick([{}, {"quantity": "3"}, {"limit_price": "7"}]))


def legs(life: Life) -> None:
    """A multi-leg fill; the first leg may have a life of its own among the other orders."""
    one = {"order_id": "o-1", "symbol": "AAPL", "side": "buy", "qty": "1", "price": "10", "execution_id": "x-1"}
    two = {
        "order_id": f"{life.order_id}l",
        "symbol": "BTC/USD",
        "side": "sell",
        "qty": "0.5",
        "price": "-1",
        "execution_id": "x-1",
    }
    life.tell(life.pick(["fill", "partial_fill"]), legs=life.pick([[two], [one, two], [two, one]]))


def crowded(life: Life) -> None:
    """One fill, told by two sources under two ids."""
    partial_fill(life)
    twin = {**life.events[-1], "execution_id": f"r-{len(life.executions)}", "source": "rest"}
    life.events.append(twin)


Beat = Callable[[Life], None]
CLEAN: list[Beat] = [partial_fill, other_status, cancel, last_fill, end, replace, bust, correct, assign]
WILD: list[Beat] = [
    *CLEAN,
    partial_fill,
    snapshot,
    restate,
    reject_request,
    surprise,
    late_terms,
    legs,
    crowded,
    snapshot,
]


@st.composite
def _life(draw: DrawFn, order_id: str, wild: bool) -> list[Event]:
    life = Life(draw, order_id, wild)
    if not wild or draw(st.sampled_from([True, True, True, False])):
        place(life)
    for beat in draw(st.lists(st.sampled_from(WILD if wild else CLEAN), min_size=0 if life.events else 1, max_size=6)):
        beat(life)
    return life.events


@st.composite
def _interleaved(draw: DrawFn, wild: bool, orders_max: int) -> list[Event]:
    """The lives of one to six orders in one log; within an order the events keep their order."""
    lives = [draw(_life(f"o-{number}", wild)) for number in range(1, draw(st.integers(1, orders_max)) + 1)]
    turns = draw(st.permutations([index for index, life in enumerate(lives) for _ in life]))
    queues = [iter(life) for life in lives]
    return [next(queues[turn]) for turn in turns]


@st.composite
def _repeated(draw: DrawFn, events: list[Event]) -> list[Event]:
    """Some of the events once more, anywhere after the first time."""
    result = list(events)
    for index in draw(st.lists(st.integers(0, max(len(events) - 1, 0)), max_size=3)) if events else []:
        place_in = result.index(events[index]) + 1
        result.insert(draw(st.integers(place_in, len(result))), events[index])
    return result


@st.composite
def _shuffled(draw: DrawFn, events: list[Event]) -> list[Event]:
    """A few events moved to another place, as a stream that reorders and a REST answer that is late would do."""
    result = list(events)
    for _ in range(draw(st.integers(0, 3)) if result else 0):
        moved = result.pop(draw(st.integers(0, len(result) - 1)))
        result.insert(draw(st.integers(0, len(result))), moved)
    return result


@st.composite
def _stamped(draw: DrawFn, events: list[Event]) -> list[Event]:
    """Ids of deliveries and times of recording on all, some or none of the lines; the clock never runs back."""
    identified, recorded = draw(st.booleans()), draw(st.booleans())
    clock, result = 0, []
    for number, event in enumerate(events):
        clock += draw(st.sampled_from([MINUTE, 0, 3 * DAY, 8 * DAY])) if recorded else 0
        extra: Event = {}
        if identified and draw(st.sampled_from([True, True, False])):
            extra["event_id"] = f"e-{events.index(event)}"
        if recorded and draw(st.sampled_from([True, True, True, False])):
            extra["recorded_at"] = written(draw, clock + number)
        result.append({**event, **extra})
    return result


@st.composite
def clean_lives(draw: DrawFn, *, orders_max: int = 6) -> list[Event]:
    """Events that `tests.reference` covers: terms first, every fill with its id, some events delivered twice."""
    return draw(_repeated(draw(_interleaved(False, orders_max))))


@st.composite
def order_lives(
    draw: DrawFn, *, orders_max: int = 6, shuffled: bool = True, repeated: bool = True, stamped: bool = True
) -> list[Event]:
    """Events of one to six orders with everything that sections 2 to 4 and 6 of the format speak of."""
    events = draw(_interleaved(True, orders_max))
    events = draw(_shuffled(events)) if shuffled else events
    events = draw(_repeated(events)) if repeated else events
    return draw(_stamped(events)) if stamped else events


def to_lines(events: Iterable[Event]) -> bytes:
    """The log of these events, one compact line each."""
    return b"".join(json.dumps(event, separators=(",", ":")).encode() + b"\n" for event in events)


GARBAGE = [
    b"\n",
    b"{}\n",
    b"  \r\n",
    b"\0\0\0\n",
    b"garbage\n",
    b'{"event":"new"}\n',
    b"\xff\xfe\n",
    b"[1]\n",
    b'{"a":"\xff"}\n',
]
FRAGMENTS = [
    b'{"event":"new","order_id":"o-',
    b"\0\0\0\0",
    b"{",
    b'{"a":[{"b":1},{',
    b"\xe2\x82",
    b"garbage ",
    b'{"event":"new","x":"\\',
]


@st.composite
def damaged(draw: DrawFn, log: bytes, *, losing: bool = False) -> bytes:
    """The log with garbage between its lines, fragments fused before them and line ends missing.

    No event is lost by it unless `losing`: then lines are torn as well, and the last one may have no end.
    """
    lines = log.splitlines(keepends=True)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines)))
        kind = draw(
            st.sampled_from(["garbage", "fragment", "fused", "windows", *(["torn", "tail", "nul"] if losing else [])])
        )
        lines = _spoiled(draw, lines, at, kind)
    return b"".join(lines)


def _spoiled(draw: DrawFn, lines: list[bytes], at: int, kind: str) -> list[bytes]:
    before, line, after = lines[:at], lines[at] if at < len(lines) else b"", lines[at + 1 :]
    if kind == "garbage":
        return [*before, draw(st.sampled_from(GARBAGE)), *([line] if line else []), *after]
    if not _is_whole(line):
        # Damage on damage can lose an event; only whole lines are spoiled further.
        return lines
    if kind == "torn":
        return [*before, line[: draw(st.integers(1, len(line) - 2))], *after]
    if kind == "tail":
        return [*before, line[: draw(st.integers(1, len(line) - 1))]]
    if kind == "nul":
        return [*before, line[:20] + b"\0\0" + line[22:], *after]
    if kind == "windows":
        return [*before, line[:-1] + b"\r\n", *after]
    if kind == "fragment":
        return [*before, draw(st.sampled_from(FRAGMENTS)) + line, *after]
    return [*before, line[:-1] + after[0], *after[1:]] if after and _is_whole(after[0]) else lines


def _is_whole(line: bytes) -> bool:
    """Whether this is a line that `to_lines` made and nothing has spoiled."""
    return (
        line.startswith(b'{"event":') and b'"ts":' in line and line.count(b'{"event":') == 1 and line.endswith(b"}\n")
    )
