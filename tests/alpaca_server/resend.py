"""What was told, sent again as server-sent events: GET /v2/events/trades and GET /v2beta1/events/activities.

Accounts without it answer 404. Note: `since_id` compares ULIDs as texts, and within a millisecond those are in no
order. An entry that is backfilled has its old time and a new id.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from aiohttp import web

from compactor.core.instants import nanos
from tests.alpaca_server.account import Account
from tests.alpaca_server.orders import Refused

_TRADES = ("fill", "partial_fill", "trade_bust", "trade_correct")


class Entry(NamedTuple):
    """Something to send: when it happened, its id, and its words."""

    at: int
    event_id: str
    is_late: bool
    words: dict[str, Any]


class Resend:
    """Serves both addresses; `available` says which of them the accounts have, `trades`, `activities` or both."""

    def __init__(self, available: frozenset[str]) -> None:
        self.available = available
        self.slow_comment = False
        """Whether the broker says that it dropped messages, once, in the next answer; and drops half of them."""
        self.extra: list[dict[str, Any]] = []
        """Entries of other kinds that the activities have at their end."""
        self.is_endless = False
        """Whether an answer goes on with heartbeats behind its end."""
        self.knows_ids = True
        """Whether `since_id` and `until_id` are known."""
        self._withheld: dict[int, int] = {}
        """By the id of an account the number of updates that it has told before the others were withheld."""
        self._late: dict[str, int] = {}
        """By the id of an update the instant at which it was backfilled."""

    def withhold(self, account: Account) -> None:
        """Leave out what happens from now on, until it is backfilled; the list of FILL activities does as well."""
        self._withheld[id(account)] = len(account.told)
        account.withheld_since = account.exchange.clock.tick()

    def backfill(self, account: Account) -> None:
        """Send what was withheld from now on, with new ids and its old time."""
        now = account.exchange.clock.tick()
        account.withheld_since = None
        for _, update in account.told[self._withheld.pop(id(account), len(account.told)) :]:
            self._late[update["event_id"]] = now

    def calm(self) -> None:
        """Answers are complete from now on, and have an end."""
        self.slow_comment = self.is_endless = False
        self.extra.clear()

    def forget(self, account: Account) -> None:
        """The account was reset: nothing of before is withheld or late."""
        self._withheld.pop(id(account), None)
        account.withheld_since = None

    async def trades(self, account: Account, request: web.Request) -> web.StreamResponse:
        """Every update, as the stream told it."""
        return await self._serve("trades", account, request)

    async def activities(self, account: Account, request: web.Request) -> web.StreamResponse:
        """Fills, busts and corrections."""
        return await self._serve("activities", account, request)

    async def _serve(self, name: str, account: Account, request: web.Request) -> web.StreamResponse:
        if name not in self.available:
            raise Refused(404, 40410000, "endpoint not found.")
        query = request.query
        if not self.knows_ids and {"since_id", "until_id"} & set(query):
            raise Refused(400, 40010001, "unknown parameter")
        if "since" in query and "since_id" in query:
            raise Refused(400, 40010001, "since and since_id can't be used at the same time")
        for last, first in (("until", "since"), ("until_id", "since_id")):
            if last in query and first not in query:
                raise Refused(400, 40010001, f"{first} is required if {last} is specified")
        with contextlib.suppress(ConnectionError):  # Whoever asked has heard enough.
            return await self._tell(name, account, query, request)
        return web.Response(status=500)

    async def _tell(self, name: str, account: Account, query: Any, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await answer.prepare(request)
        await answer.write(b": welcome\n\n")
        sent = 0
        if "since" in query or "since_id" in query:
            sent = await self._write(name, account, query, answer, 0)
        while self.is_endless or not ({"until", "until_id"} & set(query)):
            # Without an end it goes on with what happens from now on.
            await asyncio.sleep(0.02)
            await answer.write(b": heartbeat\n\n")
            if not self.is_endless:
                sent = await self._write(name, account, query, answer, sent or len(account.told))
        return answer

    async def _write(self, name: str, account: Account, query: Any, answer: web.StreamResponse, start: int) -> int:
        with account.exchange.lock:
            told = list(account.told)[: self._withheld.get(id(account))]
        entries = [entry for _, update in told[start:] for entry in self._entries(name, account, update)]
        # Backfilled entries are at the end, whatever their time.
        found = [one for one in sorted(entries, key=lambda one: one.is_late) if _is_wanted(one, query)]
        if self.slow_comment:
            self.slow_comment = False
            found = found[::2]
            await answer.write(b": you are reading too slowly, dropped 1 messages\n\n")
        for entry in found:
            # The same words as on the stream; the field `id` is what a browser would resume with.
            head = f"id: {entry.event_id}\ndata: ".encode()
            await answer.write(head + account.writer.encode(entry.words) + b"\n\n")
        for words in self.extra if name == "activities" else ():
            await answer.write(b"data: " + account.writer.encode(words) + b"\n\n")
        return len(told)

    def _entries(self, name: str, account: Account, update: dict[str, Any]) -> Iterator[Entry]:
        at, late = nanos(str(update["timestamp"])), self._late.get(update["event_id"])
        if name == "trades":
            event_id = update["event_id"] if late is None else account.writer.move_id(update["event_id"], late)
            yield Entry(
                at,
                event_id,
                late is not None,
                {"account_id": account.exchange.account_id, **update, "event_id": event_id},
            )
        elif update["event"] in _TRADES:
            for words in account.writer.replayed_activities(update, account.exchange.account_id):
                event_id = account.writer.move_id(words["ref_id"], late or at)
                if account.writer.has_event_id(words["ref_id"]):
                    words = {"event_id": event_id, **words}
                yield Entry(at, event_id, late is not None, words)


def _is_wanted(entry: Entry, query: Any) -> bool:
    since = nanos(query["since"].replace(" ", "+")) if "since" in query else None
    until = nanos(query["until"].replace(" ", "+")) if "until" in query else None
    if (since is not None and entry.at < since) or (until is not None and entry.at > until):
        return False
    return not (
        ("since_id" in query and entry.event_id <= query["since_id"])
        or ("until_id" in query and entry.event_id > query["until_id"])
    )
