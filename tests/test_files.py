"""The door to the disk, on a real one: what is read and refused, what is durable when, and what nobody else may do."""

import errno
import os
import stat
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from compactor.ledger import files as files_module
from compactor.ledger import system_calls
from compactor.ledger.errors import IrregularFile
from compactor.ledger.files import Files, Identity, replace
from tests.test_system_calls import opened

Calls = list[tuple[str, str]]
KINDS = [
    (os.mkfifo, "a pipe"),
    (os.mkdir, "a directory"),
    (lambda path: os.symlink("elsewhere", path), "a symbolic link"),
]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What is made durable or gets a name from here on, in order: the call, and the name of the file."""
    made: Calls = []

    def record(name: str) -> None:
        real: Callable[..., Any] = getattr(os, name)

        def call(what: Any, *more: Any, **options: Any) -> Any:
            path = os.readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else str(what)
            made.append((name, Path(path).name))
            return real(what, *more, **options)

        monkeypatch.setattr(os, name, call)

    for name in ("fsync", "fdatasync", "rename", "unlink"):
        record(name)
    return made


class TestReading:
    def test_a_file_is_read_up_to_the_limit_and_refused_above_it(self, tmp_path: Path) -> None:
        """What is read whole is small; anything larger is refused with its size before a byte of it is read."""
        path = tmp_path / "head"
        path.write_bytes(b"12345")
        assert b"12345" == Files().read(path, 5) == Files().read(path)
        with pytest.raises(OSError, match="expected a file of at most 4 bytes, found 5") as refused:
            Files().read(path, 4)
        assert (errno.EOVERFLOW, str(path)) == (refused.value.errno, refused.value.filename)
        assert None is Files().read(tmp_path / "none")

    @pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5 << 19])
    def test_a_file_holds_exactly_its_bytes(self, tmp_path: Path, size: int) -> None:
        """Compared from the first byte to the last, whatever the length."""
        path, data = tmp_path / "pending", bytes(range(256)) * (size // 256) + bytes(size % 256)
        path.write_bytes(data)
        assert Files().holds(path, data)
        assert not Files().holds(path, data + b"\n")
        assert not Files().holds(tmp_path / "none", data)
        for at in {0, size // 2, size - 1} if size else ():
            other = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            assert not Files().holds(path, other)
        if size:
            assert not Files().holds(path, data[:-1])

    def test_a_private_file_is_read_up_to_a_limit_with_its_rights(self, tmp_path: Path) -> None:
        """Whoever reads a key has to know who else may."""
        path = tmp_path / "key"
        path.write_bytes(b"secret and more")
        path.chmod(0o640)
        data, found = Files().read_private(path, 6)
        assert (b"secret", 0o640, os.getuid()) == (data, stat.S_IMODE(found.st_mode), found.st_uid)

    def test_which_file_it_is_and_how_long(self, tmp_path: Path) -> None:
        """By its path and through its open file alike; nothing is None."""
        path = tmp_path / "log"
        path.write_bytes(b"123")
        reader = Files().open(path)
        found = path.stat()
        assert Identity(found.st_dev, found.st_ino, 3) == Files().identity(path) == reader.identity()
        reader.close()
        assert None is Files().identity(tmp_path / "none") is Files().identity(tmp_path / "no directory/log")

    @pytest.mark.parametrize(("make", "kind"), KINDS)
    def test_what_is_no_regular_file_is_named(self, tmp_path: Path, make: Callable[[Path], None], kind: str) -> None:
        """Whatever asks for it, and its path is told."""
        make(tmp_path / "trades")
        for use in (Files().identity, Files().open, Files().read):
            with pytest.raises(IrregularFile, match=f"expected a regular file, found {kind}") as refused:
                use(tmp_path / "trades")
            assert str(tmp_path / "trades") == refused.value.filename

    def test_names_and_times_of_a_directory(self, tmp_path: Path) -> None:
        """None and nothing where there is no directory."""
        (tmp_path / "segments").mkdir()
        (tmp_path / "segments/one").touch()
        os.utime(tmp_path / "segments", ns=(1, 12345))
        assert (["one"], 12345) == (Files().names(tmp_path / "segments"), Files().changed(tmp_path / "segments"))
        assert ([], None) == (Files().names(tmp_path / "none"), Files().changed(tmp_path / "none"))

    def test_a_file_without_holes_is_data_and_a_hole_is_none(self, tmp_path: Path) -> None:
        """From any offset on; behind the last data comes the end of the file."""
        path = tmp_path / "log"
        with path.open("wb") as file:
            file.seek(1 << 20)
            file.write(b"x" * 4096)
            file.truncate(3 << 20)
        reader = Files().open(path)
        if reader.data_from(0) == 0:
            pytest.skip("this file system has no holes")
        places = [reader.data_from(at) for at in (0, 1 << 20, (1 << 20) + 7, 2 << 20, 4 << 20)]
        reader.close()
        assert [1 << 20, 1 << 20, (1 << 20) + 7, 3 << 20, 3 << 20] == places

    @pytest.mark.parametrize(("number", "expected"), [(errno.EINVAL, 7), (errno.EIO, None)])
    def test_where_holes_cannot_be_told_all_is_data(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: int | None
    ) -> None:
        """A file system without SEEK_DATA; a disk that fails is another matter."""

        def refuse(*_: object) -> int:
            raise OSError(number, "no")

        path = tmp_path / "log"
        path.write_bytes(b"123")
        reader = Files().open(path)
        monkeypatch.setattr(os, "lseek", refuse)
        if expected is not None:
            assert expected == reader.data_from(7)
        else:
            with pytest.raises(OSError) as raised:
                reader.data_from(7)
            assert (errno.EIO, str(path)) == (raised.value.errno, raised.value.filename)
        reader.close()


class TestDurability:
    """What a power loss may take is known: bytes are made durable before the name that leads to them."""

    def test_a_replaced_file_survives_whole_under_its_name(self, tmp_path: Path, calls: Calls) -> None:
        """First its bytes, then its name, then the directory; the temporary name of an earlier try is gone."""
        (tmp_path / "pending.tmp").write_bytes(b"left behind")
        replace(Files(), tmp_path / "pending", [b"a", bytearray(b"b")])
        assert [
            ("unlink", "pending.tmp"), ("fsync", "pending.tmp"), ("rename", "pending.tmp"), ("fsync", tmp_path.name),
        ] == calls  # fmt: skip
        assert b"ab" == (tmp_path / "pending").read_bytes()

    def test_a_hint_need_not_survive_under_its_name(self, tmp_path: Path, calls: Calls) -> None:
        """Without `durable` the old version may be back after a power loss; never half of the new one."""
        replace(Files(), tmp_path / "pending", [b"a"], durable=False)
        assert [("unlink", "pending.tmp"), ("fsync", "pending.tmp"), ("rename", "pending.tmp")] == calls

    def test_a_private_file_survives_with_its_name(self, tmp_path: Path, calls: Calls) -> None:
        """A key that was shown to somebody must not be lost."""
        Files().create_private(tmp_path / "key", b"secret")
        assert [("fsync", "key"), ("fsync", tmp_path.name)] == calls

    def test_what_is_asked_to_be_durable_is(self, tmp_path: Path, calls: Calls) -> None:
        """A derived file, a directory's names, and a log through its open file."""
        (tmp_path / "trades").write_bytes(b"1")
        Files().sync(tmp_path / "trades")
        Files().sync_directory(tmp_path)
        reader = Files().open(tmp_path / "trades")
        reader.sync()
        reader.close()
        assert [("fsync", "trades"), ("fsync", tmp_path.name), ("fdatasync", "trades")] == calls

    @pytest.mark.parametrize("call", ["fsync", "fdatasync"])
    def test_a_sync_that_fails_names_the_file_and_leaves_no_descriptor(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
    ) -> None:
        """The kernel tells of a write that failed at the sync, and only once."""

        def fail(_: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        path = tmp_path / "trades"
        path.write_bytes(b"1")
        before = opened()
        reader = Files().open(path)
        monkeypatch.setattr(os, call, fail)
        with pytest.raises(OSError) as raised:
            reader.sync() if call == "fdatasync" else Files().sync(path)
        reader.close()
        assert (errno.EIO, str(path), before) == (raised.value.errno, raised.value.filename, opened())

    def test_a_version_that_fails_half_way_leaves_nothing(self, tmp_path: Path) -> None:
        """Neither a file nor a descriptor; the old version stays."""

        def parts() -> Any:
            yield b"half"
            raise OSError(errno.EIO, "cannot read the rest")

        (tmp_path / "pending").write_bytes(b"old")
        before = opened()
        with pytest.raises(OSError, match="cannot read the rest"):
            replace(Files(), tmp_path / "pending", parts())
        assert ({"pending": b"old"}, before) == ({one.name: one.read_bytes() for one in tmp_path.iterdir()}, opened())


class TestWriting:
    def test_appended_bytes_follow_each_other_in_a_file_that_is_made(self, tmp_path: Path) -> None:
        """Whatever the kernel takes at once."""
        for data in (b"one\n", b"two\n"):
            Files().append(tmp_path / "trades", data)
        assert b"one\ntwo\n" == (tmp_path / "trades").read_bytes()

    def test_a_file_that_another_process_makes_at_the_same_moment_is_used(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between the look and the making; nobody's bytes are lost."""
        real = system_calls.open_file
        path = tmp_path / "events.jsonl"

        def late(target: Path, flags: int, directory: int) -> int:
            if flags & os.O_CREAT:
                path.write_bytes(b"theirs\n")
            return real(target, flags, directory)

        monkeypatch.setattr(files_module, "open_file", late)
        descriptor = Files().open_or_create(path, os.O_WRONLY | os.O_APPEND)
        os.write(descriptor, b"ours\n")
        os.close(descriptor)
        assert b"theirs\nours\n" == path.read_bytes()

    def test_a_file_whose_rights_cannot_be_given_is_closed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The error is told; no descriptor leaks in a daemon that tries again for ever."""

        def refuse(*_: object) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        before = opened()
        monkeypatch.setattr(os, "fchmod", refuse)
        with pytest.raises(PermissionError):
            Files().append(tmp_path / "trades", b"1")
        assert before == opened()

    def test_a_derived_file_is_cut_back_and_removed(self, tmp_path: Path) -> None:
        """What a failed pass appended is taken back; removing what is not there is no error."""
        path = tmp_path / "trades"
        path.write_bytes(b"12345")
        before = opened()
        Files().truncate(path, 3)
        assert b"123" == path.read_bytes()
        for _ in range(2):
            Files().remove(path)
        assert (False, before) == (path.exists(), opened())

    def test_a_private_file_is_for_its_owner_alone_and_never_overwritten(self, tmp_path: Path) -> None:
        """One that a killed run left empty is made anew; one with content is another key."""
        path = tmp_path / "key"
        path.touch(0o644)
        before = opened()
        Files().create_private(path, b"1")
        assert (b"1", 0o600) == (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
        with pytest.raises(FileExistsError):
            Files().create_private(path, b"another")
        assert (b"1", before) == (path.read_bytes(), opened())

    def test_a_second_name_leads_to_the_same_file_and_must_be_free(self, tmp_path: Path) -> None:
        """A point is a second name of a checkpoint."""
        (tmp_path / "points").mkdir()
        one, other = tmp_path / "checkpoint.0", tmp_path / "points/1"
        one.write_bytes(b"1")
        Files().link(one, other)
        assert one.samefile(other)
        with pytest.raises(FileExistsError):
            Files().link(one, other)

    def test_errors_carry_the_whole_path(self, tmp_path: Path) -> None:
        """Files are opened by their name in an opened directory; people are told where it lies."""
        for use in (Files().open, Files().sync, lambda path: Files().truncate(path, 0)):
            with pytest.raises(FileNotFoundError) as raised:
                use(tmp_path / "none")
            assert str(tmp_path / "none") == raised.value.filename
        with pytest.raises(FileNotFoundError) as raised:
            Files().rename(tmp_path / "none", tmp_path / "some")
        assert str(tmp_path / "none") == raised.value.filename

    def test_a_directory_is_made_once(self, tmp_path: Path) -> None:
        """Whoever asks is told whether it is new; what it holds stays."""
        path = tmp_path / ".state"
        assert Files().make_directory(path)
        (path / "checkpoint.0").touch()
        assert not Files().make_directory(path)
        assert ["checkpoint.0"] == os.listdir(path)

    @pytest.mark.parametrize(("number", "is_error"), [(errno.EPERM, False), (errno.EACCES, True)])
    def test_only_a_log_that_may_not_be_opened_at_all_is_an_error(
        self, number: int, is_error: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A log that may only be appended to is kept whole."""

        def refuse(_self: Files, path: Path, _flags: int) -> int:
            raise PermissionError(number, "refused", str(path))

        monkeypatch.setattr(Files, "_open", refuse)
        with pytest.raises(PermissionError) if is_error else nullcontext():
            assert Files().punch(tmp_path / "events.jsonl", 0, 4096) is False

    def test_a_log_that_may_only_be_appended_to_is_kept_whole(self, tmp_path: Path) -> None:
        """`chattr +a`: no space is given back, and that is no error."""
        path = tmp_path / "events.jsonl"
        path.write_bytes(b"x" * 8192)
        if subprocess.run(["chattr", "+a", path], capture_output=True).returncode:
            pytest.skip("this file system or user cannot set the attribute")
        try:
            assert Files().punch(path, 0, 4096) is False
        finally:
            subprocess.run(["chattr", "-a", path], check=True)
        before = opened()
        if Files().punch(path, 0, 4096):
            assert bytes(4096) + b"x" * 4096 == path.read_bytes()
        assert before == opened()


class TestWithin:
    def test_a_directory_that_is_kept_open_is_used_below_until_its_end(self, tmp_path: Path) -> None:
        """Also from within itself; afterwards its path counts again, and no descriptor stays."""
        files, path, before = Files(), tmp_path / "alpha", opened()
        (path / ".state").mkdir(parents=True)
        with files.within(path), files.within(path):
            path.rename(tmp_path / "aside")
            path.mkdir()
            files.append(path / "trades", b"1")
            files.append(path / ".state/lock", b"2")
        files.append(path / "trades", b"3")
        found = [(tmp_path / name).read_bytes() for name in ("aside/trades", "aside/.state/lock", "alpha/trades")]
        assert ([b"1", b"2", b"3"], before) == (found, opened())


class TestLock:
    def test_the_holder_is_written_over_what_stood_there(self, tmp_path: Path) -> None:
        """The lock names its last holder and nobody else."""
        path = tmp_path / "lock"
        path.write_bytes(b"1234567890\n1234567890\n")
        descriptor = Files().acquire(path)
        assert descriptor is not None
        assert f"{os.getpid()}\n".encode() == path.read_bytes()
        Files().release(descriptor)

    def test_a_second_one_gets_none_until_it_is_released(self, tmp_path: Path) -> None:
        """And costs no descriptor; the first is released also where a child still has it."""
        path, before = tmp_path / "lock", opened()
        first = Files().acquire(path)
        assert first is not None
        inherited = os.dup(first)
        assert None is Files().acquire(path)
        Files().release(first)
        second = Files().acquire(path)
        assert second is not None
        Files().release(second)
        os.close(inherited)
        assert before == opened()
