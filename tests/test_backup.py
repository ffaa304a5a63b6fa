"""A backup is consistent whatever runs beside it, grows by what is new, and is restored byte for byte."""

import json
import os
import shutil
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from compactor import Ledger
from compactor.books.backup import CopiedLedger, back_up, restore
from compactor.books.manifest import MANIFEST
from compactor.proofs.keys import make_key
from compactor.proofs.publish import publish
from compactor.ui.cli import app
from compactor.verify.run import verify_all
from tests.cases import LOG, read_derived
from tests.faults import orders

SEGMENT = 30_000


@pytest.fixture
def alpha(data: Path) -> Path:
    """A ledger with three segments, and lines behind them."""
    path = data / "team/alpha"
    path.mkdir(parents=True)
    (path / LOG).write_bytes(orders(0, 500))
    with Ledger(path) as ledger:
        ledger.seal(now=True, segment_bytes=SEGMENT)
    append(path, orders(500, 520))
    return path


def append(path: Path, lines: bytes) -> None:
    """Another writer appends to the log."""
    with (path / LOG).open("ab") as log:
        log.write(lines)


def log_in(path: Path) -> bytes:
    """The whole log, segments included."""
    return b"".join(Ledger(path).cat())


def only(copied: list[CopiedLedger]) -> CopiedLedger:
    """The one ledger of a run, which went well."""
    (one,) = copied
    assert one.error is None, one.error
    return one


def kind(copied: list[CopiedLedger]) -> str:
    """The kind of the error of the one ledger."""
    (one,) = copied
    assert one.error is not None
    return one.error.kind


def test_a_backup_is_restored_byte_for_byte(alpha: Path, data: Path, tmp_path: Path) -> None:
    """Log, segments and derived files are those of the ledger; verify is clean."""
    append(alpha, b'{"event":"unfin')
    with Ledger(alpha) as ledger:
        ledger.compact()
    done = only(back_up(data, tmp_path / "backup"))
    assert (alpha / LOG).stat().st_size - 15 == done.log_bytes
    assert done.segments == done.new_segments > 3
    again = tmp_path / "again"
    only(restore(tmp_path / "backup", again))
    there = again / "team/alpha"
    with Ledger(there) as ledger:
        ledger.compact()
    assert log_in(alpha) == log_in(there)
    assert read_derived(alpha) == read_derived(there)
    assert not verify_all(again).verdicts[0].differences


def test_a_further_run_copies_what_is_new(alpha: Path, data: Path, tmp_path: Path) -> None:
    """Segments are immutable, and the log only grows; sealed history is not held twice."""
    target = tmp_path / "backup"
    first, again = only(back_up(data, target)), only(back_up(data, target))
    assert (0, 0) == (again.new_log_bytes, again.new_segments)
    assert first.new_log_bytes < 20_000
    append(alpha, orders(600, 610))
    more = only(back_up(data, target))
    assert (len(orders(600, 610)), 0) == (more.new_log_bytes, more.new_segments)
    append(alpha, orders(700, 1200))
    with Ledger(alpha) as ledger:
        ledger.seal(now=True, segment_bytes=SEGMENT)
    sealed = only(back_up(data, target))
    assert sealed.new_segments == sealed.segments - first.segments > 3
    assert log_in(alpha) == log_in(target / "team/alpha")
    assert (target / "team/alpha" / LOG).stat().st_blocks * 512 < 100_000


def test_a_head_that_was_signed_after_its_seal_was_copied_is_copied_too(
    alpha: Path, data: Path, tmp_path: Path
) -> None:
    """8.7: sealing and signing are two steps, and a backup may come in between; a head is never signed again."""
    target, key = tmp_path / "backup", make_key(tmp_path / "key", "example.org")
    only(back_up(data, target))
    publish(alpha, "alpha", key=key)
    only(back_up(data, target))
    heads = sorted(alpha.glob("segments/*.head"))
    assert len(heads) > 3
    assert [one.read_bytes() for one in heads] == [
        (target / "team/alpha/segments" / one.name).read_bytes() for one in heads
    ]


def test_a_ledger_without_segments_is_backed_up_too(data: Path, tmp_path: Path) -> None:
    """And one that grows past its first seal between two runs."""
    path = data / "team/alpha"
    path.mkdir(parents=True)
    (path / LOG).write_bytes(orders(0, 300))
    only(back_up(data, tmp_path / "backup"))
    with Ledger(path) as ledger:
        ledger.seal(now=True, segment_bytes=SEGMENT)
    only(back_up(data, tmp_path / "backup"))
    assert orders(0, 300) == log_in(tmp_path / "backup/team/alpha")
    only(restore(tmp_path / "backup", tmp_path / "again"))
    assert orders(0, 300) == log_in(tmp_path / "again/team/alpha")


def test_sealing_and_writing_go_on_meanwhile(alpha: Path, data: Path, tmp_path: Path) -> None:
    """Every backup that was made beside them is whole, and a beginning of the log."""
    stop = threading.Event()

    def write_and_seal() -> None:
        number = 1000
        with Ledger(alpha) as ledger:
            while not stop.is_set():
                append(alpha, orders(number, number + 40))
                ledger.seal(now=True, segment_bytes=8000)
                number += 40

    writer = threading.Thread(target=write_and_seal)
    writer.start()
    try:
        for number in range(12):
            target = tmp_path / f"backup-{number % 3}"
            only(back_up(data, target))
            copied = log_in(target / "team/alpha")
            assert copied == b"".join(Ledger(alpha).cat(0, len(copied)))
    finally:
        stop.set()
        writer.join()
    for number in range(3):
        only(restore(tmp_path / f"backup-{number}", tmp_path / f"again-{number}"))
        assert not verify_all(tmp_path / f"again-{number}").verdicts[0].differences


def test_a_log_that_is_no_continuation_is_refused(alpha: Path, data: Path, tmp_path: Path) -> None:
    """A backup is never replaced by something else under the same name."""
    target = tmp_path / "backup"
    only(back_up(data, target))
    before = log_in(target / "team/alpha")
    size = (alpha / LOG).stat().st_size
    os.truncate(alpha / LOG, size - 100)
    assert "backup_conflict" == kind(back_up(data, target))
    append(alpha, b"x" * 200 + b"\n")
    assert "backup_conflict" == kind(back_up(data, target))
    assert before == log_in(target / "team/alpha")


def test_another_ledger_of_the_same_name_is_refused(alpha: Path, data: Path, tmp_path: Path) -> None:
    """Its seals differ."""
    target = tmp_path / "backup"
    only(back_up(data, target))
    shutil.rmtree(alpha)
    alpha.mkdir()
    (alpha / LOG).write_bytes(orders(0, 500))
    with Ledger(alpha) as ledger:
        ledger.seal(now=True, segment_bytes=SEGMENT)
    assert "backup_conflict" == kind(back_up(data, target))


def test_a_run_that_was_stopped_is_gone_on_with(alpha: Path, data: Path, tmp_path: Path) -> None:
    """What is behind the manifest, torn or spoilt, is copied again; leftovers are in nobody's way."""
    target = tmp_path / "backup"
    only(back_up(data, target))
    append(target / "team/alpha", b"spoilt" * 1000)
    (target / "team/alpha/segments/left.jsonl.zst.tmp").write_bytes(b"left")
    append(alpha, orders(800, 810))
    only(back_up(data, target))
    assert log_in(alpha) == log_in(target / "team/alpha")


@pytest.mark.parametrize("what", ["log", "segment", "seal", "manifest"])
def test_a_damaged_backup_is_not_restored(alpha: Path, data: Path, tmp_path: Path, what: str) -> None:
    """Every byte is compared; no ledger comes to be."""
    target = tmp_path / "backup"
    only(back_up(data, target))
    path = {
        "log": target / "team/alpha" / LOG,
        "segment": sorted((target / "team/alpha/segments").glob("*.zst"))[1],
        "seal": sorted((target / "team/alpha/segments").glob("*.seal.json"))[1],
        "manifest": target / "team/alpha" / MANIFEST,
    }[what]
    raw = path.read_bytes()
    path.write_bytes(raw[:-30] + bytes([raw[-30] ^ 1]) + raw[-29:])
    assert kind(restore(target, tmp_path / "again")) in ("backup_conflict", "segment_damaged")
    assert not (tmp_path / "again/team/alpha" / LOG).exists()


def test_a_ledger_that_is_there_is_not_restored_over(alpha: Path, data: Path, tmp_path: Path) -> None:
    """Nor does a backup go into a data directory that is in use."""
    only(back_up(data, tmp_path / "backup"))
    before = log_in(alpha)
    assert "backup_conflict" == kind(restore(tmp_path / "backup", data))
    assert "backup_conflict" == kind(back_up(tmp_path / "backup", data))
    assert before == log_in(alpha)


def test_a_plain_copy_is_a_backup(alpha: Path, data: Path, tmp_path: Path) -> None:
    """Without a manifest: up to its last whole line."""
    shutil.copytree(data, tmp_path / "copy")
    append(tmp_path / "copy/team/alpha", b'{"event":')
    only(restore(tmp_path / "copy", tmp_path / "again"))
    assert log_in(alpha) == log_in(tmp_path / "again/team/alpha")


def test_one_ledger_that_fails_stops_no_other(alpha: Path, data: Path, tmp_path: Path) -> None:
    """Each has its entry."""
    bad = data / "team/bad"
    bad.mkdir()
    (bad / LOG).mkdir()
    good, failed = back_up(data, tmp_path / "backup")
    assert (None, "unsafe_file") == (good.error, failed.error and failed.error.kind)


def test_a_directory_that_is_itself_a_ledger(data: Path, tmp_path: Path) -> None:
    """1.2: its backup is one too."""
    (data / LOG).write_bytes(orders(0, 50))
    only(back_up(data, tmp_path / "backup"))
    only(restore(tmp_path / "backup", tmp_path / "again"))
    assert orders(0, 50) == (tmp_path / "again" / LOG).read_bytes()


def test_the_commands(alpha: Path, data: Path, tmp_path: Path) -> None:
    """`restore` derives and verifies; what cannot be restored is named, with exit code 1."""
    run = CliRunner().invoke
    with Ledger(alpha) as ledger:
        ledger.compact()
    done = run(app, ["backup", str(data), str(tmp_path / "to"), "--json"])
    assert (0, "alpha") == (done.exit_code, json.loads(done.stdout)["team_id"]), done.output
    done = run(app, ["backup", str(tmp_path / "to")], env={"COMPACTOR_DATA": str(data)})
    assert (0, ["alpha"]) == (done.exit_code, done.stdout.splitlines()[1].split()[:1]), done.output
    (tmp_path / "again").mkdir()
    done = run(app, ["restore", str(tmp_path / "to"), str(tmp_path / "again")])
    assert 0 == done.exit_code, done.output
    assert read_derived(alpha) == read_derived(tmp_path / "again/team/alpha")
    done = run(app, ["restore", str(tmp_path / "to"), str(tmp_path / "again")])
    assert 1 == done.exit_code
    assert "expected no ledger, found one" in done.stderr
