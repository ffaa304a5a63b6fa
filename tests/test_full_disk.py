"""A disk that is full at any call of any writer: one clear error, nothing is lost or left behind, and it goes on.

Every system call that may ask for room fails once, one after the other: all of them in `make faults`, a sample in
`make test`. `tests.test_sealing` and `tests.test_laws` do the same on a model of the disk, and `tests.faults` to the
real program.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from compactor import CompactorError, Ledger
from compactor.books.backup import back_up, restore
from compactor.daemon.health import Health
from compactor.daemon.presence import acquire, read_report
from compactor.proofs.keys import make_key, read_key
from compactor.proofs.publish import publish
from compactor.sync.state import AccountReconciled, read_reconciled, remember
from tests.cases import LOG, read_derived
from tests.faults import orders
from tests.test_system_calls import opened

CALLS = ("write", "pwrite", "fsync", "fdatasync", "rename", "replace", "link", "ftruncate", "mkdir")
TEAM = "alpha"
Do = Callable[[Path], object]


class Writer(NamedTuple):
    """Something that writes: `do` it below a directory that `before` has prepared, and `read` what came of it."""

    name: str
    before: Do
    do: Do
    read: Do


def ledger_in(root: Path) -> Path:
    """The one ledger."""
    return root / "data/team" / TEAM


def lay(root: Path) -> None:
    """A log that was folded, and lines behind it."""
    path = ledger_in(root)
    path.mkdir(parents=True)
    (path / LOG).write_bytes(orders(0, 60))
    with Ledger(path) as ledger:
        ledger.compact(checkpoint=True)
    with (path / LOG).open("ab") as log:
        log.write(orders(60, 120))


def lay_sealed(root: Path) -> None:
    """A ledger whose log is sealed, and a key."""
    lay(root)
    seal(root)
    make_key(root / "key", "example.org/desk")


def lay_backup(root: Path) -> None:
    """A ledger and its backup."""
    lay_sealed(root)
    save(root)


def leave(root: Path) -> None:
    """Nothing has to be there."""


def make(root: Path) -> None:
    make_key(root / "key", "example.org/desk")


def compact(root: Path) -> None:
    with Ledger(ledger_in(root)) as ledger:
        ledger.compact(checkpoint=True)


def seal(root: Path) -> None:
    with Ledger(ledger_in(root)) as ledger:
        ledger.seal(now=True, segment_bytes=8000)


def read_all(root: Path) -> tuple[object, ...]:
    """The log as it is read, what is derived of it, and the names of the sealed files."""
    path = ledger_in(root)
    log = b"".join(Ledger(path).cat())
    with Ledger(path) as ledger:
        ledger.compact()
    return log, read_derived(path), sorted(one.name for one in (path / "segments").glob("*"))


def append(root: Path) -> None:
    with Ledger(ledger_in(root)) as ledger:
        ledger.append([{"event": "new", "order_id": "last", "ts": "2026-03-02T14:30:00Z", "event_id": "once"}])


def sign(root: Path) -> None:
    publish(ledger_in(root), TEAM, key=read_key(root / "key"), witness=root / "witness")


def read_signed(root: Path) -> object:
    heads = sorted((ledger_in(root) / "segments").glob("*.head"))
    lines = [line for line in (root / "witness").read_bytes().splitlines() if line]
    return len(heads), len(set(lines))


def note_reconciled(root: Path) -> None:
    (root / "data/.compactor").mkdir(exist_ok=True, parents=True)
    remember(root / "data", {"default": AccountReconciled(through="2026-03-02T14:30:00Z")})


def report(root: Path) -> None:
    presence = acquire(root / "data")
    try:
        presence.publish(Health())
        assert read_report(root / "data") is not None
    finally:
        presence.close()


def save(root: Path) -> None:
    refuse(back_up(root / "data", root / "backup"))


def bring_back(root: Path) -> None:
    refuse(restore(root / "backup", root / "again"))


def refuse(copied: list[Any]) -> None:
    """Raise what a run says of its one ledger."""
    if copied[0].error is not None:
        raise CompactorError(copied[0].error.message)


WRITERS = (
    Writer("compact", lay, compact, read_all),
    Writer("append", lay, append, lambda root: read_all(root)[1]),
    Writer("seal", lay, seal, read_all),
    Writer("heads and witness", lay_sealed, sign, read_signed),
    Writer("key", leave, make, lambda root: read_key(root / "key").verifier.name),
    Writer("reconciled", lay, note_reconciled, lambda root: read_reconciled(root / "data")),
    Writer("presence", lay, report, lambda root: None),
    Writer("backup", lay_sealed, save, lambda root: b"".join(Ledger(root / "backup/team" / TEAM).cat())),
    Writer("restore", lay_backup, bring_back, lambda root: b"".join(Ledger(root / "again/team" / TEAM).cat())),
)  # fmt: skip


@contextmanager
def full_at(number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Let the call of this number, counted from 1, find no room; the calls so far."""
    calls: list[str] = []

    def counting(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*args: Any, **more: Any) -> Any:
            calls.append(name)
            if len(calls) == number:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args, **more)

        return call

    with monkeypatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, counting(name))
        yield calls


def choose_calls(calls: list[str]) -> list[int]:
    """The calls to fail: all, or each fifth and the first of each kind."""
    if os.environ.get("COMPACTOR_EVERY_CALL"):
        return list(range(1, len(calls) + 1))
    return sorted({*range(1, len(calls) + 1, 5), *(calls.index(name) + 1 for name in set(calls))})


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
def test_a_full_disk_at_any_call(writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever call fails, doing it again ends as if nothing had happened; no half file and no descriptor stays."""
    prepared, undisturbed = tmp_path / "prepared", tmp_path / "undisturbed"
    prepared.mkdir()
    writer.before(prepared)
    shutil.copytree(prepared, undisturbed, symlinks=True)
    with full_at(0, monkeypatch) as calls:
        writer.do(undisturbed)
    expected = writer.read(undisturbed)
    assert calls
    for number in choose_calls(calls):
        root = tmp_path / f"run-{number}"
        shutil.copytree(prepared, root, symlinks=True)
        before = opened()
        with full_at(number, monkeypatch) as made:
            try:
                writer.do(root)
            except (CompactorError, OSError) as error:
                assert "No space left" in str(error), (number, made[-1])
        assert before == opened(), (number, made[-1])
        assert [] == [path for path in root.rglob("*.tmp") if path.name != "events.jsonl.tmp"], (number, made[-1])
        writer.do(root)
        assert expected == writer.read(root), (number, made[-1])
        shutil.rmtree(root)
