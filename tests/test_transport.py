"""Requests with a deadline, answers of bounded size, and keys that go to one host only."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator

import pytest

from compactor.broker.adapters import find_credentials
from compactor.broker.alpaca.transport import BODY_BYTES_MAX, BadBody, DeadlineExceeded, NoAnswer, Transport
from tests.alpaca_server import AlpacaServer


@pytest.fixture
def server() -> Iterator[AlpacaServer]:
    with AlpacaServer(seed=2, rate_limit=None, plain=True) as one:
        yield one


def transport(server: AlpacaServer, **options: float) -> Transport:
    return Transport(find_credentials(server.environment), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("fault", ["huge", "endless", "bomb"])
def test_an_answer_is_cut_off_at_16_mib(server: AlpacaServer, fault: str) -> None:
    """Issue 16, 4: counted after decompression, while reading; a bomb never stands in memory."""
    one = transport(server)
    one.send("GET", "/account")
    server.fail_next("GET", fault)
    tracemalloc.start()
    try:
        with pytest.raises(BadBody, match="at most 16 MiB"):
            one.send("GET", "/account")
        assert tracemalloc.get_traced_memory()[1] < 3 * BODY_BYTES_MAX
    finally:
        tracemalloc.stop()
    assert 200 == one.send("GET", "/account").status, "the next request is none the worse"


def test_an_answer_that_drips_ends_at_the_deadline(server: AlpacaServer) -> None:
    """Issue 16, 4: a byte now and then keeps no request alive; the deadline is for the whole of it."""
    one = transport(server, deadline_seconds=0.5)
    server.fail_next("GET", "drip")
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"expected a complete answer within 0\.5 s"):
        one.send("GET", "/account")
    assert 0.4 < time.monotonic() - started < 5.0
    assert 200 == one.send("GET", "/account").status


def test_a_server_that_says_nothing_ends_at_the_deadline_too(server: AlpacaServer) -> None:
    """The deadline begins with the request, also before the first byte of the answer."""
    server.fail_next("GET", "hang")
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        transport(server, deadline_seconds=0.5).send("GET", "/account")
    assert time.monotonic() - started < 5.0


@pytest.mark.parametrize("path", ["/redirect"])
def test_a_redirect_is_an_answer_and_is_not_followed(server: AlpacaServer, path: str) -> None:
    """The keys go to the host that was named, and to no other."""
    from aiohttp import web

    async def strike(*_: object) -> web.Response:
        return web.Response(status=307, headers={"Location": other.url + "/v2/account"})

    with AlpacaServer(seed=3) as other:
        server.gate._strike = strike  # type: ignore[method-assign, assignment]
        server.fail_next("GET", "server_error")
        assert 307 == transport(server).send("GET", "/account").status
        assert [] == other.requests


def test_a_compressed_answer_that_breaks_off_is_none(server: AlpacaServer) -> None:
    """Half an answer must not be read as a shorter one."""
    import gzip

    from aiohttp import web

    async def strike(*_: object) -> web.Response:
        body = gzip.compress(b"[1, 2, 3]" * 100)[:-12]
        return web.Response(body=body, headers={"Content-Encoding": "gzip"})

    server.gate._strike = strike  # type: ignore[method-assign, assignment]
    server.fail_next("GET", "server_error", 2)
    with pytest.raises(BadBody, match="breaks off"):
        transport(server).send("GET", "/account")


def test_an_error_never_contains_a_key() -> None:
    """What goes wrong is logged; the keys are not."""
    environ = {
        "ALPACA_API_KEY": "PKSHOWN", "ALPACA_SECRET_KEY": "hush-hush", "APCA_API_BASE_URL": "http://127.0.0.1:9/hush-hush"
    }  # fmt: skip
    with pytest.raises(NoAnswer) as caught:
        Transport(find_credentials(environ)).send("GET", "/account")
    assert "hush-hush" not in str(caught.value)


@pytest.mark.parametrize(("live", "host"), [(False, "paper-api.alpaca.markets"), (True, "api.alpaca.markets")])
def test_without_an_address_requests_go_to_the_broker_s_own(live: bool, host: str) -> None:
    """Paper or live by the settings."""
    keys = find_credentials({"ALPACA_API_KEY": "PK", "ALPACA_SECRET_KEY": "hush"}, live=live)
    assert f"https://{host}" == Transport(keys)._base
