"""Make the indexes of segments and keep them beside their seals; make one that is missing or damaged again.

The format of an index is in `index`, the ids that a line names in `names`. Invariant: an index is a pure function of
its segment. It does not matter who makes it, and where the directory may not be written it is made in memory.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

from compactor.ledger.files import Files
from compactor.ledger.index import (
    STRETCHES_MAX,
    BadIndex,
    Bounds,
    Header,
    Index,
    Read,
    encode_index,
    encode_names,
    index_name,
)
from compactor.ledger.log import Log
from compactor.ledger.names import (
    UNREADABLE,
    Named,
    collect_names,
    decode_named,
    find_names,
    first_team,
    get_ids,
    truncate_to_second,
)
from compactor.ledger.segments import Seal, Segments

Result = TypeVar("Result")
_get_team = attrgetter("team_id")


def make_index(log: Log, seal: Seal) -> bytes:
    """The bytes of the index of a segment, a pure function of the segment. Raises SegmentDamaged."""
    happened, recorded, told = Bounds(), Bounds(), True
    team: tuple[str, int] | None = None
    codes: list[int] = []
    starts: list[int] = []
    offset = seal.start
    for end in _plan_ends(seal):
        start, names = offset, set[str]()
        for block in log.blocks(offset, end):
            offset = block.end
            if block.too_long:
                told = False
                continue
            batch, odd = _decode(block.data, names)
            _take_names(batch, names)
            told &= _take_instants(batch, happened, recorded) and not odd
            if team is None and (odd or set(map(_get_team, batch)) != {None}):
                team = first_team(block.data, block.offset)
        if offset > start:
            codes += encode_names(names, len(starts))
            starts.append(start - seal.start)
    return encode_index(seal, starts, told, team, happened, recorded, codes)


def _plan_ends(seal: Seal) -> list[int]:
    """Where stretches are to end: with every frame, or with every so many of them."""
    ends = [seal.start + start for start, _ in seal.frames[1:]] + [seal.end]
    step = -(-len(ends) // STRETCHES_MAX)
    return ends[::-1][::step][::-1]


def _decode(data: bytes, names: set[str]) -> tuple[list[Named], bool]:
    """The lines of a block that can be decoded, and whether there are others, whose names are taken in."""
    lines = data.split(b"\n")
    lines.pop()
    try:
        return list(map(decode_named, lines)), False
    except UNREADABLE:
        batch = []
    for line in lines:
        try:
            batch.append(decode_named(line))
        except UNREADABLE:
            names |= find_names(line)
    return batch, True


def _take_names(batch: list[Named], names: set[str]) -> None:
    found = set[str | None]().union(*zip(*map(get_ids, batch), strict=True))
    names.update(filter(None, found))
    for named in batch:
        if named.legs:
            names |= collect_names(named)


def _take_instants(batch: list[Named], happened: Bounds, recorded: Bounds) -> bool:
    """Take in when lines happened and were recorded; whether all of them tell that."""
    seconds = {truncate_to_second(named.ts) for named in batch}
    known = {truncate_to_second(named.recorded_at or named.ts) for named in batch}
    happened.add(set(filter(None, seconds)))
    recorded.add(set(filter(None, known)))
    return None not in seconds | known


class Indexes:
    """The indexes of the sealed segments of an open log; what is missing or damaged is made again when it is needed."""

    def __init__(self, log: Log, segments: Segments, files: Files) -> None:
        self._log = log
        self._segments = segments
        self._files = files
        self._known: dict[int, Header] = {}
        self._made: dict[int, bytes] = {}
        """Those that had to be made again, by where their segments begin."""

    def stretches(self, name: str) -> Iterator[tuple[int, int]]:
        """The ranges of whole lines among what is sealed in which a line may name an id, in order.

        Raises SegmentDamaged where an index has to be made and its segment is not whole.
        """
        for seal in list(self._segments.seals):
            yield from self._use(seal, lambda index, read: index.stretches(name, read))

    def header(self, seal: Seal) -> Header:
        """What the index of a segment says of the whole of it. Raises SegmentDamaged likewise."""
        if seal.start not in self._known:
            self._known[seal.start] = self._use(seal, lambda index, read: index.header)
        return self._known[seal.start]

    def _use(self, seal: Seal, use: Callable[[Index, Read], Result]) -> Result:
        if seal.start not in self._made:
            try:
                reader = self._files.open(self._segments.path / index_name(seal))
                try:
                    return use(Index(reader.read, reader.identity().size, seal), reader.read)
                finally:
                    reader.close()
            except (BadIndex, OSError):
                self._made[seal.start] = self._make(seal)
        data = self._made[seal.start]
        read: Read = lambda offset, length: data[offset : offset + length]  # noqa: E731
        return use(Index(read, len(data), seal), read)

    def _make(self, seal: Seal) -> bytes:
        data = make_index(self._log, seal)
        # Whoever may not write here has it in memory.
        with suppress(OSError):
            _write(self._files, self._segments.path / index_name(seal), data)
        return data


def complete_indexes(files: Files, segments: Segments, log: Log) -> None:
    """Make every index that is not there. Raises OSError and SegmentDamaged; what is sealed stays as it is."""
    names = set(files.names(segments.path))
    for seal in segments.seals:
        if index_name(seal) not in names:
            # A run that begins meanwhile removes what looks left over: then the next one makes it.
            with suppress(FileNotFoundError):
                _write(files, segments.path / index_name(seal), make_index(log, seal))


def _write(files: Files, path: Path, data: bytes) -> None:
    """Put an index in place, whole or not at all. Not synced with its directory: one that is lost is made again."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        files.write_new(temporary, [data])
        files.rename(temporary, path)
    except OSError:
        # What is half written must not keep a full disk full.
        with suppress(OSError):
            files.remove(temporary)
        raise
