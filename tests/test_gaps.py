"""Gaps: what the broker sends again, in the formats and the disorder of the real one."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compactor.books import followed_log
from compactor.books.order_index import OrderIndex
from compactor.broker.alpaca.adapter import AlpacaAccount
from compactor.broker.alpaca.leg_executions import EntryReader, LegBook, OrderLeg, find_unknown_kind, move_to_leg
from compactor.broker.alpaca.resend import EventStreams, WindowResult, make_ulid, step_back_ulid
from compactor.broker.alpaca.rest import AlpacaRest
from compactor.broker.alpaca.translate import translate_message
from compactor.broker.alpaca.transport import Transport
from compactor.broker.budget import Budget
from compactor.broker.credentials import BadCredentials
from compactor.broker.port import ResendPoint, ResendResult, Translation
from compactor.core.decoding import build_event
from compactor.core.events import Event
from compactor.core.instants import rfc3339
from compactor.sync.gaps import GapClosed, Gaps
from compactor.sync.stream_writer import StreamWriter
from tests.alpaca_server import AlpacaServer
from tests.test_run import account_of, ours

SPREAD = [("SPY261120P00640000", "sell"), ("SPY261120P00630000", "buy")]


def gaps(data: Path, server: AlpacaServer, seconds_max: float = 60.0, **options: Any) -> Gaps:
    keys, budget = account_of(server).credentials, Budget(1000)
    broker = AlpacaAccount(keys, budget=budget, sleep=lambda _: None)
    broker.event_streams = EventStreams(keys, budget=budget, seconds_max=seconds_max)
    writer = StreamWriter(data, broker.translate, index=OrderIndex(data, ["alice", "alpha"]))
    return Gaps(data, "default", broker, writer, **options)


def test_that_an_account_has_no_resend_is_remembered(data: Path) -> None:
    """Probe once, remember."""
    with AlpacaServer(1) as server:
        done = gaps(data, server).close()
        assert (None, False) == (done.kind, gaps(data, server).close().complete)
        assert "/v2beta1/events/activities: the broker answered HTTP 404" in done.reason
        assert 2 == len([one for one in server.requests if "/events/" in one])


@pytest.mark.parametrize("kind", ["trades", "activities"])
def test_every_request_of_a_resend_counts(kind: str) -> None:
    """Against the broker's limit, like those of REST."""
    with AlpacaServer(1, resend=kind) as server:
        broker = AlpacaAccount(account_of(server).credentials, budget=(budget := Budget(1000)), sleep=lambda _: None)
        list(broker.resend("2026-03-02T10:00:00Z", "2026-03-02T11:00:00Z", ResendPoint(), ResendResult()))
        assert budget.used == len(server.requests) > 0


@pytest.mark.parametrize("kind", ["trades", "activities"])
def test_what_is_told_again_is_the_same(data: Path, kind: str) -> None:
    """Fills and revisions come with the ids of the stream, so that what is told twice is one trade."""
    with AlpacaServer(3, resend=kind, plain=True) as server:
        order = server.place("AAPL", "buy", 10, client_order_id="alice:1", type="limit", limit_price="181.50")
        first = server.fill(order.id, 4, "181.36")
        second = server.fill(order.id, 6, "181.37")
        assert first is not None
        assert second is not None
        server.correct(first.id, 3, "181.30")
        server.bust(second.id)
        assert gaps(data, server).close().complete
        assert server.truth().fills == ours(data)[1]
        before, sizes = ours(data), sizes_of(data)
        again = gaps(data, server).close()
        assert again.messages > 0, "a resend begins some minutes before what is known"
        assert (before, sizes) == (ours(data), sizes_of(data)), "what is in a log is not written again"


@pytest.mark.parametrize("kind", ["trades", "activities"])
def test_a_resend_says_with_each_batch_how_far_it_has_come(
    data: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By time first, then by id for what was added late with an old time; not behind an entry that nobody can read."""
    monkeypatch.setattr("compactor.broker.alpaca.adapter.BATCH", 1)
    with AlpacaServer(3, resend=kind, plain=True) as server:
        for number in range(3):
            order = server.place("AAPL", "buy", 1, client_order_id=f"alice:{number}", type="market")
            server.fill(order.id, 1, "181.36")
        broker = AlpacaAccount(account_of(server).credentials, budget=Budget(1000), sleep=lambda _: None)
        result, now = ResendResult(), time.time_ns()
        since, until = rfc3339(now - 3600 * 10**9), rfc3339(now + 60 * 10**9)
        first = list(broker.resend(since, until, ResendPoint(), result))
        assert len(first) > 2
        assert [one.through for one in first] == sorted(one.through for one in first)
        assert ({""}, False) == ({one.cursor for one in first}, "" in {one.through for one in first})
        again = list(broker.resend(since, until, result.point, ResendResult()))
        late = again[len(first) :]
        assert [one.cursor for one in late] == sorted(one.cursor for one in late)
        assert ({""}, result.point.cursor) == ({one.through for one in late}, late[-1].cursor)
        kinds = iter(["unheard of"])
        monkeypatch.setattr("compactor.broker.alpaca.resend.find_unknown_kind", lambda _: next(kinds, None))
        known = list(broker.resend(since, until, ResendPoint(), ResendResult()))
        assert (len(first) - 1, {""}) == (len(known), {one.through for one in known})


@pytest.mark.parametrize(("since_id", "told"), [(None, rfc3339(10**9)), ("0", "1")])
@pytest.mark.parametrize("what", ["an order that is not answered for", "dropped messages"])
def test_a_resend_with_something_missing_does_not_say_how_far_it_has_come(
    monkeypatch: pytest.MonkeyPatch, what: str, since_id: str | None, told: str
) -> None:
    """From where it is missing on, by time or by id; before that it does."""
    monkeypatch.setattr("compactor.broker.alpaca.adapter.BATCH", 1)
    with AlpacaServer(3) as server:
        broker = AlpacaAccount(account_of(server).credentials, budget=Budget(1000), sleep=lambda _: None)
    problems = iter(["", "" if what == "dropped messages" else what])

    def read(_kind: Any, _since: str, _until: str, result: WindowResult, **_: Any) -> Iterator[bytes]:
        for number in (1, 2, 3):
            result.newest_at, result.newest_id = number * 10**9, str(number)
            result.reason = what if what == "dropped messages" and number > 1 else ""
            yield b"{}"
        result.is_endless = True

    monkeypatch.setattr(broker.event_streams, "read", read)
    monkeypatch.setattr(broker._entries, "prepare", lambda _: next(problems, ""))
    found = broker._read_window("trades", "2026-03-02T10:00:00Z", "2026-03-02T11:00:00Z", since_id)
    assert [told, "", ""] == [one.through or one.cursor for one in found]


@pytest.mark.parametrize("bad", [None, 0, 1])
@pytest.mark.parametrize("is_endless", [False, True])
def test_a_resend_is_as_good_as_the_worse_of_its_windows(
    monkeypatch: pytest.MonkeyPatch, bad: int | None, is_endless: bool
) -> None:
    """By time and by id: both have to be whole. After one that has no end the other is not asked for."""
    with AlpacaServer(3) as server:
        broker = AlpacaAccount(account_of(server).credentials, budget=Budget(1000), sleep=lambda _: None)
    asked: list[str | None] = []

    def read(
        _kind: Any, _since: str, _until: str, result: WindowResult, *, since_id: str | None = None
    ) -> Iterator[bytes]:
        asked.append(since_id)
        is_bad = bad is not None and bool(bad) == (since_id is not None)
        result.is_delivered, result.complete, result.newest_id = not (is_bad and is_endless), not is_bad, "9"
        result.is_endless, result.reason = is_bad and is_endless, "an entry of another kind" if is_bad else ""
        yield b"{}"

    monkeypatch.setattr(broker.event_streams, "read", read)
    point, result = ResendPoint("trades", "8"), ResendResult()
    told = list(broker.resend("2026-03-02T10:00:00Z", "2026-03-02T11:00:00Z", point, result))
    assert {""} == {one.through for one in told}, "no entry has a time"
    assert (bad is None, bad is None or not is_endless) == (result.complete, result.is_delivered)
    assert ("9" if result.is_delivered else "8") == result.point.cursor
    assert [True, False][: 1 if bad == 0 and is_endless else 2] == [one is None for one in asked]


def sizes_of(data: Path) -> dict[Path, int]:
    """The bytes of each log."""
    return {path: path.stat().st_size for path in data.glob("team/*/events.jsonl")}


FRAMES = [
    json.dumps({"event": event, "event_id": f"e-{number}", "timestamp": f"2026-03-02T10:00:0{number}Z", "order": {
        "id": "o-1", "client_order_id": "alice:1", "symbol": "AAPL", "side": "buy", "qty": "5", "status": event}})
    for number, event in enumerate(("pending_new", "new", "canceled"))
]  # fmt: skip


class TestWhatIsRecordedAlready:
    """A resend overlaps what was heard; of that only what no log has is written."""

    def writer(self, data: Path) -> StreamWriter:
        """One that has just started."""
        return StreamWriter(data, translate_message, index=OrderIndex(data, ["alice"]))

    def test_it_is_left_out_by_the_same_process_and_by_the_next(self, data: Path) -> None:
        """The rest of the same batch is written; frames of the stream itself always are."""
        first = self.writer(data)
        first.store(FRAMES[:2])
        assert 1 == first.store(FRAMES, resent=True).events
        assert [0, 0] == [one.store(FRAMES, resent=True).events for one in (first, self.writer(data))]
        assert 3 == first.store(FRAMES).events

    def test_it_is_durable_before_the_resend_is_done(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever wrote it may have been killed before it was."""
        self.writer(data).store(FRAMES)
        synced, real = list[int](), os.fdatasync

        def sync(descriptor: int) -> None:
            synced.append(descriptor)
            real(descriptor)

        monkeypatch.setattr(os, "fdatasync", sync)
        assert 0 == self.writer(data).store(FRAMES, resent=True).events
        assert 1 == len(synced)

    def test_only_the_last_deliveries_are_known(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Memory is bounded; what is older is written again, and the fold drops it."""
        monkeypatch.setattr(followed_log, "DELIVERIES_MAX", 2)
        self.writer(data).store(FRAMES)
        assert 1 == self.writer(data).store(FRAMES, resent=True).events

    def test_it_is_looked_for_in_the_ledger_that_has_the_order(self, data: Path) -> None:
        """What only another ledger has recorded is written; a directory that is itself a ledger has one."""
        self.writer(data).store(FRAMES)
        index = OrderIndex(data, ["alice"])
        index.follow(look_for_new=True)
        event = build_event(translate_message(FRAMES[0]).events[0])
        assert isinstance(event, Event)
        assert [True, False] == [index.has_delivery(team, event) for team in ("alice", "bravo")]
        own = data / "own"
        own.mkdir()
        (own / "events.jsonl").touch()
        StreamWriter(own, translate_message).store(FRAMES)
        assert 0 == StreamWriter(own, translate_message).store(FRAMES, resent=True).events

    def test_what_has_no_id_and_what_is_no_update_is_written(self, data: Path) -> None:
        """Nobody can tell whether it is the same."""
        self.writer(data).store(["{}"])
        assert 1 == self.writer(data).store(["{}"], resent=True).unread


def test_dropped_messages_make_a_resend_incomplete_and_it_is_tried_again(data: Path) -> None:
    """A comment line "you are reading too slowly, dropped N messages" means a gap."""
    with AlpacaServer(4, resend="trades", plain=True) as server:
        for number in range(6):
            server.place("AAPL", "buy", 1, client_order_id=f"alice:{number}", type="limit", limit_price="1")
        server.resend.slow_comment = True
        done = gaps(data, server).close()
        assert done.complete
        assert 2 == len([one for one in server.requests if "/events/trades" in one])
        assert 6 == len(ours(data)[0])


def test_a_resend_that_breaks_off_is_not_complete(data: Path) -> None:
    """What could not be told again is left to the reconcile."""
    with AlpacaServer(4, resend="trades") as server:
        server.fail_next("/events/trades", "server_error", 2)
        done: GapClosed = gaps(data, server).close()
        assert ("trades", False) == (done.kind, done.complete)
        assert "HTTP 5" in done.reason


def test_a_fill_that_leaves_something_is_a_partial_one() -> None:
    """Activities called every execution a `fill` before November 2026; the order goes on all the same."""
    reader = EntryReader(LegBook(lambda _: None))
    message = {
        "activity_type": "TRD", "event_id": "e", "executed_at": "2026-11-02T15:00:00Z", "ref_id": "x", "price": "5",
        "qty": "4", "details": {"order_id": "o", "symbol": "SPY", "side": "buy", "cum_qty": "4", "leaves_qty": "6",
                                "order_status": "partially_filled", "execution_type": "fill"},
    }  # fmt: skip
    assert ["partial_fill"] == [event["event"] for event in reader.read(message).events]
    message["details"] |= {"leaves_qty": "0", "order_status": "filled"}  # type: ignore[operator]
    assert ["fill"] == [event["event"] for event in reader.read(message).events]
    assert Translation([], []) == reader.read({"activity_type": "DIV", "details": {}})
    assert ["missing_field"] == [one.kind for one in reader.read({"activity_type": "TRD"}).problems]


def place_spread(server: AlpacaServer, name: str = "spread") -> Any:
    """A multi-leg order of alice's, of which the ledgers have heard."""
    legs = [{"symbol": symbol, "side": side, "ratio_qty": "1"} for symbol, side in SPREAD]
    order = server.exchange.place(
        "", "buy", 2, client_order_id=f"alice:{name}", order_class="mleg", type="limit", time_in_force="day",
        limit_price="1.20", legs=legs,
    )  # fmt: skip
    return order


def hear_all(data: Path, server: AlpacaServer) -> None:
    """Let the stream tell all that has happened so far."""
    told = [update for _, update in server.account.told]
    StreamWriter(data, translate_message).store(
        server.account.writer.encode({"stream": "trade_updates", "data": update}) for update in told
    )


def test_entries_of_a_multi_leg_order_land_on_its_legs(data: Path) -> None:
    """Issue 16, 2: one entry per leg, each with its own execution and the parent's order id; symbol and side tell."""
    with AlpacaServer(3, resend="activities", plain=True) as server:
        order = place_spread(server)
        hear_all(data, server)
        server.fill(order.id, 1)
        server.fill(order.id, 1)
        closed = gaps(data, server).close()
        assert (closed.complete, closed.messages) == (True, 4)
        assert server.truth().fills == ours(data)[1], "each leg has its executions, and the parent none"
        hear_all(data, server)
        gaps(data, server).close()
        assert server.truth().fills == ours(data)[1], "the stream and a second resend tell the same executions"


def test_an_entry_may_name_the_leg_itself(data: Path) -> None:
    """Domain: what they carry is not certain; an entry with the leg's own id is the leg's."""
    with AlpacaServer(3, resend="activities", plain=True) as server:
        order = place_spread(server)
        found = AlpacaRest(account_of(server).credentials).order(order.id)
        assert found is not None
        reader, leg = EntryReader(LegBook(lambda _: found)), order.legs[0]
        entry = {
            "activity_type": "TRD", "ref_id": "x", "executed_at": "2026-11-02T15:00:00Z", "price": "5", "qty": "1",
            "details": {"execution_type": "fill", "order_id": order.id, "symbol": SPREAD[0][0], "side": "sell"},
        }  # fmt: skip
        assert "" == reader.prepare([json.dumps(entry).encode()])
        assert [leg] == [one["order_id"] for one in reader.read(entry).events]
        entry["details"]["order_id"] = leg  # type: ignore[index]
        assert [leg] == [one["order_id"] for one in reader.read(entry).events]


@pytest.mark.parametrize(
    ("cumulative", "leaves", "expected"), [("4", "6", "4"), ("2", "3", "4"), ("2", "2", None), ("2", None, None)]
)
def test_whose_cumulative_quantity_it_is_follows_from_what_it_leaves(
    cumulative: str, leaves: str | None, expected: str | None
) -> None:
    """What an entry of a spread adds up is not certain: the leg's (10) or the parent's (5), of two contracts each."""
    leg = OrderLeg("leg", "10", "5")
    execution = {
        "order_id": "parent", "symbol": "A", "side": "buy", "filled_qty": cumulative, "raw": {"leaves_qty": leaves}
    }  # fmt: skip
    moved = move_to_leg(execution, {("A", "buy"): leg})
    assert moved is not None
    assert ("leg", "parent", expected) == (moved["order_id"], moved["parent_order_id"], moved.get("filled_qty"))


def test_legs_that_cannot_be_asked_for_make_a_resend_incomplete(data: Path) -> None:
    """What cannot be put on its leg is left to the reconcile, and never booked on the parent."""
    with AlpacaServer(3, resend="activities", plain=True) as server:
        order = place_spread(server)
        hear_all(data, server)
        server.poison(order.id)
        server.fill(order.id, 2)
        done = gaps(data, server).close()
        assert not done.complete
        assert order.id in done.reason
        assert {} == ours(data)[1]
        server.calm()
        assert gaps(data, server).close().complete
        assert server.truth().fills == ours(data)[1]


def test_a_rate_limit_while_legs_are_looked_for_breaks_off_nothing(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known of other orders is written; entries of orders that were not asked for wait for the next resend."""
    monkeypatch.setattr(Budget, "pause", lambda self, seconds: None)
    with AlpacaServer(3, resend="activities", plain=True) as server:
        spreads = [place_spread(server), server.place("AAPL", "buy", 1, client_order_id="alice:1", type="market")]
        hear_all(data, server)
        for order in spreads:
            server.fill(order.id)
        server.fail_next(f"/v2/orders/{spreads[0].id}", "rate_limited", 4)
        done = gaps(data, server).close()
        assert ("activities", False) == (done.kind, done.complete)
        assert "429" in done.reason
        assert {spreads[1].id} == set(ours(data)[1])
        assert gaps(data, server).close().complete
        assert server.truth().fills == ours(data)[1]


def test_an_entry_of_an_unknown_kind_makes_it_incomplete_and_is_named(data: Path) -> None:
    """Issue 16, 2: a kind that is not understood is named; a dividend is understood, and of no order."""
    with AlpacaServer(3, resend="activities", plain=True) as server:
        order = server.place("AAPL", "buy", 1, client_order_id="alice:1", type="limit", limit_price="2")
        hear_all(data, server)
        server.fill(order.id, 1, "2")
        server.resend.extra = [{"activity_type": "DIV", "at": "2026-03-02T15:00:00Z"}]
        assert gaps(data, server).close().complete
        server.resend.extra.append({"activity_type": "NEWKIND", "at": "2026-03-02T15:00:00Z"})
        done = gaps(data, server).close()
        assert not done.complete
        assert "NEWKIND" in done.reason
        assert server.truth().fills == ours(data)[1], "the others count"
    assert "TRD novated" == find_unknown_kind(b'{"activity_type":"TRD","details":{"execution_type":"novated"}}')
    assert None is find_unknown_kind(b'{"event":"new"}')


@pytest.mark.parametrize("kind", ["trades", "activities"])
def test_what_is_backfilled_with_its_old_time_is_found_by_the_cursor(data: Path, kind: str) -> None:
    """Issue 16, 2: backfilled entries come late with their old time, at the end of the order of ids."""
    with AlpacaServer(3, resend=kind, plain=True, start="2026-03-02T14:30:00Z") as server:
        clock = server.exchange.clock
        order = server.place("AAPL", "buy", 10, client_order_id="alice:1", type="limit", limit_price="2")
        hear_all(data, server)
        server.fill(order.id, 1, "2")
        one = gaps(data, server, clock=lambda: clock.now() / 1e9)
        assert one.close().complete
        server.resend.withhold(server.account)
        server.fill(order.id, 4, "2")
        clock.advance(3600)
        assert one.close().complete
        assert server.truth().fills != ours(data)[1]
        server.resend.backfill(server.account)
        clock.advance(60)
        assert one.close().complete
        assert server.truth().fills == ours(data)[1]
        assert any("since_id=" in asked for asked in server.requests)


def test_an_endpoint_without_cursors_is_read_by_time(data: Path) -> None:
    """A broker that does not know `since_id` still resends by time."""
    with AlpacaServer(3, resend="activities", plain=True) as server:
        server.resend.knows_ids = False
        order = server.place("AAPL", "buy", 10, client_order_id="alice:1", type="limit", limit_price="2")
        hear_all(data, server)
        for _ in range(3):
            server.fill(order.id, 1, "2")
            assert gaps(data, server).close().complete
        assert server.truth().fills == ours(data)[1]


def test_an_entry_without_an_id_counts_once(data: Path) -> None:
    """Issue 16, 2: `event_id` is optional."""
    with AlpacaServer(3, resend="activities") as server:
        order = server.place("AAPL", "buy", 40, client_order_id="alice:1", type="limit", limit_price="2")
        hear_all(data, server)
        for _ in range(40):
            server.fill(order.id, 1, "2")
        for _ in range(2):
            assert gaps(data, server).close().complete
            assert server.truth().fills == ours(data)[1]


def test_a_resend_without_an_end_is_bounded(data: Path) -> None:
    """Issue 16, 5: what was sent is kept, and the answer is left at the deadline."""
    with AlpacaServer(3, resend="activities", plain=True) as server:
        order = server.place("AAPL", "buy", 1, client_order_id="alice:1", type="limit", limit_price="2")
        hear_all(data, server)
        server.fill(order.id, 1, "2")
        server.resend.is_endless = True
        done = gaps(data, server, seconds_max=0.5).close()
        assert (done.complete, "no end" in done.reason) == (False, True)
        assert server.truth().fills == ours(data)[1]
        asked = [one for one in server.requests if "/events/activities" in one]
        assert 1 == len(asked), "another try would take as long, and the reconcile waits for it"


def test_a_resend_that_nobody_answers_is_asked_for_once(data: Path) -> None:
    """A request without an answer takes as long at the next try; the reconcile waits for it."""
    with AlpacaServer(3, resend="activities", plain=True) as server:
        server.fail_next("/events/activities", "hang", 3)
        found = gaps(data, server)
        streams = found._broker.event_streams  # type: ignore[attr-defined]
        streams._transport = Transport(account_of(server).credentials, deadline_seconds=0.3)
        done = found.close()
        assert (done.complete, 1) == (False, len([one for one in server.requests if "/events/activities" in one]))


@pytest.mark.parametrize("fault", ["gateway_page", "unauthorized"])
def test_an_outage_says_nothing_about_whether_there_is_a_resend(data: Path, fault: str) -> None:
    """Issue 16, 1: a page of a gateway, or refused keys, must not be remembered as an account without resends."""
    with AlpacaServer(3, resend="activities", plain=True) as server:
        server.fail_next("/events/", fault, 4)
        if fault == "unauthorized":
            with pytest.raises(BadCredentials):
                gaps(data, server).close()
        else:
            assert not gaps(data, server).close().complete
        server.calm()
        assert "activities" == gaps(data, server).close().kind


def test_a_ulid_is_stepped_back_in_time() -> None:
    """Ids are not in order within a millisecond, so a resend begins some minutes before the last one."""
    at = 1_772_461_800_123_000_000
    ulid = make_ulid(at, last=True)
    assert (26, make_ulid(at - 300 * 10**9)) == (len(ulid), step_back_ulid(ulid, 300))
    assert make_ulid(at - 1_000_000, last=True) < make_ulid(at) < ulid
