"""Fills become trades, exactly once: sections 4.2 to 4.9 of the format as a table of short lives of one order."""

from typing import Any

import pytest

from tests.short_lives import Told, bust, leg_filled, live, outcome, part, placed, told, whole

NEW, OPEN = "new", {"order_status": "new", "quantity": "50"}


def total(minute: int, filled_qty: str, price: str = "5", **fields: Any) -> Told:
    """A part is filled, told by its price and by how much is filled in all (4.4)."""
    return told("partial_fill", minute, price=price, filled_qty=filled_qty, **fields)


AHEAD = {"order_status": "filled", "quantity": "5", "filled_qty": "5"}
"""What a part tells whose order is filled already."""

TWO = {"filled_qty": "2"}
TO, BACK = told("assigned", 9, to_team="bravo"), told("assigned", 9, from_team="bravo")

LIVES: dict[str, tuple[list[Told], str, str, str]] = {
    # Which fills are late (3.4).
    "an execution takes the place of an inferred trade after the end": (
        [placed(), told("canceled", 2, filled_qty="2", filled_avg_price="5"), part(3, 2, filled_qty="2")],
        "~2@5 -2@5 2@5", "", "canceled"),
    "one that is larger is late": (
        [placed(), told("canceled", 2, filled_qty="2", filled_avg_price="5"), part(3, 3, filled_qty="2")],
        "~2@5 -2@5 3@5", "late_fill", "canceled"),
    "a total after the end is late": ([placed(), told("canceled", 1), total(2, "2")], "~2@5", "late_fill", "canceled"),
    "an open status does not undo an end that is no guess": (
        [placed(), told("canceled", 1), part(2, 1, **OPEN)], "1@5", "late_fill", "canceled"),
    "nor does it alone undo a guess": (
        [placed(), part(1, 5), part(2, 1, NEW)], "5@5 1@5", "late_fill overfill", "filled"),
    "nor a quantity that is filled as well": (
        [placed(), part(1, 5), part(2, 4, NEW, quantity="6")], "5@5 4@5", "late_fill overfill", "filled"),
    "a quantity that such a fill reaches explains it": (
        [placed(), part(1, 5), part(2, 1, NEW, quantity="6")], "5@5 1@5", "", "filled"),
    "where nothing was told a fill after the end is late": (
        [placed(None), whole(1, 2), part(2, 1)], "2@5 1@5", "late_fill", "filled"),
    "more than the end told is late": (
        [placed(None), whole(1, 2, filled_qty="2"), part(1, 1, execution_id="y")], "2@5 1@5", "late_fill", "filled"),
    "one of before the end that is merely told later is not": (
        [placed(None), told("canceled", 3), part(2, 2)], "2@5", "", "canceled"),
    "at the time of the end a fill is explained by the quantity": (
        [placed(), whole(2, 3, filled_qty="3"), part(2, 2, execution_id="y")], "3@5 2@5", "", "filled"),
    "and is late where nothing explains it": (
        [placed(), told("canceled", 2), part(2, 2)], "2@5", "late_fill", "canceled"),
    "whatever was told, more than was ordered is late": (
        [placed(), told("canceled", 3, filled_qty="9"), part(1, 7)], "7@5", "fill_gap late_fill overfill", "canceled"),
    "a fill of after the end that the end has counted is not late": (
        [placed(), told("canceled", 1, **TWO), part(3, 2)], "2@5", "fill_gap", "canceled"),
    "nor is one that the quantity explains, where the end told less": (
        [placed(), total(3, "2"), part(4, 1, quantity="10"), told("snapshot", 5, "filled"), part(6, 1)],
        "~2@5 1@5 1@5", "", "filled"),
    "whoever told the end": (
        [placed(10), told("snapshot", 2, "filled", filled_qty="1"), part(5, 4)], "4@5", "fill_gap", "filled"),
    "nor is one at the time of the end that a later answer counts": (
        [placed(), told("expired", 1), told("snapshot", 5, filled_qty="4"), part(1, 3)], "3@5", "fill_gap", "expired"),
    "the shares of busts that wait count for nothing": (
        [placed(None), bust(5, "z", qty="4"), told("snapshot", 5, "filled", filled_qty="4"), part(2, 4)],
        "4@5", "fill_gap", "filled"),
    "but a fill of after the end is late, be it busted or not": (
        [placed(), told("canceled", 1, filled_qty="1"), bust(5, "y", qty="4"), part(3, 4)],
        "4@5", "fill_gap late_fill", "canceled"),
    "of two quantities that explain a fill after a guess the event's own counts": (
        [placed(), part(1, 5), told("snapshot", 4, quantity="5"), part(2, 1, NEW, quantity="6")],
        "5@5 1@5", "overfill", "filled"),
    "not if it is smaller": (
        [placed(), part(1, 5), told("snapshot", 4, quantity="5"), part(2, 1, NEW, quantity="5")],
        "5@5 1@5", "late_fill overfill", "filled"),
    "nor if the order is not open": (
        [placed(), part(1, 5), told("snapshot", 4, quantity="5"), part(2, 1, quantity="6")],
        "5@5 1@5", "late_fill overfill", "filled"),
    # Totals (4.4).
    "a total tells the difference": ([placed(), part(1, 2), total(2, "3", "6")], "2@5 ~1@6", "", "partially_filled"),
    "a total of one share is a trade": ([placed(), total(1, "1")], "~1@5", "", "partially_filled"),
    "so is one with an id that nobody knows": (
        [placed(), part(1, 2), total(2, "3", execution_id="y")], "2@5 ~1@5", "", "partially_filled"),
    "a total with a known id is that fill": (
        [placed(), part(1, 2), total(2, "3", execution_id="x-1")], "2@5", "", "partially_filled"),
    "a total that is known brings no status back": (
        [placed(), part(1, 2), told("accepted", 2), total(3, "2")], "2@5", "", "accepted"),
    "a total that is new does": (
        [placed(), part(1, 2), told("accepted", 2), total(3, "4")], "2@5 ~2@5", "", "partially_filled"),
    "a total from before a bust is not taken": (
        [placed(), part(1, 2), bust(3), total(2, "2")], "2@5 -2@5", "", "partially_filled"),
    "a total of a multi-leg order is its legs'": (
        [told("new", 0, order_class="mleg"), told("accepted", 1), total(2, "2")], "", "", "accepted"),
    # Which fills are known (4.3, 4.4).
    "what a bust took back is told again by an older event": (
        [placed(), part(1, 2, filled_qty="2"), bust(3), part(1, 2, filled_qty="2", execution_id=None, source="rest")],
        "2@5 -2@5", "", "partially_filled"),
    "what stands is known by an older event too": (
        [placed(), part(1, 1, filled_qty="1"), part(2, 1, filled_qty="2"), bust(4, "x-2"),
         part(1, 1, filled_qty="1", execution_id=None)], "1@5 1@5 -1@5", "", "partially_filled"),
    "after a bust the same quantity is filled anew": (
        [placed(), part(1, 2, filled_qty="2"), bust(3), part(4, 2, filled_qty="2", execution_id=None)],
        "2@5 -2@5 2@5", "", "partially_filled"),
    "a quantity ahead of its fill names no fill": (
        [placed(), whole(3, 3, filled_qty="5", execution_id=None), part(2, 2, execution_id=None, **AHEAD)],
        "3@5 2@5", "fill_gap", "filled"),
    "a fill whose bust waited for it tells of nothing missing": (
        [placed(), bust(2), part(1, 2, filled_qty="2")], "2@5 -2@5", "", "partially_filled"),
    # A quantity that is ahead of its fill, and one that is behind (4.3).
    "a fill told by its order's end is that of another source": (
        [placed(), part(1, 2, filled_qty="2", source="s"), part(2, 2, execution_id="y", source="r", **AHEAD)],
        "2@5", "", "filled"),
    "so is the last one": (
        [placed(), part(1, 2, filled_qty="2", source="s"), whole(2, 3, filled_qty="5", source="s"),
         part(2, 3, execution_id="y", source="r", **AHEAD)], "2@5 3@5", "", "filled"),
    "another source tells a fill that was told by its order's end": (
        [placed(), part(1, 2, source="s", **AHEAD), part(1, 2, execution_id="y", source="r", filled_qty="2")],
        "2@5", "fill_gap", "filled"),
    "or the last one, told so": (
        [placed(), part(1, 2, source="s", filled_qty="2"), part(2, 3, source="s", **AHEAD),
         whole(2, 3, execution_id="y", source="r", filled_qty="5")], "2@5 3@5", "", "filled"),
    "another source counts fewer shares with the same fill": (
        [placed(), part(1, 2, filled_qty="2", source="s"), part(2, 2, filled_qty="4", source="s"),
         part(2, 2, execution_id="y", source="r", filled_qty="3")], "2@5 2@5", "", "partially_filled"),
    "or as many as are known": (
        [placed(), part(1, 2, filled_qty="2", source="s"), part(2, 2, filled_qty="5", source="s"),
         part(2, 2, execution_id="y", source="r", filled_qty="4")], "2@5 2@5", "fill_gap", "partially_filled"),
    "or more, if fewer than there would be with a further one": (
        [placed(10), part(1, 4, filled_qty="7", source="s"), part(2, 4, execution_id="y", source="r", filled_qty="6")],
        "4@5", "fill_gap", "partially_filled"),
    "where more were told it is a further fill": (
        [placed(10), part(1, 2, filled_qty="2", source="s"), part(2, 2, filled_qty="4", source="s"),
         told("snapshot", 3, filled_qty="6"), part(2, 2, execution_id="y", source="r", filled_qty="3")],
        "2@5 2@5 2@5", "fill_gap", "partially_filled"),
    "inferred shares are counted too": (
        [placed(), told("snapshot", 1, filled_qty="2", filled_avg_price="5"), part(3, 2, filled_qty="4", source="s"),
         part(3, 2, execution_id="y", source="r", filled_qty="3")],
        "~2@5 2@5", "", "partially_filled"),
    "what a bust took back is told again by another source": (
        [placed(), part(1, 2, filled_qty="2", source="s"), bust(3),
         part(1, 2, filled_qty="2", execution_id="y", source="r")], "2@5 -2@5", "", "partially_filled"),
    "a fill of after the end that takes the place of an inferred trade is not late": (
        [placed(), told("snapshot", 1, **TWO, filled_avg_price="5"), told("canceled", 3), part(4, 2, **TWO)],
        "~2@5 -2@5 2@5", "", "canceled"),
    "what floats leave over is no gap": (
        [placed(), part(1, 2), told("canceled", 2, filled_qty="2.0000000005")], "2@5", "", "canceled"),
    "more than that is one": (
        [placed(), part(1, 2), told("canceled", 2, filled_qty="2.0000000006")], "2@5", "fill_gap", "canceled"),
    # Names of one fill (4.2 to 4.4).
    "a quantity that comes later is no conflict": (
        [placed(), part(1, 2), part(1, 2, filled_qty="2")], "2@5", "", "partially_filled"),
    "each source may name a fill that had no name": (
        [placed(), part(1, 2, execution_id=None, **TWO, source="s"), part(1, 2, execution_id="y", **TWO, source="r"),
         part(1, 2, execution_id="z", **TWO, source="s")], "2@5", "", "partially_filled"),
    "also where nothing was told of the sum": (
        [placed(), part(1, 2, execution_id=None), part(1, 2, execution_id="y"), part(1, 2, execution_id=None)],
        "2@5", "", "partially_filled"),
    "or only by the one that names it": (
        [placed(), part(1, 2, execution_id=None), part(1, 2, execution_id="y", **TWO)], "2@5", "", "partially_filled"),
    "what has its name already is not named again": (
        [placed(), part(1, 2, execution_id=None), part(1, 2, execution_id="y"), part(1, 2, execution_id="z")],
        "2@5 2@5", "", "partially_filled"),
    "nor is what happened at another time": (
        [placed(), part(1, 2, execution_id=None), part(2, 2, execution_id="y")], "2@5 2@5", "", "partially_filled"),
    "and each names it once": (
        [placed(), part(1, 2, **TWO, source="s"), part(1, 2, execution_id="y", **TWO, source="r"),
         part(1, 2, execution_id="z", **TWO, source="s")], "2@5 2@5", "", "partially_filled"),
    "a source that told it without a name has not named it": (
        [placed(), part(1, 2, **TWO, source="s"), part(1, 2, execution_id=None, **TWO, source="r"),
         part(1, 2, execution_id="y", **TWO, source="r")], "2@5", "", "partially_filled"),
    "nor is it that source's fill": (
        [placed(), part(1, 2, **TWO, source="s"), part(2, 2, execution_id=None, filled_qty="4", source="s"),
         part(2, 2, execution_id=None, filled_qty="4", source="r"),
         part(2, 2, execution_id="y", filled_qty="3", source="r")], "2@5 2@5", "", "partially_filled"),
    "a bust may wait for a further name": (
        [placed(), bust(3, "y"), part(1, 2, **TWO, source="s"), part(1, 2, execution_id="y", **TWO, source="r")],
        "2@5 -2@5", "", "partially_filled"),
    "a source that told it without a name again has not told it first": (
        [placed(), part(1, 2, execution_id=None, **TWO, source="s"), part(1, 2, execution_id=None, **TWO, source="r"),
         part(2, 2, execution_id="y", filled_qty="3", source="s")], "2@5 2@5", "", "partially_filled"),
    "a further name of what an ended order has counted is no further fill": (
        [placed(10), part(1, 2, source="s"), told("canceled", 3, **TWO), part(2, 2, execution_id="y", source="r")],
        "2@5", "", "canceled"),
    # What is missing (4.7).
    "a gap is told once for each quantity": (
        [placed(10), told("snapshot", 1, filled_qty="2"), told("snapshot", 2, filled_qty="2"),
         told("snapshot", 3, filled_qty="4")], "", "fill_gap fill_gap", "new"),
    "a bust prices nothing": (
        [placed(), part(1, 2, **TWO), bust(2, "y", filled_qty="4", filled_avg_price="5")],
        "2@5", "fill_gap", "partially_filled"),
    "nor one whose order is ahead": (
        [placed(), part(1, 2, filled_avg_price="5", **AHEAD)], "2@5", "fill_gap", "filled"),
    "an average beside the end of the order is the order's": (
        [placed(), part(1, 2, "filled", filled_qty="4", filled_avg_price="5")], "2@5", "fill_gap", "filled"),
    "without it the quantity is that of the fill": (
        [placed(), part(1, 2, "filled", quantity="5", **TWO), part(1, 2, execution_id=None, **TWO)],
        "2@5", "", "filled"),
    "whatever else the end of the order tells": (
        [placed(), part(1, 2, "filled", **TWO), part(1, 2, execution_id=None, **TWO)], "2@5", "", "filled"),
    "an end without a quantity tells of nothing missing": ([placed(), part(1, 2, "filled")], "2@5", "", "filled"),
    "an average of before the terms is reported once": (
        [part(1, 2, filled_qty="4", filled_avg_price="5")], "", "fill_without_terms", "partially_filled"),
    "the first answer about a leg may count less": (
        [leg_filled(3), told("snapshot", 2, NEW, quantity="5", filled_qty="0")], "1@5", "snapshot_behind", "new"),
    # Trades that wait for the symbol and the side (4.5).
    "a trade waits for the side": (
        [told("new", 0, symbol="SPY"), part(1, 2)], "", "fill_without_terms", "partially_filled"),
    "and for the symbol": ([told("new", 0, side="buy"), part(1, 2)], "", "fill_without_terms", "partially_filled"),
    "until both are told": (
        [told("new", 0, side="buy"), part(1, 2), told("accepted", 2, symbol="SPY")],
        "2@5", "fill_without_terms", "accepted"),
    "so does one that is inferred, of an order that tells neither": (
        [told("new", 0, quantity="5"), told("snapshot", 1, **TWO, filled_avg_price="5")],
        "", "fill_without_terms", "new"),
    "but not one of a multi-leg order": (
        [told("new", 0, order_class="mleg"), told("snapshot", 1, **TWO, filled_avg_price="5")], "", "", "new"),
    # Which inferred trades an execution explains (4.8).
    "not one that was told after its bust": (
        [placed(), bust(2), told("snapshot", 3, **TWO, filled_avg_price="5"), part(1, 2, **TWO)],
        "~2@5 2@5 -2@5", "", "partially_filled"),
    "one from after another's bust, whatever it counts": (
        [placed(10), part(1, 4, filled_qty="4"), bust(2), told("snapshot", 4, filled_qty="3", filled_avg_price="5"),
         part(1, 2, execution_id="y", filled_qty="6")],
        "4@5 -4@5 ~3@5 -3@5 2@5 ~1@5", "", "partially_filled"),
    "but not where both are from after it": (
        [placed(10), part(1, 4, filled_qty="4"), bust(2), told("snapshot", 4, filled_qty="3", filled_avg_price="5"),
         part(3, 2, execution_id="y", filled_qty="6")],
        "4@5 -4@5 ~3@5 2@5", "fill_gap", "partially_filled"),
    "as many as it takes, those that come after the first too": (
        [placed(10), *[told("snapshot", n, filled_qty=str(n), filled_avg_price="5") for n in (1, 2, 3)], part(1, 3)],
        "~1@5 ~1@5 ~1@5 -1@5 -1@5 -1@5 3@5", "", "partially_filled"),
    # To another ledger and back (4.12).
    "an order that came back eight times is here": ([placed(), *[TO, BACK] * 8, BACK], "", "", "new"),
    "and does not come back again": ([placed(), *[TO, BACK] * 8, TO, BACK], "", "assigned_too_often", "new"),
}  # fmt: skip


@pytest.mark.parametrize(("events", "trades", "findings", "status"), LIVES.values(), ids=list(LIVES))
def test_a_life_makes_its_trades(events: list[Told], trades: str, findings: str, status: str) -> None:
    """4.2 to 4.9: each execution once, at its price, and what was to be reported on the way."""
    assert (trades.split(), findings.split(), status) == outcome(events)


@pytest.mark.parametrize(
    ("known", "again", "key"),
    [
        # Fills are told by their minute and, where one is told, by how much was filled in all.
        ("1:2 2:4 bust:2 answer:4", "1:2", "x-1"),
        ("1:2 bust:1 answer:2", "1:2", "x-1"),
        ("1:2 1:4", "1:4", "x-1b"),
        ("1:4 2:", "2:4", "x-2"),
        ("1:4 3:", "2:4", "x-1"),
        ("1: 2:4", "3:4", "x-2"),
        ("1:4 2: bust:2", "2:4", "x-2"),
    ],
)
def test_another_source_names_the_fill_that_is_nearest(known: str, again: str, key: str) -> None:
    """4.3: by the sum, and of those alike that of the same instant; also where a bust has taken one back since."""
    events = [placed(10)]
    for at, number in (one.split(":") for one in known.split()):
        if at == "bust":
            events.append(bust(3, f"x-{number}"))
        elif at == "answer":
            events.append(told("snapshot", 4, filled_qty=number, filled_avg_price="5"))
        else:
            name = f"x-{at}" if ("partial_fill", int(at)) not in [one[:2] for one in events] else f"x-{at}b"
            events.append(part(int(at), 2, execution_id=name, filled_qty=number or None, source="s"))
    minute, total = again.split(":")
    before = outcome(events)[0]
    events.append(part(int(minute), 2, execution_id="y", filled_qty=total, source="r"))
    order = live(events).find_order("o")
    assert order is not None and order.rare is not None
    assert ({"y": key}, before) == (order.rare.names, outcome(events)[0])


def test_a_source_names_at_another_time_what_it_told_without_a_name() -> None:
    """4.4: no other source told of it, so that nothing is nearer."""
    fields = {"filled_qty": "4", "source": "r"}
    events = [placed(10), part(1, 2, execution_id=None, **fields), part(2, 2, execution_id="y", **fields)]
    assert ["2@5"] == outcome(events)[0]


def test_a_fill_that_is_told_again_takes_no_room() -> None:
    """4.3: a further source is noted once, and a name only where it is another one."""
    again = [part(1, 2, **TWO, source=source, execution_id=name) for source, name in [("s", "x-1"), ("r", None)] * 3]
    order = live([placed(), *again, *[part(1, 2, **TWO, source="r", execution_id="y")] * 3]).find_order("o")
    assert order is not None and order.rare is not None
    assert ({"y": "x-1"}, ["x-1"], ("r",)) == (order.rare.names, list(order.fills), order.fills["x-1"].told)
    order = live([placed(), *again]).find_order("o")
    assert order is not None and order.rare is None


def test_a_gap_says_how_much_is_missing() -> None:
    """4.7: the sentence is for somebody who looks for these shares."""
    findings = live([placed(), part(1, 2, filled_qty="4.5")]).take_lines().findings
    assert b"`filled_qty` 4.5 is above the known fills, 2: 2.5 is missing" in findings
    correction = told("trade_correct", 2, previous_execution_id="x-1", price="6", qty="3")
    findings = live([placed(), correction, part(1, 1, filled_qty="4.5")]).take_lines().findings
    # By two more than the broker counted before.
    assert b"`filled_qty` 4.5 is above the known fills, 3: 3.5 is missing" in findings
