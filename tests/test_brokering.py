"""The commands reconcile, assign and cancel, from outside, against a local Alpaca."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from compactor.ui import reconcile_command
from compactor.ui.cli import app
from tests.alpaca_server import AlpacaServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[AlpacaServer]:
    with AlpacaServer(seed=5, rate_limit=None, plain=True) as one:
        for name, value in one.environment.items():
            monkeypatch.setenv(name, value)
        yield one


def call(*arguments: object, answer: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=answer)


def lines(result: Result) -> list[dict[str, Any]]:
    assert 0 == result.exit_code, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def place(server: AlpacaServer, **terms: Any) -> str:
    """An order that has been quiet for a while."""
    order = server.place(type="limit", limit_price="10", at=server.exchange.clock.now() - 60 * 10**9, **terms)
    order.updated_at = order.submitted_at
    return order.id


def pending(data: Path, team: str) -> list[str]:
    return [row["order_id"] for row in lines(call("show", "pending", "--team", team, "--data", data, "--json"))]


def test_reconcile_shows_what_it_would_append_and_then_appends_it(data: Path, server: AlpacaServer) -> None:
    """Issue 4, 1: `--dry-run` prints what it would append, as a table or as JSON; a second run appends nothing."""
    order_id = place(server, team="alpha")
    *would, summary = lines(call("reconcile", data, "--dry-run", "--json"))
    assert ([order_id], 1, True) == ([one["order_id"] for one in would], summary["events"], summary["dry_run"])
    assert not (data / "team").exists()

    table = call("reconcile", data, "--once")
    assert 0 == table.exit_code
    assert f"alpha  {order_id}  snapshot  new" in table.stdout
    assert "1 orders compared, 1 events appended" in table.stderr
    assert [0] == [one["events"] for one in lines(call("reconcile", data, "--once", "--json"))]
    assert [order_id] == pending(data, "alpha")


def test_status_says_up_to_when_all_is_known(data: Path, server: AlpacaServer) -> None:
    """Issue 4, 4: staleness is raised in `status`."""
    place(server, team="alpha")
    call("reconcile", data, "--once")
    (row,) = lines(call("status", data, "--json"))
    assert row["reconciled"]["default"]
    assert f"account default: reconciled through {row['reconciled']['default']}\n" in call("status", data).stderr

    server.account.secret = "changed"
    refused = call("reconcile", data, "--once")
    assert (4, "") == (refused.exit_code, refused.stdout)
    assert "the broker refused the keys in APCA_API_KEY_ID and APCA_API_SECRET_KEY" in refused.stderr
    assert "STALE, 1 tries failed: the broker refused the keys" in call("status", data).stderr


def test_without_keys_the_exit_code_is_4(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 4, 7: clear message, exit 4."""
    for name in ("ALPACA_API_KEY", "ALPACA_SECRET_KEY", "APCA_API_KEY_ID", "APCA_API_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    for command in (["reconcile", data, "--once"], ["cancel", "o1", "--yes", "--data", data]):
        done = call(*command)
        assert 4 == done.exit_code
        assert "the environment has no keys of an Alpaca account" in done.stderr


def test_a_broker_that_cannot_be_asked_is_exit_code_1(data: Path, server: AlpacaServer) -> None:
    """Issue 4, 4: nothing is changed, and the message says what the broker said."""
    server.gate.scripted += [("GET", "null_body")] * 9
    done = call("reconcile", data, "--once")
    assert 1 == done.exit_code
    assert "/account: found None, expected an object with an id" in done.stderr


class Night:
    """A clock that a command sleeps away; `happen` are what the broker does at given seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, happen: dict[float, Callable[[], Any]]) -> None:
        self.now, self._happen = 0.0, dict(happen)
        self.pauses: list[float] = []
        monkeypatch.setattr(reconcile_command, "time", SimpleNamespace(monotonic=lambda: self.now, sleep=self.sleep))
        monkeypatch.setattr("compactor.broker.alpaca.rest._choose_pause", lambda state: 0.0)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        for at in [at for at in self._happen if at <= self.now]:
            self._happen.pop(at)()


def end() -> None:
    raise KeyboardInterrupt


def test_refused_keys_are_retried_for_minutes_by_a_reconcile_that_goes_on(
    data: Path, server: AlpacaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 16, 1: those that have worked for 15 minutes, others for 2; then exit code 4. Each try is told."""
    server.refuse()
    night = Night(monkeypatch, {})
    done = call("reconcile", data)
    assert (4, 120.0) == (done.exit_code, night.now)
    assert [15.0, 30.0, 60.0, 15.0] == night.pauses
    assert done.stderr.count("the broker refused the keys") == 5

    server.accept()
    night = Night(monkeypatch, {300: server.refuse})
    done = call("reconcile", data)
    assert (4, 300.0 + 900.0) == (done.exit_code, night.now)
    assert [300.0, 15.0, 30.0, 60.0, 120.0, 240.0, 300.0, 135.0] == night.pauses


def test_an_outage_is_no_refusal_of_keys(data: Path, server: AlpacaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 16, 1: a page of a gateway is waited for, and a refusal before it counts no more."""
    server.refuse()
    happen = {
        100.0: lambda: server.refuse("page"), 500.0: server.refuse, 760.0: server.accept, 2_000.0: end,
    }  # fmt: skip
    night = Night(monkeypatch, happen)
    done = call("reconcile", data)
    assert night.now >= 2_000.0
    assert 4 != done.exit_code
    assert "HTTP 403 with a page that is no JSON" in done.stderr


def test_what_no_event_can_put_right_is_named(data: Path, server: AlpacaServer) -> None:
    """Issue 4, 4: an open order that the broker does not have stays, and is told of."""
    order_id = place(server, team="alpha")
    call("reconcile", data, "--once")
    del server.exchange.orders[order_id]
    difference, summary = lines(call("reconcile", data, "--once", "--json"))
    assert ("order_not_found", order_id, 1) == (
        difference["difference"], difference["order_id"], summary["differences"],
    )  # fmt: skip
    assert [order_id] == pending(data, "alpha")


def test_assign_moves_an_order_of_nobody(data: Path, server: AlpacaServer) -> None:
    """Issue 4, 5: team `unassigned` is visible, and `compactor assign ORDER_ID TEAM` moves an order out of it."""
    order_id = place(server)
    call("reconcile", data, "--once")
    assert [order_id] == pending(data, "unassigned")

    moved = call("assign", order_id, "bravo", "--data", data)
    assert f"{order_id}: 1 events copied to bravo, from unassigned.\n" == moved.stdout
    assert ([], [order_id]) == (pending(data, "unassigned"), pending(data, "bravo"))
    again = call("assign", order_id, "bravo", "--data", data)
    assert (0, "", f"{order_id} is in the ledger of bravo already.\n") == (
        again.exit_code, again.stdout, again.stderr,
    )  # fmt: skip
    (back,) = lines(call("assign", order_id, "unassigned", "--data", data, "--json"))
    assert (["bravo"], "unassigned", [order_id]) == (back["from_teams"], back["team_id"], back["orders"])
    unknown = call("assign", "nobody-knows", "bravo", "--data", data)
    assert (1, 2) == (unknown.exit_code, call("assign", order_id, "no/team", "--data", data).exit_code)
    assert "no ledger in" in unknown.stderr


def test_cancel_asks_first(data: Path, server: AlpacaServer) -> None:
    """Issue 4, 6: `compactor cancel ORDER_ID`, asking first."""
    order_id = place(server, team="alpha")
    call("reconcile", data, "--once")
    refused = call("cancel", order_id, "--data", data, answer="n\n")
    assert (1, True) == (refused.exit_code, server.truth().orders[order_id].is_open)
    assert f"Cancel order {order_id} (paper)? [y/N]" in refused.stderr

    done = call("cancel", order_id, "--data", data, answer="y\n")
    assert 0 == done.exit_code, done.output
    assert f"{order_id}: cancel requested\n" in done.stdout
    call("compact", data)
    assert ("canceled", []) == (server.truth().orders[order_id].status, pending(data, "alpha"))


def test_cancel_all_of_a_team_leaves_the_others(data: Path, server: AlpacaServer) -> None:
    """Issue 4, 6: `--all --team T`; one that cannot be canceled is named, and the others are."""
    ended, mine = place(server, team="alpha"), place(server, team="alpha")
    other = place(server, team="bravo")
    call("reconcile", data, "--once")
    server.fill(ended)
    done = call("cancel", "--all", "--team", "alpha", "--yes", "--data", data, "--json")

    assert 1 == done.exit_code
    errors = {one["order_id"]: one["error"] for one in map(json.loads, done.stdout.splitlines())}
    assert (None, True) == (errors[mine], "order is already" in str(errors[ended]) or errors[ended] is not None)
    truth = server.truth()
    assert ("canceled", "filled", "new") == tuple(truth.orders[one].status for one in (mine, ended, other))


@pytest.mark.parametrize("arguments", [[], ["--all"], ["o1", "--all", "--team", "alpha"], ["o1", "--account", "none"]])
def test_cancel_wants_one_thing_or_all_of_a_team(data: Path, server: AlpacaServer, arguments: list[str]) -> None:
    """Wrong usage is exit code 2, and nothing is asked for."""
    assert 2 == call("cancel", *arguments, "--yes", "--data", data).exit_code
    assert [] == server.requests


def test_config_names_the_accounts_and_the_variables_of_their_keys(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 4, 7: `config` says where keys are looked for, and never what they are."""
    monkeypatch.setenv("DESK_KEY", "PKNEVERSHOWN")
    lines_of = ["[accounts.desk]", 'key_variable = "DESK_KEY"', 'secret_variable = "DESK_SECRET"', 'team = "house"']
    (none,) = [line for line in call("config", data).stdout.splitlines() if line.startswith("accounts")]
    assert ["accounts", "none", "default"] == none.split()
    (data / "compactor.toml").write_text("\n".join([*lines_of, "[accounts.big]", 'live = "yes-real-money"']))
    shown = call("config", data).stdout
    assert "keys in DESK_KEY and DESK_SECRET, paper, team house" in shown
    assert "keys of the environment, REAL MONEY" in shown
    assert "PKNEVERSHOWN" not in shown + call("config", data, "--json").stdout


def test_two_accounts_are_reconciled_as_the_file_says(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 4, 5: several accounts, and a configured account → team mapping."""
    keys = (("PKONE", "s1"), ("PKTWO", "s2"))
    with AlpacaServer(keys=keys, rate_limit=None, plain=True) as server:
        text = ""
        for name, (key, secret) in zip(("one", "two"), keys, strict=True):
            monkeypatch.setenv(f"{name.upper()}_KEY", key)
            monkeypatch.setenv(f"{name.upper()}_SECRET", secret)
            text += f'[accounts.{name}]\nkey_variable = "{name.upper()}_KEY"\nurl = "{server.url}"\n'
            text += f'secret_variable = "{name.upper()}_SECRET"\nteam = "team-{name}"\n'
            exchange = server.accounts[key].exchange
            order = exchange.place(type="limit", limit_price="10", at=exchange.clock.now() - 60 * 10**9)
            order.updated_at = order.submitted_at
        (data / "compactor.toml").write_text(text)
        assert 2 == lines(call("reconcile", data, "--once", "--json"))[-1]["events"]
        assert 1 == len(pending(data, "team-one")) == len(pending(data, "team-two"))
        server.accounts["PKTWO"].secret = "changed"
        done = call("reconcile", data, "--once")
        assert 4 == done.exit_code
        assert "account two: the broker refused the keys in TWO_KEY and TWO_SECRET" in done.stderr
