"""An order's story: what the log tells of it, found by any of its ids, in sealed and unsealed history.

The laws compare the stories of all orders with the derived files; the rest are short stories.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compactor import Ledger
from compactor.core.derived import Finding, encode_lines
from compactor.core.lines import read_line
from compactor.core.rules import split_event
from compactor.history import search
from compactor.history.lookup import History, find_histories
from compactor.history.search import Finder
from compactor.ledger import LedgerEntry
from compactor.ledger.indexing import find_names
from compactor.ui.cli import app
from tests.conftest import ROOT
from tests.disk import Disk
from tests.test_laws import DIRECTORY, LOG, derived_from, disk_with, logs
from tests.test_replay import lived_in, spoiled

laws = settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
PLACE = LedgerEntry(None, DIRECTORY)
Event = Callable[..., dict[str, Any]]
WriteLog = Callable[..., Path]


def orders_in(log: bytes) -> list[str]:
    """Every order that an event of the log is about, legs included."""
    names: dict[str, None] = {}
    for line in log.split(b"\n")[:-1]:
        for piece in read_line(line, 0):
            if not isinstance(piece, Finding):
                names.update(dict.fromkeys(part.order_id for part in split_event(piece.event)))
    return [name for name in names if name]


def story_of(disk: Disk, order_id: str) -> History:
    """The one story of an order."""
    found = find_histories(PLACE, order_id, raw=True, files=disk)
    assert [order_id] == [one.story.order_id for one in found]
    return found[0]


@laws
@given(logs())
def test_the_stories_of_all_orders_are_what_the_files_say(log: bytes) -> None:
    """History: the trades that the events of an order made, the findings they raised, and its row, as in the files."""
    files, disk = derived_from(log), disk_with(log)
    stories = [story_of(disk, order_id).story for order_id in orders_in(log)]
    trades = (files.trades or b"").splitlines(keepends=True)
    told = {story.order_id: [t for event in story.events for t in event.trades] for story in stories}
    for order_id, made in told.items():
        mine = [line for line in trades if msgspec.json.decode(line)["order_id"] == order_id]
        assert mine == encode_lines(made).splitlines(keepends=True)
    assert len(trades) == sum(map(len, told.values()))
    rows = {row["order_id"]: row for row in map(msgspec.json.decode, (files.pending or b"").splitlines())}
    assert rows == {story.order_id: story.order for story in stories if story.open}
    written = [msgspec.json.decode(line, type=Finding) for line in (files.findings or b"").splitlines()]
    raised = [finding for story in stories for event in story.events for finding in event.findings]
    wanted = [one for one in written if one.applied and one.kind not in ("future_timestamp", "fused_line")]
    assert sorted((one.offset, one.kind, one.detail) for one in wanted) == sorted(
        (one.offset, one.kind, one.detail) for one in raised if one.kind != "fused_line"
    )


@laws
@given(logs(), st.data())
def test_a_story_is_the_same_sealed_or_not(log: bytes, data: st.DataObject) -> None:
    """History: with segments, and with indexes that are missing or damaged, the same answer."""
    names = orders_in(log)
    if not names:
        return
    disk, plain = data.draw(lived_in(log)), disk_with(log)
    name = data.draw(st.sampled_from([*names, "c-1", "x-1", "r-1"]))
    assert find_histories(PLACE, name, raw=True, files=plain) == find_histories(PLACE, name, raw=True, files=disk)


def test_no_byte_of_an_index_changes_an_answer(write_log: WriteLog, placed: Event, filled: Event) -> None:
    """History: one bit wrong anywhere in an index is noticed; the answer is the same, and the index is made again."""
    disk = Disk()
    events = [event(f"o{n}", source="stream") for n in range(20) for event in (placed, filled)]
    disk.put(LOG, b"".join(json.dumps(event).encode() + b"\n" for event in events))
    with Ledger(DIRECTORY, files=disk) as ledger:
        ledger.seal(now=True)
    path = next(path for path in disk.all_files() if path.suffix == ".index")
    good = disk.take(path)
    assert good is not None
    expected = [find_histories(PLACE, name, files=disk) for name in ("o7", "x-o19", "none")]
    assert [1, 1, 0] == list(map(len, expected))
    for place in range(len(good)):
        for name, answer in zip(("o7", "x-o19", "none"), expected, strict=True):
            disk.put(path, spoiled(good, place))
            assert answer == find_histories(PLACE, name, files=disk), f"byte {place}"
    disk.put(path, good[:-1])
    assert expected[0] == find_histories(PLACE, "o7", files=disk)
    assert good == disk.take(path)


def test_an_index_of_another_segment_is_not_believed(placed: Event) -> None:
    """History: an index is bound to the bytes of its segment; that of another ledger hides nothing."""
    disks = []
    for name in ("o1", "o2"):
        disk = Disk()
        disk.put(LOG, json.dumps(placed(name)).encode() + b"\n")
        with Ledger(DIRECTORY, files=disk) as ledger:
            ledger.seal(now=True)
        disks.append(disk)
    path = next(path for path in disks[0].all_files() if path.suffix == ".index")
    disks[0].put(path, disks[1].take(path) or b"")
    assert "o1" == story_of(disks[0], "o1").story.order_id
    assert [] == find_histories(PLACE, "o2", files=disks[0])


@pytest.fixture
def run(data: Path) -> Callable[..., Result]:
    """Run `history` on `data`."""
    return lambda *arguments: CliRunner().invoke(app, ["history", *arguments, "--data", str(data)])


class TestFinding:
    """From an id of any kind to the order."""

    @pytest.mark.parametrize(
        ("name", "found_as"),
        [("o1", "order_id"), ("mine-1", "client_order_id"), ("b-1", "client_order_id"), ("x-o1", "execution_id")],
    )
    def test_an_order_is_found_by_any_of_its_ids(
        self, name: str, found_as: str, data: Path, write_log: WriteLog, placed: Event, filled: Event
    ) -> None:
        """History takes an order_id, a client_order_id (or the broker's), an execution_id or a trade_id."""
        path = write_log("a", placed(client_order_id="mine-1", broker_order_id="b-1"), placed("o2"), filled())
        place = LedgerEntry("a", path)
        for _ in range(2):
            found = find_histories(place, name)
            assert [("o1", found_as, 2)] == [(one.story.order_id, one.found_as, len(one.story.events)) for one in found]
            with Ledger(path) as ledger:
                ledger.seal(now=True)

    def test_an_order_is_found_by_a_trade(self, write_log: WriteLog, placed: Event, filled: Event) -> None:
        """History of a trade_id is that of its order; one that looks like a trade's and is none finds nothing."""
        path = write_log("a", placed(), filled())
        Ledger(path).compact()
        trade_id = next(Ledger(path).rows("trades"))["trade_id"]
        found = find_histories(LedgerEntry("a", path), trade_id)
        assert [("o1", "trade_id")] == [(one.story.order_id, one.found_as) for one in found]
        for wrong in ("0-0", f"{trade_id}-1", "99999999-0", "1-0"):
            assert [] == find_histories(LedgerEntry("a", path), wrong)

    def test_a_leg_is_found_in_its_parents_fill(self, write_log: WriteLog) -> None:
        """4.10: the story of a leg has the fills that its parent's events tell of."""
        leg = {"order_id": "l1", "symbol": "SPY", "side": "buy", "qty": "1", "price": "2", "execution_id": "x"}
        fill = {"event": "fill", "order_id": "p", "ts": "2026-01-05T15:00:00Z", "legs": [leg]}
        path = write_log("a", fill)
        found = find_histories(LedgerEntry("a", path), "l1")
        assert [("0-0-0", 0)] == [(t.trade_id, told.leg) for told in found[0].story.events for t in told.trades]
        assert [("parent", "p")] == [(link.relation, link.order_id) for link in found[0].chain]

    def test_an_id_that_is_written_with_escapes_is_found(self, write_log: WriteLog, placed: Event) -> None:
        """An id is what the JSON says, however it is spelled, sealed or not."""
        line = json.dumps(placed("café/1")).replace("/1", "\\/1")
        assert "\\u00e9\\/1" in line
        path = write_log("a", line)
        for _ in range(2):
            assert "café/1" == find_histories(LedgerEntry("a", path), "café/1")[0].story.order_id
            with Ledger(path) as ledger:
                ledger.seal(now=True)

    def test_a_line_that_was_not_applied_belongs_to_the_story(self, write_log: WriteLog, placed: Event) -> None:
        """History: what could not be read but names the order is told, sealed or not."""
        path = write_log("a", placed(), '{"event":"canceled","order_id":"o1","ts":', placed(ts="never"))
        for _ in range(2):
            story = find_histories(LedgerEntry("a", path), "o1")[0].story
            assert ["not_json", "bad_value"] == [finding.kind for finding in story.unread]
            with Ledger(path) as ledger:
                ledger.seal(now=True)


class TestTelling:
    def test_each_event_says_what_it_changed(self, write_log: WriteLog, placed: Event, filled: Event) -> None:
        """History: status before and after, terms, fills, findings; a second delivery changes nothing."""
        cancel = {"event": "canceled", "order_id": "o1", "ts": "2026-01-05T15:00:02Z"}
        part = filled(event="partial_fill", qty="4", filled_qty="4", event_id="e")
        restated = {"event": "restated", "order_id": "o1", "ts": "2026-01-05T15:00:01Z", "limit_price": "531.00"}
        late = filled(execution_id="y", qty="1", filled_qty="5", ts="2026-01-05T15:00:03Z")
        path = write_log("a", placed(), part, part, restated, cancel, late)
        told = find_histories(LedgerEntry("a", path), "o1")[0].story.events
        statuses = [(one.status_before, one.status_after) for one in told]
        partly, ended = "partially_filled", "canceled"
        expected = [(None, "new"), ("new", partly), (partly, partly), (partly, partly), (partly, ended), (ended, ended)]
        assert expected == statuses
        assert [False, False, True, False, False, False] == [one.repeated for one in told]
        assert {"limit_price": ("530.00", "531.00")} == told[3].changes
        assert ("0", "4") == told[1].changes["filled_qty"]
        assert [0, 1, 0, 0, 0, 1] == [len(one.trades) for one in told]
        assert ["late_fill"] == [finding.kind for finding in told[5].findings]

    def test_the_chain_of_replaced_orders_is_followed_both_ways(self, write_log: WriteLog, placed: Event) -> None:
        """History: replaces, replaced_by and parents, whichever side of the chain tells of them."""
        path = write_log(
            "a",
            placed("o1"),
            {"event": "replaced", "order_id": "o1", "ts": "2026-01-05T15:00:01Z", "replaced_by": "o2"},
            placed("o2"),
            placed("o3", replaces="o2"),
            placed("leg", parent_order_id="o2"),
        )
        chain = find_histories(LedgerEntry("a", path), "o3")[0].chain
        assert [("replaces", "o2", "o3", "new"), ("replaces", "o1", "o2", "replaced")] == [
            (link.relation, link.order_id, link.to, link.status) for link in chain
        ]
        middle = find_histories(LedgerEntry("a", path), "o2")[0].chain
        assert {("replaces", "o1"), ("replaced_by", "o3"), ("leg", "leg")} == {
            (link.relation, link.order_id) for link in middle
        }

    def test_orders_that_replace_each_other_in_a_ring_come_to_an_end(self, write_log: WriteLog, placed: Event) -> None:
        """A chain is followed once around, whatever a log says."""
        path = write_log("a", placed("o1", replaces="o2"), placed("o2", replaces="o1"))
        assert ["o2"] == [link.order_id for link in find_histories(LedgerEntry("a", path), "o1")[0].chain]

    def test_each_id_is_searched_for_once(
        self, write_log: WriteLog, placed: Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is not sealed is read whole for each search."""
        path = write_log("a", placed("o1", client_order_id="c1"), placed("o2", replaces="o1"))
        searched: list[str] = []
        find_pieces = Finder.find_pieces

        def note(finder: Finder, names: list[str], team_id: str) -> Any:
            searched.extend(names)
            return find_pieces(finder, names, team_id)

        monkeypatch.setattr(Finder, "find_pieces", note)
        (found,) = find_histories(LedgerEntry("a", path), "o2")
        assert ["o1"] == [link.order_id for link in found.chain]
        assert ["c1", "o1", "o2"] == sorted(searched)

    @pytest.mark.parametrize("is_sealed", [False, True])
    @pytest.mark.parametrize("has_names", [False, True])
    def test_a_long_line_is_decoded_a_few_times_whatever_it_names(
        self, write_log: WriteLog, placed: Event, monkeypatch: pytest.MonkeyPatch, is_sealed: bool, has_names: bool
    ) -> None:
        """One that names all legs of an order was decoded for each of them, which took seconds for a megabyte."""
        legs = [{"order_id": f"l{number}", "symbol": "A", "side": "buy"} for number in range(100)]
        fills = [{**leg, "qty": "1", "price": "2", "execution_id": f"e{number}"} for number, leg in enumerate(legs)]
        told = [
            placed(f"l{number}", client_order_id=f"c{number}" if has_names else None, parent_order_id="m")
            for number in range(100)
        ]
        long_line = placed("long", legs=fills + [{"order_id": f"more-{number}"} for number in range(200)])
        path = write_log("a", placed("m", order_class="mleg", legs=legs), *told, long_line, long_line)
        if is_sealed:
            with Ledger(path) as ledger:
                ledger.seal(now=True)
        decoded: list[bytes] = []

        def note(line: bytes) -> set[str]:
            decoded.append(line)
            return find_names(line)

        monkeypatch.setattr(search, "find_names", note)
        (found,) = find_histories(LedgerEntry("a", path), "m")
        assert 100 == len(found.chain)
        assert {"new"} == {link.status for link in found.chain}
        assert 1 < sum(b"more-" in line for line in decoded) <= 8
        assert len(decoded) < 5 * 103


class TestCommand:
    def test_an_order_that_was_asked_for_tells_who_asked_and_why(
        self, run: Callable[..., Result], write_log: WriteLog
    ) -> None:
        """Issue 14, 3.13: what was asked, what was refused and why, and where an order came from."""
        log = (ROOT / "fixtures/cases/3.13-an-intent-is-no-order/events.jsonl").read_text()
        ledger = write_log("alpha", *log.splitlines())
        entry = LedgerEntry("alpha", ledger)
        for name in ("o-1", "alpha:2"):
            (order,) = find_histories(entry, name)
            assert ("o-1", "submitted") == (order.story.order_id, order.story.origin)
            assert ["submitting", "submitted"] == [one.event for one in order.story.intents]
        (refused,) = find_histories(entry, "alpha:1")
        assert (None, {}) == (refused.story.origin, refused.story.order)
        assert (["pairs"], "spread above 2") == (refused.story.intents[0].tags, refused.story.intents[0].note)
        assert (422, "42210000") == (refused.story.intents[1].status, refused.story.intents[1].code)
        (adopted,) = find_histories(entry, "o-2")
        assert "adopted" == adopted.story.origin
        assert "refused; HTTP 422; qty must be > 0" in run("alpha:1").output
        assert "origin: adopted" in run("o-2").output

    def test_a_timeline_for_people(
        self, run: Callable[..., Result], write_log: WriteLog, placed: Event, filled: Event
    ) -> None:
        """Every event on a line with offset, both times, source and status; what it did below it."""
        write_log("a", placed(recorded_at="2026-01-05T15:00:00.123456789Z"), filled(source="stream"))
        result = run("o1")
        assert 0 == result.exit_code
        assert "a: order o1" == result.stdout.splitlines()[0]
        for words in ("new -> filled", "2026-01-05T15:00:00.123456789Z", "stream", ": fill buy 10 SPY @ 529.98"):
            assert words in result.stdout

    def test_json_is_one_object_for_each_order(
        self, run: Callable[..., Result], write_log: WriteLog, placed: Event
    ) -> None:
        """--json: everything; with --raw also the line and the broker's message, verbatim."""
        event = placed(raw={"a": [1.50, "x"]})
        write_log("a", json.dumps(event))
        write_log("b", placed())
        plain, raw = run("o1", "--json"), run("o1", "--json", "--raw", "--team", "a")
        assert ["a", "b"] == [json.loads(line)["team_id"] for line in plain.stdout.splitlines()]
        told = json.loads(raw.stdout)["story"]["events"][0]
        assert (json.dumps(event), {"a": [1.50, "x"]}) == (told["line"], told["raw"])

    def test_a_time_of_record_that_nobody_set_is_not_shown(
        self, run: Callable[..., Result], write_log: WriteLog, placed: Event, filled: Event
    ) -> None:
        """Section 2: Go writes year 1 for no time; what was recorded is shown to the letter."""
        told = "2026-01-05T15:00:00.123456789Z"
        write_log("a", placed(recorded_at="0001-01-01T00:00:00Z"), filled(recorded_at=told))
        story = json.loads(run("o1", "--json").stdout)["story"]
        assert [None, told] == [event.get("recorded_at") for event in story["events"]]

    def test_an_id_that_nothing_names(self, run: Callable[..., Result], write_log: WriteLog, placed: Event) -> None:
        """Exit code 1, and what was looked for."""
        write_log("a", placed())
        result = run("o17")
        assert (1, "") == (result.exit_code, result.stdout)
        assert "names 'o17'; expected the id of an order" in result.stderr

    def test_what_stands_in_a_log_cannot_repaint_the_terminal(
        self, run: Callable[..., Result], write_log: WriteLog, placed: Event
    ) -> None:
        """Control characters in a log are written out."""
        write_log("a", placed(symbol="\x1b[2J", source="\x1b[1m"))
        assert "\x1b" not in run("o1", "--raw").stdout

    def test_the_example_in_the_documentation_is_what_the_program_prints(
        self, run: Callable[..., Result], write_log: WriteLog
    ) -> None:
        """docs/audit.md shows a story as it is told, to the letter."""
        day = "2026-01-05T15:0"
        terms = {"symbol": "SPY", "side": "buy", "quantity": "10", "order_type": "limit", "limit_price": "530.00"}
        first = {"execution_id": "x-1", "price": "529.98", "qty": "4", "filled_qty": "4"}
        late = {"execution_id": "x-2", "price": "529.97", "qty": "6", "filled_qty": "10"}
        told = [
            ("new", "0:00Z", "0:00.101000001Z", "stream", terms),
            ("partial_fill", "0:01Z", "0:01.090000007Z", "stream", first),
            ("canceled", "0:02Z", "0:02.110000003Z", "stream", {}),
            ("fill", "0:01.5Z", "4:07.730000009Z", "rest", late),
        ]
        for name, ts, recorded_at, source, fields in told:
            event = {
                "event": name,
                "order_id": "o1",
                "ts": day + ts,
                "recorded_at": day + recorded_at,
                "source": source,
            }
            write_log("alice", json.dumps({**event, **fields}, separators=(",", ":")))
        shown = (ROOT / "compactor/docs/audit.md").read_text()
        printed = "".join(f"    {line}\n" for line in run("o1", "--team", "alice").stdout.splitlines())
        assert "    $ compactor history o1 --team alice\n" + printed in shown


def test_an_event_of_another_team_does_not_say_what_an_id_means(tmp_path: Path, placed: Event) -> None:
    """1.2: its client order id finds no order here, and its line is among what was not applied."""
    path = tmp_path / "team" / "alpha"
    path.mkdir(parents=True)
    mine = placed(order_id="o-1", client_order_id="mine")
    foreign = placed(order_id="o-2", client_order_id="mine", team_id="bravo")
    (path / "events.jsonl").write_text("".join(json.dumps(one) + "\n" for one in (mine, foreign)))
    found = find_histories(LedgerEntry("alpha", path), "mine")
    assert [("client_order_id", "o-1")] == [(one.found_as, one.story.order_id) for one in found]
    (other,) = find_histories(LedgerEntry("alpha", path), "o-2")
    assert "mention" == other.found_as and [] == other.story.events
    assert ["wrong_team"] == [finding.kind for finding in other.story.unread]
