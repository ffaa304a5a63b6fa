"""Compacting many ledgers: one entry for each, whatever happens to any of them."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compactor import Ledger
from compactor.books import compact as compacting
from compactor.books.compact import compact_all
from compactor.books.workers import BATCH_BYTES, plan_batches

Event = Callable[..., dict[str, Any]]
WriteLog = Callable[..., Path]


def derived(data: Path) -> dict[str, bytes]:
    """The bytes of all derived files."""
    return {str(path.relative_to(data)): path.read_bytes() for path in sorted(data.glob("team/*/*.jsonl"))}


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


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
