"""A backup whose run stops at any of its steps is restored, read, and gone on with; what is missing in it is mended."""

import errno
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from compactor import Ledger
from compactor.books import backup as books_backup
from compactor.books.backup import back_up, restore
from compactor.books.manifest import MANIFEST
from compactor.ledger.files import Files
from compactor.verify.run import verify_all
from tests.cases import LOG
from tests.disk import Stopped
from tests.faults import orders
from tests.test_backup import append, kind, log_in, only

SEGMENT = 60_000


class StoppedFiles(Files):
    """Real files; `stop_at` is the call that changes something which does half of its work, and no more."""

    calls = 0
    stop_at = 0
    error: Callable[[Path], BaseException] = Stopped

    def _stops(self, path: Path, half: Callable[[], object] | None = None) -> None:
        """Count a call."""
        StoppedFiles.calls += 1
        if StoppedFiles.calls == StoppedFiles.stop_at:
            if half is not None:
                half()
            raise StoppedFiles.error(path)

    def append(self, path: Path, data: bytes) -> None:
        self._stops(path, lambda: Files.append(self, path, data[: len(data) // 2]))
        super().append(path, data)

    def truncate(self, path: Path, length: int) -> None:
        self._stops(path)
        super().truncate(path, length)

    def write_new(self, path: Path, parts: Iterable[bytes | bytearray]) -> None:
        data = b"".join(parts)
        self._stops(path, lambda: Files.write_new(self, path, [data[: len(data) // 2]]))
        super().write_new(path, [data])

    def rename(self, source: Path, target: Path) -> None:
        self._stops(source)
        super().rename(source, target)

    def make_directory(self, path: Path) -> bool:
        self._stops(path)
        return super().make_directory(path)

    def punch(self, path: Path, start: int, length: int) -> bool:
        self._stops(path, lambda: Files.punch(self, path, start, length // 2 // 4096 * 4096))
        return super().punch(path, start, length)


def seal(path: Path) -> None:
    """Seal all of the log."""
    with Ledger(path) as ledger:
        ledger.seal(now=True, segment_bytes=SEGMENT)


@pytest.fixture
def alpha(data: Path) -> Path:
    """A ledger with two segments, and lines behind them."""
    path = data / "team/alpha"
    path.mkdir(parents=True)
    (path / LOG).write_bytes(orders(0, 300))
    seal(path)
    append(path, orders(300, 310))
    return path


def edit(log: Path, old: bytes, new: bytes) -> None:
    """Put another log with some other bytes in the place of a log that is not sealed."""
    log.write_bytes(log.read_bytes().replace(old, new))


def bytes_below(path: Path) -> dict[str, bytes]:
    """All files of a directory."""
    return {str(one.relative_to(path)): one.read_bytes() for one in path.rglob("*") if one.is_file()}


def full(path: Path) -> OSError:
    """What a disk without room says."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


@pytest.mark.parametrize("error", [Stopped, full], ids=["killed", "full"])
@pytest.mark.parametrize("is_first", [False, True], ids=["further", "first"])
def test_a_backup_that_stops_anywhere_is_restored_and_gone_on_with(
    alpha: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Callable[[Path], BaseException],
    is_first: bool,
) -> None:
    """What the last finished run copied, or more, is restored and read; the next run finishes it."""
    before, old = tmp_path / "before", b""
    if not is_first:
        only(back_up(data, before))
        old = log_in(before / "team/alpha")
        append(alpha, orders(310, 600))
        seal(alpha)
        append(alpha, orders(600, 610))
    log = log_in(alpha)
    monkeypatch.setattr(books_backup, "Files", StoppedFiles)
    monkeypatch.setattr(StoppedFiles, "error", error)
    stop, finished = 0, False
    while not finished:
        stop += 1
        target, again = tmp_path / f"backup-{stop}", tmp_path / f"again-{stop}"
        if not is_first:
            shutil.copytree(before, target)
        monkeypatch.setattr(StoppedFiles, "calls", 0)
        monkeypatch.setattr(StoppedFiles, "stop_at", stop)
        try:
            done = back_up(data, target)
            finished = StoppedFiles.calls < stop
            assert finished or kind(done) == "disk_full"
        except Stopped:
            pass
        monkeypatch.setattr(StoppedFiles, "stop_at", 0)
        if (target / "team/alpha" / LOG).exists():
            only(restore(target, again))
            restored = log_in(again / "team/alpha")
            assert restored.startswith(old) and log.startswith(restored) and restored.endswith(b"\n"), stop
            assert not verify_all(again).verdicts[0].differences, stop
            assert not verify_all(target).verdicts[0].differences, stop
            assert log.startswith(log_in(target / "team/alpha")), stop
        else:
            assert is_first
        only(back_up(data, target))
        assert log == log_in(target / "team/alpha"), stop
        if stop % 4 == 0:
            only(restore(target, tmp_path / f"finished-{stop}"))
            assert log == log_in(tmp_path / f"finished-{stop}/team/alpha"), stop
        for one in (target, again):
            shutil.rmtree(one, ignore_errors=True)
    assert stop > 12


def test_a_run_beside_another_one_vouches_for_nothing(
    alpha: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two timers that overlap append the same lines; the manifest stays, and the next run puts it right."""
    target = tmp_path / "backup"
    only(back_up(data, target))
    old = log_in(target / "team/alpha")
    append(alpha, orders(310, 400))

    class TwoRuns(Files):
        def append(self, path: Path, data: bytes) -> None:
            super().append(path, data)
            super().append(path, data)

    monkeypatch.setattr(books_backup, "Files", TwoRuns)
    assert "backup_conflict" == kind(back_up(data, target))
    monkeypatch.undo()
    only(restore(target, tmp_path / "again"))
    assert old == log_in(tmp_path / "again/team/alpha")
    only(back_up(data, target))
    assert log_in(alpha) == log_in(target / "team/alpha")


def test_another_longer_sealed_log_is_refused_and_the_backup_stays(data: Path, tmp_path: Path) -> None:
    """Everything that the backup has is compared before anything is copied."""
    path, target = data / "team/alpha", tmp_path / "backup"
    path.mkdir(parents=True)
    (path / LOG).write_bytes(orders(0, 100))
    only(back_up(data, target))
    before = bytes_below(target)
    shutil.rmtree(path)
    path.mkdir()
    (path / LOG).write_bytes(orders(1000, 1800))
    seal(path)
    assert "backup_conflict" == kind(back_up(data, target))
    assert before == bytes_below(target)


def test_a_ledger_of_the_same_bytes_that_was_sealed_by_itself_is_another_one(data: Path, tmp_path: Path) -> None:
    """Its seals have an id of their own, so that later ones would not follow those of the backup."""
    path, target = data / "team/alpha", tmp_path / "backup"
    path.mkdir(parents=True)
    (path / LOG).write_bytes(orders(0, 300))
    seal(path)
    only(back_up(data, target))
    before = bytes_below(target)
    shutil.rmtree(path)
    path.mkdir()
    (path / LOG).write_bytes(orders(0, 300))
    seal(path)
    assert "backup_conflict" == kind(back_up(data, target))
    assert before == bytes_below(target)


@pytest.mark.parametrize("is_sealed", [False, True])
def test_a_log_that_was_edited_and_then_sealed_is_refused(data: Path, tmp_path: Path, is_sealed: bool) -> None:
    """Also where the backup had some of its seals before."""
    path, target = data / "team/alpha", tmp_path / "backup"
    path.mkdir(parents=True)
    (path / LOG).write_bytes(orders(0, 300))
    if is_sealed:
        seal(path)
        append(path, orders(300, 500))
    only(back_up(data, target))
    before, log = bytes_below(target), log_in(path)
    shutil.rmtree(path / ".state", ignore_errors=True)
    # In the middle of what the backup has without a seal.
    middle = log.index(b'"o-400"' if is_sealed else b'"o-100"')
    with (path / LOG).open("r+b") as file:
        file.seek(middle)
        file.write(b'"X')
    for name in ("trades.jsonl", "findings.jsonl", "pending_orders.jsonl"):
        (path / name).unlink(missing_ok=True)
    append(path, orders(500, 900))
    seal(path)
    assert "backup_conflict" == kind(back_up(data, target))
    assert before == bytes_below(target)


def test_a_backup_with_seals_that_the_ledger_lacks_is_refused(alpha: Path, data: Path, tmp_path: Path) -> None:
    """Lines would else be appended to another history than their own."""
    target = tmp_path / "backup"
    only(back_up(data, target))
    before, log = bytes_below(target), log_in(alpha)
    shutil.rmtree(alpha / "segments")
    (alpha / LOG).write_bytes(log.replace(b'"o-7"', b'"X-7"') + orders(700, 710))
    assert "backup_conflict" == kind(back_up(data, target))
    assert before == bytes_below(target)


@pytest.mark.parametrize("damage", ["gone", "short", "long", "all", "seals"])
def test_a_segment_that_the_backup_lost_is_copied_again(alpha: Path, data: Path, tmp_path: Path, damage: str) -> None:
    """A segment is there only where its file is, with the size that its seal says."""
    target = tmp_path / "backup"
    only(back_up(data, target))
    directory = target / "team/alpha/segments"
    first = sorted(directory.glob("*.zst"))[0]
    if damage == "gone":
        first.unlink()
    elif damage == "all":
        shutil.rmtree(directory)
    elif damage == "seals":
        for one in directory.glob("*.seal.json"):
            one.unlink()
        first.write_bytes(bytes(first.stat().st_size))
    else:
        os.truncate(first, first.stat().st_size + (10 if damage == "long" else -10))
    assert only(back_up(data, target)).new_segments == (2 if damage == "all" else 1)
    assert log_in(alpha) == log_in(target / "team/alpha")
    only(restore(target, tmp_path / "again"))
    assert not verify_all(tmp_path / "again").verdicts[0].differences


def test_a_log_that_the_backup_lost_a_part_of_is_made_whole(alpha: Path, data: Path, tmp_path: Path) -> None:
    """Its bytes come from the ledger again."""
    target = tmp_path / "backup"
    only(back_up(data, target))
    copied = target / "team/alpha" / LOG
    for size in (copied.stat().st_size - 100, 0):
        os.truncate(copied, size)
        only(back_up(data, target))
        assert log_in(alpha) == log_in(target / "team/alpha")
    copied.unlink()
    only(back_up(data, target))
    assert log_in(alpha) == log_in(target / "team/alpha")
    only(restore(target, tmp_path / "again"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ((b'"format":1', b'"format":2'), "newer version"),
        ((b'"format":1', b'"format":0'), "format 1"),
        ((b'"team_id":"alpha"', b'"team_id":"bravo"'), "'bravo'"),
        ((b'"start":', b'"start":-'), "start"),
        ((b'"start":', b'"start":9999999'), "start"),
        ((b'"log_bytes":', b'"log_bytes":-'), "log_bytes"),
        ((b'"log_bytes":', b'"log_bytes":9'), "log"),
        ((b'"sha256":"', b'"sha256":"x'), "hexadecimal"),
        ((b"{", b"["), "another file"),
    ],
)  # fmt: skip
def test_a_manifest_that_makes_no_sense_is_refused(
    alpha: Path, data: Path, tmp_path: Path, change: tuple[bytes, bytes], told: str
) -> None:
    """Neither a backup nor a restore goes by it, and nothing is changed."""
    target = tmp_path / "backup"
    only(back_up(data, target))
    edit(target / "team/alpha" / MANIFEST, *change)
    append(alpha, orders(800, 810))
    before = bytes_below(target)
    for done in (back_up(data, target), restore(target, tmp_path / "again")):
        (one,) = done
        assert one.error is not None
        assert one.error.kind == "backup_conflict"
        assert told in one.error.message
    assert before == bytes_below(target)
    assert not (tmp_path / "again/team/alpha" / LOG).exists()


@pytest.mark.parametrize("log_bytes", [0, 100])
def test_a_manifest_that_tells_of_less_than_there_is_cuts_nothing(data: Path, tmp_path: Path, log_bytes: int) -> None:
    """Its SHA-256 has to be that of the log."""
    path, target = data / "team/alpha", tmp_path / "backup"
    path.mkdir(parents=True)
    (path / LOG).write_bytes(orders(0, 50))
    only(back_up(data, target))
    size = str((path / LOG).stat().st_size).encode()
    edit(target / "team/alpha" / MANIFEST, b'"log_bytes":' + size, b'"log_bytes":%d' % log_bytes)
    before = bytes_below(target)
    assert "backup_conflict" == kind(back_up(data, target))
    assert before == bytes_below(target)


def test_a_manifest_that_ends_before_the_seals_is_not_restored(alpha: Path, data: Path, tmp_path: Path) -> None:
    """A ledger whose log is shorter than its seals would be refused by every reader."""
    target = tmp_path / "backup"
    only(back_up(data, target))
    manifest = (target / "team/alpha" / MANIFEST).read_bytes()
    seal(alpha)
    append(alpha, orders(310, 500))
    seal(alpha)
    only(back_up(data, target))
    (target / "team/alpha" / MANIFEST).write_bytes(manifest)
    (one,) = restore(target, tmp_path / "again")
    assert one.error is not None and "sealed" in one.error.message
    assert not (tmp_path / "again/team/alpha").exists()
