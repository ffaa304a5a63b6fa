"""The tree over the lines of a log, against the definition of RFC 6962 and the vectors of certificate transparency."""

from __future__ import annotations

import random
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from compactor import Ledger
from compactor.core.merkle import EMPTY_ROOT, MerkleAccumulator, Tree, compute_root, is_whole, leaf_hash, node_hash
from compactor.ledger.files import Files
from compactor.ledger.segment_format import decode_seal, encode_seal
from compactor.ledger.segments import Segments
from tests.cases import LOG
from tests.test_sealing import RAW, SEGMENT, sealed_ledger

# The leaves and roots that the tests of certificate-transparency (merkletree/merkle_tree_test.cc) use.
VECTOR_LEAVES = [
    bytes.fromhex(leaf)
    for leaf in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
    )
]  # fmt: skip
VECTOR_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def mth(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, as it is written there."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\0" + leaves[0]).digest()
    cut = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\1" + mth(leaves[:cut]) + mth(leaves[cut:])).digest()


def lines_of(count: int) -> list[bytes]:
    return [b'{"n":%d}\n' % number for number in range(count)]


def test_the_vectors_of_certificate_transparency() -> None:
    """RFC 6962, 2.1: leaves behind a NUL, nodes behind a 1, the empty tree the hash of nothing."""
    assert (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" == EMPTY_ROOT.hex() == compute_root([]).hex()
    )
    for size, root in enumerate(VECTOR_ROOTS, 1):
        assert root == mth(VECTOR_LEAVES[:size]).hex()
        tree = MerkleAccumulator()
        tree.extend([leaf_hash(leaf) for leaf in VECTOR_LEAVES[:size]])
        assert (size, root) == (tree.size, tree.root().hex())
    assert VECTOR_ROOTS[1] == node_hash(leaf_hash(b""), leaf_hash(b"\0")).hex()


@pytest.mark.parametrize("size", [*range(20), 63, 64, 65, 100, 255, 257])
def test_a_tree_is_that_of_the_rfc_however_it_grew(size: int) -> None:
    """A further segment costs its own lines: from the peaks of any size the same tree grows."""
    lines = lines_of(size)
    chance = random.Random(size)
    for _ in range(6):
        tree = MerkleAccumulator()
        data = b"".join(lines)
        while data:
            cut = chance.randint(1, len(data))
            tree.feed(data[:cut])
            data = data[cut:]
            # As from a seal to the next: only what ends with a line is carried over so.
            tree = MerkleAccumulator(tree.tree()) if not data else tree
        assert (size, mth(lines)) == (tree.size, tree.root())
    for cut in range(0, size + 1, max(1, size // 7)):
        first = MerkleAccumulator()
        first.feed(b"".join(lines[:cut]))
        then = MerkleAccumulator(first.tree())
        then.feed(b"".join(lines[cut:]))
        assert mth(lines) == then.root()
        assert is_whole(then.tree())


def test_a_tree_whose_parts_do_not_fit_is_not_whole() -> None:
    """8.6: the root follows from the peaks, and there are as many as the size needs."""
    tree = MerkleAccumulator()
    tree.feed(b"".join(lines_of(11)))
    good = tree.tree()
    assert is_whole(good)
    wrong = [
        Tree(12, good.root, good.peaks),
        Tree(-11, good.root, good.peaks),
        Tree(11, good.peaks[0], good.peaks),
        Tree(11, good.root, good.peaks[:2]),
        Tree(11, good.root, [good.peaks[1], good.peaks[0], good.peaks[2]]),
        Tree(11, good.root, ["zz", *good.peaks[1:]]),
    ]
    assert [False] * len(wrong) == [is_whole(one) for one in wrong]


def test_every_seal_holds_the_tree_over_all_lines_before_its_end(data: Path) -> None:
    """8.6: one tree over all sealed lines of a ledger, whose size and root every seal records."""
    sealed_ledger(data)
    segments = Segments(data, Files())
    segments.refresh()
    assert len(segments.seals) > 3
    for seal in segments.seals:
        lines = RAW[: seal.end].splitlines(keepends=True)
        assert seal.tree is not None
        assert (len(lines), mth(lines).hex()) == (seal.tree.size, seal.tree.root)
    assert sum(seal.lines for seal in segments.seals) == segments.seals[-1].tree.size  # type: ignore[union-attr]


def test_a_line_longer_than_a_frame_is_one_leaf(data: Path) -> None:
    """8.6: a leaf is a line, whatever frames it lies in."""
    raw = b'{"a":"' + b"x" * (5 << 19) + b'"}\n' + b"\n" + b'{"b":1}\n'
    sealed_ledger(data, raw, segment_bytes=4 << 20)
    segments = Segments(data, Files())
    segments.refresh()
    tree = segments.seals[-1].tree
    assert tree is not None
    assert (3, mth(raw.splitlines(keepends=True)).hex()) == (tree.size, tree.root)


def test_seals_of_an_earlier_version_get_their_tree_with_the_next_one(data: Path) -> None:
    """8.6: seals without a tree are read as ever; the next seal holds the tree over their lines too."""
    sealed_ledger(data, RAW[: RAW.index(b"\n", 120_000) + 1])
    without_trees(data)
    with (data / LOG).open("ab") as log:
        log.write(RAW[RAW.index(b"\n", 120_000) + 1 :])
    with Ledger(data) as ledger:
        assert 1 <= ledger.seal(now=True).segments
        assert RAW == b"".join(ledger.cat())
    segments = Segments(data, Files())
    segments.refresh()
    assert segments.seals[0].tree is None
    tree = segments.seals[-1].tree
    assert tree is not None and mth(RAW.splitlines(keepends=True)).hex() == tree.root


def without_trees(path: Path) -> None:
    """Write the seals of a ledger again, as the version before trees wrote them."""
    previous = ""
    for seal_path in sorted((path / "segments").glob("*.seal.json")):
        seal = decode_seal(seal_path.read_bytes(), seal_path)
        body = encode_seal(msgspec.structs.replace(seal, tree=None, previous=previous))
        body = body[: body.rindex(b',"seal_sha256"')].replace(b',"tree":null', b"")
        data = body + b',"seal_sha256":"' + sha256(body).hexdigest().encode() + b'"}\n'
        assert b"tree" not in data
        seal_path.write_bytes(data)
        previous = sha256(data).hexdigest()


def test_sealing_again_reads_no_earlier_segment_for_the_tree(data: Path) -> None:
    """8.6: a further segment costs its own lines; the peaks of the seal before it are all that is needed."""

    class Counting(Files):
        opened: ClassVar[list[str]] = []

        def open(self, path: Path):  # type: ignore[no-untyped-def]
            self.opened.append(path.name)
            return super().open(path)

    sealed_ledger(data, RAW[: RAW.index(b"\n", 120_000) + 1])
    earlier = {path.name for path in (data / "segments").glob("*.zst")}
    with (data / LOG).open("ab") as log:
        log.write(RAW[RAW.index(b"\n", 120_000) + 1 :])
    files = Counting()
    with Ledger(data, files=files) as ledger:
        ledger.seal(now=True, segment_bytes=SEGMENT, reclaim="never")
    assert set() == earlier & set(files.opened)
