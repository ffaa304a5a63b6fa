"""Proofs in a Merkle tree, as in RFC 6962, section 2.1: which hashes they are made of, and how they are checked.

The hashes themselves come from `ledger.merkle`. Positions are numbers of lines; a range is from its first line up to,
and without, its last. The rule that surprises: nothing here reads a log. A proof is planned as ranges of lines, and
whoever has the lines makes a hash of each.
"""

from collections.abc import Callable, Sequence

from compactor.core.merkle import node_hash

Range = tuple[int, int]


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


def hash_of(span: Range, base: int, peaks: dict[Range, bytes], over: Callable[[int, int], bytes]) -> bytes:
    """The hash over a range, from whole subtrees before `base` and from `over` for ranges behind it."""
    low, high = span
    if low >= base:
        return over(low, high)
    if high <= base:
        return peaks[span]
    cut = low + _left(high - low)
    return node_hash(hash_of((low, cut), base, peaks, over), hash_of((cut, high), base, peaks, over))


def spans_of(size: int) -> list[Range]:
    """The ranges of the whole subtrees of so many lines, largest first: those of the peaks."""
    spans, low = list[Range](), 0
    for height in range(size.bit_length() - 1, -1, -1):
        if size >> height & 1:
            spans.append((low, low + (1 << height)))
            low += 1 << height
    return spans


def root_by_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root that follows from a line's hash and its path; None where the path has not the right length."""
    if not 0 <= index < size or len(path) != len(plan_inclusion(index, size)):
        return None
    found = leaf
    for (low, _high), other in zip(plan_inclusion(index, size), path, strict=True):
        found = node_hash(other, found) if low <= index else node_hash(found, other)
    return found


def roots_by_consistency(old: int, new: int, old_root: bytes, path: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    """The roots of both trees that follow from a path; None where the path has not the right length."""
    if not 0 < old <= new:
        return None
    ranges = plan_consistency(old, new)
    if len(path) != len(ranges):
        return None
    hashes = list(path)
    if ranges and ranges[0][1] == old and ranges[0][0] > 0:
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
