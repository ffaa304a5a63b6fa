"""Positions beside the sum of the trades, without a server: opening balances, what explains a gap, and what waits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from compactor.broker.alpaca.positions_held import MOVING_KINDS, read_adjustments, read_positions
from compactor.broker.port import Adjustment, BrokerError, Translation
from compactor.core.instants import nanos
from compactor.sync.account_trades import CountedTrades, Ghosts, TradedShares, TradeMark, TradesChanged
from compactor.sync.plan import Answers
from compactor.sync.positions import (
    ComparedAccount,
    ComparedPosition,
    LookedIntoPositions,
    PositionBook,
    list_differing,
    sum_trades,
)
from compactor.sync.unbooked import Unbooked, measure_unbooked

DAY_1, DAY_2, DAY_3 = "2026-03-02T15:00:00Z", "2026-03-03T15:00:00Z", "2026-03-04T15:00:00Z"


def lay(data: Path, *trades: tuple[str, str, str], team: str = "alpha", **more: Any) -> Path:
    """A ledger with trades: symbol, side and quantity of each."""
    ledger = data / "team" / team
    ledger.mkdir(parents=True, exist_ok=True)
    with open(ledger / "trades.jsonl", "a") as file:
        for number, (symbol, side, quantity) in enumerate(trades):
            line = {"trade_id": f"t{number}", "order_id": f"o{number}", "symbol": symbol, "side": side}
            file.write(json.dumps(line | {"quantity": quantity, "execution_price": "1"} | more) + "\n")
    return ledger


def hold(name: str = "one", account_id: str = "id-1", **held: str) -> ComparedAccount:
    return ComparedAccount(name, account_id, {symbol: Decimal(quantity) for symbol, quantity in held.items()})


class Book:
    """A book that remembers what it asked for."""

    def __init__(self, data: Path, moved: Sequence[Adjustment] | None = ()) -> None:
        self.book = PositionBook(data)
        self.paths = [data / "team/alpha"]
        self.moved = moved
        self.asked: list[str] = []

    def compare(self, account: ComparedAccount, now: str = DAY_1, **more: Any) -> list[ComparedPosition]:
        def read(since: str) -> Sequence[Adjustment] | None:
            self.asked.append(since)
            return self.moved

        options: dict[str, Any] = {"restless": (), "may_record": True, "read_adjustments": read, **more}
        return self.book.compare(account, self.paths, now, **options)


def tell(found: list[ComparedPosition]) -> dict[str, tuple[str, ...]]:
    return {one.symbol: (one.kind, one.at_broker, one.by_trades, one.opening, one.explained) for one in found}


# Opening balances.


def test_bought_is_above_zero_and_sold_below_and_a_pair_has_no_slash(data: Path) -> None:
    lay(data, ("AAPL", "buy", "0.3"), ("AAPL", "sell", "0.1"), ("BTC/USD", "buy", "1"), ("BTCUSD", "sell", "3"))
    lay(data, ("AAPL", "buy", "9"), symbol=None)
    ledger = lay(data, ("AAPL", "buy", "9"), side=None)
    assert {"AAPL": Decimal("0.2"), "BTCUSD": Decimal(-2)} == sum_trades([ledger])


def test_without_an_opening_balance_nothing_is_compared(data: Path) -> None:
    """It is recorded where that may be, and by no dry run."""
    lay(data, ("AAPL", "buy", "10"))
    book = Book(data)
    account = hold(AAPL="12")
    for may_record, is_dry in ((False, False), (True, True), (False, True)):
        assert [] == book.compare(account, may_record=may_record, is_dry=is_dry)
        assert not (data / ".compactor/positions.json").exists()
    assert [] == book.compare(account)
    assert {"AAPL": ("explained", "12", "10", "2", "0")} == tell(book.compare(account, may_record=False))
    assert [] == book.asked


def test_the_opening_balance_is_what_the_trades_do_not_tell(data: Path) -> None:
    """Of what is held and of what was traded; nothing where both agree."""
    lay(data, ("AAPL", "buy", "10"), ("GONE", "buy", "3"), ("EQUAL", "sell", "4"))
    book = Book(data)
    account = hold(AAPL="7", HELD="5", EQUAL="-4", **{"BTC/USD": "1"})
    book.compare(account)
    assert {
        "AAPL": ("explained", "7", "10", "-3", "0"), "BTCUSD": ("explained", "1", "0", "1", "0"),
        "EQUAL": ("equal", "-4", "-4", "0", "0"), "GONE": ("explained", "0", "3", "-3", "0"),
        "HELD": ("explained", "5", "0", "5", "0"),
    } == tell(book.compare(account))  # fmt: skip
    recorded = json.loads((data / ".compactor/positions.json").read_bytes())["one"]
    assert {"AAPL": "-3", "BTCUSD": "1", "GONE": "-3", "HELD": "5"} == recorded["opening"]
    assert (["id-1"], DAY_1) == (recorded["account_ids"], recorded["recorded_at"])
    assert {"opening balance", ""} == {one.detail for one in book.compare(account)}


def test_another_account_under_the_name_has_an_opening_balance_of_its_own(data: Path) -> None:
    """After a paper reset. The other accounts keep theirs."""
    lay(data, ("AAPL", "buy", "10"))
    book = Book(data)
    book.compare(hold(AAPL="10"))
    book.compare(hold("two", "id-2", AAPL="10"))
    assert [] == book.compare(hold(account_id="id-9", AAPL="1"), DAY_2)
    assert {"AAPL": ("explained", "1", "10", "-9", "0")} == tell(book.compare(hold(account_id="id-9", AAPL="1")))
    assert {"AAPL": ("equal", "10", "10", "0", "0")} == tell(book.compare(hold("two", "id-2", AAPL="10")))


def test_a_symbol_that_moved_just_then_gets_its_opening_balance_later(data: Path) -> None:
    """All others are compared meanwhile; the sentence about it names its own day."""
    lay(data, ("AAPL", "buy", "10"), ("MSFT", "buy", "1"))
    book = Book(data)
    book.compare(hold(AAPL="11", MSFT="2"), restless={"MSFT"})
    assert {"AAPL"} == tell(book.compare(hold(AAPL="11", MSFT="9"), may_record=False)).keys()
    assert {"AAPL"} == tell(book.compare(hold(AAPL="11", MSFT="9"), DAY_2, restless={"MSFT"})).keys()
    assert {"AAPL"} == tell(book.compare(hold(AAPL="11", MSFT="9"), DAY_2, is_dry=True)).keys()
    found = tell(book.compare(hold(AAPL="11", MSFT="3"), DAY_2))
    assert ("explained", "3", "1", "2", "0") == found["MSFT"]
    [differs] = [one for one in book.compare(hold(AAPL="11", MSFT="4"), DAY_3) if one.kind == "differs"]
    assert "an opening balance of 2 on 2026-03-03" in differs.detail
    assert set() == book.book.find_unsettled(DAY_3)


def test_shares_that_are_known_to_be_missing_are_in_no_opening_balance(data: Path) -> None:
    """Nor is one recorded of the symbol of an order that was not answered for."""
    lay(data, ("AAPL", "buy", "10"), ("MSFT", "buy", "1"))
    book = Book(data)
    lacks = Unbooked({"AAPL": Decimal(2)}, frozenset({"MSFT"}))
    book.compare(hold(AAPL="13", MSFT="2"), measure_unbooked=lambda: lacks)
    [found] = book.compare(hold(AAPL="13", MSFT="2"), may_record=False)
    assert ("AAPL", "differs", "1") == (found.symbol, found.kind, found.opening)
    found_again = book.compare(hold(AAPL="13", MSFT="2"), measure_unbooked=lambda: lacks)
    assert ["AAPL"] == [one.symbol for one in found_again]
    unclear = Unbooked(is_complete=False)
    assert ["AAPL"] == [one.symbol for one in book.compare(hold(AAPL="13", MSFT="2"), measure_unbooked=lambda: unclear)]
    settled = tell(
        book.compare(hold(AAPL="13", MSFT="2"), DAY_2, measure_unbooked=lambda: Unbooked({"MSFT": Decimal(-1)}))
    )
    assert ("differs", "2", "1", "2", "0") == settled["MSFT"]


def test_a_symbol_without_an_opening_balance_is_tried_once_an_hour(data: Path) -> None:
    lay(data, ("AAPL", "buy", "10"))
    book = Book(data)
    assert set() == book.book.find_unsettled(DAY_1)
    book.compare(hold(AAPL="10"), restless={"AAPL"})
    book.compare(hold("two", "id-2", AAPL="10"))
    assert [set(), {"one"}] == [book.book.find_unsettled(f"2026-03-02T{at}Z") for at in ("15:59:59.999", "16:00:00")]
    book.compare(hold(AAPL="10"), "2026-03-02T16:00:00Z", restless={"AAPL"})
    assert [set(), {"one"}] == [book.book.find_unsettled(f"2026-03-02T{at}Z") for at in ("16:59:59", "17:00:00")]


def test_all_accounts_are_settled_when_the_last_of_them_is(data: Path) -> None:
    lay(data, ("AAPL", "buy", "10"))
    book = Book(data)
    ids = {"one": "id-1", "two": "id-2"}
    assert book.book.find_settled(ids, ["one"]) is None
    book.compare(hold(AAPL="10"), DAY_2)
    assert book.book.find_settled(ids, ["one", "two"]) is None
    book.compare(hold("two", "id-2", AAPL="10"), DAY_1)
    assert DAY_2 == book.book.find_settled(ids, ["one", "two"])
    assert DAY_1 == book.book.find_settled(ids, ["two"])
    assert book.book.find_settled({**ids, "one": "id-9"}, ["one", "two"]) is None
    assert book.book.find_settled({"two": "id-2"}, ["one", "two"]) is None


@pytest.mark.parametrize("end", ["forget", "damage", "remove"])
def test_opening_balances_that_are_gone_are_recorded_anew(data: Path, end: str) -> None:
    lay(data, ("AAPL", "buy", "10"))
    book, file = Book(data), data / ".compactor/positions.json"
    book.book.forget()
    assert not file.exists(), "there is nothing to forget"
    book.compare(hold(AAPL="10"))
    if end == "damage":
        file.write_text("{")
    else:
        (book.book.forget if end == "forget" else file.unlink)()
    assert [] == book.compare(hold(AAPL="12"), may_record=False)
    assert [] == book.compare(hold(AAPL="12"))
    assert {"AAPL": ("explained", "12", "10", "2", "0")} == tell(book.compare(hold(AAPL="12")))


# What moved without a trade.


def test_what_moved_shares_since_explains_a_gap(data: Path) -> None:
    """If it is the whole gap, and not from before the opening balance; and it stays explained."""
    lay(data, ("AAPL", "buy", "10"))
    book = Book(data)
    book.compare(hold(AAPL="11"), DAY_2)
    book.moved = [
        Adjustment("SPLIT", "AAPL", Decimal(7), DAY_1), Adjustment("OPEXC", "AAPL", Decimal(3), DAY_2),
        Adjustment("CFEE", "AAPL", Decimal(-1), DAY_3), Adjustment("SPLIT", "MSFT", Decimal(1), DAY_3),
    ]  # fmt: skip
    [found] = book.compare(hold(AAPL="13"), DAY_3)
    assert {"AAPL": ("explained", "13", "10", "1", "2")} == tell([found])
    assert "opening balance, CFEE, OPEXC" == found.detail
    assert [DAY_2] == book.asked
    book.moved = None
    assert [("explained", "CFEE")] == [(one.kind, one.detail[17:21]) for one in book.compare(hold(AAPL="13"), DAY_3)]
    assert [DAY_2] == book.asked, "where nothing differs, nobody is asked"


def test_what_is_explained_by_a_dry_run_is_not_remembered(data: Path) -> None:
    lay(data, ("AAPL", "buy", "10"))
    book = Book(data, [Adjustment("SPLIT", "AAPL", Decimal(10), DAY_3)])
    book.compare(hold(AAPL="10"), DAY_2)
    recorded = (data / ".compactor/positions.json").read_bytes()
    assert ["explained"] == [one.kind for one in book.compare(hold(AAPL="20"), DAY_3, is_dry=True)]
    assert recorded == (data / ".compactor/positions.json").read_bytes()


def test_what_explains_a_gap_in_part_is_told_beside_it(data: Path) -> None:
    lay(data, ("AAPL", "buy", "10"), ("MSFT", "buy", "1"))
    book = Book(data, [Adjustment("SPLIT", "AAPL", Decimal(3), DAY_3), Adjustment("CFEE", "AAPL", Decimal(1), DAY_3)])
    book.compare(hold(AAPL="10", MSFT="1"), DAY_2)
    aapl, msft = book.compare(hold(AAPL="15", MSFT="2"), DAY_3)
    assert ("differs", "15", "10", "0", "0") == tell([aapl])["AAPL"]
    assert (
        "account one, AAPL: found 15 at the broker, expected 10: trades of 10, an opening balance of 0 on 2026-03-03, "
        "and 0 explained; since then CFEE, SPLIT moved shares as well. An execution may be missing"
    ) in aapl.detail
    assert "and 0 explained. An execution" in msft.detail


def test_movements_that_cancel_out_explain_nothing(data: Path) -> None:
    """Their sum is nothing, and so no gap."""
    lay(data, ("AAPL", "buy", "10"))
    book = Book(data, [Adjustment("SPLIT", "AAPL", Decimal(one), DAY_3) for one in (3, -3)])
    book.compare(hold(AAPL="10"), DAY_2)
    assert ["differs"] == [one.kind for one in book.compare(hold(AAPL="11"), DAY_3)]


def test_while_nobody_can_say_what_moved_nothing_is_compared(data: Path) -> None:
    lay(data, ("AAPL", "buy", "10"))
    book = Book(data, None)
    book.compare(hold(AAPL="10"))
    assert [] == book.compare(hold(AAPL="11"))
    assert ["equal"] == [one.kind for one in book.compare(hold(AAPL="10"))]


def test_a_symbol_that_moves_is_left_out(data: Path) -> None:
    lay(data, ("AAPL", "buy", "10"), ("MSFT", "buy", "1"))
    book = Book(data)
    book.compare(hold(AAPL="10", MSFT="1"))
    assert ["MSFT"] == [one.symbol for one in book.compare(hold(AAPL="99", MSFT="1"), restless={"AAPL"})]


def test_what_differs_is_a_difference_of_its_account(data: Path) -> None:
    lay(data, ("AAPL", "buy", "10"), ("MSFT", "buy", "1"))
    book = Book(data)
    book.compare(hold(AAPL="10", MSFT="1"))
    positions = book.compare(hold(AAPL="11", MSFT="1"))
    [difference] = list_differing(positions)
    assert ("position_differs", "one", None) == (difference.kind, difference.account, difference.order_id)
    assert difference.detail.startswith("account one, AAPL: found 11 at the broker, expected 10")


def test_a_difference_is_looked_into_once_while_it_stays() -> None:
    """Another one of the symbol after an hour at the earliest; those of other symbols and accounts at once."""

    def differ(at_broker: str, account: str = "one", symbol: str = "AAPL", kind: Any = "differs") -> ComparedPosition:
        return ComparedPosition(account, symbol, kind, at_broker, "10", "2", "1")

    looked = LookedIntoPositions()
    assert {"one"} == looked.find_new([differ("14"), differ("13", "two", kind="equal")], 1000.0)
    assert {"one"} == looked.find_new([differ("14")], 1000.0), "nobody has looked yet"
    looked.note([differ("14")], 1000.0)
    assert set() == looked.find_new([differ("14")], 99_999.0)
    assert {"one", "two"} == looked.find_new([differ("14", "two"), differ("14", symbol="MSFT")], 1000.0)
    assert [set(), {"one"}] == [looked.find_new([differ("15")], at) for at in (4599.9, 4600.0)]
    assert set() == looked.find_new([], 99_999.0)


# Trades of several accounts.


def test_trades_are_counted_once_for_the_account_that_has_the_order(data: Path) -> None:
    ledger = lay(data, ("AAPL", "buy", "10"), ("MSFT", "sell", "2"), ("SPY", "buy", "1"))
    counted = CountedTrades()
    counted.count([ledger], "one", lambda orders: {"o0": "one", "o1": "two"}, Ghosts())
    assert {"AAPL": Decimal(10)} == counted.read_sums()
    assert {"SPY"} == counted.waiting_symbols
    assert {"alpha": TradeMark(3, "t2")} == counted.marks
    asked: list[list[str]] = []

    def find(orders: Any) -> dict[str, str]:
        asked.append(sorted(orders))
        return {"o2": "one"}

    counted.count([ledger], "one", find, Ghosts())
    assert ({"AAPL": Decimal(10), "SPY": Decimal(1)}, set()) == (counted.read_sums(), counted.waiting_symbols)
    counted.count([ledger], "one", find, Ghosts())
    assert [["o2"]] == asked, "where nothing is new, nobody is asked"
    lay(data, ("AAPL", "buy", "9"), symbol=None)
    lay(data, ("AAPL", "buy", "9"), side=None)
    counted.count([ledger], "one", find, Ghosts())
    assert [["o2"]] == asked, "what has no symbol or no side moved nothing"


def test_trades_of_an_empty_ledger_are_counted_from_the_first_on(data: Path) -> None:
    ledger = lay(data)
    counted = CountedTrades()
    for _ in range(2):
        counted.count([ledger], "one", lambda orders: dict.fromkeys(orders, "one"), Ghosts())
        assert {"alpha": TradeMark(0, "")} == counted.marks
    lay(data, ("AAPL", "buy", "10"))
    counted.count([ledger], "one", lambda orders: dict.fromkeys(orders, "one"), Ghosts())
    assert {"AAPL": Decimal(10)} == counted.read_sums()


@pytest.mark.parametrize(
    ("ghosts", "is_counted", "is_waiting"),
    [
        (Ghosts(False, DAY_1), False, False),
        (Ghosts(False, None), False, False),
        (Ghosts(True, None), False, True),
        (Ghosts(True, DAY_1), True, False),
        (Ghosts(True, DAY_2), True, False),
        (Ghosts(True, DAY_3), False, False),
    ],
)
def test_trades_of_an_order_that_no_account_has_are_the_first_account_s(
    data: Path, ghosts: Ghosts, is_counted: bool, is_waiting: bool
) -> None:
    """They are too much, unless they are older than every opening balance; until all have one, they wait."""
    ledger = lay(data, ("AAPL", "buy", "10"), timestamp=DAY_2)
    counted = CountedTrades()
    counted.count([ledger], "one", lambda orders: dict.fromkeys(orders, ""), ghosts)
    assert (is_counted, is_waiting) == (bool(counted.read_sums()), bool(counted.waiting_symbols))
    assert is_counted == ghosts.are_counted(TradedShares(timestamp=DAY_2))
    hers = CountedTrades()
    hers.count([ledger], "one", lambda orders: dict.fromkeys(orders, "two"), ghosts)
    assert ({}, set()) == (hers.read_sums(), hers.waiting_symbols), "another account's are nobody's ghosts"
    assert (ghosts.is_first and ghosts.since is not None) == ghosts.are_counted(TradedShares())


def test_trades_that_are_not_those_that_were_counted_are_named(data: Path) -> None:
    """A line less, another line in its place, or a ledger that is gone."""
    ledger = lay(data, ("AAPL", "buy", "10"), ("MSFT", "sell", "2"))
    counted = CountedTrades()
    counted.count([ledger], "one", lambda orders: {}, Ghosts())
    with pytest.raises(TradesChanged, match="trades of alpha: the ledger is gone"):
        counted.count([], "one", lambda orders: {}, Ghosts())
    file = ledger / "trades.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text(lines[0])
    with pytest.raises(TradesChanged, match="trades of alpha: found 1 lines, expected at least 2"):
        counted.count([ledger], "one", lambda orders: {}, Ghosts())
    file.write_text(lines[0] + lines[0])
    with pytest.raises(TradesChanged, match="trades of alpha: line 2 is trade t0, expected t1"):
        counted.count([ledger], "one", lambda orders: {}, Ghosts())
    file.write_text("".join(lines) + lines[1].replace("t1", "t9"))
    counted.count([ledger], "one", lambda orders: {}, Ghosts())
    assert {"alpha": TradeMark(3, "t9")} == counted.marks


# What is filled and not booked.


def snapshot(order_id: str, filled: str | None, **more: Any) -> dict[str, Any]:
    told = {"event": "snapshot", "order_id": order_id, "ts": DAY_1, "symbol": "AAPL", "side": "buy", **more}
    told |= {"event_id": f"{order_id}-1", "source": "rest"}
    return told | ({"filled_qty": filled} if filled is not None else {})


def measure(ledger: Path, *orders: dict[str, Any], only: Any = None, unasked: Any = (), fills: Any = ()) -> Unbooked:
    answers = Answers()
    answers.take(Translation(list(orders), []), Translation(list(fills), []))
    return measure_unbooked(answers, answers.orders.keys() if only is None else only, unasked, [ledger])


def test_what_the_trades_have_less_than_the_broker_is_not_booked(data: Path) -> None:
    """By symbol: sold the other way round; what has no sum, no symbol or no side says nothing."""
    ledger = lay(data, ("AAPL", "buy", "10"), ("BTC/USD", "sell", "2"))
    assert Unbooked() == measure(ledger, snapshot("o0", "10"), snapshot("o1", "2", symbol="BTC/USD", side="sell"))
    found = measure(ledger, snapshot("o0", "13"), snapshot("o1", "3", symbol="BTC/USD", side="sell"))
    assert {"AAPL": Decimal(3), "BTCUSD": Decimal(-1)} == found.shares
    assert {"AAPL": Decimal(-1)} == measure(ledger, snapshot("o0", "9")).shares
    nothing = [snapshot("a", None), snapshot("b", "1", symbol=None), snapshot("c", "1", side=None)]
    assert Unbooked() == measure(ledger, *nothing)
    assert Unbooked() == measure(ledger, snapshot("o0", "13"), only={"o1"})
    assert {} == measure(ledger, snapshot("o0", "11"), snapshot("x", "1", side="sell")).shares


def test_what_a_replacement_counts_of_its_predecessor_is_not_missing(data: Path) -> None:
    """As the broker says of that order, else as the trades do; another number is missing whole."""
    ledger = lay(data, ("AAPL", "buy", "3"))
    for first in ([snapshot("o0", "3")], [snapshot("o0", None)], []):
        assert {} == measure(ledger, *first, snapshot("b", "3", replaces="o0")).shares
        assert {"AAPL": Decimal(4)} == measure(ledger, *first, snapshot("b", "4", replaces="o0")).shares
    assert {"AAPL": Decimal(3)} == measure(ledger, snapshot("b", "3", replaces="none")).shares
    assert {"AAPL": Decimal(3)} == measure(ledger, snapshot("b", "3")).shares


def test_symbols_of_orders_that_nobody_could_be_asked_about_are_unknown(data: Path) -> None:
    """As the trades or the executions tell them; where neither does, nobody can say which they are."""
    ledger = lay(data, ("BTC/USD", "buy", "3"))
    fill = {
        "event": "fill", "order_id": "x", "ts": DAY_1, "symbol": "MSFT", "side": "buy", "qty": "1", "price": "1",
        "event_id": "f", "execution_id": "e", "source": "rest",
    }  # fmt: skip
    found = measure(ledger, unasked={"o0", "x"}, fills=[fill])
    assert (frozenset({"BTCUSD", "MSFT"}), True) == (found.unknown, found.is_complete)
    nameless = {name: value for name, value in fill.items() if name != "symbol"} | {"order_id": "y"}
    found = measure(ledger, unasked={"o0", "y"}, fills=[nameless])
    assert (frozenset({"BTCUSD"}), False) == (found.unknown, found.is_complete)


# The broker's words.


@pytest.mark.parametrize(
    ("quantity", "side", "held"),
    [("5", "long", 5), ("-5", "short", -5), ("5", "short", -5), ("-5", None, -5), ("", "long", 0), (5, "long", 5)],
)
def test_a_short_position_is_below_zero(quantity: Any, side: str | None, held: int) -> None:
    """Whether its quantity says so, or only its side."""
    assert {"A": Decimal(held)} == read_positions([{"symbol": "A", "qty": quantity, "side": side}])


@pytest.mark.parametrize(
    "odd", [{"qty": "1"}, {"symbol": "A"}, {"symbol": "A", "qty": "many"}, {"symbol": "A", "qty": None}]
)
def test_a_position_that_cannot_be_read_makes_all_unknown(odd: dict[str, Any]) -> None:
    with pytest.raises(BrokerError, match="expected a position with symbol and qty"):
        read_positions([{"symbol": "B", "qty": "1"}, odd])


def test_an_adjustment_of_a_day_is_of_its_end() -> None:
    """Most have no time; odd ones hide none behind them."""
    told = {"activity_type": "SPLIT", "symbol": "A", "qty": "-2.5", "date": "2026-03-02"}
    odd = [
        {**told, "qty": "x"},
        {**told, "date": "soon"},
        {"activity_type": "SPLIT", "qty": "1", "date": "2026-03-02"},
        {},
    ]
    found = read_adjustments([*odd, told, {**told, "transaction_time": DAY_2}])
    assert [("SPLIT", "A", Decimal("-2.5"))] * 2 == [(one.kind, one.symbol, one.quantity) for one in found]
    assert [nanos("2026-03-02T23:59:59.999Z"), nanos(DAY_2)] == [nanos(one.at) for one in found]
    assert "DIV" not in MOVING_KINDS
