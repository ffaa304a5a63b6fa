"""Keys: where they are found, when they are for real money, and that nobody ever gets to see them."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from compactor.broker.alpaca.access import find_credentials
from compactor.broker.alpaca.rest import AlpacaRest
from compactor.broker.budget import Budget
from compactor.broker.credentials import BadCredentials, Credentials, Environment
from compactor.broker.port import BrokerError
from tests.alpaca_server import AlpacaServer
from tests.conftest import ROOT

KEY, SECRET = "PKNEVERSHOWN0001", "the-secret-that-is-never-shown"
OLD = {"APCA_API_KEY_ID": KEY, "APCA_API_SECRET_KEY": SECRET}
NEW = {"ALPACA_API_KEY": KEY, "ALPACA_SECRET_KEY": SECRET}


@pytest.fixture
def server() -> Iterator[AlpacaServer]:
    with AlpacaServer(keys=((KEY, SECRET),), rate_limit=None) as one:
        yield one


def refusal(environ: dict[str, str], **more: object) -> str:
    with pytest.raises(BadCredentials) as caught:
        find_credentials(environ, **more)  # type: ignore[arg-type]
    assert KEY not in str(caught.value)
    assert SECRET not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("environ", [OLD, NEW])
def test_either_pair_will_do_and_paper_is_the_default(environ: dict[str, str]) -> None:
    """Issue 4, 7: ALPACA_API_KEY + ALPACA_SECRET_KEY, or APCA_API_KEY_ID + APCA_API_SECRET_KEY; paper."""
    found = find_credentials(environ)
    assert (KEY, SECRET, True, None, tuple(environ)) == (found.key, found.secret, found.paper, found.url, found.names)


def test_only_complete_pairs_count() -> None:
    """Issue 4, 7: half a pair is named, and never completed from the other one."""
    assert "ALPACA_API_KEY is set and ALPACA_SECRET_KEY is not" in refusal({"ALPACA_API_KEY": KEY})
    mixed = {"ALPACA_API_KEY": KEY, "APCA_API_SECRET_KEY": SECRET}
    assert "APCA_API_SECRET_KEY is set and APCA_API_KEY_ID is not" in refusal(mixed)
    assert KEY == find_credentials({**OLD, "ALPACA_API_KEY": "other"}).key
    assert "no keys of an Alpaca account" in refusal({})
    assert "two different pairs" in refusal({**OLD, "ALPACA_API_KEY": KEY, "ALPACA_SECRET_KEY": "other"})
    assert "characters that no key has" in refusal({**OLD, "APCA_API_KEY_ID": f"{KEY} {SECRET}"})


def test_named_variables_are_the_only_ones_looked_at() -> None:
    """Issue 4, 7: an account of the configuration names its own."""
    names = ("DESK_KEY", "DESK_SECRET")
    assert "both of DESK_KEY + DESK_SECRET" in refusal(OLD, names=names)
    found = find_credentials({**OLD, "DESK_KEY": "PKDESK", "DESK_SECRET": "s"}, names=names)
    assert ("PKDESK", names) == (found.key, found.names)


def test_real_money_is_asked_for_in_words() -> None:
    """Issue 4, 7: a key alone, or a URL that somebody set years ago, never reaches the live account."""
    assert find_credentials({**OLD, "COMPACTOR_LIVE": ""}).paper
    assert not find_credentials({**OLD, "COMPACTOR_LIVE": "yes-real-money"}).paper
    assert not find_credentials(OLD, live=True).paper
    assert "'yes-real-money' for real money" in refusal({**OLD, "COMPACTOR_LIVE": "true"})
    live = {**OLD, "APCA_API_BASE_URL": "https://api.alpaca.markets/v2"}
    assert "real money was not requested" in refusal(live)
    assert "https://api.alpaca.markets" == find_credentials({**live, "COMPACTOR_LIVE": "yes-real-money"}).url
    paper = {**OLD, "APCA_API_BASE_URL": "https://paper-api.alpaca.markets"}
    assert "real money was requested" in refusal({**paper, "COMPACTOR_LIVE": "yes-real-money"})
    assert find_credentials(paper).paper
    # An account that names its variables says in its own words whether it is for real money.
    assert find_credentials({**OLD, "COMPACTOR_LIVE": "yes-real-money"}, names=tuple(OLD)).paper  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url", ["http://example.com", "ftp://127.0.0.1", "https://user@host", "https://", "https:///v2", "nonsense"]
)
def test_keys_are_sent_to_no_odd_address(url: str) -> None:
    """Issue 4, 7: over the network only encrypted."""
    assert "no address to send keys to" in refusal({**OLD, "APCA_API_BASE_URL": url})


def hidden(text: str) -> None:
    assert KEY not in text
    assert SECRET not in text


def test_what_is_printed_of_keys_tells_neither(server: AlpacaServer) -> None:
    """Issue 4, 7: not by repr, not by str, not pickled, not by what an environment prints of itself."""
    found = find_credentials(OLD)
    hidden(f"{found} {found!r} {Environment(OLD)} {Environment(OLD)!r} {[found.key, found.secret]!r}")
    with pytest.raises(TypeError, match="never written down"):
        pickle.dumps(found)
    assert "…:…" == found.hide(f"{KEY}:{SECRET}")


def locals_of(error: BaseException) -> str:
    """A traceback as it is shown with the locals of every frame, by the standard library and by rich."""
    from rich.console import Console
    from rich.traceback import Traceback

    plain = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    out = io.StringIO()
    trace = Traceback.from_exception(
        type(error), error, error.__traceback__, show_locals=True, locals_max_length=1000, locals_max_string=1000
    )
    Console(file=out, width=400).print(trace)
    assert "locals" in out.getvalue()
    return plain + out.getvalue()


@pytest.mark.parametrize("fault", ["server_error", "html_page", "rate_limited", "hang", "cut_body"])
def test_no_traceback_shows_keys_even_with_locals(server: AlpacaServer, fault: str) -> None:
    """Issue 4, 7: never in a traceback, also not where its frames show what their variables hold."""
    server.faults.hang_seconds = 0.3
    server.fail_next("GET", fault, 9)
    broker = broker_of(server)
    with pytest.raises(BrokerError) as caught:
        broker.account()
    hidden(locals_of(caught.value))


def broker_of(server: AlpacaServer) -> AlpacaRest:
    impatient = Budget(100_000, sleep=lambda seconds: None, clock=iter(range(0, 10**9, 100)).__next__)
    keys = find_credentials({**OLD, "APCA_API_BASE_URL": server.url})
    return AlpacaRest(keys, budget=impatient, timeout_seconds=(0.1, 0.1), tries=2, sleep=lambda seconds: None)


def test_a_refusal_and_a_bug_show_no_keys_either(server: AlpacaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 4, 7: bad credentials, and any exception that nobody expected, in the middle of a request."""
    server.account.secret = "changed"
    with pytest.raises(BadCredentials) as refused:
        broker_of(server).account()
    hidden(locals_of(refused.value))

    broker = broker_of(server)

    def stumble(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("requests.Session.send", stumble)
    with pytest.raises(ZeroDivisionError) as bug:
        broker.account()
    hidden(locals_of(bug.value))
    with pytest.raises(BadCredentials) as missing:
        find_credentials({**OLD, "APCA_API_BASE_URL": "http://example.com"})
    # The frame of this test holds the keys itself; what is below it does not.
    assert missing.value.__traceback__ is not None
    missing.value.__traceback__ = missing.value.__traceback__.tb_next
    hidden(locals_of(missing.value))


def test_an_answer_that_repeats_the_keys_is_not_repeated(server: AlpacaServer) -> None:
    """Issue 4, 7: a proxy's error page may show the headers that it got."""
    keys = Credentials(KEY, SECRET, ("A", "B"), url=server.url)
    broker = AlpacaRest(keys, tries=1)

    async def echo(*arguments: object) -> object:
        from aiohttp import web

        return web.Response(status=500, text=f"you sent {KEY} and {SECRET}")

    server.gate._strike = echo  # type: ignore[method-assign, assignment]
    server.fail_next("GET", "server_error", 9)
    with pytest.raises(BrokerError, match="you sent … and …"):
        broker.account()


OTHER = "another-secret-never-shown"


@pytest.fixture
def named(data: Path, server: AlpacaServer) -> dict[str, str]:
    """A data directory whose one account names its variables, and those variables, with a secret that is refused."""
    (data / "team/alpha").mkdir(parents=True)
    (data / "team/alpha/events.jsonl").touch()
    lines = ["[accounts.main]", 'key_variable = "APCA_API_KEY_ID"', 'secret_variable = "APCA_API_SECRET_KEY"']
    (data / "compactor.toml").write_text("\n".join(lines))
    debug = {"COMPACTOR_DEBUG": "1"}
    return {**OLD, "APCA_API_SECRET_KEY": OTHER, "APCA_API_BASE_URL": server.url, **debug}


def nothing_shown(data: Path, output: str) -> None:
    written = [path.read_text(errors="replace") for path in data.rglob("*") if path.is_file()]
    hidden(output + "".join(written))
    assert OTHER not in output + "".join(written)


def test_refused_keys_end_a_program_with_exit_code_4_and_are_not_shown(data: Path, named: dict[str, str]) -> None:
    """Issue 4, 7: a clear message and exit 4; not in an error, a log or a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "compactor", "reconcile", str(data), "--once"], cwd=ROOT, env={**os.environ, **named},
        capture_output=True, text=True,
    )  # fmt: skip
    assert 4 == done.returncode
    assert "the broker refused the keys in APCA_API_KEY_ID and APCA_API_SECRET_KEY" in done.stderr
    nothing_shown(data, done.stdout + done.stderr)


@pytest.mark.parametrize(
    ("command", "secret", "code"),
    [
        (["reconcile", "--once"], SECRET, 0),
        (["reconcile", "--dry-run"], OTHER, 4),
        (["config"], SECRET, 0),
        (["config", "--json"], SECRET, 0),
        (["status"], SECRET, 0),
    ],
)
def test_no_command_shows_keys(
    data: Path, named: dict[str, str], monkeypatch: pytest.MonkeyPatch, command: list[str], secret: str, code: int
) -> None:
    """Issue 4, 7: not in `config`, nor in what any other command says."""
    from click.testing import CliRunner

    from compactor.ui.cli import app

    for name, value in {**named, "APCA_API_SECRET_KEY": secret}.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(app, [command[0], str(data), *command[1:]])
    assert code == done.exit_code, done.output
    nothing_shown(data, done.output)


def test_keys_are_in_no_text_of_their_account() -> None:
    """Neither of them: a log may have either."""
    credentials = Credentials("PK1", "hush", ("A", "B"))
    assert "PK1" not in repr(credentials)
    assert "hush" not in repr(credentials)
