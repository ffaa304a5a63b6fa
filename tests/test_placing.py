"""Placing and canceling through a local Alpaca: once, under the team's name, and in the log before anybody goes on."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from compactor import DiskFull, Ledger, LedgerError, discover
from compactor.broker import NotFound, NotWrittenDown, PlacementUnknown, Refused, Trader, cancel, placing, submit
from compactor.broker.adapters import find_credentials, open_broker
from compactor.broker.alpaca.rest import AlpacaRest
from compactor.broker.budget import Budget
from compactor.broker.credentials import BadCredentials
from compactor.broker.intents import IntentWriter, resolve_intents
from compactor.broker.port import Translation
from compactor.core.events import INTENTS
from compactor.ledger import BadTeam
from compactor.ledger.open_intents import read_open_intents
from compactor.settings.accounts import Account
from compactor.sync.answers import AskedAccount
from compactor.sync.reconcile import Reconciler
from compactor.web.canceling import Canceler, CannotCancel
from tests.alpaca_server import AlpacaServer
from tests.conftest import ROOT

LIMIT = {"symbol": "SPY", "qty": "2", "side": "buy", "type": "limit", "limit_price": "529.98", "time_in_force": "day"}


@pytest.fixture
def server() -> Iterator[AlpacaServer]:
    with AlpacaServer(seed=3, rate_limit=None) as one:
        yield one


@pytest.fixture
def trader(data: Path, server: AlpacaServer) -> Trader:
    return trader_of(data, server)


def trader_of(data: Path, server: AlpacaServer) -> Trader:
    impatient = Budget(100_000, sleep=lambda seconds: None, clock=iter(range(0, 10**9, 100)).__next__)
    keys = find_credentials(server.environment)
    return Trader(data, keys, budget=impatient, timeout_seconds=(0.5, 0.5), sleep=lambda seconds: None)


def events_of(data: Path, team: str = "alpha") -> list[dict[str, Any]]:
    path = data / "team" / team / "events.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def log_of(data: Path, team: str = "alpha") -> list[dict[str, Any]]:
    """The events of orders, without intents (3.13)."""
    return [one for one in events_of(data, team) if one["event"] not in INTENTS]


def intents_of(data: Path, team: str = "alpha") -> list[str]:
    """The names of the intents in a log."""
    return [one["event"] for one in events_of(data, team) if one["event"] in INTENTS]


def rows(data: Path, team: str = "alpha") -> list[dict[str, Any]]:
    with Ledger(data / "team" / team) as ledger:
        ledger.compact()
        return list(ledger.rows("pending_orders"))


def test_an_order_is_in_the_log_when_submit_returns(data: Path, trader: Trader, server: AlpacaServer) -> None:
    """Issue 4, 6: placed once, under a client_order_id that carries the team."""
    order = trader.submit("alpha", LIMIT)

    assert list(server.truth().orders) == [order["id"]]
    assert order["client_order_id"].startswith("alpha:")
    assert [order["id"]] == [event["order_id"] for event in log_of(data)]
    assert [("2", "529.98", "0")] == [(row["quantity"], row["limit_price"], row["filled_qty"]) for row in rows(data)]


def test_alpaca_py_s_own_requests_are_taken(data: Path, trader: Trader, server: AlpacaServer) -> None:
    """Issue 4, 6: a request object of alpaca-py; its floats become the digits that the caller wrote."""
    from alpaca.trading.enums import OrderSide, TimeInForce
    from alpaca.trading.requests import LimitOrderRequest, StopLossRequest, TakeProfitRequest

    request = LimitOrderRequest(
        symbol="AAPL", qty=3, side=OrderSide.BUY, time_in_force=TimeInForce.GTC, limit_price=181.5,
        order_class="bracket", take_profit=TakeProfitRequest(limit_price=190.1),
        stop_loss=StopLossRequest(stop_price=170.05),
    )  # fmt: skip
    order = trader.submit("alpha", request)
    found = server.truth().orders[order["id"]]
    legs = [server.truth().orders[leg] for leg in found.legs]

    assert (Decimal(3), Decimal("181.5")) == (found.qty, found.limit_price)
    assert {Decimal("190.1"), Decimal("170.05")} == {leg.limit_price or leg.stop_price for leg in legs}
    assert {order["id"], *found.legs} == {event["order_id"] for event in log_of(data)}


def test_a_term_without_a_value_is_not_told(trader: Trader, server: AlpacaServer) -> None:
    """Also one of a leg: some brokers take null for a wrong value."""
    terms = {"symbol": "AAPL", "side": None, "take_profit": {"limit_price": "190.1", "stop_price": None}}
    found = open_broker(find_credentials(server.environment)).read_request(terms)
    assert {"symbol": "AAPL", "take_profit": {"limit_price": "190.1"}} == found


@pytest.mark.parametrize(
    "fault", ["crash_after_accept", "server_error", "html_page", "null_body", "cut_body", "rate_limited"]
)
def test_nothing_is_placed_twice_on_a_retry(data: Path, trader: Trader, server: AlpacaServer, fault: str) -> None:
    """Issue 4, 6: whatever became of the answer, the broker has the order once, and so has the log."""
    server.fail_next("POST", fault, 2)
    order = trader.submit("alpha", LIMIT)

    assert [order["id"]] == list(server.truth().orders)
    assert [order["id"]] == [row["order_id"] for row in rows(data)]


def test_an_order_whose_answer_was_lost_is_asked_for(data: Path, trader: Trader, server: AlpacaServer) -> None:
    """Issue 4, 6: it is looked for under its client_order_id before anything is sent again."""
    server.fail_next("POST", "crash_after_accept")
    trader.submit("alpha", LIMIT)
    assert ["POST", "GET"] == [request.partition(" ")[0] for request in server.requests]
    assert "/v2/orders:by_client_order_id?client_order_id=alpha%3A" in server.requests[1]


def test_submitting_the_same_again_returns_the_order_that_is_there(data: Path, trader: Trader) -> None:
    """Issue 4, 6: an application that crashed submits again under its own id."""
    first = trader.submit("alpha", {**LIMIT, "client_order_id": "signal-7"})
    second = trader.submit("alpha", {**LIMIT, "client_order_id": "alpha:signal-7"})
    assert (first["id"], "alpha:signal-7") == (second["id"], second["client_order_id"])
    assert 1 == len(rows(data))


def test_when_nobody_knows_it_says_so(data: Path, trader: Trader, server: AlpacaServer) -> None:
    """Issue 4, 6: an error that says that nobody knows is not a no, and names the id to ask for."""
    server.fail_next("POST", "crash_after_accept")
    server.fail_next("GET", "server_error", 100)
    with pytest.raises(PlacementUnknown, match="which cannot place it twice") as caught:
        trader.submit("alpha", LIMIT)
    server.calm()

    assert 1 == len(server.truth().orders)
    order = trader.submit("alpha", {**LIMIT, "client_order_id": caught.value.client_order_id})
    assert [order["id"]] == list(server.truth().orders)


def test_a_refusal_is_passed_on_and_written_down(data: Path, trader: Trader, server: AlpacaServer) -> None:
    """Issue 4, 6; issue 14: what the broker will not have is not tried again, and the log says why."""
    with pytest.raises(Refused, match="qty must be > 0") as caught:
        trader.submit("alpha", {**LIMIT, "qty": "0"}, tags=["pairs"], note="too small")
    asked, refused = events_of(data)
    assert ("submitting", ["pairs"], "too small", "0") == (
        asked["event"], asked["tags"], asked["note"], asked["request"]["quantity"]
    )  # fmt: skip
    assert ("refused", caught.value.status, caught.value.code) == (
        refused["event"], refused["status"], refused.get("code")
    )  # fmt: skip
    assert str(caught.value) == refused["reason"] and caught.value.what_to_do
    with pytest.raises(Refused, match="expected 128 at most"):
        trader.submit("alpha", {**LIMIT, "client_order_id": "x" * 128})
    with pytest.raises(BadTeam):
        trader.submit("../alpha", LIMIT)
    assert (0, []) == (len(server.truth().orders), log_of(data))
    assert 1 == sum(request.startswith("POST") for request in server.requests)


def test_bad_keys_are_no_refusal_of_the_order(data: Path, server: AlpacaServer) -> None:
    """Issue 4, 7: 403 is also what Alpaca says where the money does not suffice; its own code tells the two apart."""
    server.account.secret = "changed"
    with pytest.raises(BadCredentials):
        trader_of(data, server).submit("alpha", LIMIT)


def test_a_log_that_cannot_be_written_does_not_hide_the_order(
    data: Path, trader: Trader, server: AlpacaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 4, 6: the broker has said yes; whoever placed it has to know, and the reconcile takes it in."""
    real = Ledger.append

    def append(self: Ledger, events: Any, **options: Any) -> Any:
        if server.truth().orders:
            raise DiskFull(self.path, "no space left")
        return real(self, events, **options)

    monkeypatch.setattr(Ledger, "append", append)
    with pytest.raises(NotWrittenDown, match=r"the broker has order .* the log has not") as caught:
        trader.submit("alpha", LIMIT)
    assert [caught.value.order["id"]] == list(server.truth().orders)


def test_a_ledger_without_an_open_intent_says_so_from_memory(data: Path) -> None:
    """3.13: certain only right after a pass, while no other writer has appended; so no reconcile reads the log anew."""
    with Ledger(data / "team/alpha") as ledger:
        assert ledger.may_have_intents()
        ledger.append([{"event": "new", "order_id": "o-1", "ts": "2026-03-02T14:30:00Z"}])
        ledger.compact()
        assert not ledger.may_have_intents()
        writer = IntentWriter(data / "team/alpha", "alpha", "alpha:1")
        writer.announce({"symbol": "SPY"}, [], None)
        assert ledger.may_have_intents()
        ledger.compact()
        assert ledger.may_have_intents()
        writer.write([writer.miss()])
        ledger.compact()
        assert not ledger.may_have_intents()


def test_what_cannot_be_announced_is_not_asked_for(data: Path, trader: Trader, server: AlpacaServer) -> None:
    """Issue 14: the intent is durable before the request; where it cannot be, there is no request."""
    (data / "team" / "alpha" / "events.jsonl").mkdir(parents=True)
    with pytest.raises(LedgerError):
        trader.submit("alpha", LIMIT)
    assert [] == [one for one in server.requests if one.startswith("POST")]


KILLED = """
import os, signal, sys
from compactor import Ledger
from compactor.broker import submit
real, number = Ledger.append, int(sys.argv[2])
def append(*arguments, **options):
    global number
    if number == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    number -= 1
    return real(*arguments, **options)
Ledger.append = append
submit("alpha", dict(symbol="SPY", qty="2", side="buy", type="market", time_in_force="day"), data=sys.argv[1])
"""


def test_a_crash_between_the_broker_s_yes_and_our_write_is_healed(data: Path, server: AlpacaServer) -> None:
    """Issue 4, 6: a real process is killed at that point, and the next reconcile adopts the order for its team."""
    environ = {**os.environ, **server.environment}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(data), "1"], cwd=ROOT, env=environ, capture_output=True)
    assert -9 == killed.returncode, killed.stderr
    (order_id,) = server.truth().orders
    assert ["submitting"] == [one["event"] for one in events_of(data)]

    server.exchange.clock.advance(30)
    broker = open_broker(find_credentials(server.environment))
    done = Reconciler(data, [AskedAccount("default", broker)], clock=server.clock).run()
    assert [order_id] == [row["order_id"] for row in rows(data)]
    assert [("adopted", order_id)] == [(one.outcome, one.order_id) for one in done.intents]
    assert ["submitting", "submitted"] == intents_of(data)
    assert {"alpha"} == {event["team_id"] for event in events_of(data)}


def test_an_order_that_is_found_by_its_intent_after_it_was_replaced_shows_no_ghost(
    data: Path, trader: Trader, server: AlpacaServer
) -> None:
    """3.9: it shows the order that replaced it, of which the same run of the reconcile has to tell that it ended."""
    server.fail_next("POST", "crash_after_accept")
    server.fail_next("GET", "server_error", 100)
    with pytest.raises(PlacementUnknown):
        trader.submit("alpha", {**LIMIT, "type": "limit", "limit_price": "1", "time_in_force": "gtc"})
    server.calm()
    (order_id,) = server.truth().orders
    successor = server.replace(order_id, limit_price="2")
    server.cancel(successor.id)

    server.exchange.clock.advance(3 * 86_400)
    broker = open_broker(find_credentials(server.environment))
    done = Reconciler(data, [AskedAccount("default", broker)], clock=server.clock).run()
    assert [order_id] == [one.order_id for one in done.intents]
    assert [] == rows(data)


def test_a_crash_before_the_request_leaves_an_intent_that_was_never_placed(
    data: Path, server: AlpacaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 14: it is no open order, it is called never placed once its request cannot arrive any more, and it is found
    again behind a checkpoint."""
    environ = {**os.environ, **server.environment}
    code = KILLED.replace("submit(", 'from compactor.broker.placing import Trader\n'
                          "Trader._place = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\nsubmit(")  # fmt: skip
    killed = subprocess.run([sys.executable, "-c", code, str(data), "9"], cwd=ROOT, env=environ, capture_output=True)
    assert -9 == killed.returncode, killed.stderr
    with Ledger(data / "team/alpha") as ledger:
        ledger.compact(checkpoint=True)
    assert ([], []) == (rows(data), list(Ledger(data / "team/alpha").findings()))

    (entry,) = discover(data)
    (intent,) = read_open_intents(entry)
    assert ("alpha", "SPY") == (intent.team_id, intent.request["symbol"])
    broker = open_broker(find_credentials(server.environment))
    assert [] == resolve_intents([entry], [broker])
    assert [] == resolve_intents([entry], [broker], settled_seconds=0, is_complete=False)
    (resolved,) = resolve_intents([entry], [broker], settled_seconds=0)
    assert ("never_placed", intent.client_order_id) == (resolved.outcome, resolved.client_order_id)
    assert ([], ["submitting", "never_placed"]) == (read_open_intents(entry), intents_of(data))


REPLACED = """
import os, signal, sys
from compactor.broker.alpaca.adapter import AlpacaAccount
from compactor.broker.placing import Trader
from compactor.broker.adapters import find_credentials
real = AlpacaAccount.replace
def replace(self, *arguments):
    if sys.argv[3] == "after":
        real(self, *arguments)
    os.kill(os.getpid(), signal.SIGKILL)
AlpacaAccount.replace = replace
Trader(sys.argv[1], find_credentials(os.environ)).replace_order(sys.argv[2], note="why", limit_price="90")
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_between_the_intent_and_the_answer_of_a_replace_is_resolved(
    data: Path, trader: Trader, server: AlpacaServer, when: str
) -> None:
    """3.13: the order that replaces another one is an intent of its own; the next reconcile says what became of it."""
    order = trader.submit("alpha", LIMIT)
    environ = {**os.environ, **server.environment}
    arguments = [sys.executable, "-c", REPLACED, str(data), order["id"], when]
    killed = subprocess.run(arguments, cwd=ROOT, env=environ, capture_output=True)
    assert -9 == killed.returncode, killed.stderr
    (entry,) = discover(data)
    (intent,) = read_open_intents(entry)
    assert (order["id"], "90", "why") == (intent.request["replaces"], intent.request["limit_price"], intent.note)
    assert [order["id"]] == [row["order_id"] for row in rows(data)], "what is live at the broker is never missing"

    broker = open_broker(find_credentials(server.environment))
    (resolved,) = resolve_intents([entry], [broker], settled_seconds=0)
    if when == "before":
        assert ("never_placed", None) == (resolved.outcome, resolved.order_id)
        assert [order["id"]] == [row["order_id"] for row in rows(data)]
    else:
        assert ("adopted", intent.client_order_id) == (resolved.outcome, resolved.client_order_id)
        assert resolved.order_id in {row["order_id"] for row in rows(data)}
        assert {resolved.order_id} == set(server.truth().open)


def test_a_replace_is_announced_and_the_new_order_is_ours(data: Path, trader: Trader, server: AlpacaServer) -> None:
    """Who asked and why is in the log, also of what the broker refuses; an order that nobody has is no intent."""
    order = trader.submit("alpha", LIMIT)
    new = trader.replace(order["id"], tags=["x"], note="why", limit_price="90")
    assert ["submitting", "submitted"] * 2 == intents_of(data)
    assert {"alpha"} == {event["team_id"] for event in events_of(data)}
    assert [new["id"]] == [row["order_id"] for row in rows(data)]
    assert new["client_order_id"].startswith("alpha:")
    with pytest.raises(Refused):
        trader.replace(order["id"], limit_price="91")
    assert ["submitting", "refused"] == intents_of(data)[4:]
    with pytest.raises(NotFound):
        trader.replace("1dbb3aa3-a4a3-4b7d-9f08-1d2b51774b23", limit_price="91")
    assert 6 == len(intents_of(data))


def test_an_intent_of_a_program_that_runs_is_left_to_it(data: Path, server: AlpacaServer) -> None:
    """Issue 14: its request may be on its way, however long ago it was announced; one that has given up may not."""
    writer = IntentWriter(data / "team/alpha", "alpha", "alpha:1")
    writer.announce({"symbol": "SPY"}, [], None)
    (entry,) = discover(data)
    broker = open_broker(find_credentials(server.environment))
    assert [] == resolve_intents([entry], [broker], now=time.time() + 86_400)
    writer.give_up()
    assert [] == resolve_intents([entry], [broker])
    assert ["never_placed"] == [one.outcome for one in resolve_intents([entry], [broker], now=time.time() + 61)]


def test_a_cancel_is_written_down_as_a_request(
    data: Path, trader: Trader, server: AlpacaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Domain: a cancel is a request; the order stays open until the broker says that it is canceled."""
    order = trader.submit("alpha", LIMIT)
    real = server.exchange.cancel
    monkeypatch.setattr(server.exchange, "cancel", lambda order_id: real(order_id, wait=True))
    trader.cancel(order["id"])
    assert ["pending_cancel"] == [row["status"] for row in rows(data)]

    server.exchange.finish_cancel(order["id"])
    with pytest.raises(Refused):
        trader.cancel(order["id"])


def test_a_cancel_that_is_done_ends_the_order(data: Path, trader: Trader, server: AlpacaServer) -> None:
    """Issue 4, 6: how the order stands after the request is in the log, also where an answer was lost."""
    order = trader.submit("alpha", LIMIT)
    server.fill(order["id"], 1, "529.90")
    server.fail_next("DELETE", "server_error", 2)
    trader.cancel(order["id"])

    assert [] == rows(data)
    assert ["1"] == [trade["quantity"] for trade in Ledger(data / "team/alpha").rows("trades")]
    with pytest.raises(NotFound):
        trader.cancel("00000000-0000-0000-0000-000000000000")


def test_a_cancel_by_hand_goes_to_the_ledger_that_has_the_order(
    data: Path, trader: Trader, server: AlpacaServer
) -> None:
    """Issue 4, 5: the ledger that has the order open comes before what the order is called."""
    order = trader.submit("alpha", LIMIT)
    rows(data)
    from compactor.books.assign import assign

    assign(data, order["id"], "bravo")
    trader.cancel(order["id"])
    assert ([], []) == (rows(data), rows(data, "bravo"))
    assert "canceled" == log_of(data, "bravo")[-1]["order_status"]
    nobodys = server.place()
    trader.cancel(nobodys.id)
    assert {"alpha", "bravo"} == {path.name for path in (data / "team").iterdir()}


def test_submit_and_cancel_need_no_object(data: Path, server: AlpacaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 4, 6: `compactor.broker` offers both, with the keys of the environment."""
    monkeypatch.setattr(placing, "_traders", {})
    for name, value in {**server.environment, "COMPACTOR_DATA": str(data)}.items():
        monkeypatch.setenv(name, value)
    order = submit("alpha", LIMIT)
    assert [order["id"]] == [row["order_id"] for row in rows(data)]
    cancel(order["id"])
    assert [] == rows(data)


def test_a_team_is_known_before_its_first_order_is_placed(data: Path, server: AlpacaServer) -> None:
    """Issue 12, 5: an order of our own submit is its team's, also where nothing but the broker has it."""

    class Dying(Trader):
        def _write(self, *_arguments: Any) -> None:
            raise KeyboardInterrupt

    trader = Dying(data, find_credentials(server.environment), budget=Budget(100), sleep=lambda seconds: None)
    with pytest.raises(KeyboardInterrupt):
        trader.submit("delta", LIMIT)
    server.exchange.clock.advance(60)
    Reconciler(
        data, [AskedAccount("default", open_broker(find_credentials(server.environment)))], clock=server.clock
    ).run()
    assert list(server.truth().orders) == [row["order_id"] for row in rows(data, "delta")]


def test_a_directory_that_is_a_ledger_gets_no_other_team_s_name(data: Path, server: AlpacaServer) -> None:
    """1.2: its team is the one that its events name, and nothing is refused as another's."""
    (data / "events.jsonl").write_text('{"event":"new","order_id":"o-0","ts":"2026-01-05T15:00:00Z","team_id":"me"}\n')
    order = trader_of(data, server).submit("alpha", LIMIT)
    with Ledger(data) as ledger:
        ledger.compact()
        assert {"o-0", order["id"]} == {row["order_id"] for row in ledger.rows("pending_orders")}
        assert [] == list(ledger.rows("findings"))
    assert not (data / "team").exists()


def test_booleans_reach_the_broker_as_booleans(data: Path, trader: Trader, server: AlpacaServer) -> None:
    """What the broker takes for text it may refuse: `extended_hours` is true or false."""
    order = trader.submit("alpha", {**LIMIT, "extended_hours": True})
    assert order["extended_hours"] is True
    assert True is log_of(data)[0]["extended_hours"]


@pytest.mark.parametrize("other", [{"qty": "3"}, {"limit_price": "530.00"}, {"side": "sell"}, {"symbol": "QQQ"}])
def test_an_id_of_another_order_is_refused(data: Path, trader: Trader, server: AlpacaServer, other: Any) -> None:
    """Issue 16, 5: whoever asks for other terms under a used id does not get the earlier order for his own."""
    first = trader.submit("alpha", {**LIMIT, "client_order_id": "signal-7"})
    name, value = next(iter(other.items()))
    name = "quantity" if name == "qty" else name
    with pytest.raises(Refused, match=f"has order {first['id']} .* whose {name} is .*, and not {value}"):
        trader.submit("alpha", {**LIMIT, **other, "client_order_id": "signal-7"})
    assert first["id"] == trader.submit("alpha", {**LIMIT, "qty": 2.0, "client_order_id": "signal-7"})["id"]
    assert 1 == len(server.truth().orders)


def test_an_id_of_an_order_that_has_ended_is_refused(data: Path, trader: Trader, server: AlpacaServer) -> None:
    """Issue 16, 5: nothing is open under it, and the caller has to know; what became of the order is in the log."""
    first = trader.submit("alpha", {**LIMIT, "client_order_id": "signal-7"})
    server.fill(first["id"], 2, "529.90")
    with pytest.raises(Refused, match="has ended as filled; place a new one under another id"):
        trader.submit("alpha", {**LIMIT, "client_order_id": "signal-7"})
    assert [] == rows(data)
    assert ["2"] == [trade["quantity"] for trade in Ledger(data / "team/alpha").rows("trades")]


def test_an_order_that_was_filled_before_its_lost_answer_is_returned(
    data: Path, trader: Trader, server: AlpacaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 4, 6: the earlier try of the same call is what was asked for, however it stands by now."""
    server.fail_next("POST", "crash_after_accept")
    real = AlpacaRest.order_by_client_id

    def find(self: AlpacaRest, client_order_id: str) -> Any:
        if server.truth().orders and not server.truth().fills:
            server.fill(next(iter(server.truth().orders)), 2, "529.90")
        return real(self, client_order_id)

    monkeypatch.setattr(AlpacaRest, "order_by_client_id", find)
    assert "filled" == trader.submit("alpha", LIMIT)["status"]


def test_a_cancel_of_an_order_that_has_ended_says_how(data: Path, trader: Trader, server: AlpacaServer) -> None:
    """Issue 16, 5: and its row is up to date at once."""
    order = trader.submit("alpha", LIMIT)
    server.fill(order["id"], 2, "529.90")
    assert [order["id"]] == [row["order_id"] for row in rows(data)]
    with pytest.raises(Refused, match="has ended as filled, 2 of 2 filled; there is nothing to cancel"):
        trader.cancel(order["id"])
    assert [] == rows(data)
    assert ["2"] == [trade["quantity"] for trade in Ledger(data / "team/alpha").rows("trades")]


def count_open(name: str) -> int:
    """How many descriptors of files with this name this process has open."""
    paths = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            paths.append(os.readlink(f"/proc/self/fd/{number}"))
    return sum(name in path for path in paths)


def test_an_answer_that_tells_of_no_order_is_written_nowhere(data: Path, trader: Trader) -> None:
    """What the broker said after a cancel may be nothing that anybody can read."""
    trader.submit("alpha", LIMIT)
    before = events_of(data)
    trader._write_state(Translation([], []))
    trader._write_state(None)
    assert before == events_of(data)


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are listed by /proc")
def test_a_server_that_cancels_again_and_again_holds_no_more_descriptors(
    data: Path, trader: Trader, server: AlpacaServer
) -> None:
    """One that lives long must not run out of them; nor must a program that makes a trader for each order."""
    account = Account("default", find_credentials(server.environment))
    order = trader.submit("alpha", LIMIT)
    server.fill(order["id"], 2, "529.90")
    with Ledger(data / "team/alpha") as ledger:
        ledger.compact(checkpoint=True)
    for _ in range(3):
        with pytest.raises(CannotCancel, match="has ended as filled"):
            asyncio.run(Canceler(data, [account]).cancel(order["id"]))
    assert 0 == count_open("checkpoint")
    with trader, pytest.raises(Refused):
        trader.cancel(order["id"])
    assert 0 == count_open("checkpoint")
    with suppress(Refused):
        trader_of(data, server).cancel(order["id"])
    gc.collect()
    assert 0 == count_open("checkpoint"), "of one that nobody closed"
