"""What a tracker shows of one ledger is what the derived files say, and its changes are a function of the log."""

from __future__ import annotations

import itertools
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compactor import Ledger
from compactor.ledger import LedgerEntry
from compactor.ledger.files import Files
from compactor.ledger.open_intents import read_open_intents
from compactor.tracker import change_fold, paced_restore, tracked_ledger
from compactor.tracker.change import RawChange
from compactor.tracker.ledger_rows import LedgerRows
from compactor.tracker.paced_restore import Pace
from compactor.tracker.past_changes import fold_changes
from compactor.tracker.tracked_ledger import TrackedLedger
from tests.stories import damaged, order_lives, to_lines

laws = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
FILES = ("pending_orders.jsonl", "trades.jsonl", "findings.jsonl")


def with_intents(log: bytes, places: list[int]) -> bytes:
    """A log with intents between its lines: announced, and in every second place also concluded (3.13)."""
    lines = log.splitlines(keepends=True)
    for number, place in enumerate(places):
        head = f'"order_id":"a:{number}","client_order_id":"a:{number}","ts":"2026-03-02T14:30:00Z"'
        lines.insert(place % (len(lines) + 1), f'{{"event":"submitting",{head}}}\n'.encode())
        if number % 2:
            lines.append(f'{{"event":"submitted",{head}}}\n'.encode())
    return b"".join(lines)


@st.composite
def logs(draw: st.DrawFn) -> bytes:
    """Logs of wild lives, some of them damaged."""
    log = with_intents(to_lines(draw(order_lives())), draw(st.lists(st.integers(0, 9), max_size=6)))
    return draw(damaged(log, losing=True)) if log and draw(st.booleans()) else log


@contextmanager
def forgetful(recent_bytes: int) -> Iterator[None]:
    """Retention 0, nothing that ended kept in the state, and small pieces of everything."""
    with (
        patch.object(paced_restore, "RETENTION", timedelta(0)),
        patch.object(paced_restore, "PIECE_BYTES_MIN", 0),
        patch.object(paced_restore, "PIECE_ORDERS", 1),
        patch.object(paced_restore, "KEPT_ENDED", 0),
        patch.object(change_fold, "SHRINK_BYTES", 1),
        patch.object(tracked_ledger, "SHRINK_BYTES", 1),
        patch.object(tracked_ledger, "RECENT_BYTES", recent_bytes),
        patch.object(tracked_ledger, "_PIECE_BYTES", 64),
        patch.object(tracked_ledger, "BATCH_CHANGES", 3),
    ):
        yield


def derive(ledger: Path) -> list[bytes]:
    """The derived files of a ledger after a pass."""
    with Ledger(ledger, retention_days=None) as one:
        one.compact(checkpoint=True)
    return [(ledger / name).read_bytes() if (ledger / name).exists() else b"" for name in FILES]


def shown(rows: LedgerRows) -> list[bytes]:
    """The same as a tracker shows it."""
    return [rows.encode_pending(), b"".join(rows.trades), b"".join(rows.findings)]


def read(ledger: TrackedLedger, rows: LedgerRows) -> list[RawChange]:
    """Take in what is new."""
    return [change for batch in ledger.read(Pace()) for change in rows.apply(batch)]


def cut(log: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({at % (len(log) + 1) for at in cuts}), len(log)]
    return [log[start:end] for start, end in itertools.pairwise(edges)]


@laws
@given(logs(), st.lists(st.integers(0, 10_000), max_size=4), st.booleans(), st.sampled_from([0, 300, 1 << 17]))
def test_what_is_shown_is_what_the_derived_files_say(
    log: bytes, cuts: list[int], is_compacted: bool, recent_bytes: int
) -> None:
    """1.4: however the log grows, whoever compacts it, and wherever the tracker begins: the same bytes."""
    with tempfile.TemporaryDirectory() as name, forgetful(recent_bytes):
        path = Path(name)
        entry, first = LedgerEntry(None, path), None
        for number, piece in enumerate(cut(log, cuts)):
            with (path / "events.jsonl").open("ab") as file:
                file.write(piece)
            if first is None:
                first = (TrackedLedger(entry, Files()), LedgerRows(path, "default"))
            read(*first)
            if is_compacted or number == len(cuts):
                expected = derive(path)
                assert sorted(one.client_order_id for one in read_open_intents(entry)) == sorted(
                    one.client_order_id for one in first[1].intents
                )
                late = (TrackedLedger(entry, Files()), LedgerRows(path, "default"))
                read(*late)
                assert expected == shown(first[1])
                assert expected == shown(late[1])


@laws
@given(logs(), st.lists(st.integers(0, 10_000), max_size=4), st.data())
def test_changes_go_on_from_any_offset(log: bytes, cuts: list[int], data: st.DataObject) -> None:
    """No gap and nothing twice: what is told live is what is folded again, and every offset splits it in two."""
    with tempfile.TemporaryDirectory() as name, forgetful(0):
        path = Path(name)
        (path / "events.jsonl").write_bytes(b"")
        entry = LedgerEntry(None, path)
        ledger, rows = TrackedLedger(entry, Files()), LedgerRows(path, "default")
        # Begun on an empty log, it is told of every change.
        live = read(ledger, rows)
        for piece in cut(log, cuts):
            with (path / "events.jsonl").open("ab") as file:
                file.write(piece)
            live += read(ledger, rows)
            if data.draw(st.booleans()):
                derive(path)
        offsets = [change.offset for change in live]
        assert sorted(offsets) == offsets
        assert len(set(offsets)) == len([change for change in live if not change.is_shared]) + len(
            {change.offset for change in live if change.is_shared}
        )
        after = data.draw(st.sampled_from([0, len(log) // 2, rows.offset, *offsets]))
        again: list[RawChange] = []
        fold_changes(entry, after, rows.offset, lambda piece, _: again.extend(piece), threading.Event())
        assert [msgspec.structs.asdict(one) for one in live if one.is_behind(after)] == [
            msgspec.structs.asdict(one) for one in again
        ]
        if rows.list_changes(after) is not None:
            assert again == rows.list_changes(after)
