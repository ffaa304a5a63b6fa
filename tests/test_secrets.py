"""No command ever prints a private key, wherever it was given, and a key that others may read is refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click import Command, Group
from click.testing import CliRunner

from compactor.proofs.keys import make_key, read_key, verifier_key
from compactor.proofs.notes import BadKey
from compactor.ui.cli import app
from tests.flips import Scene

LIVE = {"run", "watch", "stream"}
"""Commands that do not end by themselves, or ask the broker."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A ledger with signed heads."""
    return Scene(tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="module")
def key_file(scene: Scene) -> Path:
    return scene.data.parent / "key"


def parts(key_file: Path) -> list[str]:
    """What must not be printed: any sixteen characters of the secret part of the key."""
    secret = key_file.read_text().strip().rsplit("+", 1)[1]
    return [secret[at : at + 16] for at in range(2, len(secret) - 16)]


def commands(group: Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Command]]:
    for name, command in group.commands.items():
        if isinstance(command, Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def wrong_places(key: str, file: str) -> Iterator[list[str]]:
    """Every command with the key, and with its file, in the place of each of its parameters."""
    for path, command in commands(app):
        if path[0] in LIVE:
            continue
        for secret in (key, file):
            for parameter in command.params:
                flag = next((one for one in parameter.opts if one.startswith("-")), None)
                if flag is None:
                    yield [*path, secret]
                elif not getattr(parameter, "is_flag", False):
                    yield [*path, *required(command), flag, secret]
            yield [*path, f"--{secret}"]
    yield [key]
    yield ["--data", key]


def required(command: Command) -> list[str]:
    return ["x" for parameter in command.params if parameter.param_type_name == "argument" and parameter.required]


def test_no_command_prints_a_key_that_is_in_a_wrong_place(
    scene: Scene, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Searched in everything that every command says, as text and as JSON."""
    key, secrets = key_file.read_text().strip(), parts(key_file)
    monkeypatch.chdir(scene.data.parent)
    monkeypatch.setenv("COMPACTOR_DATA", str(scene.data))
    printed, tried, before = [], 0, key_file.read_bytes()
    for arguments in wrong_places(key, str(key_file)):
        for more in ([], ["--json"]):
            tried += 1
            result = CliRunner().invoke(app, [*arguments, *more])
            assert before == key_file.read_bytes(), arguments
            if any(part in result.output for part in secrets):
                printed.append((arguments, result.output))
    assert [] == printed
    assert tried > 200


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "DATA", "--key", "KEY"], ["verify", "DATA", "--key", "FILE"],
        ["verify", "DATA", "--witness", "FILE"],
        ["check-proof", "PROOF", "--key", "KEY"], ["check-proof", "PROOF", "--key", "FILE"],
        ["check-proof", "PROOF", "--head", "FILE"], ["check-proof", "FILE", "--key", "VERIFIER"],
        ["prove", "--since", "FILE", "--data", "DATA"], ["history", "KEY", "--data", "DATA"],
        ["import", "alpaca", "FILE", "--data", "DATA"], ["config", "DATA", "--config", "FILE"],
    ],
)  # fmt: skip
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_the_key_in_a_likely_wrong_place(
    scene: Scene, key_file: Path, tmp_path: Path, arguments: list[str], more: list[str]
) -> None:
    """Each with everything else right; the message says what was expected and that it is a private key."""
    proof = tmp_path / "proof"
    CliRunner().invoke(app, ["prove", "0", "--data", str(scene.data), "--out", str(proof)])
    names = {"DATA": str(scene.data), "KEY": key_file.read_text().strip(), "FILE": str(key_file), "PROOF": str(proof)}
    names["VERIFIER"] = scene.key.verifier.encode()
    result = CliRunner().invoke(app, [*(names.get(one, one) for one in arguments), *more])
    assert 0 != result.exit_code
    assert [] == [part for part in parts(key_file) if part in result.output]
    assert "Traceback" not in result.output


@pytest.mark.parametrize("setting", ["signing_key", "witness", "http", "retention_days", "log_level"])
@pytest.mark.parametrize("command", ["config", "seal", "verify", "rebuild", "systemd", "watch", "run", "stream"])
def test_the_key_itself_in_the_settings(
    scene: Scene, key_file: Path, tmp_path: Path, setting: str, command: str
) -> None:
    """`signing_key` names a file; the key in its place is refused and not repeated."""
    data = tmp_path / "data"
    shutil.copytree(scene.data, data)
    (data / "compactor.toml").write_text(f'{setting} = "{key_file.read_text().strip()}"\n')
    for more in ([], ["--json"]):
        result = CliRunner().invoke(app, [command, str(data), *more])
        assert [] == [part for part in parts(key_file) if part in result.output]
        assert 0 != result.exit_code


def test_a_failing_seal_does_not_print_the_key(scene: Scene, key_file: Path) -> None:
    """Also given by the environment."""
    environ = {"COMPACTOR_SIGNING_KEY": key_file.read_text().strip()}
    result = CliRunner().invoke(app, ["seal", str(scene.data), "--now"], env=environ)
    assert 2 == result.exit_code
    assert "never a key itself" in result.stderr
    assert [] == [part for part in parts(key_file) if part in result.output]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o602])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    """Like ssh."""
    make_key(tmp_path / "key", "example.org/desk")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(BadKey, match=f"found mode {mode:04o}.*chmod 600"):
        read_key(tmp_path / "key")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_a_group_may_read_a_key_of_somebody_else(tmp_path: Path) -> None:
    """root's key for the group of the daemon: nobody else can change its mode."""
    make_key(tmp_path / "key", "example.org/desk")
    os.chown(tmp_path / "key", 12345, 0)
    (tmp_path / "key").chmod(0o640)
    assert "example.org/desk" == read_key(tmp_path / "key").verifier.name


def test_a_fifo_in_the_place_of_a_key_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key", 0o600)
    with pytest.raises(BadKey, match="expected a regular file"):
        read_key(tmp_path / "key")
    with pytest.raises(BadKey):
        verifier_key(str(tmp_path / "key"))


def test_a_new_key_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`keygen` syncs the directory too: a key that is lost cannot be made again."""
    synced = note_syncs(monkeypatch)
    make_key(tmp_path / "key", "example.org/desk")
    assert tmp_path in synced


def test_a_new_witness_is_durable(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name as well as its lines."""
    from compactor.proofs.publish import publish

    synced = note_syncs(monkeypatch)
    assert 1 == publish(scene.ledger, "alpha", witness=tmp_path / "heads").witnessed
    assert tmp_path in synced


def note_syncs(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The directories that are synced from here on."""
    from compactor.ledger.files import Files

    synced: list[Path] = []
    sync: Callable[[Files, Path], None] = Files.sync_directory

    def noting(files: Files, path: Path) -> None:
        synced.append(path)
        sync(files, path)

    monkeypatch.setattr(Files, "sync_directory", noting)
    return synced
