"""A parallel run: what the old program has, and what the ledger has, differ where they differ and nowhere else."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from compactor.imports.legacy import import_legacy
from compactor.imports.parallel_run import UNREADABLE, NoOldFiles, compare_old_files
from compactor.ledger import Ledger

OLD = Path(__file__).parent.parent / "fixtures" / "legacy" / "old"
T = "2026-03-02T14:30:00Z"


def _event(event: str, **fields: Any) -> dict[str, Any]:
    return {"event": event, "order_id": "b1", "ts": T, "symbol": "AAPL", "side": "buy", "quantity": "10", **fields}


def _compare(tmp_path: Path, orders: list[Any], trades: list[Any], events: list[dict[str, Any]]) -> list[Any]:
    """Field, old and ledger of each difference, of one team's files and its log."""
    home = tmp_path / "old/team/alpha"
    home.mkdir(parents=True)
    for name, lines in (("pending_orders", orders), ("trades", trades)):
        (home / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ledger = Ledger(tmp_path / "data/team/alpha")
    ledger.append(events)
    ledger.compact()
    return [found[1:] for found in compare_old_files(tmp_path / "old", tmp_path / "data")]


ORDER = {"order_id": "o1", "broker_order_id": "b1", "symbol": "AAPL", "side": "buy", "quantity": "10", "status": "new"}
ORDER |= {"limit_price": "7.50", "created_at": T, "updated_at": T}
TRADE = {"broker_order_id": "b1", "symbol": "AAPL", "side": "buy", "quantity": "10", "execution_price": "7.4"}
TRADE |= {"timestamp": T}


def test_what_was_imported_does_not_differ(tmp_path: Path) -> None:
    """The old fixture and the ledgers made of it agree, but for its torn lines; some of its averages are rounded."""
    import_legacy(OLD, tmp_path / "data")
    file = OLD / "team/alpha/pending_orders.jsonl"
    found = list(compare_old_files(OLD, tmp_path / "data"))
    assert [(f"{file}:4", UNREADABLE), (f"{file}:11", UNREADABLE)] == [(one.order_id, one.field) for one in found]


def test_a_live_ledger_that_agrees_does_not_differ(tmp_path: Path) -> None:
    """The ledger has the broker's id and two executions, the old program its own id and one trade at the average."""
    part = {"price": "7.3", "qty": "5", "execution_id": "x1", "filled_qty": "5"}
    rest = {"price": "7.5", "qty": "5", "execution_id": "x2", "filled_qty": "10"}
    events = [_event("new", limit_price="7.5"), _event("partial_fill", **part), _event("fill", **rest)]
    assert [] == _compare(tmp_path, [ORDER], [TRADE], events)


@pytest.mark.parametrize(
    ("orders", "trades", "events", "expected"),
    [
        ([ORDER], [], [], [("b1", "status", "new", None)]),
        ([], [], [_event("new")], [("b1", "status", None, "new")]),
        ([ORDER], [], [_event("new", limit_price="8")], [("b1", "limit_price", "7.50", "8")]),
        ([ORDER], [], [_event("held", limit_price="7.5")], [("b1", "status", "new", "held")]),
        ([], [TRADE], [], [("b1", "filled_qty", "10", "0")]),
        ([], [], [_event("fill", price="7", qty="10")], [("b1", "filled_qty", "0", "10")]),
        ([ORDER], [TRADE], [_event("fill", price="7", qty="10")], [("b1", "filled_avg_price", "7.4", "7")]),
        ([{**ORDER, "status": "canceled"}], [], [_event("new", limit_price="8")], [("b1", "status", None, "new")]),
    ],
)  # fmt: skip
def test_every_difference_is_shown(
    tmp_path: Path, orders: list[Any], trades: list[Any], events: list[dict[str, Any]], expected: list[Any]
) -> None:
    """An order that one side lacks, a term, a status, a quantity, a price."""
    other = {**_event("new"), "order_id": "z", "quantity": "1"}
    same = {**ORDER, "order_id": "z", "broker_order_id": None, "quantity": "1", "limit_price": None}
    assert expected == _compare(tmp_path, [*orders, same], trades, [*events, other])


def test_fills_of_a_canceled_order_are_compared_by_its_lines(tmp_path: Path) -> None:
    """No old trade tells them; the order's last line does, with an average that the old program has rounded."""
    canceled = {**ORDER, "status": "cancelled", "filled_qty": "3", "filled_avg_price": "7.33"}
    parts = [
        _event("partial_fill", price=price, qty="1", execution_id=f"x{price}") for price in ("7.3", "7.34", "7.36")
    ]
    assert [] == _compare(tmp_path, [canceled], [], [*parts, _event("canceled")])


@pytest.mark.parametrize(
    ("told", "known", "is_same"),
    [
        ("7.34", "7.335", True),
        ("7.34", "7.33", False),
        ("7.4", "7.44", False),
        ("7.4", "7.404", True),
        ("7.3333", "7.33333", True),
        ("7.3332", "7.3333", False),
    ],
)
@pytest.mark.parametrize("has_trade", [True, False])
def test_an_average_may_be_rounded_to_its_own_places(
    tmp_path: Path, told: str, known: str, is_same: bool, has_trade: bool
) -> None:
    """At least to cents; in a trade, or in the last line of an order that was canceled."""
    canceled = {**ORDER, "status": "canceled", "filled_qty": "10", "filled_avg_price": told}
    trades = [{**TRADE, "execution_price": told}] if has_trade else []
    events = [_event("new", limit_price="7.5"), _event("fill", price=known, qty="10")]
    expected = [] if is_same else [("b1", "filled_avg_price", told, known)]
    assert expected == _compare(tmp_path, [ORDER if has_trade else canceled], trades, events)


def test_an_order_of_an_amount_of_money_is_compared(tmp_path: Path) -> None:
    """It has no quantity, and before its first fill an average of zero."""
    order = {**ORDER, "quantity": None, "notional": "50", "filled_qty": "0", "filled_avg_price": "0"}
    event = {**_event("new", limit_price="7.5"), "quantity": None, "notional": "50"}
    assert [] == _compare(tmp_path, [order], [TRADE | {"broker_order_id": "b2"}], [event, _fill("b2")])


def _fill(order_id: str) -> dict[str, Any]:
    return {**_event("fill", price="7.4", qty="10"), "order_id": order_id}


def test_an_order_is_the_same_under_the_broker_s_id_and_under_its_own(tmp_path: Path) -> None:
    """The ledger has both ids, the old program the broker's only."""
    events = [_event("new", order_id="mine", broker_order_id="b1", limit_price="7.5")]
    assert [] == _compare(tmp_path, [{**ORDER, "order_id": None}], [], events)


def test_what_left_the_old_files_is_not_what_they_say(tmp_path: Path) -> None:
    """The old program has forgotten an open order, and its trades were rotated away."""
    old, home = tmp_path / "old", tmp_path / "old/team/alpha"
    home.mkdir(parents=True)
    other = {**ORDER, "order_id": "o2", "broker_order_id": "b2"}
    (home / "pending_orders.jsonl").write_text(f"{json.dumps(ORDER)}\n{json.dumps(other)}\n")
    (home / "trades.jsonl").write_text(json.dumps(TRADE | {"broker_order_id": "b3"}) + "\n")
    import_legacy(old, tmp_path / "data")
    assert [] == list(compare_old_files(old, tmp_path / "data"))
    (home / "pending_orders.jsonl").write_text(json.dumps(ORDER) + "\n")
    (home / "trades.jsonl").write_text("")
    found = [one[1:] for one in compare_old_files(old, tmp_path / "data")]
    assert [("b2", "status", None, "new"), ("b3", "filled_qty", "0", "10")] == found
    (home / "pending_orders.jsonl").write_text("")
    assert ["b1", "b2", "b3"] == [one.order_id for one in compare_old_files(old, tmp_path / "data")]


def test_a_file_of_several_teams_is_compared_with_each(tmp_path: Path) -> None:
    """Its lines name their teams; one of a name that can be no team's is named. A directory that is a ledger is one."""
    lines = [{**ORDER, "team_id": team} for team in ("alpha", "me", "../up")]
    file = tmp_path / "pending_orders.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    ledger = Ledger(tmp_path / "data/team/alpha")
    ledger.append([_event("new", limit_price="7.5")])
    ledger.compact()
    assert [("", f"{file}:3"), ("me", "b1")] == [one[:2] for one in compare_old_files(file, tmp_path / "data")]
    own = Ledger(tmp_path / "own")
    own.append([_event("new", limit_price="7.5", team_id="me")])
    own.compact()
    assert ["", "alpha"] == [one.team_id for one in compare_old_files(file, tmp_path / "own")]


def test_nothing_is_written(tmp_path: Path) -> None:
    """A comparison changes neither side, also where a team has no ledger yet."""
    shutil.copytree(OLD, tmp_path / "old")
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    assert list(compare_old_files(tmp_path / "old", tmp_path / "data"))
    assert before == sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("torn", ["<html>", '{"order_id": "o9"}', json.dumps(ORDER | {"updated_at": "noon"})])
@pytest.mark.parametrize("name", ["pending_orders", "trades"])
def test_a_line_that_cannot_be_read_is_a_difference(tmp_path: Path, name: str, torn: str) -> None:
    """It may be an order that only the old program has: agreement cannot be told without it."""
    event = _event("new", limit_price="7.5")
    assert [] == _compare(tmp_path, [ORDER], [], [event])
    file = tmp_path / f"old/team/alpha/{name}.jsonl"
    file.write_text(file.read_text() + torn + "\n")
    [found] = compare_old_files(tmp_path / "old", tmp_path / "data")
    line = 2 if name == "pending_orders" else 1
    assert ("alpha", f"{file}:{line}", UNREADABLE, None) == (found.team_id, found.order_id, found.field, found.ledger)
    assert found.old is not None and ":" in found.old


def test_a_trade_that_contradicts_its_order_is_a_difference(tmp_path: Path) -> None:
    """An import leaves it out, so that the ledger has other shares than the old program."""
    order = ORDER | {"status": "filled", "filled_qty": "10", "filled_avg_price": "7.4"}
    events = [_event("fill", price="7.4", qty="10", execution_id="x1", filled_qty="10")]
    [(name, field, told, known)] = _compare(tmp_path, [order], [TRADE, TRADE | {"side": "sell"}], events)
    assert (f"{tmp_path}/old/team/alpha/trades.jsonl:2", "contradicts_order", None) == (name, field, known)
    assert "has the side 'sell', expected 'buy'" in told


def test_nothing_to_compare_is_no_agreement(tmp_path: Path) -> None:
    """A wrong directory: one above or below, an empty one, one whose file names no team."""
    _compare(tmp_path, [ORDER], [], [_event("new", limit_price="7.5")])
    (tmp_path / "empty/team/alpha").mkdir(parents=True)
    (tmp_path / "pending_orders.jsonl").write_text("")
    for path in (tmp_path / "old/team", tmp_path / "empty", tmp_path / "pending_orders.jsonl"):
        with pytest.raises(NoOldFiles, match=r"pending_orders\.jsonl"):
            list(compare_old_files(path, tmp_path / "data"))


def test_a_team_that_only_the_ledgers_have_is_compared(tmp_path: Path) -> None:
    """Where all teams of the old program lie below one directory, a ledger without old files differs."""
    _compare(tmp_path, [ORDER], [], [_event("new", limit_price="7.5")])
    ledger = Ledger(tmp_path / "data/team/beta")
    ledger.append([{**_event("new"), "order_id": "b2"}])
    ledger.compact()
    assert [("beta", "b2", "status", None, "new")] == list(compare_old_files(tmp_path / "old", tmp_path / "data"))
    assert [] == list(compare_old_files(tmp_path / "old/team/alpha", tmp_path / "data"))


def test_a_ledger_that_cannot_be_read_is_a_difference(tmp_path: Path) -> None:
    """One that lost its log, though its derived files are there; and a directory that can be none."""
    _compare(tmp_path, [ORDER], [], [_event("new", limit_price="7.5")])
    team = tmp_path / "data/team"
    shutil.copytree(team / "alpha", team / "_odd")
    (team / "alpha/events.jsonl").unlink()
    found = list(compare_old_files(tmp_path / "old", tmp_path / "data"))
    assert [("_odd", str(team / "_odd"), UNREADABLE), ("alpha", str(team / "alpha"), UNREADABLE)] == [
        one[:3] for one in found
    ]
    assert "whose events.jsonl is missing" in str(found[1].ledger)


@pytest.mark.parametrize(
    ("old", "known", "expected"),
    [
        ("submitted", "submitted", []),
        ("submitted", "new", [("b1", "status", "submitted", "new")]),
        ("submitted", None, [("b1", "status", "submitted", None)]),
        ("NEW", "new", []),
        ("OrderStatus.PARTIALLY_FILLED", "partially_filled", []),
        ("OrderStatus.CANCELED", None, []),
        ("CANCELED", "new", [("b1", "status", None, "new")]),
    ],
)
def test_a_status_that_nobody_has_heard_of_is_open(
    tmp_path: Path, old: str, known: str | None, expected: list[Any]
) -> None:
    """Rule 3.7 holds for both sides; capitals and printed enums are the status that they mean."""
    events = [_event("new", limit_price="7.5")]
    events += [_event("snapshot", order_status=known)] if known is not None else [_event("canceled")]
    assert expected == _compare(tmp_path, [ORDER | {"status": old}], [], events)


def test_terms_that_mean_the_same_do_not_differ(tmp_path: Path) -> None:
    """Sides, symbols and order types in another spelling."""
    order = ORDER | {"symbol": "BTCUSD", "side": "OrderSide.SELL_SHORT", "order_type": "LIMIT"}
    event = _event("new", limit_price="7.5", order_type="limit") | {"symbol": "BTC/USD", "side": "sell"}
    assert [] == _compare(tmp_path, [order], [], [event])
