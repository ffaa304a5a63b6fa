"""Compare the derived files with the bytes that the log gives.

`refold` folds the log; `checkpoints` compares checkpoints.

Note: files that are behind the log are correct as long as they are what they were at some offset. A daemon may be at
work, or nobody has compacted yet.
"""

import re
from pathlib import Path
from typing import NamedTuple

from compactor.core.derived import encode_lines
from compactor.core.fold import Fold
from compactor.core.orders import build_row
from compactor.ledger.checkpoint import FOLD_VERSION
from compactor.ledger.files import Files, Reader
from compactor.ledger.tail import find_difference
from compactor.verify.report import Discrepancies

_SHOWN = 120
_OFFSET = re.compile(rb'"offset":([0-9]+)')
EDITED = "the file was edited, or the log was; compactor rebuild makes it again from the log and keeps this one aside"


class Accusation(NamedTuple):
    """What it means that a derived file is not what the log gives."""

    kind: str = "derived_differs"
    meaning: str = EDITED


def accuse(fold_version: int | None) -> Accusation:
    """The meaning of a difference; with the fold version of the files where no checkpoint is of this one."""
    if fold_version is None:
        return Accusation()
    derived = f"the rules of fold version {fold_version} derived it, and this program has version {FOLD_VERSION}"
    meaning = f"{derived}: run compactor compact, which derives it anew, and verify again"
    return Accusation("derived_by_other_rules", meaning)


class DerivedFileCheck:
    """An append-only derived file, compared with what is derived, as that comes."""

    def __init__(self, path: Path, files: Files, report: Discrepancies, accusation: Accusation | None = None) -> None:
        self._accusation = accusation or Accusation()
        self.path = path
        self.length = 0
        """How many bytes have been derived."""
        self.is_bad = False
        self._report = report
        self._reader: Reader | None = None
        if files.identity(path) is not None:
            self._reader = files.open(path)
        self.size = self._reader.identity().size if self._reader is not None else 0
        """How many bytes the file had when it was opened; what comes later is not looked at."""

    def put(self, data: bytes) -> None:
        """Compare the derived bytes that follow."""
        present = min(len(data), self.size - self.length)
        if present > 0 and not self.is_bad:
            assert self._reader is not None
            found = self._reader.read(self.length, present)
            if found != data[:present]:
                self._differ(data, found)
        self.length += len(data)

    def _differ(self, data: bytes, found: bytes) -> None:
        self.is_bad = True
        same = find_difference(data, found)
        start = data.rfind(b"\n", 0, same) + 1
        line = data[start : data.find(b"\n", start)]
        event = _OFFSET.search(line)
        kind, meaning = self._accusation
        meaning = f"{meaning}; the line follows from the event at {event[1].decode()}" if event else meaning
        self._report.add(
            kind, self.path, offset=self.length + same, expected=shown(line, same - start),
            found=shown(found[start:].partition(b"\n")[0], same - start), meaning=meaning,
        )  # fmt: skip

    def finish(self, least: int) -> None:
        """All is derived: the file holds no more, and no less than `least` bytes, which were there already."""
        if self.is_bad:
            return
        if self.size > self.length:
            assert self._reader is not None
            found = shown(self._reader.read(self.length, _SHOWN))
            self._report.add(
                self._accusation.kind, self.path, offset=self.length, expected="the end of the file", found=found,
                meaning=f"there is more than the log says; {self._accusation.meaning}",
            )  # fmt: skip
        elif self.size < least:
            self._report.add(
                "derived_truncated", self.path, offset=self.size, expected=f"at least {least} bytes",
                found=f"{self.size}", meaning=f"what was derived before is gone; {EDITED}",
            )  # fmt: skip

    def close(self) -> None:
        """Close the file."""
        if self._reader is not None:
            self._reader.close()


def shown(line: bytes, at: int = 0) -> str:
    """A line for people; of a long one what is around an index in it."""
    start = max(0, at - _SHOWN // 2) if at > _SHOWN // 2 else 0
    text = line[start : start + _SHOWN].decode(errors="backslashreplace")
    return repr(("…" if start else "") + text + ("…" if len(line) > start + _SHOWN else ""))


class OpenRows:
    """The rows of the open orders of a fold that goes on line by line, as one number that is cheap to compare."""

    def __init__(self, fold: Fold) -> None:
        self._fold = fold
        self._rows: dict[str, int] = {}
        self._sum = 0
        self._begin()

    def _begin(self) -> None:
        rows = {order_id: one.row for order_id, one in self._fold.store_open().items()}
        self._rows = {order_id: hash(row) for order_id, row in rows.items()}
        self._sum = sum(self._rows.values())
        self._touched = set[str]()

    def sum(self) -> int:
        """A number that is the same for the same rows."""
        fold = self._fold
        if fold.touched is None:
            # The team became known, which is in every row.
            self._begin()
            return self._sum
        touched, fold.touched = fold.touched, set()
        self._touched |= touched
        for order_id in touched:
            order = fold.find_order(order_id)
            self._sum -= self._rows.pop(order_id, 0)
            if order is not None and order.open:
                row = encode_lines([build_row(order, fold.team_id)])
                self._sum += self._rows.setdefault(order_id, hash(row))
        return self._sum

    def lines(self) -> bytes:
        """The bytes of `pending_orders.jsonl` as of now."""
        if self._fold.touched is not None:
            self._fold.touched |= self._touched
        self._touched = set()
        return self._fold.pending_lines()


def sum_rows(lines: bytes) -> int:
    """The number that `OpenRows.sum` gives for these lines."""
    return sum(hash(line + b"\n") for line in lines.split(b"\n")[:-1])


def report_pending(
    path: Path, expected: bytes, found: bytes | None, report: Discrepancies, accusation: Accusation
) -> None:
    """Say where the pending orders are not those of any offset that they may stand for; `expected` are today's."""
    if found is None:
        meaning = "the file is gone; compactor compact writes it again"
        report.add(
            "derived_differs", path, expected=f"{expected.count(10)} open orders", found="no file", meaning=meaning
        )
        return
    wanted, present = expected.split(b"\n"), found.split(b"\n")
    at = next((n for n, pair in enumerate(zip(wanted, present, strict=False)) if pair[0] != pair[1]), len(wanted) - 1)
    report.add(
        accusation.kind, path, offset=sum(len(line) + 1 for line in present[:at]),
        expected=shown(wanted[at]) if at < len(wanted) and wanted[at] else "the end of the file",
        found=shown(present[at]) if at < len(present) and present[at] else "the end of the file",
        meaning=accusation.meaning,
    )  # fmt: skip
