"""Check indexes, signed heads and the witness against the seals.

Seals and segments themselves are checked in `seals`.

Note: of these only the witness cannot be forged by somebody who may write everything in the data directory.
"""

from collections.abc import Sequence
from pathlib import Path

from compactor.ledger.checkpoint import checksum
from compactor.ledger.files import Files
from compactor.ledger.index import BadIndex, Index, Read, index_name
from compactor.ledger.indexing import make_index
from compactor.ledger.log import Log
from compactor.ledger.paths import SEGMENTS
from compactor.ledger.segments import Seal, Segments
from compactor.proofs.head_record import HeadRecord, find_data_directory
from compactor.proofs.heads import Witnessed, head_name
from compactor.proofs.keys import VerifierKey, checked_note
from compactor.proofs.notes import BadProof, HeadConflict
from compactor.verify.report import Discrepancies
from compactor.verify.seals import RESTORE, describe_tree


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
    if tree is None or (head.size, head.root.hex()) != (tree.size, tree.root) or not head.origin.endswith(f"/{team}"):
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
    if not any((tree.size, tree.root) == (head.size, head.root.hex()) for tree in trees):
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
        elif (head.size, head.root.hex()) != (tree.size, tree.root) or not head.origin.endswith(f"/{one.team_id}"):
            meaning = f"the history before offset {one.end} was changed after it was witnessed; {RESTORE}"
            report.add("witness_differs", witness, expected=expected, found=describe_tree(tree), meaning=meaning)
        else:
            good = max(good, one.end)
    return good
