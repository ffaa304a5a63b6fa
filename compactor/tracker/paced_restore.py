"""Restore a fold from a checkpoint in short bursts, however many orders are open.

A checkpoint holds its open orders in one piece. Decoding it at once would keep the interpreter busy for longer than an
event loop may wait, so a large piece is decoded some hundred orders at a time.

Note: the pages of ended orders are read and checked here, and decoded only when an event names an order that they may
have. So nothing of the checkpoint can turn out to be damaged later.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator

import msgspec

from compactor.core.archive import Archive, BloomFilter
from compactor.core.clock import LogClock
from compactor.core.fold import Fold, OpenOrder, Recall
from compactor.history.replay import RETENTION
from compactor.ledger.checkpoint import Slot

BURST_SECONDS = 0.001
PAUSE_SECONDS = 0.0002
"""Bursts of work and pauses between them, so that an event loop in another thread waits for a burst at most."""
KEPT_ENDED = 256
PIECE_ORDERS = 256
PIECE_BYTES_MIN = 1 << 18

_decode_open = msgspec.msgpack.Decoder(dict[str, OpenOrder]).decode
_BIG = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I", 0xD9: ">B", 0xDA: ">H", 0xDB: ">I"}
_FIXED = {
    0xC0: 1, 0xC2: 1, 0xC3: 1, 0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9,
    0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18,
}  # fmt: skip
_NESTED = {0xDC: (">H", 1), 0xDD: (">I", 1), 0xDE: (">H", 2), 0xDF: (">I", 2)}


class Pace:
    """Pauses after every burst of work."""

    def __init__(self) -> None:
        self._until = time.perf_counter() + BURST_SECONDS

    def keep(self) -> None:
        """Pause if this burst has been long enough."""
        if time.perf_counter() >= self._until:
            time.sleep(PAUSE_SECONDS)
            self._until = time.perf_counter() + BURST_SECONDS


def make_fold(team_id: str | None, recall: Recall) -> Fold:
    """A fold of nothing. It keeps few ended orders: the more objects there are, the longer each garbage collection
    stops the event loop."""
    return Fold(team_id, recall, RETENTION, KEPT_ENDED)


def restore_paced(slot: Slot, recall: Recall, pace: Pace) -> Fold:
    """The fold of a checkpoint, with its rows. Raises DamagedCheckpoint."""
    header = slot.header
    fold = make_fold(None if header.names_team else header.team_id, recall)
    fold.log_clock = LogClock(header.clock, header.ahead)
    fold.counts = msgspec.structs.replace(header.counts, kinds=dict(header.counts.kinds))
    fold.intents = dict(header.intents)
    spans, marks = [slot.read(one) for one in header.spans], [slot.read(one) for one in header.marks]
    pace.keep()
    fold.archive = Archive(
        len(spans),
        lambda number: spans[number],
        BloomFilter(header.marked, lambda number: marks[number] if number < len(marks) else b"", header.secret),
    )
    rows: dict[str, tuple[tuple[int, str], bytes]] = {}
    for piece in split_map(slot.read(header.open_orders), pace):
        stored = _decode_open(piece)
        fold.stored.update(stored)
        rows.update({order_id: ((one.created_ns, order_id), one.row) for order_id, one in stored.items()})
        pace.keep()
    fold.keep_rows(rows)
    return fold


def split_map(data: bytes, pace: Pace) -> Iterator[bytes]:
    """A map of MessagePack as several maps with some of its entries each."""
    if len(data) < PIECE_BYTES_MIN:
        yield data
        return
    count, at = _read_map_header(data)
    while count:
        taken, start = min(count, PIECE_ORDERS), at
        for _ in range(taken):
            at = skip_value(data, skip_value(data, at))
            pace.keep()
        yield b"\xdf" + struct.pack(">I", taken) + data[start:at]
        count -= taken


def _read_map_header(data: bytes) -> tuple[int, int]:
    """How many entries a map has, and where the first one begins."""
    if 0x80 <= data[0] <= 0x8F:
        return data[0] & 0x0F, 1
    form = _NESTED[data[0]][0]
    return struct.unpack_from(form, data, 1)[0], 1 + struct.calcsize(form)


def skip_value(data: bytes, at: int) -> int:
    """Where the value of MessagePack ends that begins at an offset."""
    todo = 1
    while todo:
        todo -= 1
        kind = data[at]
        if kind < 0x80 or kind >= 0xE0:
            at += 1
        elif kind >= 0xA0 and kind < 0xC0:
            at += 1 + (kind & 0x1F)
        elif kind < 0xA0:
            todo += (kind & 0x0F) * (2 if kind < 0x90 else 1)
            at += 1
        elif kind in _FIXED:
            at += _FIXED[kind]
        elif kind in _BIG:
            form = _BIG[kind]
            at += 1 + struct.calcsize(form) + struct.unpack_from(form, data, at + 1)[0]
        elif kind in _NESTED:
            form, each = _NESTED[kind]
            todo += each * struct.unpack_from(form, data, at + 1)[0]
            at += 1 + struct.calcsize(form)
        else:
            raise ValueError(f"found the byte {kind:#04x} at {at}, expected a value of MessagePack")
    return at
