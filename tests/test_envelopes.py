"""Messages are found in whatever other programs put around them, and nothing is passed over in silence."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compactor.core.events import Problem
from compactor.imports.envelopes import ENVELOPES_MAX, unwrap
from tests.test_dialects import ORDER
from tests.test_recordings import JSON

FRAME = {"stream": "trade_updates", "data": {"event": "new", "order": ORDER}}
ACTIVITY = {"activity_type": "FILL", "id": "1::a", "order_id": "o-1"}
TOOL = {"content": [{"type": "text", "text": json.dumps([ORDER, FRAME])}], "isError": False}
ENVELOPES: dict[str, tuple[Any, list[Any]]] = {
    "a page of a list": ({"orders": [ORDER, ORDER], "next_page_token": None}, [ORDER, ORDER]),
    "a line with a time": ({"received_at": "2026-03-02T14:30:00Z", "message": FRAME}, [FRAME]),
    "a line with the text of a message": ({"ts": 1, "raw": json.dumps(FRAME)}, [FRAME]),
    "a line with what a logger printed": ({"log": f"14:30 INFO {json.dumps(FRAME)}\n", "stream": "stdout"}, [FRAME]),
    "an event of the program's own": ({"event": "order_update", "payload": FRAME["data"]}, [FRAME["data"]]),
    "an answer of a tool": ({"jsonrpc": "2.0", "id": 3, "result": TOOL}, [ORDER, FRAME]),
    "an answer of an HTTP client": ({"status": 200, "headers": {}, "data": [ORDER]}, [ORDER]),
    "a recorded answer": ({"request": {"url": "x"}, "response": {"body": {"string": json.dumps([ORDER])}}}, [ORDER]),
    "answers within an answer": ({"status": 207, "body": [{"id": "o-1", "status": 200, "body": ORDER}]}, [ORDER]),
    "an order that a program placed": ({"action": "place", "order": ORDER}, [ORDER]),
    "a dictionary of columns that is no table": ({"columns": ["id"], "data": {"orders": [ORDER]}}, [ORDER]),
    "a dictionary by order": ({"o-1": ORDER, "o-2": ORDER}, [ORDER, ORDER]),
    "different kinds of messages": ({"orders": [ORDER], "activities": [ACTIVITY]}, [ORDER, ACTIVITY]),
    "pandas, split": ({"columns": ["id", "status"], "index": [0], "data": [["o-1", "new"]]}, [None]),
    "pandas, columns": ({name: {"0": value, "1": value} for name, value in ORDER.items()}, [ORDER, ORDER]),
    "pandas, index": ({"0": ORDER, "1": ORDER}, [ORDER, ORDER]),
    "pandas, table": ({"schema": {"fields": []}, "data": [ORDER]}, [ORDER]),
}
ENVELOPES["pandas, split"] = (
    {"columns": list(ORDER), "index": [0, 1], "data": [list(ORDER.values())] * 2},
    [ORDER, ORDER],
)


@pytest.mark.parametrize("kind", ENVELOPES)
def test_the_messages_in_an_envelope_are_found(kind: str) -> None:
    """Whatever its fields are called; the same where the envelope is in a list, or is a text."""
    envelope, messages = ENVELOPES[kind]
    assert messages == unwrap(envelope)
    assert messages == unwrap([[envelope]])
    assert messages == unwrap(json.dumps(envelope))


NAMED = [
    "stream data", "event order", "event order_id", "event orderId", "activity_type", "ActivityType",
    "id status time_in_force", "id status client_order_id", "ID Status ClientOrderID",
    "OrderId OrderStatus TimeInForce", "order_id order_status client_order_id ",
]  # fmt: skip


@pytest.mark.parametrize("names", NAMED)
def test_a_message_is_known_by_its_fields(names: str) -> None:
    """The names that the translation looks for, in any spelling; what else the message holds belongs to it."""
    message = {**dict.fromkeys(names.split(" "), "x"), "held": [ORDER]}
    assert [message] == unwrap(message)


@pytest.mark.parametrize(
    "names", ["id status", "id client_order_id", "status client_order_id", "event", "stream", "data"]
)
def test_an_object_with_some_of_those_fields_is_searched(names: str) -> None:
    """`{"id": 7, "status": "ok", "result": [...]}` is an answer of some tool."""
    assert [ORDER] == unwrap({**dict.fromkeys(names.split(" "), "x"), "result": [ORDER]})


@pytest.mark.parametrize("message", [ORDER, FRAME, FRAME["data"], ACTIVITY], ids=["order", "frame", "update", "fill"])
def test_a_message_is_not_searched_for_others(message: dict[str, Any]) -> None:
    """Legs, and what a program stored in a field of a message, belong to it."""
    full = {**message, "legs": [ORDER], "details": {"x": ORDER}}
    assert [full] == unwrap(full)


def test_what_lies_beside_messages_in_a_list_is_named() -> None:
    """An element that is no message may be a torn one."""
    assert [ORDER, {"id": "torn"}, 5] == unwrap({"orders": [ORDER, {"id": "torn"}, 5]})


def test_what_does_not_fit_a_table_is_told_as_it_is() -> None:
    """Rows that are shorter, or no rows, are named by the translation, and cost nothing but themselves."""
    table = {"columns": list(ORDER), "data": [list(ORDER.values()), 5, ["o-1"]]}
    assert [ORDER, 5, {"id": "o-1"}] == unwrap(table)
    odd = {**ORDER, "id": {"0": "o-1"}}
    assert [odd] == unwrap(odd)


def test_an_object_without_messages_is_told_as_it_is() -> None:
    """A position, or an answer of an error, is for the translation to name."""
    for found in ({"symbol": "AAPL", "qty": "5"}, {"code": 40410000, "message": "order not found"}, {}, None, 5):
        assert [found] == unwrap(found)


@pytest.mark.parametrize("before", [b"", b"INFO got ", b"\0 \xff got "])
def test_a_message_that_journald_exported_as_bytes_is_read(before: bytes) -> None:
    """So it writes a text that has a control character, or is no UTF-8."""
    entry = {"PRIORITY": "6", "MESSAGE": list(before + json.dumps(ORDER).encode())}
    assert [ORDER] == unwrap(entry)
    for other in ([300], [1, "x"], [], [True], list(b"no message")):
        assert [{"MESSAGE": other}] == unwrap({"MESSAGE": other})


def test_a_list_of_values_without_names_is_one_problem() -> None:
    """`to_json(orient="values")` writes no names; one sentence says what to write instead."""
    [problem] = unwrap(list(ORDER.values()))
    assert isinstance(problem, Problem)
    assert f"a list of {len(ORDER)} values without names" in problem.detail
    assert "orient='records'" in problem.detail
    assert [] == unwrap([])


@pytest.mark.parametrize("action", ["auth", "authenticate", "listen"], ids=str)
def test_what_a_program_sent_to_the_stream_gives_nothing(action: str) -> None:
    """It is about the connection, and its keys must not be shown."""
    assert [] == unwrap({"action": action, "key": "PK1", "secret": "S", "data": {"streams": ["trade_updates"]}})
    assert [] == unwrap([json.dumps({"action": action, "key": "PK1", "secret": "S"})])


def test_a_refused_request_is_named_with_its_status() -> None:
    """`{"status": 429, …}`: there is no order in it, whatever it repeats."""
    [problem] = unwrap({"status": 429, "symbol": "AAPL", "body": {"message": "too many requests."}})
    assert "HTTP status 429 about AAPL holds no order" in problem.detail
    assert "too many requests." in problem.detail
    [problem] = unwrap({"id": "o-1", "status": 300, "body": ORDER})
    assert "HTTP status 300 about o-1" in problem.detail


def test_envelopes_lie_in_each_other_up_to_a_limit() -> None:
    """What lies deeper is told as it is."""
    found: Any = ORDER
    for _ in range(ENVELOPES_MAX + 1):
        found = {"data": found}
    assert [ORDER] == unwrap(found)
    assert [{"data": found}] == unwrap({"data": found})


def test_a_value_that_is_nested_too_deeply_is_one_problem() -> None:
    """Damage may look like anything; the import goes on behind it."""
    [problem] = unwrap(json.loads("[" * 600 + "]" * 600))
    assert "nested too deeply" in problem.detail


@given(JSON, st.integers(0, 2 * ENVELOPES_MAX))
def test_nothing_in_an_envelope_makes_it_raise(value: Any, depth: int) -> None:
    """Whatever it holds, however deep."""
    for _ in range(depth):
        value = {"data": [value]}
    unwrap(value)


def test_a_table_costs_what_it_holds() -> None:
    """Not its rows times its columns: columns without values could otherwise fill the memory."""
    rows = {str(number): f"id-{number}" for number in range(20_000)}
    empty: dict[str, Any] = {f"column {number}": {} for number in range(20_000)}
    found = unwrap({"id": rows, "status": {"7": "new"}, "time_in_force": {"7": "day", "none": "gtc"}, **empty})
    assert len(rows) == len(found)
    assert {"id": "id-7", "status": "new", "time_in_force": "day"} == found[7]
    assert {"id": "id-8"} == found[8]
