"""Sealed segments as they are read: any range, across every boundary, and nothing that does not match its seal."""

import os
import shutil
import sys
import time
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compactor import Ledger, SegmentDamaged
from compactor.ledger import segments as segments_module
from compactor.ledger.compaction import Compactor
from compactor.ledger.files import Files, Reader
from compactor.ledger.log import open_log
from compactor.ledger.seal import Sealer
from compactor.ledger.segment_format import (
    BadFrame,
    Seal,
    check_file,
    decode_frame,
    decode_seal,
    encode_frame,
    encode_seal,
    find_bad_frame,
    seal_name,
)
from compactor.ledger.segments import Segments
from tests.cases import LOG, read_derived
from tests.disk import Disk
from tests.faults import orders
from tests.test_system_calls import opened

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DIRECTORY = Path("/ledger")
RAW = orders(0, 500)


def segments_of(raw: bytes, frame_bytes: int, segment_bytes: int, tail: bytes = b"") -> tuple[Disk, Segments]:
    """A ledger on a disk in memory whose log is sealed in segments and frames of these sizes, and then grows."""
    disk = Disk()
    disk.put(DIRECTORY / LOG, raw)
    compactor = Compactor(DIRECTORY, None, None, disk)
    sealer = Sealer(compactor, disk)
    sealer.run(
        segment_bytes=segment_bytes,
        segment_age=timedelta(),
        reclaim="punch",
        now=True,
        at=None,
        frame_bytes=frame_bytes,
    )
    disk.put(DIRECTORY / LOG, (disk.take(DIRECTORY / LOG) or b"") + tail)
    segments = Segments(DIRECTORY, disk)
    segments.refresh()
    return disk, segments


@pytest.fixture
def sealed(data: Path) -> Path:
    """A ledger on a real disk, sealed in four segments and punched."""
    (data / LOG).write_bytes(RAW)
    with Ledger(data) as ledger:
        assert 4 == ledger.seal(now=True, segment_bytes=50_000).segments
    return data


def files_in(path: Path, kind: str) -> list[Path]:
    """The segments (`zst`) or seals (`json`) of a ledger, in the order of the log."""
    return sorted((path / "segments").glob(f"*.{kind}"))


def refused(path: Path, match: str) -> None:
    """A refold from nothing and a `cat` are refused with a message, and every file stays as it is."""
    shutil.rmtree(path / ".state", ignore_errors=True)
    kept = {one: one.read_bytes() for one in path.rglob("*") if one.is_file() and ".state" not in one.parts}
    with pytest.raises(SegmentDamaged, match=match) as raised:
        Ledger(path).compact()
    assert raised.value.path.is_relative_to(path)
    assert "backup" in str(raised.value)
    with pytest.raises(SegmentDamaged, match=match):
        b"".join(Ledger(path).cat())
    assert kept == {one: one.read_bytes() for one in path.rglob("*") if one.is_file() and ".state" not in one.parts}


class TestReading:
    """One sequence of bytes."""

    def test_every_range_is_read_across_every_boundary(self) -> None:
        """8.4: frames and segments are invisible, also where a frame cuts inside a long line."""
        raw = b"a\n\nbcd\n" + b"x" * 23 + b"\nef\n" + b"y" * 9 + b"\n"
        tail = b"not sealed\nunfinished"
        disk, segments = segments_of(raw, frame_bytes=7, segment_bytes=16, tail=tail)
        assert len(segments.seals) > 2
        assert max(len(seal.frames) for seal in segments.seals) > 2
        whole = raw + tail
        with open_log(DIRECTORY, disk, segments) as log:
            for offset in range(len(whole) + 1):
                for length in range(len(whole) + 2 - offset):
                    assert whole[offset : offset + length] == log.read(offset, length)

    @settings(deadline=None, max_examples=60)
    @given(
        st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"") + b"\n"), min_size=1, max_size=20),
        st.integers(1, 100), st.integers(1, 300), st.data(),
    )  # fmt: skip
    def test_any_log_is_read_as_it_was(
        self, lines: list[bytes], frame_bytes: int, segment_bytes: int, data: st.DataObject
    ) -> None:
        """8.4: whatever stands in the lines, and however they fall into frames and segments."""
        raw = b"".join(lines)
        disk, segments = segments_of(raw, frame_bytes, segment_bytes)
        assert (len(raw), raw) == (segments.sealed_end, segments.read(0, len(raw)))
        for _ in range(5):
            offset = data.draw(st.integers(0, len(raw)))
            length = data.draw(st.integers(0, len(raw) - offset))
            assert raw[offset : offset + length] == segments.read(offset, length)
        for seal in segments.seals:
            content = raw[seal.start : seal.end]
            assert (content.count(b"\n"), b"\n") == (seal.lines, content[-1:])
            assert content == b"".join(piece.data for piece in segments.pieces(seal))
            assert content == zstd.decompress(disk.take(DIRECTORY / "segments" / seal.name) or b"")

    def test_a_seal_says_what_its_segment_holds(self, sealed: Path) -> None:
        """8.2: range, lines, first and last `ts`, and the seal before it."""
        previous = ""
        for path in files_in(sealed, "json"):
            seal = decode_seal(path.read_bytes(), path)
            content = RAW[seal.start : seal.end]
            events = [line for line in content.splitlines() if line.endswith(b"}")]
            first, last = (msgspec.json.decode(events[place])["ts"] for place in (0, -1))
            assert (first, last, previous) == (seal.first_ts, seal.last_ts, seal.previous)
            assert sha256(content).hexdigest() == seal.content_sha256
            previous = sha256(path.read_bytes()).hexdigest()
        assert seal.end == len(RAW)

    def test_a_ledger_without_segments_is_asked_once_a_pass(self, data: Path) -> None:
        """8.4: opening costs one look at the directory; its names are read only when it changed."""
        asked: list[str] = []

        class Asked(Files):
            def names(self, path: Path) -> list[str]:
                if path.name != "points":
                    asked.append(path.name)
                return super().names(path)

        (data / LOG).write_bytes(RAW)
        with Ledger(data, files=Asked()) as ledger:
            ledger.compact()
            assert [] == asked
            Ledger(data).seal(now=True, segment_bytes=50_000)
            os.utime(data / "segments", ns=(1, 1))
            for _ in range(3):
                ledger.compact()
        assert ["segments"] == asked

    def test_a_seal_that_came_within_a_tick_of_the_clock_is_seen(self, data: Path) -> None:
        """8.4: a directory that changed a moment ago may change again without its time telling."""

        class Ticking(Files):
            moment = time.time_ns() + (1 << 40)

            def changed(self, path: Path) -> int | None:
                return self.moment if path.exists() else None

        segments = Segments(data, Ticking())
        for place in (60_000, 120_000):
            (data / LOG).write_bytes(RAW[: RAW.index(b"\n", place) + 1])
            Ledger(data).seal(now=True, reclaim="never")
            segments.refresh()
            assert len((data / LOG).read_bytes()) == segments.sealed_end


class TestDamage:
    """A segment that does not match its seal is never skipped."""

    def test_any_byte_of_a_seal_may_be_wrong(self, sealed: Path) -> None:
        """8.4: the seal's own digest covers every byte of it."""
        path = files_in(sealed, "json")[0]
        good = path.read_bytes()
        assert decode_seal(good, path).end > 0
        for place in range(len(good)):
            for bad in (good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :], good[:place]):
                with pytest.raises(SegmentDamaged):
                    decode_seal(bad, path)

    def test_a_seal_of_another_format_is_left_to_the_version_that_wrote_it(self, sealed: Path) -> None:
        """8.4: its digest is right, and what it says is not known here."""
        path = files_in(sealed, "json")[0]
        seal = decode_seal(path.read_bytes(), path)
        seal = msgspec.structs.replace(seal, format=seal.format + 1)
        with pytest.raises(SegmentDamaged, match=f"found format {seal.format}: a newer version wrote it"):
            decode_seal(encode_seal(seal), path)

    def test_any_byte_of_a_segment_may_be_wrong(self) -> None:
        """8.4: the file is compared with the seal when it is first used."""
        raw = orders(0, 5)
        disk, segments = segments_of(raw, frame_bytes=200, segment_bytes=1 << 20)
        path = DIRECTORY / "segments" / segments.seals[0].name
        good = disk.take(path) or b""
        for place in range(len(good)):
            disk.put(path, good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
            fresh = Segments(DIRECTORY, disk)
            fresh.refresh()
            with pytest.raises(SegmentDamaged):
                fresh.read(0, 1)

    def test_a_frame_that_goes_bad_later_is_found_too(self) -> None:
        """8.4: the frame's own checksum is compared whenever it is read."""
        disk, segments = segments_of(orders(0, 50), frame_bytes=1000, segment_bytes=1 << 20)
        segments.read(0, 1)
        seal = segments.seals[0]
        path = DIRECTORY / "segments" / seal.name
        place = seal.frames[1][1] + 100
        good = disk.take(path) or b""
        disk.put(path, good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
        with pytest.raises(SegmentDamaged, match=f"at byte {seal.frames[1][1]}"):
            segments.read(seal.frames[1][0], 1)

    def test_a_damaged_segment_stops_the_reading_of_history(self, sealed: Path) -> None:
        """8.4: one wrong bit, and what was derived stays as it was."""
        segment = files_in(sealed, "zst")[2]
        good = segment.read_bytes()
        segment.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        refused(sealed, "expected a segment with SHA-256")
        segment.write_bytes(good)
        before = read_derived(sealed)
        Ledger(sealed).compact()
        assert before == read_derived(sealed)

    @pytest.mark.parametrize("number", range(4))
    def test_a_missing_segment_stops_the_ledger(self, sealed: Path, number: int) -> None:
        """8.4: its seal says that it was there."""
        files_in(sealed, "zst")[number].unlink()
        refused(sealed, "expected the segment of its seal, found no such file")

    @pytest.mark.parametrize(
        ("number", "match"),
        [
            (0, "a segment is missing"),
            (1, "a segment is missing"),
            (3, "or seals beyond: found none"),
        ],
    )
    def test_a_missing_seal_stops_the_ledger(self, sealed: Path, number: int, match: str) -> None:
        """8.4: seals follow each other without a gap, and the log shows where they have to end."""
        files_in(sealed, "json")[number].unlink()
        refused(sealed, match)

    def test_a_log_whose_segments_are_all_gone_is_not_folded_as_nuls(self, sealed: Path) -> None:
        """8.4: the hole at its beginning says that it was sealed."""
        shutil.rmtree(sealed / "segments")
        refused(sealed, "found none")
        with pytest.raises(SegmentDamaged), Ledger(sealed) as ledger:
            ledger.seal(now=True)

    def test_segments_without_any_seal_are_not_replaced(self, sealed: Path) -> None:
        """8.3: they may be all that is left of their range, and the checkpoint alone does not tell."""
        for path in files_in(sealed, "json"):
            path.unlink()
        before = {path: path.read_bytes() for path in files_in(sealed, "zst")}
        with pytest.raises(SegmentDamaged), Ledger(sealed) as ledger:
            ledger.seal(now=True, segment_bytes=50_000)
        assert before == {path: path.read_bytes() for path in files_in(sealed, "zst")}

    def test_a_segment_whose_seal_is_gone_is_not_replaced(self, sealed: Path) -> None:
        """8.3: it may be all that is left of its range."""
        files_in(sealed, "json")[3].unlink()
        before = {path: path.read_bytes() for path in files_in(sealed, "zst")}
        with pytest.raises(SegmentDamaged), Ledger(sealed) as ledger:
            ledger.seal(now=True, segment_bytes=50_000)
        assert before == {path: path.read_bytes() for path in files_in(sealed, "zst")}

    def test_a_seal_that_belongs_to_another_history_is_refused(self, sealed: Path) -> None:
        """8.2: each seal names the digest of the one before it."""
        path = files_in(sealed, "json")[1]
        seal = decode_seal(path.read_bytes(), path)
        path.write_bytes(encode_seal(msgspec.structs.replace(seal, lines=seal.lines + 1)))
        refused(sealed, "a seal before it is missing, or another one")

    def test_a_seal_that_leaves_a_gap_is_refused(self, sealed: Path) -> None:
        """8.2: it names the digest of the one before it, and begins behind the end of that."""
        path = files_in(sealed, "json")[-1]
        seal = decode_seal(path.read_bytes(), path)
        later = path.with_name(path.name.replace(f"{seal.start:020d}", f"{seal.start + 1:020d}"))
        path.unlink()
        later.write_bytes(encode_seal(msgspec.structs.replace(seal, start=seal.start + 1)))
        refused(sealed, f"expected the seal that follows offset {seal.start}, found one from {seal.start + 1}")

    def test_a_log_that_is_shorter_than_its_segments_is_refused(self, sealed: Path) -> None:
        """8.4: a log out of an older backup than its segments."""
        os.truncate(sealed / LOG, len(RAW) - 200)
        refused(sealed, "expected a log of at least")

    def test_status_names_the_damage(self, sealed: Path) -> None:
        """How a ledger is, is not said where its history has a gap."""
        files_in(sealed, "zst")[0].unlink()
        with pytest.raises(SegmentDamaged):
            Ledger(sealed).status()

    def test_a_newer_format_is_refused(self, sealed: Path) -> None:
        """8.2: a seal says its format."""
        path = files_in(sealed, "json")[0]
        seal = decode_seal(path.read_bytes(), path)
        with pytest.raises(SegmentDamaged, match="found format 2"):
            decode_seal(encode_seal(msgspec.structs.replace(seal, format=2)), path)

    def test_a_seal_under_the_name_of_another_is_refused(self, data: Path) -> None:
        """8.4: the name says the range, and the seal has to agree."""
        (data / LOG).write_bytes(RAW)
        Ledger(data).seal(now=True)
        (path,) = files_in(data, "json")
        path.rename(path.with_name(path.name.replace(f"{len(RAW):020d}", f"{len(RAW) + 1:020d}")))
        refused(data, f"expected the seal of this name, found that of 0 to {len(RAW)}")

    def test_a_seal_that_says_something_else_than_a_seal_does_is_refused(self, sealed: Path) -> None:
        """8.4: its own digest is right, and a field is not, or the tree does not follow from its peaks."""
        path = files_in(sealed, "json")[0]
        seal = decode_seal(path.read_bytes(), path)
        odd = encode_seal(msgspec.structs.replace(seal, lines="many"))
        with pytest.raises(SegmentDamaged, match="expected a seal of format 1, found another"):
            decode_seal(odd, path)
        assert seal.tree is not None
        tree = msgspec.structs.replace(seal.tree, root="0" * 64)
        with pytest.raises(SegmentDamaged, match="expected a tree whose root follows from its peaks"):
            decode_seal(encode_seal(msgspec.structs.replace(seal, tree=tree)), path)


class TestFrames:
    """One frame."""

    @given(st.binary(max_size=300))
    def test_a_frame_gives_back_its_piece(self, piece: bytes) -> None:
        """8.2: compressed and back."""
        assert piece == decode_frame(encode_frame(piece), len(piece))

    @pytest.mark.parametrize("length", [0, 99, 101])
    def test_a_frame_of_another_length_is_refused(self, length: int) -> None:
        """8.2: no more is decompressed than the seal says there is."""
        with pytest.raises(BadFrame):
            decode_frame(encode_frame(b"x" * 100), length)

    def test_a_frame_that_is_read_again_is_not_decoded_again(self, sealed: Path) -> None:
        """Also by another reader, once this one has forgotten it; where its bytes are others they are checked."""
        decode_frame.cache_clear()
        for _ in range(3):
            segments = Segments(sealed, Files())
            segments.refresh()
            for offset in (0, segments.seals[1].start, 5):
                assert RAW[offset : offset + 10] == segments.read(offset, 10)
            segments.release()
        assert (2, 7) == (decode_frame.cache_info().misses, decode_frame.cache_info().hits)

    def test_two_frames_are_not_one(self) -> None:
        """8.2: what stands behind a frame is not passed over."""
        with pytest.raises(BadFrame):
            decode_frame(encode_frame(b"x") + encode_frame(b"y"), 1)

    def test_a_frame_without_its_checksum_is_not_whole(self) -> None:
        """8.2: all of its bytes are there, and nothing says that they are the right ones."""
        for cut in range(1, 5):
            with pytest.raises(BadFrame, match="expected one whole frame"):
                decode_frame(encode_frame(b"x" * 100)[:-cut], 100)

    @pytest.mark.parametrize("window_log", [23, 27])
    def test_a_frame_with_a_larger_window_than_any_frame_needs_is_refused(self, window_log: int) -> None:
        """8.2: a header that asks for a window of 128 MiB costs no memory."""
        window: dict[int, int] = {
            zstd.CompressionParameter.window_log: window_log,
            zstd.CompressionParameter.content_size_flag: 0,
        }
        compressor = zstd.ZstdCompressor(options=window)
        frame = compressor.compress(b"x" * 1000) + compressor.flush()
        with pytest.raises(BadFrame, match="cannot be decompressed"):
            decode_frame(frame, 1000)


FORGED = [
    pytest.param([(0, 0)], 3 << 30, 100, id="a frame of three gigabytes"),
    pytest.param([(0, 0)], 100, 3 << 30, id="a frame that takes three gigabytes"),
    pytest.param([(0, 0), (50, 10), (20, 30)], 100, 100, id="frames in no order"),
    pytest.param([(0, 0), (50, 40), (60, 30)], 100, 100, id="frames in no order in the file"),
    pytest.param([(0, 0), (0, 0)], 100, 100, id="a frame of nothing"),
    pytest.param([(5, 0)], 100, 100, id="no first frame"),
    pytest.param([], 100, 100, id="no frame"),
    pytest.param([(0, 0), (120, 50)], 100, 100, id="a frame behind the end"),
]


@pytest.mark.parametrize(("frames", "end", "file_bytes"), FORGED)
def test_a_forged_seal_costs_no_memory_and_no_time(
    frames: list[tuple[int, int]], end: int, file_bytes: int, sealed: Path
) -> None:
    """8.2: frames that cannot be are refused before anything is read, by whoever opens the ledger."""
    for path in files_in(sealed, "json")[1:]:
        path.unlink()
    first = files_in(sealed, "json")[0]
    seal = msgspec.structs.replace(decode_seal(first.read_bytes(), first), frames=frames, end=end)
    first.unlink()
    forged = encode_seal(msgspec.structs.replace(seal, file_bytes=file_bytes))
    (sealed / "segments" / seal_name(seal.name)).write_bytes(forged)
    with pytest.raises(SegmentDamaged, match="expected frame"):
        Ledger(sealed).compact()
    with pytest.raises(SegmentDamaged, match="expected frame"):
        b"".join(Ledger(sealed).cat())


def test_a_seal_is_read_as_it_was_written() -> None:
    """8.2: encoded and back; absent times are null."""
    seal = Seal(
        start=5, end=9, lines=1, first_ts=None, last_ts=None, content_sha256="a", file_sha256="b", file_bytes=3,
        previous="c", frames=[(0, 0), (2, 1)],
    )  # fmt: skip
    assert seal == decode_seal(encode_seal(seal), Path("seal"))


def test_nuls_behind_what_is_sealed_are_bytes_of_the_log(sealed: Path) -> None:
    """8.4: looked up in the seals, and believed: a writer's disk has left them there."""
    with (sealed / LOG).open("ab") as log:
        log.write(b"\0\0\n\0\n")
    for start in range(len(RAW) - 2, len(RAW) + 5):
        assert (RAW + b"\0\0\n\0\n")[start:] == b"".join(Ledger(sealed).cat(start))
    assert 2 == Ledger(sealed).compact().findings - RAW.count(b'{"event":"fil\n')


def test_a_piece_is_decoded_once_for_the_reads_in_it(sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its first byte to its last; the next piece is another one."""
    segments, decoded = Segments(sealed, Files()), list[int]()
    segments.refresh()
    real = segments._piece_at

    def decode(offset: int) -> Any:
        piece = real(offset)
        decoded.append(piece.start)
        return piece

    monkeypatch.setattr(segments, "_piece_at", decode)
    first = real(0)
    for offset in (0, 1, 0, len(first.data) - 1, 0):
        assert RAW[offset : offset + 1] == segments.read(offset, 1)
    assert [0] == decoded
    assert RAW[len(first.data) : len(first.data) + 5] == segments.read(len(first.data), 5)
    assert [0, len(first.data)] == decoded


class TestOnce:
    """What was compared is not compared again while nothing changed, and what changed is."""

    @pytest.fixture
    def checked(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The segments whose whole file is compared with their seals from here on."""
        found: list[str] = []

        def check(path: Path, seal: Seal, reader: Reader) -> None:
            found.append(path.name)
            check_file(path, seal, reader)

        monkeypatch.setattr(segments_module, "check_file", check)
        return found

    def test_a_file_is_compared_when_it_is_first_used(self, sealed: Path, checked: list[str]) -> None:
        """8.4: again when another file lies there, or when it is asked for whole."""
        segments = Segments(sealed, Files())
        segments.refresh()
        one, two = segments.seals[:2]
        for _ in range(2):
            assert RAW[:10] == segments.read(0, 10)
            assert RAW[two.start : two.start + 10] == segments.read(two.start, 10)
        assert [one.name, two.name] == checked
        assert RAW[: one.end] == b"".join(piece.data for piece in segments.pieces(one))
        assert [one.name, two.name, one.name] == checked
        path = sealed / "segments" / one.name
        shutil.copy(path, path.with_name("copy"))
        path.with_name("copy").rename(path)
        segments.release()
        segments.read(0, 10)
        assert [one.name, two.name, one.name, one.name] == checked
        segments.release()

    def test_what_was_read_last_is_forgotten_with_its_file(self, sealed: Path) -> None:
        """After a release nothing of a segment is open, and nothing of it is served from memory."""
        before = opened()
        segments = Segments(sealed, Files())
        segments.refresh()
        assert RAW[:10] == segments.read(0, 10)
        assert len(opened()) == len(before) + 1
        segments.release()
        assert before == opened()
        path = sealed / "segments" / segments.seals[0].name
        with path.open("r+b") as file:
            file.seek(100)
            file.write(bytes([path.read_bytes()[100] ^ 1]))
        with pytest.raises(SegmentDamaged, match="at byte 0 found"):
            segments.read(0, 10)
        segments.release()
        path.unlink()
        with pytest.raises(SegmentDamaged, match="expected the segment of its seal, found no such file"):
            segments.read(0, 10)
        assert before == opened()

    def test_the_end_of_an_old_seal_is_compared_once(self, sealed: Path) -> None:
        """8.2: seals of 0.1.0 do not tell it, so that the last frame is read; again for another log."""
        read: list[str] = []

        class Noting(Files):
            """Notes which segments are opened."""

            def open(self, path: Path) -> Reader:
                read.append(path.suffix)
                return super().open(path)

        strip_names(sealed)
        segments, files = Segments(sealed, Noting()), Noting()
        for _ in range(3):
            with open_log(sealed, files, segments):
                pass
        assert 1 == read.count(".zst")
        (sealed / LOG).rename(sealed / "aside")
        shutil.copy(sealed / "aside", sealed / LOG)
        with open_log(sealed, files, segments):
            assert 2 == read.count(".zst")

    def test_a_short_last_segment_is_compared_whole(self, data: Path) -> None:
        """8.2: the last 4 KiB of the range, or all of it where it is shorter."""
        for end in (400, 410):
            (data / LOG).write_bytes(orders(0, end))
            with Ledger(data) as ledger:
                ledger.seal(now=True, reclaim="never")
        for strip in (False, True):
            if strip:
                strip_names(data)
            Ledger(data).status()
            raw = (data / LOG).read_bytes()
            start = Segments(data, Files())
            start.refresh()
            first = start.seals[-1].start
            assert len(raw) - first < 4096
            for at, is_refused in ((first, True), (first - 1 - len(b"}"), False)):
                (data / LOG).write_bytes(raw[:at] + b" " + raw[at + 1 :])
                if is_refused:
                    with pytest.raises(SegmentDamaged, match="it belongs to another log"):
                        Ledger(data).status()
                else:
                    start.check_log(data / LOG, Files().open(data / LOG))
            (data / LOG).write_bytes(raw)

    def test_names_that_come_while_they_are_listed_are_looked_for_again(self, sealed: Path) -> None:
        """8.4: a list of names that changes meanwhile may lack some; what is missing twice is missing."""

        class Late(Files):
            """Lists no segment the first time."""

            lists = 0

            def names(self, path: Path) -> list[str]:
                self.lists += 1
                return [name for name in super().names(path) if self.lists > 1 or not name.endswith(".zst")]

        segments = Segments(sealed, Late())
        assert segments.refresh()
        assert len(RAW) == segments.sealed_end
        assert [segments.seals[number:] for number in range(4)] == [
            segments.seals_from(seal.start) for seal in segments.seals
        ]
        assert segments.seals[:1] + segments.seals[1:] == segments.seals_from(segments.seals[0].end - 1)
        assert [] == Segments(sealed, Files()).seals_from(0)

    def test_a_seal_that_was_just_made_is_known(self, data: Path) -> None:
        """With its digest and the id of the ledger, as if all were read again."""
        (data / LOG).write_bytes(RAW)
        with Ledger(data) as ledger:
            ledger.seal(now=True, segment_bytes=50_000)
            known = ledger._compactor.segments
            fresh = Segments(data, Files())
            fresh.refresh()
            assert (fresh.seals, fresh.last_digest, fresh.ledger_id) == (
                known.seals, known.last_digest, known.ledger_id,
            )  # fmt: skip
            with (data / LOG).open("ab") as log:
                log.write(orders(500, 700))
            ledger.seal(now=True)
            assert len(known.seals) == len(fresh.seals) + 1 == ledger.segments
            assert RAW + orders(500, 700) == b"".join(ledger.cat())
            for seal in known.seals:
                assert seal == known.seals_from(seal.start)[0] == known.seals_from(seal.end - 1)[0]


@pytest.mark.parametrize(
    ("frames", "content", "file_bytes", "bad"),
    [
        ([(0, 0)], 1 << 22, 100, None), ([(0, 0)], (1 << 22) + 1, 100, 0), ([(0, 0)], 1, 1, None),
        ([(0, 0)], 0, 1, 0), ([(0, 0)], 1, 0, 0), ([(0, 0), (10, 5)], 11, 6, None), ([(0, 0), (10, 5)], 10, 6, 1),
        ([(0, 0), (10, 5)], 11, 5, 1), ([(0, 0)], 1, (1 << 22) + (1 << 16), None),
        ([(0, 0)], 1, (1 << 22) + (1 << 16) + 1, 0),
    ],
)  # fmt: skip
def test_a_frame_has_from_one_byte_up_to_4_mib(
    frames: list[tuple[int, int]], content: int, file_bytes: int, bad: int | None
) -> None:
    """8.2: in the log and in the file; the first that cannot be is named."""
    found = find_bad_frame(frames, content, file_bytes)
    assert (found is None) == (bad is None)
    assert bad is None or f"expected frame {bad} to hold" in str(found)


def strip_names(ledger: Path) -> None:
    """Make the seals such as 0.1.0 wrote them: no team, no id of the ledger, no digest of the end."""
    previous = ""
    for path in files_in(ledger, "json"):
        seal = decode_seal(path.read_bytes(), path)
        seal = msgspec.structs.replace(seal, previous=previous, team_id=None, ledger_id=None, tail_sha256=None)
        path.write_bytes(encode_seal(seal))
        previous = sha256(path.read_bytes()).hexdigest()
