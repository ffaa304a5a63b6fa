"""Publish the heads of a ledger: sign them beside their seals, and append the newest to a witness on another disk.

    segments/<start>-<end>.head      the note (`notes`) of the tree at the end of this seal, once a key is set

Sealing, which records the trees, is in `ledger.seal`.

Invariant: a head is published only if the log continues every head that was published before, as the record of the
last signed head (`heads`) and the witness have them. Rewriting history and then sealing is an alarm, never a
second truth.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from compactor.core.merkle import MerkleAccumulator
from compactor.ledger.errors import SegmentDamaged, from_os
from compactor.ledger.files import Files, replace
from compactor.ledger.segment_format import Seal, head_name, seal_name
from compactor.ledger.segments import Segments
from compactor.proofs.heads import (
    LOCK_WAIT_SECONDS,
    HeadAlarm,
    HeadRecord,
    Witnessed,
    begins_as_witness,
    find_data_directory,
    is_over,
    locked,
    make_head,
    read_witness,
)
from compactor.proofs.keys import SigningKey
from compactor.proofs.notes import (
    NAME,
    BadProof,
    Head,
    HeadConflict,
    Note,
    WitnessConflict,
    decode_note,
    encode_note,
)


class Published(Struct, frozen=True):
    """How many heads were signed, and how many appended to the witness."""

    signed: int = 0
    witnessed: int = 0


_HISTORY_CHANGED = (
    "the history of this log was changed after it was signed, or put back from an older backup. Nothing was signed. "
    "compactor verify says where; see proofs.md"
)
_encode = msgspec.json.Encoder().encode


def publish(
    path: Path, team: str, *, key: SigningKey | None = None, witness: Path | None = None, files: Files | None = None
) -> Published:
    """Sign the heads that are unsigned and append the newest to the witness; returns when both are durable.

    Nothing is signed or appended unless the log continues the last signed head (`heads`) and every head in the
    witness. Otherwise an alarm is kept until a later call succeeds. Holds the ledger's lock. Raises LedgerError:
    HeadConflict, WitnessConflict, SegmentDamaged.
    """
    files = files or Files()
    if key is None and witness is None:
        return Published()
    record = HeadRecord(find_data_directory(path), team, files)
    with locked(path, files, LOCK_WAIT_SECONDS):
        try:
            done = _publish(_Publication(path, team, record, files), key, witness)
            _clear_alarm(record, key, witness)
        except (HeadConflict, WitnessConflict, SegmentDamaged) as conflict:
            record.raise_alarm(conflict)
            raise
        except OSError as error:
            raise from_os(witness or path, error, "publishing the head of the log", "seal again") from error
    return done


def check_record(path: Path, team: str, files: Files | None = None) -> HeadAlarm | None:
    """The alarm of a ledger: the one that is kept, or that no seal has the head that was signed last.

    Reads seals and no lines; changes nothing. Raises LedgerError, OSError.
    """
    files = files or Files()
    record = HeadRecord(find_data_directory(path), team, files)
    alarm = record.read_alarm()
    if alarm is not None:
        return alarm
    try:
        recorded = record.read()
        if recorded is not None:
            segments = Segments(path, files)
            segments.refresh()
            find_recorded(segments, recorded[1])
    except HeadConflict as conflict:
        return HeadAlarm("head_conflict", str(conflict), "")
    return None


def find_recorded(segments: Segments, head: Head) -> int:
    """The index of the seal that has the head that was signed last. Raises HeadConflict where none has."""
    seals = segments.seals
    for at, seal in enumerate(seals):
        if seal.tree is not None and is_over(head, seal.tree):
            return at
    size = seals[-1].tree.size if seals and seals[-1].tree else 0
    what = f"expected a seal over {_describe(head)}, as they were signed last, found none in {size} lines"
    raise HeadConflict(segments.path, f"{what}: {_HISTORY_CHANGED}")


def _clear_alarm(record: HeadRecord, key: SigningKey | None, witness: Path | None) -> None:
    """Remove an alarm whose cause was looked at and is gone: a run without the key says nothing about signed heads."""
    alarm = record.read_alarm()
    needed = {"head_conflict": key, "witness_conflict": witness}
    if alarm is not None and needed.get(alarm.kind, record) is not None:
        record.clear_alarm()


def _publish(publication: _Publication, key: SigningKey | None, witness: Path | None) -> Published:
    # All is compared before anything is written.
    witnessed = publication.compare_witness(witness) if witness is not None else 0
    recorded = publication.compare_record() if key is not None else 0
    publication.compare_trees(
        min(([recorded] if key is not None else []) + ([witnessed] if witness is not None else []))
    )
    signed = publication.sign(key, recorded or 0) if key is not None else 0
    told = publication.tell(witness, witnessed or 0, key) if witness is not None else 0
    return Published(signed, told)


class _Publication:
    """The seals of one ledger, compared with what was published of them before, and what is published then."""

    def __init__(self, path: Path, team: str, record: HeadRecord, files: Files) -> None:
        self._team = team
        self._record = record
        self._files = files
        self._segments = Segments(path, files)
        self._segments.refresh()
        self._seals = self._segments.seals

    def compare_witness(self, witness: Path) -> int:
        """Compare every head in the witness with its seal; where the newest ends. Raises WitnessConflict."""
        ours, newest = {seal.end: seal.tree for seal in self._seals}, 0
        lines = read_witness(witness, self._files)
        # Of a first line that was interrupted a beginning is there.
        is_begun = begins_as_witness(witness, self._files)
        if lines and not is_begun and all(isinstance(one, str) for _line, one in lines):
            what = f"expected a witness, found another file: {lines[0][1]}"
            raise WitnessConflict(witness, f"{what}. Nothing was written to it; name another file")
        for _line, one in lines:
            if not isinstance(one, Witnessed) or one.team_id != self._team:
                continue
            try:
                said = decode_note(one.note, witness).head
            except BadProof:
                continue  # `verify` reports it; a head that cannot be read contradicts nothing.
            tree = ours.get(one.end)
            if tree is None or not is_over(said, tree):
                found = f"{tree.size} lines and {tree.root}" if tree is not None else "no seal that ends there"
                what = f"of {self._team} up to offset {one.end} expected {_describe(said)}, found {found}"
                hint = "the history of this log was changed after it was witnessed. compactor verify says where"
                raise WitnessConflict(witness, f"{what}: {hint}")
            newest = max(newest, one.end)
        return newest

    def compare_record(self) -> int:
        """Compare the last signed head, and the heads before it, with the seals; where it ends. Raises HeadConflict."""
        recorded = self._record.read()
        if recorded is None:
            return 0
        note, head = recorded
        at = find_recorded(self._segments, head)
        newest = self._segments.path / head_name(self._seals[at])
        if self._files.read(newest) is None:
            # The record is written first: the run that signed this head was interrupted.
            replace(self._files, newest, [note.encode()])
        for seal in self._seals[: at + 1]:
            self._compare_head(seal)
        return self._seals[at].end

    def _compare_head(self, seal: Seal) -> Note | None:
        """The head of a seal, as its file says; None where the seal has no tree. Raises HeadConflict."""
        if seal.tree is None:
            return None
        path = self._segments.path / head_name(seal)
        data = self._files.read(path)
        if data is None:
            raise HeadConflict(path, f"expected the head that was signed, found no file: {_HISTORY_CHANGED}")
        try:
            note = decode_note(data.decode(errors="replace"), path)
        except BadProof as bad:
            raise HeadConflict(path, f"{bad.message}: {_HISTORY_CHANGED}") from None
        if not is_over(note.head, seal.tree):
            what = f"expected {_describe(note.head)}, as they were signed, found {seal.tree.size} and {seal.tree.root}"
            raise HeadConflict(path, f"{what} in the seal: {_HISTORY_CHANGED}")
        return note

    def compare_trees(self, start: int) -> None:
        """Compare the trees of the seals from an offset on with the lines, continuing the tree that ends there.

        Nobody has signed these seals yet, so their own words prove nothing. Raises HeadConflict, SegmentDamaged.
        """
        before = next((seal.tree for seal in self._seals if seal.end == start), None)
        tree = MerkleAccumulator(before)
        for seal in self._seals:
            if seal.end <= start:
                continue
            for piece in self._segments.pieces(seal):
                tree.feed(piece.data)
            if seal.tree is not None and seal.tree != tree.tree():
                what = f"expected a tree over {tree.size} lines with root {tree.root().hex()}, as its lines give"
                found = f"found {seal.tree.size} lines and root {seal.tree.root}"
                raise HeadConflict(self._segments.path / seal_name(seal.name), f"{what}, {found}: {_HISTORY_CHANGED}")

    def sign(self, key: SigningKey, recorded: int) -> int:
        """Sign the heads behind an offset; how many there were. Raises HeadConflict."""
        names, signed = set(self._files.names(self._segments.path)), 0
        for seal in self._seals:
            head = make_head(seal, self._team, key.verifier.name)
            if seal.end <= recorded or head is None:
                continue
            if head_name(seal) in names:
                note = self._adopt(seal, key, is_first=not recorded)
            else:
                note, signed = key.sign(head), signed + 1
            # First the record: a head that was signed and then removed is never signed again in another version.
            self._record.write(note)
            if head_name(seal) not in names:
                replace(self._files, self._segments.path / head_name(seal), [note.encode()])
        return signed

    def _adopt(self, seal: Seal, key: SigningKey, is_first: bool) -> str:
        """A head that is there and is in no record yet: one of a version that kept none, or of an earlier key."""
        note = self._compare_head(seal)
        assert note is not None
        ours = any((one.name, one.key_id) == (key.verifier.name, key.verifier.key_id) for one in note.signatures)
        if ours or not is_first:
            path = self._segments.path / head_name(seal)
            try:
                key.verifier.check(note, path)
            except BadProof as bad:
                raise HeadConflict(path, f"{bad.message}: {_HISTORY_CHANGED}") from None
        return encode_note(note.head, note.signatures)

    def tell(self, witness: Path, witnessed: int, key: SigningKey | None) -> int:
        """Append the newest head to the witness, unless it is there; how many were appended."""
        name = key.verifier.name if key is not None else NAME
        head = make_head(self._seals[-1], self._team, name) if self._seals else None
        if head is None or witnessed == self._seals[-1].end:
            return 0
        note = key.sign(head) if key is not None else encode_note(head, [])
        _append(witness, _encode(Witnessed(self._team, self._seals[-1].end, note)) + b"\n", self._files)
        return 1


def _describe(head: Head) -> str:
    return f"{head.size} lines and root {head.root.hex()}"


def _append(path: Path, line: bytes, files: Files) -> None:
    path = path.resolve()
    is_new = files.identity(path) is None
    files.append(path, line if is_new or _ends_whole(path, files) else b"\n" + line)
    files.sync(path)
    if is_new:
        files.sync_directory(path.parent)


def _ends_whole(path: Path, files: Files) -> bool:
    """Whether a file is empty or ends with a whole line."""
    reader = files.open(path)
    try:
        size = reader.identity().size
        return size == 0 or reader.read(size - 1, 1) == b"\n"
    finally:
        reader.close()
