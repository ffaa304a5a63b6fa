"""Objects that Python printed are read as the objects they were: every field, over any number of lines."""

import json
import pprint
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from alpaca.trading.models import Order, TradeUpdate
from hypothesis import given
from hypothesis import strategies as st

from compactor.core.events import LINE_BYTES_MAX, Problem
from compactor.imports.printed import read_behind, read_printed, read_whole
from compactor.imports.recordings import VALUE_BYTES_MAX, read_recording
from tests.test_dialects import ORDER
from tests.test_recordings import JSON, TEXTS

ORDER_ID = UUID(ORDER["id"])
TYPED = Order(**ORDER)
OTHER = Order(**{**ORDER, "symbol": "MSFT", "client_order_id": "it's (a {test})"})
UPDATE = TradeUpdate(
    event="fill", execution_id=ORDER_ID, order=TYPED, timestamp=datetime(2026, 3, 2, tzinfo=UTC), price=9.5, qty=2.0
)


def _read(tmp_path: Path, text: str) -> list[Any]:
    (tmp_path / "f").write_text(text)
    return [found.value for found in read_recording(tmp_path / "f")]


def _old_style(order: dict[str, Any]) -> str:
    """An order as alpaca-trade-api prints it."""
    return f"Order({pprint.pformat(order)})"


FORMS: dict[str, tuple[str, list[Order | TradeUpdate]]] = {
    "an object of alpaca-py": (f"{TYPED}\n", [TYPED]),
    "its representation": (f"{TYPED!r}\n", [TYPED]),
    "one after the other": (f"{TYPED!r}\n{OTHER!r}\n{OTHER}\n", [TYPED, OTHER, OTHER]),
    "a list of them": (f"{[TYPED, OTHER, TYPED]}\n", [TYPED, OTHER, TYPED]),
    "a dictionary of one": (f"{OTHER.model_dump()}\n", [OTHER]),
    "behind a time and a level": (f"2026-03-02 14:30:01,204 INFO got {TYPED!r}\n{OTHER!r}\n", [TYPED, OTHER]),
    "an update of the stream": (f"{UPDATE}\n{UPDATE!r}\n{UPDATE.model_dump()}\n", [UPDATE] * 3),
    "Windows' line ends": (f"{TYPED!r}\n{UPDATE}\n".replace("\n", "\r\n"), [TYPED, UPDATE]),
}


@pytest.mark.parametrize("form", FORMS)
def test_objects_of_alpaca_py_are_read_as_they_were_printed(form: str, tmp_path: Path) -> None:
    """`print(order)` and `print(client.get_orders())`, into a file or through a logger."""
    text, objects = FORMS[form]
    expected = [json.loads(model.model_dump_json(), parse_float=str) for model in objects]
    assert [_place_times(one) for one in expected] == [_place_times(one) for one in _read(tmp_path, text)]


def _place_times(value: Any) -> Any:
    """The same with every time as an instant."""
    if isinstance(value, dict):
        return {name: _place_times(one) for name, one in value.items()}
    return datetime.fromisoformat(value) if isinstance(value, str) and value[:2] == "20" else value


def test_objects_of_alpaca_trade_api_are_read(tmp_path: Path) -> None:
    """One after the other, and in a list, each over many lines."""
    other = {**ORDER, "client_order_id": 'a "quoted" {id'}
    text = f"{_old_style(ORDER)}\n[{_old_style(other)}, {_old_style(ORDER)}]\n{json.dumps(other)}\n"
    assert [ORDER, other, ORDER, other] == _read(tmp_path, text)


def test_an_object_that_was_cut_off_costs_nothing_but_itself(tmp_path: Path) -> None:
    """A program was killed while it printed; the next one goes on at the beginning of a line, or never does."""
    torn = _old_style(ORDER)[:200]
    first, *found = _read(tmp_path, f"{torn}\n{_old_style(ORDER)}\n{json.dumps(ORDER)}\n{torn}")
    assert [ORDER, ORDER] == found[:2]
    assert all(isinstance(one, Problem) for one in (first, *found[2:]))
    assert "the object has no end in line" in first.detail
    assert 1 == len(found[2:])


def test_an_object_that_was_cut_off_behind_another_is_named_alone(tmp_path: Path) -> None:
    """What stood before it on the line was read."""
    first, problem, last = _read(tmp_path, "{'a': 1} {'b':\n{'c': 3}\n")
    assert ({"a": 1}, {"c": 3}) == (first, last)
    assert isinstance(problem, Problem)
    assert "found \"{'b':\"" in problem.detail


def test_an_object_over_more_lines_than_any_value_has_is_given_up(tmp_path: Path) -> None:
    """What stands before it on its first line is not counted."""
    line = f"  'k': '{'x' * 2000}',\n"
    for before, lines, expected in (
        ("", VALUE_BYTES_MAX // len(line) + 9, Problem),
        ("", 400, dict),
        ("x" * (VALUE_BYTES_MAX // 2), 400, dict),
    ):
        found, *rest = _read(tmp_path, f"{before}{{'a': 1,\n{line * lines} }}\n{{'b': 2}}\n")
        assert expected is type(found)
        assert isinstance(found, dict) or "the object has no end in line" in found.detail
        assert {"b": 2} == rest[-1]


def test_text_behind_an_object_is_named(tmp_path: Path) -> None:
    """What may be a message is never passed over in silence."""
    problem, *found = _read(tmp_path, "{'a': 1} {\"event\": 1}\n{'b': 2}\n")
    assert isinstance(problem, Problem)
    assert [{"event": 1}, {"b": 2}] == found
    problem, *found = _read(tmp_path, "{'a': 1} is held\n{'b': 2}\n")
    assert isinstance(problem, Problem)
    assert [{"b": 2}] == found


@given(st.dictionaries(TEXTS, JSON, max_size=4), st.integers(10, 90))
def test_whatever_a_dictionary_holds_is_read(value: dict[str, Any], width: int) -> None:
    """Quotes, brackets, line ends and escapes in texts, nested lists, in one line or in many."""
    value = {"id": "o-1", **value}
    for text in (repr(value), pprint.pformat(value, width=width, sort_dicts=False), f"Order({value!r})"):
        assert value == read_whole(text.encode())


def test_an_object_within_a_text_of_a_message_is_no_message(tmp_path: Path) -> None:
    """A message that cannot be read is one problem, whatever a program stored in it."""
    [problem] = _read(tmp_path, """{"id": "o-1", "note": "{'id': 'o-2'}", "limit_price": NaN}\n""")
    assert isinstance(problem, Problem)


def test_a_text_ends_with_its_object() -> None:
    """What follows would be lost."""
    assert {"a": 1} == read_whole(b"got [Order({'a': 1})]")
    for text in (b"{'a': 1} and more", b"{'a': 1", b"no object", b"\"x\" {'a': 1}"):
        assert read_whole(text) is None, text


TIMES = [
    datetime(2026, 3, 2, 14, 30, tzinfo=UTC),
    datetime(2026, 3, 2, 14, 30, 1, 204, tzinfo=timezone(timedelta(hours=-5))),
    datetime(2026, 3, 2, 14, 30, 1, tzinfo=timezone(timedelta(hours=5, minutes=45))),
    datetime(2026, 7, 2, 14, 30, 1, tzinfo=ZoneInfo("America/New_York")),
    datetime(2026, 11, 1, 1, 30, fold=1, tzinfo=ZoneInfo("America/New_York")),
    datetime(2026, 3, 2, 14, 30),
]


@pytest.mark.parametrize("time", TIMES, ids=repr)
def test_a_printed_time_is_the_same_instant(time: datetime) -> None:
    """With its offset; without one where it had none, so that the user is asked for the zone."""
    assert {"at": time.isoformat()} == read_printed(repr({"at": time}).encode())


@pytest.mark.parametrize(
    ("zone", "offset"),
    [("UTC", "+00:00"), ("0", "+00:00"), ("-14400", "-04:00"), ("+01:00", "+01:00"), ("-04:00", "-04:00")],
)
def test_every_version_of_pydantic_prints_zones_of_its_own(zone: str, offset: str) -> None:
    """`TzInfo(UTC)`, a number of seconds, or an offset."""
    found = read_printed(f"{{'at': datetime.datetime(2026, 3, 2, 14, 30, tzinfo=TzInfo({zone}))}}".encode())
    assert {"at": f"2026-03-02T14:30:00{offset}"} == found


def test_the_zone_of_dateutil_is_utc() -> None:
    """Times that an older SDK read."""
    found = read_printed(b"{'at': datetime.datetime(2026, 3, 2, 14, 30, tzinfo=tzutc())}")
    assert {"at": "2026-03-02T14:30:00+00:00"} == found


def test_an_object_that_no_log_takes_is_not_read() -> None:
    """One line of a log has at most 1 MiB, and an object becomes a line."""
    longest = f"{{'a': '{'x' * (LINE_BYTES_MAX - 9)}'}}".encode()
    assert LINE_BYTES_MAX == len(longest)
    assert read_printed(longest) is not None
    assert read_printed(longest + b" ") is None


def test_identifiers_decimals_and_enums_are_read_as_their_values() -> None:
    """What Python's own types print; a number keeps its digits."""
    printed = {"id": ORDER_ID, "qty": Decimal("0.150"), "side": TYPED.side, "price": 9.5, "loss": -2, "legs": (1, None)}
    expected = {"id": str(ORDER_ID), "qty": "0.150", "side": "buy", "price": "9.5", "loss": -2, "legs": [1, None]}
    assert expected == read_printed(repr(printed).encode())
    named = b"Order(id='o-1', side=OrderSide.BUY)"
    assert {"id": "o-1", "side": "OrderSide.BUY"} == read_whole(named)


@pytest.mark.parametrize(
    "text",
    [
        "{'a': __import__('os').getcwd()}",
        "{'a': f'{1}'}",
        "{'a': [x for x in ()]}",
        "{'a': nan}",
        "{'a': 1e999}",
        "{'a': b'x'}",
        "{1: 2}",
        "{**{'a': 1}}",
        "{'a': datetime.datetime(2026, 13, 2)}",
        "{'a': datetime.datetime(2026, 1, 2, tzinfo=Nowhere())}",
        "{'a': datetime.datetime(2026, 1, 2, tzinfo=zoneinfo.ZoneInfo(key='No/Where'))}",
        "{'a': datetime.datetime(2026, 1, 2, tzinfo=5)}",
        "{'a': datetime.datetime(2026, 1, 2, tzinfo=Zone.local)}",
        "{'a': datetime.datetime(2026, 1, 2, tzinfo=TzInfo())}",
        "{'a': " + "[" * 500 + "]" * 500 + "}",
        "['a']",
        "{'a': 1",
    ],
)
def test_what_is_no_literal_is_not_read(text: str) -> None:
    """Nothing is called or guessed, and nothing makes it raise."""
    assert read_printed(text.encode()) is None


def test_what_stands_behind_a_time_and_a_level_is_read() -> None:
    """An object, or a list of them; a part of a line that is an array of its own is left to the array."""
    assert {"a": 1} == read_behind(b'14:30 [INFO] stream: {"a": 1}')
    assert [{"a": 1}, {"b": [2]}] == read_behind(b'14:30 [INFO] orders: [{"a": 1}, {"b": [2]}]')
    assert {"a": 1} == read_behind(b"got message={'a': 1})")
    for text in (b'[{"a": 1}', b', {"a": 1}', b'"x" {"a": 1}', b'{"a": 1} and more', b"no object", b'a [{"a": 1}'):
        assert read_behind(text) is None, text


HOSTILE = {
    "a run of capitals": b"A" * (1 << 20),
    "escaped quotes in a text without an end": b"{'a': " + b"\\'" * (1 << 19),
    "the same in the fields of an object": b"id=UUID('" + b'\\"' * (1 << 19),
    "objects that begin on every line and never end": b" {'\n" * (1 << 16),
    "fields that begin on every line and never end": b" ) id=UUID('\n" * (1 << 16),
    "a formatted text": b"{'a': f'" + b"{1}" * (1 << 18) + b"'}",
    "a line that is almost the names of columns": b"a,b,id" + b" " * (1 << 20) + b"1\n",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_text_is_read_in_time_that_grows_with_its_size(text: bytes, tmp_path: Path) -> None:
    """Each of these once took hours."""
    (tmp_path / "f").write_bytes(text)
    found = [one.value for one in read_recording(tmp_path / "f")]
    assert found
    assert all(isinstance(one, Problem) for one in found)


@pytest.mark.parametrize("zone", ["America", "a" * 5000, "../../etc/passwd", "Nowhere/Else"])
def test_an_object_in_a_zone_that_is_none_is_named(zone: str, tmp_path: Path) -> None:
    (found,) = _read(tmp_path, f"{{'at': datetime.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo(key={zone!r}))}}\n")
    assert isinstance(found, Problem)


def test_a_text_behind_a_letter_is_no_literal() -> None:
    assert read_printed(b"{'a': f'{1}'}") is None
    assert read_printed(b"{'a': r'b'}") is None
    assert read_printed(b"{'of': 'if', 'a': [\"rf\"]}") == {"of": "if", "a": ["rf"]}
