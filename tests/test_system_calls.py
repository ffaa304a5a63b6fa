"""A team that can write its whole directory reads, writes, stalls and destroys nothing beyond it.

Each attack puts a link, a pipe or the like in place of a file of the ledger `mallory`; `victim` is another team's
ledger, or a file of the daemon. The link is named, the ledger stops alone, and nothing beyond it is read or written.
"""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

from compactor import Ledger, LedgerError, UnsafeFile, discover
from compactor.books.compact import compact_all, status_all
from compactor.ledger.errors import IrregularFile
from compactor.ledger.files import Files, replace
from compactor.ui.cli import app
from tests.cases import DERIVED, LOG
from tests.conftest import ROOT
from tests.faults import orders

FILES = (
    LOG, *DERIVED, ".state/lock", ".state/checkpoint.0", ".state/checkpoint.1", "pending_orders.jsonl.tmp",
    ".state/checkpoint.0.tmp", ".state/checkpoint.1.tmp",
)  # fmt: skip
ONLY_WRITTEN = frozenset(name for name in FILES if name.endswith(".tmp"))


@pytest.fixture
def teams(tmp_path: Path) -> tuple[Path, Path]:
    """A data directory's ledgers: mallory's, and the victim's, both with all their files."""
    found = []
    for team, first in (("mallory", 0), ("victim", 3000)):
        path = tmp_path / "data/team" / team
        path.mkdir(parents=True)
        (path / LOG).write_bytes(orders(first, first + 300))
        with Ledger(path) as ledger:
            ledger.compact(checkpoint=True)
            append(path, orders(first + 400, first + 500))
            ledger.compact(checkpoint=True)
        found.append(path)
    return found[0], found[1]


def append(path: Path, lines: bytes) -> None:
    """Another writer appends to a log."""
    with (path / LOG).open("ab") as log:
        log.write(lines)


def content(path: Path) -> dict[Path, bytes]:
    """Every file of a ledger but its lock, which names the last process."""
    return {one: one.read_bytes() for one in sorted(path.rglob("*")) if one.is_file() and one.name != "lock"}


def attack(path: Path) -> None:
    """Everything that anybody may do with the ledgers of a data directory; a link fails that ledger alone.

    A hard link is refused under all its names, since nobody can tell which of them was there first.
    """
    data = path.parent.parent
    if (path / LOG).is_file() and not (path / LOG).is_symlink() and (path / LOG).stat().st_nlink == 1:
        append(path, orders(600, 900))
    outcomes = [(one.team_id, one.error) for one in compact_all(data, workers=1, checkpoint=True)]
    outcomes += [(one.team_id, one.error) for one in status_all(data)]
    for team_id, error in outcomes:
        assert team_id == path.name or error is None or "2 names" in error.message
    for command in (["seal", "--now"], ["verify"], ["show", "trades", "--data"]):
        CliRunner().invoke(app, [*command, str(data), "--team", path.name])


class TestLinks:
    """Symbolic and hard links."""

    @pytest.mark.parametrize("hard", [False, True], ids=["symbolic", "hard"])
    @pytest.mark.parametrize("name", FILES)
    def test_a_link_in_place_of_a_file_reaches_nothing(self, teams: tuple[Path, Path], name: str, hard: bool) -> None:
        """The other ledger keeps every byte, and nothing of it comes to ours."""
        mallory, victim = teams
        before = content(victim)
        target = victim / (name if name not in ONLY_WRITTEN else LOG)
        (mallory / name).unlink(missing_ok=True)
        if hard:
            os.link(target, mallory / name)
        else:
            (mallory / name).symlink_to(target)
        attack(mallory)
        after = content(victim)
        assert before == {path: data for path, data in after.items() if path in before}
        copied = [path for path, data in content(mallory).items() if b"o-3001" in data and not path.is_symlink()]
        assert [] == [path for path in copied if path.stat().st_nlink == 1]

    @pytest.mark.parametrize("name", [".state", "segments", ".state/points"])
    def test_a_link_in_place_of_a_directory_reaches_nothing(self, teams: tuple[Path, Path], name: str) -> None:
        """No false history is lent, and nothing is written there."""
        mallory, victim = teams
        with Ledger(victim) as ledger:
            ledger.seal(now=True, segment_bytes=20_000)
        before = content(victim)
        shutil.rmtree(mallory / name, ignore_errors=True)
        (mallory / name).symlink_to(victim / name)
        attack(mallory)
        assert before == content(victim)
        if name != ".state/points":
            with pytest.raises(UnsafeFile, match=f"{name}: expected a directory, found a symbolic link"):
                Ledger(mallory).compact()

    def test_a_log_that_becomes_a_link_stops_at_the_next_pass(self, teams: tuple[Path, Path]) -> None:
        """Checked at each pass, not only at discovery: the ledger of a running `watch` keeps its state."""
        mallory, victim = teams
        with Ledger(mallory) as ledger:
            ledger.compact()
            (mallory / LOG).unlink()
            (mallory / LOG).symlink_to(victim / LOG)
            with pytest.raises(UnsafeFile, match=r"events\.jsonl: expected a regular file, found a symbolic link"):
                ledger.compact()
            with pytest.raises(UnsafeFile):
                ledger.seal(now=True)
            with pytest.raises(UnsafeFile):
                ledger.append([{"event": "new", "order_id": "o", "ts": "2026-03-02T14:30:00Z"}])
            with pytest.raises(UnsafeFile):
                list(ledger.cat())

    def test_a_ledger_whose_directory_becomes_a_link_is_refused(self, teams: tuple[Path, Path]) -> None:
        """The directory itself is opened without following links too."""
        mallory, victim = teams
        ledger = Ledger(mallory)
        ledger.compact()
        mallory.rename(mallory.with_name("aside"))
        mallory.symlink_to(victim)
        for use in (ledger.compact, ledger.status, lambda: list(ledger.trades())):
            with pytest.raises(UnsafeFile, match="mallory: expected a directory, found a symbolic link"):
                use()

    def test_derived_files_are_read_without_following_links(self, teams: tuple[Path, Path]) -> None:
        """`show` and `Ledger.trades` give out no file of another team."""
        mallory, victim = teams
        (mallory / "trades.jsonl").unlink()
        (mallory / "trades.jsonl").symlink_to(victim / "trades.jsonl")
        with pytest.raises(UnsafeFile):
            list(Ledger(mallory).trades())
        shown = CliRunner().invoke(app, ["show", "trades", "--data", str(mallory.parent.parent), "--team", "mallory"])
        assert 1 == shown.exit_code
        assert "o-3001" not in shown.output

    def test_a_temporary_name_is_never_written_through(self, tmp_path: Path) -> None:
        """What has the name of a temporary file is removed, and the new file is made with O_EXCL."""
        victim = tmp_path / "victim"
        victim.write_bytes(b"precious")
        path = tmp_path / "derived"
        for link in (os.symlink, os.link):
            link(victim, tmp_path / "derived.tmp")
            replace(Files(), path, [b"new"])
            assert (b"precious", b"new") == (victim.read_bytes(), path.read_bytes())

    def test_the_directory_that_a_pass_opened_is_the_one_it_writes_to(self, teams: tuple[Path, Path]) -> None:
        """Opened once: a directory that is put in its place meanwhile gets nothing."""
        mallory, victim = teams
        before = content(victim)
        files = Files()
        with files.within(mallory):
            mallory.rename(mallory.with_name("aside"))
            mallory.symlink_to(victim)
            replace(files, mallory / "pending_orders.jsonl", [b"ours"])
            replace(files, mallory / ".state/checkpoint.0", [b"ours"])
            with pytest.raises(IrregularFile):
                Files().append(mallory / "trades.jsonl", b"theirs")
        assert before == content(victim)
        assert b"ours" == (mallory.with_name("aside") / ".state/checkpoint.0").read_bytes()


def a_pipe(path: Path) -> None:
    """Waits for a writer for ever, without O_NONBLOCK."""
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    """Bound by its name in its directory, since the path may be too long."""
    before = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(before)


def a_directory(path: Path) -> None:
    """Cannot be opened to write."""
    path.mkdir()


def a_device(path: Path) -> None:
    """Such as /dev/zero, which never ends."""
    try:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root may make devices")


@pytest.mark.parametrize("name", [name for name in FILES if name not in ONLY_WRITTEN])
@pytest.mark.parametrize("make", [a_pipe, a_socket, a_directory, a_device])
def test_nothing_blocks(teams: tuple[Path, Path], name: str, make: Callable[[Path], None]) -> None:
    """A pipe, socket, directory or device in place of any file is refused at once, by every command."""
    mallory, victim = teams
    (mallory / name).unlink()
    make(mallory / name)
    code = f"""
from pathlib import Path
from tests.test_system_calls import attack
attack(Path({str(mallory)!r}))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    before = content(victim)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, timeout=60, text=True)
    assert 0 == done.returncode, done.stderr
    assert before == {path: data for path, data in content(victim).items() if path in before}
    if not name.startswith(".state/checkpoint"):
        with pytest.raises(LedgerError, match=r"expected a regular file|Is a directory"), Ledger(mallory) as ledger:
            ledger.compact()


@pytest.mark.parametrize("name", ["segments", ".state"])
def test_a_file_in_place_of_a_directory_is_named(teams: tuple[Path, Path], name: str) -> None:
    """Neither read as no segments nor as no state."""
    mallory, _victim = teams
    shutil.rmtree(mallory / name, ignore_errors=True)
    (mallory / name).write_bytes(b"")
    with pytest.raises(UnsafeFile, match="expected a directory, found a regular file"):
        Ledger(mallory).compact()


@pytest.mark.parametrize("name", ["trades.jsonl", "findings.jsonl", "pending_orders.jsonl", ".state/lock"])
def test_a_huge_sparse_file_costs_no_memory(teams: tuple[Path, Path], name: str) -> None:
    """A terabyte of nothing is compared by its size, read in pieces, or refused."""
    mallory, _victim = teams
    os.truncate(mallory / name, 1 << 40)
    with Ledger(mallory) as ledger:
        if name in ("trades.jsonl", "findings.jsonl"):
            with pytest.raises(LedgerError):
                ledger.compact()
        else:
            ledger.compact()
            assert (mallory / name).stat().st_size < 1 << 20


@pytest.fixture
def descriptors() -> Iterator[None]:
    """As many descriptors are open after a test as before it."""
    before = opened()
    yield
    assert before == opened()


def opened() -> list[str]:
    """The files that descriptors of this process lead to; sockets and pipes of other tests come and go."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return sorted(path for path in found if path.startswith("/"))


@pytest.mark.usefixtures("descriptors")
def test_no_descriptor_leaks(teams: tuple[Path, Path]) -> None:
    """Over passes, seals, and refusals of every kind."""
    mallory, victim = teams
    with Ledger(victim) as ledger:
        ledger.compact()
        ledger.seal(now=True, segment_bytes=20_000)
        list(ledger.cat())
        list(ledger.trades())
    for name in FILES:
        path = mallory / name
        path.unlink(missing_ok=True)
        path.symlink_to(victim / LOG)
        with pytest.raises(LedgerError), Ledger(mallory) as ledger:
            ledger.compact()
            raise LedgerError(path, "temporaries are only removed")
        path.unlink(missing_ok=True)
        with Ledger(mallory) as ledger:
            if name == LOG:
                (mallory / LOG).write_bytes(orders(0, 300))
                shutil.rmtree(mallory / ".state")
            for derived in DERIVED:
                (mallory / derived).unlink(missing_ok=True)
            ledger.compact()


def test_a_link_below_team_is_a_problem_of_that_ledger_alone(teams: tuple[Path, Path]) -> None:
    """1.1: named at discovery already."""
    mallory, victim = teams
    (mallory / LOG).unlink()
    (mallory / LOG).symlink_to(victim / LOG)
    found = {entry.team_id: entry.problem for entry in discover(mallory.parent.parent)}
    assert found["victim"] is None
    assert f"events.jsonl is a symbolic link to {victim / LOG}" in str(found["mallory"])
