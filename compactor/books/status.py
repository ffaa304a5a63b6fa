"""Says how every ledger of a data directory stands, without changing any of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from compactor.books.failures import Failure, describe_bad_entry, describe_failure
from compactor.ledger import Ledger, LedgerEntry, LedgerStatus, NoLedger, discover
from compactor.ledger.paths import LOG


class Report(msgspec.Struct, frozen=True):
    """How one ledger stands: exactly one of `status` and `error` is there."""

    team_id: str
    path: str
    status: LedgerStatus | None = None
    error: Failure | None = None


def status_all(data: Path, *, team: str | None = None) -> list[Report]:
    """The status of the ledgers of `data` (or only `team`'s), one report for each, ordered by team id."""
    return [_report(entry) for entry in discover(data, team)]


def _report(entry: LedgerEntry) -> Report:
    path = str(entry.path)
    if entry.problem is not None:
        return Report(entry.name, path, error=describe_bad_entry(entry))
    try:
        if not (entry.path / LOG).exists():
            raise NoLedger(entry.path, f"there is no {LOG}; append events to it first")
        with Ledger(entry.path, team_id=entry.team_id) as ledger:
            status = ledger.status()
        return Report(status.team_id, path, status=status)
    except Exception as error:
        return Report(entry.name, path, error=describe_failure(error, path))


class Rows:
    """The derived rows of several ledgers, one after the other, read while they are iterated.

    `failures` has an entry for each ledger that could not be read; it is complete once the iteration is over.
    """

    def __init__(self, entries: Sequence[LedgerEntry], what: str) -> None:
        self.ledgers = len(entries)
        self.failures: list[tuple[str, Failure]] = []
        self._entries = entries
        self._what = what

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for entry in self._entries:
            if entry.problem is not None:
                self.failures.append((entry.name, describe_bad_entry(entry)))
                continue
            try:
                with Ledger(entry.path, team_id=entry.team_id) as ledger:
                    yield from _rows(ledger, self._what)
            except Exception as error:
                self.failures.append((entry.name, describe_failure(error, entry.path)))


def read_rows(data: Path, what: str, *, team: str | None = None) -> Rows:
    """The `pending` orders, `trades` or `findings` of the ledgers of `data`, as of their last commit."""
    return Rows([entry for entry in discover(data, team) if (entry.path / LOG).exists()], what)


def _rows(ledger: Ledger, what: str) -> Iterator[dict[str, Any]]:
    if what == "pending":
        yield from ledger.rows("pending_orders")
    elif what == "trades":
        yield from ledger.rows("trades")
    else:
        # A finding does not name its team, because it stands in its team's file; among several it has to.
        yield from ({"team_id": ledger.team_id, **finding} for finding in ledger.rows("findings"))
