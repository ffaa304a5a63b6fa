"""Check seals and segments against each other and against the lines that they stand for.

A reader in `ledger` stops at the first damage; here all of it is reported.

Note: a seal is not trusted because its own checksum is right. Somebody who rewrites a segment can write that checksum
too, and then still needs every later seal, every signed head and the witness.
"""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from compactor.core.merkle import MerkleAccumulator, Tree
from compactor.ledger.errors import SegmentDamaged
from compactor.ledger.files import Files
from compactor.ledger.paths import SEGMENTS
from compactor.ledger.segment_writer import find_first_ts
from compactor.ledger.segments import Seal, Segments, decode_seal, read_piece, seal_name
from compactor.verify.report import Discrepancies

_SEAL_SUFFIX = ".seal.json"
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
    for name in sorted(name for name in files.names(directory) if name.endswith(_SEAL_SUFFIX)):
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
