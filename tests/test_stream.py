"""The stream: the real alpaca-py against the local Alpaca, and what becomes of each frame in the logs."""

from __future__ import annotations

import asyncio
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSMsgType, web

from compactor import Ledger
from compactor.books.order_index import OrderIndex
from compactor.broker.adapters import find_credentials
from compactor.broker.alpaca.stream import TradeStream, _draw_pause, stream_url
from compactor.broker.alpaca.translate import translate_message
from compactor.broker.credentials import BadCredentials
from compactor.broker.port import Message
from compactor.sync.stream_writer import StreamWriter
from tests.alpaca_server import AlpacaServer

PAGE = b"<html>\n<body>502 Bad Gateway</body>\n</html>"
QUICK = (0.05, 0.2)


def until(condition: Callable[[], object], what: str, seconds: float = 15.0) -> None:
    """Wait for what has to come; the deadline only ends a test that has failed."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.01)


def end_first(server: AlpacaServer, end: Callable[[], object]) -> None:
    """Let whoever is connected to a server end before it is closed, so that nobody connects while it closes."""
    close = server.close

    def close_afterwards() -> None:
        end()
        close()

    server.close = close_afterwards  # type: ignore[method-assign]


class Heard:
    """A listener that remembers; `on_frames` may fail or be slow."""

    def __init__(self, on_frames: Callable[[Sequence[Message]], object] = len) -> None:
        self.connections = 0
        self.reasons: list[str] = []
        self.refusals: list[BadCredentials] = []
        self.batches: list[int] = []
        self.frames: list[Message] = []
        self._on_frames = on_frames

    def connected(self) -> None:
        self.connections += 1

    def disconnected(self, reason: str, pause_seconds: float) -> None:
        self.reasons.append(reason)

    def refused(self, error: BadCredentials) -> None:
        self.refusals.append(error)

    def received(self, frames: Sequence[Message]) -> None:
        self.batches.append(len(frames))
        self.frames += frames
        self._on_frames(frames)


class Listening:
    """A stream that runs in a thread."""

    def __init__(self, server: Any, heard: Heard, **options: Any) -> None:
        environ = server.environment if isinstance(server, AlpacaServer) else server
        self.stream = TradeStream(find_credentials(environ), heard, **{"backoff_seconds": QUICK, **options})
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        if isinstance(server, AlpacaServer):
            end_first(server, self.end)

    def _run(self) -> None:
        self.stream.run()

    def end(self) -> float:
        """Stop it, and say how long that took."""
        started = time.monotonic()
        self.stream.stop()
        self.thread.join(10)
        assert not self.thread.is_alive()
        return time.monotonic() - started


Listen = Callable[..., Listening]


@pytest.fixture
def listen() -> Iterator[Listen]:
    started: list[Listening] = []

    def begin(server: Any, heard: Heard, **options: Any) -> Listening:
        started.append(Listening(server, heard, **options))
        return started[-1]

    yield begin
    for one in started:
        one.end()


@pytest.fixture
def server() -> Iterator[AlpacaServer]:
    with AlpacaServer(7, plain=True) as running:
        yield running


def make_writer(data: Path, **options: Any) -> StreamWriter:
    """A writer that knows of some teams before they have a ledger."""
    return StreamWriter(data, translate_message, index=OrderIndex(data, ["alice", "bob"]), **options)


def derived(data: Path, team: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Pending orders, trades and findings of a team, brought up to date."""
    with Ledger(data / "team" / team) as ledger:
        ledger.compact()
        return list(ledger.rows("pending_orders")), list(ledger.rows("trades")), list(ledger.rows("findings"))


def update(order_id: str = "o-1", event: str = "new", **order: Any) -> dict[str, Any]:
    """A trade update as a frame."""
    terms = {"symbol": "SPY", "side": "buy", "qty": "10", "type": "limit", "time_in_force": "day", "status": "new"}
    body = {"id": order_id, "client_order_id": "plain", "created_at": "2026-11-02T15:00:00Z", **terms, **order}
    data = {"event": event, "timestamp": "2026-11-02T15:00:00.5Z", "order": body, "event_id": f"{order_id}-{event}"}
    return {"stream": "trade_updates", "data": data}


def frame(*arguments: Any, **order: Any) -> bytes:
    return json.dumps(update(*arguments, **order)).encode()


# The connection.


@pytest.mark.parametrize("binary", [True, False])
def test_a_fill_that_is_streamed_becomes_a_trade(data: Path, listen: Listen, binary: bool) -> None:
    """Each message is translated and appended durably; binary frames (paper) decode as JSON."""
    writer = make_writer(data)
    with AlpacaServer(7, binary=binary) as server:
        heard = Heard(writer.store)
        listen(server, heard)
        until(lambda: server.listeners, "listening")
        order = server.place("AAPL", "buy", 10, client_order_id="alice:1", type="limit", limit_price="181.50")
        server.fill(order.id, 4, "181.36")
        until(lambda: len(heard.frames) >= 3, "the fill")
        until(lambda: (data / "team/alice/events.jsonl").exists(), "the log")
        time.sleep(0.05)
    pending, trades, _ = derived(data, "alice")
    assert [("4", "181.36")] == [(one["quantity"], one["execution_price"]) for one in trades]
    assert [("partially_filled", "4")] == [(one["status"], one["filled_qty"]) for one in pending]


def test_the_message_is_kept_verbatim(data: Path, server: AlpacaServer) -> None:
    """`raw` is the broker's message, verbatim: its numbers keep their digits."""
    text = frame().replace(b'"10"', b"10.00")
    make_writer(data).store([text])
    line = (data / "team/unassigned/events.jsonl").read_bytes()
    assert text in line
    assert json.loads(line)["quantity"] == "10.00"


def test_after_a_disconnect_it_connects_again_and_only_once(listen: Listen, server: AlpacaServer) -> None:
    """Backoff, and never two connections."""
    heard = Heard()
    listen(server, heard)
    for number in range(1, 5):
        until(lambda: server.listeners == 1 and heard.connections == number, f"connection {number}")  # noqa: B023
        assert 1 == server.account.connections
        server.disconnect()
    until(lambda: heard.connections == 5, "connection 5")
    assert 4 == len(heard.reasons)
    assert 5 == server.stream.opened, "no connection was refused because another one was still there"


def test_a_half_open_connection_is_noticed_by_its_pings(listen: Listen, server: AlpacaServer) -> None:
    """Half-open detection by pings, whose answer is waited for seconds instead of three minutes."""
    heard = Heard()
    listen(server, heard, ping_seconds=0.2)
    until(lambda: heard.connections, "connected")
    server.go_half_open()
    until(lambda: heard.connections == 2, "connected again", 5)
    assert "ping" in heard.reasons[0]


def test_while_another_connection_holds_the_place_it_goes_on_trying(listen: Listen, server: AlpacaServer) -> None:
    """A second connection is refused (429); that is no reason to give up, nor to try as fast as can be."""
    first, second = Heard(), Heard()
    holder = listen(server, first)
    until(lambda: first.connections, "connected")
    listen(server, second)
    until(lambda: len(second.reasons) >= 2, "tried again")
    holder.end()
    until(lambda: second.connections, "connected")
    assert all("429" in reason for reason in second.reasons)
    assert 0 == len(first.reasons)


def test_keys_that_are_refused_are_told_and_tried_again(listen: Listen, server: AlpacaServer) -> None:
    """Issue 16, 1: whoever listens decides when refused keys count as revoked; the message holds no key."""
    environ = {**server.environment, "APCA_API_SECRET_KEY": "a-wrong-secret"}
    heard = Heard()
    listen(environ, heard)
    until(lambda: len(heard.refusals) >= 3, "refused three times")
    assert "APCA_API_KEY_ID" in str(heard.refusals[0])
    assert "unauthorized" in str(heard.refusals[0]), "what the broker said"
    assert not any("a-wrong-secret" in reason for reason in heard.reasons)


def test_only_json_of_the_broker_refuses_keys(listen: Listen, server: AlpacaServer) -> None:
    """Issue 16, 1: a page of a gateway with HTTP 403 is an outage; 403 with Alpaca's JSON is about the keys."""
    heard = Heard()
    server.refuse("page")
    listen(server, heard)
    until(lambda: len(heard.reasons) >= 2, "refused")
    assert [] == heard.refusals
    assert "403" in heard.reasons[0]
    server.refuse("forbidden")
    until(lambda: heard.refusals, "refused by the broker")
    assert "forbidden" in str(heard.refusals[0])
    server.accept()
    until(lambda: heard.connections, "connected")


def test_a_redirect_is_not_followed(listen: Listen, server: AlpacaServer) -> None:
    """Issue 16, 6: the websocket never follows a redirect, because the keys would go to another host."""
    heard = Heard()
    with AlpacaServer(8) as other:
        server.stream.redirect = other.stream_url
        one = listen(server, heard)
        until(lambda: len(heard.reasons) >= 2, "tried again")
        assert "307" in heard.reasons[0]
        assert 0 == other.stream.opened
        one.end()


def test_what_comes_while_a_batch_is_written_is_the_next_one(listen: Listen, server: AlpacaServer) -> None:
    """Batched: one write and one sync for what has come."""

    def slow(frames: Sequence[Message]) -> None:
        time.sleep(0.2)

    heard = Heard(slow)
    listen(server, heard)
    until(lambda: server.listeners, "listening")
    for number in range(50):
        server.place("AAPL", "buy", 1, client_order_id=f"a:{number}")
    until(lambda: len(heard.frames) >= 50, "all frames")
    assert len(heard.batches) <= 10


def test_it_ends_at_once_and_hands_on_what_came(listen: Listen, server: AlpacaServer) -> None:
    """Stopped in a connection or in a pause, it ends in no time."""
    heard = Heard()
    one = listen(server, heard)
    until(lambda: server.listeners, "listening")
    server.send_frame(PAGE)
    until(lambda: heard.frames, "the frame")
    assert one.end() < 1.0
    waiting = listen({**server.environment, "APCA_API_BASE_URL": "http://127.0.0.1:9"}, heard, backoff_seconds=(60, 60))
    until(lambda: heard.reasons, "no connection")
    assert waiting.end() < 1.0


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (['{"stream":"authorization","data":null}'], "authorization"),
        (["<html></html>"], "authorization"),
        (['{"stream":"authorization","data":{"status":"authorized"}}', '{"stream":"listening","data":{"streams":[]}}'],
         "subscribed"),
    ],
)  # fmt: skip
def test_a_greeting_that_is_none_is_tried_again(listen: Listen, answers: list[str], said: str) -> None:
    """The `listening` answer is checked; odd answers to signing in are no bad credentials."""

    async def greet(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        left = list(answers)
        async for message in socket:
            if message.type == WSMsgType.TEXT and left:
                await socket.send_str(left.pop(0))
        return socket

    with serving(greet) as url:
        heard = Heard()
        environ = {"ALPACA_API_KEY": "PKTEST", "ALPACA_SECRET_KEY": "secret", "APCA_API_BASE_URL": url}
        one = listen(environ, heard)
        until(lambda: len(heard.reasons) >= 2, "tried again")
        assert [] == heard.refusals
        assert 0 == heard.connections
        assert said in heard.reasons[0]
        one.end()


class serving:
    """A server of one's own that greets in its own way; its address."""

    def __init__(self, handler: Callable[[web.Request], Any]) -> None:
        self._handler = handler
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        return asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(10)

    async def _open(self) -> str:
        app = web.Application()
        app.router.add_get("/stream", self._handler)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


def test_pauses_grow_and_never_agree() -> None:
    """Backoff with jitter, from half a second to 30."""
    random.seed(1)
    pauses = [_draw_pause(tries, (1.0, 30.0)) for tries in range(1, 40)]
    assert all(0.5 <= pause <= 30.0 for pause in pauses)
    assert all(15.0 <= pause for pause in pauses[5:])
    assert len(pauses) == len(set(pauses))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (None, None), ("http://127.0.0.1:8123", "ws://127.0.0.1:8123/stream"),
        ("https://paper-api.alpaca.markets/", "wss://paper-api.alpaca.markets/stream"),
    ],
)  # fmt: skip
def test_the_address_of_the_stream_follows_that_of_rest(url: str | None, expected: str | None) -> None:
    """One address leads to both."""
    assert expected == stream_url(url)


# What becomes of a frame.


@pytest.mark.parametrize(
    ("odd", "kind"),
    [
        (PAGE, "not_json"),
        (b'{"stream":"trade_updates","data":null}', "missing_field"),
        (b'{"stream":"trade_updates","data":{"event":"new","order":{"client_order_id":"alice:9"}}}', "missing_field"),
        (b"[1,2]", "bad_value"),
        (b"\xff\xfe", "not_utf8"),
        (b'{"event":"canceled","order_id":"o-1","ts":"2026-11-02T15:00:00Z"}', "missing_field"),
    ],
)
def test_what_is_no_update_becomes_a_finding_and_stops_nothing(data: Path, odd: bytes, kind: str) -> None:
    """A message that cannot be translated is appended as it came, so that the fold makes a finding of it."""
    done = make_writer(data, account_team="alice").store([odd, frame(client_order_id="alice:1")])
    assert (1, 1) == (done.events, done.unread)
    pending, _, findings = derived(data, "alice")
    assert ["o-1"] == [one["order_id"] for one in pending]
    assert [(kind, False)] == [(one["kind"], one["applied"]) for one in findings]


def test_an_update_with_a_bad_value_is_written_for_the_fold_to_name(data: Path) -> None:
    """A fill with a price that is none is no trade, and nothing is lost: its line stands in the findings."""
    bad = update("o-1", "fill", client_order_id="alice:1")
    bad["data"] |= {"price": "much", "qty": "1", "execution_id": "x"}
    done = make_writer(data).store([json.dumps(bad).encode(), frame(client_order_id="alice:1")])
    assert 2 == done.events
    pending, trades, findings = derived(data, "alice")
    assert (1, []) == (len(pending), trades)
    assert ["bad_value"] == [one["kind"] for one in findings]
    assert "much" in findings[0]["line"]


def test_no_message_is_so_odd_that_it_is_lost(data: Path) -> None:
    """Whatever a value is replaced by, a message becomes an event or a finding, and the others are not touched."""
    rng = random.Random(11)
    odd: tuple[Any, ...] = (
        None,
        "",
        [],
        {},
        -1,
        1.5,
        True,
        "x" * 50,
        [None],
        {"id": None},
        "2026-13-45T00:00:00Z",
        "1e999",
        "\x00",
    )
    frames = []
    for number in range(300):
        message = update(f"o-{number}", rng.choice(["new", "fill", "partial_fill", "canceled", "trade_bust"]))
        message["data"] |= {"price": "5", "qty": "1", "execution_id": "x", "legs": [{"order_id": "leg", "qty": "1"}]}
        where = rng.choice([message, message["data"], message["data"]["order"], message["data"]["legs"][0]])
        where[rng.choice(sorted(where))] = rng.choice(odd)
        frames += [json.dumps(message).encode(), frame(f"good-{number}", client_order_id="alice:1")]
    done = make_writer(data, account_team="house").store(frames)
    # What is said to be about another stream than trade updates is about the connection.
    elsewhere = [one for one in frames if b'"trade_updates"' not in one]
    assert done.events + done.unread >= 600 - len(elsewhere)
    assert {} == done.failed
    assert 300 == len(derived(data, "alice")[0])
    derived(data, "house")


def test_what_is_about_the_connection_is_not_written(data: Path) -> None:
    """`authorization` and `listening` tell of no order."""
    done = make_writer(data).store([b'{"stream":"listening","data":{"streams":["trade_updates"]}}'])
    assert (0, 0) == (done.events, done.unread)
    assert not (data / "team").exists()


def test_a_frame_that_comes_twice_is_one_trade(data: Path) -> None:
    """Duplicates drop by the format's rules."""
    fill = update("o-1", "fill", client_order_id="alice:1", status="filled", filled_qty="10")
    fill["data"] |= {"price": "5", "qty": "10", "execution_id": "x"}
    text = json.dumps(fill).encode()
    make_writer(data).store([text, text])
    assert 1 == len(derived(data, "alice")[1])


# Whose an order is.


def test_the_ledger_that_knows_an_order_keeps_it(data: Path, write_log: Any, placed: Any) -> None:
    """First the ledger that already knows the order, whatever it is called."""
    write_log("bob", placed("o-1"))
    make_writer(data).store([frame("o-1", "canceled", client_order_id="strat:1", status="canceled")])
    assert [] == derived(data, "bob")[0]
    assert not (data / "team/strat").exists()


def test_an_order_that_another_program_wrote_meanwhile_is_known(data: Path, write_log: Any, placed: Any) -> None:
    """The index follows the logs, whoever appends to them."""
    writer = make_writer(data)
    writer.store([frame("o-0")])
    write_log("bob", placed("o-1"))
    writer.store([frame("o-1", "canceled", status="canceled")])
    assert [] == derived(data, "bob")[0]


def test_names_then_patterns_then_the_account_tell_the_team(data: Path) -> None:
    """Then `client_order_id`, a configured pattern, a configured account, else `unassigned`."""
    import re

    patterns = [re.compile(r"(?P<team>[a-z]+)-[0-9]+")]
    make_writer(data, patterns=patterns, account_team="house").store(
        [frame("o-1", client_order_id="alice:1"), frame("o-2", client_order_id="bob-7"), frame("o-3")]
    )
    make_writer(data).store([frame("o-4")])
    found = {
        team: [one["order_id"] for one in derived(data, team)[0]] for team in ("alice", "bob", "house", "unassigned")
    }
    assert {"alice": ["o-1"], "bob": ["o-2"], "house": ["o-3"], "unassigned": ["o-4"]} == found


def test_what_an_order_was_replaced_by_stays_with_its_team(data: Path) -> None:
    """The order it replaces tells whose it is, by either message."""
    writer = make_writer(data)
    writer.store([frame("o-1", client_order_id="alice:1")])
    writer.store([frame("o-2", replaces="o-1"), frame("o-1", "replaced", replaced_by="o-3", status="replaced")])
    writer.store([frame("o-3")])
    assert {"o-2", "o-3"} == {one["order_id"] for one in derived(data, "alice")[0]}


def test_an_order_that_was_assigned_goes_on_in_its_new_ledger(data: Path) -> None:
    """Rule 4.12: from `assigned` on the order is the other team's."""
    from compactor.books.assign import assign

    writer = make_writer(data)
    writer.store([frame("o-1")])
    assign(data, "o-1", "carol")
    writer.store([frame("o-1", "canceled", status="canceled")])
    assert [] == derived(data, "carol")[0]
    assert b'"canceled"' in (data / "team/carol/events.jsonl").read_bytes()
    assert b'"canceled"' not in (data / "team/unassigned/events.jsonl").read_bytes()


def test_orders_that_left_the_memory_are_found_in_the_logs(data: Path, monkeypatch: Any) -> None:
    """The index is bounded: what it forgets, the logs still know."""
    monkeypatch.setattr("compactor.books.order_index.KNOWN_MAX", 10)
    writer = make_writer(data)
    for number in range(30):
        writer.store([frame(f"o-{number}", client_order_id="alice:1")])
    writer.store([frame("o-0", "canceled", status="canceled")])
    assert 29 == len(derived(data, "alice")[0])
    assert not (data / "team/unassigned").exists()


def test_a_directory_that_is_a_ledger_gets_everything(data: Path) -> None:
    """Rule 1.2: a person with one account needs no teams."""
    (data / "events.jsonl").write_bytes(b"")
    make_writer(data).store([frame("o-1", client_order_id="alice:1"), PAGE])
    with Ledger(data) as ledger:
        ledger.compact()
        assert [("o-1", "default")] == [(one["order_id"], one["team_id"]) for one in ledger.rows("pending_orders")]
        assert 1 == len(list(ledger.rows("findings")))


# What the disk refuses.


def test_what_cannot_be_written_is_kept_and_stops_no_other_ledger(data: Path) -> None:
    """A ledger that refuses lines is tried again; the others go on."""
    (data / "team").mkdir()
    (data / "team" / "alice").write_text("a file where the ledger's directory should be")
    writer = make_writer(data)
    done = writer.store([frame("o-1", client_order_id="alice:1"), frame("o-2", client_order_id="bob:1")])
    assert ["alice"] == list(done.failed)
    assert writer.is_behind
    assert ["o-2"] == [one["order_id"] for one in derived(data, "bob")[0]]
    (data / "team" / "alice").unlink()
    assert {} == writer.retry().failed
    assert not writer.is_behind
    assert ["o-1"] == [one["order_id"] for one in derived(data, "alice")[0]]


def test_a_log_that_was_moved_away_is_not_written_to(data: Path) -> None:
    """A descriptor is used only while its path still leads to the same file."""
    writer = make_writer(data)
    writer.store([frame("o-1", client_order_id="alice:1")])
    (data / "team/alice").rename(data / "moved")
    writer.store([frame("o-2", client_order_id="alice:2")])
    assert b"o-2" not in (data / "moved/events.jsonl").read_bytes()
    assert b"o-2" in (data / "team/alice/events.jsonl").read_bytes()


def test_more_logs_than_stay_open_are_all_written(data: Path, monkeypatch: Any) -> None:
    """How many logs stay open bounds descriptors, and not how many ledgers a batch may have."""
    monkeypatch.setattr("compactor.ledger.log_writer.OPEN_MAX", 3)
    writer = StreamWriter(data, translate_message, index=OrderIndex(data, [f"team{team}" for team in range(7)]))
    for turn in range(2):
        writer.store([frame(f"o-{turn}-{team}", client_order_id=f"team{team}:{turn}") for team in range(7)])
    assert [2] * 7 == [len(derived(data, f"team{team}")[0]) for team in range(7)]


# Whose an order is, where the logs do not agree.


def test_a_line_of_another_team_in_a_log_books_nothing_twice(data: Path, write_log: Any, placed: Any) -> None:
    """1.1: bravo's line lies in alpha's log by mistake; the next fill is bravo's, and alpha has no trade."""
    write_log("alpha", {**placed("o-1"), "team_id": "bravo"})
    write_log("bravo", placed("o-1"))
    fill = update("o-1", "fill", status="filled", filled_qty="10", filled_avg_price="5")
    fill["data"] |= {"execution_id": "x-1", "price": "5", "qty": "10"}
    done = make_writer(data).store([json.dumps(fill).encode()])
    assert {} == done.contested
    assert (["wrong_team"], []) == ([one["kind"] for one in derived(data, "alpha")[2]], derived(data, "alpha")[1])
    assert ["10"] == [one["quantity"] for one in derived(data, "bravo")[1]]


@pytest.mark.parametrize("name", ["plain", "bravo:1"])
def test_a_team_gets_no_order_by_naming_it(data: Path, write_log: Any, placed: Any, name: str) -> None:
    """4.12: alpha writes the id of bravo's order into its own log; it gets nothing, and the claim is reported."""
    write_log("bravo", placed("o-1", recorded_at="2026-01-05T15:00:00Z"))
    write_log("alpha", placed("o-1", recorded_at="2026-01-05T15:00:01Z"))
    done = make_writer(data).store([frame("o-1", "canceled", client_order_id=name, status="canceled")])
    assert ["o-1"] == list(done.contested)
    assert "bravo's" in done.contested["o-1"]
    assert [] == derived(data, "bravo")[0]
    assert ["o-1"] == [one["order_id"] for one in derived(data, "alpha")[0]]


def test_a_team_gets_no_order_by_naming_it_first(data: Path, write_log: Any, placed: Any) -> None:
    """The order is called bravo's by the broker, and bravo is a team: alpha's earlier line counts for nothing."""
    write_log("bravo", placed("o-0"))
    write_log("alpha", placed("o-1"))
    done = make_writer(data).store([frame("o-1", client_order_id="bravo:1")])
    assert {"o-0", "o-1"} == {one["order_id"] for one in derived(data, "bravo")[0]}
    assert ["o-1"] == list(done.contested)


# Orders that belong together, in either order of arrival.


def test_a_leg_that_was_told_first_moves_to_its_parent_s_team(data: Path, write_log: Any, placed: Any) -> None:
    """Issue 12, 5: what was unassigned is known by an order that comes later, and the next reconcile moves it."""
    writer = make_writer(data)
    assert not writer.store([frame("o-leg", client_order_id="random")]).kin_left
    assert ["o-leg"] == [one["order_id"] for one in derived(data, "unassigned")[0]]
    nested = {
        "id": "o-leg",
        "client_order_id": "random",
        "status": "held",
        "symbol": "SPY",
        "side": "sell",
        "qty": "10",
    }
    nested |= {"created_at": "2026-11-02T15:00:00Z", "time_in_force": "gtc", "type": "stop"}
    assert writer.store([frame("o-1", client_order_id="alice:1", legs=[nested])]).kin_left


def test_legs_that_only_an_execution_names_belong_to_its_team(data: Path) -> None:
    """Their own messages name neither their parent nor a team; an execution without its leg's id costs nothing."""
    fill = update("o-1", "fill", client_order_id="alice:1", status="filled", symbol="", order_class="mleg")
    leg = {"symbol": "SPY", "side": "buy", "price": "5", "qty": "1", "execution_id": "x"}
    fill["data"]["legs"] = [{**leg, "order_id": "l-1"}, leg]
    done = make_writer(data).store([json.dumps(fill).encode(), frame("l-1", "canceled", status="canceled")])
    assert (2, 0) == (done.events, done.unread)
    assert ["alice"] == [one.name for one in (data / "team").iterdir()]


def test_orders_replaced_in_either_order_stay_together(data: Path) -> None:
    """Issue 12, 5: the replaced order names its successor, which names nobody."""
    writer = make_writer(data)
    writer.store([frame("o-2")])
    done = writer.store([frame("o-1", "replaced", client_order_id="alice:1", replaced_by="o-2", status="replaced")])
    assert done.kin_left
    later = make_writer(data)
    later.store([frame("o-3", replaces="o-1"), frame("o-1", "replaced", replaced_by="o-4", status="replaced")])
    later.store([frame("o-4")])
    # Alice's ledger shows o-2 as the successor (3.9) until the next reconcile moves it here.
    assert {"o-2", "o-3", "o-4"} == {one["order_id"] for one in derived(data, "alice")[0]}


def test_a_log_s_word_about_another_order_comes_after_that_order_s_name(
    data: Path, write_log: Any, placed: Any
) -> None:
    """A team gets no order by saying in its own log that one of its orders was replaced by it."""
    write_log("alice", placed("o-1", event="replaced", replaced_by="o-2"))
    make_writer(data).store([frame("o-2", client_order_id="bob:1")])
    assert ["o-2"] == [one["order_id"] for one in derived(data, "bob")[0]]


def test_what_is_stored_is_on_disk_with_its_name(data: Path, write_log: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """ "On disk before anything else": each log is synced before `store` returns, and a new one's name as well."""
    from compactor.ledger import log_writer

    synced: list[str] = []

    def fdatasync(descriptor: int, real: Any = os.fdatasync) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    def sync_names(path: Path, real: Any = log_writer.sync_names) -> None:
        synced.append(str(path))
        real(path)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    monkeypatch.setattr("compactor.ledger.log_writer.sync_names", sync_names)
    writer = make_writer(data)
    alice, bob = (str(data / "team" / team) for team in ("alice", "bob"))
    writer.store([frame("o-1", client_order_id="alice:1"), frame("o-2", client_order_id="bob:1")])
    assert {alice, bob, f"{alice}/events.jsonl", f"{bob}/events.jsonl"} == set(synced)
    synced.clear()
    writer.store([frame("o-3", client_order_id="alice:2")])
    assert [f"{alice}/events.jsonl"] == synced
