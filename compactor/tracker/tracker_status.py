"""How current the view of a ledger is: where its log stands, and what the daemon and the last reconcile say."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from compactor.daemon.presence import AccountReport, read_report
from compactor.sync.state import read_reconciled
from compactor.tracker.ledger_rows import LedgerRows


class TrackerStatus(Struct, frozen=True, kw_only=True):
    """How current what a tracker shows of one team is.

    `offset` of `log_bytes` are shown; `as_of` is when the last event was recorded, by the log's own clock.
    `reconciled_through`: up to when all accounts are known to agree with the ledgers; None before the first complete
    reconcile. `stale` lists the reasons why the data may be old, empty where there is none. `accounts` is the daemon's
    report of each account's stream; `is_daemon_running` says whether there is one that reports. `problem` is why the
    ledger cannot be read now; what is shown is then as of `offset`.
    """

    team_id: str
    path: str | None = None
    offset: int = 0
    log_bytes: int = 0
    as_of: str | None = None
    reconciled_through: str | None = None
    stale: list[str] = []
    is_daemon_running: bool = False
    accounts: list[AccountReport] = []
    problem: str | None = None


def read_status_of_team(data: Path, team: str, rows: LedgerRows | None) -> TrackerStatus:
    """The status of a team; of one without a ledger only what is known of the accounts."""
    report, reconciled = read_report(data), read_reconciled(data)
    through = [one.through for one in reconciled.values()]
    stale = [f"account {name}: the last reconcile failed: {one.error}" for name, one in reconciled.items() if one.error]
    accounts = list(report.accounts) if report is not None else []
    stale += [f"account {one.account}: {reason}" for one in accounts for reason in one.stale]
    problem = rows.problem if rows is not None else f"there is no ledger of team {team} in {data}"
    return TrackerStatus(
        team_id=team,
        path=str(rows.path) if rows is not None else None,
        offset=rows.offset if rows is not None else 0,
        log_bytes=rows.log_bytes if rows is not None else 0,
        as_of=rows.recorded_at if rows is not None else None,
        reconciled_through=min((one for one in through if one is not None), default=None) if all(through) else None,
        stale=stale + ([problem] if rows is not None and problem is not None else []),
        is_daemon_running=report is not None,
        accounts=accounts,
        problem=problem,
    )
