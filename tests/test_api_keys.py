"""The keys of the API: made, listed, revoked, and never written down."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from compactor.ledger.errors import BadTeam
from compactor.web.api_keys import FILE, HASH_KEY, KeyStore, NoSuchKey


def command(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    arguments = (*arguments, "--data", str(data))
    return subprocess.run(
        [sys.executable, "-m", "compactor", "key", *arguments], capture_output=True, text=True, check=False
    )


def test_a_key_is_shown_once_and_kept_as_a_keyed_hash_for_its_owner_alone(data: Path) -> None:
    """`compactor key create`: the secret is in no file; both files have mode 0600."""
    row = json.loads(command(data, "create", "alpha", "--json").stdout)
    assert ["team_id", "key", "key_id", "admin", "read_only", "created_at"] == list(row)
    assert ("alpha", False, False) == (row["team_id"], row["admin"], row["read_only"])
    found = KeyStore(data).find(row["key"])
    assert found is not None and row["key_id"] == found.key_id, "what is shown opens the team"
    secret = row["key"].split("_", 2)[2]
    for path in (data / ".compactor").iterdir():
        assert secret.encode() not in path.read_bytes()
    for name in (FILE, HASH_KEY):
        assert 0o600 == stat.S_IMODE((data / ".compactor" / name).stat().st_mode)
    assert secret not in command(data, "list").stdout + command(data, "list", "--json").stdout


def test_create_prints_the_key_alone_for_scripts(data: Path) -> None:
    """Standard output has the key and nothing else."""
    done = command(data, "create", "--admin", "--read-only")
    found = KeyStore(data).find(done.stdout.strip())
    assert found is not None
    assert (None, True, True) == (found.team_id, found.is_admin, found.read_only)
    assert "not shown again" in done.stderr


def test_revoke_counts_at_once_for_a_store_that_is_open(data: Path) -> None:
    """No restart, and only that key."""
    store, other = KeyStore(data), KeyStore(data)
    first, second = store.create("alpha"), store.create("alpha")
    assert other.find(first.key) is not None
    done = command(data, "revoke", first.key_id, "--json")
    assert {"key_id": first.key_id, "team_id": "alpha", "revoked": True} == json.loads(done.stdout)
    assert other.find(first.key) is None
    found = other.find(second.key)
    assert found is not None and other.holds(found)
    store.revoke(second.key)
    assert not other.holds(found)
    with pytest.raises(NoSuchKey, match="no key has the id"):
        store.revoke("nothing")


def test_a_key_that_was_right_before_opens_nothing_once_it_is_gone_or_longer(data: Path) -> None:
    """However often it was right, and whatever stands behind it."""
    store = KeyStore(data)
    made = store.create("alpha")
    assert [True, True] == [store.find(made.key) is not None for _ in range(2)]
    assert [None, None] == [store.find(made.key + " "), store.find(made.key + "x" * 1000)]
    store.revoke(made.key_id)
    assert store.find(made.key) is None
    again = store.create("alpha")
    assert store.find(again.key) is not None
    (data / ".compactor" / FILE).unlink()
    assert store.find(again.key) is None


def test_wrong_usage_is_named(data: Path) -> None:
    """A team or --admin, not both and not neither; a team id is checked."""
    assert [2, 2] == [command(data, "create").returncode, command(data, "create", "alpha", "--admin").returncode]
    with pytest.raises(BadTeam):
        KeyStore(data).create("../alpha")
    unknown = command(data, "revoke", "nothing")
    assert (1, True) == (unknown.returncode, "no key has the id 'nothing', expected one of none" in unknown.stderr)
    assert "bug" not in unknown.stderr


@pytest.mark.parametrize("text", ["", "ck", "ck_", "ck__", "ck_x_y", "x" * 10_000, "ck_\udcff_x"])
def test_what_is_no_key_opens_nothing(data: Path, text: str) -> None:
    """Whatever it is."""
    store = KeyStore(data)
    assert store.find(text) is None
    store.create("alpha")
    assert store.find(text) is None


def test_a_damaged_file_opens_nothing_and_is_not_written_over(data: Path) -> None:
    """Whoever damages the file locks everybody out, and lets nobody in."""
    store = KeyStore(data)
    made = store.create("alpha")
    path = data / ".compactor" / FILE
    path.write_text("[{")
    assert store.find(made.key) is None
    done = command(data, "create", "bravo")
    assert (1, "[{") == (done.returncode, path.read_text())
    assert "nothing was changed" in done.stderr
