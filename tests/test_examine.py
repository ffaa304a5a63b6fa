"""`compactor doctor --broker`: how an account behaves where that is not documented, against several behaviours."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiohttp import web
from click.testing import CliRunner

from compactor.broker.adapters import find_credentials, open_broker
from compactor.broker.alpaca.redact import redact
from compactor.broker.budget import Budget
from compactor.broker.credentials import BadCredentials
from compactor.broker.port import BrokerCheck
from compactor.core.instants import nanos
from compactor.ui.cli import app
from tests.alpaca_server import AlpacaServer
from tests.scripted_alpaca import ScriptedAlpaca, ago, error, make_fill, make_order, page
from tests.test_answers import BRACKET
from tests.test_gaps import place_spread


@pytest.fixture
def server() -> Iterator[AlpacaServer]:
    with AlpacaServer(3, resend=True, plain=True) as one:
        yield one


def examine(server: AlpacaServer, per_minute: int = 150) -> dict[str, BrokerCheck]:
    keys = find_credentials(server.environment)
    account = open_broker(keys, budget=Budget(100_000), tries=1, sleep=lambda seconds: None)
    return {one.check: one for one in account.examine(per_minute)}


def verdicts(server: AlpacaServer, **more: Any) -> dict[str, str]:
    return {name: one.verdict for name, one in examine(server, **more).items()}


def fill_all(server: AlpacaServer) -> None:
    """An account in which everything has happened that a check looks for."""
    bracket = server.place("AAPL", "buy", 10, team="alpha", **BRACKET)
    server.fill(bracket.id, None, "100")
    server.fill(place_spread(server).id)


def test_an_account_in_which_nothing_has_happened(server: AlpacaServer) -> None:
    """What there is no order for cannot be told, and nothing is guessed."""
    found = verdicts(server)
    assert {"held legs", "groups", "activity id", "multi-leg fills"} == {
        name for name, verdict in found.items() if verdict == "could not tell"
    }
    assert {"as expected", "could not tell"} == set(found.values())


def test_an_account_that_is_as_the_adapter_expects(server: AlpacaServer) -> None:
    """Held legs are in no list, and each check says what it has seen."""
    server.account.lists_held = False
    fill_all(server)
    found = examine(server)
    assert "as expected" == found["held legs"].verdict
    assert "0 of 1 held legs are in the list of open orders" == found["held legs"].found
    assert "as expected" == found["multi-leg fills"].verdict
    assert all(not one.startswith(("POST", "DELETE", "PATCH")) for one in server.requests), "it is read-only"


def test_each_difference_says_what_follows(server: AlpacaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another behaviour is named, with what follows from it."""
    fill_all(server)
    server.resend.available = frozenset({"trades"})
    server.gate.rate_limit = 100
    found = examine(server)
    different = {name for name, one in found.items() if one.verdict == "different"}
    assert {"held legs", "activity id", "resend of activities", "rate limit"} <= different
    assert "Set requests_per_minute below 100." == found["rate limit"].follows
    assert all(found[name].follows for name in different)


@pytest.mark.parametrize(("skew", "said"), [(-120.0, "ahead"), (120.0, "behind")])
def test_a_clock_that_is_wrong_is_named(server: AlpacaServer, skew: float, said: str) -> None:
    """Issue 16, 9: clock skew, by the Date of an answer, which has whole seconds."""
    server.gate.skew_seconds = skew
    found = examine(server)["clock"]
    assert "different" == found.verdict
    assert re.fullmatch(rf"this machine is 1(19|2\d)\.\d s {said}", found.found)


def test_a_check_that_fails_stops_no_other(server: AlpacaServer) -> None:
    """What could not be asked could not be told."""
    server.fail_next("/v2/positions", "server_error", 1)
    found = examine(server)
    assert "could not tell" == found["positions"].verdict
    assert "HTTP 5" in found["positions"].found
    assert 11 == len(found)


def test_keys_that_are_refused_end_it(server: AlpacaServer) -> None:
    server.refuse()
    with pytest.raises(BadCredentials):
        examine(server)


def test_what_is_recorded_has_no_id_amount_or_key(server: AlpacaServer, data: Path, tmp_path: Path) -> None:
    """Issue 16, 9: `--record` writes a file that a user can send."""
    fill_all(server)
    path = tmp_path / "answers.json"
    arguments = ["doctor", str(data), "--broker", "--record", str(path), "--json"]
    done = CliRunner().invoke(app, arguments, env=server.environment)
    assert 0 == done.exit_code, done.output
    rows = [json.loads(line) for line in done.output.splitlines()]
    assert {"account", "check", "verdict", "found", "follows"} == set(rows[0])
    text = path.read_text()
    secrets = [server.key, server.secret, server.exchange.account_id, "100000", "AAPL"]
    secrets += [one for order in server.exchange.orders.values() for one in (order.id, order.client_order_id)]
    secrets += [one.activity_id for one in server.exchange.executions.values()]
    assert [] == [secret for secret in secrets if secret in text]
    assert '"status": "held"' in text, "but what a leg was is still to be seen"
    assert "xxxx" in text or "9999" in text


def test_redacting_keeps_the_shape() -> None:
    """The form of an id can still be seen, of which the checks are about."""
    assert {"id": "99999999999999999::99xx9-9", "status": "new", "qty": "9.9", "legs": None} == redact(
        {"id": "20260302143000123::61ea9-8", "status": "new", "qty": "1.5", "legs": None}
    )
    assert {"xxx9": [True, "9"]} == redact({"abc7": [True, 4]})


@pytest.fixture
def scripted() -> Iterator[ScriptedAlpaca]:
    with ScriptedAlpaca() as one:
        yield one


def examine_scripted(server: ScriptedAlpaca, per_minute: int = 150) -> dict[str, BrokerCheck]:
    account = open_broker(find_credentials(server.environment), budget=Budget(100_000), tries=1)
    return {one.check: one for one in account.examine(per_minute)}


@pytest.mark.parametrize(
    ("account", "verdict", "found"),
    [
        ({"status": "ACTIVE", "trading_blocked": False}, "as expected", "paper, status ACTIVE"),
        ({"status": "ACTIVE", "trading_blocked": True}, "different", "paper, status ACTIVE, trading_blocked"),
        ({"status": "ACTIVE", "account_blocked": True}, "different", "paper, status ACTIVE, account_blocked"),
        ({"status": "SUBMITTED"}, "different", "paper, status SUBMITTED"),
    ],
)
def test_what_an_account_may_do(scripted: ScriptedAlpaca, account: Any, verdict: str, found: str) -> None:
    scripted.answers["GET", "/v2/account"] = lambda request: {"id": "a", **account}
    one = examine_scripted(scripted)["permissions"]
    assert (verdict, found) == (one.verdict, one.found)
    assert ("Orders will be refused; reading works." if verdict == "different" else "") == one.follows


def test_an_account_for_real_money_says_so(scripted: ScriptedAlpaca, data: Path) -> None:
    """What is asked is the same; that it is no paper account is said first."""
    environ = {**scripted.environment, "COMPACTOR_LIVE": "yes-real-money"}
    found = {one.check: one for one in open_broker(find_credentials(environ), tries=1).examine(150)}
    assert "real money, status ACTIVE" == found["permissions"].found


@pytest.mark.parametrize(
    ("headers", "verdict"),
    [
        ({}, "could not tell"),
        ({"X-Ratelimit-Limit": "many"}, "could not tell"),
        ({"X-Ratelimit-Limit": "150"}, "as expected"),
        ({"X-Ratelimit-Burst": "9", "X-Ratelimit-Limit": "150"}, "as expected"),
        ({"X-RateLimit-Limit": "149", "X-Ratelimit-Remaining": "3"}, "different"),
    ],
)
def test_what_the_rate_limit_says(scripted: ScriptedAlpaca, headers: dict[str, str], verdict: str) -> None:
    scripted.answers["GET", "/v2/account"] = lambda request: web.json_response({"id": "a"}, headers=headers)
    one = examine_scripted(scripted)["rate limit"]
    assert verdict == one.verdict
    assert set(headers) == set(one.evidence or {}), "its headers are the evidence"
    assert ("Set requests_per_minute below 149." if verdict == "different" else "") == one.follows


def test_an_answer_without_a_date_tells_no_clock(scripted: ScriptedAlpaca) -> None:
    scripted.answers["GET", "/v2/account"] = lambda request: web.json_response({"id": "a"}, headers={"Date": "soon"})
    assert ("could not tell", "the answer has no Date") == tell(examine_scripted(scripted)["clock"])


@pytest.mark.parametrize(
    ("now", "verdict", "found"),
    [
        (1005.5, "different", "this machine is 4.5 s ahead"),
        (1003.0, "as expected", "this machine is 2.0 s ahead"),
        (1000.5, "as expected", "this machine is 0.0 s behind"),
        (998.0, "as expected", "this machine is 2.0 s behind"),
        (995.0, "different", "this machine is 5.0 s behind"),
    ],
)
def test_a_date_has_whole_seconds(
    scripted: ScriptedAlpaca, monkeypatch: pytest.MonkeyPatch, now: float, verdict: str, found: str
) -> None:
    """Issue 16, 9: of a second that has begun nobody knows how much has passed, so that much is no skew."""
    scripted.answers["GET", "/v2/account"] = lambda request: web.json_response(
        {"id": "a"}, headers={"Date": "Thu, 01 Jan 1970 00:16:40 GMT"}
    )
    clock = SimpleNamespace(time=lambda: now, time_ns=time.time_ns)
    monkeypatch.setattr("compactor.broker.alpaca.examine.time", clock)
    assert (verdict, found) == tell(examine_scripted(scripted)["clock"])


def tell(one: BrokerCheck) -> tuple[str, str]:
    return one.verdict, one.found


def spread(order_id: str) -> dict[str, Any]:
    legs = [make_order(f"{order_id}-{side}", side=side, order_class="mleg", symbol=side.upper()) for side in SIDES]
    return make_order(order_id, symbol="", side="", type="limit", legs=legs)


SIDES = ("buy", "sell")


def test_fills_of_a_spread_may_name_either(scripted: ScriptedAlpaca) -> None:
    """Parent or leg: both are read, and it is counted which; other orders' fills are none of them."""
    scripted.orders["s"] = spread("s")
    scripted.orders["o"] = make_order("o")
    scripted.orders["b"] = make_order("b", order_class="bracket", legs=[make_order("b-stop")])
    scripted.fills = [
        make_fill("s", "e1", "1", "1", "1", 60), make_fill("s-buy", "e2", "1", "1", "1", 50),
        make_fill("s-sell", "e3", "1", "1", "1", 40), make_fill("o", "e4", "1", "1", "1", 30),
        make_fill("b", "e5", "1", "1", "1", 20), make_fill("b-stop", "e6", "1", "1", "1", 10),
    ]  # fmt: skip
    one = examine_scripted(scripted)["multi-leg fills"]
    assert ("as expected", "1 of 3 activities name the parent, the others a leg") == (one.verdict, one.found)
    assert 2 == len(one.evidence)


def test_an_activity_id_beside_the_execution_ids_of_a_resend(scripted: ScriptedAlpaca) -> None:
    """The part behind `::` is the execution's id, or it is not; what was not sent again says nothing."""
    scripted.fills = [make_fill("o", f"e{number}", "1", f"{number}", "1", 60 - number) for number in (1, 2, 3)]
    assert "no fill of the last hour was sent again" == examine_scripted(scripted)["activity id"].found
    order = {"id": "o", "client_order_id": "c", "status": "new"}
    scripted.resent["/v2/events/trades"] = [
        {"event": "fill", "execution_id": "e1", "price": "1", "qty": "1", "at": ago(60), "order": order},
        {"event": "new", "execution_id": "none", "qty": "1", "at": ago(60), "order": order},
    ]
    scripted.resent["/v2beta1/events/activities"] = [
        {
            "activity_type": "TRD", "ref_id": "another", "price": "2", "qty": "1", "at": ago(58),
            "details": {"order_id": "o"},
        }
    ]  # fmt: skip
    one = examine_scripted(scripted)["activity id"]
    assert ("different", "in 1 of 2 the part behind '::' is the execution id of the stream") == (one.verdict, one.found)
    assert "Fills are matched by their numbers." == one.follows
    scripted.resent["/v2beta1/events/activities"][0]["ref_id"] = "e2"
    one = examine_scripted(scripted)["activity id"]
    assert ("as expected", "in 2 of 2 the part behind '::' is the execution id of the stream") == (
        one.verdict,
        one.found,
    )
    scripted.fills = [{**scripted.fills[0], "id": "no-parts"}]
    one = examine_scripted(scripted)["activity id"]
    assert ("different", "the id of an activity has 1 parts around '::', expected 2") == (one.verdict, one.found)


def test_a_resend_with_entries_of_unknown_kinds_is_different(scripted: ScriptedAlpaca) -> None:
    entries: list[dict[str, Any]] = [
        {"activity_type": kind, "at": ago(60), "details": {}} for kind in ("NEWS", "MOON", "DIV")
    ]
    scripted.resent["/v2beta1/events/activities"] = entries
    one = examine_scripted(scripted)["resend of activities"]
    assert ("different", "entries of unknown kinds: MOON, NEWS") == (one.verdict, one.found)
    assert "Such a resend never counts as complete." == one.follows
    scripted.resent["/v2beta1/events/activities"] = [entries[2]] * 5
    one = examine_scripted(scripted)["resend of activities"]
    assert ("as expected", "5 entries of the last hour", 3) == (one.verdict, one.found, len(one.evidence))


def test_groups_and_held_legs_of_the_last_week(scripted: ScriptedAlpaca) -> None:
    legs = [make_order("b-tp", side="sell"), make_order("b-sl", side="sell", status="held")]
    scripted.orders["b"] = make_order("b", order_class="bracket", status="filled", legs=legs)
    scripted.orders["c"] = make_order("c", order_class="oto", status="filled", legs=[make_order("c-sl", status="held")])
    found = examine_scripted(scripted)
    assert ("different", "0 of 2 orders with exits have a group_id") == tell(found["groups"])
    assert ("as expected", "0 of 2 held legs are in the list of open orders") == tell(found["held legs"])
    scripted.orders["b"]["group_id"] = "g"
    assert ("as expected", "1 of 2 orders with exits have a group_id") == tell(examine_scripted(scripted)["groups"])
    listed = [make_order("b-sl", status="held"), make_order("c-sl", status="held")]
    scripted.answers["GET", "/v2/orders"] = lambda request: listed if request.query["status"] == "open" else None
    one = examine_scripted(scripted)["held legs"]
    assert ("different", "2 of 2 held legs are in the list of open orders") == (one.verdict, one.found)
    assert "Nothing is missing; a few requests could be saved." == one.follows


@pytest.mark.parametrize("odd", [{"symbol": "A"}, {"qty": "1"}, {"symbol": "", "qty": "1"}])
def test_positions_that_cannot_be_compared(scripted: ScriptedAlpaca, odd: dict[str, str]) -> None:
    scripted.positions = [{"symbol": "B", "qty": "1"}, odd, odd]
    one = examine_scripted(scripted)["positions"]
    assert ("different", "2 of 3 positions have no symbol or qty", 1) == (one.verdict, one.found, len(one.evidence))
    assert "Positions are not compared with the trades." == one.follows


def test_only_the_last_week_is_looked_at(scripted: ScriptedAlpaca) -> None:
    """Orders and fills of a week, a resend of an hour; nothing is asked that is dear."""
    scripted.orders["old"] = make_order("old", order_class="bracket", seconds_ago=7 * 86_400 + 60)
    scripted.fills = [make_fill("old", "e1", "1", "1", "1", 7 * 86_400 + 60)]
    found = examine_scripted(scripted)
    assert "no bracket, OCO or OTO order in the last week" == found["groups"].found
    assert "no fill in the last week" == found["activity id"].found
    scripted.orders["new"] = make_order("new", order_class="bracket", seconds_ago=7 * 86_400 - 60)
    assert "different" == examine_scripted(scripted)["groups"].verdict
    query = parse_qs(next(one for one in scripted.seen if "/events/trades" in one).partition("?")[2])
    assert 3600 * 10**9 == nanos(query["until"][0]) - nanos(query["since"][0])


def test_the_evidence_is_a_few_answers(scripted: ScriptedAlpaca) -> None:
    """One of each is enough to see its form, and what is recorded is to be read by somebody."""
    for name in ("b", "c"):
        legs = [make_order(f"{name}-sl", side="sell", status="held")]
        scripted.orders[name] = make_order(name, order_class="bracket", legs=legs)
    scripted.positions = [{"symbol": "A", "qty": "1"}, {"symbol": "BB", "qty": "1"}]
    scripted.fills = [make_fill(name, "e", "1", "1", "1", at) for name, at in (("b", 60), ("c", 50))]
    found = examine_scripted(scripted)
    assert [1, 1, 1] == [len(found[name].evidence) for name in ("held legs", "groups", "positions")]
    assert ["x", "x"] == [found["groups"].evidence[0]["id"], found["held legs"].evidence[0]["id"]]
    assert ("x", "FILL") == (found["positions"].evidence[0]["symbol"], found["activity id"].evidence["activity_type"])
    assert isinstance(found["activity id"].evidence, dict), "the newest of them"
    scripted.orders["b"]["group_id"] = scripted.orders["c"]["group_id"] = "g"
    assert 1 == len(examine_scripted(scripted)["groups"].evidence)


def test_why_a_check_could_not_tell_is_said_in_200_characters(scripted: ScriptedAlpaca) -> None:
    scripted.answers["GET", "/v2/positions"] = lambda request: ["x" * 300]
    one = examine_scripted(scripted)["positions"]
    assert "could not tell" == one.verdict
    assert one.found.startswith("/positions: found ['xxx")
    scripted.positions = []
    scripted.answers["GET", "/v2/positions"] = error(500, 1, "y" * 300)
    assert 200 == len(examine_scripted(scripted)["positions"].found)


def test_an_account_that_cannot_be_reached_is_not_asked_on(scripted: ScriptedAlpaca) -> None:
    """Each further question would take as long; an account that answers oddly is asked all the others."""
    scripted.answers["GET", "/v2/account"] = page(502)
    found = examine_scripted(scripted)
    assert "as expected" == found.pop("versions").verdict
    assert "HTTP 502" in found.pop("permissions").found
    assert {"not asked, because the account could not be read"} == {one.found for one in found.values()}
    assert ["GET /v2/account"] == scripted.seen
    scripted.answers["GET", "/v2/account"] = error(418, 1, "teapot")
    found = examine_scripted(scripted)
    assert "as expected" == found["positions"].verdict
