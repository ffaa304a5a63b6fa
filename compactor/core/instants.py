"""Instants: RFC 3339 texts compared with nanosecond precision, never as text (format.md, section 2).

Instants lie in the years 1900 to 2261, so that nanoseconds since 1970 fit into 64 bits and a day more or less is a time
too. `moment` cuts a text to the microsecond and is cheap; `nanos` is exact.
"""

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_GRAMMAR = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]"
    r"((?:[01][0-9]|2[0-3]):[0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_INSTANT = datetime(1900, 1, 1, tzinfo=UTC)
END_OF_TIME = datetime(2262, 1, 1, tzinfo=UTC)
"""The first instant that is too late."""
_MICROSECOND = timedelta(microseconds=1)


class BadInstant(ValueError):
    """A text that is no instant of the format; the message says what was found and what was expected."""


def _read(text: str) -> tuple[datetime, int]:
    """Split a text into its whole second in UTC and the nanoseconds after it."""
    match = _GRAMMAR.fullmatch(text)
    if match is None:
        raise BadInstant(
            f"{text[:60]!r} is not an RFC 3339 time with an offset, such as 2026-03-02T14:30:00.123456789Z"
        )
    date, hour_minute, second, fraction, offset = match.groups()
    # A leap second is written as :60; it is taken as the first instant of the next minute.
    leap = second == "60"
    try:
        whole = datetime.fromisoformat(
            f"{date}T{hour_minute}:{'59' if leap else second}{offset.replace('z', 'Z')}"
        ).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise BadInstant(f"{text[:60]!r} is not a time that exists ({error})") from None
    whole = check_instant(check_instant(whole, text) + timedelta(seconds=leap), text)
    return whole, int((fraction or "0").ljust(9, "0"))


def check_instant(instant: datetime, text: str) -> datetime:
    """Return an instant that lies in the years 1900 to 2261. Raises BadInstant."""
    if not FIRST_INSTANT <= instant < END_OF_TIME:
        raise BadInstant(f"{text[:60]!r} is not a time in the years 1900 to 2261")
    return instant


@lru_cache(maxsize=4096)
def nanos(text: str) -> int:
    """Nanoseconds since 1970-01-01T00:00:00Z. Raises BadInstant."""
    whole, fraction = _read(text)
    return (whole - EPOCH) // _MICROSECOND * 1000 + fraction


@lru_cache(maxsize=4096)
def moment(text: str) -> datetime:
    """The instant cut to the microsecond, in UTC. Raises BadInstant."""
    if is_common(text):
        with suppress(ValueError):  # It may be a leap second.
            return check_instant(datetime.fromisoformat(text), text)
    whole, fraction = _read(text)
    return whole + timedelta(microseconds=fraction // 1000)


def is_common(text: str) -> bool:
    """Whether a text has the form that brokers write: in UTC, with one to nine digits behind the second.

    Of such texts `datetime.fromisoformat` takes only those that the format has. It takes others too, and does not look
    at what stands behind the sixth digit.
    """
    # Later versions of Python read 24:00 as the next day.
    if text[4:22:3] != "--T::." or text[-1] != "Z" or text[11:13] == "24":
        return False
    return 22 <= len(text) <= 27 or (28 <= len(text) <= 30 and text[26:-1].isdigit() and text.isascii())


def is_older(text: str, than: str) -> bool:
    """Whether the first instant lies before the second, to the nanosecond."""
    return text != than and nanos(text) < nanos(than)


def rfc3339(ns: int) -> str:
    """Write an instant in UTC with nine fractional digits: `2026-03-02T14:30:00.123456789Z`."""
    seconds, fraction = divmod(ns, 1_000_000_000)
    return f"{EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"
