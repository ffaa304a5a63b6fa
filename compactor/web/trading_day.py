"""Find the trading day of an instant: from 20:00 New York on it is the next one, because trading goes on at night."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

NEW_YORK = ZoneInfo("America/New_York")
_FIRST_HOUR = 20
_NS = 1_000_000_000


def find_trading_day(ns: int) -> date:
    """The trading day of an instant, given in nanoseconds since 1970. Saturday and Sunday are days like any other."""
    return _find_day(ns // _NS // 3600)


@lru_cache(4096)
def _find_day(hour: int) -> date:
    # New York's offset is a whole number of hours.
    local = datetime.fromtimestamp(hour * 3600, UTC).astimezone(NEW_YORK)
    return (local + timedelta(hours=24 - _FIRST_HOUR)).date() if local.hour >= _FIRST_HOUR else local.date()


def find_start(day: date) -> datetime:
    """The instant at which a trading day begins, in UTC."""
    local = datetime.combine(day - timedelta(days=1), time(_FIRST_HOUR), NEW_YORK)
    return local.astimezone(UTC)
