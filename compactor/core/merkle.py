"""The Merkle tree over the lines of a log, as in RFC 6962, section 2.1: hashes, roots, and the shape of proofs.

A leaf is the SHA-256 of a NUL and the line with its newline; a node is that of the byte 1 and its two children.
`MerkleAccumulator` computes the root while the log grows, and `plan_*` name the ranges of lines whose hashes make a
proof. Reading the lines, and the JSON form of proofs, are left to `compactor.proofs`.

Note: of all lines so far only the `peaks` are kept, the roots of the whole subtrees into which they fall, largest
first. A further segment costs only its own lines.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256

from msgspec import Struct

Range = tuple[int, int]
"""From a first line up to, and without, a last one; lines are counted from 0."""

EMPTY_ROOT = sha256(b"").digest()


class Tree(Struct, frozen=True):
    """The tree over the first `size` lines of a log as a seal has it; hashes are hexadecimal."""

    size: int
    root: str
    peaks: list[str]


def leaf_hash(line: bytes) -> bytes:
    """The hash of one line, its newline included."""
    return sha256(b"\0" + line).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of the node above two others."""
    return sha256(b"\1" + left + right).digest()


def compute_root(peaks: list[bytes]) -> bytes:
    """The root above whole subtrees, largest first."""
    if not peaks:
        return EMPTY_ROOT
    root = peaks[-1]
    for peak in peaks[-2::-1]:
        root = node_hash(peak, root)
    return root


def is_whole(tree: Tree) -> bool:
    """Whether there are as many peaks as the size needs, and the root follows from them."""
    try:
        peaks = [bytes.fromhex(peak) for peak in tree.peaks]
    except ValueError:
        return False
    # As many whole subtrees as the size has bits.
    return tree.size >= 0 and len(peaks) == tree.size.bit_count() and compute_root(peaks).hex() == tree.root


class MerkleAccumulator:
    """A tree that lines are appended to, as the bytes of the log in pieces that may be cut anywhere."""

    def __init__(self, tree: Tree | None = None) -> None:
        self.size = tree.size if tree is not None else 0
        heights = [height for height in reversed(range(self.size.bit_length())) if self.size >> height & 1]
        peaks = [bytes.fromhex(peak) for peak in tree.peaks] if tree is not None else []
        self._peaks = dict(zip(heights, peaks, strict=True))
        self._begun = sha256(b"\0")

    @property
    def peaks(self) -> list[bytes]:
        """The roots of the whole subtrees, largest first."""
        return [self._peaks[height] for height in sorted(self._peaks, reverse=True)]

    def root(self) -> bytes:
        """The root over all whole lines so far."""
        return compute_root(self.peaks)

    def tree(self) -> Tree:
        """What a seal says of all whole lines so far."""
        return Tree(self.size, self.root().hex(), [peak.hex() for peak in self.peaks])

    def feed(self, data: bytes) -> None:
        """Append the bytes that follow; a line counts once its newline has come."""
        self.extend(self.leaves(data))

    def leaves(self, data: bytes) -> list[bytes]:
        """The hashes of the lines that end in the bytes that follow."""
        lines = data.split(b"\n")
        rest = lines.pop()
        hashes: list[bytes] = []
        if lines:
            # What is longer than a piece is hashed as it comes, so that nobody has to hold it.
            self._begun.update(lines.pop(0) + b"\n")
            hashes.append(self._begun.digest())
            self._begun = sha256(b"\0")
        self._begun.update(rest)
        return hashes + [sha256(b"\0" + line + b"\n").digest() for line in lines]

    def extend(self, level: list[bytes]) -> None:
        """Append lines by their hashes."""
        before, peaks, height = self.size, self._peaks, 0
        self.size += len(level)
        while level:
            if before >> height & 1:
                level = [peaks.pop(height), *level]
            if len(level) & 1:
                peaks[height] = level.pop()
            pairs = iter(level)
            level = [sha256(b"\1" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)]
            height += 1


def plan_inclusion(index: int, size: int) -> list[Range]:
    """The ranges whose hashes show that a line is in a tree, from the line upwards."""
    assert 0 <= index < size
    low, high, ranges = 0, size, list[Range]()
    while high - low > 1:
        cut = low + _left(high - low)
        if index < cut:
            ranges.append((cut, high))
            high = cut
        else:
            ranges.append((low, cut))
            low = cut
    return ranges[::-1]


def plan_consistency(old: int, new: int) -> list[Range]:
    """The ranges whose hashes show that a tree is a beginning of another, from the lines upwards."""
    assert 0 < old <= new
    low, high, ranges = 0, new, list[Range]()
    while old < high:
        cut = low + _left(high - low)
        if old <= cut:
            ranges.append((cut, high))
            high = cut
        else:
            ranges.append((low, cut))
            low = cut
    # The old tree's own root needs no telling where all of it is one subtree.
    return ([(low, high)] if low else []) + ranges[::-1]


def _left(size: int) -> int:
    """How many lines stand below the left child: the greatest power of two that is less than all."""
    return 1 << (size - 1).bit_length() - 1


def hash_range(span: Range, base: int, peaks: dict[Range, bytes], over: Callable[[int, int], bytes]) -> bytes:
    """The hash over a range, from whole subtrees before `base` and from `over` for ranges behind it."""
    low, high = span
    if low >= base:
        return over(low, high)
    if high <= base:
        return peaks[span]
    cut = low + _left(high - low)
    return node_hash(hash_range((low, cut), base, peaks, over), hash_range((cut, high), base, peaks, over))


def list_spans(size: int) -> list[Range]:
    """The ranges of the whole subtrees of so many lines, largest first: those of the peaks."""
    spans, low = list[Range](), 0
    for height in reversed(range(size.bit_length())):
        if size >> height & 1:
            spans.append((low, low + (1 << height)))
            low += 1 << height
    return spans


def derive_inclusion_root(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root that follows from a line's hash and its path; None where the path has not the right length."""
    if not 0 <= index < size or len(path) != len(plan_inclusion(index, size)):
        return None
    found = leaf
    for (_low, high), other in zip(plan_inclusion(index, size), path, strict=True):
        found = node_hash(other, found) if high <= index else node_hash(found, other)
    return found


def derive_consistency_roots(old: int, new: int, old_root: bytes, path: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    """The roots of both trees that follow from a path; None where the path has not the right length."""
    if not 0 < old <= new:
        return None
    ranges = plan_consistency(old, new)
    if len(path) != len(ranges):
        return None
    hashes = list(path)
    if ranges and ranges[0][0] < old:
        first = second = hashes.pop(0)
        ranges = ranges[1:]
    else:
        first = second = old_root
    for (low, _high), other in zip(ranges, hashes, strict=True):
        if low >= old:
            second = node_hash(second, other)
        else:
            first, second = node_hash(other, first), node_hash(other, second)
    return first, second
