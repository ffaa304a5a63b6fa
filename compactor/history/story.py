"""Build the story of an order: its events in log order, and what each of them changed.

An order depends on its own events only, so its story is a fold of the lines that name it by the rules of `core.rules`.

Note: `future_timestamp` is not among its findings, because the clock of the whole log decides it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import Struct

from compactor.core.decimals import exactly
from compactor.core.derived import Finding, TradeLine
from compactor.core.events import Event, is_intent
from compactor.core.instants import EPOCH, rfc3339
from compactor.core.lines import DEFAULT_TEAM, Placed
from compactor.core.orders import Derived, Order, build_row
from compactor.core.rules import Part, apply, begin, is_repeated, split_event
from compactor.ledger.event_text import cut_event
from compactor.ledger.indexing import UNREADABLE, decode_named


class Team(NamedTuple):
    """The team of a ledger, and from which offset on it has that name (rule 1.2)."""

    team_id: str
    named_at: int

    def at(self, offset: int) -> str:
        """What lines derived at an offset say."""
        return self.team_id if offset >= self.named_at else DEFAULT_TEAM


class StoryEvent(Struct, omit_defaults=True):
    """One event of a story. `leg` is its index among the legs of a parent's fill; `repeated` says that it was delivered
    before and changed nothing; `changes` has the old and new value of each field of the order's row."""

    offset: int
    length: int
    event: str
    ts: str
    recorded_at: str | None = None
    source: str | None = None
    leg: int | None = None
    reason: str | None = None
    repeated: bool = False
    status_before: str | None = None
    status_after: str | None = None
    changes: dict[str, tuple[Any, Any]] = {}
    trades: list[TradeLine] = []
    findings: list[Finding] = []
    raw: msgspec.Raw | None = None
    line: str | None = None


class StoryIntent(Struct, omit_defaults=True):
    """An intent or its outcome (rule 3.13): what was asked for, by whom and why, and what the broker said."""

    event: str
    client_order_id: str
    ts: str
    offset: int = 0
    request: dict[str, Any] = {}
    tags: list[str] = []
    note: str | None = None
    broker_order_id: str | None = None
    status: int | None = None
    code: str | None = None
    reason: str | None = None


class Story(Struct, omit_defaults=True):
    """What a log tells of one order. `order` is its row as of the end, as `pending_orders.jsonl` would have it;
    `unread` are the lines that name it and were not applied.

    `origin`: `submitted` where the log says that it was asked for here (3.13), with the `intents`, or that the order
    was whose leg it is; `adopted` where the broker told of it first. None where the log has no event of it.
    """

    order_id: str
    origin: Literal["submitted", "adopted"] | None = None
    intents: list[StoryIntent] = []
    open: bool = False
    order: dict[str, Any] = {}
    events: list[StoryEvent] = []
    unread: list[Finding] = []


class _Kept(Struct):
    raw: msgspec.Raw = msgspec.Raw()


_decode_intent = msgspec.json.Decoder(StoryIntent).decode
_decode_kept = msgspec.json.Decoder(_Kept).decode
_NOT_CHANGES = ("order_id", "team_id", "status", "updated_at")


def build_story(order_id: str, pieces: Iterable[tuple[Placed | Finding, bytes]], team: Team, raw: bool) -> Story:
    """The story of an order from the pieces of the lines that name it, in log order; `raw` keeps their bytes."""
    story = Story(order_id)
    order: Order | None = None
    with exactly():
        for piece, data in pieces:
            if isinstance(piece, Finding):
                last = story.events[-1] if story.events else None
                of_event = piece.applied and last is not None and last.offset == piece.offset
                (last.findings if last is not None and of_event else story.unread).append(piece)
                continue
            for part in split_event(piece.event):
                if part.order_id != order_id:
                    continue
                order = order or begin(order_id, piece.event, piece.offset)
                step = _take(order, part, piece, team)
                _add_text(step, data, raw)
                story.events.append(step)
        if order is not None:
            story.order, story.open = _row(order, team.team_id), order.open
    return story


def read_story_intents(pieces: Iterable[tuple[Placed | Finding, bytes]], client_order_id: str) -> list[StoryIntent]:
    """The intents under a client_order_id among the pieces of the lines that name it, in log order."""
    found = []
    for piece, data in pieces:
        if isinstance(piece, Finding) or not is_intent(piece.event) or piece.event.order_id != client_order_id:
            continue
        try:
            intent = _decode_intent(cut_event(data))
        except (msgspec.DecodeError, UnicodeDecodeError):
            intent = StoryIntent(piece.event.event, client_order_id, piece.event.ts)
        intent.offset = piece.offset
        found.append(intent)
    return found


def _take(order: Order, part: Part, placed: Placed, team: Team) -> StoryEvent:
    """Apply a part of an event to the order, and note what it changed."""
    offset, length, event = placed
    team_id, leg = team.at(offset), part.leg.index if part.leg is not None else None
    before, derived = _row(order, team_id), Derived()
    step = StoryEvent(offset, length, event.event, event.ts, _recorded_at(event), event.source, leg)
    step.reason = event.reason
    step.repeated = is_repeated(order, event, part)
    apply(order, part, placed, team_id, derived)
    after = _row(order, team_id)
    step.status_before, step.status_after = before["status"] or None, after["status"] or None
    step.changes = {
        name: (before.get(name), after.get(name))
        for name in {**after, **before}
        if name not in _NOT_CHANGES
        and before.get(name) != after.get(name)
        and (before["status"] or name != "created_at")
    }
    step.trades, step.findings = derived.trades, derived.findings
    return step


def _row(order: Order, team_id: str) -> dict[str, Any]:
    row: dict[str, Any] = msgspec.to_builtins(build_row(order, team_id))
    return row


def _recorded_at(event: Event) -> str | None:
    if event.recorded_at is None:
        return None
    return rfc3339(int((event.recorded_at - EPOCH).total_seconds()) * 10**9 + event.recorded_at.microsecond * 1000)


def _add_text(step: StoryEvent, data: bytes, raw: bool) -> None:
    """Take from the bytes of an event what decoding it does not keep: `recorded_at` to the letter, and the message."""
    try:
        if step.recorded_at is not None:
            step.recorded_at = decode_named(cut_event(data)).recorded_at or step.recorded_at
        if raw:
            step.raw = _decode_kept(cut_event(data)).raw or None
    except UNREADABLE:
        pass
    if raw:
        step.line = data.decode(errors="replace").rstrip("\n")
