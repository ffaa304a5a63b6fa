"""A broker that says exactly what a test puts into it: Alpaca's addresses over lists of plain JSON.

It shares nothing with `tests.alpaca_server`, so that both cannot share an error of ours: no exchange, no life of an
order, no wording. `orders` are what REST has, newest last; `hide` are ids that lists do not show; `answer` overrides an
address; frames are pushed to whoever listens.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Any

from aiohttp import WSMsgType, web

Json = dict[str, Any]
OPEN = ("new", "accepted", "pending_new", "partially_filled", "pending_cancel", "pending_replace", "held")
KEY, SECRET = "PKSCRIPTED", "scripted-secret"


class ScriptedAlpaca:
    """The server, in a thread of its own, on loopback."""

    def __init__(self) -> None:
        self.orders: dict[str, Json] = {}
        self.fills: list[Json] = []
        self.activities: list[Json] = []
        self.positions: list[Json] = []
        self.account_id = "9e5e0a1c-0000-4000-8000-000000000001"
        self.hide: set[str] = set()
        self.answers: dict[tuple[str, str], Callable[[web.Request], Any]] = {}
        self.resent: dict[str, list[Json]] = {}
        """What the two addresses of a resend tell, by path; an address that is not in here answers 404."""
        self.sign_in: Callable[[web.Request], Any] | None = None
        self.greeting: str = "authorized"
        self.seen: list[str] = []
        self.bodies: list[Json] = []
        self.listeners: list[web.WebSocketResponse] = []
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "ALPACA_API_KEY": KEY, "ALPACA_SECRET_KEY": SECRET, "APCA_API_BASE_URL": self.url,
            "COMPACTOR_TEAMS": "alpha,beta",
        }  # fmt: skip

    def count(self, part: str) -> int:
        """How many requests had this in them."""
        return sum(part in one for one in self.seen)

    def push(self, *updates: Json) -> None:
        """Tell everybody who listens; waits until somebody does."""
        deadline = time.monotonic() + 20
        while not self.listeners and time.monotonic() < deadline:
            time.sleep(0.01)

        async def send() -> None:
            for one in updates:
                text = json.dumps({"stream": "trade_updates", "data": one})
                for socket in list(self.listeners):
                    await socket.send_bytes(text.encode())

        asyncio.run_coroutine_threadsafe(send(), self._loop).result(10)

    def drop(self) -> None:
        """Close every connection of the stream."""

        async def close() -> None:
            for socket in list(self.listeners):
                await socket.close()

        asyncio.run_coroutine_threadsafe(close(), self._loop).result(10)

    def __enter__(self) -> ScriptedAlpaca:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async def close() -> None:
            for socket in list(self.listeners):
                await socket.close()
            assert self._runner is not None
            await self._runner.cleanup()

        asyncio.run_coroutine_threadsafe(close(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _open(self) -> None:
        app = web.Application(middlewares=[self._gate])
        app.router.add_get("/stream", self._stream)
        app.router.add_route("*", "/{path:.*}", self._route)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]

    @web.middleware
    async def _gate(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.seen.append(f"{request.method} {request.path_qs}")
        if request.can_read_body:
            self.bodies.append(await request.json())
        for path in (request.path, request.path.rpartition("/")[0] + "/*"):
            override = self.answers.get((request.method, path))
            if override is not None:
                answer = override(request)
                if asyncio.iscoroutine(answer):
                    answer = await answer
                if answer is not None:
                    return answer if isinstance(answer, web.StreamResponse) else web.json_response(answer)
        return await handler(request)  # type: ignore[no-any-return]

    async def _route(self, request: web.Request) -> web.StreamResponse:
        path, query = request.path, request.query
        if path == "/v2/account":
            return web.json_response({"id": self.account_id, "status": "ACTIVE"})
        if path == "/v2/positions":
            return web.json_response(self.positions)
        if path == "/v2/orders" and request.method == "GET":
            return web.json_response(self._list(query))
        if path == "/v2/orders:by_client_order_id":
            found = [one for one in self.orders.values() if one["client_order_id"] == query["client_order_id"]]
            return web.json_response(found[-1]) if found else _error(404, 40410000, "order not found")
        if path.startswith("/v2/orders/") and request.method == "GET":
            one = self._find(path.rsplit("/", 1)[1])
            return web.json_response(one) if one else _error(404, 40410000, "order not found")
        if path == "/v2/account/activities/FILL":
            return web.json_response(self._page(self.fills, query))
        if path == "/v2/account/activities":
            return web.json_response(self._page(self.activities, query))
        if path in self.resent:
            lines = "".join(f"data: {json.dumps(one)}\n\n" for one in self.resent[path])
            return web.Response(text=lines, content_type="text/event-stream")
        return _error(404, 40410000, "endpoint not found")

    def _find(self, order_id: str) -> Json | None:
        legs = [leg for one in self.orders.values() for leg in one.get("legs") or ()]
        return self.orders.get(order_id) or next((leg for leg in legs if leg["id"] == order_id), None)

    def _list(self, query: Any) -> list[Json]:
        nested, status = query.get("nested") == "true", query.get("status", "open")
        found = []
        for one in self.orders.values():
            rows = [one] if nested else [{**one, "legs": None}, *(one.get("legs") or ())]
            found += rows
        if status == "open":
            found = [one for one in found if one["status"] in OPEN and one["status"] != "held"]
        after, until = query.get("after"), query.get("until")
        found = [one for one in found if one["id"] not in self.hide]
        found = [one for one in found if after is None or _instant(one["submitted_at"]) > _instant(after)]
        found = [one for one in found if until is None or _instant(one["submitted_at"]) < _instant(until)]
        found.sort(key=lambda one: _instant(one["submitted_at"]), reverse=query.get("direction", "desc") == "desc")
        return found[: int(query.get("limit", 50))]

    def _page(self, activities: list[Json], query: Any) -> list[Json]:
        found = [one for one in activities if query.get("order_id") in (None, one.get("order_id"))]
        kinds = query.get("activity_types")
        found = [one for one in found if kinds is None or one["activity_type"] in kinds.split(",")]
        after, until = query.get("after"), query.get("until")
        found = [one for one in found if after is None or _when(one) > _instant(after)]
        found = [one for one in found if until is None or _when(one) < _instant(until)]
        found.sort(key=lambda one: (_when(one), one["id"]), reverse=query.get("direction", "desc") == "desc")
        ids = [one["id"] for one in found]
        start = ids.index(query["page_token"]) + 1 if query.get("page_token") in ids else 0
        return found[start : start + int(query.get("page_size", 100))]

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        if self.sign_in is not None and (answer := self.sign_in(request)) is not None:
            return answer  # type: ignore[no-any-return]
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                break
            found = json.loads(message.data)
            if found["action"] == "authenticate":
                told = {"status": self.greeting, "action": "authenticate"}
                await socket.send_bytes(json.dumps({"stream": "authorization", "data": told}).encode())
                if self.greeting != "authorized":
                    break
            else:
                told_streams = {"streams": found["data"]["streams"]}
                await socket.send_bytes(json.dumps({"stream": "listening", "data": told_streams}).encode())
                self.listeners.append(socket)
        if socket in self.listeners:
            self.listeners.remove(socket)
        return socket


def _error(status: int, code: int, message: str) -> web.Response:
    return web.json_response({"code": code, "message": message}, status=status)


def error(status: int, code: int, message: str) -> Callable[[web.Request], web.Response]:
    """An answer with a refusal in Alpaca's words."""
    return lambda _request: _error(status, code, message)


def page(status: int, text: str = "<html><body>Forbidden by the gateway</body></html>") -> Callable[[Any], Any]:
    """An answer with a page of a gateway."""
    return lambda _request: web.Response(status=status, text=text, content_type="text/html")


def _instant(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def _when(activity: Json) -> float:
    if "transaction_time" in activity:
        return _instant(activity["transaction_time"])
    return _instant(f"{activity['date']}T00:00:00+00:00")


def ago(seconds: float) -> str:
    """The instant so many seconds ago, as Alpaca writes it."""
    at = time.time() - seconds
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))
    return f"{whole}.{int(at % 1 * 1e6):06}Z"


def make_order(order_id: str, *, name: str | None = None, seconds_ago: float = 3600, **fields: Any) -> Json:
    """An order as Alpaca's specification has it: a limit order to buy 10 AAPL."""
    at = ago(seconds_ago)
    return {
        "id": order_id, "client_order_id": name or f"alpha:{order_id}", "created_at": at, "updated_at": at,
        "submitted_at": at, "filled_at": None, "expired_at": None, "canceled_at": None, "failed_at": None,
        "replaced_at": None, "replaced_by": None, "replaces": None, "asset_id": "b0b6dd9d-8b9b-48a9-ba46-b9d54906e415",
        "symbol": "AAPL", "asset_class": "us_equity", "notional": None, "qty": "10", "filled_qty": "0",
        "filled_avg_price": None, "order_class": "", "order_type": "limit", "type": "limit", "side": "buy",
        "time_in_force": "gtc", "limit_price": "100", "stop_price": None, "status": "new", "extended_hours": False,
        "legs": None, "trail_percent": None, "trail_price": None, "hwm": None, **fields,
    }  # fmt: skip


def make_fill(order_id: str, execution: str, qty: str, price: str, cum: str, seconds_ago: float, **fields: Any) -> Json:
    """A FILL activity of REST."""
    at = ago(seconds_ago)
    stamp = at.replace("-", "").replace("T", "").replace(":", "").replace(".", "")[:17]
    return {
        "id": f"{stamp}::{execution}", "activity_type": "FILL", "transaction_time": at, "type": "partial_fill",
        "price": price, "qty": qty, "side": "buy", "symbol": "AAPL", "leaves_qty": "0", "order_id": order_id,
        "cum_qty": cum, "order_status": "partially_filled", **fields,
    }  # fmt: skip
