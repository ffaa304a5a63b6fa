"""Asking Alpaca over REST: every request paid for, every answer exact or an error, and never more than it allows."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from aiohttp import web
from tenacity import RetryCallState

from compactor.broker.adapters import find_credentials, open_broker
from compactor.broker.alpaca.rest import AlpacaRest, _choose_pause, _step_back
from compactor.broker.budget import Budget
from compactor.broker.credentials import BadCredentials
from compactor.broker.port import BrokerError, BrokerTooSlow, BrokerUnavailable, NotFound, RateLimited, Refused
from compactor.core.instants import rfc3339
from tests.alpaca_server import AlpacaServer


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def server() -> Iterator[AlpacaServer]:
    with AlpacaServer(seed=2, rate_limit=None, plain=True) as one:
        yield one


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def budget(clock: Clock) -> Budget:
    return Budget(10_000, clock=clock, sleep=clock.sleep)


@pytest.fixture
def broker(server: AlpacaServer, budget: Budget) -> AlpacaRest:
    return AlpacaRest(find_credentials(server.environment), budget=budget, sleep=lambda seconds: None)


def answer(server: AlpacaServer, make: Callable[[], web.Response]) -> None:
    """Let every request be answered so from now on."""

    async def strike(*arguments: object) -> web.Response:
        return make()

    server.gate._strike = strike  # type: ignore[method-assign, assignment]
    server.fail_next("", "server_error", 1000)


def test_a_minute_s_requests_are_shared_by_all_that_talk_to_the_account(clock: Clock) -> None:
    """Issue 4, 4: 150 a minute by default, in any 60 seconds, for every thread that shares the budget."""
    assert 150 == Budget().per_minute
    budget = Budget(3, clock=clock, sleep=clock.sleep)
    for _ in range(4):
        budget.spend()
    assert [60] == clock.slept
    budget.spend()
    assert [60] == clock.slept

    real = Budget(50)

    def spend() -> None:
        for _ in range(10):
            real.spend()

    threads = [threading.Thread(target=spend) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert real._try(is_urgent=False) > 50


def test_a_share_is_left_to_orders_and_the_rest_is_spread(clock: Clock) -> None:
    """Issue 16, 3: a long reconcile neither uses the budget up nor sends all at once, and orders wait for nothing."""
    budget = Budget(100, left_percent=20, burst=10, clock=clock, sleep=clock.sleep)
    for _ in range(40):
        budget.spend()
    assert 22.5 == sum(clock.slept), "ten at once, and then ten in every seven and a half seconds: 80 a minute"
    for _ in range(60):
        budget.spend(is_urgent=True)
    assert 22.5 == sum(clock.slept), "orders have all of the 100"
    budget.spend(is_urgent=True)
    assert 60 == sum(clock.slept), "and no more: the 101st waits until the first is a minute old"


def test_a_pause_holds_for_everybody(clock: Clock) -> None:
    """Issue 4, 4: after a 429 nobody who shares the budget sends anything until the broker's reset."""
    budget = Budget(100, clock=clock, sleep=clock.sleep)
    budget.pause(7)
    budget.spend()
    assert [7] == clock.slept


@pytest.mark.parametrize(
    ("header", "value", "least", "most"),
    [
        ("X-Ratelimit-Reset", lambda: str(int(time.time()) + 30), 28, 31),
        ("X-Ratelimit-Reset", lambda: str(int(time.time()) - 30), 1, 1),
        ("X-Ratelimit-Reset", lambda: str(int(time.time()) + 9999), 90, 90),
        ("X-Ratelimit-Reset", lambda: "soon", 5, 5),
        ("Retry-After", lambda: "12", 12, 12),
    ],
)
def test_the_reset_header_is_honoured(
    server: AlpacaServer, broker: AlpacaRest, clock: Clock, header: str, value: Callable[[], str], least: int, most: int
) -> None:
    """Issue 4, 4: as long as the broker says, within reason."""
    answer(server, lambda: web.Response(status=429, headers={header: value()}))
    with pytest.raises(RateLimited) as caught:
        broker.account()
    assert least <= caught.value.pause_seconds <= most
    assert 3 == len(clock.slept)
    assert all(least - 1 <= pause <= most for pause in clock.slept)


def test_after_a_429_it_goes_on_by_itself(server: AlpacaServer, broker: AlpacaRest) -> None:
    """Issue 4, 4: a limit that was reached costs time, and no run."""
    server.fail_next("GET", "rate_limited", 2)
    assert server.exchange.account_id == broker.account()
    assert 3 == broker.requests


def test_numbers_never_are_floats(server: AlpacaServer, broker: AlpacaRest) -> None:
    """Domain: decimals are mostly strings, sometimes numbers; they are read digit by digit."""
    answer(server, lambda: web.Response(text='[{"id":"o","qty":0.1000000000000000055511151231257827}]'))
    assert [{"id": "o", "qty": "0.1000000000000000055511151231257827"}] == broker.open_orders()


@pytest.mark.parametrize(
    "body", ["null", "{}", '{"orders":[]}', "[1]", '["x"]', '[{"id":"o"},null]', '"no"'],
)  # fmt: skip
def test_an_answer_of_the_wrong_shape_is_no_empty_list(server: AlpacaServer, broker: AlpacaRest, body: str) -> None:
    """Issue 4, 4: nonsense is an error; an empty list would be read as the end of every open order."""
    answer(server, lambda: web.Response(text=body))
    for ask in (broker.open_orders, lambda: broker.fills("2026-03-02T00:00:00Z")):
        with pytest.raises(BrokerError, match="expected a list of objects"):
            ask()


def test_an_order_that_is_another_one_is_an_error(server: AlpacaServer, broker: AlpacaRest) -> None:
    """Issue 4, 4: the answer has to be about what was asked."""
    answer(server, lambda: web.Response(text='{"id":"other","client_order_id":"other"}'))
    with pytest.raises(BrokerError, match="expected that order"):
        broker.order("mine")
    with pytest.raises(BrokerError, match="expected that order"):
        broker.order_by_client_id("mine")


def test_what_the_broker_does_not_have_is_none(server: AlpacaServer, broker: AlpacaRest) -> None:
    """404, and 422 for an id that is none of Alpaca's."""
    assert (None, None) == (broker.order("no-such-order"), broker.order_by_client_id("no:such"))
    answer(server, lambda: web.Response(status=422, text='{"code":40010001}'))
    assert None is broker.order("not an id / at all")


def test_more_orders_of_one_instant_than_a_page_has_are_an_error(server: AlpacaServer, broker: AlpacaRest) -> None:
    """Issue 4, 4: rather no reconcile than one that lost some of them."""
    at = server.exchange.clock.tick()
    for _ in range(501):
        server.place(at=at)
    with pytest.raises(BrokerError, match="a page that leads to the next one"):
        broker.open_orders()


def test_pages_of_activities_follow_each_other(server: AlpacaServer, broker: AlpacaRest) -> None:
    """100 a page, by page_token; the filter by order leaves out what an older server sends beside it."""
    orders = [server.place(qty="150", type="limit", limit_price="10") for _ in range(2)]
    for order in orders:
        for _ in range(130):
            server.fill(order.id, 1)
    found = broker.fills("2020-01-01T00:00:00Z")
    assert (260, 260) == (len(found), len({one["id"] for one in found}))
    assert 130 == len(broker.fills("2020-01-01T00:00:00Z", orders[0].id))


def test_a_server_that_is_not_there_is_told_from_one_that_refuses(server: AlpacaServer, budget: Budget) -> None:
    """Issue 4, 4: what may pass is tried again, what will not is not."""
    environ = {**server.environment, "APCA_API_BASE_URL": "http://127.0.0.1:9"}
    nobody = AlpacaRest(find_credentials(environ), budget=budget, sleep=lambda seconds: None)
    with pytest.raises(BrokerUnavailable, match="could not be reached"):
        nobody.account()
    assert 4 == nobody.requests

    broker = AlpacaRest(find_credentials(server.environment), budget=budget)
    answer(server, lambda: web.Response(status=400, text="no"))
    with pytest.raises(BrokerError, match="HTTP 400 with a page that is no JSON: 'no'"):
        broker.account()
    assert 1 == broker.requests


def test_placing_and_canceling_are_sent_once(server: AlpacaServer, broker: AlpacaRest) -> None:
    """Issue 4, 6: only `placing` knows how they are tried again without harm."""
    body = {"symbol": "SPY", "qty": "1", "side": "buy", "type": "market", "time_in_force": "day"}
    for failing, fault in ((lambda: broker.place(body), "POST"), (lambda: broker.cancel("o"), "DELETE")):
        sent = len(server.requests)
        server.fail_next(fault, "server_error", 9)
        with pytest.raises(BrokerUnavailable):
            failing()
        assert 1 == len(server.requests) - sent
    server.calm()
    with pytest.raises(NotFound):
        broker.cancel("o")
    with pytest.raises(Refused, match="must be > 0"):
        broker.place({**body, "qty": "-1"})


def test_money_that_does_not_suffice_is_a_refusal_of_the_order(server: AlpacaServer, broker: AlpacaRest) -> None:
    """Domain: 403 is not only about keys; Alpaca's own code tells."""
    answer(server, lambda: web.Response(status=403, text='{"code":40310000,"message":"insufficient buying power"}'))
    with pytest.raises(Refused, match="insufficient buying power"):
        broker.place({"client_order_id": "a:1"})


@pytest.mark.parametrize(
    ("status", "text", "error"),
    [
        (401, '{"code":40110000,"message":"request is not authorized"}', BadCredentials),
        (403, '{"message":"forbidden."}', BadCredentials),
        (403, '{"code":40110000,"message":"forbidden"}', BadCredentials),
        (401, "<html><h1>401</h1></html>", BrokerUnavailable),
        (403, "<html><h1>403 Forbidden</h1></html>", BrokerUnavailable),
        (403, "", BrokerUnavailable),
    ],
)
def test_only_json_of_the_broker_is_about_keys(
    server: AlpacaServer, broker: AlpacaRest, status: int, text: str, error: type[Exception]
) -> None:
    """Issue 16, 1: a gateway's page with the same status is an outage, and is tried again."""
    answer(server, lambda: web.Response(status=status, text=text))
    with pytest.raises(error) as caught:
        broker.account()
    assert (4 if error is BrokerUnavailable else 1) == broker.requests
    assert str(status) in str(caught.value), "what the broker said"


def test_a_huge_answer_is_no_outage_and_a_slow_one_is_asked_for_once(server: AlpacaServer, budget: Budget) -> None:
    """Issue 16, 4: neither holds up the others by being tried again."""
    broker = AlpacaRest(find_credentials(server.environment), budget=budget)
    server.fail_next("GET", "bomb")
    with pytest.raises(BrokerError, match="at most 16 MiB") as caught:
        broker.account()
    assert not isinstance(caught.value, BrokerUnavailable)
    hasty = AlpacaRest(find_credentials(server.environment), budget=budget, deadline_seconds=0.3)
    server.fail_next("GET", "drip")
    with pytest.raises(BrokerTooSlow):
        hasty.account()
    assert (1, 1) == (broker.requests, hasty.requests)


def test_what_is_about_money_waits_for_nothing(server: AlpacaServer) -> None:
    """Issue 16, 3: placing, replacing, canceling, and the question that placing waits for; no list and no order."""
    urgent: list[bool] = []

    class Watched(Budget):
        def spend(self, *, is_urgent: bool = False) -> None:
            urgent.append(is_urgent)

    broker = AlpacaRest(find_credentials(server.environment), budget=Watched(), sleep=lambda seconds: None)
    order = server.place("AAPL", "buy", 10, client_order_id="alpha:1", type="limit", limit_price="2")
    broker.order_by_client_id("alpha:1")
    broker.replace(order.id, {"limit_price": "3"})
    with contextlib.suppress(BrokerError):
        broker.cancel(order.id)
    with contextlib.suppress(BrokerError):
        broker.place({"symbol": "AAPL"})
    assert [True] * 4 == urgent
    urgent.clear()
    broker.account()
    broker.order(order.id)
    broker.open_orders()
    broker.fills("2026-01-01T00:00:00Z")
    broker.positions()
    assert [False] * 5 == urgent


def test_what_a_minute_has_used_is_what_still_counts(clock: Clock) -> None:
    """The metric of the budget: urgent requests too, and none that is a minute old."""
    budget = Budget(10, clock=clock, sleep=clock.sleep)
    assert 0 == budget.used
    budget.spend()
    clock.now = 30.0
    budget.spend(is_urgent=True)
    clock.now = 59.5
    assert 2 == budget.used
    clock.now = 60.0
    assert 1 == budget.used
    clock.now = 91.0
    assert 0 == budget.used


def test_pauses_between_tries_grow_to_twenty_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random share of 1, 2, 4 … 20 seconds; none after a 429, since the budget waits then."""
    monkeypatch.setattr("random.uniform", lambda least, most: most)
    pauses: dict[type[BrokerError], list[float]] = {}
    for error in (BrokerUnavailable("HTTP 502"), RateLimited("slow down", 5.0)):
        for attempt in (1, 2, 3, 4, 5, 6, 9):
            state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]
            state.attempt_number = attempt
            state.set_exception((type(error), error, None))
            pauses.setdefault(type(error), []).append(_choose_pause(state))
    assert {BrokerUnavailable: [1, 2, 4, 8, 16, 20, 20], RateLimited: [0] * 7} == pauses


def test_the_next_page_begins_a_microsecond_earlier() -> None:
    """The broker keeps microseconds, and a page begins behind its instant; what is no instant begins nowhere."""
    assert "2026-03-02T09:59:59.999999000Z" == _step_back("2026-03-02T10:00:00Z")
    assert "2026-03-02T10:00:00.123455789Z" == _step_back("2026-03-02T10:00:00.123456789Z")
    assert [None, None] == [_step_back(None), _step_back("yesterday")]


def test_orders_whose_time_is_not_known_are_in_no_list_by_time(server: AlpacaServer, budget: Budget) -> None:
    """They are asked for one by one."""
    account = open_broker(find_credentials(server.environment), budget=budget)
    placed = server.place("AAPL", "buy", 1, team="alpha")
    other = server.place("MSFT", "buy", 1, team="alpha")
    assert [] == account.list_orders({placed.id: None}).events
    assert 0 == account.requests
    assert account.list_orders({placed.id: None, other.id: rfc3339(other.created_at)}).events
