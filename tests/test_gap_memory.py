"""What is remembered of an account between resends: up to when all is known, its kind, and the newest id."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from compactor.broker.port import BrokerPort, Capabilities, ResendPoint, ResendResult, ResentBatch, Translation
from compactor.core.instants import rfc3339
from compactor.sync.gaps import GapClosed, Gaps
from compactor.sync.stream_writer import StreamWriter, Written

NOW = 1_772_461_800
MINUTE, HOUR, DAY, WEEK = 60, 3600, 86_400, 604_800


def translate(message: Any) -> Translation:
    return Translation([], [])


class Resender:
    """An account whose resend ends as it is said, and the writer of its messages."""

    def __init__(self, **result: Any) -> None:
        self.capabilities = Capabilities()
        self.result: dict[str, Any] = {"complete": True, "point": ResendPoint("trades", "id-2"), **result}
        self.batches = [2, 1]
        self.reached: list[tuple[str, str]] = []
        self.stops = False
        self.asked: list[tuple[str, str, ResendPoint]] = []
        self.stored: list[tuple[int, bool]] = []
        self.written = Written()

    def resend(self, since: str, until: str, point: ResendPoint, result: ResendResult) -> Iterator[ResentBatch]:
        self.asked.append((since, until, point))
        for number, size in enumerate(self.batches):
            reached = self.reached[number] if self.reached else ("", "")
            yield ResentBatch([b"{}"] * size, translate, number == 0, *reached)
        if self.stops:
            raise KeyboardInterrupt
        for name, value in self.result.items():
            setattr(result, name, value)

    def store(self, messages: list[bytes], how: Any, *, adopt: bool, resent: bool) -> Written:
        assert how is translate
        assert resent
        self.stored.append((len(messages), adopt))
        return self.written


def close(data: Path, one: Resender, now: float = NOW, account: str = "one") -> GapClosed:
    return make(data, one, now, account).close()


def make(data: Path, one: Resender, now: float = NOW, account: str = "one") -> Gaps:
    return Gaps(data, account, cast(BrokerPort, one), cast(StreamWriter, one), clock=lambda: now)


def memory(data: Path, account: str = "one") -> dict[str, Any]:
    return dict(json.loads((data / ".compactor/resend.json").read_bytes())[account])


def at(seconds: float) -> str:
    return rfc3339(int(seconds * 1e9))


def test_what_is_sent_again_is_counted_and_remembered(data: Path) -> None:
    """All of it is handed to the writer; without its origin an order is nobody's."""
    one = Resender()
    done = close(data, one)
    assert GapClosed("trades", 3, True, "", 0) == done
    assert [(2, True), (1, False)] == one.stored
    assert {"kind": "trades", "probed_at": at(NOW), "through": at(NOW), "cursor": "id-2"} == memory(data)
    close(data, one, NOW + 10)
    assert ResendPoint("trades", "id-2") == one.asked[-1][2]
    assert (at(NOW - 5 * MINUTE), at(NOW + 10)) == one.asked[-1][:2]


@pytest.mark.parametrize(
    ("known", "seconds"),
    [(None, HOUR + 300), (0, 300), (100, 400), (-100, 300), (WEEK - 301, WEEK - 1), (WEEK, WEEK), (30 * DAY, WEEK)],
)
def test_how_far_a_resend_looks_back(data: Path, known: float | None, seconds: int) -> None:
    """Five minutes behind what is known, an hour the first time, a week at most; a clock that was ahead hides none."""
    one = Resender()
    if known is not None:
        make(data, one).note_known(NOW - known)
    close(data, one)
    assert at(NOW - seconds) == one.asked[0][0]


def test_an_account_without_a_resend_is_asked_for_it_once_a_week(data: Path) -> None:
    one = Resender(complete=False, point=ResendPoint(), reason="no endpoint")
    assert GapClosed(None, 3, False, "no endpoint", 0) == close(data, one)
    for later, asked in ((1, 1), (WEEK - 1, 1), (WEEK, 2), (WEEK + DAY, 2)):
        close(data, one, NOW + later)
        assert asked == len(one.asked)
    assert at(NOW + WEEK) == memory(data)["probed_at"]
    close(data, one, NOW, "two")
    assert 3 == len(one.asked), "of another account that says nothing"


def test_a_broker_that_has_no_resend_is_never_asked(data: Path) -> None:
    one = Resender()
    one.capabilities = Capabilities(resends=False)
    assert GapClosed() == close(data, one)
    assert ([], False) == (one.asked, (data / ".compactor").exists())


def test_up_to_when_all_is_known_moves_only_with_a_complete_resend(data: Path) -> None:
    """Its kind is known all the same, and so is how far the ids were read."""
    one = Resender()
    close(data, one)
    one.result = {"complete": False, "reason": "dropped", "point": ResendPoint("activities", "id-3")}
    assert "dropped" == close(data, one, NOW + HOUR).reason
    assert ("activities", at(NOW), "id-3") == tuple(memory(data)[name] for name in ("kind", "through", "cursor"))


@pytest.mark.parametrize(
    ("reached", "through", "cursor"),
    [
        ([("", ""), ("", "")], 0, "id-2"),
        ([(at(NOW + 60), ""), (at(NOW + 120), "")], 120, "id-2"),
        ([(at(NOW + 120), ""), (at(NOW + 60), "")], 120, "id-2"),
        ([(at(NOW - 60), ""), ("", "id-4")], 0, "id-4"),
        ([("", "id-4"), ("", "id-1")], 0, "id-4"),
        ([(at(NOW + DAY), ""), ("", "")], HOUR, "id-2"),
        ([("yesterday", ""), ("", "")], 0, "id-2"),
    ],
)
def test_a_resend_that_is_stopped_goes_on_from_there(
    data: Path, reached: list[tuple[str, str]], through: float, cursor: str
) -> None:
    """A process that is killed again and again arrives all the same; no further than now, and never back."""
    one = Resender()
    close(data, one)
    one.reached, one.stops = reached, True
    with pytest.raises(KeyboardInterrupt):
        close(data, one, NOW + HOUR)
    assert (at(NOW + through), cursor) == (memory(data)["through"], memory(data)["cursor"])


@pytest.mark.parametrize("written", [Written(lost=1), Written(unread=1)])
def test_a_resend_that_is_stopped_skips_nothing_that_was_not_written(data: Path, written: Written) -> None:
    """What is lost, or could not be read, is asked for again."""
    one = Resender()
    close(data, one)
    one.reached, one.stops, one.written = [(at(NOW + 60), "id-4")] * 2, True, written
    with pytest.raises(KeyboardInterrupt):
        close(data, one, NOW + HOUR)
    assert (at(NOW), "id-2") == (memory(data)["through"], memory(data)["cursor"])


def test_a_resend_that_says_at_its_end_what_is_missing_is_asked_for_as_a_whole(data: Path) -> None:
    """A broker tells that it dropped messages after those that it sent."""
    one = Resender()
    close(data, one)
    one.reached = [(at(NOW + 60), "")] * 2
    one.result = {"complete": False, "reason": "dropped", "point": ResendPoint("trades", "id-2")}
    close(data, one, NOW + HOUR)
    assert at(NOW) == memory(data)["through"]


def test_what_was_lost_on_the_way_to_the_disk_is_sent_again(data: Path) -> None:
    one = Resender()
    close(data, one)
    one.result["point"], one.written = ResendPoint("trades", "id-3"), Written(lost=2)
    done = close(data, one, NOW + HOUR)
    assert (4, False, "") == (done.lost, done.complete, done.reason)
    assert (at(NOW), "id-2") == (memory(data)["through"], memory(data)["cursor"])


def test_entries_that_cannot_be_read_make_it_incomplete(data: Path) -> None:
    """What the broker says of it comes first."""
    one = Resender()
    one.written = Written(unread=1)
    done = close(data, one)
    assert ("2 entries could not be read", False) == (done.reason, done.complete)
    assert ("id-2", None) == (memory(data)["cursor"], memory(data)["through"])
    one.result["reason"] = "dropped"
    assert "dropped" == close(data, one).reason


def test_what_is_known_of_one_account_says_nothing_of_another(data: Path) -> None:
    one = Resender()
    make(data, one, account="two").note_known(NOW - DAY)
    make(data, one).note_known(NOW - 0.5)
    assert (at(NOW - 0.5), at(NOW - DAY)) == (memory(data)["through"], memory(data, "two")["through"])
    close(data, one)
    make(data, one).note_known(NOW + 5)
    assert ("trades", "id-2", at(NOW + 5)) == tuple(memory(data)[name] for name in ("kind", "cursor", "through"))
