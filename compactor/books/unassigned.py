"""Find the orders in the ledger `unassigned` whose team has become known since, and move them.

By their name, or by an order that they belong to: of these only that are open, have trades, or are in the part of the
log in memory. What a move does is left to `assign`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from compactor.books.assign import move_orders
from compactor.books.order_index import OrderIndex
from compactor.books.ownership import UNASSIGNED, parse_team
from compactor.books.turns import ReconcileBusy, turn
from compactor.ledger import Ledger, LedgerError
from compactor.ledger.paths import TRADES

NAMES_MAX = 200_000
"""So many names of orders with trades are in memory at most, the latest ones."""


ROUNDS_MAX = 10
"""So many times what may move is looked for, at most: what moved tells the team of others."""


class _Row(msgspec.Struct):
    """What of an open order or of a trade tells whose it may be."""

    order_id: str
    client_order_id: str | None = None
    replaces: str | None = None
    replaced_by: str | None = None
    parent_order_id: str | None = None
    group_id: str | None = None

    def list_ties(self) -> list[str]:
        group = f"group:{self.group_id}" if self.group_id else None
        return [one for one in (self.replaces, self.replaced_by, self.parent_order_id, group) if one]


_decode = msgspec.json.Decoder(_Row).decode


class UnassignedOrders:
    """The orders of the ledger `unassigned` of a data directory that may belong to a team. Costs what is new."""

    def __init__(self, data: Path) -> None:
        self._path = data / "team" / UNASSIGNED
        self._rows: dict[str, _Row] = {}
        self._offset = 0
        self._inode: int | None = None

    def plan_moves(self, index: OrderIndex, patterns: Sequence[re.Pattern[str]] = ()) -> dict[str, str]:
        """The orders that can be moved, and to which team. The ledger has to be up to date, and the index."""
        if not (self._path / TRADES).parent.exists():
            return {}
        open_rows = list(self._read_open())
        rows = self._read_trades() | {row.order_id: row for row in open_rows}
        log = index.find_log(UNASSIGNED)
        for order_id in {*log.names, *log.ties} & log.orders.keys() if log is not None else ():
            rows.setdefault(order_id, _Row(order_id, log.names.get(order_id) if log is not None else None))
        moves: dict[str, str] = {}
        for row in rows.values():
            team = self._find_team(row, index, patterns)
            if team is not None:
                moves[row.order_id] = team
        for row in open_rows:
            if row.replaces is not None and row.replaces not in moves:
                team = self._find_predecessor_team(row, row.replaces, index, patterns)
                if team is not None:
                    moves[row.replaces] = team
        return moves

    def move(
        self, data: Path, index: OrderIndex, patterns: Sequence[re.Pattern[str]] = (), *, dry_run: bool = False
    ) -> dict[str, str]:
        """Move the orders that can be, and then those whose team that has told, such as legs; returns them.

        With `dry_run` only those that can be moved as the ledgers are. The caller holds the data directory's turn.
        Raises LedgerError; doing it again completes it.
        """
        moved: dict[str, str] = {}
        for _ in range(ROUNDS_MAX):
            index.follow(look_for_new=True)
            moves = self.plan_moves(index, patterns)
            if dry_run:
                return moves
            done = move_orders(data, index, moves) if moves else {}
            moved |= done
            if not done:
                break
        return moved

    def _find_predecessor_team(
        self, row: _Row, replaced: str, index: OrderIndex, patterns: Sequence[re.Pattern[str]]
    ) -> str | None:
        """The team of the order that one replaced which is here only because of that (rule 3.9): moving it takes the
        other along, also where it has been moved before."""
        if UNASSIGNED in index.find_claims(row.order_id):
            return None
        owner = index.find_owner(replaced)
        if owner is None or owner.problem is not None:
            return None
        if owner.team != UNASSIGNED:
            return owner.team
        log = index.find_log(UNASSIGNED)
        name = log.names.get(replaced) if log is not None else None
        return self._find_team(_Row(replaced, name, replaced_by=row.order_id), index, patterns)

    def _find_team(self, row: _Row, index: OrderIndex, patterns: Sequence[re.Pattern[str]]) -> str | None:
        team = parse_team(row.client_order_id, patterns, index.knows_team)
        ties = [*row.list_ties(), *index.list_ties(row.order_id)]
        if team is None and not ties:
            return None
        owner = index.find_owner(row.order_id)
        if owner is not None and owner.problem is not None:
            return self._settle(row, index, owner.team, ties)
        if owner is None or owner.team != UNASSIGNED:
            self._rows.pop(row.order_id, None)
            return None
        parent = index.find_owner(row.parent_order_id) if row.parent_order_id else None
        if parent is not None and parent.team == UNASSIGNED:
            team = None  # A leg goes with its parent, whose fills may be the leg's.
        found = team or index.find_family_team(row.order_id, ties)
        return found if found != UNASSIGNED else None

    def _settle(self, row: _Row, index: OrderIndex, owner: str, ties: Iterable[str]) -> str | None:
        """The team of an order that another ledger has as well, where only what lies in `unassigned` stands against it:
        the team that the order is; that has its parent, whose fills are what tells of the order there; or that has an
        order which it belongs to by what lies in `unassigned` itself."""
        claims = {team: one for team, one in index.find_claims(row.order_id).items() if one.away_to is None}
        [*teams] = claims.keys() - {UNASSIGNED}
        if UNASSIGNED not in claims or len(teams) != 1:
            return None  # Which of two teams has it is for a person to decide.
        [team] = teams
        is_of_parent = not claims[team].is_named and index.find_family_team(row.order_id, ties) == team
        # What lies in `unassigned` is the broker's word, and no ledger's claim. Trade lines tell of no kin.
        log = index.find_log(UNASSIGNED)
        told = {*row.list_ties(), *(log.ties.get(row.order_id, ()) if log is not None else ())}
        kin = [index.find_owner(one) for one in sorted(told)]
        is_of_kin = any(one is not None and (one.team, one.problem) == (team, None) for one in kin)
        return team if owner == team or is_of_parent or is_of_kin or _is_of_group(row, index, team) else None

    def _read_open(self) -> Iterable[_Row]:
        return (msgspec.convert(row, _Row) for row in Ledger(self._path).rows("pending_orders"))

    def _read_trades(self) -> dict[str, _Row]:
        """The orders with trades that have a name, read as far as they are new."""
        path = self._path / TRADES
        try:
            with path.open("rb") as trades:
                inode = path.stat().st_ino
                if inode != self._inode or path.stat().st_size < self._offset:
                    self._inode, self._offset, self._rows = inode, 0, {}
                trades.seek(self._offset)
                for line in trades:
                    if not line.endswith(b"\n"):
                        break
                    self._offset += len(line)
                    row = _decode(line)
                    if row.client_order_id is not None:
                        self._rows[row.order_id] = row
        except FileNotFoundError:
            return {}
        if len(self._rows) > NAMES_MAX:
            self._rows = dict(list(self._rows.items())[-NAMES_MAX // 2 :])
        return dict(self._rows)


def move_in_turn(data: Path, index: OrderIndex) -> dict[str, str]:
    """Move what was unassigned to the teams that are known by now; a reconcile that runs does it later."""
    unassigned = UnassignedOrders(data)
    with suppress(ReconcileBusy, LedgerError):
        if unassigned.move(data, index, dry_run=True):
            with turn(data):
                return unassigned.move(data, index)
    return {}


def _is_of_group(row: _Row, index: OrderIndex, team: str) -> bool:
    """Whether all others of the groups that `unassigned` tells of, as far as they are a team's, are that team's."""
    log = index.find_log(UNASSIGNED)
    ties = log.ties.get(row.order_id, set()) if log is not None else set[str]()
    members = {one for tie in ties if tie.startswith("group:") for one in index.list_ties(tie)} - {row.order_id}
    owners = [index.find_owner(one) for one in members]
    return {one.team for one in owners if one is not None} - {UNASSIGNED} == {team}
