"""Proofs as files, and checking them without the log: a line is in a log, or one head continues another.

A proof is one JSON object; its hashes are hexadecimal, its heads are notes (`notes`). `prove` makes proofs.

Note: `offset` only tells where to look. What is proven is the line and its number.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from compactor.core.merkle import (
    derive_consistency_roots,
    derive_inclusion_root,
    leaf_hash,
)
from compactor.proofs.keys import VerifierKey, checked_note
from compactor.proofs.notes import NAME, BadProof, Head

FORMAT = 1
PROOF_BYTES_MAX = 16 << 20


class Inclusion(
    Struct, frozen=True, tag_field="proof", tag="inclusion", omit_defaults=True, forbid_unknown_fields=True
):
    """A claim: the line with this number, counted from 0, is in the log of `head`."""

    team_id: str
    offset: int
    index: int
    path: list[str]
    head: str
    line: str | None = None
    line_base64: str | None = None
    format: int = FORMAT


class Consistency(
    Struct, frozen=True, tag_field="proof", tag="consistency", omit_defaults=True, forbid_unknown_fields=True
):
    """A claim: the log of the head `old` is a prefix of the log of `new`."""

    team_id: str
    path: list[str]
    old: str
    new: str
    format: int = FORMAT


class Proven(Struct, frozen=True):
    """What a valid proof shows; `signed`: by a key's signature, else by a known head."""

    proof: str
    team_id: str
    origin: str
    size: int
    root: str
    signed: bool
    index: int | None = None
    offset: int | None = None
    line: str | None = None
    old_size: int | None = None
    old_root: str | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Inclusion | Consistency).decode


def encode_proof(proof: Inclusion | Consistency) -> bytes:
    """A proof as the bytes of its file."""
    return msgspec.json.format(_encode(proof), indent=2) + b"\n"


def decode_proof(data: bytes, path: Path) -> Inclusion | Consistency:
    """The proof in the bytes of a file. Raises BadProof."""
    try:
        proof: Inclusion | Consistency = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadProof(path, f"expected a proof as compactor prove writes it, found another file ({error})") from None
    if proof.format != FORMAT:
        raise BadProof(path, f"expected a proof of format {FORMAT}, found format {proof.format}")
    return proof


def read_proof(path: Path) -> Inclusion | Consistency:
    """The proof in a file. Raises BadProof, OSError."""
    with path.open("rb") as file:
        return decode_proof(file.read(PROOF_BYTES_MAX), path)


def check_proof(
    proof: Inclusion | Consistency, where: Path, *, keys: Sequence[VerifierKey] = (), known: Head | None = None
) -> Proven:
    """Check a proof by a signature of one of the keys, or by a head known from elsewhere. Raises BadProof."""
    assert keys or known is not None
    if isinstance(proof, Inclusion):
        return _check_line(proof, where, keys, known)
    return _check_since(proof, where, keys, known)


def _check_line(proof: Inclusion, where: Path, keys: Sequence[VerifierKey], known: Head | None) -> Proven:
    head = _trusted(proof.head, proof.team_id, where, keys)
    if known is not None and not _is(head, known):
        raise BadProof(where, f"expected the head of {_said(known)}, found one of {_said(head)}")
    leaf = leaf_hash(_read_line_field(proof, where))
    root = derive_inclusion_root(leaf, proof.index, head.size, _hashes(proof.path, where))
    if root != head.root:
        found = "a path of the wrong length" if root is None else f"root {root.hex()}"
        what = f"expected root {head.root.hex()} to follow from the line and its path, found {found}"
        raise BadProof(where, f"{what}: the line, its number or the path was changed, or it is not in this log")
    return Proven(
        "inclusion", proof.team_id, head.origin, head.size, head.root.hex(), bool(keys), proof.index, proof.offset,
        _read_line_field(proof, where).decode(errors="replace"),
    )  # fmt: skip


def _check_since(proof: Consistency, where: Path, keys: Sequence[VerifierKey], known: Head | None) -> Proven:
    old, new = _trusted(proof.old, proof.team_id, where, keys), _trusted(proof.new, proof.team_id, where, keys)
    if known is not None and not (_is(old, known) or _is(new, known)):
        what = f"expected one of two heads to have {_said(known)}"
        raise BadProof(where, f"{what}; found {_said(old)}, and {_said(new)}")
    if old.origin != new.origin:
        raise BadProof(where, f"expected two heads of one log, found one of {old.origin} and one of {new.origin}")
    roots = derive_consistency_roots(old.size, new.size, old.root, _hashes(proof.path, where))
    if roots != (old.root, new.root):
        what = f"expected roots {old.root.hex()} and {new.root.hex()} to follow from the path, found others"
        raise BadProof(where, f"{what}: the older head is no beginning of the newer one, or the proof was changed")
    return Proven(
        "consistency", proof.team_id, new.origin, new.size, new.root.hex(), bool(keys),
        old_size=old.size, old_root=old.root.hex(),
    )  # fmt: skip


def _trusted(note: str, team: str, where: Path, keys: Sequence[VerifierKey]) -> Head:
    """The head in a note of this team's log; with keys, one of them must have signed it. Raises BadProof."""
    head = checked_note(note, where, keys).head
    if not head.origin.endswith(f"/{team}"):
        raise BadProof(where, f"expected a head of team {team}, found one of {head.origin}")
    return head


def _is(head: Head, known: Head) -> bool:
    """Whether these are one head of one log. A head without a key has the same team and no name of a key."""
    names, _, teams = zip(*(one.origin.rpartition("/") for one in (head, known)), strict=True)
    same_name = names[0] == names[1] or NAME in names
    return (head.size, head.root) == (known.size, known.root) and teams[0] == teams[1] and same_name


def _said(head: Head) -> str:
    return f"{head.size} lines and root {head.root.hex()} of {head.origin}"


def _read_line_field(proof: Inclusion, where: Path) -> bytes:
    try:
        if proof.line is not None and proof.line_base64 is None:
            return proof.line.encode()
        if proof.line_base64 is not None and proof.line is None:
            return b64decode(proof.line_base64, validate=True)
    except ValueError:
        pass
    raise BadProof(where, "expected the line as `line` or as `line_base64`, found neither, both, or other bytes")


def _hashes(path: list[str], where: Path) -> list[bytes]:
    try:
        hashes = [bytes.fromhex(one) for one in path]
    except ValueError:
        hashes = [b""]
    if any(len(one) != 32 for one in hashes):
        raise BadProof(where, "expected a path of hashes of 32 bytes each, found another")
    return hashes
