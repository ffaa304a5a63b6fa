"""Appending lines to the ledgers that they name: all of them, or none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from compactor import Ledger, RejectedEvents
from compactor.books.append import append_lines
from compactor.books.compact import compact_all

Event = Callable[..., dict[str, Any]]
WriteLog = Callable[..., Path]


def lines(*events: dict[str, Any] | str) -> list[bytes]:
    """Events as the lines of standard input."""
    return [(event.encode() if isinstance(event, str) else msgspec.json.encode(event)) + b"\n" for event in events]


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


def test_a_ledger_that_its_events_name_takes_no_event_of_another_team(tmp_path: Path, placed: Event) -> None:
    """1.2: outside `team/` the first event with a team names the ledger, for whoever opens it later."""
    path = tmp_path / "mine"
    with Ledger(path) as ledger:
        ledger.append([placed("o1", team_id="alice")])
        ledger.compact(checkpoint=True)
    with pytest.raises(RejectedEvents, match="bob"):
        Ledger(path).append([placed("o2", team_id="bob")])
    assert 1 == Ledger(path).append([placed("o2", team_id="alice")]).events
