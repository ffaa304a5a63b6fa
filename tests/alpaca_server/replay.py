"""The replay of what was told, as server-sent events: GET /v2/events/trades and GET /v2beta1/events/activities.

Accounts without it answer 404. The rule that surprises: `since_id` compares ULIDs as texts, and within a millisecond
those come in no order; whoever resumes exactly behind an id can miss what happened in the same millisecond.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

from aiohttp import web

from compactor.core.instants import nanos
from tests.alpaca_server.account import Account
from tests.alpaca_server.orders import Refused

_TRADES = ("fill", "partial_fill", "trade_bust", "trade_correct")


class Replay:
    """Serves both addresses; `available` says which of them the accounts have, `trades`, `activities` or both."""

    def __init__(self, available: frozenset[str]) -> None:
        self.available = available
        self.slow_comment = False
        """Whether the broker says that it dropped messages, once, in the next answer; and drops half of them."""

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
        while not ({"until", "until_id"} & set(query)):
            # Without an end it goes on with what happens from now on.
            await asyncio.sleep(0.02)
            sent = await self._write(name, account, query, answer, sent or len(account.told))
        return answer

    async def _write(self, name: str, account: Account, query: Any, answer: web.StreamResponse, start: int) -> int:
        with account.exchange.lock:
            told = list(account.told)
        found = list(_wanted(told[start:], query))
        if self.slow_comment:
            self.slow_comment = False
            found = found[::2]
            await answer.write(b": you are reading too slowly, dropped 1 messages\n\n")
        for update in found:
            for event in _events(name, account, update):
                # The same words as on the stream; the field `id` is what a browser would resume with.
                head = f"id: {update['event_id']}\ndata: ".encode()
                await answer.write(head + account.writer.encode(event) + b"\n\n")
        return len(told)


def _wanted(told: list[tuple[int, dict[str, Any]]], query: Any) -> Iterator[dict[str, Any]]:
    since = nanos(query["since"].replace(" ", "+")) if "since" in query else None
    until = nanos(query["until"].replace(" ", "+")) if "until" in query else None
    for at, update in told:
        if (since is not None and at < since) or (until is not None and at > until):
            continue
        if "since_id" in query and update["event_id"] <= query["since_id"]:
            continue
        if "until_id" in query and update["event_id"] > query["until_id"]:
            continue
        yield update


def _events(name: str, account: Account, update: dict[str, Any]) -> list[dict[str, Any]]:
    if name == "trades":
        return [{"account_id": account.exchange.account_id, **update}]
    is_trade = update["event"] in _TRADES
    return account.writer.replayed_activities(update, account.exchange.account_id) if is_trade else []
