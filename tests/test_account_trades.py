"""Positions of several accounts that share the ledgers: each is compared with the trades of its own orders."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from compactor import Ledger
from compactor.broker.adapters import find_credentials, open_broker
from compactor.broker.budget import Budget
from compactor.sync.account_trades import CountedTrades, Ghosts, TradeMark, TradesChanged
from compactor.sync.answers import AskedAccount
from compactor.sync.reconcile import Reconciler
from compactor.sync.reconciled import Reconciled
from compactor.sync.state import read_reconciled
from compactor.ui.cli import app
from tests.scripted_alpaca import ScriptedAlpaca, ago, make_fill, make_order, page

Servers = dict[str, ScriptedAlpaca]
NAMES = ("one", "two")
DAY = 86_400


@pytest.fixture
def servers() -> Iterator[Servers]:
    with ExitStack() as stack:
        found = {name: stack.enter_context(ScriptedAlpaca()) for name in NAMES}
        for number, server in enumerate(found.values()):
            server.account_id = f"account-{number}"
        yield found


def make_reconciler(data: Path, servers: Servers, days: float = 0) -> Reconciler:
    """A process that begins now, or some days later."""
    brokers = {
        name: open_broker(find_credentials(server.environment), budget=Budget(100_000), tries=1)
        for name, server in servers.items()
    }
    accounts = [AskedAccount(name, broker) for name, broker in brokers.items()]
    return Reconciler(data, accounts, teams=["alpha"], clock=lambda: time.time() + days * DAY)


def run(data: Path, servers: Servers, days: float = 0, **more: Any) -> Reconciled:
    return make_reconciler(data, servers, days).run(**more)


def trade(server: ScriptedAlpaca, order_id: str, qty: str, *, symbol: str = "AAPL", seconds_ago: float = 60) -> None:
    """An order of the account that was filled."""
    server.orders[order_id] = make_order(
        order_id, seconds_ago=seconds_ago, status="filled", filled_qty=qty, qty=qty, filled_avg_price="100",
        symbol=symbol, filled_at=ago(seconds_ago - 1), updated_at=ago(seconds_ago - 1),
    )  # fmt: skip
    fill = make_fill(order_id, f"x-{order_id}", qty, "100", qty, seconds_ago - 1, type="fill", symbol=symbol)
    server.fills.append(fill)


def hold(server: ScriptedAlpaca, **quantities: str) -> None:
    server.positions = [{"symbol": name, "qty": qty, "side": "long"} for name, qty in quantities.items()]


def kinds(done: Reconciled) -> dict[tuple[str, str], str]:
    return {(one.account, one.symbol): one.kind for one in done.positions}


def test_each_account_is_compared_with_its_own_trades(data: Path, servers: Servers) -> None:
    """Issue 16, 8: per account and symbol; what is too much in one and too little in the other is two differences."""
    run(data, servers)
    trade(servers["one"], "a", "10")
    trade(servers["two"], "b", "4")
    hold(servers["one"], AAPL="10")
    hold(servers["two"], AAPL="4")
    assert {("one", "AAPL"): "equal", ("two", "AAPL"): "equal"} == kinds(run(data, servers))
    hold(servers["one"], AAPL="11")
    hold(servers["two"], AAPL="3")
    done = run(data, servers)
    assert {("one", "AAPL"): "differs", ("two", "AAPL"): "differs"} == kinds(done)
    assert ["account one, AAPL: found 11", "account two, AAPL: found 3 "] == [one.detail[:27] for one in done.problems]
    found = read_reconciled(data)
    assert [(["AAPL"], 1)] * 2 == [(found[name].positions_differing, found[name].differences) for name in NAMES]


def test_a_trade_is_counted_once_whoever_reconciles_next(data: Path, servers: Servers) -> None:
    """Long after no list has its order any more, and in another process."""
    run(data, servers)
    trade(servers["one"], "a", "10")
    hold(servers["one"], AAPL="10")
    run(data, servers)
    servers["one"].orders["a"].update(submitted_at=ago(9 * DAY), created_at=ago(9 * DAY))
    servers["one"].fills.clear()
    trade(servers["two"], "b", "1", symbol="MSFT")
    hold(servers["two"], MSFT="1")
    asked = servers["one"].count("/v2/orders/a")
    assert {("one", "AAPL"): "equal", ("two", "MSFT"): "equal"} == kinds(run(data, servers))
    assert asked == servers["one"].count("/v2/orders/a"), "it need not be asked for"


def test_what_was_traded_before_is_recorded_for_its_account(data: Path, servers: Servers) -> None:
    """The first run counts what it has told itself; what moved before is an opening balance."""
    trade(servers["one"], "a", "10", seconds_ago=3600)
    hold(servers["one"], AAPL="15")
    hold(servers["two"], SPY="2")
    run(data, servers)
    done = run(data, servers)
    assert {("one", "AAPL"): "explained", ("two", "SPY"): "explained"} == kinds(done)
    assert ("10", "5") == (done.positions[0].by_trades, done.positions[0].opening)


def test_an_account_that_fails_hides_no_difference_of_another(data: Path, servers: Servers) -> None:
    """Issue 16, 8: each account by itself."""
    run(data, servers)
    servers["two"].answers["GET", "/v2/account"] = page(502)
    hold(servers["one"], AAPL="3")
    assert {("one", "AAPL"): "differs"} == kinds(run(data, servers))


def test_an_order_that_no_list_has_is_asked_for(data: Path, servers: Servers) -> None:
    """A trade of an order that was told of by nobody in this run: its account is asked for, and remembered."""
    run(data, servers)
    trade(servers["two"], "old", "5", seconds_ago=9 * DAY)
    hold(servers["two"], AAPL="5")
    write_fill(data, "old", "5")
    assert {("two", "AAPL"): "equal"} == kinds(run(data, servers))
    assert (1, 1) == tuple(servers[name].count("/v2/orders/old") for name in NAMES)
    assert {("two", "AAPL"): "equal"} == kinds(run(data, servers))
    assert (1, 1) == tuple(servers[name].count("/v2/orders/old") for name in NAMES)


def test_while_nobody_can_say_whose_a_trade_is_its_symbol_waits(data: Path, servers: Servers) -> None:
    """The account that may have the order does not answer; other symbols are compared."""
    run(data, servers)
    write_fill(data, "old", "5")
    trade(servers["two"], "old", "5", seconds_ago=9 * DAY)
    hold(servers["one"], MSFT="1")
    hold(servers["two"], AAPL="5")
    servers["two"].answers["GET", "/v2/account"] = page(502)
    assert {("one", "MSFT"): "differs"} == kinds(run(data, servers))
    del servers["two"].answers["GET", "/v2/account"]
    assert {("one", "MSFT"): "differs", ("two", "AAPL"): "equal"} == kinds(run(data, servers))


def test_trades_of_an_order_that_no_account_has_are_seen(data: Path, servers: Servers) -> None:
    """They are too much in the ledgers, whosever they are: the first account names them."""
    run(data, servers)
    write_fill(data, "phantom", "7", ago(-3600))
    done = run(data, servers, days=0.1)
    assert {("one", "AAPL"): "differs"} == kinds(done)
    assert "found 0 at the broker, expected 7" in done.problems[-1].detail


def test_trades_of_an_account_that_was_reset_are_no_others(data: Path, servers: Servers) -> None:
    """Chaos, 51136: nobody has its orders any more. They do not become the first account's, at once or later."""
    run(data, servers)
    write_fill(data, "gone", "4", ago(-3600))
    servers["two"].account_id = "9e5e0a1c-0000-4000-8000-000000000009"
    hold(servers["one"], MSFT="1")
    assert {("one", "MSFT"): "differs"} == kinds(run(data, servers, days=0.1))
    run(data, servers, days=1.1)
    assert {("one", "MSFT"): "differs"} == kinds(run(data, servers, days=1.2))


def test_a_dry_run_counts_nothing(data: Path, servers: Servers) -> None:
    run(data, servers)
    trade(servers["one"], "a", "10")
    hold(servers["one"], AAPL="10")
    path = data / ".compactor/positions.json"
    before = path.read_bytes()
    run(data, servers, dry_run=True)
    assert before == path.read_bytes()
    assert {("one", "AAPL"): "equal"} == kinds(run(data, servers))


def test_trades_that_are_others_than_were_counted_are_named(data: Path, servers: Servers) -> None:
    """After a restore nobody knows what was counted: it is said, and recorded anew by a run that looks back a week."""
    run(data, servers)
    trade(servers["one"], "a", "10")
    hold(servers["one"], AAPL="10")
    run(data, servers)
    servers["one"].orders.clear()
    servers["one"].fills.clear()
    (data / "team/alpha").rename(data / "moved-away")
    done = run(data, servers)
    assert ["positions_unread"] * 2 == [one.kind for one in done.problems]
    assert "trades of alpha: the ledger is gone" in done.problems[0].detail
    (data / "team/alpha").mkdir(parents=True)
    (data / "team/alpha/events.jsonl").write_text("")
    assert "found 0 lines, expected at least 1" in run(data, servers).problems[0].detail
    assert ["one", "two"] == [one.account for one in done.problems]
    run(data, servers, days=1.1)
    assert {("one", "AAPL"): "explained"} == kinds(run(data, servers, days=1.2))


def test_a_line_that_is_another_one_is_no_continuation(data: Path) -> None:
    counted = CountedTrades(marks={"alpha": TradeMark(1, "another")})
    write_fill(data, "o", "1")
    with Ledger(data / "team/alpha") as ledger:
        ledger.compact()
    with pytest.raises(TradesChanged, match=r"line 1 is trade .*, expected another"):
        counted.count([data / "team/alpha"], "one", lambda orders: {}, Ghosts())


def test_the_opening_balance_of_every_account_is_recorded_anew(data: Path, servers: Servers) -> None:
    """`--record-positions`, from the command line, with two accounts."""
    tables = "".join(
        f'[accounts.{name}]\nkey_variable = "{name.upper()}_KEY"\nsecret_variable = "{name.upper()}_SECRET"\n'
        f'url = "{server.url}"\n'
        for name, server in servers.items()
    )
    (data / "compactor.toml").write_text(tables)
    keys = {f"{name.upper()}_{what}": f"{name}{what}" for name in NAMES for what in ("KEY", "SECRET")}
    write_fill(data, "o", "1")
    for _ in range(2):
        CliRunner().invoke(app, ["reconcile", str(data), "--once"], env=keys)
    hold(servers["two"], TSLA="3")
    done = CliRunner().invoke(app, ["reconcile", str(data), "--once"], env=keys)
    assert "position_differs: account two, TSLA: found 3 at the broker, expected 0" in done.output
    status = CliRunner().invoke(app, ["status", str(data)], env=keys)
    assert "POSITIONS DIFFER: TSLA" in status.output
    CliRunner().invoke(app, ["reconcile", str(data), "--once", "--record-positions"], env=keys)
    done = CliRunner().invoke(app, ["reconcile", str(data), "--once"], env=keys)
    assert "1 of 1 positions are what the trades add up to" in done.output


def write_fill(data: Path, order_id: str, qty: str, at: str = "") -> None:
    """An order in the log of which no account told, from eight days ago or `at`."""
    terms = {"symbol": "AAPL", "side": "buy", "quantity": qty, "ts": at or ago(8 * DAY), "order_id": order_id}
    with Ledger(data / "team/alpha", team_id="alpha") as ledger:
        ledger.append(
            [
                {"event": "new", **terms},
                {**terms, "event": "fill", "price": "100", "qty": qty, "execution_id": f"x-{order_id}"},
            ]
        )
