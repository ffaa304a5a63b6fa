"""The local Alpaca, asked and heard by the real alpaca-py: it has to behave as `domain.md` says that Alpaca does."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import msgspec
import pytest
import requests
from alpaca.common.exceptions import APIError
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderClass, OrderSide, QueryOrderStatus, TimeInForce
from alpaca.trading.requests import (
    GetOrdersRequest,
    LimitOrderRequest,
    ReplaceOrderRequest,
    StopLossRequest,
    TakeProfitRequest,
)
from alpaca.trading.stream import TradingStream

from compactor.broker.alpaca.translate import translate
from compactor.broker.port import parse
from compactor.core.decoding import build_event
from compactor.core.events import Problem
from compactor.core.instants import nanos, rfc3339
from tests.alpaca_server import AlpacaServer, Faults
from tests.alpaca_server.faults import SHARES
from tests.alpaca_server.stream import told
from tests.conftest import ROOT

START = "2026-03-02T14:30:00Z"
FOREVER = {"since": "2020-01-01T00:00:00Z", "until": "2100-01-01T00:00:00Z"}


@pytest.fixture
def server() -> Iterator[AlpacaServer]:
    with AlpacaServer(seed=7, start=START, resend=True) as server:
        yield server


def client_of(server: AlpacaServer, *, raw: bool = True) -> TradingClient:
    client = TradingClient(server.key, server.secret, raw_data=raw, url_override=server.url)
    client._retry = 0  # What alpaca-py does about a 429 is wait for seconds.
    return client


def limit_order(**terms: Any) -> LimitOrderRequest:
    found: dict[str, Any] = {"symbol": "AAPL", "qty": 10, "side": OrderSide.BUY, "time_in_force": TimeInForce.GTC}
    return LimitOrderRequest(**(found | {"limit_price": 181.5} | terms))


def get(server: AlpacaServer, path: str, **params: str) -> requests.Response:
    keys = {"APCA-API-KEY-ID": server.key, "APCA-API-SECRET-KEY": server.secret}
    return requests.get(server.url + path, params=params, headers=keys, timeout=5)


@contextmanager
def listening(server: AlpacaServer) -> Iterator[list[Any]]:
    """The messages that alpaca-py's own stream hands on."""
    heard: list[Any] = []

    async def hear(message: Any) -> None:
        heard.append(message)

    stream = TradingStream(server.key, server.secret, raw_data=True, url_override=server.stream_url)
    stream.subscribe_trade_updates(hear)
    thread = threading.Thread(target=stream.run, daemon=True)
    thread.start()
    until(lambda: server.listeners == 1)
    try:
        yield heard
    finally:
        stream.stop()
        server.calm()
        for session in server.stream.sessions:
            session.mute = session.half_open = False
        server.send_frame(b'{"stream":"nothing"}')  # It looks whether it is stopped when something comes.
        thread.join(10)


def until(holds: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold in time"
        time.sleep(0.005)


def test_an_order_placed_by_alpaca_py_is_there(server: AlpacaServer) -> None:
    """POST /v2/orders, then GET by its id, by its client_order_id, and in the list of open orders."""
    client = client_of(server)
    placed: Any = client.submit_order(limit_order(client_order_id="alpha:1"))
    by_id: Any = client.get_order_by_id(placed["id"])
    by_name: Any = client.get_order_by_client_id("alpha:1")
    listed: Any = client.get_orders()
    assert [placed["id"]] * 3 == [by_id["id"], by_name["id"], *(one["id"] for one in listed)]
    assert ("pending_new", "new") == (placed["status"], by_id["status"])
    assert "alpha" == server.truth().team(placed["id"])


def test_a_plain_broker_is_read_by_alpaca_pys_own_types() -> None:
    """The messages have the fields that alpaca-py's models ask for, once the oddities are left out."""
    with AlpacaServer(seed=7, start=START, plain=True) as server:
        client = client_of(server, raw=False)
        order: Any = client.submit_order(limit_order())
        server.fill(str(order.id), 4, "181.25")
        [found] = client.get_orders()
        assert ("4", "181.25") == (found.filled_qty, found.filled_avg_price)  # type: ignore[union-attr]


def test_a_client_order_id_counts_once(server: AlpacaServer) -> None:
    """A second order with the same client_order_id is refused with 422, whatever became of the first."""
    client = client_of(server)
    placed: Any = client.submit_order(limit_order(client_order_id="alpha:1"))
    server.cancel(placed["id"])
    with pytest.raises(APIError, match="client_order_id must be unique") as refused:
        client.submit_order(limit_order(client_order_id="alpha:1"))
    assert 422 == refused.value.status_code
    assert 1 == len(server.truth().orders)


def test_keys_are_checked(server: AlpacaServer) -> None:
    """Without keys 401, with wrong ones 403; on the stream `unauthorized`."""
    assert 401 == requests.get(server.url + "/v2/account", timeout=5).status_code
    with pytest.raises(APIError) as refused:
        TradingClient(server.key, "wrong", raw_data=True, url_override=server.url).get_account()
    assert 403 == refused.value.status_code
    assert "unauthorized" == _first_answer(server, "wrong")


def _first_answer(server: AlpacaServer, secret: str) -> str:
    import asyncio

    async def ask() -> str:
        stream = TradingStream(server.key, secret, raw_data=True, url_override=server.stream_url)
        await stream._connect()  # type: ignore[no-untyped-call]
        socket: Any = stream._ws
        data = {"key_id": server.key, "secret_key": secret}
        await socket.send(msgspec.json.encode({"action": "authenticate", "data": data}).decode())
        answer = await socket.recv()
        await socket.close()
        return str(parse(answer)["data"]["status"])

    return asyncio.run(ask())


def test_lists_are_cut_and_bounds_excluded(server: AlpacaServer) -> None:
    """50 orders by default and 500 at most, newest first; `after` and `until` exclude the bound, so ties get lost."""
    at = server.exchange.clock.tick()
    for number in range(60):
        server.place(at=at + number // 2 * 1000)
    client = client_of(server)
    assert 50 == len(client.get_orders())
    assert 60 == len(client.get_orders(GetOrdersRequest(limit=500)))
    with pytest.raises(APIError, match="between 1 and 500"):
        client.get_orders(GetOrdersRequest(limit=501))
    page = get(server, "/v2/orders", limit="3", direction="asc").json()
    times = [nanos(one["submitted_at"]) for one in page]
    assert [at, at, at + 1000] == times
    after = get(server, "/v2/orders", limit="500", direction="asc", after=rfc3339(at + 1000)).json()
    assert at + 2000 == nanos(after[0]["submitted_at"]), "the other order of the instant at the edge is lost"
    assert 2 == len(get(server, "/v2/orders", until=rfc3339(at + 1000)).json())


def test_legs_are_rolled_up_only_when_asked(server: AlpacaServer) -> None:
    """`nested` has the held exits of a bracket in their entry; without it each is an order in the list."""
    request = limit_order(
        order_class=OrderClass.BRACKET,
        take_profit=TakeProfitRequest(limit_price=190),
        stop_loss=StopLossRequest(stop_price=170),
    )
    placed: Any = client_of(server).submit_order(request)
    [nested] = get(server, "/v2/orders", nested="true").json()
    flat = get(server, "/v2/orders", nested="false").json()
    assert ["held", "held"] == [leg["status"] for leg in nested["legs"]]
    assert 3 == len(flat)
    server.fill(placed["id"])
    statuses = {one["type"]: one["status"] for one in get(server, "/v2/orders").json()}
    assert {"limit": "new", "stop": "held"} == statuses
    assert not [1 for _, update in server.account.told if update["order"]["id"] != placed["id"]], (
        "nobody is told of legs"
    )


def test_closed_and_all_orders_are_listed_by_status(server: AlpacaServer) -> None:
    """`status` is open, closed or all."""
    orders = [server.place() for _ in range(3)]
    server.cancel(orders[0].id)
    client = client_of(server)
    counts = [len(client.get_orders(GetOrdersRequest(status=status))) for status in QueryOrderStatus]
    assert {QueryOrderStatus.OPEN: 2, QueryOrderStatus.CLOSED: 1, QueryOrderStatus.ALL: 3} == dict(
        zip(QueryOrderStatus, counts, strict=True)
    )


def test_activities_come_in_pages(server: AlpacaServer) -> None:
    """FILL activities: 100 a page, newest or oldest first, `page_token` is the last id, ids are not the stream's.

    Those of one millisecond come in no order, so only the set of them is looked at.
    """
    order = server.place(qty=500, type="limit", limit_price="100")
    for number in range(120):
        server.fill(order.id, 1, f"100.{number:02d}")
    other = server.place(qty=1)
    server.fill(other.id)
    client = client_of(server)
    first: Any = client.get("/account/activities/FILL", {"direction": "asc", "page_size": 100})
    second: Any = client.get("/account/activities/FILL", {"direction": "asc", "page_token": first[-1]["id"]})
    assert (100, 21) == (len(first), len(second))
    assert set(range(1, 121)) == {int(one["cum_qty"]) for one in first + second[:-1]}
    newest: Any = client.get("/account/activities/FILL")
    assert ["fill", second[-1]["id"]] == [second[-1]["type"], newest[0]["id"]]
    assert 1 == len(client.get("/account/activities/FILL", {"order_id": other.id}))
    assert not {one["id"] for one in first} & server.exchange.executions.keys()


@pytest.mark.parametrize("binary", [True, False])
def test_alpaca_pys_stream_hears_everything_in_order(binary: bool) -> None:
    """Binary frames, as paper sends them, and text ones: each update once, in the order in which it happened."""
    with AlpacaServer(seed=3, start=START, binary=binary) as server, listening(server) as heard:
        server.live(60)
        until(lambda: len(heard) == len(server.account.told))
        assert [update["event_id"] for _, update in server.account.told] == [one["data"]["event_id"] for one in heard]


def test_one_stream_per_account(server: AlpacaServer) -> None:
    """A second connection is refused with 429 while the first one is there."""
    with listening(server):
        again = requests.get(server.url + "/stream", headers=_UPGRADE, timeout=5)
        assert 429 == again.status_code


_UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def test_what_happens_while_nobody_listens_is_never_told(server: AlpacaServer) -> None:
    """The stream replays nothing: a mute connection stays, and what it did not say is gone."""
    with listening(server) as heard:
        server.place()
        until(lambda: len(heard) == 2)
        server.go_mute()
        order = server.place()
        server.settle()
        server.stream.sessions[0].mute = False
        server.fill(order.id)
        until(lambda: len(heard) == 3)
        assert ["pending_new", "new", "fill"] == [one["data"]["event"] for one in heard]


def test_a_half_open_connection_answers_nothing(server: AlpacaServer) -> None:
    """Neither frames nor pongs: only a timeout of one's own finds it out."""
    import asyncio

    async def ping() -> None:
        stream = TradingStream(server.key, server.secret, raw_data=True, url_override=server.stream_url)
        await stream._connect()  # type: ignore[no-untyped-call]
        socket: Any = stream._ws
        await asyncio.wait_for(await socket.ping(), 2)
        await asyncio.to_thread(server.go_half_open)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(await socket.ping(), 0.2)
        socket.transport.abort()

    asyncio.run(ping())


def test_a_replace_ends_one_order_and_begins_another(server: AlpacaServer) -> None:
    """PATCH answers with the new order; the old one is told as `replaced` and names it."""
    client = client_of(server)
    placed: Any = client.submit_order(limit_order(client_order_id="alpha:1"))
    new: Any = client.replace_order_by_id(placed["id"], ReplaceOrderRequest(qty=12))
    old: Any = client.get_order_by_id(placed["id"])
    assert ("replaced", new["id"]) == (old["status"], old["replaced_by"])
    assert placed["id"] == new["replaces"]
    assert "alpha" == server.truth().team(new["id"])
    assert "12" == str(server.truth().orders[new["id"]].qty)


def test_a_replace_can_lose_to_a_fill(server: AlpacaServer) -> None:
    """The old order is filled, and the new one rejected."""
    old = server.place(type="limit", limit_price="10")
    new = server.replace(old.id, limit_price="11", loses=True)
    assert ("filled", "rejected") == (old.status, new.status)
    assert ["fill", "order_replace_rejected", "rejected"] == [update["event"] for _, update in server.account.told][-3:]


def test_a_cancel_is_a_request(server: AlpacaServer) -> None:
    """The order is `pending_cancel`, and open, until it is canceled or the cancel is rejected."""
    order = server.place()
    server.cancel(order.id, wait=True)
    assert order.is_open
    server.exchange.finish_cancel(order.id, rejected=True)
    assert "new" == order.status
    server.cancel(order.id)
    assert ["pending_cancel", "order_cancel_rejected", "pending_cancel", "canceled"] == [
        update["event"] for _, update in server.account.told
    ][2:]


def test_a_bust_and_a_correction_revise_an_execution(server: AlpacaServer) -> None:
    """A bust has a negative `qty`, leaves the status and takes `filled_qty` back; a correction has absolute numbers."""
    order = server.place(qty=3, type="limit", limit_price="10")
    first, second = server.fill(order.id, 1, "10"), server.fill(order.id, 2, "10.5")
    assert first is not None and second is not None
    first_id, second_id = first.id, second.id
    server.bust(first_id)
    bust = server.account.told[-1][1]
    server.correct(second_id, 2, "10.4")
    correction = server.account.told[-1][1]
    assert (Decimal(-1), first_id) == (bust["qty"], bust["previous_execution_id"])
    assert ("filled", Decimal(2)) == (bust["order"]["status"], bust["order"]["filled_qty"])
    assert (Decimal("10.4"), second_id) == (correction["price"], correction["previous_execution_id"])
    assert {(Decimal(2), Decimal("10.4")): 1} == server.truth().fills[order.id]


def test_a_multi_leg_order_is_filled_in_its_legs(server: AlpacaServer) -> None:
    """The parent has no symbol, the zero uuid and no execution id of its own; each leg has its own execution."""
    legs = [{"symbol": "AAPL260320P00200000", "side": "buy", "ratio_qty": "1"}]
    legs.append({"symbol": "AAPL260320C00250000", "side": "sell", "ratio_qty": "2"})
    order = server.place("", qty=4, type="limit", limit_price="0.6", order_class="mleg", legs=legs)
    server.fill(order.id)
    update = server.account.told[-1][1]
    assert ("", "00000000-0000-0000-0000-000000000000") == (update["order"]["symbol"], update["order"]["asset_id"])
    assert "execution_id" not in update
    assert [Decimal(4), Decimal(8)] == [leg["qty"] for leg in update["legs"]]
    assert 2 == len(get(server, "/v2/account/activities/FILL").json())


def test_days_pass_at_once(server: AlpacaServer) -> None:
    """On a simulated clock day orders expire at the end of their day, and orders good till canceled grow old."""
    day, gtc = server.place(), server.place(time_in_force="gtc", type="limit", limit_price="1")
    for _ in range(80):
        server.exchange.next_day()
    assert ("expired", True) == (day.status, gtc.is_open)
    assert server.exchange.clock.now() - gtc.submitted_at > 79 * 86_400 * 10**9


def test_the_limit_of_requests_is_told() -> None:
    """200 requests a minute by default; then 429, and X-Ratelimit-Reset says until when. Refused ones count too."""
    with AlpacaServer(rate_limit=3) as server:
        answers = [get(server, "/v2/account") for _ in range(4)]
        assert [200, 200, 200, 429] == [answer.status_code for answer in answers]
        assert ["2", "1", "0", "0"] == [answer.headers["X-Ratelimit-Remaining"] for answer in answers]
        assert 0 < int(answers[-1].headers["X-Ratelimit-Reset"]) - time.time() <= 61


@pytest.mark.parametrize(
    ("fault", "found"),
    [("rate_limited", 429), ("html_page", "<html>"), ("null_body", "null"), ("cut_body", '[{"id"'), ("slow", "[")],
)
def test_requests_fail_on_demand(server: AlpacaServer, fault: str, found: int | str) -> None:
    """`fail_next` lets one request meet one fault; the next one is answered as ever."""
    server.fail_next("GET /v2/orders", fault)
    answer = get(server, "/v2/orders")
    assert answer.status_code == found if isinstance(found, int) else answer.text.startswith(found)
    assert [] == get(server, "/v2/orders").json()


def test_a_server_error_is_a_five_hundred(server: AlpacaServer) -> None:
    """500, 502, 503 or 504."""
    server.fail_next("/v2/account", "server_error")
    assert get(server, "/v2/account").status_code in (500, 502, 503, 504)


def test_a_crash_between_accepting_and_answering_leaves_the_order(server: AlpacaServer) -> None:
    """The connection is cut, and the order is there all the same."""
    server.fail_next("POST /v2/orders", "crash_after_accept")
    with pytest.raises(requests.ConnectionError):
        client_of(server).submit_order(limit_order(client_order_id="alpha:1"))
    assert ["alpha:1"] == [order.client_order_id for order in server.truth().orders.values()]


def test_a_request_can_hang(server: AlpacaServer) -> None:
    """Nothing is answered until whoever asked gives up."""
    server.fail_next("/v2/account", "hang")
    with pytest.raises(requests.Timeout):
        requests.get(server.url + "/v2/account", headers=_keys(server), timeout=0.1)


def _keys(server: AlpacaServer) -> dict[str, str]:
    return {"APCA-API-KEY-ID": server.key, "APCA-API-SECRET-KEY": server.secret}


@pytest.mark.parametrize("fault", ["drop", "double", "null_data", "html_frame", "unknown_event", "misspell"])
def test_frames_are_spoiled_on_demand(server: AlpacaServer, fault: str) -> None:
    """Each fault of the stream, at a share of 1, strikes every frame."""
    server.place()
    update = server.account.told[-1][1]
    calm = told(update, server.account, Faults())
    plan = Faults()
    setattr(plan, fault, 1.0)
    spoiled = told(update, server.account, plan)
    counts = {"drop": 0, "double": 2, "null_data": 2, "html_frame": 2, "unknown_event": 2, "misspell": 1}
    assert (1, counts[fault]) == (len(calm), len(spoiled))
    read: Any = parse(spoiled[-1]) if spoiled else None
    assert fault in ("drop", "misspell") or update["event_id"] == read["data"]["event_id"]
    assert fault != "misspell" or read["data"].keys() != update.keys()


def test_a_calm_broker_has_no_faults(server: AlpacaServer) -> None:
    """`calm` ends every plan of faults, those of `wild` included."""
    assert any(getattr(Faults.wild(5), name) for name in SHARES)
    server.faults.drop = server.faults.hang = 1.0
    server.fail_next("/", "null_body")
    server.calm()
    assert 200 == get(server, "/v2/account").status_code
    assert not any(getattr(server.faults, name) for name in SHARES)


def test_a_resend_tells_the_same_words_again(server: AlpacaServer) -> None:
    """Server-sent events with `since` and `until`, or behind an id; the stream ends when `until` is reached."""
    server.live(40)
    told_ids = [update["event_id"] for _, update in server.account.told]
    whole = _events(get(server, "/v2/events/trades", **FOREVER))
    assert told_ids == [event["event_id"] for event in whole]
    middle = sorted(told_ids)[len(told_ids) // 2]
    behind = _events(get(server, "/v2/events/trades", since_id=middle, until_id=max(told_ids)))
    assert {one for one in told_ids if one > middle} == {event["event_id"] for event in behind}
    activities = _events(get(server, "/v2beta1/events/activities", **FOREVER))
    assert {"fill", "partial_fill"} <= {event["details"]["execution_type"] for event in activities}


def _events(answer: requests.Response) -> list[Any]:
    assert "text/event-stream" == answer.headers["Content-Type"]
    return [parse(line[6:].encode()) for line in answer.text.splitlines() if line.startswith("data: ")]


def test_an_account_may_have_no_resend() -> None:
    """404 where the account does not have it, for each of the two alone."""
    with AlpacaServer(resend="activities") as server:
        assert 404 == get(server, "/v2/events/trades", **FOREVER).status_code
        assert 200 == get(server, "/v2beta1/events/activities", **FOREVER).status_code


def test_a_slow_reader_is_told_that_messages_were_dropped(server: AlpacaServer) -> None:
    """A comment line says so, and some are missing."""
    server.live(20)
    server.resend.slow_comment = True
    answer = get(server, "/v2/events/trades", **FOREVER)
    assert ": you are reading too slowly, dropped" in answer.text
    assert len(_events(answer)) < len(server.account.told)


def test_the_same_seed_says_the_same() -> None:
    """A run is replayed by its seed, to the byte; another seed is another run."""

    def life(seed: int) -> list[bytes]:
        server = AlpacaServer(seed, start=START)
        server._loop.close()
        server.live(150)
        return [server.account.writer.encode(update) for _, update in server.account.told]

    assert life(4) == life(4)
    assert life(4) != life(5)


def test_what_the_broker_says_is_what_we_read() -> None:
    """Section 2: every update, order and activity of a long life translates into events that a log takes."""
    server = AlpacaServer(4, start=START)
    server._loop.close()
    server.live(500)
    server.exchange.set_status(server.place().id, "order_asleep")
    encode = server.account.writer.encode
    frames = [encode({"stream": "trade_updates", "data": update}) for _, update in server.account.told]
    orders = [encode(server.account.writer.order(order)) for order in server.truth().orders.values()]
    fills = [encode(server.account.writer.activity(one)) for one in server.exchange.executions.values()]
    for message in frames + orders + fills:
        translation = translate(parse(message))
        assert [] == translation.problems
        assert not [event for event in translation.events if isinstance(build_event(event), Problem)]
    events = {update["event"] for _, update in server.account.told}
    assert {"trade_bust", "trade_correct", "replaced", "expired", "order_asleep"} <= events


def test_it_starts_by_hand() -> None:
    """`python -m tests.alpaca_server` prints the variables that lead a program to it, and trades."""
    command = [sys.executable, "-m", "tests.alpaca_server", "--port", "0", "--seconds", "0.2", "--pause", "0.01"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=True)
    assert "export APCA_API_BASE_URL=http://127.0.0.1:" in done.stdout
    assert "export APCA_API_KEY_ID=" in done.stdout
