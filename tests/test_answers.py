"""What the accounts answer: executions that name a parent, orders that the broker does not answer for, one account that
fails among several."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from compactor.broker.adapters import find_credentials, open_broker
from compactor.broker.budget import Budget
from compactor.broker.port import BrokerPort, BrokerUnavailable, Capabilities, Translation
from compactor.core.instants import nanos, rfc3339
from compactor.sync import answers
from compactor.sync.answers import AskedAccount, _filled_since
from compactor.sync.reconcile import Reconciler
from compactor.sync.state import AccountReconciled
from tests.alpaca_server import AlpacaServer
from tests.alpaca_server.orders import Order
from tests.chaos_law import differences
from tests.test_gaps import hear_all, place_spread
from tests.test_reconcile import KEYS, START, healer, quiet_run


@pytest.fixture
def server() -> Iterator[AlpacaServer]:
    with AlpacaServer(seed=1, start=START, rate_limit=None, plain=True) as one:
        yield one


def differ(data: Path, server: AlpacaServer) -> list[str]:
    """Where our files are not what is true at the broker."""
    return list(differences(server.truth(), data, set()))


@pytest.mark.parametrize("names_parents", [True, False])
@pytest.mark.parametrize("days", [0, 9])
def test_activities_of_a_multi_leg_order_land_on_its_legs(
    data: Path, server: AlpacaServer, names_parents: bool, days: int
) -> None:
    """Issue 16, 2: in REST activities, too, symbol and side tell the leg, also of an order that is in no list."""
    server.account.writer.rest_names_parents = names_parents
    order = place_spread(server)
    hear_all(data, server)
    reconciler = healer(data, server)
    quiet_run(reconciler, server)
    server.exchange.clock.advance(days * 86_400)
    quiet_run(reconciler, server)
    server.fill(order.id, 1)
    server.fill(order.id, 1)
    done = quiet_run(reconciler, server)
    assert [] == done.problems
    assert [] == differ(data, server)
    assert 0 == quiet_run(reconciler, server).events, "and they are not appended again"


@pytest.mark.parametrize("fault", ["bad_request", "server_error", "huge", "bomb"])
def test_one_poisonous_order_is_named_and_the_others_are_reconciled(
    data: Path, server: AlpacaServer, fault: str
) -> None:
    """Issue 16, 4: an order whose answer by id is a 400 or 500, or is far too large, is left out; no other is."""
    poisonous = server.place("AAPL", "buy", 10, client_order_id="alice:1", type="limit", limit_price="2")
    reconciler = healer(data, server)
    quiet_run(reconciler, server)
    # It is in no list: it ended, and was placed before the time that is looked back to.
    server.exchange.clock.advance(9 * 86_400)
    quiet_run(reconciler, server)
    server.cancel(poisonous.id)
    server.poison(poisonous.id, fault)
    other = server.place("AAPL", "buy", 1, client_order_id="bob:1", type="limit", limit_price="2")
    server.fill(other.id, 1, "2")
    done = quiet_run(reconciler, server)
    assert [("order_unanswered", poisonous.id)] == [(one.kind, one.order_id) for one in done.problems]
    assert {} == done.errors
    assert all(poisonous.id in one for one in differ(data, server)), "only the poisonous order differs"
    server.calm()
    quiet_run(reconciler, server)
    assert [] == differ(data, server)


def test_an_order_whose_activities_fail_is_reconciled_without_them(data: Path, server: AlpacaServer) -> None:
    """A live order must never be missing: what is known of it is taken, and the failure is named."""
    order = server.place("AAPL", "buy", 10, client_order_id="alice:1", type="limit", limit_price="2")
    server.fill(order.id, 4, "2")
    server.exchange.clock.advance(9 * 86_400)
    server.fail_next("GET /v2/account/activities/FILL", "slow", 1)
    server.fail_next("GET /v2/account/activities/FILL", "bad_request", 1)
    done = quiet_run(healer(data, server), server)
    assert ["order_unanswered"] == [one.kind for one in done.problems]
    assert [] == differ(data, server)


BRACKET: dict[str, Any] = {
    "type": "limit", "limit_price": "100", "time_in_force": "gtc", "order_class": "bracket",
    "take_profit": {"limit_price": "110"}, "stop_loss": {"stop_price": "90"},
}  # fmt: skip


def place_brackets(server: AlpacaServer, count: int, every: int = 50) -> list[Order]:
    """Brackets of alpha whose entries are filled: their stop losses are held, and in no list of open orders."""
    server.account.lists_held = False
    orders = []
    for number in range(count):
        orders.append(server.place("AAPL", "buy", 10, team="alpha", **BRACKET))
        server.fill(orders[-1].id, None, "100")
        server.exchange.clock.advance(86_400 if number % every == 0 else 1)
    server.exchange.clock.advance(20 * 86_400)
    return orders


def test_700_brackets_with_held_legs_cost_few_requests(data: Path, server: AlpacaServer) -> None:
    """Issue 16, 3: held legs are not in `status=open`; 700 brackets take under 40 requests with nothing missing."""
    place_brackets(server, 700)
    reconciler = healer(data, server)
    for _ in range(3):
        done = quiet_run(reconciler, server)
        assert done.requests < 40
        assert [] == done.problems
        assert [] == differ(data, server)


def test_filled_spreads_cost_no_requests_of_their_own(data: Path, server: AlpacaServer) -> None:
    """Their legs are in the list, so that nobody has to ask whose an execution of a leg is."""
    for number in range(5):
        server.fill(place_spread(server, f"spread-{number}").id)
    quiet_run(healer(data, server), server)
    asked = len(server.requests)
    assert [] == quiet_run(healer(data, server), server).problems
    assert [] == [one for one in server.requests[asked:] if one.startswith("GET /v2/orders/")]
    assert [] == differ(data, server)


def test_a_held_leg_of_a_replaced_exit_is_found_at_the_first_start(data: Path, server: AlpacaServer) -> None:
    """The exit that replaced another is younger than its family, which is where the held leg is told."""
    [parent] = place_brackets(server, 1)
    exit_id = next(leg for leg in parent.legs if server.exchange.orders[leg].type == "limit")
    server.exchange.clock.advance(86_400)
    new = server.exchange.replace(exit_id, limit_price="111")
    server.exchange.orders[parent.id].legs.append(new.id)
    new.parent = parent.id
    server.exchange.clock.advance(20 * 86_400)
    quiet_run(healer(data, server), server)
    assert [] == differ(data, server)


def test_what_a_list_does_not_have_is_asked_for_by_id(data: Path, server: AlpacaServer) -> None:
    """The lists are a shortcut: an order that is in none of them is asked for by itself."""
    orders = [
        server.place("AAPL", "buy", 1, client_order_id=f"alice:{n}", type="limit", limit_price="2") for n in range(4)
    ]
    reconciler = healer(data, server)
    quiet_run(reconciler, server)
    server.exchange.clock.advance(9 * 86_400)
    quiet_run(reconciler, server)
    for order in orders:
        order.submitted_at = order.created_at - 3600 * 10**9
        server.cancel(order.id)
    quiet_run(reconciler, server)
    assert [] == differ(data, server)


def test_many_orders_without_an_answer_are_an_outage(
    data: Path, server: AlpacaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond a few it is the broker that fails, and nothing is appended."""
    monkeypatch.setattr(answers, "UNANSWERED_MAX", 2)
    monkeypatch.setattr(answers, "TOGETHER_MIN", 4)
    orders = [
        server.place("AAPL", "buy", 1, client_order_id=f"alice:{n}", type="limit", limit_price="2") for n in range(3)
    ]
    reconciler = healer(data, server)
    quiet_run(reconciler, server)
    server.exchange.clock.advance(9 * 86_400)
    quiet_run(reconciler, server)
    for order in orders:
        server.cancel(order.id)
        server.poison(order.id, "server_error")
    with pytest.raises(BrokerUnavailable):
        quiet_run(reconciler, server)
    assert ["default"] == list(reconciler.errors)


def test_an_account_that_fails_later_on_is_left_out_alone(data: Path) -> None:
    """Issue 16, 1: keys that are refused while the answers are used say nothing about the other account."""
    with AlpacaServer(seed=1, start=START, rate_limit=None, plain=True, keys=KEYS) as server:
        first, second = (account.exchange for account in server.accounts.values())
        environs = [
            {**server.environment, "APCA_API_KEY_ID": key, "APCA_API_SECRET_KEY": secret} for key, secret in KEYS
        ]
        brokers = [open_broker(find_credentials(one), budget=Budget(100_000), sleep=lambda _: None) for one in environs]
        old = first.place("AAPL", "buy", 1, client_order_id="alice:1", type="limit", limit_price="2")
        reconciler = Reconciler(
            data,
            [AskedAccount("one", brokers[0]), AskedAccount("two", brokers[1])],
            clock=server.clock,
            sleep=lambda _: None,
            teams=["alice", "bob"],
        )
        quiet_run(reconciler, server)
        first.clock.advance(9 * 86_400)
        second.clock.advance(9 * 86_400)
        quiet_run(reconciler, server)
        first.cancel(old.id)
        server.poison(old.id, "forbidden")
        new = second.place("AAPL", "buy", 1, client_order_id="bob:1", type="limit", limit_price="2")
        second.clock.advance(30)
        done = quiet_run(reconciler, server)
        assert ["one"] == list(done.errors)
        assert new.id in (data / "team/bob/events.jsonl").read_text()


# How far back.


BEGIN = 1_772_000_000
ROUND, HOUR, DAY, WEEK = 300, 3600, 86_400, 7 * 86_400


class Quiet:
    """A broker with no orders, which remembers since when it was asked for some."""

    skew_seconds = 0.0
    capabilities = Capabilities(tells_positions=False)

    def __init__(self) -> None:
        self.requests = 0
        self.orders_asked: list[str] = []
        self.fills_asked: list[str] = []

    def read_account_id(self) -> str:
        return "account"

    def read_open_orders(self) -> Translation:
        return Translation([], [])

    def read_orders_since(self, instant: str) -> Translation:
        self.orders_asked.append(instant)
        return Translation([], [])

    def read_fills_since(self, instant: str) -> Translation:
        self.fills_asked.append(instant)
        return Translation([], [])


def test_every_hour_a_day_and_every_day_a_week_are_compared_once_more(data: Path) -> None:
    """live.md: 300 s apart; executions are taken back long after the end of an order."""
    broker, times = Quiet(), [BEGIN]
    reconciler = Reconciler(data, [AskedAccount("default", cast(BrokerPort, broker))], clock=lambda: times[-1])
    for _ in range(DAY // ROUND + 13):
        reconciler.run()
        times.append(times[-1] + ROUND)
    behind = [now - nanos(after) // 10**9 for now, after in zip(times, broker.orders_asked, strict=False)]
    # The overlap of 600 s comes on top of what passed since the last run.
    short = ROUND + 600
    expected = {0: WEEK, DAY // ROUND: WEEK} | {HOUR // ROUND * hour: DAY for hour in range(1, 24)}
    expected[DAY // ROUND + HOUR // ROUND] = DAY
    assert [expected.get(run, short) for run in range(len(behind))] == behind
    assert [WEEK if expected.get(run) == WEEK else short for run in range(len(behind))] == [
        now - nanos(after) // 10**9 for now, after in zip(times, broker.fills_asked, strict=False)
    ]


@pytest.mark.parametrize(("orders", "is_deep"), [(2_000, True), (2_001, False)])
def test_executions_of_a_week_are_compared_where_they_are_not_too_many(orders: int, is_deep: bool) -> None:
    """A page has a hundred of them. Orders of which nothing is filled have none."""
    filled = [{"order_id": f"o{number}", "filled_qty": "1"} for number in range(orders)]
    placed = Translation([*filled, {"order_id": "none", "filled_qty": "0.00"}, {"order_id": "open"}], [])
    now = rfc3339(BEGIN * 10**9)
    known = AccountReconciled(through=now, week_at=rfc3339((BEGIN - DAY) * 10**9))
    since = BEGIN - nanos(_filled_since(known, now, placed)) // 10**9
    assert (WEEK if is_deep else 600) == since


def test_orders_that_are_asked_for_together_bring_no_others(data: Path, server: AlpacaServer) -> None:
    """A list by time has what was placed in between, too. If that were taken, a run would find what another one did
    not that merely wanted fewer orders."""
    placed = [server.place("AAPL", "buy", 1, team="alpha", **BRACKET) for _ in range(5)]
    reconciler = healer(data, server)
    quiet_run(reconciler, server)
    told, accounts = answers.BrokerAnswers(), reconciler._accounts
    wanted = {one.id: one.submitted_at for one in placed[::2]}
    accounts.ask_orders({order_id: rfc3339(at) for order_id, at in wanted.items()}, told, ["default"])
    assert wanted.keys() == told.answers.orders.keys()


def test_an_order_that_is_not_answered_for_is_asked_for_until_it_is(data: Path, server: AlpacaServer) -> None:
    """Also where only an execution of some minutes told of it: no later list has that, and each process asks again."""
    order = server.place("AAPL", "buy", 9, client_order_id="alice:1", type="limit", limit_price="2")
    server.exchange.clock.advance(9 * 86_400)
    server.fill(order.id, None, "2")
    server.poison(order.id, "server_error")
    for _ in range(3):
        done = quiet_run(healer(data, server), server, 1200)
        assert [("order_unanswered", order.id)] == [(one.kind, one.order_id) for one in done.problems]
    server.calm()
    assert [] == quiet_run(healer(data, server), server, 1200).problems
    assert [] == differ(data, server)
    server.requests.clear()
    quiet_run(healer(data, server), server)
    assert not [one for one in server.requests if order.id in one]
