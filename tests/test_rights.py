"""Who may read and write what a ledger consists of, whatever the umask; and that a lock that fails is released."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from compactor import DiskFull, Ledger, LedgerError
from compactor.books.turns import turn
from compactor.ledger.files import Files
from compactor.sync.state import AccountReconciled, remember
from tests.cases import DERIVED, LOG
from tests.faults import orders
from tests.test_system_calls import opened


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=lambda mask: f"umask-{mask:03o}")
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a careless, a usual and a careful operator start the daemon with."""
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> str:
    """The permission bits."""
    return f"{stat.S_IMODE(path.stat().st_mode):03o}"


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(("log", "derived"), [(0o644, "644"), (0o640, "640"), (0o600, "600"), (0o666, "644")])
def test_what_is_derived_can_be_read_by_who_can_read_the_log(data: Path, log: int, derived: str) -> None:
    """And by nobody else; nobody but the owner may write it. The umask changes nothing."""
    path = data / "team/alpha"
    path.mkdir(parents=True, mode=0o755)
    (path / LOG).write_bytes(orders(0, 300))
    (path / LOG).chmod(log)
    with Ledger(path) as ledger:
        ledger.seal(now=True, segment_bytes=30_000)
    found = {name: mode(path / name) for name in DERIVED}
    assert dict.fromkeys(DERIVED, derived) == found
    sealed = list((path / "segments").iterdir())
    assert {derived} == {mode(one) for one in sealed}
    assert "755" == mode(path / "segments")


@pytest.mark.usefixtures("umask")
def test_state_and_locks_are_the_daemons_own(data: Path) -> None:
    """`.state`, `.compactor` and what is in them: for nobody else."""
    path = data / "team/alpha"
    Ledger(path).append([{"event": "new", "order_id": "o", "ts": "2026-03-02T14:30:00Z"}])
    Ledger(path).compact(checkpoint=True)
    with turn(data):
        remember(data, {"default": AccountReconciled()})
    for directory in (path / ".state", path / ".state/points", data / ".compactor"):
        assert "700" == mode(directory), directory
    private = [one for directory in (path / ".state", data / ".compactor") for one in directory.iterdir()]
    assert {"600"} == {mode(one) for one in private if one.is_file()}


def test_directories_that_an_earlier_version_left_open_are_closed_by_the_next_pass(data: Path) -> None:
    """`.state`, its points and `.compactor` were made with the rights of the umask."""
    path = data / "team/alpha"
    path.mkdir(parents=True)
    (path / LOG).write_bytes(orders(0, 300))
    private = (path / ".state", path / ".state/points", data / ".compactor")
    for directory in private:
        directory.mkdir()
        directory.chmod(0o755)
    Ledger(path).compact(checkpoint=True)
    with turn(data):
        assert ["700"] * 3 == [mode(one) for one in private]
    assert "755" == mode(path)


@pytest.mark.usefixtures("umask")
def test_a_new_ledger_is_open_to_readers_and_to_one_writer(data: Path) -> None:
    """Others append once the operator lets them: nothing is writable for all by accident."""
    path = data / "team/alpha"
    Ledger(path).append([{"event": "new", "order_id": "o", "ts": "2026-03-02T14:30:00Z"}])
    assert ("644", "755", "755") == (mode(path / LOG), mode(path), mode(path.parent))


def test_a_file_gets_the_group_of_the_log(data: Path) -> None:
    """Whose group may read the log may read what follows from it."""
    if os.geteuid() != 0:
        pytest.skip("only root may give files to any group")
    path = data / "team/alpha"
    path.mkdir(parents=True)
    (path / LOG).write_bytes(orders(0, 30))
    os.chown(path / LOG, -1, 12345)
    (path / LOG).chmod(0o640)
    Ledger(path).compact()
    assert {(12345, "640")} == {((path / name).stat().st_gid, mode(path / name)) for name in DERIVED}


class TestLock:
    """A lock that could not be marked is released, on every path."""

    @pytest.mark.parametrize("call", ["ftruncate", "pwrite"])
    def test_a_failed_call_while_locking_releases_the_lock(
        self, data: Path, monkeypatch: pytest.MonkeyPatch, call: str
    ) -> None:
        """It was held for ever by "process unknown"."""
        path = data / "team/alpha"
        Ledger(path).append([{"event": "new", "order_id": "o", "ts": "2026-03-02T14:30:00Z"}])
        Ledger(path).compact()
        before = opened()

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, call, full)
        for _ in range(2):
            with pytest.raises(DiskFull):
                Ledger(path).compact()
        monkeypatch.undo()
        assert before == opened()
        with (path / ".state/lock").open("rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert 1 == Ledger(path).compact().events

    def test_a_lock_that_is_held_says_by_whom(self, data: Path) -> None:
        """And costs no descriptor."""
        path = data / "team/alpha"
        Ledger(path).append([{"event": "new", "order_id": "o", "ts": "2026-03-02T14:30:00Z"}])
        Ledger(path).compact()
        descriptor = Files().acquire(path / ".state/lock")
        assert descriptor is not None
        before = opened()
        with pytest.raises(LedgerError, match=f"process {os.getpid()} is compacting this ledger"):
            Ledger(path).compact()
        assert before == opened()
        Files().release(descriptor)
