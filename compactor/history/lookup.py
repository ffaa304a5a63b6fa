"""Look up an id of any kind: the orders it names, the story of each, and the orders related to them.

The id may be an order_id, client_order_id, broker_order_id, execution_id or trade_id. `search` finds the lines and
`story` builds the story.

Note: an id that several orders carry gives several stories. Nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from msgspec import Struct

from compactor.core.events import Event, is_intent
from compactor.core.lines import DEFAULT_TEAM, Placed
from compactor.core.rules import split_event
from compactor.history.replay import require_usable
from compactor.history.search import Finder, Piece
from compactor.history.story import Story, Team, build_story, read_story_intents
from compactor.ledger import LedgerEntry
from compactor.ledger.files import Files
from compactor.ledger.log import open_log
from compactor.ledger.segments import Segments

FoundAs = Literal["order_id", "client_order_id", "execution_id", "trade_id", "mention"]
Relation = Literal["replaces", "replaced_by", "parent", "leg"]
CHAIN_MAX = 64
"""So many orders around one are looked at, at most."""
_TRADE_ID = re.compile(r"([0-9]{1,19})(?:-[0-9]{1,9}){1,2}")


class RelatedOrder(Struct, omit_defaults=True):
    """An order around another: how they are related, seen from `to`, and how it stands; no `status` where the log has
    no event of it."""

    relation: Relation
    order_id: str
    to: str
    status: str | None = None
    symbol: str | None = None
    quantity: str | None = None
    filled_qty: str | None = None
    first_offset: int | None = None


class History(Struct, omit_defaults=True):
    """The story of one order in one ledger, and the orders around it."""

    team_id: str
    path: str
    found_as: FoundAs
    story: Story
    chain: list[RelatedOrder] = []


def find_histories(entry: LedgerEntry, name: str, *, raw: bool = False, files: Files | None = None) -> list[History]:
    """The histories of the orders that an id means in one ledger; none where nothing there names it.

    Needs no lock and changes nothing but indexes, which are made where they are missing. Raises LedgerError.
    """
    files = files or Files()
    path = require_usable(entry)
    segments = Segments(path, files)
    with open_log(path, files, segments) as log:
        finder = Finder(log, segments, files)
        return _Teller(path, finder, entry.team_id, raw).histories(name)


class _Teller:
    """Tells histories out of one open log."""

    def __init__(self, path: Path, finder: Finder, team_id: str | None, raw: bool) -> None:
        self._path = path
        self._finder = finder
        # Outside `team/` it is named by its events (rule 1.2).
        self._team = Team(team_id, 0) if team_id is not None else Team(*(finder.team() or (DEFAULT_TEAM, 0)))
        self._raw = raw
        self._read: dict[str, list[Piece]] = {}
        self._asked: dict[str, bool] = {}

    def histories(self, name: str) -> list[History]:
        found_as, order_ids = self._meant(name)
        return [self._history(order_id, found_as) for order_id in order_ids]

    def _meant(self, name: str) -> tuple[FoundAs, list[str]]:
        """Which orders an id means, in the order in which the log tells of them: the first kind that any event has."""
        pieces = self._pieces(name)
        events = [piece.event for piece, _data in pieces if isinstance(piece, Placed)]
        if any(name in _changed_orders(event) for event in events):
            return "order_id", [name]
        named = [one for one in events if name in (one.client_order_id, one.broker_order_id)]
        # An intent stands for itself only where no order came of it.
        by_client = [one.order_id for one in named if not is_intent(one)] or [one.order_id for one in named]
        if by_client:
            return "client_order_id", _once(by_client)
        by_execution = [one for event in events for one in _executing_orders(event, name)]
        if by_execution:
            return "execution_id", _once(by_execution)
        by_trade = self._find_by_trade(name)
        if by_trade:
            return "trade_id", by_trade
        return "mention", [name] if pieces else []

    def _find_by_trade(self, name: str) -> list[str]:
        match = _TRADE_ID.fullmatch(name)
        placed = self._finder.piece_at(int(match[1]), self._team.team_id) if match is not None else None
        if placed is None:
            return []
        stories = (self._story(order_id) for order_id in _once(_changed_orders(placed.event)))
        return [one.order_id for one in stories if any(name == t.trade_id for step in one.events for t in step.trades)]

    def _story(self, order_id: str) -> Story:
        story = build_story(order_id, self._pieces(order_id), self._team, self._raw)
        name = str(story.order.get("client_order_id") or order_id)
        story.intents = read_story_intents(self._pieces(name), name)
        if story.events:
            parent = story.order.get("parent_order_id")
            is_asked = story.intents or (parent not in (None, order_id) and self._is_asked(parent))
            story.origin = "submitted" if is_asked else "adopted"
        return story

    def _is_asked(self, order_id: str) -> bool:
        """Whether an order was asked for here, of which another one is a leg."""
        if order_id not in self._asked:
            order = build_story(order_id, self._pieces(order_id), self._team, False).order
            name = str(order.get("client_order_id") or order_id)
            self._asked[order_id] = bool(read_story_intents(self._pieces(name), name))
        return self._asked[order_id]

    def _pieces(self, name: str) -> list[Piece]:
        """What stands in the lines that name an id. Searched for once, because what is not sealed is read whole."""
        self._search([name])
        return self._read[name]

    def _search(self, names: Iterable[str]) -> None:
        """Search for what stands in the lines that name some ids, in one go: a long line may name very many."""
        missing = [name for name in dict.fromkeys(names) if name not in self._read]
        if missing:
            self._read.update(self._finder.find_pieces(missing, self._team.team_id))

    def _history(self, order_id: str, found_as: FoundAs) -> History:
        story = self._story(order_id)
        return History(self._team.team_id, str(self._path), found_as, story, list(self._chain(order_id)))

    def _chain(self, order_id: str) -> Iterator[RelatedOrder]:
        """The orders around one: its parent and legs, and all that replaced each other before and after it."""
        seen, waiting = {order_id}, [order_id]
        while waiting and len(seen) <= CHAIN_MAX:
            here = waiting.pop(0)
            links = [
                link for link in self._links(here) if here == order_id or link[0] in ("replaces", "replaced_by")
            ]  # fmt: skip
            self._search_stories([other for _relation, other in links if other not in seen])
            for relation, other in links:
                if other in seen:
                    continue
                seen.add(other)
                if relation in ("replaces", "replaced_by"):
                    waiting.append(other)
                yield self._link(relation, other, here)

    def _search_stories(self, order_ids: list[str]) -> None:
        """Search for all that the stories of some orders are told from: their lines, those of their names and parents.

        Their names are known once their lines are read.
        """
        self._search(order_ids)
        pieces = ((one, piece) for one in order_ids for piece, _data in self._read[one])
        own = (piece.event for one, piece in pieces if isinstance(piece, Placed) and piece.event.order_id == one)
        self._search(
            other for event in own for other in (event.client_order_id, event.parent_order_id) if other is not None
        )

    def _links(self, order_id: str) -> list[tuple[Relation, str]]:
        """What the events that name an order say of its relations."""
        links: dict[tuple[Relation, str], None] = {}
        for piece, _data in self._pieces(order_id):
            if isinstance(piece, Placed):
                links.update(dict.fromkeys(_relations(piece.event, order_id)))
        return list(links)

    def _link(self, relation: Relation, order_id: str, to: str) -> RelatedOrder:
        link, story = RelatedOrder(relation, order_id, to), self._story(order_id)
        if story.events:
            row = story.order
            link.status, link.symbol, link.quantity = row["status"], row.get("symbol"), row.get("quantity")
            link.filled_qty, link.first_offset = row["filled_qty"], story.events[0].offset
        return link


def _relations(event: Event, order_id: str) -> Iterator[tuple[Relation, str]]:
    if event.order_id == order_id:
        known: list[tuple[Relation, str | None]] = [
            ("replaces", event.replaces), ("replaced_by", event.replaced_by), ("parent", event.parent_order_id),
        ]  # fmt: skip
        yield from ((relation, other) for relation, other in known if other)
        yield from (("leg", leg) for leg in _legs_named(event))
        return
    if event.replaces == order_id:
        yield "replaced_by", event.order_id
    if event.replaced_by == order_id:
        yield "replaces", event.order_id
    if event.parent_order_id == order_id:
        yield "leg", event.order_id
    if order_id in _legs_named(event):
        yield "parent", event.order_id


def _legs_named(event: Event) -> list[str]:
    """The order ids of the legs that an event lists, as executions or as terms."""
    found = [leg.get("order_id") or leg.get("id") if isinstance(leg, dict) else leg for leg in event.legs or ()]
    found += [leg.order_id for leg in event.leg_fills or ()]
    return [one for one in found if isinstance(one, str) and one]


def _changed_orders(event: Event) -> list[str]:
    """The orders that an event changes."""
    return [part.order_id for part in split_event(event)]


def _executing_orders(event: Event, name: str) -> list[str]:
    own = [event.order_id] if name in (event.execution_id, event.previous_execution_id) else []
    return own + [leg.order_id for leg in event.leg_fills or () if leg.execution_id == name]


def _once(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))
