"""The law of the live ledger on a sample of seeds, what chaos has found, and that the law can be broken at all."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests import chaos
from tests.alpaca_server import AlpacaServer
from tests.chaos import DAY_SECONDS
from tests.chaos_hardships import POISONS
from tests.chaos_law import changed_trades, differences, read_fills, read_rows
from tests.chaos_side import QUIET_SECONDS, Side

DRAWING = {"alpaca": (1, 2, 3, 6, 8, 23, 55, 69, 101, 103), "small": (0, 1, 2, 3, 4, 9, 12, 26, 99)}
"""Seeds that draw everything between them."""
LEGS = [
    {"symbol": "AAPL260320P00200000", "side": "buy", "ratio_qty": "1"},
    {"symbol": "AAPL260320C00250000", "side": "sell", "ratio_qty": "2"},
]


@pytest.fixture
def server() -> Iterator[AlpacaServer]:
    with AlpacaServer(seed=7, start=chaos.START, rate_limit=None, plain=True) as server:
        yield server


held: dict[tuple[int, str], chaos.Run] = {}


def run_of(seed: int, broker: str) -> chaos.Run:
    """What came of a run. One in which the law held is made once."""
    if (seed, broker) not in held:
        with tempfile.TemporaryDirectory(dir=chaos.fast_directory()) as directory:
            done = chaos.run(seed, Path(directory), broker=broker)
        if done.broken:
            return done
        held[seed, broker] = done
    return held[seed, broker]


@pytest.mark.parametrize("seed", range(24))
def test_after_any_faults_one_quiet_reconcile_makes_ours_the_brokers(seed: int) -> None:
    """The law: open orders and trades are the broker's, exactly, and a second reconcile appends nothing."""
    assert [] == run_of(seed, "alpaca").broken


@pytest.mark.parametrize("broker", ["alpaca", "small"])
def test_in_a_fixed_sample_of_runs_every_fault_is_drawn(broker: str) -> None:
    """A fault that no run draws holds nothing; and the law holds in these runs as well."""
    drawn, left = Counter[str](), sorted(chaos.list_draws(broker))
    for seed in DRAWING[broker]:
        done = run_of(seed, broker)
        assert [] == done.broken
        drawn += done.drawn
    assert [] == [name for name in left if not drawn[name]]
    assert chaos.tell_drawn(drawn, broker).endswith("; none was never drawn")


def test_what_was_never_drawn_is_named() -> None:
    """At the end of many runs, so that nobody takes silence for a fault that was survived."""
    drawn = Counter(dict.fromkeys(chaos.list_draws("alpaca") - {"paper_reset", "twap"}, 3))
    said = chaos.tell_drawn(drawn, "alpaca")
    assert "3 late_activities" in said and said.endswith("NEVER DRAWN: paper_reset, twap")


def frames_of(server: AlpacaServer) -> list[bytes]:
    """What the broker has told so far, as frames."""
    encode = server.account.writer.encode
    return [encode({"stream": "trade_updates", "data": update}) for _, update in server.account.told]


def settle(server: AlpacaServer, side: Side) -> int:
    """Let all be quiet, and reconcile; how many events that appended."""
    server.exchange.clock.advance(QUIET_SECONDS + 1)
    done = side.reconcile()
    assert done is not None
    return done.events


def test_a_leg_whose_last_fills_nobody_told_is_not_opened(server: AlpacaServer, data: Path) -> None:
    """4.10: of a leg only the parent's fills are known; a partial fill out of a reconcile must not leave it open."""
    side = Side(data, server)
    order = server.place("", qty=4, team="alpha", type="limit", limit_price="0.6", order_class="mleg", legs=LEGS)
    for quantity in (1, 1, None):
        server.fill(order.id, quantity)
    first, _unheard, last = frames_of(server)[-3:]
    side.writer.store([first, last])
    settle(server, side)
    assert {} == read_rows(data)
    assert [] == list(differences(server.truth(), data, set()))
    assert 0 == settle(server, side)


def test_legs_belong_to_the_team_of_a_parent_that_cannot_be_read(server: AlpacaServer, data: Path) -> None:
    """A parent's name says whose its legs are, also in a message that is no update of the parent."""
    side = Side(data, server)
    order = server.place("", qty=4, team="alpha", type="limit", limit_price="0.6", order_class="mleg", legs=LEGS)
    spoiled = [frame.replace(b'"event":', b'"evnt":') for frame in frames_of(server)]
    server.fill(order.id)
    side.writer.store([*spoiled, frames_of(server)[-1]])
    settle(server, side)
    assert {"alpha"} == {team for fills in read_fills(data).values() for team, _, _ in fills}
    assert [] == list(differences(server.truth(), data, set()))


def test_a_replayed_fill_of_an_unknown_leg_waits_for_the_reconcile(data: Path) -> None:
    """An activity does not say whose leg its order is: written at once it would stand in two ledgers."""
    with AlpacaServer(seed=7, start=chaos.START, rate_limit=None, resend="activities") as server:
        side = Side(data, server)
        order = server.place("", qty=4, team="alpha", type="limit", limit_price="0.6", order_class="mleg", legs=LEGS)
        server.fill(order.id)
        assert 2 == side.gaps.close().messages
        assert {} == read_fills(data)
        side.writer.store(frames_of(server))
        settle(server, side)
        assert [] == list(differences(server.truth(), data, set()))


def test_a_correction_is_of_the_execution_that_its_activity_names(server: AlpacaServer, data: Path) -> None:
    """Of two executions of one size one is busted and one corrected, unheard: the id tells which, also once heard."""
    side = Side(data, server)
    order = server.place("AAPL", "buy", 10, team="alpha", type="limit", limit_price="191.50")
    first = server.fill(order.id, 5, "191.50")
    side.writer.store(frames_of(server))
    second = server.fill(order.id, 5, "191.12")
    settle(server, side)
    assert first is not None and second is not None
    side.writer.store(frames_of(server))
    server.bust(first.id)
    server.correct(second.id, 5, "191.13")
    server.exchange.clock.advance(DAY_SECONDS)
    assert 2 == settle(server, side)
    assert [] == list(differences(server.truth(), data, set()))
    side.writer.store(frames_of(server))
    server.exchange.clock.advance(DAY_SECONDS)
    settle(server, side)
    assert [] == list(differences(server.truth(), data, set()))
    server.exchange.clock.advance(DAY_SECONDS)
    assert 0 == settle(server, side)


def test_what_an_event_did_not_put_right_is_named_the_next_time(server: AlpacaServer, data: Path) -> None:
    """A correction whose own id was lost hides the next one (4.9): that is told, and not appended for ever."""
    side = Side(data, server)
    order = server.place("AAPL", "buy", 10, team="alpha", type="limit", limit_price="191.50")
    execution = server.fill(order.id, 10, "191.50")
    assert execution is not None
    new_id = server.correct(execution.id, 10, "191.40")
    side.writer.store([frame.replace(b'"execution_id":"' + new_id.encode(), b'"it":"') for frame in frames_of(server)])
    server.correct(new_id, 10, "191.30")
    server.exchange.clock.advance(DAY_SECONDS)
    settle(server, side)
    settle(server, side)  # No list has the order any more, until the next one that goes back a day.
    server.exchange.clock.advance(DAY_SECONDS)
    again = side.reconcile()
    assert again is not None and 0 == again.events
    assert [("price_differs", order.id)] == [(problem.kind, problem.order_id) for problem in again.problems]


def test_what_was_inferred_gives_way_to_executions_however_old(server: AlpacaServer, data: Path) -> None:
    """4.8: a spoiled frame makes one trade of four executions, the first of them older than any list goes back."""
    side = Side(data, server)
    order = server.place("AAPL", "buy", 10, team="alpha", type="limit", limit_price="191.50")
    server.fill(order.id, 3, "191.50")
    server.fill(order.id, 2, "191.45")
    server.exchange.clock.advance(3600)
    server.fill(order.id, 2, "191.40")
    waits = side.reconcile()
    assert waits is not None and [order.id] == waits.waiting
    server.exchange.clock.advance(3600)
    server.fill(order.id, 1, "191.30")
    side.writer.store([frames_of(server)[-1].replace(b'"price":', b'"prise":')])
    settle(server, side)
    assert [] == list(differences(server.truth(), data, set()))
    assert 0 == settle(server, side)


def test_an_order_that_replaced_an_unknown_one_is_nobodys(server: AlpacaServer, data: Path) -> None:
    """Only the order before it names the team, and of that one nothing was heard: it is in `unassigned`."""
    side = Side(data, server)
    old = server.place(team="alpha", type="limit", limit_price="10")
    server.replace(old.id, limit_price="11")
    side.writer.store(frames_of(server)[-1:])
    settle(server, side)
    assert ["unassigned"] == [row["team_id"] for rows in read_rows(data).values() for row in rows]
    assert [] == list(differences(server.truth(), data, set()))


def test_an_order_whose_predecessor_is_still_unassigned_is_open_in_one_ledger(server: AlpacaServer, data: Path) -> None:
    """Of a chain the middle was heard before the first one, and lies in `unassigned`: the last one is the team's."""
    side = Side(data, server)
    first = server.place(team="alpha", type="limit", limit_price="10")
    middle = server.replace(first.id, limit_price="11")
    heard_middle, heard_first = frames_of(server)[-1:], frames_of(server)[1:2]
    server.replace(middle.id, limit_price="12")
    side.writer.store(heard_middle)
    side.writer.store(heard_first)
    settle(server, side)
    assert ["alpha"] == [row["team_id"] for rows in read_rows(data).values() for row in rows]
    assert [] == list(differences(server.truth(), data, set()))
    assert 0 == settle(server, side)


def test_a_large_order_of_an_algorithm_has_a_thousand_executions(server: AlpacaServer, data: Path) -> None:
    """TWAP: ten pages of activities, and every frame was lost."""
    side = Side(data, server)
    order = server.place("SPY", "buy", 2000, team="alpha", type="market", advanced_instructions={"algorithm": "TWAP"})
    for _ in range(1000):
        server.fill(order.id, 1, "529.98")
    settle(server, side)
    assert [] == list(differences(server.truth(), data, set()))
    assert 1000 == read_fills(data)[order.id].total()
    assert 0 == settle(server, side)


def test_activities_that_come_late_take_the_place_of_what_was_inferred(server: AlpacaServer, data: Path) -> None:
    """No list has the executions of an order that is filled: one trade for now, and theirs once they are told."""
    side = Side(data, server)
    order = server.place("AAPL", "buy", 10, team="alpha", type="limit", limit_price="191.50")
    server.withhold()
    server.fill(order.id, 4, "191.50")
    server.fill(order.id, 6, "191.45")
    settle(server, side)
    [(inferred, count)] = read_fills(data)[order.id].items()
    assert (("alpha", Decimal(10), Decimal("191.47")), 1) == (inferred, count)
    server.backfill()
    settle(server, side)
    assert [] == list(differences(server.truth(), data, set()))
    assert 0 == settle(server, side)


def test_after_a_paper_reset_the_old_orders_are_ended_by_word_only(server: AlpacaServer, data: Path) -> None:
    """Other keys, another account, and 404 for every old order: they stay open until somebody says so; trades stay."""
    side = Side(data, server)
    old = server.place("AAPL", "buy", 10, team="alpha", type="limit", limit_price="191.50")
    server.fill(old.id, 4, "191.50")
    settle(server, side)
    before = read_fills(data)
    server.reset()
    assert side.reconcile() is None, "the keys are not valid any more"
    side.take_credentials()
    side.restart()
    new = server.place("AAPL", "buy", 10, team="alpha", type="limit", limit_price="190.50")
    settle(server, side)
    assert {old.id, new.id} == read_rows(data).keys()
    assert [f"{old.id} is open here, and gone at the broker"] == list(differences(server.truth(), data, set()))
    assert side.reconcile(forget_missing=True) is not None
    assert [] == list(differences(server.truth(), data, set()))
    assert [] == list(changed_trades(data, before))
    assert 0 == settle(server, side)


@pytest.mark.parametrize("skew", [-290, 290])
def test_clocks_that_are_minutes_apart_hide_nothing(server: AlpacaServer, data: Path, skew: int) -> None:
    """What is quiet is decided in the broker's time, which the header Date tells."""
    side = Side(data, server)
    side.skew_seconds = server.gate.skew_seconds = skew
    order = server.place("AAPL", "buy", 10, team="alpha", type="limit", limit_price="191.50")
    server.fill(order.id, 4, "191.50")
    waits = side.reconcile()
    assert waits is not None and [order.id] == waits.waiting
    server.exchange.clock.advance(QUIET_SECONDS + 3)
    assert side.reconcile() is not None
    assert [] == list(differences(server.truth(), data, set()))


@pytest.mark.parametrize("fault", POISONS)
def test_an_order_that_cannot_be_asked_for_is_named_and_the_others_are_the_brokers(
    server: AlpacaServer, data: Path, fault: str
) -> None:
    """Of the poisoned one the bust that nobody told needs a question of its own."""
    side = Side(data, server)
    orders = [server.place("AAPL", "buy", 10, team="alpha", type="limit", limit_price="191.50") for _ in range(2)]
    executions = [server.fill(order.id, 10, "191.50") for order in orders]
    settle(server, side)
    for execution in executions:
        assert execution is not None
        server.bust(execution.id)
    server.poison(orders[0].id, fault)
    server.exchange.clock.advance(DAY_SECONDS)
    done = side.reconcile()
    assert done is not None and "order_unanswered" in {
        one.kind for one in done.problems if one.order_id == orders[0].id
    }
    assert [] == list(differences(server.truth(), data, set(), unasked={orders[0].id}))
    server.calm()
    server.exchange.clock.advance(DAY_SECONDS)
    side.reconcile()
    assert [] == list(differences(server.truth(), data, set()))


@pytest.mark.parametrize("kind", ["unauthorized", "forbidden", "page"])
def test_an_account_that_was_refused_for_an_hour_agrees_afterwards(server: AlpacaServer, data: Path, kind: str) -> None:
    """Keys that are right are refused, or a gateway answers: nothing is appended meanwhile, and nothing is lost."""
    side = Side(data, server)
    order = server.place("AAPL", "buy", 10, team="alpha", type="limit", limit_price="191.50")
    settle(server, side)
    server.refuse(kind)
    server.fill(order.id, 4, "191.50")
    before = side.bytes_of_logs()
    server.exchange.clock.advance(3600)
    assert side.reconcile() is None and before == side.bytes_of_logs()
    server.accept()
    settle(server, side)
    assert [] == list(differences(server.truth(), data, set()))


def test_the_average_of_a_correction_that_changes_its_last_digit_is_not_taken_for_a_rounded_one(
    server: AlpacaServer, data: Path
) -> None:
    """One share of a hundred is corrected by a cent, unheard: the averages are one of their last digit apart."""
    side = Side(data, server)
    order = server.place("SPY", "buy", 100, team="alpha", type="limit", limit_price="529.98")
    first = server.fill(order.id, 1, "529.18")
    server.fill(order.id, 99, "529.13")
    assert first is not None
    settle(server, side)
    server.correct(first.id, 1, "529.17")
    server.exchange.clock.advance(DAY_SECONDS)
    settle(server, side)
    assert [] == list(differences(server.truth(), data, set()))


@pytest.mark.parametrize(
    ("name", "damage", "found"),
    [
        ("pending_orders.jsonl", None, "is open at the broker (new), and nowhere here"),
        ("pending_orders.jsonl", {"status": "accepted"}, "status is 'accepted', at the broker 'new'"),
        ("pending_orders.jsonl", {"limit_price": "181.51"}, "limit_price is '181.51', at the broker '181.50'"),
        ("pending_orders.jsonl", {"team_id": "bravo"}, "is open in the ledgers of ['bravo'], and is alpha's"),
        ("trades.jsonl", None, "trades are none, at the broker 1 x 4 at 181.36 (alpha)"),
        ("trades.jsonl", {"quantity": "4.000000001"}, "trades are 1 x 4.000000001 at 181.36 (alpha)"),
        ("trades.jsonl", {"execution_price": "181.37"}, "trades are 1 x 4 at 181.37 (alpha)"),
    ],
)
def test_the_law_can_be_broken(
    server: AlpacaServer, data: Path, name: str, damage: dict[str, Any] | None, found: str
) -> None:
    """A row or a trade that is gone, or differs in its last digit, is told apart from the broker's."""
    side = Side(data, server)
    server.place(team="alpha", type="limit", limit_price="181.50")
    filled = server.place(team="alpha", qty=4)
    server.fill(filled.id, price="181.36")
    settle(server, side)
    assert [] == list(differences(server.truth(), data, set()))
    path = data / "team" / "alpha" / name
    [line] = path.read_bytes().splitlines()
    path.write_bytes(b"" if damage is None else msgspec.json.encode(msgspec.json.decode(line) | damage) + b"\n")
    [difference] = differences(server.truth(), data, set())
    assert found in difference


def test_an_order_that_is_open_here_alone_is_a_difference(server: AlpacaServer, data: Path) -> None:
    """A ghost row is told, with what the broker says of the order."""
    side = Side(data, server)
    order = server.place(team="alpha")
    settle(server, side)
    server.cancel(order.id)
    assert [f"{order.id} is open here, and canceled at the broker"] == list(differences(server.truth(), data, set()))


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are listed by /proc")
def test_a_run_gives_all_its_descriptors_back(tmp_path: Path) -> None:
    """10,000 runs are made by one process."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    chaos.run(3, first)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    chaos.run(3, second)
    gc.collect()
    assert before >= len(os.listdir("/proc/self/fd"))


def test_a_bad_run_prints_what_replays_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The seed, what is broken, and the command; exit code 1."""
    monkeypatch.setattr(chaos, "run", lambda seed, *_: chaos.Run(seed, ["it is broken"] if seed == 41 else []))
    assert 1 == chaos.main(["--runs", "2", "--seed", "40", "--steps", "5"])
    said = capsys.readouterr().out
    assert "seed 41 breaks the law:\n  it is broken" in said
    assert "python -m tests.chaos --runs 1 --seed 41 --steps 5" in said
    assert "2 runs from seed 40" in said and "1 bad" in said
