"""Keys that sign heads: Ed25519, in the text forms of signed notes (C2SP signed-note, and Go's `sumdb/note`).

    PRIVATE+KEY+example.org/desk+b1d1e9d2+AXlx…    the file that `compactor keygen` writes, readable by its owner only
    example.org/desk+b1d1e9d2+AVEz…               the verifier key, which may be public

The text that is signed is in `notes`.

Note: a note is trusted only with a signature of the expected key and an origin that begins with the key's name.
Signatures of other keys prove nothing here.
"""

from __future__ import annotations

import os
import re
import stat
from base64 import b64decode, b64encode
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from msgspec import Struct

from compactor.core.printable import redact
from compactor.ledger.errors import IrregularFile, from_os
from compactor.ledger.files import Files
from compactor.proofs.notes import (
    BadKey,
    BadProof,
    Head,
    Note,
    Signature,
    decode_note,
    encode_head,
    encode_note,
    signatures_unavailable,
)

KEY_BYTES_MAX = 4096
_ED25519 = b"\x01"
_PRIVATE = "PRIVATE+KEY+"
_NAME = re.compile(r"[^\s+\x00-\x1f\x7f]{1,200}")
NAME_EXPECTED = "a name without spaces and plus signs, best one like example.org/desk"


class VerifierKey(Struct, frozen=True):
    """A public key: what `check-proof --key` takes."""

    name: str
    public: bytes

    @property
    def key_id(self) -> bytes:
        """Four bytes by which a signature names its key."""
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:4]

    def encode(self) -> str:
        """The key as one line of text."""
        return f"{self.name}+{self.key_id.hex()}+{b64encode(_ED25519 + self.public).decode()}"

    def check(self, note: Note, path: Path) -> None:
        """Raise BadProof unless this key signed the note."""
        try:
            from cryptography.exceptions import InvalidSignature
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        except ImportError:
            raise signatures_unavailable(path) from None
        ours = [one for one in note.signatures if (one.name, one.key_id) == (self.name, self.key_id)]
        if not ours:
            found = ", ".join(f"{one.name}+{one.key_id.hex()}" for one in note.signatures) or "none"
            raise BadProof(path, f"expected a signature of {self.name}+{self.key_id.hex()}, found {found}")
        if not note.head.origin.startswith(self.name + "/"):
            raise BadProof(path, f"expected a head of {self.name}/TEAM, found one of {note.head.origin}")
        for one in ours:
            try:
                Ed25519PublicKey.from_public_bytes(self.public).verify(one.value, note.signed.encode())
            except InvalidSignature:
                what = f"expected a signature of {self.name}+{self.key_id.hex()} over this head, found one that is not"
                raise BadProof(path, f"{what}: the head or its signature was changed after it was signed") from None


class SigningKey(Struct, frozen=True):
    """A private key, and the verifier key that belongs to it."""

    verifier: VerifierKey
    seed: bytes

    def sign(self, head: Head) -> str:
        """Sign a head and return the note."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        value = Ed25519PrivateKey.from_private_bytes(self.seed).sign(encode_head(head).encode())
        return encode_note(head, [Signature(self.verifier.name, self.verifier.key_id, value)])


def signing_key(name: str, seed: bytes, path: Path) -> SigningKey:
    """Make the key of a name and 32 secret bytes. Raises BadKey, SignaturesUnavailable."""
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError:
        raise signatures_unavailable(path) from None
    if _NAME.fullmatch(name) is None:
        raise BadKey(path, f"expected {NAME_EXPECTED}, found {name[:80]!r}")
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    return SigningKey(VerifierKey(name, public), seed)


def make_key(path: Path, name: str, files: Files | None = None) -> SigningKey:
    """Make a key and write it to a new file that only its owner may read; returns when it is durable."""
    key = signing_key(name, os.urandom(32), path)
    text = f"{_PRIVATE}{name}+{key.verifier.key_id.hex()}+{b64encode(_ED25519 + key.seed).decode()}\n"
    try:
        (files or Files()).create_private(path, text.encode())
    except FileExistsError:
        what = "there is a file already, expected none: a key that is lost cannot be made again"
        raise BadKey(path, f"{what}. Name another file") from None
    except OSError as error:
        raise from_os(path, error, "writing the key", "make it again") from error
    return key


def read_key(path: Path) -> SigningKey:
    """Read the key that `make_key` wrote. Raises BadKey, SignaturesUnavailable, LedgerError."""
    expected = f"expected a key as compactor keygen writes it ({_PRIVATE}…)"
    refuse_private_key(os.fspath(path), "the signing key", "the path of the file with it")
    try:
        # A key may be mounted as a link to where it lies.
        content, status = Files().read_private(path.resolve(), KEY_BYTES_MAX)
        _refuse_readable(path, status)
        text = content.decode().strip()
    except UnicodeDecodeError:
        raise BadKey(path, f"{expected}, found bytes that are no text") from None
    except IrregularFile:
        raise BadKey(path, "expected a regular file with a signing key, found something else") from None
    except OSError as error:
        raise from_os(path, error, "reading the signing key", "seal again") from error
    parts = text.removeprefix(_PRIVATE).split("+", 2)
    if not text.startswith(_PRIVATE) or len(parts) != 3:
        raise BadKey(path, f"{expected}, found another text")
    data = _key_bytes(parts[2])
    if data is None:
        raise BadKey(path, f"{expected}, found a key of another kind")
    key = signing_key(parts[0], data, path)
    if key.verifier.key_id.hex() != parts[1]:
        raise BadKey(
            path, f"expected the key {key.verifier.key_id.hex()}, found the id {parts[1]}: the file was changed"
        )
    return key


def _refuse_readable(path: Path, status: os.stat_result) -> None:
    """Refuse a key file that others may read, like ssh: a group only where the file is somebody else's."""
    open_to = stat.S_IRWXO | (stat.S_IRWXG if status.st_uid == os.geteuid() else 0)
    if status.st_mode & open_to:
        found = f"found mode {stat.S_IMODE(status.st_mode):04o}: others may use this key"
        raise BadKey(path, f"expected a key file that only its owner may read, {found}. Run chmod 600 {path}")


def refuse_private_key(text: str, where: str, expected: str) -> None:
    """Refuse a private key in the wrong place, without repeating it. Raises BadKey."""
    if _PRIVATE in text:
        what = f"expected {expected}, found a private signing key itself"
        raise BadKey(where, f"{what}. It may be in a shell history now: make a new key with compactor keygen")


def verifier_key(text: str) -> VerifierKey:
    """Parse a verifier key, or read it from the file that the text names. Raises BadKey."""
    expected = "a verifier key as compactor keygen prints it (NAME+ID+KEY), or a file with one"
    refuse_private_key(text, "the key", expected)
    path = Path(text)
    if "+" not in text or path.exists():
        try:
            text = Files().read_private(path.resolve(), KEY_BYTES_MAX)[0].decode().strip()
        except (OSError, UnicodeDecodeError):
            raise BadKey(path, f"expected {expected}, found neither") from None
        if _PRIVATE in text:
            raise BadKey(path, "expected a verifier key, found a file with a private signing key")
    parts = text.split("+", 2)
    data = _key_bytes(parts[2]) if len(parts) == 3 else None
    if data is None:
        raise BadKey(
            path, f"expected a verifier key as compactor keygen prints it (NAME+ID+KEY), found {redact(text[:80])!r}"
        )
    key = VerifierKey(parts[0], data)
    if key.encode() != text:
        raise BadKey(path, f"expected the id {key.key_id.hex()} in this key, found {parts[1]!r}: it is not whole")
    return key


def _key_bytes(text: str) -> bytes | None:
    """The 32 bytes of an Ed25519 key, or None."""
    try:
        data = b64decode(text, validate=True)
    except ValueError:
        return None
    return data[1:] if data[:1] == _ED25519 and len(data) == 33 else None


def checked_note(text: str, path: Path, keys: Sequence[VerifierKey]) -> Note:
    """Decode a note; with keys, one of them must have signed it. Raises BadProof."""
    note = decode_note(text, path)
    if keys:
        by = {(one.name, one.key_id) for one in note.signatures}
        next((key for key in keys if (key.name, key.key_id) in by), keys[0]).check(note, path)
    return note
