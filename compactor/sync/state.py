"""Keep the outcome of the last reconcile of each account, in `DATA/.compactor/reconciled.json`.

The next reconcile needs the instant up to which everything is known, and the orders that may still change. `status`,
`/readyz` and the metrics take from the same lines how stale the ledgers may be. Note: the file is a hint. Where it is
missing or damaged, the next reconcile looks further back and finds the same.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from compactor.core.instants import BadInstant, nanos
from compactor.ledger.files import Files, replace
from compactor.ledger.paths import PRIVATE

FILE = "reconciled.json"


class AccountReconciled(msgspec.Struct, omit_defaults=True):
    """How one account was last reconciled. Times are RFC 3339, by this machine's clock.

    `through`: up to when the ledgers are known to agree with the broker; None before the first complete run.
    `tried_at`: the last try. `error`: why that one failed, and `failures` how many did since the last good one.
    """

    account_id: str | None = None
    through: str | None = None
    day_at: str | None = None
    """When the orders of a whole day were last compared; `week_at` the same for a week."""
    week_at: str | None = None
    waiting: list[str] = []
    """Orders that differed and were not quiet yet."""
    differences: int = 0
    """What no event can put right; the run itself names each."""
    positions_differing: list[str] = []
    """The symbols whose position is not what the trades add up to."""
    tried_at: str | None = None
    error: str | None = None
    failures: int = 0


_decode = msgspec.json.Decoder(dict[str, AccountReconciled]).decode


def read_reconciled(data: Path) -> dict[str, AccountReconciled]:
    """By the account's name; empty where nobody has reconciled, or the file cannot be read."""
    try:
        found = _decode(Files().read(data / PRIVATE / FILE) or b"")
        for one in found.values():
            for instant in (one.through, one.day_at, one.week_at, one.tried_at):
                if instant is not None:
                    nanos(instant)
        return found
    except (OSError, msgspec.DecodeError, BadInstant):
        return {}


def remember(data: Path, changed: dict[str, AccountReconciled]) -> None:
    """Put these accounts' lines in place of their old ones; the caller holds the data directory's turn."""
    files, path = Files(), data / PRIVATE / FILE
    replace(files, path, [msgspec.json.encode(read_reconciled(data) | changed)])
