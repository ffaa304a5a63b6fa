"""A team that can write its whole directory reads, writes, stalls and destroys nothing beyond it.

Each attack puts a link, a pipe or the like in place of a file of the ledger `mallory`; `victim` is another team's
ledger, or a file of the daemon. The link is named, the ledger stops alone, and nothing beyond it is read or written.
"""

import ctypes
import errno
import gc
import os
import select
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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


class Attacker:
    """Another process that attacks one data directory after the other, and is ended where that takes a minute."""

    SECONDS = 60
    PROGRAM = """
import sys
from pathlib import Path
from tests.test_system_calls import attack
for line in sys.stdin:
    attack(Path(line.removesuffix("\\n")))
    print("done", flush=True)
"""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def attack(self, path: Path) -> None:
        """Let it `attack`; fails with what it says where it fails or blocks."""
        if self._process is None:
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            self._process = subprocess.Popen(
                [sys.executable, "-c", self.PROGRAM], env=environment, text=True, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        print(path, file=self._process.stdin, flush=True)
        answers, _, _ = select.select([self._process.stdout], [], [], self.SECONDS)
        if not answers or (said := self._process.stdout.readline()) != "done\n":
            self._process.kill()
            rest = self.close()
            pytest.fail(said + rest if answers else f"it blocks for {self.SECONDS} s")

    def close(self) -> str:
        """End the process; what it has said last."""
        process, self._process = self._process, None
        return process.communicate()[0] if process is not None else ""


@pytest.fixture(scope="module")
def attacker() -> Iterator[Attacker]:
    one = Attacker()
    yield one
    one.close()


@pytest.mark.parametrize("name", [name for name in FILES if name not in ONLY_WRITTEN])
@pytest.mark.parametrize("make", [a_pipe, a_socket, a_directory, a_device])
def test_nothing_blocks(
    teams: tuple[Path, Path], attacker: "Attacker", name: str, make: Callable[[Path], None]
) -> None:
    """A pipe, socket, directory or device in place of any file is refused at once, by every command."""
    mallory, victim = teams
    (mallory / name).unlink()
    make(mallory / name)
    before = content(victim)
    attacker.attack(mallory)
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
    """The files that descriptors of this process lead to; sockets and pipes of other tests come and go, and what those
    forgot is closed first."""
    gc.collect()
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


class TestCalls:
    """Calls that do less than they were asked to, and what cannot be told apart without looking twice."""

    @pytest.mark.parametrize("at_once", [1, 3, 100])
    def test_all_bytes_are_written_and_read_however_few_at_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
    ) -> None:
        """A signal or a nearly full disk makes a short write; a file that is shorter than was asked for ends there."""
        path, write, pread = tmp_path / "trades", os.write, os.pread
        monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:at_once]))
        monkeypatch.setattr(os, "pread", lambda one, length, offset: pread(one, min(length, at_once), offset))
        Files().append(path, b"0123456789")
        reader = Files().open(path)
        found = [reader.read(at, length) for at, length in ((0, 10), (2, 5), (4, 100), (10, 1), (0, 0))]
        reader.close()
        assert [b"0123456789", b"23456", b"456789", b"", b""] == found

    def test_a_write_that_fails_names_the_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What was opened has no name of its own in the error."""

        def fail(*_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "write", fail)
        with pytest.raises(OSError) as raised:
            Files().append(tmp_path / "trades", b"1")
        assert (errno.ENOSPC, str(tmp_path / "trades")) == (raised.value.errno, raised.value.filename)

    @pytest.mark.parametrize(
        ("numbers", "outcome"),
        [
            ([0], True),
            ([errno.EINTR, errno.EINTR, 0], True),
            ([errno.EOPNOTSUPP], False),
            ([errno.ENOSYS], False),
            ([errno.EPERM], False),
            ([errno.EIO], errno.EIO),
            ([errno.EINTR, errno.ENOSPC], errno.ENOSPC),
        ],
    )
    def test_a_hole_is_punched_or_refused_or_fails(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbers: list[int], outcome: bool | int
    ) -> None:
        """A call that was interrupted is made again; where the file system cannot, the log is kept whole."""
        asked: list[tuple[int, ...]] = []

        def fallocate(*arguments: int) -> int:
            asked.append(arguments)
            ctypes.set_errno(numbers[len(asked) - 1])
            return -1 if ctypes.get_errno() else 0

        path = tmp_path / LOG
        path.write_bytes(b"x" * 8192)
        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: SimpleNamespace(fallocate=fallocate))
        if isinstance(outcome, bool):
            assert outcome is Files().punch(path, 4096, 8192)
        else:
            with pytest.raises(OSError) as raised:
                Files().punch(path, 4096, 8192)
            assert (outcome, str(path)) == (raised.value.errno, raised.value.filename)
        assert [(3, 4096, 8192)] * len(numbers) == [one[1:] for one in asked]

    def test_a_library_without_the_call_punches_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The log is kept whole."""
        path = tmp_path / LOG
        path.write_bytes(b"x")
        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: SimpleNamespace())
        assert Files().punch(path, 0, 1) is False

    def test_a_file_keeps_from_the_group_what_it_cannot_be_given(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another group than the log's must not read it instead."""
        if os.geteuid() != 0:
            pytest.skip("only root may give files to any group")
        (tmp_path / LOG).write_bytes(b"")
        os.chown(tmp_path / LOG, -1, 12345)
        (tmp_path / LOG).chmod(0o644)

        def refuse(*_: object) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "fchown", refuse)
        for mode, given in ((0o644, 0o604), (0o604, 0o604), (0o600, 0o600)):
            (tmp_path / LOG).chmod(mode)
            (tmp_path / "trades.jsonl").unlink(missing_ok=True)
            Files().append(tmp_path / "trades.jsonl", b"1")
            assert given == (tmp_path / "trades.jsonl").stat().st_mode & 0o777

    def test_a_file_of_ones_own_group_is_not_given_away(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who is not root may not even ask for another owner."""
        monkeypatch.setattr(os, "fchown", None)
        (tmp_path / LOG).write_bytes(b"")
        (tmp_path / LOG).chmod(0o640)
        Files().append(tmp_path / "trades.jsonl", b"1")
        assert 0o640 == (tmp_path / "trades.jsonl").stat().st_mode & 0o777

    def test_without_a_log_the_directory_decides_who_reads(self, tmp_path: Path) -> None:
        """What is private has no other reader."""
        (tmp_path / ".compactor").mkdir(0o700)
        for name, mode in (("witness", 0o644), (LOG, 0o644), (".compactor/lock", 0o600)):
            Files().append(tmp_path / name, b"1")
            assert mode == (tmp_path / name).stat().st_mode & 0o777

    @pytest.mark.parametrize(
        ("name", "may"),
        [
            (".state/checkpoint.0", True), (".state/points/00000000000000000001", True), (".state/lock", False),
            ("segments/checkpoint.0", False), (LOG, False),
        ],
    )  # fmt: skip
    def test_checkpoints_and_points_may_have_several_names(self, tmp_path: Path, name: str, may: bool) -> None:
        """1.1: of any other file nobody knows what else leads to it."""
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1")
        assert b"1" == Files().read(path)
        os.link(path, tmp_path / "other")
        if may:
            assert b"1" == Files().read(path)
        else:
            with pytest.raises(IrregularFile, match="expected a file with one name, found one with 2 names"):
                Files().read(path)

    def test_a_data_directory_may_be_reached_through_links_and_a_ledger_may_not(self, tmp_path: Path) -> None:
        """1.1: from `team/` on there are none; a directory that is itself a ledger may be one."""
        path = tmp_path / "real/team/alpha"
        (path / ".state").mkdir(parents=True)
        (path / ".state/lock").write_bytes(b"1")
        (tmp_path / "link").symlink_to(tmp_path / "real")
        (tmp_path / "own").symlink_to(path)
        assert b"1" == Files().read(tmp_path / "link/team/alpha/.state/lock")
        assert b"1" == Files().read(tmp_path / "own/.state/lock")
        (tmp_path / "real/team/bravo").symlink_to(path)
        before = opened()
        for use in (Files().read, Files().identity):
            with pytest.raises(IrregularFile, match="expected a directory, found a symbolic link") as raised:
                use(tmp_path / "real/team/bravo/.state/lock")
            assert str(tmp_path / "real/team/bravo") == raised.value.filename
        (path / ".state").rename(path / "aside")
        (path / ".state").symlink_to(path / "aside")
        for files in (Files(), Files()):
            with files.within(path), pytest.raises(IrregularFile, match="found a symbolic link"):
                files.read(path / ".state/lock")
        assert before == opened()

    def test_who_may_not_look_is_told_the_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An error that says nothing of what lies there is passed on as it is."""
        (tmp_path / LOG).write_bytes(b"1")
        real = os.open

        def refuse(name: str, *arguments: int, **options: Any) -> int:
            if name == LOG:
                raise OSError(errno.ELOOP, "Too many levels of symbolic links")
            return real(name, *arguments, **options)

        monkeypatch.setattr(os, "open", refuse)
        with pytest.raises(OSError) as raised:
            Files().read(tmp_path / LOG)
        assert (OSError, errno.ELOOP, str(tmp_path / LOG)) == (
            type(raised.value), raised.value.errno, raised.value.filename,
        )  # fmt: skip

    def test_only_our_own_private_directories_are_closed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What belongs to another user is theirs; what is for all stays so."""
        for name, mode in ((".state", 0o755), ("segments", 0o755), (".compactor", 0o711)):
            (tmp_path / name).mkdir()
            (tmp_path / name).chmod(mode)
            assert not Files().make_directory(tmp_path / name)
        found = [(tmp_path / name).stat().st_mode & 0o777 for name in (".state", "segments", ".compactor")]
        assert [0o700, 0o755, 0o700] == found
        (tmp_path / ".state").chmod(0o770)
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        Files().make_directory(tmp_path / ".state")
        assert 0o770 == (tmp_path / ".state").stat().st_mode & 0o777
