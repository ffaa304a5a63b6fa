"""Our requests and the local server's answers beside Alpaca's own OpenAPI document: neither shares an error of ours.

The document is a file of the package alpaca-mcp-server; `make openapi` installs that without its dependencies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests

from compactor.broker.adapters import find_credentials, open_broker
from compactor.broker.alpaca.adapter import AlpacaAccount
from compactor.broker.budget import Budget
from compactor.broker.placing import Trader
from compactor.broker.port import BrokerError, ResendPoint, ResendResult
from tests.alpaca_server import AlpacaServer
from tests.test_answers import BRACKET
from tests.test_gaps import place_spread

NOT_IN_IT = {"/v2/events/trades"}
"""What the official Go client asks for and the document does not have; it is probed, and left where it is missing."""


def read_document() -> dict[str, Any]:
    try:
        files = distribution("alpaca-mcp-server").files or []
    except PackageNotFoundError:
        pytest.skip("Alpaca's OpenAPI document is not installed: make openapi")
    [path] = [file for file in files if str(file).endswith("specs/trading-api.json")]
    document: dict[str, Any] = json.loads(Path(str(path.locate())).read_text())
    return document


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return read_document()


@pytest.fixture(scope="module")
def server() -> Iterator[AlpacaServer]:
    """An account in which all that happens that the adapter asks about."""
    with AlpacaServer(5, resend=True, rate_limit=None) as one:
        one.live(120)
        one.fill(one.place("AAPL", "buy", 10, team="alpha", **BRACKET).id, None, "100")
        one.fill(place_spread(one).id)
        one.place("BTC/USD", "buy", "0.5", team="alpha", type="limit", limit_price="1")
        yield one


def find_path(document: dict[str, Any], path: str) -> str | None:
    """The path of the document that a request has; one without parameters comes first."""
    for one in sorted(document["paths"], key=lambda one: "{" in one):
        if re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", one), path):
            return str(one)
    return None


def strip_names(found: Any) -> Any:
    """The same without the blanks that were seen behind names."""
    if isinstance(found, dict):
        return {name.strip(): strip_names(value) for name, value in found.items()}
    return [strip_names(one) for one in found] if isinstance(found, list) else found


def check(document: dict[str, Any], schema: dict[str, Any], found: Any) -> list[str]:
    """Where JSON is not what a schema of the document says."""
    jsonschema_rs = pytest.importorskip("jsonschema_rs")
    whole = {**schema, "components": document["components"]}
    validator = jsonschema_rs.Draft202012Validator(whole)
    return [f"{'/'.join(map(str, one.instance_path))}: {one.message}"[:200] for one in validator.iter_errors(found)]


def test_every_request_of_ours_is_in_the_document(document: dict[str, Any], server: AlpacaServer, data: Path) -> None:
    """Path, method and parameters are Alpaca's."""
    keys = find_credentials(server.environment)
    account = open_broker(keys, budget=Budget(100_000), sleep=lambda seconds: None)
    assert isinstance(account, AlpacaAccount)
    since = "2026-03-02T14:30:00Z"
    orders = account.read_open_orders().events
    account.read_orders_since(since)
    account.read_order(orders[0]["order_id"])
    account.list_orders({one["order_id"]: one.get("created_at") for one in orders})
    account.read_fills_since(since)
    account.read_order_fills(orders[0], since)
    account.list_fills(orders)
    account.read_positions()
    account.read_adjustments(since)
    list(account.examine(150))
    for kind in ("trades", "activities"):
        list(
            account.resend(
                since, "2027-01-01T00:00:00Z", ResendPoint(kind, "01ARZ3NDEKTSV4RRFFQ69G5FAV"), ResendResult()
            )
        )
    trader = Trader(data, keys, budget=Budget(100_000), sleep=lambda seconds: None)
    terms = {"symbol": "SPY", "side": "buy", "qty": "2", "type": "limit", "limit_price": "5", "time_in_force": "gtc"}
    order = trader.submit("alpha", {**terms, "client_order_id": "openapi"})
    trader.submit("alpha", {**terms, "client_order_id": "openapi"})
    new = trader.replace(order["id"], limit_price="6")
    trader.cancel(new["id"])
    with pytest.raises(BrokerError):
        trader.cancel(new["id"])
    wrong = []
    for request in server.requests:
        method, _, url = request.partition(" ")
        parts = urlsplit(url)
        path = find_path(document, parts.path)
        if path is None or method.lower() not in document["paths"][path]:
            wrong += [request] if parts.path not in NOT_IN_IT else []
            continue
        whole = document["paths"][path]
        parameters = [*whole.get("parameters", ()), *whole[method.lower()].get("parameters", ())]
        known = {one.get("name") for one in parameters}
        wrong += [f"{request}: {name}" for name, _ in parse_qsl(parts.query) if name not in known]
    assert [] == sorted(set(wrong))
    assert {"POST", "PATCH", "DELETE", "GET"} == {request.partition(" ")[0] for request in server.requests}


@pytest.mark.parametrize(
    "url",
    [
        "/v2/account", "/v2/orders?status=open", "/v2/orders?status=all&nested=true&limit=500", "/v2/positions",
        "/v2/account/activities/FILL",
    ],
)  # fmt: skip
def test_what_the_local_server_answers_is_in_the_document(
    document: dict[str, Any], server: AlpacaServer, url: str
) -> None:
    """Names, kinds and values, but for what the real service was seen to answer otherwise."""
    headers = {"APCA-API-KEY-ID": server.key, "APCA-API-SECRET-KEY": server.secret}
    found = requests.get(server.url + url, headers=headers, timeout=10).json()
    path = find_path(document, urlsplit(url).path)
    assert path is not None
    schema = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    if "/activities/" in url:
        # The document allows two kinds here; ours are of the first.
        schema = {"type": "array", "items": {"$ref": "#/components/schemas/TradingActivities"}}
    wrong = check(document, schema, strip_names(found))
    assert [] == [one for one in wrong if not any(re.search(pattern, one) for pattern in DIFFERENT)][:5]


DIFFERENT = (
    r": -?[0-9.e-]+ is not of types? ",  # Decimals are mostly texts, and sometimes numbers.
    r'/(symbol|asset_class|asset_id|side|order_class): ""',  # The parent of a multi-leg order.
    r'/type: ""',  # Its legs.
    r'/status: "(pending_review|order_asleep)"',  # Statuses appear that no document has.
)
"""Where the real service was seen to answer otherwise than its document says."""
