"""The commands of sealed history: `seal` makes segments of finished ranges, `cat` reads segments and log as one.

What is due and what is safe is decided in the ledger. The rule that surprises: after sealing, `cat` is how other
programs read a log from its first byte, because the file itself has NULs where its space was given back.
"""

from __future__ import annotations

import sys
from datetime import timedelta
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
    team_option,
)

if TYPE_CHECKING:
    from compactor.books.failures import Failure
    from compactor.ledger import LedgerEntry
    from compactor.settings.configuration import Settings

_OFFSET = click.IntRange(min=0)


@click.command(short_help="Move finished history into compressed segments.")
@data_argument
@team_option("Seal this team's ledger only.")
@click.option("--now", is_flag=True, help="Seal all that is folded, due or not.")
@click.option("--witness", metavar="FILE", help="Append the head of each log to this file, best on another disk.")
@config_option
@json_option
def seal(data: Path, team: str | None, now: bool, witness: str | None, config: Path | None, as_json: bool) -> None:
    """Move what is finished of every log into compressed segments, and give its space on the disk back.

    A log is due when it has grown by `segment_bytes` (64 MiB) since it was sealed last, or its oldest event that is
    not sealed is `segment_age_hours` (24) old; compactor.toml may say otherwise. It is compacted first. Offsets, size
    and inode of the log stay, so writers need not stop; `compactor cat` reads the whole history. May be stopped and
    repeated at any time. With a signing key in compactor.toml the head of every seal is signed; see `compactor prove`.

    \b
    Example:
      compactor seal data
      compactor seal data --team alice --now --json
    """
    from compactor.ledger import discover
    from compactor.ui.output import Column, show_json, show_table

    settings = configuration(data, config, {"witness": from_here(witness)}).settings
    outcomes = [_outcome(data, place, now, settings) for place in discover(data, team)]
    refuse_empty(sum(failure is None or failure.kind != "no_ledger" for _, failure in outcomes), data, team)
    if as_json:
        show_json(row for row, _ in outcomes)
    else:
        titles = {"segments": "new segments", "sealed_bytes": "sealed bytes", "file_bytes": "compressed"}
        titles |= {"punched_bytes": "given back", "total_segments": "segments", "total_bytes": "sealed in all"}
        shown = [Column("team_id", "team"), *(Column(field, title, number=True) for field, title in titles.items())]
        show_table([*shown, Column("reclaim", "reclaim")], (row for row, failure in outcomes if failure is None))
    failed = [(row["team_id"], failure) for row, failure in outcomes if failure is not None]
    exit_named(failed, len(outcomes), "could not be sealed")


def _outcome(data: Path, place: LedgerEntry, now: bool, settings: Settings) -> tuple[dict[str, Any], Failure | None]:
    """Seal one ledger: its row, with what was done or what failed. No failure stops the others."""
    from compactor.books.failures import describe_bad_entry, describe_failure
    from compactor.ledger import Ledger

    row: dict[str, Any] = {"team_id": place.name, "path": str(place.path)}
    failure = describe_bad_entry(place) if place.problem is not None else None
    if failure is None:
        try:
            with Ledger(place.path, team_id=place.team_id, retention_days=settings.retention_days) as ledger:
                done = ledger.seal(
                    segment_bytes=settings.segment_bytes,
                    segment_age=timedelta(hours=settings.segment_age_hours),
                    reclaim=settings.reclaim,
                    now=now,
                )
            row |= {field: getattr(done, field) for field in done.__struct_fields__}
            return {**row, **_published(data, place, settings)}, None
        except Exception as error:
            failure = describe_failure(error, place.path)
    return {**row, "error": {"kind": failure.kind, "message": failure.message}}, failure


def _published(data: Path, place: LedgerEntry, settings: Settings) -> dict[str, Any]:
    """Sign the heads of what is sealed and tell the witness, as far as that is set."""
    if settings.signing_key is None and settings.witness is None:
        return {}
    from compactor.proofs.heads import publish
    from compactor.proofs.keys import read_key

    key = read_key(data / settings.signing_key) if settings.signing_key is not None else None
    witness = data / settings.witness if settings.witness is not None else None
    done = publish(place.path, place.name, key=key, witness=witness)
    return {"signed": done.signed, "witnessed": done.witnessed}


@click.command(short_help="Write a log to standard output, sealed or not.")
@data_argument
@click.option("--team", metavar="TEAM", help="The team; needed where the data directory holds several ledgers.")
@click.option("--from", "start", metavar="OFFSET", type=_OFFSET, default=0, help="Where to begin; default: 0.")
@click.option("--to", "end", metavar="OFFSET", type=_OFFSET, help="Where to end; default: behind the last whole line.")
def cat(data: Path, team: str | None, start: int, end: int | None) -> None:
    """Write the bytes of a log to standard output: its sealed segments and the file as one sequence.

    Offsets are those that findings and trades name. Without --to only whole lines are written; beyond the end of the
    log there is nothing. A segment that does not match its seal stops it with an error, and is never skipped.

    \b
    Example:
      compactor cat data --team alice | grep o-17
      compactor cat data --team alice --from 1048576 --to 2097152
    """
    from compactor.ledger import Ledger, discover
    from compactor.ledger.paths import LOG

    if end is not None and end < start:
        raise click.UsageError(f"--to {end} lies before --from {start}, expected an offset that does not")
    places = [place for place in discover(data, team) if place.problem is not None or (place.path / LOG).exists()]
    refuse_empty(len(places), data, team)
    if len(places) > 1:
        names = ", ".join(place.name for place in places[:5])
        raise click.UsageError(f"found {len(places)} ledgers in {data} ({names}), expected one: name it with --team")
    place = places[0]
    if place.problem is not None:
        raise click.ClickException(f"{place.path}: {place.problem}")
    output = sys.stdout.buffer
    for piece in Ledger(place.path, team_id=place.team_id).cat(start, end):
        output.write(piece)
