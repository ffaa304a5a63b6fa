"""The doctor finds what is wrong with a machine or a data directory, and leaves no trace."""

from __future__ import annotations

from pathlib import Path

from compactor import Ledger
from compactor.books.doctor import examine

EVENT = {"event": "new", "order_id": "o-1", "symbol": "SPY", "side": "buy", "quantity": "1"}


def ledger(data: Path, team: str, ts: str) -> Path:
    with Ledger(data / "team" / team) as one:
        one.append([{**EVENT, "ts": ts}])
        one.compact()
    return data / "team" / team


def test_a_machine_that_is_fit_has_no_failure(tmp_path: Path) -> None:
    """Checks are tried on a file that goes away again; no ledger is changed."""
    ledger(tmp_path, "alice", "2026-01-02T15:00:00Z")
    before = sorted(tmp_path.rglob("*"))
    found = {one.check: one for one in examine(tmp_path)}
    assert {"python", "file_system", "inotify", "lock", "replace", "punch", "space", "permissions", "clock"} <= set(
        found
    )
    assert ("ok", "ok") == (found["lock"].result, found["replace"].result)
    assert [tmp_path / ".compactor"] == sorted(set(tmp_path.rglob("*")) - set(before))


def test_a_damaged_checkpoint_that_was_set_aside_is_a_warning(tmp_path: Path) -> None:
    """Leftovers of damage are named."""
    left = ledger(tmp_path, "alice", "2026-01-02T15:00:00Z") / ".state" / "checkpoint.0.damaged"
    left.write_bytes(b"")
    assert [str(left)] == [one.found for one in examine(tmp_path) if one.check == "leftover"]


def test_events_of_the_future_point_to_a_wrong_clock(tmp_path: Path) -> None:
    """The clock is held against the last event."""
    path = ledger(tmp_path, "alice", "2026-01-02T15:00:00Z")
    line = b'{"event":"new","order_id":"o-2","ts":"2199-01-01T00:00:00Z","recorded_at":"2199-01-01T00:00:00Z",'
    with (path / "events.jsonl").open("ab") as log:
        log.write(line + b'"symbol":"SPY","side":"buy","quantity":"1"}\n')
    with Ledger(path) as one:
        one.compact()
    (found,) = [one for one in examine(tmp_path) if one.check == "clock"]
    assert "warn" == found.result
    assert "in the future" in found.found


def test_a_directory_that_cannot_be_a_ledger_fails(tmp_path: Path) -> None:
    """What keeps a ledger from being compacted is a failure."""
    bad = tmp_path / "team" / "no team"
    bad.mkdir(parents=True)
    (bad / "events.jsonl").write_bytes(b"")
    assert ["fail"] == [one.result for one in examine(tmp_path) if one.check == "ledger"]


def test_modes_that_let_others_write_or_read_more(tmp_path: Path) -> None:
    """Whoever may write `.compactor` can have a forged head signed; what is derived is no more open than its log."""
    path = ledger(tmp_path, "alice", "2026-01-02T15:00:00Z")
    (tmp_path / ".compactor/signed").mkdir(parents=True)
    for directory in (
        tmp_path,
        tmp_path / "team",
        path / ".state",
        tmp_path / ".compactor",
        tmp_path / ".compactor/signed",
    ):
        directory.chmod(0o700)
    (path / "events.jsonl").chmod(0o640)
    (path / "pending_orders.jsonl").chmod(0o640)
    assert ["ok"] == [one.result for one in examine(tmp_path) if one.check == "modes"]
    (path / "pending_orders.jsonl").chmod(0o644)
    for directory in (tmp_path / "team", path / ".state", tmp_path / ".compactor", tmp_path / ".compactor/signed"):
        directory.chmod(0o777)
    found = {Path(one.found.split(": ")[0]): one.result for one in examine(tmp_path) if one.check == "modes"}
    assert found == {
        tmp_path / "team": "fail", tmp_path / ".compactor": "fail", tmp_path / ".compactor/signed": "fail",
        path / ".state": "warn", path / "pending_orders.jsonl": "warn",
    }  # fmt: skip
