"""The small broker: orders and executions are those of `Exchange`, its words and its HTTP are its own.

Note: orders have a number per symbol, and an order is told as it stands in all: how much is done, and what that cost.
After a bust or a correction the rows of its history are what they would have been without.
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

from tests.alpaca_server.exchange import Exchange
from tests.alpaca_server.faults import SHARES, Faults
from tests.alpaca_server.life import Life
from tests.alpaca_server.orders import Happening, Order, Refused
from tests.alpaca_server.truth import Truth, truth_of

KEY, SECRET = "small-key", "small-secret"
STATES = {
    "pending_new": "queued", "new": "working", "accepted": "taken", "partially_filled": "part", "filled": "complete",
    "canceled": "pulled", "expired": "lapsed", "rejected": "declined", "replaced": "amended",
    "pending_cancel": "pulling", "pending_replace": "amending", "done_for_day": "sleeping", "stopped": "guaranteed",
    "suspended": "frozen", "pending_review": "checked", "calculated": "settling",
}  # fmt: skip
"""What the small broker calls the statuses of the exchange; one that is not here has the same name."""
PAGE = "<html><body>Bad Gateway</body></html>"


class SmallExchange(Exchange):
    """An exchange whose orders are numbered per symbol, and whose references need not be unique."""

    def __init__(self, seed: int = 0, start: str | None = None) -> None:
        self.numbers: dict[str, int] = {}
        self.by_reference: dict[str, list[str]] = {}
        super().__init__(seed, start)

    def _add(self, order: Order) -> None:
        self.numbers[order.symbol] = self.numbers.get(order.symbol, 0) + 1
        order.id = f"{order.symbol}-{self.numbers[order.symbol]}"
        super()._add(order)
        del self.by_client_id[order.client_order_id]
        self.by_reference.setdefault(order.client_order_id, []).append(order.id)


def describe(order: Order) -> dict[str, Any]:
    """An order in the small broker's words."""
    told = {
        "sym": order.symbol, "no": _number(order.id), "ref": order.client_order_id, "dir": order.side[0].upper(),
        "size": order.qty, "cash": order.notional, "kind": order.type, "limit": order.limit_price,
        "trigger": order.stop_price, "trail": order.trail_price, "trail_pct": order.trail_percent,
        "life": order.time_in_force, "state": STATES.get(order.status, order.status), "done": order.filled_qty,
        "cost": order.cost, "born": order.created_at, "moved": order.updated_at, "was": _number(order.replaces),
        "now": _number(order.replaced_by),
    }  # fmt: skip
    return {name: f"{value:f}" if isinstance(value, Decimal) else value for name, value in told.items() if value != ""}


def _number(order_id: str | None) -> int | None:
    return None if order_id is None else int(order_id.rpartition("-")[2])


def list_rows(order: Order) -> list[dict[str, Any]]:
    """The history of an order: after each execution that stands, what is done in all."""
    rows, done, cost = [], Decimal(0), Decimal(0)
    for number, one in enumerate(order.executions, 1):
        if not one.busted:
            done, cost = done + one.qty, cost + one.qty * one.price
            told = {
                "sym": order.symbol,
                "no": _number(order.id),
                "n": number,
                "at": one.at,
                "dir": order.side[0].upper(),
            }
            rows.append({**told, "done": f"{done:f}", "cost": f"{cost:f}"})
    return rows


class SmallServer:
    """Serves one account on loopback. The parameters and control methods are those of `AlpacaServer`."""

    def __init__(self, seed: int = 0, *, start: str | None = None, faults: Faults | None = None) -> None:
        self.key, self.secret = KEY, f"{SECRET}-{seed}"
        self.faults = faults or Faults()
        self.exchange = SmallExchange(seed, start)
        self.clock = self.exchange.clock.unix
        self.life = Life(self.exchange, seed, families=False)
        self.requests: list[str] = []
        self.feeds: list[queue.Queue[bytes]] = []
        self.exchange.listeners.append(self._tell)
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._http.daemon_threads = True
        self._http.server = self  # type: ignore[attr-defined]
        self.is_closed = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that hold its keys."""
        return {"SMALL_KEY": self.key, "SMALL_SECRET": self.secret, "SMALL_URL": self.url}

    def __enter__(self) -> SmallServer:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.is_closed = True
        self._http.shutdown()
        self._http.server_close()

    def live(self, steps: int) -> None:
        self.life.live(steps)

    def truth(self) -> Truth:
        return truth_of(self.exchange)

    def calm(self) -> None:
        for name in SHARES:
            setattr(self.faults, name, 0.0)

    def _tell(self, happening: Happening) -> None:
        for feed in list(self.feeds):
            feed.put(json.dumps({"tell": describe(happening.order)}).encode())


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        server = cast(SmallServer, cast(Any, self.server).server)
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query))
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        server.requests.append(f"{self.command} {self.path}")
        if (self.headers.get("X-Key"), self.headers.get("X-Secret")) != (server.key, server.secret):
            return self._answer(401, {"no": "keys"})
        if parts.path == "/feed":
            return self._feed(server)
        fault = next(
            (one for one in ("server_error", "html_page", "cut_body", "hang") if server.faults.happens(one)), ""
        )
        is_lost = self.command == "POST" and server.faults.happens("crash_after_accept")
        if fault == "hang":
            time.sleep(server.faults.hang_seconds)
            return None
        if fault:
            texts = {"server_error": (503, "{}"), "html_page": (200, PAGE), "cut_body": (200, '[{"sym":"AA')}
            return self._answer(*texts[fault])
        try:
            with server.exchange.lock:
                found = _handle(server.exchange, parts.path, query, body)
        except Refused as refused:
            return self._answer(409, {"no": refused.message})
        return None if is_lost else self._answer(404 if found is None else 200, found)

    def _answer(self, status: int, found: Any) -> None:
        text = (found if isinstance(found, str) else json.dumps(found)).encode()
        with contextlib.suppress(ConnectionError):  # Whoever asked has gone.
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    def _feed(self, server: SmallServer) -> None:
        """Lines of what happens from now on, and an empty one now and then."""
        feed: queue.Queue[bytes] = queue.Queue()
        server.feeds.append(feed)
        try:
            self.send_response(200)
            self.end_headers()
            while not server.is_closed:
                try:
                    line = feed.get(timeout=0.1)
                except queue.Empty:
                    line = b""
                self.wfile.write(line + b"\n")
                self.wfile.flush()
        except OSError:
            pass
        finally:
            server.feeds.remove(feed)


def _handle(exchange: SmallExchange, path: str, query: dict[str, str], body: dict[str, Any]) -> Any:
    """The answer to a request; None for what is not there."""
    if path == "/who":
        return {"who": exchange.account_id}
    if path == "/orders":
        since = int(query.get("since", 0))
        wanted = [
            one for one in exchange.orders.values() if one.submitted_at > since and ("since" in query or one.is_open)
        ]
        return [describe(one) for one in wanted]
    if path == "/history":
        since = int(query["since"])
        wanted = [one for one in exchange.orders.values() if any(row.at > since for row in one.executions)]
        return [row for one in wanted for row in list_rows(one)]
    if path == "/new":
        terms = {"type": body["kind"], "time_in_force": body["life"], "limit_price": body.get("limit")}
        side = "buy" if body["dir"] == "B" else "sell"
        return describe(exchange.place(body["sym"], side, body["size"], client_order_id=body["ref"], **terms))
    if path == "/ref":
        ids = exchange.by_reference.get(query["ref"], [])
        return [describe(exchange.orders[one]) for one in ids]
    order = exchange.orders.get(f"{query['sym']}-{query['no']}")
    if order is None:
        return None
    if path == "/order":
        return describe(order)
    if path == "/rows":
        return list_rows(order)
    if path == "/amend":
        terms = {name: body[ours] for name, ours in (("limit_price", "limit"), ("qty", "size")) if ours in body}
        return describe(exchange.replace(order.id, client_order_id=body.get("ref"), **terms))
    assert path == "/pull"
    exchange.cancel(order.id)
    return describe(order)
