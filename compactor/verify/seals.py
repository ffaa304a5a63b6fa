"""Check seals and segments against each other and against the lines that they stand for.

A reader in `ledger` stops at the first damage; here all of it is reported. The same holds for what is published of the
seals: indexes, signed heads and the witness.

Note: a seal is not trusted because its own checksum is right. Somebody who rewrites a segment can write that checksum
too, and then still needs every later seal, every signed head and the witness. Of these only the witness cannot be
forged by somebody who may write everything in the data directory.
"""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from compactor.core.merkle import MerkleAccumulator, Tree
from compactor.ledger.checkpoint import checksum
from compactor.ledger.errors import SegmentDamaged
from compactor.ledger.files import Files
from compactor.ledger.index import BadIndex, Index, Read, index_name
from compactor.ledger.indexing import make_index
from compactor.ledger.log import Log
from compactor.ledger.paths import SEGMENTS
from compactor.ledger.segment_format import SEAL_SUFFIX, Seal, decode_seal, head_name, read_piece, seal_name
from compactor.ledger.segment_writer import find_first_ts
from compactor.ledger.segments import Segments
from compactor.proofs.heads import HeadRecord, Witnessed, find_data_directory, is_over
from compactor.proofs.keys import VerifierKey, checked_note
from compactor.proofs.notes import BadProof, HeadConflict
from compactor.verify.report import Discrepancies

RESTORE = "sealed history was changed or lost; restore the segments directory from a backup"
_FRAMES_TOLD = 20


class Chain(NamedTuple):
    """The seals that can be read, in their order; whether they are all of them and follow each other."""

    seals: list[Seal]
    is_whole: bool


def examine_chain(path: Path, files: Files, report: Discrepancies) -> Chain:
    """Read every seal, and hold it against the one before it, its name, and the size of its segment."""
    before, directory = len(report), path / SEGMENTS
    seals: list[Seal] = []
    digest: str | None = ""
    end: int | None = 0
    for name in sorted(name for name in files.names(directory) if name.endswith(SEAL_SUFFIX)):
        data = files.read(directory / name) or b""
        try:
            seal = decode_seal(data, directory / name)
        except SegmentDamaged as damage:
            what, meaning = damage.message.split(". ", 1)[0], f"this seal is not what was written; {RESTORE}"
            report.add("seal_damaged", directory / name, expected="a whole seal", found=what, meaning=meaning)
            digest = end = None
            continue
        _check_seal(seal, directory, name, digest, end, files, report)
        if seals and end is not None:
            _check_sizes(seals[-1], seal, directory / name, report)
        seals.append(seal)
        digest, end = sha256(data).hexdigest(), seal.end
    return Chain(seals, len(report) == before)


def _check_seal(
    seal: Seal, directory: Path, name: str, digest: str | None, end: int | None, files: Files, report: Discrepancies
) -> None:
    path = directory / name
    if seal_name(seal.name) != name:
        meaning = f"a seal was given the name of another; {RESTORE}"
        report.add("seal_misplaced", path, expected="the range of its name", found=seal.name, meaning=meaning)
    if end is not None and seal.start != end:
        found = f"one from {seal.start}"
        meaning = f"segments are missing, or cover a range twice; {RESTORE}"
        report.add("segment_missing", path, expected=f"a seal from {end} on", found=found, meaning=meaning)
    elif digest is not None and seal.previous != digest:
        expected, meaning = f"previous {digest}", f"the seal before this one was replaced; {RESTORE}"
        report.add("chain_broken", path, expected=expected, found=seal.previous, meaning=meaning)
    identity = files.identity(directory / seal.name)
    if identity is None:
        expected = f"a file of {seal.file_bytes} bytes"
        report.add("segment_missing", directory / seal.name, expected=expected, found="none", meaning=RESTORE)
    elif identity.size != seal.file_bytes:
        found = f"{identity.size}"
        expected = f"{seal.file_bytes} bytes"
        report.add("segment_damaged", directory / seal.name, expected=expected, found=found, meaning=RESTORE)


def _check_sizes(before: Seal, seal: Seal, path: Path, report: Discrepancies) -> None:
    size = before.tree.size + seal.lines if before.tree is not None else None
    found = seal.tree.size if seal.tree is not None else None
    if size is not None and size != found:
        meaning = f"the tree of this seal is not that of the seal before it and its lines; {RESTORE}"
        report.add("tree_differs", path, expected=f"a tree over {size} lines", found=f"{found}", meaning=meaning)


class SegmentCheck:
    """Holds the bytes of one segment, fed in their order, against its seal."""

    def __init__(self, seal: Seal, tree: MerkleAccumulator, directory: Path, with_tree: bool = True) -> None:
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

    def finish(self, report: Discrepancies) -> None:
        """Say what the seal should say and does not."""
        seal = self.seal
        tree = self.tree.tree()
        pairs: list[tuple[str, object, object]] = [
            ("content_sha256", self._content.hexdigest(), seal.content_sha256),
            ("lines", tree.size - self._lines, seal.lines),
        ]
        if self._with_tree and seal.tree is not None:
            pairs.append(("tree", describe_tree(tree), describe_tree(seal.tree)))
        for field, computed, told in pairs:
            if computed != told:
                meaning = f"`{field}` does not follow from the lines of the segment; {RESTORE}"
                path = self._directory / seal_name(seal.name)
                report.add("seal_differs", path, expected=computed, found=told, meaning=meaning)


def describe_tree(tree: Tree) -> str:
    return f"{tree.size} lines with root {tree.root}"


def examine_alone(seals: Sequence[Seal], directory: Path, files: Files, report: Discrepancies) -> None:
    """Check every segment against its own seal, where they do not make one sequence. Raises OSError."""
    before: Seal | None = None
    for seal in seals:
        is_next = seal.start == (before.end if before is not None else 0)
        tree = MerkleAccumulator(before.tree) if before is not None and before.tree is not None and is_next else None
        check = SegmentCheck(
            seal, tree or MerkleAccumulator(), directory, with_tree=tree is not None or seal.start == 0
        )
        alone = Segments(directory.parent, files)
        try:
            for piece in alone.pieces(seal):
                check.feed(piece.data)
            check.finish(report)
            examine_times(seal, directory, files, report)
        except SegmentDamaged:
            locate_damage(seal, directory, files, report)
        before = seal


def examine_times(seal: Seal, directory: Path, files: Files, report: Discrepancies) -> None:
    """Check the first and last time that a seal tells against the lines of its segment. Raises SegmentDamaged."""
    reader = files.open(directory / seal.name)
    try:
        numbers = range(len(seal.frames))
        pieces = (read_piece(directory, seal, reader, number).data.split(b"\n") for number in numbers)
        first = next((ts for lines in pieces if (ts := find_first_ts(lines)) is not None), None)
        pieces = (read_piece(directory, seal, reader, number).data.split(b"\n") for number in reversed(numbers))
        last = next((ts for lines in pieces if (ts := find_first_ts(lines[::-1])) is not None), None)
    finally:
        reader.close()
    if (first, last) != (seal.first_ts, seal.last_ts):
        expected, found = f"first_ts {first} and last_ts {last}", f"{seal.first_ts} and {seal.last_ts}"
        meaning = f"the seal tells other times than its lines; {RESTORE}"
        report.add("seal_differs", directory / seal_name(seal.name), expected=expected, found=found, meaning=meaning)


def locate_damage(seal: Seal, directory: Path, files: Files, report: Discrepancies) -> None:
    """Say where a segment's file is not what its seal says: by frames, and by its digest."""
    path = directory / seal.name
    try:
        reader = files.open(path)
    except OSError as error:
        report.add("segment_missing", path, expected="a file", found=error.strerror or error, meaning=RESTORE)
        return
    bad: list[tuple[int, str]] = []
    digest = sha256()
    try:
        for start in range(0, reader.identity().size, 1 << 20):
            digest.update(reader.read(start, 1 << 20))
        for number in range(len(seal.frames)):
            try:
                read_piece(directory, seal, reader, number)
            except SegmentDamaged as damage:
                bad.append((number, damage.message.split(". ", 1)[0]))
    finally:
        reader.close()
    for number, what in bad[:_FRAMES_TOLD]:
        start, offset = seal.frames[number]
        end = seal.frames[number + 1][0] if number + 1 < len(seal.frames) else seal.end - seal.start
        meaning = f"the log from {seal.start + start} to {seal.start + end} cannot be read from here; {RESTORE}"
        expected = "a frame as it was written"
        report.add("segment_damaged", path, offset=offset, expected=expected, found=what, meaning=meaning)
    if not bad:
        expected, found = f"SHA-256 {seal.file_sha256}", digest.hexdigest()
        meaning = f"the file was changed, though its frames can be read; {RESTORE}"
        report.add("segment_damaged", path, expected=expected, found=found, meaning=meaning)


def examine_indexes(seals: Sequence[Seal], directory: Path, files: Files, report: Discrepancies) -> None:
    """Check every index that is there against its own checksums and its seal."""
    for seal in seals:
        path = directory / index_name(seal)
        data = files.read(path)
        if data is None:
            continue
        read = _reading(data)
        try:
            header = Index(read, len(data), seal).header
            position = len(data) - 4 * sum(header.counts)
            for number, count in enumerate(header.counts):
                page = read(position, 4 * count)
                if checksum(page) != header.checksums[number * 16 : number * 16 + 16]:
                    raise BadIndex
                position += 4 * count
        except BadIndex:
            meaning = "no answer depends on it: it is made again when it is needed. Remove it"
            found = "other bytes"
            report.add("index_damaged", path, expected="the index of this segment", found=found, meaning=meaning)


def _reading(data: bytes) -> Read:
    return lambda offset, length: data[offset : offset + length]


def remake_indexes(log: Log, segments: Segments, files: Files, report: Discrepancies) -> None:
    """Make every index that is there again, and compare. Raises SegmentDamaged."""
    for seal in segments.seals:
        path = segments.path / index_name(seal)
        data = files.read(path)
        if data is not None and data != make_index(log, seal):
            expected, found = "the index that follows from the segment", "another"
            meaning = "orders may be hidden from history; remove the file, it is made again when it is needed"
            report.add("index_differs", path, expected=expected, found=found, meaning=meaning)


def examine_heads(
    path: Path, seals: Sequence[Seal], team: str, keys: Sequence[VerifierKey], files: Files, report: Discrepancies
) -> int:
    """Check every signed head against its seal and the key; the end of the newest that is good."""
    directory, good = path / SEGMENTS, 0
    known = {head_name(seal): seal for seal in seals}
    names = [name for name in sorted(files.names(directory)) if name.endswith(".head")]
    for name in names:
        seal = known.get(name)
        if seal is None:
            meaning = f"a head was signed for a segment that is gone; {RESTORE}"
            report.add(
                "segment_missing", directory / name, expected="the seal of this head", found="none", meaning=meaning
            )
            continue
        text = (files.read(directory / name) or b"").decode(errors="replace")
        if _check_head(seal, text, directory / name, team, keys, report):
            good = seal.end
    if keys and not names and any(seal.tree is not None for seal in seals):
        meaning = "no head of this log was ever signed, or all were removed; compactor seal signs them"
        report.add(
            "head_missing", directory, expected=f"a head signed by {keys[0].name}", found="none", meaning=meaning
        )
    return good if keys else 0


def _check_head(
    seal: Seal, text: str, path: Path, team: str, keys: Sequence[VerifierKey], report: Discrepancies
) -> bool:
    meaning = f"what was signed is not what is sealed: the head was changed, or the history; {RESTORE}"
    try:
        head = checked_note(text, path, keys).head
    except BadProof as bad:
        report.add("head_damaged", path, expected="a head that is whole", found=bad.message, meaning=meaning)
        return False
    tree = seal.tree
    if tree is None or not is_over(head, tree) or not head.origin.endswith(f"/{team}"):
        expected = f"{describe_tree(tree)} of {team}" if tree is not None else "no head, since its seal has no tree"
        found = f"{head.size} lines with root {head.root.hex()} of {head.origin}"
        report.add("head_differs", path, expected=expected, found=found, meaning=meaning)
        return False
    return True


def examine_record(path: Path, team: str, seals: Sequence[Seal], files: Files, report: Discrepancies) -> None:
    """Check that a seal has the head that was signed last, as it is recorded outside the ledger."""
    record = HeadRecord(find_data_directory(path), team, files)
    try:
        recorded = record.read()
    except HeadConflict as bad:
        report.add("head_damaged", record.path, expected="a head", found=bad.message, meaning="the record was changed")
        return
    if recorded is None:
        return
    head = recorded[1]
    trees = [seal.tree for seal in seals if seal.tree is not None]
    if not any(is_over(head, tree) for tree in trees):
        expected = f"a seal over {head.size} lines with root {head.root.hex()}, as they were signed last"
        found = f"none in {trees[-1].size if trees else 0} lines"
        meaning = f"sealed history was changed after it was signed, or is an older backup; {RESTORE}"
        report.add("head_differs", record.path, expected=expected, found=found, meaning=meaning)


def examine_witness(
    witness: Path,
    told: Sequence[tuple[int, Witnessed]],
    seals: Sequence[Seal],
    keys: Sequence[VerifierKey],
    report: Discrepancies,
) -> int:
    """Check every head that the witness has of this log against the seals; the end of the newest that is good."""
    ends = {seal.end: seal for seal in seals}
    good = 0
    for number, one in told:
        where = f"line {number}"
        try:
            note = checked_note(one.note, witness, ())
            # A head from before there was a key is held against the seal alone.
            note = checked_note(one.note, witness, keys if note.signatures else ())
        except BadProof as bad:
            meaning = "this line of the witness was changed after it was written"
            report.add("witness_damaged", witness, expected=f"a head in {where}", found=bad.message, meaning=meaning)
            continue
        head = note.head
        seal = ends.get(one.end)
        tree = seal.tree if seal is not None else None
        expected = f"{head.size} lines with root {head.root.hex()} up to offset {one.end} ({where})"
        if tree is None:
            meaning = f"a seal that was witnessed is gone or was replaced; {RESTORE}"
            report.add("witness_differs", witness, expected=expected, found="no such seal", meaning=meaning)
        elif not is_over(head, tree) or not head.origin.endswith(f"/{one.team_id}"):
            meaning = f"the history before offset {one.end} was changed after it was witnessed; {RESTORE}"
            report.add("witness_differs", witness, expected=expected, found=describe_tree(tree), meaning=meaning)
        else:
            good = max(good, one.end)
    return good
