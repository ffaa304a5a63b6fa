"""The order index: a ledger has an order exactly when folding its log yields it there, and not assigned away."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from compactor import Ledger
from compactor.books import followed_log, order_index
from compactor.books.order_index import OrderIndex
from compactor.core import fills, lines
from compactor.core.events import RETURNS_MAX
from compactor.core.fold import Fold
from compactor.ledger.files import Files
from compactor.ledger.log import Log
from compactor.ledger.unlocked import read_bytes

Write = Callable[..., Path]
Event = Callable[..., dict[str, Any]]

TEAMS = ("alpha", "bravo", "charlie")
ORDERS = ("o-1", "o-2", "o-3", "o-4")


def assigned(order_id: str = "o1", number: int = 0, **direction: str) -> dict[str, Any]:
    event_id = f"assigned:{number}"
    return {"event": "assigned", "order_id": order_id, "ts": "2026-01-05T16:00:00Z", "event_id": event_id, **direction}


def team_of(index: OrderIndex, order_id: str, **fields: Any) -> str | None:
    owner = index.find_owner(order_id, **fields)
    return owner.team if owner is not None else None


def fresh(data: Path) -> OrderIndex:
    index = OrderIndex(data)
    index.follow()
    return index


# The law.


def orders_of(path: Path, team: str) -> set[str]:
    """The orders that the fold of a log has and that were not assigned away."""
    log = b"".join(read_bytes(path, 0, None, Files()))
    fold = Fold(team, lambda *_: (), None, kept_ended=10**6)
    fold.feed(log, 0)
    fold.pending_lines()
    found = {order_id: fold.find_order(order_id) for order_id in ORDERS}
    return {
        order_id
        for order_id, order in found.items()
        if order is not None and (order.rare is None or order.rare.away is None)
    }


@st.composite
def log_lines(draw: st.DrawFn) -> bytes:
    """A line that a ledger's log may hold, sound or not, without its line end."""
    order_id = draw(st.sampled_from(ORDERS))
    event: dict[str, Any] = {"event": "new", "order_id": order_id, "ts": "2026-01-05T15:00:00Z"}
    kind = draw(st.sampled_from(["new", "fill", "canceled", "assigned", "legs", "child", "strange"]))
    if kind in ("fill", "canceled", "strange"):
        event["event"] = kind
    if kind == "fill":
        event |= {"price": "5", "qty": draw(st.sampled_from(["1", "0", "x"]))}
    if kind == "assigned":
        direction = {draw(st.sampled_from(["to_team", "from_team"])): draw(st.sampled_from(TEAMS))}
        event |= {"event": kind, "event_id": draw(st.sampled_from(["a:0", "a:1", "a:2"])), **direction}
    if kind == "legs":
        leg = {"order_id": draw(st.sampled_from(ORDERS)), "symbol": "A", "side": "buy", "qty": "1", "price": "1"}
        event |= {"event": "fill", "legs": [leg]}
    if kind == "child":
        event[draw(st.sampled_from(["replaces", "replaced_by", "parent_order_id"]))] = draw(st.sampled_from(ORDERS))
    if draw(st.booleans()):
        event["team_id"] = draw(st.sampled_from([*TEAMS, "zulu"]))
    if draw(st.booleans()):
        event["recorded_at"] = "2026-01-05T15:00:00.5Z"
    if draw(st.booleans()):
        event.setdefault("event_id", draw(st.sampled_from(["e-1", "e-2"])))
    text = json.dumps(event).encode()
    damage = draw(st.sampled_from(["none"] * 6 + ["torn", "fused", "twice", "latin", "escaped", "nul"]))
    if damage == "torn":
        return text[: draw(st.integers(1, len(text)))]
    if damage == "fused":
        return text[: draw(st.integers(1, len(text) - 1))] + json.dumps(event).encode()
    if damage == "twice":
        return text + text
    if damage == "latin":
        return text[:-1] + b',"x":"\xe9"}'
    if damage == "escaped":
        return text.replace(b"o-", b"\\u006f-")
    return b"\0\0" + text if damage == "nul" else text


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_index_is_the_fold(data: DataObject) -> None:
    """Issue 11, 2: over generated data directories, however much is in memory, in checkpoints and in segments."""
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        root = Path(name) / "data"
        patch.setattr(followed_log, "TAIL_BYTES", data.draw(st.sampled_from([0, 1, 300, 2000, 1 << 22])))
        patch.setattr(order_index, "KNOWN_MAX", data.draw(st.sampled_from([1, 1000])))
        returns_max = data.draw(st.sampled_from([1, RETURNS_MAX]))
        for module in (lines, fills):
            patch.setattr(module, "RETURNS_MAX", returns_max)
        index = OrderIndex(root)
        for _ in range(data.draw(st.integers(1, 6))):
            team = data.draw(st.sampled_from(TEAMS))
            path = root / "team" / team
            path.mkdir(parents=True, exist_ok=True)
            with open(path / "events.jsonl", "ab") as log:
                for line in data.draw(st.lists(log_lines(), min_size=1, max_size=6)):
                    log.write(line + b"\n" * data.draw(st.sampled_from([1, 1, 1, 1, 0, 2])))
            what = data.draw(st.sampled_from(["nothing", "checkpoint", "seal", "restart"]))
            if what in ("checkpoint", "seal"):
                with Ledger(path, retention_days=data.draw(st.sampled_from([0, 7]))) as ledger:
                    ledger.compact(checkpoint=True)
                    if what == "seal":
                        ledger.seal(now=True)
            if what == "restart":
                index.close()
                index = OrderIndex(root)
            index.follow(look_for_new=True)
            for team in (one.name for one in (root / "team").iterdir()):
                expected = orders_of(root / "team" / team, team)
                found = {one: index.find_claims(one).get(team) for one in ORDERS}
                assert expected == {one for one, claim in found.items() if claim is not None and claim.away_to is None}
        index.close()


# What it knows.


def test_an_old_order_is_found_in_a_long_log(data: Path, write_log: Write, placed: Event, monkeypatch: Any) -> None:
    """An order older than the part in memory is found, with a checkpoint or without one."""
    monkeypatch.setattr(followed_log, "TAIL_BYTES", 500)
    ended = {"event": "canceled", "order_id": "o-old", "ts": "2026-01-05T15:00:02Z"}
    later = [placed(f"o-{number}", ts="2026-10-01T15:00:00Z") for number in range(20)]
    path = write_log("bob", placed("o-old"), ended, *later)
    for _ in range(2):
        index = fresh(data)
        assert ["bob", None, "bob"] == [team_of(index, one) for one in ("o-old", "o-never", "o-3")]
        index.close()
        with Ledger(path) as ledger:
            ledger.compact(checkpoint=True)


def test_an_order_that_only_its_predecessor_names_is_nobody_s(
    data: Path, write_log: Write, placed: Event, monkeypatch: Any
) -> None:
    """3.9: it has a row, and its own events may be elsewhere; also where a checkpoint has it."""
    monkeypatch.setattr(followed_log, "TAIL_BYTES", 200)
    later = [placed(f"o-{number}") for number in range(20)]
    path = write_log("bob", placed("o-old", event="replaced", replaced_by="o-next"), *later)
    for _ in range(2):
        index = fresh(data)
        assert ["bob", None] == [team_of(index, one) for one in ("o-old", "o-next")]
        index.close()
        with Ledger(path) as ledger:
            ledger.compact(checkpoint=True)
    write_log("bob", assigned("o-next", to_team="alice"))
    assert "alice" == team_of(fresh(data), "o-next")


def test_what_is_sealed_is_known(data: Path, write_log: Write, placed: Event, filled: Event) -> None:
    """The last part of a log may have been given back to the file system; its segments have it."""
    path = write_log("bob", *(event(f"o-{number}") for number in range(400) for event in (placed, filled)))
    with Ledger(path) as ledger:
        ledger.compact()
        assert ledger.seal(now=True).punched_bytes > 0
    index = fresh(data)
    assert ["bob"] * 400 == [team_of(index, f"o-{number}") for number in range(400)]


def test_an_order_that_was_away_and_came_back_is_here_again(data: Path, write_log: Write, placed: Event) -> None:
    """4.12: only the last assignment counts, and the same delivery again says nothing."""
    write_log("alpha", placed())
    index = fresh(data)
    for number, move, expected in (
        (0, {"to_team": "bravo"}, "bravo"),
        (1, {"from_team": "bravo"}, "alpha"),
        (0, {"to_team": "bravo"}, "alpha"),
        (2, {"to_team": "charlie"}, "charlie"),
    ):
        write_log("alpha", assigned("o1", number, **move))
        index.follow()
        assert expected == team_of(index, "o1") == team_of(fresh(data), "o1")


def test_a_line_of_another_team_claims_nothing(data: Path, write_log: Write, placed: Event) -> None:
    """1.1: a line of bravo's that lies in alpha's log by mistake is a `wrong_team` there, and no order of alpha's."""
    write_log("alpha", {**placed("o-1"), "team_id": "bravo"}, placed("o-2"))
    write_log("bravo", placed("o-1"))
    index = fresh(data)
    assert ["bravo", "alpha"] == [team_of(index, one) for one in ("o-1", "o-2")]
    assert {"bravo"} == index.find_claims("o-1").keys()


def test_a_line_that_is_not_utf_8_stops_nothing(data: Path, write_log: Write, placed: Event) -> None:
    """Section 5: the lines after it, and the other ledgers, are read."""
    path = write_log("alpha", placed("o-1"))
    with open(path / "events.jsonl", "ab") as log:
        log.write(b'{"event":"new","order_id":"\xe9\xff"}\n\xff\xfe\n')
    write_log("alpha", placed("o-2"))
    write_log("bravo", placed("o-3"))
    index = fresh(data)
    assert ["alpha", "alpha", "bravo"] == [team_of(index, one) for one in ("o-1", "o-2", "o-3")]


def test_one_ledger_that_cannot_be_read_stops_no_other(data: Path, write_log: Write, placed: Event) -> None:
    """It is named, and is read as soon as it can be."""
    path = write_log("alpha", placed("o-1"))
    write_log("bravo", placed("o-2"))
    log = path / "events.jsonl"
    log.rename(path / "kept")
    log.mkdir()
    index = fresh(data)
    assert [None, "bravo"] == [team_of(index, one) for one in ("o-1", "o-2")]
    assert [path] == list(index.unreadable)

    log.rmdir()
    (path / "kept").rename(log)
    index.follow()
    assert ("alpha", {}) == (team_of(index, "o-1"), index.unreadable)


@pytest.mark.parametrize("how", ["replaced", "truncated", "rewritten"])
def test_a_log_that_is_another_one_is_read_anew(data: Path, write_log: Write, placed: Event, how: str) -> None:
    """The index is as of what lies there now."""
    path = write_log("alpha", placed("o-1"), placed("o-2"))
    index = fresh(data)
    log = path / "events.jsonl"
    text = json.dumps(placed("o-3")) + "\n"
    if how == "replaced":
        log.with_name("new").write_text(text)
        log.with_name("new").rename(log)
    else:
        log.write_text(text * (3 if how == "rewritten" else 1))
    index.follow()
    assert [None, None, "alpha"] == [team_of(index, one) for one in ("o-1", "o-2", "o-3")]


def test_a_line_is_not_there_before_its_end_is(data: Path, write_log: Write, placed: Event) -> None:
    """Section 2: the index follows whole lines, whoever appends them."""
    path = write_log("alpha", placed("o-1"))
    text = json.dumps(placed("o-2")) + "\n"
    index = fresh(data)
    for part, expected in ((text[:30], None), (text[30:-1], None), ("\n", "alpha")):
        with open(path / "events.jsonl", "a") as log:
            log.write(part)
        index.follow()
        assert expected == team_of(index, "o-2")


def test_only_what_a_log_has_grown_by_is_read(
    data: Path, write_log: Write, placed: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log of gigabytes costs what is new in it, and nothing where nothing is."""
    path = write_log("alpha", placed("o-1"))
    index = fresh(data)
    size, starts = (path / "events.jsonl").stat().st_size, []
    real = Log.blocks

    def blocks(self: Any, offset: int, end: int) -> Any:
        starts.append(offset)
        return real(self, offset, end)

    monkeypatch.setattr(Log, "blocks", blocks)
    index.follow()
    assert [] == starts
    write_log("alpha", placed("o-2"))
    index.follow()
    assert ([size], "alpha") == (starts, team_of(index, "o-2"))
    team_of(index, "o-2")
    assert [size] == starts, "to ask for an order in memory reads nothing"


def test_a_checkpoint_says_for_certain_which_orders_never_were_there(
    data: Path, write_log: Write, placed: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """6.2: no line is read for an order that the ledger never had, nor for one that is open there."""
    monkeypatch.setattr(followed_log, "TAIL_BYTES", 1)
    path = write_log("alpha", placed("o-1"), placed("o-2", event="canceled"), placed("o-3"))
    with Ledger(path) as ledger:
        ledger.compact(checkpoint=True)
    index = fresh(data)
    monkeypatch.setattr(Log, "lines_naming", lambda *_: pytest.fail("a line was read"))
    assert [None, "alpha"] == [team_of(index, one) for one in ("nobody", "o-1")]


@pytest.mark.parametrize("terms", [{}, {"team_id": "alpha"}])
def test_an_order_that_is_younger_than_a_line_is_not_looked_for_before_it(
    data: Path, write_log: Write, placed: Event, monkeypatch: pytest.MonkeyPatch, terms: dict[str, str]
) -> None:
    """When it was created, and when the first line in memory was recorded, say so, up to an hour between clocks."""
    monkeypatch.setattr(followed_log, "TAIL_BYTES", 1000)
    at = "2026-03-02T10:00:00Z"
    write_log("alpha", *[placed(f"o-{number}", recorded_at=at, **terms) for number in range(9)])
    index, read = fresh(data), list[str]()
    real = Log.lines_naming

    def search(self: Any, order_id: str, first: int, end: int) -> Any:
        read.append(order_id)
        return real(self, order_id, first, end)

    monkeypatch.setattr(Log, "lines_naming", search)
    for order_id, created_at in (("young", "2026-03-02T11:00:01Z"), ("old", "2026-03-02T10:59:59Z")):
        assert index.find_owner(order_id, created_at=created_at) is None
    assert {"old"} == set(read)


def test_lines_in_memory_are_searched_for_what_they_tell_of(
    data: Path, write_log: Write, placed: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An order that has ended costs the lines of its own life, however many were written since the checkpoint."""
    ended = placed("o-1", event="canceled", ts="2026-03-02T10:01:00Z")
    path = write_log("alpha", placed("o-1"), ended)
    with Ledger(path) as ledger:
        ledger.compact(checkpoint=True)
    size = (path / "events.jsonl").stat().st_size
    monkeypatch.setattr(followed_log, "TAIL_BYTES", 0)
    index, ends = fresh(data), list[int]()
    index.follow()
    write_log("alpha", *[placed(f"o-{number}") for number in range(2, 50)])
    real = Log.lines_naming

    def search(self: Any, order_id: str, first: int, end: int) -> Any:
        ends.append(end)
        return real(self, order_id, first, end)

    monkeypatch.setattr(Log, "lines_naming", search)
    index.follow()
    assert "alpha" == team_of(index, "o-1")
    assert max(ends) <= size, "what is in memory is about other orders"


def test_nothing_stays_open(data: Path, write_log: Write, placed: Event) -> None:
    """Years: descriptors are closed with the index, and a log that is replaced leaves none behind."""
    before = len(os.listdir("/proc/self/fd"))
    for round_ in range(5):
        path = write_log("alpha", placed(f"o-{round_}"))
        with Ledger(path) as ledger:
            ledger.compact(checkpoint=True)
        index = fresh(data)
        team_of(index, "o-0")
        index.close()
    assert before == len(os.listdir("/proc/self/fd"))


def test_several_threads_may_ask(data: Path, write_log: Write, placed: Event) -> None:
    """The streams of all accounts and the reconcile share one index."""
    write_log("alpha", *(placed(f"o-{number}") for number in range(50)))
    index, found = OrderIndex(data), []

    def ask() -> None:
        for number in range(50):
            write_log("bravo", placed(f"b-{threading.get_ident()}-{number}"))
            index.follow(look_for_new=True)
            found.append((team_of(index, f"o-{number}"), team_of(index, f"b-{threading.get_ident()}-{number}")))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [("alpha", "bravo")] * 150 == found


# Two ledgers that name one order.


def test_an_earlier_claim_of_another_ledger_counts(data: Path, write_log: Write, placed: Event) -> None:
    """A team gets no order by naming it in its own log, whichever log is read first."""
    write_log("bravo", placed("o-1", recorded_at="2026-01-05T15:00:00Z"))
    write_log("alpha", placed("o-1", recorded_at="2026-01-05T15:00:01Z"))
    owner = fresh(data).find_owner("o-1")
    assert owner is not None and owner.problem is not None
    assert ("bravo", True) == (owner.team, "log of alpha" in owner.problem)


def test_a_claim_against_the_name_counts_for_nothing(data: Path, write_log: Write, placed: Event) -> None:
    """Also where the team that is named has not heard of the order yet; but only a team that there is can be named."""
    write_log("alpha", placed("o-1"))
    assert "alpha" == team_of(fresh(data), "o-1", client_order_id="bravo:1")
    write_log("bravo", placed("o-2"))
    index = fresh(data)
    assert "bravo" == team_of(index, "o-1", client_order_id="bravo:1")
    assert "alpha" == team_of(index, "o-1", client_order_id="strat:1")


def test_what_is_about_to_be_written_gives_way_to_a_ledger(data: Path, write_log: Write, placed: Event) -> None:
    """A note is for the time until the line is there."""
    index = fresh(data)
    index.note("o-1", "alpha")
    assert "alpha" == team_of(index, "o-1")
    write_log("bravo", placed("o-1"))
    index.follow(look_for_new=True)
    assert "bravo" == team_of(index, "o-1")
