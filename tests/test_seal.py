"""What a run of sealing opens, compares and gives back, on a real disk. What stops a run is in `test_sealing`."""

import errno
import os
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from compactor import Ledger, LedgerError, SegmentDamaged
from compactor.ledger.files import Files, Reader
from compactor.ledger.seal import Sealer
from compactor.ledger.segment_format import HOLE_BYTES_MIN, decode_seal, encode_seal
from tests.cases import LOG
from tests.faults import orders
from tests.test_sealing import RAW, all_of

SEGMENT = 30_000


class Noting(Files):
    """Notes which segments are opened, and what is punched."""

    def __init__(self) -> None:
        self.opened: Counter[str] = Counter()
        self.punched: list[tuple[int, int]] = []
        self.looks = self.logs = 0

    def open(self, path: Path) -> Reader:
        if path.suffix == ".zst":
            self.opened[path.name] += 1
        self.logs += path.name == LOG
        return super().open(path)

    def names(self, path: Path) -> list[str]:
        self.looks += 1
        return super().names(path)

    def sync_directory(self, path: Path) -> None:
        self.looks += 1
        super().sync_directory(path)

    def punch(self, path: Path, start: int, length: int) -> bool:
        self.punched.append((start, length))
        return super().punch(path, start, length)


def names(data: Path) -> list[str]:
    """The segments, in the order of the log."""
    return sorted(path.name for path in (data / "segments").glob("*.zst"))


@pytest.fixture
def whole(data: Path) -> Path:
    """A ledger that is sealed and has its log whole."""
    (data / LOG).write_bytes(RAW)
    with Ledger(data) as ledger:
        assert ledger.seal(now=True, segment_bytes=SEGMENT, reclaim="never").segments > 3
    return data


def test_a_segment_is_opened_once_by_the_run_that_makes_it(data: Path) -> None:
    """8.3: to read it back; nothing that this run made is compared again. Its index is made from the log or from it."""
    (data / LOG).write_bytes(RAW)
    files = Noting()
    with Ledger(data, files=files) as ledger:
        done = ledger.seal(now=True, segment_bytes=SEGMENT)
    sizes = [(data / "segments" / name).stat().st_size for name in names(data)]
    assert (len(sizes), sum(sizes), len(RAW)) == (done.segments, done.file_bytes, done.sealed_bytes)
    made = files.opened
    assert set(names(data)) == set(made)
    assert max(made.values()) <= 2


def test_where_nothing_is_due_and_nothing_was_sealed_the_log_is_not_opened(data: Path) -> None:
    """Only a segment of an earlier process may have to be completed."""
    (data / LOG).write_bytes(RAW)
    files, now = Noting(), datetime(2026, 3, 2, 11, tzinfo=UTC)
    with Ledger(data, files=files) as ledger:
        ledger.compact(checkpoint=True)
        before = files.logs
        assert 0 == ledger.seal(at=now).segments
        once = files.logs - before
        assert 0 == ledger.seal(at=now).segments
    assert once == files.logs - before - once, "the first look costs what the second one does"


def test_what_an_earlier_run_made_is_compared_once_before_it_is_punched(whole: Path) -> None:
    """8.3: however many segments this run adds."""
    old = names(whole)
    with (whole / LOG).open("ab") as log:
        log.write(orders(500, 800))
    files = Noting()
    with Ledger(whole, files=files) as ledger:
        done = ledger.seal(now=True, segment_bytes=SEGMENT)
    if done.reclaim == "unsupported":
        pytest.skip("this file system cannot punch")
    assert done.segments > 1
    assert {1} == {files.opened[name] for name in old}
    assert done.punched_bytes == sum(length for _, length in files.punched) > HOLE_BYTES_MIN


def test_where_nothing_is_left_to_do_no_segment_is_opened(whole: Path) -> None:
    """A daemon that starts looks at the log, whatever was sealed before: all is punched that may be."""
    with Ledger(whole) as ledger:
        ledger.seal()
    files = Noting()
    with Ledger(whole, files=files) as ledger:
        assert (0, 0) == (ledger.seal().segments, len(files.punched))
        # A directory that changed a moment ago may change again without its time telling.
        os.utime(whole / "segments", ns=(1, 1))
        ledger.seal()
        files.looks = 0
        assert (0, 0, 0) == (ledger.seal().segments, len(files.punched), files.looks)
    assert Counter() == files.opened
    assert RAW == all_of(whole)


@pytest.mark.parametrize("at", [0, 1, 4095, 4096, 70_000, SEGMENT - 1, SEGMENT + 1])
def test_a_byte_that_differs_anywhere_keeps_the_log(whole: Path, at: int) -> None:
    """8.3: from the first byte of a segment to its last, whatever block of the log it is in."""
    with (whole / LOG).open("r+b") as log:
        log.seek(at)
        log.write(bytes([RAW[at] ^ 1]))
    changed = (whole / LOG).read_bytes()
    with (
        pytest.raises(SegmentDamaged, match="expected the bytes that the log has from"),
        Ledger(whole) as ledger,
    ):
        ledger.seal()
    assert changed == (whole / LOG).read_bytes()


def test_small_segments_are_punched_as_well(data: Path) -> None:
    """8.3: several may end in one block, and many lie before the first hole that may be made."""
    (data / LOG).write_bytes(RAW)
    files = Noting()
    with Ledger(data, files=files) as ledger:
        if ledger.seal(now=True, segment_bytes=3000).reclaim == "unsupported":
            pytest.skip("this file system cannot punch")
    ends = [start + length for start, length in files.punched]
    assert [0, *ends[:-1]] == [start for start, _ in files.punched]
    assert HOLE_BYTES_MIN <= ends[0] < HOLE_BYTES_MIN + 2 * 4096
    assert (len(RAW) - 4096) // 4096 * 4096 == ends[-1]
    assert RAW == all_of(data)


def test_a_segment_beyond_what_is_sealed_is_not_removed(whole: Path) -> None:
    """8.3: it may be all that is left of its range; one within is what a stopped run left."""
    beyond, within = (f"{start:020d}-{end:020d}.jsonl.zst" for start, end in ((len(RAW), 1 << 40), (0, len(RAW))))
    for name in (beyond, within):
        (whole / "segments" / name).write_bytes(b"left")
    with Ledger(whole) as ledger:
        ledger.seal()
    assert [True, False] == [(whole / "segments" / name).exists() for name in (beyond, within)]


def test_a_log_is_due_at_64_mib_or_after_a_day(data: Path) -> None:
    """8.1: what holds where the settings say nothing."""
    line = b'{"event":"order_paused","order_id":"o","ts":"2026-03-02T10:00:00Z"}\n'
    blank = b" " * 65_535 + b"\n"
    day = datetime(2026, 3, 3, 10, tzinfo=UTC)
    with (data / LOG).open("wb") as log:
        log.write(line)
        for _ in range(1023):
            log.write(blank)
    with Ledger(data) as ledger:
        assert 0 == ledger.seal(at=day - timedelta(microseconds=1)).segments
        with (data / LOG).open("ab") as log:
            log.write(b" " * ((64 << 20) - os.path.getsize(data / LOG) - 2) + b"\n")
        assert 0 == ledger.seal(at=day - timedelta(microseconds=1)).segments
        with (data / LOG).open("ab") as log:
            log.write(b"\n")
        done = ledger.seal(at=day - timedelta(microseconds=1))
        assert (1, 64 << 20) == (done.segments, done.total_bytes)
        with (data / LOG).open("ab") as log:
            log.write(line)
        assert 1 == ledger.seal(at=day).segments


def test_what_is_known_of_the_log_s_age_is_not_read_again(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon asks at every look."""
    made: list[Any] = []

    class Counted(Sealer):
        def __init__(self, *of: Any) -> None:
            made.append(of)
            super().__init__(*of)

    monkeypatch.setattr("compactor.ledger.seal.Sealer", Counted)
    (data / LOG).write_bytes(RAW)
    with Ledger(data) as ledger:
        for _ in range(2):
            ledger.is_seal_due(segment_bytes=len(RAW), segment_age=timedelta(days=1))
    assert 1 == len(made)


def test_whether_something_is_due_is_told_as_of_now(data: Path) -> None:
    """8.1: needs no lock and changes nothing."""
    (data / LOG).write_bytes(RAW)
    with Ledger(data) as ledger:
        for segment_bytes, age, due in (
            (len(RAW), timedelta(days=36_500), True), (len(RAW) + 1, timedelta(days=36_500), False),
            (len(RAW) + 1, timedelta(hours=1), True),
        ):  # fmt: skip
            assert due == ledger.is_seal_due(segment_bytes=segment_bytes, segment_age=age)
        then = datetime(2026, 3, 2, 10, tzinfo=UTC)
        for hours, due in ((1, False), (2, True)):
            at = then + timedelta(hours=hours, minutes=-1)
            assert due == ledger.is_seal_due(segment_bytes=len(RAW) + 1, segment_age=timedelta(hours=1), at=at)
    assert [LOG] == os.listdir(data)


class Failing(Noting):
    """A disk that fails while the log is sealed, once it is told to."""

    fails = False

    def sync_directory(self, path: Path) -> None:
        if self.fails and path.name == "segments":
            raise OSError(errno.EIO, "Input/output error", str(path))
        super().sync_directory(path)


def test_a_disk_that_fails_is_said_and_not_passed_over(data: Path) -> None:
    """Nothing is said to be sealed then, and the next run seals it."""
    (data / LOG).write_bytes(RAW)
    files = Failing()
    with Ledger(data, files=files) as ledger:
        ledger.compact(checkpoint=True)
        files.fails = True
        with pytest.raises(LedgerError, match="sealing the log"):
            ledger.seal(now=True, segment_bytes=SEGMENT)
        files.fails = False
        assert ledger.seal(now=True, segment_bytes=SEGMENT).sealed_bytes == len(RAW)


class Ordered(Files):
    """Notes in which order directories are made and synced, and segments written."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def make_directory(self, path: Path) -> bool:
        self.calls.append(("make", path.name))
        return super().make_directory(path)

    def sync_directory(self, path: Path) -> None:
        self.calls.append(("sync", path.name))
        super().sync_directory(path)

    def punch(self, path: Path, start: int, length: int) -> bool:
        self.calls.append(("punch", path.name))
        return super().punch(path, start, length)


def test_the_directory_of_the_segments_is_durable_before_any_space_is_given_back(data: Path) -> None:
    """8.3: a power loss must not take all segments with it, while the log has holes in their place."""
    (data / LOG).write_bytes(RAW)
    files = Ordered()
    with Ledger(data, files=files) as ledger:
        ledger.compact()
        files.calls.clear()
        ledger.seal(now=True, segment_bytes=SEGMENT)
    made, punched = files.calls.index(("make", "segments")), files.calls.index(("punch", LOG))
    assert ("sync", data.name) in files.calls[made:punched]


class Forgetful(Files):
    """A disk whose log has another byte by the time a segment is read back."""

    def open(self, path: Path) -> Reader:
        if path.suffix == ".zst":
            with (path.parent.parent / LOG).open("r+b") as log:
                log.seek(100)
                log.write(bytes([RAW[100] ^ 1]))
        return super().open(path)


def test_a_segment_that_is_read_back_as_something_else_is_not_sealed(data: Path) -> None:
    """8.3: whatever of the two is wrong, the log is kept whole."""
    (data / LOG).write_bytes(RAW)
    with pytest.raises(SegmentDamaged, match="expected the bytes of the log from 0 on, found others"):
        Ledger(data, files=Forgetful()).seal(now=True)
    assert [] == list((data / "segments").glob("*.json"))
    assert RAW[101:] == (data / LOG).read_bytes()[101:]


def test_a_segment_whose_seal_tells_of_other_content_keeps_the_log(data: Path) -> None:
    """8.3: though the file and the log agree."""
    (data / LOG).write_bytes(RAW)
    Ledger(data).seal(now=True, reclaim="never")
    (path,) = (data / "segments").glob("*.seal.json")
    seal = decode_seal(path.read_bytes(), path)
    path.write_bytes(encode_seal(msgspec.structs.replace(seal, content_sha256="0" * 64)))
    with pytest.raises(SegmentDamaged, match=f"expected content with SHA-256 0+, found {seal.content_sha256}"):
        Ledger(data).seal()
    assert RAW == (data / LOG).read_bytes()
