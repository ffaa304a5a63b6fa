"""What a broker's failure reads like: a sentence with the status, Alpaca's code and message, and the order."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner, Result

from compactor.broker.alpaca.wording import describe_answer, describe_failure, name_request
from compactor.ui.cli import app
from tests.scripted_alpaca import ScriptedAlpaca, error, page

NOT_JSON = "order o-1: the broker answered HTTP 403 with a page that is no JSON: '<html><body>Forbidden by the gateway"


@pytest.fixture
def server() -> Iterator[ScriptedAlpaca]:
    with ScriptedAlpaca() as one:
        yield one


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compactor.broker.placing.PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("compactor.broker.alpaca.rest._choose_pause", lambda state: 0.0)


def compactor(server: ScriptedAlpaca, *arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env=server.environment)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (error(404, 40410000, "order not found"), "order o-1: the broker answered HTTP 404, code 40410000: order not"),
        (error(500, 50010000, "internal"), "order o-1: the broker answered HTTP 500, code 50010000: internal"),
        (page(403), NOT_JSON),
    ],
)
def test_a_failure_is_a_sentence(server: ScriptedAlpaca, data: Path, answer: Callable[..., Any], said: str) -> None:
    """Issue 16, 5: status, Alpaca's code and message, the order; and no text of a client library."""
    server.answers["DELETE", "/v2/orders/*"] = answer
    done = compactor(server, "cancel", "o-1", "--yes", "--data", str(data))
    assert (1, True) == (done.exit_code, done.stderr.startswith(said)), done.stderr


def test_a_broker_that_is_not_there_is_one_sentence(server: ScriptedAlpaca, data: Path) -> None:
    """Issue 16, 5: no pool, no class and no repetition of a library."""
    server.port = _find_closed_port()
    done = compactor(server, "reconcile", str(data), "--once")
    reason = f"nothing listens at 127.0.0.1:{server.port}: the connection was refused"
    assert f"Error: /account: the broker could not be reached: {reason}\n" == done.stderr


def test_an_account_that_cannot_be_read_is_examined_once(server: ScriptedAlpaca, data: Path) -> None:
    """Issue 16, 9: every check is there under its own name, the reason is a sentence, and nobody waits for eleven."""
    names = [row.split("  ")[1].strip() for row in _examine(server, data, 0)]
    port, server.port = server.port, _find_closed_port()
    rows = _examine(server, data, 1)
    assert names == [row.split("  ")[1].strip() for row in rows]
    assert f"nothing listens at 127.0.0.1:{server.port}" in rows[1]
    assert all("not asked, because the account could not be read" in row for row in rows[2:])
    server.port = port


def test_a_check_that_fails_keeps_its_name(server: ScriptedAlpaca, data: Path) -> None:
    """Issue 16, 9: a reader compares the rows of two days by their names."""
    whole = [row.split("  ")[1].strip() for row in _examine(server, data, 0)]
    for path in ("/v2/orders", "/v2/events/trades", "/v2beta1/events/activities", "/v2/positions"):
        server.answers["GET", path] = page(502)
    assert whole == [row.split("  ")[1].strip() for row in _examine(server, data, 0)]


def test_keys_that_are_refused_end_no_other_account(server: ScriptedAlpaca, data: Path) -> None:
    """Issue 16, 9: the first account's refusal is said, and the second one is examined."""
    data.mkdir(exist_ok=True)
    tables = "".join(
        f'[accounts.{name}]\nkey_variable = "{name.upper()}_KEY"\nsecret_variable = "{name.upper()}_SECRET"\n'
        f'url = "{server.url}"\n'
        for name in ("bad", "good")
    )
    (data / "compactor.toml").write_text(tables)
    refuse = error(401, 40110000, "request is not authorized")
    server.answers["GET", "/v2/account"] = lambda found: (
        refuse(found) if found.headers["APCA-API-KEY-ID"] == "BAD" else None
    )
    keys = {"BAD_KEY": "BAD", "BAD_SECRET": "b", "GOOD_KEY": "GOOD", "GOOD_SECRET": "g"}
    done = CliRunner().invoke(app, ["doctor", str(data), "--broker"], env=keys)
    assert 4 == done.exit_code
    assert "account bad: the broker refused the keys in BAD_KEY and BAD_SECRET" in done.stderr
    assert "(HTTP 401, code 40110000: request is not authorized)" in done.stderr
    assert 11 == sum(line.startswith("good ") for line in done.stdout.splitlines())


def _examine(server: ScriptedAlpaca, data: Path, exit_code: int) -> list[str]:
    done = compactor(server, "doctor", str(data), "--broker")
    assert exit_code == done.exit_code, done.output
    return done.stdout.splitlines()[1:]


def _find_closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (403, b'{"code":40310000,"message":"insufficient"}', "HTTP 403, code 40310000: insufficient"),
        (403, b'{"message":"forbidden."}', "HTTP 403: forbidden."),
        (422, b'{"code":42210000,"message":"bad","symbol":"X"}', "HTTP 422, code 42210000: bad (symbol X)"),
        (400, b"{}", "HTTP 400"),
        (502, b"<p>\n bad</p>", "HTTP 502 with a page that is no JSON: '<p> bad</p>'"),
        (503, b"", "HTTP 503 with no text"),
        (500, b"[1]", "HTTP 500 with a page that is no JSON: '[1]'"),
    ],
)
def test_an_answer_in_words(status: int, body: bytes, said: str) -> None:
    assert said == describe_answer(status, body)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (("DELETE", "/orders/a%2Fb"), "order a/b"),
        (("POST", "/orders", None, {"client_order_id": "alpha:1"}), "order alpha:1"),
        (("GET", "/orders:by_client_order_id", {"client_order_id": "alpha:1"}), "order alpha:1"),
        (("GET", "/orders", {"status": "open"}), "/orders"),
        (("PATCH", "/orders/o", None, {"client_order_id": "b"}), "order o"),
        (("POST", "/orders", None, {}), "/orders"),
    ],
)
def test_a_request_is_named_by_its_order(request_: tuple[Any, ...], said: str) -> None:
    assert said == name_request(*request_)


def _wrap(inner: BaseException) -> requests.ConnectionError:
    return requests.ConnectionError(RuntimeError("HTTPSConnectionPool(…): Max retries exceeded", inner))


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (_wrap(socket.gaierror(-2, "Name or service not known")), "the name of host cannot be resolved"),
        (_wrap(ConnectionRefusedError(errno.ECONNREFUSED, "refused")), "nothing listens at host"),
        (ConnectionRefusedError(), "nothing listens at host"),
        (OSError("Multiple exceptions: [Errno 111] Connect call failed (…)"), "nothing listens at host"),
        (OSError(errno.EHOSTUNREACH, "Connect call failed (…)"), "there is no way to host"),
        (_wrap(OSError(errno.ENETUNREACH, "unreachable")), "there is no way to host"),
        (_wrap(OSError(errno.EHOSTUNREACH, "unreachable")), "there is no way to host"),
        (_wrap(ssl.SSLCertVerificationError(1, "verify failed")), "the certificate of host is not valid"),
        (_wrap(ssl.SSLError(1, "wrong version")), "no encrypted connection to host could be made"),
        (requests.exceptions.ProxyError("…"), "the proxy on the way to host did not connect"),
        (_wrap(ConnectionResetError(errno.ECONNRESET, "reset")), "the connection to host broke off"),
        (TimeoutError(), "host did not answer in time"),
        (ExceptionGroup("every address", [ConnectionRefusedError(errno.ECONNREFUSED, "")]), "nothing listens at host"),
        (requests.exceptions.ChunkedEncodingError("…"), "the connection to host broke off before the answer was"),
    ],
)
def test_a_failure_in_words(failure: Exception, said: str) -> None:
    """The kind of a library's error counts, however deep it is wrapped, and not its text."""
    assert describe_failure(failure, "host").startswith(said)


def test_errors_that_wrap_each_other_in_a_circle_end() -> None:
    one, other = RuntimeError(), RuntimeError()
    one.__cause__, other.__cause__ = other, one
    assert describe_failure(one, "host").startswith("the connection to host broke off")
