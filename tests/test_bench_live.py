"""The figures of the link to the broker can be taken: a short run of what `make bench-live` does."""

from __future__ import annotations

from pathlib import Path

from tests.bench.live import gap, throughput
from tests.bench.live_broker import PARTS


def test_every_message_that_is_measured_is_written(tmp_path: Path) -> None:
    """Stream messages a second made durable: none of them is missing when the clock stops."""
    messages, batches, seconds, _ = throughput(tmp_path / "data", 40)
    assert 40 * (PARTS + 1) == messages
    assert 1 <= batches <= messages
    assert seconds > 0
    lines = sum(path.read_bytes().count(b"\n") for path in tmp_path.rglob("events.jsonl"))
    assert messages == lines


def test_a_gap_that_is_measured_is_closed(tmp_path: Path) -> None:
    """Time to close a gap: with and without replay every fill is a trade in the end."""
    for replay in (True, False):
        _, _, requests, trades = gap(tmp_path / "data", 40, replay=replay)
        assert 40 * PARTS == trades
        assert requests >= 4
