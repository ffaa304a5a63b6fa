"""Recordings of a replacement whose sums go on from its predecessor's: what was filled before is never traded twice."""

import json
from collections.abc import Iterable
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from compactor.core.decoding import build_event
from compactor.core.events import Event, Problem
from compactor.imports.captures import import_alpaca
from compactor.imports.messages import NotAFill, Translated
from compactor.imports.replacements import Replacements
from compactor.ledger import Ledger
from tests.imported import by_team

TERMS = {"symbol": "SPY", "side": "buy", "qty": "10", "type": "limit", "time_in_force": "day"}
FIRST: dict[str, Any] = {"id": "a", **TERMS, "client_order_id": "a", "created_at": "2026-03-02T15:00:00Z"}
SECOND: dict[str, Any] = {**FIRST, "id": "b", "client_order_id": "b", "replaces": "a"}


def frame(event: str, order: dict[str, Any], at: int, filled: str, average: str | None = None, **more: Any) -> Any:
    names = {"partial_fill": "partially_filled", "fill": "filled"}
    told = {**order, "filled_qty": filled, "filled_avg_price": average, "status": names.get(event, event)}
    return {"stream": "trade_updates", "data": {"event": event, "timestamp": time(at), "order": told, **more}}


def time(at: int) -> str:
    return f"2026-03-02T15:00:{at:02}Z"


def execution(name: str, qty: str, price: str) -> dict[str, str]:
    return {"execution_id": name, "qty": qty, "price": price}


def activity(order: str, name: str, at: int, qty: str, price: str, filled: str, leaves: str) -> Any:
    told = {"activity_type": "FILL", "id": name, "order_id": order, "transaction_time": time(at), "symbol": "SPY"}
    kind = "fill" if leaves == "0" else "partial_fill"
    return told | {"side": "buy", "qty": qty, "price": price, "cum_qty": filled, "leaves_qty": leaves, "type": kind}


FILLED = frame("partial_fill", FIRST, 1, "4", "100", **execution("x-1", "4", "100"))
REPLACED = frame("replaced", {**FIRST, "replaced_by": "b"}, 2, "4", "100")
NEW = frame("new", SECOND, 3, "4", "100")
LAST = frame("fill", SECOND, 4, "10", "99.4", **execution("x-2", "6", "99"))
OWN = frame("fill", {**SECOND, "qty": "6"}, 4, "6", "99", **execution("x-2", "6", "99"))
BY_REST = {**SECOND, "status": "filled", "filled_qty": "10", "filled_avg_price": "99.4", "filled_at": time(5)}
TOLD_FIRST = activity("a", "act-1", 1, "4", "100", "4", "6")
TRADES = [("a", "4", "100"), ("b", "6", "99")]


def run_import(directory: Path, *recordings: Iterable[Any]) -> None:
    for messages in recordings:
        (directory / "f").write_text("".join(json.dumps(message) + "\n" for message in messages))
        done = by_team(import_alpaca(directory / "f", directory / "data", team="alpha"))["alpha"]
        assert [] == done.problems


def read_trades(directory: Path) -> list[tuple[str, str, str]]:
    """The trades that stand, by order, quantity and price."""
    ledger = Ledger(directory / "data/team/alpha")
    assert [] == list(ledger.rows("findings"))
    rows = list(ledger.rows("trades"))
    gone = {row.get("reverses") for row in rows}
    stand = [row for row in rows if row["kind"] != "reversal" and row["trade_id"] not in gone]
    return sorted((row["order_id"], row["quantity"], row["execution_price"]) for row in stand)


@pytest.mark.parametrize(
    "messages",
    [
        [FILLED, REPLACED, NEW, LAST],
        [FILLED, REPLACED, LAST],
        [FILLED, REPLACED, NEW, [activity("b", "act-2", 4, "6", "99", "6", "0"), TOLD_FIRST], LAST],
        [FILLED, REPLACED, NEW, [activity("b", "act-2", 4, "6", "99", "10", "0"), TOLD_FIRST], LAST],
        [FILLED, REPLACED, OWN, BY_REST],
        [FILLED, REPLACED, NEW, BY_REST],
    ],
    ids=["frames", "without its new", "own activities", "activities", "REST only", "no execution of its own"],
)
def test_what_a_replacement_carries_over_is_counted_once_in_every_order(tmp_path: Path, messages: list[Any]) -> None:
    """Each channel is judged by all that it tells; where only an answer tells of its shares, they are priced."""
    for number, order in enumerate(permutations(messages)):
        if number % 5 == 0:
            directory = tmp_path / str(number)
            directory.mkdir()
            run_import(directory, order, order)
            assert TRADES == read_trades(directory)


def test_what_a_replacement_carries_over_is_known_from_the_log(tmp_path: Path) -> None:
    """Each message in a run of its own; what was left out stands beside the sum."""
    own = activity("b", "act-2", 4, "6", "99", "6", "0")
    run_import(tmp_path, [FILLED], [REPLACED], [NEW], [LAST], [own], [BY_REST], [TOLD_FIRST])
    assert TRADES == read_trades(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "data/team/alpha/events.jsonl").read_text().splitlines()]
    assert [("0", "4"), ("6", "4"), ("6", None), ("6", "4")] == [
        (line["filled_qty"], line.get("carried_qty")) for line in lines if line["order_id"] == "b"
    ]


def test_a_chain_of_replacements_counts_each_execution_once(tmp_path: Path) -> None:
    """Each one's sums begin where its predecessor's ended."""
    third = {**SECOND, "id": "c", "replaces": "b"}
    messages = [
        FILLED, REPLACED, NEW,
        frame("partial_fill", SECOND, 4, "6", "100", **execution("x-2", "2", "100")),
        frame("replaced", {**SECOND, "replaced_by": "c"}, 5, "6", "100"), frame("new", third, 6, "6", "100"),
        frame("fill", third, 7, "10", "100", **execution("x-3", "4", "100")),
    ]  # fmt: skip
    run_import(tmp_path, messages)
    assert [("a", "4", "100"), ("b", "2", "100"), ("c", "4", "100")] == read_trades(tmp_path)


@pytest.mark.parametrize("qty", ["5", "10"])
def test_a_replacement_that_counts_from_zero_is_believed(tmp_path: Path, qty: str) -> None:
    """As most brokers do: what nobody heard of is inferred, also where it is as much as was filled before."""
    replaced = frame("replaced", {**FIRST, "replaced_by": "b"}, 2, "5", "100")
    end = {**BY_REST, "qty": qty, "filled_qty": qty, "filled_avg_price": "99"}
    run_import(tmp_path, [frame("partial_fill", FIRST, 1, "5", "100", **execution("x", "5", "100")), replaced, end])
    assert [("a", "5", "100"), ("b", qty, "99")] == read_trades(tmp_path)


def test_a_replacement_that_was_rejected_has_no_trade(tmp_path: Path) -> None:
    """What it says is filled is its predecessor's, which lives on."""
    run_import(tmp_path, [FILLED, frame("rejected", SECOND, 3, "4", "100")])
    assert [("a", "4", "100")] == read_trades(tmp_path)


# What each channel is taken to count of the predecessor. One letter is an event's channel: s(tream), r(est), and the
# activities of both, S and R.

Told = tuple[str, str, str | None, dict[str, Any]]
GONE: Told = ("r", "replaced", "4", {"order_id": "a", "replaced_by": "b", "filled_avg_price": "100"})


def tell(channel: str, event: str, filled: str | None, **more: Any) -> Told:
    return channel, event, filled, more


def write_event(told: Told) -> dict[str, Any]:
    channel, event, filled, more = told
    own = {} if "replaced_by" in more else {"replaces": "a"}
    source = {"s": "stream", "r": "rest"}[channel.lower()]
    found = {"event": event, "order_id": "b", "quantity": "10", "filled_qty": filled, "source": source, **own, **more}
    return {name: value for name, value in found.items() if value is not None}


def translated(told: Told) -> Translated:
    return Translated(1, write_event(told), is_activity=told[0].isupper())


def logged(told: Told, **more: Any) -> tuple[Event, bytes]:
    raw = {"activity_type": "TRD"} if told[0] == "S" else {"event": "x"}
    fields = {"ts": time(1), "event_id": "e", "price": "100", "execution_id": "x", "raw": raw, **write_event(told)}
    event = build_event(fields)
    assert isinstance(event, Event)
    return event, json.dumps(fields | more).encode()


def read_sums(told: list[Told], *known: tuple[Event, bytes]) -> list[tuple[str, str | None, str | None]]:
    """Channel, sum and average of each event of `b`, as they are its own."""
    recording, replacements = [translated(one) for one in told], Replacements()
    for found in recording:
        replacements.note(found)
    for event, line in known:
        replacements.recall(event, line)
    for found in recording:
        replacements.weigh(found)
    events = [replacements.leave_out(found).event for found in recording]
    return [
        (one[0], event.get("filled_qty"), event.get("filled_avg_price"))
        for one, event in zip(told, events, strict=True)
        if isinstance(event, dict) and event["order_id"] == "b"
    ]


def snapshot(filled: str, status: str = "filled", **more: Any) -> Told:
    return tell("r", "snapshot", filled, order_status=status, **more)


@pytest.mark.parametrize(
    ("told", "own"),
    [
        # What was told before it had executions of its own is the predecessor's.
        ([tell("s", "new", "4"), tell("s", "fill", "10", qty="6")], ["0", "6"]),
        ([tell("s", "accepted", "4")], ["0"]),
        ([tell("s", "pending_new", "4")], ["0"]),
        ([tell("s", "rejected", "4")], ["0"]),
        ([snapshot("4", "new")], ["0"]),
        ([snapshot("4", "rejected"), snapshot("10")], ["0", "6"]),
        ([snapshot("4", "canceled")], ["4"]),
        ([tell("s", "canceled", "4", order_status="new")], ["4"]),
        ([tell("s", "new", "5")], ["5"]),
        # Either of the two tells that one replaces the other.
        ([tell("s", "new", "4", replaces=None), tell("s", "fill", "10", qty="6", replaces=None)], ["0", "6"]),
        # A sum below what was carried is its own, and so are the others of that channel.
        ([tell("s", "fill", "2", qty="2"), tell("s", "fill", "8", qty="6")], ["2", "8"]),
        ([tell("s", "fill", "6", qty="6")], ["6"]),
        ([snapshot("3", "partially_filled"), snapshot("7")], ["3", "7"]),
        # More than was ordered has to be another order's, unless it is more than that one had.
        ([snapshot("12")], ["8"]),
        ([snapshot("14")], ["10"]),
        ([snapshot("15")], ["15"]),
        ([snapshot("15"), snapshot("11")], ["11", "7"]),
        ([snapshot("10")], ["10"]),
        # An execution that began at what was carried.
        ([tell("s", "fill", "5", qty="1")], ["1"]),
        ([tell("s", "fill", "6", qty="1")], ["6"]),
        ([tell("s", "fill", "5")], ["5"]),
        # The stream and REST tell of one order; activities are counted apart, and known by the same sums.
        ([tell("s", "new", "4"), snapshot("7")], ["0", "3"]),
        ([tell("r", "new", "4"), tell("s", "fill", "7")], ["0", "3"]),
        ([tell("s", "new", "4"), tell("R", "fill", "7", qty="1")], ["0", "7"]),
        ([tell("S", "new", "4"), snapshot("7")], ["0", "7"]),
        ([tell("s", "new", "4"), tell("s", "fill", "7", qty="3"), tell("R", "fill", "7", qty="1")], ["0", "3", "3"]),
        ([tell("s", "new", "4"), tell("R", "fill", "7", qty="3")], ["0", "3"]),
        ([tell("R", "fill", "2", qty="2"), tell("R", "fill", "6", qty="4"), snapshot("6")], ["2", "6", "6"]),
        ([tell("R", "fill", "2", qty="2"), snapshot("6")], ["2", "2"]),
        ([tell("R", "fill", "2", qty="2"), snapshot("7")], ["2", "7"]),
        ([tell("R", "fill", "2", qty="2"), snapshot("4")], ["2", "4"]),
        ([tell("R", "fill", "2", qty="2"), snapshot("4"), snapshot("6")], ["2", "0", "2"]),
    ],
)
def test_each_channel_is_judged_by_all_that_it_tells(told: list[Told], own: list[str]) -> None:
    """Four shares were filled of the predecessor. What may be either is its own."""
    assert own == [filled for _, filled, _ in read_sums([GONE, *told])]
    assert own == [filled for _, filled, _ in read_sums([GONE, *reversed(told)])][::-1]


@pytest.mark.parametrize(
    ("before", "own"),
    [
        ([], "0"),
        # Nothing of it is told but that it was replaced with nothing filled: then it is the order's own.
        ([tell("s", "replaced", "0", order_id="a", replaced_by="b")], "4"),
        ([tell("s", "new", "0", order_id="a", replaces=None)], "0"),
        ([tell("s", "replaced", None, order_id="a", replaced_by="b")], "0"),
    ],
    ids=["unknown", "nothing filled", "not yet replaced", "no sum"],
)
def test_of_a_predecessor_whose_sum_is_not_told_the_first_sum_of_the_order_tells(before: list[Told], own: str) -> None:
    assert [own] == [filled for _, filled, _ in read_sums([*before, tell("s", "new", "4")])]


@pytest.mark.parametrize(
    ("told", "is_needed"),
    [
        ([tell("s", "new", "4")], True),
        ([tell("s", "new", "0")], False),
        ([tell("s", "new", None)], False),
        ([tell("s", "fill", "4", qty="4")], False),
        ([tell("s", "fill", "4", qty="1")], True),
        ([GONE], True),
        ([tell("s", "replaced", "0", order_id="a", replaced_by="b")], False),
        ([tell("s", "replaced", None, order_id="a", replaced_by="b")], False),
        ([tell("s", "fill", "4", qty="1", replaces=None)], False),
        ([GONE, tell("s", "new", "0")], True),
        ([tell("s", "new", "4"), tell("s", "new", "0")], True),
        ([], False),
    ],
)
def test_a_recording_is_read_once_more_only_where_sums_may_go_on(told: list[Told], is_needed: bool) -> None:
    replacements = Replacements()
    for one in told:
        replacements.note(translated(one))
    assert is_needed is replacements.are_filled


@pytest.mark.parametrize(
    ("known", "told", "own"),
    [
        # What was left out in the log stands beside the sum that was kept, for its channel alone.
        ([(tell("s", "new", "0"), "4")], [tell("s", "fill", "10")], ["6"]),
        ([(tell("s", "fill", "2", qty="2"), "4")], [tell("s", "fill", "10")], ["6"]),
        ([(tell("s", "fill", "2", qty="2"), "4")], [tell("S", "fill", "10", qty="3")], ["10"]),
        ([(tell("S", "fill", "2", qty="2"), "4")], [tell("S", "fill", "10", qty="3")], ["6"]),
        ([(tell("S", "fill", "2", qty="2"), "4")], [tell("s", "fill", "10", qty="3")], ["10"]),
        ([(tell("r", "fill", "2", qty="2"), "4")], [tell("R", "fill", "10", qty="3")], ["6"]),
        ([(tell("r", "fill", "2", qty="2"), "4")], [snapshot("10")], ["10"]),
        ([(snapshot("2"), "4")], [snapshot("10")], ["6"]),
        ([(snapshot("2"), "4")], [tell("R", "fill", "10", qty="3")], ["10"]),
        ([(snapshot("2"), "4"), (snapshot("10"), None)], [snapshot("10")], ["6"]),
        ([(GONE, None)], [tell("s", "new", "4")], ["0"]),
        ([(GONE, None)], [tell("s", "new", "4", replaces=None)], ["0"]),
        ([(tell("s", "new", None), "4")], [tell("s", "fill", "10")], ["10"]),
        ([(tell("s", "new", "0"), "4")], [tell("s", "fill", "10", qty="6", replaces=None)], ["6"]),
        ([(tell("s", "new", "4"), None), (GONE, None)], [tell("s", "fill", "7")], ["3"]),
        # Of an order that has nothing to do with it.
        ([(tell("s", "new", "4", order_id="z", replaces=None), None)], [tell("s", "fill", "7")], ["7"]),
    ],
)
def test_the_logs_tell_what_was_carried(known: list[tuple[Told, str | None]], told: list[Told], own: list[str]) -> None:
    lines = [logged(one, **({"carried_qty": carried} if carried else {})) for one, carried in known]
    assert own == [filled for _, filled, _ in read_sums(told, *lines)]


def test_what_was_left_out_of_a_predecessor_is_carried_on() -> None:
    """The log has two shares of `b` and the four that it carried; its own replacement begins at all six."""
    replacements, told = Replacements(), translated(tell("s", "new", "6", order_id="c", replaces="b"))
    replacements.note(told)
    replacements.recall(*logged(tell("s", "fill", "2", qty="2"), carried_qty="4"))
    replacements.weigh(told)
    event = replacements.leave_out(told).event
    assert isinstance(event, dict)
    assert ("0", "6") == (event["filled_qty"], event["carried_qty"])


def test_what_the_log_left_out_of_other_orders_is_no_reason_to_read_a_recording_again() -> None:
    for order_id, is_needed in (("b", True), ("z", False)):
        replacements = Replacements()
        replacements.note(translated(tell("s", "new", "0")))
        replacements.recall(*logged(tell("s", "new", "0", order_id=order_id, replaces=None), carried_qty="4"))
        assert is_needed is replacements.are_filled


@pytest.mark.parametrize(
    ("before", "after", "average"),
    [
        ([], snapshot("10", filled_avg_price="99.4"), "99"),
        # Its average is that of its greatest sum, whoever of several tells it.
        ([tell("s", "fill", "4", order_id="a", replaced_by="b")], snapshot("10", filled_avg_price="99.4"), "99"),
        ([tell("s", "fill", "3", order_id="a", replaced_by="b", filled_avg_price="1")],
         snapshot("10", filled_avg_price="99.4"), "99"),
        ([tell("s", "fill", "5", order_id="a", replaced_by="b")], snapshot("11", filled_avg_price="99.4"), None),
        ([], snapshot("10"), None),
        # Nothing of its own is filled, or the money is its execution's.
        ([], snapshot("4", "new", filled_avg_price="100"), None),
        ([], tell("s", "fill", "10", qty="6", filled_avg_price="99.4"), None),
    ],
)  # fmt: skip
def test_the_executions_of_an_order_are_priced_without_its_predecessor_s(
    before: list[Told], after: Told, average: str | None
) -> None:
    """Where an answer tells the average of all; else none is left, rather than a wrong one."""
    sure = tell(after[0], "new", before[0][2] if before and before[0][2] == "5" else "4")
    for first in ([GONE, *before], [*before, GONE]):
        assert average == read_sums([*first, sure, after])[-1][2]


@pytest.mark.parametrize(
    "found",
    [
        Translated(1, Problem("bad_value", "x")),
        Translated(1, NotAFill("FEE")),
        translated(tell("s", "canceled", None)),
        translated(tell("s", "new", "4", order_id="z")),
        translated(GONE),
        translated(tell("R", "fill", "2", qty="2")),
    ],
)
def test_what_carries_nothing_stays_as_it_is(found: Translated) -> None:
    """No event, none with a sum, none of a replacement, and none of a channel that counts from zero."""
    replacements = Replacements()
    told = [translated(GONE), translated(tell("s", "new", "4")), translated(tell("R", "fill", "2", qty="2"))]
    for one in told:
        replacements.note(one)
    for one in (*told, found):
        replacements.weigh(one)
    assert replacements.leave_out(found) is found
    event = replacements.leave_out(told[1]).event
    assert isinstance(event, dict)
    assert ("0", "4") == (event["filled_qty"], event["carried_qty"])
