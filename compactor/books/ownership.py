"""Decides whose an order is, where several teams trade on one account.

Which ledger knows which order is for others to find out. The rule that surprises: what a ledger already has wins over
what an order is called, so an order never changes its team because a name or a setting changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

TEAM = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""What a team is called (format.md, rule 1.1)."""

CLAIM = re.compile(f"(?P<team>{TEAM}):.+", re.DOTALL)
"""`team:anything`, the form of a `client_order_id` that carries its team."""

UNASSIGNED = "unassigned"
"""The team of what nobody claims, visible like any other."""


def owner_of(
    order_id: str,
    orders: Mapping[str, Mapping[str, Any]],
    known: Mapping[str, str],
    *,
    patterns: Sequence[re.Pattern[str]] = (),
    account_team: str | None = None,
) -> str:
    """The team of an order: the ledger that knows it, or the order it replaces, or its parent; else the team in its
    `client_order_id` or theirs; else `account_team`; else `unassigned`.

    `orders` are snapshots by order id, `known` the team whose ledger has an order. A pattern names the team by its
    group `team`, and counts only where that is a team id.
    """
    family = list(family_of(order_id, orders))
    for member in family:
        if member in known:
            return known[member]
    for member in family:
        team = claim_of(orders.get(member, {}).get("client_order_id"), patterns)
        if team is not None:
            return team
    return account_team or UNASSIGNED


def claim_of(client_order_id: object, patterns: Sequence[re.Pattern[str]] = ()) -> str | None:
    """The team that a `client_order_id` carries, if it carries one."""
    if not isinstance(client_order_id, str):
        return None
    for pattern in (CLAIM, *patterns):
        match = pattern.fullmatch(client_order_id)
        if match is not None and re.fullmatch(TEAM, match["team"] or ""):
            return match["team"]
    return None


def holder_of(order_id: str, team: str, away: Mapping[str, Mapping[str, str]]) -> str:
    """The team that has an order now, from any ledger that ever had it (format.md, rule 4.12).

    `away` has, for each team, the orders that its ledger was told to have been assigned to another, and to which.
    """
    seen = {team}
    while (other := away.get(team, {}).get(order_id)) is not None and other not in seen:
        seen.add(other)
        team = other
    return team


def relations_of(order: Mapping[str, Any]) -> Iterator[str]:
    """The orders that an order came from: the one that it replaces, then its parent."""
    for name in ("replaces", "parent_order_id"):
        if order.get(name):
            yield str(order[name])


def family_of(order_id: str, orders: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """An order and those it came from, nearest first; a circle, which no broker should make, ends it."""
    waiting, seen = [order_id], {order_id}
    while waiting:
        member = waiting.pop(0)
        yield member
        for other in relations_of(orders.get(member, {})):
            if other not in seen:
                seen.add(other)
                waiting.append(other)
