"""The doctor finds what is wrong with a machine or a data directory, and leaves no trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from compactor import Ledger
from compactor.books.doctor import examine
from compactor.ui.cli import app

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


def test_a_signing_key_that_others_may_read_is_a_failure(tmp_path: Path) -> None:
    """The key file of the settings is looked at wherever it lies; one that is not there is a warning."""
    data, key = tmp_path / "data", tmp_path / "key"
    ledger(data, "alice", "2026-01-02T15:00:00Z")
    assert [] == [one for one in examine(data) if one.check == "signing_key"]
    (data / "compactor.toml").write_text(f'signing_key = "{key}"\n')
    results = []
    for mode in (None, 0o600, 0o640, 0o604):
        if mode is not None:
            key.touch()
            key.chmod(mode)
        done = CliRunner().invoke(app, ["doctor", str(data), "--json"])
        found = [row for line in done.stdout.splitlines() if (row := json.loads(line))["check"] == "signing_key"]
        results.append((done.exit_code, [row["result"] for row in found]))
    assert [(0, ["warn"]), (0, ["ok"]), (1, ["fail"]), (1, ["fail"])] == results
    (data / "compactor.toml").rename(tmp_path / "other.toml")
    assert 1 == CliRunner().invoke(app, ["doctor", str(data), "--config", str(tmp_path / "other.toml")]).exit_code
    assert 2 == CliRunner().invoke(app, ["doctor", str(data), "--config", str(tmp_path / "none.toml")]).exit_code


def test_a_kernel_that_lets_anybody_link_files_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second name of another team's log would stop that team's ledger."""
    real = Path.read_text
    results = []
    for value in ("1", "0"):

        def read_text(path: Path, *args: Any, value: str = value, **more: Any) -> str:
            return value if path.name == "protected_hardlinks" else real(path, *args, **more)

        monkeypatch.setattr(Path, "read_text", read_text)
        results += [one.result for one in examine(tmp_path) if one.check == "hard_links"]
    assert ["ok", "warn"] == results


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
