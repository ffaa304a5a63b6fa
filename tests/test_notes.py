"""Heads as signed notes, keys, and the witness."""

from __future__ import annotations

import json
import stat
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from compactor import Ledger, LedgerError
from compactor.proofs.heads import read_witness
from compactor.proofs.keys import VerifierKey, checked_note, make_key, read_key, signing_key, verifier_key
from compactor.proofs.notes import (
    BadKey,
    BadProof,
    Head,
    SignaturesUnavailable,
    WitnessConflict,
    decode_note,
    encode_head,
    encode_note,
)
from compactor.proofs.publish import publish
from compactor.ui.cli import app
from tests.cases import LOG
from tests.faults import orders
from tests.flips import TEAM, Scene

WHERE = Path("head")
# The example of C2SP signed-note, as golang.org/x/mod/sumdb/note has it: a key, a text, and its signature.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
GO_SIGNATURE = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A clean ledger with signed heads and a witness."""
    return Scene(tmp_path_factory.mktemp("shared"))


def test_keys_and_signatures_are_those_of_other_implementations() -> None:
    """Ed25519 in the note format: Go's published key has its id here too, and its signature is good."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key = verifier_key(GO_KEY)
    assert GO_KEY == key.encode()
    data = b64decode(GO_SIGNATURE)
    assert key.key_id == data[:4]
    Ed25519PublicKey.from_public_bytes(key.public).verify(data[4:], GO_TEXT.encode())


def test_a_head_is_a_tlog_checkpoint(tmp_path: Path) -> None:
    """C2SP tlog-checkpoint: origin, size, root in base64, an empty line, `— name base64(id ‖ signature)`."""
    key = make_key(tmp_path / "key", "example.org/desk")
    head = Head("example.org/desk/alice", 20852, bytes(range(32)))
    note = key.sign(head)
    text, _, signature = note.partition("\n\n")
    assert ["example.org/desk/alice", "20852", b64encode(bytes(range(32))).decode()] == text.split("\n")
    dash, name, value = signature.rstrip("\n").split(" ")
    assert ("—", "example.org/desk", key.verifier.key_id) == (dash, name, b64decode(value)[:4])
    assert 4 + 64 == len(b64decode(value))
    assert head == checked_note(note, WHERE, [key.verifier]).head
    assert head == decode_note(encode_note(head, []), WHERE).head


def test_every_bit_of_a_note_counts(tmp_path: Path) -> None:
    """A note that was changed anywhere, also where base64 does not look, is refused."""
    key = make_key(tmp_path / "key", "example.org/desk")
    good = key.sign(Head("example.org/desk/alice", 20852, bytes(range(32)))).encode()
    for at in range(len(good)):
        for bit in range(8):
            changed = good[:at] + bytes([good[at] ^ 1 << bit]) + good[at + 1 :]
            with pytest.raises(BadProof):
                checked_note(changed.decode(errors="replace"), WHERE, [key.verifier])


@pytest.mark.parametrize(
    "text",
    [
        "", "\n\n", "a\n1\n", "a\n1\nAAAA\n\n", f"a\n01\n{b64encode(bytes(32)).decode()}\n\n",
        f"a\n-1\n{b64encode(bytes(32)).decode()}\n\n", f"a\n1\n{b64encode(bytes(32)).decode()}\nmore\n\n",
        f"\n1\n{b64encode(bytes(32)).decode()}\n\n", f"a\n1\n{b64encode(bytes(32)).decode()}\n\n- a AAAA\n",
        f"a\n1\n{b64encode(bytes(32)).decode()}\n\n— a AAAA", f"a\n²\n{b64encode(bytes(32)).decode()}\n\n",
        "x" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_note_is_refused(text: str) -> None:
    """A message says what was expected and found; nothing of it is believed."""
    with pytest.raises(BadProof, match="head: expected a head as"):
        decode_note(text, WHERE)


def test_a_note_is_believed_only_by_the_keys_own_signature_and_origin(tmp_path: Path) -> None:
    """Signatures of others prove nothing here, and a key signs only logs below its name."""
    key, other = make_key(tmp_path / "key", "example.org/desk"), make_key(tmp_path / "other", "example.org/else")
    head = Head("example.org/desk/alice", 1, bytes(32))
    with pytest.raises(BadProof, match=r"expected a signature of example\.org/desk"):
        checked_note(other.sign(head), WHERE, [key.verifier])
    with pytest.raises(BadProof, match="found none"):
        checked_note(encode_note(head, []), WHERE, [key.verifier])
    with pytest.raises(BadProof, match=r"expected a head of example\.org/else/TEAM"):
        checked_note(other.sign(head), WHERE, [other.verifier])
    both = key.sign(head) + other.sign(head).split("\n\n")[1]
    assert head == checked_note(both, WHERE, [key.verifier]).head
    assert head == checked_note(both, WHERE, [other.verifier, key.verifier][::-1]).head


def test_a_same_named_key_that_signed_is_another_key(tmp_path: Path) -> None:
    """A signature by somebody who only took the name fails."""
    key, thief = make_key(tmp_path / "key", "example.org/desk"), make_key(tmp_path / "thief", "example.org/desk")
    head = Head("example.org/desk/alice", 1, bytes(32))
    forged = VerifierKey("example.org/desk", key.verifier.public)
    stolen = thief.sign(head).replace(
        b64encode(thief.verifier.key_id)[:4].decode(), b64encode(forged.key_id)[:4].decode()
    )
    with pytest.raises(BadProof):
        checked_note(stolen, WHERE, [key.verifier])
    with pytest.raises(BadProof):
        checked_note(thief.sign(head), WHERE, [key.verifier])


class TestKeys:
    """`compactor keygen`, and the files that it writes."""

    def test_keygen_writes_a_private_file_and_prints_the_verifier_key(self, tmp_path: Path) -> None:
        """Mode 0600; never over a file that is there, because a key that is lost cannot be made again."""
        file = tmp_path / "key"
        result = CliRunner().invoke(app, ["keygen", str(file), "--name", "example.org/desk"])
        assert 0 == result.exit_code
        assert 0o600 == stat.S_IMODE(file.stat().st_mode)
        assert read_key(file).verifier == verifier_key(result.stdout.strip())
        before = file.read_bytes()
        result = CliRunner().invoke(app, ["keygen", str(file)])
        assert (1, before) == (result.exit_code, file.read_bytes())
        assert "there is a file already" in result.stderr

    def test_keygen_as_json(self, tmp_path: Path) -> None:
        """For programs: where the private key is, and the verifier key."""
        result = CliRunner().invoke(app, ["keygen", str(tmp_path / "key"), "--json"])
        row = json.loads(result.stdout)
        assert (str(tmp_path / "key"), "compactor") == (row["file"], row["verifier_key"].split("+")[0])

    @pytest.mark.parametrize("name", ["", "two words", "a+b", "tab\t"])
    def test_a_name_that_no_note_can_have(self, tmp_path: Path, name: str) -> None:
        """Key names are without spaces and plus signs."""
        with pytest.raises(BadKey, match="expected a name without spaces"):
            make_key(tmp_path / "key", name)
        assert not (tmp_path / "key").exists()

    def test_every_letter_of_a_key_file_counts(self, tmp_path: Path) -> None:
        """A key that was changed is refused by its id, and not used."""
        make_key(tmp_path / "key", "example.org/desk")
        text = (tmp_path / "key").read_text().rstrip("\n")
        for at in range(len(text)):
            (tmp_path / "key").write_text(text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :])
            with pytest.raises(BadKey):
                read_key(tmp_path / "key")

    @pytest.mark.parametrize("text", ["", "nonsense", "a+b", "a+b+c", "PRIVATE+KEY+a+b+c", "ü+1+A"])
    def test_what_is_no_key(self, tmp_path: Path, text: str) -> None:
        """Neither private nor verifier key: the message says what was expected."""
        (tmp_path / "key").touch(0o600)
        (tmp_path / "key").write_text(text)
        with pytest.raises(BadKey, match="expected a key as compactor keygen writes it"):
            read_key(tmp_path / "key")
        with pytest.raises(BadKey, match="expected a verifier key"):
            verifier_key(str(tmp_path / "key"))

    def test_every_letter_of_a_verifier_key_counts(self) -> None:
        """Its id is a digest of its name and its bytes."""
        for at in range(len(GO_KEY)):
            with pytest.raises(BadKey):
                verifier_key(GO_KEY[:at] + ("A" if GO_KEY[at] != "A" else "B") + GO_KEY[at + 1 :])

    def test_without_the_extra_one_message_says_what_to_install(
        self, shared: Scene, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """The extra `proof` is needed for signatures only; without it there is one clear message."""
        monkeypatch.setitem(__import__("sys").modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
        with pytest.raises(SignaturesUnavailable, match=r"pip install 'cryptography>=42'"):
            signing_key("a", bytes(32), tmp_path)
        note = next(path.read_text() for path in shared.files()["heads"])
        with pytest.raises(SignaturesUnavailable, match=r"pip install 'cryptography>=42'"):
            checked_note(note, WHERE, [shared.key.verifier])
        assert checked_note(note, WHERE, []).signatures
        result = CliRunner().invoke(app, ["keygen", str(tmp_path / "key")])
        assert 1 == result.exit_code
        assert "pip install" in result.stderr


class TestPublishing:
    """Heads beside their seals, and the witness on another disk."""

    def test_every_seal_has_its_signed_head(self, shared: Scene) -> None:
        """8.7: signed once each, beside the seal."""
        files = shared.files()
        assert len(files["seals"]) == len(files["heads"]) > 2
        sizes = [decode_note(path.read_text(), path).head.size for path in files["heads"]]
        assert sorted(sizes) == sizes
        before = [path.stat().st_mtime_ns for path in files["heads"]]
        assert 0 == publish(shared.ledger, TEAM, key=shared.key).signed
        assert before == [path.stat().st_mtime_ns for path in files["heads"]]

    def test_a_witness_is_told_each_head_once(self, tmp_path: Path) -> None:
        """8.8: appended after each seal, signed or not."""
        scene = Scene(tmp_path)
        assert 1 == len(read_witness(scene.witness))
        scene.publish()
        assert 1 == len(read_witness(scene.witness))
        with Ledger(scene.ledger) as ledger:
            ledger.seal(now=True)
        assert (0, 1) == ((done := publish(scene.ledger, TEAM, witness=scene.witness)).signed, done.witnessed)
        (_, first), (_, second) = read_witness(scene.witness)
        assert not isinstance(first, str) and not isinstance(second, str)
        assert (True, False) == ("—" in first.note, "—" in second.note)
        assert [] == scene.verify()

    @pytest.mark.parametrize("tail", [b"torn", b'{"team_id":"alpha","end":5,"note":"nonsense"}\n'])
    def test_a_torn_line_in_the_witness_costs_no_other(self, tmp_path: Path, tail: bytes) -> None:
        """Whatever stands there, the next head is a line of its own; `verify` reports the rest."""
        scene = Scene(tmp_path)
        with scene.witness.open("ab") as file:
            file.write(tail)
        with Ledger(scene.ledger) as ledger:
            ledger.seal(now=True)
        scene.publish()
        assert 3 == len(read_witness(scene.witness))
        assert {"witness_damaged"} == {one.kind for one in scene.verify()}

    @pytest.mark.parametrize("raw", [orders(0, 24)[:-500] + b"\n", orders(1, 25)], ids=["shorter", "other"])
    def test_a_witness_is_never_told_another_history(self, tmp_path: Path, raw: bytes) -> None:
        """8.8: who rewrites history and seals it gets an error, and the witness keeps its lines."""
        scene = Scene(tmp_path / "one")
        other = Scene(tmp_path / "other", raw)
        before = scene.witness.read_bytes()
        with pytest.raises(WitnessConflict, match="changed after it was witnessed"):
            publish(other.ledger, TEAM, witness=scene.witness)
        assert before == scene.witness.read_bytes()

    def test_sealing_signs_and_tells_the_witness(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """`signing_key` and `witness` are seen from the data directory; `--witness` from where one is."""
        data = tmp_path / "data"
        ledger = data / "team" / TEAM
        ledger.mkdir(parents=True)
        (ledger / LOG).write_bytes(orders(0, 10))
        make_key(tmp_path / "key", "example.org/desk")
        (data / "compactor.toml").write_text('signing_key = "../key"\nwitness = "../heads"\n')
        run = CliRunner()
        row = json.loads(run.invoke(app, ["seal", str(data), "--now", "--json"]).stdout)
        assert (1, 1, 1) == (row["segments"], row["signed"], row["witnessed"])
        assert 1 == len(read_witness(tmp_path / "heads"))
        result = run.invoke(app, ["verify", str(data), "--json"])
        row = json.loads(result.stdout)
        assert (0, row["log_bytes"], row["log_bytes"]) == (
            result.exit_code,
            row["signed_bytes"],
            row["witnessed_bytes"],
        )
        monkeypatch.chdir(tmp_path)
        assert 0 == run.invoke(app, ["seal", str(data), "--witness", "mine"]).exit_code
        assert 1 == len(read_witness(tmp_path / "mine"))

    def test_a_witness_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        """The seal stands; what failed is the telling, and it is done the next time."""
        scene = Scene(tmp_path)
        with pytest.raises(LedgerError, match="publishing the head of the log"):
            publish(scene.ledger, TEAM, witness=tmp_path / "none" / "heads")
        result = CliRunner().invoke(
            app, ["seal", str(scene.data), "--now", "--witness", str(tmp_path / "none" / "heads")]
        )
        assert 1 == result.exit_code
        assert "publishing the head of the log" in result.stderr


def test_an_empty_tree_has_a_head_too() -> None:
    """C2SP tlog-checkpoint: the size of an empty tree is 0."""
    head = Head("compactor/alice", 0, bytes(32))
    assert encode_head(head).split("\n")[1] == "0"
    assert head == decode_note(encode_note(head, []), WHERE).head


def test_keys_are_made_of_chance(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The seed is what the system gives, and nothing else."""
    given: list[int] = []

    def chance(count: int) -> bytes:
        given.append(count)
        return bytes(range(count))

    monkeypatch.setattr("os.urandom", chance)
    made: Any = make_key(tmp_path / "key", "a")
    assert ([32], bytes(range(32))) == (given, made.seed)
