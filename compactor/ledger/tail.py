"""Append to a derived file (`trades.jsonl`, `findings.jsonl`) from the length that a checkpoint covers.

A crash after an append leaves bytes that the checkpoint does not know of. They must be a prefix of what the fold
derives again; the rest is appended. Anything else was written by somebody else, and the ledger stops without touching
the file. After a new fold version a file that differs because the rules have changed is kept under another name
(`set_aside`, section 7).
"""

from pathlib import Path

from compactor.ledger.checkpoint import FOLD_VERSION, TAIL_BYTES, CheckpointHeader, PrefixDigest, checksum
from compactor.ledger.errors import DerivedConflict
from compactor.ledger.files import Files
from compactor.ledger.paths import FINDINGS, TRADES

PIECE_BYTES = 1 << 20


class Tail:
    """A derived file from the length on that is known to be right."""

    def __init__(self, path: Path, files: Files, known: PrefixDigest | None = None) -> None:
        self.path = path
        self._files = files
        self.length = known.length if known is not None else 0
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._recent = b""
        self._start: int | None = None
        # Known once a pass has begun.
        self._size: int
        self._is_new: bool
        self.unsynced: bool
        """Whether the file holds bytes that may not be durable."""

    def fits(self, known: PrefixDigest) -> bool:
        """Whether the file still begins as the checkpoint left it: as far as its length and its last 4 KiB tell."""
        identity = self._files.identity(self.path)
        if identity is None or identity.size < known.length:
            return known.length == 0
        return checksum(self._read(max(0, known.length - TAIL_BYTES), known.length)) == known.tail

    def begin(self) -> None:
        """Begin a pass: look at how much is there."""
        identity = self._files.identity(self.path)
        self._size = identity.size if identity is not None else 0
        if self._size < self.length:
            raise DerivedConflict(self.path, f"expected at least {self.length} bytes, found {self._size}")
        # What an earlier pass appended may not have been synced before it was stopped.
        self.unsynced = self._size > self.length
        self._start = self._size
        self._is_new = self.length == 0

    def put(self, data: bytes) -> None:
        """Let these bytes follow; they reach the file in pieces, and at the latest when the pass commits."""
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes >= PIECE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Bring what is waiting to the file: what is there already is compared, the rest appended."""
        data = b"".join(self._waiting)
        self._waiting, self._waiting_bytes = [], 0
        present = min(len(data), self._size - self.length)
        if present:
            found = self._read(self.length, self.length + present)
            if found != data[:present]:
                self._conflict(data[:present], found)
        if present < len(data):
            # Counted before it is done: an append that fails half way is taken back too.
            self._size += len(data) - present
            self.unsynced = True
            self._files.append(self.path, data[present:])
        self.length += len(data)
        self._recent = (self._recent + data[-TAIL_BYTES:])[-TAIL_BYTES:]

    def finish(self) -> None:
        """Nothing more follows in this pass: what is there beyond is foreign."""
        if self._size > self.length:
            self._conflict(b"", self._read(self.length, min(self._size, self.length + 120)))

    def sync(self) -> None:
        """Make the file durable, and its name when the file may be new."""
        self._files.sync(self.path)
        if self._is_new:
            self._files.sync_directory(self.path.parent)
        self.unsynced = False

    def keep(self) -> None:
        """What was appended so far is committed: it will not be taken back."""
        self._start = self._size

    def end(self) -> None:
        """The pass is over."""
        self._start = None

    def roll_back(self) -> None:
        """A pass failed: take back what it appended, so that the file is as it was."""
        start, self._start = self._start, None
        if start is None or self._size <= start:
            return
        if start:
            self._files.truncate(self.path, start)
        else:
            self._files.remove(self.path)

    def digest(self) -> PrefixDigest:
        """What a checkpoint says of this file."""
        tail = self._recent
        if len(tail) < min(self.length, TAIL_BYTES):
            tail = self._read(max(0, self.length - TAIL_BYTES), self.length)
        return PrefixDigest(self.length, checksum(tail))

    def _read(self, start: int, end: int) -> bytes:
        reader = self._files.open(self.path)
        try:
            return reader.read(start, end - start)
        finally:
            reader.close()

    def _conflict(self, expected: bytes, found: bytes) -> None:
        same = find_difference(expected, found)
        offset = self.length + same
        wanted = f"expected {expected[same : same + 60]!r}" if expected[same:] else "expected the end of the file"
        raise DerivedConflict(
            self.path,
            f"at offset {offset} {wanted}, found {found[same : same + 60]!r}. The log does not say that: somebody else"
            " wrote to this file, or an old version of it or of the log was put back. Nothing was changed. If that"
            " was the log, put the newer one back; otherwise move the file away and compact again: it is rebuilt from"
            " the log",
        )


def find_difference(one: bytes, other: bytes) -> int:
    """The index of the first byte in which two texts differ; where one begins the other, the length of the shorter."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (ours, theirs) in pairs if ours != theirs), min(len(one), len(other)))


def find_upgrade(header: CheckpointHeader, trades: Tail, findings: Tail, files: Files) -> int | None:
    """The older fold version that derived what the files hold beyond a checkpoint; None where that is this version, or
    where a file is not as the older version left it."""
    if header.fold_version >= FOLD_VERSION:
        return header.upgrades
    for tail, left in ((trades, header.trades), (findings, header.findings)):
        is_kept = files.identity(_name_kept(tail.path, header.fold_version)) is not None
        if not is_kept and not tail.fits(left):
            return None
    return header.fold_version


def set_aside(path: Path, fold_version: int | None, files: Files) -> str | None:
    """Keep a file that an older fold version derived under another name, and return that; None for any other file."""
    if fold_version is None or path.name not in (TRADES, FINDINGS):
        return None
    kept = _name_kept(path, fold_version)
    if files.identity(kept) is not None:
        return None
    files.rename(path, kept)
    files.sync_directory(path.parent)
    return kept.name


def _name_kept(path: Path, fold_version: int) -> Path:
    return path.with_name(f"{path.name}.fold-{fold_version}")
