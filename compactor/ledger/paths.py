"""Where ledgers lie below a data directory (format.md section 1), and what the files of one are called."""

import os
import re
from pathlib import Path

from msgspec import Struct

from compactor.core.lines import DEFAULT_TEAM
from compactor.ledger.errors import BadTeam

LOG = "events.jsonl"
PENDING = "pending_orders.jsonl"
TRADES = "trades.jsonl"
FINDINGS = "findings.jsonl"
STATE = ".state"
POINTS = "points"
"""In `STATE`: the checkpoints that are kept for replays of the past."""
SEGMENTS = "segments"
SIGNED = "signed"
"""In `PRIVATE`: the last signed head of each ledger."""
PRIVATE = ".compactor"
"""Of a data directory: locks, and what the daemon and reconciling last said."""
DATA_VARIABLE = "COMPACTOR_DATA"
TEAM_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

TEAM_EXPECTED = "letters, digits, dot, underscore and hyphen, at most 64, the first a letter or digit"


class LedgerEntry(Struct, frozen=True):
    """A ledger that was found: its team (None where its events name it), its directory, and why it cannot be used, if
    so."""

    team_id: str | None
    path: Path
    problem: str | None = None

    @property
    def name(self) -> str:
        """What to call it before it is read; a directory that is itself a ledger is named by its events (1.2)."""
        return self.team_id or DEFAULT_TEAM


def resolve_data(data: str | os.PathLike[str] | None = None) -> Path:
    """The data directory that is named; else that of the environment variable `COMPACTOR_DATA`, else `data`."""
    return Path(data if data is not None else os.environ.get(DATA_VARIABLE) or "data")


def check_team(team_id: str, where: Path) -> str:
    """Refuse what is no team id before a path is built from it (1.1)."""
    if TEAM_PATTERN.fullmatch(team_id) is None:
        raise BadTeam(where, f"{team_id[:80]!r} is no team id: expected {TEAM_EXPECTED}")
    return team_id


def team_in_path(path: Path) -> str | None:
    """A ledger below `team/` is named by its directory (1.1); any other is named by its events (1.2)."""
    absolute = path.absolute()
    return absolute.name if absolute.parent.name == "team" and TEAM_PATTERN.fullmatch(absolute.name) else None


def locate_ledger(data: Path, team_id: str) -> LedgerEntry:
    """Where the ledger of a team lies, whether it is there yet or not."""
    path = data / "team" / check_team(team_id, data)
    return LedgerEntry(team_id, path, _find_link(path, path / LOG))


def discover(data: str | os.PathLike[str] | None = None, team: str | None = None) -> list[LedgerEntry]:
    """The ledgers of a data directory, by team id: every `team/<id>/` with a log, and the directory itself if it has
    one (1.2). What is left of a ledger that has lost its log comes with that as its problem.

    Without `data` those of `COMPACTOR_DATA`, else of `data`. With `team` only that one, whether it is there or not.
    Directories that cannot be ledgers come with their problem.
    """
    data = resolve_data(data)
    if team is not None:
        return [locate_ledger(data, team)]
    log = data / LOG
    own = LedgerEntry(None, data, _find_link(log)) if os.path.lexists(log) else _find_remains(data)
    entries = [own] if own is not None else []
    teams = data / "team"
    found = (_examine(path) for path in sorted(teams.iterdir())) if teams.is_dir() else ()
    return entries + [entry for entry in found if entry is not None]


def _examine(path: Path) -> LedgerEntry | None:
    """The ledger in a directory below `team/`; None where there is none. One that is unreadable stops no other."""
    try:
        if not os.path.lexists(path / LOG):
            return _find_remains(path)
        if TEAM_PATTERN.fullmatch(path.name) is None:
            expected = f"expected {TEAM_EXPECTED}; rename the directory, or move it out of {path.parent}"
            return LedgerEntry(path.name, path, f"{path.name!r} is no team id: {expected}")
        return LedgerEntry(path.name, path, _find_link(path, path / LOG))
    except OSError as error:
        return LedgerEntry(path.name, path, f"{error.strerror}: check owner and permissions of {path}")


def _find_remains(path: Path) -> LedgerEntry | None:
    """A ledger that has lost its log: sealed history or checkpoints are there, and it must not vanish in silence."""
    seals = path / SEGMENTS
    has_seals = seals.is_dir() and any(name.endswith(".seal.json") for name in os.listdir(seals))
    if not has_seals and not any(os.path.lexists(path / STATE / name) for name in ("checkpoint.0", "checkpoint.1")):
        return None
    what = "sealed history" if has_seals else "checkpoints"
    advice = "put it back from a backup, or move the directory away if the ledger is to be gone"
    team_id = path.name if path.parent.name == "team" else None
    return LedgerEntry(team_id, path, f"{what} of a ledger whose {LOG} is missing; {advice}")


def _find_link(*paths: Path) -> str | None:
    """Why a symbolic link makes a ledger unusable, if there is one (1.1)."""
    for path in paths:
        if path.is_symlink():
            found = f"{path.name} is a symbolic link to {path.readlink()}"
            return f"{found}; a ledger has no links: move what it leads to here, or give the data directory that path"
    return None
