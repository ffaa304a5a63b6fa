"""The commands of sealed history: `seal`, `cat`, and for proofs `keygen`, `prove` and `check-proof`.

`ledger.seal` decides what is due and safe to seal; `compactor.proofs` makes and checks proofs.

Note: after sealing, other programs read a log from its first byte through `cat`, because the file itself has NULs where
its space was given back. `check-proof` trusts nothing in the proof: it needs a key, or a head known from elsewhere.
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
    data_option,
    find_one_ledger,
    from_here,
    json_option,
    refuse_empty,
    say,
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
@click.option(
    "--wait-seconds",
    metavar="N",
    type=click.IntRange(0, 3600),
    default=0,
    help="Wait so long for a locked ledger.",
)
@config_option
@json_option
def seal(
    data: Path,
    team: str | None,
    now: bool,
    witness: str | None,
    wait_seconds: int,
    config: Path | None,
    as_json: bool,
) -> None:
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
    from compactor.ui.output import ShownColumn, show_json, show_table

    settings = configuration(data, config, {"witness": from_here(witness)}).settings
    outcomes = [_outcome(data, entry, now, settings, wait_seconds) for entry in discover(data, team)]
    refuse_empty(sum(failure is None or failure.kind != "no_ledger" for _, failure in outcomes), data, team)
    if as_json:
        show_json(row for row, _ in outcomes)
    else:
        titles = {"segments": "new segments", "sealed_bytes": "sealed bytes", "file_bytes": "compressed"}
        titles |= {"punched_bytes": "given back", "total_segments": "segments", "total_bytes": "sealed in all"}
        shown = [
            ShownColumn("team_id", "team"),
            *(ShownColumn(field, title, number=True) for field, title in titles.items()),
        ]
        show_table([*shown, ShownColumn("reclaim", "reclaim")], (row for row, failure in outcomes if failure is None))
    failed = [(row["team_id"], failure) for row, failure in outcomes if failure is not None]
    exit_named(failed, len(outcomes), "could not be sealed")


def _outcome(
    data: Path, entry: LedgerEntry, now: bool, settings: Settings, wait_seconds: int
) -> tuple[dict[str, Any], Failure | None]:
    """Seal one ledger: its row, with what was done or what failed. No failure stops the others."""
    from compactor.books.failures import describe_bad_entry, describe_failure
    from compactor.books.turns import seal_in_turn
    from compactor.ledger import Ledger

    row: dict[str, Any] = {"team_id": entry.name, "path": str(entry.path)}
    failure = describe_bad_entry(entry) if entry.problem is not None else None
    if failure is None:
        try:
            with Ledger(entry.path, team_id=entry.team_id, retention_days=settings.retention_days) as ledger:
                done = seal_in_turn(
                    ledger,
                    wait_seconds,
                    segment_bytes=settings.segment_bytes,
                    segment_age=timedelta(hours=settings.segment_age_hours),
                    reclaim=settings.reclaim,
                    now=now,
                )
            row |= {field: getattr(done, field) for field in done.__struct_fields__}
            return {**row, **_published(data, entry, settings)}, None
        except Exception as error:
            failure = describe_failure(error, entry.path)
    return {**row, "error": {"kind": failure.kind, "message": failure.message}}, failure


def _published(data: Path, entry: LedgerEntry, settings: Settings) -> dict[str, Any]:
    """Sign the heads of what is sealed and tell the witness, as far as that is set."""
    if settings.signing_key is None and settings.witness is None:
        return {}
    from compactor.proofs.keys import read_key
    from compactor.proofs.publish import publish

    key = read_key(data / settings.signing_key) if settings.signing_key is not None else None
    witness = data / settings.witness if settings.witness is not None else None
    done = publish(entry.path, entry.name, key=key, witness=witness)
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
    from compactor.ledger import Ledger
    from compactor.ui.output import open_output

    if end is not None and end < start:
        raise click.UsageError(f"--to {end} lies before --from {start}, expected an offset that does not")
    entry = find_one_ledger(data, team)
    output = open_output()
    for piece in Ledger(entry.path, team_id=entry.team_id).cat(start, end):
        output.write(piece)


_FILE = click.Path(path_type=Path)


@click.command(short_help="Make a key that signs the heads of logs.")
@click.argument("file", type=_FILE, default="compactor.key")
@click.option("--name", metavar="NAME", default="compactor", show_default=True, help="Best like example.org/desk.")
@json_option
def keygen(file: Path, name: str, as_json: bool) -> None:
    """Make an Ed25519 key: the private one goes to FILE (default compactor.key), the verifier key to standard output.

    Give the verifier key to whoever shall check proofs, and set `signing_key = "FILE"` in compactor.toml: from then on
    sealing signs the head of each log. Whoever has FILE can sign another history: keep it off the machine where
    others may write the logs, or have a witness too.

    \b
    Example:
      compactor keygen /etc/compactor/signing.key --name example.org/desk
    """
    from compactor.proofs.keys import make_key
    from compactor.ui.output import show_json

    key = make_key(file, name).verifier.encode()
    if as_json:
        show_json([{"file": str(file), "verifier_key": key}])
    else:
        say(key)
        say(f'The private key is in {file}. Set signing_key = "{file.absolute()}" in compactor.toml.', err=True)


@click.command(short_help="Write a proof that an event, or an older head, is in a log.")
@click.argument("offset", type=click.IntRange(min=0), required=False)
@click.option("--team", metavar="TEAM", help="The team; needed where the data directory holds several ledgers.")
@click.option("--since", metavar="HEAD_FILE", type=_FILE, help="Prove that the log goes on from this older head.")
@click.option("--out", metavar="FILE", type=_FILE, help="Where to write the proof; default: standard output.")
@data_option
def prove(offset: int | None, team: str | None, since: Path | None, out: Path | None, data: Path) -> None:
    """Write a small file that shows that the event at OFFSET is in the log, or that an older head begins today's log.

    Trades and findings name the OFFSET of their event. Only what is sealed can be proven: compactor seal --now seals
    the rest. HEAD_FILE is a head (a .head file beside the segments, kept since), an earlier proof, or a witness.

    \b
    Example:
      compactor prove 1048576 --team alice --out event.proof
      compactor prove --since alice-in-march.head --team alice --out since-march.proof
    """
    from compactor.core.printable import escape_json
    from compactor.ledger.files import Files
    from compactor.proofs.check import encode_proof
    from compactor.proofs.prove import prove_line, prove_since
    from compactor.tables.export import BadTarget, whole_file

    if (offset is None) == (since is None):
        raise click.UsageError("expected either an OFFSET or --since HEAD_FILE")
    entry = find_one_ledger(data, team)
    name = entry.name
    if offset is not None:
        proof: Any = prove_line(entry.path, name, offset, Files())
    else:
        assert since is not None
        proof = prove_since(entry.path, name, _head_in(since, name), since, Files())
    text = encode_proof(proof)
    if out is None:
        sys.stdout.buffer.write(escape_json(text))
    else:
        try:
            with whole_file(out) as file:
                file.write(text)
        except BadTarget as error:
            raise click.UsageError(str(error)) from None
        say(f"Wrote {len(text)} bytes to {out}. compactor check-proof {out} --key KEY checks it.", err=True)


def _head_in(file: Path, team: str) -> Any:
    """The newest head of a team in a file: a note, a proof that holds one, or a witness."""
    from compactor.proofs.check import Inclusion, decode_proof
    from compactor.proofs.heads import Witnessed, read_witness
    from compactor.proofs.notes import BadProof, decode_note

    try:
        data = file.read_bytes()
    except OSError as error:
        raise click.UsageError(f"{file}: {error.strerror}, expected a head or a proof") from None
    if data.startswith(b'{"team_id"'):
        told = [one for _line, one in read_witness(file) if isinstance(one, Witnessed) and one.team_id == team]
        if not told:
            raise BadProof(file, f"expected a witness with a head of team {team}, found none")
        return decode_note(told[-1].note, file).head
    if data.startswith(b"{"):
        proof = decode_proof(data, file)
        return decode_note(proof.head if isinstance(proof, Inclusion) else proof.new, file).head
    return decode_note(data.decode(errors="replace"), file).head


@click.command("check-proof", short_help="Check a proof without the log.")
@click.argument("file", type=_FILE)
@click.option("--key", metavar="KEY", help="The verifier key that has to have signed the head, or a file with it.")
@click.option("--head", metavar="HEAD_FILE", type=_FILE, help="A head that is known from elsewhere, as from a witness.")
@json_option
def check_proof(file: Path, key: str | None, head: Path | None, as_json: bool) -> None:
    """Check a proof that `compactor prove` wrote. Needs no log, only a key or a head that you trust.

    Exit code 0 when it holds; 1 when it does not, and says why.

    \b
    Example:
      compactor check-proof event.proof --key example.org/desk+b1d1e9d2+AVEz...
    """
    from compactor.core.printable import printable
    from compactor.proofs.check import check_proof, read_proof
    from compactor.proofs.keys import verifier_key
    from compactor.ui.output import show_json

    if key is None and head is None:
        raise click.UsageError("expected --key KEY or --head HEAD_FILE: a proof by itself proves nothing")
    try:
        proof = read_proof(file)
    except OSError as error:
        raise click.UsageError(f"{file}: {error.strerror}, expected a proof as compactor prove writes it") from None
    known = _head_in(head, proof.team_id) if head is not None else None
    done = check_proof(proof, file, keys=[verifier_key(key)] if key is not None else [], known=known)
    if as_json:
        show_json([{name: getattr(done, name) for name in done.__struct_fields__ if getattr(done, name) is not None}])
        return
    by = "signed by the key" if done.signed else "the head that you know"
    say(f"{file}: it holds: head of {printable(done.origin)} over {done.size} lines, root {done.root}, {by}")
    if done.line is not None:
        say(f"line {done.index} (from 0) of this log is:")
        say(printable(done.line.removesuffix("\n")))
    else:
        say(f"the log of {done.old_size} lines with root {done.old_root} is the beginning of it")
