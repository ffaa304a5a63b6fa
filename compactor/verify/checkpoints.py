"""Compare checkpoints with their checksums, with the files, and with the state that the log gives at their offset.

`refold` folds the log.

Note: a checkpoint with correct checksums is still compared order by order. A careful edit of the state would pass every
checksum and change answers.
"""

from collections.abc import Collection, Iterator
from datetime import timedelta
from itertools import chain
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

import msgspec

from compactor.core.archive import BloomFilter, SpanRecord, fingerprint, set_mark
from compactor.core.fold import Fold, OpenOrder
from compactor.core.orders import Order
from compactor.ledger.checkpoint import (
    FOLD_VERSION,
    FORMAT,
    SLOTS,
    TAIL_BYTES,
    Chunk,
    DamagedCheckpoint,
    Slot,
    checksum,
    draw_secret,
)
from compactor.ledger.files import Files, Identity, Reader
from compactor.ledger.log import Log
from compactor.ledger.paths import FINDINGS, POINTS, STATE, TRADES
from compactor.verify.derived_files import EDITED, shown
from compactor.verify.report import Discrepancies

_STATE = "the state does not follow from the log; compactor rebuild makes it again"
_MARK_BYTES = 16
_decode_order = msgspec.msgpack.Decoder(Order).decode
_order_id: Any = attrgetter("order_id")
_place: Any = attrgetter("first", "last")
_first_and_last: Any = itemgetter(0, 1)
_decode_spans = msgspec.msgpack.Decoder(list[SpanRecord]).decode

Unequal = tuple[str, Any, Any]
"""What is different, what the log says, and what is stored."""


class Marks(BloomFilter):
    """Marks of ended orders that can be asked for by fingerprint, and remember which were set here."""

    noted: bytearray | None = None

    def mark(self, mark: int) -> None:
        super().mark(mark)
        self.noted = self.noted if self.noted is not None else bytearray()
        self.noted += mark.to_bytes(_MARK_BYTES, "little")

    def mark_everywhere(self, mark: int) -> None:
        """Set the bits of a fingerprint in every generation, whichever it belongs to."""
        for generation in range(len(self.counts)):
            set_mark(self._pages, self._page, generation, mark)

    def noted_marks(self) -> Iterator[int]:
        """The fingerprints that were set here."""
        noted = self.noted or b""
        for start in range(0, len(noted), _MARK_BYTES):
            yield int.from_bytes(noted[start : start + _MARK_BYTES], "little")


class MarksOfSlots(Marks):
    """Marks of ended orders under the secret of each checkpoint that they are compared with; mostly there is one."""

    def __init__(self, secrets: Collection[int]) -> None:
        first, *others = sorted(secrets) or [draw_secret()]
        super().__init__(secret=first)
        self._others = {secret: Marks(secret=secret) for secret in others}

    def add(self, order_id: str) -> None:
        super().add(order_id)
        for marks in self._others.values():
            marks.add(order_id)

    def under(self, secret: int) -> Marks:
        """The marks under the secret of one of the checkpoints."""
        return self if secret == self.secret else self._others[secret]


def open_slots(path: Path, files: Files, report: Discrepancies) -> list[Slot]:
    """The checkpoints of a ledger, and the older ones that are kept, that are whole; the others are reported."""
    slots: list[Slot] = []
    seen = set[Identity]()
    for file in _list_checkpoints(path / STATE, files):
        try:
            reader = files.open(file)
        except FileNotFoundError:
            continue
        # A point is one more name of a checkpoint, as long as that is one of the two newest.
        if reader.identity() in seen:
            reader.close()
            continue
        seen.add(reader.identity())
        try:
            slot = Slot(file, reader)
            _check_chunks(slot, reader)
        except DamagedCheckpoint as damage:
            reader.close()
            meaning = "no answer depends on it: the other one serves, or the log is folded again. Remove it, or compact"
            what = str(damage).removeprefix(f"{file}: ")
            report.add("checkpoint_damaged", file, expected="a checkpoint", found=what, meaning=meaning)
        else:
            slots.append(slot)
    return slots


def _list_checkpoints(state: Path, files: Files) -> list[Path]:
    names = sorted(name for name in files.names(state / POINTS) if name.isdigit())
    return [*(state / name for name in SLOTS), *(state / POINTS / name for name in names)]


def is_ours(slot: Slot) -> bool:
    """Whether this version of the program wrote it; of another one only the files are looked at."""
    return (slot.header.format, slot.header.fold_version) == (FORMAT, FOLD_VERSION)


def find_other_rules(slots: list[Slot]) -> int | None:
    """The fold version that derived the files of a ledger, where that is another one: all its checkpoints are."""
    if any(map(is_ours, slots)):
        return None
    return max((slot.header.fold_version for slot in slots if slot.header.fold_version != FOLD_VERSION), default=None)


def list_binding(slots: list[Slot]) -> list[Slot]:
    """The checkpoints that say what the derived files hold. One of an older fold version no longer does once this
    version has written one, because the files may have been derived anew (format.md, section 7)."""
    return [slot for slot in slots if is_ours(slot)] or slots


def _check_chunks(slot: Slot, reader: Reader) -> None:
    header = slot.header
    if not is_ours(slot):
        return
    chunks: list[Chunk] = [header.open_orders, *header.spans, *header.marks]
    for chunk in chunks:
        slot.read(chunk)
    size, expected = reader.identity().size, slot.base + sum(chunk.length for chunk in chunks)
    if size != expected:
        raise DamagedCheckpoint(slot.path, f"it has {size} bytes, expected {expected}")


def examine_slot(slot: Slot, log: Log, report: Discrepancies) -> bool:
    """Check what a checkpoint says of the log against it: how long it is, and its 4 KiB before the offset.

    Whether it fits. One that does not tells nothing of the rest: it may be another ledger's.
    """
    header = slot.header
    identity = log.identity()
    if identity.size < header.log.length:
        expected, found = f"at least {header.log.length} bytes, so much was folded", f"{identity.size}"
        meaning = "the log was truncated: events are gone; put it back from a backup"
        report.add("log_truncated", log.path, offset=identity.size, expected=expected, found=found, meaning=meaning)
        return False
    if log.digest_prefix(header.log.length) != header.log:
        start = max(0, header.log.length - TAIL_BYTES)
        meaning = "the log was rewritten after it was folded; put it back from a backup"
        report.add(
            "log_rewritten", log.path, offset=start, expected="the 4 KiB that were folded", found="others",
            meaning=f"{meaning} ({slot.path.name})",
        )  # fmt: skip
        return False
    if not _ends_line(log, header.log.length):
        meaning = "no answer depends on it. Remove it, or compact"
        expected, found = "an offset behind a line of the log", f"{header.log.length}"
        report.add("checkpoint_damaged", slot.path, expected=expected, found=found, meaning=meaning)
        return False
    return True


def _ends_line(log: Log, offset: int) -> bool:
    """Whether an offset is one behind a line. What the file itself has is read first, which needs no segment."""
    return not offset or log.read_raw(offset - 1, 1) == b"\n" or log.read(offset - 1, 1) == b"\n"


def examine_tails(slot: Slot, path: Path, files: Files, report: Discrepancies) -> None:
    """Check what a checkpoint says of trades and findings, their lengths and last 4 KiB, against the files."""
    header = slot.header
    for name, written in ((TRADES, header.trades), (FINDINGS, header.findings)):
        start = max(0, written.length - TAIL_BYTES)
        data = _read(files, path / name, start, written.length)
        if checksum(data) != written.tail:
            expected = f"the bytes before {written.length} as {slot.path.name} has them"
            found = f"{len(data)} other bytes" if len(data) == written.length - start else f"only {len(data)} of them"
            report.add("derived_differs", path / name, offset=start, expected=expected, found=found, meaning=EDITED)


def _read(files: Files, path: Path, start: int, end: int) -> bytes:
    if files.identity(path) is None:
        return b""
    reader = files.open(path)
    try:
        return reader.read(start, end - start)
    finally:
        reader.close()


def compare_state(
    slot: Slot, fold: Fold, lengths: tuple[int, int], retention: timedelta | None, report: Discrepancies
) -> None:
    """Check the state in a checkpoint against the one that the log gave at its offset."""
    header = slot.header
    if not is_ours(slot):
        return
    try:
        stored = slot.restore(lambda order_id, first, end: (), retention)
        opened = fold.store_open()
        unequal = list(_unequal(fold, opened, stored, lengths, (header.trades.length, header.findings.length)))
        unequal += _unequal_spans(fold, opened, slot)
    except (DamagedCheckpoint, msgspec.DecodeError) as error:
        report.add("state_differs", slot.path, expected="a state", found=error, meaning=_STATE)
        return
    for what, expected, found in unequal:
        report.add(
            "state_differs", slot.path, expected=f"{what} {expected}", found=found,
            meaning=f"at offset {header.log.length} of the log {_STATE}",
        )  # fmt: skip


def _unequal(
    ours: Fold, opened: dict[str, OpenOrder], stored: Fold, lengths: tuple[int, int], told: tuple[int, int]
) -> Iterator[Unequal]:
    pairs: list[Unequal] = [
        ("team", (ours.team_id, ours.names_team), (stored.team_id, stored.names_team)),
        ("clock", ours.clock, stored.clock),
        ("counts", ours.counts, stored.counts),
        ("intents", ours.intents, stored.intents),
        ("lengths of trades and findings", lengths, told),
    ]
    yield from (pair for pair in pairs if pair[1] != pair[2])
    for order_id in sorted(opened.keys() | stored.stored.keys()):
        expected, found = opened.get(order_id), stored.stored.get(order_id)
        if expected is None or found is None or not _same(expected, found):
            yield f"open order {order_id}", _row(expected), _row(found)


def _same(expected: OpenOrder, found: OpenOrder) -> bool:
    if (expected.created_ns, expected.row) != (found.created_ns, found.row):
        return False
    return bytes(expected.order) == bytes(found.order) or _decode_order(expected.order) == _decode_order(found.order)


def _row(order: OpenOrder | None) -> str:
    return shown(order.row.rstrip()) if order is not None else "none"


def _unequal_spans(ours: Fold, opened: dict[str, OpenOrder], slot: Slot) -> Iterator[Unequal]:
    """Ended orders that the checkpoint would not find again, or would look for at the wrong offsets.

    When an order is forgotten depends on where passes ended, so a span on one side may be a mark on the other.
    """
    header = slot.header
    secret = header.secret
    marks = Marks(
        header.marked, lambda number: slot.read(header.marks[number]) if number < len(header.marks) else b"", secret
    )
    # There are as many as orders ended in a week, so that their dictionaries are made without a loop in Python.
    records = list(chain.from_iterable(_decode_spans(slot.read(chunk)) for chunk in header.spans))
    stored = dict(zip(map(_order_id, records), map(_place, records), strict=True))
    ended = dict(zip(ours.archive.recent, map(_first_and_last, ours.archive.recent.values()), strict=True))
    ended |= {order_id: (first, last) for order_id, first, last in ours.list_ended()}
    # The leg of a multi-leg order may have left the state without a status, and have come back and opened.
    unlike = () if stored == ended else ended.items() - stored.items()
    for order_id in sorted(one for one, _span in unlike if one not in opened):
        if order_id in stored or order_id not in marks:
            yield f"ended order {order_id} at", ended[order_id], stored.get(order_id, "none")
    for order_id in sorted(stored.keys() - ended.keys() - opened.keys()):
        if ours.archive.find(order_id) is None:
            yield f"no ended order {order_id} at", "any offset", stored[order_id]
    assert isinstance(ours.archive.marks, MarksOfSlots)
    expected = ours.archive.marks.under(secret)
    kept_longer = [fingerprint(order_id, secret) for order_id in stored.keys() - ended.keys()]
    if not _covers(marks, expected, kept_longer):
        known = {fingerprint(order_id, secret) for order_id in stored}
        lost = sum(mark not in known and not marks.has(mark) for mark in expected.noted_marks())
        if lost:
            yield "marks of ended orders", "all of them", f"{lost} are missing"


def _covers(stored: Marks, ours: Marks, kept_longer: list[int]) -> bool:
    """Whether every bit of ours is set there, but for those of orders whose spans are kept there a little longer.

    That is so where nothing is wrong, and spares asking for every mark by itself.
    """
    if len(stored.counts) < len(ours.counts):
        return False
    kept = Marks(ours.counts, secret=ours.secret)
    for mark in kept_longer:
        kept.mark_everywhere(mark)
    pages = zip(ours.pages(), stored.pages(), kept.pages(), strict=False)
    return not any(_bits(mine) & ~(_bits(theirs) | _bits(known)) for mine, theirs, known in pages)


def _bits(page: bytes | bytearray) -> int:
    return int.from_bytes(page, "little")
