"""Appending: everything is checked before anything is written, and what is acknowledged is in the log for good."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from compactor import Ledger, RejectedEvents
from compactor.core.events import LINE_BYTES_MAX
from compactor.core.instants import nanos
from tests.cases import LOG
from tests.faults import environment

Event = Callable[..., dict[str, Any]]
NUMBER = b'{"event":"new","order_id":"o1","ts":"2026-03-02T10:00:00Z","quantity":%s}'


@pytest.fixture
def ledger(data: Path) -> Ledger:
    """The ledger of team alpha, which is not there yet."""
    return Ledger(data / "team" / "alpha")


def log_of(ledger: Ledger) -> bytes:
    path = ledger.path / LOG
    return path.read_bytes() if path.exists() else b""


def events_of(ledger: Ledger) -> list[dict[str, Any]]:
    """The events of a log; a writer that met another's half written line has left a blank one before its own."""
    return [json.loads(line) for line in log_of(ledger).splitlines() if line]


def rejected(ledger: Ledger, *events: Mapping[str, Any] | bytes | str) -> list[tuple[int, str]]:
    """The line numbers and kinds of what is refused; and nothing is written."""
    before = log_of(ledger)
    with pytest.raises(RejectedEvents, match="nothing was appended") as error:
        ledger.append(events)
    assert before == log_of(ledger)
    return [(number, problem.kind) for number, problem in error.value.problems]


class TestWhatIsTaken:
    def test_an_event_is_one_line_that_can_be_compacted(self, ledger: Ledger, placed: Event, filled: Event) -> None:
        """Mappings, texts and bytes alike; where they lie is told."""
        first = ledger.append([placed(), json.dumps(filled())])
        second = ledger.append([json.dumps(placed("o2")).encode() + b"\n"])

        assert (0, first.length, 2, len(log_of(ledger)) - first.length, 1) == (
            first.offset, second.offset, first.events, second.length, second.events,
        )  # fmt: skip
        assert ["o1", "o1", "o2"] == [event["order_id"] for event in events_of(ledger)]
        done = ledger.compact()
        assert (3, 1, 1, 0, 0) == (done.events, done.trades, done.open_orders, done.findings, done.tail_bytes)

    def test_every_field_is_kept_behind_the_four_that_come_first(self, ledger: Ledger, placed: Event) -> None:
        """2: `raw` verbatim, unknown fields too."""
        raw = {"z": [1, {"a": None}], "text": "é\u2028\\", "big": 10**30, "price": "530.00"}
        event = placed(raw=raw, colour="blue", event_id="e-1")
        ledger.append([event])
        [found] = events_of(ledger)

        assert ["event", "order_id", "ts", "recorded_at"] == list(found)[:4]
        assert event == {name: value for name, value in found.items() if name != "recorded_at"}

    def test_recorded_at_is_stamped_and_a_given_one_replaced(self, ledger: Ledger, placed: Event) -> None:
        """2: our own writer always stamps it, with its own clock."""
        ledger.append([placed()])
        ledger.append([placed(recorded_at="1999-01-01T00:00:00Z"), json.dumps(placed(recorded_at=None))])
        stamps = [nanos(event["recorded_at"]) for event in events_of(ledger)]
        assert sorted(stamps) == stamps
        assert all(nanos("2026-01-01T00:00:00Z") < stamp for stamp in stamps)

    @pytest.mark.parametrize(
        "number", ["530.10", "0.1", "1E2", "1e-7", "0.30000000000000000000000000000004", "5", "9" * 30]
    )
    def test_a_json_number_is_written_digit_by_digit(self, number: str, ledger: Ledger) -> None:
        """2: never through a float, neither in a field that we know nor in the broker's message."""
        line = b'{"event":"snapshot","order_id":"o1","ts":"2026-03-02T10:00:00Z","limit_price":%s,"raw":[%s]}'
        ledger.append([line % (number.encode(), number.encode())])
        assert b'"limit_price":%s,"raw":[%s]}\n' % (number.encode(), number.encode()) in log_of(ledger)

    def test_decimals_of_a_mapping_are_taken(self, ledger: Ledger, placed: Event) -> None:
        """2: written as they are, without exponent; in the broker's message too."""
        ledger.append([placed(quantity=Decimal("1E+2"), limit_price=Decimal("530.00"), raw=[Decimal("0.10")])])
        [event] = events_of(ledger)
        assert ("100", "530.00", ["0.10"]) == (event["quantity"], event["limit_price"], event["raw"])

    def test_decimals_of_legs_are_taken(self, ledger: Ledger) -> None:
        """4.10: a leg's numbers are numbers of the format too."""
        leg = {"order_id": "l-1", "symbol": "SPY", "side": "buy", "qty": Decimal(1), "price": Decimal("530.00")}
        ledger.append([{"event": "fill", "order_id": "p-1", "ts": "2026-03-02T10:00:00Z", "legs": [leg]}])
        assert {**leg, "qty": "1", "price": "530.00"} == events_of(ledger)[0]["legs"][0]

    def test_pretty_printed_json_becomes_one_line(self, ledger: Ledger, placed: Event) -> None:
        """2: one object, one line, whatever white space it came with."""
        ledger.append([json.dumps(placed(raw="a\nb"), indent=2)])
        assert 1 == log_of(ledger).count(b"\n")
        assert "a\nb" == events_of(ledger)[0]["raw"]

    def test_blank_lines_are_passed_over(self, ledger: Ledger, placed: Event) -> None:
        """2: blank lines are ignored, and counted as lines all the same."""
        assert 1 == ledger.append([b"", "  \n", json.dumps(placed()), b"\r\n"]).events
        assert [(3, "not_json")] == rejected(ledger, "\n", placed(), "{")

    def test_nothing_to_append_makes_nothing(self, ledger: Ledger) -> None:
        """No event is no write, and no directory."""
        done = ledger.append([])
        assert (0, 0, 0) == (done.offset, done.length, done.events)
        assert not ledger.path.exists()

    def test_a_line_of_just_a_mebibyte_is_taken(self, ledger: Ledger, placed: Event) -> None:
        """2: at most 1,048,576 bytes, stamp and all."""
        empty = ledger.append([placed(raw="")]).length - 1
        room = LINE_BYTES_MAX - empty
        ledger.append([placed("o2", raw="x" * room)])
        assert [(1, "too_long")] == rejected(ledger, placed("o2", raw="x" * (room + 1)))
        assert 0 == ledger.compact().findings


class TestWhatIsRefused:
    def test_one_bad_event_refuses_all_with_its_line(self, ledger: Ledger, placed: Event, filled: Event) -> None:
        """All or nothing; every problem is named with its number."""
        lines: list[Any] = ["{", "[]", {**placed(), "ts": None}, filled(qty="-1"), b"\xff", filled(price=None), "null"]
        expected = ["not_json", "bad_value", "missing_field", "bad_value", "not_utf8", "missing_field", "bad_value"]
        assert list(enumerate(expected, 2)) == rejected(ledger, placed(), *lines, placed("o2"))
        assert not ledger.path.exists()

    def test_a_line_is_checked_as_a_mapping_is(self, ledger: Ledger, placed: Event, filled: Event) -> None:
        """2: what is missing, what is no value, and whose it is."""
        nothing, half = '{"event":"new"}', '{"event":"new","order_id":"o1"}'
        lines = [json.dumps(one) for one in (filled(qty="-1"), placed(team_id="bravo"))]
        expected = ["missing_field", "missing_field", "bad_value", "wrong_team"]
        assert list(enumerate(expected, 1)) == rejected(ledger, nothing, half, *lines)

    def test_the_message_names_the_first_and_counts_the_rest(self, ledger: Ledger) -> None:
        """A thousand bad lines make a message that can be read."""
        with pytest.raises(RejectedEvents) as error:
            ledger.append(["{"] * 1000)
        text = str(error.value)
        assert f"{ledger.path / LOG}: nothing was appended, because of 1000 bad lines. line 1: not_json" in text
        assert "and 995 more" in text
        assert len(text) < 1000

    @pytest.mark.parametrize("field", ["quantity", "limit_price", "raw"])
    def test_a_float_of_a_mapping_is_refused_where_it_counts(self, field: str, ledger: Ledger, placed: Event) -> None:
        """2: its digits are not exact; in the broker's message, which is never interpreted, it may stand."""
        event = placed(**{field: 0.1})
        if field == "raw":
            assert 1 == ledger.append([event]).events
        else:
            assert [(1, "bad_value")] == rejected(ledger, event)

    def test_an_event_of_another_team_is_refused(self, ledger: Ledger, data: Path, placed: Event) -> None:
        """2: `team_id`, if present, must be this ledger's; a ledger that its events name takes any."""
        assert [(2, "wrong_team")] == rejected(ledger, placed(team_id="alpha"), placed(team_id="bravo"))
        assert 1 == Ledger(data).append([placed(team_id="bravo")]).events

    @pytest.mark.parametrize(
        "value",
        [object(), {1, 2}.__iter__(), float("nan"), Decimal("NaN"), "\ud800", {"a": object()}],
        ids=["an object", "an iterator", "nan", "NaN", "a surrogate", "an object inside"],
    )
    def test_what_json_cannot_say_is_refused(self, value: object, ledger: Ledger, placed: Event) -> None:
        """A mapping may hold anything; what cannot be written is a problem and never an exception of another kind."""
        assert [(1, "bad_value")] == rejected(ledger, placed(quantity=value))
        if not isinstance(value, float | Decimal):
            assert [(1, "bad_value")] == rejected(ledger, placed(raw=value))

    def test_a_text_that_cannot_be_utf8_is_a_problem(self, ledger: Ledger, placed: Event) -> None:
        """2: UTF-8; half of a surrogate pair is what Python makes of other bytes, from a file name for example."""
        assert [(1, "not_utf8")] == rejected(ledger, json.dumps(placed("\ud800"), ensure_ascii=False))

    def test_half_of_an_escaped_character_costs_no_event(self, ledger: Ledger, placed: Event) -> None:
        """2: what cuts a text in the middle of a pair writes half of it; it is recorded as U+FFFD."""
        assert (
            2 == ledger.append([json.dumps(placed("o1\ud83d")), json.dumps(placed("o2", raw="\ud83d")).encode()]).events
        )
        assert ["o1\ufffd", "o2"] == [json.loads(line)["order_id"] for line in log_of(ledger).splitlines()]

    def test_bytes_that_are_no_utf8_are_refused_wherever_they_stand(self, ledger: Ledger) -> None:
        """2: also in the broker's message, which nobody reads."""
        line = b'{"event":"new","order_id":"o1","ts":"2026-03-02T10:00:00Z","raw":"%b"}'
        assert [(2, "not_utf8")] == rejected(ledger, line % b"x", line % b"\xff")

    def test_deep_nesting_is_a_problem(self, ledger: Ledger) -> None:
        """A hostile line never ends the program."""
        assert [(1, "not_json")] == rejected(ledger, b'{"raw":' + b"[" * 100_000)


class TestTheLog:
    def test_a_torn_last_line_gets_its_newline_first(self, ledger: Ledger, placed: Event) -> None:
        """Another writer was cut off: its bytes stay, and ours begin a line of their own."""
        ledger.append([placed()])
        with (ledger.path / LOG).open("ab") as log:
            log.write(b'{"event":"fil')
        before = log_of(ledger)
        done = ledger.append([placed("o2")])

        assert before + b"\n" == log_of(ledger)[: done.offset]
        assert len(log_of(ledger)) == done.offset + done.length
        compaction = ledger.compact()
        assert (2, 1) == (compaction.events, compaction.findings)

    def test_what_is_there_is_never_touched(self, ledger: Ledger, placed: Event) -> None:
        """1: the log is the truth; the same file grows, whatever stands in it."""
        ledger.path.mkdir(parents=True)
        (ledger.path / LOG).write_bytes(b"\0\xff not json\n\n")
        inode = (ledger.path / LOG).stat().st_ino
        ledger.append([placed()])
        assert log_of(ledger).startswith(b"\0\xff not json\n\n{")
        assert inode == (ledger.path / LOG).stat().st_ino

    @pytest.mark.parametrize("is_its_own", [False, True])
    @pytest.mark.parametrize(("durability", "syncs"), [("sync", True), ("none", False)])
    def test_durability_none_does_not_wait(
        self, durability: Any, syncs: bool, is_its_own: bool, ledger: Ledger, placed: Event,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        """`sync` returns when the events are on disk; `none` when the kernel has them. New names are on disk both ways,
        since an append that is to be durable cannot tell whether those of an earlier one are."""
        synced: list[str] = []
        real = {name: getattr(os, name) for name in ("fsync", "fdatasync")}

        def note(descriptor: int, name: str) -> None:
            synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
            real[name](descriptor)

        for name in real:
            monkeypatch.setattr(os, name, lambda descriptor, name=name: note(descriptor, name))
        own = Ledger(ledger.path, durability=durability) if is_its_own else ledger
        for order_id in ("o1", "o2"):
            own.append([placed(order_id)], durability=None if is_its_own else durability)

        log, team = str(ledger.path / LOG), ledger.path
        names = [str(team), str(team.parent), str(team.parent.parent), log, log]
        assert (names if syncs else names[:3]) == synced
        assert 2 == len(events_of(ledger))

    def test_writers_at_once_lose_and_tear_nothing(self, ledger: Ledger) -> None:
        """Every acknowledged event of several processes is in the log once, whole, where it was said to be."""
        ledger.path.mkdir(parents=True)
        code = (
            "import sys; from compactor import Ledger\n"
            "ledger = Ledger(sys.argv[1], durability='none'); sys.stdin.readline()\n"
            "for turn in range(60):\n"
            "    ids = [f'{sys.argv[2]}-{turn}-{one}' for one in range(turn % 4 + 1)]\n"
            "    raw = 'x' * (turn * 50)\n"
            "    head = {'event': 'new', 'ts': '2026-03-02T10:00:00Z', 'raw': raw}\n"
            "    done = ledger.append([{**head, 'order_id': name} for name in ids])\n"
            "    print(done.offset, done.length, *ids)\n"
        )
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(ledger.path), f"w{number}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment(),
                text=True,
            )
            for number in range(4)
        ]
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write("go\n")
            writer.stdin.flush()
        told = [line.split() for writer in writers for line in writer.communicate()[0].splitlines()]
        assert [0] * 4 == [writer.returncode for writer in writers]

        log = log_of(ledger)
        names = [event["order_id"] for event in events_of(ledger)]
        assert sorted(names) == sorted(name for _, _, *ids in told for name in ids)
        assert 4 * 60 * 5 // 2 == len(set(names)) == len(names)
        for offset, length, *ids in told:
            piece = log[int(offset) : int(offset) + int(length)]
            assert ids == [json.loads(line)["order_id"] for line in piece.splitlines()]
        assert len(names) == ledger.compact().events
