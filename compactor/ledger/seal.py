"""Sealing: move the finished range of a log into compressed segments, and give its space in the log back.

Reading segments is left to `segments`; the caller holds the ledger's lock.

Invariant: the log is never cut or renamed. A hole is punched into its beginning, and only over bytes that were compared
with a durable segment. A run that is stopped loses nothing, and the next run completes it.
"""

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from secrets import token_hex
from typing import Literal

from msgspec import Struct

from compactor.ledger.compaction import Compactor
from compactor.ledger.errors import SegmentDamaged
from compactor.ledger.files import Files, replace
from compactor.ledger.indexing import complete_indexes
from compactor.ledger.log import Log, open_log
from compactor.ledger.segment_format import (
    HOLE_BYTES_MIN,
    KEPT_BYTES,
    Seal,
    check_file,
    encode_seal,
    parse_segment_name,
    read_piece,
    seal_name,
)
from compactor.ledger.segment_writer import SegmentWriter, build_tree, find_line_end, find_recorded_at
from compactor.ledger.segments import Segments

FRAME_BYTES = 1 << 20
_BLOCK_BYTES = 4096

Reclaim = Literal["punch", "never"]
Due = Literal["asked", "old", "grown"]


class Sealed(Struct, frozen=True):
    """What a run did: so many new `segments` hold `sealed_bytes` of log in `file_bytes`, and `punched_bytes` of the log
    gave their space back. `reclaim` is `unsupported` where the file system cannot. `total_*` are those of the ledger.
    """

    segments: int
    sealed_bytes: int
    file_bytes: int
    punched_bytes: int
    reclaim: Literal["punch", "never", "unsupported"]
    total_segments: int
    total_bytes: int


def plan_seal(
    *, waiting_bytes: int, oldest: datetime | None, at: datetime, segment_bytes: int, segment_age: timedelta, now: bool
) -> Due | None:
    """Why the bytes that wait behind the last seal are to be sealed, or None. `oldest` is when the first of them was
    recorded, as far as that can be read. What has only `grown` is sealed in full segments, the rest goes on waiting."""
    if waiting_bytes <= 0:
        return None
    if now:
        return "asked"
    if oldest is not None and at - oldest >= segment_age:
        return "old"
    return "grown" if waiting_bytes >= segment_bytes else None


class Sealer:
    """Seals the log of one ledger, whose lock the caller holds."""

    def __init__(self, compactor: Compactor, files: Files) -> None:
        self._compactor = compactor
        self._files = files
        self._has_completed = False
        self._lacks_indexes = False

    def run(
        self,
        *,
        segment_bytes: int,
        segment_age: timedelta,
        reclaim: Reclaim,
        now: bool,
        at: datetime | None,
        frame_bytes: int = FRAME_BYTES,
    ) -> Sealed:
        """Seal what is due, after a compaction with a checkpoint; the first run completes what an earlier process left.

        Returns when the segments are durable. Costs a look at the log where nothing is due. Raises LedgerError; no
        derived file and no byte that can be read is then another than before.
        """
        path, segments = self._compactor.path, self._compactor.segments
        due = self._due(segment_bytes, segment_age, now, at or datetime.now(UTC))
        folded = self._compactor.run(checkpoint=True) if due else None
        end = folded.offset if folded is not None else segments.sealed_end
        done = _Done(reclaim)
        if due or (not self._has_completed and segments.seals):
            self._lacks_indexes = True
            with open_log(path, self._files, segments, doing="sealing the log", again="seal again") as log:
                run = _Run(self._files, segments, log, frame_bytes, done, folded.team_id if folded else "")
                run.seal_up_to(end, segment_bytes, partial=due != "grown")
        self._has_completed = True
        return Sealed(
            done.segments, done.sealed_bytes, done.file_bytes, done.punched_bytes, done.reclaim,
            len(segments.seals), segments.sealed_end,
        )  # fmt: skip

    def is_due(self, *, segment_bytes: int, segment_age: timedelta, at: datetime | None = None) -> bool:
        """Whether a run would seal something. Needs no lock. Raises LedgerError."""
        return self._due(segment_bytes, segment_age, False, at or datetime.now(UTC)) is not None

    def complete_indexes(self) -> None:
        """After a run, make the indexes that are not there; needs no lock. Raises LedgerError."""
        if not self._lacks_indexes:
            return
        path, segments = self._compactor.path, self._compactor.segments
        with open_log(path, self._files, segments, doing="making the index of a segment", again="seal again") as log:
            complete_indexes(self._files, segments, log)
        self._lacks_indexes = False

    def _due(self, segment_bytes: int, segment_age: timedelta, now: bool, at: datetime) -> Due | None:
        with open_log(
            self._compactor.path, self._files, self._compactor.segments, doing="sealing the log", again="seal again"
        ) as log:
            sealed, size = self._compactor.segments.sealed_end, log.identity().size
            waiting = log.end_of_whole_lines(size) - sealed
            oldest = find_recorded_at(log, sealed, size)
            return plan_seal(
                waiting_bytes=waiting, oldest=oldest, at=at, segment_bytes=segment_bytes, segment_age=segment_age,
                now=now,
            )  # fmt: skip


class _Done(Struct):
    """What a run has done so far: the numbers of `Sealed`."""

    reclaim: Literal["punch", "never", "unsupported"]
    segments: int = 0
    sealed_bytes: int = 0
    file_bytes: int = 0
    punched_bytes: int = 0


class _Run:
    """One run over an open log."""

    def __init__(self, files: Files, segments: Segments, log: Log, frame_bytes: int, done: _Done, team_id: str) -> None:
        self._files = files
        self._segments = segments
        self._log = log
        self._frame_bytes = frame_bytes
        self._done = done
        self._team_id = team_id
        self._compared: set[int] = set()
        """The first offsets of the segments that this run has compared with the log, byte for byte."""

    def seal_up_to(self, end: int, segment_bytes: int, partial: bool) -> None:
        """Seal up to the end of a line, with `partial` also what is less than a segment, and give the space back."""
        # A log that a power loss leaves shorter than its segments would be refused.
        self._log.sync()
        directory = self._segments.path
        self._files.make_directory(directory)
        self._files.sync_directory(directory.parent)
        for name in self._files.names(directory):
            if name.endswith(".tmp"):
                self._files.remove(directory / name)
        self._give_back()
        while (start := self._segments.sealed_end) < end and (partial or end - start >= segment_bytes):
            stop = find_line_end(self._log, start, min(end, start + segment_bytes), end)
            self._seal(start, stop)
            self._give_back()
        self._remove_unsealed()

    def _seal(self, start: int, stop: int) -> None:
        """Make one segment: write it, read it back, and only then say that it is sealed."""
        tree = build_tree(self._segments, self._segments.seals)
        ledger_id = self._segments.ledger_id or token_hex(16)
        writer = SegmentWriter(self._log, start, stop, self._frame_bytes, tree, self._team_id, ledger_id)
        directory = self._segments.path
        replace(self._files, directory / writer.name, writer.frames())
        seal = writer.seal(self._segments.last_digest)
        self._read_back(seal)
        data = encode_seal(seal)
        replace(self._files, directory / seal_name(seal.name), [data])
        self._segments.append(seal, data)
        self._compared.add(start)
        self._done.segments += 1
        self._done.sealed_bytes += stop - start
        self._done.file_bytes += seal.file_bytes

    def _read_back(self, seal: Seal) -> None:
        """Compare the file of a segment, through the decompressor, with the log. Raises SegmentDamaged."""
        path = self._segments.path / seal.name
        reader = self._files.open(path)
        try:
            check_file(path, seal, reader)
            for number in range(len(seal.frames)):
                piece = read_piece(self._segments.path, seal, reader, number)
                if piece.data != self._log.read(piece.start, len(piece.data)):
                    what = f"expected the bytes of the log from {piece.start} on, found others when reading it back"
                    hint = "the disk or the memory may be failing. The log is kept whole; check both and seal again"
                    raise SegmentDamaged(path, f"{what}; {hint}")
        finally:
            reader.close()

    def _give_back(self) -> None:
        """Punch what is sealed out of the log, segment by segment, each only after it was compared with the log."""
        if self._done.reclaim != "punch":
            return
        target = _whole_blocks(self._segments.sealed_end - KEPT_BYTES)
        hole = self._log.data_from(0)
        if target < HOLE_BYTES_MIN or hole >= target:
            return
        hole = _whole_blocks(hole)
        for seal in self._segments.seals_from(hole):
            self._compare(seal)
            stop = min(target, _whole_blocks(seal.end))
            if stop < HOLE_BYTES_MIN or stop <= hole:
                continue
            if not self._files.punch(self._log.path, hole, stop - hole):
                self._done.reclaim = "unsupported"
                return
            self._done.punched_bytes += stop - hole
            hole = stop

    def _compare(self, seal: Seal) -> None:
        """Compare all of a segment that an earlier run made with its seal, and with what the log still has of it.

        Raises SegmentDamaged.
        """
        if seal.start in self._compared:
            return
        path, content = self._segments.path / seal.name, sha256()
        for piece in self._segments.pieces(seal):
            content.update(piece.data)
            offset = _find_difference(piece.data, self._log.read_raw(piece.start, len(piece.data)), piece.start)
            if offset is not None:
                what = f"expected the bytes that the log has from {offset} on, found others in the segment"
                hint = "it belongs to another log, or one of the two was changed. The log is kept as it is, and nothing"
                raise SegmentDamaged(path, f"{what}: {hint} of it is given back. Restore the segments directory")
        if content.hexdigest() != seal.content_sha256:
            what = f"expected content with SHA-256 {seal.content_sha256}, found {content.hexdigest()}"
            raise SegmentDamaged(path, f"{what}. The log is kept as it is; seal again")
        self._compared.add(seal.start)

    def _remove_unsealed(self) -> None:
        """Remove segments of runs that were stopped before the seal, where what they hold is sealed by now."""
        sealed = {seal.name for seal in self._segments.seals}
        for name in self._files.names(self._segments.path):
            found = parse_segment_name(name)
            if found is not None and name not in sealed and found[1] <= self._segments.sealed_end:
                self._files.remove(self._segments.path / name)


def _whole_blocks(offset: int) -> int:
    """The end of the last whole block before an offset. Where blocks are larger, the rest of one is only overwritten
    with NULs."""
    return offset // _BLOCK_BYTES * _BLOCK_BYTES


def _find_difference(sealed: bytes, raw: bytes, start: int) -> int | None:
    """The offset of the first block of the log that holds data other than the segment's; None where there is none.

    A block of nothing but NULs is a hole: its space was given back already. `start` is the offset of the first byte.
    """
    if sealed == raw:
        return None
    offset = 0
    while offset < len(sealed):
        stop = _whole_blocks(start + offset) + _BLOCK_BYTES - start
        block = raw[offset:stop]
        if block != sealed[offset:stop] and block.strip(b"\0"):
            return start + offset
        offset = stop
    return None
