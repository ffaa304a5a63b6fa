"""The state of one ledger: what it counts, what it forgets and brings back, and what a caller may ask of it."""

import json
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest

from compactor.core.archive import Archive
from compactor.core.events import LINE_BYTES_MAX
from compactor.core.fast.interface import NoPlainOrders
from compactor.core.fold import Fold
from compactor.core.lines import Block
from compactor.core.orders import Order

NEW = {
    "event": "new", "order_id": "o-1", "ts": "2026-03-02T10:00:00Z", "recorded_at": "2026-03-02T10:00:00Z",
    "symbol": "SPY", "side": "buy", "quantity": "2",
}  # fmt: skip
DAY = timedelta(days=1)


def line_of(*fields: dict[str, Any], **more: Any) -> bytes:
    """One whole line of the log."""
    event: dict[str, Any] = {}
    for one in fields:
        event |= one
    return json.dumps(event | more).encode() + b"\n"


def at(minute: int, *fields: dict[str, Any], **more: Any) -> bytes:
    """A line whose event happened, and was appended, at a minute of the day."""
    ts = f"2026-03-02T{10 + minute // 60:02}:{minute % 60:02}:00Z"
    return line_of(NEW, *fields, ts=ts, recorded_at=ts, **more)


class Log:
    """A log in memory, with the folds over it; counts the lines that were read back."""

    def __init__(self, *lines: bytes) -> None:
        self.data = b"".join(lines)
        self.asked: list[tuple[str, int, int]] = []

    def recall(self, order_id: str, start: int, end: int) -> Iterable[tuple[int, bytes]]:
        self.asked.append((order_id, start, end))
        offset = 0
        for line in self.data.splitlines():
            if start <= offset < end:
                yield offset, line
            offset += len(line) + 1

    def fold(self, team_id: str | None = "alpha", plain: NoPlainOrders | None = None, **options: Any) -> Fold:
        fold = Fold(team_id, self.recall, **options)
        fold.plain = plain or fold.plain
        fold.leave_short_path()
        fold.feed(self.data, 0)
        return fold

    def append(self, fold: Fold, *lines: bytes) -> None:
        offset = len(self.data)
        self.data += b"".join(lines)
        fold.feed(b"".join(lines), offset)


def rows_of(fold: Fold) -> dict[str, dict[str, Any]]:
    return {row["order_id"]: row for row in map(json.loads, fold.pending_lines().splitlines())}


def again(fold: Fold, log: Log, team_id: str | None) -> Fold:
    """A fold that begins with the open orders of another one, as after a checkpoint."""
    restored = Fold(team_id, log.recall)
    restored.leave_short_path()
    restored.stored = fold.store_open()
    return restored


FILL = {"event": "partial_fill", "execution_id": "x-1", "price": "5", "qty": "1"}
AWAY, BACK = {"event": "assigned", "to_team": "bravo"}, {"event": "assigned", "from_team": "bravo"}


class TestLines:
    def test_what_was_derived_is_counted_and_taken_once(self) -> None:
        """7: the lines go into the files as they are, and their totals into the checkpoint."""
        log = Log(at(0), at(1, FILL), b"torn\n", at(2, {"event": "dozing"}))
        fold = log.fold()
        lines = fold.take_lines()
        assert (1, 2) == (lines.trades.count(b"\n"), lines.findings.count(b"\n"))
        assert (3, 1, 2) == (fold.counts.events, fold.counts.trades, fold.counts.findings)
        assert ({"new": 1, "partial_fill": 1, "other": 1}) == fold.counts.kinds
        assert (b"", b"") == fold.take_lines()

    def test_a_line_that_is_too_long_is_a_finding(self) -> None:
        """5: of a block that is the beginning of such a line nothing is read."""
        fold = Log().fold()
        fold.feed_block(Block(0, at(0), LINE_BYTES_MAX + 2))
        (finding,) = map(json.loads, fold.take_lines().findings.splitlines())
        fold.feed_block(Block(LINE_BYTES_MAX + 2, at(0), len(at(0))))
        assert ("too_long", 0, LINE_BYTES_MAX + 2) == (finding["kind"], finding["offset"], finding["length"])
        assert (1, 1, 1) == (fold.counts.events, fold.counts.findings, len(rows_of(fold)))

    def test_a_pass_can_be_stopped_before_each_event(self) -> None:
        """A caller that has no more time raises there; lines that are no events take none."""
        log, called = Log(), list[int]()
        fold = log.fold()
        fold.before_event = lambda: called.append(fold.counts.events)
        log.append(fold, at(0), b"torn\n", b"\n", at(1, FILL))
        assert [0, 1] == called


class TestTeams:
    def test_an_event_names_the_ledger(self) -> None:
        """1.2: until then its lines say `default`, and no team is known."""
        log = Log(at(0))
        fold = log.fold(None)
        assert (True, None, "default") == (fold.names_team, fold.known_team, rows_of(fold)["o-1"]["team_id"])
        log.append(fold, at(1, order_id="o-2", team_id="bravo"))
        assert (False, "bravo", "bravo") == (fold.names_team, fold.known_team, fold.team_id)
        assert {"bravo"} == {row["team_id"] for row in rows_of(fold).values()}
        assert (False, "alpha") == (Log().fold().names_team, Log().fold().known_team)

    def test_orders_of_a_checkpoint_get_the_name_too(self) -> None:
        """1.2: every row has the name that the ledger has now, also one that was written before."""
        log = Log(at(0), at(1, FILL))
        fold = again(log.fold(None), log, None)
        log.append(fold, at(2, order_id="o-2", team_id="bravo"))
        assert {"o-1": "bravo", "o-2": "bravo"} == {name: row["team_id"] for name, row in rows_of(fold).items()}

    def test_what_is_read_back_is_read_as_the_named_team(self) -> None:
        """6.2: a line of another team counts for nothing, whenever it is read."""
        lines = [at(0), at(1, team_id="bravo"), at(2, {"event": "canceled"}), at(3, FILL, team_id="other")]
        log = Log(*lines)
        fold = log.fold(None, kept_ended=0)
        log.append(fold, at(4, {"event": "snapshot", "order_status": "new"}))
        assert "0" == rows_of(fold)["o-1"]["filled_qty"]


class TestIntents:
    def test_an_intent_is_open_until_its_outcome(self) -> None:
        """3.13: a further one takes the place of the one before; an outcome of another is none."""
        asked = {"event": "submitting", "order_id": "c-1", "client_order_id": "c-1"}
        log = Log(at(0, asked), at(1, asked, order_id="c-2", client_order_id="c-2"), at(2, asked))
        fold = log.fold()
        one = len(at(0, asked))
        assert [("c-2", one), ("c-1", 2 * one)] == list(fold.intents.items())
        log.append(fold, at(3, asked, event="refused"), at(4, order_id="c-2"))
        assert {"c-2": one} == fold.intents


class TestForgetting:
    @pytest.mark.parametrize(
        ("lines", "is_kept"),
        [
            ([at(0)], True),
            ([at(0), at(1, {"event": "canceled"})], False),
            ([at(0), at(1, AWAY)], False),
            ([at(0), at(1, AWAY), at(2, BACK)], True),
            ([at(0), at(1, {"event": "canceled"}), at(2, {"event": "snapshot", "order_status": "new"})], True),
        ],
    )
    def test_an_order_that_is_not_open_leaves_the_state(self, lines: list[bytes], is_kept: bool) -> None:
        """6.1: memory is for what is open; an order of another ledger is not open here."""
        for plain in (None, NoPlainOrders()):
            fold = Log(*lines).fold(kept_ended=0, plain=plain)
            assert is_kept is (fold.find_order("o-1") is not None)
            assert fold.may_know("o-1") and not fold.may_know("o-2")
            assert ([], int(is_kept)) == (fold.list_ended(), len(fold.store_open()))

    def test_a_leg_that_has_no_status_leaves_the_state_and_comes_back(self) -> None:
        """4.10: its executions are remembered with its parent's fill, also when it opens later."""
        legs = [{"order_id": "leg-1", "symbol": "SPY", "side": "buy", "qty": "1", "price": "5", "execution_id": "x-1"}]
        log = Log(at(0, {"event": "partial_fill", "legs": legs}))
        fold = log.fold(kept_ended=0)
        assert fold.find_order("leg-1") is None
        log.append(fold, at(1, order_id="leg-1"), at(2, FILL, order_id="leg-1"))
        assert ("1", 1) == (rows_of(fold)["leg-1"]["filled_qty"], fold.counts.trades)
        assert fold.find_order("leg-1") is not None

    def test_those_that_ended_last_stay(self) -> None:
        """A duplicate mostly comes soon after the end; who ended first goes first."""
        ends = [at(minute, {"event": "canceled"}, order_id=f"o-{minute}") for minute in (3, 1, 2)]
        fold = Log(*ends).fold(kept_ended=2)
        assert [None, "canceled", "canceled"] == [fold.find_status(f"o-{minute}") for minute in (3, 1, 2)]
        assert ["o-1", "o-2"] == [order_id for order_id, _first, _last in fold.list_ended()]

    def test_a_block_that_does_not_shrink_forgets_nothing(self) -> None:
        """Who still needs the ended orders of a block says so."""
        fold = Log().fold(kept_ended=0)
        end = at(0, {"event": "canceled"})
        fold.feed(end, 0, shrinks=False)
        assert "canceled" == fold.find_status("o-1")
        fold.feed_block(Block(len(end), b"\n", 1), shrinks=False)
        assert "canceled" == fold.find_status("o-1")
        fold.feed_block(Block(len(end) + 1, b"\n", 1))
        assert fold.find_status("o-1") is None

    def test_an_order_is_read_back_from_its_first_to_its_last_event(self) -> None:
        """6.2: an event of an order that left the state finds it as it was, and nothing is derived anew."""
        log = Log(at(0, order_id="o-0"), at(1), b'{"torn":' + at(2, FILL), at(3, {"event": "canceled"}))
        fold = log.fold(kept_ended=0)
        before = fold.take_lines()
        end = len(log.data)
        log.append(fold, at(4, FILL), at(5, {"event": "snapshot", "order_status": "new"}))
        first, *_ = log.asked
        assert ("o-1", len(at(0)), end - len(at(3, {"event": "canceled"})) + 1) == first
        assert (1, b"", "1") == (
            before.trades.count(b"\n"),
            fold.take_lines().trades,
            rows_of(fold)["o-1"]["filled_qty"],
        )

    def test_an_order_is_recalled_up_to_an_offset(self) -> None:
        """A caller may ask for an order as it was; what comes at the offset or behind it does not count."""
        log = Log(at(0), at(1, FILL), at(2, {"event": "canceled"}), at(3, FILL, execution_id="x-2"))
        fold = log.fold(kept_ended=0)
        order = fold.recall_order("o-1", len(at(0) + at(1, FILL)))
        assert order is not None and ("partially_filled", 1) == (order.status, len(order.fills))
        assert fold.recall_order("o-2", len(log.data)) is None
        assert order is fold.recall_order("o-1", len(log.data))

    def test_an_order_that_was_recalled_leaves_again(self) -> None:
        """6.1: looking an order up does not keep it in the state."""
        log = Log(at(0), at(1, {"event": "canceled"}))
        fold = log.fold(kept_ended=0)
        assert fold.recall_order("o-1", len(log.data)) is not None
        log.append(fold, b"\n")
        assert fold.find_order("o-1") is None

    def test_only_what_comes_before_an_event_is_read_back(self) -> None:
        """6.2: where two events share a line, the second one is still to come for an order that it names."""
        log = Log(at(0), at(1, {"event": "canceled"}))
        fold = log.fold(kept_ended=0, retention=timedelta(0))
        log.append(fold, at(2, order_id="o-2"))
        assert (0, None, None) == fold.archive.find("o-1")
        log.append(fold, at(3, order_id="o-2", event="accepted")[:-1] + at(4, FILL))
        assert 1 == fold.counts.trades

    def test_an_open_order_is_none_of_those_that_ended_last(self) -> None:
        """Whatever the state keeps of an open order, it takes no place of an ended one."""
        restated = at(2, {"event": "restated", "limit_price": "5"}, order_id="o-2")
        fold = Log(at(0, {"event": "canceled"}), at(1, order_id="o-2"), restated).fold(kept_ended=1)
        assert "canceled" == fold.find_status("o-1")

    def test_what_left_is_remembered_for_the_retention(self) -> None:
        """6.1: where its events lie, and then that it was there; for ever without a retention."""
        late = {"ts": "2026-03-09T10:02:00Z", "recorded_at": "2026-03-09T10:02:00Z", "order_id": "o-2"}
        found = []
        for options in (
            {},
            {"retention": 7 * DAY + timedelta(minutes=1)},
            {"retention": None},
            {"retention": timedelta.max},
        ):
            log = Log(at(0), at(1, {"event": "canceled"}))
            fold = log.fold(kept_ended=0, **options)
            log.append(fold, line_of(NEW, late))
            found.append(fold.archive.find("o-1"))
        assert [None, len(at(0)), len(at(0)), len(at(0))] == [span[1] for span in found if span is not None]


class TestCheckpoints:
    def test_stored_orders_are_known_and_come_back_when_they_are_named(self) -> None:
        """7: they stay as they were stored until an event names them, rows and all."""
        log = Log(at(0), at(1, FILL), at(2, order_id="o-2"))
        whole = log.fold()
        fold = again(whole, log, "alpha")
        assert whole.pending_lines() == fold.pending_lines()
        assert [True, True, False] == [fold.may_know(order_id) for order_id in ("o-1", "o-2", "o-3")]
        assert 2 == fold.open_orders
        more = [at(3, FILL, execution_id="x-2", qty="0.5"), at(4, order_id="o-3")]
        offset = len(log.data)
        log.append(fold, *more)
        whole.feed(b"".join(more), offset)
        assert whole.pending_lines() == fold.pending_lines()
        assert whole.store_open() == fold.store_open()
        assert ["o-2"] == list(fold.stored)

    def test_ended_orders_are_stored_as_spans(self) -> None:
        """7: none of them is needed whole after a start; the open ones are stored whole."""
        log = Log(at(0), at(1, {"event": "canceled"}), at(2, order_id="o-2"))
        fold = log.fold()
        assert ["o-2"] == list(fold.store_open())
        pages = fold.store_ended()
        assert (0, len(at(0)), fold.clock) == Archive(len(pages), pages.__getitem__).find("o-1")

    def test_a_row_goes_with_its_order(self) -> None:
        """5: an order that ended, and has left the state, has no row any more."""
        log = Log(at(0), at(1, order_id="o-2"))
        fold = log.fold(kept_ended=0)
        assert {"o-1", "o-2"} == rows_of(fold).keys()
        log.append(fold, at(2, {"event": "canceled"}))
        assert {"o-2"} == rows_of(fold).keys()

    def test_a_checkpoint_is_taken_with_the_time_that_waits(self) -> None:
        """6.1: a time ahead of the clock waits, and the clock itself only moves forward."""
        log = Log(at(0))
        fold = log.fold()
        start = fold.clock
        assert start is not None and not fold.is_clock_waiting
        log.append(fold, line_of(NEW, ts="2026-04-01T10:00:00Z", recorded_at=None))
        assert (start, True) == (fold.clock, fold.is_clock_waiting)
        fold.advance_clock(start + DAY)
        fold.advance_clock(start)
        assert start + DAY == fold.clock

    def test_rows_can_be_dropped_and_are_made_anew(self) -> None:
        """A long pass does not keep track of every order; the rows are the same afterwards."""
        log = Log(at(0), at(1, order_id="o-2"))
        fold = log.fold()
        before = fold.pending_lines()
        fold.drop_rows()
        assert 0 == fold.open_orders
        assert before == fold.pending_lines()

    def test_an_order_that_was_away_can_be_stored(self) -> None:
        """4.12, 7: what happened to it in the meantime left no line here, and is known all the same."""
        log = Log(
            at(0), at(1, AWAY), at(2, FILL), at(3, {"event": "trade_bust", "previous_execution_id": "x-1"}), at(4, BACK)
        )
        fold = again(log.fold(), log, "alpha")
        log.append(fold, at(5, FILL), at(6, FILL, execution_id="x-2"))
        assert ("1", 1) == (rows_of(fold)["o-1"]["filled_qty"], fold.counts.trades)


class Watcher:
    """Notes the status of each order before and after an event."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def note_before(self, order: Order) -> None:
        self.seen.append((order.order_id, order.status))

    def note_after(self, order: Order) -> None:
        self.note_before(order)


def test_an_observer_sees_each_order_before_and_after_an_event() -> None:
    """Whoever follows a ledger is told of every change, also of an order that begins."""
    log = Log()
    fold = log.fold()
    fold.observer = watcher = Watcher()
    log.append(fold, at(0), at(1, {"event": "replaced", "replaced_by": "o-2"}))
    assert [("o-1", ""), ("o-1", "new"), ("o-1", "new"), ("o-1", "replaced"), ("o-2", ""), ("o-2", "")] == watcher.seen
