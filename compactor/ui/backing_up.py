"""The commands `backup` and `restore`: copy the truth of the ledgers, and bring it back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from compactor.ui.commands import exit_named
from compactor.ui.options import VARIABLE, data_argument, data_directory, json_option, refuse_empty, team_option

if TYPE_CHECKING:
    from compactor.books.backup import CopiedLedger


@click.command(short_help="Copy logs and segments, beside writers and daemon.")
@click.argument("paths", metavar="[DIR] TO", nargs=-1, required=True)
@team_option("Back up this team's ledger only.")
@json_option
def backup(paths: tuple[str, ...], team: str | None, as_json: bool) -> None:
    """Bring the backup in TO up to date with the ledgers of DIR; TO is made if it is not there.

    DIR is the data directory; default: $COMPACTOR_DATA, else data.

    Copied is what cannot be derived: logs, segments and signed heads. Nobody has to stop for it, neither writers nor
    the daemon nor sealing. A further run copies what is new. TO is a data directory like any other.

    \b
    Example:
      compactor backup data /mnt/backup/data
    """
    from compactor.books.backup import back_up

    if len(paths) > 2:
        raise click.UsageError(f"expected [DIR] TO, found {len(paths)} paths")
    named = paths[0] if len(paths) == 2 else os.environ.get(VARIABLE) or "data"
    data, target = data_directory(click.get_current_context(), None, named), Path(paths[-1])
    target.mkdir(parents=True, exist_ok=True)
    _finish(back_up(data, target, team=team), data, team, as_json, "could not be backed up")


@click.command(short_help="Bring ledgers back out of a backup, and verify them.")
@click.argument("source", metavar="FROM", callback=data_directory)
@data_argument
@team_option("Restore this team's ledger only.")
@json_option
def restore(source: Path, data: Path, team: str | None, as_json: bool) -> None:
    """Copy the ledgers of the backup FROM into the data directory DIR, derive their files, and verify them.

    FROM may be any copy of a data directory. A ledger that DIR has already is refused, and stays as it is.

    \b
    Example:
      mkdir data; compactor restore /mnt/backup/data data
    """
    from compactor.books.backup import restore as restore_all

    done = restore_all(source, data, team=team)
    _finish([_prove(one, data) for one in done], source, team, as_json, "could not be restored")


def _prove(copied: CopiedLedger, data: Path) -> CopiedLedger:
    """Derive the files of a restored ledger, and compare all of them with the log."""
    import msgspec

    from compactor.books.compact import compact_all
    from compactor.books.failures import Failure
    from compactor.verify.run import verify_all

    if copied.error is not None:
        return copied
    team = None if Path(copied.path) == data else copied.team_id
    error = next((one.error for one in compact_all(data, team=team, workers=1, checkpoint=True) if one.error), None)
    if error is None:
        verdicts = verify_all(data, team=team, workers=1).verdicts
        found = [one for verdict in verdicts for one in verdict.differences]
        error = next((verdict.error for verdict in verdicts if verdict.error), None)
        if found:
            first = f"{found[0].kind} in {found[0].file}"
            message = f"{copied.path}: restored, and verify found {first}, {len(found)} differences in all"
            error = Failure("verify_failed", message)
    return msgspec.structs.replace(copied, error=error)


def _finish(done: list[CopiedLedger], data: Path, team: str | None, as_json: bool, what: str) -> None:
    from compactor.ui.output import ShownColumn, show_json, show_table

    refuse_empty(sum(one.error is None or one.error.kind != "no_ledger" for one in done), data, team)
    if as_json:
        show_json(done)
    else:
        numbers = ("log_bytes", "new_log_bytes", "segments", "new_segments")
        columns = [ShownColumn(name, name.replace("_", " "), number=True) for name in numbers]
        rows = ({name: getattr(one, name) for name in ("team_id", *numbers)} for one in done if one.error is None)
        show_table([ShownColumn("team_id", "team"), *columns], rows)
    failed = [(one.team_id, one.error) for one in done if one.error is not None]
    exit_named(failed, len(done), what)
