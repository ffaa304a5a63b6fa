"""A line becomes an event, in two ways that must agree; whatever is no event is a problem with its kind."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from compactor.core.decimals import BadDecimal
from compactor.core.decoding import build_event, decode, read_leg_fills, rewritten
from compactor.core.events import (
    DECIMALS,
    EVENTS,
    LEGS_MAX,
    LINE_BYTES_MAX,
    NESTING_MAX,
    TERMS,
    Event,
    Problem,
    UnknownEvent,
    is_intent,
)
from compactor.core.instants import FIRST_INSTANT
from compactor.core.lifecycle import LIFE

HEAD = {"event": "new", "order_id": "o-1", "ts": "2026-03-02T10:00:00Z"}
FILL = {**HEAD, "event": "fill", "price": "10", "qty": "1"}
LEG = {"order_id": "l-1", "symbol": "SPY", "side": "buy", "qty": "1", "price": "10"}


def line_of(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode()


def kind_of(line: bytes) -> str:
    found = decode(line)
    assert isinstance(found, Problem)
    assert found.detail
    return found.kind


def event_in(fields: dict[str, Any]) -> Event:
    found = decode(line_of(fields))
    assert not isinstance(found, Problem), found
    return found


def test_every_event_of_the_table_has_a_type() -> None:
    """3: what the table knows is decoded by its name; `cancelled` is one more spelling (3.1)."""
    assert {*LIFE, "cancelled"} == set(EVENTS)
    for name, kind in EVENTS.items():
        assert name.replace("cancelled", "canceled") == kind.event


def test_an_unknown_event_keeps_its_name_and_its_fields() -> None:
    """3.7: nobody has heard of it, and it is an event all the same."""
    found = event_in({**HEAD, "event": "order_paused", "limit_price": "10.00"})
    assert isinstance(found, UnknownEvent)
    assert ("order_paused", "o-1", "10.00") == (found.event, found.order_id, found.limit_price)


def test_an_intent_is_about_the_id_that_is_asked_under() -> None:
    """3.13: an event of such a name about another id, or of another name about such an id, is about an order."""
    asked = {**HEAD, "event": "submitting", "client_order_id": "o-1"}
    assert is_intent(event_in(asked))
    assert not is_intent(event_in({**asked, "client_order_id": "o-2"}))
    assert not is_intent(event_in({**asked, "event": "new"}))


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"event": "new", "order_id": "o-1"}, "missing_field"),
        ({**HEAD, "order_id": None}, "missing_field"),
        ({**HEAD, "order_id": ""}, "bad_value"),
        ({**HEAD, "order_id": 7}, "bad_value"),
        ({**HEAD, "event": 7}, "bad_value"),
        ({**HEAD, "event": ["new"]}, "bad_value"),
        ({**HEAD, "ts": "yesterday"}, "bad_value"),
        ({**HEAD, "created_at": "2026-03-02"}, "bad_value"),
        ({**HEAD, "recorded_at": "2026-03-02T10:00:00"}, "bad_value"),
        ({**HEAD, "quantity": "0"}, "bad_value"),
        ({**HEAD, "notional": "-1"}, "bad_value"),
        ({**HEAD, "quantity": "NaN"}, "bad_value"),
        ({**HEAD, "quantity": True}, "bad_value"),
        ({**HEAD, "symbol": 1.5}, "bad_value"),
        ({**HEAD, "extended_hours": "yes"}, "bad_value"),
        ({**HEAD, "legs": {}}, "bad_value"),
        ({**FILL, "qty": None}, "missing_field"),
        ({**FILL, "price": None}, "missing_field"),
        ({**FILL, "qty": "-1"}, "bad_value"),
        ({**FILL, "filled_qty": "-0.1"}, "bad_value"),
        ({**FILL, "legs": [{**LEG, "qty": None}]}, "missing_field"),
        ({**FILL, "legs": [{"order_id": "l-1", "price": "1"}]}, "missing_field"),
        ({**FILL, "legs": [{**LEG, "qty": "0"}]}, "bad_value"),
        ({**FILL, "legs": [LEG] * (LEGS_MAX + 1)}, "bad_value"),
        ({**HEAD, "legs": [{"order_id": "l-1"}] * (LEGS_MAX + 1)}, "bad_value"),
        ({**FILL, "legs": [{**LEG, "side": "hold"}]}, "bad_value"),
        ({**FILL, "qty": None, "filled_qty": ""}, "missing_field"),
        ({**HEAD, "side": "hold"}, "bad_value"),
        ({**HEAD, "event": ""}, "bad_value"),
        ({**HEAD, "ts": ""}, "bad_value"),
        ({**HEAD, "event": "trade_bust"}, "missing_field"),
        ({**HEAD, "event": "trade_correct", "execution_id": "x-1", "qty": "1"}, "missing_field"),
        ({**HEAD, "event": "trade_correct", "execution_id": "x-1", "price": "1", "filled_qty": "1"}, "missing_field"),
        ({**FILL, "legs": [{**LEG, "order_id": ""}]}, "bad_value"),
        ({**FILL, "legs": [{**LEG, "symbol": 7}]}, "bad_value"),
        ({**FILL, "legs": [{**LEG, "qty": "x"}]}, "bad_value"),
        ({**FILL, "legs": [{**LEG, "price": "x"}]}, "bad_value"),
        ({**FILL, "legs": [{**LEG, "filled_qty": "x"}]}, "bad_value"),
        ({**HEAD, "event": "assigned"}, "missing_field"),
        ({**HEAD, "event": "assigned", "to_team": "alpha", "from_team": "bravo"}, "missing_field"),
        ({**HEAD, "recorded_at": "1899-12-31T23:59:59Z"}, "bad_value"),
        ({**HEAD, "recorded_at": "2262-01-01T00:00:00Z"}, "bad_value"),
    ],
    ids=str,
)
def test_what_is_no_event_is_a_problem_of_its_kind(fields: dict[str, Any], kind: str) -> None:
    """2 and 5: the line is set aside with the reason, in both ways in which events come."""
    assert kind == kind_of(line_of(fields))
    found = build_event(fields)
    assert isinstance(found, Problem)
    assert kind == found.kind


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b'{"event":"new"', "not_json"),
        (b"null", "bad_value"),
        (b"[1]", "bad_value"),
        (b'"new"', "bad_value"),
        (b'{"event":"new","order_id":"\xff"}', "not_utf8"),
        (b"\0\0\0", "nul_bytes"),
        (b"[" * 100_000, "not_json"),
        (b'{"a":' * 100_000, "not_json"),
        (b" " * LINE_BYTES_MAX + b"{", "too_long"),
    ],
    ids=lambda value: str(value[:12]),
)
def test_bytes_that_are_no_object_are_a_problem_of_their_kind(line: bytes, kind: str) -> None:
    """5: torn, foreign and hostile lines never raise."""
    assert kind == kind_of(line)


def test_what_the_contract_allows_is_an_event() -> None:
    """2: prices of zero and below, busts of negative quantity, null for absent, unknown fields, escapes, exponents."""
    assert "-1.25" == event_in({**HEAD, "limit_price": "-1.25"}).limit_price
    assert "-1" == event_in({**HEAD, "event": "trade_bust", "execution_id": "x-1", "qty": "-1"}).qty
    assert event_in(HEAD) == event_in({**HEAD, "symbol": None, "colour": "blue", "raw": {"deep": [1.5]}})
    assert "o-1" == event_in(json.loads('{"event":"new","order_id":"\\u006f-1","ts":"2026-03-02T10:00:00Z"}')).order_id
    assert "1500" == event_in({**HEAD, "quantity": "1.5e3"}).quantity
    assert "canceled" == event_in({**HEAD, "order_status": "cancelled"}).order_status
    assert ["0", "0.5"] == [event_in({**FILL, "filled_qty": told}).filled_qty for told in ("0", "0.5")]
    assert event_in({**HEAD, "recorded_at": "1900-01-01T00:00:00Z"}).recorded_at == FIRST_INSTANT
    assert event_in({**HEAD, "raw": [[1, {"{[": '"['}]] * (2 * NESTING_MAX)}) == event_in(HEAD)


def test_an_assignment_names_one_other_team() -> None:
    """4.12: it goes somewhere or comes from somewhere; the message says what the line has."""
    assigned = {**HEAD, "event": "assigned"}
    assert ("alpha", None) == (event_in({**assigned, "to_team": "alpha"}).to_team, event_in(HEAD).to_team)
    assert "alpha" == event_in({**assigned, "from_team": "alpha", "quantity": 1}).from_team
    for teams, found in [({}, "neither"), ({"to_team": "alpha", "from_team": "bravo"}, "both")]:
        problem = decode(line_of({**assigned, **teams}))
        assert isinstance(problem, Problem) and problem.detail.endswith(f"found {found}")


@pytest.mark.parametrize("number", ["530.10", "0.1", "1e2", "123456789012345678901234567890.123456789", "5"])
def test_a_json_number_is_read_digit_by_digit(number: str) -> None:
    """2: never through a float."""
    line = b'{"event":"new","order_id":"o-1","ts":"2026-03-02T10:00:00Z","quantity":%s}' % number.encode()
    found = decode(line)
    assert not isinstance(found, Problem)
    assert {"1e2": "100"}.get(number, number) == found.quantity


def test_a_float_in_a_mapping_is_refused() -> None:
    """2: its digits are not exact."""
    found = build_event({**HEAD, "quantity": 0.1})
    assert isinstance(found, Problem)
    assert ("bad_value", True) == (found.kind, "float" in found.detail)


def test_an_event_has_a_hundred_legs_at_most() -> None:
    """2: each is an order of its own, and one line of log must not change thousands."""
    assert 100 == len(event_in({**FILL, "legs": [LEG] * 100}).leg_fills)
    assert "bad_value" == kind_of(line_of({**FILL, "legs": [LEG] * 101}))
    problem = decode(line_of({**FILL, "legs": [LEG] * 300}))
    assert Problem("bad_value", "`legs` has 300 entries, expected at most 100") == problem


def test_legs_are_read_as_texts() -> None:
    """4.10: whole numbers and exponents in legs are written as everywhere else."""
    [leg] = read_leg_fills([{**LEG, "qty": 2, "price": "1e1"}])
    assert ("2", "10", None) == (leg.qty, leg.price, leg.execution_id)
    with pytest.raises(BadDecimal):
        read_leg_fills([{**LEG, "price": "1ee1"}])


@pytest.mark.parametrize("told", ["buy", "BUY", "Buy", "OrderSide.BUY", "orderside.buy"])
def test_a_side_is_read_however_it_is_spelled(told: str) -> None:
    """2: writers send it in capitals, and as Python prints the member of an enum."""
    event = decode(
        line_of({**HEAD, "side": told, "event": "fill", "price": "1", "qty": "1", "legs": [{**LEG, "side": told}]})
    )
    assert not isinstance(event, Problem)
    assert ("buy", "buy") == (event.side, event.leg_fills[0].side)


def test_what_some_writers_send_for_nothing_is_absent() -> None:
    """2: `""` and empty `legs` are the same as an absent field, in a line and in a mapping."""
    fields = {
        **FILL,
        "event_id": "",
        "execution_id": "",
        "legs": [],
        "client_order_id": "",
        "limit_price": "",
        "side": "",
    }
    for name, value in fields.items():
        assert event_in(FILL) == event_in({**FILL, name: value})
    for event in (decode(line_of(fields)), build_event(fields)):
        assert not isinstance(event, Problem)
        assert [None] * 6 == [
            event.event_id,
            event.execution_id,
            event.legs,
            event.client_order_id,
            event.limit_price,
            event.side,
        ]
        assert ("1", "10") == (event.qty, event.price)


def test_legs_are_a_term_unless_they_are_executions() -> None:
    """2, 4.10: an entry with the fields of a fill is an execution; others are orders that belong to this one."""
    term = decode(line_of({**FILL, "legs": [{"order_id": "l-1", "qty": "5", "status": "held"}, "l-2"]}))
    both = decode(line_of({**FILL, "legs": [{"order_id": "l-1"}, LEG]}))
    assert not isinstance(term, Problem) and not isinstance(both, Problem)
    assert (2, None) == (len(term.legs or ()), term.leg_fills)
    placed = event_in({**HEAD, "legs": [LEG]})
    assert ([LEG], None) == (placed.legs, placed.leg_fills)
    assert (None, [1]) == (both.legs, [leg.index for leg in both.leg_fills])


def test_no_line_can_bring_leg_fills_of_its_own() -> None:
    """2: the model's own field is an unknown field of a line."""
    for name in ("leg_fills", "(leg_fills)"):
        for price in ("10", 10):
            assert event_in({**FILL, "price": price, name: [LEG]}).leg_fills is None


TEXTS = st.sampled_from(["", "buy", "SPY", "o-1", "é", "\x00", "1", "null"])
NUMBERS = st.sampled_from(["1", "0", "-1", "1.50", "1e2", "x", "NaN", "9" * 41, 1, 1.5, -3, True])
TIMES = st.sampled_from(["2026-03-02T10:00:00Z", "2026-03-02T05:00:00.123456789-05:00", "2026-03-02", "now", 1])
ODD: st.SearchStrategy[Any] = st.sampled_from([None, [], {}, 1.5, 7, False])
VALUES: dict[str, st.SearchStrategy[Any]] = {
    **{name: st.one_of(TEXTS, ODD) for name in (*TERMS, "event_id", "team_id", "source", "execution_id", "raw")},
    **{name: st.one_of(NUMBERS, ODD) for name in DECIMALS},
    **{name: st.one_of(TIMES, ODD) for name in ("recorded_at", "created_at")},
    "order_status": st.sampled_from(["new", "cancelled", "frozen", None, 5]),
    "extended_hours": st.sampled_from([True, False, None, "yes"]),
    "previous_execution_id": TEXTS,
    "legs": st.sampled_from([None, [], [LEG], [{**LEG, "qty": 1}], [{}], "x"]),
    "colour": TEXTS,
}


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """An event of any name with any of the fields, well or badly filled."""
    names = draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=6, unique=True))
    head = {
        "event": draw(st.sampled_from([*EVENTS, "frozen", 1])),
        "order_id": draw(st.sampled_from(["o-1", "", 5])),
        "ts": draw(TIMES),
    }
    fields = {**head, **{name: draw(VALUES[name]) for name in names}}
    order = draw(st.permutations(sorted(fields)))
    return json.dumps({name: fields[name] for name in order}, ensure_ascii=draw(st.booleans())).encode()


def values_of(event: Any) -> dict[str, Any]:
    fields = {name: getattr(event, name) for name in event.__struct_fields__}
    return {"event": event.event, **{name: value for name, value in fields.items() if value is not None}}


@given(lines())
@example(line_of(FILL))
@example(line_of({**FILL, "symbol": "SPY", "legs": [LEG], "raw": {}}))
@example(line_of({**HEAD, "event": "accepted", "limit_price": "1.50", "execution_id": "x-1"}))
@example(b'{"event":"new","order_id":"o-1","ts":"2026-03-02T10:00:00Z","quantity":1.0}')
@example(b'{"event":"new","order_id":"o-1","order_id":"o-2","ts":"2026-03-02T10:00:00Z"}')
def test_a_line_that_is_written_anew_says_the_same(line: bytes) -> None:
    """1.4: whatever the habits of its writer, the event stays what it is, value for value; only times of the writer are
    cut to microseconds."""
    event, written = decode(line), rewritten(line)
    if written is None:
        numbers = [name for name, value in json.loads(line).items() if name in DECIMALS and type(value) in (int, float)]
        assert numbers or isinstance(event, Problem | UnknownEvent)
        return
    again = decode(written)
    if isinstance(event, Problem):
        assert isinstance(again, Problem)
        assert event.kind == again.kind
    else:
        assert values_of(event) == values_of(again)
