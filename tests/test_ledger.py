"""A ledger on a real disk, through the face that programs use."""

import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from compactor import (
    DerivedConflict,
    Ledger,
    LedgerError,
    LockHeld,
    LogRewritten,
    NoLedger,
)
from compactor.core.instants import nanos
from tests.cases import DERIVED, LOG, read_derived
from tests.faults import environment, orders

Event = Callable[..., dict[str, Any]]


@pytest.fixture
def alpha(data: Path) -> Path:
    """The ledger of team alpha: 9 orders, of which 3 are open, 15 trades and 2 torn lines, compacted."""
    path = data / "team" / "alpha"
    path.mkdir(parents=True)
    (path / LOG).write_bytes(orders(0, 9))
    Ledger(path).compact(checkpoint=True)
    return path


def every_file(path: Path) -> dict[str, bytes]:
    """All bytes of a ledger but its lock, which names who had it last."""
    files = {str(one.relative_to(path)): one.read_bytes() for one in path.rglob("*") if one.is_file()}
    return {name: data for name, data in files.items() if name != ".state/lock"}


def refused(path: Path, error: type[LedgerError], match: str) -> None:
    """A pass that is refused with a message, and leaves every file as it is."""
    before = every_file(path)
    with pytest.raises(error, match=match) as raised:
        Ledger(path).compact()
    assert before == every_file(path)
    assert str(path) in str(raised.value)
    assert raised.value.path.is_relative_to(path)


class TestCompact:
    def test_a_pass_says_what_it_did(self, data: Path) -> None:
        """Totals of the ledger, what is new in this pass, and how far it went."""
        (data / LOG).write_bytes(orders(0, 9))
        with Ledger(data) as ledger:
            first = ledger.compact()
            with (data / LOG).open("ab") as log:
                log.write(orders(9, 12) + b'{"event":')
            second = ledger.compact()
            third = ledger.compact()

        size = len(orders(0, 9))
        assert (24, 24, 3, 15, 15, 2, 2) == (
            first.events, first.new_events, first.open_orders, first.trades, first.new_trades, first.findings,
            first.new_findings,
        )  # fmt: skip
        assert (size, size, 0) == (first.bytes, first.offset, first.tail_bytes)
        assert (32, 8, 4, 20, 5, 2, 0) == (
            second.events, second.new_events, second.open_orders, second.trades, second.new_trades, second.findings,
            second.new_findings,
        )  # fmt: skip
        assert (len(orders(9, 12)), size + len(orders(9, 12)), 9) == (second.bytes, second.offset, second.tail_bytes)
        assert (0, 0, 32) == (third.bytes, third.new_events, third.events)

    def test_a_pass_with_nothing_new_writes_nothing(self, alpha: Path) -> None:
        """A pass costs what is new."""
        before = {path: os.stat(path).st_mtime_ns for path in alpha.rglob("*") if path.is_file()}
        del before[alpha / ".state" / "lock"]
        for _ in range(2):
            Ledger(alpha).compact()
        assert before == {path: os.stat(path).st_mtime_ns for path in before}

    def test_progress_reaches_the_whole(self, data: Path) -> None:
        """`progress` is called with bytes done and bytes in all."""
        (data / LOG).write_bytes(orders(0, 9) + b"tail")
        told: list[tuple[int, int]] = []
        Ledger(data).compact(progress=lambda done, total: told.append((done, total)))
        assert [(len(orders(0, 9)), len(orders(0, 9)) + 4)] == told

    def test_an_interrupted_pass_leaves_the_files_as_they_were(self, alpha: Path) -> None:
        """Ctrl-C in the middle: what was appended is taken back, and the next pass goes on."""

        def stop(_done: int, _total: int) -> None:
            raise KeyboardInterrupt

        with (alpha / LOG).open("ab") as log:
            log.write(orders(9, 2000))
        before = every_file(alpha)
        ledger = Ledger(alpha)
        with pytest.raises(KeyboardInterrupt):
            ledger.compact(progress=stop)
        assert before == every_file(alpha)
        assert len(orders(9, 2000)) == ledger.compact().bytes
        ledger.close()

    def test_an_empty_log_is_a_ledger_without_orders(self, data: Path) -> None:
        """1: nothing derived, and no file for it."""
        (data / LOG).touch()
        done = Ledger(data).compact()
        assert (0, 0, "default") == (done.events, done.trades, done.team_id)
        assert [".state", LOG] == sorted(path.name for path in data.iterdir())

    def test_a_directory_without_a_log_is_no_ledger(self, data: Path) -> None:
        """A wrong path is an error, and makes nothing."""
        with pytest.raises(NoLedger, match=r"there is no events.jsonl"):
            Ledger(data).compact()
        assert [] == list(data.iterdir())

    def test_several_ledger_objects_share_one_directory(self, alpha: Path) -> None:
        """Each goes on from the files, whoever has compacted in between."""
        one, other = Ledger(alpha), Ledger(alpha)
        expected = []
        for number, ledger in [(9, one), (10, other), (11, other), (12, one), (13, other)]:
            with (alpha / LOG).open("ab") as log:
                log.write(orders(number, number + 1))
            expected.append(len(orders(0, number + 1)))
            assert expected[-1] == ledger.compact(checkpoint=number == 11).offset
        fresh = alpha.parent / "fresh"
        fresh.mkdir()
        (fresh / LOG).write_bytes((alpha / LOG).read_bytes())
        Ledger(fresh, team_id="alpha").compact()
        assert read_derived(fresh) == read_derived(alpha)
        one.close()
        other.close()

    def test_a_ledger_that_is_kept_open_sees_what_another_process_did(self, alpha: Path) -> None:
        """The real program compacts in between, and deletes nothing that is needed."""
        with Ledger(alpha) as ledger:
            ledger.compact()
            for number in range(9, 12):
                with (alpha / LOG).open("ab") as log:
                    log.write(orders(number, number + 1))
                subprocess.run(
                    [sys.executable, "-m", "compactor", "compact", str(alpha.parent.parent)],
                    env=environment(),
                    check=True,
                    capture_output=True,
                )
                derived = read_derived(alpha)
                ledger.compact()
                assert derived == read_derived(alpha)
            assert 4 == len(list(ledger.rows("pending_orders")))

    @pytest.mark.parametrize("name", [*DERIVED, ".state/checkpoint.0"])
    def test_a_file_that_was_deleted_under_an_open_ledger_is_rebuilt(self, name: str, alpha: Path) -> None:
        """1.3: everything but the log can be deleted, at any time."""
        before = read_derived(alpha)
        with Ledger(alpha) as ledger:
            ledger.compact()
            (alpha / name).unlink()
            ledger.compact()
        assert before == read_derived(alpha)


class TestRefusal:
    def test_a_lock_that_is_held_names_its_holder(self, alpha: Path) -> None:
        """7: a second compactor fails at once; afterwards the ledger is free again."""
        code = (
            "import fcntl, os, sys; lock = open(sys.argv[1], 'w'); fcntl.flock(lock, fcntl.LOCK_EX);"
            "print(os.getpid(), file=lock, flush=True); print('held', flush=True); sys.stdin.read()"
        )
        holder = subprocess.Popen(
            [sys.executable, "-c", code, str(alpha / ".state" / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert holder.stdin is not None and holder.stdout is not None
        with holder:
            assert b"held\n" == holder.stdout.readline()
            refused(alpha, LockHeld, f"process {holder.pid} is compacting this ledger")
            assert 3 == len(list(Ledger(alpha).rows("pending_orders")))
            assert 24 == Ledger(alpha).status().events
            holder.stdin.close()
        assert 24 == Ledger(alpha).compact().events

    def test_a_child_that_was_started_meanwhile_does_not_keep_the_lock(self, alpha: Path) -> None:
        """7: the lock is the pass's; a process that another part of the program forks has nothing to do with it."""
        wait, go = os.pipe()
        children: list[int] = []

        def fork(_done: int, _total: int) -> None:
            child = os.fork()
            if not child:
                os.close(go)
                os.read(wait, 1)
                os._exit(0)
            children.append(child)

        try:
            Ledger(alpha).compact(progress=fork)
            assert 24 == Ledger(alpha).compact().events
        finally:
            os.close(go)
            for child in children:
                os.waitpid(child, 0)
            os.close(wait)

    def test_a_log_that_was_truncated(self, alpha: Path) -> None:
        """7: shorter than what was folded."""
        os.truncate(alpha / LOG, len(orders(0, 9)) - 1)
        refused(alpha, LogRewritten, f"the log was truncated: expected at least {len(orders(0, 9))} bytes")

    def test_a_log_that_was_rewritten(self, alpha: Path) -> None:
        """7: one byte of the last 4 KiB is another."""
        with (alpha / LOG).open("r+b") as log:
            log.seek(-5, os.SEEK_END)
            log.write(b"9")
        refused(alpha, LogRewritten, "the log was rewritten: the bytes from 0 to")

    def test_an_open_ledger_notices_a_replaced_log_too(self, alpha: Path) -> None:
        """7: on every pass, not only at the start."""
        with Ledger(alpha) as ledger:
            ledger.compact()
            (alpha / LOG).rename(alpha / "events.jsonl.1")
            (alpha / LOG).write_bytes(orders(1, 20))
            before = every_file(alpha)
            with pytest.raises(LogRewritten, match="the log was rewritten"):
                ledger.compact()
            assert before == every_file(alpha)

    @pytest.mark.parametrize("name", ["trades.jsonl", "findings.jsonl"])
    def test_a_line_that_somebody_added_stops_the_ledger(self, name: str, alpha: Path) -> None:
        """7: not what follows from the log, so nobody knows what is right; the message says what helps, and it does."""
        before = read_derived(alpha)
        with (alpha / name).open("ab") as file:
            file.write(b'{"mine":1}\n')
        refused(alpha, DerivedConflict, f"{name}: at offset {len(before[name])} expected the end .*move the file away")
        (alpha / name).rename(alpha / "moved")
        Ledger(alpha).compact()
        assert before == read_derived(alpha)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
    def test_a_log_that_may_not_be_read(self, alpha: Path) -> None:
        """The operating system's reason, and what to check."""
        (alpha / LOG).chmod(0)
        with pytest.raises(LedgerError, match="Permission denied while opening the log; check owner"):
            Ledger(alpha).compact()

    def test_a_log_that_is_a_directory(self, data: Path) -> None:
        """Whatever lies where the log should be, the error names it."""
        (data / LOG).mkdir()
        with pytest.raises(LedgerError, match=r"events\.jsonl: .*directory"):
            Ledger(data).compact()

    def test_a_ledger_whose_directory_cannot_be_made(self, data: Path) -> None:
        """What lies in the way is named, and it is said what was being done."""
        (data / "team").write_bytes(b"a file")
        ledger = Ledger(data / "team" / "alpha")
        with pytest.raises(LedgerError, match=r"team/alpha: .* while making the ledger's directory"):
            ledger.append(orders(0, 1).splitlines()[:1])
        assert b"a file" == (data / "team").read_bytes()


class TestReading:
    def test_derived_lines_are_objects(self, alpha: Path) -> None:
        """Open orders oldest first, trades and findings in log order."""
        with Ledger(alpha) as ledger:
            assert ["o-0", "o-3", "o-6"] == [row["order_id"] for row in ledger.rows("pending_orders")]
            trades = list(ledger.rows("trades"))
            assert sorted(trade["offset"] for trade in trades) == [trade["offset"] for trade in trades]
            assert ["not_json", "not_json"] == [finding["kind"] for finding in ledger.rows("findings")]

    def test_only_whole_lines_are_read(self, alpha: Path) -> None:
        """A reader beside the compactor may meet a line that is still being written."""
        whole = len(list(Ledger(alpha).rows("trades")))
        with (alpha / "trades.jsonl").open("ab") as file:
            file.write(b'{"trade_id":"77')
        assert whole == len(list(Ledger(alpha).rows("trades")))

    def test_before_the_first_pass_nothing_is_there(self, data: Path) -> None:
        """No file is no line."""
        with Ledger(data) as ledger:
            assert ([], [], []) == (
                list(ledger.rows("pending_orders")),
                list(ledger.rows("trades")),
                list(ledger.rows("findings")),
            )

    def test_the_status_is_that_of_the_files(self, alpha: Path) -> None:
        """Counts as of the last pass; what waits is lag, what has no end yet is tail; nothing is written."""
        size, more = len(orders(0, 9)), orders(9, 12)
        good = Ledger(alpha).status()
        assert ("alpha", str(alpha), size, size, 0, 0, "good") == (
            good.team_id, good.path, good.log_bytes, good.offset, good.lag_bytes, good.tail_bytes, good.checkpoint,
        )  # fmt: skip
        assert (24, 3, 15, 2) == (good.events, good.open_orders, good.trades, good.findings)
        assert nanos("2026-03-02T10:00:08Z") == nanos(good.last_event_at or "")

        with (alpha / LOG).open("ab") as log:
            log.write(more + b"unfinished")
        before = every_file(alpha)
        behind = Ledger(alpha).status()
        assert (size, len(more), 10, 3) == (behind.offset, behind.lag_bytes, behind.tail_bytes, behind.open_orders)
        assert before == every_file(alpha)

        Ledger(alpha).compact()
        current = Ledger(alpha).status()
        assert (size + len(more), 0, 10, 32) == (
            current.offset, current.lag_bytes, current.tail_bytes, current.events,
        )  # fmt: skip

    def test_the_status_counts_what_was_compacted_and_no_more(self, alpha: Path) -> None:
        """Counts are as of `offset`."""
        before = Ledger(alpha).status()
        with (alpha / LOG).open("ab") as log:
            log.write(orders(9, 12) + b"{\n")
        behind = Ledger(alpha).status()
        assert (before.events, before.trades, before.findings) == (behind.events, behind.trades, behind.findings)

    def test_the_status_without_a_good_checkpoint(self, alpha: Path) -> None:
        """Missing or damaged is said, and the whole log is lag, since a pass would fold it."""
        size = len(orders(0, 9))
        slot = alpha / ".state" / "checkpoint.0"
        slot.write_bytes(slot.read_bytes()[:100])
        damaged = Ledger(alpha).status()
        assert ("damaged", size, 0) == (damaged.checkpoint, damaged.lag_bytes, damaged.offset)
        slot.unlink()
        missing = Ledger(alpha).status()
        assert ("missing", size, "alpha") == (missing.checkpoint, missing.lag_bytes, missing.team_id)

    def test_the_status_needs_a_log(self, data: Path) -> None:
        """A wrong path is an error here too."""
        with pytest.raises(LedgerError, match="there is no events"):
            Ledger(data).status()

    def test_opening_a_ledger_makes_nothing(self, data: Path) -> None:
        """It costs nothing to construct."""
        with Ledger(data / "team" / "new"):
            pass
        assert [] == list(data.iterdir())


def test_events_are_counted_by_name_also_across_checkpoints(tmp_path: Path) -> None:
    """`kinds` adds up to `events`; names that nobody knows are `other`."""
    terms = {"order_id": "o-1", "symbol": "SPY", "side": "buy", "quantity": "2", "ts": "2026-01-05T15:00:00Z"}
    for name in ("new", "pending_cancel", "unheard_of", "unheard_of_too", "canceled"):
        with Ledger(tmp_path) as ledger:
            ledger.append([{**terms, "event": name}])
            done = ledger.compact(checkpoint=True)
    assert {"new": 1, "pending_cancel": 1, "other": 2, "canceled": 1} == done.kinds
    assert done.events == sum(done.kinds.values())


def test_a_log_is_sealed_as_the_format_says_where_nothing_else_is_asked_for() -> None:
    """8.1: 64 MiB or a day, and what is sealed is given back."""
    defaults = {name: one.default for name, one in inspect.signature(Ledger.seal).parameters.items()}
    assert (64 << 20, timedelta(hours=24)) == (defaults["segment_bytes"], defaults["segment_age"])
    assert ("punch", False) == (defaults["reclaim"], defaults["now"])
