"""Instants: the grammar, nanoseconds, and comparison."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compactor.core.instants import BadInstant, is_common, is_older, moment, nanos, rfc3339

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Seconds as `date -u +%s -d` counts them.
GOOD = {
    "2026-03-02T14:30:00Z": 1_772_461_800 * 10**9,
    "2026-03-02t14:30:00z": 1_772_461_800 * 10**9,
    "2026-03-02 14:30:00+00:00": 1_772_461_800 * 10**9,
    "2026-03-02T14:30:00.1-05:00": 1_772_479_800_100_000_000,
    "2026-03-02T14:30:00.123456789+14:00": 1_772_411_400_123_456_789,
    "2024-02-29T00:00:00Z": 1_709_164_800 * 10**9,
    "1969-12-31T23:59:59.999999999Z": -1,
    "1900-01-01T00:00:00.000Z": -2_208_988_800 * 10**9,
    "2261-12-31T23:59:59.999999999Z": 9_214_646_400 * 10**9 - 1,
    "2016-12-31T23:59:60.5Z": 1_483_228_800_500_000_000,
}
BAD = [
    "", "2026-03-02", "2026-03-02T14:30Z", "2026-03-02T14:30:00", "2026-03-02T14:30:00.Z", "2026-03-02T14:30:00,5Z",
    "2026-03-02T14:30:00.1234567890Z", "2026-03-02T14:30:00+0500", "2026-03-02T14:30:00+05", "2026-3-2T14:30:00Z",
    "2026-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "2026-03-02T24:00:00Z", "2026-03-02T14:60:00Z",
    "2026-03-02T14:30:61Z", "2026-03-02T14:30:00+25:00", " 2026-03-02T14:30:00Z", "2026-03-02T14:30:00Z\n",
    "2026-03-02T14:30:00.123456x89Z", "2026-03-02T14:30:00.1234567 Z", "2026-03-02T14:30:00.12345678٢Z",
    "2026-03-02T14:30:00.123456789ZZ", "2026-03-02T14:30:00.12345xZ",
    "20260302T143000Z", "2026-W10-1T00:00:00Z", "1772461800", "٢026-03-02T14:30:00Z", "0001-01-01T00:00:00+01:00",
    "1899-12-31T23:59:59.999999999Z", "1900-01-01T00:00:00+00:01", "2261-12-31T23:59:60Z", "2262-01-01T00:00:00.0Z",
    "9999-12-31T23:59:60Z", "0001-01-01T00:00:00.0Z", "1600-02-29T00:00:00.000Z", "2026-03-02T24:00:00.0Z",
]  # fmt: skip
DAYS_TO_1970 = 719_162


def days_before(year: int, month: int, day: int) -> int:
    """Days from 0001-01-01, counted by the calendar's rules and nothing of `datetime`."""
    before = year - 1
    leap = (year % 4 == 0 and year % 100 != 0) or year % 400 == 0
    months = [31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    return before * 365 + before // 4 - before // 100 + before // 400 + sum(months[: month - 1]) + day - 1


@st.composite
def instants(draw: st.DrawFn) -> tuple[str, int]:
    """A text of the grammar and its nanoseconds, computed independently."""
    year, month, day = draw(st.integers(1901, 2260)), draw(st.integers(1, 12)), draw(st.integers(1, 28))
    hour, minute, second = draw(st.integers(0, 23)), draw(st.integers(0, 59)), draw(st.integers(0, 59))
    fraction = draw(st.text("0123456789", max_size=9))
    sign, ahead = draw(st.sampled_from([1, -1])), draw(st.integers(0, 23 * 60 + 59))
    offset = "Z" if not ahead else f"{'+' if sign > 0 else '-'}{ahead // 60:02}:{ahead % 60:02}"
    text = f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}" + ("." + fraction if fraction else "")
    days = days_before(year, month, day) - DAYS_TO_1970
    seconds = days * 86_400 + hour * 3600 + (minute - sign * ahead) * 60 + second
    return text + offset, seconds * 10**9 + int(fraction.ljust(9, "0"))


@pytest.mark.parametrize(("text", "expected"), GOOD.items())
def test_a_time_of_the_format_is_read(text: str, expected: int) -> None:
    """2: RFC 3339 with an offset and 0 to 9 fractional digits."""
    assert expected == nanos(text)
    assert expected // 1000 == (moment(text) - EPOCH) // timedelta(microseconds=1)


@pytest.mark.parametrize("text", BAD)
def test_anything_else_is_no_time(text: str) -> None:
    """2: no other notation of ISO 8601, no day that does not exist, no time without its offset."""
    for read in (nanos, moment):
        with pytest.raises(BadInstant, match="is not a"):
            read(text)


def test_the_form_that_brokers_write_is_known_at_sight() -> None:
    """It is read several times as fast; a text of any other form, or with anything odd in it, is read in full."""
    whole = "2026-03-02T14:30:00."
    common = [f"{whole}{'123456789'[:places]}Z" for places in range(1, 10)]
    other = [whole + end for end in ("Z", "1234567890Z", "1", "1+00:00", "123456xZ", "12345678xZ", "12345678\u0662Z")]
    other += ["2026-03-02T24:00:00.1Z", "2026-03-02 14:30:00.1Z", "2026-03-02T14:30:00,1Z", "2026-03-02T14:30:00Z"]
    assert ([True] * 9, [False] * len(other)) == ([*map(is_common, common)], [*map(is_common, other)])


@given(instants())
def test_nanoseconds_are_counted_from_1970(pair: tuple[str, int]) -> None:
    """2: every digit counts, and so does the offset."""
    text, expected = pair
    assert expected == nanos(text)


@given(instants())
def test_a_moment_is_the_instant_cut_to_the_microsecond(pair: tuple[str, int]) -> None:
    """The cheap reading never comes later than the exact one."""
    text, expected = pair
    since = moment(text) - EPOCH
    assert expected // 1000 == since // timedelta(microseconds=1)


@given(instants(), st.integers(0, 40), st.sampled_from("09+-.:,TZtz W٢\n\0"), st.booleans())
def test_both_readings_take_the_same_texts(pair: tuple[str, int], place: int, other: str, insert: bool) -> None:
    """2: whatever one wrong character does to a text, the cheap reading refuses what the exact one refuses."""
    text = pair[0][:place] + other + pair[0][place + (not insert) :]
    accepted = []
    for read in (nanos, moment):
        try:
            read(text)
        except BadInstant:
            accepted.append(False)
        else:
            accepted.append(True)
    assert accepted in ([True, True], [False, False])


@given(instants(), instants())
def test_instants_are_compared_as_instants(one: tuple[str, int], other: tuple[str, int]) -> None:
    """2: never as text, with nanosecond precision."""
    assert (one[1] < other[1]) == is_older(one[0], than=other[0])


def test_one_nanosecond_decides() -> None:
    """2: 0 to 9 digits; equal instants in other notations are not older."""
    assert is_older("2026-03-02T14:30:00.123456788Z", than="2026-03-02T09:30:00.123456789-05:00")
    assert not is_older("2026-03-02T14:30:00Z", than="2026-03-02T09:30:00.000000000-05:00")
    assert not is_older("2026-03-02T14:30:00.1Z", than="2026-03-02T14:30:00.09Z")


@given(instants())
def test_an_instant_is_written_in_utc_with_nine_digits(pair: tuple[str, int]) -> None:
    """What our own writer stamps is read back as the same instant."""
    written = rfc3339(pair[1])
    assert pair[1] == nanos(written)
    assert (30, "Z") == (len(written), written[-1])


def test_a_leap_second_is_the_first_instant_of_the_next_minute() -> None:
    """RFC 3339 knows `:60`; it is a time that existed."""
    assert nanos("2017-01-01T00:00:00.5Z") == nanos("2016-12-31T23:59:60.5Z")
