"""The API of `compactor serve`, asked over a real socket: answers, freshness, events, and who may see what."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import shutil
import socket
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from compactor.ledger import Ledger
from compactor.settings.configuration import load
from compactor.web import trade_routes
from compactor.web.application import make_application
from compactor.web.trade_summary import TradeSummary
from tests.conftest import ROOT
from tests.page_data import TeamLog
from tests.web_client import EventReader, Served, until

CHECKED = ("X-Log-Offset", "X-As-Of")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    data = tmp_path_factory.mktemp("web") / "data"
    shutil.copytree(ROOT / "fixtures" / "sample", data)
    (data / "compactor.toml").write_text('http_requests_per_minute = 100000\nhttp_log = "all"\n')
    for team in ("alpha", "bravo", "charlie"):
        Ledger(data / "team" / team).compact()
    one = Served(data)
    yield one
    assert 0 == one.close()


@pytest.fixture(scope="module")
def alpha(served: Served) -> str:
    return served.key("alpha")


@pytest.fixture(scope="module")
def admin(served: Served) -> str:
    return served.key(None)


def lines(served: Served, team: str, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (served.data / "team" / team / name).read_text().splitlines()]


# What is open.


def test_open_orders_are_those_of_the_file_and_say_how_fresh_they_are(served: Served, alpha: str) -> None:
    """`{"team_id", "open_orders_count", "orders", "as_of", "reconciled_through", "stale"}`; fields of the files."""
    answer = served.get("/api/v1/team/alpha/orders/open", alpha)
    body = answer.json()
    assert ["team_id", "open_orders_count", "orders", "as_of", "reconciled_through", "stale"] == list(body)
    wanted = [{**row, "origin": "adopted"} for row in lines(served, "alpha", "pending_orders.jsonl")]
    assert wanted == body["orders"]
    assert ("alpha", 5, False) == (body["team_id"], body["open_orders_count"], body["stale"])
    log = (served.data / "team/alpha/events.jsonl").stat().st_size
    assert (str(log), body["as_of"]) == tuple(answer.headers[name] for name in CHECKED)


def test_the_key_in_the_query_works_as_before(served: Served, alpha: str) -> None:
    """`GET …/orders/open?key=…`, as old clients ask."""
    assert 5 == served.get(f"/api/v1/team/alpha/orders/open?key={alpha}").json()["open_orders_count"]


def test_numbers_can_be_json_numbers_with_every_digit(served: Served, alpha: str) -> None:
    """`?numbers=json` for old clients."""
    texts = served.get("/api/v1/team/alpha/orders/open", alpha).json()["orders"]
    answer = served.get("/api/v1/team/alpha/orders/open?numbers=json", alpha)
    numbers = json.loads(answer.text, parse_float=Decimal, parse_int=Decimal)["orders"]
    assert [str(one["quantity"]) for one in numbers] == [one["quantity"] for one in texts]
    assert isinstance(numbers[0]["stop_price"], Decimal)
    assert "176.00" == str(numbers[0]["stop_price"])


def test_an_unchanged_poll_costs_a_304(served: Served, alpha: str) -> None:
    """ETag from the offset; the 304 says how fresh it is too."""
    first = served.get("/api/v1/team/alpha/orders/open", alpha)
    known = {"If-None-Match": first.headers["ETag"]}
    again = served.get("/api/v1/team/alpha/orders/open", alpha, headers=known)
    assert (304, b"", first.headers["X-Log-Offset"]) == (
        again.status_code,
        again.content,
        again.headers["X-Log-Offset"],
    )
    other = served.get(
        "/api/v1/team/alpha/orders/open?numbers=json", alpha, headers={"If-None-Match": first.headers["ETag"]}
    )
    assert 200 == other.status_code


def test_an_event_is_in_the_answer_milliseconds_later_with_another_etag(served: Served) -> None:
    """Answers come from memory, current with the log, whether or not anybody compacts."""
    log, key = TeamLog(served.data, "delta"), served.key("delta")
    order = log.place(symbol="SPY")
    until(lambda: served.get("/api/v1/team/delta/orders/open", key).json()["open_orders_count"] == 1, "the order")
    before = served.get("/api/v1/team/delta/orders/open", key).headers["ETag"]
    log.fill(order, int(order["quantity"]), int(order["quantity"]))
    until(lambda: served.get("/api/v1/team/delta/orders/open", key).json()["open_orders_count"] == 0, "its end")
    assert before != served.get("/api/v1/team/delta/orders/open", key).headers["ETag"]
    assert 1 == len(served.get("/api/v1/team/delta/trades", key).json()["trades"])


def test_every_list_is_there_as_csv_and_json_lines(served: Served, alpha: str) -> None:
    """`.csv` is safe to open in a spreadsheet, `.jsonl` has one row a line."""
    for path, name in (("orders/open", "pending_orders"), ("trades", "trades"), ("findings", "findings")):
        wanted = lines(served, "alpha", f"{name}.jsonl")
        is_open = name == "pending_orders"
        wanted = [{**row, "origin": "adopted"} for row in wanted] if is_open else wanted[::-1]
        found = served.get(f"/api/v1/team/alpha/{path}.jsonl", alpha)
        assert wanted == [json.loads(line) for line in found.text.splitlines()]
        table = list(csv.DictReader(io.StringIO(served.get(f"/api/v1/team/alpha/{path}.csv", alpha).text)))
        assert len(wanted) == len(table)
        first = next(iter(wanted[0]))
        assert [str(one[first]) for one in wanted] == [one[first] for one in table]


def test_the_summary_and_the_teams_are_there_as_csv_and_json_lines_too(served: Served, alpha: str, admin: str) -> None:
    """Every list; an unchanged poll costs a 304, and decimals can be JSON numbers."""
    path = "/api/v1/team/alpha/summary"
    for base, key, name in ((path, alpha, "rows"), ("/api/v1/teams", admin, "teams")):
        answer = served.get(base, key)
        rows = answer.json()[name]
        assert rows == [json.loads(line) for line in served.get(f"{base}.jsonl", key).text.splitlines()]
        found = list(csv.DictReader(io.StringIO(served.get(f"{base}.csv", key).text)))
        assert [list(row) for row in rows] == [list(row) for row in found] and len(rows) > 1
        etag = {"If-None-Match": answer.headers["ETag"]}
        assert (304, b"") == ((again := served.get(base, key, headers=etag)).status_code, again.content)
    texts = served.get(path, alpha).json()["rows"]
    numbers = json.loads(served.get(f"{path}?numbers=json", alpha).text, parse_float=Decimal, parse_int=Decimal)["rows"]
    decimals = ("bought", "sold", "net", "bought_value", "sold_value", "slippage", "slippage_bps")
    for text, number in zip(texts, numbers, strict=True):
        assert [text[name] and Decimal(text[name]) for name in decimals] == [number[name] for name in decimals]


def test_a_formula_in_a_client_id_is_text_in_csv(served: Served) -> None:
    """A cell that begins like a formula has an apostrophe before it."""
    key = served.key("formula")
    TeamLog(served.data, "formula").place(client_order_id="=HYPERLINK(1)")
    until(lambda: "'=HYPERLINK(1)" in served.get("/api/v1/team/formula/orders/open.csv", key).text, "the order")


def test_the_short_way_answers_like_the_usual_one(served: Served, alpha: str) -> None:
    """The poll of open orders passes the framework by; body and headers are the same."""
    short = served.get("/api/v1/team/alpha/orders/open", alpha)
    usual = served.get("/api/v1/team/alpha/orders/open?unknown=1", alpha)
    assert short.content == usual.content
    changing = {"date", "ratelimit-remaining", "ratelimit-reset"}
    assert changing <= set(short.headers) == set(usual.headers)
    assert not [name for name in set(short.headers) - changing if short.headers[name] != usual.headers[name]]
    for header in (short.headers["ETag"], f'"other", {short.headers["ETag"]}', f"W/{short.headers['ETag']}", "*"):
        answer = served.get("/api/v1/team/alpha/orders/open", alpha, headers={"If-None-Match": header})
        assert 304 == answer.status_code


PLAIN = "GET {path} HTTP/1.1\r\n{key}\r\n"
LAST = "GET {path} HTTP/1.1\r\n{key}Connection: close\r\n\r\n"


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    "groups",
    [
        [["GET {path} HTTP/1.0\r\n{key}\r\n"]],
        [[PLAIN], [PLAIN], [LAST]],
        [[PLAIN, PLAIN, PLAIN], [PLAIN, LAST]],
        [
            ["GET {path} HTTP/1.1\r\n{key}Content-Length: 5\r\n\r\nhello"],
            ["GET {path} HTTP/1.1\r\n{key}Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", PLAIN],
            [LAST],
        ],
        [["HEAD {path} HTTP/1.1\r\n{key}\r\n", "GET {path}?unknown=1 HTTP/1.1\r\n{key}\r\n", PLAIN], [PLAIN], [LAST]],
    ],
    ids=["HTTP/1.0", "one after another", "some at once", "with a body", "among other requests"],
)
def test_polls_of_every_form_are_answered_each_in_its_turn(
    served: Served, alpha: str, groups: list[list[str]], known: bool
) -> None:
    """Each answer is whole and has its own head, and the connection ends where the request says so."""
    path, usual = "/api/v1/team/alpha/orders/open", served.get("/api/v1/team/alpha/orders/open", alpha)
    key = f"Host: localhost\r\nAuthorization: Bearer {alpha}\r\n"
    key += f"If-None-Match: {usual.headers['ETag']}\r\n" if known else ""
    with socket.create_connection((served.host, served.port), timeout=10) as one, one.makefile("rb") as answers:
        for group in groups:
            one.sendall("".join(group).format(path=path, key=key).encode())
            for request in group:
                head = list(iter(answers.readline, b"\r\n"))
                assert head[0].startswith(b"HTTP/1.1 304 " if known else b"HTTP/1.1 200 ")
                assert f"ETag: {usual.headers['ETag']}\r\n".lower().encode() in [line.lower() for line in head]
                if not known and not request.startswith("HEAD"):
                    assert usual.content == answers.read(len(usual.content))
        assert b"" == answers.read()


# One order.


def test_an_order_is_found_by_a_unique_beginning_of_its_id_open_or_ended(served: Served, alpha: str) -> None:
    """`GET …/orders/{order_id}`: open or ended, a unique prefix too."""
    pending = lines(served, "alpha", "pending_orders.jsonl")[0]
    found = served.get(f"/api/v1/team/alpha/orders/{pending['order_id'][:8]}", alpha).json()
    assert pending | {"origin": "adopted", "open": True} == found
    ended = served.get("/api/v1/team/alpha/orders/1dbb3aa3-a4a3-4b7d-9f08-1d2b51774b23", alpha).json()
    assert (False, "filled", "40") == (ended["open"], ended["status"], ended["filled_qty"])
    assert ended == served.get("/api/v1/team/alpha/orders/1dbb3aa3", alpha).json()
    missing = served.get("/api/v1/team/alpha/orders/nothing", alpha)
    assert (404, {"detail": "team alpha has no order nothing"}) == (missing.status_code, missing.json())


def test_the_history_of_an_order_has_its_events_with_the_messages(served: Served, alpha: str) -> None:
    """`GET …/orders/{order_id}/history`: timeline, changes, trades, raw message."""
    body = served.get("/api/v1/team/alpha/orders/1dbb3aa3/history", alpha).json()
    assert ["new", "fill"] == [event["event"] for event in body["events"]]
    assert ("new", "filled") == (body["events"][1]["status_before"], body["events"][1]["status_after"])
    assert "241-0" not in body["events"][1]["trades"][0]["trade_id"]
    assert "1dbb3aa3-a4a3-4b7d-9f08-1d2b51774b23" in body["events"][0]["line"]
    assert str(served.data) not in json.dumps(body)


# Trades, findings, summary.


def test_trades_come_newest_first_in_pages_without_a_gap(served: Served, alpha: str) -> None:
    """`GET …/trades`: newest first, `limit`, cursor."""
    wanted = lines(served, "alpha", "trades.jsonl")[::-1]
    found: list[Any] = []
    cursor = ""
    while cursor is not None:
        page = served.get(f"/api/v1/team/alpha/trades?limit=7{cursor and f'&cursor={cursor}'}", alpha).json()
        found += page["trades"]
        cursor = page["next_cursor"]
    assert wanted == found


def test_trades_are_filtered_by_symbol_side_and_time(served: Served, alpha: str) -> None:
    """`symbol`, `side`, `since` (included), `until` (excluded)."""
    every = lines(served, "alpha", "trades.jsonl")
    since, until_ = "2026-03-02T15:00:00Z", "2026-03-02T18:00:00-00:00"
    found = served.get(
        "/api/v1/team/alpha/trades", alpha, params={"symbol": "AAPL", "side": "buy", "since": since, "until": until_}
    ).json()["trades"]
    wanted = [one for one in every if one["symbol"] == "AAPL" and one["side"] == "buy"]
    wanted = [one for one in wanted if "2026-03-02T15" <= one["timestamp"] < "2026-03-02T18"]
    assert wanted
    assert wanted[::-1] == found
    wrong = served.get("/api/v1/team/alpha/trades?since=yesterday", alpha)
    assert 400 == wrong.status_code
    assert "RFC 3339" in wrong.json()["detail"]


def test_the_summary_adds_up_to_the_trades(served: Served, alpha: str) -> None:
    """Per symbol and day: fills, quantity bought and sold, value, slippage against `requested_price`."""
    rows = served.get("/api/v1/team/alpha/summary", alpha).json()["rows"]
    trades = lines(served, "alpha", "trades.jsonl")
    assert {one["symbol"] for one in trades} == {one["symbol"] for one in rows}
    for row in rows:
        own = [one for one in trades if one["symbol"] == row["symbol"]]
        bought = sum((Decimal(one["quantity"]) for one in own if one["side"] == "buy"), Decimal(0))
        value = sum(
            (Decimal(one["quantity"]) * Decimal(one["execution_price"]) for one in own if one["side"] == "buy"),
            Decimal(0),
        )
        assert (bought, value) == (Decimal(row["bought"]), Decimal(row["bought_value"]))
        worse = sum(
            (
                (Decimal(one["execution_price"]) - Decimal(one["requested_price"]))
                * Decimal(one["quantity"]) * (1 if one["side"] == "buy" else -1)
                for one in own if "requested_price" in one
            ),
            Decimal(0),
        )  # fmt: skip
        assert worse == Decimal(row["slippage"])
    assert [] == served.get("/api/v1/team/alpha/summary?since=2026-03-04", alpha).json()["rows"]


def test_a_fill_in_the_evening_belongs_to_the_next_trading_day(served: Served) -> None:
    """From 20:00 New York the next one."""
    log, key = TeamLog(served.data, "evening"), served.key("evening")
    order = log.place(symbol="KO", quantity="10")
    for number, at in enumerate(("2026-07-01T23:59:59Z", "2026-07-02T00:00:00Z", "2026-12-02T00:59:59Z")):
        log.write(
            {
                "event": "partial_fill",
                "order_id": order["order_id"],
                "ts": at,
                "execution_id": f"e{number}",
                "qty": "1",
                "price": "70",
            }
        )
    until(lambda: len(served.get("/api/v1/team/evening/trades", key).json()["trades"]) == 3, "the trades")
    rows = served.get("/api/v1/team/evening/summary", key).json()["rows"]
    assert [("2026-12-01", 1), ("2026-07-02", 1), ("2026-07-01", 1)] == [(one["day"], one["fills"]) for one in rows]


# Events.


def test_events_resume_after_the_last_id_without_a_gap_and_without_a_repeat(served: Served) -> None:
    """`Last-Event-ID`, across reconnects."""
    log, key = TeamLog(served.data, "echo"), served.key("echo")
    first = log.place(symbol="SPY", quantity="10")
    until(lambda: served.get("/api/v1/team/echo/orders/open", key).json()["open_orders_count"] == 1, "the order")
    every = EventReader(served, "echo", key, after=0)
    found: list[Any] = []
    last: int | None = 0
    for filled in range(1, 11):
        reader = EventReader(served, "echo", key, last)
        log.fill(first, 1, filled)
        got = reader.wait(2 + (last == 0))
        reader.close()
        # Broken off after any of them.
        kept = got[: 1 + filled % len(got)]
        found += kept
        last = kept[-1].id
    rest = EventReader(served, "echo", key, last)
    wanted = every.wait(21)
    until(lambda: len(found) + len(rest.rows()) >= len(wanted), "the rest")
    found += rest.rows()
    assert wanted == found
    ids = [one.id or 0 for one in wanted]
    assert sorted(set(ids)) == ids
    assert [1, 10] == [wanted[0].id is not None and 1, len([one for one in wanted if one.kind == "trade"])]
    assert not next(one for one in reversed(wanted) if one.kind == "order").data["open"]
    for reader in (every, rest):
        reader.close()


def test_events_resume_across_a_restart(tmp_path: Path) -> None:
    """The id is the log offset, which no restart changes."""
    data = tmp_path / "data"
    log = TeamLog(data, "alpha")
    log.day(5, 3)
    one = Served(data)
    key = one.key("alpha")
    reader = EventReader(one, "alpha", key, 0)
    every = list(reader.wait(20))
    assert 0 == one.close()
    reader.close()
    log.place()
    one = Served(data)
    resumed = EventReader(one, "alpha", key, every[9].id)
    assert every[10:] == resumed.wait(len(every) - 9)[: len(every) - 10]
    assert "alpha" == resumed.rows()[-1].data["team_id"]
    resumed.close()
    one.close()


def test_a_stream_without_an_id_begins_now_and_names_the_offset(served: Served, alpha: str) -> None:
    """Its first event is the status, whose id is where to go on."""
    reader = EventReader(served, "alpha", alpha)
    until(lambda: reader.events, "the first event")
    log = (served.data / "team/alpha/events.jsonl").stat().st_size
    assert ("status", log) == (reader.events[0].kind, reader.events[0].id)
    reader.close()
    refused = served.get(f"/api/v1/team/alpha/events?after={log + 1}", alpha)
    assert 400 == refused.status_code


def test_an_id_of_another_log_is_answered_with_a_reset(tmp_path: Path) -> None:
    """Also where the log that took its place is longer: the mark tells them apart, and the id alone where it can."""
    data = tmp_path / "data"
    log = TeamLog(data, "alpha")
    log.day(3, 3)
    served = Served(data, "--insecure-no-auth")
    reader = EventReader(served, "alpha", "", after=0)
    ids = [(one.id or 0, one.mark) for one in reader.wait(9)]
    size = log.path.stat().st_size
    reader.close()

    def begin(last: str) -> EventReader:
        one = EventReader(served, "alpha", "", last)
        until(lambda: any(event.kind in ("reset", "order", "trade") for event in one.events), "an event")
        one.close()
        return one

    try:
        assert all(mark for _, mark in ids)
        for offset, mark in ids[:-1]:
            found = begin(f"{offset}-{mark}")
            assert "reset" not in [one.kind for one in found.events]
            assert offset < (found.rows()[0].id or 0)
        shutil.rmtree(data / "team" / "alpha")
        until(lambda: served.get("/api/v1/team/alpha/status").json()["stale"], "the log is missed")
        TeamLog(data, "alpha", 7).day(12, 12)
        until(lambda: served.get("/api/v1/team/alpha/status").json()["offset"] > size, "the new log")
        line_ends = {at for at, byte in enumerate(log.path.read_bytes(), 1) if byte == 10}
        known = {0, *line_ends, *((one.id or 0) for one in read_all_events(served, "alpha"))}
        for offset, mark in ids[:-1]:
            assert ["status", "reset"] == [one.kind for one in begin(f"{offset}-{mark}").events][:2]
            assert ("reset" in [one.kind for one in begin(str(offset)).events]) == (offset not in known)
        beyond = begin(str(log.path.stat().st_size + 1))
        assert beyond.events[1].data == {
            "detail": "the last id is one of another log: read everything again",
            "offset": log.path.stat().st_size,
        }
    finally:
        served.close()


def test_an_id_that_no_log_can_have_is_another_logs_and_an_empty_one_is_none(served: Served, alpha: str) -> None:
    """Whatever a client sends as `Last-Event-ID`: a reset, a stream from now on, or what was expected."""

    def begin(last: str) -> list[str]:
        reader = EventReader(served, "alpha", alpha, last)
        until(lambda: len(reader.events) >= (2 if last else 1), "the beginning")
        reader.close()
        return [one.kind for one in reader.events]

    assert ["status", "reset"] == begin("1" + "0" * 30)
    assert ["status", "reset"] == begin("1" + "0" * 30 + "-deadbeef")
    assert ["status"] == begin("")
    for wrong in ("garbage", "-1", "5-", "5-DEADBEEF"):
        answer = served.get("/api/v1/team/alpha/events", alpha, headers={"Last-Event-ID": wrong})
        assert (400, True) == (answer.status_code, "last_event_id" in answer.json()["detail"])


def read_all_events(served: Served, team: str) -> list[Any]:
    """All rows of a log as events."""
    reader = EventReader(served, team, "", after=0)
    end = served.get(f"/api/v1/team/{team}/status").json()["offset"]
    until(lambda: any(one.id == end for one in reader.rows()), "the last event")
    reader.close()
    return reader.rows()


# Who may see what.


def test_a_team_key_opens_its_team_and_refuses_unknown_and_forbidden_teams_alike(served: Served, alpha: str) -> None:
    """Nobody learns which teams there are."""
    answers = [served.get(f"/api/v1/team/{team}/orders/open", alpha) for team in ("bravo", "nobody")]
    assert [403, 403] == [one.status_code for one in answers]
    assert answers[0].content == answers[1].content
    names = [set(one.headers) for one in answers]
    assert names[0] == names[1]
    assert 403 == served.get("/api/v1/teams", alpha).status_code


def test_an_administrator_sees_all_teams(served: Served, admin: str) -> None:
    """`GET /api/v1/teams`, and 404 for a team that is not there."""
    teams = served.get("/api/v1/teams", admin).json()["teams"]
    assert {"alpha", "bravo", "charlie"} <= {one["team_id"] for one in teams}
    assert 1 == served.get("/api/v1/team/bravo/orders/open", admin).json()["open_orders_count"]
    assert 404 == served.get("/api/v1/team/nobody/status", admin).status_code


def test_without_a_key_or_with_a_wrong_one_nothing_is_shown(served: Served, alpha: str) -> None:
    """401 with `{"detail": …}`, and what to do."""
    for key in (None, "", "wrong", alpha[:-1], alpha.replace("ck_", "ck_0"), "ck__", "x" * 4000):
        answer = served.get("/api/v1/team/alpha/orders/open", key)
        assert (401, ["detail"], 'Bearer realm="compactor"') == (
            answer.status_code, list(answer.json()), answer.headers["WWW-Authenticate"],
        )  # fmt: skip


def test_a_revoked_key_opens_nothing_at_once_and_its_streams_end(served: Served) -> None:
    """Without a restart."""
    log = TeamLog(served.data, "foxtrot")
    log.place()
    made = served.keys.create("foxtrot")
    until(lambda: served.get("/api/v1/team/foxtrot/status", made.key).json()["has_ledger"], "the ledger")
    reader = EventReader(served, "foxtrot", made.key, 0)
    reader.wait(1)
    served.keys.revoke(made.key_id)
    assert 401 == served.get("/api/v1/team/foxtrot/status", made.key).status_code
    log.place()
    assert reader.is_over.wait(20)
    assert 1 == len(reader.rows())
    assert "revoked" in reader.events[-1].data["detail"]
    reader.close()


def test_a_key_that_may_only_read_cancels_nothing(served: Served) -> None:
    """`--read-only`."""
    order = lines(served, "alpha", "pending_orders.jsonl")[0]["order_id"]
    answer = served.ask("DELETE", f"/api/v1/team/alpha/orders/{order}", served.key("alpha", read_only=True))
    assert (403, "this key may only read") == (answer.status_code, answer.json()["detail"])


def test_a_cancel_without_the_brokers_keys_is_a_503_and_of_an_ended_order_a_409(served: Served, alpha: str) -> None:
    """404, 409 and 503, each with what to do."""
    order = lines(served, "alpha", "pending_orders.jsonl")[0]["order_id"]
    statuses = [
        served.ask("DELETE", f"/api/v1/team/alpha/orders/{one}", alpha).status_code
        for one in (order, "1dbb3aa3-a4a3-4b7d-9f08-1d2b51774b23", "nothing")
    ]
    assert [503, 409, 404] == statuses


def test_a_log_that_takes_the_place_of_another_one_is_shown_alone(tmp_path: Path) -> None:
    """A team's directory that is removed and made again: nothing of the old log is left in sums or bodies."""
    data = tmp_path / "data"
    shutil.copytree(ROOT / "fixtures" / "sample", data)
    served = Served(data, "--insecure-no-auth")

    def ask(what: str) -> Any:
        return served.get(f"/api/v1/team/alpha/{what}").json()

    try:
        assert 5 == ask("orders/open")["open_orders_count"]
        old = ask("summary")["rows"]
        reader = EventReader(served, "alpha", "", after=ask("status")["offset"])
        shutil.rmtree(data / "team" / "alpha")
        until(lambda: ask("status")["stale"], "the log is missed")
        assert 5 == ask("orders/open")["open_orders_count"], "what is live at the broker is never missing"
        others = [
            (data / "team" / team / "events.jsonl")
            .read_bytes()
            .replace(f'"team_id":"{team}"'.encode(), b'"team_id":"alpha"')
            for team in ("bravo", "charlie")
        ]
        (data / "team" / "alpha").mkdir()
        (data / "team" / "alpha" / "events.jsonl").write_bytes(b"".join(others))
        until(lambda: ask("status")["offset"] == sum(map(len, others)), "the new log")
        rows, trades = ask("summary")["rows"], ask("trades?limit=1000")["trades"]
        wanted = sum(-1 if one["kind"] == "reversal" else 1 for one in trades)
        assert old != rows and (80, wanted) == (len(trades), sum(row["fills"] for row in rows))
        assert 2 == ask("orders/open")["open_orders_count"]
        until(lambda: any(one.kind == "reset" for one in reader.events), "the reset")
        reset = next(one for one in reader.events if one.kind == "reset")
        assert reset.data["offset"] == reset.id and "replaced" in reset.data["detail"]
        # The stream goes on, behind what the client reads anew.
        TeamLog(data, "alpha").place(order_id="after-the-reset")
        until(lambda: any(one.data.get("order_id") == "after-the-reset" for one in reader.rows()), "what follows")
        assert reset.id is not None and all((one.id or 0) > reset.id for one in reader.rows())
        reader.close()
    finally:
        served.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("path", ["trades?symbol=SPY", "summary"])
def test_an_answer_is_never_as_of_later_than_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """What happens while it is read belongs to the next answer: to its offset, and to its ETag."""
    log = TeamLog(tmp_path, "alpha")
    order = log.place(order_id="a", symbol="SPY", quantity="10")
    log.fill(order, 5, 5)

    async def run() -> None:
        async with make_application(tmp_path, load(tmp_path), structlog.get_logger(), has_keys=False) as application:
            tracker = application.inner.state.site.tracker

            def fill_meanwhile(*_arguments: object) -> None:
                before = tracker.offset("alpha")
                log.fill(order, 5, 10)
                until(lambda: tracker.offset("alpha") > before, "the fill")

            slow_down(monkeypatch, trade_routes, "read_page", fill_meanwhile)
            slow_down(monkeypatch, TradeSummary, "add", fill_meanwhile)
            size = log.path.stat().st_size
            client = httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://localhost")
            first = await client.get(f"/api/v1/team/alpha/{path}")
            monkeypatch.undo()
            assert (200, str(size)) == (first.status_code, first.headers["X-Log-Offset"])
            assert first.json()["as_of"] == first.headers["X-As-Of"]
            known = {"If-None-Match": first.headers["ETag"]}
            assert 200 == (await client.get(f"/api/v1/team/alpha/{path}", headers=known)).status_code

    asyncio.run(run())


def slow_down(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, meanwhile: Any) -> None:
    """Let something happen before a function works."""
    function = getattr(owner, name)

    def work(*arguments: Any) -> Any:
        meanwhile()
        return function(*arguments)

    monkeypatch.setattr(owner, name, work)


def test_a_log_of_the_same_length_is_shown_as_of_its_own_time(tmp_path: Path) -> None:
    """`X-As-Of` and the ETag are of the log that is there, also where its offset is that of the one before."""
    data = tmp_path / "data"
    log = TeamLog(data, "alpha")
    log.place(3_600, order_id="the-same-order", symbol="SPY")
    served = Served(data, "--insecure-no-auth")
    try:
        before = served.get("/api/v1/team/alpha/orders/open")
        text = log.path.read_text()
        times = {name: json.loads(text)[name] for name in ("ts", "recorded_at", "created_at")}
        for time in set(times.values()):
            text = text.replace(time, f"2025{time[4:]}")
        (data / "other").write_text(text)
        (data / "other").replace(log.path)

        def ask() -> Any:
            return served.get("/api/v1/team/alpha/orders/open")

        until(lambda: ask().headers.get("X-As-Of", "").startswith("2025"), "the other log")
        after = ask()
        assert before.headers["X-Log-Offset"] == after.headers["X-Log-Offset"]
        assert before.headers["ETag"] != after.headers["ETag"]
        assert after.json()["as_of"] == after.headers["X-As-Of"]
        assert served.get("/api/v1/team/alpha/status").headers["X-As-Of"] == after.headers["X-As-Of"]
    finally:
        served.close()


def test_intents_whose_outcome_nobody_knows_are_in_the_status(served: Served) -> None:
    """An order that was about to be asked for is no open order, and is not hidden either."""
    log, key = TeamLog(served.data, "golf"), served.key("golf")
    request = {"symbol": "SPY", "side": "buy", "qty": "2"}
    asked = {"event": "submitting", "ts": "2026-03-09T14:30:00Z", "client_order_id": "golf:1", "request": request}
    log.write({**asked, "order_id": "golf:1", "tags": ["a"], "note": "why"})
    until(lambda: served.get("/api/v1/team/golf/status", key).json()["intents"], "the intent")
    status = served.get("/api/v1/team/golf/status", key).json()
    wanted = {"client_order_id": "golf:1", "ts": asked["ts"], "request": request, "tags": ["a"], "note": "why"}
    assert ([wanted], 0) == (status["intents"], status["open_orders_count"])


def test_requests_that_led_to_no_order_are_in_the_status_with_the_brokers_words(served: Served) -> None:
    """`refused` and `never_placed`: what was asked for, why, and what became of it."""
    log, key = TeamLog(served.data, "hotel"), served.key("hotel")
    for name, outcome in (
        ("1", {"event": "refused", "status": 403, "code": "40310000", "reason": "buying power"}),
        ("2", {"event": "never_placed", "reason": "not there"}),
    ):
        named = {"order_id": f"hotel:{name}", "client_order_id": f"hotel:{name}"}
        asked = {"event": "submitting", **named, "ts": "2026-03-09T14:30:00Z", "request": {"symbol": "SPY"}}
        log.write({**asked, "tags": ["x"], "note": "why"}, {**outcome, **named, "ts": "2026-03-09T14:30:01Z"})
    until(lambda: len(served.get("/api/v1/team/hotel/status", key).json()["unplaced"]) == 2, "the outcomes")
    status = served.get("/api/v1/team/hotel/status", key).json()
    refused, missed = status["unplaced"]
    assert {
        "outcome": "refused",
        "status": 403,
        "code": "40310000",
        "reason": "buying power",
    }.items() <= refused.items()
    assert {"request": {"symbol": "SPY"}, "tags": ["x"], "note": "why"}.items() <= refused.items()
    assert ("never_placed", "2026-03-09T14:30:00Z", []) == (missed["outcome"], missed["asked_at"], status["intents"])


def test_every_answer_with_orders_says_where_they_came_from(served: Served) -> None:
    """`submitted` here, or `adopted`: in lists, in one order, in its story, and in the events."""
    log, key = TeamLog(served.data, "india"), served.key("india")
    named = {"order_id": "india:1", "client_order_id": "india:1", "ts": "2026-03-09T14:30:00Z"}
    log.write({"event": "submitting", **named})
    ours = log.place(client_order_id="india:1")
    log.write({"event": "submitted", **named, "broker_order_id": ours["order_id"]})
    theirs = log.place(client_order_id="theirs")
    path, wanted = "/api/v1/team/india", {ours["order_id"]: "submitted", theirs["order_id"]: "adopted"}
    until(lambda: served.get(f"{path}/status", key).json()["open_orders_count"] == 2, "the orders")

    def collect(rows: Any) -> dict[str, str]:
        return {row["order_id"]: row["origin"] for row in rows}

    assert wanted == collect(served.get(f"{path}/orders/open", key).json()["orders"])
    assert wanted == collect(csv.DictReader(io.StringIO(served.get(f"{path}/orders/open.csv", key).text)))
    rows = served.get(f"{path}/orders/open.jsonl", key).text.splitlines()
    assert wanted == collect(json.loads(row) for row in rows)
    assert wanted == collect(served.get(f"{path}/orders/{one}", key).json() for one in wanted)
    assert wanted == collect(served.get(f"{path}/orders/{one}/history", key).json() for one in wanted)
    reader = EventReader(served, "india", key, after=0)
    assert wanted == collect(one.data for one in reader.wait(2))
    reader.close()


def test_a_load_balancer_that_speaks_http_1_0_names_no_host(served: Served) -> None:
    """HTTP/1.0 has no Host; HTTP/1.1 without one is refused."""
    for version, wanted in (("1.0", b" 200 "), ("1.1", b" 421 ")):
        with socket.create_connection((served.host, served.port), timeout=10) as client:
            client.sendall(f"GET /livez HTTP/{version}\r\n\r\n".encode())
            assert wanted in client.recv(64)


def test_a_request_of_another_site_changes_nothing(served: Served, alpha: str) -> None:
    """CSRF: nothing that a browser sends by itself opens anything, and other origins are refused besides."""
    order = lines(served, "alpha", "pending_orders.jsonl")[0]["order_id"]
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
        answer = served.ask("DELETE", f"/api/v1/team/alpha/orders/{order}", alpha, headers=headers)
        assert (403, "another site" in answer.json()["detail"]) == (answer.status_code, True)
    assert "Set-Cookie" not in served.get("/").headers


def test_a_host_that_is_not_ours_is_refused(served: Served, alpha: str) -> None:
    """DNS rebinding: a name that its owner points here reads nothing."""
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", ""):
        answer = served.get("/api/v1/team/alpha/orders/open", alpha, headers={"Host": host})
        assert answer.status_code in (400, 421)
    for host in ("localhost", f"127.0.0.1:{served.port}", "[::1]:9"):
        assert 200 == served.get("/api/v1/team/alpha/orders/open", alpha, headers={"Host": host}).status_code


def test_no_key_is_in_the_log(served: Served, alpha: str) -> None:
    """`?key=` is in no log, header of referrer, or metric."""
    secret = alpha.split("_", 2)[2][:20]
    served.get(f"/api/v1/team/alpha/status?key={alpha}&x=1")
    served.get(f"/nothing?key={alpha}")
    served.get(f"/api/v1/team/alpha/trades?since=x&key={alpha}")
    served.get(f"/api/v1/team/alpha/orders/{alpha}", alpha)
    until(lambda: any(row.get("path") == "/nothing" for row in served.log), "the line of the log")
    assert secret not in served.text
    assert secret not in served.get("/metrics").text
    answer = served.get(f"/api/v1/team/alpha/status?key={alpha}")
    assert secret not in str(answer.headers)
    assert "no-referrer" == answer.headers["Referrer-Policy"]


def test_a_content_type_names_its_charset_once(served: Served, alpha: str) -> None:
    """Pages, scripts, metrics and CSV."""
    wanted = {
        "/": "text/html; charset=utf-8", "/page/main.js": "text/javascript; charset=utf-8",
        "/page/style.css": "text/css; charset=utf-8", "/page/icon.svg": "image/svg+xml",
        "/metrics": "text/plain; version=0.0.4; charset=utf-8",
        "/api/v1/team/alpha/orders/open.csv": "text/csv; charset=utf-8",
        "/api/v1/team/alpha/orders/open": "application/json",
    }  # fmt: skip
    assert wanted == {path: served.get(path, alpha).headers["Content-Type"] for path in wanted}


def test_every_answer_has_a_strict_content_policy(served: Served, alpha: str) -> None:
    """Nothing from another host, no inline script, not in a frame."""
    for path in ("/", "/api", "/api/v1/team/alpha/status", "/nothing", "/page/main.js"):
        policy = served.get(path, alpha).headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "script-src 'self';" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy


def test_tricks_with_paths_lead_nowhere(served: Served, alpha: str) -> None:
    """No path of a request is ever opened."""
    import http.client

    for path in (
        "/page/../api_keys.py", "/page/%2e%2e/api_keys.py", "/page/..%2fapi_keys.py", "/page//etc/passwd", "/page/",
        "/api/v1/team/alpha/../bravo/orders/open", "/api/v1/team/..%2f/orders/open", "/api/v1/team/alpha%00/status",
        "/api/v1/team/%2e%2e/status", "/api/v1/team//status", "/%ff", "/api/v1/team/alpha/orders/%2e%2e/history",
    ):  # fmt: skip
        connection = http.client.HTTPConnection(served.host, served.port, timeout=10)
        connection.putrequest("GET", path, skip_host=True)
        connection.putheader("Host", "localhost")
        connection.putheader("Authorization", f"Bearer {alpha}")
        connection.endheaders()
        answer = connection.getresponse()
        assert answer.status in (400, 403, 404), path
        assert b"detail" in answer.read()
        connection.close()


def test_what_is_too_long_is_refused(served: Served, alpha: str) -> None:
    """Limits on request sizes, each with a status of its own."""
    assert 414 == served.get("/api/v1/team/alpha/trades?symbol=" + "x" * 5000, alpha).status_code
    assert 413 == served.get("/livez", headers={"X-Long": "x" * 70_000}).status_code
    answer = served.ask("DELETE", "/api/v1/team/alpha/orders/nothing", alpha, data=b"x" * 70_000)
    assert answer.status_code in (404, 413)


def test_metrics_and_health_are_there_for_this_machine(served: Served) -> None:
    """`/livez`, `/readyz` and `/metrics` on the same port."""
    assert 200 == served.get("/livez").status_code
    until(lambda: served.get("/readyz").status_code == 200, "ready")
    assert "compactor_http_requests_total" in served.get("/metrics").text


def test_what_came_through_a_proxy_that_nobody_named_is_not_of_this_machine(served: Served, admin: str) -> None:
    """Metrics name teams: a proxy that the settings do not know hands them to nobody."""
    through = {"X-Forwarded-For": "127.0.0.1"}
    assert [403, 403] == [served.get(path, headers=through).status_code for path in ("/metrics", "/readyz")]
    assert [200, 200] == [served.get(path, admin, headers=through).status_code for path in ("/metrics", "/livez")]


def test_a_head_request_has_the_headers_and_no_body(served: Served, alpha: str) -> None:
    """For clients that only look whether something changed."""
    answer = served.ask("HEAD", "/api/v1/team/alpha/orders/open", alpha)
    assert (200, b"") == (answer.status_code, answer.content)
    assert answer.headers["ETag"] == served.get("/api/v1/team/alpha/orders/open", alpha).headers["ETag"]


def test_a_head_request_for_events_ends_also_where_another_request_came_with_it(served: Served, alpha: str) -> None:
    """Requests may come before the answer to the one before; each is answered for what it is."""
    lines = [f"HEAD /api/v1/team/alpha/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {alpha}\r\n\r\n"]
    lines.append(f"GET /api/v1/key?key={alpha} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    with socket.create_connection((served.host, served.port), timeout=10) as one:
        one.sendall("".join(lines).encode())
        found = b"".join(iter(lambda: one.recv(65_536), b""))
    assert [2, 1] == [found.count(b"HTTP/1.1 200 OK"), found.count(b'"team_id":"alpha"')]
