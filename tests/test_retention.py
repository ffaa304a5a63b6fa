"""Retention is invisible in the files of a whole ledger (format.md section 6): whatever is forgotten, whenever, and
wherever its lines lie, the same bytes.

`test_laws` holds this of the fold alone. Here ledgers are compacted, sealed and opened anew between any two lines. The
base of every comparison is a single pass that forgets nothing. Note: a ledger forgets when it writes a
checkpoint, so each pass here writes one.
"""

import json
from datetime import timedelta
from itertools import accumulate

from hypothesis import given, settings
from hypothesis import strategies as st

from compactor import Ledger
from compactor.core.fold import KEPT_ENDED
from tests.disk import Disk
from tests.stories import START, Event, damaged, order_lives, to_lines
from tests.test_laws import DIRECTORY, LOG, Files, disk_with, files_on, laws

RETENTIONS = [0, 7, None]
PADDING = b" " * 70_000 + b"\n"
"""A blank line that is long enough for the log before it to be punched once it is sealed."""
LATE: list[Event] = [
    {"event": "partial_fill", "execution_id": "x-9", "price": "10", "qty": "1"},
    {"event": "fill", "price": "11", "qty": "2", "filled_qty": "4"},
    {"event": "trade_bust", "previous_execution_id": "x-1"},
    {"event": "trade_correct", "previous_execution_id": "x-1", "execution_id": "x-8", "price": "9", "qty": "1"},
    {"event": "snapshot", "filled_qty": "5", "filled_avg_price": "10", "order_status": "partially_filled"},
    {"event": "new", "symbol": "AAPL", "side": "buy", "quantity": "3"},
    {"event": "restated", "quantity": "20"},
    {"event": "canceled"},
]


def days_later(days: int) -> str:
    """An instant so many days after the stories begin."""
    return (START + timedelta(days=days)).isoformat()


def line_ends(log: bytes) -> list[int]:
    """Where each line ends."""
    return list(accumulate(map(len, log.splitlines(keepends=True))))


@st.composite
def late_events(draw: st.DrawFn, events: list[Event]) -> list[Event]:
    """A month later: old events delivered again, and new ones for orders that have long been forgotten."""
    clock: Event = {"event": "new", "order_id": "o-today", "ts": days_later(31), "recorded_at": days_later(31)}
    again = st.sampled_from(events).map(lambda event: {**event, "recorded_at": days_later(31)})
    names = st.sampled_from(sorted({event["order_id"] for event in events}))
    times = st.sampled_from([days_later(-1), days_later(1), days_later(32)])
    late = st.builds(lambda what, name, ts: {**what, "order_id": name, "ts": ts}, st.sampled_from(LATE), names, times)
    return [clock, *draw(st.lists(st.one_of(again, late), min_size=1, max_size=6))]


@st.composite
def logs_with_late_events(draw: st.DrawFn) -> bytes:
    """Logs of wild lives, some of them damaged, whose orders are named again a month later."""
    events = draw(order_lives().filter(bool))
    log = to_lines(events)
    log = draw(damaged(log, losing=True)) if draw(st.booleans()) else log
    gap = b"" if log.endswith(b"\n") or not log else b"\n"
    return log + gap + draw(st.sampled_from([b"", PADDING])) + to_lines(draw(late_events(events)))


def one_pass(log: bytes, retention_days: int | None) -> Files:
    """What one pass over a log derives."""
    disk = disk_with(log)
    Ledger(DIRECTORY, files=disk, retention_days=retention_days).compact(checkpoint=True)
    return files_on(disk)


def pass_over(disk: Disk, retention_days: int | None, seals: bool) -> bytes:
    """A pass by a new process that leaves a checkpoint, and seals what is folded; returns the whole log as it reads."""
    disk.restart()
    with Ledger(DIRECTORY, files=disk, retention_days=retention_days) as ledger:
        ledger.compact(checkpoint=True)
        if seals:
            ledger.seal(now=True)
        return b"".join(ledger.cat(0, len(disk.take(LOG) or b"")))


def grown_by_passes(log: bytes, cuts: list[int], passes: list[tuple[int | None, bool]]) -> Disk:
    """A ledger whose log came in pieces, with a pass after each, by a process with a retention of its own."""
    disk = disk_with(b"")
    start = 0
    for cut, (retention_days, seals) in zip([*cuts, len(log)], passes, strict=True):
        disk.append(LOG, log[start:cut])
        start = cut
        assert log[:cut] == pass_over(disk, retention_days, seals)
    return disk


def test_every_retention_derives_the_same_files_in_one_pass() -> None:
    """6, 1.4: same log, retention 0, 7 days and for ever: same bytes, with more orders than any pass keeps whole."""
    ids = [f"o-{number}" for number in range(KEPT_ENDED + 2000)]
    begun = [{"event": "new", "order_id": name, "ts": days_later(0), "symbol": "AAPL", "side": "buy"} for name in ids]
    ended = [{"event": "canceled", "order_id": name, "ts": days_later(number)} for number, name in enumerate(ids[:100])]
    late = [{**what, "order_id": name, "ts": days_later(300)} for name in ids[:20:3] for what in LATE]
    rest = [{"event": "expired", "order_id": name, "ts": days_later(200)} for name in ids[100:]]
    log = to_lines([*begun, *ended, *rest, *late, *ended, *late[::-1]])
    kept = one_pass(log, None)
    assert kept.trades is not None and b"late_fill" in (kept.findings or b"")
    assert kept == one_pass(log, 0)
    assert kept == one_pass(log, 7)


@settings(laws, max_examples=60)
@given(logs_with_late_events(), st.sampled_from(RETENTIONS), st.data())
def test_a_ledger_may_forget_after_any_byte(log: bytes, retention_days: int | None, data: st.DataObject) -> None:
    """6.2: forgetting whenever any number of bytes has come, and starting again from what is left, changes no byte."""
    cuts = sorted([*data.draw(st.lists(st.integers(0, len(log)), max_size=4)), *line_ends(log)[-8:]])
    grown = grown_by_passes(log, cuts, [(retention_days, False)] * (len(cuts) + 1))
    assert one_pass(log, None) == files_on(grown)


@settings(laws, max_examples=60)
@given(logs_with_late_events(), st.data())
def test_what_is_forgotten_may_be_sealed(log: bytes, data: st.DataObject) -> None:
    """6.2, 1.3: with sealing between any two passes, each with a retention of its own, the late events find their
    orders in segments, and so does a fold that starts over."""
    ends = line_ends(log)
    cuts = sorted([*data.draw(st.lists(st.sampled_from(ends), max_size=3)), *ends[-3:]])
    a_pass = st.tuples(st.sampled_from(RETENTIONS), st.booleans())
    passes = data.draw(st.lists(a_pass, min_size=len(cuts) + 1, max_size=len(cuts) + 1))
    expected = one_pass(log, None)
    disk = grown_by_passes(log, cuts, passes)
    assert expected == files_on(disk)
    for path in list(disk.all_files()):
        if path.name.startswith("checkpoint."):
            disk.drop(path)
    pass_over(disk, data.draw(st.sampled_from(RETENTIONS)), False)
    assert expected == files_on(disk)


def test_a_late_fill_finds_its_order_behind_a_hole_of_the_log() -> None:
    """6.2: an order that ended, was forgotten, sealed and punched out of the log gets a fill of a month later."""
    terms = {"order_id": "o-1", "symbol": "AAPL", "side": "buy", "quantity": "3"}
    told = to_lines(
        [{"event": "new", "ts": days_later(0), **terms}, {"event": "canceled", "order_id": "o-1", "ts": days_later(1)}]
    )
    today = to_lines([{"event": "new", "order_id": "o-2", "ts": days_later(31), "recorded_at": days_later(31)}])
    fill = to_lines([{**LATE[0], "order_id": "o-1", "ts": days_later(32)}])
    log = told + PADDING + today + fill
    # The second pass forgets where the order's lines are: only then is the whole history searched for them.
    cuts = [len(told) + len(PADDING), len(log) - len(fill)]
    disk = grown_by_passes(log, cuts, [(0, False), (0, True), (0, False)])
    assert bytes(len(told)) == (disk.take(LOG) or b"")[: len(told)]
    found = files_on(disk)
    trades = [json.loads(line) for line in (found.trades or b"").splitlines()]
    assert [("o-1", "AAPL", "1")] == [(one["order_id"], one["symbol"], one["quantity"]) for one in trades]
    assert b"late_fill" in (found.findings or b"")
    assert one_pass(log, None) == found
