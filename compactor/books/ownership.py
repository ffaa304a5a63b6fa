"""Decides which team an order belongs to, where several teams trade on one account.

Pure: which ledger has which order is left to `order_index`, and what is appended where to its users.

Invariant: only an `assigned` event moves an order (format.md, rule 4.12). A ledger that merely names an order which
another ledger had before, or whose `client_order_id` names another team, gets nothing; the claim is reported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

TEAM = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""A team id (format.md, rule 1.1)."""

CLAIM = re.compile(f"(?P<team>{TEAM}):.+", re.DOTALL)
"""`team:anything`, the form of a `client_order_id` that carries its team."""

UNASSIGNED = "unassigned"
"""The team of what nobody claims, visible like any other."""


class Claim(msgspec.Struct, frozen=True, gc=False):
    """What the log of one ledger says of an order.

    `since_ns` is when its first event was recorded (`recorded_at`, else `ts`), in nanoseconds since 1970. `away_to` is
    the team that the order was assigned to, while it is away. `is_named` is False where only the fills of a multi-leg
    parent, or assignments, tell of the order.
    """

    since_ns: int = 0
    client_order_id: str | None = None
    away_to: str | None = None
    is_named: bool = True


class Owner(msgspec.Struct, frozen=True, gc=False):
    """The team that has an order; `problem` names the claims of other ledgers, which count for nothing."""

    team: str
    problem: str | None = None


def settle_claims(
    order_id: str, claims: Mapping[str, Claim], named: str | None = None, fallback: Collection[str] = (UNASSIGNED,)
) -> Owner | None:
    """The team that has an order, by the claims of all ledgers; None where no ledger has any.

    `named` is the team that the order's `client_order_id` names, where there is such a team. It comes first, then the
    earliest claim; from there the assignments are followed. An order that lies with one of the `fallback` teams, or was
    assigned, stays there: its name was not known then, or somebody knew better.
    """
    if not claims:
        return None
    origin = min(claims, key=lambda team: (team != named, claims[team].since_ns, team))
    team = trace_assignments(origin, {one: claim.away_to for one, claim in claims.items()})
    if named is not None and origin != named and team == origin and team not in fallback:
        team = named
    others = sorted(one for one, claim in claims.items() if one != team and claim.away_to is None)
    return Owner(team, _describe(order_id, team, others, named) if others else None)


def _describe(order_id: str, team: str, others: Sequence[str], named: str | None) -> str:
    why = "its client_order_id names that team" if team == named else "that ledger had it first, or it was assigned"
    found = f"order {order_id} is {team}'s ({why}), and the log of {' and '.join(others)} names it too"
    return f"{found}; nothing was moved. compactor assign {order_id} TEAM decides it"


def trace_assignments(team: str, away_to: Mapping[str, str | None]) -> str:
    """The team that has an order now, from a ledger that had it (format.md, rule 4.12).

    `away_to` maps each team to the one that its log says the order went to. A circle ends the search.
    """
    seen = {team}
    while (other := away_to.get(team)) is not None and other not in seen:
        seen.add(other)
        team = other
    return team


def decide_team(
    order_id: str,
    orders: Mapping[str, Mapping[str, Any]],
    known: Mapping[str, str],
    *,
    is_team: Callable[[str], bool],
    related: str | None = None,
    patterns: Sequence[re.Pattern[str]] = (),
    account_team: str | None = None,
) -> str:
    """The team of an order: the ledger that knows it, or the order it replaces, or its parent; else the team that its
    `client_order_id` names; else `related`, the team of another order that it belongs to; else the team that the
    `client_order_id` of one it came from names; else `account_team`; else `unassigned`.

    `orders` are snapshots by order id, `known` the team whose ledger has an order. `is_team` says which teams there
    are. What lies in `unassigned` is nobody's, and gives its team to no other order.
    """
    if order_id in known:
        return known[order_id]
    family = list(walk_family(order_id, orders))
    for member in family:
        if known.get(member, UNASSIGNED) != UNASSIGNED:
            return known[member]
    names = [parse_team(orders.get(member, {}).get("client_order_id"), patterns, is_team) for member in family]
    team = names[0] or related or next(filter(None, names), None)
    if team is not None:
        return team
    return UNASSIGNED if any(member in known for member in family) else account_team or UNASSIGNED


def parse_team(
    client_order_id: object, patterns: Sequence[re.Pattern[str]], is_team: Callable[[str], bool]
) -> str | None:
    """The team that a `client_order_id` names, if it names one: `team:anything` of a team that there is, or what a
    pattern of the settings finds as its group `team`, which may be a new one."""
    if not isinstance(client_order_id, str):
        return None
    match = CLAIM.fullmatch(client_order_id)
    if match is not None and is_team(match["team"]):
        return match["team"]
    for pattern in patterns:
        match = pattern.fullmatch(client_order_id)
        if match is not None and re.fullmatch(TEAM, match["team"] or ""):
            return match["team"]
    return None


def list_relations(order: Mapping[str, Any]) -> Iterator[str]:
    """The orders that an order came from: the one that it replaces, then its parent."""
    for name in ("replaces", "parent_order_id"):
        if order.get(name):
            yield str(order[name])


def list_ties(get: Callable[[str], Any]) -> Iterator[str]:
    """What an event says that its order belongs to, by the event's fields: the order that it replaces or that replaced
    it, its parent, its legs, and its group, written `group:ID`."""
    for name in ("replaces", "replaced_by", "parent_order_id"):
        if get(name):
            yield str(get(name))
    for leg in get("legs") or ():
        if isinstance(leg, dict) and isinstance(leg.get("order_id"), str):
            yield leg["order_id"]
    if get("group_id"):
        yield f"group:{get('group_id')}"


def walk_family(order_id: str, orders: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """An order and those it came from, nearest first; a circle, which no broker should make, ends it."""
    waiting, seen = [order_id], {order_id}
    while waiting:
        member = waiting.pop(0)
        yield member
        for other in list_relations(orders.get(member, {})):
            if other not in seen:
                seen.add(other)
                waiting.append(other)
