"""Reconciling with a local Alpaca over HTTP, through alpaca-py: what the ledgers lack is appended, and no more."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from compactor import Ledger
from compactor.books.assign import assign
from compactor.books.compact import compact_all
from compactor.books.order_index import OrderIndex
from compactor.books.ownership import UNASSIGNED
from compactor.books.turns import ReconcileBusy, turn
from compactor.broker.adapters import find_credentials, open_broker
from compactor.broker.alpaca.translate import translate_message
from compactor.broker.budget import Budget
from compactor.broker.credentials import BadCredentials
from compactor.broker.port import BrokerError, BrokerPort, BrokerUnavailable
from compactor.core.instants import nanos
from compactor.sync.answers import AskedAccount
from compactor.sync.reconcile import Reconciler
from compactor.sync.reconciled import Reconciled
from compactor.sync.state import read_reconciled
from compactor.sync.stream_writer import StreamWriter
from compactor.ui.cli import app
from tests.alpaca_server import AlpacaServer, Truth
from tests.chaos_law import differences, read_rows, revised_orders

START = "2026-03-02T14:30:00Z"
DAY = 86_400
TEAMS = ("alpha", "bravo", "charlie", "alice", "bob")
KEYS = (("PKFIRST", "first-secret"), ("PKSECOND", "second-secret"))


@pytest.fixture
def server() -> Iterator[AlpacaServer]:
    with AlpacaServer(seed=1, start=START, rate_limit=None, plain=True) as one:
        yield one


def broker_of(server: AlpacaServer, **more: Any) -> BrokerPort:
    options: dict[str, Any] = {"budget": Budget(100_000), "sleep": lambda seconds: None, **more}
    return open_broker(find_credentials(server.environment), **options)


def healer(data: Path, server: AlpacaServer, **more: Any) -> Reconciler:
    """A reconciler on the server's clock, which does not really sleep."""
    teams = more.pop("teams", TEAMS)
    asked = AskedAccount("default", more.pop("broker", None) or broker_of(server), **more)
    return Reconciler(data, [asked], clock=server.clock, sleep=server.exchange.clock.advance, teams=teams)


def quiet_run(reconciler: Reconciler, server: AlpacaServer, seconds: float = 30) -> Reconciled:
    """A reconcile after a while in which nothing happened."""
    server.exchange.clock.advance(seconds)
    return reconciler.run()


def tree(data: Path) -> dict[str, bytes]:
    """The bytes of every file but those that are ours to say when we tried."""
    kept = (path for path in data.rglob("*") if path.is_file() and path.parent.name not in (".compactor", ".state"))
    return {str(path): path.read_bytes() for path in kept}


def rows(data: Path, team: str) -> list[dict[str, Any]]:
    return list(Ledger(data / "team" / team).rows("pending_orders"))


def trades(data: Path, team: str) -> list[dict[str, Any]]:
    return list(Ledger(data / "team" / team).rows("trades"))


@pytest.mark.parametrize("seed", range(3))
def test_after_a_quiet_reconcile_everything_is_the_broker_s(data: Path, seed: int) -> None:
    """Issue 4, 8: our open orders and trades are the broker's, exactly, and a second reconcile appends nothing."""
    with AlpacaServer(seed=seed, start=START, rate_limit=None) as server:
        reconciler = healer(data, server)
        for _ in range(3):
            server.live(60)
            reconciler.run()
        # What is older than an hour is compared once an hour, and what is older than a day once a day.
        quiet_run(reconciler, server, DAY + 1)
        before = tree(data)
        again = reconciler.run()

        assert [] == list(differences(server.truth(), data, set())), f"seed {seed}"
        assert (0, [], before) == (again.events, again.waiting, tree(data)), f"seed {seed}"


@pytest.mark.parametrize("seed", [10, 14, 25, 42, 44, 67])
def test_orders_may_be_assigned_between_reconciles(data: Path, seed: int) -> None:
    """4.12, issue 4, 5: an order goes on in the ledger that it was assigned to, and so does what replaces it."""
    rng = random.Random(seed)
    with AlpacaServer(seed=seed, start=START, rate_limit=None) as server:
        reconciler, assigned = healer(data, server), dict[str, list[str]]()
        for _ in range(8):
            server.live(25)
            quiet_run(reconciler, server)
            roots = [rows[0] for rows in read_rows(data).values() if not rows[0].get("parent_order_id")]
            for row in rng.sample(roots, min(2, len(roots))):
                team = rng.choice(["alpha", "bravo", "zulu"])
                assigned.setdefault(row["order_id"], []).append(team)
                assign(data, row["order_id"], team)
        quiet_run(reconciler, server, DAY + 1)
        truth = server.truth()
        teams = {order_id: find_assigned_team(truth, order_id, assigned) for order_id in truth.orders}
        for order_id, team in teams.items():
            truth.orders[order_id].team = team
        # What ended and was placed more than a week ago is in no list: the stream tells of its revisions (live.md).
        week_ago = server.exchange.clock.now() - 7 * DAY * 1_000_000_000
        revised = revised_orders(truth) - truth.open.keys()
        old = {one for one in revised if truth.orders[one].submitted_at < week_ago}

        assert [] == list(differences(truth, data, old)), f"seed {seed}"
        assert 0 == reconciler.run().events, f"seed {seed}"


def find_assigned_team(truth: Truth, order_id: str, assigned: Mapping[str, list[str]]) -> str:
    """Whose an order is, after it or some of its family were assigned to teams, one after the other.

    It goes with its parent and with what it replaces. One that is nobody's moves once its successor is a team's.
    """
    order = truth.orders[order_id]
    above = [order_id]
    while name := truth.orders[above[-1]].parent or truth.orders[above[-1]].replaces:
        above.append(name)
    found = next((assigned[one][-1] for one in above if one in assigned), None)
    if found is not None or order.team != UNASSIGNED:
        return found or order.team
    for one in above:
        successor = truth.orders[one].replaced_by
        while successor is not None:
            if successor in assigned:
                return assigned[successor][0]
            successor = truth.orders[successor].replaced_by
    return UNASSIGNED


def test_an_order_of_nobody_follows_what_replaced_it_to_its_team(data: Path, server: AlpacaServer) -> None:
    """Issue 4, 5: once somebody has assigned the successor, the trades of the order before it are that team's too."""
    reconciler = healer(data, server)
    first = server.place(type="limit", limit_price="10", time_in_force="gtc")
    server.fill(first.id, 1, "10")
    second = server.replace(first.id, limit_price="11")
    quiet_run(reconciler, server)
    assert [first.id] == [trade["order_id"] for trade in trades(data, "unassigned")]
    assign(data, second.id, "alpha")
    assert {first.id: "alpha"} == quiet_run(reconciler, server).moved

    assert [first.id] == [trade["order_id"] for trade in trades(data, "alpha")]
    assert 0 == quiet_run(reconciler, server, DAY + 1).events


def test_orders_nobody_knew_are_adopted_by_the_team_in_their_name(data: Path, server: AlpacaServer) -> None:
    """Issue 4, 4 and 5: `team:anything` claims an order; what nobody claims is `unassigned`, visibly."""
    named, nameless = server.place(team="alpha", type="limit", limit_price="10"), server.place()
    done = quiet_run(healer(data, server), server)

    assert ["alpha", "unassigned"] == [team.team_id for team in done.teams]
    assert [named.id] == [row["order_id"] for row in rows(data, "alpha")]
    assert [nameless.id] == [row["order_id"] for row in rows(data, "unassigned")]


def test_patterns_and_the_account_s_team_come_before_nobody(data: Path, server: AlpacaServer) -> None:
    """Issue 4, 5: the name first, then a configured pattern, then the account's team."""
    import re

    named, patterned = server.place(team="alpha"), server.place(client_order_id="desk-bravo-17")
    other = server.place()
    pattern = re.compile(r"desk-(?P<team>[a-z]+)-\d+")
    quiet_run(healer(data, server, team="house", patterns=(pattern,)), server)

    found = {team: rows(data, team)[0]["order_id"] for team in ("alpha", "bravo", "house")}
    assert {"alpha": named.id, "bravo": patterned.id, "house": other.id} == found


def test_what_replaces_an_order_is_its_team_s(data: Path, server: AlpacaServer) -> None:
    """Issue 4, 5: the ledger that knows the order it replaces comes first; however many were replaced in between."""
    reconciler = healer(data, server)
    first = server.place(team="alpha", type="limit", limit_price="10", time_in_force="gtc")
    quiet_run(reconciler, server)
    second = server.replace(first.id, limit_price="11")
    server.exchange.clock.advance(DAY)
    third = server.replace(second.id, limit_price="12")
    quiet_run(reconciler, server, 3 * DAY)

    assert [third.id] == [row["order_id"] for row in rows(data, "alpha")]


def test_a_chain_of_replaced_orders_leads_to_the_ledger_that_knows_the_first(data: Path, server: AlpacaServer) -> None:
    """Issue 4, 5: that one has ended without a trade, so that only a log has it, and its name claims another team."""
    reconciler = healer(data, server)
    first = server.place(team="alpha", type="limit", limit_price="10", time_in_force="gtc")
    quiet_run(reconciler, server)
    assign(data, first.id, "bravo")
    second = server.replace(first.id, limit_price="11")
    quiet_run(reconciler, server)
    third = server.replace(server.replace(second.id, limit_price="12").id, limit_price="13")
    reconciler.close()
    quiet_run(healer(data, server), server, 3 * DAY)

    assert [third.id] == [row["order_id"] for row in rows(data, "bravo")]
    assert {"alpha", "bravo"} == {path.name for path in (data / "team").iterdir()}


def test_an_assigned_order_stays_with_its_new_team(data: Path, server: AlpacaServer) -> None:
    """4.12: routing prefers the ledger from which the order was not assigned away, whatever the order is called."""
    reconciler = healer(data, server)
    order = server.place(team="alpha", type="limit", limit_price="10")
    server.fill(order.id, 4)
    quiet_run(reconciler, server)
    assign(data, order.id, "bravo")
    server.fill(order.id, 3)
    quiet_run(reconciler, server)

    assert ["7"] == [row["filled_qty"] for row in rows(data, "bravo")]
    assert [] == rows(data, "alpha")
    assert 0 == reconciler.run().events
    assign(data, order.id, "alpha")
    server.fill(order.id)
    quiet_run(reconciler, server)
    assert 0 == reconciler.run().events
    assert ["4", "-4", "4", "3", "3"] == [trade["quantity"] for trade in trades(data, "alpha")]


def test_absence_from_a_list_is_no_end(data: Path, server: AlpacaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 4, 4: an open order that is not listed is asked for by id, and stays where the broker has none such."""
    reconciler = healer(data, server)
    order = server.place(team="alpha", type="limit", limit_price="10", time_in_force="gtc")
    quiet_run(reconciler, server)
    del server.exchange.orders[order.id]
    server.requests.clear()
    done = quiet_run(reconciler, server)

    assert [f"GET /v2/orders/{order.id}?nested=true"] == [one for one in server.requests if order.id in one]
    assert [("order_not_found", order.id)] == [(one.kind, one.order_id) for one in done.problems]
    assert ([order.id], 0) == ([row["order_id"] for row in rows(data, "alpha")], done.events)


def test_an_end_that_nobody_told_is_found_by_asking(data: Path, server: AlpacaServer) -> None:
    """Issue 4, 4: an order that has left the list of open ones is asked for, and its end is written."""
    reconciler = healer(data, server)
    order = server.place(team="alpha", type="limit", limit_price="10", time_in_force="gtc")
    quiet_run(reconciler, server)
    server.cancel(order.id)
    done = quiet_run(reconciler, server, 2 * DAY)

    assert ([], ["snapshot"]) == (rows(data, "alpha"), [one["event"] for one in done.teams[0].events])


def test_a_fill_in_flight_is_not_inferred(data: Path, server: AlpacaServer) -> None:
    """Issue 4, 4: an order to which something happened in the last 10 seconds is left for the next run."""
    reconciler = healer(data, server)
    order = server.place(team="alpha", type="limit", limit_price="10")
    quiet_run(reconciler, server)
    server.fill(order.id, 4)
    hasty = reconciler.run()

    assert (0, [order.id]) == (hasty.events, hasty.waiting)
    assert 1 < quiet_run(reconciler, server).events
    assert [("4", "fill")] == [(trade["quantity"], trade["kind"]) for trade in trades(data, "alpha")]


def test_settling_waits_for_what_was_not_quiet(data: Path, server: AlpacaServer) -> None:
    """Issue 4, 4: `--once` waits until it can tell."""
    server.place(team="alpha")
    done = healer(data, server).run(settle=True)
    assert (1, []) == (done.events, done.waiting)


def test_a_bust_and_a_correction_that_nobody_told_are_found(data: Path, server: AlpacaServer) -> None:
    """Issue 4, 8: quantities, prices and executions are the broker's, also those that were taken back."""
    reconciler = healer(data, server)
    order = server.place(team="alpha", type="limit", limit_price="10")
    busted, corrected = server.fill(order.id, 4, "10.00"), server.fill(order.id, 5, "10.10")
    assert busted is not None and corrected is not None
    quiet_run(reconciler, server)
    server.bust(busted.id)
    server.correct(corrected.id, 5, "10.05")
    quiet_run(reconciler, server)

    assert [] == list(differences(server.truth(), data, set()))
    kinds = [trade["kind"] for trade in trades(data, "alpha")]
    assert ["fill", "fill", "reversal", "reversal", "correction"] == kinds
    assert 0 == reconciler.run().events


@pytest.mark.parametrize("is_heard_late", [False, True])
def test_what_was_inferred_of_a_busted_execution_is_taken_back_by_the_same_reconcile(
    data: Path, server: AlpacaServer, is_heard_late: bool
) -> None:
    """Chaos, 51174: a sum told of an execution, which was busted before anybody told of it; another one came since."""
    reconciler = healer(data, server)
    server.withhold()
    order = server.place(team="alpha", type="limit", limit_price="10")
    busted = server.fill(order.id, 4, "10.00")
    assert busted is not None
    quiet_run(reconciler, server)
    assert ["inferred"] == [trade["kind"] for trade in trades(data, "alpha")]
    server.bust(busted.id)
    server.fill(order.id, 3, "9.00")
    server.backfill()
    assert [] == quiet_run(reconciler, server).problems
    assert [] == list(differences(server.truth(), data, set()))
    assert 0 == reconciler.run().events
    if is_heard_late:
        told = [
            server.account.writer.encode({"stream": "trade_updates", "data": one}) for _, one in server.account.told
        ]
        StreamWriter(data, translate_message).store(told)
        compact_all(data, workers=1)
        assert [] == list(differences(server.truth(), data, set()))
        assert 0 == quiet_run(reconciler, server).events


def test_pages_overlap_so_that_orders_of_one_instant_are_not_lost(data: Path, server: AlpacaServer) -> None:
    """Issue 4, 4: 500 a page; `after` excludes its bound, so that equal `submitted_at` at an edge would lose some."""
    for burst in range(3):
        at = server.exchange.clock.tick()
        for _ in range(334):
            server.place(team=f"team{burst}", at=at, type="limit", limit_price="10")
    done = quiet_run(healer(data, server, teams=[f"team{burst}" for burst in range(3)]), server)

    assert (1002, 1002) == (done.orders, done.events)
    assert 1002 == sum(len(rows(data, f"team{burst}")) for burst in range(3))


@pytest.mark.parametrize(
    ("fault", "request_"),
    [
        ("rate_limited", "/v2/account"),
        ("server_error", "/v2/orders"),
        ("html_page", "/v2/orders"),
        ("null_body", "/v2/orders"),
        ("cut_body", "/v2/account/activities"),
        ("null_body", "/v2/account/activities"),
    ],
)
def test_a_broker_that_fails_leaves_every_file_as_it_was(
    data: Path, server: AlpacaServer, fault: str, request_: str
) -> None:
    """Issue 4, 4: errors and nonsense change no file, and are remembered for status, /readyz and metrics."""
    server.place(team="alpha")
    quiet_run(healer(data, server), server)
    before = tree(data)
    server.place(team="alpha")
    server.fail_next(f"GET {request_}", fault, 1000)
    impatient = Budget(100_000, sleep=lambda seconds: None, clock=iter(range(0, 10**9, 100)).__next__)
    reconciler = healer(data, server, broker=broker_of(server, budget=impatient))
    server.exchange.clock.advance(30)
    with pytest.raises(BrokerError) as caught:
        reconciler.run()

    assert before == tree(data)
    known = read_reconciled(data)["default"]
    assert (str(caught.value), 1) == (known.error, known.failures)
    server.calm()
    assert 1 == reconciler.run().events
    known = read_reconciled(data)["default"]
    assert (None, 0, server.clock()) == (known.error, known.failures, nanos(known.through or "") / 1e9)


def test_a_broker_that_hangs_is_given_up(data: Path, server: AlpacaServer) -> None:
    """Issue 4, 4: every request has a timeout; alpaca-py's client has none."""
    server.faults.hang_seconds = 0.5
    server.fail_next("GET", "hang", 10)
    broker = broker_of(server, timeout_seconds=(0.1, 0.1), tries=2)
    with pytest.raises(BrokerUnavailable, match=r"/account: no answer within 0\.1 s"):
        healer(data, server, broker=broker).run()
    assert 2 == broker.requests


def test_bad_keys_are_said_at_once(data: Path, server: AlpacaServer) -> None:
    """Issue 4, 7: a refusal of the keys is not tried again."""
    environ = {**server.environment, "APCA_API_SECRET_KEY": "wrong-secret"}
    broker = open_broker(find_credentials(environ), budget=Budget(100_000))
    with pytest.raises(BadCredentials, match="APCA_API_KEY_ID and APCA_API_SECRET_KEY"):
        healer(data, server, broker=broker).run()
    assert 1 == broker.requests
    assert "wrong-secret" not in (data / ".compactor" / "reconciled.json").read_text()


def test_a_dry_run_appends_nothing_and_says_what_it_would(data: Path, server: AlpacaServer) -> None:
    """Issue 4, 1: `--dry-run` shows exactly the events that the next run appends."""
    server.place(team="alpha")
    server.exchange.clock.advance(30)
    reconciler = healer(data, server)
    would = reconciler.run(dry_run=True)
    assert {} == tree(data)

    def told(done: Reconciled) -> list[tuple[str, ...]]:
        # Alpaca writes one instant now so and now so, and an event id is made of what it writes.
        names = ("event", "order_id", "order_status", "symbol", "quantity")
        return [tuple(event[name] for name in names) for team in done.teams for event in team.events]

    assert 1 == len(told(would))
    assert told(would) == told(reconciler.run())


def test_a_ledger_that_is_itself_the_directory_gets_all_of_it(data: Path, server: AlpacaServer) -> None:
    """1.2: a person with one account needs no teams."""
    (data / "events.jsonl").touch()
    order = server.place(team="alpha")
    quiet_run(healer(data, server), server)
    assert [order.id] == [row["order_id"] for row in Ledger(data).rows("pending_orders")]
    assert not (data / "team").exists()


def test_while_a_ledger_cannot_be_read_only_orders_with_a_name_are_adopted(data: Path, server: AlpacaServer) -> None:
    """Issue 4, 5 and 13, 9: an unknown order may be that ledger's, unless its name says that it is another's; the
    others are healed all the same."""
    reconciler = healer(data, server)
    known = server.place(team="alpha", type="limit", limit_price="10")
    quiet_run(reconciler, server)
    (data / "team/bravo/.state").mkdir(parents=True)
    (data / "team/bravo/events.jsonl").mkdir()
    server.fill(known.id)
    server.place()
    orders = {team: server.place(team=team, type="limit", limit_price="10").id for team in ("alpha", "bravo")}
    done = quiet_run(reconciler, server)

    assert ["alpha"] == [team.team_id for team in done.teams]
    assert orders["alpha"] in {row["order_id"] for row in Ledger(data / "team/alpha").rows("pending_orders")}
    assert orders["bravo"] in {one.order_id for one in done.problems}
    assert (["bravo"], ["not_adopted"] * 2) == (
        [one.team_id for one in done.failed],
        [one.kind for one in done.problems],
    )
    assert not (data / "team/unassigned").exists()


def test_only_one_at_a_time(data: Path, server: AlpacaServer) -> None:
    """Two that plan from the same view would append the same twice."""
    with turn(data), pytest.raises(ReconcileBusy):
        healer(data, server).run()


class TestSeveralAccounts:
    @pytest.fixture
    def server(self) -> Iterator[AlpacaServer]:
        with AlpacaServer(seed=1, start=START, rate_limit=None, plain=True, keys=KEYS) as one:
            yield one

    @pytest.fixture
    def both(self, data: Path, server: AlpacaServer) -> Reconciler:
        asked = []
        for name, (key, secret) in zip(("first", "second"), KEYS, strict=True):
            environ = {"APCA_API_KEY_ID": key, "APCA_API_SECRET_KEY": secret, "APCA_API_BASE_URL": server.url}
            broker = open_broker(find_credentials(environ), budget=Budget(100_000), sleep=lambda seconds: None)
            asked.append(AskedAccount(name, broker, f"{name}-team"))
        return Reconciler(data, asked, clock=server.clock, teams=TEAMS)

    def place(self, server: AlpacaServer, key: str) -> str:
        exchange = server.accounts[key].exchange
        return exchange.place(type="limit", limit_price="10", time_in_force="gtc").id

    def test_each_account_s_orders_go_to_its_team(self, data: Path, server: AlpacaServer, both: Reconciler) -> None:
        """Issue 4, 5: a configured account → team mapping; nobody asks one account for the other's orders."""
        ids = [self.place(server, key) for key, _ in KEYS]
        quiet_run(both, server)
        server.requests.clear()
        assert 0 == both.run().events
        assert ids == [rows(data, f"{name}-team")[0]["order_id"] for name in ("first", "second")]
        assert not [one for one in server.requests if any(order_id in one for order_id in ids)]

    def test_an_account_that_fails_stops_no_other(self, data: Path, server: AlpacaServer, both: Reconciler) -> None:
        """Issue 4, 4 and 5: what only that account could know is not concluded."""
        first, second = [self.place(server, key) for key, _ in KEYS]
        quiet_run(both, server)
        server.accounts[KEYS[0][0]].exchange.cancel(first)
        server.accounts[KEYS[1][0]].secret = "changed"
        done = quiet_run(both, server)

        assert (["second"], []) == (list(done.errors), done.problems)
        assert ([], [second]) == (rows(data, "first-team"), [row["order_id"] for row in rows(data, "second-team")])
        assert (None, 1) == (read_reconciled(data)["first"].error, read_reconciled(data)["second"].failures)

    def test_one_account_by_itself_does_not_ask_for_the_other_s_orders(
        self, data: Path, server: AlpacaServer, both: Reconciler
    ) -> None:
        """Issue 4, 5: each account has a loop of its own in `run`."""
        for key, _ in KEYS:
            self.place(server, key)
        quiet_run(both, server)
        server.requests.clear()
        done = both.run(only="first")
        assert (0, []) == (done.events, done.problems)
        assert 4 == len(server.requests), "positions, open orders, placed since, activities"


def test_the_memory_is_a_hint(data: Path, server: AlpacaServer) -> None:
    """A file that is gone or damaged costs one longer look back, and nothing else."""
    order = server.place(team="alpha", type="limit", limit_price="10")
    quiet_run(healer(data, server), server)
    memory = data / ".compactor" / "reconciled.json"
    assert json.loads(memory.read_text())["default"]["through"]
    for damage in (b"", b"{", b'{"default":{"through":"yesterday"}}', b"[]"):
        memory.write_bytes(damage)
        assert {} == read_reconciled(data)
        assert 0 == healer(data, server).run().events
    assert [order.id] == [row["order_id"] for row in rows(data, "alpha")]


@pytest.mark.parametrize("is_known", [True, False])
def test_a_line_of_another_team_in_a_log_books_nothing_twice(data: Path, server: AlpacaServer, is_known: bool) -> None:
    """1.1: bravo's line lies in alpha's log by mistake (a bad restore); one execution is one trade, in bravo."""
    order = server.place("SPY", "buy", 10, client_order_id="bravo:1", type="limit", limit_price="530.00")
    line = {"event": "new", "order_id": order.id, "ts": START, "team_id": "bravo"}
    Ledger(data / "team/bravo").append([{**line, "order_id": order.id if is_known else "another"}])
    (data / "team/alpha").mkdir()
    (data / "team/alpha/events.jsonl").write_text(json.dumps(line) + "\n")
    server.fill(order.id, 10, "529.90")
    healed = healer(data, server)
    for _ in range(2):
        assert order.id not in [one.order_id for one in quiet_run(healed, server).problems]
    assert (["10"], []) == ([one["quantity"] for one in trades(data, "bravo")], trades(data, "alpha"))


@pytest.mark.parametrize("name", ["c-1", "bravo:1"])
def test_a_team_gets_no_order_by_naming_it(data: Path, server: AlpacaServer, name: str) -> None:
    """4.12: alpha names bravo's order in its own log; the execution is written into bravo's alone, and it is said."""
    order = server.place("SPY", "buy", 10, client_order_id=name, type="limit", limit_price="530.00")
    terms = {"symbol": "SPY", "side": "buy", "quantity": "10", "order_type": "limit", "limit_price": "530.00"}
    line = {"event": "new", "order_id": order.id, "ts": START, **terms}
    for team in ("bravo", "alpha"):
        Ledger(data / "team" / team).append([line])
    server.fill(order.id, 10, "529.90")
    healed = healer(data, server)
    for _ in range(2):
        done = quiet_run(healed, server)
        assert [("contested", order.id)] == [(one.kind, one.order_id) for one in done.problems]
    assert (["10"], []) == ([one["quantity"] for one in trades(data, "bravo")], trades(data, "alpha"))
    assert 1 == read_reconciled(data)["default"].differences


def test_what_is_unassigned_moves_once_its_team_is_known(data: Path, server: AlpacaServer) -> None:
    """Issue 12, 5: by the events of 4.12, with its trades; a dry run only says so."""
    order = server.place("SPY", "buy", 10, client_order_id="delta:1", type="limit", limit_price="530.00")
    server.place("SPY", "buy", 1, client_order_id="2019-03-04T20:57:31.6", type="limit", limit_price="1")
    server.fill(order.id, 4, "529.90")
    assert {} == quiet_run(healer(data, server), server).moved
    assert {"unassigned"} == {path.name for path in (data / "team").iterdir()}

    known = healer(data, server, teams=["delta"])
    assert {order.id: "delta"} == known.run(dry_run=True).moved
    assert not (data / "team/delta").exists()
    assert {order.id: "delta"} == quiet_run(known, server).moved
    assert {} == quiet_run(known, server).moved
    assert ([order.id], 1) == ([row["order_id"] for row in rows(data, "delta")], len(rows(data, "unassigned")))
    net = {team: sum(int(one["quantity"]) for one in trades(data, team)) for team in ("delta", "unassigned")}
    assert {"delta": 4, "unassigned": 0} == net
    assert [] == quiet_run(healer(data, server), server).teams


def test_a_replacement_of_an_order_older_than_the_index_goes_to_its_team(
    data: Path, server: AlpacaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose order: what replaces an order of any age is its team's."""
    monkeypatch.setattr("compactor.books.followed_log.TAIL_BYTES", 1)
    old = server.place("SPY", "buy", 10, client_order_id="alpha:1", type="limit", limit_price="530.00")
    quiet_run(healer(data, server), server)
    for number in range(5):
        Ledger(data / "team/alpha").append([{"event": "canceled", "order_id": f"x-{number}", "ts": START}])
    new = server.exchange.replace(old.id, limit_price="531.00")
    quiet_run(healer(data, server), server)
    assert {new.id} == {row["order_id"] for row in rows(data, "alpha")}


def test_after_a_paper_reset_missing_orders_can_be_forgotten(data: Path, server: AlpacaServer) -> None:
    """Issue 16, 5: `compactor reconcile --forget-missing` asks first, and ends what the broker does not have."""
    server.place("AAPL", "buy", 10, team="alpha", type="limit", limit_price="2")
    quiet_run(healer(data, server), server)
    server.exchange.orders.clear()
    server.exchange.by_client_id.clear()
    command = ["reconcile", str(data), "--once", "--forget-missing"]
    refused = CliRunner().invoke(app, command, env=server.environment, input="n\n")
    assert 1 == refused.exit_code
    assert "End 1 orders that the broker does not have?" in refused.output
    assert "Not confirmed, so nothing was done" in refused.output and "bug" not in refused.output
    assert 1 == len(rows(data, "alpha"))
    done = CliRunner().invoke(app, [*command, "--yes"], env=server.environment)
    assert 0 == done.exit_code, done.output
    assert [] == rows(data, "alpha")
    assert 2 == CliRunner().invoke(app, ["reconcile", str(data), "--forget-missing"], env=server.environment).exit_code


@pytest.mark.parametrize(("skew", "waits"), [(-120, True), (0, False), (120, False)])
def test_quiet_is_by_the_broker_s_clock(data: Path, server: AlpacaServer, skew: int, waits: bool) -> None:
    """Issue 16, 5: with clocks two minutes apart, what happened just now is not quiet, and nothing else waits."""
    server.gate.skew_seconds = skew
    clock = server.exchange.clock
    server.place("AAPL", "buy", 10, team="alpha", type="limit", limit_price="2")
    clock.advance(5 if skew < 0 else 30)
    asked = AskedAccount("default", broker_of(server))
    ours = Reconciler(data, [asked], clock=lambda: clock.unix() - skew, sleep=clock.advance, teams=["alpha"])
    assert waits == bool(ours.run().waiting)


def test_an_error_of_a_gateway_tells_nothing_of_the_broker_s_clock(server: AlpacaServer) -> None:
    """Issue 16, 5: its clock is another one, by which all that happened two minutes ago would not be quiet."""
    broker = broker_of(server)
    server.gate.skew_seconds = 120
    broker.read_account_id()
    server.fail_next("GET /v2/orders", "server_error", times=4)
    with pytest.raises(BrokerUnavailable):
        broker.read_open_orders()
    assert 120 == pytest.approx(broker.skew_seconds, abs=3)


def test_a_bust_of_an_execution_that_rest_told_first_is_applied(data: Path, server: AlpacaServer) -> None:
    """Issue 16, 5: where the ids match, the stream's bust names the trade; nothing waits for the next reconcile."""
    server.account.writer.activity_ids_match = True
    order = server.place("AAPL", "buy", 10, team="alpha", type="limit", limit_price="2")
    execution = server.fill(order.id, 10, "2")
    assert execution is not None
    quiet_run(healer(data, server), server)
    server.bust(execution.id)
    update = server.account.told[-1][1]
    frame = server.account.writer.encode({"stream": "trade_updates", "data": update})
    StreamWriter(data, translate_message, index=OrderIndex(data, ["alpha"])).store([frame])
    with Ledger(data / "team/alpha") as ledger:
        ledger.compact()
        assert ["10", "-10"] == [trade["quantity"] for trade in ledger.rows("trades")]
    assert 0 == quiet_run(healer(data, server), server).events


def test_a_ledger_that_cannot_be_read_is_no_failure_of_the_account(data: Path, server: AlpacaServer) -> None:
    """Issue 13, 9: it is confined to its ledger, and named; what that lacks is looked for again later."""
    server.place("AAPL", "buy", 10, team="alpha", type="limit", limit_price="2")
    reconciler = healer(data, server)
    quiet_run(reconciler, server)
    before = read_reconciled(data)["default"]
    (data / "team/broken/events.jsonl").mkdir(parents=True)
    done = quiet_run(reconciler, server)
    assert ["broken"] == [one.team_id for one in done.unreadable]
    after = read_reconciled(data)["default"]
    assert (None, 0, before.through) == (after.error, after.failures, after.through)


def test_an_execution_with_the_old_numbers_of_a_corrected_one_is_another(data: Path, server: AlpacaServer) -> None:
    """Issue 4, 8: what REST told and was corrected is known by its id, whichever other execution is like it was."""
    reconciler = healer(data, server)
    order = server.place("AAPL", "buy", 10, team="alpha", type="limit", limit_price="2")
    first = server.fill(order.id, 1, "2")
    assert first is not None
    quiet_run(reconciler, server)
    server.correct(first.id, 1, "1.99")
    server.fill(order.id, 3, "1.5")
    server.fill(order.id, 1, "2")
    quiet_run(reconciler, server)

    assert [] == list(differences(server.truth(), data, set()))
    assert ["fill", "reversal", "correction", "fill", "fill"] == [one["kind"] for one in trades(data, "alpha")]
    assert 0 == quiet_run(reconciler, server, DAY + 1).events


def test_an_execution_that_was_taken_back_and_is_there_again_is_booked_again(data: Path, server: AlpacaServer) -> None:
    """Issue 4, 8: under the id of its activity it would be the first delivered once more, and be dropped."""
    reconciler = healer(data, server)
    order = server.place("AAPL", "buy", 10, team="alpha", type="limit", limit_price="2")
    first = server.fill(order.id, 4, "2")
    assert first is not None
    quiet_run(reconciler, server)
    server.bust(first.id)
    quiet_run(reconciler, server)
    assert ["fill", "reversal"] == [one["kind"] for one in trades(data, "alpha")]
    server.exchange.orders[order.id].executions[0].busted = False
    server.exchange.orders[order.id].recount()
    quiet_run(reconciler, server)

    assert [] == list(differences(server.truth(), data, set()))
    assert ["fill", "reversal", "fill"] == [one["kind"] for one in trades(data, "alpha")]
    assert 0 == quiet_run(reconciler, server, DAY + 1).events


def test_an_execution_that_the_ledger_took_for_another_one_is_booked_under_a_name_of_its_own(
    data: Path, server: AlpacaServer
) -> None:
    """Chaos, 55301: a correction that nobody told counted a share less, so that the next execution that the stream told
    was one too many by the broker's count, and for the ledger one that it had, with the same numbers (4.3)."""
    server.account.writer.activity_ids_match = True
    reconciler = healer(data, server)
    order = server.place("AAPL", "buy", 10, team="alpha", type="limit", limit_price="2")
    server.fill(order.id, 2, "1.5")
    corrected = server.fill(order.id, 2, "1.75")
    assert corrected is not None
    quiet_run(reconciler, server)
    server.correct(corrected.id, 1, "1.5")
    unheard = len(server.account.told)
    server.fill(order.id, 2, "1.5")
    server.fill(order.id, 1, "2")
    told = [{"stream": "trade_updates", "data": update} for _, update in server.account.told[unheard:]]
    StreamWriter(data, translate_message, index=OrderIndex(data, ["alpha"])).store(
        map(server.account.writer.encode, told)
    )
    quiet_run(reconciler, server)

    assert [] == list(differences(server.truth(), data, set()))
    assert 0 == quiet_run(reconciler, server, DAY + 1).events
