"""Finds the files of the old layout, tells them from a ledger's own, and puts them away once they are imported.

The old layout and a ledger share two names, `pending_orders.jsonl` and `trades.jsonl`. What the lines mean is for
`legacy`, when a file may be put away for `importing`. The rule that surprises: a file that lies where a ledger keeps
its own is renamed into `legacy/` only after its events are durable in the log, and before the ledger is compacted,
which would take its place. A crash leaves a file where it was or in `legacy/`, and the next import goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from compactor.broker.alpaca import parse
from compactor.core.lifecycle import OPEN, normalize_name
from compactor.ledger.checkpoint import SLOTS
from compactor.ledger.files import Files
from compactor.ledger.paths import LOG, PENDING, STATE, TEAM_PATTERN, TRADES

PUT_AWAY = "legacy"
"""The directory of a ledger that keeps the old files it began with."""


class OldFiles(msgspec.Struct, frozen=True):
    """The old files of one directory.

    `team` is what the directory says; without it the lines say. `home` is the ledger's directory that they lie in, if
    any. `may_be_derived` is set where only the log can tell whether they are a ledger's own.
    """

    directory: Path
    orders: Path | None
    trades: Path | None
    team: str | None = None
    home: Path | None = None
    may_be_derived: bool = False

    @property
    def bytes_total(self) -> int:
        return sum(path.stat().st_size for path in (self.orders, self.trades) if path is not None)

    def lines(self, path: Path | None, on_bytes: Callable[[int], None]) -> Iterator[bytes]:
        """The lines of one of the two files, none if it is not there; `on_bytes` is told the length of each."""
        if path is None:
            return
        with path.open("rb") as file:
            for line in file:
                on_bytes(len(line))
                yield line


def find_old_files(path: Path, data: Path) -> list[OldFiles]:
    """The old files at `path`: of that file, of that team's directory, or of every team in the directory's `team/`."""
    if not path.is_dir():
        return _of_file(path, data)
    teams = path / "team"
    directories = sorted(each for each in teams.iterdir() if each.is_dir()) if teams.is_dir() else [path]
    return [found for directory in directories if (found := _of_directory(directory, data)) is not None]


def put_away(source: OldFiles, files: Files | None = None) -> None:
    """Rename old files that lie in a ledger's directory into its `legacy/`; durable when it returns.

    The orders go first: a `trades.jsonl` that is left behind by a crash tells by its lines that it is an old one.
    """
    files = files or Files()
    for path in (source.orders, source.trades):
        if path is None or source.home is None or path.parent != source.home:
            continue
        target = source.home / PUT_AWAY
        files.make_directory(target)
        files.sync_directory(source.home)
        files.rename(path, target / path.name)
        files.sync_directory(target)
        files.sync_directory(source.home)


def looks_derived(path: Path) -> bool:
    """Whether pending orders could be a ledger's own: open ones only, each once, no nulls (format.md, section 5)."""
    seen = set()
    with path.open("rb") as file:
        for line in file:
            order = parse(line)
            if not isinstance(order, dict) or None in order.values() or order.get("order_id") in seen:
                return False
            if not isinstance(order.get("order_id"), str) or normalize_name(str(order.get("status"))) not in OPEN:
                return False
            seen.add(order["order_id"])
    return True


def _of_file(path: Path, data: Path) -> list[OldFiles]:
    """A single file and the trades beside it. Where they lie in a ledger's directory, that decides."""
    directory = path.parent
    if _home(directory, data) is not None:
        found = _of_directory(directory, data)
        return [found] if found is not None else []
    trades = directory / TRADES
    if path.name == TRADES:
        return [OldFiles(directory, _present(directory / PENDING), path)]
    return [OldFiles(directory, path, trades if trades.exists() and not _is_derived_trades(trades) else None)]


def _of_directory(directory: Path, data: Path) -> OldFiles | None:
    """The old files of a team's directory, or None where there are none, or only those that a ledger derived."""
    home = _home(directory, data)
    is_team = directory.parent.name == "team" and TEAM_PATTERN.fullmatch(directory.name) is not None
    team = directory.name if home is not None or is_team else None
    orders, trades = _present(directory / PENDING), _present(directory / TRADES)
    trades = None if trades is not None and _is_derived_trades(trades) else trades
    kept_orders, kept_trades = _present(directory / PUT_AWAY / PENDING), _present(directory / PUT_AWAY / TRADES)
    if kept_orders is not None or kept_trades is not None:
        # What is in the directory itself is derived, but for old trades whose turn had not come when a crash did.
        return OldFiles(directory, kept_orders, kept_trades or trades, team, home)
    if _is_compacted(directory) or (trades is None and _present(directory / TRADES) is not None):
        return None
    if orders is None and trades is None:
        return None
    may_be_derived = (directory / LOG).exists() and (trades is None or not trades.stat().st_size)
    return OldFiles(directory, orders, trades, team, home, may_be_derived)


def _home(directory: Path, data: Path) -> Path | None:
    """The directory itself where it is the place of a ledger of `data`."""
    is_place = TEAM_PATTERN.fullmatch(directory.name) is not None
    return directory if is_place and directory.resolve() == (data / "team" / directory.name).resolve() else None


def _is_compacted(directory: Path) -> bool:
    """Whether a ledger was compacted here: then the two files are its own, because it accepts no others."""
    return any((directory / STATE / slot).exists() for slot in SLOTS)


def _is_derived_trades(path: Path) -> bool:
    """Whether trades were written by a ledger: each of its lines has a `trade_id`, and none of an old file has."""
    with path.open("rb") as file:
        first = parse(file.readline())
    return isinstance(first, dict) and "trade_id" in first


def _present(path: Path) -> Path | None:
    return path if path.exists() else None
