"""The commands of proofs: `keygen` makes a key, `prove` writes a proof, `check-proof` checks one without the log.

How proofs are made and checked is in `audit`. The rule that surprises: `check-proof` believes nothing in the file. It
wants a key, or a head that is known from elsewhere, and without either it refuses instead of saying yes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from compactor.ui.options import data_option, json_option, refuse_empty

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
        click.echo(key)
        click.echo(f'The private key is in {file}. Set signing_key = "{file.absolute()}" in compactor.toml.', err=True)


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
    from compactor.ledger.files import Files
    from compactor.proofs.check import encode_proof
    from compactor.proofs.prove import prove_line, prove_since

    if (offset is None) == (since is None):
        raise click.UsageError("expected either an OFFSET or --since HEAD_FILE")
    place = _ledger(data, team)
    name = place.name
    if offset is not None:
        proof: Any = prove_line(place.path, name, offset, Files())
    else:
        assert since is not None
        proof = prove_since(place.path, name, _head_in(since, name), since, Files())
    text = encode_proof(proof)
    if out is None:
        sys.stdout.buffer.write(text)
    else:
        out.write_bytes(text)
        click.echo(f"Wrote {len(text)} bytes to {out}. compactor check-proof {out} --key KEY checks it.", err=True)


def _ledger(data: Path, team: str | None) -> Any:
    from compactor.ledger import discover
    from compactor.ledger.paths import LOG

    places = [place for place in discover(data, team) if place.problem is not None or (place.path / LOG).exists()]
    refuse_empty(len(places), data, team)
    if len(places) > 1:
        names = ", ".join(place.name for place in places[:5])
        raise click.UsageError(f"found {len(places)} ledgers in {data} ({names}), expected one: name it with --team")
    if places[0].problem is not None:
        raise click.ClickException(f"{places[0].path}: {places[0].problem}")
    return places[0]


def _head_in(file: Path, team: str) -> Any:
    """The newest head of a team in a file: a note, a proof that holds one, or a witness."""
    from compactor.proofs.check import Inclusion, decode_proof
    from compactor.proofs.errors import BadProof
    from compactor.proofs.heads import Witnessed, read_witness
    from compactor.proofs.notes import decode_note

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
    from compactor.proofs.check import check_proof, read_proof
    from compactor.proofs.keys import verifier_key
    from compactor.ui.output import printable, show_json

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
    click.echo(f"{file}: it holds: head of {printable(done.origin)} over {done.size} lines, root {done.root}, {by}")
    if done.line is not None:
        click.echo(f"line {done.index} (from 0) of this log is:")
        click.echo(printable(done.line.removesuffix("\n")))
    else:
        click.echo(f"the log of {done.old_size} lines with root {done.old_root} is the beginning of it")
