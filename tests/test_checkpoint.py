"""The two slots of a checkpoint: whichever is newest and good serves, and damage is noticed and never an error."""

import json
import shutil
import struct
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from compactor import DerivedConflict, Ledger
from compactor.core.archive import PRIME
from compactor.core.fold import Fold
from compactor.ledger import checkpoint, compaction
from compactor.ledger.checkpoint import (
    SLOTS,
    DamagedCheckpoint,
    PrefixDigest,
    Slot,
    Slots,
    checksum,
    draw_secret,
    encode_slot,
    open_newest_slot,
)
from compactor.ledger.checkpoint import open_slot as open_checkpoint
from compactor.ledger.errors import IrregularFile
from compactor.ledger.files import Files
from tests.cases import read_derived
from tests.disk import Disk
from tests.faults import orders
from tests.test_system_calls import opened

LEDGER = Path("/ledger")
STATE = LEDGER / ".state"
LOG = LEDGER / "events.jsonl"
WRITTEN = PrefixDigest(0, checksum(b""))


def slot_of(generation: int, log: bytes = b"") -> bytes:
    """A slot for the fold of a log."""
    fold = Fold("alpha", lambda order_id, first, end: [])
    fold.feed(log, 0)
    fold.take_lines()
    return b"".join(encode_slot(fold, generation, 1, PrefixDigest(len(log), checksum(log)), WRITTEN, WRITTEN))


def open_slot(data: bytes) -> Slot:
    disk = Disk()
    disk.put(STATE / SLOTS[0], data)
    return Slot(STATE / SLOTS[0], disk.open(STATE / SLOTS[0]))


def read_whole(slot: Slot) -> Iterator[bytes]:
    """Everything that a slot can be asked for."""
    header = slot.header
    yield slot.read(header.open_orders)
    yield from map(slot.read, header.spans)
    yield from map(slot.read, header.marks)


def test_a_slot_gives_back_what_was_written() -> None:
    """7: format and fold version, offset, digests, the fold's state, generation."""
    log = orders(0, 9)
    slot = open_slot(slot_of(5, log))
    header = slot.header

    assert (checkpoint.FORMAT, checkpoint.FOLD_VERSION, 5, "alpha") == (
        header.format,
        header.fold_version,
        header.generation,
        header.team_id,
    )
    assert PrefixDigest(len(log), checksum(log)) == header.log
    fold = slot.restore(lambda order_id, first, end: [], None)
    whole = Fold("alpha", lambda order_id, first, end: [])
    whole.feed(log, 0)
    assert whole.pending_lines() == fold.pending_lines()
    assert (3, whole.take_lines().trades.count(b"\n")) == (fold.open_orders, fold.counts.trades)


def read_secrets(state: Path) -> set[int]:
    """The secrets in the checkpoints of a ledger."""
    return {open_checkpoint(path, Files()).header.secret for path in state.glob("checkpoint.?")}


def test_a_ledger_keeps_the_secret_of_its_state_until_it_is_folded_from_its_first_byte(data: Path) -> None:
    """1.4: fingerprints are made with the secret in the checkpoint, and no derived byte depends on it."""
    (data / "events.jsonl").write_bytes(orders(0, 60))
    secrets: list[set[int]] = []
    derived = []
    for _ in range(2):
        shutil.rmtree(data / ".state", ignore_errors=True)
        for number in range(2):
            with Ledger(data, retention_days=0) as ledger:
                if not secrets and number:
                    ledger.append([{"event": "new", "order_id": "o-1", "ts": "2026-03-20T14:30:00Z"}])
                ledger.compact(checkpoint=True)
        secrets.append(read_secrets(data / ".state"))
        derived.append(read_derived(data))
    assert [1, 1] == [len(one) for one in secrets] and secrets[0] != secrets[1]
    assert derived[0] == derived[1]


def test_offsets_go_beyond_4_gib() -> None:
    """1.5, 6.2: an order whose lines lie behind 4 GiB of log is found again, by its offsets in a checkpoint."""
    start = (1 << 32) + 5
    terms = b'"symbol":"AAPL","side":"buy","quantity":"3"'
    told = (
        b'{"event":"new","order_id":"o-1","ts":"2026-03-02T10:00:00Z","recorded_at":"2026-03-02T10:00:00Z",%b}\n'
        b'{"event":"canceled","order_id":"o-1","ts":"2026-03-02T10:00:01Z","recorded_at":"2026-03-02T10:00:01Z"}\n'
    ) % terms
    late = (
        b'{"event":"fill","order_id":"o-1","ts":"2026-03-02T10:00:02Z","recorded_at":"2026-03-02T10:00:02Z",'
        b'"execution_id":"x-1","price":"10","qty":"1"}\n'
    )
    fold = Fold("alpha", lambda order_id, first, end: [], kept_ended=0)
    fold.feed(told, start)
    end = start + len(told)
    nothing = PrefixDigest(0, checksum(b""))
    parts = encode_slot(fold, 1, 7, PrefixDigest(end, checksum(told)), nothing, nothing)
    asked = []

    def recall(order_id: str, first: int, end: int) -> list[tuple[int, bytes]]:
        asked.append((order_id, first, end))
        first_line, last_line, _ = told.split(b"\n")
        return [(start, first_line), (start + len(first_line) + 1, last_line)]

    restored = open_slot(b"".join(parts)).restore(recall, timedelta(days=7))
    restored.feed(late, end)
    lines = restored.take_lines()
    (order_id, first, recalled_to), *_ = asked
    assert ("o-1", start, True) == (order_id, first, start < recalled_to <= end)
    assert [end, f"{end}-0"] == [json.loads(lines.trades)[name] for name in ("offset", "trade_id")]
    assert ["late_fill", end] == [json.loads(lines.findings)[name] for name in ("kind", "offset")]


def test_damage_at_any_byte_is_noticed() -> None:
    """7: every byte of a slot is under a checksum, or is what tells that it is one."""
    good = slot_of(1, orders(0, 9))
    assert list(read_whole(open_slot(good)))
    for place in range(len(good)):
        with pytest.raises(DamagedCheckpoint, match=r"checkpoint\.0"):
            list(read_whole(open_slot(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])))


def test_a_slot_that_was_cut_anywhere_is_noticed() -> None:
    """7: a slot that a crash has left short is damage, whatever is missing."""
    good = slot_of(1, orders(0, 9))
    for place in range(len(good)):
        with pytest.raises(DamagedCheckpoint):
            list(read_whole(open_slot(good[:place])))


def test_a_header_that_promises_too_much_is_damage() -> None:
    """A length beyond the end of the file costs no memory and no exception of another kind."""
    head = b"compactor checkpoint\n" + struct.pack("<I16s", 0xFFFFFFFF, checksum(b""))
    with pytest.raises(DamagedCheckpoint, match="does not match its checksum"):
        open_slot(head + b"x" * 100)


def test_slots_alternate() -> None:
    """7: the newest slot is never the one that is written."""
    disk = Disk()
    slots = Slots(STATE, disk)
    found = []
    for generation in range(1, 5):
        slots.write([slot_of(generation)])
        newest = Slots(STATE, disk).open_newest()
        assert newest is not None
        found.append((newest.path.name, newest.header.generation))
    assert [(SLOTS[0], 1), (SLOTS[1], 2), (SLOTS[0], 3), (SLOTS[1], 4)] == found


@pytest.mark.parametrize("newest", [0, 1])
def test_the_newest_good_slot_serves_and_the_other_is_written_next(newest: int) -> None:
    """7: after a restart it goes on in the older slot."""
    disk = Disk()
    disk.put(STATE / SLOTS[newest], slot_of(7))
    disk.put(STATE / SLOTS[1 - newest], slot_of(6))
    slots = Slots(STATE, disk)
    slot = slots.open_newest()
    assert slot is not None
    assert (STATE / SLOTS[newest], 7) == (slot.path, slot.header.generation)

    slots.write([slot_of(8)])
    assert [slot_of(7), slot_of(8)] == [disk.take(STATE / SLOTS[newest]), disk.take(STATE / SLOTS[1 - newest])]


def test_a_damaged_slot_is_set_aside_and_the_older_one_serves() -> None:
    """7: and it is kept, so that people can look at it."""
    disk = Disk()
    disk.put(STATE / SLOTS[0], slot_of(6))
    disk.put(STATE / SLOTS[1], b"\0" * 900)
    slots = Slots(STATE, disk)
    slot = slots.open_newest()

    assert slot is not None
    assert 6 == slot.header.generation
    assert [f"{STATE / SLOTS[1]}: it does not begin as a checkpoint does"] == slots.damaged
    assert (None, b"\0" * 900) == (disk.take(STATE / SLOTS[1]), disk.take(STATE / "checkpoint.1.damaged"))


def test_no_good_slot_is_no_slot() -> None:
    """7: then the log is folded from its first byte."""
    disk = Disk()
    assert Slots(STATE, disk).open_newest() is None
    for name in SLOTS:
        disk.put(STATE / name, b"")
    slots = Slots(STATE, disk)
    assert slots.open_newest() is None
    assert 2 == len(slots.damaged)


def compact(disk: Disk) -> int:
    """One pass with a checkpoint; the bytes that it folded."""
    disk.restart()
    with Ledger(LEDGER, files=disk) as ledger:
        return ledger.compact(checkpoint=True).bytes


def test_a_page_that_is_found_damaged_in_the_middle_of_a_pass_costs_a_refold_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """7: pages are checked when they are read; damage falls back to the other slot, or to the whole log."""
    late = {"event": "fill", "order_id": "o-0", "ts": "2026-03-02T20:00:00Z", "qty": "1", "price": "9"}
    lives = [
        {"event": kind, "order_id": f"o-{number}", "ts": f"2026-03-02T14:{number:02}:00Z", **more}
        for number in range(30)
        for kind, more in (("new", {"symbol": "AAPL", "side": "buy", "quantity": "3"}), ("canceled", {}))
    ]
    lines = [json.dumps(one).encode() + b"\n" for one in (*lives, late)]
    log = b"".join(lines)
    clean = Disk()
    clean.put(LOG, log)
    compact(clean)
    for damaged in (1, 2):
        disk = Disk()
        monkeypatch.setattr(Fold.__init__, "__defaults__", (timedelta(7), 0))
        for end in (len(lines) // 2, len(lines) - 1):
            disk.put(LOG, b"".join(lines[:end]))
            compact(disk)
        slots = sorted((open_checkpoint(STATE / name, disk) for name in SLOTS), key=lambda one: one.header.generation)
        for slot in slots[-damaged:]:
            page, data = slot.header.spans[0], bytearray(disk.take(slot.path) or b"")
            data[slot.base + page.start + page.length // 2] ^= 1
            disk.put(slot.path, bytes(data))
        disk.put(LOG, log)
        compact(disk)
        for name in ("pending_orders.jsonl", "trades.jsonl", "findings.jsonl"):
            assert clean.take(LEDGER / name) == disk.take(LEDGER / name)
        assert damaged == sum(path.name.endswith(".damaged") for path in disk.all_files())


@pytest.mark.parametrize("name", ["FORMAT", "FOLD_VERSION"])
def test_another_version_folds_the_whole_log_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """7: a new fold version means a full refold, checked against the trades already written."""
    disk, log = Disk(), orders(0, 9)
    disk.put(LOG, log)
    assert [len(log), 0] == [compact(disk), compact(disk)]
    trades = disk.take(LEDGER / "trades.jsonl")

    for module in (checkpoint, compaction):
        monkeypatch.setattr(module, name, 98)
    assert [len(log), 0] == [compact(disk), compact(disk)]
    assert trades == disk.take(LEDGER / "trades.jsonl")
    disk.put(LEDGER / "trades.jsonl", b"[" + (trades or b"")[1:])
    monkeypatch.setattr(compaction, name, 99)
    with pytest.raises(DerivedConflict, match=r"trades.jsonl: at offset 0 "):
        compact(disk)


def test_a_checkpoint_of_another_team_is_not_used(data: Path) -> None:
    """1.2: a ledger that is now named otherwise writes its lines under the other name from the first on."""
    (data / "events.jsonl").write_bytes(orders(1, 2))
    Ledger(data, team_id="alpha").compact()
    for name in ("trades.jsonl", "findings.jsonl"):
        (data / name).unlink(missing_ok=True)
    Ledger(data, team_id="bravo").compact()
    assert b'"team_id":"bravo"' in read_derived(data)["trades.jsonl"]
    assert b"alpha" not in read_derived(data)["trades.jsonl"]


def test_a_checkpoint_is_written_when_enough_is_new(data: Path) -> None:
    """7: it need not be written on every pass; recovery is bounded by the bytes since the last one."""
    log = data / "events.jsonl"
    names = []
    with Ledger(data, durability="none") as ledger:
        for first, last in [(0, 5), (5, 9), (9, 1200), (1200, 1210)]:
            with log.open("ab") as file:
                file.write(orders(first, last))
            ledger.compact()
            names.append(sorted(path.name for path in (data / ".state").iterdir() if path.is_file()))
    assert [["checkpoint.0", "lock"]] * 2 + [["checkpoint.0", "checkpoint.1", "lock"]] * 2 == names
    assert len(orders(0, 5) + orders(5, 9)) < compaction.CHECKPOINT_BYTES_MIN < len(orders(9, 1200))


def test_a_large_checkpoint_is_written_again_after_a_mebibyte_all_the_same(data: Path) -> None:
    """7: recovery is bounded by the bytes since the last one, however much a long log has to remember."""
    log = data / "events.jsonl"
    opened = b"".join(
        b'{"event":"new","order_id":"o-%d","ts":"2026-03-02T14:30:00Z","symbol":"SPY","side":"buy","quantity":"1",'
        b'"client_order_id":"%s"}\n' % (number, b"x" * 400)
        for number in range(2500)
    )
    with Ledger(data, durability="none") as ledger:
        log.write_bytes(opened)
        ledger.compact()
        large = (data / ".state" / SLOTS[0]).stat().st_size
        with log.open("ab") as file:
            file.write((b" " * 65_535 + b"\n") * (compaction.CHECKPOINT_BYTES_MAX >> 16))
        ledger.compact()
        assert (data / ".state" / SLOTS[1]).exists() and large > compaction.CHECKPOINT_BYTES_MAX


@pytest.mark.parametrize("drawn", [0, 1, -1])
def test_a_secret_is_any_number_of_the_field_but_0(monkeypatch: pytest.MonkeyPatch, drawn: int) -> None:
    """With 0 all ids would have one fingerprint."""
    monkeypatch.setattr("secrets.randbelow", lambda count: drawn % count)
    assert (1, 2, PRIME - 1)[drawn] == draw_secret()


@pytest.mark.parametrize("name", SLOTS)
def test_nothing_stays_open_where_a_slot_cannot_be_read(data: Path, name: str) -> None:
    """Neither the good slot nor the one in whose place something else lies."""
    (data / "events.jsonl").write_bytes(orders(0, 9))
    for more in (b"", orders(9, 10)):
        with (data / "events.jsonl").open("ab") as log:
            log.write(more)
        with Ledger(data) as ledger:
            ledger.compact(checkpoint=True)
    before = opened()
    (data / ".state" / name).unlink()
    (data / ".state" / name).mkdir()
    with pytest.raises(IrregularFile):
        open_newest_slot(data / ".state", Files(), lambda _: None)
    (data / ".state" / name).rmdir()
    (data / ".state" / name).write_bytes(b"")
    damaged: list[DamagedCheckpoint] = []
    slot = open_newest_slot(data / ".state", Files(), damaged.append)
    assert slot is not None
    slot.close()
    assert ([data / ".state" / name], before) == ([one.path for one in damaged], opened())
