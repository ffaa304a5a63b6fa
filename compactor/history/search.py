"""Find the lines that name an id: through the index beside each seal, and by scanning what is not sealed.

Every candidate is compared with the line itself (`find_names`), so a wrong index costs time and never an answer.

Note: JSON may write an id with escapes (`\\u0061`), so lines with an escape are candidates too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from compactor.core.derived import Finding
from compactor.core.lines import Block, EventReader, Placed
from compactor.ledger.files import Files
from compactor.ledger.indexing import Indexes, find_names, first_team
from compactor.ledger.log import Log
from compactor.ledger.segments import Segments

Line = tuple[int, bytes]
"""A line without its newline, and its offset in the log."""

_PLAIN = re.compile(r"[^\"/\\\x00-\x1f\x7f-\U0010ffff]*")


class Finder:
    """Finds lines in one open log."""

    def __init__(self, log: Log, segments: Segments, files: Files) -> None:
        self.log = log
        self._segments = segments
        self.indexes = Indexes(log, segments, files)

    def lines(self, name: str) -> list[Line]:
        """The lines that name an id, in log order. Raises SegmentDamaged."""
        end = self.log.identity().size
        found: list[Line] = []
        if not name:
            return found
        for start, stop in self.indexes.stretches(name):
            found += self._scan(name, start, stop)
        found += self._scan(name, self._segments.sealed_end, end)
        return found

    def recall(self, order_id: str, first: int, end: int) -> Iterator[Line]:
        """Like `Log.lines_naming`, through the indexes: a fold that asks for old lines need not read all of them."""
        sealed = self._segments.sealed_end
        for start, stop in self.indexes.stretches(order_id) if first < sealed else ():
            if start < end and stop > first:
                for offset, line in self._scan(order_id, start, stop):
                    # An event may begin inside of its line, behind a torn fragment.
                    if first < offset + len(line) and offset < end:
                        yield offset, line
        if end > sealed:
            yield from self.log.lines_naming(order_id, max(first, sealed), end)

    def pieces(self, name: str, team_id: str) -> Iterator[tuple[Placed | Finding, bytes]]:
        """What stands in the lines that name an id: events of the ledger's team, and findings for all other bytes, each
        with its bytes."""
        reader = EventReader(team_id)
        for offset, line in self.lines(name):
            yield from reader.read_block(Block(offset, line + b"\n", len(line) + 1))

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

    def _scan(self, name: str, start: int, end: int) -> Iterator[Line]:
        wanted = name.encode(errors="replace")
        # Letters that JSON may write in another way only as \uXXXX; of others any escape may be one.
        escape = b"\\u" if _PLAIN.fullmatch(name) else b"\\"
        for block in self.log.blocks(start, end):
            if not block.too_long:
                yield from (one for one in _candidates(block, wanted, escape) if name in find_names(one[1]))


def _candidates(block: Block, wanted: bytes, escape: bytes) -> Iterator[Line]:
    """The lines of a block with an id in them, or with an escape."""
    data = block.data
    if escape in data:
        yield from ((offset, line) for offset, line in block.lines() if wanted in line or escape in line)
        return
    position = data.find(wanted)
    while position >= 0:
        start = data.rfind(b"\n", 0, position) + 1
        after = data.index(b"\n", position) + 1
        yield block.offset + start, data[start : after - 1]
        position = data.find(wanted, after)
