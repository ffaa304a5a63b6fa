"""One pass: when it writes a checkpoint, what it may cost, what of a long one stays, and what a power loss may take.

On `tests.disk.Disk`, which forgets what was not synced; the laws of `tests.test_laws` say the same of any log.
"""

import errno
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import msgspec
import pytest

from compactor import DiskFull, Ledger, LogRewritten, TooMuch
from compactor.ledger import compaction, log
from compactor.ledger.checkpoint import open_newest_slot
from compactor.ledger.compaction import CHECKPOINT_BYTES_MIN, PROGRESS_BYTES
from compactor.ledger.points import plan_commit
from tests.disk import Disk
from tests.faults import orders, rest_of
from tests.test_laws import DERIVED, DIRECTORY, LOG, derived_from, disk_with, files_on

BEFORE = DIRECTORY / "pending_orders.jsonl.before"


def grow(disk: Disk, more: bytes) -> None:
    """Another process appends to the log."""
    disk.grow(LOG, (disk.take(LOG) or b"") + more)


def newest(disk: Disk) -> int:
    """Up to where a new process need not fold again."""
    slot = open_newest_slot(DIRECTORY / ".state", disk, lambda _: None)
    assert slot is not None
    return slot.header.log.length


class TestCheckpoints:
    def test_one_is_written_after_so_many_bytes_and_not_sooner(self) -> None:
        """7: also by a process that goes on where another one ended."""
        disk, blank = disk_with(orders(0, 9)), b" " * (CHECKPOINT_BYTES_MIN - 2) + b"\n"
        written = end = len(orders(0, 9))
        first, second = Ledger(DIRECTORY, files=disk), Ledger(DIRECTORY, files=disk)
        first.compact()
        for ledger in (first, second):
            for more in (blank, b"\n"):
                grow(disk, more)
                end += len(more)
                ledger.compact()
                written = end if more == b"\n" else written
                assert written == newest(disk)

    def test_each_new_process_goes_on_from_the_newest_one(self) -> None:
        """7: the generations of both slots go on counting, whoever writes them."""
        disk = disk_with(b"")
        for number in range(5):
            grow(disk, orders(number, number + 1))
            disk.restart()
            with Ledger(DIRECTORY, files=disk) as ledger:
                assert len(orders(number, number + 1)) == ledger.compact(checkpoint=True).bytes
        assert derived_from(orders(0, 5)) == files_on(disk)

    def test_who_is_ahead_of_it_can_be_asked(self) -> None:
        """A daemon that stops writes one only where that spares the next process something."""
        disk = disk_with(orders(0, 9))
        with Ledger(DIRECTORY, files=disk) as ledger:
            assert (None, False) == (ledger.clock, ledger.is_ahead_of_checkpoint)
            ledger.compact()
            assert (datetime(2026, 3, 2, 10, 0, 8, tzinfo=UTC), False) == (ledger.clock, ledger.is_ahead_of_checkpoint)
            grow(disk, orders(9, 10))
            ledger.compact()
            assert ledger.is_ahead_of_checkpoint
            ledger.compact(checkpoint=True)
            assert not ledger.is_ahead_of_checkpoint
        assert (None, False) == (ledger.clock, ledger.is_ahead_of_checkpoint)

    def test_none_is_written_where_nothing_is_new(self) -> None:
        """Asking for one costs nothing then."""
        disk = disk_with(orders(0, 9))
        with Ledger(DIRECTORY, files=disk) as ledger:
            ledger.compact(checkpoint=True)
            before = disk.all_files()
            ledger.compact(checkpoint=True)
            assert before == disk.all_files()


class TestLimits:
    def test_a_pass_reads_no_more_of_the_log_than_it_may(self) -> None:
        """As much as it may is not too much; afterwards a pass without a limit goes on."""
        disk, size = disk_with(orders(0, 9)), len(orders(0, 9))
        with Ledger(DIRECTORY, files=disk) as ledger:
            with pytest.raises(TooMuch, match="has to read more of the log than it may; nothing was changed"):
                ledger.compact(limit_bytes=size - 1)
            assert (None, None, None) == files_on(disk)
            assert size == ledger.compact(limit_bytes=size).bytes
            assert 0 == ledger.compact(limit_bytes=0).bytes
            grow(disk, orders(9, 12))
            assert len(orders(9, 12)) == ledger.compact().bytes

    def test_what_is_read_back_of_an_order_counts_too(self) -> None:
        """6.2: a late event of an old order may cost reading most of the log."""
        ended = orders(200, 300, ended=True) + orders(1, 2) + orders(2, 200, ended=True)
        late = orders(1, 2).splitlines(keepends=True)[1].replace(b"x-1-0", b"x-late").replace(b"03-02", b"04-02")
        disk = disk_with(ended)
        with Ledger(DIRECTORY, files=disk, retention_days=0) as ledger:
            ledger.compact(checkpoint=True)
        grow(disk, late)
        disk.restart()
        with Ledger(DIRECTORY, files=disk, retention_days=0) as ledger:
            with pytest.raises(TooMuch):
                ledger.compact(limit_bytes=len(late))
            ledger.compact(limit_bytes=len(late) + len(orders(1, 2)))
        assert derived_from(ended + late) == files_on(disk)

    def test_a_pass_folds_no_longer_than_it_may(self) -> None:
        """And a limit is that of one pass: the next one has none."""
        disk = disk_with(orders(0, 9))
        with Ledger(DIRECTORY, files=disk) as ledger:
            with pytest.raises(TooMuch, match="folds for longer than it may; nothing was changed"):
                ledger.compact(limit_seconds=-1)
            ledger.compact(limit_seconds=3600)
            grow(disk, orders(9, 12))
            ledger.compact(limit_seconds=3600)
            grow(disk, orders(12, 15))
            ledger.compact()
        assert derived_from(orders(0, 15)) == files_on(disk)

    def test_a_pass_that_takes_as_long_as_it_may_is_no_longer_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The limit itself is allowed."""
        monkeypatch.setattr("compactor.ledger.compaction.time.perf_counter", lambda: 5.0)
        with Ledger(DIRECTORY, files=disk_with(orders(0, 9))) as ledger:
            assert ledger.compact(limit_seconds=0).events


def test_progress_is_told_about_every_mebibyte() -> None:
    """From what is folded already up to the end."""
    line = b" " * (PROGRESS_BYTES // 16 - 1) + b"\n"
    disk = disk_with(b"\n" * 100)
    told: list[tuple[int, int]] = []
    with Ledger(DIRECTORY, files=disk) as ledger:
        ledger.compact()
        grow(disk, line * 48)
        ledger.compact(progress=lambda done, total: told.append((done, total)))
    total = 100 + 3 * PROGRESS_BYTES
    steps = [100 + number * PROGRESS_BYTES for number in (1, 2, 3)]
    assert [(done, total) for done in (*steps, total)] == told


class TestLongPass:
    """A pass over much commits on its way."""

    @pytest.fixture(autouse=True)
    def often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """After every block, of which there are many."""
        monkeypatch.setattr(log, "BLOCK_BYTES", 4096)
        monkeypatch.setattr(compaction, "plan_commit", lambda since, rest, *, first: rest > 0)

    def test_what_was_committed_stays_when_it_is_stopped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Only what came since is taken back; the next pass goes on from there to the same bytes."""
        raw = orders(0, 100)
        disk, told = disk_with(raw), list[int]()

        def stop_at_the_third(done: int, _total: int) -> None:
            told.append(done)
            if len(told) == 3:
                raise KeyboardInterrupt

        monkeypatch.setattr(compaction, "PROGRESS_BYTES", 1)
        ledger = Ledger(DIRECTORY, files=disk)
        with pytest.raises(KeyboardInterrupt):
            ledger.compact(progress=stop_at_the_third)
        committed = told[1]
        assert (committed, derived_from(raw[:committed])) == (newest(disk), files_on(disk))
        disk.restart()
        assert len(raw) - committed == Ledger(DIRECTORY, files=disk).compact().bytes
        assert derived_from(raw) == files_on(disk)

    def test_its_totals_are_those_of_one_short_pass(self) -> None:
        """Whatever was committed on the way counts as new in this pass."""
        raw = orders(0, 100)
        long = Ledger(DIRECTORY, files=disk_with(raw)).compact()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(compaction, "plan_commit", lambda since, rest, *, first: False)
            short = Ledger(DIRECTORY, files=disk_with(raw)).compact()
        assert msgspec.structs.replace(short, elapsed_ms=0) == msgspec.structs.replace(long, elapsed_ms=0)
        assert (long.events, len(raw), len(raw)) == (long.new_events, long.bytes, long.offset)
        assert (long.trades, long.findings) == (long.new_trades, long.new_findings)

    def test_what_was_derived_before_is_held_against_the_log_to_its_end(self) -> None:
        """While it commits on its way the files hold more than it has derived; at the end nothing foreign is left."""
        raw = orders(0, 100)
        disk = disk_with(raw)
        Ledger(DIRECTORY, files=disk).compact()
        for path in [path for path in disk.all_files() if ".state" in path.parts]:
            disk.drop(path)
        Ledger(DIRECTORY, files=disk).compact()
        assert derived_from(raw) == files_on(disk)


@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_what_a_pass_derived_is_durable_when_it_returns(keep: float) -> None:
    """7: the first pass, one that appends, and one after which no order is open; with and without a checkpoint."""
    for checkpoint in (False, True):
        disk = disk_with(orders(0, 9))
        for more in (b"", orders(9, 12), rest_of(0, 12)):
            grow(disk, more)
            disk.restart()
            with Ledger(DIRECTORY, files=disk) as ledger:
                ledger.compact(checkpoint=checkpoint)
            returned, raw = files_on(disk), disk.take(LOG)
            disk.lose_power(keep)
            assert (returned, raw) == (files_on(disk), disk.take(LOG))
        assert None is disk.take(DERIVED[0])


def test_a_file_of_the_old_layout_is_kept_beside_the_open_orders() -> None:
    """1.3: before the first checkpoint it may be anybody's; afterwards it is ours and is replaced."""
    disk = disk_with(orders(0, 9))
    disk.put(DERIVED[0], b'{"old":1}\n')
    Ledger(DIRECTORY, files=disk).compact()
    assert (derived_from(orders(0, 9)), b'{"old":1}\n') == (files_on(disk), disk.take(BEFORE))
    disk.restart()
    disk.put(DERIVED[0], b'{"edited":1}\n')
    disk.put(BEFORE, b"kept")
    grow(disk, orders(9, 10))
    Ledger(DIRECTORY, files=disk).compact()
    assert (derived_from(orders(0, 10)), b"kept") == (files_on(disk), disk.take(BEFORE))


def test_an_empty_file_of_open_orders_is_nobodys() -> None:
    """It is removed or replaced, and nothing is kept of it."""
    for raw in (orders(1, 2), orders(0, 3)):
        disk = disk_with(raw)
        disk.put(DERIVED[0], b"")
        Ledger(DIRECTORY, files=disk).compact()
        assert (derived_from(raw), None) == (files_on(disk), disk.take(BEFORE))


def test_open_orders_that_somebody_removed_or_changed_are_written_again() -> None:
    """1.3: by the next pass, though nothing is new."""
    disk = disk_with(orders(0, 9))
    with Ledger(DIRECTORY, files=disk) as ledger:
        ledger.compact()
        expected = files_on(disk)
        for found in (None, b"other\n"):
            disk.drop(DERIVED[0])
            if found is not None:
                disk.put(DERIVED[0], found)
            ledger.compact()
            assert expected == files_on(disk)


def test_a_refused_pass_takes_back_nothing_of_an_earlier_one() -> None:
    """7: what was committed stays, whatever the process that committed it meets later."""
    disk = disk_with(orders(0, 9))
    with Ledger(DIRECTORY, files=disk) as ledger:
        ledger.compact()
        grow(disk, orders(9, 12))
        ledger.compact()
        before = files_on(disk)
        disk.put(LOG, orders(20, 40))
        for _ in range(2):
            with pytest.raises(LogRewritten):
                ledger.compact()
            assert before == files_on(disk)


class TestMayKnow:
    def test_only_right_after_a_pass_is_an_unknown_order_certain(self) -> None:
        """An order may be in what came since, or in a log that lies there by now."""
        disk = disk_with(orders(0, 9))
        with Ledger(DIRECTORY, files=disk) as ledger:
            assert ledger.may_know("nobody")
            ledger.compact()
            assert (True, False) == (ledger.may_know("o-3"), ledger.may_know("nobody"))
            grow(disk, orders(9, 10))
            assert ledger.may_know("nobody")
            ledger.compact()
            assert not ledger.may_know("nobody")
            log = disk.take(LOG) or b""
            disk.drop(LOG)
            assert ledger.may_know("nobody")
            disk.put(LOG, log)
            assert ledger.may_know("nobody")

    def test_a_request_without_an_outcome_is_open_until_that_is_known(self) -> None:
        """3.13: whoever asks reads the log for it only where there may be one."""
        ask = b'{"event":"submitting","order_id":"c-1","client_order_id":"c-1","ts":"2026-03-02T10:00:00Z"}\n'
        with Ledger(DIRECTORY, files=(disk := disk_with(orders(0, 9)))) as ledger:
            assert ledger.may_have_intents()
            ledger.compact()
            assert not ledger.may_have_intents()
            for line, is_open in ((ask, True), (ask.replace(b"submitting", b"never_placed"), False)):
                grow(disk, line)
                assert ledger.may_have_intents()
                ledger.compact()
                assert is_open is ledger.may_have_intents()


def test_a_pass_plans_its_commits_by_what_is_done_and_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """7: a point near its end needs the end."""
    asked: list[tuple[int, int]] = []

    def note(done: int, left: int, *, first: bool) -> bool:
        asked.append((done, left))
        return plan_commit(done, left, first=first)

    monkeypatch.setattr("compactor.ledger.compaction.plan_commit", note)
    size = len(raw := orders(0, 1000))
    with Ledger(DIRECTORY, files=(disk := disk_with(raw))) as ledger:
        ledger.compact()
        assert len(asked) > 1 and {size} == {done + left for done, left in asked} and (size, 0) == asked[-1]
        asked.clear()
        grow(disk, more := orders(1000, 2000))
        ledger.compact()
    assert len(asked) > 1 and {len(more)} == {done + left for done, left in asked}, "since the last commit"


def test_a_pass_that_cannot_even_be_taken_back_leaves_a_beginning_of_the_next() -> None:
    """7.3: the error is that of the pass, and what stays in the files is what the next one derives."""

    class Stuck(Disk):
        """Takes nothing back."""

        def truncate(self, path: Path, length: int) -> None:
            raise OSError(errno.EIO, "stuck", str(path))

    for step in count(1):
        disk = Stuck()
        disk.put(LOG, orders(0, 9))
        with Ledger(DIRECTORY, files=disk) as ledger:
            ledger.compact()
            grow(disk, orders(9, 12))
            disk.restart()
            disk.fail_at = step
            try:
                ledger.compact()
            except DiskFull:
                disk.restart()
                ledger.compact()
            else:
                break
        assert derived_from(orders(0, 12)) == files_on(disk)
    assert step > 5
