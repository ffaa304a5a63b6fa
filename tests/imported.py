"""What the tests of both imports look at: results by team, files, and net positions."""

from decimal import Decimal
from itertools import chain
from pathlib import Path

from compactor.imports.writer import ImportResult, TeamImport
from compactor.ledger import Ledger


def by_team(result: ImportResult) -> dict[str, TeamImport]:
    assert [] == [team.error for team in result.teams if team.error is not None]
    return {team.team_id: team for team in result.teams}


def read_files(data: Path, *names: str) -> dict[str, bytes]:
    files = (path for path in data.rglob("*") if path.is_file() and ".state" not in path.parts)
    return {str(path.relative_to(data)): path.read_bytes() for path in files if not names or path.name in names}


def read_derived(data: Path) -> dict[str, bytes]:
    """What follows from the logs; the logs themselves differ in the times at which lines were appended."""
    return {name: found for name, found in read_files(data).items() if not name.endswith("events.jsonl")}


def sum_positions(*ledgers: Path) -> dict[str, Decimal]:
    """The net position in each symbol (rule 4.11), over all of the ledgers."""
    net: dict[str, Decimal] = {}
    for trade in chain.from_iterable(Ledger(ledger).rows("trades") for ledger in ledgers):
        sign = 1 if trade["side"] == "buy" else -1
        net[trade["symbol"]] = net.get(trade["symbol"], Decimal(0)) + sign * Decimal(trade["quantity"])
    return net
