"""The log's own clock: which times move it, which wait, and which prove to be wild (6.1)."""

from datetime import UTC, datetime, timedelta

import pytest

from compactor.core.clock import LogClock
from compactor.core.events import EVENTS

START = datetime(2026, 3, 2, 12, tzinfo=UTC)
DAY, HOUR, LEAST = timedelta(days=1), timedelta(hours=1), timedelta(microseconds=1)


def told(after: timedelta) -> str:
    return (START + after).isoformat()


@pytest.mark.parametrize(
    ("times", "clock", "wild"),
    [
        # Up to a day ahead the clock follows, and it never goes back.
        ([DAY], DAY, []),
        ([-LEAST, -9 * DAY], 0 * DAY, []),
        ([HOUR, DAY + HOUR, HOUR], DAY + HOUR, []),
        # More than a day ahead a time waits; what the clock has come to already decides nothing.
        ([DAY + LEAST], 0 * DAY, []),
        ([9 * DAY, 0 * DAY, -HOUR], 0 * DAY, []),
        # Another time ahead confirms it, if it is at most a day before it, or after it.
        ([9 * DAY, 9 * DAY], 9 * DAY, []),
        ([9 * DAY, 9 * DAY + HOUR], 9 * DAY + HOUR, []),
        ([9 * DAY, 9 * DAY - HOUR], 9 * DAY, []),
        ([9 * DAY, 8 * DAY], 9 * DAY, []),
        ([9 * DAY, 8 * DAY, 20 * DAY], 9 * DAY, []),
        ([9 * DAY, 10 * DAY], 10 * DAY, []),
        ([9 * DAY, 10 * DAY, 10 * DAY + HOUR, 11 * DAY + HOUR], 11 * DAY + HOUR, []),
        # One that is more than a day after it waits in turn; one that is more than a day before it shows it to be wild.
        ([9 * DAY, 10 * DAY + LEAST], 9 * DAY, []),
        ([9 * DAY, 10 * DAY + LEAST, 11 * DAY], 11 * DAY, []),
        ([9 * DAY, 8 * DAY - LEAST], 0 * DAY, [0]),
        ([9 * DAY, 8 * DAY - LEAST, 8 * DAY], 8 * DAY, [0]),
        ([99 * DAY, 50 * DAY, 9 * DAY, HOUR], HOUR, [0, 1, 2]),
        # An event that moves the clock confirms what is at most a day ahead of it then.
        ([DAY + HOUR, HOUR], DAY + HOUR, []),
        ([DAY + HOUR, HOUR - LEAST], HOUR - LEAST, [0]),
        ([9 * DAY, HOUR, 9 * DAY], HOUR, [0]),
        ([DAY + HOUR, HOUR, 2 * DAY + HOUR], 2 * DAY + HOUR, []),
    ],
)
def test_a_time_that_nothing_confirms_does_not_move_the_clock(
    times: list[timedelta], clock: timedelta, wild: list[int]
) -> None:
    """6.1: a quiet weekend moves the clock, a wild time is a finding where it stands."""
    log_clock = LogClock(now=START)
    found = [log_clock.take(EVENTS["new"]("o", told(after)), 100 * at, 7) for at, after in enumerate(times)]
    assert START + clock == log_clock.now
    findings = [one for one in found if one is not None]
    assert [(100 * at, 7, "future_timestamp", True) for at in wild] == [
        (one.offset, one.length, one.kind, one.applied) for one in findings
    ]
    assert all(told(times[at]) in one.detail for at, one in zip(wild, findings, strict=True))


def test_the_time_of_the_writer_is_not_doubted() -> None:
    """6.1: `recorded_at` moves the clock however far it is ahead, whatever `ts` says; a time that waited is judged."""
    log_clock = LogClock()
    for recorded, wild in [(0 * DAY, None), (400 * DAY, None), (9 * DAY, None)]:
        assert wild is log_clock.take(EVENTS["new"]("o", told(999 * DAY), recorded_at=START + recorded), 0, 1)
    assert START + 400 * DAY == log_clock.now
    assert log_clock.take(EVENTS["new"]("o", told(500 * DAY)), 5, 1) is None
    report = log_clock.take(EVENTS["new"]("o", told(0 * DAY), recorded_at=START + 401 * DAY), 6, 1)
    assert report is not None and 5 == report.offset
    assert (START + 401 * DAY, None) == (log_clock.now, log_clock.ahead)


def test_the_first_time_is_taken_whatever_it_is() -> None:
    """6.1: a log begins somewhere, and there is nothing yet to hold its first time against."""
    log_clock = LogClock()
    assert log_clock.take(EVENTS["new"]("o", told(0 * DAY)), 0, 1) is None
    assert START == log_clock.now
    log_clock.advance(START - HOUR)
    assert START == log_clock.now
