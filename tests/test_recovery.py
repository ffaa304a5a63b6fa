"""Damaged lines: whole events are recovered, the rest is findings, and no line takes long or needs a deep stack."""

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compactor.core.decoding import decode
from compactor.core.derived import Finding
from compactor.core.events import LINE_BYTES_MAX, NESTING_MAX, Problem
from compactor.core.lines import Placed, read_line

EVENT = b'{"event":"new","order_id":"o-1","ts":"2026-03-02T10:00:00Z"}'
OTHER = b'{"event":"canceled","order_id":"o-2","ts":"2026-03-02T10:00:01Z","note":"a {b} \\"c\\""}'
FOUND = {b"E": EVENT, b"O": OTHER}


def read(line: bytes, offset: int = 0) -> list[tuple[Any, ...]]:
    """Events as (offset, length, order), findings as (offset, length, kind, applied)."""
    found = list(read_line(line, offset))
    whole = sum(one.length for one in found if isinstance(one, Placed) or not one.applied)
    assert len(line) + 1 == whole
    return [
        (one.offset, one.length, one.event.order_id)
        if isinstance(one, Placed)
        else (one.offset, one.length, one.kind, one.applied)
        for one in found
    ]


E, C = len(EVENT), len(OTHER)


def _inside(before: int, behind: int) -> list[tuple[Any, ...]]:
    """An event with so many bytes before and behind it."""
    torn = [(before, E, "fused_line", True), (before + E, behind, "fused_line", False)]
    return [(0, before, "fused_line", False), (before, E, "o-1"), *torn]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (EVENT[:20] + EVENT, [(0, 20, "fused_line", False), (20, E + 1, "o-1")]),
        (EVENT + EVENT[:20], [(0, E, "o-1"), (0, E, "fused_line", True), (E, 21, "fused_line", False)]),
        (EVENT + OTHER, [(0, E, "o-1"), (0, E, "fused_line", True), (E, C + 1, "o-2")]),
        (b" " + EVENT + b"xyz", [(0, E + 1, "o-1"), (0, E + 1, "fused_line", True), (E + 1, 4, "fused_line", False)]),
        (EVENT + b" \t" + OTHER + b" ", [(0, E + 2, "o-1"), (0, E + 2, "fused_line", True), (E + 2, C + 2, "o-2")]),
        (
            EVENT + b"xyz" + OTHER,
            [(0, E, "o-1"), (0, E, "fused_line", True), (E, 3, "fused_line", False), (E + 3, C + 1, "o-2")],
        ),
        (EVENT + b" x", [(0, E, "o-1"), (0, E, "fused_line", True), (E, 3, "fused_line", False)]),
        (
            EVENT[:20] + OTHER + EVENT[:20],
            [
                (0, 20, "fused_line", False), (20, C, "o-2"), (20, C, "fused_line", True),
                (20 + C, 21, "fused_line", False),
            ],
        ),
        (b"\0\0" + EVENT, [(0, 2, "nul_bytes", False), (2, E + 1, "o-1")]),
        (EVENT + b"\0", [(0, E, "o-1"), (0, E, "fused_line", True), (E, 2, "nul_bytes", False)]),
        (b"\xff" + EVENT, [(0, 1, "fused_line", False), (1, E + 1, "o-1")]),
        (b"\xef\xbb\xbf" + EVENT, [(0, E + 4, "o-1")]),
        (b'{"event":"new","a":' + EVENT, [(0, 19, "fused_line", False), (19, E + 1, "o-1")]),
        (b'{"event":"new","a":[1,' + EVENT, [(0, 22, "fused_line", False), (22, E + 1, "o-1")]),
        (b"{" + EVENT, [(0, 1, "fused_line", False), (1, E + 1, "o-1")]),
        (b'{"a":1}' + EVENT, [(0, 7, "fused_line", False), (7, E + 1, "o-1")]),
        (b"[" * 100 + EVENT, [(0, 100, "fused_line", False), (100, E + 1, "o-1")]),
        # An object that is no JSON behind a comma is none; what is whole inside of it counts.
        (b'{"a":' + EVENT + b",}", _inside(5, 3)),
        (b'{"a":[' + EVENT + b",]}", _inside(6, 4)),
        (b'{"a":[' + EVENT + b",x", _inside(6, 3)),
        # A name may be written with escapes.
        (b"x" + EVENT.replace(b"event", b"\\u0065vent"), [(0, 1, "fused_line", False), (1, E + 6, "o-1")]),
        (EVENT[:-1], [(0, E, "not_json", False)]),
        (b'{"a":' + EVENT + b"}", [(0, E + 7, "missing_field", False)]),
        (b'{"a":' + EVENT + b"}x", [(0, E + 8, "not_json", False)]),
    ],
)  # fmt: skip
def test_whole_events_are_recovered(line: bytes, expected: list[tuple[Any, ...]]) -> None:
    """Section 5: events in a damaged line are applied, whatever stands before, between or behind them. An object
    that is a value of another one is no event of its own."""
    assert expected == read(line)
    assert [(offset + 7, *rest) for offset, *rest in expected] == read(line, 7)


@given(st.data())
def test_an_event_is_recovered_behind_any_torn_one(data: st.DataObject) -> None:
    """Section 5: it does not matter where the write before was cut off, be it inside of a text or behind a colon."""
    torn = OTHER[: data.draw(st.integers(1, C - 1))]
    more = EVENT[: data.draw(st.integers(0, E - 1))]
    events = [one for one in read_line(torn + EVENT + more + OTHER, 0) if isinstance(one, Placed)]
    assert [(len(torn), "o-1"), (len(torn) + E + len(more), "o-2")] == [(at, one.order_id) for at, _, one in events]


@given(st.lists(st.one_of(st.just(EVENT), st.just(OTHER), st.binary(max_size=8), st.just(EVENT[:30])), max_size=8))
def test_events_and_findings_are_the_whole_line(parts: list[bytes]) -> None:
    """Section 5: every byte of a line is an event's or a finding's."""
    line = b"".join(parts).replace(b"\n", b"")
    if line.strip():
        read(line)


def _fill(*parts: bytes) -> bytes:
    """A line of the greatest length that repeats some bytes."""
    first, *rest = parts
    repeated = b"".join(rest)
    return (first + repeated * (LINE_BYTES_MAX // len(repeated)))[:LINE_BYTES_MAX]


@pytest.mark.parametrize(
    ("line", "events"),
    [
        (EVENT * 500, 500),
        (_fill(b"", EVENT), LINE_BYTES_MAX // E),
        (_fill(b"", EVENT[:30], EVENT), LINE_BYTES_MAX // (E + 30)),
        (_fill(EVENT * 480 + b'{"a":[', b"[1],"), 480),
        (_fill(b"", b'{"'), 0),
        (_fill(b"", b'{"a":'), 0),
        (_fill(b'{"a":[', b'{"event":1,"order_id":1,"ts":1},'), 0),
        (_fill(b"", b'{"a":["{",'), 0),
        (_fill(b"", b"["), 0),
    ],
)  # fmt: skip
def test_no_line_takes_long(line: bytes, events: int) -> None:
    """Section 5: the work for one line has a bound, whatever stands in it."""
    started = time.process_time()
    found = list(read_line(line, 0))
    assert events == sum(isinstance(one, Placed) for one in found)
    assert time.process_time() - started < 10


def test_what_the_budget_does_not_reach_is_one_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 5: once the budget for a line is spent, the rest of it is one finding."""
    monkeypatch.setattr("compactor.core.recovery.WORK_MIN", 1000)
    monkeypatch.setattr("compactor.core.recovery.WORK_PER_BYTE", 0)
    found = list(read_line(EVENT * 100, 0))
    events = [one for one in found if isinstance(one, Placed)]
    assert 0 < len(events) < 100
    last = found[-1]
    assert isinstance(last, Finding)
    assert ("fused_line", len(events) * E, (100 - len(events)) * E + 1) == (last.kind, last.offset, last.length)


def _count_events(line: bytes) -> int:
    return sum(isinstance(one, Placed) for one in read_line(line, 0))


@pytest.mark.parametrize(
    ("line", "events", "work"),
    [
        (EVENT + EVENT, 1, 73),
        (EVENT + EVENT, 2, 308),
        (EVENT[:20] + EVENT, 1, 167),
        (b'{"x":[' + EVENT + b"," + OTHER + b"x", 2, 144),
        (b'{"a":[' + b"[1]," * 10 + EVENT, 1, 329),
        (b'{"a":{"b":[1,2]},"c":{}}' + EVENT, 1, 203),
        (EVENT + b'{"' * 10 + OTHER, 2, 1108),
        (b'{"a":{"b":{"c":1,x' + EVENT, 1, 191),
        (b'{"event":1,"ts":1}' + EVENT, 1, 163),
        (b'{"a":[' + EVENT + b",x", 1, 144),
    ],
)  # fmt: skip
def test_how_far_a_budget_goes_is_the_same_in_every_version(
    line: bytes, events: int, work: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1.4: what is found in a hostile line is derived from it, so that the work that each step counts for is fixed."""
    monkeypatch.setattr("compactor.core.recovery.WORK_PER_BYTE", 0)
    for budget, is_enough in [(work - 1, False), (work, True)]:
        monkeypatch.setattr("compactor.core.recovery.WORK_MIN", budget)
        assert is_enough is (_count_events(line) >= events)


def test_the_budget_is_eight_bytes_of_work_for_each_byte_and_64_kib() -> None:
    """Section 5: behind so many torn beginnings of objects an event is found, and behind one more it is not."""
    assert [1, 0] == [_count_events(b'{"' * torn + EVENT) for torn in (1030, 1031)]


def _deep(levels: int) -> bytes:
    return EVENT[:-1] + b',"raw":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def _call(depth: int, function: Callable[[], Any]) -> Any:
    """Call a function at a depth of the stack."""
    return function() if depth == 0 else _call(depth - 1, function)


def test_nesting_has_a_limit_that_no_stack_changes() -> None:
    """Section 2: so many objects and arrays may lie in each other, however deep the caller's stack is."""
    limit = sys.getrecursionlimit()
    for levels, kind in [(64, None), (65, "not_json"), (100_000, "not_json")]:
        for depth in (0, limit - 200 - NESTING_MAX):
            found = _call(depth, partial(decode, _deep(levels)))
            assert kind == (found.kind if isinstance(found, Problem) else None)


def test_nesting_is_counted_by_what_is_open() -> None:
    """Section 2: what stood side by side before, and brackets inside of texts, count for nothing."""
    beside = b'"a":' + b"[[],{}]" + b',"b":"' + b"[{" * 99 + b'","c":[' + b",".join([b"[{}]"] * 99) + b"],"
    for levels, kind in [(64, None), (65, "not_json")]:
        found = decode(b"{" + beside + _deep(levels)[1:])
        assert kind == (found.kind if isinstance(found, Problem) else None)


@pytest.mark.parametrize("unread", [b"1e400", b'"\xff"', b"123456789012345678901234567890", b'{"a":[1e400,"\xff"]}'])
@pytest.mark.parametrize("price", [b'"10"', b"10", b"10.5", b'"1e1"'])
@pytest.mark.parametrize("name", [b"fill", b"order_paused"])
def test_what_is_not_interpreted_changes_no_reading(unread: bytes, price: bytes, name: bytes) -> None:
    """Section 2: `raw` and unknown fields are not interpreted, whatever else stands in the line."""
    line = b'{"event":"%b","order_id":"o","ts":"2026-03-02T10:00:00Z","price":%b,"qty":"1","raw":%b,"\xfe":%b}'
    assert not isinstance(decode(line % (name, price, unread, unread)), Problem)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ts", "0001-01-01T00:00:00Z"), ("ts", "1600-01-01T00:00:00Z"), ("ts", "9999-12-31T23:59:60Z"),
        ("ts", "2262-01-01T00:00:00Z"), ("created_at", "1899-12-31T23:59:59Z"),
        ("recorded_at", "0001-01-01T00:00:00+14:00"), ("recorded_at", "2262-01-01T00:00:00Z"),
        ("price", "1e40"), ("filled_avg_price", "1" * 41), ("qty", "1e-40"),
    ],
)  # fmt: skip
def test_values_have_ranges(field: str, value: str) -> None:
    """Section 2: times lie in the years 1900 to 2261, decimals have at most 40 digits; all else is a bad value."""
    fill = {"event": "fill", "order_id": "o", "ts": "2026-03-02T10:00:00Z", "price": "1", "qty": "1", field: value}
    found = decode(json.dumps(fill).encode())
    assert isinstance(found, Problem)
    assert "bad_value" == found.kind


@pytest.mark.parametrize("event", ["new", "order_paused"])
@pytest.mark.parametrize(("number", "text"), [("1.5", "1.5"), ("1e400", "1e400"), ("9" * 30, "9" * 30), ("7", 7)])
def test_numbers_in_legs_are_exact(event: str, number: str, text: object) -> None:
    """Section 2: nested values are read as exactly as outer ones, whichever way a line is read."""
    line = f'{{"event":"{event}","order_id":"o","ts":"2026-03-02T10:00:00Z","legs":[{{"id":"l","qty":{number}}}]}}'
    found = decode(line.encode())
    assert not isinstance(found, Problem)
    assert [{"id": "l", "qty": text}] == found.legs
