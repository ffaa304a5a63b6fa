"""Ids, tries and pauses of placing and canceling, and what is written of an order that is over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from compactor import Ledger
from compactor.broker.adapters import find_credentials
from compactor.broker.alpaca.translate import translate
from compactor.broker.budget import Budget
from compactor.broker.placing import PlacementUnknown, Trader
from compactor.broker.port import BrokerUnavailable, Refused
from tests.scripted_alpaca import ScriptedAlpaca, make_order, page


@pytest.fixture
def server() -> Iterator[ScriptedAlpaca]:
    with ScriptedAlpaca() as one:
        yield one


def make_trader(server: ScriptedAlpaca, data: Path) -> Trader:
    return Trader(data, find_credentials(server.environment), budget=Budget(1000), sleep=lambda seconds: None)


def accept(server: ScriptedAlpaca) -> None:
    server.answers["POST", "/v2/orders"] = lambda request: server.orders.setdefault(
        "n", make_order("n", name=server.bodies[-1]["client_order_id"], seconds_ago=0)
    )


def test_an_id_may_be_as_long_as_the_broker_allows(server: ScriptedAlpaca, data: Path) -> None:
    """The team's name is a part of it, once; a longer one is refused before anybody is asked."""
    accept(server)
    trader = make_trader(server, data)
    for own in ("x" * 122, "alpha:" + "y" * 122):
        server.orders.clear()
        assert 128 == len(trader.submit("alpha", {"symbol": "A", "client_order_id": own})["client_order_id"])
    server.seen.clear()
    with pytest.raises(Refused, match=f"'alpha:{'x' * 54}'… has 129 characters, expected 128 at most"):
        trader.submit("alpha", {"symbol": "A", "client_order_id": "x" * 123})
    assert [] == server.seen
    server.orders.clear()
    assert "alpha:beta:1" == trader.submit("alpha", {"symbol": "A", "client_order_id": "beta:1"})["client_order_id"]


def test_an_id_that_nobody_gave_is_a_new_one(server: ScriptedAlpaca, data: Path) -> None:
    accept(server)
    trader = make_trader(server, data)
    for wanted in ({}, {"client_order_id": ""}, {"client_order_id": None}):
        server.orders.clear()
        trader.submit("alpha", {"symbol": "A", **wanted})
    names = [body["client_order_id"] for body in server.bodies]
    assert 3 == len(set(names))
    assert {42} == set(map(len, names)), "alpha: and a UUID"


def test_a_lost_answer_is_asked_for_four_times_with_growing_pauses(server: ScriptedAlpaca, data: Path) -> None:
    """1, 2, 4 and 8 seconds; whoever gives up says under which id it may be there."""
    slept: list[float] = []
    server.answers["POST", "/v2/orders"] = page(502)
    trader = Trader(data, find_credentials(server.environment), budget=Budget(1000), sleep=slept.append)
    with pytest.raises(PlacementUnknown, match="which cannot place it twice") as caught:
        trader.submit("alpha", {"symbol": "A", "client_order_id": "k"})
    assert ("alpha:k", 502) == (caught.value.client_order_id, caught.value.status)
    assert [1, 2, 4, 8] == slept
    assert (4, 4) == (server.count("POST"), server.count("by_client_order_id"))


def test_a_cancel_is_tried_four_times(server: ScriptedAlpaca, data: Path) -> None:
    """To ask twice does no harm; the last failure is told."""
    slept: list[float] = []
    server.answers["DELETE", "/v2/orders/*"] = page(502)
    trader = Trader(data, find_credentials(server.environment), budget=Budget(1000), sleep=slept.append)
    with pytest.raises(BrokerUnavailable):
        trader.cancel("a")
    assert ([1, 2, 4], 4) == (slept, server.count("DELETE"))


def test_of_an_order_that_is_over_the_sums_are_written_unless_they_may_be_another_s(
    server: ScriptedAlpaca, data: Path
) -> None:
    """Executions tell what is filled better; a replacement's sums may be those of both."""
    trader = make_trader(server, data)
    with Ledger(data / "team/alpha", team_id="alpha") as ledger:
        ledger.append(translate(make_order("a")).events)
    told: list[dict[str, Any]] = [{"status": "partially_filled"}, {"status": "filled"}]
    for more in (*told, {"status": "filled", "replaces": "z"}):
        server.orders["a"] = make_order("a", filled_qty="3", filled_avg_price="10", **more)
        server.answers["DELETE", "/v2/orders/*"] = lambda request: web.Response(status=204)
        trader.cancel("a")
    lines = [json.loads(line) for line in (data / "team/alpha/events.jsonl").read_text().splitlines()][1:]
    assert [None, "3", None] == [line.get("filled_qty") for line in lines]
    assert [None, "10", None] == [line.get("filled_avg_price") for line in lines]
    assert {("app", "alpha")} == {(line["source"], line["team_id"]) for line in lines}


def test_every_line_about_a_request_names_its_team(server: ScriptedAlpaca, data: Path) -> None:
    """What is asked, what came of it, and the order; in a directory that is itself a ledger none does (rule 1.2)."""
    accept(server)
    make_trader(server, data).submit("alpha", {"symbol": "A"})
    lines = [json.loads(line) for line in (data / "team/alpha/events.jsonl").read_text().splitlines()]
    assert ["submitting", "snapshot", "submitted"] == [line["event"] for line in lines]
    assert ["alpha"] * 3 == [line["team_id"] for line in lines]
    own = data / "own"
    own.mkdir()
    (own / "events.jsonl").touch()
    server.orders.clear()
    make_trader(server, own).submit("alpha", {"symbol": "A"})
    assert not any("team_id" in json.loads(line) for line in (own / "events.jsonl").read_text().splitlines())
