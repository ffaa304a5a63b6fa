"""Recordings of a replacement whose sums go on from its predecessor's: what was filled before is never traded twice."""

import json
from collections.abc import Iterable
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from compactor.imports.captures import import_alpaca
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
