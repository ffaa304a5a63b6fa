"""`compactor rebuild`: what is derived is made again, what was there is kept, and no log is touched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from compactor import Ledger, LockHeld, SegmentDamaged
from compactor.ledger.files import Files
from compactor.proofs import heads
from compactor.ui.cli import app
from compactor.verify import rebuild
from tests.cases import DERIVED, LOG, read_derived
from tests.faults import orders
from tests.flips import TEAM, Scene


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A clean ledger of one's own."""
    return Scene(tmp_path)


def truth_of(scene: Scene) -> dict[str, bytes]:
    """The bytes of the log and of what is sealed."""
    paths = [scene.ledger / LOG, *(scene.ledger / "segments").iterdir()]
    return {path.name: path.read_bytes() for path in paths}


def test_whatever_happened_to_derived_files_a_rebuild_makes_them_again(scene: Scene) -> None:
    """Derived files from the log, byte for byte; the old ones lie aside; log and segments are as they were."""
    good, truth = read_derived(scene.ledger), truth_of(scene)
    wrong = {name: data.replace(b"530", b"531") + b"{}\n" for name, data in good.items()}
    for name, data in wrong.items():
        (scene.ledger / name).write_bytes(data)
    (scene.ledger / ".state" / "checkpoint.0").write_bytes(b"damaged")
    assert scene.verify()

    aside, compaction = rebuild.rebuild(scene.ledger, TEAM)

    assert aside is not None and aside.parent == scene.ledger / ".state" / "aside"
    assert wrong == read_derived(aside)
    assert b"damaged" == (aside / "checkpoint.0").read_bytes()
    assert good == read_derived(scene.ledger)
    assert truth == truth_of(scene)
    assert (len(scene.raw), []) == (compaction.offset, scene.verify())


def test_a_ledger_without_derived_files_needs_nothing_put_aside(scene: Scene) -> None:
    """1.3: what is derived may be missing altogether."""
    good = read_derived(scene.ledger)
    shutil.rmtree(scene.ledger / ".state")
    for name in DERIVED:
        (scene.ledger / name).unlink()
    aside, _ = rebuild.rebuild(scene.ledger, None)
    assert aside is None
    assert good == read_derived(scene.ledger)


@pytest.mark.parametrize("place", [0, 1, -1])
def test_a_log_that_cannot_be_read_whole_is_refused_and_all_stays(scene: Scene, place: int) -> None:
    """Refuses to touch a log: a damaged segment is an error, and the old files are back in their places."""
    segment = scene.files()["segments"][place]
    segment.write_bytes(segment.read_bytes()[:-1] + b"?")
    before = {path: path.read_bytes() for path in scene.ledger.rglob("*") if path.is_file()}
    with pytest.raises(SegmentDamaged):
        rebuild.rebuild(scene.ledger, TEAM)
    after = {path: path.read_bytes() for path in scene.ledger.rglob("*") if path.is_file()}
    assert before | {scene.ledger / ".state" / "lock": b""} == after | {scene.ledger / ".state" / "lock": b""}


def test_a_ledger_that_somebody_compacts_is_left_alone(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the ledger's lock: it waits a moment, and then names the holder."""
    monkeypatch.setattr(rebuild, "LOCK_WAIT_SECONDS", 0.05)
    held = Files().acquire(scene.ledger / ".state" / "lock")
    assert held is not None
    try:
        with pytest.raises(LockHeld, match="holds this ledger"):
            rebuild.rebuild(scene.ledger, TEAM)
    finally:
        Files().release(held)
    assert [] == scene.verify()
    with heads.locked(scene.ledger, Files(), 0):
        pass


def test_a_process_that_has_the_ledger_in_memory_goes_on(scene: Scene) -> None:
    """A daemon keeps the state of a ledger; after a rebuild its next pass gives the same bytes as ever."""
    with Ledger(scene.ledger) as ledger:
        ledger.compact()
        with (scene.ledger / LOG).open("ab") as log:
            log.write(orders(900, 905))
        rebuild.rebuild(scene.ledger, TEAM)
        with (scene.ledger / LOG).open("ab") as log:
            log.write(orders(905, 910))
        ledger.compact(checkpoint=True)
    assert [] == scene.verify()


def test_the_command(scene: Scene) -> None:
    """One row a ledger; a ledger that fails is named and stops no other."""
    other = scene.data / "team" / "bravo"
    shutil.copytree(scene.ledger, other)
    (other / "segments" / scene.files()["segments"][0].name).write_bytes(b"damaged")
    result = CliRunner().invoke(app, ["rebuild", str(scene.data), "--json"])
    alpha, bravo = (json.loads(line) for line in result.stdout.splitlines())
    assert 1 == result.exit_code
    assert Path(alpha["aside"]).is_dir()
    assert len(scene.raw) == alpha["offset"]
    assert ("bravo", "segment_damaged") == (bravo["team_id"], bravo["error"]["kind"])
    result = CliRunner().invoke(app, ["rebuild", str(scene.data), "--team", TEAM])
    assert (0, True) == (result.exit_code, "the old files" in result.stdout)
    result = CliRunner().invoke(app, ["rebuild", str(scene.data), "--team", "nobody"])
    assert 2 == result.exit_code
