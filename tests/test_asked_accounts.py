"""What several accounts are asked, in which of them an order is, and what stays open where one does not answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from aiohttp import web

from compactor.broker.adapters import find_credentials, open_broker
from compactor.broker.alpaca.adapter import AlpacaAccount
from compactor.broker.budget import Budget
from compactor.broker.port import Capabilities, RateLimited
from compactor.core.instants import nanos, rfc3339
from compactor.sync.answers import AccountFailed, Accounts, AskedAccount, BrokerAnswers, is_due
from compactor.sync.state import AccountReconciled
from tests.scripted_alpaca import ScriptedAlpaca, ago, error, make_fill, make_order, page

NAMES = ["one", "two"]
MINUTE, HOUR, DAY, WEEK = 60, 3600, 86_400, 604_800


class Asked:
    """Accounts of scripted servers."""

    def __init__(self, servers: dict[str, ScriptedAlpaca]) -> None:
        self.servers = servers
        self.accounts = Accounts()
        self.ports: dict[str, AlpacaAccount] = {}
        self.told = BrokerAnswers()
        for name, server in servers.items():
            port = open_broker(find_credentials(server.environment), budget=Budget(100_000), tries=1)
            assert isinstance(port, AlpacaAccount)
            self.ports[name] = port
            self.accounts.by_name[name] = AskedAccount(name, port)

    def put(self, server: str, *order_ids: str, **fields: Any) -> None:
        self.servers[server].orders |= {one: make_order(one, **fields) for one in order_ids}

    def seen(self, server: str, part: str = "") -> list[str]:
        """The paths that an account was asked for since the last time, without their parameters."""
        found = [one.partition("?")[0].removeprefix("GET /v2/") for one in self.servers[server].seen if part in one]
        self.servers[server].seen.clear()
        return found

    def ask_all(self, memory: Any = None, names: list[str] = NAMES) -> Any:
        self.told, errors = self.accounts.ask_all(names, memory or {}, ago(0))
        return errors


@pytest.fixture
def asked() -> Iterator[Asked]:
    with ExitStack() as stack:
        yield Asked({name: stack.enter_context(ScriptedAlpaca()) for name in NAMES})


@pytest.fixture
def single() -> Iterator[Asked]:
    with ScriptedAlpaca() as server:
        yield Asked({"one": server})


# All lists.


def test_each_account_is_asked_for_its_lists(asked: Asked) -> None:
    """Positions first; then the orders of a week and the executions; and it is remembered where each order is."""
    asked.put("one", "a")
    asked.put("two", "b")
    assert {} == asked.ask_all()
    assert ["account", "positions", "orders", "orders", "account/activities/FILL"] == asked.seen("one")
    assert {"a", "b"} == asked.told.answers.orders.keys()
    assert {"a": "one", "b": "two"} == asked.accounts.homes
    assert 10 == asked.accounts.requests
    asked.ask_all()
    assert ["positions", "orders", "orders", "account/activities/FILL"] == asked.seen("one"), "its id stays"


def test_of_an_account_that_fails_nothing_is_taken(asked: Asked) -> None:
    """A list must not be there in part; where its orders are is still known, and of others it is known anew."""
    asked.put("one", "a", "old")
    asked.put("two", "b", "gone")
    asked.ask_all()
    del asked.servers["one"].orders["old"], asked.servers["two"].orders["gone"]
    asked.servers["one"].answers["GET", "/v2/account/activities/FILL"] = page(502)
    errors = asked.ask_all()
    assert ["one"] == list(errors)
    assert {"b"} == asked.told.answers.orders.keys()
    assert {"a": "one", "old": "one", "b": "two"} == asked.accounts.homes


def look_back(asked: Asked, memory: AccountReconciled) -> tuple[int, int]:
    """How many seconds before now orders and executions are asked for."""
    asked.seen("one")
    now = nanos("2026-03-02T15:00:00Z")
    asked.accounts.ask_all(["one"], {"one": memory}, rfc3339(now))
    found = [one for one in asked.servers["one"].seen if "after=" in one]
    times = [one.partition("after=")[2].partition("&")[0].replace("%3A", ":") for one in found]
    orders, fills = (round((now - nanos(one)) / 1e9) for one in times)
    return orders, fills


def before(seconds: float) -> str:
    return rfc3339(nanos("2026-03-02T15:00:00Z") - int(seconds * 1e9))


def test_how_far_the_lists_look_back(single: Asked) -> None:
    """live.md: ten minutes behind what is known; a day every hour, a week every day, and at first."""
    server, account_id = single.servers["one"], single.servers["one"].account_id
    server.account_id = account_id

    def known(through: float, day: float = 60, week: float = 60) -> AccountReconciled:
        return AccountReconciled(account_id, before(through), before(day), before(week))

    assert (WEEK, WEEK) == look_back(single, AccountReconciled())
    assert (WEEK, WEEK) == look_back(single, AccountReconciled("another", before(60), before(60), before(60)))
    assert (660, 660) == look_back(single, known(60))
    assert (600, 600) == look_back(single, known(-500)), "a clock that was ahead hides nothing"
    assert (660, 660) == look_back(single, known(60, HOUR - 1, DAY - 1))
    assert (DAY, 660) == look_back(single, known(60, HOUR))
    assert (WEEK, WEEK) == look_back(single, known(60, HOUR, DAY))
    assert (3 * DAY + 600, 3 * DAY + 600) == look_back(single, known(3 * DAY, HOUR))
    assert (WEEK, WEEK) == look_back(single, AccountReconciled(account_id, None, before(60), before(60)))


def test_what_was_due_an_hour_ago_is_due() -> None:
    assert [False, True, True] == [is_due(before(ago), before(0), HOUR) for ago in (HOUR - 0.001, HOUR, HOUR + 1)]
    assert is_due(None, before(0), HOUR)


def test_orders_that_wait_are_asked_for_unless_a_list_has_them(single: Asked) -> None:
    """One that is not answered for goes on waiting, and its account is known; one that is gone is no more."""
    single.put("one", "listed", "leg", "broken")
    server = single.servers["one"]
    server.hide = {"leg", "broken"}
    server.answers["GET", "/v2/orders/broken"] = error(500, 50010000, "internal")
    memory = AccountReconciled(server.account_id, ago(60), ago(60), ago(60), ["listed", "leg", "broken", "gone"])
    single.put("one", "listed", seconds_ago=30)
    assert {} == single.ask_all({"one": memory}, ["one"])
    assert ["orders/leg", "orders/broken", "orders/gone"] == single.seen("one", "/v2/orders/")
    assert {"listed", "leg"} == single.told.answers.orders.keys()
    assert ["broken"] == list(single.told.still_waiting)
    assert {"listed": "one", "leg": "one", "broken": "one"} == single.accounts.homes


def test_an_account_that_does_not_say_what_it_holds_is_reconciled(single: Asked) -> None:
    """It is known why; as soon as it does, it is known what."""
    server = single.servers["one"]
    server.positions = [{"symbol": "A", "qty": "1"}]
    server.answers["GET", "/v2/positions"] = page(502)
    assert {} == single.ask_all(names=["one"])
    assert {} == single.accounts.held
    assert "HTTP 502" in single.accounts.unheld["one"]
    server.answers.clear()
    single.ask_all(names=["one"])
    assert ({}, ["one"]) == (single.accounts.unheld, list(single.accounts.held))
    single.ports["one"].capabilities = Capabilities(tells_positions=False)
    single.ask_all(names=["one"])
    assert ({}, {}) == (single.accounts.unheld, single.accounts.held)


def test_the_clock_that_is_ahead_least_counts(asked: Asked) -> None:
    """In whole seconds; what happened just now by any clock must not count as quiet."""
    for name, skew in (("one", 120.4), ("two", -7.6)):
        asked.ports[name].rest.skew_seconds = skew
    assert [120, -8, -8, 0] == [asked.accounts.find_skew(names) for names in (["one"], ["two"], NAMES, [])]


def test_what_moved_positions_is_not_known_where_nobody_says_it(single: Asked) -> None:
    server = single.servers["one"]
    server.activities = [{"id": "1", "activity_type": "SPLIT", "symbol": "A", "qty": "1", "date": ago(0)[:10]}]
    found = single.accounts.ask_adjustments("one", ago(60))
    assert found is not None
    assert ["SPLIT"] == [one.kind for one in found]
    server.answers["GET", "/v2/account/activities"] = page(502)
    assert single.accounts.ask_adjustments("one", ago(60)) is None


# Orders by id.


def test_an_order_is_asked_for_where_it_is_or_everywhere(asked: Asked) -> None:
    asked.put("two", "b", "b2")
    asked.accounts.homes["b2"] = "two"
    for order_id in ("b", "b2", "none"):
        asked.accounts.ask_order(order_id, asked.told, NAMES)
    assert (["orders/b", "orders/none"], ["orders/b", "orders/b2", "orders/none"]) == (
        asked.seen("one"), asked.seen("two")
    )  # fmt: skip
    assert {"b", "b2"} == asked.told.answers.orders.keys()
    assert "two" == asked.accounts.homes["b"]
    assert ({"none"}, set()) == (asked.told.missing, asked.told.unasked)


def test_an_order_is_missing_only_if_every_account_that_may_have_it_says_so(asked: Asked) -> None:
    """One that does not answer at all may have it, also where another one had it last."""
    asked.accounts.homes |= {"hers": "one", "theirs": "two"}
    for order_id in ("hers", "theirs", "anybody's"):
        asked.accounts.ask_order(order_id, asked.told, ["one"])
    assert (set(), {"hers", "theirs", "anybody's"}) == (asked.told.missing, asked.told.unasked)
    assert ["orders/hers", "orders/anybody's"] == [one.replace("%27", "'") for one in asked.seen("one")]
    asked.told = BrokerAnswers()
    for order_id in ("hers", "theirs", "anybody's"):
        asked.accounts.ask_order(order_id, asked.told, NAMES)
    assert ({"hers", "theirs", "anybody's"}, set()) == (asked.told.missing, asked.told.unasked)
    asked.accounts.homes["old"] = "an account that is configured no more"
    asked.accounts.ask_order("old", asked.told, NAMES)
    assert {"old"} == asked.told.unasked


def test_an_order_that_is_not_answered_for_stays_open(asked: Asked) -> None:
    """It is named, and no other account is asked: the answer of the first may be yes."""
    asked.servers["one"].answers["GET", "/v2/orders/a"] = error(500, 50010000, "internal")
    asked.put("two", "a")
    asked.accounts.ask_order("a", asked.told, NAMES)
    assert ({"a"}, set(), {}) == (asked.told.unasked, asked.told.missing, asked.told.answers.orders)
    [problem] = asked.told.answers.problems
    assert ("order_unanswered", "a") == (problem.kind, problem.order_id)
    assert "all others are reconciled: order a: the broker answered HTTP 500" in problem.detail
    assert [] == asked.seen("two")


def test_an_answer_about_an_order_that_tells_nothing_of_it_leaves_it_open(single: Asked) -> None:
    single.servers["one"].answers["GET", "/v2/orders/*"] = lambda request: {"id": "a"}
    single.accounts.ask_order("a", single.told, ["one"])
    assert ({"a"}, set()) == (single.told.unasked, single.told.missing)


@pytest.mark.parametrize(
    ("answer", "limit"),
    [(error(500, 1, "x"), 10), (error(401, 40110000, "no"), 0), (error(429, 42910000, "slow"), 0)],
)
def test_an_account_fails_with_its_eleventh_order_or_for_more_than_an_order(
    asked: Asked, answer: Any, limit: int
) -> None:
    """Each account by itself."""
    asked.servers["one"].answers["GET", "/v2/orders/*"] = answer
    asked.accounts.homes |= {f"o{number}": "one" for number in range(20)}
    asked.told.unanswered["two"] = 10
    with pytest.raises(AccountFailed) as caught:
        for number in range(20):
            asked.accounts.ask_order(f"o{number}", asked.told, NAMES)
    assert ("one", str(caught.value)) == (caught.value.name, str(caught.value.error))
    assert limit == len(asked.told.answers.problems) == len(asked.told.unasked)


def test_three_orders_are_asked_for_together(single: Asked) -> None:
    """With the time of each: a list has others too, which are not taken. What the list has not is asked for by id."""
    single.put("one", "a", "b", "c", "other")
    single.servers["one"].hide = {"c"}
    at = single.servers["one"].orders["a"]["submitted_at"]
    single.accounts.ask_orders(dict.fromkeys("ab", at), single.told, ["one"])
    assert ["orders/a", "orders/b"] == single.seen("one")
    single.told = BrokerAnswers()
    single.accounts.ask_orders(dict.fromkeys("abc", at), single.told, ["one"])
    assert "orders/c" == single.seen("one")[-1]
    assert {"a", "b", "c"} == single.told.answers.orders.keys() == single.accounts.homes.keys()


def test_of_several_accounts_each_is_asked_together_for_its_own(asked: Asked) -> None:
    asked.put("one", "a", "b", "c")
    asked.put("two", "d", "e")
    asked.accounts.homes |= {**dict.fromkeys("abc", "one"), **dict.fromkeys("de", "two")}
    asked.accounts.ask_orders(dict.fromkeys("abcde", ago(7200)), asked.told, NAMES)
    assert ["orders"] == asked.seen("one")
    assert ["orders/d", "orders/e"] == asked.seen("two")
    assert set("abcde") == asked.told.answers.orders.keys()


def test_where_the_list_fails_each_is_asked_for(single: Asked) -> None:
    single.put("one", "a", "b", "c")
    single.servers["one"].answers["GET", "/v2/orders"] = page(502)
    single.accounts.ask_orders(dict.fromkeys("abc", ago(7200)), single.told, ["one"])
    assert ["orders", "orders/a", "orders/b", "orders/c"] == single.seen("one")
    assert [] == single.told.answers.problems


def test_the_teams_of_the_accounts_get_what_nobody_claims(asked: Asked) -> None:
    assert set() == asked.accounts.fallback
    asked.accounts.by_name["two"] = AskedAccount("two", asked.ports["two"], team="beta")
    assert {"beta"} == asked.accounts.fallback


def test_what_was_not_answered_is_asked_for_the_next_time() -> None:
    told = BrokerAnswers(fills_unanswered={"a"}, unasked={"b"}, missing={"b", "m"})
    told.still_waiting = {"c": RateLimited("slow", 1.0), "m": RateLimited("slow", 1.0)}
    assert {"a", "c"} == told.orders_to_watch


# Executions.


def fill(asked: Asked, server: str, order_id: str, qty: str = "2") -> None:
    order = make_order(order_id, filled_qty="2", filled_avg_price="1", status="partially_filled", updated_at=ago(60))
    asked.servers[server].orders[order_id] = order
    asked.servers[server].fills.append(make_fill(order_id, f"e-{order_id}", qty, "1", qty, 60))


def know(asked: Asked, home: str, *order_ids: str) -> None:
    for order_id in order_ids:
        asked.accounts.homes[order_id] = home
        found = asked.ports[home].read_order(order_id)
        assert found is not None
        asked.told.answers.take(found)
    asked.seen(home)


def test_executions_of_three_orders_are_asked_for_together(single: Asked) -> None:
    """Those that are complete then need no request of their own."""
    for name, qty in (("a", "2"), ("b", "2"), ("c", "1")):
        fill(single, "one", name, qty)
    know(single, "one", "a", "b", "c")
    single.accounts.ask_fills_together(["a", "b"], single.told)
    assert [] == single.seen("one")
    single.accounts.ask_fills_together(["a", "b", "c"], single.told)
    assert ["account/activities/FILL"] == single.seen("one")
    assert {"a", "b"} == single.told.fills_asked
    single.ports["one"].capabilities = Capabilities(tells_fills_of_orders=False)
    single.accounts.ask_fills_together(["a", "b", "c"], single.told)
    assert [] == single.seen("one")


def test_executions_are_asked_for_together_in_each_account(asked: Asked) -> None:
    """One that has too few does not keep the next from it; one that fails says nothing."""
    for name in "bcd":
        fill(asked, "two", name)
    fill(asked, "one", "a")
    know(asked, "two", *"bcd")
    know(asked, "one", "a")
    asked.accounts.ask_fills_together([*"abcd"], asked.told)
    assert ([], {*"bcd"}) == (asked.seen("one"), asked.told.fills_asked)
    asked.told.fills_asked.clear()
    asked.servers["two"].answers["GET", "/v2/account/activities/FILL"] = page(502)
    asked.accounts.ask_fills_together([*"abcd"], asked.told)
    assert set() == asked.told.fills_asked


def test_executions_of_one_order_are_asked_for_from_an_hour_before_it(single: Asked) -> None:
    """Or for a year, where nobody says when it was placed; an order without an answer counts as asked for."""
    fill(single, "one", "a")
    know(single, "one", "a")
    server = single.servers["one"]
    for created, seconds in ((before(120), 120 + HOUR), (None, 365 * DAY), ("soon", 365 * DAY)):
        single.told.answers.orders["a"]["created_at"] = created
        single.accounts.ask_fills("a", single.told, before(0))
        since = server.seen[-1].partition("after=")[2].partition("&")[0].replace("%3A", ":")
        assert before(seconds) == since
    assert {"a"} == single.told.fills_asked
    assert 1 == len(single.told.answers.fills["a"])
    server.answers["GET", "/v2/account/activities/FILL"] = page(502)
    single.accounts.ask_fills("a", single.told, before(0))
    assert ({"a"}, ["order_unanswered"]) == (
        single.told.fills_unanswered, [one.kind for one in single.told.answers.problems]
    )  # fmt: skip
    single.seen("one")
    single.ports["one"].capabilities = Capabilities(tells_fills_of_orders=False)
    single.accounts.ask_fills("a", single.told, before(0))
    assert [] == single.seen("one")


# Whose an order was.


def test_the_account_of_an_order_that_no_list_has_is_found(asked: Asked) -> None:
    """Empty for one that none has; it is asked for once."""
    asked.put("two", "b")
    asked.accounts.homes["known"] = "one"
    for _ in range(2):
        assert {"known": "one", "b": "two", "none": ""} == asked.accounts.find_homes(["known", "b", "none"], NAMES)
    assert ["orders/b", "orders/none"] == asked.seen("one")


def test_where_an_account_does_not_answer_nobody_can_say_that_none_has_it(asked: Asked) -> None:
    asked.put("one", "a")
    assert {"a": "one"} == asked.accounts.find_homes(["a", "none"], ["one"])
    asked.servers["one"].answers["GET", "/v2/orders/*"] = page(502)
    asked.put("two", "b")
    assert {} == asked.accounts.find_homes(["b"], NAMES)
    assert [] == asked.seen("two"), "the next time, since the first may have it"


def test_ten_at_a_time_are_asked_for(single: Asked) -> None:
    names = [f"o{number:02}" for number in range(13)]
    assert names[:10] == list(single.accounts.find_homes(names, ["one"]))
    assert 10 == len(single.seen("one"))
    assert names == sorted(single.accounts.find_homes(names, ["one"]))
    assert 3 == len(single.seen("one"))


def test_a_rate_limit_ends_the_lists_of_an_account(single: Asked) -> None:
    """Positions and orders that wait are no reason to go on against it."""

    def limit(request: web.Request) -> web.Response:
        return web.json_response({"code": 42910000, "message": "slow down"}, status=429)

    memory = AccountReconciled(single.servers["one"].account_id, ago(60), ago(60), ago(60), ["x"])
    for path in ("/v2/positions", "/v2/orders/x"):
        single.servers["one"].answers = {("GET", path): limit}
        errors = single.ask_all({"one": memory}, ["one"])
        assert isinstance(errors["one"], RateLimited)
        assert {} == single.told.answers.orders


def test_what_is_odd_about_an_order_that_waits_is_named(single: Asked) -> None:
    server = single.servers["one"]
    server.answers["GET", "/v2/orders/x"] = lambda request: make_order("x", legs=[{"id": "leg"}])
    memory = AccountReconciled(server.account_id, ago(60), ago(60), ago(60), ["x"])
    assert {} == single.ask_all({"one": memory}, ["one"])
    assert ({"x"}, 1) == (set(single.told.answers.orders), len(single.told.answers.problems))
