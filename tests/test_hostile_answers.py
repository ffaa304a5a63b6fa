"""Answers of a broker that are wrong, endless, late or about something else: what each of them costs, and what not."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from compactor import Ledger
from compactor.broker.adapters import find_credentials, open_broker
from compactor.broker.alpaca import rest as rest_module
from compactor.broker.alpaca.adapter import AlpacaAccount
from compactor.broker.alpaca.leg_executions import LegBook, find_legs, find_unknown_kind
from compactor.broker.alpaca.listing import list_around, list_families, merge_spans
from compactor.broker.alpaca.rest import AlpacaRest
from compactor.broker.alpaca.translate import translate
from compactor.broker.alpaca.transport import BadBody, DeadlineExceeded, Transport
from compactor.broker.budget import Budget
from compactor.broker.placing import Trader
from compactor.broker.port import BrokerError, BrokerUnavailable, NotFound, RateLimited, Refused, Translation
from compactor.sync.answers import AskedAccount
from compactor.sync.reconcile import Reconciler
from compactor.sync.reconciled import Reconciled
from tests.scripted_alpaca import ScriptedAlpaca, ago, error, make_fill, make_order, page


@pytest.fixture
def server() -> Iterator[ScriptedAlpaca]:
    with ScriptedAlpaca() as one:
        yield one


@pytest.fixture
def broker(server: ScriptedAlpaca) -> AlpacaRest:
    return AlpacaRest(find_credentials(server.environment), budget=Budget(100_000), sleep=lambda seconds: None)


def open_account(server: ScriptedAlpaca) -> AlpacaAccount:
    account = open_broker(find_credentials(server.environment), budget=Budget(100_000), tries=1)
    assert isinstance(account, AlpacaAccount)
    return account


def make_reconciler(server: ScriptedAlpaca, data: Path, **more: Any) -> Reconciler:
    return Reconciler(data, [AskedAccount("default", open_account(server))], teams=["alpha", "beta"], **more)


def reconcile(server: ScriptedAlpaca, data: Path, **more: Any) -> Reconciled:
    return make_reconciler(server, data).run(**more)


def kinds(done: Reconciled) -> list[str]:
    return [one.kind for one in done.problems]


def rows(data: Path, kind: Any, team: str = "alpha") -> list[dict[str, Any]]:
    with Ledger(data / "team" / team) as ledger:
        ledger.compact()
        return list(ledger.rows(kind))


# Pages.


def test_pages_that_do_not_go_on_are_an_error(server: ScriptedAlpaca, broker: AlpacaRest) -> None:
    """An endless loop over the same page would never end a reconcile."""
    full = [make_fill("o", f"e{number}", "1", "1", "1", 60) for number in range(100)]
    server.answers["GET", "/v2/account/activities/FILL"] = lambda request: full
    with pytest.raises(BrokerError, match="expected a page that goes on"):
        broker.fills(ago(3600))
    server.answers["GET", "/v2/account/activities/FILL"] = lambda request: [{**one, "id": 7} for one in full]
    with pytest.raises(BrokerError, match="expected a page that goes on"):
        broker.fills(ago(3600))


def test_pages_without_an_end_are_an_error(
    server: ScriptedAlpaca, broker: AlpacaRest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest_module, "PAGES_MAX", 3)
    count = iter(range(10**6))
    server.answers["GET", "/v2/account/activities/FILL"] = lambda request: [
        make_fill("o", f"e{next(count)}", "1", "1", "1", 60) for _ in range(100)
    ]
    with pytest.raises(BrokerError, match="activities have no end after 3 pages; expected the last one"):
        broker.fills(ago(3600))
    assert 3 == len(server.seen)
    assert 200 == len(broker.fills(ago(3600), pages_max=2)), "so many are asked for, and no more"
    server.answers["GET", "/v2/orders"] = lambda request: [
        make_order(f"o{next(count)}", seconds_ago=1000 - next(count) / 10) for _ in range(500)
    ]
    with pytest.raises(BrokerError, match="orders have no end after 3 pages; expected the last one"):
        broker.open_orders()


def test_a_page_of_orders_without_their_time_leads_nowhere(server: ScriptedAlpaca, broker: AlpacaRest) -> None:
    orders = [make_order(f"o{number}") for number in range(500)]
    server.answers["GET", "/v2/orders"] = lambda request: [{**one, "submitted_at": None} for one in orders]
    with pytest.raises(BrokerError, match="expected a page that leads to the next one"):
        broker.open_orders()
    assert "after=" in server.seen[1], "the time at which it was made is one, too"
    server.seen.clear()
    nowhen = [{**one, "submitted_at": None, "created_at": None} for one in orders]
    server.answers["GET", "/v2/orders"] = lambda request: nowhen
    with pytest.raises(BrokerError, match="expected a page that leads to the next one"):
        broker.open_orders()
    assert 1 == len(server.seen)
    assert [] == broker.orders_page("soon")


def test_activities_of_other_orders_are_left_out(server: ScriptedAlpaca, broker: AlpacaRest) -> None:
    """An older server ignores the filter."""
    fills = [make_fill(name, f"e-{name}", "1", "1", "1", 60) for name in ("a", "b", "a2")]
    server.answers["GET", "/v2/account/activities/FILL"] = lambda request: fills
    assert ["a"] == [one["order_id"] for one in broker.fills(ago(3600), "a")]
    assert 3 == len(broker.fills(ago(3600)))


@pytest.mark.parametrize("body", ["7", "[7]", '{"a":1}', "null"])
def test_what_is_no_list_of_objects_is_an_error(server: ScriptedAlpaca, broker: AlpacaRest, body: str) -> None:
    """Never an empty list: an order would seem to be nowhere."""
    for path in ("/v2/orders", "/v2/positions", "/v2/account/activities/FILL"):
        server.answers["GET", path] = lambda request: web.Response(text=body, content_type="application/json")
    for ask in (broker.open_orders, broker.positions, lambda: broker.fills(ago(60))):
        with pytest.raises(BrokerError, match="expected a list of objects"):
            ask()


@pytest.mark.parametrize("found", [None, [], {"id": "other"}, {}])
def test_an_answer_about_another_order_is_none(server: ScriptedAlpaca, broker: AlpacaRest, found: Any) -> None:
    for path in ("/v2/orders/*", "/v2/orders:by_client_order_id"):
        server.answers["GET", path] = lambda request: web.json_response(found)
    with pytest.raises(BrokerError, match=r"/orders/o: found .*, expected that order"):
        broker.order("o")
    with pytest.raises(BrokerError, match=r"/orders:by_client_order_id: found .*, expected that order"):
        broker.order_by_client_id("c")


@pytest.mark.parametrize("found", [None, [], {"id": 7}, {}])
def test_an_accepted_change_that_names_no_order_is_unknown(
    server: ScriptedAlpaca, broker: AlpacaRest, found: Any
) -> None:
    """It was executed, and nobody knows as what: the reconcile finds out."""
    server.answers["PATCH", "/v2/orders/*"] = lambda request: web.json_response(found)
    with pytest.raises(BrokerUnavailable, match="expected the order that replaces it"):
        broker.replace("o", {"qty": "2"})
    server.answers["POST", "/v2/orders"] = lambda request: web.json_response(found)
    with pytest.raises(BrokerUnavailable, match="expected the order that was placed"):
        broker.place({"client_order_id": "alpha:1"})
    assert 2 == len(server.seen), "neither is sent twice"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BrokerError), (402, BrokerError), (404, NotFound), (405, BrokerError), (408, BrokerUnavailable),
        (422, NotFound), (429, RateLimited), (500, BrokerUnavailable), (502, BrokerUnavailable),
        (302, BrokerError), (204, BrokerError), (202, BrokerError),
    ],
)  # fmt: skip
def test_what_a_status_means_for_a_question(
    server: ScriptedAlpaca, broker: AlpacaRest, status: int, kind: type[BrokerError]
) -> None:
    """Written out: what may pass is tried again four times, anything else once."""
    answer = {"code": 40010000, "message": "because"}
    server.answers["GET", "/v2/account"] = lambda request: (
        web.Response(status=204) if status == 204 else web.json_response(answer, status=status)
    )
    with pytest.raises(BrokerError) as caught:
        broker.account()
    assert (kind, status) == (type(caught.value), caught.value.status)
    assert len(server.seen) == (4 if issubclass(kind, BrokerUnavailable) else 1)
    assert caught.value.code == (None if status in (204, 429) else "40010000")


@pytest.mark.parametrize("status", [400, 403, 409, 422])
@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_a_no_to_a_change_is_refused(server: ScriptedAlpaca, broker: AlpacaRest, method: str, status: int) -> None:
    server.answers[method, "/v2/orders/*"] = error(status, 42210000, "no")
    with pytest.raises(Refused) as caught:
        broker.replace("o", {}) if method == "PATCH" else broker.cancel("o")
    assert (status, "42210000") == (caught.value.status, caught.value.code)


# Bodies.


@pytest.mark.parametrize(
    ("encoding", "body", "said"),
    [
        ("br", b"x", "found an answer with the encoding 'br', expected gzip or none"),
        ("gzip", b"no gzip", "whose compression is damaged"),
        (
            "gzip",
            gzip.compress(b"{}" * 500, mtime=0)[:-9],
            "found a compressed answer that breaks off, expected all of it",
        ),
    ],
)
def test_an_answer_in_a_broken_wrapping_is_no_answer(
    server: ScriptedAlpaca, encoding: str, body: bytes, said: str
) -> None:
    server.answers["GET", "/v2/account"] = lambda request: web.Response(
        body=body, headers={"Content-Encoding": encoding, "Content-Type": "application/json"}
    )
    with pytest.raises(BadBody) as caught:
        Transport(find_credentials(server.environment)).send("GET", "/account")
    assert said in str(caught.value)


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "identity", " GZIP "])
def test_an_answer_may_be_compressed(server: ScriptedAlpaca, encoding: str) -> None:
    body = b'{"id":"a"}' if encoding == "identity" else gzip.compress(b'{"id":"a"}')
    server.answers["GET", "/v2/account"] = lambda request: web.Response(
        body=body, headers={"Content-Encoding": encoding}
    )
    assert b'{"id":"a"}' == Transport(find_credentials(server.environment)).send("GET", "/account").body


def test_the_deadline_holds_on_the_way_through_a_proxy(server: ScriptedAlpaca, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy's connections are watched like any other."""

    async def drip(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(1000):
            import asyncio

            await answer.write(b" ")
            await asyncio.sleep(0.05)
        return answer

    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    environ = {**server.environment, "APCA_API_BASE_URL": "http://localhost:9"}
    transport = Transport(find_credentials(environ), deadline_seconds=0.5)
    assert b"ACTIVE" in transport.send("GET", "/account").body, "it went through the proxy"
    server.answers["GET", "/v2/account"] = drip
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        transport.send("GET", "/account")
    assert time.monotonic() - started < 10


# Lists and legs.


def test_a_list_around_orders_reads_as_few_pages_as_there_can_be(server: ScriptedAlpaca, broker: AlpacaRest) -> None:
    """Each page begins at the earliest order that none had; of other orders only the held legs are kept."""
    for number in range(6):
        server.orders[f"o{number}"] = make_order(f"o{number}", seconds_ago=1000 - number)
    held = make_order("h", seconds_ago=995.5, legs=[make_order("h-sl", status="held", seconds_ago=995.5)])
    server.orders["h"] = held
    wanted = {name: server.orders[name]["submitted_at"] for name in ("o1", "o4")}
    assert {"o1", "o4", "h"} == {one["id"] for one in list_around(broker, wanted)}
    assert 1 == len(server.seen)
    assert [] == list_around(broker, {"lost": ago(10)})
    assert 2 == len(server.seen), "one that is not where it should be is asked for once"
    for status in ("held", "new"):
        held["legs"][0]["status"] = status
        leg = list_around(broker, {"h-sl": held["submitted_at"]})
        assert ["h"] == [one["id"] for one in leg], "a leg is found in its family"


def test_families_are_looked_for_where_the_first_of_them_was(server: ScriptedAlpaca, broker: AlpacaRest) -> None:
    """An exit that replaced others was submitted later; five steps back are enough, and a plain order has no family."""
    exits = [make_order("x0", seconds_ago=5000, status="replaced", order_class="bracket")]
    for number in range(1, 8):
        exits.append(
            make_order(
                f"x{number}", seconds_ago=5000 - number, replaces=f"x{number - 1}", order_class="bracket",
                status="new" if number == 7 else "replaced",
            )
        )  # fmt: skip
    server.orders = {one["id"]: one for one in exits}
    list_families(broker, [exits[7]])
    assert 5 == server.count("GET /v2/orders/x"), "so far and no farther"
    server.seen.clear()
    plain = [make_order(f"p{kind}", order_class=kind, replaces="x1") for kind in ("", "simple", None)]
    assert ([], []) == (list_families(broker, plain), server.seen)
    gone = make_order("g", order_class="oco", replaces="nobody-has-it", submitted_at=None)
    assert [] == list_families(broker, [gone])
    assert server.count("/v2/orders/nobody-has-it") == 1
    assert list_families(broker, [make_order("t", order_class="oco", submitted_at=None, created_at=None)]) == []


def test_activities_that_were_not_answered_are_asked_for_again(server: ScriptedAlpaca, data: Path) -> None:
    """Chaos, 51829: a request that failed is none that was made in vain. The same process asks again at once, although
    the order has ended and no list has it."""
    server.orders["o"] = make_order("o", seconds_ago=20_000, status="partially_filled", filled_qty="0")
    reconciler = make_reconciler(server, data)
    reconciler.run()
    server.orders["o"].update(status="filled", filled_qty="3", filled_avg_price="10", updated_at=ago(15_000))
    fails = error(500, 50010000, "internal server error occurred")
    server.answers["GET", "/v2/account/activities/FILL"] = lambda request: (
        fails(request) if "order_id" in request.query else []
    )
    assert "order_unanswered" in kinds(reconciler.run())
    server.fills += [make_fill("o", "x1", "1", "9", "1", 15_001), make_fill("o", "x2", "2", "10.5", "3", 15_000)]
    server.answers.clear()
    reconciler.run()
    assert ["1", "2"] == [trade["quantity"] for trade in rows(data, "trades") if trade["kind"] == "fill"]


@pytest.mark.parametrize("status", [400, 500, 503])
def test_an_earlier_exit_that_is_not_answered_for_fails_no_list(
    server: ScriptedAlpaca, broker: AlpacaRest, status: int
) -> None:
    """Issue 16, 4, and chaos, 51802: one poisonous order costs its own family, and not the account's reconcile."""
    other = make_order("h", order_class="bracket", seconds_ago=100)
    exit_ = make_order("x1", order_class="bracket", replaces="x0", seconds_ago=4000)
    server.orders = {one["id"]: one for one in (other, exit_)}
    server.answers["GET", "/v2/orders/x0"] = page(status)
    assert {"h", "x1"} == {one["id"] for one in list_families(broker, [other, exit_])}


@pytest.mark.parametrize(
    ("spans", "merged"),
    [
        ([], []),
        ([(100, 200)], [(40, 260)]),
        ([(100, 200), (319, 400)], [(40, 460)]),
        ([(100, 200), (322, 400)], [(40, 260), (262, 460)]),
        ([(300, 400), (100, 900), (150, 160)], [(40, 960)]),
        ([(59, 100), (None, 100)], []),
    ],
)
def test_spans_of_time_are_merged(spans: list[tuple[Any, Any]], merged: list[tuple[int, int]]) -> None:
    """A minute wider on both sides, and joined where they then touch; what has no beginning is left out."""

    def name(at: int | None) -> str | None:
        return None if at is None else f"1970-01-01T00:{at // 60:02}:{at % 60:02}Z"

    found = merge_spans([(name(since), name(until)) for since, until in spans])
    assert [(name(since), name(until)) for since, until in merged] == [
        (since.split(".")[0].rstrip("Z") + "Z", until.split(".")[0].rstrip("Z") + "Z") for since, until in found
    ]


def test_of_executions_no_more_is_read_than_pays_off(server: ScriptedAlpaca) -> None:
    """A page for two orders: beyond that each of them is asked for by itself."""
    account = open_account(server)
    server.fills = [make_fill("a", f"e{number}", "1", "1", "1", 500 - number / 10) for number in range(400)]
    orders = [{"order_id": name, "created_at": ago(600), "ts": ago(100)} for name in ("a", "b", "c", "d")]
    assert 200 == len(account.list_fills(orders).events)
    assert 2 == len(server.seen)
    apart = [{"order_id": "e", "created_at": ago(90_000), "ts": ago(80_000)}]
    server.seen.clear()
    assert 0 == len(account.list_fills([*orders[:1], *apart]).events)
    assert 1 == len(server.seen), "the older span is empty, and it was the one page"
    server.fills = [make_fill("e", f"e{number}", "1", "1", "1", 85_000 - number / 10) for number in range(400)]
    server.seen.clear()
    assert 200 == len(account.list_fills([*orders[:3], *apart]).events)
    assert 2 == len(server.seen), "the older span took both pages"


def test_legs_that_no_leg_fits_are_a_problem() -> None:
    """An execution that names a parent, and none of its legs has its symbol and side: nobody knows whose it is."""
    legs = [{"id": "l1", "symbol": "SPY261218C00500000", "side": "buy", "qty": "1"}]
    parent = {"id": "p", "symbol": "", "legs": legs, "qty": "1"}
    book = LegBook(lambda order_id: None)
    book.note([parent, 7, "x", {"id": "plain", "symbol": "AAPL"}])
    told = {
        "activity_type": "FILL", "id": "t::e", "order_id": "p", "symbol": "MSFT", "side": "buy", "qty": "1",
        "price": "1", "transaction_time": ago(60), "type": "fill",
    }  # fmt: skip
    moved = book.move(translate(told))
    assert [] == moved.events
    assert "no leg of order p is buy MSFT" == moved.problems[0].detail
    fits = book.move(translate({**told, "symbol": "SPY261218C00500000"}))
    assert [("l1", "p")] == [(one["order_id"], one["parent_order_id"]) for one in fits.events]
    assert {} == find_legs({"symbol": "AAPL", "legs": legs})
    assert {} == find_legs({"symbol": "", "legs": [7, {"symbol": "X"}, None]})
    assert {} == find_legs(None)


def test_the_legs_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compactor.broker.alpaca.leg_executions.LEGS_KEPT_MAX", 2)
    asked: list[str] = []
    book = LegBook(lambda order_id: asked.append(order_id))
    option = "SPY261218C00500000"
    for name in ("a", "b", "c", "c", "d", "a"):
        assert "" == book.prepare([(name, option, "buy")])
    assert ["a", "b", "c", "d", "a"] == asked


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        (b"\xff", None),
        (b"7", None),
        (b'{"activity_type":"DIV"}', None),
        (b'{"activity_type":"NOVA"}', "NOVA"),
        (b'{"activity_type":"TRD"}', None),
        (b'{"activity_type":"FILL","details":{"execution_type":"fill"}}', None),
        (b'{"activity_type":"TRD","details":{"execution_type":"split"}}', "TRD split"),
    ],
)
def test_kinds_of_entries_that_are_understood(entry: bytes, kind: str | None) -> None:
    assert kind == find_unknown_kind(entry)


@pytest.mark.parametrize("details", [7, None, "x"])
def test_an_entry_whose_details_are_none_is_a_problem(details: Any) -> None:
    told = translate({"activity_type": "TRD", "details": details, "at": ago(60)}, source="stream")
    assert ["missing_field"] == [one.kind for one in told.problems]


@pytest.mark.parametrize(
    ("leaves", "event"), [("0", "fill"), ("1", "partial_fill"), ("?", "partial_fill"), (None, "fill"), (0, "fill")]
)
def test_a_fill_that_leaves_something_open_is_partial(leaves: Any, event: str) -> None:
    details = {"execution_type": "fill", "order_id": "o", "leaves_qty": leaves}
    [found] = translate({"activity_type": "TRD", "details": details, "executed_at": ago(60), "ref_id": "e"}).events
    assert event == found["event"]


# What a reconcile makes of it.


def test_odd_entries_stop_no_other(server: ScriptedAlpaca, data: Path) -> None:
    """A time that is none, a quantity that is none: named, each with its order, and all others are reconciled."""
    server.orders["good"] = make_order("good", seconds_ago=100)
    server.orders["bad"] = make_order("bad", seconds_ago=100, filled_qty="many")
    when = make_order("when", seconds_ago=100)
    for name in ("updated_at", "created_at"):
        when[name] = "yesterday"
    server.orders["when"] = when
    server.fills = [make_fill("nobody", "e1", "some", "1", "1", 60)]
    done = reconcile(server, data)
    assert ["bad_value"] * 3 == kinds(done)
    assert {"bad", "when", "nobody"} == {one.order_id for one in done.problems}
    assert {"good", "bad", "when"} == {row["order_id"] for row in rows(data, "pending_orders")}
    assert 0 == reconcile(server, data).events


@pytest.mark.parametrize(
    ("name", "odd"),
    [
        ("filled_qty", {"a": 1}), ("filled_qty", [1]), ("filled_qty", True), ("filled_qty", "-1"), ("qty", "1e999"),
        ("qty", {}), ("side", "short"), ("side", 3), ("limit_price", "x"), ("status", {"a": 1}), ("replaced_by", {}),
        ("extended_hours", "maybe"), ("created_at", "yesterday"), ("group_id", {}), ("filled_avg_price", "NaN"),
    ],
)  # fmt: skip
def test_what_is_live_is_taken_whatever_else_is_odd_about_it(
    server: ScriptedAlpaca, data: Path, name: str, odd: Any
) -> None:
    """Issue 16, 4: a poisonous field costs that field, and it is named; the order is in the ledger, and all others."""
    server.orders = {key: make_order(key, seconds_ago=100) for key in ("m", "fine")}
    server.orders["m"][name] = odd
    done = reconcile(server, data)
    assert ["bad_value"] == kinds(done)
    assert "m" == done.problems[0].order_id
    assert {"m", "fine"} == {row["order_id"] for row in rows(data, "pending_orders")}
    assert 0 == reconcile(server, data).events


@pytest.mark.parametrize(
    ("name", "odd", "kind"),
    [
        ("qty", None, "missing_field"), ("price", None, "missing_field"), ("qty", {}, "bad_value"),
        ("qty", "0", "bad_value"), ("qty", "-5", "bad_value"), ("price", "x", "bad_value"),
        ("cum_qty", "x", "bad_value"), ("side", "up", "bad_value"),
    ],
)  # fmt: skip
def test_an_execution_that_cannot_be_read_costs_itself(
    server: ScriptedAlpaca, data: Path, name: str, odd: Any, kind: str
) -> None:
    """Issue 16, 4: the order is reconciled by its sums, the trade is inferred or told, and all others go on."""
    server.orders["m"] = make_order(
        "m", seconds_ago=100, filled_qty="5", filled_avg_price="10", status="partially_filled"
    )
    server.orders["fine"] = make_order("fine", seconds_ago=100)
    server.fills = [make_fill("m", "e1", "5", "10", "5", 60) | {name: odd}]
    done = reconcile(server, data)
    assert [kind] == kinds(done)
    assert {"m", "fine"} == {row["order_id"] for row in rows(data, "pending_orders")}
    assert ["5"] == [row["quantity"] for row in rows(data, "trades")]
    assert 0 == reconcile(server, data).events


def test_an_order_whose_answer_is_odd_is_written_down_when_it_is_placed(server: ScriptedAlpaca, data: Path) -> None:
    """It is at the broker: an odd field must not make a failed disk of it."""
    placed = make_order("n", name="alpha:1", seconds_ago=0, extended_hours="maybe")
    server.answers["POST", "/v2/orders"] = lambda request: placed
    trader = Trader(data, find_credentials(server.environment), budget=Budget(100))
    assert "n" == trader.submit("alpha", {"symbol": "AAPL", "qty": "10", "client_order_id": "1"})["id"]
    assert ["n"] == [row["order_id"] for row in rows(data, "pending_orders")]


def test_an_order_without_any_time_is_named(server: ScriptedAlpaca, data: Path) -> None:
    nowhen = dict.fromkeys(("updated_at", "created_at", "submitted_at"))
    server.answers["GET", "/v2/orders"] = lambda request: [{**make_order("o"), **nowhen}, make_order("fine")]
    done = reconcile(server, data)
    assert "missing_field" in kinds(done)
    assert ["fine"] == [row["order_id"] for row in rows(data, "pending_orders")]


def test_answers_that_raise_ever_new_questions_end(server: ScriptedAlpaca, data: Path) -> None:
    """A chain of replacements without an end: after thirty rounds it is an error, and nothing was appended."""
    count = iter(range(10**6))

    def replaced(request: web.Request) -> Any:
        name = request.path.rpartition("/")[2]
        return make_order(name, status="replaced", replaced_by=f"r{next(count)}", name="x", seconds_ago=900)

    server.orders["first"] = make_order("first", status="replaced", replaced_by="r", filled_qty="1", name="x")
    server.fills = [make_fill("first", "e1", "1", "1", "1", 60)]
    server.answers["GET", "/v2/orders/*"] = lambda request: {**replaced(request), "replaces": f"q{next(count)}"}
    server.orders["first"]["replaces"] = "q"
    with pytest.raises(BrokerError, match="after 30 rounds the broker's answers still raise new questions"):
        reconcile(server, data)
    assert not (data / "team").exists()


def test_positions_that_are_refused_for_the_rate_end_the_run(server: ScriptedAlpaca, data: Path) -> None:
    """After a 429 nothing more is asked; any other failure of positions costs only their comparison."""
    server.answers["GET", "/v2/positions"] = lambda request: web.Response(status=429, headers={"Retry-After": "1"})
    with pytest.raises(RateLimited):
        reconcile(server, data)
    server.answers["GET", "/v2/positions"] = page(500)
    server.orders["o"] = make_order("o", seconds_ago=100)
    assert 1 == reconcile(server, data).events


def test_a_position_that_nobody_can_explain_now_is_not_named(server: ScriptedAlpaca, data: Path) -> None:
    """Where the activities that might explain it cannot be read, the next run compares it."""
    reconcile(server, data)
    server.positions = [{"symbol": "AAPL", "qty": "3", "side": "long"}]
    server.answers["GET", "/v2/account/activities"] = page(502)
    assert [] == reconcile(server, data).positions
    del server.answers["GET", "/v2/account/activities"]
    assert ["position_differs"] == kinds(reconcile(server, data))


def test_a_damaged_record_of_positions_is_made_anew(server: ScriptedAlpaca, data: Path) -> None:
    server.positions = [{"symbol": "AAPL", "qty": "3", "side": "long"}]
    (data / ".compactor").mkdir()
    (data / ".compactor/positions.json").write_text("{torn")
    reconcile(server, data)
    assert ["explained"] == [one.kind for one in reconcile(server, data).positions]


def test_a_ledger_that_cannot_be_written_stops_no_other(server: ScriptedAlpaca, data: Path) -> None:
    """A team whose directory is no directory, and one whose log is a directory, are named; the third is written."""
    (data / "team").mkdir()
    (data / "team/alpha").write_text("")
    server.orders["a"] = make_order("a", seconds_ago=100)
    server.orders["b"] = make_order("b", name="beta:1", seconds_ago=100)
    done = reconcile(server, data)
    assert ["alpha"] == [one.team_id for one in done.failed]
    assert ["b"] == [row["order_id"] for row in rows(data, "pending_orders", "beta")]


def test_an_order_without_a_creation_is_asked_about_for_a_year(server: ScriptedAlpaca, data: Path) -> None:
    """Its activities may be that old."""
    server.orders["o"] = make_order(
        "o", seconds_ago=100, created_at=None, filled_qty="5", filled_avg_price="10", status="partially_filled"
    )
    server.fills = [make_fill("o", "e1", "5", "10", "5", 300 * 86_400)]
    reconcile(server, data)
    assert ["5"] == [row["quantity"] for row in rows(data, "trades")]
    assert "20" in next(one for one in server.seen if "order_id=o" in one)


def test_an_answer_by_id_that_tells_nothing_is_left_open(server: ScriptedAlpaca, data: Path) -> None:
    """The order is open here and in no list, and what comes by id cannot be read: it stays, and is no missing one."""
    server.orders["o"] = make_order("o", seconds_ago=9 * 86_400)
    reconcile(server, data)
    server.hide.add("o")
    server.answers["GET", "/v2/orders/*"] = lambda request: {"id": "o", "mood": "odd"}
    done = reconcile(server, data)
    assert "order_not_found" not in kinds(done)
    assert ["o"] == [row["order_id"] for row in rows(data, "pending_orders")]


def test_requests_that_are_none_are_told_at_once(server: ScriptedAlpaca) -> None:
    account = open_account(server)
    with pytest.raises(TypeError, match="expected one of alpaca-py's order requests or a mapping, found int"):
        account.read_request(7)
    for odd in (float("nan"), float("inf"), Decimal("Infinity")):
        with pytest.raises(Refused, match="among the terms of an order, expected numbers; the broker was not asked"):
            account.read_request({"qty": odd})
    server.answers["PATCH", "/v2/orders/*"] = lambda request: {"id": "o"}
    with pytest.raises(BrokerUnavailable, match="the broker's answer cannot be read"):
        account.replace("o", {"qty": "1"})
    assert [] == server.bodies[1:], "it was sent once"


def test_a_translation_has_nothing_to_move() -> None:
    empty = Translation([], [])
    assert empty == LegBook(lambda order_id: None).move(empty)
