"""Whose an order is: what counts is the ledger that had it first, its name, and where it was assigned."""

from __future__ import annotations

import re

import pytest

from compactor.books.ownership import Claim, decide_team, parse_team, settle_claims, trace_assignments


def every(_team: str) -> bool:
    return True


@pytest.mark.parametrize("name", ["a:1", "alpha.b-c_d:x:y", "a:\n"])
def test_a_name_claims_its_team(name: str) -> None:
    """Issue 4, 5: `team_id:anything`."""
    team, orders = name.partition(":")[0], {"o": {"client_order_id": name}}
    assert team == parse_team(name, (), {team}.__contains__)
    assert team == decide_team("o", orders, {}, is_team={team}.__contains__, account_team="house")


@pytest.mark.parametrize("name", ["strat02_bL_2019-03-04T20:57:31.633665+00:00", "AAPL:buy", "https://x.y/z"])
def test_a_name_that_is_no_team_claims_nothing(name: str) -> None:
    """Issue 12, 5: people put times, symbols and addresses into client ids; only a team that there is can be named."""
    assert None is parse_team(name, (), {"alpha"}.__contains__)
    found = decide_team("o", {"o": {"client_order_id": name}}, {}, is_team={"alpha"}.__contains__, account_team="house")
    assert "house" == found


def test_a_pattern_of_the_settings_may_name_a_new_team() -> None:
    """Issue 12, 5: a setting allows new teams."""
    pattern = re.compile(r"(?P<team>[a-z]+):[0-9]+")
    assert ["alpha", None] == [parse_team(name, [pattern], lambda _: False) for name in ("alpha:1", "Alpha:1")]


@pytest.mark.parametrize("name", ["", ":1", "alpha", "alpha:", "../x:1", "-a:1", "a" * 65 + ":1", None, 7])
def test_what_is_no_team_claims_nothing(name: object) -> None:
    """1.1: a team id is checked before a path is built from it."""
    assert None is parse_team(name, (), lambda _: True)
    assert "unassigned" == decide_team("o", {"o": {"client_order_id": name}}, {}, is_team=lambda _: True)


def test_what_a_ledger_has_comes_before_what_an_order_is_called() -> None:
    """Issue 4, 5: the order itself, what it replaces, its parent; and only then a name."""
    orders = {
        "leg": {"parent_order_id": "new", "client_order_id": "delta:1"},
        "new": {"replaces": "old", "client_order_id": "charlie:1"},
        "old": {"client_order_id": "bravo:1"},
    }
    assert ["alpha", "charlie"] == [
        decide_team("new", orders, known, is_team=every) for known in ({"old": "alpha"}, {})
    ]
    assert ["alpha", "delta"] == [decide_team("leg", orders, known, is_team=every) for known in ({"old": "alpha"}, {})]
    assert "unassigned" == decide_team("a", {"a": {"replaces": "b"}, "b": {"replaces": "a"}}, {}, is_team=every)


def test_what_lies_in_unassigned_is_nobody_s() -> None:
    """Issue 12, 5: an order of a parent that is nobody's goes by its own name, or by another that it belongs to."""
    orders = {"leg": {"parent_order_id": "old", "client_order_id": "bravo:1"}, "old": {}}
    known = {"old": "unassigned"}
    assert "bravo" == decide_team("leg", orders, known, is_team=every)
    assert "alpha" == decide_team("leg", orders, known, is_team=lambda _: False, related="alpha")
    assert "unassigned" == decide_team("leg", orders, known, is_team=lambda _: False, account_team="house")
    assert "bravo" == decide_team("leg", orders, {}, is_team=every, related="alpha"), "its own name comes first"
    assert "alpha" == decide_team("leg", orders, {"leg": "alpha"}, is_team=every)


def test_the_holder_is_found_from_any_ledger_that_had_the_order() -> None:
    """4.12: an order may be moved on; a circle, which no two ledgers should make, ends somewhere."""
    away = {"alpha": "bravo", "bravo": "charlie", "charlie": None}
    assert {"charlie"} == {trace_assignments(team, away) for team in away}
    assert "alpha" == trace_assignments("alpha", {})
    assert trace_assignments("alpha", {"alpha": "bravo", "bravo": "alpha"}) in ("alpha", "bravo")


@pytest.mark.parametrize(
    ("claims", "named", "team", "is_contested"),
    [
        pytest.param({"alpha": Claim(5)}, None, "alpha", False, id="the only ledger that has it"),
        pytest.param({"alpha": Claim(5), "bravo": Claim(4)}, None, "bravo", True, id="the earlier claim"),
        pytest.param({"alpha": Claim(4), "bravo": Claim(4)}, None, "alpha", True, id="of two at once always the same"),
        pytest.param({"alpha": Claim(4), "bravo": Claim(5)}, "bravo", "bravo", True, id="its name before the time"),
        pytest.param({"alpha": Claim(4)}, "bravo", "bravo", True, id="its name before a ledger that merely names it"),
        pytest.param({"unassigned": Claim(4)}, "bravo", "unassigned", False, id="but not before who had nobody's"),
        pytest.param({"house": Claim(4)}, "bravo", "house", False, id="nor before the account's team"),
        pytest.param({"alpha": Claim(4, away_to="bravo")}, None, "bravo", False, id="assigned, and nothing there yet"),
        pytest.param(
            {"alpha": Claim(4, away_to="bravo"), "bravo": Claim(5)}, "alpha", "bravo", False, id="assigned by name"
        ),
        pytest.param(
            {"alpha": Claim(4), "bravo": Claim(9, away_to="charlie"), "charlie": Claim(10)},
            None, "alpha", True, id="who never had it cannot assign it",
        ),
        pytest.param(
            {"unassigned": Claim(4, away_to="alpha"), "alpha": Claim(5)},
            "bravo", "alpha", False, id="an assignment before a name",
        ),
    ],
)  # fmt: skip
def test_who_has_an_order(claims: dict[str, Claim], named: str | None, team: str, is_contested: bool) -> None:
    """4.12: only `assigned` moves an order; a claim that contradicts an earlier one or the name is reported."""
    owner = settle_claims("o1", claims, named, ("unassigned", "house"))
    assert owner is not None
    assert (team, is_contested) == (owner.team, owner.problem is not None)


def test_a_contested_order_says_what_to_do() -> None:
    """The report names the order, both sides and the next step."""
    owner = settle_claims("o1", {"alpha": Claim(5), "bravo": Claim(4)})
    assert owner is not None and owner.problem is not None
    for part in ("order o1", "bravo's", "log of alpha", "compactor assign o1 TEAM"):
        assert part in owner.problem
    assert settle_claims("o1", {}) is None
