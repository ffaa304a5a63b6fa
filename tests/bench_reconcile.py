"""Counts the REST requests of a reconcile, and times it: `python -m tests.bench_reconcile --teams 20 --orders 500`,
`--brackets 700` for brackets whose entries are filled and whose held stop losses are in no list of open orders,
`--away 100 --a-minute 20` for a reconnect after so many minutes with so many fills each, with and without a resend.

The broker is the local one, over HTTP and through alpaca-py, so that the time is ours and its, and not the network's.
Note: the first run of an account costs more than the others, since it looks back a week and has all
to write; it is told apart.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from compactor import Ledger, discover
from compactor.books.order_index import OrderIndex
from compactor.broker.adapters import find_credentials, open_broker
from compactor.broker.budget import Budget
from compactor.sync.answers import AskedAccount
from compactor.sync.gaps import Gaps
from compactor.sync.reconcile import Reconciler
from compactor.sync.stream_writer import StreamWriter
from tests.alpaca_server import AlpacaServer


def main(arguments: list[str] | None = None) -> int:
    """Print a line for each run: the first one, one with nothing new, and one after some fills that nobody told."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench_reconcile", description=__doc__)
    parser.add_argument("--teams", type=int, default=20)
    parser.add_argument("--orders", type=int, default=500, help="open orders of each team (default 500)")
    parser.add_argument("--fills", type=int, default=1000, help="fills that no stream has told (default 1000)")
    parser.add_argument("--brackets", type=int, default=0, help="so many filled brackets of one team instead")
    parser.add_argument("--away", type=int, default=0, help="a reconnect after so many minutes instead")
    parser.add_argument("--a-minute", type=int, default=20, help="fills in each of them (default 20)")
    chosen = parser.parse_args(arguments)
    if chosen.away:
        for resend in (True, "activities", False):
            _measure_reconnect(chosen.away, chosen.a_minute, resend)
        return 0
    if chosen.brackets:
        return _measure_brackets(chosen.brackets)
    with (
        tempfile.TemporaryDirectory() as directory,
        AlpacaServer(rate_limit=None, start="2026-03-02T14:30:00Z", plain=True) as server,
    ):
        orders = [
            server.place(team=f"team{number:02}", type="limit", limit_price="10", time_in_force="gtc").id
            for _ in range(chosen.orders)
            for number in range(chosen.teams)
        ]
        broker = open_broker(find_credentials(server.environment), budget=Budget(1_000_000))
        reconciler = Reconciler(
            Path(directory),
            [AskedAccount("default", broker)],
            clock=server.clock,
            teams=[f"team{number:02}" for number in range(chosen.teams)],
        )
        server.exchange.clock.advance(3 * 86_400)
        _run("first run, all is new", reconciler)
        server.exchange.clock.advance(300)
        _run("nothing new", reconciler)
        for order_id in orders[: chosen.fills]:
            server.fill(order_id, 1)
        server.exchange.clock.advance(300)
        _run(f"{chosen.fills} fills that nobody told", reconciler)
        server.exchange.clock.advance(300)
        _run("nothing new", reconciler)
    return 0


def _measure_brackets(count: int) -> int:
    """Fifty brackets a day, twenty days ago; then three runs."""
    terms = {
        "type": "limit", "limit_price": "101", "time_in_force": "gtc", "order_class": "bracket",
        "take_profit": {"limit_price": "110"}, "stop_loss": {"stop_price": "90"},
    }  # fmt: skip
    with (
        tempfile.TemporaryDirectory() as directory,
        AlpacaServer(rate_limit=None, start="2026-03-02T14:30:00Z", plain=True) as server,
    ):
        server.account.lists_held = False
        for number in range(count):
            server.fill(server.place("AAPL", "buy", 10, team="alpha", **terms).id, None, "100")
            server.exchange.clock.advance(86_400 if number % 50 == 0 else 1)
        server.exchange.clock.advance(20 * 86_400)
        broker = open_broker(find_credentials(server.environment), budget=Budget(1_000_000))
        reconciler = Reconciler(Path(directory), [AskedAccount("default", broker)], clock=server.clock, teams=["alpha"])
        for what in ("first run, all is new", "nothing new", "nothing new"):
            server.exchange.clock.advance(300)
            _run(what, reconciler)
    return 0


def _measure_reconnect(minutes: int, a_minute: int, resend: bool | str) -> None:
    """Fill orders of 20 teams while nobody listens; then close the gap and reconcile, as a new connection does."""
    with (
        tempfile.TemporaryDirectory() as directory,
        AlpacaServer(rate_limit=None, start="2026-03-02T14:30:00Z", plain=True, resend=resend) as server,
    ):
        data, teams = Path(directory), [f"team{number:02}" for number in range(20)]
        terms: dict[str, Any] = {"type": "limit", "limit_price": "10", "time_in_force": "gtc"}
        orders = [server.place(team=teams[number % 20], qty=100, **terms).id for number in range(1000)]
        broker = open_broker(find_credentials(server.environment), budget=Budget(1_000_000))
        writer = StreamWriter(data, broker.translate, index=OrderIndex(data, teams))
        gaps = Gaps(data, "default", broker, writer, clock=server.clock)
        reconciler = Reconciler(data, [AskedAccount("default", broker)], clock=server.clock, teams=teams)
        clock = server.exchange.clock
        clock.advance(60)
        gaps.close()
        reconciler.run()
        gaps.note_known(server.clock())
        for number in range(minutes * a_minute):
            clock.advance(60 / a_minute)
            server.fill(orders[number % len(orders)], 1, "10")
        clock.advance(15)
        seen, started = len(server.requests), time.perf_counter()
        told = gaps.close()
        gap_seconds = time.perf_counter() - started
        done = reconciler.run()
        seconds, requests = time.perf_counter() - started, len(server.requests) - seen
        trades = [row["quantity"] for place in discover(data) for row in Ledger(place.path).rows("trades")]
        print(
            f"{minutes} min away, {minutes * a_minute} fills, resend {told.kind or 'none'}: {requests} requests, "
            f"{told.messages} messages in {gap_seconds:.2f} s, {done.events} events by the reconcile, {seconds:.2f} s "
            f"in all, {trades.count('1')} of {len(trades)} trades"
        )
        if ["1"] * (minutes * a_minute) != trades:
            raise SystemExit("these are not the trades of the broker")


def _run(what: str, reconciler: Reconciler) -> None:
    started = time.perf_counter()
    done = reconciler.run()
    seconds = time.perf_counter() - started
    print(
        f"{what}: {done.requests} requests, {done.orders} orders, {done.events} events, {seconds:.1f} s, "
        f"{len(done.waiting)} waiting, {len(done.problems)} differences"
    )


if __name__ == "__main__":
    sys.exit(main())
