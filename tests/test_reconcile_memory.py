"""What a reconcile remembers for the next one, and what it asks because of that; at a scripted broker."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from compactor import Ledger
from compactor.broker.adapters import find_credentials, open_broker
from compactor.broker.budget import Budget
from compactor.broker.port import BrokerError, BrokerUnavailable
from compactor.core.instants import nanos, rfc3339
from compactor.ledger import LedgerError
from compactor.sync import reconcile as reconcile_module
from compactor.sync.answers import AskedAccount
from compactor.sync.reconcile import Reconciler
from compactor.sync.reconciled import Reconciled
from compactor.sync.state import AccountReconciled, read_reconciled
from tests.scripted_alpaca import ScriptedAlpaca, ago, make_fill, make_order, page

DAY, WEEK = 86_400, 7 * 86_400


@pytest.fixture
def server() -> Iterator[ScriptedAlpaca]:
    with ScriptedAlpaca() as one:
        yield one


def make_reconciler(server: ScriptedAlpaca, data: Path, **more: Any) -> Reconciler:
    account = open_broker(find_credentials(server.environment), budget=Budget(100_000), tries=1)
    return Reconciler(data, [AskedAccount("default", account)], teams=["alpha"], **more)


def state(data: Path) -> AccountReconciled:
    return read_reconciled(data)["default"]


def asked_after(server: ScriptedAlpaca) -> float:
    """How long ago the last list of what was placed begins."""
    query = next(one for one in reversed(server.seen) if "/v2/orders?" in one and "status=all" in one)
    return time.time() - nanos(parse_qs(query.partition("?")[2])["after"][0]) / 1e9


def test_an_order_that_was_not_quiet_is_asked_for_by_the_next_process(server: ScriptedAlpaca, data: Path) -> None:
    """Whether a list has it or not; once it is quiet it is no more."""
    server.orders["o"] = make_order("o", seconds_ago=2)
    done = make_reconciler(server, data).run()
    assert (["o"], 0) == (done.waiting, done.events)
    assert ["o"] == state(data).waiting
    server.orders["o"] = make_order("o", seconds_ago=9 * DAY) | {"updated_at": ago(60)}
    server.hide.add("o")
    assert 1 == make_reconciler(server, data).run().events
    assert 1 == server.count("GET /v2/orders/o")
    assert [] == state(data).waiting
    server.seen.clear()
    server.orders["p"] = make_order("p", seconds_ago=2)
    make_reconciler(server, data).run()
    make_reconciler(server, data).run()
    assert 0 == server.count("GET /v2/orders/p"), "one that a list has is not asked for"


def test_a_waiting_order_that_is_not_answered_for_costs_nothing(server: ScriptedAlpaca, data: Path) -> None:
    server.orders["o"] = make_order("o", seconds_ago=2)
    make_reconciler(server, data).run()
    del server.orders["o"]
    server.answers["GET", "/v2/orders/*"] = page(500)
    assert 0 == make_reconciler(server, data).run().events


def test_failures_are_counted_until_one_goes_well(server: ScriptedAlpaca, data: Path) -> None:
    """With the reason, the last try, and up to when all is known; a dry run remembers nothing."""
    make_reconciler(server, data).run()
    good = state(data)
    assert (None, 0, good.through) == (good.error, good.failures, good.tried_at)
    server.answers["GET", "/v2/orders"] = page(502)
    for failures in (1, 2):
        with pytest.raises(BrokerUnavailable):
            make_reconciler(server, data).run()
        bad = state(data)
        assert (failures, good.through) == (bad.failures, bad.through)
        assert bad.error is not None
        assert "HTTP 502" in bad.error
        assert bad.tried_at is not None
        assert bad.tried_at > (good.tried_at or "")
    with pytest.raises(BrokerUnavailable):
        make_reconciler(server, data).run(dry_run=True)
    assert 2 == state(data).failures
    server.answers.clear()
    make_reconciler(server, data).run()
    assert (None, 0) == (state(data).error, state(data).failures)


def test_why_each_account_failed_is_there_until_the_next_run(server: ScriptedAlpaca, data: Path) -> None:
    reconciler = make_reconciler(server, data)
    server.answers["GET", "/v2/orders"] = page(502)
    with pytest.raises(BrokerUnavailable):
        reconciler.run()
    assert ["default"] == list(reconciler.errors)
    server.answers.clear()
    reconciler.run()
    assert {} == reconciler.errors


def test_another_account_behind_the_same_name_is_looked_at_from_the_start(server: ScriptedAlpaca, data: Path) -> None:
    """Other keys: what was known is of another account, so a week is looked back, and a balance recorded."""
    make_reconciler(server, data).run()
    make_reconciler(server, data).run()
    assert asked_after(server) < 700
    server.account_id = "another"
    server.positions = [{"symbol": "AAPL", "qty": "3", "side": "long"}]
    make_reconciler(server, data).run()
    assert WEEK - 60 < asked_after(server) < WEEK + 60
    assert "another" == state(data).account_id


def test_the_account_is_asked_for_once_by_each_process(server: ScriptedAlpaca, data: Path) -> None:
    reconciler = make_reconciler(server, data)
    for _ in range(3):
        reconciler.run()
    assert 1 == sum(one.endswith("/v2/account") for one in server.seen)


def test_what_an_unreadable_ledger_lacks_is_looked_for_again(server: ScriptedAlpaca, data: Path) -> None:
    """The run names the ledger, and the time up to which all is known stays."""
    make_reconciler(server, data).run()
    before = state(data).through
    with Ledger(data / "team/bad") as ledger:
        ledger.append([{"event": "new", "order_id": "x", "ts": ago(60)}])
        ledger.compact()
    log = data / "team/bad/events.jsonl"
    log.write_bytes(b"rewritten" * 9 + b"\n")
    done = make_reconciler(server, data).run()
    assert ["bad"] == [one.team_id for one in done.failed]
    after = state(data)
    assert (before, None, 0) == (after.through, after.error, after.failures)
    assert after.tried_at is not None
    assert after.tried_at > (before or "")


def test_sums_that_never_agree_are_looked_into_once(server: ScriptedAlpaca, data: Path) -> None:
    """By one process, as long as the numbers stay: then it is named each time, and asked for no more."""
    server.orders["o"] = make_order(
        "o", seconds_ago=500, status="canceled", filled_qty="5", filled_avg_price="11", updated_at=ago(60)
    )
    server.fills = [make_fill("o", "e1", "5", "10", "5", 400)]
    reconciler = make_reconciler(server, data)
    reconciler.run()
    for _ in range(3):
        assert ["price_differs"] == [one.kind for one in reconciler.run().problems]
    asked = server.count("order_id=o")
    assert asked <= 2
    assert 1 == state(data).differences
    reconciler.run()
    assert asked == server.count("order_id=o")
    make_reconciler(server, data).run()
    assert asked < server.count("order_id=o"), "another process looks for itself"


def test_what_could_not_be_written_was_not_looked_into(
    server: ScriptedAlpaca, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk was full: the next run asks for the executions again, and puts the price right."""
    terms: dict[str, Any] = {"seconds_ago": 500, "status": "canceled", "filled_qty": "5", "updated_at": ago(300)}
    server.orders["o"] = make_order("o", **terms, filled_avg_price="10")
    server.fills = [make_fill("o", "e1", "5", "10", "5", 400)]
    reconciler = make_reconciler(server, data)
    reconciler.run()
    server.orders["o"] = make_order("o", **terms | {"filled_avg_price": "11", "updated_at": ago(60)})
    server.fills = [make_fill("o", "e2", "5", "11", "5", 400)]

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "append", refuse)
        assert ["alpha"] == [one.team_id for one in reconciler.run().failed]
    reconciler.run()
    with Ledger(data / "team/alpha") as ledger:
        assert [("5", "10"), ("-5", "10"), ("5", "11")] == [
            (row["quantity"], row["execution_price"]) for row in ledger.rows("trades")
        ]


def test_what_was_looked_into_is_forgotten_with_its_orders(
    server: ScriptedAlpaca, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory is bounded: of orders that no account tells of any more nothing is kept."""
    monkeypatch.setattr(reconcile_module, "_AGREED_MAX", 0)
    reconciler = make_reconciler(server, data)
    reconciler._agreed = {("gone", "1"), ("o", "2")}
    server.orders["o"] = make_order("o", seconds_ago=900)
    reconciler.run()
    assert {("o", "2")} == reconciler._agreed


def test_an_intent_without_an_answer_is_asked_about_again(server: ScriptedAlpaca, data: Path) -> None:
    """3.13: what a run could not find out is named, and the next one does."""
    terms = {"order_id": "alpha:1", "client_order_id": "alpha:1", "ts": ago(3600), "source": "app", "writer": "over"}
    with Ledger(data / "team/alpha") as ledger:
        ledger.append([{"event": "submitting", **terms}])
    server.answers["GET", "/v2/orders:by_client_order_id"] = page(502)
    done = make_reconciler(server, data).run()
    assert (["intents_unresolved"], []) == ([one.kind for one in done.problems], done.intents)
    assert [] == make_reconciler(server, data).run(dry_run=True).intents
    server.answers.clear()
    done = make_reconciler(server, data).run()
    assert [("alpha:1", "never_placed")] == [(one.client_order_id, one.outcome) for one in done.intents]
    assert [] == make_reconciler(server, data).run().intents


def test_orders_that_cannot_be_moved_now_stay(
    server: ScriptedAlpaca, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named, and moved by the next run."""
    server.orders["o"] = make_order("o", name="gamma:1", seconds_ago=900)
    make_reconciler(server, data).run()
    with Ledger(data / "team/gamma") as ledger:
        ledger.append([{"event": "new", "order_id": "x", "ts": ago(60)}])

    def fail(*_: Any) -> Any:
        raise LedgerError(data, "the disk is full")

    with monkeypatch.context() as failing:
        failing.setattr("compactor.books.unassigned.move_orders", fail)
        done = make_reconciler(server, data).run()
    assert (["not_moved"], {}) == ([one.kind for one in done.problems if one.kind == "not_moved"], done.moved)
    assert {"o": "gamma"} == make_reconciler(server, data).run(dry_run=True).moved
    assert {"o": "gamma"} == make_reconciler(server, data).run().moved


def test_settling_waits_thrice_and_no_more(server: ScriptedAlpaca, data: Path) -> None:
    """Eleven seconds each: something may happen to an order again and again."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        server.orders["o"]["updated_at"] = ago(1)

    server.orders["o"] = make_order("o", seconds_ago=60) | {"updated_at": ago(1)}
    done = make_reconciler(server, data, sleep=sleep).run(settle=True)
    assert ([11, 11, 11], ["o"]) == (slept, done.waiting)
    assert done.requests >= 4 * 4, "those of all turns"
    slept.clear()
    server.orders["o"]["updated_at"] = ago(60)
    assert 1 == make_reconciler(server, data, sleep=sleep).run(settle=True).events
    assert [] == slept


@pytest.mark.parametrize(("giving_way", "looks", "is_dry"), [(0, 1, False), (2, 3, False), (9, 4, False), (9, 1, True)])
def test_a_run_looks_again_while_what_was_inferred_gives_way(
    server: ScriptedAlpaca, data: Path, monkeypatch: pytest.MonkeyPatch, giving_way: int, looks: int, is_dry: bool
) -> None:
    """What executions leave of an inferred trade is seen once they are booked; at most three times, or the next run."""
    reconciler, turns = make_reconciler(server, data), list[int]()

    def look(only: str | None, dry_run: bool, *_: Any, **__: Any) -> Reconciled:
        turns.append(len(turns))
        return Reconciled(dry_run=dry_run, inferred=["o"] if len(turns) <= giving_way else [])

    monkeypatch.setattr(reconciler, "_turn", look)
    reconciler.run(dry_run=is_dry)
    assert looks == len(turns)


@pytest.mark.parametrize(("ahead", "waiting"), [(0, ["o"]), (-120, [])])
def test_quiet_is_by_the_clock_of_the_broker(
    server: ScriptedAlpaca, data: Path, ahead: int, waiting: list[str]
) -> None:
    """Issue 16, 5: with clocks two minutes apart, what the broker did five seconds ago by its own clock waits."""
    server.orders["o"] = make_order("o", seconds_ago=5)
    clock_ahead = make_reconciler(server, data, clock=lambda: time.time() - ahead)
    assert waiting == clock_ahead.run().waiting


def test_a_run_may_fail_before_anything_was_told(server: ScriptedAlpaca, data: Path) -> None:
    server.answers["GET", "/v2/account"] = lambda request: {"id": 7}
    with pytest.raises(BrokerError, match="expected an object with an id"):
        make_reconciler(server, data).run()
    assert state(data).failures == 1
    assert rfc3339(0) < (state(data).tried_at or "")
