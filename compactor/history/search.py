"""Find the lines that name an id: through the index beside each seal, and by scanning what is not sealed.

Every candidate is compared with the line itself (`find_names`), so a wrong index costs time and never an answer.

Note: JSON may write an id with escapes (`\\u0061`), so lines with an escape are candidates too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence

from compactor.core.derived import Finding
from compactor.core.lines import Block, EventReader, Placed
from compactor.ledger.files import Files
from compactor.ledger.indexing import Indexes, find_names, first_team
from compactor.ledger.log import Log
from compactor.ledger.segments import Segments

Line = tuple[int, bytes]
"""A line without its newline, and its offset in the log."""

Piece = tuple[Placed | Finding, bytes]
"""An event, or a finding for other bytes, with its bytes."""

_PLAIN = re.compile(r"[^\"/\\\x00-\x1f\x7f-\U0010ffff]*")


class Finder:
    """Finds lines in one open log."""

    def __init__(self, log: Log, segments: Segments, files: Files) -> None:
        self.log = log
        self._segments = segments
        self.indexes = Indexes(log, segments, files)

    def lines(self, name: str) -> list[Line]:
        """The lines that name an id, in log order. Raises SegmentDamaged."""
        return [line for line, _named in self._find_lines([name])]

    def _find_lines(self, names: Collection[str]) -> Iterator[tuple[Line, list[str]]]:
        """The lines that name some ids, each with those of them that it names; for each id in log order."""
        end, sealed = self.log.identity().size, self._segments.sealed_end
        names = [name for name in names if name]
        stretches: dict[tuple[int, int], list[str]] = {}
        for name in names:
            for start, stop in self.indexes.stretches(name):
                if start < sealed:
                    stretches.setdefault((start, stop), []).append(name)
        for (start, stop), some in sorted(stretches.items()):
            yield from self._scan(some, start, stop)
        if names:
            yield from self._scan(names, sealed, end)

    def recall(self, order_id: str, first: int, end: int) -> Iterator[Line]:
        """Like `Log.lines_naming`, through the indexes: a fold that asks for old lines need not read all of them."""
        sealed = self._segments.sealed_end
        for start, stop in self.indexes.stretches(order_id) if first < sealed else ():
            if start < end and stop > first:
                for (offset, line), _named in self._scan([order_id], start, stop):
                    # An event may begin inside of its line, behind a torn fragment.
                    if first < offset + len(line) and offset < end:
                        yield offset, line
        if end > sealed:
            yield from self.log.lines_naming(order_id, max(first, sealed), end)

    def find_pieces(self, names: Collection[str], team_id: str) -> dict[str, list[Piece]]:
        """What stands in the lines that name each of some ids: events of the ledger's team, and findings for all other
        bytes. Each line is read once, however many of the ids it names."""
        found: dict[str, list[Piece]] = {name: [] for name in names}
        reader = EventReader(team_id)
        for (offset, line), named in self._find_lines(found):
            pieces = list(reader.read_block(Block(offset, line + b"\n", len(line) + 1)))
            for name in named:
                found[name] += pieces
        return found

    def piece_at(self, offset: int, team_id: str) -> Placed | None:
        """The event at an offset, if one of the ledger's team begins there."""
        for block in self.log.blocks(offset, self.log.identity().size):
            if not block.too_long:
                line = block.data[: block.data.index(b"\n")]
                first = next(iter(EventReader(team_id).read_line(line, offset)), None)
                return first if isinstance(first, Placed) and first.offset == offset else None
            break
        return None

    def team(self) -> tuple[str, int] | None:
        """The team that the first event with a `team_id` names, and where it stands."""
        for seal in list(self._segments.seals):
            found = self.indexes.header(seal).team
            if found is not None:
                return found
        for block in self.log.blocks(self._segments.sealed_end, self.log.identity().size):
            found = first_team(b"" if block.too_long else block.data, block.offset)
            if found is not None:
                return found
        return None

    def _scan(self, names: Sequence[str], start: int, end: int) -> Iterator[tuple[Line, list[str]]]:
        wanted = [name.encode(errors="replace") for name in names]
        # Letters that JSON may write in another way only as \uXXXX; of others any escape may be one.
        escape = b"\\u" if all(map(_PLAIN.fullmatch, names)) else b"\\"
        for block in self.log.blocks(start, end):
            for line in () if block.too_long else _candidates(block, wanted, escape):
                found = find_names(line[1])
                named = [name for name in names if name in found]
                if named:
                    yield line, named


def _candidates(block: Block, wanted: Sequence[bytes], escape: bytes) -> Iterable[Line]:
    """The lines of a block with one of some ids in them, or with an escape, in their order."""
    data = block.data
    if escape in data:
        return [one for one in block.lines() if escape in one[1] or any(name in one[1] for name in wanted)]
    found: dict[int, bytes] = {}
    for name in wanted:
        position = data.find(name)
        while position >= 0:
            start = data.rfind(b"\n", 0, position) + 1
            after = data.index(b"\n", position) + 1
            found[block.offset + start] = data[start : after - 1]
            position = data.find(name, after)
    return sorted(found.items())
