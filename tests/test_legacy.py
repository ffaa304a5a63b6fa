"""Importing old files: nothing counts twice and nothing is lost, wherever the import is stopped."""

import json
import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from compactor.imports import legacy, writer
from compactor.imports.legacy import import_legacy, put_away
from compactor.ledger import Ledger
from compactor.ledger.files import Files
from compactor.ledger.log_writer import append_lines
from tests.imported import by_team, read_derived, read_files, sum_positions

FIXTURES = Path(__file__).parent.parent / "fixtures"
OLD, EXPECTED = FIXTURES / "legacy" / "old", FIXTURES / "legacy" / "expected"
T = "2026-03-02T14:30:00Z"


def _without_addresses(path: Path) -> list[Any]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in ("trade_id", "offset")} for row in rows]


def test_old_files_become_the_expected_ledgers(tmp_path: Path) -> None:
    """fixtures/legacy: two teams, trades with and without orders, torn lines; each share comes out once."""
    teams = by_team(import_legacy(OLD, tmp_path / "data"))
    for expected in sorted(EXPECTED.glob("team/*/*.jsonl")):
        name = expected.relative_to(EXPECTED)
        assert [json.loads(line) for line in expected.read_text().splitlines()] == _without_addresses(
            tmp_path / "data" / name
        )
    assert [(4, "not_json"), (11, "not_json")] == [(found.line, found.kind) for found in teams["alpha"].problems]
    assert (13, 6) == (teams["alpha"].lines_read, teams["beta"].lines_read)
    assert not list((tmp_path / "data").rglob("findings.jsonl"))


def test_old_files_again_add_nothing(tmp_path: Path) -> None:
    """From the directory, from one team's directory, or from a single file: the same lines are the same events."""
    import_legacy(OLD, tmp_path / "data")
    before = read_files(tmp_path / "data")
    for path in (OLD, OLD / "team/alpha", OLD / "team/beta/pending_orders.jsonl", OLD / "team/alpha/trades.jsonl"):
        assert {0} == {team.events_appended for team in by_team(import_legacy(path, tmp_path / "data")).values()}
        assert before == read_files(tmp_path / "data")
    assert OLD.joinpath("team/alpha/pending_orders.jsonl").exists()


def test_a_file_that_grew_adds_what_is_new(tmp_path: Path) -> None:
    """The old program may still run: its file is imported again, and a trade it wrote later is no second trade."""
    lines = (OLD / "team/alpha/pending_orders.jsonl").read_text().splitlines(keepends=True)
    trade = (OLD / "team/alpha/trades.jsonl").read_text().splitlines(keepends=True)[0]
    (tmp_path / "old.jsonl").write_text("".join(lines[:6]))
    import_legacy(tmp_path / "old.jsonl", tmp_path / "data")
    (tmp_path / "old.jsonl").write_text("".join(lines[:7]))
    (tmp_path / "trades.jsonl").write_text(trade)
    assert 2 == by_team(import_legacy(tmp_path / "old.jsonl", tmp_path / "data"))["alpha"].events_appended
    assert {"AAPL": Decimal(100), "MSFT": Decimal(-20)} == sum_positions(tmp_path / "data/team/alpha")


def _old_in_place(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    shutil.copytree(OLD, data)
    return data


def test_old_files_in_place_are_put_away(tmp_path: Path) -> None:
    """The data directory itself: old files move to legacy/, and what then has their names is derived from the log."""
    data = _old_in_place(tmp_path)
    by_team(import_legacy(data, data))
    import_legacy(OLD, tmp_path / "elsewhere")
    assert read_files(OLD) == {
        name.replace("/legacy", ""): found for name, found in read_files(data).items() if "/legacy/" in name
    }
    kept = {name: found for name, found in read_derived(data).items() if "/legacy/" not in name}
    assert read_derived(tmp_path / "elsewhere") == kept
    before = read_files(data)
    assert {0} == {team.events_appended for team in by_team(import_legacy(data, data)).values()}
    assert before == read_files(data)


def test_a_single_file_in_place_is_put_away(tmp_path: Path) -> None:
    """Naming the file instead of the directory is the same."""
    data = _old_in_place(tmp_path)
    import_legacy(data / "team/beta/pending_orders.jsonl", data)
    assert {"pending_orders.jsonl", "trades.jsonl"} == {path.name for path in (data / "team/beta/legacy").iterdir()}
    assert not (data / "team/alpha/legacy").exists()


def test_a_ledgers_own_files_are_never_taken_for_old_ones(tmp_path: Path) -> None:
    """Rule 1.3: derived files may lie there without any state; importing them would tell every order again."""
    ledger = tmp_path / "data/team/alpha"
    open_order = {"event": "new", "order_id": "o1", "ts": T, "symbol": "AAPL", "side": "buy", "quantity": "5"}
    Ledger(ledger).append([open_order])
    Ledger(ledger).compact()
    before = read_files(tmp_path / "data")
    assert [] == import_legacy(tmp_path / "data", tmp_path / "data").teams
    shutil.rmtree(ledger / ".state")
    [team] = import_legacy(tmp_path / "data", tmp_path / "data").teams
    assert (["not_old"], 0) == ([problem.kind for problem in team.problems], team.events_appended)
    assert before == read_files(tmp_path / "data")
    Ledger(ledger).append([{"event": "fill", "order_id": "o1", "ts": T, "price": "1", "qty": "2", "filled_qty": "2"}])
    Ledger(ledger).compact()
    shutil.rmtree(ledger / ".state")
    assert [] == import_legacy(tmp_path / "data", tmp_path / "data").teams


def test_an_old_file_beside_a_new_log_is_still_old(tmp_path: Path) -> None:
    """A program wrote events before anybody imported: ended orders show that the file is no ledger's own."""
    data = _old_in_place(tmp_path)
    (data / "team/alpha/trades.jsonl").unlink()
    Ledger(data / "team/alpha").append([{"event": "canceled", "order_id": "a-3", "ts": "2026-02-03T10:00:00Z"}])
    by_team(import_legacy(data, data))
    assert [] == list(Ledger(data / "team/alpha").rows("pending_orders"))
    assert (data / "team/alpha/legacy/pending_orders.jsonl").exists()


def test_nothing_is_put_away_where_nothing_could_be_read(tmp_path: Path) -> None:
    """A file of something else stays where it is, and is reported."""
    place = tmp_path / "data/team/alpha"
    place.mkdir(parents=True)
    (place / "pending_orders.jsonl").write_text("what is this?\n")
    [team] = import_legacy(tmp_path / "data", tmp_path / "data").teams
    assert ["not_json"] == [problem.kind for problem in team.problems]
    assert {"team/alpha/pending_orders.jsonl"} == set(read_files(tmp_path / "data"))


class Stopped(BaseException):
    """The process was killed here."""


class StoppingFiles(Files):
    """The real file system until the call that is the last one."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def _count(self) -> None:
        self.calls -= 1
        if self.calls < 0:
            raise Stopped

    def make_directory(self, path: Path) -> None:
        self._count()
        super().make_directory(path)

    def rename(self, source: Path, target: Path) -> None:
        self._count()
        super().rename(source, target)

    def sync_directory(self, path: Path) -> None:
        self._count()
        super().sync_directory(path)


def _stop_append(calls: int) -> Callable[..., Any]:
    count = iter(range(calls))

    def stopping(*given: Any) -> Any:
        if next(count, None) is None:
            raise Stopped
        return append_lines(*given)

    return stopping


@pytest.mark.parametrize("calls", range(22))
def test_a_stop_while_putting_away_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """Stopped before any rename or sync: the next import ends with the bytes of one that was never stopped."""
    data = _old_in_place(tmp_path)
    stopping = StoppingFiles(calls)
    with monkeypatch.context() as patch:
        patch.setattr(legacy, "put_away", lambda source: put_away(source, stopping))
        try:
            import_legacy(data, data)
            assert calls >= 20, "the range above covers every call"
        except Stopped:
            pass
    by_team(import_legacy(data, data))
    _assert_as_if_never_stopped(tmp_path, data)


@pytest.mark.parametrize("calls", range(18))
def test_a_stop_while_appending_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """Stopped between any two batches, here of one event: what is in the log is recognized, the rest follows."""
    data = _old_in_place(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(writer, "BATCH_LINES", 1)
        patch.setattr(writer, "append_lines", _stop_append(calls))
        try:
            import_legacy(data, data)
            assert calls >= 17, "the range above covers every batch"
        except Stopped:
            pass
    by_team(import_legacy(data, data))
    _assert_as_if_never_stopped(tmp_path, data)


def _assert_as_if_never_stopped(tmp_path: Path, data: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(OLD, whole)
    import_legacy(whole, whole)
    assert read_derived(whole) == read_derived(data)
