"""The logs that a writer keeps open all day: each batch durable, and no descriptor that leads elsewhere by now."""

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compactor import DiskFull, LedgerUnreadable, RejectedEvents
from compactor.ledger import log_writer
from compactor.ledger.log_writer import (
    OpenLogs,
    append_lines,
    check_events,
    encode_event,
    find_problem,
    make_ledger,
    write_lines,
)
from tests.cases import LOG
from tests.test_system_calls import opened

LINE = b'{"event":"new"}\n'
EVENT = {"event": "new", "order_id": "o", "ts": "2026-03-02T10:00:00Z"}


@pytest.fixture
def logs(data: Path) -> Iterator[OpenLogs]:
    """None is open after a test."""
    logs = OpenLogs()
    yield logs
    logs.close()
    assert [] == open_logs(data)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is made durable from here on, in order within a thread."""
    found: list[str] = []

    def record(name: str) -> None:
        real = getattr(os, name)

        def sync(descriptor: int) -> None:
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
            real(descriptor)

        monkeypatch.setattr(os, name, sync)

    record("fsync")
    record("fdatasync")
    return found


def open_logs(data: Path) -> list[str]:
    """The logs of a data directory that this process has open; other tests leave theirs open."""
    return [one for one in opened() if one.startswith(f"{data}/") and one.endswith(LOG)]


def paths_in(data: Path, count: int) -> list[Path]:
    return [data / "team" / f"t-{number}" for number in range(count)]


@pytest.mark.parametrize("count", [1, 3])
def test_a_batch_is_durable_with_the_names_of_new_logs(
    data: Path, logs: OpenLogs, synced: list[str], monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """The second one has no new names, and opens no log again."""
    paths = paths_in(data, count)
    assert {} == logs.append(dict.fromkeys(paths, LINE))
    for path in paths:
        assert {str(path / LOG), str(path), str(path.parent), str(data)} <= set(synced)
    kept = open_logs(data)
    synced.clear()
    monkeypatch.setattr(log_writer, "_opened", None)
    assert {} == logs.append(dict.fromkeys(paths, LINE))
    assert sorted(str(path / LOG) for path in paths) == sorted(synced) == kept
    assert [LINE * 2] * count == [(path / LOG).read_bytes() for path in paths]


@pytest.mark.parametrize("count", [2, 3])
def test_many_logs_are_synced_at_once(data: Path, logs: OpenLogs, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """A file system makes one commit of syncs that start together."""
    together = threading.Barrier(count, timeout=20)
    real = os.fdatasync

    def sync(descriptor: int) -> None:
        together.wait()
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", sync)
    assert {} == logs.append(dict.fromkeys(paths_in(data, count), LINE))


def test_a_log_that_was_replaced_is_opened_anew(data: Path, logs: OpenLogs) -> None:
    """By a restore, or because it was moved away: what is told goes where readers look."""
    path, other = paths_in(data, 2)
    logs.append({path: LINE, other: LINE})
    (path / LOG).rename(path / "aside")
    assert {} == logs.append({path: LINE})
    (path / LOG).rename(path / "aside too")
    (path / LOG).write_bytes(b"")
    assert {} == logs.append({path: LINE, other: LINE})
    found = [(path / name).read_bytes() for name in ("aside", "aside too", LOG)]
    assert ([LINE] * 3, LINE * 2) == (found, (other / LOG).read_bytes())


@pytest.mark.parametrize("call", ["write", "fdatasync"])
def test_a_log_that_fails_stops_no_other_and_is_opened_anew(
    data: Path, logs: OpenLogs, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """After a failed sync the kernel takes pages for clean that never reached the disk: the descriptor is not used."""
    path, other = paths_in(data, 2)
    logs.append({path: LINE, other: LINE})
    real = getattr(os, call)

    def fail(descriptor: int, *more: Any) -> Any:
        if os.readlink(f"/proc/self/fd/{descriptor}") == str(path / LOG):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, *more)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        failed = logs.append({path: LINE, other: LINE})
    assert [path] == list(failed)
    assert isinstance(failed[path], DiskFull) and failed[path].path == path / LOG
    assert [str(other / LOG)] == open_logs(data)
    assert {} == logs.append({path: LINE, other: LINE})
    assert LINE * 3 == (other / LOG).read_bytes()


def test_a_name_that_could_not_be_made_durable_is_tried_again(
    data: Path, logs: OpenLogs, monkeypatch: pytest.MonkeyPatch, synced: list[str]
) -> None:
    """Nothing is written before; the next try finds a log without a byte, and makes its name durable first."""
    path, real = paths_in(data, 1)[0], os.fsync

    def fail(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}") == str(path):
            raise OSError(errno.EIO, "Input/output error")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        assert [path] == list(logs.append({path: LINE}))
        with pytest.raises(LedgerUnreadable, match="not acknowledged"):
            append_lines(path / LOG, [LINE], "sync")
    assert b"" == (path / LOG).read_bytes()
    for again in (lambda: logs.append({path: LINE}), lambda: append_lines(path / LOG, [LINE], "sync")):
        (path / LOG).write_bytes(b"")
        synced.clear()
        again()
        assert str(path) in synced
        assert LINE == (path / LOG).read_bytes()


def test_no_more_stay_open_than_there_may(data: Path, logs: OpenLogs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are closed first, after the batch; the others stay."""
    monkeypatch.setattr(log_writer, "OPEN_MAX", 2)
    paths = paths_in(data, 4)
    threads = set(threading.enumerate())
    logs.append(dict.fromkeys(paths, LINE))
    assert [str(path / LOG) for path in paths[2:]] == open_logs(data)
    for _ in range(2):
        logs.close()
        assert [] == open_logs(data)
        assert [] == [one.name for one in set(threading.enumerate()) - threads if one.name.startswith("log-sync")]
        assert {} == logs.append(dict.fromkeys(paths, LINE))


def test_a_batch_of_nothing_is_durable(data: Path, logs: OpenLogs) -> None:
    """And lines of nothing write nothing."""
    assert {} == logs.append({})
    path = paths_in(data, 1)[0]
    make_ledger(path)
    descriptor = os.open(path / LOG, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    assert 0 == write_lines(descriptor, b"", path / LOG)
    os.write(descriptor, b"torn")
    assert (4, 5) == (write_lines(descriptor, b"", path / LOG), write_lines(descriptor, LINE, path / LOG))
    os.close(descriptor)
    assert b"torn\n" + LINE == (path / LOG).read_bytes()


def test_an_append_that_fails_says_how_much_is_not_acknowledged(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One event or many; and the descriptor is closed."""
    path = paths_in(data, 1)[0]
    make_ledger(path)

    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", fail)
    for lines, told in (
        ([LINE], "appending one event, which is not acknowledged"),
        ([LINE] * 2, "2 events, which are"),
    ):
        with pytest.raises(DiskFull, match=told):
            append_lines(path / LOG, lines, "sync")
    assert [] == open_logs(data)


def test_directories_that_are_there_keep_their_rights(data: Path) -> None:
    """Only those that are made are opened to readers."""
    (data / "team").mkdir(mode=0o700)
    make_ledger(data / "team/alpha")
    assert (0o700, 0o755) == tuple(path.stat().st_mode & 0o777 for path in (data / "team", data / "team/alpha"))


class TestRoom:
    """A line that would be too long goes without the broker's message, where that is wanted."""

    def test_the_message_is_left_out_and_nothing_else(self) -> None:
        """Only where it has to be."""
        long = {**EVENT, "raw": "x" * (1 << 20), "colour": "blue"}
        line = encode_event(long, "S", drop_raw=True)
        assert line == encode_event({**EVENT, "colour": "blue"}, "S")
        short = {**EVENT, "raw": "x"}
        assert encode_event(short, "S", drop_raw=True) == encode_event(short, "S")
        assert not isinstance(encode_event(long, "S"), bytes)

    def test_nothing_is_left_out_unasked(self) -> None:
        """A line that somebody appends is taken as it is, or refused."""
        long = {**EVENT, "raw": "x" * (1 << 20)}
        with pytest.raises(RejectedEvents, match="too_long"):
            check_events(Path("log"), [long], None)
        assert 1 == len(check_events(Path("log"), [long], None, drop_raw=True))

    def test_what_is_too_long_without_it_is_a_problem(self) -> None:
        """With its length."""
        found = find_problem({**EVENT, "raw": "x", "colour": "b" * (1 << 20)})
        assert found is not None and "too_long" == found.kind
        assert None is find_problem({**EVENT, "raw": "x" * (1 << 20)})
        assert find_problem({**EVENT, "event": None}) is not None
