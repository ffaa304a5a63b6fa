"""The index beside a seal: it names every line that it has to, and nothing is lost with it."""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compactor import Ledger
from compactor.core.instants import nanos
from compactor.core.lines import Placed, read_line
from compactor.core.rules import split_event
from compactor.history.lookup import find_histories
from compactor.history.search import Finder
from compactor.ledger import LedgerEntry
from compactor.ledger.errors import SegmentDamaged
from compactor.ledger.files import Files
from compactor.ledger.index import BadIndex, Index, index_name
from compactor.ledger.indexing import (
    Indexes,
    complete_indexes,
    find_instant,
    find_names,
    make_index,
    truncate_to_second,
)
from compactor.ledger.log import open_log
from compactor.ledger.segment_format import Seal
from compactor.ledger.segments import Segments
from tests.disk import Disk
from tests.faults import orders
from tests.test_laws import DIRECTORY, LOG, disk_with, logs
from tests.test_log import log_of

Event = Callable[..., dict[str, Any]]
laws = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def seal_of(log: bytes, cuts: list[int]) -> Seal:
    """A seal over all of a log in frames that begin at these places; only what an index looks at is true."""
    return Seal(
        start=0, end=len(log), lines=0, first_ts=None, last_ts=None, content_sha256="c" * 64, file_sha256="",
        file_bytes=0, previous="", frames=[(cut, 0) for cut in sorted({0, *cuts})],
    )  # fmt: skip


def opened(data: bytes, seal: Seal) -> tuple[Index, Callable[[int, int], bytes]]:
    """An index of these bytes, and what reads it."""

    def read(offset: int, length: int) -> bytes:
        return data[offset : offset + length]

    return Index(read, len(data), seal), read


def whole(log: bytes) -> bytes:
    """A log without its unfinished last line, as what is sealed is."""
    return log[: log.rfind(b"\n") + 1]


@laws
@given(logs(), st.data())
def test_every_line_is_found_by_every_id_in_it(log: bytes, data: st.DataObject) -> None:
    """An index leads to the lines that name an id, wherever frames begin; stretches are whole lines."""
    log = whole(log)
    seal = seal_of(log, data.draw(st.lists(st.integers(0, len(log)), max_size=6)) if log else [])
    index, read = opened(make_index(log_of(log), seal), seal)
    place = 0
    for line in log.splitlines(keepends=True):
        for name in find_names(line[:-1]):
            stretches = index.stretches(name, read)
            assert any(start <= place < stop for start, stop in stretches)
            assert all(start == 0 or log[start - 1 : start] == b"\n" for start, _stop in stretches)
        place += len(line)
    assert [] == index.stretches("nobody", read)


@laws
@given(logs())
def test_all_instants_of_a_segment_lie_within_its_bounds(log: bytes) -> None:
    """What an index says of times holds for every line, where it says that all of them tell theirs."""
    log = whole(log)
    seal = seal_of(log, [])
    header = opened(make_index(log_of(log), seal), seal)[0].header
    for bounds, known in ((header.happened, False), (header.recorded, True)):
        instants = [find_instant(line, known) for line in log.split(b"\n")[:-1]]
        if header.told and instants:
            span = bounds.span_ns()
            assert span is not None
            assert all(instant is not None and span[0] <= instant <= span[1] for instant in instants)


@pytest.mark.parametrize(
    ("text", "second"),
    [
        ("2026-03-02T14:30:00.5Z", "2026-03-02T14:30:00"),
        ("2026-03-02T14:30:00Z", "2026-03-02T14:30:00"),
        ("2026-03-02T09:30:00.999999999-05:00", "2026-03-02T14:30:00"),
        ("2016-12-31T23:59:60.5Z", "2017-01-01T00:00:00"),
        ("2026-02-30T00:00:00Z", None),
        ("0000-01-01T00:00:00Z", None),
        ("noon", None),
        (None, None),
    ],
)
def test_seconds_can_be_compared(text: str | None, second: str | None) -> None:
    """2: instants in any notation by their whole second in UTC."""
    assert second == truncate_to_second(text)
    assert text is None or second is None or nanos(second + "Z") <= nanos(text) < nanos(second + "Z") + 10**9


def test_a_segment_of_many_frames_has_wider_stretches() -> None:
    """A stretch is numbered by one byte: of more than 256 frames several share one."""
    log = orders(0, 400)
    seal = seal_of(log, [place for place in range(len(log)) if log[place - 1 : place] == b"\n"])
    index, read = opened(make_index(log_of(log), seal), seal)
    assert len(seal.frames) > 3 * 256 > 3 * len(index.header.starts) > 256
    for number in range(400):
        assert any(b'"o-%d"' % number in log[start:stop] for start, stop in index.stretches(f"o-{number}", read))


def test_a_line_longer_than_a_frame_is_found(placed: Event) -> None:
    """8.2: frames may end inside a long line; its stretch begins where it does."""
    log = b"".join(json.dumps(placed(name, note="x" * 3000)).encode() + b"\n" for name in ("o1", "o2", "o3"))
    seal = seal_of(log, list(range(0, len(log), 1000)))
    index, read = opened(make_index(log_of(log), seal), seal)
    for name in ("o1", "o2", "o3"):
        [(start, stop)] = index.stretches(name, read)
        assert json.loads(log[start:stop])["order_id"] == name


def test_an_index_of_other_content_is_refused(placed: Event) -> None:
    """It is bound to the content of its segment."""
    log = json.dumps(placed()).encode() + b"\n"
    seal = seal_of(log, [])
    data = make_index(log_of(log), seal)
    assert data == make_index(log_of(log), seal)
    with pytest.raises(BadIndex):
        opened(data, seal_of(log + b"\n", []))
    with pytest.raises(BadIndex):
        opened(data + b"\0", seal)


class TestBesideSeals:
    @pytest.fixture
    def sealed(self, data: Path) -> Path:
        """A ledger sealed in several segments."""
        (data / "events.jsonl").write_bytes(orders(0, 500))
        with Ledger(data) as ledger:
            assert ledger.seal(now=True, segment_bytes=30_000).segments > 3
        return data

    def test_sealing_makes_them_and_the_next_run_completes_them(self, sealed: Path) -> None:
        """One index for each seal; those that are missing are made by the next run that seals, all the same."""
        made = {path.name: path.read_bytes() for path in (sealed / "segments").glob("*.index")}
        segments = Segments(sealed, Files())
        with open_log(sealed, Files(), segments) as log:
            assert [index_name(seal) for seal in segments.seals] == sorted(made)
            next((sealed / "segments").glob("*.index")).unlink()
            complete_indexes(Files(), segments, log)
        assert made == {path.name: path.read_bytes() for path in (sealed / "segments").glob("*.index")}

    def test_history_reads_only_the_segments_that_it_needs(self, sealed: Path) -> None:
        """An order is found without reading the rest: other segments may be unreadable at that moment."""
        kept = sorted((sealed / "segments").glob("*.zst"))[1]
        start = int(kept.name[:20])
        line = orders(0, 500)[start:].split(b"\n", 2)[1]
        for path in (sealed / "segments").glob("*.zst"):
            if path != kept:
                path.write_bytes(b"not looked at")
        order_id = json.loads(line)["order_id"]
        assert 1 == len(find_histories(LedgerEntry(None, sealed), order_id))
        shutil.copy(sorted((sealed / "segments").glob("*.index"))[0], sealed / "other")
        for path in (sealed / "segments").glob("*.index"):
            path.unlink()
        with pytest.raises(SegmentDamaged):
            find_histories(LedgerEntry(None, sealed), order_id)

    def test_where_nothing_can_be_written_an_index_is_made_in_memory(self, sealed: Path) -> None:
        """A reader without the right to write finds the same."""

        class ReadOnly(Files):
            def write_new(self, path: Path, parts: object) -> None:
                raise PermissionError(13, "read-only", str(path))

        for path in (sealed / "segments").glob("*.index"):
            path.unlink()
        found = find_histories(LedgerEntry(None, sealed), "o-7", files=ReadOnly())
        assert ["o-7"] == [one.story.order_id for one in found]
        assert [] == list((sealed / "segments").glob("*.index"))

    def test_a_reader_sees_what_was_sealed_since_it_opened_the_log(self, data: Path) -> None:
        """A search while the daemon seals: what is punched out under it is found in the segments."""
        (data / "events.jsonl").write_bytes(orders(0, 500))
        Ledger(data).compact()
        files = Files()
        segments = Segments(data, files)
        with open_log(data, files, segments) as log:
            finder = Finder(log, segments, files)
            with Ledger(data) as ledger:
                ledger.seal(now=True, segment_bytes=30_000)
            assert [json.loads(line)["order_id"] for _, line in finder.lines("o-3")] == ["o-3"] * 2


def test_an_index_is_small() -> None:
    """A fraction of what the segment was before it was compressed."""
    log = orders(0, 2000)
    assert len(make_index(log_of(log), seal_of(log, []))) < len(log) / 20


@laws
@given(logs(), st.data())
def test_what_is_found_is_what_names_it(log: bytes, data: st.DataObject) -> None:
    """Finding compares every hit with the line: exactly the lines that name an id, in log order."""
    disk = disk_with(log)
    if data.draw(st.booleans()):
        with Ledger(DIRECTORY, files=disk) as ledger:
            ledger.seal(now=True, segment_bytes=data.draw(st.sampled_from([100, 300, 1000])))
        disk.restart()
    segments = Segments(DIRECTORY, disk)
    name = data.draw(st.sampled_from(["o-1", "o-2", "o-1l", "x-1", "c-1", "o-", "new", ""]))
    expected, place = [], 0
    for line in whole(log).splitlines(keepends=True):
        if name and name in find_names(line[:-1]):
            expected.append((place, line[:-1]))
        place += len(line)
    with open_log(DIRECTORY, disk, segments) as opened_log:
        assert expected == Finder(opened_log, segments, disk).lines(name)


@laws
@given(logs(), st.data())
def test_ids_that_are_searched_for_together_are_found_as_each_alone(log: bytes, data: st.DataObject) -> None:
    """A line is read once for all of them, and belongs to each that it names, in log order."""
    disk = disk_with(log)
    if data.draw(st.booleans()):
        with Ledger(DIRECTORY, files=disk) as ledger:
            ledger.seal(now=True, segment_bytes=data.draw(st.sampled_from([100, 300, 1000])))
        disk.put(LOG, log + data.draw(st.sampled_from([b"", log])))
        disk.restart()
    segments = Segments(DIRECTORY, disk)
    names = data.draw(st.lists(st.sampled_from(["o-1", "o-2", "o-1l", "x-1", "c-1", "o-", "new", "\xe9", ""])))
    with open_log(DIRECTORY, disk, segments) as opened_log:
        finder = Finder(opened_log, segments, disk)
        together = finder.find_pieces(names, "default")
        assert {name: finder.find_pieces([name], "default")[name] for name in names} == together


@laws
@given(logs(), st.data())
def test_a_fold_gets_its_old_lines_through_the_indexes(log: bytes, data: st.DataObject) -> None:
    """6.2: what is read back of an order through the indexes has the events that reading all of the range has."""
    disk = disk_with(log)
    with Ledger(DIRECTORY, files=disk) as ledger:
        ledger.seal(now=True, segment_bytes=data.draw(st.sampled_from([100, 300, 1000])))
    disk.put(LOG, log + data.draw(st.sampled_from([b"", log])))
    disk.restart()
    segments = Segments(DIRECTORY, disk)
    name = data.draw(st.sampled_from(["o-1", "o-2", "o-3", "o-1l"]))

    def events(lines: Iterable[tuple[int, bytes]], first: int, end: int) -> list[int]:
        pieces = [piece for offset, line in lines for piece in read_line(line, offset)]
        placed = [piece for piece in pieces if isinstance(piece, Placed) and first <= piece.offset < end]
        return [one.offset for one in placed if name in {part.order_id for part in split_event(one.event)}]

    with open_log(DIRECTORY, disk, segments) as opened_log:
        finder = Finder(opened_log, segments, disk)
        starts = events(finder.lines(name), 0, 1 << 40)
        first = data.draw(st.sampled_from([0, *starts]))
        end = data.draw(st.sampled_from([1, *(one + 1 for one in starts)]))
        if first < end:
            expected = events(opened_log.lines_naming(name, first, end), first, end)
            assert expected == events(finder.recall(name, first, end), first, end)


def test_indexes_are_read_as_they_are_needed() -> None:
    """Bounds of all segments cost a header each."""
    disk = Disk()
    disk.put(LOG, orders(0, 300))
    with Ledger(DIRECTORY, files=disk) as ledger:
        ledger.seal(now=True, segment_bytes=30_000)
    segments = Segments(DIRECTORY, disk)
    with open_log(DIRECTORY, disk, segments) as log:
        disk.restart()
        indexes = Indexes(log, segments, disk)
        for _ in range(2):
            assert all(indexes.header(seal).starts for seal in segments.seals)
        assert disk.calls <= 3 * len(segments.seals)
