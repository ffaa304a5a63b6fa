"""Jobs over many ledgers: one entry for each, whatever happens to any of them."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from compactor import Ledger
from compactor.books import compact as compacting
from compactor.books.append import append_lines
from compactor.books.compact import compact_all
from compactor.books.status import rows_of, status_all
from compactor.books.workers import BATCH_BYTES, Died, plan_batches, run_forked

Event = Callable[..., dict[str, Any]]
WriteLog = Callable[..., Path]


def lines(*events: dict[str, Any] | str) -> list[bytes]:
    """Events as the lines of standard input."""
    return [(event.encode() if isinstance(event, str) else msgspec.json.encode(event)) + b"\n" for event in events]


def derived(data: Path) -> dict[str, bytes]:
    """The bytes of all derived files."""
    return {str(path.relative_to(data)): path.read_bytes() for path in sorted(data.glob("team/*/*.jsonl"))}


class TestCompacting:
    def test_every_ledger_has_an_outcome_in_the_order_of_teams(
        self, data: Path, write_log: WriteLog, placed: Event, filled: Event
    ) -> None:
        """The result has one entry for every ledger found, in the order of team ids."""
        write_log("bob", placed(), filled())
        write_log("alice", placed())
        found = [
            (o.team_id, o.compaction and (o.compaction.open_orders, o.compaction.trades)) for o in compact_all(data)
        ]
        assert [("alice", (1, 0)), ("bob", (0, 1))] == found

    def test_a_broken_ledger_stops_no_other(self, data: Path, write_log: WriteLog, placed: Event) -> None:
        """Teams are independent: a broken ledger never stops another, and is named in the result."""
        write_log("alice", placed())
        broken = write_log("broken", placed())
        (broken / "events.jsonl").unlink()
        (broken / "events.jsonl").mkdir()
        write_log("carol", placed())
        outcomes = compact_all(data)
        assert [("alice", True), ("broken", False), ("carol", True)] == [(o.team_id, o.error is None) for o in outcomes]
        assert outcomes[1].error is not None
        assert str(broken) in outcomes[1].error.message

    def test_a_bug_in_one_ledger_is_its_error_only(
        self, data: Path, write_log: WriteLog, placed: Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An unexpected exception becomes a value too, so that other teams' orders stay in sight."""
        write_log("alice", placed())
        write_log("bob", placed())
        real = Ledger.compact

        def compact(self: Ledger, **options: Any) -> Any:
            if self.path.name == "alice":
                raise ZeroDivisionError("a bug")
            return real(self, **options)

        monkeypatch.setattr(Ledger, "compact", compact)
        alice, bob = compact_all(data)
        assert alice.error is not None
        assert ("unexpected", None) == (alice.error.kind, bob.error)
        assert "ZeroDivisionError" in alice.error.trace

    @pytest.mark.parametrize("workers", [2, 4])
    def test_processes_make_the_same_bytes(
        self,
        write_log: WriteLog,
        data: Path,
        placed: Event,
        filled: Event,
        monkeypatch: pytest.MonkeyPatch,
        workers: int,
    ) -> None:
        """Same log, same bytes: on one core or many (1.4)."""
        for number in range(5):
            write_log(f"t{number}", *(placed(f"o{n}") for n in range(20)), *(filled(f"o{n}") for n in range(number)))
            write_log(f"t{number}", "{", placed(f"late{number}"))
        compact_all(data, workers=1)
        expected = derived(data)
        for path in data.glob("team/*/*"):
            if path.name != "events.jsonl":
                _remove(path)
        monkeypatch.setattr(compacting, "INLINE_BYTES_MAX", 0)
        monkeypatch.setattr("compactor.books.workers.BATCH_BYTES", 4000)
        outcomes = compact_all(data, workers=workers)
        assert [f"t{n}" for n in range(5)] == [o.team_id for o in outcomes if o.compaction]
        # Findings and pending orders of each, trades of all but the first.
        assert 5 + 5 + 5 + 4 == len(expected)
        assert expected == derived(data)

    def test_a_broken_ledger_among_processes_leaves_the_others_complete(
        self, write_log: WriteLog, data: Path, placed: Event, filled: Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Teams are independent, in as many processes as there are: a broken one is named, the other four are whole."""
        for team in "abcde":
            write_log(team, placed(), filled())
        (data / "team/c/trades.jsonl").write_text('{"trade_id":"somebody else"}\n')
        monkeypatch.setattr(compacting, "INLINE_BYTES_MAX", 0)
        monkeypatch.setattr("compactor.books.workers.BATCH_BYTES", 1)
        outcomes = compact_all(data, workers=4)
        assert [(team, team == "c") for team in "abcde"] == [(o.team_id, o.error is not None) for o in outcomes]
        assert outcomes[2].error is not None
        assert "derived_conflict" == outcomes[2].error.kind
        assert str(data / "team/c/trades.jsonl") in outcomes[2].error.message
        whole = [(data / "team" / team / "trades.jsonl").read_bytes() for team in "abde"]
        assert [1] * 4 == [trades.count(b"\n") for trades in whole]

    def test_a_process_that_is_killed_takes_no_other_ledger_along(
        self, data: Path, write_log: WriteLog, placed: Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One ledger's process killed by the system is that ledger's error, and the rest of its batch goes on."""
        for team in ("alice", "bob", "carol"):
            write_log(team, placed())
        real = Ledger.compact

        def compact(self: Ledger, **options: Any) -> Any:
            if self.path.name == "alice":
                os.kill(os.getpid(), signal.SIGKILL)
            return real(self, **options)

        monkeypatch.setattr(Ledger, "compact", compact)
        monkeypatch.setattr(compacting, "INLINE_BYTES_MAX", 0)
        outcomes = compact_all(data, workers=2)
        assert ["process_died", None, None] == [o.error and o.error.kind for o in outcomes]

    def test_progress_ends_at_the_bytes_that_there_are(
        self, data: Path, write_log: WriteLog, placed: Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`progress(bytes_done, bytes_total)` sums over ledgers, also over those in other processes."""
        for team in ("alice", "bob"):
            write_log(team, *(placed(f"o{n}") for n in range(50)))
        total = sum(path.stat().st_size for path in data.glob("team/*/events.jsonl"))
        monkeypatch.setattr(compacting, "INLINE_BYTES_MAX", 0)
        told: list[tuple[int, int]] = []
        compact_all(data, workers=2, progress=lambda done, all_: told.append((done, all_)))
        assert (total, total) == told[-1]
        assert [done for done, _ in told] == sorted(done for done, _ in told)

    def test_the_largest_log_starts_first_and_small_ones_share_a_process(self) -> None:
        """Largest log first; small ones are gathered."""
        assert [[1], [2], [0, 3]] == plan_batches([10, 9 * BATCH_BYTES, BATCH_BYTES + 1, 5])

    def test_every_ledger_is_in_one_batch(self) -> None:
        """No ledger is forgotten, and none is folded twice."""
        sizes = [0, 5, BATCH_BYTES, 7, 0, 3 * BATCH_BYTES, BATCH_BYTES - 1]
        assert list(range(len(sizes))) == sorted(index for batch in plan_batches(sizes) for index in batch)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


class TestWorkers:
    def test_results_larger_than_a_pipe_arrive_whole(self) -> None:
        """A result is not bound by what a pipe holds."""
        found = dict(run_forked([[0], [1]], lambda item: bytes([item]) * 1_000_000, workers=2))
        assert {0: b"\0" * 1_000_000, 1: b"\1" * 1_000_000} == found

    def test_a_death_costs_one_item(self) -> None:
        """The item that a process died at yields `Died`; what it had told stays, and the rest goes on."""

        def work(item: int) -> bytes:
            if item == 1:
                os._exit(7)
            return b"done"

        found = dict(run_forked([[0, 1, 2]], work, workers=1))
        assert {0: b"done", 1: Died("its process ended with status 7"), 2: b"done"} == found

    def test_an_exception_costs_one_item_and_runs_nothing_of_the_parents(self) -> None:
        """Work that raises ends its process without the parent's exit handlers; the rest of the batch goes on."""

        def work(item: int) -> bytes:
            if not item:
                raise RecursionError
            return b"done"

        found = dict(run_forked([[0, 1], [2]], work, workers=2))
        assert {0: Died("its process ended with status 1"), 1: b"done", 2: b"done"} == found
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)  # No zombie is left.

    def test_a_result_cut_short_is_no_result(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A process that dies while it tells has told nothing of that item."""
        real = os.write

        def write(descriptor: int, data: bytes) -> int:
            if len(data) > 100:
                real(descriptor, data[:50])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(descriptor, data)

        monkeypatch.setattr(os, "write", write)
        found = dict(run_forked([[0, 1, 2]], lambda item: b"x" * (200 if item == 1 else 10), workers=1))
        assert [b"x" * 10, True, b"x" * 10] == [found[0], isinstance(found[1], Died), found[2]]

    def test_no_more_processes_than_the_system_gives(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the system refuses a second process, one does all the work."""
        real, made = os.fork, list[int]()

        def fork() -> int:
            # As many as one may have: none of those that run may be a second one.
            if made and not _ended(made[-1]):
                raise BlockingIOError(11, "Resource temporarily unavailable")
            pid = real()
            made.append(pid)
            return pid

        monkeypatch.setattr(os, "fork", fork)
        found = dict(run_forked([[0], [1], [2]], lambda item: b"%d" % item, workers=3))
        assert {0: b"0", 1: b"1", 2: b"2"} == found

    def test_not_even_one_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the system refuses the first process, every item says so and nothing hangs."""

        def fork() -> int:
            raise BlockingIOError(11, "Resource temporarily unavailable")

        monkeypatch.setattr(os, "fork", fork)
        found = dict(run_forked([[0, 1], [2]], lambda _: b"", workers=2))
        refused = Died("no process could be started for it (Resource temporarily unavailable)")
        assert {0: refused, 1: refused, 2: refused} == found

    def test_leaving_early_leaves_no_process_behind(self) -> None:
        """Leaving the iteration, by Ctrl-C for example, ends the children."""

        def work(item: int) -> bytes:
            if item:
                signal.pause()
            return str(os.getpid()).encode()

        results = run_forked([[0, 1]], work, workers=1)
        _, pid = next(results)
        results.close()  # type: ignore[attr-defined]
        assert isinstance(pid, bytes)
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


class TestAppending:
    def test_lines_go_to_the_team_that_they_name(self, data: Path, placed: Event) -> None:
        """A line goes to the team in its `team_id`; a team that is not there yet is made."""
        result = append_lines(
            data, lines(placed(team_id="alice"), placed(team_id="bob"), placed("o2", team_id="alice"))
        )
        assert [("alice", 2), ("bob", 1)] == [(done.team_id, done.events) for done in result.appended]
        assert 2 == (data / "team/alice/events.jsonl").read_bytes().count(b"\n")

    def test_lines_without_a_team_go_to_the_one_asked_for(self, data: Path, placed: Event) -> None:
        """A line that names no team goes to --team."""
        assert ["alice"] == [done.team_id for done in append_lines(data, lines(placed()), "alice").appended]

    @pytest.mark.parametrize(
        ("team", "bad", "kind"),
        [
            (None, "{", "not_json"),
            (None, '{"event":"new","order_id":"o1","ts":"2026-01-05T15:00:00Z"}', "missing_field"),
            (None, '{"event":"new","order_id":"o1","ts":"2026-01-05T15:00:00Z","team_id":"../up"}', "bad_value"),
            (
                None,
                '{"event":"fill","order_id":"o1","ts":"2026-01-05T15:00:00Z","team_id":"bob","qty":"1"}',
                "missing_field",
            ),
            ("alice", '{"event":"new","order_id":"o1","ts":"2026-01-05T15:00:00Z","team_id":"bob"}', "wrong_team"),
        ],
    )
    def test_one_bad_line_and_nothing_is_written_anywhere(
        self, data: Path, placed: Event, team: str | None, bad: str, kind: str
    ) -> None:
        """Validated before anything is written: all or nothing per call, with the line number of each error."""
        result = append_lines(data, lines(placed(team_id="alice"), "", bad), team)
        assert [(3, kind)] == [(line.line, line.kind) for line in result.bad_lines]
        assert [] == list(data.rglob("events.jsonl"))

    def test_blank_lines_are_no_lines(self, data: Path, placed: Event) -> None:
        """Blank lines are ignored (section 2)."""
        assert [1] == [done.events for done in append_lines(data, [b"\n", *lines(placed()), b" \r\n"], "a").appended]

    def test_a_last_line_without_newline_is_a_line_of_the_input(self, data: Path, placed: Event) -> None:
        """Standard input has ended, so that its last line is whole, other than a log's."""
        assert [1] == [done.events for done in append_lines(data, [lines(placed())[0].rstrip()], "a").appended]

    def test_a_directory_that_is_a_ledger_gets_the_lines(self, data: Path, placed: Event) -> None:
        """A directory that itself holds `events.jsonl` is a ledger too (1.2)."""
        (data / "events.jsonl").touch()
        assert [str(data)] == [done.path for done in append_lines(data, lines(placed())).appended]
        assert 1 == (data / "events.jsonl").read_bytes().count(b"\n")

    def test_a_link_out_of_the_data_directory_is_refused(self, data: Path, tmp_path: Path, placed: Event) -> None:
        """Symbolic links that lead out of DATA are refused (1.1)."""
        (tmp_path / "elsewhere").mkdir()
        (data / "team").mkdir()
        (data / "team/alice").symlink_to(tmp_path / "elsewhere")
        result = append_lines(data, lines(placed(team_id="alice")))
        assert [(1, "bad_value")] == [(line.line, line.kind) for line in result.bad_lines]
        assert [] == list((tmp_path / "elsewhere").iterdir())

    def test_a_failure_names_what_was_written_and_what_not(self, data: Path, placed: Event) -> None:
        """What the world refuses stops the call there, and the result says how far it came."""
        (data / "team/bob/events.jsonl").mkdir(parents=True)
        result = append_lines(data, lines(*(placed(team_id=team) for team in ("alice", "bob", "carol"))))
        assert ["alice"] == [done.team_id for done in result.appended]
        assert ("bob", ["carol"]) == (result.failed_team, result.untouched)
        assert result.failure is not None
        assert str(data / "team/bob") in result.failure.message

    def test_what_was_appended_is_what_is_compacted(self, data: Path, placed: Event, filled: Event) -> None:
        """Appended, compacted, one trade."""
        append_lines(data, lines(placed(), filled()), "alice")
        (outcome,) = compact_all(data)
        assert outcome.compaction is not None
        assert (2, 0, 1, 0) == (
            outcome.compaction.events,
            outcome.compaction.open_orders,
            outcome.compaction.trades,
            outcome.compaction.findings,
        )


class TestReporting:
    def test_status_counts_what_waits(self, data: Path, write_log: WriteLog, placed: Event) -> None:
        """How many bytes wait for the next compact."""
        write_log("alice", placed())
        (before,) = status_all(data)
        compact_all(data)
        (after,) = status_all(data)
        size = (data / "team/alice/events.jsonl").stat().st_size
        assert before.status is not None and after.status is not None
        assert ((size, 0), (0, 1)) == tuple((s.lag_bytes, s.open_orders) for s in (before.status, after.status))

    def test_status_changes_nothing(self, data: Path, write_log: WriteLog, placed: Event) -> None:
        """Reporting only reads."""
        write_log("alice", placed())
        before = sorted(data.rglob("*"))
        status_all(data)
        assert before == sorted(data.rglob("*"))

    @pytest.mark.parametrize(("what", "expected"), [("pending", ["o2"]), ("trades", ["o1"]), ("findings", [])])
    def test_rows_come_from_the_derived_files(
        self, data: Path, write_log: WriteLog, placed: Event, filled: Event, what: str, expected: list[str]
    ) -> None:
        """Open orders, trades and findings, as of the last compact."""
        write_log("alice", placed(), filled(), placed("o2"))
        compact_all(data)
        assert expected == [row["order_id"] for row in rows_of(data, what)]

    def test_a_finding_among_many_ledgers_names_its_team(self, data: Path, write_log: WriteLog) -> None:
        """A finding does not name its team, because it stands in its team's file; among several it has to."""
        write_log("alice", "{")
        compact_all(data)
        rows: Iterable[dict[str, Any]] = rows_of(data, "findings")
        assert [("alice", "not_json")] == [(row["team_id"], row["kind"]) for row in rows]
