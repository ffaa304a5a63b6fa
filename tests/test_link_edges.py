"""The edges of the link to the broker: intents of other machines, resends line by line, and logs that refuse lines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from compactor import Ledger, broker, discover
from compactor.books.order_index import OrderIndex
from compactor.broker import intents, placing
from compactor.broker.adapters import find_credentials, open_broker
from compactor.broker.alpaca import resend as resend_module
from compactor.broker.alpaca.resend import EventStreams, NoResend, WindowResult, make_ulid, step_back_ulid
from compactor.broker.alpaca.translate import translate_message
from compactor.broker.budget import Budget
from compactor.broker.credentials import BadCredentials
from compactor.broker.intents import is_running, name_process, resolve_intents
from compactor.broker.placing import Refused, Trader
from compactor.core.instants import rfc3339
from compactor.ledger.errors import BadTeam
from compactor.sync import stream_writer
from compactor.sync.gaps import Gaps
from compactor.sync.stream_writer import StreamWriter
from tests.scripted_alpaca import ScriptedAlpaca, ago, error, make_order, page

LIMIT = {"symbol": "AAPL", "qty": "10", "side": "buy", "type": "limit", "limit_price": "100", "time_in_force": "gtc"}
NOW = 1_772_461_800_123_456_789


@pytest.fixture
def server() -> Iterator[ScriptedAlpaca]:
    with ScriptedAlpaca() as one:
        yield one


def test_names_of_the_package_are_those_of_placing() -> None:
    """Imported when they are used, since they take long; another name is none."""
    assert broker.submit is placing.submit
    with pytest.raises(AttributeError, match="has no attribute 'withdraw'"):
        _ = broker.withdraw


# Intents.


def announce(data: Path, writer: str | None, ts: str) -> None:
    event = {"event": "submitting", "order_id": "alpha:1", "client_order_id": "alpha:1", "ts": ts, "source": "app"}
    with Ledger(data / "team/alpha", team_id="alpha") as ledger:
        ledger.append([event | ({"writer": writer} if writer is not None else {})])


def resolve(server: ScriptedAlpaca, data: Path, now: float, **more: Any) -> list[str]:
    account = open_broker(find_credentials(server.environment), budget=Budget(1000), tries=1)
    return [one.outcome for one in resolve_intents(discover(data), [account], now=now, **more)]


@pytest.mark.parametrize("writer", ["elsewhere.pid:[1]/17/99", "no-machine", "", None, "/17/99"])
def test_an_intent_of_another_machine_is_left_alone_for_ten_minutes(
    server: ScriptedAlpaca, data: Path, writer: str | None
) -> None:
    """3.13: nobody can say whether its program runs; after that it was never placed."""
    announce(data, writer, rfc3339(NOW))
    assert [] == resolve(server, data, NOW / 1e9 + 599)
    assert ["never_placed"] == resolve(server, data, NOW / 1e9 + 601)


@pytest.mark.parametrize(("age", "outcome"), [(59, []), (61, ["never_placed"])])
def test_an_intent_of_a_program_that_is_gone_waits_a_minute(
    server: ScriptedAlpaca, data: Path, age: int, outcome: list[str]
) -> None:
    """3.13: its request may still be on its way."""
    machine = name_process().partition("/")[0]
    announce(data, f"{machine}/{os.getpid()}/1", rfc3339(NOW))
    assert outcome == resolve(server, data, NOW / 1e9 + age)


def test_an_intent_of_a_program_that_runs_is_never_called_never_placed(server: ScriptedAlpaca, data: Path) -> None:
    announce(data, name_process(), rfc3339(NOW))
    assert [] == resolve(server, data, NOW / 1e9 + 100_000)


def test_an_intent_that_the_broker_has_is_adopted_at_once(server: ScriptedAlpaca, data: Path) -> None:
    """Whoever asked: another machine's order is there."""
    announce(data, "elsewhere/1/2", rfc3339(NOW))
    server.orders["o"] = make_order("o", name="alpha:1", seconds_ago=5)
    assert ["adopted"] == resolve(server, data, NOW / 1e9 + 5)
    with Ledger(data / "team/alpha") as ledger:
        ledger.compact()
        assert ["o"] == [row["order_id"] for row in ledger.rows("pending_orders")]


def test_which_process_runs() -> None:
    machine, pid, started = name_process().split("/")
    assert is_running(f"{machine}/{pid}/{started}") is True
    assert is_running(f"{machine}/{pid}/{int(started) - 1}") is False
    assert is_running(f"{machine}/999999999/{started}") is False
    assert is_running(intents._OVER) is False
    assert [None] * 4 == [is_running(one) for one in (None, "", f"{machine}/x/1", f"other/{pid}/{started}")]


# Placing.


def test_a_replacement_and_its_predecessor_are_both_in_the_log(server: ScriptedAlpaca, data: Path) -> None:
    """Whatever the new order is called, it is the team's that had the old one."""
    trader = Trader(data, find_credentials(server.environment), budget=Budget(1000))
    server.answers["POST", "/v2/orders"] = lambda request: server.orders.setdefault(
        "a", make_order("a", name=server.bodies[-1]["client_order_id"], seconds_ago=1)
    )

    def replace(request: web.Request) -> Any:
        server.orders["a"].update(status="replaced", replaced_by="b")
        server.orders["b"] = make_order("b", name="random", seconds_ago=0, replaces="a", **server.bodies[-1])
        return server.orders["b"]

    server.answers["PATCH", "/v2/orders/*"] = replace
    trader.submit("alpha", LIMIT)
    assert "b" == trader.replace("a", limit_price=99.5)["id"]
    assert ["limit_price", "client_order_id"] == list(server.bodies[-1])
    assert "99.5" == server.bodies[-1]["limit_price"]
    with Ledger(data / "team/alpha") as ledger:
        ledger.compact()
        found = [(row["order_id"], row["limit_price"], row["replaces"]) for row in ledger.rows("pending_orders")]
    assert [("b", "99.5", "a")] == found


def test_a_single_tag_is_no_list(server: ScriptedAlpaca, data: Path) -> None:
    trader = Trader(data, find_credentials(server.environment), budget=Budget(1000))
    with pytest.raises(TypeError, match="expected a list of tags, found the text 'mean-reversion'"):
        trader.submit("alpha", LIMIT, tags="mean-reversion")
    assert [] == server.seen


def test_where_nothing_more_can_be_found_out_the_refusal_stands(server: ScriptedAlpaca, data: Path) -> None:
    """The order cannot be read, cannot be understood, or is open: then the broker's own no is all there is."""
    trader = Trader(data, find_credentials(server.environment), budget=Budget(1000), sleep=lambda seconds: None)
    server.answers["DELETE", "/v2/orders/*"] = error(422, 42210000, "not cancelable")
    for answer in (page(502), lambda request: {"id": "o"}, lambda request: make_order("o")):
        server.answers["GET", "/v2/orders/*"] = answer
        with pytest.raises(Refused, match="code 42210000: not cancelable"):
            trader.cancel("o")


def test_a_team_whose_directory_is_none_is_refused_before_the_broker_is_asked(
    server: ScriptedAlpaca, data: Path
) -> None:
    (data / "team").mkdir()
    (data / "team/alpha").symlink_to(data)
    with pytest.raises(BadTeam):
        Trader(data, find_credentials(server.environment), budget=Budget(1000)).submit("alpha", LIMIT)
    assert [] == server.seen


# The stream's writer.


def frame(order_id: str, name: str = "alpha:1") -> bytes:
    order = make_order(order_id, name=name)
    return json.dumps(
        {"stream": "trade_updates", "data": {"event": "new", "timestamp": ago(1), "order": order}}
    ).encode()


def make_writer(data: Path, translate: Any = translate_message, **more: Any) -> StreamWriter:
    return StreamWriter(data, translate, index=OrderIndex(data, ["alpha", "beta"]), **more)


def test_a_team_that_cannot_have_a_ledger_stops_no_other(data: Path) -> None:
    """Its lines are refused, since they cannot be written later either; and it is said why."""
    (data / "team").mkdir()
    (data / "team/alpha").symlink_to(data)
    done = make_writer(data).store([frame("a"), frame("b", "beta:1"), frame("a2")])
    assert (1, 2, 0) == (done.events, done.refused, done.lost)
    assert ["alpha"] == list(done.failed)
    with Ledger(data / "team/beta") as ledger:
        ledger.compact()
        assert ["b"] == [row["order_id"] for row in ledger.rows("pending_orders")]


def test_a_bug_in_reading_a_message_costs_neither_it_nor_the_others(data: Path) -> None:
    """It is written as it came, for the account's team, else for nobody's."""

    def translate(message: Any) -> Any:
        if b"poison" in message:
            raise ZeroDivisionError
        return translate_message(message)

    for team in ("alpha", None):
        writer = make_writer(data, translate, account_team=team)
        done = writer.store([b"poison\nof two lines", frame("a")])
        assert (1, 1) == (done.events, done.unread)
        log = (data / "team" / (team or "unassigned") / "events.jsonl").read_text()
        assert "poison of two lines\n" in log


def test_a_full_disk_while_reading_is_told(data: Path) -> None:
    """It is no message's fault: the caller hears of it, and a reconcile follows."""

    def translate(message: Any) -> Any:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        make_writer(data, translate).store([b"x"])


def test_what_is_kept_for_a_disk_that_is_full_is_bounded(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond that the lines are lost, counted, and left to the reconcile; what fits is written later."""
    monkeypatch.setattr(stream_writer, "BACKLOG_BYTES_MAX", 3000)
    writer = make_writer(data)
    monkeypatch.setattr(writer._logs, "append", lambda batch: dict.fromkeys(batch, OSError(28, "full")))
    done = writer.store([frame("a")])
    assert (1, 0) == (done.waiting, done.lost)
    assert writer.is_behind
    done = writer.store([frame("b"), frame("c")])
    assert (0, 3) == (done.waiting, done.lost)
    assert not writer.is_behind


# A resend, line by line.


def read(server: ScriptedAlpaca, body: bytes, **more: Any) -> tuple[list[bytes], WindowResult]:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, content_type="text/event-stream")

    server.answers["GET", "/v2/events/trades"] = answer
    streams, result = EventStreams(find_credentials(server.environment), budget=Budget(1000)), WindowResult()
    found = list(streams.read("trades", rfc3339(NOW - 10**12), rfc3339(NOW), result, **more))
    return found, result


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b"", []),
        (b'data: {"a":1}\n\n', [b'{"a":1}']),
        (b'data:{"a":1}\r\n\r\ndata: 2\r\n\r\n', [b'{"a":1}', b"2"]),
        (b"data: 1\ndata: 2\n\n", [b"1\n2"]),
        (b"id: 7\nevent: x\nretry: 3\ndata:  1\n\n\n\n", [b" 1"]),
        (b": heartbeat\n\ndata: 1\n\ndata: torn", [b"1"]),
    ],
)
def test_server_sent_events_are_read(server: ScriptedAlpaca, body: bytes, events: list[bytes]) -> None:
    """As their specification says; one that has no end is not there."""
    found, result = read(server, body)
    assert (events, True) == (found, result.is_delivered)


@pytest.mark.parametrize(
    ("comment", "is_complaint"),
    [
        (b": heartbeat", False),
        (b": connected", False),
        (b": you are reading too slowly, dropped 10 messages", True),
        (b": reading too slowly", True),
        (b": dropped", True),
        (b": internal server error", True),
    ],
)
def test_a_comment_may_say_that_something_is_missing(
    server: ScriptedAlpaca, comment: bytes, is_complaint: bool
) -> None:
    found, result = read(server, comment + b"\n\ndata: 1\n\n: error of later\n\n" * is_complaint)
    assert (not is_complaint) == result.is_delivered == result.complete
    assert (comment[2:].decode() if is_complaint else "") == result.reason, "the first one counts"
    assert ([b"1"] if is_complaint else []) == found


def stream_of(status: int) -> Any:
    """An answer that calls itself a stream of events and is an error."""
    return lambda request: web.Response(status=status, text="data: 1\n\n", content_type="text/event-stream")


def entry(at_ns: int, **more: Any) -> bytes:
    return b"data: " + json.dumps({"at": rfc3339(at_ns), **more}).encode() + b"\n\n"


def test_a_resend_that_goes_on_with_what_is_current_is_left(server: ScriptedAlpaca) -> None:
    """Events may be sent five seconds late; one beyond that is the last that is read."""
    body = entry(NOW) + entry(NOW + 5 * 10**9) + entry(NOW + 5 * 10**9 + 1) + entry(NOW)
    found, result = read(server, body)
    assert (3, True) == (len(found), result.is_delivered)


def test_the_newest_id_is_a_ulid(server: ScriptedAlpaca) -> None:
    """Numbers of older interfaces are none, and a ULID beside one counts; odd entries have none."""
    older, newer = make_ulid(NOW), make_ulid(NOW + 10**9)
    body = entry(NOW, event_id=newer) + entry(NOW, event_id=17, event_ulid=older) + entry(NOW, event_id="zzz")
    body += b"data: \xff\n\ndata: []\n\n" + entry(NOW, event_id=newer.lower()) + entry(NOW, event_id="8" + newer[1:])
    _, result = read(server, body)
    assert newer == result.newest_id


def test_a_resend_is_asked_for_by_time_or_by_id(server: ScriptedAlpaca) -> None:
    read(server, b"")
    read(server, b"", since_id="01ARZ3NDEKTSV4RRFFQ69G5FAV")
    by_time, by_id = server.seen
    assert "since=" in by_time
    assert "until=" in by_time
    assert by_id.endswith(f"?since_id=01ARZ3NDEKTSV4RRFFQ69G5FAV&until_id={make_ulid(NOW, last=True)}")


def test_a_line_without_an_end_is_cut_off(server: ScriptedAlpaca, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resend_module, "_LINE_BYTES_MAX", 1000)
    found, result = read(server, b"data: 1\n\ndata: " + b"x" * 100_000)
    assert ([b"1"], False) == (found, result.is_delivered)
    assert "found a line of more than 1000 bytes, expected events" == result.reason


@pytest.mark.parametrize(
    ("answer", "failure", "said"),
    [
        (error(404, 40410000, "no"), NoResend, "/v2/events/trades: the broker answered HTTP 404, code 40410000: no"),
        (page(404), NoResend, "HTTP 404 with a page"),
        (error(400, 40010000, "no"), NoResend, "HTTP 400"),
        (error(403, 40310000, "no"), NoResend, "HTTP 403"),
        (lambda request: {}, NoResend, "HTTP 200"),
        (error(401, 40110000, "no"), BadCredentials, "HTTP 401, code 40110000: no"),
        (page(403), None, "HTTP 403 with a page"),
        (page(200), None, "HTTP 200 with a page"),
        (error(408, 1, "no"), None, "HTTP 408"),
        (error(429, 1, "no"), None, "HTTP 429"),
        (error(500, 1, "no"), None, "HTTP 500"),
        (stream_of(500), None, "HTTP 500"),
        (stream_of(404), NoResend, "HTTP 404"),
    ],
)
def test_an_endpoint_that_is_not_there_is_told_from_one_that_cannot_answer(
    server: ScriptedAlpaca, answer: Any, failure: type[Exception] | None, said: str
) -> None:
    """Only the first is remembered for a week."""
    server.answers["GET", "/v2/events/trades"] = answer
    slept: list[float] = []
    clock = iter(range(10**6))
    budget = Budget(1000, clock=lambda: float(next(clock)), sleep=slept.append)
    streams, result = EventStreams(find_credentials(server.environment), budget=budget), WindowResult()
    ask = streams.read("trades", rfc3339(NOW - 10**12), rfc3339(NOW), result)
    if failure is not None:
        with pytest.raises(failure) as caught:
            list(ask)
        assert said in str(caught.value)
    else:
        assert [] == list(ask)
        assert said in result.reason
        assert (False, False) == (result.is_delivered, result.complete)
    budget.spend()
    assert bool(slept) == ("429" in said), "after a 429 everybody waits"


def test_an_entry_that_cannot_be_read_makes_a_resend_incomplete(server: ScriptedAlpaca, data: Path) -> None:
    """All of it came, so that the cursor moves on; what it says of one order nobody knows, so that not all is known."""
    order = make_order("o")
    good = {"event": "new", "at": ago(30), "event_id": "1", "order": order}
    server.resent["/v2/events/trades"] = [good, {**good, "event_id": "2", "order": 7}, {**good, "order": None}]
    account = open_broker(find_credentials(server.environment), budget=Budget(1000), tries=1)
    done = Gaps(data, "default", account, make_writer(data)).close()
    assert ("trades", 3, False) == (done.kind, done.messages, done.complete)
    assert "2 entries could not be read" == done.reason
    server.resent["/v2/events/trades"] = [good]
    assert Gaps(data, "default", account, make_writer(data)).close().complete


def test_ulids_are_those_of_their_specification() -> None:
    """48 bits of milliseconds and 80 of chance, in Crockford's digits."""
    assert "0" * 26 == make_ulid(0) == make_ulid(-5)
    assert "0000000001" + "0" * 16 == make_ulid(1_999_999)
    assert "0000000001" + "Z" * 16 == make_ulid(1_000_000, last=True)
    assert "01ARYZ6S41" == make_ulid(1_469_918_176_385 * 10**6)[:10], "the example of the specification"
    assert "7" + "Z" * 25 == make_ulid(((1 << 48) - 1) * 10**6, last=True)
    assert make_ulid(700 * 10**6) == step_back_ulid(make_ulid(1700 * 10**6, last=True), 1)
    assert make_ulid(0) == step_back_ulid(make_ulid(5 * 10**9), 300)
