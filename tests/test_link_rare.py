"""What the link to the broker does on rare days: endpoints that are closed, damaged files, teams that are new."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from compactor import Ledger, discover
from compactor.books.order_index import OrderIndex
from compactor.broker import intents
from compactor.broker.adapters import find_credentials, open_broker
from compactor.broker.alpaca.access import find_version
from compactor.broker.alpaca.adapter import AlpacaAccount
from compactor.broker.alpaca.leg_executions import EntryReader, LegBook
from compactor.broker.alpaca.resend import EventStreams, WindowResult
from compactor.broker.alpaca.rest import AlpacaRest
from compactor.broker.alpaca.stream import TradeStream
from compactor.broker.alpaca.translate import translate, translate_message
from compactor.broker.alpaca.transport import DeadlineExceeded, NoAnswer, Transport
from compactor.broker.budget import Budget
from compactor.broker.intents import is_running, name_process, resolve_intents
from compactor.broker.placing import Trader
from compactor.broker.port import BrokerUnavailable, RateLimited, ResendPoint, ResendResult
from compactor.core.instants import rfc3339
from compactor.sync import carried
from compactor.sync.answers import Accounts, AskedAccount
from compactor.sync.carried import CarriedSums
from compactor.sync.gaps import FILE as RESEND_FILE
from compactor.sync.gaps import Gaps
from compactor.sync.open_ledgers import OpenLedgers, TeamReconciled
from compactor.sync.plan import Rules
from compactor.sync.reconcile import Reconciler
from compactor.sync.revisions import plan_revisions
from compactor.sync.stream_writer import StreamWriter
from tests.scripted_alpaca import KEY, SECRET, ScriptedAlpaca, ago, error, make_fill, make_order, page
from tests.test_differences import activity, known, order, plan

NOW = 1_772_461_800_000_000_000


@pytest.fixture
def server() -> Iterator[ScriptedAlpaca]:
    with ScriptedAlpaca() as one:
        yield one


def open_account(server: ScriptedAlpaca) -> AlpacaAccount:
    account = open_broker(find_credentials(server.environment), budget=Budget(1000), tries=1)
    assert isinstance(account, AlpacaAccount)
    return account


def make_trader(server: ScriptedAlpaca, data: Path) -> Trader:
    return Trader(data, find_credentials(server.environment), budget=Budget(1000), sleep=lambda seconds: None)


def make_reconciler(server: ScriptedAlpaca, data: Path) -> Reconciler:
    return Reconciler(data, [AskedAccount("default", open_account(server))], teams=["alpha", "beta"])


def make_writer(data: Path, **more: Any) -> StreamWriter:
    return StreamWriter(data, translate_message, index=OrderIndex(data, ["alpha", "beta"]), **more)


def frame(fields: dict[str, Any], event: str = "new", **more: Any) -> bytes:
    data = {"event": event, "timestamp": ago(1), "order": fields, **more}
    return json.dumps({"stream": "trade_updates", "data": data}).encode()


def open_orders(data: Path, team: str) -> list[str]:
    with Ledger(data / "team" / team) as ledger:
        ledger.compact()
        return [row["order_id"] for row in ledger.rows("pending_orders")]


def add_order(data: Path, team: str, order_id: str, **fields: Any) -> None:
    """Another program writes an open order into a team's ledger."""
    with Ledger(data / "team" / team, team_id=team) as ledger:
        ledger.append(translate(make_order(order_id, **fields)).events)


# Requests.


@contextmanager
def serve_raw(answer: bytes, *, is_held: bool) -> Iterator[str]:
    """The address of a server that sends these bytes; with `is_held` it then says nothing more and does not hang up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        is_over = threading.Event()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(answer)
                if is_held:
                    is_over.wait(20)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            is_over.set()
            thread.join(20)


def make_transport(url: str, **more: Any) -> Transport:
    environment = {"ALPACA_API_KEY": KEY, "ALPACA_SECRET_KEY": SECRET, "APCA_API_BASE_URL": url}
    return Transport(find_credentials(environment), **more)


def test_an_answer_without_a_length_that_the_deadline_cuts_off_is_none() -> None:
    """Its end is the end of the connection, which the deadline makes: half a list must not be read as all of it."""
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n[]"
    with serve_raw(answer, is_held=False) as url:
        assert b"[]" == make_transport(url).send("GET", "/orders").body
    with (
        serve_raw(answer, is_held=True) as url,
        pytest.raises(DeadlineExceeded, match="/orders: expected a complete answer"),
    ):
        make_transport(url, deadline_seconds=0.1).send("GET", "/orders")


@pytest.mark.parametrize(
    ("deadline_seconds", "failure", "said"),
    [(0.05, DeadlineExceeded, "expected a complete answer within 0.05 s"), (60, NoAnswer, "is the network up")],
)
def test_a_machine_that_takes_no_connection_is_given_up(
    deadline_seconds: float, failure: type[NoAnswer], said: str
) -> None:
    """Connecting has a limit of its own, and the deadline of the whole request holds as well."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for one in (first, second):
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        with pytest.raises(NoAnswer, match=said) as caught:
            make_transport(url, timeout_seconds=(0.2, 0.2), deadline_seconds=deadline_seconds).send("GET", "/orders")
    assert failure is type(caught.value)


def test_a_library_that_is_not_installed_has_no_version() -> None:
    assert "none" == find_version("no-such-library")


def test_the_port_reads_the_stream_and_its_messages(server: ScriptedAlpaca) -> None:
    """What the daemon gets of an account: its stream, with its keys, and the translation of a message."""
    account = open_account(server)

    class Listener:
        def connected(self) -> None:
            server.push({"event": "new", "timestamp": ago(1), "order": make_order("o")})

        def disconnected(self, reason: str, pause_seconds: float) -> None:
            raise AssertionError(reason)

        def refused(self, error: Exception) -> None:
            raise error

        def received(self, messages: list[bytes]) -> None:
            found.extend(event for one in messages for event in account.translate(one).events)
            stream.stop()

    found: list[dict[str, Any]] = []
    stream = account.open_stream(Listener())  # type: ignore[arg-type]
    assert isinstance(stream, TradeStream)
    stream.run()
    assert [("new", "o")] == [(event["event"], event["order_id"]) for event in found]


def test_executions_of_a_spread_s_leg_are_looked_for_under_its_parent_too(server: ScriptedAlpaca) -> None:
    """The activities of a leg may name either; those of another order need one question only."""
    account = open_account(server)
    leg = {"order_id": "leg", "order_class": "mleg", "parent_order_id": "parent"}
    account.read_order_fills(leg, ago(60))
    account.read_order_fills({**leg, "order_class": "bracket"}, ago(60))
    assert ["leg", "parent", "leg"] == [one.partition("order_id=")[2].partition("&")[0] for one in server.seen]


# `doctor --broker`.


def test_a_resend_that_refuses_the_keys_says_nothing_of_the_account(server: ScriptedAlpaca) -> None:
    server.answers["GET", "/v2/events/trades"] = error(401, 40110000, "not authorized")
    found = {one.check: one for one in open_account(server).examine(150)}
    one = found["resend of trades"]
    assert ("different", "/v2/events/trades refuses these keys") == (one.verdict, one.found)
    assert "A gap is closed by activities, or by the reconcile alone." == one.follows
    assert "as expected" == found["permissions"].verdict


def test_an_account_that_is_no_object_tells_nothing(server: ScriptedAlpaca) -> None:
    server.answers["GET", "/v2/account"] = lambda request: []
    found = {one.check: one for one in open_account(server).examine(150)}
    for name in ("permissions", "clock", "rate limit"):
        assert ("could not tell", "/account: found [], expected an object") == (found[name].verdict, found[name].found)


# Resends and lists.


def test_an_unreadable_entry_hides_no_spread_behind_it() -> None:
    """The legs of every order in a resend are asked for, whatever stands between them."""
    asked: list[str] = []
    reader = EntryReader(LegBook(asked.append))
    trade = {"activity_type": "TRD", "details": {"order_id": "o", "symbol": "AAPL260320C00100000", "side": "buy"}}
    assert "" == reader.prepare([b"\xff", b"[]", json.dumps(trade).encode()])
    assert ["o"] == asked


def test_an_entry_about_money_in_the_stream_is_named(server: ScriptedAlpaca) -> None:
    found = translate({"activity_type": "DIV", "details": {"amount": "1"}})
    assert ([], ["bad_value"]) == (found.events, [problem.kind for problem in found.problems])
    assert 'an activity "DIV", which is no fill of an order; expected FILL or TRD' == found.problems[0].detail


def test_a_rate_limit_while_families_are_looked_for_ends_the_list(server: ScriptedAlpaca) -> None:
    """Whoever goes on would make it worse, and a family that is left out is not told."""
    server.orders["b"] = make_order("b", order_class="bracket", replaces="a")
    server.answers["GET", "/v2/orders/a"] = error(429, 42910000, "slow down")
    with pytest.raises(RateLimited):
        open_account(server).read_open_orders()


def test_a_damaged_memory_of_resends_costs_one_that_looks_further_back(server: ScriptedAlpaca, data: Path) -> None:
    """As if there had been none before: an hour, and five minutes on top."""
    server.resent["/v2/events/trades"] = []
    memory = data / ".compactor" / RESEND_FILE
    damaged = (b"{", b'{"default":{"kind":"trades","through":"yesterday"}}')
    for text in damaged:
        memory.parent.mkdir(exist_ok=True)
        memory.write_bytes(text)
        done = Gaps(data, "default", open_account(server), make_writer(data), clock=lambda: NOW / 1e9).close()
        assert ("trades", True) == (done.kind, done.complete)
        since = server.seen[-1].partition("since=")[2].partition("&")[0].replace("%3A", ":")
        assert rfc3339(NOW - 3900 * 10**9) == since
        assert rfc3339(NOW) == json.loads(memory.read_bytes())["default"]["through"]


def test_executions_whose_legs_are_not_answered_for_are_named(server: ScriptedAlpaca) -> None:
    """In the list of an account, too: what is left out is not silent."""
    server.fills = [
        make_fill("p", "e", "1", "1", "1", 60, symbol="SPY261218C00500000"),
        make_fill("q", "f", "1", "1", "1", 50),
    ]
    server.answers["GET", "/v2/orders/p"] = error(500, 50010000, "internal")
    found = open_account(server).read_fills_since(ago(3600))
    assert ["q"] == [event["order_id"] for event in found.events]
    [problem] = found.problems
    assert "order_unanswered" == problem.kind
    assert problem.detail.startswith(
        "its executions are left out: the legs of order p are unknown: order p: the broker"
    )
    server.answers.clear()
    server.orders["p"] = make_order("p")
    assert [] == open_account(server).read_fills_since(ago(3600)).problems


# Intents.


def announce(data: Path, team: str, **more: Any) -> None:
    name = f"{team}:1"
    event = {"event": "submitting", "order_id": name, "client_order_id": name, "ts": rfc3339(NOW), "source": "app"}
    ledger = data / "team" / team
    ledger.mkdir(parents=True)
    (ledger / "events.jsonl").write_text(json.dumps(event | more) + "\n")


def test_intents_behind_a_directory_that_is_no_ledger_are_resolved(server: ScriptedAlpaca, data: Path) -> None:
    """One bad directory stops no other team."""
    for team in ("beta", "gamma"):
        announce(data, team)
    (data / "team/!").mkdir()
    (data / "team/!/events.jsonl").touch()
    entries = discover(data)
    assert ["!"] == [entry.team_id for entry in entries if entry.problem is not None]
    resolved = resolve_intents(entries, [open_account(server)], now=NOW / 1e9 + 601)
    assert ["beta", "gamma"] == [one.team_id for one in resolved]
    assert {"never_placed"} == {one.outcome for one in resolved}


def test_an_intent_whose_order_the_broker_has_but_nobody_can_read_stays_open(
    server: ScriptedAlpaca, data: Path
) -> None:
    """It may be live: whoever asked for it must not be told that it was never placed. Later it is adopted."""
    announce(data, "alpha")
    path = ("GET", "/v2/orders:by_client_order_id")
    server.answers[path] = lambda request: make_order("o", name="alpha:1", id=None)
    assert [] == resolve_intents(discover(data), [open_account(server)], now=NOW / 1e9 + 601)
    server.answers[path] = lambda request: make_order("o", name="alpha:1")
    resolved = resolve_intents(discover(data), [open_account(server)], now=NOW / 1e9 + 601)
    assert [("adopted", "o")] == [(one.outcome, one.order_id) for one in resolved]


def test_an_intent_whose_line_cannot_be_read_waits_for_nobody(server: ScriptedAlpaca, data: Path) -> None:
    """Nobody can say how old it is and who asks, and it must not stay open for ever."""
    announce(data, "alpha", note=7, writer=name_process())
    resolved = resolve_intents(discover(data), [open_account(server)], now=NOW / 1e9)
    assert ["never_placed"] == [one.outcome for one in resolved]


def test_where_a_machine_has_no_name_nobody_can_say_who_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without /proc: an intent of it is left alone as one of another machine."""

    def refuse(path: str) -> str:
        raise PermissionError(path)

    monkeypatch.setattr("compactor.broker.intents.os.readlink", refuse)
    intents._name_machine.cache_clear()
    try:
        assert name_process().startswith("/")
        assert is_running(name_process()) is None
    finally:
        intents._name_machine.cache_clear()


# Placing.


def test_a_replacement_of_nobody_s_order_is_written_nowhere_and_returned(server: ScriptedAlpaca, data: Path) -> None:
    """No ledger has it and its name is no team's: the next reconcile says whose both are."""
    server.orders["a"] = make_order("a", name="random")
    server.answers["PATCH", "/v2/orders/*"] = lambda request: make_order("b", name="other", replaces="a")
    assert "b" == make_trader(server, data).replace("a", limit_price="99")["id"]
    assert [] == discover(data)


def test_a_replacement_of_an_order_of_nobody_is_written_where_its_new_name_says(
    server: ScriptedAlpaca, data: Path
) -> None:
    add_order(data, "alpha", "x")
    server.orders["a"] = make_order("a", name="random")
    server.answers["PATCH", "/v2/orders/*"] = lambda request: make_order("b", name="alpha:2", replaces="a")
    make_trader(server, data).replace("a", limit_price="99")
    assert ["x", "b"] == open_orders(data, "alpha")


def test_a_replacement_whose_answer_was_lost_is_found_out_later(server: ScriptedAlpaca, data: Path) -> None:
    """Its intent says that nobody asks any more, so that a minute is enough to call it never placed."""
    add_order(data, "alpha", "a")
    server.orders["a"] = make_order("a")
    server.answers["PATCH", "/v2/orders/*"] = page(502)
    with pytest.raises(BrokerUnavailable):
        make_trader(server, data).replace("a", limit_price="99")
    lines = [json.loads(line) for line in (data / "team/alpha/events.jsonl").read_text().splitlines()][1:]
    assert [("submitting", "a"), ("submitting", "a")] == [(one["event"], one["request"]["replaces"]) for one in lines]
    assert is_running(lines[0]["writer"]) is True
    assert is_running(lines[1]["writer"]) is False


# A reconcile.


def test_a_rate_limit_while_orders_are_watched_ends_the_run(server: ScriptedAlpaca, data: Path) -> None:
    """An order that was left out for it would be called missing."""
    reconciler = make_reconciler(server, data)
    server.orders["a"] = make_order("a", name="alpha:1", seconds_ago=1)
    assert ["a"] == reconciler.run().waiting
    server.orders.clear()
    server.answers["GET", "/v2/orders/a"] = error(429, 42910000, "slow down")
    with pytest.raises(RateLimited):
        reconciler.run()


def test_the_account_of_an_order_is_known_after_a_run(server: ScriptedAlpaca, data: Path) -> None:
    reconciler = make_reconciler(server, data)
    server.orders["a"] = make_order("a")
    reconciler.run()
    assert ("default", None) == (reconciler.find_home("a"), reconciler.find_home("b"))


def test_an_order_whose_account_is_not_known_has_the_rules_of_none(server: ScriptedAlpaca) -> None:
    accounts, rules = Accounts(), Rules(account_team="alpha")
    accounts.by_name["one"] = AskedAccount("one", open_account(server), team="beta")
    assert rules is accounts.find_rules("a", rules)
    accounts.homes["a"] = "one"
    assert "beta" == accounts.find_rules("a", rules).account_team


def test_what_cannot_be_written_into_a_link_is_the_team_s_error(data: Path) -> None:
    """The other teams are written; this one is named with its path."""
    (data / "team").mkdir()
    (data / "team/alpha").symlink_to(data)
    ledgers = OpenLedgers(data)
    team = TeamReconciled("alpha", str(data / "team/alpha"), [])
    ledgers.append(team)
    assert team.error is not None
    assert "team/alpha" in str(team.error)
    assert [] == ledgers.paths


def test_a_log_is_read_for_open_requests_only_where_there_may_be_one(
    data: Path, write_log: Callable[..., Path], placed: Callable[..., dict[str, Any]]
) -> None:
    """What is not in memory may have one."""
    ledgers, path = OpenLedgers(data), write_log("alpha", placed())
    assert ledgers.may_have_intents(path)
    ledgers.read()
    assert not ledgers.may_have_intents(path)
    asked = {"event": "submitting", "order_id": "c-1", "client_order_id": "c-1", "ts": "2026-01-05T14:30:00Z"}
    write_log("alpha", asked)
    ledgers.read()
    assert ledgers.may_have_intents(path)
    ledgers.close()


def test_a_ledger_s_row_names_no_successor_that_is_another_team_s() -> None:
    """While an order lies in `unassigned`, its successor may be a team's; a row of it there would be a second one."""
    view = {"o1": known(), "b": known(row={"order_id": "b", "status": "new"})}
    view["b"].team_id = "beta"
    replaced = order(status="replaced", replaced_by="b", updated_at="2026-03-02T15:10:00Z")
    [event] = plan([replaced, order("b", client_order_id="x", replaces="o1")], view).events["alpha"]
    assert ("o1", "replaced") == (event["order_id"], event["order_status"])
    assert "replaced_by" not in event
    view["b"].team_id = "alpha"
    [event] = plan([replaced, order("b", client_order_id="x", replaces="o1")], view).events["alpha"][:1]
    assert "b" == event["replaced_by"]


def test_two_activities_under_one_id_are_two_executions() -> None:
    """Their numbers tell which of them a trade is."""
    [first, second] = translate([activity(1, "2", "10"), activity(2, "3", "11")]).events
    standing = known((None, "2", "10"), ("x", "3", "11")).standing
    same = {**second, "execution_id": first["execution_id"]}
    assert [] == plan_revisions(order(), [first, same], standing, {"x"})
    standing = known(("x", "4", "12"), ("y", "2", "10")).standing
    [event] = plan_revisions({"order_id": "o1", "ts": NOW}, [first, same], standing, {"x", "y"})
    assert ("trade_correct", "x", "3") == (event["event"], event["previous_execution_id"], event["qty"])


# The stream's writer.


def test_an_order_of_a_team_that_is_new_meanwhile_is_that_team_s(data: Path) -> None:
    """Another program has made its ledger since; what its own log says comes before a name."""
    writer = make_writer(data)
    for _ in range(2):
        writer.store([frame(make_order("x", name="alpha:1"))])
    add_order(data, "gamma", "o", name="random")
    done = writer.store([frame(make_order("o", name="random"), "pending_cancel")])
    assert (1, 0) == (done.events, done.unread)
    assert (["x"], ["o"]) == (open_orders(data, "alpha"), open_orders(data, "gamma"))
    assert ["alpha", "gamma"] == [entry.team_id for entry in discover(data)]


def test_legs_of_an_order_that_cannot_be_read_are_its_team_s(data: Path) -> None:
    """The order's own name says whose they are; the message lies as it came beside them."""
    legs = [make_order("leg", name="random", status="held")]
    odd = {"id": "o", "client_order_id": "beta:1", "order_class": "bracket", "legs": legs}
    message = {"stream": "trade_updates", "data": {"event": "new", "order": odd}}
    done = make_writer(data).store([json.dumps(message).encode()])
    assert (1, 1) == (done.events, done.unread)
    assert ["leg"] == open_orders(data, "beta")
    assert 2 == len((data / "team/beta/events.jsonl").read_text().splitlines())


# What is carried over.


def test_a_log_that_cannot_be_read_leaves_the_sums_to_the_reconcile(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can say then what a replacement had of its own."""
    index = OrderIndex(data, ["alpha"])

    def refuse(order_id: str, team: str) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(index, "read_order", refuse)
    event = translate(make_order("b", replaces="a", filled_qty="3", filled_avg_price="10")).events[0]
    kept = CarriedSums(index).leave_out(event, "alpha")
    assert not {"filled_qty", "filled_avg_price"} & kept.keys()


def test_what_is_remembered_of_replacements_is_bounded(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carried, "_KEPT_MAX", 2)
    sums = CarriedSums(OrderIndex(data, ["alpha"]))
    for number in range(6):
        sums.leave_out(translate(make_order(f"o{number}", replaced_by="b", filled_qty="3")).events[0], "alpha")
        assert len(sums._replaced) <= 3
    assert {"o3", "o4", "o5"} == sums._replaced.keys()


def test_a_name_claims_for_a_team_that_there_is(data: Path) -> None:
    """Or for the account's own, which may have no ledger yet; a name of nobody is no claim."""
    for account_team, teams in (("gamma", ["gamma"]), (None, ["unassigned"])):
        writer = make_writer(data / str(account_team), account_team=account_team)
        writer.store(
            [frame(make_order(f"o{number}", name=name)) for number, name in enumerate(("gamma:1", "nobody:1"))]
        )
        assert teams == [entry.team_id for entry in discover(data / str(account_team))]


def test_whoever_brings_no_budget_has_one_of_his_own(server: ScriptedAlpaca) -> None:
    """150 requests a minute, four tries, and the limits of time that the documents name."""
    keys = find_credentials(server.environment)
    server.resent["/v2/events/trades"] = []
    result = WindowResult()
    assert [] == list(EventStreams(keys).read("trades", ago(60), ago(0), result))
    assert result.complete
    assert server.account_id == AlpacaRest(keys).account()
    account = open_broker(keys)
    assert server.account_id == account.read_account_id()
    assert 1 == account.requests


def test_legs_that_are_unknown_in_one_batch_make_the_whole_resend_incomplete(
    server: ScriptedAlpaca, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many batches come after it."""
    monkeypatch.setattr("compactor.broker.alpaca.adapter.BATCH", 1)
    server.answers["GET", "/v2/orders/p"] = error(500, 50010000, "internal")
    server.resent["/v2beta1/events/activities"] = [
        {
            "activity_type": "TRD", "executed_at": ago(60), "at": ago(60), "ref_id": name, "price": "1", "qty": "1",
            "details": {"execution_type": "fill", "order_id": name, "symbol": symbol, "side": "buy"},
        }
        for name, symbol in (("p", "SPY261218C00500000"), ("q", "AAPL"))
    ]  # fmt: skip
    result = ResendResult()
    batches = list(open_account(server).resend(ago(3600), ago(0), ResendPoint(), result))
    assert [1, 1] == [len(one.messages) for one in batches]
    assert (True, False) == (result.is_delivered, result.complete)
    assert result.reason.startswith("the legs of order p are unknown")
