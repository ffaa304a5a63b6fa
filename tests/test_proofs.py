"""Proofs of one line and of a beginning: made from a ledger, checked without it, refused once anything is changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from compactor import Ledger
from compactor.core.merkle import (
    derive_consistency_roots,
    derive_inclusion_root,
    leaf_hash,
    plan_consistency,
    plan_inclusion,
)
from compactor.ledger.files import Files
from compactor.proofs.check import Consistency, Inclusion, check_proof, decode_proof, encode_proof
from compactor.proofs.heads import HeadRecord
from compactor.proofs.notes import BadProof, Head, NotProvable, decode_note, encode_note
from compactor.proofs.prove import prove_line, prove_since
from compactor.ui.cli import app
from tests.cases import LOG
from tests.flips import TEAM, Scene
from tests.test_merkle import VECTOR_LEAVES, VECTOR_ROOTS, lines_of, mth, without_trees

WHERE = Path("a.proof")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A clean ledger whose log is sealed in several segments, but for its last third."""
    return Scene(tmp_path_factory.mktemp("shared"))


class TestMerkle:
    """Paths, against RFC 6962 and its own examples."""

    def test_the_examples_of_the_rfc(self) -> None:
        """RFC 6962, 2.1.3: the paths of d0, d3, d4, d6, and the proofs of 3, 4 and 6 lines in 7."""
        a, b, c, d, e, f = ((at, at + 1) for at in range(6))
        g, h, i, j, k, l = (0, 2), (2, 4), (4, 6), (6, 7), (0, 4), (4, 7)  # noqa: E741
        assert [b, h, l] == plan_inclusion(0, 7)
        assert [c, g, l] == plan_inclusion(3, 7)
        assert [f, j, k] == plan_inclusion(4, 7)
        assert [i, k] == plan_inclusion(6, 7)
        assert [c, d, g, l] == plan_consistency(3, 7)
        assert [l] == plan_consistency(4, 7)
        assert [i, j, k] == plan_consistency(6, 7)
        assert [] == plan_consistency(7, 7)
        assert (a, e) == ((0, 1), (4, 5))

    def test_the_vectors_of_certificate_transparency(self) -> None:
        """The paths of its tests: leaf 6 of 8, leaf 3 of 3, and the proofs from 1 and 6 to 8."""
        path = [mth(VECTOR_LEAVES[low:high]) for low, high in plan_inclusion(5, 8)]
        assert [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ] == [one.hex() for one in path]
        assert VECTOR_ROOTS[7] == (derive_inclusion_root(leaf_hash(VECTOR_LEAVES[5]), 5, 8, path) or b"").hex()
        assert ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"] == [
            mth(VECTOR_LEAVES[low:high]).hex() for low, high in plan_inclusion(2, 3)
        ]
        assert [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ] == [mth(VECTOR_LEAVES[low:high]).hex() for low, high in plan_consistency(1, 8)]
        assert [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ] == [mth(VECTOR_LEAVES[low:high]).hex() for low, high in plan_consistency(6, 8)]

    def test_every_line_and_every_beginning_of_small_trees(self) -> None:
        """Every leaf of every tree up to 40 lines, and every beginning of them; and nothing else."""
        lines = lines_of(40)
        for size in range(1, 41):
            root = mth(lines[:size])
            for at in range(size):
                path = [mth(lines[low:high]) for low, high in plan_inclusion(at, size)]
                assert root == derive_inclusion_root(leaf_hash(lines[at]), at, size, path)
                assert root != derive_inclusion_root(leaf_hash(b"other"), at, size, path)
                assert derive_inclusion_root(leaf_hash(lines[at]), at, size, [*path, root]) is None
                assert derive_inclusion_root(leaf_hash(lines[at]), size, size, path) is None
            for old in range(1, size + 1):
                path = [mth(lines[low:high]) for low, high in plan_consistency(old, size)]
                assert (mth(lines[:old]), root) == derive_consistency_roots(old, size, mth(lines[:old]), path)
                assert (b"?" * 32, root) != derive_consistency_roots(old, size, b"?" * 32, path)
                assert derive_consistency_roots(old, size, root, [*path, root]) is None
        assert derive_consistency_roots(0, 5, root, []) is derive_consistency_roots(6, 5, root, []) is None


class TestLines:
    """`compactor prove OFFSET` and `check-proof`."""

    def test_every_sealed_line_can_be_proven(self, shared: Scene) -> None:
        """Self-contained: the line, its number, its path and a signed head; checked without the log."""
        sealed = Ledger(shared.ledger).status().sealed_bytes
        offset = 0
        for number, line in enumerate(shared.raw[:sealed].splitlines(keepends=True)):
            for place in {offset, offset + len(line) - 1}:
                proof = prove_line(shared.ledger, TEAM, place, Files())
                assert (number, offset) == (proof.index, proof.offset)
                done = check_proof(decode_proof(encode_proof(proof), WHERE), WHERE, keys=[shared.key.verifier])
                assert (number, line.decode(), True) == (done.index, done.line, done.signed)
            offset += len(line)

    def test_a_line_that_is_not_sealed_cannot(self, shared: Scene) -> None:
        """The tail is not proven; the message offers `compactor seal --now`."""
        for offset in (Ledger(shared.ledger).status().sealed_bytes, 10**9):
            with pytest.raises(NotProvable, match="compactor seal --now"):
                prove_line(shared.ledger, TEAM, offset, Files())

    def test_lines_of_any_kind(self, tmp_path: Path) -> None:
        """Blank, not UTF-8, with NULs, longer than a mebibyte: a leaf is a line, whatever it says."""
        lines = [b"\n", b"\xff\xfe\n", b"a\0b\n", b"x" * (3 << 19) + b"\n", b"\r\n", b'{"event":"fil\n']
        scene = Scene(tmp_path, b"".join(lines), sealed=3)
        assert [] == scene.verify(deep=True)
        offset = 0
        for number, line in enumerate(lines):
            proof = prove_line(scene.ledger, TEAM, offset + len(line) // 2, Files())
            done = check_proof(decode_proof(encode_proof(proof), WHERE), WHERE, keys=[scene.key.verifier])
            assert (number, line.decode(errors="replace")) == (done.index, done.line)
            offset += len(line)

    def test_lines_below_seals_of_an_earlier_version(self, tmp_path: Path) -> None:
        """The first seal that has a tree covers the lines before it too; without one there is no proof yet."""
        scene = Scene(tmp_path)
        for path in scene.files()["heads"]:
            path.unlink()
        without_trees(scene.ledger)
        # Nothing was published of these seals, as an earlier version left them.
        HeadRecord(scene.data, TEAM).path.unlink()
        assert [] == scene.verify(trusting=True)
        with pytest.raises(NotProvable, match="compactor seal --now"):
            prove_line(scene.ledger, TEAM, 0, Files())
        with Ledger(scene.ledger) as ledger:
            ledger.seal(now=True, segment_bytes=1000)
        scene.witness.unlink()
        scene.publish()
        assert [] == scene.verify()
        for number in (0, 17, 30, 60):
            offset = sum(map(len, scene.raw.splitlines(keepends=True)[:number]))
            proof = prove_line(scene.ledger, TEAM, offset, Files())
            assert number == check_proof(proof, WHERE, keys=[scene.key.verifier]).index

    def test_one_segment_is_read_and_no_other(self, shared: Scene) -> None:
        """Proven in the head at the end of its own segment, whatever the length of the log."""
        opened: list[str] = []

        class Noting(Files):
            def open(self, path: Path):  # type: ignore[no-untyped-def]
                opened.append(path.name)
                return super().open(path)

        prove_line(shared.ledger, TEAM, 3000, Noting())
        assert 1 == len({name for name in opened if name.endswith(".zst")})

    def test_a_head_that_is_known_takes_the_place_of_a_key(self, shared: Scene) -> None:
        """Without a key: a head from elsewhere, as from a witness; another head is refused."""
        proof = prove_line(shared.ledger, TEAM, 0, Files())
        head = decode_note(proof.head, WHERE).head
        done = check_proof(proof, WHERE, known=head)
        assert (False, 0) == (done.signed, done.index)
        with pytest.raises(BadProof, match="expected the head of"):
            check_proof(proof, WHERE, known=Head(head.origin, head.size + 1, head.root))

    def test_a_line_of_one_team_is_not_one_of_another(self, shared: Scene) -> None:
        """The head that is known is that of one log: a proof with another team's name on it is refused."""
        proof = prove_line(shared.ledger, TEAM, 0, Files())
        known = decode_note(proof.head, WHERE).head
        stolen = encode_note(Head(known.origin.replace(TEAM, "bravo"), known.size, known.root), [])
        forged = msgspec.structs.replace(proof, team_id="bravo", head=stolen)
        with pytest.raises(BadProof, match=r"expected the head of .*/alpha, found one of .*/bravo"):
            check_proof(forged, WHERE, known=known)

    def test_a_head_from_before_there_was_a_key_is_known_too(self, shared: Scene) -> None:
        """Its origin has the team, and `compactor` in the place of the key's name."""
        proof = prove_line(shared.ledger, TEAM, 0, Files())
        head = decode_note(proof.head, WHERE).head
        assert 0 == check_proof(proof, WHERE, known=Head(f"compactor/{TEAM}", head.size, head.root)).index
        with pytest.raises(BadProof, match="expected the head of"):
            check_proof(proof, WHERE, known=Head(f"example.org/other/{TEAM}", head.size, head.root))


class TestSince:
    """`compactor prove --since HEAD`."""

    def test_every_older_head_begins_the_newest(self, tmp_path: Path) -> None:
        """From every seal to the last one: the older head is a prefix of today's."""
        scene = Scene(tmp_path, sealed=3)
        heads = [decode_note(path.read_text(), path).head for path in scene.files()["heads"]]
        assert len(heads) > 3
        for old in heads:
            proof = prove_since(scene.ledger, TEAM, old, WHERE, Files())
            done = check_proof(decode_proof(encode_proof(proof), WHERE), WHERE, keys=[scene.key.verifier], known=old)
            assert (old.size, heads[-1].size, heads[-1].root.hex()) == (done.old_size, done.size, done.root)
            assert [mth(scene.raw.splitlines(keepends=True)[low:high]).hex() for low, high in plan_consistency(
                old.size, heads[-1].size)] == proof.path  # fmt: skip

    def test_a_head_of_another_history_is_refused(self, tmp_path: Path) -> None:
        """A log that was edited since does not go on from the old head, and says so."""
        scene = Scene(tmp_path / "one", sealed=3)
        edited = scene.raw.replace(b'"530.00"', b'"530.01"', 1)
        other = Scene(tmp_path / "other", edited, sealed=3)
        old = decode_note(scene.files()["heads"][1].read_text(), WHERE).head
        with pytest.raises(BadProof, match="the log was changed after that head was made"):
            prove_since(other.ledger, TEAM, old, WHERE, Files())
        with pytest.raises(BadProof, match="does not go on from that head"):
            prove_since(other.ledger, TEAM, Head(old.origin, old.size + 1, old.root), WHERE, Files())

    def test_a_log_without_heads(self, data: Path) -> None:
        """Nothing is sealed: there is nothing to prove yet."""
        (data / LOG).write_bytes(b"\n")
        with pytest.raises(NotProvable, match="compactor seal --now"):
            prove_since(data, "default", Head("compactor/default", 1, bytes(32)), WHERE, Files())


class TestTampered:
    """Proofs that were changed fail."""

    def proofs(self, scene: Scene) -> list[Inclusion | Consistency]:
        old = decode_note(scene.files()["heads"][0].read_text(), WHERE).head
        return [
            prove_line(scene.ledger, TEAM, scene.raw.index(b"530", 3000), Files()),
            prove_since(scene.ledger, TEAM, old, WHERE, Files()),
        ]  # fmt: skip

    def test_every_byte_of_a_proof_counts(self, shared: Scene) -> None:
        """A bit of any byte: refused, or it says the same. Only `offset` is not proven, and what stands between."""
        for proof in self.proofs(shared):
            data = encode_proof(proof)
            good = check_proof(proof, WHERE, keys=[shared.key.verifier])
            for at in range(len(data)):
                changed = data[:at] + bytes([data[at] ^ 1 << at % 7]) + data[at + 1 :]
                try:
                    found = check_proof(decode_proof(changed, WHERE), WHERE, keys=[shared.key.verifier])
                except BadProof:
                    continue
                assert _but_offset(good) == _but_offset(found), data[at - 20 : at + 20]

    def test_what_a_forger_would_try(self, shared: Scene) -> None:
        """Another line, number, path, team or head: each is refused with what was expected and found."""
        line, since = self.proofs(shared)
        assert isinstance(line, Inclusion) and isinstance(since, Consistency)
        other = prove_line(shared.ledger, TEAM, 0, Files())
        forged: list[Inclusion | Consistency] = [
            msgspec.structs.replace(line, line=(line.line or "").replace("530", "531")),
            msgspec.structs.replace(line, index=line.index + 1),
            msgspec.structs.replace(line, index=-1),
            msgspec.structs.replace(line, path=line.path[::-1]),
            msgspec.structs.replace(line, path=line.path[1:]),
            msgspec.structs.replace(line, path=[*line.path[:-1], "zz"]),
            msgspec.structs.replace(line, path=[*line.path[:-1], line.path[-1][:-2]]),
            msgspec.structs.replace(line, team_id="bravo"),
            msgspec.structs.replace(line, head=other.head),
            msgspec.structs.replace(line, line=None),
            msgspec.structs.replace(line, line_base64="!"),
            msgspec.structs.replace(line, line=None, line_base64="!"),
            msgspec.structs.replace(since, path=since.path[::-1]),
            msgspec.structs.replace(since, path=[]),
            msgspec.structs.replace(since, old=since.new, new=since.old),
            msgspec.structs.replace(since, team_id="bravo"),
        ]
        for proof in forged:
            with pytest.raises(BadProof):
                check_proof(proof, WHERE, keys=[shared.key.verifier])

    @pytest.mark.parametrize(
        "data", [b"", b"{}", b"[]", b'{"proof":"other"}', b"\xff", b'{"proof":"inclusion","format":2}']
    )
    def test_what_is_no_proof(self, data: bytes) -> None:
        """The message says what was expected."""
        with pytest.raises(BadProof, match="expected a proof"):
            decode_proof(data, WHERE)

    def test_a_proof_of_another_format(self, shared: Scene) -> None:
        """A newer format is refused and not guessed."""
        data = encode_proof(self.proofs(shared)[0]).replace(b'"team_id"', b'"format": 2, "team_id"')
        with pytest.raises(BadProof, match="expected a proof of format 1, found format 2"):
            decode_proof(data, WHERE)


def _but_offset(done: Any) -> list[Any]:
    return [getattr(done, name) for name in done.__struct_fields__ if name != "offset"]


class TestCommands:
    """`prove` and `check-proof` on the command line."""

    def run(self, *arguments: str) -> Any:
        return CliRunner().invoke(app, list(arguments), prog_name="compactor")

    def test_from_an_offset_to_a_checked_line(self, shared: Scene, tmp_path: Path) -> None:
        """A trade names its event's offset; the proof of it is checked where there is no log."""
        trade = json.loads((shared.ledger / "trades.jsonl").read_text().splitlines()[3])
        out = tmp_path / "event.proof"
        assert 0 == self.run("prove", str(trade["offset"]), "--data", str(shared.data), "--out", str(out)).exit_code
        (tmp_path / "pub").write_text(shared.key.verifier.encode() + "\n")
        for key in (shared.key.verifier.encode(), str(tmp_path / "pub")):
            result = self.run("check-proof", str(out), "--key", key)
            assert 0 == result.exit_code, result.output
            assert trade["execution_id"] in result.stdout
        row = json.loads(self.run("check-proof", str(out), "--key", key, "--json").stdout)
        assert (True, trade["offset"]) == (row["signed"], row["offset"])
        out.write_bytes(out.read_bytes().replace(b"530.00", b"530.01"))
        result = self.run("check-proof", str(out), "--key", key)
        assert 1 == result.exit_code
        assert "expected root" in result.stderr

    def test_from_a_head_to_a_checked_beginning(self, shared: Scene, tmp_path: Path) -> None:
        """The auditor keeps a `.head` file, or a proof, and asks for the way from there."""
        head = tmp_path / "old.head"
        shutil.copy(shared.files()["heads"][0], head)
        out = tmp_path / "since.proof"
        for since in (head, out, shared.witness):
            result = self.run("prove", "--since", str(since), "--team", TEAM, "--data", str(shared.data))
            assert 0 == result.exit_code, result.output
            out.write_text(result.stdout)
        result = self.run("prove", "--since", str(head), "--team", TEAM, "--data", str(shared.data), "--out", str(out))
        result = self.run("check-proof", str(out), "--head", str(head))
        assert (0, True) == (result.exit_code, "is the beginning of it" in result.stdout)

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["prove"], "either an OFFSET or --since"),
            (["prove", "5", "--since", "x"], "either an OFFSET or --since"),
            (["prove", "--since", "/does/not/exist"], "expected a head or a proof"),
            (["check-proof", "/does/not/exist", "--key", "x"], "expected a proof"),
            (["check-proof", "/does/not/exist"], "a proof by itself proves nothing"),
        ],
    )
    def test_wrong_usage(self, shared: Scene, arguments: list[str], said: str) -> None:
        """Exit 2, and what was expected."""
        more = ["--data", str(shared.data)] if arguments[0] == "prove" else []
        result = self.run(*arguments, *more)
        assert 2 == result.exit_code
        assert said in result.stderr
