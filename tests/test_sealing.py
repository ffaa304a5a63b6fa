"""Sealing a log: what is due, what it leaves on the disk, and that nothing that stops it changes a byte that is read.

The law runs on `tests.disk.Disk`, which is stopped at every call and then loses its power; the rest on a real disk.
"""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from compactor import Ledger, LedgerError, SegmentDamaged
from compactor.imports.writer import known_events
from compactor.ledger.files import Files
from compactor.ledger.seal import plan_seal
from compactor.ledger.segment_format import HOLE_BYTES_MIN, decode_seal, encode_seal
from compactor.ledger.segment_writer import find_line_end
from compactor.ui.cli import app
from tests.cases import DERIVED, LOG, read_derived
from tests.disk import Disk
from tests.faults import orders
from tests.test_log import log_of

DIRECTORY = Path("/ledger")
ID = "0123456789abcdef" * 2
RAW = orders(0, 500)
SEGMENT = 50_000
WHEN = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)


def sealed_ledger(path: Path, raw: bytes = RAW, segment_bytes: int = SEGMENT) -> dict[str, bytes]:
    """Make a ledger whose log is sealed in several segments and punched; returns its derived files."""
    path.mkdir(parents=True, exist_ok=True)
    (path / LOG).write_bytes(raw)
    with Ledger(path) as ledger:
        done = ledger.seal(now=True, segment_bytes=segment_bytes)
    assert done.total_bytes == len(raw)
    return read_derived(path)


def all_of(path: Path) -> bytes:
    """The whole log, as every reader sees it."""
    return b"".join(Ledger(path).cat())


class TestPlan:
    """What is due, decided from numbers alone."""

    @pytest.mark.parametrize(
        ("waiting", "hours", "now", "expected"),
        [
            (0, 48, True, None),
            (99, 23, False, None),
            (100, 23, False, "grown"),
            (99, 24, False, "old"),
            (500, 24, False, "old"),
            (1, 0, True, "asked"),
            (99, None, False, None),
        ],
    )
    def test_a_seal_is_due_by_size_or_age_or_when_asked_for(
        self, waiting: int, hours: int | None, now: bool, expected: str | None
    ) -> None:
        """8.1: grown by `segment_bytes`, or the oldest unsealed event is `segment_age` old."""
        oldest = None if hours is None else WHEN - timedelta(hours=hours)
        day = timedelta(hours=24)
        due = plan_seal(waiting_bytes=waiting, oldest=oldest, at=WHEN, segment_bytes=100, segment_age=day, now=now)
        assert expected == due

    @pytest.mark.parametrize(("stop", "expected"), [(3, 3), (5, 3), (6, 6), (8, 6), (200_005, 6), (200_007, 200_007)])
    def test_a_segment_ends_with_a_line(self, stop: int, expected: int) -> None:
        """8.1: cut at the last line end within the size."""
        data = b"ab\ncd\n" + b"x" * 200_000 + b"\n"
        assert expected == find_line_end(log_of(data), 0, stop, len(data))

    def test_a_line_longer_than_a_segment_is_a_segment(self) -> None:
        """8.1: a line is never in two segments."""
        data = b"ab\n" + b"x" * 200_000 + b"\ncd\n"
        assert 200_004 == find_line_end(log_of(data), 3, 10, len(data))
        assert 11 == find_line_end(log_of(b"x" * 10 + b"\n" + b"y" * 200_000 + b"\n"), 0, 10, 200_012)

    def test_what_has_grown_is_sealed_in_full_segments(self, data: Path) -> None:
        """8.1: the rest goes on waiting, until it has grown too or is old."""
        (data / LOG).write_bytes(RAW)
        with Ledger(data) as ledger:
            done = ledger.seal(segment_bytes=SEGMENT, at=WHEN)
            again = ledger.seal(segment_bytes=SEGMENT, at=WHEN)
            old = ledger.seal(segment_bytes=SEGMENT, at=WHEN + timedelta(hours=25))
        assert len(RAW) // SEGMENT == done.segments
        assert 0 < len(RAW) - done.total_bytes < SEGMENT
        assert (0, done.total_bytes) == (again.segments, again.total_bytes)
        assert (1, len(RAW)) == (old.segments, old.total_bytes)

    def test_only_what_is_folded_is_sealed(self, data: Path) -> None:
        """8.1: the checkpoint is past what is sealed; an unfinished line stays in the log."""
        (data / LOG).write_bytes(RAW + b'{"event":')
        with Ledger(data) as ledger:
            done = ledger.seal(now=True)
            status = ledger.status()
        assert (len(RAW), len(RAW), 9) == (done.total_bytes, status.offset, status.tail_bytes)
        assert (len(RAW), 1) == (status.sealed_bytes, status.segments)


class TestSpace:
    """What becomes of the log's blocks."""

    def test_the_log_keeps_inode_size_and_offsets_and_gives_its_space_back(self, data: Path) -> None:
        """8.3: whoever has the log open for appending is not hurt."""
        (data / LOG).write_bytes(RAW)
        before = os.stat(data / LOG)
        descriptor = os.open(data / LOG, os.O_WRONLY | os.O_APPEND)
        try:
            with Ledger(data) as ledger:
                done = ledger.seal(now=True, segment_bytes=SEGMENT)
                os.write(descriptor, orders(900, 901))
                assert 2 == ledger.compact().new_events
        finally:
            os.close(descriptor)
        after = os.stat(data / LOG)
        assert (before.st_ino, before.st_size + len(orders(900, 901))) == (after.st_ino, after.st_size)
        assert RAW + orders(900, 901) == all_of(data)
        if done.reclaim == "unsupported":
            pytest.skip("this file system cannot punch")
        assert done.punched_bytes > HOLE_BYTES_MIN
        assert before.st_blocks * 512 - done.punched_bytes <= after.st_blocks * 512 < HOLE_BYTES_MIN

    def test_the_last_4_kib_before_the_seals_end_stay(self, data: Path) -> None:
        """8.3: the digest of the log in the checkpoint is read there, so that no segment is opened for it."""
        sealed_ledger(data)
        assert RAW[-4096:] == (data / LOG).read_bytes()[-4096:]
        for segment in (data / "segments").glob("*.zst"):
            segment.write_bytes(b"not looked at")
        assert 0 == Ledger(data).compact().bytes

    def test_a_log_is_kept_whole_where_that_is_wanted(self, data: Path) -> None:
        """`reclaim = "never"` seals and gives nothing back; a later run may."""
        (data / LOG).write_bytes(RAW)
        with Ledger(data) as ledger:
            done = ledger.seal(now=True, segment_bytes=SEGMENT, reclaim="never")
        assert ("never", 0, len(RAW)) == (done.reclaim, done.punched_bytes, done.total_bytes)
        assert RAW == (data / LOG).read_bytes()
        with Ledger(data) as ledger:
            later = ledger.seal()
        assert 0 == later.segments
        assert RAW == all_of(data)
        assert (later.punched_bytes > 0) == (later.reclaim == "punch")

    def test_a_log_is_kept_whole_where_the_file_system_cannot_punch(self) -> None:
        """8.3: sealed all the same, and said."""
        disk = disk_with_log()
        disk.can_punch = False
        with Ledger(DIRECTORY, files=disk) as ledger:
            done = ledger.seal(now=True, segment_bytes=SEGMENT)
        assert ("unsupported", 0, len(TOLD)) == (done.reclaim, done.punched_bytes, done.total_bytes)
        assert TOLD == disk.take(DIRECTORY / LOG)

    def test_a_punch_that_is_refused_is_not_a_failure(self, tmp_path: Path) -> None:
        """`Files.punch` is False where the kind of file cannot; a failure is an OSError with the file's name."""
        assert Files().punch(Path("/proc/self/comm"), 0, 4096) is False
        with pytest.raises(OSError) as raised:
            Files().punch(tmp_path / "none", 0, 4096)
        assert (errno.ENOENT, str(tmp_path / "none")) == (raised.value.errno, raised.value.filename)

    def test_the_hole_grows_from_the_beginning_and_is_never_small(self, data: Path) -> None:
        """8.3: at every moment it begins at offset 0 and has at least 64 KiB."""
        punched: list[tuple[int, int]] = []

        class Noting(Files):
            def punch(self, path: Path, start: int, length: int) -> bool:
                punched.append((start, start + length))
                return super().punch(path, start, length)

        (data / LOG).write_bytes(RAW)
        with Ledger(data, files=Noting()) as ledger:
            if ledger.seal(now=True, segment_bytes=20_000).reclaim == "unsupported":
                pytest.skip("this file system cannot punch")
        assert [0, *(end for _, end in punched[:-1])] == [start for start, _ in punched]
        assert len(punched) > 1
        assert all(end >= HOLE_BYTES_MIN for _, end in punched)

    def test_a_small_log_gets_no_hole(self, data: Path) -> None:
        """8.3: the hole at the beginning has at least 64 KiB, so that a log without its seals can be told."""
        sealed_ledger(data, orders(0, 100))
        assert orders(0, 100) == (data / LOG).read_bytes()


class TestCommands:
    """`compactor seal` and `compactor cat`."""

    def test_seal_tells_what_it_did(self, data: Path) -> None:
        """One row per ledger; nothing is due for a young, small log, unless --now asks for it."""
        ledger = data / "team" / "alpha"
        ledger.mkdir(parents=True)
        Ledger(ledger).append([{"event": "new", "order_id": "o", "ts": "2026-03-02T10:00:00Z"}])
        young, asked = (CliRunner().invoke(app, ["seal", str(data), "--json", *more]) for more in ([], ["--now"]))
        assert (0, 0) == (young.exit_code, json.loads(young.stdout)["segments"])
        told = json.loads(asked.stdout)
        size = (ledger / LOG).stat().st_size
        assert ("alpha", 1, size, size) == (
            told["team_id"], told["segments"], told["sealed_bytes"], told["total_bytes"],
        )  # fmt: skip
        table = CliRunner().invoke(app, ["seal", str(data)])
        assert ["alpha", "0", "0", "0", "0", "1", str(size), "punch"] == table.stdout.splitlines()[1].split()

    def test_a_ledger_that_cannot_be_sealed_stops_no_other(self, data: Path) -> None:
        """Exit code 1, the ledger named with what to do, the others sealed."""
        for team in ("alpha", "bravo"):
            sealed_ledger(data / "team" / team)
        next((data / "team" / "alpha" / "segments").glob("*.zst")).unlink()
        with (data / "team" / "bravo" / LOG).open("ab") as log:
            log.write(orders(900, 901))
        result = CliRunner().invoke(app, ["seal", str(data), "--now", "--json"])
        alpha, bravo = map(json.loads, result.stdout.splitlines())
        assert (1, "segment_damaged", 1) == (result.exit_code, alpha["error"]["kind"], bravo["segments"])
        assert "Restore the segments directory from a backup" in result.stderr

    def test_cat_writes_the_bytes(self, data: Path) -> None:
        """All of it, or a range by the offsets that findings name."""
        sealed_ledger(data / "team" / "alpha")
        whole = CliRunner().invoke(app, ["cat", str(data)])
        part = CliRunner().invoke(app, ["cat", str(data), "--team", "alpha", "--from", "49000", "--to", "51000"])
        assert (RAW, RAW[49_000:51_000]) == (whole.stdout_bytes, part.stdout_bytes)

    @pytest.mark.parametrize("wrong", [[], ["--team", "none"], ["--team", "alpha", "--from", "2", "--to", "1"]])
    def test_cat_of_no_single_log_is_wrong_usage(self, data: Path, wrong: list[str]) -> None:
        """One log at a time, and a range that is one."""
        for team in ("alpha", "bravo"):
            (data / "team" / team).mkdir(parents=True)
            (data / "team" / team / LOG).write_bytes(b"{}\n")
        result = CliRunner().invoke(app, ["cat", str(data), *wrong])
        assert (2, b"") == (result.exit_code, result.stdout_bytes)


class TestHistory:
    """Everything that reads the log goes through segments and file as one sequence."""

    def test_a_full_refold_gives_the_same_derived_files(self, data: Path) -> None:
        """1.3: everything but log and segments can be deleted and is rebuilt byte for byte."""
        before = sealed_ledger(data)
        with (data / LOG).open("ab") as log:
            log.write(orders(500, 520))
        Ledger(data).compact()
        after = read_derived(data)
        shutil.rmtree(data / ".state")
        for name in DERIVED:
            (data / name).unlink()
        assert 0 < Ledger(data).compact().new_trades
        assert after == read_derived(data)
        assert before["trades.jsonl"] == after["trades.jsonl"][: len(before["trades.jsonl"])]

    def test_a_forgotten_order_comes_back_out_of_a_segment(self, data: Path) -> None:
        """6.2: its history is read back, whether it is sealed or not."""
        told = orders(0, 500, ended=True)
        late = (
            b'{"event":"fill","order_id":"o-7","ts":"2026-04-02T10:00:00Z","execution_id":"x","price":"1","qty":"1"}\n'
        )
        (data / "whole").mkdir()
        (data / "whole" / LOG).write_bytes(told + late)
        Ledger(data / "whole").compact()
        sealed = data / "sealed"
        sealed.mkdir()
        (sealed / LOG).write_bytes(told)
        with Ledger(sealed, retention_days=0) as ledger:
            ledger.seal(now=True, segment_bytes=SEGMENT)
        with (sealed / LOG).open("ab") as log:
            log.write(late)
        with Ledger(sealed, retention_days=0) as ledger:
            segments = sorted((sealed / "segments").glob("*.zst"))
            segments[0].rename(segments[0].with_name("away"))
            segments[0].write_bytes(b"another")
            with pytest.raises(SegmentDamaged):
                ledger.compact()
            segments[0].with_name("away").rename(segments[0])
            ledger.compact()
        assert read_derived(data / "whole") == read_derived(sealed)

    def test_an_older_checkpoint_may_lie_in_sealed_history(self, data: Path) -> None:
        """7: a damaged slot is set aside and the older one used, also when its end was punched out of the log."""
        (data / LOG).write_bytes(RAW[: RAW.index(b"\n", 30_000) + 1])
        Ledger(data).compact(checkpoint=True)
        expected = sealed_ledger(data)
        slots = [data / ".state" / name for name in ("checkpoint.0", "checkpoint.1")]
        newest = max(slots, key=lambda slot: slot.stat().st_mtime_ns)
        newest.write_bytes(b"damaged")
        assert len(RAW) > Ledger(data).compact().bytes > 0
        assert expected == read_derived(data)

    def test_a_reader_without_the_lock_follows_what_is_sealed_meanwhile(self, data: Path) -> None:
        """8.4: NULs in the log are looked up in the seals before they are believed."""
        (data / LOG).write_bytes(RAW)
        pieces = Ledger(data).cat()
        from compactor.ledger.log import open_log

        with open_log(data, Files()) as log:
            sealed_ledger(data)
            assert RAW == log.read(0, len(RAW))
        assert RAW == b"".join(pieces)

    def test_cat_gives_any_range(self, data: Path) -> None:
        """Bytes of segments and log as one sequence; whole lines only where no end is given."""
        sealed_ledger(data)
        with (data / LOG).open("ab") as log:
            log.write(b"tail\nunfini")
        whole = RAW + b"tail\nunfini"
        with Ledger(data) as ledger:
            assert whole[:-6] == b"".join(ledger.cat())
            for start, end in [(0, 1), (49_990, 50_010), (len(RAW) - 5, len(whole)), (len(whole), len(whole) + 9)]:
                assert whole[start:end] == b"".join(ledger.cat(start, end))


WRITER = """
import os, sys
log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
for number in range(4000):
    os.write(log, b'{"event":"new","order_id":"%s-%d","ts":"2026-03-02T10:00:00Z","symbol":"SPY","side":"buy",'
             b'"quantity":"2"}\\n' % (sys.argv[2].encode(), number))
"""


def test_writers_lose_nothing_while_their_log_is_sealed(data: Path) -> None:
    """8.3: other processes append at full speed while ranges of the log are sealed and punched."""
    (data / LOG).write_bytes(RAW)
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(data / LOG), name]) for name in "ab"]
    runs = 0
    with Ledger(data) as ledger:
        while any(writer.poll() is None for writer in writers) or runs < 3:
            ledger.seal(now=True, segment_bytes=SEGMENT)
            runs += 1
        ledger.seal(now=True, segment_bytes=SEGMENT)
    found = all_of(data)
    assert found.startswith(RAW)
    lines = found[len(RAW) :].splitlines()
    assert 8000 == len(lines)
    for name in "ab":
        mine = [json.loads(line)["order_id"] for line in lines if f'"{name}-'.encode() in line]
        assert [f"{name}-{number}" for number in range(4000)] == mine
    assert 8000 + 167 == len(list(Ledger(data).rows("pending_orders")))


# The law: stopped anywhere, nothing that is read changes, and the next run completes it.


TOLD = orders(0, 300)
"""Two segments and a rest: enough for a hole, little enough to be stopped at every call."""


def disk_with_log() -> Disk:
    """A disk with a ledger that is compacted."""
    disk = Disk()
    disk.put(DIRECTORY / LOG, TOLD)
    with Ledger(DIRECTORY, files=disk) as ledger:
        ledger.compact(checkpoint=True)
    disk.restart()
    return disk


def seal_on(disk: Disk) -> None:
    """One run by a new process."""
    with Ledger(DIRECTORY, files=disk) as ledger:
        ledger.seal(now=True, segment_bytes=40_000)


def steps_of_a_run() -> int:
    """How many calls a run makes."""
    disk = disk_with_log()
    seal_on(disk)
    return disk.calls


def read_on(disk: Disk) -> tuple[bytes, ...]:
    """The log as readers see it, and the derived files of a fold of all of it."""
    with Ledger(DIRECTORY, files=disk) as ledger:
        log = b"".join(ledger.cat())
    fresh = disk.copy()
    fresh.restart()
    for name in ("checkpoint.0", "checkpoint.1"):
        fresh.drop(DIRECTORY / ".state" / name)
    with Ledger(DIRECTORY, files=fresh) as ledger:
        ledger.compact()
    return log, *(fresh.take(DIRECTORY / name) or b"" for name in DERIVED)


def kept_on(disk: Disk) -> dict[Path, bytes]:
    """The log as it lies on the disk, and every file of its segments."""
    return {path: data for path, data in disk.all_files().items() if path.name == LOG or path.parent.name == "segments"}


@pytest.fixture
def one_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every ledger gets the same id, so that the files of two of them can be compared."""
    monkeypatch.setattr("compactor.ledger.seal.token_hex", lambda _: ID)


@pytest.mark.usefixtures("one_id")
@pytest.mark.parametrize("keep", [None, 0.0, 0.4, 1.0])
def test_a_run_may_be_stopped_at_any_call(keep: float | None) -> None:
    """8.3: killed at any call, with the power lost or not, what is read is the same, and the next run ends the same."""
    undisturbed = disk_with_log()
    expected = read_on(undisturbed)
    seal_on(undisturbed)
    assert TOLD == expected[0]
    assert expected == read_on(undisturbed)
    assert kept_on(undisturbed)[DIRECTORY / LOG].startswith(bytes(HOLE_BYTES_MIN))
    for step, disk in disk_with_log().list_stops(seal_on):
        if keep is not None:
            disk.lose_power(keep)
        assert expected == read_on(disk), f"stopped at call {step}"
        disk.restart()
        seal_on(disk)
        assert kept_on(undisturbed) == kept_on(disk), f"stopped at call {step}"


@pytest.mark.usefixtures("one_id")
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_run_may_fail_at_any_call(error: int) -> None:
    """A full or failing disk at any call: one clear error, nothing that is read changes, and the next run goes on."""
    undisturbed = disk_with_log()
    expected = read_on(undisturbed)
    seal_on(undisturbed)
    start = disk_with_log()
    for step in range(1, steps_of_a_run() + 1):
        disk = start.copy()
        disk.fail_at, disk.error = step, error
        ledger = Ledger(DIRECTORY, files=disk)
        with pytest.raises(LedgerError):
            ledger.seal(now=True, segment_bytes=40_000)
        assert [] == [path for path in disk.all_files() if path.name.endswith(".zst.tmp")]
        disk.restart()
        assert expected == read_on(disk), f"failed at call {step}"
        ledger.seal(now=True, segment_bytes=40_000)
        assert kept_on(undisturbed) == kept_on(disk), f"failed at call {step}"


def test_what_an_earlier_run_left_is_seen_whole_before_it_is_punched(data: Path) -> None:
    """8.3: a sealed range that was not punched is compared with its seal first; a damaged segment costs no byte."""
    (data / LOG).write_bytes(RAW)
    with Ledger(data) as ledger:
        ledger.seal(now=True, segment_bytes=SEGMENT, reclaim="never")
    segment = sorted((data / "segments").glob("*.zst"))[0]
    good = segment.read_bytes()
    segment.write_bytes(good[:100] + bytes([good[100] ^ 1]) + good[101:])
    with pytest.raises(SegmentDamaged), Ledger(data) as ledger:
        ledger.seal()
    assert RAW == (data / LOG).read_bytes()
    segment.write_bytes(good)
    assert RAW == all_of(data)


def test_what_was_not_written_as_it_was_given_is_never_sealed(data: Path) -> None:
    """8.3: read back and compared with the log before it is sealed and anything is given up."""

    class Lying(Files):
        """A disk that forgets the frames of the second half."""

        def write_new(self, path: Path, parts: Iterable[bytes | bytearray]) -> None:
            given = list(parts)
            super().write_new(path, given[: len(given) // 2] if ".zst" in path.name else given)

    (data / LOG).write_bytes(RAW)
    with pytest.raises(SegmentDamaged), Ledger(data, files=Lying()) as ledger:
        ledger.seal(now=True, segment_bytes=SEGMENT)
    assert [] == list((data / "segments").glob("*.json"))
    assert RAW == (data / LOG).read_bytes() == all_of(data)
    with Ledger(data) as ledger:
        assert len(RAW) == ledger.seal(now=True, segment_bytes=SEGMENT).sealed_bytes


def test_a_seal_says_what_it_sealed_itself(data: Path) -> None:
    """8: not what was sealed before it."""
    half = RAW.index(b"\n", len(RAW) // 2) + 1
    (data / LOG).write_bytes(RAW[:half])
    with Ledger(data) as ledger:
        assert 0 == ledger.seal(segment_age=timedelta(days=36_500)).segments
        assert half == ledger.seal(now=True).sealed_bytes
        with (data / LOG).open("ab") as log:
            log.write(RAW[half:])
        done = ledger.seal(now=True)
        assert (1, len(RAW) - half) == (done.segments, done.sealed_bytes)
        assert len(RAW) == ledger.sealed_bytes


def test_looking_whether_something_is_due_opens_no_segment(data: Path) -> None:
    """8.1: a look at the log is all that it costs where nothing is due."""
    (data / LOG).write_bytes(RAW)
    with Ledger(data) as ledger:
        ledger.seal(now=True, segment_bytes=SEGMENT)
        for segment in (data / "segments").glob("*.zst"):
            segment.write_bytes(b"not looked at")
        assert 0 == ledger.seal().segments
        assert len(RAW) == ledger.status().sealed_bytes


def test_an_import_finds_what_is_sealed(data: Path) -> None:
    """Importing the same again adds nothing, also when its events were sealed meanwhile."""
    raw = orders(0, 500) + b'{"event":"new","order_id":"unfinished","ts":"2026-03-02T10:00:00Z"}'
    (data / LOG).write_bytes(raw)
    order_ids = set(re.findall(r'"order_id":"([^"]*)"', raw.decode(errors="replace")))
    before = list(known_events(data, "alpha", order_ids))
    with Ledger(data) as ledger:
        ledger.seal(now=True, segment_bytes=SEGMENT)
    assert before == list(known_events(data, "alpha", order_ids))
    assert (1334, "unfinished") == (len(before), before[-1][0].order_id)


def test_segments_without_their_seal_are_replaced(data: Path) -> None:
    """8.3: a segment counts once its seal is there; what a stopped run left is removed."""
    (data / "segments").mkdir()
    (data / "segments" / f"{0:020d}-{77:020d}.jsonl.zst").write_bytes(b"left")
    (data / "segments" / "left.tmp").write_bytes(b"left")
    (data / "segments" / "notes.txt").write_bytes(b"mine")
    sealed_ledger(data, segment_bytes=1 << 20)
    name = f"{0:020d}-{len(RAW):020d}"
    assert [f"{name}.index", f"{name}.jsonl.zst", f"{name}.seal.json", "notes.txt"] == sorted(
        os.listdir(data / "segments")
    )


class TestForeignSegments:
    """Segments that do not belong to the log cost no byte of it, and no command reads them (8.3, 8.4)."""

    def test_another_ledgers_segments_are_refused_by_every_command(self, data: Path) -> None:
        """61 of 2,000 events were left of a log before which another ledger's segments had been put."""
        for team, first in (("alpha", 0), ("bravo", 5000)):
            path = data / "team" / team
            path.mkdir(parents=True)
            (path / LOG).write_bytes(orders(first, first + 500))
        alpha, bravo = data / "team/alpha", data / "team/bravo"
        with Ledger(bravo) as ledger:
            ledger.seal(now=True, segment_bytes=SEGMENT)
        shutil.copytree(bravo / "segments", alpha / "segments")
        whole = (alpha / LOG).read_bytes()
        for command in (["seal", "--now"], ["compact"], ["status"], ["verify"], ["cat", "--team", "alpha"]):
            result = CliRunner().invoke(app, [*command, str(data)])
            assert 1 == result.exit_code, (command, result.output)
            assert "expected a segment of team alpha, found one of bravo" in " ".join(result.output.split()), command
        assert whole == (alpha / LOG).read_bytes()

    @pytest.mark.parametrize("with_names", [True, False], ids=["named", "of-0.1.0"])
    def test_segments_with_the_same_end_are_compared_before_the_punch(self, tmp_path: Path, with_names: bool) -> None:
        """The end of the log and the team agree; every byte that the log still has is compared before a punch."""
        ours, theirs = tmp_path / "ours/team/alpha", tmp_path / "theirs/team/alpha"
        other = RAW.replace(b"530.00", b"531.00", 1)
        assert len(other) == len(RAW)
        for path, raw in ((ours, RAW), (theirs, other)):
            path.mkdir(parents=True)
            (path / LOG).write_bytes(raw)
        with Ledger(theirs) as ledger:
            ledger.seal(now=True, segment_bytes=SEGMENT, reclaim="never")
        if not with_names:
            strip_names(theirs / "segments")
        shutil.copytree(theirs / "segments", ours / "segments")
        at = RAW.index(b"530.00") // 4096 * 4096
        with (
            pytest.raises(SegmentDamaged, match=f"expected the bytes that the log has from {at} on"),
            Ledger(ours) as ledger,
        ):
            ledger.seal(now=True)
        assert RAW == (ours / LOG).read_bytes()

    def test_the_last_bytes_of_the_log_are_those_of_the_last_segment(self, data: Path) -> None:
        """8.4: also where the seals name no ledger; then the last frame is read once."""
        sealed_ledger(data, segment_bytes=SEGMENT)
        for named in (True, False):
            if not named:
                strip_names(data / "segments")
            Ledger(data).status()
            raw = (data / LOG).read_bytes()
            (data / LOG).write_bytes(raw[:-100] + b"x" * 99 + b"\n")
            with pytest.raises(SegmentDamaged, match="it belongs to another log"):
                Ledger(data).status()
            (data / LOG).write_bytes(raw)

    def test_a_ledger_keeps_the_id_of_its_first_seal(self, data: Path) -> None:
        """8.2: made at random with the first seal, checked against every later one."""
        sealed_ledger(data, segment_bytes=SEGMENT)
        paths = sorted((data / "segments").glob("*.seal.json"))
        ids = {decode_seal(path.read_bytes(), path).ledger_id for path in paths}
        assert 1 == len(ids)
        assert re.fullmatch("[0-9a-f]{32}", ids.pop() or "")
        seal = decode_seal(paths[-1].read_bytes(), paths[-1])
        paths[-1].write_bytes(encode_seal(msgspec.structs.replace(seal, ledger_id="f" * 32)))
        with pytest.raises(
            SegmentDamaged, match=r"expected a segment of the ledger with the id \w+, found one of ffff"
        ):
            Ledger(data).status()

    def test_seals_without_a_name_are_gone_on_with(self, data: Path) -> None:
        """Those of 0.1.0 stay readable, and the next seal has a name."""
        sealed_ledger(data, segment_bytes=SEGMENT)
        strip_names(data / "segments")
        more = orders(900, 1400)
        with (data / LOG).open("ab") as log:
            log.write(more)
        with Ledger(data) as ledger:
            ledger.seal(now=True, segment_bytes=SEGMENT)
        assert RAW + more == all_of(data)
        path = sorted((data / "segments").glob("*.seal.json"))[-1]
        assert decode_seal(path.read_bytes(), path).ledger_id


def strip_names(directory: Path) -> None:
    """Make the seals such as 0.1.0 wrote them: no team, no id of the ledger, no digest of the end."""
    previous = ""
    for path in sorted(directory.glob("*.seal.json")):
        seal = decode_seal(path.read_bytes(), path)
        seal = msgspec.structs.replace(seal, previous=previous, team_id=None, ledger_id=None, tail_sha256=None)
        path.write_bytes(encode_seal(seal))
        previous = sha256(path.read_bytes()).hexdigest()
