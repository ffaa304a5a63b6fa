"""Messages become checked events, and the activities of an order come in the order in which they happened."""

import json
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compactor.core.decoding import build_event
from compactor.core.events import Problem
from compactor.imports.leg_finder import LegFinder
from compactor.imports.messages import FillOrder, NotAFill, Translated, read_capture
from compactor.imports.recordings import BadRecording
from compactor.imports.writer import Meter
from tests.test_alpaca import JSON, REAL, replace_part

T = "2026-03-02T14:30:00Z"


def _activity(order_id: str, qty: str, filled: str | None, **fields: Any) -> dict[str, Any]:
    fill = {"activity_type": "FILL", "id": f"{order_id}-{filled}", "order_id": order_id, "transaction_time": T}
    told = {"type": "partial_fill", "price": "10", "qty": qty, "cum_qty": filled, "side": "buy", "symbol": "AAPL"}
    return {**fill, **told, **fields}


def _read(messages: list[Any]) -> list[Translated]:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "f"
        path.write_text("".join(json.dumps(message) + "\n" for message in messages))
        return list(read_capture(path))


def _sort(messages: list[Any]) -> list[Translated]:
    found, order = _read(messages), FillOrder()
    for one in found:
        order.note(one)
    return list(order.sort(found))


def _filled(found: list[Translated]) -> list[tuple[str, str]]:
    return [(one.event["order_id"], one.event["filled_qty"]) for one in found if isinstance(one.event, dict)]


def test_a_list_that_is_newest_first_is_turned_round() -> None:
    """The broker's default order; a fractional part may even carry a later time than the whole shares."""
    newest_first = [_activity("o1", "4", "5.998"), _activity("o1", "1.998", "1.998")]
    assert [("o1", "1.998"), ("o1", "5.998")] == _filled(_sort(newest_first))


def test_an_activity_that_cannot_be_read_stays_a_problem_among_those_that_are_sorted() -> None:
    """One bad entry of a list takes nothing from the others."""
    bad = {**_activity("o1", "1", "6"), "qty": "many"}
    found = _sort([_activity("o1", "4", "5"), bad, _activity("o1", "1", "1")])
    assert [("o1", "1"), ("o1", "5")] == _filled(found)
    assert ["bad_value"] == [one.event.kind for one in found if isinstance(one.event, Problem)]


def test_what_stands_in_order_stays_where_it_is() -> None:
    """Orders that are told step by step are not held back for one another."""
    told = [("a", "1"), ("b", "1"), ("a", "1"), ("a", "2"), ("b", "2")]
    messages = [_activity(order, "1", filled) for order, filled in told]
    assert _read(messages) == _sort(messages)


def test_only_activities_are_sorted() -> None:
    """Answers about an order say how it stood at a time of their own."""
    order = {"id": "a", "status": "new", "time_in_force": "day", "updated_at": T}
    messages = [{**order, "filled_qty": filled} for filled in ("2", "1")]
    assert _read(messages) == _sort([*messages, _activity("a", "1", "1")])[:2]


def test_what_was_added_to_a_file_while_it_was_read_is_sorted_too() -> None:
    """The first reading has not seen it; it comes at the end."""
    found = _read([_activity("a", "1", filled) for filled in ("2", "1", "4", "3")])
    order = FillOrder()
    for one in found[:2]:
        order.note(one)
    assert [("a", "1"), ("a", "2"), ("a", "3"), ("a", "4")] == _filled(list(order.sort(found)))


def test_what_stands_behind_sorted_activities_stays_behind_them() -> None:
    """They come together where the last of them is, and only what came between them comes before."""
    told = [("a", "2"), ("b", "1"), ("a", "1"), ("c", "1"), ("d", "2"), ("d", "1"), ("e", "1")]
    found = _filled(_sort([_activity(order, "1", filled) for order, filled in told]))
    assert [("b", "1"), ("a", "1"), ("a", "2"), ("c", "1"), ("d", "1"), ("d", "2"), ("e", "1")] == found


@given(st.permutations([("a", n) for n in (1, 2, 10)] + [("b", n) for n in (1, 2, 3)] + [("c", None)]))
def test_sorting_loses_and_invents_nothing(told: list[tuple[str, int | None]]) -> None:
    """Whatever the order of a file: the same events, those of each order by cumulative quantity as a number."""
    messages = [_activity(order, "1", None if n is None else str(n)) for order, n in told]
    found = _sort(messages)
    assert sorted(map(str, _read(messages))) == sorted(map(str, found))
    for order in "ab":
        filled = [
            Decimal(one.event["filled_qty"])
            for one in found
            if isinstance(one.event, dict) and one.event["order_id"] == order
        ]
        assert filled == sorted(filled)


def test_the_activity_stream_is_read() -> None:
    """An entry calls a trade `TRD`, its details tell the order, and what it leaves open makes it a partial fill."""
    details = {"execution_type": "fill", "order_id": "o1", "symbol": "AAPL", "side": "buy", "order_status": "filled"}
    entry: dict[str, Any] = {
        "activity_type": "TRD",
        "event_id": "01J",
        "at": T,
        "executed_at": T,
        "ref_id": "x-1",
        "price": "10.5",
    }
    entry |= {"qty": "2", "details": {**details, "cum_qty": "2", "leaves_qty": "3", "client_order_id": "c1"}}
    [partial] = _read([entry])
    assert isinstance(partial.event, dict)
    expected = ["partial_fill", "o1", "01J", "x-1", "10.5", "2", "2", "stream"]
    names = ("event", "order_id", "event_id", "execution_id", "price", "qty", "filled_qty", "source")
    assert expected == [partial.event[name] for name in names]
    bust = entry | {"previous_id": "x-1", "details": details | {"execution_type": "trade_bust", "leaves_qty": "0"}}
    [found] = _read([bust])
    assert isinstance(found.event, dict)
    assert ("trade_bust", "x-1") == (found.event["event"], found.event["previous_execution_id"])


def test_activities_that_are_no_fills_are_counted_by_type() -> None:
    """Fees, exercises and dividends change cash and positions, but not through an order, wherever they are told."""
    told: list[Any] = [{"activity_type": name, "id": "1", "symbol": "AAPL"} for name in ("CFEE", "OPEXC", "DIV")]
    told += [{"activity_type": "FEE", "details": {}, "at": T}]
    assert [NotAFill(name) for name in ("CFEE", "OPEXC", "DIV", "FEE")] == [one.event for one in _read(told)]


def test_an_event_that_no_log_takes_is_a_problem() -> None:
    """The check is the same as for any appended event, and is made once."""
    [found] = _read([_activity("o1", "many", "1")])
    assert isinstance(found.event, Problem)
    assert "bad_value" == found.event.kind


LEG = {"status": "filled", "time_in_force": "day", "updated_at": T, "symbol": "AAPL", "side": "buy", "qty": "1"}


def _move(messages: list[Any]) -> list[Any]:
    """The events of a recording, with the activities of multi-leg orders on their legs."""
    found, legs = _read(messages), LegFinder()
    for one in found:
        legs.note(one)
    return [legs.move(one).event for one in found]


def test_an_activity_of_a_multi_leg_order_is_its_legs() -> None:
    """REST may name the parent; symbol and side tell the leg. The legs of a bracket are orders beside their entry."""
    fill = _activity("parent", "1", "1")
    for kind, order_id in (("mleg", "leg"), ("bracket", "parent")):
        parent = {**LEG, "id": "parent", "order_class": kind, "symbol": "" if kind == "mleg" else "AAPL"}
        leg = {**LEG, "id": "leg", "order_class": kind, "side": "buy" if kind == "mleg" else "sell"}
        assert order_id == _move([fill, {**parent, "legs": [leg]}])[0]["order_id"], kind


@pytest.mark.parametrize("leg", [{}, {"legs": [{**LEG, "id": "leg", "order_class": "mleg", "symbol": ""}]}])
def test_a_leg_that_is_not_told_whole_places_no_activity(leg: dict[str, Any]) -> None:
    """A leg that was asked for by its own id has no parent, and one without a symbol could be any."""
    moved = _move([{**LEG, "id": "other", "order_class": "mleg", **leg}, _activity("other", "1", "1")])
    assert "other" == moved[-1]["order_id"]


def test_an_activity_that_cannot_be_read_has_no_leg() -> None:
    """It stays the problem that it is."""
    [problem] = _move([_activity("o1", "many", "1")])
    assert isinstance(problem, Problem)


def test_an_event_of_a_log_is_named_with_what_takes_it() -> None:
    """A log is no recording; an update of the stream may have fields of the same names."""
    event = {"event": "new", "order_id": "o1", "ts": T}
    for told in (event, {**event, "symbol": "AAPL", "raw": {}}):
        [found] = _read([told])
        assert isinstance(found.event, Problem)
        assert "compactor append" in found.event.detail
    order = {"id": "o1", "status": "new", "time_in_force": "day", "updated_at": T}
    [found] = _read([{**event, "order": order}])
    assert isinstance(found.event, dict)


@given(st.sampled_from(REAL), JSON, st.data())
def test_no_recording_makes_it_raise(message: Any, strange: Any, data: st.DataObject) -> None:
    """Whatever programs made of a message: what is taken is an event that a log takes, the rest is a problem."""
    for found in _read([replace_part(message, strange, data)]):
        assert isinstance(found.event, Problem | NotAFill) or not isinstance(build_event(found.event), Problem)


def test_the_message_is_kept_as_it_was_recorded() -> None:
    """Section 2: `raw` is what was recorded, not what it was read as."""
    order = {"id": "o1", "status": "OrderStatus.NEW", "time_in_force": "day", "updated_at": 1637245837444}
    [found] = _read([order])
    assert isinstance(found.event, dict)
    assert (order, "new") == (found.event["raw"], found.event["order_status"])


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    """A recording is read twice; the second reading of a pipe would find nothing."""
    import os

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadRecording, match="read twice"):
        list(read_capture(tmp_path / "pipe"))


def test_progress_is_shown_every_64_kib_and_never_beyond_the_whole() -> None:
    """Long work shows how far it is; a file that grows meanwhile is no more than all of it."""
    shown: list[tuple[int, int]] = []
    meter = Meter(lambda done, total: shown.append((done, total)), 150_000)
    for length in (65_535, 1, 65_535, 1, 65_536):
        meter.add(length)
    assert [(65_536, 150_000), (131_072, 150_000), (150_000, 150_000)] == shown
    Meter(None, 1).add(1 << 20)


@pytest.mark.parametrize(
    "message",
    [
        {"T": "t", "S": "AAPL", "i": 7, "x": "D", "p": "1.5", "s": 1, "t": "2021-02-22T15:51:44.208Z"},
        [{"T": "error", "code": 406, "msg": "connection limit exceeded"}],
        {"clientOrderId": "c", "id": "o1", "status": "OrderStatus.NEW", "note": "no time tells `ts`"},
    ],
)
def test_a_problem_quotes_what_was_recorded(message: Any) -> None:
    """Not what it was read as, where names that differ only by case are one and a value is lost."""
    [found] = _read([message])
    assert isinstance(found.event, Problem)
    [one] = message if isinstance(message, list) else [message]
    assert json.dumps(one, separators=(",", ":")) in found.event.detail


def test_a_problem_about_a_part_quotes_that_as_it_was_recorded() -> None:
    """What surrounds it may have been read as something else, too."""
    leg = {"Status": "OrderStatus.HELD", "Symbol": "AAPL"}
    order = {"id": "o1", "status": "OrderStatus.NEW", "time_in_force": "day", "updated_at": T, "legs": [leg]}
    [problem] = [found.event for found in _read([order]) if isinstance(found.event, Problem)]
    assert json.dumps(leg, separators=(",", ":")) in problem.detail
