"""Made-up event logs of a believable year of trading: `python -m tests.bench.generate OUT_DIR`.

What it makes: OUT_DIR/team/<name>/events.jsonl, lines as our own writer writes them (compact JSON, keys in the order
of format.md, `recorded_at` strictly rising), and nothing else: no findings come of it, because the benchmark measures
the common event. The odd ones live in fixtures/.

Note: a ledger never holds more than `--open` open orders, and once that many are open the next
order is placed only when one has ended. So a log of ten million events and one of ten thousand leave the same number
of rows in `pending_orders.jsonl`, and a difference between the two can only come from the length of the history.

The mix, in percent of the lines: 30 `new` with full terms, 30 `partial_fill`, 19 `fill`, 11 `canceled`, 7
`pending_cancel`, and 3 of `done_for_day`, `expired`, `rejected` and fills delivered a second time with the same
`execution_id`. The same arguments give the same bytes. Prices and quantities are counted in whole cents and whole
units, never in floats.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import sys
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.bench.progress import Bar

EVENTS_A_DAY = 27_400  # Ten million events are one year.
OPEN_ORDERS = 300
SEED = 20250102
BYTES_AN_EVENT = 236  # Only an estimate for the progress bar.

_DAY_NS = 86_400 * 10**9
_START_NS = int(datetime(2025, 1, 2, tzinfo=UTC).timestamp()) * 10**9
_DELAY_NS_MAX = 40_000_000  # From the broker's clock to our disk.
_STEP_NS_MIN = 8000  # So that two instants of the broker differ in their six digits.
_BATCH = 4096
_DUPLICATES_PER_MILLE = 15
_RECENT_FILLS = 2000  # A second delivery comes within the last so many fills: hours at the default density.

# How an order lives after its `new`, and how many of a thousand orders live so. The letters are the keys of _EVENT.
LIVES: dict[str, int] = {
    "F": 200, "PF": 205, "PPF": 120, "PPPF": 60, "PPPPPF": 22, "PDPF": 8, "DF": 6, "PKF": 9,
    "C": 70, "PC": 35, "PPC": 15, "KC": 92, "KPC": 16, "PKC": 76, "PPKC": 32, "PPPKC": 10,
    "E": 6, "PDE": 4, "PE": 3, "R": 11,
}  # fmt: skip

_EVENT = {
    "P": "partial_fill", "F": "fill", "C": "canceled", "K": "pending_cancel",
    "D": "done_for_day", "E": "expired", "R": "rejected",
}  # fmt: skip

# Symbol and the price, in cents, around which it trades.
SYMBOLS = (
    ("AAPL", 22_731), ("MSFT", 41_520), ("NVDA", 13_790), ("SPY", 58_412), ("QQQ", 51_066), ("TSLA", 37_925),
    ("AMD", 12_044), ("META", 60_377), ("GOOGL", 19_204), ("AMZN", 22_015), ("F", 986), ("KO", 6_212),
    ("XOM", 10_778), ("BAC", 4_401), ("PLTR", 7_519), ("SOFI", 1_488), ("IWM", 22_130), ("TLT", 8_702),
    ("BRK.B", 45_118), ("COIN", 25_610), ("BTC/USD", 9_688_410), ("ETH/USD", 345_277),
)  # fmt: skip


class _Order:
    """An open order of the made-up market; quantities in units of one share or of a thousandth."""

    __slots__ = ("cents", "filled", "fractional", "left", "life", "order_id", "step")

    def __init__(self, order_id: str, life: str, units: int, fractional: bool, cents: int) -> None:
        self.order_id, self.life, self.step = order_id, life, 0
        self.left, self.filled, self.fractional, self.cents = units, 0, fractional, cents


class _Uuids:
    """Random version 4 uuids, cut out of one long text because that is several times faster than uuid.UUID."""

    def __init__(self, rng: random.Random) -> None:
        self._rng, self._text, self._at = rng, "", 0

    def next(self) -> str:
        if self._at == len(self._text):
            self._text, self._at = self._rng.randbytes(16 * _BATCH).hex(), 0
        text, at = self._text, self._at
        self._at = at + 32
        tail = f"{text[at + 13 : at + 16]}-a{text[at + 17 : at + 20]}-{text[at + 20 : at + 32]}"
        return f"{text[at : at + 8]}-{text[at + 8 : at + 12]}-4{tail}"


class _Clock:
    """Evenly spread instants with a jitter, as RFC 3339: the broker's with six digits, ours with nine."""

    def __init__(self, rng: random.Random, events: int, days: float) -> None:
        # Days may be a fraction; the instants are whole nanoseconds from here on.
        self._rng, self._step = rng, max(_STEP_NS_MIN, int(days * _DAY_NS) // max(1, events))
        self._delay = min(_DELAY_NS_MAX, self._step // 4)
        self._at, self._minute, self._prefix = _START_NS, -1, ""

    def next(self) -> tuple[str, str]:
        """`ts` and `recorded_at` of the next event. Both rise strictly: jitter and delay stay below half a step."""
        self._at += self._step
        noise = self._rng.getrandbits(30)
        recorded = self._at + (noise * self._step >> 31)
        ts = recorded - 1 - (noise * 48_271 % 1_000_003) * self._delay // 1_000_003
        return f"{self._second(ts)}.{ts // 1000 % 10**6:06d}Z", f"{self._second(recorded)}.{recorded % 10**9:09d}Z"

    def _second(self, instant: int) -> str:
        minute, second = divmod(instant // 10**9, 60)
        if minute != self._minute:
            self._minute = minute
            self._prefix = (datetime(1970, 1, 1) + timedelta(minutes=minute)).strftime("%Y-%m-%dT%H:%M:")
        return f"{self._prefix}{second:02d}"


class _Market:
    """One ledger's orders and what happens to them, line after line."""

    def __init__(self, name: str, events: int, seed: int, days: float, open_orders: int) -> None:
        self._rng = random.Random(f"{seed}/{name}")
        self._uuids, self._clock = _Uuids(self._rng), _Clock(self._rng, events, days)
        self._open_orders, self._orders, self._placed = open_orders, list[_Order](), 0
        self._recent: deque[tuple[str, str]] = deque(maxlen=_RECENT_FILLS)
        self._prices = [cents for _, cents in SYMBOLS]
        self._lives = [life for life, count in LIVES.items() for _ in range(count)]

    def line(self) -> str:
        """The next line, with its newline."""
        ts, recorded_at = self._clock.next()
        if len(self._orders) < self._open_orders:
            return self._place(ts, recorded_at)
        draw = self._rng.getrandbits(40)
        if draw % 1000 < _DUPLICATES_PER_MILLE and self._recent:
            before, after = self._recent[(draw >> 10) % len(self._recent)]
            return f"{before}{recorded_at}{after}"
        return self._live((draw >> 10) % len(self._orders), draw, ts, recorded_at)

    def _place(self, ts: str, recorded_at: str) -> str:
        draw = self._rng.getrandbits(60)
        number = draw % len(SYMBOLS)
        symbol, middle = SYMBOLS[number]
        # A random walk that is pulled back, so that a year of it stays near the price it began with.
        cents = self._prices[number] + (draw >> 5) % (2 * (middle // 500) + 1) - middle // 500
        self._prices[number] = cents = cents - (cents - middle) // 64
        fractional, units = (draw >> 20) % 100 < 8, 10 + (draw >> 28) % 491
        life = self._lives[(draw >> 38) % len(self._lives)]
        order = _Order(self._uuids.next(), life, units, fractional, cents)
        self._orders.append(order)
        self._placed += 1
        side = "buy" if draw >> 59 else "sell"
        return (
            f'{{"event":"new","order_id":"{order.order_id}","ts":"{ts}","recorded_at":"{recorded_at}",'
            f'"symbol":"{symbol}","side":"{side}","quantity":"{_quantity(units, fractional)}",'
            f'{_kind((draw >> 49) % 100, cents)},"client_order_id":"mm-{self._placed:08d}"}}\n'
        )

    def _live(self, at: int, draw: int, ts: str, recorded_at: str) -> str:
        """The next thing in the life of one open order, which leaves the market with the last of them."""
        order = self._orders[at]
        event = order.life[order.step]
        order.step += 1
        if order.step == len(order.life):
            self._orders[at] = self._orders[-1]
            self._orders.pop()
        before = f'{{"event":"{_EVENT[event]}","order_id":"{order.order_id}","ts":"{ts}","recorded_at":"'
        if event not in "PF":
            return f'{before}{recorded_at}"}}\n'
        # What is left is shared among the steps to come, so that the last one always has something to fill.
        share = order.left if event == "F" else 1 + (draw >> 24) % (order.left // (len(order.life) - order.step + 1))
        order.left -= share
        order.filled += share
        cents = order.cents + (draw >> 33) % 7 - 3
        after = (
            f'","execution_id":"{self._uuids.next()}","price":"{_price(cents)}",'
            f'"qty":"{_quantity(share, order.fractional)}",'
            f'"filled_qty":"{_quantity(order.filled, order.fractional)}"}}\n'
        )
        self._recent.append((before, after))
        return f"{before}{recorded_at}{after}"


def _price(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"


def _quantity(units: int, fractional: bool) -> str:
    return f"{units // 1000}.{units % 1000:03d}" if fractional else str(units)


def _kind(draw: int, cents: int) -> str:
    """Order type, time in force and the prices that belong to the type."""
    if draw < 22:
        return '"order_type":"market","time_in_force":"day"'
    if draw < 92:
        tif = "gtc" if draw < 40 else "day"
        return f'"order_type":"limit","time_in_force":"{tif}","limit_price":"{_price(cents)}"'
    if draw < 96:
        return f'"order_type":"stop","time_in_force":"gtc","stop_price":"{_price(cents)}"'
    prices = f'"limit_price":"{_price(cents)}","stop_price":"{_price(cents - 5)}"'
    return f'"order_type":"stop_limit","time_in_force":"gtc",{prices}'


def lines(
    name: str, events: int, *, seed: int = SEED, days: float | None = None, open_orders: int = OPEN_ORDERS
) -> Iterator[str]:
    """The lines of one ledger, each with its newline; `days` is by default what EVENTS_A_DAY makes of `events`."""
    market = _Market(name, events, seed, events / EVENTS_A_DAY if days is None else days, open_orders)
    return (market.line() for _ in range(events))


def fingerprint() -> int:
    """A number that is another one when this generator would write other bytes for the same arguments."""
    return zlib.crc32("".join(lines("fingerprint", 5000)).encode("ascii"))


def write_log(path: Path, events: int, seed: int, days: float | None, open_orders: int) -> int:
    """Write the log of the ledger whose directory `path.parent` is, and return its bytes. Nothing is synced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    log = lines(path.parent.name, events, seed=seed, days=days, open_orders=open_orders)
    with path.open("wb") as file:
        while batch := "".join(itertools.islice(log, _BATCH)):
            file.write(batch.encode("ascii"))
        return file.tell()


def generate(
    out: Path, events: int, ledgers: int, *, seed: int = SEED, days: float | None = None, open_orders: int = OPEN_ORDERS
) -> list[Path]:
    """Write `events` lines over `ledgers` ledgers below `out`, one process for each core, and return the logs."""
    logs = [out / "team" / f"team-{number + 1:02d}" / "events.jsonl" for number in range(ledgers)]
    counts = [events // ledgers + (number < events % ledgers) for number in range(ledgers)]
    with ProcessPoolExecutor(min(ledgers, os.cpu_count() or 1)) as pool:
        jobs = [
            pool.submit(write_log, log, count, seed, days, open_orders) for log, count in zip(logs, counts, strict=True)
        ]
        _watch(jobs, logs, events, f"log of {events:,} events over {ledgers}")
    return logs


def _watch(jobs: Sequence[Future[int]], logs: Sequence[Path], events: int, title: str) -> None:
    """Wait for the writers, showing by the size of the files how far they are."""
    with Bar(title, events * BYTES_AN_EVENT) as bar:
        for job in jobs:
            while not bar.wait(job):
                bar.set(sum(log.stat().st_size for log in logs if log.exists()))
            job.result()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.generate", description="Write made-up event logs.")
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    parser.add_argument("--events", type=int, default=2_000_000, help="lines in all (default: %(default)s)")
    parser.add_argument("--ledgers", type=int, default=8, help="spread over so many ledgers (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="same seed, same bytes (default: %(default)s)")
    parser.add_argument(
        "--days", type=float, help=f"time from first to last line (default: {EVENTS_A_DAY:,} lines a day)"
    )
    parser.add_argument("--open", type=int, default=OPEN_ORDERS, help="open orders a ledger (default: %(default)s)")
    options = parser.parse_args(arguments)
    if min(options.events, options.ledgers, options.open) < 1:
        parser.error("--events, --ledgers and --open must be at least 1")
    logs = generate(
        options.out, options.events, options.ledgers, seed=options.seed, days=options.days, open_orders=options.open
    )
    size = sum(log.stat().st_size for log in logs)
    print(f"{options.events:,} events, {size / 1e6:,.1f} MB, in {len(logs)} logs below {options.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
