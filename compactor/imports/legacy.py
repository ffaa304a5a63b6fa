"""Import the files of the old layout: find them, append their events, and put them away.

The old layout and a ledger share two names, `pending_orders.jsonl` and `trades.jsonl`. What the lines mean is left to
`old_layout`, and appending to `writer`.

Invariant: a file that lies where a ledger keeps its own is renamed into `legacy/` only after its events are durable in
the log, and before the ledger is compacted, which would overwrite it. After a crash a file is where it was or in
`legacy/`, and the next import continues from there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import msgspec

from compactor.books.ownership import UNASSIGNED
from compactor.broker.port import parse
from compactor.core.events import Problem
from compactor.core.lifecycle import OPEN, normalize_name
from compactor.imports.earlier import RETURNED, VANISHED, Earlier, Mark, add_earlier, read_earlier, recall_lines
from compactor.imports.old_layout import OldLines, read_old_lines, translate_old_lines
from compactor.imports.old_orders import ORDERS as ORDERS_FILE
from compactor.imports.old_orders import TRADES as TRADES_FILE
from compactor.imports.old_orders import OldOrder
from compactor.imports.owners import OldOwners, Routes
from compactor.imports.recordings import read_lines
from compactor.imports.writer import Fields, ImportResult, ImportWriter, Meter, known_events
from compactor.ledger import Ledger
from compactor.ledger.checkpoint import SLOTS
from compactor.ledger.compaction import Progress
from compactor.ledger.files import Files
from compactor.ledger.paths import LOG, PENDING, STATE, TEAM_PATTERN, TRADES

VANISHED_STATUS = "vanished"
"""The status of an order that is no longer in a rewritten file: unknown, so that it stays open and is reported."""

PACKED = (".gz", ".zst")
"""What the names of compressed files end with."""

PUT_AWAY = "legacy"
"""The directory of a ledger that keeps the old files it started from."""


class OldFiles(msgspec.Struct, frozen=True):
    """The old files of one directory.

    `team` comes from the directory's name; without it the lines name their team. `home` is the ledger's directory that
    they lie in, if any. `may_be_derived` is set where only the log can tell whether they are a ledger's own.
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

    def read_lines(self, path: Path | None, on_bytes: Callable[[int], None]) -> Iterator[bytes | Problem]:
        """Read the lines of one of the two files, none if it is absent; decompressed, and in UTF-8.

        `on_bytes` gets how many bytes of the file were read. A damaged end is a problem.
        """
        if path is not None:
            with path.open("rb") as file:
                start = file.read(4)
                file.seek(0)
                yield from read_lines(file, start, on_bytes)


def import_legacy(path: Path, data: Path, *, rewritten: bool = False, progress: Progress | None = None) -> ImportResult:
    """Import the old layout into the ledgers below `data`, and compact those.

    `path` is an old `pending_orders.jsonl` (with the `trades.jsonl` beside it, if there is one), one team's directory,
    or a directory that holds `team/`; that may be `data` itself. Old files that lie where a ledger keeps its own are
    renamed into `team/<id>/legacy/` once their events are durable in the log, and are read from there from then on.
    With `rewritten` the old program keeps only open orders in `pending_orders.jsonl`: those of an earlier import that
    are no longer in it, and have no trade, get the status `vanished`.
    """
    with closing(OldOwners(data)) as owners:
        return _import_all(find_old_files(path, data), ImportWriter(data), owners, rewritten, progress)


def _import_all(
    sources: Sequence[OldFiles], writer: ImportWriter, owners: OldOwners, rewritten: bool, progress: Progress | None
) -> ImportResult:
    meter = Meter(progress, sum(source.bytes_total for source in sources))
    imported: list[_Imported] = []
    for source in sources:
        try:
            imported += _import_old_files(source, writer, owners, meter, rewritten)
        except Exception as error:
            writer.fail(source.team or UNASSIGNED, error)
    result = writer.finish()
    marked = [_mark_orders(writer, one) for one in imported if rewritten]  # Those of every team, not of the first only.
    if any(marked):
        result = writer.finish()
    # A move compacts, which would overwrite old files that are still in place.
    is_done = not any(team.error for team in result.teams) and not find_old_directories(writer.data)
    result.moved = owners.finish() if is_done else owners.moved
    return result


class _Imported(NamedTuple):
    """The orders of one team in the old files of one directory, and what the ledger had of them before."""

    file: Path
    team: str
    orders: dict[str, OldOrder]
    earlier: Earlier


def _import_old_files(
    source: OldFiles, writer: ImportWriter, owners: OldOwners, meter: Meter, rewritten: bool
) -> list[_Imported]:
    """Translate the old files of one directory, append what is new, and only then put them away."""
    names = {ORDERS_FILE: source.orders, TRADES_FILE: source.trades}
    orders, trades = (source.read_lines(path, meter.add) for path in names.values())
    lines = read_old_lines(orders, trades, team=source.team)
    home = source.team or UNASSIGNED
    teams = {team for team in lines.teams if TEAM_PATTERN.fullmatch(team)}
    if rewritten and source.team is not None:
        teams.add(source.team)  # A rewritten file without a line says that no order is open.
    ledgers = {team: _read_earlier(writer.find_directory(team), team, lines) for team in sorted(teams)}
    if source.may_be_derived and source.orders and _are_own(ledgers.values()) and looks_derived(source.orders):
        detail = "the log has these orders and no event of an old file, so this is the ledger's own file"
        problem = Problem("not_old", f"{detail}; expected an old file, which can be imported from another directory")
        writer.add(home, problem, str(source.orders), 1)
        return []
    with owners.look_up(lines, ledgers) as whereabouts:
        for team, earlier in ledgers.items():
            for other, order_ids in whereabouts[team].list_elsewhere().items():
                add_earlier(earlier, _read_earlier(writer.find_directory(other), other, lines), order_ids)
            recall_lines(lines, team, earlier)
        old = translate_old_lines(lines, {team: earlier.known for team, earlier in ledgers.items()})
        routes = Routes(old, whereabouts)
        for file, number, event, is_known in old.events:
            for owner, found in routes.route(event) if number else ():
                writer.add(owner or home, found, str(names[file]), number, is_known=is_known)
        for file, number, problem in old.problems:
            writer.add(home, problem, str(names[file]), number)
        if writer.flush(teams | routes.teams) and old.events:
            put_away(source)
            owners.move(whereabouts.values())
    return [_Imported(source.directory, team, old.list_orders(team), earlier) for team, earlier in ledgers.items()]


def _read_earlier(path: Path, team: str, lines: OldLines) -> Earlier:
    return read_earlier(path, team, lines, _is_compacted(path))


def _are_own(ledgers: Collection[Earlier]) -> bool:
    """Whether ledgers know orders of the files, and have imported nothing."""
    return any(one.order_ids for one in ledgers) and not any(one.lines for one in ledgers)


def _mark_orders(writer: ImportWriter, imported: _Imported) -> bool:
    """Mark the open orders that are no longer in a rewritten file, and those that have returned to it.

    Returns whether any was marked. Orders of which the ledger has heard from the broker are left to the broker.
    """
    team, path = imported.team, writer.find_directory(imported.team)
    rows = {row["order_id"]: row for row in Ledger(path, team_id=team).rows("pending_orders")}
    open_orders = {order_id: order for order_id, order in imported.orders.items() if order.lines and order_id in rows}
    heard = {event.order_id for event, _line in known_events(path, team, open_orders) if event.source != "import"}
    vanished, is_marked = [], False
    for order_id, order in open_orders.items():
        if order_id in heard:
            continue
        if not order.is_in_file:
            vanished.append(order_id)
        mark = imported.earlier.marks.get(order_id, Mark())
        if order.is_in_file == mark.is_vanished:
            writer.add(team, _build_mark(order, mark, rows[order_id]["updated_at"], team), str(imported.file), 0)
            is_marked = True
    writer.report_vanished(team, vanished)
    return is_marked


def _build_mark(order: OldOrder, mark: Mark, ts: str, team: str) -> Fields:
    """Build the event that says that an order is no longer in a rewritten file, or is again."""
    order_id = order.lines[0].event["order_id"]
    if order.is_in_file:
        status, event_id = order.find("order_status") or "new", f"{RETURNED}{mark.returned + 1}"
    else:
        status, event_id = VANISHED_STATUS, f"{VANISHED}{mark.vanished + 1}"
    event = {"event": "snapshot", "order_id": order_id, "ts": ts, "order_status": status}
    return event | {"event_id": event_id, "source": "import", "team_id": team}


def find_old_files(path: Path, data: Path) -> list[OldFiles]:
    """Find the old files at `path`: a file, one team's directory, or a directory with `team/`."""
    if not path.is_dir():
        return _find_beside(path, data)
    teams = path / "team"
    directories = sorted(each for each in teams.iterdir() if each.is_dir()) if teams.is_dir() else [path]
    return [found for directory in directories if (found := _find_in_directory(directory, data)) is not None]


def describe_expected(path: Path) -> str:
    """Say which old files are looked for at a path."""
    return f"{path}/team/<team_id>/pending_orders.jsonl, or such a file itself"


def find_old_directories(data: Path) -> list[Path]:
    """Find the directories of a data directory that have files of the old layout where a ledger keeps its own.

    Looks only where there is no log, or a ledger was never compacted.
    """
    teams = data / "team"
    directories = [data, *sorted(each for each in teams.iterdir() if each.is_dir())] if teams.is_dir() else [data]
    return [each for each in directories if _has_old_files(each)]


def _has_old_files(directory: Path) -> bool:
    if _is_compacted(directory):
        return False
    has_trades = (directory / TRADES).exists() and not _is_derived_trades(directory / TRADES)
    return has_trades or ((directory / PENDING).exists() and not (directory / LOG).exists())


def put_away(source: OldFiles, files: Files | None = None) -> None:
    """Rename old files that lie in a ledger's directory into its `legacy/`; durable when it returns.

    The orders go first: a `trades.jsonl` that a crash leaves behind is recognized as old by its lines.
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


def _find_beside(path: Path, data: Path) -> list[OldFiles]:
    """Find the trades beside a single file. A file in a ledger's directory stands for that directory."""
    directory = path.parent
    if _find_home(directory, data) is not None:
        found = _find_in_directory(directory, data)
        return [found] if found is not None else []
    if path.name.removesuffix(path.suffix if path.suffix in PACKED else "") == TRADES:
        return [OldFiles(directory, _find_packed(directory / PENDING), path)]
    trades = _find_packed(directory / TRADES)
    return [OldFiles(directory, path, trades if trades is not None and not _is_derived_trades(trades) else None)]


def _find_in_directory(directory: Path, data: Path) -> OldFiles | None:
    """Find the old files of a team's directory; None where there are none, or only files that a ledger derived."""
    home = _find_home(directory, data)
    is_team = directory.parent.name == "team" and TEAM_PATTERN.fullmatch(directory.name) is not None
    team = directory.name if home is not None or is_team else None
    find = _find_packed if home is None else _if_exists
    orders, trades = find(directory / PENDING), find(directory / TRADES)
    trades = None if trades is not None and _is_derived_trades(trades) else trades
    kept_orders, kept_trades = _if_exists(directory / PUT_AWAY / PENDING), _if_exists(directory / PUT_AWAY / TRADES)
    if kept_orders is not None or kept_trades is not None:
        # The files in the directory itself are derived, except old trades that a crash kept from being renamed.
        return OldFiles(directory, kept_orders, kept_trades or trades, team, home)
    if _is_compacted(directory) or (trades is None and _if_exists(directory / TRADES) is not None):
        return None
    if orders is None and trades is None:
        return None
    may_be_derived = (directory / LOG).exists() and (trades is None or not trades.stat().st_size)
    return OldFiles(directory, orders, trades, team, home, may_be_derived)


def _find_home(directory: Path, data: Path) -> Path | None:
    """Return the directory where it belongs to a ledger of `data`, else None."""
    is_team = TEAM_PATTERN.fullmatch(directory.name) is not None
    return directory if is_team and directory.resolve() == (data / "team" / directory.name).resolve() else None


def _is_compacted(directory: Path) -> bool:
    """Whether a ledger was compacted here. Then both files are its own, because it accepts no others."""
    return any((directory / STATE / slot).exists() for slot in SLOTS)


def _is_derived_trades(path: Path) -> bool:
    """Whether a ledger wrote these trades: its lines have a `trade_id`, those of an old file do not."""
    with path.open("rb") as file:
        first = parse(file.readline())
    return isinstance(first, dict) and "trade_id" in first


def _if_exists(path: Path) -> Path | None:
    return path if path.exists() else None


def _find_packed(path: Path) -> Path | None:
    """Find a file, or what a compressing program made of it; None where there is neither."""
    names = (path, *(path.with_name(path.name + suffix) for suffix in PACKED))
    return next((one for one in names if one.exists()), None)
