"""A request under a `client_order_id` that is used already, and cancels that come too late, at a broker that is hostile
in Alpaca's words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from compactor import Ledger
from compactor.broker import placing
from compactor.broker.adapters import find_credentials
from compactor.broker.budget import Budget
from compactor.broker.earlier_order import COMPARED, find_objection
from compactor.broker.placing import NotFound, PlacementUnknown, Refused, Trader
from compactor.broker.port import BrokerError
from compactor.core.events import Event
from tests.scripted_alpaca import ScriptedAlpaca, error, make_order, page

LIMIT = {
    "symbol": "AAPL", "qty": "10", "side": "buy", "type": "limit", "limit_price": "100", "time_in_force": "gtc",
    "client_order_id": "alpha:k1",
}  # fmt: skip
BRACKET = {
    **LIMIT, "order_class": "bracket", "take_profit": {"limit_price": "110"},
    "stop_loss": {"stop_price": "90", "limit_price": "89"},
}  # fmt: skip
SPREAD = [{"symbol": "A", "side": "buy", "ratio_qty": "1"}, {"symbol": "B", "side": "sell", "ratio_qty": "1"}]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedAlpaca]:
    monkeypatch.setattr(placing, "PAUSE_SECONDS", 0.0)
    with ScriptedAlpaca() as one:
        one.answers["POST", "/v2/orders"] = lambda request: accept(one, one.bodies[-1])
        yield one


@pytest.fixture
def trader(server: ScriptedAlpaca, data: Path) -> Trader:
    return Trader(data, find_credentials(server.environment), budget=Budget(10_000), sleep=lambda seconds: None)


def accept(server: ScriptedAlpaca, asked: dict[str, Any]) -> Any:
    """Take an order whose id is new; the exits become legs."""
    if any(one["client_order_id"] == asked["client_order_id"] for one in server.orders.values()):
        return error(422, 40010001, "client_order_id must be unique")(None)  # type: ignore[arg-type]
    order = make_order("n1", name=asked["client_order_id"], seconds_ago=0)
    order |= {name: value for name, value in asked.items() if name in order}
    exits: dict[str, dict[str, Any]] = {
        "take_profit": {"type": "limit", "stop_price": None, "status": "new"},
        "stop_loss": {"type": "stop_limit", "status": "held"},
    }
    order["legs"] = [
        {**make_order(f"n1-{name}", name=f"random-{name}"), "side": "sell", **terms, **asked[name]}
        for name, terms in exits.items()
        if name in asked
    ] or None
    server.orders[order["id"]] = order
    return order


def intents(data: Path) -> list[str]:
    """What became of each intent of the team, in the order of the log."""
    with Ledger(data / "team/alpha") as ledger:
        ledger.compact()
    lines = (data / "team/alpha/events.jsonl").read_text().splitlines()
    found = [line.split('"event":"')[1].split('"')[0] for line in lines]
    return [name for name in found if name in ("submitting", "submitted", "refused", "never_placed")]


@pytest.mark.parametrize(
    ("first", "again", "said"),
    [
        (LIMIT, LIMIT, None),
        (LIMIT, {**LIMIT, "qty": "10.0", "order_class": "simple"}, None),
        (LIMIT, {**LIMIT, "qty": "11"}, "whose quantity is 10, and not 11"),
        (LIMIT, {**LIMIT, "symbol": "MSFT"}, "whose symbol is AAPL, and not MSFT"),
        (LIMIT, {**LIMIT, "extended_hours": True}, "whose extended_hours is False, and not True"),
        (LIMIT, {**LIMIT, "stop_price": "90"}, "whose stop_price is None, and not 90"),
        (LIMIT, BRACKET, "whose order_class is None, and not bracket"),
        (BRACKET, BRACKET, None),
        (BRACKET, {**BRACKET, "take_profit": {"limit_price": "111"}}, "no exit with the take_profit of now (limit_p"),
        (BRACKET, {**BRACKET, "stop_loss": {"stop_price": "90"}}, "no exit with the stop_loss of now (stop_price 90)"),
    ],
)
def test_a_used_id_gives_the_earlier_order_only_for_the_same_terms(
    trader: Trader, server: ScriptedAlpaca, first: Any, again: Any, said: str | None
) -> None:
    """Issue 16, 5: all that is asked for counts, the prices of the exits too."""
    placed = trader.submit("alpha", first)
    if said is None:
        assert placed["id"] == trader.submit("alpha", again)["id"]
    else:
        with pytest.raises(Refused) as caught:
            trader.submit("alpha", again)
        assert said in str(caught.value)


def test_booleans_and_numbers_reach_the_broker_as_what_they_are(trader: Trader, server: ScriptedAlpaca) -> None:
    """In the very body of the request: true is no text and no number, and a price has the digits that were given."""
    trader.submit("alpha", {**LIMIT, "extended_hours": False, "limit_price": 100.1, "qty": 3})
    asked = server.bodies[-1]
    assert (False, "100.1", "3") == (asked["extended_hours"], asked["limit_price"], asked["qty"])
    assert asked["extended_hours"] is False


@pytest.mark.parametrize("status", ["filled", "canceled", "expired", "rejected", "replaced"])
def test_a_used_id_of_an_order_that_has_ended_is_refused(trader: Trader, server: ScriptedAlpaca, status: str) -> None:
    """Issue 16, 5: it is no new order, and the earlier one is not alive."""
    trader.submit("alpha", LIMIT)
    server.orders["n1"]["status"] = status
    with pytest.raises(Refused, match=f"which has ended as {status}"):
        trader.submit("alpha", LIMIT)


@pytest.mark.parametrize("wanted", [COMPARED])
def test_every_term_of_a_request_is_compared(wanted: tuple[str, ...]) -> None:
    """The list is written out here: a term that nobody compares would make another order of it."""
    names = (
        "symbol side quantity notional order_type time_in_force limit_price stop_price trail_price trail_percent "
        "order_class extended_hours position_intent"
    )
    assert set(names.split()) == set(wanted)
    assert set(names.split()) <= set(Event.__struct_fields__)
    for name in wanted:
        order = {"order_id": "o", "order_status": "new", name: "1"}
        assert find_objection({"client_order_id": "a", name: "1"}, order) is None
        found = find_objection({"client_order_id": "a", name: "2"}, order)
        assert found is not None
        assert f"whose {name} is 1, and not 2" in found


def test_a_symbol_that_the_broker_does_not_tell_differs() -> None:
    """Issue 16, 5: an order of several legs has none."""
    found = find_objection({"client_order_id": "a", "symbol": "SPY"}, {"order_id": "o", "order_status": "new"})
    assert found is not None
    assert "whose symbol is None, and not SPY" in found


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"symbol": "BTCUSD"}, {"symbol": "BTC/USD"}),
        ({"order_class": "simple"}, {}),
        ({"quantity": "2"}, {"quantity": "2.00"}),
        ({}, {"limit_price": "5"}),
    ],
)
def test_the_same_terms_in_other_words_are_the_same(asked: dict[str, Any], told: dict[str, Any]) -> None:
    """Issue 16, 5: the broker writes symbols, classes and numbers in its own way, and adds its own terms."""
    terms, order = {"client_order_id": "alpha:1", **asked}, {"order_id": "o-1", "order_status": "new", **told}
    assert find_objection(terms, order) is None


@pytest.mark.parametrize(("symbol", "same"), [("B", True), ("C", False)])
def test_the_legs_of_a_spread_are_compared(symbol: str, same: bool) -> None:
    terms = {"client_order_id": "a", "legs": SPREAD}
    order = {"order_id": "o", "order_status": "new"}
    legs = [{"symbol": symbol, "side": "sell"}, {"symbol": "A", "side": "buy"}]
    assert same == (find_objection(terms, order, legs) is None)
    assert find_objection(terms, order) is None, "a broker that tells no legs says nothing against them"


@pytest.mark.parametrize(
    "answer",
    [
        error(400, 40010000, "qty must be integer"),
        page(400, "<html>bad request</html>"),
        error(403, 40310000, "insufficient buying power"),
        error(404, 40410000, "asset not found"),
        error(409, 40910000, "conflict"),
        error(422, 42210000, "invalid"),
    ],
)
def test_a_no_is_refused_and_closes_the_intent(trader: Trader, server: ScriptedAlpaca, data: Path, answer: Any) -> None:
    """Issue 16, 5: HTTP 400 is `Refused`, and so is every other no of the broker to an order."""
    server.answers["POST", "/v2/orders"] = answer
    with pytest.raises(Refused, match=r"^order alpha:k1: the broker answered HTTP 4"):
        trader.submit("alpha", LIMIT)
    assert ["submitting", "refused"] == intents(data)


def test_an_answer_that_is_neither_yes_nor_no_is_given_up(trader: Trader, server: ScriptedAlpaca, data: Path) -> None:
    """The next reconcile asks what became of it; it does not wait for a program that asks no more."""
    server.answers["POST", "/v2/orders"] = lambda request: web.Response(status=307, headers={"Location": "/other"})
    with pytest.raises(BrokerError, match="HTTP 307"):
        trader.submit("alpha", LIMIT)
    assert '"writer":"over"' in (data / "team/alpha/events.jsonl").read_text()
    server.answers["POST", "/v2/orders"] = page(403)
    with pytest.raises(PlacementUnknown, match="nobody knows whether the broker has the order alpha:k1"):
        trader.submit("alpha", LIMIT)


@pytest.mark.parametrize(
    ("status", "more", "said"),
    [
        ("filled", {"filled_qty": "10"}, "order n1 has ended as filled, 10 of 10 filled"),
        ("canceled", {}, "order n1 has ended as canceled, 0 of 10 filled"),
        ("replaced", {"replaced_by": "n2"}, "order n1 has ended as replaced by n2, 0 of 10 filled"),
    ],
)
@pytest.mark.parametrize("refusal", [error(422, 42210000, "not cancelable"), error(404, 40410000, "order not found")])
def test_a_cancel_that_is_too_late_says_how_it_ended(
    trader: Trader, server: ScriptedAlpaca, data: Path, status: str, more: dict[str, Any], said: str, refusal: Any
) -> None:
    """Issue 16, 5: whichever no the broker has for it; and the row is gone at once."""
    trader.submit("alpha", LIMIT)
    server.orders["n1"].update(status=status, **more)
    server.answers["DELETE", "/v2/orders/*"] = refusal
    with pytest.raises(Refused) as caught:
        trader.cancel("n1")
    assert str(caught.value).startswith(said)
    with Ledger(data / "team/alpha") as ledger:
        ledger.compact()
        assert "n1" not in [row["order_id"] for row in ledger.rows("pending_orders")]


def test_a_cancel_of_an_order_that_nobody_has_is_said(trader: Trader, server: ScriptedAlpaca) -> None:
    server.answers["DELETE", "/v2/orders/*"] = error(404, 40410000, "order not found")
    with pytest.raises(NotFound, match="order o-9: the broker answered HTTP 404, code 40410000: order not found"):
        trader.cancel("o-9")
    server.answers["DELETE", "/v2/orders/*"] = error(422, 42210000, "not cancelable")
    trader.submit("alpha", LIMIT)
    with pytest.raises(Refused, match="order n1: the broker answered HTTP 422, code 42210000: not cancelable"):
        trader.cancel("n1")


def test_the_exits_of_an_earlier_order_are_asked_for_by_its_id(trader: Trader, server: ScriptedAlpaca) -> None:
    """The question for its name tells no legs; without exits, or of an order that has ended, nobody asks on."""
    server.answers["GET", "/v2/orders:by_client_order_id"] = lambda request: {**server.orders["n1"], "legs": None}
    trader.submit("alpha", BRACKET)
    assert "n1" == trader.submit("alpha", BRACKET)["id"]
    assert 1 == server.count("GET /v2/orders/n1")
    with pytest.raises(Refused, match="no exit with the take_profit of now"):
        trader.submit("alpha", {**BRACKET, "take_profit": {"limit_price": "111"}})
    assert 2 == server.count("GET /v2/orders/n1")
    server.answers["GET", "/v2/orders/*"] = error(404, 40410000, "order not found")
    assert "n1" == trader.submit("alpha", BRACKET)["id"], "what the question for its name told counts"
    server.answers.pop(("GET", "/v2/orders/*"))
    server.orders["n1"]["status"] = "canceled"
    with pytest.raises(Refused, match="has ended as canceled"):
        trader.submit("alpha", BRACKET)
    server.orders.clear()
    trader.submit("alpha", LIMIT)
    trader.submit("alpha", LIMIT)
    assert 3 == server.count("GET /v2/orders/n1")
