"""The public face of the package: its names, its errors, and how it finds the data directory."""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest

import compactor
from compactor import CompactorError, Ledger, discover
from compactor.ledger.paths import resolve_data
from tests.cases import CASES


def test_every_name_is_listed_and_there() -> None:
    """`dir(compactor)` lists what can be imported, and every name can."""
    assert set(compactor.__all__) <= set(dir(compactor))
    for name in compactor.__all__:
        assert getattr(compactor, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = compactor.nothing


def test_every_error_is_exported_and_shares_one_base() -> None:
    """`except CompactorError` catches whatever this package raises on purpose."""
    errors = [one for name in compactor.__all__ if isinstance(one := getattr(compactor, name), type)]
    errors = [one for one in errors if issubclass(one, BaseException)]
    assert len(errors) > 20
    assert all(issubclass(one, CompactorError) for one in errors)


def test_each_room_has_its_errors_under_the_base() -> None:
    """An error that a caller may meet, in any room, is a CompactorError."""
    for module, name in (
        ("proofs.notes", "BadProof"), ("settings.configuration", "BadConfiguration"), ("broker.port", "BrokerError"),
        ("broker.credentials", "BadCredentials"), ("books.assign", "CannotAssign"), ("tables.arrow", "MissingPackage"),
        ("tables.query", "BadQuery"), ("history.moment", "BadMoment"), ("ledger.errors", "LedgerError"),
    ):  # fmt: skip
        assert issubclass(getattr(import_module(f"compactor.{module}"), name), CompactorError), name


def _commands(group: click.Group) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", one) for inner, one in _commands(command))


class TestDataDirectory:
    """The data directory: what is named, else COMPACTOR_DATA, else `data`."""

    def test_discover_takes_a_text(self, tmp_path: Path) -> None:
        """`discover("data")` works as well as a Path."""
        Ledger(tmp_path / "team/alpha").append([{"event": "new", "order_id": "o", "ts": "2026-03-02T14:30:00Z"}])
        assert (
            ["alpha"]
            == [entry.team_id for entry in discover(str(tmp_path))]
            == [entry.team_id for entry in discover(tmp_path)]
        )

    def test_the_environment_names_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without an argument the variable counts; with one it does not."""
        Ledger(tmp_path / "team/alpha").append([{"event": "new", "order_id": "o", "ts": "2026-03-02T14:30:00Z"}])
        monkeypatch.setenv("COMPACTOR_DATA", str(tmp_path))
        assert ["alpha"] == [entry.name for entry in discover()]
        assert [] == discover(tmp_path / "team")
        monkeypatch.delenv("COMPACTOR_DATA")
        assert Path("data") == resolve_data()

    def test_every_command_with_a_data_directory_honours_it(self, tmp_path: Path) -> None:
        """A command that has DIR or --data takes the variable too: the missing directory that it names is refused."""
        from compactor.ui.cli import app

        environment = {
            **os.environ,
            "COMPACTOR_DATA": str(tmp_path / "not-there"),
            "PYTHONPATH": str(CASES.parent.parent),
        }
        options = {name: one for name, command in _commands(app) for one in command.params if one.name == "data"}
        assert len(options) > 15
        assert {"COMPACTOR_DATA"} == {option.envvar for option in options.values()}
        done = subprocess.run([sys.executable, "-m", "compactor", "status"], env=environment, capture_output=True)
        assert 2 == done.returncode
        assert b"not-there" in done.stderr
