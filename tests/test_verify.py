"""`compactor verify`: what is clean, and that no edit of any file goes unseen."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from click.testing import CliRunner

from compactor import Ledger
from compactor.core.fold import OpenOrder
from compactor.core.merkle import MerkleAccumulator
from compactor.ledger import index
from compactor.ledger.checkpoint import CheckpointHeader, PrefixDigest
from compactor.ledger.files import Files
from compactor.ledger.segment_format import decode_seal, encode_seal
from compactor.proofs.keys import make_key
from compactor.proofs.publish import publish
from compactor.ui.cli import app
from compactor.verify.checkpoints import open_slots
from compactor.verify.report import Discrepancies
from compactor.verify.run import verify_all
from compactor.verify.seals import examine_chain, examine_heads, examine_indexes
from tests.cases import DERIVED, LOG, derive, read_derived
from tests.conftest import ROOT
from tests.faults import orders
from tests.flips import TEAM, Scene, flipped, unreported

SEED = 20260302


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A clean ledger for the tests that put everything back."""
    return Scene(tmp_path_factory.mktemp("shared"))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A clean ledger of one's own."""
    return Scene(tmp_path)


def kinds(differences: list[Any]) -> set[str]:
    return {one.kind for one in differences}


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


class TestClean:
    """What is no difference."""

    def test_a_clean_ledger_has_no_difference(self, shared: Scene) -> None:
        """Seals, digests, trees, signatures, witness, derived files, checkpoints, states: all follow from the log."""
        assert [] == shared.verify(deep=True) == shared.verify(quick=True)
        (verdict,) = verify_all(shared.data, keys=[shared.key.verifier], witness=shared.witness).verdicts
        assert len(shared.raw) == verdict.log_bytes
        assert 0 == verdict.lag_bytes
        assert 0 < verdict.sealed_bytes == verdict.signed_bytes == verdict.witnessed_bytes < verdict.log_bytes
        assert shared.raw[: verdict.sealed_bytes].count(b"\n") == verdict.lines

    @pytest.mark.parametrize(
        "case", sorted((ROOT / "fixtures" / "sample" / "team").iterdir()), ids=lambda one: one.name
    )
    def test_a_ledger_that_was_never_compacted_is_clean(self, tmp_path: Path, case: Path) -> None:
        """1.3: what is derived may be missing; nothing is wrong with a log that nobody has folded yet."""
        shutil.copytree(case, tmp_path / "team" / case.name)
        for name in (*DERIVED, ".state"):
            target = tmp_path / "team" / case.name / name
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        (verdict,) = verify_all(tmp_path).verdicts
        assert ([], None) == (verdict.differences, verdict.error)
        assert verdict.log_bytes == verdict.lag_bytes

    @pytest.mark.parametrize("removed", [(".state",), DERIVED, (".state", *DERIVED)], ids=["state", "derived", "both"])
    def test_what_may_be_deleted_is_no_difference_where_nothing_knows_of_it(
        self, scene: Scene, removed: tuple[str, ...]
    ) -> None:
        """1.3: all but log and segments can be deleted; but a checkpoint that tells of the files knows."""
        for name in removed:
            target = scene.ledger / name
            shutil.rmtree(target) if target.is_dir() else target.unlink()
        assert ({"derived_differs", "derived_truncated"} if removed == DERIVED else set()) == kinds(scene.verify())

    def test_a_ledger_that_its_events_name(self, tmp_path: Path) -> None:
        """1.2: a directory that is itself a ledger is called `default` in heads, whatever its events say."""
        named = orders(0, 40).replace(b'"order_id"', b'"team_id":"desk","order_id"')
        key = make_key(tmp_path / "key", "example.org/desk")
        data = tmp_path / "data"
        data.mkdir()
        for part in (orders(0, 3) + named[:3000], named[3000:]):
            with (data / LOG).open("ab") as log:
                log.write(part)
            with Ledger(data) as ledger:
                ledger.seal(now=True, segment_bytes=2000)
            publish(data, "default", key=key, witness=tmp_path / "heads")
        (verdict,) = verify_all(data, keys=[key.verifier], witness=tmp_path / "heads").verdicts
        assert ([], verdict.log_bytes) == (verdict.differences, verdict.witnessed_bytes)

    def test_files_that_are_behind_the_log_are_no_difference(self, scene: Scene) -> None:
        """A log that grew since it was folded last is only ahead, by as much as `lag_bytes` says."""
        more = orders(900, 930)
        with (scene.ledger / LOG).open("ab") as log:
            log.write(more + b'{"torn":')
        assert [] == scene.verify()
        (verdict,) = verify_all(scene.data).verdicts
        assert (len(more), len(scene.raw + more)) == (verdict.lag_bytes, verdict.log_bytes)

    def test_a_pass_that_was_stopped_before_its_pending_orders_is_no_difference(self, scene: Scene) -> None:
        """7: a crash leaves trades ahead of pending orders and checkpoint; the next pass goes on from there."""
        with (scene.ledger / LOG).open("ab") as log:
            log.write(orders(900, 910))
        pending = (scene.ledger / "pending_orders.jsonl").read_bytes()
        state = {path: path.read_bytes() for path in (scene.ledger / ".state").glob("checkpoint.*")}
        with Ledger(scene.ledger) as ledger:
            ledger.compact()
        (scene.ledger / "pending_orders.jsonl").write_bytes(pending)
        for path, data in state.items():
            path.write_bytes(data)
        trades = (scene.ledger / "trades.jsonl").read_bytes()
        (scene.ledger / "trades.jsonl").write_bytes(trades[:-20])
        assert [] == scene.verify()

    @pytest.mark.parametrize("days", [0, 7, None])
    def test_retention_makes_no_difference(self, tmp_path: Path, days: int | None) -> None:
        """6: a state that forgot orders, or kept them all, is compared as what it is."""
        scene = Scene(tmp_path, slow_days(400), sealed=1)
        with Ledger(scene.ledger, retention_days=days) as ledger:
            (scene.ledger / ".state" / "checkpoint.0").unlink()
            (scene.ledger / ".state" / "checkpoint.1").unlink()
            for name in DERIVED:
                (scene.ledger / name).unlink()
            ledger.compact(checkpoint=True)
        for other in (0, 7, None):
            (verdict,) = verify_all(scene.data, retention_days=other).verdicts
            assert [] == verdict.differences

    def test_passes_of_any_size_make_no_difference(self, tmp_path: Path) -> None:
        """When an order is forgotten depends on where passes end; no answer does, and neither does the verdict."""
        raw = slow_days(600)
        scene = Scene(tmp_path, raw[: raw.index(b"\n", 3000) + 1], sealed=1)
        lines = raw[raw.index(b"\n", 3000) + 1 :].splitlines(keepends=True)
        with Ledger(scene.ledger, retention_days=1) as ledger:
            for start in range(0, len(lines), 97):
                with (scene.ledger / LOG).open("ab") as log:
                    log.writelines(lines[start : start + 97])
                ledger.compact(checkpoint=start % 2 == 0)
        for days in (0, 1, 7):
            (verdict,) = verify_all(scene.data, retention_days=days).verdicts
            assert [] == verdict.differences

    def test_a_daemon_at_work_makes_no_difference(self, tmp_path: Path) -> None:
        """Needs no lock, and tolerates passes, seals and writers: a log that grows meanwhile is no difference."""
        scene = Scene(tmp_path, orders(0, 300))
        stop = threading.Event()
        count = [300]

        def work() -> None:
            with Ledger(scene.ledger, durability="none") as ledger:
                while not stop.is_set():
                    with (scene.ledger / LOG).open("ab", buffering=0) as log:
                        log.write(orders(count[0], count[0] + 5))
                    count[0] += 5
                    ledger.compact(checkpoint=count[0] % 20 == 0)
                    if count[0] % 100 == 0:
                        ledger.seal(now=True, segment_bytes=20_000)

        worker = threading.Thread(target=work)
        worker.start()
        try:
            until = time.monotonic() + 1.5
            while time.monotonic() < until:
                assert [] == scene.verify(trusting=True)
                assert [] == scene.verify(trusting=True, quick=True)
        finally:
            stop.set()
            worker.join()
        assert 300 < count[0]
        assert [] == scene.verify()

    def test_verify_changes_nothing(self, scene: Scene) -> None:
        """It never repairs, sets nothing aside and needs no lock: not one file is another afterwards."""
        (scene.ledger / ".state" / "checkpoint.0").write_bytes(b"damaged")
        before = snapshot(scene.data)
        held = os.open(scene.ledger / ".state" / "lock", os.O_RDWR)
        try:
            import fcntl

            fcntl.flock(held, fcntl.LOCK_EX)
            assert {"checkpoint_damaged"} == kinds(scene.verify())
        finally:
            os.close(held)
        assert before == snapshot(scene.data)

    @pytest.mark.parametrize("spoiled", ["derived", "segments", "seals"])
    def test_the_halves_of_two_processes_find_what_one_process_finds(
        self, scene: Scene, monkeypatch: pytest.MonkeyPatch, spoiled: str
    ) -> None:
        """One ledger is folded by one process while another hashes its segments; the verdict is the same."""
        files = scene.files()
        spoil(files[spoiled][0], *files["heads"], files["checkpoints"][0])
        alone = verify_all(scene.data, workers=1, keys=[scene.key.verifier], witness=scene.witness)
        monkeypatch.setattr("compactor.verify.run.INLINE_BYTES_MAX", 0)
        halves = verify_all(scene.data, workers=2, keys=[scene.key.verifier], witness=scene.witness)
        assert alone.verdicts[0].differences
        assert sorted(map(str, alone.verdicts[0].differences)) == sorted(map(str, halves.verdicts[0].differences))
        sample = verify_all(ROOT / "fixtures" / "sample", workers=2)
        assert [[]] * 3 == [one.differences for one in sample.verdicts]


def spoil(*paths: Path) -> None:
    """Turn a bit in the middle of each file."""
    for path in paths:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


def snapshot(directory: Path) -> dict[str, tuple[int, bytes]]:
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in directory.rglob("*") if path.is_file()}


def slow_days(count: int) -> bytes:
    """Orders over many days, so that retention forgets most of them; now and then an old one gets a late fill."""
    lines = []
    for number in range(count):
        at = f'"ts":"{datetime(2026, 3, 1) + number * timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"'
        lines.append(f'{{"event":"new","order_id":"o-{number}",{at},"symbol":"SPY","side":"buy","quantity":"2"}}')
        if number % 5:
            lines.append(f'{{"event":"canceled","order_id":"o-{number}",{at}}}')
        if number % 37 == 36:
            old = number - 36
            fill = f'"execution_id":"x-{number}","price":"5","qty":"1"'
            lines.append(f'{{"event":"partial_fill","order_id":"o-{old}",{at},{fill}}}')
    return "".join(line + "\n" for line in lines).encode()


class TestFlips:
    """Real bit flips: `make flips` turns a bit of every byte and verifies each time; here is a sample of that."""

    @pytest.mark.parametrize(
        ("kind", "most"),
        [
            ("seals", 80), ("segments", 150), ("heads", 50), ("indexes", 50), ("checkpoints", 50), ("log", 180),
            ("derived", 80), ("witness", 40),
        ],
    )  # fmt: skip
    def test_a_flipped_bit_is_reported(self, shared: Scene, kind: str, most: int) -> None:
        """Bit flips in seals, indexes, checkpoints, trades, segments and log: each is reported."""
        assert [] == unreported(shared, shared.files()[kind], most, random.Random(SEED))
        assert [] == shared.verify()

    @pytest.mark.parametrize("kind", ["seals", "indexes", "checkpoints", "heads"])
    def test_every_byte_is_looked_at(self, shared: Scene, kind: str) -> None:
        """The same for every byte of these files, by the part of `verify` that looks at them."""
        missed = []
        chain = examine_chain(shared.ledger, Files(), Discrepancies(shared.ledger)).seals
        keys = [shared.key.verifier]
        for path in shared.files()[kind]:
            for at in range(path.stat().st_size):
                findings = Discrepancies(shared.ledger)
                with flipped(path, at, at % 8):
                    if kind == "seals":
                        examine_chain(shared.ledger, Files(), findings)
                    elif kind == "indexes":
                        examine_indexes(chain, path.parent, Files(), findings)
                    elif kind == "heads":
                        examine_heads(shared.ledger, chain, TEAM, keys, Files(), findings)
                    else:
                        for slot in open_slots(shared.ledger, Files(), findings):
                            slot.close()
                if not findings.all:
                    missed.append(f"{path.name} at {at}")
        assert [] == missed

    def test_a_flip_in_a_long_unsealed_tail_is_reported_or_changes_no_answer(self, tmp_path: Path) -> None:
        """What is not sealed is held against what follows from it: nothing that is derived changes silently."""
        scene = Scene(tmp_path / "scene", orders(0, 120), sealed=0)
        chance = random.Random(SEED)
        log = scene.ledger / LOG
        before, silent = read_derived(scene.ledger), 0
        for number in range(100):
            at = chance.randrange(len(scene.raw) - 4096)
            with flipped(log, at, chance.randrange(8)):
                if not scene.verify():
                    silent += 1
                    place = tmp_path / f"derived-{number}"
                    place.mkdir()
                    now = derive(log.read_bytes(), place)
                    assert [one.replace(b'"default"', b'"alpha"') for one in now.values()] == [*before.values()], at
        # White space and the like; of an event that is read nothing is silent.
        assert silent < 15


class TestEdits:
    """Lines that were edited, removed, inserted, exchanged or cut, by somebody who knows what he does."""

    EDITS: ClassVar[dict[str, Callable[[list[bytes]], list[bytes]]]] = {
        "edited": lambda lines: [*lines[:5], lines[5].replace(b'"order_id":"o', b'"order_id":"p'), *lines[6:]],
        "removed": lambda lines: [*lines[:5], *lines[6:]],
        "inserted": lambda lines: [*lines[:5], lines[4], *lines[5:]],
        "reordered": lambda lines: [*lines[:4], lines[5], lines[4], *lines[6:]],
        "truncated": lambda lines: lines[:-3],
    }  # fmt: skip

    @pytest.mark.parametrize("edit", EDITS)
    @pytest.mark.parametrize("name", ["trades.jsonl", "pending_orders.jsonl"])
    def test_derived_lines(self, scene: Scene, name: str, edit: str) -> None:
        """Each is reported with file, offset, expected, found and what it means; rebuilding mends it."""
        path = scene.ledger / name
        lines = lines_of(path)
        path.write_bytes(b"".join(self.EDITS[edit](lines)))
        assert path.read_bytes() != b"".join(lines)
        found = [one for one in scene.verify() if one.file == name]
        assert {"derived_differs"} | ({"derived_truncated"} & kinds(found)) >= kinds(found) != set()
        assert all(one.expected and one.found and one.meaning for one in found)
        if name == "trades.jsonl" and edit == "edited":
            assert f"event at {json.loads(lines[5])['offset']}" in found[0].meaning

    @pytest.mark.parametrize("edit", EDITS)
    def test_lines_of_the_unsealed_log(self, scene: Scene, edit: str) -> None:
        """Behind the last seal the derived files and the checkpoint tell."""
        path = scene.ledger / LOG
        with Ledger(scene.ledger) as ledger:
            sealed = ledger.status().sealed_bytes
        data = path.read_bytes()
        tail = self.EDITS[edit](data[sealed:].splitlines(keepends=True))
        with path.open("r+b") as log:
            log.seek(sealed)
            log.write(b"".join(tail))
            log.truncate()
        assert path.read_bytes() != data
        assert kinds(scene.verify()) & {"log_rewritten", "log_truncated"}

    @pytest.mark.parametrize("edit", ["edited", "removed", "inserted", "reordered"])
    def test_a_segment_that_was_rewritten_with_a_seal_of_its_own(self, scene: Scene, edit: str) -> None:
        """The chain, the tree and the offsets behind it do not fit any more, whatever its own seal says."""
        other = Scene(scene.data.parent / "other", b"".join(self.EDITS[edit](lines_of(scene.ledger / LOG))))
        for kind in ("seals", "segments"):
            scene.files()[kind][0].unlink()
            shutil.copy(other.files()[kind][0], scene.ledger / "segments")
        found = kinds(scene.verify(trusting=True))
        assert {"chain_broken"} <= found or {"segment_missing"} <= found

    def test_a_whole_history_that_was_made_to_fit_is_seen_by_record_signature_and_witness_alone(
        self, scene: Scene
    ) -> None:
        """Whoever may write everything can make everything fit, but not a head of somebody else's key or disk."""
        edited = scene.raw.replace(b'"price":"530.00"', b'"price":"530.01"', 1)
        other = Scene(scene.data.parent / "other", edited)
        heads = {path: path.read_bytes() for path in scene.files()["heads"]}
        shutil.rmtree(scene.ledger)
        shutil.copytree(other.ledger, scene.ledger)
        fix_inode(scene)
        for path in scene.files()["heads"]:
            path.unlink()
        assert {"head_differs"} == kinds(scene.verify(trusting=True)), "the record of the last signed head"
        shutil.rmtree(scene.data / ".compactor" / "signed")
        assert [] == scene.verify(trusting=True)

        result = verify_all(scene.data, witness=scene.witness)
        (difference,) = result.verdicts[0].differences
        assert "witness_differs" == difference.kind
        assert "changed after it was witnessed" in difference.meaning
        (verdict,) = verify_all(scene.data, keys=[scene.key.verifier]).verdicts
        assert {"head_missing"} == kinds(verdict.differences)
        for path, data in heads.items():
            path.write_bytes(data)
        (verdict,) = verify_all(scene.data, keys=[scene.key.verifier]).verdicts
        assert {"head_differs"} == kinds(verdict.differences)

    def test_what_differs_everywhere_is_told_so_often_and_counted(self, scene: Scene) -> None:
        """A replaced history would differ in every line; the first ones say enough."""
        report = Discrepancies(scene.ledger)
        for number in [*range(80), 3]:
            report.add("x", scene.ledger / "a", expected=number, found="", meaning="")
        assert 51 == len(report.all)
        assert "30 more" == report.all[-1].found

    def test_the_log_where_it_is_sealed(self, tmp_path: Path) -> None:
        """8.4: readers use the sealed bytes; that the file says otherwise is reported, with the offset."""
        scene = Scene(tmp_path, sealed=3)
        before = read_derived(scene.ledger)
        with (scene.ledger / LOG).open("r+b") as log:
            log.seek(700)
            log.write(b"X")
        (difference,) = scene.verify()
        assert ("log_differs", 700) == (difference.kind, difference.offset)
        assert before == read_derived(scene.ledger)
        assert scene.raw == b"".join(Ledger(scene.ledger).cat())

    def test_a_hole_that_was_written_into(self, tmp_path: Path) -> None:
        """8.3: what was given back reads as NULs; anything else there is reported."""
        scene = Scene(tmp_path, orders(0, 500), sealed=3)
        if bytes(1000) != (scene.ledger / LOG).read_bytes()[:1000]:
            pytest.skip("this file system cannot punch")
        with (scene.ledger / LOG).open("r+b") as log:
            log.seek(50_000)
            log.write(b"X")
        assert [("log_differs", 50_000)] == [(one.kind, one.offset) for one in scene.verify()]

    @pytest.mark.parametrize("kind", ["seals", "segments"])
    @pytest.mark.parametrize("place", [0, 1, -1])
    def test_a_file_of_sealed_history_that_is_gone(self, scene: Scene, kind: str, place: int) -> None:
        """A segment or seal that is missing is reported, also by --quick."""
        scene.files()[kind][place].unlink()
        assert kinds(scene.verify(quick=True)) and kinds(scene.verify())

    def test_an_index_that_hides_orders_is_seen_by_making_it_again(self, scene: Scene) -> None:
        """An index whose checksums were made to fit is not believed by --deep; without it only they are looked at."""
        path, seal_path = scene.files()["indexes"][0], scene.files()["seals"][0]
        seal = decode_seal(seal_path.read_bytes(), seal_path)
        path.write_bytes(index.encode_index(seal, [0], True, None, index.Bounds(), index.Bounds(), []))
        assert [] == scene.verify()
        (difference,) = scene.verify(deep=True)
        assert ("index_differs", path.name) == (difference.kind, Path(difference.file).name)

    def test_a_seal_that_tells_other_times(self, scene: Scene) -> None:
        """Every field of a seal is held against the lines of its segment, also one whose checksum was made to fit."""
        path = scene.files()["seals"][-1]
        seal = decode_seal(path.read_bytes(), path)
        tree = MerkleAccumulator()
        tree.feed(b"x\n" * (seal.tree.size if seal.tree else 0))
        for changed in (
            {"first_ts": "2020-01-01T00:00:00Z"}, {"last_ts": None}, {"lines": seal.lines + 1}, {"tree": tree.tree()},
            {"content_sha256": "0" * 64},
        ):  # fmt: skip
            path.write_bytes(encode_seal(msgspec.structs.replace(seal, **changed)))
            assert {"seal_differs"} <= kinds(scene.verify(trusting=True)), changed


def fix_inode(scene: Scene) -> None:
    """Let the checkpoints of a copied ledger name the inode of the copy, as somebody with care would."""
    inode = (scene.ledger / LOG).stat().st_ino
    shutil.rmtree(scene.ledger / ".state" / "points")
    for path in scene.files()["checkpoints"]:
        rewrite_header(path, lambda header: msgspec.structs.replace(header, inode=inode))


def rewrite_header(
    path: Path, change: Callable[[CheckpointHeader], CheckpointHeader], chunks: bytes | None = None
) -> None:
    """Write a checkpoint again with another header, whose checksum fits."""
    data = path.read_bytes()
    magic = data.index(b"\n") + 1
    size = int.from_bytes(data[magic : magic + 4], "little")
    body = data[magic + 20 : magic + 20 + size]
    header = change(msgspec.msgpack.decode(body, type=CheckpointHeader))
    body = msgspec.msgpack.encode(header)
    head = len(body).to_bytes(4, "little") + blake2b(body, digest_size=16).digest()
    rest = data[magic + 20 + size :] if chunks is None else chunks
    path.write_bytes(data[:magic] + head + body + rest)


class TestStates:
    """A checkpoint whose checksums are right, and whose state is not."""

    def test_counts_clock_and_lengths(self, scene: Scene) -> None:
        """Derived files, checkpoint and retention state are compared with the refolded log."""
        path = max(scene.files()["checkpoints"], key=lambda one: one.stat().st_mtime_ns)
        good = path.read_bytes()
        for change in (
            lambda header: msgspec.structs.replace(header, clock=None),
            lambda header: msgspec.structs.replace(header, team_id="bravo"),
            lambda header: msgspec.structs.replace(header, intents={"c-1": 0}),
            lambda header: msgspec.structs.replace(header, counts=msgspec.structs.replace(header.counts, events=1)),
            lambda header: msgspec.structs.replace(header, trades=type(header.trades)(7, header.trades.tail)),
        ):
            path.write_bytes(good)
            rewrite_header(path, change)
            assert "state_differs" in kinds(scene.verify())

    def test_an_open_order(self, scene: Scene) -> None:
        """Order by order: one that was edited, with chunk and header checksums that fit, is named."""
        path = max(scene.files()["checkpoints"], key=lambda one: one.stat().st_mtime_ns)
        edit_open(path, lambda one: msgspec.structs.replace(one, row=one.row.replace(b'"SPY"', b'"SPX"')))
        differences = scene.verify()
        assert {"state_differs"} == kinds(differences)
        assert "open order o-0" in differences[0].expected
        assert "SPX" in differences[0].found

    def test_an_order_that_ended(self, tmp_path: Path) -> None:
        """What retention left of an order is where its lines are; a wrong place would change what a late fill does."""
        scene = Scene(tmp_path)
        path = max(scene.files()["checkpoints"], key=lambda one: one.stat().st_mtime_ns)

        def without_spans(header: CheckpointHeader) -> CheckpointHeader:
            return msgspec.structs.replace(header, spans=[])

        rewrite_header(path, without_spans)
        # The chunks now have bytes that no chunk names, which is a damage of its own.
        assert {"checkpoint_damaged"} == kinds(scene.verify())
        scene = Scene(tmp_path / "again")
        path = max(scene.files()["checkpoints"], key=lambda one: one.stat().st_mtime_ns)
        edit_spans(path)
        assert any("ended order" in one.expected for one in scene.verify())

    @pytest.mark.parametrize("is_longer", [False, True])
    @pytest.mark.parametrize("quick", [False, True])
    def test_the_state_of_another_ledger_accuses_nothing_else(
        self, scene: Scene, tmp_path: Path, quick: bool, is_longer: bool
    ) -> None:
        """A checkpoint that does not fit the log says nothing of seals, derived files and state."""
        other = tmp_path / "other"
        other.mkdir()
        # Its offsets lie inside of lines of this log.
        (other / LOG).write_bytes(orders(5000, 5100 if is_longer else 5010))
        with Ledger(other) as ledger:
            ledger.compact(checkpoint=True)
        shutil.rmtree(scene.ledger / ".state")
        shutil.copytree(other / ".state", scene.ledger / ".state")
        assert {"log_truncated" if is_longer else "log_rewritten"} == kinds(scene.verify(quick=quick))

    def test_a_checkpoint_at_an_offset_inside_of_a_line_is_damaged(self, scene: Scene) -> None:
        """Reading the log would stop there; nothing else is accused."""
        for path in (scene.ledger / ".state").glob("checkpoint.?"):
            length = _chunks(path)[0].log.length - 7
            digest = blake2b(scene.raw[max(0, length - 4096) : length], digest_size=16).digest()
            known = PrefixDigest(length, digest)
            rewrite_header(path, partial(msgspec.structs.replace, log=known))
        shutil.rmtree(scene.ledger / ".state/points", ignore_errors=True)
        assert {"checkpoint_damaged"} == kinds(scene.verify())

    def test_a_mark_that_is_missing(self, tmp_path: Path) -> None:
        """A forgotten order without its mark could open again; so marks are held against the orders that ended."""
        scene = Scene(tmp_path, slow_days(6000), sealed=0)
        state = scene.ledger / ".state"
        shutil.rmtree(state)
        with Ledger(scene.ledger, retention_days=0) as ledger:
            ledger.compact(checkpoint=True)
        (verdict,) = verify_all(scene.data, retention_days=0).verdicts
        assert [] == verdict.differences
        clear_marks(state / "checkpoint.0")
        (verdict,) = verify_all(scene.data, retention_days=0).verdicts
        assert any("are missing" in one.found for one in verdict.differences)

    def test_marks_under_two_secrets(self, tmp_path: Path) -> None:
        """A state that was made again has another secret than a checkpoint that was kept; both are compared."""
        scene = Scene(tmp_path, slow_days(6000), sealed=0)
        state, kept = scene.ledger / ".state", tmp_path / "kept"
        for name in ("checkpoint.1", "checkpoint.0"):
            shutil.rmtree(state)
            with Ledger(scene.ledger, retention_days=0) as ledger:
                ledger.compact(checkpoint=True)
            if name == "checkpoint.1":
                shutil.copy(state / "checkpoint.0", kept)
        shutil.copy(kept, state / "checkpoint.1")
        assert 2 == len({_chunks(path)[0].secret for path in state.glob("checkpoint.?")})
        (verdict,) = verify_all(scene.data, retention_days=0).verdicts
        assert [] == verdict.differences
        for number in range(2):
            clear_marks(state / f"checkpoint.{number}")
            (verdict,) = verify_all(scene.data, retention_days=0).verdicts
            assert number + 1 == sum("are missing" in one.found for one in verdict.differences)


def _chunks(path: Path) -> tuple[CheckpointHeader, bytes]:
    data = path.read_bytes()
    magic = data.index(b"\n") + 1
    size = int.from_bytes(data[magic : magic + 4], "little")
    return msgspec.msgpack.decode(data[magic + 20 : magic + 20 + size], type=CheckpointHeader), data[
        magic + 20 + size :
    ]


def _replaced(path: Path, change: Callable[[str, bytes], bytes]) -> None:
    """Write a checkpoint again with other chunks, all checksums and places of which fit."""
    header, data = _chunks(path)
    parts: list[bytes] = []

    def again(kind: str, chunk: Any) -> Any:
        part = change(kind, data[chunk.start : chunk.start + chunk.length])
        start = sum(map(len, parts))
        parts.append(part)
        return type(chunk)(start, len(part), blake2b(part, digest_size=16).digest())

    header = msgspec.structs.replace(
        header,
        open_orders=again("open", header.open_orders),
        spans=[again("spans", one) for one in header.spans],
        marks=[again("marks", one) for one in header.marks],
    )
    rewrite_header(path, lambda _: header, b"".join(parts))


def edit_open(path: Path, change: Callable[[OpenOrder], OpenOrder]) -> None:
    def edit(kind: str, data: bytes) -> bytes:
        if kind != "open":
            return data
        orders_ = msgspec.msgpack.decode(data, type=dict[str, OpenOrder])
        orders_["o-0"] = change(orders_["o-0"])
        return msgspec.msgpack.encode(orders_)

    _replaced(path, edit)


def edit_spans(path: Path) -> None:
    def edit(kind: str, data: bytes) -> bytes:
        if kind != "spans":
            return data
        records = msgspec.msgpack.decode(data)
        records[0][1] += 1
        return msgspec.msgpack.encode([[*one[:3], one[3]] for one in records])

    _replaced(path, edit)


def clear_marks(path: Path) -> None:
    _replaced(path, lambda kind, data: bytes(len(data)) if kind == "marks" else data)


class TestCommand:
    """Exit 0 clean, 1 differences, 2 could not run."""

    def run(self, scene: Scene, *more: str) -> Any:
        arguments = ["verify", str(scene.data), "--witness", str(scene.witness), *more]
        return CliRunner().invoke(app, arguments, prog_name="compactor")

    def test_clean(self, shared: Scene) -> None:
        """Exit 0, a row for each ledger, and what is not proven on standard error."""
        result = self.run(shared, "--key", shared.key.verifier.encode())
        assert (0, True) == (result.exit_code, TEAM in result.stdout)
        assert "no digest and no signature covers them" in result.stderr
        row = json.loads(self.run(shared, "--key", shared.key.verifier.encode(), "--json").stdout)
        assert ([], row["sealed_bytes"]) == (row["differences"], row["signed_bytes"])

    def test_differences(self, scene: Scene) -> None:
        """Exit 1: each difference with its file, offset, expected, found, and what it means."""
        path = scene.ledger / "trades.jsonl"
        path.write_bytes(path.read_bytes().replace(b"530.00", b"530.10", 1))
        result = self.run(scene)
        assert 1 == result.exit_code
        assert "trades.jsonl at " in result.stdout and "compactor rebuild" in result.stdout
        (difference,) = json.loads(self.run(scene, "--json").stdout)["differences"]
        assert {"kind", "file", "offset", "expected", "found", "meaning"} == difference.keys()
        assert path.read_bytes().index(b"530.10") + 4 == difference["offset"]

    @pytest.mark.parametrize("key", ["nonsense", "example.org/desk+00000000+AAAA", "/does/not/exist"])
    def test_it_could_not_run(self, scene: Scene, key: str) -> None:
        """Exit 2 where a ledger could not be read; a key that is none is an error too."""
        assert 1 == self.run(scene, "--key", key).exit_code
        (scene.ledger / LOG).unlink()
        (scene.ledger / LOG).mkdir()
        result = self.run(scene)
        assert 2 == result.exit_code
        assert "could not be verified" in result.stderr

    def test_a_witness_of_other_ledgers_or_with_other_lines(self, scene: Scene) -> None:
        """A witnessed ledger that is gone, a line that is none, and a witness that is gone are differences."""
        with scene.witness.open("a") as file:
            file.write('{"team_id":"ghost","end":1,"note":""}\nnonsense\n')
        result = self.run(scene)
        assert 1 == result.exit_code
        assert "no ledger of team 'ghost'" in result.stdout and "a head in line 3" in result.stdout
        scene.witness.unlink()
        assert 1 == self.run(scene).exit_code

    def test_a_real_process(self, shared: Scene) -> None:
        """As users run it, in a process of its own."""
        command = [sys.executable, "-m", "compactor", "verify", str(shared.data), "--json"]
        done = subprocess.run(command, capture_output=True, cwd=ROOT)
        assert (0, []) == (done.returncode, json.loads(done.stdout)["differences"])
