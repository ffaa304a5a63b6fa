"""The broker's REST interface: orders, the account and FILL activities, as alpaca-py asks for them.

What an order may do is for `exchange`, how it is worded for `wire`. Note: every answer goes through
the gate, where keys are checked, requests are counted and faults strike; a refused request is counted too.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
import uuid
import zlib
from collections.abc import Awaitable, Callable
from decimal import Decimal
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote

import msgspec
from aiohttp import web

from compactor.core.instants import BadInstant, nanos
from tests.alpaca_server.account import Account
from tests.alpaca_server.faults import Faults
from tests.alpaca_server.orders import Execution, Order, Refused

WINDOW_SECONDS = 60
PAGE = "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
Handler = Callable[[Account, web.Request], Awaitable[web.StreamResponse]]
_decode = msgspec.json.Decoder(float_hook=Decimal).decode


class Gate:
    """Lets requests through to the handlers, or not."""

    def __init__(self, accounts: dict[str, Account], faults: Faults, rate_limit: int | None) -> None:
        self.accounts = accounts
        self.faults = faults
        self.rate_limit = rate_limit
        self.scripted: list[tuple[str, str]] = []
        """Faults to come, in order: a part of "METHOD /path", and the fault's name."""
        self.skew_seconds = 0.0
        """How far the broker's clock is ahead of ours, by the Date of its answers."""
        self.refusal: str | None = None
        """Refuse all: `unauthorized` (401) or `forbidden` (403) as the broker does, `page` as a gateway does (403)."""
        self.poisoned: dict[str, str] = {}
        """Orders that cannot be asked for by id, and the fault of each."""
        self.seen: list[str] = []
        """All requests so far, as "METHOD /path?query"."""

    def wrap(self, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            self.seen.append(f"{request.method} {request.path_qs}")
            if self.refusal is not None:
                return refuse(self.refusal)
            account = self.accounts.get(request.headers.get("APCA-API-KEY-ID", ""))
            if account is None or request.headers.get("APCA-API-SECRET-KEY") != account.secret:
                status = 401 if "APCA-API-KEY-ID" not in request.headers else 403
                return _refusal(status, 40110000, "request is not authorized")
            headers = self._count(account)
            fault = self._fault(account, request)
            if fault == "rate_limited" or int(headers["X-Ratelimit-Remaining"]) < 0:
                return _refusal(429, 42910000, "too many requests.", headers | {"X-Ratelimit-Remaining": "0"})
            if fault is not None:
                return await self._strike(fault, handler, account, request)
            answer = await self._answer(handler, account, request)
            if not answer.prepared:
                answer.headers.update(headers)
            return answer

        return handle

    async def _answer(self, handler: Handler, account: Account, request: web.Request) -> web.StreamResponse:
        try:
            return await handler(account, request)
        except Refused as refused:
            return _refusal(refused.status, refused.code, refused.message)
        except (BadInstant, ArithmeticError, ValueError, KeyError, TypeError) as error:
            return _refusal(422, 40010001, f"request body or query is invalid: {error}")

    def _count(self, account: Account) -> dict[str, str]:
        now, limit = time.time(), self.rate_limit or 1_000_000
        account.requests = [at for at in account.requests if at > now - WINDOW_SECONDS] if self.rate_limit else []
        account.requests.append(now)
        return {
            "Date": formatdate(now + self.skew_seconds, usegmt=True),
            "X-Ratelimit-Limit": str(limit),
            "X-Ratelimit-Remaining": str(limit - len(account.requests)),
            "X-Ratelimit-Reset": str(int(account.requests[0] + WINDOW_SECONDS) + 1),
        }

    def _fault(self, account: Account, request: web.Request) -> str | None:
        asked = f"{request.method} {request.path}"
        order_id = request.match_info.get("id", "")
        order_id = order_id or request.query.get("order_id", "")
        if request.method == "GET" and order_id in account.exchange.orders and order_id in self.poisoned:
            self.faults.struck["poison"] += 1
            return self.poisoned[order_id]
        for number, (part, fault) in enumerate(self.scripted):
            if part in asked:
                del self.scripted[number]
                return fault
        names = ["rate_limited", "server_error", "html_page", "null_body", "cut_body", "hang", "slow", "gateway_page"]
        if request.method == "POST":
            names.append("crash_after_accept")
        return next((name for name in names if self.faults.happens(name)), None)

    async def _strike(self, fault: str, handler: Handler, account: Account, request: web.Request) -> web.StreamResponse:
        if fault == "slow":
            await asyncio.sleep(self.faults.slow_seconds)
            return await self._answer(handler, account, request)
        if fault == "hang":
            await asyncio.sleep(self.faults.hang_seconds)
        if fault == "crash_after_accept":
            await self._answer(handler, account, request)
        if fault in ("hang", "crash_after_accept"):
            # The connection is cut, and nobody knows what the broker did.
            assert request.transport is not None
            request.transport.close()
            return web.Response(status=500)
        if fault == "server_error":
            return _refusal(self.faults.rng.choice((500, 502, 503, 504)), 50010000, "internal server error occurred")
        if fault == "bad_request":
            return _refusal(400, 40010001, "invalid syntax for type uuid")
        if fault == "gateway_page":
            return refuse("page")
        if fault in ("unauthorized", "forbidden"):
            return refuse(fault)
        if fault in ("huge", "bomb", "endless", "drip"):
            return await _send_odd_body(fault, request)
        if fault == "null_body":
            return web.Response(body=b"null", content_type="application/json")
        if fault == "cut_body":
            return web.Response(body=b'[{"id":"61e69015-8549-4b', content_type="application/json")
        assert fault == "html_page", f"there is no fault {fault!r}"
        return web.Response(text=PAGE, content_type="text/html")


def refuse(kind: str) -> web.Response:
    """A refusal of keys by the broker, or a page of a gateway that looks like one."""
    if kind == "page":
        return web.Response(text=PAGE.replace("502 Bad Gateway", "403 Forbidden"), status=403, content_type="text/html")
    if kind == "unauthorized":
        return _refusal(401, 40110000, "request is not authorized")
    return web.json_response({"message": "forbidden."}, status=403)


async def _send_odd_body(fault: str, request: web.Request) -> web.StreamResponse:
    """An answer that is far too large, in several ways, or comes too slowly."""
    headers = {"Content-Type": "application/json"} | ({"Content-Encoding": "gzip"} if fault == "bomb" else {})
    answer = web.StreamResponse(headers=headers)
    with contextlib.suppress(ConnectionError):
        await answer.prepare(request)
        if fault == "bomb":
            await answer.write(_make_bomb())
        elif fault == "drip":
            while True:
                await answer.write(b" ")
                await asyncio.sleep(0.05)
        else:
            for _ in itertools.repeat(None) if fault == "endless" else range(20):
                await answer.write(bytes(1 << 20))
    return answer


def _make_bomb() -> bytes:
    """64 MiB of zeros as gzip: some 64 KiB."""
    packer = zlib.compressobj(9, wbits=16 + zlib.MAX_WBITS)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(64)) + packer.flush()


async def get_account(account: Account, _: web.Request) -> web.Response:
    """GET /v2/account."""
    found = {
        "id": account.exchange.account_id,
        "account_number": "PA3ABCDEFGHI",
        "status": "ACTIVE",
        "currency": "USD",
        "cash": "100000",
        "portfolio_value": "100000",
        "buying_power": "400000",
        "equity": "100000",
        "pattern_day_trader": False,
        "trading_blocked": False,
        "account_blocked": False,
        "created_at": "2026-01-02T15:00:00Z",
    }
    return _json(account, found)


async def post_order(account: Account, request: web.Request) -> web.Response:
    """POST /v2/orders."""
    asked = _decode(await request.read())
    order_class = str(asked.get("order_class") or "")
    if order_class != "mleg" and not asked.get("symbol"):
        raise Refused(422, 40010001, "symbol is required")
    if not asked.get("type") or not asked.get("time_in_force"):
        raise Refused(422, 40010001, "type and time_in_force are required")
    if (asked.get("qty") is None) == (asked.get("notional") is None):
        raise Refused(422, 40010001, "one of qty and notional is required")
    for name in ("qty", "notional"):
        if asked.get(name) is not None and Decimal(str(asked[name])) <= 0:
            raise Refused(422, 40010001, f"{name} must be > 0")
    terms = {name: value for name, value in asked.items() if name not in ("symbol", "side", "qty", "notional")}
    client_order_id = terms.pop("client_order_id", None)
    exchange = account.exchange
    with exchange.lock:
        order = exchange.place(
            asked.get("symbol") or "", asked.get("side") or "buy", asked.get("qty"), notional=asked.get("notional"),
            client_order_id=client_order_id, quiet=True, **terms,
        )  # fmt: skip
        found = account.writer.order(order, nested=True)
        exchange.accept(order.id)
    return _json(account, found)


async def get_orders(account: Account, request: web.Request) -> web.Response:
    """GET /v2/orders: newest first and 50 of them, unless asked otherwise; both bounds are excluded."""
    query = request.query
    nested = query.get("nested", "false").lower() == "true"
    limit = int(query.get("limit", 50))
    if not 1 <= limit <= 500:
        raise Refused(422, 40010001, "limit must be between 1 and 500")
    status, direction = query.get("status", "open"), query.get("direction", "desc")
    symbols = set(unquote(query.get("symbols", "")).split(",")) - {""}
    after = nanos(query["after"].replace(" ", "+")) if query.get("after") else None
    until = nanos(query["until"].replace(" ", "+")) if query.get("until") else None

    def wanted(order: Order) -> bool:
        return (
            (status == "all" or order.is_open == (status == "open"))
            and (after is None or order.submitted_at > after)
            and (until is None or order.submitted_at < until)
            and (not symbols or order.symbol in symbols)
            and (query.get("side") in (None, order.side))
            and not (nested and order.parent is not None)
            and (account.lists_held or status != "open" or order.status != "held")
        )

    with account.exchange.lock:
        found = [order for order in account.exchange.orders.values() if wanted(order)]
        # Orders of one instant come in no order that means anything, but always in the same one.
        found.sort(key=lambda order: (order.submitted_at, order.id), reverse=direction != "asc")
        return _json(account, [account.writer.order(order, nested) for order in found[:limit]])


async def get_order(account: Account, request: web.Request) -> web.Response:
    """GET /v2/orders/{id}."""
    nested = request.query.get("nested", "false").lower() == "true"
    with account.exchange.lock:
        return _json(account, account.writer.order(_found(account, request.match_info["id"]), nested))


async def get_by_client_id(account: Account, request: web.Request) -> web.Response:
    """GET /v2/orders:by_client_order_id."""
    with account.exchange.lock:
        order_id = account.exchange.by_client_id.get(request.query.get("client_order_id", ""))
        return _json(account, account.writer.order(_found(account, order_id or "that client_order_id"), nested=True))


async def patch_order(account: Account, request: web.Request) -> web.Response:
    """PATCH /v2/orders/{id}: the answer is the new order."""
    asked = _decode(await request.read())
    old = _found(account, request.match_info["id"])
    if asked.get("trail") is not None:
        asked["trail_percent" if old.trail_percent is not None else "trail_price"] = asked.pop("trail")
    with account.exchange.lock:
        return _json(account, account.writer.order(account.exchange.replace(old.id, **asked)))


async def delete_order(account: Account, request: web.Request) -> web.Response:
    """DELETE /v2/orders/{id}: 204, and the order is canceled a moment later."""
    account.exchange.cancel(_found(account, request.match_info["id"]).id)
    return web.Response(status=204)


async def delete_orders(account: Account, _: web.Request) -> web.Response:
    """DELETE /v2/orders: cancels all that is open; 207 with the status of each."""
    with account.exchange.lock:
        ids = [order.id for order in account.exchange.orders.values() if order.is_open and order.parent is None]
        for order_id in ids:
            if account.exchange.orders[order_id].is_open:
                account.exchange.cancel(order_id)
    return _json(account, [{"id": order_id, "status": 200} for order_id in ids], status=207)


async def get_positions(account: Account, _: web.Request) -> web.Response:
    """GET /v2/positions: what executions, the opening and other movements add up to; a pair has no slash here."""
    held = dict(account.opening)
    with account.exchange.lock:
        for order in account.exchange.orders.values():
            if not order.is_multi_leg:
                sign = 1 if order.side == "buy" else -1
                symbol = order.symbol.replace("/", "")
                held[symbol] = held.get(symbol, Decimal(0)) + sign * order.filled_qty
    for one in account.moved:
        held[one["symbol"]] = held.get(one["symbol"], Decimal(0)) + one.get("moves", Decimal(one["qty"]))
    found = [
        {
            "asset_id": str(uuid.uuid5(uuid.NAMESPACE_OID, symbol)), "symbol": symbol, "exchange": "NASDAQ",
            "asset_class": "us_equity", "avg_entry_price": "100", "qty": qty, "qty_available": qty,
            "side": "long" if qty > 0 else "short", "market_value": "0", "cost_basis": "0", "unrealized_pl": "0",
            "unrealized_plpc": "0", "unrealized_intraday_pl": "0", "unrealized_intraday_plpc": "0",
            "current_price": "100", "lastday_price": "100", "change_today": "0", "asset_marginable": True,
        }
        for symbol, qty in sorted(held.items())
        if qty
    ]  # fmt: skip
    return _json(account, found)


async def get_activities(account: Account, request: web.Request) -> web.Response:
    """GET /v2/account/activities: those that are no fills, of the kinds that are asked for; all on one page."""
    kinds = set(request.query.get("activity_types", "").split(",")) - {""}
    found = [one for one in account.moved if not kinds or one["activity_type"] in kinds]
    return _json(account, [{name: value for name, value in one.items() if name != "moves"} for one in found])


async def get_fills(account: Account, request: web.Request) -> web.Response:
    """GET /v2/account/activities/FILL: newest first, at most 100; `page_token` is the last id seen.

    What was busted is gone from the list, and what was corrected stands in it with its new numbers: an assumption,
    since Alpaca's documentation does not say. `cum_qty` and `leaves_qty` are as they were at the execution.
    """
    query = request.query
    size, direction = int(query.get("page_size", 100)), query.get("direction", "desc")
    if not 1 <= size <= 100:
        raise Refused(422, 40010001, "page_size must be between 1 and 100")
    after = nanos(query["after"].replace(" ", "+")) if query.get("after") else None
    until = nanos(query["until"].replace(" ", "+")) if query.get("until") else None
    token, order_id, writer = query.get("page_token"), query.get("order_id"), account.writer
    name = writer.name_activity

    def wanted(one: Execution) -> bool:
        return (
            (after is None or one.at > after)
            and (until is None or one.at < until)
            and (account.withheld_since is None or one.at < account.withheld_since)
            and order_id in (None, writer.activity_order_id(account.exchange.orders[one.order_id]))
            and (token is None or (name(one) > token if direction == "asc" else name(one) < token))
        )

    with account.exchange.lock:
        standing = [one for order in account.exchange.orders.values() for one in order.standing]
        found = sorted(filter(wanted, standing), key=name, reverse=direction != "asc")
        return _json(account, [account.writer.activity(one) for one in found[:size]])


def _found(account: Account, order_id: str) -> Order:
    order = account.exchange.orders.get(order_id)
    if order is None:
        raise Refused(404, 40410000, f"order not found for {order_id}")
    return order


def _json(account: Account, found: Any, status: int = 200) -> web.Response:
    return web.Response(body=account.writer.encode(found), status=status, content_type="application/json")


def _refusal(status: int, code: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    body = msgspec.json.encode({"code": code, "message": message})
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")
