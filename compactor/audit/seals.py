"""What `verify` holds seals, segments, signed heads and the witness against: each other, and what they stand for.

Reading the log through segments is left to `ledger`, which stops at the first thing that is wrong; here all of it is
told. The rule that surprises: nothing here believes a seal because its own checksum is right. Whoever rewrote a segment
could write that too, and would then still need every later seal, every signed head and the witness.
"""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from compactor.audit.errors import BadProof
from compactor.audit.heads import Witnessed, head_name
from compactor.audit.keys import VerifierKey, checked_note
from compactor.audit.verdict import Findings
from compactor.ledger.errors import SegmentDamaged
from compactor.ledger.files import Files
from compactor.ledger.making import first_ts
from compactor.ledger.merkle import Growing, Tree
from compactor.ledger.places import SEGMENTS
from compactor.ledger.segments import Seal, Segments, decode_seal, read_piece, seal_name

_SEAL_SUFFIX = ".seal.json"
_RESTORE = "sealed history was changed or lost; restore the segments directory from a backup"
_FRAMES_TOLD = 20


class Chain(NamedTuple):
    """The seals that can be read, in their order; whether they are all of them and follow each other."""

    seals: list[Seal]
    is_whole: bool


def examine_chain(path: Path, files: Files, findings: Findings) -> Chain:
    """Read every seal, and hold it against the one before it, its name, and the size of its segment."""
    before, directory = len(findings), path / SEGMENTS
    seals: list[Seal] = []
    digest: str | None = ""
    end: int | None = 0
    for name in sorted(name for name in files.names(directory) if name.endswith(_SEAL_SUFFIX)):
        data = files.read(directory / name) or b""
        try:
            seal = decode_seal(data, directory / name)
        except SegmentDamaged as damage:
            what, meaning = damage.message.split(". ", 1)[0], f"this seal is not what was written; {_RESTORE}"
            findings.add("seal_damaged", directory / name, expected="a whole seal", found=what, meaning=meaning)
            digest = end = None
            continue
        _check_seal(seal, directory, name, digest, end, files, findings)
        if seals and end is not None:
            _check_sizes(seals[-1], seal, directory / name, findings)
        seals.append(seal)
        digest, end = sha256(data).hexdigest(), seal.end
    return Chain(seals, len(findings) == before)


def _check_seal(
    seal: Seal, directory: Path, name: str, digest: str | None, end: int | None, files: Files, findings: Findings
) -> None:
    path = directory / name
    if seal_name(seal.name) != name:
        meaning = f"a seal was given the name of another; {_RESTORE}"
        findings.add("seal_misplaced", path, expected="the range of its name", found=seal.name, meaning=meaning)
    if end is not None and seal.start != end:
        found = f"one from {seal.start}"
        meaning = f"segments are missing, or cover a range twice; {_RESTORE}"
        findings.add("segment_missing", path, expected=f"a seal from {end} on", found=found, meaning=meaning)
    elif digest is not None and seal.previous != digest:
        expected, meaning = f"previous {digest}", f"the seal before this one was replaced; {_RESTORE}"
        findings.add("chain_broken", path, expected=expected, found=seal.previous, meaning=meaning)
    identity = files.identity(directory / seal.name)
    if identity is None:
        expected = f"a file of {seal.file_bytes} bytes"
        findings.add("segment_missing", directory / seal.name, expected=expected, found="none", meaning=_RESTORE)
    elif identity.size != seal.file_bytes:
        found = f"{identity.size}"
        expected = f"{seal.file_bytes} bytes"
        findings.add("segment_damaged", directory / seal.name, expected=expected, found=found, meaning=_RESTORE)


def _check_sizes(before: Seal, seal: Seal, path: Path, findings: Findings) -> None:
    size = before.tree.size + seal.lines if before.tree is not None else None
    found = seal.tree.size if seal.tree is not None else None
    if size is not None and size != found:
        meaning = f"the tree of this seal is not that of the seal before it and its lines; {_RESTORE}"
        findings.add("tree_differs", path, expected=f"a tree over {size} lines", found=f"{found}", meaning=meaning)


class SegmentCheck:
    """Holds the bytes of one segment, fed in their order, against its seal."""

    def __init__(self, seal: Seal, tree: Growing, directory: Path, with_tree: bool = True) -> None:
        self.seal = seal
        self._with_tree = with_tree and seal.tree is not None
        self._directory = directory
        self.tree = tree
        self._lines = tree.size
        self._content = sha256()

    def feed(self, data: bytes) -> None:
        """Take in the bytes that follow."""
        self._content.update(data)
        self.tree.feed(data)

    def finish(self, findings: Findings) -> None:
        """Say what the seal should say and does not."""
        seal = self.seal
        tree = self.tree.tree()
        pairs: list[tuple[str, object, object]] = [
            ("content_sha256", self._content.hexdigest(), seal.content_sha256),
            ("lines", tree.size - self._lines, seal.lines),
        ]
        if self._with_tree and seal.tree is not None:
            pairs.append(("tree", _said(tree), _said(seal.tree)))
        for field, computed, told in pairs:
            if computed != told:
                meaning = f"`{field}` does not follow from the lines of the segment; {_RESTORE}"
                path = self._directory / seal_name(seal.name)
                findings.add("seal_differs", path, expected=computed, found=told, meaning=meaning)


def _said(tree: Tree) -> str:
    return f"{tree.size} lines with root {tree.root}"


def examine_alone(seals: Sequence[Seal], directory: Path, files: Files, findings: Findings) -> None:
    """Hold every segment against its own seal, where they do not make one sequence. Raises OSError."""
    before: Seal | None = None
    for seal in seals:
        is_next = seal.start == (before.end if before is not None else 0)
        tree = Growing(before.tree) if before is not None and before.tree is not None and is_next else None
        check = SegmentCheck(seal, tree or Growing(), directory, with_tree=tree is not None or seal.start == 0)
        alone = Segments(directory.parent, files)
        try:
            for piece in alone.pieces(seal):
                check.feed(piece.data)
            check.finish(findings)
            examine_times(seal, directory, files, findings)
        except SegmentDamaged:
            locate_damage(seal, directory, files, findings)
        before = seal


def examine_times(seal: Seal, directory: Path, files: Files, findings: Findings) -> None:
    """Hold the first and last time that a seal tells against the lines of its segment. Raises SegmentDamaged."""
    reader = files.open(directory / seal.name)
    try:
        numbers = range(len(seal.frames))
        pieces = (read_piece(directory, seal, reader, number).data.split(b"\n") for number in numbers)
        first = next((ts for lines in pieces if (ts := first_ts(lines)) is not None), None)
        pieces = (read_piece(directory, seal, reader, number).data.split(b"\n") for number in reversed(numbers))
        last = next((ts for lines in pieces if (ts := first_ts(lines[::-1])) is not None), None)
    finally:
        reader.close()
    if (first, last) != (seal.first_ts, seal.last_ts):
        expected, found = f"first_ts {first} and last_ts {last}", f"{seal.first_ts} and {seal.last_ts}"
        meaning = f"the seal tells other times than its lines; {_RESTORE}"
        findings.add("seal_differs", directory / seal_name(seal.name), expected=expected, found=found, meaning=meaning)


def locate_damage(seal: Seal, directory: Path, files: Files, findings: Findings) -> None:
    """Say where a segment's file is not what its seal says: by frames, and by its digest."""
    path = directory / seal.name
    try:
        reader = files.open(path)
    except OSError as error:
        findings.add("segment_missing", path, expected="a file", found=error.strerror or error, meaning=_RESTORE)
        return
    bad: list[tuple[int, str]] = []
    digest = sha256()
    try:
        for place in range(0, reader.identity().size, 1 << 20):
            digest.update(reader.read(place, 1 << 20))
        for number in range(len(seal.frames)):
            try:
                read_piece(directory, seal, reader, number)
            except SegmentDamaged as damage:
                bad.append((number, damage.message.split(". ", 1)[0]))
    finally:
        reader.close()
    for number, what in bad[:_FRAMES_TOLD]:
        start, place = seal.frames[number]
        end = seal.frames[number + 1][0] if number + 1 < len(seal.frames) else seal.end - seal.start
        meaning = f"the log from {seal.start + start} to {seal.start + end} cannot be read from here; {_RESTORE}"
        expected = "a frame as it was written"
        findings.add("segment_damaged", path, offset=place, expected=expected, found=what, meaning=meaning)
    if not bad:
        expected, found = f"SHA-256 {seal.file_sha256}", digest.hexdigest()
        meaning = f"the file was changed, though its frames can be read; {_RESTORE}"
        findings.add("segment_damaged", path, expected=expected, found=found, meaning=meaning)


def examine_heads(
    path: Path, seals: Sequence[Seal], team: str, key: VerifierKey | None, files: Files, findings: Findings
) -> int:
    """Hold every signed head against its seal and the key; the end of the newest that is good."""
    directory, good = path / SEGMENTS, 0
    known = {head_name(seal): seal for seal in seals}
    names = [name for name in sorted(files.names(directory)) if name.endswith(".head")]
    for name in names:
        seal = known.get(name)
        if seal is None:
            meaning = f"a head was signed for a segment that is gone; {_RESTORE}"
            findings.add(
                "segment_missing", directory / name, expected="the seal of this head", found="none", meaning=meaning
            )
            continue
        text = (files.read(directory / name) or b"").decode(errors="replace")
        if _is_head_of(seal, text, directory / name, team, key, findings):
            good = seal.end
    if key is not None and not names and any(seal.tree is not None for seal in seals):
        meaning = "no head of this log was ever signed, or all were removed; compactor seal signs them"
        findings.add("head_missing", directory, expected=f"a head signed by {key.name}", found="none", meaning=meaning)
    return good if key is not None else 0


def _is_head_of(seal: Seal, text: str, path: Path, team: str, key: VerifierKey | None, findings: Findings) -> bool:
    meaning = f"what was signed is not what is sealed: the head was changed, or the history; {_RESTORE}"
    try:
        head = checked_note(text, path, key).head
    except BadProof as bad:
        findings.add("head_damaged", path, expected="a head that is whole", found=bad.message, meaning=meaning)
        return False
    tree = seal.tree
    if tree is None or (head.size, head.root.hex()) != (tree.size, tree.root) or not head.origin.endswith(f"/{team}"):
        expected = f"{_said(tree)} of {team}" if tree is not None else "no head, since its seal has no tree"
        found = f"{head.size} lines with root {head.root.hex()} of {head.origin}"
        findings.add("head_differs", path, expected=expected, found=found, meaning=meaning)
        return False
    return True


def examine_witness(
    witness: Path,
    told: Sequence[tuple[int, Witnessed]],
    seals: Sequence[Seal],
    key: VerifierKey | None,
    findings: Findings,
) -> int:
    """Hold every head that the witness has of this log against the seals; the end of the newest that is good."""
    ends = {seal.end: seal for seal in seals}
    good = 0
    for number, one in told:
        where = f"line {number}"
        try:
            note = checked_note(one.note, witness, None)
            if key is not None and any(signature.name == key.name for signature in note.signatures):
                key.check(note, witness)
        except BadProof as bad:
            meaning = "this line of the witness was changed after it was written"
            findings.add("witness_damaged", witness, expected=f"a head in {where}", found=bad.message, meaning=meaning)
            continue
        head = note.head
        seal = ends.get(one.end)
        tree = seal.tree if seal is not None else None
        expected = f"{head.size} lines with root {head.root.hex()} up to offset {one.end} ({where})"
        if tree is None:
            meaning = f"a seal that was witnessed is gone or was replaced; {_RESTORE}"
            findings.add("witness_differs", witness, expected=expected, found="no such seal", meaning=meaning)
        elif (head.size, head.root.hex()) != (tree.size, tree.root) or not head.origin.endswith(f"/{one.team_id}"):
            meaning = f"the history before offset {one.end} was changed after it was witnessed; {_RESTORE}"
            findings.add("witness_differs", witness, expected=expected, found=_said(tree), meaning=meaning)
        else:
            good = max(good, one.end)
    return good
