"""How the ledgers of a data directory stand, and their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from compactor.books.compact import compact_all, read_rows, status_all

Event = Callable[..., dict[str, Any]]
WriteLog = Callable[..., Path]


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
        assert expected == [row["order_id"] for row in read_rows(data, what)]

    def test_a_finding_among_many_ledgers_names_its_team(self, data: Path, write_log: WriteLog) -> None:
        """A finding does not name its team, because it stands in its team's file; among several it has to."""
        write_log("alice", "{")
        compact_all(data)
        rows: Iterable[dict[str, Any]] = read_rows(data, "findings")
        assert [("alice", "not_json")] == [(row["team_id"], row["kind"]) for row in rows]
