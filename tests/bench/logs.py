"""The logs that are measured on: made once, and brought back to their first state before each use.

Note: a log is synced and read once before it is handed out, so that every program finds it in the
cache of the file system and none pays for writing back what the generator left dirty.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import msgspec

from tests.bench import generate

DEFAULT_WORK = Path(tempfile.gettempdir()) / "compactor-bench"
_MADE = "made.json"  # Written last, so that a generator that was stopped leaves nothing that looks whole.
_READ_BYTES = 1 << 20


def prepared(work: Path, events: int, ledgers: int, seed: int = generate.SEED) -> Path:
    """A data directory with `events` lines over `ledgers` ledgers and nothing derived, read once."""
    data = work / f"events-{events}-ledgers-{ledgers}-seed-{seed}"
    if not _is_current(data):
        shutil.rmtree(data, ignore_errors=True)
        made = generate.generate(data, events, ledgers, seed=seed)
        sizes = {str(log.relative_to(data)): log.stat().st_size for log in made}
        (data / _MADE).write_bytes(msgspec.json.encode({"source": _source(), "sizes": sizes}))
    remove_derived(data)
    for name, size in _made(data)["sizes"].items():
        # What an earlier benchmark appended goes away again; this log belongs to the benchmark and to nobody else.
        os.truncate(data / name, size)
        _warm(data / name)
    return data


def logs_of(data: Path) -> list[Path]:
    """The logs of a data directory, by team."""
    return sorted(data.glob("team/*/events.jsonl"))


def bytes_of(data: Path) -> int:
    """The bytes of all logs of a data directory."""
    return sum(log.stat().st_size for log in logs_of(data))


def remove_derived(data: Path) -> None:
    """Remove everything but the logs from every ledger, so that the next pass is a cold one."""
    for log in logs_of(data):
        for path in log.parent.iterdir():
            if path == log:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _is_current(data: Path) -> bool:
    return (data / _MADE).exists() and _made(data)["source"] == _source()


def _made(data: Path) -> dict[str, dict[str, int]]:
    return msgspec.json.decode((data / _MADE).read_bytes(), type=dict[str, dict[str, int]])


def _source() -> dict[str, int]:
    """What changes when the generator does, so that logs of another generator are not taken for this one's."""
    return {"crc32": generate.fingerprint()}


def _warm(log: Path) -> None:
    with log.open("rb", buffering=0) as file:
        os.fsync(file.fileno())
        while file.read(_READ_BYTES):
            pass
