"""The translation of Alpaca's messages: stories in fixtures/alpaca, and what holds for every message."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from alpaca.trading.enums import OrderStatus, TradeEvent
from alpaca.trading.models import Order, TradeActivity, TradeUpdate
from hypothesis import given
from hypothesis import strategies as st

from compactor.broker.alpaca import event_fields as alpaca
from compactor.broker.alpaca.translate import translate
from compactor.broker.port import parse
from compactor.core.decoding import build_event
from compactor.core.events import EVENTS, TERMS, Event, Problem

STORIES = sorted((Path(__file__).parent.parent / "fixtures" / "alpaca").iterdir())


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize("story", STORIES, ids=lambda path: path.name)
def test_a_story_gives_the_events_and_problems_beside_it(story: Path) -> None:
    """What Alpaca says in messages.jsonl is events.jsonl in our words; what cannot be said is problems.jsonl."""
    events, problems = [], []
    for number, line in enumerate((story / "messages.jsonl").read_bytes().splitlines(), 1):
        translation = translate(parse(line))
        events += [{name: value for name, value in event.items() if name != "raw"} for event in translation.events]
        problems += [{"line": number, **msgspec.to_builtins(found)} for found in translation.problems]
    assert _lines(story / "events.jsonl") == events
    assert _lines(story / "problems.jsonl") == problems


def test_half_of_an_escaped_character_costs_no_message() -> None:
    """What cuts a text in the middle of a pair sends half of it."""
    assert {"reason": "a\ufffd", "qty": "1"} == parse(rb'{"reason":"a\ud83d","qty":"1"}')


@pytest.mark.parametrize("story", STORIES, ids=lambda path: path.name)
def test_every_translated_event_is_one_that_a_log_takes(story: Path) -> None:
    """Section 2: what the translation makes passes the same check as any appended line."""
    for line in (story / "messages.jsonl").read_bytes().splitlines():
        for event in translate(parse(line)).events:
            assert not isinstance(build_event(event), Problem)


def test_the_message_is_kept_as_it_came() -> None:
    """Section 2: `raw` is the broker's message, and `event_id` does not depend on how it was wrapped."""
    bare = {"event": "new", "timestamp": "2026-03-02T14:30:00Z", "order": {"id": "o1", "status": "new", "qty": None}}
    frame = {"stream": "trade_updates", "data": bare}
    [of_bare], [of_frame] = translate(bare).events, translate(frame).events
    assert (bare, frame) == (of_bare["raw"], of_frame["raw"])
    assert of_bare["event_id"] == of_frame["event_id"]


def test_a_source_that_is_given_stands_on_every_event() -> None:
    """A replay of stream messages through another interface can say so."""
    message = {"event": "new", "timestamp": "2026-03-02T14:30:00Z", "order": {"id": "o1"}}
    assert ["replay"] == [event["source"] for event in translate(message, source="replay").events]


def test_a_leg_below_its_parent_is_another_delivery_than_the_leg_alone() -> None:
    """Only the nested order tells the parent, so that it must not be taken for a duplicate of the flat one."""
    times = {"updated_at": "2026-03-02T14:30:00Z", "status": "held", "time_in_force": "day"}
    leg = {"id": "leg", **times}
    [flat], [_, nested] = translate(leg).events, translate({"id": "parent", **times, "legs": [leg]}).events
    assert ("leg", "leg") == (flat["order_id"], nested["order_id"])
    assert "parent" == nested["parent_order_id"]
    assert flat["event_id"] != nested["event_id"]


def test_no_float_comes_out_of_parse() -> None:
    """No float ever touches a price: a number is the text that stood in the message."""
    assert ["0.1", "1e400", "-0.10", 12345678901234567890123456789012] == parse(
        b"[0.1,1e400,-0.10,12345678901234567890123456789012]"
    )


def test_a_float_is_refused_by_name() -> None:
    """A caller who read the message with another reader is told, instead of getting inexact numbers."""
    message = {"event": "fill", "timestamp": "2026-03-02T14:30:00Z", "price": 0.1, "qty": "1", "order": {"id": "o1"}}
    [problem] = translate(message).problems
    assert "bad_value" == problem.kind
    assert "`price` is the float 0.1" in problem.detail


def test_every_field_in_the_tables_exists_on_both_sides() -> None:
    """The left side is what alpaca-py and Alpaca's specification name, the right side what format.md names."""
    newer = {"at", "previous_execution_id", "reason"}  # On the wire, and unknown to alpaca-py.
    of_leg = {"order_id", "symbol", "side"}
    assert {"group_id", "group_role"} == set(alpaca.ORDER) - set(Order.model_fields)  # Since October 2026.
    assert set() == set(alpaca.ORDER_TIMES) - set(Order.model_fields)
    assert set() == {*alpaca.UPDATE, *alpaca.TRADE, *alpaca.REVISION} - set(TradeUpdate.model_fields) - newer
    assert set() == set(alpaca.ACTIVITY) - set(TradeActivity.model_fields)
    assert set() == set(alpaca.LEG) - set(TradeUpdate.model_fields) - newer - of_leg
    ours = {*alpaca.ORDER.values(), *alpaca.UPDATE.values(), *alpaca.REVISION.values(), *alpaca.ACTIVITY.values()}
    assert set() == ours - {"event", *msgspec.structs.asdict(Event(order_id="", ts="")).keys()}


def test_every_term_that_alpaca_sends_is_taken() -> None:
    """Section 2: all terms of the message are carried; the ones left are ours, or told by nesting."""
    assert {"broker_order_id", "requested_price", "parent_order_id", "legs"} == set(TERMS) - set(alpaca.ORDER.values())


def test_every_status_and_event_of_alpaca_has_a_type_of_its_own() -> None:
    """Section 3: nothing that the installed alpaca-py knows is unknown to us."""
    assert set() == {found.value for found in (*OrderStatus, *TradeEvent)} - set(EVENTS)


FIELDS = (
    "stream", "data", "event", "order", "legs", "id", "order_id", "status", "order_class", "time_in_force", "price",
    "qty", "timestamp", "updated_at", "activity_type", "symbol", "side", "type", " id ",
)  # fmt: skip
TEXTS = st.text(max_size=8) | st.sampled_from(["trade_updates", "fill", "FILL", "mleg", "trade_bust"])
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=6),
    max_leaves=20,
)


@given(JSON | st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=8))
def test_nothing_that_is_json_makes_the_translation_raise(message: Any) -> None:
    """Bad data is a value: whatever JSON comes, there are events or problems."""
    translation = translate(message)
    assert all({"event", "order_id", "ts", "event_id", "source", "raw"} <= event.keys() for event in translation.events)
    assert all(found.kind in ("bad_value", "missing_field") for found in translation.problems)


REAL = [parse(line) for story in STORIES for line in (story / "messages.jsonl").read_bytes().splitlines()]


@given(st.sampled_from(REAL), JSON, st.data())
def test_no_message_with_one_strange_part_makes_the_translation_raise(
    message: Any, strange: Any, data: st.DataObject
) -> None:
    """A real message with anything at all in the place of one of its parts: an order, a leg, a time, a name."""
    translation = translate(replace_part(message, strange, data))
    assert all({"event", "order_id", "ts", "event_id", "source", "raw"} <= event.keys() for event in translation.events)
    assert all(found.kind in ("not_json", "bad_value", "missing_field") for found in translation.problems)


def replace_part(message: Any, strange: Any, data: st.DataObject) -> Any:
    """The message with something strange at one place, as deep in it as is drawn."""
    if not isinstance(message, dict | list) or not message or data.draw(st.integers(0, 3)) == 0:
        return strange
    if isinstance(message, list):
        index = data.draw(st.integers(0, len(message) - 1))
        return [replace_part(part, strange, data) if n == index else part for n, part in enumerate(message)]
    name = data.draw(st.sampled_from(sorted(message)))
    return {key: replace_part(part, strange, data) if key == name else part for key, part in message.items()}


@pytest.mark.parametrize("leg", [None, 1, "x", [], {}, {"id": 7}, {"id": None, "status": {}}])
def test_a_leg_that_is_no_order_is_a_problem(leg: Any) -> None:
    """The order that it is nested in is read, and so are the other legs."""
    order = {"id": "o1", "status": "new", "time_in_force": "day", "updated_at": "2026-03-02T14:30:00Z"}
    translation = translate({**order, "legs": [leg, {**order, "id": "o2"}]})
    assert ["o1", "o2"] == [event["order_id"] for event in translation.events]
    assert ["missing_field"] == [found.kind for found in translation.problems]


@given(st.binary(max_size=60))
def test_nothing_that_is_bytes_makes_parse_raise(line: bytes) -> None:
    """A page of HTML in place of a frame is a problem with its beginning in it."""
    found = parse(line)
    assert found.kind == "not_json" if isinstance(found, Problem) else json.loads(line) is not ...


def test_deep_nesting_is_a_problem() -> None:
    """A message nested a hundred thousand deep is refused and not an exception."""
    assert ["not_json"] == [found.kind for found in translate(parse(b"[" * 100_000 + b"]" * 100_000)).problems]
    deep: Any = []
    for _ in range(5_000):
        deep = [deep]
    assert ["bad_value"] == [found.kind for found in translate(deep).problems]


@given(
    st.lists(st.datetimes(datetime(2020, 1, 1), datetime(2261, 1, 1), timezones=st.just(UTC)), min_size=1, max_size=8)
)
def test_an_order_stands_as_of_its_newest_time(times: list[datetime]) -> None:
    """A snapshot's `ts` is the last time at which something happened to the order, whatever happened."""
    order = dict(zip(alpaca.ORDER_TIMES, (time.isoformat() for time in times), strict=False))
    [event] = translate({"id": "o1", "status": "new", "time_in_force": "day", **order}).events
    assert max(times) == datetime.fromisoformat(event["ts"])


@pytest.mark.parametrize("leg", [None, 3, "x", [], {}, {"id": None}, {"id": "l-1"}])
def test_a_nested_leg_that_is_none_stops_nothing(leg: Any) -> None:
    """Whatever stands among the legs, the order itself is told."""
    order = {"id": "o-1", "status": "new", "client_order_id": "c", "created_at": "2026-01-05T15:00:00Z"}
    update = {"event": "new", "timestamp": "2026-01-05T15:00:00Z", "order": {**order, "legs": [leg, leg]}}
    for message in ({**order, "legs": [leg]}, update, {"stream": "trade_updates", "data": update}):
        assert "o-1" == translate(message).events[0]["order_id"]
