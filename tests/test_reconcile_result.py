"""What a run of a reconcile tells of itself, how often it looks, and what it remembers of each account."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from compactor import Ledger
from compactor.broker.adapters import find_credentials, open_broker
from compactor.broker.budget import Budget
from compactor.broker.port import BrokerUnavailable
from compactor.sync.answers import AskedAccount
from compactor.sync.reconcile import Reconciler
from compactor.sync.state import AccountReconciled, read_reconciled
from tests.scripted_alpaca import ScriptedAlpaca, ago, error, make_fill, make_order, page

NAMES = ("one", "two")
HOUR, DAY = 3600, 86_400


@pytest.fixture
def servers() -> Iterator[dict[str, ScriptedAlpaca]]:
    with ExitStack() as stack:
        found = {name: stack.enter_context(ScriptedAlpaca()) for name in NAMES}
        for name, server in found.items():
            server.account_id = f"account-{name}"
        yield found


@pytest.fixture
def server() -> Iterator[ScriptedAlpaca]:
    with ScriptedAlpaca() as one:
        yield one


def make_reconciler(data: Path, later: float = 0, /, **servers: ScriptedAlpaca) -> Reconciler:
    accounts = [
        AskedAccount(name, open_broker(find_credentials(one.environment), budget=Budget(100_000), tries=1))
        for name, one in servers.items()
    ]
    return Reconciler(data, accounts, teams=["alpha"], clock=lambda: time.time() + later, sleep=lambda seconds: None)


def add_fill(server: ScriptedAlpaca, order_id: str, qty: str = "10") -> None:
    server.orders[order_id] = make_order(
        order_id, seconds_ago=100, status="filled", filled_qty=qty, filled_avg_price="100", updated_at=ago(60)
    )
    server.fills.append(make_fill(order_id, f"x-{order_id}", qty, "100", qty, 60, type="fill"))


def test_a_run_counts_its_own_requests_and_orders(data: Path, server: ScriptedAlpaca) -> None:
    """Not those of the runs before it."""
    reconciler = make_reconciler(data, one=server)
    server.orders = {name: make_order(name, seconds_ago=100) for name in "abc"}
    for events in (3, 0):
        server.seen.clear()
        done = reconciler.run()
        assert (len(server.seen), 3, events) == (done.requests, done.orders, done.events)


def test_a_run_takes_as_long_as_it_takes(data: Path, server: ScriptedAlpaca, monkeypatch: pytest.MonkeyPatch) -> None:
    """In milliseconds."""
    reconciler = make_reconciler(data, one=server)
    times = itertools.count(100, 2.5)
    monkeypatch.setattr("compactor.sync.reconcile.time", type("Clock", (), {"monotonic": lambda: next(times)}))
    assert 2500 == reconciler.run().elapsed_ms


def test_settling_waits_a_second_longer_than_quiet_lasts(data: Path, server: ScriptedAlpaca) -> None:
    slept: list[float] = []
    account = AskedAccount("one", open_broker(find_credentials(server.environment), budget=Budget(1000), tries=1))
    server.orders["a"] = make_order("a", seconds_ago=1)

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            server.orders["a"] = make_order("a", seconds_ago=100)

    reconciler = Reconciler(data, [account], quiet_seconds=30, sleep=sleep)
    done = reconciler.run(settle=True)
    assert ([31, 31], 1, []) == (slept, done.events, done.waiting)
    server.orders["b"] = make_order("b", seconds_ago=1)
    assert ["b"] == reconciler.run().waiting
    assert [31, 31] == slept, "only where it was asked for"


def list_weeks(server: ScriptedAlpaca) -> int:
    """How many of the lists of orders since the last time begin more than six days ago."""
    found = [one for one in server.seen if "/v2/orders?" in one and "status=all" in one]
    server.seen.clear()
    return sum(one.partition("after=")[2][:10] < ago(6 * DAY)[:10] for one in found)


def test_a_position_that_has_come_to_differ_is_looked_into_once(data: Path, server: ScriptedAlpaca) -> None:
    """At once, by the orders of a week; it stays a difference, and is worth no other week while it stays."""
    reconciler = make_reconciler(data, one=server)
    reconciler.run()
    reconciler.run()
    list_weeks(server)
    server.positions = [{"symbol": "A", "qty": "3", "side": "long"}]
    assert ["position_differs"] == [one.kind for one in reconciler.run().problems]
    assert 1 == list_weeks(server)
    assert ["position_differs"] == [one.kind for one in reconciler.run().problems]
    assert 0 == list_weeks(server)


def test_a_second_look_that_fails_leaves_the_first_one(data: Path, server: ScriptedAlpaca) -> None:
    """The run has done what it could; the next one looks again."""
    reconciler = make_reconciler(data, one=server)
    reconciler.run()
    server.positions = [{"symbol": "A", "qty": "3", "side": "long"}]
    lists = itertools.count()
    server.answers["GET", "/v2/orders"] = lambda request: page(502)(request) if next(lists) >= 2 else None
    assert ["position_differs"] == [one.kind for one in reconciler.run().problems]
    server.answers.clear()
    list_weeks(server)
    reconciler.run()
    assert list_weeks(server)


def test_differences_are_those_of_their_account(data: Path, servers: dict[str, ScriptedAlpaca]) -> None:
    """Of an order, where it is; of a position, whose it is."""
    make_reconciler(data, 0, **servers).run()
    for name in ("a", "b"):
        servers["one"].orders[name] = make_order(name, seconds_ago=100, qty={})
    servers["two"].positions = [{"symbol": "A", "qty": "3", "side": "long"}]
    servers["one"].answers["GET", "/v2/positions"] = page(502)
    make_reconciler(data, 0, **servers).run()
    found = read_reconciled(data)
    assert [(3, []), (1, ["A"])] == [(found[name].differences, found[name].positions_differing) for name in NAMES]


def test_orders_that_wait_are_remembered_with_their_account(data: Path, servers: dict[str, ScriptedAlpaca]) -> None:
    for name, order_id in (("one", "b"), ("one", "a"), ("two", "c")):
        servers[name].orders[order_id] = make_order(order_id, seconds_ago=1)
    make_reconciler(data, 0, **servers).run()
    assert [["a", "b"], ["c"]] == [read_reconciled(data)[name].waiting for name in NAMES]


def test_when_a_day_and_a_week_were_compared_is_remembered(data: Path, server: ScriptedAlpaca) -> None:
    """Once they were due, and by a run that could read and write everything."""
    make_reconciler(data, one=server).run()
    first = read_reconciled(data)["one"]
    assert first.day_at == first.week_at == first.through == first.tried_at is not None
    for later, day, week in ((HOUR - 60, False, False), (HOUR, True, False), (2 * DAY, True, True)):
        known = read_reconciled(data)["one"]
        make_reconciler(data, later, one=server).run()
        found = read_reconciled(data)["one"]
        assert (day, week) == (known.day_at != found.day_at, known.week_at != found.week_at)
        assert found.through == found.tried_at != known.through


def test_while_every_account_fails_each_has_its_own_reason(data: Path, servers: dict[str, ScriptedAlpaca]) -> None:
    """One of them is what the run says; one that fails later on has failed too."""
    servers["one"].answers["GET", "/v2/account"] = page(502)
    servers["two"].answers["GET", "/v2/account"] = page(503)
    reconciler = make_reconciler(data, 0, **servers)
    with pytest.raises(BrokerUnavailable, match="HTTP 502"):
        reconciler.run()
    assert {"one": "HTTP 502", "two": "HTTP 503"} == {
        name: str(reason).partition("answered ")[2][:8] for name, reason in reconciler.errors.items()
    }
    found = read_reconciled(data)
    assert [("HTTP 502", 1), ("HTTP 503", 1)] == [
        (str(found[name].error).partition("answered ")[2][:8], found[name].failures) for name in NAMES
    ]
    del servers["two"].answers["GET", "/v2/account"]
    done = reconciler.run()
    assert ["one"] == list(done.errors)
    assert [2, 0] == [read_reconciled(data)[name].failures for name in NAMES]


def test_one_account_alone_is_asked_where_only_it_is_meant(data: Path, servers: dict[str, ScriptedAlpaca]) -> None:
    add_fill(servers["one"], "a")
    add_fill(servers["two"], "b")
    done = make_reconciler(data, 0, **servers).run(only="two")
    assert ([], 1) == (servers["one"].seen, done.orders)
    assert {"two"} == read_reconciled(data).keys()
    servers["two"].answers["GET", "/v2/account"] = page(502)
    with pytest.raises(BrokerUnavailable):
        make_reconciler(data, 0, **servers).run(only="two")


def test_what_was_tried_in_vain_is_named_and_not_appended_for_ever(data: Path, server: ScriptedAlpaca) -> None:
    """The broker says that more is filled than its executions tell, and no price: no event puts that right."""
    add_fill(server, "a", "4")
    server.orders["a"] |= {"filled_qty": "6", "filled_avg_price": None}
    reconciler = make_reconciler(data, one=server)
    runs: list[Any] = [reconciler.run() for _ in range(3)]
    assert [True, False, False] == [one.events > 0 for one in runs]
    assert ["fills_missing"] == [one.kind for one in runs[-1].problems if one.order_id == "a"]
    before = len(server.seen)
    reconciler.run()
    assert 0 == sum("order_id=a" in one for one in server.seen[before:]), "nor asked for"


def test_a_refusal_of_one_order_is_no_failure_of_the_account(data: Path, server: ScriptedAlpaca) -> None:
    add_fill(server, "a", "4")
    server.orders["a"]["filled_qty"] = "10"
    reconciler = make_reconciler(data, one=server)
    lists = itertools.count()
    fail = error(500, 50010000, "internal")
    server.answers["GET", "/v2/account/activities/FILL"] = lambda request: fail(request) if next(lists) else None
    done = reconciler.run()
    assert (["order_unanswered"], {}) == ([one.kind for one in done.problems], done.errors)
    assert AccountReconciled().error == read_reconciled(data)["one"].error
    assert ["a"] == read_reconciled(data)["one"].waiting


def test_while_one_ledger_could_not_be_written_nothing_counts_as_known(data: Path, server: ScriptedAlpaca) -> None:
    """Others were written; what this one lacks is looked for again."""
    (data / "team").mkdir()
    (data / "team/alpha").symlink_to(data)
    account = AskedAccount("one", open_broker(find_credentials(server.environment), budget=Budget(1000), tries=1))
    reconciler = Reconciler(data, [account], teams=["alpha", "beta"])
    server.orders = {name: make_order(name, name=f"{name}:1", seconds_ago=100) for name in ("alpha", "beta")}
    done = reconciler.run()
    assert (1, ["alpha"]) == (done.events, [team.team_id for team in done.failed])
    assert (None, None) == (read_reconciled(data)["one"].through, read_reconciled(data)["one"].error)
    (data / "team/alpha").unlink()
    assert (1, []) == ((done := reconciler.run()).events, done.failed)
    assert read_reconciled(data)["one"].through is not None


def test_a_name_claims_for_the_team_of_any_account(data: Path, servers: dict[str, ScriptedAlpaca]) -> None:
    """Also for one without a ledger yet, and in another account; what claims for nobody is its own account's."""
    accounts = [
        AskedAccount(name, open_broker(find_credentials(one.environment), budget=Budget(1000), tries=1), team=team)
        for (name, one), team in zip(servers.items(), ("beta", "gamma"), strict=True)
    ]
    for order_id, name in (("a", "gamma:1"), ("b", "nobody:1")):
        servers["one"].orders[order_id] = make_order(order_id, name=name, seconds_ago=100)
    done = Reconciler(data, accounts).run()
    assert {"beta": ["b"], "gamma": ["a"]} == {
        team.team_id: [event["order_id"] for event in team.events] for team in done.teams
    }


def test_nothing_is_called_never_placed_while_an_account_gives_no_answer(
    data: Path, servers: dict[str, ScriptedAlpaca]
) -> None:
    """3.13: that account may have the order."""
    terms = {"order_id": "alpha:1", "client_order_id": "alpha:1", "ts": ago(3600), "source": "app", "writer": "over"}
    with Ledger(data / "team/alpha") as ledger:
        ledger.append([{"event": "submitting", **terms}])
    name = min(servers)
    servers[name].answers["GET", "/v2/orders"] = page(502)
    done = make_reconciler(data, 0, **servers).run()
    assert ({name}, []) == (set(done.errors), done.intents)
    servers[name].answers.clear()
    done = make_reconciler(data, 0, **servers).run()
    assert [("alpha:1", "never_placed")] == [(one.client_order_id, one.outcome) for one in done.intents]
