"""Decide whether the daemon is alive and whether it is ready, for `/livez` and `/readyz`.

Note: it counts as alive unless the loop has not turned for half a minute, so that a supervisor restarts only a daemon
that hangs. It is not ready while a ledger is degraded, or an account is stale.
"""

from __future__ import annotations

import time

import msgspec

from compactor.core.printable import printable
from compactor.daemon.health import Health, LedgerHealth, check_accounts

ALIVE_SECONDS = 30.0


class Check(msgspec.Struct, frozen=True):
    """One condition, and why it does not hold, if so."""

    name: str
    ok: bool
    reason: str | None = None


class HealthAnswer(msgspec.Struct, frozen=True):
    """The answer of `/livez` and `/readyz`."""

    ok: bool
    checks: list[Check]


def check_live(health: Health) -> HealthAnswer:
    """Check that the loop turns."""
    age = time.monotonic() - health.last_progress
    reason = None if age < ALIVE_SECONDS else f"the loop has not turned for {age:.0f} s, expected every few seconds"
    return _combine([Check("loop", reason is None, reason)])


def check_ready(health: Health) -> HealthAnswer:
    """Check that every ledger is current with its log and, if the daemon is linked to a broker, with the broker."""
    behind = [printable(one.team_id) for one in health.snapshot() if one.state == "catching_up"]
    reason = f"catching up: {', '.join(behind)}" if behind else None if health.caught_up else "catching up"
    checks = [*check_live(health).checks, Check("caught_up", reason is None, reason)]
    checks += [_check_ledger(one) for one in health.snapshot()]
    checks += [Check(one.name, one.reason is None, one.reason) for one in check_accounts(health, time.time())]
    checks += [Check(f"reconcile ledger {team}", False, reason) for team, reason in sorted(health.unreconciled.items())]
    return _combine(checks)


def _check_ledger(one: LedgerHealth) -> Check:
    reason = printable(one.reason) if one.reason is not None else None
    return Check(f"ledger {printable(one.team_id)}", one.state != "degraded", reason)


def _combine(checks: list[Check]) -> HealthAnswer:
    return HealthAnswer(all(check.ok for check in checks), checks)
