"""`compactor run`: gaps closed, mute streams found, staleness told; mostly in this process, some as users run it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from compactor import Ledger, discover
from compactor.books.turns import compact_in_turn
from compactor.broker.adapters import find_credentials
from compactor.broker.credentials import BadCredentials
from compactor.daemon import account_link, reconcile_loop
from compactor.daemon.health import Health, check_accounts
from compactor.daemon.links import Links, StreamInUse
from compactor.daemon.metrics import Metrics
from compactor.daemon.readiness import check_ready
from compactor.settings.accounts import Account
from compactor.sync.stream_writer import StreamWriter
from compactor.ui.watching import make_logger
from tests.alpaca_server import AlpacaServer
from tests.test_stream import end_first, until

ROUND_SECONDS = 1
"""How often these tests reconcile; no order has to be quiet before."""


class Running:
    """The link to the broker in this process, without the watcher."""

    def __init__(self, data: Path, accounts: list[Account], **options: Any) -> None:
        self.health, self.stop = Health(), threading.Event()
        chosen = {"reconcile_seconds": ROUND_SECONDS, "quiet_seconds": 0, "teams": ["alice"], **options}
        self.links = Links(data, accounts, self.health, make_logger("error"), self.stop, **chosen)
        self.links.start()

    def row(self, account: str = "default") -> Any:
        return self.health.accounts[account]

    def end(self) -> None:
        self.stop.set()
        self.links.finish()


Start = Callable[..., Running]


@pytest.fixture
def start(data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.setattr("compactor.broker.alpaca.stream.BACKOFF_SECONDS", (0.05, 0.2))
    monkeypatch.setattr(reconcile_loop, "APART_SECONDS", 0.05)
    running: list[Running] = []

    def begin(server: AlpacaServer, **options: Any) -> Running:
        running.append(Running(data, [account_of(server)], **options))
        end_first(server, running[-1].end)
        until(lambda: running[-1].row().connected and running[-1].row().reconciles, "connected and reconciled")
        return running[-1]

    yield begin
    for one in running:
        one.end()


def account_of(server: AlpacaServer, number: int = 0, **options: Any) -> Account:
    key = list(server.accounts)[number]
    environ = {**server.environment, "APCA_API_KEY_ID": key, "APCA_API_SECRET_KEY": server.accounts[key].secret}
    return Account(options.pop("name", "default"), find_credentials(environ), **options)


def ours(data: Path) -> tuple[set[str], dict[str, Counter[tuple[Decimal, Decimal]]]]:
    """The open orders and the executions of all teams, brought up to date."""
    pending, fills = set(), dict[str, Counter[tuple[Decimal, Decimal]]]()
    for place in discover(data):
        with Ledger(place.path) as ledger:
            compact_in_turn(ledger)  # The reconcile compacts, too.
            pending |= {row["order_id"] for row in ledger.rows("pending_orders")}
            for trade in ledger.rows("trades"):
                quantity = Decimal(trade["quantity"])
                found = fills.setdefault(trade["order_id"], Counter())
                found[abs(quantity), Decimal(trade["execution_price"])] += 1 if quantity > 0 else -1
    return pending, {order_id: +counts for order_id, counts in fills.items() if +counts}


def agrees(data: Path, server: AlpacaServer) -> bool:
    truth = server.truth()
    return ours(data) == (set(truth.open), truth.fills)


def files(data: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in data.rglob("events.jsonl")}


# Gaps.


@pytest.mark.parametrize("resend", [False, "trades", "activities"])
def test_a_gap_is_closed_after_every_reconnect(data: Path, start: Start, resend: bool | str) -> None:
    """Every connect and reconnect closes the gap since the last event known, with and without resend."""
    with AlpacaServer(5, resend=resend, plain=True) as server:
        server.live(10)
        running = start(server, reconcile_seconds=60)
        until(lambda: agrees(data, server), "what was before the start")
        server.faults.drop = 1.0  # Whatever happens now is not streamed.
        order = server.place("AAPL", "buy", 10, client_order_id="alice:1", type="limit", limit_price="181.50")
        server.fill(order.id, 4, "181.36")
        server.live(10)
        time.sleep(0.1)
        server.faults.drop = 0.0
        assert not agrees(data, server)
        server.disconnect()
        until(lambda: running.row().connections == 2 and agrees(data, server), "what was missed")
        assert ("trades" if resend == "trades" else "activities" if resend else None) == running.row().resend


def test_a_second_reconcile_appends_nothing(data: Path, start: Start) -> None:
    """After the first one, which tells of legs that nothing else does, and the stream counts as healthy."""
    with AlpacaServer(6, plain=True) as server:
        running = start(server, quiet_seconds=1)
        server.live(40)
        until(lambda: agrees(data, server), "what was streamed")
        rounds = running.row().reconciles
        until(lambda: running.row().reconciles >= rounds + 2, "a whole reconcile")
        before, rounds = files(data), running.row().reconciles
        until(lambda: running.row().reconciles >= rounds + 2, "two reconciles")
        assert before == files(data)
        assert (0, 1) == (running.row().mute, running.row().connections)


def test_a_mute_stream_is_found_and_connected_anew(data: Path, start: Start) -> None:
    """A stream that is connected and mute is found out by a reconcile that sees what the stream did not say."""
    with AlpacaServer(7, plain=True) as server:
        running = start(server)
        server.go_mute()
        server.place("AAPL", "buy", 10, client_order_id="alice:1", type="limit", limit_price="181.50")
        until(lambda: running.row().mute == 1, "found to be mute")
        until(lambda: running.row().connections == 2 and running.row().connected, "connected anew")
        later = server.place("AAPL", "buy", 1, client_order_id="alice:2", type="limit", limit_price="1")
        until(lambda: later.id in ours(data)[0], "streamed again")
        assert agrees(data, server)
        assert running.row().messages > 0


def test_frames_that_are_none_stop_nothing(data: Path, start: Start) -> None:
    """HTML in place of a frame, `data: null`: findings, and the stream goes on."""
    with AlpacaServer(8, plain=True) as server:
        running = start(server)
        server.send_frame(b"<html>\n502\n</html>")
        server.send_frame(b'{"stream":"trade_updates","data":null}')
        order = server.place("AAPL", "buy", 1, client_order_id="alice:1", type="limit", limit_price="1")
        until(lambda: order.id in ours(data)[0], "the order")
        until(lambda: running.row().unreadable == 2, "both counted")
        assert 1 == running.row().connections


def test_an_error_while_writing_costs_a_reconcile_and_not_the_stream(
    data: Path, start: Start, monkeypatch: Any
) -> None:
    """Neither does a handler error stop the stream; what was not written is found by a reconcile, at once."""
    real, calls = StreamWriter.store, []

    def fails_once(self: StreamWriter, frames: Any, *more: Any, **options: Any) -> Any:
        calls.append(frames)
        if len(calls) == 1:
            raise RuntimeError("a bug")
        return real(self, frames, *more, **options)

    with AlpacaServer(13, plain=True) as server:
        running = start(server, reconcile_seconds=60)
        monkeypatch.setattr(StreamWriter, "store", fails_once)
        # On a busy machine a connection may be given up and made anew; the error would end it every time.
        for attempt in range(1, 4):
            calls.clear()
            connections = running.row().connections
            order = server.place("AAPL", "buy", 1, client_order_id=f"alice:{attempt}", type="limit", limit_price="1")
            until(lambda wanted=order.id: wanted in ours(data)[0], "the order")  # type: ignore[misc]
            if connections == running.row().connections:
                break
        assert connections == running.row().connections


def test_lines_that_cannot_be_written_are_told_and_written_later(data: Path, start: Start) -> None:
    """What a ledger refuses waits, `/readyz` says so, and it is written as soon as that can be."""
    with AlpacaServer(14, plain=True) as server:
        running = start(server, reconcile_seconds=60)
        (data / "team").mkdir(exist_ok=True)
        (data / "team" / "alice").write_text("a file where the ledger's directory should be")
        order = server.place("AAPL", "buy", 1, client_order_id="alice:1", type="limit", limit_price="1")
        until(lambda: running.row().waiting_lines, "waiting")
        assert any("could not be written" in str(one.reason) for one in check_accounts(running.health, time.time()))
        (data / "team" / "alice").unlink()
        until(lambda: not running.row().waiting_lines, "written")
        assert {order.id} == ours(data)[0]
        assert running.row().connected


def test_several_accounts_have_a_stream_each(data: Path, start: Start) -> None:
    """Several accounts, each with its own credentials and stream."""
    keys = [("PKONE00000", "secret-one"), ("PKTWO00000", "secret-two")]
    with AlpacaServer(9, keys=keys, plain=True) as server:
        accounts = [account_of(server, 0, name="one", team="house"), account_of(server, 1, name="two")]
        running = Running(data, accounts)
        try:
            until(lambda: server.listeners == 2, "both streams")
            first = server.accounts["PKONE00000"].exchange.place("AAPL", "buy", 1, type="limit", limit_price="1")
            second = server.accounts["PKTWO00000"].exchange.place("AAPL", "buy", 1, type="limit", limit_price="1")
            until(lambda: ours(data)[0] == {first.id, second.id}, "both orders")
            assert first.id in (data / "team/house/events.jsonl").read_text()
            until(lambda: all(running.row(name).reconciles > 1 for name in ("one", "two")), "both reconciled")
            assert [0, 0] == [running.row(name).mute for name in ("one", "two")]
            mute = next(one for one in server.stream.sessions if one.account is server.accounts["PKTWO00000"])
            mute.mute = True
            server.accounts["PKTWO00000"].exchange.place("AAPL", "buy", 1, type="limit", limit_price="2")
            until(lambda: running.row("two").connections == 2, "connected anew")
            assert [0, 1] == [running.row(name).mute for name in ("one", "two")]
        finally:
            running.end()


def test_a_broker_that_fails_is_told_and_asked_again(data: Path, start: Start, monkeypatch: Any) -> None:
    """Broker errors leave every file unchanged and raise staleness."""
    monkeypatch.setattr(reconcile_loop, "RETRY_SECONDS_MIN", 0.2)
    with AlpacaServer(10, plain=True) as server:
        running = start(server, reconcile_seconds=10)
        before = files(data)
        server.fail_next("GET /v2/orders", "null_body")
        server.disconnect()
        until(lambda: running.row().reconcile_failures == 1, "a failure")
        assert before == files(data)
        until(lambda: running.row().reconciles >= 2, "asked again")
        assert running.row().reconcile_reason is None


def test_what_cannot_be_remembered_ends_no_reconcile(data: Path, start: Start, monkeypatch: Any) -> None:
    """Whatever goes wrong while reconciling is told and tried again; the thread goes on."""
    monkeypatch.setattr(reconcile_loop, "RETRY_SECONDS_MIN", 0.2)
    (data / ".compactor" / "resend.json").mkdir(parents=True)
    with AlpacaServer(10, plain=True) as server:
        running = Running(data, [account_of(server)])
        try:
            until(lambda: running.row().reconcile_failures >= 2, "failures")
            (data / ".compactor" / "resend.json").rmdir()
            until(lambda: running.row().reconciles, "a reconcile")
        finally:
            running.end()


def test_one_process_has_the_stream_of_an_account(data: Path, start: Start) -> None:
    """Never two connections: a second process is refused, and names the first."""
    with AlpacaServer(11) as server:
        start(server)
        with pytest.raises(StreamInUse, match=str(os.getpid())):
            Running(data, [account_of(server)])


# Refusals.


def test_keys_that_never_worked_are_tried_for_two_minutes_and_end_everything(data: Path, monkeypatch: Any) -> None:
    """Issue 16, 1: at boot a refusal is retried for at least two minutes; then it ends the program."""
    assert 120 == account_link.START_SECONDS
    monkeypatch.setattr("compactor.broker.alpaca.stream.BACKOFF_SECONDS", (0.05, 0.2))
    with AlpacaServer(12) as server:
        server.account.secret = "changed"
        wrong = Account("default", find_credentials(server.environment))
        running = Running(data, [wrong])
        until(lambda: running.row().key_refusals >= 3, "refused three times")
        assert not running.stop.is_set()
        (reason,) = [one.reason for one in check_accounts(running.health, time.time()) if one.name == "keys default"]
        assert "unauthorized" in str(reason), "what the broker said"
        monkeypatch.setattr(account_link, "START_SECONDS", 0.1)
        assert running.stop.wait(10)
        running.links.finish()
        assert isinstance(running.links.failure, BadCredentials)


@pytest.mark.parametrize("kind", ["unauthorized", "forbidden", "page"])
def test_keys_that_worked_and_are_refused_for_a_while_end_nothing(data: Path, start: Start, kind: str) -> None:
    """Issue 16, 1: keys in use, refused for seconds or minutes, by the broker or a gateway; then all is healed."""
    with AlpacaServer(12, plain=True) as server:
        running = start(server)
        connections = running.row().connections
        server.refuse(kind)
        order = server.place("AAPL", "buy", 1, client_order_id="alice:1", type="limit", limit_price="1")
        until(lambda: running.row().reconcile_failures, "a reconcile that was refused", 30)
        assert (kind != "page") == bool(running.row().keys_refused_since)
        server.accept()
        until(lambda: running.row().connections > connections and order.id in ours(data)[0], "healed", 30)
        assert (False, None) == (running.stop.is_set(), running.row().keys_refused_since)


def test_keys_that_worked_are_tried_for_a_quarter_of_an_hour(data: Path, start: Start, monkeypatch: Any) -> None:
    """Issue 16, 1: keys that have worked before are retried for at least 15 minutes; then the program ends."""
    assert 900 == account_link.WORKED_SECONDS
    with AlpacaServer(12) as server:
        running = start(server)
        server.refuse()
        until(lambda: running.row().key_refusals >= 4, "refused")
        assert not running.stop.is_set()
        monkeypatch.setattr(account_link, "WORKED_SECONDS", 0.1)
        assert running.stop.wait(10)
        assert isinstance(running.links.failure, BadCredentials)


def test_the_refusal_of_one_account_never_ends_the_others(data: Path, start: Start, monkeypatch: Any) -> None:
    """Issue 16, 1: with several accounts, the refused one is named and tried again, and the others go on."""
    monkeypatch.setattr(account_link, "START_SECONDS", 0.1)
    monkeypatch.setattr(reconcile_loop, "RETRY_SECONDS_MIN", 0.1)
    keys = [("PKONE00000", "secret-one"), ("PKTWO00000", "secret-two")]
    with AlpacaServer(9, keys=keys, plain=True) as server:
        accounts = [account_of(server, 0, name="one"), account_of(server, 1, name="two")]
        server.accounts["PKTWO00000"].secret = "changed"
        running = Running(data, accounts)
        try:
            until(lambda: running.row("two").key_refusals >= 4 and running.row("one").reconciles >= 2, "both went on")
            order = server.accounts["PKONE00000"].exchange.place("AAPL", "buy", 1, type="limit", limit_price="1")
            until(lambda: order.id in ours(data)[0], "the order")
            assert not running.stop.is_set()
            assert (None, True) == (running.row("one").keys_reason, running.row("one").connected)
            assert running.row("one").reconcile_reason is None
            server.accounts["PKTWO00000"].secret = "secret-two"
            until(lambda: running.row("two").connected and running.row("two").reconciles, "the keys work again")
            assert running.row("two").keys_reason is None
        finally:
            running.end()


def test_a_ledger_that_is_broken_is_no_failure_of_an_account(data: Path, start: Start) -> None:
    """Issue 13, 9: one team's broken ledger is named, and the reconcile of the account counts for the others."""
    with AlpacaServer(15, plain=True) as server:
        order = server.place("AAPL", "buy", 1, client_order_id="alice:1", type="limit", limit_price="1")
        (data / "team" / "broken" / "events.jsonl").mkdir(parents=True)
        running = Running(data, [account_of(server)])
        try:
            until(lambda: running.row().reconciles and "broken" in running.health.unreconciled, "reconciled")
            assert (0, None) == (running.row().reconcile_failures, running.row().reconcile_reason)
            assert not check_ready(running.health).ok
            (data / "team" / "broken" / "events.jsonl").rmdir()
            until(lambda: not running.health.unreconciled and order.id in ours(data)[0], "adopted")
        finally:
            running.end()


# Staleness.


def stale(**row: Any) -> list[str | None]:
    health, now = Health(), 100_000.0
    health.update_account("default", **{"started_at": now, "stream_since": now, **row})
    return [one.reason for one in check_accounts(health, now)][1:]


def test_a_link_is_stale_when_it_has_been_down_or_not_reconciled_for_long() -> None:
    """Staleness in /readyz: a stream that is down for a minute, three reconciles overdue, lines that wait."""
    assert [None, None] == stale()
    assert [None, None] == stale(connected=True, stream_since=0.0, last_reconcile_at=99_200.0)
    down, overdue = stale(stream_since=99_900.0, stream_reason="HTTP 429", last_reconcile_at=99_000.0)
    assert "HTTP 429" in str(down)
    assert "none has gone well since" in str(overdue)
    assert "none has gone well yet" in str(stale(started_at=0.0)[1])
    assert "3 lines" in str(stale(connected=True, waiting_lines=3)[0])


def test_accounts_have_metrics_and_no_label_is_an_order() -> None:
    """Stream connected, last message, reconnects, last success, failures, budget use."""
    health = Health()
    health.update_account("main", connected=True, connections=3, last_message_at=5.0, last_reconcile_at=6.0)
    health.update_account("idle", requests_used=7, requests_per_minute=150)
    text = generate_latest(Metrics(health).registry).decode()
    for line in (
        'compactor_stream_connected{account="main"} 1.0', 'compactor_stream_reconnects_total{account="main"} 2.0',
        'compactor_stream_last_message_timestamp_seconds{account="main"} 5.0',
        'compactor_reconcile_last_success_timestamp_seconds{account="main"} 6.0',
        'compactor_requests_used{account="idle"} 7.0', 'compactor_reconcile_failures_total{account="idle"} 0.0',
    ):  # fmt: skip
        assert line in text
    assert 'last_message_timestamp_seconds{account="idle"}' not in text


# As users run it.


def checks(url: str) -> set[str]:
    """What `/readyz` finds well, once it is ready."""
    try:
        found = json.loads(urllib.request.urlopen(url).read())
    except urllib.error.HTTPError:
        return set()
    return {check["name"] for check in found["checks"] if check["ok"]}


class Program:
    """`compactor run` or `stream` as a process."""

    def __init__(self, data: Path, *arguments: str, environ: dict[str, str], code: str = "") -> None:
        self.said = data.parent / "said"
        program = ["-c", code] if code else ["-m", "compactor"]
        with self.said.open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, *program, *arguments], stderr=said, env={**clean(), **environ}
            )

    def lines(self, event: str) -> list[dict[str, Any]]:
        whole = self.said.read_bytes().rpartition(b"\n")[0].splitlines()
        return [row for text in whole if text.startswith(b"{") and (row := json.loads(text))["event"] == event]


def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("ALPACA_", "APCA_"))}


@pytest.fixture
def program(data: Path) -> Iterator[Callable[..., Program]]:
    running: list[Program] = []

    def begin(*arguments: str, **options: Any) -> Program:
        running.append(Program(data, *arguments, **options))
        return running[-1]

    yield begin
    for one in running:
        one.process.kill()
        one.process.wait()


def test_run_streams_watches_and_ends_within_a_second(data: Path, program: Callable[..., Program]) -> None:
    """One process with the watcher, the stream and reconciliation; SIGTERM ends it within about a second."""
    with AlpacaServer(1) as server:
        one = program("run", str(data), "--http", "127.0.0.1:0", environ=server.environment)
        until(lambda: server.listeners and one.lines("reconcile_finished"), "running", 30)
        order = server.place("AAPL", "buy", 10, client_order_id="alice:1", type="limit", limit_price="181.50")
        server.fill(order.id, 10, "181.36")
        trades = data / "team/alice/trades.jsonl"
        until(lambda: trades.exists() and b"181.36" in trades.read_bytes(), "the trade")
        address = one.lines("http_started")[0]["address"]
        # While a new ledger catches up the daemon is not ready.
        until(lambda: {"stream default", "reconcile default"} <= checks(f"{address}/readyz"), "ready")
        status = subprocess.run(
            [sys.executable, "-m", "compactor", "status", str(data)], capture_output=True, text=True, check=True
        )
        assert "account default: stream connected since" in status.stderr
        started = time.monotonic()
        one.process.send_signal(signal.SIGTERM)
        assert 0 == one.process.wait(10)
        assert time.monotonic() - started < 3.0
        assert server.secret not in one.said.read_text()


def test_run_ends_with_4_when_the_keys_are_refused(data: Path, program: Callable[..., Program]) -> None:
    """Bad credentials end the program with a clear message and exit 4, after two minutes, or here a second."""
    with AlpacaServer(1) as server:
        environ = {**server.environment, "APCA_API_SECRET_KEY": "a-wrong-secret"}
        hasty = (
            "import compactor.daemon.account_link as r; r.START_SECONDS = 1\nfrom compactor.ui.cli import app; app()"
        )
        one = program("run", str(data), environ=environ, code=hasty)
        assert 4 == one.process.wait(30)
        said = one.said.read_text()
        assert "refused the keys in APCA_API_KEY_ID and APCA_API_SECRET_KEY" in said
        assert len(one.lines("credentials_refused")) >= 1
        assert "a-wrong-secret" not in said
        assert "Traceback" not in said
    none = program("stream", str(data), environ={})
    assert 4 == none.process.wait(30)
    assert "the environment has no keys" in none.said.read_text()


def test_a_broker_that_hangs_holds_up_no_end(data: Path, program: Callable[..., Program]) -> None:
    """SIGTERM ends it within about a second, also while a request waits for its answer."""
    with AlpacaServer(1) as server:
        server.fail_next("GET /v2/account", "hang", 9)
        one = program("run", str(data), environ=server.environment)
        until(lambda: any("/v2/account" in asked for asked in server.requests), "asked", 30)
        started = time.monotonic()
        one.process.send_signal(signal.SIGTERM)
        assert 0 == one.process.wait(10)
        assert time.monotonic() - started < 3.0


def test_two_accounts_need_two_keys(data: Path, program: Callable[..., Program]) -> None:
    """Never two connections for one account, also where two names are given to it."""
    (data / "compactor.toml").write_text("[accounts.one]\n[accounts.two]\n")
    one = program("run", str(data), environ={"ALPACA_API_KEY": "PKSAME", "ALPACA_SECRET_KEY": "secret"})
    assert 2 == one.process.wait(30)
    assert "have the same key" in one.said.read_text()


def test_stream_needs_no_watcher(data: Path, program: Callable[..., Program]) -> None:
    """`compactor stream` by itself writes what comes; the derived files are somebody else's business."""
    with AlpacaServer(2) as server:
        one = program("stream", str(data), environ=server.environment)
        until(lambda: server.listeners and one.lines("reconcile_finished"), "running", 30)
        order = server.place("AAPL", "buy", 1, client_order_id="alice:1", type="limit", limit_price="1")
        log = data / "team/alice/events.jsonl"
        until(lambda: log.exists() and order.id in log.read_text(), "the order in the log")
        one.process.send_signal(signal.SIGTERM)
        assert 0 == one.process.wait(10)
        assert {order.id} == ours(data)[0]
