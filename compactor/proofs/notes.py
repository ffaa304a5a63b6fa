"""Heads of a log as text, the note of C2SP tlog-checkpoint that other programs read too; and the errors of proofs.

    example.org/desk/alice          the origin: the name of the key, and the team
    20852                           the number of lines in the tree
    CsUYapGGPo4dkMgIAUqom/Xaj…=     its root

    — example.org/desk Az3grlgtz…=  signatures; none under an unsigned head

`keys` makes and checks signatures.

Note: a note has exactly one form. A text that would be written in another way, even by one unused bit of base64, is
refused.
"""

from base64 import b64decode, b64encode
from pathlib import Path

from msgspec import Struct

from compactor.core.printable import redact
from compactor.ledger import LedgerError

NOTE_BYTES_MAX = 1 << 16
NAME = "compactor"
"""The first part of the origin while there is no key."""
_EXPECTED = "a head as `compactor seal` writes it"


class Head(Struct, frozen=True):
    """The state of a log: its origin, the number of sealed lines, and the root over them."""

    origin: str
    size: int
    root: bytes


class Signature(Struct, frozen=True):
    """A signature by a key of this name and id."""

    name: str
    key_id: bytes
    value: bytes


class Note(Struct, frozen=True):
    """A head, the text that is signed, and its signatures."""

    head: Head
    signed: str
    signatures: list[Signature]


def format_origin(name: str, team: str) -> str:
    """The name of a team's log in its heads."""
    return f"{name}/{team}"


def encode_head(head: Head) -> str:
    """The text that is signed."""
    return f"{head.origin}\n{head.size}\n{b64encode(head.root).decode()}\n"


def encode_note(head: Head, signatures: list[Signature]) -> str:
    """A head with its signatures."""
    lines = (f"— {one.name} {b64encode(one.key_id + one.value).decode()}\n" for one in signatures)
    return encode_head(head) + "\n" + "".join(lines)


def decode_note(text: str, path: Path) -> Note:
    """The note in a text that lies at a path. Raises BadProof; no signature is checked here."""
    signed, blank, rest = text.rpartition("\n\n")
    signed += "\n"
    lines = signed.split("\n")
    if len(text) > NOTE_BYTES_MAX or not blank or len(lines) != 4 or not lines[1].isdecimal():
        raise BadProof(path, f"expected {_EXPECTED}, found {redact(text)[:80]!r}")
    try:
        head = Head(lines[0], int(lines[1]), b64decode(lines[2], validate=True))
        signatures = [_signature(line) for line in rest.splitlines()]
    except ValueError as error:
        raise BadProof(path, f"expected {_EXPECTED}, found {redact(text)[:80]!r} ({error})") from None
    if len(head.root) != 32 or not head.origin or encode_note(head, signatures) != text:
        raise BadProof(path, f"expected {_EXPECTED}, found one that is written in another way: {redact(text)[:80]!r}")
    return Note(head, signed, signatures)


def _signature(line: str) -> Signature:
    dash, name, value = line.split(" ")
    data = b64decode(value, validate=True)
    if dash != "—" or not name or len(data) < 5:
        raise ValueError("a line that is no signature")
    return Signature(name, data[:4], data[4:])


class SignaturesUnavailable(LedgerError):
    """Signatures need a package that is not installed."""


class BadKey(LedgerError):
    """Not a key, a key that others may read, or a file that must not be overwritten."""


class BadProof(LedgerError):
    """A head or a proof that does not hold; nothing in it may be trusted."""


class NotProvable(LedgerError):
    """Nothing to prove this with, usually because it is not sealed yet."""


class HeadConflict(LedgerError):
    """The log does not continue the head that was signed last; nothing more is signed."""


class WitnessConflict(LedgerError):
    """The witness holds a head that does not belong to this log."""


def signatures_unavailable(path: Path) -> SignaturesUnavailable:
    """The error that names the missing package."""
    return SignaturesUnavailable(path, "signatures need the package cryptography: pip install 'cryptography>=42'")
