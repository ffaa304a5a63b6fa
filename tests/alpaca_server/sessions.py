"""The trading day in New York: four sessions that follow each other round the clock.

Overnight from 20:00 until 4:00, then before the market, the market from 9:30 until 16:00, and after it. What is
executed from 20:00 on belongs to the next trading day. Note: a Saturday and a Sunday are no trading days, so that an
execution of Friday night, as there are of crypto pairs, is Monday's.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

SECOND = 1_000_000_000
NEW_YORK = ZoneInfo("America/New_York")
EVENING, MORNING = time(20), time(9, 30)
_SATURDAY = 5


def in_new_york(at: int) -> datetime:
    """An instant as New York's clocks show it, to the second."""
    return datetime.fromtimestamp(at // SECOND, UTC).astimezone(NEW_YORK)


def trading_day(at: int) -> date:
    """The day to which an execution of this instant belongs."""
    local = in_new_york(at)
    return _next_open(local.date() + timedelta(days=local.time() >= EVENING))


def settle_date(at: int) -> date:
    """When an execution of this instant is settled: one trading day later."""
    return _next_open(trading_day(at) + timedelta(days=1))


def next_at(at: int, moment: time) -> int:
    """The next instant after this one at which New York's clocks show that time of day."""
    local = in_new_york(at)
    found = datetime.combine(local.date(), moment, NEW_YORK)
    if found <= local:
        found = datetime.combine(local.date() + timedelta(days=1), moment, NEW_YORK)
    return int(found.timestamp()) * SECOND


def _next_open(day: date) -> date:
    return day + timedelta(days=7 - day.weekday() if day.weekday() >= _SATURDAY else 0)
