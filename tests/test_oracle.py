"""DuckDB as an independent oracle: what SQL makes of a log, and what the fold makes of it, are the same."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings

from compactor import Ledger
from tests import oracle
from tests.bench import generate
from tests.conftest import ROOT
from tests.stories import Event, clean_lives, to_lines

_PRICES = ("execution_price", "requested_price", "limit_price", "stop_price", "trail_price", "filled_avg_price")
NUMBERS = {"quantity", "notional", "trail_percent", "filled_qty", *_PRICES}


def fold(data: Path) -> tuple[oracle.Rows, oracle.Rows]:
    """The trades and the open orders that the product derives."""
    trades, pending = [], []
    for place in sorted((data / "team").iterdir()):
        with Ledger(place) as ledger:
            ledger.compact()
            trades += [dict(row) for row in ledger.rows("trades")]
            pending += list(ledger.rows("pending_orders"))
    return trades, pending


def comparable(rows: Iterable[dict[str, Any]], *, nanos: tuple[str, ...] = ()) -> oracle.Rows:
    """Numbers as numbers, and only what is known."""
    found = []
    for row in rows:
        known = {name: value for name, value in row.items() if value is not None and name not in ("leg", "n")}
        for name in known.keys() & NUMBERS:
            known[name] = Decimal(known[name]) / (10**9 if name in nanos else 1)
        found.append(known)
    return found


def agree(data: Path) -> tuple[int, int]:
    """Compare both, row by row; returns how many rows were the same."""
    trades, pending = fold(data)
    their_trades, their_pending = oracle.ask(data)
    computed = ("quantity", "execution_price")
    assert comparable(trades) == comparable(their_trades, nanos=computed)
    assert comparable(pending) == comparable(their_pending, nanos=("filled_qty", "filled_avg_price"))
    return len(trades), len(pending)


def test_the_sample(tmp_path: Path) -> None:
    """Sections 3 to 5 on a trading day of three teams: every field of every trade and of every open order."""
    shutil.copytree(ROOT / "fixtures/sample", tmp_path / "data")
    assert (120, 7) == agree(tmp_path / "data")


def test_generated_logs(tmp_path: Path) -> None:
    """The same for the made-up logs of the benchmark, thousands of orders long."""
    for number, team in enumerate(("alpha", "bravo")):
        log = tmp_path / "team" / team / "events.jsonl"
        log.parent.mkdir(parents=True)
        log.write_text("".join(generate.lines(team, 3000, seed=number)))
    trades, pending = agree(tmp_path)
    assert trades > 2500
    assert pending > 100


@settings(max_examples=20, deadline=None)
@given(clean_lives())
def test_clean_lives(events: list[Event]) -> None:
    """The same for lives that nobody thought of: corrections, busts, requests, events told twice or out of order.

    The oracle knows neither assignments (4.12) nor successors of which nothing tells (3.9); `tests.reference` does.
    """
    events = [
        {name: value for name, value in event.items() if name != "replaced_by"}
        for event in events
        if event["event"] != "assigned"
    ]
    with TemporaryDirectory() as scratch:
        ledger = Path(scratch) / "team" / "alpha"
        ledger.mkdir(parents=True)
        (ledger / "events.jsonl").write_bytes(to_lines(events))
        agree(Path(scratch))


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'"price":"264.30"', b'"price":"264.31"'), (b'"qty":"40"', b'"qty":"41"'), (b"canceled", b"accepted")],
)
def test_a_difference_is_seen(tmp_path: Path, old: bytes, new: bytes) -> None:
    """The comparison can fail: the two are asked about logs that differ in one value."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    shutil.copytree(ROOT / "fixtures/sample", ours)
    shutil.copytree(ours, theirs)
    log = theirs / "team/alpha/events.jsonl"
    log.write_bytes(log.read_bytes().replace(old, new, 2))
    trades, pending = fold(ours)
    their_trades, their_pending = oracle.ask(theirs)
    assert (comparable(trades), comparable(pending)) != (
        comparable(their_trades, nanos=("quantity", "execution_price")),
        comparable(their_pending, nanos=("filled_qty", "filled_avg_price")),
    )
