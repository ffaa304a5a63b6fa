"""No line stops a ledger, its sealing or its history: every command over lines that once did, and over wild ones."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.wild import check_commands, wild_logs

HEAD = b'"order_id":"o-1","ts":"2026-03-02T10:00:00Z"'
PLACED = b'{"event":"new",%b,"symbol":"AAPL","side":"buy","quantity":"10"}\n' % HEAD
FILLED = b'{"event":"partial_fill",%b,"price":"10","qty":"1","execution_id":"x-1"}\n' % HEAD
STOPPED = {
    "a number in legs": b'{"event":"order_paused",%b,"legs":[{"id":"l-1","qty":1.5}]}' % HEAD,
    "a number in the legs of a fill": (
        b'{"event":"fill",%b,"qty":5,"legs":[{"order_id":"l-1","symbol":"A","side":"buy","qty":1.5,"price":1e1}]}'
        % HEAD
    ),
    "a number of more than 64 bits in legs": b'{"event":"new",%b,"legs":[{"n":123456789012345678901234567890}]}' % HEAD,
    "an empty previous_execution_id of a bust": b'{"event":"trade_bust",%b,"previous_execution_id":""}' % HEAD,
    "an empty previous_execution_id of a correction": (
        b'{"event":"trade_correct",%b,"previous_execution_id":"","execution_id":"","price":"1","qty":"1"}' % HEAD
    ),
    "300 events in one line": FILLED[:-1] * 300,
    "nested arrays behind events": FILLED[:-1] * 8 + b'{"a":[' + b"[1]," * 5000,
    "a time of the year 1": b'{"event":"canceled","order_id":"o-1","ts":"0001-01-01T00:00:00Z"}',
    "a time of the year 1600": b'{"event":"canceled","order_id":"o-1","ts":"1600-01-01T00:00:00Z"}',
    "the last leap second": b'{"event":"canceled","order_id":"o-1","ts":"9999-12-31T23:59:60Z"}',
    "a leap second": b'{"event":"canceled","order_id":"o-1","ts":"2016-12-31T23:59:60Z"}',
    "recorded in the year 1": b'{"event":"canceled",%b,"recorded_at":"0001-01-01T00:00:00+14:00"}' % HEAD,
    "a price of forty digits": (b'{"event":"snapshot",%b,"filled_qty":"1.000000001","filled_avg_price":"1e39"}' % HEAD),
    "a byte in legs that is not UTF-8": b'{"event":"new",%b,"legs":[{"id":"\xff"}]}' % HEAD,
    "1e400 in legs": b'{"event":"new",%b,"legs":[{"id":"l-1","x":1e400}]}' % HEAD,
    "a byte in raw that is not UTF-8": b'{"event":"new",%b,"limit_price":5,"raw":{"a":"\xff"}}' % HEAD,
    "deep nesting": b'{"event":"new",%b,"raw":' % HEAD + b"[" * 900 + b"]" * 900 + b"}",
    "a blank, an event, and other bytes": b" " + FILLED[:-1] + b"xyz",
}


@pytest.mark.parametrize("name", STOPPED)
def test_every_command_ends_well(name: str) -> None:
    """Sections 2 and 5: no line stops a command, and the lines behind it count."""
    check_commands(PLACED + FILLED + STOPPED[name] + b"\n" + FILLED.replace(b"x-1", b"x-2"))


@settings(
    derandomize=True,  # `make fuzz` searches at random; a change is judged by the same logs every time.
    deadline=None, max_examples=10, phases=[Phase.generate, Phase.reuse], suppress_health_check=list(HealthCheck)
)  # fmt: skip
@given(wild_logs())
def test_every_command_ends_well_over_a_wild_log(log: bytes) -> None:
    """Sections 2 and 5, over values of every kind; `make fuzz` looks for longer."""
    check_commands(log)
