"""What other programs made of messages is undone exactly, or refused; everything else is left alone."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from alpaca.trading.enums import OrderClass, OrderSide, OrderStatus, OrderType, PositionIntent, TimeInForce, TradeEvent
from alpaca.trading.models import Order, TradeUpdate
from hypothesis import given
from hypothesis import strategies as st

from compactor.broker.alpaca.translate import translate
from compactor.core.events import Problem
from compactor.core.instants import nanos
from compactor.imports.dialects import BadTime, normalize
from compactor.imports.envelopes import unwrap
from tests.test_recordings import JSON

ORDER: dict[str, Any] = {
    "id": "61e69015-8549-4bfd-b9c3-01e75843f47d",
    "client_order_id": "eb9e2aaa-f71a-4f51-b5b4-52a6c565dad4",
    "created_at": "2021-03-16T18:38:01.942282Z",
    "updated_at": "2021-03-16T18:38:01.942282Z",
    "submitted_at": "2021-03-16T18:38:01.937734Z",
    "asset_id": "b0b6dd9d-8b9b-48a9-ba46-b9d54906e415",
    "symbol": "AAPL",
    "asset_class": "us_equity",
    "qty": "0.15",
    "filled_qty": "0",
    "order_class": "simple",
    "order_type": "limit",
    "type": "limit",
    "side": "buy",
    "time_in_force": "day",
    "limit_price": "120.5",
    "status": "new",
    "extended_hours": False,
}


def _normalize(message: Any, zone: Any = None) -> Any:
    return normalize(message, zone, {})


def _told(message: Any) -> dict[str, Any]:
    [event] = translate(_normalize(message)).events
    return {name: value for name, value in event.items() if name not in ("raw", "event_id", "ts", "created_at")}


def test_an_order_of_alpaca_py_written_by_json_dumps_is_read() -> None:
    """`json.dumps(order.model_dump(), default=str)`: times with a blank, and the order as REST told it."""
    dumped = json.loads(json.dumps(Order(**ORDER).model_dump(), default=str))
    assert dumped["created_at"] == "2021-03-16 18:38:01.942282+00:00"
    assert _told(ORDER) == _told(dumped)
    assert nanos(ORDER["updated_at"]) == nanos(translate(_normalize(dumped)).events[0]["ts"])


def test_a_trade_update_of_alpaca_py_is_read() -> None:
    """The typed update of the stream, dumped: the same event, its numbers as Python writes floats."""
    update = {"event": "fill", "execution_id": ORDER["id"], "price": "120.5", "qty": "0.15", "order": ORDER}
    update["timestamp"] = "2021-03-16T18:38:02.5Z"
    typed = TradeUpdate(**update)
    dumped = json.loads(json.dumps(typed.model_dump(), default=str), parse_float=str)
    assert _told(update) == _told(dumped)


NAMED: dict[str, Any] = {
    "side": OrderSide,
    "status": OrderStatus,
    "type": OrderType,
    "time_in_force": TimeInForce,
    "order_class": OrderClass,
    "position_intent": PositionIntent,
    "event": TradeEvent,
}


@pytest.mark.parametrize("name", NAMED)
def test_every_enum_of_alpaca_py_printed_as_text_is_read(name: str) -> None:
    """`f"{order.side}"` is `OrderSide.BUY` on Python 3.11 and later."""
    for member in NAMED[name]:
        for told in (f"{type(member).__name__}.{member.name}", member.name, member.value.title().replace("_", "")):
            if told.lower() not in ("oco", "oto", "mleg") or told.isupper() or "." in told:
                assert {name: member.value} == _normalize({name: told}), told


def test_only_names_are_changed() -> None:
    """A symbol, a client order id or a reason may look like anything."""
    message: dict[str, Any] = {
        "symbol": "BRK.B",
        "client_order_id": "OrderSide.BUY",
        "activity_type": "FILL",
        "side": "buy",
    }
    assert _normalize(message) is message
    message = {"legs": [{"order_id": "leg", "price": "1", "qty": "2"}], "order_status": "filled", "position_qty": "0"}
    assert _normalize(message) is message
    message = {"symbol": "nan", "client_order_id": "None", "reason": "null", "status": "held", "qty": "5"}
    assert _normalize(message) is message


GO = {"ClientOrderID": "client_order_id", "ID": "id"}
SPELLED: dict[str, Callable[[str], str]] = {
    "JavaScript": lambda name: name.split("_")[0] + "".join(word.title() for word in name.split("_")[1:]),
    "Go": lambda name: next((told for told, ours in GO.items() if ours == name), name.title().replace("_", "")),
}


@pytest.mark.parametrize("language", SPELLED)
def test_names_in_the_spelling_of_other_languages_are_read(language: str) -> None:
    """`clientOrderId`, and `ClientOrderID` of a struct without tags; in nested objects too."""
    order = {**ORDER, "legs": [{**ORDER, "id": "leg"}]}
    spell = SPELLED[language]
    told = {spell(name): value for name, value in order.items()}
    told[spell("legs")] = [{spell(name): value for name, value in order["legs"][0].items()}]
    assert order == _normalize(told)


def test_the_names_of_the_sdk_for_csharp_are_read() -> None:
    """An update of the stream with its order, and an activity, which calls other things by the same names."""
    order = {
        "OrderId": "o-1", "ClientOrderId": "c", "CreatedAtUtc": "2026-03-02T14:30:00Z", "CancelledAtUtc": None,
        "Symbol": "AAPL", "Quantity": 10, "FilledQuantity": "4", "OrderType": "StopLimit",
        "OrderClass": "OneCancelsOther", "OrderSide": "Buy", "AverageFillPrice": "9.5",
        "OrderStatus": "PartiallyFilled", "TimeInForce": "Gtc",
        "ReplacedByOrderId": "o-2", "ReplacesOrderId": "o-0", "TrailOffsetInDollars": "1", "TrailOffsetInPercent": "2",
        "HighWaterMark": "11",
    }  # fmt: skip
    expected = {
        "id": "o-1", "client_order_id": "c", "created_at": "2026-03-02T14:30:00Z", "canceled_at": None,
        "symbol": "AAPL", "qty": 10, "filled_qty": "4", "order_type": "stop_limit", "order_class": "oco",
        "side": "buy", "filled_avg_price": "9.5", "status": "partially_filled", "time_in_force": "gtc",
        "replaced_by": "o-2", "replaces": "o-0", "trail_price": "1", "trail_percent": "2", "hwm": "11",
    }  # fmt: skip
    update = {"Event": "PartialFill", "ExecutionId": "x", "TradeQuantity": "4", "Price": "9.5", "TimestampUtc": "T"}
    told = {"event": "partial_fill", "execution_id": "x", "qty": "4", "price": "9.5", "timestamp": "T"}
    assert told | {"order": expected} == _normalize(update | {"Order": order})
    activity = {"ActivityType": "Fill", "ActivityId": "1::a", "OrderId": "o-1", "CumulativeQuantity": "4"}
    activity |= {"ClientOrderId": "c", "OrderStatus": "Filled", "LeavesQuantity": "0", "TransactionTimeUtc": "T"}
    told = {"activity_type": "FILL", "id": "1::a", "order_id": "o-1", "cum_qty": "4", "client_order_id": "c"}
    assert told | {"order_status": "filled", "leaves_qty": "0", "transaction_time": "T"} == _normalize(activity)


def test_of_two_names_for_one_field_the_one_with_a_value_counts() -> None:
    """An object with its own fields and those of a language beside them."""
    assert {"qty": "5", "id": "o-1"} == _normalize({"Quantity": "5", "qty": None, "id": "o-1"})
    assert {"qty": "5"} == _normalize({"qty": "5", "Quantity": "6"})


@pytest.mark.parametrize("nothing", ["None", "null", "nan", "NaN", "NaT"])
def test_what_a_table_writes_for_no_value_is_none(nothing: str) -> None:
    """A table that was written by Python or pandas, and read by rows."""
    assert {"filled_at": None, "limit_price": None} == _normalize({"filled_at": nothing, "limit_price": nothing})


def test_the_zero_values_of_go_and_java_are_none() -> None:
    """Where zero can be meant it stays, and so does a text that only looks like a time."""
    zeros = {"qty": "0", "stop_price": "0.00", "trail_percent": 0, "filled_at": "0001-01-01T00:00:00Z"}
    assert dict.fromkeys(zeros) == _normalize(zeros)
    meant = {"filled_qty": "0", "limit_price": "0", "client_order_id": "0001-01-01T00:00:00Z", "at": True}
    assert _normalize(meant) is meant


def test_of_a_list_what_has_to_be_changed_is_changed() -> None:
    """One leg is in another spelling, and the other is not."""
    assert [{"side": "buy"}, 5, {"side": "sell"}] == _normalize([{"side": "buy"}, 5, {"side": "SELL"}])
    assert 5 == _normalize(5)


@pytest.mark.parametrize("told", ["Fill", "ActivityType.FILL", "FILL"])
def test_the_type_of_an_activity_is_read_in_every_spelling(told: str) -> None:
    """An enum's name, or its value."""
    assert {"activity_type": "FILL"} == _normalize({"activity_type": told})


def test_names_with_blanks_are_read() -> None:
    """A key with a blank behind it has been seen in a real message; a broker's page calls its columns so."""
    assert {"qty": "5", "filled_qty": "4"} == _normalize({"qty ": "5", "Filled Qty": "4"})


def test_a_truth_value_that_was_written_as_text_is_read() -> None:
    """A table has texts only; a text that is no truth value is left, to be named."""
    for text, value in (("True", True), ("false", False), ("maybe", "maybe")):
        assert {"extended_hours": value} == _normalize({"extended_hours": text})


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("2026-03-02T14:30:00.123456789+0000", "2026-03-02T14:30:00.123456789+00:00"),
        ("2026-03-02 14:30:00 -0530", "2026-03-02T14:30:00-05:30"),
        ("2026-03-02 14:30:00.5 +0000 UTC", "2026-03-02T14:30:00.5+00:00"),
        ("2026-03-02 14:30:00 UTC", "2026-03-02T14:30:00Z"),
        ("2026-03-02 14:30:00 GMT", "2026-03-02T14:30:00Z"),
    ],
)
def test_offsets_are_read_in_every_spelling(told: str, expected: str) -> None:
    """`strftime("%z")`, and how Go prints a time."""
    assert {"filled_at": expected} == _normalize({"filled_at": told})


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [
        (1637245837, "2021-11-18T14:30:37Z"),
        (1637245837444, "2021-11-18T14:30:37.444Z"),
        (1637245837444555, "2021-11-18T14:30:37.444555Z"),
        (1637245837444555666, "2021-11-18T14:30:37.444555666Z"),
        ("1637245837444.0", "2021-11-18T14:30:37.444Z"),
        ("1637245837.0445", "2021-11-18T14:30:37.0445Z"),
    ],
)
def test_epoch_numbers_are_read_exactly(epoch: Any, expected: str) -> None:
    """pandas writes times as numbers since 1970; how many digits they have tells their unit."""
    assert {"created_at": expected} == _normalize({"created_at": epoch})


@given(
    st.datetimes(min_value=datetime(2002, 1, 1), max_value=datetime(2200, 1, 1)).map(lambda t: t.replace(tzinfo=UTC))
)
def test_an_epoch_number_is_the_instant_it_was(time: datetime) -> None:
    """Whatever the time, to the millisecond."""
    milliseconds = int(time.timestamp()) * 1000 + time.microsecond // 1000
    assert milliseconds * 1_000_000 == nanos(_normalize({"timestamp": milliseconds})["timestamp"])


def test_a_time_without_an_offset_is_refused_with_what_to_run() -> None:
    """A guess could be hours wrong."""
    with pytest.raises(BadTime, match=r"`updated_at` is .* run again with --timezone UTC"):
        _normalize({"order": {"updated_at": "2026-03-02 14:30:02.1"}})


def test_a_time_without_an_offset_is_read_as_of_the_given_zone() -> None:
    """Summer and winter; every digit of the fraction stays."""
    new_york = ZoneInfo("America/New_York")
    read = [_normalize({"at": f"2026-{month}-02T09:30:00.123456789"}, new_york)["at"] for month in ("01", "07")]
    assert ["2026-01-02T09:30:00.123456789-05:00", "2026-07-02T09:30:00.123456789-04:00"] == read
    assert {"at": "2026-07-02T09:30:00+00:00"} == _normalize({"at": "2026-07-02 09:30:00"}, UTC)


@pytest.mark.parametrize(
    ("zone", "offset"), [("Asia/Kathmandu", "+05:45"), ("America/St_Johns", "-03:30"), ("Asia/Kolkata", "+05:30")]
)
def test_an_offset_may_have_any_number_of_minutes(zone: str, offset: str) -> None:
    """Not every zone is a whole number of hours from UTC, or an even number of minutes."""
    assert {"at": f"2026-01-02T09:30:00{offset}"} == _normalize({"at": "2026-01-02T09:30:00"}, ZoneInfo(zone))


@pytest.mark.parametrize("time", ["2026-11-01T01:30:00", "2026-03-08T02:30:00"])
def test_a_time_that_the_change_of_clocks_makes_two_or_none_is_refused(time: str) -> None:
    """01:30 came twice that night, and 02:30 never."""
    with pytest.raises(BadTime, match=r"not one instant"):
        _normalize({"at": time}, ZoneInfo("America/New_York"))


def test_a_time_that_does_not_exist_is_refused() -> None:
    """A month 13, and a time when offsets were no whole minutes."""
    with pytest.raises(BadTime, match=r"`at` is '2026-13-02T09:30:00', which is not a time that exists"):
        _normalize({"at": "2026-13-02T09:30:00"}, UTC)
    with pytest.raises(BadTime, match=r"not one instant"):
        _normalize({"at": "1880-01-02T09:30:00"}, ZoneInfo("America/New_York"))


def test_the_original_of_a_changed_object_can_be_found() -> None:
    """`raw` is the message as it was recorded, for nested legs too."""
    message = {"side": "OrderSide.BUY", "legs": [{"side": "OrderSide.SELL"}]}
    originals: dict[int, Any] = {}
    changed = normalize(message, None, originals)
    assert message is originals[id(changed)]
    assert message["legs"][0] is originals[id(changed["legs"][0])]


def test_a_price_of_zero_beside_no_quantity_is_no_execution() -> None:
    """Some languages write the zero value where there is none; a zero price beside a quantity is a price."""
    for qty, price, told in (("0", "0", None), (0, "0.00", None), ("5", "0", "0"), ("0", "9", "9")):
        changed = normalize({"event": "new", "qty": qty, "price": price}, None, {})
        assert told == changed["price"], (qty, price)


def test_answers_to_delete_are_taken_apart() -> None:
    """Each answer has a status of its own; the order is in `body`, or there is none."""
    answers = [{"symbol": "AAPL", "status": 200, "body": ORDER}, [{"id": "o1", "status": 207, "body": ORDER}]]
    assert [ORDER, ORDER] == list(unwrap(answers))
    failed = {"id": "o1", "status": 422, "body": {"code": 42210000, "message": "order is not cancelable"}}
    for answer, told in ((failed, "order is not cancelable"), ({"id": "o1", "status": 200}, "about o1 holds no order")):
        [problem] = unwrap(answer)
        assert told in problem.detail


def test_the_printed_form_of_an_object_is_read() -> None:
    """`json.dumps(order, default=str)` of an alpaca-py object writes one text."""
    [dumped] = unwrap(json.loads(json.dumps(Order(**ORDER), default=str)))
    assert _told(ORDER) == _told(dumped)


LEGS = [
    {**ORDER, "id": f"{number}1e69015-8549-4bfd-b9c3-01e75843f47d", "side": "sell", "status": "held"} for number in "78"
]
WRITTEN_LEGS: dict[str, Any] = {
    "JSON as a text": json.dumps(LEGS),
    "a list of dictionaries as Python prints it": str(LEGS),
    "a list of objects of alpaca-py": str([Order(**leg) for leg in LEGS]),
    "their fields": str([Order(**leg).model_dump() for leg in LEGS]),
    "texts in a list": [json.dumps(LEGS[0]), str(Order(**LEGS[1]))],
    "an object by names": {"take_profit": LEGS[0], "stop_loss": LEGS[1]},
}


@pytest.mark.parametrize("form", WRITTEN_LEGS)
def test_legs_are_read_however_they_were_written(form: str) -> None:
    """In a cell of a table, or as another program keeps them: a take-profit and a stop are live orders."""
    for message in ({**ORDER, "legs": WRITTEN_LEGS[form]}, {**ORDER, "legs": str(WRITTEN_LEGS[form])}):
        found = translate(_normalize(message))
        assert [] == found.problems
        assert [ORDER["id"], LEGS[0]["id"], LEGS[1]["id"]] == [event["order_id"] for event in found.events]
        assert ["new", "held", "held"] == [event["order_status"] for event in found.events]
        assert [None, ORDER["id"], ORDER["id"]] == [event.get("parent_order_id") for event in found.events]


def test_a_single_leg_needs_no_list() -> None:
    for leg in (LEGS[0], json.dumps(LEGS[0]), str(Order(**LEGS[0]))):
        found = translate(_normalize({**ORDER, "legs": leg}))
        assert ([], [ORDER["id"], LEGS[0]["id"]]) == (found.problems, [event["order_id"] for event in found.events])


@pytest.mark.parametrize("legs", ["", "[]", "None", "nan", None, [], {}])
def test_an_order_without_legs_is_one_however_they_are_written(legs: Any) -> None:
    found = translate(_normalize({**ORDER, "legs": legs}))
    assert ([], 1) == (found.problems, len(found.events))


@pytest.mark.parametrize("legs", ["[Order(...)]", "2 legs", 2])
def test_legs_that_cannot_be_read_are_named(legs: Any) -> None:
    """The order itself is imported."""
    found = translate(_normalize({**ORDER, "legs": legs}))
    assert ([ORDER["id"]], 1) == ([event["order_id"] for event in found.events], len(found.problems))
    assert f"`legs` is {json.dumps(legs)}, expected a list of objects" in found.problems[0].detail


@pytest.mark.parametrize(
    "write", [json.dumps, str, lambda order: str(Order(**order)), lambda order: repr(Order(**order))]
)
def test_an_order_within_an_update_may_be_a_text(write: Callable[[Any], str]) -> None:
    """`json.dumps(vars(update), default=str)` of alpaca-py writes it so."""
    update = {"event": "new", "timestamp": "2021-03-16T18:38:02Z", "order": ORDER}
    for told in (
        {**update, "order": write(ORDER)},
        {"stream": "trade_updates", "data": {**update, "order": write(ORDER)}},
    ):
        assert _told(update) == _told(told)
    frame = {"stream": "trade_updates", "data": json.dumps(update)}
    assert _told(update) == _told(frame)


SALE = {**ORDER, "side": "sell", "qty": "10", "filled_qty": "10", "filled_avg_price": "5", "status": "filled"}
SOLD = {"execution_id": "e", "price": "5", "qty": "10"}
UPDATE = {"event": "fill", "timestamp": "2021-03-16T18:38:02Z", **SOLD, "order": SALE}
ACTIVITY = {
    "activity_type": "FILL",
    "id": "t::e",
    "order_id": "o",
    "side": "SELL_SHORT",
    "symbol": "AAPL",
    "type": "fill",
}
ACTIVITY |= {"transaction_time": "2021-03-16T18:38:02Z", "price": "5", "qty": "4", "cum_qty": "4", "leaves_qty": "6"}
DETAILS = {
    "execution_type": "fill",
    "order_id": "o",
    "symbol": "AAPL",
    "side": "sell",
    "cum_qty": "4",
    "leaves_qty": "6",
}
ENTRY = {"activity_type": "TRD", "executed_at": "2021-03-16T18:38:02Z", "ref_id": "e", "price": "5", "qty": "4"}
SIGNED = {**SALE, "qty": "-10", "filled_qty": "-10"}


@pytest.mark.parametrize(
    ("message", "signed"),
    [
        (SALE, SIGNED),
        (UPDATE, {**UPDATE, "qty": "-10"}),
        (UPDATE, {**UPDATE, "qty": -10, "order": SIGNED}),
        ({"stream": "trade_updates", "data": UPDATE}, {"stream": "trade_updates", "data": {**UPDATE, "qty": "-10"}}),
        (ACTIVITY, {**ACTIVITY, "qty": "-4", "cum_qty": "-4", "leaves_qty": "-6"}),
        (
            {**ENTRY, "details": DETAILS},
            {**ENTRY, "qty": "-4", "details": {**DETAILS, "cum_qty": "-4", "leaves_qty": "-6"}},
        ),
    ],
)
def test_the_sign_by_which_some_programs_tell_a_sale_is_left_out(message: Any, signed: Any) -> None:
    """A negative quantity was refused, and the whole order with it; `leaves_qty` tells whether the order lives on."""
    assert _told(message) == _told(signed)


@pytest.mark.parametrize("event", ["trade_bust", "trade_correct"])
def test_the_sign_of_a_bust_stays(event: str) -> None:
    """Alpaca sends it so; a purchase of a negative quantity is left to the fold to refuse."""
    for message in (
        {**UPDATE, "event": event, "qty": "-10"},
        {**ENTRY, "qty": "-10", "details": {**DETAILS, "execution_type": event}},
        {**UPDATE, "qty": "-10", "order": {**SALE, "side": "buy"}},
    ):
        assert "-10" == _told(message)["qty"]


@pytest.mark.parametrize("text", ['{"id": "o1"', "[1, ", '{"id": "o1"} and more'])
def test_a_text_that_only_begins_as_json_is_named(text: str) -> None:
    """A message that was written as a text once more and is torn is reported as the text that was found."""
    [problem] = unwrap(text)
    assert isinstance(problem, Problem)
    assert f"found the text {text!r}" in problem.detail


@given(JSON)
def test_nothing_that_is_json_makes_it_raise(message: Any) -> None:
    """Bad data is a value; a time without an offset is the only exception."""
    for one in unwrap(message):
        try:
            _normalize(one)
        except BadTime:
            continue
