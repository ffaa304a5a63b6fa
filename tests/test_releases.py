"""Data directories that earlier releases left behind (`fixtures/releases`), upgraded by the program of today."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from compactor.ui.cli import app
from tests.cases import read_derived
from tests.conftest import ROOT

RELEASES = sorted(path for path in (ROOT / "fixtures/releases").iterdir() if path.is_dir())


@pytest.fixture(params=RELEASES, ids=lambda path: path.name)
def release(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


@pytest.fixture(params=["with its checkpoints", "without them"])
def upgraded(release: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of the data directory of a release; its logs have other inodes than the checkpoints name."""
    data = tmp_path / "data"
    shutil.copytree(release, data)
    if request.param == "without them":
        for state in data.glob("team/*/.state"):
            shutil.rmtree(state)
    return data


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert 0 == result.exit_code, result.output
    return result


def test_there_are_releases() -> None:
    """A test over no release could not fail."""
    assert "0.1.0" in [path.name for path in RELEASES]


def test_the_upgraded_files_are_the_same_bytes(release: Path, upgraded: Path) -> None:
    """1.4: what a release derived stays, and today's program derives the same from the sealed and the open log."""
    run("compact", upgraded)
    teams = sorted(path.name for path in (release / "team").iterdir())
    assert len(teams) > 1
    for team in teams:
        assert read_derived(release / "team" / team) == read_derived(upgraded / "team" / team)


def test_the_files_are_derived_anew_as_the_same_bytes(release: Path, upgraded: Path) -> None:
    """1.4: the same where the derived files were lost: nothing of them is needed."""
    for path in upgraded.glob("team/*/*.jsonl"):
        if path.name != "events.jsonl":
            path.unlink()
    run("compact", upgraded)
    for ledger in (release / "team").iterdir():
        assert read_derived(ledger) == read_derived(upgraded / "team" / ledger.name)


def test_verify_finds_nothing_after_the_upgrade(upgraded: Path) -> None:
    """Segments, indexes and derived files of the release hold, and so do today's checkpoints."""
    run("compact", upgraded)
    rows = [json.loads(line) for line in run("verify", "--json", upgraded).stdout.splitlines()]
    ledgers = [row for row in rows if "segments" in row]
    assert [[], []] == [row["differences"] for row in ledgers]
    assert all(row["segments"] > 1 for row in ledgers)


def test_the_upgraded_ledger_goes_on(upgraded: Path) -> None:
    """More events, more seals: the chain of the release is continued and verifies."""
    event = (
        '{"event":"new","order_id":"o-new","ts":"2030-01-02T15:00:00Z","symbol":"SPY","side":"buy","quantity":"1"}\n'
    )
    for log in upgraded.glob("team/*/events.jsonl"):
        with open(log, "a") as lines:
            lines.write(event)
    run("compact", upgraded)
    run("seal", "--now", upgraded)
    rows = [json.loads(line) for line in run("verify", "--json", upgraded).stdout.splitlines()]
    ledgers = [row for row in rows if "segments" in row]
    assert [[], []] == [row["differences"] for row in ledgers]
    assert [0, 0] == [row["log_bytes"] - row["sealed_bytes"] for row in ledgers]
