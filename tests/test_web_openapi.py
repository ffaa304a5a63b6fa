"""The API against its own OpenAPI document: Schemathesis makes the requests, and all of its checks see the answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.core.result import Ok

from tests.alpaca_server.server import AlpacaServer
from tests.page_data import TeamLog
from tests.web_client import Served

EXAMPLES = 12
_numbers = count()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    data = tmp_path_factory.mktemp("openapi") / "data"
    data.mkdir()
    (data / "compactor.toml").write_text(
        'http_requests_per_minute = 1000000\nhttp_log = "none"\nhttp_proxies = ["127.0.0.1"]\n'
    )
    TeamLog(data, "alpha").day(5, 5)
    with AlpacaServer(1) as broker:
        one = Served(data, environ=broker.environment)
        yield one
        one.close()


@pytest.fixture(scope="module")
def document(served: Served) -> dict[str, Any]:
    found: dict[str, Any] = served.get("/api/openapi.json").json()
    return found


def test_the_document_is_openapi_3_1_and_names_every_path(document: dict[str, Any]) -> None:
    """What is served and what is described are one."""
    assert document["openapi"].startswith("3.1")
    team = "/api/v1/team/{team}"
    wanted = {
        f"{team}/orders/open", f"{team}/orders/{{order_id}}", f"{team}/orders/{{order_id}}/history", f"{team}/trades",
        f"{team}/findings", f"{team}/status", f"{team}/summary", f"{team}/events", "/api/v1/teams", "/api/v1/key",
        "/api/v1/teams.csv", "/api/v1/teams.jsonl",
        *(f"{team}/{name}.csv" for name in ("orders/open", "trades", "findings", "summary")),
        *(f"{team}/{name}.jsonl" for name in ("orders/open", "trades", "findings", "summary")),
    }  # fmt: skip
    assert wanted == set(document["paths"])
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"] and operation["description"], (method, path)
            assert {"400", "401", "403", "429"} <= set(operation["responses"])


def test_the_reference_needs_no_other_address(served: Served) -> None:
    """The OpenAPI page works without any address but our own."""
    text = (
        served.get("/api").text
        + served.get("/page/reference.js").text
        + json.dumps(served.get("/api/openapi.json").json())
    )
    assert (
        "//" not in text.replace("/// ", "").replace("https://www.w3.org", "").replace("\n//", "") or "http" not in text
    )


@pytest.mark.parametrize("who", ["team", "admin"])
def test_every_answer_conforms_to_the_document(served: Served, document: dict[str, Any], who: str) -> None:
    """All checks of Schemathesis: statuses, content types, headers, schemas, negative data, ignored keys, methods.

    The event stream has no end, and is left out.
    """
    key = served.key("alpha" if who == "team" else None)
    schema = schemathesis.openapi.from_dict(document).exclude(path_regex="/events$")
    if who == "team":
        schema = schema.exclude(path_regex="/teams$")
    operations = 0
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        if "{team}" in operation.path:
            _fix_team(operation)
        _check(operation, served, key)
        operations += 1
    assert operations > 12


def _fix_team(operation: Any) -> None:
    for parameter in operation.path_parameters:
        if parameter.name == "team":
            parameter.definition["schema"] = {"const": "alpha"}


def _check(operation: Any, served: Served, key: str) -> None:
    from hypothesis import given

    @given(case=operation.as_strategy())
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )  # fmt: skip
    def ask(case: Any) -> None:
        # Wrong keys are counted by address, and these checks send many.
        address = "203.0." + ".".join(str(one) for one in divmod(next(_numbers), 250))
        headers = {"Authorization": f"Bearer {key}", "X-Forwarded-For": address}
        case.call_and_validate(base_url=served.url, headers=headers)

    ask()
