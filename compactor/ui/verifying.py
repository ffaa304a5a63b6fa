"""The commands `verify`, which says whether anything was changed, and `rebuild`, which makes derived files again.

`compactor.verify` compares and rebuilds.

Note: the exit code of `verify` is its answer: 0 clean, 1 discrepancies, 2 could not run. A discrepancy outweighs a
ledger that could not be read.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compactor.ui.commands import exit_named
from compactor.ui.options import (
    config_option,
    configuration,
    data_argument,
    from_here,
    json_option,
    refuse_empty,
    say,
    team_option,
)

if TYPE_CHECKING:
    from compactor.proofs.keys import VerifierKey
    from compactor.verify.report import Discrepancy, Verdict

_DIFFERENT = 1
_COULD_NOT_RUN = 2


@click.command(short_help="Check every byte against the log and its seals.")
@data_argument
@team_option("Verify this team's ledger only.")
@click.option("--quick", is_flag=True, help="Seals, their chain, signed heads and the end of the log only.")
@click.option("--deep", is_flag=True, help="Make the indexes again too, and compare them.")
@click.option(
    "--key", "keys", metavar="KEY", multiple=True, help="A verifier key of the heads, besides that of compactor.toml."
)
@click.option("--witness", metavar="FILE", help="Hold the heads in this file against the log; it is not written.")
@click.option("--workers", metavar="N", type=click.IntRange(min=1), help="Processes at once; default: one a processor.")
@config_option
@json_option
def verify(
    data: Path, team: str | None, quick: bool, deep: bool, keys: tuple[str, ...], witness: str | None,
    workers: int | None, config: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Check everything on the disk: seals, digests, signatures, and the whole log folded again from its first byte.

    Segments, the log, derived files, checkpoints and the state in them are held against what the log itself gives.
    Changes nothing, takes no lock, and may run beside the daemon. Exit code 0: clean; 1: differences, each with its
    file, offset, what was expected and found, and what it means; 2: could not run.

    \b
    Example:
      compactor verify data
      compactor verify data --team alice --witness /mnt/other/heads.jsonl --json
    """
    from compactor.ui.output import progress_bar
    from compactor.verify.run import verify_all

    settings = configuration(data, config, {"witness": from_here(witness)}).settings
    with progress_bar("Verifying") as progress:
        result = verify_all(
            data, team=team, workers=workers, progress=progress, quick=quick, deep=deep,
            retention_days=settings.retention_days, keys=_verifiers(data, keys, settings.signing_key),
            witness=data / settings.witness if settings.witness is not None else None,
        )  # fmt: skip
    refuse_empty(sum(one.error is None or one.error.kind != "no_ledger" for one in result.verdicts), data, team)
    (_show_json if as_json else _show)(result.verdicts, result.witness)
    if result.witness or any(one.differences for one in result.verdicts):
        raise click.exceptions.Exit(_DIFFERENT)
    if any(one.error is not None for one in result.verdicts):
        raise click.exceptions.Exit(_COULD_NOT_RUN)


def _verifiers(data: Path, keys: Sequence[str], signing_key: str | None) -> list[VerifierKey]:
    """The keys that may have signed heads: those that were given, and that of the settings."""
    from compactor.proofs.keys import read_key, verifier_key

    found = [verifier_key(key) for key in keys]
    return found + ([read_key(data / signing_key).verifier] if signing_key is not None else [])


def _show_json(verdicts: Sequence[Verdict], witness: Sequence[Discrepancy]) -> None:
    from compactor.ui.output import show_json

    rows: list[dict[str, Any]] = []
    for one in verdicts:
        row = {name: getattr(one, name) for name in one.__struct_fields__ if name != "error"}
        if one.error is not None:
            row["error"] = {"kind": one.error.kind, "message": one.error.message}
        rows.append(row)
    if witness:
        rows.append({"team_id": None, "differences": witness})
    show_json(rows)


def _show(verdicts: Sequence[Verdict], witness: Sequence[Discrepancy]) -> None:
    from compactor.core.printable import printable
    from compactor.ui.output import ShownColumn, show_table

    titles = {"log_bytes": "log bytes", "lag_bytes": "to compact", "segments": "segments", "sealed_bytes": "sealed"}
    titles |= {"signed_bytes": "signed", "witnessed_bytes": "witnessed", "differences": "differences", "time": "time"}
    shown = [
        ShownColumn("team_id", "team"),
        *(ShownColumn(field, title, number=True) for field, title in titles.items()),
    ]
    seen = [one for one in verdicts if one.error is None or one.differences]
    show_table(shown, (_row(one) for one in seen))
    for one in verdicts:
        for difference in one.differences:
            say(f"{printable(one.team_id)}: {printable(difference)}")
    for difference in witness:
        say(printable(difference))
    sys.stdout.flush()
    for one in verdicts:
        if one.error is not None:
            say(f"{one.team_id}: could not be verified: {printable(one.error.message)}", err=True)
    tail = sum(one.log_bytes - one.sealed_bytes for one in verdicts)
    if tail > 0:
        said = f"{tail} bytes of log are not sealed: no digest and no signature covers them."
        say(f"{said} compactor seal --now seals them.", err=True)


def _row(verdict: Verdict) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(verdict, name) for name in verdict.__struct_fields__}
    return {**row, "differences": len(verdict.differences), "time": f"{verdict.elapsed_ms} ms"}


@click.command(short_help="Make derived files and checkpoints again from the log.")
@data_argument
@team_option("Rebuild this team's ledger only.")
@config_option
@json_option
def rebuild(data: Path, team: str | None, config: Path | None, as_json: bool) -> None:
    """Make pending orders, trades, findings and the checkpoint again from the log. Never touches a log or a segment.

    What was there is kept below .state/aside/, by the time of the rebuild. A log that cannot be read whole is refused,
    and then all stays as it was.

    \b
    Example:
      compactor rebuild data --team alice
    """
    from compactor.ui.output import ShownColumn, progress_bar, show_json, show_table
    from compactor.verify.rebuild import rebuild_all

    settings = configuration(data, config, {}).settings
    with progress_bar("Rebuilding") as progress:
        done = rebuild_all(data, team=team, retention_days=settings.retention_days, progress=progress)
    refuse_empty(sum(one.error is None or one.error.kind != "no_ledger" for one in done), data, team)
    rows: list[dict[str, Any]] = []
    for one in done:
        row: dict[str, Any] = {"team_id": one.team_id, "path": one.path}
        if one.error is not None:
            rows.append({**row, "error": {"kind": one.error.kind, "message": one.error.message}})
        else:
            made = one.compaction
            assert made is not None
            counts = {name: getattr(made, name) for name in ("events", "open_orders", "trades", "findings", "offset")}
            rows.append({**row, **counts, "aside": one.aside})
    if as_json:
        show_json(rows)
    else:
        numbers = [
            ShownColumn(name, name.replace("_", " "), True) for name in ("events", "open_orders", "trades", "findings")
        ]
        good = (row for row in rows if "error" not in row)
        show_table([ShownColumn("team_id", "team"), *numbers, ShownColumn("aside", "the old files")], good)
    exit_named([(one.team_id, one.error) for one in done if one.error], len(done), "could not be rebuilt")
