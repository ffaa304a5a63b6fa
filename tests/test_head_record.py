"""The record of the last signed heads: only a log that continues it is signed, and anything else is an alarm."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from click.testing import CliRunner
from prometheus_client import generate_latest

from compactor import Ledger
from compactor.core.merkle import MerkleAccumulator
from compactor.daemon.health import Health
from compactor.daemon.metrics import Metrics
from compactor.ledger import LedgerError
from compactor.ledger.files import Files
from compactor.ledger.segments import Segments
from compactor.proofs.heads import HeadRecord, Witnessed, read_alarms, read_witness
from compactor.proofs.keys import checked_note, make_key, read_key, signing_key
from compactor.proofs.notes import BadKey, HeadConflict, WitnessConflict
from compactor.proofs.publish import publish
from compactor.ui.cli import app
from tests.cases import LOG
from tests.disk import Disk, Stopped
from tests.faults import orders
from tests.flips import SEGMENT_BYTES, TEAM, Scene


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A ledger with signed heads, a record and a witness."""
    return Scene(tmp_path)


def rewrite(scene: Scene, change: Callable[[bytes], bytes]) -> None:
    """What a team can do that may write all of its directory and has no key: another history, sealed in order."""
    with Ledger(scene.ledger) as ledger:
        raw = b"".join(ledger.cat())
    shutil.rmtree(scene.ledger)
    scene.ledger.mkdir()
    (scene.ledger / LOG).write_bytes(change(raw))
    with Ledger(scene.ledger) as ledger:
        ledger.seal(now=True, segment_bytes=SEGMENT_BYTES)


def sign(scene: Scene) -> int:
    return publish(scene.ledger, TEAM, key=scene.key).signed


def heads(scene: Scene) -> list[Path]:
    return sorted((scene.ledger / "segments").glob("*.head"))


class TestAttacks:
    """Each of them was signed before there was a record."""

    def test_a_rewritten_price_is_not_signed(self, scene: Scene) -> None:
        """Rewrite a sealed price, remove the heads, seal again: nothing is signed, and the alarm stays."""
        rewrite(scene, lambda raw: raw.replace(b'"price":"', b'"price":"9', 1))
        assert [] == heads(scene)
        with pytest.raises(HeadConflict, match="the history of this log was changed"):
            sign(scene)
        assert [] == heads(scene)
        assert ["head_conflict"] == [alarm.kind for alarm in read_alarms(scene.data).values()]

    def test_a_removed_head_is_not_signed_again(self, scene: Scene) -> None:
        """8.7: a head is never signed again and never removed."""
        heads(scene)[0].unlink()
        with pytest.raises(HeadConflict, match="found no file"):
            sign(scene)

    def test_an_exchanged_head_is_seen(self, scene: Scene) -> None:
        """A head below the recorded one that says something else."""
        first, second, *_ = heads(scene)
        first.write_bytes(second.read_bytes())
        with pytest.raises(HeadConflict, match="in the seal"):
            sign(scene)

    def test_history_cannot_be_taken_back(self, scene: Scene) -> None:
        """Shorter than what was signed, as after a restore of an older backup."""
        rewrite(scene, lambda raw: raw[: raw.index(b"\n", len(raw) // 3) + 1])
        with pytest.raises(HeadConflict, match="as they were signed last, found none"):
            sign(scene)

    def test_no_seal_at_all(self, scene: Scene) -> None:
        """All seals are gone, so nothing could be signed; still an alarm."""
        raw = scene.raw
        shutil.rmtree(scene.ledger)
        scene.ledger.mkdir()
        (scene.ledger / LOG).write_bytes(raw)
        with pytest.raises(HeadConflict):
            sign(scene)

    def test_a_later_seal_cannot_claim_another_past(self, scene: Scene) -> None:
        """The seals up to the recorded head stay as they are; the tree of the next one begins with other lines."""
        with Ledger(scene.ledger) as ledger:
            ledger.seal(now=True, segment_bytes=1 << 20)
        segments = Segments(scene.ledger, Files())
        segments.refresh()
        forged = MerkleAccumulator()
        forged.feed(
            b"".join(piece.data for seal in segments.seals for piece in segments.pieces(seal)).replace(b"SPY", b"QQQ")
        )
        last = segments.seals[-1]
        assert last.tree is not None
        assert forged.tree() != last.tree
        path = segments.path / last.name.replace(".jsonl.zst", ".seal.json")
        reseal(
            path,
            json.loads(
                json.dumps({"size": forged.tree().size, "root": forged.tree().root, "peaks": forged.tree().peaks})
            ),
        )
        before = heads(scene)
        with pytest.raises(HeadConflict, match="as its lines give"):
            sign(scene)
        assert before == heads(scene)

    def test_a_foreign_head_beside_a_new_seal(self, scene: Scene) -> None:
        """A head that we did not sign in the place of one that is due: it is not taken for ours."""
        with Ledger(scene.ledger) as ledger:
            ledger.seal(now=True, segment_bytes=1 << 20)
        newest = sorted((scene.ledger / "segments").glob("*.seal.json"))[-1]
        newest.with_name(newest.name.replace(".seal.json", ".head")).write_bytes(heads(scene)[0].read_bytes())
        with pytest.raises(HeadConflict):
            sign(scene)

    def test_nothing_is_signed_that_the_witness_contradicts(self, scene: Scene) -> None:
        """The witness is asked before the key is used."""
        HeadRecord(scene.data, TEAM).path.unlink()
        rewrite(scene, lambda raw: raw.replace(b'"price":"', b'"price":"9', 1))
        with pytest.raises(WitnessConflict):
            scene.publish()
        assert [] == heads(scene)
        assert "witness_conflict" == read_alarms(scene.data)[TEAM].kind


def reseal(path: Path, tree: dict[str, object]) -> None:
    """Put another tree into a seal, with all checksums right."""
    data = path.read_bytes()
    seal = json.loads(data)
    old = json.dumps(seal["tree"], separators=(",", ":")).encode()
    assert old in data
    body, _, _ = data.replace(old, json.dumps(tree, separators=(",", ":")).encode()).partition(b',"seal_sha256"')
    path.write_bytes(body + b',"seal_sha256":"' + sha256(body).hexdigest().encode() + b'"}\n')


class TestAlarm:
    """Status, metrics and exit code."""

    def test_seal_and_status_end_with_1_and_name_the_team(self, scene: Scene) -> None:
        """The alarm stands until the history is put right; other ledgers are sealed and signed."""
        other = scene.data / "team" / "bravo"
        other.mkdir()
        (other / LOG).write_bytes(orders(0, 3))
        (scene.data / "compactor.toml").write_text('signing_key = "../key"\n')
        kept = shutil.copytree(scene.ledger, scene.data.parent / "kept")
        rewrite(scene, lambda raw: raw.replace(b'"price":"', b'"price":"9', 1))
        sealed = CliRunner().invoke(app, ["seal", str(scene.data), "--now"])
        assert 1 == sealed.exit_code
        assert f"{TEAM}: " in sealed.stderr
        assert list((other / "segments").glob("*.head"))
        status = CliRunner().invoke(app, ["status", str(scene.data), "--json"])
        rows = {row["team_id"]: row for row in map(json.loads, status.stdout.splitlines())}
        assert (1, "head_conflict", None) == (status.exit_code, rows[TEAM]["alarm"]["kind"], rows["bravo"]["alarm"])
        assert "ALARM since 2" in CliRunner().invoke(app, ["status", str(scene.data)]).stderr
        shutil.rmtree(scene.ledger)
        shutil.copytree(kept, scene.ledger)
        shutil.rmtree(scene.ledger / ".state")
        assert sign(scene) in (0, 1)
        assert 0 == CliRunner().invoke(app, ["status", str(scene.data)]).exit_code
        assert {} == read_alarms(scene.data)

    def test_status_looks_by_itself(self, scene: Scene) -> None:
        """No seal has to fail first."""
        rewrite(scene, lambda raw: raw.replace(b'"price":"', b'"price":"9', 1))
        status = CliRunner().invoke(app, ["status", str(scene.data)])
        assert 1 == status.exit_code
        assert "ALARM" in status.stderr

    def test_the_metrics_have_it(self, scene: Scene) -> None:
        """A gauge for each team, and how many there are."""
        assert b"compactor_head_alarms 0.0" in generate_latest(Metrics(Health(), scene.data).registry)
        heads(scene)[0].unlink()
        with pytest.raises(HeadConflict):
            sign(scene)
        text = generate_latest(Metrics(Health(), scene.data).registry)
        assert b'compactor_head_alarm{team="alpha"} 1.0' in text
        assert b"compactor_head_alarms 1.0" in text

    def test_a_run_without_the_key_keeps_the_alarm_of_the_key(self, scene: Scene) -> None:
        """It did not look at what was signed."""
        path = heads(scene)[0]
        kept = path.read_bytes()
        path.unlink()
        with pytest.raises(HeadConflict):
            sign(scene)
        publish(scene.ledger, TEAM, witness=scene.witness)
        assert {TEAM} == set(read_alarms(scene.data))
        path.write_bytes(kept)
        sign(scene)
        assert {} == read_alarms(scene.data)


class TestRecord:
    """What is kept, and in which order."""

    def test_the_record_is_the_newest_head(self, scene: Scene) -> None:
        """Outside the ledger, readable by its owner alone."""
        record = HeadRecord(scene.data, TEAM)
        found = record.read()
        assert found is not None
        assert heads(scene)[-1].read_text() == found[0]
        assert not record.path.is_relative_to(scene.ledger)
        assert 0 == record.path.parent.stat().st_mode & 0o077

    def test_a_run_that_was_stopped_goes_on(self, scene: Scene) -> None:
        """The record is written before the head, so that the head can be written again and never another one."""
        newest = heads(scene)[-1]
        kept = newest.read_bytes()
        newest.unlink()
        assert 0 == sign(scene)
        assert kept == newest.read_bytes()

    def test_heads_of_a_version_without_a_record_are_taken_over(self, scene: Scene) -> None:
        """Compared with the lines from the first byte on."""
        HeadRecord(scene.data, TEAM).path.unlink()
        assert 0 == sign(scene)
        found = HeadRecord(scene.data, TEAM).read()
        assert found is not None
        assert heads(scene)[-1].read_text() == found[0]
        heads(scene)[0].unlink()
        with pytest.raises(HeadConflict):
            sign(scene)

    def test_a_damaged_record_is_an_alarm(self, scene: Scene) -> None:
        """It is not taken for a first time."""
        HeadRecord(scene.data, TEAM).path.write_bytes(b"torn")
        with pytest.raises(HeadConflict, match="expected a head"):
            sign(scene)

    def test_another_key_goes_on(self, scene: Scene, tmp_path: Path) -> None:
        """What the first key signed stays, and the log has to continue it; new heads are the second key's."""
        from compactor.proofs.keys import make_key

        second = make_key(tmp_path / "second", "example.org/second")
        with Ledger(scene.ledger) as ledger:
            ledger.seal(now=True, segment_bytes=1 << 20)
        assert 1 == publish(scene.ledger, TEAM, key=second).signed
        checked_note(heads(scene)[-1].read_text(), heads(scene)[-1], [second.verifier])
        rewrite(scene, lambda raw: raw.replace(b'"price":"', b'"price":"9', 1))
        with pytest.raises(HeadConflict):
            publish(scene.ledger, TEAM, key=second)


def test_verify_compares_the_record(scene: Scene) -> None:
    """Also without a key and without a witness."""
    assert [] == scene.verify(trusting=True)
    rewrite(scene, lambda raw: raw.replace(b'"price":"', b'"price":"9', 1))
    assert "head_differs" in {one.kind for one in scene.verify(trusting=True)}


class TestStops:
    """Signing and telling the witness, on a model of the disk that stops or fails at any call."""

    LEDGER = Path("/data/team/alpha")
    WITNESS = Path("/elsewhere/heads")

    def lay(self) -> Disk:
        """A ledger of three segments."""
        disk = Disk()
        disk.put(self.LEDGER / "events.jsonl", orders(0, 60))
        with Ledger(self.LEDGER, files=disk) as ledger:
            ledger.seal(now=True, segment_bytes=4000)
        return disk

    def publish(self, disk: Disk) -> None:
        key = signing_key("example.org/desk", bytes(32), Path("key"))
        publish(self.LEDGER, "alpha", key=key, witness=self.WITNESS, files=disk)

    def published(self, disk: Disk) -> tuple[int, list[bytes]]:
        """How many heads are signed, and the lines of the witness."""
        heads = [path for path in disk.all_files() if path.suffix == ".head" and path.parent.name == "segments"]
        return len(heads), [line for line in (disk.take(self.WITNESS) or b"").split(b"\n") if line]

    @pytest.mark.parametrize("what", ["stops", "fails", "loses power"])
    def test_whatever_stops_it_the_next_run_completes_it(self, what: str) -> None:
        """8.7, 8.8: each head is signed once and told to the witness once; a torn line is closed by the next."""
        disk = self.lay()
        before = disk.calls
        self.publish(disk)
        expected, calls = self.published(disk), disk.calls - before
        assert 1 == len(expected[1])
        for number in range(1, calls + 1):
            disk = self.lay()
            disk.stop_at, disk.fail_at = (0, before + number) if what == "fails" else (before + number, 0)
            with contextlib.suppress(Stopped, LedgerError):
                self.publish(disk)
            if what == "loses power":
                disk.lose_power(keep=0.5)
            disk.restart()
            self.publish(disk)
            heads, lines = self.published(disk)
            assert (expected[0], expected[1][0]) == (heads, lines[-1]), number
            assert all(expected[1][0].startswith(line) for line in lines), number
            told = [one for _line, one in read_witness(self.WITNESS, disk) if isinstance(one, Witnessed)]
            assert len(told) <= 2, number

    def test_a_key_is_whole_or_not_there(self) -> None:
        """Half a key would stand in the way of a whole one."""
        path = Path("/keys/signing")
        disk = Disk()
        make_key(path, "example.org/desk", disk)
        for number in range(1, disk.calls + 1):
            disk = Disk()
            disk.fail_at = number
            with pytest.raises(LedgerError, match=r"No space|no luck|disk is full"):
                make_key(path, "example.org/desk", disk)
            assert disk.take(path) is None
            make_key(path, "example.org/desk", disk)

    def test_a_run_that_was_killed_leaves_no_empty_key_in_the_way(self, tmp_path: Path) -> None:
        """Killed between making the file and writing it; a file with anything in it is never replaced."""
        (tmp_path / "key").touch()
        key = make_key(tmp_path / "key", "example.org/desk")
        assert key == read_key(tmp_path / "key")
        (tmp_path / "other").write_bytes(b"x")
        with pytest.raises(BadKey, match="there is a file already"):
            make_key(tmp_path / "other", "example.org/desk")
