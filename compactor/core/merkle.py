"""The Merkle tree over the lines of a log, as in RFC 6962: its hashes, and its root while the log grows.

A leaf is the SHA-256 of a NUL and the line with its newline; a node that of the byte 1 and its two children. Proofs are
left to `audit.proofs`. The rule that surprises: of all lines so far only the `peaks` are kept, the roots of the whole
subtrees into which they fall, largest first, so that a further segment costs its own lines and nothing else.
"""

from hashlib import sha256

from msgspec import Struct

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


def root_of(peaks: list[bytes]) -> bytes:
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
    return tree.size >= 0 and len(peaks) == tree.size.bit_count() and root_of(peaks).hex() == tree.root


class Growing:
    """A tree that lines are appended to, as the bytes of the log in pieces that may be cut anywhere."""

    def __init__(self, tree: Tree | None = None) -> None:
        self.size = tree.size if tree is not None else 0
        heights = [height for height in range(self.size.bit_length() - 1, -1, -1) if self.size >> height & 1]
        peaks = [bytes.fromhex(peak) for peak in tree.peaks] if tree is not None else []
        self._peaks = dict(zip(heights, peaks, strict=True))
        self._begun = sha256(b"\0")
        self._is_begun = False

    @property
    def peaks(self) -> list[bytes]:
        """The roots of the whole subtrees, largest first."""
        return [self._peaks[height] for height in sorted(self._peaks, reverse=True)]

    def root(self) -> bytes:
        """The root over all whole lines so far."""
        return root_of(self.peaks)

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
        if lines and self._is_begun:
            # What is longer than a piece is hashed as it comes, so that nobody has to hold it.
            self._begun.update(lines[0] + b"\n")
            hashes.append(self._begun.digest())
            self._begun, self._is_begun = sha256(b"\0"), False
            del lines[0]
        hashes += [sha256(b"\0" + line + b"\n").digest() for line in lines]
        if rest:
            self._begun.update(rest)
            self._is_begun = True
        return hashes

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
