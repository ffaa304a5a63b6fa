"""The laws of the ledger over generated order lives: however the log is cut, stopped, damaged or forgotten, the same
bytes.

The commit protocol runs on `tests.disk.Disk`, a file system that stops or fails at any call. A failure prints the order
life that hypothesis found, and `--hypothesis-seed` replays it.
"""

from datetime import timedelta
from itertools import accumulate, count
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from compactor import DerivedConflict, Ledger, LedgerError
from compactor.core.fast.interface import NoPlainOrders
from compactor.core.fold import Fold
from compactor.ledger.checkpoint import Slots
from compactor.ledger.log import Log
from tests.disk import Disk
from tests.reference import comparable_rows, net_of, reference
from tests.stories import clean_lives, damaged, order_lives, to_lines

DIRECTORY = Path("/ledger")
LOG = DIRECTORY / "events.jsonl"
DERIVED = [DIRECTORY / name for name in ("pending_orders.jsonl", "trades.jsonl", "findings.jsonl")]
SLOTS = [DIRECTORY / ".state" / name for name in ("checkpoint.0", "checkpoint.1")]

laws = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
few = settings(laws, max_examples=15)


class Files(NamedTuple):
    """The three derived files; None where there is no file."""

    pending: bytes | None
    trades: bytes | None
    findings: bytes | None


def files_on(disk: Disk) -> Files:
    """What the derived files hold."""
    return Files(*(disk.take(path) for path in DERIVED))


def compact(disk: Disk, checkpoint: bool = False) -> Files:
    """One pass by a new process."""
    disk.restart()
    with Ledger(DIRECTORY, files=disk) as ledger:
        ledger.compact(checkpoint=checkpoint)
    return files_on(disk)


def disk_with(log: bytes) -> Disk:
    """A disk with a log and nothing else."""
    disk = Disk()
    disk.put(LOG, log)
    return disk


def derived_from(log: bytes) -> Files:
    """What one pass over a log derives."""
    return compact(disk_with(log))


@st.composite
def logs(draw: st.DrawFn) -> bytes:
    """Logs of wild lives, some of them damaged."""
    log = to_lines(draw(order_lives()))
    return draw(damaged(log, losing=True)) if log and draw(st.booleans()) else log


def fold_of(log: bytes, *, retention: timedelta | None, kept_ended: int, short_path: bool = True) -> Files:
    """The same by the fold alone, line by line, with everything forgotten that may be."""
    disk = disk_with(log)
    reader = Log(LOG, disk.open(LOG))
    fold = Fold(None, reader.lines_naming, retention, kept_ended)
    if not short_path:
        fold.plain = NoPlainOrders()
    trades, findings = b"", b""
    place = 0
    for line in log.splitlines(keepends=True):
        if line.endswith(b"\n"):
            fold.feed(line, place)
        place += len(line)
        lines = fold.take_lines()
        trades, findings = trades + lines.trades, findings + lines.findings
    return Files(fold.pending_lines() or None, trades or None, findings or None)


@laws
@given(logs())
def test_retention_is_invisible(log: bytes) -> None:
    """6.1, 1.4: same log, retention 0, 7 days and for ever: same bytes."""
    kept = fold_of(log, retention=None, kept_ended=1 << 20)
    assert kept == fold_of(log, retention=timedelta(0), kept_ended=0)
    assert kept == fold_of(log, retention=timedelta(days=7), kept_ended=0)


@laws
@given(logs(), st.booleans(), st.sampled_from([0, 1 << 20]))
def test_no_ended_order_stays_in_memory(log: bytes, short_path: bool, kept_ended: int) -> None:
    """6.1: a process that lives long forgets all that ended, whatever of it is delivered again."""
    disk = disk_with(log)
    fold = Fold(None, Log(LOG, disk.open(LOG)).lines_naming, timedelta(0), kept_ended)
    if not short_path:
        fold.plain = NoPlainOrders()
    place = 0
    for line in log.splitlines(keepends=True):
        if line.endswith(b"\n"):
            fold.feed(line, place)
            staying = [one for one, order in fold.orders.items() if not order.open and one not in fold.leaving]
            assert [] == staying
            assert kept_ended or not fold.leaving
        place += len(line)


@laws
@given(logs())
def test_the_short_path_is_only_shorter(log: bytes) -> None:
    """1.4: the path of the common event gives the bytes that the rules give."""
    by_the_rules = fold_of(log, retention=None, kept_ended=1 << 20, short_path=False)
    assert by_the_rules == fold_of(log, retention=None, kept_ended=1 << 20, short_path=True)
    assert by_the_rules == derived_from(log)


ODD_TIMES = [
    "2026-03-02T14:30:00.Z",
    "2026-03-02T14:30:00.1234567xZ",
    "20260302T143000.123456Z",
    "2026-W10-1T14:30:00.1Z",
]
DRESS = {
    "recorded_at": ["2026-03-02T15:00:00.123456789Z"],
    "event_id": ["e-1", "e-2"],
    "team_id": ["default", "alpha"],
    "order_status": ["new", "partially_filled", "filled", "canceled", "limbo"],
    "source": ["stream", "rest"],
    "symbol": ["AAPL", "BTC/USD"],
    "side": ["buy", "sell"],
    "quantity": ["3", "3.0", "1e1", "0"],
    "filled_qty": ["1", "2", "0", "1e0"],
    "filled_avg_price": ["10", "-1", "0"],
    "price": ["10", "0", "-0.5", "1E1"],
    "created_at": ["2026-03-02T14:29:00Z", "never"],
    "ts": ODD_TIMES,
}


@st.composite
def dressed(draw: st.DrawFn) -> bytes:
    """Logs of tame lives whose lines carry what a real writer adds, and now and then something odd."""
    events = draw(clean_lives(orders_max=3))
    habit = draw(
        st.sets(st.sampled_from(["recorded_at", "event_id", "team_id", "source", "symbol", "side", "quantity"]))
    )
    for number, event in enumerate(events):
        event.update({name: DRESS[name][0] for name in habit if name not in event})
        if "event_id" in event:
            event["event_id"] = f"e-{number}"
        if draw(st.integers(0, 5)) == 0:
            name = draw(st.sampled_from(sorted(DRESS)))
            event[name] = draw(st.sampled_from(DRESS[name]))
    return to_lines(events)


@settings(laws, max_examples=300)
@given(dressed())
def test_the_short_path_keeps_to_the_rules_on_lines_of_real_writers(log: bytes) -> None:
    """1.4: whatever a line carries besides its event, the short path takes it only where the rules come to the same."""
    by_the_rules = fold_of(log, retention=None, kept_ended=1 << 20, short_path=False)
    assert by_the_rules == fold_of(log, retention=None, kept_ended=1 << 20, short_path=True)


@laws
@given(logs(), st.data())
def test_a_log_may_be_cut_anywhere(log: bytes, data: st.DataObject) -> None:
    """1.4: compacting whenever any number of bytes has come gives the bytes of one pass."""
    expected = derived_from(log)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(log)), max_size=6)))
    disk = disk_with(b"")
    with Ledger(DIRECTORY, files=disk) as kept_open:
        for cut in [*cuts, len(log)]:
            disk.put(LOG, log[:cut])
            if data.draw(st.booleans()):
                kept_open.compact(checkpoint=data.draw(st.booleans()))
            else:
                compact(disk, checkpoint=data.draw(st.booleans()))
        kept_open.compact()
    assert expected == files_on(disk)


@laws
@given(clean_lives())
def test_a_log_delivered_twice_changes_no_trade(events: list[dict[str, object]]) -> None:
    """4.2: everything again, as a server replays it after a reconnect, makes no trade and ends no order."""
    once, twice = derived_from(to_lines(events)), derived_from(to_lines([*events, *events]))
    assert once.trades == twice.trades


@laws
@given(clean_lives())
def test_the_fold_agrees_with_the_naive_one(events: list[dict[str, object]]) -> None:
    """3 and 4: open orders and net trades are those of a fold that is obviously right."""
    rows, net = reference(events)
    found = derived_from(to_lines(events))
    pending = [msgspec.json.decode(line) for line in (found.pending or b"").splitlines()]
    trades = [msgspec.json.decode(line) for line in (found.trades or b"").splitlines()]
    assert comparable_rows(rows) == comparable_rows(pending)
    assert net == net_of(trades)


@laws
@given(logs())
def test_every_byte_of_the_log_is_accounted_for(log: bytes) -> None:
    """5: events, findings that were not applied, blank lines and the unfinished tail add up to the log."""
    from compactor.core.derived import Finding
    from compactor.core.lines import read_line

    found = derived_from(log)
    reported = {
        (one["offset"], one["length"]) for one in map(msgspec.json.decode, (found.findings or b"").splitlines())
    }
    place = accepted = set_aside = blank = 0
    for line in log.splitlines(keepends=True):
        if line.endswith(b"\n"):
            pieces = list(read_line(line[:-1], place))
            wrong = [one for one in pieces if isinstance(one, Finding) and not one.applied]
            assert all((one.offset, one.length) in reported for one in wrong)
            set_aside += sum(one.length for one in wrong)
            accepted += sum(one.length for one in pieces if not isinstance(one, Finding))
            blank += 0 if pieces else len(line)
        place += len(line)
    tail = len(log) - (log.rfind(b"\n") + 1)
    assert len(log) == accepted + set_aside + blank + tail


def with_checkpoint(disk: Disk) -> None:
    """One pass that leaves a checkpoint."""
    Ledger(DIRECTORY, files=disk).compact(checkpoint=True)


def half_done(log: bytes, cut: int) -> Disk:
    """A ledger that was compacted when its log had so many bytes, and has the whole log now."""
    disk = disk_with(log[:cut])
    compact(disk, checkpoint=True)
    disk.put(LOG, log)
    disk.restart()
    return disk


@few
@given(logs(), st.data())
def test_a_pass_may_be_stopped_at_any_call(log: bytes, data: st.DataObject) -> None:
    """7: whichever system call of a pass is its last, the next pass reaches the same bytes, each trade once."""
    cut = data.draw(st.integers(0, len(log)))
    expected = derived_from(log)
    for step, disk in half_done(log, cut).list_stops(with_checkpoint):
        assert expected == compact(disk), f"stopped at call {step}"


@settings(few, max_examples=4)
@given(logs())
def test_no_checkpoint_is_ahead_of_the_pending_orders(log: bytes) -> None:
    """7, 4 before 5: wherever a long pass is stopped, the pending orders are those of its checkpoint, or newer ones."""
    ends = [0, *(end for end in accumulate(map(len, log.splitlines(keepends=True))) if log[end - 1 : end] == b"\n")]
    rows = {end: derived_from(log[:end]).pending for end in ends}
    expected = derived_from(log)
    with patch("compactor.ledger.log.BLOCK_BYTES", 256), patch("compactor.ledger.points.COMMIT_BYTES", 1):
        for step, disk in disk_with(log).list_stops(with_checkpoint):
            slot = Slots(DIRECTORY / ".state", disk).open_newest()
            folded = slot.header.log.length if slot is not None else 0
            assert disk.take(DERIVED[0]) in [rows[end] for end in ends if end >= folded], f"stopped at call {step}"
            assert expected == compact(disk)


@few
@given(logs(), st.data())
def test_the_power_may_fail_at_any_call(log: bytes, data: st.DataObject) -> None:
    """7: what was not synced is gone, in part or in whole, and the next pass reaches the same bytes all the same."""
    cut = data.draw(st.integers(0, len(log)))
    keep = data.draw(st.sampled_from([0.0, 0.3, 0.9, 1.0]))
    expected = derived_from(log)
    for step, disk in half_done(log, cut).list_stops(with_checkpoint):
        disk.lose_power(keep)
        assert expected == compact(disk), f"power lost at call {step}"


@few
@given(logs(), st.data(), st.sampled_from(["compact", "checkpoint", "seal"]))
def test_nothing_is_ever_ahead_of_a_log_that_nobody_synced(log: bytes, data: st.DataObject, how: str) -> None:
    """7.1, 8.3: what its writers did not sync may be gone after a power loss, and with it all that was made of it."""
    cut = log.rfind(b"\n", 0, data.draw(st.integers(0, len(log)))) + 1
    keep = data.draw(st.sampled_from([0.0, 0.3, 0.9]))

    def act(disk: Disk) -> None:
        with Ledger(DIRECTORY, files=disk) as ledger:
            ledger.compact(checkpoint=how != "compact")
            if how == "seal":
                ledger.seal(now=True, reclaim="never")

    disk = disk_with(log[:cut])
    compact(disk)
    disk.grow(LOG, log)
    for step, left in [*disk.list_stops(act), (0, disk)]:
        if not step:
            disk.restart()
            act(disk)
        left.lose_power(keep)
        assert derived_from(left.take(LOG) or b"") == compact(left), f"power lost at call {step}"


@few
@given(logs(), st.data())
def test_what_a_pass_has_returned_survives_a_power_loss(log: bytes, data: st.DataObject) -> None:
    """7: a pass returns when its files are durable."""
    disk = half_done(log, data.draw(st.integers(0, len(log))))
    Ledger(DIRECTORY, files=disk).compact()
    returned = files_on(disk)
    disk.lose_power(0.0)
    assert returned == files_on(disk)


@few
@given(logs(), st.data())
def test_a_pass_that_fails_leaves_every_file_as_it_was(log: bytes, data: st.DataObject) -> None:
    """A full or failing disk at any call: one clear error, trades and findings as before, and the next pass goes on."""
    cut = data.draw(st.integers(0, len(log)))
    expected = derived_from(log)
    for step in count(1):
        disk = half_done(log, cut)
        before = files_on(disk)
        disk.fail_at = step
        ledger = Ledger(DIRECTORY, files=disk)
        try:
            ledger.compact(checkpoint=True)
        except LedgerError as error:
            assert str(error)
        else:
            break
        after = files_on(disk)
        assert (before.trades, before.findings) == (after.trades, after.findings), f"failed at call {step}"
        assert after.pending in (before.pending, expected.pending)
        disk.fail_at = 0
        ledger.compact()
        assert expected == files_on(disk), f"failed at call {step}"


@laws
@given(logs(), st.data())
def test_derived_files_and_checkpoints_may_be_deleted_or_damaged(log: bytes, data: st.DataObject) -> None:
    """1.3, 7: whatever is derived can be deleted, and any byte of either checkpoint may be wrong: same bytes."""
    disk = half_done(log, data.draw(st.integers(0, len(log))))
    if data.draw(st.booleans()):
        compact(disk, checkpoint=True)
    for path in DERIVED + SLOTS:
        content = disk.take(path)
        if not content:
            continue
        what = data.draw(st.sampled_from(["keep", "delete", "damage" if path in SLOTS else "shorten"]))
        place = data.draw(st.integers(0, len(content) - 1))
        if what == "delete":
            disk.drop(path)
        elif what == "damage":
            disk.put(path, content[:place] + bytes([content[place] ^ 0x40]) + content[place + 1 :])
        elif what == "shorten":
            disk.put(path, content[:place])
    assert derived_from(log) == compact(disk)


@laws
@given(logs(), st.data())
def test_a_foreign_byte_in_the_trades_stops_the_ledger(log: bytes, data: st.DataObject) -> None:
    """7: trades that the log does not say are an error that names file and offset; nothing is touched."""
    disk = disk_with(log)
    trades = compact(disk).trades
    assume(trades)
    assert trades is not None
    place = data.draw(st.integers(0, len(trades) - 1))
    edited = trades[:place] + bytes([trades[place] ^ 1]) + trades[place + 1 :]
    disk.put(DERIVED[1], edited)
    for slot in SLOTS:
        disk.drop(slot)
    with pytest.raises(DerivedConflict, match=f"trades.jsonl: at offset {place} "):
        compact(disk)
    assert edited == disk.take(DERIVED[1])
