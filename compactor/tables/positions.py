"""Where in a log, or in another file of lines, to begin reading: at an offset, or at a time.

The rule that surprises: a time is looked for by halving, because the log of a year is written in the order of its
recording. Where somebody's clock ran back, a few lines beside the place may belong to the other side.
"""

from __future__ import annotations

from collections.abc import Iterator

from compactor.core.instants import nanos
from compactor.core.lines import Placed, read_line
from compactor.ledger.log import BLOCK_BYTES, Log


def line_start(log: Log, offset: int) -> int:
    """The first line that begins at an offset or behind it; the end of the whole lines if there is none."""
    end = log.end_of_whole_lines(log.identity().size)
    while 0 < offset < end:
        data = log.read(offset - 1, BLOCK_BYTES)
        found = data.find(b"\n")
        if found >= 0:
            return offset + found
        offset += len(data)
    return min(offset, end)


def recorded_at(log: Log, at: int) -> int:
    """Where the lines begin that were recorded at an instant or later: by `recorded_at`, else `ts`."""
    low, end = 0, log.end_of_whole_lines(log.identity().size)
    high = end
    while high - low > BLOCK_BYTES:
        middle = (low + high) // 2
        found = next((time for _, time in _times(log, line_start(log, middle), high)), None)
        if found is None or found >= at:
            high = middle
        else:
            low = middle
    return next((offset for offset, time in _times(log, line_start(log, low), end) if time >= at), end)


def _times(log: Log, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The lines that hold events, each with its offset and when it was recorded."""
    for block in log.blocks(start, end):
        for offset, line in block.lines():
            for found in read_line(line, offset):
                if isinstance(found, Placed):
                    recorded = found.event.recorded_at
                    yield offset, nanos(recorded.isoformat() if recorded is not None else found.event.ts)
