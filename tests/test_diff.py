"""What came, went and changed between two moments of a ledger, and between two directories."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compactor import Ledger
from compactor.history.diff import RowChange, diff_moments
from compactor.history.moment import END, at_offset
from compactor.ledger import LedgerEntry
from compactor.ui.cli import app
from tests.test_laws import derived_from, logs

Event = Callable[..., dict[str, Any]]
WriteLog = Callable[..., Path]
Run = Callable[..., Result]
laws = settings(
    deadline=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)


def rows(lines: bytes | None, key: str) -> dict[str, Any]:
    """Derived lines by one of their ids."""
    return {row[key]: row for row in map(msgspec.json.decode, (lines or b"").splitlines())}


@laws
@given(logs(), st.data())
def test_the_differences_lead_from_one_moment_to_the_other(tmp_path: Path, log: bytes, data: st.DataObject) -> None:
    """Diff: what came, went and changed turns the pending orders and trades of A into those of B, in either order."""
    a, b = (data.draw(st.integers(0, len(log))) for _ in range(2))
    path = tmp_path / "ledger"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    for cut in data.draw(st.lists(st.integers(0, len(log)), max_size=2).map(sorted)):
        (path / "events.jsonl").touch()
        with (path / "events.jsonl").open("ab") as file:
            file.write(log[file.tell() : cut])
        Ledger(path).compact(checkpoint=True)
    with (path / "events.jsonl").open("ab") as file:
        file.write(log[file.tell() :])
    changes = list(diff_moments(LedgerEntry(None, path), at_offset(a), at_offset(b)))
    before, after = derived_from(log[:a]), derived_from(log[:b])
    for what, key, old, new in (
        ("pending_order", "order_id", rows(before.pending, "order_id"), rows(after.pending, "order_id")),
        ("trade", "trade_id", rows(before.trades, "trade_id"), rows(after.trades, "trade_id")),
    ):
        for change in (one for one in changes if one.what == what):
            assert old.pop(change.id, None) == change.before
            if change.after is not None:
                old[change.id] = change.after
                assert change.id == change.after[key]
        assert new == old


@pytest.fixture
def run(data: Path) -> Run:
    """Run `diff`."""
    return lambda *arguments: CliRunner().invoke(app, ["diff", *arguments])


def told(result: Result) -> list[tuple[str, str, str]]:
    """What --json says, in short."""
    assert 0 == result.exit_code, result.stderr
    changes = [msgspec.json.decode(line, type=RowChange) for line in result.stdout.splitlines()]
    return [(one.what, one.change, one.id) for one in changes]


class TestCommand:
    def test_two_offsets(self, run: Run, data: Path, write_log: WriteLog, placed: Event, filled: Event) -> None:
        """Two moments of one ledger: orders that came and went with how they ended, trades that came."""
        part = filled("o2", event="partial_fill", qty="1", filled_qty="1")
        path = write_log("a", placed(), placed("o2"), filled(), part, placed("o3"))
        first = len(b"".join((path / "events.jsonl").read_bytes().splitlines(keepends=True)[:2]))
        result = run(str(first), "end", "--data", str(data))
        lines = result.stdout.splitlines()
        assert 0 == result.exit_code
        assert ["+", "+", "-", "~", "+"] == [line[0] for line in lines]
        assert lines[2].endswith("o1 SPY buy 10 ended as filled")
        assert lines[3].endswith("status new -> partially_filled, filled_qty 0 -> 1, filled_avg_price None -> 529.98")
        back = run("end", str(first), "--data", str(data), "--json")
        assert ("pending_order", "came", "o1") in told(back)
        assert [("trade", "went")] * 2 == [one[:2] for one in told(back) if one[0] == "trade"]

    def test_two_times(self, run: Run, data: Path, write_log: WriteLog, placed: Event) -> None:
        """A time means what was recorded by then; with --as-of what had happened by then, as is known now."""
        late = placed(recorded_at="2026-01-06T00:00:00Z")
        write_log("a", late)
        times = ("2026-01-05T00:00:00Z", "2026-01-05T20:00:00Z", "--data", str(data), "--json")
        assert [] == told(run(*times))
        assert [("pending_order", "came", "o1")] == told(run(*times, "--as-of"))

    def test_two_directories(
        self, run: Run, data: Path, tmp_path: Path, write_log: WriteLog, placed: Event, filled: Event
    ) -> None:
        """Ledgers are replayed, what replay --out wrote is read; a single ledger on each side is the same one."""
        path = write_log("a", placed(), filled())
        shutil.copytree(data, tmp_path / "copy")
        lines = (path / "events.jsonl").read_text().splitlines(keepends=True)
        (path / "events.jsonl").write_text(
            lines[0] + lines[1].replace("529.98", "529.97") + json.dumps(placed("o2")) + "\n"
        )
        trade_id = f"{len(lines[0])}-0"
        expected = [("trade", "changed", trade_id), ("pending_order", "came", "o2")]
        assert expected == told(run(str(tmp_path / "copy"), str(data), "--json"))
        out = CliRunner().invoke(app, ["replay", str(tmp_path / "copy"), "--out", str(tmp_path / "then")])
        assert 0 == out.exit_code
        assert expected == told(run(str(tmp_path / "then"), str(data), "--json"))
        assert [] == told(run(str(tmp_path / "then"), str(tmp_path / "copy"), "--json"))

    def test_no_difference_is_said(self, run: Run, data: Path, write_log: WriteLog, placed: Event) -> None:
        """Nothing on standard output, a word on standard error, exit code 0."""
        write_log("a", placed())
        result = run("end", "end", "--data", str(data))
        assert (0, "", "a: no difference\n") == (result.exit_code, result.stdout, result.stderr)

    @pytest.mark.parametrize("pair", [("soon", "end"), ("DATA", "17"), ("0", "99999")])
    def test_what_is_no_moment_is_refused(
        self, run: Run, data: Path, write_log: WriteLog, placed: Event, pair: tuple[str, str]
    ) -> None:
        """2 for what names no moment, 1 for an offset beyond the log; nothing is shown."""
        write_log("a", placed())
        result = run(*(str(data) if one == "DATA" else one for one in pair), "--data", str(data))
        assert (1 if pair[0] == "0" else 2, "") == (result.exit_code, result.stdout)
        assert "expected" in result.stderr


def test_end_is_the_end(data: Path, write_log: WriteLog, placed: Event) -> None:
    """From a moment to itself there is no difference."""
    path = write_log("a", placed())
    assert [] == list(diff_moments(LedgerEntry("a", path), END, END))
