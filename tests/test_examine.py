"""`compactor doctor --broker`: how an account behaves where that is not documented, against several behaviours."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from compactor.broker.adapters import find_credentials, open_broker
from compactor.broker.alpaca.redact import redact
from compactor.broker.budget import Budget
from compactor.broker.credentials import BadCredentials
from compactor.broker.port import BrokerCheck
from compactor.ui.cli import app
from tests.alpaca_server import AlpacaServer
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
