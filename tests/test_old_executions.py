"""Executions that the stream tells, and trades of old files about the same orders: the same shares stand once."""

import json
import tempfile
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compactor.imports.captures import import_alpaca
from compactor.imports.legacy import import_legacy
from compactor.ledger import Ledger
from tests.imported import by_team, read_files, sum_positions

T = "2026-02-02T14:30:00Z"
PARTS = (("4", "181.40"), ("6", "181.48"))
Executions = Sequence[tuple[str, str]]


def _time(minute: int) -> str:
    return f"2026-02-02T14:{30 + minute}:00Z"


def _write_old(tmp_path: Path, trades: Executions, *, has_lines: bool = True, status: str = "filled") -> Path:
    """The old files of one order of ten shares: its lines, and a trade for each quantity and price."""
    home = tmp_path / "old/team/alpha"
    home.mkdir(parents=True, exist_ok=True)
    order = {"order_id": "a-1", "broker_order_id": "b-1", "symbol": "AAPL", "side": "buy", "quantity": "10"}
    order |= {"status": "new", "filled_qty": "0", "created_at": T, "updated_at": T}
    filled = str(sum(Decimal(qty) for qty, _ in trades))
    last = order | {"status": status, "filled_qty": filled, "filled_avg_price": "181.45", "updated_at": _time(9)}
    told = [
        {"broker_order_id": "b-1", "symbol": "AAPL", "side": "buy", "quantity": qty, "execution_price": price}
        | {"timestamp": _time(number)}
        for number, (qty, price) in enumerate(trades, 1)
    ]
    for name, lines in (("pending_orders", [order, last] if has_lines else []), ("trades", told[::-1])):
        (home / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    return tmp_path / "old"


def _write_stream(tmp_path: Path, executions: Executions, *, end: str | None = None) -> Path:
    order = {"id": "b-1", "client_order_id": "c-1", "symbol": "AAPL", "side": "buy", "qty": "10", "type": "limit"}
    order |= {"status": "new", "filled_qty": "0", "time_in_force": "day", "created_at": T}
    messages: list[dict[str, Any]] = [{"event": "new", "timestamp": T, "order": order}]
    filled, value = Decimal(0), Decimal(0)
    for number, (qty, price) in enumerate(executions, 1):
        filled, value = filled + Decimal(qty), value + Decimal(qty) * Decimal(price)
        is_whole = filled == 10
        status = "filled" if is_whole else "partially_filled"
        now = order | {"status": status, "filled_qty": str(filled), "filled_avg_price": str(value / filled)}
        fill = {"execution_id": f"x-{number}", "qty": qty, "price": price, "timestamp": _time(number)}
        messages.append({"event": "fill" if is_whole else "partial_fill", "order": now, **fill})
    if end is not None:
        messages.append({"event": end, "timestamp": _time(8), "order": messages[-1]["order"] | {"status": end}})
    lines = (json.dumps({"stream": "trade_updates", "data": data}) + "\n" for data in messages)
    (tmp_path / "captured.jsonl").write_text("".join(lines))
    return tmp_path / "captured.jsonl"


def _list_standing(data: Path) -> list[tuple[str, str]]:
    """The quantities and prices that no reversal takes back, in the order of the trades."""
    rows = list(Ledger(data / "team/alpha").rows("trades"))
    gone = {row["reverses"] for row in rows if row["kind"] == "reversal"}
    standing = [row for row in rows if row["kind"] != "reversal" and row["trade_id"] not in gone]
    return [(row["quantity"], row["execution_price"]) for row in standing]


def _list_findings(data: Path) -> list[str]:
    return [row["kind"] for row in Ledger(data / "team/alpha").rows("findings")]


def _import_both(tmp_path: Path, old: Path, stream: Path, old_first: bool) -> Path:
    data = tmp_path / "data"
    for turn in (old_first, not old_first, old_first):
        if turn:
            by_team(import_legacy(old, data))
        else:
            by_team(import_alpaca(stream, data, team="alpha"))
    before = read_files(data)
    by_team(import_legacy(old, data))
    assert before == read_files(data)
    return data


@pytest.mark.parametrize("old_first", [True, False])
@pytest.mark.parametrize("has_lines", [True, False])
@pytest.mark.parametrize(
    ("trades", "executions"),
    [
        ([("10", "181.448")], PARTS),
        ([("10", "181.45")], PARTS),
        ([("10", "181.45")], [("10", "181.4512")]),
        ([("10", "181.4512")], [("10", "181.4512")]),
        (PARTS, PARTS),
        ([("4", "181.4"), ("6", "181.5")], PARTS),
        (PARTS, [("10", "181.448")]),
        ([("4", "181.40"), ("6", "181.48")], [("3", "181.40"), ("1", "181.40"), ("6", "181.48")]),
    ],
)
def test_executions_take_the_place_of_old_trades(
    tmp_path: Path, trades: Executions, executions: Executions, has_lines: bool, old_first: bool
) -> None:
    """An old trade may be the total of its order, or rounded: whichever comes first, the executions stand, once."""
    old, stream = _write_old(tmp_path, trades, has_lines=has_lines), _write_stream(tmp_path, executions)
    data = _import_both(tmp_path, old, stream, old_first)
    assert {"AAPL": Decimal(10)} == sum_positions(data / "team/alpha")
    told = [(qty, price) for qty, price in executions]
    assert told == _list_standing(data)
    assert [] == _list_findings(data)
    assert [] == list(Ledger(data / "team/alpha").rows("pending_orders"))


@pytest.mark.parametrize("old_first", [True, False])
def test_a_part_that_the_stream_told_before_it_was_cut_off_is_not_counted_again(
    tmp_path: Path, old_first: bool
) -> None:
    """The stream has the first four shares only: the old trade tells the other six."""
    old, stream = _write_old(tmp_path, [("10", "181.448")]), _write_stream(tmp_path, PARTS[:1])
    data = _import_both(tmp_path, old, stream, old_first)
    assert {"AAPL": Decimal(10)} == sum_positions(data / "team/alpha")
    assert PARTS[0] in _list_standing(data)
    assert [] == _list_findings(data)


@pytest.mark.parametrize("old_first", [True, False])
def test_a_part_before_a_cancel_stands_once(tmp_path: Path, old_first: bool) -> None:
    """Four shares, and then the order was canceled; both sources tell of it."""
    old = _write_old(tmp_path, [("4", "181.4")], status="canceled")
    stream = _write_stream(tmp_path, PARTS[:1], end="canceled")
    data = _import_both(tmp_path, old, stream, old_first)
    assert [("4", "181.40")] == _list_standing(data)
    assert [] == _list_findings(data)


def test_an_order_that_still_works_gets_its_further_executions(tmp_path: Path) -> None:
    """A parallel run: the old file knows the first part, the stream goes on."""
    data = tmp_path / "data"
    by_team(import_legacy(_write_old(tmp_path, PARTS[:1], status="partially_filled"), data))
    assert 1 == len(list(Ledger(data / "team/alpha").rows("pending_orders")))
    by_team(import_alpaca(_write_stream(tmp_path, PARTS), data, team="alpha"))
    by_team(import_legacy(_write_old(tmp_path, PARTS), data))
    assert list(PARTS) == _list_standing(data)
    assert [] == _list_findings(data)


def test_old_executions_that_nobody_else_tells_keep_their_quantities_and_prices(tmp_path: Path) -> None:
    """Three parts at prices of their own, whose average has no end: each stands as it was, in the order of its time."""
    trades = [("1", "181.4012"), ("2", "181.5"), ("4", "181.123456789")]
    data = tmp_path / "data"
    by_team(import_legacy(_write_old(tmp_path, trades, status="canceled"), data))
    assert trades == _list_standing(data)
    assert [] == _list_findings(data)
    by_team(import_legacy(_write_old(tmp_path, [*trades, ("3", "181.6")]), data))
    assert [*trades, ("3", "181.6")] == _list_standing(data)


PRICES = st.sampled_from(["181.4", "181.44", "181.5"])
SPLITS = st.sets(st.integers(1, 9), max_size=3).map(sorted)


def _split(cuts: list[int]) -> list[str]:
    return [str(end - begin) for begin, end in zip([0, *cuts], [*cuts, 10], strict=True)]


@settings(max_examples=40, deadline=None)
@given(SPLITS, SPLITS, st.lists(PRICES, min_size=8, max_size=8), st.booleans(), st.booleans())
def test_whatever_both_tell_of_ten_shares_is_ten_shares(
    parts: list[int], trades: list[int], prices: list[str], has_lines: bool, old_first: bool
) -> None:
    """However the stream and the old program cut an order, and whichever comes first, the executions stand, once."""
    executions = list(zip(_split(parts), prices, strict=False))
    told = list(zip(_split(trades), prices[::-1], strict=False))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        old, stream = _write_old(path, told, has_lines=has_lines), _write_stream(path, executions)
        data = _import_both(path, old, stream, old_first)
        assert executions == _list_standing(data)
        assert [] == _list_findings(data)
