"""Decides whether what we have from the broker may be old: a stream that is down, a reconcile that is overdue.

The rule that surprises: a stream that says nothing is not stale, because a quiet market has nothing to say; that it is
mute is found by the reconcile, which makes it connect again.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from compactor.daemon.health import AccountHealth, Health

DOWN_SECONDS_MAX = 60.0
OVERDUE_FACTOR = 3
"""A reconcile is overdue when none has gone well for so many of its intervals."""


class Freshness(NamedTuple):
    """One thing of an account that can be stale, and why it is, if it is."""

    name: str
    reason: str | None


def stale_accounts(health: Health, now: float) -> Iterator[Freshness]:
    """For each account its stream and its reconciliation, as of `now` in Unix seconds."""
    for row in sorted(health.accounts.values(), key=lambda one: one.account):
        yield Freshness(f"stream {row.account}", stream_reason(row, now))
        yield Freshness(f"reconcile {row.account}", reconcile_reason(row, now))


def stream_reason(row: AccountHealth, now: float) -> str | None:
    """Why an account's stream is stale; None where it is not."""
    if row.waiting_lines:
        return f"{row.waiting_lines} lines could not be written yet: {row.stream_reason or 'see the log'}"
    if row.connected or now - row.stream_since <= DOWN_SECONDS_MAX:
        return None
    return f"not connected since {_utc(row.stream_since)}: {row.stream_reason or 'no answer yet'}"


def reconcile_reason(row: AccountHealth, now: float) -> str | None:
    """Why an account's reconciliation is stale; None where it is not."""
    last = row.last_reconcile_at
    if now - (last or row.started_at) <= OVERDUE_FACTOR * row.reconcile_seconds:
        return None
    since = f"none has gone well since {_utc(last)}" if last is not None else "none has gone well yet"
    return f"{since}: {row.reconcile_reason or 'it has not ended'}"


def _utc(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
