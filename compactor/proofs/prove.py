"""Make proofs from a ledger: that a line is in it, and that it continues an older head.

`check` defines and checks proofs; `core.merkle` plans which hashes they need.

Note: a line is proven in the head at the end of its own segment, so only that segment is read.
"""

from base64 import b64encode
from pathlib import Path

from compactor.core.merkle import MerkleAccumulator, Range, hash_range, list_spans, plan_consistency, plan_inclusion
from compactor.ledger.files import Files
from compactor.ledger.segment_format import Seal, head_name
from compactor.ledger.segment_writer import build_tree
from compactor.ledger.segments import Segments
from compactor.proofs.check import Consistency, Inclusion
from compactor.proofs.heads import make_head
from compactor.proofs.notes import NAME, BadProof, Head, NotProvable, decode_note, encode_note


def prove_line(path: Path, team: str, offset: int, files: Files) -> Inclusion:
    """Prove that the line around an offset is in the log. Raises NotProvable if it is not sealed."""
    segments = Segments(path, files)
    segments.refresh()
    if offset >= segments.sealed_end:
        what = f"expected an offset below {segments.sealed_end}, up to which the log is sealed, found {offset}"
        raise NotProvable(path, f"{what}: only what is sealed can be proven. Run compactor seal --now, then prove it")
    seals = segments.seals
    number = next(number for number, seal in enumerate(seals) if offset < seal.end)
    last = next((later for later in range(number, len(seals)) if seals[later].tree is not None), None)
    if last is None:
        what = "this segment was sealed by a version that made no trees, and none was sealed after it"
        raise NotProvable(path, f"{what}. The next segment will cover it: run compactor seal --now")
    head = _head_at(segments, seals[last], team, files)
    growing = build_tree(segments, seals[:number])
    base, peaks = growing.size, growing.peaks
    leaves, index = list[bytes](), -1
    for seal in seals[number : last + 1]:
        for piece in segments.pieces(seal):
            if piece.start <= offset < piece.start + len(piece.data):
                index = base + len(leaves) + piece.data.count(b"\n", 0, offset - piece.start)
            leaves += growing.leaves(piece.data)
    line_start, line = _line_at(segments, seals[number], offset)
    known = dict(zip(list_spans(base), peaks, strict=True))
    plan = plan_inclusion(index, base + len(leaves))
    hashes = [hash_range(span, base, known, lambda low, high: _over(leaves[low - base : high - base])) for span in plan]
    text, binary = _texts(line)
    return Inclusion(team, line_start, index, [one.hex() for one in hashes], head, text, binary)


def prove_since(path: Path, team: str, old: Head, where: Path, files: Files) -> Consistency:
    """Prove that the log continues an older head. Raises BadProof if it does not."""
    segments = Segments(path, files)
    segments.refresh()
    seals = segments.seals
    at = next((number for number, seal in enumerate(seals) if seal.tree and seal.tree.size == old.size), None)
    newest = seals[-1].tree if seals else None
    if newest is None:
        raise NotProvable(path, "there is no head of this log yet: run compactor seal --now, then prove it")
    if at is None:
        what = f"expected a seal at {old.size} lines, as the older head says, found none in {newest.size} lines"
        raise BadProof(where, f"{what}: this log does not go on from that head. compactor verify says more")
    tree = seals[at].tree
    assert tree is not None
    if tree.root != old.root.hex():
        what = f"expected root {old.root.hex()} over the first {old.size} lines, found {tree.root}"
        raise BadProof(where, f"{what}: the log was changed after that head was made. compactor verify says where")
    plan = plan_consistency(old.size, newest.size)
    known = dict(zip(list_spans(old.size), (bytes.fromhex(peak) for peak in tree.peaks), strict=True))
    later = _hash_ranges(
        [span for span in plan if span[0] >= old.size], segments, seals[at + 1 :], MerkleAccumulator(tree)
    )
    hashes = [later[span] if span in later else hash_range(span, old.size, known, _never) for span in plan]
    old_note = _head_at(segments, seals[at], team, files)
    return Consistency(team, [one.hex() for one in hashes], old_note, _head_at(segments, seals[-1], team, files))


def _never(_low: int, _high: int) -> bytes:
    raise AssertionError("a range of the older tree lies behind its end")


def _hash_ranges(
    spans: list[Range], segments: Segments, seals: list[Seal], tree: MerkleAccumulator
) -> dict[Range, bytes]:
    """The hashes over ranges that follow each other, from the lines of the segments behind the tree so far."""
    found: dict[Range, bytes] = {}
    waiting = sorted(spans)
    index, part = tree.size, MerkleAccumulator()
    for seal in seals:
        for piece in segments.pieces(seal):
            leaves = tree.leaves(piece.data)
            while leaves:
                taken = leaves[: waiting[0][1] - index]
                del leaves[: len(taken)]
                index += len(taken)
                part.extend(taken)
                if index == waiting[0][1]:
                    found[waiting.pop(0)], part = part.root(), MerkleAccumulator()
    return found


def _over(leaves: list[bytes]) -> bytes:
    tree = MerkleAccumulator()
    tree.extend(leaves)
    return tree.root()


def _head_at(segments: Segments, seal: Seal, team: str, files: Files) -> str:
    """The head at the end of a seal: as it was signed, else unsigned."""
    path = segments.path / head_name(seal)
    signed = files.read(path)
    head = make_head(seal, team, NAME)
    if head is None:
        raise NotProvable(path, "this seal holds no tree. Run compactor seal --now, then prove it")
    if signed is None:
        return encode_note(head, [])
    text = signed.decode(errors="replace")
    found = decode_note(text, path).head
    if (found.size, found.root) != (head.size, head.root):
        what = f"expected a head of {head.size} lines and root {head.root.hex()}, as its seal says, found another"
        raise BadProof(path, f"{what}. compactor verify says more")
    return text


def _line_at(segments: Segments, seal: Seal, offset: int) -> tuple[int, bytes]:
    """The line around an offset, with its newline, and where it begins; a line lies in one segment."""
    step, start, end = 1 << 16, offset, offset
    while start > seal.start:
        begin = max(seal.start, start - step)
        found = segments.read(begin, start - begin).rfind(b"\n")
        start = begin + found + 1
        if found >= 0:
            break
    while True:
        data = segments.read(end, min(step, seal.end - end))
        found = data.find(b"\n")
        if found >= 0:
            return start, segments.read(start, end + found + 1 - start)
        end += len(data)


def _texts(line: bytes) -> tuple[str | None, str | None]:
    try:
        return line.decode(), None
    except UnicodeDecodeError:
        return None, b64encode(line).decode()
