"""What is appended of what an import found: each event once, in batches, with its problems counted."""

from pathlib import Path
from typing import Any

import pytest

from compactor.core.decoding import build_event
from compactor.core.events import Event, Problem
from compactor.imports import writer as module
from compactor.imports.writer import ImportWriter, Meter, TeamImport, hash_identity

T = "2026-03-02T15:00:00Z"


def fill(execution_id: Any = "e-1", event_id: str = "1", **more: Any) -> dict[str, Any]:
    fields = {"event": "fill", "order_id": "o", "ts": T, "qty": "1", "price": "1", "event_id": event_id}
    return fields | ({} if execution_id is None else {"execution_id": execution_id}) | more


def count_lines(data: Path, team: str = "alpha") -> int:
    log = data / "team" / team / "events.jsonl"
    return len(log.read_bytes().splitlines()) if log.exists() else 0


def finish(writer: ImportWriter) -> dict[str, TeamImport]:
    return {team.team_id: team for team in writer.finish().teams}


def recognize(writer: ImportWriter, fields: dict[str, Any], *wanted: dict[str, Any]) -> None:
    event = build_event(fields)
    assert isinstance(event, Event)
    writer.recognize(event, {hash_identity(one) for one in wanted})


@pytest.mark.parametrize(
    ("known", "found", "is_duplicate"),
    [
        ([], fill(), False),
        ([], fill(None), False),
        ([fill()], fill(), True),
        ([fill()], fill("e-2"), False),
        ([fill(), fill("e-2")], fill("e-2"), True),
        ([fill(None)], fill(), True),
        ([fill()], fill(None), True),
        ([fill()], fill(event_id="2"), False),
        ([fill(order_id="p")], fill(), False),
        ([fill(event="partial_fill")], fill(), False),
        # An activity's id has its time before that of the execution.
        ([fill("t::e-1")], fill(), True),
        ([fill()], fill("t::e-1"), True),
        ([fill("a::t::e-1")], fill("b::e-1"), True),
        ([fill("t::e-1")], fill("t::e-2"), False),
        ([fill("7")], fill(7), True),
    ],
)
@pytest.mark.parametrize("in_log", [True, False])
def test_another_execution_is_another_event(
    tmp_path: Path, known: list[dict[str, Any]], found: dict[str, Any], is_duplicate: bool, in_log: bool
) -> None:
    """Whatever its source calls both; in a log, where one without an execution may be either, and in a recording."""
    writer = ImportWriter(tmp_path)
    for one in known:
        if in_log:
            recognize(writer, one, found, *known)
        else:
            writer.add("alpha", one, "f", 1)
    writer.add("alpha", found, "f", 2)
    result = finish(writer)["alpha"]
    if in_log:
        assert (is_duplicate, not is_duplicate) == (bool(result.duplicates), bool(result.events_appended))
    else:
        are_alike = [one.get("execution_id") is None for one in (*known, found)]
        expected = is_duplicate and len(set(are_alike)) == 1
        assert (len(known) + 1 - expected, expected) == (result.events_appended, result.duplicates)


def test_only_what_is_wanted_of_a_log_is_remembered(tmp_path: Path) -> None:
    writer = ImportWriter(tmp_path)
    recognize(writer, fill(), fill(event_id="2"))
    writer.add("alpha", fill(), "f", 1)
    assert 1 == finish(writer)["alpha"].events_appended


def test_an_event_that_the_caller_knows_is_a_duplicate(tmp_path: Path) -> None:
    """In the ledger of each team once; a line counts once, however many events it gives."""
    writer = ImportWriter(tmp_path)
    writer.add("alpha", fill(), "f", 1, is_known=True)
    for team in ("alpha", "bravo"):
        writer.add(team, fill(), "f", 1)
        writer.add(team, fill("e-2"), "f", 2)
        writer.add(team, fill("e-2"), "f", 2)
        writer.add(team, fill("e-2"), "g", 2)
    result = finish(writer)
    assert (3, 2, 3) == (result["alpha"].lines_read, result["alpha"].events_appended, result["alpha"].duplicates)
    assert (3, 2, 2) == (result["bravo"].lines_read, result["bravo"].events_appended, result["bravo"].duplicates)


@pytest.mark.parametrize("limit", ["BATCH_LINES", "BATCH_BYTES"])
def test_a_batch_is_appended_as_soon_as_it_is_full(tmp_path: Path, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory has a bound, in lines and in bytes."""
    writer = ImportWriter(tmp_path / "first")
    writer.add("alpha", fill("e-0", "0"), "f", 1)
    writer.flush()
    length = (tmp_path / "first/team/alpha/events.jsonl").stat().st_size
    monkeypatch.setattr(module, limit, 3 if limit == "BATCH_LINES" else 3 * length)
    writer = ImportWriter(tmp_path)
    for number, there in ((1, 0), (2, 0), (3, 3), (4, 3), (5, 3), (6, 6)):
        writer.add("alpha", fill(f"e-{number}", str(number)), "f", number)
        assert there == count_lines(tmp_path)


def test_problems_and_what_is_no_fill_are_counted(tmp_path: Path) -> None:
    writer = ImportWriter(tmp_path)
    writer.add("alpha", Problem("bad_value", "x"), "f", 1)
    for number, kind in enumerate(("FEE", "DIV", "FEE"), 2):
        writer.skip("alpha", kind, "f", number)
    result = finish(writer)["alpha"]
    assert [("f", 1, "bad_value", "x")] == [(one.file, one.line, one.kind, one.detail) for one in result.problems]
    assert ({"FEE": 2, "DIV": 1}, 4) == (result.not_fills, result.lines_read)


def test_progress_is_told_every_64_kibibytes_and_never_beyond_the_whole() -> None:
    """A file may grow while it is read."""
    told: list[tuple[int, int]] = []
    meter = Meter(lambda done, total: told.append((done, total)), 150_000)
    for length, times in ((65_535, 0), (1, 1), (65_535, 1), (1, 2), (65_536, 3)):
        meter.add(length)
        assert times == len(told)
    assert [(65_536, 150_000), (131_072, 150_000), (150_000, 150_000)] == told
    Meter(None, 1).add(1 << 20)
