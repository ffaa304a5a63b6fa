"""What can be read of a ledger without its lock: lines, bytes, the lines of an order, and how the ledger is."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from compactor import Ledger, LedgerError, LogRewritten, NoLedger
from compactor.ledger import unlocked
from compactor.ledger.files import Files
from compactor.ledger.unlocked import CAT_BYTES, read_naming, team_in_checkpoint, whole_lines
from tests.cases import LOG
from tests.faults import orders
from tests.test_compaction import grow
from tests.test_laws import DERIVED, DIRECTORY, disk_with
from tests.test_system_calls import opened


@pytest.fixture
def alpha(data: Path) -> Path:
    """9 orders, compacted with a checkpoint."""
    path = data / "team/alpha"
    path.mkdir(parents=True)
    (path / LOG).write_bytes(orders(0, 9))
    Ledger(path).compact(checkpoint=True)
    return path


class TestLines:
    @pytest.mark.parametrize("length", [1, CAT_BYTES - 2, CAT_BYTES - 1, CAT_BYTES, 3 * CAT_BYTES])
    def test_every_whole_line_is_read_however_long(self, tmp_path: Path, length: int) -> None:
        """And no descriptor stays open, whether all are taken or not."""
        lines = [b"first\n", b"x" * length + b"\n", b"\n", b"last\n"]
        (tmp_path / "trades").write_bytes(b"".join(lines) + b"unfinished")
        before = opened()
        assert lines == list(whole_lines(tmp_path / "trades"))
        some = whole_lines(tmp_path / "trades")
        assert b"first\n" == next(some)
        some.close()  # type: ignore[attr-defined]
        assert before == opened()

    def test_what_cannot_be_read_is_an_error_of_the_ledger(self, tmp_path: Path) -> None:
        """And what is not there has no lines."""
        assert [] == list(whole_lines(tmp_path / "none"))
        (tmp_path / "trades").mkdir()
        with pytest.raises(LedgerError, match="trades"):
            list(whole_lines(tmp_path / "trades"))

    def test_a_disk_that_fails_on_the_way_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What was read so far is not all there is."""

        def fail(*_: object) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

        (tmp_path / "trades").write_bytes(b"one\n")
        before = opened()
        monkeypatch.setattr(os, "pread", fail)
        with pytest.raises(LedgerError, match="Input/output error while reading it"):
            list(whole_lines(tmp_path / "trades"))
        assert before == opened()


class TestBytes:
    @pytest.mark.parametrize("size", [0, 1, CAT_BYTES, 2 * CAT_BYTES + 5])
    def test_a_range_is_handed_out_in_pieces(self, data: Path, size: int) -> None:
        """Up to the last whole line where no end is given, and never beyond the end."""
        raw = b"x" * size + b"\n"
        (data / LOG).write_bytes(raw + b"unfinished")
        ledger = Ledger(data)
        pieces = list(ledger.cat())
        assert (raw, True) == (b"".join(pieces), max(map(len, pieces)) <= CAT_BYTES)
        assert raw[size // 2 :] == b"".join(ledger.cat(size // 2))
        assert raw[1:size] == b"".join(ledger.cat(1, size))
        assert raw + b"unfinished" == b"".join(ledger.cat(0, 1 << 40))
        assert [] == list(ledger.cat(1 << 40))


def test_the_lines_that_may_name_an_order(alpha: Path) -> None:
    """With their offsets, of whole lines alone; none where there is no log."""
    with (alpha / LOG).open("ab") as log:
        log.write(b'{"order_id":"o-3"')
    for name in (b"o-0", b"o-3", b"o-8"):
        found = list(read_naming(alpha, name.decode(), Files()))
        assert [line for line in orders(0, 9).split(b"\n") if name in line] == [line for _, line in found]
        assert all(orders(0, 9)[offset:].startswith(line + b"\n") for offset, line in found)
    assert [] == list(read_naming(alpha.parent / "none", "o-3", Files()))


class TestTeam:
    """Which team the events of a ledger name, as far as the last checkpoint knows."""

    @pytest.mark.parametrize("named", [True, False])
    def test_the_checkpoint_knows_what_the_events_have_named(self, data: Path, named: bool) -> None:
        """None until one has; and nothing stays open."""
        raw = b'{"event":"new","order_id":"o","ts":"2026-03-02T10:00:00Z"%s}\n' % (b',"team_id":"bravo"' * named)
        (data / LOG).write_bytes(raw)
        assert None is team_in_checkpoint(data, Files())
        Ledger(data).compact()
        before = opened()
        assert ("bravo" if named else None) == team_in_checkpoint(data, Files())
        assert before == opened()

    def test_who_may_not_read_the_state_may_append_all_the_same(self, data: Path) -> None:
        """The team is not known then."""

        class Private(Files):
            def open(self, path: Path) -> object:  # type: ignore[override]
                raise PermissionError(13, "Permission denied", str(path))

        assert None is team_in_checkpoint(data, Private())


class TestStatus:
    def test_a_log_without_any_event_has_no_last_one(self, data: Path) -> None:
        """Neither with a checkpoint nor without."""
        (data / LOG).write_bytes(b"\n12345")
        for checkpoint in ("missing", "good", "damaged"):
            if checkpoint == "damaged":
                (data / ".state/checkpoint.0").write_bytes(b"")
            found = Ledger(data).status()
            assert ((1, 0, 5) if checkpoint == "good" else (0, 1, 5)) == (
                found.offset, found.lag_bytes, found.tail_bytes,
            )  # fmt: skip
            assert ("default", str(data), 6, 0, 0, 0, 0, None, checkpoint, 0, 0) == (
                found.team_id, found.path, found.log_bytes, found.events, found.open_orders, found.trades,
                found.findings, found.last_event_at, found.checkpoint, found.sealed_bytes, found.segments,
            )  # fmt: skip
            Ledger(data).compact()

    def test_what_is_sealed_is_counted(self, alpha: Path) -> None:
        """Also where the checkpoint is gone."""
        with Ledger(alpha) as ledger:
            done = ledger.seal(now=True, segment_bytes=500)
        for checkpoint in ("good", "missing"):
            found = Ledger(alpha).status()
            assert (len(orders(0, 9)), done.segments, checkpoint) == (
                found.sealed_bytes, found.segments, found.checkpoint,
            )  # fmt: skip
            shutil.rmtree(alpha / ".state", ignore_errors=True)

    def test_the_time_of_the_last_event_is_told_to_the_microsecond(self, data: Path) -> None:
        """In UTC."""
        stamp = "2026-03-02T10:00:00.123456+01:00"
        (data / LOG).write_text(f'{{"event":"order_paused","order_id":"o","ts":"{stamp}"}}\n')
        Ledger(data).compact()
        assert "2026-03-02T09:00:00.123456000Z" == Ledger(data).status().last_event_at

    def test_a_moved_log_is_told(self, alpha: Path) -> None:
        """Until the next pass has proven that it is the same."""
        (alpha / LOG).rename(alpha / "aside")
        shutil.copy(alpha / "aside", alpha / LOG)
        assert "moved" == Ledger(alpha).status().checkpoint
        Ledger(alpha).compact()
        assert "good" == Ledger(alpha).status().checkpoint

    def test_derived_files_that_have_more_than_the_checkpoint_are_current(self) -> None:
        """A pass without a checkpoint; each file that lacks something, or has another length, means lag."""
        disk = disk_with(orders(0, 9))
        with Ledger(DIRECTORY, files=disk) as ledger:
            ledger.compact()
            start = len(orders(0, 9))
            grow(disk, orders(9, 15))
            size = start + len(orders(9, 15))
            assert (start, size - start, 3) == behind(disk)
            ledger.compact()
            assert (size, 0, 5) == behind(disk)
        derived = {path: disk.take(path) or b"" for path in DERIVED}
        for path, data in derived.items():
            for other in (data[:-1], data + b"x", b""):
                disk.put(path, other)
                assert (start, size - start, 3) == behind(disk), (path, len(other))
            disk.put(path, data)
        assert (size, 0, 5) == behind(disk)

    def test_without_open_orders_no_file_is_current(self) -> None:
        """An empty one is as good as none; one with lines is not."""
        raw = orders(1, 3)
        disk = disk_with(raw[: raw.index(b"\n") + 1])
        with Ledger(DIRECTORY, files=disk) as ledger:
            ledger.compact()
            grow(disk, raw[raw.index(b"\n") + 1 :])
            ledger.compact()
        for found, is_current in ((None, True), (b"", True), (b"{}\n", False)):
            disk.drop(DERIVED[0])
            if found is not None:
                disk.put(DERIVED[0], found)
            assert is_current == (behind(disk)[1] == 0)

    def test_of_a_long_log_no_more_is_folded_than_is_bearable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Then it says what the checkpoint knows."""
        disk = disk_with(orders(0, 9))
        with Ledger(DIRECTORY, files=disk) as ledger:
            ledger.compact()
            grow(disk, orders(9, 15))
            ledger.compact()
        more = len(orders(9, 15))
        monkeypatch.setattr(unlocked, "LOOK_AHEAD_BYTES", more)
        assert 0 == behind(disk)[1]
        monkeypatch.setattr(unlocked, "LOOK_AHEAD_BYTES", more - 1)
        assert more == behind(disk)[1]

    def test_a_log_that_was_rewritten_has_no_status(self, alpha: Path) -> None:
        """7: what was derived is not of this log."""
        raw = (alpha / LOG).read_bytes()
        (alpha / LOG).write_bytes(raw.replace(b"o-8", b"o-X"))
        with pytest.raises(LogRewritten):
            Ledger(alpha).status()

    def test_nothing_stays_open(self, alpha: Path) -> None:
        """Whatever is found."""
        before = opened()
        Ledger(alpha).status()
        for slot in (alpha / ".state").glob("checkpoint.*"):
            slot.write_bytes(slot.read_bytes()[:100])
        assert "damaged" == Ledger(alpha).status().checkpoint
        os.truncate(alpha / LOG, 10)
        with pytest.raises(LedgerError):
            Ledger(alpha.parent / "none").status()
        assert before == opened()
        with pytest.raises(NoLedger):
            list(Ledger(alpha.parent / "none").cat())


def behind(disk: object) -> tuple[int, int, int]:
    """The offset of the derived files, what they lack, and the open orders as of there."""
    found = Ledger(DIRECTORY, files=disk).status()  # type: ignore[arg-type]
    return found.offset, found.lag_bytes, found.open_orders


def test_a_line_that_somebody_else_wrote_is_named_by_its_offset(alpha: Path) -> None:
    """Behind the lines that were read."""
    size = (alpha / "pending_orders.jsonl").stat().st_size
    with (alpha / "pending_orders.jsonl").open("a") as file:
        file.write(json.dumps({"mine": 1}) + "\n")
    with pytest.raises(LedgerError, match=f"at offset {size} expected a derived line"):
        Ledger(alpha).pending_orders()
