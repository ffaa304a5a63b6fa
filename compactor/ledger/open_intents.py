"""The intents of a ledger that have no outcome yet: orders that a program was about to ask for (format.md, rule 3.13).

The fold keeps where their events lie, and a checkpoint too, so that none is ever forgotten. What an intent says is read
from its line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from compactor.core.events import LINE_BYTES_MAX
from compactor.core.fold import Fold
from compactor.core.lines import Placed, read_line
from compactor.ledger.checkpoint import DamagedCheckpoint
from compactor.ledger.event_text import cut_event
from compactor.ledger.files import Files
from compactor.ledger.log import Log, open_log
from compactor.ledger.paths import LedgerEntry
from compactor.ledger.points import usable_points
from compactor.ledger.segments import Segments

_MOST_BYTES = 1 << 14
"""So long are nearly all lines of intents."""


class Intent(Struct, frozen=True, kw_only=True):
    """An order that somebody is about to ask the broker for, or has asked for without knowing the answer.

    It is no open order: the broker may have it or not. `client_order_id` is what it is asked for under, `request` what
    was asked for, `tags` and `note` say who asked and why; `ts` is when. `writer` names the process that asks.
    """

    client_order_id: str
    team_id: str = ""
    ts: str = ""
    request: dict[str, Any] = {}
    tags: list[str] = []
    note: str | None = None
    writer: str | None = None
    offset: int = 0


_decode = msgspec.json.Decoder(Intent).decode


def read_open_intents(entry: LedgerEntry, files: Files | None = None) -> list[Intent]:
    """The intents of a ledger without an outcome, as of the end of its log, oldest first. Needs no lock.

    Raises LedgerError.
    """
    files = files or Files()
    segments = Segments(entry.path, files)
    with open_log(entry.path, files, segments) as log:
        end = log.identity().size
        fold = _fold(entry, files, log, end)
        return read_intents(log, fold.intents, entry.team_id or fold.team_id)


def read_intents(log: Log, offsets: Mapping[str, int], team_id: str) -> list[Intent]:
    """The intents whose events begin at these offsets of a log, oldest first."""
    found = []
    for client_order_id, offset in sorted(offsets.items(), key=lambda one: one[1]):
        data = log.read(offset, _MOST_BYTES)
        if b"\n" not in data:
            data = log.read(offset, LINE_BYTES_MAX + 1)
        try:
            intent = _decode(_cut_first(data[: data.find(b"\n")]))
        except (msgspec.DecodeError, UnicodeDecodeError):
            # Its own line may have odd values that no other reader looks at; that it is open has to be seen.
            intent = Intent(client_order_id=client_order_id)
        found.append(msgspec.structs.replace(intent, team_id=team_id, offset=offset))
    return found


def _cut_first(line: bytes) -> bytes:
    """The first event of a line, which may hold several."""
    first = next(read_line(line, 0), None)
    return cut_event(line[: first.length] if isinstance(first, Placed) else line)


def _fold(entry: LedgerEntry, files: Files, log: Log, end: int) -> Fold:
    for slot in usable_points(entry.path, entry.team_id, files, log, end):
        try:
            return _advance(slot.restore(log.lines_naming, None), log, slot.header.log.length, end)
        except DamagedCheckpoint:
            continue
        finally:
            slot.close()
    return _advance(Fold(entry.team_id, log.lines_naming), log, 0, end)


def _advance(fold: Fold, log: Log, start: int, end: int) -> Fold:
    for block in log.blocks(start, end):
        fold.feed_block(block)
        fold.take_lines()
    return fold
