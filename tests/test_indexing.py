"""What names an id in a line, when a line happened, and what an index says of a segment."""

import json
from pathlib import Path
from typing import Any

import pytest

from compactor import Ledger, SegmentDamaged
from compactor.core.events import LINE_BYTES_MAX
from compactor.core.instants import nanos
from compactor.ledger import index
from compactor.ledger.checkpoint import checksum
from compactor.ledger.files import Files, Reader
from compactor.ledger.index import BadIndex, Bounds, Index, encode_index, encode_names, index_name
from compactor.ledger.indexing import (
    Indexes,
    complete_indexes,
    find_instant,
    find_names,
    first_team,
    make_index,
    truncate_to_second,
)
from compactor.ledger.log import open_log
from compactor.ledger.segments import Segments
from tests.cases import LOG
from tests.faults import orders
from tests.test_index import opened, seal_of
from tests.test_log import log_of
from tests.test_system_calls import opened as open_files

TS = "2026-03-02T10:00:00Z"
SECOND = nanos(TS)


def line_of(**fields: Any) -> bytes:
    return json.dumps({"event": "new", "order_id": "o", "ts": TS, **fields}).encode()


class TestNames:
    @pytest.mark.parametrize(
        ("fields", "more"),
        [
            ({}, set()),
            ({name: name for name in (
                "client_order_id", "broker_order_id", "execution_id", "previous_execution_id", "replaces",
                "replaced_by", "parent_order_id",
            )}, {
                "client_order_id", "broker_order_id", "execution_id", "previous_execution_id", "replaces",
                "replaced_by", "parent_order_id",
            }),
            ({"group_id": "g", "symbol": "SPY", "execution_id": ""}, set()),
            ({"legs": ["l-1", "", 5, None]}, {"l-1"}),
            ({"legs": [{"id": "l-1", "order_id": "l-2", "client_order_id": "l-3", "execution_id": "l-4"}]},
             {"l-1", "l-2", "l-3", "l-4"}),
            ({"legs": {"id": "l-1"}}, set()),
        ],
    )  # fmt: skip
    def test_a_line_names_its_order_and_what_belongs_to_it(self, fields: dict[str, Any], more: set[str]) -> None:
        """Ids alone, in legs too; and an index leads to the line by each of them."""
        line = line_of(**fields)
        assert {"o", *more} == find_names(line)
        seal = seal_of(line + b"\n", [])
        found, read = opened(make_index(log_of(line + b"\n"), seal), seal)
        assert all([(0, len(line) + 1)] == found.stretches(name, read) for name in find_names(line))

    def test_damage_hides_no_event(self) -> None:
        """What is quoted in a line that cannot be read may be an id, and so may what its events say with escapes."""
        torn = b'{"event":"fil' + line_of(client_order_id="c-1")[:-1] + b',"broker_order_id":"\\u0062-1"}'
        assert {"o", "c-1", "b-1"} <= find_names(torn)
        deep = b'{"event":"new","order_id":"deep","raw":' + b"[" * 100
        assert "deep" in find_names(deep)
        closed = line_of(order_id="deep", raw=1).replace(b"1}", b"[" * 100 + b"]" * 100 + b"}")
        assert ({"deep", "new", "raw"} <= find_names(closed), None) == (True, find_instant(closed, False))
        placed = b"torn" + line_of(legs=["l-9"]).replace(b"l-9", b"\\u006c-9")
        assert {"o", "l-9"} <= find_names(placed)
        leg = {"order_id": "l-1", "execution_id": "x-1", "symbol": "S", "side": "buy", "qty": "1", "price": "1"}
        fused = b"torn" + line_of(event="fill", legs=[leg]).replace(b'"l-1"', b'"\\u006c-1"').replace(
            b'"x-1"', b'"\\u0078-1"'
        )
        assert {"o", "l-1", "x-1"} <= find_names(fused)
        for line in (torn, closed, placed, fused):
            data = line_of() + b"\n" + line + b"\n"
            seal = seal_of(data, [])
            found, read = opened(make_index(log_of(data), seal), seal)
            assert all(found.stretches(name, read) for name in find_names(line))


class TestInstants:
    @pytest.mark.parametrize(
        ("fields", "happened", "recorded"),
        [
            ({}, SECOND, SECOND),
            ({"recorded_at": "2026-03-02T10:00:01.000000001Z"}, SECOND, SECOND + 10**9 + 1),
            ({"recorded_at": "noon"}, SECOND, None),
            ({"ts": None}, None, None),
            ({"ts": "noon"}, None, None),
        ],
    )
    def test_a_line_happened_by_its_ts_and_was_recorded_by_its_own_time(
        self, fields: dict[str, Any], happened: int | None, recorded: int | None
    ) -> None:
        """To the nanosecond; without `recorded_at` by its `ts`."""
        line = line_of(**fields)
        assert (happened, recorded) == (find_instant(line, False), find_instant(line, True))

    def test_of_fused_events_the_latest_counts(self) -> None:
        """With `recorded_at` to the microsecond, which is what an event keeps of it."""
        early, late = line_of(), line_of(ts="2026-03-02T10:00:05Z", recorded_at="2026-03-02T10:00:06.000001Z")
        for fused in (early + late, late + early):
            assert (SECOND + 5 * 10**9, SECOND + 6 * 10**9 + 1000) == (
                find_instant(fused, False), find_instant(fused, True),
            )  # fmt: skip
        assert None is find_instant(b"nothing", True)

    @pytest.mark.parametrize(
        "day", ["2026-03-29", "1900-01-01", "2261-12-31", "2262-01-01", "1899-12-31", "2024-02-29"]
    )
    @pytest.mark.parametrize("rest", ["T23:59:59Z", "T00:00:00.123456789Z", "T24:00:00Z", "T10:60:00Z", "T23:59:60Z"])
    def test_a_second_is_that_of_the_format(self, day: str, rest: str) -> None:
        """2: whatever the short way takes, the thorough one does too, to the same second."""
        try:
            expected = nanos(day + rest)
        except ValueError:
            assert None is truncate_to_second(day + rest)
        else:
            found = truncate_to_second(day + rest)
            assert found is not None and nanos(found + "Z") == expected // 10**9 * 10**9


class TestTeam:
    @pytest.mark.parametrize(
        ("lines", "expected"),
        [
            ([line_of(), line_of(team_id="alpha"), line_of(team_id="bravo")], ("alpha", 1)),
            ([b"", b"torn" + line_of(team_id="alpha")], ("alpha", 1)),
            ([line_of(), b"torn" + line_of(team_id="alpha")], ("alpha", 1)),
            ([line_of(), line_of(team_id="alpha").replace(b"team_id", b"\\u0074eam_id")], ("alpha", 1)),
            ([line_of(), line_of(team_id=None)], None),
            ([line_of()], None),
        ],
    )
    def test_the_first_event_with_a_team_names_the_ledger(
        self, lines: list[bytes], expected: tuple[str, int] | None
    ) -> None:
        """1.2: and where that event stands, behind a fragment in its line too."""
        data = b"".join(line + b"\n" for line in lines)
        at = None
        if expected is not None:
            line = lines[expected[1]]
            at = (expected[0], 7 + data.index(line) + (4 if line.startswith(b"torn") else 0))
        assert at == first_team(data, 7)
        seal = seal_of(data, [len(lines[0]) + 1, len(lines[0] + lines[1]) + 2] if len(lines) > 2 else [])
        header = opened(make_index(log_of(data), seal), seal)[0].header
        assert (None if at is None else (at[0], at[1] - 7)) == header.team


class TestHeader:
    def test_bounds_are_the_first_and_last_second(self) -> None:
        """Of all lines; and all of them tell."""
        lines = [line_of(ts=f"2026-03-02T10:00:0{second}.5Z", recorded_at=f"2026-03-02T10:00:1{second}Z")
                 for second in (3, 1, 5, 2)]  # fmt: skip
        data = b"".join(line + b"\n" for line in lines)
        seal = seal_of(data, [len(lines[0]) + 1, len(lines[0]) * 3 + 3])
        header = opened(make_index(log_of(data), seal), seal)[0].header
        assert (Bounds("2026-03-02T10:00:01", "2026-03-02T10:00:05"), True) == (header.happened, header.told)
        assert Bounds("2026-03-02T10:00:11", "2026-03-02T10:00:15") == header.recorded
        assert (SECOND + 10**9, SECOND + 6 * 10**9 - 1) == header.happened.span_ns()
        assert [0, len(lines[0]) + 1, len(lines[0]) * 3 + 3] == header.starts

    @pytest.mark.parametrize(
        "odd", [b"torn", b"", line_of(ts=None), line_of(recorded_at="noon"), b"x" * (LINE_BYTES_MAX + 1)], ids=len
    )
    def test_a_line_that_does_not_tell_is_told(self, odd: bytes) -> None:
        """Then the bounds alone do not say that nothing happened outside them."""
        for lines in ([odd, line_of()], [line_of(), odd]):
            data = b"".join(line + b"\n" for line in lines)
            seal = seal_of(data, [])
            found, read = opened(make_index(log_of(data), seal), seal)
            assert ([(0, len(data))], False) == (found.stretches("o", read), found.header.told)

    def test_a_line_that_was_recorded_at_no_other_time_tells_by_its_ts(self) -> None:
        """Both bounds are of the same second then."""
        data = line_of() + b"\n"
        seal = seal_of(data, [])
        header = opened(make_index(log_of(data), seal), seal)[0].header
        assert (Bounds(TS[:-1], TS[:-1]), True) == (header.recorded, header.told)

    def test_frames_within_a_line_begin_no_stretch(self) -> None:
        """8.2: a stretch is of whole lines."""
        line = line_of(raw="x" * 1000) + b"\n"
        seal = seal_of(line * 2, list(range(0, 2 * len(line), 100)))
        assert [0, len(line)] == opened(make_index(log_of(line * 2), seal), seal)[0].header.starts

    def test_without_any_time_there_are_no_bounds(self) -> None:
        """Nothing is said of when."""
        seal = seal_of(b"\n", [])
        header = opened(make_index(log_of(b"\n"), seal), seal)[0].header
        assert (None, None) == (header.happened.span_ns(), header.recorded.span_ns())


class TestPages:
    @pytest.mark.parametrize("count", [0, 1, 1023, 1024, 2047, 2048, 5000])
    def test_every_id_is_found_in_its_page(self, count: int) -> None:
        """However many pages there are; and hardly any other id is."""
        names = {f"order-{number}" for number in range(count)}
        seal = seal_of(b"x" * 300, [100, 200])
        codes = encode_names(names, 1)
        data = encode_index(seal, [0, 100, 200], True, None, Bounds(), Bounds(), codes)
        found, read = opened(data, seal)
        assert all([(100, 200)] == found.stretches(name, read) for name in names)
        assert sum(bool(found.stretches(f"other-{number}", read)) for number in range(1000)) <= 1
        pages = len(found.header.counts)
        assert (pages & (pages - 1), count) == (0, sum(found.header.counts))
        assert count / pages < 2048
        assert pages == 1 or count / pages >= 512

    def test_an_id_in_many_stretches_is_found_in_all(self) -> None:
        """Once in each, in order; names that are no UTF-8 too."""
        seal = seal_of(b"x" * 300, [100, 200])
        codes = [code for number in (2, 0, 2) for code in encode_names({"a", "\ud800"}, number)]
        found, read = opened(encode_index(seal, [0, 100, 200], True, None, Bounds(), Bounds(), codes), seal)
        for name in ("a", "\ud800"):
            assert [(0, 100), (200, 300)] == found.stretches(name, read)

    def test_any_byte_may_be_wrong_or_missing(self) -> None:
        """What was not written is refused: by the header at once, by a page when it is read."""
        data = orders(0, 30)
        seal = seal_of(data, [])
        good = make_index(log_of(data), seal)
        names = [f"o-{number}" for number in range(30)]

        def use(bad: bytes) -> None:
            found, read = opened(bad, seal)
            for name in names:
                found.stretches(name, read)

        use(good)
        for at in range(len(good)):
            for bad in (good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :], good[:at]):
                with pytest.raises(BadIndex):
                    use(bad)

    def test_a_header_of_another_layout_is_refused(self) -> None:
        """Its checksum is right: another version wrote it, and it is made again."""
        body = b"\x93\x01\x02\x03"
        data = b"compactor index\n" + len(body).to_bytes(4, "little") + checksum(body) + body
        with pytest.raises(BadIndex):
            opened(data, seal_of(b"", []))

    def test_a_header_longer_than_what_is_read_at_once_is_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of many stretches, with long names of teams."""
        data = orders(0, 30)
        seal = seal_of(data, [])
        good = make_index(log_of(data), seal)
        for size in (36, 37, 100, len(good)):
            monkeypatch.setattr(index, "_READ_BYTES", size)
            found, read = opened(good, seal)
            assert found.stretches("o-3", read)

    def test_one_of_another_range_is_refused(self) -> None:
        """Start, end and content are those of its segment."""
        data = orders(0, 3)
        seal = seal_of(data, [])
        good = make_index(log_of(data), seal)
        for other in (seal_of(data + b"\n", []), seal_of(data[:-1], [])):
            with pytest.raises(BadIndex):
                Index(lambda offset, length: good[offset : offset + length], len(good), other)


class TestBesideSeals:
    @pytest.fixture
    def sealed(self, data: Path) -> Path:
        """A ledger sealed in several segments."""
        (data / LOG).write_bytes(orders(0, 300))
        with Ledger(data) as ledger:
            assert ledger.seal(now=True, segment_bytes=30_000).segments > 1
        return data

    def test_one_that_is_damaged_is_made_again_once(self, sealed: Path) -> None:
        """On disk and in memory; a look-up reads no segment afterwards."""
        reads: list[str] = []

        class Noting(Files):
            def open(self, path: Path) -> Reader:
                reads.append(path.suffix)
                return super().open(path)

        good = {path: path.read_bytes() for path in (sealed / "segments").glob("*.index")}
        first = min(good)
        first.write_bytes(good[first][:-1])
        files, segments = Noting(), Segments(sealed, Files())
        with open_log(sealed, files, segments) as log:
            indexes = Indexes(log, segments, files)
            assert list(indexes.stretches("o-3"))
            for path in (sealed / "segments").glob("*.zst"):
                path.write_bytes(b"not looked at")
            assert list(indexes.stretches("o-3"))
            assert [indexes.header(seal) for seal in segments.seals] == [
                indexes.header(seal) for seal in segments.seals
            ]
        assert good == {path: path.read_bytes() for path in good}

    def test_nothing_of_a_failed_one_stays(self, sealed: Path) -> None:
        """Neither a half written file nor a descriptor; the reader has it in memory."""

        class Stubborn(Files):
            def rename(self, source: Path, target: Path) -> None:
                raise PermissionError(13, "Permission denied", str(source))

        before = open_files()
        for path in (sealed / "segments").glob("*.index"):
            path.unlink()
        segments = Segments(sealed, Files())
        with open_log(sealed, Files(), segments) as log:
            assert list(Indexes(log, segments, Stubborn()).stretches("o-3"))
            with pytest.raises(PermissionError):
                complete_indexes(Stubborn(), segments, log)
            assert [] == list((sealed / "segments").glob("*.index*"))
            complete_indexes(Files(), segments, log)
            assert [index_name(seal) for seal in segments.seals] == sorted(
                path.name for path in (sealed / "segments").glob("*.index*")
            )
        assert before == open_files()

    def test_one_that_is_there_is_not_made_again(self, sealed: Path) -> None:
        """By a run of sealing; what a run that begins meanwhile removes is left to that."""

        class Removed(Files):
            def rename(self, source: Path, target: Path) -> None:
                raise FileNotFoundError(2, "No such file", str(source))

        paths = sorted((sealed / "segments").glob("*.index"))
        before = [path.stat().st_ino for path in paths]
        segments = Segments(sealed, Files())
        with open_log(sealed, Files(), segments) as log:
            complete_indexes(Files(), segments, log)
            assert before == [path.stat().st_ino for path in paths]
            paths[0].unlink()
            complete_indexes(Removed(), segments, log)
            assert not paths[0].exists()

    def test_the_next_run_of_sealing_makes_what_is_missing(self, sealed: Path) -> None:
        """Also where it seals nothing; a run that has nothing to do does not look."""
        paths = sorted((sealed / "segments").glob("*.index"))
        paths[0].unlink()
        with Ledger(sealed) as ledger:
            ledger.seal()
            assert paths[0].exists()

    def test_a_segment_that_is_not_whole_makes_no_index(self, sealed: Path) -> None:
        """It is an error of its own."""
        for path in (sealed / "segments").glob("*.index"):
            path.unlink()
        for path in (sealed / "segments").glob("*.zst"):
            path.write_bytes(path.read_bytes()[:-1])
        segments = Segments(sealed, Files())
        with open_log(sealed, Files(), segments) as log, pytest.raises(SegmentDamaged):
            list(Indexes(log, segments, Files()).stretches("o-3"))
