"""Replay: what the derived files were, at any offset and any time, whatever of the state at hand is there or damaged.

The laws run on `tests.disk.Disk` over generated order lives; the command on a real disk.
"""

import json
import os
import shutil
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compactor import Ledger
from compactor.audit.moments import END, BadMoment, Moment, at_offset, at_time, moment_of
from compactor.audit.replay import BeyondLog, Lines, Replay, open_replay
from compactor.core.fold import Counts
from compactor.core.instants import rfc3339
from compactor.core.lines import Placed, read_line
from compactor.ledger.points import plan_thinning
from compactor.ui.cli import app
from tests.cases import read_derived
from tests.disk import Disk
from tests.faults import orders
from tests.test_laws import DIRECTORY, LOG, derived_from, disk_with, logs

laws = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
RAW = orders(0, 500)


class Done(NamedTuple):
    """What a replay came to: the lines that it gave, what it knew of the trades before them, and the pending orders."""

    counts: Counts
    started_at: int
    last_trades: bytes
    lines: Lines
    pending: bytes


def replayed(disk: Disk, moment: Moment, *, from_first: bool = False) -> Done:
    """Run a replay."""
    with open_replay(DIRECTORY, None, disk) as replay:
        replay.begin(moment, from_first=from_first)
        before = replay.last_trades()
        pieces = list(replay.run())
        pending = replay.fold.pending_lines()
    lines = Lines(b"".join(one.trades for one in pieces), b"".join(one.findings for one in pieces))
    return Done(replay.fold.counts, replay.started_at, before, lines, pending)


def spoiled(data: bytes, place: int) -> bytes:
    """The same bytes with one bit changed."""
    return data[:place] + bytes([data[place] ^ 0x20]) + data[place + 1 :]


@st.composite
def lived_in(draw: st.DrawFn, log: bytes) -> Disk:
    """A ledger that was compacted and sealed now and then while its log grew; some of its state is gone or damaged."""
    disk = disk_with(b"")
    for cut in sorted(draw(st.lists(st.integers(0, len(log)), min_size=1, max_size=4))):
        with Ledger(DIRECTORY, files=disk) as ledger:
            grown = disk.take(LOG) or b""
            disk.put(LOG, grown + log[len(grown) : cut])
            ledger.compact(checkpoint=draw(st.sampled_from([True, True, False])))
            if draw(st.booleans()):
                ledger.seal(now=True, segment_bytes=draw(st.sampled_from([100, 400, 2000])))
    grown = disk.take(LOG) or b""
    disk.put(LOG, grown + log[len(grown) :])
    for path, content in sorted(disk.all_files().items()):
        if path.suffix == ".index" or path.parent.name in (".state", "points"):
            what = draw(st.sampled_from(["keep", "keep", "keep", "keep", "delete", "damage"]))
            if what == "delete":
                disk.drop(path)
            elif what == "damage" and content:
                disk.put(path, spoiled(content, draw(st.integers(0, len(content) - 1))))
    disk.restart()
    return disk


@laws
@given(logs(), st.data())
def test_a_replay_gives_what_the_files_were_when_the_log_ended_there(log: bytes, data: st.DataObject) -> None:
    """Replay, the law: byte for byte the derived files, with sealing, checkpoints, points and indexes or without."""
    disk = data.draw(lived_in(log))
    before = disk.all_files()
    for _ in range(3):
        offset = len(log) - data.draw(st.integers(0, len(log)))
        expected = derived_from(log[:offset])
        whole = replayed(disk, at_offset(offset), from_first=True)
        assert expected == (whole.pending or None, whole.lines.trades or None, whole.lines.findings or None)
        recent = replayed(disk, at_offset(offset))
        assert (whole.pending, whole.counts) == (recent.pending, recent.counts)
        assert whole.lines.trades.endswith(recent.last_trades + recent.lines.trades)
        assert whole.lines.findings.endswith(recent.lines.findings)
    changed = {path for path, content in disk.all_files().items() if before.get(path) != content}
    assert set() == {path for path in changed if path.suffix not in (".index", ".tmp")}


def judged(log: bytes, until_ns: int, known: bool) -> list[tuple[int, bytes]]:
    """The naive selection: the lines, with their offsets, that a time selects."""
    from compactor.ledger.names import instant_in

    selected, was_in, place = [], True, 0
    for line in log.splitlines(keepends=True):
        if line.endswith(b"\n"):
            instant = instant_in(line[:-1], known)
            was_in = was_in if instant is None else instant <= until_ns
            if was_in:
                selected.append((place, line))
        place += len(line)
    return selected


def fold_of_lines(selected: list[tuple[int, bytes]]) -> tuple[bytes, bytes, bytes]:
    """What a fold that forgets nothing makes of lines at their offsets."""
    from compactor.core.derived import encode_lines
    from compactor.core.fold import Fold

    fold = Fold(None, lambda *_: (), None, kept_ended=1 << 20)
    for place, line in selected:
        fold.feed(line, place)
    derived = fold.take_derived()
    return fold.pending_lines(), encode_lines(derived.trades), encode_lines(derived.findings)


@laws
@given(logs(), st.booleans(), st.data())
def test_a_time_selects_the_lines_that_are_not_later(log: bytes, known: bool, data: st.DataObject) -> None:
    """Replay by a time folds the lines recorded, or happened, by then, in log order, with the offsets that they have."""
    disk = data.draw(lived_in(log))
    from compactor.ledger.names import instant_in

    instants = {instant_in(line, known) for line in log.split(b"\n")} - {None}
    base = data.draw(st.sampled_from(sorted(one for one in instants if one is not None) or [0]))
    moment = at_time(
        rfc3339(base + data.draw(st.sampled_from([0, 0, -1, 1, 10**9]))), "recorded" if known else "happened"
    )
    assert moment.until_ns is not None
    expected = fold_of_lines(judged(log, moment.until_ns, known))
    whole, recent = replayed(disk, moment, from_first=True), replayed(disk, moment)
    assert expected == (whole.pending, *whole.lines)
    assert (whole.pending, whole.counts) == (recent.pending, recent.counts)
    assert whole.lines.trades.endswith(recent.last_trades + recent.lines.trades)
    assert whole.lines.findings.endswith(recent.lines.findings)
