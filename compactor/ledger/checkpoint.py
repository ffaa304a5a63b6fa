"""The checkpoint: the fold's state as of an offset of the log, in two alternating slots (format.md section 7).

A slot is a small header, the open orders, and pages that are read only when an event asks for them (spans of ended
orders, marks of forgotten ones), so that starting costs the same after ten thousand events as after ten million.
Everything carries a checksum; what does not match is damage, and damage is never an error: the other slot serves, or
the log is folded from its first byte.
"""

import secrets
import struct
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from hashlib import blake2b
from pathlib import Path

import msgspec
from msgspec import Struct

from compactor.core.archive import NO_SECRET, PRIME, Archive, BloomFilter
from compactor.core.clock import Ahead, LogClock
from compactor.core.derived import Counts
from compactor.core.fold import Fold, OpenOrder, Recall
from compactor.ledger.files import Files, Reader, replace

FORMAT = 5
"""The layout of this file."""
FOLD_VERSION = 8
"""What the fold means; a change of it makes every ledger fold its log again, checked against the trades already
written."""

SLOTS = ("checkpoint.0", "checkpoint.1")
TAIL_BYTES = 4096
_MAGIC = b"compactor checkpoint\n"
_HEAD = struct.Struct("<I16s")


def checksum(data: bytes | bytearray) -> bytes:
    """Sixteen bytes that tell damage."""
    return blake2b(data, digest_size=16).digest()


class PrefixDigest(Struct, array_like=True):
    """A prefix of a file that the checkpoint covers: its `length`, and a digest of its last 4 KiB, its `tail`."""

    length: int = 0
    tail: bytes = checksum(b"")


class Chunk(Struct, array_like=True, gc=False):
    """A part of a slot: where it lies behind the header, and its checksum."""

    start: int
    length: int
    checksum: bytes


class CheckpointHeader(Struct):
    """The header of a slot; the chunks follow it."""

    format: int
    fold_version: int
    generation: int
    team_id: str
    names_team: bool
    clock: datetime | None
    counts: Counts
    inode: int
    log: PrefixDigest
    trades: PrefixDigest
    findings: PrefixDigest
    open_orders: Chunk
    spans: list[Chunk]
    marks: list[Chunk]
    marked: list[int]
    """How many order ids each generation of the filter has taken."""
    ahead: Ahead | None = None
    """The event whose time waits to be confirmed (6.1)."""
    intents: dict[str, int] = {}
    """The intents without an outcome, with the offsets of their events (rule 3.13)."""
    upgrades: int | None = None
    """The fold version that derived what stands in trades and findings beyond this checkpoint, where that is older."""
    secret: int = NO_SECRET
    """What the fingerprints of order ids in spans and marks are made with; drawn when the log was folded from its
    first byte."""


class DamagedCheckpoint(Exception):
    """A slot whose bytes are not those that were written."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path}: {what}")
        self.path = path


_decode_header = msgspec.msgpack.Decoder(CheckpointHeader).decode
_decode_open = msgspec.msgpack.Decoder(dict[str, OpenOrder]).decode


class Slot:
    """A slot that was opened: its header is good, its chunks are checked when they are read."""

    def __init__(self, path: Path, reader: Reader) -> None:
        self.path = path
        self._reader = reader
        length = len(_MAGIC) + _HEAD.size
        head = reader.read(0, 1 << 16)
        if len(head) < length or not head.startswith(_MAGIC):
            raise DamagedCheckpoint(path, "it does not begin as a checkpoint does")
        size, expected = _HEAD.unpack_from(head, len(_MAGIC))
        self.base = length + size
        """Where its chunks begin."""
        body = head[length : self.base] if len(head) >= self.base else reader.read(length, size)
        if checksum(body) != expected:
            raise DamagedCheckpoint(path, "its header does not match its checksum")
        try:
            self.header = _decode_header(body)
        except msgspec.DecodeError as error:
            raise DamagedCheckpoint(path, f"its header cannot be read: {error}") from None

    def read(self, chunk: Chunk) -> bytes:
        """The bytes of a chunk. Raises DamagedCheckpoint."""
        data = self._reader.read(self.base + chunk.start, chunk.length) if chunk.length else b""
        if checksum(data) != chunk.checksum:
            raise DamagedCheckpoint(
                self.path, f"bytes {chunk.start} to {chunk.start + chunk.length} do not match their checksum"
            )
        return data

    def _page(self, chunks: list[Chunk]) -> Callable[[int], bytes]:
        return lambda number: self.read(chunks[number]) if number < len(chunks) else b""

    def restore(self, recall: Recall, retention: timedelta | None) -> Fold:
        """The fold as it was. Raises DamagedCheckpoint."""
        header = self.header
        fold = Fold(None if header.names_team else header.team_id, recall, retention)
        fold.log_clock = LogClock(header.clock, header.ahead)
        fold.counts = msgspec.structs.replace(header.counts, kinds=dict(header.counts.kinds))
        fold.intents = dict(header.intents)
        fold.stored = _decode_open(self.read(header.open_orders))
        forgotten = BloomFilter(header.marked, self._page(header.marks), header.secret)
        fold.archive = Archive(len(header.spans), self._page(header.spans), forgotten)
        return fold

    def close(self) -> None:
        """Close the file; pages that were not read yet cannot be read any more."""
        self._reader.close()


def encode_slot(
    fold: Fold,
    generation: int,
    inode: int,
    log: PrefixDigest,
    trades: PrefixDigest,
    findings: PrefixDigest,
    upgrades: int | None = None,
) -> list[bytes | bytearray]:
    """A slot for the state of a fold, as the parts of its bytes: the pages of marks are not copied."""
    parts: list[bytes | bytearray] = []
    size = 0

    def chunk(data: bytes | bytearray) -> Chunk:
        nonlocal size
        parts.append(data)
        size += len(data)
        return Chunk(size - len(data), len(data), checksum(data))

    def chunks(pages: Iterable[bytes | bytearray]) -> list[Chunk]:
        return [chunk(page) for page in pages]

    header = CheckpointHeader(
        FORMAT, FOLD_VERSION, generation, fold.team_id, fold.names_team, fold.clock, fold.counts, inode,
        log, trades, findings,
        open_orders=chunk(msgspec.msgpack.encode(fold.store_open())),
        # The spans come first: storing them may add marks.
        spans=chunks(fold.store_ended()),
        marks=chunks(fold.archive.marks.pages()),
        marked=fold.archive.marks.counts,
        ahead=fold.log_clock.ahead,
        intents=fold.intents,
        upgrades=upgrades,
        secret=fold.archive.marks.secret,
    )  # fmt: skip
    body = msgspec.msgpack.encode(header)
    return [_MAGIC, _HEAD.pack(len(body), checksum(body)), body, *parts]


def open_slot(path: Path, files: Files) -> Slot:
    """Open a checkpoint or a point. Raises DamagedCheckpoint and OSError; nothing stays open then."""
    reader = files.open(path)
    try:
        return Slot(path, reader)
    except BaseException:
        reader.close()
        raise


def open_newest_slot(state: Path, files: Files, on_damage: Callable[[DamagedCheckpoint], None]) -> Slot | None:
    """The newest slot of a ledger whose header is good; `on_damage` is called for each that is not."""
    newest: Slot | None = None
    try:
        for name in SLOTS:
            try:
                slot = open_slot(state / name, files)
            except FileNotFoundError:
                continue
            except DamagedCheckpoint as damage:
                on_damage(damage)
                continue
            older = slot
            if newest is None or slot.header.generation > newest.header.generation:
                newest, older = slot, newest or slot
            if older is not newest:
                older.close()
    except BaseException:
        if newest is not None:
            newest.close()
        raise
    return newest


def draw_secret() -> int:
    """A secret for the fingerprints of order ids, which nobody who writes a log can know."""
    return 1 + secrets.randbelow(PRIME - 1)


def begin_fold(team_id: str | None, recall: Recall, retention: timedelta | None) -> Fold:
    """The state before the first byte of a log, with a secret of its own."""
    fold = Fold(team_id, recall, retention)
    fold.archive = Archive(marks=BloomFilter(secret=draw_secret()))
    return fold


class Slots:
    """The two slots of a ledger."""

    def __init__(self, state: Path, files: Files) -> None:
        self._state = state
        self._files = files
        self._next = 0
        self.damaged: list[str] = []
        """What was found damaged, for people."""

    def open_newest(self) -> Slot | None:
        """The newest slot whose header is good; damaged ones are set aside."""
        newest = open_newest_slot(self._state, self._files, self.set_aside)
        if newest is not None:
            self._next = 1 - SLOTS.index(newest.path.name)
        return newest

    def set_aside(self, damage: DamagedCheckpoint) -> None:
        """Rename a damaged slot, so that the other one serves and people can look at it."""
        self.damaged.append(str(damage))
        self._files.rename(damage.path, damage.path.with_name(damage.path.name + ".damaged"))

    def write(self, parts: Iterable[bytes | bytearray]) -> Path:
        """Write a checkpoint to the slot that is not the newest; returns its path when it is durable."""
        path = self._state / SLOTS[self._next]
        replace(self._files, path, parts)
        self._next = 1 - self._next
        return path
