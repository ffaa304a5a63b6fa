"""Makes `fixtures/sample`: one trading day of a competition between three teams, the first thing that a newcomer sees.

`python -m tests.make_sample` writes the same bytes every time. The stories in it: plain market orders in one or
several fills, a limit order that fills partly and is canceled, a replace, a bracket whose legs are held until the
entry has filled, a crypto order with nine decimals, a call spread, a trade that is corrected and one that is busted,
a late fill, a duplicate, a snapshot after a gap in the stream whose fill arrives later, one status that nobody has
heard of, and one line that a crash has torn.
"""

import json
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

SAMPLE = Path(__file__).resolve().parent.parent / "fixtures" / "sample"
SEED = 20260302
OPENING = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)
PRICES = {"AAPL": 26418, "MSFT": 39872, "NVDA": 18105, "SPY": 68760, "TSLA": 40233, "AMD": 20340, "KO": 8031}

Event = dict[str, Any]


def dollars(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02}"


class Order:
    """An order at the broker: it knows its id and what has filled, and tells its events to its team's desk."""

    def __init__(self, desk: "Desk", at: datetime, terms: Event, *, name: str = "new") -> None:
        self.desk, self.at = desk, at
        self.id = desk.new_id()
        self.filled, self.value = Decimal(0), Decimal(0)
        created = {"created_at": desk.written(at)}
        self.tell(name, 12, **terms, client_order_id=desk.client_order_id(), **created, order_status=name)

    def tell(self, event: str, after_ms: int, **fields: Any) -> Event:
        self.at += timedelta(milliseconds=after_ms, microseconds=self.desk.random.randrange(1000))
        line = self.desk.line(event, self.id, self.at, fields)
        self.desk.lines.append(line)
        return line

    def fill(self, after_ms: int, qty: str, price: str, *, last: bool = False, told: bool = True) -> Event:
        """A fill; one that is not told happened at the broker while nobody listened."""
        self.filled += Decimal(qty)
        self.value += Decimal(qty) * Decimal(price)
        status = "filled" if last else "partially_filled"
        numbers = {"execution_id": self.desk.new_id(), "price": price, "qty": qty, "filled_qty": str(self.filled)}
        line = self.tell("fill" if last else "partial_fill", after_ms, order_status=status, **numbers)
        if not told:
            self.desk.lines.remove(line)
        return line

    @property
    def average(self) -> str:
        return f"{self.value / self.filled:.6f}".rstrip("0").rstrip(".")


class Desk:
    """A team's trading: its random numbers, its ids and the lines of its log in the order of their recording."""

    def __init__(self, team: str) -> None:
        self.team = team
        self.random = Random(f"{SEED} {team}")
        self.lines: list[Event] = []
        self.placed = 0
        self.prices = dict(PRICES)

    def new_id(self) -> str:
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def client_order_id(self) -> str:
        self.placed += 1
        return f"{self.team}-0302-{self.placed:04}"

    @staticmethod
    def written(at: datetime) -> str:
        return at.isoformat(timespec="microseconds").replace("+00:00", "Z")

    def line(self, event: str, order_id: str, at: datetime, fields: Event) -> Event:
        recorded = at + timedelta(milliseconds=2 + self.random.randrange(9))
        head = {"event": event, "order_id": order_id, "ts": self.written(at), "recorded_at": self.written(recorded)}
        return {**head, "event_id": self.new_id(), "team_id": self.team, "source": "stream", **fields}

    def price(self, symbol: str) -> int:
        """The price of the moment in cents; it wanders."""
        before = self.prices[symbol]
        self.prices[symbol] = before + self.random.randrange(-9, 10) * before // 20_000
        return self.prices[symbol]


def terms(desk: Desk, symbol: str, side: str, quantity: str, order_type: str, **more: Any) -> Event:
    """What the order's first event says about it."""
    requested = {} if "requested_price" in more else {"requested_price": dollars(desk.price(symbol))}
    basis = {"symbol": symbol, "side": side, "quantity": quantity, "order_type": order_type, "time_in_force": "day"}
    return {**basis, **requested, **more}


def market(desk: Desk, at: datetime, symbol: str, side: str, parts: list[int]) -> Order:
    """A market order that is filled in these parts within a second."""
    order = Order(desk, at, terms(desk, symbol, side, str(sum(parts)), "market"))
    for part in parts[:-1]:
        order.fill(80 + desk.random.randrange(200), str(part), dollars(desk.price(symbol)))
    order.fill(60, str(parts[-1]), dollars(desk.price(symbol)), last=True)
    return order


def limit(desk: Desk, at: datetime, symbol: str, side: str, quantity: int, **more: Any) -> Order:
    """A limit order at the price of the moment; what becomes of it is told by the caller."""
    price = dollars(desk.price(symbol))
    order = Order(
        desk, at, terms(desk, symbol, side, str(quantity), "limit", limit_price=price, **more), name="pending_new"
    )
    order.tell("new", 25, order_status="new")
    return order


def cancel(order: Order, after_ms: int) -> None:
    order.tell("pending_cancel", after_ms, order_status="pending_cancel")
    order.tell("canceled", 40, order_status="canceled")


def routine(desk: Desk, symbols: list[str], rounds: int) -> None:
    """The day of a strategy: in and out, limit orders that fill or are given up."""
    for number in range(rounds):
        at = OPENING + timedelta(minutes=3 + number * (370 // rounds), seconds=desk.random.randrange(60))
        symbol, size = desk.random.choice(symbols), desk.random.choice([10, 25, 40, 100])
        if desk.random.randrange(4):
            parts = [size] if desk.random.randrange(3) else [size * 2 // 5, size - size * 2 // 5]
            market(desk, at, symbol, "buy", parts)
            market(desk, at + timedelta(minutes=2), symbol, "sell", [size])
        else:
            order = limit(desk, at, symbol, "buy", size)
            if desk.random.randrange(2):
                order.fill(9_000, str(size), dollars(desk.price(symbol)), last=True)
            else:
                cancel(order, 60_000)


def bracket(desk: Desk, at: datetime) -> None:
    """An entry with take-profit and stop-loss: the legs are held until the entry has filled, then they wait."""
    entry = limit(desk, at, "NVDA", "buy", 50, order_class="bracket")
    common = {"order_class": "bracket", "parent_order_id": entry.id, "time_in_force": "gtc"}
    profit = Order(desk, at, terms(desk, "NVDA", "sell", "50", "limit", limit_price="187.50", **common), name="held")
    loss = Order(desk, at, terms(desk, "NVDA", "sell", "50", "stop", stop_price="176.00", **common), name="held")
    entry.fill(4_000, "20", "181.02")
    entry.fill(1_500, "30", "181.03", last=True)
    profit.tell("new", 6_000, order_status="new")
    waiting = Order(
        desk,
        at + timedelta(hours=1),
        terms(desk, "AMD", "buy", "30", "limit", limit_price="201.00", order_class="bracket"),
    )
    Order(
        desk,
        waiting.at,
        terms(desk, "AMD", "sell", "30", "stop", stop_price="196.00", **{**common, "parent_order_id": waiting.id}),
        name="held",
    )
    loss.tell("accepted", 6_100, order_status="accepted")


def partial_then_canceled(desk: Desk, at: datetime) -> None:
    """A third of the order fills, the rest is given up; one more fill had been on its way."""
    order = limit(desk, at, "KO", "buy", 300)
    order.fill(20_000, "60", "80.31")
    order.fill(5_000, "40", "80.31")
    cancel(order, 90_000)
    order.fill(15, "20", "80.30")


def replaced(desk: Desk, at: datetime) -> None:
    """The limit is moved towards the market: a new order takes the old one's place and stays open over night."""
    old = limit(desk, at, "TSLA", "sell", 15, time_in_force="gtc")
    old.fill(30_000, "5", "402.40")
    old.tell("pending_replace", 60_000, order_status="pending_replace")
    successor = Order(
        desk,
        old.at,
        terms(desk, "TSLA", "sell", "10", "limit", limit_price="405.00", time_in_force="gtc", replaces=old.id),
    )
    old.tell("replaced", 30, order_status="replaced", replaced_by=successor.id)


def corrected_and_busted(desk: Desk, at: datetime) -> None:
    """The exchange corrects the price of one trade and declares another erroneous."""
    wrong, void = market(desk, at, "SPY", "buy", [8]), market(desk, at, "SPY", "sell", [8])
    first, second = (
        next(line for line in desk.lines if line["order_id"] == order.id and line["event"] == "fill")
        for order in (wrong, void)
    )
    numbers = {"execution_id": desk.new_id(), "price": "687.15", "qty": "8"}
    wrong.tell("trade_correct", 900_000, previous_execution_id=first["execution_id"], order_status="filled", **numbers)
    busted = {"price": second["price"], "qty": "-8", "filled_qty": "0", "order_status": "filled"}
    void.tell("trade_bust", 960_000, previous_execution_id=second["execution_id"], **busted)


def crypto(desk: Desk, at: datetime) -> None:
    """Coins with nine decimals: one order fills in three parts, one is half filled when the day ends."""
    more = {"time_in_force": "gtc", "requested_price": "84210.5"}
    order = Order(desk, at, terms(desk, "BTC/USD", "buy", "0.05", "limit", limit_price="84250", **more))
    for ms, qty, price in [
        (700, "0.012345678", "84249.91"),
        (45, "0.007654321", "84249.915"),
        (2_000, "0.030000001", "84250"),
    ]:
        order.fill(ms, qty, price, last=qty == "0.030000001")
    rest = Order(
        desk, at + timedelta(hours=3), terms(desk, "BTC/USD", "sell", "0.05", "limit", limit_price="85100.25", **more)
    )
    rest.fill(41_000, "0.020000001", "85100.25")


def gap_in_the_stream(desk: Desk, at: datetime) -> None:
    """The stream was away for a minute: a REST answer tells of the fill first, the fill itself is delivered later."""
    order = limit(desk, at, "MSFT", "buy", 40)
    order.fill(2_000, "10", "398.60")
    missed = order.fill(30_000, "30", "398.72", told=False)
    answer = {"filled_qty": "40", "filled_avg_price": order.average, "order_status": "filled"}
    order.tell("snapshot", 45_000, source="rest", **answer)
    late = Desk.written(order.at + timedelta(minutes=2))
    desk.lines.append({**missed, "recorded_at": late})


def spread(desk: Desk, at: datetime) -> None:
    """A call spread for a debit: the parent is filled, the trades are its legs'."""
    parent = Order(
        desk,
        at,
        {"quantity": "1", "order_type": "limit", "limit_price": "2.15", "time_in_force": "day", "order_class": "mleg"},
    )
    sides = [("AAPL260320C00265000", "buy", "4.35"), ("AAPL260320C00270000", "sell", "2.22")]
    leg = [
        {"order_id": desk.new_id(), "execution_id": desk.new_id(), "symbol": s, "side": side, "qty": "1", "price": p}
        for s, side, p in sides
    ]
    parent.tell("fill", 3_000, price="2.13", qty="1", order_status="filled", legs=leg)


def oddities(desk: Desk, at: datetime) -> None:
    """A status that nobody has heard of, and a delivery that comes twice."""
    auction = limit(desk, at, "AAPL", "buy", 20, time_in_force="opg")
    auction.tell("pending_auction", 30_000, order_status="pending_auction")
    order = market(desk, at + timedelta(minutes=5), "AAPL", "buy", [12])
    again = next(line for line in desk.lines if line["order_id"] == order.id and line["event"] == "fill")
    desk.lines.append({**again, "recorded_at": Desk.written(order.at + timedelta(seconds=3))})


def log_of(desk: Desk, torn_at: int | None = None) -> bytes:
    """The team's log by time of recording; a crash may have torn a line, which the next writer then ended."""
    lines = [
        json.dumps(line, separators=(",", ":")).encode() + b"\n"
        for line in sorted(desk.lines, key=lambda line: line["recorded_at"])
    ]
    if torn_at is not None:
        lines.insert(torn_at, lines[torn_at][:187] + b"\n")
    return b"".join(lines)


def sample() -> dict[str, bytes]:
    """The logs of the three teams."""
    alpha, bravo, charlie = Desk("alpha"), Desk("bravo"), Desk("charlie")
    hour = timedelta(hours=1)
    routine(alpha, ["NVDA", "AMD", "AAPL"], 18)
    bracket(alpha, OPENING + hour)
    partial_then_canceled(alpha, OPENING + 2 * hour)
    oddities(alpha, OPENING + 4 * hour)
    routine(bravo, ["SPY", "KO"], 14)
    crypto(bravo, OPENING + hour)
    corrected_and_busted(bravo, OPENING + 3 * hour)
    routine(charlie, ["TSLA", "MSFT", "AAPL"], 16)
    replaced(charlie, OPENING + hour)
    gap_in_the_stream(charlie, OPENING + 2 * hour)
    spread(charlie, OPENING + 5 * hour)
    return {"alpha": log_of(alpha), "bravo": log_of(bravo), "charlie": log_of(charlie, torn_at=60)}


def main() -> None:
    for team, log in sample().items():
        path = SAMPLE / "team" / team / "events.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(log)


if __name__ == "__main__":
    main()
