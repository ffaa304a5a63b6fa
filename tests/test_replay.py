"""Replay: what the derived files were, at any offset and any time, whatever of the state at hand is there or damaged.

The laws run on `tests.disk.Disk` over generated order lives; the command on a real disk.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compactor import Ledger
from compactor.core.derived import Counts, Lines
from compactor.core.instants import rfc3339
from compactor.history.moment import END, BadMoment, Moment, at_offset, at_time, parse_moment
from compactor.history.replay import BeyondLog, open_replay
from compactor.ledger.points import plan_commit, plan_thinning
from compactor.ui.cli import app
from tests.cases import derive, read_derived
from tests.conftest import ROOT
from tests.disk import Disk
from tests.faults import orders
from tests.test_laws import DIRECTORY, LOG, derived_from, disk_with, logs

laws = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
RAW = orders(0, 500)


class Done(NamedTuple):
    """What a replay came to: the lines that it gave, what it knew of the trades before them, and the pending orders."""

    counts: Counts
    started_at: int
    last_trades: bytes
    lines: Lines
    pending: bytes


def replayed(disk: Disk, moment: Moment, *, from_first: bool = False) -> Done:
    """Run a replay."""
    with open_replay(DIRECTORY, None, disk) as replay:
        replay.begin(moment, from_first=from_first)
        before = replay.last_trades()
        pieces = list(replay.run())
        pending = replay.fold.pending_lines()
    lines = Lines(b"".join(one.trades for one in pieces), b"".join(one.findings for one in pieces))
    return Done(replay.fold.counts, replay.started_at, before, lines, pending)


def spoiled(data: bytes, place: int) -> bytes:
    """The same bytes with one bit changed."""
    return data[:place] + bytes([data[place] ^ 0x20]) + data[place + 1 :]


@st.composite
def lived_in(draw: st.DrawFn, log: bytes) -> Disk:
    """A ledger that was compacted and sealed now and then while its log grew; some of its state is gone or damaged."""
    disk = disk_with(b"")
    for cut in sorted(draw(st.lists(st.integers(0, len(log)), min_size=1, max_size=4))):
        with Ledger(DIRECTORY, files=disk) as ledger:
            grown = disk.take(LOG) or b""
            disk.put(LOG, grown + log[len(grown) : cut])
            ledger.compact(checkpoint=draw(st.sampled_from([True, True, False])))
            if draw(st.booleans()):
                ledger.seal(now=True, segment_bytes=draw(st.sampled_from([100, 400, 2000])))
    grown = disk.take(LOG) or b""
    disk.put(LOG, grown + log[len(grown) :])
    for path, content in sorted(disk.all_files().items()):
        if path.suffix == ".index" or path.parent.name in (".state", "points"):
            what = draw(st.sampled_from(["keep", "keep", "keep", "keep", "delete", "damage"]))
            if what == "delete":
                disk.drop(path)
            elif what == "damage" and content:
                disk.put(path, spoiled(content, draw(st.integers(0, len(content) - 1))))
    disk.restart()
    return disk


@laws
@given(logs(), st.data())
def test_a_replay_gives_what_the_files_were_when_the_log_ended_there(log: bytes, data: st.DataObject) -> None:
    """Replay, the law: byte for byte the derived files, with sealing, checkpoints, points and indexes or without."""
    disk = data.draw(lived_in(log))
    before = disk.all_files()
    for _ in range(3):
        offset = len(log) - data.draw(st.integers(0, len(log)))
        expected = derived_from(log[:offset])
        whole = replayed(disk, at_offset(offset), from_first=True)
        assert expected == (whole.pending or None, whole.lines.trades or None, whole.lines.findings or None)
        recent = replayed(disk, at_offset(offset))
        assert (whole.pending, whole.counts) == (recent.pending, recent.counts)
        assert whole.lines.trades.endswith(recent.last_trades + recent.lines.trades)
        assert whole.lines.findings.endswith(recent.lines.findings)
    changed = {path for path, content in disk.all_files().items() if before.get(path) != content}
    assert set() == {path for path in changed if path.suffix not in (".index", ".tmp")}


def judged(log: bytes, until_ns: int, known: bool) -> list[tuple[int, bytes]]:
    """The naive selection: the lines, with their offsets, that a time selects."""
    from compactor.ledger.indexing import find_instant

    selected, was_in, place = [], True, 0
    for line in log.splitlines(keepends=True):
        if line.endswith(b"\n"):
            instant = find_instant(line[:-1], known)
            was_in = was_in if instant is None else instant <= until_ns
            if was_in:
                selected.append((place, line))
        place += len(line)
    return selected


def fold_of_lines(selected: list[tuple[int, bytes]]) -> tuple[bytes, bytes, bytes]:
    """What a fold that forgets nothing makes of lines at their offsets."""
    from compactor.core.fold import Fold

    fold = Fold(None, lambda *_: (), None, kept_ended=1 << 20)
    for place, line in selected:
        fold.feed(line, place)
    lines = fold.take_lines()
    return fold.pending_lines(), lines.trades, lines.findings


@laws
@given(logs(), st.booleans(), st.data())
def test_a_time_selects_the_lines_that_are_not_later(log: bytes, known: bool, data: st.DataObject) -> None:
    """Replay by a time folds the lines recorded, or happened, by then, in log order, with their own offsets."""
    disk = data.draw(lived_in(log))
    from compactor.ledger.indexing import find_instant

    instants = {find_instant(line, known) for line in log.split(b"\n")} - {None}
    base = data.draw(st.sampled_from(sorted(one for one in instants if one is not None) or [0]))
    moment = at_time(
        rfc3339(base + data.draw(st.sampled_from([0, 0, -1, 1, 10**9]))), "recorded" if known else "happened"
    )
    assert moment.until_ns is not None
    expected = fold_of_lines(judged(log, moment.until_ns, known))
    whole, recent = replayed(disk, moment, from_first=True), replayed(disk, moment)
    assert expected == (whole.pending, *whole.lines)
    assert (whole.pending, whole.counts) == (recent.pending, recent.counts)
    assert whole.lines.trades.endswith(recent.last_trades + recent.lines.trades)
    assert whole.lines.findings.endswith(recent.lines.findings)


class TestStart:
    """What a replay starts from."""

    def compacted(self, data: Path, cuts: tuple[int, ...] = (0, 100, 400, 490, 500)) -> Path:
        """A ledger that was compacted with a checkpoint while its log grew."""
        path = data / "team" / "alpha"
        path.mkdir(parents=True)
        for first, last in pairwise(cuts):
            with (path / "events.jsonl").open("ab") as log:
                log.write(orders(first, last))
            Ledger(path).compact(checkpoint=True)
        return path

    def test_it_starts_from_the_newest_point_before_the_offset(self, data: Path) -> None:
        """A recent point costs what lies between it and the checkpoint before it; all of it may be deleted."""
        path = self.compacted(data)
        offset = len(orders(0, 495))
        started = []
        for gone in (None, path / ".state" / "checkpoint.0", path / ".state" / "points"):
            if gone is not None:
                shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
            with open_replay(path, "alpha") as replay:
                replay.begin(at_offset(offset))
                started.append(replay.started_at)
                assert b"".join(lines.trades for lines in replay.run()) in Path(path / "trades.jsonl").read_bytes()
        assert [len(orders(0, 490)), len(orders(0, 490))] == started[:2]
        assert started[2] in (0, len(orders(0, 490)))

    def test_a_time_starts_from_a_point_too(self, data: Path) -> None:
        """What was recorded before the point, all of it, need not be folded again."""
        path = self.compacted(data)
        Ledger(path).seal(now=True, segment_bytes=50_000)
        with open_replay(path, "alpha") as replay:
            replay.begin(at_time("2026-03-03T00:00:00Z", "happened"))
            assert len(RAW) == replay.started_at

    def test_a_point_of_another_log_is_not_used(self, data: Path) -> None:
        """The log has to be the same file with the same bytes before the point."""
        path = self.compacted(data)
        shutil.copy(path / "events.jsonl", path / "new")
        os.replace(path / "new", path / "events.jsonl")
        with open_replay(path, "alpha") as replay:
            replay.begin(END)
            assert 0 == replay.started_at

    def test_a_point_is_a_second_name_of_a_checkpoint(self, data: Path) -> None:
        """Keeping one writes nothing."""
        state = self.compacted(data) / ".state"
        newest = state / "points" / f"{len(RAW):020d}"
        assert os.stat(newest).st_ino in {os.stat(state / name).st_ino for name in ("checkpoint.0", "checkpoint.1")}

    @settings(deadline=None)
    @given(st.lists(st.integers(1, 300), min_size=1, max_size=60))
    def test_going_back_costs_at_most_twice_the_way_back(self, steps: list[int]) -> None:
        """Points grow sparse with age, as far as they are from the end; so there are few, however long the log."""
        offsets: list[int] = []
        for step in steps:
            offsets.append((offsets[-1] if offsets else 0) + step)
            for one in plan_thinning(offsets, near=0):
                offsets.remove(one)
        newest, longest = offsets[-1], max(steps)
        for older, newer in pairwise(offsets):
            assert newer - older <= max(longest, 2 * (newest - newer))
        assert len(offsets) <= 4 + 2 * (newest // min(steps)).bit_length()

    def test_a_point_that_cannot_be_kept_hinders_no_pass(self) -> None:
        """A file system without links has no points, and the same derived files."""

        class NoLinks(Disk):
            def link(self, source: Path, target: Path) -> None:
                raise OSError(1, "not permitted", str(source))

        disk = NoLinks()
        disk.put(LOG, RAW)
        with Ledger(DIRECTORY, files=disk) as ledger:
            ledger.compact(checkpoint=True)
        assert derived_from(RAW).trades == disk.take(DIRECTORY / "trades.jsonl")
        assert [] == [path for path in disk.all_files() if path.parent.name == "points"]


class TestMoments:
    def test_texts_name_moments(self) -> None:
        """Digits are an offset, a time is a time by one of two clocks, `end` is the end."""
        assert (at_offset(17), END) == (parse_moment("17", "recorded"), parse_moment("end", "recorded"))
        assert 10**18 == at_time("2001-09-09T01:46:40Z", "happened").until_ns
        for wrong in ("soon", "", "2026-03-02", "2026-03-02T14:30:00", "-1"):
            with pytest.raises(BadMoment, match="expected an offset"):
                parse_moment(wrong, "recorded")

    def test_an_offset_beyond_the_log_is_refused(self, data: Path) -> None:
        """The message says how long the log is."""
        (data / "events.jsonl").write_bytes(RAW)
        with open_replay(data, None) as replay, pytest.raises(BeyondLog, match=f"log of {len(RAW)} bytes, which ends"):
            replay.begin(at_offset(len(RAW) + 1))


class TestCommand:
    @pytest.fixture
    def alpha(self, data: Path) -> Path:
        """A data directory with one compacted ledger."""
        path = data / "team" / "alpha"
        path.mkdir(parents=True)
        (path / "events.jsonl").write_bytes(RAW)
        Ledger(path).compact()
        return path

    def test_the_files_of_the_past_are_written_beside_the_live_ones(
        self, data: Path, alpha: Path, tmp_path: Path
    ) -> None:
        """--out: the three derived files, byte for byte; the live ones are not touched."""
        before = {path: path.read_bytes() for path in alpha.rglob("*") if path.is_file()}
        offset = len(orders(0, 77)) + 5
        result = CliRunner().invoke(app, ["replay", str(data), "--at", str(offset), "--out", str(tmp_path / "then")])
        assert 0 == result.exit_code, result.stderr
        cut = tmp_path / "team" / "alpha"
        cut.mkdir(parents=True)
        assert derive(RAW[:offset], cut) == read_derived(tmp_path / "then")
        assert before == {path: path.read_bytes() for path in alpha.rglob("*") if path.is_file()}
        again = CliRunner().invoke(app, ["replay", str(data), "--out", str(tmp_path / "then")])
        assert (2, True) == (again.exit_code, "expected a new or empty directory" in again.stderr)

    def test_a_full_disk_leaves_nothing_that_looks_like_a_result(self, data: Path, alpha: Path, tmp_path: Path) -> None:
        """--out: the files get their names when all are written; the message says what was being done."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before := resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        try:
            result = CliRunner().invoke(app, ["replay", str(data), "--out", str(tmp_path / "then")])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (before, before))
        assert (1, []) == (result.exit_code, list((tmp_path / "then").iterdir()))
        assert "while writing what was replayed" in result.stderr

    @pytest.mark.parametrize("what", ["pending", "trades", "findings"])
    def test_show_gives_the_lines_of_a_file(self, what: str, data: Path, alpha: Path) -> None:
        """--show with --json: the bytes of that derived file."""
        result = CliRunner().invoke(app, ["replay", str(data), "--show", what, "--json"])
        name = "pending_orders.jsonl" if what == "pending" else f"{what}.jsonl"
        assert read_derived(alpha)[name].decode() == result.stdout

    def test_the_summary_has_pending_orders_and_the_last_trades(self, data: Path, alpha: Path) -> None:
        """Without --show: counts, open orders, the last ten trades; --json has them in one object a ledger."""
        table = CliRunner().invoke(app, ["replay", str(data)]).stdout
        told = json.loads(CliRunner().invoke(app, ["replay", str(data), "--json"]).stdout)
        with Ledger(alpha) as ledger:
            trades, pending, status = list(ledger.rows("trades")), list(ledger.rows("pending_orders")), ledger.status()
        assert (pending, trades[-10:]) == (told["pending_orders"], told["last_trades"])
        assert (status.events, status.trades, len(RAW)) == (told["events"], told["trades"], told["offset"])
        assert f"alpha, end: {status.events} events, {len(pending)} open orders, {len(trades)} trades" in table
        assert all(row["order_id"] in table for row in pending)

    @pytest.mark.parametrize(
        "wrong", [["--at", "1", "--as-of", "2026-03-02T14:30:00Z"], ["--known-at", "noon"], ["--at", "x"]]
    )
    def test_a_moment_that_is_none_is_wrong_usage(self, data: Path, alpha: Path, wrong: list[str]) -> None:
        """Exit code 2."""
        assert 2 == CliRunner().invoke(app, ["replay", str(data), *wrong]).exit_code

    def test_an_offset_needs_one_ledger_and_a_time_goes_for_all(self, data: Path, alpha: Path) -> None:
        """An offset is one of one log; a ledger that cannot be read stops no other."""
        (data / "team" / "bravo" / "events.jsonl").mkdir(parents=True)
        several = CliRunner().invoke(app, ["replay", str(data), "--at", "1"])
        assert (2, True) == (several.exit_code, "name it with --team" in several.stderr)
        time = CliRunner().invoke(app, ["replay", str(data), "--known-at", "2026-03-02T10:00:00Z", "--json"])
        assert (1, ["alpha"]) == (time.exit_code, [json.loads(one)["team_id"] for one in time.stdout.splitlines()])
        assert "bravo: " in time.stderr


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (40, []),
        (63, [48, 56]),
        (100, [84, 92]),
        (300, [256, 271, 281, 289, 297]),
        (600, [256, 512, 542, 562, 575, 584, 592]),
    ],
)
def test_a_long_pass_leaves_points_near_its_end(size: int, expected: list[int]) -> None:
    """Within its last 64 MiB, with each third of the rest; a short pass commits once, at its end."""
    mib, last, found = 1 << 20, 0, []
    for done in range(1, size + 1):
        if plan_commit((done - last) * mib, (size - done) * mib, first=last == 0) and done < size:
            found.append(done)
            last = done
    assert expected == found


BUSY = """
import sys
from compactor import Ledger
from tests.faults import orders
with Ledger(sys.argv[1], durability="none") as ledger:
    for step in range(500, 1100, 50):
        with open(sys.argv[1] + "/events.jsonl", "ab") as log:
            log.write(orders(step, step + 50))
        ledger.compact(checkpoint=True)
        ledger.seal(now=True, segment_bytes=20_000)
"""


def test_a_replay_works_while_the_ledger_is_written_compacted_and_sealed(data: Path) -> None:
    """Replay needs no lock: whatever is appended, punched out and checkpointed meanwhile, the answer is the same."""
    (data / "events.jsonl").write_bytes(RAW)
    Ledger(data).compact()
    expected = read_derived(data)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    busy = subprocess.Popen([sys.executable, "-c", BUSY, str(data)], env=environment)
    rounds = 0
    while busy.poll() is None or rounds < 3:
        rounds += 1
        for from_first in (True, False):
            with open_replay(data, None) as replay:
                replay.begin(at_offset(len(RAW)), from_first=from_first)
                trades = b"".join(lines.trades for lines in replay.run())
                assert expected["pending_orders.jsonl"] == replay.fold.pending_lines()
                assert expected["trades.jsonl"].endswith(trades)
                assert not from_first or expected["trades.jsonl"] == trades
    assert 0 == busy.returncode
    assert Ledger(data).status().segments > 5
