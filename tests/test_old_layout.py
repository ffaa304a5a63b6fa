"""The old layout as events: nothing comes out twice, nothing is lost."""

import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compactor.core.decoding import build_event
from compactor.core.events import Problem
from compactor.imports.old_fields import read_fields
from compactor.imports.old_layout import translate_old_layout
from compactor.imports.old_orders import OldProblem

ORDER: dict[str, Any] = {
    "order_id": "o1",
    "team_id": "alpha",
    "symbol": "AAPL",
    "side": "buy",
    "quantity": "100",
    "order_type": "limit",
    "limit_price": "181.50",
    "status": "new",
    "filled_qty": "0",
    "filled_avg_price": None,
    "time_in_force": "day",
    "created_at": "2026-03-02T14:30:00Z",
    "updated_at": "2026-03-02T14:30:00Z",
    "broker_order_id": "b1",
    "requested_price": "181.50",
}
FILLED = {**ORDER, "status": "filled", "filled_qty": "100", "filled_avg_price": "181.42"}
FILLED["updated_at"] = "2026-03-02T14:31:00Z"
TRADE: dict[str, Any] = {
    "team_id": "alpha",
    "symbol": "AAPL",
    "side": "buy",
    "quantity": "100",
    "requested_price": "181.50",
    "execution_price": "181.42",
    "order_type": "limit",
    "timestamp": "2026-03-02T14:31:00Z",
    "broker_order_id": "b1",
}


class Old(NamedTuple):
    """The translation of old lines, without where each stands."""

    events: list[dict[str, Any]]
    problems: list[OldProblem]


def _translated(orders: Iterable[Any], trades: Iterable[Any] = (), team: str | None = None) -> Old:
    old = translate_old_layout(map(_line, orders), map(_line, trades), team=team)
    events = [found.event for found in old.events]
    assert not [event for event in events if isinstance(build_event(event), Problem)]
    return Old(events, old.problems)


def _line(found: Any) -> bytes:
    return found if isinstance(found, bytes) else json.dumps(found).encode() + b"\n"


def _told(old: Old, *names: str) -> list[list[Any]]:
    return [[event.get(name) for name in names] for event in old.events]


def _without(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def test_an_order_line_is_a_snapshot_with_its_terms() -> None:
    """A line is what the broker said of the order at `updated_at`, by the broker's id; `null` says nothing."""
    [event] = _translated([ORDER]).events
    raw, event_id = event.pop("raw"), event.pop("event_id")
    expected = {
        name: value for name, value in ORDER.items() if name not in ("status", "filled_avg_price", "updated_at")
    }
    expected |= {
        "event": "snapshot",
        "order_id": "b1",
        "ts": "2026-03-02T14:30:00Z",
        "order_status": "new",
        "source": "import",
    }
    assert expected == event
    assert ORDER == json.loads(raw)
    assert event_id.startswith("digest:")


def test_a_trade_comes_once_where_the_order_tells_it_too() -> None:
    """The trade is the fill, by its cumulative quantity (rule 4.4); the order's lines do not tell their fills again."""
    old = _translated([ORDER, FILLED], [TRADE])
    expected = [["snapshot", "new", None], ["fill", None, "100"], ["snapshot", "filled", None]]
    assert expected == _told(old, "event", "order_status", "filled_qty")
    fill = old.events[1]
    expected_fill = ["b1", "181.42", None, "181.50", "2026-03-02T14:31:00Z", "AAPL"]
    assert expected_fill == [fill.get(name) for name in ("order_id", "price", "qty", "requested_price", "ts", "symbol")]


def test_a_fill_has_the_terms_that_were_in_force() -> None:
    """Those of the last line up to its time; of the first line where its order is told later only."""
    changed = {**ORDER, "limit_price": "180", "updated_at": "2026-03-02T14:31:00Z"}
    for minute, limit in (("29", "181.50"), ("30", "181.50"), ("31", "180"), ("32", "180")):
        trade = {**TRADE, "timestamp": f"2026-03-02T14:{minute}:00Z"}
        [fill] = [event for event in _translated([ORDER, changed], [trade]).events if event["event"] != "snapshot"]
        assert limit == fill["limit_price"], minute


def test_a_line_may_not_tell_what_is_filled() -> None:
    """Another line of the order does, and the trade is that."""
    old = _translated([_without(ORDER, "filled_qty"), FILLED], [_without(TRADE, "broker_order_id")])
    assert [["snapshot", "b1"], ["fill", "b1"], ["snapshot", "b1"]] == _told(old, "event", "order_id")


def test_a_fill_without_a_trade_stays_on_the_order() -> None:
    """Filled in part, then canceled: no old trade tells it, so the fold has to infer it (rule 4.7)."""
    part = {**ORDER, "status": "cancelled", "filled_qty": "40", "filled_avg_price": "181.40"}
    assert [["cancelled", "40", "181.40"]] == _told(
        _translated([part]), "order_status", "filled_qty", "filled_avg_price"
    )


def test_what_is_filled_beyond_the_trade_stays_on_the_order() -> None:
    """A trade of 40 and an order filled with 100: the other 60 are inferred after the trade, at their own price."""
    old = _translated([ORDER, FILLED], [{**TRADE, "quantity": "40"}])
    assert [["snapshot", None], ["fill", "40"], ["snapshot", "100"]] == _told(old, "event", "filled_qty")


def test_several_trades_of_one_order_add_up() -> None:
    """Two trades with the same broker's id are two executions; only the last one completes the order."""
    trades = [{**TRADE, "quantity": "40"}, {**TRADE, "quantity": "60", "timestamp": "2026-03-02T14:32:00Z"}]
    old = _translated([ORDER, FILLED], trades)
    expected = [["snapshot", None], ["partial_fill", "40"], ["fill", "100"], ["snapshot", None]]
    assert expected == _told(old, "event", "filled_qty")


def test_a_trade_of_an_order_that_still_works_does_not_end_it() -> None:
    """Rule 3.3: `fill` always ends the order, so a part is a `partial_fill`."""
    old = _translated([{**ORDER, "status": "partially_filled", "filled_qty": "40"}], [{**TRADE, "quantity": "40"}])
    assert [["partial_fill", "40"], ["snapshot", None]] == _told(old, "event", "filled_qty")


def test_the_fill_comes_before_the_line_that_ends_the_order() -> None:
    """Lines in any order: by time, and no fill after the end, which would be a `late_fill` (rule 3.4)."""
    again = {**FILLED, "updated_at": "2026-03-02T14:40:00Z"}
    old = _translated([again, FILLED, ORDER], [TRADE])
    assert [["snapshot", "new"], ["fill", None], ["snapshot", "filled"], ["snapshot", "filled"]] == _told(
        old, "event", "order_status"
    )


def test_a_line_with_the_brokers_id_only_joins_its_order() -> None:
    """An order has the broker's id, also in a line that lacks one of the two."""
    old = _translated([_without(FILLED, "order_id"), ORDER, {**_without(ORDER, "order_id"), "broker_order_id": "b9"}])
    assert {("b1", "b1"), ("b9", "b9")} == {(event["order_id"], event["broker_order_id"]) for event in old.events}


def test_a_trade_without_an_id_finds_its_order_by_what_was_traded() -> None:
    """Team, symbol, side, quantity and requested price; two alike orders take one trade each."""
    orders = [{**FILLED, "order_id": f"o{number}", "broker_order_id": None} for number in (1, 2, 3)]
    orders[1]["updated_at"] = "2026-03-02T14:35:00Z"
    trades = [{**TRADE, "broker_order_id": None, "timestamp": f"2026-03-02T14:{minute}:00Z"} for minute in ("35", "31")]
    old = _translated(orders, trades)
    fills = {event["order_id"]: event["ts"] for event in old.events if event["event"] == "fill"}
    assert {"o2": "2026-03-02T14:35:00Z", "o1": "2026-03-02T14:31:00Z"} == fills
    left = [event["order_id"] for event in old.events if event["event"] == "snapshot" and "filled_qty" in event]
    assert ["o3"] == left


T = "2026-03-02T14:30:00Z"
STRAY = _without(TRADE, "broker_order_id")
NEAR, FAR = "2026-03-02T14:31:30Z", "2026-03-02T15:31:00Z"
CANCELED = {**ORDER, "status": "canceled", "updated_at": NEAR}


@pytest.mark.parametrize(
    ("nearer", "other", "trade", "expected"),
    [
        ({**ORDER, "updated_at": NEAR}, {**FILLED, "updated_at": FAR}, STRAY, "other"),
        ({**FILLED, "filled_avg_price": "181.40"}, {**FILLED, "updated_at": FAR}, STRAY, "other"),
        ({**FILLED, "updated_at": NEAR}, {**FILLED, "updated_at": FAR}, STRAY, "nearer"),
        ({**FILLED, "updated_at": NEAR}, {**FILLED, "updated_at": "2026-03-02T14:30:59Z"}, STRAY, "other"),
        (FILLED, FILLED, STRAY, "nearer"),
        (CANCELED, {**ORDER, "created_at": T}, STRAY, "other"),
        ({**ORDER, "updated_at": NEAR}, ORDER, STRAY, "other"),
        (ORDER, {**FILLED, "updated_at": FAR}, STRAY, "other"),
        ({**ORDER, "updated_at": TRADE["timestamp"]}, {**FILLED, "side": "sell"}, STRAY, "nearer"),
        ({**FILLED, "side": "sell"}, FILLED, STRAY, "other"),
        ({**FILLED, "symbol": "MSFT"}, FILLED, STRAY, "other"),
        ({**FILLED, "team_id": "beta"}, FILLED, STRAY, "other"),
        ({**FILLED, "order_type": "market"}, FILLED, STRAY, "other"),
        ({**FILLED, "requested_price": "181"}, FILLED, STRAY, "other"),
        ({**FILLED, "requested_price": None, "limit_price": "181"}, FILLED, STRAY, "other"),
        ({**FILLED, "requested_price": None, "limit_price": None}, {**FILLED, "updated_at": FAR}, STRAY, "nearer"),
        (FILLED, {**FILLED, "updated_at": FAR}, _without(STRAY, "requested_price"), "nearer"),
        ({**FILLED, "broker_order_id": "b7"}, FILLED, STRAY | {"broker_order_id": "b8"}, "other"),
        ({**FILLED, "broker_order_id": "b7"}, FILLED, STRAY | {"broker_order_id": "b7"}, "nearer"),
    ],
)  # fmt: skip
def test_of_two_orders_the_likelier_one_takes_a_trade(
    nearer: dict[str, Any], other: dict[str, Any], trade: dict[str, Any], expected: str
) -> None:
    """Filled ones first, then the same average price, then the nearest in time; what cannot be meant takes none."""
    orders = [{"broker_order_id": None, **nearer, "order_id": "nearer"}, {**other, "order_id": "other"}]
    orders = [one | {"broker_order_id": None} if one["broker_order_id"] == "b1" else one for one in orders]
    [taken] = [event for event in _translated(orders, [trade]).events if event["event"] == "fill"]
    [line] = [one for one in orders if taken["order_id"] in (one["broker_order_id"], one["order_id"])]
    assert expected == line["order_id"]


def test_a_trade_that_belongs_to_nothing_keeps_no_other_from_its_order() -> None:
    """Whatever their order in the file."""
    old = _translated([{**FILLED, "broker_order_id": None}], [{**STRAY, "symbol": "MSFT"}, STRAY])
    [taken] = [event["symbol"] for event in old.events if event["event"] == "fill" and event["order_id"] == "o1"]
    assert "AAPL" == taken


def test_a_trade_that_fits_two_ids_of_one_order_is_its_only_one() -> None:
    """An order takes one trade; a second one that is alike belongs to nothing that is known."""
    old = _translated([{**FILLED, "broker_order_id": None}], [STRAY, {**STRAY, "timestamp": NEAR}])
    found = [event["order_id"] for event in old.events if event["event"] == "fill"]
    assert ["o1"] == [one for one in found if not one.startswith("legacy-trade:")]
    assert 2 == len(found)


def test_quantity_and_price_must_fit() -> None:
    """A trade of other numbers belongs to no order: it is kept under an id of its own, and the order keeps its fill."""
    for other in ({"quantity": "50"}, {"requested_price": "180"}, {"side": "sell"}, {"team_id": "beta"}):
        old = _translated([{**FILLED, "broker_order_id": None}], [{**TRADE, "broker_order_id": None, **other}])
        [fill] = [event for event in old.events if event["event"] == "fill"]
        assert fill["order_id"].startswith("legacy-trade:")
        assert [["100"]] == [[event["filled_qty"]] for event in old.events if event["order_id"] == "o1"]


def test_a_trade_of_an_unknown_order_is_an_order() -> None:
    """Nothing is lost: the broker's id names an order that no line tells of."""
    [fill] = _translated([], [{**TRADE, "broker_order_id": "b7"}]).events
    assert ["fill", "b7", "100", "AAPL", "buy"] == [
        fill[name] for name in ("event", "order_id", "filled_qty", "symbol", "side")
    ]


def test_an_id_that_means_two_things_is_two_orders() -> None:
    """A trade of another symbol under the same broker's id is kept apart from that order."""
    for order in (FILLED, {**_without(FILLED, "broker_order_id"), "order_id": "b1"}):
        old = _translated([order], [{**TRADE, "symbol": "MSFT"}])
        assert 2 == len({event["order_id"] for event in old.events})


def test_a_trade_that_is_written_twice_comes_out_once() -> None:
    """The same line again beyond the order's quantity is a copy, and is reported; two alike halves are two trades."""
    old = _translated([FILLED], [TRADE, TRADE])
    assert 1 == len([event for event in old.events if event["event"] == "fill"])
    assert [("trades", 2, "duplicate_trade")] == [(file, line, found.kind) for file, line, found in old.problems]
    assert 1 == len(_translated([_without(FILLED, "quantity")], [TRADE, TRADE]).problems)
    halves = _translated([FILLED], [{**TRADE, "quantity": "50"}, {**TRADE, "quantity": "50"}])
    assert 2 == len([event for event in halves.events if event["event"].endswith("fill")])


def test_what_cannot_be_read_is_a_problem_with_its_line() -> None:
    """Torn and foreign lines are never dropped in silence, and never stop the lines after them."""
    no_time = _without(ORDER, "updated_at", "created_at")
    lines = [b"<html>\n", b"\n", b"[]\n", {"team_id": "alpha"}, no_time, {**ORDER, "quantity": "many"}, b'{"order_id":']
    old = _translated([*lines[:-1], ORDER, lines[-1]])
    expected = [(1, "not_json"), (3, "bad_value"), (4, "missing_field"), (5, "missing_field"), (6, "bad_value")]
    assert [*expected, (8, "not_json")] == [(line, found.kind) for _, line, found in old.problems]
    assert ["b1"] == [event["order_id"] for event in old.events]
    assert "neither `updated_at` nor `created_at`" in old.problems[3].problem.detail
    [no_timestamp] = _translated([], [_without(TRADE, "timestamp")]).problems
    assert "no `timestamp`" in no_timestamp.problem.detail
    [no_team] = _translated([_without(ORDER, "team_id")]).problems
    assert "`team_id` is missing" in no_team.problem.detail


def test_a_line_of_another_team_is_a_problem() -> None:
    """A team's directory holds that team's orders; a line that names none is one of them."""
    old = _translated([ORDER, {**ORDER, "team_id": "beta"}, _without(ORDER, "team_id")], team="alpha")
    assert [(2, "wrong_team")] == [(line, found.kind) for _, line, found in old.problems]
    assert ["alpha", "alpha"] == [event["team_id"] for event in old.events]


def test_a_filled_order_that_does_not_say_how_much_is_filled_whole() -> None:
    """`filled_qty` null or zero beside `filled`: the quantity is what was filled, with or without a price."""
    for told in (None, "0", "0.00", 0):
        old = _translated([{**FILLED, "filled_qty": told}])
        assert [["100", "181.42"]] == _told(old, "filled_qty", "filled_avg_price")
    assert [["100"]] == _told(_translated([{**FILLED, "filled_qty": None, "filled_avg_price": None}]), "filled_qty")
    assert [["40"]] == _told(_translated([{**FILLED, "filled_qty": "40"}]), "filled_qty"), "what it says counts"
    assert [[None]] == _told(_translated([{**FILLED, "filled_qty": None, "status": "canceled"}]), "filled_qty")


def test_an_order_that_is_filled_and_does_not_say_how_much_is_named() -> None:
    """It may be for an amount of money: there is no quantity that could be missing, and no trade that tells it."""
    untold = {**FILLED, "quantity": None, "notional": "500", "filled_qty": None}
    old = _translated([ORDER | {"quantity": None}, untold])
    assert [("orders", 2, "unknown_fill")] == [(file, line, found.kind) for file, line, found in old.problems]
    assert [] == _translated([untold], [TRADE]).problems
    assert [] == _translated([{**untold, "filled_qty": "3"}]).problems


def test_a_trade_tells_no_quantity_that_was_ordered() -> None:
    """Its order may have been for more."""
    [fill] = _translated([], [TRADE]).events
    assert "quantity" not in fill


def test_an_order_line_may_lack_its_update_and_have_empty_texts() -> None:
    """Then it is as of when it was made; an empty text is no price, and a truth value is one."""
    [event] = _translated([{**_without(ORDER, "updated_at"), "limit_price": "", "extended_hours": False}]).events
    assert (ORDER["created_at"], None) == (event["ts"], event.get("limit_price"))


def test_what_contradicts_the_trades_is_left_to_the_fold() -> None:
    """A canceled order that says 40, with a trade of 100; what its trades tell is not told again before its end."""
    canceled = {**ORDER, "status": "canceled", "filled_qty": "40", "updated_at": NEAR}
    assert [["fill", "100"], ["snapshot", "40"]] == _told(_translated([canceled], [TRADE]), "event", "filled_qty")
    part = {**ORDER, "status": "partially_filled", "filled_qty": "40"}
    open_twice = _translated([part, {**part, "updated_at": NEAR}], [{**TRADE, "quantity": "40"}])
    assert [None, None] == [event.get("filled_qty") for event in open_twice.events if event["event"] == "snapshot"]


def test_times_without_an_offset_are_utc_and_numbers_are_texts() -> None:
    """Old programs wrote what `datetime.isoformat()` and a float gave them."""
    [event] = _translated(
        [{**ORDER, "updated_at": "2026-03-02T14:30:00.123456", "quantity": 100, "limit_price": 0.1}]
    ).events
    assert ["2026-03-02T14:30:00.123456Z", "100", "0.1"] == [event[name] for name in ("ts", "quantity", "limit_price")]


def test_a_value_that_is_neither_text_nor_number_stays_as_it_is() -> None:
    """A flag is a flag, and a list a list: what reads it says what it expected."""
    assert {"extended_hours": True, "legs": ["a"]} == read_fields({"extended_hours": True, "legs": ["a"], "note": None})


def test_a_line_is_the_same_wherever_it_stands() -> None:
    """Its identity is its content and which occurrence of it this is, not its number."""
    other = {**ORDER, "order_id": "o2", "broker_order_id": "b2"}
    first = _translated([ORDER, ORDER, other], [{**TRADE, "quantity": "50"}, {**TRADE, "quantity": "50"}])
    again = _translated([other, ORDER, ORDER], [b"torn\n", {**TRADE, "quantity": "50"}, {**TRADE, "quantity": "50"}])
    assert sorted(_told(first, "event_id", "execution_id"), key=str) == sorted(
        _told(again, "event_id", "execution_id"), key=str
    )
    assert 5 == len({event["event_id"] for event in first.events})
    executions = {event["execution_id"] for event in first.events if event["event"] != "snapshot"}
    assert [True, True] == [one.startswith("legacy:") for one in executions]


def test_a_fill_carries_the_terms_of_its_time() -> None:
    """Rule 3.2: a fill that told the first terms would take back what was changed since."""
    raised = {**ORDER, "limit_price": "182.00", "updated_at": "2026-03-02T14:30:30Z"}
    old = _translated([ORDER, raised, {**FILLED, "updated_at": "2026-03-02T14:32:00Z"}], [TRADE])
    assert ["182.00"] == [event["limit_price"] for event in old.events if event["event"] == "fill"]


PRICES = st.sampled_from(["181.42", "181.5", "0.1"])
LIVES = st.lists(st.tuples(st.booleans(), st.booleans(), st.sampled_from(["1", "2.5", "100"]), PRICES), max_size=8)


@given(LIVES, st.randoms(use_true_random=False))
def test_every_share_is_told_once(lives: list[tuple[bool, bool, str, str]], shuffle: Any) -> None:
    """For any orders, with or without trade and broker's id, in any order: each quantity comes out once."""
    orders, trades = [], []
    for number, (has_trade, has_id, quantity, price) in enumerate(lives):
        ids = {"order_id": f"o{number}", "broker_order_id": f"b{number}" if has_id else None}
        terms = {"quantity": quantity, "requested_price": price, "limit_price": price}
        orders += [
            {**ORDER, **ids, **terms},
            {**FILLED, **ids, **terms, "filled_qty": quantity, "filled_avg_price": price},
        ]
        if has_trade:
            trades.append({**TRADE, "quantity": quantity, "requested_price": price, "execution_price": price})
            trades[-1]["broker_order_id"] = ids["broker_order_id"]
    shuffle.shuffle(orders)
    shuffle.shuffle(trades)
    told: dict[str, Decimal] = {}
    for event in _translated(orders, trades).events:
        if event["event"] == "snapshot":
            told[event["order_id"]] = max(
                told.get(event["order_id"], Decimal(0)), Decimal(event.get("filled_qty", "0"))
            )
        else:
            told[event["order_id"]] = told.get(event["order_id"], Decimal(0)) + Decimal(event["filled_qty"])
    expected = {f"{'b' if has_id else 'o'}{number}": Decimal(qty) for number, (_, has_id, qty, _) in enumerate(lives)}
    assert expected == told


def test_a_byte_order_mark_and_zero_values_cost_nothing() -> None:
    """Programs on Windows begin a file with a mark; programs in Go write zero for a notional that is not there."""
    old = translate_old_layout([b"\xef\xbb\xbf" + _line({**ORDER, "notional": "0", "stop_price": 0})], [], team=None)
    assert [] == old.problems
    assert [("100", None, None)] == [
        (found.event["quantity"], found.event.get("notional"), found.event.get("stop_price")) for found in old.events
    ]
    again = translate_old_layout([_line({**ORDER, "notional": "0", "stop_price": 0})], [], team=None)
    assert [found.event["event_id"] for found in again.events] == [found.event["event_id"] for found in old.events]
